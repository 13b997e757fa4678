//! Entries, one at a time: put, read, delete, take, list.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use uuid::Uuid;

use super::answer::Answer;
use super::batch::{Delete, Put};
use super::convert;
use super::error::ClientError;
use super::link::{call, context};
use super::page;
use super::session::SessionHandle;
use crate::model::{Expect, MutationExpiry, Revision, Timestamp, View};
use crate::proto::v1;

/// What is known of an entry without its value.
#[derive(Clone)]
pub struct EntryMetadata {
    /// Name within the session.
    pub key: String,
    /// Never goes back while the session lives, not even across deletion: a fencing token.
    pub revision: Revision,
    /// Length of the value, in bytes.
    pub size: u64,
    /// Media type as it was given.
    pub content_type: String,
    /// When this name was first put since it was last absent.
    pub create_time: Timestamp,
    /// When this revision was put.
    pub update_time: Timestamp,
    /// When it ends; `None`: with the session.
    pub expire_time: Option<Timestamp>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An entry with its value.
#[derive(Clone)]
pub struct Entry {
    /// What is known of it.
    pub metadata: EntryMetadata,
    /// The value, in the view that was asked for.
    pub value: Bytes,
}

/// A put of one entry; awaiting it sends it.
#[must_use = "nothing is sent until this is awaited"]
pub struct PutEntry {
    session: SessionHandle,
    put: Put,
    request_id: Uuid,
}

/// A read of one entry; awaiting it sends it.
#[must_use = "nothing is sent until this is awaited"]
pub struct ReadEntry {
    session: SessionHandle,
    request: v1::ReadEntryRequest,
}

/// A deletion of one entry; awaiting it sends it.
#[must_use = "nothing is sent until this is awaited"]
pub struct DeleteEntry {
    session: SessionHandle,
    delete: Delete,
    request_id: Uuid,
}

/// A deletion that returns the last value to exactly one caller; awaiting it sends it.
#[must_use = "nothing is sent until this is awaited"]
pub struct TakeEntry {
    delete: DeleteEntry,
    view: View,
}

impl SessionHandle {
    /// Creates or replaces the entry `key`: 1 to 512 bytes of UTF-8 without control characters. The value may have up to
    /// 4 MiB, or what the operator allows.
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> PutEntry {
        PutEntry { session: self.clone(), put: Put::new(key, value), request_id: Uuid::new_v4() }
    }

    /// Reads the entry `key` in `view`.
    pub fn read(&self, key: impl Into<String>, view: View) -> ReadEntry {
        let request = v1::ReadEntryRequest {
            session: Some(self.wire()),
            key: key.into(),
            view: convert::view(view).into(),
            min_revision: 0,
        };
        ReadEntry { session: self.clone(), request }
    }

    /// Deletes the entry `key`, which must exist.
    pub fn delete(&self, key: impl Into<String>) -> DeleteEntry {
        DeleteEntry { session: self.clone(), delete: Delete::new(key), request_id: Uuid::new_v4() }
    }

    /// Consumes the entry `key`: of all callers exactly one gets its value, the others get `ENTRY_NOT_FOUND`.
    pub fn take(&self, key: impl Into<String>, view: View) -> TakeEntry {
        TakeEntry { delete: self.delete(key), view }
    }

    /// Streams what is known of the entries, never their values, in no particular order.
    #[must_use]
    pub fn entries(&self) -> BoxStream<'static, Result<EntryMetadata, ClientError>> {
        let session = self.clone();
        page::stream(move |page_token| {
            let session = session.clone();
            async move {
                let request = v1::ListEntriesRequest {
                    session: Some(session.wire()),
                    page_size: page::SIZE,
                    page_token,
                };
                let link = &session.tenant.link;
                let page =
                    link.unary(Uuid::new_v4(), request, call!(context.list_entries)).await?.into_inner();
                let entries =
                    page.entries.into_iter().map(EntryMetadata::from_wire).collect::<Result<_, _>>()?;
                Ok((entries, page.next_page_token))
            }
        })
    }
}

impl PutEntry {
    /// Sets the lifetime: 1 ms to 400 days, never longer than the session's.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.put = self.put.ttl(ttl);
        self
    }

    /// Sets the end.
    pub fn expiry(mut self, expiry: MutationExpiry) -> Self {
        self.put = self.put.expiry(expiry);
        self
    }

    /// Makes the put conditional.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.put = self.put.expect(expect);
        self
    }

    /// Sets the media type: at most 128 visible ASCII characters.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.put = self.put.content_type(content_type);
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.put = self.put.label(key, value);
        self
    }

    /// Uses this idempotency key instead of a fresh one.
    pub const fn request_id(mut self, id: Uuid) -> Self {
        self.request_id = id;
        self
    }
}

