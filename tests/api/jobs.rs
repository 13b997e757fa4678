//! Rewrap and scrub: started, looked at, cancelled, and gone on with by another process.

use std::time::Duration;

use strongroom::model::{Revision, TenantId};
use strongroom::proto::v1::{self, JobKind, JobState, create_session_request};
use strongroom::store::{Operation, Row, Table, keys};
use tonic::Code;

use crate::requests::{append, create, new_id, seconds, update};
use crate::site::Site;
use crate::support::answered;

const REWRAP: i32 = JobKind::Rewrap as i32;
const SCRUB: i32 = JobKind::Scrub as i32;

fn start(site: &Site, kind: i32) -> v1::StartJobRequest {
    v1::StartJobRequest { tenant: site.tenant.clone(), kind, ..Default::default() }
}

async fn job(site: &Site, kind: i32) -> v1::Job {
    let get = v1::GetJobRequest { tenant: site.tenant.clone(), kind };
    site.answered(site.admin().get_job(get).await, "job.read").await.job.unwrap()
}

async fn rotate(site: &Site) {
    let rotate = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
    answered(site.admin().rotate_kek(rotate).await);
}

async fn uses(site: &Site) -> Vec<(u32, u64)> {
    let count = v1::CountKekUseRequest { tenant: site.tenant.clone() };
    let found = answered(site.admin().count_kek_use(count).await).0.uses;
    found.into_iter().map(|found| (found.version, found.sessions)).collect()
}

fn pairs(uses: &[v1::KekUse]) -> Vec<(u32, u64)> {
    uses.iter().map(|of| (of.version, of.sessions)).collect()
}

/// Sessions with an entry each, whose value is the session's number.
async fn sessions(site: &Site, count: usize) -> Vec<v1::SessionRef> {
    let mut made = Vec::new();
    for number in 0..count {
        let session = site.session().await;
        site.put(&session, "key", &number.to_string()).await;
        made.push(session);
    }
    made
}

async fn assert_values(site: &Site, sessions: &[v1::SessionRef]) {
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(site.look(session, "key").await.unwrap().1, number.to_string().into_bytes());
    }
}

#[tokio::test]
async fn a_rewrap_leaves_nothing_under_the_old_version_and_touches_no_data() {
    let site = Site::inside().await;
    let made = sessions(&site, 300).await;
    rotate(&site).await;
    let begun = site.answered(site.admin().start_job(start(&site, REWRAP)).await, "job.start").await;
    let begun = begun.job.unwrap();
    assert_eq!((begun.state, begun.sessions_total), (JobState::Running as i32, 300));
    assert_eq!((pairs(&begun.before), pairs(&begun.after)), (vec![(1, 300), (2, 0)], vec![]));
    let entries = |rows: Vec<(strongroom::store::Key, Row)>| {
        let entry = |key: &strongroom::store::Key| {
            key.as_bytes()[0] == Table::Session as u8 && key.within_session()[0] != 0
        };
        rows.into_iter().filter(|(key, _)| entry(key)).collect::<Vec<_>>()
    };
    let before = entries(site.world().rows().await);
    site.world().work().await;
    assert!(entries(site.world().rows().await) == before, "an entry was written anew");

    let ended = job(&site, REWRAP).await;
    assert_eq!((ended.uid, ended.state), (begun.uid, JobState::Done as i32));
    assert_eq!((ended.sessions_seen, ended.done, ended.failed), (300, 300, 0));
    let counted = site.world().service.counts().jobs;
    assert_eq!(counted.map(|job| (job.running, job.sessions)), [(0, 300), (0, 0), (0, 0)]);
    assert_eq!((pairs(&ended.after), uses(&site).await), (vec![(1, 0), (2, 300)], vec![(1, 0), (2, 300)]));
    // Nothing depends on the old version any more.
    let destroy = v1::DestroyKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    answered(site.admin().destroy_kek(destroy).await);
    assert_values(&site, &made).await;
    let site = site.reopened().await;
    assert_values(&site, &made).await;
}

#[tokio::test]
async fn a_job_goes_on_in_another_process_and_does_nothing_twice() {
    let mut site = Site::inside().await;
    let made = sessions(&site, 600).await;
    rotate(&site).await;
    answered(site.admin().start_job(start(&site, REWRAP)).await);
    let mut steps = 0;
    while job(&site, REWRAP).await.state == JobState::Running as i32 {
        site.world().jobs.round().await.unwrap();
        site = site.reopened().await;
        steps += 1;
    }
    assert!(steps > 2, "{steps}");
    let ended = job(&site, REWRAP).await;
    assert_eq!((ended.sessions_seen, ended.done, ended.failed), (600, 600, 0));
    assert_eq!(uses(&site).await, [(1, 0), (2, 600)]);
    assert_values(&site, &made).await;
}

