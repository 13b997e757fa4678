//! The root epoch keys: looked at, rolled, wrapped for others, verified.
//!
//! A new epoch is begun by one commit. From then on nothing is wrapped under an older one; the rows that are are wrapped
//! anew a step at a time ([`Service::roll_step`]), and when none is left the old epochs end. A restart goes on with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::hub::Announcement;
use super::view::{Answer, Repeat};
use super::{Error, Failure, Problem, Service};
use crate::audit::Operation;
use crate::auth::{ManageRoot, Permit};
use crate::commit::Receipt;
use crate::crypto::{RecoveryPublicKey, recovery};
use crate::keyring::{
    KeyringError, NewRecipient, Recipient, RootChange, RootEpoch, RootProvider, StoredEpochs,
};
use crate::model::Timestamp;
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, Table, keys};

/// Rows of tenants that are looked at in one step.
const STEP: usize = 32;

/// What the service may know and ask of the root providers: the assembly makes it from the configuration.
pub trait RootAccess: Send + Sync {
    /// Whether keys may be made now: not when the provider has been away for too long. Asked often, so it must not wait.
    fn may_make_keys(&self) -> bool;

    /// The providers of the configuration, ready to be asked: the one in use, and the next if one is named.
    ///
    /// # Errors
    /// [`KeyringError`] when one cannot be made ready.
    fn providers(&self) -> Result<Vec<Box<dyn RootProvider>>, KeyringError>;

    /// How the provider in use is.
    fn condition(&self) -> RootCondition;

    /// Takes notice of who can unwrap the root epoch keys by now.
    fn rewrapped(&self, recipients: &[Recipient]);
}

/// How the root provider in use is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCondition {
    /// It answers, or need not be asked.
    Healthy,
    /// It answers, but wraps with another key than the one that the root key is wrapped with.
    KeyChanged {
        /// The key that it wraps with now.
        key_id: String,
        /// When that was first seen.
        since: Timestamp,
    },
    /// It does not answer as it should.
    Unhealthy {
        /// When that was first seen.
        since: Timestamp,
    },
}

/// The root epochs as administrators see them.
#[derive(Debug, Clone)]
pub struct RootDescription {
    /// The epoch that wraps what is new.
    pub newest: u32,
    /// All epochs there were, oldest first.
    pub epochs: Vec<RootEpoch>,
    /// How many rows are wrapped under each epoch that lives.
    pub rows: BTreeMap<u32, u64>,
    /// How the provider is.
    pub condition: RootCondition,
}

impl RootDescription {
    fn followed_by(self, epochs: &[RootEpoch]) -> Self {
        let newest = epochs.last().map_or(self.newest, |epoch| epoch.number);
        Self { newest, epochs: epochs.to_vec(), ..self }
    }
}

/// What a verification of the root key found.
#[derive(Debug, Clone, Default)]
pub struct RootVerification {
    /// The configured providers, and whether each opens every living epoch.
    pub providers: Vec<(Recipient, bool)>,
    /// Rows of tenants and of the server whose keys open.
    pub opened: u64,
    /// Rows whose keys do not.
    pub damaged: u64,
}

/// A change of who can unwrap the root key.
#[derive(Debug, Clone)]
pub enum RootVerb {
    /// A new epoch.
    Rotate,
    /// One more offline key.
    Add(RecoveryPublicKey),
    /// One recipient less, by its key.
    Remove(String),
    /// Wrapped for the next provider, or for the key that the one in use has by now.
    Migrate,
}

impl RootVerb {
    /// Wraps for one more offline key, of which `text` is the public half.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another text.
    pub fn add(field: &'static str, text: &str) -> Result<Self, Error> {
        let form =
            Problem::Form { form: "the public half of a recovery key, srp_…, without a typing mistake" };
        recovery::read_public(text).map(Self::Add).map_err(|_| Error::invalid(field, form))
    }

    const fn operation(&self) -> Operation {
        match self {
            Self::Rotate => Operation::RootRotate,
            Self::Add(_) => Operation::RootAdd,
            Self::Remove(_) => Operation::RootRemove,
            Self::Migrate => Operation::RootMigrate,
        }
    }
}

/// Where the walk over the rows of older epochs is.
#[derive(Default)]
pub(super) struct Roll(Mutex<RollPlace>);

#[derive(Default)]
struct RollPlace {
    after: Option<Key>,
    /// Whether the walk passed a row that is still wrapped under an older epoch.
    left: bool,
}

