//! What must work against any server whose profile lies in `keys/dev` below a directory: the fake, or a real one.
//!
//! The functions take that directory.

use std::fs;
use std::path::Path;

use crate::command::{strongroom, strongroom_with};
use crate::dev_server::DevServer;
use crate::fake::Fake;

/// Sessions, entries and events, from creation to deletion.
pub fn data_plane(dir: &Path) {
    let created = strongroom(dir, ["session", "create", "--owner", "alice", "--output", "json"]).ok();
    let session = created.json()["session"].as_str().unwrap().to_owned();
    let as_alice = |words: &[&str], input: &[u8]| {
        strongroom_with(dir, words.iter().copied().chain(["--owner", "alice"]), input)
    };
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let put =
        as_alice(&["entry", "put", &session, "basket", "--expect", "absent", "--output", "json"], &bytes)
            .ok();
    assert_eq!((&put.json()["revision"], &put.json()["size"]), (&1.into(), &70_000.into()));
    assert_eq!(as_alice(&["entry", "get", &session, "basket", "--view", "full"], b"").ok().out, bytes);
    as_alice(&["entry", "put", &session, "basket", "--expect", "absent"], b"other").fails(1);
    as_alice(&["entry", "put", &session, "basket", "--expect", "1"], b"other").ok();
    strongroom(dir, ["entry", "get", &session, "basket"]).fails(3);
    as_alice(&["event", "append", &session, "log", "--lines"], b"one\ntwo\n").ok();
    assert_eq!(
        as_alice(&["event", "tail", &session, "log", "--raw", "--view", "full"], b"").ok().out,
        b"one\ntwo\n"
    );
    let taken =
        as_alice(&["entry", "delete", &session, "basket", "--yes", "--return", "--view", "full"], b"").ok();
    assert_eq!(taken.out, b"other");
    as_alice(&["entry", "get", &session, "basket"], b"").fails(3);
    as_alice(&["session", "delete", &session, "--yes"], b"").ok();
    as_alice(&["session", "get", &session], b"").fails(3);
}

/// Tenants, keys, tokens, the access log and the status.
pub fn control_plane(dir: &Path) {
    strongroom(dir, ["tenant", "create", "acme"]).ok();
    strongroom(dir, ["key", "rotate", "--tenant", "acme"]).ok();
    let keys = strongroom(dir, ["key", "list", "--tenant", "acme", "--output", "json"]).ok().json();
    assert_eq!(keys.as_array().unwrap().len(), 2);
    strongroom(dir, ["tenant", "suspend", "acme", "--yes"]).ok();
    strongroom(dir, ["tenant", "resume", "acme"]).ok();
    strongroom(
        dir,
        ["token", "create", "ci", "--scope", "read", "--for-tenant", "acme", "--out", "ci.token"],
    )
    .ok();
    strongroom(dir, ["token", "list"]).ok();
    strongroom(dir, ["token", "revoke", "ci", "--yes"]).ok();
    let log =
        strongroom(dir, ["audit", "search", "--tenant", "acme", "--since", "1h", "--output", "json"]).ok();
    assert!(!log.json_lines().is_empty());
    strongroom(dir, ["audit", "tail", "-n", "5"]).ok();
    strongroom(dir, ["status"]).ok();
}

/// A replay with a manifest, verified once more on its own; returns the report of the second verification.
pub fn replay(dir: &Path, recording: &Path) -> serde_json::Value {
    let bench = ["bench", "--quiet", "--output", "json", "--manifest", "run.json"];
    let recording = recording.to_str().unwrap();
    let stored = strongroom(dir, bench.into_iter().chain(["--replay", recording])).ok().json();
    assert_eq!(stored["equal"], true);
    verify(dir)
}

/// Verifies what [`replay`] stored, for example after the server was killed and started again.
pub fn verify(dir: &Path) -> serde_json::Value {
    let bench = ["bench", "--quiet", "--output", "json", "--manifest", "run.json", "--verify-only"];
    strongroom(dir, bench).ok().json()
}

const RECORDING: &str = concat!(
    r#"{"session":"s","messages":[{"role":"user","content":"x"},{"role":"tool","content":"y"}]}"#,
    "\n",
    r#"{"session":"t","messages":[{"role":"user","content":"mail a@b.example, card 4111 1111 1111 1111"}]}"#,
    "\n"
);

#[test]
fn the_data_plane_works_from_creation_to_deletion() {
    data_plane(Fake::start().dir());
    data_plane(DevServer::start().dir());
}

#[test]
fn the_control_plane_works() {
    control_plane(Fake::start().dir());
    control_plane(DevServer::start().dir());
}

#[test]
fn a_replay_can_be_verified_again_after_the_server_was_killed() {
    let mut server = DevServer::start();
    let recording = server.dir().join("recorded.jsonl");
    fs::write(&recording, RECORDING).unwrap();
    let report = replay(server.dir(), &recording);
    assert_eq!(
        (&report["sessions"], &report["events"], &report["entries"]),
        (&2.into(), &3.into(), &1.into())
    );
    server.kill();
    let bench = ["bench", "--quiet", "--timeout", "500ms", "--manifest", "run.json", "--verify-only"];
    strongroom(server.dir(), bench).fails(4);
    server.restart();
    let again = verify(server.dir());
    assert_eq!((&again["equal"], &again["bytes"]), (&true.into(), &report["bytes"]));
}

#[test]
fn every_workload_runs_against_a_real_server() {
    let server = DevServer::start();
    for workload in ["read", "write", "append", "mixed"] {
        let words = [
            "bench",
            workload,
            "--operations",
            "200",
            "--sessions",
            "4",
            "--entries",
            "8",
            "--warm-up",
            "0s",
            "--quiet",
            "--output",
            "json",
        ];
        let report = strongroom(server.dir(), words).ok().json();
        assert_eq!(
            (&report["operations"], &report["errors"]),
            (&200.into(), &serde_json::json!({})),
            "{workload}"
        );
    }
    let left = strongroom(server.dir(), ["session", "list", "--output", "json"]).ok().json();
    assert_eq!(left, serde_json::json!([]));
}
