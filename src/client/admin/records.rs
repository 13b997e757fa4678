//! What the control plane shows, as plain values.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::client::convert::{self, required_time};
use crate::client::error::ClientError;
use crate::model::{KekOrigin, KekState, Scope, TenantState, Timestamp};
use crate::proto::v1;

/// A tenant as the control plane shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its name.
    pub name: String,
    /// Never given twice. A UUID.
    pub uid: String,
    /// Whether its data may be used.
    pub state: TenantState,
    /// When it was created.
    pub create_time: Timestamp,
    /// Version of its primary key-encryption key; 0 when it is destroyed.
    pub primary_kek_version: u32,
    /// Name of its current access log.
    pub audit_log: String,
    /// When new primary versions are made by themselves, if they are.
    pub rotation: Option<Rotation>,
    /// When it will be destroyed, while that is scheduled, or was.
    pub destroy_time: Option<Timestamp>,
    /// Whether versions of its key can be exported.
    pub exportable: bool,
}

/// When new primary versions of a key are made by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How often, counted from the last one, whoever made it.
    pub period: Duration,
    /// When next.
    pub next: Timestamp,
}

/// One version of a tenant's key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kek {
    /// Counts from 1.
    pub version: u32,
    /// Its state.
    pub state: KekState,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it last changed its state.
    pub state_time: Timestamp,
    /// When it will be destroyed; set while that is scheduled, and only then.
    pub destroy_time: Option<Timestamp>,
    /// Where it came from.
    pub origin: KekOrigin,
    /// When it was first exported; from then on there is a copy outside of the store.
    pub export_time: Option<Timestamp>,
}

/// How many sessions a version wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KekUse {
    /// Version.
    pub version: u32,
    /// Sessions whose keys it wraps, those among them that have expired and are not swept yet.
    pub sessions: u64,
}

/// What the destruction of a version does, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekDestruction {
    /// The version as it is now; in a dry run, as it would be.
    pub kek: Kek,
    /// Sessions whose keys it wraps, and which die with it.
    pub sessions: u64,
}

/// What the destruction of a tenant does, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantDestruction {
    /// The tenant as it is now; in a dry run, as it would be.
    pub tenant: TenantRecord,
    /// Its sessions, which die with it.
    pub sessions: u64,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public name.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// For which tenants; `*` stands for all of them.
    pub tenants: Vec<String>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it ends.
    pub expire_time: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// What a new token shall be.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// Public name: 1 to 63 characters of `a-z`, `0-9` and `-`.
    pub name: String,
    /// What it allows, at least one.
    pub scopes: Vec<Scope>,
    /// For which tenants, at most 64; a single `*` stands for all of them.
    pub tenants: Vec<String>,
    /// Its lifetime, 1 min to 400 days; `None`: 30 days.
    pub ttl: Option<Duration>,
}

/// A token with its secret, which nobody can show again.
#[derive(Clone)]
pub struct TokenCreated {
    /// The token.
    pub token: Token,
    /// `srt_` and 43 characters. Wiped from memory when it is dropped.
    pub secret: Zeroizing<String>,
}

/// The state of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its version.
    pub version: String,
    /// Identity of the store. A UUID.
    pub store_uid: String,
    /// Format version of the store.
    pub format_version: u32,
    /// When the process started.
    pub start_time: Timestamp,
    /// Storage engine: `sled` or `memory`.
    pub engine: String,
    /// Bytes that the store takes on disk.
    pub disk_bytes: u64,
    /// Rows in the store; an estimate.
    pub rows: u64,
    /// Number of tenants.
    pub tenants: u64,
    /// Operations that wait for a commit now.
    pub queue_depth: u64,
    /// Commits since start.
    pub commits: u64,
    /// Operations committed since start.
    pub committed_operations: u64,
    /// Stored records that did not open, since start.
    pub integrity_failures: u64,
    /// Sessions that the sweeper expired since start.
    pub sessions_expired: u64,
    /// How far the sweeper is behind the clock.
    pub sweeper_lag: Duration,
    /// Size of the server's own access log.
    pub system_log_size: u64,
    /// The key with which receipts of destruction are verified: a C2SP verifier key.
    pub receipt_verifier: String,
}

impl TenantRecord {
    pub(super) fn required(tenant: Option<v1::Tenant>) -> Result<Self, ClientError> {
        Self::from_wire(tenant.ok_or(ClientError::Malformed { what: "tenant" })?)
    }

    pub(super) fn from_wire(tenant: v1::Tenant) -> Result<Self, ClientError> {
        let state = match tenant.state() {
            v1::TenantState::Active => TenantState::Active,
            v1::TenantState::Suspended => TenantState::Suspended,
            v1::TenantState::DestroyScheduled => TenantState::DestroyScheduled,
            v1::TenantState::Destroyed => TenantState::Destroyed,
            v1::TenantState::Unspecified => return Err(ClientError::Malformed { what: "tenant state" }),
        };
        let ends = matches!(state, TenantState::DestroyScheduled | TenantState::Destroyed);
        Ok(Self {
            state,
            create_time: required_time(tenant.create_time)?,
            name: tenant.name,
            uid: tenant.uid,
            primary_kek_version: tenant.primary_kek_version,
            audit_log: tenant.audit_log,
            destroy_time: ends.then(|| required_time(tenant.destroy_time)).transpose()?,
            rotation: rotation_from(tenant.rotation_period, tenant.next_rotation_time)?,
            exportable: tenant.exportable,
        })
    }
}

