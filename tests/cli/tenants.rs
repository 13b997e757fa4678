//! The end of a tenant: what stands between a person and the loss of all that it keeps, and the run-book for it.

use serde_json::json;

use crate::command::{Run, strongroom, strongroom_at_terminal, strongroom_with};
use crate::dev_server::DevServer;
use crate::fake::{self, Fake};

const WEEK_LATER: &str = "2026-07-08T12:00:00.000Z";

fn tenant(fake: &Fake, words: &[&str]) -> Run {
    strongroom(fake.dir(), ["tenant"].iter().chain(words))
}

/// A fake with a tenant `demo` that is suspended and has so many sessions.
fn suspended(sessions: usize) -> Fake {
    let fake = Fake::rotated(sessions);
    tenant(&fake, &["suspend", "demo", "--yes"]).ok();
    fake
}

fn state(fake: &Fake) -> String {
    tenant(fake, &["describe", "demo", "--output", "json"]).ok().json()["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_dry_run_says_exactly_what_would_be_lost_and_changes_nothing() {
    let fake = suspended(3);
    let run = tenant(&fake, &["destroy", "demo", "--dry-run"]).ok();
    for part in
        ["state             suspended\n", "sessions lost     3\n", WEEK_LATER, "not reached       copies of"]
    {
        assert!(run.text().contains(part), "{part}: {run:?}");
    }
    let said = "Nothing was changed: this was a dry run.\n\
                As it stands it would be refused; it goes ahead with --force --sessions 3.\n";
    assert_eq!(run.err, said);
    let words = ["destroy", "demo", "--dry-run", "--force", "--sessions", "3", "--output", "json"];
    let run = tenant(&fake, &words).ok();
    let shown = run.json();
    assert_eq!(
        (&shown["state"], &shown["dry_run"], &shown["sessions"]),
        (&json!("suspended"), &json!(true), &json!(3))
    );
    assert_eq!((&shown["tenant"], &shown["irrevocable"]), (&json!("demo"), &json!(WEEK_LATER)));
    assert_eq!(run.err, "Nothing was changed: this was a dry run.\n");
    assert_eq!((state(&fake).as_str(), fake.calls_of("destroy_tenant")), ("suspended", 0));
}

#[test]
fn a_destruction_says_until_when_and_how_it_is_taken_back() {
    let fake = suspended(0);
    let run = tenant(&fake, &["destroy", "demo", "--yes", "--output", "json"]).ok();
    let shown = run.json();
    assert_eq!((&shown["state"], &shown["irrevocable"]), (&json!("destroy-scheduled"), &json!(WEEK_LATER)));
    let back = "strongroom tenant undestroy demo";
    assert_eq!(run.err, format!("It can be taken back until {WEEK_LATER}: {back}\n"));
    let listed = tenant(&fake, &["list"]).ok();
    assert!(listed.text().contains("destroy-scheduled") && listed.text().contains(WEEK_LATER), "{listed:?}");
    // What it says is what works.
    let run = strongroom(fake.dir(), back.split(' ').skip(1)).ok();
    assert!(run.text().contains("suspended"), "{run:?}");
    assert_eq!(run.err, "It is suspended now. Its data can be used after: strongroom tenant resume demo\n");
    let run = tenant(&fake, &["destroy", "demo", "--yes", "--no-grace"]).ok();
    assert_eq!(run.err, "It is destroyed. Nothing takes that back.\n");
    assert!(run.text().contains("destroyed"), "{run:?}");
}

#[test]
fn a_tenant_with_sessions_is_destroyed_only_with_their_exact_number() {
    let fake = suspended(2);
    let refused = tenant(&fake, &["destroy", "demo", "--yes"]).fails(1);
    let hint = "hint: 2 sessions would be lost: delete them first, or accept that with --force --sessions 2";
    assert!(refused.err.contains("TENANT_IN_USE") && refused.err.contains(hint), "{refused:?}");
    tenant(&fake, &["destroy", "demo", "--yes", "--force", "--sessions", "3"]).fails(1);
    assert_eq!(state(&fake), "suspended");
    tenant(&fake, &["destroy", "demo", "--yes", "--force", "--sessions", "2"]).ok();
    assert_eq!(state(&fake), "destroy-scheduled");
}

#[test]
fn at_a_terminal_the_name_of_the_tenant_must_be_typed() {
    let fake = suspended(1);
    let words = ["tenant", "destroy", "demo", "--force", "--sessions", "1"];
    for typed in ["\n", "demo/1\n", "y\n", "yes\n", "\u{4}"] {
        let run = strongroom_at_terminal(fake.dir(), words, typed).fails(1);
        assert!(run.err.contains("nothing was done: the name that was typed is not demo"), "{run:?}");
        assert!(run.out.is_empty(), "{run:?}");
    }
    let run = strongroom_at_terminal(fake.dir(), ["tenant", "destroy", "demo"], "demo\n").fails(1);
    assert!(
        run.err.contains("that would be lost with the tenant demo is 1") && !run.err.contains("Type "),
        "{run:?}"
    );
    assert_eq!((state(&fake).as_str(), fake.calls_of("destroy_tenant")), ("suspended", 0));
    let run = strongroom_at_terminal(fake.dir(), words, "demo\n").ok();
    let asked = "This destroys the tenant demo, with all versions of its key. With it 1 session will be lost, with all that is kept there.\n";
    assert!(run.err.contains(asked) && run.err.contains("What it does not reach: copies of"), "{run:?}");
    assert_eq!(state(&fake), "destroy-scheduled");
}

#[test]
fn without_a_terminal_a_destruction_needs_yes_and_asks_the_server_nothing() {
    let fake = suspended(0);
    let calls = fake.calls();
    let run = strongroom_with(fake.dir(), ["tenant", "destroy", "demo"], b"demo\n").fails(1);
    assert!(run.err.contains("hint: give --yes"), "{run:?}");
    for words in [&["--grace", "7d", "--no-grace"][..], &["--force"], &["--sessions", "0"]] {
        strongroom(fake.dir(), ["tenant", "destroy", "demo", "--yes"].iter().chain(words)).fails(2);
    }
    assert_eq!(fake.calls(), calls);
}

#[test]
fn a_tenant_in_the_wrong_state_is_refused_with_what_to_do() {
    let fake = Fake::rotated(0);
    for (words, hint) in [
        (&["destroy", "demo", "--yes"][..], "'strongroom tenant suspend' refuses all use"),
        (&["destroy", "demo", "--dry-run"], "'strongroom tenant suspend' refuses all use"),
        (&["undestroy", "demo"], "'strongroom tenant suspend' refuses all use"),
    ] {
        let run = tenant(&fake, words).fails(1);
        assert!(run.err.contains("TENANT_STATE") && run.err.contains(hint), "{words:?}: {run:?}");
        assert!(run.out.is_empty(), "{run:?}");
    }
    tenant(&fake, &["destroy", "nobody", "--yes"]).fails(3);
    fake.refuse("destroy_tenant", fake::permission_denied());
    tenant(&fake, &["destroy", "demo", "--yes"]).fails(1);
}

/// The commands of a run-book in `keys/README.md`, in their order.
fn run_book(title: &str) -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/keys/README.md")).unwrap();
    let book = text.split_once(&format!("**{title}**")).unwrap().1;
    let book = book.split("\n\n").next().unwrap();
    let quoted = book.split('`').skip(1).step_by(2);
    quoted.filter_map(|command| command.strip_prefix("strongroom ")).map(str::to_owned).collect()
}

