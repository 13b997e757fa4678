//! Why an operation was denied or failed: a closed list, each with its gRPC status code.

/// Declares the reasons: variant, name on the wire, gRPC status code.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $code:literal;)*) => {
        /// Why an operation was denied or failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name, as in `google.rpc.ErrorInfo.reason`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The number of the gRPC status code that a caller gets.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            /// What it means, for the reference.
            #[cfg(test)]
            pub(crate) const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)*
                }
            }
        }
    };
}

reasons! {
    /// A field is missing, malformed or out of its bounds.
    InvalidField = "INVALID_FIELD", 3;
    /// No such tenant.
    TenantNotFound = "TENANT_NOT_FOUND", 5;
    /// No such session for this caller.
    SessionNotFound = "SESSION_NOT_FOUND", 5;
    /// The session has expired.
    SessionExpired = "SESSION_EXPIRED", 9;
    /// No such entry.
    EntryNotFound = "ENTRY_NOT_FOUND", 5;
    /// The expectation did not hold.
    RevisionMismatch = "REVISION_MISMATCH", 10;
    /// The name is taken.
    AlreadyExists = "ALREADY_EXISTS", 6;
    /// The tenant is suspended.
    TenantSuspended = "TENANT_SUSPENDED", 9;
    /// The key version is disabled.
    KeyDisabled = "KEY_DISABLED", 9;
    /// The key was destroyed.
    KeyDestroyed = "KEY_DESTROYED", 9;
    /// A stored quantity is at its limit.
    QuotaExceeded = "QUOTA_EXCEEDED", 8;
    /// Too many requests.
    RateLimited = "RATE_LIMITED", 8;
    /// The server's queue was full.
    Overloaded = "OVERLOADED", 8;
    /// The access log could not be written.
    AuditUnavailable = "AUDIT_UNAVAILABLE", 14;
    /// The volume is full.
    StorageFull = "STORAGE_FULL", 8;
    /// Stored bytes do not open.
    IntegrityFailure = "INTEGRITY_FAILURE", 15;
    /// The redaction policy refused the value.
    RedactionRejected = "REDACTION_REJECTED", 3;
    /// The caller may not have this view.
    ViewNotPermitted = "VIEW_NOT_PERMITTED", 7;
    /// The credentials do not allow the action.
    PermissionDenied = "PERMISSION_DENIED", 7;
    /// There are no valid credentials.
    Unauthenticated = "UNAUTHENTICATED", 16;
    /// The request id was used for another request.
    RequestIdReused = "REQUEST_ID_REUSED", 3;
    /// The stored revision is below the one known to exist.
    RevisionBehind = "REVISION_BEHIND", 9;
    /// No such event in the stream.
    EventNotFound = "EVENT_NOT_FOUND", 5;
    /// The stream's last event is not the one expected.
    LastEventMismatch = "LAST_EVENT_MISMATCH", 10;
    /// The deadline had passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", 4;
    /// The server was shutting down, or the store failed.
    Unavailable = "UNAVAILABLE", 14;
    /// No such token.
    TokenNotFound = "TOKEN_NOT_FOUND", 5;
    /// The sensitive part was purged.
    SensitivePurged = "SENSITIVE_PURGED", 9;
    /// A defect of the server.
    Internal = "INTERNAL", 13;
    /// The key has no such version.
    KeyNotFound = "KEY_NOT_FOUND", 5;
    /// Not for a version in its state.
    KeyState = "KEY_STATE", 9;
    /// Another number of sessions than expected would die with the version.
    KeyInUse = "KEY_IN_USE", 9;
    /// No job of this kind.
    JobNotFound = "JOB_NOT_FOUND", 5;
    /// No such wrapping key: never made, used or expired.
    WrappingKeyNotFound = "WRAPPING_KEY_NOT_FOUND", 5;
    /// The tenant's keys are not exportable.
    KeyNotExportable = "KEY_NOT_EXPORTABLE", 9;
    /// A second person must approve it first.
    ApprovalRequired = "APPROVAL_REQUIRED", 9;
    /// No such approval for this caller.
    ApprovalNotFound = "APPROVAL_NOT_FOUND", 5;
    /// Who asked cannot approve.
    ApprovalOwn = "APPROVAL_OWN", 7;
    /// Not for an approval in its state.
    ApprovalState = "APPROVAL_STATE", 9;
    /// A root provider could not be asked.
    RootUnavailable = "ROOT_UNAVAILABLE", 14;
    /// An older epoch of the root key is still in use.
    RootRolling = "ROOT_ROLLING", 9;
    /// The root key is not wrapped for that key.
    RecipientNotFound = "RECIPIENT_NOT_FOUND", 5;
    /// Nobody else could open the store.
    RecipientNeeded = "RECIPIENT_NEEDED", 9;
    /// Not for a tenant in its state.
    TenantState = "TENANT_STATE", 9;
    /// Another number of sessions than expected would die with the tenant.
    TenantInUse = "TENANT_IN_USE", 9;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list in the protocol's comments is the contract: same names, same status codes.
    #[test]
    fn reasons_are_those_of_the_protocol_with_its_status_codes() {
        const CODES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        let proto = include_str!("../../proto/strongroom/v1/common.proto");
        let list = proto.split_once("enum ErrorReason {").unwrap().1.split_once('}').unwrap().0;
        let mut found = Vec::new();
        let mut code = "";
        for line in list.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("// ") {
                code = comment.split_once(':').map_or(code, |(code, _)| code);
            } else if let Some(name) = line.strip_prefix("ERROR_REASON_") {
                found.push((name.split_once(" = ").unwrap().0, code));
            }
        }
        let ours: Vec<_> =
            Reason::ALL.iter().map(|reason| (reason.name(), CODES[usize::from(reason.code())])).collect();
        assert_eq!(found[1..], ours[..]);
    }
}
