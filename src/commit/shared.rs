//! What the committer's thread shares with its callers and with the thread that watches it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::Fault;
use super::queue::{Answer, Queue};
use super::stats::Counters;
use crate::audit::{Frontier, Log, LogName};
use crate::model::{Duration, TenantId};

/// In how many steps a call to the engine is watched.
const STEPS: u32 = 10;

pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) counters: Counters,
    /// Groups committed.
    pub(super) progress: watch::Sender<u64>,
    /// The logs that grew since somebody asked, as they were last committed; `None`: nobody asks.
    grown: Mutex<Option<BTreeMap<LogName, Frontier>>>,
    fault: watch::Sender<Option<Fault>>,
    ended: watch::Sender<bool>,
    /// The number of the call to the engine that is under way; 0: none is.
    call: AtomicU64,
    calls: AtomicU64,
    /// The runtime in which callers wait, if they share one.
    callers: Option<Handle>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            counters: Counters::default(),
            progress: watch::Sender::new(0),
            grown: Mutex::default(),
            fault: watch::Sender::new(None),
            ended: watch::Sender::new(false),
            call: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            callers: Handle::try_current().ok(),
        }
    }
}

impl Shared {
    /// Hands answers to those who wait for them.
    ///
    /// It is done inside the callers' runtime: one wake-up from this thread a group, and not one an answer.
    pub(super) fn release(&self, answers: Vec<(oneshot::Sender<Answer>, Answer)>) {
        let release = move || {
            for (waiting, answer) in answers {
                // A caller that has gone away meanwhile does not want to know.
                drop(waiting.send(answer));
            }
        };
        match &self.callers {
            Some(callers) => drop(callers.spawn(async move { release() })),
            None => release(),
        }
    }

    /// Takes the logs that grew since the last call. The first call begins to take notice of them.
    pub(super) fn take_grown(&self) -> BTreeMap<LogName, Frontier> {
        self.grown().replace(BTreeMap::new()).unwrap_or_default()
    }

    /// Takes notice of logs as they are on disk.
    pub(super) fn note_grown<'a>(&self, logs: impl Iterator<Item = (TenantId, &'a Log)>) {
        if let Some(grown) = &mut *self.grown() {
            let name = |tenant, log: &Log| LogName { tenant, epoch: log.epoch() };
            grown.extend(logs.map(|(tenant, log)| (name(tenant, log), log.frontier().clone())));
        }
    }

    fn grown(&self) -> MutexGuard<'_, Option<BTreeMap<LogName, Frontier>>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops everything: callers that wait and callers to come get no answer. The first fault stands.
    pub(super) fn fail(&self, fault: Fault) {
        self.queue.abandon();
        self.fault.send_if_modified(|found| {
            let first = found.is_none();
            found.get_or_insert(fault);
            first
        });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.fault.borrow().is_some()
    }

    /// Waits for a fault.
    pub(super) async fn fault(&self) -> Fault {
        let mut fault = self.fault.subscribe();
        let found = fault.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        match found {
            Some(fault) => fault,
            // The sender lives as long as `self`, so there is a fault whenever the wait ends.
            None => std::future::pending().await,
        }
    }

    /// Says that the committer's thread has ended.
    pub(super) fn end(&self) {
        self.queue.abandon();
        self.ended.send_replace(true);
    }

    /// Waits until the committer's thread has ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // An error means that the sender is gone, and the thread with it.
        ended.wait_for(|ended| *ended).await.ok();
    }

    /// Runs a call to the engine under watch.
    pub(super) async fn watched<T>(&self, call: impl Future<Output = T>) -> T {
        self.call.store(self.calls.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
        let answer = call.await;
        self.call.store(0, Ordering::Release);
        answer
    }

    /// Watches the calls to the engine until `alive` is dropped; one that takes longer than `stuck` is a fault.
    ///
    /// Counts steps and not the time, so that a machine that was suspended is not taken for one that is stuck.
    pub(super) fn watch(&self, stuck: Duration, alive: &Receiver<()>) {
        let mut seen = 0;
        let mut steps = 0;
        while alive.recv_timeout(stuck / STEPS) == Err(RecvTimeoutError::Timeout) {
            let call = self.call.load(Ordering::Acquire);
            if call == 0 || call != seen {
                (seen, steps) = (call, 0);
                continue;
            }
            steps += 1;
            if steps >= STEPS {
                self.fail(Fault::Stuck);
                return;
            }
        }
    }
}
