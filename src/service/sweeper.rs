//! Reclaims what has ended. Expiry itself is exact at read; this only gives space back and drops keys early.
//!
//! The sweeper walks the expiry index in bounded steps. For a session it replaces the keys by a tombstone first and
//! removes rows after that; for an entry it leaves the tombstone that keeps the revision. It goes through the committer
//! like everybody else, so that it waits its turn behind requests.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, StreamExt as _};

use super::altered::due;
use super::answers::period;
use super::opened::{Opened, SessionRow, domain, name_of, opener};
use super::parted::halves;
use super::payload::{EntryPayload, SessionPayload, TombstonePayload};
use super::{Error, Service};
use crate::audit::Operation;
use crate::crypto::{Header, Kind, open_start};
use crate::keyring::{SessionKeys, Tenant};
use crate::model::limits::{DELETED_TOMBSTONE_TTL, TOMBSTONE_TTL};
use crate::model::{TenantState, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, keys};

/// Index rows in one step.
const STEP: usize = 512;
/// Of those, how many are worked on at a time, so that they share commits.
const AT_ONCE: usize = 128;
/// Rows of one session that are removed in one commit.
pub(super) const RECLAIM: usize = 500;

/// Damaged rows that are put on record one by one, until the process starts anew.
const DAMAGED: usize = 1024;

/// What one step of the sweeper did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Index rows looked at.
    pub seen: usize,
    /// Sessions that were expired.
    pub sessions: usize,
    /// Whether there may be more to do at once.
    pub more: bool,
}

/// Runs the steps. One a server.
pub struct Sweeper {
    service: Arc<Service>,
    progress: Mutex<Progress>,
}

/// Where the sweeper is, so that what it cannot sweep does not hold up what is behind it.
#[derive(Default)]
struct Progress {
    /// The last index row of the step before, unless that one came to the end.
    after: Option<Key>,
    /// Damaged rows that are on record already.
    damaged: HashSet<Key>,
}

