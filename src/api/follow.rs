//! Streams that go on: what is there first, then what comes, with heartbeats, until somebody has had enough.
//!
//! A page is made only when the one before was taken, so a slow reader holds one page of memory and nothing else.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use http::Extensions;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Response, Status};

use super::call::Call;
use super::convert;
use super::identify::Standing;
use super::status::status;
use super::transport::Closing;
use crate::model::limits::{FOLLOW_HEARTBEAT, REPLAY_CHUNK_EVENTS};
use crate::proto::v1;
use crate::proto::v1::ErrorReason;
use crate::service::{AuditExport, AuditTail, EventReader, Failure, Receipt, Watcher};

/// One message of a stream, before it is known whether it is worth sending.
pub(super) struct Page<M> {
    message: M,
    receipt: Option<Receipt>,
    empty: bool,
    /// Whether everything there is has been said.
    caught_up: bool,
    /// Whether nothing will follow.
    last: bool,
}

/// Where the messages of a stream come from.
#[tonic::async_trait]
pub(super) trait Pages: Send + 'static {
    /// The message of the stream.
    type Message: Send + 'static;

    /// The next page.
    async fn next_page(&mut self) -> Result<Page<Self::Message>, Failure>;

    /// Waits until there may be something new.
    async fn changed(&mut self);
}

/// How long a stream goes on.
pub(super) struct Pace {
    follow: bool,
    until: Instant,
    closing: Option<Closing>,
    standing: Option<Standing>,
}

impl Pace {
    /// Follows for `max` at most, not longer than the caller's credentials and the server's listener live.
    pub(super) fn new(follow: bool, max: Duration, call: &Call, extensions: &Extensions) -> Self {
        let left = call.credentials_left();
        let (closing, standing) =
            (extensions.get::<Closing>().cloned(), extensions.get::<Standing>().cloned());
        Self { follow, until: Instant::now() + max.min(left), closing, standing }
    }

    /// Whether the caller's credentials still count.
    async fn confirm(&self) -> Result<(), Status> {
        match &self.standing {
            Some(standing) => standing.confirm().await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn closing(&self) {
        match &self.closing {
            Some(closing) => closing.begun().await,
            None => std::future::pending().await,
        }
    }
}

/// A stream of pages.
pub(super) struct Following<P> {
    pages: P,
}

struct Course<P> {
    pages: P,
    pace: Pace,
    call: Call,
    caught_up: bool,
    over: bool,
}

/// What a stream of answers is.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Following<EventPages> {
    pub(super) const fn events(reader: EventReader, limit: Option<u64>) -> Self {
        Self { pages: EventPages { reader, left: limit } }
    }
}

impl Following<WatchPages> {
    pub(super) const fn watch(watcher: Watcher) -> Self {
        Self { pages: WatchPages(watcher) }
    }
}

impl Following<AuditPages> {
    pub(super) fn audit(tail: AuditTail) -> Self {
        Self { pages: AuditPages { log: tail.log(), tail } }
    }
}

impl Following<ExportPages> {
    pub(super) const fn export(export: AuditExport) -> Self {
        Self { pages: ExportPages(export) }
    }
}

impl<P: Pages> Following<P> {
    /// Answers with the first page, so that what is wrong with the request is said before the stream begins.
    pub(super) async fn respond(
        mut self,
        call: Call,
        pace: Pace,
    ) -> Result<Response<Streamed<P::Message>>, Status> {
        let first = match self.pages.next_page().await {
            Ok(first) => first,
            Err(failure) => return Err(call.refused(failure.into()).await),
        };
        let (message, receipt) = (first.message, first.receipt);
        let over = first.last || (first.caught_up && !pace.follow);
        let course = Course { pages: self.pages, pace, call, caught_up: first.caught_up, over };
        let response_course = stream::unfold(course, |mut course| async move {
            let next = course.next().await?;
            Some((next, course))
        });
        let all = stream::once(async { Ok(message) }).chain(response_course);
        let mut response = Response::new(Box::pin(all) as Streamed<P::Message>);
        if let Some(receipt) = receipt {
            super::error::stamp(response.metadata_mut(), receipt);
        }
        Ok(response)
    }
}

impl<P: Pages> Course<P> {
    async fn next(&mut self) -> Option<Result<P::Message, Status>> {
        loop {
            if self.over {
                return None;
            }
            let heartbeat = match self.wait().await {
                Turn::Look { heartbeat } => heartbeat,
                Turn::End => return None,
                Turn::Closing => {
                    self.over = true;
                    let text = "the server is shutting down";
                    return Some(Err(status(Code::Unavailable, ErrorReason::Unavailable, text).build()));
                }
            };
            // Nothing is read for somebody whose credentials were revoked since.
            if let Err(refusal) = self.pace.confirm().await {
                self.over = true;
                return Some(Err(refusal));
            }
            match self.pages.next_page().await {
                Ok(page) => {
                    self.caught_up = page.caught_up;
                    self.over = page.last || (page.caught_up && !self.pace.follow);
                    if !page.empty || heartbeat || self.over {
                        return Some(Ok(page.message));
                    }
                }
                Err(failure) => {
                    self.over = true;
                    return Some(Err(self.call.refused(failure.into()).await));
                }
            }
        }
    }

