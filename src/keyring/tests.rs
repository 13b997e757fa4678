//! The keyring as a whole, over a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::crypto::{Blinded, RecipientError, Rek, WrappableKey as _, recovery};
use crate::env::{EntropyError, SystemEntropy};
use crate::model::{KekOrigin, KekState, Revision, TenantState};
use crate::store::{Batch, CommitOutcome, EngineError, EngineStats, ScanPage, ScanRange, Table, keys};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_790_000_100_000);

/// As much of an engine as a keyring needs.
#[derive(Default)]
struct Rows(Mutex<BTreeMap<Key, Row>>);

impl Rows {
    fn all(&self) -> BTreeMap<Key, Row> {
        self.0.lock().unwrap().clone()
    }

    fn of(rows: BTreeMap<Key, Row>) -> Self {
        Self(Mutex::new(rows))
    }

    fn put(&self, key: Key, row: Row) {
        self.0.lock().unwrap().insert(key, row);
    }

    fn remove(&self, key: &Key) -> Row {
        self.0.lock().unwrap().remove(key).unwrap()
    }
}

#[async_trait]
impl StorageEngine for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    async fn multi_get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, EngineError> {
        let rows = self.0.lock().unwrap();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn scan(&self, range: ScanRange, limit: usize) -> Result<ScanPage, EngineError> {
        let rows = self.all();
        let inside = rows.into_iter().filter(|(key, _)| key.as_bytes().starts_with(&range.prefix));
        Ok(inside.take(limit).collect())
    }

    async fn scan_keys(&self, range: ScanRange, limit: usize) -> Result<Vec<Key>, EngineError> {
        Ok(self.scan(range, limit).await?.into_iter().map(|(key, _)| key).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, EngineError> {
        let mut rows = self.0.lock().unwrap();
        let broken: Vec<_> = batch.expect.into_iter().filter(|(key, is)| !is.holds(rows.get(key))).collect();
        if !broken.is_empty() {
            return Ok(CommitOutcome::Conflict(broken.into_iter().map(|(key, _)| key).collect()));
        }
        rows.extend(batch.put);
        rows.retain(|key, _| !batch.delete.contains(key));
        Ok(CommitOutcome::Committed)
    }

    async fn stats(&self) -> Result<EngineStats, EngineError> {
        Ok(EngineStats::default())
    }

    async fn close(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError)
    }
}

/// A provider that is away.
struct Away;

#[async_trait]
impl RootProvider for Away {
    fn kind(&self) -> ProviderKind {
        ProviderKind::File
    }

    async fn status(&self) -> Result<ProviderStatus, ProviderError> {
        Err(ProviderError::Unavailable("it is away".into()))
    }

    async fn wrap(&self, _: StoreId, _: &[u8]) -> Result<Wrapped, ProviderError> {
        Err(ProviderError::Unavailable("it is away".into()))
    }

    async fn unwrap(&self, _: StoreId, _: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        Err(ProviderError::Unavailable("it is away".into()))
    }
}

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

fn key_file() -> KeyFile {
    let home = tempfile::tempdir().unwrap();
    KeyFile::create(&home.path().join("root.key"), entropy()).unwrap()
}

async fn open(rows: &Rows, provider: &dyn RootProvider) -> Result<Keyring, KeyringError> {
    Keyring::open(rows, provider, &[], entropy(), NOW).await
}

/// A new store, its provider and its keyring.
async fn new_store() -> (Rows, KeyFile, Keyring) {
    let (rows, provider) = (Rows::default(), key_file());
    let keyring = open(&rows, &provider).await.unwrap();
    (rows, provider, keyring)
}

fn keyring() -> Keyring {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(new_store()).2
}

fn name() -> TenantName {
    TenantName::new("demo").unwrap()
}

fn session_row(tenant: &Tenant, number: u8) -> Key {
    let blinded: Blinded = tenant.index().blind("session", &[&[number]]);
    keys::session(tenant.tenant_ref().id, &blinded)
}

/// Adds a version and makes it the primary.
fn add_primary(tenant: &mut Tenant) -> Result<(), KeyringError> {
    let version = tenant.add_version(Kek::generate(&SystemEntropy::new())?, KekOrigin::Generated, NOW)?;
    tenant.change_version(version, KekChange::Promote, NOW)
}

fn same_system(one: &Keyring, other: &Keyring) -> bool {
    let (one, other) = (&one.system, &other.system);
    one.index().secret().expose() == other.index().secret().expose()
        && one.control().secret().expose() == other.control().secret().expose()
        && one.audit().secret().expose() == other.audit().secret().expose()
        && one.pseudonym().secret().expose() == other.pseudonym().secret().expose()
}

fn same_keys(one: &SessionKeys, other: &SessionKeys) -> bool {
    one.body().secret().expose() == other.body().secret().expose() && one.body_id() == other.body_id()
}

/// The keys that records open to, the sensitive one as well.
fn both_keys(
    keyring: &Keyring,
    tenant: &Tenant,
    row: &Key,
    body: &[u8],
    sensitive: Option<&[u8]>,
) -> Result<SessionKeys, KeyringError> {
    let keys = keyring.open_session_keys(tenant, row, body, sensitive)?;
    keyring.sensitive_key(tenant, row, &keys)?;
    Ok(keys)
}

/// The raw sensitive key with its id.
fn sensitive_of(
    keyring: &Keyring,
    tenant: &Tenant,
    row: &Key,
    keys: &SessionKeys,
) -> Option<([u8; 16], [u8; 32])> {
    let found = keyring.sensitive_key(tenant, row, keys).unwrap();
    found.map(|(id, dek)| (id.0, *dek.secret().expose()))
}

fn flipped(bytes: &[u8], at: usize, bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes
}

fn stored(bytes: Vec<u8>) -> Row {
    Row::from_stored(bytes.into())
}

fn assert_integrity<T>(result: Result<T, KeyringError>) {
    let error = result.err();
    assert!(matches!(error, Some(KeyringError::Integrity)), "{error:?}");
}

mod opening {
    use super::*;

    #[tokio::test]
    async fn the_first_open_makes_everything_and_the_second_finds_the_same() {
        let (rows, provider, first) = new_store().await;
        let made = rows.all();
        assert_eq!(made.len(), 5);
        let second = Keyring::open(&rows, &provider, &[], entropy(), LATER).await.unwrap();
        assert_eq!(rows.all(), made, "opening writes nothing");
        assert_eq!(first.store_id(), second.store_id());
        assert!(same_system(&first, &second));
        assert_eq!((second.system().created(), second.system().audit_epoch()), (NOW, 1));
        assert_eq!(second.recipients()[0].key_id, provider.key_id());
    }

