//! Opening a session: the rows that a request depends on, read in one round trip and checked in one place.

use std::sync::Arc;

use super::hub::Announcement;
use super::memo::Memo;
use super::parted::halves;
use super::payload::{self, SessionPayload, StoredOwner, TombstonePayload};
use super::view::SessionName;
use super::{Error, Service};
use crate::crypto::{Blinded, Header, KeyId, Kind, Place, Sealed, open, seal};
use crate::keyring::{SessionKeys, Tenant};
use crate::model::limits::OPENED_SESSIONS;
use crate::model::{Owner, Revision, SessionId, TenantState, Timestamp, View};
use crate::store::{Batch, Key, Part, Row, RowExpect, SessionPart, keys};

/// Domains of blinded names.
pub(super) mod domain {
    pub(in crate::service) const SESSION: &str = "session";
    pub(in crate::service) const ENTRY: &str = "entry";
    pub(in crate::service) const STREAM: &str = "stream";
    pub(in crate::service) const REQUEST: &str = "request";
    pub(in crate::service) const TENANT: &str = "tenant";
    pub(in crate::service) const TOKEN: &str = "token";
}

/// Remembers the metadata that was opened from a session row. Cheap to clone.
#[derive(Clone)]
pub(super) struct SessionMemo(Arc<Memo<Arc<SessionPayload>>>);

impl Default for SessionMemo {
    fn default() -> Self {
        Self(Arc::new(Memo::new(OPENED_SESSIONS)))
    }
}

impl SessionMemo {
    /// Drops what is known of a session.
    pub(super) fn forget(&self, session: &Key) {
        self.0.forget(session);
    }

    /// Drops what is known of a tenant's sessions.
    pub(super) fn forget_tenant(&self, tenant: &Key) {
        self.0.forget_where(|session| session.tenant() == tenant.tenant());
    }
}

/// A session that may be used, and the rows that were read with it.
pub(super) struct Opened {
    pub(super) tenant: Arc<Tenant>,
    pub(super) id: Blinded,
    pub(super) key: Key,
    pub(super) row: Row,
    pub(super) keys: SessionKeys,
    /// The keys that rows may still be sealed under while the session is encrypted anew.
    pub(super) former: Option<SessionKeys>,
    pub(super) session: Arc<SessionPayload>,
    /// The rows under the extra keys, in their order.
    pub(super) rows: Vec<Option<Row>>,
    pub(super) now: Timestamp,
}

/// Remembers which session a stream began with: one that is made again under the same handle is another.
#[derive(Default)]
pub(super) struct Same(Option<KeyId>);

impl Same {
    /// Takes the first session for granted, and each later one only when it is the same.
    pub(super) fn check(&mut self, opened: &Opened) -> Result<(), Error> {
        let id = opened.origin();
        if *self.0.get_or_insert(id) == id { Ok(()) } else { Err(Error::SessionNotFound) }
    }
}

/// What a session row holds.
pub(super) enum SessionRow {
    /// Keys and metadata.
    Live { keys: SessionKeys, former: Option<SessionKeys>, session: Arc<SessionPayload> },
    /// What is left of it.
    Ended(TombstonePayload),
}

/// The records of a live session's row, each told by its kind.
struct Records<'a> {
    keys: WrappedKeys<'a>,
    former: Option<WrappedKeys<'a>>,
    metadata: &'a [u8],
}

/// A body key and, unless it was purged, a sensitive key.
struct WrappedKeys<'a> {
    body: &'a [u8],
    sensitive: Option<&'a [u8]>,
}

