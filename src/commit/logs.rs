//! The logs that the committer has open: their heads, read once and then kept as they were last committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::queue::Pending;
use crate::audit::{Extension, Fold, Log, LogError, LogKeys, TILE_HASHES, bundles_folded};
use crate::model::{TenantId, TenantRef, Timestamp};
use crate::store::{EngineError, Key, Row, StorageEngine, keys};

/// Most logs that are kept open: about 1 KiB each. A log beyond them costs one row read.
const OPEN_LOGS: usize = 4096;

/// A log, as the tenant and its incarnation.
pub(super) type LogId = (TenantId, u32);

pub(super) fn id(tenant: TenantRef) -> LogId {
    (tenant.id, tenant.incarnation)
}

#[derive(Default)]
pub(super) struct Logs {
    open: BTreeMap<LogId, OpenLog>,
    groups: u64,
    /// Logs that may have a complete bundle which is not folded, each once.
    due: VecDeque<Arc<LogKeys>>,
}

/// Bundles that are to be folded with the next commit.
pub(super) struct Folding {
    pub(super) keys: Arc<LogKeys>,
    pub(super) fold: Fold,
}

struct OpenLog {
    log: Log,
    /// How many bundles are folded; `None`: that is not known yet.
    folded: Option<u64>,
    /// The highest epoch that was asked for. It comes from a committed tenant row, so older ones are stale.
    epoch: u32,
    /// The group that last used it.
    used: u64,
}

impl Logs {
    /// Begins a group: makes room when too many logs are open.
    pub(super) fn begin_group(&mut self) {
        self.groups += 1;
        if self.open.len() > OPEN_LOGS {
            let mut used: Vec<u64> = self.open.values().map(|open| open.used).collect();
            let (_, median, _) = used.select_nth_unstable(OPEN_LOGS / 2);
            let median = *median;
            self.open.retain(|_, open| open.used > median);
        }
    }

    /// Opens what `changes` write to and is not open yet. Returns the logs that cannot be opened.
    pub(super) async fn open<'a>(
        &mut self,
        changes: impl Iterator<Item = (usize, &'a Pending)>,
        engine: &dyn StorageEngine,
    ) -> BTreeSet<LogId> {
        let mut missing: BTreeMap<LogId, &LogKeys> = BTreeMap::new();
        for (log, _) in changes.flat_map(|(_, pending)| &pending.lines) {
            match self.open.get_mut(&id(log.tenant)) {
                Some(open) => (open.used, open.epoch) = (self.groups, open.epoch.max(log.epoch)),
                None => drop(missing.insert(id(log.tenant), log)),
            }
        }
        if missing.is_empty() {
            return BTreeSet::new();
        }
        let heads: Vec<Key> = missing.values().map(|log| keys::log_head(log.tenant.id)).collect();
        let mut rows = engine.multi_get(&heads).await.map(Vec::into_iter);
        let mut failed = BTreeSet::new();
        for (id, log) in missing {
            let row = rows.as_mut().ok().map(Iterator::next);
            match row.map(|row| self.open_one(id, log, row)) {
                Some(Ok(())) => {}
                Some(Err(_)) | None => drop(failed.insert(id)),
            }
        }
        failed
    }

    fn open_one(&mut self, id: LogId, log: &LogKeys, row: Option<Option<Row>>) -> Result<(), LogError> {
        // An engine that answers with fewer rows than keys is broken.
        let row = row.ok_or(LogError::Engine(EngineError::Closed))?;
        let opened = Log::open(log, row.as_ref())?;
        let epoch = opened.epoch().max(log.epoch);
        self.open.insert(id, OpenLog { log: opened, folded: None, epoch, used: self.groups });
        Ok(())
    }

    /// Whether `log` names an epoch that has ended.
    pub(super) fn is_stale(&self, log: &LogKeys) -> bool {
        self.open.get(&id(log.tenant)).is_some_and(|open| log.epoch < open.epoch)
    }

    /// Begins to add lines to an open log.
    pub(super) fn extend(&self, log: &Arc<LogKeys>, now: Timestamp) -> Option<Extension> {
        self.open.get(&id(log.tenant))?.log.extend(log, now).ok()
    }

    /// Keeps a log as it was committed.
    pub(super) fn keep(&mut self, keys: &Arc<LogKeys>, log: Log) {
        let Some(open) = self.open.get_mut(&id(keys.tenant)) else { return };
        if log.epoch() != open.log.epoch() {
            open.folded = None;
        }
        let is_due = open.folded.unwrap_or_default() < log.size() / TILE_HASHES;
        open.log = log;
        if is_due && !self.due.iter().any(|due| id(due.tenant) == id(keys.tenant)) {
            self.due.push_back(Arc::clone(keys));
        }
    }

    /// Reads what is to be folded next: of at most one log, so that a group is not held up. A log that cannot be folded is
    /// left as it is until it is opened anew; nothing of it is lost.
    pub(super) async fn fold(&mut self, engine: &dyn StorageEngine) -> Option<Folding> {
        let keys = self.due.pop_front()?;
        let open = self.open.get_mut(&id(keys.tenant)).filter(|open| open.log.epoch() == keys.epoch)?;
        let folding = async {
            let number = match open.folded {
                Some(folded) => folded,
                None => bundles_folded(engine, &keys).await?,
            };
            open.folded = Some(number);
            let complete = open.log.size() / TILE_HASHES;
            if number >= complete {
                return Ok(None);
            }
            let fold = Fold::read(engine, &keys, number, complete).await?;
            Ok::<_, LogError>(Some(Folding { fold, keys: Arc::clone(&keys) }))
        };
        match folding.await {
            Ok(folding) => folding,
            Err(error) => {
                open.folded = Some(u64::MAX);
                tracing::warn!(log = %keys.name(), %error, "the log is not folded; searching it takes longer");
                None
            }
        }
    }

    /// The next bundles of a log are folded.
    pub(super) fn folded(&mut self, keys: &Arc<LogKeys>, bundles: u64) {
        let Some(open) = self.open.get_mut(&id(keys.tenant)) else { return };
        open.folded = open.folded.map(|folded| folded.saturating_add(bundles));
        if open.folded.is_some_and(|folded| folded < open.log.size() / TILE_HASHES) {
            self.due.push_back(Arc::clone(keys));
        }
    }

    /// What a fold relied on is otherwise: the log is left as it is until it is opened anew.
    pub(super) fn unfolded(&mut self, keys: &Arc<LogKeys>) {
        if let Some(open) = self.open.get_mut(&id(keys.tenant)) {
            open.folded = Some(u64::MAX);
        }
    }

    /// Forgets a log, so that its head is read again.
    pub(super) fn forget(&mut self, id: LogId) {
        self.open.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::keys;

    #[test]
    fn logs_that_were_not_used_for_long_make_room_for_others() {
        let mut logs = Logs::default();
        let count = u32::try_from(OPEN_LOGS + 1).unwrap();
        let log = Log::open(&keys(TenantId([1; 16])), None).unwrap();
        let id = |number: u32| (TenantId(u128::from(number).to_be_bytes()), 1);
        for number in 0..count {
            let used = u64::from(number);
            logs.open.insert(id(number), OpenLog { log: log.clone(), folded: None, epoch: 1, used });
        }
        logs.begin_group();
        assert_eq!(logs.open.len(), OPEN_LOGS / 2);
        assert!(!logs.open.contains_key(&id(0)) && logs.open.contains_key(&id(count - 1)));
        logs.begin_group();
        assert_eq!(logs.open.len(), OPEN_LOGS / 2);
    }
}
