//! What no honest client sends: wrong bytes, wrong sizes, too many connections.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::uri::PathAndQuery;
use strongroom::proto::v1;
use tonic::Code;

use crate::requests::{create, new_put, put, put_of, read, seconds};
use crate::site::Site;
use crate::support::{Daemon, Login, Raw, Refusal, answered, soon};

/// Calls a method of the data plane with bytes instead of a message.
async fn call(daemon: &Daemon, method: &str, message: Bytes) -> Result<Bytes, Refusal> {
    let mut client = tonic::client::Grpc::new(daemon.channel(&daemon.endpoint()));
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(message);
    let bearer = format!("Bearer {}", daemon.token(Login::App));
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    let path: PathAndQuery = format!("/strongroom.v1.ContextService/{method}").parse().unwrap();
    match soon(client.unary(request, path, Raw)).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(Refusal::of(&status)),
    }
}

/// A field of a message that holds bytes.
fn field(number: u8, content: &[u8]) -> Bytes {
    let mut field = BytesMut::new();
    field.put_u8(number << 3 | 2);
    let mut length = content.len();
    while length >= 0x80 {
        field.put_u8(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.put_u8(u8::try_from(length).unwrap());
    field.put_slice(content);
    field.freeze()
}

fn join(parts: &[Bytes]) -> Bytes {
    parts.concat().into()
}

#[tokio::test]
async fn names_that_are_not_utf8_are_refused() {
    let daemon = Daemon::shared().await;
    let bad = b"a\xff\xfeb";
    let session = |id: &[u8]| field(1, &join(&[field(1, b"demo"), field(2, id)]));
    let cases = [
        ("CreateSession", field(1, bad)),
        ("CreateSession", join(&[field(1, b"demo"), field(2, bad)])),
        ("GetSession", session(bad)),
        ("ReadEntry", join(&[session(b"srs_x"), field(2, bad)])),
        ("PutEntry", join(&[session(b"srs_x"), field(2, &field(1, bad))])),
        ("ListEntries", join(&[session(b"srs_x"), field(3, bad)])),
        ("AppendEvents", join(&[session(b"srs_x"), field(2, bad)])),
        ("ReadBatch", join(&[session(b"srs_x"), field(2, bad)])),
    ];
    for (method, message) in cases {
        let refusal = call(&daemon, method, message).await.unwrap_err();
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::InvalidArgument, "INVALID_FIELD"),
            "{method}"
        );
        assert!(!refusal.text.contains('\u{fffd}'), "{}", refusal.text);
    }
    // Through the same code, what is right is answered.
    call(&daemon, "CreateSession", field(1, b"demo")).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let daemon = Daemon::shared().await;
    let deep = (0..200).fold(Bytes::new(), |inner, _| field(3, &inner));
    for message in [
        Bytes::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0f"),
        Bytes::from_static(b"\x0a\x05ab"),
        Bytes::from_static(b"\x0f"),
        Bytes::from_static(b"\x08\x01"),
        field(1, &deep),
    ] {
        let refusal = call(&daemon, "PutEntry", message).await.unwrap_err();
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    }
    let refusal = call(&daemon, "PutEntry", Bytes::new()).await.unwrap_err();
    assert_eq!(refusal.fields, ["session"]);
    let refusal = call(&daemon, "NoSuchMethod", Bytes::new()).await.unwrap_err();
    assert_eq!(refusal.code, Code::Unimplemented);
}

#[tokio::test]
async fn a_value_may_have_no_bytes_or_four_mebibytes_and_not_one_more() {
    let site = Site::outside().await;
    let session = site.session().await;
    let largest = 4 << 20;
    for size in [0, 1, largest] {
        let value = vec![7; size];
        let made = answered(site.app().put_entry(put(&session, "key", value.clone())).await).0;
        assert_eq!(made.metadata.unwrap().size, size as u64);
        assert_eq!(site.look(&session, "key").await.unwrap().1, value);
    }
    let over = site.app().put_entry(put(&session, "key", vec![0; largest + 1])).await;
    let refusal = site.invalid(over, "put.value", "ctx.put").await;
    assert!(refusal.text.contains(&largest.to_string()), "{}", refusal.text);
    assert_eq!(site.look(&session, "key").await.unwrap().1.len(), largest);
}

