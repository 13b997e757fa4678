//! Proofs of inclusion and of consistency: RFC 6962, section 2.1; how they are verified: RFC 9162, section 2.1.
//!
//! Who makes a proof has the roots of all complete tiles, which never change, and reads the leaves of at most three tiles.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::writer::tile_root;
use super::{Hash, node_hash};

/// Leaves of a tile.
pub const TILE_HASHES: u64 = 256;

/// What a proof consists of: ranges of leaves, of each of which it has the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs(Vec<Range<u64>>);

impl Proofs {
    /// The proof that the leaf `index` is in the tree of `size` leaves; `None` when it cannot be.
    #[must_use]
    pub fn inclusion(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let mut ranges = Vec::new();
        let mut tree = 0..size;
        while tree.end - tree.start > 1 {
            let (left, right) = split(&tree);
            let (next, sibling) = if index < left.end { (left, right) } else { (right, left) };
            ranges.push(sibling);
            tree = next;
        }
        ranges.reverse();
        Some(Self(ranges))
    }

    /// The proof that the tree of `size` leaves goes on from that of its first `old` leaves; `None` when it cannot.
    #[must_use]
    pub fn consistency(old: u64, size: u64) -> Option<Self> {
        if old > size {
            return None;
        }
        if old == 0 || old == size {
            return Some(Self(Vec::new()));
        }
        let mut ranges = Vec::new();
        let mut tree = 0..size;
        while tree.end != old {
            let (left, right) = split(&tree);
            let (next, sibling) = if old <= left.end { (left, right) } else { (right, left) };
            ranges.push(sibling);
            tree = next;
        }
        // The verifier knows the root of the old tree itself.
        if tree.start != 0 {
            ranges.push(tree);
        }
        ranges.reverse();
        Some(Self(ranges))
    }

    /// The root of the first `size` leaves, as if it were a proof of one hash.
    #[must_use]
    pub fn root(size: u64) -> Self {
        Self(std::iter::once(0..size).filter(|tree| !tree.is_empty()).collect())
    }

    /// The tiles whose leaves must be known.
    #[must_use]
    pub fn tiles(&self) -> BTreeSet<u64> {
        let ragged = |range: &Range<u64>| {
            !range.end.is_multiple_of(TILE_HASHES) || range.end - range.start < TILE_HASHES
        };
        self.0.iter().filter(|range| ragged(range)).map(|range| (range.end - 1) / TILE_HASHES).collect()
    }

    /// The proof's hashes, from the roots of the `complete` tiles and the leaves of those of [`tiles`](Self::tiles); `None`
    /// when one of them is missing.
    #[must_use]
    pub fn solve(&self, complete: &[Hash], leaves: &BTreeMap<u64, Vec<Hash>>) -> Option<Vec<Hash>> {
        self.0.iter().map(|range| root_of(range, complete, leaves)).collect()
    }
}

/// Splits a tree of more than one leaf at the largest power of two below its size.
fn split(tree: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let left = 1 << (tree.end - tree.start - 1).ilog2();
    (tree.start..tree.start + left, tree.start + left..tree.end)
}

fn root_of(tree: &Range<u64>, complete: &[Hash], leaves: &BTreeMap<u64, Vec<Hash>>) -> Option<Hash> {
    let size = tree.end - tree.start;
    let (tile, within) = (tree.start / TILE_HASHES, usize::try_from(tree.start % TILE_HASHES).ok()?);
    if size >= TILE_HASHES && size.is_power_of_two() {
        let (first, count) = (usize::try_from(tile).ok()?, usize::try_from(size / TILE_HASHES).ok()?);
        return Some(tile_root(complete.get(first..first.checked_add(count)?)?.to_vec()));
    }
    if size.is_power_of_two() {
        let end = within.checked_add(usize::try_from(size).ok()?)?;
        return Some(tile_root(leaves.get(&tile)?.get(within..end)?.to_vec()));
    }
    let (left, right) = split(tree);
    Some(node_hash(&root_of(&left, complete, leaves)?, &root_of(&right, complete, leaves)?))
}

/// Whether `proof` shows that the leaf `index` has the hash `leaf` in the tree of that size and root: RFC 9162, 2.1.3.2.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            let level = node.trailing_zeros().min(u64::BITS - 1);
            (node, last) = (node >> level, last >> level);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of the `new` size and root goes on from that of the `old`: RFC 9162, 2.1.4.2.
///
/// An old tree of no leaves, and one of the same size, need an empty proof.
#[must_use]
pub fn verify_consistency(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size >= new_size {
        let same = old_size == 0 || (old_size == new_size && old_root == new_root);
        return proof.is_empty() && same;
    }
    let begins_with_old = old_size.is_power_of_two().then_some(old_root);
    let mut hashes = begins_with_old.into_iter().chain(proof);
    let Some(first) = hashes.next() else { return false };
    let ones = (old_size - 1).trailing_ones();
    let (mut node, mut last) = ((old_size - 1) >> ones, (new_size - 1) >> ones);
    let (mut from_old, mut from_new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            (from_old, from_new) = (node_hash(hash, &from_old), node_hash(hash, &from_new));
            let level = node.trailing_zeros().min(u64::BITS - 1);
            (node, last) = (node >> level, last >> level);
        } else {
            from_new = node_hash(&from_new, hash);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && from_old == *old_root && from_new == *new_root
}
