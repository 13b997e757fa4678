//! What is inside the sealed records of the service's tables, and how it is encoded.
//!
//! A payload is one version byte and a [postcard](https://postcard.jamesmunns.com/wire-format) encoding of one of the
//! structs below, whose fields are only ever appended to under a new version. None of them has a `Debug`: they hold names.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Error;
use crate::model::{Labels, Owner, Timestamp};

const VERSION: u8 = 1;

/// Encodes a payload.
pub(super) fn encode<T: Serialize>(payload: &T) -> Result<Zeroizing<Vec<u8>>, Error> {
    encode_as(VERSION, payload)
}

/// Encodes a payload of another version than the first.
pub(super) fn encode_as<T: Serialize>(version: u8, payload: &T) -> Result<Zeroizing<Vec<u8>>, Error> {
    postcard::to_extend(payload, vec![version]).map(Zeroizing::new).map_err(|_| Error::Internal)
}

/// Decodes a payload that was opened, so that anything else than a payload means damage or another version.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    decode_as(VERSION, bytes)
}

/// Decodes a payload of another version than the first.
pub(super) fn decode_as<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((found, payload)) if *found == version => {
            postcard::from_bytes(payload).map_err(|_| Error::Integrity)
        }
        _ => Err(Error::Integrity),
    }
}

/// The version that a payload names.
pub(super) fn version(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

/// Decodes a payload at the beginning of `bytes`, and says what follows it.
pub(super) fn decode_start<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Error> {
    match bytes.split_first() {
        Some((&VERSION, payload)) => postcard::take_from_bytes(payload).map_err(|_| Error::Integrity),
        _ => Err(Error::Integrity),
    }
}

/// An owner as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOwner {
    issuer: String,
    client_id: String,
    subject: String,
}

impl From<&Owner> for StoredOwner {
    fn from(owner: &Owner) -> Self {
        Self {
            issuer: owner.issuer().to_owned(),
            client_id: owner.client_id().to_owned(),
            subject: owner.subject().to_owned(),
        }
    }
}

impl StoredOwner {
    /// The owner, as it was checked when it was stored.
    pub(super) fn owner(&self) -> Result<Owner, Error> {
        Owner::new(self.issuer.clone(), self.client_id.clone(), self.subject.clone())
            .map_err(|_| Error::Integrity)
    }

    /// Whether `presented` is this owner.
    pub(super) fn is(&self, presented: &Owner) -> bool {
        self.issuer == presented.issuer()
            && self.client_id == presented.client_id()
            && self.subject == presented.subject()
    }
}

/// Labels as they are stored.
pub(super) type StoredLabels = Vec<(String, String)>;

pub(super) fn stored_labels(labels: &Labels) -> StoredLabels {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A session's metadata. Times are milliseconds since 1970; zero stands for "none".
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SessionPayload {
    pub id: String,
    pub owner: Option<StoredOwner>,
    pub created: u64,
    pub absolute_end: u64,
    pub idle_ttl: u64,
    pub idle_end: u64,
    pub labels: StoredLabels,
    /// Counts changes that a caller asked for; the row's own revision counts renewals too.
    pub revision: u64,
    /// Whether the sensitive key was purged: otherwise who takes it away passes for who purged it.
    pub purged: bool,
    /// What is to be known of its keys, once it got new ones. In the second version of the payload alone.
    #[serde(skip)]
    pub rekeyed: Option<Rekeyed>,
}

/// The keys of a session that got new ones.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Rekeyed {
    /// The id of the body key that the session was made with: it names the session for ever.
    pub origin: [u8; 16],
    /// When the keys were made that it has now.
    pub at: u64,
    /// The keys that some of its rows may still be sealed under.
    pub former: Option<FormerKeys>,
}

/// Which keys a session had.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FormerKeys {
    pub body: [u8; 16],
    pub sensitive: Option<[u8; 16]>,
}

/// The version of a session's metadata that says what is to be known of its keys.
const REKEYED: u8 = 2;

impl SessionPayload {
    /// When the session ends if nothing else happens.
    pub(super) fn end(&self) -> Timestamp {
        let end = if self.idle_ttl == 0 { self.absolute_end } else { self.absolute_end.min(self.idle_end) };
        Timestamp::from_millis(end)
    }

