//! `kill -9` at random moments: while writers write, while a server starts, and while it stops.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strongroom::client::{Admin, ClientError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::books::{Books, Figures};
use crate::server::{self, Process, Server};
use crate::trace::Random;
use crate::workload::{Sizes, Target, Writer};
use crate::{copy, seed, variable};

const WRITERS: u64 = 8;
const SIZES: Sizes = &[(0, 5), (100, 45), (1 << 10, 30), (16 << 10, 15), (100 << 10, 5)];
/// A kill comes this long after the last of some acknowledgements, or that of a start's beginning.
const MOMENT_MICROS: u64 = 20_000;
const START_MICROS: u64 = 400_000;
const ACKNOWLEDGEMENTS: u64 = 400;

/// A directory that is served, killed and served again.
struct Run {
    place: tempfile::TempDir,
    random: Random,
    writers: Vec<Writer>,
    books: Books,
    /// The newest key version whose rotation was acknowledged.
    keks: u32,
    total: Figures,
    in_doubt: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            place: tempfile::tempdir().unwrap(),
            random: Random::new(seed),
            writers: (0..WRITERS).map(|number| Writer::new(number, seed, SIZES)).collect(),
            books: Books::default(),
            keks: 1,
            total: Figures::default(),
            in_doubt: 0,
        }
    }

    fn served(&self) -> PathBuf {
        self.place.path().join("served")
    }

    fn log(&self) -> PathBuf {
        self.place.path().join("log")
    }

    async fn start(&self) -> Server {
        Server::start(&self.served(), &self.log()).await.unwrap()
    }

    /// Kills a server while it starts, which is while it recovers from the last kill.
    async fn start_and_kill(&mut self) {
        let served = self.served();
        let mut process = Process::start(server::command(&served), &served, &self.log());
        self.pass(START_MICROS).await;
        process.kill();
    }

    /// Waits for a random moment.
    async fn pass(&mut self, micros: u64) {
        tokio::time::sleep(Duration::from_micros(self.random.below(micros))).await;
    }

    /// Has all writers write until the server is killed.
    async fn write_and_kill(&mut self, server: Server) {
        let acknowledgements = watch::Sender::new(0);
        let target = Target {
            tenant: server.tenant(),
            acknowledgements: acknowledgements.clone(),
            place: Arc::new(|| 0),
        };
        let mut running = JoinSet::new();
        for (number, mut writer) in self.writers.drain(..).enumerate() {
            let target = target.clone();
            running.spawn(async move {
                let stopped = writer.run(&target).await;
                (number, writer, stopped)
            });
        }
        // A tenant's key has a bounded number of versions.
        let rotations = u32::from(self.random.below(3) == 0);
        let rotating = tokio::spawn(rotate(server.admin(), rotations));
        let wanted = self.random.below(ACKNOWLEDGEMENTS);
        let enough =
            acknowledgements.subscribe().wait_for(|count| *count >= wanted).await.map(|count| *count);
        assert!(enough.is_ok());
        self.pass(MOMENT_MICROS).await;
        if self.random.below(4) == 0 {
            server.kill_while_it_stops(self.pass(MOMENT_MICROS)).await;
        } else {
            server.kill();
        }

        let mut ended = running.join_all().await;
        ended.sort_by_key(|(number, ..)| *number);
        for (_, writer, stopped) in ended {
            // What is answered too late is in doubt, like what is not answered at all.
            let in_doubt = stopped.is_unavailable() || stopped.is_deadline_exceeded();
            assert!(in_doubt, "a writer was refused: {stopped:?}");
            self.writers.push(writer);
        }
        let (newest, stopped) = rotating.await.unwrap();
        assert!(
            stopped.as_ref().is_none_or(|stopped| stopped.is_unavailable() || stopped.is_deadline_exceeded()),
            "a rotation was refused: {stopped:?}"
        );
        self.keks = self.keks.max(newest);
    }

    /// Audits a copy of the killed server's store; its own stays as it was.
    async fn audit(&mut self) {
        let copied = self.place.path().join("copied");
        copy(&server::store(&self.served()), &copied);
        let root_key = server::root_key(&self.served());
        let audited = self.books.audit(&copied, &root_key, &self.writers, u64::MAX).await;
        let figures = audited.unwrap_or_else(|what| panic!("the books: {what}"));
        self.total.new += figures.new;
        self.total.acknowledged += figures.acknowledged;
        self.total.rows += figures.rows;
        self.total.events = figures.events;
    }

    /// Has every writer look for what it wrote.
    async fn settle(&mut self, server: &Server) {
        let tenant = server.tenant();
        for writer in &mut self.writers {
            let settled = writer.settle(&tenant, self.books.revisions(), u64::MAX).await;
            let settled = match settled {
                Ok(settled) => settled,
                Err(what) => panic!("{what}\n{}{:?}", server.state(), server.admin().status().await),
            };
            self.in_doubt += (settled.asked - settled.demanded) as u64;
        }
        let primary = server.admin().describe_tenant("demo").await.unwrap().primary_kek_version;
        assert!(primary >= self.keks, "version {} was acknowledged, {primary} is there", self.keks);
    }
}

/// Rotates the tenant's key some times; the newest version that was acknowledged, and why it stopped before the end.
async fn rotate(admin: Admin, times: u32) -> (u32, Option<ClientError>) {
    let mut newest = 0;
    for _ in 0..times {
        match admin.rotate_kek("demo").await {
            Ok(kek) => newest = kek.version,
            Err(stopped) => return (newest, Some(stopped)),
        }
    }
    (newest, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_with_its_events() {
    let rounds = variable("STRONGROOM_CRASH_ROUNDS").unwrap_or(5);
    let mut run = Run::new(seed());
    std::fs::create_dir(run.served()).unwrap();
    for round in 0..rounds {
        let server = run.start().await;
        run.settle(&server).await;
        run.write_and_kill(server).await;
        run.audit().await;
        while run.random.below(3) == 0 {
            run.start_and_kill().await;
        }
        if round % 10 == 9 || round + 1 == rounds {
            println!("{} of {rounds} rounds: {:?}, {} changes in doubt", round + 1, run.total, run.in_doubt);
        }
    }
    let server = run.start().await;
    run.settle(&server).await;
    assert!(server.stop().await.success());
    run.audit().await;
}
