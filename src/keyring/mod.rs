//! The key hierarchy: root provider → root epoch key → tenant keys → session keys.

mod error;
mod provider;
mod session;
mod tenant;

use std::sync::Arc;

pub use error::{KeyFileProblem, KeyringError};
pub use provider::{
    PROVIDER_SECRET_BYTES, ProviderError, ProviderKind, ProviderStatus, RootProvider, Wrapped,
};
pub use session::{SessionKeys, WrappedSession};
pub use tenant::{KekVersionState, Tenant};

use crate::crypto::{AuditKey, ControlKey, IndexKey, PseudonymKey, RecoveryPublicKey};
use crate::env::Entropy;
use crate::model::{KekVersion, StoreId, TenantName, TenantRef, TenantState, Timestamp};
use crate::store::{Key, Row, StorageEngine};
use tenant::KeySet;

/// The opened keys of a store: one for each process.
pub struct Keyring {
    store: StoreId,
    system: SystemKeys,
    entropy: Arc<dyn Entropy>,
}

/// The server's own keys.
pub struct SystemKeys {
    keys: KeySet,
    created: Timestamp,
    audit_epoch: u32,
    pseudonym_version: u32,
}

impl SystemKeys {
    /// The server as it is bound into its seals.
    #[must_use]
    pub fn tenant_ref(&self) -> TenantRef {
        TenantRef::SYSTEM
    }

    /// The key that blinds the names of tenants and tokens.
    #[must_use]
    pub fn index(&self) -> &IndexKey {
        &self.keys.index
    }

    /// The key for the server's control rows.
    #[must_use]
    pub fn control(&self) -> &ControlKey {
        &self.keys.control
    }

    /// The key of the server's access log.
    #[must_use]
    pub fn audit(&self) -> &Arc<AuditKey> {
        &self.keys.audit
    }

    /// The key of the pseudonyms in the server's access log.
    #[must_use]
    pub fn pseudonym(&self) -> &Arc<PseudonymKey> {
        &self.keys.pseudonym
    }

    /// When the store was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// The epoch of the server's access log; counts from 1.
    #[must_use]
    pub fn audit_epoch(&self) -> u32 {
        self.audit_epoch
    }

    /// The version of the pseudonym key; counts from 1.
    #[must_use]
    pub fn pseudonym_version(&self) -> u32 {
        self.pseudonym_version
    }
}

impl Keyring {
    /// Opens the keys of a store, and makes them when the store is empty.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub async fn open(
        engine: &dyn StorageEngine,
        provider: &dyn RootProvider,
        recovery: &[RecoveryPublicKey],
        entropy: Arc<dyn Entropy>,
        now: Timestamp,
    ) -> Result<Self, KeyringError> {
        let _skeleton = (engine, provider, recovery, entropy, now);
        Err(KeyringError::Integrity)
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.store
    }

    /// The server's own keys.
    #[must_use]
    pub fn system(&self) -> &SystemKeys {
        &self.system
    }

    /// Makes a tenant: where its row stands, the row at revision 1, and the tenant as if opened from it.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn create_tenant(
        &self,
        name: &TenantName,
        now: Timestamp,
    ) -> Result<(Key, Row, Arc<Tenant>), KeyringError> {
        let _skeleton = (&self.entropy, name, now);
        Err(KeyringError::Integrity)
    }

    /// Opens a tenant's row.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when it does not open.
    pub fn open_tenant(&self, key: &Key, row: &Row) -> Result<Arc<Tenant>, KeyringError> {
        let _skeleton = (key, row);
        Err(KeyringError::Integrity)
    }

    /// Adds a version of the tenant's key and makes it the primary: the row to store, one revision further.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn rotate_kek(&self, tenant: &Tenant, now: Timestamp) -> Result<Row, KeyringError> {
        let _skeleton = (tenant, now);
        Err(KeyringError::Integrity)
    }

    /// Suspends or resumes a tenant: the row to store, one revision further.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn set_tenant_state(
        &self,
        tenant: &Tenant,
        state: TenantState,
        now: Timestamp,
    ) -> Result<Row, KeyringError> {
        let _skeleton = (tenant, state, now);
        Err(KeyringError::Integrity)
    }

    /// Makes the keys of a session, wrapped under the tenant's primary version for the session's row.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn create_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
    ) -> Result<WrappedSession, KeyringError> {
        let _skeleton = (tenant, session_row);
        Err(KeyringError::Integrity)
    }

    /// Wraps the same keys again, under what is the primary version now.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn rewrap_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
        keys: &SessionKeys,
    ) -> Result<(crate::crypto::Sealed, Option<crate::crypto::Sealed>), KeyringError> {
        let _skeleton = (tenant, session_row, keys);
        Err(KeyringError::Integrity)
    }

    /// Unwraps the keys of a session.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn open_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
        body: &[u8],
        sensitive: Option<&[u8]>,
    ) -> Result<SessionKeys, KeyringError> {
        let _skeleton = (tenant, session_row, body, sensitive);
        Err(KeyringError::Integrity)
    }

    /// Drops the keys of a session from memory, once its row is gone.
    pub fn forget_session_keys(&self, session_row: &Key) {
        let _skeleton = session_row;
    }

    /// The version of the tenant's key that a wrapped session key names.
    #[must_use]
    pub fn wrapping_version(record: &[u8]) -> Option<KekVersion> {
        let _skeleton = record;
        None
    }
}
