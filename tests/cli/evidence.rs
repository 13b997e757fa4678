//! An access log as evidence: exported from a running server, verified without it, and never again after a change.

use std::fs;
use std::path::{Path, PathBuf};

use crate::installation::Installation;

/// More events than one tile holds.
const CALLS: u64 = 260;

/// A server whose log of `demo` is exported to `log`; its key is in `log.key`.
fn exported() -> Installation {
    let mut site = Installation::new();
    site.serve();
    for _ in 0..CALLS {
        site.strongroom("session list").ok();
    }
    fs::write(site.path("log.key"), site.strongroom("audit key").ok().out).unwrap();
    site.strongroom("audit export log --key log.key").ok();
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

#[test]
fn an_export_verifies_without_the_server_and_no_longer_when_any_file_was_changed() {
    let mut site = exported();
    site.stop();
    let verify = "audit verify log --key log.key --output json";
    let verified = site.strongroom(verify).ok().json();
    assert!(verified["events"].as_u64().unwrap() > CALLS, "{verified}");

    let all = files(&site.path("log"));
    assert!(all.len() >= 6, "{all:?}");
    for path in all {
        let whole = fs::read(&path).unwrap();
        for change in [Change::Flip, Change::Cut, Change::Lengthen, Change::Empty] {
            fs::write(&path, change.applied(&whole)).unwrap();
            let run = site.strongroom(verify).fails(5);
            assert!(
                run.err.contains("the log is not as it was signed: ") || path.ends_with("checkpoint"),
                "{change:?}: {run:?}"
            );
        }
        fs::write(&path, &whole).unwrap();
        if !path.ends_with("checkpoint") {
            fs::remove_file(&path).unwrap();
            assert_eq!(site.strongroom(verify).code, 5, "removed {}", path.display());
            fs::write(&path, &whole).unwrap();
        }
    }
    site.strongroom(verify).ok();
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
