//! Unknown, foreign, another owner's, deleted: they must look the same.

use strongroom::proto::v1::{self, Scope};
use tonic::{Code, Response, Status};

use crate::requests::{
    append, consume, create, delete, delete_session, events, get, list, new_put, owner, purge, put, read,
    read_batch, update, watch, write_batch, write_put,
};
use crate::site::Site;
use crate::support::{Context, Refusal, refused};

/// What one method says about a session.
type Says = fn(Context, v1::SessionRef) -> futures_util::future::BoxFuture<'static, Refusal>;

fn not_found<T>(outcome: Result<Response<T>, Status>) -> Refusal {
    refused(outcome, Code::NotFound, "SESSION_NOT_FOUND")
}

/// Every method of the data plane that names a session.
const METHODS: [(&str, Says); 13] = [
    ("GetSession", |mut app, at| Box::pin(async move { not_found(app.get_session(get(&at)).await) })),
    ("UpdateSession", |mut app, at| {
        Box::pin(async move { not_found(app.update_session(update(&at)).await) })
    }),
    ("DeleteSession", |mut app, at| {
        Box::pin(async move { not_found(app.delete_session(delete_session(&at)).await) })
    }),
    ("PurgeSensitive", |mut app, at| {
        Box::pin(async move { not_found(app.purge_sensitive(purge(&at)).await) })
    }),
    ("PutEntry", |mut app, at| Box::pin(async move { not_found(app.put_entry(put(&at, "k", "v")).await) })),
    ("ReadEntry", |mut app, at| Box::pin(async move { not_found(app.read_entry(read(&at, "k")).await) })),
    ("DeleteEntry", |mut app, at| {
        Box::pin(async move { not_found(app.delete_entry(delete(&at, "k")).await) })
    }),
    ("consume", |mut app, at| Box::pin(async move { not_found(app.delete_entry(consume(&at, "k")).await) })),
    ("ListEntries", |mut app, at| Box::pin(async move { not_found(app.list_entries(list(&at)).await) })),
    ("ReadBatch", |mut app, at| {
        Box::pin(async move { not_found(app.read_batch(read_batch(&at, &["k"])).await) })
    }),
    ("WriteBatch", |mut app, at| {
        let request = write_batch(&at, vec![write_put(new_put("k", "v"))]);
        Box::pin(async move { not_found(app.write_batch(request).await) })
    }),
    ("AppendEvents", |mut app, at| {
        Box::pin(async move { not_found(app.append_events(append(&at, "s", &["x"])).await) })
    }),
    ("ReadEvents", |mut app, at| Box::pin(async move { not_found(app.read_events(events(&at, "s")).await) })),
];

#[tokio::test]
async fn unknown_deleted_and_other_owners_sessions_are_told_apart_by_nothing() {
    let site = Site::outside().await;
    let alices =
        site.create(v1::CreateSessionRequest { owner: Some(owner("alice")), ..create(&site.tenant) }).await;
    let nobodys = site.session().await;
    for session in [&alices, &nobodys] {
        site.put(session, "k", "v").await;
        site.app().append_events(append(session, "s", &["x"])).await.unwrap();
    }
    let deleted =
        site.create(v1::CreateSessionRequest { owner: Some(owner("bob")), ..create(&site.tenant) }).await;
    site.app().delete_session(delete_session(&deleted)).await.unwrap();
    let presented = |session: &v1::SessionRef, owner| v1::SessionRef { owner, ..session.clone() };
    let other_client = v1::Owner { client_id: String::new(), ..owner("alice") };
    let other_issuer = v1::Owner { issuer: "https://other.example".to_owned(), ..owner("alice") };
    // Present an owner of another size and shape each time: nothing of it may come back.
    let hidden = [
        presented(&alices, Some(owner("bob"))),
        presented(&alices, Some(other_client)),
        presented(&alices, Some(other_issuer)),
        presented(&alices, None),
        presented(&nobodys, Some(owner("bob"))),
        deleted.clone(),
        presented(&deleted, None),
        presented(&deleted, Some(owner("alice"))),
    ];
    let unknown = v1::SessionRef { session_id: "srs_nobody".to_owned(), ..nobodys.clone() };
    // With all scopes, so that PurgeSensitive is among them.
    let app = site.root();
    for (method, says) in METHODS {
        let expected = says(app.clone(), unknown.clone()).await.without_place();
        assert_eq!(expected.text, "there is no such session");
        assert!(expected.details.is_empty() && expected.stamp.is_some());
        for at in &hidden {
            let found = says(app.clone(), at.clone()).await.without_place();
            assert_eq!(found, expected, "{method}");
        }
    }
    let expected = not_found(site.app().watch_session(watch(&unknown)).await).without_place();
    for at in &hidden {
        assert_eq!(not_found(site.app().watch_session(watch(at)).await).without_place(), expected);
    }
    // And nothing happened to what was hidden.
    assert_eq!(site.look(&alices, "k").await, Some((1, b"v".to_vec())));
    assert_eq!(site.look(&nobodys, "k").await, Some((1, b"v".to_vec())));
}

