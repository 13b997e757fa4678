//! The faults that the faulty engine injects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::store::{
    Batch, CommitOutcome, Effect, EngineError, Failure, Fault, Faulty, Hook, MemoryEngine, Operation, Row,
    ScanRange, StorageEngine,
};

use crate::fixture::{key, ready, row};

fn faulty(operation: Operation, number: impl Into<Option<u64>>, effect: Effect) -> Faulty<MemoryEngine> {
    Faulty::new(MemoryEngine::new()).with(Fault { operation, number: number.into(), effect })
}

fn put(name: &str) -> Batch {
    Batch { put: vec![(key(name), row(1, b""))], ..Batch::default() }
}

fn found(engine: &impl StorageEngine, name: &str) -> Option<Row> {
    ready(engine.multi_get(&[key(name)])).unwrap().remove(0)
}

#[test]
fn a_fault_hits_the_call_it_names_and_no_other() {
    let engine = faulty(Operation::Scan, 2, Effect::Fail(Failure::Busy));
    let scan = || ready(engine.scan(ScanRange::prefix(""), 1));
    assert!(scan().is_ok());
    assert!(matches!(scan(), Err(EngineError::Busy)));
    assert!(scan().is_ok());
    assert_eq!(ready(engine.commit(put("a"))).unwrap(), CommitOutcome::Committed);
    assert_eq!((engine.calls(Operation::Scan), engine.calls(Operation::Commit)), (3, 1));
}

#[test]
fn a_failed_commit_is_applied_only_where_the_script_says_so() {
    for (effect, applied) in [(Effect::Fail(Failure::Full), false), (Effect::FailAfter(Failure::Full), true)]
    {
        let engine = faulty(Operation::Commit, 1, effect);
        assert!(matches!(ready(engine.commit(put("a"))), Err(EngineError::Full)));
        assert_eq!(found(&engine, "a").is_some(), applied);
        assert_eq!(ready(engine.commit(put("b"))).unwrap(), CommitOutcome::Committed);
    }
}

#[test]
fn a_commit_that_fails_for_good_closes_the_engine() {
    for failure in [Failure::Io(std::io::ErrorKind::StorageFull), Failure::Corrupt, Failure::Closed] {
        let engine = faulty(Operation::Commit, 1, Effect::Fail(failure));
        let error = ready(engine.commit(put("a"))).unwrap_err();
        match failure {
            Failure::Io(kind) => {
                assert!(matches!(error, EngineError::Io { source, .. } if source.kind() == kind))
            }
            Failure::Corrupt => assert!(matches!(error, EngineError::Corrupt { .. })),
            Failure::Full | Failure::Busy | Failure::Closed => assert!(matches!(error, EngineError::Closed)),
        }
        assert!(matches!(ready(engine.multi_get(&[key("a")])), Err(EngineError::Closed)));
        assert!(matches!(ready(engine.stats()), Err(EngineError::Closed)));
        ready(engine.close()).unwrap();
    }
}

#[test]
fn every_call_fails_until_the_engine_is_healed() {
    let engine = faulty(Operation::MultiGet, None, Effect::Fail(Failure::Io(std::io::ErrorKind::Other)));
    for _ in 0..3 {
        assert!(matches!(ready(engine.multi_get(&[])), Err(EngineError::Io { .. })));
    }
    engine.heal();
    assert_eq!(ready(engine.multi_get(&[])).unwrap(), []);
}

#[test]
fn a_hook_is_waited_for_and_told_the_call() {
    let seen = Arc::new(AtomicU64::new(0));
    let hook: Hook = {
        let seen = Arc::clone(&seen);
        Arc::new(move |call| {
            seen.fetch_add(call.number, Ordering::SeqCst);
            Box::pin(std::future::ready(()))
        })
    };
    let engine = faulty(Operation::Stats, 2, Effect::Wait(hook));
    for _ in 0..3 {
        assert_eq!(ready(engine.stats()).unwrap().rows, 0);
    }
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    let never = faulty(Operation::Commit, 1, Effect::Wait(Arc::new(|_| Box::pin(std::future::pending()))));
    let waiting = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ready(never.commit(put("a")))));
    assert!(waiting.is_err() && found(&never, "a").is_none());
}
