//! A server process in dev mode that can be killed, and clients of it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use strongroom::client::{Admin, Builder, Retries, Strongroom, Tenant};

/// Deadline of calls: far beyond what they take, so that none is given up that the server goes on with.
const DEADLINE: Duration = Duration::from_secs(30);

/// The command that serves `directory`.
pub fn command(directory: &Path) -> Command {
    let built = || env!("CARGO_BIN_EXE_strongroomd").into();
    let mut command = Command::new(std::env::var_os("STRONGROOM_CRASH_SERVER").unwrap_or_else(built));
    command.args(["dev", "--ports", "0", "0", "0", "--dir"]).arg(directory);
    command
}

/// Where a dev server in `directory` has its store.
pub fn store(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Where a dev server in `directory` has its root key.
pub fn root_key(directory: &Path) -> PathBuf {
    directory.join("keys/dev/root.key")
}

/// A process that was started, and that may not be serving yet. It is killed when it is dropped.
pub struct Process {
    child: Child,
    directory: PathBuf,
    log: PathBuf,
}

/// A server that serves.
pub struct Server {
    process: Process,
    data: String,
    admin: String,
}

impl Process {
    /// Starts `command`, which serves `directory`; what it logs is added to the file `log`.
    pub fn start(mut command: Command, directory: &Path, log: &Path) -> Self {
        let stderr = File::options().create(true).append(true).open(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        Self { child, directory: directory.to_owned(), log: log.to_owned() }
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// What it logged, when it ended instead.
    pub async fn serving(mut self) -> Result<Server, String> {
        let stdout = self.child.stdout.take().unwrap();
        let addresses = tokio::task::spawn_blocking(move || read_addresses(stdout)).await.unwrap();
        match addresses {
            Some((data, admin)) => Ok(Server { process: self, data, admin }),
            None => {
                let status = self.child.wait().unwrap();
                Err(format!("the server ended with {status}:\n{}", fs::read_to_string(&self.log).unwrap()))
            }
        }
    }

    /// Kills it with SIGKILL; whether it was still running.
    pub fn kill(&mut self) -> bool {
        let killed = self.child.kill().is_ok();
        let status = self.child.wait().unwrap();
        killed && status.signal() == Some(9)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts a server in `directory` and waits until it serves.
    ///
    /// # Errors
    /// What it logged, when it ended instead.
    pub async fn start(directory: &Path, log: &Path) -> Result<Self, String> {
        Process::start(command(directory), directory, log).serving().await
    }

    /// The tenant of dev mode, by a client that never repeats a call.
    pub fn tenant(&self) -> Tenant {
        let client = self.client("app", |builder| builder.endpoint(&self.data).connections(2));
        client.tenant("demo").unwrap()
    }

    /// The control plane, likewise.
    pub fn admin(&self) -> Admin {
        self.client("admin", |builder| builder.admin_endpoint(&self.admin)).admin().unwrap()
    }

    fn client(&self, token: &str, configure: impl FnOnce(Builder) -> Builder) -> Strongroom {
        let keys = self.process.directory.join("keys/dev");
        let builder = Strongroom::builder()
            .ca_file(keys.join("ca.pem"))
            .token_file(keys.join(format!("{token}.token")))
            .timeout(DEADLINE)
            .retries(Retries::none());
        configure(builder).build().unwrap()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        assert!(self.process.kill(), "it had ended by itself:\n{}", self.state());
    }

    /// Asks it to end, and kills it while it does, or after.
    pub async fn kill_while_it_stops(mut self, pause: impl Future<Output = ()>) {
        self.ask_to_stop();
        pause.await;
        self.process.kill();
    }

    fn ask_to_stop(&self) {
        kill_process(Pid::from_child(&self.process.child), Signal::TERM).unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) -> ExitStatus {
        self.ask_to_stop();
        tokio::task::spawn_blocking(move || self.process.child.wait().unwrap()).await.unwrap()
    }

    /// What the servers in this directory logged, and what the threads of this one are doing: for a failure's message.
    pub fn state(&self) -> String {
        let mut state = fs::read_to_string(&self.process.log).unwrap();
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.child.id()));
        for thread in threads.into_iter().flatten().flatten() {
            let said = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            state.push_str(&format!("{} waits in {}\n", said("comm").trim(), said("wchan")));
        }
        state
    }
}

/// The data and the admin endpoint, from what a server greets with; `None` when it ended without a greeting.
fn read_addresses(stdout: ChildStdout) -> Option<(String, String)> {
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let mut endpoint =
        |name: &str| lines.find_map(|line| Some(line.trim().strip_prefix(name)?.trim().to_owned()));
    Some((endpoint("data ")?, endpoint("admin ")?))
}
