//! What can go wrong on the way to an answer, typed.
//!
//! A refusal by the server keeps everything that the server said: code, reason, broken fields, when to come back. Nothing
//! here ever holds a token or a value, so every error may be logged as it is.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::answer::AuditStamp;
use super::convert;
use crate::crypto::WrapError;
use crate::model::{NameError, Timestamp};
pub use crate::proto::v1::ErrorReason;

/// The domain of the reasons that this client knows.
const DOMAIN: &str = "strongroom.v1";

/// Why there is no client, or no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No endpoint was named for the listener that this call needs.
    #[error("no {listener} endpoint is configured")]
    NoEndpoint {
        /// `data` or `admin`.
        listener: &'static str,
    },
    /// An endpoint is not of the form `https://host:port`.
    #[error("{endpoint} is not an endpoint of the form https://host:port")]
    Endpoint {
        /// The endpoint as it was given.
        endpoint: String,
    },
    /// The server name is not a DNS name or an IP address.
    #[error("{name} is not a DNS name or an IP address")]
    ServerName {
        /// The name as it was given.
        name: String,
    },
    /// No file with CA certificates was named; system roots are never used.
    #[error("no CA file is configured")]
    NoCaFile,
    /// A file cannot be read.
    #[error("{path}: {kind}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// A file holds no usable CA certificate.
    #[error("{path}: no usable PEM certificate")]
    CaFile {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no token.
    #[error("{path}: not a token (one line of at most 8192 visible ASCII characters)")]
    TokenFile {
        /// The file.
        path: PathBuf,
    },
    /// A name breaks its bounds; the request was not sent.
    #[error("the {what} {source}")]
    Name {
        /// What it names.
        what: &'static str,
        /// The bound.
        source: NameError,
    },
    /// Key material cannot be wrapped; nothing was sent.
    #[error("the key material cannot be wrapped: {0}")]
    Wrap(#[from] WrapError),
    /// Key material is none: all of its bytes are the same; nothing was sent.
    #[error("the key material is no key: all of its bytes are the same")]
    WeakMaterial,
    /// The server's answer lacks something that it must have.
    #[error("the server's answer has no valid {what}")]
    Malformed {
        /// What is missing.
        what: &'static str,
    },
    /// Events of an access log were missed while the connection was down.
    #[error("events of the log {log} after {after} were missed: search the log for them")]
    Gap {
        /// The log.
        log: String,
        /// Sequence number of the last event that was not missed.
        after: u64,
    },
    /// The call did not succeed.
    #[error(transparent)]
    Call(#[from] Box<CallError>),
}

/// A call that the server refused, or that never got an answer.
#[derive(Clone)]
pub struct CallError {
    code: Code,
    reason: ErrorReason,
    message: String,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    details: HashMap<String, String>,
    origin: Origin,
    request_id: Option<Uuid>,
    audit: Option<AuditStamp>,
}

/// How far a call that failed had got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The server, or something in front of it, answered with this error.
    Server,
    /// No connection could be made; the request was not sent.
    NotConnected,
    /// The connection went away before the server took the request up: it was not sent, or the server said so.
    NotSent,
    /// The connection broke; whether the server did the work is not known.
    Broken,
    /// The client's own deadline passed; whether the server did the work is not known.
    Deadline,
}

/// One field of a request that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field in the request message.
    pub field: String,
    /// What is wrong with it; never its value.
    pub description: String,
}

