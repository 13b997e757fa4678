//! How many calls a server works on at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{MethodKind, Methods, Rpc, Step, proceed};
use crate::api::status::status;
use crate::model::limits::{FOLLOWED_STREAMS, REQUESTS_IN_FLIGHT};
use crate::proto::v1::ErrorReason;

/// What a refused caller is told to wait: a few times what a call takes on a loaded server.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Bounds the calls in flight in a server: those that are answered once, and apart from them those that stream, which last
/// long and would starve the others.
///
/// A call counts until its answer was handed over for sending. What is above the bound is refused at once with
/// RESOURCE_EXHAUSTED, reason OVERLOADED and a `RetryInfo`; nothing queues. Clones count together.
#[derive(Debug, Clone)]
pub struct InFlight {
    methods: Arc<Methods>,
    calls: Bound,
    streams: Bound,
}

#[derive(Debug, Clone)]
struct Bound {
    places: Arc<Semaphore>,
    limit: usize,
}

impl Bound {
    fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(limit)), limit }
    }

    fn taken(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }
}

impl InFlight {
    /// Takes the bounds from `model::limits`.
    #[must_use]
    pub fn new(methods: Arc<Methods>) -> Self {
        Self::with_bounds(methods, REQUESTS_IN_FLIGHT, FOLLOWED_STREAMS)
    }

    /// Takes the most unary calls and the most streams at one time.
    #[must_use]
    pub fn with_bounds(methods: Arc<Methods>, calls: usize, streams: usize) -> Self {
        Self { methods, calls: Bound::new(calls), streams: Bound::new(streams) }
    }

    /// How many unary calls and how many streams are in flight.
    #[must_use]
    pub fn taken(&self) -> (usize, usize) {
        (self.calls.taken(), self.streams.taken())
    }

    fn admit(&self, path: &str) -> Result<OwnedSemaphorePermit, Status> {
        let (bound, what) = match self.methods.kind(path) {
            MethodKind::Unary => (&self.calls, "calls"),
            MethodKind::Streaming => (&self.streams, "streams"),
        };
        Arc::clone(&bound.places).try_acquire_owned().map_err(|_| {
            status(Code::ResourceExhausted, ErrorReason::Overloaded, format!("too many {what} in flight"))
                .metadata("limit", bound.limit.to_string())
                .retry_after(RETRY_AFTER)
                .build()
        })
    }
}

impl Step for InFlight {
    async fn run<S: Rpc>(&self, request: Request<Body>, next: S) -> Response<Body> {
        match self.admit(request.uri().path()) {
            Ok(place) => proceed(next, request).await.map(|inner| Body::new(Held { inner, _place: place })),
            Err(refusal) => refusal.into_http(),
        }
    }
}

/// A body that keeps its call's place until it is dropped.
struct Held {
    inner: Body,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
