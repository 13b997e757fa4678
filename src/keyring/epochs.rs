//! Changes of the root epoch keys: a new epoch, another recipient, one recipient less, the end of old epochs.
//!
//! Each change is one batch that expects the history of the epochs as it was read: of two changes at a time one loses. A new
//! epoch moves the *epoch mark* too, which every commit of a row with wrapped keys expects ([`Keyring::expected_epoch`]):
//! from then on nothing more is wrapped under an older epoch, and once all rows are wrapped anew the old epochs can end.
//! Before anything is stored, what a provider wrapped is unwrapped by it again: an answer that does not come back would lose
//! the store.

use std::collections::BTreeSet;

use super::history::{History, RootEpoch};
use super::provider::RootProvider;
use super::root::{self, Opener, Recipient, Roots, StoredRoots};
use super::wrap::RootKey;
use super::{Keyring, KeyringError, RootState, meta};
use crate::crypto::{RecoveryPublicKey, Rek, recovery};
use crate::model::{Revision, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, StorageEngine, keys};

/// The rows of the root epoch keys as they are stored.
pub struct StoredEpochs {
    rows: Vec<(Key, Row)>,
    roots: StoredRoots,
    history: History,
    history_row: Option<Row>,
}

/// A change of the root epoch keys: what is to be committed, and what the keyring works with from then on.
pub struct RootChange {
    /// The rows, and what must not have changed.
    pub batch: Batch,
    after: RootState,
    history: History,
}

