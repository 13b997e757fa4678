//! Power cuts: what the embedded engine acknowledged survives them, whole.
//!
//! A child process (this program again, with a shim that traces its file system calls) writes batches and
//! notes which were acknowledged. From the trace the directory is made again as a power cut at a random place
//! would have left it, opened, and compared: it must hold exactly the first n batches, for an n not below
//! what was acknowledged before the cut. The next child goes on from such a directory, so that recoveries are
//! cut as well.
//!
//! `STRONGROOM_POWERCUT_ROUNDS` sets how many cuts there are (12 without it), `STRONGROOM_POWERCUT_SEED`
//! repeats a run.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod trace;
mod workload;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strongroom::store::{
    CommitOutcome, EngineError, Key, Row, ScanRange, SledEngine, SledOptions, StorageEngine,
};

use crate::trace::{Directory, Fails, Left, Random, Replay, Shim, Trace, position};
use crate::workload::{Model, counted};

/// Cuts of one child's trace.
const CUTS: u64 = 6;
/// Batches that one child writes: about 20 MB.
const BATCHES: u64 = 60;
const LEFT: [Left; 5] = [Left::Some, Left::Nothing, Left::Beginning, Left::Some, Left::All];

/// A place to work in, and the shim; nothing where there is no C compiler.
struct Bench {
    place: tempfile::TempDir,
    shim: Shim,
    seed: u64,
}

impl Bench {
    fn new() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        match Shim::build(place.path()) {
            Ok(shim) => {
                let seed = variable("STRONGROOM_POWERCUT_SEED").unwrap_or_else(|| std::process::id().into());
                println!("STRONGROOM_POWERCUT_SEED={seed}");
                Some(Self { place, shim, seed })
            }
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

    /// Has a child go on with the store in `root` for some batches; what it did.
    fn run(&self, root: &Path, prepare: impl FnOnce(&mut Command)) -> Life {
        let (trace, acks) = (self.at("trace"), self.at("acks"));
        for file in [&trace, &acks] {
            fs::write(file, b"").unwrap();
        }
        let start = Directory::read(root).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "writing_child", "--ignored", "--nocapture"])
            .env("STRONGROOM_TEST_STORE", root)
            .env("STRONGROOM_TEST_ACKS", &acks)
            .env("STRONGROOM_TEST_SEED", self.seed.to_string());
        self.shim.trace(&mut command, root, &trace);
        prepare(&mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        Life { start, trace: Trace::read(&trace).unwrap(), acks: read_acks(&acks), said }
    }
}

/// A child's run.
struct Life {
    start: Directory,
    trace: Trace,
    /// Acknowledged batches, each with the trace's length when that was known.
    acks: Vec<(u64, u64)>,
    said: String,
}

impl Life {
    /// The newest batch that a cut at `at` must keep.
    fn acknowledged(&self, at: u64) -> u64 {
        self.acks
            .iter()
            .filter(|(_, position)| *position <= at)
            .map(|(batch, _)| *batch)
            .max()
            .unwrap_or_default()
    }

    /// Places to cut at, in order: any, just after an acknowledgement, and the end, where the store was closed.
    fn places(&self, random: &mut Random) -> Vec<u64> {
        let ends: Vec<u64> = self.trace.ends().collect();
        let mut places: Vec<u64> = ends.last().copied().into_iter().collect();
        for number in 1..CUTS {
            let any = ends[random.below(ends.len() as u64) as usize];
            let acknowledged = self.acks.get(random.below(self.acks.len() as u64) as usize);
            let place = acknowledged.filter(|_| number % 2 == 0).map_or(any, |(_, position)| *position);
            places.push(place);
        }
        places.sort_unstable();
        places
    }
}

fn read_acks(path: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(path).unwrap();
    let pair = |line: &str| {
        let (batch, position) = line.split_once(' ').unwrap();
        (batch.parse().unwrap(), position.parse().unwrap())
    };
    text.lines().map(pair).collect()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn open(path: &Path) -> Result<SledEngine, EngineError> {
    SledEngine::open(&SledOptions { cache_bytes: 32 << 20, reserve_bytes: 1 << 20, ..SledOptions::new(path) })
}

fn all(engine: &SledEngine) -> Result<Vec<(Key, Row)>, EngineError> {
    ready(engine.scan(ScanRange::prefix(""), usize::MAX))
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the embedded engine answered later"),
    }
}

