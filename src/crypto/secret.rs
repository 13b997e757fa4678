//! Secret types: one for each role a key can have.
//!
//! The bytes live in one heap block that is wiped when it is dropped. There is no `Clone`, `Copy`, `PartialEq`, `Display`
//! or `Serialize`; `Debug` prints the role. The only accessor is `expose`, visible in `crypto` and `keyring` alone (a test
//! reads the sources and holds that).

use std::fmt;

use ring::hmac;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::record::OpenError;
use crate::env::{Entropy, EntropyError};

/// Length of every symmetric key, in bytes.
pub const KEY_BYTES: usize = 32;

/// A block of 32 secret bytes.
pub struct Secret(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl Secret {
    /// Takes fresh bytes from `entropy`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = Box::new(Zeroizing::new([0; KEY_BYTES]));
        entropy.fill(&mut bytes[..])?;
        Ok(Self(bytes))
    }

    /// Copies exactly 32 bytes.
    ///
    /// # Errors
    /// [`OpenError`] when there are more or fewer.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, OpenError> {
        if bytes.len() != KEY_BYTES {
            return Err(OpenError);
        }
        let mut secret = Box::new(Zeroizing::new([0; KEY_BYTES]));
        secret.copy_from_slice(bytes);
        Ok(Self(secret))
    }

    /// Whether all bytes are the same, which no key from a source of randomness is.
    #[must_use]
    pub fn repeats_one_byte(&self) -> bool {
        let [first, rest @ ..] = &**self.0;
        // Without an early end: how long this takes says nothing about where they differ.
        rest.iter().fold(0, |differing, byte| differing | (first ^ byte)) == 0
    }

    /// Whether both are the same bytes, in constant time.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A key that seals records.
pub trait SealingKey {
    /// The input key of the record's derivation.
    fn sealing_secret(&self) -> &Secret;
}

/// A key that is itself stored, wrapped under another.
pub trait WrappableKey: Sized {
    /// Takes the role of a secret.
    fn from_secret(secret: Secret) -> Self;
    /// The secret to wrap.
    fn secret(&self) -> &Secret;
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Secret);

        impl $name {
            /// Makes a fresh key.
            ///
            /// # Errors
            /// [`EntropyError`] when the source fails.
            pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
                Secret::generate(entropy).map(Self)
            }
        }

        impl WrappableKey for $name {
            fn from_secret(secret: Secret) -> Self {
                Self(secret)
            }

            fn secret(&self) -> &Secret {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
    ($(#[$doc:meta])* $name:ident macs) => {
        $(#[$doc])*
        pub struct $name {
            secret: Secret,
            // Boxed, because ring does not wipe it: the allocator does when the block is freed.
            mac: Box<hmac::Key>,
        }

        impl $name {
            /// Makes a fresh key.
            ///
            /// # Errors
            /// [`EntropyError`] when the source fails.
            pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
                Secret::generate(entropy).map(Self::from_secret)
            }

            pub(super) fn mac_key(&self) -> &hmac::Key {
                &self.mac
            }
        }

        impl WrappableKey for $name {
            fn from_secret(secret: Secret) -> Self {
                let mac = Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose()));
                Self { secret, mac }
            }

            fn secret(&self) -> &Secret {
                &self.secret
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
    ($(#[$doc:meta])* $name:ident seals) => {
        role!($(#[$doc])* $name);

        impl SealingKey for $name {
            fn sealing_secret(&self) -> &Secret {
                &self.0
            }
        }
    };
}

role!(
    /// A key held by a root provider; wraps root epoch keys.
    ProviderKey seals
);
role!(
    /// A root epoch key; wraps tenant keys.
    Rek seals
);
role!(
    /// A version of a tenant's key-encryption key; wraps session keys.
    Kek seals
);
role!(
    /// A session's key for bodies, names and metadata.
    BodyDek seals
);
role!(
    /// A session's key for what is sensitive.
    SensitiveDek seals
);
role!(
    /// A tenant's (or the server's) key for control rows: tombstones, tokens, page tokens.
    ControlKey seals
);
role!(
    /// The key that seals the blocks of an access log.
    AuditKey seals
);
role!(
    /// The key that blinds names into row keys.
    IndexKey macs
);
role!(
    /// The key that turns identifiers into pseudonyms.
    PseudonymKey macs
);
