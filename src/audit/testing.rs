//! What tests of the log and of the committer need: keys, a clock that stands still, an engine whose commits can be held
//! back and made to fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use super::LogKeys;
use crate::crypto::{AuditKey, PseudonymKey, Secret, WrappableKey as _};
use crate::env::Clock;
use crate::model::{StoreId, TenantId, TenantRef, Timestamp};
use crate::store::{
    Batch, CommitOutcome, EngineError, EngineStats, Key, Row, ScanPage, ScanRange, StorageEngine,
};

/// The keys of a tenant's log in its first epoch: the same for the same tenant.
pub(crate) fn keys(tenant: TenantId) -> LogKeys {
    let secret = |role| Secret::from_slice(&[tenant.0, [role; 16]].concat()).unwrap();
    LogKeys {
        store: StoreId([9; 16]),
        tenant: TenantRef { id: tenant, incarnation: 1 },
        epoch: 1,
        audit: Arc::new(AuditKey::from_secret(secret(1))),
        pseudonym: Arc::new(PseudonymKey::from_secret(secret(2))),
        pseudonym_version: 1,
    }
}

/// A clock that is set by hand.
#[derive(Default)]
pub(crate) struct TestClock(pub(crate) AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What a commit of the test engine does instead of what it should.
pub(crate) enum Step {
    /// Fails, with nothing applied.
    Fail(EngineError),
    /// Applies the batch, and fails.
    ApplyAndFail(EngineError),
    /// Answers with a conflict on this key.
    Conflict(Key),
}

/// An engine in memory. Commits wait while it is held.
pub(crate) struct TestEngine {
    pub(crate) rows: Mutex<BTreeMap<Key, Row>>,
    /// What the next commits do; `None`: what they should.
    pub(crate) script: Mutex<VecDeque<Option<Step>>>,
    held: watch::Sender<bool>,
    began: watch::Sender<u64>,
}

impl TestEngine {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            rows: Mutex::default(),
            script: Mutex::default(),
            held: watch::Sender::new(false),
            began: watch::Sender::new(0),
        })
    }

    /// Lets commits wait, or go on.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Waits until so many commits have begun.
    pub(crate) async fn began(&self, commits: u64) {
        self.began.subscribe().wait_for(|began| *began >= commits).await.unwrap();
    }

    pub(crate) fn row(&self, key: &Key) -> Option<Row> {
        self.rows.lock().unwrap().get(key).cloned()
    }

    fn apply(&self, batch: Batch) -> CommitOutcome {
        let mut rows = self.rows.lock().unwrap();
        let fails = batch.expect.iter().filter(|(key, expect)| !expect.holds(rows.get(key)));
        let conflicts: Vec<Key> = fails.map(|(key, _)| key.clone()).collect();
        if !conflicts.is_empty() {
            return CommitOutcome::Conflict(conflicts);
        }
        let touched: std::collections::BTreeSet<_> =
            batch.put.iter().map(|(key, _)| key).chain(&batch.delete).collect();
        assert_eq!(touched.len(), batch.put.len() + batch.delete.len(), "a key occurs at most once");
        for key in &batch.delete {
            rows.remove(key);
        }
        rows.extend(batch.put);
        CommitOutcome::Committed
    }
}

#[async_trait]
impl StorageEngine for TestEngine {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn multi_get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, EngineError> {
        Ok(keys.iter().map(|key| self.row(key)).collect())
    }

    async fn scan(&self, range: ScanRange, limit: usize) -> Result<ScanPage, EngineError> {
        let rows = self.rows.lock().unwrap();
        let mut page: Vec<_> = rows
            .iter()
            .filter(|(key, _)| key.as_bytes().starts_with(&range.prefix))
            .filter(|(key, _)| range.after.as_ref().is_none_or(|after| *key > after))
            .filter(|(key, _)| range.before.as_ref().is_none_or(|before| *key < before))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        if range.descending {
            page.reverse();
        }
        page.truncate(limit);
        Ok(page)
    }

    async fn scan_keys(&self, range: ScanRange, limit: usize) -> Result<Vec<Key>, EngineError> {
        Ok(self.scan(range, limit).await?.into_iter().map(|(key, _)| key).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, EngineError> {
        self.began.send_modify(|began| *began += 1);
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let step = self.script.lock().unwrap().pop_front().flatten();
        match step {
            None => Ok(self.apply(batch)),
            Some(Step::Fail(error)) => Err(error),
            Some(Step::ApplyAndFail(error)) => {
                assert_eq!(self.apply(batch), CommitOutcome::Committed);
                Err(error)
            }
            Some(Step::Conflict(key)) => Ok(CommitOutcome::Conflict(vec![key])),
        }
    }

    async fn stats(&self) -> Result<EngineStats, EngineError> {
        Ok(EngineStats::default())
    }

    async fn close(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
