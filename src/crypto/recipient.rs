//! A recovery recipient: an X25519 key pair whose private half stays offline.
//!
//! The construction is that of age's X25519 stanza (C2SP `age.md`, "The X25519 recipient type"): an ephemeral key agrees
//! with the recipient's, HKDF-SHA-256 over the shared secret with both public keys as salt gives a wrapping key; what is
//! wrapped is a sealed record under it.

use ring::hkdf;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::label;
use super::secret::{ProviderKey, Secret, WrappableKey};
use crate::env::{Entropy, EntropyError};

/// Why a recipient could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// The public key is of low order, so the agreement would be known to everyone.
    #[error("the recovery public key is not usable")]
    LowOrder,
    /// The system's random number generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The public half, kept beside the root provider's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryPublicKey(pub [u8; 32]);

/// The private half, kept offline.
pub struct RecoveryPrivateKey(Secret);

impl std::fmt::Debug for RecoveryPrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryPrivateKey(…)")
    }
}

impl RecoveryPublicKey {
    /// Makes a fresh wrapping key that only the recipient can make again, and the ephemeral public key to store with it.
    ///
    /// # Errors
    /// [`RecipientError`] when the key is of low order or entropy fails.
    pub fn agree(&self, entropy: &dyn Entropy) -> Result<(ProviderKey, [u8; 32]), RecipientError> {
        let ephemeral = RecoveryPrivateKey(Secret::generate(entropy)?);
        let ephemeral_public = ephemeral.public();
        let key = ephemeral.agreement(&ephemeral_public.0, &self.0, &self.0)?;
        Ok((key, ephemeral_public.0))
    }
}

impl RecoveryPrivateKey {
    /// Takes the role of a secret.
    #[must_use]
    pub fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }

    /// The secret, for writing it to its offline home.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> RecoveryPublicKey {
        RecoveryPublicKey(PublicKey::from(&self.scalar()).to_bytes())
    }

    /// Makes the wrapping key again that [`RecoveryPublicKey::agree`] made with this ephemeral key.
    ///
    /// # Errors
    /// [`RecipientError::LowOrder`] when the ephemeral key is of low order.
    pub fn recover(&self, ephemeral_public: &[u8; 32]) -> Result<ProviderKey, RecipientError> {
        self.agreement(ephemeral_public, &self.public().0, ephemeral_public)
    }

    /// `ephemeral` and `recipient` are the two public keys; `theirs` is the one that is not ours.
    fn agreement(
        &self,
        ephemeral: &[u8; 32],
        recipient: &[u8; 32],
        theirs: &[u8; 32],
    ) -> Result<ProviderKey, RecipientError> {
        let shared = self.scalar().diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return Err(RecipientError::LowOrder);
        }
        let salt = [ephemeral.as_slice(), recipient.as_slice()].concat();
        let prk = Box::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(shared.as_bytes()));
        let mut key = Zeroizing::new([0; 32]);
        prk.expand(&[label::RECIPIENT.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key[..]))
            .map_err(|_| RecipientError::LowOrder)?;
        let secret = Secret::from_slice(&key[..]).map_err(|_| RecipientError::LowOrder)?;
        Ok(ProviderKey::from_secret(secret))
    }

    fn scalar(&self) -> StaticSecret {
        StaticSecret::from(*self.0.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEntropy;

    #[test]
    fn both_sides_make_the_same_key_and_another_recipient_does_not() {
        let entropy = SystemEntropy::new();
        let recipient = RecoveryPrivateKey::from_secret(Secret::generate(&entropy).unwrap());
        let other = RecoveryPrivateKey::from_secret(Secret::generate(&entropy).unwrap());
        let (key, ephemeral) = recipient.public().agree(&entropy).unwrap();
        let again = recipient.recover(&ephemeral).unwrap();
        let wrong = other.recover(&ephemeral).unwrap();
        assert!(key.secret().expose() == again.secret().expose());
        assert!(key.secret().expose() != wrong.secret().expose());
    }

    #[test]
    fn a_low_order_public_key_is_refused() {
        let result = RecoveryPublicKey([0; 32]).agree(&SystemEntropy::new());
        assert_eq!(result.err(), Some(RecipientError::LowOrder));
    }
}
