//! Reading a log back.

use std::sync::Arc;

use super::{LogKeys, OperationSet, OutcomeSet};
use crate::model::Timestamp;
use crate::store::{EngineError, StorageEngine};

/// In which direction a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By ascending sequence number.
    OldestFirst,
    /// By descending sequence number.
    NewestFirst,
}

/// Which events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Only events at or after this time.
    pub start: Option<Timestamp>,
    /// Only events before this time.
    pub end: Option<Timestamp>,
    /// Only these operations.
    pub operations: OperationSet,
    /// Only these outcomes.
    pub outcomes: OutcomeSet,
}

impl Filter {
    /// Every event.
    pub const ALL: Self =
        Self { start: None, end: None, operations: OperationSet::ALL, outcomes: OutcomeSet::ALL };
}

/// One event as it stands in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number, counting from 0.
    pub sequence: u64,
    /// The canonical line, exactly as it was hashed.
    pub line: String,
}

/// What a bounded search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The events, in the order asked for.
    pub lines: Vec<LogLine>,
    /// Where the search goes on: the number of the next event to look at, in the direction of the search.
    pub next: u64,
    /// Whether nothing is left to look at now. Ascending and without an end time, `next` is then where the log grows.
    pub exhausted: bool,
}

/// A log that was recomputed from its leaves and found to be as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedLog {
    /// Number of events.
    pub size: u64,
    /// Root of the tree over them.
    pub root: [u8; 32],
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The engine could not read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The head, or a block, does not open or is malformed.
    #[error("a row of the log does not open")]
    Integrity,
    /// Blocks are missing, overlap, or hold other events than their place says; this is where.
    #[error("the log is damaged at event {sequence}")]
    Damaged {
        /// The first event that is not as it must be.
        sequence: u64,
    },
    /// The events do not have the root that the head says.
    #[error("the events of the log are not those that its head was made of")]
    RootMismatch,
    /// The log has moved on to another epoch than the one asked for.
    #[error("the log is in epoch {current}")]
    OtherEpoch {
        /// The epoch that is being written.
        current: u32,
    },
}

/// Reads logs from an engine. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    #[expect(dead_code, reason = "the signature that is to come")]
    engine: Arc<dyn StorageEngine>,
}

impl LogReader {
    /// A reader of the logs in `engine`.
    #[must_use]
    pub fn new(engine: Arc<dyn StorageEngine>) -> Self {
        Self { engine }
    }

    /// The number of events in the log.
    ///
    /// # Errors
    /// [`LogError`].
    #[expect(clippy::unused_async, reason = "the signature that is to come")]
    pub async fn size(&self, _keys: &LogKeys) -> Result<u64, LogError> {
        Err(LogError::Integrity)
    }

    /// At most `limit` events from `from` on (`None`: from the end that `order` begins with) that `filter` lets through.
    /// Looks at a bounded number of events, so a page may hold fewer than `limit` and still not be the last.
    ///
    /// # Errors
    /// [`LogError`].
    #[expect(clippy::unused_async, reason = "the signature that is to come")]
    pub async fn search(
        &self,
        _keys: &LogKeys,
        _from: Option<u64>,
        _order: Order,
        _filter: &Filter,
        _limit: usize,
    ) -> Result<LogPage, LogError> {
        Err(LogError::Integrity)
    }

    /// Recomputes the tree from all leaves and compares it with the head.
    ///
    /// # Errors
    /// [`LogError`] names what is wrong.
    #[expect(clippy::unused_async, reason = "the signature that is to come")]
    pub async fn verify(&self, _keys: &LogKeys) -> Result<VerifiedLog, LogError> {
        Err(LogError::Integrity)
    }
}
