//! Why a command failed, and what the process returns for it.
//!
//! Each failure is printed as `error: what: why` and a `hint:` line that says what to do. Neither ever holds a token or
//! a value.

mod hint;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::ArgumentError;
use super::bench::BenchError;
use super::profile::ProfileError;
use crate::client::{ClientError, Code, ErrorReason, JobKind, Origin};
use crate::model::NameError;

pub use hint::hint_of;
use hint::{in_use_hint, job_failures_hint, job_works_hint};

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

/// What the failures of a job are counted by.
const fn counted_by(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Rewrap | JobKind::Reencrypt => "session(s)",
        JobKind::Scrub => "record(s)",
    }
}
