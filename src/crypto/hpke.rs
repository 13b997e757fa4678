//! Key material on its way in or out: wrapped for a public key with HPKE, so that nobody between the two ends sees it.
//!
//! This is [RFC 9180](https://www.rfc-editor.org/rfc/rfc9180) in its base mode, single-shot, with one suite:
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, and no associated data. What is wrapped is always 32 bytes; the
//! result is `enc (32) ‖ ciphertext (32) ‖ tag (16)`. It is made of what the rest of this module uses, and passes the
//! vectors that accompany the RFC.
//!
//! `info` says where the material belongs: see [`import_info`] and [`export_info`]. Both ends make it themselves, so that
//! what was wrapped for another store, tenant or wrapping key does not open. It does not say *who* wrapped it: base mode
//! authenticates nobody, which is why the permission to import is asked for besides.

use data_encoding::HEXLOWER;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::label;
use super::record::OpenError;
use super::secret::{KEY_BYTES, Secret};
use crate::env::{Entropy, EntropyError, SystemEntropy};
use crate::model::{KekVersion, StoreId, TenantRef};

const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
/// Length of wrapped key material: encapsulated key, ciphertext, tag.
pub const WRAPPED_BYTES: usize = KEY_BYTES + KEY_BYTES + TAG_BYTES;

/// `"KEM" ‖ kem_id`: RFC 9180, section 4.1.
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
/// `"HPKE" ‖ kem_id ‖ kdf_id ‖ aead_id`: RFC 9180, section 5.1.
const HPKE_SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x02";
/// RFC 9180, section 4.
const VERSION_LABEL: &[u8] = b"HPKE-v1";
const MODE_BASE: u8 = 0;

/// Why key material could not be wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// The public key is of low order, so what is wrapped for it would open to everyone.
    #[error("the public key is not usable")]
    LowOrder,
    /// The system's random number generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// ring refused to derive or encrypt.
    #[error("the cryptographic library refused to wrap")]
    Refused,
}

/// A public key for which key material is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrappingPublicKey(pub [u8; KEY_BYTES]);

/// The private key that opens what was wrapped for its public half.
pub struct WrappingPrivateKey(Secret);

/// Wrapped key material, safe to show: `enc ‖ ciphertext ‖ tag`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WrappedKey(pub [u8; WRAPPED_BYTES]);

impl std::fmt::Debug for WrappingPrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingPrivateKey(…)")
    }
}

impl std::fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrappedKey({WRAPPED_BYTES} bytes)")
    }
}

/// What is bound to key material that is wrapped for import: text of a fixed length, so that any tool can make it.
#[must_use]
pub fn import_info(store: StoreId, tenant: TenantRef, wrapping_key: &[u8; 16]) -> String {
    format!("{} {} key={}", label::KEY_IMPORT, place(store, tenant), HEXLOWER.encode(wrapping_key))
}

/// What is bound to a version of a tenant's key that is exported.
#[must_use]
pub fn export_info(store: StoreId, tenant: TenantRef, version: KekVersion) -> String {
    format!("{} {} version={}", label::KEY_EXPORT, place(store, tenant), version.0)
}

fn place(store: StoreId, tenant: TenantRef) -> String {
    let (store, id) = (HEXLOWER.encode(&store.0), HEXLOWER.encode(&tenant.id.0));
    format!("store={store} tenant={id}/{}", tenant.incarnation)
}

impl WrappingPublicKey {
    /// Wraps a key for the holder of the private half.
    ///
    /// # Errors
    /// [`WrapError`] when the public key is of low order or entropy fails.
    pub fn wrap(&self, info: &[u8], key: &Secret, entropy: &dyn Entropy) -> Result<WrappedKey, WrapError> {
        self.wrap_as(&WrappingPrivateKey::generate(entropy)?, info, key)
    }

    /// The same with the system's randomness, for callers that have no seam for it.
    ///
    /// # Errors
    /// As for [`wrap`](Self::wrap).
    pub fn wrap_now(&self, info: &[u8], key: &Secret) -> Result<WrappedKey, WrapError> {
        self.wrap(info, key, &SystemEntropy::new())
    }

    fn wrap_as(
        &self,
        ephemeral: &WrappingPrivateKey,
        info: &[u8],
        key: &Secret,
    ) -> Result<WrappedKey, WrapError> {
        let enc = ephemeral.public().0;
        let dh = ephemeral.agree(&self.0).ok_or(WrapError::LowOrder)?;
        let sealing = shared_secret(&dh, &enc, &self.0).and_then(|shared| Sealing::new(&shared, info));
        let sealed = sealing.and_then(|sealing| sealing.seal(key.expose(), b"")).ok_or(WrapError::Refused)?;
        let wrapped = [enc.as_slice(), &sealed].concat();
        wrapped.try_into().map(WrappedKey).map_err(|_| WrapError::Refused)
    }
}

