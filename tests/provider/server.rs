//! Whole servers whose root key another process holds: what they ask of it, and how they refuse to start.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use strongroom::client::{CreateSession, ErrorReason, Strongroom, View};
use strongroom::config::Config;
use strongroom::crypto::recovery;
use strongroom::dev::{DevMaterial, prepare, write_private};
use strongroom::env::{Clock, SystemClock, SystemEntropy};
use strongroom::keyring::{KeyFile, KeyringError};
use strongroom::model::{Duration, Scope, TenantSet, TokenName};
use strongroom::provider::{Condition, GRACE, Health, RootHealth};
use strongroom::server::{Server, ServerError, initialise};
use strongroom::service::CreateToken;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tower::{Service as _, ServiceExt as _};

use super::engine::{Engine, Fault, ManualClock};
use super::plugin::Plugin;
use super::{PATIENT, entropy};

/// An installation with a configuration file of its own.
struct Site {
    home: TempDir,
    material: DevMaterial,
}

impl Site {
    fn new(root: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let material = prepare(home.path(), &SystemEntropy::new(), &SystemClock::new(), |paths| {
            KeyFile::create(&paths.root_key, entropy())?;
            let key = recovery::generate(&SystemEntropy::new()).map_err(KeyringError::from)?;
            write_private(&paths.recovery_key, recovery::write_private(&key).as_bytes()).unwrap();
            write_private(&paths.recovery_pub, recovery::write_public(&key.public()).as_bytes()).unwrap();
            Ok::<_, KeyringError>(())
        })
        .unwrap();
        let site = Self { home, material };
        site.configure(root);
        site
    }

    fn configure(&self, root: &str) {
        let text = format!(
            "[listen]\ndata = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\nhealth = '127.0.0.1:0'\n\
             [tls]\ncertificate = 'keys/dev/server.pem'\nkey = 'keys/dev/server.key'\n\
             [store]\npath = 'data'\n[root]\nrecovery = ['keys/dev/recovery.pub']\n{root}\n"
        );
        fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("strongroom.toml")
    }

    fn config(&self) -> Config {
        let config = Config::load(&self.file()).unwrap();
        assert_eq!(config.check_files(), []);
        config
    }

    /// A connection to the port for health.
    fn probes(&self, address: SocketAddr) -> Channel {
        rustls::crypto::ring::default_provider().install_default().ok();
        let authority = Certificate::from_pem(fs::read(&self.material.paths.ca).unwrap());
        let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name("localhost");
        Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect_lazy()
    }

    async fn initialise(&self) -> Result<(), ServerError> {
        let admin = self.material.tokens.iter().find(|token| token.name == "admin").unwrap();
        let first = CreateToken {
            name: TokenName::new("first").unwrap(),
            scopes: Scope::ALL.into_iter().collect(),
            tenants: TenantSet::All,
            ttl: None,
        };
        initialise(&self.config(), &first, admin.secret()).await
    }

    async fn start(&self) -> Running {
        let running = self.start_at(Arc::new(SystemClock::new())).await;
        assert_eq!(running.health.condition(), Condition::Healthy);
        running
    }

    /// Starts a server whose provider is asked: the first question of the watch is part of the start.
    async fn start_at(&self, clock: Arc<dyn Clock>) -> Running {
        let (running, mut told) = self.serve(clock).await;
        tokio::time::timeout(PATIENT, told.changed()).await.unwrap().unwrap();
        running
    }

    async fn serve(&self, clock: Arc<dyn Clock>) -> (Running, watch::Receiver<Health>) {
        let server = Server::open_at(self.config(), clock).await.unwrap();
        let (addresses, health, stop) = (server.addresses(), server.root_health(), CancellationToken::new());
        let told = health.subscribe();
        let ended = tokio::spawn(server.run(stop.clone()));
        let client = Strongroom::builder()
            .endpoint(format!("https://{}", addresses.data))
            .admin_endpoint(format!("https://{}", addresses.admin))
            .ca_file(&self.material.paths.ca)
            .server_name("localhost")
            .token_file(self.material.paths.token("admin"))
            .timeout(PATIENT)
            .build()
            .unwrap();
        (Running { client, stop, ended, health, probes: self.probes(addresses.health) }, told)
    }
}

struct Running {
    client: Strongroom,
    probes: Channel,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), ServerError>>,
    health: Arc<RootHealth>,
}