    #[tokio::test]
    async fn two_stores_share_nothing() {
        let ((_, _, one), (_, _, other)) = (new_store().await, new_store().await);
        assert_ne!(one.store_id(), other.store_id());
        assert!(!same_system(&one, &other));
    }

    #[tokio::test]
    async fn of_two_makers_one_wins_and_both_find_its_store() {
        let (rows, provider, first) = new_store().await;
        meta::create(&rows, &provider, &[], &SystemEntropy::new(), NOW).await.unwrap();
        let second = open(&rows, &provider).await.unwrap();
        assert_eq!(first.store_id(), second.store_id());
        assert_eq!(rows.all().len(), 5);
    }

    #[tokio::test]
    async fn a_provider_with_another_key_is_refused_by_name_and_nothing_changes() {
        let (rows, provider, _) = new_store().await;
        let (before, other) = (rows.all(), key_file());
        let refused = open(&rows, &other).await.err().unwrap();
        let KeyringError::WrongRoot { held, wanted, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(*held, other.key_id());
        assert_eq!(*wanted, [format!("keyring file {}", provider.key_id())]);
        assert_eq!(rows.all(), before);
    }

    #[tokio::test]
    async fn a_provider_that_is_away_is_an_error_and_makes_nothing() {
        let empty = Rows::default();
        assert!(matches!(open(&empty, &Away).await, Err(KeyringError::Provider { .. })));
        assert_eq!(empty.all().len(), 0);
        let (rows, _, _) = new_store().await;
        assert!(matches!(open(&rows, &Away).await, Err(KeyringError::Provider { .. })));
    }

    #[tokio::test]
    async fn without_entropy_nothing_is_made() {
        let empty = Rows::default();
        let made = Keyring::open(&empty, &key_file(), &[], Arc::new(NoEntropy), NOW).await;
        assert!(matches!(made, Err(KeyringError::Entropy(EntropyError))));
        assert_eq!(empty.all().len(), 0);
    }

    #[tokio::test]
    async fn an_unknown_format_is_refused_before_anything_else_is_read() {
        let (rows, provider, _) = new_store().await;
        for found in [2, u64::MAX] {
            rows.put(keys::meta("format"), Row::new(Revision::new(found).unwrap(), &[]));
            let refused = open(&rows, &provider).await;
            assert!(
                matches!(refused, Err(KeyringError::UnknownFormat { found: is, known: 1 }) if is == found)
            );
        }
        let bare = Rows::of([(keys::meta("format"), Row::new(Revision::new(7).unwrap(), &[]))].into());
        assert!(matches!(open(&bare, &provider).await, Err(KeyringError::UnknownFormat { found: 7, .. })));
    }

    #[tokio::test]
    async fn a_store_that_lost_one_of_its_meta_rows_is_not_made_anew() {
        let (rows, provider, _) = new_store().await;
        for key in rows.all().into_keys() {
            let removed = rows.remove(&key);
            let refused = open(&rows, &provider).await.err().unwrap();
            // A stanza without its commitment is not merely incomplete.
            let named = matches!(refused, KeyringError::Incomplete { .. } | KeyringError::Integrity);
            assert!(named, "{key:?}: {refused:?}");
            rows.put(key, removed);
        }
        let foreign = Rows::of([(keys::tenant(TenantId([1; 16])), Row::marker())].into());
        let refused = open(&foreign, &provider).await;
        assert!(matches!(refused, Err(KeyringError::Incomplete { missing: "format" })));
        assert_eq!(foreign.all().len(), 1);
    }

    #[tokio::test]
    async fn no_flipped_bit_of_a_meta_row_or_its_key_opens() {
        let (rows, provider, _) = new_store().await;
        let whole = rows.all();
        for (key, row) in &whole {
            for at in 0..key.as_bytes().len() {
                let mut altered = whole.clone();
                altered.remove(key);
                altered.insert(Key::from_stored(flipped(key.as_bytes(), at, at % 8)), row.clone());
                assert_refused(altered.clone(), &provider).await;
            }
            for at in 0..row.as_bytes().len() {
                let mut altered = whole.clone();
                altered.insert(key.clone(), stored(flipped(row.as_bytes(), at, at % 8)));
                assert_refused(altered.clone(), &provider).await;
                altered.insert(key.clone(), stored(row.as_bytes()[..at].to_vec()));
                assert_refused(altered.clone(), &provider).await;
            }
        }
    }

    async fn assert_refused(rows: BTreeMap<Key, Row>, provider: &KeyFile) {
        let rows = Rows::of(rows);
        let before = rows.all();
        let refused = open(&rows, provider).await.err().unwrap();
        let named = matches!(
            refused,
            KeyringError::Integrity
                | KeyringError::Incomplete { .. }
                | KeyringError::WrongRoot { .. }
                | KeyringError::UnknownFormat { .. }
        );
        assert!(named, "{refused:?}");
        assert_eq!(rows.all(), before);
    }

    #[tokio::test]
    async fn another_commitment_or_a_second_one_or_a_second_store_id_is_refused() {
        let (rows, provider, _) = new_store().await;
        let commitment = rows
            .all()
            .into_keys()
            .find(|key| keys::root_parts(key).is_some_and(|(_, number, _)| number == 0));
        let commitment = commitment.unwrap();
        rows.put(keys::root(1, 0, &[7; 32]), Row::marker());
        assert_integrity(open(&rows, &provider).await);
        rows.remove(&commitment);
        assert_integrity(open(&rows, &provider).await);
        let (rows, provider, _) = new_store().await;
        rows.put(keys::store_id(StoreId([7; 16])), Row::marker());
        assert_integrity(open(&rows, &provider).await);
    }

    #[tokio::test]
    async fn a_foreign_root_key_that_someone_wrapped_for_us_opens_nothing() {
        let (rows, _, keyring) = new_store().await;
        let private = recovery::generate(&SystemEntropy::new()).unwrap();
        for key in rows.all().into_keys().filter(|key| keys::root_parts(key).is_some()) {
            rows.remove(&key);
        }
        let forged = wrap::RootKey::new(1, Rek::generate(&SystemEntropy::new()).unwrap());
        let entropy = SystemEntropy::new();
        let stanza = root::wrap_for_recovery(keyring.store, &forged, 1, &private.public(), &entropy).unwrap();
        for (key, row) in [root::commitment_row(&forged), stanza] {
            rows.put(key, row);
        }
        assert_integrity(Keyring::recover(&rows, &private, super::entropy()).await);
    }

    #[tokio::test]
    async fn a_store_with_an_older_epoch_opens_what_either_wrapped_and_wraps_with_the_newer() {
        let (rows, provider, first) = new_store().await;
        let (key, row, tenant) = first.create_tenant(&name(), NOW).unwrap();
        let second = wrap::RootKey::new(2, Rek::generate(&SystemEntropy::new()).unwrap());
        let entropy = SystemEntropy::new();
        let stanza = root::wrap_for_provider(first.store, &second, 1, &provider, &entropy).await.unwrap();
        for (key, row) in [root::commitment_row(&second), stanza] {
            rows.put(key, row);
        }
        let both = open(&rows, &provider).await.unwrap();
        assert!(same_system(&first, &both));
        let reopened = both.open_tenant(&key, &row).unwrap();
        assert!(reopened.index().secret().expose() == tenant.index().secret().expose());
        let rewrapped = both.change_tenant(&reopened, TenantChange::Resume, LATER).unwrap();
        assert!(both.open_tenant(&key, &rewrapped).is_ok());
        assert_integrity(first.open_tenant(&key, &rewrapped));
    }
}

mod recovering {
    use super::*;

