//! The history of the root epochs: when each began and ended, and for whom it was wrapped.
//!
//! Who destroys a key wants to know when the last copy of it becomes useless. An old copy of the store opens with the root
//! epoch keys of its time, and those with their recipients' keys: so the history names them for as long as the store lives.

use serde::{Deserialize, Serialize};

use super::provider::ProviderKind;
use super::root::Recipient;
use super::{KeyringError, payload};
use crate::crypto::{ControlKey, Header, KeyId, Kind, Place, open, seal};
use crate::env::Entropy;
use crate::model::{Revision, StoreId, TenantId, TenantRef, Timestamp};
use crate::store::{Key, Row};

/// The version of the history's payload.
const VERSION: u8 = 1;
/// Most epochs of a store, and most recipients of one: nineteen years of weekly rolls.
const MAX_EPOCHS: usize = 1000;
const MAX_NAMED: usize = 64;

/// One epoch of the root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootEpoch {
    /// Its number; counts from 1.
    pub number: u32,
    /// When it began.
    pub began: Timestamp,
    /// When its rows were removed, if they were.
    pub ended: Option<Timestamp>,
    /// Everyone for whom it was wrapped.
    pub recipients: Vec<RootRecipient>,
}

/// Someone for whom an epoch's key was wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecipient {
    /// What kind of provider it is; none when this program does not know the kind.
    pub provider: Option<ProviderKind>,
    /// The recipient's key.
    pub key_id: String,
    /// Since when.
    pub added: Timestamp,
    /// Until when, if it was removed.
    pub removed: Option<Timestamp>,
}

/// All epochs, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History(Vec<RootEpoch>);

#[derive(Serialize, Deserialize)]
struct StoredEpoch {
    number: u32,
    began_ms: u64,
    /// 0 while it lives.
    ended_ms: u64,
    recipients: Vec<StoredRecipient>,
}

#[derive(Serialize, Deserialize)]
struct StoredRecipient {
    /// 0 when it was not known.
    provider: u8,
    key_id: String,
    added_ms: u64,
    /// 0 while it is one.
    removed_ms: u64,
}

impl History {
    /// The history of a store that has none yet: its one epoch began with it.
    pub(super) fn begin(recipients: &[Recipient], created: Timestamp) -> Self {
        let mut history = Self(Vec::new());
        history.update(recipients, created);
        history
    }

    pub(super) fn epochs(&self) -> &[RootEpoch] {
        &self.0
    }

    /// The history once `recipients` are all who can unwrap.
    pub(super) fn followed_by(&self, recipients: &[Recipient], now: Timestamp) -> Result<Self, KeyringError> {
        let mut history = self.clone();
        history.update(recipients, now);
        if history.0.iter().any(|epoch| epoch.recipients.len() > MAX_NAMED) {
            return Err(KeyringError::TooManyRecipients { max: MAX_NAMED });
        }
        if history.0.len() > MAX_EPOCHS { Err(KeyringError::TooManyEpochs) } else { Ok(history) }
    }

    fn update(&mut self, recipients: &[Recipient], now: Timestamp) {
        for epoch in self.0.iter_mut().filter(|epoch| epoch.ended.is_none()) {
            let is_one = |of: &RootRecipient| {
                recipients.iter().any(|one| one.epoch == epoch.number && one.key_id == of.key_id)
            };
            for gone in epoch.recipients.iter_mut().filter(|of| of.removed.is_none() && !is_one(of)) {
                gone.removed = Some(now);
            }
            if !recipients.iter().any(|one| one.epoch == epoch.number) {
                epoch.ended = Some(now);
            }
        }
        for one in recipients {
            self.add(one, now);
        }
    }

    fn add(&mut self, one: &Recipient, now: Timestamp) {
        if self.0.last().is_none_or(|last| last.number < one.epoch) {
            self.0.push(RootEpoch { number: one.epoch, began: now, ended: None, recipients: Vec::new() });
        }
        let Some(epoch) = self.0.iter_mut().find(|epoch| epoch.number == one.epoch) else { return };
        if !epoch.recipients.iter().any(|of| of.removed.is_none() && of.key_id == one.key_id) {
            let (provider, key_id) = (one.provider, one.key_id.clone());
            epoch.recipients.push(RootRecipient { provider, key_id, added: now, removed: None });
        }
    }

