//! The embedded engine: sled 0.34.7, used in the one way in which it keeps what it acknowledged.
//!
//! Promises: what [`commit`](StorageEngine::commit) answered with `Committed` is on the device, whole,
//! whatever happens next; batches are applied one after the other; one call of `multi_get` or `scan` sees no
//! batch half; after an error in a commit other than `Full`, and after a panic of the library, nothing is
//! served any more.
//!
//! It does not promise that a row which a reader saw is durable already: a batch is visible from the moment
//! it is applied, a device flush before it is acknowledged. Who answers a read only after a commit of its own
//! (its audit event) never shows what a power cut takes back, because commits are made durable in their
//! order.
//!
//! All calls run inline on the calling thread: reads take microseconds and wait for the application of one
//! batch at most; `commit` and `close` block for as long as the device takes. The committer calls `commit`
//! from a thread of its own.
//!
//! Which trap of the library is dealt with where: `docs/decisions/0005-how-sled-is-used.md`.

mod cache;
mod chunk;
mod files;
mod open;
mod stage;
mod verify;

use std::any::Any;
use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use sled::{Db, IVec};

use self::cache::ControlRows;
use self::files::{Acknowledged, Directory, Log};
use self::stage::{Staged, State};
use super::{
    Batch, CommitOutcome, EngineError, EngineStats, Key, Row, RowExpect, ScanPage, ScanRange, StorageEngine,
};

/// Where a store is and what it may use.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// The store's own directory; it is created when it is missing, and made private to this user.
    pub path: PathBuf,
    /// Bytes of pages that the library keeps in memory. The process uses 150 to 250 MB above that.
    pub cache_bytes: u64,
    /// Most control rows (tenants, tokens, sessions) kept in memory; 0 for none. Each takes up to 4 KiB,
    /// typically 0.6.
    pub control_rows: usize,
    /// Free bytes that a volume must have for a commit to be tried, so that it cannot fail half way: below
    /// that, and six times the batch, commits are answered with [`EngineError::Full`].
    pub reserve_bytes: u64,
}

impl SledOptions {
    /// A store in `path`, with 256 MiB of pages, 32,768 control rows, and a reserve of 64 MiB.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache_bytes: 256 << 20, control_rows: 32_768, reserve_bytes: 64 << 20 }
    }
}

/// What the log grows by for a byte of rows: 4.5 to 5 measured, with what the library moves along.
const LOG_PER_BYTE: u64 = 6;
/// A batch above this can fill more than one segment of the log.
const LARGE_BATCH_BYTES: usize = 256 << 10;

/// The store of one process on one directory.
#[derive(Debug)]
pub struct SledEngine {
    /// Readers share it; it is taken alone while a batch is applied. None when the engine is closed.
    tree: RwLock<Option<ManuallyDrop<Db>>>,
    /// Held through a commit: commits are one after the other.
    writer: Mutex<Option<ManuallyDrop<Writer>>>,
    control: ControlRows,
    /// Nothing is served any more.
    failed: AtomicBool,
    rows: AtomicU64,
}

/// What a commit needs. Kept from being dropped when the engine has failed: the library would wait for
/// threads that are gone, and its files must stay locked as long as its others run.
#[derive(Debug)]
struct Writer {
    db: Db,
    log: Log,
    acknowledged: Acknowledged,
    directory: Directory,
    state: State,
    reserve_bytes: u64,
}

impl SledEngine {
    /// Opens the store in `options.path`, or makes an empty one. Replays what was written since the last
    /// start.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when another process has the store, it was made by another version, its
    /// directory is open to others, or has blobs; [`EngineError::Corrupt`] names what is damaged;
    /// [`EngineError::Io`] when the system refuses.
    pub fn open(options: &SledOptions) -> Result<Self, EngineError> {
        let writer = contained("opening", || open::open(options)).map_err(as_damage)?;
        Ok(Self {
            tree: RwLock::new(Some(ManuallyDrop::new(writer.db.clone()))),
            control: ControlRows::new(options.control_rows),
            failed: AtomicBool::new(false),
            rows: AtomicU64::new(writer.state.rows),
            writer: Mutex::new(Some(ManuallyDrop::new(writer))),
        })
    }

