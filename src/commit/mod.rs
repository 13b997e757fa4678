//! The committer: the one door through which everything durable goes.
//!
//! Changes wait in a bounded queue; one thread gathers what waits into a group, gives every event its place in its log,
//! and hands the engine one atomic batch of rows, blocks and heads. Answers are released when the engine says that the
//! batch is on disk.
//!
//! What this module promises: a change and its events are durable together or not at all; the numbers of a log are dense;
//! a change that lost a race leaves no event; what does not fit the queue is refused at once; after an error that leaves
//! the store's state unknown nothing more is taken. What it does not do: it reads no rows but log heads, and decides
//! nothing about what a change means.

mod logs;
mod queue;
mod shared;
mod stage;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::audit::{Event, Frontier, LogKeys, LogName};
use crate::env::{Clock, Entropy};
use crate::model::Duration;
use crate::model::limits::COMMIT_STUCK;
use crate::store::{Batch, EngineError, Key, StorageEngine};
use queue::Pending;
use shared::Shared;
use stats::add;
pub use stats::{CommitStats, LATENCY_BOUNDS_MS, LATENCY_BUCKETS};
use worker::Worker;

/// Rows that change together, and the events that say so.
pub struct Change {
    /// The rows, and what must hold for them. Empty for an operation that only reads.
    pub batch: Batch,
    /// At least one event, each with the log that it goes to; one change may write to several logs.
    pub events: Vec<(Arc<LogKeys>, Event)>,
    /// Runs once the change is durable, in the order of commits, before any answer of the group is released. Runs on the
    /// committer's thread: it must not block, and a panic in it ends the committer.
    pub committed: Option<Box<dyn FnOnce() + Send>>,
}

/// Where the last event of a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The log.
    pub log: LogName,
    /// The sequence number in it, counting from 0.
    pub sequence: u64,
}

/// What is wrong with a change; a defect of its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It has no event: nothing goes unaudited.
    #[error("a change without an event")]
    NoEvent,
    /// It has more than [`CHANGE_EVENTS`] events.
    #[error("a change with more than {CHANGE_EVENTS} events")]
    TooManyEvents,
    /// A key occurs twice in `put` and `delete`, or twice with different expectations.
    #[error("a change that names a key twice")]
    KeyTwice,
    /// It writes rows of a log: the committer alone does.
    #[error("a change that writes rows of an access log")]
    LogRow,
}

/// Most events in one change: their longest lines fill one sealed block.
pub const CHANGE_EVENTS: usize = 4096;

/// Why a change was not committed. After any of these but `Unavailable` nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Rows that the change relied on are not as it expected. These are their keys.
    #[error("the rows that the change relied on have changed")]
    Conflict(Vec<Key>),
    /// Too much waits already.
    #[error("too much waits to be committed")]
    Overloaded,
    /// The volume is full.
    #[error("the volume is full")]
    Full,
    /// The access log cannot be written.
    #[error("the access log cannot be written")]
    AuditUnavailable,
    /// The committer takes nothing more; or the engine cannot take the change now; or the engine failed, and whether the
    /// change is durable is unknown until a restart.
    #[error("the committer has stopped")]
    Unavailable,
    /// The change is malformed.
    #[error(transparent)]
    Malformed(#[from] ChangeError),
}

/// Why the committer stopped for good. The process must end: only a restart brings a known state.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The engine failed in a commit.
    #[error("a commit failed: {0}")]
    Engine(Arc<EngineError>),
    /// A commit took longer than [`COMMIT_STUCK`].
    #[error("a commit is stuck")]
    Stuck,
    /// The engine named conflicts that nothing in the batch can have caused.
    #[error("the engine reported conflicts on rows that nobody relied on")]
    Nonsense,
    /// The committer's thread panicked.
    #[error("the committer panicked")]
    Panicked,
}

/// The committer could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the committer's thread could not be started: {0}")]
pub struct StartError(#[from] std::io::Error);

/// The one door for everything durable. Shared by all; when the last one is dropped, what waits is still committed.
pub struct Committer(Arc<Shared>);

impl Committer {
    /// Starts the committer's thread, and one that watches it.
    ///
    /// # Errors
    /// [`StartError`] when the system gives no thread.
    pub fn start(
        engine: Arc<dyn StorageEngine>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, StartError> {
        Self::start_watched(engine, clock, entropy, COMMIT_STUCK)
    }

    /// As [`start`](Self::start); a call to the engine that takes longer than `stuck` is a fault.
    fn start_watched(
        engine: Arc<dyn StorageEngine>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        stuck: Duration,
    ) -> Result<Arc<Self>, StartError> {
        let shared = Arc::new(Shared::default());
        Worker::new(engine, clock, entropy, Arc::clone(&shared)).start(stuck)?;
        Ok(Arc::new(Self(shared)))
    }

    /// Commits a change: waits until it is durable.
    ///
    /// Dropping the future before the change is in a group withdraws it; after that it is committed as a whole.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit(&self, change: Change) -> Result<Receipt, CommitError> {
        let (sender, answer) = oneshot::channel();
        let pushed = self.0.queue.push(Pending::new(change, sender)?);
        if pushed == Err(CommitError::Overloaded) {
            add(&self.0.counters.overloaded, 1);
        }
        pushed?;
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(CommitError::Unavailable)),
            _ = self.fault() => Err(CommitError::Unavailable),
        }
    }

    /// Figures since the start.
    #[must_use]
    pub fn stats(&self) -> CommitStats {
        self.0.counters.read(self.0.queue.depth())
    }

    /// Waits until the committer has stopped for good by a fault. Without one this never returns.
    pub async fn fault(&self) -> Fault {
        self.0.fault().await
    }

    /// The number of groups committed so far, and news of each: for those who follow a log.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.0.progress.subscribe()
    }

    /// The logs that grew since the last call, each as it is on disk by now: for who signs them. The first call returns
    /// none, and from then on notice is taken.
    #[must_use]
    pub fn take_grown(&self) -> BTreeMap<LogName, Frontier> {
        self.0.take_grown()
    }

    /// Takes nothing more, commits what waits, and returns when that is done or has failed.
    pub async fn shutdown(&self) {
        self.0.queue.close();
        tokio::select! {
            () = self.0.ended() => {}
            _ = self.fault() => {}
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Committer({} waiting)", self.0.queue.depth())
    }
}
