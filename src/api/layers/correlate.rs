//! Which call this is: for logs, for the access log, and for the caller.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::{MethodKind, Methods, Rpc, Step, proceed};
use crate::api::status::invalid_field;

/// The metadata key under which a caller names a call, and every answer repeats the name.
pub const REQUEST_ID_HEADER: &str = "strongroom-request-id";

const TRACE_HEADER: &str = "traceparent";

/// What names a call; in the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correlation {
    /// The caller's id for this call, or one that was made for it. Not the idempotency key of a mutation.
    pub request: [u8; 16],
    /// The trace that the call belongs to, if its caller keeps one.
    pub trace: Option<Trace>,
}

/// A W3C trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: [u8; 16],
    /// The caller's span.
    pub parent: [u8; 8],
    /// Whether the caller records it.
    pub sampled: bool,
}

/// Gives every call an id, a span named `rpc` with this id, the method and the trace, and answers with the id.
///
/// An id is a UUID in its form with hyphens; another text is refused, since its caller would look for it in vain. A
/// `traceparent` that is not valid is ignored, as W3C Trace Context demands.
#[derive(Clone)]
pub struct Correlate {
    methods: Arc<Methods>,
    mint: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
}

impl fmt::Debug for Correlate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correlate").finish_non_exhaustive()
    }
}

impl Correlate {
    /// Takes what makes ids for calls that bring none.
    pub fn new(methods: Arc<Methods>, mint: impl Fn() -> [u8; 16] + Send + Sync + 'static) -> Self {
        Self { methods, mint: Arc::new(mint) }
    }
}

impl Step for Correlate {
    async fn run<S: Rpc>(&self, mut request: Request<Body>, next: S) -> Response<Body> {
        let id = match request_id(request.headers()) {
            Ok(id) => id.unwrap_or_else(|| (self.mint)()),
            Err(refusal) => return refusal.into_http(),
        };
        let trace = trace(request.headers());
        request.extensions_mut().insert(Correlation { request: id, trace });
        let id = Uuid::from_bytes(id);
        let kind = self.methods.kind(request.uri().path());
        let method = self.methods.loggable(request.uri().path());
        let span = tracing::info_span!("rpc", request = %id, method, trace = tracing::field::Empty);
        if let Some(trace) = trace {
            span.record("trace", tracing::field::display(Uuid::from_bytes(trace.id).simple()));
        }
        let mut response = proceed(next, request).instrument(span.clone()).await;
        if kind == MethodKind::Streaming {
            response = response.map(|inner| Body::new(Spanned { inner, span }));
        }
        if let Ok(id) = HeaderValue::try_from(id.to_string()) {
            response.headers_mut().insert(REQUEST_ID_HEADER, id);
        }
        response
    }
}

/// A stream that is made within the span of its call.
struct Spanned {
    inner: Body,
    span: Span,
}

