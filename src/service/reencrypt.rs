//! Makes new keys for a session, and seals everything in it anew.
//!
//! A session may have more rows than one commit can take. So its row holds two pairs of keys for a while: the new ones,
//! under which everything is sealed that is written from then on, and the former ones, which open what a record's header
//! names them for. Meanwhile its rows are walked over and sealed under the new keys, a bounded part in each commit; the
//! last part goes together with the former keys.
//!
//! - Whoever writes relies on the session's row as it was read. So once both pairs are there nobody can add a row under the
//!   former keys, and one walk finds all that there are.
//! - A row that is sealed anew keeps its revision, and is replaced only as it was read: a change that came first wins, and
//!   one that comes after finds the revision that it expects.
//! - A row in the expiry index says that the walk has begun. Who walks may be killed: the sweeper goes on.

use std::sync::Arc;

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::hub::Announcement;
use super::opened::{SessionRow, ended_for_all, name_of, row_header};
use super::parted::halves;
use super::payload::{FormerKeys, Rekeyed, SessionPayload};
use super::view::{Answer, Repeat};
use super::{Error, Failure, Service};
use crate::audit::Operation;
use crate::auth::{ManageKeys, Permit};
use crate::commit::Receipt;
use crate::crypto::{Header, KeyId, open, seal};
use crate::keyring::{SessionKeys, Tenant};
use crate::model::{Duration, SessionId, Timestamp};
use crate::store::{Batch, Key, Part, Row, RowExpect, ScanRange, keys};

/// Most rows that are sealed anew in one commit.
const PART_ROWS: usize = 256;
/// Bytes of rows after which a commit takes no more: half a group of the committer's.
const PART_BYTES: usize = 256 << 10;
/// Rows that are held in memory at once: with the largest values 256 MiB, with usual ones a few KiB.
const SCAN_ROWS: usize = 16;
/// Parts that one call, or one step of the sweeper, seals before it leaves the rest to the sweeper.
pub(super) const PARTS: usize = 64;
/// When the sweeper goes on with what nobody has finished by then.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// What came of a call for new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reencryption {
    /// Whether everything is under the new keys. Otherwise the server goes on by itself.
    pub finished: bool,
}

/// A session with two pairs of keys.
pub(super) struct Turnover {
    pub(super) key: Key,
    pub(super) row: Row,
    pub(super) keys: SessionKeys,
    pub(super) former: SessionKeys,
    pub(super) session: Arc<SessionPayload>,
}

/// Some rows sealed anew, ready to be committed.
pub(super) struct Sealing {
    pub(super) batch: Batch,
    pub(super) records: usize,
    /// The place behind these rows; none when they are the last.
    pub(super) after: Option<Key>,
}

/// How far a walk came.
struct Walked {
    finished: bool,
    receipt: Option<Receipt>,
}

