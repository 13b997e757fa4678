//! A real server in dev mode, in a directory of its own, on free ports.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::strongroom;

/// A running server. It is killed when this is dropped.
pub struct DevServer {
    // An option so that it can be taken: what is dropped gives nothing away.
    dir: Option<tempfile::TempDir>,
    child: Child,
}

impl DevServer {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(dir.path());
        Self { dir: Some(dir), child }
    }

    /// Where to run commands: the profile is found there.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// SIGKILL: nothing is flushed, nothing is finished.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Serves the same store as a configuration file says that asks for two people, on a loopback address of its own.
    pub fn serve_with_approvals(&mut self) {
        let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.2:0").unwrap());
        let [data, admin, health] = sockets.map(|socket| socket.local_addr().unwrap());
        let dir = self.dir().to_owned();
        let config = format!(
            "[listen]\ndata = '{data}'\nadmin = '{admin}'\nhealth = '{health}'\n\
             [tls]\ncertificate = 'keys/dev/server.pem'\nkey = 'keys/dev/server.key'\n\
             [store]\npath = 'data'\n\
             [root]\nkeyring = 'keys/dev/root.key'\nrecovery = ['keys/dev/recovery.pub']\n\
             [approvals]\nrequired = true\n"
        );
        fs::write(dir.join("strongroom.toml"), config).unwrap();
        let profile = format!(
            "endpoint = \"https://{data}\"\nadmin_endpoint = \"https://{admin}\"\nserver_name = \"localhost\"\n\
             ca_file = \"ca.pem\"\ntoken_file = \"app.token\"\nadmin_token_file = \"admin.token\"\ntenant = \"demo\"\n"
        );
        fs::write(dir.join("keys/dev/profile.toml"), profile).unwrap();
        self.child = Command::new(env!("CARGO_BIN_EXE_strongroomd"))
            .args(["serve", "--config", "strongroom.toml"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while strongroom(&dir, ["status"]).code != 0 {
            assert_eq!(self.child.try_wait().unwrap(), None, "the server ended");
            assert!(Instant::now() < patience, "the server does not answer");
        }
    }

    /// Starts a killed server again over the same store.
    pub fn restart(&mut self) {
        self.child = spawn(self.dir());
    }
}

impl DevServer {
    /// Ends it as a user does, and leaves its directory to the caller.
    pub fn stop(mut self) -> tempfile::TempDir {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.dir.take().unwrap()
    }
}

impl Drop for DevServer {
    fn drop(&mut self) {
        // It may have been killed by the test.
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

/// Starts a server and returns when it says that it serves.
fn spawn(dir: &Path) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_strongroomd"))
        .args(["dev", "--ports", "0", "0", "0", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let serving = lines.any(|line| line.unwrap().starts_with("Stop with"));
    assert!(serving, "the server ended before it served");
    child
}