impl Running {
    /// The figure of that name.
    async fn figure(&self, name: &str) -> u64 {
        let (status, figures) = self.get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        let figure = figures.lines().find_map(|line| line.strip_prefix(name));
        figure.unwrap().trim().parse().unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(format!("https://localhost{path}")).body(Body::empty()).unwrap();
        let response = self.probes.clone().ready().await.unwrap().call(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Waits until the provider is as `is_so` says.
    async fn until(&self, is_so: fn(&Condition) -> bool) {
        let mut told = self.health.subscribe();
        let so = told.wait_for(|health| is_so(health.condition()));
        tokio::time::timeout(PATIENT, so).await.unwrap().unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENT * 2, self.ended).await.unwrap().unwrap().unwrap();
    }
}

fn kms(plugin: &Plugin) -> String {
    format!("provider = 'kms'\nsocket = '{}'\ntimeout = '5s'", plugin.socket().display())
}

fn transit(engine: &Engine) -> String {
    let file = |name| engine.file(name).display().to_string();
    format!(
        "provider = 'transit'\naddress = 'https://localhost:{}'\nca = '{}'\nmount = 'team/transit'\n\
         key = 'strongroom'\ntoken = '{}'\nassociated_data = true",
        engine.port,
        file("ca.pem"),
        file("token")
    )
}

/// Keys of every kind are made and used; what was written before is read.
async fn work(client: &Strongroom, round: usize) {
    let tenant = format!("tenant-{round}");
    client.admin().unwrap().create_tenant(&tenant).await.unwrap();
    client.admin().unwrap().rotate_kek(&tenant).await.unwrap();
    for number in 0..5 {
        let tenant = client.tenant(&tenant).unwrap();
        let session =
            CreateSession { session_id: Some(format!("session-{number}")), ..CreateSession::default() };
        let session = tenant.create_session(session).await.unwrap();
        session.put("key", "value").await.unwrap();
        assert_eq!(&session.read("key", View::Full).await.unwrap().value[..], b"value");
    }
    for earlier in 0..round {
        let session = client.tenant(&format!("tenant-{earlier}")).unwrap().session("session-0", None);
        assert_eq!(&session.read("key", View::Full).await.unwrap().value[..], b"value");
    }
}

#[tokio::test]
async fn a_server_asks_its_plugin_twice_a_start_and_never_for_a_request() {
    let plugin = Plugin::start("a").await;
    let site = Site::new(&kms(&plugin));
    site.initialise().await.unwrap();
    assert_eq!(plugin.calls(), ["Status", "Encrypt", "Decrypt", "Decrypt"]);
    for round in 0..3 {
        let running = site.start().await;
        assert_eq!(plugin.calls(), ["Decrypt", "Status"], "start {round}");
        work(&running.client, round).await;
        assert_eq!(plugin.calls(), [""; 0], "requests of start {round}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_server_asks_its_engine_twice_a_start_and_never_for_a_request() {
    let engine = Engine::start().await;
    let site = Site::new(&transit(&engine));
    site.initialise().await.unwrap();
    assert_eq!(engine.calls(), ["encrypt", "decrypt", "decrypt"]);
    for round in 0..2 {
        let running = site.start().await;
        assert_eq!(engine.calls(), ["decrypt", "encrypt"], "start {round}");
        work(&running.client, round).await;
        assert_eq!(engine.calls(), [""; 0], "requests of start {round}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_runs_goes_on_without_its_plugin() {
    let mut plugin = Plugin::start("a").await;
    let site = Site::new(&kms(&plugin));
    site.initialise().await.unwrap();
    let running = site.start().await;
    work(&running.client, 0).await;
    plugin.kill();
    work(&running.client, 1).await;
    assert!(running.health.accepts_new_keys());
    running.stop().await;
}

/// A server, at a time that is set by hand, whose plugin is not well from the beginning.
async fn unwell() -> (Plugin, Site, Arc<ManualClock>, Running) {
    let plugin = Plugin::start("a").await;
    let site = Site::new(&kms(&plugin));
    site.initialise().await.unwrap();
    plugin.misbehave("Status", "unhealthy");
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let running = site.start_at(Arc::clone(&clock) as Arc<dyn Clock>).await;
    (plugin, site, clock, running)
}

#[tokio::test]
async fn without_its_plugin_for_three_minutes_no_keys_are_made_and_the_rest_goes_on() {
    let (plugin, _site, clock, running) = unwell().await;
    running.until(|condition| matches!(condition, Condition::Unhealthy { .. })).await;

    clock.advance(GRACE - Duration::from_millis(1));
    work(&running.client, 0).await;
    assert_eq!(running.get("/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
    assert_eq!(running.figure("strongroom_root_unwell_seconds").await, 179);

    clock.advance(Duration::from_millis(1));
    let tenant = running.client.tenant("tenant-0").unwrap();
    let refused = tenant.create_session(CreateSession::default()).await.err().unwrap();
    assert_eq!(refused.reason(), ErrorReason::Unavailable);
    let refused = running.client.admin().unwrap().create_tenant("other").await.err().unwrap();
    assert_eq!(refused.reason(), ErrorReason::Unavailable);
    let session = tenant.session("session-1", None);
    session.put("key", "another").await.unwrap();
    assert_eq!(&session.read("key", View::Full).await.unwrap().value[..], b"another");
    assert_eq!(running.get("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()));
    assert_eq!(running.figure("strongroom_root_unwell_seconds").await, 180);

    plugin.behave();
    running.until(|condition| *condition == Condition::Healthy).await;
    work(&running.client, 1).await;
    assert_eq!(running.get("/readyz").await.0, StatusCode::OK);
    assert_eq!(running.figure("strongroom_root_unwell_seconds").await, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_server_whose_plugin_has_another_key_says_for_how_long() {
    let (plugin, _site, clock, running) = unwell().await;
    plugin.call_key("b");
    plugin.behave();
    running.until(|condition| matches!(condition, Condition::KeyChanged { .. })).await;
    clock.advance(Duration::from_secs(60));
    assert_eq!(running.figure("strongroom_root_key_changed_seconds").await, 60);
    assert_eq!(running.get("/readyz").await.0, StatusCode::OK);
    running.client.admin().unwrap().migrate_root(false).await.unwrap();
    assert_eq!(running.figure("strongroom_root_key_changed_seconds").await, 0);
    running.stop().await;
}

/// How many reads had to unwrap keys, of two walks over 64 sessions.
async fn unwrapped(limits: &str) -> [u64; 2] {
    let site = Site::new(&format!("keyring = 'keys/dev/root.key'\n{limits}"));
    site.initialise().await.unwrap();
    let (running, _) = site.serve(Arc::new(SystemClock::new())).await;
    running.client.admin().unwrap().create_tenant("demo").await.unwrap();
    let tenant = running.client.tenant("demo").unwrap();
    let mut sessions = Vec::new();
    for _ in 0..64 {
        let session = tenant.create_session(CreateSession::default()).await.unwrap();
        session.put("key", "value").await.unwrap();
        sessions.push(session);
    }
    let mut misses = [0; 2];
    for misses in &mut misses {
        let before = running.figure("strongroom_key_cache_misses_total").await;
        for session in &sessions {
            session.read("key", View::Full).await.unwrap();
        }
        *misses = running.figure("strongroom_key_cache_misses_total").await - before;
    }
    running.stop().await;
    misses
}

#[tokio::test]
async fn as_many_sessions_keep_their_keys_in_memory_as_the_configuration_says() {
    assert_eq!(unwrapped("").await, [0, 0]);
    assert_eq!(unwrapped("[limits]\nmax_opened_sessions = 16").await, [64, 64]);
}

#[tokio::test]
async fn a_server_with_the_wrong_plugin_or_none_does_not_start_and_one_with_the_right_one_still_does() {
    let (mut right, wrong) = (Plugin::start("a").await, Plugin::start("b").await);
    let site = Site::new(&kms(&right));
    site.initialise().await.unwrap();
    site.configure(&kms(&wrong));
    let refused = Server::open(site.config()).await.err();
    assert!(matches!(refused, Some(ServerError::Keyring(KeyringError::WrongRoot { .. }))), "{refused:?}");
    site.configure("keyring = 'keys/dev/root.key'");
    let refused = Server::open(site.config()).await.err();
    assert!(matches!(refused, Some(ServerError::Keyring(KeyringError::WrongRoot { .. }))), "{refused:?}");
    site.configure(&kms(&right));
    right.kill();
    let refused = Server::open(site.config()).await.err().unwrap();
    assert!(refused.to_string().contains("no plugin answers at"), "{refused}");
    right.restart().await;
    site.start().await.stop().await;
}

#[tokio::test]
async fn a_server_whose_engine_is_sealed_does_not_start_and_says_so() {
    let engine = Engine::start().await;
    let site = Site::new(&transit(&engine));
    engine.misbehave("", Fault::Status(503));
    let refused = site.initialise().await.unwrap_err();
    assert!(refused.to_string().contains("sealed or in maintenance (503)"), "{refused}");
    engine.behave();
    site.initialise().await.unwrap();
    let running = site.start().await;
    work(&running.client, 0).await;
    running.stop().await;
}

/// `strongroomd check` on the file: its exit code and what it says.
fn check(file: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroomd"));
    let output = command.arg("check").arg("--config").arg(file).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn check_knows_the_fields_and_files_of_each_provider() {
    let (plugin, engine) = (Plugin::start("a").await, Engine::start().await);
    let site = Site::new(&kms(&plugin));
    assert_eq!(check(&site.file()), (Some(0), String::new()));
    site.configure(&transit(&engine));
    assert_eq!(check(&site.file()), (Some(0), String::new()));
    fs::remove_file(engine.file("token")).unwrap();
    let (code, text) = check(&site.file());
    assert!(code == Some(78) && text.contains("root.token: cannot read"), "{code:?} {text}");
    site.configure(&format!("{}\nkeyring = 'keys/dev/root.key'", kms(&plugin)));
    let (code, text) = check(&site.file());
    assert!(code == Some(78) && text.contains("root.keyring: is not known here"), "{code:?} {text}");
    assert_eq!(plugin.calls(), [""; 0], "check asks nobody");
}
