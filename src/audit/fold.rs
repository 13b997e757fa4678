//! Folding: when a log has another 256 lines, the blocks that hold them become one, and the index learns what is in it.
//!
//! What a fold writes goes with a commit of the log's own writer, and changes nothing of what the log says: the same lines
//! under the same numbers. Bundles are folded in order, so that what is not folded yet is the end of the log.

use super::block::{Block, seal_block};
use super::index::{Bundle, IndexPage, PAGE_BUNDLES};
use super::{LogError, LogKeys};
use crate::crypto::SealError;
use crate::env::Entropy;
use crate::model::Revision;
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, StorageEngine, keys};
use crate::tlog::TILE_HASHES;

/// A complete bundle on its way to be folded.
#[derive(Debug)]
pub struct Fold {
    number: u64,
    /// The rows of the blocks that hold its lines, and the revision of each.
    blocks: Vec<(Key, Revision)>,
    lines: Vec<u8>,
    /// The lines of the last of those blocks that belong to the next bundle.
    rest: Vec<u8>,
    /// The page of the index, with this bundle.
    page: IndexPage,
}

impl Fold {
    /// Reads what is to be folded into the bundle of that number, which must be complete. Those before it are folded.
    ///
    /// # Errors
    /// [`LogError`] when the log or its index is damaged there.
    pub async fn read(engine: &dyn StorageEngine, log: &LogKeys, number: u64) -> Result<Self, LogError> {
        let first = number * TILE_HASHES;
        let end = first + TILE_HASHES;
        let range = ScanRange {
            after: first.checked_sub(1).map(|before| keys::log_block(log.tenant.id, log.epoch, before)),
            before: Some(keys::log_block(log.tenant.id, log.epoch, end)),
            ..ScanRange::prefix(keys::log_blocks(log.tenant.id, log.epoch))
        };
        // At most one block a line.
        let most = usize::try_from(TILE_HASHES).unwrap_or(usize::MAX);
        let page = IndexPage::read(engine, log, number / PAGE_BUNDLES).await?;
        if page.bundles.len() as u64 != number % PAGE_BUNDLES {
            return Err(LogError::Damaged { sequence: first });
        }
        let mut fold = Self { number, blocks: Vec::new(), lines: Vec::new(), rest: Vec::new(), page };
        let mut bundle = Vec::with_capacity(most);
        for (key, row) in engine.scan(range, most).await? {
            fold.take(log, key, &row, end, &mut bundle)?;
        }
        let lines = bundle.iter().map(Vec::as_slice);
        let bundle = Bundle::of(lines).ok_or(LogError::Damaged { sequence: first })?;
        fold.page.bundles.push(bundle);
        Ok(fold)
    }

    /// Takes the next block's lines; those from `end` on are the rest.
    fn take(
        &mut self,
        log: &LogKeys,
        key: Key,
        row: &Row,
        end: u64,
        bundle: &mut Vec<Vec<u8>>,
    ) -> Result<(), LogError> {
        let block = Block::open(log, &key, row)?;
        let next = self.number * TILE_HASHES + bundle.len() as u64;
        let damaged = LogError::Damaged { sequence: next };
        if block.first() != next {
            return Err(damaged);
        }
        let last = block.end().min(end);
        bundle.extend((next..last).filter_map(|sequence| block.line(sequence)).map(<[u8]>::to_vec));
        self.lines.extend_from_slice(block.framed(next, last).ok_or(damaged)?);
        if block.end() > end {
            self.rest.extend_from_slice(block.framed(end, block.end()).unwrap_or_default());
        }
        self.blocks.push((key, row.revision().map_err(|_| LogError::Integrity)?));
        Ok(())
    }

    /// The keys of the rows of which it expects something.
    pub fn expected(&self, log: &LogKeys) -> impl Iterator<Item = Key> {
        let page = keys::log_index_page(log.tenant.id, log.epoch, self.number / PAGE_BUNDLES);
        let rest = keys::log_block(log.tenant.id, log.epoch, (self.number + 1) * TILE_HASHES);
        self.blocks.iter().map(|(key, _)| key.clone()).chain([page, rest])
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
        let first = self.number * TILE_HASHES;
        let is_whole = self.blocks.len() == 1 && self.rest.is_empty();
        let Some(((_, revision), others)) = self.blocks.split_first().filter(|_| !is_whole) else {
            return Ok(());
        };
        batch.put.push(seal_block(log, first, revision.next(), &self.lines, entropy)?);
        if !self.rest.is_empty() {
            let end = first + TILE_HASHES;
            let (key, row) = seal_block(log, end, Revision::FIRST, &self.rest, entropy)?;
            batch.expect.push((key.clone(), RowExpect::Absent));
            batch.put.push((key, row));
        }
        let blocks = self.blocks.iter();
        batch.expect.extend(blocks.map(|(key, revision)| (key.clone(), RowExpect::Revision(*revision))));
        batch.delete.extend(others.iter().map(|(key, _)| key.clone()));
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
