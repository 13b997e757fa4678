//! Jobs against a real server: after a rewrap nothing depends on the old version, and a scrub opens everything.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use strongroom::client::{
    CreateSession, Destroy, ErrorReason, JobKind, JobState, JobWatch, KekUse, SessionHandle, View,
};

use crate::support::{Daemon, Login};

const OFTEN: JobWatch = JobWatch { interval: Duration::from_millis(5), patience: Duration::from_secs(60) };

fn pairs(uses: &[KekUse]) -> Vec<(u32, u64)> {
    uses.iter().map(|of| (of.version, of.sessions)).collect()
}

async fn look(session: &SessionHandle) -> Vec<u8> {
    session.read("key", View::Full).await.unwrap().value.to_vec()
}

#[tokio::test]
async fn a_rewrap_watched_to_its_end_leaves_nothing_under_the_old_version() {
    const NAME: &str = "rewrapped";
    let daemon = Daemon::shared().await;
    let sdk = daemon.sdk(Login::Admin);
    let (admin, tenant) = (sdk.admin().unwrap(), sdk.tenant(NAME).unwrap());
    admin.create_tenant(NAME).await.unwrap();
    let mut sessions = Vec::new();
    for number in 0..20 {
        let session = tenant.create_session(CreateSession::default()).await.unwrap().into_inner();
        session.put("key", number.to_string()).await.unwrap();
        sessions.push(session);
    }
    admin.rotate_kek(NAME).await.unwrap();
    let unknown = admin.job(NAME, JobKind::Rewrap).await.unwrap_err();
    assert_eq!(unknown.reason(), ErrorReason::JobNotFound);

    // Slow enough that a second one comes too late, and that the watch sees it work.
    let begun = admin.start_job(NAME, JobKind::Rewrap, Some(40)).await.unwrap();
    assert_eq!((begun.state, begun.sessions_total, begun.rate), (JobState::Running, 20, Some(40)));
    assert_eq!((pairs(&begun.before), pairs(&begun.after)), (vec![(1, 20), (2, 0)], vec![]));
    let second = admin.start_job(NAME, JobKind::Rewrap, None).await.unwrap_err();
    assert_eq!(second.reason(), ErrorReason::AlreadyExists);
    let steps: Vec<_> = admin.watch_job(NAME, JobKind::Rewrap, OFTEN).try_collect().await.unwrap();
    let (ended, before) = steps.split_last().unwrap();
    assert!(
        before.iter().any(|job| job.state == JobState::Running && job.time_left().is_some()),
        "{steps:?}"
    );
    assert!(steps.is_sorted_by_key(|job| job.sessions_seen), "{steps:?}");
    assert_eq!((&ended.uid, ended.state), (&begun.uid, JobState::Done));
    assert_eq!((ended.sessions_seen, ended.done, ended.failed), (20, 20, 0));
    assert!(ended.sessions_per_second().unwrap() <= 40.0, "{ended:?}");
    assert_eq!(pairs(&ended.after), [(1, 0), (2, 20)]);
    assert_eq!(pairs(&admin.count_kek_use(NAME).await.unwrap()), [(1, 0), (2, 20)]);

    // So the old version can go, without a word about sessions, and everything still opens.
    let now = Destroy { grace: Some(Duration::ZERO), ..Destroy::default() };
    admin.destroy_kek(NAME, 1, now).await.unwrap();
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(look(session).await, number.to_string().into_bytes());
    }
    admin.start_job(NAME, JobKind::Scrub, None).await.unwrap();
    let steps: Vec<_> = admin.watch_job(NAME, JobKind::Scrub, OFTEN).try_collect().await.unwrap();
    let scrubbed = steps.last().unwrap();
    assert_eq!((scrubbed.state, scrubbed.done, scrubbed.failed), (JobState::Done, 40, 0));
    let jobs = admin.jobs(NAME).await.unwrap().into_inner();
    assert_eq!(jobs.iter().collect::<Vec<_>>(), [ended, scrubbed]);
}

#[tokio::test]
async fn a_cancelled_job_ends_its_watch() {
    const NAME: &str = "half-way";
    let daemon = Daemon::shared().await;
    let sdk = daemon.sdk(Login::Admin);
    let (admin, tenant) = (sdk.admin().unwrap(), sdk.tenant(NAME).unwrap());
    admin.create_tenant(NAME).await.unwrap();
    for _ in 0..3 {
        tenant.create_session(CreateSession::default()).await.unwrap();
    }
    admin.start_job(NAME, JobKind::Scrub, Some(1)).await.unwrap();
    let cancelled = admin.cancel_job(NAME, JobKind::Scrub).await.unwrap().into_inner();
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert!(cancelled.end_time.is_some() && cancelled.sessions_seen < 3, "{cancelled:?}");
    let steps: Vec<_> = admin.watch_job(NAME, JobKind::Scrub, OFTEN).try_collect().await.unwrap();
    assert_eq!(steps, [cancelled]);
}
