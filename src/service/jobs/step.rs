//! One step of a job: some sessions, and the job's new state, in one commit.

use std::sync::atomic::Ordering;

use super::pace::STEP;
use crate::audit::Operation;
use crate::keyring::Tenant;
use crate::model::Timestamp;
use crate::service::job::{JobKind, JobState, StoredJob};
use crate::service::{Error, Service};
use crate::store::{Batch, Key};

/// Sessions that need no change are passed by, up to so many in one step.
const GLANCES: usize = 4096;
/// After so many sessions others get the processor.
const CHUNK: usize = 8;

impl Service {
    pub(super) async fn job_step(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        stride: usize,
        now: Timestamp,
    ) -> Result<(), Error> {
        let after = (!stored.job.place.is_empty()).then(|| Key::from_stored(stored.job.place.clone()));
        let mut walk = self.sessions_of(tenant, after);
        let mut batch = Batch::default();
        let (mut looked, mut worked, mut ended) = (0_usize, 0, false);
        for _ in 0..GLANCES.min(stride.saturating_mul(GLANCES / STEP)) {
            if worked == stride {
                break;
            }
            let Some((key, row)) = walk.next().await? else {
                ended = true;
                break;
            };
            looked += 1;
            if looked.is_multiple_of(CHUNK) {
                tokio::task::yield_now().await;
            }
            worked += usize::from(match stored.job.kind {
                JobKind::Rewrap => self.rewrap_session(tenant, stored, &key, &row, &mut batch)?,
                JobKind::Scrub => self.scrub_session(tenant, stored, &key, &row).await?,
                JobKind::Reencrypt => false,
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
            (JobState::Running, JobKind::Reencrypt) => Operation::KeyReencrypt,
        };
        let mut attempt = self.own_attempt(tenant, operation);
        attempt.touched(worked);
        attempt.event.kek = (stored.job.kind == JobKind::Rewrap).then(|| tenant.primary());
        self.stage_job(tenant, stored, &mut batch)?;
        attempt.commit(batch, None).await?;
        self.counters.job_commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
