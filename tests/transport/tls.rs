//! Handshakes: who gets in, how long it may take, and with which certificate.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use strongroom::api::transport::{ClientAuth, ConnectionLimits, Reload, TlsError, TlsSource, TlsVersions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::raw::{PREFACE, Raw};
use crate::setup::{Authority, PATIENCE, Plan, Server, put, soon, until};

fn hurried() -> Plan {
    let handshake_timeout = Duration::from_millis(200);
    Plan { limits: ConnectionLimits { handshake_timeout, ..Default::default() }, ..Plan::default() }
}

/// Reads until the peer closes.
async fn until_closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = [0; 1024];
    soon(async { while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {} }).await;
}

/// The certificate that a new connection is shown.
async fn shown(server: &Server) -> Vec<u8> {
    Raw::open(server).await.certificate()
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_when_the_handshake_takes_too_long() {
    let server = Server::start(hurried()).await;
    until_closed(TcpStream::connect(server.address).await.unwrap()).await;
    assert_eq!(server.counters.counts().expired_handshakes, 1);
    server.assert_alive().await;
}

#[tokio::test]
async fn a_preface_that_trickles_in_is_closed_when_the_handshake_takes_too_long() {
    let server = Server::start(hurried()).await;
    let mut stream = server.connect().await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let trickle = async {
        for byte in PREFACE.iter().cycle() {
            ticks.tick().await;
            if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            if server.counters.counts().expired_handshakes == 1 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trickle).await.expect("it is cut off");
    until_closed(stream).await;
    assert_eq!(server.counters.counts().opened, 0);
}

#[tokio::test]
async fn a_client_without_tls_is_refused() {
    let server = Server::start(Plan::default()).await;
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    tcp.write_all(PREFACE).await.unwrap();
    until_closed(tcp).await;
    assert_eq!(server.counters.counts().failed_handshakes, 1);
    server.assert_alive().await;
}

#[tokio::test]
async fn a_client_that_speaks_another_protocol_over_tls_is_refused() {
    let server = Server::start(Plan::default()).await;
    let other = server.authority.client(&[&TLS13], &[b"http/1.1"]);
    let refused = match server.connect_by(other).await {
        Err(error) => error,
        Ok(mut stream) => stream.read_u8().await.unwrap_err(),
    };
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    let silent = server.connect_by(server.authority.client(&[&TLS13], &[])).await.unwrap();
    until_closed(silent).await;
    let mut http1 = server.connect().await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until_closed(http1).await;
    assert_eq!(server.counters.counts().failed_handshakes, 3);
    assert_eq!(server.counters.counts().opened, 0);
}

#[tokio::test]
async fn tls_1_2_is_refused_by_default_and_spoken_if_configured() {
    let server = Server::start(Plan::default()).await;
    let old = server.authority.client(&[&TLS12], &[b"h2"]);
    let refused = server.connect_by(old).await.unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    let server = Server::start(Plan { versions: TlsVersions::From12, ..Plan::default() }).await;
    let old = server.authority.client(&[&TLS12], &[b"h2"]);
    let stream = server.connect_by(old).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn a_required_client_certificate_is_demanded_and_reaches_the_handler() {
    let server = Server::start(Plan { clients: Some(ClientAuth::Required), ..Plan::default() }).await;
    assert_eq!(refusal(&server, None).await, "certificate required");
    let foreign = Authority::new();
    assert_eq!(refusal(&server, Some(&foreign)).await, "unknown ca");
    let mut client = server.client_with(Some(server.authority.issue("client")));
    let answer = soon(client.put_entry(put("echo", 0))).await.unwrap().into_inner();
    assert!(answer.metadata.unwrap().content_type.starts_with("1 certificates"));
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_missing_but_not_wrong() {
    let server = Server::start(Plan { clients: Some(ClientAuth::Optional), ..Plan::default() }).await;
    let answer = soon(server.client().put_entry(put("echo", 0))).await.unwrap().into_inner();
    assert!(answer.metadata.unwrap().content_type.starts_with("0 certificates"));
    assert_eq!(refusal(&server, Some(&Authority::new())).await, "unknown ca");
}

#[tokio::test]
async fn sessions_are_resumed_only_where_no_client_certificate_counts() {
    let open = Server::start(Plan::default()).await;
    let connector = open.authority.client(&[&TLS13], &[b"h2"]);
    assert_eq!(second_handshake(&open, connector).await, Some(HandshakeKind::Resumed));
    let mutual = Server::start(Plan { clients: Some(ClientAuth::Required), ..Plan::default() }).await;
    let connector = mutual.authority.client_as(&mutual.authority);
    assert_eq!(second_handshake(&mutual, connector).await, Some(HandshakeKind::Full));
}

async fn second_handshake(server: &Server, connector: TlsConnector) -> Option<HandshakeKind> {
    let mut first = server.connect_by(connector.clone()).await.unwrap();
    first.write_all(PREFACE).await.unwrap();
    // The server's settings come behind its tickets, if it sends any.
    soon(first.read_u8()).await.unwrap();
    server.connect_by(connector).await.unwrap().get_ref().1.handshake_kind()
}

/// Why a client with a certificate of `issuer` is not let in. In TLS 1.3 it learns that when it first reads.
async fn refusal(server: &Server, issuer: Option<&Authority>) -> &'static str {
    let connector = match issuer {
        None => server.authority.client(&[&TLS13], &[b"h2"]),
        Some(issuer) => server.authority.client_as(issuer),
    };
    let outcome: io::Result<u8> = async {
        let mut stream = server.connect_by(connector).await?;
        soon(stream.read_u8()).await
    }
    .await;
    let error = outcome.unwrap_err().to_string();
    match error {
        error if error.contains("CertificateRequired") => "certificate required",
        error if error.contains("UnknownCA") || error.contains("DecryptError") => "unknown ca",
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_certificate_is_replaced_under_load_and_no_call_fails() {
    let server = Server::start(Plan::default()).await;
    let watch =
        tokio::spawn(Arc::clone(&server.tls).watch(Duration::from_millis(5), server.shutdown.clone()));
    let mut seen = vec![shown(&server).await];
    for _ in 0..5 {
        server.authority.renew();
        let before = seen.last().unwrap().clone();
        soon(async {
            loop {
                soon(server.client().put_entry(put("echo", 100))).await.expect("no call fails");
                let now = shown(&server).await;
                if now != before {
                    return seen.push(now);
                }
            }
        })
        .await;
    }
    assert_eq!(server.counters.counts().failed_handshakes, 0);
    server.shutdown.cancel();
    soon(watch).await.unwrap();
}

#[tokio::test]
async fn a_broken_file_leaves_the_last_good_certificate_in_use() {
    let server = Server::start(Plan::default()).await;
    let watch =
        tokio::spawn(Arc::clone(&server.tls).watch(Duration::from_millis(5), server.shutdown.clone()));
    let good = shown(&server).await;
    std::fs::write(server.authority.path("server.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    until("the fault is noticed", || server.tls.fault().is_some()).await;
    assert_eq!(shown(&server).await, good);
    server.assert_alive().await;
    server.authority.renew();
    until("the fault is gone", || server.tls.fault().is_none()).await;
    assert_ne!(shown(&server).await, good);
    server.shutdown.cancel();
    soon(watch).await.unwrap();
}

#[test]
fn files_behind_a_link_that_is_swapped_are_followed() {
    let authority = Authority::new();
    let (first, second) = (authority.path("..1"), authority.path("..2"));
    for dir in [&first, &second] {
        std::fs::create_dir(dir).unwrap();
        authority.renew_in(dir);
    }
    let link = |to: &Path| {
        let fresh = authority.path("..tmp");
        std::os::unix::fs::symlink(to, &fresh).unwrap();
        std::fs::rename(fresh, authority.path("..data")).unwrap();
    };
    link(&first);
    let mut files = authority.files(ClientAuth::None, TlsVersions::Only13);
    files.chain = authority.path("..data/server.pem");
    files.key = authority.path("..data/server.key");
    let source = TlsSource::open(files).unwrap();
    assert_eq!(source.reload().unwrap(), Reload::Unchanged);
    link(&second);
    assert_eq!(source.reload().unwrap(), Reload::Replaced);
    assert_eq!(source.reload().unwrap(), Reload::Unchanged);
}

#[test]
fn client_authorities_are_reloaded_too() {
    let authority = Authority::new();
    let files = authority.files(ClientAuth::Required(authority.path("ca.pem")), TlsVersions::Only13);
    let source = TlsSource::open(files).unwrap();
    std::fs::write(authority.path("ca.pem"), Authority::new().pem()).unwrap();
    assert_eq!(source.reload().unwrap(), Reload::Replaced);
    std::fs::write(authority.path("ca.pem"), "").unwrap();
    assert!(matches!(source.reload(), Err(TlsError::NoCertificate { .. })));
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name() {
    let authority = Authority::new();
    let files = authority.files(ClientAuth::None, TlsVersions::Only13);
    let open = || TlsSource::open(files.clone()).map(|_| ()).unwrap_err();
    let (_, other_key) = authority.issue("localhost");
    std::fs::write(&files.key, other_key).unwrap();
    assert!(matches!(open(), TlsError::Mismatch));
    std::fs::write(&files.key, "no key").unwrap();
    assert!(matches!(open(), TlsError::Key { path } if path == files.key));
    std::fs::write(&files.key, vec![b'x'; (4 << 20) + 1]).unwrap();
    assert!(matches!(open(), TlsError::TooLarge { path } if path == files.key));
    std::fs::remove_file(&files.key).unwrap();
    assert!(matches!(open(), TlsError::Read { path, .. } if path == files.key));
    authority.renew();
    std::fs::write(&files.chain, "nothing").unwrap();
    assert!(matches!(open(), TlsError::NoCertificate { path } if path == files.chain));
}
