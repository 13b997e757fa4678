//! The rows that are made together with a store: format version, store id, root epoch key, the server's own keys.

use super::payload::{self, SystemDescription};
use super::provider::RootProvider;
use super::root::{self, Opener, Recipient, Roots, StoredRoots};
use super::wrap::{KeySet, RootKey, Slot};
use super::{FORMAT_VERSION, KeyringError, SystemKeys};
use crate::crypto::{RecoveryPublicKey, Rek, Sealed};
use crate::env::{Entropy, EntropyError};
use crate::model::{Revision, StoreId, TenantRef, Timestamp};
use crate::store::{Batch, CommitOutcome, Key, Row, RowExpect, ScanRange, StorageEngine, keys};

const FORMAT: &str = "format";
const SYSTEM: &str = "system";
/// The row whose revision is the newest root epoch; none while that is the first.
pub(super) const EPOCH: &str = "root epoch";
/// The row that says when each root epoch began and ended; none until the first change of any.
pub(super) const HISTORY: &str = "root history";
/// More rows of root epoch keys than a store can have: sixteen recipients for each of sixty epochs.
pub(super) const ROOT_ROWS: usize = 1024;

/// The meta rows as they are stored.
pub(super) struct StoredMeta {
    store: StoreId,
    roots: StoredRoots,
    system: (Key, Row),
}

/// The meta rows, opened.
pub(super) struct OpenedMeta {
    pub(super) store: StoreId,
    pub(super) roots: Roots,
    pub(super) recipients: Vec<Recipient>,
    pub(super) system: SystemKeys,
}

impl StoredMeta {
    /// Reads the meta rows; none when the store is empty.
    pub(super) async fn read(engine: &dyn StorageEngine) -> Result<Option<Self>, KeyringError> {
        let names = [keys::meta(FORMAT), keys::meta(SYSTEM), keys::meta(EPOCH)];
        let mut rows = engine.multi_get(&names).await?.into_iter();
        let [_, system_key, _] = names;
        match rows.next().flatten() {
            Some(format) => check_format(&format)?,
            None if engine.scan(ScanRange::prefix([]), 1).await?.is_empty() => return Ok(None),
            None => return Err(KeyringError::Incomplete { missing: FORMAT }),
        }
        let system = rows.next().flatten().ok_or(KeyringError::Incomplete { missing: SYSTEM })?;
        let store = read_store_id(engine).await?;
        let roots = StoredRoots::read(engine.scan(ScanRange::prefix(keys::roots()), ROOT_ROWS).await?)?;
        if roots.is_empty() {
            return Err(KeyringError::Incomplete { missing: "root" });
        }
        Ok(Some(Self { store, roots, system: (system_key, system) }))
    }

    pub(super) async fn open(&self, opener: &Opener<'_>) -> Result<OpenedMeta, KeyringError> {
        let roots = self.roots.open(self.store, opener).await?;
        let (key, row) = &self.system;
        let system = open_system(self.store, &roots, key, row)?;
        Ok(OpenedMeta { store: self.store, roots, recipients: self.roots.recipients(), system })
    }
}

