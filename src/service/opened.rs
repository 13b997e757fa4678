//! Opening a session: the rows that a request depends on, read in one round trip and checked in one place.

use std::sync::Arc;

use super::hub::Announcement;
use super::memo::Memo;
use super::payload::{self, SessionPayload, StoredOwner, TombstonePayload};
use super::view::SessionName;
use super::{Error, Service};
use crate::crypto::{Blinded, Header, KeyId, Kind, Place, Sealed, open, seal};
use crate::keyring::{SessionKeys, Tenant};
use crate::model::limits::OPENED_SESSIONS;
use crate::model::{Owner, Revision, SessionId, TenantState, Timestamp, View};
use crate::store::{Batch, Key, Part, Row, RowExpect, keys};

/// Domains of blinded names.
pub(super) mod domain {
    pub(in crate::service) const SESSION: &str = "session";
    pub(in crate::service) const ENTRY: &str = "entry";
    pub(in crate::service) const STREAM: &str = "stream";
    pub(in crate::service) const REQUEST: &str = "request";
    pub(in crate::service) const TENANT: &str = "tenant";
    pub(in crate::service) const TOKEN: &str = "token";
}

/// Records of a session row, by number.
const BODY_KEY: usize = 0;
const SENSITIVE_KEY: usize = 1;

/// Remembers the metadata that was opened from a session row. Cheap to clone.
#[derive(Clone)]
pub(super) struct SessionMemo(Arc<Memo<Arc<SessionPayload>>>);

impl Default for SessionMemo {
    fn default() -> Self {
        Self(Arc::new(Memo::new(OPENED_SESSIONS)))
    }
}

impl SessionMemo {
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
        let id = opened.keys.body_id();
        if *self.0.get_or_insert(id) == id { Ok(()) } else { Err(Error::SessionNotFound) }
    }
}

/// What a session row holds.
pub(super) enum SessionRow {
    /// Keys and metadata.
    Live { keys: SessionKeys, session: Arc<SessionPayload> },
    /// What is left of it.
    Ended(TombstonePayload),
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
        let tenant = self.usable_tenant(tenant, rows.pop().flatten())?;
        let row = row.ok_or(Error::SessionNotFound)?;
        let now = self.clock.now();
        match self.open_session_row(&tenant, &key, &row)? {
            SessionRow::Live { keys, session } => {
                check_owner(session.owner.as_ref(), name.owner.as_ref())?;
                if session.end() <= now {
                    return Err(Error::SessionExpired { at: session.end() });
                }
                Ok(Opened { tenant, id, key, row, keys, session, rows: rest, now })
            }
            SessionRow::Ended(tombstone) => Err(ended(&tombstone, name.owner.as_ref())),
        }
    }

    /// What a commit runs that ends a session: it drops from memory what is known of it, its keys and its names, whether
    /// or not somebody still waits for the answer, and tells those who follow it.
    pub(super) fn ending(&self, tenant: &Tenant, session: Blinded, key: &Key) -> Announcement {
        let closing = self.hub.closing((tenant.tenant_ref().id, session));
        let (keyring, sessions, key) = (Arc::clone(&self.keyring), self.sessions.clone(), key.clone());
        Box::new(move || {
            keyring.forget_session_keys(&key);
            sessions.0.forget(&key);
            closing();
        })
    }

    /// The tenant as it is now, if its data may be used.
    pub(super) fn usable_tenant(&self, known: &Tenant, row: Option<Row>) -> Result<Arc<Tenant>, Error> {
        let Some(row) = row else {
            self.tenants.forget(known.name());
            return Err(Error::TenantNotFound);
        };
        let tenant = self.keyring.open_tenant(known.row_key(), &row)?;
        if tenant.revision() != known.revision() {
            // What is known by name holds keys, too, and must not outlive them.
            self.tenants.renew(&tenant);
        }
        match tenant.state() {
            TenantState::Active => Ok(tenant),
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
        let (body, sensitive, metadata) = match records.as_slice() {
            [body, sensitive, metadata] => (*body, Some(*sensitive), *metadata),
            [body, metadata] => (*body, None, *metadata),
            [tombstone] => return self.open_tombstone(tenant, key, row, tombstone).map(SessionRow::Ended),
            _ => return Err(Error::Integrity),
        };
        // Asked every time, although it is remembered: it is where a disabled key version is noticed.
        let keys = self.keyring.open_session_keys(tenant, key, body, sensitive)?;
        if let Some(session) = self.sessions.0.of(key, row) {
            return Ok(SessionRow::Live { keys, session });
        }
        let header = Header { kind: Kind::Session, key_id: keys.body_id(), revision: row.revision()?.get() };
        let opened = open(keys.body(), header, &self.place(tenant, key), metadata)?;
        let session: Arc<SessionPayload> = Arc::new(payload::decode(opened.as_bytes())?);
        if session.purged != sensitive.is_none() {
            return Err(Error::Integrity);
        }
        self.sessions.0.remember(key.clone(), row.clone(), Arc::clone(&session));
        Ok(SessionRow::Live { keys, session })
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
        let plain = payload::encode(session)?;
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
        let kept: &[Part<'_>] = match opened.keys.sensitive() {
            Some(_) => &[Part::Kept(BODY_KEY), Part::Kept(SENSITIVE_KEY), Part::New(&record)],
            None => &[Part::Kept(BODY_KEY), Part::New(&record)],
        };
        Ok(opened.row.rebuilt(revision, kept)?)
    }

    /// The session's row without its sensitive key.
    pub(super) fn without_sensitive(&self, opened: &Opened, session: &SessionPayload) -> Result<Row, Error> {
        let revision = opened.row.revision()?.next();
        let record = self.seal_session(&opened.tenant, &opened.key, &opened.keys, revision, session)?;
        Ok(opened.row.rebuilt(revision, &[Part::Kept(BODY_KEY), Part::New(&record)])?)
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
    /// Refuses a full view of a session whose sensitive part was purged.
    pub(super) fn check_view(&self, view: View) -> Result<(), Error> {
        match (view, self.keys.sensitive()) {
            (View::Full, None) => Err(Error::SensitivePurged),
            (View::Redacted, _) | (View::Full, Some(_)) => Ok(()),
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

/// The id under which a tenant's control key seals.
pub(super) fn control_id(tenant: &Tenant) -> KeyId {
    KeyId(tenant.tenant_ref().id.0)
}

fn tombstone_header(tenant: &Tenant, revision: Revision) -> Header {
    Header { kind: Kind::SessionTombstone, key_id: control_id(tenant), revision: revision.get() }
}

fn ended(tombstone: &TombstonePayload, presented: Option<&Owner>) -> Error {
    if tombstone.deleted || check_owner(tombstone.owner.as_ref(), presented).is_err() {
        Error::SessionNotFound
    } else {
        Error::SessionExpired { at: Timestamp::from_millis(tombstone.ended) }
    }
}

fn check_owner(stored: Option<&StoredOwner>, presented: Option<&Owner>) -> Result<(), Error> {
    match (stored, presented) {
        (None, None) => Ok(()),
        (Some(stored), Some(presented)) if stored.is(presented) => Ok(()),
        (None | Some(_), Some(_)) | (Some(_), None) => Err(Error::SessionNotFound),
    }
}
