//! One session: its metadata and its end. Entries, events and watches have files of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use uuid::Uuid;

use super::answer::Answer;
use super::convert;
use super::error::ClientError;
use super::link::{call, context};
use super::tenant::Tenant;
use crate::model::{MutationExpiry, Owner, Revision, Timestamp};
use crate::proto::v1;

/// What is known of a session.
#[derive(Clone)]
pub struct Session {
    /// The handle.
    pub id: String,
    /// The owner it was created with.
    pub owner: Option<Owner>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it ends if nothing else happens.
    pub expire_time: Timestamp,
    /// When it ends at the latest.
    pub absolute_expire_time: Timestamp,
    /// How long it may be left unused.
    pub idle_ttl: Option<Duration>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Revision of this metadata.
    pub revision: Revision,
    /// Whether the sensitive part was purged.
    pub sensitive_purged: bool,
}

/// One session as it is addressed: tenant, handle, owner. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    pub(super) tenant: Tenant,
    name: Arc<Name>,
}

struct Name {
    id: String,
    owner: Option<Owner>,
    opened: Option<Session>,
}

/// A change of a session's metadata; awaiting it sends it. What is not named stays as it is.
#[must_use = "nothing is sent until this is awaited"]
pub struct UpdateSession {
    session: SessionHandle,
    request: v1::UpdateSessionRequest,
    request_id: Uuid,
}

impl SessionHandle {
    pub(super) fn new(tenant: Tenant, id: String, owner: Option<Owner>, opened: Option<Session>) -> Self {
        Self { tenant, name: Arc::new(Name { id, owner, opened }) }
    }

    /// The handle's text. Who holds it must still be the owner, but it should not be logged.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.name.id
    }

    /// The owner that calls present.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.name.owner.as_ref()
    }

    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The metadata as of the call that created this session; `None` when the handle was only named.
    #[must_use]
    pub fn opened(&self) -> Option<&Session> {
        self.name.opened.as_ref()
    }

    /// Reads the metadata.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `SESSION_EXPIRED`; see [`ClientError`] for the rest.
    pub async fn describe(&self) -> Result<Answer<Session>, ClientError> {
        let request = v1::GetSessionRequest { session: Some(self.wire()) };
        let answer = self.tenant.link.unary(Uuid::new_v4(), request, call!(context.get_session)).await?;
        answer.try_map(|response| Session::required(response.session))
    }

    /// Begins a change of lifetime or labels.
    pub fn update(&self) -> UpdateSession {
        let request =
            v1::UpdateSessionRequest { session: Some(self.wire()), ..v1::UpdateSessionRequest::default() };
        UpdateSession { session: self.clone(), request, request_id: Uuid::new_v4() }
    }

    /// Erases the session cryptographically.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `SESSION_EXPIRED`; see [`ClientError`] for the rest.
    pub async fn delete_session(&self) -> Result<Answer<()>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::DeleteSessionRequest { session: Some(self.wire()), request_id: id.to_string() };
        let answer = self.tenant.link.unary(id, request, call!(context.delete_session)).await?;
        Ok(answer.map(|_| ()))
    }

    /// Drops the key of the session's sensitive part. Full views end, redacted ones go on.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `SESSION_EXPIRED`; see [`ClientError`] for the rest.
    pub async fn purge_sensitive(&self) -> Result<Answer<Session>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::PurgeSensitiveRequest { session: Some(self.wire()), request_id: id.to_string() };
        let answer = self.tenant.link.unary(id, request, call!(context.purge_sensitive)).await?;
        answer.try_map(|response| Session::required(response.session))
    }

    pub(super) fn wire(&self) -> v1::SessionRef {
        v1::SessionRef {
            tenant: self.tenant.name().to_owned(),
            session_id: self.name.id.clone(),
            owner: self.name.owner.as_ref().map(convert::owner),
        }
    }
}

impl UpdateSession {
    /// Sets the absolute end: 1 s to 400 days from now.
    pub fn expiry(mut self, expiry: MutationExpiry) -> Self {
        self.request.expiration = convert::update_expiration(expiry);
        self
    }

    /// Sets the absolute end, counted from now.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.expiry(MutationExpiry::After(ttl))
    }

    /// Sets the idle lifetime, counted from now; zero removes it.
    pub fn idle_ttl(mut self, ttl: Duration) -> Self {
        self.request.idle_ttl = Some(convert::duration(ttl));
        self
    }

    /// Replaces all labels.
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.request.labels = Some(v1::Labels { labels: labels.into_iter().collect() });
        self
    }

    /// Makes the change conditional on the metadata's revision.
    pub const fn expect_revision(mut self, revision: Revision) -> Self {
        self.request.expect_revision = revision.get();
        self
    }

    /// Uses this idempotency key instead of a fresh one.
    pub const fn request_id(mut self, id: Uuid) -> Self {
        self.request_id = id;
        self
    }
}

impl IntoFuture for UpdateSession {
    type Output = Result<Answer<Session>, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        async move {
            self.request.request_id = self.request_id.to_string();
            let link = &self.session.tenant.link;
            let answer = link.unary(self.request_id, self.request, call!(context.update_session)).await?;
            answer.try_map(|response| Session::required(response.session))
        }
        .boxed()
    }
}

impl Session {
    pub(super) fn required(session: Option<v1::Session>) -> Result<Self, ClientError> {
        Self::from_wire(session.ok_or(ClientError::Malformed { what: "session" })?)
    }

    pub(super) fn from_wire(session: v1::Session) -> Result<Self, ClientError> {
        Ok(Self {
            id: session.session_id,
            owner: session.owner.map(convert::owner_from).transpose()?,
            create_time: convert::required_time(session.create_time)?,
            expire_time: convert::required_time(session.expire_time)?,
            absolute_expire_time: convert::required_time(session.absolute_expire_time)?,
            idle_ttl: session.idle_ttl.map(convert::duration_from).transpose()?,
            labels: session.labels.into_iter().collect(),
            revision: convert::revision_from(session.revision)?,
            sensitive_purged: session.sensitive_purged,
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("create_time", &self.create_time)
            .field("expire_time", &self.expire_time)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl fmt::Debug for UpdateSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateSession").finish_non_exhaustive()
    }
}