/// Makes the meta rows of an empty store, in one batch. Nothing happens when another process was faster.
pub(super) async fn create(
    engine: &dyn StorageEngine,
    provider: &dyn RootProvider,
    recovery: &[RecoveryPublicKey],
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<(), KeyringError> {
    let store = StoreId(random_uuid(entropy)?);
    let root = RootKey::new(1, Rek::generate(entropy)?);
    let format = Revision::new(FORMAT_VERSION).unwrap_or(Revision::FIRST);
    let mut put = vec![
        (keys::meta(FORMAT), Row::new(format, &[])),
        (keys::store_id(store), Row::marker()),
        root::commitment_row(&root),
        root::wrap_for_provider(store, &root, root::next_number(0)?, provider, entropy).await?,
    ];
    for (taken, recipient) in (1..).zip(recovery) {
        put.push(root::wrap_for_recovery(store, &root, root::next_number(taken)?, recipient, entropy)?);
    }
    put.push(create_system(store, &root, now, entropy)?);
    // Every maker of a store writes the format row, so that one of two makers fails.
    let expect = vec![(keys::meta(FORMAT), RowExpect::Absent)];
    match engine.commit(Batch { expect, put, delete: Vec::new() }).await? {
        CommitOutcome::Committed | CommitOutcome::Conflict(_) => Ok(()),
    }
}

/// What stands in the place of the epoch mark while `epoch` is the newest.
pub(super) fn epoch_mark(epoch: u32) -> RowExpect {
    match Revision::new(u64::from(epoch)) {
        Some(revision) if epoch > 1 => RowExpect::Revision(revision),
        Some(_) | None => RowExpect::Absent,
    }
}

/// The epoch mark of an epoch behind the first.
pub(super) fn epoch_row(epoch: u32) -> Result<Row, KeyringError> {
    let revision = Revision::new(u64::from(epoch)).ok_or(KeyringError::Integrity)?;
    Ok(Row::new(revision, &[]))
}

/// Sixteen random bytes in the form of a UUID.
pub(super) fn random_uuid(entropy: &dyn Entropy) -> Result<[u8; 16], EntropyError> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes())
}

fn check_format(row: &Row) -> Result<(), KeyringError> {
    let found = row.revision()?.get();
    if found != FORMAT_VERSION {
        return Err(KeyringError::UnknownFormat { found, known: FORMAT_VERSION });
    }
    Ok(row.exactly::<0>().map(|_| ())?)
}

async fn read_store_id(engine: &dyn StorageEngine) -> Result<StoreId, KeyringError> {
    let prefix = keys::store_ids();
    let rows = engine.scan(ScanRange::prefix(prefix.clone()), 2).await?;
    match rows.as_slice() {
        [] => Err(KeyringError::Incomplete { missing: "store" }),
        [(key, row)] if *row == Row::marker() => {
            let id = key.as_bytes().strip_prefix(&prefix[..]).and_then(|id| id.try_into().ok());
            id.map(StoreId).ok_or(KeyringError::Integrity)
        }
        _ => Err(KeyringError::Integrity),
    }
}

fn system_slot(store: StoreId, key: &Key, revision: Revision) -> Slot<'_> {
    Slot { store, tenant: TenantRef::SYSTEM, key: key.within_table(), revision }
}

fn create_system(
    store: StoreId,
    root: &RootKey,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<(Key, Row), KeyringError> {
    let description = SystemDescription { created: now, audit_epoch: 1, pseudonym_version: 1 };
    let system = SystemKeys { keys: KeySet::generate(entropy)?, description };
    Ok((system_key(), system.seal(store, root, Revision::FIRST, entropy)?))
}

/// Where the server's own keys stand.
pub(super) fn system_key() -> Key {
    keys::meta(SYSTEM)
}

impl SystemKeys {
    /// The row to store these as.
    pub(super) fn seal(
        &self,
        store: StoreId,
        root: &RootKey,
        revision: Revision,
        entropy: &dyn Entropy,
    ) -> Result<Row, KeyringError> {
        let key = system_key();
        let slot = system_slot(store, &key, revision);
        let mut records =
            vec![self.keys.describe(&slot, &payload::encode_system(self.description)?, entropy)?];
        records.extend(self.keys.wrap(root, &slot, entropy)?);
        Ok(Row::new(revision, &records.iter().collect::<Vec<&Sealed>>()))
    }
}

/// Opens the server's own keys.
pub(super) fn open_system(
    store: StoreId,
    roots: &Roots,
    key: &Key,
    row: &Row,
) -> Result<SystemKeys, KeyringError> {
    let [description, control, index, audit, pseudonym] = row.exactly()?;
    let (root, _) = roots.naming(control).ok_or(KeyringError::Integrity)?;
    let slot = system_slot(store, key, row.revision()?);
    let keys = KeySet::unwrap(root, &slot, [control, index, audit, pseudonym])?;
    let description = payload::decode_system(keys.description(&slot, description)?.as_bytes())?;
    Ok(SystemKeys { keys, description })
}
