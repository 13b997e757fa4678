//! One step of a job: some sessions, and the job's new state, in one commit.

use super::pace::STEP;
use super::reencrypt::Gathered;
use crate::audit::Operation;
use crate::keyring::Tenant;
use crate::model::Timestamp;
use crate::service::job::{JobKind, JobState, StoredJob};
use crate::service::{Error, Service};
use crate::store::Key;

/// Sessions that need no change are passed by, up to so many in one step.
pub(super) const GLANCES: usize = 4096;
/// After so many sessions others get the processor.
pub(super) const CHUNK: usize = 8;

impl Service {
    pub(super) async fn job_step(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        stride: usize,
        now: Timestamp,
    ) -> Result<(), Error> {
        let before = (stored.job.seen, stored.job.failed);
        let gathered = match stored.job.kind {
            JobKind::Rewrap | JobKind::Scrub => self.visit_some(tenant, stored, stride).await?,
            JobKind::Reencrypt => self.reencrypt_some(tenant, stored, stride).await?,
        };
        stored.job.moved = now.as_millis();
        // It ends with a step that changes nothing, so that the census sees what the steps before it did.
        if gathered.ended && gathered.worked == 0 {
            stored.job.end(JobState::Done, &self.census(tenant).await?, now);
        }
        self.commit_step(tenant, stored, gathered).await?;
        let job = &stored.job;
        self.counters.jobs.stepped(job.kind, job.seen - before.0, job.failed - before.1);
        Ok(())
    }

    /// Works on some sessions one by one, up to the last commit.
    async fn visit_some(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        stride: usize,
    ) -> Result<Gathered, Error> {
        let after = (!stored.job.place.is_empty()).then(|| Key::from_stored(stored.job.place.clone()));
        let mut walk = self.sessions_of(tenant, after);
        let mut gathered = Gathered::default();
        for looked in 1..=GLANCES.min(stride.saturating_mul(GLANCES / STEP)) {
            if gathered.worked == stride {
                break;
            }
            let Some((key, row)) = walk.next().await? else {
                gathered.ended = true;
                break;
            };
            if looked.is_multiple_of(CHUNK) {
                tokio::task::yield_now().await;
            }
            let is_rewrap = stored.job.kind == JobKind::Rewrap;
            gathered.worked += usize::from(match is_rewrap {
                true => self.rewrap_session(tenant, stored, &key, &row, &mut gathered.batch)?,
                false => self.scrub_session(tenant, stored, &key, &row).await?,
            });
        }
        stored.job.place = walk.place().map_or_else(Vec::new, |place| place.as_bytes().to_vec());
        Ok(gathered)
    }

    async fn commit_step(
        &self,
        tenant: &Tenant,
        stored: &StoredJob,
        mut gathered: Gathered,
    ) -> Result<(), Error> {
        let operation = match (stored.job.state, stored.job.kind) {
            (JobState::Done | JobState::Cancelled, _) => Operation::JobEnd,
            (JobState::Running, JobKind::Rewrap) => Operation::KeyRewrap,
            (JobState::Running, JobKind::Scrub) => Operation::KeyScrub,
            (JobState::Running, JobKind::Reencrypt) => Operation::KeyReencrypt,
        };
        let mut attempt = self.own_attempt(tenant, operation);
        attempt.touched(gathered.worked);
        attempt.event.kek = if stored.job.kind == JobKind::Scrub { None } else { tenant.primary() };
        self.stage_job(tenant, stored, &mut gathered.batch)?;
        let committed = gathered.announcement();
        attempt.commit(gathered.batch, committed).await?;
        self.counters.jobs.committed();
        Ok(())
    }
}