/// What a root epoch key is to be wrapped for.
pub enum NewRecipient<'a> {
    /// A provider.
    Provider(&'a dyn RootProvider),
    /// An offline key.
    Recovery(&'a RecoveryPublicKey),
}

impl StoredEpochs {
    /// Every epoch there was, oldest first, with everyone who could unwrap it.
    #[must_use]
    pub fn epochs(&self) -> &[RootEpoch] {
        self.history.epochs()
    }

    fn after(&self, batch: &Batch) -> Result<StoredRoots, KeyringError> {
        let kept = self.rows.iter().filter(|(key, _)| !batch.delete.contains(key)).cloned();
        let added = batch.put.iter().filter(|(key, _)| keys::root_parts(key).is_some()).cloned();
        let mut rows: Vec<_> = kept.chain(added).collect();
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        StoredRoots::read(rows)
    }
}

/// Reading.
impl Keyring {
    /// Reads the rows of the root epoch keys.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when they or their history do not open; [`KeyringError::Engine`].
    pub async fn read_epochs(&self, engine: &dyn StorageEngine) -> Result<StoredEpochs, KeyringError> {
        let key = keys::meta(meta::HISTORY);
        let history_row = engine.multi_get(std::slice::from_ref(&key)).await?.pop().flatten();
        let rows = engine.scan(ScanRange::prefix(keys::roots()), meta::ROOT_ROWS).await?;
        let roots = StoredRoots::read(rows.clone())?;
        let system = self.system();
        let history = match &history_row {
            Some(row) => History::open(self.store, system.control(), &key, row)?,
            None => History::begin(&roots.recipients(), system.created()),
        };
        Ok(StoredEpochs { rows, roots, history, history_row })
    }

    /// The newest epoch, and how many older ones still unwrap.
    #[must_use]
    pub fn epochs(&self) -> (u32, usize) {
        let roots = &self.root().roots;
        (roots.current().epoch, roots.all().count() - 1)
    }

    /// Everyone who can unwrap the store's root epoch keys.
    #[must_use]
    pub fn recipients(&self) -> Vec<Recipient> {
        self.root().recipients.clone()
    }

    /// The epoch under which the keys of a tenant's row, or of the server's, are wrapped, by what the row says.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when it names no epoch that lives.
    pub fn epoch_of(&self, row: &Row) -> Result<u32, KeyringError> {
        let records = row.records()?;
        let control = records.get(1).ok_or(KeyringError::Integrity)?;
        let state = self.root();
        Ok(state.roots.naming(control).ok_or(KeyringError::Integrity)?.0.epoch)
    }

    /// Where the server's own keys stand.
    #[must_use]
    pub fn system_row(&self) -> Key {
        meta::system_key()
    }

    /// Opens the keys of a tenant's row, or of the server's own, and remembers nothing.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when they do not open.
    pub fn verify_row(&self, key: &Key, row: &Row) -> Result<(), KeyringError> {
        let root = self.root();
        if *key == meta::system_key() {
            return meta::open_system(self.store, &root.roots, key, row).map(|_| ());
        }
        self.preview_tenant(key, row).map(|_| ())
    }

    /// Asks a provider to unwrap every living epoch: who it is, and whether it can.
    ///
    /// # Errors
    /// [`KeyringError::Provider`] when it cannot be asked; [`KeyringError::Integrity`] when what it unwraps is not the key.
    pub async fn opened_by(
        &self,
        stored: &StoredEpochs,
        provider: &dyn RootProvider,
    ) -> Result<(Recipient, bool), KeyringError> {
        let key_id = NewRecipient::Provider(provider).key_id().await?;
        let recipient = Recipient { epoch: self.epochs().0, provider: Some(provider.kind()), key_id };
        match stored.roots.open(self.store, &Opener::Provider(provider)).await {
            Ok(_) => Ok((recipient, true)),
            Err(KeyringError::WrongRoot { .. }) => Ok((recipient, false)),
            Err(error) => Err(error),
        }
    }

    /// What a commit must expect that stores a row whose keys were wrapped just now: that no newer epoch has begun.
    ///
    /// # Errors
    /// As for [`epoch_of`](Self::epoch_of).
    pub fn expected_epoch(&self, row: &Row) -> Result<(Key, RowExpect), KeyringError> {
        Ok((keys::meta(meta::EPOCH), meta::epoch_mark(self.epoch_of(row)?)))
    }
}

/// Changing.
impl Keyring {
    /// Begins a new epoch, wrapped for the providers and for every recovery key of the epoch before.
    ///
    /// # Errors
    /// [`KeyringError::Rolling`] while an older epoch is still being rewrapped; [`KeyringError::Provider`] and others when it
    /// cannot be wrapped; [`KeyringError::TooManyEpochs`].
    pub async fn begin_epoch(
        &self,
        stored: &StoredEpochs,
        providers: &[&dyn RootProvider],
        now: Timestamp,
    ) -> Result<RootChange, KeyringError> {
        let state = self.root();
        let before = state.roots.current().epoch;
        if state.roots.all().count() > 1 || stored.roots.newest() != before {
            return Err(KeyringError::Rolling);
        }
        let number = before.checked_add(1).ok_or(KeyringError::TooManyEpochs)?;
        let newer = RootKey::new(number, Rek::generate(self.entropy.as_ref())?);
        let mut batch = Batch::default();
        batch.expect.push((keys::meta(meta::EPOCH), meta::epoch_mark(before)));
        batch.put.push((keys::meta(meta::EPOCH), meta::epoch_row(number)?));
        batch.put.push(root::commitment_row(&newer));
        let mut next = 0..;
        for provider in providers {
            let number = root::next_number(next.next().unwrap_or_default())?;
            batch.put.push(self.wrapped_for(&newer, number, &NewRecipient::Provider(*provider)).await?);
        }
        let recovery: BTreeSet<_> = state.recipients.iter().filter_map(Recipient::recovery_key).collect();
        for text in recovery {
            let recipient = recovery::read_public(&text).map_err(|_| KeyringError::Integrity)?;
            let number = root::next_number(next.next().unwrap_or_default())?;
            batch.put.push(self.wrapped_for(&newer, number, &NewRecipient::Recovery(&recipient)).await?);
        }
        let roots = Roots::clone(&state.roots).followed_by(newer);
        self.finish(stored, batch, roots, providers, now).await
    }

    /// Wraps every living epoch for one more recipient; none when it can unwrap all of them already.
    ///
    /// # Errors
    /// [`KeyringError::TooManyRecipients`]; [`KeyringError::Provider`] and others when it cannot be wrapped.
    pub async fn add_recipient(
        &self,
        stored: &StoredEpochs,
        recipient: &NewRecipient<'_>,
        now: Timestamp,
    ) -> Result<Option<RootChange>, KeyringError> {
        let state = self.root();
        let key_id = recipient.key_id().await?;
        let has = |epoch: u32| state.recipients.iter().any(|of| of.epoch == epoch && of.key_id == key_id);
        let mut batch = Batch::default();
        for root in state.roots.all().filter(|root| !has(root.epoch)) {
            let number = stored.roots.free_number(root.epoch)?;
            batch.put.push(self.wrapped_for(root, number, recipient).await?);
        }
        if batch.put.is_empty() {
            return Ok(None);
        }
        let providers: Vec<_> = recipient.provider().into_iter().collect();
        self.finish(stored, batch, Roots::clone(&state.roots), &providers, now).await.map(Some)
    }

    /// Removes a recipient from every epoch. One of `providers` must be able to open the store without it.
    ///
    /// # Errors
    /// [`KeyringError::UnknownRecipient`]; [`KeyringError::NeededRecipient`] when no configured provider opens what is left.
    pub async fn remove_recipient(
        &self,
        stored: &StoredEpochs,
        key_id: &str,
        providers: &[&dyn RootProvider],
        now: Timestamp,
    ) -> Result<RootChange, KeyringError> {
        let delete: Vec<Key> = stored.roots.rows_of(key_id).cloned().collect();
        if delete.is_empty() {
            return Err(KeyringError::UnknownRecipient);
        }
        let batch = Batch { delete, ..Batch::default() };
        let left = stored.after(&batch)?;
        let mut opens = false;
        for provider in providers {
            match left.open(self.store, &Opener::Provider(*provider)).await {
                Ok(_) => opens = true,
                Err(KeyringError::WrongRoot { .. } | KeyringError::Incomplete { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !opens {
            return Err(KeyringError::NeededRecipient);
        }
        let roots = Roots::clone(&self.root().roots);
        self.finish(stored, batch, roots, &[], now).await
    }

    /// Ends all epochs but the newest: their rows go. Only when nothing is wrapped under them any more; who begins an epoch
    /// sees to that.
    ///
    /// # Errors
    /// [`KeyringError::Engine`], [`Entropy`](KeyringError::Entropy).
    pub async fn end_epochs(
        &self,
        stored: &StoredEpochs,
        now: Timestamp,
    ) -> Result<RootChange, KeyringError> {
        let newest = stored.roots.newest();
        let old = stored.rows.iter().filter(|(key, _)| root::epoch_in(key).is_some_and(|of| of < newest));
        let delete = old.map(|(key, _)| key.clone()).collect();
        let batch = Batch { delete, ..Batch::default() };
        self.finish(stored, batch, self.root().roots.newest(), &[], now).await
    }

    /// Works with a change from now on, once it is committed: keys of epochs that ended leave the memory.
    pub fn adopt(&self, change: AdoptedRoot) {
        self.put_root(change.0);
    }

    /// A tenant's row, or the server's own, with the same keys wrapped under the newest epoch, one revision further.
    ///
    /// # Errors
    /// [`KeyringError::Integrity`] when it does not open; [`KeyringError::Entropy`].
    pub fn reseal(&self, key: &Key, row: &Row) -> Result<Row, KeyringError> {
        if *key != meta::system_key() {
            return self.seal_tenant(&self.preview_tenant(key, row)?.next());
        }
        let root = self.root();
        meta::open_system(self.store, &root.roots, key, row)?;
        self.system.seal(self.store, root.roots.current(), row.revision()?.next(), self.entropy.as_ref())
    }

    /// The server's own row as it is when its access log goes on in another epoch, one revision further. It counts when the
    /// store is opened again.
    ///
    /// # Errors
    /// As for [`reseal`](Self::reseal).
    pub fn change_server_audit_epoch(&self, row: &Row, epoch: u32) -> Result<Row, KeyringError> {
        let root = self.root();
        let mut system = meta::open_system(self.store, &root.roots, &meta::system_key(), row)?;
        system.description.audit_epoch = epoch;
        system.seal(self.store, root.roots.current(), row.revision()?.next(), self.entropy.as_ref())
    }

    async fn wrapped_for(
        &self,
        root: &RootKey,
        number: u8,
        recipient: &NewRecipient<'_>,
    ) -> Result<(Key, Row), KeyringError> {
        let entropy = self.entropy.as_ref();
        match recipient {
            NewRecipient::Provider(provider) => {
                root::wrap_for_provider(self.store, root, number, *provider, entropy).await
            }
            NewRecipient::Recovery(key) => root::wrap_for_recovery(self.store, root, number, key, entropy),
        }
    }

    /// Adds the history to a change, and makes sure that each of `providers` opens what will be stored.
    async fn finish(
        &self,
        stored: &StoredEpochs,
        mut batch: Batch,
        roots: Roots,
        providers: &[&dyn RootProvider],
        now: Timestamp,
    ) -> Result<RootChange, KeyringError> {
        let after = stored.after(&batch)?;
        for provider in providers {
            after.open(self.store, &Opener::Provider(*provider)).await?;
        }
        let recipients = after.recipients();
        let history = stored.history.followed_by(&recipients, now)?;
        let key = keys::meta(meta::HISTORY);
        let revision = match &stored.history_row {
            Some(row) => row.revision()?.next(),
            None => Revision::FIRST,
        };
        let row = history.seal(self.store, self.system.control(), &key, revision, self.entropy.as_ref())?;
        batch.expect.push((key.clone(), RowExpect::unchanged(stored.history_row.as_ref())));
        batch.put.push((key, row));
        Ok(RootChange { batch, after: RootState { roots, recipients }, history })
    }
}

/// What the keyring works with after a change was committed.
pub struct AdoptedRoot(RootState);

impl RootChange {
    /// The batch, and what to [`adopt`](Keyring::adopt) once it is committed.
    #[must_use]
    pub fn split(self) -> (Batch, AdoptedRoot) {
        (self.batch, AdoptedRoot(self.after))
    }

    /// Every epoch there was, after it.
    #[must_use]
    pub fn epochs(&self) -> &[RootEpoch] {
        self.history.epochs()
    }

    /// Everyone who can unwrap the root epoch keys after it.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.after.recipients
    }
}

impl NewRecipient<'_> {
    async fn key_id(&self) -> Result<String, KeyringError> {
        match self {
            Self::Provider(provider) => {
                let status = provider.status().await;
                status.map(|status| status.key_id).map_err(|error| root::failed(provider.kind(), error))
            }
            Self::Recovery(key) => Ok(recovery::write_public(key)),
        }
    }

    fn provider(&self) -> Option<&dyn RootProvider> {
        match self {
            Self::Provider(provider) => Some(*provider),
            Self::Recovery(_) => None,
        }
    }
}
