//! CreateSession, GetSession, UpdateSession, ListSessions, DeleteSession, PurgeSensitive.

use std::collections::BTreeSet;
use std::time::Duration;

use strongroom::proto::v1::{self, create_session_request, update_session_request};
use tonic::Code;

use crate::requests::{
    create, delete_session, get, list_sessions, millis, new_id, owner, purge, put, read, seconds, span, time,
    update,
};
use crate::site::Site;

const DAY_MS: u64 = 24 * 3600 * 1000;

fn labels(count: usize) -> std::collections::BTreeMap<String, String> {
    (0..count).map(|n| (format!("key-{n}"), format!("value {n}"))).collect()
}

fn ttl(span: prost_types::Duration) -> Option<create_session_request::Expiration> {
    Some(create_session_request::Expiration::Ttl(span))
}

#[tokio::test]
async fn create_session_mints_a_handle_and_says_how_long_it_lives() {
    let site = Site::outside().await;
    let request =
        v1::CreateSessionRequest { owner: Some(owner("alice")), labels: labels(2), ..create(&site.tenant) };
    let outcome = site.app().create_session(request).await;
    let stamp = crate::support::stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let made = site.answered(outcome, "ses.create").await.session.unwrap();
    assert!(made.session_id.starts_with("srs_") && made.session_id.len() == 36, "{}", made.session_id);
    assert_eq!(made.owner, Some(owner("alice")));
    assert_eq!(made.labels, labels(2));
    assert_eq!((made.revision, made.sensitive_purged, made.idle_ttl), (1, false, None));
    assert_eq!(millis(made.expire_time) - millis(made.create_time), DAY_MS);
    assert_eq!(made.expire_time, made.absolute_expire_time);
    let event = site.event(&stamp).await;
    assert_eq!(event["kid"]["kek"], 1);
    assert!(event["sid"].is_string() && event["own"].is_string() && event["act"]["p"].is_string());
    assert_eq!(event["pol"]["authz"], "write");
    for said in [made.session_id.as_str(), "alice", "key-0", "value 0"] {
        assert!(!event.to_string().contains(said), "{event}");
    }

    let other = site.app().create_session(create(&site.tenant)).await.unwrap().into_inner().session.unwrap();
    assert_ne!(other.session_id, made.session_id);
    assert_eq!(other.owner, None);
}

#[tokio::test]
async fn create_session_takes_the_callers_handle_once() {
    let site = Site::outside().await;
    let request = v1::CreateSessionRequest { session_id: "~mine!".to_owned(), ..create(&site.tenant) };
    let made = site.answered(site.app().create_session(request.clone()).await, "ses.create").await;
    assert_eq!(made.session.unwrap().session_id, "~mine!");
    let again = site.app().create_session(request.clone()).await;
    site.refused(again, Code::AlreadyExists, "ALREADY_EXISTS", ("ses.create", "fail")).await;
    // Nor may another owner have it.
    let foreign = v1::CreateSessionRequest { owner: Some(owner("bob")), ..request };
    let again = site.app().create_session(foreign).await;
    site.refused(again, Code::AlreadyExists, "ALREADY_EXISTS", ("ses.create", "fail")).await;
}

#[tokio::test]
async fn create_session_ends_at_the_earlier_of_its_two_ends() {
    let site = Site::outside().await;
    let request = v1::CreateSessionRequest {
        expiration: ttl(seconds(60)),
        idle_ttl: Some(seconds(30)),
        ..create(&site.tenant)
    };
    let made = site.app().create_session(request).await.unwrap().into_inner().session.unwrap();
    assert_eq!(millis(made.expire_time) - millis(made.create_time), 30_000);
    assert_eq!(millis(made.absolute_expire_time) - millis(made.create_time), 60_000);
    assert_eq!(made.idle_ttl, Some(seconds(30)));

    let end = time(millis(made.create_time) + 3_600_500);
    let request = v1::CreateSessionRequest {
        expiration: Some(create_session_request::Expiration::ExpireTime(end)),
        ..create(&site.tenant)
    };
    let made = site.app().create_session(request).await.unwrap().into_inner().session.unwrap();
    assert_eq!(made.expire_time, Some(end));
}

