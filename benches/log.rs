//! What does it cost to find something in a long access log, and to check all of it?
//!
//! A log of a million events on the embedded engine, as 5,000 sessions with 64 entries each leave one, in commits of 256 events.
//! `search/session` finds the three events of a session that has no others, `search/operation` the one event of a rare
//! operation, `search/none` nothing: each reads all of the index, and opens the bundles that may hold it. `verify` computes the
//! tree anew from all lines. `roots` is what the first proof after a start reads.
//!
//! Expectation: 61 pages of the index, about 3 MB to open and look through, below 5 ms; 500,000 lines a second in `verify`,
//! which is SHA-256 and AES of 400 bytes each.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strongroom::audit::{
    Actor, Event, Filter, LogKeys, LogReader, Operation, OperationSet, Order, Resource, bundles_folded,
};
use strongroom::commit::{Change, Committer};
use strongroom::crypto::{AuditKey, KeyId, PseudonymKey};
use strongroom::env::{SystemClock, SystemEntropy};
use strongroom::model::{KekVersion, Revision, Scope, StoreId, TenantId, TenantRef};
use strongroom::store::{Batch, SledEngine, SledOptions, StorageEngine};

type Failed = Box<dyn std::error::Error>;

const EVENTS: u64 = 1_000_000;
const COMMIT: u64 = 256;
const SESSIONS: u64 = 5_000;
const ENTRIES: u64 = 64;
const RARE: [u64; 3] = [1_000, 400_000, 900_000];
const DESTROYED: u64 = 500_000;

fn keys() -> Result<Arc<LogKeys>, Failed> {
    let entropy = SystemEntropy::new();
    Ok(Arc::new(LogKeys {
        store: StoreId([1; 16]),
        tenant: TenantRef { id: TenantId([2; 16]), incarnation: 1 },
        epoch: 1,
        audit: Arc::new(AuditKey::generate(&entropy)?),
        pseudonym: Arc::new(PseudonymKey::generate(&entropy)?),
        pseudonym_version: 1,
    }))
}

/// The event of that number: a read as a server writes it.
fn event(keys: &LogKeys, number: u64) -> Event {
    let session =
        if RARE.contains(&number) { SESSIONS } else { number.wrapping_mul(2_654_435_761) % SESSIONS };
    let name = |domain, value: u64| Some(keys.pseudonym(domain, &[&value.to_be_bytes()]));
    let operation = if number == DESTROYED { Operation::KeyDestroy } else { Operation::EntryRead };
    let resource =
        Resource { name: name("entry", number % ENTRIES), revision: Some(Revision::FIRST), items: 0 };
    Event {
        actor: name("principal", number % 3).map(Actor::Token),
        owner: name("owner", session / 4),
        session: name("session", session),
        resource: Some(resource),
        bytes_out: 800,
        dek: Some(KeyId([7; 16])),
        kek: Some(KekVersion(1)),
        scope: Some(Scope::Read),
        trace: Some([5; 16]),
        request: Some([6; 16]),
        micros: Some(90),
        ..Event::new(operation)
    }
}

async fn fill(keys: &Arc<LogKeys>, engine: &Arc<dyn StorageEngine>) -> Result<(), Failed> {
    let clock = Arc::new(SystemClock::new());
    let committer = Committer::start(Arc::clone(engine), clock, Arc::new(SystemEntropy::new()))?;
    for first in (0..EVENTS).step_by(256) {
        let events =
            (first..EVENTS.min(first + COMMIT)).map(|number| (Arc::clone(keys), event(keys, number)));
        let change = Change { batch: Batch::default(), events: events.collect(), committed: None };
        committer.commit(change).await?;
    }
    committer.shutdown().await;
    let folded = bundles_folded(&**engine, keys).await?;
    let stats = engine.stats().await?;
    eprintln!("{EVENTS} events, {folded} bundles folded, {stats:?}");
    Ok(())
}

fn measure(c: &mut Criterion) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let engine: Arc<dyn StorageEngine> =
        Arc::new(SledEngine::open(&SledOptions::new(directory.path().join("store")))?);
    let keys = keys()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fill(&keys, &engine))?;
    let reader = LogReader::new(Arc::clone(&engine));
    let about = |session: u64| Filter {
        about: vec![keys.pseudonym("session", &[&session.to_be_bytes()])],
        ..Filter::ALL
    };
    let destroyed = Filter { operations: OperationSet::NONE.with(Operation::KeyDestroy), ..Filter::ALL };
    let mut group = c.benchmark_group("search");
    group.sample_size(20);
    for (name, filter, found) in [
        ("session", about(SESSIONS), RARE.len()),
        ("operation", destroyed, 1),
        ("none", about(SESSIONS + 1), 0),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let page = reader.search(&keys, Some(0), Order::OldestFirst, &filter, 100);
                let page = runtime.block_on(page);
                assert!(page.is_ok_and(|page| page.lines.len() == found && page.exhausted), "{name}");
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("whole");
    group.sample_size(10).throughput(Throughput::Elements(EVENTS));
    group.bench_function("verify", |b| b.iter(|| runtime.block_on(reader.verify(&keys)).is_ok()));
    group.bench_function("roots", |b| {
        b.iter(|| runtime.block_on(reader.bundle_roots(&keys, 0, EVENTS / 256)).is_ok());
    });
    group.finish();
    Ok(())
}

fn all(c: &mut Criterion) {
    if let Err(error) = measure(c) {
        eprintln!("the bench could not run: {error}");
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
