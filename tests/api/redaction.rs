//! What is sensitive in values: who sees what, and what is left when its key is gone.

use strongroom::crypto::{Header, Kind};
use strongroom::proto::v1::{self, JobKind, View};
use strongroom::store::{Key, Row};
use tonic::Code;

use crate::requests::{
    append, consume, events, list, new_id, new_put, purge, put, read, read_batch, write_batch, write_put,
};
use crate::site::Site;
use crate::support::{answered, refused, stamp};

const VALUE: &str = r#"{"to":"ana@example.org","password":"hunter22!","n":7}"#;
const SHOWN: &str = r#"{"to":"⟦email:1⟧","password":"⟦secret:2⟧","n":7}"#;
const PROTECT: &str = "REDACTION_ACTION_PROTECT";
const FULL: i32 = View::Full as i32;

async fn redacted(site: &Site, session: &v1::SessionRef) -> String {
    let (found, _) = answered(site.reader().read_entry(read(session, "key")).await);
    String::from_utf8(found.entry.unwrap().value.to_vec()).unwrap()
}

async fn full(site: &Site, session: &v1::SessionRef) -> Result<String, tonic::Status> {
    let request = v1::ReadEntryRequest { view: FULL, ..read(session, "key") };
    let found = site.app().read_entry(request).await?.into_inner().entry.unwrap();
    Ok(String::from_utf8(found.value.to_vec()).unwrap())
}

async fn replayed(site: &Site, session: &v1::SessionRef, view: View) -> Vec<String> {
    let request = v1::ReadEventsRequest { view: view.into(), ..events(session, "stream") };
    let mut stream = site.app().read_events(request).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        found.extend(message.events.iter().map(|event| String::from_utf8(event.data.to_vec()).unwrap()));
    }
    found
}

fn report(redactions: &[v1::RedactionReport]) -> Vec<(&str, &str, u32)> {
    redactions.iter().map(|line| (line.rule.as_str(), line.action().as_str_name(), line.count)).collect()
}

/// The row of the only entry in the store, and how many records it has.
async fn entry_row(site: &Site) -> (Key, Row, usize) {
    let of_value = |row: &Row| {
        let records = row.records().ok()?;
        let kind = Header::named_kind(records.first()?)?;
        (kind == Kind::Entry as u8).then_some(records.len())
    };
    let rows = site.world().rows().await;
    rows.into_iter().find_map(|(key, row)| of_value(&row).map(|count| (key, row, count))).unwrap()
}

/// The row with one byte of its last record another.
fn bent(row: &Row) -> Row {
    let mut bytes = row.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    Row::from_stored(bytes.into())
}

#[tokio::test]
async fn the_redacted_view_has_placeholders_and_the_full_view_every_byte() {
    let site = Site::outside().await;
    let session = site.session().await;
    let outcome = site.app().put_entry(put(&session, "key", VALUE)).await;
    let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let made = site.answered(outcome, "ctx.put").await;
    assert_eq!(report(&made.redactions), [("email", PROTECT, 1), ("secret-name", PROTECT, 1)]);
    assert_eq!(made.metadata.unwrap().size, VALUE.len() as u64);
    let event = site.event(&place).await;
    assert_eq!((&event["red"]["n"], &event["pol"]["red"]), (&2.into(), &1.into()));

    assert_eq!(redacted(&site, &session).await, SHOWN);
    assert_eq!(full(&site, &session).await.unwrap(), VALUE);
    let (listed, _) = answered(site.reader().list_entries(list(&session)).await);
    assert_eq!(listed.entries[0].size, VALUE.len() as u64);
    let request = v1::ReadEntryRequest { view: FULL, ..read(&session, "key") };
    refused(site.reader().read_entry(request).await, Code::PermissionDenied, "VIEW_NOT_PERMITTED");
}

