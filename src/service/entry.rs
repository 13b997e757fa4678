//! Entries: named values that are read, replaced and deleted, each change with a condition if the caller wants one.
//!
//! A deleted or expired entry leaves a tombstone with its revision until the session ends, so that revisions never go
//! back: that is what makes them fencing tokens.

use std::sync::Arc;

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::cursor::{CursorScope, page_size};
use super::entry_row::{Slotted, expiry_of};
use super::expiry::Bounds;
use super::opened::{Opened, domain, move_expiry};
use super::parted::{self, Parted, Remembered};
use super::payload::{EntryPayload, stored_labels};
use super::session::slot_keys;
use super::view::{
    Answer, DeleteEntry, EntryDescription, EntryWithValue, Page, PageRequest, PutEntry, Repeat, SessionName,
};
use super::{Error, Failure, Problem, Reported, Service};
use crate::audit::{Event, Operation};
use crate::auth::{Permit, Read, ReadFull, Write};
use crate::commit::Receipt;
use crate::crypto::{Blinded, content_hash};
use crate::keyring::Tenant;
use crate::model::limits::{ENTRY_TTL_MIN, PAGE_SCAN_ROWS, TTL_MAX};
use crate::model::{EntryKey, Expect, Revision, Timestamp, View};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, SessionPart, keys};

const ENTRY_TTL: Bounds = Bounds { field: "put.expiration", min: ENTRY_TTL_MIN, max: TTL_MAX };

