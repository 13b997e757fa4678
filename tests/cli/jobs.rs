//! Jobs: each verb, what a watch shows on the way, and what it returns at the end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom::proto::v1::{self, JobKind, JobState};
use tonic::{Code, Status};

use crate::command::{Run, strongroom, strongroom_at_terminal};
use crate::dev_server::DevServer;
use crate::fake::{self, Fake};

const UID: &str = "00000000-0000-4000-8000-000000000002";

fn job(fake: &Fake, words: &[&str]) -> Run {
    strongroom(fake.dir(), ["job"].iter().chain(words))
}

/// A job over 300 sessions that has worked for so many seconds.
fn at(kind: JobKind, state: JobState, seen: u64, seconds: i64) -> v1::Job {
    let after = |seconds| Some(prost_types::Timestamp { seconds: 1_782_907_200 + seconds, nanos: 0 });
    let ended = state != JobState::Running;
    let uses =
        |old, new| [(1, old), (2, new)].map(|(version, sessions)| v1::KekUse { version, sessions }).to_vec();
    v1::Job {
        uid: UID.to_owned(),
        kind: kind.into(),
        state: state.into(),
        create_time: after(0),
        update_time: after(seconds),
        end_time: ended.then(|| after(seconds).unwrap()),
        rate: 50,
        sessions_total: 300,
        sessions_seen: seen,
        done: seen,
        before: uses(300, 0),
        after: if ended { uses(300 - seen, seen) } else { Vec::new() },
        ..v1::Job::default()
    }
}

fn damaged(kind: JobKind, failed: u64) -> v1::Job {
    let failed_sessions = vec!["aa00".to_owned(), "bb11".to_owned()];
    v1::Job { failed, failed_sessions, ..at(kind, JobState::Done, 300, 12) }
}

#[test]
fn a_job_is_shown_with_its_rate_and_what_is_left() {
    let fake = Fake::rotated(0);
    fake.job_will_be([at(JobKind::Rewrap, JobState::Running, 100, 4)]);
    let expected = "\
kind             rewrap
state            running
sessions         100 of 300
done             100
failed           0
failed sessions  -
closed sessions  0
rate             25.0/s
rate limit       50/s
left             8s
elapsed          4s
started          2026-07-01T12:00:00.000Z
updated          2026-07-01T12:00:04.000Z
ended            -
before           version 1: 300, version 2: 0
after            -
uid              00000000-0000-4000-8000-000000000002
";
    assert_eq!(job(&fake, &["status", "rewrap"]).ok().text(), expected);
    let expected = json!({
        "uid": UID, "kind": "rewrap", "state": "running", "started": fake::TIME,
        "updated": "2026-07-01T12:00:04.000Z", "ended": null, "elapsed_seconds": 4.0, "rate_limit": 50,
        "sessions_total": 300, "sessions_seen": 100, "sessions_per_second": 25.0, "seconds_left": 8.0, "done": 100,
        "failed": 0, "failed_sessions": [], "sessions_closed": 0, "before": [{"version": 1, "sessions": 300}, {"version": 2, "sessions": 0}],
        "after": [],
    });
    assert_eq!(job(&fake, &["status", "rewrap", "--output", "json"]).ok().json(), expected);
    assert_eq!(job(&fake, &["list", "--output", "json"]).ok().json(), json!([expected]));
}

#[test]
fn the_latest_job_of_each_kind_is_listed() {
    let fake = Fake::rotated(0);
    assert_eq!(job(&fake, &["list", "--output", "json"]).ok().json(), json!([]));
    fake.job_will_be([at(JobKind::Rewrap, JobState::Done, 300, 120)]);
    fake.job_will_be([at(JobKind::Scrub, JobState::Running, 0, 0)]);
    let expected = "\
KIND    STATE    SESSIONS    DONE  FAILED  RATE   LEFT  ELAPSED  STARTED
rewrap  done     300 of 300  300   0       2.5/s  -     2m       2026-07-01T12:00:00.000Z
scrub   running  0 of 300    0     0       -      -     0s       2026-07-01T12:00:00.000Z
";
    assert_eq!(job(&fake, &["list"]).ok().text(), expected);
    strongroom(fake.dir(), ["tenant", "create", "acme"]).ok();
    job(&fake, &["list", "--tenant", "acme"]).ok();
    job(&fake, &["list", "--tenant", "nobody"]).fails(3);
}

