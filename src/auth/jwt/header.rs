//! The header of a token.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::model::SignatureAlgorithm;

/// What a token says of its own signature. A member that stands twice is an error, as in all that we read.
#[derive(Deserialize)]
pub(super) struct Header {
    alg: String,
    kid: String,
    typ: Option<String>,
    // Whoever asks that we understand an extension is refused, and whoever brings a key or says where one is, too.
    crit: Option<IgnoredAny>,
    jwk: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
    zip: Option<IgnoredAny>,
}

impl Header {
    /// What the token is signed with, if it is something that we know and the rest of the header is acceptable.
    pub(super) fn algorithm(&self) -> Option<SignatureAlgorithm> {
        let foreign = [&self.crit, &self.jwk, &self.jku, &self.x5u, &self.x5c, &self.b64, &self.zip];
        let is_plain = foreign.iter().all(|member| member.is_none());
        let kinds = ["jwt", "at+jwt", "application/at+jwt"];
        let is_token =
            self.typ.as_ref().is_none_or(|typ| kinds.iter().any(|kind| typ.eq_ignore_ascii_case(kind)));
        SignatureAlgorithm::from_name(&self.alg).filter(|_| is_plain && is_token)
    }

    /// The name of its key in the issuer's set.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }
}
