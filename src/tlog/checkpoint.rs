//! Checkpoints: what a log was at one size, as <https://c2sp.org/tlog-checkpoint> writes it.
//!
//! ```text
//! origin ‖ "\n" ‖ size in decimal ‖ "\n" ‖ base64( root ) ‖ "\n"
//! ```

use std::fmt;

use data_encoding::BASE64;

use super::Hash;
use crate::crypto::{NoteError, NoteSigner, VerifierKey};

/// What a log was at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, the same for as long as the log goes on.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Why a note is no checkpoint that may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note is not by the key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text is no checkpoint.
    #[error("it is no checkpoint")]
    Form,
    /// It is of another log than the key.
    #[error("it is of another log than the key")]
    OtherLog,
}

impl Checkpoint {
    /// Signs it under the log's name.
    #[must_use]
    pub fn sign(&self, signer: NoteSigner) -> String {
        signer.under(self.origin.clone()).sign(&self.to_string())
    }

    /// Reads a checkpoint that `key` has signed for the log of its name.
    ///
    /// # Errors
    /// [`CheckpointError`] says why it must not be believed.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(key.open(note)?).ok_or(CheckpointError::Form)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(CheckpointError::OtherLog) }
    }

    /// Reads what a note says without asking who signed it: for who has no key, to compare what it has with what it says.
    ///
    /// # Errors
    /// [`CheckpointError::Form`] when it is no checkpoint.
    pub fn unverified(note: &str) -> Result<Self, CheckpointError> {
        let (text, _) = note.rsplit_once("\n\n").ok_or(CheckpointError::Form)?;
        Self::parse(&format!("{text}\n")).ok_or(CheckpointError::Form)
    }

    /// Reads the text; `None` unless it is exactly what [`Display`](fmt::Display) writes.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.splitn(4, '\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let root = BASE64.decode(root.as_bytes()).ok()?.try_into().ok()?;
        let checkpoint = Self { origin: origin.to_owned(), size: size.parse().ok()?, root };
        (!origin.is_empty() && checkpoint.to_string() == text).then_some(checkpoint)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_back_and_no_other_spelling_of_it() {
        let checkpoint = Checkpoint { origin: "example.com/log".to_owned(), size: 20, root: [7; 32] };
        let text = checkpoint.to_string();
        assert_eq!(Checkpoint::parse(&text), Some(checkpoint));
        let root = BASE64.encode(&[7; 32]);
        for other in [
            String::new(),
            text.trim_end().to_owned(),
            format!("{text}an extension\n"),
            text.replace("20", "020"),
            text.replace("20", "+20"),
            text.replace(&root, &BASE64.encode(&[7; 31])),
            text.replace("example.com/log", ""),
        ] {
            assert_eq!(Checkpoint::parse(&other), None, "{other}");
        }
    }
}
