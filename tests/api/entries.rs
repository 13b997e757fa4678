//! PutEntry, ReadEntry, DeleteEntry, ListEntries.

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom::proto::v1::{self, expectation::Condition, put::Expiration};
use tonic::Code;

use crate::requests::{
    absent, consume, create, delete, list, millis, new_put, put, put_of, read, revision, seconds, span, time,
};
use crate::site::Site;
use crate::support::{answered, stamp};

fn current(revision: u64) -> BTreeMap<String, String> {
    [("current_revision".to_owned(), revision.to_string())].into()
}

#[tokio::test]
async fn put_entry_answers_what_is_stored() {
    let site = Site::outside().await;
    let session = site.session().await;
    let labels: BTreeMap<_, _> = [("a".to_owned(), "b".to_owned())].into();
    let put = v1::Put {
        content_type: "application/json; charset=utf-8".to_owned(),
        labels: labels.clone(),
        expiration: Some(Expiration::Ttl(seconds(60))),
        ..new_put("key ü", "value")
    };
    let outcome = site.app().put_entry(put_of(&session, put)).await;
    let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let first = site.answered(outcome, "ctx.put").await.metadata.unwrap();
    assert_eq!((first.key.as_str(), first.revision, first.size), ("key ü", 1, 5));
    assert_eq!((first.content_type.as_str(), &first.labels), ("application/json; charset=utf-8", &labels));
    assert_eq!(first.create_time, first.update_time);
    assert_eq!(millis(first.expire_time) - millis(first.create_time), 60_000);
    let event = site.event(&place).await;
    assert_eq!((&event["res"]["ver"], &event["nb"]["in"]), (&1.into(), &5.into()));
    assert!(event["ch"].is_string() && event["kid"]["dek"].is_string() && event["res"]["kp"].is_string());

    let found = site.answered(site.reader().read_entry(read(&session, "key ü")).await, "ctx.read").await;
    let found = found.entry.unwrap();
    assert_eq!((found.metadata.as_ref(), &found.value[..]), (Some(&first), &b"value"[..]));

    let second = site.app().put_entry(put_of(&session, new_put("key ü", "longer value"))).await.unwrap();
    let second = second.into_inner().metadata.unwrap();
    assert_eq!((second.revision, second.size, second.expire_time), (2, 12, None));
    assert_eq!(second.create_time, first.create_time);
    assert!(second.labels.is_empty() && second.content_type.is_empty());
}

#[tokio::test]
async fn put_entry_holds_its_condition() {
    let site = Site::outside().await;
    let session = site.session().await;
    let outcome = async |expect| {
        let put = v1::Put { expect, ..new_put("key", "value") };
        site.app().put_entry(put_of(&session, put)).await
    };
    let mismatch = (Code::Aborted, "REVISION_MISMATCH");
    let refused = async |expect, found| {
        let outcome = outcome(expect).await;
        let refusal = site.refused(outcome, mismatch.0, mismatch.1, ("ctx.put", "fail")).await;
        assert_eq!(refusal.details, current(found));
    };
    refused(revision(1), 0).await;
    site.answered(outcome(absent()).await, "ctx.put").await;
    refused(absent(), 1).await;
    refused(revision(2), 1).await;
    site.answered(outcome(revision(1)).await, "ctx.put").await;
    refused(revision(1), 2).await;
    site.answered(outcome(None).await, "ctx.put").await;
    site.app().delete_entry(delete(&session, "key")).await.unwrap();
    refused(revision(3), 0).await;
    refused(revision(4), 0).await;
    let again = site.answered(outcome(absent()).await, "ctx.put").await.metadata.unwrap();
    // Deletion is revision 4: it never goes back.
    assert_eq!(again.revision, 5);
}

#[tokio::test]
async fn put_entry_never_outlives_its_session() {
    let site = Site::outside().await;
    let ttl = v1::create_session_request::Expiration::Ttl(seconds(100));
    let session =
        site.create(v1::CreateSessionRequest { expiration: Some(ttl), ..create(&site.tenant) }).await;
    let end = site.app().get_session(crate::requests::get(&session)).await.unwrap().into_inner();
    let end = end.session.unwrap().expire_time;
    let put = v1::Put { expiration: Some(Expiration::Ttl(seconds(101))), ..new_put("key", "") };
    let made = site.app().put_entry(put_of(&session, put)).await.unwrap().into_inner().metadata.unwrap();
    assert_eq!(made.expire_time, end);
}

