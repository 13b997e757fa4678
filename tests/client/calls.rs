//! What each call sends and returns.

use std::time::Duration;

use futures_util::TryStreamExt;
use strongroom::client::{
    ClientError, CreateSession, Delete, ErrorReason, Expect, Owner, Put, Revision, View, Write,
};
use tonic::Code;

use crate::bench::Bench;
use crate::fake::{Fake, Fault, refuse};

fn alice() -> Option<Owner> {
    Some(Owner::new("https://id.example".into(), String::new(), "alice".into()).unwrap())
}

#[tokio::test]
async fn an_entry_is_put_read_and_deleted_with_its_revisions_and_stamps() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    let put =
        session.put("basket", "2 tickets").content_type("text/plain").label("kind", "cart").await.unwrap();
    assert_eq!((put.revision.get(), put.size, put.labels["kind"].as_str()), (1, 9, "cart"));
    let read = session.read("basket", View::Full).await.unwrap();
    assert_eq!(&read.value[..], b"2 tickets");
    assert_eq!(read.metadata.content_type, "text/plain");
    let (first, second) = (put.audit().unwrap(), read.audit().unwrap());
    assert!(first.log == second.log && first.sequence < second.sequence);
    assert_eq!(session.delete("basket").await.unwrap().get(), 2);
    let gone = session.read("basket", View::Full).await.unwrap_err();
    assert!(gone.is_not_found() && gone.is_entry_not_found());
}

#[tokio::test]
async fn another_owner_gets_not_found() {
    let bench = Bench::start().await;
    let tenant = bench.tenant();
    let mine =
        tenant.create_session(CreateSession { owner: alice(), ..CreateSession::default() }).await.unwrap();
    mine.put("k", "v").await.unwrap();
    for owner in [None, Some(Owner::new(String::new(), String::new(), "eve".into()).unwrap())] {
        let theirs = tenant.session(mine.id(), owner);
        let refused = theirs.read("k", View::Full).await.unwrap_err();
        assert_eq!(refused.reason(), ErrorReason::SessionNotFound);
    }
    assert_eq!(tenant.session(mine.id(), alice()).describe().await.unwrap().owner, alice());
}

#[tokio::test]
async fn a_condition_that_fails_tells_the_revision_found() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    session.put("k", "v").await.unwrap();
    let refused = session.put("k", "w").expect(Expect::Absent).await.unwrap_err();
    assert!(refused.is_revision_mismatch());
    assert_eq!((refused.code(), refused.current_revision()), (Code::Aborted, Some(1)));
    let stale = Expect::Revision(Revision::new(7).unwrap());
    assert!(session.delete("k").expect(stale).await.unwrap_err().is_revision_mismatch());
    assert!(session.put("k", "w").expect(Expect::Revision(Revision::FIRST)).await.is_ok());
}

#[tokio::test]
async fn errors_carry_fields_expiry_and_when_to_come_back() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    let field = session.put("", "v").await.unwrap_err();
    assert_eq!(field.reason(), ErrorReason::InvalidField);
    assert_eq!(field.field_violations()[0].field, "put.key");
    assert!(field.to_string().contains("put.key: must not be empty"), "{field}");

    fake.state.expire(session.id());
    let expired = session.read("k", View::Full).await.unwrap_err();
    assert!(expired.is_expired() && !expired.is_not_found());
    assert_eq!(expired.expire_time().unwrap().as_millis(), 1000);

    fake.state.fail(Fault::Refuse(refuse(Code::PermissionDenied, "VIEW_NOT_PERMITTED", &[])));
    let denied = session.read("k", View::Full).await.unwrap_err();
    assert_eq!(denied.reason(), ErrorReason::ViewNotPermitted);
    assert!(denied.is_permission_denied() && denied.call().unwrap().request_id().is_some());
}

#[tokio::test]
async fn a_reason_of_another_domain_is_not_taken_for_ours() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    let details = tonic_types::ErrorDetails::with_error_info("ENTRY_NOT_FOUND", "proxy.example", []);
    let foreign =
        <tonic::Status as tonic_types::StatusExt>::with_error_details(Code::NotFound, "no route", details);
    fake.state.fail(Fault::Refuse(foreign));
    let refused = session.read("k", View::Full).await.unwrap_err();
    assert!(refused.is_not_found() && !refused.is_entry_not_found());
}

