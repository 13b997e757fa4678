//! Engines to test, and short ways to call them.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use strongroom::model::Revision;
use strongroom::store::{
    Batch, CommitOutcome, EngineError, Faulty, Key, MemoryEngine, Row, RowExpect, ScanRange, SledEngine,
    SledOptions, StorageEngine,
};

/// An engine under test, with the directory it lives in.
pub struct Fixture {
    pub engine: Arc<dyn StorageEngine>,
    pub directory: Option<tempfile::TempDir>,
}

impl Fixture {
    pub fn memory() -> Self {
        Self { engine: Arc::new(MemoryEngine::new()), directory: None }
    }

    pub fn faulty() -> Self {
        Self { engine: Arc::new(Faulty::new(MemoryEngine::new())), directory: None }
    }

    pub fn sled() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { engine: Arc::new(open(directory.path()).unwrap()), directory: Some(directory) }
    }

    /// Closes a store and opens it again, where it outlives that.
    pub fn reopen(self) -> Self {
        let Some(directory) = self.directory else { return self };
        ready(self.engine.close()).unwrap();
        Self { engine: Arc::new(open(directory.path()).unwrap()), directory: Some(directory) }
    }

    pub fn read(&self, keys: &[Key]) -> Vec<Option<Row>> {
        ready(self.engine.multi_get(keys)).unwrap()
    }

    pub fn read_one(&self, key: &Key) -> Option<Row> {
        self.read(std::slice::from_ref(key)).remove(0)
    }

    pub fn scan(&self, range: ScanRange, limit: usize) -> Vec<(Key, Row)> {
        let keys = ready(self.engine.scan_keys(range.clone(), limit)).unwrap();
        let rows = ready(self.engine.scan(range, limit)).unwrap();
        assert!(rows.iter().map(|(key, _)| key).eq(&keys), "a scan of keys finds others than a scan of rows");
        rows
    }

    pub fn all(&self) -> Vec<(Key, Row)> {
        self.scan(ScanRange::prefix(Vec::new()), usize::MAX)
    }

    pub fn commit(&self, batch: Batch) -> Result<CommitOutcome, EngineError> {
        ready(self.engine.commit(batch))
    }

    pub fn put(&self, rows: &[(Key, Row)]) {
        let batch = Batch { put: rows.to_vec(), ..Batch::default() };
        assert_eq!(self.commit(batch).unwrap(), CommitOutcome::Committed);
    }

    pub fn delete(&self, keys: &[Key]) {
        let batch = Batch { delete: keys.to_vec(), ..Batch::default() };
        assert_eq!(self.commit(batch).unwrap(), CommitOutcome::Committed);
    }

    /// The keys that a commit conflicts at, in their order.
    pub fn conflicts(&self, batch: Batch) -> Vec<Key> {
        match self.commit(batch).unwrap() {
            CommitOutcome::Conflict(mut keys) => {
                keys.sort();
                keys
            }
            CommitOutcome::Committed => panic!("committed against an expectation"),
        }
    }
}

pub fn open(path: &std::path::Path) -> Result<SledEngine, EngineError> {
    SledEngine::open(&options(path))
}

pub fn options(path: &std::path::Path) -> SledOptions {
    SledOptions { cache_bytes: 8 << 20, control_rows: 1024, reserve_bytes: 1 << 20, ..SledOptions::new(path) }
}

/// The answer of a future that never waits, as those of embedded engines do.
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("an embedded engine answered later"),
    }
}

pub fn key(text: impl AsRef<[u8]>) -> Key {
    Key::from_stored(text.as_ref().to_vec())
}

pub fn revision(number: u64) -> Revision {
    Revision::new(number).unwrap()
}

/// A row of a revision and some bytes; engines do not look at more of a row than its revision.
pub fn row(number: u64, rest: &[u8]) -> Row {
    Row::from_stored([&number.to_be_bytes(), rest].concat().into())
}

pub fn at(number: u64) -> RowExpect {
    RowExpect::Revision(revision(number))
}
