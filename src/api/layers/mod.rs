//! What every call goes through before and after its handler, as tower layers.
//!
//! From the outside in: [`Correlate`] (request id, trace, span), [`Contain`] (panics), [`Protocol`] (gRPC's framing, sizes,
//! compression), [`InFlight`] (how many at once), [`Deadlines`]. [`Stack`] puts them together. Each answers for itself with a
//! status that carries `google.rpc` details, so nothing above needs to know it, and none looks into a message.
//!
//! Who the caller is, is not decided here.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

mod body;
mod contain;
mod correlate;
mod deadline;
mod framing;
mod in_flight;
mod memory;
mod methods;
mod protocol;

pub use contain::{Contain, install_panic_hook};
pub use correlate::{Correlate, Correlation, REQUEST_ID_HEADER, Trace};
pub use deadline::{Deadline, Deadlines};
pub use in_flight::InFlight;
pub use methods::{MethodKind, Methods};
pub use protocol::{MessageLimits, Protocol};

/// A service that answers gRPC calls: what a [`Step`] wraps, and what a listener serves.
pub trait Rpc:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Rpc for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// One thing that is done around every call. Clones share their state.
pub trait Step: Clone + Send + Sync + 'static {
    /// Answers `request`, by calling `next` or instead of it.
    fn run<S: Rpc>(&self, request: Request<Body>, next: S) -> impl Future<Output = Response<Body>> + Send;
}

/// The tower layer of a [`Step`].
#[derive(Debug, Clone)]
pub struct Around<P>(pub P);

impl<P: Step, S> Layer<S> for Around<P> {
    type Service = Stepped<P, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Stepped { step: self.0.clone(), inner }
    }
}

/// A service behind a [`Step`].
#[derive(Debug, Clone)]
pub struct Stepped<P, S> {
    step: P,
    inner: S,
}

impl<P: Step, S: Rpc> Service<Request<Body>> for Stepped<P, S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone has not been polled for readiness, the original has: it is the original that is called.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let step = self.step.clone();
        Box::pin(async move { Ok(step.run(request, inner).await) })
    }
}

/// Calls the service behind a step.
async fn proceed<S: Rpc>(mut next: S, request: Request<Body>) -> Response<Body> {
    match next.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// All layers together, in their order.
#[derive(Debug, Clone)]
pub struct Stack {
    methods: Arc<Methods>,
    correlate: Correlate,
    in_flight: InFlight,
    protocol: Protocol,
    ceiling: Duration,
}

impl Stack {
    /// Takes what is particular to an installation: the methods that are served, how ids are made for requests that bring
    /// none, the bounds. `ceiling` is the longest that a call may take. The services that one stack wraps count together.
    pub fn new(
        methods: Arc<Methods>,
        mint: impl Fn() -> [u8; 16] + Send + Sync + 'static,
        in_flight: InFlight,
        messages: MessageLimits,
        ceiling: Duration,
    ) -> Self {
        let correlate = Correlate::new(Arc::clone(&methods), mint);
        Self { methods, correlate, in_flight, protocol: Protocol::new(messages), ceiling }
    }

    /// Wraps `service`.
    pub fn around<S: Rpc>(&self, service: S) -> impl Rpc + use<S> {
        let service = Around(Deadlines::new(Arc::clone(&self.methods), self.ceiling)).layer(service);
        let service = Around(self.in_flight.clone()).layer(service);
        let service = Around(self.protocol.clone()).layer(service);
        let service = Around(Contain).layer(service);
        Around(self.correlate.clone()).layer(service)
    }
}