#[test]
fn the_run_book_for_off_boarding_a_tenant_does_what_it_says() {
    let server = DevServer::start();
    let dir = server.dir();
    let json = |words: &[&str]| strongroom(dir, words.iter().chain(&["--output", "json"])).ok().json();
    let uid = json(&["tenant", "describe", "demo"])["uid"].as_str().unwrap().to_owned();
    strongroom(dir, ["token", "create", "other", "--scope", "read", "--out", "other.token"]).ok();
    let session = json(&["session", "create"])["session"].as_str().unwrap().to_owned();
    strongroom(dir, ["entry", "put", &session, "k", "--value", "v"]).ok();

    let mut done = Vec::new();
    for command in run_book("Off-boarding a tenant") {
        let words = command.replace("TENANT", "demo").replace("TOKEN", "other").replace("UID", &uid);
        let words = words.replace("--sessions N", "--sessions 1");
        let run = strongroom(dir, words.split(' ').chain(["--yes"])).ok();
        done.push((words, run));
    }
    let said = |command: &str, what: &str| {
        let (_, run) = done.iter().rfind(|(done, _)| done.starts_with(command)).unwrap();
        assert!(run.text().contains(what), "{command}: {run:?}");
    };
    said("token list", "other");
    said("tenant destroy demo --dry-run", "sessions lost     1");
    said("tenant destroy demo --force", "destroy-scheduled");
    said("tenant undestroy demo", "suspended");
    said("tenant destroy demo --no-grace", "destroyed");
    said("tenant list", "destroyed");
    said("audit search --uid", "tenant.destroy");
    assert_eq!(done.len(), 10, "{done:?}");

    // A new tenant of the name has nothing of the old one, although the token that was not revoked is good for both.
    let again = json(&["tenant", "create", "demo"]);
    assert!(again["uid"] != uid.as_str() && again["state"] == "active");
    let lost = strongroom(dir, ["entry", "get", &session, "k"]).fails(3);
    assert!(lost.err.contains("SESSION_NOT_FOUND"), "{lost:?}");
}
