//! What can go wrong in a use case.

use super::approval::{ApprovalState, Asked};
use crate::audit::Reason;
use crate::auth::Denied;
use crate::commit::{CommitError, Receipt};
use crate::crypto::{OpenError, SealError};
use crate::env::EntropyError;
use crate::keyring::KeyringError;
use crate::model::{KekState, NameError, Revision, Scope, TenantState, Timestamp};
use crate::store::{EngineError, RowError};

/// What is wrong with a field of a request. Never repeats the field's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A name breaks its bounds.
    #[error("{0}")]
    Name(#[from] NameError),
    /// It is missing.
    #[error("must be set")]
    Missing,
    /// It is a value that is not known.
    #[error("is not a known value")]
    Unknown,
    /// It is malformed.
    #[error("must be {form}")]
    Form {
        /// What it must be.
        form: &'static str,
    },
    /// It is larger than this many bytes.
    #[error("must not be larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// There are too many or too few.
    #[error("must have {min} to {max} elements")]
    Count {
        /// Least number.
        min: usize,
        /// Greatest number.
        max: usize,
    },
    /// A time or span lies outside its bounds.
    #[error("must be between {min:?} and {max:?} from now")]
    Span {
        /// Shortest.
        min: std::time::Duration,
        /// Longest.
        max: std::time::Duration,
    },
    /// Something occurs twice.
    #[error("must not name the same thing twice")]
    Repeated,
    /// A page or resume token is not one that was given for this request.
    #[error("is not a token that was given for this request")]
    Cursor,
}

/// Why a use case was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request is wrong.
    #[error("{field} {problem}")]
    Invalid {
        /// The field, as in the request message.
        field: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
    /// There is no such tenant, or not for this caller.
    #[error("there is no such tenant")]
    TenantNotFound,
    /// The tenant is suspended.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The tenant is to be destroyed. Who uses its data learns no more than that it is suspended.
    #[error("the tenant is suspended")]
    TenantDestroyScheduled,
    /// What was asked for is not for a tenant in this state.
    #[error("the tenant is {}", .0.name())]
    TenantState(TenantState),
    /// Another number of sessions than expected would die with the tenant.
    #[error("{found} sessions would die with the tenant")]
    TenantInUse {
        /// How many.
        found: u64,
    },
    /// There is no such session, or not for this caller.
    #[error("there is no such session")]
    SessionNotFound,
    /// The session has expired.
    #[error("the session has expired")]
    SessionExpired {
        /// When.
        at: Timestamp,
    },
    /// There is no such entry.
    #[error("there is no such entry")]
    EntryNotFound,
    /// A condition did not hold.
    #[error("the revision is not the expected one")]
    RevisionMismatch {
        /// What was found; `None` when there is nothing.
        current: Option<Revision>,
    },
    /// The store holds an older revision than the caller has seen.
    #[error("the stored revision is older than the one asked for")]
    RevisionBehind {
        /// What was found.
        found: Revision,
    },
    /// The name is taken.
    #[error("the name is taken")]
    AlreadyExists,
    /// The redaction policy refuses the value, or it cannot be read safely.
    #[error("the value is refused: {0}")]
    RedactionRejected(crate::redact::Refusal),
    /// There is no such event in the stream.
    #[error("there is no such event in the stream")]
    EventNotFound,
    /// The last event of the stream is another.
    #[error("the last event of the stream is not the expected one")]
    LastEventMismatch,
    /// There never was a job of this kind.
    #[error("there is no such job")]
    JobNotFound,
    /// A second person must approve it first.
    #[error("somebody else must approve this first")]
    ApprovalRequired(Box<Asked>),
    /// There is no such approval, or not for this caller.
    #[error("there is no such approval")]
    ApprovalNotFound,
    /// Who asked for something cannot approve it.
    #[error("who asked for something cannot approve it")]
    ApprovalOwn,
    /// What was asked for is not for an approval in this state.
    #[error("the approval is {}", .0.name())]
    ApprovalState(ApprovalState),
    /// There is no such token.
    #[error("there is no such token")]
    TokenNotFound,
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// The caller lacks a scope.
    #[error("the credentials lack the scope \"{}\"", .0.name())]
    PermissionDenied(Scope),
    /// The caller may read, but not in this view.
    #[error("the credentials do not allow the full view")]
    ViewNotPermitted,
    /// The sensitive part of the session was purged, and with it every full view.
    #[error("the sensitive part of the session was purged")]
    SensitivePurged,
    /// The key version is disabled.
    #[error("the key version is disabled")]
    KeyDisabled,
    /// The key version was destroyed.
    #[error("the key version was destroyed")]
    KeyDestroyed,
    /// The tenant's key has no such version.
    #[error("the tenant's key has no such version")]
    KeyNotFound,
    /// What was asked for is not for a version in this state.
    #[error("the key version is {}", .0.name())]
    KeyState(KekState),
    /// Another number of sessions than expected would die with the version.
    #[error("{found} sessions would die with the key version")]
    KeyInUse {
        /// How many.
        found: u64,
    },
    /// The tenant has no such wrapping key: it was never made, is used or has expired.
    #[error("there is no such wrapping key: it was never made, was used already, or has expired")]
    WrappingKeyNotFound,
    /// The tenant was not created exportable.
    #[error("the tenant was not created exportable: its keys never leave the store")]
    KeyNotExportable,
    /// A root provider could not be asked.
    #[error("a root provider could not do its part")]
    RootUnavailable,
    /// An older epoch of the root key is still in use.
    #[error("an older epoch of the root key is still in use")]
    RootRolling,
    /// The root key is not wrapped for that key.
    #[error("the root key is not wrapped for that key")]
    RecipientNotFound,
    /// Nobody whom the configuration names could open the store without that recipient.
    #[error("no configured root provider opens the store without that recipient")]
    RecipientNeeded,
    /// A stored quantity is at its limit.
    #[error("a quota is exceeded: at most {max} {what}")]
    QuotaExceeded {
        /// The bound.
        max: usize,
        /// What is bounded.
        what: &'static str,
    },
    /// Too much waits already.
    #[error("the server is overloaded")]
    Overloaded,
    /// The access log cannot be written.
    #[error("the access log cannot be written")]
    AuditUnavailable,
    /// The volume is full.
    #[error("the volume is full")]
    StorageFull,
    /// Stored bytes do not open.
    #[error("stored data failed its integrity check")]
    Integrity,
    /// A race was lost too often.
    #[error("too many concurrent changes of the same thing")]
    Contended,
    /// The store or the server cannot serve now.
    #[error("the store is not available")]
    Unavailable,
    /// A defect of the server.
    #[error("internal error")]
    Internal,
}

