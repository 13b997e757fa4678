//! Versions of a tenant's key-encryption key.

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::cursor::{CursorScope, page_size};
use super::view::{Answer, Page, PageRequest, Repeat};
use super::{Error, Failure, Service};
use crate::audit::Operation;
use crate::auth::{ManageKeys, Permit};
use crate::commit::Receipt;
use crate::keyring::{KekVersionState, Tenant};
use crate::model::{KekState, KekVersion, Timestamp};
use crate::store::{Batch, RowExpect};
use serde::{Deserialize, Serialize};

/// One version of a key-encryption key, without the key.
#[derive(Debug, Clone, Copy)]
pub struct KekDescription {
    /// Version.
    pub version: KekVersion,
    /// State.
    pub state: KekState,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed its state.
    pub changed: Timestamp,
}

impl KekDescription {
    const fn new(kek: &KekVersionState) -> Self {
        Self { version: kek.version, state: kek.state, created: kek.created, changed: kek.changed }
    }
}

/// What is remembered of a rotation: the version that it made.
#[derive(Serialize, Deserialize)]
struct Rotated {
    version: u32,
}

impl Service {
    /// Lists the versions of a tenant's key-encryption key, oldest first.
    ///
    /// # Errors
    /// [`Error::TenantNotFound`].
    pub async fn list_keks(
        &self,
        permit: &Permit<ManageKeys>,
        page: &PageRequest,
    ) -> Result<Answer<Page<KekDescription>>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyList).await?;
        let outcome = self.list_keks_once(&mut attempt, &tenant, page).await;
        attempt.close(outcome).await
    }

    async fn list_keks_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        page: &PageRequest,
    ) -> Result<(Page<KekDescription>, Receipt), Error> {
        let (tenant, _) = self.fresh_tenant(tenant).await?;
        let (key, request) = (tenant.control(), b"keks".to_vec());
        let scope = CursorScope { key, tenant: tenant.tenant_ref(), field: "page_token", request };
        let after = scope.open(self, &page.token)?.and_then(|bytes| bytes.try_into().ok());
        let after = after.map_or(0, u32::from_be_bytes);
        let size = page_size(page.size);
        let mut keks = tenant.keks().iter().filter(|kek| kek.version.0 > after);
        let items: Vec<_> = keks.by_ref().take(size).map(KekDescription::new).collect();
        let next = match (items.last(), keks.next()) {
            (Some(last), Some(_)) => scope.seal(self, &last.version.0.to_be_bytes())?,
            (None | Some(_), None) | (None, Some(_)) => String::new(),
        };
        attempt.touched(items.len());
        Ok((Page { items, next }, attempt.record().await?))
    }

    /// Makes a new primary version. What older versions wrapped goes on opening.
    ///
    /// # Errors
    /// [`Error::TenantNotFound`].
    pub async fn rotate_kek(
        &self,
        permit: &Permit<ManageKeys>,
        repeat: Option<Repeat>,
    ) -> Result<Answer<KekDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyRotate).await?;
        let slot = self.system_slot(permit, repeat);
        let outcome = until_won!(self.rotate_once(&mut attempt, &tenant, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn rotate_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        slot: Option<&Slot>,
    ) -> Result<(KekDescription, Receipt), Error> {
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        if let Some(given) = self.system_answer::<Rotated>(slot).await? {
            return Ok((version(&tenant, KekVersion(given.version))?, attempt.record().await?));
        }
        let key = tenant.row_key().clone();
        let rotated = self.keyring.rotate_kek(&tenant, self.clock.now())?;
        let after = self.keyring.open_tenant(&key, &rotated)?;
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(&row))));
        batch.put.push((key, rotated));
        if let Some(slot) = slot {
            let rotated = Rotated { version: after.primary().0 };
            slot.give(self, &self.system_answer_key(), &rotated, &mut batch)?;
        }
        attempt.event.kek = Some(after.primary());
        let receipt = attempt.commit(batch, None).await?;
        Ok((version(&after, after.primary())?, receipt))
    }
}

fn version(tenant: &Tenant, wanted: KekVersion) -> Result<KekDescription, Error> {
    tenant.keks().iter().find(|kek| kek.version == wanted).map(KekDescription::new).ok_or(Error::KeyDestroyed)
}
