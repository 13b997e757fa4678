//! Two people: what the one who asks is told, what the other one sees and must type, and the run-book.

use serde_json::json;
use strongroom::proto::v1::{self, ApprovalState as State};
use tonic::{Code, Status};

use crate::command::{Run, strongroom, strongroom_at_terminal};
use crate::dev_server::DevServer;
use crate::fake::{self, Fake};

const ID: &str = "01a0c450-6c00-71f6-94f6-d07ee3cf1d11";
const WHAT: &str = "destroy version 1 of the tenant's key at once; 2 sessions are lost with it";

fn approval(fake: &Fake, words: &[&str]) -> Run {
    strongroom(fake.dir(), ["approval"].iter().chain(words))
}

fn at(state: State) -> v1::Approval {
    let time = |seconds: i64| Some(prost_types::Timestamp { seconds: 1_782_907_200 + seconds, nanos: 0 });
    v1::Approval {
        approval_id: ID.to_owned(),
        operation: "key.destroy".to_owned(),
        tenant: "demo".to_owned(),
        description: WHAT.to_owned(),
        scopes: vec![v1::Scope::KeysDestroy.into(), v1::Scope::KeysDestroyNow.into()],
        requester: "token:ops".to_owned(),
        create_time: time(0),
        expire_time: time(24 * 3600),
        state: state.into(),
        ..Default::default()
    }
}

fn required() -> Status {
    let metadata = [
        ("approval_id", ID),
        ("description", WHAT),
        ("expire_time", "2026-07-02T12:00:00.000Z"),
        ("scopes", "keys-destroy,keys-destroy-now"),
    ];
    fake::refused(Code::FailedPrecondition, "APPROVAL_REQUIRED", &metadata)
}

#[test]
fn a_command_that_needs_somebody_else_says_who_must_run_what_and_fails() {
    let fake = Fake::rotated(2);
    fake.refuse("destroy_kek", required());
    let words = ["key", "destroy", "1", "--no-grace", "--force", "--sessions", "2", "--yes"];
    let run = strongroom(fake.dir(), words).fails(1);
    let expected = "\
approval            01a0c450-6c00-71f6-94f6-d07ee3cf1d11
what was asked for  destroy version 1 of the tenant's key at once; 2 sessions are lost with it
expires             2026-07-02T12:00:00.000Z
approver needs      keys-destroy,keys-destroy-now
approver runs       strongroom approval approve 01a0c450-6c00-71f6-94f6-d07ee3cf1d11
";
    assert_eq!(run.text(), expected);
    let hint = format!(
        "hint: it was asked for: somebody else runs 'strongroom approval approve {ID}', then you run the same command again, all \
         until 2026-07-02T12:00:00.000Z\n"
    );
    assert!(run.err.ends_with(&hint), "{run:?}");
    assert!(run.err.starts_with("error: cannot destroy the version: "), "{run:?}");

    let run = strongroom(fake.dir(), words.iter().chain(&["--output", "json"])).fails(1);
    let expected = json!({
        "approval": ID, "description": WHAT, "expires": "2026-07-02T12:00:00.000Z",
        "scopes": ["keys-destroy", "keys-destroy-now"], "command": format!("strongroom approval approve {ID}"),
    });
    assert_eq!(run.json(), expected);
}

#[test]
fn what_waits_is_listed_and_what_has_ended_when_that_is_asked_for() {
    let fake = Fake::start();
    assert_eq!(approval(&fake, &["list", "--output", "json"]).ok().json(), json!([]));
    let states = [State::Waiting, State::Approved, State::Denied, State::Used, State::Expired];
    fake.approvals_will_be(states.map(at));
    let expected = "\
APPROVAL                              STATE     TENANT  REQUESTER  EXPIRES                   DESCRIPTION
01a0c450-6c00-71f6-94f6-d07ee3cf1d11  waiting   demo    token:ops  2026-07-02T12:00:00.000Z  destroy version 1 of the tenant's key at once; 2 sessions are lost with it
01a0c450-6c00-71f6-94f6-d07ee3cf1d11  approved  demo    token:ops  2026-07-02T12:00:00.000Z  destroy version 1 of the tenant's key at once; 2 sessions are lost with it
";
    assert_eq!(approval(&fake, &["list"]).ok().text(), expected);
    let all = approval(&fake, &["list", "--all", "--output", "json"]).ok().json();
    let found: Vec<_> = all.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(found, ["waiting", "approved", "denied", "used", "expired"]);
}

