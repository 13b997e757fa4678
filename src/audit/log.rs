//! The state of a log, and how lines are added to it.

use std::sync::Arc;

use super::block::{BlockWriter, open_row, seal_row};
use super::event::{Actor, Event, Resource};
use super::keys::{LogKeys, LogName};
use super::line::LineTail;
use super::{LogError, Operation};
use crate::crypto::{Kind, SealError};
use crate::env::Entropy;
use crate::model::{Revision, Timestamp};
use crate::store::{Batch, Row, RowExpect, keys};
use crate::tlog::{Frontier, Hash, leaf_hash};

/// What a log's head row says.
///
/// ```text
/// epoch (u32) ‖ size (u64) ‖ time of the last line (u64) ‖ subtrees of the frontier, the largest first (32 each)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    epoch: u32,
    last: Timestamp,
    frontier: Frontier,
    /// Revision of the head row; `None` while there is none.
    revision: Option<Revision>,
}

impl Log {
    /// Reads the head row of the log of `log`; without a row, the log is new.
    ///
    /// # Errors
    /// [`LogError::Integrity`] when the row does not open.
    pub fn open(log: &LogKeys, row: Option<&Row>) -> Result<Self, LogError> {
        let Some(row) = row else {
            let frontier = Frontier::default();
            return Ok(Self { epoch: log.epoch, last: Timestamp::default(), frontier, revision: None });
        };
        let plain = open_row(log, Kind::LogHead, &keys::log_head(log.tenant.id), row)?;
        let revision = row.revision().map_err(|_| LogError::Integrity)?;
        Self::decode(plain.as_bytes(), revision).ok_or(LogError::Integrity)
    }

    /// The epoch that is being written.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of lines in the epoch.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The tree over them.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The time of the last line.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// Begins to add lines at the time `now`, or at that of the last line when the clock has gone back since.
    ///
    /// When `keys` are those of a later epoch, the log begins anew with a `sys.epoch` line, which binds the root (`ch`) and
    /// the size (`res.ver`) of the epoch before.
    ///
    /// # Errors
    /// [`LogError::OtherEpoch`] when the log is past the epoch of `keys` already.
    pub fn extend(&self, keys: &Arc<LogKeys>, now: Timestamp) -> Result<Extension, LogError> {
        if keys.epoch < self.epoch {
            return Err(LogError::OtherEpoch { current: self.epoch });
        }
        let mut log = Self { last: now.max(self.last), ..self.clone() };
        let ended = (keys.epoch > self.epoch).then(|| std::mem::take(&mut log.frontier));
        log.epoch = keys.epoch;
        let first = log.size();
        let mut extension = Extension { keys: Arc::clone(keys), log, first, block: BlockWriter::default() };
        if let Some(ended) = ended.filter(|ended| ended.size() > 0) {
            extension.push(&epoch_line(&ended, keys));
        }
        Ok(extension)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20 + 32 * self.frontier.subtrees().len());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.size().to_be_bytes());
        bytes.extend_from_slice(&self.last.as_millis().to_be_bytes());
        bytes.extend_from_slice(self.frontier.subtrees().as_flattened());
        bytes
    }

    fn decode(bytes: &[u8], revision: Revision) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (last, rest) = rest.split_first_chunk()?;
        let (subtrees, rest) = rest.as_chunks::<{ size_of::<Hash>() }>();
        if !rest.is_empty() {
            return None;
        }
        Some(Self {
            epoch: u32::from_be_bytes(*epoch),
            last: Timestamp::from_millis(u64::from_be_bytes(*last)),
            frontier: Frontier::new(u64::from_be_bytes(*size), subtrees.to_vec())?,
            revision: Some(revision),
        })
    }
}

pub(super) fn epoch_line(ended: &Frontier, keys: &LogKeys) -> LineTail {
    let event = Event {
        actor: Some(Actor::System),
        content_hash: Some(ended.root()),
        resource: Some(Resource { revision: Revision::new(ended.size()), ..Resource::default() }),
        ..Event::new(Operation::SystemEpoch)
    };
    LineTail::new(&event, keys)
}

/// Lines on their way into a log: they are in it when the rows that this makes are committed.
#[derive(Debug)]
pub struct Extension {
    keys: Arc<LogKeys>,
    log: Log,
    first: u64,
    block: BlockWriter,
}

impl Extension {
    /// The log's name.
    #[must_use]
    pub fn name(&self) -> LogName {
        self.keys.name()
    }

    /// The keys of the log, in the epoch that is written.
    #[must_use]
    pub fn keys(&self) -> &Arc<LogKeys> {
        &self.keys
    }

    /// Adds a line and returns its sequence number.
    pub fn push(&mut self, tail: &LineTail) -> u64 {
        let sequence = self.log.size();
        let line = self.block.push(tail, sequence, self.log.last);
        self.log.frontier.append(leaf_hash(line));
        sequence
    }