#[tokio::test]
async fn a_message_beyond_every_bound_is_refused_and_says_the_bound() {
    let site = Site::outside().await;
    let session = site.session().await;
    let outcome = site.app().put_entry(put(&session, "key", vec![0; 17 << 20])).await;
    let refusal = Refusal::of(&outcome.unwrap_err());
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "INVALID_FIELD"));
    let limit: usize = refusal.details["limit_bytes"].parse().unwrap();
    assert!(((16 << 20)..(17 << 20)).contains(&limit), "{limit}");
    assert_eq!(site.look(&session, "key").await, None);
}

#[tokio::test]
async fn absurd_lifetimes_are_refused() {
    let site = Site::outside().await;
    let session = site.session().await;
    for (seconds, nanos) in [
        (i64::MAX, i32::MAX),
        (i64::MIN, i32::MIN),
        (i64::MAX, 0),
        (-1, 0),
        (0, -1),
        (0, 1),
        (1 << 40, 0),
        (1, 2_000_000_000),
    ] {
        let ttl = prost_types::Duration { seconds, nanos };
        let expiration = Some(v1::put::Expiration::Ttl(ttl));
        let outcome =
            site.app().put_entry(put_of(&session, v1::Put { expiration, ..new_put("k", "") })).await;
        assert_eq!(Refusal::of(&outcome.unwrap_err()).reason, "INVALID_FIELD", "{ttl:?}");
        let time = prost_types::Timestamp { seconds, nanos };
        let expiration = Some(v1::put::Expiration::ExpireTime(time));
        let outcome =
            site.app().put_entry(put_of(&session, v1::Put { expiration, ..new_put("k", "") })).await;
        assert_eq!(Refusal::of(&outcome.unwrap_err()).reason, "INVALID_FIELD", "{time:?}");
    }
    // A stream may be asked to be followed for ever; it is followed for an hour.
    let max_duration = Some(seconds(u64::from(u32::MAX)));
    let request = v1::ReadEventsRequest { max_duration, ..crate::requests::follow(&session, "s") };
    answered(site.app().read_events(request).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_cost_bounded_memory_and_nobody_is_turned_away() {
    let daemon = Arc::new(Daemon::start().await);
    let site = Site::on(Arc::clone(&daemon)).await;
    let session = site.session().await;
    let before = daemon.memory("VmRSS");
    let mut idle = Vec::new();
    for batch in 0..20 {
        let connecting = (0..50).map(|_| async {
            let mut client = daemon.context(Login::App);
            answered(client.create_session(create("demo")).await);
            client
        });
        idle.extend(soon(futures_util::future::join_all(connecting)).await);
        assert_eq!(idle.len(), (batch + 1) * 50);
    }
    let after = daemon.memory("VmRSS");
    println!("{} KiB a connection", ((after - before) / idle.len()) >> 10);
    // Each holds a TLS session and HTTP/2 windows, and each made a session here.
    assert!(after < before + (200 << 20), "{} MiB more", (after - before) >> 20);
    site.put(&session, "key", "value").await;
    let mut last = idle.pop().unwrap();
    answered(last.create_session(create("demo")).await);
}

#[tokio::test]
async fn floods_of_refused_requests_leave_memory_bounded() {
    let daemon = Arc::new(Daemon::start().await);
    let site = Site::on(Arc::clone(&daemon)).await;
    let session = site.session().await;
    let refuse = async |count: usize| {
        for _ in 0..count {
            let over = site.app().put_entry(put(&session, "key", vec![0; (4 << 20) + 1])).await;
            assert_eq!(Refusal::of(&over.unwrap_err()).reason, "INVALID_FIELD");
            let none = site.app().read_entry(read(&session, "none")).await;
            assert_eq!(Refusal::of(&none.unwrap_err()).reason, "ENTRY_NOT_FOUND");
        }
    };
    refuse(10).await;
    let before = daemon.memory("VmRSS");
    soon(refuse(100)).await;
    let after = daemon.memory("VmRSS");
    assert!(after < before + (32 << 20), "{} MiB more", (after.saturating_sub(before)) >> 20);
}
