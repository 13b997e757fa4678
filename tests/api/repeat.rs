//! The same answer to the same request, for every mutation.

use std::time::Duration;

use strongroom::crypto::{Secret, WrappingPublicKey};
use strongroom::env::SystemEntropy;
use strongroom::proto::v1::{self, Scope};
use tonic::Code;

use crate::requests::{
    append, consume, create, delete, delete_session, events, new_id, new_put, owner, purge, put, put_of,
    seconds, update, write_batch, write_put,
};
use crate::site::Site;
use crate::support::{answered, refused};

/// Makes a call twice: the answers must be equal. Then with the change `$other` under the same id: refused.
macro_rules! repeats {
    ($client:expr, $call:ident, $request:expr, $other:expr) => {{
        let mut request = $request;
        request.request_id = new_id();
        let (first, one) = answered($client.$call(request.clone()).await);
        let (again, two) = answered($client.$call(request.clone()).await);
        assert_eq!(first, again);
        assert!(one.log == two.log && one.sequence < two.sequence, "the repetition is on record of its own");
        let mut changed = request.clone();
        $other(&mut changed);
        assert_ne!(changed, request);
        let outcome = $client.$call(changed).await;
        refused(outcome, Code::InvalidArgument, "REQUEST_ID_REUSED");
        (request, first)
    }};
}

#[tokio::test]
async fn sessions_are_created_updated_purged_and_deleted_once() {
    let site = Site::outside().await;
    let labels = [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
    let request = v1::CreateSessionRequest { labels: labels.into(), ..create(&site.tenant) };
    let (_, made) = repeats!(site.app(), create_session, request, |other: &mut v1::CreateSessionRequest| {
        other.owner = Some(owner("bob"));
    });
    let session = v1::SessionRef {
        tenant: site.tenant.clone(),
        session_id: made.session.unwrap().session_id,
        owner: None,
    };
    let second = site.session().await;
    let request = v1::UpdateSessionRequest { idle_ttl: Some(seconds(60)), ..update(&session) };
    let (_, now) = repeats!(site.app(), update_session, request, |other: &mut v1::UpdateSessionRequest| {
        other.idle_ttl = Some(seconds(61));
    });
    assert_eq!(now.session.unwrap().revision, 2);
    let (_, now) =
        repeats!(site.root(), purge_sensitive, purge(&session), |other: &mut v1::PurgeSensitiveRequest| {
            other.session = Some(second.clone());
        });
    assert_eq!(now.session.unwrap().revision, 3);
    repeats!(site.app(), delete_session, delete_session(&session), |other: &mut v1::DeleteSessionRequest| {
        other.session = Some(second.clone());
    });
}

#[tokio::test]
async fn entries_and_events_are_written_once() {
    let site = Site::outside().await;
    let session = site.session().await;
    let other_value = |other: &mut v1::PutEntryRequest| other.put.as_mut().unwrap().value = vec![9].into();
    repeats!(site.app(), put_entry, put(&session, "key", "value"), other_value);
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));

    let writes = vec![write_put(new_put("key", "2")), write_put(new_put("more", "1"))];
    repeats!(site.app(), write_batch, write_batch(&session, writes), |other: &mut v1::WriteBatchRequest| {
        other.writes.pop();
    });
    assert_eq!(site.look(&session, "key").await, Some((2, b"2".to_vec())));

    repeats!(site.app(), delete_entry, delete(&session, "key"), |other: &mut v1::DeleteEntryRequest| {
        other.return_value = true;
    });
    let request = append(&session, "stream", &["1", "2"]);
    repeats!(site.app(), append_events, request, |other: &mut v1::AppendEventsRequest| {
        other.events[0].data = vec![3].into();
    });
    let (mut stream, _) = answered(site.app().read_events(events(&session, "stream")).await);
    assert_eq!(stream.message().await.unwrap().unwrap().events.len(), 2);
}

#[tokio::test]
async fn who_consumed_an_entry_may_ask_again_and_nobody_else() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "once", "the value").await;
    let request = v1::DeleteEntryRequest { request_id: new_id(), ..consume(&session, "once") };
    let (taken, _) = answered(site.app().delete_entry(request.clone()).await);
    assert_eq!(&taken.entry.as_ref().unwrap().value[..], b"the value");
    let (again, place) = answered(site.app().delete_entry(request.clone()).await);
    assert_eq!(again, taken);
    // The value went out again, so the record of it says so.
    let event = site.recorded(&place, "ctx.consume", "ok", None).await;
    assert_eq!((&event["nb"]["out"], &event["res"]["ver"]), (&9.into(), &2.into()));

    let mut other = site.client(&[Scope::Read, Scope::ReadFull, Scope::Write]).await;
    let outcome = other.delete_entry(request.clone()).await;
    refused(outcome, Code::NotFound, "ENTRY_NOT_FOUND");
    let with_new_id = v1::DeleteEntryRequest { request_id: new_id(), ..request };
    refused(site.app().delete_entry(with_new_id).await, Code::NotFound, "ENTRY_NOT_FOUND");
}

