//! Root epoch keys and the stanzas that wrap them, one for each recipient.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::provider::{ProviderError, ProviderKind, RootProvider, Wrapped};
use super::wrap::RootKey;
use super::{KeyringError, MAX_RECIPIENTS};
use crate::crypto::recovery;
use crate::crypto::{
    Header, KeyId, Kind, Place, ProviderKey, RecoveryPrivateKey, RecoveryPublicKey, Rek, Secret,
    WrappableKey as _, open, seal,
};
use crate::env::Entropy;
use crate::model::{Revision, StoreId, TenantRef};
use crate::store::{Key, Row, keys};

/// Most bytes of what a stanza says openly: row keys must stay below what every engine can index.
pub(super) const STANZA_BYTES: usize = 2048;

/// Someone who can unwrap a root epoch key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The epoch of the key.
    pub epoch: u32,
    /// What kind of provider it is; none when this program does not know the kind.
    pub provider: Option<ProviderKind>,
    /// The recipient's key.
    pub key_id: String,
}

impl Recipient {
    /// The text of the recovery key, when it is one.
    pub(super) fn recovery_key(&self) -> Option<String> {
        (self.provider == Some(ProviderKind::Recovery)).then(|| self.key_id.clone())
    }
}

/// The epoch that a row of a root epoch key belongs to.
pub(super) fn epoch_in(key: &Key) -> Option<u32> {
    keys::root_parts(key).map(|(epoch, ..)| epoch)
}

/// The opened root epoch keys of a store: the newest one wraps.
#[derive(Clone)]
pub(super) struct Roots {
    current: Arc<RootKey>,
    earlier: Vec<Arc<RootKey>>,
}

impl Roots {
    pub(super) fn new(current: RootKey) -> Self {
        Self { current: Arc::new(current), earlier: Vec::new() }
    }

    pub(super) fn current(&self) -> &RootKey {
        &self.current
    }

    /// These, and a newer one.
    pub(super) fn followed_by(mut self, newer: RootKey) -> Self {
        self.earlier.push(std::mem::replace(&mut self.current, Arc::new(newer)));
        self
    }

    /// The newest one alone.
    pub(super) fn newest(&self) -> Self {
        Self { current: Arc::clone(&self.current), earlier: Vec::new() }
    }

    /// All of them, the newest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &RootKey> {
        std::iter::once(&self.current).chain(&self.earlier).map(|root| &**root)
    }

    /// The key that a wrapped record names, and the incarnation that it names beside it.
    pub(super) fn naming(&self, record: &[u8]) -> Option<(&RootKey, u32)> {
        self.all().find_map(|root| root.named_incarnation(record).map(|incarnation| (root, incarnation)))
    }
}

