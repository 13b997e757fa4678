//! Whole servers whose root key another process holds: what they ask of it, and how they refuse to start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use strongroom::client::{CreateSession, Strongroom, View};
use strongroom::config::Config;
use strongroom::crypto::recovery;
use strongroom::dev::{DevMaterial, prepare, write_private};
use strongroom::env::{SystemClock, SystemEntropy};
use strongroom::keyring::{KeyFile, KeyringError};
use strongroom::model::{Scope, TenantSet, TokenName};
use strongroom::provider::{Condition, RootHealth};
use strongroom::server::{Server, ServerError, initialise};
use strongroom::service::CreateToken;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Fault};
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
        let server = Server::open(self.config()).await.unwrap();
        let (addresses, health, stop) = (server.addresses(), server.root_health(), CancellationToken::new());
        let mut told = health.subscribe();
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
        // The first question of the watch is part of the start.
        tokio::time::timeout(PATIENT, told.changed()).await.unwrap().unwrap();
        assert_eq!(health.condition(), Condition::Healthy);
        Running { client, stop, ended, health }
    }
}

struct Running {
    client: Strongroom,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), ServerError>>,
    health: Arc<RootHealth>,
}

impl Running {
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
