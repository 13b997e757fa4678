//! What was measured: latencies by operation, errors by reason, bytes.
//!
//! Latencies go into HDR histograms with three significant digits from 1 µs to 60 s; longer ones count as 60 s.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

/// Longest latency that is told apart, in microseconds.
const LONGEST: u64 = 60_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// The kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Reading an entry.
    Read,
    /// Putting an entry.
    Write,
    /// Appending an event.
    Append,
}

impl Operation {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Append];

    /// Its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Append => "append",
        }
    }

    /// Its part of what is kept for each kind.
    const fn of<T>(self, [read, write, append]: &[T; 3]) -> &T {
        match self {
            Self::Read => read,
            Self::Write => write,
            Self::Append => append,
        }
    }

    const fn of_mut<T>(self, [read, write, append]: &mut [T; 3]) -> &mut T {
        match self {
            Self::Read => read,
            Self::Write => write,
            Self::Append => append,
        }
    }
}

/// Latencies of operations of one kind.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Begins empty.
    ///
    /// # Errors
    /// Never with these bounds; the library does not know that.
    pub fn new() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(1, LONGEST, DIGITS).map(Self)
    }

    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        // Histograms with the same bounds always fit into each other.
        if self.0.add(&other.0).is_err() {
            self.0.saturating_record(LONGEST);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Their percentiles.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.0.max(),
            mean: self.0.mean(),
        }
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p99_9: u64,
    /// Largest.
    pub max: u64,
    /// Arithmetic mean.
    pub mean: f64,
}

/// Everything that a run has measured so far.
#[derive(Debug, Clone)]
pub struct Tally {
    latencies: [Latencies; 3],
    left_behind: [u64; 3],
    errors: BTreeMap<String, u64>,
    bytes: u64,
}

impl Tally {
    /// Begins with nothing.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub fn new() -> Result<Self, CreationError> {
        let latencies = [Latencies::new()?, Latencies::new()?, Latencies::new()?];
        Ok(Self { latencies, left_behind: [0; 3], errors: BTreeMap::new(), bytes: 0 })
    }

    /// Notes an operation that moved so many bytes of values.
    pub fn succeeded(&mut self, operation: Operation, latency: Duration, bytes: u64) {
        operation.of_mut(&mut self.latencies).add(latency);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Notes an operation that failed.
    pub fn failed(&mut self, reason: String) {
        let count = self.errors.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    /// Notes the wait of an operation that never began: a latency, but no operation that was done.
    pub fn left_behind(&mut self, operation: Operation, waited: Duration) {
        operation.of_mut(&mut self.latencies).add(waited);
        let count = operation.of_mut(&mut self.left_behind);
        *count = count.saturating_add(1);
    }

    /// Latencies of one kind.
    #[must_use]
    pub const fn of(&self, operation: Operation) -> &Latencies {
        operation.of(&self.latencies)
    }

    /// Operations of one kind that were done.
    #[must_use]
    pub fn done(&self, operation: Operation) -> u64 {
        self.of(operation).count().saturating_sub(*operation.of(&self.left_behind))
    }

    /// Operations that never began.
    #[must_use]
    pub fn not_started(&self) -> u64 {
        self.left_behind.iter().sum()
    }

    /// Latencies of all kinds together.
    #[must_use]
    pub fn overall(&self) -> Latencies {
        let [read, write, append] = &self.latencies;
        let mut overall = read.clone();
        overall.merge(write);
        overall.merge(append);
        overall
    }

    /// Errors by reason.
    #[must_use]
    pub const fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Errors in all.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Bytes of values moved.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=100_000 {
            latencies.add(Duration::from_micros(micros));
        }
        let found = latencies.percentiles();
        for (value, exact) in
            [(found.p50, 50_000), (found.p90, 90_000), (found.p99, 99_000), (found.p99_9, 99_900)]
        {
            assert!(value.abs_diff(exact) <= exact / 1000, "{value} for {exact}");
        }
        assert!(found.max >= 100_000 && found.max <= 100_100);
    }

    #[test]
    fn a_latency_beyond_the_bounds_counts_as_the_longest() {
        let mut latencies = Latencies::new().unwrap();
        latencies.add(Duration::from_secs(3600));
        latencies.add(Duration::ZERO);
        assert_eq!(latencies.count(), 2);
        assert!(latencies.percentiles().max >= LONGEST);
    }

    #[test]
    fn kinds_are_kept_apart_and_add_up() {
        let mut tally = Tally::new().unwrap();
        tally.succeeded(Operation::Read, Duration::from_millis(1), 10);
        tally.succeeded(Operation::Append, Duration::from_millis(9), 5);
        tally.failed("OVERLOADED".to_owned());
        tally.failed("OVERLOADED".to_owned());
        let counts = Operation::ALL.map(|operation| tally.of(operation).count());
        assert_eq!((counts, tally.overall().count(), tally.bytes()), ([1, 0, 1], 2, 15));
        assert_eq!((tally.failures(), tally.errors().get("OVERLOADED")), (2, Some(&2)));
        assert!(tally.overall().percentiles().max >= 9000);
    }

    #[test]
    fn what_never_began_has_a_latency_but_was_not_done() {
        let mut tally = Tally::new().unwrap();
        tally.succeeded(Operation::Write, Duration::from_millis(1), 1);
        tally.left_behind(Operation::Write, Duration::from_millis(500));
        assert_eq!(
            (tally.done(Operation::Write), tally.of(Operation::Write).count(), tally.not_started()),
            (1, 2, 1)
        );
        assert!(tally.overall().percentiles().max >= 500_000);
    }
}
