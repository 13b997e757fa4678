//! The committer against an engine in memory whose commits can be held back and made to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use super::*;
use crate::audit::testing::{Step, TestClock, TestEngine, keys as log_keys};
use crate::audit::{Filter, LogError, LogReader, Operation, Order};
use crate::env::SystemEntropy;
use crate::model::limits::{COMMIT_GROUP, COMMIT_QUEUE};
use crate::model::{Revision, TenantId};
use crate::store::{Row, RowExpect, Table, keys as rows};

struct Fixture {
    engine: Arc<TestEngine>,
    clock: Arc<TestClock>,
    committer: Arc<Committer>,
    log: Arc<LogKeys>,
}

fn tenant(number: u8) -> Arc<LogKeys> {
    Arc::new(log_keys(TenantId([number; 16])))
}

fn start(engine: &Arc<TestEngine>, clock: &Arc<TestClock>) -> Arc<Committer> {
    let engine = Arc::<TestEngine>::clone(engine);
    Committer::start(engine, Arc::<TestClock>::clone(clock), Arc::new(SystemEntropy::new())).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let engine = TestEngine::new();
        let clock = Arc::new(TestClock::default());
        let committer = start(&engine, &clock);
        Self { engine, clock, committer, log: tenant(1) }
    }

    /// Holds the engine with one change in it, so that what comes next gathers into one group.
    async fn hold(&self) -> Commit<'_> {
        self.engine.hold(true);
        let first = self.begin(self.read(0)).await;
        self.engine.began(1).await;
        first
    }

    /// Hands a change to the committer, and does not wait for more than that.
    async fn begin(&self, change: Change) -> Commit<'_> {
        let mut commit: Commit<'_> = Box::pin(self.committer.commit(change));
        let polled = std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "{polled:?}");
        commit
    }

    /// An operation without rows. Its number is kept in the event's `nb.in`.
    fn read(&self, number: u64) -> Change {
        change(&self.log, number, Batch::default())
    }

    /// Writes the revision that follows `revision` (0: the row is absent) to a row.
    fn write(&self, number: u64, name: u8, revision: u64) -> Change {
        change(&self.log, number, update(name, revision))
    }

    fn revision(&self, name: u8) -> u64 {
        self.engine.row(&key(name)).map_or(0, |row| row.revision().unwrap().get())
    }

    /// The numbers of the events in the log, in its order; and the log is sound.
    async fn events(&self, log: &LogKeys) -> Vec<u64> {
        let reader = LogReader::new(Arc::<TestEngine>::clone(&self.engine));
        let verified = reader.verify(log).await.unwrap();
        let mut found = Vec::new();
        while found.len() < usize::try_from(verified.size).unwrap() {
            let from = Some(found.len() as u64);
            let page = reader.search(log, from, Order::OldestFirst, &Filter::ALL, 10_000).await.unwrap();
            found.extend(page.lines.iter().map(|line| number_of(&line.line)));
        }
        found
    }
}

type Commit<'a> = Pin<Box<dyn Future<Output = Result<Receipt, CommitError>> + Send + 'a>>;

fn key(name: u8) -> Key {
    Key::from_stored(vec![b'S', name])
}

fn row(revision: u64) -> Row {
    Row::new(Revision::new(revision).unwrap(), &[])
}

fn expect(revision: u64) -> RowExpect {
    Revision::new(revision).map_or(RowExpect::Absent, RowExpect::Revision)
}

fn update(name: u8, revision: u64) -> Batch {
    Batch {
        expect: vec![(key(name), expect(revision))],
        put: vec![(key(name), row(revision + 1))],
        delete: vec![],
    }
}

fn change(log: &Arc<LogKeys>, number: u64, batch: Batch) -> Change {
    let event = Event { bytes_in: number, ..Event::new(Operation::EntryPut) };
    Change { batch, events: vec![(Arc::clone(log), event)], committed: None }
}

fn number_of(line: &str) -> u64 {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["nb"]["in"].as_u64().unwrap_or(0)
}

