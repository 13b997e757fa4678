//! What format version 1 stored. The files in `tests/golden/keyring-v1` are never edited: a program that cannot open them
//! cannot open the stores of its users.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use strongroom::crypto::{Header, Kind, Place, open, recovery, seal};
use strongroom::keyring::{KeyFile, Keyring, SessionKeys, Tenant};
use strongroom::model::{KekState, KekVersion, Revision, StoreId, TenantName, TenantState, Timestamp};
use strongroom::store::{Key, MemoryEngine, Row, RowExpect, ScanRange, StorageEngine, keys};

use super::{NOW, entropy, put};

const TENANT: &str = "golden";
const LATER: Timestamp = Timestamp::from_millis(1_790_000_100_000);
const BODY: &[u8] = b"a body that was sealed under format version 1";

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keyring-v1")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(files().join(name)).unwrap()
}

/// The checked-out file is readable by others, as it may be: nothing but this test depends on it.
fn key_file() -> KeyFile {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("root.key");
    std::fs::write(&path, text("root.key")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    KeyFile::open(&path, entropy()).unwrap()
}

async fn stored() -> MemoryEngine {
    let engine = MemoryEngine::new();
    for line in text("rows.txt").lines().filter(|line| !line.starts_with('#')) {
        let (key, row) = line.split_once(' ').unwrap();
        let key = Key::from_stored(HEXLOWER.decode(key.as_bytes()).unwrap());
        let row = Row::from_stored(HEXLOWER.decode(row.as_bytes()).unwrap().into());
        put(&engine, &key, row, RowExpect::Absent).await;
    }
    engine
}

async fn only(engine: &MemoryEngine, table: u8) -> (Key, Row) {
    let mut rows = engine.scan(ScanRange::prefix([table]), 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn entry_place<'a>(store: StoreId, tenant: &Tenant, session: &'a Key) -> Place<'a> {
    Place { store, tenant: tenant.tenant_ref(), session: session.session(), key: b"golden entry" }
}

fn entry_header(keys: &SessionKeys) -> Header {
    Header { kind: Kind::Entry, key_id: keys.body_id(), revision: 7 }
}

async fn check(keyring: &Keyring, engine: &MemoryEngine) {
    let (key, row) = only(engine, b'T').await;
    let tenant = keyring.open_tenant(&key, &row).unwrap();
    assert_eq!((tenant.name().as_str(), tenant.revision().get()), (TENANT, 3));
    assert_eq!((tenant.state(), tenant.state_changed()), (TenantState::Suspended, LATER));
    assert_eq!((tenant.created(), keyring.system().created()), (NOW, NOW));
    let states: Vec<_> = tenant.keks().iter().map(|of| (of.version, of.state)).collect();
    assert_eq!(states, [(KekVersion(1), KekState::Enabled), (KekVersion(2), KekState::Primary)]);

    let (session, row) = only(engine, b'S').await;
    assert_eq!(
        session,
        keys::session(tenant.tenant_ref().id, &tenant.index().blind("golden", &[b"session"]))
    );
    let [body, sensitive, entry] = row.exactly().unwrap();
    let keys = keyring.open_session_keys(&tenant, &session, body, Some(sensitive)).unwrap();
    let place = entry_place(keyring.store_id(), &tenant, &session);
    let opened = open(keys.body(), entry_header(&keys), &place, entry).unwrap();
    assert_eq!(opened.as_bytes(), BODY);
    assert!(keys.sensitive().is_some());
}

#[tokio::test]
async fn what_version_1_stored_opens_with_its_keyring_file() {
    let engine = stored().await;
    let keyring = super::open(&engine, &key_file()).await.unwrap();
    check(&keyring, &engine).await;
}

#[tokio::test]
async fn what_version_1_stored_opens_with_its_recovery_key() {
    let engine = stored().await;
    let key = recovery::read_private(&text("recovery.key")).unwrap();
    let keyring = Keyring::recover(&engine, &key, entropy()).await.unwrap();
    check(&keyring, &engine).await;
}

/// Made the files once. A new format version gets a directory of its own.
#[tokio::test]
#[ignore = "writes the files, where there are none"]
async fn write() {
    assert!(!files().join("rows.txt").exists(), "golden files are never edited");
    let provider = KeyFile::create(&files().join("root.key"), entropy()).unwrap();
    let private = recovery::generate(&strongroom::env::SystemEntropy::new()).unwrap();
    std::fs::write(files().join("recovery.key"), recovery::write_private(&private).as_bytes()).unwrap();
    let engine = MemoryEngine::new();
    let keyring = Keyring::open(&engine, &provider, &[private.public()], entropy(), NOW).await.unwrap();

    let (key, _, tenant) = keyring.create_tenant(&TenantName::new(TENANT).unwrap(), NOW).unwrap();
    let session = keys::session(tenant.tenant_ref().id, &tenant.index().blind("golden", &[b"session"]));
    let made = keyring.create_session_keys(&tenant, &session).unwrap();
    let place = entry_place(keyring.store_id(), &tenant, &session);
    let entropy = strongroom::env::SystemEntropy::new();
    let entry = seal(made.keys.body(), entry_header(&made.keys), &place, BODY, &entropy).unwrap();
    let row = Row::new(Revision::FIRST, &[&made.body, &made.sensitive, &entry]);
    put(&engine, &session, row, RowExpect::Absent).await;

    let rotated = keyring.open_tenant(&key, &keyring.add_kek(&tenant, true, NOW).unwrap().0).unwrap();
    let suspended = keyring.set_tenant_state(&rotated, TenantState::Suspended, LATER).unwrap();
    put(&engine, &key, suspended, RowExpect::Absent).await;

    let mut lines = String::from("# row key, row\n");
    for (key, row) in engine.scan(ScanRange::prefix([]), 100).await.unwrap() {
        lines += &format!("{} {}\n", HEXLOWER.encode(key.as_bytes()), HEXLOWER.encode(row.as_bytes()));
    }
    std::fs::write(files().join("rows.txt"), lines).unwrap();
}
