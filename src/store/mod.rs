//! Where rows live: the engine seam, its implementations, and the layout of keys.
//!
//! An engine moves opaque rows and knows nothing of tenants or keys. The typed side of the house (`layout`) says which
//! row stands where. Rows hold [`Sealed`](crate::crypto::Sealed) records and nothing else: plaintext cannot be stored,
//! because nothing here accepts it.

mod engine;
mod faulty;
mod layout;
mod memory;
mod row;
mod sled;

pub use self::sled::{SledEngine, SledOptions};
pub use engine::{
    Batch, CommitOutcome, EngineError, EngineStats, RowExpect, ScanPage, ScanRange, StorageEngine,
};
pub use faulty::{Call, Effect, Failure, Fault, Faulty, Hook, Operation};
pub use layout::{Key, SessionPart, Table, keys};
pub use memory::MemoryEngine;
pub use row::{Part, Row, RowError};
