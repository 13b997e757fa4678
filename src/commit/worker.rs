//! The committer's thread: gathers a group, stages it, gives its events their places, commits, answers.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use super::logs::{Folding, LogId, Logs, id};
use super::queue::{Answer, Pending};
use super::shared::Shared;
use super::stage::{Judgement, Stage, losers};
use super::stats::add;
use super::{CommitError, Fault, Receipt, StartError};
use crate::audit::{Extension, Log, LogKeys};
use crate::env::{Clock, Entropy};
use crate::model::limits::{COMMIT_GROUP_BYTES, RACE_RETRIES};
use crate::model::{Duration, TenantId};
use crate::store::{Batch, CommitOutcome, EngineError, Key, StorageEngine, Table, keys};

pub(super) struct Worker {
    engine: Arc<dyn StorageEngine>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    shared: Arc<Shared>,
    logs: Logs,
}

/// The changes of a group, each with its answer as soon as that is known.
struct Group<'a> {
    pending: &'a [Pending],
    answers: Vec<Option<Answer>>,
    /// How often another writer of a log was faster.
    lost_heads: usize,
}

/// What of a group goes to the engine.
struct Staged {
    batch: Batch,
    accepted: Vec<usize>,
    lost: Vec<(usize, Vec<Key>)>,
}

/// The logs of a group as they are once it is committed, and the place of each accepted change.
struct Extended {
    logs: BTreeMap<LogId, (Arc<LogKeys>, Log)>,
    receipts: Vec<(usize, Receipt)>,
}

/// Bundles that are folded with a group, and the rows that this relies on.
struct Folded {
    keys: Arc<LogKeys>,
    bundles: u64,
    expected: BTreeSet<Key>,
}

impl Worker {
    pub(super) fn new(
        engine: Arc<dyn StorageEngine>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { engine, clock, entropy, shared, logs: Logs::default() }
    }

