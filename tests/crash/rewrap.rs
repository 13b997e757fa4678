//! `kill -9` at random moments of a rewrap, and of new keys for all sessions.

use std::time::Duration;

use strongroom::client::{CreateSession, Job, JobKind, JobState};
use strongroom::model::View;

use crate::server::Server;
use crate::trace::Random;
use crate::{seed, variable};

const TENANT: &str = "demo";
const SESSIONS: usize = 600;
/// A kill comes this long after the start of a server, and so of its work.
const MOMENT_MICROS: u64 = 60_000;

async fn job(server: &Server, kind: JobKind) -> Job {
    server.admin().job(TENANT, kind).await.unwrap().into_inner()
}

/// Sessions under the version, and under all others.
async fn uses(server: &Server, version: u32) -> (u64, u64) {
    let uses = server.admin().count_kek_use(TENANT).await.unwrap().into_inner();
    let sum =
        |of: bool| uses.iter().filter(|found| (found.version == version) == of).map(|of| of.sessions).sum();
    (sum(true), sum(false))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrap_that_is_killed_goes_on_and_ends_with_nothing_under_the_old_version() {
    kill_again_and_again(JobKind::Rewrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_keys_for_all_sessions_are_killed_on_the_way_and_nothing_is_lost() {
    kill_again_and_again(JobKind::Reencrypt).await;
}

async fn kill_again_and_again(kind: JobKind) {
    let mut random = Random::new(seed());
    let (place, rounds) = (tempfile::tempdir().unwrap(), variable("STRONGROOM_CRASH_ROUNDS").unwrap_or(5));
    let (served, log) = (place.path().join("served"), place.path().join("log"));
    std::fs::create_dir(&served).unwrap();
    let server = Server::start(&served, &log).await.unwrap();
    let mut made = Vec::new();
    for number in 0..SESSIONS {
        let session = server.tenant().create_session(CreateSession::default()).await.unwrap().into_inner();
        session.put("key", number.to_string()).await.unwrap();
        if number == 0 {
            // More than one commit seals anew.
            for part in 0..40 {
                session.put(format!("part-{part}"), vec![b'x'; 30_000]).await.unwrap();
            }
        }
        made.push(session.id().to_owned());
    }
    server.kill();
    let (mut round, mut killed) = (0, 0);
    // Two kills a round on average, whatever luck says.
    while round < rounds || killed < 2 * rounds {
        let server = Server::start(&served, &log).await.unwrap();
        let newest = server.admin().rotate_kek("demo").await.unwrap().version;
        server.admin().start_job(TENANT, kind, None).await.unwrap();
        pass(&mut random).await;
        server.kill();
        let mut kills = 1;
        let server = loop {
            let server = Server::start(&served, &log).await.unwrap();
            let found = job(&server, kind).await;
            let (of_newest, others) = uses(&server, newest).await;
            // What the job says that it did is there, and no session is lost.
            // A session that gets new keys is under the newest version before it is done.
            assert!(
                found.done <= of_newest && of_newest + others == SESSIONS as u64,
                "{} of {of_newest}",
                found.done
            );
            if found.state == JobState::Done {
                break server;
            }
            pass(&mut random).await;
            server.kill();
            kills += 1;
        };
        let ended = job(&server, kind).await;
        assert_eq!((ended.sessions_seen, ended.done, ended.failed), (SESSIONS as u64, SESSIONS as u64, 0));
        assert_eq!(uses(&server, newest).await, (SESSIONS as u64, 0));
        for (number, id) in made.iter().enumerate() {
            let session = server.tenant().session(id.clone(), None);
            let read = session.read("key", View::Full).await.unwrap().into_inner();
            assert_eq!(read.value, number.to_string());
        }
        let first = server.tenant().session(made[0].clone(), None);
        for part in 0..40 {
            let read = first.read(format!("part-{part}"), View::Full).await.unwrap().into_inner();
            assert_eq!(read.value.len(), 30_000);
        }
        (round, killed) = (round + 1, killed + kills);
        println!("round {round}: {kills} kills");
        server.kill();
    }
}

async fn pass(random: &mut Random) {
    tokio::time::sleep(Duration::from_micros(random.below(MOMENT_MICROS))).await;
}
