//! Keys that others have a copy of: imported, exported, and the wrapping keys under which they travel.
//!
//! A *wrapping key* is an X25519 key pair for one import. Its private half is sealed in a row of its own, which the import
//! removes: so wrapped material that somebody has kept opens at most once, and not at all once the row is gone, not even
//! for whoever comes to hold the store and its root key.
//!
//! A version remembers that it was imported, and when it was first exported. What is promised about its destruction is then
//! only as good as what becomes of the other copy.

use std::sync::Arc;

use super::tenant::Tenant;
use super::{Keyring, KeyringError};
use crate::crypto::{
    Header, Kek, KeyId, Kind, Place, Secret, WrappableKey as _, WrappedKey, WrappingPrivateKey,
    WrappingPublicKey, export_info, import_info, open, seal_parts,
};
use crate::model::limits::WRAPPING_KEY_TTL;
use crate::model::{KekOrigin, KekState, KekVersion, Revision, StoreId, TenantName, TenantRef, Timestamp};
use crate::store::{Key, Row, keys};

/// A wrapping key, opened.
pub struct WrappingKey {
    store: StoreId,
    tenant: TenantRef,
    id: [u8; 16],
    expires: Timestamp,
    private: WrappingPrivateKey,
}

/// A version of a tenant's key on its way out.
#[derive(Debug)]
pub struct Exported {
    /// The tenant's row to store, one revision further, in which the version is marked.
    pub row: Row,
    /// The version's key, wrapped for the recipient.
    pub wrapped: WrappedKey,
    /// What was bound to it, and must be said to unwrap it.
    pub info: String,
}

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrappingKey").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl WrappingKey {
    /// Its id: random.
    #[must_use]
    pub const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// When it ends.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> WrappingPublicKey {
        self.private.public()
    }

    /// What must be bound to material that is wrapped for it.
    #[must_use]
    pub fn info(&self) -> String {
        import_info(self.store, self.tenant, &self.id)
    }

    /// Unwraps key material.
    ///
    /// # Errors
    /// [`KeyringError::ForeignMaterial`] for anything that was not wrapped for this key, in this store, for this tenant;
    /// [`WeakMaterial`](KeyringError::WeakMaterial) when all its bytes are the same.
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<Secret, KeyringError> {
        let material = self.private.unwrap(self.info().as_bytes(), wrapped);
        let material = material.map_err(|_| KeyringError::ForeignMaterial)?;
        if material.repeats_one_byte() { Err(KeyringError::WeakMaterial) } else { Ok(material) }
    }
}

impl Keyring {
    /// As [`create_tenant`](Self::create_tenant), a tenant whose keys may be exported, now and ever after.
    ///
    /// # Errors
    /// [`KeyringError::Entropy`] when the source fails.
    pub fn create_exportable_tenant(
        &self,
        name: &TenantName,
        now: Timestamp,
    ) -> Result<(Key, Row, Arc<Tenant>), KeyringError> {
        self.make_tenant(name, true, now)
    }

