//! Until when an answer is worth having.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{MethodKind, Methods, Rpc, Step, body, proceed};
use crate::api::status::{invalid_field, status};
use crate::model::limits::WALK_DEADLINE_CEILING;
use crate::proto::v1::ErrorReason;

const HEADER: &str = "grpc-timeout";

/// Unary methods that walk through all sessions of a tenant: their callers may give them more time than others have. The
/// walk gives way at every stride, and so ends with the call.
const WALKS: [&str; 4] = [
    "/strongroom.v1.AdminService/CountKekUse",
    "/strongroom.v1.AdminService/DestroyKek",
    "/strongroom.v1.AdminService/StartJob",
    "/strongroom.v1.AdminService/CancelJob",
];

/// The point in time at which a call's answer is no longer wanted; in the extensions of every request.
///
/// By the monotonic clock. A stream whose caller set none has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Option<Instant>,
}

impl Deadline {
    /// What is left, zero when it has passed; none when there is no deadline.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether it has passed, so that work should not be started.
    #[must_use]
    pub fn passed(self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }
}

/// Ends calls at their deadline with DEADLINE_EXCEEDED.
///
/// The deadline of a unary call is its `grpc-timeout` or the ceiling, whichever is earlier; it covers receiving the request. For
/// the few calls that walk through all sessions of a tenant, a caller may ask for more than the ceiling.
/// A stream has the deadline of its caller alone, but must begin to answer within the ceiling. A call whose time was up
/// when it came is not started. At the deadline the handler's future is dropped, so handlers must be safe to drop at every
/// `await`; what was handed to the committer is committed as a whole or not at all.
#[derive(Debug, Clone)]
pub struct Deadlines {
    methods: Arc<Methods>,
    ceiling: Duration,
}

impl Deadlines {
    /// Takes the longest time that a unary call may have.
    #[must_use]
    pub fn new(methods: Arc<Methods>, ceiling: Duration) -> Self {
        Self { methods, ceiling }
    }
}

impl Step for Deadlines {
    async fn run<S: Rpc>(&self, mut request: Request<Body>, next: S) -> Response<Body> {
        let asked = match asked(request.headers()) {
            Ok(asked) => asked,
            Err(refusal) => return refusal.into_http(),
        };
        let now = Instant::now();
        let path = request.uri().path();
        let longest =
            if WALKS.contains(&path) { self.ceiling.max(WALK_DEADLINE_CEILING) } else { self.ceiling };
        let begin = now + asked.map_or(self.ceiling, |asked| asked.min(longest));
        let kind = self.methods.kind(path);
        let end = match kind {
            MethodKind::Unary => Some(begin),
            MethodKind::Streaming => asked.map(|asked| now + asked),
        };
        if begin <= Instant::now() {
            return exceeded().into_http();
        }
        request.extensions_mut().insert(Deadline { at: end });
        match (timeout_at(begin, proceed(next, request)).await, kind, end) {
            (Err(_), _, _) => exceeded().into_http(),
            (Ok(response), MethodKind::Streaming, Some(end)) => {
                response.map(|inner| Body::new(Ending::new(inner, end)))
            }
            (Ok(response), _, _) => response,
        }
    }
}

/// A stream that ends at its caller's deadline.
struct Ending {
    inner: Body,
    end: Pin<Box<Sleep>>,
    over: bool,
}