#[test]
fn a_started_job_says_how_it_is_watched() {
    let fake = Fake::rotated(2);
    let run = job(&fake, &["start", "rewrap", "--rate", "7", "--output", "json"]).ok();
    let started = run.json();
    assert_eq!((&started["state"], &started["rate_limit"]), (&json!("running"), &json!(7)));
    assert_eq!(started["before"], json!([{"version": 1, "sessions": 2}, {"version": 2, "sessions": 0}]));
    assert_eq!((&started["sessions_per_second"], &started["ended"]), (&Value::Null, &Value::Null));
    assert_eq!(fake.last_rate(), Some(7));
    let watch = "strongroom job watch rewrap --tenant demo";
    assert_eq!(run.err, format!("See how far it is: {watch}\n"));
    // What it says is what works.
    strongroom(fake.dir(), watch.split(' ').skip(1)).ok();
    let again = job(&fake, &["start", "scrub"]).ok();
    assert!(again.text().contains("rate limit       -\n"), "{again:?}");
}

#[test]
fn a_started_job_is_watched_to_its_end_at_once() {
    let fake = Fake::rotated(3);
    let run = job(&fake, &["start", "rewrap", "--watch"]).ok();
    assert_eq!(run.err, "rewrap: 0 of 3 sessions\n");
    for line in [
        "state            done\n",
        "sessions         3 of 3\n",
        "rate             1.5/s\n",
        "before           version 1: 3, version 2: 0\n",
        "after            version 1: 0, version 2: 3\n",
    ] {
        assert!(run.text().contains(line), "{line}: {run:?}");
    }
    assert_eq!(
        strongroom(fake.dir(), ["key", "census"]).ok().text(),
        "VERSION  SESSIONS\n1        0\n2        3\n"
    );
}

#[test]
fn a_second_job_of_a_kind_is_refused_with_what_to_do() {
    let fake = Fake::rotated(0);
    fake.job_will_be([at(JobKind::Scrub, JobState::Running, 1, 1)]);
    let run = job(&fake, &["start", "scrub", "--watch"]).fails(1);
    let expected = "error: nothing was done: a scrub of the tenant demo works already\n\
                    hint: 'strongroom job watch scrub --tenant demo' shows how far it is, \
                    'job cancel scrub --tenant demo' ends it\n";
    assert_eq!(run.err, expected);
    assert!(run.out.is_empty(), "{run:?}");
    assert_eq!(fake.calls_of("get_job"), 0);
}

#[test]
fn a_watch_shows_how_far_it_is_and_then_the_job_as_it_ended() {
    let fake = Fake::rotated(0);
    let steps =
        || [at(JobKind::Rewrap, JobState::Running, 100, 4), at(JobKind::Rewrap, JobState::Done, 300, 12)];
    fake.job_will_be(steps());
    let run = job(&fake, &["watch", "rewrap", "--output", "json"]).ok();
    assert_eq!(run.err, "rewrap: 100 of 300 sessions, 25/s, 8s left\n");
    let ended = run.json();
    assert_eq!((&ended["state"], &ended["ended"]), (&json!("done"), &json!("2026-07-01T12:00:12.000Z")));
    assert_eq!(ended["after"], json!([{"version": 1, "sessions": 0}, {"version": 2, "sessions": 300}]));
    assert_eq!((&ended["seconds_left"], &ended["sessions_per_second"]), (&Value::Null, &json!(25.0)));
    fake.job_will_be(steps());
    assert_eq!(job(&fake, &["watch", "rewrap", "--quiet"]).ok().err, "");
}

