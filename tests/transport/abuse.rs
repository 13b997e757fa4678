//! Peers that break the protocol, or use it as a weapon. Each loses its connection; nobody else notices.

use std::time::Duration;

use strongroom::api::transport::ConnectionLimits;

use crate::raw::{END_HEADERS, ENHANCE_YOUR_CALM, Frame, Raw, call, frame, kind, literal};
use crate::setup::{Plan, Server, put, soon, until};

const PUT: &str = "/strongroom.v1.ContextService/PutEntry";

/// Sends `parts` until the server has had enough, and returns its GOAWAY.
async fn provoke(raw: &mut Raw, parts: impl Iterator<Item = Vec<u8>>) -> Frame {
    for part in parts {
        if raw.send(&part).await.is_err() {
            break;
        }
    }
    raw.find(|frame| frame.kind == kind::GOAWAY).await.expect("a GOAWAY before the end")
}

fn streams() -> impl Iterator<Item = u32> {
    (0..).map(|n| 2 * n + 1)
}

#[tokio::test]
async fn a_flood_of_streams_that_are_reset_at_once_ends_its_connection() {
    let server = Server::start(Plan::default()).await;
    let mut other = server.client();
    soon(other.put_entry(put("echo", 0))).await.unwrap();
    let mut raw = Raw::open(&server).await;
    let block = call(PUT);
    let burst: Vec<u8> = streams()
        .take(2000)
        .flat_map(|stream| {
            let open = frame(kind::HEADERS, END_HEADERS, stream, &block);
            [open, frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    let end = provoke(&mut raw, std::iter::once(burst)).await;
    assert_eq!(end.error(), ENHANCE_YOUR_CALM);
    until("it is closed", || server.counters.counts().broken == 1).await;
    soon(other.put_entry(put("echo", 0))).await.unwrap();
    assert_eq!(server.service.running(), 0);
}

#[tokio::test]
async fn a_flood_of_streams_that_we_must_reset_ends_its_connection() {
    let error_resets = 50;
    let limits = ConnectionLimits { error_resets, ..Default::default() };
    let server = Server::start(Plan { limits, ..Plan::default() }).await;
    let mut raw = Raw::open(&server).await;
    // A header of HTTP/1 makes a request malformed, which is an error of its stream (RFC 9113, 8.1.1).
    let block = [call(PUT), literal("connection", "close")].concat();
    let bad = streams().take(200).map(|stream| frame(kind::HEADERS, END_HEADERS, stream, &block));
    let end = provoke(&mut raw, bad).await;
    assert_eq!(end.error(), ENHANCE_YOUR_CALM);
    server.assert_alive().await;
}

#[tokio::test]
async fn a_header_block_without_end_ends_its_connection() {
    let server = Server::start(Plan::default()).await;
    let mut raw = Raw::open(&server).await;
    let filler = [vec![0, 1, b'x', 0x7f, 0x81, 0x7f], vec![b'y'; 16_000]].concat();
    raw.send(&frame(kind::HEADERS, 0, 1, &call(PUT))).await.unwrap();
    let endless = (0..1000).map(|_| frame(kind::CONTINUATION, 0, 1, &filler));
    provoke(&mut raw, endless).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn a_header_block_that_stops_short_is_given_up_by_the_ping() {
    let limits = ConnectionLimits {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(50),
        ..Default::default()
    };
    let server = Server::start(Plan { limits, ..Plan::default() }).await;
    let mut raw = Raw::open(&server).await;
    raw.send(&frame(kind::HEADERS, 0, 1, &call(PUT))).await.unwrap();
    raw.drained().await;
    until("it is closed", || server.counters.counts().open() == 0).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_connection() {
    let server = Server::start(Plan::default()).await;
    let mut raw = Raw::open(&server).await;
    let end = provoke(&mut raw, std::iter::once(frame(kind::DATA, 0, 1, &vec![0; 20_000]))).await;
    assert_ne!(end.error(), 0);
    server.assert_alive().await;
}

#[tokio::test]
async fn noise_in_place_of_frames_ends_its_connection() {
    let server = Server::start(Plan::default()).await;
    let mut raw = Raw::open(&server).await;
    raw.send(&[0xff; 4096]).await.unwrap();
    raw.drained().await;
    until("it is closed", || server.counters.counts().open() == 0).await;
    server.assert_alive().await;
}
