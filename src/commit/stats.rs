//! Figures about the committer, counted without locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in which commits are counted by how long they took, in milliseconds; one more bucket holds
/// what took longer. The clock counts whole milliseconds, so the first bucket holds everything below one.
pub const LATENCY_BOUNDS_MS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 10_000];

/// Number of buckets.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;

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
    /// Times that a log could not be written: a head that does not open or cannot be read, a block where none may be.
    pub log_failures: u64,
    /// Commits by how long the engine took, in the buckets of [`LATENCY_BOUNDS_MS`].
    pub latency: [u64; LATENCY_BUCKETS],
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) groups: AtomicU64,
    pub(super) operations: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) last_group: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) overloaded: AtomicU64,
    pub(super) log_failures: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
}

impl Counters {
    /// Counts a commit that the engine took `time` for.
    pub(super) fn count_latency(&self, time: Duration) {
        let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| u128::from(*bound) <= time.as_millis());
        if let Some(bucket) = self.latency.get(bucket) {
            add(bucket, 1);
        }
    }

    pub(super) fn read(&self, depth: usize) -> CommitStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CommitStats {
            depth: depth as u64,
            groups: of(&self.groups),
            operations: of(&self.operations),
            events: of(&self.events),
            bytes: of(&self.bytes),
            last_group: of(&self.last_group),
            conflicts: of(&self.conflicts),
            overloaded: of(&self.overloaded),
            log_failures: of(&self.log_failures),
            latency: std::array::from_fn(|bucket| self.latency.get(bucket).map_or(0, of)),
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_in_the_bucket_of_their_time() {
        let counters = Counters::default();
        for millis in [0, 0, 1, 3, 9_999, 10_000, 1_000_000] {
            counters.count_latency(Duration::from_millis(millis));
        }
        let latency = counters.read(0).latency;
        assert_eq!(latency, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
