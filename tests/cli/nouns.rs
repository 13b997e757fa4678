//! Each noun and verb, against a server in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::command::{strongroom, strongroom_with};
use crate::fake::{self, Fake};

#[test]
fn a_value_goes_in_from_a_file_a_pipe_or_the_command_line_and_comes_out_byte_for_byte() {
    let fake = Fake::start();
    let session = fake.session();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    fs::write(fake.dir().join("value"), &bytes).unwrap();
    strongroom(fake.dir(), ["entry", "put", &session, "file", "value"]).ok();
    strongroom_with(fake.dir(), ["entry", "put", &session, "pipe"], &bytes).ok();
    strongroom_with(fake.dir(), ["entry", "put", &session, "dash", "-"], &bytes).ok();
    strongroom(fake.dir(), ["entry", "put", &session, "literal", "--value", "tea, earl grey"]).ok();
    strongroom(fake.dir(), ["entry", "put", &session, "empty"]).ok();
    for key in ["file", "pipe", "dash"] {
        assert_eq!(strongroom(fake.dir(), ["entry", "get", &session, key]).ok().out, bytes);
    }
    assert_eq!(strongroom(fake.dir(), ["entry", "get", &session, "literal"]).ok().out, b"tea, earl grey");
    assert_eq!(strongroom(fake.dir(), ["entry", "get", &session, "empty"]).ok().out, b"");
}

#[test]
fn a_value_that_is_written_to_a_file_is_its_owners_alone() {
    let fake = Fake::start();
    let session = fake.session();
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "v"]).ok();
    let out = fake.dir().join("out");
    fs::write(&out, "something longer that was there before").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o644)).unwrap();
    let run = strongroom(fake.dir(), ["entry", "get", &session, "k", "--out", "out"]).ok();
    assert_eq!(fs::read(&out).unwrap(), b"v");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!run.text().contains("\nv"), "{run:?}");
}

#[test]
fn json_has_stable_names() {
    let fake = Fake::start();
    let created =
        strongroom(fake.dir(), ["session", "create", "--ttl", "1h", "--label", "a=b", "--output", "json"])
            .ok();
    let mut document = created.json();
    let session = document["session"].take().as_str().unwrap().to_owned();
    let expected = json!({
        "session": null, "owner": null, "created": fake::TIME, "expires": fake::TIME, "expires_at_latest": fake::TIME,
        "idle_ttl_ms": null, "labels": {"a": "b"}, "revision": 1, "sensitive_purged": false,
    });
    assert_eq!(document, expected);
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "v"]).ok();
    let entry = json!({
        "key": "k", "revision": 1, "size": 1, "content_type": "", "created": fake::TIME, "updated": fake::TIME,
        "expires": null, "labels": {},
    });
    let listed = strongroom(fake.dir(), ["entry", "list", &session, "--output", "json"]).ok();
    assert_eq!(listed.json(), json!([entry]));
    let mut with_value = entry;
    with_value["text"] = json!("v");
    let got = strongroom(fake.dir(), ["entry", "get", &session, "k", "--output", "json"]).ok();
    assert_eq!(got.json(), with_value);
    strongroom_with(fake.dir(), ["entry", "put", &session, "k"], &[0xff, 0]).ok();
    let got = strongroom(fake.dir(), ["entry", "get", &session, "k", "--output", "json"]).ok();
    assert_eq!((&got.json()["base64"], &got.json()["text"]), (&json!("/wA="), &json!(null)));
}

#[test]
fn conditions_and_lifetimes_reach_the_server() {
    let fake = Fake::start();
    let session = fake.session();
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "1", "--expect", "absent"]).ok();
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "2", "--expect", "1", "--ttl", "15m"])
        .ok();
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "3", "--expect", "1"]).fails(1);
    strongroom(fake.dir(), ["entry", "delete", &session, "k", "--yes", "--expect", "1"]).fails(1);
    assert_eq!(fake.last_ttl(), Some(900));
    let gone = strongroom(
        fake.dir(),
        ["entry", "delete", &session, "k", "--yes", "--expect", "2", "--output", "json"],
    )
    .ok();
    assert_eq!(gone.json(), json!({"key": "k", "revision": 3}));
}

#[test]
fn a_value_that_is_taken_is_printed_once() {
    let fake = Fake::start();
    let session = fake.session();
    strongroom(fake.dir(), ["entry", "put", &session, "once", "--value", "v"]).ok();
    assert_eq!(
        strongroom(fake.dir(), ["entry", "delete", &session, "once", "--yes", "--return"]).ok().out,
        b"v"
    );
    strongroom(fake.dir(), ["entry", "delete", &session, "once", "--yes", "--return"]).fails(3);
}

