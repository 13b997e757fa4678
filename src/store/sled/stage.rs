//! A batch of rows as a batch of the tree's items.

use std::io::{self, ErrorKind};
use std::ops::Range;

use sled::Db;

use super::{chunk, failed, stored};
use crate::store::{Batch, EngineError, Key, Row};

/// Version of the layout of the tree.
const FORMAT: u8 = 1;

/// The engine's own row, changed by every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    /// The number of the newest commit.
    pub(super) commits: u64,
    /// How many rows there are.
    pub(super) rows: u64,
}

impl State {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.commits.to_be_bytes());
        bytes.extend_from_slice(&self.rows.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, EngineError> {
        let Some((&FORMAT, rest)) = bytes.split_first() else {
            let found = bytes.first().copied().unwrap_or_default();
            let why = format!(
                "it has version {found} of the engine's layout, and this program knows version {FORMAT}"
            );
            return Err(EngineError::Refused { why });
        };
        let both = rest.split_at_checked(8).and_then(|(commits, rows)| {
            Some((u64::from_be_bytes(commits.try_into().ok()?), u64::from_be_bytes(rows.try_into().ok()?)))
        });
        let (commits, rows) = both
            .ok_or_else(|| EngineError::Corrupt { what: "the engine's own row is malformed".to_owned() })?;
        Ok(Self { commits, rows })
    }
}

/// A batch as the library shall apply it.
pub(super) struct Staged {
    /// Heads, chunks, and the engine's own row.
    pub(super) batch: sled::Batch,
    /// How many items it changes.
    pub(super) operations: usize,
    /// The engine's own row once it is applied.
    pub(super) state: State,
}

impl Staged {
    /// Stages a batch for a store in `state`, and reads every row that it touches: a page that cannot be read
    /// shows here, where nothing is applied yet, and not half way through.
    ///
    /// # Errors
    /// [`EngineError`] when the library cannot read.
    pub(super) fn new(db: &Db, state: State, batch: &Batch) -> Result<Self, EngineError> {
        let state = State { commits: state.commits + 1, rows: state.rows };
        let mut staged = Self { batch: sled::Batch::default(), operations: 0, state };
        for (key, row) in &batch.put {
            staged.put(db, key, row)?;
        }
        for key in &batch.delete {
            staged.delete(db, key)?;
        }
        staged.insert(chunk::STATE_KEY.to_vec(), staged.state.to_bytes());
        Ok(staged)
    }

    fn put(&mut self, db: &Db, key: &Key, row: &Row) -> Result<(), EngineError> {
        let chunk::Pieces { head, chunks } = chunk::split(row).ok_or_else(too_large)?;
        let old = stored(db, key)?;
        let stale = old.as_ref().map_or(Ok(0), |head| chunk::chunks_of(head))?;
        self.state.rows += u64::from(old.is_none());
        self.insert(chunk::head_key(key), head);
        let mut kept = 0;
        for bytes in chunks {
            let at = chunk::chunk_key(key, kept);
            touch(db, &at)?;
            self.insert(at, bytes.to_vec());
            kept += 1;
        }
        self.remove_chunks(db, key, kept..stale)
    }

    fn delete(&mut self, db: &Db, key: &Key) -> Result<(), EngineError> {
        let Some(head) = stored(db, key)? else { return Ok(()) };
        self.state.rows = self.state.rows.saturating_sub(1);
        self.operations += 1;
        self.batch.remove(chunk::head_key(key));
        self.remove_chunks(db, key, 0..chunk::chunks_of(&head)?)
    }

    fn remove_chunks(&mut self, db: &Db, key: &Key, indexes: Range<u32>) -> Result<(), EngineError> {
        for index in indexes {
            let at = chunk::chunk_key(key, index);
            touch(db, &at)?;
            self.operations += 1;
            self.batch.remove(at);
        }
        Ok(())
    }

    fn insert(&mut self, at: Vec<u8>, bytes: Vec<u8>) {
        self.operations += 1;
        self.batch.insert(at, bytes);
    }
}

/// Has the library read the page in which `at` stands or would stand.
fn touch(db: &Db, at: &[u8]) -> Result<(), EngineError> {
    db.contains_key(at).map(|_| ()).map_err(|error| failed("reading", error))
}

fn too_large() -> EngineError {
    let source = io::Error::new(ErrorKind::InvalidInput, "a row of 4 GiB or more");
    EngineError::Io { operation: "splitting a row", source }
}
