//! Names become row keys and pseudonyms: truncated HMACs under keys of their own.

use ring::hmac;

use super::label;
use super::secret::{IndexKey, PseudonymKey, Rek, WrappableKey};

/// A blinded name: 128 bits of an HMAC.
pub type Blinded = [u8; 16];

/// A pseudonym before it is written as text: 128 bits of an HMAC.
pub type Pseudonym = [u8; 16];

impl IndexKey {
    /// Blinds a name: HMAC-SHA-256 over label, domain and parts, each behind its length, cut to 128 bits.
    #[must_use]
    pub fn blind(&self, domain: &'static str, parts: &[&[u8]]) -> Blinded {
        first_half(&mac(self.mac_key(), label::BLIND, domain, parts))
    }

    /// The part of an event's id that cannot be guessed without the key.
    #[must_use]
    pub fn event_tag(&self, parts: &[&[u8]]) -> Blinded {
        first_half(&mac(self.mac_key(), label::EVENT_ID, "event", parts))
    }
}

impl PseudonymKey {
    /// The pseudonym of a value within a domain.
    #[must_use]
    pub fn pseudonym(&self, domain: &'static str, parts: &[&[u8]]) -> Pseudonym {
        first_half(&mac(self.mac_key(), label::PSEUDONYM, domain, parts))
    }
}

impl Rek {
    /// A value that recognises this key and tells nothing about it.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        // ring keeps the key's hash state inline; boxed, it lies on the heap, which is wiped when it is freed.
        let key = Box::new(hmac::Key::new(hmac::HMAC_SHA256, self.secret().expose()));
        let tag = mac(&key, label::REK_COMMITMENT, "rek", &[]);
        let mut commitment = [0; 32];
        commitment.copy_from_slice(tag.as_ref());
        commitment
    }
}

/// HMAC-SHA-256 over label, domain and parts, each behind its length.
pub(super) fn mac(key: &hmac::Key, label: &str, domain: &str, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in [label.as_bytes(), domain.as_bytes()].iter().chain(parts) {
        context.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.update(part);
    }
    context.sign()
}

fn first_half(tag: &hmac::Tag) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(tag.as_ref().get(..16).unwrap_or(&[0; 16]));
    half
}
