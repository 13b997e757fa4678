//! Which authenticator is asked, decided by what a request brought and never by what another one answered.

use std::sync::Arc;

use async_trait::async_trait;

use super::authenticate::TOKEN_PREFIX;
use super::{AuthenticateError, Authenticator, Credentials, Principal};

/// Asks one authenticator for each request: a bearer token goes before the connection's certificate, and one that is not
/// good is refused, however good the certificate is.
pub struct Gate {
    tokens: Arc<dyn Authenticator>,
    certificates: Option<Arc<dyn Authenticator>>,
    signed: Option<Arc<dyn Authenticator>>,
}

impl Gate {
    /// Accepts Strongroom's own tokens alone.
    #[must_use]
    pub const fn new(tokens: Arc<dyn Authenticator>) -> Self {
        Self { tokens, certificates: None, signed: None }
    }

    /// Accepts client certificates, too.
    #[must_use]
    pub fn with_certificates(self, certificates: Arc<dyn Authenticator>) -> Self {
        Self { certificates: Some(certificates), ..self }
    }

    /// Accepts tokens that others signed, too.
    #[must_use]
    pub fn with_signed(self, signed: Arc<dyn Authenticator>) -> Self {
        Self { signed: Some(signed), ..self }
    }
}

#[async_trait]
impl Authenticator for Gate {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthenticateError> {
        match (credentials.token(), &self.signed, &self.certificates) {
            (None, _, Some(certificates)) => certificates.authenticate(credentials).await,
            (None, _, None) => Err(AuthenticateError::Missing),
            (Some(token), Some(signed), _) if !token.starts_with(TOKEN_PREFIX) => {
                signed.authenticate(credentials).await
            }
            (Some(_), _, _) => self.tokens.authenticate(credentials).await,
        }
    }
}
