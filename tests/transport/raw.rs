//! HTTP/2 by hand: frames as bytes (RFC 9113), for peers that do what no library would.

use std::io;

use bytes::{Bytes, BytesMut};
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::setup::{Server, soon};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;
}

pub const END_HEADERS: u8 = 4;

pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn error(&self) -> u32 {
        let code = if self.kind == kind::GOAWAY { &self.payload[4..8] } else { &self.payload[..4] };
        u32::from_be_bytes(code.try_into().unwrap())
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A header block of a gRPC call, with literals that are not indexed (RFC 7541, 6.2.2).
pub fn call(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x87];
    for (name, value) in [(4, path), (1, "localhost")] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block.extend(literal("content-type", "application/grpc"));
    block.extend(literal("te", "trailers"));
    block
}

pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let part = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], part(name), part(value)].concat()
}

/// A connection that has exchanged prefaces.
pub struct Raw {
    stream: TlsStream<TcpStream>,
}

impl Raw {
    pub async fn open(server: &Server) -> Self {
        let mut stream = server.connect().await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(kind::SETTINGS, 0, 0, &[])).await.unwrap();
        Self { stream }
    }

    /// The server's own certificate.
    pub fn certificate(&self) -> Vec<u8> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    pub async fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [a, b, c, kind, _flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok(Frame { kind, stream: u32::from_be_bytes(stream), payload })
    }

    /// The first frame that is `wanted`; what comes before is passed over.
    pub async fn find(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> io::Result<Frame> {
        soon(async {
            loop {
                let frame = self.receive().await?;
                if wanted(&frame) {
                    return Ok(frame);
                }
            }
        })
        .await
    }

    /// Reads to the end of the connection.
    pub async fn drained(&mut self) {
        soon(async { while self.receive().await.is_ok() {} }).await;
    }
}

/// A request of a gRPC call for the h2 crate.
pub fn request(path: &str) -> Request<()> {
    Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// A message in gRPC's framing.
pub fn framed(flag: u8, content: &[u8]) -> Bytes {
    let mut out = BytesMut::from(&[flag][..]);
    out.extend_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
    out.extend_from_slice(content);
    out.freeze()
}

/// An h2 client on a connection of its own.
pub async fn h2_client(server: &Server) -> h2::client::SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(server.connect().await.unwrap()).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// Sends `body` to `path` and reads the status from the head or the trailers.
pub async fn ask(server: &Server, request: Request<()>, body: Bytes, end: bool) -> (u16, tonic::Status) {
    let client = h2_client(server).await;
    let (response, mut sender) = soon(client.ready()).await.unwrap().send_request(request, false).unwrap();
    sender.send_data(body, end).unwrap();
    let (head, mut body) = soon(response).await.unwrap().into_parts();
    while let Some(chunk) = soon(body.data()).await {
        drop(chunk);
    }
    let trailers = soon(body.trailers()).await.unwrap_or_default().unwrap_or_default();
    let status = tonic::Status::from_header_map(&head.headers)
        .or_else(|| tonic::Status::from_header_map(&trailers))
        .unwrap_or_else(|| tonic::Status::unknown("no status"));
    (head.status.as_u16(), status)
}