    /// Adds the rows of the new block and the new head to `batch`, with what must hold for them: the head is still the one
    /// that was extended, and no block stands where the new one goes. Returns the log as it is once that is committed.
    ///
    /// # Errors
    /// [`SealError`] when entropy fails; `batch` must then not be committed.
    pub fn seal(self, batch: &mut Batch, entropy: &dyn Entropy) -> Result<Log, SealError> {
        let Self { keys: log_keys, mut log, first, block } = self;
        if block.is_empty() {
            return Ok(log);
        }
        let (block_key, block_row) = block.seal(&log_keys, first, entropy)?;
        let head_key = keys::log_head(log_keys.tenant.id);
        let expect = log.revision.map_or(RowExpect::Absent, RowExpect::Revision);
        let revision = log.revision.map_or(Revision::FIRST, Revision::next);
        let head_row = seal_row(&log_keys, Kind::LogHead, &head_key, revision, &log.encode(), entropy)?;
        batch.expect.extend([(block_key.clone(), RowExpect::Absent), (head_key.clone(), expect)]);
        batch.put.extend([(block_key, block_row), (head_key, head_row)]);
        log.revision = Some(revision);
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::keys as log_keys;
    use crate::audit::{Block, LineView};
    use crate::env::SystemEntropy;
    use crate::model::TenantId;

    fn tail(keys: &LogKeys) -> LineTail {
        LineTail::new(&Event::new(Operation::EntryRead), keys)
    }

    /// Commits `count` lines at `now`; gives the log, the head row and the block.
    fn extend(log: &Log, keys: &Arc<LogKeys>, now: u64, count: usize) -> (Log, Row, Block) {
        let mut extension = log.extend(keys, Timestamp::from_millis(now)).unwrap();
        for _ in 0..count {
            extension.push(&tail(keys));
        }
        let mut batch = Batch::default();
        let log = extension.seal(&mut batch, &SystemEntropy::new()).unwrap();
        let [(block_key, block), (head_key, head)] = batch.put.try_into().unwrap();
        assert_eq!(head_key, keys::log_head(keys.tenant.id));
        (log, head, Block::open(keys, &block_key, &block).unwrap())
    }

    #[test]
    fn a_head_that_was_written_opens_and_is_bound_to_tenant_key_and_revision() {
        let keys = Arc::new(log_keys(TenantId([1; 16])));
        let (log, row, block) = extend(&Log::open(&keys, None).unwrap(), &keys, 5, 3);
        assert_eq!((log.size(), block.first(), block.end()), (3, 0, 3));
        assert_eq!(Log::open(&keys, Some(&row)).unwrap(), log);

        let other = log_keys(TenantId([2; 16]));
        assert!(matches!(Log::open(&other, Some(&row)), Err(LogError::Integrity)));
        let mut raised = row.as_bytes().to_vec();
        raised[7] += 1;
        let raised = Row::from_stored(raised.into());
        assert!(matches!(Log::open(&keys, Some(&raised)), Err(LogError::Integrity)));
    }

    #[test]
    fn the_frontier_is_that_of_the_lines_in_the_blocks_and_times_never_go_back() {
        let keys = Arc::new(log_keys(TenantId([1; 16])));
        let mut log = Log::open(&keys, None).unwrap();
        let mut frontier = Frontier::default();
        for (now, count, time) in [(50, 3, 50), (40, 2, 50), (51, 5, 51)] {
            let (extended, _, block) = extend(&log, &keys, now, count);
            for sequence in block.first()..block.end() {
                let line = block.line(sequence).unwrap();
                let view = LineView::parse(line).unwrap();
                assert_eq!((view.sequence, view.time.as_millis()), (sequence, time));
                frontier.append(leaf_hash(line));
            }
            assert_eq!(block.line(block.end()), None);
            assert_eq!(extended.frontier(), &frontier);
            log = extended;
        }
    }

    #[test]
    fn a_new_epoch_begins_with_the_root_of_the_one_before_and_ends_that_one() {
        let first = Arc::new(log_keys(TenantId([1; 16])));
        let (ended, _, _) = extend(&Log::open(&first, None).unwrap(), &first, 5, 3);
        let second = Arc::new(LogKeys { epoch: 2, ..log_keys(TenantId([1; 16])) });
        let (log, _, block) = extend(&ended, &second, 6, 1);
        assert_eq!((log.epoch(), log.size()), (2, 2));
        let line = std::str::from_utf8(block.line(0).unwrap()).unwrap();
        let root = data_encoding::HEXLOWER.encode(&ended.frontier().root());
        assert!(line.contains(r#""typ":"sys.epoch""#) && line.contains(&root), "{line}");
        assert!(line.contains(r#""res":{"ver":3}"#), "{line}");
        let late = log.extend(&first, Timestamp::from_millis(7));
        assert!(matches!(late, Err(LogError::OtherEpoch { current: 2 })));
    }

    #[test]
    fn a_head_of_the_wrong_length_is_no_head() {
        let keys = Arc::new(log_keys(TenantId([1; 16])));
        let (log, _, _) = extend(&Log::open(&keys, None).unwrap(), &keys, 5, 7);
        let bytes = log.encode();
        assert_eq!(Log::decode(&bytes, Revision::FIRST), Some(log));
        for len in 0..bytes.len() {
            assert_eq!(Log::decode(&bytes[..len], Revision::FIRST), None, "{len}");
        }
        assert_eq!(Log::decode(&[bytes, vec![0]].concat(), Revision::FIRST), None);
    }
}
