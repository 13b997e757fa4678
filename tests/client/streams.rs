//! Streams: replay, follow, watch, and what happens to them when the connection breaks.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use strongroom::client::{ErrorReason, View};

use crate::bench::Bench;
use crate::fake::{Fake, Fault, refuse};

#[tokio::test]
async fn events_are_replayed_after_an_id_in_order() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    let ids = session.append("sse", ["one", "two", "three"]).await.unwrap();
    let all: Vec<_> = session.events("sse", View::Full).replay().try_collect().await.unwrap();
    assert_eq!(all.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), **ids);
    let rest: Vec<_> = session.events("sse", View::Full).after(&ids[0]).replay().try_collect().await.unwrap();
    assert_eq!(rest.iter().map(|event| &event.bytes[..]).collect::<Vec<_>>(), [b"two".as_slice(), b"three"]);
    let first: Vec<_> = session.events("sse", View::Full).limit(1).replay().try_collect().await.unwrap();
    assert_eq!(first.len(), 1);
    let unknown = session.events("sse", View::Full).after("no-such-event").replay().try_next().await;
    assert_eq!(unknown.unwrap_err().reason(), ErrorReason::EventNotFound);
}

#[tokio::test]
async fn an_append_to_another_end_than_expected_is_refused() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    let ids = session.append("s", ["one"]).expect_empty().await.unwrap();
    assert!(session.append("s", ["two"]).expect_empty().await.unwrap_err().is_last_event_mismatch());
    assert!(session.append("s", ["two"]).expect_last(&ids[0]).await.is_ok());
}

#[tokio::test]
async fn a_followed_stream_goes_on_after_breaks_without_loss_or_repetition() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    let mut followed = session.events("sse", View::Full).follow();
    for round in 0..4 {
        session.append("sse", [format!("{round}-a"), format!("{round}-b")]).await.unwrap();
        for half in ["a", "b"] {
            let event = followed.next().await.unwrap().unwrap();
            assert_eq!(event.bytes, format!("{round}-{half}"));
        }
        match round {
            0 => fake.state.break_streams.notify_waiters(),
            1 => fake.cut(),
            _ => {}
        }
    }
    assert!(fake.state.seen("ReadEvents").len() >= 3);
}

#[tokio::test]
async fn following_a_session_that_ends_ends_with_the_reason() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    session.append("sse", ["one"]).await.unwrap();
    let mut followed = session.events("sse", View::Full).follow();
    followed.next().await.unwrap().unwrap();
    fake.state.expire(session.id());
    fake.state.break_streams.notify_waiters();
    assert!(followed.next().await.unwrap().unwrap_err().is_expired());
    assert!(followed.next().await.is_none());
}

#[tokio::test]
async fn a_following_with_an_end_ends_there() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    session.append("sse", ["one"]).await.unwrap();
    let followed = session.events("sse", View::Full).follow_for(Duration::from_millis(300)).follow();
    assert_eq!(followed.try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_again_ends_when_patience_does() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    session.append("sse", ["one"]).await.unwrap();
    let mut followed = session.events("sse", View::Full).patience(Duration::ZERO).follow();
    followed.next().await.unwrap().unwrap();
    fake.close();
    assert!(followed.next().await.unwrap().unwrap_err().is_unavailable());
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_reading_is_final() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    fake.state.fail(Fault::Refuse(refuse(tonic::Code::DataLoss, "INTEGRITY_FAILURE", &[])));
    let mut events = session.events("sse", View::Full).follow();
    assert_eq!(events.next().await.unwrap().unwrap_err().reason(), ErrorReason::IntegrityFailure);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_resumes_after_a_break() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    session.put("a", "1").await.unwrap();
    let mut watch = session.watch().stream();
    let first = watch.next().await.unwrap().unwrap();
    assert!(first.snapshot && first.changes.len() == 1);
    session.put("a", "2").await.unwrap();
    let second = watch.next().await.unwrap().unwrap();
    assert_eq!((second.snapshot, second.changes[0].revision.get()), (false, 2));
    fake.cut();
    session.put("b", "3").await.unwrap();
    let missed = watch.next().await.unwrap().unwrap();
    assert!(!missed.snapshot);
    assert_eq!(missed.changes[0].key, "b");
}
