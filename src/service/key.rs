//! Versions of a tenant's key-encryption key: made, promoted, disabled, counted, destroyed.

use std::collections::BTreeMap;

use super::altered::{Altered, next_rotation};
use super::approval::Sensitive;
use super::attempt::Attempt;
use super::cursor::{CursorScope, page_size};
use super::expiry::Bounds;
use super::view::{Answer, Page, PageRequest, Repeat};
use super::{Error, Failure, Service, TenantDescription};
use crate::audit::Operation;
use crate::auth::{DestroyKeys, DestroyKeysNow, ManageKeys, Permit};
use crate::commit::Receipt;
use crate::keyring::{KekChange, KekVersionState, Keyring, Tenant};
use crate::model::limits::{KEY_GRACE_DEFAULT, KEY_GRACE_MAX, KEY_GRACE_MIN, KEY_PERIOD_MAX, KEY_PERIOD_MIN};
use crate::model::{Duration, KekOrigin, KekState, KekVersion, Timestamp};

const PERIOD: Bounds = Bounds { field: "period", min: KEY_PERIOD_MIN, max: KEY_PERIOD_MAX };
pub(super) const GRACE: Bounds = Bounds { field: "grace", min: KEY_GRACE_MIN, max: KEY_GRACE_MAX };

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
    /// When it will be destroyed, while that is scheduled.
    pub destroy_at: Option<Timestamp>,
    /// Where it came from.
    pub origin: KekOrigin,
    /// When it was first exported.
    pub exported: Option<Timestamp>,
    /// Sessions that die with it; counted only where it is to be destroyed.
    pub sessions: u64,
}

/// How many sessions a version wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KekUse {
    /// Version.
    pub version: KekVersion,
    /// Sessions.
    pub sessions: u64,
}

/// What can be done to a version and taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekVerb {
    /// It becomes the primary.
    Promote,
    /// It may unwrap again.
    Enable,
    /// It unwraps nothing.
    Disable,
    /// It is not destroyed.
    Cancel,
}

impl KekVerb {
    const fn operation(self) -> Operation {
        match self {
            Self::Promote => Operation::KeyPromote,
            Self::Enable => Operation::KeyEnable,
            Self::Disable => Operation::KeyDisable,
            Self::Cancel => Operation::KeyCancel,
        }
    }

    const fn change(self) -> KekChange {
        match self {
            Self::Promote => KekChange::Promote,
            Self::Enable => KekChange::Enable,
            Self::Disable => KekChange::Disable,
            Self::Cancel => KekChange::Cancel,
        }
    }
}

/// What is to be destroyed.
#[derive(Debug, Clone, Copy)]
pub struct DestroyKek {
    /// The version.
    pub version: KekVersion,
    /// How long it can be taken back; by default [`KEY_GRACE_DEFAULT`].
    pub grace: Option<Duration>,
    /// The number of sessions that die with it.
    pub expect_sessions: u64,
    /// Changes nothing.
    pub dry_run: bool,
}

impl DestroyKek {
    /// What is on record of it: a dry run only counts.
    const fn operation(&self, done: Operation) -> Operation {
        if self.dry_run { Operation::KeyCensus } else { done }
    }
}

impl KekDescription {
    pub(super) const fn new(kek: &KekVersionState) -> Self {
        Self {
            version: kek.version,
            state: kek.state,
            created: kek.created,
            changed: kek.changed,
            destroy_at: kek.destroy_at,
            origin: kek.origin,
            exported: kek.exported,
            sessions: 0,
        }
    }
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

