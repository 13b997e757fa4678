//! The seam to whoever holds the root key.

use std::fmt;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::model::StoreId;

/// Most bytes that a provider is asked to wrap: the bound of Kubernetes KMS v2, the narrowest of them.
pub const PROVIDER_SECRET_BYTES: usize = 1024;

/// What kind of provider it is. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ProviderKind {
    /// A keyring file.
    File = 1,
    /// An offline X25519 key: it can only be wrapped for, and unwraps by hand.
    Recovery = 2,
    /// A Kubernetes KMS v2 plugin.
    Kms = 3,
    /// A transit engine of Vault or OpenBao.
    Transit = 4,
}

impl ProviderKind {
    pub(super) const fn from_stored(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::File),
            2 => Some(Self::Recovery),
            3 => Some(Self::Kms),
            4 => Some(Self::Transit),
            _ => None,
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "keyring file",
            Self::Recovery => "recovery key",
            Self::Kms => "KMS plugin",
            Self::Transit => "transit engine",
        })
    }
}

/// What a provider says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderStatus {
    /// The id of the key that it wraps with now.
    pub key_id: String,
}

/// A secret as a provider wrapped it. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The key that wrapped it.
    pub key_id: String,
    /// What the provider wants to see again, by name.
    pub annotations: Vec<(String, Vec<u8>)>,
    /// The wrapped secret.
    pub ciphertext: Vec<u8>,
}

/// Why a provider did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It does not hold the key that wrapped the secret.
    #[error("it does not hold the key that is asked for")]
    UnknownKey,
    /// What it was given does not unwrap.
    #[error("what is stored does not unwrap")]
    Rejected,
    /// The secret is larger than [`PROVIDER_SECRET_BYTES`].
    #[error("it wraps at most {PROVIDER_SECRET_BYTES} bytes")]
    TooLarge,
    /// It could not be reached or could not work; asking again later may help.
    #[error("{0}")]
    Unavailable(String),
}

/// A holder of a root key: a file, a key management service.
///
/// As narrow as Kubernetes KMS v2: secrets of at most [`PROVIDER_SECRET_BYTES`], no associated data. It is asked when a
/// process starts and when a store is made, never for a request.
#[async_trait]
pub trait RootProvider: Send + Sync {
    /// What kind of provider it is.
    fn kind(&self) -> ProviderKind;

    /// Which key it wraps with now.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] when it cannot say.
    async fn status(&self) -> Result<ProviderStatus, ProviderError>;

    /// Wraps a secret for a store. A provider that can bind a context binds the store's id; one that cannot leaves it.
    ///
    /// # Errors
    /// [`ProviderError`] when it cannot.
    async fn wrap(&self, store: StoreId, secret: &[u8]) -> Result<Wrapped, ProviderError>;

    /// Unwraps what this provider wrapped for the store.
    ///
    /// # Errors
    /// [`ProviderError`] when it cannot.
    async fn unwrap(&self, store: StoreId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError>;
}