#[tokio::test]
async fn put_entry_names_the_field_that_is_wrong() {
    let site = Site::outside().await;
    let session = site.session().await;
    let base = new_put("key", "value");
    let expect = |condition| v1::Put { expect: Some(v1::Expectation { condition }), ..base.clone() };
    let ends = |expiration| v1::Put { expiration: Some(expiration), ..base.clone() };
    let labels: BTreeMap<_, _> = (0..33).map(|n| (n.to_string(), String::new())).collect();
    let cases = [
        ("put.key", new_put("", "")),
        ("put.key", new_put(&"k".repeat(513), "")),
        ("put.key", new_put("a\u{7f}", "")),
        ("put.key", new_put("a\0", "")),
        ("put.content_type", v1::Put { content_type: "x".repeat(129), ..base.clone() }),
        ("put.content_type", v1::Put { content_type: "täxt".to_owned(), ..base.clone() }),
        ("put.labels", v1::Put { labels, ..base.clone() }),
        ("put.expect", expect(None)),
        ("put.expect", expect(Some(Condition::Absent(false)))),
        ("put.expect", expect(Some(Condition::Revision(0)))),
        ("put.ttl", ends(Expiration::Ttl(prost_types::Duration { seconds: 0, nanos: -1 }))),
        ("put.expiration", ends(Expiration::Ttl(span(Duration::from_micros(999))))),
        ("put.expiration", ends(Expiration::Ttl(seconds(400 * 24 * 3600 + 1)))),
        ("put.expiration", ends(Expiration::ExpireTime(time(1000)))),
        (
            "put.expire_time",
            ends(Expiration::ExpireTime(prost_types::Timestamp { seconds: i64::MIN, nanos: 0 })),
        ),
    ];
    for (field, put) in cases {
        site.invalid(site.app().put_entry(put_of(&session, put)).await, field, "ctx.put").await;
    }
    let none = v1::PutEntryRequest { put: None, ..put(&session, "", "") };
    site.invalid(site.app().put_entry(none).await, "put", "ctx.put").await;
    let none = v1::PutEntryRequest { session: None, ..put(&session, "key", "") };
    site.invalid(site.app().put_entry(none).await, "session", "ctx.put").await;
    assert_eq!(site.look(&session, "key").await, None);
    let widest = v1::Put { content_type: "x".repeat(128), ..new_put(&"k".repeat(512), "") };
    site.answered(site.app().put_entry(put_of(&session, widest)).await, "ctx.put").await;
}

#[tokio::test]
async fn read_entry_knows_views_and_least_revisions() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "key", "one").await;
    site.put(&session, "key", "two!").await;
    for (view, typ, name) in [
        (v1::View::Unspecified, "ctx.read", "redacted"),
        (v1::View::Redacted, "ctx.read", "redacted"),
        (v1::View::Full, "ctx.reveal", "full"),
    ] {
        let request = v1::ReadEntryRequest { view: view.into(), min_revision: 2, ..read(&session, "key") };
        let outcome = site.app().read_entry(request).await;
        let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
        let found = site.answered(outcome, typ).await.entry.unwrap();
        assert_eq!(&found.value[..], b"two!");
        let event = site.event(&place).await;
        assert_eq!((&event["res"]["ver"], &event["nb"]["out"]), (&2.into(), &4.into()));
        assert_eq!(event["pol"]["view"], name);
    }
    let ahead = v1::ReadEntryRequest { min_revision: 3, ..read(&session, "key") };
    let outcome = site.app().read_entry(ahead).await;
    let behind = (Code::FailedPrecondition, "REVISION_BEHIND");
    let refusal = site.refused(outcome, behind.0, behind.1, ("ctx.read", "fail")).await;
    assert_eq!(refusal.details, current(2));

    let outcome = site.app().read_entry(read(&session, "other")).await;
    site.refused(outcome, Code::NotFound, "ENTRY_NOT_FOUND", ("ctx.read", "fail")).await;
    let strange = v1::ReadEntryRequest { view: 9, ..read(&session, "key") };
    site.invalid(site.app().read_entry(strange).await, "view", "ctx.read").await;
    site.invalid(site.app().read_entry(read(&session, "")).await, "key", "ctx.read").await;
    let none = v1::ReadEntryRequest { session: None, ..read(&session, "key") };
    site.invalid(site.app().read_entry(none).await, "session", "ctx.read").await;
}

