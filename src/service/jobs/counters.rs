//! What is counted of jobs, without locks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::service::{JobCounts, JobKind};

/// Figures since the start.
#[derive(Debug, Default)]
pub(in crate::service) struct JobCounters {
    /// Changes that jobs committed.
    commits: AtomicU64,
    kinds: [KindCounters; JobKind::ALL.len()],
}

#[derive(Debug, Default)]
struct KindCounters {
    running: AtomicU64,
    sessions: AtomicU64,
    failures: AtomicU64,
}

impl JobCounters {
    /// Counts a change that a job committed.
    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Counts what a step did.
    pub(super) fn stepped(&self, kind: JobKind, sessions: u64, failures: u64) {
        if let Some(of) = self.kind(kind) {
            of.sessions.fetch_add(sessions, Ordering::Relaxed);
            of.failures.fetch_add(failures, Ordering::Relaxed);
        }
    }

    /// Says how many jobs of each kind work.
    pub(super) fn running(&self, kinds: &[JobKind]) {
        for kind in JobKind::ALL {
            let running = kinds.iter().filter(|of| **of == kind).count();
            if let Some(of) = self.kind(kind) {
                of.running.store(running as u64, Ordering::Relaxed);
            }
        }
    }

    /// The figures of a kind.
    pub(in crate::service) fn of(&self, kind: JobKind) -> JobCounts {
        let read = |counter: fn(&KindCounters) -> &AtomicU64| {
            self.kind(kind).map_or(0, |of| counter(of).load(Ordering::Relaxed))
        };
        JobCounts {
            running: read(|of| &of.running),
            sessions: read(|of| &of.sessions),
            failures: read(|of| &of.failures),
        }
    }

    fn kind(&self, kind: JobKind) -> Option<&KindCounters> {
        let number = JobKind::ALL.iter().position(|of| *of == kind)?;
        self.kinds.get(number)
    }
}
