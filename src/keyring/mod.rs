//! The key hierarchy: root provider → root epoch key → tenant keys → session keys.
//!
//! The [`Keyring`] makes, opens and changes the rows that hold wrapped keys. It promises that a row opens only where it was
//! made to stand, as a whole, and only by the key that it names; that a tenant's key has exactly one primary version until the
//! tenant is destroyed, and none then; that
//! a version which is disabled or destroyed unwraps nothing, from the next row that is read; and that what it remembers of
//! opened rows ([`MemoStats`]) is addressed by their exact bytes. It asks the root provider when a store is opened or made
//! and never again. It writes nothing but the rows of a new store: all other rows are given to the caller to commit.
//! It does not decide who may do what, and a tenant's state binds its callers, not itself.
//!
//! # Rows
//! Rows hold sealed records only, so what must be read without keys stands in row keys and revisions. Integers are
//! big-endian. `M` and `T` are the tables' bytes; a *record* is sealed as the `crypto` module says; in every record's place
//! the store is the store's id and the session is empty unless it is named.
//!
//! | row key | revision | records |
//! |---|---|---|
//! | `M ‖ "format"` | the format version, 1 | none |
//! | `M ‖ "store/" ‖ store id (16)` | 1 | none |
//! | `M ‖ "root/" ‖ epoch (u32) ‖ 0 ‖ commitment (32)` | 1 | none |
//! | `M ‖ "root/" ‖ epoch (u32) ‖ number (u8, 1 to 16) ‖ plain` | 1 | REK |
//! | `M ‖ "system"` | 1 | description, control, index, audit, pseudonym key |
//! | `T ‖ tenant id (16)` | counts changes | description, control, index, audit, pseudonym key, KEK versions ascending |
//! | `W ‖ tenant id (16) ‖ id (16)` | 1 | wrapping key |
//! | a session's row | of the session | …, body DEK, sensitive DEK: the caller says where |
//!
//! The first five are made in one batch that expects `format` to be absent. A store with rows but without one of them is
//! refused, and so is an unknown format version, before anything else is read.
//!
//! **Root epoch key (REK).** Each epoch, from 1, has one commitment and up to 16 recipient stanzas; the highest epoch wraps
//! what is new. `plain` is `provider kind (u8) ‖ LP(key id) ‖ LP(ciphertext) ‖ n × (LP(name) ‖ LP(value))`, LP = u16 length
//! prefix, at most 2,048 bytes. A stanza has a key of its own, which seals the REK (header: `WrappedRek`, key id zeros,
//! revision = epoch; place: system tenant, key = the row key after `M`, so that all of `plain` is bound). For a provider
//! that key is random, and `ciphertext` and the annotations are what the provider made of it: so a provider needs no
//! associated data and its answer needs no sealed form of its own. For a recovery key (kind 2) it is agreed on with X25519,
//! `ciphertext` is the ephemeral public key and the key id the recipient's public key as text. A KMS plugin (kind 3) and a
//! transit engine (kind 4) are asked over a connection, by the `provider` module. A keyring file (kind 1) seals
//! the stanza's key (`WrappedRek`, its own key id, revision 1; place: system tenant, key = `"root provider"`).
//! The commitment is HMAC-SHA-256 under the REK, as the `crypto` module says; it is compared after unwrapping.
//!
//! **Keys under a REK.** Header: the key's kind; key id = `first 8 bytes of the REK's commitment ‖ incarnation (u32) ‖
//! epoch (u32)`; revision = the row's. Place: the tenant with the incarnation that the key id names (all records of a row
//! must name the same, and the description repeats it); key = the row key after the tenant id, which is empty, or
//! `"system"` for the system row; for a KEK version, that ‖ `version (u32)`. Plaintext: 32 bytes. Because each record is
//! bound to the row's revision, a row is always sealed as a whole, and a record of an earlier revision, for example of a KEK
//! version that was destroyed, does not open in a later one. Rewrapping under a new REK is such a change too: the revision
//! goes up by one and every record is made anew.
//!
//! **Description.** Sealed under the row's control key: kind `Tenant`, key id = tenant id, revision = the row's, place as
//! above. Payload: a version (u8), then in postcard's encoding, for the system row (version 1): created ms (u64), audit epoch
//! (u32), pseudonym version (u32); for a tenant (version 4): name, incarnation (u32), state (u8: active 1, suspended 2,
//! destroy-scheduled 3, destroyed 4),
//! created ms (u64), state changed ms (u64), KEK id (12 bytes), list of {version (u32), state (u8: pending 1, primary 2,
//! enabled 3, disabled 4, destroy-scheduled 5, destroyed 6), created ms (u64), changed ms (u64), destroy ms (u64; 0 unless
//! scheduled)}, audit epoch (u32), pseudonym version (u32), rotation every ms, next ms (u64; 0 and 0 for none), destroy
//! ms (u64; of the tenant, in the states 3 and 4; 0 otherwise), exportable (bool), list of imported versions (u32), list of
//! {version (u32), first exported ms (u64)}. Version 3 lacks what begins with exportable, version 2 also the tenant's destroy
//! ms, version 1 also the versions' destroy ms and the rotation; all are still read. The list ascends and has one KEK record
//! for each version that is not destroyed. Exactly one is primary; of a destroyed tenant, all are destroyed.
//!
//! **Session keys.** Header: `WrappedBodyDek` or `WrappedSensitiveDek`; key id = `KEK id (12) ‖ version (u32)`; revision 1.
//! Place: tenant, session and key of the session's row. Plaintext: `id (16) ‖ key (32)`: entries name that id, which stays
//! when the key is wrapped anew.
//!
//! **Wrapping keys.** Sealed under the tenant's control key: kind `WrappingKey`, key id = tenant id, revision 1; place: the
//! tenant, key = id. Plaintext: `expires ms (u64) ‖ X25519 private key (32)`.

