//! Streams of events: appended in order, replayed after an id, followed.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq as _;

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::entry::Reading;
use super::hub::Follower;
use super::opened::{Opened, Same, domain};
use super::parted::{self, Parted, halves};
use super::payload::{self, EventPayload, StreamPayload};
use super::session::slot_keys;
use super::view::{Answer, EventDescription, Repeat, SessionName};
use super::{Error, Failure, Problem, Reported, Service, hub};
use crate::audit::{Operation, Redaction};
use crate::auth::{Permit, Write};
use crate::commit::Receipt;
use crate::crypto::{Blinded, Header, Kind, content_hash, open, seal};
use crate::keyring::{SessionKeys, Tenant};
use crate::model::limits::{
    APPEND_BYTES, APPEND_EVENTS, EVENT_BYTES, REPLAY_CHUNK_BYTES, REPLAY_CHUNK_EVENTS,
};
use crate::model::{ContentType, Revision, StreamName, Timestamp, View};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, keys};

/// Hex digits of an event's number in its id.
const NUMBER_DIGITS: usize = 16;
/// Bytes of the part of an id that cannot be guessed.
const TAG_BYTES: usize = 10;
/// How many rows one scan step brings into memory: with the largest events 16 MiB.
const SCAN_STEP: usize = 16;

/// An event to append.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its bytes.
    pub value: Bytes,
    /// Media type.
    pub content_type: ContentType,
}

/// What the last event of a stream must be for an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastEvent {
    /// Whatever it is.
    Any,
    /// There must be none.
    None,
    /// The one with this id.
    Id(String),
}

/// The ids of appended events.
pub type Appended = Vec<String>;

/// Some events of a stream.
pub struct EventPage {
    /// In order.
    pub events: Vec<EventDescription>,
    /// Whether nothing else was stored when this page was read.
    pub caught_up: bool,
}

/// A stream as it is named in rows.
struct Place {
    stream: Blinded,
    head: Key,
}

