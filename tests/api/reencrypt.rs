//! New keys for sessions: everything reads as before, the former keys open nothing, and nothing is lost on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use strongroom::crypto::Header;
use strongroom::proto::v1::{self, JobKind, JobState};
use strongroom::store::{Effect, Failure, Fault, Key, Operation, Row, Table, keys};
use tonic::Code;

use crate::requests::{
    append, create, delete, delete_session, events, get, list, new_id, new_put, purge, put, put_of, revision,
    seconds, update,
};
use crate::site::Site;
use crate::support::{answered, refused};

const REENCRYPT: i32 = JobKind::Reencrypt as i32;

fn rotate(site: &Site, session: &v1::SessionRef) -> v1::RotateSessionKeyRequest {
    let session_id = session.session_id.clone();
    v1::RotateSessionKeyRequest { tenant: site.tenant.clone(), session_id, ..Default::default() }
}

async fn rotated(site: &Site, session: &v1::SessionRef) -> bool {
    let outcome = site.admin().rotate_session_key(rotate(site, session)).await;
    site.answered(outcome, "key.reencrypt").await.finished
}

async fn start(site: &Site) -> v1::Job {
    let start = v1::StartJobRequest { tenant: site.tenant.clone(), kind: REENCRYPT, ..Default::default() };
    answered(site.admin().start_job(start).await).0.job.unwrap()
}

async fn job(site: &Site) -> v1::Job {
    let get = v1::GetJobRequest { tenant: site.tenant.clone(), kind: REENCRYPT };
    answered(site.admin().get_job(get).await).0.job.unwrap()
}

/// All that a caller sees of a session: entries, the ids and values of events, metadata.
async fn seen(
    site: &Site,
    session: &v1::SessionRef,
) -> (Vec<v1::EntryMetadata>, Vec<v1::Event>, v1::Session) {
    let mut request = list(session);
    request.page_size = 1000;
    let entries = answered(site.app().list_entries(request).await).0.entries;
    let read = replayed(site, session, "").await;
    (entries, read, answered(site.app().get_session(get(session)).await).0.session.unwrap())
}

async fn replayed(site: &Site, session: &v1::SessionRef, after: &str) -> Vec<v1::Event> {
    let request = v1::ReadEventsRequest { after_event_id: after.to_owned(), ..events(session, "stream") };
    let mut stream = site.app().read_events(request).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        found.extend(message.events);
    }
    found
}

/// The rows of all sessions.
async fn stored(site: &Site) -> Vec<(Key, Row)> {
    let rows = site.world().rows().await.into_iter();
    rows.filter(|(key, _)| key.as_bytes()[0] == Table::Session as u8).collect()
}

/// The keys that the rows behind the sessions' own name.
async fn named(site: &Site) -> BTreeSet<[u8; 16]> {
    let behind = stored(site).await.into_iter().filter(|(key, _)| !keys::is_session(key));
    behind.map(|(_, row)| Header::named_key(row.exactly::<1>().unwrap()[0]).unwrap().0).collect()
}

/// A session with something of everything.
async fn furnished(site: &Site) -> v1::SessionRef {
    let idle_ttl = Some(seconds(100_000));
    let session = site.create(v1::CreateSessionRequest { idle_ttl, ..create(&site.tenant) }).await;
    site.put(&session, "key", "1").await;
    site.put(&session, "key", "2").await;
    site.put(&session, "large", &"x".repeat(40_000)).await;
    site.put(&session, "gone", "1").await;
    answered(site.app().delete_entry(delete(&session, "gone")).await);
    answered(site.app().append_events(append(&session, "stream", &["1", "2", "3"])).await);
    session
}

/// A session of which one commit cannot seal all anew.
async fn vast(site: &Site) -> v1::SessionRef {
    let session = furnished(site).await;
    for number in 0..20 {
        site.put(&session, &format!("entry-{number}"), &"y".repeat(40_000)).await;
    }
    session
}

/// Lets the commit of this number, counted from now, fail before it does anything.
fn fail_commit(site: &Site, number: u64) {
    let number = Some(site.world().engine.calls(Operation::Commit) + number);
    site.world().engine.inject(Fault {
        operation: Operation::Commit,
        number,
        effect: Effect::Fail(Failure::Full),
    });
}

