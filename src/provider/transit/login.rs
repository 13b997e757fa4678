//! Who asks: a token from a file, or one that a Kubernetes service account's token was exchanged for.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::error::{TransitCall, TransitError};
use super::https::{Https, read_token};
use crate::env::Clock;
use crate::model::{Duration, Timestamp};

/// Longest that a token from a login is used, whatever its lease says.
const LONGEST: Duration = Duration::from_secs(3600);

/// How the server is shown who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A file with a token, which is read for each call: whoever keeps it fresh only needs to replace it.
    TokenFile(PathBuf),
    /// The token of a Kubernetes service account.
    Kubernetes(Kubernetes),
}

/// Kubernetes auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// Where the auth method is mounted; usually `kubernetes`.
    pub mount: String,
    /// The role to log in with.
    pub role: String,
    /// The file with the service account's token; it is read for each login.
    pub jwt: PathBuf,
}

/// Gives a valid token for each call.
pub(super) enum Login {
    File(PathBuf),
    Kubernetes { path: String, options: Kubernetes, lease: Mutex<Option<Lease>>, clock: Arc<dyn Clock> },
}

/// A token, and until when it is used: a third before its lease ends.
pub(super) struct Lease {
    token: Zeroizing<String>,
    until: Timestamp,
}

#[derive(Serialize)]
struct LoginRequest<'a> {
    role: &'a str,
    jwt: &'a str,
}

#[derive(Deserialize)]
struct LoginAnswer {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Zeroizing<String>,
    lease_duration: u64,
}

impl Login {
    pub(super) fn new(credential: Credential, clock: Arc<dyn Clock>) -> Self {
        match credential {
            Credential::TokenFile(path) => Self::File(path),
            Credential::Kubernetes(options) => {
                let path = format!("/v1/auth/{}/login", options.mount);
                Self::Kubernetes { path, options, lease: Mutex::new(None), clock }
            }
        }
    }

    /// A token that should be valid. One login at a time: who comes meanwhile uses its token.
    pub(super) async fn token(
        &self,
        https: &Https,
        headers: HeaderMap,
    ) -> Result<Zeroizing<String>, TransitError> {
        let (path, options, lease, clock) = match self {
            Self::File(path) => return read_token(path).await,
            Self::Kubernetes { path, options, lease, clock } => (path, options, lease, clock),
        };
        let mut lease = lease.lock().await;
        if let Some(lease) = lease.as_ref().filter(|lease| clock.now() < lease.until) {
            return Ok(lease.token.clone());
        }
        *lease = None;
        // Measured from before the login, so that what it takes is not added to the lease.
        let begun = clock.now();
        let auth = log_in(https, path, headers, options).await?;
        let leased = Duration::from_secs(auth.lease_duration.min(LONGEST.as_secs()));
        // A lease of zero has no end.
        let leased = if leased.is_zero() { LONGEST } else { leased };
        let token = auth.client_token.clone();
        *lease = Some(Lease { token: auth.client_token, until: begun.after(leased * 2 / 3) });
        Ok(token)
    }

    /// Drops a token that was refused. Says whether another can be had by logging in again.
    pub(super) async fn forget(&self, refused: &str) -> bool {
        match self {
            Self::File(_) => false,
            Self::Kubernetes { lease, .. } => {
                let mut lease = lease.lock().await;
                if lease.as_ref().is_some_and(|lease| *lease.token == refused) {
                    *lease = None;
                }
                true
            }
        }
    }
}

async fn log_in(
    https: &Https,
    path: &str,
    headers: HeaderMap,
    options: &Kubernetes,
) -> Result<Auth, TransitError> {
    let call = TransitCall::Login;
    let jwt = read_token(&options.jwt).await?;
    let body = serde_json::to_vec(&LoginRequest { role: &options.role, jwt: &jwt });
    let body = Zeroizing::new(body.map_err(|_| TransitError::Malformed { call })?);
    let LoginAnswer { auth } = https.post(call, path, headers, body).await?;
    let visible = |token: &str| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if visible(&auth.client_token) { Ok(auth) } else { Err(TransitError::Malformed { call }) }
}
