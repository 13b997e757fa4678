//! An access log as evidence: exported from a running server, verified without it, and never again after a change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::installation::Installation;

/// More events than one tile holds.
const CALLS: u64 = 260;

/// A server whose log of `demo` is exported to `log`; its key is in `log.key`.
fn exported() -> Installation {
    exported_as("tiles")
}

/// The same in one of the formats.
fn exported_as(format: &str) -> Installation {
    let mut site = Installation::new();
    site.serve();
    for _ in 0..CALLS {
        site.strongroom("session list").ok();
    }
    fs::write(site.path("log.key"), site.strongroom("audit key").ok().out).unwrap();
    site.strongroom(&format!("audit export log --key log.key --format {format}")).ok();
    site
}

/// What happens to a file.
#[derive(Debug, Clone, Copy)]
enum Change {
    Flip,
    Cut,
    Lengthen,
    Empty,
}

impl Change {
    fn applied(self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        match self {
            Self::Flip => bytes[whole.len() / 2] ^= 1,
            Self::Cut => bytes.truncate(whole.len() - 1),
            Self::Lengthen => bytes.push(0),
            Self::Empty => bytes.clear(),
        }
        bytes
    }
}

/// All files in a directory and below.
fn files(directory: &Path) -> Vec<PathBuf> {
    let (directories, mut found): (Vec<_>, Vec<_>) =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).partition(|path| path.is_dir());
    found.extend(directories.iter().flat_map(|directory| files(directory)));
    found
}

const VERIFY: &str = "audit verify log --key log.key --output json";

/// Nothing in an export can be changed, taken away or added without being found.
fn withstands_changes(format: &str, files_at_least: usize) {
    let mut site = exported_as(format);
    site.stop();
    let verified = site.strongroom(VERIFY).ok().json();
    assert!(verified["events"].as_u64().unwrap() > CALLS, "{verified}");

    let all = files(&site.path("log"));
    assert!(all.len() >= files_at_least, "{all:?}");
    for path in all {
        let whole = fs::read(&path).unwrap();
        for change in [Change::Flip, Change::Cut, Change::Lengthen, Change::Empty] {
            fs::write(&path, change.applied(&whole)).unwrap();
            let run = site.strongroom(VERIFY).fails(5);
            assert!(
                run.err.contains("the log is not as it was signed: ") || path.ends_with("checkpoint"),
                "{change:?}: {run:?}"
            );
        }
        fs::write(&path, &whole).unwrap();
        let is_derived = ["events.cef", "events.ocsf.ndjson"].iter().any(|name| path.ends_with(name));
        if !path.ends_with("checkpoint") && !is_derived {
            fs::remove_file(&path).unwrap();
            assert_eq!(site.strongroom(VERIFY).code, 5, "removed {}", path.display());
            fs::write(&path, &whole).unwrap();
        }
    }
    for surplus in ["note", "tile/0/007", "tile/note"] {
        fs::write(site.path("log").join(surplus), b"").unwrap();
        let run = site.strongroom(VERIFY).fails(5);
        assert!(run.err.contains(&format!("{surplus} belongs to no part of the log")), "{run:?}");
        fs::remove_file(site.path("log").join(surplus)).unwrap();
    }
    site.strongroom(VERIFY).ok();
}

#[test]
fn an_export_verifies_without_the_server_and_no_longer_when_any_file_was_changed() {
    withstands_changes("tiles", 6);
}

#[test]
fn an_export_in_ocsf_is_held_to_the_lines_that_were_signed() {
    withstands_changes("ocsf", 6);
}

#[test]
fn an_export_in_cef_is_held_to_the_lines_that_were_signed() {
    withstands_changes("cef", 6);
}

#[test]
fn lines_that_are_dropped_doubled_swapped_or_cut_off_are_named() {
    let mut site = exported_as("ndjson");
    site.stop();
    let path = site.path("log").join("events.ndjson");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let last = lines.len() - 1;
    assert!(last > 256);
    let changed = |at: usize, change: &str| {
        let mut lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        match change {
            "drop" => drop(lines.remove(at)),
            "double" => lines.insert(at, lines[at - 1].clone()),
            "swap" => lines.swap(at, at + 1),
            "edit" => lines[at] = lines[at].replace("\"out\":\"ok\"", "\"out\":\"deny\""),
            _ => lines.truncate(at),
        }
        lines.concat()
    };
    for at in [1, 100, 255, 256, last - 2] {
        for change in ["drop", "double", "swap", "edit", "cut"] {
            fs::write(&path, changed(at, change)).unwrap();
            let run = site.strongroom(VERIFY).fails(5);
            assert!(run.err.contains(&format!("event {at} is ")), "{change} {at}: {run:?}");
        }
    }
    fs::write(&path, format!("{whole}{}\n", lines[last])).unwrap();
    let run = site.strongroom(VERIFY).fails(5);
    assert!(run.err.contains(&format!("event {} is more than was signed", last + 1)), "{run:?}");
}