    pub(super) fn open(
        store: StoreId,
        control: &ControlKey,
        key: &Key,
        row: &Row,
    ) -> Result<Self, KeyringError> {
        let [record] = row.exactly()?;
        let opened = open(control, header(row.revision()?), &place(store, key), record)?;
        let stored: Vec<StoredEpoch> = payload::decode(VERSION, opened.as_bytes())?;
        Ok(Self(stored.into_iter().map(RootEpoch::from).collect()))
    }

    pub(super) fn seal(
        &self,
        store: StoreId,
        control: &ControlKey,
        key: &Key,
        revision: Revision,
        entropy: &dyn Entropy,
    ) -> Result<Row, KeyringError> {
        let stored: Vec<StoredEpoch> = self.0.iter().map(StoredEpoch::from).collect();
        let plain = payload::encode(VERSION, &stored)?;
        let record = seal(control, header(revision), &place(store, key), &plain, entropy)?;
        Ok(Row::new(revision, &[&record]))
    }
}

fn header(revision: Revision) -> Header {
    Header { kind: Kind::RootHistory, key_id: KeyId(TenantId::SYSTEM.0), revision: revision.get() }
}

fn place(store: StoreId, key: &Key) -> Place<'_> {
    Place { store, tenant: TenantRef::SYSTEM, session: &[], key: key.within_table() }
}

const fn time(millis: u64) -> Option<Timestamp> {
    if millis == 0 { None } else { Some(Timestamp::from_millis(millis)) }
}

impl From<&RootEpoch> for StoredEpoch {
    fn from(epoch: &RootEpoch) -> Self {
        Self {
            number: epoch.number,
            began_ms: epoch.began.as_millis(),
            ended_ms: epoch.ended.map_or(0, Timestamp::as_millis),
            recipients: epoch.recipients.iter().map(StoredRecipient::from).collect(),
        }
    }
}

impl From<StoredEpoch> for RootEpoch {
    fn from(stored: StoredEpoch) -> Self {
        Self {
            number: stored.number,
            began: Timestamp::from_millis(stored.began_ms),
            ended: time(stored.ended_ms),
            recipients: stored.recipients.into_iter().map(RootRecipient::from).collect(),
        }
    }
}

impl From<&RootRecipient> for StoredRecipient {
    fn from(of: &RootRecipient) -> Self {
        Self {
            provider: of.provider.map_or(0, |provider| provider as u8),
            key_id: of.key_id.clone(),
            added_ms: of.added.as_millis(),
            removed_ms: of.removed.map_or(0, Timestamp::as_millis),
        }
    }
}

impl From<StoredRecipient> for RootRecipient {
    fn from(stored: StoredRecipient) -> Self {
        Self {
            provider: ProviderKind::from_stored(stored.provider),
            key_id: stored.key_id,
            added: Timestamp::from_millis(stored.added_ms),
            removed: time(stored.removed_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(epoch: u32, key_id: &str) -> Recipient {
        Recipient { epoch, provider: Some(ProviderKind::File), key_id: key_id.to_owned() }
    }

    const fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn an_epoch_ends_when_nobody_can_unwrap_it_and_keeps_the_names_of_all_who_could() {
        let begun = History::begin(&[recipient(1, "a")], at(1));
        let more = begun.followed_by(&[recipient(1, "a"), recipient(1, "b")], at(2)).unwrap();
        let less = more.followed_by(&[recipient(1, "b")], at(3)).unwrap();
        let both = less.followed_by(&[recipient(1, "b"), recipient(2, "b")], at(4)).unwrap();
        let rolled = both.followed_by(&[recipient(2, "b")], at(5)).unwrap();
        let [first, second] = rolled.epochs() else { panic!("two epochs") };
        assert_eq!((first.began, first.ended), (at(1), Some(at(5))));
        let named: Vec<_> =
            first.recipients.iter().map(|of| (of.key_id.as_str(), of.added, of.removed)).collect();
        assert_eq!(named, [("a", at(1), Some(at(3))), ("b", at(2), Some(at(5)))]);
        assert_eq!((second.number, second.began, second.ended), (2, at(4), None));
    }

    #[test]
    fn whoever_comes_back_is_named_again() {
        let begun = History::begin(&[recipient(1, "a"), recipient(1, "b")], at(1));
        let without = begun.followed_by(&[recipient(1, "b")], at(2)).unwrap();
        let with = without.followed_by(&[recipient(1, "a"), recipient(1, "b")], at(3)).unwrap();
        assert_eq!(with.epochs()[0].recipients.len(), 3);
    }
}
