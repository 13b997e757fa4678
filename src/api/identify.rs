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
use crate::auth::{AuthenticateError, Authenticator, Caller, Credentials, Principal, Source};
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

    async fn caller(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<(Caller, Standing), Status> {
        let source = extensions.get::<Peer>().map(|peer| Source { address: peer.address.ip() });
        let certificate = extensions.get::<Peer>().and_then(|peer| peer.identity.clone());
        let credentials = match credentials(headers) {
            Ok(credentials) => credentials.over(certificate),
            Err(error) => return Err(self.refuse(source, error).await),
        };
        let standing = Standing { identify: self.clone(), credentials: Arc::new(credentials), source };
        let principal = standing.confirm().await?;
        let correlation = extensions.get::<Correlation>();
        let trace = correlation.and_then(|correlation| correlation.trace).map(|trace| trace.id);
        Ok((Caller { principal, source, trace }, standing))
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

/// The credentials of a call that goes on, to be looked at again while it does: they may be revoked in between.
#[derive(Clone)]
pub(super) struct Standing {
    identify: Identify,
    credentials: Arc<Credentials>,
    source: Option<Source>,
}

impl Standing {
    /// Whom the credentials name now. A refusal is on record.
    pub(super) async fn confirm(&self) -> Result<Principal, Status> {
        match self.identify.authenticator.authenticate(&self.credentials).await {
            Ok(principal) => Ok(principal),
            Err(error) => Err(self.identify.refuse(self.source, error).await),
        }
    }
}

impl Step for Identify {
    async fn run<S: Rpc>(&self, mut request: Request<Body>, mut next: S) -> Response<Body> {
        if request.uri().path().starts_with(OURS) {
            let (head, body) = request.into_parts();
            let (caller, standing) = match self.caller(&head.headers, &head.extensions).await {
                Ok(found) => found,
                Err(refusal) => return refusal.into_http(),
            };
            request = Request::from_parts(head, body);
            request.extensions_mut().insert(Arc::new(caller));
            request.extensions_mut().insert(standing);
            // Nothing behind this can log or store the token: what stands for it can only be asked whether it is still good.
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