mod custody;
mod epochs;
mod error;
mod history;
mod key_file;
mod memo;
mod meta;
mod payload;
mod provider;
mod root;
mod session;
mod state;
mod tenant;
#[cfg(test)]
mod tests;
mod version;
mod wrap;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

pub use custody::{Exported, WrappingKey};
pub use epochs::{AdoptedRoot, NewRecipient, RootChange, StoredEpochs};
pub use error::{KeyFileProblem, KeyringError};
pub use history::{RootEpoch, RootRecipient};
pub use key_file::{KeyFile, read_own};
pub use memo::MemoStats;
pub use provider::{
    PROVIDER_SECRET_BYTES, ProviderError, ProviderKind, ProviderStatus, RootProvider, Wrapped,
};
pub use root::Recipient;
pub use session::{ReplacedSession, SessionKeys, WrappedSession};
pub use state::TenantChange;
pub use tenant::Tenant;
pub use version::{KekChange, KekVersionState, Rotation};

use crate::crypto::{
    AuditKey, ControlKey, IndexKey, Kek, KeyId, PseudonymKey, RecoveryPrivateKey, RecoveryPublicKey, Sealed,
    SensitiveDek,
};
use crate::env::Entropy;
use crate::model::{
    Duration, KekOrigin, KekVersion, StoreId, TenantId, TenantName, TenantRef, Timestamp, limits,
};
use crate::store::{Key, Row, StorageEngine};
use memo::Memo;
use meta::{OpenedMeta, StoredMeta};
use payload::SystemDescription;
use root::{Opener, Roots};
use session::SessionRow;
use wrap::KeySet;

