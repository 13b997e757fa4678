//! What can go wrong with a plugin.

use std::path::PathBuf;
use std::time::Duration;

use tonic::Code;

use super::rules::{ANNOTATION_BYTES, CIPHERTEXT_BYTES, KEY_ID_BYTES, VERSION};
use crate::env::EntropyError;
use crate::keyring::{PROVIDER_SECRET_BYTES, ProviderError};

/// A call of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KmsCall {
    /// How it is.
    Status,
    /// Wrap.
    Encrypt,
    /// Unwrap.
    Decrypt,
}

impl std::fmt::Display for KmsCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Status => "Status",
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
        })
    }
}

/// What can go wrong with a plugin. No variant holds anything that was wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// Nobody answers at the socket, or not in gRPC.
    #[error("{call}: no plugin answers at {}", .socket.display())]
    Unreachable {
        /// The call.
        call: KmsCall,
        /// The socket.
        socket: PathBuf,
    },
    /// The plugin did not answer in time.
    #[error("{call}: no answer within {after:?}")]
    Deadline {
        /// The call.
        call: KmsCall,
        /// The deadline.
        after: Duration,
    },
    /// The plugin answered with an error. Its text is not repeated: it may have been written with the secret at hand. The
    /// plugin's own log has it.
    #[error("{call}: the plugin answered {code:?}; its log says why")]
    Refused {
        /// The call.
        call: KmsCall,
        /// The gRPC code.
        code: Code,
    },
    /// The answer is larger than any that the contract allows.
    #[error("{call}: the answer is larger than {max} bytes")]
    AnswerTooLarge {
        /// The call.
        call: KmsCall,
        /// The bound.
        max: usize,
    },
    /// The answer is no message of the contract.
    #[error("{call}: the answer is not valid protobuf")]
    Malformed {
        /// The call.
        call: KmsCall,
    },
    /// The plugin speaks another version of the contract.
    #[error("the plugin speaks version {found:?}; this program speaks {VERSION:?}")]
    Version {
        /// The plugin's version, shortened.
        found: String,
    },
    /// The plugin says that it is not well.
    #[error("the plugin says that it is unhealthy: {healthz:?}")]
    Unhealthy {
        /// What it says, shortened.
        healthz: String,
    },
    /// A key id is empty, too long, or has control characters in it.
    #[error("{call}: the key id is not 1 to {KEY_ID_BYTES} bytes of text")]
    KeyId {
        /// The call.
        call: KmsCall,
    },
    /// The plugin wrapped with another key than it says that it wraps with, again and again.
    #[error("the plugin wraps with another key than its status names, {attempts} times in a row")]
    KeyIdUnsettled {
        /// How often it was asked.
        attempts: usize,
    },
    /// What it wrapped is empty or too large.
    #[error("the ciphertext is not 1 to {CIPHERTEXT_BYTES} bytes")]
    Ciphertext,
    /// The name of an annotation is no fully qualified domain name.
    #[error("the name of an annotation is not a fully qualified domain name")]
    AnnotationName,
    /// The annotations are too large.
    #[error("the annotations are larger than {ANNOTATION_BYTES} bytes")]
    Annotations,
    /// What it unwrapped is empty or larger than anything that was wrapped.
    #[error("what was unwrapped is not 1 to {PROVIDER_SECRET_BYTES} bytes")]
    Plaintext,
    /// What it wrapped does not unwrap to the same.
    #[error("what the plugin wraps does not unwrap to the same")]
    NotTheSame,
    /// More was to be wrapped than the contract allows.
    #[error("it wraps at most {PROVIDER_SECRET_BYTES} bytes")]
    SecretTooLarge,
    /// The system's random number generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl From<KmsError> for ProviderError {
    fn from(error: KmsError) -> Self {
        let too_large = matches!(error, KmsError::SecretTooLarge);
        if too_large { Self::TooLarge } else { Self::Unavailable(error.to_string()) }
    }
}
