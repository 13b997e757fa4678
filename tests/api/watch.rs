//! WatchSession.

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom::model::limits::WATCH_RING;
use strongroom::proto::v1;
use tonic::{Code, Streaming};

use crate::requests::{
    append, create, delete, delete_session, new_put, owner, put_of, seconds, span, watch, write_batch,
    write_put,
};
use crate::site::Site;
use crate::support::{Refusal, answered, promptly, soon};

type Watching = Streaming<v1::WatchSessionResponse>;

async fn begin(site: &Site, request: v1::WatchSessionRequest) -> Watching {
    answered(site.reader().watch_session(request).await).0
}

async fn next(stream: &mut Watching) -> v1::WatchSessionResponse {
    soon(stream.message()).await.unwrap().unwrap()
}

fn said(message: &v1::WatchSessionResponse) -> Vec<(&str, u64, bool)> {
    message.changes.iter().map(|change| (change.key.as_str(), change.revision, change.deleted)).collect()
}

/// All changes until `count` of them have come.
async fn gather(stream: &mut Watching, count: usize) -> Vec<(String, u64, bool)> {
    let mut all = Vec::new();
    while all.len() < count {
        let message = next(stream).await;
        assert!(!message.snapshot);
        all.extend(message.changes.into_iter().map(|change| (change.key, change.revision, change.deleted)));
    }
    all
}

#[tokio::test]
async fn a_watch_begins_with_everything_and_goes_on_with_changes() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "a", "1").await;
    site.put(&session, "b", "1").await;
    site.put(&session, "b", "2").await;
    site.put(&session, "gone", "1").await;
    site.app().delete_entry(delete(&session, "gone")).await.unwrap();
    let outcome = site.reader().watch_session(watch(&session)).await;
    let mut stream = site.answered(outcome, "ctx.watch").await;
    let first = next(&mut stream).await;
    assert!(first.snapshot && first.caught_up && !first.resume_token.is_empty());
    let all: BTreeMap<_, _> =
        first.changes.iter().map(|change| (change.key.as_str(), change.revision)).collect();
    assert_eq!(all, [("a", 1), ("b", 2)].into());

    site.put(&session, "c", "1").await;
    let message = next(&mut stream).await;
    assert_eq!((said(&message), message.snapshot, message.caught_up), (vec![("c", 1, false)], false, true));
    site.app().delete_entry(delete(&session, "a")).await.unwrap();
    assert_eq!(said(&next(&mut stream).await), [("a", 2, true)]);
    // One commit, several changes, in its order.
    let writes = ["z", "y", "x"].map(|key| write_put(new_put(key, "1"))).to_vec();
    site.app().write_batch(write_batch(&session, writes)).await.unwrap();
    assert_eq!(said(&next(&mut stream).await), [("z", 1, false), ("y", 1, false), ("x", 1, false)]);
    // Neither another session nor a stream is its business.
    let other = site.session().await;
    site.put(&other, "secret", "1").await;
    site.app().append_events(append(&session, "stream", &["x"])).await.unwrap();
    site.put(&session, "last", "1").await;
    assert_eq!(said(&next(&mut stream).await), [("last", 1, false)]);
}

