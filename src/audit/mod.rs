//! The access log: typed events, canonical lines, the Merkle tree over them, and how they are read back.
//!
//! One log per tenant and epoch, and one for the server itself. A leaf is the exact bytes of one canonical JSON line; the
//! tree is that of RFC 6962 (leaf = SHA-256(0x00 ‖ line), node = SHA-256(0x01 ‖ left ‖ right)), so that checkpoints,
//! proofs and tiles can be made of it without touching what is stored. Lines are stored in sealed blocks, one for each
//! log and commit; the head row holds size and frontier. Blocks of a complete bundle of 256 lines are joined later on, and
//! an index learns what is in it, so that a search opens those bundles alone that may hold what is wanted.
//!
//! What this module promises: an event consists of enums, numbers, hashes and pseudonyms, never of text that a caller
//! chose; sequence numbers of a log are dense and its times never go back. What it does not do: it writes nothing (the
//! committer does) and signs nothing; proofs and their formats are those of [`tlog`](crate::tlog).

mod block;
mod blocks;
mod continuity;
mod error;
mod event;
mod fold;
mod index;
mod keys;
mod line;
mod log;
mod operation;
mod reader;
mod reason;
#[cfg(test)]
mod reference;
mod search;
mod tally;
#[cfg(test)]
pub(crate) mod testing;

pub use crate::tlog::{Frontier, Hash, TILE_HASHES, leaf_hash, node_hash};
#[cfg(test)]
use block::Block;
pub use continuity::Continuity;
pub use error::LogError;
pub use event::{Actor, Event, Outcome, Phase, Redaction, Resource, Source, TlsVersion};
pub use fold::{FOLD_BUNDLES, Fold, bundles_folded};
pub use keys::{LogKeys, LogName, Pseudonym};
pub use line::{LineTail, LineView, PREFIX_BYTES};
pub use log::{Extension, Log};
pub use operation::{Operation, OperationSet, OutcomeSet, UnknownOperation};
pub use reader::{Filter, LogLine, LogPage, LogReader, Order, VerifiedLog};
pub use reason::Reason;
pub use tally::{FailureTally, TALLY_SOURCES};