#[tokio::test]
async fn an_id_means_one_request_across_methods_and_sessions() {
    let site = Site::outside().await;
    let (session, other) = (site.session().await, site.session().await);
    let id = new_id();
    let first = v1::PutEntryRequest { request_id: id.clone(), ..put(&session, "key", "v") };
    answered(site.app().put_entry(first).await);
    let reused = (Code::InvalidArgument, "REQUEST_ID_REUSED");
    let elsewhere = v1::PutEntryRequest { request_id: id.clone(), ..put(&other, "key", "v") };
    refused(site.app().put_entry(elsewhere).await, reused.0, reused.1);
    let create = v1::CreateSessionRequest { request_id: id.clone(), ..create(&site.tenant) };
    refused(site.app().create_session(create).await, reused.0, reused.1);
    let delete = v1::DeleteEntryRequest { request_id: id.clone(), ..delete(&session, "key") };
    refused(site.app().delete_entry(delete).await, reused.0, reused.1);
    let delete = v1::DeleteSessionRequest { request_id: id, ..delete_session(&session) };
    refused(site.app().delete_session(delete).await, reused.0, reused.1);
    assert_eq!(site.look(&session, "key").await, Some((1, b"v".to_vec())));
    assert_eq!(site.look(&other, "key").await, None);
}

#[tokio::test]
async fn administrators_requests_are_done_once() {
    let site = Site::outside().await;
    let name = format!("{}-more", site.tenant);
    let request = v1::CreateTenantRequest { name: name.clone(), ..Default::default() };
    let other = |other: &mut v1::CreateTenantRequest| other.name.push('x');
    repeats!(site.admin(), create_tenant, request, other);

    let request = v1::RotateKekRequest { tenant: name.clone(), ..Default::default() };
    let other = |other: &mut v1::RotateKekRequest| other.tenant = site.tenant.clone();
    let (_, rotated) = repeats!(site.admin(), rotate_kek, request, other);
    assert_eq!(rotated.kek.unwrap().version, 2);
    let request = v1::DisableKekRequest { tenant: name.clone(), version: 1, ..Default::default() };
    let other = |other: &mut v1::DisableKekRequest| other.version = 2;
    repeats!(site.admin(), disable_kek, request, other);
    let request = v1::DestroyKekRequest { tenant: name.clone(), version: 1, ..Default::default() };
    let other = |other: &mut v1::DestroyKekRequest| other.version = 2;
    let (_, destroy) = repeats!(site.admin(), destroy_kek, request, other);
    assert!(destroy.kek.unwrap().destroy_time.is_some());
    let list = v1::ListKeksRequest { tenant: name.clone(), ..Default::default() };
    assert_eq!(answered(site.admin().list_keks(list).await).0.keks.len(), 2);

    let request = v1::SuspendTenantRequest { name: name.clone(), ..Default::default() };
    let other = |other: &mut v1::SuspendTenantRequest| other.name = site.tenant.clone();
    let (suspend, _) = repeats!(site.admin(), suspend_tenant, request, other);
    let request = v1::ResumeTenantRequest { name: name.clone(), ..Default::default() };
    let other = |other: &mut v1::ResumeTenantRequest| other.name = site.tenant.clone();
    repeats!(site.admin(), resume_tenant, request, other);
    // A late repetition of the suspension answers as it did and does nothing.
    answered(site.admin().suspend_tenant(suspend).await);
    let get = v1::GetTenantRequest { name: name.clone() };
    let tenant = answered(site.admin().get_tenant(get).await).0.tenant.unwrap();
    assert_eq!(tenant.state, i32::from(v1::TenantState::Active));

    let (one, two) = (site.session().await.session_id, site.session().await.session_id);
    let request =
        v1::RotateSessionKeyRequest { tenant: site.tenant.clone(), session_id: one, ..Default::default() };
    let other = |other: &mut v1::RotateSessionKeyRequest| other.session_id = two.clone();
    repeats!(site.admin(), rotate_session_key, request, other);
    let other = |other: &mut v1::SuspendTenantRequest| other.name = site.tenant.clone();
    let request = v1::SuspendTenantRequest { name: name.clone(), ..Default::default() };
    repeats!(site.admin(), suspend_tenant, request, other);
    let request = v1::DestroyTenantRequest { name: name.clone(), ..Default::default() };
    let other = |other: &mut v1::DestroyTenantRequest| other.expect_sessions = 1;
    let (destroy, _) = repeats!(site.admin(), destroy_tenant, request, other);
    let request = v1::UndestroyTenantRequest { name: name.clone(), ..Default::default() };
    let other = |other: &mut v1::UndestroyTenantRequest| other.name = site.tenant.clone();
    repeats!(site.admin(), undestroy_tenant, request, other);
    // A late repetition of the destruction destroys nothing.
    answered(site.admin().destroy_tenant(destroy).await);
    let get = v1::GetTenantRequest { name: name.clone() };
    let tenant = answered(site.admin().get_tenant(get).await).0.tenant.unwrap();
    assert_eq!(tenant.state, i32::from(v1::TenantState::Suspended));

    let request = v1::CreateTokenRequest {
        name: format!("{name}-token"),
        scopes: vec![Scope::Read.into()],
        tenants: vec![name],
        ..Default::default()
    };
    let other = |other: &mut v1::CreateTokenRequest| other.scopes = vec![Scope::Write.into()];
    let (request, made) = repeats!(site.admin(), create_token, request, other);
    assert!(made.secret.starts_with("srt_") && made.secret.len() == 47);
    let request = v1::RevokeTokenRequest { name: request.name, ..Default::default() };
    let other = |other: &mut v1::RevokeTokenRequest| other.name.push('w');
    repeats!(site.admin(), revoke_token, request, other);
}