    /// Starts the thread, and the one that watches it.
    pub(super) fn start(self, stuck: Duration) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (alive, watched) = mpsc::channel();
        let watcher = Arc::clone(&self.shared);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        thread("commit-watch").spawn(move || watcher.watch(stuck, &watched))?;
        thread("commit").spawn(move || {
            let _ending = Ending { shared: Arc::clone(&self.shared), _alive: alive };
            runtime.block_on(self.run());
        })?;
        Ok(())
    }

    async fn run(mut self) {
        let mut group = Vec::new();
        // The size of the largest group of late: it shrinks by an eighth with each that is smaller.
        let mut expected = 0;
        while self.shared.queue.gather(&mut group, expected).await {
            expected = group.len().max(expected - expected / 8);
            let done = self.commit_group(&mut group).await;
            if let Err(fault) = done {
                self.shared.fail(fault);
            }
            if self.shared.has_failed() {
                return;
            }
        }
    }

    /// Commits a group and empties it.
    async fn commit_group(&mut self, pending: &mut Vec<Pending>) -> Result<(), Fault> {
        self.logs.begin_group();
        let mut group = Group::new(pending);
        loop {
            self.open_logs(&mut group).await;
            let mut staged = group.stage();
            if staged.accepted.is_empty() {
                break;
            }
            let Some(extended) = self.extend_logs(&group, &mut staged) else {
                group.fail_all(|_| CommitError::AuditUnavailable);
                break;
            };
            let folded = self.fold(&mut staged).await;
            if self.attempt(&mut group, staged, extended, folded).await? {
                break;
            }
        }
        let answers = group.answers;
        self.settle(pending, answers);
        Ok(())
    }

    /// Opens the logs of the group; answers the changes whose log cannot be written.
    async fn open_logs(&mut self, group: &mut Group<'_>) {
        let failed = self.shared.watched(self.logs.open(group.unanswered(), &*self.engine)).await;
        add(&self.shared.counters.log_failures, failed.len());
        for log in failed {
            group.fail_log(log);
        }
        for (pending, answer) in group.pending.iter().zip(&mut group.answers) {
            let stale = pending.lines.iter().find(|(log, _)| self.logs.is_stale(log));
            if let (Some((log, _)), None) = (stale, &answer) {
                *answer = Some(Err(CommitError::Conflict(vec![keys::log_head(log.tenant.id)])));
            }
        }
    }

    /// Gives the events of the accepted changes their places, and adds the rows of their logs to the batch. `None`: there is
    /// no entropy to seal them.
    fn extend_logs(&self, group: &Group<'_>, staged: &mut Staged) -> Option<Extended> {
        let now = self.clock.now();
        let mut extensions: BTreeMap<LogId, Extension> = BTreeMap::new();
        let mut receipts = Vec::with_capacity(staged.accepted.len());
        for index in &staged.accepted {
            for (log, line) in &group.pending.get(*index)?.lines {
                let extension = match extensions.entry(id(log.tenant)) {
                    Entry::Occupied(found) => found.into_mut(),
                    Entry::Vacant(new) => new.insert(self.logs.extend(log, now)?),
                };
                let receipt = Receipt { log: log.name(), sequence: extension.push(line) };
                match receipts.last_mut() {
                    Some((last, place)) if last == index => *place = receipt,
                    _ => receipts.push((*index, receipt)),
                }
            }
        }
        let mut logs = BTreeMap::new();
        for (id, extension) in extensions {
            let keys = Arc::clone(extension.keys());
            logs.insert(id, (keys, extension.seal(&mut staged.batch, &*self.entropy).ok()?));
        }
        Some(Extended { logs, receipts })
    }

    /// Adds the rows of a fold to the batch, when one is due.
    async fn fold(&mut self, staged: &mut Staged) -> Option<Folded> {
        if staged.batch.bytes() > COMMIT_GROUP_BYTES {
            return None;
        }
        let Folding { keys, fold } = self.shared.watched(self.logs.fold(&*self.engine)).await?;
        let (bundles, expected) = (fold.bundles(), fold.expected(&keys).collect());
        let mut batch = Batch::default();
        fold.seal(&keys, &mut batch, &*self.entropy).ok()?;
        staged.batch.expect.append(&mut batch.expect);
        staged.batch.put.append(&mut batch.put);
        staged.batch.delete.append(&mut batch.delete);
        Some(Folded { keys, bundles, expected })
    }

    /// Hands the batch to the engine. Returns whether the group is through; otherwise it is staged again without those who
    /// lost.
    async fn attempt(
        &mut self,
        group: &mut Group<'_>,
        staged: Staged,
        extended: Extended,
        folded: Option<Folded>,
    ) -> Result<bool, Fault> {
        let Staged { batch, accepted, lost } = staged;
        let bytes = batch.bytes();
        let began = self.clock.now();
        let outcome = self.shared.watched(self.engine.commit(batch)).await;
        self.shared.counters.count_latency(self.clock.now().since(began));
        match outcome {
            Ok(CommitOutcome::Committed) => {
                self.count(group, &accepted, bytes);
                group.committed(extended.receipts, lost);
                self.shared.note_grown(extended.logs.iter().map(|(id, (_, log))| (id.0, log)));
                extended.logs.into_values().for_each(|(keys, log)| self.logs.keep(&keys, log));
                folded.iter().for_each(|folded| self.logs.folded(&folded.keys, folded.bundles));
                Ok(true)
            }
            Ok(CommitOutcome::Conflict(conflicts)) => {
                let mut conflicts: BTreeSet<Key> = conflicts.into_iter().collect();
                let unfolded = folded.filter(|folded| !folded.expected.is_disjoint(&conflicts));
                if let Some(Folded { keys, expected, .. }) = unfolded {
                    self.logs.unfolded(&keys);
                    conflicts.retain(|key| !expected.contains(key));
                    if conflicts.is_empty() {
                        return Ok(false);
                    }
                }
                self.lose(group, &accepted, extended.logs.keys(), &conflicts).map(|()| false)
            }
            Err(EngineError::Full) => {
                group.fail_all(|pending| {
                    match pending.batch.put.is_empty() && pending.batch.delete.is_empty() {
                        true => CommitError::AuditUnavailable,
                        false => CommitError::Full,
                    }
                });
                Ok(true)
            }
            Err(EngineError::Busy) => {
                group.fail_all(|_| CommitError::Unavailable);
                Ok(true)
            }
            Err(error) => Err(Fault::Engine(Arc::new(error))),
        }
    }

    /// Takes those out of the group who relied on rows that are otherwise, and forgets heads that are not the newest.
    fn lose<'a>(
        &mut self,
        group: &mut Group<'_>,
        accepted: &[usize],
        logs: impl Iterator<Item = &'a LogId>,
        conflicts: &BTreeSet<Key>,
    ) -> Result<(), Fault> {
        let mut explained = group.lose(accepted, conflicts);
        for log in logs {
            if conflicts.contains(&keys::log_head(log.0)) {
                self.logs.forget(*log);
                group.lost_heads += 1;
                if group.lost_heads > RACE_RETRIES {
                    group.fail_log(*log);
                }
                explained = true;
            } else if conflicts.iter().any(|key| is_block_of(log.0, key)) {
                // A block stands where the head says that none is: the head was set back.
                self.logs.forget(*log);
                add(&self.shared.counters.log_failures, 1);
                group.fail_log(*log);
                explained = true;
            }
        }
        if explained { Ok(()) } else { Err(Fault::Nonsense) }
    }

    fn count(&self, group: &Group<'_>, accepted: &[usize], bytes: usize) {
        let counters = &self.shared.counters;
        let events =
            accepted.iter().filter_map(|index| group.pending.get(*index)).map(|pending| pending.lines.len());
        add(&counters.groups, 1);
        add(&counters.operations, accepted.len());
        add(&counters.events, events.sum());
        add(&counters.bytes, bytes);
        counters.last_group.store(accepted.len() as u64, Ordering::Relaxed);
    }

    /// Runs the callbacks in the order of the commit, then releases the answers.
    fn settle(&self, pending: &mut Vec<Pending>, answers: Vec<Option<Answer>>) {
        if self.shared.has_failed() {
            return;
        }
        for (pending, answer) in pending.iter_mut().zip(&answers) {
            if matches!(answer, Some(Ok(_)))
                && let Some(committed) = pending.committed.take()
            {
                committed();
            }
        }
        if answers.iter().any(|answer| matches!(answer, Some(Ok(_)))) {
            self.shared.progress.send_modify(|groups| *groups += 1);
        }
        let lost = answers.iter().filter(|answer| matches!(answer, Some(Err(CommitError::Conflict(_)))));
        add(&self.shared.counters.conflicts, lost.count());
        let answers = answers.into_iter().map(|answer| answer.unwrap_or(Err(CommitError::Unavailable)));
        self.shared.release(pending.drain(..).map(|pending| pending.answer).zip(answers).collect());
    }
}