fn sequence(answer: Result<Receipt, CommitError>) -> u64 {
    answer.unwrap().sequence
}

/// Numbers without surprise.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn sequence_numbers_are_dense_and_the_receipt_names_log_and_place() {
    let f = Fixture::new();
    for number in 0..5 {
        let receipt = f.committer.commit(f.read(number)).await.unwrap();
        assert_eq!(receipt, Receipt { log: f.log.name(), sequence: number });
    }
    let other = tenant(2);
    let several = Change {
        events: vec![
            (Arc::clone(&f.log), Event::new(Operation::EntryRead)),
            (Arc::clone(&other), Event::new(Operation::EntryRead)),
            (Arc::clone(&f.log), Event::new(Operation::EntryRead)),
        ],
        ..f.read(0)
    };
    let receipt = f.committer.commit(several).await.unwrap();
    assert_eq!(receipt, Receipt { log: f.log.name(), sequence: 6 });
    assert_eq!(f.events(&f.log).await, [0, 1, 2, 3, 4, 0, 0]);
    assert_eq!(f.events(&other).await, [0]);
    assert_eq!(f.log.name().to_string(), format!("sr1/{}/1", "01".repeat(16)));
}

#[tokio::test]
async fn what_waits_becomes_one_group_with_one_block_for_each_log() {
    let f = Fixture::new();
    let first = f.hold().await;
    let mut others = Vec::new();
    for number in 1..=100 {
        others.push(f.begin(f.read(number)).await);
    }
    assert_eq!(f.committer.stats().depth, 100);
    f.engine.hold(false);
    assert_eq!(sequence(first.await), 0);
    for (commit, place) in others.into_iter().zip(1..) {
        assert_eq!(sequence(commit.await), place);
    }
    let stats = f.committer.stats();
    assert_eq!((stats.groups, stats.operations, stats.events, stats.last_group), (2, 101, 101, 100));
    assert_eq!(f.engine.rows.lock().unwrap().len(), 3, "a head and two blocks");
    assert_eq!(f.events(&f.log).await, (0..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_log_has_grown_when_that_is_on_disk_and_not_before() {
    let f = Fixture::new();
    assert!(f.committer.take_grown().is_empty());
    let first = f.hold().await;
    assert!(f.committer.take_grown().is_empty(), "the engine has not answered");
    f.engine.hold(false);
    assert_eq!(sequence(first.await), 0);
    let grown = f.committer.take_grown();
    assert_eq!(grown.keys().collect::<Vec<_>>(), [&f.log.name()]);
    let head = LogReader::new(Arc::<TestEngine>::clone(&f.engine)).head(&f.log).await.unwrap();
    assert_eq!(grown.get(&f.log.name()), Some(head.frontier()));
    assert!(f.committer.take_grown().is_empty());

    f.engine.script.lock().unwrap().push_back(Some(Step::Fail(EngineError::Full)));
    assert_eq!(f.committer.commit(f.read(1)).await, Err(CommitError::AuditUnavailable));
    f.engine.script.lock().unwrap().push_back(Some(Step::ApplyAndFail(EngineError::Closed)));
    assert_eq!(f.committer.commit(f.read(2)).await, Err(CommitError::Unavailable));
    assert!(f.committer.take_grown().is_empty(), "whether it is on disk is not known");
}

#[tokio::test]
async fn complete_bundles_are_folded_with_later_commits_also_by_a_committer_that_finds_the_log() {
    const EVENTS: u64 = 1100;
    let f = Fixture::new();
    for number in 0..EVENTS / 2 {
        sequence(f.committer.commit(f.read(number)).await);
    }
    let folded = async || crate::audit::bundles_folded(&*f.engine, &f.log).await.unwrap();
    assert_eq!(folded().await, 2);
    f.committer.shutdown().await;
    let other = start(&f.engine, &f.clock);
    for number in EVENTS / 2..EVENTS {
        sequence(other.commit(f.read(number)).await);
    }
    assert_eq!(folded().await, 4);
    let left = f.engine.rows.lock().unwrap().keys().filter(|key| is_log_row(key, Table::LogBlock)).count();
    assert_eq!(left as u64, 4 + EVENTS - 4 * 256, "four bundles, and a block for each event after them");
    assert_eq!(f.events(&f.log).await, (0..EVENTS).collect::<Vec<_>>());
    let reader = LogReader::new(Arc::<TestEngine>::clone(&f.engine));
    assert_eq!(reader.verify(&f.log).await.unwrap().size, EVENTS);
}

#[tokio::test]
async fn a_fold_that_lost_against_another_writer_does_not_hold_up_commits() {
    let f = Fixture::new();
    for number in 0..256 {
        sequence(f.committer.commit(f.read(number)).await);
    }
    let block = rows::log_block(f.log.tenant.id, 1, 7);
    f.engine.script.lock().unwrap().push_back(Some(Step::Conflict(block)));
    for number in 256..600 {
        assert_eq!(sequence(f.committer.commit(f.read(number)).await), number);
    }
    assert_eq!(crate::audit::bundles_folded(&*f.engine, &f.log).await.unwrap(), 0);
    assert_eq!(f.events(&f.log).await, (0..600).collect::<Vec<_>>());
}

fn is_log_row(key: &Key, table: Table) -> bool {
    key.as_bytes().first() == Some(&(table as u8))
}

#[tokio::test]
async fn sixty_four_tasks_that_increment_one_row_lose_no_increment() {
    let f = Arc::new(Fixture::new());
    let tasks: Vec<_> = (0..64).map(|_| tokio::spawn(increment(Arc::clone(&f), 20))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(f.revision(1), 64 * 20);
    // Each event has the revision that it wrote as its number: exactly the winners have one, in order.
    assert_eq!(f.events(&f.log).await, (1..=64 * 20).collect::<Vec<_>>());
    let stats = f.committer.stats();
    assert_eq!((stats.operations, stats.events), (64 * 20, 64 * 20));
}

async fn increment(f: Arc<Fixture>, times: u32) {
    for _ in 0..times {
        loop {
            let revision = f.revision(1);
            match f.committer.commit(f.write(revision + 1, 1, revision)).await {
                Ok(_) => break,
                Err(CommitError::Conflict(keys)) => assert_eq!(keys, [key(1)]),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn who_loses_within_a_group_or_against_the_store_leaves_no_event() {
    let f = Fixture::new();
    f.committer.commit(f.write(10, 1, 0)).await.unwrap();
    f.engine.hold(true);
    let first = f.begin(f.read(11)).await;
    f.engine.began(2).await;
    let winner = f.begin(f.write(12, 1, 1)).await;
    let beaten = f.begin(f.write(13, 1, 1)).await;
    let stale = f.begin(f.write(14, 2, 7)).await;
    let reader = f.begin(f.read(15)).await;
    f.engine.hold(false);
    assert_eq!(sequence(first.await), 1);
    assert_eq!(sequence(winner.await), 2);
    assert_eq!(beaten.await, Err(CommitError::Conflict(vec![key(1)])));
    assert_eq!(stale.await, Err(CommitError::Conflict(vec![key(2)])));
    assert_eq!(sequence(reader.await), 3);
    assert_eq!((f.revision(1), f.revision(2)), (2, 0));
    assert_eq!(f.events(&f.log).await, [10, 11, 12, 15]);
    assert_eq!(f.committer.stats().conflicts, 2);
}

#[tokio::test]
async fn who_was_beaten_by_a_change_that_itself_lost_is_staged_again() {
    let f = Fixture::new();
    let first = f.hold().await;
    let doomed = Batch { expect: vec![(key(1), expect(0)), (key(2), expect(9))], ..update(1, 0) };
    let doomed = f.begin(change(&f.log, 1, doomed)).await;
    let second = f.begin(f.write(2, 1, 0)).await;
    f.engine.hold(false);
    first.await.unwrap();
    assert_eq!(doomed.await, Err(CommitError::Conflict(vec![key(2)])));
    assert_eq!(sequence(second.await), 1);
    assert_eq!(f.events(&f.log).await, [0, 2]);
}

#[tokio::test]
async fn of_two_that_rely_on_different_stored_revisions_the_right_one_wins_in_any_order() {
    for right_first in [true, false] {
        let f = Fixture::new();
        let first = f.hold().await;
        let rely = |revision| Batch { expect: vec![(key(1), expect(revision))], ..Batch::default() };
        let order = if right_first { [0, 3] } else { [3, 0] };
        let one = f.begin(change(&f.log, order[0], rely(order[0]))).await;
        let two = f.begin(change(&f.log, order[1], rely(order[1]))).await;
        f.engine.hold(false);
        first.await.unwrap();
        let (right, wrong) = if right_first { (one, two) } else { (two, one) };
        assert_eq!(sequence(right.await), 1);
        assert_eq!(wrong.await, Err(CommitError::Conflict(vec![key(1)])));
        assert_eq!(f.events(&f.log).await, [0, 0]);
    }
}

#[tokio::test]
async fn callbacks_run_in_the_order_of_the_log_and_before_any_answer_of_the_group() {
    let f = Fixture::new();
    let first = f.hold().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut commits = Vec::new();
    for number in 0..50 {
        let seen = Arc::clone(&order);
        let committed: Box<dyn FnOnce() + Send> = Box::new(move || seen.lock().unwrap().push(number));
        // Every third one loses: it relies on a row that is not there.
        let batch = if number % 3 == 0 { update(9, 5) } else { Batch::default() };
        commits.push(f.begin(Change { committed: Some(committed), ..change(&f.log, number, batch) }).await);
    }
    f.engine.hold(false);
    first.await.unwrap();
    let winners: Vec<u64> = (0..50).filter(|number| number % 3 != 0).collect();
    let mut answers = commits.into_iter().zip(0..50_u64);
    let (second, _) = answers.nth(1).unwrap();
    assert_eq!(sequence(second.await), 1);
    assert_eq!(*order.lock().unwrap(), winners);
    for (commit, number) in answers {
        assert_eq!(commit.await.is_ok(), number % 3 != 0);
    }
    assert_eq!(f.events(&f.log).await[1..], winners);
}

#[tokio::test]
async fn a_change_withdrawn_before_it_is_staged_is_not_committed_and_after_that_as_a_whole() {
    let f = Fixture::new();
    f.engine.hold(true);
    let staged = f.begin(f.write(1, 1, 0)).await;
    f.engine.began(1).await;
    let waiting = f.begin(f.write(2, 2, 0)).await;
    let stays = f.begin(f.write(3, 3, 0)).await;
    drop((staged, waiting));
    f.engine.hold(false);
    assert_eq!(sequence(stays.await), 1);
    assert_eq!((f.revision(1), f.revision(2), f.revision(3)), (1, 0, 1));
    assert_eq!(f.events(&f.log).await, [1, 3]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_goes_on_when_it_is_empty() {
    let f = Fixture::new();
    let mut commits = vec![f.hold().await];
    for number in 0..COMMIT_QUEUE as u64 {
        commits.push(f.begin(f.read(number)).await);
    }
    assert_eq!(f.committer.commit(f.read(0)).await, Err(CommitError::Overloaded));
    assert_eq!(f.committer.stats().overloaded, 1);
    f.engine.hold(false);
    for (commit, place) in commits.into_iter().zip(0..) {
        assert_eq!(sequence(commit.await), place);
    }
    let stats = f.committer.stats();
    assert_eq!(stats.last_group, COMMIT_GROUP as u64);
    assert_eq!(stats.groups, 1 + (COMMIT_QUEUE / COMMIT_GROUP) as u64);
    f.committer.commit(f.read(0)).await.unwrap();
}

#[tokio::test]
async fn a_change_without_an_event_is_refused() {
    let f = Fixture::new();
    let silent = Change { events: vec![], ..f.write(1, 1, 0) };
    assert_eq!(f.committer.commit(silent).await, Err(CommitError::Malformed(ChangeError::NoEvent)));
    assert_eq!(f.revision(1), 0);
}

#[tokio::test]
async fn shutdown_commits_what_waits_and_takes_nothing_more() {
    let f = Fixture::new();
    let mut commits = vec![f.hold().await];
    for number in 1..=20 {
        commits.push(f.begin(f.read(number)).await);
    }
    let mut shutdown = Box::pin(f.committer.shutdown());
    let polled = std::future::poll_fn(|context| Poll::Ready(shutdown.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    assert_eq!(f.committer.commit(f.read(0)).await, Err(CommitError::Unavailable));
    f.engine.hold(false);
    shutdown.await;
    for (commit, place) in commits.into_iter().zip(0..) {
        assert_eq!(sequence(commit.await), place);
    }
    f.committer.shutdown().await;
    assert_eq!(f.events(&f.log).await, (0..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_committer_goes_on_with_the_log_and_its_times_never_go_back() {
    let f = Fixture::new();
    f.clock.0.store(5000, Ordering::SeqCst);
    f.committer.commit(f.read(0)).await.unwrap();
    f.committer.shutdown().await;
    f.clock.0.store(3000, Ordering::SeqCst);
    let second = start(&f.engine, &f.clock);
    assert_eq!(sequence(second.commit(f.read(1)).await), 1);
    f.clock.0.store(6000, Ordering::SeqCst);
    assert_eq!(sequence(second.commit(f.read(2)).await), 2);
    assert_eq!(f.events(&f.log).await, [0, 1, 2]);
    let reader = LogReader::new(Arc::<TestEngine>::clone(&f.engine));
    let page = reader.search(&f.log, None, Order::OldestFirst, &Filter::ALL, 10).await.unwrap();
    for (line, time) in page.lines.iter().zip([5000, 5000, 6000]) {
        assert!(line.line.contains(&format!("\"ts\":{time},")), "{}", line.line);
    }
}

#[tokio::test]
async fn a_full_volume_fails_the_group_by_name_and_the_committer_goes_on() {
    let f = Fixture::new();
    let first = f.hold().await;
    let write = f.begin(f.write(1, 1, 0)).await;
    let beaten = f.begin(f.write(2, 1, 0)).await;
    let read = f.begin(f.read(3)).await;
    let full = || Some(Step::Fail(EngineError::Full));
    f.engine.script.lock().unwrap().extend([None, full()]);
    f.engine.hold(false);
    first.await.unwrap();
    assert_eq!(write.await, Err(CommitError::Full));
    assert_eq!(beaten.await, Err(CommitError::Full));
    assert_eq!(read.await, Err(CommitError::AuditUnavailable));
    assert_eq!(sequence(f.committer.commit(f.write(4, 1, 0)).await), 1);
    f.engine.script.lock().unwrap().push_back(Some(Step::Fail(EngineError::Busy)));
    assert_eq!(f.committer.commit(f.read(5)).await, Err(CommitError::Unavailable));
    assert_eq!(sequence(f.committer.commit(f.read(6)).await), 2);
    assert_eq!(f.events(&f.log).await, [0, 4, 6]);
}

#[tokio::test]
async fn an_engine_error_at_any_commit_stops_the_committer_and_a_restart_finds_a_sound_log() {
    for at in 0..4_u64 {
        for applied in [false, true] {
            let f = Fixture::new();
            let error = EngineError::Io { operation: "test", source: std::io::ErrorKind::Other.into() };
            let step = if applied { Step::ApplyAndFail(error) } else { Step::Fail(error) };
            let script = (0..at).map(|_| None).chain([Some(step)]);
            f.engine.script.lock().unwrap().extend(script);
            for number in 0..at {
                f.committer.commit(f.write(number, 1, number)).await.unwrap();
            }
            let failed = f.committer.commit(f.write(at, 1, at)).await;
            assert_eq!(failed, Err(CommitError::Unavailable));
            let fault = f.committer.fault().await;
            assert!(matches!(&fault, Fault::Engine(error) if matches!(**error, EngineError::Io { .. })));
            assert_eq!(f.committer.commit(f.read(99)).await, Err(CommitError::Unavailable));
            f.committer.shutdown().await;

            let done = at + u64::from(applied);
            assert_eq!(f.revision(1), done);
            let second = start(&f.engine, &f.clock);
            assert_eq!(sequence(second.commit(f.write(done, 1, done)).await), done);
            assert_eq!(f.events(&f.log).await, (0..=done).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn after_a_fault_all_that_wait_learn_that_there_is_no_answer() {
    let f = Fixture::new();
    let first = f.hold().await;
    let waiting = f.begin(f.read(1)).await;
    f.engine.script.lock().unwrap().push_back(Some(Step::Fail(EngineError::Closed)));
    f.engine.hold(false);
    assert_eq!(first.await, Err(CommitError::Unavailable));
    assert_eq!(waiting.await, Err(CommitError::Unavailable));
    f.committer.shutdown().await;
}

#[tokio::test]
async fn a_commit_that_is_stuck_is_a_fault_and_its_callers_are_told() {
    let engine = TestEngine::new();
    let committer = Committer::start_watched(
        Arc::<TestEngine>::clone(&engine),
        Arc::new(TestClock::default()),
        Arc::new(SystemEntropy::new()),
        Duration::from_millis(100),
    )
    .unwrap();
    engine.hold(true);
    let f = Fixture { engine, clock: Arc::default(), committer, log: tenant(1) };
    let first = f.begin(f.read(0)).await;
    f.engine.began(1).await;
    let waiting = f.begin(f.read(1)).await;
    assert!(matches!(f.committer.fault().await, Fault::Stuck));
    assert_eq!(f.committer.stats().depth, 0);
    assert_eq!(first.await, Err(CommitError::Unavailable));
    assert_eq!(waiting.await, Err(CommitError::Unavailable));
    f.committer.shutdown().await;
    assert_eq!(f.committer.commit(f.read(2)).await, Err(CommitError::Unavailable));
}

#[tokio::test]
async fn a_panic_in_a_callback_and_nonsense_from_the_engine_are_faults() {
    let f = Fixture::new();
    let committed: Box<dyn FnOnce() + Send> = Box::new(|| panic!("a test panics in the committer"));
    let answer = f.committer.commit(Change { committed: Some(committed), ..f.read(0) }).await;
    assert_eq!(answer, Err(CommitError::Unavailable));
    assert!(matches!(f.committer.fault().await, Fault::Panicked));

    let f = Fixture::new();
    f.engine.script.lock().unwrap().push_back(Some(Step::Conflict(key(200))));
    assert_eq!(f.committer.commit(f.read(0)).await, Err(CommitError::Unavailable));
    assert!(matches!(f.committer.fault().await, Fault::Nonsense));
}

#[tokio::test]
async fn a_head_that_does_not_open_closes_its_log_alone() {
    let f = Fixture::new();
    let head = rows::log_head(f.log.tenant.id);
    f.engine.rows.lock().unwrap().insert(head, row(1));
    let first = f.hold_other().await;
    let read = f.begin(f.read(1)).await;
    let write = f.begin(f.write(2, 1, 0)).await;
    let other = f.begin(change(&tenant(2), 3, update(2, 0))).await;
    f.engine.hold(false);
    first.await.unwrap();
    assert_eq!(read.await, Err(CommitError::AuditUnavailable));
    assert_eq!(write.await, Err(CommitError::AuditUnavailable));
    other.await.unwrap();
    assert_eq!((f.revision(1), f.revision(2)), (0, 1));
    assert_eq!(f.committer.stats().log_failures, 1);
}

impl Fixture {
    /// As `hold`, with a change to another log.
    async fn hold_other(&self) -> Commit<'_> {
        self.engine.hold(true);
        let first = self.begin(change(&tenant(2), 0, Batch::default())).await;
        self.engine.began(1).await;
        first
    }
}

#[tokio::test]
async fn a_log_whose_head_was_set_back_is_closed_and_nothing_is_overwritten() {
    let f = Fixture::new();
    let head = rows::log_head(f.log.tenant.id);
    f.committer.commit(f.read(0)).await.unwrap();
    let older = f.engine.row(&head).unwrap();
    f.committer.commit(f.read(1)).await.unwrap();
    f.committer.shutdown().await;
    f.engine.rows.lock().unwrap().insert(head, older);
    let before = f.engine.rows.lock().unwrap().clone();
    let second = start(&f.engine, &f.clock);
    assert_eq!(second.commit(f.write(2, 1, 0)).await, Err(CommitError::AuditUnavailable));
    assert_eq!(second.commit(f.read(2)).await, Err(CommitError::AuditUnavailable));
    assert!(*f.engine.rows.lock().unwrap() == before);
    assert_eq!(second.stats().log_failures, 2);
    let reader = LogReader::new(Arc::<TestEngine>::clone(&f.engine));
    assert!(matches!(reader.verify(&f.log).await, Err(LogError::Damaged { sequence: 1 })));
}

#[tokio::test]
async fn two_committers_on_one_engine_share_a_log_without_loss() {
    let f = Arc::new(Fixture::new());
    let second = Fixture {
        engine: Arc::clone(&f.engine),
        clock: Arc::default(),
        committer: start(&f.engine, &f.clock),
        log: tenant(1),
    };
    let second = Arc::new(second);
    let tasks = [Arc::clone(&f), second]
        .into_iter()
        .flat_map(|f| (0..4).map(move |_| tokio::spawn(increment(Arc::clone(&f), 50))));
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(f.events(&f.log).await, (1..=400).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_later_epoch_begins_a_new_log_and_ends_the_one_before() {
    let f = Fixture::new();
    f.committer.commit(f.read(1)).await.unwrap();
    let later = Arc::new(LogKeys { epoch: 2, ..log_keys(f.log.tenant.id) });
    let first = f.hold_other().await;
    let stale = f.begin(f.read(2)).await;
    let fresh = f.begin(change(&later, 3, Batch::default())).await;
    f.engine.hold(false);
    first.await.unwrap();
    let head = rows::log_head(f.log.tenant.id);
    assert_eq!(stale.await, Err(CommitError::Conflict(vec![head.clone()])));
    assert_eq!(fresh.await, Ok(Receipt { log: later.name(), sequence: 1 }));
    assert_eq!(f.committer.commit(f.read(4)).await, Err(CommitError::Conflict(vec![head])));
    assert_eq!(f.events(&later).await, [0, 3]);
}

#[tokio::test]
async fn progress_tells_of_each_group() {
    let f = Fixture::new();
    let mut progress = f.committer.progress();
    assert_eq!(*progress.borrow_and_update(), 0);
    f.committer.commit(f.read(0)).await.unwrap();
    progress.changed().await.unwrap();
    assert_eq!(*progress.borrow_and_update(), 1);
}

/// What a seeded run has seen: which operations were said to be done, in which order, and which were said not to be.
#[derive(Default)]
struct Seen {
    committed: Mutex<Vec<(u64, Batch)>>,
    acknowledged: Mutex<BTreeMap<u64, u64>>,
    refused: Mutex<BTreeSet<u64>>,
    next: AtomicU64,
}

const ROWS: u64 = 80;

/// Thousands of commits of every kind from many tasks: reads, writes with and without expectation, deletions, several rows
/// at once, callers that go away. The store must be what the callbacks say, row by row; the log must hold exactly the
/// operations whose callback ran, in their order; what was acknowledged is among them, what was refused is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_of_every_kind_agree_with_a_model() {
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let f = Arc::new(Fixture::new());
        let seen = Arc::new(Seen::default());
        let tasks = (0..48).map(|task| {
            tokio::spawn(some_commits(Arc::clone(&f), Arc::clone(&seen), Dice(seed * 1000 + task), 100))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        f.committer.shutdown().await;
        check(&f, &seen).await;
    }
}

async fn some_commits(f: Arc<Fixture>, seen: Arc<Seen>, mut dice: Dice, count: u64) {
    for _ in 0..count {
        let number = seen.next.fetch_add(1, Ordering::SeqCst);
        let batch = some_batch(&f, &mut dice);
        let (witness, copy) = (Arc::clone(&seen), batch.clone());
        let committed: Box<dyn FnOnce() + Send> =
            Box::new(move || witness.committed.lock().unwrap().push((number, copy)));
        let change = Change { committed: Some(committed), ..change(&f.log, number, batch) };
        let mut commit = Box::pin(f.committer.commit(change));
        let answer = if dice.roll(10) == 0 {
            // Asks once and goes away, unless the answer is there already.
            match std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await {
                Poll::Ready(answer) => answer,
                Poll::Pending => continue,
            }
        } else {
            commit.await
        };
        match answer {
            Ok(receipt) => drop(seen.acknowledged.lock().unwrap().insert(number, receipt.sequence)),
            Err(CommitError::Conflict(_)) => drop(seen.refused.lock().unwrap().insert(number)),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn some_batch(f: &Fixture, dice: &mut Dice) -> Batch {
    let mut batch = Batch::default();
    let mut names: Vec<u8> = (0..=dice.roll(3)).map(|_| u8::try_from(dice.roll(ROWS)).unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    let kind = dice.roll(8);
    for name in names {
        let revision = f.revision(name);
        match kind {
            // Reads, some of which rely on what they saw.
            0 => {}
            1 => batch.expect.push((key(name), expect(revision))),
            // Deletions.
            2 => {
                batch.expect.push((key(name), expect(revision)));
                batch.delete.push(key(name));
            }
            // Writes without expectation, of something that nobody else writes.
            3 => batch.put.push((key(name), row(1_000_000 + dice.roll(1 << 30)))),
            _ => {
                batch.expect.push((key(name), expect(revision)));
                batch.put.push((key(name), row(revision + 1)));
            }
        }
    }
    batch
}

async fn check(f: &Fixture, seen: &Seen) {
    let committed = seen.committed.lock().unwrap().split_off(0);
    let order: Vec<u64> = committed.iter().map(|(number, _)| *number).collect();
    assert_eq!(f.events(&f.log).await, order, "the log holds what was committed, in that order");

    let mut model: BTreeMap<Key, Row> = BTreeMap::new();
    for (number, batch) in &committed {
        for (key, expect) in &batch.expect {
            assert!(expect.holds(model.get(key)), "operation {number} relied on {key:?} being {expect:?}");
        }
        batch.delete.iter().for_each(|key| drop(model.remove(key)));
        model.extend(batch.put.iter().cloned());
    }
    let stored = f.engine.rows.lock().unwrap().clone();
    let stored: BTreeMap<Key, Row> =
        stored.into_iter().filter(|(key, _)| key.as_bytes().starts_with(b"S")).collect();
    assert!(stored == model, "the store is what the commits in their order make");

    let places: BTreeMap<u64, u64> = order.iter().copied().zip(0..).collect();
    let acknowledged = seen.acknowledged.lock().unwrap();
    for (number, sequence) in &*acknowledged {
        assert_eq!(places.get(number), Some(sequence), "operation {number} has its event where it was told");
    }
    let refused = seen.refused.lock().unwrap();
    assert!(refused.iter().all(|number| !places.contains_key(number)), "who lost has no event");
    assert!(acknowledged.len() > 1000 && refused.len() > 50, "{} {}", acknowledged.len(), refused.len());
    assert_eq!(f.committer.stats().operations, places.len() as u64);
}
