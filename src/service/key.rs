//! Versions of a tenant's key-encryption key.

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::view::{Answer, Repeat};
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
    ) -> Result<Answer<Vec<KekDescription>>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyList).await?;
        let outcome = async {
            let (tenant, _) = self.fresh_tenant(&tenant).await?;
            let keks: Vec<_> = tenant.keks().iter().map(KekDescription::new).collect();
            attempt.touched(keks.len());
            Ok((keks, attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
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