#[tokio::test]
async fn create_session_names_the_field_that_is_wrong() {
    let site = Site::outside().await;
    let base = create(&site.tenant);
    let ends = |expiration| v1::CreateSessionRequest { expiration, ..base.clone() };
    let at = |time| Some(create_session_request::Expiration::ExpireTime(time));
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let absurd = prost_types::Duration { seconds: i64::MAX, nanos: 999_999_999 };
    let cases = [
        ("session_id", v1::CreateSessionRequest { session_id: "a b".to_owned(), ..base.clone() }),
        ("session_id", v1::CreateSessionRequest { session_id: "x".repeat(129), ..base.clone() }),
        ("owner", v1::CreateSessionRequest { owner: Some(owner("")), ..base.clone() }),
        ("owner", v1::CreateSessionRequest { owner: Some(owner(&"x".repeat(257))), ..base.clone() }),
        ("ttl", ends(ttl(negative))),
        ("expiration", ends(ttl(seconds(0)))),
        ("expiration", ends(ttl(span(Duration::from_millis(999))))),
        ("expiration", ends(ttl(seconds(400 * 24 * 3600 + 1)))),
        ("expiration", ends(ttl(absurd))),
        ("expiration", ends(at(time(1)))),
        ("expiration", ends(at(prost_types::Timestamp { seconds: 1 << 40, nanos: 0 }))),
        ("expire_time", ends(at(prost_types::Timestamp { seconds: -1, nanos: 0 }))),
        ("expire_time", ends(at(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }))),
        ("expire_time", ends(at(prost_types::Timestamp { seconds: 0, nanos: -1 }))),
        ("expire_time", ends(at(prost_types::Timestamp { seconds: 0, nanos: i32::MAX }))),
        ("idle_ttl", v1::CreateSessionRequest { idle_ttl: Some(seconds(0)), ..base.clone() }),
        ("idle_ttl", v1::CreateSessionRequest { idle_ttl: Some(negative), ..base.clone() }),
        ("idle_ttl", v1::CreateSessionRequest { idle_ttl: Some(absurd), ..base.clone() }),
        ("labels", v1::CreateSessionRequest { labels: labels(33), ..base.clone() }),
        (
            "labels",
            v1::CreateSessionRequest { labels: [(String::new(), String::new())].into(), ..base.clone() },
        ),
        (
            "labels",
            v1::CreateSessionRequest { labels: [("k".into(), "v".repeat(257))].into(), ..base.clone() },
        ),
        ("request_id", v1::CreateSessionRequest { request_id: "not-a-uuid".to_owned(), ..base.clone() }),
    ];
    for (field, request) in cases {
        site.invalid(site.app().create_session(request).await, field, "ses.create").await;
    }
    let whole = v1::CreateSessionRequest { labels: labels(32), session_id: "x".repeat(128), ..base };
    site.answered(site.app().create_session(whole).await, "ses.create").await;
}

#[tokio::test]
async fn get_session_tells_what_create_session_told() {
    let site = Site::outside().await;
    let request = v1::CreateSessionRequest {
        owner: Some(owner("alice")),
        labels: labels(3),
        idle_ttl: Some(seconds(100)),
        ..create(&site.tenant)
    };
    let made = site.app().create_session(request).await.unwrap().into_inner().session.unwrap();
    let session = v1::SessionRef {
        tenant: site.tenant.clone(),
        session_id: made.session_id.clone(),
        owner: made.owner.clone(),
    };
    let found = site.answered(site.reader().get_session(get(&session)).await, "ses.read").await;
    assert_eq!(found.session, Some(made));
    let none = site.reader().get_session(v1::GetSessionRequest { session: None }).await;
    site.invalid(none, "session", "ses.read").await;
    let empty = v1::SessionRef { session_id: String::new(), ..session };
    site.invalid(site.reader().get_session(get(&empty)).await, "session.session_id", "ses.read").await;
}

