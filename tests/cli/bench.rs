//! The load generator and the replay, against a server in memory that can be made to lie.

use std::fs;

use crate::command::{Run, strongroom};
use crate::fake::{self, Fake, Lie};

const RECORDING: &str = concat!(
    r#"{"session":"one","messages":[{"role":"user","content":"h\u00e4llo"},{"role": "assistant", "content":"hunter2"},"#,
    r#"{"role":"tool","tool_call_id":"t1","content":"42 degrees"}]}"#,
    "\n",
    r#"{"session":"two","messages":[{"role":"user","content":""}]}"#,
    "\n",
    r#"{"session":"empty","messages":[]}"#,
    "\n"
);

fn replay(fake: &Fake, words: &[&str]) -> Run {
    fs::write(fake.dir().join("recorded.jsonl"), RECORDING).unwrap();
    let all = ["bench", "--replay", "recorded.jsonl", "--quiet"].into_iter().chain(words.iter().copied());
    strongroom(fake.dir(), all)
}

fn verify(fake: &Fake) -> Run {
    let words = ["bench", "--verify-only", "--manifest", "run.json", "--quiet", "--output", "json"];
    strongroom(fake.dir(), words)
}

#[test]
fn a_replay_stores_every_message_as_an_event_and_every_result_as_an_entry() {
    let fake = Fake::start();
    let report =
        replay(&fake, &["--manifest", "run.json", "--output", "json", "--owner", "alice"]).ok().json();
    for (name, expected) in [("sessions", 3), ("events", 4), ("entries", 1)] {
        assert_eq!(report[name], expected, "{name}");
    }
    assert_eq!(report["equal"], true);
    assert_eq!(report["stored"]["operations"], 5);
    let lines: Vec<&str> = RECORDING.lines().collect();
    let events = fake.events();
    assert!(
        events
            .iter()
            .all(|event| lines.iter().any(|line| line.contains(std::str::from_utf8(event).unwrap())))
    );
    assert_eq!(
        events.iter().map(Vec::len).sum::<usize>() + fake.entries()[0].len(),
        usize::try_from(report["bytes"].as_u64().unwrap()).unwrap()
    );
    assert_eq!(verify(&fake).ok().json()["workload"], "verify");
}

#[test]
fn a_manifest_holds_no_content() {
    let fake = Fake::start();
    replay(&fake, &["--manifest", "run.json"]).ok();
    let manifest = fs::read_to_string(fake.dir().join("run.json")).unwrap();
    for content in ["hunter2", "degrees", "llo"] {
        assert!(!manifest.contains(content), "{content}");
    }
}

#[test]
fn without_a_manifest_the_sessions_of_a_replay_are_deleted() {
    let fake = Fake::start();
    replay(&fake, &[]).ok();
    assert_eq!(fake.sessions(), 0);
    replay(&fake, &["--keep"]).ok();
    assert_eq!(fake.sessions(), 3);
}

#[test]
fn each_kind_of_difference_is_found_and_named_without_content() {
    for (lie, expected) in [
        (Lie::ChangeEvent, "differs: 42 bytes were stored, 42 bytes were read"),
        (Lie::ShortenEvent, "differs: 42 bytes were stored, 41 bytes were read"),
        (Lie::LoseLastEvent, "is missing"),
        (Lie::SwapEvents, " instead of "),
        (Lie::AddEvent, "was never stored"),
        (Lie::ChangeEntry, "entry tool-result/00002 differs"),
        (Lie::LoseEntry, "entry tool-result/00002 (58 bytes) is missing"),
        (Lie::AddEntry, "entry stray was never stored"),
    ] {
        let fake = Fake::start();
        replay(&fake, &["--manifest", "run.json"]).ok();
        fake.lie(lie);
        let run = verify(&fake).fails(1);
        assert!(run.err.contains(expected) && run.err.contains("recorded as one"), "{lie:?}: {run:?}");
        assert!(run.err.contains("1 of 3 sessions differ") && run.out.is_empty(), "{lie:?}: {run:?}");
        for content in ["hunter2", "degrees", "llo"] {
            assert!(!run.err.contains(content), "{lie:?}: {run:?}");
        }
        // The replay itself compares with the original bytes and finds the same.
        let again = replay(&fake, &["--keep"]).fails(1);
        assert!(again.err.contains("recorded as one"), "{lie:?}: {again:?}");
    }
}

#[test]
fn a_session_that_is_gone_is_3_and_tampering_is_5() {
    let fake = Fake::start();
    replay(&fake, &["--manifest", "run.json"]).ok();
    fake.refuse("read_events", fake::integrity_failure());
    let run = verify(&fake).fails(5);
    assert!(run.err.contains("cannot read back session srs_"), "{run:?}");
    let fake = Fake::start();
    replay(&fake, &["--manifest", "run.json"]).ok();
    fake.forget();
    verify(&fake).fails(3);
}