impl ClientError {
    /// The gRPC code; that of the nearest meaning for errors that were found before anything was sent.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Call(call) => call.code,
            Self::Name { .. } | Self::Wrap(_) | Self::WeakMaterial => Code::InvalidArgument,
            Self::Malformed { .. } => Code::Internal,
            Self::Gap { .. } => Code::OutOfRange,
            Self::NoEndpoint { .. }
            | Self::Endpoint { .. }
            | Self::ServerName { .. }
            | Self::NoCaFile
            | Self::File { .. }
            | Self::CaFile { .. }
            | Self::TokenFile { .. } => Code::FailedPrecondition,
        }
    }

    /// The reason that the server gave; `Unspecified` when it gave none.
    #[must_use]
    pub fn reason(&self) -> ErrorReason {
        self.call().map_or(ErrorReason::Unspecified, |call| call.reason)
    }

    /// The refusal, when there was a call.
    #[must_use]
    pub fn call(&self) -> Option<&CallError> {
        match self {
            Self::Call(call) => Some(call),
            Self::NoEndpoint { .. }
            | Self::Endpoint { .. }
            | Self::ServerName { .. }
            | Self::NoCaFile
            | Self::File { .. }
            | Self::CaFile { .. }
            | Self::TokenFile { .. }
            | Self::Name { .. }
            | Self::Wrap(_)
            | Self::WeakMaterial
            | Self::Malformed { .. }
            | Self::Gap { .. } => None,
        }
    }

    /// Whether what was named does not exist, or not for this caller and owner.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// Whether the session has no such entry.
    #[must_use]
    pub fn is_entry_not_found(&self) -> bool {
        self.reason() == ErrorReason::EntryNotFound
    }

    /// Whether the session has expired; [`Self::expire_time`] says when.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.reason() == ErrorReason::SessionExpired
    }

    /// Whether `expect` did not hold; [`Self::current_revision`] says what was found.
    #[must_use]
    pub fn is_revision_mismatch(&self) -> bool {
        self.reason() == ErrorReason::RevisionMismatch
    }

    /// Whether the stream's last event was not the expected one.
    #[must_use]
    pub fn is_last_event_mismatch(&self) -> bool {
        self.reason() == ErrorReason::LastEventMismatch
    }

    /// Whether something of this name exists already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code() == Code::AlreadyExists
    }

    /// Whether the credentials were missing or not valid.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        self.code() == Code::Unauthenticated
    }

    /// Whether the credentials do not allow this.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.code() == Code::PermissionDenied
    }

    /// Whether the server could not be reached or cannot serve now.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.code() == Code::Unavailable
    }

    /// Whether the deadline passed.
    #[must_use]
    pub fn is_deadline_exceeded(&self) -> bool {
        self.code() == Code::DeadlineExceeded
    }

    /// The fields that the server refused.
    #[must_use]
    pub fn field_violations(&self) -> &[FieldViolation] {
        self.call().map_or(&[], |call| &call.violations)
    }

    /// How long the server asks to wait before coming back.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.call().and_then(|call| call.retry_after)
    }

    /// The revision that was found instead of the expected one; 0 means that the entry was absent.
    #[must_use]
    pub fn current_revision(&self) -> Option<u64> {
        self.detail("current_revision")?.parse().ok()
    }

    /// When the session expired.
    #[must_use]
    pub fn expire_time(&self) -> Option<Timestamp> {
        convert::parse_time(self.detail("expire_time")?)
    }

    /// One value of the metadata of `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.call()?.details.get(name).map(String::as_str)
    }
}

impl CallError {
    /// The gRPC code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The server's words, or the transport's.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How far the call had got.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// The id under which the call was made; for a mutation it is the idempotency key.
    #[must_use]
    pub const fn request_id(&self) -> Option<Uuid> {
        self.request_id
    }

    /// Where the refusal stands in the access log, if the server said so.
    #[must_use]
    pub const fn audit(&self) -> Option<&AuditStamp> {
        self.audit.as_ref()
    }

    /// Reads a status that a call ended with.
    pub(super) fn from_status(status: &Status, request_id: Option<Uuid>) -> Self {
        let origin = origin(status);
        let details = status.get_error_details();
        let known = details.error_info().filter(|found| found.domain == DOMAIN);
        Self {
            code: code(status, origin),
            reason: known.map_or(ErrorReason::Unspecified, |found| reason(&found.reason)),
            message: message(status, origin),
            violations: details.bad_request().map_or_else(Vec::new, violations),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            details: known.map(|found| found.metadata.clone()).unwrap_or_default(),
            origin,
            request_id,
            audit: AuditStamp::from_metadata(status.metadata()),
        }
    }

