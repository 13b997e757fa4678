//! What the process asks of the operating system for its own protection.
//!
//! It stands in `env` because it speaks to the system alone, needs nothing else of this crate, and must run before
//! anything else does. It keeps keys out of core files, swap and debuggers; it does not protect against root, the kernel
//! or whoever can read the machine's memory.

use std::fmt;
use std::fs;
use std::io;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};

/// One defence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// No core image, and no debugger but root's: `PR_SET_DUMPABLE = 0`.
    NotDumpable,
    /// No core file, of child processes neither: `RLIMIT_CORE = 0`.
    NoCoreFiles,
    /// No program that is started gains rights: `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// New files are for their owner alone: umask 077.
    PrivateFiles,
    /// No page goes to swap: `mlockall`.
    LockedMemory,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDumpable => "not dumpable",
            Self::NoCoreFiles => "no core files",
            Self::NoNewPrivileges => "no new privileges",
            Self::PrivateFiles => "private files",
            Self::LockedMemory => "locked memory",
        })
    }
}

/// Why a defence is not there.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    /// The system refused.
    #[error("the system refused: {0}")]
    Refused(#[from] io::Error),
    /// Locking was not tried: under a limit, a later allocation would fail and end the process.
    #[error("RLIMIT_MEMLOCK is {limit} bytes; it must be unlimited, or the process needs CAP_IPC_LOCK")]
    LockLimit {
        /// The limit.
        limit: u64,
    },
}

/// What was tried, and what came of it.
#[derive(Debug)]
pub struct Hardening {
    outcomes: Vec<(Measure, Result<(), HardeningError>)>,
}

impl Hardening {
    /// The defences that are there.
    pub fn achieved(&self) -> impl Iterator<Item = Measure> {
        self.outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(measure, _)| *measure)
    }

    /// The defences that are not there, and why. All but locked memory are always to be had on Linux.
    pub fn missing(&self) -> impl Iterator<Item = (Measure, &HardeningError)> {
        self.outcomes.iter().filter_map(|(measure, outcome)| Some((*measure, outcome.as_ref().err()?)))
    }
}

/// Hardens the process, as far as the system lets it, for the rest of its life.
///
/// To be called first thing in `main`, before any thread is started: threads inherit `no_new_privs` from their maker.
#[must_use]
pub fn harden() -> Hardening {
    umask(Mode::RWXG | Mode::RWXO);
    Hardening {
        outcomes: vec![
            (Measure::NotDumpable, refusal(set_dumpable_behavior(DumpableBehavior::NotDumpable))),
            (Measure::NoCoreFiles, refusal(setrlimit(Resource::Core, NOTHING))),
            (Measure::NoNewPrivileges, refusal(set_no_new_privs(true))),
            (Measure::PrivateFiles, Ok(())),
            (Measure::LockedMemory, lock_memory()),
        ],
    }
}

const NOTHING: Rlimit = Rlimit { current: Some(0), maximum: Some(0) };

fn refusal(result: Result<(), Errno>) -> Result<(), HardeningError> {
    result.map_err(|errno| HardeningError::Refused(errno.into()))
}

/// Pages are locked when they are first touched, so that reserved address space costs nothing.
fn lock_memory() -> Result<(), HardeningError> {
    let limit = getrlimit(Resource::Memlock);
    // The soft limit may be raised to the hard one by anybody.
    let raised = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit });
    let limit = if raised.is_ok() { limit.maximum } else { limit.current };
    match limit {
        Some(limit) if !is_exempt_from_limit() => Err(HardeningError::LockLimit { limit }),
        Some(_) | None => {
            refusal(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT))
        }
    }
}

/// Whether `CAP_IPC_LOCK` counts. The kernel asks for it in the first user namespace: a container's root that is mapped
/// to an ordinary user has the capability in name only.
fn is_exempt_from_limit() -> bool {
    let capable = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let uids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole_range = uids.split_whitespace().eq(["0", "0", "4294967295"]);
    capable && whole_range
}
