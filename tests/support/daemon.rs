//! A server process in dev mode, on a directory of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, LazyLock, Weak};

use rustix::process::{Pid, Signal, kill_process};
use strongroom::client::{Builder, Strongroom};
use strongroom::proto::v1;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::wire::{self, Approving, Context, Control, approving, context, control};
use super::{PATIENCE, until};

/// The tokens of dev mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Reads in full and writes, in the tenant `demo`.
    App,
    /// May do everything everywhere.
    Admin,
    /// Reads redacted views, in the tenant `demo`.
    Reader,
}

impl Login {
    const fn file(self) -> &'static str {
        match self {
            Self::App => "app.token",
            Self::Admin => "admin.token",
            Self::Reader => "reader.token",
        }
    }
}

/// A server process. It is killed when this is dropped, and its directory goes with it.
pub struct Daemon {
    dir: TempDir,
    child: Option<Child>,
    starts: usize,
    arguments: Vec<&'static str>,
}

impl Daemon {
    /// Starts a server on an empty directory and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments than it needs.
    pub async fn start_with(arguments: &[&'static str]) -> Self {
        let arguments = arguments.to_vec();
        let mut daemon = Self { dir: tempfile::tempdir().unwrap(), child: None, starts: 0, arguments };
        daemon.restart().await;
        daemon
    }

    /// A server that tests of one process share. It lives as long as one of them has it.
    pub async fn shared() -> Arc<Self> {
        static SHARED: LazyLock<tokio::sync::Mutex<Weak<Daemon>>> =
            LazyLock::new(tokio::sync::Mutex::default);
        let mut shared = SHARED.lock().await;
        if let Some(daemon) = shared.upgrade() {
            return daemon;
        }
        let daemon = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&daemon);
        daemon
    }

    /// Starts the server again on the same directory, on other ports: clients made before are of no use any more.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "the server runs");
        fs::remove_file(self.profile()).ok();
        self.starts += 1;
        let [out, err] = ["stdout", "stderr"]
            .map(|name| File::create(self.dir.path().join(format!("{name}.{}", self.starts))).unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_strongroomd"))
            .arg("dev")
            .arg("--dir")
            .arg(self.dir.path())
            .args(["--ports", "0", "0", "0"])
            .args(&self.arguments)
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.answers().await;
    }

    async fn answers(&mut self) {
        let profile = self.profile();
        until("the profile", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the server ended with {ended:?}: {}", self.logs());
            profile.exists().then_some(())
        })
        .await;
        let mut admin = self.control(Login::Admin);
        let mut request = tonic::Request::new(v1::GetStatusRequest {});
        request.set_timeout(PATIENCE);
        admin.get_status(request).await.unwrap_or_else(|status| panic!("{status:?}: {}", self.logs()));
    }

    /// Where the server keeps everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The CLI's profile.
    pub fn profile(&self) -> PathBuf {
        self.keys().join("profile.toml")
    }

    /// The directory of keys and tokens.
    pub fn keys(&self) -> PathBuf {
        self.dir.path().join("keys").join("dev")
    }

    /// The secret of a token of dev mode.
    pub fn token(&self, login: Login) -> String {
        fs::read_to_string(self.keys().join(login.file())).unwrap()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Everything that was written to standard output and standard error, of all starts.
    pub fn logs(&self) -> String {
        (1..=self.starts)
            .flat_map(|start| {
                ["stdout", "stderr"].map(|name| self.dir.path().join(format!("{name}.{start}")))
            })
            .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
            .collect()
    }

    /// A field of `/proc/<pid>/status` in bytes, for example `VmRSS` or `VmHWM`.
    pub fn memory(&self, field: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    /// `https://host:port` of the data listener.
    pub fn endpoint(&self) -> String {
        self.profile_value("endpoint")
    }

    /// `https://host:port` of the admin listener.
    pub fn admin_endpoint(&self) -> String {
        self.profile_value("admin_endpoint")
    }

    /// `https://host:port` of health and metrics, as the server greets with it.
    pub fn health_endpoint(&self) -> String {
        let logs = self.logs();
        let line = logs.lines().rev().find_map(|line| line.trim().strip_prefix("health ")).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    }

    fn profile_value(&self, name: &str) -> String {
        let text = fs::read_to_string(self.profile()).unwrap();
        let profile: toml::Table = text.parse().unwrap();
        profile[name].as_str().unwrap().to_owned()
    }

    /// The SDK, configured for this server.
    pub fn sdk_builder(&self, login: Login) -> Builder {
        Strongroom::builder()
            .endpoint(self.endpoint())
            .admin_endpoint(self.admin_endpoint())
            .ca_file(self.keys().join("ca.pem"))
            .server_name("localhost")
            .token_file(self.keys().join(login.file()))
            .timeout(PATIENCE)
    }

    /// The SDK with a token of dev mode.
    pub fn sdk(&self, login: Login) -> Strongroom {
        self.sdk_builder(login).build().unwrap()
    }

    /// The generated client of the data plane.
    pub fn context(&self, login: Login) -> Context {
        self.context_with(Some(&self.token(login)))
    }

    pub fn context_with(&self, token: Option<&str>) -> Context {
        context(wire::wire(self.channel(&self.endpoint()), token))
    }

    /// The generated client of the control plane.
    pub fn control(&self, login: Login) -> Control {
        self.control_with(Some(&self.token(login)))
    }

    pub fn control_with(&self, token: Option<&str>) -> Control {
        control(wire::wire(self.channel(&self.admin_endpoint()), token))
    }

    pub fn approving_with(&self, token: Option<&str>) -> Approving {
        approving(wire::wire(self.channel(&self.admin_endpoint()), token))
    }

    /// A connection of its own, which is made with the first call.
    pub fn channel(&self, endpoint: &str) -> Channel {
        rustls::crypto::ring::default_provider().install_default().ok();
        let authority = fs::read(self.keys().join("ca.pem")).unwrap();
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name("localhost");
        let endpoint = Endpoint::from_shared(endpoint.to_owned()).unwrap().tls_config(tls).unwrap();
        endpoint.tcp_nodelay(true).connect_lazy()
    }

    /// Kills the process at once, as a power cut would.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Asks the process to end, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        until("the end of the server", || child.try_wait().unwrap()).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
