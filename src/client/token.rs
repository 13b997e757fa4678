//! The token, read from its file and read again when the file changes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::error::ClientError;
use crate::model::limits::SIGNED_TOKEN_BYTES;

/// How long the file's metadata is trusted: a replaced token is used at the latest this much later.
const TRUSTED: Duration = Duration::from_secs(1);
/// Longest file that is read: the longest token, and white space around it.
const FILE_BYTES: u64 = SIGNED_TOKEN_BYTES as u64 + 1024;

/// A token file. The token itself is wiped from memory when it is replaced or dropped, and never printed.
pub(super) struct TokenFile {
    path: PathBuf,
    trusted: Duration,
    state: Mutex<Option<Read>>,
}

struct Read {
    token: Zeroizing<String>,
    stamp: Stamp,
    checked: Instant,
}

/// What changes when a file is rewritten or replaced.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

impl TokenFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, trusted: TRUSTED, state: Mutex::const_new(None) }
    }

    /// The value of the `authorization` header.
    pub(super) async fn header(&self) -> Result<MetadataValue<Ascii>, ClientError> {
        let mut state = self.state.lock().await;
        if let Some(read) = state.as_mut().filter(|read| read.checked.elapsed() < self.trusted) {
            return self.bearer(&read.token);
        }
        let stamp = self.stamp().await?;
        if let Some(read) = state.as_mut().filter(|read| read.stamp == stamp) {
            read.checked = Instant::now();
            return self.bearer(&read.token);
        }
        let read = state.insert(self.read(stamp).await?);
        self.bearer(&read.token)
    }

    /// Reads the file again, whatever its metadata says; whether the token differs from the one that made `used`.
    pub(super) async fn reread(&self, used: &MetadataValue<Ascii>) -> Result<bool, ClientError> {
        let mut state = self.state.lock().await;
        let read = state.insert(self.read(self.stamp().await?).await?);
        Ok(self.bearer(&read.token)? != *used)
    }

    async fn read(&self, stamp: Stamp) -> Result<Read, ClientError> {
        if stamp.length > FILE_BYTES {
            return Err(self.not_a_token());
        }
        let text = Zeroizing::new(tokio::fs::read(&self.path).await.map_err(|error| self.failed(&error))?);
        let token = std::str::from_utf8(&text).map_err(|_| self.not_a_token())?.trim();
        if token.is_empty()
            || token.len() > SIGNED_TOKEN_BYTES
            || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(self.not_a_token());
        }
        Ok(Read { token: Zeroizing::new(token.to_owned()), stamp, checked: Instant::now() })
    }

    async fn stamp(&self) -> Result<Stamp, ClientError> {
        let found = tokio::fs::metadata(&self.path).await.map_err(|error| self.failed(&error))?;
        Ok(Stamp {
            modified: found.modified().ok(),
            length: found.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&found),
        })
    }

    fn bearer(&self, token: &str) -> Result<MetadataValue<Ascii>, ClientError> {
        let mut text = Zeroizing::new(String::with_capacity("Bearer ".len() + token.len()));
        text.push_str("Bearer ");
        text.push_str(token);
        let mut value = MetadataValue::try_from(text.as_str()).map_err(|_| self.not_a_token())?;
        // Keeps it out of Debug and out of the header compression table.
        value.set_sensitive(true);
        Ok(value)
    }

    fn failed(&self, error: &io::Error) -> ClientError {
        ClientError::File { path: self.path.clone(), kind: error.kind() }
    }

    fn not_a_token(&self) -> ClientError {
        ClientError::TokenFile { path: self.path.clone() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenFile({})", self.path().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rewritten_file_is_noticed_and_neither_token_is_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "srt_first\n").unwrap();
        let token = TokenFile::new(file.path().to_owned());
        let first = token.header().await.unwrap();
        assert_eq!(first.as_bytes(), b"Bearer srt_first");
        assert!(!token.reread(&first).await.unwrap());

        std::fs::write(file.path(), "srt_second\n").unwrap();
        assert!(token.reread(&first).await.unwrap());
        let second = token.header().await.unwrap();
        assert_eq!(second.as_bytes(), b"Bearer srt_second");
        assert!(!format!("{token:?} {second:?}").contains("srt_"));
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_once_its_metadata_is_looked_at() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "srt_first").unwrap();
        let mut token = TokenFile::new(file.path().to_owned());
        token.header().await.unwrap();
        std::fs::write(file.path(), "srt_replaced").unwrap();
        assert_eq!(token.header().await.unwrap().as_bytes(), b"Bearer srt_first");
        token.trusted = Duration::ZERO;
        assert_eq!(token.header().await.unwrap().as_bytes(), b"Bearer srt_replaced");
    }

    #[tokio::test]
    async fn what_is_no_token_is_refused_before_it_is_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in [&b""[..], b"two words", b"\xff\xfe", &[b'a'; 8193], &[b'a'; 9999]] {
            std::fs::write(file.path(), text).unwrap();
            let token = TokenFile::new(file.path().to_owned());
            assert!(matches!(token.header().await, Err(ClientError::TokenFile { .. })));
        }
        let absent = TokenFile::new(file.path().join("absent"));
        assert!(matches!(absent.header().await, Err(ClientError::File { .. })));
    }
}
