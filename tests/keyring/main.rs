//! The keyring over real engines: what it made is found again after a restart, a failing engine leaves nothing half-made, and
//! what version 1 stored still opens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod golden;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use strongroom::crypto::{RecoveryPrivateKey, recovery};
use strongroom::env::{Entropy, SystemEntropy};
use strongroom::keyring::{KeyFile, Keyring, KeyringError};
use strongroom::model::{KekVersion, TenantName, Timestamp};
use strongroom::store::{
    Batch, CommitOutcome, Effect, EngineError, Failure, Fault, Faulty, Key, MemoryEngine, Operation, Row,
    RowExpect, ScanRange, SledEngine, SledOptions, StorageEngine, keys,
};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

fn key_file(home: &Path) -> KeyFile {
    KeyFile::create(&home.join("root.key"), entropy()).unwrap()
}

async fn open(engine: &dyn StorageEngine, provider: &KeyFile) -> Result<Keyring, KeyringError> {
    Keyring::open(engine, provider, &[], entropy(), NOW).await
}

async fn put(engine: &dyn StorageEngine, key: &Key, row: Row, expect: RowExpect) {
    let batch = Batch { expect: vec![(key.clone(), expect)], put: vec![(key.clone(), row)], delete: vec![] };
    assert_eq!(engine.commit(batch).await.unwrap(), CommitOutcome::Committed);
}

async fn read(engine: &dyn StorageEngine, key: &Key) -> Row {
    engine.multi_get(std::slice::from_ref(key)).await.unwrap().remove(0).unwrap()
}

fn sled(home: &Path) -> SledEngine {
    SledEngine::open(&SledOptions { cache_bytes: 8 << 20, ..SledOptions::new(home.join("store")) }).unwrap()
}

#[tokio::test]
async fn after_a_restart_everything_is_found_and_an_old_session_opens_after_a_rotation() {
    let home = tempfile::tempdir().unwrap();
    let provider = key_file(home.path());
    let recovery_key: RecoveryPrivateKey = recovery::generate(&SystemEntropy::new()).unwrap();

    let engine = sled(home.path());
    let first = Keyring::open(&engine, &provider, &[recovery_key.public()], entropy(), NOW).await.unwrap();
    let (key, row, tenant) = first.create_tenant(&TenantName::new("demo").unwrap(), NOW).unwrap();
    put(&engine, &key, row, RowExpect::Absent).await;
    let session = keys::session(tenant.tenant_ref().id, &tenant.index().blind("session", &[b"one"]));
    let wrapped = first.create_session_keys(&tenant, &session).unwrap();
    engine.close().await.unwrap();
    drop(engine);

    let engine = sled(home.path());
    let provider = KeyFile::open(&home.path().join("root.key"), entropy()).unwrap();
    let second = open(&engine, &provider).await.unwrap();
    assert_eq!(second.store_id(), first.store_id());
    let tenant = second.open_tenant(&key, &read(&engine, &key).await).unwrap();
    let rotated = second.add_kek(&tenant, true, NOW).unwrap().0;
    put(&engine, &key, rotated, RowExpect::Revision(tenant.revision())).await;

    let recovered = Keyring::recover(&engine, &recovery_key, entropy()).await.unwrap();
    let tenant = recovered.open_tenant(&key, &read(&engine, &key).await).unwrap();
    assert_eq!((tenant.primary(), tenant.keks().len()), (KekVersion(2), 2));
    let (body, sensitive) = (wrapped.body.as_bytes(), Some(wrapped.sensitive.as_bytes()));
    let keys = recovered.open_session_keys(&tenant, &session, body, sensitive).unwrap();
    assert_eq!(keys.body_id(), wrapped.keys.body_id());
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_failing_engine_is_a_named_error_and_leaves_nothing_half_made() {
    let home = tempfile::tempdir().unwrap();
    let provider = key_file(home.path());
    let failures = [Failure::Io(ErrorKind::Other), Failure::Full, Failure::Busy, Failure::Corrupt];
    // The first open reads, makes and reads again: two lookups, one scan of the empty store and two of the new one.
    for (operation, calls) in [(Operation::MultiGet, 2), (Operation::Scan, 3), (Operation::Commit, 1)] {
        for (number, failure) in (1..=calls).flat_map(|number| failures.map(|failure| (number, failure))) {
            for effect in [Effect::Fail(failure), Effect::FailAfter(failure)] {
                let fault = Fault { operation, number: Some(number), effect };
                check_fault(&provider, fault).await;
            }
        }
    }
}

/// The open that meets the fault names it; unless the engine is closed then, the next one finds or makes a whole store.
async fn check_fault(provider: &KeyFile, fault: Fault) {
    let (operation, number) = (fault.operation, fault.number);
    let engine = Faulty::new(MemoryEngine::new()).with(fault);
    let refused = open(&engine, provider).await.err();
    assert!(matches!(refused, Some(KeyringError::Engine(_))), "{operation:?} {number:?}: {refused:?}");
    match engine.scan(ScanRange::prefix([]), 100).await {
        Ok(rows) => assert!(rows.is_empty() || rows.len() == 5, "{operation:?} {number:?}"),
        Err(error) => {
            assert!(matches!(error, EngineError::Closed), "{error:?}");
            return;
        }
    }
    let found = open(&engine, provider).await.unwrap();
    let again = open(&engine, provider).await.unwrap();
    assert_eq!(found.store_id(), again.store_id());
}
