//! What is written, so that what is found can be checked: every batch follows from a seed and its number.

use std::collections::BTreeMap;

use strongroom::store::{Batch, Key, Row, RowExpect};

use crate::trace::Random;

const KEYS: u64 = 24;
/// Sizes of rows, and how often each is taken, in hundredths.
const SIZES: [(usize, u64); 6] =
    [(100, 36), (1 << 10, 30), (16 << 10, 16), (64 << 10, 12), (1 << 20, 4), (4 << 20, 2)];

/// What a store holds after some number of batches.
#[derive(Debug, Clone)]
pub struct Model {
    seed: u64,
    /// How many batches it has seen.
    pub batches: u64,
    rows: BTreeMap<Key, Written>,
    /// The newest revision that each key ever had.
    revisions: BTreeMap<Key, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Written {
    batch: u64,
    revision: u64,
    size: usize,
}

impl Model {
    /// An empty store.
    pub fn new(seed: u64) -> Self {
        Self { seed, batches: 0, rows: BTreeMap::new(), revisions: BTreeMap::new() }
    }

    /// The store after `batches` batches.
    pub fn after(seed: u64, batches: u64) -> Self {
        let mut model = Self::new(seed);
        while model.batches < batches {
            model.step();
        }
        model
    }

    /// Goes one batch further; what it changes, without the rows' contents.
    fn step(&mut self) -> Vec<(Key, Option<Written>)> {
        self.batches += 1;
        let mut random = Random::new(self.seed ^ self.batches.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut changes = BTreeMap::new();
        for _ in 0..=random.below(5) {
            let key = Key::from_stored(format!("row {:02}", random.below(KEYS)).into_bytes());
            let size = size(&mut random);
            let change = if random.below(8) == 0 { None } else { Some(self.written(&key, size)) };
            changes.insert(key, change);
        }
        changes.insert(counter(), Some(Written { batch: 0, revision: self.batches, size: 0 }));
        for (key, change) in &changes {
            match change {
                None => drop(self.rows.remove(key)),
                Some(written) => {
                    self.rows.insert(key.clone(), *written);
                    self.revisions.insert(key.clone(), written.revision);
                }
            }
        }
        changes.into_iter().collect()
    }

    fn written(&self, key: &Key, size: usize) -> Written {
        let revision = self.revisions.get(key).copied().unwrap_or_default() + 1;
        Written { batch: self.batches, revision, size }
    }

    /// The next batch, which expects every row that it changes to be as the model has it.
    pub fn next(&mut self) -> Batch {
        let before = self.rows.clone();
        let mut batch = Batch::default();
        for (key, change) in self.step() {
            let was = before.get(&key).and_then(|written| strongroom::model::Revision::new(written.revision));
            batch.expect.push((key.clone(), was.map_or(RowExpect::Absent, RowExpect::Revision)));
            match change {
                None => batch.delete.push(key),
                Some(written) => batch.put.push((key.clone(), self.row(&key, written))),
            }
        }
        batch
    }

    fn row(&self, key: &Key, written: Written) -> Row {
        let name = key.as_bytes().iter().fold(self.seed, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
        let mut random = Random::new(name ^ written.batch.wrapping_mul(0x9e37_79b9));
        let page: Vec<u8> = (0..512).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut bytes = written.revision.to_be_bytes().to_vec();
        for number in 0..written.size.div_ceil(page.len()) as u64 {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&page[8..]);
        }
        bytes.truncate(8 + written.size);
        Row::from_stored(bytes.into())
    }

    /// How a store's rows differ from what they should be.
    pub fn difference(&self, found: &[(Key, Row)]) -> Option<String> {
        if found.len() != self.rows.len() {
            return Some(format!("{} rows instead of {}", found.len(), self.rows.len()));
        }
        for ((key, row), (expected, written)) in found.iter().zip(&self.rows) {
            if key != expected {
                return Some(format!("{key:?} instead of {expected:?}"));
            }
            if *row != self.row(key, *written) {
                return Some(format!("{key:?} has revision {:?}, not as {written:?}", row.revision()));
            }
        }
        None
    }
}

fn size(random: &mut Random) -> usize {
    let mut choice = random.below(100);
    for (size, weight) in SIZES {
        if choice < weight {
            return size + random.below(50) as usize;
        }
        choice -= weight;
    }
    SIZES[0].0
}

/// The row that counts batches by its revision, changed by every one.
pub fn counter() -> Key {
    Key::from_stored(b"batches".to_vec())
}

/// How many batches a store has seen, by its own word.
pub fn counted(found: &[(Key, Row)]) -> u64 {
    let row = found.iter().find(|(key, _)| *key == counter()).map(|(_, row)| row);
    row.map_or(0, |row| row.revision().map_or(0, strongroom::model::Revision::get))
}
