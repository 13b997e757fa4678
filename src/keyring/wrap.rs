//! Keys under a root epoch key.

use std::sync::Arc;

use super::KeyringError;
use crate::crypto::{
    AuditKey, ControlKey, Header, IndexKey, KeyId, Kind, Place, Plaintext, PseudonymKey, Rek, Sealed, Secret,
    WrappableKey, open, seal,
};
use crate::env::{Entropy, EntropyError};
use crate::model::{Revision, StoreId, TenantRef};

/// A root epoch key, opened.
pub(super) struct RootKey {
    pub(super) epoch: u32,
    id: [u8; 8],
    rek: Rek,
}

/// The row in which a key is wrapped: all that is bound beside the kind and the version of the key.
pub(super) struct Slot<'a> {
    pub(super) store: StoreId,
    pub(super) tenant: TenantRef,
    /// The row key without what the tenant is bound by anyway.
    pub(super) key: &'a [u8],
    pub(super) revision: Revision,
}

impl RootKey {
    pub(super) fn new(epoch: u32, rek: Rek) -> Self {
        let mut id = [0; 8];
        id.iter_mut().zip(rek.commitment()).for_each(|(to, from)| *to = from);
        Self { epoch, id, rek }
    }

    pub(super) fn rek(&self) -> &Rek {
        &self.rek
    }

    /// `first 8 bytes of the commitment ‖ incarnation (u32) ‖ epoch (u32)`.
    pub(super) fn key_id(&self, incarnation: u32) -> KeyId {
        let mut id = [0; 16];
        let parts = [self.id.as_slice(), &incarnation.to_be_bytes(), &self.epoch.to_be_bytes()].concat();
        id.copy_from_slice(&parts);
        KeyId(id)
    }

    /// The incarnation that a wrapped key names, when this is the key that it names.
    pub(super) fn named_incarnation(&self, record: &[u8]) -> Option<u32> {
        let named = Header::named_key(record)?;
        let incarnation = named.0.get(8..12)?.try_into().map(u32::from_be_bytes).ok()?;
        (named == self.key_id(incarnation)).then_some(incarnation)
    }

    pub(super) fn wrap(
        &self,
        slot: &Slot<'_>,
        (kind, version): (Kind, Option<u32>),
        key: &impl WrappableKey,
        entropy: &dyn Entropy,
    ) -> Result<Sealed, KeyringError> {
        let bound = slot.bound(version);
        let place = slot.place(&bound);
        Ok(seal(&self.rek, self.header(slot, kind), &place, key.secret().expose(), entropy)?)
    }

    pub(super) fn unwrap<K: WrappableKey>(
        &self,
        slot: &Slot<'_>,
        (kind, version): (Kind, Option<u32>),
        record: &[u8],
    ) -> Result<K, KeyringError> {
        let bound = slot.bound(version);
        let opened = open(&self.rek, self.header(slot, kind), &slot.place(&bound), record)?;
        Ok(K::from_secret(Secret::from_slice(opened.as_bytes())?))
    }

    fn header(&self, slot: &Slot<'_>, kind: Kind) -> Header {
        Header { kind, key_id: self.key_id(slot.tenant.incarnation), revision: slot.revision.get() }
    }
}

impl Slot<'_> {
    /// Keys of which a row has several are told apart by their version.
    fn bound(&self, version: Option<u32>) -> Vec<u8> {
        let version = version.map(u32::to_be_bytes);
        [self.key, version.as_ref().map_or(&[][..], |version| version)].concat()
    }

    pub(super) fn place<'a>(&self, key: &'a [u8]) -> Place<'a> {
        Place { store: self.store, tenant: self.tenant, session: &[], key }
    }
}

/// The keys that a tenant, or the server, has beside key-encryption keys.
pub(super) struct KeySet {
    pub(super) control: Arc<ControlKey>,
    pub(super) index: Arc<IndexKey>,
    pub(super) audit: Arc<AuditKey>,
    pub(super) pseudonym: Arc<PseudonymKey>,
}

const CONTROL: (Kind, Option<u32>) = (Kind::WrappedControlKey, None);
const INDEX: (Kind, Option<u32>) = (Kind::WrappedIndexKey, None);
const AUDIT: (Kind, Option<u32>) = (Kind::WrappedAuditKey, None);
const PSEUDONYM: (Kind, Option<u32>) = (Kind::WrappedPseudonymKey, None);

impl KeySet {
    pub(super) fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Ok(Self {
            control: Arc::new(ControlKey::generate(entropy)?),
            index: Arc::new(IndexKey::generate(entropy)?),
            audit: Arc::new(AuditKey::generate(entropy)?),
            pseudonym: Arc::new(PseudonymKey::generate(entropy)?),
        })
    }

    /// The keys that the access log needs to stay readable and verifiable; the others are made anew.
    pub(super) fn only_for_the_log(&self, entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Ok(Self {
            control: Arc::new(ControlKey::generate(entropy)?),
            index: Arc::new(IndexKey::generate(entropy)?),
            ..self.share()
        })
    }

    /// The same keys once more; there is still one copy of each.
    pub(super) fn share(&self) -> Self {
        Self {
            control: Arc::clone(&self.control),
            index: Arc::clone(&self.index),
            audit: Arc::clone(&self.audit),
            pseudonym: Arc::clone(&self.pseudonym),
        }
    }

    /// Control, index, audit and pseudonym key, in the order in which they are stored.
    pub(super) fn wrap(
        &self,
        root: &RootKey,
        slot: &Slot<'_>,
        entropy: &dyn Entropy,
    ) -> Result<[Sealed; 4], KeyringError> {
        Ok([
            root.wrap(slot, CONTROL, self.control.as_ref(), entropy)?,
            root.wrap(slot, INDEX, self.index.as_ref(), entropy)?,
            root.wrap(slot, AUDIT, self.audit.as_ref(), entropy)?,
            root.wrap(slot, PSEUDONYM, self.pseudonym.as_ref(), entropy)?,
        ])
    }

    pub(super) fn unwrap(root: &RootKey, slot: &Slot<'_>, records: [&[u8]; 4]) -> Result<Self, KeyringError> {
        let [control, index, audit, pseudonym] = records;
        Ok(Self {
            control: Arc::new(root.unwrap(slot, CONTROL, control)?),
            index: Arc::new(root.unwrap(slot, INDEX, index)?),
            audit: Arc::new(root.unwrap(slot, AUDIT, audit)?),
            pseudonym: Arc::new(root.unwrap(slot, PSEUDONYM, pseudonym)?),
        })
    }

    /// Seals what a row says beside its keys. The control key is named by the id of its tenant.
    pub(super) fn describe(
        &self,
        slot: &Slot<'_>,
        payload: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Sealed, KeyringError> {
        Ok(seal(self.control.as_ref(), description_header(slot), &slot.place(slot.key), payload, entropy)?)
    }

    pub(super) fn description(&self, slot: &Slot<'_>, record: &[u8]) -> Result<Plaintext, KeyringError> {
        Ok(open(self.control.as_ref(), description_header(slot), &slot.place(slot.key), record)?)
    }
}

fn description_header(slot: &Slot<'_>) -> Header {
    Header { kind: Kind::Tenant, key_id: KeyId(slot.tenant.id.0), revision: slot.revision.get() }
}
