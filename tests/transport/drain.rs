//! How a server ends.

use std::time::Duration;

use strongroom::api::transport::ConnectionLimits;
use tokio::net::TcpStream;
use tonic::Code;

use crate::setup::{Plan, Server, events, put, soon, until};

#[tokio::test]
async fn a_drain_lets_a_call_in_flight_finish_and_refuses_new_connections() {
    let server = Server::start(Plan::default()).await;
    let mut client = server.client();
    let call = tokio::spawn(async move { client.put_entry(put("wait", 5)).await });
    until("the call is at work", || server.service.running() == 1).await;
    server.shutdown.cancel();
    soon(async { while TcpStream::connect(server.address).await.is_ok() {} }).await;
    assert!(!call.is_finished());
    server.service.gate.add_permits(1);
    assert_eq!(soon(call).await.unwrap().unwrap().into_inner().metadata.unwrap().size, 5);
    let report = server.stop().await;
    assert!(report.drained);
    assert_eq!((report.counts.open(), report.counts.severed, report.counts.broken), (0, 0, 0));
}

#[tokio::test]
async fn a_call_that_does_not_finish_is_cut_off_and_its_handler_dropped() {
    let limits = ConnectionLimits { drain: Duration::from_millis(200), ..Default::default() };
    let server = Server::start(Plan { limits, ..Plan::default() }).await;
    let mut client = server.client();
    let call = tokio::spawn(async move { client.put_entry(put("hang", 0)).await });
    until("the call is at work", || server.service.running() == 1).await;
    let service = server.service.clone();
    let report = server.stop().await;
    assert!(!report.drained);
    assert_eq!(report.counts.severed, 1);
    assert_eq!(service.running(), 0, "no handler outlives its server");
    assert_ne!(soon(call).await.unwrap().unwrap_err().code(), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_cannot_be_dropped_yet_is_waited_for() {
    let limits = ConnectionLimits { drain: Duration::from_millis(20), ..Default::default() };
    let mut server = Server::start(Plan { limits, ..Plan::default() }).await;
    let mut client = server.client();
    let call = tokio::spawn(async move { client.put_entry(put("busy", 0)).await });
    until("the handler is at work", || server.service.running() == 1).await;
    server.shutdown.cancel();
    soon(call).await.unwrap().unwrap_err();
    let early = tokio::time::timeout(Duration::from_millis(100), &mut server.task).await;
    server.service.gate.add_permits(1);
    assert!(early.is_err(), "the server ended before its handler");
    let service = server.service.clone();
    assert!(!server.stop().await.drained);
    assert_eq!(service.running(), 0);
}

#[tokio::test]
async fn a_followed_stream_is_told_of_the_drain_and_ends_in_order() {
    let server = Server::start(Plan::default()).await;
    let mut stream = soon(server.client().read_events(events("follow"))).await.unwrap().into_inner();
    assert!(soon(stream.message()).await.unwrap().is_some());
    let end = tokio::spawn(async move {
        let last = stream.message().await.unwrap().unwrap();
        (last.events[0].data.len(), stream.message().await.unwrap().is_none())
    });
    let report = server.stop().await;
    assert_eq!(soon(end).await.unwrap(), (2, true));
    assert!(report.drained);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_handshakes_and_idle_connections() {
    let server = Server::start(Plan::default()).await;
    server.assert_alive().await;
    let idle = server.client();
    soon(idle.clone().put_entry(put("echo", 0))).await.unwrap();
    let silent = TcpStream::connect(server.address).await.unwrap();
    until("all are accepted", || server.counters.counts().accepted == 3).await;
    let begin = tokio::time::Instant::now();
    let report = server.stop().await;
    assert!(report.drained);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    drop((idle, silent));
}
