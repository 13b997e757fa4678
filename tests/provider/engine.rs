//! A transit engine as far as this program uses one, over real TLS. It is strict about what it is sent, notes it, and
//! misbehaves when it is told to.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use strongroom::env::{Clock, Entropy as _, SystemEntropy};
use strongroom::model::Timestamp;
use strongroom::provider::{Credential, Kubernetes, Transit, TransitError, TransitOptions};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::PATIENT;

/// The token that is valid from the beginning.
pub const TOKEN: &str = "hvs.the-first-token";
/// What a service account shows.
pub const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.service.account";

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.as_millis()))
    }

    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What the engine does instead of what it should.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// This status, with an error text that repeats what was sent.
    Status(u16),
    /// Another place to ask.
    Redirect,
    /// Exactly this body, with status 200.
    Body(Vec<u8>),
    /// No answer at all.
    Slow,
    /// A connection that ends before the answer.
    Close,
    /// What is no HTTP.
    Garbage,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct State {
    key: [u8; 32],
    version: u64,
    fault: (String, Fault),
    tokens: Vec<String>,
    lease: u64,
    received: Vec<Received>,
}

/// The engine, its certificate, and files for who asks it.
pub struct Engine {
    pub home: TempDir,
    pub port: u16,
    state: Arc<Mutex<State>>,
    pub clock: Arc<ManualClock>,
}

impl Engine {
    pub async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(home.path().join("ca.pem"), made.cert.pem()).unwrap();
        fs::write(home.path().join("token"), format!("{TOKEN}\n")).unwrap();
        fs::set_permissions(home.path().join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(home.path().join("jwt"), JWT).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let mut state = State { version: 1, tokens: vec![TOKEN.to_owned()], lease: 3600, ..State::default() };
        SystemEntropy::new().fill(&mut state.key).unwrap();
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&state)));
        Self { home, port, state, clock: Arc::new(ManualClock::new(super::NOW)) }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The options of a provider with a token from a file.
    pub fn options(&self) -> TransitOptions {
        TransitOptions {
            address: format!("https://localhost:{}", self.port),
            ca: self.file("ca.pem"),
            mount: "team/transit".to_owned(),
            key: "strongroom".to_owned(),
            namespace: None,
            associated_data: false,
            credential: Credential::TokenFile(self.file("token")),
            deadline: PATIENT,
        }
    }

    /// The options of a provider that logs in.
    pub fn kubernetes(&self) -> TransitOptions {
        let credential = Credential::Kubernetes(Kubernetes {
            mount: "kubernetes".to_owned(),
            role: "strongroom".to_owned(),
            jwt: self.file("jwt"),
        });
        TransitOptions { credential, ..self.options() }
    }

    pub fn try_provider(&self, options: TransitOptions) -> Result<Transit, TransitError> {
        Transit::new(options, Arc::<ManualClock>::clone(&self.clock))
    }

    pub fn provider(&self, options: TransitOptions) -> Transit {
        self.try_provider(options).unwrap()
    }

    /// From now on it does `fault` for paths that contain `at`.
    pub fn misbehave(&self, at: &str, fault: Fault) {
        self.state.lock().unwrap().fault = (at.to_owned(), fault);
    }

    pub fn behave(&self) {
        self.misbehave("", Fault::None);
    }

    /// From now on it wraps with the next version.
    pub fn rotate(&self) {
        self.state.lock().unwrap().version += 1;
    }

    /// From now on these tokens and those of later logins are valid, and no others.
    pub fn accept_tokens(&self, tokens: &[&str]) {
        self.state.lock().unwrap().tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
    }

    /// What came since this was last asked.
    pub fn received(&self) -> Vec<Received> {
        std::mem::take(&mut self.state.lock().unwrap().received)
    }

    /// The last part of each path that came since this was last asked.
    pub fn calls(&self) -> Vec<String> {
        let call = |request: &Received| {
            ["encrypt", "decrypt", "login"]
                .iter()
                .find(|call| request.path.contains(*call))
                .unwrap()
                .to_string()
        };
        self.received().iter().map(call).collect()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    // Who does not trust the certificate goes away.
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    if state.lock().unwrap().fault.1 == Fault::Garbage {
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"\x00\xff this is no HTTP\r\n\r\n").await.ok();
        return;
    }
    let answer = service_fn(|request| answer(request, Arc::clone(&state)));
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed")]
struct Closed;

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let sent = String::from_utf8_lossy(&body).into_owned();
    let request = Received {
        method: head.method,
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap(),
    };
    let fault = {
        let mut state = state.lock().unwrap();
        state.received.push(request.clone());
        let (at, fault) = state.fault.clone();
        if request.path.contains(&at) { fault } else { Fault::None }
    };
    let say = |status: u16, body: Vec<u8>| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    };
    match fault {
        Fault::None | Fault::Garbage => {
            let (status, body) = state.lock().unwrap().answer(&request);
            say(status, body.to_string().into_bytes())
        }
        Fault::Status(status) => say(status, json!({ "errors": [sent] }).to_string().into_bytes()),
        Fault::Redirect => {
            let mut response = say(307, Vec::new())?;
            let elsewhere = format!("https://localhost:1{}", request.path);
            response.headers_mut().insert("location", elsewhere.parse().unwrap());
            Ok(response)
        }
        Fault::Body(body) => say(200, body),
        Fault::Slow => {
            std::future::pending::<Infallible>().await;
            Err(Closed)
        }
        Fault::Close => Err(Closed),
    }
}

