//! A session's keys.
//!
//! What is wrapped is `id (16) ‖ key (32)`: entries name the id of the key that sealed them, so the id must stay when the
//! key is wrapped anew. The sensitive key stays wrapped until somebody asks for it: who reads redacted views never does. The header of the wrapped record names the wrapping version; its generation is always 1, since a
//! key that is wrapped anew under the same version is as good as before.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::KeyringError;
use super::tenant::Tenant;
use crate::crypto::{
    BodyDek, Header, KeyId, Kind, Place, Sealed, Secret, SensitiveDek, WrappableKey, open, seal_parts,
};
use crate::env::{Entropy, EntropyError};
use crate::model::{KekVersion, StoreId};
use crate::store::Key;

/// The generation in the header of every wrapped session key.
const GENERATION: u64 = 1;
const ID_BYTES: usize = 16;

/// A session's keys, unwrapped. Cheap to clone: clones share one copy of the keys.
#[derive(Clone)]
pub struct SessionKeys(pub(super) Arc<OpenedSession>);

pub(super) struct OpenedSession {
    pub(super) body: (KeyId, BodyDek),
    pub(super) sensitive: Option<Sensitive>,
}

/// A sensitive key, which is unwrapped when it is asked for.
pub(super) struct Sensitive {
    /// Empty for a key that was just made.
    wrapped: Box<[u8]>,
    opened: OnceLock<(KeyId, SensitiveDek)>,
}

impl Sensitive {
    fn made(key: (KeyId, SensitiveDek)) -> Self {
        Self { wrapped: Box::default(), opened: OnceLock::from(key) }
    }

    fn wrapped(record: &[u8]) -> Self {
        Self { wrapped: record.into(), opened: OnceLock::new() }
    }
}

/// A new session's keys, and the records to store them as.
#[derive(Debug)]
pub struct WrappedSession {
    /// The keys.
    pub keys: SessionKeys,
    /// The body key, wrapped.
    pub body: Sealed,
    /// The sensitive key, wrapped.
    pub sensitive: Sealed,
}

/// Keys that take the place of a session's, and the records to store both as.
#[derive(Debug)]
pub struct ReplacedSession {
    /// The new keys; a sensitive one only if there was one.
    pub keys: SessionKeys,
    /// The new keys, wrapped.
    pub wrapped: (Sealed, Option<Sealed>),
    /// The keys that there were, wrapped anew under the same version.
    pub former: (Sealed, Option<Sealed>),
}

impl SessionKeys {
    /// The key for bodies, names and metadata.
    #[must_use]
    pub fn body(&self) -> &BodyDek {
        &self.0.body.1
    }

    /// The body key's id.
    #[must_use]
    pub fn body_id(&self) -> KeyId {
        self.0.body.0
    }

    /// Whether there is a key for what is sensitive; there is none once it was purged.
    #[must_use]
    pub fn has_sensitive(&self) -> bool {
        self.0.sensitive.is_some()
    }
}

/// A session's row under its tenant: the place of its wrapped keys.
pub(super) struct SessionRow<'a> {
    store: StoreId,
    tenant: &'a Tenant,
    key: &'a Key,
}

impl<'a> SessionRow<'a> {
    pub(super) fn new(store: StoreId, tenant: &'a Tenant, key: &'a Key) -> Result<Self, KeyringError> {
        let own = key.tenant() == Some(tenant.tenant_ref().id) && !key.session().is_empty();
        if own { Ok(Self { store, tenant, key }) } else { Err(KeyringError::Integrity) }
    }

    /// Makes keys and wraps them.
    pub(super) fn create(&self, entropy: &dyn Entropy) -> Result<WrappedSession, KeyringError> {
        let body = (generate_id(entropy)?, BodyDek::generate(entropy)?);
        let sensitive = (generate_id(entropy)?, SensitiveDek::generate(entropy)?);
        let wrapped_sensitive = self.wrap_one(Kind::WrappedSensitiveDek, &sensitive, entropy)?;
        let wrapped = WrappedSession {
            body: self.wrap_one(Kind::WrappedBodyDek, &body, entropy)?,
            sensitive: wrapped_sensitive,
            keys: SessionKeys(Arc::new(OpenedSession { body, sensitive: Some(Sensitive::made(sensitive)) })),
        };
        Ok(wrapped)
    }