#[tokio::test]
async fn update_session_changes_what_is_named_and_nothing_else() {
    let site = Site::outside().await;
    let session = site.create(v1::CreateSessionRequest { labels: labels(2), ..create(&site.tenant) }).await;
    let before = site.app().get_session(get(&session)).await.unwrap().into_inner().session.unwrap();

    let request =
        v1::UpdateSessionRequest { idle_ttl: Some(seconds(50)), expect_revision: 1, ..update(&session) };
    let now = site.answered(site.app().update_session(request).await, "ses.update").await.session.unwrap();
    assert_eq!((now.revision, now.idle_ttl, &now.labels), (2, Some(seconds(50)), &before.labels));
    assert_eq!(now.absolute_expire_time, before.absolute_expire_time);
    assert!(millis(now.expire_time) < millis(now.absolute_expire_time));

    let labels = v1::Labels { labels: [("only".to_owned(), String::new())].into() };
    let request = v1::UpdateSessionRequest {
        labels: Some(labels.clone()),
        idle_ttl: Some(seconds(0)),
        expiration: Some(update_session_request::Expiration::Ttl(seconds(7200))),
        ..update(&session)
    };
    let now = site.answered(site.app().update_session(request).await, "ses.update").await.session.unwrap();
    assert_eq!((now.revision, now.idle_ttl, &now.labels), (3, None, &labels.labels));
    assert!(millis(now.expire_time) < millis(before.expire_time));
    assert_eq!(site.app().get_session(get(&session)).await.unwrap().into_inner().session, Some(now));

    let stale = v1::UpdateSessionRequest { expect_revision: 2, ..update(&session) };
    let refusal = site
        .refused(
            site.app().update_session(stale).await,
            Code::Aborted,
            "REVISION_MISMATCH",
            ("ses.update", "fail"),
        )
        .await;
    assert_eq!(refusal.details, [("current_revision".to_owned(), "3".to_owned())].into());
    for (field, request) in [
        ("session", v1::UpdateSessionRequest::default()),
        (
            "idle_ttl",
            v1::UpdateSessionRequest { idle_ttl: Some(span(Duration::from_nanos(1))), ..update(&session) },
        ),
        ("request_id", v1::UpdateSessionRequest { request_id: "1".to_owned(), ..update(&session) }),
        ("expiration", {
            let expiration = Some(update_session_request::Expiration::ExpireTime(time(5)));
            v1::UpdateSessionRequest { expiration, ..update(&session) }
        }),
    ] {
        site.invalid(site.app().update_session(request).await, field, "ses.update").await;
    }
}

#[tokio::test]
async fn list_sessions_shows_live_ones_of_all_owners_or_of_one() {
    let site = Site::outside().await;
    let mut all = BTreeSet::new();
    for n in 0..7 {
        let owner = (n % 2 == 0).then(|| owner("alice"));
        let made = site.create(v1::CreateSessionRequest { owner, ..create(&site.tenant) }).await;
        all.insert((made.session_id, n % 2 == 0));
    }
    let gone = site.session().await;
    site.app().delete_session(delete_session(&gone)).await.unwrap();

    let mut found = BTreeSet::new();
    let mut request = v1::ListSessionsRequest { page_size: 3, ..list_sessions(&site.tenant) };
    let mut pages = 0;
    loop {
        let page = site.answered(site.app().list_sessions(request.clone()).await, "ses.list").await;
        assert!(page.sessions.len() <= 3);
        found.extend(page.sessions.into_iter().map(|session| (session.session_id, session.owner.is_some())));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, all);
    assert!(pages >= 3, "{pages}");

    let request = v1::ListSessionsRequest { owner: Some(owner("alice")), ..list_sessions(&site.tenant) };
    let page = site.answered(site.app().list_sessions(request).await, "ses.list").await;
    let alices: BTreeSet<_> = page.sessions.into_iter().map(|session| session.session_id).collect();
    assert_eq!(alices, all.iter().filter(|(_, owned)| *owned).map(|(id, _)| id.clone()).collect());
    let nobody = v1::ListSessionsRequest { owner: Some(owner("nobody")), ..list_sessions(&site.tenant) };
    assert_eq!(site.app().list_sessions(nobody).await.unwrap().into_inner().sessions, []);
}