/// Who opens a store.
pub(super) enum Opener<'a> {
    Provider(&'a dyn RootProvider),
    Recovery(&'a RecoveryPrivateKey),
}

/// The stored rows of one root epoch key.
struct Epoch {
    number: u32,
    commitment: [u8; 32],
    stanzas: Vec<Stanza>,
}

struct Stanza {
    provider: Option<ProviderKind>,
    wrapped: Wrapped,
    key: Key,
    row: Row,
}

/// The stored rows of all root epoch keys, by ascending epoch.
pub(super) struct StoredRoots(Vec<Epoch>);

impl StoredRoots {
    /// Sorts out the rows that a scan of [`keys::roots`] gave.
    pub(super) fn read(rows: Vec<(Key, Row)>) -> Result<Self, KeyringError> {
        let mut epochs: Vec<Epoch> = Vec::new();
        for (key, row) in rows {
            let (epoch, number, plain) = keys::root_parts(&key).ok_or(KeyringError::Integrity)?;
            if number == 0 {
                let commitment = plain.try_into().map_err(|_| KeyringError::Integrity)?;
                if row != Row::marker() {
                    return Err(KeyringError::Integrity);
                }
                epochs.push(Epoch { number: epoch, commitment, stanzas: Vec::new() });
                continue;
            }
            let (provider, wrapped) = decode_plain(plain).ok_or(KeyringError::Integrity)?;
            let owner = epochs.last_mut().filter(|of| of.number == epoch).ok_or(KeyringError::Integrity)?;
            owner.stanzas.push(Stanza { provider, wrapped, key, row });
        }
        // Two commitments for one epoch would let a forger choose between keys.
        let ascending = epochs.is_sorted_by(|one, next| one.number < next.number);
        if ascending { Ok(Self(epochs)) } else { Err(KeyringError::Integrity) }
    }

    /// Whether there is no root epoch key at all.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest epoch.
    pub(super) fn newest(&self) -> u32 {
        self.0.last().map_or(0, |epoch| epoch.number)
    }

    /// The rows of a recipient, one for each epoch that is wrapped for it.
    pub(super) fn rows_of(&self, key_id: &str) -> impl Iterator<Item = &Key> {
        let stanzas = self.0.iter().flat_map(|epoch| &epoch.stanzas);
        stanzas.filter(move |of| of.wrapped.key_id == key_id).map(|of| &of.key)
    }

    /// Numbers for one more stanza of an epoch.
    pub(super) fn free_number(&self, epoch: u32) -> Result<u8, KeyringError> {
        let stanzas = self.0.iter().filter(|of| of.number == epoch).flat_map(|of| &of.stanzas);
        let taken: Vec<u8> = stanzas.filter_map(|of| Some(keys::root_parts(&of.key)?.1)).collect();
        let free = (1..=MAX_RECIPIENTS).find_map(|n| u8::try_from(n).ok().filter(|n| !taken.contains(n)));
        free.ok_or(KeyringError::TooManyRecipients { max: MAX_RECIPIENTS })
    }

    /// Everyone who can unwrap a root epoch key.
    pub(super) fn recipients(&self) -> Vec<Recipient> {
        let all = self.0.iter().flat_map(|epoch| epoch.stanzas.iter().map(move |of| (epoch.number, of)));
        let recipient = |(epoch, of): (u32, &Stanza)| Recipient {
            epoch,
            provider: of.provider,
            key_id: of.wrapped.key_id.clone(),
        };
        all.map(recipient).collect()
    }

    /// Unwraps every root epoch key.
    pub(super) async fn open(&self, store: StoreId, opener: &Opener<'_>) -> Result<Roots, KeyringError> {
        let mut roots: Option<Roots> = None;
        for epoch in &self.0 {
            let root = epoch.open(store, opener).await?;
            roots = Some(match roots.take() {
                None => Roots::new(root),
                Some(earlier) => earlier.followed_by(root),
            });
        }
        roots.ok_or(KeyringError::Incomplete { missing: "root" })
    }
}

impl Epoch {
    async fn open(&self, store: StoreId, opener: &Opener<'_>) -> Result<RootKey, KeyringError> {
        for stanza in &self.stanzas {
            if let Some(key) = opener.stanza_key(store, stanza).await? {
                let root = stanza.open(store, self.number, &key)?;
                let found = root.rek().commitment();
                let right: bool = found.ct_eq(&self.commitment).into();
                return if right { Ok(root) } else { Err(KeyringError::Integrity) };
            }
        }
        if self.stanzas.is_empty() {
            return Err(KeyringError::Incomplete { missing: "root stanza" });
        }
        Err(KeyringError::WrongRoot {
            provider: opener.kind(),
            held: opener.key_id().await?,
            wanted: self.stanzas.iter().map(Stanza::wanted).collect(),
        })
    }
}

impl Stanza {
    fn open(&self, store: StoreId, epoch: u32, key: &ProviderKey) -> Result<RootKey, KeyringError> {
        let [record] = self.row.exactly()?;
        if self.row.revision()? != Revision::FIRST {
            return Err(KeyringError::Integrity);
        }
        let opened = open(key, stanza_header(epoch), &stanza_place(store, &self.key), record)?;
        Ok(RootKey::new(epoch, Rek::from_secret(Secret::from_slice(opened.as_bytes())?)))
    }

    fn wanted(&self) -> String {
        match self.provider {
            Some(provider) => format!("{provider} {}", self.wrapped.key_id),
            None => format!("a provider unknown to this program, {}", self.wrapped.key_id),
        }
    }
}

impl Opener<'_> {
    fn kind(&self) -> ProviderKind {
        match self {
            Self::Provider(provider) => provider.kind(),
            Self::Recovery(_) => ProviderKind::Recovery,
        }
    }

    async fn key_id(&self) -> Result<String, KeyringError> {
        match self {
            Self::Provider(provider) => {
                let status = provider.status().await;
                status.map(|status| status.key_id).map_err(|error| failed(provider.kind(), error))
            }
            Self::Recovery(key) => Ok(recovery::write_public(&key.public())),
        }
    }

    /// The key under a stanza; none when the stanza is for someone else.
    async fn stanza_key(&self, store: StoreId, stanza: &Stanza) -> Result<Option<ProviderKey>, KeyringError> {
        if stanza.provider != Some(self.kind()) {
            return Ok(None);
        }
        match self {
            Self::Provider(provider) => match provider.unwrap(store, &stanza.wrapped).await {
                Ok(secret) => Ok(Some(ProviderKey::from_secret(Secret::from_slice(&secret)?))),
                Err(ProviderError::UnknownKey) => Ok(None),
                Err(error) => Err(failed(provider.kind(), error)),
            },
            Self::Recovery(key) => {
                if stanza.wrapped.key_id != recovery::write_public(&key.public()) {
                    return Ok(None);
                }
                let ephemeral = stanza.wrapped.ciphertext.as_slice().try_into();
                // A stored key of low order was not stored by us.
                let agreed = key.recover(ephemeral.map_err(|_| KeyringError::Integrity)?);
                agreed.map(Some).map_err(|_| KeyringError::Integrity)
            }
        }
    }
}

