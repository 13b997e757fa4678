//! Connections: where to, over which TLS, and how soon again after a failure.
//!
//! Names are resolved anew for every connection, the endpoints take turns, and after a failure the next attempt waits for
//! a growing pause; calls that come in between fail at once with what went wrong before, instead of storming the server.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::error::ClientError;
use super::retry::jitter;

/// Longest TCP connect and TLS handshake together, per address.
const CONNECT: Duration = Duration::from_secs(3);
/// First pause after a failed connect; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause after a failed connect: short, because calls fail at once meanwhile.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Silence after which a connection with calls in flight is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the probe may stay unanswered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// One server address as it was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    host: String,
    port: u16,
    uri: Uri,
}

impl Target {
    /// Parses `https://host[:port]`.
    pub(super) fn parse(endpoint: &str, default_port: u16) -> Result<Self, ClientError> {
        let refused = || ClientError::Endpoint { endpoint: endpoint.to_owned() };
        let uri: Uri = endpoint.parse().map_err(|_| refused())?;
        let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        let credentials = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        match uri.host() {
            Some(host) if uri.scheme_str() == Some("https") && bare && !credentials => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Ok(Self { host, port: uri.port_u16().unwrap_or(default_port), uri })
            }
            _ => Err(refused()),
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// What all connections to one listener have in common.
#[derive(Debug)]
pub(super) struct Route {
    targets: Vec<Target>,
    turn: AtomicUsize,
    ca_file: PathBuf,
    server_name: ServerName<'static>,
    failure: Mutex<Option<Failure>>,
}

/// The last failed attempt.
#[derive(Debug, Clone)]
struct Failure {
    pause: Duration,
    until: Instant,
    kind: io::ErrorKind,
    text: String,
}

impl Route {
    /// Checks the configuration by reading the CA file once; nothing is connected yet.
    pub(super) fn new(
        targets: Vec<Target>,
        ca_file: PathBuf,
        server_name: &str,
    ) -> Result<Self, ClientError> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| ClientError::ServerName { name: server_name.to_owned() })?;
        roots(&ca_file)?;
        Ok(Self { targets, turn: AtomicUsize::new(0), ca_file, server_name: name, failure: Mutex::new(None) })
    }

    /// A channel that connects when it is first used.
    pub(super) fn channel(self: &Arc<Self>) -> Result<Channel, ClientError> {
        let target = self.targets.first().ok_or(ClientError::NoEndpoint { listener: "data" })?;
        let refused = |_| ClientError::Endpoint { endpoint: target.uri.to_string() };
        // TLS is done by the connector below, so that a replaced CA file is honoured; tonic must not add its own.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.authority(target)))
            .map_err(refused)?
            .origin(self.origin(target)?)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let route = Arc::clone(self);
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let route = Arc::clone(&route);
            async move { route.connect().await.map(TokioIo::new) }
        })))
    }

    fn authority(&self, target: &Target) -> String {
        let name = self.server_name.to_str();
        if name.contains(':') {
            format!("[{name}]:{}", target.port)
        } else {
            format!("{name}:{}", target.port)
        }
    }

    fn origin(&self, target: &Target) -> Result<Uri, ClientError> {
        let origin = format!("https://{}", self.authority(target));
        origin.parse().map_err(|_| ClientError::Endpoint { endpoint: origin })
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        self.refuse_while_pausing()?;
        let outcome = self.connect_somewhere().await;
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Ok(_) => *failure = None,
            Err(error) => *failure = Some(Failure::after(failure.as_ref(), error)),
        }
        drop(failure);
        outcome
    }

    fn refuse_while_pausing(&self) -> io::Result<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.as_ref().filter(|failure| Instant::now() < failure.until) {
            Some(failure) => Err(io::Error::new(failure.kind, failure.text.clone())),
            None => Ok(()),
        }
    }

    /// Tries every address of every endpoint once, beginning with another endpoint each time.
    async fn connect_somewhere(&self) -> io::Result<TlsStream<TcpStream>> {
        let tls = TlsConnector::from(self.tls_config().await?);
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for place in 0..self.targets.len() {
            let Some(target) = self.targets.get(first.wrapping_add(place) % self.targets.len()) else {
                continue;
            };
            match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
                Err(error) => last = error,
                Ok(addresses) => {
                    for address in addresses {
                        match self.connect_to(address, &tls).await {
                            Ok(stream) => return Ok(stream),
                            Err(error) => last = error,
                        }
                    }
                }
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
        let attempt = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = tls.connect(self.server_name.clone(), stream).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak HTTP/2"));
            }
            Ok(stream)
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}"));
        timeout(CONNECT, attempt).await.map_err(late)?
    }

    async fn tls_config(&self) -> io::Result<Arc<ClientConfig>> {
        let path = self.ca_file.clone();
        let roots = tokio::task::spawn_blocking(move || roots(&path)).await?.map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Failure {
    fn after(before: Option<&Self>, error: &io::Error) -> Self {
        let pause = before.map_or(PAUSE, |before| before.pause.saturating_mul(2).min(PAUSE_MAX));
        Self { pause, until: Instant::now() + jitter(pause), kind: error.kind(), text: error.to_string() }
    }
}

fn roots(path: &Path) -> Result<RootCertStore, ClientError> {
    let text = std::fs::read(path)
        .map_err(|error| ClientError::File { path: path.to_owned(), kind: error.kind() })?;
    let unusable = || ClientError::CaFile { path: path.to_owned() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_https_urls_are_endpoints() {
        let target = Target::parse("https://[::1]:7443", 1).unwrap();
        assert_eq!((target.host(), target.port), ("::1", 7443));
        assert_eq!(Target::parse("https://vault.example", 7443).unwrap().port, 7443);
        for bad in ["http://a:1", "a:1", "https://", "https://a/b", "https://u:p@a:1", "https://a?x"] {
            assert!(matches!(Target::parse(bad, 1), Err(ClientError::Endpoint { .. })), "{bad}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(roots(file.path()), Err(ClientError::CaFile { .. })));
        let absent = file.path().join("absent");
        assert!(matches!(roots(&absent), Err(ClientError::File { .. })));
    }
}
