//! Signed texts: [C2SP signed-note](https://c2sp.org/signed-note) with Ed25519, so that anyone can verify them with the
//! verifier key and tools that are not ours.
//!
//! ```text
//! note         text, which ends with a line end ‖ "\n" ‖ "— " ‖ name ‖ " " ‖ base64( key hash (4) ‖ signature (64) ) ‖ "\n"
//! key hash     the first 4 bytes of SHA-256( name ‖ "\n" ‖ 0x01 ‖ public key (32) )
//! verifier key name ‖ "+" ‖ key hash in hex ‖ "+" ‖ base64( 0x01 ‖ public key (32) )
//! seed         HMAC-SHA-256 under the control key, over label, domain and store id, each behind its length
//! ```

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{Context, SHA256};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::blind::mac;
use super::label;
use super::secret::{ControlKey, WrappableKey as _};
use crate::model::StoreId;

/// The algorithm Ed25519 in a key's hash and text.
pub(super) const NOTE_ED25519: u8 = 1;

/// A key that signs for a store, under the server's control key.
pub struct NoteSigner {
    name: String,
    pair: Box<Ed25519KeyPair>,
}

/// A key could not be made from its seed: the library refused, which no seed gives it reason to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signing key was refused")]
pub struct SignerError;

impl std::fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NoteSigner({})", self.name)
    }
}

impl NoteSigner {
    /// The key of a store for texts of one `domain`. The same control key gives the same key.
    ///
    /// # Errors
    /// [`SignerError`] when the library refuses the seed.
    pub fn derive(control: &ControlKey, store: StoreId, domain: &'static str) -> Result<Self, SignerError> {
        let key = Box::new(hmac::Key::new(hmac::HMAC_SHA256, control.secret().expose()));
        let seed = Zeroizing::new(mac(&key, label::SIGNING, domain, &[&store.0]).as_ref().to_vec());
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| SignerError)?;
        let name = format!("strongroom/{domain}/{}", HEXLOWER.encode(&store.0));
        Ok(Self { name, pair: Box::new(pair) })
    }

    /// The same key under another name. Whoever has the verifier key of one name takes nothing that is signed under another.
    #[must_use]
    pub fn under(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Signs a text. Line ends are added if there is none at its end.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let text = format!("{text}{end}");
        let signature = self.pair.sign(text.as_bytes());
        let signed = BASE64.encode(&[&self.key_hash()[..], signature.as_ref()].concat());
        format!("{text}\n\u{2014} {} {signed}\n", self.name)
    }

    /// The key with which everyone can verify.
    #[must_use]
    pub fn verifier(&self) -> String {
        let public = [&[NOTE_ED25519], self.pair.public_key().as_ref()].concat();
        format!("{}+{}+{}", self.name, HEXLOWER.encode(&self.key_hash()), BASE64.encode(&public))
    }

    fn key_hash(&self) -> [u8; 4] {
        key_hash(&self.name, self.pair.public_key().as_ref())
    }
}

/// By what a key is recognised in a note.
pub(super) fn key_hash(name: &str, public: &[u8]) -> [u8; 4] {
    let mut hash = Context::new(&SHA256);
    hash.update(name.as_bytes());
    hash.update(&[b'\n', NOTE_ED25519]);
    hash.update(public);
    hash.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use signed_note::{Note, StandardVerifier, VerifierList};

    use super::*;
    use crate::env::SystemEntropy;

    const STORE: StoreId = StoreId([7; 16]);

    fn verified(note: &str, verifier: &str) -> bool {
        let verifier = StandardVerifier::new(verifier).unwrap();
        let known = VerifierList::new(vec![Box::new(verifier)]);
        let Ok(note) = Note::from_bytes(note.as_bytes()) else { return false };
        note.verify(&known).is_ok_and(|(verified, _)| verified.len() == 1)
    }

    #[test]
    fn another_implementation_verifies_what_is_signed_and_nothing_else() {
        let control = ControlKey::generate(&SystemEntropy::new()).unwrap();
        let signer = NoteSigner::derive(&control, STORE, "receipt").unwrap();
        let note = signer.sign("receipt/1\ntenant demo");
        assert!(note.starts_with("receipt/1\ntenant demo\n\n\u{2014} strongroom/receipt/0707"));
        assert!(verified(&note, &signer.verifier()));
        assert!(!verified(&note.replace("demo", "dema"), &signer.verifier()));
        let again = NoteSigner::derive(&control, STORE, "receipt").unwrap();
        assert!(verified(&note, &again.verifier()), "a restart signs with the same key");
        for other in [
            NoteSigner::derive(&control, STORE, "other").unwrap(),
            NoteSigner::derive(&control, StoreId([8; 16]), "receipt").unwrap(),
        ] {
            assert!(!verified(&note, &other.verifier()));
        }
    }
}
