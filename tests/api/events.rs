//! AppendEvents, ReadEvents.

use std::collections::BTreeSet;
use std::time::Duration;

use strongroom::proto::v1;
use tonic::{Code, Streaming};

use crate::requests::{append, create, delete_session, events, follow, owner, put, seconds, span};
use crate::site::Site;
use crate::support::{Refusal, answered, promptly, soon};

/// The text of all events up to the end of a stream that is not followed.
async fn drain(mut stream: Streaming<v1::ReadEventsResponse>) -> Vec<v1::Event> {
    let mut all = Vec::new();
    while let Some(message) = soon(stream.message()).await.unwrap() {
        all.extend(message.events);
    }
    all
}

async fn replay(site: &Site, request: v1::ReadEventsRequest) -> Vec<v1::Event> {
    drain(answered(site.reader().read_events(request).await).0).await
}

fn texts(events: &[v1::Event]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8(event.data.to_vec()).unwrap()).collect()
}

async fn ids(site: &Site, request: v1::AppendEventsRequest) -> Vec<String> {
    answered(site.app().append_events(request).await).0.event_ids
}

#[tokio::test]
async fn events_are_replayed_in_order_from_any_of_them() {
    let site = Site::outside().await;
    let session = site.session().await;
    let request = append(&session, "stream", &["one", "", "three"]);
    let made = site.answered(site.app().append_events(request).await, "evt.append").await.event_ids;
    let more = ids(&site, append(&session, "stream", &["four"])).await;
    let all: Vec<_> = made.into_iter().chain(more).collect();
    assert!(all.is_sorted() && all.iter().collect::<BTreeSet<_>>().len() == 4, "{all:?}");

    let stream = site.answered(site.reader().read_events(events(&session, "stream")).await, "evt.read").await;
    let found = drain(stream).await;
    assert_eq!(texts(&found), ["one", "", "three", "four"]);
    assert_eq!(found.iter().map(|event| event.event_id.clone()).collect::<Vec<_>>(), all);
    assert!(found.iter().all(|event| event.append_time.is_some()));
    for (place, id) in all.iter().enumerate() {
        let after = v1::ReadEventsRequest { after_event_id: id.clone(), ..events(&session, "stream") };
        assert_eq!(texts(&replay(&site, after).await), texts(&found[place + 1..]));
    }
    for limit in 1..=5_u64 {
        let request = v1::ReadEventsRequest { limit, ..events(&session, "stream") };
        let expected = usize::try_from(limit).unwrap().min(4);
        assert_eq!(replay(&site, request).await.len(), expected);
    }
    assert_eq!(replay(&site, events(&session, "another")).await, []);
}

#[tokio::test]
async fn a_large_replay_comes_in_bounded_messages() {
    let site = Site::outside().await;
    let session = site.session().await;
    for part in 0..6 {
        let event = v1::NewEvent { data: vec![part; 400 << 10].into(), content_type: format!("x/{part}") };
        let request = v1::AppendEventsRequest { events: vec![event], ..append(&session, "large", &[]) };
        ids(&site, request).await;
    }
    let whole = v1::NewEvent { data: vec![7; 1 << 20].into(), ..Default::default() };
    let whole = v1::AppendEventsRequest { events: vec![whole], ..append(&session, "large", &[]) };
    ids(&site, whole).await;
    let (mut stream, _) = answered(site.app().read_events(events(&session, "large")).await);
    let mut found = Vec::new();
    let mut caught_up = false;
    while let Some(message) = stream.message().await.unwrap() {
        assert!(!caught_up, "nothing follows the last message");
        let bytes: usize = message.events.iter().map(|event| event.data.len()).sum();
        assert!(bytes <= 1 << 20, "{bytes}");
        found.extend(message.events.iter().map(|event| (event.data[0], event.data.len())));
        caught_up = message.caught_up;
    }
    assert!(caught_up);
    let sizes: Vec<_> = (0..6).map(|part| (part, 400 << 10)).chain([(7, 1 << 20)]).collect();
    assert_eq!(found, sizes);
}

