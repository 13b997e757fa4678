//! A stored row: its revision and its sealed records.
//!
//! ```text
//! revision (u64) ‖ count (u8) ‖ count × ( length (u32) ‖ sealed record )        big-endian
//! ```
//!
//! A row without records is a marker: its key is all that it says.

use bytes::Bytes;

use crate::crypto::Sealed;
use crate::model::Revision;

const REVISION_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

/// Stored bytes that are not a row. They were damaged or written by another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored row is malformed")]
pub struct RowError;

/// A row as it is stored. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Row(Bytes);

/// One record of a row that is made from another.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// The other row's record of this number.
    Kept(usize),
    /// A new record.
    New(&'a Sealed),
}

impl Row {
    /// Builds a row from a revision and its records, at most 255 of them.
    #[must_use]
    pub fn new(revision: Revision, records: &[&Sealed]) -> Self {
        let len: usize = records.iter().map(|record| LENGTH_BYTES + record.as_bytes().len()).sum();
        let mut bytes = Vec::with_capacity(REVISION_BYTES + 1 + len);
        bytes.extend_from_slice(&revision.get().to_be_bytes());
        bytes.push(u8::try_from(records.len()).unwrap_or(u8::MAX));
        for record in records.iter().take(usize::from(u8::MAX)) {
            let record = record.as_bytes();
            bytes.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(record);
        }
        Self(Bytes::from(bytes))
    }

    /// Builds a row of which some records are this row's, unopened and unchanged.
    ///
    /// # Errors
    /// [`RowError`] when this row is damaged or has no such record.
    pub fn rebuilt(&self, revision: Revision, parts: &[Part<'_>]) -> Result<Self, RowError> {
        let old = self.records()?;
        let mut bytes = revision.get().to_be_bytes().to_vec();
        bytes.push(u8::try_from(parts.len()).map_err(|_| RowError)?);
        for part in parts {
            let record = match part {
                Part::Kept(number) => *old.get(*number).ok_or(RowError)?,
                Part::New(record) => record.as_bytes(),
            };
            bytes.extend_from_slice(&u32::try_from(record.len()).map_err(|_| RowError)?.to_be_bytes());
            bytes.extend_from_slice(record);
        }
        Ok(Self(Bytes::from(bytes)))
    }

    /// A row that says nothing but its key.
    #[must_use]
    pub fn marker() -> Self {
        Self::new(Revision::FIRST, &[])
    }

    /// Takes stored bytes; their form is checked when they are read.
    #[must_use]
    pub fn from_stored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The row's revision.
    ///
    /// # Errors
    /// [`RowError`] when there is none.
    pub fn revision(&self) -> Result<Revision, RowError> {
        let number = self.0.get(..REVISION_BYTES).and_then(|bytes| bytes.try_into().ok()).ok_or(RowError)?;
        Revision::new(u64::from_be_bytes(number)).ok_or(RowError)
    }

    /// The bytes of the row's records, in order.
    ///
    /// # Errors
    /// [`RowError`] when the framing is damaged.
    pub fn records(&self) -> Result<Vec<&[u8]>, RowError> {
        let (count, mut rest) = self.0.get(REVISION_BYTES..).and_then(<[u8]>::split_first).ok_or(RowError)?;
        let mut records = Vec::with_capacity(usize::from(*count));
        for _ in 0..*count {
            let (length, after) = rest.split_at_checked(LENGTH_BYTES).ok_or(RowError)?;
            let length = u32::from_be_bytes(length.try_into().map_err(|_| RowError)?) as usize;
            let (record, after) = after.split_at_checked(length).ok_or(RowError)?;
            records.push(record);
            rest = after;
        }
        if rest.is_empty() { Ok(records) } else { Err(RowError) }
    }

    /// Exactly `N` records.
    ///
    /// # Errors
    /// [`RowError`] when there are more or fewer, or the framing is damaged.
    pub fn exactly<const N: usize>(&self) -> Result<[&[u8]; N], RowError> {
        self.records()?.try_into().map_err(|_| RowError)
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Row({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_framing_is_an_error_and_never_a_panic() {
        let whole = Row::marker().as_bytes().to_vec();
        assert_eq!(Row::from_stored(whole.clone().into()).records(), Ok(vec![]));
        for len in 0..whole.len() {
            let row = Row::from_stored(Bytes::copy_from_slice(&whole[..len]));
            assert_eq!(row.records(), Err(RowError));
        }
        for bytes in [&[0, 0, 0, 0, 0, 0, 0, 1, 1, 255, 255, 255, 255][..], &[0, 0, 0, 0, 0, 0, 0, 1, 0, 7]] {
            assert_eq!(Row::from_stored(Bytes::copy_from_slice(bytes)).records(), Err(RowError));
        }
        assert_eq!(Row::from_stored(Bytes::from_static(&[0; 9])).revision(), Err(RowError));
    }
}