impl Service {
    /// Appends events to a stream, all of them or none.
    ///
    /// # Errors
    /// [`Error::LastEventMismatch`] when the stream ends with another event than expected.
    pub async fn append_events(
        &self,
        permit: &Permit<Write>,
        name: &SessionName,
        stream: &StreamName,
        events: &[NewEvent],
        expect: &LastEvent,
        repeat: Option<Repeat>,
    ) -> Result<Answer<(Appended, Vec<Reported>)>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::EventAppend).await?;
        attempt.about_session(name);
        attempt.about(domain::STREAM, stream.as_str());
        attempt.touched(events.len());
        attempt.event.bytes_in = events.iter().map(|event| event.value.len() as u64).sum();
        if let Err(error) = check_append(events) {
            return attempt.close(Err(error)).await;
        }
        let slot = repeat.map(|repeat| Opened::name_slot(self, &tenant, permit, repeat));
        let place = place(&tenant, name, stream);
        let _turn = self.stripes.hold([place.head.clone()].iter()).await;
        let parted = match self.part_events(&tenant, events).await {
            Ok(parted) => parted,
            Err(error) => return attempt.close(Err(error)).await,
        };
        attempt.event.redaction = parted.iter().filter_map(Parted::redaction).reduce(Redaction::plus);
        let append =
            Append { name, stream, events, parted: &parted, expect, place: &place, slot: slot.as_ref() };
        let outcome = until_won!(self.append_once(&mut attempt, &tenant, &append).await);
        let answer = attempt.close(outcome).await?;
        let report = parted::summed(parted.into_iter().flat_map(|parted| parted.report));
        Ok(answer.map(|ids| (ids, report)))
    }

    /// Takes the bytes of events apart.
    async fn part_events(&self, tenant: &Arc<Tenant>, events: &[NewEvent]) -> Result<Vec<Parted>, Error> {
        let (mut parted, none) = (Vec::with_capacity(events.len()), Bytes::new());
        let values = || events.iter().map(|event| &event.value);
        let after = values().skip(1).chain([&none]);
        for ((before, value), after) in [&none].into_iter().chain(values()).zip(values()).zip(after) {
            parted.push(self.part_between(tenant, (before, value, after)).await?);
        }
        Ok(parted)
    }

    async fn append_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        append: &Append<'_>,
    ) -> Result<(Appended, Receipt), Error> {
        let wanted = || std::iter::once(append.place.head.clone()).chain(slot_keys(append.slot)).collect();
        let opened = self.open_session(tenant, append.name, |_| wanted()).await?;
        let (row, answers) = opened.rows.split_first().ok_or(Error::Internal)?;
        if let Some(given) = opened.given(self, append.slot, answers)? {
            return Ok((given, attempt.record().await?));
        }
        let next = match row {
            Some(row) => self.open_stream(&opened, &append.place.head, row)?.next,
            None => 1,
        };
        check_last(append.expect, &opened, &append.place.stream, next)?;

        let mut batch = opened.batch();
        batch.expect.push((append.place.head.clone(), RowExpect::unchanged(row.as_ref())));
        let ids = self.stage_events(&opened, append, next, &mut batch)?;
        let head = StreamPayload {
            name: append.stream.as_str().to_owned(),
            next: next.saturating_add(append.events.len() as u64),
        };
        let revision = row.as_ref().map_or(Ok(Revision::FIRST), |row| row.revision().map(Revision::next))?;
        batch.put.push((
            append.place.head.clone(),
            self.seal_stream(&opened, &append.place.head, revision, &head)?,
        ));
        self.renew(&opened, &mut batch)?;
        attempt.event.content_hash = batch
            .put
            .iter()
            .find(|(key, _)| *key == append.place.head)
            .map(|(_, row)| content_hash(row.as_bytes()));
        attempt.event.dek = Some(opened.keys.body_id());
        attempt.at_revision(revision);
        opened.give(self, append.slot, &ids, &mut batch)?;
        Ok((ids, attempt.commit(batch, Some(self.hub.closing(hub::tag(&opened)))).await?))
    }

    fn stage_events(
        &self,
        opened: &Opened,
        append: &Append<'_>,
        next: u64,
        batch: &mut Batch,
    ) -> Result<Appended, Error> {
        let tenant = opened.tenant.tenant_ref().id;
        let mut ids = Vec::with_capacity(append.events.len());
        for ((number, event), parted) in (next..).zip(append.events).zip(append.parted) {
            let key = keys::event(tenant, &opened.id, &append.place.stream, number);
            let appended = opened.now.as_millis();
            let metadata = EventPayload {
                content_type: event.content_type.as_str().to_owned(),
                appended,
                parting: parted.parting(&opened.keys),
            };
            let at = (&key, Revision::FIRST);
            let row = self.parted_row(opened, at, parted::EVENT, &metadata.encode()?, parted)?;
            batch.put.push((key, row));
            ids.push(event_id(opened, &append.place.stream, number));
        }
        Ok(ids)
    }

    fn open_stream(&self, opened: &Opened, key: &Key, row: &Row) -> Result<StreamPayload, Error> {
        let [record] = row.exactly()?;
        let place = self.place(&opened.tenant, key);
        let keys = opened.opener(record);
        let plain = open(keys.body(), stream_header(keys, row.revision()?), &place, record)?;
        payload::decode(plain.as_bytes())
    }

    fn seal_stream(
        &self,
        opened: &Opened,
        key: &Key,
        revision: Revision,
        head: &StreamPayload,
    ) -> Result<Row, Error> {
        let plain = payload::encode(head)?;
        let place = self.place(&opened.tenant, key);
        let header = stream_header(&opened.keys, revision);
        let record = seal(opened.keys.body(), header, &place, &plain, &*self.entropy)?;
        Ok(Row::new(revision, &[&record]))
    }

    fn open_event(
        &self,
        opened: &Opened,
        stream: &Blinded,
        (key, row): (&Key, &Row),
        view: View,
    ) -> Result<EventDescription, Error> {
        let number = keys::event_number(key).ok_or(Error::Integrity)?;
        let (record, _) = halves(row)?;
        let place = self.place(&opened.tenant, key);
        if row.revision()? != Revision::FIRST {
            return Err(Error::Integrity);
        }
        let keys = opened.opener(record);
        let plain = open(keys.body(), event_header(keys), &place, record)?;
        let (event, body) = EventPayload::decode(plain.as_bytes())?;
        if event.parting.is_some_and(|parting| parting.body != body.len() as u64) {
            return Err(Error::Integrity);
        }
        let at = (key, Revision::FIRST);
        Ok(EventDescription {
            id: event_id(opened, stream, number),
            value: self.viewed(opened, at, parted::EVENT, (body, event.parting), (view, row))?,
            content_type: event.content_type,
            appended: Timestamp::from_millis(event.appended),
        })
    }

    /// Prepares to read a stream after an event.
    ///
    /// Whether the session and the event exist is found out by the first page.
    #[must_use]
    pub fn read_events(
        self: &Arc<Self>,
        reading: Reading,
        name: SessionName,
        stream: StreamName,
        after: Option<String>,
    ) -> EventReader {
        EventReader {
            service: Arc::clone(self),
            reading,
            name,
            stream,
            session: Same::default(),
            position: 0,
            after,
            follower: None,
        }
    }
}

