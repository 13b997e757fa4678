//! How many connections there may be, how long they live, and what one of them may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strongroom::api::transport::ConnectionLimits;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::{Code, Request};

use crate::raw::{CANCEL, Raw, framed, h2_client, kind, request};
use crate::setup::{Plan, Server, put, read, soon, until};

fn limited(limits: ConnectionLimits) -> Plan {
    Plan { limits, ..Plan::default() }
}

#[tokio::test]
async fn a_connection_above_the_cap_is_reset_at_once_until_another_ends() {
    let server = Server::start(limited(ConnectionLimits { connections: 2, ..Default::default() })).await;
    let first = Raw::open(&server).await;
    let _second = Raw::open(&server).await;
    until("both are open", || server.counters.counts().open() == 2).await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(soon(third.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.counters.counts().refused_connections, 1);
    drop(first);
    until("the place is free", || server.counters.counts().open() == 1).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn a_handshake_above_the_cap_is_reset_at_once() {
    let server = Server::start(limited(ConnectionLimits { handshakes: 1, ..Default::default() })).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    until("it is accepted", || server.counters.counts().accepted == 1).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(soon(second.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.counters.counts().refused_handshakes, 1);
    drop(silent);
    until("the handshake has failed", || server.counters.counts().failed_handshakes == 1).await;
    server.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_replaced_at_their_age_and_no_call_fails() {
    let age = Duration::from_millis(100);
    let server = Server::start(limited(ConnectionLimits { age, ..Default::default() })).await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, done) = (server.client(), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut answered, mut failed) = (0, 0);
                while !done.load(Ordering::SeqCst) {
                    match client.put_entry(put("echo", 100)).await {
                        Ok(_) => answered += 1,
                        Err(status) if is_never_sent(&status) => failed += 1,
                        Err(status) => panic!("after {answered} calls: {status:?}"),
                    }
                }
                (answered, failed)
            })
        })
        .collect();
    until("every caller has had several connections", || server.counters.counts().aged >= 24).await;
    done.store(true, Ordering::SeqCst);
    let (mut answered, mut failed) = (0, 0);
    for caller in callers {
        let counts: (usize, usize) = soon(caller).await.unwrap();
        (answered, failed) = (answered + counts.0, failed + counts.1);
    }
    println!("{answered} calls, {failed} not sent by the client");
    assert!(answered > 24, "{answered} calls, {failed} not sent");
    assert_eq!(server.service.begun.load(Ordering::SeqCst), answered, "what reached the server was answered");
    let counts = server.stop().await.counts;
    assert_eq!((counts.severed, counts.broken), (0, 0));
}

/// Whether the client itself refused the call: it took it while it learnt of the GOAWAY, and never sent it. The client of
/// tonic reports that in two ways, as CANCELLED or as INTERNAL with the GOAWAY as source, and does not try again.
fn is_never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        source = error.source();
    }
    status.code() == Code::Cancelled
}

#[tokio::test]
async fn a_call_in_flight_outlives_the_age_of_its_connection() {
    let age = Duration::from_millis(50);
    let server = Server::start(limited(ConnectionLimits { age, ..Default::default() })).await;
    let mut client = server.client();
    let call = tokio::spawn(async move { client.put_entry(put("wait", 1)).await });
    until("the connection is asked to close", || server.counters.counts().aged == 1).await;
    server.service.gate.add_permits(1);
    soon(call).await.unwrap().unwrap();
    until("it has closed", || server.counters.counts().open() == 0).await;
    assert_eq!(server.counters.counts().severed, 0);
}