#[tokio::test]
async fn events_and_batches_are_taken_apart_as_well() {
    let site = Site::inside().await;
    let session = site.session().await;
    let appended = site.app().append_events(append(&session, "stream", &[VALUE, "plain", VALUE])).await;
    let (appended, _) = answered(appended);
    assert_eq!(report(&appended.redactions)[0], ("email", PROTECT, 2));
    assert_eq!(replayed(&site, &session, View::Redacted).await, [SHOWN, "plain", SHOWN]);
    assert_eq!(replayed(&site, &session, View::Full).await, [VALUE, "plain", VALUE]);

    let writes = vec![write_put(new_put("key", VALUE)), write_put(new_put("plain", "plain"))];
    let (written, _) = answered(site.app().write_batch(write_batch(&session, writes)).await);
    let counts: Vec<_> = written.results.iter().map(|result| result.redactions.len()).collect();
    assert_eq!(counts, [2, 0]);
    for (view, expected) in [(View::Redacted, SHOWN), (View::Full, VALUE)] {
        let request = v1::ReadBatchRequest { view: view.into(), ..read_batch(&session, &["key", "plain"]) };
        let (found, _) = answered(site.app().read_batch(request).await);
        let values: Vec<_> = found.results.into_iter().map(|result| result.entry.unwrap().value).collect();
        assert_eq!(values, [expected.as_bytes(), b"plain"]);
    }
}

#[tokio::test]
async fn a_secret_that_is_spread_over_events_of_one_append_is_cut_out_of_all() {
    let site = Site::outside().await;
    let session = site.session().await;
    let parts = ["data: api_key=a81b", "c3d94f20e5", " and more"];
    answered(site.app().append_events(append(&session, "stream", &parts)).await);
    let shown = replayed(&site, &session, View::Redacted).await;
    assert_eq!(shown, ["data: api_key=⟦secret:1⟧", "⟦secret:1⟧", " and more"]);
    assert_eq!(replayed(&site, &session, View::Full).await, parts);
}

#[tokio::test]
async fn what_was_cut_out_goes_with_its_key_and_nothing_more_is_kept() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", VALUE).await;
    assert_eq!(entry_row(&site).await.2, 2);
    answered(site.root().purge_sensitive(purge(&session)).await);
    assert_eq!(redacted(&site, &session).await, SHOWN);
    let gone = full(&site, &session).await;
    refused(gone.map(tonic::Response::new), Code::FailedPrecondition, "SENSITIVE_PURGED");

    site.put(&session, "key", VALUE).await;
    assert_eq!(redacted(&site, &session).await, SHOWN);
    assert_eq!(entry_row(&site).await.2, 1, "there is no key to keep anything under");
}

#[tokio::test]
async fn a_redacted_view_never_looks_at_what_was_cut_out() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", VALUE).await;
    answered(site.app().append_events(append(&session, "stream", &[VALUE])).await);
    let uses = || site.world().keyring.stats().sensitive_uses;
    let before = uses();
    assert_eq!(redacted(&site, &session).await, SHOWN);
    assert_eq!(replayed(&site, &session, View::Redacted).await, [SHOWN]);
    assert_eq!(uses(), before, "nobody asked for the sensitive key");
    full(&site, &session).await.unwrap();
    assert!(uses() > before);

    let (key, row, _) = entry_row(&site).await;
    site.world().tamper(&key, Some(bent(&row))).await;
    assert_eq!(redacted(&site, &session).await, SHOWN);
    let damaged = full(&site, &session).await;
    refused(damaged.map(tonic::Response::new), Code::DataLoss, "INTEGRITY_FAILURE");

    // Without the record a full view would be a redacted one that nobody can tell from the value.
    let first = row.rebuilt(row.revision().unwrap(), &[strongroom::store::Part::Kept(0)]).unwrap();
    site.world().tamper(&key, Some(first)).await;
    assert_eq!(redacted(&site, &session).await, SHOWN);
    let missing = full(&site, &session).await;
    refused(missing.map(tonic::Response::new), Code::DataLoss, "INTEGRITY_FAILURE");
}