/// The format version that this program reads and writes.
pub const FORMAT_VERSION: u64 = 1;
/// Most recipients of a root epoch key: a provider, its successor, and a recovery key for each of several people.
pub const MAX_RECIPIENTS: usize = 16;
/// Most versions of a tenant's key that are not destroyed: ten years of monthly rotation. A row holds 255 records.
pub const MAX_KEK_VERSIONS: usize = 120;
/// Most versions of a tenant's key, with the destroyed ones: they are listed in a row that every request reads.
pub const MAX_LISTED_VERSIONS: usize = 1000;
/// Most opened tenants kept in memory: about 3 MiB while each has few versions.
const OPENED_TENANTS: usize = 1024;

/// The opened keys of a store: one for each process.
pub struct Keyring {
    store: StoreId,
    root: RwLock<Arc<RootState>>,
    system: SystemKeys,
    tenants: Memo<Arc<Tenant>>,
    sessions: Memo<SessionKeys>,
    sensitive_uses: AtomicU64,
    entropy: Arc<dyn Entropy>,
}

/// The opened root epoch keys, and everyone who can unwrap them.
struct RootState {
    roots: Roots,
    recipients: Vec<Recipient>,
}

/// The server's own keys.
pub struct SystemKeys {
    keys: KeySet,
    description: SystemDescription,
}

/// Figures about what the keyring remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyringStats {
    /// Opened tenants.
    pub tenants: MemoStats,
    /// Opened sessions.
    pub sessions: MemoStats,
    /// How often the sensitive key of a session was asked for.
    pub sensitive_uses: u64,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("store", &self.store).finish_non_exhaustive()
    }
}

impl fmt::Debug for SystemKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemKeys(…)")
    }
}

impl SystemKeys {
    /// The server as it is bound into its seals.
    #[must_use]
    pub fn tenant_ref(&self) -> TenantRef {
        TenantRef::SYSTEM
    }

    /// The key that blinds the names of tenants and tokens.
    #[must_use]
    pub fn index(&self) -> &IndexKey {
        &self.keys.index
    }

    /// The key for the server's control rows.
    #[must_use]
    pub fn control(&self) -> &ControlKey {
        &self.keys.control
    }

    /// The key of the server's access log.
    #[must_use]
    pub fn audit(&self) -> &Arc<AuditKey> {
        &self.keys.audit
    }

    /// The key of the pseudonyms in the server's access log.
    #[must_use]
    pub fn pseudonym(&self) -> &Arc<PseudonymKey> {
        &self.keys.pseudonym
    }

    /// When the store was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.description.created
    }

    /// The epoch of the server's access log; counts from 1.
    #[must_use]
    pub fn audit_epoch(&self) -> u32 {
        self.description.audit_epoch
    }

    /// The version of the pseudonym key; counts from 1.
    #[must_use]
    pub fn pseudonym_version(&self) -> u32 {
        self.description.pseudonym_version
    }
}

/// Opening a store.
impl Keyring {
    /// Opens the keys of a store. When the store is empty, makes its id, its format version, a root epoch key wrapped for
    /// `provider` and for each of `recovery`, and the server's own keys, in one batch.
    ///
    /// `recovery` counts only when the store is made: see [`recipients`](Self::recipients) for who can unwrap it.
    ///
    /// # Errors
    /// [`KeyringError::UnknownFormat`], [`Incomplete`](KeyringError::Incomplete),
    /// [`WrongRoot`](KeyringError::WrongRoot), [`Provider`](KeyringError::Provider),
    /// [`Integrity`](KeyringError::Integrity) for a store that cannot be opened: nothing of it was changed then.
    pub async fn open(
        engine: &dyn StorageEngine,
        provider: &dyn RootProvider,
        recovery: &[RecoveryPublicKey],
        entropy: Arc<dyn Entropy>,
        now: Timestamp,
    ) -> Result<Self, KeyringError> {
        let stored = match StoredMeta::read(engine).await? {
            Some(stored) => stored,
            None => {
                meta::create(engine, provider, recovery, entropy.as_ref(), now).await?;
                let made = StoredMeta::read(engine).await?;
                made.ok_or(KeyringError::Incomplete { missing: "format" })?
            }
        };
        Ok(Self::new(stored.open(&Opener::Provider(provider)).await?, entropy))
    }

