//! Files for their owner alone, written whole or not at all.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::DevError;

const OPEN_TO_OTHERS: u32 = 0o077;
/// Largest file that is read here.
const FILE_BYTES: u64 = 64 << 10;

/// Holds other starts back until it is dropped.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

/// Makes a directory of mode 0700, or checks that an existing one is closed to others. Parents get the usual mode. Afterwards
/// its name is on the device, whoever made it: keys that vanish in a power cut while the store stays would be a lost store.
pub(super) fn make_private_directory(dir: &Path) -> Result<(), DevError> {
    let parent = parent(dir);
    fs::create_dir_all(parent).map_err(failed("made", parent))?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(dir).map_err(failed("read", dir))?;
            if !metadata.is_dir() {
                return Err(DevError::NotA { path: dir.to_owned(), expected: "directory" });
            }
            closed_to_others(dir, metadata.permissions().mode())?;
        }
        Err(error) => return Err(failed("made", dir)(error)),
    }
    // Its own name, and that of its parent, which may be new as well.
    sync(parent)?;
    sync(self::parent(parent))
}

/// Waits until no other start holds the lock. A start takes well below a second.
pub(super) fn lock(path: &Path) -> Result<Lock, DevError> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(failed("opened", path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed("locked", path)(errno.into()))?;
    Ok(Lock(file))
}

/// The content of a secret file; `None` when there is none.
pub(super) fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, DevError> {
    let Some(metadata) = regular_file(path)? else { return Ok(None) };
    closed_to_others(path, metadata.permissions().mode())?;
    read(path).map(Some)
}

/// The content of a file that is no secret; `None` when there is none.
pub(super) fn read_public(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, DevError> {
    match regular_file(path)? {
        Some(_) => read(path).map(Some),
        None => Ok(None),
    }
}

/// Fails unless there is such a file.
pub(super) fn require(path: &Path) -> Result<(), DevError> {
    match regular_file(path)? {
        Some(_) => Ok(()),
        None => Err(failed("read", path)(ErrorKind::NotFound.into())),
    }
}

/// Fails unless there is such a file and it is closed to others.
pub(super) fn require_private(path: &Path) -> Result<(), DevError> {
    require(path)?;
    let metadata = fs::symlink_metadata(path).map_err(failed("read", path))?;
    closed_to_others(path, metadata.permissions().mode())
}

/// Writes a file of mode 0600 beside its place, flushes it and moves it there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), DevError> {
    let mut name = OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("removed", &new)(error)),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let mut file = file.map_err(failed("written", &new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("written", &new))?;
    fs::rename(&new, path).map_err(failed("written", path))?;
    sync(parent(path))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable.
fn sync(dir: &Path) -> Result<(), DevError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("flushed", dir))
}

/// A link is refused: it could lead to where others write.
fn regular_file(path: &Path) -> Result<Option<fs::Metadata>, DevError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(_) => Err(DevError::NotA { path: path.to_owned(), expected: "regular file" }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DevError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(failed("read", path))?;
    file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}

fn closed_to_others(path: &Path, mode: u32) -> Result<(), DevError> {
    let mode = mode & 0o7777;
    if mode & OPEN_TO_OTHERS == 0 {
        return Ok(());
    }
    Err(DevError::OpenToOthers { path: path.to_owned(), mode })
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DevError {
    let path = path.to_owned();
    move |source| DevError::Io { operation, path, source }
}