#[test]
fn an_approval_is_shown_with_all_there_is_to_know() {
    let fake = Fake::start();
    let decided = prost_types::Timestamp { seconds: 1_782_907_260, nanos: 0 };
    fake.approvals_will_be([v1::Approval {
        decider: "token:chief".to_owned(),
        decide_time: Some(decided),
        ..at(State::Denied)
    }]);
    let expected = "\
approval        01a0c450-6c00-71f6-94f6-d07ee3cf1d11
state           denied
operation       key.destroy
tenant          demo
description     destroy version 1 of the tenant's key at once; 2 sessions are lost with it
approver needs  keys-destroy,keys-destroy-now
requester       token:ops
asked           2026-07-01T12:00:00.000Z
expires         2026-07-02T12:00:00.000Z
decider         token:chief
decided         2026-07-01T12:01:00.000Z
used            -
";
    assert_eq!(approval(&fake, &["describe", ID]).ok().text(), expected);
    let expected = json!({
        "approval": ID, "state": "denied", "operation": "key.destroy", "tenant": "demo", "description": WHAT,
        "scopes": ["keys-destroy", "keys-destroy-now"], "requester": "token:ops", "asked": fake::TIME,
        "expires": "2026-07-02T12:00:00.000Z", "decider": "token:chief", "decided": "2026-07-01T12:01:00.000Z", "used": null,
    });
    assert_eq!(approval(&fake, &["describe", ID, "--output", "json"]).ok().json(), expected);
    approval(&fake, &["describe", "00000000-0000-4000-8000-000000000000"]).fails(3);
}

#[test]
fn who_approves_sees_what_will_be_done_and_types_the_tenants_name() {
    let fake = Fake::start();
    fake.approvals_will_be([at(State::Waiting)]);
    let approve = ["approval", "approve", ID];
    let run = strongroom(fake.dir(), approve).fails(1);
    assert!(run.err.contains("standard input is not a terminal"), "{run:?}");
    for typed in ["\n", "yes\n", "demo/1\n", "other\n"] {
        let run = strongroom_at_terminal(fake.dir(), approve, typed).fails(1);
        let question = "token:ops wants to do this to the tenant demo:\n  destroy version 1 of the tenant's key at once; 2 \
            sessions are lost with it\nIt was asked for at 2026-07-01T12:00:00.000Z and can be done once, until \
            2026-07-02T12:00:00.000Z.\nType demo to go on:";
        assert!(run.err.contains(question), "{run:?}");
    }
    assert_eq!(fake.calls_of("approve"), 0);
    let run = strongroom_at_terminal(fake.dir(), approve, "demo\n").ok();
    assert!(run.text().contains("state           approved\n"), "{run:?}");
    let said =
        "token:ops can go ahead until 2026-07-02T12:00:00.000Z, once, by running the same command again.\n";
    assert!(run.err.ends_with(said), "{run:?}");
    strongroom(fake.dir(), approve.iter().chain(&["--yes", "--quiet"])).ok();
    assert_eq!(fake.calls_of("approve"), 2);
    let run = approval(&fake, &["deny", ID]).ok();
    assert!(run.text().contains("state           denied\n"), "{run:?}");
}

#[test]
fn what_is_done_to_the_server_itself_is_confirmed_by_the_name_of_the_approval() {
    let fake = Fake::start();
    fake.approvals_will_be([v1::Approval { tenant: String::new(), ..at(State::Waiting) }]);
    let run = strongroom_at_terminal(fake.dir(), ["approval", "approve", ID], &format!("{ID}\n")).ok();
    assert!(run.err.contains("wants to do this to the server itself:"), "{run:?}");
}