#[tokio::test]
async fn everything_reads_as_before_and_is_under_keys_that_were_not_there() {
    let site = Site::inside().await;
    for session in [furnished(&site).await, vast(&site).await] {
        let before = seen(&site, &session).await;
        let (former, rows) = (named(&site).await, stored(&site).await.len());
        for _ in 0..3 {
            assert!(rotated(&site, &session).await);
            assert_eq!(seen(&site, &session).await, before);
        }
        let now = named(&site).await;
        assert_eq!((now.len(), stored(&site).await.len()), (former.len(), rows));
        assert_eq!(now.difference(&former).count(), 1);
        // Where a reader was, it goes on; what a writer expects, it finds.
        assert_eq!(replayed(&site, &session, &before.1[0].event_id).await, before.1[1..]);
        let expecting = v1::Put { expect: revision(2), ..new_put("key", "3") };
        answered(site.app().put_entry(put_of(&session, expecting)).await);
        let returning = v1::Put { expect: None, ..new_put("gone", "2") };
        let back = answered(site.app().put_entry(put_of(&session, returning)).await).0;
        assert_eq!(back.metadata.unwrap().revision, 3);
        answered(site.app().delete_session(delete_session(&session)).await);
        site.world().sweep().await;
    }
}

#[tokio::test]
async fn what_was_under_the_former_keys_opens_no_more_wherever_it_is_put_back() {
    let site = Site::inside().await;
    let session = furnished(&site).await;
    let before = stored(&site).await;
    fail_commit(&site, 2);
    assert!(!rotated(&site, &session).await);
    let between = stored(&site).await;
    let [body, sensitive, former_body, former_sensitive, _] =
        between.iter().find(|(key, _)| keys::is_session(key)).unwrap().1.exactly().unwrap();
    site.world().clock.advance(Duration::from_secs(61));
    site.world().sweep().await;
    let after = stored(&site).await;
    let (root, row) = after.iter().find(|(key, _)| keys::is_session(key)).unwrap();
    let [_, _, metadata] = row.exactly().unwrap();
    let failed = async |session: &v1::SessionRef| {
        refused(
            site.app().read_entry(crate::requests::read(session, "key")).await,
            Code::DataLoss,
            "INTEGRITY_FAILURE",
        )
    };
    for (key, row) in before.iter().filter(|(key, _)| !keys::is_session(key)) {
        site.world().tamper(key, Some(row.clone())).await;
    }
    failed(&session).await;
    // Nor with the former keys beside the new ones.
    let put_back = framed(row, &[body, sensitive, former_body, former_sensitive, metadata]);
    site.world().tamper(root, Some(put_back)).await;
    failed(&session).await;
    let without = framed(row, &[body, sensitive, metadata]);
    site.world().tamper(root, Some(without)).await;
    for (key, row) in &after {
        site.world().tamper(key, Some(row.clone())).await;
    }
    assert_eq!(site.look(&session, "key").await, Some((2, b"2".to_vec())));
}

