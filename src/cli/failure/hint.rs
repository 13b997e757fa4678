//! What to do about a failure: the `hint:` line.

use crate::client::{ClientError, ErrorReason, JobKind, Origin};

/// What to do about an error of the client, where that is known.
#[must_use]
pub fn hint_of(error: &ClientError) -> Option<String> {
    if let Some(hint) = hint_of_reason(error) {
        return Some(hint);
    }
    let hint = match (error, error.call().map(|call| call.origin())) {
        (ClientError::NoCaFile, _) => "set ca_file in the profile",
        (ClientError::NoEndpoint { .. }, _) => "set it in the profile",
        (_, Some(Origin::NotConnected)) => {
            "is the server running, and are endpoint, ca_file and server_name right? strongroomd dev starts one"
        }
        (_, Some(Origin::Deadline)) => "give it longer with --timeout; a mutation may still have happened",
        (_, Some(Origin::Broken)) => "a mutation may still have happened; read before you repeat it",
        (_, Some(Origin::NotSent)) => "run it again",
        (_, Some(Origin::Server) | None) => return None,
    };
    Some(hint.to_owned())
}

/// What to do when sessions would die with a key or a tenant. What saves them is `verb`.
pub(super) fn in_use_hint(sessions: &str, verb: &str) -> String {
    match sessions {
        "0" => "no session would be lost now: leave out --force and --sessions".to_owned(),
        "1" => {
            format!("1 session would be lost: {verb} it first, or accept that with --force --sessions 1")
        }
        _ => format!(
            "{sessions} sessions would be lost: {verb} them first, or accept that with --force --sessions {sessions}"
        ),
    }
}

/// What to do while another job of the kind works.
pub(super) fn job_works_hint(kind: JobKind, tenant: &str) -> String {
    let (kind, tenant) = (kind.name(), format!("--tenant {tenant}"));
    format!(
        "'strongroom job watch {kind} {tenant}' shows how far it is, 'job cancel {kind} {tenant}' ends it"
    )
}

/// What to do when a job met what does not open.
pub(super) const fn job_failures_hint(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Rewrap => {
            "enable their version if 'strongroom key list' shows it as disabled, and rewrap again; else 'strongroom job start \
             scrub' counts what does not open"
        }
        JobKind::Reencrypt => {
            "enable their version if 'strongroom key list' shows it as disabled, and start the job again; else 'strongroom job \
             start scrub' counts what does not open"
        }
        JobKind::Scrub => {
            "stop, keep the files as they are, and tell the operator: stored bytes were changed"
        }
    }
}

/// What to do when a version is not in the state that it must be in.
fn key_state_hint(error: &ClientError) -> &'static str {
    match error.detail("state") {
        Some("primary") => "promote another version first; 'strongroom key rotate' makes one and promotes it",
        Some("destroy-scheduled") => "'strongroom key cancel-destroy' takes the destruction back",
        Some("disabled") => "'strongroom key enable' lets it be used again",
        Some("destroyed") => "this cannot be undone; what the key protected is gone",
        Some(_) | None => "'strongroom key list' shows the versions and their states",
    }
}

/// What to do when a tenant is not in the state that it must be in.
fn tenant_state_hint(error: &ClientError) -> &'static str {
    match error.detail("state") {
        Some("active") => "'strongroom tenant suspend' refuses all use of it first, so that nothing is added",
        Some("destroy-scheduled") => "'strongroom tenant undestroy' takes the destruction back",
        Some(_) | None => "'strongroom tenant list' shows the tenants and their states",
    }
}

