//! Paged lists as streams.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::error::ClientError;

/// Entries asked for at a time; fewer round trips than the server's default of 100.
pub(super) const SIZE: u32 = 500;

struct Pages<T, F> {
    fetch: F,
    ready: VecDeque<T>,
    next: Option<String>,
}

/// Streams what `fetch` returns page by page; it gets a page token and returns the items and the next token, empty at the
/// end. An error ends the stream.
pub(super) fn stream<T, F, Fut>(fetch: F) -> BoxStream<'static, Result<T, ClientError>>
where
    T: Send + 'static,
    F: Fn(String) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(Vec<T>, String), ClientError>> + Send,
{
    let pages = Pages { fetch, ready: VecDeque::new(), next: Some(String::new()) };
    stream::try_unfold(pages, |mut pages| async move {
        loop {
            if let Some(item) = pages.ready.pop_front() {
                return Ok(Some((item, pages)));
            }
            let Some(token) = pages.next.take() else { return Ok(None) };
            let (items, next) = (pages.fetch)(token).await?;
            pages.ready = items.into();
            pages.next = Some(next).filter(|token| !token.is_empty());
        }
    })
    .boxed()
}
