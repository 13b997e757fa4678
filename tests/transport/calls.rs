//! What a call gets for an answer when it is not an ordinary one.

use std::time::Duration;

use bytes::Bytes;
use http::Request as HttpRequest;
use strongroom::api::layers::{MessageLimits, REQUEST_ID_HEADER};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::raw::{ask, framed, request};
use crate::setup::{Plan, Server, events, put, read, soon, until};

const PUT: &str = "/strongroom.v1.ContextService/PutEntry";

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().unwrap_or_else(|| panic!("no details: {status}"));
    assert_eq!(reason.domain, "strongroom.v1");
    reason.reason.clone()
}

#[tokio::test]
async fn a_handler_finds_peer_id_and_deadline_in_its_request() {
    let server = Server::start(Plan::default()).await;
    let answer = soon(server.client().put_entry(put("echo", 3))).await.unwrap();
    assert_eq!(answer.metadata().get(REQUEST_ID_HEADER).unwrap(), "abababab-abab-abab-abab-abababababab");
    let metadata = answer.into_inner().metadata.unwrap();
    assert_eq!((metadata.size, metadata.content_type.as_str()), (3, "0 certificates, TLSv1_3, id ab"));
}

#[tokio::test]
async fn a_request_of_the_largest_size_passes_and_one_above_names_the_limit() {
    let messages = MessageLimits { request: 100_000, ..Default::default() };
    let server = Server::start(Plan { messages, ..Plan::default() }).await;
    let overhead = prost::Message::encoded_len(&put("echo", 99_000)) - 99_000;
    let fits = soon(server.client().put_entry(put("echo", 100_000 - overhead))).await.unwrap();
    assert_eq!(fits.into_inner().metadata.unwrap().size, 100_000 - overhead as u64);
    let status = soon(server.client().put_entry(put("echo", 100_001 - overhead))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "INVALID_FIELD"));
    assert_eq!(status.message(), "the request has 100001 bytes, the limit is 100000");
    assert_eq!(status.get_error_details().error_info().unwrap().metadata["limit_bytes"], "100000");
}

#[tokio::test]
async fn a_request_of_sixteen_mebibytes_arrives_whole() {
    let server = Server::start(Plan::default()).await;
    let answer = soon(server.client().put_entry(put("echo", 16 << 20))).await.unwrap();
    assert_eq!(answer.into_inner().metadata.unwrap().size, 16 << 20);
}

#[tokio::test]
async fn an_oversize_request_is_refused_by_its_prefix_alone() {
    let server = Server::start(Plan::default()).await;
    let prefix = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    let (_, status) = ask(&server, request(PUT), prefix, false).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn requests_that_are_too_large_together_are_refused_until_one_is_answered() {
    let messages = MessageLimits { in_flight: 1 << 20, ..Default::default() };
    let server = Server::start(Plan { messages, ..Plan::default() }).await;
    let mut client = server.client();
    let waiting = tokio::spawn(async move { client.put_entry(put("wait", 700_000)).await });
    until("the first is at work", || server.service.running() == 1).await;
    let status = soon(server.client().put_entry(put("echo", 700_000))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(status.get_error_details().retry_info().is_some());
    soon(server.client().put_entry(put("echo", 100_000))).await.expect("there is room for a small one");
    server.service.gate.add_permits(1);
    soon(waiting).await.unwrap().unwrap();
    soon(server.client().put_entry(put("echo", 700_000))).await.expect("there is room again");
}

#[tokio::test]
async fn a_response_that_is_too_large_is_replaced_by_an_error() {
    let messages = MessageLimits { response: 50_000, ..Default::default() };
    let server = Server::start(Plan { messages, ..Plan::default() }).await;
    soon(server.client().read_entry(read(49_000))).await.unwrap();
    let status = soon(server.client().read_entry(read(50_001))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("the limit is 50000"), "{status}");
}

#[tokio::test]
async fn a_unary_call_past_its_deadline_is_deadline_exceeded_and_its_handler_is_dropped() {
    let server = Server::start(Plan { ceiling: Duration::from_millis(100), ..Plan::default() }).await;
    let status = soon(server.client().put_entry(put("hang", 0))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    until("the handler is dropped", || server.service.running() == 0).await;
}

#[tokio::test]
async fn the_callers_deadline_counts_on_the_wire() {
    let server = Server::start(Plan::default()).await;
    let mut asked = request(PUT);
    asked.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let body = framed(0, &prost::Message::encode_to_vec(&put("hang", 0)));
    let (_, status) = ask(&server, asked, body, true).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    until("the handler is dropped", || server.service.running() == 0).await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up_at_the_ceiling() {
    let server = Server::start(Plan { ceiling: Duration::from_millis(100), ..Plan::default() }).await;
    let (_, status) = ask(&server, request(PUT), Bytes::from_static(&[0, 0, 0, 1, 0, 7]), false).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(server.service.begun.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_stream_outlives_the_ceiling_and_ends_at_its_callers_deadline() {
    let server = Server::start(Plan { ceiling: Duration::from_millis(20), ..Plan::default() }).await;
    let mut asked = request("/strongroom.v1.ContextService/ReadEvents");
    asked.headers_mut().insert("grpc-timeout", "200m".parse().unwrap());
    let body = framed(0, &prost::Message::encode_to_vec(&events("hang")));
    let begin = tokio::time::Instant::now();
    let (_, status) = ask(&server, asked, body, true).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    until("the stream is dropped", || server.service.running() == 0).await;
}

#[tokio::test]
async fn an_unknown_method_and_an_unknown_service_are_unimplemented() {
    let server = Server::start(Plan::default()).await;
    for path in ["/strongroom.v1.ContextService/NoSuch", "/no.Such/Method", "/"] {
        let (_, status) = ask(&server, request(path), framed(0, &[]), true).await;
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, "no such method"), "{path}");
        assert_eq!(reason(&status), "INVALID_FIELD");
    }
}

#[tokio::test]
async fn a_message_that_is_not_protobuf_is_the_callers_error() {
    let server = Server::start(Plan::default()).await;
    let (_, status) = ask(&server, request(PUT), framed(0, &[0xff; 7]), true).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
}

#[tokio::test]
async fn text_that_is_not_utf8_is_the_callers_error_and_its_field_is_named() {
    let server = Server::start(Plan::default()).await;
    let message = [&[0x12, 8, 0x0a, 6][..], b"4711\xff\xff"].concat();
    let (_, status) = ask(&server, request(PUT), framed(0, &message), true).await;
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "put.key is not valid UTF-8"));
    assert_eq!(status.get_error_details().bad_request().unwrap().field_violations[0].field, "put.key");
}

#[tokio::test]
async fn a_body_that_holds_no_message_or_half_a_one_is_the_callers_error() {
    let server = Server::start(Plan::default()).await;
    for (body, text) in [
        (Bytes::new(), "request holds no message"),
        (Bytes::from_static(&[0, 0]), "request ends within a message"),
        (Bytes::from_static(&[0, 0, 0, 0, 9, 1]), "request ends within a message"),
    ] {
        let (_, status) = ask(&server, request(PUT), body, true).await;
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text));
    }
}

