//! Makes new keys for all sessions, and seals everything in them anew.
//!
//! A step gives some sessions their new keys in one commit, and then seals what they hold: the last rows of each go with its
//! former keys and with the job's new state. A session whose keys were made after the job's start is passed by, so that
//! nothing is done twice.

use super::step::{CHUNK, GLANCES};
use crate::audit::Operation;
use crate::keyring::Tenant;
use crate::model::Timestamp;
use crate::service::hub::Announcement;
use crate::service::job::{JobDescription, StoredJob};
use crate::service::opened::SessionRow;
use crate::service::reencrypt::Turnover;
use crate::service::{Error, Service};
use crate::store::{Batch, Key, Row, keys};

/// Bytes of rows after which a step ends: half a group of the committer's.
const STEP_BYTES: usize = 256 << 10;
/// Most sessions in one step: each is more work than a rewrap, and what a step begins and does not finish is looked at again.
const STEP_SESSIONS: usize = 32;

/// A session that a step came by.
enum Found {
    /// It has keys of its own since the job's start, or none at all.
    Passed,
    /// Something in it does not open.
    Failed,
    /// It is on its way to new keys.
    Begun(Box<Turnover>),
}

/// What a step is about to commit.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) batch: Batch,
    pub(super) worked: usize,
    pub(super) ended: bool,
    committed: Vec<Announcement>,
}

impl Gathered {
    /// What the commit runs.
    pub(super) fn announcement(&mut self) -> Option<Announcement> {
        let all = std::mem::take(&mut self.committed);
        (!all.is_empty()).then(|| Box::new(|| all.into_iter().for_each(|each| each())) as Announcement)
    }
}

impl Service {
    /// Does the work of a step, up to the last commit. Moves the job behind the sessions that this finishes.
    pub(super) async fn reencrypt_some(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        stride: usize,
    ) -> Result<Gathered, Error> {
        let mut gathered = Gathered::default();
        let mut beginning = Batch::default();
        let stride = stride.min(STEP_SESSIONS);
        let (found, ended) = self.find_some(tenant, &stored.job, stride, &mut beginning).await?;
        if !beginning.put.is_empty() {
            let sessions = beginning.put.len() / 2;
            self.commit_own(tenant, beginning, sessions).await?;
        }
        for (number, (key, found)) in found.into_iter().enumerate() {
            if number.is_multiple_of(CHUNK) {
                tokio::task::yield_now().await;
            }
            match found {
                Found::Passed => {}
                Found::Failed => stored.job.fail(&key),
                Found::Begun(turnover) => match self.finish_one(tenant, &turnover, &mut gathered).await {
                    Ok(()) => stored.job.done += 1,
                    Err(Error::Integrity) => stored.job.fail(&key),
                    Err(error) => return Err(error),
                },
            }
            stored.job.seen += 1;
            stored.job.place = keys::session_end(&key).as_bytes().to_vec();
            if gathered.batch.bytes() >= STEP_BYTES {
                return Ok(gathered);
            }
        }
        gathered.ended = ended;
        Ok(gathered)
    }

    /// The next sessions, and whether they are the last; adds new keys for those that need them to a batch.
    async fn find_some(
        &self,
        tenant: &Tenant,
        job: &JobDescription,
        stride: usize,
        beginning: &mut Batch,
    ) -> Result<(Vec<(Key, Found)>, bool), Error> {
        let after = (!job.place.is_empty()).then(|| Key::from_stored(job.place.clone()));
        let mut walk = self.sessions_of(tenant, after);
        let (mut sessions, mut begun) = (Vec::new(), 0);
        for looked in 1..=GLANCES {
            if begun == stride {
                return Ok((sessions, false));
            }
            if looked.is_multiple_of(CHUNK) {
                tokio::task::yield_now().await;
            }
            let Some((key, row)) = walk.next().await? else { return Ok((sessions, true)) };
            // A tombstone has no keys.
            if row.records()?.len() == 1 {
                continue;
            }
            let found = match self.begun_since(tenant, job.started, (&key, &row), beginning).await {
                Err(Error::Integrity | Error::KeyDisabled | Error::KeyDestroyed) => Found::Failed,
                found => found?,
            };
            begun += usize::from(matches!(found, Found::Begun(_)));
            sessions.push((key, found));
        }
        Ok((sessions, false))
    }

    async fn begun_since(
        &self,
        tenant: &Tenant,
        started: u64,
        (key, row): (&Key, &Row),
        beginning: &mut Batch,
    ) -> Result<Found, Error> {
        let (keys, former, session) = match self.peek_session_row(tenant, key, row)? {
            SessionRow::Live { keys, former, session } => (keys, former, session),
            SessionRow::Ended(_) => return Ok(Found::Passed),
        };
        let since = session.rekeyed.map_or(session.created, |rekeyed| rekeyed.at) > started;
        match former {
            None if since => Ok(Found::Passed),
            None => {
                // Later than the job's start, so that the next look finds it so.
                let at = self.clock.now().max(Timestamp::from_millis(started.saturating_add(1)));
                let turnover = self.begin_anew(tenant, (key, row), (&keys, &session), at, beginning)?;
                Ok(Found::Begun(Box::new(turnover)))
            }
            Some(former) if since => {
                let (key, row) = (key.clone(), row.clone());
                Ok(Found::Begun(Box::new(Turnover { key, row, keys, former, session })))
            }
            // Its new keys are older than the job: it comes to the end with them first.
            Some(_) if self.sweep_anew(tenant, key).await? => Err(Error::Contended),
            Some(_) => Err(Error::Overloaded),
        }
    }

    /// Seals what a session holds, and adds its last rows to what is gathered.
    async fn finish_one(
        &self,
        tenant: &Tenant,
        turnover: &Turnover,
        gathered: &mut Gathered,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let mut part = self.seal_anew(tenant, turnover, after).await?;
            if part.after.is_some() {
                after = part.after;
                self.commit_own(tenant, part.batch, 1).await?;
                continue;
            }
            self.end_anew(tenant, turnover, &mut part.batch)?;
            gathered.batch.expect.extend(part.batch.expect);
            gathered.batch.put.extend(part.batch.put);
            gathered.batch.delete.extend(part.batch.delete);
            gathered.committed.push(self.forgetting_session(&turnover.key));
            gathered.worked += 1;
            return Ok(());
        }
    }

    async fn commit_own(&self, tenant: &Tenant, batch: Batch, sessions: usize) -> Result<(), Error> {
        let mut attempt = self.own_attempt(tenant, Operation::KeyReencrypt);
        attempt.touched(sessions);
        attempt.event.kek = tenant.primary();
        attempt.commit(batch, None).await?;
        self.counters.jobs.committed();
        Ok(())
    }
}
