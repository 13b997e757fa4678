//! Does the work of jobs, a bounded step at a time.
//!
//! A step goes on from the place that the job's row names, and commits what it did together with the new place, so that
//! after a kill nothing is counted twice and nothing is left out. It goes through the committer like everybody else, gives
//! way while others wait there, and never does more than the job's rate.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::job::{JobKind, JobState, StoredJob};
use super::opened::SessionRow;
use super::{Error, Service};
use crate::audit::Operation;
use crate::crypto::{Header, Kind, open};
use crate::keyring::{Keyring, SessionKeys, Tenant};
use crate::model::{Duration, Revision, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, SessionPart, keys};

/// Most sessions that are changed in one commit.
const STEP: usize = 256;
/// Sessions that need no change are passed by, up to so many in one step.
const GLANCES: usize = 4096;
/// Rows of a session that a scrub holds in memory at once: with the largest values 64 MiB.
const SCRUB_ROWS: usize = 16;
/// Changes that wait at the committer when a job stands back.
const CROWD: u64 = 64;
/// For how long it stands back.
const STAND_BACK: Duration = Duration::from_millis(5);

/// What one round over all jobs did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobReport {
    /// Jobs that still work.
    pub working: usize,
    /// When the next round is due, at the earliest.
    pub pause: Duration,
}

/// Runs the steps. One a server.
pub struct Jobs {
    service: Arc<Service>,
    /// How many sessions a step of each job takes: fewer after a lost race.
    strides: Mutex<HashMap<Key, usize>>,
}

