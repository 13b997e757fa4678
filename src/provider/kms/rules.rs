//! What the contract says about answers, beyond their shape.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::wire::{DecryptResponse, EncryptResponse, StatusResponse};
use super::{KmsCall, KmsError};
use crate::keyring::{PROVIDER_SECRET_BYTES, Wrapped};

/// The version of the contract.
pub(super) const VERSION: &str = "v2";
/// Largest key id.
pub(super) const KEY_ID_BYTES: usize = 1024;
/// Largest ciphertext.
pub(super) const CIPHERTEXT_BYTES: usize = 1024;
/// Largest annotations, names and values together.
pub(super) const ANNOTATION_BYTES: usize = 32 << 10;
/// Largest answer: the annotations, the rest, and room for the encoding.
pub(super) const ANSWER_BYTES: usize = 64 << 10;

/// What a healthy plugin says.
const WELL: &str = "ok";
/// Most characters of a plugin's text that an error repeats.
const SHOWN: usize = 128;
/// Longest domain name and label of RFC 1123.
const NAME_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// The key that a plugin wraps with now.
pub(super) fn check_status(status: StatusResponse) -> Result<String, KmsError> {
    if status.version != VERSION {
        return Err(KmsError::Version { found: shorten(&status.version) });
    }
    if status.healthz != WELL {
        return Err(KmsError::Unhealthy { healthz: shorten(&status.healthz) });
    }
    check_key_id(KmsCall::Status, status.key_id)
}

/// What a plugin wrapped.
pub(super) fn check_wrapped(answer: EncryptResponse) -> Result<Wrapped, KmsError> {
    let key_id = check_key_id(KmsCall::Encrypt, answer.key_id)?;
    if !(1..=CIPHERTEXT_BYTES).contains(&answer.ciphertext.len()) {
        return Err(KmsError::Ciphertext);
    }
    check_annotations(&answer.annotations)?;
    let annotations = answer.annotations.into_iter().collect();
    Ok(Wrapped { key_id, annotations, ciphertext: answer.ciphertext })
}

/// What a plugin unwrapped.
pub(super) fn check_secret(answer: DecryptResponse) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let secret = Zeroizing::new(answer.plaintext);
    if (1..=PROVIDER_SECRET_BYTES).contains(&secret.len()) { Ok(secret) } else { Err(KmsError::Plaintext) }
}

/// Control characters are refused because key ids are shown: in errors, logs and on terminals.
fn check_key_id(call: KmsCall, key_id: String) -> Result<String, KmsError> {
    let right = (1..=KEY_ID_BYTES).contains(&key_id.len()) && !key_id.chars().any(char::is_control);
    if right { Ok(key_id) } else { Err(KmsError::KeyId { call }) }
}

fn check_annotations(annotations: &BTreeMap<String, Vec<u8>>) -> Result<(), KmsError> {
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > ANNOTATION_BYTES {
        return Err(KmsError::Annotations);
    }
    let named = annotations.keys().all(|name| is_qualified(name));
    if named { Ok(()) } else { Err(KmsError::AnnotationName) }
}

/// Whether it is a domain name of at least two labels, as RFC 1123 has them, in lower case.
fn is_qualified(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= NAME_BYTES && name.contains('.') && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=LABEL_BYTES).contains(&label.len())
        && label.bytes().all(|byte| letter(byte) || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: &str, healthz: &str, key_id: &str) -> Result<String, KmsError> {
        let [version, healthz, key_id] = [version, healthz, key_id].map(str::to_owned);
        check_status(StatusResponse { version, healthz, key_id })
    }

    fn answer(annotations: &[(&str, usize)]) -> EncryptResponse {
        let annotations =
            annotations.iter().map(|(name, size)| ((*name).to_owned(), vec![7; *size])).collect();
        EncryptResponse { ciphertext: vec![1; 60], key_id: "k".to_owned(), annotations }
    }

    #[test]
    fn only_version_two_is_spoken() {
        assert_eq!(status("v2", "ok", "k").unwrap(), "k");
        for version in ["v2beta1", "v1", "v1beta1", "", "V2", "v2 "] {
            assert!(matches!(status(version, "ok", "k"), Err(KmsError::Version { .. })), "{version}");
        }
    }

    #[test]
    fn only_ok_is_healthy_and_what_else_is_said_is_shown_shortened() {
        for healthz in ["", "OK", "ok ", "bad"] {
            assert!(matches!(status("v2", healthz, "k"), Err(KmsError::Unhealthy { .. })), "{healthz}");
        }
        let error = status("v2", &format!("\n{}", "x".repeat(5000)), "k").unwrap_err().to_string();
        assert!(error.len() < 300 && !error.contains('\n'), "{error}");
    }

    #[test]
    fn key_ids_have_one_to_1024_bytes_of_text() {
        let longest = "k".repeat(KEY_ID_BYTES);
        assert_eq!(status("v2", "ok", &longest).unwrap(), longest);
        for key_id in ["", &format!("{longest}k"), "a\nb", "a\u{1b}[2J"] {
            let refused = status("v2", "ok", key_id);
            assert!(matches!(refused, Err(KmsError::KeyId { call: KmsCall::Status })), "{key_id:?}");
        }
        let wrapped = check_wrapped(EncryptResponse { key_id: String::new(), ..answer(&[]) });
        assert!(matches!(wrapped, Err(KmsError::KeyId { call: KmsCall::Encrypt })));
    }

    #[test]
    fn ciphertexts_and_secrets_have_one_to_1024_bytes() {
        for (size, right) in [(0, false), (1, true), (1024, true), (1025, false)] {
            let wrapped = check_wrapped(EncryptResponse { ciphertext: vec![1; size], ..answer(&[]) });
            assert_eq!(wrapped.is_ok(), right, "{size}");
            assert!(right || matches!(wrapped, Err(KmsError::Ciphertext)));
            let secret = check_secret(DecryptResponse { plaintext: vec![1; size] });
            assert_eq!(secret.is_ok(), right, "{size}");
            assert!(right || matches!(secret, Err(KmsError::Plaintext)));
        }
    }

    #[test]
    fn annotations_are_named_by_qualified_domain_names() {
        for name in ["a.b", "version.kms.example.com", "a-1.example", "a.b."] {
            assert!(check_wrapped(answer(&[(name, 1)])).is_ok(), "{name}");
        }
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}example", "a.".repeat(124));
        for name in [
            "",
            ".",
            "a",
            "a.",
            "a..b",
            "-a.b",
            "a-.b",
            "A.b",
            "a_.b",
            "a b.c",
            "ä.b",
            &long_label,
            &long_name,
        ] {
            let refused = check_wrapped(answer(&[(name, 1)]));
            assert!(matches!(refused, Err(KmsError::AnnotationName)), "{name}");
        }
    }

    #[test]
    fn annotations_have_at_most_32_kib_together() {
        let fits = ANNOTATION_BYTES / 2 - 3;
        assert!(check_wrapped(answer(&[("a.b", fits), ("c.d", fits)])).is_ok());
        let refused = check_wrapped(answer(&[("a.b", fits), ("c.d", fits + 1)]));
        assert!(matches!(refused, Err(KmsError::Annotations)));
    }
}
