//! A change of a tenant's row that is about its key: what it relies on, who must agree, and what goes with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answers::Slot;
use super::approval::{Approval, Sensitive};
use super::attempt::{Attempt, until_won};
use super::destroy::check_stays;
use super::hub::Announcement;
use super::key::{DestroyKek, KekDescription};
use super::view::{Answer, Repeat};
use super::{Error, Failure, Service, TenantDescription};
use crate::audit::Operation;
use crate::auth::{Action, Caller, Permit};
use crate::commit::Receipt;
use crate::keyring::Tenant;
use crate::model::{KekState, KekVersion, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, keys};

/// A tenant's row as it is to be, and what goes with it.
pub(super) struct Altered {
    row: Row,
    version: KekVersion,
    /// The number of sessions that die, if any may.
    dying: Option<u64>,
    dry_run: bool,
    /// What it takes a second person for.
    sensitive: Option<Sensitive>,
    /// What goes in the same commit besides.
    besides: Batch,
}

impl Altered {
    pub(super) fn new(row: Row, version: KekVersion) -> Self {
        Self { row, version, dying: None, dry_run: false, sensitive: None, besides: Batch::default() }
    }

    pub(super) fn besides(self, besides: Batch) -> Self {
        Self { besides, ..self }
    }

    pub(super) fn killing(self, destroy: &DestroyKek, what: Sensitive) -> Self {
        let (dying, dry_run) = (Some(destroy.expect_sessions), destroy.dry_run);
        Self { dying, dry_run, sensitive: Some(what), ..self }
    }
}

/// What is remembered of a change: the version that it made or changed.
#[derive(Serialize, Deserialize)]
struct Given {
    version: u32,
    sessions: u64,
}

