//! How do disk, memory, start-up and sweep grow?
//!
//! `ENTRIES` entries of 1 KiB in sessions of 100 that end soon after the last one was written; then the server is killed and
//! started, stopped and started, and the sweeper watched. Expectation: 1.7 to 2 bytes on disk a byte stored before churn;
//! memory bounded by cache + 250 MB; a start after kill -9 replays the log, a clean one less.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom::proto::v1;

use crate::Outcome;
use crate::load::{Client, VALUE_BYTES, Work, closed_loop};
use crate::servers::Server;

const PER_SESSION: u64 = 100;
const IN_FLIGHT: usize = 256;

#[derive(Clone)]
struct Fill {
    client: Client,
    sessions: Arc<Vec<v1::SessionRef>>,
    value: Bytes,
}

impl Fill {
    /// Puts every entry once.
    async fn all(&self) -> Outcome<()> {
        let number = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let last = self.sessions.len() as u64 * PER_SESSION;
        let workers: Vec<_> = (0..IN_FLIGHT)
            .map(|worker| {
                let (fill, number) = (self.clone(), Arc::clone(&number));
                tokio::spawn(async move {
                    loop {
                        let next = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if next >= last {
                            return Outcome::Ok(());
                        }
                        fill.call(worker, next).await?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await??;
        }
        Ok(())
    }
}

impl Work for Fill {
    async fn call(&self, worker: usize, number: u64) -> Outcome<()> {
        let index = usize::try_from(number / PER_SESSION)? % self.sessions.len();
        let session = self.sessions.get(index).ok_or("no session")?;
        self.client.put(worker, session, format!("k{}", number % PER_SESSION), self.value.clone()).await
    }
}

pub async fn run() -> Outcome<()> {
    let entries: u64 = std::env::var("ENTRIES").ok().map_or(Ok(100_000), |text| text.parse())?;
    let life = Duration::from_secs(60 + entries / 2_000);
    let directory = tempfile::tempdir_in(".")?;
    let (server, empty) = Server::strongroom(directory.path())?;
    println!("start of an empty store: {empty:.2?}, resident {} MB", server.resident()? / 1_000_000);
    let begun = Instant::now();
    let fill = fill(&server, directory.path(), entries, life).await?;
    fill.all().await?;
    let stored = entries * VALUE_BYTES as u64;
    let data = directory.path().join("data");
    println!(
        "{entries} entries put in {:.1?}; resident {} MB; {:.2} bytes on disk a byte stored",
        begun.elapsed(),
        server.resident()? / 1_000_000,
        size(&data)? as f64 / stored as f64,
    );
    server.kill()?;
    let (server, killed) = Server::strongroom(directory.path())?;
    println!("start after kill -9: {killed:.2?}, resident {} MB", server.resident()? / 1_000_000);
    server.stop()?;
    let (server, clean) = Server::strongroom(directory.path())?;
    println!("start after a clean stop: {clean:.2?}, resident {} MB", server.resident()? / 1_000_000);
    sweep(&server, directory.path(), &data, stored).await
}

async fn fill(server: &Server, directory: &Path, entries: u64, life: Duration) -> Outcome<Fill> {
    let client = Client::connect(server, directory).await?;
    let mut sessions = Vec::new();
    for _ in 0..entries.div_ceil(PER_SESSION) {
        sessions.push(client.session(Some(life)).await?);
    }
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    Ok(Fill { client, sessions: Arc::new(sessions), value })
}

/// Makes sessions that end at one moment, and watches how fast they are swept.
async fn sweep(server: &Server, directory: &Path, data: &Path, stored: u64) -> Outcome<()> {
    const SESSIONS: u64 = 20_000;
    const LIFE: Duration = Duration::from_secs(20);
    let client = Client::connect(server, directory).await?;
    let begun = Instant::now();
    #[derive(Clone)]
    struct Open(Client);
    impl Work for Open {
        async fn call(&self, _worker: usize, number: u64) -> Outcome<()> {
            if number < SESSIONS {
                self.0.session(Some(LIFE)).await.map(|_| ())
            } else {
                std::future::pending().await
            }
        }
    }
    let opening = closed_loop(server, 64, Duration::from_secs(3600), Open(client));
    drop(tokio::time::timeout(LIFE, opening).await);
    println!("{SESSIONS} sessions opened within {:.1?}", begun.elapsed());
    let before = expired(directory)?;
    let began = loop {
        if expired(directory)? > before {
            break Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut last = (expired(directory)?, Instant::now());
    while last.1.elapsed() < Duration::from_secs(3) {
        let now = expired(directory)?;
        if now > last.0 {
            last = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let span = last.1.duration_since(began).as_secs_f64().max(0.001);
    println!(
        "sweep: {} sessions in {span:.2} s, {:.0} a second",
        last.0 - before,
        (last.0 - before) as f64 / span
    );
    println!("after the sweep: {:.2} bytes on disk a byte stored before", size(data)? as f64 / stored as f64);
    Ok(())
}

/// Sessions that the server says to have expired.
fn expired(directory: &Path) -> Outcome<u64> {
    let profile = directory.join("keys").join("dev").join("profile.toml");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(["status", "--output", "json", "--profile"])
        .arg(profile)
        .output()?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    status.get("sessions_expired").and_then(serde_json::Value::as_u64).ok_or_else(|| "no figure".into())
}

fn size(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let metadata = entry?.metadata()?;
        bytes += if metadata.is_dir() { 0 } else { metadata.len() };
    }
    Ok(bytes)
}