impl Error {
    /// A field with a problem.
    pub fn invalid(field: &'static str, problem: impl Into<Problem>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }
}

/// A use case that was not carried out, and where that is on record.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// The event that says so; absent when none could be written.
    pub receipt: Option<Receipt>,
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Foreign => Self::TenantNotFound,
            Denied::Scope(Scope::ReadFull) => Self::ViewNotPermitted,
            Denied::Scope(scope) => Self::PermissionDenied(scope),
        }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full => Self::StorageFull,
            EngineError::Corrupt { .. } => Self::Integrity,
            EngineError::Io { .. }
            | EngineError::Busy
            | EngineError::Refused { .. }
            | EngineError::Closed => {
                tracing::warn!(%error, "the storage engine refused a read");
                Self::Unavailable
            }
        }
    }
}

impl From<RowError> for Error {
    fn from(_: RowError) -> Self {
        Self::Integrity
    }
}

impl From<OpenError> for Error {
    fn from(_: OpenError) -> Self {
        Self::Integrity
    }
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooLarge | SealError::Refused => Self::Internal,
            SealError::Entropy(_) => Self::Unavailable,
        }
    }
}

impl From<EntropyError> for Error {
    fn from(_: EntropyError) -> Self {
        Self::Unavailable
    }
}

impl From<KeyringError> for Error {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Integrity => Self::Integrity,
            KeyringError::KeyDisabled(_) => Self::KeyDisabled,
            KeyringError::KeyDestroyed(_) => Self::KeyDestroyed,
            KeyringError::UnknownVersion(_) => Self::KeyNotFound,
            KeyringError::WrongState(state) => Self::KeyState(state),
            KeyringError::WrongTenantState(state) => Self::TenantState(state),
            KeyringError::TooManyVersions { living, .. } => {
                Self::QuotaExceeded { max: living, what: "versions of a key" }
            }
            KeyringError::NotExportable => Self::KeyNotExportable,
            KeyringError::KnownMaterial => Self::AlreadyExists,
            KeyringError::ForeignMaterial => Self::invalid(
                "wrapped",
                Problem::Form { form: "32 bytes that were wrapped for this wrapping key of this tenant" },
            ),
            KeyringError::WeakMaterial => Self::invalid(
                "wrapped",
                Problem::Form { form: "random key material: all of its bytes are the same" },
            ),
            KeyringError::Recipient => Self::invalid(
                "recipient_public_key",
                Problem::Form { form: "an X25519 public key that is not of low order" },
            ),
            KeyringError::Rolling => Self::RootRolling,
            KeyringError::UnknownRecipient => Self::RecipientNotFound,
            KeyringError::NeededRecipient => Self::RecipientNeeded,
            KeyringError::TooManyRecipients { max } => {
                Self::QuotaExceeded { max, what: "recipients of the root key" }
            }
            KeyringError::WrongRoot { .. }
            | KeyringError::Provider { .. }
            | KeyringError::Permissions { .. }
            | KeyringError::KeyFile { .. }
            | KeyringError::StanzaTooLarge { .. } => {
                tracing::warn!(%error, "a root provider could not do its part");
                Self::RootUnavailable
            }
            KeyringError::Engine(error) => error.into(),
            KeyringError::Entropy(error) => error.into(),
            KeyringError::UnknownFormat { .. }
            | KeyringError::Incomplete { .. }
            | KeyringError::TooManyEpochs
            | KeyringError::Recovery(_)
            | KeyringError::Seal(_) => {
                tracing::error!(%error, "the keyring refused");
                Self::Internal
            }
        }
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Contended,
            CommitError::Overloaded => Self::Overloaded,
            CommitError::Full => Self::StorageFull,
            CommitError::AuditUnavailable => Self::AuditUnavailable,
            CommitError::Unavailable => Self::Unavailable,
            CommitError::Malformed(error) => {
                tracing::error!(%error, "a use case made a malformed change");
                Self::Internal
            }
        }
    }
}

