//! ReadBatch, WriteBatch.

use strongroom::proto::v1;
use tonic::Code;

use crate::requests::{absent, delete, new_put, read_batch, revision, write_batch, write_delete, write_put};
use crate::site::Site;
use crate::support::stamp;

#[tokio::test]
async fn write_batch_writes_all_and_records_each() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "old", "1").await;
    let writes = vec![
        write_put(v1::Put { expect: absent(), ..new_put("new", "22") }),
        write_delete("old", revision(1)),
        write_put(new_put("third", "333")),
    ];
    let outcome = site.app().write_batch(write_batch(&session, writes)).await;
    let last = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let results = site.answered(outcome, "ctx.put").await.results;
    let results: Vec<_> = results.iter().map(|result| (result.key.as_str(), result.revision)).collect();
    assert_eq!(results, [("new", 1), ("old", 2), ("third", 1)]);
    assert_eq!(site.look(&session, "old").await, None);
    assert_eq!(site.look(&session, "new").await, Some((1, b"22".to_vec())));

    let events = site.events_since(last.sequence - 2).await;
    let said: Vec<_> = events[..3]
        .iter()
        .map(|event| {
            (event["typ"].as_str().unwrap(), event["res"]["ver"].as_u64(), event["nb"]["in"].as_u64())
        })
        .collect();
    assert_eq!(
        said,
        [("ctx.put", Some(1), Some(2)), ("ctx.delete", Some(2), None), ("ctx.put", Some(1), Some(3))]
    );
    let names: std::collections::BTreeSet<_> =
        events[..3].iter().map(|event| event["res"]["kp"].to_string()).collect();
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn write_batch_writes_nothing_when_one_condition_does_not_hold() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "there", "1").await;
    let first = write_put(new_put("first", "x"));
    for (bad, code, reason) in [
        (write_put(v1::Put { expect: absent(), ..new_put("there", "") }), Code::Aborted, "REVISION_MISMATCH"),
        (write_delete("there", revision(9)), Code::Aborted, "REVISION_MISMATCH"),
        (write_delete("not there", None), Code::NotFound, "ENTRY_NOT_FOUND"),
    ] {
        let outcome = site.app().write_batch(write_batch(&session, vec![first.clone(), bad])).await;
        site.refused(outcome, code, reason, ("ctx.put", "fail")).await;
        assert_eq!(site.look(&session, "first").await, None);
        assert_eq!(site.look(&session, "there").await, Some((1, b"1".to_vec())));
    }
}

#[tokio::test]
async fn write_batch_has_bounds() {
    let site = Site::outside().await;
    let session = site.session().await;
    let puts = |count: usize| (0..count).map(|n| write_put(new_put(&n.to_string(), "v"))).collect::<Vec<_>>();
    let large = |count: usize| {
        (0..count).map(|n| write_put(new_put(&n.to_string(), vec![0; 4 << 20]))).collect::<Vec<_>>()
    };
    let mut over = large(4);
    over.push(write_put(new_put("one more", "x")));
    let twice = vec![write_put(new_put("same", "1")), write_delete("same", None)];
    for (field, writes) in [
        ("writes", Vec::new()),
        ("writes", puts(257)),
        ("writes", twice),
        ("writes", over),
        ("writes.write", vec![v1::Write { write: None }]),
        ("put.key", vec![write_put(new_put("", ""))]),
        ("delete.key", vec![write_delete("", None)]),
    ] {
        site.invalid(site.app().write_batch(write_batch(&session, writes)).await, field, "ctx.put").await;
    }
    let made = site.answered(site.app().write_batch(write_batch(&session, puts(256))).await, "ctx.put").await;
    assert_eq!(made.results.len(), 256);
    // 16 MiB of values in one batch, and out again.
    site.answered(site.app().write_batch(write_batch(&session, large(4))).await, "ctx.put").await;
    let keys = ["0", "1", "2", "3"];
    let found = site.answered(site.app().read_batch(read_batch(&session, &keys)).await, "ctx.read").await;
    let bytes: usize = found.results.iter().map(|found| found.entry.as_ref().unwrap().value.len()).sum();
    assert_eq!(bytes, 16 << 20);
    let five = ["0", "1", "2", "3", "4"];
    site.invalid(site.app().read_batch(read_batch(&session, &five)).await, "keys", "ctx.read").await;
}

#[tokio::test]
async fn read_batch_answers_in_the_order_of_the_request() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "a", "1").await;
    site.put(&session, "b", "22").await;
    site.put(&session, "gone", "x").await;
    site.app().delete_entry(delete(&session, "gone")).await.unwrap();
    let outcome = site.reader().read_batch(read_batch(&session, &["b", "none", "a", "gone"])).await;
    let last = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let found = site.answered(outcome, "ctx.read").await.results;
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.key.as_str(), found.entry.as_ref().map(|entry| &entry.value[..])))
        .collect();
    assert_eq!(found, [("b", Some(&b"22"[..])), ("none", None), ("a", Some(&b"1"[..])), ("gone", None)]);
    let events = site.events_since(last.sequence - 3).await;
    let sizes: Vec<_> = events[..4].iter().map(|event| event["nb"]["out"].as_u64()).collect();
    assert_eq!(sizes, [Some(2), None, Some(1), None]);

    let many: Vec<String> = (0..257).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (field, request) in [
        ("keys", read_batch(&session, &[])),
        ("keys", read_batch(&session, &many)),
        ("keys", read_batch(&session, &["a", "a"])),
        ("keys", read_batch(&session, &["a", ""])),
        ("view", v1::ReadBatchRequest { view: 3, ..read_batch(&session, &["a"]) }),
        ("session", v1::ReadBatchRequest { session: None, ..read_batch(&session, &["a"]) }),
    ] {
        site.invalid(site.reader().read_batch(request).await, field, "ctx.read").await;
    }
    let full = v1::ReadBatchRequest { view: v1::View::Full.into(), ..read_batch(&session, &["a"]) };
    site.answered(site.app().read_batch(full.clone()).await, "ctx.reveal").await;
    let denied = site.reader().read_batch(full).await;
    site.refused(denied, Code::PermissionDenied, "VIEW_NOT_PERMITTED", ("authz.deny", "deny")).await;
}