#[tokio::test]
async fn there_is_one_job_of_a_kind_and_a_cancelled_one_stays_where_it_was() {
    let site = Site::inside().await;
    sessions(&site, 300).await;
    rotate(&site).await;
    let outcome = site.admin().get_job(v1::GetJobRequest { tenant: site.tenant.clone(), kind: REWRAP }).await;
    site.refused(outcome, Code::NotFound, "JOB_NOT_FOUND", ("job.read", "fail")).await;
    let request = v1::StartJobRequest { request_id: new_id(), ..start(&site, REWRAP) };
    let first = answered(site.admin().start_job(request.clone()).await).0.job.unwrap();
    let again = answered(site.admin().start_job(request).await).0.job.unwrap();
    assert_eq!(first.uid, again.uid);
    let outcome = site.admin().start_job(start(&site, REWRAP)).await;
    site.refused(outcome, Code::AlreadyExists, "ALREADY_EXISTS", ("job.start", "fail")).await;
    answered(site.admin().start_job(start(&site, SCRUB)).await);
    site.world().jobs.round().await.unwrap();
    let cancel = v1::CancelJobRequest { tenant: site.tenant.clone(), kind: REWRAP };
    let ended = site.answered(site.admin().cancel_job(cancel.clone()).await, "job.cancel").await.job.unwrap();
    assert_eq!((ended.state, ended.done), (JobState::Cancelled as i32, 256));
    assert_eq!(pairs(&ended.after), [(1, 44), (2, 256)]);
    site.world().work().await;
    assert_eq!(uses(&site).await, [(1, 44), (2, 256)]);
    let again = answered(site.admin().cancel_job(cancel).await).0.job.unwrap();
    assert_eq!(again.end_time, ended.end_time);
    let next = answered(site.admin().start_job(start(&site, REWRAP)).await).0.job.unwrap();
    assert_ne!(next.uid, ended.uid);
    site.world().work().await;
    assert_eq!(uses(&site).await, [(1, 0), (2, 300)]);
    let list = v1::ListJobsRequest { tenant: site.tenant.clone() };
    let jobs = site.answered(site.admin().list_jobs(list).await, "job.list").await.jobs;
    assert_eq!(jobs.iter().map(|job| job.kind).collect::<Vec<_>>(), [REWRAP, SCRUB]);
}

#[tokio::test]
async fn a_job_behind_thousands_of_others_rows_is_found_and_an_idle_server_reads_nothing() {
    let site = Site::inside().await;
    sessions(&site, 3).await;
    rotate(&site).await;
    answered(site.admin().start_job(start(&site, REWRAP)).await);
    for number in 0..2100_u128 {
        let row = keys::job(TenantId(number.to_be_bytes()), JobKind::Rewrap as u8);
        site.world().tamper(&row, Some(Row::new(Revision::FIRST, &[]))).await;
    }
    let site = site.reopened().await;
    site.world().work().await;
    assert_eq!(job(&site, REWRAP).await.state, JobState::Done as i32);
    let reads = || [Operation::MultiGet, Operation::Scan].map(|of| site.world().engine.calls(of));
    let before = reads();
    assert_eq!(site.world().jobs.round().await.unwrap().working, 0);
    assert_eq!(reads(), before);
}

#[tokio::test]
async fn a_damaged_row_of_a_job_is_put_on_record_once_and_holds_up_no_other() {
    let site = Site::inside().await;
    let made = sessions(&site, 300).await;
    rotate(&site).await;
    answered(site.admin().start_job(start(&site, SCRUB)).await);
    answered(site.admin().start_job(start(&site, REWRAP)).await);
    let rows = site.world().rows().await;
    let rewrap = |key: &strongroom::store::Key| {
        key.as_bytes()[0] == Table::Job as u8 && key.within_tenant() == [JobKind::Rewrap as u8]
    };
    let (key, row) = rows.into_iter().find(|(key, _)| rewrap(key)).unwrap();
    let mut bytes = row.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    site.world().tamper(&key, Some(Row::from_stored(bytes.into()))).await;
    let failures = site.world().service.counts().integrity_failures;
    site.world().jobs.round().await.unwrap_err();
    site.world().work().await;
    assert_eq!(site.world().service.counts().integrity_failures, failures + 1);
    let scrubbed = job(&site, SCRUB).await;
    assert_eq!((scrubbed.state, scrubbed.sessions_seen), (JobState::Done as i32, made.len() as u64));
}

