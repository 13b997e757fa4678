//! Starting servers, and what the system says about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::Outcome;

/// A server in a process of its own, killed when it is dropped.
pub struct Server {
    child: Child,
    address: String,
    ca: PathBuf,
}

/// Clock ticks a second in `/proc`: fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;

impl Server {
    /// Starts `strongroomd dev` on `directory`.
    pub fn strongroom(directory: &Path) -> Outcome<(Self, Duration)> {
        let binary = env!("CARGO_BIN_EXE_strongroomd");
        let keys = directory.join("keys").join("dev");
        let profile = keys.join("profile.toml");
        if profile.exists() {
            fs::remove_file(&profile)?;
        }
        let begun = Instant::now();
        let child = Command::new(binary)
            .args(["dev", "--ports", "0", "0", "0", "--dir"])
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()?;
        let mut server = Self { child, address: String::new(), ca: keys.join("ca.pem") };
        while !profile.exists() {
            server.still_there(begun, Duration::from_secs(300))?;
        }
        let text = fs::read_to_string(&profile)?;
        let endpoint = text.lines().find_map(|line| line.strip_prefix("endpoint = \""));
        server.address = endpoint.ok_or("no endpoint in the profile")?.trim_end_matches('"').to_owned();
        Ok((server, begun.elapsed()))
    }

    /// Starts a bare tonic server with the certificate that a dev start made in `directory`.
    pub fn echo(directory: &Path) -> Outcome<Self> {
        let port = directory.join("echo.port");
        let begun = Instant::now();
        let child = Command::new(std::env::current_exe()?).arg("echo-server").arg(directory).spawn()?;
        let ca = directory.join("keys").join("dev").join("ca.pem");
        let mut server = Self { child, address: String::new(), ca };
        while !port.exists() {
            server.still_there(begun, Duration::from_secs(10))?;
        }
        server.address = format!("https://127.0.0.1:{}", fs::read_to_string(&port)?);
        Ok(server)
    }

    fn still_there(&mut self, begun: Instant, limit: Duration) -> Outcome<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("a server ended with {status}").into());
        }
        if begun.elapsed() > limit {
            return Err("a server did not start in time".into());
        }
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }

    /// Connections to the server.
    pub async fn connect(&self, connections: usize) -> Outcome<Vec<Channel>> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(&self.ca)?))
            .domain_name("localhost");
        let endpoint = Channel::from_shared(self.address.clone())?.tls_config(tls)?.tcp_nodelay(true);
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            channels.push(endpoint.connect().await?);
        }
        Ok(channels)
    }

    /// CPU seconds that the process has used.
    pub fn cpu(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(f64::NAN);
        Ok((ticks(11) + ticks(12)) / TICKS)
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kilobytes = line.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        Ok(kilobytes * 1024)
    }

    /// Ends the process as a power switch would, as far as a process can tell.
    pub fn kill(mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end and waits for it.
    pub fn stop(mut self) -> Outcome<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        drop((self.child.kill(), self.child.wait()));
    }
}
