//! Freed memory: what the process gives back to the system's allocator holds no plaintext, no token and no key.
//!
//! The binaries put a wiping allocator above another one. Here an inspecting allocator stands on either side of it: the outer one counts the blocks
//! that hold a planted secret when their owner frees them, which shows that the wiping is needed and that the inspection finds something; the inner
//! one counts those that still hold it when they are passed on.
//!
//! The inspection needs `unsafe`, which the package denies and its library and binaries forbid.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::large_futures,
    reason = "tests"
)]

mod inspect;
#[path = "../support/mod.rs"]
mod support;

use std::alloc::System;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strongroom::crypto::{
    BodyDek, Header, KeyId, Kind, Place, Secret, WrappableKey as _, WrappingPrivateKey, open, seal,
};
use strongroom::env::{Entropy, SystemEntropy};
use strongroom::keyring::{KeyFile, Keyring};
use strongroom::model::{StoreId, TenantId, TenantName, TenantRef, Timestamp};
use strongroom::proto::v1;
use strongroom::store::{Batch, MemoryEngine, StorageEngine as _, keys};
use zeroizing_alloc::ZeroAlloc;

use crate::inspect::{Inspect, SECRET, plant};
use crate::support::{Inside, Login, answered};

#[global_allocator]
static OUTER: Inspect<ZeroAlloc<Inspect<System>>> = Inspect::new(ZeroAlloc(Inspect::new(System)));

/// Blocks with a secret that were freed by their owners, and that were passed on to the system.
struct Freed {
    owners: usize,
    system: usize,
    /// One test at a time: the counts are the process's.
    _alone: MutexGuard<'static, ()>,
}

impl Freed {
    fn begin() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (owners, system) = counts();
        Self { owners, system, _alone: alone }
    }

    /// How many there were since the beginning.
    fn end(self) -> (usize, usize) {
        let (owners, system) = counts();
        (owners - self.owners, system - self.system)
    }
}

fn counts() -> (usize, usize) {
    let (found, seen) = OUTER.counts();
    assert!(seen > 0);
    let ZeroAlloc(inner) = OUTER.next();
    (found, inner.counts().0)
}

/// Random text that is looked for from now on, as often as it takes.
fn text(times: usize) -> String {
    let mut random = [0; SECRET / 2];
    SystemEntropy::new().fill(&mut random).unwrap();
    let word = data_encoding::HEXLOWER.encode(&random);
    plant(word.as_bytes());
    word.repeat(times)
}

#[test]
fn the_inspection_finds_what_an_owner_did_not_wipe_and_the_wiping_removes_it() {
    let text = text(100);
    let freed = Freed::begin();
    // Growing gives back what was too small.
    let mut grown = text.into_bytes();
    grown.reserve_exact(1 << 16);
    drop(grown);
    assert_eq!(freed.end(), (2, 0));
}

#[test]
fn sealing_and_opening_leave_neither_key_nor_plaintext() {
    let freed = Freed::begin();
    let entropy = SystemEntropy::new();
    for times in [1, 60, 5000] {
        let plaintext = text(times);
        let key = BodyDek::generate(&entropy).unwrap();
        plant(key.secret().expose());
        let header = Header { kind: Kind::Entry, key_id: KeyId([1; 16]), revision: 1 };
        let tenant = TenantRef { id: TenantId([2; 16]), incarnation: 1 };
        let place = Place { store: StoreId([3; 16]), tenant, session: b"session", key: b"key" };
        let sealed = seal(&key, header, &place, plaintext.as_bytes(), &entropy).unwrap();
        let opened = open(&key, header, &place, sealed.as_bytes()).unwrap();
        assert!(opened.as_bytes() == plaintext.as_bytes());
    }
    let (owners, system) = freed.end();
    println!("{owners} blocks were freed with a secret in them, {system} were passed on with it");
    assert!(owners > 0 && system == 0);
}