#[test]
fn refusals_say_what_to_do() {
    let fake = Fake::start();
    fake.approvals_will_be([at(State::Waiting)]);
    let state = fake::refused(Code::FailedPrecondition, "APPROVAL_STATE", &[("state", "expired")]);
    let own = fake::refused(Code::PermissionDenied, "APPROVAL_OWN", &[]);
    for (status, hint) in [(state, "asks anew"), (own, "somebody else must approve it")] {
        fake.refuse("approve", status);
        let run = approval(&fake, &["approve", ID, "--yes"]).fails(1);
        assert!(run.err.contains(hint), "{run:?}");
        assert_eq!(run.text(), "");
    }
}

/// The lines of the run-book: who runs what.
fn run_book() -> Vec<(String, Vec<String>)> {
    let text = include_str!("../../keys/README.md");
    let section = text.split_once("## Two people for what cannot be undone").unwrap().1;
    let block = section.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    let mut person = String::new();
    let mut lines = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => person = comment.split([' ', ':']).next().unwrap().to_owned(),
            None => {
                let words = line.strip_prefix("strongroom ").unwrap().split(' ');
                lines.push((person.clone(), words.map(str::to_owned).collect()));
            }
        }
    }
    lines
}

#[test]
fn the_run_book_for_two_people_works_as_it_is_written() {
    let mut server = DevServer::start();
    let dir = server.dir().to_owned();
    for _ in 0..2 {
        strongroom(&dir, ["session", "create", "--ttl", "20d"]).ok();
    }
    strongroom(&dir, ["key", "rotate"]).ok();
    // In dev mode one is enough.
    strongroom(&dir, ["key", "destroy", "1", "--force", "--sessions", "2", "--yes"]).ok();
    strongroom(&dir, ["key", "cancel-destroy", "1"]).ok();
    server.kill();
    server.serve_with_approvals();

    let (mut id, mut runs) = (String::new(), Vec::new());
    for (person, words) in run_book() {
        let mut words: Vec<String> = words.into_iter().map(|word| word.replace("APPROVAL", &id)).collect();
        let command = words[..2].join(" ");
        if person != "admin" {
            words.extend(["--token-file".to_owned(), format!("{person}.token")]);
        }
        let typed = if command == "approval approve" { "demo\n" } else { "demo/1\n" };
        let run = strongroom_at_terminal(&dir, &words, typed);
        if let Some(line) = run.text().lines().find_map(|line| line.strip_prefix("approval            ")) {
            id = line.to_owned();
        }
        runs.push((person, command, run));
    }
    let said: Vec<_> =
        runs.iter().map(|(person, command, run)| (person.as_str(), command.as_str(), run.code)).collect();
    assert_eq!(
        said,
        [
            ("admin", "token create", 0),
            ("admin", "token create", 0),
            ("ops", "key destroy", 0),
            ("ops", "key destroy", 1),
            ("ops", "approval approve", 1),
            ("chief", "approval list", 0),
            ("chief", "approval describe", 0),
            ("chief", "approval approve", 0),
            ("ops", "key destroy", 0),
            ("ops", "approval describe", 0),
            ("chief", "key cancel-destroy", 0),
        ],
        "{runs:?}"
    );
    let text = |at: usize| runs[at].2.text();
    assert!(text(3).contains("after a grace of 7days; 2 sessions are lost with it"), "{runs:?}");
    assert!(runs[4].2.err.contains("APPROVAL_OWN"), "{runs:?}");
    assert!(text(5).contains(&id) && text(6).contains("requester       token:ops"), "{runs:?}");
    assert!(text(8).contains("destroy-scheduled"), "{runs:?}");
    assert!(
        text(9).contains("state           used") && text(9).contains("decider         token:chief"),
        "{runs:?}"
    );
}
