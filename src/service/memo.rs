//! Remembers what was made of a row, addressed by the exact bytes of that row.
//!
//! There is no staleness by construction: the row is read with every request, and what was made of other bytes is not
//! found. Bounded: when a shard is full its oldest half is dropped.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::store::{Key, Row};

const SHARDS: usize = 16;

/// A bounded memo from a row to what was made of it.
pub(super) struct Memo<V> {
    shards: Vec<Mutex<Shard<V>>>,
    per_shard: usize,
}

struct Shard<V> {
    rows: HashMap<Key, Remembered<V>>,
    turn: u64,
}

struct Remembered<V> {
    row: Row,
    made: V,
    turn: u64,
}

impl<V: Clone> Memo<V> {
    /// A memo for about `capacity` rows.
    pub(super) fn new(capacity: usize) -> Self {
        let shard = || Mutex::new(Shard { rows: HashMap::new(), turn: 0 });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), per_shard: capacity.div_ceil(SHARDS).max(2) }
    }

    /// What was made of exactly this row.
    pub(super) fn of(&self, key: &Key, row: &Row) -> Option<V> {
        let shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        shard.rows.get(key).filter(|remembered| remembered.row == *row).map(|found| found.made.clone())
    }

    /// Remembers what was made of a row, in place of what was made of an earlier one.
    pub(super) fn remember(&self, key: Key, row: Row, made: V) {
        let mut shard = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.rows.len() >= self.per_shard {
            shard.drop_older_half();
        }
        shard.turn += 1;
        let turn = shard.turn;
        shard.rows.insert(key, Remembered { row, made, turn });
    }

    /// Drops what was made of a row, once the row is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.shard(key).lock().unwrap_or_else(PoisonError::into_inner).rows.remove(key);
    }

    /// Drops what was made of all rows whose keys are among `gone`.
    pub(super) fn forget_where(&self, gone: impl Fn(&Key) -> bool) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).rows.retain(|key, _| !gone(key));
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard<V>> {
        // The last bytes of a key are blinded, so they are spread evenly.
        let spread =
            key.as_bytes().iter().rev().take(4).fold(0_usize, |sum, byte| sum * 31 + usize::from(*byte));
        // There is always a shard: their number is fixed above zero.
        #[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of shards")]
        &self.shards[spread % self.shards.len()]
    }
}

impl<V> Shard<V> {
    fn drop_older_half(&mut self) {
        let mut turns: Vec<u64> = self.rows.values().map(|remembered| remembered.turn).collect();
        turns.sort_unstable();
        let median = turns.get(turns.len() / 2).copied().unwrap_or(0);
        self.rows.retain(|_, remembered| remembered.turn >= median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;
    use crate::store::keys;

    fn key(n: u8) -> Key {
        keys::token(&[n; 32])
    }

    fn row(revision: u64) -> Row {
        Row::new(Revision::new(revision).unwrap(), &[])
    }

    #[test]
    fn only_the_exact_row_is_remembered() {
        let memo = Memo::new(64);
        memo.remember(key(1), row(1), "one");
        assert_eq!(memo.of(&key(1), &row(1)), Some("one"));
        assert_eq!(memo.of(&key(1), &row(2)), None);
        assert_eq!(memo.of(&key(2), &row(1)), None);
    }

    #[test]
    fn what_is_forgotten_is_not_remembered() {
        let memo = Memo::new(64);
        memo.remember(key(1), row(1), "one");
        memo.remember(key(2), row(1), "two");
        memo.forget(&key(1));
        assert_eq!((memo.of(&key(1), &row(1)), memo.of(&key(2), &row(1))), (None, Some("two")));
    }

    #[test]
    fn a_memo_is_bounded() {
        let memo = Memo::new(32);
        for n in 0..=255 {
            memo.remember(key(n), row(1), n);
        }
        let kept = (0..=255).filter(|n| memo.of(&key(*n), &row(1)).is_some()).count();
        assert!((1..=32 + SHARDS).contains(&kept), "{kept}");
        assert_eq!(memo.of(&key(255), &row(1)), Some(255));
    }
}
