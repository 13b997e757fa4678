//! A tenant's opened row.

use std::fmt;
use std::sync::Arc;

use super::KeyringError;
use super::payload;
use super::root::Roots;
use super::version::{KekVersionState, Rotation};
use super::wrap::{KeySet, RootKey, Slot};
use crate::crypto::{AuditKey, ControlKey, IndexKey, Kek, KeyId, Kind, PseudonymKey, Sealed};
use crate::env::Entropy;
use crate::model::{
    KekOrigin, KekState, KekVersion, Revision, StoreId, TenantName, TenantRef, TenantState, Timestamp,
};
use crate::store::{Key, Row, RowError, keys};

/// A tenant's row, opened.
pub struct Tenant {
    pub(super) row_key: Key,
    pub(super) revision: Revision,
    pub(super) description: Description,
    pub(super) keys: KeySet,
    /// Every version that is not destroyed, in their order: the row is always sealed as a whole.
    pub(super) keks: Vec<(KekVersion, Arc<Kek>)>,
}

/// What a tenant's row says beside its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) tenant: TenantRef,
    pub(super) name: TenantName,
    pub(super) state: TenantState,
    pub(super) created: Timestamp,
    pub(super) changed: Timestamp,
    pub(super) kek_id: [u8; 12],
    /// None of a tenant that is destroyed.
    pub(super) primary: Option<KekVersion>,
    pub(super) versions: Vec<KekVersionState>,
    pub(super) audit_epoch: u32,
    pub(super) pseudonym_version: u32,
    pub(super) rotation: Option<Rotation>,
    /// When it will be destroyed, while that is scheduled, or was.
    pub(super) destroy_at: Option<Timestamp>,
    pub(super) exportable: bool,
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

    /// When the tenant's state last changed.
    #[must_use]
    pub fn state_changed(&self) -> Timestamp {
        self.description.changed
    }

    /// The revision of the row that this was opened from.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// When the tenant will be destroyed, while that is scheduled, or was.
    #[must_use]
    pub fn destroy_at(&self) -> Option<Timestamp> {
        self.description.destroy_at
    }

    /// The version that wraps what is new; none of a tenant that is destroyed.
    #[must_use]
    pub fn primary(&self) -> Option<KekVersion> {
        self.description.primary
    }

    /// All versions there ever were, in their order.
    #[must_use]
    pub fn keks(&self) -> &[KekVersionState] {
        &self.description.versions
    }

    /// When new versions are made by themselves, if they are.
    #[must_use]
    pub fn rotation(&self) -> Option<Rotation> {
        self.description.rotation
    }

    /// Whether versions of its key may leave the store, wrapped for somebody. Said when it was made, for ever.
    #[must_use]
    pub fn exportable(&self) -> bool {
        self.description.exportable
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
}

