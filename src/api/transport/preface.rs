//! The connection preface of HTTP/2, read before the connection is handed on.
//!
//! hyper waits for it without a limit. Here it is part of the handshake, which has one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// RFC 9113, section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose preface was read and is read once more.
#[derive(Debug)]
pub(super) struct Prefaced<T> {
    io: T,
    unread: &'static [u8],
}

impl<T: AsyncRead + AsyncWrite + Unpin> Prefaced<T> {
    /// Reads the preface.
    ///
    /// # Errors
    /// `InvalidData` when something else comes.
    pub(super) async fn read(mut io: T) -> io::Result<Self> {
        let mut found = [0; PREFACE.len()];
        io.read_exact(&mut found).await?;
        if &found != PREFACE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
        }
        Ok(Self { io, unread: PREFACE })
    }

    /// The connection itself.
    #[cfg(test)]
    pub(super) fn get_ref(&self) -> &T {
        &self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefaced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buf.remaining()));
        buf.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefaced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn the_preface_is_read_twice_and_what_follows_once() {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(PREFACE).await.unwrap();
        peer.write_all(b"more").await.unwrap();
        drop(peer);
        let mut all = Vec::new();
        Prefaced::read(ours).await.unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [&PREFACE[..], b"more"].concat());
    }

    #[tokio::test]
    async fn another_protocol_is_refused() {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(Prefaced::read(ours).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
