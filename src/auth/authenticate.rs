//! From credentials to a principal.

use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{ClientCertificate, Principal};
use crate::env::Clock;
use crate::model::limits::TOKEN_BYTES;
use crate::model::{Grant, Scopes, TenantSet, Timestamp, TokenName};

/// What a request brought to prove who sent it. `Debug` shows nothing of it.
#[derive(Default)]
pub struct Credentials {
    bearer: Option<Zeroizing<String>>,
    certificate: Option<Arc<ClientCertificate>>,
}

impl Credentials {
    /// Credentials that prove nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A bearer token.
    #[must_use]
    pub fn bearer(token: &str) -> Self {
        Self { bearer: Some(Zeroizing::new(token.to_owned())), certificate: None }
    }

    /// The same over a connection whose peer proved to hold `certificate`.
    #[must_use]
    pub fn over(self, certificate: Option<Arc<ClientCertificate>>) -> Self {
        Self { certificate, ..self }
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.bearer.as_ref().map(|token| token.as_str())
    }

    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_deref()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Why credentials were not accepted. The caller is told `Invalid` and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// There are none.
    #[error("no credentials")]
    Missing,
    /// They are malformed, unknown, expired or revoked.
    #[error("the credentials are not valid")]
    Invalid,
    /// What is stored of them does not open, so that they cannot be checked any more.
    #[error("what is stored of the credentials is damaged")]
    Damaged,
    /// They could not be checked; the caller may try again.
    #[error("credentials cannot be checked now")]
    Unavailable,
}

/// Turns credentials into a principal.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Checks `credentials` as of now.
    ///
    /// # Errors
    /// [`AuthenticateError`]; it never tells which part of the credentials was wrong.
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthenticateError>;
}

/// How Strongroom's own tokens begin.
pub(super) const TOKEN_PREFIX: &str = "srt_";

/// What a stored token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    /// Public name.
    pub name: TokenName,
    /// What it allows.
    pub scopes: Scopes,
    /// For which tenants.
    pub tenants: TenantSet,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Finds tokens by the digest of their secret.
#[async_trait]
pub trait TokenDirectory: Send + Sync + 'static {
    /// The token with this digest, if there is one.
    ///
    /// # Errors
    /// [`AuthenticateError::Unavailable`] when it cannot be looked up, [`AuthenticateError::Damaged`] when it does not open;
    /// never `Ok(None)` in these cases.
    async fn find(&self, digest: &[u8; 32]) -> Result<Option<TokenGrant>, AuthenticateError>;
}

/// Accepts Strongroom's own tokens: `srt_` and 43 characters of base64url, 256 random bits.
///
/// The lookup goes by SHA-256 of the whole token, so neither its time nor its row says anything about a wrong one.
pub struct TokenAuthenticator {
    directory: Arc<dyn TokenDirectory>,
    clock: Arc<dyn Clock>,
}

impl TokenAuthenticator {
    /// Checks tokens against `directory`.
    #[must_use]
    pub fn new(directory: Arc<dyn TokenDirectory>, clock: Arc<dyn Clock>) -> Self {
        Self { directory, clock }
    }
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthenticateError> {
        let token = credentials.token().ok_or(AuthenticateError::Missing)?;
        if token.len() > TOKEN_BYTES || !token.starts_with(TOKEN_PREFIX) {
            return Err(AuthenticateError::Invalid);
        }
        let grant = self.directory.find(&token_digest(token)).await?.ok_or(AuthenticateError::Invalid)?;
        if grant.revoked || grant.expires <= self.clock.now() {
            return Err(AuthenticateError::Invalid);
        }
        let id = format!("token:{}", grant.name.as_str());
        let TokenGrant { scopes, tenants, expires, .. } = grant;
        Ok(Principal::new(id, Arc::new([Grant { scopes, tenants }]), expires))
    }
}

/// SHA-256 of a token's text, by which it is stored and found; the token itself is never stored.
#[must_use]
pub fn token_digest(token: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Scope;

    struct Fixed(Timestamp);

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    struct One {
        digest: [u8; 32],
        grant: TokenGrant,
    }

    #[async_trait]
    impl TokenDirectory for One {
        async fn find(&self, digest: &[u8; 32]) -> Result<Option<TokenGrant>, AuthenticateError> {
            Ok((*digest == self.digest).then(|| self.grant.clone()))
        }
    }

    fn authenticator(revoked: bool, now: u64) -> TokenAuthenticator {
        let grant = TokenGrant {
            name: TokenName::new("app").unwrap(),
            scopes: [Scope::Read].into_iter().collect(),
            tenants: TenantSet::All,
            expires: Timestamp::from_millis(1000),
            revoked,
        };
        let directory = One { digest: token_digest("srt_right"), grant };
        TokenAuthenticator::new(Arc::new(directory), Arc::new(Fixed(Timestamp::from_millis(now))))
    }

    async fn outcome(authenticator: &TokenAuthenticator, token: &str) -> Result<String, AuthenticateError> {
        let principal = authenticator.authenticate(&Credentials::bearer(token)).await?;
        Ok(principal.id().to_owned())
    }

    #[tokio::test]
    async fn the_right_token_is_accepted_until_it_expires() {
        assert_eq!(outcome(&authenticator(false, 999), "srt_right").await, Ok("token:app".to_owned()));
        assert_eq!(outcome(&authenticator(false, 1000), "srt_right").await, Err(AuthenticateError::Invalid));
    }

    #[tokio::test]
    async fn wrong_revoked_foreign_and_oversize_tokens_are_all_the_same_error() {
        for token in ["srt_wrong", "", "right", &format!("srt_{}", "x".repeat(100))] {
            assert_eq!(outcome(&authenticator(false, 0), token).await, Err(AuthenticateError::Invalid));
        }
        assert_eq!(outcome(&authenticator(true, 0), "srt_right").await, Err(AuthenticateError::Invalid));
        let none = authenticator(false, 0).authenticate(&Credentials::none()).await;
        assert_eq!(none.err(), Some(AuthenticateError::Missing));
    }
}
