//! Changes of a session's entries as they happen.

use std::fmt;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use tonic::Streaming;

use super::convert;
use super::error::ClientError;
use super::follow::{self, Source};
use super::link::{call, context};
use super::session::SessionHandle;
use crate::model::Revision;
use crate::proto::v1;

/// A watch that can be begun with [`Watch::stream`].
#[must_use]
pub struct Watch {
    session: SessionHandle,
    resume_token: String,
    patience: Duration,
    span: Option<Duration>,
}

/// Updates in the order of their commits. It ends with its first error.
pub type WatchStream = BoxStream<'static, Result<WatchUpdate, ClientError>>;

/// One update.
#[derive(Clone, Debug)]
pub struct WatchUpdate {
    /// The changes, in the order of their commits; may be empty.
    pub changes: Vec<EntryChange>,
    /// Whether `changes` belong to a listing of all entries that replaces whatever was known before. A stream begins with
    /// one, and sends another when it could not be resumed after the connection broke.
    pub snapshot: bool,
    /// Whether everything that had happened when the update was made has been sent.
    pub caught_up: bool,
    /// Where another watch could go on, as long as this server process lives.
    pub resume_token: String,
}

/// The change of one entry.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryChange {
    /// The entry's name.
    pub key: String,
    /// Its revision.
    pub revision: Revision,
    /// Whether it was deleted.
    pub deleted: bool,
}

impl SessionHandle {
    /// Begins a watch of the session's entries.
    pub fn watch(&self) -> Watch {
        Watch { session: self.clone(), resume_token: String::new(), patience: follow::PATIENCE, span: None }
    }
}

impl Watch {
    /// Goes on after this update instead of beginning with a snapshot, if the server still can.
    pub fn resume(mut self, token: impl Into<String>) -> Self {
        self.resume_token = token.into();
        self
    }

    /// How long a broken stream is tried to be opened again before it ends with an error. Default: 60 s.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Ends the watch after this time. Default: never.
    pub const fn watch_for(mut self, span: Duration) -> Self {
        self.span = Some(span);
        self
    }

    /// Streams updates until the session ends, which is its last error.
    #[must_use]
    pub fn stream(self) -> WatchStream {
        let request = v1::WatchSessionRequest {
            session: Some(self.session.wire()),
            resume_token: self.resume_token,
            max_duration: None,
        };
        follow::stream(WatchSource { session: self.session, request }, self.patience, self.span)
    }
}

struct WatchSource {
    session: SessionHandle,
    request: v1::WatchSessionRequest,
}

impl Source for WatchSource {
    type Message = v1::WatchSessionResponse;
    type Item = WatchUpdate;

    fn open(&mut self) -> BoxFuture<'static, Result<Streaming<Self::Message>, ClientError>> {
        let (link, request) = (self.session.tenant.link.clone(), self.request.clone());
        async move { link.open(request, call!(context.watch_session)).await }.boxed()
    }

    fn accept(&mut self, message: Self::Message) -> Result<Vec<WatchUpdate>, ClientError> {
        self.request.resume_token.clone_from(&message.resume_token);
        Ok(vec![WatchUpdate {
            changes: message.changes.into_iter().map(EntryChange::from_wire).collect::<Result<_, _>>()?,
            snapshot: message.snapshot,
            caught_up: message.caught_up,
            resume_token: message.resume_token,
        }])
    }

    fn ends_with_server(&self) -> bool {
        false
    }
}

impl EntryChange {
    fn from_wire(change: v1::EntryChange) -> Result<Self, ClientError> {
        let revision = convert::revision_from(change.revision)?;
        Ok(Self { key: change.key, revision, deleted: change.deleted })
    }
}

impl fmt::Debug for EntryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryChange")
            .field("revision", &self.revision)
            .field("deleted", &self.deleted)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