impl<'a> Records<'a> {
    /// The records of a row that has more than one. What a record says that it is, is proven when it is opened.
    fn of(records: &[&'a [u8]]) -> Result<Self, Error> {
        let is_body = |record: &[u8]| Header::named_kind(record) == Some(Kind::WrappedBodyDek as u8);
        let pair = |body, sensitive| WrappedKeys { body, sensitive };
        let (keys, former, metadata) = match *records {
            [body, metadata] => (pair(body, None), None, metadata),
            [body, former, metadata] if is_body(former) => {
                (pair(body, None), Some(pair(former, None)), metadata)
            }
            [body, sensitive, metadata] => (pair(body, Some(sensitive)), None, metadata),
            [body, sensitive, former_body, former_sensitive, metadata] => {
                (pair(body, Some(sensitive)), Some(pair(former_body, Some(former_sensitive))), metadata)
            }
            _ => return Err(Error::Integrity),
        };
        Ok(Self { keys, former, metadata })
    }
}

/// Of two keys, the one that a record names.
pub(super) fn opener<'a>(
    keys: &'a SessionKeys,
    former: Option<&'a SessionKeys>,
    record: &[u8],
) -> &'a SessionKeys {
    let named = Header::named_key(record);
    former.filter(|former| named == Some(former.body_id())).unwrap_or(keys)
}

impl Service {
    /// The blinded handle of a session.
    pub(super) fn blind_session(tenant: &Tenant, id: &SessionId) -> Blinded {
        tenant.index().blind(domain::SESSION, &[id.as_bytes()])
    }

    /// Reads the tenant's row, the session's row and `extra`, and opens the session for its owner.
    pub(super) async fn open_session(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        extra: impl FnOnce(&Blinded) -> Vec<Key>,
    ) -> Result<Opened, Error> {
        let id = Self::blind_session(tenant, &name.id);
        let key = keys::session(tenant.tenant_ref().id, &id);
        let mut wanted = vec![tenant.row_key().clone(), key.clone()];
        wanted.extend(extra(&id));
        let mut rows = self.engine.multi_get(&wanted).await?;
        let rest = rows.split_off(2.min(rows.len()));
        let row = rows.pop().flatten();
        let (tenant, _) = self.usable_tenant(tenant, rows.pop().flatten()).await?;
        let row = row.ok_or(Error::SessionNotFound)?;
        let now = self.clock.now();
        match self.open_session_row(&tenant, &key, &row)? {
            SessionRow::Live { keys, former, session } => {
                check_owner(session.owner.as_ref(), name.owner.as_ref())?;
                if session.end() <= now {
                    return Err(Error::SessionExpired { at: session.end() });
                }
                Ok(Opened { tenant, id, key, row, keys, former, session, rows: rest, now })
            }
            SessionRow::Ended(tombstone) => Err(ended(&tombstone, name.owner.as_ref())),
        }
    }

    /// What a commit runs that ends a session: it drops from memory what is known of it, its keys and its names, whether
    /// or not somebody still waits for the answer, and tells those who follow it.
    pub(super) fn ending(&self, tenant: &Tenant, session: Blinded, key: &Key) -> Announcement {
        let closing = self.hub.closing((tenant.tenant_ref().id, session));
        let forgetting = self.forgetting_session(key);
        Box::new(move || {
            forgetting();
            closing();
        })
    }

    /// The tenant as it is now, if its data may be used, and its row.
    pub(super) async fn usable_tenant(
        &self,
        known: &Tenant,
        row: Option<Row>,
    ) -> Result<(Arc<Tenant>, Row), Error> {
        let Some(row) = row else {
            self.tenants.forget(known.name());
            return Err(Error::TenantNotFound);
        };
        let (tenant, row) = self.tenant_now(known, row).await?;
        match tenant.state() {
            TenantState::Active => Ok((tenant, row)),
            TenantState::Suspended => Err(Error::TenantSuspended),
            TenantState::DestroyScheduled => Err(Error::TenantDestroyScheduled),
            TenantState::Destroyed => {
                self.tenants.forget(known.name());
                Err(Error::TenantNotFound)
            }
        }
    }

