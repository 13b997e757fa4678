//! The directory of a store: whose it is, who may enter, and what in it is on the device.
//!
//! ```text
//! lock         held while the store is open; empty
//! acknowledged the number of the newest commit that was acknowledged, and whether the store was closed after it
//! db           the library's log and pages
//! conf, snap.* the library's settings and its index of pages as of the last start
//! blobs/       must stay empty
//! ```
//!
//! Everything here goes through the standard library and so through the C library, which is what lets the
//! power-cut tests see it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, FlockOperation, fadvise, flock};

use crate::store::EngineError;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How long, in milliseconds, a closed library may take to let go of its file.
const RELEASE_MILLIS: u32 = 5000;

/// The directory, locked for this process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    directory: File,
    lock: File,
}

impl Directory {
    /// Creates the directory where it is missing, makes it private, locks it, and clears what an interrupted
    /// start left.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when another process has it, when others can enter it, or when it holds blobs
    /// or pieces of a store without its log; [`EngineError::Io`] when the system refuses.
    pub(super) fn claim(path: &Path) -> Result<Self, EngineError> {
        create(path).map_err(|source| io_error("creating the store's directory", source))?;
        let directory =
            File::open(path).map_err(|source| io_error("opening the store's directory", source))?;
        make_private(path, &directory)?;
        let lock = lock(path)?;
        // Only under the lock: another process could be writing its snapshot just now.
        remove_unfinished_snapshots(path)
            .map_err(|source| io_error("removing an unfinished snapshot", source))?;
        let claimed = Self { path: path.to_owned(), directory, lock };
        claimed.refuse_blobs()?;
        claimed.refuse_without_log()?;
        Ok(claimed)
    }

