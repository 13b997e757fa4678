//! What a replay has stored: handles, names, lengths and SHA-256 of every item.
//!
//! It is written before anything is read back, and flushed to the device, so that the same verification can be run again
//! after the server was killed and started. It holds no content; because it holds owners it is for its user alone.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::model::Owner;

/// Names the format and its version.
const FORMAT: &str = "strongroom-replay-1";

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read or written.
    #[error("the manifest {} cannot be {verb}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a manifest.
    #[error("{} is not a manifest of this version (line {line})", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Counts from 1; 0 when it is no question of a line.
        line: usize,
    },
}

/// What a replay has stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    /// Tenant that it is stored in.
    pub tenant: String,
    /// Owner of the sessions.
    pub owner: Option<StoredOwner>,
    /// Stream that holds the messages.
    pub stream: String,
    /// The sessions, in the order of the recording.
    pub sessions: Vec<StoredSession>,
}

/// The three parts of an owner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOwner {
    issuer: String,
    client: String,
    subject: String,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSession {
    /// Its name in the recording.
    pub recorded: String,
    /// Its handle.
    pub session: String,
    /// Its events, in order. The name of an event is its id.
    pub events: Vec<Item>,
    /// Its entries. The name of an entry is its key.
    pub entries: Vec<Item>,
}

/// One event or entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Id of an event, key of an entry.
    pub name: String,
    /// Its length in bytes.
    pub length: usize,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// The bytes themselves, while the run that stored them lasts.
    #[serde(skip)]
    pub original: Option<Bytes>,
}

impl Item {
    /// Describes `bytes` stored as `name`, and keeps them for comparing.
    #[must_use]
    pub fn new(name: String, bytes: Bytes) -> Self {
        Self { name, length: bytes.len(), sha256: sha256(&bytes), original: Some(bytes) }
    }

    /// Whether `found` is what was stored: byte for byte while the original is at hand, else by length and hash.
    #[must_use]
    pub fn matches(&self, found: &[u8]) -> bool {
        match &self.original {
            Some(original) => original == found,
            None => self.length == found.len() && self.sha256 == sha256(found),
        }
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Item({} bytes)", self.length)
    }
}

impl std::fmt::Debug for StoredOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredOwner(…)")
    }
}

impl From<&Owner> for StoredOwner {
    fn from(owner: &Owner) -> Self {
        Self {
            issuer: owner.issuer().to_owned(),
            client: owner.client_id().to_owned(),
            subject: owner.subject().to_owned(),
        }
    }
}

impl StoredSession {
    /// Bytes of all its items.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let lengths = self.events.iter().chain(&self.entries).map(|item| item.length);
        lengths.map(|length| u64::try_from(length).unwrap_or(u64::MAX)).sum()
    }
}

impl Manifest {
    /// Begins a manifest.
    #[must_use]
    pub fn new(tenant: &str, owner: Option<&Owner>, stream: &str, sessions: Vec<StoredSession>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            tenant: tenant.to_owned(),
            owner: owner.map(StoredOwner::from),
            stream: stream.to_owned(),
            sessions,
        }
    }

    /// The owner of the sessions.
    ///
    /// # Errors
    /// [`ManifestError::Format`] when it breaks an owner's bounds.
    pub fn owner(&self, path: &Path) -> Result<Option<Owner>, ManifestError> {
        let owner = self.owner.clone().map(|owner| Owner::new(owner.issuer, owner.client, owner.subject));
        owner.transpose().map_err(|_| ManifestError::Format { path: path.to_owned(), line: 0 })
    }

    /// How many events and entries there are.
    #[must_use]
    pub fn items(&self) -> usize {
        self.sessions.iter().map(|session| session.events.len() + session.entries.len()).sum()
    }

    /// Writes it beside `path` and puts it in place when it is safely on the device.
    ///
    /// # Errors
    /// [`ManifestError::File`].
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        let failed = |source| ManifestError::File { path: path.to_owned(), verb: "written", source };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let mut file = crate::cli::output::private_file(&partial, false).map_err(failed)?;
        serde_json::to_writer_pretty(&mut file, self).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&partial, path).map_err(failed)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let failed = |source| ManifestError::File { path: path.to_owned(), verb: "read", source };
        let bytes = fs::read(path).map_err(failed)?;
        let wrong = |line| ManifestError::Format { path: path.to_owned(), line };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.line()))?;
        if manifest.format == FORMAT { Ok(manifest) } else { Err(wrong(0)) }
    }
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let owner = Owner::new(String::new(), String::new(), "alice".to_owned()).unwrap();
        let session = StoredSession {
            recorded: "one".to_owned(),
            session: "srs_abc".to_owned(),
            events: vec![Item::new("e1".to_owned(), Bytes::from_static(b"hello"))],
            entries: vec![Item::new("tool-result/00001".to_owned(), Bytes::new())],
        };
        Manifest::new("demo", Some(&owner), "messages", vec![session])
    }

    #[test]
    fn a_manifest_survives_the_disk_without_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        manifest().write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("hello"), "{text}");
        assert!(text.contains("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"), "{text}");
        let read = Manifest::read(&path).unwrap();
        assert_eq!(
            (read.items(), read.sessions[0].bytes(), read.sessions[0].session.as_str()),
            (2, 5, "srs_abc")
        );
        assert_eq!(read.owner(&path).unwrap().unwrap().subject(), "alice");
    }

    #[test]
    fn an_item_matches_its_bytes_alone_with_and_without_the_original() {
        let kept = Item::new("e".to_owned(), Bytes::from_static(b"hello"));
        let described = Item { original: None, ..kept.clone() };
        for item in [kept, described] {
            assert!(item.matches(b"hello"));
            for other in [&b"hellp"[..], b"hell", b"hello ", b""] {
                assert!(!item.matches(other));
            }
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        assert!(matches!(Manifest::read(&path), Err(ManifestError::File { verb: "read", .. })));
        for text in [
            "",
            "{}",
            "{\"format\":\"strongroom-replay-2\",\"tenant\":\"\",\"owner\":null,\"stream\":\"\",\"sessions\":[]}",
        ] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Manifest::read(&path), Err(ManifestError::Format { .. })), "{text}");
        }
    }
}
