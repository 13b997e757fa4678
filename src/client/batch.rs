//! Several entries of one session in one call: reads, and writes that happen all or not at all.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::answer::Answer;
use super::convert;
use super::entry::Entry;
use super::error::ClientError;
use super::link::{call, context};
use super::session::SessionHandle;
use crate::model::{Expect, MutationExpiry, Revision, View};
use crate::proto::v1;

/// What is put into one entry.
#[derive(Clone)]
#[must_use]
pub struct Put(v1::Put);

/// Which entry is deleted.
#[derive(Clone)]
#[must_use]
pub struct Delete(v1::Delete);

/// One write of a batch.
#[derive(Clone, Debug)]
pub enum Write {
    /// Creates or replaces an entry.
    Put(Put),
    /// Deletes an entry.
    Delete(Delete),
}

/// One result of a batch of writes.
#[derive(Clone)]
pub struct Written {
    /// The entry's name.
    pub key: String,
    /// Its revision after the write.
    pub revision: Revision,
}

/// One result of a batch of reads.
#[derive(Clone)]
pub struct Found {
    /// The name that was asked for.
    pub key: String,
    /// The entry; `None` when there is none.
    pub entry: Option<Entry>,
}

impl SessionHandle {
    /// Reads 1 to 256 entries, each named once; together their values have at most 16 MiB. The results have the order of
    /// the names.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `SESSION_EXPIRED`; see [`ClientError`] for the rest. An entry that does not exist is no error.
    pub async fn read_batch<K: Into<String>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        view: View,
    ) -> Result<Answer<Vec<Found>>, ClientError> {
        let request = v1::ReadBatchRequest {
            session: Some(self.wire()),
            keys: keys.into_iter().map(Into::into).collect(),
            view: convert::view(view).into(),
        };
        let answer = self.tenant.link.unary(Uuid::new_v4(), request, call!(context.read_batch)).await?;
        answer.try_map(|response| response.results.into_iter().map(Found::from_wire).collect())
    }

    /// Makes 1 to 256 writes, each to another entry: all of them or none. Together the values have at most 16 MiB.
    ///
    /// # Errors
    /// `REVISION_MISMATCH` when one condition does not hold; see [`ClientError`] for the rest.
    pub async fn write_batch(
        &self,
        writes: impl IntoIterator<Item = Write>,
    ) -> Result<Answer<Vec<Written>>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::WriteBatchRequest {
            session: Some(self.wire()),
            writes: writes.into_iter().map(Write::into_wire).collect(),
            request_id: id.to_string(),
        };
        let answer = self.tenant.link.unary(id, request, call!(context.write_batch)).await?;
        answer.try_map(|response| response.results.into_iter().map(Written::from_wire).collect())
    }
}

impl Put {
    /// Puts `value` under `key`, whatever is there.
    pub fn new(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self(v1::Put { key: key.into(), value: value.into(), ..v1::Put::default() })
    }

    /// Sets the lifetime: 1 ms to 400 days, never longer than the session's.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.expiry(MutationExpiry::After(ttl))
    }

    /// Sets the end.
    pub fn expiry(mut self, expiry: MutationExpiry) -> Self {
        self.0.expiration = convert::put_expiration(expiry);
        self
    }

    /// Makes the put conditional.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.0.expect = convert::expectation(expect);
        self
    }

    /// Sets the media type: at most 128 visible ASCII characters.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.0.content_type = content_type.into();
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.labels.insert(key.into(), value.into());
        self
    }

    pub(super) fn into_wire(self) -> v1::Put {
        self.0
    }
}

impl Delete {
    /// Deletes the entry `key`, which must exist.
    pub fn new(key: impl Into<String>) -> Self {
        Self(v1::Delete { key: key.into(), expect: None })
    }

    /// Makes the deletion conditional.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.0.expect = convert::expectation(expect);
        self
    }

    pub(super) fn into_wire(self) -> v1::Delete {
        self.0
    }
}

impl Write {
    fn into_wire(self) -> v1::Write {
        let write = match self {
            Self::Put(put) => v1::write::Write::Put(put.into_wire()),
            Self::Delete(delete) => v1::write::Write::Delete(delete.into_wire()),
        };
        v1::Write { write: Some(write) }
    }
}

impl From<Put> for Write {
    fn from(put: Put) -> Self {
        Self::Put(put)
    }
}

impl From<Delete> for Write {
    fn from(delete: Delete) -> Self {
        Self::Delete(delete)
    }
}

impl Written {
    fn from_wire(result: v1::WriteResult) -> Result<Self, ClientError> {
        Ok(Self { key: result.key, revision: convert::revision_from(result.revision)? })
    }
}

impl Found {
    fn from_wire(result: v1::ReadResult) -> Result<Self, ClientError> {
        Ok(Self { key: result.key, entry: result.entry.map(Entry::from_wire).transpose()? })
    }
}

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Put({} bytes)", self.0.value.len())
    }
}

impl fmt::Debug for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delete(…)")
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written(revision {})", self.revision.get())
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("entry", &self.entry).finish_non_exhaustive()
    }
}