impl Service {
    /// Makes new keys for a session and seals everything in it under them. When it returns, the session's keys were made
    /// after it was called; a session with very much in it may still be on its way to them.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionExpired`]; [`Error::Integrity`] when something in it does not open: what
    /// is under the former keys then stays so.
    pub async fn rotate_session_key(
        &self,
        permit: &Permit<ManageKeys>,
        id: &SessionId,
        repeat: Option<Repeat>,
    ) -> Result<Answer<Reencryption>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::KeyReencrypt).await?;
        let slot = self.system_slot(permit, repeat);
        let outcome =
            until_won!(self.rotate_session_key_once(&mut attempt, &tenant, id, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn rotate_session_key_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        id: &SessionId,
        slot: Option<&Slot>,
    ) -> Result<(Reencryption, Receipt), Error> {
        let (tenant, _) = self.fresh_tenant(tenant).await?;
        let begun = self.system_answer::<[u8; 16]>(slot).await?.map(KeyId);
        let key = keys::session(tenant.tenant_ref().id, &Self::blind_session(&tenant, id));
        let [row] = self.read([key.clone()]).await?;
        let row = row.ok_or(Error::SessionNotFound)?;
        let (keys, former, session) = match self.open_session_row(&tenant, &key, &row)? {
            SessionRow::Ended(tombstone) => return Err(ended_for_all(&tombstone)),
            SessionRow::Live { keys, former, session } => (keys, former, session),
        };
        if session.end() <= self.clock.now() {
            return Err(Error::SessionExpired { at: session.end() });
        }
        attempt.about_session(&name_of(&session)?);
        attempt.event.kek = tenant.primary();
        attempt.event.dek = Some(keys.body_id());
        match (begun, former) {
            (Some(begun), Some(_)) if begun == keys.body_id() => {
                let walked = self.walk_anew(attempt, &tenant, &key, begun).await?;
                Ok(walked.answer(attempt.record().await?))
            }
            (Some(_), _) => Ok((Reencryption { finished: true }, attempt.record().await?)),
            (None, Some(_)) => {
                // Somebody else's: it ends before another can begin.
                self.walk_anew(attempt, &tenant, &key, keys.body_id()).await?;
                Err(Error::Contended)
            }
            (None, None) => {
                let mut batch = Batch::default();
                let at = self.clock.now();
                let turnover = self.begin_anew(&tenant, (&key, &row), (&keys, &session), at, &mut batch)?;
                attempt.event.dek = Some(turnover.keys.body_id());
                if let Some(slot) = slot {
                    slot.give(self, &self.system_answer_key(), &turnover.keys.body_id().0, &mut batch)?;
                }
                let receipt = attempt.commit(batch, None).await?;
                Ok(self.walked_or_left(attempt, &tenant, &turnover).await?.answer(receipt))
            }
        }
    }

    /// Walks over a session whose turnover has begun: what ends the walk early is no failure of that, but for damage.
    async fn walked_or_left(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        turnover: &Turnover,
    ) -> Result<Walked, Error> {
        match self.walk_anew(attempt, tenant, &turnover.key, turnover.keys.body_id()).await {
            Err(error) if !matches!(error, Error::Integrity) => {
                tracing::warn!(%error, "a session is left to the sweeper to be encrypted anew");
                Ok(Walked { finished: false, receipt: None })
            }
            walked => walked,
        }
    }

    /// Adds new keys for a session to a batch.
    pub(super) fn begin_anew(
        &self,
        tenant: &Tenant,
        (key, row): (&Key, &Row),
        (former, session): (&SessionKeys, &SessionPayload),
        at: Timestamp,
        batch: &mut Batch,
    ) -> Result<Turnover, Error> {
        self.may_make_keys()?;
        let made = self.keyring.replace_session_keys(tenant, key, former)?;
        let sensitive = self.keyring.sensitive_key(tenant, key, former)?;
        let rekeyed = Rekeyed {
            origin: session.rekeyed.map_or(former.body_id().0, |rekeyed| rekeyed.origin),
            at: at.as_millis(),
            former: Some(FormerKeys { body: former.body_id().0, sensitive: sensitive.map(|(id, _)| id.0) }),
        };
        let session = SessionPayload { rekeyed: Some(rekeyed), ..session.clone() };
        let revision = row.revision()?.next();
        let metadata = self.seal_session(tenant, key, &made.keys, revision, &session)?;
        let (wrapped, wrapped_former) = (&made.wrapped, &made.former);
        let records =
            [Some(&wrapped.0), wrapped.1.as_ref(), Some(&wrapped_former.0), wrapped_former.1.as_ref()];
        let records: Vec<_> = records.into_iter().flatten().chain([&metadata]).collect();
        let next = Row::new(revision, &records);
        // The version that all are wrapped under must still be the primary when they are stored.
        batch.expect.push((tenant.row_key().clone(), RowExpect::Revision(tenant.revision())));
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        batch.put.push((key.clone(), next.clone()));
        batch.put.push((begun_row(key, rekeyed.at), Row::marker()));
        let (key, session) = (key.clone(), Arc::new(session));
        Ok(Turnover { key, row: next, keys: made.keys, former: former.clone(), session })
    }

    /// A session that has two pairs of keys, the newer one of which is this.
    async fn turnover(&self, tenant: &Tenant, key: &Key, body: KeyId) -> Result<Option<Turnover>, Error> {
        let [Some(row)] = self.read([key.clone()]).await? else { return Ok(None) };
        match self.peek_session_row(tenant, key, &row)? {
            SessionRow::Live { keys, former: Some(former), session } if keys.body_id() == body => {
                Ok(Some(Turnover { key: key.clone(), row, keys, former, session }))
            }
            SessionRow::Live { .. } | SessionRow::Ended(_) => Ok(None),
        }
    }

    /// Seals what is under the former keys of a session anew, in bounded parts, and not too many.
    async fn walk_anew(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        key: &Key,
        body: KeyId,
    ) -> Result<Walked, Error> {
        let mut walked = Walked { finished: false, receipt: None };
        let mut after = self.places.of(key, body);
        for _ in 0..PARTS {
            let Some(turnover) = self.turnover(tenant, key, body).await? else {
                // Somebody else has finished it, or it has ended.
                return Ok(Walked { finished: true, ..walked });
            };
            let mut part = self.seal_anew(tenant, &turnover, after.clone()).await?;
            let is_last = part.after.is_none();
            let forgetting = is_last.then(|| self.forgetting_session(key));
            if is_last {
                self.end_anew(tenant, &turnover, &mut part.batch)?;
            }
            attempt.touched(part.records);
            match attempt.commit(part.batch, forgetting).await {
                Err(Error::Contended) => continue,
                receipt => walked.receipt = Some(receipt?),
            }
            if is_last {
                self.places.forget(key);
                return Ok(Walked { finished: true, ..walked });
            }
            after = part.after;
        }
        self.places.remember(key, body, after);
        Ok(walked)
    }

    /// Seals the next rows behind a place under the new keys.
    pub(super) async fn seal_anew(
        &self,
        tenant: &Tenant,
        turnover: &Turnover,
        after: Option<Key>,
    ) -> Result<Sealing, Error> {
        let expect = vec![(turnover.key.clone(), RowExpect::unchanged(Some(&turnover.row)))];
        let mut sealing = Sealing { batch: Batch { expect, ..Batch::default() }, records: 0, after: None };
        let mut after = after.unwrap_or_else(|| turnover.key.clone());
        let mut bytes = 0;
        loop {
            let range = ScanRange {
                after: Some(after.clone()),
                ..ScanRange::prefix(keys::rows_of_session(&turnover.key))
            };
            let rows = self.engine.scan(range, SCAN_ROWS).await?;
            for (key, row) in &rows {
                if bytes >= PART_BYTES || sealing.records >= PART_ROWS {
                    sealing.after = Some(after);
                    return Ok(sealing);
                }
                if let Some(sealed) = self.sealed_anew(tenant, turnover, key, row)? {
                    bytes += sealed.as_bytes().len();
                    sealing.records += 1;
                    sealing.batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
                    sealing.batch.put.push((key.clone(), sealed));
                }
                after = key.clone();
            }
            if rows.len() < SCAN_ROWS {
                return Ok(sealing);
            }
            tokio::task::yield_now().await;
        }
    }

    /// A row under the new keys, unless it is that already.
    fn sealed_anew(
        &self,
        tenant: &Tenant,
        turnover: &Turnover,
        key: &Key,
        row: &Row,
    ) -> Result<Option<Row>, Error> {
        let (record, _) = halves(row)?;
        if Header::named_key(record) == Some(turnover.keys.body_id()) {
            return Ok(None);
        }
        let place = self.place(tenant, key);
        let plain = open(turnover.former.body(), row_header(&turnover.former, key, row)?, &place, record)?;
        let header = row_header(&turnover.keys, key, row)?;
        let sealed = seal(turnover.keys.body(), header, &place, plain.as_bytes(), &*self.entropy)?;
        let overlay = self.overlay_anew(tenant, turnover, (key, row))?;
        let records: Vec<_> = std::iter::once(&sealed).chain(&overlay).collect();
        Ok(Some(Row::new(row.revision()?, &records)))
    }

    /// Adds to the batch with the last rows that the session's former keys go.
    pub(super) fn end_anew(
        &self,
        tenant: &Tenant,
        turnover: &Turnover,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let rekeyed = turnover.session.rekeyed.ok_or(Error::Internal)?;
        let mut session = SessionPayload::clone(&turnover.session);
        session.rekeyed = Some(Rekeyed { former: None, ..rekeyed });
        let revision = turnover.row.revision()?.next();
        let metadata = self.seal_session(tenant, &turnover.key, &turnover.keys, revision, &session)?;
        let keys = 1 + usize::from(turnover.keys.has_sensitive());
        let parts: Vec<_> = (0..keys).map(Part::Kept).chain([Part::New(&metadata)]).collect();
        batch.put.push((turnover.key.clone(), turnover.row.rebuilt(revision, &parts)?));
        batch.delete.push(begun_row(&turnover.key, rekeyed.at));
        Ok(())
    }

    /// What a commit runs with which a session's former keys go: nothing of them stays in memory.
    pub(super) fn forgetting_session(&self, key: &Key) -> Announcement {
        let (keyring, sessions, key) = (Arc::clone(&self.keyring), self.sessions.clone(), key.clone());
        Box::new(move || {
            keyring.forget_session_keys(&key);
            sessions.forget(&key);
        })
    }

    /// Goes on with a session that was left on its way to new keys; says whether it has them now, or needs none.
    pub(super) async fn sweep_anew(&self, tenant: &Tenant, key: &Key) -> Result<bool, Error> {
        let [Some(row)] = self.read([key.clone()]).await? else { return Ok(true) };
        let (keys, session) = match self.peek_session_row(tenant, key, &row) {
            Ok(SessionRow::Live { keys, former: Some(_), session }) => (keys, session),
            Ok(SessionRow::Live { .. } | SessionRow::Ended(_)) | Err(Error::KeyDestroyed) => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut attempt = self.own_attempt(tenant, Operation::KeyReencrypt);
        attempt.about_session(&name_of(&session)?);
        attempt.event.dek = Some(keys.body_id());
        Ok(self.walk_anew(&mut attempt, tenant, key, keys.body_id()).await?.finished)
    }
}

impl Walked {
    /// The answer, on record by the end of the walk or else where `receipt` says.
    fn answer(self, receipt: Receipt) -> (Reencryption, Receipt) {
        (Reencryption { finished: self.finished }, self.receipt.unwrap_or(receipt))
    }
}

/// The row of the expiry index by which the sweeper finds a session that was left on its way to new keys.
fn begun_row(session: &Key, at: u64) -> Key {
    keys::expiry(Timestamp::from_millis(at).after(LEFT_BEHIND), &keys::reencryption(session))
}
