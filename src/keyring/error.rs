//! What can go wrong with keys.

use std::path::PathBuf;

use super::provider::{ProviderError, ProviderKind};
use crate::crypto::{OpenError, RecipientError, SealError, WrapError};
use crate::env::EntropyError;
use crate::model::{KekState, KekVersion, TenantState};
use crate::store::{EngineError, RowError};

/// Why a key could not be made, opened or used.
///
/// No text repeats a secret. [`Integrity`](Self::Integrity) says on purpose no more than that.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Stored key material does not open: it was altered, moved or damaged.
    #[error("stored key material does not open")]
    Integrity,
    /// The version of the tenant's key is disabled, not yet in use or about to be destroyed.
    #[error("version {} of the tenant's key is disabled", .0.0)]
    KeyDisabled(KekVersion),
    /// The version of the tenant's key is gone for ever, and with it all that it wrapped.
    #[error("version {} of the tenant's key is destroyed", .0.0)]
    KeyDestroyed(KekVersion),
    /// The tenant's key has no such version.
    #[error("the tenant's key has no version {}", .0.0)]
    UnknownVersion(KekVersion),
    /// What was asked for is not for a version in this state.
    #[error("the version is {}", .0.name())]
    WrongState(KekState),
    /// The change is not for a tenant in this state.
    #[error("the tenant is {}", .0.name())]
    WrongTenantState(TenantState),
    /// A tenant's key has as many versions as a row holds.
    #[error("a tenant's key can have {living} versions that are not destroyed, and {listed} in all")]
    TooManyVersions {
        /// The bound on versions that are not destroyed.
        living: usize,
        /// The bound on all versions there ever were.
        listed: usize,
    },
    /// The store was written in a format that this program does not know.
    #[error("the store has format version {found}; this program knows version {known}")]
    UnknownFormat {
        /// The store's version.
        found: u64,
        /// The version of this program.
        known: u64,
    },
    /// The store has rows, but not this one, which is made together with the store.
    #[error("the store is not empty, but its {missing} row is missing")]
    Incomplete {
        /// Which row.
        missing: &'static str,
    },
    /// None of the store's recipient stanzas is for the key that the root provider holds.
    #[error(
        "the root provider ({provider}) holds key {held}, but the store's root key is wrapped for {}",
        .wanted.join(", ")
    )]
    WrongRoot {
        /// The provider that was asked.
        provider: ProviderKind,
        /// The key that it holds.
        held: String,
        /// The keys for which the store's root key is wrapped.
        wanted: Vec<String>,
    },
    /// The root provider could not do its part.
    #[error("the root provider ({provider}) failed: {source}")]
    Provider {
        /// Which provider.
        provider: ProviderKind,
        /// What it said.
        source: ProviderError,
    },
    /// Others than the owner can get at a file or directory that must be the owner's alone.
    #[error("{} has mode {mode:04o}: group and others must have no access", .path.display())]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A keyring file cannot be used.
    #[error("keyring file {}: {problem}", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: KeyFileProblem,
    },
    /// More recipients were asked for than a root epoch key can have.
    #[error("a root key can have at most {max} recipients")]
    TooManyRecipients {
        /// The bound.
        max: usize,
    },
    /// What a provider returned, or its key id, is longer than a stanza holds.
    #[error("the root provider's answer is longer than {max} bytes")]
    StanzaTooLarge {
        /// The bound.
        max: usize,
    },
    /// What should be imported was not wrapped for this wrapping key, or altered on its way.
    #[error("the key material was not wrapped for this wrapping key")]
    ForeignMaterial,
    /// What should be imported is no key: all of its bytes are the same.
    #[error("all bytes of the key material are the same")]
    WeakMaterial,
    /// What should be imported is a version of the tenant's key already.
    #[error("the key material is a version of the tenant's key already")]
    KnownMaterial,
    /// The tenant was not created exportable.
    #[error("the tenant's keys are not exportable")]
    NotExportable,
    /// Nothing can be wrapped for the public key that an export is for.
    #[error("the recipient's public key is not usable")]
    Recipient,
    /// An older epoch of the root key is still being rewrapped.
    #[error("an older epoch of the root key is still in use")]
    Rolling,
    /// A store cannot have more epochs.
    #[error("the store has had as many root epochs as it can have")]
    TooManyEpochs,
    /// There is no such recipient.
    #[error("the root key is not wrapped for that key")]
    UnknownRecipient,
    /// Without this recipient none of the configured providers would open the store.
    #[error("no configured root provider opens the store without that recipient")]
    NeededRecipient,
    /// A recovery key cannot be used.
    #[error(transparent)]
    Recovery(RecipientError),
    /// The system's random number generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// Something could not be sealed.
    #[error(transparent)]
    Seal(SealError),
    /// The storage engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What is wrong with a keyring file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileProblem {
    /// It exists, and an existing one is never overwritten.
    #[error("exists already and is never overwritten")]
    Exists,
    /// It ends before its last line.
    #[error("is truncated")]
    Truncated,
    /// It is not a keyring file, or its checksum does not match.
    #[error("is damaged, or not a keyring file")]
    Damaged,
    /// It was written in a version that this program does not know.
    #[error("has a version that this program does not know; it knows version 1")]
    UnknownVersion,
    /// The operating system reported an error.
    #[error("cannot be {operation}: {source}")]
    Io {
        /// What was being done: read, written …
        operation: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl From<OpenError> for KeyringError {
    fn from(_: OpenError) -> Self {
        Self::Integrity
    }
}

impl From<RowError> for KeyringError {
    fn from(_: RowError) -> Self {
        Self::Integrity
    }
}

impl From<SealError> for KeyringError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Entropy(error) => Self::Entropy(error),
            SealError::TooLarge | SealError::Refused => Self::Seal(error),
        }
    }
}

impl From<WrapError> for KeyringError {
    fn from(error: WrapError) -> Self {
        match error {
            WrapError::LowOrder => Self::Recipient,
            WrapError::Entropy(error) => Self::Entropy(error),
            WrapError::Refused => Self::Seal(SealError::Refused),
        }
    }
}

impl From<RecipientError> for KeyringError {
    fn from(error: RecipientError) -> Self {
        match error {
            RecipientError::Entropy(error) => Self::Entropy(error),
            RecipientError::LowOrder => Self::Recovery(error),
        }
    }
}
