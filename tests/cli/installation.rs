//! A server with a configuration file, run as an operator runs it: `strongroomd` and `strongroom` as processes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::command::{Run, strongroom};
use crate::dev_server::DevServer;

/// A directory with a store, its keys and a configuration; the server runs, or not.
pub struct Installation {
    home: tempfile::TempDir,
    server: Option<Child>,
}

impl Installation {
    /// Has dev mode make certificates, tokens, keys and a store, and stops it.
    pub fn new() -> Self {
        let dev = DevServer::start();
        let home = dev.stop();
        let installation = Self { home, server: None };
        installation.configure("keyring = 'keys/dev/root.key'", "");
        installation
    }

    /// Another machine: it has certificates, tokens and configuration, and the store as it is in `copy`, but no keyring.
    pub fn elsewhere(&self, copy: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        copy_all(&self.dir().join("keys"), &home.path().join("keys"));
        fs::remove_file(home.path().join("keys/dev/root.key")).unwrap();
        copy_all(copy, &home.path().join("data"));
        let there = Self { home, server: None };
        there.configure("keyring = 'keys/dev/root.key'", "");
        there
    }

    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Writes configuration and profile, with free ports.
    pub fn configure(&self, root: &str, next_root: &str) {
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [data, admin, health] = held.map(|port| port.local_addr().unwrap());
        let config = format!(
            "[listen]\ndata = '{data}'\nadmin = '{admin}'\nhealth = '{health}'\n\
             [tls]\ncertificate = 'keys/dev/server.pem'\nkey = 'keys/dev/server.key'\n\
             [store]\npath = 'data'\n\
             [root]\n{root}\nrecovery = ['keys/dev/recovery.pub']\n{next_root}\n"
        );
        fs::write(self.path("strongroom.toml"), config).unwrap();
        let profile = format!(
            "endpoint = 'https://{data}'\nadmin_endpoint = 'https://{admin}'\nca_file = 'ca.pem'\n\
             server_name = 'localhost'\ntoken_file = 'app.token'\nadmin_token_file = 'admin.token'\n\
             tenant = 'demo'\n"
        );
        fs::write(self.path("keys/dev/profile.toml"), profile).unwrap();
    }

    /// Starts the server and waits until it answers.
    pub fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// The same with more arguments.
    pub fn serve_with(&mut self, arguments: &[&str]) {
        let mut server = self.daemon(["serve", "--config", "strongroom.toml"]);
        server.args(arguments);
        let log = fs::File::create(self.path("server.log")).unwrap();
        self.server = Some(server.stderr(log).stdout(Stdio::null()).spawn().unwrap());
        for _ in 0..600 {
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(ended, None, "{}", fs::read_to_string(self.path("server.log")).unwrap());
            if self.strongroom("status").code == 0 {
                return;
            }
        }
        panic!("the server does not answer");
    }

    /// Ends the server as an orchestrator does.
    pub fn stop(&mut self) {
        let mut server = self.server.take().unwrap();
        let pid = rustix::process::Pid::from_child(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(server.wait().unwrap().success());
    }

    /// Ends the server as a power cut would.
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Puts a copy of the store in the place of the store.
    pub fn put_back(&self, copy: &Path) {
        assert!(self.server.is_none(), "the server runs");
        fs::remove_dir_all(self.path("data")).unwrap();
        copy_all(copy, &self.path("data"));
    }

    /// Runs `strongroom` with these words, as they stand in a run-book.
    pub fn strongroom(&self, words: &str) -> Run {
        strongroom(self.dir(), words.split(' '))
    }

    /// Runs `strongroomd` with these words.
    pub fn strongroomd(&self, words: &str) -> Output {
        self.daemon(words.split(' ')).output().unwrap()
    }

    /// A copy of the store, while no server runs.
    pub fn back_up(&self, name: &str) -> PathBuf {
        assert!(self.server.is_none(), "the server runs");
        let copy = self.path(name);
        copy_all(&self.path("data"), &copy);
        copy
    }

    fn daemon<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroomd"));
        command.current_dir(self.dir()).env_clear().args(words);
        command
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
