//! Authentication around every call of ours: who is calling, before anything else is looked at.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};

use super::error::refusal;
use super::layers::{Correlation, Rpc, Step};
use super::status::status;
use super::transport::Peer;
use crate::auth::{AuthenticateError, Authenticator, Caller, Credentials, Source};
use crate::proto::v1::ErrorReason;
use crate::service::Service;

/// Paths that need a caller. Health and reflection, which tell nothing of anybody, do not.
const OURS: &str = "/strongroom.v1.";

/// Authenticates every call of ours and puts the [`Caller`] into its extensions.
///
/// Refusals are on record, those from one address and minute as one event, so that a flood cannot fill the disk.
#[derive(Clone)]
pub struct Identify {
    authenticator: Arc<dyn Authenticator>,
    service: Arc<Service>,
}

impl Identify {
    /// Asks `authenticator` who is calling.
    #[must_use]
    pub fn new(authenticator: Arc<dyn Authenticator>, service: Arc<Service>) -> Self {
        Self { authenticator, service }
    }

    async fn caller(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Status> {
        let source = extensions.get::<Peer>().map(|peer| Source { address: peer.address.ip() });
        let certificate = extensions.get::<Peer>().and_then(|peer| peer.identity.clone());
        let credentials = match credentials(headers) {
            Ok(credentials) => credentials.over(certificate),
            Err(error) => return Err(self.refuse(source, error).await),
        };
        match self.authenticator.authenticate(&credentials).await {
            Ok(principal) => {
                let correlation = extensions.get::<Correlation>();
                let trace = correlation.and_then(|correlation| correlation.trace).map(|trace| trace.id);
                Ok(Caller { principal, source, trace })
            }
            Err(error) => Err(self.refuse(source, error).await),
        }
    }

    async fn refuse(&self, source: Option<Source>, error: AuthenticateError) -> Status {
        let address = source.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |source| source.address);
        match error {
            AuthenticateError::Unavailable => {
                return status(Code::Unavailable, ErrorReason::Unavailable, error.to_string()).build();
            }
            AuthenticateError::Damaged => return refusal(&self.service.record_damaged_token(address).await),
            AuthenticateError::Missing | AuthenticateError::Invalid => {}
        }
        if self.service.record_refusal(address).await.is_err() {
            let text = "the access log cannot be written";
            return status(Code::Unavailable, ErrorReason::AuditUnavailable, text).build();
        }
        status(Code::Unauthenticated, ErrorReason::Unauthenticated, error.to_string()).build()
    }
}

impl Step for Identify {
    async fn run<S: Rpc>(&self, mut request: Request<Body>, mut next: S) -> Response<Body> {
        if request.uri().path().starts_with(OURS) {
            let (head, body) = request.into_parts();
            let caller = match self.caller(&head.headers, &head.extensions).await {
                Ok(caller) => caller,
                Err(refusal) => return refusal.into_http(),
            };
            request = Request::from_parts(head, body);
            request.extensions_mut().insert(Arc::new(caller));
            // The token has done its work: nothing behind this can log or store it.
            request.headers_mut().remove(AUTHORIZATION);
        }
        match next.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// At most one `authorization: Bearer …`.
fn credentials(headers: &HeaderMap) -> Result<Credentials, AuthenticateError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(Credentials::none()) };
    if values.next().is_some() {
        return Err(AuthenticateError::Invalid);
    }
    let text = value.to_str().map_err(|_| AuthenticateError::Invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthenticateError::Invalid)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Credentials::bearer(token))
    } else {
        Err(AuthenticateError::Invalid)
    }
}
