//! One bounded POST over TLS, on a connection of its own.
//!
//! Calls are rare (a few when a process starts, one a minute after that), so that a pool of connections would save nothing
//! and could only go stale. The authority's file is read for each call: a replaced one counts from the next call on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::error::{FileProblem, TransitCall, TransitError};
use crate::model::Duration;

/// Largest answer, and largest head of one.
pub(super) const ANSWER_BYTES: usize = 64 << 10;
/// Largest file with a token.
pub(super) const TOKEN_BYTES: usize = 16 << 10;
/// Largest file with authorities.
const AUTHORITIES_BYTES: usize = 1 << 20;
/// Most header fields of an answer.
const HEADERS: usize = 64;
/// Where `https` is when an address does not say.
const PORT: u16 = 443;

/// A server, and how it is reached.
pub(super) struct Https {
    host: String,
    port: u16,
    authority: HeaderValue,
    name: ServerName<'static>,
    ca: PathBuf,
    deadline: Duration,
}

impl Https {
    pub(super) fn new(address: &str, ca: &Path, deadline: Duration) -> Result<Self, TransitError> {
        let uri: Uri = address.parse().map_err(|_| TransitError::Address)?;
        let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let (Some("https"), true, Some(authority)) = (uri.scheme_str(), bare, authority) else {
            return Err(TransitError::Address);
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| TransitError::Address)?;
        let port = authority.port_u16().unwrap_or(PORT);
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| TransitError::Address)?;
        Ok(Self { host, port, authority, name, ca: ca.to_owned(), deadline })
    }

    /// Posts JSON and reads JSON.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        call: TransitCall,
        path: &str,
        headers: HeaderMap,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<T, TransitError> {
        let exchange = self.exchange(call, path, headers, body);
        let answer = tokio::time::timeout(self.deadline, exchange).await;
        let (status, body) = answer.map_err(|_| TransitError::Deadline { call, after: self.deadline })??;
        if status != StatusCode::OK {
            return Err(TransitError::of_status(call, status));
        }
        serde_json::from_slice(&body).map_err(|_| TransitError::Malformed { call })
    }

    async fn exchange(
        &self,
        call: TransitCall,
        path: &str,
        headers: HeaderMap,
        mut body: Zeroizing<Vec<u8>>,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), TransitError> {
        let broken = |_| TransitError::Broken { call };
        let stream = TokioIo::new(self.connect(call).await?);
        let mut client = http1::Builder::new();
        let client = client.max_buf_size(ANSWER_BYTES).max_headers(HEADERS);
        let (mut sender, connection) = client.handshake(stream).await.map_err(broken)?;
        // From here on the allocator of the process wipes it, when the connection has let go of it.
        let mut request = Request::new(Full::new(Bytes::from(std::mem::take(&mut *body))));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| TransitError::Option { option: "the path" })?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.authority.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
                true => TransitError::AnswerTooLarge { call, max: ANSWER_BYTES },
                false => TransitError::Broken { call },
            })?;
            Ok((status, Zeroizing::new(body.to_bytes().to_vec())))
        };
        tokio::pin!(answer);
        // The connection moves the bytes; when it ends first, the answer says how far it came.
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }

    async fn connect(&self, call: TransitCall) -> Result<TlsStream<TcpStream>, TransitError> {
        let connector = TlsConnector::from(Arc::new(self.tls().await?));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| TransitError::Unreachable { call, kind: error.kind() })?;
        connector.connect(self.name.clone(), stream).await.map_err(|_| TransitError::Tls { call })
    }

    async fn tls(&self) -> Result<ClientConfig, TransitError> {
        let failed = |problem| TransitError::File { path: self.ca.clone(), problem };
        let pem = read_bounded(&self.ca, AUTHORITIES_BYTES).await?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| failed(FileProblem::NotCertificates))?;
            roots.add(certificate).map_err(|_| failed(FileProblem::NotCertificates))?;
        }
        if roots.is_empty() {
            return Err(failed(FileProblem::NotCertificates));
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
        // The versions are those of the provider: that it has none of them cannot be.
        let versions = versions.map_err(|_| TransitError::Option { option: "TLS" })?;
        Ok(versions.with_root_certificates(roots).with_no_client_auth())
    }
}

/// Reads a token from a file: visible characters, the white space around them left out.
pub(super) async fn read_token(path: &Path) -> Result<Zeroizing<String>, TransitError> {
    let text = read_bounded(path, TOKEN_BYTES).await?;
    let token = std::str::from_utf8(&text).unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TransitError::File { path: path.to_owned(), problem: FileProblem::NotAToken });
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// Reads a file of at most `max` bytes into a buffer that never moves.
async fn read_bounded(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, TransitError> {
    let failed = |problem| TransitError::File { path: path.to_owned(), problem };
    let unreadable = |error: std::io::Error| failed(FileProblem::Unreadable(error.kind()));
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut text = Zeroizing::new(Vec::with_capacity(max + 1));
    let mut limited = (&mut file).take(max as u64 + 1);
    limited.read_to_end(&mut text).await.map_err(unreadable)?;
    if text.len() > max { Err(failed(FileProblem::TooLarge(max))) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_a_host_and_a_port_and_nothing_else() {
        let new = |address: &str| Https::new(address, Path::new("ca.pem"), Duration::from_secs(1));
        for (address, host, port) in [
            ("https://vault.example", "vault.example", 443),
            ("https://vault.example:8200/", "vault.example", 8200),
            ("https://10.0.0.1:8200", "10.0.0.1", 8200),
            ("https://[::1]:8200", "::1", 8200),
        ] {
            let https = new(address).unwrap();
            assert_eq!((https.host.as_str(), https.port), (host, port));
        }
        for address in [
            "http://vault.example",
            "vault.example:8200",
            "https://",
            "",
            "https://user@vault.example",
            "https://vault.example/v1",
            "https://vault.example?x",
            "unix:///run/vault.sock",
        ] {
            assert!(matches!(new(address), Err(TransitError::Address)), "{address}");
        }
    }
}
