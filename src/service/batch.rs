//! Several entries of one session at once: reads in one round trip, writes all or none.

use std::collections::HashSet;
use std::sync::Arc;

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::entry::{Reading, entry_key};
use super::opened::{Opened, domain};
use super::parted::Parted;
use super::session::slot_keys;
use super::view::{Answer, EntryWithValue, Repeat, SessionName, WriteEntry};
use super::{Error, Failure, Problem, Reported, Service};
use crate::audit::Operation;
use crate::auth::{Permit, Write};
use crate::commit::Receipt;
use crate::keyring::Tenant;
use crate::model::limits::{BATCH_ENTRIES, BATCH_VALUE_BYTES};
use crate::model::{EntryKey, View};
use crate::store::Key;

impl Service {
    /// Reads up to 256 entries; one that is not there is `None`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are too many, or their values together are too large.
    pub async fn read_batch(
        &self,
        reading: &Reading,
        name: &SessionName,
        wanted: &[EntryKey],
    ) -> Result<Answer<Vec<Option<EntryWithValue>>>, Failure> {
        let (mut attempt, tenant) =
            self.attempt_reading(reading, Operation::EntryRead, Operation::EntryReveal).await?;
        attempt.about_session(name);
        let outcome = self.read_batch_once(&mut attempt, &tenant, name, reading.view(), wanted).await;
        attempt.close(outcome).await
    }

