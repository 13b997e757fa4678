//! Why a command failed, and what the process returns for it.
//!
//! Each failure is printed as `error: what: why` and a `hint:` line that says what to do. Neither ever holds a token or
//! a value.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::ArgumentError;
use super::bench::BenchError;
use super::profile::ProfileError;
use crate::client::{ClientError, Code, ErrorReason, JobKind, Origin};
use crate::model::NameError;

/// What the process returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Success = 0,
    /// The server refused, or the work failed.
    Failed = 1,
    /// The command line or the profile is wrong; nothing was sent.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The server cannot be reached or does not answer.
    Unreachable = 4,
    /// Stored bytes do not open.
    Tampering = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The profile, or a file that it names, is wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A name breaks its bound.
    #[error("the {what} {source}")]
    Name {
        /// What it names.
        what: &'static str,
        /// The bound.
        source: NameError,
    },
    /// An argument is not what it should be.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// Two arguments do not go together, or one is missing.
    #[error("{0}")]
    Combination(&'static str),
    /// What should be sent is too large.
    #[error("{what} is larger than {most} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// There is too much of something.
    #[error("there are more than {most} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be {verb}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written` or `created`.
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read key material.
    #[error("{} has mode {mode:04o}: others can read the key material in it", path.display())]
    MaterialExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold a key.
    #[error("{} does not hold {bytes} bytes, nor their base64 or hexadecimal digits", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// How many it should hold.
        bytes: usize,
    },
    /// The server refused, or there was no answer.
    #[error("cannot {doing}: {source}")]
    Call {
        /// What was being done, as a verb with its object.
        doing: &'static str,
        /// What came back.
        source: ClientError,
    },
    /// Sessions would be lost that nobody said may be.
    #[error(
        "nothing was done: the number of sessions that would be lost with version {version} is {sessions}"
    )]
    KeyInUse {
        /// The version of the key.
        version: u32,
        /// How many it wraps.
        sessions: u64,
    },
    /// The same of a tenant.
    #[error(
        "nothing was done: the number of sessions that would be lost with the tenant {tenant} is {sessions}"
    )]
    TenantInUse {
        /// The tenant.
        tenant: String,
        /// How many it has.
        sessions: u64,
    },
    /// The server has no token of that name.
    #[error("there is no such token")]
    NoSuchToken,
    /// What was said to prove something does not.
    #[error("{what} is not to be believed: {why}")]
    Evidence {
        /// What it is.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// An exported log is not as it was signed.
    #[error("the log is not as it was signed: {place}")]
    Tampered {
        /// The first place that is not.
        place: String,
    },
    /// A log does not go on from an earlier checkpoint.
    #[error("the log was rewritten: its first {events} events are not those of the earlier checkpoint")]
    Rewritten {
        /// The size of the earlier checkpoint.
        events: u64,
    },
    /// A job of this kind works already.
    #[error("nothing was done: a {} of the tenant {tenant} works already", kind.name())]
    JobWorks {
        /// What it does.
        kind: JobKind,
        /// The tenant.
        tenant: String,
    },
    /// A job met what does not open.
    #[error("the {} met {failed} {} that did not open", kind.name(), counted_by(*kind))]
    JobFailures {
        /// What it does.
        kind: JobKind,
        /// How many.
        failed: u64,
    },
    /// A version is not to be destroyed.
    #[error("version {version} is neither destroyed nor to be destroyed")]
    NoReceipt {
        /// The version of the key.
        version: u32,
    },
    /// No configured provider unwraps the root key.
    #[error("no configured provider unwraps the root key of every epoch")]
    RootUnopened,
    /// Keys under the root key do not open.
    #[error("the keys in {damaged} rows do not open")]
    RootDamaged {
        /// How many rows.
        damaged: u64,
    },
    /// A file holds no recovery key.
    #[error("{} does not hold the private half of a recovery key", .0.display())]
    NoRecoveryKey(PathBuf),
    /// The system has no randomness.
    #[error("the system's random number generator failed")]
    NoEntropy,
    /// A destructive command was not confirmed.
    #[error("nothing was done: the name that was typed is not {name}")]
    NotConfirmed {
        /// What had to be typed.
        name: String,
    },
    /// A destructive command needs somebody to confirm it.
    #[error("nothing was done: this needs a confirmation, and standard input is not a terminal")]
    NobodyToAsk,
    /// The server sent something that makes no sense.
    #[error("the server's answer has no valid {0}")]
    Malformed(&'static str),
    /// Standard output or input broke.
    #[error("a standard stream broke: {0}")]
    Output(#[from] io::Error),
    /// The asynchronous runtime or a thread could not be started.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The load generator failed.
    #[error(transparent)]
    Bench(#[from] BenchError),
}

impl Failure {
    /// The failure of a call, for `map_err`.
    pub fn call(doing: &'static str) -> impl Fn(ClientError) -> Self {
        move |source| Self::Call { doing, source }
    }

    /// The failure of a name, for `map_err`.
    pub fn name(what: &'static str) -> impl Fn(NameError) -> Self {
        move |source| Self::Name { what, source }
    }

    /// Evidence that proves nothing, for `map_err`.
    pub fn evidence<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Self {
        move |why| Self::Evidence { what, why: why.to_string() }
    }

    /// The failure of a file, for `map_err`.
    pub fn file(path: &std::path::Path, verb: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), verb, source }
    }

    /// What the process returns.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Profile(_) | Self::Name { .. } | Self::Argument(_) | Self::Combination(_) => Exit::Usage,
            Self::Call { source, .. } => exit_of(source),
            Self::NoSuchToken => Exit::NotFound,
            Self::Bench(error) => error.exit(),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::JobFailures { kind: JobKind::Scrub, .. }
            | Self::RootDamaged { .. }
            | Self::Evidence { .. }
            | Self::Tampered { .. }
            | Self::Rewritten { .. } => Exit::Tampering,
            Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::File { .. }
            | Self::KeyInUse { .. }
            | Self::TenantInUse { .. }
            | Self::JobWorks { .. }
            | Self::NoReceipt { .. }
            | Self::RootUnopened
            | Self::NoRecoveryKey(_)
            | Self::NoEntropy
            | Self::JobFailures { kind: JobKind::Rewrap | JobKind::Reencrypt, .. }
            | Self::NotConfirmed { .. }
            | Self::NobodyToAsk
            | Self::Malformed(_)
            | Self::Output(_)
            | Self::MaterialExposed { .. }
            | Self::KeyFile { .. }
            | Self::Start(_) => Exit::Failed,
        }
    }

    /// Whether there is nobody left to read an error: the reader of a pipe went away.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Profile(error) => Some(error.hint()),
            Self::Call { source, .. } => hint_of(source),
            Self::Bench(error) => error.hint(),
            Self::KeyInUse { sessions, .. } => Some(in_use_hint(&sessions.to_string(), "rewrap")),
            Self::TenantInUse { sessions, .. } => Some(in_use_hint(&sessions.to_string(), "delete")),
            Self::JobWorks { kind, tenant } => Some(job_works_hint(*kind, tenant)),
            Self::JobFailures { kind, .. } => Some(job_failures_hint(*kind).to_owned()),
            Self::RootDamaged { .. } | Self::Tampered { .. } | Self::Rewritten { .. } => {
                Some("stop, keep the files as they are, and see the server's access log".to_owned())
            }
            Self::Evidence { .. } => Some("is the key that of this log?".to_owned()),
            Self::NoSuchToken => Some("'strongroom token list' shows the tokens".to_owned()),
            Self::RootUnopened => Some(
                "do not restart the server before 'strongroom root migrate' or a new recovery".to_owned(),
            ),
            Self::NobodyToAsk => Some("give --yes to go ahead without being asked".to_owned()),
            Self::NotConfirmed { .. } => Some("run it again and type the name as it is shown".to_owned()),
            Self::Combination(_) | Self::Argument(_) | Self::Name { .. } => {
                Some("add --help to see what the command takes".to_owned())
            }
            Self::TooLarge { .. } | Self::TooMany { .. } => {
                Some("split it into several entries or events".to_owned())
            }
            Self::MaterialExposed { .. } => Some(
                "give it mode 600, and take the material for known if others could have read it".to_owned(),
            ),
            Self::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                Some("name a file that does not exist yet; this one is left as it is".to_owned())
            }
            Self::File { .. }
            | Self::NoReceipt { .. }
            | Self::KeyFile { .. }
            | Self::NoRecoveryKey(_)
            | Self::NoEntropy
            | Self::Malformed(_)
            | Self::Output(_)
            | Self::Start(_) => None,
        }
    }
}