    /// Makes a wrapping key for a tenant: where its row stands, the row, and the key.
    ///
    /// # Errors
    /// [`KeyringError::Entropy`] when the source fails.
    pub fn create_wrapping_key(
        &self,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<(Key, Row, WrappingKey), KeyringError> {
        let entropy = self.entropy.as_ref();
        let mut id = [0; 16];
        entropy.fill(&mut id)?;
        let private = WrappingPrivateKey::generate(entropy)?;
        let expires = now.after(WRAPPING_KEY_TTL);
        let made = WrappingKey { store: self.store, tenant: tenant.tenant_ref(), id, expires, private };
        let key = keys::wrapping_key(tenant.tenant_ref().id, &id);
        let (end, secret) = (expires.as_millis().to_be_bytes(), made.private.secret().expose());
        let place = self.custody_place(tenant, &key);
        let record = seal_parts(tenant.control(), header(tenant), &place, &[&end, secret], entropy)?;
        Ok((key, Row::new(Revision::FIRST, &[&record]), made))
    }

    /// Opens the row of a wrapping key.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when it is not a row that this keyring sealed to stand there.
    pub fn open_wrapping_key(
        &self,
        tenant: &Tenant,
        key: &Key,
        row: &Row,
    ) -> Result<WrappingKey, KeyringError> {
        let [record] = row.exactly()?;
        if row.revision()? != Revision::FIRST {
            return Err(KeyringError::Integrity);
        }
        let opened = open(tenant.control(), header(tenant), &self.custody_place(tenant, key), record)?;
        let (end, secret) = opened.as_bytes().split_first_chunk().ok_or(KeyringError::Integrity)?;
        Ok(WrappingKey {
            store: self.store,
            tenant: tenant.tenant_ref(),
            id: key.within_tenant().try_into().map_err(|_| KeyringError::Integrity)?,
            expires: Timestamp::from_millis(u64::from_be_bytes(*end)),
            private: WrappingPrivateKey::from_secret(Secret::from_slice(secret)?),
        })
    }

    /// Adds imported material as a version of the tenant's key, pending or as the primary: the row to store, one revision
    /// further, and the version.
    ///
    /// # Errors
    /// [`KeyringError::KnownMaterial`] when it is a version already that is not destroyed: to destroy one of the two would
    /// destroy nothing. [`KeyringError::TooManyVersions`]; [`KeyringError::Entropy`] when the source fails.
    pub fn import_kek(
        &self,
        tenant: &Tenant,
        material: Secret,
        promote: bool,
        now: Timestamp,
    ) -> Result<(Row, KekVersion), KeyringError> {
        // All are compared, so that the time does not say which it is.
        let known = tenant.keks.iter().filter(|(_, kek)| kek.secret().equals(&material)).count();
        if known > 0 {
            return Err(KeyringError::KnownMaterial);
        }
        self.add_version(tenant, Kek::from_secret(material), KekOrigin::Imported, promote, now)
    }

    /// Wraps a version of an exportable tenant's key for a recipient, and marks it as exported.
    ///
    /// # Errors
    /// [`KeyringError::NotExportable`]; [`UnknownVersion`](KeyringError::UnknownVersion);
    /// [`WrongState`](KeyringError::WrongState) for a version that is refused for use or gone;
    /// [`Recipient`](KeyringError::Recipient) when the public key is of low order.
    pub fn export_kek(
        &self,
        tenant: &Tenant,
        version: KekVersion,
        recipient: &WrappingPublicKey,
        now: Timestamp,
    ) -> Result<Exported, KeyringError> {
        if !tenant.exportable() {
            return Err(KeyringError::NotExportable);
        }
        let mut next = tenant.next();
        let listed = next.description.versions.iter_mut().find(|of| of.version == version);
        let listed = listed.ok_or(KeyringError::UnknownVersion(version))?;
        // One that is pending may be put into escrow before anything depends on it.
        if !matches!(listed.state, KekState::Pending | KekState::Primary | KekState::Enabled) {
            return Err(KeyringError::WrongState(listed.state));
        }
        listed.exported = listed.exported.or(Some(now));
        let held = tenant.keks.iter().find(|(held, _)| *held == version);
        let (_, kek) = held.ok_or(KeyringError::Integrity)?;
        let info = export_info(self.store, tenant.tenant_ref(), version);
        let wrapped = recipient.wrap(info.as_bytes(), kek.secret(), self.entropy.as_ref())?;
        Ok(Exported { row: self.seal_tenant(&next)?, wrapped, info })
    }

    fn custody_place<'a>(&self, tenant: &Tenant, key: &'a Key) -> Place<'a> {
        Place { store: self.store, tenant: tenant.tenant_ref(), session: &[], key: key.within_tenant() }
    }
}

fn header(tenant: &Tenant) -> Header {
    let key_id = KeyId(tenant.tenant_ref().id.0);
    Header { kind: Kind::WrappingKey, key_id, revision: Revision::FIRST.get() }
}
