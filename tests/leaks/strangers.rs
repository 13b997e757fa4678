//! Plants marked words around calls: in metadata, paths and credentials, and in what is no call at all.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use strongroom::proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue};

use crate::markers::{Kind, Markers};
use crate::plant::{Caller, Harvest};
use crate::support::{Daemon, Login, soon};

const METHOD: &str = "/strongroom.v1.ContextService/ListSessions";
/// Metadata that something in a server might look at, or print.
const METADATA: [&str; 16] = [
    "accept",
    "accept-encoding",
    "baggage",
    "content-encoding",
    "cookie",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-timeout",
    "grpc-trace-bin",
    "strongroom-request-id",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-forwarded-for",
    "x-secret",
    "x-secret-bin",
];

/// Plants around calls.
pub async fn knock(daemon: &Daemon, markers: &mut Markers, harvest: &mut Harvest) {
    metadata(daemon, markers, harvest).await;
    credentials(daemon, markers, harvest).await;
    paths(daemon, markers, harvest).await;
    for endpoint in [daemon.endpoint(), daemon.admin_endpoint(), daemon.health_endpoint()] {
        let address = endpoint.strip_prefix("https://").unwrap().to_owned();
        no_calls(daemon, &address, markers).await;
    }
}

fn good_message() -> Bytes {
    v1::ListSessionsRequest { tenant: "demo".to_owned(), ..Default::default() }.encode_to_vec().into()
}

async fn metadata(daemon: &Daemon, markers: &mut Markers, harvest: &mut Harvest) {
    let caller = Caller::new(daemon, "who may do everything", Some(daemon.token(Login::Admin)));
    for name in METADATA {
        let word = markers.word(Kind::Request, format!("metadata {name}"));
        let mut request = caller.request(good_message());
        if name.ends_with("-bin") {
            request.metadata_mut().insert_bin(name, BinaryMetadataValue::from_bytes(word.as_bytes()));
        } else {
            request.metadata_mut().insert(name, AsciiMetadataValue::try_from(word).unwrap());
        }
        if let Err(status) = caller.send(METHOD, request).await {
            harvest.refused(format!("metadata {name}"), &status);
        }
    }
    // A name of metadata can be a secret as well.
    let word = markers.word(Kind::Request, "a name of metadata");
    let mut request = caller.request(good_message());
    let name = tonic::metadata::AsciiMetadataKey::from_bytes(word.as_bytes()).unwrap();
    request.metadata_mut().insert(name, AsciiMetadataValue::from_static("x"));
    if let Err(status) = caller.send(METHOD, request).await {
        harvest.refused("a name of metadata".to_owned(), &status);
    }
}

async fn credentials(daemon: &Daemon, markers: &mut Markers, harvest: &mut Harvest) {
    let caller = Caller::new(daemon, "somebody", None);
    let forms: [fn(&str) -> Vec<String>; 7] = [
        |word| vec![word.to_owned()],
        |word| vec![format!("Basic {word}")],
        |word| vec![format!("Bearer {word}")],
        |word| vec![format!("bearer srt_{word}")],
        |word| vec![format!("Bearer srt_{}", word.repeat(20))],
        |word| vec![format!("Bearer srt_{word}\u{e9}")],
        |word| vec![format!("Bearer srt_{word}"), format!("Bearer srt_{word}")],
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let what = format!("credentials of form {number}");
        let word = markers.word(Kind::Token, what.clone());
        let mut request = caller.request(good_message());
        for value in form(&word) {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let mut headers = std::mem::take(request.metadata_mut()).into_headers();
            headers.append("authorization", value);
            *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        }
        let refused = caller.send(METHOD, request).await.unwrap_err();
        harvest.refused(what, &refused);
    }
}

async fn paths(daemon: &Daemon, markers: &mut Markers, harvest: &mut Harvest) {
    let caller = Caller::new(daemon, "who may do everything", Some(daemon.token(Login::Admin)));
    let forms: [fn(&str) -> String; 5] = [
        |word| format!("/{word}"),
        |word| format!("/strongroom.v1.ContextService/{word}"),
        |word| format!("/strongroom.v1.AdminService/{word}"),
        |word| format!("/strongroom.v1.{word}/Method"),
        |word| format!("{METHOD}?secret={word}"),
    ];
    for form in forms {
        let word = markers.word(Kind::Request, "a path");
        if let Err(status) = caller.send(&form(&word), caller.request(good_message())).await {
            harvest.refused("a path".to_owned(), &status);
        }
    }
    let word = markers.word(Kind::Request, "a message that is none");
    let refused = caller.send(METHOD, caller.request(Bytes::from(word))).await.unwrap_err();
    harvest.refused("a message that is none".to_owned(), &refused);
}

/// What is no call, no HTTP/2, or no TLS.
async fn no_calls(daemon: &Daemon, address: &str, markers: &mut Markers) {
    let mut word = |place: &str| markers.word(Kind::Request, place.to_owned());
    let texts = [
        format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", word("a path of HTTP/1.1")),
        format!("{}\r\n", word("what is no protocol")),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{}", word("what is no frame").repeat(20)),
    ];
    for text in &texts {
        let mut open = TcpStream::connect(address).await.unwrap();
        exchange(&mut open, text.as_bytes()).await;
        let name = ServerName::try_from("localhost").unwrap();
        let connected =
            connector(daemon, b"h2").connect(name, TcpStream::connect(address).await.unwrap()).await;
        exchange(&mut connected.unwrap(), text.as_bytes()).await;
    }
    let name = ServerName::try_from(format!("{}.example", word("a server name"))).unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    assert!(connector(daemon, b"h2").connect(name, tcp).await.is_err());
    let tcp = TcpStream::connect(address).await.unwrap();
    let protocol = word("a protocol's name");
    let name = ServerName::try_from("localhost").unwrap();
    assert!(connector(daemon, protocol.as_bytes()).connect(name, tcp).await.is_err());
}

/// Writes, and reads to the end, whatever comes of it.
async fn exchange(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), bytes: &[u8]) {
    let exchange = async {
        stream.write_all(bytes).await.ok();
        stream.shutdown().await.ok();
        stream.read_to_end(&mut Vec::new()).await.ok();
    };
    soon(exchange).await;
}

fn connector(daemon: &Daemon, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(daemon.keys().join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}