#[tokio::test]
async fn changes_come_in_the_order_of_their_commits() {
    let site = Site::outside().await;
    let session = site.session().await;
    let mut stream = begin(&site, watch(&session)).await;
    assert_eq!(said(&next(&mut stream).await), []);
    let writing = (0..32).map(|writer| {
        let (mut app, session) = (site.app(), session.clone());
        async move {
            for _ in 0..4 {
                let key = format!("key-{}", writer % 4);
                answered(app.put_entry(put_of(&session, new_put(&key, "x"))).await);
            }
        }
    });
    soon(futures_util::future::join_all(writing)).await;
    let all = gather(&mut stream, 128).await;
    assert_eq!(all.len(), 128);
    for key in 0..4 {
        let key = format!("key-{key}");
        let revisions: Vec<_> = all.iter().filter(|(name, ..)| *name == key).map(|(_, at, _)| *at).collect();
        assert_eq!(revisions, (1..=32).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_it_broke_off() {
    let site = Site::outside().await;
    let session = site.session().await;
    let mut stream = begin(&site, watch(&session)).await;
    next(&mut stream).await;
    site.put(&session, "a", "1").await;
    let token = next(&mut stream).await.resume_token;
    drop(stream);
    site.put(&session, "b", "1").await;
    site.app().delete_entry(delete(&session, "b")).await.unwrap();
    let request = v1::WatchSessionRequest { resume_token: token.clone(), ..watch(&session) };
    let mut stream = begin(&site, request).await;
    assert_eq!(gather(&mut stream, 2).await, [("b".to_owned(), 1, false), ("b".to_owned(), 2, true)]);
    // The token can be used again, and ends with its session alone.
    let other = site.session().await;
    let foreign = v1::WatchSessionRequest { resume_token: token.clone(), ..watch(&other) };
    site.invalid(site.reader().watch_session(foreign).await, "resume_token", "ctx.watch").await;
    let cut = token[..token.len() - 1].to_owned();
    for wrong in [cut, "?".to_owned(), "AAAA".to_owned(), "x".repeat(3000)] {
        let request = v1::WatchSessionRequest { resume_token: wrong, ..watch(&session) };
        site.invalid(site.reader().watch_session(request).await, "resume_token", "ctx.watch").await;
    }
    let none = v1::WatchSessionRequest { session: None, ..watch(&session) };
    site.invalid(site.reader().watch_session(none).await, "session", "ctx.watch").await;
}

#[tokio::test]
async fn a_watch_of_another_process_or_too_far_behind_begins_anew() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "a", "1").await;
    let mut stream = begin(&site, watch(&session)).await;
    let token = next(&mut stream).await.resume_token;
    let resumed = v1::WatchSessionRequest { resume_token: token, ..watch(&session) };
    let changes = 256;
    for _ in 0..WATCH_RING.div_ceil(changes) + 1 {
        let writes = (0..changes).map(|n| write_put(new_put(&n.to_string(), ""))).collect();
        site.app().write_batch(write_batch(&session, writes)).await.unwrap();
    }
    // The live stream, which nobody read meanwhile, and the resumed one both have to list everything again.
    for mut stream in [stream, begin(&site, resumed.clone()).await] {
        let message = next(&mut stream).await;
        assert!(message.snapshot);
        assert_eq!(message.changes.len(), changes + 1);
    }
    site.world().clock.advance(Duration::from_secs(1));
    let site = site.reopened().await;
    let mut stream = begin(&site, resumed).await;
    assert!(next(&mut stream).await.snapshot);
}

#[tokio::test]
async fn a_watch_lists_large_sessions_in_pages_and_misses_nothing_meanwhile() {
    let site = Site::inside().await;
    let session = site.session().await;
    for part in 0..10 {
        let writes = (0..250).map(|n| write_put(new_put(&format!("{part} {n}"), ""))).collect();
        site.app().write_batch(write_batch(&session, writes)).await.unwrap();
    }
    let mut stream = begin(&site, watch(&session)).await;
    let first = next(&mut stream).await;
    assert!(first.snapshot && !first.caught_up && first.resume_token.is_empty());
    site.put(&session, "meanwhile", "1").await;
    let mut names: std::collections::BTreeSet<_> =
        first.changes.into_iter().map(|change| change.key).collect();
    loop {
        let message = next(&mut stream).await;
        let (snapshot, caught_up) = (message.snapshot, message.caught_up);
        names.extend(message.changes.into_iter().map(|change| change.key));
        assert!(caught_up || message.resume_token.is_empty());
        if !snapshot {
            break;
        }
    }
    assert!(names.contains("meanwhile"));
    assert_eq!(names.len(), 2501);
}

#[tokio::test]
async fn a_watch_tells_of_expiry_and_ends_with_its_session() {
    let site = Site::inside().await;
    let session =
        site.create(v1::CreateSessionRequest { owner: Some(owner("alice")), ..create(&site.tenant) }).await;
    let mut stream = begin(&site, watch(&session)).await;
    next(&mut stream).await;
    let ttl = v1::put::Expiration::Ttl(seconds(5));
    let put = v1::Put { expiration: Some(ttl), ..new_put("short", "") };
    site.app().put_entry(put_of(&session, put)).await.unwrap();
    assert_eq!(said(&next(&mut stream).await), [("short", 1, false)]);
    site.world().clock.advance(Duration::from_secs(6));
    site.world().sweep().await;
    assert_eq!(said(&next(&mut stream).await), [("short", 2, true)]);
    site.app().delete_session(delete_session(&session)).await.unwrap();
    let end = Refusal::of(&promptly(stream.message()).await.unwrap_err());
    assert_eq!((end.code, end.reason.as_str()), (Code::NotFound, "SESSION_NOT_FOUND"));
    site.recorded(&end.stamp.unwrap(), "ctx.watch", "deny", Some("SESSION_NOT_FOUND")).await;
}

#[tokio::test]
async fn a_session_made_again_under_the_same_handle_is_another_to_a_watch() {
    let site = Site::inside().await;
    let request = v1::CreateSessionRequest { session_id: "again".to_owned(), ..create(&site.tenant) };
    let session = site.create(request.clone()).await;
    let mut stream = begin(&site, watch(&session)).await;
    let token = next(&mut stream).await.resume_token;
    site.put(&session, "old name", "1").await;
    site.app().delete_session(delete_session(&session)).await.unwrap();
    let session = site.create(request).await;
    site.put(&session, "new name", "1").await;
    let resumed = v1::WatchSessionRequest { resume_token: token, ..watch(&session) };
    site.invalid(site.reader().watch_session(resumed).await, "resume_token", "ctx.watch").await;
    let end = Refusal::of(&soon(stream.message()).await.unwrap_err());
    assert_eq!(end.reason, "SESSION_NOT_FOUND");
    let mut stream = begin(&site, watch(&session)).await;
    assert_eq!(said(&next(&mut stream).await), [("new name", 1, false)]);
}

#[tokio::test]
async fn a_watch_ends_at_its_time() {
    let site = Site::outside().await;
    let session = site.session().await;
    let max_duration = Some(span(Duration::from_millis(50)));
    let mut stream = begin(&site, v1::WatchSessionRequest { max_duration, ..watch(&session) }).await;
    next(&mut stream).await;
    assert_eq!(soon(stream.message()).await.unwrap(), None);
}