#[tokio::test]
async fn unknown_and_foreign_tenants_are_told_apart_by_nothing() {
    let (site, other) = (Site::outside().await, Site::outside().await);
    let theirs = other.session().await;
    let unknown = v1::SessionRef { tenant: "no-such-tenant".to_owned(), ..theirs.clone() };
    let suspended = v1::SuspendTenantRequest { name: other.tenant.clone(), ..Default::default() };
    let of = async |at: &v1::SessionRef| {
        let outcomes = [
            refused(site.app().get_session(get(at)).await, Code::NotFound, "TENANT_NOT_FOUND"),
            refused(site.app().put_entry(put(at, "k", "v")).await, Code::NotFound, "TENANT_NOT_FOUND"),
            refused(site.app().read_entry(read(at, "k")).await, Code::NotFound, "TENANT_NOT_FOUND"),
            refused(site.app().create_session(create(&at.tenant)).await, Code::NotFound, "TENANT_NOT_FOUND"),
            refused(site.app().read_events(events(at, "s")).await, Code::NotFound, "TENANT_NOT_FOUND"),
        ];
        outcomes.map(|refusal| refusal.without_place())
    };
    assert_eq!(of(&theirs).await, of(&unknown).await);
    other.admin().suspend_tenant(suspended).await.unwrap();
    assert_eq!(of(&theirs).await, of(&unknown).await);

    // The same on the control plane, for who may rotate the keys of one tenant.
    let secret = site.token(&[Scope::Keys, Scope::Audit], &[&site.tenant]).await;
    let mut keys = site.control(Some(&secret));
    let rotate = |tenant: &str| v1::RotateKekRequest { tenant: tenant.to_owned(), ..Default::default() };
    let one = refused(keys.rotate_kek(rotate(&other.tenant)).await, Code::NotFound, "TENANT_NOT_FOUND");
    let two = refused(keys.rotate_kek(rotate("no-such-tenant")).await, Code::NotFound, "TENANT_NOT_FOUND");
    assert_eq!(one.without_place(), two.without_place());
    let search = |tenant: &str| crate::requests::search(tenant);
    let one = refused(keys.search_audit(search(&other.tenant)).await, Code::NotFound, "TENANT_NOT_FOUND");
    let two = refused(keys.search_audit(search("no-such-tenant")).await, Code::NotFound, "TENANT_NOT_FOUND");
    assert_eq!(one.without_place(), two.without_place());
}

#[tokio::test]
async fn an_expired_session_tells_its_owner_alone() {
    let site = Site::inside().await;
    let ttl = v1::create_session_request::Expiration::Ttl(crate::requests::seconds(60));
    let session = site
        .create(v1::CreateSessionRequest {
            owner: Some(owner("alice")),
            expiration: Some(ttl),
            ..create(&site.tenant)
        })
        .await;
    let unknown = v1::SessionRef { session_id: "srs_nobody".to_owned(), ..session.clone() };
    let others = [None, Some(owner("bob"))].map(|owner| v1::SessionRef { owner, ..session.clone() });
    site.world().clock.advance(std::time::Duration::from_secs(60));
    for swept in [false, true] {
        if swept {
            site.world().sweep().await;
        }
        for (method, says) in METHODS {
            let expected = says(site.root(), unknown.clone()).await.without_place();
            for at in &others {
                assert_eq!(says(site.root(), at.clone()).await.without_place(), expected, "{method} {swept}");
            }
        }
        let expired = site.app().get_session(get(&session)).await;
        refused(expired, Code::FailedPrecondition, "SESSION_EXPIRED");
    }
}
