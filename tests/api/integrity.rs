//! Rows that were changed, moved, exchanged or set back behind the server's back: no call panics, none answers with wrong
//! data, and each failure is counted and on record.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use strongroom::model::Revision;
use strongroom::proto::v1;
use strongroom::store::{Key, Row, SessionPart, Table, keys};
use tonic::{Code, Response, Status};

use crate::requests::{
    append, create, delete, delete_session, events, get, list, new_id, new_put, put, put_of, read,
    read_batch, revision, search, update,
};
use crate::site::Site;
use crate::support::{Refusal, answered, refused};

/// What the store holds, by what it is.
struct Stored {
    site: Site,
    session: v1::SessionRef,
    other: v1::SessionRef,
    repeated: v1::PutEntryRequest,
    tenant: Key,
    session_row: Key,
    other_session_row: Key,
    entry: Key,
    sibling: Key,
    others_entry: Key,
    tombstone: Key,
    stream: Key,
    events: Vec<Key>,
    answer: Key,
}

impl Stored {
    /// Two sessions of one tenant; in the first, the entries `key`, `sibling` and the deleted `gone`, and a stream.
    async fn new() -> Self {
        let site = Site::inside().await;
        let added = async |before: &BTreeSet<Key>, wanted: fn(&Key) -> bool| {
            let rows = site.world().rows().await;
            let found: Vec<_> = rows
                .into_iter()
                .map(|(key, _)| key)
                .filter(|key| !before.contains(key) && wanted(key))
                .collect();
            found
        };
        let now = async || site.world().rows().await.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>();

        let one = |mut keys: Vec<Key>| {
            assert_eq!(keys.len(), 1);
            keys.remove(0)
        };

        let before = now().await;
        let session = site.session().await;
        let session_row = one(added(&before, keys::is_session).await);
        let before = now().await;
        let other = site.session().await;
        let other_session_row = one(added(&before, keys::is_session).await);
        let mut entry_keys = Vec::new();
        for (at, name) in [(&session, "key"), (&session, "sibling"), (&other, "key"), (&session, "gone")] {
            let before = now().await;
            site.put(at, name, "the value").await;
            entry_keys.push(one(added(&before, |key| is_part(key, SessionPart::Entry)).await));
        }
        answered(site.app().delete_entry(delete(&session, "gone")).await);
        let before = now().await;
        answered(site.app().append_events(append(&session, "stream", &["1", "2", "3"])).await);
        let stream = one(added(&before, |key| is_part(key, SessionPart::Stream)).await);
        let events = added(&before, |key| is_part(key, SessionPart::Event)).await;
        let before = now().await;
        let repeated = v1::PutEntryRequest { request_id: new_id(), ..put(&session, "key", "the value") };
        answered(site.app().put_entry(repeated.clone()).await);
        let answer = one(added(&before, |key| key.as_bytes()[0] == Table::Answer as u8).await);
        let rows = site.world().rows().await;
        let tenant = one(rows
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| key.as_bytes()[0] == Table::Tenant as u8)
            .collect());
        let [entry, sibling, others_entry, tombstone] = entry_keys.try_into().unwrap();
        Self {
            site,
            session,
            other,
            repeated,
            tenant,
            session_row,
            other_session_row,
            entry,
            sibling,
            others_entry,
            tombstone,
            stream,
            events,
            answer,
        }
    }

    async fn row(&self, key: &Key) -> Row {
        let rows = self.site.world().rows().await;
        rows.into_iter().find(|(found, _)| found == key).unwrap().1
    }

    /// Makes a call while a row is another, and puts the row back.
    async fn with<T>(&self, key: &Key, row: Option<Row>, call: &Call<T>) -> Result<Response<T>, Status> {
        let genuine = self.row(key).await;
        self.site.world().tamper(key, row).await;
        let outcome = call(self).await;
        self.site.world().tamper(key, Some(genuine)).await;
        outcome
    }

    /// The same, and checks that the damage was noticed and counted.
    async fn noticed<T>(&self, key: &Key, row: Row, call: &Call<T>, what: &str) -> Refusal {
        let before = self.site.world().service.counts().integrity_failures;
        let outcome = self.with(key, Some(row), call).await;
        let status = outcome.err().unwrap_or_else(|| panic!("not noticed: {what}"));
        let refusal = Refusal::of(&status);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::DataLoss, "INTEGRITY_FAILURE"), "{what}");
        assert_eq!(self.site.world().service.counts().integrity_failures, before + 1, "{what}");
        refusal
    }

    /// Flips bits of every byte of a row; each must be noticed by the call.
    async fn flip_all<T>(&self, key: &Key, call: &Call<T>, typ: &str) {
        let genuine = self.row(key).await;
        assert!(self.with(key, Some(genuine.clone()), call).await.is_ok(), "the genuine row is answered");
        let mut last = None;
        for place in 0..genuine.as_bytes().len() {
            // All bits where the framing and the header are, one where everything is equally opaque.
            let bits = if place < 45 { 0..8 } else { place % 8..place % 8 + 1 };
            for bit in bits {
                let what = format!("byte {place} bit {bit} of {}", genuine.as_bytes().len());
                last = Some(self.noticed(key, flipped(&genuine, place, bit), call, &what).await);
            }
        }
        let place = last.unwrap().stamp.expect("an integrity failure is on record");
        self.site.recorded(&place, typ, "fail", Some("INTEGRITY_FAILURE")).await;
        assert!(self.with(key, Some(genuine), call).await.is_ok(), "the genuine row is answered again");
    }

    /// Cuts a row short and makes it longer.
    async fn resize<T>(&self, key: &Key, call: &Call<T>) {
        let genuine = self.row(key).await;
        let whole = genuine.as_bytes();
        for len in [0, 1, 8, 9, 13, 45, 101, whole.len() / 2, whole.len() - 17, whole.len() - 1] {
            let cut = Row::from_stored(Bytes::copy_from_slice(&whole[..len]));
            self.noticed(key, cut, call, &format!("cut to {len}")).await;
        }
        let longer = Row::from_stored([whole, &[0]].concat().into());
        self.noticed(key, longer, call, "one byte more").await;
        self.noticed(key, Row::marker(), call, "a marker").await;
        self.noticed(key, Row::from_stored(vec![0; whole.len()].into()), call, "zeros").await;
    }
}