/// What one append works with.
struct Append<'a> {
    name: &'a SessionName,
    stream: &'a StreamName,
    events: &'a [NewEvent],
    parted: &'a [Parted],
    expect: &'a LastEvent,
    place: &'a Place,
    slot: Option<&'a Slot>,
}

/// Reads a stream page by page. Each page checks tenant, session and keys anew and is on record before it is given.
pub struct EventReader {
    service: Arc<Service>,
    reading: Reading,
    name: SessionName,
    stream: StreamName,
    session: Same,
    /// The number of the last event that was given.
    position: u64,
    /// The id after which to begin, until it was checked.
    after: Option<String>,
    follower: Option<Follower>,
}

impl EventReader {
    /// The next events, at most `most`, and where that is on record; to find nothing new leaves no record.
    ///
    /// # Errors
    /// [`Error::EventNotFound`] when the event to begin after is not of this stream.
    pub async fn next_page(&mut self, most: usize) -> Result<(EventPage, Option<Receipt>), Failure> {
        let service = Arc::clone(&self.service);
        let (mut attempt, tenant) =
            service.attempt_reading(&self.reading, Operation::EventRead, Operation::EventRead).await?;
        attempt.about_session(&self.name);
        attempt.about(domain::STREAM, self.stream.as_str());
        let outcome = until_won!(self.page_once(&service, &mut attempt, &tenant, most).await);
        attempt.close_part(outcome).await
    }

    async fn page_once(
        &mut self,
        service: &Service,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        most: usize,
    ) -> Result<(EventPage, Option<Receipt>), Error> {
        let place = place(tenant, &self.name, &self.stream);
        let opened = service.open_session(tenant, &self.name, |_| vec![place.head.clone()]).await?;
        self.session.check(&opened)?;
        opened.check_view(self.reading.view())?;
        // Listening begins before reading, so that nothing is missed in between.
        let first = self.follower.is_none();
        if first {
            self.follower = Some(service.hub.follow(hub::tag(&opened)));
        }
        let head = match opened.rows.first().and_then(Option::as_ref) {
            Some(row) => service.open_stream(&opened, &place.head, row)?.next,
            None => 1,
        };
        if let Some(after) = self.after.take() {
            self.position = number_of(&after, &opened, &place.stream, head)?;
        }
        let begun = self.position;
        let page = self.events_after(service, &opened, &place, head, most.min(REPLAY_CHUNK_EVENTS)).await;
        if page.is_err() {
            self.position = begun;
        }
        let page = service.unless_moved((&opened.key, &opened.row), page).await?;
        if page.events.is_empty() && !first {
            return Ok((page, None));
        }
        attempt.touched(page.events.len());
        attempt.event.bytes_out = page.events.iter().map(|event| event.value.len() as u64).sum();
        attempt.event.dek = Some(opened.keys.body_id());
        let receipt = service.record_use(attempt, &opened).await?;
        Ok((page, Some(receipt)))
    }

