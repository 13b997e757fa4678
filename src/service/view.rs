//! What use cases take and give: plain descriptions, already checked.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::payload::{EntryPayload, SessionPayload, StoredOwner};
use crate::commit::Receipt;
use crate::model::{
    ContentType, EntryKey, Expect, Labels, MutationExpiry, Owner, RequestId, Revision, SessionId, Timestamp,
};

/// The value of a use case that was carried out, and the event that records it.
#[derive(Debug)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// Where it is on record.
    pub receipt: Receipt,
}

impl<T> Answer<T> {
    /// The same answer in another form.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: convert(self.value), receipt: self.receipt }
    }
}

/// Names a session together with the user who must own it.
#[derive(Debug, Clone)]
pub struct SessionName {
    /// The handle.
    pub id: SessionId,
    /// The owner presented by the caller.
    pub owner: Option<Owner>,
}

/// The right to the same answer again: the id of a request, and what the request was.
#[derive(Debug, Clone, Copy)]
pub struct Repeat {
    pub(super) id: RequestId,
    /// SHA-256 of method and request.
    pub(super) fingerprint: [u8; 32],
}

impl Repeat {
    /// Takes the id of a request, the name of its method and the request as it was sent.
    #[must_use]
    pub fn new(id: RequestId, method: &'static str, request: &[u8]) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(method.as_bytes());
        hash.update(&[0]);
        hash.update(request);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        Self { id, fingerprint }
    }
}

/// A session as its callers see it. Times are milliseconds since 1970.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionDescription {
    /// The handle.
    pub id: String,
    owner: Option<StoredOwner>,
    /// When it was created.
    pub created: u64,
    /// When it ends if nothing else happens.
    pub expires: u64,
    /// When it ends at the latest.
    pub absolute_end: u64,
    /// How long it may be left unused, in milliseconds; zero: for ever.
    pub idle_ttl: u64,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Revision of the metadata.
    pub revision: u64,
    /// Whether the sensitive part was purged.
    pub sensitive_purged: bool,
}

impl SessionDescription {
    pub(super) fn new(payload: &SessionPayload) -> Self {
        Self {
            id: payload.id.clone(),
            owner: payload.owner.clone(),
            created: payload.created,
            expires: payload.end().as_millis(),
            absolute_end: payload.absolute_end,
            idle_ttl: payload.idle_ttl,
            labels: payload.labels.clone(),
            revision: payload.revision,
            sensitive_purged: payload.purged,
        }
    }

    /// The owner.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.owner.as_ref().and_then(|owner| owner.owner().ok())
    }
}

/// An entry without its value. Times are milliseconds since 1970.
#[derive(Clone, Serialize, Deserialize)]
pub struct EntryDescription {
    /// Name.
    pub key: String,
    /// Revision.
    pub revision: u64,
    /// Length of the value.
    pub size: u64,
    /// Media type.
    pub content_type: String,
    /// When the name was first put since it was last absent.
    pub created: u64,
    /// When this revision was put.
    pub updated: u64,
    /// When it ends; zero: with the session.
    pub expires: u64,
    /// Labels.
    pub labels: Vec<(String, String)>,
}

impl EntryDescription {
    pub(super) fn new(payload: EntryPayload, revision: Revision) -> Self {
        Self {
            key: payload.key,
            revision: revision.get(),
            size: payload.size,
            content_type: payload.content_type,
            created: payload.created,
            updated: payload.updated,
            expires: payload.expires,
            labels: payload.labels,
        }
    }
}

/// An entry with its value.
#[derive(Clone, Serialize, Deserialize)]
pub struct EntryWithValue {
    /// What is known of it.
    pub description: EntryDescription,
    /// The value in the view that was asked for.
    pub value: Bytes,
}

/// A put, checked as far as it can be without looking.
#[derive(Debug, Clone)]
pub struct PutEntry {
    /// Name.
    pub key: EntryKey,
    /// Value.
    pub value: Bytes,
    /// Media type.
    pub content_type: ContentType,
    /// When it shall end.
    pub expiry: MutationExpiry,
    /// Labels.
    pub labels: Labels,
    /// Condition.
    pub expect: Expect,
}

/// A deletion.
#[derive(Debug, Clone)]
pub struct DeleteEntry {
    /// Name.
    pub key: EntryKey,
    /// Condition.
    pub expect: Expect,
}

/// One write of a batch.
#[derive(Debug, Clone)]
pub enum WriteEntry {
    /// Put an entry.
    Put(PutEntry),
    /// Delete an entry.
    Delete(DeleteEntry),
}

impl WriteEntry {
    /// The entry's name.
    #[must_use]
    pub const fn key(&self) -> &EntryKey {
        match self {
            Self::Put(put) => &put.key,
            Self::Delete(delete) => &delete.key,
        }
    }
}

/// A part of a list, and where the next part begins.
pub struct Page<T> {
    /// The elements.
    pub items: Vec<T>,
    /// Sealed; empty on the last page.
    pub next: String,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// At most this many.
    pub size: usize,
    /// The token of the page before, or empty.
    pub token: String,
}

/// One event of a stream.
pub struct EventDescription {
    /// Its id.
    pub id: String,
    /// Its bytes.
    pub value: Bytes,
    /// Media type.
    pub content_type: String,
    /// When it was appended.
    pub appended: Timestamp,
}

/// The last millisecond of the year 9999: four digits hold no later year.
const MOST_MILLIS: u64 = 253_402_300_799_999;

/// A time as text, with milliseconds, in UTC (RFC 3339).
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    let since = std::time::Duration::from_millis(time.as_millis().min(MOST_MILLIS));
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}
