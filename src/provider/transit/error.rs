//! What can go wrong with a transit engine.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use crate::keyring::{PROVIDER_SECRET_BYTES, ProviderError};

/// A call of the server that has the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitCall {
    /// Wrap.
    Encrypt,
    /// Unwrap.
    Decrypt,
    /// Exchange a service account's token for one of the server's.
    Login,
}

impl std::fmt::Display for TransitCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Login => "login",
        })
    }
}

/// What can go wrong with a transit engine. No variant holds a token or anything that was wrapped or unwrapped, and the
/// server's own words are not repeated: they may have been written with the secret at hand.
#[derive(Debug, thiserror::Error)]
pub enum TransitError {
    /// The address is not `https://host[:port]`.
    #[error("the address must be https://host[:port]")]
    Address,
    /// An option has characters that have no place in a path or a header.
    #[error("{option} has characters that are not allowed in it")]
    Option {
        /// Which option.
        option: &'static str,
    },
    /// A file that is needed for the call cannot be used.
    #[error("{} {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The server cannot be reached, or its certificate is not one of the authority's for this host.
    #[error("{call}: no connection: {kind}")]
    Unreachable {
        /// The call.
        call: TransitCall,
        /// What the system or TLS said.
        kind: std::io::ErrorKind,
    },
    /// The certificate is not one of the authority's for this host, or TLS failed otherwise.
    #[error("{call}: the server could not be authenticated by TLS")]
    Tls {
        /// The call.
        call: TransitCall,
    },
    /// The server did not answer in time.
    #[error("{call}: no answer within {after:?}")]
    Deadline {
        /// The call.
        call: TransitCall,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("{call}: the connection broke")]
    Broken {
        /// The call.
        call: TransitCall,
    },
    /// The answer is larger than any that is expected.
    #[error("{call}: the answer is larger than {max} bytes")]
    AnswerTooLarge {
        /// The call.
        call: TransitCall,
        /// The bound.
        max: usize,
    },
    /// The answer is not the JSON that is expected.
    #[error("{call}: the answer is not what the engine should say")]
    Malformed {
        /// The call.
        call: TransitCall,
    },
    /// 400: the request does not fit the key, or the ciphertext is not the key's.
    #[error("{call}: the server finds fault with the request (400)")]
    BadRequest {
        /// The call.
        call: TransitCall,
    },
    /// 403: the token is not valid any more, or may not use the key.
    #[error("{call}: the token is not valid or may not do this (403)")]
    Denied {
        /// The call.
        call: TransitCall,
    },
    /// 404: there is no such mount or key.
    #[error("{call}: there is no such mount or key (404)")]
    NotFound {
        /// The call.
        call: TransitCall,
    },
    /// 429: too many requests, or a standby node.
    #[error("{call}: the server limits the rate, or is a standby (429)")]
    RateLimited {
        /// The call.
        call: TransitCall,
    },
    /// 503: the server is sealed or in maintenance.
    #[error("{call}: the server is sealed or in maintenance (503)")]
    Sealed {
        /// The call.
        call: TransitCall,
    },
    /// Another status. Redirections are not followed: they would carry the token elsewhere.
    #[error("{call}: the server answered {status}")]
    Refused {
        /// The call.
        call: TransitCall,
        /// The status.
        status: StatusCode,
    },
    /// What it wrapped does not unwrap to the same.
    #[error("what the engine wraps does not unwrap to the same")]
    NotTheSame,
    /// More was to be wrapped than is allowed.
    #[error("it wraps at most {PROVIDER_SECRET_BYTES} bytes")]
    SecretTooLarge,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// It is larger than any such file may be.
    #[error("is larger than {0} bytes")]
    TooLarge(usize),
    /// It does not hold a token: visible characters and a line end.
    #[error("does not hold a token")]
    NotAToken,
    /// It does not hold certificates.
    #[error("does not hold certificates in PEM")]
    NotCertificates,
}

impl TransitError {
    /// The named error of a status that is no success.
    pub(super) fn of_status(call: TransitCall, status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::BadRequest { call },
            403 => Self::Denied { call },
            404 => Self::NotFound { call },
            429 => Self::RateLimited { call },
            503 => Self::Sealed { call },
            _ => Self::Refused { call, status },
        }
    }
}

impl From<TransitError> for ProviderError {
    fn from(error: TransitError) -> Self {
        let too_large = matches!(error, TransitError::SecretTooLarge);
        if too_large { Self::TooLarge } else { Self::Unavailable(error.to_string()) }
    }
}
