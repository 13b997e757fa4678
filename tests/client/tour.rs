//! The two example programs against each other: what a traveller has survives the end of the server process.
//!
//! The examples must be built: `cargo test --features rmcp` does, `cargo test --test client` alone does not.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::bench::Bench;

/// A travel desk that dies with the test.
struct Desk {
    process: Child,
    url: String,
}

impl Desk {
    fn open(bench: &Bench, port: &str) -> Self {
        let mut command = example("mcp_server");
        command.args(["--port", port, "--strongroom", &bench.endpoint]);
        let mut process = command.arg("--keys").arg(&bench.keys).spawn().unwrap();
        let line = lines(&mut process).next().expect("the desk opens").unwrap();
        Self { process, url: line.strip_prefix("travel desk at ").unwrap().to_owned() }
    }

    /// Kills the process without a word, and opens another on the same port.
    fn crash_and_reopen(&mut self, bench: &Bench) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let port = self.url.trim_end_matches("/mcp").rsplit(':').next().unwrap().to_owned();
        *self = Self::open(bench, &port);
    }

    /// Runs one step of the client to its end; its lines, or what it complained of.
    fn step(&self, arguments: &[&str]) -> Result<String, String> {
        let output = example("mcp_client").args(["--url", &self.url]).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "build the examples first: cargo build --features rmcp --examples");
    let mut command = Command::new(path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
    command
}

fn lines(process: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(process.stdout.take().unwrap()).lines()
}

/// What follows `word` on its line.
fn after<'a>(output: &'a str, word: &str) -> &'a str {
    let line =
        output.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {output}"));
    line[word.len()..].trim()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trip_survives_the_server_and_belongs_to_its_traveller() {
    let bench = Bench::start().await;
    let mut desk = Desk::open(&bench, "0");
    let begun = desk.step(&["begin"]).unwrap();
    let trip = after(&begun, "trip").to_owned();
    assert_eq!((after(&begun, "passengers"), after(&begun, "basket")), ("1", "20150"));

    desk.crash_and_reopen(&bench);
    let stolen = desk.step(&["steal", "--trip", &trip, "--user", "eve"]).unwrap();
    assert_eq!(after(&stolen, "refused"), "not found: there is no such trip");
    assert!(desk.step(&["steal", "--trip", &trip]).is_err());

    let went_on = desk.step(&["continue", "--trip", &trip]).unwrap();
    assert_eq!(after(&went_on, "passenger"), "Ada Lovelace");
    assert!(after(&went_on, "paid").ends_with(" 20150"), "{went_on}");
    assert_eq!(after(&went_on, "refused-afterwards"), "this trip is paid already");
    assert!(desk.step(&["continue", "--trip", &trip]).is_err());
    let closed = desk.step(&["close", "--trip", &trip]).unwrap();
    assert!(after(&closed, "refused").starts_with("not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mcp_session_goes_on_in_another_process() {
    let bench = Bench::start().await;
    let mut desk = Desk::open(&bench, "0");
    let mut client = example("mcp_client").args(["--url", &desk.url, "resume"]).spawn().unwrap();
    let mut said = lines(&mut client).map(Result::unwrap);
    assert!(said.by_ref().any(|line| line.starts_with("waiting")));
    desk.crash_and_reopen(&bench);
    client.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(said.next().unwrap(), "resumed Lisbon");
    assert!(client.wait().unwrap().success());
}
