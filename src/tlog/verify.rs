//! Whether the entries and tiles of a directory are those of a signed checkpoint, and if not, where that begins.
//!
//! Everything is computed anew from the entries in one pass. What the tiles say is believed nowhere; they serve to say *which*
//! entry is not as it was, where the root alone would only say that one is.

use std::cmp::Ordering;
use std::io::{self, BufRead, Read as _};

use super::writer::Levels;
use super::{BUNDLE_ENTRY_BYTES, Checkpoint, Frontier, Hash, TILE_HASHES, TilePath, leaf_hash};

/// Reads a file of an export, at most so many bytes and one more of it; `None` when there is none.
pub type ReadFile<'a> = dyn FnMut(&TilePath, u64) -> io::Result<Option<Vec<u8>>> + 'a;

/// An exported log: its files, and its entries.
pub struct Export<'a> {
    /// Reads a file; `None` when there is none. One that is longer than so many bytes must be cut to one byte more.
    pub file: &'a mut ReadFile<'a>,
    /// The entries, each on a line of its own; `None`: they stand in bundles.
    pub lines: Option<&'a mut dyn BufRead>,
}

/// Where a log is not as it was signed: the first such place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPlace {
    /// A file is missing.
    #[error("{0} is missing")]
    Missing(TilePath),
    /// A file does not have the form of a tile or of a bundle.
    #[error("{0} is malformed")]
    Malformed(TilePath),
    /// The hashes in a tile are not those of the entries, which are as they were signed.
    #[error("{0} is not the tile of the entries, which are those that were signed")]
    Tile(TilePath),
    /// An entry is not the one whose hash stands in its tile, and the entries are not those that were signed.
    #[error("event {0} is not the one that was signed")]
    Entry(u64),
    /// The entries of a tile were replaced together with their hashes.
    #[error("the events of {0} are not those that were signed: they and their hashes were replaced")]
    Replaced(TilePath),
    /// There are no entries from here on, and there must be.
    #[error("event {0} is missing: the log ends before it")]
    Ended(u64),
    /// There are more entries than were signed.
    #[error("event {0} is more than was signed")]
    Surplus(u64),
    /// Entries and tiles agree with each other, and not with the checkpoint.
    #[error("the log is another than the one that was signed: all of it was replaced")]
    Root,
    /// An entry says of itself that it stands elsewhere.
    #[error("event {0} does not say that it stands there")]
    Misplaced(u64),
    /// The earlier checkpoint is of a log that was longer.
    #[error("the log ends before event {0}, up to which it was signed earlier")]
    Shorter(u64),
    /// The log was rewritten since the earlier checkpoint.
    #[error("the log was rewritten: its first {0} events are not those that were signed earlier")]
    Rewritten(u64),
}

/// Why an export was not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It could not be read.
    #[error("it could not be read: {0}")]
    Read(#[from] io::Error),
    /// It was, and it is not what was signed.
    #[error("{0}")]
    Bad(BadPlace),
}

/// Verifies an export against a `checkpoint`, and, where there is one, that it goes on from an `earlier` one of the same log.
/// `in_place` says of each entry whether it belongs where it stands.
///
/// # Errors
/// [`VerifyError::Bad`] with the first place that is not as it must be.
pub fn verify_export(
    export: Export<'_>,
    checkpoint: &Checkpoint,
    earlier: Option<&Checkpoint>,
    in_place: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<(), VerifyError> {
    if let Some(earlier) = earlier.filter(|earlier| earlier.size > checkpoint.size) {
        return Err(VerifyError::Bad(BadPlace::Shorter(earlier.size - 1)));
    }
    let mut pass = Pass {
        export,
        size: checkpoint.size,
        earlier: earlier.map(|earlier| (earlier.size, earlier.root)),
        frontier: Frontier::default(),
        differing: None,
        misplaced: None,
        rewritten: false,
    };
    let ended = pass.run(in_place);
    pass.judge(ended, checkpoint)
}

/// One pass over the entries.
struct Pass<'a> {
    export: Export<'a>,
    size: u64,
    earlier: Option<(u64, Hash)>,
    frontier: Frontier,
    /// The first tile that is not made of the entries, and the first hash in it that differs.
    differing: Option<(TilePath, u64)>,
    misplaced: Option<u64>,
    rewritten: bool,
}