    /// Waits for a reason to look, unless there is more to say at once.
    async fn wait(&mut self) -> Turn {
        if !self.caught_up {
            return Turn::Look { heartbeat: false };
        }
        tokio::select! {
            biased;
            () = self.pace.closing() => Turn::Closing,
            () = sleep_until(self.pace.until) => Turn::End,
            () = self.pages.changed() => Turn::Look { heartbeat: false },
            () = tokio::time::sleep(FOLLOW_HEARTBEAT) => Turn::Look { heartbeat: true },
        }
    }
}

enum Turn {
    Look { heartbeat: bool },
    End,
    Closing,
}

/// The events of a stream.
pub(super) struct EventPages {
    reader: EventReader,
    left: Option<u64>,
}

#[tonic::async_trait]
impl Pages for EventPages {
    type Message = v1::ReadEventsResponse;

    async fn next_page(&mut self) -> Result<Page<Self::Message>, Failure> {
        let most = self.left.map_or(REPLAY_CHUNK_EVENTS, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let (page, receipt) = self.reader.next_page(most).await?;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(page.events.len() as u64);
        }
        let empty = page.events.is_empty();
        let events = page.events.into_iter().map(convert::event).collect();
        let message = v1::ReadEventsResponse { events, caught_up: page.caught_up };
        Ok(Page { message, receipt, empty, caught_up: page.caught_up, last: self.left == Some(0) })
    }

    async fn changed(&mut self) {
        self.reader.changed().await;
    }
}

/// The changes of a session.
pub(super) struct WatchPages(Watcher);

#[tonic::async_trait]
impl Pages for WatchPages {
    type Message = v1::WatchSessionResponse;

    async fn next_page(&mut self) -> Result<Page<Self::Message>, Failure> {
        let (page, receipt) = self.0.next_page().await?;
        let empty = page.changes.is_empty() && !page.snapshot;
        let message = v1::WatchSessionResponse {
            changes: page.changes.into_iter().map(convert::change).collect(),
            snapshot: page.snapshot,
            caught_up: page.caught_up,
            resume_token: page.resume,
        };
        Ok(Page { message, receipt, empty, caught_up: page.caught_up, last: false })
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }
}

/// The events of an access log.
pub(super) struct AuditPages {
    tail: AuditTail,
    log: String,
}

#[tonic::async_trait]
impl Pages for AuditPages {
    type Message = v1::TailAuditResponse;

    async fn next_page(&mut self) -> Result<Page<Self::Message>, Failure> {
        let lines = self.tail.next_lines().await?;
        let empty = lines.is_empty();
        let events = lines.into_iter().map(|line| convert::audit_event(&self.log, line)).collect();
        let receipt = self.tail.receipt();
        Ok(Page { message: v1::TailAuditResponse { events }, receipt, empty, caught_up: true, last: false })
    }

    async fn changed(&mut self) {
        self.tail.changed().await;
    }
}

/// All events of an access log.
pub(super) struct ExportPages(AuditExport);

#[tonic::async_trait]
impl Pages for ExportPages {
    type Message = v1::ExportAuditResponse;

    async fn next_page(&mut self) -> Result<Page<Self::Message>, Failure> {
        let page = self.0.next_page().await?;
        let (checkpoint, verifier_key) = page.signed.unwrap_or_default();
        let empty = page.lines.is_empty();
        let message = v1::ExportAuditResponse { checkpoint, verifier_key, lines: page.lines };
        Ok(Page { message, receipt: page.receipt, empty, caught_up: page.last, last: page.last })
    }

    /// An export ends and does not follow.
    async fn changed(&mut self) {
        std::future::pending().await
    }
}
