//! Makes the files of a log's directory from its entries, in order.

use super::{BUNDLE_ENTRY_BYTES, Hash, TILE_HASHES, TilePath, leaf_hash, node_hash};

/// A file of a log's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileFile {
    /// Where it stands.
    pub path: TilePath,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Makes tiles, and bundles of entries where they are wanted. Holds one unfinished tile of each level.
#[derive(Debug)]
pub struct TileWriter {
    levels: Levels,
    /// The unfinished bundle; `None`: bundles are not wanted.
    bundle: Option<Vec<u8>>,
}

/// An entry is too long for a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry is longer than {BUNDLE_ENTRY_BYTES} bytes")]
pub struct EntryTooLong;

impl TileWriter {
    /// Begins with the first entry of a log.
    #[must_use]
    pub fn new(bundles: bool) -> Self {
        Self { levels: Levels::default(), bundle: bundles.then(Vec::new) }
    }

    /// Adds an entry; returns the files that are complete by it.
    ///
    /// # Errors
    /// [`EntryTooLong`].
    pub fn push(&mut self, entry: &[u8]) -> Result<Vec<TileFile>, EntryTooLong> {
        let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong)?;
        if let Some(bundle) = &mut self.bundle {
            bundle.extend_from_slice(&length.to_be_bytes());
            bundle.extend_from_slice(entry);
        }
        let mut files = Vec::new();
        let bundle = &mut self.bundle;
        self.levels.push(leaf_hash(entry), &mut |path, hashes| add(&mut files, bundle, path, hashes));
        Ok(files)
    }

    /// Ends the log; returns the files that hold less than 256 hashes or entries.
    #[must_use]
    pub fn finish(mut self) -> Vec<TileFile> {
        let mut files = Vec::new();
        let bundle = &mut self.bundle;
        self.levels.finish(&mut |path, hashes| add(&mut files, bundle, path, hashes));
        files
    }
}

fn add(files: &mut Vec<TileFile>, bundle: &mut Option<Vec<u8>>, path: TilePath, hashes: &[Hash]) {
    if let (Some(bundle), Some(0)) = (bundle, path.level) {
        files.push(TileFile { path: path.entries(), bytes: std::mem::take(bundle) });
    }
    files.push(TileFile { path, bytes: hashes.as_flattened().to_vec() });
}

/// The unfinished tile of each level.
#[derive(Debug, Default)]
pub(super) struct Levels(Vec<Level>);

#[derive(Debug, Default)]
struct Level {
    /// The number of the unfinished tile.
    index: u64,
    hashes: Vec<Hash>,
}

impl Levels {
    /// Adds a leaf; hands out the tiles that are complete by it, the lowest first.
    pub(super) fn push(&mut self, leaf: Hash, complete: &mut dyn FnMut(TilePath, &[Hash])) {
        let mut hash = leaf;
        for number in 0..=u8::MAX {
            let at = usize::from(number);
            if self.0.len() == at {
                self.0.push(Level::default());
            }
            let Some(level) = self.0.get_mut(at) else { return };
            level.hashes.push(hash);
            if (level.hashes.len() as u64) < TILE_HASHES {
                return;
            }
            complete(level.path(number), &level.hashes);
            hash = tile_root(std::mem::take(&mut level.hashes));
            level.index += 1;
        }
    }

    /// Hands out the tiles that are not complete, the lowest first.
    pub(super) fn finish(self, partial: &mut dyn FnMut(TilePath, &[Hash])) {
        for (number, level) in (0..=u8::MAX).zip(&self.0).filter(|(_, level)| !level.hashes.is_empty()) {
            partial(level.path(number), &level.hashes);
        }
    }
}

impl Level {
    fn path(&self, level: u8) -> TilePath {
        let width = u16::try_from(self.hashes.len()).unwrap_or(u16::MAX);
        TilePath { level: Some(level), index: self.index, width }
    }
}

/// The root over the hashes of a full tile; of as many as a power of two.
pub(super) fn tile_root(mut hashes: Vec<Hash>) -> Hash {
    while hashes.len() > 1 {
        hashes = hashes.chunks(2).filter_map(|pair| Some(node_hash(pair.first()?, pair.last()?))).collect();
    }
    hashes.first().copied().unwrap_or_default()
}
