//! A KMS v2 plugin in a process of its own: this program, started again. It is written against the contract in
//! `proto/kms/v2`, and misbehaves as a file in its directory says.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BufMut as _;
use futures_util::stream::{self, Stream};
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use strongroom::env::{Entropy as _, SystemEntropy};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tonic::codec::{BufferSettings, EncodeBuf};
use tonic::{Request, Response, Status};
use tonic_prost::ProstDecoder;

use wire::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use wire::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};

/// Tells the child where its directory is.
const HOME: &str = "STRONGROOM_TEST_PLUGIN";
/// What the plugin wants to see again.
const ANNOTATION: (&str, &[u8]) = ("wrapped.by.plugin.test", b"\x00\xff local key");

mod wire {
    #![allow(
        missing_docs,
        dead_code,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated"
    )]
    use super::Codec;
    include!(concat!(env!("OUT_DIR"), "/v2.rs"));
    include!(concat!(env!("OUT_DIR"), "/kms_debug.rs"));
}

/// A plugin process, seen from its parent. It is killed when this is dropped.
pub struct Plugin {
    home: TempDir,
    child: Option<Child>,
}

impl Plugin {
    /// Starts a plugin with a key of its own, which it calls `key_id`, and waits until it listens.
    pub async fn start(key_id: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut root = [0; 32];
        SystemEntropy::new().fill(&mut root).unwrap();
        fs::write(home.path().join("root"), root).unwrap();
        fs::write(home.path().join("calls"), "").unwrap();
        let mut plugin = Self { home, child: None };
        plugin.call_key(key_id);
        plugin.behave();
        plugin.restart().await;
        plugin
    }

    pub fn socket(&self) -> PathBuf {
        self.home.path().join("plugin.sock")
    }

    /// From now on it calls its key so, and wraps with another one than under any other name.
    pub fn call_key(&self, key_id: &str) {
        put(self.home.path(), "key_id", key_id);
    }

    /// From now on it does `fault` when it is called for `call`; `*` is every call.
    pub fn misbehave(&self, call: &str, fault: &str) {
        put(self.home.path(), "fault", &format!("{call} {fault}"));
    }

    /// From now on it works as it should.
    pub fn behave(&self) {
        self.misbehave("none", "none");
    }

    /// The calls that it was asked for since this was last asked.
    pub fn calls(&self) -> Vec<String> {
        let path = self.home.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap();
        fs::write(path, "").unwrap();
        calls.lines().map(str::to_owned).collect()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub async fn restart(&mut self) {
        self.kill();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "plugin::plugin_process", "--ignored", "--nocapture"])
            .env(HOME, self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let connects = async {
            let mut ticks = tokio::time::interval(super::SHORT / 30);
            while UnixStream::connect(self.socket()).await.is_err() {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(super::PATIENT, connects).await.expect("the plugin does not listen");
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The child reads either the old text or the new one.
fn put(home: &Path, name: &str, text: &str) {
    let draft = home.join(format!("{name}.tmp"));
    fs::write(&draft, text).unwrap();
    fs::rename(draft, home.join(name)).unwrap();
}

#[test]
#[ignore = "the plugin's process, started by other tests"]
#[expect(clippy::disallowed_methods, reason = "its parent tells it where it lives")]
fn plugin_process() {
    let Some(home) = std::env::var_os(HOME) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(PathBuf::from(home)));
}

async fn serve(home: PathBuf) {
    let socket = home.join("plugin.sock");
    fs::remove_file(&socket).ok();
    let incoming = connections(UnixListener::bind(socket).unwrap(), home.clone());
    let server = KeyManagementServiceServer::new(Service { home });
    tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming).await.unwrap();
}

/// Connections, except those that are answered with what is no gRPC.
fn connections(
    listener: UnixListener,
    home: PathBuf,
) -> impl Stream<Item = Result<UnixStream, std::io::Error>> {
    stream::unfold((listener, home), |(listener, home)| async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if !fs::read_to_string(home.join("fault")).unwrap().ends_with("garbage") {
                return Some((Ok(stream), (listener, home)));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n\x00\xff garbage").await.ok();
        }
    })
}

/// The plugin itself.
struct Service {
    home: PathBuf,
}

impl Service {
    /// Notes the call; what to do wrong in it.
    async fn begin(&self, call: &str) -> String {
        let mut calls = OpenOptions::new().append(true).open(self.home.join("calls")).unwrap();
        calls.write_all(format!("{call}\n").as_bytes()).unwrap();
        let fault = fs::read_to_string(self.home.join("fault")).unwrap();
        let (at, fault) = fault.split_once(' ').unwrap();
        let fault = if at == call || at == "*" { fault } else { "none" };
        MALFORMED.store(fault == "malformed", Ordering::SeqCst);
        if fault == "slow" {
            std::future::pending::<()>().await;
        }
        fault.to_owned()
    }

