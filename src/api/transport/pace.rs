//! Answers that their peer does not take.
//!
//! HTTP/2 lets a peer leave its flow-control window shut for as long as it likes, and what was handed to the connection waits
//! in memory meanwhile. So answers are handed over in pieces, which keeps what waits small, and a stream that does not take
//! its next piece for too long is reset.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::counters::Counters;

/// Largest piece: one frame of HTTP/2 at its default size.
const PIECE_BYTES: usize = 16 << 10;

/// How far the body of one answer has come: odd when a piece was handed over and the next one was not asked for.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

impl Progress {
    fn handed_over(&self) {
        self.0.fetch_or(1, Ordering::Relaxed);
    }

    fn asked_for(&self) {
        let step = self.0.load(Ordering::Relaxed) & 1;
        self.0.fetch_add(step, Ordering::Relaxed);
    }

    fn waits_since(&self) -> Option<u64> {
        let step = self.0.load(Ordering::Relaxed);
        (step & 1 == 1).then_some(step)
    }
}

/// A body that is handed over in pieces.
pub(super) struct Paced {
    inner: Body,
    rest: Bytes,
    progress: Arc<Progress>,
}

impl Paced {
    pub(super) fn new(inner: Body, progress: Arc<Progress>) -> Self {
        Self { inner, rest: Bytes::new(), progress }
    }

    fn hand_over(&mut self) -> Frame<Bytes> {
        self.progress.handed_over();
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE_BYTES)))
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.progress.asked_for();
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.hand_over())));
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(chunk) => {
                self.rest = chunk;
                self.hand_over()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where the service of a connection leaves the progress of a call for [`Spawner`], which runs it next.
#[derive(Debug, Clone, Default)]
pub(super) struct Handover(Arc<Mutex<Option<Arc<Progress>>>>);

impl Handover {
    pub(super) fn leave(&self, progress: Arc<Progress>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    fn take(&self) -> Option<Arc<Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs the streams of one connection. A stream that stalls is dropped, upon which HTTP/2 resets it and frees what it held.
///
/// Every stream ends when the connection is `gone`, and holds a clone of `alive` until then, so that the receiver of these ends
/// when the last handler has.
///
/// hyper calls the service and spawns its stream in one go (`proto::h2::server`), so what was left at the handover
/// belongs to the stream that is spawned. If it should ever do otherwise, streams go unwatched and nothing else happens.
#[derive(Debug, Clone)]
pub(super) struct Spawner {
    handover: Handover,
    limit: Duration,
    counters: Arc<Counters>,
    gone: CancellationToken,
    alive: mpsc::Sender<Infallible>,
}

impl Spawner {
    pub(super) fn new(
        limit: Duration,
        counters: Arc<Counters>,
        gone: CancellationToken,
        alive: mpsc::Sender<Infallible>,
    ) -> Self {
        Self { handover: Handover::default(), limit, counters, gone, alive }
    }

    /// Where the service leaves what it knows of the next stream.
    pub(super) fn handover(&self) -> Handover {
        self.handover.clone()
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        let progress = self.handover.take().unwrap_or_default();
        let Self { limit, counters, gone, alive, .. } = self.clone();
        tokio::spawn(async move {
            let ended = gone.run_until_cancelled(runs_to_its_end(stream, &progress, limit)).await;
            if ended == Some(false) {
                counters.stalled_streams.add_one();
            }
            drop(alive);
        });
    }
}

/// Runs `stream`; answers false when it was given up because it did not ask for its next piece within `limit`.
async fn runs_to_its_end(stream: impl Future<Output = ()>, progress: &Progress, limit: Duration) -> bool {
    let mut stream = pin!(stream);
    let mut waiting: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        let Some(since) = progress.waits_since() else {
            waiting = None;
            return Poll::Pending;
        };
        let timer = match waiting.take() {
            Some((step, timer)) if step == since => timer,
            _ => Box::pin(sleep(limit)),
        };
        let (_, timer) = waiting.insert((since, timer));
        timer.as_mut().poll(cx).map(|()| false)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Full};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_large_chunk_is_handed_over_in_pieces() {
        let chunk: Vec<u8> = (0..40_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let inner = Body::new(Full::new(Bytes::from(chunk.clone())));
        let mut paced = Paced::new(inner, Arc::default());
        let mut pieces = Vec::new();
        while let Some(frame) = paced.frame().await {
            pieces.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [16_384, 16_384, 7_232]);
        assert_eq!(pieces.concat(), chunk);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_leaves_its_piece_is_given_up_after_the_limit() {
        let progress = Progress::default();
        progress.handed_over();
        let begin = tokio::time::Instant::now();
        assert!(!runs_to_its_end(std::future::pending(), &progress, Duration::from_secs(60)).await);
        assert_eq!(begin.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_has_the_limit_anew() {
        let progress = Progress::default();
        progress.handed_over();
        let stream = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(50)).await;
                progress.asked_for();
                progress.handed_over();
            }
        };
        assert!(runs_to_its_end(stream, &progress, Duration::from_secs(60)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_us_is_not_given_up() {
        let progress = Progress::default();
        progress.handed_over();
        progress.asked_for();
        let event = Notify::new();
        let stream = async {
            tokio::select! {
                () = sleep(Duration::from_secs(3600)) => {}
                () = event.notified() => {}
            }
        };
        assert!(runs_to_its_end(stream, &progress, Duration::from_secs(60)).await);
    }
}
