//! What a run prints at its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;

use super::load::Measured;
use super::manifest::Manifest;
use super::measure::{Operation, Percentiles, Tally};
use super::{BenchArgs, Workload};
use crate::cli::output::{Record, optional_cell};

/// How long the threads of this client have been working so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy(Duration);

impl Busy {
    /// As of now.
    pub(super) fn now() -> Self {
        let metrics = Handle::current().metrics();
        Self((0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum())
    }

    /// The time worked since then, of `elapsed`; at 1 a thread has never waited.
    pub(super) fn until_now(self, elapsed: Duration) -> Self {
        let spent = Self::now().0.saturating_sub(self.0);
        let threads = u32::try_from(Handle::current().metrics().num_workers()).unwrap_or(1);
        Self(spent.div_f64((elapsed.as_secs_f64() * f64::from(threads)).max(f64::MIN_POSITIVE)))
    }

    fn share(self) -> f64 {
        self.0.as_secs_f64()
    }
}

/// The result of a load.
#[derive(Debug, Serialize)]
pub(super) struct LoadReport {
    workload: &'static str,
    loop_kind: &'static str,
    rate_per_second: Option<f64>,
    size: usize,
    view: &'static str,
    concurrency: usize,
    connections: usize,
    threads: usize,
    sessions: usize,
    entries_per_session: usize,
    warm_up_seconds: f64,
    #[serde(flatten)]
    phase: Phase,
    errors: BTreeMap<String, u64>,
    not_started: u64,
    interrupted: bool,
    client_busy: f64,
    seed: u64,
}

/// What one phase has measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Phase {
    elapsed_seconds: f64,
    operations: u64,
    operations_per_second: f64,
    bytes: u64,
    bytes_per_second: f64,
    latency_us: Percentiles,
    by_operation: BTreeMap<&'static str, Kind>,
}

/// What was measured of one kind of operation.
#[derive(Debug, Clone, Serialize)]
struct Kind {
    operations: u64,
    latency_us: Percentiles,
}

/// The result of a replay or a verification. There is none unless everything was equal.
#[derive(Debug, Serialize)]
pub(super) struct ReplayReport {
    workload: &'static str,
    file: Option<PathBuf>,
    tenant: String,
    sessions: usize,
    events: usize,
    entries: usize,
    bytes: u64,
    concurrency: usize,
    connections: usize,
    stored: Option<Phase>,
    verified: Phase,
    equal: bool,
}

impl Phase {
    /// Sums up a tally.
    pub(super) fn new(tally: &Tally, elapsed: Duration) -> Self {
        let overall = tally.overall();
        let operations = Operation::ALL.into_iter().map(|operation| tally.done(operation)).sum();
        let kinds = Operation::ALL.into_iter().filter(|operation| tally.of(*operation).count() > 0);
        let kind = |operation| Kind {
            operations: tally.done(operation),
            latency_us: tally.of(operation).percentiles(),
        };
        Self {
            elapsed_seconds: elapsed.as_secs_f64(),
            operations,
            operations_per_second: per_second(operations, elapsed),
            bytes: tally.bytes(),
            bytes_per_second: per_second(tally.bytes(), elapsed),
            latency_us: overall.percentiles(),
            by_operation: kinds.map(|operation| (operation.name(), kind(operation))).collect(),
        }
    }

    fn kind_cell(&self, operation: Operation) -> String {
        optional_cell(self.by_operation.get(operation.name()).map(|kind| {
            let [p50, p99, max] = [kind.latency_us.p50, kind.latency_us.p99, kind.latency_us.max].map(micros);
            format!("{} operations, p50 {p50}, p99 {p99}, max {max}", kind.operations)
        }))
    }

    fn rate_cell(&self) -> String {
        format!(
            "{:.0} operations/s, {:.2} MiB/s",
            self.operations_per_second,
            self.bytes_per_second / 1_048_576.0
        )
    }

    fn summary_cell(&self) -> String {
        format!("{} calls in {:.2} s, {}", self.operations, self.elapsed_seconds, self.rate_cell())
    }
}

impl LoadReport {
    /// Sums up a load.
    pub(super) fn new(
        args: &BenchArgs,
        workload: Workload,
        seed: u64,
        measured: &Measured,
        busy: Busy,
    ) -> Self {
        Self {
            workload: workload.name(),
            loop_kind: if args.rate.is_some() { "open" } else { "closed" },
            rate_per_second: args.rate.map(crate::cli::args::Rate::per_second),
            size: args.size,
            view: args.view.name(),
            concurrency: args.concurrency,
            connections: args.connections(),
            threads: args.threads,
            sessions: args.sessions,
            entries_per_session: args.entries,
            warm_up_seconds: args.warm_up.as_secs_f64(),
            phase: Phase::new(&measured.tally, measured.elapsed),
            errors: measured.tally.errors().clone(),
            not_started: measured.tally.not_started(),
            interrupted: measured.interrupted,
            client_busy: busy.share(),
            seed,
        }
    }
}

