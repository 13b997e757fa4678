//! The anchor of the access logs, as a file.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::dev::write_private;
use crate::service::{AnchorPlace, Anchoring, PlaceError};

/// Largest anchor that is read: that of a quarter of a million logs.
const FILE_BYTES: u64 = 256 << 20;
/// Bits that its mode must not have.
const OPEN_TO_OTHERS: u32 = 0o007;
/// Pause from one look at the logs to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Of the time, at most one part in so many goes into writing the anchor.
const SHARE: u32 = 10;

/// A file on another volume than the store.
pub(super) struct AnchorFile {
    path: PathBuf,
    /// Held while it is written: one that takes long is not overtaken by the next.
    writing: Arc<Mutex<()>>,
}

impl AnchorFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), writing: Arc::default() }
    }
}

#[async_trait]
impl AnchorPlace for AnchorFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn read(&self) -> Result<Option<String>, PlaceError> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(PlaceError::new)?;
        read.map_err(PlaceError::new)
    }

    async fn replace(&self, text: String) -> Result<(), PlaceError> {
        let (path, writing) = (self.path.clone(), Arc::clone(&self.writing));
        let write = move || {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            write_private(&path, text.as_bytes())
        };
        tokio::task::spawn_blocking(write).await.map_err(PlaceError::new)?.map_err(PlaceError::new)
    }
}

/// The text; what is no text is damaged, and told so by its signature.
fn read(path: &Path) -> Result<Option<String>, std::io::Error> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if !metadata.is_file() {
        return Err(std::io::Error::other("is not a regular file"));
    }
    if metadata.permissions().mode() & OPEN_TO_OTHERS != 0 {
        return Err(std::io::Error::other("is open to others; look at who could write it, then chmod 600"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Keeps the anchor until `stop`. A write that hangs holds up nothing else.
pub(super) async fn anchor(anchoring: Option<Arc<Anchoring>>, stop: CancellationToken) {
    let Some(anchoring) = anchoring else { return stop.cancelled().await };
    loop {
        let began = tokio::time::Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = anchoring.round() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE.max(began.elapsed() * SHARE)) => {}
        }
    }
}
