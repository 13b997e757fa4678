//! Recovery keys as text.
//!
//! ```text
//! public    "srp_" ‖ base32( key (32) ‖ checksum (4) )
//! private   "srk_" ‖ base32( key (32) ‖ checksum (4) )
//! checksum  the first 4 bytes of SHA-256( "srp_" or "srk_" ‖ key )
//! base32    RFC 4648 section 7 (extended hex), lower case, no padding; read in either case
//! ```
//!
//! A mistyped key is refused rather than used: what is wrapped for a key that nobody holds is lost.

use data_encoding::BASE32_DNSSEC;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::{RecoveryPrivateKey, RecoveryPublicKey, Secret};
use crate::env::{Entropy, EntropyError};

const PUBLIC: &str = "srp_";
const PRIVATE: &str = "srk_";
const KEY_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
/// Five bits a character.
const TEXT_BYTES: usize = ((KEY_BYTES + CHECKSUM_BYTES) * 8).div_ceil(5);

/// What is wrong with a recovery key's text. Never repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// It is not of the kind that is wanted.
    #[error("a recovery key that begins with {expected} is wanted here")]
    Prefix {
        /// How it should begin.
        expected: &'static str,
    },
    /// It is too short or too long.
    #[error("a recovery key has {expected} characters, this text has {found}")]
    Length {
        /// How long it should be.
        expected: usize,
        /// How long it is.
        found: usize,
    },
    /// It has a character that cannot occur.
    #[error("a recovery key consists of 0-9 and a-v after its prefix")]
    Characters,
    /// It was mistyped.
    #[error("the recovery key's checksum does not match: it was mistyped or damaged")]
    Checksum,
}

/// Makes a recovery key pair; the public half comes from the private one.
///
/// # Errors
/// [`EntropyError`] when the source fails.
pub fn generate(entropy: &dyn Entropy) -> Result<RecoveryPrivateKey, EntropyError> {
    Secret::generate(entropy).map(RecoveryPrivateKey::from_secret)
}

/// Writes the public half.
#[must_use]
pub fn write_public(key: &RecoveryPublicKey) -> String {
    write(PUBLIC, &key.0).to_string()
}

/// Writes the private half, for its offline home.
#[must_use]
pub fn write_private(key: &RecoveryPrivateKey) -> Zeroizing<String> {
    write(PRIVATE, key.secret().expose())
}

/// Reads the public half.
///
/// # Errors
/// [`RecoveryKeyError`] says what is wrong, without repeating it.
pub fn read_public(text: &str) -> Result<RecoveryPublicKey, RecoveryKeyError> {
    read(PUBLIC, text).map(|key| RecoveryPublicKey(*key))
}

/// Reads the private half.
///
/// # Errors
/// [`RecoveryKeyError`] says what is wrong, without repeating it.
pub fn read_private(text: &str) -> Result<RecoveryPrivateKey, RecoveryKeyError> {
    let key = read(PRIVATE, text)?;
    let secret = Secret::from_slice(&key[..]).map_err(|_| RecoveryKeyError::Checksum)?;
    Ok(RecoveryPrivateKey::from_secret(secret))
}

fn write(prefix: &'static str, key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECKSUM_BYTES]);
    let (front, back) = bytes.split_at_mut(KEY_BYTES);
    front.copy_from_slice(key);
    back.copy_from_slice(&checksum(prefix, key));
    let mut text = Zeroizing::new(String::with_capacity(PUBLIC.len() + TEXT_BYTES));
    text.push_str(prefix);
    BASE32_DNSSEC.encode_append(&bytes[..], &mut text);
    text
}

fn read(prefix: &'static str, text: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, RecoveryKeyError> {
    let text = text.trim_ascii();
    let body = text.strip_prefix(prefix).ok_or(RecoveryKeyError::Prefix { expected: prefix })?;
    if body.len() != TEXT_BYTES {
        let expected = prefix.len() + TEXT_BYTES;
        return Err(RecoveryKeyError::Length { expected, found: text.len() });
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECKSUM_BYTES]);
    let decoded = BASE32_DNSSEC.decode_mut(body.as_bytes(), &mut bytes[..]);
    decoded.map_err(|_| RecoveryKeyError::Characters)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let (front, back) = bytes.split_at(KEY_BYTES);
    key.copy_from_slice(front);
    if back == checksum(prefix, &key) { Ok(key) } else { Err(RecoveryKeyError::Checksum) }
}

fn checksum(prefix: &'static str, key: &[u8; KEY_BYTES]) -> [u8; CHECKSUM_BYTES] {
    // On the heap, which is wiped when it is freed: the hash's state holds the key.
    let mut hash = Box::new(Context::new(&SHA256));
    hash.update(prefix.as_bytes());
    hash.update(key);
    let digest = hash.finish();
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEntropy;

    #[test]
    fn keys_come_back_from_their_text() {
        for _ in 0..50 {
            let key = generate(&SystemEntropy::new()).unwrap();
            let text = write_private(&key);
            let again = read_private(&text).unwrap();
            assert!(again.secret().expose() == key.secret().expose());
            let public = write_public(&key.public());
            assert_eq!(read_public(&format!(" {public}\n")), Ok(key.public()));
            assert!(public.starts_with("srp_") && text.starts_with("srk_"));
        }
    }

    #[test]
    fn the_text_of_a_known_key_never_changes() {
        let known = "srp_0s3ge1o70s3ge1o70s3ge1o70s3ge1o70s3ge1o70s3ge1o70s3h1vi970";
        assert_eq!(write_public(&RecoveryPublicKey([7; 32])), known);
    }

    #[test]
    fn every_single_mistyped_character_is_refused() {
        let key = generate(&SystemEntropy::new()).unwrap();
        let text = write_public(&key.public());
        for at in 4..text.len() {
            for typed in b"0123456789abcdefghijklmnopqrstuv" {
                let mut bytes = text.clone().into_bytes();
                if bytes[at] == *typed {
                    continue;
                }
                bytes[at] = *typed;
                let refused = read_public(&String::from_utf8(bytes).unwrap()).unwrap_err();
                assert!(matches!(refused, RecoveryKeyError::Checksum | RecoveryKeyError::Characters));
            }
        }
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let key = generate(&SystemEntropy::new()).unwrap();
        let (public, private) = (write_public(&key.public()), write_private(&key));
        assert_eq!(read_public(&private), Err(RecoveryKeyError::Prefix { expected: "srp_" }));
        assert_eq!(read_private(&public).err(), Some(RecoveryKeyError::Prefix { expected: "srk_" }));
        assert_eq!(read_public(""), Err(RecoveryKeyError::Prefix { expected: "srp_" }));
        let short = &public[..public.len() - 1];
        assert_eq!(read_public(short), Err(RecoveryKeyError::Length { expected: 62, found: 61 }));
        let odd = format!("{short}!");
        assert_eq!(read_public(&odd), Err(RecoveryKeyError::Characters));
        let as_private = private.replace("srk_", "srp_");
        assert_eq!(read_public(&as_private), Err(RecoveryKeyError::Checksum));
    }

    #[test]
    fn errors_do_not_repeat_the_text() {
        let key = generate(&SystemEntropy::new()).unwrap();
        let text = write_private(&key);
        let error = read_public(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&text[4..12]));
    }
}