type Call<T> = dyn for<'a> Fn(&'a Stored) -> LocalBoxFuture<'a, Result<Response<T>, Status>>;

fn part_of(key: &Key) -> Option<SessionPart> {
    let part = (key.as_bytes()[0] == Table::Session as u8).then(|| key.within_session()[0])?;
    [SessionPart::Root, SessionPart::Entry, SessionPart::Stream, SessionPart::Event]
        .into_iter()
        .find(|one| *one as u8 == part)
}

fn is_part(key: &Key, part: SessionPart) -> bool {
    part_of(key) == Some(part)
}

fn flipped(row: &Row, place: usize, bit: usize) -> Row {
    let mut bytes = row.as_bytes().to_vec();
    bytes[place] ^= 1 << bit;
    Row::from_stored(bytes.into())
}

/// Reads a stream to its end.
async fn drain(
    outcome: Result<Response<tonic::Streaming<v1::ReadEventsResponse>>, Status>,
) -> Result<Response<Vec<v1::Event>>, Status> {
    let (metadata, mut stream, _) = outcome?.into_parts();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.extend(message.events);
    }
    Ok(Response::from_parts(metadata, all, tonic::Extensions::default()))
}

fn read_key(stored: &Stored) -> LocalBoxFuture<'_, Result<Response<v1::ReadEntryResponse>, Status>> {
    Box::pin(async { stored.site.app().read_entry(read(&stored.session, "key")).await })
}

fn read_gone(stored: &Stored) -> LocalBoxFuture<'_, Result<Response<v1::PutEntryResponse>, Status>> {
    // Deleted: asking whether it is absent must look at its tombstone. The condition does not hold, so nothing is put.
    Box::pin(async {
        let put = v1::Put { expect: revision(77), ..new_put("gone", "") };
        match stored.site.app().put_entry(put_of(&stored.session, put)).await {
            Err(status) if Refusal::of(&status).reason == "REVISION_MISMATCH" => {
                Ok(Response::new(v1::PutEntryResponse::default()))
            }
            outcome => outcome,
        }
    })
}

