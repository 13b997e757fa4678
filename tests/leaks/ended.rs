//! The keys of a session that has ended leave memory with it, even when the caller who ended it does not wait for the answer.

use std::pin::pin;
use std::task::Poll;

use strongroom::keyring::Tenant;
use strongroom::proto::v1;
use strongroom::store::{Key, Operation, Row, ScanRange, StorageEngine as _, Table, keys};
use tonic::Status;

use crate::support::{Inside, Login, answered, until};

/// A session in memory, as its row and its tenant's have it.
struct Live {
    session: v1::SessionRef,
    tenant: std::sync::Arc<Tenant>,
    key: Key,
    row: Row,
}

async fn live(inside: &Inside) -> Live {
    let create = v1::CreateSessionRequest { tenant: "demo".to_owned(), ..Default::default() };
    let made = answered(inside.context(Login::Admin).create_session(create).await).0.session.unwrap();
    let session = v1::SessionRef { tenant: "demo".to_owned(), session_id: made.session_id, owner: None };
    // Whoever asks has the keys opened.
    let get = v1::GetSessionRequest { session: Some(session.clone()) };
    answered(inside.context(Login::Admin).get_session(get).await);
    let engine = inside.engine.inner();
    let mut tenants = engine.scan(ScanRange::prefix(keys::table(Table::Tenant)), 2).await.unwrap();
    let (key, row) = tenants.pop().unwrap();
    let tenant = inside.keyring.open_tenant(&key, &row).unwrap();
    let id = tenant.index().blind("session", &[session.session_id.as_bytes()]);
    let key = keys::session(tenant.tenant_ref().id, &id);
    let row = engine.multi_get(std::slice::from_ref(&key)).await.unwrap().remove(0).unwrap();
    Live { session, tenant, key, row }
}

/// Whether the keyring has the session's keys in memory. It has them afterwards.
fn is_remembered(inside: &Inside, live: &Live) -> bool {
    let [body, sensitive, _] = live.row.exactly().unwrap();
    let before = inside.keyring.stats().sessions.hits;
    inside.keyring.open_session_keys(&live.tenant, &live.key, body, Some(sensitive)).unwrap();
    inside.keyring.stats().sessions.hits > before
}

/// Begins a call and hangs up as soon as its commit has begun. (One that nobody waits for any more is not even begun.)
async fn hang_up<T>(inside: &Inside, call: impl Future<Output = Result<tonic::Response<T>, Status>>) {
    let before = inside.engine.calls(Operation::Commit);
    let mut call = pin!(call);
    let answered = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
    assert!(!answered, "the call did not wait for its commit");
    until("the commit", || (inside.engine.calls(Operation::Commit) > before).then_some(())).await;
}

/// Waits until the row of a session is another one.
async fn changed(inside: &Inside, live: &Live) {
    let rows = || async { inside.engine.inner().multi_get(std::slice::from_ref(&live.key)).await.unwrap() };
    let mut now = rows().await;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(1));
    while now[0].as_ref() == Some(&live.row) {
        ticks.tick().await;
        now = rows().await;
    }
}

#[tokio::test]
async fn the_keys_of_a_destroyed_tenants_sessions_are_forgotten_although_the_caller_hung_up() {
    let inside = Inside::open().await;
    let live = live(&inside).await;
    let mut control = inside.control(Login::Admin);
    let name = || "demo".to_owned();
    let suspend = v1::SuspendTenantRequest { name: name(), ..Default::default() };
    answered(control.suspend_tenant(suspend).await);
    assert!(is_remembered(&inside, &live));
    let grace = Some(prost_types::Duration::default());
    let destroy = v1::DestroyTenantRequest { name: name(), grace, expect_sessions: 1, ..Default::default() };
    hang_up(&inside, control.destroy_tenant(destroy)).await;
    inside.committer.shutdown().await;
    assert!(!is_remembered(&inside, &live));
}

#[tokio::test]
async fn the_keys_of_a_session_in_use_are_remembered() {
    let inside = Inside::open().await;
    let live = live(&inside).await;
    assert!(is_remembered(&inside, &live));
}

#[tokio::test]
async fn the_keys_of_a_deleted_session_are_forgotten_although_the_caller_hung_up() {
    let inside = Inside::open().await;
    let live = live(&inside).await;
    let mut context = inside.context(Login::Admin);
    let delete = v1::DeleteSessionRequest { session: Some(live.session.clone()), ..Default::default() };
    hang_up(&inside, context.delete_session(delete)).await;
    changed(&inside, &live).await;
    inside.committer.shutdown().await;
    assert!(!is_remembered(&inside, &live));
}

#[tokio::test]
async fn the_key_of_a_purged_part_is_forgotten_although_the_caller_hung_up() {
    let inside = Inside::open().await;
    let live = live(&inside).await;
    let mut context = inside.context(Login::Admin);
    let purge = v1::PurgeSensitiveRequest { session: Some(live.session.clone()), ..Default::default() };
    hang_up(&inside, context.purge_sensitive(purge)).await;
    changed(&inside, &live).await;
    inside.committer.shutdown().await;
    assert!(!is_remembered(&inside, &live));
}

#[tokio::test]
async fn the_keys_of_sessions_under_a_destroyed_version_are_forgotten_although_the_caller_hung_up() {
    let inside = Inside::open().await;
    let live = live(&inside).await;
    let mut control = inside.control(Login::Admin);
    let tenant = || "demo".to_owned();
    answered(control.rotate_kek(v1::RotateKekRequest { tenant: tenant(), ..Default::default() }).await);
    assert!(is_remembered(&inside, &live));
    let grace = Some(prost_types::Duration::default());
    let destroy = v1::DestroyKekRequest {
        tenant: tenant(),
        version: 1,
        grace,
        expect_sessions: 1,
        ..Default::default()
    };
    hang_up(&inside, control.destroy_kek(destroy)).await;
    inside.committer.shutdown().await;
    assert!(!is_remembered(&inside, &live));
}
