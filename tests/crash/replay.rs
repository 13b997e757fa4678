//! A recording of sessions, replayed at concurrency 64 by the load generator and verified before and after `kill -9`.
//!
//! The recording is made up, of messages as they are awkward to keep: large, empty, in several scripts, with numbers, escapes and an order of keys
//! that a parser would not give back. `STRONGROOM_REPLAY_FILE` names another one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use strongroom::client::View;

use crate::seed;
use crate::server::Server;
use crate::trace::Random;

/// As in a recording of real sessions.
const SESSIONS: u64 = 48;

/// A message is one JSON value; these are taken in turn, with text where there is a `§`.
const MESSAGES: [&str; 9] = [
    r#"{"role":"system","content":"§"}"#,
    r#"{"role": "user",  "content": "\u00e9\ud83d\ude00 é😀 名前 §"}"#,
    r#"{"content":[{"type":"text","text":"§"}],"role":"assistant","tool_calls":[{"id":"1","args":{"b":1.50,"a":1e3}}]}"#,
    r#"{"role":"tool","tool_call_id":"1","content":"§"}"#,
    r#"{"role":"user","content":[{"type":"tool_result","content":"§"}]}"#,
    r#"{"role":"tool","content":null,"large":12345678901234567890123,"dup":1,"dup":2}"#,
    r#"{}"#,
    r#""""#,
    r#"[{"role":"tool"},"\/\\\"\t",-0.0,true]"#,
];

fn write_recording(path: &Path, random: &mut Random) {
    let mut recording = String::new();
    for session in 0..SESSIONS {
        let messages: Vec<String> = (0..random.below(24)).map(|_| message(random)).collect();
        let name = format!("session {session}");
        writeln!(recording, "{{\"session\": {name:?}, \"messages\": [{}]}}", messages.join(", ")).unwrap();
    }
    fs::write(path, recording).unwrap();
}

fn message(random: &mut Random) -> String {
    let length =
        [20, 400, 4_000, 40_000, 600_000][(random.below(2000).max(1).ilog2() / 3).clamp(0, 4) as usize];
    let letter = |random: &mut Random| char::from(b'a' + random.below(26) as u8);
    let word: String = (0..97).map(|_| letter(random)).collect();
    let text = word.repeat(length / word.len() + 1);
    MESSAGES[random.below(MESSAGES.len() as u64) as usize].replace('§', &text[..length])
}

/// A run of the load generator against the dev server in `served`.
fn bench(served: &Path, arguments: &[&str]) -> (i32, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .arg("--profile")
        .arg(served.join("keys/dev/profile.toml"))
        .args(["--output", "json", "--quiet", "--timeout", "30s", "bench", "--concurrency", "64"])
        .args(arguments)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), report, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Replays a recording, kills the server, and verifies what was replayed.
async fn replay(recording: &Path) {
    let place = tempfile::tempdir().unwrap();
    let (served, log, manifest) =
        (place.path().join("served"), place.path().join("log"), place.path().join("manifest.json"));
    fs::create_dir(&served).unwrap();
    let manifest = manifest.to_str().unwrap();
    let verify = ["--verify-only", "--manifest", manifest];

    let server = Server::start(&served, &log).await.unwrap();
    let (code, report, said) =
        bench(&served, &["--replay", recording.to_str().unwrap(), "--manifest", manifest]);
    assert_eq!((code, &report["equal"]), (0, &Value::Bool(true)), "{said}");
    println!("{report}");
    server.kill();

    let server = Server::start(&served, &log).await.unwrap();
    let (code, report, said) = bench(&served, &verify);
    assert_eq!((code, &report["equal"]), (0, &Value::Bool(true)), "{said}");
    println!("{report}");

    // The verification must be able to fail.
    let stored: Value = serde_json::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
    let sessions = stored["sessions"].as_array().unwrap();
    let (session, key) = sessions
        .iter()
        .find_map(|session| Some((session["session"].as_str()?, session["entries"][0]["name"].as_str()?)))
        .expect("a result of a tool");
    let session = server.tenant().session(session, None);
    session.take(key, View::Full).await.unwrap();
    let (code, _, said) = bench(&served, &verify);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is missing") && said.contains(session.id()), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_replayed_is_read_back_equal_before_and_after_kill_9() {
    let place = tempfile::tempdir().unwrap();
    let recording = place.path().join("recording.jsonl");
    write_recording(&recording, &mut Random::new(seed()));
    replay(&recording).await;
}

/// The recording that the environment names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_named_recording_is_read_back_equal_before_and_after_kill_9() {
    match std::env::var_os("STRONGROOM_REPLAY_FILE").map(PathBuf::from) {
        Some(recording) => replay(&recording).await,
        None => println!("SKIPPED: STRONGROOM_REPLAY_FILE names no recording"),
    }
}