#[tokio::test]
async fn a_scrub_counts_apart_what_a_disabled_or_destroyed_version_closes() {
    let site = Site::inside().await;
    sessions(&site, 3).await;
    rotate(&site).await;
    sessions(&site, 2).await;
    let disable = v1::DisableKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    answered(site.admin().disable_kek(disable).await);
    let closed = async || {
        answered(site.admin().start_job(start(&site, SCRUB)).await);
        site.world().work().await;
        let ended = job(&site, SCRUB).await;
        assert_eq!((ended.sessions_seen, ended.done, ended.failed), (5, 4, 0));
        assert!(ended.failed_sessions.is_empty());
        ended.sessions_closed
    };
    assert_eq!(closed().await, 3);
    let grace = Some(seconds(0));
    let destroy =
        v1::DestroyKekRequest { tenant: site.tenant.clone(), version: 1, grace, ..Default::default() };
    answered(site.admin().destroy_kek(v1::DestroyKekRequest { expect_sessions: 3, ..destroy }).await);
    assert_eq!(closed().await, 3);
}

#[tokio::test]
async fn steps_are_small_while_there_is_traffic() {
    let site = Site::inside().await;
    let made = sessions(&site, 300).await;
    rotate(&site).await;
    answered(site.admin().start_job(start(&site, REWRAP)).await);
    site.world().jobs.round().await.unwrap();
    let quiet = job(&site, REWRAP).await.done;
    assert_eq!(site.world().service.counts().jobs[0].running, 1);
    site.look(&made[0], "key").await;
    let report = site.world().jobs.round().await.unwrap();
    let busy = job(&site, REWRAP).await.done - quiet;
    assert!(report.pause > Duration::ZERO && busy * 4 < quiet, "{busy} after {quiet}, {report:?}");
    site.world().clock.advance(Duration::from_secs(1));
    site.world().work().await;
    assert_eq!(job(&site, REWRAP).await.done, 300);
}

#[tokio::test]
async fn a_rate_is_kept() {
    let site = Site::inside().await;
    sessions(&site, 50).await;
    rotate(&site).await;
    let request = v1::StartJobRequest { rate: 10, ..start(&site, REWRAP) };
    answered(site.admin().start_job(request).await);
    for second in 1..=3 {
        site.world().clock.advance(Duration::from_secs(1));
        for _ in 0..20 {
            site.world().jobs.round().await.unwrap();
        }
        assert_eq!(job(&site, REWRAP).await.done, 10 * second);
    }
    let outcome =
        site.admin().start_job(v1::StartJobRequest { rate: 1_000_001, ..start(&site, SCRUB) }).await;
    site.refused(outcome, Code::InvalidArgument, "INVALID_FIELD", ("job.start", "fail")).await;
    let outcome = site.admin().start_job(start(&site, 99)).await;
    site.refused(outcome, Code::InvalidArgument, "INVALID_FIELD", ("job.start", "fail")).await;
}

#[tokio::test]
async fn whoever_is_second_between_a_rewrap_and_a_change_of_its_session_loses_nothing() {
    for rewrap_first in [true, false] {
        let site = Site::inside().await;
        let made = sessions(&site, 1).await;
        rotate(&site).await;
        answered(site.admin().start_job(start(&site, REWRAP)).await);
        let idle_ttl = Some(seconds(1000));
        let update = v1::UpdateSessionRequest { idle_ttl, ..update(&made[0]) };
        let mut app = site.app();
        let change = Box::pin(async { drop(answered(app.update_session(update).await)) });
        let rewrap = async { assert_eq!(site.world().jobs.round().await.unwrap().working, 1) };
        if rewrap_first {
            site.world().together(rewrap, change).await;
        } else {
            site.world().together(change, rewrap).await;
        }
        assert!(site.world().committer.stats().conflicts > 0, "nobody lost");
        site.world().work().await;
        assert_eq!(uses(&site).await, [(1, 0), (2, 1)], "rewrap first: {rewrap_first}");
        let get = v1::GetSessionRequest { session: Some(made[0].clone()) };
        let found = answered(site.app().get_session(get).await).0.session.unwrap();
        assert_eq!(found.idle_ttl, idle_ttl);
        assert_values(&site, &made).await;
    }
}

