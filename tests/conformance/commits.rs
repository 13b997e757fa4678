//! Batches: applied whole or not at all, under their expectations, one after the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use strongroom::store::{Batch, CommitOutcome, Key, RowExpect};

use crate::fixture::{Fixture, at, key, ready, row};

crate::over_every_engine!(
    a_batch_puts_and_deletes_together,
    an_expectation_that_holds_lets_the_batch_through,
    every_failing_expectation_is_named_and_nothing_is_applied,
    a_deleted_row_is_absent_again,
    an_empty_batch_is_committed,
    expectations_alone_change_nothing,
    concurrent_increments_lose_nothing,
    a_reader_never_sees_half_a_batch,
    a_control_row_is_never_older_than_a_finished_commit,
);

fn a_batch_puts_and_deletes_together(store: &Fixture) {
    store.put(&[(key("a"), row(1, b"a")), (key("b"), row(1, b"b"))]);
    let batch = Batch {
        put: vec![(key("c"), row(1, b"c")), (key("b"), row(2, b"B"))],
        delete: vec![key("a"), key("never there")],
        ..Batch::default()
    };
    assert_eq!(store.commit(batch).unwrap(), CommitOutcome::Committed);
    let found = store.read(&[key("a"), key("b"), key("c"), key("d"), key("b")]);
    assert_eq!(found, [None, Some(row(2, b"B")), Some(row(1, b"c")), None, Some(row(2, b"B"))]);
    assert_eq!(ready(store.engine.stats()).unwrap().rows, 2);
}

fn an_expectation_that_holds_lets_the_batch_through(store: &Fixture) {
    let create = Batch {
        expect: vec![(key("k"), RowExpect::Absent)],
        put: vec![(key("k"), row(1, b""))],
        ..Batch::default()
    };
    assert_eq!(store.commit(create).unwrap(), CommitOutcome::Committed);
    let change = Batch {
        expect: vec![(key("k"), at(1)), (key("other"), RowExpect::Absent)],
        put: vec![(key("k"), row(2, b""))],
        ..Batch::default()
    };
    assert_eq!(store.commit(change).unwrap(), CommitOutcome::Committed);
    assert_eq!(store.read_one(&key("k")), Some(row(2, b"")));
}

fn every_failing_expectation_is_named_and_nothing_is_applied(store: &Fixture) {
    store.put(&[(key("a"), row(3, b"a")), (key("b"), row(1, b"b"))]);
    let before = store.all();
    let batch = Batch {
        expect: vec![
            (key("a"), at(2)),
            (key("b"), at(1)),
            (key("b2"), RowExpect::Absent),
            (key("c"), at(1)),
            (key("b"), RowExpect::Absent),
        ],
        put: vec![(key("a"), row(4, b"A")), (key("d"), row(1, b"d"))],
        delete: vec![key("b")],
    };
    assert_eq!(store.conflicts(batch), [key("a"), key("b"), key("c")]);
    assert_eq!(store.all(), before);
}

fn a_deleted_row_is_absent_again(store: &Fixture) {
    store.put(&[(key("k"), row(1, b""))]);
    store.delete(&[key("k")]);
    store.delete(&[key("k")]);
    assert_eq!(store.read_one(&key("k")), None);
    let create = Batch {
        expect: vec![(key("k"), RowExpect::Absent)],
        put: vec![(key("k"), row(9, b""))],
        ..Batch::default()
    };
    assert_eq!(store.commit(create).unwrap(), CommitOutcome::Committed);
    assert_eq!(store.read_one(&key("k")), Some(row(9, b"")));
}

fn an_empty_batch_is_committed(store: &Fixture) {
    assert_eq!(store.commit(Batch::default()).unwrap(), CommitOutcome::Committed);
    assert_eq!(store.all(), []);
    assert_eq!(store.read(&[]), []);
}

fn expectations_alone_change_nothing(store: &Fixture) {
    store.put(&[(key("k"), row(1, b""))]);
    let holds = Batch { expect: vec![(key("k"), at(1))], ..Batch::default() };
    assert_eq!(store.commit(holds).unwrap(), CommitOutcome::Committed);
    let fails = Batch { expect: vec![(key("k"), at(2))], ..Batch::default() };
    assert_eq!(store.conflicts(fails), [key("k")]);
    assert_eq!(store.all(), [(key("k"), row(1, b""))]);
}

const THREADS: u64 = 4;
const INCREMENTS: u64 = 25;

fn concurrent_increments_lose_nothing(store: &Fixture) {
    let conflicts = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..INCREMENTS).for_each(|_| while !increment(store, &conflicts) {}));
        }
    });
    let counted = store.read_one(&key("counter")).unwrap().revision().unwrap().get();
    assert_eq!(counted, THREADS * INCREMENTS, "with {} conflicts", conflicts.into_inner());
}

fn increment(store: &Fixture, conflicts: &AtomicU64) -> bool {
    let now = store.read_one(&key("counter"));
    let next = now.as_ref().map_or(1, |row| row.revision().unwrap().get() + 1);
    let batch = Batch {
        expect: vec![(key("counter"), RowExpect::unchanged(now.as_ref()))],
        put: vec![(key("counter"), row(next, b""))],
        ..Batch::default()
    };
    match store.commit(batch).unwrap() {
        CommitOutcome::Committed => true,
        CommitOutcome::Conflict(_) => {
            conflicts.fetch_add(1, Ordering::Relaxed);
            false
        }
    }
}

/// Rows of many pages and of many chunks, all of one revision.
fn a_reader_never_sees_half_a_batch(store: &Fixture) {
    let keys: Vec<Key> = (0..40).map(|number| key(format!("row {number:02}"))).collect();
    let batch = |number: u64| {
        let size = |index: usize| if index == 20 { 100_000 } else { 100 };
        let rows = keys.iter().enumerate();
        rows.map(|(index, key)| (key.clone(), row(number, &vec![number as u8; size(index)])))
            .collect::<Vec<_>>()
    };
    store.put(&batch(1));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (2..60).for_each(|number| store.put(&batch(number)));
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let found = store.read(&keys);
            let first = found[0].clone().unwrap().revision().unwrap().get();
            let expected: Vec<_> = batch(first).into_iter().map(|(_, row)| Some(row)).collect();
            assert!(found == expected, "a read saw revision {first} and others");
            let scanned = store.all();
            let first = scanned[0].1.revision().unwrap().get();
            assert!(scanned == batch(first), "a scan saw revision {first} and others");
        }
    });
}

fn a_control_row_is_never_older_than_a_finished_commit(store: &Fixture) {
    let tenant = strongroom::store::keys::tenant(strongroom::model::TenantId([7; 16]));
    // Many other control rows, so that this one is forgotten and read from the tree again and again.
    let others: Vec<Key> =
        (0..200).map(|id| strongroom::store::keys::tenant(strongroom::model::TenantId([id; 16]))).collect();
    let rows: Vec<_> = others.iter().map(|key| (key.clone(), row(1, b"other"))).collect();
    store.put(&rows);
    let finished = AtomicU64::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 2..=200 {
                store.put(&[(tenant.clone(), row(number, b""))]);
                finished.store(number, Ordering::SeqCst);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while finished.load(Ordering::SeqCst) < 200 {
                    store.read(&others);
                    let at_least = finished.load(Ordering::SeqCst);
                    let found = store.read_one(&tenant).unwrap().revision().unwrap().get();
                    assert!(found >= at_least, "read revision {found} after {at_least} was committed");
                }
            });
        }
    });
}
