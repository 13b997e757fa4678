//! The one crossing point from a use case's error to a status.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::parse::uuid_text;
use super::status::{Draft, invalid_field, status};
use crate::proto::v1::ErrorReason;
use crate::service::{Asked, Error, Failure, Receipt, rfc3339};

/// The metadata key of the log that an answer is recorded in.
pub const AUDIT_LOG_HEADER: &str = "strongroom-audit-log";
/// The metadata key of the sequence number of the event that records an answer.
pub const AUDIT_SEQUENCE_HEADER: &str = "strongroom-audit-seq";

/// What a caller is told to wait when the server's queue is full: some hundred commits.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The status of a use case that was not carried out.
pub(super) fn refusal(failure: &Failure) -> Status {
    let mut refusal = draft(&failure.error).build();
    if let Some(receipt) = failure.receipt {
        stamp(refusal.metadata_mut(), receipt);
    }
    refusal
}

/// Says in the metadata where a call is on record.
pub(super) fn stamp(metadata: &mut tonic::metadata::MetadataMap, receipt: Receipt) {
    if let Ok(log) = MetadataValue::try_from(receipt.log.to_string()) {
        metadata.insert(AUDIT_LOG_HEADER, log);
    }
    metadata.insert(AUDIT_SEQUENCE_HEADER, MetadataValue::from(receipt.sequence));
}

fn draft(error: &Error) -> Draft {
    let begin = |code, reason| status(code, reason, error.to_string());
    match error {
        Error::Invalid { field, problem } => invalid_field(*field, problem.to_string()),
        Error::TenantNotFound => begin(Code::NotFound, ErrorReason::TenantNotFound),
        Error::TenantSuspended | Error::TenantDestroyScheduled => {
            begin(Code::FailedPrecondition, ErrorReason::TenantSuspended)
        }
        Error::TenantState(state) => {
            begin(Code::FailedPrecondition, ErrorReason::TenantState).metadata("state", state.name())
        }
        Error::TenantInUse { found } => {
            begin(Code::FailedPrecondition, ErrorReason::TenantInUse).metadata("sessions", found.to_string())
        }
        Error::SessionNotFound => begin(Code::NotFound, ErrorReason::SessionNotFound),
        Error::SessionExpired { at } => {
            begin(Code::FailedPrecondition, ErrorReason::SessionExpired).metadata("expire_time", rfc3339(*at))
        }
        Error::EntryNotFound => begin(Code::NotFound, ErrorReason::EntryNotFound),
        Error::RevisionMismatch { current } => begin(Code::Aborted, ErrorReason::RevisionMismatch)
            .metadata("current_revision", current.map_or(0, |revision| revision.get()).to_string()),
        Error::RevisionBehind { found } => begin(Code::FailedPrecondition, ErrorReason::RevisionBehind)
            .metadata("current_revision", found.get().to_string()),
        Error::RedactionRejected(_) => begin(Code::InvalidArgument, ErrorReason::RedactionRejected),
        Error::AlreadyExists => begin(Code::AlreadyExists, ErrorReason::AlreadyExists),
        Error::EventNotFound => begin(Code::NotFound, ErrorReason::EventNotFound),
        Error::LastEventMismatch => begin(Code::Aborted, ErrorReason::LastEventMismatch),
        Error::TokenNotFound => begin(Code::NotFound, ErrorReason::TokenNotFound),
        Error::RequestIdReused => begin(Code::InvalidArgument, ErrorReason::RequestIdReused),
        Error::PermissionDenied(scope) => {
            begin(Code::PermissionDenied, ErrorReason::PermissionDenied).metadata("scope", scope.name())
        }
        Error::ViewNotPermitted => begin(Code::PermissionDenied, ErrorReason::ViewNotPermitted),
        Error::SensitivePurged => begin(Code::FailedPrecondition, ErrorReason::SensitivePurged),
        Error::KeyDisabled => begin(Code::FailedPrecondition, ErrorReason::KeyDisabled),
        Error::KeyDestroyed => begin(Code::FailedPrecondition, ErrorReason::KeyDestroyed),
        Error::JobNotFound => begin(Code::NotFound, ErrorReason::JobNotFound),
        Error::ApprovalRequired(asked) => {
            ask(begin(Code::FailedPrecondition, ErrorReason::ApprovalRequired), asked)
        }
        Error::ApprovalNotFound => begin(Code::NotFound, ErrorReason::ApprovalNotFound),
        Error::ApprovalOwn => begin(Code::PermissionDenied, ErrorReason::ApprovalOwn),
        Error::ApprovalState(state) => {
            begin(Code::FailedPrecondition, ErrorReason::ApprovalState).metadata("state", state.name())
        }
        Error::KeyNotFound => begin(Code::NotFound, ErrorReason::KeyNotFound),
        Error::KeyState(state) => {
            begin(Code::FailedPrecondition, ErrorReason::KeyState).metadata("state", state.name())
        }
        Error::WrappingKeyNotFound => begin(Code::NotFound, ErrorReason::WrappingKeyNotFound),
        Error::KeyNotExportable => begin(Code::FailedPrecondition, ErrorReason::KeyNotExportable),
        Error::KeyInUse { found } => {
            begin(Code::FailedPrecondition, ErrorReason::KeyInUse).metadata("sessions", found.to_string())
        }
        Error::RootUnavailable => begin(Code::Unavailable, ErrorReason::RootUnavailable),
        Error::RootRolling => begin(Code::FailedPrecondition, ErrorReason::RootRolling),
        Error::RecipientNotFound => begin(Code::NotFound, ErrorReason::RecipientNotFound),
        Error::RecipientNeeded => begin(Code::FailedPrecondition, ErrorReason::RecipientNeeded),
        Error::QuotaExceeded { max, .. } => {
            begin(Code::ResourceExhausted, ErrorReason::QuotaExceeded).metadata("limit", max.to_string())
        }
        Error::Overloaded => begin(Code::ResourceExhausted, ErrorReason::Overloaded).retry_after(RETRY_AFTER),
        Error::AuditUnavailable => begin(Code::Unavailable, ErrorReason::AuditUnavailable),
        Error::StorageFull => begin(Code::ResourceExhausted, ErrorReason::StorageFull),
        Error::Integrity => begin(Code::DataLoss, ErrorReason::IntegrityFailure),
        Error::Contended => begin(Code::Unavailable, ErrorReason::Unavailable).retry_after(RETRY_AFTER),
        Error::Unavailable => begin(Code::Unavailable, ErrorReason::Unavailable),
        Error::Internal => begin(Code::Internal, ErrorReason::Internal),
    }
}

/// Says what somebody else must approve.
fn ask(draft: Draft, asked: &Asked) -> Draft {
    let scopes: Vec<_> = asked.what.scopes().iter().map(|scope| scope.name()).collect();
    draft
        .metadata("approval_id", uuid_text(asked.id))
        .metadata("description", asked.what.to_string())
        .metadata("expire_time", rfc3339(asked.expires))
        .metadata("scopes", scopes.join(","))
}
