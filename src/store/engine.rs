//! The engine seam: an ordered key-value store with atomic, conditional, durable batches.
//!
//! Every implementation passes the suite in `tests/conformance`.

use async_trait::async_trait;

use super::{Key, Row};
use crate::model::Revision;

/// What a row must be like for a batch to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowExpect {
    /// There is no row under the key.
    Absent,
    /// The row under the key has this revision.
    Revision(Revision),
}

impl RowExpect {
    /// What must hold for a row that was read as `row` to be unchanged; a malformed row matches nothing.
    #[must_use]
    pub fn unchanged(row: Option<&Row>) -> Self {
        match row.map(Row::revision) {
            None => Self::Absent,
            Some(Ok(revision)) => Self::Revision(revision),
            Some(Err(_)) => Self::Revision(Revision::new(u64::MAX).unwrap_or(Revision::FIRST)),
        }
    }

    /// Whether `row` is as expected.
    #[must_use]
    pub fn holds(self, row: Option<&Row>) -> bool {
        match (self, row) {
            (Self::Absent, None) => true,
            (Self::Revision(expected), Some(row)) => row.revision() == Ok(expected),
            (Self::Absent, Some(_)) | (Self::Revision(_), None) => false,
        }
    }
}

/// Rows that change together or not at all. A key occurs at most once in `put` and `delete` together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What must hold for the batch to be applied.
    pub expect: Vec<(Key, RowExpect)>,
    /// Rows to write.
    pub put: Vec<(Key, Row)>,
    /// Keys to remove; a key without a row is no error.
    pub delete: Vec<Key>,
}

impl Batch {
    /// Bytes of keys and rows in the batch.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let put: usize = self.put.iter().map(|(key, row)| key.as_bytes().len() + row.as_bytes().len()).sum();
        let delete: usize = self.delete.iter().map(|key| key.as_bytes().len()).sum();
        put + delete
    }
}

/// What became of a batch that the engine could decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is applied and on disk.
    Committed,
    /// Nothing was applied; these expectations did not hold (all of them, in no particular order).
    Conflict(Vec<Key>),
}

/// A half-open range of keys, and where in it to begin.
#[derive(Debug, Clone)]
pub struct ScanRange {
    /// Keys that begin with this.
    pub prefix: Vec<u8>,
    /// Only keys after this one.
    pub after: Option<Key>,
    /// Only keys below this one.
    pub before: Option<Key>,
    /// From the last key to the first.
    pub descending: bool,
}

impl ScanRange {
    /// All keys that begin with `prefix`, ascending.
    #[must_use]
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        Self { prefix: prefix.into(), after: None, before: None, descending: false }
    }
}

/// The least bytes above everything that begins with `prefix`; none when nothing is.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// Rows in the order of the scan.
pub type ScanPage = Vec<(Key, Row)>;

/// Why an engine could not answer. After any of these but `Full` and `Busy` the state of a batch is unknown,
/// and an embedded engine answers `Closed` from then on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The operating system reported an error.
    #[error("the storage engine failed in {operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The volume is full. Nothing of the batch was applied.
    #[error("the volume is full")]
    Full,
    /// The engine cannot take the call now. Nothing of the batch was applied.
    #[error("the storage engine is busy")]
    Busy,
    /// The files are damaged; this names what is wrong.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What is wrong.
        what: String,
    },
    /// The files were written by another version, or cannot be served as they are; this names why.
    #[error("the store cannot be opened: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// The engine was closed, or failed before and takes nothing more.
    #[error("the storage engine is closed")]
    Closed,
}

/// Figures about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Bytes on disk; 0 for an engine without a disk.
    pub disk_bytes: u64,
    /// Rows, estimated.
    pub rows: u64,
}

/// An ordered key-value store with atomic, conditional, durable batches.
#[async_trait]
pub trait StorageEngine: Send + Sync + 'static {
    /// The engine's name, as in the status.
    fn name(&self) -> &'static str;

    /// The rows under `keys`, in their order, in one round trip.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot read.
    async fn multi_get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, EngineError>;

    /// At most `limit` rows of `range`. Not a snapshot: rows may come from different moments.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot read.
    async fn scan(&self, range: ScanRange, limit: usize) -> Result<ScanPage, EngineError>;

    /// At most `limit` keys of `range`, without their rows: these may be large.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot read.
    async fn scan_keys(&self, range: ScanRange, limit: usize) -> Result<Vec<Key>, EngineError>;

    /// Applies `batch` if all its expectations hold, and returns when it is on disk.
    ///
    /// # Errors
    /// [`EngineError`]; only `Full` and `Busy` promise that nothing was applied.
    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, EngineError>;

    /// Figures about the store.
    ///
    /// # Errors
    /// [`EngineError`] when they cannot be had.
    async fn stats(&self) -> Result<EngineStats, EngineError>;

    /// Writes what is left and takes nothing more. Closing twice is no error.
    ///
    /// # Errors
    /// [`EngineError`] when the last write failed.
    async fn close(&self) -> Result<(), EngineError>;
}