#[tokio::test]
async fn event_ids_of_others_are_not_found() {
    let site = Site::outside().await;
    let session = site.session().await;
    let other = site.session().await;
    let mine = ids(&site, append(&session, "stream", &["1", "2"])).await;
    let sibling = ids(&site, append(&session, "sibling", &["1", "2"])).await;
    let foreign = ids(&site, append(&other, "stream", &["1", "2", "3"])).await;
    let all: BTreeSet<_> = mine.iter().chain(&sibling).chain(&foreign).collect();
    assert_eq!(all.len(), 7, "ids are unique in the store");

    let mut forged = mine[0].clone();
    forged.replace_range(15..16, "3");
    let mut changed = mine[0].clone();
    let last = if changed.ends_with('0') { "1" } else { "0" };
    changed.replace_range(35..36, last);
    let upper = mine[0].to_uppercase();
    let strange =
        ["0", "none", "é", "ü".repeat(40).as_str(), &"0".repeat(36), &mine[0][..35]].map(str::to_owned);
    let wrong = [sibling[0].clone(), foreign[0].clone(), foreign[2].clone(), forged, changed];
    for id in wrong.into_iter().chain(strange).chain((upper != mine[0]).then_some(upper)) {
        let request = v1::ReadEventsRequest { after_event_id: id.clone(), ..events(&session, "stream") };
        let outcome = site.reader().read_events(request).await;
        site.refused(outcome, Code::NotFound, "EVENT_NOT_FOUND", ("evt.read", "fail")).await;
        if id != "none" {
            let request =
                v1::AppendEventsRequest { expect_last_event_id: id, ..append(&session, "stream", &["x"]) };
            let outcome = site.app().append_events(request).await;
            site.refused(outcome, Code::Aborted, "LAST_EVENT_MISMATCH", ("evt.append", "fail")).await;
        }
    }
    assert_eq!(replay(&site, events(&session, "stream")).await.len(), 2);
}

#[tokio::test]
async fn an_append_may_expect_the_last_event() {
    let site = Site::outside().await;
    let session = site.session().await;
    let expecting = |last: &str| v1::AppendEventsRequest {
        expect_last_event_id: last.to_owned(),
        ..append(&session, "stream", &["x", "y"])
    };
    let first = ids(&site, expecting("none")).await;
    for wrong in ["none", first[0].as_str()] {
        let outcome = site.app().append_events(expecting(wrong)).await;
        site.refused(outcome, Code::Aborted, "LAST_EVENT_MISMATCH", ("evt.append", "fail")).await;
    }
    let second = ids(&site, expecting(&first[1])).await;
    let outcome = site.app().append_events(expecting(&first[1])).await;
    site.refused(outcome, Code::Aborted, "LAST_EVENT_MISMATCH", ("evt.append", "fail")).await;
    ids(&site, expecting(&second[1])).await;
    assert_eq!(replay(&site, events(&session, "stream")).await.len(), 6);
}

#[tokio::test]
async fn appends_have_bounds() {
    let site = Site::outside().await;
    let session = site.session().await;
    let of =
        |events: Vec<v1::NewEvent>| v1::AppendEventsRequest { events, ..append(&session, "stream", &[]) };
    let sized = |bytes: usize| v1::NewEvent { data: vec![0; bytes].into(), ..Default::default() };
    let bad_type = v1::NewEvent { content_type: "\n".to_owned(), ..sized(1) };
    for (field, request) in [
        ("events", of(Vec::new())),
        ("events", of(vec![sized(0); 257])),
        ("events.data", of(vec![sized((1 << 20) + 1)])),
        ("events", of([vec![sized(1 << 20); 4], vec![sized(1)]].concat())),
        ("events.content_type", of(vec![bad_type])),
        ("stream", append(&session, "", &["x"])),
        ("stream", append(&session, &"s".repeat(513), &["x"])),
        ("stream", append(&session, "a\u{1}", &["x"])),
        ("session", v1::AppendEventsRequest { session: None, ..append(&session, "stream", &["x"]) }),
        (
            "request_id",
            v1::AppendEventsRequest { request_id: "?".to_owned(), ..append(&session, "s", &["x"]) },
        ),
    ] {
        site.invalid(site.app().append_events(request).await, field, "evt.append").await;
    }
    assert_eq!(replay(&site, events(&session, "stream")).await, []);
    assert_eq!(ids(&site, of(vec![sized(0); 256])).await.len(), 256);
    assert_eq!(ids(&site, of(vec![sized(1 << 20); 4])).await.len(), 4);
    let negative = prost_types::Duration { seconds: -5, nanos: 0 };
    for (field, request) in [
        ("stream", events(&session, "")),
        ("session", v1::ReadEventsRequest { session: None, ..events(&session, "stream") }),
        ("view", v1::ReadEventsRequest { view: 77, ..events(&session, "stream") }),
        (
            "max_duration",
            v1::ReadEventsRequest { max_duration: Some(negative), ..events(&session, "stream") },
        ),
    ] {
        site.invalid(site.app().read_events(request).await, field, "evt.read").await;
    }
}

