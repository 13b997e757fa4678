//! Server streams that go on where they broke off.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};

use super::error::{CallError, ClientError, Origin};
use super::retry::Retries;
use crate::model::limits::FOLLOW_HEARTBEAT;

/// Silence after which a followed stream counts as broken: two heartbeats may be lost.
const SILENCE: Duration = FOLLOW_HEARTBEAT.saturating_mul(3);

/// What is streamed, and how to go on with it.
pub(super) trait Source: Send + 'static {
    /// One message of the server's stream.
    type Message: Send + 'static;
    /// What the caller sees.
    type Item: Send + 'static;

    /// Opens the stream after the last item that was accepted.
    fn open(&mut self) -> BoxFuture<'static, Result<Streaming<Self::Message>, ClientError>>;
    /// Takes a message apart and notes where to go on.
    fn accept(&mut self, message: Self::Message) -> Result<Vec<Self::Item>, ClientError>;
    /// Whether the server's end of the stream is the end.
    fn ends_with_server(&self) -> bool;
    /// Whether nothing more is wanted.
    fn is_complete(&self) -> bool {
        false
    }
}

/// How long a broken stream is tried to be opened again before the caller hears of it, unless configured.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

struct Following<S: Source> {
    source: S,
    patience: Duration,
    until: Option<Instant>,
    open: Option<Streaming<S::Message>>,
    ready: VecDeque<S::Item>,
    failing: Option<(Instant, u32)>,
}

/// Streams `source`; opens it again when the connection breaks, for at most `patience` without a message in between.
pub(super) fn stream<S: Source>(
    source: S,
    patience: Duration,
    span: Option<Duration>,
) -> BoxStream<'static, Result<S::Item, ClientError>> {
    let until = span.map(|span| Instant::now() + span);
    let following = Following { source, patience, until, open: None, ready: VecDeque::new(), failing: None };
    stream::try_unfold(following, |mut following| async move {
        let item = following.next().await?;
        Ok(item.map(|item| (item, following)))
    })
    .boxed()
}

impl<S: Source> Following<S> {
    async fn next(&mut self) -> Result<Option<S::Item>, ClientError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            if self.source.is_complete() || left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let step = self.step();
            let ended = match left {
                Some(left) => timeout(left, step).await.unwrap_or(Ok(true))?,
                None => step.await?,
            };
            if ended {
                return Ok(None);
            }
        }
    }

    /// Opens the stream or receives one message; whether this was the end.
    async fn step(&mut self) -> Result<bool, ClientError> {
        let Some(open) = self.open.as_mut() else {
            match self.source.open().await {
                Ok(stream) => self.open = Some(stream),
                Err(error) => self.failed(error).await?,
            }
            return Ok(false);
        };
        match timeout(SILENCE, open.message()).await {
            Ok(Ok(Some(message))) => {
                self.failing = None;
                self.ready = self.source.accept(message)?.into();
            }
            Ok(Ok(None)) => {
                self.open = None;
                return Ok(self.source.ends_with_server());
            }
            Ok(Err(status)) => self.broke(&status).await?,
            Err(_) => self.failed(CallError::deadline(SILENCE, None).into()).await?,
        }
        Ok(false)
    }

    async fn broke(&mut self, status: &Status) -> Result<(), ClientError> {
        self.failed(CallError::from_status(status, None).into()).await
    }

    /// Waits before the next attempt, or gives up with `error`.
    async fn failed(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.open = None;
        if !passing(&error) {
            return Err(error);
        }
        let (since, failures) =
            self.failing.map_or((Instant::now(), 1), |(since, before)| (since, before + 1));
        self.failing = Some((since, failures));
        let pause = Retries::default().pause_after(failures).max(error.retry_after().unwrap_or_default());
        if since.elapsed() + pause > self.patience {
            return Err(error);
        }
        sleep(pause).await;
        Ok(())
    }
}

/// Whether a stream that ended so is worth opening again.
pub(super) fn passing(error: &ClientError) -> bool {
    let silent = error.call().is_some_and(|call| call.origin() == Origin::Deadline);
    silent || error.code() == Code::Unavailable || error.retry_after().is_some()
}