#[tokio::test]
async fn an_import_is_done_once() {
    let site = Site::outside().await;
    let get = v1::GetWrappingKeyRequest { tenant: site.tenant.clone() };
    let key = answered(site.admin().get_wrapping_key(get).await).0.wrapping_key.unwrap();
    let public = WrappingPublicKey(key.public_key[..].try_into().unwrap());
    let material = Secret::generate(&SystemEntropy::new()).unwrap();
    let request = v1::ImportKekRequest {
        tenant: site.tenant.clone(),
        wrapping_key_uid: key.uid,
        wrapped: public.wrap_now(key.info.as_bytes(), &material).unwrap().0.to_vec().into(),
        ..Default::default()
    };
    let other = |other: &mut v1::ImportKekRequest| other.pending = true;
    let (_, made) = repeats!(site.admin(), import_kek, request, other);
    assert_eq!(made.kek.unwrap().version, 2);
}

#[tokio::test]
async fn answers_are_remembered_for_ten_minutes_and_no_longer() {
    let site = Site::inside().await;
    // At the end of a period, so that the answer is looked for in the one before.
    let into_period = site.world().service.now().as_secs() % 600;
    site.world().clock.advance(Duration::from_secs(599 - into_period));
    let session = site.session().await;
    let request = v1::PutEntryRequest { request_id: new_id(), ..put(&session, "key", "v") };
    let (first, _) = answered(site.app().put_entry(request.clone()).await);
    site.world().clock.advance(Duration::from_millis(599_999));
    site.world().sweep().await;
    assert_eq!(answered(site.app().put_entry(request.clone()).await).0, first);
    site.world().clock.advance(Duration::from_millis(1));
    let (later, _) = answered(site.app().put_entry(request.clone()).await);
    assert_eq!(later.metadata.unwrap().revision, 2);
}

#[tokio::test]
async fn of_64_concurrent_repetitions_one_is_done() {
    let site = Site::outside().await;
    let session = site.session().await;
    let request = v1::PutEntryRequest { request_id: new_id(), ..put(&session, "key", "v") };
    let creating = v1::CreateSessionRequest { request_id: new_id(), ..create(&site.tenant) };
    let calls = (0..64).map(|_| {
        let (mut app, request, creating) = (site.app(), request.clone(), creating.clone());
        async move {
            let made = answered(app.put_entry(request).await).0.metadata.unwrap();
            let created = answered(app.create_session(creating).await).0.session.unwrap();
            (made.revision, created.session_id)
        }
    });
    let made = crate::support::soon(futures_util::future::join_all(calls)).await;
    assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    assert_eq!(made[0].0, 1);
}

#[tokio::test]
async fn a_failed_request_leaves_its_id_free() {
    let site = Site::outside().await;
    let session = site.session().await;
    let request = v1::PutEntryRequest {
        request_id: new_id(),
        ..put_of(&session, v1::Put { expect: crate::requests::revision(1), ..new_put("key", "v") })
    };
    refused(site.app().put_entry(request.clone()).await, Code::Aborted, "REVISION_MISMATCH");
    site.put(&session, "key", "first").await;
    let (made, _) = answered(site.app().put_entry(request).await);
    assert_eq!(made.metadata.unwrap().revision, 2);
}