    /// Makes what the library created private and durable: its files' contents, and their names.
    ///
    /// The log as a whole is made durable because it may hold writes of a process that was killed before it
    /// could; they are about to be served.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn settle(&self) -> Result<(), EngineError> {
        let settle = || -> io::Result<()> {
            for entry in self.path.read_dir()? {
                let entry = entry?;
                let file = File::open(entry.path())?;
                let mode = if entry.file_type()?.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
                file.set_permissions(Permissions::from_mode(mode))?;
                file.sync_all()?;
            }
            self.directory.sync_all()
        };
        settle().map_err(|source| io_error("making the store's files durable", source))
    }

    /// Has the system read the log from the device again, where it stands in the system's cache.
    ///
    /// After a failed write-back the cache may hold pages that it takes for written and that are not. Served
    /// from there, new commits would be appended behind a hole in the log.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn forget_cached_log(&self) -> Result<(), EngineError> {
        let forget = || -> io::Result<()> {
            let log = match File::open(self.path.join("db")) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            log.sync_all()?;
            Ok(fadvise(&log, 0, None, Advice::DontNeed)?)
        };
        forget().map_err(|source| io_error("writing back the log", source))
    }

    /// Looks at the library's settings before it does, because it believes them whatever their checksum says.
    ///
    /// The library does not make them durable when it creates them, so a power cut during a first start may
    /// leave them torn; they are removed, and made again. [`settle`](Self::settle) makes them durable before
    /// the first commit, so in a store that has one they are damaged.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::Corrupt`] for torn settings of a store that `has_commits`.
    pub(super) fn check_settings(&self, has_commits: bool) -> Result<(), EngineError> {
        let path = self.path.join("conf");
        match std::fs::read(&path) {
            Ok(settings) if is_whole(&settings) => Ok(()),
            Ok(_) if has_commits => {
                Err(EngineError::Corrupt { what: "the settings of the store, the file `conf`".to_owned() })
            }
            Ok(_) => {
                std::fs::remove_file(&path).map_err(|source| io_error("removing unfinished settings", source))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("reading the settings", error)),
        }
    }

    /// Opens the library's log for [`Log::make_durable`].
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn log(&self) -> Result<Log, EngineError> {
        let open = || -> io::Result<Log> {
            let blobs = File::open(self.path.join("blobs"))?;
            let untouched = changed(&blobs)?;
            Ok(Log { file: File::open(self.path.join("db"))?, blobs, untouched })
        };
        open().map_err(|source| io_error("opening the log", source))
    }

    /// Opens the record of the newest acknowledged commit.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn acknowledged(&self) -> Result<Acknowledged, EngineError> {
        Acknowledged::open(&self.path.join("acknowledged"))
            .map_err(|source| io_error("opening the record of acknowledged commits", source))
    }

    /// Bytes that the volume still has for this process.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn free_bytes(&self) -> Result<u64, EngineError> {
        let volume = rustix::fs::fstatvfs(&self.directory)
            .map_err(|error| io_error("asking for the volume's free space", error.into()))?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    /// Waits until nobody has the log locked, for at most five seconds; whether that is so.
    ///
    /// The library locks it too, and its last I/O thread may hold on to it for a moment after the last handle
    /// is gone.
    pub(super) fn wait_for_release(&self) -> bool {
        let Ok(log) = File::open(self.path.join("db")) else { return true };
        for _ in 0..RELEASE_MILLIS {
            if flock(&log, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return flock(&log, FlockOperation::Unlock).is_ok();
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        false
    }

    /// A blob would not survive a power cut; none can have been written by this engine.
    fn refuse_blobs(&self) -> Result<(), EngineError> {
        let blobs = match self.path.join("blobs").read_dir() {
            Ok(blobs) => blobs.count(),
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(source) => return Err(io_error("looking for blobs", source)),
        };
        if blobs == 0 {
            return Ok(());
        }
        let why = format!(
            "it has {blobs} files in `blobs`, which the storage library does not make durable: restore a backup"
        );
        Err(EngineError::Refused { why })
    }

    /// The library would quietly begin an empty log beside what is left of a store.
    fn refuse_without_log(&self) -> Result<(), EngineError> {
        let left = |name: &str| self.path.join(name).exists();
        if left("acknowledged") && !left("db") && self.acknowledged()?.newest()? > 0 {
            return Err(EngineError::Corrupt { what: "its log, the file `db`, is missing".to_owned() });
        }
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // To close the file is not enough while a child process that is just being started has it as well.
        if let Err(error) = flock(&self.lock, FlockOperation::Unlock) {
            tracing::warn!(%error, "the store's lock was not given back");
        }
    }
}

/// Our own descriptor of the library's log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    blobs: File,
    untouched: (i64, i64),
}

impl Log {
    /// Has everything that the library wrote to its log put on the device.
    ///
    /// The library's own `flush` ends in `sync_file_range` on Linux, which neither flushes the device's cache
    /// nor commits the file's length (sled issue 1452).
    ///
    /// # Errors
    /// [`EngineError::Io`] when the device refuses, [`EngineError::Corrupt`] when the library has written a
    /// blob after all.
    pub(super) fn make_durable(&self) -> Result<(), EngineError> {
        self.file.sync_data().map_err(|source| io_error("making a commit durable", source))?;
        let now = changed(&self.blobs).map_err(|source| io_error("looking for blobs", source))?;
        if now == self.untouched {
            return Ok(());
        }
        Err(EngineError::Corrupt {
            what: "the storage library wrote a blob, which is not durable".to_owned(),
        })
    }
}

/// When a directory was last changed: a system call that costs less than a microsecond, unlike reading it.
fn changed(directory: &File) -> io::Result<(i64, i64)> {
    let metadata = directory.metadata()?;
    Ok((metadata.mtime(), metadata.mtime_nsec()))
}

/// The number of the newest acknowledged commit, beside the log.
///
/// The library takes a damaged record for the end of its log and goes on from there, without the commits that
/// followed. This number, written after a commit is durable and before it is acknowledged, is what tells. It
/// is not made durable with each commit: after a power cut it may be older than the log, never newer.
#[derive(Debug)]
pub(super) struct Acknowledged {
    file: File,
}