#[tokio::test]
async fn nothing_is_wrapped_under_a_version_that_was_retired_meanwhile() {
    let site = Site::inside().await;
    let rotation = || async { rotate(&site).await };
    site.world().together(rotation(), async { drop(sessions(&site, 1).await) }).await;
    assert_eq!(uses(&site).await, [(1, 0), (2, 1)], "a session that was created");
    rotate(&site).await;
    answered(site.admin().start_job(start(&site, REWRAP)).await);
    let rewrap = async { assert_eq!(site.world().jobs.round().await.unwrap().working, 1) };
    site.world().together(rotation(), rewrap).await;
    assert_eq!(uses(&site).await, [(1, 0), (2, 1), (3, 0), (4, 0)], "a session that was rewrapped");
    site.world().work().await;
    assert_eq!(uses(&site).await, [(1, 0), (2, 0), (3, 0), (4, 1)]);
}

#[tokio::test]
async fn what_cannot_be_unwrapped_is_counted_and_named_and_the_rest_is_done() {
    let site = Site::inside().await;
    sessions(&site, 3).await;
    rotate(&site).await;
    let disable = v1::DisableKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    answered(site.admin().disable_kek(disable).await);
    site.session().await;
    rotate(&site).await;
    answered(site.admin().start_job(start(&site, REWRAP)).await);
    site.world().work().await;
    let ended = job(&site, REWRAP).await;
    assert_eq!((ended.state, ended.done, ended.failed), (JobState::Done as i32, 1, 3));
    assert_eq!((ended.failed_sessions.len(), pairs(&ended.after)), (3, vec![(1, 3), (2, 0), (3, 1)]));
}

#[tokio::test]
async fn a_scrub_finds_every_record_that_does_not_open() {
    let site = Site::inside().await;
    let made = sessions(&site, 20).await;
    answered(site.app().append_events(append(&made[0], "stream", &["1", "2"])).await);
    answered(site.admin().start_job(start(&site, SCRUB)).await);
    site.world().work().await;
    let sound = job(&site, SCRUB).await;
    // A row for each session and each entry, a stream's head and its two events.
    assert_eq!((sound.sessions_seen, sound.done, sound.failed), (20, 43, 0));

    let rows = site.world().rows().await;
    let stored = rows.iter().filter(|(key, _)| key.as_bytes()[0] == Table::Session as u8);
    let mut damaged = 0;
    for (key, row) in stored.step_by(4) {
        let mut bytes = row.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        site.world().tamper(key, Some(Row::from_stored(bytes.into()))).await;
        damaged += 1;
    }
    answered(site.admin().start_job(start(&site, SCRUB)).await);
    site.world().work().await;
    let found = job(&site, SCRUB).await;
    assert_eq!((found.state, found.sessions_seen), (JobState::Done as i32, 20));
    let sessions_damaged = rows
        .iter()
        .filter(|(key, _)| key.as_bytes()[0] == Table::Session as u8)
        .step_by(4)
        .filter(|(key, _)| key.within_session() == [0])
        .count();
    // What is behind a session that does not open cannot be looked at.
    let failed = usize::try_from(found.failed).unwrap();
    assert!(failed <= damaged && failed >= damaged - sessions_damaged);
    let counted = site.world().service.counts().jobs[1];
    assert_eq!((counted.running, counted.sessions, counted.failures), (0, 40, found.failed));
    assert!(!found.failed_sessions.is_empty() && failed > 5, "{failed}");
    assert!(site.world().service.counts().integrity_failures > 0);
}

#[tokio::test]
async fn tombstones_are_passed_by() {
    let site = Site::inside().await;
    let ttl = create_session_request::Expiration::Ttl(seconds(60));
    site.create(v1::CreateSessionRequest { expiration: Some(ttl), ..create(&site.tenant) }).await;
    sessions(&site, 2).await;
    site.world().clock.advance(Duration::from_secs(61));
    site.world().sweep().await;
    rotate(&site).await;
    answered(site.admin().start_job(start(&site, REWRAP)).await);
    answered(site.admin().start_job(start(&site, SCRUB)).await);
    site.world().work().await;
    assert_eq!(job(&site, REWRAP).await.done, 2);
    assert_eq!((job(&site, SCRUB).await.done, job(&site, SCRUB).await.failed), (4, 0));
}