impl http_body::Body for Spanned {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.span.clone();
        let _within = span.enter();
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn request_id(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Status> {
    let mut values = headers.get_all(REQUEST_ID_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let id = value.to_str().ok().filter(|text| text.len() == uuid::fmt::Hyphenated::LENGTH);
    match id.and_then(|text| Uuid::try_parse(text).ok()) {
        Some(id) if values.next().is_none() => Ok(Some(id.into_bytes())),
        _ => Err(invalid_field(REQUEST_ID_HEADER, "is not one UUID with hyphens").build()),
    }
}

fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut values = headers.get_all(TRACE_HEADER).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { parse_trace(value.as_bytes()) }
}

/// Reads `version "-" trace-id "-" parent-id "-" flags` (W3C Trace Context, 3.2.2).
///
/// A higher version than ours may go on after another hyphen.
fn parse_trace(value: &[u8]) -> Option<Trace> {
    let (head, rest) = value.split_at_checked(55)?;
    let mut parts = head.split(|byte| *byte == b'-');
    let [version] = hex(parts.next()?)?;
    let trace = Trace { id: hex(parts.next()?)?, parent: hex(parts.next()?)?, sampled: false };
    let [flags] = hex(parts.next()?)?;
    let ends_well = rest.is_empty() || (version > 0 && rest.first() == Some(&b'-'));
    let is_valid = version != 0xff && trace.id != [0; 16] && trace.parent != [0; 8];
    (ends_well && is_valid && parts.next().is_none()).then_some(Trace { sampled: flags & 1 == 1, ..trace })
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    data_encoding::HEXLOWER.decode_mut(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ID: &str = "123e4567-e89b-12d3-a456-426614174000";

    async fn run(headers: &[(&'static str, &str)]) -> (Response<Body>, Option<Correlation>) {
        let methods = Methods::from_descriptors([crate::proto::DESCRIPTORS]).unwrap();
        let step = Correlate::new(Arc::new(methods), || [7; 16]);
        let mut request = Request::post("/x/y").body(Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let handler = tower::service_fn(|request: Request<Body>| async move {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(*request.extensions().get::<Correlation>().unwrap());
            Ok::<_, Infallible>(response)
        });
        let response = step.run(request, handler).await;
        let seen = response.extensions().get::<Correlation>().copied();
        (response, seen)
    }

    #[tokio::test]
    async fn a_callers_id_is_taken_and_repeated() {
        let (response, seen) = run(&[(REQUEST_ID_HEADER, ID)]).await;
        assert_eq!(response.headers()[REQUEST_ID_HEADER], ID);
        assert_eq!(seen.unwrap().request, Uuid::parse_str(ID).unwrap().into_bytes());
    }

    #[tokio::test]
    async fn a_call_without_an_id_gets_one() {
        let (response, seen) = run(&[]).await;
        assert_eq!(seen, Some(Correlation { request: [7; 16], trace: None }));
        assert_eq!(response.headers()[REQUEST_ID_HEADER], "07070707-0707-0707-0707-070707070707");
    }

    #[tokio::test]
    async fn an_id_that_is_no_uuid_or_is_given_twice_is_refused() {
        let simple = ID.replace('-', "");
        for bad in [
            &[(REQUEST_ID_HEADER, "x")][..],
            &[(REQUEST_ID_HEADER, simple.as_str())],
            &[(REQUEST_ID_HEADER, ID), (REQUEST_ID_HEADER, ID)],
        ] {
            let (response, seen) = run(bad).await;
            assert_eq!(seen, None);
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
        }
    }

    /// A body that ends when it is within a span with the name `rpc`.
    struct Probe;

    impl http_body::Body for Probe {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let within = Span::current().metadata().is_some_and(|span| span.name() == "rpc");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![u8::from(within)])))))
        }
    }

    #[tokio::test]
    async fn a_handler_and_its_stream_run_within_the_span() {
        // For the whole process: whether a span is on is decided once, in whatever thread comes to it first.
        drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
        let methods = Methods::from_descriptors([crate::proto::DESCRIPTORS]).unwrap();
        let step = Correlate::new(Arc::new(methods), || [7; 16]);
        let handler = tower::service_fn(|_: Request<Body>| async {
            assert_eq!(Span::current().metadata().unwrap().name(), "rpc");
            Ok::<_, Infallible>(Response::new(Body::new(Probe)))
        });
        let request = Request::post("/strongroom.v1.ContextService/ReadEvents").body(Body::empty()).unwrap();
        let mut body = step.run(request, handler).await.into_body();
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), &[1][..]);
    }

    #[tokio::test]
    async fn a_trace_is_taken_over() {
        let (_, seen) = run(&[("traceparent", TRACE)]).await;
        let trace = seen.unwrap().trace.unwrap();
        assert_eq!((trace.id[0], trace.parent[7], trace.sampled), (0x0a, 0x31, true));
    }

    #[test]
    fn a_trace_that_is_not_valid_is_none() {
        let upper = TRACE.to_uppercase();
        let no_id = TRACE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let no_parent = TRACE.replace("b7ad6b7169203331", &"0".repeat(16));
        let long = format!("{TRACE}-x");
        for bad in ["", "00", &upper, &no_id, &no_parent, &long, &TRACE.replacen("00", "ff", 1)] {
            assert_eq!(parse_trace(bad.as_bytes()), None, "{bad}");
        }
        assert!(parse_trace(long.replacen("00", "01", 1).as_bytes()).is_some());
        assert!(!parse_trace(TRACE.replace("-01", "-00").as_bytes()).unwrap().sampled);
    }
}