#[test]
fn a_table_is_aligned_under_its_heading() {
    let fake = Fake::start();
    let session = fake.session();
    for key in ["a", "a-much-longer-name"] {
        strongroom(fake.dir(), ["entry", "put", &session, key, "--value", "v"]).ok();
    }
    let run = strongroom(fake.dir(), ["entry", "list", &session]).ok();
    let lines: Vec<&str> = run.text().lines().collect();
    let column = lines[0].find("REVISION").unwrap();
    assert_eq!(lines.len(), 3);
    assert!(lines[1..].iter().all(|line| line[column..].starts_with('1')), "{run:?}");
    assert!(!run.text().contains('\u{1b}'), "no colours without a terminal: {run:?}");
}

#[test]
fn updates_change_what_is_named_and_nothing_else() {
    let fake = Fake::start();
    let session = fake.session();
    let update = |words: &[&str]| {
        let all =
            ["session", "update", &session, "--output", "json"].into_iter().chain(words.iter().copied());
        strongroom(fake.dir(), all).ok().json()
    };
    assert_eq!(update(&["--label", "x=1", "--label", "y="])["labels"], json!({"x": "1", "y": ""}));
    assert_eq!(update(&["--idle-ttl", "30m"])["idle_ttl_ms"], 1_800_000);
    let last = update(&["--no-labels"]);
    assert_eq!(
        (&last["labels"], &last["idle_ttl_ms"], &last["revision"]),
        (&json!({}), &json!(1_800_000), &json!(4))
    );
    strongroom(fake.dir(), ["session", "update", &session]).fails(2);
    strongroom(fake.dir(), ["session", "update", &session, "--no-labels", "--expect", "1"]).fails(1);
}

#[test]
fn events_are_appended_line_by_line_and_read_after_an_id() {
    let fake = Fake::start();
    let session = fake.session();
    let appended = strongroom_with(
        fake.dir(),
        ["event", "append", &session, "log", "--lines", "--output", "json"],
        b"one\ntwo\nthree\n",
    )
    .ok();
    let ids: Vec<String> = appended
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["event_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 3);
    let tail = |words: &[&str]| {
        let all = ["event", "tail", &session, "log"].into_iter().chain(words.iter().copied());
        strongroom(fake.dir(), all).ok()
    };
    assert_eq!(tail(&["--raw"]).out, b"one\ntwo\nthree\n");
    assert_eq!(tail(&["--raw", "--after", &ids[0]]).out, b"two\nthree\n");
    assert_eq!(tail(&["--raw", "--limit", "1"]).out, b"one\n");
    let lines = tail(&["--output", "json"]).json_lines();
    let expected = json!({
        "event_id": ids[1], "appended": fake::TIME, "content_type": "", "size": 3, "text": "two",
    });
    assert_eq!((lines.len(), &lines[1]), (3, &expected));
    let whole = strongroom_with(fake.dir(), ["event", "append", &session, "other"], b"one\ntwo\n");
    assert_eq!(whole.ok().text().lines().count(), 2);
    let empty = ["event", "append", &session, "log", "--expect-last", "none"];
    strongroom_with(fake.dir(), empty, b"x").fails(1);
}

#[test]
fn a_watch_prints_what_is_there() {
    let fake = Fake::start();
    let session = fake.session();
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "v"]).ok();
    let run = strongroom(fake.dir(), ["entry", "watch", &session, "--for", "300ms", "--output", "json"]).ok();
    assert_eq!(run.json_lines(), [json!({"key": "k", "revision": 1, "deleted": false, "snapshot": true})]);
}

#[test]
fn tenants_and_keys_are_listed_and_changed() {
    let fake = Fake::start();
    let created = strongroom(fake.dir(), ["tenant", "create", "acme", "--output", "json"]).ok().json();
    assert_eq!((&created["tenant"], &created["state"]), (&json!("acme"), &json!("active")));
    let suspended =
        strongroom(fake.dir(), ["tenant", "suspend", "acme", "--yes", "--output", "json"]).ok().json();
    assert_eq!(suspended["state"], "suspended");
    strongroom(fake.dir(), ["tenant", "resume", "acme"]).ok();
    assert!(strongroom(fake.dir(), ["tenant", "list"]).ok().text().contains("acme"));
    let rotated =
        strongroom(fake.dir(), ["key", "rotate", "--tenant", "acme", "--output", "json"]).ok().json();
    assert_eq!((&rotated["version"], &rotated["state"]), (&json!(2), &json!("primary")));
    let keys = strongroom(fake.dir(), ["key", "list", "--tenant", "acme", "--output", "json"]).ok().json();
    let states: Vec<_> = keys.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["enabled", "primary"]);
}

