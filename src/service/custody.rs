//! Key material that comes from its owner, or goes to one: wrapping keys, imports, exports.
//!
//! Nothing here sees a key: the keyring unwraps and wraps. An import takes its wrapping key away in the same commit, so that
//! what was wrapped is good for one version. An export is on record as intended before anything is wrapped, and as done,
//! together with the mark on the version, before the answer leaves.

use super::altered::Altered;
use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::destroy::check_stays;
use super::view::{Answer, Repeat};
use super::{Error, Failure, KekDescription, Sensitive, Service};
use crate::audit::{Operation, Phase};
use crate::auth::{Caller, ExportKeys, ImportKeys, Permit};
use crate::commit::Receipt;
use crate::crypto::{WRAPPED_BYTES, WrappingPublicKey, content_hash};
use crate::keyring::{Tenant, WrappingKey};
use crate::model::limits::WRAPPING_KEYS;
use crate::model::{KekVersion, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, keys};

/// A wrapping key, without its private half.
#[derive(Debug, Clone)]
pub struct WrappingKeyDescription {
    /// Random.
    pub id: [u8; 16],
    /// X25519 public key.
    pub public: [u8; 32],
    /// What must be bound to what is wrapped for it.
    pub info: String,
    /// When it ends.
    pub expires: Timestamp,
}

impl WrappingKeyDescription {
    fn new(key: &WrappingKey) -> Self {
        Self { id: key.id(), public: key.public().0, info: key.info(), expires: key.expires() }
    }
}

/// Key material to import.
#[derive(Debug, Clone)]
pub struct ImportKek {
    /// The wrapping key that it was wrapped for.
    pub wrapping_key: [u8; 16],
    /// The wrapped material.
    pub wrapped: [u8; WRAPPED_BYTES],
    /// Leaves the version pending.
    pub pending: bool,
}

impl ImportKek {
    fn sensitive(&self) -> Sensitive {
        let (wrapping_key, wrapped) = (self.wrapping_key, content_hash(&self.wrapped));
        Sensitive::KeyImport { wrapping_key, wrapped, pending: self.pending }
    }
}

/// What is to be exported, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct ExportKek {
    /// The version.
    pub version: KekVersion,
    /// The recipient's X25519 public key.
    pub recipient: [u8; 32],
}

impl ExportKek {
    const fn sensitive(self) -> Sensitive {
        Sensitive::KeyExport { version: self.version.0, recipient: self.recipient }
    }
}

/// A version that was exported.
#[derive(Debug, Clone)]
pub struct ExportedKek {
    /// The version, marked as exported.
    pub kek: KekDescription,
    /// Its key, wrapped for the recipient.
    pub wrapped: [u8; WRAPPED_BYTES],
    /// What was bound to it.
    pub info: String,
}

/// A wrapping key as it is stored, for a change that relies on it.
struct StoredWrappingKey {
    key: Key,
    row: Row,
    opened: WrappingKey,
}

impl StoredWrappingKey {
    /// Takes it away, on the condition that it is there: whoever is second finds nothing.
    fn removal(&self) -> Batch {
        let index = keys::expiry(self.opened.expires(), &self.key);
        let expect = vec![(self.key.clone(), RowExpect::unchanged(Some(&self.row)))];
        Batch { expect, delete: vec![self.key.clone(), index], ..Batch::default() }
    }
}