    async fn events_after(
        &mut self,
        service: &Service,
        opened: &Opened,
        place: &Place,
        head: u64,
        most: usize,
    ) -> Result<EventPage, Error> {
        let tenant = opened.tenant.tenant_ref().id;
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < most && bytes < REPLAY_CHUNK_BYTES && self.position + 1 < head {
            let after = keys::event(tenant, &opened.id, &place.stream, self.position);
            let prefix = keys::stream_events(tenant, &opened.id, &place.stream);
            let range = ScanRange { after: Some(after), ..ScanRange::prefix(prefix) };
            let rows = service.engine.scan(range, SCAN_STEP.min(most - events.len())).await?;
            if rows.is_empty() {
                // The head says that there are more.
                return Err(Error::Integrity);
            }
            for (key, row) in &rows {
                let event = service.open_event(opened, &place.stream, (key, row), self.reading.view())?;
                if bytes > 0 && bytes + event.value.len() > REPLAY_CHUNK_BYTES {
                    return Ok(EventPage { events, caught_up: false });
                }
                if keys::event_number(key) != Some(self.position + 1) {
                    return Err(Error::Integrity);
                }
                bytes += event.value.len();
                self.position += 1;
                events.push(event);
            }
        }
        Ok(EventPage { events, caught_up: self.position + 1 >= head })
    }

    /// Waits until something in the session has changed since the last page.
    pub async fn changed(&mut self) {
        match &mut self.follower {
            Some(follower) => follower.changed().await,
            None => std::future::pending().await,
        }
    }
}

fn place(tenant: &Tenant, name: &SessionName, stream: &StreamName) -> Place {
    let session = Service::blind_session(tenant, &name.id);
    let stream = tenant.index().blind(domain::STREAM, &[stream.as_bytes()]);
    Place { head: keys::stream(tenant.tenant_ref().id, &session, &stream), stream }
}

fn event_header(keys: &SessionKeys) -> Header {
    Header { kind: Kind::Event, key_id: keys.body_id(), revision: Revision::FIRST.get() }
}

fn stream_header(keys: &SessionKeys, revision: Revision) -> Header {
    Header { kind: Kind::Stream, key_id: keys.body_id(), revision: revision.get() }
}

/// The number as hex digits, so that ids are ordered as text, and a tag that is made of what names the session for ever: not
/// even a session that is made again under the same handle has the same ids, and one that gets new keys keeps them.
fn event_id(opened: &Opened, stream: &Blinded, number: u64) -> String {
    let tag = opened.tenant.index().event_tag(&[&opened.origin().0, stream, &number.to_be_bytes()]);
    format!("{number:016x}{}", HEXLOWER.encode(tag.get(..TAG_BYTES).unwrap_or_default()))
}

/// The number in an id that is genuine and whose event is there.
fn number_of(id: &str, opened: &Opened, stream: &Blinded, head: u64) -> Result<u64, Error> {
    let digits = id.get(..NUMBER_DIGITS).ok_or(Error::EventNotFound)?;
    let number = u64::from_str_radix(digits, 16).map_err(|_| Error::EventNotFound)?;
    let genuine = bool::from(event_id(opened, stream, number).as_bytes().ct_eq(id.as_bytes()));
    if genuine && (1..head).contains(&number) { Ok(number) } else { Err(Error::EventNotFound) }
}

fn check_last(expect: &LastEvent, opened: &Opened, stream: &Blinded, next: u64) -> Result<(), Error> {
    let holds = match expect {
        LastEvent::Any => true,
        LastEvent::None => next == 1,
        LastEvent::Id(id) => next > 1 && *id == event_id(opened, stream, next - 1),
    };
    if holds { Ok(()) } else { Err(Error::LastEventMismatch) }
}

fn check_append(events: &[NewEvent]) -> Result<(), Error> {
    if events.is_empty() || events.len() > APPEND_EVENTS {
        return Err(Error::invalid("events", Problem::Count { min: 1, max: APPEND_EVENTS }));
    }
    if events.iter().any(|event| event.value.len() > EVENT_BYTES) {
        return Err(Error::invalid("events.data", Problem::TooLarge { max: EVENT_BYTES }));
    }
    let bytes: usize = events.iter().map(|event| event.value.len()).sum();
    if bytes > APPEND_BYTES {
        return Err(Error::invalid("events", Problem::TooLarge { max: APPEND_BYTES }));
    }
    Ok(())
}
