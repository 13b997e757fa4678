//! What the process returns, and that errors say what, why and what to do.

use serde_json::json;

use crate::command::{strongroom, strongroom_with};
use crate::fake::{self, Fake};
use crate::profile::without_server;

#[test]
fn a_wrong_command_line_is_2_and_nothing_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    for words in [
        vec![],
        vec!["frobnicate"],
        vec!["session"],
        vec!["session", "create", "--ttl", "soon"],
        vec!["entry", "put", "s", "k", "--expect", "0"],
        vec!["session", "list", "--owner", "a,b"],
        vec!["token", "create", "x", "--scope", "read"],
        vec!["token", "create", "x", "--scope", "root", "--show"],
        vec!["bench"],
        vec!["bench", "read", "--replay", "f"],
        vec!["bench", "--verify-only"],
        vec!["bench", "read", "--concurrency", "0"],
        vec!["audit", "tail", "--outcome", "maybe"],
        vec!["job", "start"],
        vec!["job", "watch", "everything"],
        vec!["job", "start", "rewrap", "--rate", "0"],
        vec!["job", "start", "rewrap", "--rate", "1000001"],
    ] {
        let run = strongroom(dir.path(), &words);
        assert_eq!(run.code, 2, "{words:?}: {run:?}");
        assert!(run.out.is_empty() && !run.err.is_empty(), "{words:?}: {run:?}");
    }
}

#[test]
fn help_and_version_are_0_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    for words in [["--help"], ["--version"]] {
        let run = strongroom(dir.path(), words).ok();
        assert!(run.text().contains("strongroom") && run.err.is_empty(), "{run:?}");
    }
}

#[test]
fn an_unreachable_server_is_4_for_every_noun() {
    let dir = without_server();
    for words in [
        vec!["session", "get", "srs_a"],
        vec!["entry", "get", "srs_a", "k"],
        vec!["entry", "put", "srs_a", "k", "--value", "hunter2"],
        vec!["entry", "watch", "srs_a"],
        vec!["event", "tail", "srs_a", "log", "--follow"],
        vec!["tenant", "list"],
        vec!["key", "list"],
        vec!["key", "census"],
        vec!["job", "start", "rewrap"],
        vec!["job", "watch", "rewrap"],
        vec!["key", "destroy", "1", "--yes"],
        vec!["token", "list"],
        vec!["audit", "tail"],
        vec!["status"],
        vec!["bench", "read", "--quiet"],
    ] {
        let global = ["--profile", "profile.toml", "--timeout", "500ms"];
        let run = strongroom(dir.path(), words.iter().copied().chain(global)).fails(4);
        assert!(run.out.is_empty() && run.err.contains("hint: "), "{words:?}: {run:?}");
        assert!(!run.err.contains("hunter2") && !run.err.contains("srt_"), "{words:?}: {run:?}");
    }
}

#[test]
fn what_does_not_exist_is_3() {
    let fake = Fake::start();
    let session = fake.session();
    for words in [
        vec!["session", "get", "srs_unknown"],
        vec!["entry", "get", &session, "unknown"],
        vec!["entry", "delete", &session, "unknown", "--yes"],
        vec!["entry", "delete", &session, "unknown", "--dry-run"],
        vec!["session", "delete", "srs_unknown", "--dry-run"],
        vec!["token", "revoke", "unknown", "--dry-run"],
        vec!["tenant", "suspend", "unknown", "--dry-run"],
        vec!["tenant", "describe", "unknown"],
        vec!["key", "list", "--tenant", "unknown"],
    ] {
        let run = strongroom(fake.dir(), &words).fails(3);
        assert!(run.err.contains("hint: "), "{words:?}: {run:?}");
    }
}

#[test]
fn another_owners_session_looks_like_none() {
    let fake = Fake::start();
    let created = strongroom(fake.dir(), ["session", "create", "--owner", "alice", "--output", "json"]).ok();
    let session = created.json()["session"].as_str().unwrap().to_owned();
    strongroom(fake.dir(), ["session", "get", &session, "--owner", "alice"]).ok();
    let other = strongroom(fake.dir(), ["session", "get", &session, "--owner", "bob"]).fails(3);
    let none = strongroom(fake.dir(), ["session", "get", "srs_unknown", "--owner", "bob"]).fails(3);
    assert_eq!(other.err, none.err);
}