#[test]
fn at_a_terminal_a_watch_draws_a_bar() {
    let fake = Fake::rotated(0);
    let running = || at(JobKind::Rewrap, JobState::Running, 150, 4);
    fake.job_will_be([running(), running(), at(JobKind::Rewrap, JobState::Done, 300, 12)]);
    let run = strongroom_at_terminal(fake.dir(), ["job", "watch", "rewrap"], "").ok();
    assert!(run.err.contains("rewrap [===============>              ]  50%"), "{run:?}");
    assert!(run.err.contains("150 of 300 sessions, 38/s, 4s left"), "{run:?}");
    assert!(run.text().starts_with("kind             rewrap\nstate            done\n"), "{run:?}");
}

#[test]
fn a_watch_of_what_has_ended_ends_at_once() {
    let fake = Fake::rotated(0);
    fake.job_will_be([at(JobKind::Rewrap, JobState::Cancelled, 100, 4)]);
    let run = job(&fake, &["watch", "rewrap"]).ok();
    assert_eq!(run.err, "It was cancelled before it came to the end.\n");
    assert!(run.text().contains("after            version 1: 200, version 2: 100\n"), "{run:?}");
    assert_eq!(fake.calls_of("get_job"), 1);
}

#[test]
fn a_watch_returns_1_for_sessions_that_a_rewrap_could_not_open_and_5_for_records_of_a_scrub() {
    let fake = Fake::rotated(0);
    for (kind, code, error) in [
        (
            JobKind::Rewrap,
            1,
            "error: the rewrap met 2 session(s) that did not open\nhint: enable their version",
        ),
        (
            JobKind::Scrub,
            5,
            "error: the scrub met 2 record(s) that did not open\nhint: stop, keep the files as they are",
        ),
        (
            JobKind::Reencrypt,
            1,
            "error: the reencrypt met 2 session(s) that did not open\nhint: enable their version",
        ),
    ] {
        let name = kind.as_str_name().trim_start_matches("JOB_KIND_").to_lowercase();
        fake.job_will_be([damaged(kind, 2)]);
        let run = job(&fake, &["watch", &name]).fails(code);
        assert!(run.err.starts_with(error), "{run:?}");
        assert!(run.text().contains("failed           2\nfailed sessions  aa00 bb11\n"), "{run:?}");
        // To look is no failure.
        job(&fake, &["status", &name]).ok();
    }
    // What a closed version wraps is no damage.
    let closed = v1::Job { sessions_closed: 7, ..at(JobKind::Scrub, JobState::Done, 300, 12) };
    let running = v1::Job { sessions_closed: 7, ..at(JobKind::Scrub, JobState::Running, 300, 3) };
    fake.job_will_be([running, closed]);
    let run = job(&fake, &["watch", "scrub"]).ok();
    assert!(run.err.ends_with("300 of 300 sessions, 100/s, 0s left, 7 closed\n"), "{run:?}");
    assert!(run.text().contains("failed sessions  -\nclosed sessions  7\n"), "{run:?}");
    let running = v1::Job { failed: 3, ..at(JobKind::Scrub, JobState::Running, 300, 3) };
    fake.job_will_be([running, damaged(JobKind::Scrub, 3)]);
    let run = job(&fake, &["watch", "scrub"]).fails(5);
    assert!(run.err.starts_with("scrub: 300 of 300 sessions, 100/s, 0s left, 3 failed\n"), "{run:?}");
}

#[test]
fn a_job_is_cancelled_where_it_is() {
    let fake = Fake::rotated(0);
    fake.job_will_be([at(JobKind::Scrub, JobState::Running, 100, 4)]);
    let run = job(&fake, &["cancel", "scrub"]).ok();
    assert!(run.text().contains("state            cancelled\nsessions         100 of 300\n"), "{run:?}");
    let again = job(&fake, &["cancel", "scrub", "--output", "json"]).ok().json();
    assert_eq!((&again["state"], &again["ended"]), (&json!("cancelled"), &json!("2026-07-01T12:00:04.000Z")));
}

