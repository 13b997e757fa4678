//! The raw keys of a store, to be looked for where they must not be.

use std::fs;
use std::sync::Arc;

use strongroom::crypto::WrappableKey as _;
use strongroom::env::SystemEntropy;
use strongroom::keyring::{KeyFile, Keyring};
use strongroom::model::Timestamp;
use strongroom::store::{ScanRange, SledEngine, SledOptions, StorageEngine as _, Table, keys};

use crate::support::Daemon;

/// A raw key, and whose it is.
pub type RawKey = (String, [u8; 32]);

/// The keys of a session, those of its tenant and the server's own, from a copy of the store of a server that is idle.
pub async fn of_session(daemon: &Daemon, tenant: &str, session: &str, whose: &str) -> [Vec<RawKey>; 2] {
    let copied = tempfile::tempdir().unwrap();
    // What says how much of the log there must be is copied first.
    for name in ["acknowledged", "conf", "db"] {
        fs::copy(daemon.dir().join("data").join(name), copied.path().join(name)).unwrap();
    }
    let options = SledOptions { reserve_bytes: 1 << 20, ..SledOptions::new(copied.path()) };
    let engine = SledEngine::open(&options).unwrap();
    let entropy = Arc::new(SystemEntropy::new());
    let provider =
        KeyFile::open(&daemon.keys().join("root.key"), Arc::<SystemEntropy>::clone(&entropy)).unwrap();
    let keyring = Keyring::open(&engine, &provider, &[], entropy, Timestamp::default()).await.unwrap();

    let tenants = engine.scan(ScanRange::prefix(keys::table(Table::Tenant)), usize::MAX).await.unwrap();
    let mut opened = tenants.iter().map(|(key, row)| keyring.open_tenant(key, row).unwrap());
    let tenant = opened.find(|opened| opened.name().as_str() == tenant).unwrap();
    let system = keyring.system();
    let own = vec![
        ("the server's index key".to_owned(), *system.index().secret().expose()),
        ("the server's control key".to_owned(), *system.control().secret().expose()),
        ("the server's audit key".to_owned(), *system.audit().secret().expose()),
        ("the server's pseudonym key".to_owned(), *system.pseudonym().secret().expose()),
        ("the tenant's index key".to_owned(), *tenant.index().secret().expose()),
        ("the tenant's control key".to_owned(), *tenant.control().secret().expose()),
        ("the tenant's audit key".to_owned(), *tenant.audit().secret().expose()),
        ("the tenant's pseudonym key".to_owned(), *tenant.pseudonym().secret().expose()),
    ];
    let id = tenant.index().blind("session", &[session.as_bytes()]);
    let key = keys::session(tenant.tenant_ref().id, &id);
    let row = engine.multi_get(std::slice::from_ref(&key)).await.unwrap().remove(0).unwrap();
    let [body, sensitive, _] = row.exactly().unwrap();
    let session = keyring.open_session_keys(&tenant, &key, body, Some(sensitive)).unwrap();
    let session = vec![
        (format!("{whose}'s body key"), *session.body().secret().expose()),
        (format!("{whose}'s sensitive key"), *session.sensitive().unwrap().secret().expose()),
    ];
    engine.close().await.unwrap();
    [own, session]
}