/// What the process returns for an error of the client.
#[must_use]
pub fn exit_of(error: &ClientError) -> Exit {
    if error.reason() == ErrorReason::IntegrityFailure || error.code() == Code::DataLoss {
        return Exit::Tampering;
    }
    let Some(call) = error.call() else {
        let answered = matches!(error, ClientError::Malformed { .. } | ClientError::Gap { .. });
        return if answered { Exit::Failed } else { Exit::Usage };
    };
    let answered = call.origin() == Origin::Server;
    let serving = call.code() != Code::Unavailable || error.reason() == ErrorReason::AuditUnavailable;
    match (answered && serving, call.code()) {
        (false, _) => Exit::Unreachable,
        (true, Code::NotFound) => Exit::NotFound,
        (true, _) => Exit::Failed,
    }
}

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
fn in_use_hint(sessions: &str, verb: &str) -> String {
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

/// What the failures of a job are counted by.
const fn counted_by(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Rewrap | JobKind::Reencrypt => "session(s)",
        JobKind::Scrub => "record(s)",
    }
}

fn job_works_hint(kind: JobKind, tenant: &str) -> String {
    let (kind, tenant) = (kind.name(), format!("--tenant {tenant}"));
    format!(
        "'strongroom job watch {kind} {tenant}' shows how far it is, 'job cancel {kind} {tenant}' ends it"
    )
}

/// What to do when a job met what does not open.
const fn job_failures_hint(kind: JobKind) -> &'static str {
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