#[tokio::test]
async fn concurrent_appends_lose_nothing_and_keep_their_order() {
    let site = Site::outside().await;
    let session = site.session().await;
    let appending = (0..64).map(|writer| {
        let (mut app, session) = (site.app(), session.clone());
        async move {
            let mut made = Vec::new();
            for round in 0..4 {
                let texts = [0, 1].map(|part| format!("{writer} {round} {part}"));
                let texts = [texts[0].as_str(), texts[1].as_str()];
                let request = append(&session, "shared", &texts);
                made.extend(answered(app.append_events(request).await).0.event_ids);
            }
            made
        }
    });
    let made = soon(futures_util::future::join_all(appending)).await;
    let found = replay(&site, events(&session, "shared")).await;
    assert_eq!(found.len(), 64 * 4 * 2);
    assert!(found.is_sorted_by(|one, two| one.event_id < two.event_id));
    let in_order: Vec<_> = found.iter().map(|event| event.event_id.clone()).collect();
    for (writer, ids) in made.iter().enumerate() {
        assert!(ids.is_sorted());
        let own: Vec<_> =
            texts(&found).into_iter().filter(|text| text.starts_with(&format!("{writer} "))).collect();
        let expected: Vec<_> =
            (0..4).flat_map(|round| [0, 1].map(|part| format!("{writer} {round} {part}"))).collect();
        assert_eq!(own, expected);
        for pair in ids.chunks(2) {
            let place = in_order.iter().position(|id| *id == pair[0]).unwrap();
            assert_eq!(in_order[place + 1], pair[1], "an append stays together");
        }
    }
}

#[tokio::test]
async fn a_followed_stream_shows_what_comes_and_ends_with_its_session() {
    let site = Site::outside().await;
    let session =
        site.create(v1::CreateSessionRequest { owner: Some(owner("alice")), ..create(&site.tenant) }).await;
    ids(&site, append(&session, "stream", &["before"])).await;
    let (mut stream, _) = answered(site.reader().read_events(follow(&session, "stream")).await);
    let first = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!((texts(&first.events), first.caught_up), (vec!["before".to_owned()], true));
    // Another stream of the session is none of its business, nor is an entry.
    ids(&site, append(&session, "another", &["x"])).await;
    site.put(&session, "entry", "x").await;
    for text in ["one", "two", "three"] {
        ids(&site, append(&session, "stream", &[text])).await;
        let next = soon(stream.message()).await.unwrap().unwrap();
        assert_eq!((texts(&next.events), next.caught_up), (vec![text.to_owned()], true));
    }
    site.app().delete_session(delete_session(&session)).await.unwrap();
    let end = promptly(stream.message()).await.unwrap_err();
    let end = Refusal::of(&end);
    assert_eq!((end.code, end.reason.as_str()), (Code::NotFound, "SESSION_NOT_FOUND"));
    site.recorded(&end.stamp.unwrap(), "evt.read", "deny", Some("SESSION_NOT_FOUND")).await;
}

#[tokio::test]
async fn a_followed_stream_ends_at_its_limit_and_at_its_time() {
    let site = Site::outside().await;
    let session = site.session().await;
    let request = v1::ReadEventsRequest { limit: 2, ..follow(&session, "stream") };
    let (stream, _) = answered(site.app().read_events(request).await);
    ids(&site, append(&session, "stream", &["1", "2", "3"])).await;
    assert_eq!(texts(&drain(stream).await), ["1", "2"]);

    let short = Some(span(Duration::from_millis(50)));
    let request = v1::ReadEventsRequest { max_duration: short, ..follow(&session, "stream") };
    let (stream, _) = answered(site.app().read_events(request).await);
    assert_eq!(drain(stream).await.len(), 3);
}