    /// The error of a call that its own deadline ended.
    pub(super) fn deadline(timeout: Duration, request_id: Option<Uuid>) -> Self {
        Self {
            code: Code::DeadlineExceeded,
            reason: ErrorReason::Unspecified,
            message: format!("no answer within {timeout:?}"),
            violations: Vec::new(),
            retry_after: None,
            details: HashMap::new(),
            origin: Origin::Deadline,
            request_id,
            audit: None,
        }
    }

    pub(super) const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallError")
            .field("code", &self.code)
            .field("reason", &self.reason)
            .field("message", &self.message)
            .field("origin", &self.origin)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.reason != ErrorReason::Unspecified {
            write!(f, " ({})", short(self.reason))?;
        }
        for violation in &self.violations {
            write!(f, "; {}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl Error for CallError {}

impl From<CallError> for ClientError {
    fn from(call: CallError) -> Self {
        Self::Call(Box::new(call))
    }
}

impl fmt::Debug for ErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(short(*self))
    }
}

/// The reason as it stands on the wire, without the prefix of the enum.
fn short(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

fn reason(name: &str) -> ErrorReason {
    ErrorReason::from_str_name(&format!("ERROR_REASON_{name}")).unwrap_or(ErrorReason::Unspecified)
}

fn violations(request: &tonic_types::BadRequest) -> Vec<FieldViolation> {
    let violation = |found: &tonic_types::FieldViolation| FieldViolation {
        field: found.field.clone(),
        description: found.description.clone(),
    };
    request.field_violations.iter().map(violation).collect()
}

/// A status that came over the wire has no source; one that the transport made wraps what happened to it.
fn origin(status: &Status) -> Origin {
    let mut cause = status.source();
    let mut origin = if cause.is_some() { Origin::Broken } else { Origin::Server };
    while let Some(error) = cause {
        if error.is::<tonic::TimeoutExpired>() {
            return Origin::Deadline;
        }
        if error.is::<tonic::ConnectError>() {
            return Origin::NotConnected;
        }
        let canceled = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if canceled || error.downcast_ref::<h2::Error>().is_some_and(untouched) {
            origin = Origin::NotSent;
        }
        cause = error.source();
    }
    origin
}

/// Whether HTTP/2 promises that the server did nothing (RFC 9113, section 8.7): the stream is above the last one that a
/// graceful GOAWAY names, or it was refused.
fn untouched(error: &h2::Error) -> bool {
    let farewell = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    farewell || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

fn code(status: &Status, origin: Origin) -> Code {
    match origin {
        Origin::Server => status.code(),
        Origin::Deadline => Code::DeadlineExceeded,
        Origin::NotConnected | Origin::NotSent | Origin::Broken => Code::Unavailable,
    }
}

fn message(status: &Status, origin: Origin) -> String {
    if origin == Origin::Server {
        return status.message().to_owned();
    }
    let mut text = match origin {
        Origin::NotConnected => "cannot connect".to_owned(),
        Origin::NotSent => "the connection closed before the request was taken up".to_owned(),
        Origin::Deadline => return "no answer before the deadline".to_owned(),
        Origin::Server | Origin::Broken => "the connection broke".to_owned(),
    };
    let mut deepest = status.source();
    while let Some(next) = deepest.and_then(Error::source) {
        deepest = Some(next);
    }
    if let Some(cause) = deepest {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

impl AuditStamp {
    pub(super) fn from_metadata(metadata: &MetadataMap) -> Option<Self> {
        let log = metadata.get("strongroom-audit-log")?.to_str().ok()?;
        let sequence = metadata.get("strongroom-audit-seq")?.to_str().ok()?.parse().ok()?;
        Some(Self { log: log.to_owned(), sequence })
    }
}