impl Sweeper {
    /// A sweeper of what `service` keeps.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, progress: Mutex::default() }
    }

    /// Does one bounded step of work.
    ///
    /// # Errors
    /// [`Error`] when the store cannot be read; what could be done was done.
    pub async fn step(&self) -> Result<SweepReport, Error> {
        let service = &self.service;
        let now = service.clock.now();
        let due = self.due(now).await?;
        let seen = due.len();
        let outcomes = stream::iter(due)
            .map(|index| async { (service.sweep(index.clone(), now).await, index) })
            .buffer_unordered(AT_ONCE);
        let (mut sessions, mut done, mut failure) = (0, 0, None);
        let mut outcomes = std::pin::pin!(outcomes);
        while let Some((outcome, index)) = outcomes.next().await {
            match outcome {
                Ok(Swept::Session) => (sessions, done) = (sessions + 1, done + 1),
                Ok(Swept::Other) => done += 1,
                // Not due yet within this second, or somebody else is at it: the next step will see.
                Ok(Swept::NotYet) | Err(Error::Contended | Error::Overloaded | Error::TenantNotFound) => {}
                Err(Error::Integrity) => failure = self.damaged(index).await.or(failure),
                Err(error) => failure = Some(error),
            }
        }
        service.counters.sessions_expired.fetch_add(sessions as u64, Ordering::Relaxed);
        service.record_past_refusals().await?;
        service.record_clock().await?;
        let answers = service.forget_answers(now).await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(SweepReport { seen, sessions, more: seen == STEP || done > 0 || answers }),
        }
    }

    /// The index rows of this step: those behind the last step's, or from the beginning.
    async fn due(&self, now: Timestamp) -> Result<Vec<Key>, Error> {
        let after = self.progress().after.take();
        let is_first = after.is_none();
        let before = Some(keys::expiry_end(now));
        let range = ScanRange { after, before, ..ScanRange::prefix(keys::expiry_rows()) };
        let due = self.service.engine.scan_keys(range, STEP).await?;
        if is_first {
            let oldest = due.first().and_then(keys::expiring);
            let oldest =
                oldest.map_or(now, |(second, _)| Timestamp::from_millis(second.saturating_mul(1000)));
            let lag = u64::try_from(now.since(oldest).as_millis()).unwrap_or(u64::MAX);
            self.service.counters.sweeper_lag_millis.store(lag, Ordering::Relaxed);
        }
        if due.len() == STEP {
            self.progress().after = due.last().cloned();
        }
        Ok(due)
    }

    /// Puts a damaged row on record, once; says what is to be said about it then.
    async fn damaged(&self, index: Key) -> Option<Error> {
        let is_news = {
            let damaged = &mut self.progress().damaged;
            damaged.len() < DAMAGED && damaged.insert(index)
        };
        if !is_news {
            return None;
        }
        let attempt = self.service.own_server_attempt(Operation::SessionReclaim);
        Some(attempt.fail(Error::Integrity).await.error)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of an index row.
pub(super) enum Swept {
    Session,
    Other,
    NotYet,
}

impl Service {
    async fn sweep(&self, index: Key, now: Timestamp) -> Result<Swept, Error> {
        let Some((second, row)) = keys::expiring(&index) else {
            return self.drop_index(None, index).await;
        };
        if keys::approval_id(&row).is_some() {
            return self.sweep_approval(index, row, now).await;
        }
        let Some(tenant) = self.tenant_of(&row).await? else {
            return self.drop_index(None, index).await;
        };
        if row == *tenant.row_key() {
            self.sweep_tenant(&tenant, index, now).await
        } else if tenant.state() == TenantState::Destroyed {
            // Nothing of it opens any more.
            self.drop_index(Some(&tenant), index).await
        } else if keys::is_wrapping_key(&row) {
            self.sweep_wrapping_key(&tenant, index, &row, now).await
        } else if keys::is_session(&row) {
            self.sweep_session(&tenant, &index, second, &row, now).await
        } else if keys::is_reencryption(&row) {
            self.sweep_reencryption(&tenant, index, &row).await
        } else {
            self.sweep_entry(&tenant, index, second, &row, now).await
        }
    }

    /// Removes an index row that has nothing to say any more.
    pub(super) async fn drop_index(&self, tenant: Option<&Tenant>, index: Key) -> Result<Swept, Error> {
        let mut attempt = match tenant {
            Some(tenant) => self.own_attempt(tenant, Operation::SessionReclaim),
            None => self.own_server_attempt(Operation::SessionReclaim),
        };
        attempt.touched(1);
        attempt.commit(Batch { delete: vec![index], ..Batch::default() }, None).await?;
        Ok(Swept::Other)
    }

    /// Does what is due with a tenant or its key by now.
    async fn sweep_tenant(&self, tenant: &Tenant, index: Key, now: Timestamp) -> Result<Swept, Error> {
        if tenant.state() == TenantState::Destroyed {
            return self.reclaim_tenant(tenant, &index, now).await.map(|()| Swept::Other);
        }
        if self.tenant_due(tenant, now).await? || self.key_due(tenant, now).await? {
            return Ok(Swept::Other);
        }
        let (tenant, _) = self.fresh_tenant(tenant).await?;
        if due(&tenant).contains(&index) {
            return Ok(Swept::NotYet);
        }
        self.drop_index(Some(&tenant), index).await
    }

    async fn sweep_wrapping_key(
        &self,
        tenant: &Tenant,
        index: Key,
        key: &Key,
        now: Timestamp,
    ) -> Result<Swept, Error> {
        match self.wrapping_key_due(tenant, key, &index, now).await? {
            Some(true) => Ok(Swept::Other),
            Some(false) => Ok(Swept::NotYet),
            None => self.drop_index(Some(tenant), index).await,
        }
    }

    async fn sweep_session(
        &self,
        tenant: &Tenant,
        index: &Key,
        second: u64,
        key: &Key,
        now: Timestamp,
    ) -> Result<Swept, Error> {
        let [row] = self.read([key.clone()]).await?;
        let Some(row) = row else {
            return self.drop_index(Some(tenant), index.clone()).await;
        };
        let opened = match self.open_session_row(tenant, key, &row) {
            // It may be enabled again.
            Err(Error::KeyDisabled) => return Ok(Swept::NotYet),
            Err(Error::KeyDestroyed) => return self.bury_session(tenant, index, key, &row).await,
            opened => opened?,
        };
        match opened {
            SessionRow::Live { session, .. } if session.end() <= now => {
                self.expire_session(tenant, key, &row, &session).await?;
                Ok(Swept::Session)
            }
            SessionRow::Live { session, .. } if session.end().as_secs() == second => Ok(Swept::NotYet),
            SessionRow::Live { .. } => self.drop_index(Some(tenant), index.clone()).await,
            SessionRow::Ended(tombstone) => {
                if self.reclaim_session(tenant, key).await? {
                    return Ok(Swept::Other);
                }
                self.sweep_tombstone(tenant, index, key, &row, &tombstone, now).await
            }
        }
    }

    /// Goes on with a session that was left on its way to new keys.
    async fn sweep_reencryption(&self, tenant: &Tenant, index: Key, row: &Key) -> Result<Swept, Error> {
        match self.sweep_anew(tenant, &keys::session_of(row)).await {
            // The end of the walk has removed the index row, unless there was nothing to do.
            Ok(true) => self.drop_index(Some(tenant), index).await,
            Ok(false) => Ok(Swept::Other),
            // It may be enabled again.
            Err(Error::KeyDisabled) => Ok(Swept::NotYet),
            Err(error) => Err(error),
        }
    }

    /// Removes what is left of a session whose key was destroyed. Whose it was, nobody can tell: so there is no tombstone.
    async fn bury_session(&self, tenant: &Tenant, index: &Key, key: &Key, row: &Row) -> Result<Swept, Error> {
        while self.reclaim_session(tenant, key).await? {}
        let id = key.session().try_into().map_err(|_| Error::Integrity)?;
        let mut batch = Batch { delete: vec![key.clone(), index.clone()], ..Batch::default() };
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        let mut attempt = self.own_attempt(tenant, Operation::SessionReclaim);
        attempt.touched(1);
        attempt.commit(batch, Some(self.ending(tenant, id, key))).await?;
        Ok(Swept::Session)
    }

    /// A tombstone with nothing left behind it: it goes when its time is over, or its index row moves there.
    async fn sweep_tombstone(
        &self,
        tenant: &Tenant,
        index: &Key,
        key: &Key,
        row: &Row,
        tombstone: &TombstonePayload,
        now: Timestamp,
    ) -> Result<Swept, Error> {
        let end = end_of(tombstone);
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        if end <= now {
            batch.delete.push(key.clone());
            batch.delete.push(index.clone());
        } else {
            let later = keys::expiry(end, key);
            if later == *index {
                return Ok(Swept::NotYet);
            }
            batch.delete.push(index.clone());
            batch.put.push((later, Row::marker()));
        }
        let mut attempt = self.own_attempt(tenant, Operation::SessionReclaim);
        attempt.touched(1);
        attempt.commit(batch, None).await?;
        Ok(Swept::Other)
    }

    /// Replaces a session that has ended by its tombstone: from here on its keys are gone. When its rows are few they go in
    /// the same commit, and its index row moves to where the tombstone ends; otherwise that is left to later steps.
    pub(super) async fn expire_session(
        &self,
        tenant: &Tenant,
        key: &Key,
        row: &Row,
        session: &SessionPayload,
    ) -> Result<(), Error> {
        let ended = session.end();
        let tombstone =
            TombstonePayload { owner: session.owner.clone(), ended: ended.as_millis(), deleted: false };
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        batch.put.push((key.clone(), self.seal_tombstone(tenant, key, row.revision()?.next(), &tombstone)?));
        let mut attempt = self.own_attempt(tenant, Operation::SessionExpire);
        let behind = self.rows_behind(key).await?;
        if behind.len() < RECLAIM {
            attempt.touched(behind.len());
            batch.delete = behind;
            batch.delete.push(keys::expiry(ended, key));
            batch.put.push((keys::expiry(end_of(&tombstone), key), Row::marker()));
        }
        attempt.about_session(&name_of(session)?);
        let id = key.session().try_into().map_err(|_| Error::Integrity)?;
        let ending = self.ending(tenant, id, key);
        attempt.commit(batch, Some(ending)).await?;
        Ok(())
    }

    /// Removes some of the rows behind a tombstone; says whether there were any.
    pub(super) async fn reclaim_session(&self, tenant: &Tenant, key: &Key) -> Result<bool, Error> {
        let rows = self.rows_behind(key).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut attempt = self.own_attempt(tenant, Operation::SessionReclaim);
        attempt.touched(rows.len());
        attempt.commit(Batch { delete: rows, ..Batch::default() }, None).await?;
        Ok(true)
    }

    /// Up to [`RECLAIM`] keys of a session's rows, without the session's own.
    async fn rows_behind(&self, key: &Key) -> Result<Vec<Key>, Error> {
        let range = ScanRange { after: Some(key.clone()), ..ScanRange::prefix(keys::rows_of_session(key)) };
        Ok(self.engine.scan_keys(range, RECLAIM).await?)
    }

    async fn sweep_entry(
        &self,
        tenant: &Arc<Tenant>,
        index: Key,
        second: u64,
        key: &Key,
        now: Timestamp,
    ) -> Result<Swept, Error> {
        let session_key = keys::session_of(key);
        let [session_row, row] = self.read([session_key.clone(), key.clone()]).await?;
        let (Some(session_row), Some(row)) = (session_row, row) else {
            return self.drop_index(Some(tenant), index).await;
        };
        let (keys, former, session) = match self.open_session_row(tenant, &session_key, &session_row) {
            Err(Error::KeyDisabled) => return Ok(Swept::NotYet),
            // With a destroyed key it goes when its session does.
            Ok(SessionRow::Ended(_)) | Err(Error::KeyDestroyed) => {
                return self.drop_index(Some(tenant), index).await;
            }
            Ok(SessionRow::Live { keys, former, session }) => (keys, former, session),
            Err(error) => return Err(error),
        };
        let (record, _) = halves(&row)?;
        let named = opener(&keys, former.as_ref(), record);
        let Some(entry) = self.entry_metadata(tenant, named, key, &row)? else {
            return self.drop_index(Some(tenant), index).await;
        };
        if !entry.ended(now) {
            let same = Timestamp::from_millis(entry.expires).as_secs() == second && entry.expires != 0;
            return if same { Ok(Swept::NotYet) } else { self.drop_index(Some(tenant), index).await };
        }
        let id = session_key.session().try_into().map_err(|_| Error::Integrity)?;
        let opened = Opened {
            tenant: Arc::clone(tenant),
            id,
            key: session_key,
            row: session_row,
            keys,
            former,
            session,
            rows: Vec::new(),
            now,
        };
        self.expire_entry(&opened, index, key, &row, &entry).await
    }

    async fn expire_entry(
        &self,
        opened: &Opened,
        index: Key,
        key: &Key,
        row: &Row,
        entry: &EntryPayload,
    ) -> Result<Swept, Error> {
        let revision = row.revision()?.next();
        let mut batch = opened.batch();
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        batch.put.push((key.clone(), self.entry_tombstone(opened, key, revision)?));
        batch.delete.push(index);
        let mut attempt = self.own_attempt(&opened.tenant, Operation::EntryExpire);
        attempt.about_session(&name_of(&opened.session)?);
        attempt.about(domain::ENTRY, &entry.key);
        attempt.at_revision(revision);
        let name = crate::model::EntryKey::new(entry.key.clone()).map_err(|_| Error::Integrity)?;
        let change = self.hub.changing(opened, vec![(name, revision.get(), true)]);
        attempt.commit(batch, Some(change)).await?;
        Ok(Swept::Other)
    }

    fn entry_metadata(
        &self,
        tenant: &Tenant,
        session: &SessionKeys,
        key: &Key,
        row: &Row,
    ) -> Result<Option<EntryPayload>, Error> {
        let (record, _) = halves(row)?;
        if Header::named_kind(record) != Some(Kind::Entry as u8) {
            return Ok(None);
        }
        let revision = row.revision()?.get();
        let header = Header { kind: Kind::Entry, key_id: session.body_id(), revision };
        let plain = open_start(session.body(), header, &self.place(tenant, key), record)?;
        super::payload::decode_start(plain.as_bytes()).map(|(entry, _)| Some(entry))
    }

    /// Removes the answers of periods that are over; says whether there may be more.
    async fn forget_answers(&self, now: Timestamp) -> Result<bool, Error> {
        let (prefix, before) = keys::answers_before(period(now).saturating_sub(1));
        let range = ScanRange { before: Some(before), ..ScanRange::prefix(prefix) };
        let rows = self.engine.scan_keys(range, RECLAIM).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let more = rows.len() == RECLAIM;
        let mut attempt = self.own_server_attempt(Operation::SessionReclaim);
        attempt.touched(rows.len());
        attempt.commit(Batch { delete: rows, ..Batch::default() }, None).await?;
        Ok(more)
    }
}

/// When nobody needs to know any more that there was a session.
fn end_of(tombstone: &TombstonePayload) -> Timestamp {
    let ttl = if tombstone.deleted { DELETED_TOMBSTONE_TTL } else { TOMBSTONE_TTL };
    Timestamp::from_millis(tombstone.ended).after(ttl)
}
