//! The control plane: tenants, keys, tokens, the access log, the server's state.

use std::fmt;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use tonic::Streaming;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::convert::{self, required_time};
use super::error::ClientError;
use super::follow::{self, Source};
use super::link::{Link, admin, call};
use super::page;
use crate::model::{KekState, Scope, TenantState, Timestamp};
use crate::proto::v1;

/// The control plane of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    link: Link,
}

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
    /// Version of its primary key-encryption key.
    pub primary_kek_version: u32,
    /// Name of its current access log.
    pub audit_log: String,
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

/// One event of an access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// The log that it stands in.
    pub log: String,
    /// Its sequence number in that log, counting from 0.
    pub sequence: u64,
    /// The canonical line, exactly as hashed into the log: JSON.
    pub line: String,
}

/// Which events of an access log are wanted. What is empty does not restrict.
#[derive(Debug, Clone, Default)]
pub struct AuditSearch {
    /// The tenant; `None`: the log of the server itself.
    pub tenant: Option<String>,
    /// Only events at or after this time.
    pub start_time: Option<Timestamp>,
    /// Only events before this time.
    pub end_time: Option<Timestamp>,
    /// Only these operations, for example `ctx.read`, or a family as `ctx.*`; at most 32.
    pub operations: Vec<String>,
    /// Only these outcomes: `ok`, `deny`, `fail`.
    pub outcomes: Vec<String>,
    /// The order of a search; a tail is always in the order of the log.
    pub order: AuditOrder,
}

/// The order of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuditOrder {
    /// By ascending sequence number.
    #[default]
    OldestFirst,
    /// By descending sequence number.
    NewestFirst,
}

/// How an access log is tailed.
#[derive(Debug, Clone)]
pub struct AuditTail {
    /// Which events.
    pub search: AuditSearch,
    /// How many of the events that are already there come first; at most 1000.
    pub backlog: u32,
    /// Whether to go on with new events.
    pub follow: bool,
    /// How long a broken stream is tried to be opened again before it ends with an error.
    pub patience: Duration,
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
}

impl Default for AuditTail {
    fn default() -> Self {
        Self { search: AuditSearch::default(), backlog: 0, follow: true, patience: follow::PATIENCE }
    }
}

impl Admin {
    pub(super) const fn new(link: Link) -> Self {
        Self { link }
    }

    /// Creates a tenant with keys of its own.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when the name is taken; see [`ClientError`] for the rest.
    pub async fn create_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::CreateTenantRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.create_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Reads one tenant.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn describe_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let request = v1::GetTenantRequest { name: name.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Streams the tenants that the caller may know of.
    #[must_use]
    pub fn tenants(&self) -> BoxStream<'static, Result<TenantRecord, ClientError>> {
        let link = self.link.clone();
        page::stream(move |page_token| {
            let link = link.clone();
            async move {
                let request = v1::ListTenantsRequest { page_size: page::SIZE, page_token };
                let page = link.unary(Uuid::new_v4(), request, call!(admin.list_tenants)).await?.into_inner();
                let tenants = page.tenants.into_iter().map(TenantRecord::from_wire);
                Ok((tenants.collect::<Result<_, _>>()?, page.next_page_token))
            }
        })
    }

