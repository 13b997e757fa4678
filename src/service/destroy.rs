//! The end of a tenant: scheduled, taken back, carried out.
//!
//! A tenant is suspended before it is destroyed. Nothing is added to it from then on, so that the sessions that die with it
//! can be counted. One commit destroys its keys and frees its name; its rows are [reclaimed](super::reclaim) after that.

use serde::{Deserialize, Serialize};

use super::answers::Slot;
use super::approval::Sensitive;
use super::attempt::{Attempt, until_won};
use super::hub::Announcement;
use super::key::GRACE;
use super::view::{Answer, Repeat};
use super::{Error, Failure, Service, TenantDescription};
use crate::audit::Operation;
use crate::auth::{Caller, DestroyKeys, DestroyKeysNow, ManageTenants, Permit};
use crate::commit::Receipt;
use crate::keyring::{Tenant, TenantChange};
use crate::model::limits::KEY_GRACE_DEFAULT;
use crate::model::{Duration, TenantState, Timestamp};
use crate::store::{Batch, Row, RowExpect};

/// How a tenant is to be destroyed.
#[derive(Debug, Clone, Copy)]
pub struct DestroyTenant {
    /// How long it can be taken back; by default [`KEY_GRACE_DEFAULT`].
    pub grace: Option<Duration>,
    /// The number of sessions that die with it.
    pub expect_sessions: u64,
    /// Changes nothing.
    pub dry_run: bool,
}

/// What a destruction does, or would do.
#[derive(Clone, Serialize, Deserialize)]
pub struct TenantDestruction {
    /// The tenant as it is after that.
    pub tenant: TenantDescription,
    /// Sessions that die with it.
    pub sessions: u64,
}

/// A destruction under way.
struct Ending<'a> {
    destroy: &'a DestroyTenant,
    change: TenantChange,
    slot: Option<Slot>,
}

/// Refuses what is not for a tenant that is to be destroyed.
pub(super) fn check_stays(tenant: &Tenant) -> Result<(), Error> {
    match tenant.state() {
        TenantState::Active | TenantState::Suspended => Ok(()),
        state @ (TenantState::DestroyScheduled | TenantState::Destroyed) => Err(Error::TenantState(state)),
    }
}