/// A slot is a number and its complement. Slots stand in sectors of their own; commits are noted in the first
/// two in turn, so that a torn write leaves the other. The third has the newest commit of a store that was
/// closed.
const SLOT_DISTANCE: u64 = 4096;
const CLOSED_SLOT: u64 = 2;

impl Acknowledged {
    fn open(path: &Path) -> io::Result<Self> {
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
        Ok(Self { file: options? })
    }

    /// The number; 0 when none was written yet.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn newest(&self) -> Result<u64, EngineError> {
        let newest = self.slot(0).and_then(|even| Ok(even.max(self.slot(1)?)));
        newest.map_err(|source| io_error("reading the record of acknowledged commits", source))
    }

    /// Whether the store was closed since it was last opened, so that its log must be whole.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn is_closed(&self) -> Result<bool, EngineError> {
        let closed = self.slot(CLOSED_SLOT);
        let closed =
            closed.map_err(|source| io_error("reading the record of acknowledged commits", source))?;
        Ok(closed > 0 && closed == self.newest()?)
    }

    /// Notes, durably, that the store is closed after `commit`, or open for 0.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn note_closed(&self, commit: u64) -> Result<(), EngineError> {
        self.write_slot(CLOSED_SLOT, commit)?;
        self.make_durable()
    }

    fn slot(&self, number: u64) -> io::Result<u64> {
        let (mut commit, mut complement) = ([0; 8], [0; 8]);
        let read = |half: &mut [u8; 8], at| match self.file.read_exact_at(half, at) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            other => other,
        };
        read(&mut commit, number * SLOT_DISTANCE)?;
        read(&mut complement, number * SLOT_DISTANCE + 8)?;
        let commit = u64::from_be_bytes(commit);
        Ok(if commit == !u64::from_be_bytes(complement) { commit } else { 0 })
    }

    /// Notes that `commit` is durable.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn note(&self, commit: u64) -> Result<(), EngineError> {
        self.write_slot(commit % 2, commit)
    }

    fn write_slot(&self, number: u64, commit: u64) -> Result<(), EngineError> {
        let slot = (u128::from(commit) << 64) | u128::from(!commit);
        self.file
            .write_all_at(&slot.to_be_bytes(), number * SLOT_DISTANCE)
            .map_err(|source| io_error("recording an acknowledged commit", source))
    }

    /// Puts the number on the device.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn make_durable(&self) -> Result<(), EngineError> {
        self.file.sync_data().map_err(|source| io_error("recording an acknowledged commit", source))
    }
}

/// Creates a directory and what is missing above it, each name durable in its parent.
fn create(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    create(parent)?;
    DirBuilder::new().mode(DIRECTORY_MODE).create(path)?;
    File::open(parent)?.sync_all()
}

/// Nobody else may enter: the library makes its files with the process's default permissions.
fn make_private(path: &Path, directory: &File) -> Result<(), EngineError> {
    let mode =
        directory.metadata().map_err(|source| io_error("opening the store's directory", source))?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    directory.set_permissions(Permissions::from_mode(DIRECTORY_MODE)).map_err(|_| EngineError::Refused {
        why: format!(
            "others can enter {} and this process may not change that: use a directory below it",
            path.display()
        ),
    })
}

/// A lock of our own, because the library takes its only after it has read the directory.
fn lock(path: &Path) -> Result<File, EngineError> {
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path.join("lock"))
        .map_err(|source| io_error("opening the store's lock", source))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(EngineError::Refused { why: format!("another process has {} open", path.display()) })
        }
        Err(error) => Err(io_error("locking the store", error.into())),
    }
}

/// A process that is killed while the library writes its snapshot leaves one that makes the next start fail
/// (sled issue 1533).
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    for entry in path.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b"snap.") && name.ends_with(b".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether the library's settings end in their checksum.
fn is_whole(settings: &[u8]) -> bool {
    let parts = settings.split_last_chunk();
    parts.is_some_and(|(text, crc)| crc32fast::hash(text) == u32::from_le_bytes(*crc))
}

fn io_error(operation: &'static str, source: io::Error) -> EngineError {
    EngineError::Io { operation, source }
}