    /// Opens a session's row, whoever its owner is and whatever the time.
    pub(super) fn open_session_row(
        &self,
        tenant: &Tenant,
        key: &Key,
        row: &Row,
    ) -> Result<SessionRow, Error> {
        let records = row.records()?;
        if let [tombstone] = records.as_slice() {
            return self.open_tombstone(tenant, key, row, tombstone).map(SessionRow::Ended);
        }
        let records = Records::of(&records)?;
        // Asked every time, although it is remembered: it is where a disabled key version is noticed.
        let keys = self.keyring.open_session_keys(tenant, key, records.keys.body, records.keys.sensitive)?;
        let session = match self.sessions.0.of(key, row) {
            Some(session) => session,
            None => {
                let session = Arc::new(self.open_metadata(tenant, key, row, &keys, records.metadata)?);
                self.sessions.0.remember(key.clone(), row.clone(), Arc::clone(&session));
                session
            }
        };
        let former = self.open_former(tenant, key, records.former.as_ref(), &session)?;
        Ok(SessionRow::Live { keys, former, session })
    }

    /// The same, with nothing remembered: for walks over many sessions, which would drive out those in use.
    pub(super) fn peek_session_row(
        &self,
        tenant: &Tenant,
        key: &Key,
        row: &Row,
    ) -> Result<SessionRow, Error> {
        let records = row.records()?;
        if let [tombstone] = records.as_slice() {
            return self.open_tombstone(tenant, key, row, tombstone).map(SessionRow::Ended);
        }
        let records = Records::of(&records)?;
        let keys = self.keyring.peek_session_keys(tenant, key, records.keys.body, records.keys.sensitive)?;
        let session = Arc::new(self.open_metadata(tenant, key, row, &keys, records.metadata)?);
        let former = self.open_former(tenant, key, records.former.as_ref(), &session)?;
        Ok(SessionRow::Live { keys, former, session })
    }

    fn open_metadata(
        &self,
        tenant: &Tenant,
        key: &Key,
        row: &Row,
        keys: &SessionKeys,
        record: &[u8],
    ) -> Result<SessionPayload, Error> {
        let header = Header { kind: Kind::Session, key_id: keys.body_id(), revision: row.revision()?.get() };
        let opened = open(keys.body(), header, &self.place(tenant, key), record)?;
        let session = SessionPayload::decode(opened.as_bytes())?;
        if session.purged != keys.has_sensitive() { Ok(session) } else { Err(Error::Integrity) }
    }

    /// The former keys, which must be there if and only if the metadata name them: who puts old ones back must not have old
    /// rows opened.
    fn open_former(
        &self,
        tenant: &Tenant,
        key: &Key,
        wrapped: Option<&WrappedKeys<'_>>,
        session: &SessionPayload,
    ) -> Result<Option<SessionKeys>, Error> {
        // There is one slot for a row in memory, and that is for the keys that stay.
        let former =
            wrapped.map(|former| self.keyring.peek_session_keys(tenant, key, former.body, former.sensitive));
        let former = former.transpose()?;
        // Which sensitive key it must be is seen when that is opened.
        let found = former.as_ref().map(|former| (former.body_id().0, former.has_sensitive()));
        let named = session.former().map(|named| (named.body, named.sensitive.is_some()));
        if found == named { Ok(former) } else { Err(Error::Integrity) }
    }

    fn open_tombstone(
        &self,
        tenant: &Tenant,
        key: &Key,
        row: &Row,
        record: &[u8],
    ) -> Result<TombstonePayload, Error> {
        let header = tombstone_header(tenant, row.revision()?);
        let opened = open(tenant.control(), header, &self.place(tenant, key), record)?;
        payload::decode(opened.as_bytes())
    }

    /// Seals what is left of a session.
    pub(super) fn seal_tombstone(
        &self,
        tenant: &Tenant,
        key: &Key,
        revision: Revision,
        tombstone: &TombstonePayload,
    ) -> Result<Row, Error> {
        let plain = payload::encode(tombstone)?;
        let header = tombstone_header(tenant, revision);
        let place = self.place(tenant, key);
        let record = seal(tenant.control(), header, &place, &plain, &*self.entropy)?;
        Ok(Row::new(revision, &[&record]))
    }

