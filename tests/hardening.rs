//! The process's own defences, in a process of their own: they cannot be taken back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
use strongroom::env::process::{HardeningError, Measure, harden};

/// A field of `/proc/self/status`.
fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn what_hardening_reports_is_what_the_system_says() {
    let hardening = harden();
    let achieved: Vec<_> = hardening.achieved().collect();
    let always =
        [Measure::NotDumpable, Measure::NoCoreFiles, Measure::NoNewPrivileges, Measure::PrivateFiles];
    assert!(achieved.starts_with(&always), "{hardening:?}");

    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));

    // In a thread that was started later.
    let privileges = std::thread::spawn(|| rustix::thread::no_new_privs().unwrap()).join().unwrap();
    assert!(privileges);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let locked = status("VmLck");
    match hardening.missing().next() {
        None => assert_ne!(locked, "0 kB"),
        Some((Measure::LockedMemory, HardeningError::LockLimit { limit })) => {
            assert_eq!((locked.as_str(), getrlimit(Resource::Memlock).current), ("0 kB", Some(*limit)));
        }
        Some((Measure::LockedMemory, HardeningError::Refused(_))) => assert_eq!(locked, "0 kB"),
        Some(other) => panic!("{other:?}"),
    }
}
