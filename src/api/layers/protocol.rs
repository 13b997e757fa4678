//! gRPC over HTTP/2 as far as it can be judged without opening a message.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::framing::{Framing, Refused};
use super::memory::{Claim, Memory};
use super::{Rpc, Step, body, proceed};
use crate::api::status::{invalid_field, status};
use crate::model::limits::{BATCH_VALUE_BYTES, COMMIT_QUEUE_BYTES, MESSAGE_OVERHEAD_BYTES};
use crate::proto::v1::ErrorReason;

/// Chunks below this are copied together: each costs more to keep apart than its content.
const SMALL_CHUNK_BYTES: usize = 4 << 10;

/// How large messages may be, without their prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Of one message of a request, in bytes.
    pub request: usize,
    /// Of one message of a response, in bytes.
    pub response: usize,
    /// Of all requests in flight together, in bytes.
    pub in_flight: usize,
}

impl Default for MessageLimits {
    /// The largest batch of values in both directions, and as much of requests as may wait for the committer.
    fn default() -> Self {
        let largest = BATCH_VALUE_BYTES + MESSAGE_OVERHEAD_BYTES;
        Self { request: largest, response: largest, in_flight: COMMIT_QUEUE_BYTES }
    }
}

/// Refuses what is not gRPC as we speak it.
///
/// * What is no POST or has another content type gets an HTTP error; an unknown method gets UNIMPLEMENTED.
/// * Compression is refused: UNIMPLEMENTED with `grpc-accept-encoding: identity`. Lengths would leak content.
/// * A message above the limit is RESOURCE_EXHAUSTED with the limit, as soon as its prefix is there.
/// * A body that ends within a message, or holds none, is INVALID_ARGUMENT.
///
/// A message goes on to its handler when all of it is there. tonic reserves what a prefix *announces*; so a caller who
/// announces 16 MiB and sends nothing holds five bytes of ours and not sixteen million. What has arrived of all requests
/// together is bounded, until they are answered; what is above is refused with OVERLOADED. That holds for callers who have
/// not shown yet who they are.
///
/// The generated servers bring limits of their own (4 MiB, OUT_OF_RANGE); they are built with
/// `max_decoding_message_size(usize::MAX)`, so that this is the one limit.
#[derive(Debug, Clone)]
pub struct Protocol {
    limits: MessageLimits,
    memory: Memory,
}

impl Protocol {
    /// Takes the bounds. Clones count together.
    #[must_use]
    pub fn new(limits: MessageLimits) -> Self {
        Self { limits, memory: Memory::new(limits.in_flight) }
    }
}

impl Step for Protocol {
    async fn run<S: Rpc>(&self, request: Request<Body>, next: S) -> Response<Body> {
        if let Some(refusal) = not_grpc(&request) {
            return refusal;
        }
        if let Err(refusal) = check_encoding(request.headers()) {
            return refusal.into_http();
        }
        // Held until there is an answer, though the body is gone by then: what was decoded from it is not.
        let claim = self.memory.claim();
        let gathered = |inner| Gathered::new(inner, self.limits.request, Arc::clone(&claim));
        let request = request.map(|inner| Body::new(gathered(inner)));
        let response = proceed(next, request).await;
        if is_bare_unimplemented(response.headers()) {
            return no_such_method().into_http();
        }
        response.map(|inner| Body::new(Bounded::new(inner, self.limits.response)))
    }
}

/// The answer to what is another protocol (gRPC over HTTP/2, "Requests": 415 for another content type).
fn not_grpc(request: &Request<Body>) -> Option<Response<Body>> {
    let mut response = Response::new(Body::empty());
    if request.method() != Method::POST {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    let kind = request.headers().get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    match kind.strip_prefix(b"application/grpc") {
        Some([] | [b'+' | b';', ..]) => None,
        _ => {
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Some(response)
        }
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    if headers.get_all("grpc-encoding").iter().all(|encoding| encoding == "identity") {
        return Ok(());
    }
    let text = "compression is not supported";
    let mut refusal = status(Code::Unimplemented, ErrorReason::InvalidField, text)
        .field("grpc-encoding", "is not identity")
        .build();
    refusal
        .metadata_mut()
        .insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static("identity"));
    Err(refusal)
}

/// Whether tonic's router or a generated server found no method; both leave text and details out.
fn is_bare_unimplemented(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code == "12")
        && !headers.contains_key("grpc-status-details-bin")
}

