//! Every metric of the server, declared in this file alone.
//!
//! No metric has a label for a tenant, a session or anything else that a caller chooses, so that their number is fixed and
//! a scrape tells nobody's name. Metrics that other modules count for themselves are copied in when a scrape begins.

use std::collections::BTreeMap;

use super::registry::{CopiedHistogram, Counter, Gauge, Histogram, Render, head, sample};
use crate::model::Duration;

/// Declares a struct whose fields are metrics, and how it is rendered. A field's documentation is its help text.
macro_rules! metrics {
    ($( #[doc = $help:literal] $field:ident: $kind:ident = $name:literal, $make:expr; )*) => {
        /// The metrics of one server.
        #[derive(Debug)]
        pub struct Metrics {
            /// Calls, by method and code.
            pub rpc: RpcMetrics,
            /// Jobs, by kind.
            pub jobs: JobMetrics,
            $( #[doc = $help] pub $field: $kind, )*
        }

        impl Metrics {
            /// Starts all at zero; `methods` are the full names of the methods served, such as
            /// `strongroom.v1.ContextService/PutEntry`.
            pub fn new<M: Into<String>>(methods: impl IntoIterator<Item = M>) -> Self {
                Self { rpc: RpcMetrics::new(methods), jobs: JobMetrics::default(), $( $field: $make, )* }
            }

            fn render_declared(&self, out: &mut String) {
                $(
                    head::<$kind>(out, $name, $help);
                    self.$field.samples(out, $name, "");
                )*
            }
        }

        #[cfg(test)]
        const NAMES: &[&str] = &[$( $name ),*];
    };
}

metrics! {
    /// Calls being served now.
    requests_in_flight: Gauge = "strongroom_requests_in_flight", Gauge::default();
    /// Streams being followed now.
    streams_followed: Gauge = "strongroom_streams_followed", Gauge::default();
    /// Calls whose credentials were refused.
    authentication_failures: Counter = "strongroom_authentication_failures_total", Counter::default();
    /// Calls that the caller was not permitted to make.
    denials: Counter = "strongroom_authorization_denials_total", Counter::default();

    /// Looks at files of certificates, authorities, revocations and issuers' keys that found some that cannot be used.
    identity_reload_failures: Counter = "strongroom_identity_reload_failures_total", Counter::default();

    /// How long the root provider has not answered as it should, in seconds; 0 while it does. From 180 on no new keys are made.
    root_unwell_seconds: Gauge = "strongroom_root_unwell_seconds", Gauge::default();
    /// How long the root provider has wrapped with another key than the root key is wrapped for, in seconds; 0 when it does not.
    root_key_changed_seconds: Gauge = "strongroom_root_key_changed_seconds", Gauge::default();

    /// Time that the engine took for a group, until it was durable.
    commit_seconds: CopiedHistogram = "strongroom_commit_seconds", CopiedHistogram::default();
    /// Groups committed.
    commit_groups: Counter = "strongroom_commit_groups_total", Counter::default();
    /// Operations committed. Divided by the groups: how many shared one flush.
    commit_operations: Counter = "strongroom_commit_operations_total", Counter::default();
    /// Audit events committed.
    commit_events: Counter = "strongroom_commit_events_total", Counter::default();
    /// Bytes of keys and rows committed.
    commit_bytes: Counter = "strongroom_commit_bytes_total", Counter::default();
    /// Operations whose expectations did not hold.
    commit_conflicts: Counter = "strongroom_commit_conflicts_total", Counter::default();
    /// Operations refused because the queue was full.
    commit_refused: Counter = "strongroom_commit_refused_total", Counter::default();
    /// Operations waiting for the committer.
    commit_queue_operations: Gauge = "strongroom_commit_queue_operations", Gauge::default();
    /// Operations refused because the access log could not be written. Anything but zero needs a person.
    audit_failures: Counter = "strongroom_audit_failures_total", Counter::default();

    /// How long ago the latest checkpoints of the access logs were last anchored outside of the store, in seconds; 0 without an anchor.
    audit_anchor_age_seconds: Gauge = "strongroom_audit_anchor_age_seconds", Gauge::default();
    /// Tries to write the anchor of the access logs that failed.
    audit_anchor_failures: Counter = "strongroom_audit_anchor_failures_total", Counter::default();

    /// Stored bytes that did not open. Anything but zero needs a person.
    integrity_failures: Counter = "strongroom_integrity_failures_total", Counter::default();
    /// Requests that found the keys they needed already unwrapped.
    key_cache_hits: Counter = "strongroom_key_cache_hits_total", Counter::default();
    /// Requests that had to unwrap a key.
    key_cache_misses: Counter = "strongroom_key_cache_misses_total", Counter::default();

    /// Sessions and entries that the sweeper reclaimed after they had expired.
    sweeper_expired: Counter = "strongroom_sweeper_expired_total", Counter::default();
    /// How far the sweeper is behind the clock, in seconds.
    sweeper_lag_seconds: Gauge = "strongroom_sweeper_lag_seconds", Gauge::default();

    /// Bytes that the store takes on disk.
    store_disk_bytes: Gauge = "strongroom_store_disk_bytes", Gauge::default();
    /// Rows in the store, estimated.
    store_rows: Gauge = "strongroom_store_rows", Gauge::default();
}

impl Metrics {
    /// All metrics in the Prometheus text format 0.0.4 (`text/plain; version=0.0.4`).
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        head::<Gauge>(&mut out, "strongroom_build_info", "The version that runs.");
        let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\",");
        sample(&mut out, "strongroom_build_info", version, "1");
        self.render_declared(&mut out);
        self.jobs.render(&mut out);
        self.rpc.render(&mut out);
        out
    }
}

