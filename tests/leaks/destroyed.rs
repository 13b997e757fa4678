//! What a destruction and a new root epoch leave behind, in a server that goes on: no key of before, in memory or in files.

use std::time::Duration;

use strongroom::crypto::{Secret, WrappingPublicKey};
use strongroom::env::SystemEntropy;
use strongroom::proto::v1;

use crate::keys::{self, RawKey};
use crate::markers::Markers;
use crate::search::{Found, Search, merge};
use crate::support::{Daemon, Login, PATIENCE, Refusal, answered};

const TENANT: &str = "demo";

fn tenant() -> String {
    TENANT.to_owned()
}

/// Makes a version of known material the primary.
async fn import(daemon: &Daemon) -> RawKey {
    let mut control = daemon.control(Login::Admin);
    let get = v1::GetWrappingKeyRequest { tenant: tenant() };
    let key = answered(control.get_wrapping_key(get).await).0.wrapping_key.unwrap();
    let material = Secret::generate(&SystemEntropy::new()).unwrap();
    let public = WrappingPublicKey(key.public_key[..].try_into().unwrap());
    let wrapped = public.wrap_now(key.info.as_bytes(), &material).unwrap().0.to_vec().into();
    let import =
        v1::ImportKekRequest { tenant: tenant(), wrapping_key_uid: key.uid, wrapped, ..Default::default() };
    let made = answered(control.import_kek(import).await).0.kek.unwrap();
    assert!(made.version == 2 && made.state() == v1::KekState::Primary);
    ("the version that was destroyed".to_owned(), *material.expose())
}

/// A session whose keys and value are in memory.
async fn session(daemon: &Daemon) -> v1::SessionRef {
    let mut context = daemon.context(Login::Admin);
    let create = v1::CreateSessionRequest { tenant: tenant(), ..Default::default() };
    let made = answered(context.create_session(create).await).0.session.unwrap();
    let session = v1::SessionRef { tenant: tenant(), session_id: made.session_id, owner: None };
    // What is cut out of it is sealed under the sensitive key.
    let value = b"{\"password\":\"hunter22\"}".to_vec().into();
    let put = v1::Put { key: "key".to_owned(), value, ..Default::default() };
    let put = v1::PutEntryRequest { session: Some(session.clone()), put: Some(put), ..Default::default() };
    answered(context.put_entry(put).await);
    session
}

/// Destroys the version that wraps the session, and ends the root epoch that it was wrapped under.
async fn destroy(daemon: &Daemon) {
    let mut control = daemon.control(Login::Admin);
    answered(control.rotate_kek(v1::RotateKekRequest { tenant: tenant(), ..Default::default() }).await);
    let destroy = v1::DestroyKekRequest {
        tenant: tenant(),
        version: 2,
        grace: Some(prost_types::Duration::default()),
        expect_sessions: 1,
        ..Default::default()
    };
    answered(control.destroy_kek(destroy).await);
    answered(control.rotate_root(v1::RotateRootRequest::default()).await);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let rolled = async {
        while !has_ended(daemon, 1).await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, rolled).await.unwrap();
}

async fn has_ended(daemon: &Daemon, number: u32) -> bool {
    let root = answered(daemon.control(Login::Admin).get_root(v1::GetRootRequest {}).await).0.root.unwrap();
    root.epochs.iter().any(|epoch| epoch.number == number && epoch.end_time.is_some())
}

fn find(daemon: &Daemon, search: &Search<'_>) -> Option<Found> {
    let (mut found, _) = search.files(&daemon.dir().join("data"));
    match search.memory(daemon.pid()) {
        Ok((memory, _)) => merge(&mut found, memory),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            println!("SKIPPED: only root can read the memory of a process that is not dumpable: {error}");
            return None;
        }
    }
    Some(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_memory_nor_files_have_a_key_of_before_a_destruction_and_a_roll() {
    let daemon = Daemon::start().await;
    let version = import(&daemon).await;
    let session = session(&daemon).await;
    let [_, of_session] = keys::of_session(&daemon, TENANT, &session.session_id, "the session").await;
    let before = [vec![version, keys::of_root(&daemon).await], of_session].concat();
    let markers = Markers::new();
    let search = before.iter().fold(Search::new(&markers), |search, (whose, key)| search.bytes(whose, key));
    let get = v1::GetSessionRequest { session: Some(session) };
    answered(daemon.context(Login::Admin).get_session(get.clone()).await);

    let Some(found) = find(&daemon, &search) else { return };
    let in_use: Vec<_> = found.iter().collect();
    let once = found.iter().all(|(what, times)| what.ends_with(" in anonymous memory") && *times == 1);
    assert!(once && found.len() == before.len(), "each is in memory once while it is in use: {in_use:?}");

    destroy(&daemon).await;
    let gone = daemon.context(Login::Admin).get_session(get).await.unwrap_err();
    assert_eq!(Refusal::of(&gone).reason, "KEY_DESTROYED");
    assert_eq!(find(&daemon, &search), Some(Found::new()));
}