impl Service {
    /// Returns the root epochs and how the provider is.
    ///
    /// # Errors
    /// [`Error::Integrity`] when they do not open.
    pub async fn root(&self, permit: &Permit<ManageRoot>) -> Result<Answer<RootDescription>, Failure> {
        let attempt = self.server_attempt(permit, Operation::RootRead);
        let outcome = async {
            let description = self.describe_root().await?;
            Ok((description, attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// Asks every configured provider to unwrap the root key, and opens the keys of every tenant and of the server.
    ///
    /// # Errors
    /// [`Error::RootUnavailable`] when a provider cannot be asked.
    pub async fn verify_root(
        &self,
        permit: &Permit<ManageRoot>,
    ) -> Result<Answer<RootVerification>, Failure> {
        let mut attempt = self.server_attempt(permit, Operation::RootVerify);
        let outcome = self.verify_root_once(&mut attempt).await;
        attempt.close(outcome).await
    }

    /// Changes who can unwrap the root key, or begins a new epoch of it.
    ///
    /// # Errors
    /// [`Error::RootUnavailable`] when a provider cannot be asked; [`Error::RootRolling`] while an older epoch is still in
    /// use; [`Error::RecipientNotFound`]; [`Error::RecipientNeeded`] when nobody configured could open the store.
    pub async fn change_root(
        &self,
        permit: &Permit<ManageRoot>,
        verb: &RootVerb,
        dry_run: bool,
        repeat: Option<Repeat>,
    ) -> Result<Answer<RootDescription>, Failure> {
        // What changes nothing is on record as a look.
        let operation = if dry_run { Operation::RootRead } else { verb.operation() };
        let attempt = self.server_attempt(permit, operation);
        let slot = self.system_slot(permit, repeat);
        let outcome = until_won!(self.change_root_once(&attempt, verb, dry_run, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn change_root_once(
        &self,
        attempt: &Attempt<'_>,
        verb: &RootVerb,
        dry_run: bool,
        slot: Option<&Slot>,
    ) -> Result<(RootDescription, Receipt), Error> {
        if self.system_answer::<()>(slot).await?.is_some() {
            return Ok((self.describe_root().await?, attempt.record().await?));
        }
        // All that is to be answered is read before anything is changed.
        let before = self.describe_root().await?;
        let stored = self.keyring.read_epochs(&*self.engine).await?;
        match self.root_change(&stored, verb).await? {
            Some(change) if !dry_run => {
                let after = before.followed_by(change.epochs());
                Ok((after, self.commit_root(attempt, change, slot).await?))
            }
            Some(_) | None => Ok((before, attempt.record().await?)),
        }
    }

    async fn root_change(&self, stored: &StoredEpochs, verb: &RootVerb) -> Result<Option<RootChange>, Error> {
        let now = self.clock.now();
        let owned = self.root.providers()?;
        let providers: Vec<&dyn RootProvider> = owned.iter().map(|provider| &**provider).collect();
        Ok(match verb {
            RootVerb::Rotate => {
                self.may_make_keys()?;
                Some(self.keyring.begin_epoch(stored, &providers, now).await?)
            }
            RootVerb::Add(key) => {
                self.keyring.add_recipient(stored, &NewRecipient::Recovery(key), now).await?
            }
            RootVerb::Remove(key_id) => {
                Some(self.keyring.remove_recipient(stored, key_id, &providers, now).await?)
            }
            RootVerb::Migrate => match providers.last() {
                Some(next) => self.keyring.add_recipient(stored, &NewRecipient::Provider(*next), now).await?,
                None => None,
            },
        })
    }

    async fn commit_root(
        &self,
        attempt: &Attempt<'_>,
        change: RootChange,
        slot: Option<&Slot>,
    ) -> Result<Receipt, Error> {
        let recipients = change.recipients().to_vec();
        let (mut batch, adopted) = change.split();
        if let Some(slot) = slot {
            slot.give(self, &self.system_answer_key(), &(), &mut batch)?;
        }
        let (keyring, root) = (Arc::clone(&self.keyring), Arc::clone(&self.root));
        let adopt: Announcement = Box::new(move || {
            keyring.adopt(adopted);
            root.rewrapped(&recipients);
        });
        attempt.commit(batch, Some(adopt)).await
    }

    /// Wraps the root key for the provider of the configuration, in a store that was opened with a recovery key. Says for
    /// which key; none when the provider could unwrap it all along.
    ///
    /// # Errors
    /// As for [`Service::change_root`].
    pub async fn recover_root(&self) -> Result<Option<Recipient>, Error> {
        let attempt = self.own_server_attempt(Operation::RootRecover);
        let stored = self.keyring.read_epochs(&*self.engine).await?;
        let Some(change) = self.root_change(&stored, &RootVerb::Migrate).await? else {
            return Ok(None);
        };
        let before = self.keyring.recipients();
        let added = change.recipients().iter().find(|of| !before.contains(of)).cloned();
        self.commit_root(&attempt, change, None).await?;
        Ok(added)
    }

    async fn describe_root(&self) -> Result<RootDescription, Error> {
        let stored = self.keyring.read_epochs(&*self.engine).await?;
        let mut rows = BTreeMap::new();
        let mut walk = RootRows::new(self);
        while let Some((_, row)) = walk.next().await? {
            // One that names no living epoch is damaged: `verify` counts those.
            if let Ok(epoch) = self.keyring.epoch_of(&row) {
                *rows.entry(epoch).or_default() += 1;
            }
        }
        Ok(RootDescription {
            newest: self.keyring.epochs().0,
            epochs: stored.epochs().to_vec(),
            rows,
            condition: self.root.condition(),
        })
    }

    async fn verify_root_once(
        &self,
        attempt: &mut Attempt<'_>,
    ) -> Result<(RootVerification, Receipt), Error> {
        let stored = self.keyring.read_epochs(&*self.engine).await?;
        let mut found = RootVerification::default();
        for provider in self.root.providers()? {
            found.providers.push(self.keyring.opened_by(&stored, &*provider).await?);
        }
        let mut walk = RootRows::new(self);
        while let Some((key, row)) = walk.next().await? {
            match self.keyring.verify_row(&key, &row) {
                Ok(()) => found.opened += 1,
                Err(_) => found.damaged += 1,
            }
        }
        attempt.touched(usize::try_from(found.opened).unwrap_or(usize::MAX));
        Ok((found, attempt.record().await?))
    }
}

/// Rolling an epoch.
impl Service {
    /// Wraps some rows anew that are wrapped under an older epoch, or ends the older epochs when no such row is left. Says
    /// whether there is more to do.
    ///
    /// # Errors
    /// [`Error`] when the store cannot be read or written; the next step tries again.
    pub async fn roll_step(&self) -> Result<bool, Error> {
        let (newest, older) = self.keyring.epochs();
        if older == 0 {
            return Ok(false);
        }
        let range = ScanRange { after: self.roll_place().after.take(), ..tenant_rows() };
        let rows = self.engine.scan(range, STEP).await?;
        for (key, row) in &rows {
            if !self.rolled(key, row, newest).await? {
                self.roll_place().left = true;
            }
        }
        if let Some((last, _)) = rows.last().filter(|_| rows.len() == STEP) {
            self.roll_place().after = Some(last.clone());
            return Ok(true);
        }
        // The walk came to the end. What was written meanwhile is wrapped under the newest epoch.
        let key = self.keyring.system_row();
        let [row] = self.read([key.clone()]).await?;
        let row = row.ok_or(Error::Integrity)?;
        let left = std::mem::take(&mut self.roll_place().left);
        if left | !self.rolled(&key, &row, newest).await? {
            // Somebody was faster, or a row is damaged: that holds the old epoch until it is looked after.
            return Ok(false);
        }
        self.end_epochs().await?;
        Ok(false)
    }

    /// Whether a row is wrapped under the newest epoch by now.
    async fn rolled(&self, key: &Key, row: &Row, newest: u32) -> Result<bool, Error> {
        match self.keyring.epoch_of(row) {
            Ok(epoch) if epoch == newest => return Ok(true),
            Ok(_) => {}
            Err(_) => return Ok(false),
        }
        let Ok(resealed) = self.keyring.reseal(key, row) else {
            return Ok(false);
        };
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        batch.expect.push(self.keyring.expected_epoch(&resealed)?);
        batch.put.push((key.clone(), resealed));
        let mut attempt = self.own_server_attempt(Operation::RootRewrap);
        attempt.event.tenant = key.tenant();
        attempt.touched(1);
        match attempt.commit(batch, None).await {
            Ok(_) => Ok(true),
            Err(Error::Contended) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn end_epochs(&self) -> Result<(), Error> {
        let stored = self.keyring.read_epochs(&*self.engine).await?;
        let change = self.keyring.end_epochs(&stored, self.clock.now()).await?;
        let attempt = self.own_server_attempt(Operation::RootEnd);
        self.commit_root(&attempt, change, None).await.map(|_| ())
    }

    fn roll_place(&self) -> std::sync::MutexGuard<'_, RollPlace> {
        self.roll.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tenant_rows() -> ScanRange {
    ScanRange::prefix(keys::table(Table::Tenant))
}

/// A walk over all rows whose keys are wrapped under a root epoch: the server's own, and each tenant's.
struct RootRows<'a> {
    service: &'a Service,
    waiting: std::vec::IntoIter<(Key, Row)>,
    after: Option<Key>,
    state: WalkState,
}

#[derive(PartialEq, Eq)]
enum WalkState {
    System,
    Tenants,
    Ended,
}

impl<'a> RootRows<'a> {
    fn new(service: &'a Service) -> Self {
        Self { service, waiting: Vec::new().into_iter(), after: None, state: WalkState::System }
    }

    async fn next(&mut self) -> Result<Option<(Key, Row)>, Error> {
        if self.state == WalkState::System {
            self.state = WalkState::Tenants;
            let key = self.service.keyring.system_row();
            let [row] = self.service.read([key.clone()]).await?;
            return Ok(Some((key, row.ok_or(Error::Integrity)?)));
        }
        if self.waiting.len() == 0 && self.state == WalkState::Tenants {
            let range = ScanRange { after: self.after.take(), ..tenant_rows() };
            let rows = self.service.engine.scan(range, STEP).await?;
            match rows.last() {
                Some((last, _)) if rows.len() == STEP => self.after = Some(last.clone()),
                Some(_) | None => self.state = WalkState::Ended,
            }
            self.waiting = rows.into_iter();
            tokio::task::yield_now().await;
        }
        Ok(self.waiting.next())
    }
}
