//! Counters, gauges and histograms on atomics, and their text form.
//!
//! The text is the Prometheus exposition format 0.0.4. Nothing here allocates after it was made, except when rendering.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::model::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Takes over a total that is counted elsewhere; a smaller one than before is ignored.
    pub fn raise_to(&self, total: u64) {
        self.0.fetch_max(total, Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, but not below zero.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        // `fetch_update` fails only when the closure gives `None`, which is at zero: there it stays.
        self.0.fetch_update(Relaxed, Relaxed, |value| value.checked_sub(1)).ok();
    }

    /// The number.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A distribution of durations over fixed buckets from 100 µs to 10 s.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what lies above all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// Upper bounds in microseconds, ascending; a duration falls into the first bucket whose bound is not below it.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(micros, Relaxed);
    }
}

/// A distribution of durations that another module counts, copied in when a scrape begins. It has no sum.
#[derive(Debug, Default)]
pub struct CopiedHistogram(Mutex<Vec<(u64, u64)>>, AtomicU64);

impl CopiedHistogram {
    /// Takes over the counts of all buckets so far: `bounds_ms` in milliseconds, ascending, and one count more than bounds.
    pub fn copy(&self, bounds_ms: &[u64], counts: &[u64]) {
        let bounded = bounds_ms.iter().copied().zip(counts.iter().copied()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bounded;
        self.1.store(counts.iter().sum(), Relaxed);
    }
}

/// Microseconds as seconds, without the zeros at the end.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A metric with a text form.
pub(super) trait Render {
    /// `counter`, `gauge` or `histogram`.
    const KIND: &'static str;

    /// Appends the samples of `name` with `labels`, which are text like `method="a",`: each ends in a comma.
    fn samples(&self, out: &mut String, name: &str, labels: &str);
}

impl Render for Counter {
    const KIND: &'static str = "counter";

    fn samples(&self, out: &mut String, name: &str, labels: &str) {
        sample(out, name, labels, &self.total().to_string());
    }
}

impl Render for Gauge {
    const KIND: &'static str = "gauge";

    fn samples(&self, out: &mut String, name: &str, labels: &str) {
        sample(out, name, labels, &self.value().to_string());
    }
}

impl Render for Histogram {
    const KIND: &'static str = "histogram";

    fn samples(&self, out: &mut String, name: &str, labels: &str) {
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain(["+Inf".to_owned()]);
        let bucket_name = format!("{name}_bucket");
        let mut count = 0;
        for (bound, bucket) in bounds.zip(&self.buckets) {
            count += bucket.load(Relaxed);
            sample(out, &bucket_name, &format!("{labels}le=\"{bound}\","), &count.to_string());
        }
        sample(out, &format!("{name}_sum"), labels, &seconds(self.sum.load(Relaxed)));
        sample(out, &format!("{name}_count"), labels, &count.to_string());
    }
}

impl Render for CopiedHistogram {
    const KIND: &'static str = "histogram";

    fn samples(&self, out: &mut String, name: &str, labels: &str) {
        let bucket_name = format!("{name}_bucket");
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (bound_ms, bucket) in buckets.iter() {
            count += bucket;
            let bound = seconds(bound_ms.saturating_mul(1000));
            sample(out, &bucket_name, &format!("{labels}le=\"{bound}\","), &count.to_string());
        }
        let all = self.1.load(Relaxed).to_string();
        sample(out, &bucket_name, &format!("{labels}le=\"+Inf\","), &all);
        sample(out, &format!("{name}_count"), labels, &all);
    }
}

/// Appends the two lines that go before a metric's samples.
pub(super) fn head<M: Render>(out: &mut String, name: &str, help: &str) {
    // Writing to a `String` cannot fail.
    write!(out, "# HELP {name} {}\n# TYPE {name} {}\n", help.trim(), M::KIND).ok();
}

/// Appends one line.
pub(super) fn sample(out: &mut String, name: &str, labels: &str, value: &str) {
    out.push_str(name);
    if let Some(labels) = labels.strip_suffix(',') {
        out.push('{');
        out.push_str(labels);
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metric: &impl Render, labels: &str) -> String {
        let mut out = String::new();
        metric.samples(&mut out, "m", labels);
        out
    }

    #[test]
    fn a_histogram_counts_into_the_first_bucket_that_holds_the_value_and_shows_running_sums() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 250, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let text = text(&histogram, "a=\"b\",");
        for line in [
            "m_bucket{a=\"b\",le=\"0.0001\"} 2",
            "m_bucket{a=\"b\",le=\"0.00025\"} 4",
            "m_bucket{a=\"b\",le=\"5\"} 4",
            "m_bucket{a=\"b\",le=\"10\"} 5",
            "m_bucket{a=\"b\",le=\"+Inf\"} 6",
            "m_sum{a=\"b\"} 20.000452",
            "m_count{a=\"b\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_copied_histogram_shows_what_was_copied_last() {
        let histogram = CopiedHistogram::default();
        histogram.copy(&[1, 2], &[1, 1, 1]);
        histogram.copy(&[1, 2, 1000], &[3, 0, 2, 1]);
        let wanted = "m_bucket{le=\"0.001\"} 3\nm_bucket{le=\"0.002\"} 3\nm_bucket{le=\"1\"} 5\nm_bucket{le=\"+Inf\"} 6\nm_count 6\n";
        assert_eq!(text(&histogram, ""), wanted);
    }

    #[test]
    fn durations_are_shown_in_seconds_and_bounds_ascend() {
        assert_eq!([0, 1, 2_500, 10_000_000].map(seconds), ["0", "0.000001", "0.0025", "10"]);
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_gauge_stays_at_zero_and_a_counter_never_falls() {
        let (gauge, counter) = (Gauge::default(), Counter::default());
        gauge.decrement();
        counter.raise_to(5);
        counter.raise_to(3);
        assert_eq!((gauge.value(), counter.total()), (0, 5));
        gauge.increment();
        assert_eq!(text(&gauge, ""), "m 1\n");
    }
}
