//! `strongroom event`: ordered streams within a session.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::args::ViewArg;
use super::entry::read_value;
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Content, Record, Time};
use crate::client::{AppendEvents, Event, NewEvent, SessionHandle};
use crate::model::limits::{APPEND_BYTES, APPEND_EVENTS, EVENT_BYTES};

/// What can be done with event streams.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Append an event to a stream and print its id
    ///
    /// The event is read from FILE, or from standard input when FILE is '-' or not given; it has at most 1 MiB. The
    /// stream exists from its first event on.
    Append(AppendArgs),
    /// Print the events of a stream, oldest first
    Tail(TailArgs),
}

/// Arguments of `event append`.
#[derive(Debug, Args)]
pub struct AppendArgs {
    /// The session's handle
    session: String,
    /// The stream's name
    stream: String,
    /// File that holds the event; '-' is standard input
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,
    /// Append every line as an event of its own: up to 256, all of them or none
    #[arg(long)]
    lines: bool,
    /// Media type of the events
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// Only if this is the stream's last event; 'none': only if the stream is empty
    #[arg(long, value_name = "ID|none")]
    expect_last: Option<String>,
}

/// Arguments of `event tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The session's handle
    session: String,
    /// The stream's name
    stream: String,
    /// Begin after this event
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Go on with events that are appended later
    #[arg(long, short)]
    follow: bool,
    /// Stop after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Which part of the events
    #[arg(long, value_enum, default_value = "redacted")]
    view: ViewArg,
    /// Print nothing but the events' bytes, each followed by a newline
    #[arg(long, conflicts_with = "output")]
    raw: bool,
}

impl EventCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::Append(args) => args.run(invocation).await,
            Self::Tail(args) => args.run(invocation).await,
        }
    }
}

impl AppendArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let session = invocation.session(&self.session)?;
        let most = if self.lines { APPEND_BYTES } else { EVENT_BYTES };
        let bytes = read_value(&self.file, invocation, "what is appended", most)?;
        let events = if self.lines { lines(&bytes)? } else { vec![bytes] };
        let ids = self.append(&session, events).await.map_err(Failure::call("append to the stream"))?;
        let mut listing = invocation.console.listing();
        for event_id in ids.into_inner() {
            listing.push(&AppendedRecord { event_id })?;
        }
        listing.finish()
    }

    fn append(self, session: &SessionHandle, events: Vec<Bytes>) -> AppendEvents {
        let content_type = self.content_type;
        let events = events.into_iter().map(|bytes| NewEvent { bytes, content_type: content_type.clone() });
        let append = session.append(self.stream, events);
        match self.expect_last.as_deref() {
            None => append,
            Some("none") => append.expect_empty(),
            Some(id) => append.expect_last(id),
        }
    }
}

impl TailArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let patience = invocation.global().timeout();
        let mut events =
            invocation.session(&self.session)?.events(self.stream, self.view.into()).patience(patience);
        if let Some(id) = self.after {
            events = events.after(id);
        }
        if let Some(limit) = self.limit {
            events = events.limit(limit);
        }
        let mut events = if self.follow { events.follow() } else { events.replay() };
        let failed = Failure::call("read the stream");
        if self.raw {
            while let Some(event) = events.next().await {
                let mut bytes = event.map_err(&failed)?.bytes.to_vec();
                bytes.push(b'\n');
                invocation.console.raw(&bytes)?;
            }
            return Ok(());
        }
        let mut stream = invocation.console.stream(&[]);
        while let Some(event) = events.next().await {
            stream.push(&EventRecord::from(&event.map_err(&failed)?))?;
        }
        Ok(())
    }
}

/// Takes text apart into its lines; an empty line is an empty event, a newline at the very end begins none.
fn lines(text: &Bytes) -> Result<Vec<Bytes>, Failure> {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Err(Failure::Combination("there is no line to append"));
    }
    let lines: Vec<Bytes> = body.split(|byte| *byte == b'\n').map(|line| text.slice_ref(line)).collect();
    if lines.len() > APPEND_EVENTS {
        return Err(Failure::TooMany { what: "lines", most: APPEND_EVENTS });
    }
    Ok(lines)
}

#[derive(Serialize)]
struct AppendedRecord {
    event_id: String,
}

impl Record for AppendedRecord {
    const COLUMNS: &'static [&'static str] = &["EVENT"];

    fn cells(&self) -> Vec<String> {
        vec![self.event_id.clone()]
    }
}

/// An event as it is printed.
#[derive(Serialize)]
struct EventRecord {
    event_id: String,
    appended: Time,
    content_type: String,
    size: usize,
    #[serde(flatten)]
    content: Content,
}

impl From<&Event> for EventRecord {
    fn from(event: &Event) -> Self {
        Self {
            event_id: event.id.clone(),
            appended: Time(event.append_time),
            content_type: event.content_type.clone(),
            size: event.bytes.len(),
            content: Content::from(&event.bytes),
        }
    }
}

impl Record for EventRecord {
    const COLUMNS: &'static [&'static str] = &["APPENDED", "EVENT", "CONTENT"];

    fn cells(&self) -> Vec<String> {
        let content = match &self.content {
            Content::Text(text) => text.clone(),
            Content::Base64(_) => format!("({} bytes that are no text)", self.size),
        };
        vec![self.appended.to_string(), self.event_id.clone(), content]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &'static str) -> Vec<Bytes> {
        lines(&Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn every_line_is_an_event_and_the_last_newline_begins_none() {
        assert_eq!(split("a\n\nb\n"), ["a", "", "b"]);
        assert_eq!(split("a\nb"), ["a", "b"]);
        assert_eq!(split("\n"), [""]);
        assert!(matches!(lines(&Bytes::new()), Err(Failure::Combination(_))));
    }

    #[test]
    fn more_lines_than_one_append_takes_are_refused() {
        assert_eq!(lines(&Bytes::from("x\n".repeat(256))).unwrap().len(), 256);
        assert!(matches!(lines(&Bytes::from("x\n".repeat(257))), Err(Failure::TooMany { most: 256, .. })));
    }
}