impl Error {
    /// The reason as the access log knows it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Invalid { .. } => Reason::InvalidField,
            Self::TenantNotFound => Reason::TenantNotFound,
            Self::TenantSuspended => Reason::TenantSuspended,
            Self::TenantDestroyScheduled | Self::TenantState(_) => Reason::TenantState,
            Self::TenantInUse { .. } => Reason::TenantInUse,
            Self::SessionNotFound => Reason::SessionNotFound,
            Self::SessionExpired { .. } => Reason::SessionExpired,
            Self::EntryNotFound => Reason::EntryNotFound,
            Self::RevisionMismatch { .. } => Reason::RevisionMismatch,
            Self::RevisionBehind { .. } => Reason::RevisionBehind,
            Self::AlreadyExists => Reason::AlreadyExists,
            Self::RedactionRejected(_) => Reason::RedactionRejected,
            Self::EventNotFound => Reason::EventNotFound,
            Self::LastEventMismatch => Reason::LastEventMismatch,
            Self::TokenNotFound => Reason::TokenNotFound,
            Self::RequestIdReused => Reason::RequestIdReused,
            Self::PermissionDenied(_) => Reason::PermissionDenied,
            Self::ViewNotPermitted => Reason::ViewNotPermitted,
            Self::SensitivePurged => Reason::SensitivePurged,
            Self::KeyDisabled => Reason::KeyDisabled,
            Self::KeyDestroyed => Reason::KeyDestroyed,
            Self::JobNotFound => Reason::JobNotFound,
            Self::ApprovalRequired(_) => Reason::ApprovalRequired,
            Self::ApprovalNotFound => Reason::ApprovalNotFound,
            Self::ApprovalOwn => Reason::ApprovalOwn,
            Self::ApprovalState(_) => Reason::ApprovalState,
            Self::KeyNotFound => Reason::KeyNotFound,
            Self::KeyState(_) => Reason::KeyState,
            Self::KeyInUse { .. } => Reason::KeyInUse,
            Self::WrappingKeyNotFound => Reason::WrappingKeyNotFound,
            Self::KeyNotExportable => Reason::KeyNotExportable,
            Self::RootUnavailable => Reason::RootUnavailable,
            Self::RootRolling => Reason::RootRolling,
            Self::RecipientNotFound => Reason::RecipientNotFound,
            Self::RecipientNeeded => Reason::RecipientNeeded,
            Self::QuotaExceeded { .. } => Reason::QuotaExceeded,
            Self::Overloaded => Reason::Overloaded,
            Self::AuditUnavailable => Reason::AuditUnavailable,
            Self::StorageFull => Reason::StorageFull,
            Self::Integrity => Reason::IntegrityFailure,
            Self::Contended | Self::Unavailable => Reason::Unavailable,
            Self::Internal => Reason::Internal,
        }
    }

    /// Whether the caller was not allowed, rather than unlucky.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::TenantNotFound
                | Self::SessionNotFound
                | Self::PermissionDenied(_)
                | Self::ViewNotPermitted
                | Self::ApprovalNotFound
                | Self::ApprovalOwn
        )
    }
}