fn find_gone(stored: &Stored) -> LocalBoxFuture<'_, Result<Response<()>, Status>> {
    Box::pin(async {
        match stored.site.app().read_entry(read(&stored.session, "gone")).await {
            Err(status) if Refusal::of(&status).reason == "ENTRY_NOT_FOUND" => Ok(Response::new(())),
            outcome => outcome.map(|_| panic!("it was deleted")),
        }
    })
}

fn reveal(stored: &Stored) -> LocalBoxFuture<'_, Result<Response<v1::ReadEntryResponse>, Status>> {
    let view = v1::View::Full.into();
    let request = v1::ReadEntryRequest { view, ..read(&stored.session, "secret") };
    Box::pin(async { stored.site.app().read_entry(request).await })
}

fn list_all(stored: &Stored) -> LocalBoxFuture<'_, Result<Response<v1::ListEntriesResponse>, Status>> {
    Box::pin(async { stored.site.app().list_entries(list(&stored.session)).await })
}

fn get_it(stored: &Stored) -> LocalBoxFuture<'_, Result<Response<v1::GetSessionResponse>, Status>> {
    Box::pin(async { stored.site.app().get_session(get(&stored.session)).await })
}

fn read_stream(stored: &Stored) -> LocalBoxFuture<'_, Result<Response<Vec<v1::Event>>, Status>> {
    Box::pin(async { drain(stored.site.app().read_events(events(&stored.session, "stream")).await).await })
}

#[tokio::test]
async fn every_byte_of_an_entry_counts() {
    let stored = Stored::new().await;
    stored.flip_all(&stored.entry, &read_key, "ctx.read").await;
    stored.resize(&stored.entry, &read_key).await;
    stored.resize(&stored.entry, &list_all).await;
}