impl Pass<'_> {
    fn run(&mut self, in_place: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), VerifyError> {
        let mut levels = Levels::default();
        self.compare_with_earlier();
        while self.frontier.size() < self.size {
            let mut complete = Vec::new();
            let bundle = self.next_bundle();
            let (entries, damage) = self.entries_of(bundle)?;
            if let Some(place) = damage {
                return self.locate(place, bundle, &entries);
            }
            for entry in &entries {
                let sequence = self.frontier.size();
                if !in_place(sequence, entry) {
                    self.misplaced.get_or_insert(sequence);
                }
                let leaf = leaf_hash(entry);
                levels.push(leaf, &mut |path, hashes| complete.push((path, hashes.to_vec())));
                self.frontier.append(leaf);
                self.compare_with_earlier();
            }
            for (path, hashes) in complete {
                self.compare(path, &hashes)?;
            }
        }
        let mut partial = Vec::new();
        levels.finish(&mut |path, hashes| partial.push((path, hashes.to_vec())));
        for (path, hashes) in partial {
            self.compare(path, &hashes)?;
        }
        match &mut self.export.lines {
            Some(lines) => match lines.fill_buf()?.is_empty() {
                true => Ok(()),
                false => bad(BadPlace::Surplus(self.size)),
            },
            None => Ok(()),
        }
    }

    /// The verdict, from what the pass found and how it ended.
    fn judge(self, ended: Result<(), VerifyError>, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
        let signed = self.frontier.size() == checkpoint.size && self.frontier.root() == checkpoint.root;
        let place = match (self.differing, ended) {
            (Some((path, _)), _) if signed => BadPlace::Tile(path),
            (Some((path, at)), _) if path.level == Some(0) => BadPlace::Entry(path.first() + at),
            (_, Err(error)) => return Err(error),
            (Some((path, at)), Ok(())) => BadPlace::Replaced(below(path, at)),
            (None, Ok(())) if !signed => BadPlace::Root,
            (None, Ok(())) => match (self.misplaced, self.rewritten) {
                (Some(sequence), _) => BadPlace::Misplaced(sequence),
                (None, true) => BadPlace::Rewritten(self.earlier.map_or(0, |(size, _)| size)),
                (None, false) => return Ok(()),
            },
        };
        bad(place)
    }

    fn compare_with_earlier(&mut self) {
        if let Some((size, root)) = &self.earlier {
            self.rewritten |= *size == self.frontier.size() && *root != self.frontier.root();
        }
    }

    /// Compares a tile as it must be with the one that there is.
    fn compare(&mut self, path: TilePath, hashes: &[Hash]) -> Result<(), VerifyError> {
        let bytes = hashes.as_flattened();
        let Some(found) = (self.export.file)(&path, bytes.len() as u64)? else {
            return bad(BadPlace::Missing(path));
        };
        if found.len() != bytes.len() {
            return bad(BadPlace::Malformed(path));
        }
        let differs = |(one, other): (&Hash, &Hash)| one != other;
        if let Some(at) = hashes.iter().zip(found.as_chunks().0).position(differs) {
            self.differing.get_or_insert((path, at as u64));
        }
        Ok(())
    }

    /// The place of the bundle that comes next.
    fn next_bundle(&self) -> TilePath {
        let first = self.frontier.size();
        let width = u16::try_from((self.size - first).min(TILE_HASHES)).unwrap_or(u16::MAX);
        TilePath { level: None, index: first / TILE_HASHES, width }
    }

    /// The entries of a bundle, and what is wrong with their number or their form.
    fn entries_of(&mut self, path: TilePath) -> Result<(Vec<Vec<u8>>, Option<BadPlace>), VerifyError> {
        let Some(lines) = &mut self.export.lines else { return self.bundle(path) };
        let mut entries = Vec::with_capacity(usize::from(path.width));
        for _ in 0..path.width {
            match read_line(*lines)? {
                Some(line) => entries.push(line),
                None => {
                    let place = BadPlace::Ended(path.first() + entries.len() as u64);
                    return Ok((entries, Some(place)));
                }
            }
        }
        Ok((entries, None))
    }

    fn bundle(&mut self, path: TilePath) -> Result<(Vec<Vec<u8>>, Option<BadPlace>), VerifyError> {
        let most = u64::from(path.width) * (2 + BUNDLE_ENTRY_BYTES as u64);
        let Some(bundle) = (self.export.file)(&path, most)? else { return bad(BadPlace::Missing(path)) };
        let mut rest = bundle.as_slice();
        let mut entries = Vec::with_capacity(usize::from(path.width));
        while let Some((length, after)) = rest.split_first_chunk() {
            let entry = after.split_at_checked(usize::from(u16::from_be_bytes(*length)));
            let Some((entry, after)) = entry else { return Ok((entries, Some(BadPlace::Malformed(path)))) };
            entries.push(entry.to_vec());
            rest = after;
        }
        let damage = match entries.len().cmp(&usize::from(path.width)) {
            _ if !rest.is_empty() => Some(BadPlace::Malformed(path)),
            Ordering::Equal => None,
            Ordering::Less => Some(BadPlace::Ended(path.first() + entries.len() as u64)),
            Ordering::Greater => Some(BadPlace::Surplus(path.first() + u64::from(path.width))),
        };
        Ok((entries, damage))
    }

    /// Says where a damaged bundle begins to be another than it was: at the first entry that is not in its tile, if there is
    /// one.
    fn locate(&mut self, place: BadPlace, path: TilePath, entries: &[Vec<u8>]) -> Result<(), VerifyError> {
        let tile = TilePath { level: Some(0), ..path };
        let stored = (self.export.file)(&tile, u64::from(path.width) * 32)?.unwrap_or_default();
        let mut both = entries.iter().zip(stored.as_chunks().0);
        let differing = both.position(|(entry, stored)| leaf_hash(entry) != *stored);
        bad(differing.map_or(place, |at| BadPlace::Entry(path.first() + at as u64)))
    }
}

/// The tile whose root a hash in a tile of a higher level is.
fn below(path: TilePath, at: u64) -> TilePath {
    let level = path.level.map(|level| level.saturating_sub(1));
    TilePath { level, index: path.first() + at, width: 256 }
}

/// A line without its end; `None` at the end of the log, also when the last line was cut or is too long for an entry.
fn read_line(lines: &mut dyn BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines.take(BUNDLE_ENTRY_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    Ok(line.pop().filter(|end| *end == b'\n').map(|_| line))
}

fn bad<T>(place: BadPlace) -> Result<T, VerifyError> {
    Err(VerifyError::Bad(place))
}
