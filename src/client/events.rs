//! Streams of events: append, replay, follow.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use tonic::Streaming;
use uuid::Uuid;

use super::answer::Answer;
use super::convert;
use super::error::ClientError;
use super::follow::{self, Source};
use super::link::{call, context};
use super::session::SessionHandle;
use crate::model::{Timestamp, View};
use crate::proto::v1;

/// What `expect_last_event_id` says for a stream that must be empty.
const NONE: &str = "none";

/// An event as it is read.
#[derive(Clone)]
pub struct Event {
    /// Unique in the store, ordered within its stream, unguessable without the session's keys.
    pub id: String,
    /// The event's bytes, in the view that was asked for.
    pub bytes: Bytes,
    /// Media type as it was given.
    pub content_type: String,
    /// When it was appended.
    pub append_time: Timestamp,
}

/// An event to append: at most 1 MiB.
#[derive(Clone, Default)]
pub struct NewEvent {
    /// The event's bytes.
    pub bytes: Bytes,
    /// Media type: at most 128 visible ASCII characters; may be empty.
    pub content_type: String,
}

/// An append to a stream; awaiting it sends it.
#[must_use = "nothing is sent until this is awaited"]
pub struct AppendEvents {
    session: SessionHandle,
    request: v1::AppendEventsRequest,
    request_id: Uuid,
}

/// A reading of a stream: [`Events::replay`] or [`Events::follow`] begins it.
#[must_use]
pub struct Events {
    session: SessionHandle,
    request: v1::ReadEventsRequest,
    patience: Duration,
    span: Option<Duration>,
}

/// Events in their order. It ends with its first error.
pub type EventStream = BoxStream<'static, Result<Event, ClientError>>;

impl SessionHandle {
    /// Appends 1 to 256 events, together at most 4 MiB, in order: all of them or none. The answer has one id an event.
    pub fn append<E: Into<NewEvent>>(
        &self,
        stream: impl Into<String>,
        events: impl IntoIterator<Item = E>,
    ) -> AppendEvents {
        let events = events.into_iter().map(Into::into);
        let wire = |event: NewEvent| v1::NewEvent { data: event.bytes, content_type: event.content_type };
        let request = v1::AppendEventsRequest {
            session: Some(self.wire()),
            stream: stream.into(),
            events: events.map(wire).collect(),
            ..v1::AppendEventsRequest::default()
        };
        AppendEvents { session: self.clone(), request, request_id: Uuid::new_v4() }
    }

    /// Begins a reading of a stream from its first event on, in `view`. A stream without events reads as empty.
    pub fn events(&self, stream: impl Into<String>, view: View) -> Events {
        let request = v1::ReadEventsRequest {
            session: Some(self.wire()),
            stream: stream.into(),
            view: convert::view(view).into(),
            ..v1::ReadEventsRequest::default()
        };
        Events { session: self.clone(), request, patience: follow::PATIENCE, span: None }
    }
}

impl AppendEvents {
    /// Appends only if this is the stream's last event; otherwise `LAST_EVENT_MISMATCH`.
    pub fn expect_last(mut self, event_id: impl Into<String>) -> Self {
        self.request.expect_last_event_id = event_id.into();
        self
    }

    /// Appends only if the stream is empty; otherwise `LAST_EVENT_MISMATCH`.
    pub fn expect_empty(self) -> Self {
        self.expect_last(NONE)
    }

    /// Uses this idempotency key instead of a fresh one.
    pub const fn request_id(mut self, id: Uuid) -> Self {
        self.request_id = id;
        self
    }
}

impl IntoFuture for AppendEvents {
    type Output = Result<Answer<Vec<String>>, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        async move {
            self.request.request_id = self.request_id.to_string();
            let link = &self.session.tenant.link;
            let answer = link.unary(self.request_id, self.request, call!(context.append_events)).await?;
            Ok(answer.map(|response| response.event_ids))
        }
        .boxed()
    }
}

impl Events {
    /// Begins after this event instead of with the first.
    pub fn after(mut self, event_id: impl Into<String>) -> Self {
        self.request.after_event_id = event_id.into();
        self
    }

    /// Ends after this many events.
    pub const fn limit(mut self, events: u64) -> Self {
        self.request.limit = events;
        self
    }

    /// How long a broken stream is tried to be opened again before it ends with an error. Default: 60 s.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Ends a following after this time. Default: never.
    pub const fn follow_for(mut self, span: Duration) -> Self {
        self.span = Some(span);
        self
    }

    /// Streams the events that are stored now. A broken connection is opened again after the last event received.
    #[must_use]
    pub fn replay(self) -> EventStream {
        self.stream(false)
    }

    /// Streams the stored events and then those that are appended, until the session ends, which is its last error.
    #[must_use]
    pub fn follow(self) -> EventStream {
        self.stream(true)
    }

    fn stream(mut self, follow: bool) -> EventStream {
        self.request.follow = follow;
        let limited = self.request.limit > 0;
        let source = EventSource { session: self.session, request: self.request, limited };
        follow::stream(source, self.patience, self.span.filter(|_| follow))
    }
}

struct EventSource {
    session: SessionHandle,
    request: v1::ReadEventsRequest,
    limited: bool,
}

impl Source for EventSource {
    type Message = v1::ReadEventsResponse;
    type Item = Event;

    fn open(&mut self) -> BoxFuture<'static, Result<Streaming<Self::Message>, ClientError>> {
        let (link, request) = (self.session.tenant.link.clone(), self.request.clone());
        async move { link.open(request, call!(context.read_events)).await }.boxed()
    }

    fn accept(&mut self, message: Self::Message) -> Result<Vec<Event>, ClientError> {
        let events = message.events.into_iter().map(Event::from_wire).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = events.last() {
            self.request.after_event_id.clone_from(&last.id);
        }
        if self.limited {
            let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
            self.request.limit = self.request.limit.saturating_sub(count);
        }
        Ok(events)
    }

    fn ends_with_server(&self) -> bool {
        !self.request.follow
    }

    fn is_complete(&self) -> bool {
        self.limited && self.request.limit == 0
    }
}

impl Event {
    fn from_wire(event: v1::Event) -> Result<Self, ClientError> {
        Ok(Self {
            id: event.event_id,
            // A slice would pin the whole frame that it arrived in.
            bytes: Bytes::copy_from_slice(&event.data),
            content_type: event.content_type,
            append_time: convert::required_time(event.append_time)?,
        })
    }
}

impl<B: Into<Bytes>> From<B> for NewEvent {
    fn from(bytes: B) -> Self {
        Self { bytes: bytes.into(), content_type: String::new() }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({} bytes)", self.bytes.len())
    }
}

impl fmt::Debug for NewEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewEvent({} bytes)", self.bytes.len())
    }
}

impl fmt::Debug for AppendEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendEvents({} events)", self.request.events.len())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
