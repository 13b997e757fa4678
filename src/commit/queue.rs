//! What waits to be committed: bounded in number and in bytes, never blocking.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::{CHANGE_EVENTS, Change, ChangeError, CommitError, Receipt};
use crate::audit::{LineTail, LogKeys, PREFIX_BYTES};
use crate::model::limits::{COMMIT_GROUP, COMMIT_GROUP_BYTES, COMMIT_QUEUE, COMMIT_QUEUE_BYTES};
use crate::store::{Batch, Key, RowExpect, Table};

/// The answer to a change.
pub(super) type Answer = Result<Receipt, CommitError>;

/// A change that waits. Its lines are written as far as they can be without knowing their place, by the thread of the
/// caller.
pub(super) struct Pending {
    pub(super) batch: Batch,
    pub(super) lines: Vec<(Arc<LogKeys>, LineTail)>,
    pub(super) committed: Option<Box<dyn FnOnce() + Send>>,
    pub(super) answer: oneshot::Sender<Answer>,
    bytes: usize,
}

impl Pending {
    /// Takes a well-formed change.
    pub(super) fn new(change: Change, answer: oneshot::Sender<Answer>) -> Result<Self, ChangeError> {
        check(&change)?;
        let Change { batch, events, committed } = change;
        let lines: Vec<_> = events
            .into_iter()
            .map(|(keys, event)| (Arc::clone(&keys), LineTail::new(&event, &keys)))
            .collect();
        let expect: usize = batch.expect.iter().map(|(key, _)| key.as_bytes().len()).sum();
        let log: usize = lines.iter().map(|(_, line)| line.bytes() + PREFIX_BYTES).sum();
        let bytes = batch.bytes() + expect + log;
        Ok(Self { batch, lines, committed, answer, bytes })
    }

    /// Whether its caller has gone away.
    fn is_withdrawn(&self) -> bool {
        self.answer.is_closed()
    }
}

fn check(change: &Change) -> Result<(), ChangeError> {
    match change.events.len() {
        0 => return Err(ChangeError::NoEvent),
        events if events > CHANGE_EVENTS => return Err(ChangeError::TooManyEvents),
        _ => {}
    }
    let Batch { expect, put, delete } = &change.batch;
    let mut written = BTreeSet::new();
    for key in put.iter().map(|(key, _)| key).chain(delete) {
        if is_log_row(key) {
            return Err(ChangeError::LogRow);
        }
        if !written.insert(key) {
            return Err(ChangeError::KeyTwice);
        }
    }
    let mut expected: BTreeMap<&Key, RowExpect> = BTreeMap::new();
    for (key, expect) in expect {
        if expected.insert(key, *expect).is_some_and(|before| before != *expect) {
            return Err(ChangeError::KeyTwice);
        }
    }
    Ok(())
}

fn is_log_row(key: &Key) -> bool {
    let tables = [Table::LogBlock, Table::LogHead, Table::LogIndex];
    key.as_bytes().first().is_some_and(|first| tables.iter().any(|table| *table as u8 == *first))
}

/// From this size on company is waited for.
const COMPANY: usize = 4;
/// At most this long: less than a commit of a full group takes.
const LINGER: std::time::Duration = std::time::Duration::from_micros(500);

/// The queue. Filled from all threads, emptied by the committer's.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrival: Notify,
    /// Told when so many wait as the committer lingers for.
    company: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Pending>,
    bytes: usize,
    closed: bool,
    /// How many changes the committer lingers for; 0: it does not.
    awaited: usize,
}

impl Queue {
    /// Lets a change wait.
    pub(super) fn push(&self, pending: Pending) -> Result<(), CommitError> {
        let mut state = self.state();
        if state.closed {
            return Err(CommitError::Unavailable);
        }
        if state.waiting.len() >= COMMIT_QUEUE || state.bytes + pending.bytes > COMMIT_QUEUE_BYTES {
            return Err(CommitError::Overloaded);
        }
        state.bytes += pending.bytes;
        state.waiting.push_back(pending);
        let complete = state.is_complete() && state.awaited > 0;
        drop(state);
        self.arrival.notify_one();
        if complete {
            self.company.notify_one();
        }
        Ok(())
    }

    /// Fills an empty `group` with what waits, up to the bounds of a group; waits until there is something. `false`: there
    /// is nothing, and nothing can come any more.
    ///
    /// When groups of late had company (`expected`, their size) and this one is smaller, it lingers for them, so
    /// that those who were just answered can come back with their next change: a commit costs the same for few as for many. A
    /// change that comes alone never waits.
    pub(super) async fn gather(&self, group: &mut Vec<Pending>, expected: usize) -> bool {
        loop {
            let arrival = self.arrival.notified();
            let closed = self.state().fill(group);
            if !group.is_empty() {
                if !closed && expected >= COMPANY {
                    self.linger(group, expected);
                }
                return true;
            }
            if closed {
                return false;
            }
            arrival.await;
        }
    }

    /// Blocks the committer's thread until `group` and what waits are `expected` in number. The timers of a runtime are too
    /// coarse for that.
    fn linger(&self, group: &mut Vec<Pending>, expected: usize) {
        let mut state = self.state();
        state.awaited = expected.saturating_sub(group.len());
        let lingered = self.company.wait_timeout_while(state, LINGER, |state| !state.is_complete());
        let (mut state, _) = lingered.unwrap_or_else(PoisonError::into_inner);
        state.awaited = 0;
        state.fill(group);
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.arrival.notify_one();
        self.company.notify_one();
    }