/// Names of the kinds of jobs, in the order in which their figures are given.
const JOB_KINDS: [&str; 3] = ["rewrap", "scrub", "reencrypt"];

/// Jobs, by kind.
#[derive(Debug, Default)]
pub struct JobMetrics([JobKindMetrics; JOB_KINDS.len()]);

/// Jobs of one kind.
#[derive(Debug, Default)]
pub struct JobKindMetrics {
    /// Jobs that work now.
    pub running: Gauge,
    /// Sessions that they have come by.
    pub sessions: Counter,
    /// What did not open: sessions, of a scrub records.
    pub failures: Counter,
}

impl JobMetrics {
    const RUNNING: &str = "strongroom_jobs_running";
    const SESSIONS: &str = "strongroom_job_sessions_total";
    const FAILURES: &str = "strongroom_job_failures_total";

    /// The metrics of each kind: rewrap, scrub, reencrypt.
    pub fn kinds(&self) -> impl Iterator<Item = &JobKindMetrics> {
        self.0.iter()
    }

    fn render(&self, out: &mut String) {
        let family = |out: &mut String, name, of: fn(&JobKindMetrics) -> u64| {
            for (kind, job) in JOB_KINDS.iter().zip(&self.0) {
                sample(out, name, &format!("kind=\"{kind}\","), &of(job).to_string());
            }
        };
        head::<Gauge>(out, Self::RUNNING, "Jobs that work now.");
        family(out, Self::RUNNING, |job| job.running.value());
        head::<Counter>(out, Self::SESSIONS, "Sessions that jobs have come by.");
        family(out, Self::SESSIONS, |job| job.sessions.total());
        let help = "What did not open for a job: sessions, of a scrub records. Of a scrub anything but zero needs a person.";
        head::<Counter>(out, Self::FAILURES, help);
        family(out, Self::FAILURES, |job| job.failures.total());
    }
}

/// Names of the gRPC codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The number of `UNKNOWN`, for what is no code at all.
const UNKNOWN: usize = 2;

/// Where a call to a method that is not served is counted.
const OTHER: &str = "other";

/// Calls, by method and code.
#[derive(Debug)]
pub struct RpcMetrics {
    methods: BTreeMap<String, MethodMetrics>,
    other: MethodMetrics,
}

#[derive(Debug)]
struct MethodMetrics {
    codes: [Counter; CODES.len()],
    seconds: Histogram,
}

impl RpcMetrics {
    const REQUESTS: &str = "strongroom_rpc_requests_total";
    const SECONDS: &str = "strongroom_rpc_seconds";

