//! Keeps the sessions and event streams of an MCP server that is written with the official Rust SDK.
//!
//! With it a client's session and its interrupted streams outlive the server process and move between replicas: any
//! replica restores a session that another one initialised, and replays what another one sent.
//!
//! One MCP session is one Strongroom session (`mcp-session.…`), one event stream is another (`mcp-stream.…`), so that
//! each is erased on its own and on time. An event id that a client is given names the stream and the event in it; the
//! event's part cannot be guessed. Neither kind of session has an owner: the MCP session id is not a credential, and a
//! server must go on authenticating every request.
//!
//! ```no_run
//! # #[cfg(feature = "rmcp")]
//! # fn example(tenant: strongroom::client::Tenant) {
//! use std::sync::Arc;
//! use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
//! use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
//! use strongroom::client::RmcpStore;
//!
//! let store = Arc::new(RmcpStore::new(tenant));
//! let sessions = LocalSessionManager::default().with_event_store(store.clone());
//! let mut config = StreamableHttpServerConfig::default();
//! config.session_store = Some(store);
//! # }
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use futures_util::{StreamExt, TryStreamExt};
use rmcp::model::{JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::{
    EventId, EventStore, EventStoreError, EventStream as RmcpEventStream, ServerSseMessage, SessionState,
    SessionStore, SessionStoreError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use super::error::ClientError;
use super::events::{Event, EventStream, NewEvent};
use super::lease::absent_as_none;
use super::session::SessionHandle;
use super::tenant::{CreateSession, Tenant};
use crate::model::limits::SESSION_ID_BYTES;
use crate::model::{Expect, NameError, View};

/// Begins the handle of every MCP session; a client's own text follows, so it must not reach other sessions.
const SESSION: &str = "mcp-session.";
/// Begins the handle of every event stream.
const STREAM: &str = "mcp-stream.";
/// Entry with the parameters of `initialize`.
const STATE: &str = "state";
/// Entry with the name of the session's standalone stream.
const COMMON: &str = "common-stream";
/// How the SDK marks a session's standalone stream.
const COMMON_SUFFIX: &str = ":common";
/// The one stream of events in a Strongroom session that holds one.
const EVENTS: &str = "sse";
/// Media type of everything stored here.
const JSON: &str = "application/json";
/// Most stream names remembered; a forgotten one costs one more call.
const KNOWN: usize = 4096;
/// Events read ahead of a client that is being replayed to.
const AHEAD: usize = 16;

/// A `SessionStore` and an `EventStore` of the Rust MCP SDK on top of one tenant. Cheap to clone.
#[derive(Clone)]
pub struct RmcpStore {
    tenant: Tenant,
    session_ttl: Duration,
    stream_ttl: Duration,
    follow: Option<Duration>,
    known: Arc<Mutex<HashMap<String, String>>>,
}

/// Why a session or an event could not be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RmcpStoreError {
    /// The store did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A message cannot be written as JSON, or what is stored is not one.
    #[error("not a stored MCP message: {0}")]
    Message(#[from] serde_json::Error),
    /// The event id is not one that this store gave out.
    #[error("not an event id of this store")]
    EventId,
}

/// An event as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredEvent<M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<M>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_ms: Option<u64>,
}

impl RmcpStore {
    /// Keeps everything in `tenant`: sessions for 24 h after their `initialize`, streams until 1 h after their last event.
    #[must_use]
    pub fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            session_ttl: Duration::from_secs(24 * 3600),
            stream_ttl: Duration::from_secs(3600),
            follow: None,
            known: Arc::default(),
        }
    }

    /// Sets how long a session is kept after its `initialize`: 1 s to 400 days.
    #[must_use]
    pub const fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = ttl;
        self
    }

    /// Sets how long a stream is kept after its last event: 1 s to 400 days, and never longer than a session.
    #[must_use]
    pub const fn stream_ttl(mut self, ttl: Duration) -> Self {
        self.stream_ttl = ttl;
        self
    }

    /// Lets a replay go on with events that any replica appends later, for so long, or until the response that ends the
    /// stream. Without it a replay ends with what is stored, and clients come back to ask again.
    #[must_use]
    pub const fn follow(mut self, span: Duration) -> Self {
        self.follow = Some(span);
        self
    }

    async fn save(&self, session_id: &str, state: &SessionState) -> Result<(), RmcpStoreError> {
        let session = self.session(session_id).ok_or_else(malformed_session)?;
        let state = serde_json::to_vec(state)?;
        self.ensure(session.id(), self.session_ttl, None).await?;
        session.put(STATE, state).content_type(JSON).await?;
        Ok(())
    }

    async fn restore(&self, session_id: &str) -> Result<Option<SessionState>, RmcpStoreError> {
        let Some(session) = self.session(session_id) else { return Ok(None) };
        let state = gone_as_none(absent_as_none(session.read(STATE, View::Full).await))?;
        Ok(state.flatten().map(|entry| serde_json::from_slice(&entry.value)).transpose()?)
    }

    async fn erase(&self, session_id: &str) -> Result<(), RmcpStoreError> {
        let Some(session) = self.session(session_id) else { return Ok(()) };
        let common = gone_as_none(absent_as_none(session.read(COMMON, View::Full).await))?;
        if let Some(common) = common.flatten() {
            let name = String::from_utf8_lossy(&common.value).into_owned();
            gone_as_none(self.stream(&name).delete_session().await)?;
        }
        gone_as_none(session.delete_session().await)?;
        self.known().remove(&format!("{session_id}{COMMON_SUFFIX}"));
        Ok(())
    }

    async fn append(&self, stream_id: &str, event: &ServerSseMessage) -> Result<EventId, RmcpStoreError> {
        let stored = StoredEvent {
            message: event.message.as_deref(),
            retry_ms: event.retry.map(|retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX)),
        };
        let stored = NewEvent { bytes: serde_json::to_vec(&stored)?.into(), content_type: JSON.to_owned() };
        let name = self.name(stream_id).await?;
        let ids = self.stream(&name).append(EVENTS, [stored]).await?.into_inner();
        let id = ids.first().ok_or(ClientError::Malformed { what: "event id" })?;
        Ok(format!("{name}.{id}"))
    }

    async fn replay(&self, last_event_id: &str) -> Result<RmcpEventStream, RmcpStoreError> {
        let (name, after) = last_event_id.split_once('.').ok_or(RmcpStoreError::EventId)?;
        if name.is_empty() || after.is_empty() || STREAM.len() + name.len() > SESSION_ID_BYTES {
            return Err(RmcpStoreError::EventId);
        }
        let session = self.stream(name);
        // The first event is awaited here, so that an unknown id is the caller's to report.
        let mut stored = session.events(EVENTS, View::Full).after(after).replay();
        let first = stored.try_next().await?;
        let (out, stream) = mpsc::channel(AHEAD);
        let replay =
            Replay { session, name: name.to_owned(), last: after.to_owned(), follow: self.follow, out };
        tokio::spawn(async move {
            if let Err(error) = replay.run(first, stored).await {
                tracing::warn!(%error, "the replay of an MCP event stream broke off");
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }

    /// The name of a stream in its handle and in its event ids; its session exists when this returns.
    async fn name(&self, stream_id: &str) -> Result<String, RmcpStoreError> {
        if let Some(name) = self.known().get(stream_id) {
            return Ok(name.clone());
        }
        let name = match stream_id.strip_suffix(COMMON_SUFFIX) {
            Some(session_id) => self.common_name(session_id).await?,
            None => plain_name(stream_id),
        };
        self.ensure(self.stream(&name).id(), self.session_ttl, Some(self.stream_ttl)).await?;
        let mut known = self.known();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(stream_id.to_owned(), name.clone());
        Ok(name)
    }

    /// The name of a session's standalone stream: minted once and kept with the session, because the stream's own id has
    /// the session's in it, which must not show in event ids.
    async fn common_name(&self, session_id: &str) -> Result<String, RmcpStoreError> {
        let session = self.session(session_id).ok_or_else(malformed_session)?;
        self.ensure(session.id(), self.session_ttl, None).await?;
        let minted = Uuid::new_v4().to_string();
        match session.put(COMMON, minted.clone()).expect(Expect::Absent).await {
            Ok(_) => Ok(minted),
            Err(error) if error.is_revision_mismatch() => {
                let kept = session.read(COMMON, View::Full).await?;
                Ok(String::from_utf8_lossy(&kept.value).into_owned())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn ensure(
        &self,
        handle: &str,
        ttl: Duration,
        idle_ttl: Option<Duration>,
    ) -> Result<(), ClientError> {
        let session_id = Some(handle.to_owned());
        let session = CreateSession { session_id, ttl: Some(ttl), idle_ttl, ..CreateSession::default() };
        match self.tenant.create_session(session).await {
            Err(error) if !error.is_already_exists() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The session of an MCP session id, which may be anything that a client sent; `None` when none can exist.
    fn session(&self, session_id: &str) -> Option<SessionHandle> {
        let fits = SESSION.len() + session_id.len() <= SESSION_ID_BYTES;
        let valid = !session_id.is_empty() && fits && session_id.bytes().all(|b| b.is_ascii_graphic());
        valid.then(|| self.tenant.session(format!("{SESSION}{session_id}"), None))
    }

    fn stream(&self, name: &str) -> SessionHandle {
        self.tenant.session(format!("{STREAM}{name}"), None)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SessionStore for RmcpStore {
    async fn load(&self, session_id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        Ok(self.restore(session_id).await?)
    }

    async fn store(&self, session_id: &str, state: &SessionState) -> Result<(), SessionStoreError> {
        Ok(self.save(session_id, state).await?)
    }

    async fn delete(&self, session_id: &str) -> Result<(), SessionStoreError> {
        Ok(self.erase(session_id).await?)
    }
}

#[async_trait]
impl EventStore for RmcpStore {
    async fn store_event(
        &self,
        stream_id: &str,
        event: &ServerSseMessage,
    ) -> Result<EventId, EventStoreError> {
        Ok(self.append(stream_id, event).await?)
    }

    async fn replay_events_after(&self, last_event_id: &str) -> Result<RmcpEventStream, EventStoreError> {
        Ok(self.replay(last_event_id).await?)
    }
}

/// One replay on its way to a client.
struct Replay {
    session: SessionHandle,
    name: String,
    last: String,
    follow: Option<Duration>,
    out: mpsc::Sender<ServerSseMessage>,
}

impl Replay {
    async fn run(mut self, first: Option<Event>, stored: EventStream) -> Result<(), RmcpStoreError> {
        let stored = futures_util::stream::iter(first.map(Ok)).chain(stored).boxed();
        let answered = self.pump(stored, false).await?;
        let Some(span) = self.follow.filter(|_| !answered) else { return Ok(()) };
        let later = self.session.events(EVENTS, View::Full).after(self.last.clone()).follow_for(span);
        self.pump(later.follow(), true).await?;
        Ok(())
    }

    /// Passes events on until they end, the client leaves, or, if asked, a response was passed on; whether the last one
    /// was a response.
    async fn pump(&mut self, mut events: EventStream, until_answered: bool) -> Result<bool, RmcpStoreError> {
        let mut answered = false;
        while !(answered && until_answered) {
            let Some(event) = events.try_next().await? else { break };
            let stored: StoredEvent<ServerJsonRpcMessage> = serde_json::from_slice(&event.bytes)?;
            answered = matches!(stored.message, Some(JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_)));
            let mut message = ServerSseMessage::default();
            message.event_id = Some(format!("{}.{}", self.name, event.id));
            message.message = stored.message.map(Arc::new);
            message.retry = stored.retry_ms.map(Duration::from_millis);
            self.last = event.id;
            if self.out.send(message).await.is_err() {
                return Ok(true);
            }
        }
        Ok(answered)
    }
}

/// The name of a stream that belongs to one request. The SDK's ids are UUIDs; any other text is made safe.
fn plain_name(stream_id: &str) -> String {
    match Uuid::try_parse(stream_id) {
        Ok(id) => id.to_string(),
        Err(_) => BASE64URL_NOPAD.encode(stream_id.as_bytes()),
    }
}

/// A session that is unknown or has expired is simply not there.
fn gone_as_none<T>(outcome: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match outcome {
        Err(error) if error.is_not_found() || error.is_expired() => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn malformed_session() -> ClientError {
    let source = NameError::Characters { allowed: "1 to 116 visible ASCII characters" };
    ClientError::Name { what: "MCP session id", source }
}

impl fmt::Debug for RmcpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RmcpStore").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