    /// Makes keys in place of others, and wraps both.
    pub(super) fn replace(
        &self,
        former: &SessionKeys,
        entropy: &dyn Entropy,
    ) -> Result<ReplacedSession, KeyringError> {
        let body = (generate_id(entropy)?, BodyDek::generate(entropy)?);
        let sensitive = match former.0.sensitive {
            Some(_) => Some(Sensitive::made((generate_id(entropy)?, SensitiveDek::generate(entropy)?))),
            None => None,
        };
        let keys = SessionKeys(Arc::new(OpenedSession { body, sensitive }));
        let (wrapped, former) = (self.wrap(&keys, entropy)?, self.wrap(former, entropy)?);
        Ok(ReplacedSession { keys, wrapped, former })
    }

    /// Wraps under the tenant's primary version.
    pub(super) fn wrap(
        &self,
        keys: &SessionKeys,
        entropy: &dyn Entropy,
    ) -> Result<(Sealed, Option<Sealed>), KeyringError> {
        let body = self.wrap_one(Kind::WrappedBodyDek, &keys.0.body, entropy)?;
        let sensitive = self.sensitive(keys)?;
        let sensitive = sensitive.map(|dek| self.wrap_one(Kind::WrappedSensitiveDek, dek, entropy));
        Ok((body, sensitive.transpose()?))
    }

    /// Checks, without unwrapping, that the version which a record names is this tenant's and may unwrap.
    pub(super) fn check_version(&self, record: &[u8]) -> Result<(), KeyringError> {
        let version = named_version(record).ok_or(KeyringError::Integrity)?;
        if Header::named_key(record) != Some(self.tenant.kek_key_id(version)) {
            return Err(KeyringError::Integrity);
        }
        self.tenant.kek(version).map(|_| ())
    }

    pub(super) fn unwrap(&self, body: &[u8], sensitive: Option<&[u8]>) -> Result<SessionKeys, KeyringError> {
        let body = self.unwrap_one(Kind::WrappedBodyDek, body)?;
        Ok(SessionKeys(Arc::new(OpenedSession { body, sensitive: sensitive.map(Sensitive::wrapped) })))
    }

    /// The sensitive key with its id, unwrapped now if it was not yet.
    pub(super) fn sensitive<'k>(
        &self,
        keys: &'k SessionKeys,
    ) -> Result<Option<&'k (KeyId, SensitiveDek)>, KeyringError> {
        let Some(sensitive) = &keys.0.sensitive else { return Ok(None) };
        if let Some(opened) = sensitive.opened.get() {
            return Ok(Some(opened));
        }
        let unwrapped = self.unwrap_one(Kind::WrappedSensitiveDek, &sensitive.wrapped)?;
        Ok(Some(sensitive.opened.get_or_init(|| unwrapped)))
    }

    fn wrap_one(
        &self,
        kind: Kind,
        (id, dek): &(KeyId, impl WrappableKey),
        entropy: &dyn Entropy,
    ) -> Result<Sealed, KeyringError> {
        let version = self.tenant.primary().ok_or(KeyringError::WrongTenantState(self.tenant.state()))?;
        let header = self.header(kind, version);
        let parts: [&[u8]; 2] = [&id.0, dek.secret().expose()];
        Ok(seal_parts(self.tenant.kek(version)?, header, &self.place(), &parts, entropy)?)
    }

    fn unwrap_one<K: WrappableKey>(&self, kind: Kind, record: &[u8]) -> Result<(KeyId, K), KeyringError> {
        let version = named_version(record).ok_or(KeyringError::Integrity)?;
        let opened = open(self.tenant.kek(version)?, self.header(kind, version), &self.place(), record)?;
        let (id, key) = opened.as_bytes().split_first_chunk::<ID_BYTES>().ok_or(KeyringError::Integrity)?;
        Ok((KeyId(*id), K::from_secret(Secret::from_slice(key)?)))
    }

    fn header(&self, kind: Kind, version: KekVersion) -> Header {
        Header { kind, key_id: self.tenant.kek_key_id(version), revision: GENERATION }
    }

    fn place(&self) -> Place<'_> {
        Place {
            store: self.store,
            tenant: self.tenant.tenant_ref(),
            session: self.key.session(),
            key: self.key.within_session(),
        }
    }
}

/// The version that a wrapped session key names, without any claim that it is genuine.
pub(super) fn named_version(record: &[u8]) -> Option<KekVersion> {
    let named = Header::named_key(record)?;
    let version = named.0.last_chunk().copied().map(u32::from_be_bytes)?;
    Some(KekVersion(version))
}

fn generate_id(entropy: &dyn Entropy) -> Result<KeyId, EntropyError> {
    let mut id = [0; ID_BYTES];
    entropy.fill(&mut id)?;
    Ok(KeyId(id))
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}
