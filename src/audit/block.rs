//! A block: the lines that one commit adds to one log, sealed together.
//!
//! ```text
//! count × ( length (u16, big-endian) ‖ line )
//! ```
//!
//! This is the form of a C2SP tlog-tiles entry bundle, so that bundles are made by joining blocks. The row stands under
//! the number of its first line. A block of a commit has revision 1; one that was joined from several has a higher one (see
//! [`fold`](super::fold)).

use super::LogError;
use super::keys::LogKeys;
use super::line::LineTail;
use crate::crypto::{Header, KeyId, Kind, Place, Plaintext, SealError, open, seal};
use crate::env::Entropy;
use crate::model::{Revision, Timestamp};
use crate::store::{Key, Row, keys};

const LENGTH_BYTES: usize = 2;

/// Lines on their way into a block.
#[derive(Debug, Default)]
pub(super) struct BlockWriter(Vec<u8>);

impl BlockWriter {
    /// Adds a line and returns its bytes.
    pub(super) fn push(&mut self, tail: &LineTail, sequence: u64, time: Timestamp) -> &[u8] {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; LENGTH_BYTES]);
        tail.write_line(&mut self.0, sequence, time);
        let entry = self.0.get_mut(start..).unwrap_or_default();
        let (length, line) = entry.split_at_mut(LENGTH_BYTES);
        length.copy_from_slice(&u16::try_from(line.len()).unwrap_or(u16::MAX).to_be_bytes());
        line
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The row of a block whose first line has the number `first`.
    pub(super) fn seal(
        &self,
        log: &LogKeys,
        first: u64,
        entropy: &dyn Entropy,
    ) -> Result<(Key, Row), SealError> {
        seal_block(log, first, Revision::FIRST, &self.0, entropy)
    }
}

/// The row of a block with these `lines`, of which the first has the number `first`.
pub(super) fn seal_block(
    log: &LogKeys,
    first: u64,
    revision: Revision,
    lines: &[u8],
    entropy: &dyn Entropy,
) -> Result<(Key, Row), SealError> {
    let key = keys::log_block(log.tenant.id, log.epoch, first);
    let row = seal_row(log, Kind::LogBlock, &key, revision, lines, entropy)?;
    Ok((key, row))
}

/// A block that was read back.
pub(super) struct Block {
    first: u64,
    lines: Plaintext,
    ends: Vec<usize>,
}

impl Block {
    /// Opens the row under `key`.
    pub(super) fn open(log: &LogKeys, key: &Key, row: &Row) -> Result<Self, LogError> {
        let first = keys::log_block_first(key).ok_or(LogError::Integrity)?;
        let lines = open_row(log, Kind::LogBlock, key, row)?;
        let ends = line_ends(lines.as_bytes()).filter(|ends| !ends.is_empty()).ok_or(LogError::Integrity)?;
        Ok(Self { first, lines, ends })
    }

    /// The number of its first line.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number that follows that of its last line.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.ends.len() as u64)
    }

    /// The lines with numbers from `from` to before `end`, in the form of a block; `None` when they are not all here.
    pub(super) fn framed(&self, from: u64, end: u64) -> Option<&[u8]> {
        let end = *self.ends.get(self.at(end.checked_sub(1)?)?)?;
        self.lines.as_bytes().get(self.start(self.at(from)?)?..end)
    }

    /// The line of that number, if it is in this block.
    pub(super) fn line(&self, sequence: u64) -> Option<&[u8]> {
        let at = self.at(sequence)?;
        self.lines.as_bytes().get(self.start(at)? + LENGTH_BYTES..*self.ends.get(at)?)
    }

    fn at(&self, sequence: u64) -> Option<usize> {
        usize::try_from(sequence.checked_sub(self.first)?).ok()
    }

    /// Where the line at that place begins.
    fn start(&self, at: usize) -> Option<usize> {
        match at.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        }
    }
}

/// Where each line ends; `None` when the framing is damaged.
fn line_ends(block: &[u8]) -> Option<Vec<usize>> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < block.len() {
        let length = block.get(at..at + LENGTH_BYTES)?.try_into().ok().map(u16::from_be_bytes)?;
        at += LENGTH_BYTES + usize::from(length);
        ends.push(at);
    }
    (at == block.len()).then_some(ends)
}

/// A row of a log, sealed.
pub(super) fn seal_row(
    log: &LogKeys,
    kind: Kind,
    key: &Key,
    revision: Revision,
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Row, SealError> {
    let sealed = seal(&*log.audit, header(log, kind, revision), &place(log, key), plaintext, entropy)?;
    Ok(Row::new(revision, &[&sealed]))
}

/// Opens what stands in a log's row.
pub(super) fn open_row(log: &LogKeys, kind: Kind, key: &Key, row: &Row) -> Result<Plaintext, LogError> {
    let revision = row.revision().map_err(|_| LogError::Integrity)?;
    let [record] = row.exactly().map_err(|_| LogError::Integrity)?;
    open(&*log.audit, header(log, kind, revision), &place(log, key), record).map_err(|_| LogError::Integrity)
}

/// A tenant has one audit key for each incarnation, so its id says no more than that.
fn header(log: &LogKeys, kind: Kind, revision: Revision) -> Header {
    let mut id = *b"audit key\0\0\0\0\0\0\0";
    if let Some((_, incarnation)) = id.split_last_chunk_mut::<4>() {
        *incarnation = log.tenant.incarnation.to_be_bytes();
    }
    Header { kind, key_id: KeyId(id), revision: revision.get() }
}

fn place<'a>(log: &LogKeys, key: &'a Key) -> Place<'a> {
    Place { store: log.store, tenant: log.tenant, session: &[], key: key.within_tenant() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_framing_is_no_block() {
        assert_eq!(line_ends(b""), Some(vec![]));
        assert_eq!(line_ends(b"\0\x01a\0\0\0\x02bc"), Some(vec![3, 5, 9]));
        for damaged in [&b"\0"[..], b"\0\x02a", b"\0\x01a\0", b"\xff\xffa"] {
            assert_eq!(line_ends(damaged), None);
        }
    }
}