#[test]
fn a_refusal_is_1_with_its_reason() {
    let fake = Fake::start();
    let session = fake.session();
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "one"]).ok();
    let run =
        strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "hunter2", "--expect", "absent"])
            .fails(1);
    assert!(
        run.err.contains("REVISION_MISMATCH") && run.err.contains("hint: the entry is at revision 1"),
        "{run:?}"
    );
    assert!(!run.err.contains("hunter2"), "{run:?}");
}

#[test]
fn stored_bytes_that_do_not_open_are_5() {
    let fake = Fake::start();
    let session = fake.session();
    fake.refuse("read_entry", fake::integrity_failure());
    let run = strongroom(fake.dir(), ["entry", "get", &session, "k"]).fails(5);
    assert!(run.err.contains("INTEGRITY_FAILURE") && run.err.contains("hint: stop"), "{run:?}");
}

#[test]
fn destruction_without_a_terminal_needs_yes() {
    let fake = Fake::start();
    let session = fake.session();
    for words in [
        vec!["session", "delete", &session],
        vec!["session", "purge", &session],
        vec!["tenant", "suspend", "demo"],
        vec!["token", "revoke", "app"],
        vec!["entry", "delete", &session, "k"],
    ] {
        // What is typed does not count: it may come from a pipe that was meant for something else.
        let run = strongroom_with(fake.dir(), &words, format!("{}\n", words[2]).as_bytes()).fails(1);
        assert!(run.err.contains("hint: give --yes"), "{run:?}");
    }
    strongroom(fake.dir(), ["session", "get", &session]).ok();
    strongroom(fake.dir(), ["session", "delete", &session, "--yes"]).ok();
    strongroom(fake.dir(), ["session", "get", &session]).fails(3);
}

#[test]
fn a_dry_run_says_what_would_be_lost_and_changes_nothing() {
    let fake = Fake::start();
    let session = fake.session();
    for key in ["one", "two"] {
        strongroom(fake.dir(), ["entry", "put", &session, key, "--value", "hunter2"]).ok();
    }
    strongroom(fake.dir(), ["token", "create", "ci", "--scope", "read", "--show"]).ok();
    strongroom(fake.dir(), ["tenant", "create", "acme"]).ok();
    for (words, lost, call) in [
        (vec!["session", "delete", &session], json!({"session": session, "entries": 2}), "delete_session"),
        (vec!["session", "purge", &session], json!({"session": session, "entries": 2}), "purge_sensitive"),
        (vec!["entry", "delete", &session, "one"], json!({"key": "one", "revision": 1}), "delete_entry"),
        (vec!["tenant", "suspend", "acme"], json!({"tenant": "acme", "state": "active"}), "suspend_tenant"),
        (vec!["token", "revoke", "ci"], json!({"token": "ci", "revoked": false}), "revoke_token"),
    ] {
        let run = strongroom(fake.dir(), words.iter().copied().chain(["--dry-run"])).ok();
        assert!(run.err.contains("Nothing was changed: this was a dry run."), "{words:?}: {run:?}");
        assert!(!run.text().contains("hunter2"), "{words:?}: {run:?}");
        let run = strongroom(fake.dir(), words.iter().copied().chain(["--dry-run", "--output", "json"])).ok();
        let said = run.json();
        for (field, value) in lost.as_object().unwrap() {
            assert_eq!(&said[field], value, "{words:?}: {run:?}");
        }
        assert_eq!(fake.calls_of(call), 0, "{words:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::Stdio;
    let fake = Fake::start();
    let session = fake.session();
    let lines = "x\n".repeat(256);
    for _ in 0..20 {
        strongroom_with(fake.dir(), ["event", "append", &session, "log", "--lines"], lines.as_bytes()).ok();
    }
    let mut command = crate::command::prepared(fake.dir(), ["event", "tail", &session, "log"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