impl Jobs {
    /// The jobs of what `service` keeps.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, strides: Mutex::default() }
    }

    /// Does one step of every job that works.
    ///
    /// # Errors
    /// [`Error`] when the store cannot be read; what could be done was done.
    pub async fn round(&self) -> Result<JobReport, Error> {
        let service = &self.service;
        if service.committer.stats().depth > CROWD {
            return Ok(JobReport { working: 1, pause: STAND_BACK });
        }
        let working = service.working_jobs().await?;
        let mut report = JobReport { working: working.len(), pause: Duration::ZERO };
        let mut failure = None;
        for (tenant, mut stored) in working {
            let now = service.clock.now();
            let stride = self.stride(&stored, now);
            if stride == 0 {
                report.pause = report.pause.max(STAND_BACK);
                continue;
            }
            match service.job_step(&tenant, &mut stored, stride, now).await {
                Ok(()) => self.remember(stored.key, (stride * 2).min(STEP)),
                Err(Error::Contended) => self.remember(stored.key, (stride / 2).max(1)),
                Err(Error::Overloaded) => report.pause = STAND_BACK,
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(report), Err)
    }

    /// How many sessions the job may work on now.
    fn stride(&self, stored: &StoredJob, now: Timestamp) -> usize {
        let job = &stored.job;
        let stride = self.strides().get(&stored.key).copied().unwrap_or(STEP);
        if job.rate == 0 {
            return stride;
        }
        let lasting = now.since(Timestamp::from_millis(job.started)).as_millis();
        let due = lasting * u128::from(job.rate) / 1000;
        stride.min(usize::try_from(due.saturating_sub(u128::from(job.seen))).unwrap_or(stride))
    }

    fn remember(&self, job: Key, stride: usize) {
        self.strides().insert(job, stride);
    }

    fn strides(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.strides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    async fn job_step(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        stride: usize,
        now: Timestamp,
    ) -> Result<(), Error> {
        let after = (!stored.job.place.is_empty()).then(|| Key::from_stored(stored.job.place.clone()));
        let mut walk = self.sessions_of(tenant, after);
        let mut batch = Batch::default();
        let (mut worked, mut ended) = (0, false);
        for _ in 0..GLANCES.min(stride.saturating_mul(GLANCES / STEP)) {
            if worked == stride {
                break;
            }
            let Some((key, row)) = walk.next().await? else {
                ended = true;
                break;
            };
            worked += usize::from(match stored.job.kind {
                JobKind::Rewrap => self.rewrap_session(tenant, stored, &key, &row, &mut batch)?,
                JobKind::Scrub => self.scrub_session(tenant, stored, &key, &row).await?,
            });
        }
        stored.job.place = walk.place().map_or_else(Vec::new, |place| place.as_bytes().to_vec());
        stored.job.moved = now.as_millis();
        // It ends with a step that changes nothing, so that the census sees what the steps before it did.
        if ended && worked == 0 {
            stored.job.end(JobState::Done, &self.census(tenant).await?, now);
        }
        self.commit_step(tenant, stored, batch, worked).await
    }

    async fn commit_step(
        &self,
        tenant: &Tenant,
        stored: &StoredJob,
        mut batch: Batch,
        worked: usize,
    ) -> Result<(), Error> {
        let operation = match (stored.job.state, stored.job.kind) {
            (JobState::Done | JobState::Cancelled, _) => Operation::JobEnd,
            (JobState::Running, JobKind::Rewrap) => Operation::KeyRewrap,
            (JobState::Running, JobKind::Scrub) => Operation::KeyScrub,
        };
        let mut attempt = self.own_attempt(tenant, operation);
        attempt.touched(worked);
        attempt.event.kek = if stored.job.kind == JobKind::Rewrap { tenant.primary() } else { None };
        self.stage_job(tenant, stored, &mut batch)?;
        attempt.commit(batch, None).await.map(|_| ())
    }

    /// Adds a session with its keys wrapped anew to the batch; says whether there was anything to do.
    fn rewrap_session(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        key: &Key,
        row: &Row,
        batch: &mut Batch,
    ) -> Result<bool, Error> {
        let job = &mut stored.job;
        let named = match row.records()?.as_slice() {
            // A tombstone has no keys.
            [_] => return Ok(false),
            [body, sensitive, _] => [Some(*body), Some(*sensitive)],
            [body, ..] => [Some(*body), None],
            [] => return Err(Error::Integrity),
        };
        job.seen += 1;
        let primary = tenant.primary().ok_or(Error::Internal)?;
        let is_current = |record: &[u8]| Keyring::wrapping_version(record) == Some(primary);
        if named.into_iter().flatten().all(is_current) {
            return Ok(false);
        }
        let rewrapped = match self.rewrapped(tenant, key, row) {
            Err(Error::Integrity | Error::KeyDisabled | Error::KeyDestroyed) => {
                job.fail(key);
                return Ok(false);
            }
            rewrapped => rewrapped?,
        };
        let Some(rewrapped) = rewrapped else { return Ok(false) };
        if batch.expect.is_empty() {
            // The version that all are wrapped under must still be the primary when they are stored.
            batch.expect.push((tenant.row_key().clone(), RowExpect::Revision(tenant.revision())));
        }
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        batch.put.push((key.clone(), rewrapped));
        job.done += 1;
        Ok(true)
    }

    /// A session's row with the same keys, wrapped under the primary version.
    ///
    /// Its revision goes up, so that whoever relied on the row as it was loses the race, and does not put the old one back.
    fn rewrapped(&self, tenant: &Tenant, key: &Key, row: &Row) -> Result<Option<Row>, Error> {
        let SessionRow::Live { keys, session } = self.open_session_row(tenant, key, row)? else {
            return Ok(None);
        };
        let revision = row.revision()?.next();
        let (body, sensitive) = self.keyring.rewrap_session_keys(tenant, key, &keys)?;
        let metadata = self.seal_session(tenant, key, &keys, revision, &session)?;
        let records: Vec<_> =
            [Some(&body), sensitive.as_ref(), Some(&metadata)].into_iter().flatten().collect();
        Ok(Some(Row::new(revision, &records)))
    }

    /// Opens every record of a session; says whether there was anything to do.
    async fn scrub_session(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        key: &Key,
        row: &Row,
    ) -> Result<bool, Error> {
        let keys = match self.open_session_row(tenant, key, row) {
            Ok(SessionRow::Live { keys, .. }) => keys,
            Ok(SessionRow::Ended(_)) => return Ok(false),
            Err(Error::Integrity | Error::KeyDisabled | Error::KeyDestroyed) => {
                (stored.job.seen, _) = (stored.job.seen + 1, stored.job.fail(key));
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        stored.job.seen += 1;
        stored.job.done += 1;
        let mut after = key.clone();
        loop {
            let range =
                ScanRange { after: Some(after.clone()), ..ScanRange::prefix(keys::rows_of_session(key)) };
            let rows = self.engine.scan(range, SCRUB_ROWS).await?;
            for (key, row) in &rows {
                match self.opens(tenant, &keys, key, row) {
                    true => stored.job.done += 1,
                    false => self.report_damage(tenant, stored, key).await?,
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == SCRUB_ROWS => after = last.clone(),
                Some(_) | None => return Ok(true),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether the record of a row in a session opens where it stands.
    fn opens(&self, tenant: &Tenant, session: &SessionKeys, key: &Key, row: &Row) -> bool {
        let check = || {
            let [record] = row.exactly()?;
            let tombstone = Header::named_kind(record) == Some(Kind::EntryTombstone as u8);
            let revision = row.revision()?;
            let (kind, revision) = match key.within_session().first().copied() {
                Some(part) if part == SessionPart::Entry as u8 && tombstone => {
                    (Kind::EntryTombstone, revision)
                }
                Some(part) if part == SessionPart::Entry as u8 => (Kind::Entry, revision),
                Some(part) if part == SessionPart::Stream as u8 => (Kind::Stream, revision),
                Some(part) if part == SessionPart::Event as u8 => (Kind::Event, Revision::FIRST),
                Some(_) | None => return Err(Error::Integrity),
            };
            let header = Header { kind, key_id: session.body_id(), revision: revision.get() };
            open(session.body(), header, &self.place(tenant, key), record)?;
            Ok(())
        };
        check().is_ok()
    }

    async fn report_damage(&self, tenant: &Tenant, stored: &mut StoredJob, key: &Key) -> Result<(), Error> {
        let known = stored.job.failures.len();
        stored.job.fail(key);
        if stored.job.failures.len() > known {
            // One event a session, and no more than the job names.
            return self
                .own_attempt(tenant, Operation::KeyScrub)
                .fail(Error::Integrity)
                .await
                .receipt
                .map_or(Err(Error::AuditUnavailable), |_| Ok(()));
        }
        self.counters.integrity_failures.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
