//! One event of an access log: a closed set of typed fields.

use super::keys::Pseudonym;
use super::{Operation, Reason};
use crate::crypto::KeyId;
use crate::model::{KekVersion, Revision, Scope, TenantId, View};

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not allowed.
    Deny,
    /// It was allowed and could not be done.
    Fail,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Deny, Self::Fail];

    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Deny => "deny",
            Self::Fail => "fail",
        }
    }

    /// The outcome of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// When in an operation the event was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Before it acts. Key operations write such an event first.
    Intent,
    /// With its effect. Left out of the line.
    Done,
}

/// On whose credentials something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The holder of a bearer token, by the pseudonym of the token's name.
    Token(Pseudonym),
    /// The server itself.
    System,
}

/// What was touched within the session, or within the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resource {
    /// Its name: of an entry, a stream, a token; the operation says which.
    pub name: Option<Pseudonym>,
    /// Its revision after the operation, or the one that was read.
    pub revision: Option<Revision>,
    /// How many things the operation touched, of a list or an append; 0 when that is not asked.
    pub items: u64,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// The address.
    pub ip: Pseudonym,
    /// The version of TLS, when the connection had it.
    pub tls: Option<TlsVersion>,
}

/// What was cut out of the values that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Redaction {
    /// The version of the policy.
    pub policy: u32,
    /// How many pieces.
    pub pieces: u32,
}

impl Redaction {
    /// Both together, of one policy.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { policy: self.policy, pieces: self.pieces.saturating_add(other.pieces) }
    }
}

/// One event. All fields are enums, numbers, hashes and pseudonyms: there is no place for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What was done (`typ`).
    pub operation: Operation,
    /// When in the operation (`ph`).
    pub phase: Phase,
    /// What became of it (`out`).
    pub outcome: Outcome,
    /// Why it was denied or failed (`rsn`, and `code` by it).
    pub reason: Option<Reason>,
    /// The tenant that it is about, when that is not the log's own (`ten`).
    pub tenant: Option<TenantId>,
    /// On whose credentials (`act`).
    pub actor: Option<Actor>,
    /// The owner that was presented (`own`).
    pub owner: Option<Pseudonym>,
    /// The session (`sid`).
    pub session: Option<Pseudonym>,
    /// What was touched (`res`).
    pub resource: Option<Resource>,
    /// Bytes of values that came in (`nb.in`).
    pub bytes_in: u64,
    /// Bytes of values that went out (`nb.out`).
    pub bytes_out: u64,
    /// SHA-256 of the stored bytes, or of the public key for which key material is wrapped (`ch`).
    pub content_hash: Option<[u8; 32]>,
    /// The session key that was used (`kid.dek`).
    pub dek: Option<KeyId>,
    /// The version of the tenant's key that was used (`kid.kek`).
    pub kek: Option<KekVersion>,
    /// The permission on which it was allowed, or for want of which it was denied (`pol.authz`).
    pub scope: Option<Scope>,
    /// The view that was asked for (`pol.view`).
    pub view: Option<View>,
    /// The approval that it is about, on which it was done, or for want of which it was not (`pol.apr`).
    pub approval: Option<[u8; 16]>,
    /// What was cut out of the values (`pol.red` and `red`).
    pub redaction: Option<Redaction>,
    /// Where the request came from (`net`).
    pub source: Option<Source>,
    /// The W3C trace id (`tr`).
    pub trace: Option<[u8; 16]>,
    /// The caller's request id (`rid`).
    pub request: Option<[u8; 16]>,
    /// How long it took until it was handed to the committer, in microseconds (`us`).
    pub micros: Option<u64>,
    /// How many alike events this one stands for (`n`, left out when 1).
    pub count: u32,
}

impl Event {
    /// An event of `operation` that was done, with nothing else said.
    #[must_use]
    pub const fn new(operation: Operation) -> Self {
        Self {
            operation,
            phase: Phase::Done,
            outcome: Outcome::Ok,
            reason: None,
            tenant: None,
            actor: None,
            owner: None,
            session: None,
            resource: None,
            bytes_in: 0,
            bytes_out: 0,
            content_hash: None,
            dek: None,
            kek: None,
            scope: None,
            view: None,
            approval: None,
            redaction: None,
            source: None,
            trace: None,
            request: None,
            micros: None,
            count: 1,
        }
    }

    /// The same event, denied for `reason`.
    #[must_use]
    pub const fn denied(self, reason: Reason) -> Self {
        Self { outcome: Outcome::Deny, reason: Some(reason), ..self }
    }

    /// The same event, failed for `reason`.
    #[must_use]
    pub const fn failed(self, reason: Reason) -> Self {
        Self { outcome: Outcome::Fail, reason: Some(reason), ..self }
    }
}