impl<'a> Group<'a> {
    fn new(pending: &'a [Pending]) -> Self {
        Self { pending, answers: pending.iter().map(|_| None).collect(), lost_heads: 0 }
    }

    /// Stages what has no answer yet, in order.
    fn stage(&self) -> Staged {
        let mut stage = Stage::default();
        let mut accepted = Vec::with_capacity(self.pending.len());
        let mut lost = Vec::new();
        for (index, pending) in self.unanswered() {
            match stage.admit(&pending.batch) {
                Judgement::Accepted => accepted.push(index),
                Judgement::Lost(keys) => lost.push((index, keys)),
            }
        }
        Staged { batch: stage.batch(), accepted, lost }
    }

    fn unanswered(&self) -> impl Iterator<Item = (usize, &'a Pending)> {
        let all = self.pending.iter().enumerate().zip(&self.answers);
        all.filter(|(_, answer)| answer.is_none()).map(|(pending, _)| pending)
    }

    fn answer(&mut self, index: usize, answer: Answer) {
        if let Some(place) = self.answers.get_mut(index) {
            *place = Some(answer);
        }
    }

    /// The staged changes are durable, so those who lost against them have lost for good.
    fn committed(&mut self, receipts: Vec<(usize, Receipt)>, lost: Vec<(usize, Vec<Key>)>) {
        for (index, receipt) in receipts {
            self.answer(index, Ok(receipt));
        }
        for (index, keys) in lost {
            self.answer(index, Err(CommitError::Conflict(keys)));
        }
    }

    /// Answers those of the accepted that relied on rows in `conflicts`; returns whether there are any.
    fn lose(&mut self, accepted: &[usize], conflicts: &BTreeSet<Key>) -> bool {
        let pending = self.pending;
        let staged = accepted.iter().filter_map(|index| Some((*index, &pending.get(*index)?.batch)));
        let losers = losers(staged, conflicts);
        let any = !losers.is_empty();
        for (index, keys) in losers {
            self.answer(index, Err(CommitError::Conflict(keys)));
        }
        any
    }

    /// Answers everything that has none yet.
    fn fail_all(&mut self, error: impl Fn(&Pending) -> CommitError) {
        for (pending, answer) in self.pending.iter().zip(&mut self.answers) {
            answer.get_or_insert_with(|| Err(error(pending)));
        }
    }

    /// Answers the changes with an event in a log that cannot be written.
    fn fail_log(&mut self, log: LogId) {
        for (pending, answer) in self.pending.iter().zip(&mut self.answers) {
            if pending.lines.iter().any(|(keys, _)| id(keys.tenant) == log) {
                answer.get_or_insert(Err(CommitError::AuditUnavailable));
            }
        }
    }
}

fn is_block_of(tenant: TenantId, key: &Key) -> bool {
    key.as_bytes().first() == Some(&(Table::LogBlock as u8)) && key.tenant() == Some(tenant)
}

/// Says that the thread has ended, however that came, and lets its watcher go.
struct Ending {
    shared: Arc<Shared>,
    _alive: mpsc::Sender<()>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail(Fault::Panicked);
        }
        self.shared.end();
    }
}