#[tokio::test]
async fn delete_entry_counts_as_a_revision_and_may_return_the_value() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let gone = site.answered(site.app().delete_entry(delete(&session, "key")).await, "ctx.delete").await;
    assert_eq!((gone.revision, gone.entry), (2, None));
    assert_eq!(site.look(&session, "key").await, None);
    let again = site.app().delete_entry(delete(&session, "key")).await;
    site.refused(again, Code::NotFound, "ENTRY_NOT_FOUND", ("ctx.delete", "fail")).await;

    assert_eq!(site.put(&session, "key", "once").await, 3);
    let outcome = site.app().delete_entry(consume(&session, "key")).await;
    let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let taken = site.answered(outcome, "ctx.consume").await;
    assert_eq!(taken.revision, 4);
    let entry = taken.entry.unwrap();
    assert_eq!((entry.metadata.unwrap().revision, &entry.value[..]), (3, &b"once"[..]));
    assert_eq!(site.event(&place).await["nb"]["out"], 4);
    let again = site.app().delete_entry(consume(&session, "key")).await;
    site.refused(again, Code::NotFound, "ENTRY_NOT_FOUND", ("ctx.consume", "fail")).await;
}

#[tokio::test]
async fn delete_entry_holds_its_condition_and_names_wrong_fields() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let deleting = |key: &str, expect| v1::DeleteEntryRequest {
        delete: Some(v1::Delete { key: key.to_owned(), expect }),
        ..delete(&session, key)
    };
    for (key, found) in [("key", 1), ("other", 0)] {
        let outcome = site.app().delete_entry(deleting(key, revision(7))).await;
        let mismatch = (Code::Aborted, "REVISION_MISMATCH");
        let refusal = site.refused(outcome, mismatch.0, mismatch.1, ("ctx.delete", "fail")).await;
        assert_eq!(refusal.details, current(found));
    }
    for (field, request) in [
        ("delete.expect", deleting("key", absent())),
        ("delete.key", deleting("", None)),
        ("delete", v1::DeleteEntryRequest { delete: None, ..deleting("key", None) }),
        ("session", v1::DeleteEntryRequest { session: None, ..deleting("key", None) }),
        // The value of an enum that is not known is refused even where it would not matter.
        ("view", v1::DeleteEntryRequest { view: 4, ..deleting("key", None) }),
        ("view", v1::DeleteEntryRequest { view: -1, return_value: true, ..deleting("key", None) }),
        ("request_id", v1::DeleteEntryRequest { request_id: "x".to_owned(), ..deleting("key", None) }),
    ] {
        site.invalid(site.app().delete_entry(request).await, field, "ctx.delete").await;
    }
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
    site.answered(site.app().delete_entry(deleting("key", revision(1))).await, "ctx.delete").await;
}

#[tokio::test]
async fn list_entries_tells_everything_but_values() {
    let site = Site::outside().await;
    let session = site.session().await;
    let mut stored = BTreeMap::new();
    for n in 0..10 {
        let put = v1::Put {
            content_type: format!("text/{n}"),
            labels: [("n".to_owned(), n.to_string())].into(),
            ..new_put(&format!("key-{n}"), "x".repeat(n))
        };
        let made = answered(site.app().put_entry(put_of(&session, put)).await).0.metadata.unwrap();
        stored.insert(made.key.clone(), made);
    }
    site.app().delete_entry(delete(&session, "key-3")).await.unwrap();
    stored.remove("key-3");
    let page = site.answered(site.reader().list_entries(list(&session)).await, "ctx.list").await;
    assert_eq!(page.next_page_token, "");
    let listed: BTreeMap<_, _> = page.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    assert_eq!(listed, stored);
    let none = v1::ListEntriesRequest::default();
    site.invalid(site.reader().list_entries(none).await, "session", "ctx.list").await;
}