#[test]
fn a_recording_with_a_mistake_is_refused_before_anything_is_sent() {
    let fake = Fake::start();
    fs::write(fake.dir().join("wrong.jsonl"), format!("{RECORDING}{{\"session\":\"hunter2\"}}\n")).unwrap();
    let run = strongroom(fake.dir(), ["bench", "--replay", "wrong.jsonl"]).fails(2);
    assert!(run.err.contains("line 4") && !run.err.contains("hunter2"), "{run:?}");
    assert_eq!(fake.calls(), 0);
}

#[test]
fn a_closed_loop_does_exactly_what_was_asked_for_and_cleans_up() {
    let fake = Fake::start();
    for workload in ["read", "write", "append", "mixed"] {
        let words = [
            "bench",
            workload,
            "--operations",
            "500",
            "--concurrency",
            "8",
            "--sessions",
            "2",
            "--entries",
            "10",
            "--size",
            "64",
            "--warm-up",
            "0s",
            "--seed",
            "7",
            "--output",
            "json",
            "--quiet",
        ];
        let report = strongroom(fake.dir(), words).ok().json();
        assert_eq!(
            (&report["operations"], &report["loop_kind"]),
            (&500.into(), &"closed".into()),
            "{workload}"
        );
        assert_eq!(report["bytes"], 500 * 64, "{workload}");
        let latency = &report["latency_us"];
        let order: Vec<u64> =
            ["p50", "p90", "p99", "p99_9", "max"].map(|p| latency[p].as_u64().unwrap()).into();
        assert!(order[0] > 0 && order.is_sorted(), "{workload}: {order:?}");
        let kinds: Vec<_> = report["by_operation"].as_object().unwrap().keys().cloned().collect();
        let expected = if workload == "mixed" { vec!["append", "read", "write"] } else { vec![workload] };
        assert_eq!(kinds, expected);
        assert_eq!(fake.sessions(), 0, "{workload} left sessions behind");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let fake = Fake::start();
    let words = [
        "bench",
        "write",
        "--rate",
        "200/s",
        "--duration",
        "1s",
        "--sessions",
        "1",
        "--warm-up",
        "0s",
        "--output",
        "json",
        "--quiet",
    ];
    let report = strongroom(fake.dir(), words).ok().json();
    assert_eq!(report["operations"].as_u64().unwrap() + report["not_started"].as_u64().unwrap(), 200);
    assert_eq!(report["by_operation"]["write"]["operations"], report["operations"]);
    assert_eq!(report["loop_kind"], "open");
}

#[test]
fn a_stall_shows_in_an_open_loop_however_few_requests_it_hits() {
    let fake = Fake::start();
    fake.stall_once(std::time::Duration::from_millis(400));
    // One call in flight: all that are due during the stall wait behind it, and say so.
    let words = [
        "bench",
        "write",
        "--rate",
        "500/s",
        "--operations",
        "400",
        "--concurrency",
        "1",
        "--sessions",
        "1",
        "--warm-up",
        "0s",
        "--output",
        "json",
        "--quiet",
    ];
    let report = strongroom(fake.dir(), words).ok().json();
    assert_eq!(report["operations"], 400);
    let p90 = report["latency_us"]["p90"].as_u64().unwrap();
    assert!(p90 > 200_000, "the stall is hidden: {report}");
}

#[test]
fn errors_are_counted_by_reason_and_the_exit_code_is_1() {
    let fake = Fake::start();
    fake.refuse("put_entry", fake::permission_denied());
    let words = [
        "bench",
        "write",
        "--operations",
        "20",
        "--sessions",
        "1",
        "--warm-up",
        "0s",
        "--output",
        "json",
        "--quiet",
    ];
    let run = strongroom(fake.dir(), words).fails(1);
    assert_eq!(run.json()["errors"]["PERMISSION_DENIED"], 20);
    assert_eq!(run.json()["operations"], 0);
    assert!(run.err.contains("20 operations failed, most often with PERMISSION_DENIED"), "{run:?}");
}

#[test]
fn without_a_terminal_progress_is_plain_lines_or_none() {
    let fake = Fake::start();
    let words = ["bench", "write", "--operations", "50", "--sessions", "1", "--warm-up", "0s"];
    let run = strongroom(fake.dir(), words).ok();
    assert!(!run.err.contains('\u{1b}') && !run.err.contains('\r'), "{run:?}");
    assert!(run.text().contains("throughput"), "{run:?}");
}