#[tokio::test]
async fn lists_go_through_all_pages() {
    let fake = Fake::start().await;
    let session = fake.session().await;
    for number in 0..5 {
        session.put(format!("k{number}"), "v").await.unwrap();
    }
    let entries: Vec<_> = session.entries().try_collect().await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(),
        ["k0", "k1", "k2", "k3", "k4"]
    );
    assert_eq!(fake.state.seen("ListEntries").len(), 3);
    let sessions: Vec<_> = session.tenant().sessions(None).try_collect().await.unwrap();
    assert_eq!(sessions.len(), 1);
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    session.put("a", "1").await.unwrap();
    let writes = [Write::from(Put::new("b", "2")), Put::new("a", "3").expect(Expect::Absent).into()];
    assert!(session.write_batch(writes).await.unwrap_err().is_revision_mismatch());
    let written = session.write_batch([Put::new("b", "2").into(), Delete::new("a").into()]).await.unwrap();
    assert_eq!(written.iter().map(|w| w.key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    let found = session.read_batch(["a", "b"], View::Full).await.unwrap();
    assert!(found[0].entry.is_none());
    assert_eq!(&found[1].entry.as_ref().unwrap().value[..], b"2");
}

#[tokio::test]
async fn one_of_many_takers_gets_the_value() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    session.put("ticket", "once").await.unwrap();
    let takes = (0..8).map(|_| session.take("ticket", View::Full).into_future());
    let outcomes = futures_util::future::join_all(takes).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.into_iter().all(|outcome| outcome.unwrap_err().is_entry_not_found()));
}

#[tokio::test]
async fn a_lease_is_exclusive_renewable_and_fenced() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    let ttl = Duration::from_secs(30);
    let mut lease = session.lease("pay", ttl).await.unwrap().unwrap();
    assert!(session.lease("pay", ttl).await.unwrap().is_none());
    let first = lease.fencing_token();
    assert!(lease.renew().await.unwrap());
    assert!(lease.fencing_token() > first);
    assert!(lease.release().await.unwrap());
    let mut stolen = session.lease("pay", ttl).await.unwrap().unwrap();
    session.put("pay", "another's").await.unwrap();
    assert!(!stolen.renew().await.unwrap());
    assert!(!stolen.release().await.unwrap());
}

#[tokio::test]
async fn racing_modifications_lose_no_update() {
    let bench = Bench::start().await;
    let session = bench.session().await;
    let add = async || {
        let count = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<u32>().unwrap();
        session.modify("n", |entry| Some((entry.map_or(0, |e| count(&e.value)) + 1).to_string())).await
    };
    for outcome in futures_util::future::join_all((0..6).map(|_| add())).await {
        assert!(outcome.unwrap().is_some());
    }
    assert_eq!(&session.read("n", View::Full).await.unwrap().value[..], b"6");
    let untouched = session.modify("n", |_| None::<String>).await.unwrap();
    assert!(untouched.is_none());
}

#[tokio::test]
async fn nothing_prints_content_or_tokens() {
    let fake = Fake::start().await;
    let client = fake.client();
    let tenant = client.tenant("demo").unwrap();
    let session =
        tenant.create_session(CreateSession { owner: alice(), ..CreateSession::default() }).await.unwrap();
    let put = session.put("passport-key", "L01X00T47").label("l", "passport-label");
    let printed = format!("{client:?} {session:?} {put:?} {:?}", Put::new("passport-key", "L01X00T47"));
    put.await.unwrap();
    let read = session.read("passport-key", View::Full).await.unwrap();
    let printed = format!("{printed} {read:?} {:?}", session.describe().await.unwrap());
    for secret in ["L01X", "passport", "srt_", "srs_", "alice"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[tokio::test]
async fn a_client_without_an_admin_endpoint_says_so() {
    let fake = Fake::start().await;
    assert!(matches!(fake.client().admin(), Err(ClientError::NoEndpoint { listener: "admin" })));
    assert!(matches!(fake.client().tenant("No Tenant"), Err(ClientError::Name { .. })));
}
