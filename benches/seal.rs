//! What does it cost to seal and to open a record? By value size; bytes per second are of plaintext.
//!
//! Expectation: about 3 µs for the derivation (HKDF-SHA-512, two blocks) and the AES key schedule, then AES-256-GCM at
//! several GB/s: 1 KiB should be dominated by the derivation, 1 MiB by the cipher.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strongroom::crypto::{BodyDek, Header, KeyId, Kind, Place, open, open_start, seal};
use strongroom::env::SystemEntropy;
use strongroom::model::{StoreId, TenantId, TenantRef};

const SIZES: [usize; 5] = [100, 1 << 10, 16 << 10, 64 << 10, 1 << 20];

fn records(c: &mut Criterion) {
    let entropy = SystemEntropy::new();
    let Ok(dek) = BodyDek::generate(&entropy) else {
        return;
    };
    let header = Header { kind: Kind::Entry, key_id: KeyId([1; 16]), revision: 1 };
    let place = Place {
        store: StoreId([1; 16]),
        tenant: TenantRef { id: TenantId([2; 16]), incarnation: 1 },
        session: &[3; 16],
        key: &[4; 17],
    };
    let mut group = c.benchmark_group("record");
    for size in SIZES {
        let plaintext = vec![7; size];
        let Ok(sealed) = seal(&dek, header, &place, &plaintext, &entropy) else {
            return;
        };
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("seal", size), &plaintext, |b, plaintext| {
            b.iter(|| seal(&dek, header, &place, black_box(plaintext), &entropy));
        });
        group.bench_with_input(BenchmarkId::new("open", size), &sealed, |b, sealed| {
            b.iter(|| open(&dek, header, &place, black_box(sealed.as_bytes())));
        });
        group.bench_with_input(BenchmarkId::new("open_start", size), &sealed, |b, sealed| {
            b.iter(|| open_start(&dek, header, &place, black_box(sealed.as_bytes())));
        });
    }
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);
