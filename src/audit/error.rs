//! Why a log could not be read.

use crate::store::EngineError;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The engine could not read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The head, or a block, does not open or is malformed.
    #[error("a row of the log does not open")]
    Integrity,
    /// Blocks are missing, overlap, or hold other lines than their place says.
    #[error("the log is damaged at event {sequence}")]
    Damaged {
        /// The first event that is not as it must be.
        sequence: u64,
    },
    /// The lines do not have the frontier that the head says.
    #[error("the events of the log are not those that its head was made of")]
    HeadMismatch,
    /// The log is in another epoch than the one asked for.
    #[error("the log is in epoch {current}")]
    OtherEpoch {
        /// The epoch that is being written.
        current: u32,
    },
}
