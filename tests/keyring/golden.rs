//! What format version 1 stored, with each version of a tenant's description. The files in `tests/golden` are never edited: a
//! program that cannot open them cannot open the stores of its users.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use strongroom::crypto::{Header, Kind, Place, Secret, WrappingPrivateKey, open, recovery, seal};
use strongroom::keyring::{KekChange, KeyFile, Keyring, SessionKeys, Tenant, TenantChange};
use strongroom::model::{
    Duration, KekOrigin, KekState, KekVersion, Revision, StoreId, TenantName, TenantState, Timestamp,
};
use strongroom::store::{Key, MemoryEngine, Row, RowExpect, ScanRange, StorageEngine, keys};

use super::{NOW, entropy, put};

const TENANT: &str = "golden";
const LATER: Timestamp = Timestamp::from_millis(1_790_000_100_000);
const EVERY: Duration = Duration::from_secs(30 * 24 * 3600);
const BODY: &[u8] = b"a body that was sealed under format version 1";

/// By the version of the tenant's description.
const V1: &str = "keyring-v1";
const V2: &str = "keyring-v2";
const V3: &str = "keyring-v3";
const V4: &str = "keyring-v4";

fn files(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn text(version: &str, name: &str) -> String {
    std::fs::read_to_string(files(version).join(name)).unwrap()
}

/// The checked-out file is readable by others, as it may be: nothing but this test depends on it.
fn key_file(version: &str) -> KeyFile {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("root.key");
    std::fs::write(&path, text(version, "root.key")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    KeyFile::open(&path, entropy()).unwrap()
}

async fn stored(version: &str) -> MemoryEngine {
    let engine = MemoryEngine::new();
    for line in text(version, "rows.txt").lines().filter(|line| !line.starts_with('#')) {
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
    assert!(keyring.sensitive_key(&tenant, &session, &keys).unwrap().is_some());
}

#[tokio::test]
async fn what_version_1_stored_opens_with_its_keyring_file() {
    let engine = stored(V1).await;
    let keyring = super::open(&engine, &key_file(V1)).await.unwrap();
    check(&keyring, &engine).await;
}

#[tokio::test]
async fn what_version_1_stored_opens_with_its_recovery_key() {
    let engine = stored(V1).await;
    let key = recovery::read_private(&text(V1, "recovery.key")).unwrap();
    let keyring = Keyring::recover(&engine, &key, entropy()).await.unwrap();
    check(&keyring, &engine).await;
}

/// The tenants of a store, by name.
async fn tenants(version: &str) -> Vec<Arc<Tenant>> {
    let engine = stored(version).await;
    let keyring = super::open(&engine, &key_file(version)).await.unwrap();
    let rows = engine.scan(ScanRange::prefix([b'T']), 10).await.unwrap();
    let mut tenants: Vec<_> = rows.iter().map(|(key, row)| keyring.open_tenant(key, row).unwrap()).collect();
    tenants.sort_by_key(|tenant| tenant.name().as_str().to_owned());
    tenants
}

/// What versions 2 and 3 say of a tenant that stays: a key that is rotated by itself, with a version that will be destroyed.
fn check_staying(tenant: &Tenant) {
    assert_eq!((tenant.name().as_str(), tenant.state()), (TENANT, TenantState::Suspended));
    assert_eq!((tenant.primary(), tenant.destroy_at()), (Some(KekVersion(2)), None));
    let rotation = tenant.rotation().unwrap();
    assert_eq!((rotation.every, rotation.next), (EVERY, NOW.after(EVERY)));
    let keks: Vec<_> = tenant.keks().iter().map(|of| (of.state, of.destroy_at)).collect();
    assert_eq!(keks, [(KekState::DestroyScheduled, Some(LATER)), (KekState::Primary, None)]);
}

#[tokio::test]
async fn what_was_stored_with_the_second_version_of_descriptions_opens() {
    let [staying] = &tenants(V2).await[..] else { panic!("one tenant") };
    check_staying(staying);
}

#[tokio::test]
async fn what_was_stored_with_the_third_version_of_descriptions_opens() {
    let [gone, doomed, staying] = &tenants(V3).await[..] else { panic!("three tenants") };
    check_staying(staying);
    assert_eq!((doomed.name().as_str(), doomed.state()), ("doomed", TenantState::DestroyScheduled));
    assert_eq!((doomed.destroy_at(), doomed.primary()), (Some(LATER), Some(KekVersion(1))));
    assert_eq!((gone.name().as_str(), gone.state()), ("destroyed", TenantState::Destroyed));
    assert_eq!(
        (gone.destroy_at(), gone.primary(), gone.keks()[0].state),
        (Some(LATER), None, KekState::Destroyed)
    );
}

#[tokio::test]
async fn what_was_stored_with_the_fourth_version_of_descriptions_opens() {
    let [lent, gone, doomed, staying] = &tenants(V4).await[..] else { panic!("four tenants") };
    check_staying(staying);
    assert_eq!((doomed.state(), doomed.destroy_at()), (TenantState::DestroyScheduled, Some(LATER)));
    assert_eq!((gone.state(), gone.primary()), (TenantState::Destroyed, None));
    assert!(lent.exportable() && !staying.exportable() && !doomed.exportable() && !gone.exportable());
    let custody: Vec<_> = lent.keks().iter().map(|of| (of.origin, of.exported)).collect();
    assert_eq!(custody, [(KekOrigin::Generated, Some(LATER)), (KekOrigin::Imported, None)]);
}

/// The row of an exportable tenant, whose first version was exported and whose second was imported.
fn lent(keyring: &Keyring) -> (Key, Row) {
    let name = TenantName::new("custody").unwrap();
    let (key, _, tenant) = keyring.create_exportable_tenant(&name, NOW).unwrap();
    let to = WrappingPrivateKey::generate(&strongroom::env::SystemEntropy::new()).unwrap();
    let row = keyring.export_kek(&tenant, KekVersion(1), &to.public(), LATER).unwrap().row;
    let material = Secret::generate(&strongroom::env::SystemEntropy::new()).unwrap();
    let tenant = keyring.open_tenant(&key, &row).unwrap();
    let (row, _) = keyring.import_kek(&tenant, material, true, NOW).unwrap();
    (key, row)
}

/// The row of the tenant that stays.
fn staying(keyring: &Keyring) -> (Key, Row) {
    let (key, _, tenant) = keyring.create_tenant(&TenantName::new(TENANT).unwrap(), NOW).unwrap();
    let rotated = keyring.open_tenant(&key, &keyring.add_kek(&tenant, true, NOW).unwrap().0).unwrap();
    let schedule = KekChange::Schedule(LATER);
    let row = keyring.change_kek(&rotated, KekVersion(1), schedule, NOW).unwrap();
    let row = keyring.set_rotation(&keyring.open_tenant(&key, &row).unwrap(), Some(EVERY), NOW).unwrap();
    let tenant = keyring.open_tenant(&key, &row).unwrap();
    (key, keyring.change_tenant(&tenant, TenantChange::Suspend, LATER).unwrap())
}

/// The row of a suspended tenant after this.
fn after(keyring: &Keyring, name: &str, change: TenantChange) -> (Key, Row) {
    let (key, _, tenant) = keyring.create_tenant(&TenantName::new(name).unwrap(), NOW).unwrap();
    let row = keyring.change_tenant(&tenant, TenantChange::Suspend, NOW).unwrap();
    let row = keyring.change_tenant(&keyring.open_tenant(&key, &row).unwrap(), change, LATER).unwrap();
    (key, row)
}

/// Made the files of the fourth version once, without the last tenant those of the third, and without the last three those of
/// the second.
#[tokio::test]
#[ignore = "writes the files, where there are none"]
async fn write_tenants() {
    assert!(!files(V4).exists(), "golden files are never edited");
    std::fs::create_dir(files(V4)).unwrap();
    let provider = KeyFile::create(&files(V4).join("root.key"), entropy()).unwrap();
    let engine = MemoryEngine::new();
    let keyring = Keyring::open(&engine, &provider, &[], entropy(), NOW).await.unwrap();
    for (key, row) in [
        staying(&keyring),
        after(&keyring, "doomed", TenantChange::Schedule(LATER)),
        after(&keyring, "destroyed", TenantChange::Destroy),
        lent(&keyring),
    ] {
        put(&engine, &key, row, RowExpect::Absent).await;
    }
    write_rows(V4, &engine).await;
}

/// Made the files once. A new format version gets a directory of its own.
#[tokio::test]
#[ignore = "writes the files, where there are none"]
async fn write() {
    assert!(!files(V1).join("rows.txt").exists(), "golden files are never edited");
    let provider = KeyFile::create(&files(V1).join("root.key"), entropy()).unwrap();
    let private = recovery::generate(&strongroom::env::SystemEntropy::new()).unwrap();
    std::fs::write(files(V1).join("recovery.key"), recovery::write_private(&private).as_bytes()).unwrap();
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
    let suspended = keyring.change_tenant(&rotated, TenantChange::Suspend, LATER).unwrap();
    put(&engine, &key, suspended, RowExpect::Absent).await;

    write_rows(V1, &engine).await;
}

async fn write_rows(version: &str, engine: &MemoryEngine) {
    let mut lines = String::from("# row key, row\n");
    for (key, row) in engine.scan(ScanRange::prefix([]), 100).await.unwrap() {
        lines += &format!("{} {}\n", HEXLOWER.encode(key.as_bytes()), HEXLOWER.encode(row.as_bytes()));
    }
    std::fs::write(files(version).join("rows.txt"), lines).unwrap();
}