    /// Refuses all use of the tenant's data, from the next request on, until it is resumed.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn suspend_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::SuspendTenantRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.suspend_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Ends a suspension.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn resume_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::ResumeTenantRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.resume_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Streams the versions of a tenant's key-encryption key, oldest first.
    #[must_use]
    pub fn keks(&self, tenant: &str) -> BoxStream<'static, Result<Kek, ClientError>> {
        let (link, tenant) = (self.link.clone(), tenant.to_owned());
        page::stream(move |page_token| {
            let (link, tenant) = (link.clone(), tenant.clone());
            async move {
                let request = v1::ListKeksRequest { tenant, page_size: page::SIZE, page_token };
                let page = link.unary(Uuid::new_v4(), request, call!(admin.list_keks)).await?.into_inner();
                let keks = page.keks.into_iter().map(Kek::from_wire).collect::<Result<_, _>>()?;
                Ok((keks, page.next_page_token))
            }
        })
    }

    /// Makes a new primary version. Older versions go on opening what they wrapped.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn rotate_kek(&self, tenant: &str) -> Result<Answer<Kek>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::RotateKekRequest { tenant: tenant.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.rotate_kek)).await?;
        answer.try_map(|response| Kek::from_wire(response.kek.ok_or(ClientError::Malformed { what: "key" })?))
    }

    /// Creates a token. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when the name is taken; see [`ClientError`] for the rest.
    pub async fn create_token(&self, token: NewToken) -> Result<Answer<TokenCreated>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::CreateTokenRequest {
            name: token.name,
            scopes: token.scopes.into_iter().map(|scope| scope_to_wire(scope).into()).collect(),
            tenants: token.tenants,
            ttl: token.ttl.map(convert::duration),
            request_id: id.to_string(),
        };
        let answer = self.link.unary(id, request, call!(admin.create_token)).await?;
        answer.try_map(|response| {
            let secret = Zeroizing::new(response.secret);
            Ok(TokenCreated { token: Token::required(response.token)?, secret })
        })
    }

    /// Streams the tokens, without their secrets.
    #[must_use]
    pub fn tokens(&self) -> BoxStream<'static, Result<Token, ClientError>> {
        let link = self.link.clone();
        page::stream(move |page_token| {
            let link = link.clone();
            async move {
                let request = v1::ListTokensRequest { page_size: page::SIZE, page_token };
                let page = link.unary(Uuid::new_v4(), request, call!(admin.list_tokens)).await?.into_inner();
                let tokens = page.tokens.into_iter().map(Token::from_wire).collect::<Result<_, _>>()?;
                Ok((tokens, page.next_page_token))
            }
        })
    }

    /// Revokes a token, from the next request on.
    ///
    /// # Errors
    /// `TOKEN_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn revoke_token(&self, name: &str) -> Result<Answer<Token>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::RevokeTokenRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.revoke_token)).await?;
        answer.try_map(|response| Token::required(response.token))
    }

    /// Streams the events of an access log that match.
    #[must_use]
    pub fn search_audit(&self, search: AuditSearch) -> BoxStream<'static, Result<AuditEvent, ClientError>> {
        let link = self.link.clone();
        page::stream(move |page_token| {
            let (link, request) = (link.clone(), search.request(page_token));
            async move {
                let page = link.unary(Uuid::new_v4(), request, call!(admin.search_audit)).await?.into_inner();
                let events = page.events.into_iter().map(AuditEvent::from_wire).collect();
                Ok((events, page.next_page_token))
            }
        })
    }

    /// Streams the events of an access log as they are written.
    #[must_use]
    pub fn tail_audit(&self, tail: AuditTail) -> BoxStream<'static, Result<AuditEvent, ClientError>> {
        let (filter, patience) = (Some(tail.search.filter()), tail.patience);
        let request = v1::TailAuditRequest {
            tenant: tail.search.tenant.unwrap_or_default(),
            backlog: tail.backlog,
            filter,
            follow: tail.follow,
            max_duration: None,
        };
        follow::stream(TailSource { link: self.link.clone(), request, seen: None }, patience, None)
    }

    /// Reads the state of the server.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Answer<ServerStatus>, ClientError> {
        let request = v1::GetStatusRequest {};
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_status)).await?;
        answer.try_map(ServerStatus::from_wire)
    }
}

/// The last event that was seen of a tailed log.
struct Seen {
    log: String,
    sequence: u64,
}

struct TailSource {
    link: Link,
    request: v1::TailAuditRequest,
    seen: Option<Seen>,
}

impl Source for TailSource {
    type Message = v1::TailAuditResponse;
    type Item = AuditEvent;

    fn open(&self) -> BoxFuture<'static, Result<Streaming<Self::Message>, ClientError>> {
        let (link, mut request) = (self.link.clone(), self.request.clone());
        if self.seen.is_some() {
            // What was written while the connection was down is among the newest; what was seen already is left out.
            request.backlog = u32::try_from(crate::model::limits::AUDIT_BACKLOG).unwrap_or(u32::MAX);
        }
        async move { link.open(request, call!(admin.tail_audit)).await }.boxed()
    }

    fn accept(&mut self, message: Self::Message) -> Result<Vec<AuditEvent>, ClientError> {
        let mut fresh = Vec::new();
        for event in message.events.into_iter().map(AuditEvent::from_wire) {
            let known = self
                .seen
                .as_ref()
                .is_some_and(|seen| seen.log == event.log && event.sequence <= seen.sequence);
            if !known {
                self.seen = Some(Seen { log: event.log.clone(), sequence: event.sequence });
                fresh.push(event);
            }
        }
        Ok(fresh)
    }

    fn ends_with_server(&self) -> bool {
        !self.request.follow
    }
}