impl Service {
    /// Changes a tenant's key; gives the version that this was about, and the tenant.
    pub(super) async fn alter_key<A: Action>(
        &self,
        permit: &Permit<A>,
        operation: Operation,
        version: Option<KekVersion>,
        repeat: Option<Repeat>,
        alter: impl Fn(&Tenant, Timestamp) -> Result<Altered, Error>,
    ) -> Result<Answer<(KekDescription, TenantDescription)>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, operation).await?;
        attempt.event.kek = version;
        let slot = self.system_slot(permit, repeat);
        let caller = permit.caller();
        let outcome =
            until_won!(self.alter_key_once(&mut attempt, caller, &tenant, slot.as_ref(), &alter).await);
        attempt.close(outcome).await
    }

    async fn alter_key_once(
        &self,
        attempt: &mut Attempt<'_>,
        caller: &Caller,
        tenant: &Tenant,
        slot: Option<&Slot>,
        alter: impl Fn(&Tenant, Timestamp) -> Result<Altered, Error>,
    ) -> Result<((KekDescription, TenantDescription), Receipt), Error> {
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        if let Some(given) = self.key_answer(&tenant, slot).await? {
            return Ok((given, attempt.record().await?));
        }
        check_stays(&tenant)?;
        let altered = alter(&tenant, self.clock.now())?;
        attempt.event.approval = None;
        self.commit_altered(attempt, caller, (&tenant, &row), altered, slot).await
    }

    /// What was answered to this request before, as it is now.
    pub(super) async fn key_answer(
        &self,
        tenant: &Tenant,
        slot: Option<&Slot>,
    ) -> Result<Option<(KekDescription, TenantDescription)>, Error> {
        let Some(given) = self.system_answer::<Given>(slot).await? else { return Ok(None) };
        let now = describe(tenant, KekVersion(given.version))?;
        Ok(Some((KekDescription { sessions: given.sessions, ..now }, TenantDescription::new(tenant))))
    }

    /// Commits a change of a tenant's key; gives the version that it was about, and the tenant.
    pub(super) async fn commit_altered(
        &self,
        attempt: &mut Attempt<'_>,
        caller: &Caller,
        (tenant, row): (&Tenant, &Row),
        altered: Altered,
        slot: Option<&Slot>,
    ) -> Result<((KekDescription, TenantDescription), Receipt), Error> {
        attempt.event.kek = Some(altered.version);
        let (mut batch, after) = self.tenant_change(tenant, row, altered.row)?;
        batch.expect.extend(altered.besides.expect);
        batch.put.extend(altered.besides.put);
        batch.delete.extend(altered.besides.delete);
        let mut description = describe(&after, altered.version)?;
        if let Some(expected) = altered.dying {
            // Only the primary wraps what is new, and this is not the primary, nor becomes it before the commit: so the
            // number can only fall until then.
            let uses = self.census(tenant).await?;
            let found =
                uses.iter().find(|found| found.version == altered.version).map_or(0, |found| found.sessions);
            description.sessions = found;
            if found != expected && !altered.dry_run {
                return Err(Error::KeyInUse { found });
            }
        }
        if altered.dry_run {
            return Ok(((description, TenantDescription::new(tenant)), attempt.record().await?));
        }
        let approval = match altered.sensitive {
            Some(what) => self.approved(attempt, caller, Some(tenant), what).await?,
            None => Approval::NOT_NEEDED,
        };
        approval.stage(self, &mut batch)?;
        if let Some(slot) = slot {
            let given = Given { version: altered.version.0, sessions: description.sessions };
            slot.give(self, &self.system_answer_key(), &given, &mut batch)?;
        }
        let forgetting = (description.state == KekState::Destroyed).then(|| self.forgetting(tenant));
        let now = (description, TenantDescription::new(&after));
        Ok((now, attempt.commit(batch, forgetting).await?))
    }

    /// A change of a tenant's row: the batch, with what changes in the expiry index, and the tenant as it will be.
    pub(super) fn tenant_change(
        &self,
        before: &Tenant,
        stored: &Row,
        changed: Row,
    ) -> Result<(Batch, Tenant), Error> {
        let key = before.row_key();
        let after = self.keyring.preview_tenant(key, &changed)?;
        let (was, is) = (due(before), due(&after));
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(stored))));
        batch.expect.push(self.keyring.expected_epoch(&changed)?);
        batch.delete.extend(was.difference(&is).cloned());
        batch.put.push((key.clone(), changed));
        batch.put.extend(is.difference(&was).map(|index| (index.clone(), Row::marker())));
        Ok((batch, after))
    }

    /// What a commit runs that destroys a key: it and what it opened leave the memory, whether or not somebody waits.
    pub(super) fn forgetting(&self, tenant: &Tenant) -> Announcement {
        let (keyring, tenants, sessions) =
            (Arc::clone(&self.keyring), Arc::clone(&self.tenants), self.sessions.clone());
        let (key, name) = (tenant.row_key().clone(), tenant.name().clone());
        Box::new(move || {
            tenants.forget(&name);
            keyring.forget_tenant(&key);
            sessions.forget_tenant(&key);
        })
    }
}

/// When something is due with a tenant or its key, as rows of the expiry index. Of a destroyed tenant that is its end: the row
/// stays until nothing is left to reclaim.
pub(super) fn due(tenant: &Tenant) -> BTreeSet<Key> {
    let destructions = tenant.keks().iter().filter_map(|kek| kek.destroy_at).chain(tenant.destroy_at());
    destructions.chain(next_rotation(tenant)).map(|at| keys::expiry(at, tenant.row_key())).collect()
}

/// When a version is made by itself next. None is for a tenant that is to be destroyed.
pub(super) fn next_rotation(tenant: &Tenant) -> Option<Timestamp> {
    tenant.rotation().filter(|_| check_stays(tenant).is_ok()).map(|rotation| rotation.next)
}

fn describe(tenant: &Tenant, wanted: KekVersion) -> Result<KekDescription, Error> {
    tenant.keks().iter().find(|kek| kek.version == wanted).map(KekDescription::new).ok_or(Error::KeyNotFound)
}
