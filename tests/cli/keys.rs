//! The versions of a tenant's key: each verb, and what stands between a person and the loss of their sessions.

use serde_json::json;
use tonic::Code;

use crate::command::{Run, strongroom, strongroom_at_terminal, strongroom_with};
use crate::dev_server::DevServer;
use crate::fake::{self, Fake};

/// When what is destroyed now with the default grace can no longer be taken back.
const WEEK_LATER: &str = "2026-07-08T12:00:00.000Z";
const DAY_LATER: &str = "2026-07-02T12:00:00.000Z";
const HORIZON: &str = "copies of the wrapped key in backups and in old storage segments stay openable by whoever holds \
                       the root key, until the keys of that root epoch's recipients are destroyed";

fn key(fake: &Fake, words: &[&str]) -> Run {
    strongroom(fake.dir(), ["key"].iter().chain(words))
}

/// The states of all versions.
fn states(fake: &Fake) -> Vec<String> {
    let listed = key(fake, &["list", "--output", "json"]).ok().json();
    listed.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn versions_are_listed_with_the_time_of_their_destruction() {
    let fake = Fake::rotated(0);
    key(&fake, &["destroy", "1", "--yes"]).ok();
    let expected = "\
VERSION  STATE              ORIGIN     CREATED                   STATE SINCE               EXPORTED  DESTRUCTION
1        destroy-scheduled  generated  2026-07-01T12:00:00.000Z  2026-07-01T12:00:00.000Z  -         2026-07-08T12:00:00.000Z
2        primary            generated  2026-07-01T12:00:00.000Z  2026-07-01T12:00:00.000Z  -         -
";
    assert_eq!(key(&fake, &["list"]).ok().text(), expected);
    let version = |version, state, destruction| {
        json!({
            "version": version, "state": state, "created": fake::TIME, "state_since": fake::TIME, "destruction": destruction,
            "origin": "generated", "exported": null,
        })
    };
    let expected = json!([version(1, "destroy-scheduled", Some(WEEK_LATER)), version(2, "primary", None)]);
    assert_eq!(key(&fake, &["list", "--output", "json"]).ok().json(), expected);
    assert_eq!(key(&fake, &["describe", "1", "--output", "json"]).ok().json(), expected[0]);
    let expected = "\
version      2
state        primary
origin       generated
created      2026-07-01T12:00:00.000Z
state since  2026-07-01T12:00:00.000Z
exported     -
destruction  -
";
    assert_eq!(key(&fake, &["describe", "2"]).ok().text(), expected);
}

#[test]
fn a_version_waits_until_it_is_promoted_and_is_disabled_and_enabled() {
    let fake = Fake::rotated(0);
    let made = key(&fake, &["rotate", "--pending", "--output", "json"]).ok().json();
    assert_eq!((&made["version"], &made["state"]), (&json!(3), &json!("pending")));
    assert_eq!(states(&fake), ["enabled", "primary", "pending"]);
    let promoted = key(&fake, &["promote", "3", "--output", "json"]).ok().json();
    assert_eq!((&promoted["version"], &promoted["state"]), (&json!(3), &json!("primary")));
    let disabled = key(&fake, &["disable", "2", "--output", "json"]).ok().json();
    assert_eq!((&disabled["version"], &disabled["state"]), (&json!(2), &json!("disabled")));
    assert_eq!(states(&fake), ["enabled", "disabled", "primary"]);
    let enabled = key(&fake, &["enable", "2", "--output", "json"]).ok().json();
    assert_eq!((&enabled["version"], &enabled["state"]), (&json!(2), &json!("enabled")));
    assert!(key(&fake, &["promote", "1"]).ok().text().contains("state        primary\n"));
    assert!(key(&fake, &["disable", "3"]).ok().text().contains("state        disabled\n"));
    assert!(key(&fake, &["enable", "3"]).ok().text().contains("state        enabled\n"));
}

#[test]
fn a_key_rotates_by_itself_or_not() {
    let fake = Fake::rotated(0);
    assert!(key(&fake, &["auto-rotate", "--every", "30d"]).ok().text().contains("30days"));
    let on = key(&fake, &["auto-rotate", "--every", "30d", "--output", "json"]).ok().json();
    assert_eq!(on["period_seconds"], json!(30 * 86_400));
    assert!(key(&fake, &["auto-rotate", "--off"]).ok().text().contains("never"));
    key(&fake, &["auto-rotate"]).fails(2);
    key(&fake, &["auto-rotate", "--off", "--every", "30d"]).fails(2);
}

#[test]
fn a_census_counts_the_sessions_of_each_version() {
    let fake = Fake::rotated(2);
    fake.session();
    assert_eq!(key(&fake, &["census"]).ok().text(), "VERSION  SESSIONS\n1        2\n2        1\n");
    let expected = json!([{"version": 1, "sessions": 2}, {"version": 2, "sessions": 1}]);
    assert_eq!(key(&fake, &["census", "--output", "json"]).ok().json(), expected);
    strongroom(fake.dir(), ["tenant", "create", "acme"]).ok();
    key(&fake, &["census", "--tenant", "acme"]).ok();
}

#[test]
fn a_disabling_is_counted_before_it_is_done() {
    let fake = Fake::rotated(1);
    let run = key(&fake, &["disable", "1", "--dry-run"]).ok();
    assert_eq!(run.text(), "version   1\nstate     enabled\nsessions  1\n");
    let effect = "Nothing was changed: 1 session would become unreadable until it is enabled again.\n";
    assert_eq!(run.err, effect);
    let run = key(&fake, &["disable", "1", "--dry-run", "--output", "json"]).ok();
    assert_eq!(run.json(), json!({"version": 1, "state": "enabled", "sessions": 1}));
    let refused = key(&fake, &["disable", "2", "--dry-run"]).ok();
    assert!(refused.err.contains("it would be refused, because the version is primary"), "{refused:?}");
    assert_eq!(states(&fake), ["enabled", "primary"]);
    assert_eq!(fake.calls_of("disable_kek"), 0);
}

#[test]
fn a_dry_run_says_exactly_what_would_be_lost_and_changes_nothing() {
    let fake = Fake::rotated(3);
    let run = key(&fake, &["destroy", "1", "--dry-run"]).ok();
    let expected = format!(
        "tenant            demo\nversion           1\nstate             enabled\nsessions lost     3\n\
         irrevocable from  {WEEK_LATER}\nnot reached       {HORIZON}\n"
    );
    assert_eq!(run.text(), expected);
    let said = "Nothing was changed: this was a dry run.\n\
                As it stands it would be refused; it goes ahead with --force --sessions 3.\n";
    assert_eq!(run.err, said);
    let words = ["destroy", "1", "--dry-run", "--grace", "24h", "--force", "--sessions", "3"];
    let run = strongroom(fake.dir(), ["key"].iter().chain(&words).chain(&["--output", "json"])).ok();
    let expected = json!({
        "tenant": "demo", "version": 1, "state": "enabled", "sessions": 3, "irrevocable": DAY_LATER, "dry_run": true,
        "horizon": HORIZON,
    });
    assert_eq!(run.json(), expected);
    assert_eq!(run.err, "Nothing was changed: this was a dry run.\n");
    let now = key(&fake, &["destroy", "1", "--dry-run", "--no-grace", "--output", "json"]).ok().json();
    assert_eq!((&now["state"], &now["irrevocable"]), (&json!("enabled"), &json!(fake::TIME)));
    assert_eq!(states(&fake), ["enabled", "primary"]);
    assert_eq!(fake.calls_of("destroy_kek"), 0);
}

#[test]
fn a_dry_run_goes_without_the_state_when_the_token_may_not_see_it() {
    let fake = Fake::rotated(0);
    fake.refuse("get_kek", fake::permission_denied());
    let run = key(&fake, &["destroy", "1", "--dry-run", "--output", "json"]).ok().json();
    assert_eq!((&run["state"], &run["sessions"]), (&json!(null), &json!(0)));
    fake.refuse("get_kek", fake::integrity_failure());
    key(&fake, &["destroy", "1", "--dry-run"]).fails(5);
}

#[test]
fn a_destruction_says_until_when_and_how_it_is_taken_back() {
    let fake = Fake::rotated(0);
    let run = key(&fake, &["destroy", "1", "--yes", "--output", "json"]).ok();
    let expected = json!({
        "tenant": "demo", "version": 1, "state": "destroy-scheduled", "sessions": 0, "irrevocable": WEEK_LATER,
        "dry_run": false, "horizon": HORIZON,
    });
    assert_eq!(run.json(), expected);
    let back = "strongroom key cancel-destroy 1 --tenant demo";
    assert_eq!(run.err, format!("It can be taken back until {WEEK_LATER}: {back}\n"));
    // What it says is what works.
    let run = strongroom(fake.dir(), back.split(' ').skip(1)).ok();
    assert!(run.text().contains("state        disabled\n"), "{run:?}");
    let again =
        "It is disabled now. It opens again what it wrapped after: strongroom key enable 1 --tenant demo\n";
    assert_eq!(run.err, again);
    assert_eq!(states(&fake), ["disabled", "primary"]);
}

#[test]
fn the_grace_is_a_week_unless_another_one_or_none_is_given() {
    let fake = Fake::rotated(0);
    for (words, grace, state) in [
        (&[][..], None, "destroy-scheduled"),
        (&["--grace", "24h"], Some(86_400), "destroy-scheduled"),
        (&["--no-grace"], Some(0), "destroyed"),
    ] {
        let run = strongroom(fake.dir(), ["key", "destroy", "1", "--yes"].iter().chain(words)).ok();
        assert_eq!(fake.last_grace(), grace, "{words:?}");
        assert_eq!(states(&fake)[0], state, "{words:?}");
        if state == "destroyed" {
            assert_eq!(run.err, "It is destroyed. Nothing takes that back.\n");
        } else {
            key(&fake, &["cancel-destroy", "1"]).ok();
        }
    }
}

#[test]
fn a_version_with_sessions_is_destroyed_only_with_their_exact_number() {
    let fake = Fake::rotated(2);
    let refused = key(&fake, &["destroy", "1", "--yes"]).fails(1);
    let hint = "hint: 2 sessions would be lost: rewrap them first, or accept that with --force --sessions 2";
    assert!(refused.err.contains("KEY_IN_USE") && refused.err.contains(hint), "{refused:?}");
    assert!(refused.out.is_empty());
    let refused = key(&fake, &["destroy", "1", "--yes", "--force", "--sessions", "3"]).fails(1);
    assert!(refused.err.contains(hint), "{refused:?}");
    assert_eq!(states(&fake), ["enabled", "primary"]);
    let run = key(&fake, &["destroy", "1", "--yes", "--force", "--sessions", "2"]).ok();
    assert!(run.text().contains("sessions lost     2\n"), "{run:?}");
    assert_eq!(states(&fake), ["destroy-scheduled", "primary"]);
}

#[test]
fn at_a_terminal_the_name_of_the_version_must_be_typed() {
    let fake = Fake::rotated(1);
    let words = ["key", "destroy", "1", "--force", "--sessions", "1"];
    for typed in ["\n", "demo\n", "1\n", "demo/2\n", "y\n", "yes\n", "\u{4}"] {
        let run = strongroom_at_terminal(fake.dir(), words, typed).fails(1);
        assert!(run.err.contains("nothing was done: the name that was typed is not demo/1"), "{run:?}");
        assert!(run.out.is_empty(), "{run:?}");
    }
    assert_eq!((states(&fake)[0].as_str(), fake.calls_of("destroy_kek")), ("enabled", 0));
    let run = strongroom_at_terminal(fake.dir(), words, "demo/1\n").ok();
    for part in [
        "This destroys version 1 of the key of the tenant demo. With it 1 session will be lost, with all that is kept there.\n",
        &format!("At once nobody can use it, and from {WEEK_LATER} on nothing takes that back.\n"),
        &format!("What it does not reach: {HORIZON}.\nType demo/1 to go on:"),
    ] {
        assert!(run.err.contains(part), "{part}: {run:?}");
    }
    assert_eq!(states(&fake)[0], "destroy-scheduled");
}

#[test]
fn at_a_terminal_nobody_is_asked_about_what_would_be_refused() {
    let fake = Fake::rotated(2);
    let run = strongroom_at_terminal(fake.dir(), ["key", "destroy", "1"], "demo/1\n").fails(1);
    assert!(run.err.contains("hint: 2 sessions would be lost"), "{run:?}");
    assert!(run.err.contains("the number of sessions that would be lost with version 1 is 2"), "{run:?}");
    let forced = ["key", "destroy", "2", "--force", "--sessions", "1"];
    let run = strongroom_at_terminal(fake.dir(), forced, "demo/2\n").fails(1);
    assert!(run.err.contains("KEY_STATE") && run.err.contains("hint: promote another"), "{run:?}");
    assert!(!run.err.contains("Type "), "{run:?}");
    assert_eq!((states(&fake), fake.calls_of("destroy_kek")), (vec!["enabled".into(), "primary".into()], 0));
}

#[test]
fn without_a_terminal_a_destruction_needs_yes_and_asks_the_server_nothing() {
    let fake = Fake::rotated(0);
    let calls = fake.calls();
    let run = strongroom_with(fake.dir(), ["key", "destroy", "1"], b"demo/1\n").fails(1);
    assert!(run.err.contains("hint: give --yes"), "{run:?}");
    assert_eq!(fake.calls(), calls);
    assert_eq!(states(&fake), ["enabled", "primary"]);
}

#[test]
fn words_that_do_not_go_together_are_2_and_nothing_is_sent() {
    let fake = Fake::rotated(0);
    let calls = fake.calls();
    for words in [
        &["promote"][..],
        &["disable", "0"],
        &["destroy", "one"],
        &["destroy", "1", "--grace", "7d", "--no-grace"],
        &["destroy", "1", "--grace", "0s"],
        &["destroy", "1", "--force"],
        &["destroy", "1", "--sessions", "0"],
    ] {
        let run = strongroom(fake.dir(), ["key", "--yes"].iter().chain(words)).fails(2);
        assert!(run.out.is_empty(), "{words:?}: {run:?}");
    }
    assert_eq!(fake.calls(), calls);
}

#[test]
fn a_version_in_the_wrong_state_is_refused_with_what_to_do() {
    let fake = Fake::rotated(0);
    for (words, hint) in [
        (&["disable", "2"][..], "promote another version first"),
        (&["destroy", "2", "--yes"], "promote another version first"),
        (&["destroy", "2", "--dry-run"], "promote another version first"),
        (&["cancel-destroy", "1"], "'strongroom key list' shows"),
    ] {
        let run = key(&fake, words).fails(1);
        assert!(
            run.err.contains("KEY_STATE") && run.err.contains(&format!("hint: {hint}")),
            "{words:?}: {run:?}"
        );
        assert!(run.out.is_empty(), "{run:?}");
    }
    key(&fake, &["disable", "1"]).ok();
    let run = key(&fake, &["promote", "1"]).fails(1);
    assert!(run.err.contains("hint: 'strongroom key enable'"), "{run:?}");
    key(&fake, &["destroy", "1", "--yes"]).ok();
    let run = key(&fake, &["enable", "1"]).fails(1);
    assert!(run.err.contains("hint: 'strongroom key cancel-destroy'"), "{run:?}");
    key(&fake, &["cancel-destroy", "1"]).ok();
    key(&fake, &["destroy", "1", "--yes", "--no-grace"]).ok();
    let run = key(&fake, &["cancel-destroy", "1"]).fails(1);
    assert!(run.err.contains("hint: this cannot be undone"), "{run:?}");
}

#[test]
fn a_version_that_does_not_exist_is_3_for_each_verb() {
    let fake = Fake::rotated(0);
    for words in [
        &["describe", "9"][..],
        &["promote", "9"],
        &["enable", "9"],
        &["disable", "9"],
        &["disable", "9", "--dry-run"],
        &["destroy", "9", "--yes"],
        &["destroy", "9", "--dry-run"],
        &["cancel-destroy", "9"],
    ] {
        let run = key(&fake, words).fails(3);
        assert!(run.err.contains("KEY_NOT_FOUND"), "{words:?}: {run:?}");
        assert!(run.err.contains("hint: 'strongroom key list' shows the versions"), "{words:?}: {run:?}");
    }
}

#[test]
fn each_verb_passes_on_what_the_server_refuses() {
    let fake = Fake::rotated(0);
    for (method, words) in [
        ("list_keks", &["list"][..]),
        ("get_kek", &["describe", "1"]),
        ("rotate_kek", &["rotate"]),
        ("rotate_kek", &["rotate", "--pending"]),
        ("promote_kek", &["promote", "1"]),
        ("enable_kek", &["enable", "1"]),
        ("disable_kek", &["disable", "1"]),
        ("count_kek_use", &["census"]),
        ("count_kek_use", &["disable", "1", "--dry-run"]),
        ("destroy_kek", &["destroy", "1", "--yes"]),
        ("destroy_kek dry run", &["destroy", "1", "--dry-run"]),
        ("cancel_kek_destruction", &["cancel-destroy", "1"]),
    ] {
        fake.refuse(method, fake::refused(Code::PermissionDenied, "PERMISSION_DENIED", &[]));
        let run = key(&fake, words).fails(1);
        assert!(run.err.contains("hint: the token lacks the scope"), "{words:?}: {run:?}");
        assert!(run.out.is_empty(), "{words:?}: {run:?}");
    }
}

#[test]
fn every_verb_works_against_the_real_server() {
    let server = DevServer::start();
    let dir = server.dir();
    let json = |words: &[&str]| strongroom(dir, words.iter().chain(&["--output", "json"])).ok().json();
    let session = json(&["session", "create"])["session"].as_str().unwrap().to_owned();
    strongroom(dir, ["entry", "put", &session, "k", "--value", "v"]).ok();
    assert_eq!(json(&["key", "rotate", "--pending"])["state"], "pending");
    assert_eq!(json(&["key", "promote", "2"])["state"], "primary");
    assert_eq!(json(&["key", "census"])[0], json!({"version": 1, "sessions": 1}));
    strongroom(dir, ["key", "disable", "1"]).ok();
    let refused = strongroom(dir, ["entry", "get", &session, "k"]).fails(1);
    assert!(refused.err.contains("KEY_DISABLED"), "{refused:?}");
    strongroom(dir, ["key", "enable", "1"]).ok();
    assert_eq!(strongroom(dir, ["entry", "get", &session, "k"]).ok().out, b"v");
    let plan = json(&["key", "destroy", "1", "--dry-run"]);
    assert_eq!((&plan["state"], &plan["sessions"]), (&json!("enabled"), &json!(1)));
    let refused = strongroom(dir, ["key", "destroy", "1", "--yes"]).fails(1);
    assert!(refused.err.contains("hint: 1 session would be lost"), "{refused:?}");
    let forced = ["key", "destroy", "1", "--force", "--sessions", "1"];
    strongroom_at_terminal(dir, forced, "demo/1\n").ok();
    assert_eq!(json(&["key", "describe", "1"])["state"], "destroy-scheduled");
    strongroom(dir, ["key", "cancel-destroy", "1"]).ok();
    strongroom(dir, ["key", "enable", "1"]).ok();
    assert_eq!(strongroom(dir, ["entry", "get", &session, "k"]).ok().out, b"v");
    strongroom(dir, forced.iter().chain(&["--no-grace", "--yes"])).ok();
    let lost = strongroom(dir, ["entry", "get", &session, "k"]).fails(1);
    assert!(lost.err.contains("KEY_DESTROYED"), "{lost:?}");
    assert_eq!(json(&["key", "list"])[0]["state"], "destroyed");
}
