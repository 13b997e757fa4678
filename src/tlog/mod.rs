//! Transparency logs in the formats of C2SP, so that tools by others verify ours.
//!
//! The tree is that of RFC 6962. A [`Checkpoint`] says size and root and is a signed note
//! (<https://c2sp.org/tlog-checkpoint>), [`Proofs`] makes inclusion and consistency proofs, [`ProofFile`] is the
//! `.tlog-proof` (<https://c2sp.org/tlog-proof>), [`TileWriter`] makes the files of <https://c2sp.org/tlog-tiles>, and
//! [`verify_export`] checks such a directory without asking anybody. [`sign_anchor`] writes the latest checkpoints of all logs
//! as one text, in a form of our own.
//!
//! What this module promises: it knows nothing of what the entries say, holds at most one tile of each level and the
//! hashes above level 0 in memory, and everything that is read from outside is bounded and checked before it is believed.
//! What it does not do: it opens no file and no store, and it has no keys but public ones.

mod anchor;
mod checkpoint;
mod proof;
mod proof_file;
#[cfg(test)]
mod tests;
mod tile;
mod tree;
mod verify;
mod writer;

pub use anchor::{AnchorTextError, AnchoredLog, open_anchor, sign_anchor};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use proof::{Proofs, TILE_HASHES, verify_consistency, verify_inclusion};
pub use proof_file::{ProofFile, ProofFileError};
pub use tile::{BUNDLE_ENTRY_BYTES, TilePath, tile_paths};
pub use tree::{Frontier, Hash, leaf_hash, node_hash};
pub use verify::{BadPlace, Export, ReadFile, VerifyError, verify_export};
pub use writer::{EntryTooLong, TileFile, TileWriter};