/// The wrapped sensitive key is destroyed first: who reads redacted views does not notice.
#[tokio::test]
async fn a_redacted_view_needs_no_sensitive_key() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", VALUE).await;
    let rows = site.world().rows().await;
    let of_session = |(_, row): &&(Key, Row)| {
        row.records().is_ok_and(|records| {
            records.len() == 3 && Header::named_kind(records[2]) == Some(Kind::Session as u8)
        })
    };
    let (key, row) = rows.iter().find(of_session).unwrap();
    let mut bytes = row.as_bytes().to_vec();
    let sensitive = row.records().unwrap()[1];
    let at = bytes.windows(sensitive.len()).position(|window| window == sensitive).unwrap();
    bytes[at + sensitive.len() - 1] ^= 1;
    site.world().tamper(key, Some(Row::from_stored(bytes.into()))).await;
    let site = site.reopened().await;
    assert_eq!(redacted(&site, &session).await, SHOWN);
    let damaged = full(&site, &session).await;
    refused(damaged.map(tonic::Response::new), Code::DataLoss, "INTEGRITY_FAILURE");
}

#[tokio::test]
async fn a_consumed_value_comes_back_whole_to_who_asks_again_until_its_key_is_gone() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", VALUE).await;
    let request = v1::DeleteEntryRequest { view: FULL, request_id: new_id(), ..consume(&session, "key") };
    for _ in 0..2 {
        let (taken, _) = answered(site.app().delete_entry(request.clone()).await);
        assert_eq!(taken.entry.unwrap().value, VALUE.as_bytes());
    }
    answered(site.root().purge_sensitive(purge(&session)).await);
    let again = site.app().delete_entry(request).await;
    refused(again, Code::FailedPrecondition, "SENSITIVE_PURGED");
}

#[tokio::test]
async fn new_keys_seal_both_parts_and_a_scrub_opens_both() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", VALUE).await;
    let before = entry_row(&site).await.1;
    let session_id = session.session_id.clone();
    let rotate =
        v1::RotateSessionKeyRequest { tenant: site.tenant.clone(), session_id, ..Default::default() };
    assert!(answered(site.admin().rotate_session_key(rotate).await).0.finished);
    let (key, after, records) = entry_row(&site).await;
    assert_eq!(records, 2);
    let named = |row: &Row, record: usize| Header::named_key(row.records().unwrap()[record]).unwrap();
    assert!((0..2).all(|record| named(&before, record) != named(&after, record)));
    assert_eq!(redacted(&site, &session).await, SHOWN);
    assert_eq!(full(&site, &session).await.unwrap(), VALUE);

    let scrub = async || {
        let kind = JobKind::Scrub as i32;
        let start = v1::StartJobRequest { tenant: site.tenant.clone(), kind, ..Default::default() };
        answered(site.admin().start_job(start).await);
        site.world().work().await;
        let get = v1::GetJobRequest { tenant: site.tenant.clone(), kind };
        answered(site.admin().get_job(get).await).0.job.unwrap().failed
    };
    assert_eq!(scrub().await, 0);
    site.world().tamper(&key, Some(bent(&after))).await;
    assert_eq!(scrub().await, 1);
}

#[tokio::test]
async fn what_cannot_be_read_safely_is_refused_and_on_record() {
    let site = Site::outside().await;
    let session = site.session().await;
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let rejected = (Code::InvalidArgument, "REDACTION_REJECTED");
    let outcome = site.app().put_entry(put(&session, "key", deep.clone())).await;
    site.refused(outcome, rejected.0, rejected.1, ("ctx.put", "fail")).await;
    let outcome = site.app().append_events(append(&session, "stream", &["fine", &deep])).await;
    site.refused(outcome, rejected.0, rejected.1, ("evt.append", "fail")).await;
    let writes = vec![write_put(new_put("fine", "fine")), write_put(new_put("key", deep))];
    let outcome = site.app().write_batch(write_batch(&session, writes)).await;
    site.refused(outcome, rejected.0, rejected.1, ("ctx.put", "fail")).await;
    assert_eq!(site.look(&session, "fine").await, None);
}