/// What to do about a refusal, by the reason that the server gave.
fn hint_of_reason(error: &ClientError) -> Option<String> {
    use ErrorReason as R;
    let hint = match error.reason() {
        R::TenantNotFound => "'strongroom tenant list' shows the tenants that your token may know of",
        R::SessionNotFound => {
            "check the handle, --tenant and --owner; a session of another owner looks like none"
        }
        R::SessionExpired => "create a new session; an expired one does not come back",
        R::EntryNotFound => "'strongroom entry list' shows the entries of the session",
        R::EventNotFound => "'strongroom event tail' without --after shows the stream from its first event",
        R::TokenNotFound => "'strongroom token list' shows the tokens",
        R::RevisionMismatch => return Some(mismatch_hint(error)),
        R::LastEventMismatch => "read the stream's new events first, then append after the last one",
        R::AlreadyExists => "choose another name, or use what exists",
        R::TenantSuspended => "'strongroom tenant resume' ends the suspension",
        R::KeyDisabled => "'strongroom key list' shows the state of each version",
        R::KeyNotFound => "'strongroom key list' shows the versions and their states",
        R::KeyState => key_state_hint(error),
        R::ApprovalRequired => return Some(approval_hint(error)),
        R::ApprovalNotFound => {
            "'strongroom approval list' shows those that you asked for or may decide about"
        }
        R::ApprovalOwn => "somebody else must approve it, with a token of another name",
        R::ApprovalState => {
            "'strongroom approval list' shows how far each is; a command that is run again asks anew"
        }
        R::WrappingKeyNotFound => {
            "a wrapping key is for one import and for 3 days: 'strongroom key wrapping-key' makes another"
        }
        R::KeyNotExportable => {
            "only a tenant that was created with --exportable lets its keys out, and that cannot be changed"
        }
        R::RootUnavailable => "the server's log says what the root provider answered; nothing was changed",
        R::RootRolling => "'strongroom root status' shows how many rows are left; it goes on by itself",
        R::RecipientNotFound => "'strongroom root status' shows the recipients and their key ids",
        R::RecipientNeeded => {
            "wrap the root key for another provider first: [next_root] and 'strongroom root migrate'"
        }
        R::KeyInUse => return error.detail("sessions").map(|sessions| in_use_hint(sessions, "rewrap")),
        R::TenantInUse => return error.detail("sessions").map(|sessions| in_use_hint(sessions, "delete")),
        R::TenantState => tenant_state_hint(error),
        R::JobNotFound => "'strongroom job list' shows the jobs",
        R::KeyDestroyed | R::SensitivePurged => "this cannot be undone; what the key protected is gone",
        R::QuotaExceeded => "delete what is no longer needed, or ask the operator for more",
        R::RateLimited | R::Overloaded => return Some(later_hint(error)),
        R::AuditUnavailable | R::StorageFull => {
            "the operator must see to the server's disk; nothing was done"
        }
        R::IntegrityFailure => {
            "stop, keep the files as they are, and tell the operator: stored bytes were changed"
        }
        R::ViewNotPermitted => {
            "the full view needs a token with the scope read-full; --view redacted does not"
        }
        R::PermissionDenied => {
            "the token lacks the scope or the tenant; name another token with --token-file"
        }
        R::Unauthenticated => "the token is unknown, expired or revoked; name a valid one with --token-file",
        R::RevisionBehind => "a replica lags, or the store was rolled back; ask the operator if it stays so",
        R::Unavailable => "the server is starting or stopping; run it again in a moment",
        R::DeadlineExceeded => "give it longer with --timeout",
        R::Internal => "a defect of the server; its log tells more",
        R::Unspecified | R::InvalidField | R::RedactionRejected | R::RequestIdReused => return None,
    };
    Some(hint.to_owned())
}

/// Who must do what now, so that a command goes ahead.
fn approval_hint(error: &ClientError) -> String {
    let [id, until] = ["approval_id", "expire_time"].map(|name| error.detail(name).unwrap_or("?"));
    format!(
        "it was asked for: somebody else runs 'strongroom approval approve {id}', then you run the same command again, all until \
         {until}"
    )
}

fn mismatch_hint(error: &ClientError) -> String {
    match error.current_revision() {
        Some(0) => "there is no such entry now; use --expect absent to create it".to_owned(),
        Some(revision) => format!("the entry is at revision {revision} now; read it again before you decide"),
        None => "read the entry again before you decide".to_owned(),
    }
}

fn later_hint(error: &ClientError) -> String {
    match error.retry_after() {
        Some(pause) => format!("nothing was done; come back in {}", humantime::format_duration(pause)),
        None => "nothing was done; come back later".to_owned(),
    }
}
