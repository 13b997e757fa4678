//! Crashes of the whole server: nothing acknowledged is lost, nothing is half-done, and the access log is that of what was done.
//!
//! Writers use a server process through the client, with retries off. The process is killed with SIGKILL (`kill`), or its files are put back to
//! what a power cut would have left (`power_cut`), and it is started again on them. Then every writer must find what it had asked for up to some
//! place not before the last acknowledgement (`workload`), and the logs must be whole and agree with the rows (`books`). A recording of sessions
//! is replayed and verified before and after a kill (`replay`). A rewrap, and new keys for all sessions, are killed again and again (`rewrap`).
//!
//! `STRONGROOM_CRASH_ROUNDS` and `STRONGROOM_POWERCUT_ROUNDS` set how many crashes there are, `STRONGROOM_CRASH_SEED` repeats the choices of a
//! run (the operating system's scheduling is not repeated), `STRONGROOM_CRASH_SERVER` names another server binary than the one that was built with
//! the tests, `STRONGROOM_REPLAY_FILE` a recording.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod books;
mod kill;
mod power_cut;
mod replay;
mod rewrap;
mod server;
#[allow(dead_code, reason = "shared with the tests of the engine")]
#[path = "../powercut/trace.rs"]
mod trace;
mod workload;

use std::path::Path;

/// A number from the environment.
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect(name))
}

/// The seed of this run, which it prints.
fn seed() -> u64 {
    let seed = variable("STRONGROOM_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("STRONGROOM_CRASH_SEED={seed}");
    seed
}

/// Copies the files of a directory that has no others but empty directories.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
