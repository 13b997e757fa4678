//! The row of an entry: what stands under an entry's key, opened in full or only looked at.

use super::opened::Opened;
use super::parted::{self, halves};
use super::payload::EntryPayload;
use super::view::{EntryDescription, EntryWithValue};
use super::{Error, Service};
use crate::crypto::{Header, Kind, Plaintext, open, open_start, seal};
use crate::model::{Revision, Timestamp, View};
use crate::store::{Key, Row};

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
    pub(super) const fn current(&self) -> Option<Revision> {
        match self {
            Self::Live { revision, .. } => Some(*revision),
            Self::Absent | Self::Gone { .. } => None,
        }
    }

    /// The revision that the next change makes.
    pub(super) const fn next(&self) -> Revision {
        match self {
            Self::Absent => Revision::FIRST,
            Self::Gone { revision, .. } | Self::Live { revision, .. } => revision.next(),
        }
    }

    pub(super) fn indexed(&self) -> Option<Timestamp> {
        match self {
            Self::Absent => None,
            Self::Gone { indexed, .. } => *indexed,
            Self::Live { entry, .. } => expiry_of(entry),
        }
    }
}

/// When an entry ends, unless it ends with its session.
pub(super) fn expiry_of(entry: &EntryPayload) -> Option<Timestamp> {
    (entry.expires != 0).then(|| Timestamp::from_millis(entry.expires))
}

impl Service {
    /// Opens the entry in a row, unless there is none or its time is over.
    pub(super) fn open_entry(
        &self,
        opened: &Opened,
        key: &Key,
        row: Option<&Row>,
        view: View,
    ) -> Result<Option<(EntryWithValue, Revision)>, Error> {
        let Some(row) = row else {
            return Ok(None);
        };
        if is_tombstone(row) {
            return self.open_record(opened, key, row, Kind::EntryTombstone).map(|_| None);
        }
        let revision = row.revision()?;
        let (record, _) = halves(row)?;
        let keys = opened.opener(record);
        let header = Header { kind: Kind::Entry, key_id: keys.body_id(), revision: revision.get() };
        let plain = open(keys.body(), header, &self.place(&opened.tenant, key), record)?;
        let (entry, body) = EntryPayload::decode(plain.as_bytes())?;
        if body.len() as u64 != entry.parting.map_or(entry.size, |parting| parting.body) {
            return Err(Error::Integrity);
        }
        if entry.ended(opened.now) {
            return Ok(None);
        }
        let parting = entry.parting;
        let value = self.viewed(opened, (key, revision), parted::ENTRY, (body, parting), (view, row))?;
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
        let (entry, _) = EntryPayload::decode(plain.as_bytes())?;
        if entry.ended(opened.now) {
            return Ok(Slotted::Gone { revision, indexed: expiry_of(&entry) });
        }
        Ok(Slotted::Live { revision, entry })
    }

    fn open_record(&self, opened: &Opened, key: &Key, row: &Row, kind: Kind) -> Result<Plaintext, Error> {
        let (record, _) = halves(row)?;
        let keys = opened.opener(record);
        let header = Header { kind, key_id: keys.body_id(), revision: row.revision()?.get() };
        Ok(open_start(keys.body(), header, &self.place(&opened.tenant, key), record)?)
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

/// Whether a row says of itself that it holds a tombstone; what it says is proven when it is opened.
fn is_tombstone(row: &Row) -> bool {
    row.exactly::<1>().is_ok_and(|[record]| Header::named_kind(record) == Some(Kind::EntryTombstone as u8))
}