impl AuditSearch {
    fn filter(&self) -> v1::AuditFilter {
        v1::AuditFilter {
            start_time: self.start_time.map(convert::time),
            end_time: self.end_time.map(convert::time),
            operations: self.operations.clone(),
            outcomes: self.outcomes.clone(),
        }
    }

    fn request(&self, page_token: String) -> v1::SearchAuditRequest {
        let order = match self.order {
            AuditOrder::OldestFirst => v1::AuditOrder::OldestFirst,
            AuditOrder::NewestFirst => v1::AuditOrder::NewestFirst,
        };
        v1::SearchAuditRequest {
            tenant: self.tenant.clone().unwrap_or_default(),
            filter: Some(self.filter()),
            order: order.into(),
            page_size: page::SIZE,
            page_token,
        }
    }
}

impl TenantRecord {
    fn required(tenant: Option<v1::Tenant>) -> Result<Self, ClientError> {
        Self::from_wire(tenant.ok_or(ClientError::Malformed { what: "tenant" })?)
    }

    fn from_wire(tenant: v1::Tenant) -> Result<Self, ClientError> {
        let state = match tenant.state() {
            v1::TenantState::Active => TenantState::Active,
            v1::TenantState::Suspended => TenantState::Suspended,
            v1::TenantState::Unspecified => return Err(ClientError::Malformed { what: "tenant state" }),
        };
        Ok(Self {
            state,
            create_time: required_time(tenant.create_time)?,
            name: tenant.name,
            uid: tenant.uid,
            primary_kek_version: tenant.primary_kek_version,
            audit_log: tenant.audit_log,
        })
    }
}

impl Kek {
    fn from_wire(kek: v1::Kek) -> Result<Self, ClientError> {
        let state = match kek.state() {
            v1::KekState::Pending => KekState::Pending,
            v1::KekState::Primary => KekState::Primary,
            v1::KekState::Enabled => KekState::Enabled,
            v1::KekState::Disabled => KekState::Disabled,
            v1::KekState::DestroyScheduled => KekState::DestroyScheduled,
            v1::KekState::Destroyed => KekState::Destroyed,
            v1::KekState::Unspecified => return Err(ClientError::Malformed { what: "key state" }),
        };
        Ok(Self {
            version: kek.version,
            state,
            create_time: required_time(kek.create_time)?,
            state_time: required_time(kek.state_time)?,
        })
    }
}

impl Token {
    fn required(token: Option<v1::Token>) -> Result<Self, ClientError> {
        Self::from_wire(token.ok_or(ClientError::Malformed { what: "token" })?)
    }

    fn from_wire(token: v1::Token) -> Result<Self, ClientError> {
        let scopes = token.scopes().map(scope_from_wire).collect::<Result<_, _>>()?;
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

impl AuditEvent {
    fn from_wire(event: v1::AuditEvent) -> Self {
        Self { log: event.log, sequence: event.sequence, line: event.line }
    }
}

impl ServerStatus {
    fn from_wire(status: v1::GetStatusResponse) -> Result<Self, ClientError> {
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
        })
    }
}

const fn scope_to_wire(scope: Scope) -> v1::Scope {
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
    }
}

const fn scope_from_wire(scope: v1::Scope) -> Result<Scope, ClientError> {
    Ok(match scope {
        v1::Scope::Read => Scope::Read,
        v1::Scope::ReadFull => Scope::ReadFull,
        v1::Scope::Write => Scope::Write,
        v1::Scope::Purge => Scope::Purge,
        v1::Scope::Keys => Scope::Keys,
        v1::Scope::Audit => Scope::Audit,
        v1::Scope::Tenants => Scope::Tenants,
        v1::Scope::Tokens => Scope::Tokens,
        v1::Scope::Status => Scope::Status,
        v1::Scope::Unspecified => return Err(ClientError::Malformed { what: "scope" }),
    })
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated").field("token", &self.token).finish_non_exhaustive()
    }
}