impl Tenant {
    /// A tenant with fresh keys and one version, at revision 1.
    pub(super) fn generate(
        tenant: TenantRef,
        name: TenantName,
        exportable: bool,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, KeyringError> {
        let mut kek_id = [0; 12];
        entropy.fill(&mut kek_id)?;
        let first = KekVersion(1);
        Ok(Self {
            row_key: keys::tenant(tenant.id),
            revision: Revision::FIRST,
            description: Description {
                tenant,
                name,
                state: TenantState::Active,
                created: now,
                changed: now,
                kek_id,
                primary: Some(first),
                versions: vec![KekVersionState::new(first, KekState::Primary, KekOrigin::Generated, now)],
                audit_epoch: 1,
                pseudonym_version: 1,
                rotation: None,
                destroy_at: None,
                exportable,
            },
            keys: KeySet::generate(entropy)?,
            keks: vec![(first, Arc::new(Kek::generate(entropy)?))],
        })
    }

    /// Opens a stored row.
    pub(super) fn open(store: StoreId, roots: &Roots, key: &Key, row: &Row) -> Result<Self, KeyringError> {
        let id = key.tenant().filter(|id| *key == keys::tenant(*id)).ok_or(KeyringError::Integrity)?;
        let records = row.records()?;
        let ([description, control, index, audit, pseudonym], wrapped) =
            records.split_first_chunk().ok_or(RowError)?;
        let (root, incarnation) = roots.naming(control).ok_or(KeyringError::Integrity)?;
        let tenant = TenantRef { id, incarnation };
        let slot = Slot { store, tenant, key: key.within_tenant(), revision: row.revision()? };
        let keys = KeySet::unwrap(root, &slot, [control, index, audit, pseudonym])?;
        let description = payload::decode_tenant(tenant, keys.description(&slot, description)?.as_bytes())?;
        let keks = unwrap_versions(root, &slot, &description, wrapped)?;
        Ok(Self { row_key: key.clone(), revision: slot.revision, description, keys, keks })
    }

    /// The row to store this as.
    pub(super) fn seal(
        &self,
        store: StoreId,
        root: &RootKey,
        entropy: &dyn Entropy,
    ) -> Result<Row, KeyringError> {
        let key = self.row_key.within_tenant();
        let slot = Slot { store, tenant: self.description.tenant, key, revision: self.revision };
        let description = payload::encode_tenant(&self.description)?;
        let mut records = vec![self.keys.describe(&slot, &description, entropy)?];
        records.extend(self.keys.wrap(root, &slot, entropy)?);
        for (version, kek) in &self.keks {
            records.push(root.wrap(&slot, (Kind::WrappedKek, Some(version.0)), kek.as_ref(), entropy)?);
        }
        Ok(Row::new(self.revision, &records.iter().collect::<Vec<&Sealed>>()))
    }

    /// The same tenant one revision further, about to be changed. It shares the keys.
    pub(super) fn next(&self) -> Self {
        Self {
            row_key: self.row_key.clone(),
            revision: self.revision.next(),
            description: self.description.clone(),
            keys: self.keys.share(),
            keks: self.keks.iter().map(|(version, kek)| (*version, Arc::clone(kek))).collect(),
        }
    }

    /// The key of a version, when its state allows that it unwraps.
    pub(super) fn kek(&self, version: KekVersion) -> Result<&Kek, KeyringError> {
        // Both lists ascend, and this is asked for every record of every request.
        let versions = &self.description.versions;
        let listed = versions.binary_search_by_key(&version, |of| of.version).ok();
        match listed.and_then(|at| versions.get(at)).ok_or(KeyringError::Integrity)?.state {
            KekState::Primary | KekState::Enabled => {}
            KekState::Pending | KekState::Disabled | KekState::DestroyScheduled => {
                return Err(KeyringError::KeyDisabled(version));
            }
            KekState::Destroyed => return Err(KeyringError::KeyDestroyed(version)),
        }
        let held = self.keks.binary_search_by_key(&version, |(held, _)| *held).ok();
        held.and_then(|at| self.keks.get(at)).map(|(_, kek)| kek.as_ref()).ok_or(KeyringError::Integrity)
    }

    /// The id that a version of the tenant's key has in the records that it wraps: `id (12) ‖ version (u32)`.
    pub(super) fn kek_key_id(&self, version: KekVersion) -> KeyId {
        let mut id = [0; 16];
        let (key, number) = id.split_at_mut(12);
        key.copy_from_slice(&self.description.kek_id);
        number.copy_from_slice(&version.0.to_be_bytes());
        KeyId(id)
    }
}

/// There is one wrapped key for each version that is not destroyed, in their order.
fn unwrap_versions(
    root: &RootKey,
    slot: &Slot<'_>,
    description: &Description,
    wrapped: &[&[u8]],
) -> Result<Vec<(KekVersion, Arc<Kek>)>, KeyringError> {
    let living = || description.versions.iter().filter(|of| of.state != KekState::Destroyed);
    if living().count() != wrapped.len() {
        return Err(KeyringError::Integrity);
    }
    let unwrap = |(of, record): (&KekVersionState, &&[u8])| {
        let kek = root.unwrap(slot, (Kind::WrappedKek, Some(of.version.0)), record)?;
        Ok((of.version, Arc::new(kek)))
    };
    living().zip(wrapped).map(unwrap).collect()
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("tenant", &self.description.tenant)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}