impl IntoFuture for PutEntry {
    type Output = Result<Answer<EntryMetadata>, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let request = v1::PutEntryRequest {
                session: Some(self.session.wire()),
                put: Some(self.put.into_wire()),
                request_id: self.request_id.to_string(),
            };
            let link = &self.session.tenant.link;
            let answer = link.unary(self.request_id, request, call!(context.put_entry)).await?;
            answer.try_map(|response| EntryMetadata::required(response.metadata))
        }
        .boxed()
    }
}

impl ReadEntry {
    /// Refuses an answer that is older than a revision known to exist: `REVISION_BEHIND`.
    pub const fn min_revision(mut self, revision: Revision) -> Self {
        self.request.min_revision = revision.get();
        self
    }
}

impl IntoFuture for ReadEntry {
    type Output = Result<Answer<Entry>, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let link = &self.session.tenant.link;
            let answer = link.unary(Uuid::new_v4(), self.request, call!(context.read_entry)).await?;
            answer.try_map(|response| Entry::required(response.entry))
        }
        .boxed()
    }
}

impl DeleteEntry {
    /// Makes the deletion conditional.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.delete = self.delete.expect(expect);
        self
    }

    /// Uses this idempotency key instead of a fresh one.
    pub const fn request_id(mut self, id: Uuid) -> Self {
        self.request_id = id;
        self
    }

    async fn send(self, view: Option<View>) -> Result<Answer<v1::DeleteEntryResponse>, ClientError> {
        let request = v1::DeleteEntryRequest {
            session: Some(self.session.wire()),
            delete: Some(self.delete.into_wire()),
            return_value: view.is_some(),
            view: view.map_or(v1::View::Unspecified, convert::view).into(),
            request_id: self.request_id.to_string(),
        };
        self.session.tenant.link.unary(self.request_id, request, call!(context.delete_entry)).await
    }
}

impl IntoFuture for DeleteEntry {
    /// The revision of the deletion itself.
    type Output = Result<Answer<Revision>, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move { self.send(None).await?.try_map(|response| convert::revision_from(response.revision)) }
            .boxed()
    }
}

impl TakeEntry {
    /// Makes the deletion conditional.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.delete = self.delete.expect(expect);
        self
    }

    /// Uses this idempotency key instead of a fresh one. With a key that is kept across a crash, the caller who consumed
    /// the entry can ask again for 10 minutes and gets the value again.
    pub fn request_id(mut self, id: Uuid) -> Self {
        self.delete = self.delete.request_id(id);
        self
    }
}

impl IntoFuture for TakeEntry {
    type Output = Result<Answer<Entry>, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let answer = self.delete.send(Some(self.view)).await?;
            answer.try_map(|response| Entry::required(response.entry))
        }
        .boxed()
    }
}

impl EntryMetadata {
    fn required(metadata: Option<v1::EntryMetadata>) -> Result<Self, ClientError> {
        Self::from_wire(metadata.ok_or(ClientError::Malformed { what: "entry metadata" })?)
    }

    fn from_wire(metadata: v1::EntryMetadata) -> Result<Self, ClientError> {
        Ok(Self {
            key: metadata.key,
            revision: convert::revision_from(metadata.revision)?,
            size: metadata.size,
            content_type: metadata.content_type,
            create_time: convert::required_time(metadata.create_time)?,
            update_time: convert::required_time(metadata.update_time)?,
            expire_time: metadata.expire_time.map(convert::time_from).transpose()?,
            labels: metadata.labels.into_iter().collect(),
        })
    }
}

impl Entry {
    fn required(entry: Option<v1::Entry>) -> Result<Self, ClientError> {
        Self::from_wire(entry.ok_or(ClientError::Malformed { what: "entry" })?)
    }

    pub(super) fn from_wire(entry: v1::Entry) -> Result<Self, ClientError> {
        // A slice would pin the whole frame that it arrived in.
        let value = Bytes::copy_from_slice(&entry.value);
        Ok(Self { metadata: EntryMetadata::required(entry.metadata)?, value })
    }
}

impl fmt::Debug for EntryMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryMetadata")
            .field("revision", &self.revision)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

/// Prints the name of a request alone: keys and values are the user's.
macro_rules! nameless_debug {
    ($($request:ident),+) => {$(
        impl fmt::Debug for $request {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($request)).finish_non_exhaustive()
            }
        }
    )+};
}

nameless_debug!(PutEntry, ReadEntry, DeleteEntry, TakeEntry);