#[tokio::test]
async fn a_client_that_ignores_the_goaway_is_cut_off_after_the_grace() {
    let (age, close_grace) = (Duration::from_millis(50), Duration::from_millis(50));
    let server = Server::start(limited(ConnectionLimits { age, close_grace, ..Default::default() })).await;
    let mut raw = Raw::open(&server).await;
    let goaway = raw.find(|frame| frame.kind == kind::GOAWAY).await.unwrap();
    assert_eq!(goaway.error(), 0);
    raw.drained().await;
    until("it is cut off", || server.counters.counts().severed == 1).await;
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_given_up() {
    let server = Server::start(limited(ConnectionLimits {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(50),
        ..Default::default()
    }))
    .await;
    let mut raw = Raw::open(&server).await;
    raw.find(|frame| frame.kind == kind::PING).await.unwrap();
    raw.drained().await;
    until("it is closed", || server.counters.counts().open() == 0).await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_reset_and_the_connection_lives_on() {
    let stall = Duration::from_millis(200);
    let server = Server::start(limited(ConnectionLimits { stall, ..Default::default() })).await;
    let mut client = soon(h2_client(&server).await.ready()).await.unwrap();
    let path = "/strongroom.v1.ContextService/ReadEntry";
    let ask = |bytes| framed(0, &prost::Message::encode_to_vec(&read(bytes)));
    let (answer, mut sender) = client.send_request(request(path), false).unwrap();
    sender.send_data(ask(4 << 20), true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    until("it is given up", || server.counters.counts().stalled_streams == 1).await;
    let reset = soon(async {
        loop {
            // What is read here is not released, so that the window stays shut.
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it was sent in full"),
            }
        }
    })
    .await;
    assert_eq!(reset.reason().map(u32::from), Some(CANCEL));
    until("its place is free", || server.in_flight.taken() == (0, 0)).await;
    let (answer, mut sender) = client.send_request(request(path), false).unwrap();
    sender.send_data(ask(10), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_connection_has_so_many_streams_and_no_more() {
    let server = Server::start(limited(ConnectionLimits { streams: 3, ..Default::default() })).await;
    let mut raw = Raw::open(&server).await;
    let settings = raw.find(|frame| frame.kind == kind::SETTINGS).await.unwrap();
    let streams = settings.payload.chunks(6).find(|setting| setting[1] == 3).unwrap();
    assert_eq!(streams[2..], 3_u32.to_be_bytes());
    let block = crate::raw::call("/strongroom.v1.ContextService/PutEntry");
    for stream in [1, 3, 5, 7] {
        raw.send(&crate::raw::frame(kind::HEADERS, crate::raw::END_HEADERS, stream, &block)).await.unwrap();
    }
    let refused = raw.find(|frame| frame.kind == kind::RST_STREAM).await.unwrap();
    assert_eq!((refused.stream, refused.error()), (7, crate::raw::REFUSED_STREAM));
}

#[tokio::test]
async fn a_header_list_above_the_bound_is_refused_and_the_connection_lives_on() {
    let server = Server::start(Plan::default()).await;
    let mut client = soon(h2_client(&server).await.ready()).await.unwrap();
    let mut large = request("/strongroom.v1.ContextService/PutEntry");
    large.headers_mut().insert("x-large", "x".repeat(17 << 10).parse().unwrap());
    let (answer, _) = client.send_request(large, true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 431);
    let mut fits = request("/strongroom.v1.ContextService/PutEntry");
    fits.headers_mut().insert("x-large", "x".repeat(15 << 10).parse().unwrap());
    let (answer, mut sender) = client.send_request(fits, false).unwrap();
    sender.send_data(framed(0, &[]), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn metadata_above_the_bound_is_an_error_for_a_grpc_client() {
    let server = Server::start(Plan::default()).await;
    let mut client = server.client();
    let mut large = Request::new(put("echo", 0));
    large.metadata_mut().insert("x-large", "x".repeat(17 << 10).parse().unwrap());
    assert_ne!(soon(client.put_entry(large)).await.unwrap_err().code(), Code::Ok);
    soon(client.put_entry(put("echo", 0))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_are_held_and_calls_go_on() {
    let server = Arc::new(Server::start(Plan::default()).await);
    let before = resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..100 {
        let batch = (0..10).map(|_| Raw::open(&server));
        idle.extend(futures_util::future::join_all(batch).await);
    }
    until("all are open", || server.counters.counts().open() == 1000).await;
    server.assert_alive().await;
    let each = resident_bytes().saturating_sub(before) / 1000;
    println!("{each} bytes of memory for a connection, both ends together");
    assert!(each < 256 << 10, "{each} bytes a connection");
    drop(idle);
    until("all have ended", || server.counters.counts().open() == 0).await;
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