#[tokio::test]
async fn every_byte_of_an_entry_that_was_taken_apart_counts() {
    let stored = Stored::new().await;
    let before: Vec<Key> = stored.site.world().rows().await.into_iter().map(|(key, _)| key).collect();
    stored.site.put(&stored.session, "secret", r#"{"password":"hunter22"}"#).await;
    let rows = stored.site.world().rows().await.into_iter();
    let mut added = rows.map(|(key, _)| key).filter(|key| !before.contains(key));
    let entry = added.find(|key| part_of(key) == Some(SessionPart::Entry)).unwrap();
    stored.flip_all(&entry, &reveal, "ctx.reveal").await;
    stored.resize(&entry, &reveal).await;
}

#[tokio::test]
async fn every_byte_of_a_deleted_entry_counts() {
    let stored = Stored::new().await;
    stored.flip_all(&stored.tombstone, &read_gone, "ctx.put").await;
    stored.flip_all(&stored.tombstone, &find_gone, "ctx.read").await;
    stored.resize(&stored.tombstone, &find_gone).await;
}

#[tokio::test]
async fn every_byte_of_a_session_counts() {
    let stored = Stored::new().await;
    stored.site.put(&stored.session, "secret", r#"{"password":"hunter22"}"#).await;
    // The whole row matters to who sees everything: who does not never opens the sensitive key.
    stored.flip_all(&stored.session_row, &reveal, "ctx.reveal").await;
    stored.resize(&stored.session_row, &get_it).await;
    stored.resize(&stored.session_row, &read_key).await;
}

#[tokio::test]
async fn every_byte_of_an_ended_session_counts() {
    let stored = Stored::new().await;
    stored.site.world().clock.advance(std::time::Duration::from_secs(25 * 3600));
    stored.site.world().sweep().await;
    let expired: &Call<()> = &|stored| {
        Box::pin(async {
            match stored.site.app().get_session(get(&stored.session)).await {
                Err(status) if Refusal::of(&status).reason == "SESSION_EXPIRED" => Ok(Response::new(())),
                outcome => outcome.map(|_| panic!("it has expired")),
            }
        })
    };
    stored.flip_all(&stored.session_row, expired, "ses.read").await;
}

#[tokio::test]
async fn every_byte_of_a_tenant_counts() {
    let stored = Stored::new().await;
    stored.flip_all(&stored.tenant, &get_it, "ses.read").await;
    stored.resize(&stored.tenant, &get_it).await;
}

#[tokio::test]
async fn every_byte_of_a_stream_and_its_events_counts() {
    let stored = Stored::new().await;
    stored.flip_all(&stored.stream, &read_stream, "evt.read").await;
    stored.flip_all(&stored.events[1], &read_stream, "evt.read").await;
    stored.resize(&stored.events[0], &read_stream).await;
    let append: &Call<v1::AppendEventsResponse> = &|stored| {
        Box::pin(async { stored.site.app().append_events(append(&stored.session, "stream", &["4"])).await })
    };
    let genuine = stored.row(&stored.stream).await;
    let refusal =
        stored.noticed(&stored.stream, flipped(&genuine, 60, 1), append, "the head of a stream").await;
    stored.site.recorded(&refusal.stamp.unwrap(), "evt.append", "fail", Some("INTEGRITY_FAILURE")).await;
    // A missing event is a gap, not an end.
    for event in &stored.events {
        let outcome = stored.with(event, None, &read_stream).await;
        refused(outcome, Code::DataLoss, "INTEGRITY_FAILURE");
    }
}

#[tokio::test]
async fn every_byte_of_a_remembered_answer_counts() {
    let stored = Stored::new().await;
    let genuine = stored.row(&stored.answer).await;
    let again: &Call<v1::PutEntryResponse> =
        &|stored| Box::pin(async { stored.site.app().put_entry(stored.repeated.clone()).await });
    let (first, _) = answered(stored.with(&stored.answer, Some(genuine.clone()), again).await);
    for place in 0..genuine.as_bytes().len() {
        let row = flipped(&genuine, place, place % 8);
        let refusal = Refusal::of(&stored.with(&stored.answer, Some(row), again).await.unwrap_err());
        // An answer that names another key is that of another session, as far as anybody can tell.
        let named = (13 + 8..13 + 24).contains(&place);
        let expected = if named { "REQUEST_ID_REUSED" } else { "INTEGRITY_FAILURE" };
        assert_eq!(refusal.reason, expected, "byte {place}");
    }
    assert_eq!(answered(stored.with(&stored.answer, Some(genuine), again).await).0, first);
}

#[tokio::test]
async fn every_byte_of_a_token_counts() {
    let stored = Stored::new().await;
    let token = async |bytes: Table| {
        let before: BTreeSet<_> = stored.site.world().rows().await.into_iter().map(|(key, _)| key).collect();
        let secret = stored.site.token(&[v1::Scope::Read], &["demo"]).await;
        let rows = stored.site.world().rows().await;
        let key = rows.into_iter().map(|(key, _)| key);
        let key = key.filter(|key| !before.contains(key)).find(|key| key.as_bytes()[0] == bytes as u8);
        (secret, key.unwrap())
    };
    let (secret, row) = token(Table::Token).await;
    let mut client = stored.site.context(Some(&secret));
    answered(client.get_session(get(&stored.session)).await);
    let genuine = stored.row(&row).await;
    for place in 0..genuine.as_bytes().len() {
        let before = stored.site.world().service.counts().integrity_failures;
        stored.site.world().tamper(&row, Some(flipped(&genuine, place, place % 8))).await;
        let refusal =
            refused(client.get_session(get(&stored.session)).await, Code::DataLoss, "INTEGRITY_FAILURE");
        assert_eq!(stored.site.world().service.counts().integrity_failures, before + 1);
        if place == 0 {
            let place = refusal.stamp.unwrap();
            stored.site.recorded(&place, "auth.fail", "fail", Some("INTEGRITY_FAILURE")).await;
        }
    }
    // A token's row in the place of another is no token either.
    let (other, other_row) = token(Table::Token).await;
    stored.site.world().tamper(&other_row, Some(genuine.clone())).await;
    let outcome = stored.site.context(Some(&other)).get_session(get(&stored.session)).await;
    refused(outcome, Code::DataLoss, "INTEGRITY_FAILURE");
    stored.site.world().tamper(&row, Some(genuine)).await;
    answered(client.get_session(get(&stored.session)).await);
}

#[tokio::test]
async fn a_record_opens_in_its_own_place_alone() {
    let stored = Stored::new().await;
    let rows = stored.site.world().rows().await;
    let sources: Vec<_> =
        rows.iter().filter(|(_, row)| row.records().is_ok_and(|all| !all.is_empty())).collect();
    assert!(sources.len() > 12);
    let targets: [(&str, &Key, &Call<()>); 5] = [
        ("an entry", &stored.entry, &|stored| {
            Box::pin(async { read_key(stored).await.map(|_| Response::new(())) })
        }),
        ("a deleted entry", &stored.tombstone, &find_gone),
        ("a session", &stored.session_row, &|stored| {
            Box::pin(async { get_it(stored).await.map(|_| Response::new(())) })
        }),
        ("a stream", &stored.stream, &|stored| {
            Box::pin(async { read_stream(stored).await.map(|_| Response::new(())) })
        }),
        ("an event", &stored.events[1], &|stored| {
            Box::pin(async { read_stream(stored).await.map(|_| Response::new(())) })
        }),
    ];
    for (name, target, call) in targets {
        let genuine = stored.row(target).await;
        for (source, row) in &sources {
            if source == target {
                continue;
            }
            let what = format!("{source:?} as {name}");
            stored.noticed(target, row.clone(), call, &what).await;
            // Nor with the revision that is expected there.
            let mut bytes = row.as_bytes().to_vec();
            bytes[..8].copy_from_slice(&genuine.as_bytes()[..8]);
            stored.noticed(target, Row::from_stored(bytes.into()), call, &what).await;
        }
    }
}

#[tokio::test]
async fn a_record_does_not_open_in_another_session_tenant_or_store() {
    let stored = Stored::new().await;
    // The same entry of another session, in both directions.
    let theirs = stored.row(&stored.others_entry).await;
    stored.noticed(&stored.entry, theirs, &read_key, "another session's entry").await;
    let session = stored.row(&stored.other_session_row).await;
    stored.noticed(&stored.session_row, session, &get_it, "another session").await;
    let others: &Call<v1::ReadEntryResponse> =
        &|stored| Box::pin(async { stored.site.app().read_entry(read(&stored.other, "key")).await });
    let mine = stored.row(&stored.entry).await;
    stored.noticed(&stored.others_entry, mine, others, "my entry in another session").await;
    // A whole session under another's handle: keys, metadata and entries together.
    let sibling = stored.row(&stored.sibling).await;
    stored.noticed(&stored.entry, sibling, &read_key, "a sibling").await;

    // The same names in another tenant and in another store.
    let other_tenant = v1::CreateTenantRequest { name: "second".to_owned(), ..Default::default() };
    answered(stored.site.admin().create_tenant(other_tenant).await);
    let request =
        v1::CreateSessionRequest { session_id: stored.session.session_id.clone(), ..create("second") };
    let before: BTreeSet<_> = stored.site.world().rows().await.into_iter().map(|(key, _)| key).collect();
    answered(stored.site.root().create_session(request).await);
    let second = v1::SessionRef { tenant: "second".to_owned(), ..stored.session.clone() };
    for _ in 0..2 {
        answered(stored.site.root().put_entry(put(&second, "key", "the value")).await);
    }
    let rows = stored.site.world().rows().await;
    for (key, row) in rows.iter().filter(|(key, _)| !before.contains(key)) {
        match part_of(key) {
            Some(SessionPart::Root) => {
                drop(stored.noticed(&stored.session_row, row.clone(), &get_it, "tenant").await)
            }
            Some(SessionPart::Entry) => {
                drop(stored.noticed(&stored.entry, row.clone(), &read_key, "tenant").await)
            }
            _ => {}
        }
    }
    let tenants: Vec<_> = rows.iter().filter(|(key, _)| key.as_bytes()[0] == Table::Tenant as u8).collect();
    let foreign = tenants.iter().find(|(key, _)| *key != stored.tenant).unwrap();
    stored.noticed(&stored.tenant, foreign.1.clone(), &get_it, "another tenant's row").await;

    let elsewhere = Stored::new().await;
    for (mine, theirs) in [(&stored.entry, &elsewhere.entry), (&stored.session_row, &elsewhere.session_row)] {
        // The fixture draws the same randomness: only the store's id differs when the seed does.
        let row = elsewhere.row(theirs).await;
        if row == stored.row(mine).await {
            continue;
        }
        panic!("two stores of one seed differ");
    }
    let inside = crate::support::Inside::open_seeded(2).await;
    let site = Site::within(inside);
    let request =
        v1::CreateSessionRequest { session_id: stored.session.session_id.clone(), ..create("demo") };
    site.create(request).await;
    let theirs = site.world().rows().await.into_iter().find(|(key, _)| keys::is_session(key)).unwrap().1;
    stored.noticed(&stored.session_row, theirs, &get_it, "another store's session").await;
}

#[tokio::test]
async fn a_session_whose_sensitive_key_was_taken_away_does_not_pass_for_a_purged_one() {
    let stored = Stored::new().await;
    let row = stored.row(&stored.session_row).await;
    let [body, sensitive, metadata] = row.exactly().unwrap();
    let of = |records: &[&[u8]]| {
        let mut bytes = row.as_bytes()[..8].to_vec();
        bytes.push(u8::try_from(records.len()).unwrap());
        for record in records {
            bytes.extend_from_slice(&u32::try_from(record.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(record);
        }
        Row::from_stored(bytes.into())
    };
    for records in [
        vec![body, metadata],
        vec![sensitive, metadata],
        vec![sensitive, body, metadata],
        vec![body, body, metadata],
        vec![body, sensitive],
        vec![metadata],
        vec![body],
        vec![body, sensitive, metadata, metadata],
        vec![],
    ] {
        stored
            .noticed(&stored.session_row, of(&records), &get_it, &format!("{} records", records.len()))
            .await;
    }
    // And the other way round, in the place of a session that was purged.
    let purged =
        answered(stored.site.root().purge_sensitive(crate::requests::purge(&stored.session)).await).0;
    assert!(purged.session.unwrap().sensitive_purged);
    let row = stored.row(&stored.session_row).await;
    let [body, metadata] = row.exactly().unwrap();
    let mut bytes = row.as_bytes()[..8].to_vec();
    bytes.push(3);
    for record in [body, sensitive, metadata] {
        bytes.extend_from_slice(&u32::try_from(record.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(record);
    }
    stored.noticed(&stored.session_row, Row::from_stored(bytes.into()), &get_it, "a key brought back").await;
}

#[tokio::test]
async fn a_row_that_was_set_back_is_noticed_by_who_knows_its_revision() {
    let stored = Stored::new().await;
    let old = stored.row(&stored.entry).await;
    let now = stored.site.put(&stored.session, "key", "newer").await;
    // With another revision claimed for the old bytes, it does not open.
    let mut claimed = old.as_bytes().to_vec();
    claimed[..8].copy_from_slice(&now.to_be_bytes());
    stored.noticed(&stored.entry, Row::from_stored(claimed.into()), &read_key, "an old record").await;
    // As a whole it is genuine, but whoever knows the newer revision is told.
    stored.site.world().tamper(&stored.entry, Some(old)).await;
    let request = v1::ReadEntryRequest { min_revision: now, ..read(&stored.session, "key") };
    let refusal =
        refused(stored.site.app().read_entry(request).await, Code::FailedPrecondition, "REVISION_BEHIND");
    assert_eq!(refusal.details["current_revision"], (now - 1).to_string());
    let put = v1::Put { expect: revision(now), ..new_put("key", "") };
    let outcome = stored.site.app().put_entry(put_of(&stored.session, put)).await;
    refused(outcome, Code::Aborted, "REVISION_MISMATCH");
}

#[tokio::test]
async fn a_tenant_that_was_set_back_does_not_open_what_came_after() {
    let stored = Stored::new().await;
    let old = stored.row(&stored.tenant).await;
    let rotate = v1::RotateKekRequest { tenant: "demo".to_owned(), ..Default::default() };
    answered(stored.site.admin().rotate_kek(rotate).await);
    let newer = stored.site.session().await;
    stored.site.world().tamper(&stored.tenant, Some(old)).await;
    refused(stored.site.app().get_session(get(&newer)).await, Code::DataLoss, "INTEGRITY_FAILURE");
    answered(stored.site.app().get_session(get(&stored.session)).await);
}

#[tokio::test]
async fn no_write_goes_through_what_does_not_open() {
    let stored = Stored::new().await;
    let rows = |rows: Vec<(Key, Row)>| -> Vec<(Key, Row)> {
        let log = [Table::LogBlock as u8, Table::LogHead as u8, Table::LogIndex as u8];
        rows.into_iter().filter(|(key, _)| !log.contains(&key.as_bytes()[0])).collect()
    };
    for target in [&stored.session_row, &stored.tenant, &stored.entry] {
        let genuine = stored.row(target).await;
        let last = genuine.as_bytes().len() - 1;
        stored.site.world().tamper(target, Some(flipped(&genuine, last, 3))).await;
        let before = rows(stored.site.world().rows().await);
        let mut app = stored.site.app();
        let session = &stored.session;
        let loss = (Code::DataLoss, "INTEGRITY_FAILURE");
        refused(app.put_entry(put(session, "key", "x")).await, loss.0, loss.1);
        refused(app.delete_entry(delete(session, "key")).await, loss.0, loss.1);
        refused(app.delete_entry(crate::requests::consume(session, "key")).await, loss.0, loss.1);
        let writes = vec![
            crate::requests::write_put(new_put("key", "x")),
            crate::requests::write_put(new_put("fresh", "x")),
        ];
        refused(app.write_batch(crate::requests::write_batch(session, writes)).await, loss.0, loss.1);
        refused(app.read_batch(read_batch(session, &["sibling", "key"])).await, loss.0, loss.1);
        if *target != stored.entry {
            refused(app.append_events(append(session, "stream", &["x"])).await, loss.0, loss.1);
            refused(app.update_session(update(session)).await, loss.0, loss.1);
            refused(app.delete_session(delete_session(session)).await, loss.0, loss.1);
            refused(
                stored.site.root().purge_sensitive(crate::requests::purge(session)).await,
                loss.0,
                loss.1,
            );
        }
        assert!(rows(stored.site.world().rows().await) == before, "nothing was written");
        stored.site.world().tamper(target, Some(genuine)).await;
    }
    answered(stored.site.app().get_session(get(&stored.session)).await);
}

#[tokio::test]
async fn directories_that_do_not_open_lead_nowhere() {
    let stored = Stored::new().await;
    let name_row = |rows: &[(Key, Row)], table: Table| {
        rows.iter().filter(|(key, _)| key.as_bytes()[0] == table as u8).cloned().collect::<Vec<_>>()
    };
    let rows = stored.site.world().rows().await;
    let tokens = name_row(&rows, Table::TokenName);
    let revoke = || v1::RevokeTokenRequest { name: "reader".to_owned(), ..Default::default() };
    for (key, row) in &tokens {
        let last = row.as_bytes().len() - 1;
        stored.site.world().tamper(key, Some(flipped(row, last, 0))).await;
    }
    refused(stored.site.admin().revoke_token(revoke()).await, Code::DataLoss, "INTEGRITY_FAILURE");
    for (key, row) in &tokens {
        stored.site.world().tamper(key, Some(row.clone())).await;
    }
    // In another process, which does not know the tenant yet.
    let session = stored.session.clone();
    let tenants = name_row(&rows, Table::TenantName);
    let site = stored.site.reopened().await;
    let [(key, row)] = &tenants[..] else { panic!("one tenant") };
    for place in [0, 8, 9, 13, 19, 40, 70, 110, row.as_bytes().len() - 1] {
        site.world().tamper(key, Some(flipped(row, place, 1))).await;
        let refusal =
            refused(site.app().get_session(get(&session)).await, Code::DataLoss, "INTEGRITY_FAILURE");
        site.recorded(&refusal.stamp.unwrap(), "ses.read", "fail", Some("INTEGRITY_FAILURE")).await;
    }
    site.world().tamper(key, Some(row.clone())).await;
    answered(site.app().get_session(get(&session)).await);
}

#[tokio::test]
async fn a_log_that_was_changed_is_not_shown_and_not_written_to() {
    let stored = Stored::new().await;
    let is_log =
        |key: &Key, table: Table| key.as_bytes()[0] == table as u8 && key.tenant() == stored.tenant.tenant();
    let rows = stored.site.world().rows().await;
    let blocks: Vec<_> = rows.iter().filter(|(key, _)| is_log(key, Table::LogBlock)).collect();
    let (head, head_row) = rows.iter().find(|(key, _)| is_log(key, Table::LogHead)).unwrap().clone();
    let (key, row) = blocks[2];
    for place in [8, 12, 20, 30, 60, 101, row.as_bytes().len() - 1] {
        let before = stored.site.world().service.counts().integrity_failures;
        stored.site.world().tamper(key, Some(flipped(row, place, 2))).await;
        let outcome = stored.site.admin().search_audit(search("demo")).await;
        let refusal = refused(outcome, Code::DataLoss, "INTEGRITY_FAILURE");
        assert_eq!(stored.site.world().service.counts().integrity_failures, before + 1);
        stored.site.world().tamper(key, Some(row.clone())).await;
        stored.site.recorded(&refusal.stamp.unwrap(), "aud.search", "fail", Some("INTEGRITY_FAILURE")).await;
    }
    // One block in the place of another, and one taken out.
    stored.site.world().tamper(key, Some(blocks[3].1.clone())).await;
    refused(stored.site.admin().search_audit(search("demo")).await, Code::DataLoss, "INTEGRITY_FAILURE");
    stored.site.world().tamper(key, None).await;
    refused(stored.site.admin().search_audit(search("demo")).await, Code::DataLoss, "INTEGRITY_FAILURE");
    let tail = v1::TailAuditRequest { tenant: "demo".to_owned(), backlog: 1000, ..Default::default() };
    refused(stored.site.admin().tail_audit(tail).await, Code::DataLoss, "INTEGRITY_FAILURE");
    stored.site.world().tamper(key, Some(row.clone())).await;

    // In another process, whose committer has to read the head: changed or set back, nothing is answered any more.
    let session = stored.session.clone();
    let site = stored.site.reopened().await;
    answered(site.app().get_session(get(&session)).await);
    let site = site.reopened().await;
    let newest = site.world().rows().await.into_iter().find(|(found, _)| *found == head).unwrap().1;
    let mut first = newest.as_bytes().to_vec();
    first[..8].copy_from_slice(&Revision::FIRST.get().to_be_bytes());
    for bad in [head_row, flipped(&newest, 40, 0), Row::from_stored(first.into())] {
        site.world().tamper(&head, Some(bad)).await;
        let outcome = site.app().get_session(get(&session)).await;
        refused(outcome, Code::Unavailable, "AUDIT_UNAVAILABLE");
        let outcome = site.app().put_entry(put(&session, "key", "unrecorded")).await;
        refused(outcome, Code::Unavailable, "AUDIT_UNAVAILABLE");
    }
    site.world().tamper(&head, Some(newest)).await;
    assert_eq!(site.look(&session, "key").await.unwrap().1, b"the value");
}

#[tokio::test]
async fn an_event_ties_a_write_to_the_exact_bytes_that_are_stored() {
    let stored = Stored::new().await;
    let (_, place) = answered(stored.site.app().put_entry(put(&stored.session, "key", "tied")).await);
    let row = stored.row(&stored.entry).await;
    let hash = ring::digest::digest(&ring::digest::SHA256, row.as_bytes());
    let event = stored.site.event(&place).await;
    assert_eq!(event["ch"], data_encoding::HEXLOWER.encode(hash.as_ref()));
}