pub(super) fn failed(provider: ProviderKind, source: ProviderError) -> KeyringError {
    match source {
        ProviderError::Rejected => KeyringError::Integrity,
        ProviderError::UnknownKey | ProviderError::TooLarge | ProviderError::Unavailable(_) => {
            KeyringError::Provider { provider, source }
        }
    }
}

/// The row by which an unwrapped root epoch key is recognised.
pub(super) fn commitment_row(root: &RootKey) -> (Key, Row) {
    (keys::root(root.epoch, 0, &root.rek().commitment()), Row::marker())
}

/// Wraps a root epoch key for a provider.
pub(super) async fn wrap_for_provider(
    store: StoreId,
    root: &RootKey,
    number: u8,
    provider: &dyn RootProvider,
    entropy: &dyn Entropy,
) -> Result<(Key, Row), KeyringError> {
    let key = ProviderKey::generate(entropy)?;
    let wrapped = provider.wrap(store, key.secret().expose()).await;
    let wrapped = wrapped.map_err(|error| failed(provider.kind(), error))?;
    stanza_row(
        store,
        root,
        &key,
        &keys::root(root.epoch, number, &encode_plain(provider.kind(), &wrapped)?),
        entropy,
    )
}

/// Wraps a root epoch key for an offline key.
pub(super) fn wrap_for_recovery(
    store: StoreId,
    root: &RootKey,
    number: u8,
    recipient: &RecoveryPublicKey,
    entropy: &dyn Entropy,
) -> Result<(Key, Row), KeyringError> {
    let (key, ephemeral) = recipient.agree(entropy)?;
    let wrapped = Wrapped {
        key_id: recovery::write_public(recipient),
        annotations: Vec::new(),
        ciphertext: ephemeral.to_vec(),
    };
    let plain = encode_plain(ProviderKind::Recovery, &wrapped)?;
    stanza_row(store, root, &key, &keys::root(root.epoch, number, &plain), entropy)
}

