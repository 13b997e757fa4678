//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::counters::Counters;
use super::limits::ConnectionLimits;
use super::pace::{Handover, Paced, Progress, Spawner};
use super::peer::{Closing, Peer};
use super::preface::Prefaced;
use super::tls::{ALPN, TlsSource};
use crate::api::layers::Rpc;
use crate::auth::ClientCertificate;

type Stream = Prefaced<TlsStream<TcpStream>>;

/// What the connections of a listener share.
pub(super) struct Shared<S> {
    pub(super) service: S,
    pub(super) tls: Arc<TlsSource>,
    pub(super) limits: ConnectionLimits,
    pub(super) counters: Arc<Counters>,
    /// No new work: connections are asked to close.
    pub(super) drain: CancellationToken,
    /// No more time: connections are cut off.
    pub(super) sever: CancellationToken,
}

/// The places that a connection takes, given back when they are dropped.
pub(super) struct Places {
    pub(super) handshake: OwnedSemaphorePermit,
    pub(super) connection: OwnedSemaphorePermit,
}

impl<S: Rpc> Shared<S> {
    /// Serves one connection to its end.
    pub(super) async fn run(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, places: Places) {
        let opened = self.drain.run_until_cancelled(self.open(tcp, address)).await;
        drop(places.handshake);
        if let Some(Some((stream, peer))) = opened {
            let ordinal = self.counters.opened.add_one();
            let (alive, mut handlers) = mpsc::channel(1);
            let gone = CancellationToken::new();
            let connected = gone.clone().drop_guard();
            let spawner = Spawner::new(self.limits.stall, Arc::clone(&self.counters), gone, alive);
            Box::pin(self.serve(stream, peer, ordinal, spawner)).await;
            // The place is free when the last handler is gone, and not when it was told to go.
            drop(connected);
            handlers.recv().await;
            self.counters.closed.add_one();
        }
        drop(places.connection);
    }

    async fn open(&self, tcp: TcpStream, address: SocketAddr) -> Option<(Stream, Peer)> {
        match timeout(self.limits.handshake_timeout, handshake(&self.tls, tcp, address)).await {
            Ok(Ok(opened)) => Some(opened),
            Ok(Err(error)) => {
                self.counters.failed_handshakes.add_one();
                tracing::debug!(%error, "a handshake failed");
                None
            }
            Err(_) => {
                self.counters.expired_handshakes.add_one();
                None
            }
        }
    }

    async fn serve(&self, stream: Stream, peer: Peer, ordinal: u64, spawner: Spawner) {
        let closing = CancellationToken::new();
        let handover = spawner.handover();
        let certificates = Arc::clone(&peer.certificates);
        let http = self.http(spawner);
        let service =
            Entrance { inner: self.service.clone(), peer, closing: Closing(closing.clone()), handover };
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let grace = tokio::select! {
            ended = connection.as_mut() => return self.note(&ended),
            () = self.tls.distrusts(&certificates) => return self.distrust(),
            () = sleep(self.limits.age_of(ordinal)) => {
                self.counters.aged.add_one();
                self.limits.close_grace
            }
            // The listener says when a drain is over.
            () = self.drain.cancelled() => Duration::MAX,
        };
        closing.cancel();
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            // Many a client closes the socket as soon as it sees the GOAWAY, so that an error means nothing any more.
            _ = connection => {}
            () = self.tls.distrusts(&certificates) => self.distrust(),
            () = sleep(grace) => { self.counters.severed.add_one(); }
            () = self.sever.cancelled() => { self.counters.severed.add_one(); }
        }
    }

    /// The connection is cut off: its peer's certificate was revoked, or its authority is trusted no more.
    fn distrust(&self) {
        self.counters.severed.add_one();
        tracing::info!("a connection is cut off: the certificate of its client is not accepted any more");
    }

    fn note(&self, ended: &hyper::Result<()>) {
        if let Err(error) = ended {
            self.counters.broken.add_one();
            tracing::debug!(%error, "a connection broke");
        }
    }

    fn http(&self, spawner: Spawner) -> http2::Builder<Spawner> {
        let limits = &self.limits;
        let mut http = http2::Builder::new(spawner);
        http.timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.header_list_bytes)
            .max_local_error_reset_streams(limits.error_resets)
            .max_pending_accept_reset_streams(limits.pending_resets)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout);
        http
    }
}

async fn handshake(tls: &TlsSource, tcp: TcpStream, address: SocketAddr) -> io::Result<(Stream, Peer)> {
    // Small answers wait for the acknowledgement of the last one otherwise, which a client delays by up to 40 ms.
    tcp.set_nodelay(true)?;
    let stream = TlsAcceptor::from(tls.current()).accept(tcp).await?;
    let (_, session) = stream.get_ref();
    // A client that offers other protocols only was refused by rustls; this one offered none at all.
    if session.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP/2 was not agreed on"));
    }
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificates: Arc<[_]> =
        certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let peer =
        Peer { address, identity: identity(&certificates), certificates, tls: session.protocol_version() };
    Ok((Prefaced::read(stream).await?, peer))
}

fn identity(certificates: &[CertificateDer<'_>]) -> Option<Arc<ClientCertificate>> {
    certificates.first().map(|own| Arc::new(ClientCertificate::read(own)))
}

/// The door from a connection into the service.
struct Entrance<S> {
    inner: S,
    peer: Peer,
    closing: Closing,
    handover: Handover,
}

impl<S: Rpc> hyper::service::Service<Request<Incoming>> for Entrance<S> {
    type Response = Response<Paced>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.closing.clone());
        let progress = Arc::new(Progress::default());
        self.handover.leave(Arc::clone(&progress));
        let answer = self.inner.clone().oneshot(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Paced::new(body, progress))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::transport::{ClientAuth, TlsFiles, TlsVersions};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn small_answers_leave_without_delay() {
        let dir = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (dir.path().join("chain"), dir.path().join("key"));
        std::fs::write(&chain, own.cert.pem()).unwrap();
        std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        let (clients, versions) = (ClientAuth::None, TlsVersions::Only13);
        let files = TlsFiles { chain, key, clients, revoked: None, versions };
        let source = TlsSource::open(files).unwrap();

        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];

        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (accepted, address) = socket.accept().await.unwrap();
        let peer = async {
            let name = ServerName::try_from("localhost").unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let mut stream = connector.connect(name, connected).await.unwrap();
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            stream
        };
        let (opened, _peer) = tokio::join!(handshake(&source, accepted, address), peer);
        let (stream, _) = opened.unwrap();
        assert!(stream.get_ref().get_ref().0.nodelay().unwrap());
    }
}
