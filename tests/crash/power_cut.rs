//! Power cuts of the whole server: its directory as it would stand if only what was synced had survived.
//!
//! A server's calls on its files are traced from its first start on, keys, certificates and tokens included. The trace is cut at random places; at
//! each the directory is made again as a cut there would have left it, with any part of what was not synced, and a server is started on it. The last
//! cut of a trace is where the next traced server goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::books::{Books, Figures};
use crate::server::{self, Process, Server};
use crate::trace::{Directory, Left, Random, Replay, Shim, Trace, position};
use crate::workload::{Sizes, Target, Writer};
use crate::{copy, seed, variable};

const WRITERS: u64 = 6;
/// 100 bytes to 1 MB.
const SIZES: Sizes = &[(100, 40), (1 << 10, 30), (16 << 10, 15), (64 << 10, 10), (1_000_000, 5)];
/// Cuts of one server's trace, and acknowledgements that it gives before it is killed.
const CUTS: usize = 6;
const ACKNOWLEDGEMENTS: u64 = 250;
const LEFT: [Left; 5] = [Left::Nothing, Left::Some, Left::Beginning, Left::Some, Left::All];

struct Run {
    place: tempfile::TempDir,
    shim: Shim,
    random: Random,
    writers: Vec<Writer>,
    books: Books,
}

/// What a traced server did.
struct Life {
    start: Directory,
    trace: Trace,
    /// Places in the trace at which an operation was acknowledged.
    acknowledgements: Vec<u64>,
}

