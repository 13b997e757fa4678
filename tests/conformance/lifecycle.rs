//! From open to close and back.

use strongroom::store::{Batch, EngineError, ScanRange};

use crate::fixture::{Fixture, key, ready, row};

crate::over_every_engine!(a_closed_engine_answers_nothing_and_closes_again, an_engine_says_what_it_is,);

fn a_closed_engine_answers_nothing_and_closes_again(store: &Fixture) {
    store.put(&[(key("k"), row(1, b""))]);
    ready(store.engine.close()).unwrap();
    ready(store.engine.close()).unwrap();
    assert!(matches!(ready(store.engine.multi_get(&[key("k")])), Err(EngineError::Closed)));
    assert!(matches!(ready(store.engine.scan(ScanRange::prefix(""), 1)), Err(EngineError::Closed)));
    assert!(matches!(ready(store.engine.commit(Batch::default())), Err(EngineError::Closed)));
    assert!(matches!(ready(store.engine.stats()), Err(EngineError::Closed)));
}

fn an_engine_says_what_it_is(store: &Fixture) {
    store.put(&[(key("a"), row(1, &[7; 100_000])), (key("b"), row(1, b""))]);
    store.put(&[(key("b"), row(2, b""))]);
    let stats = ready(store.engine.stats()).unwrap();
    assert_eq!(stats.rows, 2);
    assert_eq!(stats.disk_bytes > 100_000, store.directory.is_some());
    assert!(!store.engine.name().is_empty());
}
