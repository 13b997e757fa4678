//! Figures for operators: every call is counted, and a scrape of the health port shows the counts. Beside it: whether the
//! server is ready, for those who cannot ask by gRPC over TLS, such as the kubelet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use super::Core;
use super::identity::Identities;
use super::readiness::Readiness;
use crate::api::layers::{InFlight, Rpc, Step};
use crate::commit::{Committer, LATENCY_BOUNDS_MS};
use crate::keyring::Keyring;
use crate::service::{AnchorHealth, Anchoring, Service};
use crate::store::StorageEngine;
use crate::telemetry::metrics::Metrics;

/// Where the figures are.
const METRICS: &str = "/metrics";
/// Where it is said whether the server should be sent traffic, by the status code: 200 or 503.
const READY: &str = "/readyz";
/// The Prometheus text format.
const FIGURES: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Counts calls by method and code, and how long they took to their last byte.
#[derive(Debug, Clone)]
pub(super) struct Measure {
    metrics: Arc<Metrics>,
}

impl Measure {
    pub(super) const fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl Step for Measure {
    async fn run<S: Rpc>(&self, request: Request<Body>, mut next: S) -> Response<Body> {
        let metrics = Arc::clone(&self.metrics);
        let method = request.uri().path().to_owned();
        let mut count = Count { metrics, method, begun: Instant::now(), code: Code::Cancelled };
        let response = match next.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        count.see(response.headers());
        response.map(|inner| Body::new(Measured { inner, count }))
    }
}

/// Counts its call when it is dropped: a call that nobody waited for was cancelled.
struct Count {
    metrics: Arc<Metrics>,
    method: String,
    begun: Instant,
    code: Code,
}

impl Count {
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.metrics.rpc.record(&self.method, i32::from(self.code), self.begun.elapsed());
        if self.code == Code::Unauthenticated {
            self.metrics.authentication_failures.increment();
        }
        if self.code == Code::PermissionDenied {
            self.metrics.denials.increment();
        }
    }
}

struct Measured {
    inner: Body,
    count: Count,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.count.see(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Answers a scrape with all figures, and says whether the server is ready; everything else goes on.
#[derive(Clone)]
pub(super) struct Probes {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    in_flight: InFlight,
    committer: Arc<Committer>,
    keyring: Arc<Keyring>,
    service: Arc<Service>,
    engine: Arc<dyn StorageEngine>,
    identities: Identities,
    anchoring: Option<Arc<Anchoring>>,
}

impl Probes {
    pub(super) fn new(
        core: &Core,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
        in_flight: InFlight,
        identities: Identities,
    ) -> Self {
        Self {
            readiness,
            metrics,
            in_flight,
            committer: Arc::clone(&core.committer),
            keyring: Arc::clone(&core.keyring),
            service: Arc::clone(&core.service),
            engine: Arc::clone(&core.engine),
            identities,
            anchoring: core.anchoring.clone(),
        }
    }

    /// Copies in what other modules count for themselves.
    async fn collect(&self) {
        let metrics = &self.metrics;
        let (calls, streams) = self.in_flight.taken();
        metrics.requests_in_flight.set(calls as u64);
        metrics.streams_followed.set(streams as u64);
        metrics.identity_reload_failures.raise_to(self.identities.failures());
        let root = self.readiness.root();
        metrics.root_unwell_seconds.set(root.unwell_for().as_secs());
        metrics.root_key_changed_seconds.set(root.key_changed_for().as_secs());
        let commits = self.committer.stats();
        metrics.commit_groups.raise_to(commits.groups);
        metrics.commit_operations.raise_to(commits.operations);
        metrics.commit_events.raise_to(commits.events);
        metrics.commit_bytes.raise_to(commits.bytes);
        metrics.commit_conflicts.raise_to(commits.conflicts);
        metrics.commit_refused.raise_to(commits.overloaded);
        metrics.commit_queue_operations.set(commits.depth);
        metrics.audit_failures.raise_to(commits.log_failures);
        metrics.commit_seconds.copy(&LATENCY_BOUNDS_MS, &commits.latency);
        if let Some(anchor) = self.anchoring.as_ref().map(|anchoring| anchoring.health()) {
            metrics.audit_anchor_age_seconds.set(anchor.age.as_secs());
            metrics.audit_anchor_failures.raise_to(anchor.failures);
        }
        let keys = self.keyring.stats().sessions;
        metrics.key_cache_hits.raise_to(keys.hits);
        metrics.key_cache_misses.raise_to(keys.misses);
        let counts = self.service.counts();
        metrics.integrity_failures.raise_to(counts.integrity_failures);
        metrics.sweeper_expired.raise_to(counts.sessions_expired);
        metrics.sweeper_lag_seconds.set(counts.sweeper_lag.as_secs());
        for (metrics, job) in metrics.jobs.kinds().zip(counts.jobs) {
            metrics.running.set(job.running);
            metrics.sessions.raise_to(job.sessions);
            metrics.failures.raise_to(job.failures);
        }
        if let Ok(store) = self.engine.stats().await {
            metrics.store_disk_bytes.set(store.disk_bytes);
            metrics.store_rows.set(store.rows);
        }
    }
}

impl Probes {
    /// What a server that is ready should be looked after for.
    fn remark(&self) -> String {
        match self.anchoring.as_ref().map(|anchoring| anchoring.health()) {
            Some(AnchorHealth { failing: true, age, .. }) => {
                format!("the anchor of the access logs was last written {} s ago\n", age.as_secs())
            }
            Some(_) | None => String::new(),
        }
    }
}

impl Step for Probes {
    async fn run<S: Rpc>(&self, request: Request<Body>, mut next: S) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, METRICS) => {
                self.collect().await;
                return text(StatusCode::OK, FIGURES, self.metrics.render());
            }
            (&Method::GET, READY) if self.readiness.is_ready() => {
                return text(StatusCode::OK, PLAIN, format!("ready\n{}", self.remark()));
            }
            (&Method::GET, READY) => {
                return text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not ready\n".to_owned());
            }
            _ => {}
        }
        match next.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn text(code: StatusCode, kind: HeaderValue, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from(text))));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