#[tokio::test]
async fn delete_session_leaves_nothing_that_answers() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "entry", "value").await;
    site.answered(site.app().delete_session(delete_session(&session)).await, "ses.delete").await;

    let not_found = (Code::NotFound, "SESSION_NOT_FOUND");
    let (code, reason) = not_found;
    let again = site.app().delete_session(delete_session(&session)).await;
    site.refused(again, code, reason, ("ses.delete", "deny")).await;
    site.refused(site.app().get_session(get(&session)).await, code, reason, ("ses.read", "deny")).await;
    site.refused(site.app().read_entry(read(&session, "entry")).await, code, reason, ("ctx.read", "deny"))
        .await;
    site.refused(site.app().put_entry(put(&session, "entry", "")).await, code, reason, ("ctx.put", "deny"))
        .await;
    let listed = site.app().list_sessions(list_sessions(&site.tenant)).await.unwrap().into_inner();
    assert_eq!(listed.sessions, []);
}

#[tokio::test]
async fn a_session_made_again_under_the_same_handle_sees_nothing_of_the_old_one() {
    let site = Site::outside().await;
    let request = v1::CreateSessionRequest { session_id: "again".to_owned(), ..create(&site.tenant) };
    let session = site.create(request.clone()).await;
    for key in ["a", "b", "c"] {
        site.put(&session, key, "old").await;
    }
    site.app().delete_session(delete_session(&session)).await.unwrap();
    let other = v1::CreateSessionRequest { owner: Some(owner("bob")), ..request };
    let session = site.create(other).await;
    assert_eq!(site.look(&session, "a").await, None);
    let listed = site.app().list_entries(crate::requests::list(&session)).await.unwrap().into_inner();
    assert_eq!(listed.entries, []);
    assert_eq!(site.put(&session, "a", "new").await, 1);
}

#[tokio::test]
async fn purge_sensitive_ends_full_views_and_keeps_redacted_ones() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "entry", "value").await;
    site.app().append_events(crate::requests::append(&session, "stream", &["event"])).await.unwrap();
    let request = v1::PurgeSensitiveRequest { request_id: new_id(), ..purge(&session) };
    let now = site.answered(site.root().purge_sensitive(request.clone()).await, "ses.purge").await;
    let now = now.session.unwrap();
    assert!(now.sensitive_purged);
    assert_eq!(now.revision, 2);
    assert_eq!(site.root().purge_sensitive(request).await.unwrap().into_inner().session, Some(now));

    assert_eq!(site.look(&session, "entry").await, Some((1, b"value".to_vec())));
    let (code, reason) = (Code::FailedPrecondition, "SENSITIVE_PURGED");
    let full = v1::View::Full.into();
    let request = v1::ReadEntryRequest { view: full, ..read(&session, "entry") };
    site.refused(site.app().read_entry(request).await, code, reason, ("ctx.reveal", "fail")).await;
    let request = v1::ReadBatchRequest { view: full, ..crate::requests::read_batch(&session, &["entry"]) };
    site.refused(site.app().read_batch(request).await, code, reason, ("ctx.reveal", "fail")).await;
    let request = v1::ReadEventsRequest { view: full, ..crate::requests::events(&session, "stream") };
    site.refused(site.app().read_events(request).await, code, reason, ("evt.read", "fail")).await;
    let request = v1::DeleteEntryRequest { view: full, ..crate::requests::consume(&session, "entry") };
    site.refused(site.app().delete_entry(request).await, code, reason, ("ctx.consume", "fail")).await;
    assert_eq!(site.look(&session, "entry").await, Some((1, b"value".to_vec())));
    // A session that stays active can be written to.
    assert_eq!(site.put(&session, "entry", "more").await, 2);
}
