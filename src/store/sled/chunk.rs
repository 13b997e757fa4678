//! How rows are laid out in the library's one tree.
//!
//! ```text
//! 0x00 ‖ n                                  the engine's own rows: its state (n = 0) and its fences (n ≥ 1)
//! 0x01 ‖ key length (u16) ‖ key ‖ index (u32)   chunk `index` of a row above 16 KiB, counted from 0
//! 0x02 ‖ key                                row length (u32) ‖ the row's first 16 KiB
//! ```
//! All numbers big-endian. Chunks stand in a space of their own, so that a scan over rows never meets one,
//! and the length before the key keeps the chunks of a key apart from those of a key that it begins.
//!
//! The reason: the library writes a page of up to about 20 items as one record, and puts records above a
//! quarter of a segment (512 KiB here) into files of their own which it never makes durable (sled issue
//! 1387). 20 items of 16 KiB stay below that.

use std::ops::Bound;

use sled::Db;

use crate::store::engine::prefix_end;
use crate::store::{EngineError, Key, Row, ScanRange};

/// Most bytes of a row in one item of the tree.
pub(super) const CHUNK_BYTES: usize = 16 << 10;
/// The key of the engine's state row.
pub(super) const STATE_KEY: [u8; 2] = [ENGINE, 0];
/// How many fences stand beside the state row.
const FENCES: u8 = 32;

const ENGINE: u8 = 0;
const CHUNK: u8 = 1;
const ROW: u8 = 2;
const LENGTH_BYTES: usize = 4;

/// The keys of the fences: tiny rows that fill the tree's first leaf beside the state row. Every commit
/// rewrites the state row, every tenth time with its whole leaf; without the fences large chunks would be in
/// that leaf.
pub(super) fn fences() -> impl Iterator<Item = [u8; 2]> {
    (1..=FENCES).map(|number| [ENGINE, number])
}

/// Where the head of a row stands.
pub(super) fn head_key(key: &Key) -> Vec<u8> {
    prefixed(ROW, key.as_bytes())
}

/// The key of the row whose head stands at `stored`.
pub(super) fn key_of(stored: &[u8]) -> Key {
    Key::from_stored(stored.get(1..).unwrap_or_default().to_vec())
}

/// Where a chunk of a row stands.
pub(super) fn chunk_key(key: &Key, index: u32) -> Vec<u8> {
    let mut stored = chunk_prefix(key);
    stored.extend_from_slice(&index.to_be_bytes());
    stored
}

fn chunk_prefix(key: &Key) -> Vec<u8> {
    let length = u16::try_from(key.as_bytes().len()).unwrap_or(u16::MAX);
    let mut stored = prefixed(CHUNK, &length.to_be_bytes());
    stored.extend_from_slice(key.as_bytes());
    stored
}

fn prefixed(tag: u8, rest: &[u8]) -> Vec<u8> {
    // Room for a chunk's index, so that it does not allocate again.
    let mut stored = Vec::with_capacity(1 + 2 + rest.len() + LENGTH_BYTES);
    stored.push(tag);
    stored.extend_from_slice(rest);
    stored
}

/// Keys of the tree.
type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The tree's keys that a scan goes through; none when the range is empty by its bounds alone.
pub(super) fn bounds(range: &ScanRange) -> Option<Bounds> {
    let prefix = prefixed(ROW, &range.prefix);
    let low = match range.after.as_ref().map(head_key) {
        Some(after) if after >= prefix => Bound::Excluded(after),
        Some(_) | None => Bound::Included(prefix.clone()),
    };
    let high = [prefix_end(&prefix), range.before.as_ref().map(head_key)].into_iter().flatten().min()?;
    match &low {
        Bound::Included(low) | Bound::Excluded(low) if *low >= high => None,
        Bound::Included(_) | Bound::Excluded(_) | Bound::Unbounded => Some((low, Bound::Excluded(high))),
    }
}

/// A row cut in pieces.
pub(super) struct Pieces<'a> {
    /// What stands under the row's key.
    pub(super) head: Vec<u8>,
    /// What follows, a chunk each.
    pub(super) chunks: std::slice::Chunks<'a, u8>,
}

/// Cuts a row; none for one of 4 GiB or more.
pub(super) fn split(row: &Row) -> Option<Pieces<'_>> {
    let bytes = row.as_bytes();
    let (first, rest) = bytes.split_at_checked(CHUNK_BYTES).unwrap_or((bytes, &[]));
    let mut head = Vec::with_capacity(LENGTH_BYTES + first.len());
    head.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
    head.extend_from_slice(first);
    Some(Pieces { head, chunks: rest.chunks(CHUNK_BYTES) })
}

/// How many chunks belong to a stored head.
///
/// # Errors
/// [`EngineError::Corrupt`] when it has no length.
pub(super) fn chunks_of(head: &[u8]) -> Result<u32, EngineError> {
    let (length, _) = parse(head)?;
    u32::try_from(length.saturating_sub(1) / CHUNK_BYTES).map_err(|_| malformed())
}

/// The part of a row that its head holds: all of a small one, and always the revision.
///
/// # Errors
/// [`EngineError::Corrupt`] when the head is malformed.
pub(super) fn first_part(head: &[u8]) -> Result<Row, EngineError> {
    let (_, first) = parse(head)?;
    Ok(Row::from_stored(first.to_vec().into()))
}

/// Puts a row together from its head and, if there are any, its chunks.
///
/// # Errors
/// [`EngineError`] when the library cannot read, or a chunk is missing or has the wrong size.
pub(super) fn join(db: &Db, key: &Key, head: &[u8]) -> Result<Row, EngineError> {
    let (length, first) = parse(head)?;
    if length == first.len() {
        return Ok(Row::from_stored(first.to_vec().into()));
    }
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(first);
    for (index, item) in (0..).zip(db.scan_prefix(chunk_prefix(key))) {
        let (at, chunk) = item.map_err(|error| super::failed("reading", error))?;
        if *at != *chunk_key(key, index) || bytes.len() + chunk.len() > length {
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() == length { Ok(Row::from_stored(bytes.into())) } else { Err(malformed()) }
}

fn parse(head: &[u8]) -> Result<(usize, &[u8]), EngineError> {
    let (length, first) = head.split_at_checked(LENGTH_BYTES).ok_or_else(malformed)?;
    let length = u32::from_be_bytes(length.try_into().map_err(|_| malformed())?) as usize;
    if first.len() == length.min(CHUNK_BYTES) { Ok((length, first)) } else { Err(malformed()) }
}

fn malformed() -> EngineError {
    EngineError::Corrupt { what: "a row is incomplete: its length and its chunks disagree".to_owned() }
}
