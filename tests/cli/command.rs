//! Runs the binary.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// What a run printed and returned.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Run {
    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard output as JSON lines.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Insists on success.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Insists on this code, and on an error with a hint.
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains("error: "), "{self:?}");
        self
    }
}

/// Runs `strongroom` in `dir` with an environment that names nothing.
pub fn strongroom<A: AsRef<std::ffi::OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Run {
    run(prepared(dir, args), b"")
}

/// Runs it with this standard input.
pub fn strongroom_with<A: AsRef<std::ffi::OsStr>>(
    dir: &Path,
    args: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Run {
    run(prepared(dir, args), input)
}

/// Runs it with standard input and error at a terminal, where somebody types this. Standard error is what the terminal
/// shows: what is typed is echoed there.
pub fn strongroom_at_terminal<A: AsRef<std::ffi::OsStr>>(
    dir: &Path,
    args: impl IntoIterator<Item = A>,
    typed: &str,
) -> Run {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = open(ptsname(&ours, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
    let mut command = prepared(dir, args);
    command.stdin(theirs.try_clone().unwrap()).stdout(Stdio::piped()).stderr(theirs);
    let child = command.spawn().unwrap();
    drop(command);
    let mut terminal = File::from(ours);
    terminal.write_all(typed.as_bytes()).unwrap();
    let shown = std::thread::spawn(move || {
        let mut shown = Vec::new();
        // When the last process at a terminal ends, reading from the other side fails.
        drop(terminal.read_to_end(&mut shown));
        String::from_utf8(shown).unwrap().replace("\r\n", "\n")
    });
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    Run { code: status.code().unwrap(), out: stdout, err: shown.join().unwrap() }
}

/// The command, for tests that change its environment.
pub fn prepared<A: AsRef<std::ffi::OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command
        .args(args)
        .current_dir(dir)
        .env_remove("STRONGROOM_PROFILE")
        .env_remove("COLUMNS")
        .env("HOME", dir);
    command
}

/// Runs a prepared command.
pub fn run(mut command: Command, input: &[u8]) -> Run {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A child that does not read its input closes the pipe, which is no failure of the test.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    writing.join().unwrap();
    Run { code: status.code().unwrap(), out: stdout, err: String::from_utf8(stderr).unwrap() }
}
