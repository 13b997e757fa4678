//! A tenant's opened row.

use std::fmt;
use std::sync::Arc;

use crate::crypto::{AuditKey, ControlKey, IndexKey, Kek, KeyId, PseudonymKey};
use crate::model::{KekState, KekVersion, Revision, TenantName, TenantRef, TenantState, Timestamp};
use crate::store::Key;

/// A version of a tenant's key-encryption key, and what may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KekVersionState {
    /// The version.
    pub version: KekVersion,
    /// What may be done with it.
    pub state: KekState,
    /// When it was made.
    pub created: Timestamp,
    /// When its state last changed.
    pub changed: Timestamp,
}

/// A tenant's row, opened.
pub struct Tenant {
    pub(super) row_key: Key,
    pub(super) revision: Revision,
    pub(super) description: Description,
    pub(super) keys: KeySet,
    pub(super) keks: Vec<(KekVersion, Kek)>,
}

/// What a tenant's row says beside its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) tenant: TenantRef,
    pub(super) name: TenantName,
    pub(super) state: TenantState,
    pub(super) created: Timestamp,
    pub(super) kek_id: [u8; 12],
    pub(super) primary: KekVersion,
    pub(super) versions: Vec<KekVersionState>,
    pub(super) audit_epoch: u32,
    pub(super) pseudonym_version: u32,
}

/// The keys that stand beside the key-encryption keys.
pub(super) struct KeySet {
    pub(super) control: ControlKey,
    pub(super) index: IndexKey,
    pub(super) audit: Arc<AuditKey>,
    pub(super) pseudonym: Arc<PseudonymKey>,
}

impl Tenant {
    /// The tenant as it is bound into every seal.
    #[must_use]
    pub fn tenant_ref(&self) -> TenantRef {
        self.description.tenant
    }

    /// The tenant's name.
    #[must_use]
    pub fn name(&self) -> &TenantName {
        &self.description.name
    }

    /// Whether the tenant's data may be used.
    #[must_use]
    pub fn state(&self) -> TenantState {
        self.description.state
    }

    /// When the tenant was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.description.created
    }

    /// The revision of the row that this was opened from.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The version that wraps what is new.
    #[must_use]
    pub fn primary(&self) -> KekVersion {
        self.description.primary
    }

    /// All versions there ever were, in their order.
    #[must_use]
    pub fn keks(&self) -> &[KekVersionState] {
        &self.description.versions
    }

    /// The key that blinds the tenant's names.
    #[must_use]
    pub fn index(&self) -> &IndexKey {
        &self.keys.index
    }

    /// The key for the tenant's control rows.
    #[must_use]
    pub fn control(&self) -> &ControlKey {
        &self.keys.control
    }

    /// The key of the tenant's access log.
    #[must_use]
    pub fn audit(&self) -> &Arc<AuditKey> {
        &self.keys.audit
    }

    /// The key of the pseudonyms in the tenant's access log.
    #[must_use]
    pub fn pseudonym(&self) -> &Arc<PseudonymKey> {
        &self.keys.pseudonym
    }

    /// The version of the pseudonym key; counts from 1.
    #[must_use]
    pub fn pseudonym_version(&self) -> u32 {
        self.description.pseudonym_version
    }

    /// The epoch of the tenant's access log; counts from 1.
    #[must_use]
    pub fn audit_epoch(&self) -> u32 {
        self.description.audit_epoch
    }

    /// Where the row stands.
    #[must_use]
    pub fn row_key(&self) -> &Key {
        &self.row_key
    }

    /// The id that a version of the tenant's key has in the records that it wrapped.
    #[must_use]
    pub fn kek_key_id(&self, version: KekVersion) -> KeyId {
        let mut id = [0; 16];
        let (key, number) = id.split_at_mut(12);
        key.copy_from_slice(&self.description.kek_id);
        number.copy_from_slice(&version.0.to_be_bytes());
        KeyId(id)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("tenant", &self.description.tenant)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}
