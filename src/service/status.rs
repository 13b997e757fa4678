//! The state of the server at a glance.

use std::sync::atomic::Ordering;

use super::attempt::Attempt;
use super::view::Answer;
use super::{Error, Failure, JobKind, Service};
use crate::audit::Operation;
use crate::auth::{Permit, ReadStatus};
use crate::commit::{CommitStats, Receipt};
use crate::model::{Duration, StoreId, Timestamp};
use crate::store::{EngineStats, ScanRange, Table, keys};

/// Most tenants that are counted.
const TENANTS_COUNTED: usize = 100_000;

/// Figures about the server.
#[derive(Debug, Clone)]
pub struct Status {
    /// Identity of the store.
    pub store: StoreId,
    /// When the process started.
    pub started: Timestamp,
    /// Storage engine.
    pub engine: &'static str,
    /// Figures of the engine.
    pub storage: EngineStats,
    /// Number of tenants that are not destroyed.
    pub tenants: u64,
    /// Figures of the committer.
    pub commits: CommitStats,
    /// What the service counts.
    pub counts: Counts,
    /// Events in the server's own log.
    pub system_log_size: u64,
    /// The key with which receipts are verified.
    pub receipt_verifier: String,
}

/// What a server counts, for its metrics.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Records that did not open.
    pub integrity_failures: u64,
    /// Sessions that the sweeper expired.
    pub sessions_expired: u64,
    /// How far the sweeper is behind.
    pub sweeper_lag: Duration,
    /// Jobs of each kind, in the order of [`JobKind::ALL`].
    pub jobs: [JobCounts; JobKind::ALL.len()],
}

/// What a server counts of the jobs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobCounts {
    /// Jobs that work now.
    pub running: u64,
    /// Sessions that they have come by.
    pub sessions: u64,
    /// What did not open: sessions, of a scrub records.
    pub failures: u64,
}

impl Service {
    /// What is counted, without a look at the store.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            integrity_failures: self.counters.integrity_failures.load(Ordering::Relaxed),
            sessions_expired: self.counters.sessions_expired.load(Ordering::Relaxed),
            sweeper_lag: Duration::from_millis(self.counters.sweeper_lag_millis.load(Ordering::Relaxed)),
            jobs: JobKind::ALL.map(|kind| self.counters.jobs.of(kind)),
        }
    }

    /// Returns the state of the server.
    ///
    /// # Errors
    /// [`Failure`] when the store cannot be read.
    pub async fn status(&self, permit: &Permit<ReadStatus>) -> Result<Answer<Status>, Failure> {
        let attempt = self.server_attempt(permit, Operation::StatusRead);
        let outcome = self.status_once(&attempt).await;
        attempt.close(outcome).await
    }

    async fn status_once(&self, attempt: &Attempt<'_>) -> Result<(Status, Receipt), Error> {
        let tenants =
            self.engine.scan_keys(ScanRange::prefix(keys::table(Table::TenantName)), TENANTS_COUNTED).await?;
        let status = Status {
            store: self.keyring.store_id(),
            started: self.started,
            engine: self.engine.name(),
            storage: self.engine.stats().await?,
            tenants: tenants.len() as u64,
            commits: self.committer.stats(),
            counts: self.counts(),
            system_log_size: self.reader.size(&self.system_log).await?,
            receipt_verifier: self.receipt_verifier()?,
        };
        Ok((status, attempt.record().await?))
    }
}
