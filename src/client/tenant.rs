//! The sessions of one tenant.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use uuid::Uuid;

use super::answer::Answer;
use super::convert;
use super::error::ClientError;
use super::link::{Link, call, context};
use super::page;
use super::session::{Session, SessionHandle};
use crate::model::{Owner, TenantName};
use crate::proto::v1;

/// One tenant's data plane. Cheap to clone.
#[derive(Clone)]
pub struct Tenant {
    pub(super) link: Link,
    pub(super) name: Arc<TenantName>,
}

/// What a new session shall be. The default is a minted handle, no owner, 24 h, no idle end, no labels.
#[derive(Clone, Default)]
pub struct CreateSession {
    /// The user who owns it; `None`: it belongs to the calling workload alone.
    pub owner: Option<Owner>,
    /// How long it lives at the most: 1 s to 400 days; `None`: 24 h.
    pub ttl: Option<Duration>,
    /// How long it may be left unused; 1 s to 400 days.
    pub idle_ttl: Option<Duration>,
    /// Labels: at most 32, keys of 1 to 63 bytes, values of 0 to 256.
    pub labels: BTreeMap<String, String>,
    /// The handle to use: 1 to 128 visible ASCII characters, hard to guess; `None`: the server mints one.
    pub session_id: Option<String>,
    /// The idempotency key; `None`: a fresh one. With a key of its own a caller may repeat the call across a crash.
    pub request_id: Option<Uuid>,
}

impl Tenant {
    pub(super) fn new(link: Link, name: TenantName) -> Self {
        Self { link, name: Arc::new(name) }
    }

    /// The tenant's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Names a session that exists. Nothing is sent.
    #[must_use]
    pub fn session(&self, session_id: impl Into<String>, owner: Option<Owner>) -> SessionHandle {
        SessionHandle::new(self.clone(), session_id.into(), owner, None)
    }

    /// Opens a session. The handle's [`SessionHandle::opened`] has its metadata.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when `session_id` is taken; see [`ClientError`] for the rest.
    pub async fn create_session(&self, session: CreateSession) -> Result<Answer<SessionHandle>, ClientError> {
        let id = session.request_id.unwrap_or_else(Uuid::new_v4);
        let owner = session.owner.clone();
        let request = self.create_request(session, id);
        let answer = self.link.unary(id, request, call!(context.create_session)).await?;
        answer.try_map(|response| {
            let session = response.session.ok_or(ClientError::Malformed { what: "session" })?;
            let session = Session::from_wire(session)?;
            Ok(SessionHandle::new(self.clone(), session.id.clone(), owner, Some(session)))
        })
    }

    /// Streams the live sessions of one owner, or all that the caller may list, in no particular order.
    #[must_use]
    pub fn sessions(&self, owner: Option<&Owner>) -> BoxStream<'static, Result<Session, ClientError>> {
        let (tenant, owner) = (self.clone(), owner.map(convert::owner));
        page::stream(move |page_token| {
            let (tenant, owner) = (tenant.clone(), owner.clone());
            async move {
                let request = v1::ListSessionsRequest {
                    tenant: tenant.name().to_owned(),
                    owner,
                    page_size: page::SIZE,
                    page_token,
                };
                let page = tenant
                    .link
                    .unary(Uuid::new_v4(), request, call!(context.list_sessions))
                    .await?
                    .into_inner();
                let sessions = page.sessions.into_iter().map(Session::from_wire).collect::<Result<_, _>>()?;
                Ok((sessions, page.next_page_token))
            }
        })
    }

    fn create_request(&self, session: CreateSession, id: Uuid) -> v1::CreateSessionRequest {
        v1::CreateSessionRequest {
            tenant: self.name().to_owned(),
            session_id: session.session_id.unwrap_or_default(),
            owner: session.owner.as_ref().map(convert::owner),
            expiration: session
                .ttl
                .map(|ttl| v1::create_session_request::Expiration::Ttl(convert::duration(ttl))),
            idle_ttl: session.idle_ttl.map(convert::duration),
            labels: session.labels.into_iter().collect(),
            request_id: id.to_string(),
        }
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({})", self.name())
    }
}

impl fmt::Debug for CreateSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateSession").finish_non_exhaustive()
    }
}