    /// Seals a session's metadata.
    pub(super) fn seal_session(
        &self,
        tenant: &Tenant,
        key: &Key,
        keys: &SessionKeys,
        revision: Revision,
        session: &SessionPayload,
    ) -> Result<Sealed, Error> {
        let plain = session.encode()?;
        let header = Header { kind: Kind::Session, key_id: keys.body_id(), revision: revision.get() };
        Ok(seal(keys.body(), header, &self.place(tenant, key), &plain, &*self.entropy)?)
    }

    /// The place of a record in the session table.
    pub(super) fn place<'a>(&self, tenant: &Tenant, key: &'a Key) -> Place<'a> {
        Place {
            store: self.keyring.store_id(),
            tenant: tenant.tenant_ref(),
            session: key.session(),
            key: key.within_session(),
        }
    }

    /// The session's row with other metadata and the same keys.
    pub(super) fn replaced(&self, opened: &Opened, session: &SessionPayload) -> Result<Row, Error> {
        let revision = opened.row.revision()?.next();
        let record = self.seal_session(&opened.tenant, &opened.key, &opened.keys, revision, session)?;
        let keys = opened.row.records()?.len().saturating_sub(1);
        let parts: Vec<_> = (0..keys).map(Part::Kept).chain([Part::New(&record)]).collect();
        Ok(opened.row.rebuilt(revision, &parts)?)
    }

    /// The session's row without its sensitive keys.
    pub(super) fn without_sensitive(&self, opened: &Opened, session: &SessionPayload) -> Result<Row, Error> {
        let revision = opened.row.revision()?.next();
        let record = self.seal_session(&opened.tenant, &opened.key, &opened.keys, revision, session)?;
        let is_body = |record: &&[u8]| Header::named_kind(record) == Some(Kind::WrappedBodyDek as u8);
        let records = opened.row.records()?;
        let bodies = records.iter().enumerate().filter(|(_, record)| is_body(record));
        let parts: Vec<_> =
            bodies.map(|(number, _)| Part::Kept(number)).chain([Part::New(&record)]).collect();
        Ok(opened.row.rebuilt(revision, &parts)?)
    }

    /// What stood in a session's part after the session's row was read may be sealed under keys that this did not name yet:
    /// then damage is none, and it is to be read anew.
    pub(super) async fn unless_moved<T>(
        &self,
        (key, row): (&Key, &Row),
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        if !matches!(outcome, Err(Error::Integrity)) {
            return outcome;
        }
        let [now] = self.read([key.clone()]).await?;
        if now.as_ref() == Some(row) { outcome } else { Err(Error::Contended) }
    }

    /// What a use of the session adds to a batch: the idle end moves when a tenth of the idle lifetime has passed.
    pub(super) fn renew(&self, opened: &Opened, batch: &mut Batch) -> Result<(), Error> {
        let session = &opened.session;
        if session.idle_ttl == 0 {
            return Ok(());
        }
        let renewed = opened.now.as_millis().saturating_add(session.idle_ttl);
        if renewed.saturating_sub(session.idle_end) <= session.idle_ttl / 10 {
            return Ok(());
        }
        let renewed = SessionPayload { idle_end: renewed, ..SessionPayload::clone(session) };
        move_expiry(batch, &opened.key, session.end(), renewed.end());
        batch.put.push((opened.key.clone(), self.replaced(opened, &renewed)?));
        Ok(())
    }
}

impl Opened {
    /// The keys that a record of the session names, if they are known.
    pub(super) fn opener(&self, record: &[u8]) -> &SessionKeys {
        opener(&self.keys, self.former.as_ref(), record)
    }

