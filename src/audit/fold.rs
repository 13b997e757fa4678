//! Folding: when a log has another 256 lines, the blocks that hold them become one block, and the index learns what is in it.
//!
//! What a fold writes goes with a commit of the log's own writer, and changes nothing of what the log says: the same lines
//! under the same numbers. Bundles are folded in order, so that what is not folded yet is the end of the log.

use std::collections::BTreeMap;
use std::ops::Range;

use super::block::{Block, seal_block};
use super::index::{Bundle, IndexPage, PAGE_BUNDLES};
use super::{LogError, LogKeys};
use crate::crypto::SealError;
use crate::env::Entropy;
use crate::model::Revision;
use crate::store::{Batch, Key, RowExpect, ScanRange, StorageEngine, keys};
use crate::tlog::TILE_HASHES;

/// Most bundles that are folded at once: as many as the largest group of the committer can complete, about 400 KiB.
pub const FOLD_BUNDLES: u64 = 4;

/// Complete bundles on their way to be folded.
#[derive(Debug)]
pub struct Fold {
    number: u64,
    /// The blocks that hold their lines.
    blocks: Vec<Folded>,
    /// The lines of each bundle, in the form of a block.
    bundles: Vec<Vec<u8>>,
    /// The lines of the last block that belong to the next bundle.
    rest: Vec<u8>,
    /// The page of the index, with these bundles.
    page: IndexPage,
}

/// A block that was read to be folded.
#[derive(Debug)]
struct Folded {
    key: Key,
    revision: Revision,
    lines: Range<u64>,
}

impl Fold {
    /// Reads what is to be folded into the bundle of that number and those after it, up to the bundle `end`, which must be
    /// complete; at most [`FOLD_BUNDLES`]. Those before it are folded.
    ///
    /// # Errors
    /// [`LogError`] when the log or its index is damaged there.
    pub async fn read(
        engine: &dyn StorageEngine,
        log: &LogKeys,
        number: u64,
        end: u64,
    ) -> Result<Self, LogError> {
        let page_end = (number / PAGE_BUNDLES + 1) * PAGE_BUNDLES;
        let end = end.min(page_end).min(number + FOLD_BUNDLES);
        let lines = number * TILE_HASHES..end * TILE_HASHES;
        let page = IndexPage::read(engine, log, number / PAGE_BUNDLES).await?;
        if page.bundles.len() as u64 != number % PAGE_BUNDLES {
            return Err(LogError::Damaged { sequence: lines.start });
        }
        let mut fold = Self { number, blocks: Vec::new(), bundles: Vec::new(), rest: Vec::new(), page };
        let blocks = fold.scan(engine, log, &lines).await?;
        for first in (lines.start..lines.end).step_by(256) {
            fold.bundle(&blocks, first)?;
        }
        if let Some(last) = blocks.last().filter(|last| last.end() > lines.end) {
            fold.rest.extend_from_slice(last.framed(lines.end, last.end()).unwrap_or_default());
        }
        Ok(fold)
    }

    /// Reads the blocks that begin in `lines`, which must leave no gap.
    async fn scan(
        &mut self,
        engine: &dyn StorageEngine,
        log: &LogKeys,
        lines: &Range<u64>,
    ) -> Result<Vec<Block>, LogError> {
        let block = |first| keys::log_block(log.tenant.id, log.epoch, first);
        let range = ScanRange {
            after: lines.start.checked_sub(1).map(block),
            before: Some(block(lines.end)),
            ..ScanRange::prefix(keys::log_blocks(log.tenant.id, log.epoch))
        };
        // At most one block a line.
        let most = usize::try_from(lines.end - lines.start).unwrap_or(usize::MAX);
        let (mut blocks, mut next) = (Vec::new(), lines.start);
        for (key, row) in engine.scan(range, most).await? {
            let block = Block::open(log, &key, &row)?;
            if block.first() != next {
                return Err(LogError::Damaged { sequence: next });
            }
            let revision = row.revision().map_err(|_| LogError::Integrity)?;
            self.blocks.push(Folded { key, revision, lines: next..block.end() });
            next = block.end();
            blocks.push(block);
        }
        if next < lines.end { Err(LogError::Damaged { sequence: next }) } else { Ok(blocks) }
    }