    /// Returns one version, and the receipt of its destruction if that is done or scheduled.
    ///
    /// # Errors
    /// [`Error::KeyNotFound`].
    pub async fn kek(
        &self,
        permit: &Permit<ManageKeys>,
        version: KekVersion,
    ) -> Result<Answer<(KekDescription, Option<String>)>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyRead).await?;
        attempt.event.kek = Some(version);
        let outcome = async {
            let (tenant, _) = self.fresh_tenant(&tenant).await?;
            let found = tenant.keks().iter().find(|kek| kek.version == version);
            let kek = found.ok_or(Error::KeyNotFound)?;
            let receipt = self.key_receipt(&tenant, kek).await?;
            Ok(((KekDescription::new(kek), receipt), attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// Makes a new version: the primary, or one that is pending until it is promoted. What older versions wrapped goes on
    /// opening.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] when there are too many already.
    pub async fn rotate_kek(
        &self,
        permit: &Permit<ManageKeys>,
        pending: bool,
        repeat: Option<Repeat>,
    ) -> Result<Answer<KekDescription>, Failure> {
        let altered = self.alter_key(permit, Operation::KeyRotate, None, repeat, |tenant, now| {
            self.may_make_keys()?;
            let (row, version) = self.keyring.add_kek(tenant, !pending, now)?;
            Ok(Altered::new(row, version))
        });
        Ok(altered.await?.map(|(kek, _)| kek))
    }

    /// Changes the state of a version. To do what is done already is no error.
    ///
    /// # Errors
    /// [`Error::KeyNotFound`]; [`Error::KeyState`] when this is not for a version in its state.
    pub async fn change_kek(
        &self,
        permit: &Permit<ManageKeys>,
        version: KekVersion,
        verb: KekVerb,
        repeat: Option<Repeat>,
    ) -> Result<Answer<KekDescription>, Failure> {
        let altered = self.alter_key(permit, verb.operation(), Some(version), repeat, |tenant, now| {
            Ok(Altered::new(self.keyring.change_kek(tenant, version, verb.change(), now)?, version))
        });
        Ok(altered.await?.map(|(kek, _)| kek))
    }

    /// Makes a version useless at once and destroys it when its grace is over.
    ///
    /// # Errors
    /// [`Error::KeyInUse`] when other than the expected number of sessions would die; [`Error::KeyNotFound`],
    /// [`Error::KeyState`]; [`Error::Invalid`] for a grace outside of its bounds; [`Error::ApprovalRequired`] when somebody
    /// else must approve it first.
    pub async fn destroy_kek(
        &self,
        permit: &Permit<DestroyKeys>,
        destroy: &DestroyKek,
        repeat: Option<Repeat>,
    ) -> Result<Answer<KekDescription>, Failure> {
        let version = destroy.version;
        let altered = self.alter_key(
            permit,
            destroy.operation(Operation::KeySchedule),
            Some(version),
            repeat,
            |tenant, now| {
                let grace = destroy.grace.unwrap_or(KEY_GRACE_DEFAULT);
                GRACE.span(grace)?;
                let at = now.after(grace);
                let row = self.keyring.change_kek(tenant, version, KekChange::Schedule(at), now)?;
                let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                let sessions = destroy.expect_sessions;
                let what = Sensitive::KeySchedule { version: version.0, grace, sessions };
                Ok(Altered::new(row, version).killing(destroy, what))
            },
        );
        Ok(altered.await?.map(|(kek, _)| kek))
    }

    /// Destroys a version at once: there is no way back.
    ///
    /// # Errors
    /// As for [`Service::destroy_kek`].
    pub async fn destroy_kek_now(
        &self,
        permit: &Permit<DestroyKeys>,
        _: &Permit<DestroyKeysNow>,
        destroy: &DestroyKek,
        repeat: Option<Repeat>,
    ) -> Result<Answer<KekDescription>, Failure> {
        let version = destroy.version;
        let altered = self.alter_key(
            permit,
            destroy.operation(Operation::KeyDestroy),
            Some(version),
            repeat,
            |tenant, now| {
                let row = self.keyring.change_kek(tenant, version, KekChange::Destroy, now)?;
                let what = Sensitive::KeyDestroy { version: version.0, sessions: destroy.expect_sessions };
                Ok(Altered::new(row, version).killing(destroy, what))
            },
        );
        Ok(altered.await?.map(|(kek, _)| kek))
    }

    /// Counts the sessions that each version wraps, those among them that have ended and are not swept yet.
    ///
    /// # Errors
    /// [`Error::TenantNotFound`].
    pub async fn count_kek_use(&self, permit: &Permit<ManageKeys>) -> Result<Answer<Vec<KekUse>>, Failure> {
        let (attempt, tenant) = self.attempt(permit, Operation::KeyCensus).await?;
        let outcome = async {
            let (tenant, _) = self.fresh_tenant(&tenant).await?;
            let uses = self.census(&tenant).await?;
            Ok((uses, attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// Has versions of a tenant's key made by themselves, or not any more.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a period outside of its bounds.
    pub async fn set_kek_rotation(
        &self,
        permit: &Permit<ManageKeys>,
        every: Option<Duration>,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TenantDescription>, Failure> {
        let altered = self.alter_key(permit, Operation::KeySetRotation, None, repeat, |tenant, now| {
            every.map_or(Ok(()), |every| PERIOD.span(every))?;
            Ok(Altered::new(
                self.keyring.set_rotation(tenant, every, now)?,
                tenant.primary().ok_or(Error::Internal)?,
            ))
        });
        Ok(altered.await?.map(|(_, tenant)| tenant))
    }

    /// Does what is due with a tenant's key: destroys a version whose grace is over, or makes a new primary. Says whether
    /// anything was.
    pub(super) async fn key_due(&self, tenant: &Tenant, now: Timestamp) -> Result<bool, Error> {
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        let dead = tenant.keks().iter().find(|kek| kek.destroy_at.is_some_and(|at| at <= now));
        let (changed, version, operation) = match (dead, next_rotation(&tenant)) {
            (Some(kek), _) => {
                let row = self.keyring.change_kek(&tenant, kek.version, KekChange::Destroy, now)?;
                (row, kek.version, Operation::KeyDestroy)
            }
            (None, Some(next)) if next <= now && self.may_make_keys().is_ok() => {
                let (row, version) = self.keyring.add_kek(&tenant, true, now)?;
                (row, version, Operation::KeyRotate)
            }
            (None, _) => return Ok(false),
        };
        let (batch, _) = self.tenant_change(&tenant, &row, changed)?;
        let mut attempt = self.own_attempt(&tenant, operation);
        attempt.event.kek = Some(version);
        let forgetting = dead.is_some().then(|| self.forgetting(&tenant));
        attempt.commit(batch, forgetting).await?;
        Ok(true)
    }

    /// Counts, a step at a time, the sessions of a tenant by the version that wraps their keys.
    pub(super) async fn census(&self, tenant: &Tenant) -> Result<Vec<KekUse>, Error> {
        let living = tenant.keks().iter().filter(|kek| kek.state != KekState::Destroyed);
        let mut uses: BTreeMap<KekVersion, u64> = living.map(|kek| (kek.version, 0)).collect();
        let mut sessions = self.sessions_of(tenant, None);
        while let Some((_, row)) = sessions.next().await? {
            let records = row.records()?;
            // A tombstone is one record, and has no keys.
            if let [body, _, ..] = records.as_slice() {
                let version = Keyring::wrapping_version(body).ok_or(Error::Integrity)?;
                *uses.entry(version).or_default() += 1;
            }
        }
        Ok(uses.into_iter().map(|(version, sessions)| KekUse { version, sessions }).collect())
    }
}
