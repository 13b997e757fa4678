//! Tiles: where the hashes and the entries of a log stand, as <https://c2sp.org/tlog-tiles> says.

use std::fmt;

use super::TILE_HASHES;

/// Longest entry of a bundle, in bytes: its length is written in two.
pub const BUNDLE_ENTRY_BYTES: usize = u16::MAX as usize;

/// The place of a tile or of a bundle of entries, relative to the log's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TilePath {
    /// The level of the hashes in it, in steps of eight levels of the tree; `None`: it holds entries.
    pub level: Option<u8>,
    /// Its number among the tiles of its level.
    pub index: u64,
    /// How many hashes or entries it holds: 1 to 256.
    pub width: u16,
}

impl TilePath {
    /// The path of the bundle with the entries of a tile of level 0.
    #[must_use]
    pub fn entries(self) -> Self {
        Self { level: None, ..self }
    }

    /// The number of its first entry, or of the first of the hashes of its level.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.index.saturating_mul(TILE_HASHES)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "tile/{level}/")?,
            None => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        while let Some(group) = groups.pop() {
            if groups.is_empty() {
                write!(f, "{group:03}")?;
            } else {
                write!(f, "x{group:03}/")?;
            }
        }
        if u64::from(self.width) < TILE_HASHES { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// The tiles with hashes of a log of this size, the lowest level first.
pub fn tile_paths(size: u64) -> impl Iterator<Item = TilePath> {
    let levels = std::iter::successors(Some(size), |above| Some(above / TILE_HASHES));
    levels.take_while(|hashes| *hashes > 0).zip(0..).flat_map(|(hashes, level)| {
        (0..hashes.div_ceil(TILE_HASHES)).map(move |index| {
            let width = (hashes - index * TILE_HASHES).min(TILE_HASHES);
            TilePath { level: Some(level), index, width: u16::try_from(width).unwrap_or(u16::MAX) }
        })
    })
}

#[cfg(test)]
mod tests {
    use tlog_tiles::Tile;

    use super::*;

    #[test]
    fn paths_are_those_of_another_implementation() {
        for level in [None, Some(0), Some(1), Some(4)] {
            for index in [0, 1, 67, 999, 1000, 1_234_067, 999_999_999] {
                for width in [1, 8, 255, 256] {
                    let path = TilePath { level, index, width };
                    let other = Tile::new(8, level.unwrap_or(0), index, width.into(), level.is_none());
                    // Theirs has the height as a component of its own, and an older name for entries.
                    let other = other.path().replacen("tile/8/", "tile/", 1);
                    assert_eq!(path.to_string(), other.replacen("tile/data/", "tile/entries/", 1));
                }
            }
        }
    }

    #[test]
    fn tiles_are_listed_on_all_levels() {
        let paths: Vec<_> = tile_paths(257).map(|path| path.to_string()).collect();
        assert_eq!(paths, ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]);
        for (size, count) in [(0, 0), (1, 1), (255, 1), (256, 2), (257, 3), (65_536, 256 + 1 + 1)] {
            assert_eq!(tile_paths(size).count(), count, "{size}");
        }
    }
}
