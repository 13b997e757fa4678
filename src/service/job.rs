//! Long work on all of a tenant's sessions: started, looked at, cancelled.
//!
//! A tenant has at most one job of a kind; its row stays when it has ended, until the next one begins. The work itself is
//! done by [`Jobs`](super::Jobs), in steps that each commit what was done together with how far that is: so a job goes on
//! where it was when the process is started anew, and nothing is done twice.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::destroy::check_stays;
use super::payload;
use super::view::{Answer, Repeat};
use super::{Error, Failure, Problem, Service, key::KekUse};
use crate::audit::Operation;
use crate::auth::{ManageKeys, Permit};
use crate::commit::Receipt;
use crate::crypto::{Header, KeyId, Kind, open, seal};
use crate::keyring::Tenant;
use crate::model::limits::{JOB_FAILURES, JOB_RATE_MAX};
use crate::model::{KekVersion, Revision, TenantState, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, keys};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum JobKind {
    /// Wraps the keys of all sessions anew under the primary version.
    Rewrap = 1,
    /// Opens every record, and counts those that do not open.
    Scrub = 2,
    /// Makes new keys for all sessions, and seals everything in them anew.
    Reencrypt = 3,
}

impl JobKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Rewrap, Self::Scrub, Self::Reencrypt];

    /// What the job does that a row of the table is about.
    pub(super) fn of(row: &Key) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| row.within_tenant() == [*kind as u8])
    }
}

/// Whether a job still works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// It works, or waits for a server that does.
    Running,
    /// It has come to the end.
    Done,
    /// It was cancelled.
    Cancelled,
}

/// A job, and how far it is.
#[derive(Clone, Serialize, Deserialize)]
pub struct JobDescription {
    /// Random.
    pub id: [u8; 16],
    /// What it does.
    pub kind: JobKind,
    /// Whether it still works.
    pub state: JobState,
    /// When it was started, in milliseconds since 1970.
    pub started: u64,
    /// When it last came further.
    pub moved: u64,
    /// When it ended; 0 while it works.
    pub ended: u64,
    /// Most sessions a second; 0: as many as traffic leaves room for.
    pub rate: u32,
    /// Sessions that there were at the beginning.
    pub total: u64,
    /// Sessions that it has come by.
    pub seen: u64,
    /// Of those: rewrapped, or encrypted anew. Of a scrub: records that opened.
    pub done: u64,
    /// Sessions, of a scrub records, that did not open.
    pub failed: u64,
    /// Of a scrub: sessions that were not looked into, because their key version is disabled or destroyed.
    #[serde(skip)]
    pub closed: u64,
    /// Blinded ids of some sessions to which these belong, at most [`JOB_FAILURES`].
    pub failures: Vec<[u8; 16]>,
    /// Sessions by key version at the beginning: version and number.
    before: Vec<(u32, u64)>,
    /// The same at the end; empty while it works.
    after: Vec<(u32, u64)>,
    /// The key behind which the next step begins; empty at the beginning.
    pub(super) place: Vec<u8>,
}

impl JobDescription {
    /// Sessions by key version at the beginning.
    pub fn before(&self) -> impl Iterator<Item = KekUse> {
        self.before.iter().map(as_use)
    }

    /// Sessions by key version at the end; none while it works.
    pub fn after(&self) -> impl Iterator<Item = KekUse> {
        self.after.iter().map(as_use)
    }

    /// Counts something that did not open.
    pub(super) fn fail(&mut self, session: &Key) {
        self.failed += 1;
        if let Ok(id) = session.session().try_into()
            && self.failures.len() < JOB_FAILURES
            && self.failures.last() != Some(&id)
        {
            self.failures.push(id);
        }
    }

    pub(super) fn end(&mut self, state: JobState, uses: &[KekUse], now: Timestamp) {
        (self.state, self.ended, self.moved) = (state, now.as_millis(), now.as_millis());
        self.after = uses.iter().map(|of| (of.version.0, of.sessions)).collect();
    }
}

fn as_use((version, sessions): &(u32, u64)) -> KekUse {
    KekUse { version: KekVersion(*version), sessions: *sessions }
}

/// A job as it is stored, for a change that relies on it.
pub(super) struct StoredJob {
    pub(super) key: Key,
    pub(super) row: Row,
    pub(super) job: JobDescription,
}

