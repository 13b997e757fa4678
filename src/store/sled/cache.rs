//! The rows that nearly every request reads, kept in memory.
//!
//! A request reads its tenant's row, its session's row and its token's row along with its data; the library
//! takes some ten microseconds for each that is not in its page cache. This is right only because an embedded
//! engine is the one writer of its files: a shared engine must never have it.
//!
//! It cannot serve a stale row: the engine fills it under the lock that lets readers in, and changes it under
//! the lock that shuts them out, together with the tree.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{Key, Row, SessionPart, Table};

/// A power of two, so that two threads rarely wait for one another.
const SHARDS: usize = 16;
/// Rows above this are read from the tree, so that the count bounds the memory too.
const ROW_BYTES_MAX: usize = 4 << 10;

/// A bounded map from keys to rows. When a half is full the older half is forgotten; what is used again moves
/// over.
#[derive(Debug)]
pub(super) struct ControlRows {
    hasher: RandomState,
    shards: Vec<Mutex<Halves>>,
    /// Most rows in one half of one shard.
    half: usize,
}

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<Key, Row>,
    old: HashMap<Key, Row>,
}

impl ControlRows {
    /// Makes an empty cache for at most `rows` rows; for 0 it stays empty.
    pub(super) fn new(rows: usize) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { hasher: RandomState::new(), shards, half: rows / (2 * SHARDS) }
    }

    /// The row under `key`, if it is a control row and known.
    pub(super) fn find(&self, key: &Key) -> Option<Row> {
        if !is_control(key) {
            return None;
        }
        let mut shard = self.shard(key)?;
        if let Some(row) = shard.young.get(key) {
            return Some(row.clone());
        }
        let row = shard.old.remove(key)?;
        shard.keep(key, &row, self.half);
        Some(row)
    }

    /// Remembers that `row` stands under `key`, or that nothing does. Other rows than control rows are let
    /// pass.
    pub(super) fn set(&self, key: &Key, row: Option<&Row>) {
        if !is_control(key) {
            return;
        }
        let Some(mut shard) = self.shard(key) else { return };
        shard.old.remove(key);
        shard.young.remove(key);
        if let Some(row) = row
            && row.as_bytes().len() <= ROW_BYTES_MAX
        {
            shard.keep(key, row, self.half);
        }
    }

    /// How many rows are held.
    #[cfg(test)]
    fn len(&self) -> usize {
        let held = |shard: &Mutex<Halves>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(held).sum()
    }

    fn shard(&self, key: &Key) -> Option<MutexGuard<'_, Halves>> {
        let number = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).ok()?;
        Some(self.shards.get(number)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Halves {
    fn keep(&mut self, key: &Key, row: &Row, half: usize) {
        if half == 0 {
            return;
        }
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.clone(), row.clone());
    }
}

/// Whether a key is one of those that requests read again and again: tenants by name and id, tokens,
/// sessions' own rows.
fn is_control(key: &Key) -> bool {
    let Some(&table) = key.as_bytes().first() else { return false };
    let session = table == Table::Session as u8 && key.within_session() == [SessionPart::Root as u8];
    session || [Table::Tenant, Table::TenantName, Table::Token].iter().any(|one| *one as u8 == table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Revision, TenantId};
    use crate::store::keys;

    fn tenant(number: u32) -> Key {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        keys::tenant(TenantId(id))
    }

    #[test]
    fn only_control_rows_are_held() {
        let cache = ControlRows::new(1000);
        let row = Row::new(Revision::FIRST, &[]);
        let (tenant, blinded) = (TenantId([7; 16]), [9; 16]);
        let control = [
            keys::tenant(tenant),
            keys::token(&[1; 32]),
            keys::session(tenant, &blinded),
            keys::tenant_name(&blinded),
        ];
        let others =
            [keys::entry(tenant, &blinded, &blinded), keys::log_head(tenant), Key::from_stored(Vec::new())];
        for key in control.iter().chain(&others) {
            cache.set(key, Some(&row));
        }
        assert!(control.iter().all(|key| cache.find(key).is_some()));
        assert!(others.iter().all(|key| cache.find(key).is_none()));
    }

    #[test]
    fn the_count_is_bounded_and_what_is_used_stays() {
        let cache = ControlRows::new(1024);
        let used = tenant(u32::MAX);
        cache.set(&used, Some(&Row::marker()));
        for number in 0..50_000 {
            cache.set(&tenant(number), Some(&Row::marker()));
            assert!(cache.find(&used).is_some(), "after {number}");
        }
        assert!(cache.len() <= 1024, "{}", cache.len());
    }

    #[test]
    fn a_removed_row_and_a_large_row_are_not_found() {
        let cache = ControlRows::new(1024);
        cache.set(&tenant(1), Some(&Row::marker()));
        cache.set(&tenant(1), None);
        assert_eq!(cache.find(&tenant(1)), None);
        cache.set(&tenant(1), Some(&Row::marker()));
        cache.set(&tenant(1), Some(&Row::from_stored(vec![0; ROW_BYTES_MAX + 1].into())));
        assert_eq!(cache.find(&tenant(1)), None);
    }
}
