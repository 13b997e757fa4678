//! A bounded memo of what rows opened to.
//!
//! There is at most one slot for a row key, and it is served only when the stored bytes that are asked for equal, byte by
//! byte, those that were opened. Opening is a function of the row key, those bytes and keys that do not change while a
//! process lives; so a hit is what opening would have given, and a row that changed in any bit is a miss. Nothing is ever
//! served because it is young: there is no lifetime, and no staleness.
//!
//! Slots lie in sets of [`WAYS`], each behind its own lock, which is held for one comparison. The least recently used
//! slot of a full set gives way. What leaves is dropped outside the lock, and dropping keys wipes them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::Key;

/// Slots in a set: with room for twice the rows in use, about one in 250 sets is too small for what falls into it.
const WAYS: usize = 16;

/// Figures about a memo, since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoStats {
    /// Rows that did not have to be opened.
    pub hits: u64,
    /// Rows that were not found as they were asked for.
    pub misses: u64,
    /// Slots that gave way to others.
    pub evictions: u64,
}

pub(super) struct Memo<V> {
    sets: Box<[Mutex<Set<V>>]>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

struct Set<V> {
    /// Counts uses, to order them.
    uses: u64,
    slots: Vec<Slot<V>>,
}

struct Slot<V> {
    tag: u64,
    key: Key,
    /// The parts that were opened, each behind its length.
    bytes: Box<[u8]>,
    used: u64,
    value: V,
}

impl<V: Clone> Memo<V> {
    /// Room for `capacity` rows, in whole sets.
    pub(super) fn new(capacity: usize) -> Self {
        let set = || Mutex::new(Set { uses: 0, slots: Vec::new() });
        Self {
            sets: (0..capacity.div_ceil(WAYS).max(1)).map(|_| set()).collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// What exactly these parts of the row under `key` opened to.
    pub(super) fn find(&self, key: &Key, parts: &[&[u8]]) -> Option<V> {
        let tag = tag(key);
        let found = self.set(tag).and_then(|mut set| set.find(tag, key, parts));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Remembers what these parts opened to, in place of what the row under `key` opened to before.
    pub(super) fn remember(&self, key: &Key, parts: &[&[u8]], value: V) {
        let slot = Slot { tag: tag(key), key: key.clone(), bytes: framed(parts), used: 0, value };
        let Some(mut set) = self.set(slot.tag) else { return };
        let (earlier, evicted) = set.put(slot);
        drop(set);
        self.evictions.fetch_add(u64::from(evicted.is_some()), Ordering::Relaxed);
        drop((earlier, evicted));
    }

    /// Drops what the row under `key` opened to.
    pub(super) fn forget(&self, key: &Key) {
        let tag = tag(key);
        let forgotten = self.set(tag).and_then(|mut set| set.take(tag, key));
        drop(forgotten);
    }

    /// Drops what all rows opened to whose keys are among `gone`.
    pub(super) fn forget_where(&self, gone: impl Fn(&Key) -> bool) {
        for set in &self.sets {
            let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
            let (out, stay) = std::mem::take(&mut set.slots).into_iter().partition(|slot| gone(&slot.key));
            set.slots = stay;
            drop(set);
            drop::<Vec<Slot<V>>>(out);
        }
    }

    pub(super) fn stats(&self) -> MemoStats {
        MemoStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    fn set(&self, tag: u64) -> Option<MutexGuard<'_, Set<V>>> {
        let number = usize::try_from(tag % self.sets.len() as u64).ok()?;
        // A set is whole between any two statements, so that a panic of another thread leaves nothing half-done.
        self.sets.get(number).map(|set| set.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V: Clone> Set<V> {
    fn find(&mut self, tag: u64, key: &Key, parts: &[&[u8]]) -> Option<V> {
        self.uses += 1;
        let slot = self.slots.iter_mut().find(|slot| slot.tag == tag && slot.key == *key)?;
        if !is_framed(&slot.bytes, parts) {
            return None;
        }
        slot.used = self.uses;
        Some(slot.value.clone())
    }

    /// Puts a slot in; gives back the same row's earlier one, and another row's that had to give way.
    fn put(&mut self, mut slot: Slot<V>) -> (Option<Slot<V>>, Option<Slot<V>>) {
        self.uses += 1;
        slot.used = self.uses;
        let earlier = self.take(slot.tag, &slot.key);
        let evicted = if self.slots.len() >= WAYS { self.take_oldest() } else { None };
        self.slots.push(slot);
        (earlier, evicted)
    }

    fn take(&mut self, tag: u64, key: &Key) -> Option<Slot<V>> {
        let at = self.slots.iter().position(|slot| slot.tag == tag && slot.key == *key)?;
        Some(self.slots.swap_remove(at))
    }

    fn take_oldest(&mut self) -> Option<Slot<V>> {
        let (at, _) = self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.used)?;
        Some(self.slots.swap_remove(at))
    }
}

/// Spreads rows over sets. Row keys hold random ids and blinded names only, which no caller can choose.
fn tag(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

fn framed(parts: &[&[u8]]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.into_boxed_slice()
}

/// Whether `bytes` is what [`framed`] makes of `parts`, without making it.
fn is_framed(bytes: &[u8], parts: &[&[u8]]) -> bool {
    let mut rest = bytes;
    for part in parts {
        let length = (part.len() as u64).to_le_bytes();
        match rest.strip_prefix(&length).and_then(|rest| rest.strip_prefix(*part)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key(number: u32) -> Key {
        Key::from_stored(number.to_be_bytes().to_vec())
    }

    #[test]
    fn only_the_exact_bytes_are_served() {
        let memo = Memo::new(64);
        let row: [&[u8]; 2] = [b"body", b"sensitive"];
        memo.remember(&key(1), &row, 'a');
        assert_eq!(memo.find(&key(1), &row), Some('a'));
        assert_eq!(memo.find(&key(2), &row), None);
        for at in 0..4 {
            for bit in 0..8 {
                let mut body = *b"body";
                body[at] ^= 1 << bit;
                assert_eq!(memo.find(&key(1), &[&body, b"sensitive"]), None);
            }
        }
        let others: [&[&[u8]]; 6] = [
            &[],
            &[b"body"],
            &[b"bodysensitive"],
            &[b"bodys", b"ensitive"],
            &[b"body", b"sensitive", b""],
            &[b"body", b"sensitiv"],
        ];
        for other in others {
            assert_eq!(memo.find(&key(1), other), None, "{other:?}");
        }
        assert_eq!((memo.stats().hits, memo.stats().misses), (1, 1 + 32 + 6));
    }

    #[test]
    fn a_row_has_one_slot_and_its_earlier_value_is_dropped() {
        let memo = Memo::new(64);
        let first = Arc::new(());
        memo.remember(&key(1), &[b"one"], Arc::clone(&first));
        memo.remember(&key(1), &[b"two"], Arc::new(()));
        assert_eq!(Arc::strong_count(&first), 1);
        assert!(memo.find(&key(1), &[b"one"]).is_none());
        assert!(memo.find(&key(1), &[b"two"]).is_some());
        memo.forget(&key(1));
        assert!(memo.find(&key(1), &[b"two"]).is_none());
        assert_eq!(memo.stats().evictions, 0);
    }

    #[test]
    fn it_never_holds_more_than_its_capacity_and_counts_what_it_drops() {
        let memo = Memo::new(64);
        let value = Arc::new(());
        for number in 0..10_000 {
            memo.remember(&key(number), &[b"row"], Arc::clone(&value));
            assert!(Arc::strong_count(&value) <= 65);
        }
        let held = Arc::strong_count(&value) as u64 - 1;
        assert_eq!(memo.stats().evictions, 10_000 - held);
        drop(memo);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn the_least_recently_used_row_gives_way() {
        let memo = Memo::new(WAYS);
        for number in 0..16 {
            memo.remember(&key(number), &[b"row"], number);
        }
        assert_eq!(memo.find(&key(0), &[b"row"]), Some(0));
        memo.remember(&key(16), &[b"row"], 16);
        assert_eq!(memo.find(&key(1), &[b"row"]), None);
        assert_eq!(memo.find(&key(0), &[b"row"]), Some(0));
    }

    #[test]
    fn threads_never_see_anothers_value() {
        let memo = Memo::new(64);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let memo = &memo;
                scope.spawn(move || {
                    for round in 0..5_000_u32 {
                        let number = (round * 7 + thread) % 97;
                        let row = (number ^ (round & 1)).to_be_bytes();
                        match memo.find(&key(number), &[&row]) {
                            Some(found) => assert_eq!(found, row),
                            None => memo.remember(&key(number), &[&row], row),
                        }
                    }
                });
            }
        });
    }
}