impl Service {
    /// Starts a job.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] while one of this kind works; [`Error::Invalid`] for a rate outside of its bound;
    /// [`Error::TenantState`] when the tenant is to be destroyed.
    pub async fn start_job(
        &self,
        permit: &Permit<ManageKeys>,
        kind: JobKind,
        rate: u32,
        repeat: Option<Repeat>,
    ) -> Result<Answer<JobDescription>, Failure> {
        let (attempt, tenant) = self.attempt(permit, Operation::JobStart).await?;
        let slot = self.system_slot(permit, repeat);
        let outcome = until_won!(self.start_job_once(&attempt, &tenant, kind, rate, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn start_job_once(
        &self,
        attempt: &Attempt<'_>,
        tenant: &Tenant,
        kind: JobKind,
        rate: u32,
        slot: Option<&Slot>,
    ) -> Result<(JobDescription, Receipt), Error> {
        if rate > JOB_RATE_MAX {
            return Err(Error::invalid("rate", Problem::Form { form: "at most 1000000" }));
        }
        let (tenant, tenant_row) = self.fresh_tenant(tenant).await?;
        if let Some(given) = self.system_answer::<JobDescription>(slot).await? {
            return Ok((given, attempt.record().await?));
        }
        check_stays(&tenant)?;
        let key = keys::job(tenant.tenant_ref().id, kind as u8);
        let [row] = self.read([key.clone()]).await?;
        if let Some(row) = &row
            && self.open_job(&tenant, &key, row)?.state == JobState::Running
        {
            return Err(Error::AlreadyExists);
        }
        let job = self.new_job(&tenant, kind, rate).await?;
        let revision = row.as_ref().map(Row::revision).transpose()?.map_or(Revision::FIRST, Revision::next);
        let mut batch = Batch::default();
        // The tenant's rows are there, and stay.
        batch.expect.push((tenant.row_key().clone(), RowExpect::unchanged(Some(&tenant_row))));
        batch.expect.push((key.clone(), RowExpect::unchanged(row.as_ref())));
        batch.put.push((key.clone(), self.seal_job(&tenant, &key, revision, &job)?));
        if let Some(slot) = slot {
            slot.give(self, &self.system_answer_key(), &job, &mut batch)?;
        }
        let running = self.running.clone();
        let begin = Box::new(move || running.begin(key));
        Ok((job, attempt.commit(batch, Some(begin)).await?))
    }

    async fn new_job(&self, tenant: &Tenant, kind: JobKind, rate: u32) -> Result<JobDescription, Error> {
        let uses = self.census(tenant).await?;
        let mut id = [0; 16];
        self.entropy.fill(&mut id)?;
        let now = self.clock.now().as_millis();
        Ok(JobDescription {
            id,
            kind,
            state: JobState::Running,
            started: now,
            moved: now,
            ended: 0,
            rate,
            total: uses.iter().map(|of| of.sessions).sum(),
            seen: 0,
            done: 0,
            failed: 0,
            closed: 0,
            failures: Vec::new(),
            before: uses.iter().map(|of| (of.version.0, of.sessions)).collect(),
            after: Vec::new(),
            place: Vec::new(),
        })
    }

    /// Returns a tenant's latest job of a kind.
    ///
    /// # Errors
    /// [`Error::JobNotFound`] when there never was one.
    pub async fn job(
        &self,
        permit: &Permit<ManageKeys>,
        kind: JobKind,
    ) -> Result<Answer<JobDescription>, Failure> {
        let (attempt, tenant) = self.attempt(permit, Operation::JobRead).await?;
        let outcome = async {
            let (tenant, _) = self.fresh_tenant(&tenant).await?;
            let stored = self.stored_job(&tenant, kind).await?.ok_or(Error::JobNotFound)?;
            Ok((stored.job, attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// Lists a tenant's latest job of each kind.
    ///
    /// # Errors
    /// [`Error::TenantNotFound`].
    pub async fn jobs(&self, permit: &Permit<ManageKeys>) -> Result<Answer<Vec<JobDescription>>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::JobList).await?;
        let outcome = async {
            let (tenant, _) = self.fresh_tenant(&tenant).await?;
            let mut jobs = Vec::new();
            for kind in JobKind::ALL {
                jobs.extend(self.stored_job(&tenant, kind).await?.map(|stored| stored.job));
            }
            attempt.touched(jobs.len());
            Ok((jobs, attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// Ends a job where it is. What it did stays done. To cancel one that has ended is no error.
    ///
    /// # Errors
    /// [`Error::JobNotFound`] when there never was one.
    pub async fn cancel_job(
        &self,
        permit: &Permit<ManageKeys>,
        kind: JobKind,
    ) -> Result<Answer<JobDescription>, Failure> {
        let (attempt, tenant) = self.attempt(permit, Operation::JobCancel).await?;
        let outcome = until_won!(self.cancel_job_once(&attempt, &tenant, kind).await);
        attempt.close(outcome).await
    }

    async fn cancel_job_once(
        &self,
        attempt: &Attempt<'_>,
        tenant: &Tenant,
        kind: JobKind,
    ) -> Result<(JobDescription, Receipt), Error> {
        let (tenant, _) = self.fresh_tenant(tenant).await?;
        let mut stored = self.stored_job(&tenant, kind).await?.ok_or(Error::JobNotFound)?;
        let mut batch = Batch::default();
        if stored.job.state == JobState::Running {
            let uses = self.census(&tenant).await?;
            stored.job.end(JobState::Cancelled, &uses, self.clock.now());
            self.stage_job(&tenant, &stored, &mut batch)?;
        }
        let receipt = attempt.commit(batch, None).await?;
        Ok((stored.job, receipt))
    }

    async fn stored_job(&self, tenant: &Tenant, kind: JobKind) -> Result<Option<StoredJob>, Error> {
        let key = keys::job(tenant.tenant_ref().id, kind as u8);
        let [row] = self.read([key.clone()]).await?;
        let Some(row) = row else { return Ok(None) };
        let job = self.open_job(tenant, &key, &row)?;
        Ok(Some(StoredJob { key, row, job }))
    }

    /// A job, if it still works.
    pub(super) async fn working_job(&self, key: &Key) -> Result<Option<(Arc<Tenant>, StoredJob)>, Error> {
        let tenant_key = keys::tenant(key.tenant().ok_or(Error::Integrity)?);
        let [Some(tenant), Some(row)] = self.read([tenant_key.clone(), key.clone()]).await? else {
            return Ok(None);
        };
        let tenant = self.open_tenant(&tenant_key, tenant).await?.0;
        if tenant.state() == TenantState::Destroyed {
            return Ok(None);
        }
        check_stays(&tenant)?;
        let job = self.open_job(&tenant, key, &row)?;
        let stored = StoredJob { key: key.clone(), row, job };
        Ok((stored.job.state == JobState::Running).then_some((tenant, stored)))
    }

    /// Adds a job's new state to a batch, on the condition that nobody changed it.
    pub(super) fn stage_job(
        &self,
        tenant: &Tenant,
        stored: &StoredJob,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let row = self.seal_job(tenant, &stored.key, stored.row.revision()?.next(), &stored.job)?;
        batch.expect.push((stored.key.clone(), RowExpect::unchanged(Some(&stored.row))));
        batch.put.push((stored.key.clone(), row));
        Ok(())
    }

    fn open_job(&self, tenant: &Tenant, key: &Key, row: &Row) -> Result<JobDescription, Error> {
        let [record] = row.exactly()?;
        let header = header(tenant, row.revision()?);
        let opened = open(tenant.control(), header, &self.place_within(tenant.tenant_ref(), key), record)?;
        let bytes = opened.as_bytes();
        if payload::version(bytes) != Some(CLOSED) {
            return payload::decode(bytes);
        }
        let (job, closed) = payload::decode_as::<(JobDescription, u64)>(CLOSED, bytes)?;
        Ok(JobDescription { closed, ..job })
    }

    fn seal_job(
        &self,
        tenant: &Tenant,
        key: &Key,
        revision: Revision,
        job: &JobDescription,
    ) -> Result<Row, Error> {
        let plain = payload::encode_as(CLOSED, &(job, job.closed))?;
        let place = self.place_within(tenant.tenant_ref(), key);
        let record = seal(tenant.control(), header(tenant, revision), &place, &plain, &*self.entropy)?;
        Ok(Row::new(revision, &[&record]))
    }
}

/// The version of a job's payload that counts closed sessions.
const CLOSED: u8 = 2;

fn header(tenant: &Tenant, revision: Revision) -> Header {
    Header { kind: Kind::Job, key_id: KeyId(tenant.tenant_ref().id.0), revision: revision.get() }
}