impl Service {
    /// Makes a key for which key material can be wrapped, for one import.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] when the tenant has [`WRAPPING_KEYS`] that are neither used nor swept.
    pub async fn wrapping_key(
        &self,
        permit: &Permit<ImportKeys>,
    ) -> Result<Answer<WrappingKeyDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyWrapping).await?;
        let outcome = until_won!(self.wrapping_key_once(&mut attempt, &tenant).await);
        attempt.close(outcome).await
    }

    async fn wrapping_key_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
    ) -> Result<(WrappingKeyDescription, Receipt), Error> {
        // Those who ask at the same time queue here, so that each counts what the others made. Another process would not: the
        // bound is against a caller that never stops asking, and one too many does no harm.
        let _turn = self.stripes.hold(std::iter::once(tenant.row_key())).await;
        let (tenant, stored) = self.fresh_tenant(tenant).await?;
        check_stays(&tenant)?;
        self.may_make_keys()?;
        let range = ScanRange::prefix(keys::wrapping_keys(tenant.tenant_ref().id));
        if self.engine.scan_keys(range, WRAPPING_KEYS).await?.len() == WRAPPING_KEYS {
            return Err(Error::QuotaExceeded { max: WRAPPING_KEYS, what: "wrapping keys" });
        }
        let (key, row, made) = self.keyring.create_wrapping_key(&tenant, self.clock.now())?;
        let mut batch = Batch::default();
        batch.expect.push((tenant.row_key().clone(), RowExpect::unchanged(Some(&stored))));
        batch.expect.push((key.clone(), RowExpect::Absent));
        batch.put.push((keys::expiry(made.expires(), &key), Row::marker()));
        batch.put.push((key, row));
        attempt.event.content_hash = Some(content_hash(&made.public().0));
        Ok((WrappingKeyDescription::new(&made), attempt.commit(batch, None).await?))
    }

    /// Makes a new version of material that was wrapped for a wrapping key: the primary, or one that is pending.
    ///
    /// # Errors
    /// [`Error::WrappingKeyNotFound`]; [`Error::Invalid`] for what does not open or is no key; [`Error::AlreadyExists`] when
    /// it is a version already; [`Error::QuotaExceeded`] when there are too many versions.
    pub async fn import_kek(
        &self,
        permit: &Permit<ImportKeys>,
        import: &ImportKek,
        repeat: Option<Repeat>,
    ) -> Result<Answer<KekDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyImport).await?;
        let slot = self.system_slot(permit, repeat);
        let caller = permit.caller();
        let outcome =
            until_won!(self.import_kek_once(&mut attempt, caller, &tenant, import, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn import_kek_once(
        &self,
        attempt: &mut Attempt<'_>,
        caller: &Caller,
        tenant: &Tenant,
        import: &ImportKek,
        slot: Option<&Slot>,
    ) -> Result<(KekDescription, Receipt), Error> {
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        if let Some((kek, _)) = self.key_answer(&tenant, slot).await? {
            return Ok((kek, attempt.record().await?));
        }
        check_stays(&tenant)?;
        self.may_make_keys()?;
        let now = self.clock.now();
        let key = keys::wrapping_key(tenant.tenant_ref().id, &import.wrapping_key);
        let wrapping = self.stored_wrapping_key(&tenant, key).await?;
        let wrapping = wrapping.filter(|stored| now < stored.opened.expires());
        let wrapping = wrapping.ok_or(Error::WrappingKeyNotFound)?;
        let material = wrapping.opened.unwrap(&import.wrapped)?;
        let (changed, version) = self.keyring.import_kek(&tenant, material, !import.pending, now)?;
        attempt.event.content_hash = Some(content_hash(&wrapping.opened.public().0));
        attempt.event.approval = None;
        let approval = self.approved(attempt, caller, Some(&tenant), import.sensitive()).await?;
        let mut besides = wrapping.removal();
        approval.stage(self, &mut besides)?;
        let altered = Altered::new(changed, version).besides(besides);
        let ((kek, _), receipt) =
            self.commit_altered(attempt, caller, (&tenant, &row), altered, slot).await?;
        Ok((kek, receipt))
    }

    async fn stored_wrapping_key(
        &self,
        tenant: &Tenant,
        key: Key,
    ) -> Result<Option<StoredWrappingKey>, Error> {
        let [row] = self.read([key.clone()]).await?;
        let Some(row) = row else { return Ok(None) };
        let opened = self.keyring.open_wrapping_key(tenant, &key, &row)?;
        Ok(Some(StoredWrappingKey { key, row, opened }))
    }

    /// Removes a wrapping key that has expired. Says whether it did; none when there is nothing that `index` is about.
    pub(super) async fn wrapping_key_due(
        &self,
        tenant: &Tenant,
        key: &Key,
        index: &Key,
        now: Timestamp,
    ) -> Result<Option<bool>, Error> {
        let stored = self.stored_wrapping_key(tenant, key.clone()).await?;
        let Some(stored) = stored.filter(|stored| keys::expiry(stored.opened.expires(), key) == *index)
        else {
            return Ok(None);
        };
        if now < stored.opened.expires() {
            return Ok(Some(false));
        }
        let mut attempt = self.own_attempt(tenant, Operation::SessionReclaim);
        attempt.touched(1);
        attempt.commit(stored.removal(), None).await?;
        Ok(Some(true))
    }

    /// Gives out a version of an exportable tenant's key, wrapped for a public key.
    ///
    /// # Errors
    /// [`Error::KeyNotExportable`]; [`Error::KeyNotFound`], [`Error::KeyState`]; [`Error::Invalid`] for a public key for which
    /// nothing can be wrapped.
    pub async fn export_kek(
        &self,
        permit: &Permit<ExportKeys>,
        export: &ExportKek,
    ) -> Result<Answer<ExportedKek>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyExport).await?;
        let caller = permit.caller();
        let outcome = until_won!(self.export_kek_once(&mut attempt, caller, &tenant, export).await);
        attempt.close(outcome).await
    }

    async fn export_kek_once(
        &self,
        attempt: &mut Attempt<'_>,
        caller: &Caller,
        tenant: &Tenant,
        export: &ExportKek,
    ) -> Result<(ExportedKek, Receipt), Error> {
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        if !tenant.exportable() {
            return Err(Error::KeyNotExportable);
        }
        check_stays(&tenant)?;
        attempt.event.kek = Some(export.version);
        attempt.event.content_hash = Some(content_hash(&export.recipient));
        // What cannot be given out anyway is told before somebody is asked.
        let recipient = WrappingPublicKey(export.recipient);
        let out = self.keyring.export_kek(&tenant, export.version, &recipient, self.clock.now())?;
        attempt.event.approval = None;
        let approval = self.approved(attempt, caller, Some(&tenant), export.sensitive()).await?;
        let mut intent = attempt.clone();
        intent.event.phase = Phase::Intent;
        intent.record().await?;
        let mut besides = Batch::default();
        approval.stage(self, &mut besides)?;
        let altered = Altered::new(out.row, export.version).besides(besides);
        let ((kek, _), receipt) =
            self.commit_altered(attempt, caller, (&tenant, &row), altered, None).await?;
        Ok((ExportedKek { kek, wrapped: out.wrapped.0, info: out.info }, receipt))
    }
}
