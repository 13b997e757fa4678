//! How close are durable writes to the disk?
//!
//! The reference appends as many values of 1 KiB as calls are in flight and calls fdatasync, over and over, in a file beside
//! the store. Expectation: each group of ours costs sled's log write, its fdatasync and CPU for the calls in it; the disk
//! waits while the CPU works and the other way round, so half of the reference at 64 in flight.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom::proto::v1;

use crate::load::{Client, VALUE_BYTES, Work, closed_loop};
use crate::servers::Server;
use crate::{Outcome, spread};

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(4);
/// Entries that are written in turn.
const ENTRIES: u64 = 100_000;

#[derive(Clone)]
struct Puts {
    client: Client,
    session: v1::SessionRef,
    value: Bytes,
}

impl Work for Puts {
    async fn call(&self, worker: usize, number: u64) -> Outcome<()> {
        self.client.put(worker, &self.session, format!("k{}", number % ENTRIES), self.value.clone()).await
    }
}

pub async fn run() -> Outcome<()> {
    let directory = tempfile::tempdir_in(".")?;
    let (server, _) = Server::strongroom(directory.path())?;
    let client = Client::connect(&server, directory.path()).await?;
    let session = client.session(None).await?;
    let puts = Puts { client, session, value: Bytes::from(vec![b'v'; VALUE_BYTES]) };
    println!("in flight | puts/s | append+fdatasync/s | ratio (min median max) | CPU µs a call | p99 ms");
    for in_flight in [1, 16, 64, 256] {
        let (mut rows, mut references) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rows.push(closed_loop(&server, in_flight, SPAN, puts.clone()).await?);
            references.push(appends(directory.path(), in_flight)?);
        }
        let ratios = rows.iter().zip(&references).map(|(ours, reference)| ours.rate / reference).collect();
        let (least, middle, most) = spread(ratios);
        println!(
            "{in_flight:>9} | {:.0} | {:.0} | {least:.2} {middle:.2} {most:.2} | {:.1} | {:.2}",
            spread(rows.iter().map(|load| load.rate).collect()).1,
            spread(references).1,
            spread(rows.iter().map(|load| load.cpu).collect()).1,
            spread(rows.iter().map(|load| load.p99.as_secs_f64() * 1e3).collect()).1,
        );
    }
    Ok(())
}

/// Values a second that are appended and flushed, `batch` at a time.
fn appends(directory: &Path, batch: usize) -> Outcome<f64> {
    let path = directory.join("appended");
    let mut file = File::create(&path)?;
    let values = vec![b'v'; VALUE_BYTES * batch];
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < SPAN / 2 {
        file.write_all(&values)?;
        file.sync_data()?;
        written += batch;
    }
    let rate = written as f64 / begun.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(rate)
}