/// Opens what is left and says what is wrong with it, or how many batches it holds.
fn check(root: &Path, seed: u64, acknowledged: u64) -> Result<u64, String> {
    let engine = open(root).map_err(|error| format!("not opened: {error}"))?;
    let found = all(&engine).map_err(|error| format!("not read: {error}"))?;
    let batches = counted(&found);
    if batches < acknowledged {
        return Err(format!("batch {acknowledged} was acknowledged, and {batches} are there"));
    }
    match Model::after(seed, batches).difference(&found) {
        Some(difference) => Err(format!("after {batches} batches: {difference}")),
        None if fs::read_dir(root.join("blobs")).unwrap().count() > 0 => Err("there are blobs".to_owned()),
        None => Ok(batches),
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let Some(bench) = Bench::new() else { return };
    let rounds = variable("STRONGROOM_POWERCUT_ROUNDS").unwrap_or(12);
    let mut random = Random::new(bench.seed);
    let (root, left_over) = (bench.at("store"), bench.at("cut"));
    fs::create_dir(&root).unwrap();
    let mut round = 0;
    while round < rounds {
        let life = bench.run(&root, |_| {});
        let (written, syncs) = life.trace.volume();
        println!(
            "{} batches acknowledged, {written} bytes written, {syncs} syncs, at most {} bytes of the log unsynced",
            life.acks.len(),
            life.trace.longest_unsynced("db"),
        );
        let mut replay = Replay::new(&life.trace, &life.start);
        for place in life.places(&mut random) {
            replay.advance(place);
            let left = LEFT[round as usize % LEFT.len()];
            let directory = replay.cut(left, &mut random);
            directory.write(&left_over).unwrap();
            let acknowledged = life.acknowledged(place);
            let found = check(&left_over, bench.seed, acknowledged);
            assert!(found.is_ok(), "round {round}, cut at {place}, {left:?} left: {}", found.unwrap_err());
            println!("round {round}: {acknowledged} acknowledged, {} found, {left:?} left", found.unwrap());
            directory.write(&root).unwrap();
            round += 1;
        }
    }
}

/// The simulation must be able to find what it looks for.
#[test]
fn without_fdatasync_acknowledged_batches_are_lost() {
    let Some(bench) = Bench::new() else { return };
    let root = bench.at("store");
    fs::create_dir(&root).unwrap();
    let life = bench.run(&root, |command| Shim::without(command, "fdatasync"));
    let mut random = Random::new(bench.seed);
    let mut replay = Replay::new(&life.trace, &life.start);
    let mut lost = Vec::new();
    for place in life.places(&mut random) {
        replay.advance(place);
        replay.cut(Left::Nothing, &mut random).write(&root).unwrap();
        lost.extend(check(&root, bench.seed, life.acknowledged(place)).err());
    }
    println!("lost in {} of {CUTS} rounds: {lost:#?}", lost.len());
    assert!(!lost.is_empty());
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Each failing call, from the first that opening makes to those late in a run: the engine stops, and nothing
/// that it acknowledged is lost.
#[test]
fn a_failing_disk_stops_the_engine_and_loses_nothing() {
    let Some(bench) = Bench::new() else { return };
    let (root, mut random, mut stops) = (bench.at("store"), Random::new(bench.seed), 0);
    for (kind, calls) in [(Fails::Write, 110), (Fails::Sync, 60)] {
        for (round, errno) in [EIO, ENOSPC, EIO, ENOSPC, EIO].into_iter().enumerate() {
            // The first round fails at once, the others anywhere.
            let number = 1 + if round == 0 { 0 } else { random.below(calls) as u32 };
            Directory::default().write(&root).unwrap();
            let life = bench.run(&root, |command| Shim::fail(command, kind, number, errno));
            let said = life.said.lines().find_map(|line| line.split_once("CHILD ")).unwrap().1;
            let case =
                format!("{kind:?} {number} fails with {errno} after {} batches: {said}", life.acks.len());
            assert!(is_failure(said, errno), "{case}");
            stops += u32::from(said.starts_with("stopped"));
            let acknowledged = life.acknowledged(u64::MAX);
            let found = check(&root, bench.seed, acknowledged);
            assert!(found.is_ok(), "{case}: {}", found.unwrap_err());
            println!("{case}");
        }
    }
    assert!(stops >= 4, "only {stops} of 10 failed in a commit");
}

/// A child either was told of the failure by a commit, after which nothing was answered, or could not open or
/// close.
fn is_failure(said: &str, errno: i32) -> bool {
    let named = said.contains(&format!("code: {errno}"));
    let stopped = said.starts_with("stopped [true, true, true, true, true]: Io");
    named && (stopped || said.starts_with("not opened: Io") || said.starts_with("not closed: Io"))
}

#[test]
#[ignore = "the other process of other tests"]
fn writing_child() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(store), Some(acks)) = (variable("STRONGROOM_TEST_STORE"), variable("STRONGROOM_TEST_ACKS"))
    else {
        return;
    };
    let (seed, trace) =
        (variable("STRONGROOM_TEST_SEED").unwrap(), variable("STRONGROOM_TRACE_FILE").unwrap());
    std::thread::spawn(|| {
        std::thread::park_timeout(Duration::from_secs(120));
        println!("CHILD hung");
        std::process::exit(1);
    });
    let mut acks = OpenOptions::new().append(true).open(acks).unwrap();
    match write_batches(Path::new(&store), seed.parse().unwrap(), Path::new(&trace), &mut acks) {
        Ok(()) => println!("CHILD wrote all"),
        Err(said) => println!("CHILD {said}"),
    }
}

fn write_batches(store: &Path, seed: u64, trace: &Path, acks: &mut fs::File) -> Result<(), String> {
    let engine = open(store).map_err(|error| format!("not opened: {error:?}"))?;
    let mut model = Model::after(seed, counted(&all(&engine).unwrap()));
    for _ in 0..BATCHES {
        let batch = model.next();
        match ready(engine.commit(batch)) {
            Ok(CommitOutcome::Committed) => {}
            Ok(CommitOutcome::Conflict(keys)) => panic!("conflict at {keys:?}"),
            Err(error) => return Err(stopped(&engine, &error)),
        }
        writeln!(acks, "{} {}", model.batches, position(trace)).unwrap();
    }
    ready(engine.close()).map_err(|error| format!("not closed: {error:?}"))
}

/// What a failed commit leaves: an engine that answers nothing.
fn stopped(engine: &SledEngine, error: &EngineError) -> String {
    let closed = |result: Result<(), EngineError>| matches!(result, Err(EngineError::Closed));
    let silent = [
        closed(ready(engine.multi_get(&[workload::counter()])).map(drop)),
        closed(ready(engine.scan(ScanRange::prefix(""), 1)).map(drop)),
        closed(ready(engine.commit(strongroom::store::Batch::default())).map(drop)),
        closed(ready(engine.stats()).map(drop)),
        ready(engine.close()).is_ok(),
    ];
    format!("stopped {silent:?}: {error:?}")
}
