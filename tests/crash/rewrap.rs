//! `kill -9` at random moments of a rewrap.

use std::time::Duration;

use strongroom::proto::v1::{self, JobState};

use crate::server::Server;
use crate::trace::Random;
use crate::{seed, variable};

const SESSIONS: usize = 600;
/// A kill comes this long after the start of a server, and of its work.
const MOMENT_MICROS: u64 = 60_000;
const REWRAP: i32 = v1::JobKind::Rewrap as i32;

fn tenant() -> String {
    "demo".to_owned()
}

async fn job(server: &Server) -> v1::Job {
    let get = v1::GetJobRequest { tenant: tenant(), kind: REWRAP };
    server.control().get_job(get).await.unwrap().into_inner().job.unwrap()
}

async fn uses(server: &Server) -> Vec<(u32, u64)> {
    let count = v1::CountKekUseRequest { tenant: tenant() };
    let found = server.control().count_kek_use(count).await.unwrap().into_inner().uses;
    found.into_iter().map(|of| (of.version, of.sessions)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrap_that_is_killed_goes_on_and_ends_with_nothing_under_the_old_version() {
    let mut random = Random::new(seed());
    let (place, rounds) = (tempfile::tempdir().unwrap(), variable("STRONGROOM_CRASH_ROUNDS").unwrap_or(5));
    let (served, log) = (place.path().join("served"), place.path().join("log"));
    std::fs::create_dir(&served).unwrap();
    let server = Server::start(&served, &log).await.unwrap();
    let mut made = Vec::new();
    for number in 0..SESSIONS {
        let session = server.tenant().create_session(Default::default()).await.unwrap().into_inner();
        session.put("key", number.to_string()).await.unwrap();
        made.push(session.id().clone());
    }
    server.kill();
    for round in 0..rounds {
        let server = Server::start(&served, &log).await.unwrap();
        let newest = server.admin().rotate_kek("demo").await.unwrap().version;
        let start = v1::StartJobRequest { tenant: tenant(), kind: REWRAP, ..Default::default() };
        server.control().start_job(start).await.unwrap();
        pass(&mut random).await;
        server.kill();
        let mut kills = 1;
        let server = loop {
            let server = Server::start(&served, &log).await.unwrap();
            let found = job(&server).await;
            let of_newest = uses(&server).await.iter().find(|(version, _)| *version == newest).unwrap().1;
            // What the job says that it did is there, and nothing else is.
            assert!(found.done <= of_newest && of_newest <= SESSIONS as u64, "{} and {of_newest}", found.done);
            if found.state == JobState::Done as i32 {
                break server;
            }
            pass(&mut random).await;
            server.kill();
            kills += 1;
        };
        let ended = job(&server).await;
        assert_eq!((ended.sessions_seen, ended.done, ended.failed), (SESSIONS as u64, SESSIONS as u64, 0));
        let old: u64 = uses(&server).await.iter().filter(|(version, _)| *version != newest).map(|of| of.1).sum();
        assert_eq!(old, 0);
        for (number, id) in made.iter().enumerate() {
            let session = server.tenant().session(id.clone(), None);
            let read = session.read("key").await.unwrap().into_inner();
            assert_eq!(read.value, number.to_string());
        }
        println!("round {round}: {kills} kills");
        server.kill();
    }
}

async fn pass(random: &mut Random) {
    tokio::time::sleep(Duration::from_micros(random.below(MOMENT_MICROS))).await;
}
