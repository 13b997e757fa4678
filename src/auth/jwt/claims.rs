//! What a token claims.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use crate::model::{Timestamp, is_plain};

/// Most audiences of one token.
const AUDIENCES: usize = 16;

/// The claims that count; others are left alone. A claim of another type than it must have is an error, not an absence.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// How a token is bound to who presents it. A way that we do not know is refused, because it would not be checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    certificate: String,
}

/// The token is bound to something that is no digest of a certificate.
pub(super) struct NotADigest;

impl Claims {
    pub(super) fn issuer(&self) -> &str {
        &self.iss
    }

    pub(super) fn subject(&self) -> Option<&str> {
        is_plain(&self.sub).then_some(self.sub.as_str())
    }

    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Several(several) => {
                several.len() <= AUDIENCES && several.iter().any(|one| one == audience)
            }
        }
    }

    pub(super) const fn begins(&self) -> Timestamp {
        Timestamp::from_millis(self.nbf.saturating_mul(1000))
    }

    pub(super) const fn ends(&self) -> Timestamp {
        Timestamp::from_millis(self.exp.saturating_mul(1000))
    }

    /// SHA-256 of the certificate that the token is bound to.
    pub(super) fn certificate(&self) -> Result<Option<[u8; 32]>, NotADigest> {
        let Some(confirmation) = &self.cnf else { return Ok(None) };
        let digest = BASE64URL_NOPAD.decode(confirmation.certificate.as_bytes()).map_err(|_| NotADigest)?;
        digest.try_into().map(Some).map_err(|_| NotADigest)
    }
}