    /// What names the session for ever, whatever its keys are: not even one that is made again under the same handle has
    /// the same.
    pub(super) fn origin(&self) -> KeyId {
        self.session.rekeyed.map_or_else(|| self.keys.body_id(), |rekeyed| KeyId(rekeyed.origin))
    }

    /// Refuses a full view of a session whose sensitive part was purged.
    pub(super) fn check_view(&self, view: View) -> Result<(), Error> {
        match (view, self.keys.has_sensitive()) {
            (View::Full, false) => Err(Error::SensitivePurged),
            (View::Redacted, _) | (View::Full, true) => Ok(()),
        }
    }

    /// A batch that is applied only while the session is as it was read, and the tenant, whose data may be used.
    pub(super) fn batch(&self) -> Batch {
        let tenant = (self.tenant.row_key().clone(), RowExpect::Revision(self.tenant.revision()));
        let expect = vec![tenant, (self.key.clone(), RowExpect::unchanged(Some(&self.row)))];
        Batch { expect, ..Batch::default() }
    }
}

/// Moves a row's place in the expiry index.
pub(super) fn move_expiry(batch: &mut Batch, row: &Key, from: Timestamp, to: Timestamp) {
    let (from, to) = (keys::expiry(from, row), keys::expiry(to, row));
    if from != to {
        batch.delete.push(from);
        batch.put.push((to, Row::marker()));
    }
}

/// A session's name, of its metadata.
pub(super) fn name_of(session: &SessionPayload) -> Result<SessionName, Error> {
    let id = SessionId::new(session.id.clone()).map_err(|_| Error::Integrity)?;
    let owner = session.owner.as_ref().map(StoredOwner::owner).transpose()?;
    Ok(SessionName { id, owner })
}

/// The id under which a tenant's control key seals.
pub(super) fn control_id(tenant: &Tenant) -> KeyId {
    KeyId(tenant.tenant_ref().id.0)
}

fn tombstone_header(tenant: &Tenant, revision: Revision) -> Header {
    Header { kind: Kind::SessionTombstone, key_id: control_id(tenant), revision: revision.get() }
}

/// What is said of a session that has ended to who may know of all.
pub(super) fn ended_for_all(tombstone: &TombstonePayload) -> Error {
    match tombstone.deleted {
        true => Error::SessionNotFound,
        false => Error::SessionExpired { at: Timestamp::from_millis(tombstone.ended) },
    }
}

/// The header that the record of a row behind a session's own must have, if it is sealed under these keys.
pub(super) fn row_header(keys: &SessionKeys, key: &Key, row: &Row) -> Result<Header, Error> {
    let (record, _) = halves(row)?;
    let is_tombstone = Header::named_kind(record) == Some(Kind::EntryTombstone as u8);
    let revision = row.revision()?;
    let kind = match key.within_session().first().copied() {
        Some(part) if part == SessionPart::Entry as u8 && is_tombstone => Kind::EntryTombstone,
        Some(part) if part == SessionPart::Entry as u8 => Kind::Entry,
        Some(part) if part == SessionPart::Stream as u8 => Kind::Stream,
        Some(part) if part == SessionPart::Event as u8 && revision == Revision::FIRST => Kind::Event,
        Some(_) | None => return Err(Error::Integrity),
    };
    Ok(Header { kind, key_id: keys.body_id(), revision: revision.get() })
}

fn ended(tombstone: &TombstonePayload, presented: Option<&Owner>) -> Error {
    match check_owner(tombstone.owner.as_ref(), presented) {
        Ok(()) => ended_for_all(tombstone),
        Err(error) => error,
    }
}

fn check_owner(stored: Option<&StoredOwner>, presented: Option<&Owner>) -> Result<(), Error> {
    match (stored, presented) {
        (None, None) => Ok(()),
        (Some(stored), Some(presented)) if stored.is(presented) => Ok(()),
        (None | Some(_), Some(_)) | (Some(_), None) => Err(Error::SessionNotFound),
    }
}
