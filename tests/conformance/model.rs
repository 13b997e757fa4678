//! Random histories against an ordered map.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use strongroom::store::{Batch, CommitOutcome, Key, Row, RowExpect, ScanRange};

use crate::fixture::{Fixture, at, key, row};

type Model = BTreeMap<Key, Row>;

#[derive(Debug, Clone)]
enum Step {
    Commit { expect: Vec<(Key, Expected)>, put: Vec<(Key, usize)>, delete: Vec<Key> },
    Get(Vec<Key>),
    Scan { range: ScanRange, limit: usize },
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    Absent,
    /// The revision that the model knows, or none where it knows none.
    AsIs,
    Other,
}

/// Few keys, so that histories meet; some are beginnings of others.
fn a_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        (0..6_u8, 0..4_u8).prop_map(|(one, two)| key([one, two])),
        (0..6_u8).prop_map(|one| key([one])),
        Just(key([255, 255])),
    ]
}

fn a_size() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..300_usize, 1 => 16_370..16_390_usize, 1 => 30_000..70_000_usize]
}

fn a_commit() -> impl Strategy<Value = Step> {
    let expected =
        prop_oneof![1 => Just(Expected::Absent), 6 => Just(Expected::AsIs), 1 => Just(Expected::Other)];
    let expect = prop::collection::btree_map(a_key(), expected, 0..3);
    let changes = prop::collection::btree_map(a_key(), prop::option::weighted(0.7, a_size()), 0..6);
    (expect, changes).prop_map(|(expect, changes)| {
        let put = changes.iter().filter_map(|(key, size)| Some((key.clone(), (*size)?))).collect();
        let delete = changes.iter().filter(|(_, size)| size.is_none()).map(|(key, _)| key.clone()).collect();
        Step::Commit { expect: expect.into_iter().collect(), put, delete }
    })
}

fn a_scan() -> impl Strategy<Value = Step> {
    let prefix = prop_oneof![Just(vec![]), (0..6_u8).prop_map(|byte| vec![byte]), Just(vec![255])];
    let bound = || prop::option::of(a_key());
    (prefix, bound(), bound(), any::<bool>(), 0..40_usize).prop_map(
        |(prefix, after, before, descending, limit)| Step::Scan {
            range: ScanRange { prefix, after, before, descending },
            limit,
        },
    )
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => a_commit(),
        4 => prop::collection::vec(a_key(), 0..5).prop_map(Step::Get),
        6 => a_scan(),
        1 => Just(Step::Reopen),
    ]
}

/// What an engine must answer to a scan, from its definition.
fn scanned(model: &Model, range: &ScanRange, limit: usize) -> Vec<(Key, Row)> {
    let within = |key: &&Key| {
        key.as_bytes().starts_with(&range.prefix)
            && range.after.as_ref().is_none_or(|after| *key > after)
            && range.before.as_ref().is_none_or(|before| *key < before)
    };
    let mut found: Vec<_> =
        model.iter().filter(|(key, _)| within(key)).map(|(key, row)| (key.clone(), row.clone())).collect();
    if range.descending {
        found.reverse();
    }
    found.truncate(limit);
    found
}

fn next_revision(model: &Model, key: &Key) -> u64 {
    model.get(key).map_or(1, |row| row.revision().unwrap().get() + 1)
}

fn batch(model: &Model, expect: &[(Key, Expected)], put: &[(Key, usize)], delete: Vec<Key>) -> Batch {
    let expectation = |key: &Key, expected| match expected {
        Expected::Absent => RowExpect::Absent,
        Expected::AsIs => RowExpect::unchanged(model.get(key)),
        Expected::Other => at(next_revision(model, key)),
    };
    let written = |key: &Key, size: usize| {
        let revision = next_revision(model, key);
        row(revision, &vec![(revision as u8) ^ (size as u8); size])
    };
    Batch {
        expect: expect.iter().map(|(key, expected)| (key.clone(), expectation(key, *expected))).collect(),
        put: put.iter().map(|(key, size)| (key.clone(), written(key, *size))).collect(),
        delete,
    }
}

fn commit(store: &Fixture, model: &mut Model, batch: Batch) -> Result<(), TestCaseError> {
    let mut failing: Vec<Key> = batch
        .expect
        .iter()
        .filter(|(key, expected)| !expected.holds(model.get(key)))
        .map(|(key, _)| key.clone())
        .collect();
    failing.sort();
    if !failing.is_empty() {
        prop_assert_eq!(store.conflicts(batch), failing);
        return Ok(());
    }
    prop_assert_eq!(store.commit(batch.clone()).unwrap(), CommitOutcome::Committed);
    model.extend(batch.put);
    for key in &batch.delete {
        model.remove(key);
    }
    Ok(())
}

fn run(mut store: Fixture, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit { expect, put, delete } => {
                let batch = batch(&model, &expect, &put, delete);
                commit(&store, &mut model, batch)?;
            }
            Step::Get(keys) => {
                let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
                prop_assert!(store.read(&keys) == expected);
            }
            Step::Scan { range, limit } => {
                prop_assert!(store.scan(range.clone(), limit) == scanned(&model, &range, limit));
            }
            Step::Reopen => store = store.reopen(),
        }
    }
    store = store.reopen();
    prop_assert!(store.all() == model.into_iter().collect::<Vec<_>>());
    Ok(())
}

fn histories(fixture: fn() -> Fixture, cases: u32) {
    let seed: [u8; 32] = std::array::from_fn(|_| rand_byte());
    println!("seed {seed:?}");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let steps = prop::collection::vec(a_step(), 1..60);
    if let Err(error) = runner.run(&steps, |steps| run(fixture(), steps)) {
        panic!("seed {seed:?}: {error}");
    }
}

fn rand_byte() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as u8
}

#[test]
fn the_memory_engine_follows_the_model() {
    histories(Fixture::memory, 100);
}

#[test]
fn the_faulty_engine_without_faults_follows_the_model() {
    histories(Fixture::faulty, 50);
}

#[test]
fn the_sled_engine_follows_the_model() {
    histories(Fixture::sled, 24);
}