/// A row of the revision of another, with these records.
fn framed(of: &Row, records: &[&[u8]]) -> Row {
    let mut bytes = of.as_bytes()[..8].to_vec();
    bytes.push(u8::try_from(records.len()).unwrap());
    for record in records {
        bytes.extend_from_slice(&u32::try_from(record.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(record);
    }
    Row::from_stored(bytes.into())
}

#[tokio::test]
async fn on_the_way_to_new_keys_everything_is_read_and_written_and_the_sweeper_goes_on_with_it() {
    // Nothing sealed anew yet, and some.
    for (failing, keys_named) in [(2, 1), (3, 2)] {
        let mut site = Site::inside().await;
        let session = vast(&site).await;
        let before = seen(&site, &session).await;
        fail_commit(&site, failing);
        assert!(!rotated(&site, &session).await);
        assert_eq!(named(&site).await.len(), keys_named);
        for _ in 0..2 {
            assert_eq!(seen(&site, &session).await, before);
            site = site.reopened().await;
        }
        let change = v1::Put { expect: revision(2), ..new_put("key", "3") };
        answered(site.app().put_entry(put_of(&session, change)).await);
        answered(site.app().append_events(append(&session, "stream", &["4"])).await);
        let idle_ttl = Some(seconds(50_000));
        answered(site.app().update_session(v1::UpdateSessionRequest { idle_ttl, ..update(&session) }).await);
        let version = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
        answered(site.admin().rotate_kek(version).await);
        let rewrap = v1::StartJobRequest {
            tenant: site.tenant.clone(),
            kind: JobKind::Rewrap.into(),
            ..Default::default()
        };
        answered(site.admin().start_job(rewrap).await);
        site.world().work().await;
        let destroy = v1::DestroyKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
        answered(site.admin().destroy_kek(destroy).await);
        let between = seen(&site, &session).await;
        assert_eq!((between.0.len(), between.1.len()), (before.0.len(), 4));
        site.world().sweep().await;
        assert_eq!(named(&site).await.len(), 2);
        site.world().clock.advance(Duration::from_secs(61));
        site.world().sweep().await;
        assert_eq!(named(&site).await.len(), 1);
        let site = site.reopened().await;
        assert_eq!(seen(&site, &session).await, between);
        let index = site.world().rows().await.into_iter().filter(|(key, _)| {
            keys::expiring(key).is_some_and(|(_, row)| keys::is_reencryption(&row))
                && key.as_bytes()[0] == Table::Expiry as u8
        });
        assert_eq!(index.count(), 0);
    }
}

#[tokio::test]
async fn a_session_on_the_way_is_purged_and_erased_like_any_other() {
    let site = Site::inside().await;
    let session = vast(&site).await;
    fail_commit(&site, 3);
    assert!(!rotated(&site, &session).await);
    answered(site.root().purge_sensitive(purge(&session)).await);
    let root = async || {
        let rows = stored(&site).await;
        rows.into_iter().find(|(key, _)| keys::is_session(key)).unwrap().1
    };
    assert_eq!(root().await.records().unwrap().len(), 3);
    let redacted =
        v1::ReadEntryRequest { view: v1::View::Redacted.into(), ..crate::requests::read(&session, "key") };
    answered(site.reader().read_entry(redacted.clone()).await);
    assert!(rotated(&site, &session).await, "the one that was left, and then another");
    assert_eq!((root().await.records().unwrap().len(), named(&site).await.len()), (2, 1));
    answered(site.reader().read_entry(redacted).await);

    fail_commit(&site, 2);
    assert!(!rotated(&site, &session).await);
    answered(site.app().delete_session(delete_session(&session)).await);
    site.world().clock.advance(Duration::from_secs(200));
    site.world().sweep().await;
    assert_eq!(stored(&site).await.len(), 0);
}

#[tokio::test]
async fn a_repetition_says_how_far_it_is_and_begins_nothing() {
    let site = Site::inside().await;
    let session = vast(&site).await;
    let request = v1::RotateSessionKeyRequest { request_id: new_id(), ..rotate(&site, &session) };
    fail_commit(&site, 3);
    assert!(!answered(site.admin().rotate_session_key(request.clone()).await).0.finished);
    let between = named(&site).await;
    for _ in 0..2 {
        assert!(answered(site.admin().rotate_session_key(request.clone()).await).0.finished);
    }
    let now = named(&site).await;
    assert!(now.len() == 1 && now.is_subset(&between));
}

#[tokio::test]
async fn a_mutation_repeats_on_the_way_and_is_refused_after_it() {
    let site = Site::inside().await;
    let session = vast(&site).await;
    let request = v1::PutEntryRequest { request_id: new_id(), ..put(&session, "key", "3") };
    let first = answered(site.app().put_entry(request.clone()).await).0;
    fail_commit(&site, 3);
    assert!(!rotated(&site, &session).await);
    assert_eq!(answered(site.app().put_entry(request.clone()).await).0, first);
    site.world().clock.advance(Duration::from_secs(61));
    site.world().sweep().await;
    refused(site.app().put_entry(request).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_eq!(site.look(&session, "key").await, Some((3, b"3".to_vec())));
}

#[tokio::test]
async fn whoever_is_second_between_new_keys_and_a_write_loses_nothing() {
    for rotation_first in [true, false] {
        let site = Site::inside().await;
        let session = furnished(&site).await;
        let new = async { drop(answered(site.app().put_entry(put(&session, "new", "1")).await)) };
        let rotation =
            async { drop(answered(site.admin().rotate_session_key(rotate(&site, &session)).await)) };
        if rotation_first {
            site.world().together(rotation, new).await;
        } else {
            site.world().together(new, rotation).await;
        }
        assert_eq!(named(&site).await.len(), 1, "rotation first: {rotation_first}");
        assert_eq!(site.look(&session, "new").await, Some((1, b"1".to_vec())));
        assert_eq!(site.look(&session, "key").await, Some((2, b"2".to_vec())));
    }
}

/// Who is known to have written last.
async fn writer(site: Arc<Site>, session: v1::SessionRef, number: usize) {
    let key = format!("writer-{number}");
    let mut last = String::new();
    for round in 1..=40_u64 {
        assert_eq!(site.put(&session, &key, &round.to_string()).await, round);
        assert_eq!(site.look(&session, &key).await, Some((round, round.to_string().into_bytes())));
        let appended = answered(site.app().append_events(append(&session, "stream", &["more"])).await).0;
        last = last.max(appended.event_ids[0].clone());
        let listed = answered(site.app().list_entries(list(&session)).await).0.entries;
        assert!(listed.iter().any(|entry| entry.key == key && entry.revision >= round));
    }
    assert!(replayed(&site, &session, &last).await.len() < 4 * 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_readers_never_notice_new_keys() {
    let site = Arc::new(Site::inside().await);
    let session = vast(&site).await;
    let writers: Vec<_> =
        (0..4).map(|number| tokio::spawn(writer(Arc::clone(&site), session.clone(), number))).collect();
    let mut rotations = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        rotations += usize::from(site.admin().rotate_session_key(rotate(&site, &session)).await.is_ok());
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(rotations > 2, "{rotations}");
    assert_eq!(replayed(&site, &session, "").await.len(), 3 + 4 * 40);
    assert_eq!(site.world().service.counts().integrity_failures, 0);
}

#[tokio::test]
async fn what_does_not_open_keeps_its_keys_and_is_told() {
    let site = Site::inside().await;
    let session = furnished(&site).await;
    let rows = stored(&site).await;
    let (key, row) = rows.iter().find(|(key, _)| key.within_session()[0] == 3).unwrap();
    let mut bytes = row.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    site.world().tamper(key, Some(Row::from_stored(bytes.into()))).await;
    let outcome = site.admin().rotate_session_key(rotate(&site, &session)).await;
    site.refused(outcome, Code::DataLoss, "INTEGRITY_FAILURE", ("key.reencrypt", "fail")).await;
    assert_eq!(site.look(&session, "key").await, Some((2, b"2".to_vec())));
    site.world().tamper(key, Some(row.clone())).await;
    assert!(rotated(&site, &session).await);
    assert_eq!((named(&site).await.len(), seen(&site, &session).await.1.len()), (1, 3));
}

#[tokio::test]
async fn who_is_not_there_is_told_and_an_owner_need_not_be_named() {
    let site = Site::inside().await;
    let owner = Some(crate::requests::owner("alice"));
    let session = site.create(v1::CreateSessionRequest { owner, ..create(&site.tenant) }).await;
    assert!(rotated(&site, &session).await);
    let nobody = v1::SessionRef { session_id: "nobody".to_owned(), ..session.clone() };
    let outcome = site.admin().rotate_session_key(rotate(&site, &nobody)).await;
    site.refused(outcome, Code::NotFound, "SESSION_NOT_FOUND", ("key.reencrypt", "deny")).await;
    let unnamed = v1::SessionRef { session_id: String::new(), ..session.clone() };
    let outcome = site.admin().rotate_session_key(rotate(&site, &unnamed)).await;
    site.invalid(outcome, "session_id", "key.reencrypt").await;
    site.world().new_keys.store(false, std::sync::atomic::Ordering::SeqCst);
    let outcome = site.admin().rotate_session_key(rotate(&site, &session)).await;
    refused(outcome, Code::Unavailable, "UNAVAILABLE");
}

#[tokio::test]
async fn a_job_gives_all_sessions_new_keys_once() {
    let mut site = Site::inside().await;
    let mut made = Vec::new();
    for number in 0..70 {
        let session = if number % 30 == 0 { vast(&site).await } else { furnished(&site).await };
        made.push((seen(&site, &session).await, session));
    }
    site.world().clock.advance(Duration::from_millis(5));
    let former = named(&site).await;
    let begun = start(&site).await;
    assert_eq!((begun.state, begun.sessions_total), (JobState::Running as i32, 70));
    site.world().clock.advance(Duration::from_millis(5));
    // What has new keys since then is passed by.
    let late = furnished(&site).await;
    assert!(rotated(&site, &made[7].1).await);
    let keeping = named(&site).await.difference(&former).copied().collect::<BTreeSet<_>>();
    let mut rounds = 0;
    while job(&site).await.state == JobState::Running as i32 {
        if rounds % 3 == 0 {
            fail_commit(&site, 2);
        }
        drop(site.world().jobs.round().await);
        site = site.reopened().await;
        rounds += 1;
        assert!(rounds < 200);
    }
    let ended = job(&site).await;
    assert_eq!((ended.sessions_seen, ended.done, ended.failed), (71, 69, 0));
    assert_eq!(ended.before.iter().map(|of| of.sessions).sum::<u64>(), 70);
    assert_eq!(ended.after.iter().map(|of| of.sessions).sum::<u64>(), 71);
    let now = named(&site).await;
    assert!(now.is_disjoint(&former) && now.is_superset(&keeping));
    assert_eq!(now.len(), 71);
    for (before, session) in &made {
        assert_eq!(seen(&site, session).await, *before);
    }
    seen(&site, &late).await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_leaves_no_session_half_way_for_long() {
    let site = Site::inside().await;
    for _ in 0..100 {
        furnished(&site).await;
    }
    site.world().clock.advance(Duration::from_millis(5));
    start(&site).await;
    // The second commit of a step, with what the first has begun.
    fail_commit(&site, 2);
    drop(site.world().jobs.round().await);
    let begun = stored(&site).await.into_iter().filter(|(_, row)| row.records().unwrap().len() == 5);
    assert!(begun.count() > 10);
    let cancel = v1::CancelJobRequest { tenant: site.tenant.clone(), kind: REENCRYPT };
    answered(site.admin().cancel_job(cancel).await);
    site.world().clock.advance(Duration::from_secs(61));
    site.world().sweep().await;
    assert!(stored(&site).await.iter().all(|(_, row)| row.records().unwrap().len() != 5));
    assert_eq!((named(&site).await.len(), job(&site).await.done), (100, 0));
}

#[tokio::test]
async fn a_job_counts_and_names_what_does_not_open_and_does_the_rest() {
    let site = Site::inside().await;
    for _ in 0..10 {
        furnished(&site).await;
    }
    site.world().clock.advance(Duration::from_millis(5));
    let rows = stored(&site).await;
    for (key, row) in rows.iter().filter(|(key, _)| key.within_session()[0] == 2).step_by(4) {
        let mut bytes = row.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        site.world().tamper(key, Some(Row::from_stored(bytes.into()))).await;
    }
    start(&site).await;
    site.world().work().await;
    let ended = job(&site).await;
    assert_eq!((ended.state, ended.done, ended.failed), (JobState::Done as i32, 7, 3));
    assert_eq!(ended.failed_sessions.len(), 3);
}

#[tokio::test]
async fn a_scrub_finds_no_damage_in_sessions_that_get_new_keys() {
    let site = Site::inside().await;
    let session = vast(&site).await;
    fail_commit(&site, 3);
    assert!(!rotated(&site, &session).await);
    let kind = JobKind::Scrub.into();
    let scrub = v1::StartJobRequest { tenant: site.tenant.clone(), kind, ..Default::default() };
    answered(site.admin().start_job(scrub).await);
    site.world().work().await;
    let get = v1::GetJobRequest { tenant: site.tenant.clone(), kind };
    let ended = answered(site.admin().get_job(get).await).0.job.unwrap();
    // The session, 23 entries, a stream and its events.
    assert_eq!((ended.done, ended.failed), (1 + 23 + 1 + 3, 0));
}

#[tokio::test]
async fn walks_of_jobs_do_not_drive_out_the_keys_in_use() {
    let site = Site::inside().await;
    for _ in 0..20 {
        furnished(&site).await;
    }
    let site = site.reopened().await;
    site.world().clock.advance(Duration::from_millis(5));
    let misses = || site.world().keyring.stats().sessions.misses;
    let before = misses();
    for kind in [JobKind::Scrub, JobKind::Reencrypt, JobKind::Rewrap] {
        let tenant = site.tenant.clone();
        answered(site.admin().rotate_kek(v1::RotateKekRequest { tenant, ..Default::default() }).await);
        let tenant = site.tenant.clone();
        let start = v1::StartJobRequest { tenant, kind: kind.into(), ..Default::default() };
        answered(site.admin().start_job(start).await);
        site.world().work().await;
    }
    assert_eq!(misses(), before);
}