    async fn recoverable() -> (Rows, KeyFile, Keyring, RecoveryPrivateKey) {
        let (rows, provider) = (Rows::default(), key_file());
        let private = recovery::generate(&SystemEntropy::new()).unwrap();
        let other = recovery::generate(&SystemEntropy::new()).unwrap();
        let public = [other.public(), private.public()];
        let keyring = Keyring::open(&rows, &provider, &public, entropy(), NOW).await.unwrap();
        (rows, provider, keyring, private)
    }

    #[tokio::test]
    async fn the_recovery_key_opens_the_same_store_and_a_new_provider_takes_over() {
        let (rows, lost, keyring, private) = recoverable().await;
        assert_eq!(keyring.recipients().len(), 3);
        let (key, row, _) = keyring.create_tenant(&name(), NOW).unwrap();
        let text = recovery::write_private(&private);
        let private = recovery::read_private(&text).unwrap();

        let recovered = Keyring::recover(&rows, &private, entropy()).await.unwrap();
        assert!(same_system(&keyring, &recovered));
        let one = recovered.root().roots.current().rek().commitment();
        assert_eq!(one, keyring.root().roots.current().rek().commitment());

        let replacement = key_file();
        let stored = recovered.read_epochs(&rows).await.unwrap();
        let add = NewRecipient::Provider(&replacement);
        let change = recovered.add_recipient(&stored, &add, NOW).await.unwrap().unwrap();
        rows.commit(change.batch).await.unwrap();
        for provider in [&lost, &replacement] {
            let keyring = open(&rows, provider).await.unwrap();
            assert!(keyring.open_tenant(&key, &row).is_ok());
            assert_eq!(keyring.recipients().len(), 4);
        }
    }

    #[tokio::test]
    async fn another_recovery_key_is_refused_even_under_the_right_ones_name() {
        let (rows, _, keyring, private) = recoverable().await;
        let wrong = recovery::generate(&SystemEntropy::new()).unwrap();
        let refused = Keyring::recover(&rows, &wrong, entropy()).await.err().unwrap();
        assert!(matches!(refused, KeyringError::WrongRoot { provider: ProviderKind::Recovery, .. }));

        let named = recovery::write_public(&private.public());
        let wrong_name = recovery::write_public(&wrong.public());
        for (key, row) in rows.all() {
            let text = String::from_utf8_lossy(key.as_bytes()).into_owned();
            if let Some(at) = text.find(&named).and(key.as_bytes().windows(4).position(|w| w == b"srp_")) {
                let mut renamed = key.as_bytes().to_vec();
                renamed[at..at + wrong_name.len()].copy_from_slice(wrong_name.as_bytes());
                rows.remove(&key);
                rows.put(Key::from_stored(renamed), row);
            }
        }
        assert_integrity(Keyring::recover(&rows, &wrong, entropy()).await);
        assert_eq!(keyring.recipients()[2].key_id, named);
    }

    #[tokio::test]
    async fn no_flipped_bit_of_a_recovery_stanza_opens() {
        let (rows, _, keyring, private) = recoverable().await;
        let number = 3;
        let of = |key: &Key| keys::root_parts(key).is_some_and(|(_, is, _)| is == number);
        let (key, row) = rows.all().into_iter().find(|(key, _)| of(key)).unwrap();
        rows.remove(&key);
        for at in 0..key.as_bytes().len() {
            let altered = Key::from_stored(flipped(key.as_bytes(), at, at % 8));
            rows.put(altered.clone(), row.clone());
            assert!(Keyring::recover(&rows, &private, entropy()).await.is_err(), "{at}");
            rows.remove(&altered);
        }
        for at in 0..row.as_bytes().len() {
            rows.put(key.clone(), stored(flipped(row.as_bytes(), at, at % 8)));
            assert_integrity(Keyring::recover(&rows, &private, entropy()).await);
        }
        rows.put(key, row);
        assert!(same_system(&keyring, &Keyring::recover(&rows, &private, entropy()).await.unwrap()));
    }

    #[tokio::test]
    async fn a_recovery_key_of_low_order_and_too_many_recipients_are_refused_before_anything_is_made() {
        let (rows, provider) = (Rows::default(), key_file());
        let low = Keyring::open(&rows, &provider, &[RecoveryPublicKey([0; 32])], entropy(), NOW).await;
        assert!(matches!(low, Err(KeyringError::Recovery(RecipientError::LowOrder))));
        let many: Vec<_> = (0..MAX_RECIPIENTS)
            .map(|_| recovery::generate(&SystemEntropy::new()).unwrap().public())
            .collect();
        let refused = Keyring::open(&rows, &provider, &many, entropy(), NOW).await;
        assert!(matches!(refused, Err(KeyringError::TooManyRecipients { max: MAX_RECIPIENTS })));
        assert_eq!(rows.all().len(), 0);
        assert!(Keyring::open(&rows, &provider, &many[1..], entropy(), NOW).await.is_ok());
    }

    #[tokio::test]
    async fn recovery_never_makes_a_store() {
        let private = recovery::generate(&SystemEntropy::new()).unwrap();
        let rows = Rows::default();
        let refused = Keyring::recover(&rows, &private, entropy()).await;
        assert!(matches!(refused, Err(KeyringError::Incomplete { missing: "format" })));
        assert_eq!(rows.all().len(), 0);
    }
}

mod tenants {
    use super::*;

    #[test]
    fn a_tenant_opens_as_it_was_made() {
        let keyring = keyring();
        let (key, row, made) = keyring.create_tenant(&name(), NOW).unwrap();
        let opened = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!(opened.description, made.description);
        assert_eq!(opened.row_key(), &key);
        assert_eq!((opened.revision(), row.revision()), (Revision::FIRST, Ok(Revision::FIRST)));
        assert_eq!((opened.name(), opened.state()), (&name(), TenantState::Active));
        assert_eq!((opened.created(), opened.state_changed()), (NOW, NOW));
        assert_eq!((opened.tenant_ref().incarnation, opened.audit_epoch()), (1, 1));
        assert_eq!((opened.primary(), opened.keks().len()), (Some(KekVersion(1)), 1));
        assert!(opened.index().secret().expose() == made.index().secret().expose());
        assert!(opened.control().secret().expose() == made.control().secret().expose());
        assert!(opened.audit().secret().expose() == made.audit().secret().expose());
        assert!(opened.pseudonym().secret().expose() == made.pseudonym().secret().expose());
    }

