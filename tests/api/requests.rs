//! Requests with the fields that matter set.

use std::time::Duration;

use strongroom::crypto::recovery;
use strongroom::env::SystemEntropy;
use strongroom::proto::v1::{self, expectation::Condition};
use uuid::Uuid;

pub fn create(tenant: &str) -> v1::CreateSessionRequest {
    v1::CreateSessionRequest { tenant: tenant.to_owned(), ..Default::default() }
}

pub fn owner(subject: &str) -> v1::Owner {
    v1::Owner {
        issuer: "https://id.example".to_owned(),
        client_id: "client".to_owned(),
        subject: subject.to_owned(),
    }
}

pub fn span(span: Duration) -> prost_types::Duration {
    span.try_into().unwrap()
}

pub fn seconds(seconds: u64) -> prost_types::Duration {
    span(Duration::from_secs(seconds))
}

/// Milliseconds since 1970.
pub fn millis(time: Option<prost_types::Timestamp>) -> u64 {
    let time = time.expect("a time");
    u64::try_from(time.seconds).unwrap() * 1000 + u64::try_from(time.nanos).unwrap() / 1_000_000
}

pub fn time(millis: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap(),
        nanos: i32::try_from(millis % 1000).unwrap() * 1_000_000,
    }
}

pub fn new_id() -> String {
    Uuid::new_v4().to_string()
}

pub fn get(session: &v1::SessionRef) -> v1::GetSessionRequest {
    v1::GetSessionRequest { session: Some(session.clone()) }
}

pub fn update(session: &v1::SessionRef) -> v1::UpdateSessionRequest {
    v1::UpdateSessionRequest { session: Some(session.clone()), ..Default::default() }
}

pub fn delete_session(session: &v1::SessionRef) -> v1::DeleteSessionRequest {
    v1::DeleteSessionRequest { session: Some(session.clone()), ..Default::default() }
}

pub fn purge(session: &v1::SessionRef) -> v1::PurgeSensitiveRequest {
    v1::PurgeSensitiveRequest { session: Some(session.clone()), ..Default::default() }
}

pub fn list_sessions(tenant: &str) -> v1::ListSessionsRequest {
    v1::ListSessionsRequest { tenant: tenant.to_owned(), ..Default::default() }
}

pub fn absent() -> Option<v1::Expectation> {
    Some(v1::Expectation { condition: Some(Condition::Absent(true)) })
}

pub fn revision(revision: u64) -> Option<v1::Expectation> {
    Some(v1::Expectation { condition: Some(Condition::Revision(revision)) })
}

pub fn new_put(key: &str, value: impl Into<Vec<u8>>) -> v1::Put {
    v1::Put { key: key.to_owned(), value: value.into().into(), ..Default::default() }
}

pub fn put(session: &v1::SessionRef, key: &str, value: impl Into<Vec<u8>>) -> v1::PutEntryRequest {
    put_of(session, new_put(key, value))
}

pub fn put_of(session: &v1::SessionRef, put: v1::Put) -> v1::PutEntryRequest {
    v1::PutEntryRequest { session: Some(session.clone()), put: Some(put), ..Default::default() }
}

pub fn read(session: &v1::SessionRef, key: &str) -> v1::ReadEntryRequest {
    v1::ReadEntryRequest { session: Some(session.clone()), key: key.to_owned(), ..Default::default() }
}

pub fn delete(session: &v1::SessionRef, key: &str) -> v1::DeleteEntryRequest {
    let delete = v1::Delete { key: key.to_owned(), expect: None };
    v1::DeleteEntryRequest { session: Some(session.clone()), delete: Some(delete), ..Default::default() }
}

/// A deletion that returns the value.
pub fn consume(session: &v1::SessionRef, key: &str) -> v1::DeleteEntryRequest {
    v1::DeleteEntryRequest { return_value: true, ..delete(session, key) }
}

pub fn list(session: &v1::SessionRef) -> v1::ListEntriesRequest {
    v1::ListEntriesRequest { session: Some(session.clone()), ..Default::default() }
}

pub fn read_batch(session: &v1::SessionRef, keys: &[&str]) -> v1::ReadBatchRequest {
    v1::ReadBatchRequest {
        session: Some(session.clone()),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..Default::default()
    }
}

pub fn write_put(put: v1::Put) -> v1::Write {
    v1::Write { write: Some(v1::write::Write::Put(put)) }
}

pub fn write_delete(key: &str, expect: Option<v1::Expectation>) -> v1::Write {
    v1::Write { write: Some(v1::write::Write::Delete(v1::Delete { key: key.to_owned(), expect })) }
}

pub fn write_batch(session: &v1::SessionRef, writes: Vec<v1::Write>) -> v1::WriteBatchRequest {
    v1::WriteBatchRequest { session: Some(session.clone()), writes, ..Default::default() }
}

pub fn append(session: &v1::SessionRef, stream: &str, events: &[&str]) -> v1::AppendEventsRequest {
    let event = |data: &&str| v1::NewEvent { data: data.as_bytes().to_vec().into(), ..Default::default() };
    v1::AppendEventsRequest {
        session: Some(session.clone()),
        stream: stream.to_owned(),
        events: events.iter().map(event).collect(),
        ..Default::default()
    }
}

pub fn events(session: &v1::SessionRef, stream: &str) -> v1::ReadEventsRequest {
    v1::ReadEventsRequest { session: Some(session.clone()), stream: stream.to_owned(), ..Default::default() }
}

pub fn follow(session: &v1::SessionRef, stream: &str) -> v1::ReadEventsRequest {
    v1::ReadEventsRequest { follow: true, ..events(session, stream) }
}

pub fn watch(session: &v1::SessionRef) -> v1::WatchSessionRequest {
    v1::WatchSessionRequest { session: Some(session.clone()), ..Default::default() }
}

pub fn search(tenant: &str) -> v1::SearchAuditRequest {
    v1::SearchAuditRequest { tenant: tenant.to_owned(), page_size: 1000, ..Default::default() }
}

/// The public half of a recovery key that nobody holds.
pub fn recovery_key() -> String {
    recovery::write_public(&recovery::generate(&SystemEntropy::new()).unwrap().public())
}