impl Service {
    /// Makes a suspended tenant useless at once and destroys its keys when its grace is over.
    ///
    /// # Errors
    /// [`Error::TenantInUse`] when other than the expected number of sessions would die; [`Error::TenantState`] for a tenant
    /// that is not suspended; [`Error::TenantNotFound`]; [`Error::Invalid`] for a grace outside of its bounds.
    pub async fn destroy_tenant(
        &self,
        _: &Permit<ManageTenants>,
        permit: &Permit<DestroyKeys>,
        destroy: &DestroyTenant,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TenantDestruction>, Failure> {
        let grace = destroy.grace.unwrap_or(KEY_GRACE_DEFAULT);
        let change = TenantChange::Schedule(self.clock.now().after(grace));
        let slot = self.system_slot(permit, repeat);
        let ending = GRACE.span(grace).map(|()| Ending { destroy, change, slot });
        self.end_tenant(permit, destroy.operation(Operation::TenantSchedule), ending).await
    }

    /// Destroys a tenant's keys at once: there is no way back.
    ///
    /// # Errors
    /// As for [`Service::destroy_tenant`]; a destruction that is scheduled is carried out.
    pub async fn destroy_tenant_now(
        &self,
        _: &Permit<ManageTenants>,
        permit: &Permit<DestroyKeys>,
        _: &Permit<DestroyKeysNow>,
        destroy: &DestroyTenant,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TenantDestruction>, Failure> {
        let slot = self.system_slot(permit, repeat);
        let ending = Ok(Ending { destroy, change: TenantChange::Destroy, slot });
        self.end_tenant(permit, destroy.operation(Operation::TenantDestroy), ending).await
    }

    async fn end_tenant(
        &self,
        permit: &Permit<DestroyKeys>,
        operation: Operation,
        ending: Result<Ending<'_>, Error>,
    ) -> Result<Answer<TenantDestruction>, Failure> {
        // When it is done the name is free, or another tenant's: so who asks again is answered before that is looked up.
        if let Ok(Ending { slot: Some(slot), .. }) = &ending {
            let attempt = self.server_attempt(permit, operation);
            match self.system_answer::<TenantDestruction>(Some(slot)).await {
                Ok(Some(given)) if given.tenant.state == TenantState::Destroyed => {
                    let receipt = attempt.record().await;
                    return attempt.close(receipt.map(|receipt| (given, receipt))).await;
                }
                Ok(_) | Err(Error::RequestIdReused) => {}
                Err(error) => return Err(attempt.fail(error).await),
            }
        }
        let (mut attempt, tenant) = self.attempt(permit, operation).await?;
        let outcome = match ending {
            Ok(ending) => {
                let caller = permit.caller();
                until_won!(self.end_tenant_once(&mut attempt, caller, &tenant, &ending).await)
            }
            Err(error) => Err(error),
        };
        attempt.close(outcome).await
    }

    async fn end_tenant_once(
        &self,
        attempt: &mut Attempt<'_>,
        caller: &Caller,
        tenant: &Tenant,
        ending: &Ending<'_>,
    ) -> Result<(TenantDestruction, Receipt), Error> {
        if let Some(given) = self.system_answer(ending.slot.as_ref()).await? {
            return Ok((given, attempt.record().await?));
        }
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        let (mut batch, after) = self.stage_ending(&tenant, &row, ending.change, self.clock.now()).await?;
        // Nothing is added to a tenant that is not active, nor does it become so before the commit: so the number can only
        // fall until then.
        let sessions = self.count_sessions(&tenant).await?;
        if sessions != ending.destroy.expect_sessions && !ending.destroy.dry_run {
            return Err(Error::TenantInUse { found: sessions });
        }
        attempt.touched(usize::try_from(sessions).unwrap_or(usize::MAX));
        let destruction = TenantDestruction { tenant: TenantDescription::new(&after), sessions };
        if ending.destroy.dry_run {
            return Ok((destruction, attempt.record().await?));
        }
        attempt.event.approval = None;
        let approval = self.approved(attempt, caller, Some(&tenant), ending.sensitive()).await?;
        approval.stage(self, &mut batch)?;
        if let Some(slot) = &ending.slot {
            slot.give(self, &self.system_answer_key(), &destruction, &mut batch)?;
        }
        Ok((destruction, attempt.commit(batch, Some(self.ending_tenant(&tenant))).await?))
    }

    /// Destroys a tenant whose grace is over. Says whether it did.
    pub(super) async fn tenant_due(&self, tenant: &Tenant, now: Timestamp) -> Result<bool, Error> {
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        if tenant.destroy_at().is_none_or(|at| at > now) {
            return Ok(false);
        }
        let (batch, _) = self.stage_ending(&tenant, &row, TenantChange::Destroy, now).await?;
        let mut attempt = self.own_attempt(&tenant, Operation::TenantDestroy);
        let sessions = self.count_sessions(&tenant).await?;
        attempt.touched(usize::try_from(sessions).unwrap_or(usize::MAX));
        attempt.commit(batch, Some(self.ending_tenant(&tenant))).await?;
        Ok(true)
    }

    /// The change of a tenant's row that ends it, or will; its name goes in the same commit as its keys.
    async fn stage_ending(
        &self,
        tenant: &Tenant,
        row: &Row,
        change: TenantChange,
        now: Timestamp,
    ) -> Result<(Batch, Tenant), Error> {
        let changed = self.keyring.change_tenant(tenant, change, now)?;
        let (mut batch, after) = self.tenant_change(tenant, row, changed)?;
        if after.state() == TenantState::Destroyed {
            let directory = self.tenant_name_key(tenant.name());
            let [named, tenant_row] = self.read([directory.clone(), tenant.row_key().clone()]).await?;
            if tenant_row.as_ref() != Some(row) {
                // Somebody else was faster; with the tenant its name would be gone.
                return Err(Error::Contended);
            }
            let row = named.ok_or(Error::Integrity)?;
            if self.open_tenant_name(&directory, &row)? != tenant.tenant_ref().id {
                return Err(Error::Integrity);
            }
            batch.expect.push((directory.clone(), RowExpect::unchanged(Some(&row))));
            batch.delete.push(directory);
        }
        Ok((batch, after))
    }

    async fn count_sessions(&self, tenant: &Tenant) -> Result<u64, Error> {
        Ok(self.census(tenant).await?.iter().map(|of| of.sessions).sum())
    }

    /// What a commit runs that ends a tenant: its keys leave the memory, and those who follow its sessions look again.
    fn ending_tenant(&self, tenant: &Tenant) -> Announcement {
        let forgetting = self.forgetting(tenant);
        let change = self.hub.changing_tenant(tenant.tenant_ref().id);
        Box::new(move || {
            forgetting();
            change();
        })
    }
}

impl Ending<'_> {
    fn sensitive(&self) -> Sensitive {
        let sessions = self.destroy.expect_sessions;
        if self.change == TenantChange::Destroy {
            return Sensitive::TenantDestroy { sessions };
        }
        let grace = self.destroy.grace.unwrap_or(KEY_GRACE_DEFAULT).as_millis();
        Sensitive::TenantSchedule { grace: u64::try_from(grace).unwrap_or(u64::MAX), sessions }
    }
}

impl DestroyTenant {
    /// What is on record of it: a dry run only counts.
    const fn operation(&self, done: Operation) -> Operation {
        if self.dry_run { Operation::TenantCensus } else { done }
    }
}
