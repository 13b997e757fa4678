//! Long work on all of a tenant's sessions: rewrap, scrub, reencrypt. The server does it; this starts it, and watches how far it is.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Admin;
use super::records::KekUse;
use crate::client::answer::Answer;
use crate::client::convert::{required_time, time_from};
use crate::client::error::ClientError;
use crate::client::follow;
use crate::client::link::{admin, call};
use crate::client::retry::Retries;
use crate::model::Timestamp;
use crate::proto::v1;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Wraps the keys of all sessions anew under the primary version. No data is touched.
    Rewrap,
    /// Opens every record and counts those that do not open. Changes nothing.
    Scrub,
    /// Makes new keys for all sessions and seals everything in them anew, as
    /// [`rotate_session_key`](Admin::rotate_session_key) does for one.
    Reencrypt,
}

/// Whether a job still works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It works, or waits for a server that does.
    Running,
    /// It has come to the end.
    Done,
    /// It was cancelled.
    Cancelled,
}

/// A job, and how far it is. A tenant has at most one of a kind that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Never given twice. A UUID.
    pub uid: String,
    /// What it does.
    pub kind: JobKind,
    /// Whether it still works.
    pub state: JobState,
    /// When it was started.
    pub create_time: Timestamp,
    /// When it last came further.
    pub update_time: Timestamp,
    /// When it ended; `None` while it works.
    pub end_time: Option<Timestamp>,
    /// Most sessions a second; `None`: as many as traffic leaves room for.
    pub rate: Option<u32>,
    /// Sessions that there were at the beginning.
    pub sessions_total: u64,
    /// Sessions that it has come by. Those that were created meanwhile count, too.
    pub sessions_seen: u64,
    /// Of a rewrap: sessions that were wrapped anew. Of a scrub: records that opened. Of a reencrypt: sessions that were
    /// encrypted anew.
    pub done: u64,
    /// Of a rewrap or reencrypt: sessions that did not open. Of a scrub: records that did not.
    pub failed: u64,
    /// Of a scrub: sessions that were not looked into, because the version that wraps their keys is disabled or destroyed.
    pub sessions_closed: u64,
    /// Blinded ids, in hexadecimal digits, of some sessions to which these belong; at most 32.
    pub failed_sessions: Vec<String>,
    /// Sessions by key version at the beginning.
    pub before: Vec<KekUse>,
    /// The same at the end; empty while it works.
    pub after: Vec<KekUse>,
}

/// How a job is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobWatch {
    /// Pause between an answer and the next question. Default: 1 s.
    pub interval: Duration,
    /// How long a server that is away is asked again before the watch ends with an error. Default: 60 s.
    pub patience: Duration,
}

impl Default for JobWatch {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), patience: follow::PATIENCE }
    }
}

impl Admin {
    /// Starts a job, with at most `rate` sessions a second, 1 to 1,000,000; `None`: as many as traffic leaves room for.
    ///
    /// The server counts the sessions first, as [`Self::count_kek_use`] does.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` while one of this kind works; `TENANT_NOT_FOUND`; `INVALID_FIELD` for a rate outside of its bound;
    /// see [`ClientError`] for the rest.
    pub async fn start_job(
        &self,
        tenant: &str,
        kind: JobKind,
        rate: Option<u32>,
    ) -> Result<Answer<Job>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::StartJobRequest {
            tenant: tenant.to_owned(),
            kind: kind.to_wire().into(),
            rate: rate.unwrap_or_default(),
            request_id: id.to_string(),
        };
        let answer = self.link.unary(id, request, call!(admin.start_job)).await?;
        answer.try_map(|response| Job::required(response.job))
    }

    /// Reads a tenant's latest job of a kind.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; `JOB_NOT_FOUND` when there never was one; see [`ClientError`] for the rest.
    pub async fn job(&self, tenant: &str, kind: JobKind) -> Result<Answer<Job>, ClientError> {
        let request = v1::GetJobRequest { tenant: tenant.to_owned(), kind: kind.to_wire().into() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_job)).await?;
        answer.try_map(|response| Job::required(response.job))
    }

    /// Lists a tenant's latest job of each kind.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn jobs(&self, tenant: &str) -> Result<Answer<Vec<Job>>, ClientError> {
        let request = v1::ListJobsRequest { tenant: tenant.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.list_jobs)).await?;
        answer.try_map(|response| response.jobs.into_iter().map(Job::from_wire).collect())
    }

    /// Ends a job where it is. What it did stays done. To cancel one that has ended is no error and changes nothing.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; `JOB_NOT_FOUND` when there never was one; see [`ClientError`] for the rest.
    pub async fn cancel_job(&self, tenant: &str, kind: JobKind) -> Result<Answer<Job>, ClientError> {
        let request = v1::CancelJobRequest { tenant: tenant.to_owned(), kind: kind.to_wire().into() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.cancel_job)).await?;
        answer.try_map(|response| Job::required(response.job))
    }

    /// Streams how far a tenant's latest job of a kind is, at once and then at intervals. The last item is the job as it
    /// ended.
    ///
    /// When the server is away it is asked again, with pauses that grow. When another job of the kind is started between
    /// two questions, the stream goes on with that one: `uid` tells them apart.
    #[must_use]
    pub fn watch_job(
        &self,
        tenant: &str,
        kind: JobKind,
        watch: JobWatch,
    ) -> BoxStream<'static, Result<Job, ClientError>> {
        let watching = Watching { admin: self.clone(), tenant: tenant.to_owned(), kind, watch, latest: None };
        stream::try_unfold(watching, |mut watching| async move {
            let job = watching.next().await?;
            Ok(job.map(|job| (job, watching)))
        })
        .boxed()
    }
}