#[test]
fn another_key_and_another_history_under_the_same_key_are_found() {
    let mut site = exported();
    site.stop();
    let copy = site.back_up("backup");
    site.serve();
    for _ in 0..5 {
        site.strongroom("session list").ok();
    }
    fs::write(site.path("then"), site.strongroom("audit checkpoint --key log.key").ok().out).unwrap();
    site.stop();
    // The store is put back and goes on otherwise, for longer than it was: the key is the same.
    fs::rename(site.path("data"), site.path("first")).unwrap();
    fs::rename(copy, site.path("data")).unwrap();
    site.serve();
    for _ in 0..9 {
        site.strongroom("session list").ok();
    }
    site.strongroom("audit export other --key log.key").ok();
    site.stop();
    site.strongroom("audit verify other --key log.key").ok();
    let run = site.strongroom("audit verify other --key log.key --since then").fails(5);
    assert!(run.err.contains("not those that were signed earlier"), "{run:?}");

    let mut stranger = exported();
    stranger.stop();
    let key = stranger.path("log.key");
    fs::copy(key, site.path("stranger.key")).unwrap();
    site.strongroom("audit verify log --key stranger.key").fails(5);
}

/// The verifier in Go, built; `None`: there is no Go here, or not the reference implementation, which says so.
fn reference() -> Option<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("verify");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/reference/verify.go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([&program, &source])
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")])
        .env("GOCACHE", directory.path().join("cache"))
        .output();
    let why = match built {
        Ok(output) if output.status.success() => return Some((directory, program)),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let why = format!("skipped: golang-go and golang-golang-x-mod-dev are needed: {why}");
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("{why}");
    None
}

#[test]
fn the_reference_implementation_in_go_verifies_an_export_and_finds_what_was_changed() {
    let Some((_directory, program)) = reference() else { return };
    let mut site = exported();
    fs::write(site.path("then"), site.strongroom("audit checkpoint --key log.key").ok().out).unwrap();
    site.strongroom("session list").ok();
    site.strongroom("audit export later --key log.key").ok();
    fs::write(site.path("proof"), site.strongroom("audit proof 77 --key log.key --line line").ok().out)
        .unwrap();
    site.stop();
    let run = |arguments: &str| {
        let mut command = Command::new(&program);
        command.current_dir(site.dir()).args(arguments.split(' ')).output().unwrap()
    };
    let size = site.strongroom("audit verify later --key log.key --output json").ok().json();
    let found = run("log.key later then proof line");
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), size["events"].to_string(), "{found:?}");
    assert!(found.status.success());

    for path in files(&site.path("later")) {
        let whole = fs::read(&path).unwrap();
        for change in [Change::Flip, Change::Cut, Change::Lengthen, Change::Empty] {
            fs::write(&path, change.applied(&whole)).unwrap();
            let found = run("log.key later");
            assert!(!found.status.success(), "{change:?} of {} went unnoticed", path.display());
        }
        fs::write(&path, &whole).unwrap();
    }
    let line = fs::read(site.path("line")).unwrap();
    fs::write(site.path("line"), [&line[..], b" "].concat()).unwrap();
    assert!(!run("log.key later then proof line").status.success());
}

#[test]
fn a_log_goes_on_from_its_earlier_checkpoints_and_an_export_that_does_not_reach_one_is_refused() {
    let mut site = exported();
    let earlier = site.strongroom("audit checkpoint --key log.key").ok().out;
    fs::write(site.path("later"), &earlier).unwrap();
    site.strongroom("session list").ok();
    site.strongroom("audit checkpoint --key log.key --since later").ok();
    site.strongroom("audit export longer --key log.key").ok();
    site.stop();
    site.strongroom("audit verify longer --key log.key --since later").ok();
    site.strongroom("audit verify longer --key log.key --since log/checkpoint").ok();
    assert_eq!(site.strongroom("audit verify log --key log.key --since later").code, 5);
}

#[test]
fn an_event_is_proven_to_be_in_the_log() {
    let mut site = exported();
    let proof = site.strongroom("audit proof 3 --key log.key --line line").ok().out;
    site.stop();
    let proof = String::from_utf8(proof).unwrap();
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\nindex 3\n"), "{proof}");
    let line = fs::read(site.path("line")).unwrap();
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(line["seq"], 3);
}