    fn multi_get_now(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, EngineError> {
        let tree = self.reading();
        let db = self.serving(tree.as_deref())?;
        self.guarded("reading", || keys.iter().map(|key| self.find(db, key)).collect())
    }

    /// The caller holds the lock that shuts commits out, so that what is put into the cache is not older than
    /// what a commit puts there.
    fn find(&self, db: &Db, key: &Key) -> Result<Option<Row>, EngineError> {
        if let Some(row) = self.control.find(key) {
            return Ok(Some(row));
        }
        let Some(head) = stored(db, key)? else { return Ok(None) };
        let row = chunk::join(db, key, &head)?;
        self.control.set(key, Some(&row));
        Ok(Some(row))
    }

    fn scan_now(&self, range: &ScanRange, limit: usize) -> Result<ScanPage, EngineError> {
        let tree = self.reading();
        let db = self.serving(tree.as_deref())?;
        let Some(bounds) = chunk::bounds(range) else { return Ok(Vec::new()) };
        let found = db.range(bounds);
        let join = |item: sled::Result<(IVec, IVec)>| {
            let (stored, head) = item.map_err(|error| failed("scanning", error))?;
            let key = chunk::key_of(&stored);
            let row = chunk::join(db, &key, &head)?;
            Ok((key, row))
        };
        self.guarded("scanning", || {
            if range.descending {
                found.rev().take(limit).map(join).collect()
            } else {
                found.take(limit).map(join).collect()
            }
        })
    }

    fn scan_keys_now(&self, range: &ScanRange, limit: usize) -> Result<Vec<Key>, EngineError> {
        let tree = self.reading();
        let db = self.serving(tree.as_deref())?;
        let Some(bounds) = chunk::bounds(range) else { return Ok(Vec::new()) };
        let found = db.range(bounds).keys();
        let name = |stored: sled::Result<IVec>| {
            stored.map(|stored| chunk::key_of(&stored)).map_err(|error| failed("scanning", error))
        };
        self.guarded("scanning", || {
            if range.descending {
                found.rev().take(limit).map(name).collect()
            } else {
                found.take(limit).map(name).collect()
            }
        })
    }

    fn commit_now(&self, batch: &Batch) -> Result<CommitOutcome, EngineError> {
        let mut held = self.writing();
        let writer = held.as_mut().filter(|_| !self.has_failed()).ok_or(EngineError::Closed)?;
        let committed = contained("committing", || self.attempt(writer, batch));
        if let Err(error) = &committed
            && !matches!(error, EngineError::Full)
        {
            self.fail();
        }
        committed
    }

    fn attempt(&self, writer: &mut Writer, batch: &Batch) -> Result<CommitOutcome, EngineError> {
        writer.refuse_when_full(batch.bytes())?;
        let conflicts = self.conflicts(&writer.db, &batch.expect)?;
        if !conflicts.is_empty() {
            return Ok(CommitOutcome::Conflict(conflicts));
        }
        let staged = Staged::new(&writer.db, writer.state, batch)?;
        if batch.bytes() > LARGE_BATCH_BYTES {
            // The library reuses a segment once what it held was written elsewhere and two more segments were
            // begun. A large batch begins several: whatever the library's own thread has moved until now must
            // be on the device first.
            writer.make_durable()?;
        }
        self.apply(&writer.db, batch, staged.batch)?;
        writer.make_durable()?;
        collect_garbage(staged.operations);
        writer.acknowledged.note(staged.state.commits)?;
        writer.state = staged.state;
        self.rows.store(staged.state.rows, Ordering::Relaxed);
        Ok(CommitOutcome::Committed)
    }

    fn conflicts(&self, db: &Db, expect: &[(Key, RowExpect)]) -> Result<Vec<Key>, EngineError> {
        let mut conflicts = Vec::new();
        for (key, expected) in expect {
            let found = match self.control.find(key) {
                Some(row) => Some(row),
                None => stored(db, key)?.map(|head| chunk::first_part(&head)).transpose()?,
            };
            if !expected.holds(found.as_ref()) {
                conflicts.push(key.clone());
            }
        }
        Ok(conflicts)
    }

    /// Makes a batch visible, in the tree and in the cache at once.
    fn apply(&self, db: &Db, batch: &Batch, staged: sled::Batch) -> Result<(), EngineError> {
        let _alone = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        db.apply_batch(staged).map_err(|error| failed("applying a batch", error))?;
        for (key, row) in &batch.put {
            self.control.set(key, Some(row));
        }
        for key in &batch.delete {
            self.control.set(key, None);
        }
        Ok(())
    }

    fn stats_now(&self) -> Result<EngineStats, EngineError> {
        let tree = self.reading();
        let db = self.serving(tree.as_deref())?;
        let disk_bytes = db.size_on_disk().map_err(|error| failed("measuring", error))?;
        Ok(EngineStats { disk_bytes, rows: self.rows.load(Ordering::Relaxed) })
    }

    fn close_now(&self) -> Result<(), EngineError> {
        let (mut writer, mut tree) = (self.writing(), self.alone());
        let (Some(writer), Some(tree)) = (writer.take(), tree.take()) else { return Ok(()) };
        if self.has_failed() {
            return Ok(());
        }
        let (writer, tree) = (ManuallyDrop::into_inner(writer), ManuallyDrop::into_inner(tree));
        let Writer { db, log, acknowledged, directory, state, .. } = writer;
        let closed = contained("closing", || {
            db.flush().map_err(|error| failed("writing the log", error))?;
            drop(tree);
            drop(db);
            log.make_durable()
        });
        if !directory.wait_for_release() {
            tracing::warn!("the storage library has not let go of its log yet");
        }
        closed.and_then(|()| acknowledged.note_closed(state.commits))
    }

    /// The tree, unless the engine is closed or has failed.
    fn serving<'a>(&self, tree: Option<&'a Db>) -> Result<&'a Db, EngineError> {
        tree.filter(|_| !self.has_failed()).ok_or(EngineError::Closed)
    }

    /// Contains a panic of the library in a read, after which it cannot be trusted any more.
    fn guarded<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        contained(operation, read).map_err(|error| {
            if is_panic(&error) {
                self.fail();
            }
            as_damage(error)
        })
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn reading(&self) -> RwLockReadGuard<'_, Option<ManuallyDrop<Db>>> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Option<ManuallyDrop<Db>>> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Option<ManuallyDrop<Writer>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SledEngine {
    fn drop(&mut self) {
        if let Err(error) = self.close_now() {
            tracing::error!(%error, "the store was not closed cleanly");
        }
    }
}