/// The number of the next stanza of an epoch.
pub(super) fn next_number(taken: usize) -> Result<u8, KeyringError> {
    let next = u8::try_from(taken).ok().and_then(|taken| taken.checked_add(1));
    next.filter(|next| usize::from(*next) <= MAX_RECIPIENTS)
        .ok_or(KeyringError::TooManyRecipients { max: MAX_RECIPIENTS })
}

fn stanza_row(
    store: StoreId,
    root: &RootKey,
    stanza_key: &ProviderKey,
    key: &Key,
    entropy: &dyn Entropy,
) -> Result<(Key, Row), KeyringError> {
    let header = stanza_header(root.epoch);
    let record = seal(stanza_key, header, &stanza_place(store, key), root.rek().secret().expose(), entropy)?;
    Ok((key.clone(), Row::new(Revision::FIRST, &[&record])))
}

/// A stanza's key wraps nothing else, so it has no id.
fn stanza_header(epoch: u32) -> Header {
    Header { kind: Kind::WrappedRek, key_id: KeyId([0; 16]), revision: u64::from(epoch) }
}

/// All that a stanza says openly stands in its row key, and is bound by it.
fn stanza_place(store: StoreId, key: &Key) -> Place<'_> {
    Place { store, tenant: TenantRef::SYSTEM, session: &[], key: key.within_table() }
}

/// `kind (u8) ‖ LP(key id) ‖ LP(ciphertext) ‖ n × ( LP(name) ‖ LP(value) )`, LP = u16 length prefix.
fn encode_plain(kind: ProviderKind, wrapped: &Wrapped) -> Result<Vec<u8>, KeyringError> {
    let too_large = KeyringError::StanzaTooLarge { max: STANZA_BYTES };
    let mut plain = vec![kind as u8];
    let annotations = wrapped.annotations.iter().flat_map(|(name, value)| [name.as_bytes(), value]);
    for part in [wrapped.key_id.as_bytes(), &wrapped.ciphertext].into_iter().chain(annotations) {
        let Ok(length) = u16::try_from(part.len()) else { return Err(too_large) };
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(part);
    }
    if plain.len() > STANZA_BYTES { Err(too_large) } else { Ok(plain) }
}

fn decode_plain(plain: &[u8]) -> Option<(Option<ProviderKind>, Wrapped)> {
    let (kind, mut rest) = plain.split_first()?;
    let mut part = || {
        let (length, after) = rest.split_first_chunk()?;
        let (part, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some((part, after.is_empty()))
    };
    let key_id = String::from_utf8(part()?.0.to_vec()).ok()?;
    let (ciphertext, mut last) = part()?;
    let mut annotations = Vec::new();
    while !last {
        let name = String::from_utf8(part()?.0.to_vec()).ok()?;
        let value;
        (value, last) = part()?;
        annotations.push((name, value.to_vec()));
    }
    let wrapped = Wrapped { key_id, annotations, ciphertext: ciphertext.to_vec() };
    Some((ProviderKind::from_stored(*kind), wrapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(annotations: Vec<(String, Vec<u8>)>) -> Wrapped {
        Wrapped { key_id: "key".into(), annotations, ciphertext: vec![7; 40] }
    }

    #[test]
    fn what_a_stanza_says_openly_comes_back_and_no_truncation_does() {
        let annotations = vec![("a".to_owned(), vec![1, 2]), (String::new(), vec![])];
        for wrapped in [wrapped(vec![]), wrapped(annotations)] {
            let plain = encode_plain(ProviderKind::File, &wrapped).unwrap();
            assert_eq!(decode_plain(&plain), Some((Some(ProviderKind::File), wrapped.clone())));
            for len in 0..plain.len() {
                assert_ne!(decode_plain(&plain[..len]), Some((Some(ProviderKind::File), wrapped.clone())));
            }
        }
    }

    #[test]
    fn an_answer_that_would_not_fit_a_row_key_is_refused() {
        let long = wrapped(vec![("a".to_owned(), vec![0; STANZA_BYTES])]);
        let refused = encode_plain(ProviderKind::File, &long);
        assert!(matches!(refused, Err(KeyringError::StanzaTooLarge { max: STANZA_BYTES })));
    }
}