#[tokio::test]
async fn opening_a_store_and_its_sessions_leaves_no_key() {
    let freed = Freed::begin();
    let home = tempfile::tempdir().unwrap();
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let file = home.path().join("root.key");
    drop(KeyFile::create(&file, Arc::clone(&entropy)).unwrap());
    plant_root_key(&file);

    let engine = MemoryEngine::new();
    let (session, wrapped, tenant) = {
        let provider = KeyFile::open(&file, Arc::clone(&entropy)).unwrap();
        let keyring = open_keyring(&engine, &provider, &entropy).await;
        let (key, row, tenant) =
            keyring.create_tenant(&TenantName::new("demo").unwrap(), Timestamp::default()).unwrap();
        for secret in [tenant.index().secret(), tenant.control().secret()] {
            plant(secret.expose());
        }
        plant(tenant.audit().secret().expose());
        plant(tenant.pseudonym().secret().expose());
        let session = keys::session(tenant.tenant_ref().id, &tenant.index().blind("session", &[b"one"]));
        let wrapped = keyring.create_session_keys(&tenant, &session).unwrap();
        plant(wrapped.keys.body().secret().expose());
        let sensitive = keyring.sensitive_key(&tenant, &session, &wrapped.keys).unwrap().unwrap();
        plant(sensitive.1.secret().expose());
        engine.commit(Batch { put: vec![(key.clone(), row.clone())], ..Batch::default() }).await.unwrap();
        let records = (wrapped.body.as_bytes().to_vec(), wrapped.sensitive.as_bytes().to_vec());
        (session, records, (key, row))
    };
    {
        let provider = KeyFile::open(&file, Arc::clone(&entropy)).unwrap();
        let keyring = open_keyring(&engine, &provider, &entropy).await;
        let tenant = keyring.open_tenant(&tenant.0, &tenant.1).unwrap();
        keyring.open_session_keys(&tenant, &session, &wrapped.0, Some(&wrapped.1)).unwrap();
        keyring.forget_session_keys(&session);
    }
    let (owners, system) = freed.end();
    println!("{owners} blocks were freed with a key in them, {system} were passed on with it");
    assert_eq!(system, 0);
}

#[tokio::test]
async fn importing_and_exporting_leave_no_key() {
    let freed = Freed::begin();
    let home = tempfile::tempdir().unwrap();
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let file = home.path().join("root.key");
    drop(KeyFile::create(&file, Arc::clone(&entropy)).unwrap());
    {
        let provider = KeyFile::open(&file, Arc::clone(&entropy)).unwrap();
        let keyring = open_keyring(&MemoryEngine::new(), &provider, &entropy).await;
        let (name, now) = (TenantName::new("demo").unwrap(), Timestamp::default());
        let (key, _, tenant) = keyring.create_exportable_tenant(&name, now).unwrap();
        let (at, row, made) = keyring.create_wrapping_key(&tenant, now).unwrap();
        let material = Secret::generate(&*entropy).unwrap();
        plant(material.expose());
        let wrapped = made.public().wrap(made.info().as_bytes(), &material, &*entropy).unwrap();
        drop((made, material));

        let opened = keyring.open_wrapping_key(&tenant, &at, &row).unwrap();
        let unwrapped = opened.unwrap(&wrapped.0).unwrap();
        let (row, version) = keyring.import_kek(&tenant, unwrapped, true, now).unwrap();
        let tenant = keyring.open_tenant(&key, &row).unwrap();
        let recipient = WrappingPrivateKey::generate(&*entropy).unwrap();
        plant(recipient.secret().expose());
        let out = keyring.export_kek(&tenant, version, &recipient.public(), now).unwrap();
        drop(recipient.unwrap(out.info.as_bytes(), &out.wrapped.0).unwrap());
    }
    let (owners, system) = freed.end();
    println!("{owners} blocks were freed with a key in them, {system} were passed on with it");
    assert_eq!(system, 0);
}

async fn open_keyring(engine: &MemoryEngine, provider: &KeyFile, entropy: &Arc<dyn Entropy>) -> Keyring {
    Keyring::open(engine, provider, &[], Arc::clone(entropy), Timestamp::default()).await.unwrap()
}

/// Plants the key in a keyring file, raw and as it is written there.
fn plant_root_key(file: &std::path::Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let key = text.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
    plant(key.as_bytes());
    plant(&data_encoding::BASE64.decode(key.as_bytes()).unwrap());
}

#[tokio::test]
async fn calls_leave_neither_token_nor_value() {
    let freed = Freed::begin();
    let inside = Inside::open().await;
    let mut context = inside.context(Login::App);
    let made = v1::CreateSessionRequest { tenant: "demo".to_owned(), ..Default::default() };
    let session = answered(context.create_session(made).await).0.session.unwrap();
    let session = v1::SessionRef { tenant: "demo".to_owned(), session_id: session.session_id, owner: None };
    for times in [1, 100, 10_000] {
        let put = v1::Put { key: "entry".to_owned(), value: text(times).into(), ..Default::default() };
        let put =
            v1::PutEntryRequest { session: Some(session.clone()), put: Some(put), ..Default::default() };
        answered(context.put_entry(put).await);
        let view = v1::View::Full.into();
        let read = v1::ReadEntryRequest {
            session: Some(session.clone()),
            key: "entry".to_owned(),
            view,
            ..Default::default()
        };
        assert_eq!(answered(context.read_entry(read).await).0.entry.unwrap().value.len(), SECRET * times);
    }
    let wrong = format!("srt_{}", text(2));
    let list = v1::ListSessionsRequest { tenant: "demo".to_owned(), ..Default::default() };
    inside.context_with(Some(&wrong)).list_sessions(list).await.unwrap_err();
    drop(wrong);
    drop(context);
    drop(inside);
    let (owners, system) = freed.end();
    println!("{owners} blocks were freed with a secret in them, {system} were passed on with it");
    assert!(owners > 0 && system == 0);
}