impl Run {
    fn new(seed: u64) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        match Shim::build(place.path()) {
            Ok(shim) => Some(Self {
                place,
                shim,
                random: Random::new(seed),
                writers: (0..WRITERS).map(|number| Writer::new(number, seed, SIZES)).collect(),
                books: Books::default(),
            }),
            Err(why) => {
                println!("SKIPPED: the power-cut simulation needs a C compiler: {why}");
                assert!(std::env::var_os("CI").is_none(), "{why}");
                None
            }
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Serves a directory with a trace until there were enough acknowledgements.
    async fn live(&mut self, directory: &Path, prepare: impl FnOnce(&mut Command)) -> Life {
        let traced = self.at("trace");
        fs::write(&traced, b"").unwrap();
        let start = Directory::read(directory).unwrap();
        let mut command = server::command(directory);
        self.shim.trace(&mut command, directory, &traced);
        prepare(&mut command);
        let server = Process::start(command, directory, &self.at("log")).serving().await.unwrap();
        let acknowledgements = self.write(&server, &traced).await;
        if self.random.below(2) == 0 {
            server.kill();
        } else {
            assert!(server.stop().await.success());
        }
        Life { start, trace: Trace::read(&traced).unwrap(), acknowledgements }
    }

    /// Has all writers write until there were enough acknowledgements; where those stand in the trace.
    async fn write(&mut self, server: &Server, traced: &Path) -> Vec<u64> {
        let acknowledgements = watch::Sender::new(0);
        let traced = traced.to_owned();
        let place = move || position(&traced);
        let target = Target {
            tenant: server.tenant(),
            acknowledgements: acknowledgements.clone(),
            place: std::sync::Arc::new(place),
        };
        let mut running = JoinSet::new();
        for (number, mut writer) in self.writers.drain(..).enumerate() {
            let (target, mut count) = (target.clone(), acknowledgements.subscribe());
            running.spawn(async move {
                let enough = async { count.wait_for(|count| *count >= ACKNOWLEDGEMENTS).await.is_ok() };
                let stopped = tokio::select! {
                    stopped = writer.run(&target) => Some(stopped),
                    _ = enough => None,
                };
                (number, writer, stopped)
            });
        }
        let mut ended = running.join_all().await;
        ended.sort_by_key(|(number, ..)| *number);
        for (_, writer, stopped) in ended {
            assert!(stopped.is_none(), "a writer was refused: {stopped:?}\n{}", server.state());
            self.writers.push(writer);
        }
        let all = self.writers.iter().flat_map(|writer| writer.acknowledged(u64::MAX));
        all.map(|acknowledged| acknowledged.place).collect()
    }

    /// Places to cut at, in order: any, just after an acknowledgement, and in the first life once while the server starts.
    fn places(&mut self, life: &Life, first: bool) -> Vec<u64> {
        let ends: Vec<u64> = life.trace.ends().collect();
        let started = life.acknowledgements.iter().min().copied().unwrap_or_default();
        let early: Vec<u64> = ends.iter().copied().filter(|end| *end < started).collect();
        let mut pick = |from: &[u64]| from[self.random.below(from.len() as u64) as usize];
        let mut places: Vec<u64> = (0..CUTS)
            .map(|number| match number % 3 {
                0 if first || number == 0 => pick(&early),
                1 => pick(&life.acknowledgements),
                _ => pick(&ends),
            })
            .collect();
        places.sort_unstable();
        places
    }

    /// Checks what a cut at `place` left, and returns what was found: the writers and the books as they go on from it.
    async fn check(&self, cut: &Path, place: u64) -> Result<Found, String> {
        let (mut writers, mut books) = (self.writers.clone(), self.books.clone());
        let copied = self.at("copied");
        let store = server::store(cut);
        // A cut before the store was made leaves nothing to audit.
        let figures = match server::root_key(cut).exists() && store.exists() {
            true => {
                copy(&store, &copied);
                books.audit(&copied, &server::root_key(cut), &writers, place).await?
            }
            false => Figures::default(),
        };
        let server = Server::start(cut, &self.at("log")).await?;
        let tenant = server.tenant();
        let (mut demanded, mut asked, mut found) = (0, 0, 0);
        for writer in &mut writers {
            let settled = writer.settle(&tenant, books.revisions(), place).await?;
            demanded += settled.demanded;
            asked += settled.asked;
            found += settled.found;
        }
        server.kill();
        Ok(Found { writers, books, figures, demanded, asked, found })
    }
}

struct Found {
    writers: Vec<Writer>,
    books: Books,
    figures: Figures,
    demanded: usize,
    asked: usize,
    found: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts_with_its_events() {
    let rounds = variable("STRONGROOM_POWERCUT_ROUNDS").unwrap_or(CUTS as u64);
    let Some(mut run) = Run::new(seed()) else { return };
    let (served, cut) = (run.at("served"), run.at("cut"));
    fs::create_dir(&served).unwrap();
    let mut round = 0;
    while round < rounds {
        let life = run.live(&served, |_| {}).await;
        let (written, syncs) = life.trace.volume();
        println!(
            "{} operations acknowledged, {written} bytes written, {syncs} syncs",
            life.acknowledgements.len()
        );
        let mut replay = Replay::new(&life.trace, &life.start);
        let mut last = None;
        for place in run.places(&life, round == 0) {
            replay.advance(place);
            let left = LEFT[round as usize % LEFT.len()];
            private(&replay.cut(left, &mut run.random), &cut);
            let found = run.check(&cut, place).await;
            let found =
                found.unwrap_or_else(|what| panic!("round {round}, cut at {place}, {left:?} left: {what}"));
            println!(
                "round {round}: of {} changes {} were acknowledged and {} found, {left:?} left, {:?}",
                found.asked, found.demanded, found.found, found.figures
            );
            last = Some(found);
            round += 1;
        }
        let found = last.expect("there are cuts");
        (run.writers, run.books) = (found.writers, found.books);
        fs::remove_dir_all(&served).unwrap();
        fs::rename(&cut, &served).unwrap();
    }
}

/// Writes a directory as the server's owner has it: for nobody else.
fn private(directory: &Directory, to: &Path) {
    directory.write(to).unwrap();
    close_to_others(to);
}

fn close_to_others(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| close_to_others(&entry.unwrap().path()));
    }
}

/// The simulation must be able to find what it looks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_acknowledged_operations_are_lost() {
    let Some(mut run) = Run::new(seed()) else { return };
    let (served, cut) = (run.at("served"), run.at("cut"));
    fs::create_dir(&served).unwrap();
    // Keys and certificates are there.
    assert!(Server::start(&served, &run.at("log")).await.unwrap().stop().await.success());
    let life = run.live(&served, |command| Shim::without(command, "all")).await;
    let mut replay = Replay::new(&life.trace, &life.start);
    replay.advance(u64::MAX);
    private(&replay.cut(Left::Nothing, &mut run.random), &cut);
    let lost = run.check(&cut, u64::MAX).await.err().expect("nothing was lost");
    println!("{lost}");
}