impl WrappingPrivateKey {
    /// Makes a fresh key.
    ///
    /// # Errors
    /// [`EntropyError`] when the source fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Secret::generate(entropy).map(Self)
    }

    /// Takes the role of a secret.
    #[must_use]
    pub fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }

    /// The secret, for sealing it.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> WrappingPublicKey {
        WrappingPublicKey(PublicKey::from(&self.scalar()).to_bytes())
    }

    /// Unwraps what was wrapped for the public half.
    ///
    /// # Errors
    /// [`OpenError`] for anything that was not wrapped for this key and with this `info`.
    pub fn unwrap(&self, info: &[u8], wrapped: &[u8]) -> Result<Secret, OpenError> {
        let wrapped: &[u8; WRAPPED_BYTES] = wrapped.try_into().map_err(|_| OpenError)?;
        let (enc, sealed) = wrapped.split_first_chunk::<KEY_BYTES>().ok_or(OpenError)?;
        let dh = self.agree(enc).ok_or(OpenError)?;
        let shared = shared_secret(&dh, enc, &self.public().0).ok_or(OpenError)?;
        let opened = Sealing::new(&shared, info).and_then(|sealing| sealing.open(sealed, b""));
        Secret::from_slice(&opened.ok_or(OpenError)?)
    }

    /// None when the other key is of low order: RFC 9180, section 7.1.4.
    fn agree(&self, theirs: &[u8; KEY_BYTES]) -> Option<SharedSecret> {
        let shared = self.scalar().diffie_hellman(&PublicKey::from(*theirs));
        shared.was_contributory().then_some(shared)
    }

    fn scalar(&self) -> StaticSecret {
        StaticSecret::from(*self.0.expose())
    }
}

type Derived<const N: usize> = Zeroizing<[u8; N]>;

/// `ExtractAndExpand(dh, kem_context)`: RFC 9180, section 4.1.
fn shared_secret(
    dh: &SharedSecret,
    enc: &[u8; KEY_BYTES],
    recipient: &[u8; KEY_BYTES],
) -> Option<Derived<KEY_BYTES>> {
    let prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", dh.as_bytes());
    labeled_expand(KEM_SUITE, &prk, b"shared_secret", &[enc, recipient])
}

/// Key and nonce of the first, and only, message of a context.
struct Sealing {
    // Boxed, because ring does not wipe it: the allocator does when the block is freed.
    key: Box<LessSafeKey>,
    nonce: [u8; NONCE_BYTES],
}

impl Sealing {
    /// `KeySchedule` in base mode: RFC 9180, section 5.1. `None` only when ring refuses.
    fn new(shared: &Derived<KEY_BYTES>, info: &[u8]) -> Option<Self> {
        let psk_id_hash = labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"");
        let info_hash = labeled_extract(HPKE_SUITE, b"", b"info_hash", info);
        let context: [&[u8]; 3] = [&[MODE_BASE], &*psk_id_hash, &*info_hash];
        let secret = labeled_extract(HPKE_SUITE, &**shared, b"secret", b"");
        let key: Derived<KEY_BYTES> = labeled_expand(HPKE_SUITE, &secret, b"key", &context)?;
        let nonce: Derived<NONCE_BYTES> = labeled_expand(HPKE_SUITE, &secret, b"base_nonce", &context)?;
        let key = Box::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).ok()?));
        Some(Self { key, nonce: *nonce })
    }

    fn seal(&self, plain: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        // Room for the tag from the beginning: a buffer that grew would leave the plaintext behind.
        let mut sealed = Vec::with_capacity(plain.len() + TAG_BYTES);
        sealed.extend_from_slice(plain);
        self.key.seal_in_place_append_tag(self.first_nonce(), Aad::from(aad), &mut sealed).ok()?;
        Some(sealed)
    }

    fn open(&self, sealed: &[u8], aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut opened = Zeroizing::new(sealed.to_vec());
        let len = self.key.open_in_place(self.first_nonce(), Aad::from(aad), &mut opened).ok()?.len();
        opened.truncate(len);
        Some(opened)
    }

    fn first_nonce(&self) -> Nonce {
        Nonce::assume_unique_for_key(self.nonce)
    }
}