#[test]
fn a_tokens_secret_goes_into_a_new_file_of_its_owner_and_nowhere_else() {
    let fake = Fake::start();
    let create = ["token", "create", "ci", "--scope", "read,write", "--ttl", "1h", "--out", "ci.token"];
    let run = strongroom(fake.dir(), create).ok();
    let path = fake.dir().join("ci.token");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", fake::SECRET));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!run.text().contains("srt_") && !run.err.contains("srt_"), "{run:?}");
    assert!(run.text().contains("read,write") && run.text().contains("demo"), "{run:?}");
    // The file that exists is not overwritten, and no second token is made.
    let again = strongroom(fake.dir(), create).fails(1);
    assert!(again.err.contains("hint: name a file that does not exist yet"), "{again:?}");
    assert_eq!(fake.tokens_created(), 1);
}

#[test]
fn a_token_that_is_refused_leaves_no_file() {
    let fake = Fake::start();
    fake.refuse("create_token", fake::permission_denied());
    let words = ["token", "create", "ci", "--scope", "read", "--all-tenants", "--out", "ci.token"];
    let run = strongroom(fake.dir(), words).fails(1);
    assert!(run.err.contains("hint: the token lacks the scope"), "{run:?}");
    assert!(!fake.dir().join("ci.token").exists());
}

#[test]
fn a_secret_is_shown_when_asked_for() {
    let fake = Fake::start();
    let run = strongroom(fake.dir(), ["token", "create", "ci", "--scope", "read", "--show"]).ok();
    assert_eq!(run.text(), format!("{}\n", fake::SECRET));
    assert!(!run.err.contains("srt_"), "{run:?}");
}

#[test]
fn the_access_log_is_filtered_and_its_lines_are_kept_exactly() {
    let fake = Fake::start();
    let words = [
        "audit",
        "search",
        "--since",
        "15m",
        "--operation",
        "ctx.*",
        "--outcome",
        "deny",
        "--output",
        "json",
    ];
    let run = strongroom(fake.dir(), words).ok();
    let expected = format!("{{\"log\":\"demo/1\",\"sequence\":0,\"event\":{}}}\n", fake::LINE);
    assert_eq!(run.text(), expected);
    let filter = fake.last_filter().unwrap();
    assert_eq!((filter.operations, filter.outcomes), (vec!["ctx.*".to_owned()], vec!["deny".to_owned()]));
    assert!(filter.start_time.is_some() && filter.end_time.is_none());
    let table = strongroom(fake.dir(), ["audit", "tail", "-n", "5"]).ok();
    assert!(
        table.text().contains("ctx.read") && table.text().contains("2026-07-01T12:00:00.000Z"),
        "{table:?}"
    );
}

#[test]
fn status_says_how_the_server_is() {
    let fake = Fake::start();
    let run = strongroom(fake.dir(), ["status", "--output", "json"]).ok().json();
    assert_eq!((&run["engine"], &run["integrity_failures"]), (&json!("memory"), &json!(0)));
    assert!(strongroom(fake.dir(), ["status"]).ok().text().contains("memory"));
}

#[test]
fn every_name_in_json_is_in_the_help_of_its_noun() {
    let fake = Fake::start();
    let session = fake.session();
    strongroom(fake.dir(), ["entry", "put", &session, "k", "--value", "v"]).ok();
    strongroom_with(fake.dir(), ["event", "append", &session, "log"], b"e").ok();
    strongroom(fake.dir(), ["tenant", "create", "demo"]).ok();
    strongroom(fake.dir(), ["key", "rotate"]).ok();
    let load = ["bench", "mixed", "--operations", "9", "--sessions", "1", "--warm-up", "0s", "--quiet"];
    for words in [
        &["session", "get", &session][..],
        &["session", "list"],
        &["entry", "get", &session, "k"],
        &["entry", "watch", &session, "--for", "200ms"],
        &["event", "tail", &session, "log"],
        &["tenant", "describe", "demo"],
        &["key", "list"],
        &["key", "census"],
        &["key", "destroy", "1", "--dry-run"],
        &["key", "disable", "1", "--dry-run"],
        &["job", "start", "rewrap", "--watch"],
        &["token", "revoke", "ci", "--yes"],
        &["audit", "tail"],
        &["status"],
        &load,
    ] {
        let help = strongroom(fake.dir(), [words[0], "--help"]).ok();
        let run = strongroom(fake.dir(), words.iter().copied().chain(["--output", "json"])).ok();
        let document = run.json();
        let object = document.get(0).unwrap_or(&document).as_object().unwrap();
        for name in object.keys() {
            let words = help.text().split(|c: char| !c.is_alphanumeric() && c != '_');
            assert!(words.into_iter().any(|word| word == name), "{name} of {object:?}");
        }
    }
}
