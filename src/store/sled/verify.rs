//! Whether a log that was closed is whole.
//!
//! When it opens, the library reads the segments that were written since its last snapshot. A record that it
//! cannot read it takes for the end of what matters in that segment and goes on without it, because an
//! interrupted run leaves such records. A store that was closed has none, except behind the end of its log;
//! so there every one is damage, and it is named before the library writes over it. (Behind the log's end
//! damage shows in the number of the newest commit; in older segments when a page is read.)
//!
//! The format is that of the library's `pagecache/logger.rs`, version 0.34: a segment is a header and records
//! one after the other.
//!
//! ```text
//! segment = crc (u32) | lsn (u64) | stable lsn (u64)
//! record  = crc (u32) | kind (u8) | length | segment number | page | content
//! ```
//! Little-endian; a segment's two numbers with all bits but the highest flipped; a record's of 1 to 9 bytes
//! each.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::store::EngineError;

const SEGMENT_HEADER_BYTES: usize = 20;
/// Nothing begins nearer to a segment's end than this.
const RECORD_HEADER_BYTES_MAX: usize = 32;
/// Kind of the record that fills a segment up.
const CAP: u8 = 2;

/// Reads what the library is going to replay.
///
/// # Errors
/// [`EngineError::Corrupt`] names the first damaged place; [`EngineError::Io`] when the log cannot be read.
pub(super) fn refuse_damage(path: &Path, segment_bytes: usize) -> Result<(), EngineError> {
    let damage = first_damage(path, segment_bytes);
    match damage.map_err(|source| EngineError::Io { operation: "verifying the log", source })? {
        None => Ok(()),
        Some(at) => {
            Err(EngineError::Corrupt { what: format!("its log, the file `db`, is damaged at offset {at}") })
        }
    }
}

fn first_damage(path: &Path, segment_bytes: usize) -> io::Result<Option<u64>> {
    let file = File::open(path.join("db"))?;
    let from = newest_snapshot(path)? / segment_bytes as u64;
    let mut segments = Vec::new();
    for index in 0..file.metadata()?.len().div_ceil(segment_bytes as u64) {
        let base = index * segment_bytes as u64;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        read(&file, &mut header, base)?;
        match lsn(&header) {
            Some(lsn) => segments.push((lsn / segment_bytes as u64, base)),
            // A free segment is all zeros.
            None if header == [0; SEGMENT_HEADER_BYTES] => {}
            None => return Ok(Some(base)),
        }
    }
    segments.sort_unstable();
    // The last one ends with the log, somewhere.
    segments.pop();
    let mut segment = vec![0; segment_bytes];
    for (number, base) in segments.into_iter().filter(|(number, _)| *number >= from) {
        read(&file, &mut segment, base)?;
        if let Some(at) = first_unreadable(&segment, number) {
            return Ok(Some(base + at as u64));
        }
    }
    Ok(None)
}

/// Up to where the newest snapshot goes: its name says it.
fn newest_snapshot(path: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in path.read_dir()? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("snap."));
        newest = newest.max(number.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default());
    }
    Ok(newest)
}

/// Reads up to the file's end; the rest is zeros.
fn read(file: &File, mut to: &mut [u8], mut at: u64) -> io::Result<()> {
    loop {
        match file.read_at(to, at) {
            Ok(0) => {
                to.fill(0);
                return Ok(());
            }
            Ok(read) => {
                to = to.get_mut(read..).unwrap_or_default();
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The log sequence number in a segment's header, if that is whole.
fn lsn(header: &[u8; SEGMENT_HEADER_BYTES]) -> Option<u64> {
    let (crc, rest) = header.split_first_chunk()?;
    let (lsn, _) = rest.split_first_chunk()?;
    let whole = !u32::from_le_bytes(*crc) == crc32fast::hash(rest);
    whole.then(|| u64::from_le_bytes(*lsn) ^ (u64::MAX >> 1))
}

/// Where the first record stands that cannot be read.
fn first_unreadable(segment: &[u8], number: u64) -> Option<usize> {
    let mut at = SEGMENT_HEADER_BYTES;
    while segment.len() - at >= RECORD_HEADER_BYTES_MAX {
        match segment.get(at..).and_then(|rest| record(rest, number)) {
            Some((CAP, _)) => return None,
            Some((_, bytes)) => at += bytes,
            None => return Some(at),
        }
    }
    None
}

/// The kind and the length of the record at the beginning of `bytes`, if it is whole and belongs to the
/// segment.
fn record(bytes: &[u8], segment: u64) -> Option<(u8, usize)> {
    let (crc, rest) = bytes.split_first_chunk()?;
    let (kind, after_kind) = rest.split_first()?;
    let (length, after) = number(after_kind)?;
    let (of, after) = number(after)?;
    let (_page, after) = number(after)?;
    let header = rest.get(..rest.len() - after.len())?;
    let content = after.get(..usize::try_from(length).ok()?)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(content);
    hasher.update(header);
    let whole = !u32::from_le_bytes(*crc) == hasher.finalize() && of == segment;
    whole.then_some((*kind, crc.len() + header.len() + content.len()))
}

/// A number of one to nine bytes and what follows it (the variable-length integers of SQLite 4, but
/// little-endian above three bytes).
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let more = match first {
        0..=240 => return Some((first.into(), rest)),
        241..=248 => 1,
        249 => 2,
        250.. => usize::from(first - 247),
    };
    let (tail, rest) = rest.split_at_checked(more)?;
    let big = || tail.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    let little = || tail.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    let value = match first {
        241..=248 => 240 + 256 * (u64::from(first) - 241) + big(),
        249 => 2288 + big(),
        _ => little(),
    };
    Some((value, rest))
}