    /// The metadata as bytes: of the first version while the session has the keys that it was made with.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        match &self.rekeyed {
            None => encode(self),
            Some(rekeyed) => encode_as(REKEYED, &(self, rekeyed)),
        }
    }

    /// The metadata of either version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if version(bytes) != Some(REKEYED) {
            return decode(bytes);
        }
        let (session, rekeyed): (Self, Rekeyed) = decode_as(REKEYED, bytes)?;
        Ok(Self { rekeyed: Some(rekeyed), ..session })
    }

    /// The keys that some rows may still be sealed under.
    pub(super) fn former(&self) -> Option<FormerKeys> {
        self.rekeyed.and_then(|rekeyed| rekeyed.former)
    }

    /// Says that there is no sensitive key any more, neither now nor before.
    pub(super) fn purge(&mut self) {
        self.purged = true;
        if let Some(former) = self.rekeyed.as_mut().and_then(|rekeyed| rekeyed.former.as_mut()) {
            former.sensitive = None;
        }
    }
}

/// What is left of a session.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct TombstonePayload {
    pub owner: Option<StoredOwner>,
    pub ended: u64,
    /// Deleted by a caller, and so no longer told apart from a session that never was.
    pub deleted: bool,
}

/// An entry's metadata; the value follows it in the same record.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct EntryPayload {
    pub key: String,
    pub size: u64,
    pub content_type: String,
    pub created: u64,
    pub updated: u64,
    pub expires: u64,
    pub labels: StoredLabels,
    /// How it was taken apart, if it was. In the second version of the payload alone.
    #[serde(skip)]
    pub parting: Option<Parting>,
}

/// What is to be known of a value that something was cut out of.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Parting {
    /// Bytes of the body, which has placeholders.
    pub body: u64,
    /// Pieces that are kept under the sensitive key.
    pub kept: u32,
    /// The version of the policy.
    pub policy: u32,
}

/// The version of the metadata of a value that something was cut out of.
const PARTED: u8 = 2;

/// Encodes metadata that a body follows.
fn encode_parted<T: Serialize>(payload: &T, parting: Option<Parting>) -> Result<Zeroizing<Vec<u8>>, Error> {
    match parting {
        None => encode(payload),
        Some(parting) => encode_as(PARTED, &(payload, parting)),
    }
}

/// Decodes metadata at the beginning of `bytes`, and says what follows.
fn decode_parted<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Option<Parting>, &[u8]), Error> {
    if version(bytes) != Some(PARTED) {
        return decode_start(bytes).map(|(payload, rest)| (payload, None, rest));
    }
    let payload = bytes.get(1..).unwrap_or_default();
    let ((payload, parting), rest) = postcard::take_from_bytes(payload).map_err(|_| Error::Integrity)?;
    Ok((payload, Some(parting), rest))
}

impl EntryPayload {
    /// The metadata as bytes: of the first version while nothing was cut out.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        encode_parted(self, self.parting)
    }

    /// The metadata of either version, and the body behind them.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (entry, parting, body): (Self, _, _) = decode_parted(bytes)?;
        Ok((Self { parting, ..entry }, body))
    }

    /// Whether the entry has ended.
    pub(super) fn ended(&self, now: Timestamp) -> bool {
        self.expires != 0 && self.expires <= now.as_millis()
    }
}

/// The head of a stream.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StreamPayload {
    pub name: String,
    /// The number that the next event gets; the first event of a stream has number 1.
    pub next: u64,
}

/// An event's metadata; its bytes follow in the same record.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct EventPayload {
    pub content_type: String,
    pub appended: u64,
    /// How it was taken apart, if it was. In the second version of the payload alone.
    #[serde(skip)]
    pub parting: Option<Parting>,
}

impl EventPayload {
    /// The metadata as bytes: of the first version while nothing was cut out.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        encode_parted(self, self.parting)
    }

    /// The metadata of either version, and the body behind them.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (event, parting, body): (Self, _, _) = decode_parted(bytes)?;
        Ok((Self { parting, ..event }, body))
    }
}

/// The remembered answer to a mutation.
#[derive(Serialize, Deserialize)]
pub(super) struct AnswerPayload {
    pub fingerprint: [u8; 32],
    pub given: u64,
    pub answer: Vec<u8>,
}

/// A token's description.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct TokenPayload {
    pub name: String,
    pub scopes: Vec<String>,
    /// `None` stands for all tenants.
    pub tenants: Option<Vec<String>>,
    pub created: u64,
    pub expires: u64,
    pub revoked: bool,
}

/// Where a token's row is, by its name.
#[derive(Serialize, Deserialize)]
pub(super) struct TokenNamePayload {
    pub digest: [u8; 32],
}

/// Where a tenant's row is, by its name.
#[derive(Serialize, Deserialize)]
pub(super) struct TenantNamePayload {
    pub id: [u8; 16],
}
