//! Callers that present a token which somebody else signed: JWTs in the compact form (RFC 7519, RFC 7515).
//!
//! The order is that of the least work for a stranger: size, form, header, issuer, algorithm, key; then the signature, by
//! ring; and only then anything that the token claims. Nothing in a token decides where a key comes from: its `kid` is
//! compared with those of the issuer's set and used for nothing else, and a token that brings keys or addresses of keys
//! is refused. Whatever is wrong, the caller learns the same.

mod claims;
mod header;
mod keys;

use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;

use super::{AuthenticateError, Authenticator, Credentials, Principal};
use crate::env::Clock;
use crate::model::limits::SIGNED_TOKEN_BYTES;
use crate::model::{Bindings, Duration, Identity, SignatureAlgorithm, Timestamp};

use claims::Claims;
use header::Header;
pub use keys::{KeySet, KeySetError, KeySource};

/// An issuer whose tokens are accepted.
pub struct Issuer {
    /// Its name, exactly as in the tokens.
    pub name: String,
    /// Our name, which must be among those that a token is for.
    pub audience: String,
    /// What it may sign with.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// Its public keys.
    pub keys: Arc<KeySource>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Whether its tokens must be bound to the client's certificate.
    pub certificate_bound: bool,
}

/// Accepts tokens of configured issuers for subjects that a binding grants something.
pub struct JwtAuthenticator {
    issuers: Vec<Issuer>,
    bindings: Arc<Bindings>,
    clock: Arc<dyn Clock>,
}

/// A token that is taken apart and not yet believed.
struct Parts<'t> {
    header: Header,
    claims: Claims,
    signed: &'t [u8],
    signature: Vec<u8>,
}

impl JwtAuthenticator {
    /// Accepts tokens of `issuers`.
    #[must_use]
    pub const fn new(issuers: Vec<Issuer>, bindings: Arc<Bindings>, clock: Arc<dyn Clock>) -> Self {
        Self { issuers, bindings, clock }
    }

    /// The principal of a token, unless anything is wrong with it.
    fn accept(&self, token: &str, credentials: &Credentials) -> Option<Principal> {
        let parts = Parts::of(token)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name == parts.claims.issuer())?;
        let algorithm = parts.header.algorithm().filter(|named| issuer.algorithms.contains(named))?;
        issuer.keys.current().verify(parts.header.kid(), algorithm, parts.signed, &parts.signature)?;
        let expires = issuer.believe(&parts.claims, self.clock.now(), credentials)?;
        let (issuer, subject) = (issuer.name.clone(), parts.claims.subject()?);
        let identity = Identity::Subject { issuer, subject: subject.to_owned() };
        let grants = self.bindings.grants(&identity);
        // Who is named by nobody is not a principal: the same as an unknown token.
        (!grants.is_empty()).then(|| Principal::new(identity.id(), grants, expires))
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthenticateError> {
        let token = credentials.token().ok_or(AuthenticateError::Missing)?;
        self.accept(token, credentials).ok_or(AuthenticateError::Invalid)
    }
}

impl Issuer {
    /// Checks what a verified token claims, and says when it ends.
    fn believe(&self, claims: &Claims, now: Timestamp, credentials: &Credentials) -> Option<Timestamp> {
        if !claims.is_for(&self.audience) || now.after(self.leeway) < claims.begins() {
            return None;
        }
        let ends = claims.ends().after(self.leeway);
        let bound = claims.certificate().ok()?;
        let shown = credentials.certificate().map(|certificate| *certificate.digest());
        let is_bound = match bound {
            Some(bound) => shown == Some(bound),
            None => !self.certificate_bound,
        };
        (is_bound && now < ends).then_some(ends)
    }
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Option<Self> {
        if token.len() > SIGNED_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        // Base64 with another alphabet, padding, a further dot or stray bits at the end does not decode.
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).ok();
        Some(Self {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }
}
