//! Sealing and opening: the only user of ring's AEAD and HKDF.
//!
//! Everything that is stored passes through [`seal`], everything that is read back through [`open`]: entries, events,
//! wrapped keys, control rows. There is one record format and one code path; `docs/format.md` is its normative text.
//! What leaves or enters the store as a key, and only that, is wrapped with HPKE for a public key ([`WrappingPublicKey`]).
//!
//! What this module promises: a [`Sealed`] value can only be made here, so a table that takes nothing else cannot be given
//! plaintext; secret types show their role and never their bytes; bytes that do not open are one error without detail.
//! What it does not do: it stores nothing, caches nothing and knows no policy.

mod blind;
mod hpke;
mod label;
mod note;
mod padme;
mod recipient;
mod record;
pub mod recovery;
mod secret;
mod verifier;

pub use blind::{Blinded, Pseudonym};
pub use hpke::{
    WRAPPED_BYTES, WrapError, WrappedKey, WrappingPrivateKey, WrappingPublicKey, export_info, import_info,
};
pub use note::{NoteSigner, SignerError};
pub use padme::padded_len;
pub use recipient::{RecipientError, RecoveryPrivateKey, RecoveryPublicKey};
pub use record::{
    Header, KeyId, Kind, MAX_SEALED_BYTES, OpenError, Place, Plaintext, START_BYTES, SealError, Sealed,
    content_hash, open, open_start, seal, seal_parts,
};
pub use secret::{
    AuditKey, BodyDek, ControlKey, IndexKey, Kek, ProviderKey, PseudonymKey, Rek, SealingKey, Secret,
    SensitiveDek, WrappableKey,
};
pub use verifier::{NoteError, VerifierKey};
