//! Entries: named values that are read, replaced and deleted, each change with a condition if the caller wants one.
//!
//! A deleted or expired entry leaves a tombstone with its revision until the session ends, so that revisions never go
//! back: that is what makes them fencing tokens.

use bytes::Bytes;

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::expiry::Bounds;
use super::opened::{Opened, domain, move_expiry};
use super::payload::{self, EntryPayload, stored_labels};
use super::session::slot_keys;
use super::view::{Answer, DeleteEntry, EntryDescription, EntryWithValue, PutEntry, Repeat, SessionName};
use super::{Error, Failure, Problem, Service};
use crate::audit::{Event, Operation};
use crate::auth::{Permit, Read, ReadFull, Write};
use crate::commit::Receipt;
use crate::crypto::{Blinded, Header, Kind, Plaintext, content_hash, open, open_start, seal, seal_parts};
use crate::keyring::Tenant;
use crate::model::limits::{ENTRY_TTL_MIN, TTL_MAX};
use crate::model::{EntryKey, Expect, Revision, Timestamp, View};
use crate::store::{Batch, Key, Row, RowExpect, keys};

const ENTRY_TTL: Bounds = Bounds { field: "put.expiration", min: ENTRY_TTL_MIN, max: TTL_MAX };

/// The right to read, and in which view.
#[derive(Debug, Clone)]
pub enum Reading {
    /// Redacted views.
    Redacted(Permit<Read>),
    /// Full views.
    Full(Permit<ReadFull>),
}

impl Reading {
    /// The view.
    #[must_use]
    pub const fn view(&self) -> View {
        match self {
            Self::Redacted(_) => View::Redacted,
            Self::Full(_) => View::Full,
        }
    }
}

/// What stands under an entry's key.
pub(super) enum Slotted {
    /// Nothing.
    Absent,
    /// A tombstone, or an entry whose time is over.
    Gone {
        revision: Revision,
        /// The end that the expiry index still knows.
        indexed: Option<Timestamp>,
    },
    /// An entry.
    Live { revision: Revision, entry: EntryPayload },
}

impl Slotted {
    /// The revision that callers see.
    const fn current(&self) -> Option<Revision> {
        match self {
            Self::Live { revision, .. } => Some(*revision),
            Self::Absent | Self::Gone { .. } => None,
        }
    }

    /// The revision that the next change makes.
    const fn next(&self) -> Revision {
        match self {
            Self::Absent => Revision::FIRST,
            Self::Gone { revision, .. } | Self::Live { revision, .. } => revision.next(),
        }
    }

    fn indexed(&self) -> Option<Timestamp> {
        match self {
            Self::Absent => None,
            Self::Gone { indexed, .. } => *indexed,
            Self::Live { entry, .. } => expiry_of(entry),
        }
    }
}

fn expiry_of(entry: &EntryPayload) -> Option<Timestamp> {
    (entry.expires != 0).then(|| Timestamp::from_millis(entry.expires))
}

impl Service {
    /// Begins a use case that reads.
    pub(super) async fn attempt_reading(
        &self,
        reading: &Reading,
        redacted: Operation,
        full: Operation,
    ) -> Result<(Attempt<'_>, std::sync::Arc<Tenant>), Failure> {
        let (mut attempt, tenant) = match reading {
            Reading::Redacted(permit) => self.attempt(permit, redacted).await?,
            Reading::Full(permit) => self.attempt(permit, full).await?,
        };
        attempt.event.view = Some(reading.view());
        Ok((attempt, tenant))
    }

