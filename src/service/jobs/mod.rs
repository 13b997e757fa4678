//! Does the work of jobs, a bounded step at a time.
//!
//! A step goes on from the place that the job's row names, and commits what it did together with the new place, so that
//! after a kill nothing is counted twice and nothing is left out. It goes through the committer like everybody else, gives
//! way while others are at work there, and never does more than the job's rate.
//!
//! Which jobs work is kept in memory: the table is paged through once, when a server starts, and every job that is started
//! after that is added. So a server with nothing to do reads nothing.

mod counters;
mod pace;
mod reencrypt;
mod rewrap;
mod running;
mod scrub;
mod step;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use counters::JobCounters;
use pace::{BUSY_STEP, Pace, STEP};
pub(super) use running::Running;

use super::job::{JobKind, StoredJob};
use super::{Error, Service};
use crate::audit::Operation;
use crate::model::{Duration, Timestamp};
use crate::store::{Key, ScanRange, Table, keys};

/// Job rows that one round looks for.
const PAGE: usize = 512;
/// Changes that wait at the committer when a job stands back.
const CROWD: u64 = 64;
/// For how long it stands back; and between two steps while there is traffic.
const STAND_BACK: Duration = Duration::from_millis(5);
/// For how long a job rests whose step failed, so that it holds up no others.
const REST: Duration = Duration::from_secs(1);

/// What one round over all jobs did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobReport {
    /// Jobs that still work; one more while not all are found yet.
    pub working: usize,
    /// When the next round is due, at the earliest.
    pub pause: Duration,
}

/// Runs the steps. One a server.
pub struct Jobs {
    service: Arc<Service>,
    progress: Mutex<Progress>,
}

/// What is remembered between rounds.
#[derive(Default)]
struct Progress {
    search: Search,
    pace: Pace,
    turns: HashMap<Key, Turn>,
}

/// How far the table of jobs was looked through.
#[derive(Clone)]
enum Search {
    /// Up to this row.
    After(Option<Key>),
    /// To its end.
    Over,
}

impl Default for Search {
    fn default() -> Self {
        Self::After(None)
    }
}

/// How a job's next step is to be.
#[derive(Clone, Copy)]
struct Turn {
    /// How many sessions it takes: fewer after a lost race.
    stride: usize,
    /// Not before this.
    rests: Timestamp,
}

impl Default for Turn {
    fn default() -> Self {
        Self { stride: STEP, rests: Timestamp::default() }
    }
}

impl Jobs {
    /// The jobs of what `service` keeps.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, progress: Mutex::default() }
    }

    /// Does one step of every job that works.
    ///
    /// # Errors
    /// [`Error`] when the store cannot be read, or a step failed; what could be done was done, and a job whose step failed
    /// rests for a while.
    pub async fn round(&self) -> Result<JobReport, Error> {
        let service = &self.service;
        let stats = service.committer.stats();
        if stats.depth > CROWD {
            return Ok(JobReport { working: 1, pause: STAND_BACK });
        }
        let is_searching = self.search().await?;
        let own = service.counters.jobs.commits();
        let is_busy = self.progress().pace.is_busy(stats.operations, own, service.clock.now());
        let pause = if is_busy { STAND_BACK } else { Duration::ZERO };
        let mut report = JobReport { working: usize::from(is_searching), pause };
        let (mut failure, mut kinds) = (None, Vec::new());
        for (key, generation) in service.running.all() {
            match self.step(&key, is_busy, &mut report).await {
                Ok(true) => {
                    report.working += 1;
                    kinds.extend(JobKind::of(&key));
                }
                Ok(false) => self.ended(&key, generation),
                // It would not open the next time either.
                Err(error @ Error::Integrity) if self.is_damaged(&key).await => {
                    self.ended(&key, generation);
                    let attempt = service.own_server_attempt(Operation::JobRead);
                    failure = attempt.fail(error).await.error.into();
                }
                // The tenant is about to be destroyed: that may be taken back.
                Err(Error::TenantState(_)) => {}
                Err(error) => {
                    report.working += 1;
                    kinds.extend(JobKind::of(&key));
                    self.rest(key);
                    failure = Some(error);
                }
            }
        }
        service.counters.jobs.running(&kinds);
        failure.map_or(Ok(report), Err)
    }

    /// Looks through one page of the table of jobs; says whether there may be more.
    async fn search(&self) -> Result<bool, Error> {
        let Search::After(after) = self.progress().search.clone() else { return Ok(false) };
        let range = ScanRange { after, ..ScanRange::prefix(keys::table(Table::Job)) };
        let found = self.service.engine.scan_keys(range, PAGE).await?;
        let is_last = found.len() < PAGE;
        self.progress().search = if is_last { Search::Over } else { Search::After(found.last().cloned()) };
        // Those that have ended are found out when their turn comes.
        found.into_iter().for_each(|key| self.service.running.begin(key));
        Ok(!is_last)
    }

    /// Does a step of a job; says whether it still works.
    async fn step(&self, key: &Key, is_busy: bool, report: &mut JobReport) -> Result<bool, Error> {
        let service = &self.service;
        let now = service.clock.now();
        if self.turn(key).rests > now {
            report.pause = report.pause.max(STAND_BACK);
            return Ok(true);
        }
        let Some((tenant, mut stored)) = service.working_job(key).await? else { return Ok(false) };
        let most = if is_busy { BUSY_STEP } else { STEP };
        let stride = self.stride(&stored, now).min(most);
        if stride == 0 {
            report.pause = report.pause.max(STAND_BACK);
            return Ok(true);
        }
        match service.job_step(&tenant, &mut stored, stride, now).await {
            Ok(()) => self.remember(key, (stride * 2).min(STEP)),
            Err(Error::Contended) => self.remember(key, (stride / 2).max(1)),
            Err(Error::Overloaded) => report.pause = STAND_BACK,
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// How many sessions the job may work on now.
    fn stride(&self, stored: &StoredJob, now: Timestamp) -> usize {
        let job = &stored.job;
        let stride = self.turn(&stored.key).stride;
        if job.rate == 0 {
            return stride;
        }
        let lasting = now.since(Timestamp::from_millis(job.started)).as_millis();
        let due = lasting * u128::from(job.rate) / 1000;
        stride.min(usize::try_from(due.saturating_sub(u128::from(job.seen))).unwrap_or(stride))
    }

    /// Whether it is the job's own row that does not open.
    async fn is_damaged(&self, key: &Key) -> bool {
        matches!(self.service.working_job(key).await, Err(Error::Integrity))
    }

    fn rest(&self, key: Key) {
        let rests = self.service.clock.now().after(REST);
        self.progress().turns.entry(key).or_default().rests = rests;
    }

    fn ended(&self, key: &Key, generation: u64) {
        self.service.running.end(key, generation);
        self.progress().turns.remove(key);
    }

    fn remember(&self, key: &Key, stride: usize) {
        self.progress().turns.insert(key.clone(), Turn { stride, ..Turn::default() });
    }

    fn turn(&self, key: &Key) -> Turn {
        self.progress().turns.get(key).copied().unwrap_or_default()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