struct Watching {
    admin: Admin,
    tenant: String,
    kind: JobKind,
    watch: JobWatch,
    /// The state in the answer before.
    latest: Option<JobState>,
}

impl Watching {
    async fn next(&mut self) -> Result<Option<Job>, ClientError> {
        match self.latest {
            None => {}
            Some(JobState::Running) => sleep(self.watch.interval).await,
            Some(JobState::Done | JobState::Cancelled) => return Ok(None),
        }
        let job = self.ask().await?;
        self.latest = Some(job.state);
        Ok(Some(job))
    }

    /// Asks until there is an answer, or no patience left.
    async fn ask(&self) -> Result<Job, ClientError> {
        let (begun, mut failures) = (Instant::now(), 0_u32);
        loop {
            let error = match self.admin.job(&self.tenant, self.kind).await {
                Ok(job) => return Ok(job.into_inner()),
                Err(error) => error,
            };
            failures = failures.saturating_add(1);
            let pause = Retries::default().pause_after(failures).max(error.retry_after().unwrap_or_default());
            if !follow::passing(&error) || begun.elapsed() + pause > self.watch.patience {
                return Err(error);
            }
            sleep(pause).await;
        }
    }
}

impl JobKind {
    /// Its name, as in the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rewrap => "rewrap",
            Self::Scrub => "scrub",
            Self::Reencrypt => "reencrypt",
        }
    }

    const fn to_wire(self) -> v1::JobKind {
        match self {
            Self::Rewrap => v1::JobKind::Rewrap,
            Self::Scrub => v1::JobKind::Scrub,
            Self::Reencrypt => v1::JobKind::Reencrypt,
        }
    }
}

impl JobState {
    /// Its name, as in the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Job {
    /// How long it has worked, up to where it last came further; times without a server count, too.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.end_time.unwrap_or(self.update_time).since(self.create_time)
    }

    /// Sessions a second, on average; `None` at the very beginning.
    #[must_use]
    pub fn sessions_per_second(&self) -> Option<f64> {
        let elapsed = self.elapsed();
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let seen = self.sessions_seen as f64;
        (!elapsed.is_zero()).then(|| seen / elapsed.as_secs_f64())
    }

    /// How long it will yet take if it goes on as before.
    ///
    /// `None` when that cannot be told: it has ended, has hardly begun, or has come by more sessions than there were.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.sessions_total.checked_sub(self.sessions_seen)?;
        if self.state != JobState::Running || self.sessions_seen == 0 {
            return None;
        }
        let millis = self.elapsed().as_millis().checked_mul(left.into())? / u128::from(self.sessions_seen);
        u64::try_from(millis).ok().map(Duration::from_millis)
    }

    fn required(job: Option<v1::Job>) -> Result<Self, ClientError> {
        Self::from_wire(job.ok_or(ClientError::Malformed { what: "job" })?)
    }

    fn from_wire(job: v1::Job) -> Result<Self, ClientError> {
        let kind = match job.kind() {
            v1::JobKind::Rewrap => JobKind::Rewrap,
            v1::JobKind::Scrub => JobKind::Scrub,
            v1::JobKind::Reencrypt => JobKind::Reencrypt,
            v1::JobKind::Unspecified => return Err(ClientError::Malformed { what: "job kind" }),
        };
        let state = match job.state() {
            v1::JobState::Running => JobState::Running,
            v1::JobState::Done => JobState::Done,
            v1::JobState::Cancelled => JobState::Cancelled,
            v1::JobState::Unspecified => return Err(ClientError::Malformed { what: "job state" }),
        };
        let uses = |uses: Vec<v1::KekUse>| uses.into_iter().map(KekUse::from_wire).collect();
        Ok(Self {
            uid: job.uid,
            kind,
            state,
            create_time: required_time(job.create_time)?,
            update_time: required_time(job.update_time)?,
            end_time: job.end_time.map(time_from).transpose()?,
            rate: (job.rate > 0).then_some(job.rate),
            sessions_total: job.sessions_total,
            sessions_seen: job.sessions_seen,
            done: job.done,
            failed: job.failed,
            sessions_closed: job.sessions_closed,
            failed_sessions: job.failed_sessions,
            before: uses(job.before),
            after: uses(job.after),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState, seen: u64, seconds: u64) -> Job {
        let create_time = Timestamp::from_millis(1_000);
        let update_time = Timestamp::from_millis(1_000 + seconds * 1_000);
        Job {
            uid: String::new(),
            kind: JobKind::Scrub,
            state,
            create_time,
            update_time,
            end_time: (state != JobState::Running).then_some(update_time),
            rate: None,
            sessions_total: 300,
            sessions_seen: seen,
            done: 0,
            failed: 0,
            sessions_closed: 0,
            failed_sessions: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let half = job(JobState::Running, 100, 10);
        assert_eq!(half.elapsed(), Duration::from_secs(10));
        assert_eq!(half.sessions_per_second(), Some(10.0));
        assert_eq!(half.time_left(), Some(Duration::from_secs(20)));
        assert_eq!(job(JobState::Running, 300, 10).time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn nobody_guesses_how_long_it_takes_without_a_reason_to() {
        for (job, rate) in [
            (job(JobState::Running, 0, 10), Some(0.0)),
            (job(JobState::Running, 0, 0), None),
            (job(JobState::Running, 301, 10), Some(30.1)),
            (job(JobState::Done, 100, 10), Some(10.0)),
            (job(JobState::Cancelled, 100, 10), Some(10.0)),
        ] {
            assert_eq!((job.time_left(), job.sessions_per_second()), (None, rate), "{job:?}");
        }
    }
}
