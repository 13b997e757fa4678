//! The two example programs against each other: what a traveller has survives the end of the server process.
//!
//! The examples must be built: `cargo test --features rmcp` does, `cargo test --test client` alone does not.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::fake::Fake;

/// A travel desk that dies with the test.
struct Desk {
    process: Child,
    url: String,
}

fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "build the examples first: cargo build --features rmcp --examples");
    let mut command = Command::new(path);
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
    command
}

impl Desk {
    async fn open(fake: &Fake, port: u16) -> Self {
        let mut command = example("mcp_server");
        command.arg("--port").arg(port.to_string()).arg("--strongroom").arg(fake.endpoint());
        let mut process = command.arg("--keys").arg(fake.dir.path()).spawn().unwrap();
        let line = lines(&mut process).next_line().await.unwrap().expect("the desk opens");
        Self { process, url: line.strip_prefix("travel desk at ").unwrap().to_owned() }
    }

    /// Kills the process without a word, and opens another on the same port.
    async fn crash_and_reopen(&mut self, fake: &Fake) {
        self.process.kill().await.unwrap();
        let port = self.url.trim_end_matches("/mcp").rsplit(':').next().unwrap().parse().unwrap();
        *self = Self::open(fake, port).await;
    }

    /// Runs one step of the client to its end; its lines, or what it complained of.
    async fn step(&self, arguments: &[&str]) -> Result<String, String> {
        let output = example("mcp_client").args(["--url", &self.url]).args(arguments).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

fn lines(process: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(process.stdout.take().unwrap()).lines()
}

/// What follows `word` on its line.
fn after<'a>(output: &'a str, word: &str) -> &'a str {
    let line = output.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {output}"));
    line[word.len()..].trim()
}

#[tokio::test]
async fn a_trip_survives_the_server_and_belongs_to_its_traveller() {
    let fake = Fake::start().await;
    let mut desk = Desk::open(&fake, 0).await;
    let begun = desk.step(&["begin"]).await.unwrap();
    let trip = after(&begun, "trip").to_owned();
    assert_eq!((after(&begun, "passengers"), after(&begun, "basket")), ("1", "20150"));

    desk.crash_and_reopen(&fake).await;
    let stolen = desk.step(&["steal", "--trip", &trip, "--user", "eve"]).await.unwrap();
    assert_eq!(after(&stolen, "refused"), "not found: there is no such trip");
    assert!(desk.step(&["steal", "--trip", &trip]).await.is_err());

    let went_on = desk.step(&["continue", "--trip", &trip]).await.unwrap();
    assert_eq!(after(&went_on, "passenger"), "Ada Lovelace");
    assert!(after(&went_on, "paid").ends_with(" 20150"), "{went_on}");
    assert_eq!(after(&went_on, "refused-afterwards"), "this trip is paid already");
    assert!(desk.step(&["continue", "--trip", &trip]).await.is_err());
    let closed = desk.step(&["close", "--trip", &trip]).await.unwrap();
    assert!(after(&closed, "refused").starts_with("not found"));
}

#[tokio::test]
async fn an_mcp_session_goes_on_in_another_process() {
    let fake = Fake::start().await;
    let mut desk = Desk::open(&fake, 0).await;
    let mut client = example("mcp_client").args(["--url", &desk.url, "resume"]).spawn().unwrap();
    let mut said = lines(&mut client);
    while !said.next_line().await.unwrap().expect("the client waits").starts_with("waiting") {}
    desk.crash_and_reopen(&fake).await;
    client.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    assert_eq!(said.next_line().await.unwrap().unwrap(), "resumed Lisbon");
    assert!(client.wait().await.unwrap().success());
}