fn rotation_from(
    period: Option<prost_types::Duration>,
    next: Option<prost_types::Timestamp>,
) -> Result<Option<Rotation>, ClientError> {
    let Some(period) = period else { return Ok(None) };
    Ok(Some(Rotation { period: convert::duration_from(period)?, next: required_time(next)? }))
}

impl Kek {
    pub(super) fn required(kek: Option<v1::Kek>) -> Result<Self, ClientError> {
        Self::from_wire(kek.ok_or(ClientError::Malformed { what: "key" })?)
    }

    pub(super) fn from_wire(kek: v1::Kek) -> Result<Self, ClientError> {
        let state = match kek.state() {
            v1::KekState::Pending => KekState::Pending,
            v1::KekState::Primary => KekState::Primary,
            v1::KekState::Enabled => KekState::Enabled,
            v1::KekState::Disabled => KekState::Disabled,
            v1::KekState::DestroyScheduled => KekState::DestroyScheduled,
            v1::KekState::Destroyed => KekState::Destroyed,
            v1::KekState::Unspecified => return Err(ClientError::Malformed { what: "key state" }),
        };
        let origin = match kek.origin() {
            v1::KekOrigin::Generated => KekOrigin::Generated,
            v1::KekOrigin::Imported => KekOrigin::Imported,
            v1::KekOrigin::Unspecified => return Err(ClientError::Malformed { what: "key origin" }),
        };
        let exported = kek.export_time.is_some();
        let scheduled = state == KekState::DestroyScheduled;
        Ok(Self {
            version: kek.version,
            state,
            create_time: required_time(kek.create_time)?,
            state_time: required_time(kek.state_time)?,
            destroy_time: scheduled.then(|| required_time(kek.destroy_time)).transpose()?,
            origin,
            export_time: exported.then(|| required_time(kek.export_time)).transpose()?,
        })
    }
}

impl KekUse {
    pub(super) const fn from_wire(found: v1::KekUse) -> Self {
        Self { version: found.version, sessions: found.sessions }
    }
}

impl Token {
    pub(super) fn required(token: Option<v1::Token>) -> Result<Self, ClientError> {
        Self::from_wire(token.ok_or(ClientError::Malformed { what: "token" })?)
    }

    pub(super) fn from_wire(token: v1::Token) -> Result<Self, ClientError> {
        // The generated accessor would leave out what it does not know.
        let scopes = token.scopes.iter().map(|scope| scope_from_wire(*scope)).collect::<Result<_, _>>()?;
        Ok(Self {
            scopes,
            name: token.name,
            tenants: token.tenants,
            create_time: required_time(token.create_time)?,
            expire_time: required_time(token.expire_time)?,
            revoked: token.revoked,
        })
    }
}

impl ServerStatus {
    pub(super) fn from_wire(status: v1::GetStatusResponse) -> Result<Self, ClientError> {
        Ok(Self {
            version: status.version,
            store_uid: status.store_uid,
            format_version: status.format_version,
            start_time: required_time(status.start_time)?,
            engine: status.engine,
            disk_bytes: status.disk_bytes,
            rows: status.rows,
            tenants: status.tenants,
            queue_depth: status.queue_depth,
            commits: status.commits,
            committed_operations: status.committed_operations,
            integrity_failures: status.integrity_failures,
            sessions_expired: status.sessions_expired,
            sweeper_lag: convert::duration_from(status.sweeper_lag.unwrap_or_default())?,
            system_log_size: status.system_log_size,
            receipt_verifier: status.receipt_verifier,
        })
    }
}

pub(super) const fn scope_to_wire(scope: Scope) -> v1::Scope {
    match scope {
        Scope::Read => v1::Scope::Read,
        Scope::ReadFull => v1::Scope::ReadFull,
        Scope::Write => v1::Scope::Write,
        Scope::Purge => v1::Scope::Purge,
        Scope::Keys => v1::Scope::Keys,
        Scope::Audit => v1::Scope::Audit,
        Scope::Tenants => v1::Scope::Tenants,
        Scope::Tokens => v1::Scope::Tokens,
        Scope::Status => v1::Scope::Status,
        Scope::KeysDestroy => v1::Scope::KeysDestroy,
        Scope::KeysDestroyNow => v1::Scope::KeysDestroyNow,
        Scope::KeysImport => v1::Scope::KeysImport,
        Scope::KeysExport => v1::Scope::KeysExport,
        Scope::Root => v1::Scope::Root,
    }
}

pub(super) fn scope_from_wire(scope: i32) -> Result<Scope, ClientError> {
    Ok(match v1::Scope::try_from(scope).unwrap_or_default() {
        v1::Scope::Read => Scope::Read,
        v1::Scope::ReadFull => Scope::ReadFull,
        v1::Scope::Write => Scope::Write,
        v1::Scope::Purge => Scope::Purge,
        v1::Scope::Keys => Scope::Keys,
        v1::Scope::Audit => Scope::Audit,
        v1::Scope::Tenants => Scope::Tenants,
        v1::Scope::Tokens => Scope::Tokens,
        v1::Scope::Status => Scope::Status,
        v1::Scope::KeysDestroy => Scope::KeysDestroy,
        v1::Scope::KeysDestroyNow => Scope::KeysDestroyNow,
        v1::Scope::KeysImport => Scope::KeysImport,
        v1::Scope::KeysExport => Scope::KeysExport,
        v1::Scope::Root => Scope::Root,
        v1::Scope::Unspecified => return Err(ClientError::Malformed { what: "scope" }),
    })
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated").field("token", &self.token).finish_non_exhaustive()
    }
}