/// `LabeledExtract`: RFC 9180, section 4. HKDF's extraction is an HMAC under the salt.
fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Derived<KEY_BYTES> {
    // Boxed, because ring does not wipe it: the allocator does when the block is freed.
    let key = Box::new(hmac::Key::new(hmac::HMAC_SHA256, salt));
    let mut extract = Box::new(hmac::Context::with_key(&key));
    for part in [VERSION_LABEL, suite, label, ikm] {
        extract.update(part);
    }
    let mut prk = Zeroizing::new([0; KEY_BYTES]);
    prk.copy_from_slice(extract.sign().as_ref());
    prk
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// `LabeledExpand`: RFC 9180, section 4.
fn labeled_expand<const N: usize>(
    suite: &[u8],
    prk: &Derived<KEY_BYTES>,
    label: &[u8],
    info: &[&[u8]],
) -> Option<Derived<N>> {
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let info = [&[length.as_slice(), VERSION_LABEL, suite, label], info].concat();
    let prk = Box::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &**prk));
    let mut derived = Zeroizing::new([0; N]);
    prk.expand(&info, Length(N)).ok()?.fill(&mut derived[..]).ok()?;
    Some(derived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;

    /// A field of the vectors, which stand in a file of their own with their source.
    fn vector(name: &str) -> Vec<u8> {
        let lines = include_str!("hpke_vectors.txt").lines();
        let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        HEXLOWER.decode(found.next().unwrap().as_bytes()).unwrap()
    }

    fn secret(name: &str) -> WrappingPrivateKey {
        WrappingPrivateKey::from_secret(Secret::from_slice(&vector(name)).unwrap())
    }

    fn fresh() -> WrappingPrivateKey {
        WrappingPrivateKey::generate(&SystemEntropy::new()).unwrap()
    }

    #[test]
    fn the_vector_of_rfc_9180_for_this_suite_is_met_by_both_ends() {
        let (ephemeral, recipient) = (secret("skEm"), secret("skRm"));
        assert_eq!(recipient.public().0.as_slice(), vector("pkRm"));
        assert_eq!(ephemeral.public().0.as_slice(), vector("enc"));
        let (enc, public) = (ephemeral.public().0, recipient.public().0);
        for dh in [ephemeral.agree(&public).unwrap(), recipient.agree(&enc).unwrap()] {
            let shared = shared_secret(&dh, &enc, &public).unwrap();
            assert_eq!(shared.as_slice(), vector("shared_secret"));
            let sealing = Sealing::new(&shared, &vector("info")).unwrap();
            assert_eq!(sealing.nonce.as_slice(), vector("base_nonce"));
            assert_eq!(sealing.seal(&vector("pt"), &vector("aad")).unwrap(), vector("ct"));
            assert_eq!(sealing.open(&vector("ct"), &vector("aad")).unwrap().as_slice(), vector("pt"));
        }
    }

    #[test]
    fn what_another_implementation_wrapped_opens() {
        let opened = secret("skRm").unwrap(&vector("wrapped_info"), &vector("wrapped")).unwrap();
        assert_eq!(opened.expose().as_slice(), vector("wrapped_key"));
    }

    #[test]
    fn what_is_wrapped_opens_for_the_same_key_and_info_alone() {
        let (key, other) = (fresh(), fresh());
        let material = Secret::generate(&SystemEntropy::new()).unwrap();
        let wrapped = key.public().wrap_now(b"info", &material).unwrap();
        assert!(key.unwrap(b"info", &wrapped.0).unwrap().equals(&material));
        assert_eq!(other.unwrap(b"info", &wrapped.0).err(), Some(OpenError));
        assert_eq!(key.unwrap(b"other", &wrapped.0).err(), Some(OpenError));
        let again = key.public().wrap_now(b"info", &material).unwrap();
        assert!(again != wrapped, "an ephemeral key was used twice");
    }

    #[test]
    fn a_single_bit_or_byte_more_or_less_does_not_open() {
        let key = fresh();
        let material = Secret::generate(&SystemEntropy::new()).unwrap();
        let wrapped = key.public().wrap_now(b"info", &material).unwrap().0;
        for at in 0..WRAPPED_BYTES {
            for bit in 0..8 {
                // X25519 ignores the highest bit of a public key (RFC 7748), but it is part of what the key is derived from.
                let mut flipped = wrapped;
                flipped[at] ^= 1 << bit;
                assert_eq!(key.unwrap(b"info", &flipped).err(), Some(OpenError), "{at}.{bit}");
            }
        }
        for len in (0..WRAPPED_BYTES).chain([WRAPPED_BYTES + 1]) {
            let mut cut = wrapped.to_vec();
            cut.resize(len, 0);
            assert_eq!(key.unwrap(b"info", &cut).err(), Some(OpenError), "{len}");
        }
    }

    /// The points of low order, from RFC 7748's curve: 0, 1, two of order 8, and p - 1, p, p + 1.
    const LOW_ORDER: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    #[test]
    fn points_of_low_order_are_refused_by_both_ends() {
        let material = Secret::generate(&SystemEntropy::new()).unwrap();
        for point in LOW_ORDER {
            let point: [u8; 32] = HEXLOWER.decode(point.as_bytes()).unwrap().try_into().unwrap();
            let refused = WrappingPublicKey(point).wrap_now(b"info", &material);
            assert_eq!(refused.err(), Some(WrapError::LowOrder));
            let forged = [point.as_slice(), &[0; 48]].concat();
            assert_eq!(fresh().unwrap(b"info", &forged).err(), Some(OpenError));
        }
    }

    #[test]
    fn what_is_bound_names_store_tenant_and_key_and_never_changes() {
        let (store, tenant) = (StoreId([0x11; 16]), TenantRef { id: TenantId([0x22; 16]), incarnation: 1 });
        let info = import_info(store, tenant, &[0x33; 16]);
        assert_eq!(info.as_bytes(), vector("wrapped_info"));
        let exported = export_info(store, tenant, KekVersion(7));
        let place = "store=11111111111111111111111111111111 tenant=22222222222222222222222222222222/1";
        assert_eq!(exported, format!("strongroom key export/1 {place} version=7"));
    }

    #[test]
    fn debug_output_shows_no_bytes() {
        let key = fresh();
        assert_eq!(format!("{key:?}"), "WrappingPrivateKey(…)");
    }
}
