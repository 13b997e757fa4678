//! What does the committer cost, and what the engine below it? By changes in flight.
//!
//! `events` commits changes without rows, as reads do: what is measured is the access log alone. `puts` commits a row of
//! 1.2 KiB with each. On the memory engine this is CPU; on sled it is the device as well.
//!
//! Expectation: 2 to 3 µs of CPU an event on the memory engine; on sled one fdatasync a group, so that the rate grows with
//! the number in flight until a group is full.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use strongroom::audit::{Event, LogKeys, Operation};
use strongroom::commit::{Change, Committer};
use strongroom::crypto::{AuditKey, BodyDek, Header, KeyId, Kind, Place, PseudonymKey, seal};
use strongroom::env::{SystemClock, SystemEntropy};
use strongroom::model::{Revision, StoreId, TenantId, TenantRef};
use strongroom::store::{Batch, MemoryEngine, Row, SledEngine, SledOptions, StorageEngine, keys};

const IN_FLIGHT: [u64; 4] = [1, 16, 64, 256];

fn log() -> Result<Arc<LogKeys>, Box<dyn std::error::Error>> {
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

fn row() -> Result<Row, Box<dyn std::error::Error>> {
    let entropy = SystemEntropy::new();
    let dek = BodyDek::generate(&entropy)?;
    let header = Header { kind: Kind::Entry, key_id: KeyId([1; 16]), revision: 1 };
    let tenant = TenantRef { id: TenantId([2; 16]), incarnation: 1 };
    let place = Place { store: StoreId([1; 16]), tenant, session: &[3; 16], key: &[4; 17] };
    Ok(Row::new(Revision::FIRST, &[&seal(&dek, header, &place, &[7; 1100], &entropy)?]))
}

fn commits(
    c: &mut Criterion,
    name: &str,
    engine: Arc<dyn StorageEngine>,
) -> Result<(), Box<dyn std::error::Error>> {
    let clock = Arc::new(SystemClock::new());
    let committer = Committer::start(engine, clock, Arc::new(SystemEntropy::new()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (log, row) = (log()?, row()?);
    let mut number = 0_u64;
    let mut group = c.benchmark_group(name);
    for in_flight in IN_FLIGHT {
        group.throughput(Throughput::Elements(in_flight));
        for kind in ["events", "puts"] {
            group.bench_function(BenchmarkId::new(kind, in_flight), |b| {
                b.iter(|| {
                    let changes = (0..in_flight).map(|_| {
                        number += 1;
                        let put = match kind {
                            "puts" => {
                                vec![(keys::event(log.tenant.id, &[1; 16], &[2; 16], number), row.clone())]
                            }
                            _ => Vec::new(),
                        };
                        let batch = Batch { put, ..Batch::default() };
                        let event = Event::new(Operation::EntryPut);
                        let events = vec![(Arc::clone(&log), event)];
                        committer.commit(Change { batch, events, committed: None })
                    });
                    runtime.block_on(join_all(changes.collect::<Vec<_>>()))
                });
            });
        }
    }
    group.finish();
    runtime.block_on(committer.shutdown());
    Ok(())
}

fn all(c: &mut Criterion) {
    let outcome = || -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let sled = SledEngine::open(&SledOptions::new(directory.path().join("store")))?;
        commits(c, "memory", Arc::new(MemoryEngine::default()))?;
        commits(c, "sled", Arc::new(sled))
    };
    let mut outcome = outcome;
    if let Err(error) = outcome() {
        eprintln!("the bench could not run: {error}");
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