fn no_such_method() -> Status {
    status(Code::Unimplemented, ErrorReason::InvalidField, "no such method")
        .field(":path", "names no method")
        .build()
}

fn refused(why: Refused, what: &str, limit: usize) -> Status {
    match why {
        Refused::TooLarge { found } => {
            let text = format!("the {what} has {found} bytes, the limit is {limit}");
            status(Code::ResourceExhausted, ErrorReason::InvalidField, text)
                .metadata("limit_bytes", limit.to_string())
                .metadata("found_bytes", found.to_string())
                .build()
        }
        Refused::Flagged => invalid_field(what, "is compressed, which was not announced").build(),
    }
}

/// The body of a request, message by message.
struct Gathered {
    inner: Body,
    limit: usize,
    claim: Arc<Claim>,
    framing: Framing,
    /// Parts of the message that is not complete.
    held: Vec<Bytes>,
    /// The last of these parts, while they are small.
    small: BytesMut,
    /// Parts of complete messages.
    ready: VecDeque<Bytes>,
}

impl Gathered {
    fn new(inner: Body, limit: usize, claim: Arc<Claim>) -> Self {
        let (held, small, ready) = (Vec::new(), BytesMut::new(), VecDeque::new());
        Self { inner, limit, claim, framing: Framing::default(), held, small, ready }
    }

    fn take(&mut self, mut chunk: Bytes) -> Result<(), Status> {
        while !chunk.is_empty() {
            if !self.framing.is_within() {
                // The message before was taken: a stream holds one message at a time.
                self.claim.clear();
            }
            let advance = self.framing.advance(&chunk, self.limit);
            let advance = advance.map_err(|why| refused(why, "request", self.limit))?;
            self.claim.add(advance.bytes)?;
            self.hold(chunk.split_to(advance.bytes));
            if advance.ends {
                self.settle();
                self.ready.extend(self.held.drain(..));
            }
        }
        Ok(())
    }

    fn hold(&mut self, part: Bytes) {
        let is_whole = !self.framing.is_within() && self.small.is_empty();
        if is_whole || part.len() >= SMALL_CHUNK_BYTES {
            self.settle();
            self.held.push(part);
        } else {
            self.small.extend_from_slice(&part);
        }
    }

    /// Puts what was copied together behind what is held.
    fn settle(&mut self) {
        if !self.small.is_empty() {
            self.held.push(self.small.split().freeze());
        }
    }

    fn check_end(&self) -> Result<(), Status> {
        match (self.framing.is_within(), self.framing.messages()) {
            (true, _) => Err(invalid_field("request", "ends within a message").build()),
            (false, 0) => Err(invalid_field("request", "holds no message").build()),
            (false, _) => Ok(()),
        }
    }
}

impl http_body::Body for Gathered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else {
                return Poll::Ready(self.check_end().err().map(Err));
            };
            match frame.into_data() {
                Ok(chunk) => self.take(chunk)?,
                Err(trailers) => return Poll::Ready(Some(self.check_end().map(|()| trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.ready.is_empty() && self.check_end().is_ok()
    }
}

/// The body of a response, whose messages are not too large.
struct Bounded {
    inner: Body,
    limit: usize,
    framing: Framing,
    over: bool,
}

impl Bounded {
    fn new(inner: Body, limit: usize) -> Self {
        Self { inner, limit, framing: Framing::default(), over: false }
    }

    fn check(&mut self, mut chunk: &[u8]) -> Result<(), Refused> {
        while !chunk.is_empty() {
            let advance = self.framing.advance(chunk, self.limit)?;
            chunk = chunk.get(advance.bytes..).unwrap_or_default();
        }
        Ok(())
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else {
            return Poll::Ready(None);
        };
        match self.check(frame.data_ref().map_or(&[][..], |chunk| chunk)) {
            Ok(()) => Poll::Ready(Some(Ok(frame))),
            Err(why) => {
                self.over = true;
                self.inner = Body::empty();
                Poll::Ready(Some(Ok(body::trailers(&refused(why, "response", self.limit)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