    fn key_id(&self) -> String {
        fs::read_to_string(self.home.join("key_id")).unwrap()
    }

    fn key(&self, key_id: &str) -> LessSafeKey {
        let root = fs::read(self.home.join("root")).unwrap();
        let key = digest(&SHA256, &[&root, key_id.as_bytes()].concat());
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap())
    }

    fn seal(&self, key_id: &str, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 12];
        SystemEntropy::new().fill(&mut nonce).unwrap();
        let mut sealed = plaintext.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key(key_id).seal_in_place_append_tag(unique, Aad::empty(), &mut sealed).unwrap();
        [nonce.as_slice(), &sealed].concat()
    }

    fn unseal(&self, request: &DecryptRequest) -> Option<Vec<u8>> {
        let (nonce, sealed) = request.ciphertext.split_first_chunk::<12>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key(&request.key_id).open_in_place(nonce, Aad::empty(), &mut sealed);
        opened.ok().map(|plaintext| plaintext.to_vec())
    }
}

/// An error of the worst kind: it repeats the secret.
fn refuse(fault: &str, secret: &[u8]) -> Result<(), Status> {
    let Some(code) = fault.strip_prefix("refuse ") else { return Ok(()) };
    let text = String::from_utf8_lossy(secret);
    Err(Status::new(code.parse::<i32>().unwrap().into(), format!("cannot do it to {text} {secret:?}")))
}

#[tonic::async_trait]
impl KeyManagementService for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let fault = self.begin("Status").await;
        refuse(&fault, b"")?;
        let mut status =
            StatusResponse { version: "v2".to_owned(), healthz: "ok".to_owned(), key_id: self.key_id() };
        match fault.as_str() {
            "unhealthy" => status.healthz = "the disk burns".to_owned(),
            "old" => status.version = "v2beta1".to_owned(),
            "no key id" => status.key_id.clear(),
            "long key id" => status.key_id = "k".repeat(1025),
            _ => {}
        }
        Ok(Response::new(status))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let fault = self.begin("Encrypt").await;
        let EncryptRequest { plaintext, uid } = request.into_inner();
        refuse(&fault, &plaintext)?;
        if plaintext.len() > 1024 || uid.len() != 36 {
            return Err(Status::invalid_argument("outside the contract"));
        }
        let key_id = match fault.as_str() {
            "another key" => format!("not {}", self.key_id()),
            // From A to B and back to A.
            "another key once" => {
                put(&self.home, "fault", "none none");
                format!("not {}", self.key_id())
            }
            // From A to B.
            "new key" => {
                put(&self.home, "key_id", "new");
                put(&self.home, "fault", "none none");
                self.key_id()
            }
            _ => self.key_id(),
        };
        let annotations = BTreeMap::from([(ANNOTATION.0.to_owned(), ANNOTATION.1.to_vec())]);
        let mut answer = EncryptResponse { ciphertext: self.seal(&key_id, &plaintext), key_id, annotations };
        spoil(&fault, &mut answer);
        Ok(Response::new(answer))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let fault = self.begin("Decrypt").await;
        let request = request.into_inner();
        let opened = self.unseal(&request);
        refuse(&fault, opened.as_deref().unwrap_or_default())?;
        if request.uid.len() != 36
            || request.annotations.get(ANNOTATION.0).is_none_or(|value| value != ANNOTATION.1)
        {
            return Err(Status::failed_precondition("the annotations are not those that were given"));
        }
        let mut plaintext = opened.ok_or_else(|| Status::unknown("cipher: message authentication failed"))?;
        match fault.as_str() {
            "another plaintext" => plaintext.fill(9),
            "short plaintext" => plaintext.truncate(31),
            "empty plaintext" => plaintext.clear(),
            "long plaintext" => plaintext.resize(1025, 9),
            _ => {}
        }
        Ok(Response::new(DecryptResponse { plaintext }))
    }
}

fn spoil(fault: &str, answer: &mut EncryptResponse) {
    let mut annotate = |name: &str, size| answer.annotations.insert(name.to_owned(), vec![1; size]);
    match fault {
        "long ciphertext" => answer.ciphertext.resize(1025, 1),
        "empty ciphertext" => answer.ciphertext.clear(),
        "annotation without a domain" => drop(annotate("name", 1)),
        "annotations beyond the contract" => drop(annotate("a.b", 33 << 10)),
        "annotations beyond a stanza" => drop(annotate("a.b", 2000)),
        "huge" => drop(annotate("a.b", 65 << 10)),
        _ => {}
    }
}

/// Whether answers are no protobuf.
static MALFORMED: AtomicBool = AtomicBool::new(false);

pub struct Codec<T, U>(PhantomData<(T, U)>);
pub struct Encoder<T>(PhantomData<T>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl<T: Message> tonic::codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match MALFORMED.load(Ordering::SeqCst) {
            true => out.put_slice(&[0xff; 9]),
            false => message.encode(out).unwrap(),
        }
        Ok(())
    }
}