/// How many rows one scan step brings into memory: with the largest values 256 MiB, with usual ones a few KiB.
const SCAN_STEP: usize = 16;

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
    ) -> Result<Answer<(EntryDescription, Vec<Reported>)>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::EntryPut).await?;
        attempt.about_session(name);
        attempt.about(domain::ENTRY, put.key.as_str());
        attempt.event.bytes_in = put.value.len() as u64;
        let slot = repeat.map(|repeat| Opened::name_slot(self, &tenant, permit, repeat));
        let _turn = self.stripes.hold([entry_key(&tenant, name, &put.key)].iter()).await;
        let parted = match self.part_put(&tenant, put).await {
            Ok(parted) => parted,
            Err(error) => return attempt.close(Err(error)).await,
        };
        attempt.event.redaction = parted.redaction();
        let outcome =
            until_won!(self.put_once(&mut attempt, &tenant, name, (put, &parted), slot.as_ref()).await);
        let answer = attempt.close(outcome).await?;
        Ok(answer.map(|entry| (entry, parted.report)))
    }

    async fn put_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        (put, parted): (&PutEntry, &Parted),
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
        let (description, hash) = self.stage_put(&opened, (&key, row.as_ref()), (put, parted), &mut batch)?;
        self.renew(&opened, &mut batch)?;
        opened.give(self, slot, &description, &mut batch)?;
        attempt.event.content_hash = Some(hash);
        attempt.event.dek = Some(opened.keys.body_id());
        attempt.at_revision(Revision::new(description.revision).ok_or(Error::Internal)?);
        let change = self.hub.changing(&opened, vec![(put.key.clone(), description.revision, false)]);
        Ok((description, attempt.commit(batch, Some(change)).await?))
    }

    /// Takes the value of a put apart.
    pub(super) async fn part_put(&self, tenant: &Arc<Tenant>, put: &PutEntry) -> Result<Parted, Error> {
        let max = self.limits.value_bytes;
        if put.value.len() > max {
            return Err(Error::invalid("put.value", Problem::TooLarge { max }));
        }
        self.part(tenant, &put.value).await
    }

    /// Adds a put to a batch, with the condition on the row that it was decided on.
    pub(super) fn stage_put(
        &self,
        opened: &Opened,
        (key, row): (&Key, Option<&Row>),
        (put, parted): (&PutEntry, &Parted),
        batch: &mut Batch,
    ) -> Result<(EntryDescription, [u8; 32]), Error> {
        let found = self.look(opened, key, row)?;
        check(put.expect, &found)?;
        let entry = EntryPayload { parting: parted.parting(&opened.keys), ..new_entry(opened, &found, put)? };
        let revision = found.next();
        let stored = self.parted_row(opened, (key, revision), parted::ENTRY, &entry.encode()?, parted)?;
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
            self.open_entry(&opened, &row_key, row.as_ref(), view)?.ok_or(Error::EntryNotFound)?;
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
        if let Some(given) = opened.given::<Remembered<(u64, Option<EntryWithValue>)>>(self, slot, answers)? {
            let given = self.recalled(&opened, &key, given)?;
            attempt.seen_revision(given.0);
            attempt.event.bytes_out = bytes_of(given.1.as_ref());
            return Ok((given, attempt.record().await?));
        }
        let read = |view| {
            self.open_entry(&opened, &key, row.as_ref(), view).map(|found| found.map(|(entry, _)| entry))
        };
        let (value, redacted) = match view {
            Some(view) => {
                opened.check_view(view)?;
                (read(view)?, read(View::Redacted)?)
            }
            None => (None, None),
        };
        let mut batch = opened.batch();
        let revision = self.stage_delete(&opened, &key, row.as_ref(), delete, &mut batch)?;
        self.renew(&opened, &mut batch)?;
        attempt.event.bytes_out = bytes_of(value.as_ref());
        attempt.at_revision(revision);
        let answer = (revision.get(), value);
        if slot.is_some() {
            let full = row.as_ref().filter(|_| view == Some(View::Full));
            opened.give(self, slot, &Remembered::new((revision.get(), redacted), full)?, &mut batch)?;
        }
        let change = self.hub.changing(&opened, vec![(delete.key.clone(), revision.get(), true)]);
        Ok((answer, attempt.commit(batch, Some(change)).await?))
    }

    /// The remembered answer to a deletion, with its value as whole as it was given.
    fn recalled(
        &self,
        opened: &Opened,
        key: &Key,
        given: Remembered<(u64, Option<EntryWithValue>)>,
    ) -> Result<(u64, Option<EntryWithValue>), Error> {
        let whole = match &given.value.1 {
            Some(entry) => given.whole(self, opened, key, &entry.value)?,
            None => None,
        };
        let (revision, entry) = given.value;
        Ok((
            revision,
            entry.map(|entry| EntryWithValue { value: whole.unwrap_or(entry.value.clone()), ..entry }),
        ))
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
        if delete.expect == Expect::Any && found.current().is_none() {
            return Err(Error::EntryNotFound);
        }
        check(delete.expect, &found)?;
        let revision = found.next();
        batch.expect.push((key.clone(), RowExpect::unchanged(row)));
        move_entry_expiry(batch, key, found.indexed(), None);
        batch.put.push((key.clone(), self.entry_tombstone(opened, key, revision)?));
        Ok(revision)
    }

    /// Lists a session's entries, without their values.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong page token.
    pub async fn list_entries(
        &self,
        permit: &Permit<Read>,
        name: &SessionName,
        page: &PageRequest,
    ) -> Result<Answer<Page<EntryDescription>>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::EntryList).await?;
        attempt.about_session(name);
        let outcome = until_won!(self.list_entries_once(&mut attempt, &tenant, name, page).await);
        attempt.close(outcome).await
    }

    async fn list_entries_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        page: &PageRequest,
    ) -> Result<(Page<EntryDescription>, Receipt), Error> {
        let opened = self.open_session(tenant, name, |_| Vec::new()).await?;
        let mut request = b"entries".to_vec();
        request.extend_from_slice(&opened.id);
        let tenant = &opened.tenant;
        let scope =
            CursorScope { key: tenant.control(), tenant: tenant.tenant_ref(), field: "page_token", request };
        let after = scope.open(self, &page.token)?.map(Key::from_stored);
        let (items, last) = self.entries_after(&opened, after, page_size(page.size)).await?;
        let next = last.map_or(Ok(String::new()), |last| scope.seal(self, last.as_bytes()))?;
        attempt.touched(items.len());
        Ok((Page { items, next }, self.record_use(attempt, &opened).await?))
    }

    /// Live entries after a key, and the last key looked at unless there is nothing more.
    ///
    /// [`Error::Contended`] when the session got new keys meanwhile.
    pub(super) async fn entries_after(
        &self,
        opened: &Opened,
        after: Option<Key>,
        size: usize,
    ) -> Result<(Vec<EntryDescription>, Option<Key>), Error> {
        let found = self.entries_after_once(opened, after, size).await;
        self.unless_moved((&opened.key, &opened.row), found).await
    }

    async fn entries_after_once(
        &self,
        opened: &Opened,
        mut after: Option<Key>,
        size: usize,
    ) -> Result<(Vec<EntryDescription>, Option<Key>), Error> {
        let prefix = keys::session_part(opened.tenant.tenant_ref().id, &opened.id, SessionPart::Entry);
        let mut items = Vec::new();
        for _ in 0..PAGE_SCAN_ROWS / SCAN_STEP {
            let step = SCAN_STEP.min(size - items.len());
            let range = ScanRange { after: after.clone(), ..ScanRange::prefix(prefix.clone()) };
            let rows = self.engine.scan(range, step).await?;
            for (key, row) in &rows {
                if let Slotted::Live { revision, entry } = self.look(opened, key, Some(row))? {
                    items.push(EntryDescription::new(entry, revision));
                }
            }
            if rows.len() < step {
                return Ok((items, None));
            }
            after = rows.into_iter().last().map(|(key, _)| key);
            if items.len() >= size {
                break;
            }
        }
        Ok((items, after))
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
        parting: None,
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