    /// Opens the keys of a store whose root provider is lost, with a recovery key. Never makes a store.
    ///
    /// # Errors
    /// As for [`open`](Self::open); [`KeyringError::WrongRoot`] when the store was not made for this recovery key.
    pub async fn recover(
        engine: &dyn StorageEngine,
        recovery: &RecoveryPrivateKey,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyringError> {
        let stored = StoredMeta::read(engine).await?;
        let stored = stored.ok_or(KeyringError::Incomplete { missing: "format" })?;
        Ok(Self::new(stored.open(&Opener::Recovery(recovery)).await?, entropy))
    }

    fn new(opened: OpenedMeta, entropy: Arc<dyn Entropy>) -> Self {
        let OpenedMeta { store, roots, recipients, system } = opened;
        let tenants = Memo::new(OPENED_TENANTS);
        let sessions = Memo::new(limits::OPENED_SESSIONS);
        let root = RwLock::new(Arc::new(RootState { roots, recipients }));
        Self { store, root, system, tenants, sessions, sensitive_uses: AtomicU64::new(0), entropy }
    }

    /// The same with room for the opened keys of so many sessions, instead of [`OPENED_SESSIONS`](limits::OPENED_SESSIONS).
    #[must_use]
    pub fn keeping(self, sessions: usize) -> Self {
        Self { sessions: Memo::new(sessions), ..self }
    }

    fn root(&self) -> Arc<RootState> {
        Arc::clone(&self.root.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_root(&self, state: RootState) {
        *self.root.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.store
    }

    /// The server's own keys.
    #[must_use]
    pub fn system(&self) -> &SystemKeys {
        &self.system
    }

    /// Figures about what is remembered.
    #[must_use]
    pub fn stats(&self) -> KeyringStats {
        KeyringStats {
            tenants: self.tenants.stats(),
            sessions: self.sessions.stats(),
            sensitive_uses: self.sensitive_uses.load(Ordering::Relaxed),
        }
    }
}

/// Tenants.
impl Keyring {
    /// Makes a tenant: where its row stands, the row at revision 1, and the tenant as if opened from it.
    ///
    /// # Errors
    /// [`KeyringError::Entropy`] when the source fails.
    pub fn create_tenant(
        &self,
        name: &TenantName,
        now: Timestamp,
    ) -> Result<(Key, Row, Arc<Tenant>), KeyringError> {
        self.make_tenant(name, false, now)
    }

    fn make_tenant(
        &self,
        name: &TenantName,
        exportable: bool,
        now: Timestamp,
    ) -> Result<(Key, Row, Arc<Tenant>), KeyringError> {
        let id = TenantId(meta::random_uuid(self.entropy.as_ref())?);
        let tenant = TenantRef { id, incarnation: 1 };
        let tenant = Tenant::generate(tenant, name.clone(), exportable, now, self.entropy.as_ref())?;
        let row = self.seal_tenant(&tenant)?;
        Ok((tenant.row_key().clone(), row, Arc::new(tenant)))
    }

    /// Opens a tenant's row, or remembers having opened exactly these bytes.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when it is not a row that this keyring sealed to stand there.
    pub fn open_tenant(&self, key: &Key, row: &Row) -> Result<Arc<Tenant>, KeyringError> {
        let parts = [row.as_bytes()];
        if let Some(tenant) = self.tenants.find(key, &parts) {
            return Ok(tenant);
        }
        let tenant = Arc::new(Tenant::open(self.store, &self.root().roots, key, row)?);
        self.tenants.remember(key, &parts, Arc::clone(&tenant));
        Ok(tenant)
    }

    /// Opens a row that is not stored yet, and remembers nothing.
    ///
    /// # Errors
    /// As for [`open_tenant`](Self::open_tenant).
    pub fn preview_tenant(&self, key: &Key, row: &Row) -> Result<Tenant, KeyringError> {
        Tenant::open(self.store, &self.root().roots, key, row)
    }

    /// Adds a version of the tenant's key, pending or as the primary: the row to store, one revision further, and the version.
    ///
    /// # Errors
    /// [`KeyringError::TooManyVersions`]; [`KeyringError::Entropy`] when the source fails.
    pub fn add_kek(
        &self,
        tenant: &Tenant,
        promote: bool,
        now: Timestamp,
    ) -> Result<(Row, KekVersion), KeyringError> {
        self.add_version(tenant, Kek::generate(self.entropy.as_ref())?, KekOrigin::Generated, promote, now)
    }

    /// Has versions made by themselves, or not: the row to store, one revision further.
    ///
    /// # Errors
    /// [`KeyringError::Entropy`] when the source fails.
    pub fn set_rotation(
        &self,
        tenant: &Tenant,
        every: Option<Duration>,
        now: Timestamp,
    ) -> Result<Row, KeyringError> {
        let mut next = tenant.next();
        next.description.rotation = every.map(|every| Rotation::after(every, now));
        self.seal_tenant(&next)
    }

    /// Changes the state of a version of the tenant's key: the row to store, one revision further.
    ///
    /// # Errors
    /// [`KeyringError::UnknownVersion`]; [`WrongState`](KeyringError::WrongState) when the change is not for a version in its
    /// state; [`Entropy`](KeyringError::Entropy) when the source fails.
    pub fn change_kek(
        &self,
        tenant: &Tenant,
        version: KekVersion,
        change: KekChange,
        now: Timestamp,
    ) -> Result<Row, KeyringError> {
        let mut next = tenant.next();
        next.change_version(version, change, now)?;
        self.seal_tenant(&next)
    }

    /// Lets the tenant's access log go on in another epoch: the row to store, one revision further.
    ///
    /// # Errors
    /// [`KeyringError::Entropy`] when the source fails.
    pub fn change_audit_epoch(&self, tenant: &Tenant, epoch: u32) -> Result<Row, KeyringError> {
        let mut next = tenant.next();
        next.description.audit_epoch = epoch;
        self.seal_tenant(&next)
    }

    /// Changes a tenant's state: the row to store, one revision further. The row of a destroyed tenant holds the keys of its
    /// access log, and no version of its key.
    ///
    /// # Errors
    /// [`KeyringError::WrongTenantState`] when the change is not for a tenant in its state;
    /// [`Entropy`](KeyringError::Entropy) when the source fails.
    pub fn change_tenant(
        &self,
        tenant: &Tenant,
        change: TenantChange,
        now: Timestamp,
    ) -> Result<Row, KeyringError> {
        let mut next = tenant.next();
        next.change_state(change, now, self.entropy.as_ref())?;
        self.seal_tenant(&next)
    }

    /// Drops from memory what is known of a tenant, its keys and those of its sessions. What its row still holds is opened
    /// again when that is read again.
    pub fn forget_tenant(&self, key: &Key) {
        self.tenants.forget(key);
        self.sessions.forget_where(|session| session.tenant() == key.tenant());
    }

    fn seal_tenant(&self, tenant: &Tenant) -> Result<Row, KeyringError> {
        tenant.seal(self.store, self.root().roots.current(), self.entropy.as_ref())
    }
}

/// Sessions.
impl Keyring {
    /// Makes the keys of a session, wrapped under the tenant's primary version for the session's row.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when the row is not one of the tenant's sessions; [`KeyringError::Entropy`].
    pub fn create_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
    ) -> Result<WrappedSession, KeyringError> {
        let row = SessionRow::new(self.store, tenant, session_row)?;
        row.create(self.entropy.as_ref())
    }

    /// Wraps the keys of a session anew, under what is the tenant's primary version now. Keys and ids stay.
    ///
    /// # Errors
    /// As for [`create_session_keys`](Self::create_session_keys).
    pub fn rewrap_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
        keys: &SessionKeys,
    ) -> Result<(Sealed, Option<Sealed>), KeyringError> {
        SessionRow::new(self.store, tenant, session_row)?.wrap(keys, self.entropy.as_ref())
    }

    /// Makes keys that take the place of a session's, and wraps both under what is the tenant's primary version now.
    ///
    /// # Errors
    /// As for [`create_session_keys`](Self::create_session_keys).
    pub fn replace_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
        former: &SessionKeys,
    ) -> Result<ReplacedSession, KeyringError> {
        SessionRow::new(self.store, tenant, session_row)?.replace(former, self.entropy.as_ref())
    }