#[tokio::test]
async fn compression_is_refused() {
    let server = Server::start(Plan::default()).await;
    let mut asked = request(PUT);
    asked.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    let (_, status) = ask(&server, asked, framed(1, b"x"), true).await;
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "compression is not supported"));
    assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "identity");
    let (_, status) = ask(&server, request(PUT), framed(1, b"x"), true).await;
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_grpc_gets_an_http_error() {
    let server = Server::start(Plan::default()).await;
    let get = HttpRequest::get(format!("https://localhost{PUT}")).body(()).unwrap();
    assert_eq!(ask(&server, get, Bytes::new(), true).await.0, 405);
    for kind in ["application/json", "application/grpcx", ""] {
        let mut post = request(PUT);
        post.headers_mut().insert("content-type", kind.parse().unwrap());
        assert_eq!(ask(&server, post, Bytes::new(), true).await.0, 415, "{kind}");
    }
}

#[tokio::test]
async fn a_panic_ends_its_call_and_nothing_else() {
    let server = Server::start(Plan::default()).await;
    let mut client = server.client();
    let status = soon(client.put_entry(put("panic", 0))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "a defect of the server"));
    assert_eq!(reason(&status), "INTERNAL");
    soon(client.put_entry(put("echo", 0))).await.unwrap();
    assert_eq!(server.counters.counts().opened, 1, "the connection lives on");
}

#[tokio::test]
async fn a_panic_within_a_stream_ends_it_with_a_status() {
    let server = Server::start(Plan::default()).await;
    let mut stream = soon(server.client().read_events(events("panic"))).await.unwrap().into_inner();
    assert!(soon(stream.message()).await.unwrap().is_some());
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "a defect of the server"));
}

#[tokio::test]
async fn calls_above_the_bound_are_refused_with_a_delay_and_leave_room_when_they_end() {
    let server = Server::start(Plan { calls: 2, ..Plan::default() }).await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = server.client();
            tokio::spawn(async move { client.put_entry(put("wait", 0)).await })
        })
        .collect();
    until("both calls are at work", || server.service.running() == 2).await;
    let status = soon(server.client().put_entry(put("echo", 0))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    let delay = status.get_error_details().retry_info().unwrap().retry_delay;
    assert_eq!(delay, Some(Duration::from_millis(250)));
    server.service.gate.add_permits(2);
    for call in waiting {
        soon(call).await.unwrap().unwrap();
    }
    until("the places are free", || server.in_flight.taken() == (0, 0)).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn streams_are_counted_apart_from_calls_and_for_as_long_as_they_last() {
    let server = Server::start(Plan { calls: 1, streams: 1, ..Plan::default() }).await;
    let mut client = server.client();
    let mut stream = soon(client.read_events(events("hang"))).await.unwrap().into_inner();
    assert!(soon(stream.message()).await.unwrap().is_some());
    let status = soon(client.read_events(events("1"))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    soon(client.put_entry(put("echo", 0))).await.unwrap();
    drop(stream);
    until("the place is free", || server.in_flight.taken() == (0, 0)).await;
    soon(client.read_events(events("1"))).await.unwrap();
}

#[tokio::test]
async fn a_request_id_comes_back_and_a_bad_one_is_refused() {
    let server = Server::start(Plan::default()).await;
    let id = "123e4567-e89b-12d3-a456-426614174000";
    let mut named = Request::new(put("echo", 0));
    named.metadata_mut().insert(REQUEST_ID_HEADER, id.parse().unwrap());
    let answer = soon(server.client().put_entry(named)).await.unwrap();
    assert_eq!(answer.metadata().get(REQUEST_ID_HEADER).unwrap(), id);
    let mut named = Request::new(put("echo", 0));
    named.metadata_mut().insert(REQUEST_ID_HEADER, "4711".parse().unwrap());
    let status = soon(server.client().put_entry(named)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}