    /// Creates or replaces an entry.
    ///
    /// # Errors
    /// [`Error::RevisionMismatch`] when the condition does not hold.
    pub async fn put_entry(
        &self,
        permit: &Permit<Write>,
        name: &SessionName,
        put: &PutEntry,
        repeat: Option<Repeat>,
    ) -> Result<Answer<EntryDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::EntryPut).await?;
        attempt.about_session(name);
        attempt.about(domain::ENTRY, put.key.as_str());
        attempt.event.bytes_in = put.value.len() as u64;
        let slot = repeat.map(|repeat| Opened::name_slot(self, &tenant, permit, repeat));
        let _turn = self.stripes.hold([entry_key(&tenant, name, &put.key)].iter()).await;
        let outcome = until_won!(self.put_once(&mut attempt, &tenant, name, put, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn put_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        put: &PutEntry,
        slot: Option<&Slot>,
    ) -> Result<(EntryDescription, Receipt), Error> {
        let key = entry_key(tenant, name, &put.key);
        let opened = self.open_session(tenant, name, |_| with(key.clone(), slot)).await?;
        let (row, answers) = opened.rows.split_first().ok_or(Error::Internal)?;
        if let Some(given) = opened.given::<EntryDescription>(self, slot, answers)? {
            attempt.seen_revision(given.revision);
            return Ok((given, attempt.record().await?));
        }
        let mut batch = opened.batch();
        let (description, hash) = self.stage_put(&opened, &key, row.as_ref(), put, &mut batch)?;
        self.renew(&opened, &mut batch)?;
        opened.give(self, slot, &description, &mut batch)?;
        attempt.event.content_hash = Some(hash);
        attempt.event.dek = Some(opened.keys.body_id());
        attempt.at_revision(Revision::new(description.revision).ok_or(Error::Internal)?);
        let change = self.hub.changing(&opened, vec![(put.key.clone(), description.revision, false)]);
        Ok((description, attempt.commit(batch, Some(change)).await?))
    }

    /// Adds a put to a batch, with the condition on the row that it was decided on.
    pub(super) fn stage_put(
        &self,
        opened: &Opened,
        key: &Key,
        row: Option<&Row>,
        put: &PutEntry,
        batch: &mut Batch,
    ) -> Result<(EntryDescription, [u8; 32]), Error> {
        let max = self.limits.value_bytes;
        if put.value.len() > max {
            return Err(Error::invalid("put.value", Problem::TooLarge { max }));
        }
        let found = self.look(opened, key, row)?;
        check(put.expect, &found)?;
        let entry = new_entry(opened, &found, put)?;
        let revision = found.next();
        let metadata = payload::encode(&entry)?;
        let header = Header { kind: Kind::Entry, key_id: opened.keys.body_id(), revision: revision.get() };
        let place = self.place(&opened.tenant, key);
        let parts = [metadata.as_slice(), put.value.as_ref()];
        let record = seal_parts(opened.keys.body(), header, &place, &parts, &*self.entropy)?;
        let stored = Row::new(revision, &[&record]);
        let hash = content_hash(stored.as_bytes());

        batch.expect.push((key.clone(), RowExpect::unchanged(row)));
        move_entry_expiry(batch, key, found.indexed(), expiry_of(&entry));
        batch.put.push((key.clone(), stored));
        Ok((EntryDescription::new(entry, revision), hash))
    }

    /// Returns an entry.
    ///
    /// # Errors
    /// [`Error::EntryNotFound`], [`Error::RevisionBehind`].
    pub async fn read_entry(
        &self,
        reading: &Reading,
        name: &SessionName,
        key: &EntryKey,
        min_revision: Option<Revision>,
    ) -> Result<Answer<EntryWithValue>, Failure> {
        let (mut attempt, tenant) =
            self.attempt_reading(reading, Operation::EntryRead, Operation::EntryReveal).await?;
        attempt.about_session(name);
        attempt.about(domain::ENTRY, key.as_str());
        let outcome = self.read_once(&mut attempt, &tenant, name, key, reading.view(), min_revision).await;
        attempt.close(outcome).await
    }

    async fn read_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        key: &EntryKey,
        view: View,
        min_revision: Option<Revision>,
    ) -> Result<(EntryWithValue, Receipt), Error> {
        let row_key = entry_key(tenant, name, key);
        let opened = self.open_session(tenant, name, |_| vec![row_key.clone()]).await?;
        opened.check_view(view)?;
        let row = opened.rows.first().ok_or(Error::Internal)?;
        let (entry, revision) =
            self.open_entry(&opened, &row_key, row.as_ref())?.ok_or(Error::EntryNotFound)?;
        if min_revision.is_some_and(|min| revision < min) {
            return Err(Error::RevisionBehind { found: revision });
        }
        attempt.at_revision(revision);
        attempt.event.bytes_out = entry.value.len() as u64;
        attempt.event.dek = Some(opened.keys.body_id());
        Ok((entry, self.record_use(attempt, &opened).await?))
    }

    /// Commits the event of a read, and with it the renewal of the session's idle time when that is due.
    pub(super) async fn record_use(&self, attempt: &Attempt<'_>, opened: &Opened) -> Result<Receipt, Error> {
        self.record_uses(attempt, opened, vec![attempt.event]).await
    }

    /// The same for several events.
    pub(super) async fn record_uses(
        &self,
        attempt: &Attempt<'_>,
        opened: &Opened,
        events: Vec<Event>,
    ) -> Result<Receipt, Error> {
        let mut renewal = opened.batch();
        self.renew(opened, &mut renewal)?;
        if renewal.put.is_empty() {
            return attempt.commit_events(Batch::default(), events, None).await;
        }
        match attempt.commit_events(renewal, events.clone(), None).await {
            // Somebody else changed the session meanwhile; what was read is still what was there.
            Err(Error::Contended) => attempt.commit_events(Batch::default(), events, None).await,
            outcome => outcome,
        }
    }

    /// Opens the entry in a row, unless there is none or its time is over.
    pub(super) fn open_entry(
        &self,
        opened: &Opened,
        key: &Key,
        row: Option<&Row>,
    ) -> Result<Option<(EntryWithValue, Revision)>, Error> {
        let Some(row) = row else {
            return Ok(None);
        };
        if is_tombstone(row) {
            return self.open_record(opened, key, row, Kind::EntryTombstone).map(|_| None);
        }
        let revision = row.revision()?;
        let [record] = row.exactly()?;
        let header = Header { kind: Kind::Entry, key_id: opened.keys.body_id(), revision: revision.get() };
        let plain = open(opened.keys.body(), header, &self.place(&opened.tenant, key), record)?;
        let (entry, value): (EntryPayload, _) = payload::decode_start(plain.as_bytes())?;
        if value.len() as u64 != entry.size {
            return Err(Error::Integrity);
        }
        if entry.ended(opened.now) {
            return Ok(None);
        }
        let value = Bytes::copy_from_slice(value);
        Ok(Some((EntryWithValue { description: EntryDescription::new(entry, revision), value }, revision)))
    }

    /// Looks at what stands under a key, without opening more of the value than its first chunk.
    pub(super) fn look(&self, opened: &Opened, key: &Key, row: Option<&Row>) -> Result<Slotted, Error> {
        let Some(row) = row else {
            return Ok(Slotted::Absent);
        };
        let revision = row.revision()?;
        if is_tombstone(row) {
            self.open_record(opened, key, row, Kind::EntryTombstone)?;
            return Ok(Slotted::Gone { revision, indexed: None });
        }
        let plain = self.open_record(opened, key, row, Kind::Entry)?;
        let (entry, _): (EntryPayload, _) = payload::decode_start(plain.as_bytes())?;
        if entry.ended(opened.now) {
            return Ok(Slotted::Gone { revision, indexed: expiry_of(&entry) });
        }
        Ok(Slotted::Live { revision, entry })
    }

    fn open_record(&self, opened: &Opened, key: &Key, row: &Row, kind: Kind) -> Result<Plaintext, Error> {
        let [record] = row.exactly()?;
        let header = Header { kind, key_id: opened.keys.body_id(), revision: row.revision()?.get() };
        Ok(open_start(opened.keys.body(), header, &self.place(&opened.tenant, key), record)?)
    }

    /// Deletes an entry; with a reading, its last value comes back, to exactly one caller.
    ///
    /// # Errors
    /// [`Error::EntryNotFound`], [`Error::RevisionMismatch`].
    pub async fn delete_entry(
        &self,
        permit: &Permit<Write>,
        name: &SessionName,
        delete: &DeleteEntry,
        reading: Option<&Reading>,
        repeat: Option<Repeat>,
    ) -> Result<Answer<(u64, Option<EntryWithValue>)>, Failure> {
        let operation = if reading.is_some() { Operation::EntryConsume } else { Operation::EntryDelete };
        let (mut attempt, tenant) = self.attempt(permit, operation).await?;
        attempt.about_session(name);
        attempt.about(domain::ENTRY, delete.key.as_str());
        attempt.event.view = reading.map(Reading::view);
        let slot = repeat.map(|repeat| Opened::name_slot(self, &tenant, permit, repeat));
        let _turn = self.stripes.hold([entry_key(&tenant, name, &delete.key)].iter()).await;
        let view = reading.map(Reading::view);
        let outcome = until_won!(
            self.delete_entry_once(&mut attempt, &tenant, name, delete, view, slot.as_ref()).await
        );
        attempt.close(outcome).await
    }

    async fn delete_entry_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        delete: &DeleteEntry,
        view: Option<View>,
        slot: Option<&Slot>,
    ) -> Result<((u64, Option<EntryWithValue>), Receipt), Error> {
        let key = entry_key(tenant, name, &delete.key);
        let opened = self.open_session(tenant, name, |_| with(key.clone(), slot)).await?;
        let (row, answers) = opened.rows.split_first().ok_or(Error::Internal)?;
        if let Some(given) = opened.given::<(u64, Option<EntryWithValue>)>(self, slot, answers)? {
            attempt.seen_revision(given.0);
            attempt.event.bytes_out = bytes_of(given.1.as_ref());
            return Ok((given, attempt.record().await?));
        }
        let value = match view {
            Some(view) => {
                opened.check_view(view)?;
                self.open_entry(&opened, &key, row.as_ref())?.map(|(entry, _)| entry)
            }
            None => None,
        };
        let mut batch = opened.batch();
        let revision = self.stage_delete(&opened, &key, row.as_ref(), delete, &mut batch)?;
        self.renew(&opened, &mut batch)?;
        attempt.event.bytes_out = bytes_of(value.as_ref());
        attempt.at_revision(revision);
        let answer = (revision.get(), value);
        opened.give(self, slot, &answer, &mut batch)?;
        let change = self.hub.changing(&opened, vec![(delete.key.clone(), revision.get(), true)]);
        Ok((answer, attempt.commit(batch, Some(change)).await?))
    }

    /// Adds a deletion to a batch, with the condition on the row that it was decided on.
    pub(super) fn stage_delete(
        &self,
        opened: &Opened,
        key: &Key,
        row: Option<&Row>,
        delete: &DeleteEntry,
        batch: &mut Batch,
    ) -> Result<Revision, Error> {
        let found = self.look(opened, key, row)?;
        match delete.expect {
            Expect::Any if found.current().is_none() => return Err(Error::EntryNotFound),
            expect @ (Expect::Any | Expect::Absent | Expect::Revision(_)) => check(expect, &found)?,
        }
        let revision = found.next();
        batch.expect.push((key.clone(), RowExpect::unchanged(row)));
        move_entry_expiry(batch, key, found.indexed(), None);
        batch.put.push((key.clone(), self.entry_tombstone(opened, key, revision)?));
        Ok(revision)
    }

    /// What is left of an entry: its revision, sealed.
    pub(super) fn entry_tombstone(
        &self,
        opened: &Opened,
        key: &Key,
        revision: Revision,
    ) -> Result<Row, Error> {
        let header =
            Header { kind: Kind::EntryTombstone, key_id: opened.keys.body_id(), revision: revision.get() };
        let place = self.place(&opened.tenant, key);
        let record = seal(opened.keys.body(), header, &place, &[], &*self.entropy)?;
        Ok(Row::new(revision, &[&record]))
    }
}

