//! A defect in one handler ends that call and nothing else, and tells nobody what it was working on.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{Rpc, Step, body, proceed};
use crate::api::status::status;
use crate::proto::v1::ErrorReason;

/// Answers INTERNAL for a handler, or a stream of a handler, that panics.
///
/// The panic's message is dropped unread: it may hold content (think of an index into a slice of a value, or an `expect`
/// on an error that quotes its input). Where it happened is printed by the hook of [`install_panic_hook`].
#[derive(Debug, Clone, Copy)]
pub struct Contain;

impl Step for Contain {
    async fn run<S: Rpc>(&self, request: Request<Body>, next: S) -> Response<Body> {
        let answer = AssertUnwindSafe(async move { proceed(next, request).await });
        match answer.catch_unwind().await {
            Ok(response) => response.map(|inner| Body::new(Contained { inner, over: false })),
            Err(_) => defect().into_http(),
        }
    }
}

struct Contained {
    inner: Body,
    over: bool,
}

impl http_body::Body for Contained {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let inner = &mut self.inner;
        match catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx))) {
            Ok(polled) => polled,
            Err(_) => {
                self.over = true;
                Poll::Ready(Some(Ok(body::trailers(&defect()))))
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

fn defect() -> Status {
    tracing::error!("a handler panicked; its call was answered with INTERNAL");
    status(Code::Internal, ErrorReason::Internal, "a defect of the server").build()
}

/// Makes panics print their place and thread, never their message, to standard error.
///
/// It replaces the process's hook, so it is called once, first thing in `main`.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let line = place(panic);
        // Nothing is left to be done when standard error is closed.
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
    }));
}

fn place(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    match panic.location() {
        Some(at) => format!("panic at {}:{}:{} in thread {thread}\n", at.file(), at.line(), at.column()),
        None => format!("panic in thread {thread}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    #[test]
    fn the_line_of_a_panic_holds_its_place_and_not_its_message() {
        static LINE: Mutex<String> = Mutex::new(String::new());
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(|panic| {
            if panic.payload().downcast_ref::<&str>() == Some(&"patient 4711") {
                *LINE.lock().unwrap_or_else(PoisonError::into_inner) = place(panic);
            }
        }));
        assert!(catch_unwind(|| panic!("patient 4711")).is_err());
        std::panic::set_hook(before);
        let line = LINE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(line.starts_with("panic at src/api/layers/contain.rs:"), "{line}");
        assert!(!line.contains("4711"), "{line}");
    }
}
