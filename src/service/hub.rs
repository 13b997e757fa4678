//! Tells those who follow a session that something in it changed.
//!
//! Changes arrive in the order of their commits, because the committer announces them. The last few thousand are kept,
//! so that a watch that was interrupted can go on where it was; who has fallen behind further begins anew. Nothing here
//! is needed for correctness: a follower always reads what it shows from the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::opened::Opened;
use crate::crypto::Blinded;
use crate::model::limits::{WATCH_RING, WATCH_RING_BYTES};
use crate::model::{EntryKey, TenantId};

/// Names a session within the process.
pub(super) type SessionTag = (TenantId, Blinded);

/// What a commit runs when it is durable.
pub(super) type Announcement = Box<dyn FnOnce() + Send>;

/// A change of one entry, as it was committed.
#[derive(Clone)]
pub(super) struct Changed {
    pub(super) key: EntryKey,
    pub(super) revision: u64,
    pub(super) deleted: bool,
}

/// The place where changes are announced. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Hub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    followers: HashMap<SessionTag, watch::Sender<u64>>,
    ring: VecDeque<(SessionTag, Changed)>,
    ring_bytes: usize,
    /// The number of the first change in the ring.
    first: u64,
}

/// Hears of the changes of one session.
pub(super) struct Follower {
    hub: Hub,
    tag: SessionTag,
    news: watch::Receiver<u64>,
}

impl Hub {
    /// What a commit announces that changes entries: name, revision and whether it was deleted.
    pub(super) fn changing(&self, opened: &Opened, changes: Vec<(EntryKey, u64, bool)>) -> Announcement {
        let (hub, tag) = (self.clone(), tag(opened));
        Box::new(move || hub.announce(tag, changes))
    }

    /// What a commit announces that appends events or ends the session.
    pub(super) fn closing(&self, tag: SessionTag) -> Announcement {
        let hub = self.clone();
        Box::new(move || hub.announce(tag, Vec::new()))
    }

    /// What a commit announces that changes a tenant: all of its sessions are to be looked at again.
    pub(super) fn changing_tenant(&self, tenant: TenantId) -> Announcement {
        let hub = self.clone();
        Box::new(move || {
            let state = hub.state();
            let followers = state.followers.iter().filter(|((of, _), _)| *of == tenant);
            followers.for_each(|(_, follower)| follower.send_modify(|news| *news += 1));
        })
    }

    fn announce(&self, tag: SessionTag, changes: Vec<(EntryKey, u64, bool)>) {
        let mut state = self.state();
        for (key, revision, deleted) in changes {
            state.remember(tag, Changed { key, revision, deleted });
        }
        if let Some(follower) = state.followers.get(&tag) {
            follower.send_modify(|news| *news += 1);
        }
    }

    /// Begins to hear of a session's changes.
    pub(super) fn follow(&self, tag: SessionTag) -> Follower {
        let mut state = self.state();
        let news = state.followers.entry(tag).or_insert_with(|| watch::channel(0).0).subscribe();
        Follower { hub: self.clone(), tag, news }
    }

    /// The number that the next change gets.
    pub(super) fn position(&self) -> u64 {
        let state = self.state();
        state.first + state.ring.len() as u64
    }

    /// The session's changes from `position` on and the position behind them; `None` when some are forgotten.
    pub(super) fn changes(&self, tag: SessionTag, position: u64) -> Option<(Vec<Changed>, u64)> {
        let state = self.state();
        let skip = usize::try_from(position.checked_sub(state.first)?).ok()?;
        if skip > state.ring.len() {
            return None;
        }
        let changes = state.ring.iter().skip(skip).filter(|(of, _)| *of == tag);
        Some((changes.map(|(_, change)| change.clone()).collect(), state.first + state.ring.len() as u64))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, tag: SessionTag, change: Changed) {
        self.ring_bytes += change.key.as_bytes().len();
        self.ring.push_back((tag, change));
        while self.ring.len() > WATCH_RING || self.ring_bytes > WATCH_RING_BYTES {
            if let Some((_, oldest)) = self.ring.pop_front() {
                self.ring_bytes -= oldest.key.as_bytes().len();
                self.first += 1;
            }
        }
    }
}

impl Follower {
    /// Waits until something has changed since this was last asked.
    pub(super) async fn changed(&mut self) {
        // The sender lives in the hub as long as there is a follower, so that this ends with news only.
        if self.news.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        // This follower's own receiver is still counted.
        if state.followers.get(&self.tag).is_some_and(|sender| sender.receiver_count() <= 1) {
            state.followers.remove(&self.tag);
        }
    }
}

pub(super) fn tag(opened: &Opened) -> SessionTag {
    (opened.tenant.tenant_ref().id, opened.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> EntryKey {
        EntryKey::new(name).unwrap()
    }

    const ONE: SessionTag = (TenantId([1; 16]), [1; 16]);
    const TWO: SessionTag = (TenantId([1; 16]), [2; 16]);

    #[tokio::test]
    async fn a_follower_hears_of_its_session_alone() {
        let hub = Hub::default();
        let mut follower = hub.follow(ONE);
        let from = hub.position();
        hub.announce(TWO, vec![(key("other"), 1, false)]);
        hub.announce(ONE, vec![(key("mine"), 1, false)]);
        follower.changed().await;
        let (changes, next) = hub.changes(ONE, from).unwrap();
        assert_eq!(changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["mine"]);
        assert!(hub.changes(ONE, next).unwrap().0.is_empty());
        assert!(hub.changes(ONE, next + 1).is_none());
    }

    #[test]
    fn the_ring_is_bounded_and_says_when_it_has_forgotten() {
        let hub = Hub::default();
        for n in 0..=WATCH_RING as u64 {
            hub.announce(ONE, vec![(key("k"), n + 1, false)]);
        }
        assert!(hub.changes(ONE, 0).is_none());
        assert_eq!(hub.changes(ONE, 1).unwrap().0.len(), WATCH_RING);
    }

    #[test]
    fn followers_that_are_gone_leave_nothing_behind() {
        let hub = Hub::default();
        let (one, two) = (hub.follow(ONE), hub.follow(ONE));
        drop(one);
        assert_eq!(hub.state().followers.len(), 1);
        drop(two);
        assert!(hub.state().followers.is_empty());
    }
}
