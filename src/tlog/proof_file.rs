//! A proof that an entry is in a log, complete in one text: <https://c2sp.org/tlog-proof>.
//!
//! ```text
//! "c2sp.org/tlog-proof@v1\n" ‖ "index " ‖ index in decimal ‖ "\n" ‖ { base64( hash ) ‖ "\n" } ‖ "\n" ‖ signed checkpoint
//! ```

use std::fmt;

use data_encoding::BASE64;

use super::{Checkpoint, CheckpointError, Hash, leaf_hash, verify_inclusion};
use crate::crypto::VerifierKey;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Most hashes of a proof: the height of the tallest tree.
const HASHES: usize = 63;

/// A proof that an entry is in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFile {
    /// The entry's number.
    pub index: u64,
    /// The hashes of the inclusion proof.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint of the tree that it is in.
    pub checkpoint: String,
}

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// The text is no proof.
    #[error("it is no proof of this format")]
    Form,
    /// Its checkpoint is not to be believed.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The entry is not in the log, or not there.
    #[error("the entry is not in the log at this place")]
    NotIncluded,
}

impl ProofFile {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofFileError::Form`].
    pub fn parse(text: &str) -> Result<Self, ProofFileError> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofFileError::Form)?;
        let mut lines = head.split('\n');
        let index = (lines.next() == Some(HEADER)).then(|| lines.next()?.strip_prefix("index ")).flatten();
        let index = index.and_then(|index| index.parse().ok()).ok_or(ProofFileError::Form)?;
        let hash = |line: &str| BASE64.decode(line.as_bytes()).ok()?.try_into().ok();
        let hashes: Option<Vec<Hash>> = lines.take(HASHES + 1).map(hash).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= HASHES).ok_or(ProofFileError::Form)?;
        let proof = Self { index, hashes, checkpoint: checkpoint.to_owned() };
        if proof.to_string() == text { Ok(proof) } else { Err(ProofFileError::Form) }
    }

    /// Whether the proof shows that `entry` is in the log of `key`; returns what the log was then.
    ///
    /// # Errors
    /// [`ProofFileError`] says why it does not.
    pub fn verify(&self, entry: &[u8], key: &VerifierKey) -> Result<Checkpoint, ProofFileError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        let Checkpoint { size, root, .. } = &checkpoint;
        if verify_inclusion(&leaf_hash(entry), self.index, *size, &self.hashes, root) {
            Ok(checkpoint)
        } else {
            Err(ProofFileError::NotIncluded)
        }
    }
}

impl fmt::Display for ProofFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nindex {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", BASE64.encode(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