    /// Takes nothing more, and lets everything that waits go: its callers learn that there will be no answer.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.closed = true;
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.arrival.notify_one();
        self.company.notify_one();
    }

    /// How many changes wait.
    pub(super) fn depth(&self) -> usize {
        self.state().waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether nobody needs to be lingered for.
    fn is_complete(&self) -> bool {
        self.closed || self.waiting.len() >= self.awaited
    }

    /// Moves changes into `group`; a change that is larger than a group goes alone. Returns whether the queue is closed.
    fn fill(&mut self, group: &mut Vec<Pending>) -> bool {
        let mut bytes: usize = group.iter().map(|pending| pending.bytes).sum();
        while group.len() < COMMIT_GROUP {
            let fits =
                |next: &Pending| group.is_empty() || bytes.saturating_add(next.bytes) <= COMMIT_GROUP_BYTES;
            if !self.waiting.front().is_some_and(fits) {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.bytes -= next.bytes;
            if !next.is_withdrawn() {
                bytes += next.bytes;
                group.push(next);
            }
        }
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::keys;
    use crate::audit::{Event, Operation};
    use crate::model::TenantId;
    use crate::store::{Row, keys as rows};

    fn change(put: Vec<(Key, Row)>) -> Change {
        let keys = Arc::new(keys(TenantId([1; 16])));
        let batch = Batch { put, ..Batch::default() };
        Change { batch, events: vec![(keys, Event::new(Operation::EntryPut))], committed: None }
    }

    fn pending(bytes: usize) -> (Pending, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let row = Row::from_stored(vec![0; bytes].into());
        (Pending::new(change(vec![(Key::from_stored(vec![1]), row)]), answer).unwrap(), receiver)
    }

    fn refused(change: Change) -> Option<ChangeError> {
        Pending::new(change, oneshot::channel().0).err()
    }

    #[test]
    fn a_change_without_event_or_with_a_key_twice_or_with_rows_of_a_log_is_refused() {
        let key = Key::from_stored(vec![1]);
        let put = || vec![(key.clone(), Row::marker())];
        assert_eq!(refused(Change { events: vec![], ..change(put()) }), Some(ChangeError::NoEvent));
        let keys = Arc::new(keys(TenantId([1; 16])));
        let many = vec![(keys, Event::new(Operation::EntryRead)); CHANGE_EVENTS + 1];
        assert_eq!(refused(Change { events: many, ..change(put()) }), Some(ChangeError::TooManyEvents));

        let mut twice = change(put());
        twice.batch.delete.push(key.clone());
        assert_eq!(refused(twice), Some(ChangeError::KeyTwice));
        let mut expects = change(put());
        expects.batch.expect = vec![(key.clone(), RowExpect::Absent); 2];
        assert_eq!(refused(expects), None);
        let mut contradicts = change(put());
        let first = RowExpect::Revision(crate::model::Revision::FIRST);
        contradicts.batch.expect = vec![(key.clone(), RowExpect::Absent), (key.clone(), first)];
        assert_eq!(refused(contradicts), Some(ChangeError::KeyTwice));

        let tenant = TenantId([1; 16]);
        for key in [rows::log_head(tenant), rows::log_block(tenant, 1, 0)] {
            assert_eq!(refused(change(vec![(key, Row::marker())])), Some(ChangeError::LogRow));
        }
    }

    #[test]
    fn the_queue_is_bounded_in_number_and_in_bytes() {
        let queue = Queue::default();
        let mut callers = Vec::new();
        for _ in 0..COMMIT_QUEUE {
            let (small, caller) = pending(10);
            queue.push(small).unwrap();
            callers.push(caller);
        }
        assert_eq!(queue.push(pending(10).0), Err(CommitError::Overloaded));

        let queue = Queue::default();
        let mut taken = 0;
        while queue.push(pending(16 << 20).0).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, COMMIT_QUEUE_BYTES / (16 << 20) - 1);
        assert_eq!(queue.push(pending(16 << 20).0), Err(CommitError::Overloaded));
    }

    #[tokio::test]
    async fn a_group_is_bounded_a_large_change_goes_alone_and_the_withdrawn_do_not_go() {
        let queue = Queue::default();
        let mut callers = Vec::new();
        for bytes in [10, 20, COMMIT_GROUP_BYTES + 1, 30, 40] {
            let (waiting, caller) = pending(bytes);
            queue.push(waiting).unwrap();
            callers.push(caller);
        }
        callers.pop();
        queue.close();
        let mut sizes = Vec::new();
        let mut group = Vec::new();
        while queue.gather(&mut group, 0).await {
            sizes.push(group.len());
            group.clear();
        }
        assert_eq!(sizes, [2, 1, 1]);
        assert_eq!(queue.push(pending(10).0), Err(CommitError::Unavailable));
    }

    #[tokio::test]
    async fn what_is_abandoned_has_no_answer() {
        let queue = Queue::default();
        let (waiting, caller) = pending(10);
        queue.push(waiting).unwrap();
        queue.abandon();
        assert!(caller.await.is_err());
        assert_eq!(queue.depth(), 0);
    }
}
