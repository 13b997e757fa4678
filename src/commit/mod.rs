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

use std::sync::Arc;

use crate::audit::{Event, LogKeys, LogName};
use crate::env::{Clock, Entropy};
use crate::store::{Batch, EngineError, Key, StorageEngine};

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
    /// The committer takes nothing more, or the engine failed and whether the change is durable is unknown.
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
    /// A commit took longer than [`COMMIT_STUCK`](crate::model::limits::COMMIT_STUCK).
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

/// Figures since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitStats {
    /// Changes that wait now.
    pub depth: u64,
    /// Groups committed.
    pub groups: u64,
    /// Changes committed.
    pub operations: u64,
    /// Events committed.
    pub events: u64,
    /// Bytes of keys and rows committed, those of the log among them.
    pub bytes: u64,
    /// Changes in the last group.
    pub last_group: u64,
    /// Changes that lost a race.
    pub conflicts: u64,
    /// Changes refused because the queue was full.
    pub overloaded: u64,
    /// Logs that could not be written: a head that does not open, blocks where none may be.
    pub log_failures: u64,
}

/// The one door for everything durable. Shared by all; dropping the last one lets what waits be committed.
#[derive(Debug)]
pub struct Committer {}

impl Committer {
    /// Starts the committer's thread.
    ///
    /// # Errors
    /// [`StartError`] when the system gives no thread.
    pub fn start(
        _engine: Arc<dyn StorageEngine>,
        _clock: Arc<dyn Clock>,
        _entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self {}))
    }

    /// Commits a change: waits until it is durable.
    ///
    /// Dropping the future before the change is in a group withdraws it; after that it is committed as a whole.
    ///
    /// # Errors
    /// [`CommitError`].
    #[expect(clippy::unused_async, reason = "the signature that is to come")]
    pub async fn commit(&self, _change: Change) -> Result<Receipt, CommitError> {
        Err(CommitError::Unavailable)
    }

    /// Figures since the start.
    #[must_use]
    pub fn stats(&self) -> CommitStats {
        CommitStats::default()
    }

    /// Waits until the committer has stopped for good by a fault. Without one it never returns.
    pub async fn fault(&self) -> Fault {
        std::future::pending().await
    }

    /// The number of groups committed so far, and news of each: for those who follow a log.
    #[must_use]
    pub fn progress(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }

    /// Takes nothing more, commits what waits, and returns when that is done.
    #[expect(clippy::unused_async, reason = "the signature that is to come")]
    pub async fn shutdown(&self) {}
}