#[test]
fn a_job_that_never_was_is_3_for_each_verb() {
    let fake = Fake::rotated(0);
    for verb in ["status", "watch", "cancel"] {
        let run = job(&fake, &[verb, "rewrap"]).fails(3);
        assert!(run.err.contains("JOB_NOT_FOUND"), "{verb}: {run:?}");
        assert!(run.err.contains("hint: 'strongroom job list' shows the jobs"), "{verb}: {run:?}");
    }
}

#[test]
fn each_verb_passes_on_what_the_server_refuses() {
    let fake = Fake::rotated(0);
    for (method, words) in [
        ("start_job", &["start", "rewrap"][..]),
        ("list_jobs", &["list"]),
        ("get_job", &["status", "scrub"]),
        ("get_job", &["watch", "scrub"]),
        ("cancel_job", &["cancel", "scrub"]),
    ] {
        fake.refuse(method, fake::permission_denied());
        let run = job(&fake, words).fails(1);
        assert!(run.err.contains("hint: the token lacks the scope"), "{words:?}: {run:?}");
        assert!(run.out.is_empty(), "{words:?}: {run:?}");
    }
    fake.refuse("start_job", fake::refused(Code::InvalidArgument, "INVALID_FIELD", &[]));
    job(&fake, &["start", "rewrap", "--rate", "1000000"]).fails(1);
}

#[test]
fn a_watch_of_a_server_that_is_away_ends_when_its_patience_is_over() {
    let fake = Fake::rotated(0);
    fake.job_will_be([at(JobKind::Scrub, JobState::Running, 1, 1)]);
    fake.refuse("get_job", Status::unavailable("restarting"));
    let begun = Instant::now();
    let run = job(&fake, &["watch", "scrub", "--timeout", "1s"]).fails(4);
    assert!(run.err.contains("cannot watch the job"), "{run:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_session_gets_new_keys_and_is_told_when_that_takes_longer() {
    let fake = Fake::rotated(0);
    let session = fake.session();
    let rotate = |words: &[&str]| strongroom(fake.dir(), ["session", "rotate-key"].iter().chain(words));
    let expected = json!({ "session": session, "finished": true });
    assert_eq!(rotate(&[&session, "--output", "json"]).ok().json(), expected);
    fake.be_slow();
    assert_eq!(rotate(&[&session, "--output", "json"]).ok().json()["finished"], json!(false));
    assert!(rotate(&["nobody"]).fails(3).err.contains("SESSION_NOT_FOUND"));
}

#[test]
fn every_verb_works_against_the_real_server() {
    let server = DevServer::start();
    let dir = server.dir();
    let json = |words: &[&str]| strongroom(dir, words.iter().chain(&["--output", "json"])).ok().json();
    let session = json(&["session", "create"])["session"].as_str().unwrap().to_owned();
    strongroom(dir, ["entry", "put", &session, "k", "--value", "v"]).ok();
    strongroom(dir, ["key", "rotate"]).ok();
    let ended = json(&["job", "start", "rewrap", "--rate", "1000", "--watch"]);
    assert_eq!((&ended["state"], &ended["done"], &ended["failed"]), (&json!("done"), &json!(1), &json!(0)));
    assert_eq!(ended["before"], json!([{"version": 1, "sessions": 1}, {"version": 2, "sessions": 0}]));
    assert_eq!(ended["after"], json!([{"version": 1, "sessions": 0}, {"version": 2, "sessions": 1}]));
    assert_eq!(json(&["job", "status", "rewrap"]), ended);
    assert_eq!(json(&["job", "cancel", "rewrap"]), ended);
    json(&["job", "start", "scrub"]);
    assert_eq!(json(&["job", "watch", "scrub"])["failed"], json!(0));
    assert_eq!(json(&["session", "rotate-key", &session])["finished"], json!(true));
    let ended = json(&["job", "start", "reencrypt", "--watch"]);
    assert_eq!((&ended["state"], &ended["done"], &ended["failed"]), (&json!("done"), &json!(1), &json!(0)));
    assert_eq!(json(&["job", "list"]).as_array().unwrap().len(), 3);
    assert_eq!(strongroom(dir, ["entry", "get", &session, "k"]).ok().out, b"v");
}