/// The row key of an entry, by its name.
pub(super) fn entry_key(tenant: &Tenant, name: &SessionName, key: &EntryKey) -> Key {
    let session = Service::blind_session(tenant, &name.id);
    keys::entry(tenant.tenant_ref().id, &session, &blind_entry(tenant, key))
}

fn blind_entry(tenant: &Tenant, key: &EntryKey) -> Blinded {
    tenant.index().blind(domain::ENTRY, &[key.as_bytes()])
}

fn bytes_of(entry: Option<&EntryWithValue>) -> u64 {
    entry.map_or(0, |entry| entry.value.len() as u64)
}

fn with(key: Key, slot: Option<&Slot>) -> Vec<Key> {
    let mut wanted = vec![key];
    wanted.extend(slot_keys(slot));
    wanted
}

/// Whether a row says of itself that it holds a tombstone; what it says is proven when it is opened.
fn is_tombstone(row: &Row) -> bool {
    row.exactly::<1>().is_ok_and(|[record]| Header::named_kind(record) == Some(Kind::EntryTombstone as u8))
}

fn check(expect: Expect, found: &Slotted) -> Result<(), Error> {
    let current = found.current();
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Revision(revision) => current == Some(revision),
    };
    if holds { Ok(()) } else { Err(Error::RevisionMismatch { current }) }
}

fn new_entry(opened: &Opened, found: &Slotted, put: &PutEntry) -> Result<EntryPayload, Error> {
    let now = opened.now.as_millis();
    let session_end = Timestamp::from_millis(opened.session.absolute_end);
    let end = ENTRY_TTL.end(put.expiry, opened.now)?.map(|end| end.min(session_end));
    let created = match found {
        Slotted::Live { entry, .. } => entry.created,
        Slotted::Absent | Slotted::Gone { .. } => now,
    };
    Ok(EntryPayload {
        key: put.key.as_str().to_owned(),
        size: put.value.len() as u64,
        content_type: put.content_type.as_str().to_owned(),
        created,
        updated: now,
        expires: end.map_or(0, Timestamp::as_millis),
        labels: stored_labels(&put.labels),
    })
}

fn move_entry_expiry(batch: &mut Batch, key: &Key, from: Option<Timestamp>, to: Option<Timestamp>) {
    match (from, to) {
        (Some(from), Some(to)) => move_expiry(batch, key, from, to),
        (Some(from), None) => batch.delete.push(keys::expiry(from, key)),
        (None, Some(to)) => batch.put.push((keys::expiry(to, key), Row::marker())),
        (None, None) => {}
    }
}