impl ReplayReport {
    /// Sums up a replay, or a verification when nothing was stored.
    pub(super) fn new(
        args: &BenchArgs,
        file: Option<PathBuf>,
        manifest: &Manifest,
        stored: Option<Phase>,
        verified: Phase,
    ) -> Self {
        let sessions = &manifest.sessions;
        Self {
            workload: if stored.is_some() { "replay" } else { "verify" },
            file,
            tenant: manifest.tenant.clone(),
            sessions: sessions.len(),
            events: sessions.iter().map(|session| session.events.len()).sum(),
            entries: sessions.iter().map(|session| session.entries.len()).sum(),
            bytes: sessions.iter().map(super::manifest::StoredSession::bytes).sum(),
            concurrency: args.concurrency,
            connections: args.connections(),
            stored,
            verified,
            equal: true,
        }
    }
}

impl Record for LoadReport {
    const COLUMNS: &'static [&'static str] = &[
        "WORKLOAD",
        "LOOP",
        "OPERATIONS",
        "ELAPSED",
        "THROUGHPUT",
        "P50",
        "P90",
        "P99",
        "P99.9",
        "MAX",
        "READS",
        "WRITES",
        "APPENDS",
        "ERRORS",
        "NOT STARTED",
        "CLIENT BUSY",
        "SEED",
    ];

    fn cells(&self) -> Vec<String> {
        let flight = format!("{} in flight over {} connections", self.concurrency, self.connections);
        let pace = optional_cell(
            self.rate_per_second.map(|rate| format!("open, {rate} operations/s, at most {flight}")),
        );
        let latency = self.phase.latency_us;
        let mut cells = vec![
            format!(
                "{}, {} bytes, {} sessions of {} entries",
                self.workload, self.size, self.sessions, self.entries_per_session
            ),
            if self.rate_per_second.is_some() { pace } else { format!("closed, {flight}") },
            self.phase.operations.to_string(),
            format!("{:.2} s", self.phase.elapsed_seconds),
            self.phase.rate_cell(),
        ];
        cells.extend([latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max].map(micros));
        cells.extend(Operation::ALL.map(|operation| self.phase.kind_cell(operation)));
        let errors: Vec<String> =
            self.errors.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        cells.push(if errors.is_empty() { "none".to_owned() } else { errors.join(", ") });
        cells.push(self.not_started.to_string());
        cells.push(format!("{:.0} % of {} threads", self.client_busy * 100.0, self.threads));
        cells.push(self.seed.to_string());
        cells
    }
}

impl Record for ReplayReport {
    const COLUMNS: &'static [&'static str] = &[
        "WORKLOAD", "TENANT", "SESSIONS", "EVENTS", "ENTRIES", "BYTES", "STORED", "APPENDS", "PUTS",
        "VERIFIED", "RESULT",
    ];

    fn cells(&self) -> Vec<String> {
        let stored = self.stored.as_ref();
        vec![
            format!(
                "{}, {} in flight over {} connections",
                self.workload, self.concurrency, self.connections
            ),
            self.tenant.clone(),
            self.sessions.to_string(),
            self.events.to_string(),
            self.entries.to_string(),
            self.bytes.to_string(),
            optional_cell(stored.map(Phase::summary_cell)),
            optional_cell(stored.map(|phase| phase.kind_cell(Operation::Append))),
            optional_cell(stored.map(|phase| phase.kind_cell(Operation::Write))),
            self.verified.summary_cell(),
            "everything that was read back is equal".to_owned(),
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of operations or bytes is far below 2^53")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Microseconds in the unit that reads best.
fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10),
        _ => format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_printed_in_the_unit_that_reads_best() {
        for (value, text) in
            [(0, "0 µs"), (999, "999 µs"), (1000, "1.00 ms"), (12_345, "12.34 ms"), (61_000_000, "61.00 s")]
        {
            assert_eq!(micros(value), text);
        }
    }

    #[test]
    fn a_phase_adds_up_and_leaves_out_what_did_not_happen() {
        let mut tally = Tally::new().unwrap();
        for _ in 0..10 {
            tally.succeeded(Operation::Write, Duration::from_millis(2), 1024);
        }
        let phase = Phase::new(&tally, Duration::from_secs(2));
        assert_eq!((phase.operations, phase.bytes, phase.by_operation.len()), (10, 10_240, 1));
        assert!((phase.operations_per_second - 5.0).abs() < 1e-9);
        assert_eq!(phase.kind_cell(Operation::Read), "-");
        assert!(phase.kind_cell(Operation::Write).starts_with("10 operations, p50 2.0"));
    }
}