#[async_trait]
impl StorageEngine for SledEngine {
    fn name(&self) -> &'static str {
        "sled"
    }

    async fn multi_get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, EngineError> {
        self.multi_get_now(keys)
    }

    async fn scan(&self, range: ScanRange, limit: usize) -> Result<ScanPage, EngineError> {
        self.scan_now(&range, limit)
    }

    async fn scan_keys(&self, range: ScanRange, limit: usize) -> Result<Vec<Key>, EngineError> {
        self.scan_keys_now(&range, limit)
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, EngineError> {
        self.commit_now(&batch)
    }

    async fn stats(&self) -> Result<EngineStats, EngineError> {
        self.stats_now()
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.close_now()
    }
}

impl Writer {
    /// Nothing of a batch is applied when the volume might not hold it: the library cannot take half a batch
    /// back.
    fn refuse_when_full(&self, batch_bytes: usize) -> Result<(), EngineError> {
        let needed = (batch_bytes as u64).saturating_mul(LOG_PER_BYTE).saturating_add(self.reserve_bytes);
        if self.directory.free_bytes()? < needed { Err(EngineError::Full) } else { Ok(()) }
    }

    fn make_durable(&self) -> Result<(), EngineError> {
        // Never `flush_async`: it deadlocks for good at seven concurrent callers (sled issue 1412).
        self.db.flush().map_err(|error| failed("writing the log", error))?;
        self.log.make_durable()
    }
}

fn stored(db: &Db, key: &Key) -> Result<Option<IVec>, EngineError> {
    db.get(chunk::head_key(key)).map_err(|error| failed("reading", error))
}

/// Has old versions of pages freed: a single writer hardly drives the collector (1.9 GB held after a load
/// that needs 0.14).
fn collect_garbage(operations: usize) {
    for _ in 0..operations / 32 + 4 {
        crossbeam_epoch::pin().flush();
    }
}

/// Runs what calls the library, and turns its panic into an error.
fn contained<T>(
    operation: &'static str,
    run: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panicked(operation, panic.as_ref())))
}

fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> EngineError {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    EngineError::Io { operation, source: io::Error::other(LibraryPanic(message.to_owned())) }
}

/// A panic of the library, as the source of an I/O error.
#[derive(Debug, thiserror::Error)]
#[error("the storage library panicked: {0}")]
struct LibraryPanic(String);

fn is_panic(error: &EngineError) -> bool {
    let panicked = |source: &io::Error| source.get_ref().is_some_and(|inner| inner.is::<LibraryPanic>());
    matches!(error, EngineError::Io { source, .. } if panicked(source))
}

/// Names the panic of a call that only reads: the library could not make sense of its files.
fn as_damage(error: EngineError) -> EngineError {
    if is_panic(&error) { EngineError::Corrupt { what: error.to_string() } } else { error }
}

/// Names an error of the library.
fn failed(operation: &'static str, error: sled::Error) -> EngineError {
    match error {
        sled::Error::Io(source) if source.kind() == ErrorKind::UnexpectedEof => {
            EngineError::Corrupt { what: "its log, the file `db`, ends early".to_owned() }
        }
        sled::Error::Io(source) => EngineError::Io { operation, source },
        sled::Error::Corruption { at, .. } => {
            let at = at.map_or_else(|| "an unknown place".to_owned(), |at| format!("offset {}", at.lid()));
            EngineError::Corrupt { what: format!("a record of the log cannot be read at {at}") }
        }
        sled::Error::Unsupported(why) => EngineError::Refused { why },
        sled::Error::ReportableBug(what) => EngineError::Corrupt { what },
        sled::Error::CollectionNotFound(_) => {
            EngineError::Corrupt { what: "the library's own index is missing".to_owned() }
        }
    }
}