    fn new<M: Into<String>>(methods: impl IntoIterator<Item = M>) -> Self {
        let methods = methods.into_iter().map(|name| (name.into(), MethodMetrics::new())).collect();
        Self { methods, other: MethodMetrics::new() }
    }

    /// Counts a call that ended: `method` with or without the slash in front, `code` by its number.
    ///
    /// A method that is not served counts as `other`, so that a caller cannot make up labels.
    pub fn record(&self, method: &str, code: i32, took: Duration) {
        let name = method.strip_prefix('/').unwrap_or(method);
        let method = self.methods.get(name).unwrap_or(&self.other);
        let code = usize::try_from(code).ok().filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        if let Some(counter) = method.codes.get(code) {
            counter.increment();
        }
        method.seconds.observe(took);
    }

    fn render(&self, out: &mut String) {
        let methods = || {
            self.methods.iter().map(|(name, method)| (name.as_str(), method)).chain([(OTHER, &self.other)])
        };
        head::<Counter>(out, Self::REQUESTS, "Calls that ended.");
        for (name, method) in methods() {
            method.render_codes(out, name);
        }
        head::<Histogram>(out, Self::SECONDS, "Time from a call's headers to its last byte.");
        for (name, method) in methods() {
            method.seconds.samples(out, Self::SECONDS, &format!("method=\"{name}\","));
        }
    }
}

impl MethodMetrics {
    fn new() -> Self {
        Self { codes: Default::default(), seconds: Histogram::default() }
    }

    /// `OK` always, the other codes once they occurred.
    fn render_codes(&self, out: &mut String, method: &str) {
        for (code, counter) in CODES.iter().zip(&self.codes) {
            if *code == "OK" || counter.total() > 0 {
                counter.samples(out, RpcMetrics::REQUESTS, &format!("method=\"{method}\",code=\"{code}\","));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PUT: &str = "strongroom.v1.ContextService/PutEntry";

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let metrics = Metrics::new([PUT]);
        metrics.rpc.record("/strongroom.v1.ContextService/PutEntry", 0, Duration::from_millis(3));
        metrics.rpc.record(PUT, 10, Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            format!("strongroom_rpc_requests_total{{method=\"{PUT}\",code=\"OK\"}} 1"),
            format!("strongroom_rpc_requests_total{{method=\"{PUT}\",code=\"ABORTED\"}} 1"),
            format!("strongroom_rpc_seconds_count{{method=\"{PUT}\"}} 2"),
            format!("strongroom_rpc_seconds_sum{{method=\"{PUT}\"}} 0.006"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("INTERNAL"));
    }

    #[test]
    fn jobs_are_counted_by_kind() {
        let metrics = Metrics::new([PUT]);
        for (number, job) in (1..).zip(metrics.jobs.kinds()) {
            job.running.set(number);
            job.sessions.raise_to(10 * number);
            job.failures.raise_to(100 * number);
        }
        let text = metrics.render();
        for line in [
            "strongroom_jobs_running{kind=\"rewrap\"} 1",
            "strongroom_job_sessions_total{kind=\"scrub\"} 20",
            "strongroom_job_failures_total{kind=\"reencrypt\"} 300",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_caller_cannot_make_up_labels() {
        let metrics = Metrics::new([PUT]);
        metrics.rpc.record("/evil\"} 1\n/x", 99, Duration::ZERO);
        let text = metrics.render();
        assert!(!text.contains("evil"));
        assert!(text.contains("{method=\"other\",code=\"UNKNOWN\"} 1\n"), "{text}");
    }

    #[test]
    fn names_are_unique_well_formed_and_end_by_their_kind() {
        let unique: BTreeSet<_> = NAMES.iter().collect();
        assert_eq!(unique.len(), NAMES.len());
        let text = Metrics::new([PUT]).render();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(
                name.starts_with("strongroom_") && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())
            );
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        }
    }

    #[test]
    fn every_sample_follows_the_head_of_its_family() {
        let text = Metrics::new([PUT]).render();
        let mut family = "";
        for line in text.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(head) => family = head.split(' ').next().unwrap(),
                None if line.starts_with("# HELP ") => assert!(line.split(' ').count() > 3, "{line}"),
                None => assert!(line.starts_with(family), "{line} under {family}"),
            }
        }
    }
}
