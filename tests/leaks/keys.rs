//! The raw keys of a store, to be looked for where they must not be.

use std::fs;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use strongroom::crypto::{Header, KeyId, Kind, Place, ProviderKey, Secret, WrappableKey as _, open};
use strongroom::env::SystemEntropy;
use strongroom::keyring::{
    KeyFile, Keyring, ProviderError, ProviderKind, ProviderStatus, RootProvider, Wrapped,
};
use strongroom::model::{StoreId, TenantRef, Timestamp};
use strongroom::store::{ScanRange, SledEngine, SledOptions, StorageEngine as _, Table, keys};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::support::Daemon;

/// A raw key, and whose it is.
pub type RawKey = (String, [u8; 32]);

/// The keys of a session, those of its tenant and the server's own, from a copy of the store of a server that is idle.
pub async fn of_session(daemon: &Daemon, tenant: &str, session: &str, whose: &str) -> [Vec<RawKey>; 2] {
    let Copied { engine, keyring, .. } = Copied::of(daemon).await;
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
    let sensitive = *keyring.sensitive_key(&tenant, &key, &session).unwrap().unwrap().1.secret().expose();
    let session = vec![
        (format!("{whose}'s body key"), *session.body().secret().expose()),
        (format!("{whose}'s sensitive key"), sensitive),
    ];
    engine.close().await.unwrap();
    [own, session]
}

/// The key of the first root epoch of a server that is idle.
pub async fn of_root(daemon: &Daemon) -> RawKey {
    let Copied { engine, provider, keyring, .. } = Copied::of(daemon).await;
    let rows = engine.scan(ScanRange::prefix(keys::table(Table::Meta)), usize::MAX).await.unwrap();
    engine.close().await.unwrap();
    let unwrapped = provider.unwrapped.lock().unwrap().clone();
    let wrapping = ProviderKey::from_secret(Secret::from_slice(&unwrapped).unwrap());
    let header = Header { kind: Kind::WrappedRek, key_id: KeyId([0; 16]), revision: 1 };
    let opened = rows.iter().find_map(|(key, row)| {
        let [record] = row.exactly().ok()?;
        let (store, key) = (keyring.store_id(), key.within_table());
        open(&wrapping, header, &Place { store, tenant: TenantRef::SYSTEM, session: &[], key }, record).ok()
    });
    ("the root epoch's key".to_owned(), opened.unwrap().as_bytes().try_into().unwrap())
}

/// A copy of the store of a server that is idle, opened.
struct Copied {
    _place: TempDir,
    engine: SledEngine,
    provider: Overheard,
    keyring: Keyring,
}

impl Copied {
    async fn of(daemon: &Daemon) -> Self {
        let place = tempfile::tempdir().unwrap();
        // What says how much of the log there must be is copied first.
        for name in ["acknowledged", "conf", "db"] {
            fs::copy(daemon.dir().join("data").join(name), place.path().join(name)).unwrap();
        }
        let options = SledOptions { reserve_bytes: 1 << 20, ..SledOptions::new(place.path()) };
        let engine = SledEngine::open(&options).unwrap();
        let entropy = Arc::new(SystemEntropy::new());
        let path = daemon.keys().join("root.key");
        let inner = KeyFile::open(&path, Arc::<SystemEntropy>::clone(&entropy)).unwrap();
        let provider = Overheard { inner, unwrapped: Mutex::default() };
        let keyring = Keyring::open(&engine, &provider, &[], entropy, Timestamp::default()).await.unwrap();
        Self { _place: place, engine, provider, keyring }
    }
}

/// A provider that keeps what it unwrapped last.
struct Overheard {
    inner: KeyFile,
    unwrapped: Mutex<Vec<u8>>,
}

#[async_trait]
impl RootProvider for Overheard {
    fn kind(&self) -> ProviderKind {
        self.inner.kind()
    }

    async fn status(&self) -> Result<ProviderStatus, ProviderError> {
        self.inner.status().await
    }

    async fn wrap(&self, store: StoreId, secret: &[u8]) -> Result<Wrapped, ProviderError> {
        self.inner.wrap(store, secret).await
    }

    async fn unwrap(&self, store: StoreId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        let unwrapped = self.inner.unwrap(store, wrapped).await?;
        *self.unwrapped.lock().unwrap() = unwrapped.to_vec();
        Ok(unwrapped)
    }
}
