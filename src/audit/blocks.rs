//! The lines of a log in order, read block by block; a gap between blocks is an error.

use std::collections::VecDeque;

use super::block::Block;
use super::reader::Order;
use super::{LogError, LogKeys};
use crate::store::{Key, Row, ScanRange, StorageEngine, keys};

/// Blocks that one scan reads: at most 512 KiB each, mostly far less.
const SCAN_BLOCKS: usize = 16;

/// A walk over the lines of one epoch.
pub(super) struct Blocks<'a> {
    engine: &'a dyn StorageEngine,
    log: &'a LogKeys,
    order: Order,
    range: ScanRange,
    rows: VecDeque<(Key, Row)>,
    block: Option<Block>,
    /// The number of the line that comes next.
    next: u64,
    /// Whether the walk was descending and has passed the first line.
    passed_first: bool,
}

impl<'a> Blocks<'a> {
    /// Begins with the line `from`, or, descending, with the last one when there are fewer.
    pub(super) async fn from(
        engine: &'a dyn StorageEngine,
        log: &'a LogKeys,
        from: u64,
        order: Order,
    ) -> Result<Self, LogError> {
        let prefix = keys::log_blocks(log.tenant.id, log.epoch);
        let after_from = keys::log_block(log.tenant.id, log.epoch, from.saturating_add(1));
        let backwards =
            ScanRange { before: Some(after_from), descending: true, ..ScanRange::prefix(prefix.clone()) };
        let rows: VecDeque<_> = engine.scan(backwards.clone(), 1).await?.into();
        let range = match (order, rows.back()) {
            (Order::NewestFirst, Some((key, _))) => ScanRange { before: Some(key.clone()), ..backwards },
            (Order::NewestFirst, None) => backwards,
            (Order::OldestFirst, found) => {
                ScanRange { after: found.map(|(key, _)| key.clone()), ..ScanRange::prefix(prefix) }
            }
        };
        let mut blocks =
            Self { engine, log, order, range, rows, block: None, next: from, passed_first: false };
        blocks.open_first(from)?;
        Ok(blocks)
    }

    /// Opens the block in which the line `from` must be, if there is one, and begins at its end when it is not.
    fn open_first(&mut self, from: u64) -> Result<(), LogError> {
        let Some((key, row)) = self.rows.pop_front() else {
            // No block begins at or before `from`: the log is empty, or its beginning is missing.
            self.next = 0;
            return Ok(());
        };
        let block = Block::open(self.log, &key, &row)?;
        self.next = match self.order {
            Order::OldestFirst => from.min(block.end()),
            Order::NewestFirst => from.min(block.end() - 1),
        };
        self.block = Some(block);
        Ok(())
    }

    /// The number of the line that comes next; 0 once a descending walk has passed the first.
    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// Whether the walk was descending and has passed the first line of the log.
    pub(super) fn has_passed_first(&self) -> bool {
        self.passed_first
    }

    /// The next line and its number.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, &[u8])>, LogError> {
        if self.passed_first {
            return Ok(None);
        }
        let sequence = self.next;
        if self.block.as_ref().is_none_or(|block| block.line(sequence).is_none()) && !self.open_next().await?
        {
            return Ok(None);
        }
        match self.order {
            Order::OldestFirst => self.next = sequence.saturating_add(1),
            Order::NewestFirst => match sequence.checked_sub(1) {
                Some(next) => self.next = next,
                None => self.passed_first = true,
            },
        }
        Ok(self.block.as_ref().and_then(|block| block.line(sequence)).map(|line| (sequence, line)))
    }

    /// Opens the block that must hold the next line; `false` when there is none and none must be.
    async fn open_next(&mut self) -> Result<bool, LogError> {
        if self.rows.is_empty() {
            self.rows = self.engine.scan(self.range.clone(), SCAN_BLOCKS).await?.into();
        }
        let missing = LogError::Damaged { sequence: self.next };
        let Some((key, row)) = self.rows.pop_front() else {
            // Descending, blocks must go on until the first line.
            return if self.order == Order::NewestFirst && self.block.is_some() {
                Err(missing)
            } else {
                Ok(false)
            };
        };
        let block = Block::open(self.log, &key, &row)?;
        let adjacent = match self.order {
            Order::OldestFirst => block.first() == self.next,
            Order::NewestFirst => block.end().checked_sub(1) == Some(self.next),
        };
        if !adjacent {
            return self.find_again(missing).await;
        }
        match self.order {
            Order::OldestFirst => self.range.after = Some(key),
            Order::NewestFirst => self.range.before = Some(key),
        }
        self.block = Some(block);
        Ok(true)
    }

    /// Looks for the block with the next line anew: blocks may have been folded since the last look.
    async fn find_again(&mut self, missing: LogError) -> Result<bool, LogError> {
        let again = Box::pin(Blocks::from(self.engine, self.log, self.next, self.order)).await?;
        if again.block.as_ref().is_none_or(|block| block.line(self.next).is_none()) {
            return Err(missing);
        }
        *self = again;
        Ok(true)
    }
}