impl Ending {
    fn new(inner: Body, end: Instant) -> Self {
        Self { inner, end: Box::pin(sleep_until(end)), over: false }
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.end.as_mut().poll(cx).is_ready() {
            self.over = true;
            self.inner = Body::empty();
            return Poll::Ready(Some(Ok(body::trailers(&exceeded()))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn exceeded() -> Status {
    status(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, "the deadline has passed").build()
}

/// Reads `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Requests").
fn asked(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match parse(value.as_bytes()) {
        Some(asked) if values.next().is_none() => Ok(Some(asked)),
        _ => Err(invalid_field(HEADER, "is not 1 to 8 digits and one of H M S m u n").build()),
    }
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const UNARY: &str = "/strongroom.v1.ContextService/PutEntry";
    const STREAM: &str = "/strongroom.v1.ContextService/ReadEvents";

    fn step(ceiling: Duration) -> Deadlines {
        let methods = Methods::from_descriptors([crate::proto::DESCRIPTORS]).unwrap();
        Deadlines::new(Arc::new(methods), ceiling)
    }

    fn request(path: &str, timeout: Option<&str>) -> Request<Body> {
        let mut request = Request::post(path).body(Body::empty()).unwrap();
        if let Some(timeout) = timeout {
            request.headers_mut().insert(HEADER, timeout.parse().unwrap());
        }
        request
    }

    /// A handler that reports the deadline that it was given, in milliseconds.
    fn reporting() -> impl Rpc {
        tower::service_fn(|request: Request<Body>| async move {
            let left = request.extensions().get::<Deadline>().unwrap().remaining();
            let mut response = Response::new(Body::empty());
            let left = left.map_or("none".to_owned(), |left| left.as_millis().to_string());
            response.headers_mut().insert("left", left.parse().unwrap());
            Ok::<_, Infallible>(response)
        })
    }

    fn never() -> impl Rpc {
        tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>())
    }

    async fn left(path: &str, timeout: Option<&str>) -> String {
        let response = step(Duration::from_secs(30)).run(request(path, timeout), reporting()).await;
        response.headers()["left"].to_str().unwrap().to_owned()
    }

    fn code(response: &Response<Body>) -> Option<Code> {
        Status::from_header_map(response.headers()).map(|status| status.code())
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(parse(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse(b"2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse(b"99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parse(b"7m"), Some(Duration::from_millis(7)));
        assert_eq!(parse(b"8u"), Some(Duration::from_micros(8)));
        assert_eq!(parse(b"9n"), Some(Duration::from_nanos(9)));
        for bad in ["", "S", "5", "5s", "-5S", "+5S", " 5S", "5 S", "1.5S", "100000000S", "5SS", "\u{663}S"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_unary_call_has_its_own_deadline_or_the_ceiling() {
        assert_eq!(left(UNARY, None).await, "30000");
        assert_eq!(left(UNARY, Some("5S")).await, "5000");
        assert_eq!(left(UNARY, Some("5H")).await, "30000");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_walks_through_all_sessions_may_ask_for_more_than_the_ceiling() {
        for walk in WALKS {
            assert_eq!(left(walk, None).await, "30000");
            assert_eq!(left(walk, Some("2M")).await, "120000");
            assert_eq!(left(walk, Some("5H")).await, "300000");
            let methods = Methods::from_descriptors([crate::proto::DESCRIPTORS]).unwrap();
            assert_eq!(methods.loggable(walk), walk, "there is no such method");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_the_deadline_of_its_caller_alone() {
        assert_eq!(left(STREAM, None).await, "none");
        assert_eq!(left(STREAM, Some("1H")).await, "3600000");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_is_answered_with_deadline_exceeded() {
        for path in [UNARY, STREAM] {
            let response = step(Duration::from_secs(30)).run(request(path, None), never()).await;
            assert_eq!(code(&response), Some(Code::DeadlineExceeded));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_time_is_up_is_not_started() {
        let untouched = tower::service_fn(|_: Request<Body>| async { panic!("it was started") });
        let response = step(Duration::from_secs(30)).run(request(UNARY, Some("0S")), untouched).await;
        assert_eq!(code(&response), Some(Code::DeadlineExceeded));
    }

    #[tokio::test]
    async fn a_malformed_timeout_is_the_callers_error() {
        let response = step(Duration::from_secs(30)).run(request(UNARY, Some("5s")), never()).await;
        assert_eq!(code(&response), Some(Code::InvalidArgument));
    }
}