    /// Joins the lines of the bundle that begins with the line `first`, and adds it to the page.
    fn bundle(&mut self, blocks: &[Block], first: u64) -> Result<(), LogError> {
        let lines = first..first + TILE_HASHES;
        let damaged = || LogError::Damaged { sequence: first };
        let mut framed = Vec::new();
        let mut texts = Vec::new();
        for block in blocks.iter().filter(|block| block.first() < lines.end && block.end() > lines.start) {
            let part = lines.start.max(block.first())..lines.end.min(block.end());
            framed.extend_from_slice(block.framed(part.start, part.end).ok_or_else(damaged)?);
            texts.extend(part.filter_map(|sequence| block.line(sequence)));
        }
        self.page.bundles.push(Bundle::of(texts.into_iter()).ok_or_else(damaged)?);
        self.bundles.push(framed);
        Ok(())
    }

    /// How many bundles it folds.
    #[must_use]
    pub fn bundles(&self) -> u64 {
        self.bundles.len() as u64
    }

    /// The keys of the rows of which it expects something.
    pub fn expected(&self, log: &LogKeys) -> impl Iterator<Item = Key> {
        let page = keys::log_index_page(log.tenant.id, log.epoch, self.number / PAGE_BUNDLES);
        let (tenant, epoch) = (log.tenant.id, log.epoch);
        let made = (self.number..=self.number + self.bundles())
            .map(move |number| keys::log_block(tenant, epoch, number * TILE_HASHES));
        self.blocks.iter().map(|block| block.key.clone()).chain(made).chain([page])
    }

    /// Adds its rows to `batch`.
    ///
    /// # Errors
    /// [`SealError`] when entropy fails; `batch` must then not be committed.
    pub fn seal(self, log: &LogKeys, batch: &mut Batch, entropy: &dyn Entropy) -> Result<(), SealError> {
        let (page_key, page_row) = self.page.seal(log, self.number / PAGE_BUNDLES, entropy)?;
        let expect = self.page.revision().map_or(RowExpect::Absent, RowExpect::Revision);
        batch.expect.push((page_key.clone(), expect));
        batch.put.push((page_key, page_row));
        let mut old: BTreeMap<u64, &Folded> =
            self.blocks.iter().map(|block| (block.lines.start, block)).collect();
        let rest = (!self.rest.is_empty()).then_some(&self.rest);
        for (lines, number) in self.bundles.iter().chain(rest).zip(self.number..) {
            let first = number * TILE_HASHES;
            let replaced = old.remove(&first);
            // A block that is a bundle stays as it is.
            if replaced.is_some_and(|block| block.lines == (first..first + TILE_HASHES)) {
                continue;
            }
            let revision = replaced.map_or(Revision::FIRST, |block| block.revision.next());
            let expect = replaced.map_or(RowExpect::Absent, |block| RowExpect::Revision(block.revision));
            let (key, row) = seal_block(log, first, revision, lines, entropy)?;
            batch.expect.push((key.clone(), expect));
            batch.put.push((key, row));
        }
        for block in old.into_values() {
            batch.expect.push((block.key.clone(), RowExpect::Revision(block.revision)));
            batch.delete.push(block.key.clone());
        }
        Ok(())
    }
}

/// How many bundles of an epoch are folded.
///
/// # Errors
/// [`LogError`].
pub async fn bundles_folded(engine: &dyn StorageEngine, log: &LogKeys) -> Result<u64, LogError> {
    let pages = keys::log_index(log.tenant.id, log.epoch);
    let newest = engine.scan(ScanRange { descending: true, ..ScanRange::prefix(pages) }, 1).await?;
    let Some((key, row)) = newest.into_iter().next() else { return Ok(0) };
    let number = keys::log_index_number(&key).ok_or(LogError::Integrity)?;
    let page = IndexPage::open(log, &key, &row)?;
    Ok(number.saturating_mul(PAGE_BUNDLES).saturating_add(page.bundles.len() as u64))
}
