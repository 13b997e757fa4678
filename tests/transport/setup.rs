//! A server on the loopback interface, certificates for it, and clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use strongroom::api::layers::{InFlight, MessageLimits, Methods, Stack};
use strongroom::api::transport::{
    ClientAuth, ConnectionLimits, Counters, Listener, ServeReport, TlsFiles, TlsSource, TlsVersions,
};
use strongroom::proto::v1;
use strongroom::proto::v1::context_service_client::ContextServiceClient;
use strongroom::proto::v1::context_service_server::ContextServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::service::Scripted;

/// Longer than anything here takes, shorter than a test run should hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let held = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Waits for `future`, not for ever.
#[track_caller]
pub fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let outcome = tokio::time::timeout(PATIENCE, future).await;
        outcome.unwrap_or_else(|_| panic!("not in time: {caller}"))
    }
}

/// A certificate authority, and the directory where its server's files are.
pub struct Authority {
    pub dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { dir: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(authority.path("ca.pem"), authority.pem()).unwrap();
        authority.renew();
        authority
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for `name`: chain and key as PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes a new server certificate over the old one.
    pub fn renew(&self) {
        self.renew_in(self.dir.path());
    }

    pub fn renew_in(&self, dir: &Path) {
        let (chain, key) = self.issue("localhost");
        std::fs::write(dir.join("server.key"), key).unwrap();
        std::fs::write(dir.join("server.pem"), chain).unwrap();
    }

    pub fn files(&self, clients: ClientAuth, versions: TlsVersions) -> TlsFiles {
        let (chain, key) = (self.path("server.pem"), self.path("server.key"));
        TlsFiles { chain, key, clients, revoked: None, versions }
    }

    /// The configuration of a client that trusts this authority and offers `alpn`.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> TlsConnector {
        let mut config = self.client_builder(versions).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    pub fn client_as(&self, issuer: &Self) -> TlsConnector {
        let (chain, key) = issuer.issue("client");
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let builder = self.client_builder(&[&rustls::version::TLS13]);
        let mut config = builder.with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    fn client_builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }
}

/// What a test changes about a server.
pub struct Plan {
    pub limits: ConnectionLimits,
    pub messages: MessageLimits,
    pub calls: usize,
    pub streams: usize,
    pub ceiling: Duration,
    pub clients: Option<fn(PathBuf) -> ClientAuth>,
    /// Who issues their certificates, if it is not who issues the server's.
    pub client_authorities: Option<String>,
    /// The list of those that are revoked.
    pub revoked: Option<String>,
    pub versions: TlsVersions,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            limits: ConnectionLimits::default(),
            messages: MessageLimits::default(),
            calls: 64,
            streams: 64,
            ceiling: Duration::from_secs(30),
            clients: None,
            client_authorities: None,
            revoked: None,
            versions: TlsVersions::Only13,
        }
    }
}

pub struct Server {
    pub authority: Authority,
    pub address: SocketAddr,
    pub service: Scripted,
    pub in_flight: InFlight,
    pub tls: Arc<TlsSource>,
    pub counters: Arc<Counters>,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<ServeReport>,
}

impl Server {
    pub async fn start(plan: Plan) -> Self {
        install_provider();
        let authority = Authority::new();
        let write = |name: &str, text: &String| {
            std::fs::write(authority.path(name), text).unwrap();
            authority.path(name)
        };
        let own = plan.client_authorities.map(|pem| write("clients.pem", &pem));
        let trusted = own.unwrap_or_else(|| authority.path("ca.pem"));
        let clients = plan.clients.map_or(ClientAuth::None, |make| make(trusted));
        let mut files = authority.files(clients, plan.versions);
        files.revoked = plan.revoked.map(|pem| write("revoked.pem", &pem));
        let tls = TlsSource::open(files).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let service = Scripted::new();
        let methods = Arc::new(Methods::from_descriptors([strongroom::proto::DESCRIPTORS]).unwrap());
        let in_flight = InFlight::with_bounds(Arc::clone(&methods), plan.calls, plan.streams);
        let stack = Stack::new(methods, || [0xab; 16], in_flight.clone(), plan.messages, plan.ceiling);
        let server = ContextServiceServer::new(service.clone()).max_decoding_message_size(usize::MAX);
        let routes = stack.around(Routes::new(server).prepare());
        let listener = Listener::new(socket, Arc::clone(&tls), plan.limits);
        let (counters, shutdown) = (listener.counters(), CancellationToken::new());
        let task = tokio::spawn(listener.serve(routes, shutdown.clone()));
        Self { authority, address, service, in_flight, tls, counters, shutdown, task }
    }

    /// A client of the usual kind; it connects with its first call.
    pub fn client(&self) -> ContextServiceClient<Channel> {
        self.client_with(None)
    }

    pub fn client_with(&self, identity: Option<(String, String)>) -> ContextServiceClient<Channel> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost");
        if let Some((chain, key)) = identity {
            tls = tls.identity(Identity::from_pem(chain, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().tcp_nodelay(true).connect_lazy();
        ContextServiceClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// A TLS connection that speaks HTTP/2 by itself.
    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_by(self.authority.client(&[&rustls::version::TLS13], &[b"h2"])).await
    }

    pub async fn connect_by(&self, connector: TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        soon(connector.connect(ServerName::try_from("localhost").unwrap(), tcp)).await
    }

    /// A new connection works.
    pub async fn assert_alive(&self) {
        soon(self.client().put_entry(put("echo", 1))).await.expect("the server lives");
    }

    pub async fn stop(self) -> ServeReport {
        self.shutdown.cancel();
        soon(self.task).await.unwrap()
    }
}

fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

pub fn put(key: &str, bytes: usize) -> v1::PutEntryRequest {
    let value = Bytes::from(vec![7; bytes]);
    let put = v1::Put { key: key.to_owned(), value, ..Default::default() };
    v1::PutEntryRequest { put: Some(put), ..Default::default() }
}

pub fn read(bytes: usize) -> v1::ReadEntryRequest {
    v1::ReadEntryRequest { key: bytes.to_string(), ..Default::default() }
}

pub fn events(stream: &str) -> v1::ReadEventsRequest {
    v1::ReadEventsRequest { stream: stream.to_owned(), ..Default::default() }
}
