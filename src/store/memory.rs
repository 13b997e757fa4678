//! An engine without a disk, for tests and simulations.
//!
//! It keeps the contract of the seam to the letter except durability: what it holds is gone with the value.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;

use super::engine::prefix_end;
use super::{
    Batch, CommitOutcome, EngineError, EngineStats, Key, Row, RowExpect, ScanPage, ScanRange, StorageEngine,
};

/// An ordered map behind a lock.
#[derive(Debug)]
pub struct MemoryEngine {
    /// The rows, until the engine is closed.
    rows: RwLock<Option<BTreeMap<Key, Row>>>,
}

impl MemoryEngine {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { rows: RwLock::new(Some(BTreeMap::new())) }
    }

    fn reading(&self) -> RwLockReadGuard<'_, Option<BTreeMap<Key, Row>>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, Option<BTreeMap<Key, Row>>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl StorageEngine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn multi_get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, EngineError> {
        let rows = self.reading();
        let rows = rows.as_ref().ok_or(EngineError::Closed)?;
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn scan(&self, range: ScanRange, limit: usize) -> Result<ScanPage, EngineError> {
        let rows = self.reading();
        let rows = rows.as_ref().ok_or(EngineError::Closed)?;
        let Some(bounds) = bounds(&range) else { return Ok(Vec::new()) };
        let found = rows.range(bounds).map(|(key, row)| (key.clone(), row.clone()));
        Ok(if range.descending { found.rev().take(limit).collect() } else { found.take(limit).collect() })
    }

    async fn scan_keys(&self, range: ScanRange, limit: usize) -> Result<Vec<Key>, EngineError> {
        Ok(self.scan(range, limit).await?.into_iter().map(|(key, _)| key).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, EngineError> {
        let mut rows = self.writing();
        let rows = rows.as_mut().ok_or(EngineError::Closed)?;
        let failed = failed_expectations(&batch.expect, |key| rows.get(key));
        if !failed.is_empty() {
            return Ok(CommitOutcome::Conflict(failed));
        }
        rows.extend(batch.put);
        for key in &batch.delete {
            rows.remove(key);
        }
        Ok(CommitOutcome::Committed)
    }

    async fn stats(&self) -> Result<EngineStats, EngineError> {
        let rows = self.reading();
        let rows = rows.as_ref().ok_or(EngineError::Closed)?;
        Ok(EngineStats { disk_bytes: 0, rows: rows.len() as u64 })
    }

    async fn close(&self) -> Result<(), EngineError> {
        *self.writing() = None;
        Ok(())
    }
}

fn failed_expectations<'a>(expect: &[(Key, RowExpect)], row: impl Fn(&Key) -> Option<&'a Row>) -> Vec<Key> {
    expect.iter().filter(|(key, expected)| !expected.holds(row(key))).map(|(key, _)| key.clone()).collect()
}

/// The keys of a range; none when it is empty by its bounds alone, which a map would panic at.
fn bounds(range: &ScanRange) -> Option<(Bound<Key>, Bound<Key>)> {
    let prefix = Key::from_stored(range.prefix.clone());
    let low = match &range.after {
        Some(after) if *after >= prefix => Bound::Excluded(after.clone()),
        Some(_) | None => Bound::Included(prefix),
    };
    let end = prefix_end(&range.prefix).map(Key::from_stored);
    let high = [end, range.before.clone()].into_iter().flatten().min();
    match (&low, &high) {
        (Bound::Included(low), Some(high)) | (Bound::Excluded(low), Some(high)) if low >= high => None,
        _ => Some((low, high.map_or(Bound::Unbounded, Bound::Excluded))),
    }
}
