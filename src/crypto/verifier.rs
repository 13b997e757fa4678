//! The public half of a signed note: a verifier key, and what it says about a note.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::note::{NOTE_ED25519, key_hash};

/// Longest note that is looked at, in bytes.
const NOTE_BYTES: usize = 64 * 1024;
/// Most signatures of a note that are looked at.
const SIGNATURES: usize = 16;
/// What a signature line begins with: an em dash and a space.
const SIGNATURE_LINE: &str = "\u{2014} ";

/// A public key with its name, as <https://c2sp.org/signed-note> writes it: `name+hash+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

/// Why a text is no verifier key, or a note is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text is no verifier key with Ed25519.
    #[error("it is no verifier key of the form name+hash+key, with Ed25519")]
    Key,
    /// The text is no signed note.
    #[error("it is no signed note")]
    Form,
    /// None of the signatures is by the key.
    #[error("it is not signed by the key")]
    Unsigned,
    /// A signature says that it is by the key and is not.
    #[error("its signature does not hold")]
    Forged,
}

impl VerifierKey {
    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of a note that this key has signed, its last line end included.
    ///
    /// Signatures by other keys are ignored, as the format wants it.
    ///
    /// # Errors
    /// [`NoteError`] says why the text must not be believed.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, signatures) = split(note)?;
        let hash = key_hash(&self.name, &self.public);
        let mut found = false;
        for line in signatures {
            let (name, signature) = signature_of(line)?;
            let Some((id, signature)) = signature.split_first_chunk::<4>() else {
                return Err(NoteError::Form);
            };
            if name != self.name || *id != hash {
                continue;
            }
            let key = UnparsedPublicKey::new(&ED25519, &self.public);
            key.verify(text.as_bytes(), signature).map_err(|_| NoteError::Forged)?;
            found = true;
        }
        if found { Ok(text) } else { Err(NoteError::Unsigned) }
    }
}

/// A note's text and its signature lines.
fn split(note: &str) -> Result<(&str, Vec<&str>), NoteError> {
    if note.len() > NOTE_BYTES || note.chars().any(|letter| letter < ' ' && letter != '\n') {
        return Err(NoteError::Form);
    }
    let end = note.rfind("\n\n").ok_or(NoteError::Form)?;
    let (text, rest) = note.split_at_checked(end + 1).ok_or(NoteError::Form)?;
    let lines = rest.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n')).ok_or(NoteError::Form)?;
    let lines: Vec<&str> = lines.split('\n').collect();
    if lines.len() > SIGNATURES { Err(NoteError::Form) } else { Ok((text, lines)) }
}

fn signature_of(line: &str) -> Result<(&str, Vec<u8>), NoteError> {
    let line = line.strip_prefix(SIGNATURE_LINE).ok_or(NoteError::Form)?;
    let (name, signature) = line.split_once(' ').ok_or(NoteError::Form)?;
    Ok((name, BASE64.decode(signature.as_bytes()).map_err(|_| NoteError::Form)?))
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let key = BASE64.decode(key.as_bytes()).map_err(|_| NoteError::Key)?;
        let Some((&NOTE_ED25519, public)) = key.split_first() else { return Err(NoteError::Key) };
        let public: [u8; 32] = public.try_into().map_err(|_| NoteError::Key)?;
        if name.is_empty() || name.chars().any(char::is_whitespace) {
            return Err(NoteError::Key);
        }
        if hash != HEXLOWER.encode(&key_hash(name, &public)) {
            return Err(NoteError::Key);
        }
        Ok(Self { name: name.to_owned(), public })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = HEXLOWER.encode(&key_hash(&self.name, &self.public));
        let key = BASE64.encode(&[&[NOTE_ED25519], &self.public[..]].concat());
        write!(f, "{}+{hash}+{key}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{ControlKey, NoteSigner};
    use crate::env::SystemEntropy;
    use crate::model::StoreId;

    fn signer() -> NoteSigner {
        let control = ControlKey::generate(&SystemEntropy::new()).unwrap();
        NoteSigner::derive(&control, StoreId([7; 16]), "test").unwrap()
    }

    #[test]
    fn a_key_opens_its_notes_under_its_name_and_no_others() {
        let signer = signer().under("example.com/log".to_owned());
        let key: VerifierKey = signer.verifier().parse().unwrap();
        assert_eq!((key.name(), key.to_string()), ("example.com/log", signer.verifier()));
        let note = signer.sign("a text\n\nof two parts");
        assert_eq!(key.open(&note), Ok("a text\n\nof two parts\n"));
        assert_eq!(key.open(&note.replace("two", "one")), Err(NoteError::Forged));
        let renamed = signer.under("example.com/other".to_owned());
        assert_eq!(key.open(&renamed.sign("a text")), Err(NoteError::Unsigned));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_note_is_refused() {
        let signer = signer();
        let key: VerifierKey = signer.verifier().parse().unwrap();
        let note = signer.sign("log\n7\nroot");
        for at in 0..note.len() {
            let mut flipped = note.clone().into_bytes();
            flipped[at] ^= 1;
            if let Ok(flipped) = String::from_utf8(flipped) {
                assert!(key.open(&flipped).is_err(), "{at}: {flipped}");
            }
            if note.is_char_boundary(at) {
                assert!(key.open(&note[..at]).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn signatures_by_others_are_ignored_and_too_many_refused() {
        let (ours, other) = (signer(), signer().under("example.com/witness".to_owned()));
        let key: VerifierKey = ours.verifier().parse().unwrap();
        let witness = other.sign("text");
        let line = witness.lines().last().unwrap();
        let both = format!("{}{line}\n", ours.sign("text"));
        assert_eq!(key.open(&both), Ok("text\n"));
        let many = format!("{}{}", ours.sign("text"), format!("{line}\n").repeat(SIGNATURES));
        assert_eq!(key.open(&many), Err(NoteError::Form));
    }

    #[test]
    fn texts_that_are_no_keys_are_refused() {
        let good = signer().verifier();
        let (name, rest) = good.split_once('+').unwrap();
        for bad in ["", "a+b", &format!("other+{rest}"), &format!("{name} x+{rest}"), &good[..good.len() - 4]]
        {
            assert_eq!(bad.parse::<VerifierKey>(), Err(NoteError::Key), "{bad}");
        }
    }
}