    /// Unwraps the keys of a session and remembers nothing: for walks over many, which would drive out those in use.
    ///
    /// # Errors
    /// As for [`open_session_keys`](Self::open_session_keys).
    pub fn peek_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
        body: &[u8],
        sensitive: Option<&[u8]>,
    ) -> Result<SessionKeys, KeyringError> {
        SessionRow::new(self.store, tenant, session_row)?.unwrap(body, sensitive)
    }

    /// Unwraps the body key of a session, or remembers having unwrapped exactly these bytes. The sensitive key stays wrapped until
    /// [`sensitive_key`](Self::sensitive_key); `sensitive` is none once it was purged. The states of the wrapping versions are checked either way.
    ///
    /// # Errors
    /// [`KeyringError::KeyDisabled`] and [`KeyDestroyed`](KeyringError::KeyDestroyed) when the wrapping version may not
    /// unwrap; [`Integrity`](KeyringError::Integrity) when the records do not open.
    pub fn open_session_keys(
        &self,
        tenant: &Tenant,
        session_row: &Key,
        body: &[u8],
        sensitive: Option<&[u8]>,
    ) -> Result<SessionKeys, KeyringError> {
        let row = SessionRow::new(self.store, tenant, session_row)?;
        [Some(body), sensitive].iter().flatten().try_for_each(|record| row.check_version(record))?;
        // The records name the wrapping key by its random id and version, and that it is this tenant's was just checked: so
        // these parts, and the row key, determine what they open to.
        let incarnation = tenant.tenant_ref().incarnation.to_be_bytes();
        let parts: [&[u8]; 3] = [&incarnation, body, sensitive.unwrap_or_default()];
        let parts = parts.get(..2 + usize::from(sensitive.is_some())).unwrap_or_default();
        if let Some(keys) = self.sessions.find(session_row, parts) {
            return Ok(keys);
        }
        let keys = row.unwrap(body, sensitive)?;
        self.sessions.remember(session_row, parts, keys.clone());
        Ok(keys)
    }

    /// The sensitive key of a session with its id, unwrapped now if nobody has asked for it before; none once it was purged.
    ///
    /// # Errors
    /// As for [`open_session_keys`](Self::open_session_keys).
    pub fn sensitive_key<'k>(
        &self,
        tenant: &Tenant,
        session_row: &Key,
        keys: &'k SessionKeys,
    ) -> Result<Option<&'k (KeyId, SensitiveDek)>, KeyringError> {
        self.sensitive_uses.fetch_add(u64::from(keys.has_sensitive()), Ordering::Relaxed);
        SessionRow::new(self.store, tenant, session_row)?.sensitive(keys)
    }

    /// Drops the keys of a session from memory, once its row is gone.
    pub fn forget_session_keys(&self, session_row: &Key) {
        self.sessions.forget(session_row);
    }

    /// The version of the tenant's key that a wrapped session key names, without any claim that it is genuine.
    #[must_use]
    pub fn wrapping_version(record: &[u8]) -> Option<KekVersion> {
        session::named_version(record)
    }
}