#[tokio::test]
async fn a_follower_is_told_when_the_session_expires() {
    let site = Site::inside().await;
    let ttl = v1::create_session_request::Expiration::Ttl(seconds(60));
    let session =
        site.create(v1::CreateSessionRequest { expiration: Some(ttl), ..create(&site.tenant) }).await;
    let (mut stream, _) = answered(site.app().read_events(follow(&session, "stream")).await);
    soon(stream.message()).await.unwrap().unwrap();
    site.world().clock.advance(Duration::from_secs(60));
    assert_eq!(site.world().sweep().await, 1);
    let end = Refusal::of(&promptly(stream.message()).await.unwrap_err());
    assert_eq!((end.code, end.reason.as_str()), (Code::FailedPrecondition, "SESSION_EXPIRED"));
}

#[tokio::test]
async fn a_session_made_again_under_the_same_handle_has_other_event_ids() {
    let site = Site::inside().await;
    let request = v1::CreateSessionRequest { session_id: "again".to_owned(), ..create(&site.tenant) };
    let session = site.create(request.clone()).await;
    let old = ids(&site, append(&session, "stream", &["1", "2", "3"])).await;
    let (mut stream, _) = answered(site.app().read_events(follow(&session, "stream")).await);
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().events.len(), 3);
    // Both happen before the follower looks again: this thread runs one task at a time.
    site.app().delete_session(delete_session(&session)).await.unwrap();
    let session = site.create(request).await;
    let new = ids(&site, append(&session, "stream", &["a", "b", "c", "d"])).await;
    assert!(new.iter().all(|id| !old.contains(id)));
    let end = Refusal::of(&soon(stream.message()).await.unwrap_err());
    assert_eq!(end.reason, "SESSION_NOT_FOUND");
    for id in &old {
        let request = v1::ReadEventsRequest { after_event_id: id.clone(), ..events(&session, "stream") };
        let outcome = site.reader().read_events(request).await;
        site.refused(outcome, Code::NotFound, "EVENT_NOT_FOUND", ("evt.read", "fail")).await;
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_a_bounded_part_of_the_servers_memory() {
    // Of its own, because its memory is measured.
    let daemon = std::sync::Arc::new(crate::support::Daemon::start().await);
    let site = Site::on(std::sync::Arc::clone(&daemon)).await;
    let session = site.session().await;
    let event = v1::NewEvent { data: vec![7; 1 << 20].into(), ..Default::default() };
    let request = v1::AppendEventsRequest { events: vec![event; 4], ..append(&session, "large", &[]) };
    for _ in 0..24 {
        ids(&site, request.clone()).await;
    }
    // What the engine caches is in memory from here on.
    assert_eq!(replay(&site, events(&session, "large")).await.len(), 96);
    let before = daemon.memory("VmRSS");
    let mut readers = Vec::new();
    for _ in 0..8 {
        // A connection each, so that they do not share a window.
        let mut client = daemon.context(crate::support::Login::Admin);
        let (stream, _) = answered(client.read_events(follow(&session, "large")).await);
        readers.push((client, stream));
    }
    for n in 0..100 {
        ids(&site, append(&session, "large", &[&n.to_string()])).await;
    }
    // Of the 96 MiB that wait for it, each reader may hold two messages in the making or on their way, each once as events
    // and once encoded; the allocator may keep as much again of what was freed meanwhile (half of it was not always enough).
    let after = daemon.memory("VmRSS");
    let bound = readers.len() * (8 << 20);
    assert!(after < before + bound, "{} MiB more", (after - before) >> 20);
    // They are not cut off either.
    let (_, stream) = readers.pop().unwrap();
    let mut found = 0;
    let mut stream = stream;
    while found < 196 {
        found += soon(stream.message()).await.unwrap().unwrap().events.len();
    }
    site.app().put_entry(put(&session, "alive", "x")).await.unwrap();
}
