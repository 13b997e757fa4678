//! Reads access logs: searches, and a tail that goes on where it broke off.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use tonic::Streaming;
use uuid::Uuid;

use super::Admin;
use crate::client::convert;
use crate::client::error::ClientError;
use crate::client::follow::{self, Source};
use crate::client::link::{Link, admin, call};
use crate::client::page;
use crate::model::limits::AUDIT_BACKLOG;
use crate::model::{Owner, Timestamp};
use crate::proto::v1;

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
    /// The tenant's name, or `uid:` and its uid, also of a destroyed one; `None`: the log of the server itself.
    pub tenant: Option<String>,
    /// Only events at or after this time.
    pub start_time: Option<Timestamp>,
    /// Only events before this time.
    pub end_time: Option<Timestamp>,
    /// Only these operations, for example `ctx.read`, or a family as `ctx.*`; at most 32.
    pub operations: Vec<String>,
    /// Only these outcomes: `ok`, `deny`, `fail`.
    pub outcomes: Vec<String>,
    /// Only events about all of these.
    pub about: AuditSubjects,
    /// The order of a search; a tail is always in the order of the log.
    pub order: AuditOrder,
}

/// Whom and what the events of an access log are about. What is `None` does not restrict.
#[derive(Debug, Clone, Default)]
pub struct AuditSubjects {
    /// On whose credentials: `token:<name>`, `spiffe://…`, `cn:<common name>` or `jwt:<issuer> <subject>`.
    pub principal: Option<String>,
    /// The owner that was named.
    pub owner: Option<Owner>,
    /// The session.
    pub session: Option<String>,
    /// An entry's key, in any session.
    pub entry: Option<String>,
    /// A stream's name, in any session.
    pub stream: Option<String>,
    /// A token's name.
    pub token: Option<String>,
    /// The address from which it was asked for.
    pub address: Option<IpAddr>,
    /// Pseudonyms as they stand in the log; at most 8.
    pub pseudonyms: Vec<String>,
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

impl Default for AuditTail {
    fn default() -> Self {
        Self { search: AuditSearch::default(), backlog: 0, follow: true, patience: follow::PATIENCE }
    }
}

impl Admin {
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

    /// Streams the events of an access log as they are written. Broken connections are made again, and what was written
    /// meanwhile comes first.
    ///
    /// It ends with [`ClientError::Gap`] when more than 1000 matching events were written meanwhile: a search has them.
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
        follow::stream(
            TailSource { link: self.link.clone(), request, seen: None, reopened: false },
            patience,
            None,
        )
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
    /// Whether no event has come since the stream was opened again.
    reopened: bool,
}

impl Source for TailSource {
    type Message = v1::TailAuditResponse;
    type Item = AuditEvent;

    fn open(&mut self) -> BoxFuture<'static, Result<Streaming<Self::Message>, ClientError>> {
        let (link, mut request) = (self.link.clone(), self.request.clone());
        if self.seen.is_some() {
            // What was written while the connection was down is among the newest; what was seen already is left out.
            request.backlog = u32::try_from(AUDIT_BACKLOG).unwrap_or(u32::MAX);
            self.reopened = true;
        }
        async move { link.open(request, call!(admin.tail_audit)).await }.boxed()
    }

    fn accept(&mut self, message: Self::Message) -> Result<Vec<AuditEvent>, ClientError> {
        let mut fresh = Vec::new();
        for event in message.events.into_iter().map(AuditEvent::from_wire) {
            let seen = self.seen.as_ref().filter(|seen| seen.log == event.log).map(|seen| seen.sequence);
            let known = seen.is_some_and(|seen| event.sequence <= seen);
            // The last event seen matches as all others do, so it is in the backlog unless that is full of newer ones.
            if std::mem::take(&mut self.reopened) && !known {
                return Err(ClientError::Gap { log: event.log, after: seen.unwrap_or_default() });
            }
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
        let about = self.about.clone();
        v1::AuditFilter {
            principal: about.principal.unwrap_or_default(),
            owner: about.owner.as_ref().map(convert::owner),
            session_id: about.session.unwrap_or_default(),
            entry_key: about.entry.unwrap_or_default(),
            stream: about.stream.unwrap_or_default(),
            token: about.token.unwrap_or_default(),
            address: about.address.map(|address| address.to_string()).unwrap_or_default(),
            pseudonyms: about.pseudonyms,
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

impl AuditEvent {
    fn from_wire(event: v1::AuditEvent) -> Self {
        Self { log: event.log, sequence: event.sequence, line: event.line }
    }
}