    async fn read_batch_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        view: View,
        wanted: &[EntryKey],
    ) -> Result<(Vec<Option<EntryWithValue>>, Receipt), Error> {
        check_count("keys", wanted.len())?;
        let row_keys: Vec<Key> = wanted.iter().map(|key| entry_key(tenant, name, key)).collect();
        let opened = self.open_session(tenant, name, |_| row_keys.clone()).await?;
        opened.check_view(view)?;
        let mut entries = Vec::with_capacity(row_keys.len());
        let mut bytes = 0;
        for (key, row) in row_keys.iter().zip(&opened.rows) {
            let entry = self.open_entry(&opened, key, row.as_ref(), view)?.map(|(entry, _)| entry);
            bytes += entry.as_ref().map_or(0, |entry| entry.value.len());
            if bytes > BATCH_VALUE_BYTES {
                return Err(Error::invalid("keys", Problem::TooLarge { max: BATCH_VALUE_BYTES }));
            }
            entries.push(entry);
        }
        attempt.touched(wanted.len());
        attempt.event.bytes_out = bytes as u64;
        let receipt = self.record_reads(attempt, &opened, wanted, &entries).await?;
        Ok((entries, receipt))
    }

    /// One event an entry, so that a search for an entry finds reads by batch as well.
    async fn record_reads(
        &self,
        attempt: &Attempt<'_>,
        opened: &Opened,
        wanted: &[EntryKey],
        entries: &[Option<EntryWithValue>],
    ) -> Result<Receipt, Error> {
        let mut event = attempt.clone();
        let mut events = Vec::with_capacity(wanted.len());
        for (key, entry) in wanted.iter().zip(entries) {
            event.event.bytes_out = entry.as_ref().map_or(0, |entry| entry.value.len() as u64);
            event.event.dek = Some(opened.keys.body_id());
            event.event.resource = None;
            event.about(domain::ENTRY, key.as_str());
            if let Some(entry) = entry {
                event.seen_revision(entry.description.revision);
            }
            events.push(event.event);
        }
        self.record_uses(attempt, opened, events).await
    }

    /// Puts and deletes up to 256 entries: all of them or none. Answers each entry's revision.
    ///
    /// # Errors
    /// [`Error::RevisionMismatch`] or [`Error::EntryNotFound`] when one condition does not hold.
    pub async fn write_batch(
        &self,
        permit: &Permit<Write>,
        name: &SessionName,
        writes: &[WriteEntry],
        repeat: Option<Repeat>,
    ) -> Result<Answer<Vec<(u64, Vec<Reported>)>>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::EntryPut).await?;
        attempt.about_session(name);
        attempt.touched(writes.len());
        if let Err(error) = check_writes(writes) {
            return attempt.close(Err(error)).await;
        }
        let slot = repeat.map(|repeat| Opened::name_slot(self, &tenant, permit, repeat));
        let row_keys: Vec<Key> = writes.iter().map(|write| entry_key(&tenant, name, write.key())).collect();
        let _turn = self.stripes.hold(row_keys.iter()).await;
        let parted = match self.part_writes(&tenant, writes).await {
            Ok(parted) => parted,
            Err(error) => return attempt.close(Err(error)).await,
        };
        let writes = Writes { row_keys: &row_keys, writes, parted: &parted };
        let outcome =
            until_won!(self.write_batch_once(&attempt, &tenant, name, &writes, slot.as_ref()).await);
        let answer = attempt.close(outcome).await?;
        let reports = parted.into_iter().map(|parted| parted.map_or_else(Vec::new, |parted| parted.report));
        Ok(answer.map(|revisions| revisions.into_iter().zip(reports).collect()))
    }

    /// Takes the values of the puts apart.
    async fn part_writes(
        &self,
        tenant: &Arc<Tenant>,
        writes: &[WriteEntry],
    ) -> Result<Vec<Option<Parted>>, Error> {
        let mut parted = Vec::with_capacity(writes.len());
        for write in writes {
            parted.push(match write {
                WriteEntry::Put(put) => Some(self.part_put(tenant, put).await?),
                WriteEntry::Delete(_) => None,
            });
        }
        Ok(parted)
    }

    async fn write_batch_once(
        &self,
        attempt: &Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        Writes { row_keys, writes, parted }: &Writes<'_>,
        slot: Option<&Slot>,
    ) -> Result<(Vec<u64>, Receipt), Error> {
        let wanted = || row_keys.iter().cloned().chain(slot_keys(slot)).collect();
        let opened = self.open_session(tenant, name, |_| wanted()).await?;
        let (rows, answers) = opened.rows.split_at_checked(row_keys.len()).ok_or(Error::Internal)?;
        if let Some(given) = opened.given(self, slot, answers)? {
            return Ok((given, attempt.record().await?));
        }
        let mut batch = opened.batch();
        let mut revisions = Vec::with_capacity(writes.len());
        let mut events = Vec::with_capacity(writes.len());
        let mut changes = Vec::with_capacity(writes.len());
        for (((key, row), write), parted) in row_keys.iter().zip(rows).zip(*writes).zip(*parted) {
            let mut event = attempt.clone();
            event.event.resource = None;
            event.about(domain::ENTRY, write.key().as_str());
            let revision = match write {
                WriteEntry::Put(put) => {
                    let parted = parted.as_ref().ok_or(Error::Internal)?;
                    let (entry, hash) =
                        self.stage_put(&opened, (key, row.as_ref()), (put, parted), &mut batch)?;
                    event.event.redaction = parted.redaction();
                    event.event.content_hash = Some(hash);
                    event.event.bytes_in = put.value.len() as u64;
                    entry.revision
                }
                WriteEntry::Delete(delete) => {
                    event.event.operation = Operation::EntryDelete;
                    self.stage_delete(&opened, key, row.as_ref(), delete, &mut batch)?.get()
                }
            };
            event.seen_revision(revision);
            event.event.dek = Some(opened.keys.body_id());
            revisions.push(revision);
            events.push(event.event);
            changes.push((write.key().clone(), revision, matches!(write, WriteEntry::Delete(_))));
        }
        self.renew(&opened, &mut batch)?;
        opened.give(self, slot, &revisions, &mut batch)?;
        let change = self.hub.changing(&opened, changes);
        let receipt = attempt.commit_events(batch, events, Some(change)).await?;
        Ok((revisions, receipt))
    }
}

/// What one batch writes, and the values of its puts taken apart.
struct Writes<'a> {
    row_keys: &'a [Key],
    writes: &'a [WriteEntry],
    parted: &'a [Option<Parted>],
}

fn check_count(field: &'static str, count: usize) -> Result<(), Error> {
    if count == 0 || count > BATCH_ENTRIES {
        return Err(Error::invalid(field, Problem::Count { min: 1, max: BATCH_ENTRIES }));
    }
    Ok(())
}

fn check_writes(writes: &[WriteEntry]) -> Result<(), Error> {
    check_count("writes", writes.len())?;
    let names: HashSet<_> = writes.iter().map(WriteEntry::key).collect();
    if names.len() != writes.len() {
        return Err(Error::invalid("writes", Problem::Repeated));
    }
    let bytes: usize = writes
        .iter()
        .map(|write| match write {
            WriteEntry::Put(put) => put.value.len(),
            WriteEntry::Delete(_) => 0,
        })
        .sum();
    if bytes > BATCH_VALUE_BYTES {
        return Err(Error::invalid("writes", Problem::TooLarge { max: BATCH_VALUE_BYTES }));
    }
    Ok(())
}