impl State {
    fn answer(&mut self, request: &Received) -> (u16, Value) {
        let refuse = |status: u16, text: &str| (status, json!({ "errors": [text] }));
        if request.method != Method::POST || request.header("content-type") != Some("application/json") {
            return refuse(405, "unsupported operation");
        }
        if request.path == "/v1/auth/kubernetes/login" {
            return self.log_in(request);
        }
        let token = request.header("x-vault-token").unwrap_or_default();
        if !self.tokens.iter().any(|valid| valid == token) {
            return refuse(403, "permission denied");
        }
        let bound =
            request.body["associated_data"].as_str().map(|text| BASE64.decode(text.as_bytes()).unwrap());
        let bound = bound.unwrap_or_default();
        let answer = match request.path.as_str() {
            "/v1/team/transit/encrypt/strongroom" => self.encrypt(request, &bound),
            "/v1/team/transit/decrypt/strongroom" => self.decrypt(request, &bound),
            _ => return refuse(404, "no handler for route"),
        };
        answer.map_or_else(
            || refuse(400, "cipher: message authentication failed"),
            |data| (200, json!({ "data": data })),
        )
    }

    fn log_in(&mut self, request: &Received) -> (u16, Value) {
        if request.body != json!({ "role": "strongroom", "jwt": JWT }) {
            return (403, json!({ "errors": ["permission denied"] }));
        }
        let token = format!("hvs.login-{}", self.tokens.len());
        self.tokens.push(token.clone());
        (200, json!({ "auth": { "client_token": token, "lease_duration": self.lease, "renewable": true } }))
    }

    fn key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.key).unwrap())
    }

    fn encrypt(&self, request: &Received, bound: &[u8]) -> Option<Value> {
        let mut sealed = BASE64.decode(request.body["plaintext"].as_str()?.as_bytes()).ok()?;
        let mut nonce = [0; 12];
        SystemEntropy::new().fill(&mut nonce).unwrap();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key().seal_in_place_append_tag(unique, Aad::from(bound), &mut sealed).ok()?;
        let text = BASE64.encode(&[nonce.as_slice(), &sealed].concat());
        Some(json!({ "ciphertext": format!("vault:v{}:{text}", self.version), "key_version": self.version }))
    }

    fn decrypt(&self, request: &Received, bound: &[u8]) -> Option<Value> {
        let text = request.body["ciphertext"].as_str()?.strip_prefix("vault:v")?.split_once(':')?.1;
        let sealed = BASE64.decode(text.as_bytes()).ok()?;
        let (nonce, sealed) = sealed.split_first_chunk::<12>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key().open_in_place(nonce, Aad::from(bound), &mut sealed).ok()?;
        Some(json!({ "plaintext": BASE64.encode(opened) }))
    }
}