    #[test]
    fn no_flipped_bit_and_no_truncation_of_a_tenant_row_opens() {
        let keyring = keyring();
        let (key, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = keyring.add_kek(&tenant, true, LATER).unwrap().0;
        for at in 0..row.as_bytes().len() {
            for bit in 0..8 {
                assert_integrity(keyring.open_tenant(&key, &stored(flipped(row.as_bytes(), at, bit))));
            }
            assert_integrity(keyring.open_tenant(&key, &stored(row.as_bytes()[..at].to_vec())));
        }
        let longer = [row.as_bytes(), &[0]].concat();
        assert_integrity(keyring.open_tenant(&key, &stored(longer)));
        assert!(keyring.open_tenant(&key, &row).is_ok());
    }

    #[test]
    fn a_tenant_row_under_another_key_or_in_another_store_does_not_open() {
        let (keyring, elsewhere) = (keyring(), super::keyring());
        let (key, row, _) = keyring.create_tenant(&name(), NOW).unwrap();
        let (other, other_row, _) = keyring.create_tenant(&name(), NOW).unwrap();
        assert_integrity(keyring.open_tenant(&other, &row));
        assert_integrity(keyring.open_tenant(&key, &other_row));
        assert_integrity(elsewhere.open_tenant(&key, &row));
        let mut session = key.as_bytes().to_vec();
        session[0] = Table::Session as u8;
        assert_integrity(keyring.open_tenant(&Key::from_stored(session), &row));
        let longer = Key::from_stored([key.as_bytes(), &[0]].concat());
        assert_integrity(keyring.open_tenant(&longer, &row));
        assert_integrity(keyring.open_tenant(&keys::meta("system"), &row));
    }

    #[tokio::test]
    async fn the_same_root_key_under_another_store_id_opens_no_row() {
        let (_, _, keyring) = new_store().await;
        let (key, row, _) = keyring.create_tenant(&name(), NOW).unwrap();
        let moved = Tenant::open(StoreId([7; 16]), &keyring.root().roots, &key, &row);
        assert_integrity(moved);
    }

    #[test]
    fn a_record_of_an_earlier_revision_does_not_open_in_a_later_row() {
        let keyring = keyring();
        let (key, row, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let later = keyring.change_tenant(&tenant, TenantChange::Suspend, LATER).unwrap();
        let (old, new) = (row.records().unwrap(), later.records().unwrap());
        assert_eq!(new.len(), 6);
        for replaced in 0..6 {
            let mut mixed = later.as_bytes()[..9].to_vec();
            for (at, record) in new.iter().enumerate() {
                let record = if at == replaced { old[at] } else { record };
                mixed.extend_from_slice(&u32::try_from(record.len()).unwrap().to_be_bytes());
                mixed.extend_from_slice(record);
            }
            assert_integrity(keyring.open_tenant(&key, &stored(mixed)));
        }
        let mut claimed = row.as_bytes().to_vec();
        claimed[7] = 2;
        assert_integrity(keyring.open_tenant(&key, &stored(claimed)));
    }

    #[test]
    fn records_that_change_places_or_are_missing_do_not_open() {
        let keyring = keyring();
        let (key, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = keyring.add_kek(&tenant, true, LATER).unwrap().0;
        let records = row.records().unwrap();
        assert_eq!(records.len(), 7);
        let rebuilt = |order: &[usize]| {
            let mut bytes = row.as_bytes()[..8].to_vec();
            bytes.push(u8::try_from(order.len()).unwrap());
            for at in order {
                bytes.extend_from_slice(&u32::try_from(records[*at].len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(records[*at]);
            }
            stored(bytes)
        };
        assert!(keyring.open_tenant(&key, &rebuilt(&[0, 1, 2, 3, 4, 5, 6])).is_ok());
        for order in [
            &[0, 1, 2, 3, 4, 6, 5][..],
            &[0, 1, 2, 3, 4, 5, 5],
            &[0, 1, 3, 2, 4, 5, 6],
            &[1, 0, 2, 3, 4, 5, 6],
            &[0, 1, 2, 3, 4, 5],
            &[0, 1, 2, 3, 4, 6],
            &[0, 1, 2, 3, 4],
            &[0, 1, 2, 3, 4, 5, 6, 6],
            &[0],
            &[],
        ] {
            assert_integrity(keyring.open_tenant(&key, &rebuilt(order)));
        }
    }

    #[test]
    fn a_description_that_breaks_the_rules_is_refused_though_it_is_sealed() {
        let keyring = keyring();
        let (key, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let sealed = |break_it: &dyn Fn(&mut Tenant)| {
            let mut next = tenant.next();
            add_primary(&mut next).unwrap();
            break_it(&mut next);
            keyring.open_tenant(&key, &keyring.seal_tenant(&next).unwrap())
        };
        assert!(sealed(&|_| ()).is_ok());
        assert_integrity(sealed(&|tenant| tenant.description.versions[0].state = KekState::Primary));
        assert_integrity(sealed(&|tenant| tenant.description.versions[1].state = KekState::Enabled));
        assert_integrity(sealed(&|tenant| tenant.description.versions[0].state = KekState::Destroyed));
        assert_integrity(sealed(&|tenant| {
            tenant.description.versions[1].version = KekVersion(1);
            tenant.keks[1].0 = KekVersion(1);
        }));
        assert_integrity(sealed(&|tenant| drop(tenant.keks.pop())));
        assert_integrity(sealed(&|tenant| tenant.description.versions[0].destroy_at = Some(LATER)));
    }

    #[test]
    fn suspending_and_resuming_changes_the_state_and_its_time_alone() {
        let keyring = keyring();
        let (key, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = keyring.change_tenant(&tenant, TenantChange::Suspend, LATER).unwrap();
        let suspended = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!((suspended.state(), suspended.state_changed()), (TenantState::Suspended, LATER));
        assert_eq!((suspended.created(), suspended.revision().get()), (NOW, 2));
        assert_eq!(suspended.keks(), tenant.keks());
        let row = keyring.change_tenant(&suspended, TenantChange::Resume, LATER).unwrap();
        let active = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!((active.state(), active.revision().get()), (TenantState::Active, 3));
        assert_eq!(tenant.state(), TenantState::Active, "what was opened does not change");
    }

    #[test]
    fn a_version_goes_through_its_states_and_its_key_is_gone_from_the_row_at_the_end() {
        let keyring = keyring();
        let (key, _, mut tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let (row, second) = keyring.add_kek(&tenant, false, NOW).unwrap();
        tenant = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!((tenant.primary(), tenant.keks()[1].state), (Some(KekVersion(1)), KekState::Pending));
        let first = KekVersion(1);
        for (version, change, state) in [
            (second, KekChange::Promote, KekState::Primary),
            (first, KekChange::Disable, KekState::Disabled),
            (first, KekChange::Enable, KekState::Enabled),
            (first, KekChange::Schedule(LATER), KekState::DestroyScheduled),
            (first, KekChange::Cancel, KekState::Disabled),
            (first, KekChange::Schedule(LATER), KekState::DestroyScheduled),
        ] {
            let row = keyring.change_kek(&tenant, version, change, NOW).unwrap();
            tenant = keyring.open_tenant(&key, &row).unwrap();
            let found = tenant.keks().iter().find(|of| of.version == version).unwrap();
            let scheduled = (state == KekState::DestroyScheduled).then_some(LATER);
            assert_eq!((found.state, found.destroy_at), (state, scheduled));
            assert_eq!((row.records().unwrap().len(), tenant.primary()), (7, Some(second)), "{change:?}");
        }
        let row = keyring.change_kek(&tenant, first, KekChange::Destroy, LATER).unwrap();
        tenant = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!((row.records().unwrap().len(), tenant.keks()[0].state), (6, KekState::Destroyed));
        let refused = keyring.change_kek(&tenant, first, KekChange::Enable, LATER);
        assert!(matches!(refused, Err(KeyringError::WrongState(KekState::Destroyed))));
        let refused = keyring.change_kek(&tenant, second, KekChange::Destroy, LATER);
        assert!(matches!(refused, Err(KeyringError::WrongState(KekState::Primary))));
        let refused = keyring.change_kek(&tenant, KekVersion(3), KekChange::Enable, LATER);
        assert!(matches!(refused, Err(KeyringError::UnknownVersion(KekVersion(3)))));
    }

    #[test]
    fn versions_are_bounded_and_the_longest_row_opens() {
        let keyring = keyring();
        let (key, mut row, mut tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        for _ in 1..MAX_KEK_VERSIONS {
            row = keyring.add_kek(&tenant, true, NOW).unwrap().0;
            tenant = keyring.open_tenant(&key, &row).unwrap();
        }
        assert_eq!((row.records().unwrap().len(), tenant.primary()), (125, Some(KekVersion(120))));
        let refused = keyring.add_kek(&tenant, true, NOW);
        assert!(matches!(refused, Err(KeyringError::TooManyVersions { .. })));
    }
}

mod ending {
    use super::*;

    /// A suspended tenant of two versions, as it is stored.
    fn suspended(keyring: &Keyring) -> (Key, Arc<Tenant>) {
        let (key, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let (row, _) = keyring.add_kek(&tenant, true, NOW).unwrap();
        let tenant = keyring.open_tenant(&key, &row).unwrap();
        let row = keyring.change_tenant(&tenant, TenantChange::Suspend, NOW).unwrap();
        let tenant = keyring.open_tenant(&key, &row).unwrap();
        (key, tenant)
    }

    #[test]
    fn a_scheduled_tenant_keeps_its_keys_and_can_be_had_back() {
        let keyring = keyring();
        let (key, tenant) = suspended(&keyring);
        let row = keyring.change_tenant(&tenant, TenantChange::Schedule(LATER), NOW).unwrap();
        let doomed = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!((doomed.state(), doomed.destroy_at()), (TenantState::DestroyScheduled, Some(LATER)));
        assert_eq!((doomed.keks(), doomed.primary()), (tenant.keks(), tenant.primary()));
        let row = keyring.change_tenant(&doomed, TenantChange::Cancel, LATER).unwrap();
        let back = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!((back.state(), back.destroy_at()), (TenantState::Suspended, None));
        let (session, index) = (session_row(&tenant, 1), back.index().secret().expose());
        let made = keyring.create_session_keys(&tenant, &session).unwrap();
        let (body, sensitive) = (made.body.as_bytes(), Some(made.sensitive.as_bytes()));
        assert!(same_keys(&keyring.open_session_keys(&back, &session, body, sensitive).unwrap(), &made.keys));
        assert!(index == tenant.index().secret().expose());
    }

    #[test]
    fn a_destroyed_tenant_has_the_keys_of_its_log_and_no_other() {
        let keyring = keyring();
        let (key, tenant) = suspended(&keyring);
        let session = session_row(&tenant, 1);
        let made = keyring.create_session_keys(&tenant, &session).unwrap();
        let row = keyring.change_tenant(&tenant, TenantChange::Destroy, LATER).unwrap();
        let gone = keyring.open_tenant(&key, &row).unwrap();
        assert_eq!(row.records().unwrap().len(), 5, "no version of its key is wrapped there");
        assert_eq!((gone.state(), gone.destroy_at()), (TenantState::Destroyed, Some(LATER)));
        assert_eq!((gone.primary(), gone.rotation(), gone.name()), (None, None, &name()));
        let states: Vec<_> = gone.keks().iter().map(|of| (of.state, of.changed)).collect();
        assert_eq!(states, [(KekState::Destroyed, LATER); 2]);
        assert!(gone.audit().secret().expose() == tenant.audit().secret().expose());
        assert!(gone.pseudonym().secret().expose() == tenant.pseudonym().secret().expose());
        assert!(gone.control().secret().expose() != tenant.control().secret().expose());
        assert!(gone.index().secret().expose() != tenant.index().secret().expose());

        let body = made.body.as_bytes();
        let opened = keyring.open_session_keys(&gone, &session, body, None);
        assert!(matches!(opened, Err(KeyringError::KeyDestroyed(_))), "{opened:?}");
        let made = keyring.create_session_keys(&gone, &session);
        assert!(matches!(made, Err(KeyringError::WrongTenantState(TenantState::Destroyed))), "{made:?}");
        for change in [TenantChange::Cancel, TenantChange::Resume, TenantChange::Schedule(LATER)] {
            let refused = keyring.change_tenant(&gone, change, LATER);
            assert!(matches!(refused, Err(KeyringError::WrongTenantState(TenantState::Destroyed))));
        }
    }

    #[test]
    fn no_state_is_taken_for_another_ones_though_it_is_sealed() {
        let keyring = keyring();
        let (key, tenant) = suspended(&keyring);
        let row = keyring.change_tenant(&tenant, TenantChange::Destroy, LATER).unwrap();
        let gone = keyring.open_tenant(&key, &row).unwrap();
        let sealed = |tenant: &Tenant, break_it: &dyn Fn(&mut Tenant)| {
            let mut next = tenant.next();
            break_it(&mut next);
            keyring.open_tenant(&key, &keyring.seal_tenant(&next).unwrap())
        };
        assert!(sealed(&gone, &|_| ()).is_ok());
        for state in [TenantState::Active, TenantState::Suspended, TenantState::DestroyScheduled] {
            assert_integrity(sealed(&gone, &|tenant| tenant.description.state = state));
        }
        assert_integrity(sealed(&gone, &|tenant| tenant.description.destroy_at = None));
        assert_integrity(sealed(&gone, &|tenant| tenant.description.versions[0].state = KekState::Disabled));
        assert_integrity(sealed(&tenant, &|tenant| tenant.description.destroy_at = Some(LATER)));
        assert_integrity(sealed(&tenant, &|tenant| tenant.description.state = TenantState::DestroyScheduled));
        assert_integrity(sealed(&tenant, &|tenant| {
            (tenant.description.state, tenant.description.destroy_at) = (TenantState::Destroyed, Some(LATER));
        }));
    }
}

mod sessions {
    use super::*;

    fn with_state(keyring: &Keyring, tenant: &Tenant, state: KekState) -> Result<Arc<Tenant>, KeyringError> {
        let mut next = tenant.next();
        add_primary(&mut next)?;
        next.description.versions[0].state = state;
        if state == KekState::Destroyed {
            next.keks.remove(0);
        }
        keyring.open_tenant(tenant.row_key(), &keyring.seal_tenant(&next)?)
    }

    #[test]
    fn keys_come_back_from_their_records_and_purged_ones_do_not() {
        let keyring = keyring();
        let (_, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = session_row(&tenant, 1);
        let made = keyring.create_session_keys(&tenant, &row).unwrap();
        let (body, sensitive) = (made.body.as_bytes(), made.sensitive.as_bytes());
        let opened = keyring.open_session_keys(&tenant, &row, body, Some(sensitive)).unwrap();
        assert!(same_keys(&opened, &made.keys));
        let found = sensitive_of(&keyring, &tenant, &row, &opened);
        assert_eq!(found, sensitive_of(&keyring, &tenant, &row, &made.keys));
        assert_ne!(found.unwrap().0, opened.body_id().0);
        let purged = keyring.open_session_keys(&tenant, &row, body, None).unwrap();
        assert!(!purged.has_sensitive() && sensitive_of(&keyring, &tenant, &row, &purged).is_none());
        assert_eq!(purged.body_id(), opened.body_id());
        assert_eq!(Keyring::wrapping_version(body), Some(KekVersion(1)));
        assert_eq!(Keyring::wrapping_version(&body[..20]), None);
    }

    #[test]
    fn no_flipped_bit_of_a_wrapped_key_opens() {
        let keyring = keyring();
        let (_, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = session_row(&tenant, 1);
        let made = keyring.create_session_keys(&tenant, &row).unwrap();
        let (body, sensitive) = (made.body.as_bytes(), made.sensitive.as_bytes());
        keyring.open_session_keys(&tenant, &row, body, Some(sensitive)).unwrap();
        for at in 0..body.len() {
            for bit in 0..8 {
                let altered = flipped(body, at, bit);
                assert_integrity(keyring.open_session_keys(&tenant, &row, &altered, Some(sensitive)));
                let altered = flipped(sensitive, at, bit);
                assert_integrity(both_keys(&keyring, &tenant, &row, body, Some(&altered)));
            }
            assert_integrity(keyring.open_session_keys(&tenant, &row, &body[..at], None));
        }
        assert_integrity(keyring.open_session_keys(&tenant, &row, body, Some(&[])));
    }

    #[test]
    fn wrapped_keys_do_not_open_for_another_session_tenant_role_or_store() {
        let (keyring, elsewhere) = (keyring(), super::keyring());
        let (_, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let (_, _, other) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = session_row(&tenant, 1);
        let made = keyring.create_session_keys(&tenant, &row).unwrap();
        let (body, sensitive) = (made.body.as_bytes(), made.sensitive.as_bytes());
        keyring.open_session_keys(&tenant, &row, body, Some(sensitive)).unwrap();
        assert_integrity(keyring.open_session_keys(&tenant, &session_row(&tenant, 2), body, Some(sensitive)));
        assert_integrity(keyring.open_session_keys(&other, &session_row(&other, 1), body, Some(sensitive)));
        assert_integrity(keyring.open_session_keys(&other, &row, body, Some(sensitive)));
        assert_integrity(keyring.open_session_keys(&tenant, &row, sensitive, Some(body)));
        assert_integrity(both_keys(&keyring, &tenant, &row, body, Some(body)));
        assert_integrity(elsewhere.open_session_keys(&tenant, &row, body, Some(sensitive)));
        assert_integrity(keyring.create_session_keys(&tenant, tenant.row_key()));
        assert_integrity(keyring.create_session_keys(&other, &row));
    }

    #[test]
    fn another_incarnation_or_another_key_does_not_open_a_session_even_when_it_is_remembered() {
        let keyring = keyring();
        let (key, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = session_row(&tenant, 1);
        let made = keyring.create_session_keys(&tenant, &row).unwrap();
        let reopened = |change: &dyn Fn(&mut Tenant)| {
            let mut next = tenant.next();
            change(&mut next);
            let next = keyring.open_tenant(&key, &keyring.seal_tenant(&next).unwrap()).unwrap();
            keyring.open_session_keys(&tenant, &row, made.body.as_bytes(), None).unwrap();
            keyring.open_session_keys(&next, &row, made.body.as_bytes(), None)
        };
        assert!(reopened(&|_| ()).is_ok());
        assert_integrity(reopened(&|tenant| tenant.description.tenant.incarnation = 2));
        assert_integrity(reopened(&|tenant| tenant.description.kek_id = [7; 12]));
    }

    #[test]
    fn a_version_that_may_not_unwrap_refuses_even_what_is_remembered() {
        let keyring = keyring();
        let (_, _, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let row = session_row(&tenant, 1);
        let made = keyring.create_session_keys(&tenant, &row).unwrap();
        let (body, sensitive) = (made.body.as_bytes(), Some(made.sensitive.as_bytes()));
        keyring.open_session_keys(&tenant, &row, body, sensitive).unwrap();
        for state in [KekState::Pending, KekState::Disabled, KekState::DestroyScheduled] {
            let tenant = with_state(&keyring, &tenant, state).unwrap();
            let refused = keyring.open_session_keys(&tenant, &row, body, sensitive);
            assert!(matches!(refused, Err(KeyringError::KeyDisabled(KekVersion(1)))), "{state:?}");
        }
        let destroyed = with_state(&keyring, &tenant, KekState::Destroyed).unwrap();
        let refused = keyring.open_session_keys(&destroyed, &row, body, sensitive);
        assert!(matches!(refused, Err(KeyringError::KeyDestroyed(KekVersion(1)))));
        let enabled = with_state(&keyring, &tenant, KekState::Enabled).unwrap();
        let opened = keyring.open_session_keys(&enabled, &row, body, sensitive).unwrap();
        assert!(same_keys(&opened, &made.keys));
        assert_eq!(keyring.stats().sessions.hits, 1);
    }

    #[test]
    fn what_is_remembered_is_counted_exact_and_can_be_forgotten() {
        let keyring = keyring();
        let (key, tenant_row, tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        for _ in 0..3 {
            keyring.open_tenant(&key, &tenant_row).unwrap();
        }
        let stats = keyring.stats();
        assert_eq!((stats.tenants.hits, stats.tenants.misses), (2, 1));
        let row = session_row(&tenant, 1);
        let one = keyring.create_session_keys(&tenant, &row).unwrap();
        let two = keyring.create_session_keys(&tenant, &row).unwrap();
        for made in [&one, &one, &two, &one] {
            let opened = keyring.open_session_keys(
                &tenant,
                &row,
                made.body.as_bytes(),
                Some(made.sensitive.as_bytes()),
            );
            assert!(same_keys(&opened.unwrap(), &made.keys));
        }
        assert_eq!((keyring.stats().sessions.hits, keyring.stats().sessions.misses), (1, 3));
        let weak = {
            let keys = keyring.open_session_keys(&tenant, &row, one.body.as_bytes(), None).unwrap();
            Arc::downgrade(&keys.0)
        };
        assert!(weak.upgrade().is_some());
        keyring.forget_session_keys(&row);
        assert!(weak.upgrade().is_none(), "the last copy of the keys is gone");
        let opened = Arc::downgrade(&keyring.open_tenant(&key, &tenant_row).unwrap());
        keyring.forget_tenant(&key);
        assert!(opened.upgrade().is_none());
    }

    #[test]
    fn debug_output_shows_no_key_and_no_name() {
        let keyring = keyring();
        let (_, _, tenant) = keyring.create_tenant(&TenantName::new("planted-name").unwrap(), NOW).unwrap();
        let made = keyring.create_session_keys(&tenant, &session_row(&tenant, 1)).unwrap();
        let shown = format!("{tenant:?} {made:?} {:?}", made.keys);
        let key = data_encoding::HEXLOWER.encode(made.keys.body().secret().expose());
        assert!(!shown.contains("planted-name") && !shown.contains(&key), "{shown}");
        assert!(shown.contains("SessionKeys(…)"));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Rotate,
    Suspend,
    Resume,
    Create,
    Rewrap(usize),
    Purge(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Rotate),
        1 => Just(Step::Suspend),
        1 => Just(Step::Resume),
        3 => Just(Step::Create),
        2 => any::<usize>().prop_map(Step::Rewrap),
        1 => any::<usize>().prop_map(Step::Purge),
    ];
    proptest::collection::vec(step, 1..24)
}

/// A session as a store would hold it, and the keys that it had from the start.
struct Held {
    row: Key,
    body: Sealed,
    sensitive: Option<Sealed>,
    keys: SessionKeys,
    version: KekVersion,
}

impl Held {
    fn open(&self, keyring: &Keyring, tenant: &Tenant) -> Result<SessionKeys, KeyringError> {
        let sensitive = self.sensitive.as_ref().map(Sealed::as_bytes);
        keyring.open_session_keys(tenant, &self.row, self.body.as_bytes(), sensitive)
    }
}

fn take(step: &Step, keyring: &Keyring, tenant: &Tenant, held: &mut Vec<Held>) -> Option<Row> {
    match step {
        Step::Rotate => return Some(keyring.add_kek(tenant, true, LATER).unwrap().0),
        Step::Suspend => {
            return Some(keyring.change_tenant(tenant, TenantChange::Suspend, LATER).unwrap());
        }
        Step::Resume => return Some(keyring.change_tenant(tenant, TenantChange::Resume, LATER).unwrap()),
        Step::Create => {
            let row = session_row(tenant, u8::try_from(held.len()).unwrap());
            let WrappedSession { keys, body, sensitive } = keyring.create_session_keys(tenant, &row).unwrap();
            let version = tenant.primary().unwrap();
            held.push(Held { row, body, sensitive: Some(sensitive), keys, version });
        }
        Step::Rewrap(at) if !held.is_empty() => {
            let at = at % held.len();
            let session = &mut held[at];
            let keys = session.open(keyring, tenant).unwrap();
            (session.body, session.sensitive) =
                keyring.rewrap_session_keys(tenant, &session.row, &keys).unwrap();
            session.version = tenant.primary().unwrap();
        }
        Step::Purge(at) if !held.is_empty() => {
            let at = at % held.len();
            held[at].sensitive = None;
        }
        Step::Rewrap(_) | Step::Purge(_) => {}
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_there_is_one_primary_and_every_session_opens(steps in steps()) {
        let keyring = keyring();
        let (key, mut row, mut tenant) = keyring.create_tenant(&name(), NOW).unwrap();
        let mut held = Vec::new();
        for step in &steps {
            let before = (tenant.primary().unwrap(), row.revision().unwrap());
            if let Some(changed) = take(step, &keyring, &tenant, &mut held) {
                row = changed;
                tenant = keyring.open_tenant(&key, &row).unwrap();
                prop_assert_eq!(tenant.revision(), before.1.next());
            }
            let rotated = matches!(step, Step::Rotate);
            prop_assert_eq!(tenant.primary().unwrap().0, before.0.0 + u32::from(rotated));
            let primaries = tenant.keks().iter().filter(|of| of.state == KekState::Primary);
            prop_assert_eq!(primaries.map(|of| of.version).collect::<Vec<_>>(), vec![tenant.primary().unwrap()]);
            prop_assert!(tenant.keks().iter().all(|of| of.state.unwraps()));
            for session in &held {
                let keys = session.open(&keyring, &tenant).unwrap();
                prop_assert_eq!(keys.body_id(), session.keys.body_id());
                prop_assert!(keys.body().secret().expose() == session.keys.body().secret().expose());
                prop_assert_eq!(sensitive_of(&keyring, &tenant, &session.row, &keys).is_some(), session.sensitive.is_some());
                prop_assert_eq!(Keyring::wrapping_version(session.body.as_bytes()), Some(session.version));
            }
        }
    }
}

mod rolling {
    use super::*;

    struct Site {
        rows: Rows,
        file: KeyFile,
        keyring: Keyring,
        tenant: Key,
    }

    impl Site {
        async fn new() -> Self {
            let (rows, file) = (Rows::default(), key_file());
            let keyring = open(&rows, &file).await.unwrap();
            let (tenant, row, _) = keyring.create_tenant(&name(), NOW).unwrap();
            rows.put(tenant.clone(), row);
            Self { rows, file, keyring, tenant }
        }

        fn row(&self, key: &Key) -> Row {
            self.rows.all().remove(key).unwrap()
        }

        async fn stored(&self) -> StoredEpochs {
            self.keyring.read_epochs(&self.rows).await.unwrap()
        }

        async fn commit(&self, change: RootChange) {
            let (batch, adopted) = change.split();
            assert_eq!(self.rows.commit(batch).await.unwrap(), CommitOutcome::Committed);
            self.keyring.adopt(adopted);
        }

        async fn begin(&self) {
            let change = self.keyring.begin_epoch(&self.stored().await, &[&self.file], NOW).await;
            self.commit(change.unwrap()).await;
        }

        async fn end(&self) {
            for key in [self.tenant.clone(), self.keyring.system_row()] {
                let resealed = self.keyring.reseal(&key, &self.row(&key)).unwrap();
                self.rows.put(key, resealed);
            }
            let change = self.keyring.end_epochs(&self.stored().await, NOW).await.unwrap();
            self.commit(change).await;
        }
    }

    #[tokio::test]
    async fn after_a_roll_only_the_new_epoch_opens_the_store_and_old_rows_open_nowhere() {
        let site = Site::new().await;
        let (old, before) = (site.row(&site.tenant), site.rows.all());
        site.begin().await;
        assert!(site.keyring.verify_row(&site.tenant, &old).is_ok(), "until it ends, the old epoch opens");
        site.end().await;

        assert!(matches!(site.keyring.verify_row(&site.tenant, &old), Err(KeyringError::Integrity)));
        let again = open(&site.rows, &site.file).await.unwrap();
        assert!(same_system(&site.keyring, &again));
        assert_eq!(again.epochs(), (2, 0));
        let row = site.row(&site.tenant);
        assert_eq!(again.open_tenant(&site.tenant, &row).unwrap().name(), &name());
        assert!(matches!(again.open_tenant(&site.tenant, &old), Err(KeyringError::Integrity)));
        // A copy from before goes on opening with the same keyring file: that is what the history tells.
        let copy = Rows::default();
        before.into_iter().for_each(|(key, row)| copy.put(key, row));
        assert!(open(&copy, &site.file).await.is_ok());
        let stored = again.read_epochs(&site.rows).await.unwrap();
        let [first, second] = stored.epochs() else { panic!("two epochs") };
        assert!(first.ended.is_some() && second.ended.is_none());
        assert_eq!(first.recipients[0].key_id, site.file.key_id());
    }

    #[tokio::test]
    async fn a_row_that_was_wrapped_before_the_new_epoch_loses_against_its_mark() {
        let site = Site::new().await;
        let late = site.keyring.reseal(&site.tenant, &site.row(&site.tenant)).unwrap();
        let expect = site.keyring.expected_epoch(&late).unwrap();
        site.begin().await;
        let batch =
            Batch { expect: vec![expect], put: vec![(site.tenant.clone(), late)], ..Batch::default() };
        assert!(matches!(site.rows.commit(batch).await.unwrap(), CommitOutcome::Conflict(_)));
        let now = site.keyring.reseal(&site.tenant, &site.row(&site.tenant)).unwrap();
        let expect = site.keyring.expected_epoch(&now).unwrap();
        let batch = Batch { expect: vec![expect], put: vec![(site.tenant.clone(), now)], ..Batch::default() };
        assert_eq!(site.rows.commit(batch).await.unwrap(), CommitOutcome::Committed);
    }

    #[tokio::test]
    async fn a_restart_in_the_middle_of_a_roll_opens_both_epochs() {
        let site = Site::new().await;
        site.begin().await;
        let again = open(&site.rows, &site.file).await.unwrap();
        assert_eq!(again.epochs(), (2, 1));
        assert!(again.open_tenant(&site.tenant, &site.row(&site.tenant)).is_ok());
        let refused =
            again.begin_epoch(&again.read_epochs(&site.rows).await.unwrap(), &[&site.file], NOW).await;
        assert!(matches!(refused.err(), Some(KeyringError::Rolling)));
    }

    #[tokio::test]
    async fn root_rows_of_another_time_are_refused() {
        let site = Site::new().await;
        let before = site.rows.all();
        site.begin().await;
        site.end().await;
        // Somebody puts the old epoch's rows back and takes the new one's away.
        for key in site.rows.all().into_keys().filter(|key| keys::root_parts(key).is_some()) {
            site.rows.remove(&key);
        }
        for (key, row) in before.into_iter().filter(|(key, _)| keys::root_parts(key).is_some()) {
            site.rows.put(key, row);
        }
        assert!(matches!(open(&site.rows, &site.file).await, Err(KeyringError::Integrity)));
    }

    #[tokio::test]
    async fn the_recipient_that_is_needed_stays_and_another_goes() {
        let site = Site::new().await;
        let next = key_file();
        let needed = site
            .keyring
            .remove_recipient(&site.stored().await, &site.file.key_id(), &[&site.file], NOW)
            .await;
        assert!(matches!(needed.err(), Some(KeyringError::NeededRecipient)));
        let unknown = site.keyring.remove_recipient(&site.stored().await, "x", &[&site.file], NOW).await;
        assert!(matches!(unknown.err(), Some(KeyringError::UnknownRecipient)));

        let add = NewRecipient::Provider(&next);
        let change = site.keyring.add_recipient(&site.stored().await, &add, NOW).await.unwrap();
        site.commit(change.unwrap()).await;
        let again = site.keyring.add_recipient(&site.stored().await, &add, NOW).await.unwrap();
        assert!(again.is_none(), "it is one already");
        let gone = site
            .keyring
            .remove_recipient(&site.stored().await, &site.file.key_id(), &[&site.file, &next], NOW)
            .await;
        site.commit(gone.unwrap()).await;
        assert!(open(&site.rows, &next).await.is_ok());
        assert!(matches!(open(&site.rows, &site.file).await, Err(KeyringError::WrongRoot { .. })));
    }

    #[tokio::test]
    async fn of_two_changes_at_a_time_one_loses() {
        let site = Site::new().await;
        let (one, two) = (key_file(), key_file());
        let stored = site.stored().await;
        let first = site.keyring.add_recipient(&stored, &NewRecipient::Provider(&one), NOW).await.unwrap();
        let second = site.keyring.add_recipient(&stored, &NewRecipient::Provider(&two), NOW).await.unwrap();
        site.commit(first.unwrap()).await;
        let lost = site.rows.commit(second.unwrap().batch).await.unwrap();
        assert!(matches!(lost, CommitOutcome::Conflict(_)));
    }
}
