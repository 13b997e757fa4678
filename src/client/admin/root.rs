//! The root epoch keys, under which the keys of all tenants are wrapped.

use uuid::Uuid;

use super::Admin;
use crate::client::answer::Answer;
use crate::client::convert::{required_time, time_from};
use crate::client::error::ClientError;
use crate::client::link::{admin, call};
use crate::model::Timestamp;
use crate::proto::v1;

/// What a root epoch key is wrapped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootProvider {
    /// A keyring file.
    File,
    /// An offline recovery key.
    Recovery,
    /// A Kubernetes KMS v2 plugin.
    Kms,
    /// A transit engine of Vault or OpenBao.
    Transit,
    /// Something that this client does not know.
    Other,
}

impl RootProvider {
    /// The name as the CLI shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "keyring file",
            Self::Recovery => "recovery key",
            Self::Kms => "KMS plugin",
            Self::Transit => "transit engine",
            Self::Other => "other",
        }
    }

    fn from_wire(kind: i32) -> Self {
        match v1::RootProviderKind::try_from(kind) {
            Ok(v1::RootProviderKind::File) => Self::File,
            Ok(v1::RootProviderKind::Recovery) => Self::Recovery,
            Ok(v1::RootProviderKind::Kms) => Self::Kms,
            Ok(v1::RootProviderKind::Transit) => Self::Transit,
            Ok(v1::RootProviderKind::Unspecified) | Err(_) => Self::Other,
        }
    }
}

/// How the root provider in use is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootHealth {
    /// It answers, or need not be asked.
    Healthy,
    /// It wraps with another key than the root key is wrapped with: [`Admin::migrate_root`] wraps for that one, too.
    KeyChanged {
        /// The key that it wraps with now.
        key_id: String,
        /// Since when.
        since: Timestamp,
    },
    /// It does not answer. After three minutes no new sessions, tenants and key versions are made.
    Unhealthy {
        /// Since when.
        since: Timestamp,
    },
}

/// The root epoch keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The epoch that wraps what is new.
    pub epoch: u32,
    /// Every epoch there was, oldest first. While more than one lives, rows are being rewrapped.
    pub epochs: Vec<RootEpoch>,
    /// How the provider in use is.
    pub health: RootHealth,
}

/// One epoch of the root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootEpoch {
    /// Counts from 1.
    pub number: u32,
    /// When it began.
    pub begin_time: Timestamp,
    /// When it ended; `None` while it lives.
    pub end_time: Option<Timestamp>,
    /// Everyone for whom it was wrapped, at any time.
    pub recipients: Vec<RootRecipient>,
    /// Rows, of tenants and of the server, whose keys are wrapped under it.
    pub rows: u64,
}

/// Someone for whom an epoch's key was wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecipient {
    /// What kind of provider it is.
    pub provider: RootProvider,
    /// The recipient's key.
    pub key_id: String,
    /// Since when.
    pub add_time: Timestamp,
    /// Until when; `None` while it is one.
    pub remove_time: Option<Timestamp>,
}

/// What [`Admin::verify_root`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootVerification {
    /// The configured providers: the one in use, and the next if there is one.
    pub providers: Vec<RootProviderCheck>,
    /// Rows, of tenants and of the server, whose keys open.
    pub rows_opened: u64,
    /// Rows whose keys do not: they were altered or damaged.
    pub rows_damaged: u64,
}

/// A provider that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootProviderCheck {
    /// What kind it is.
    pub provider: RootProvider,
    /// The key that it wraps with.
    pub key_id: String,
    /// Whether it unwraps every epoch that lives.
    pub opens: bool,
}

impl Admin {
    /// Reads the root epochs: who can unwrap them, and how the provider is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn root(&self) -> Result<Answer<Root>, ClientError> {
        let request = v1::GetRootRequest {};
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_root)).await?;
        answer.try_map(|response| Root::required(response.root))
    }

    /// Asks the configured providers to unwrap the root key, and opens the keys of every tenant and of the server.
    ///
    /// # Errors
    /// `ROOT_UNAVAILABLE` when a provider cannot be asked; see [`ClientError`] for the rest.
    pub async fn verify_root(&self) -> Result<Answer<RootVerification>, ClientError> {
        let request = v1::VerifyRootRequest {};
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.verify_root)).await?;
        Ok(answer.map(RootVerification::from_wire))
    }

    /// Begins a new epoch of the root key. What lives is wrapped anew by itself, then the old epoch ends.
    ///
    /// # Errors
    /// `ROOT_ROLLING` while an older epoch is still in use; `ROOT_UNAVAILABLE`; see [`ClientError`] for the rest.
    pub async fn rotate_root(&self, dry_run: bool) -> Result<Answer<Root>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::RotateRootRequest { dry_run, request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.rotate_root)).await?;
        answer.try_map(|response| Root::required(response.root))
    }

    /// Wraps the root key for one more recovery key, of which `public_key` is the public half: `srp_…`.
    ///
    /// To add one that is a recipient already is no error and changes nothing.
    ///
    /// # Errors
    /// `INVALID_FIELD`; `QUOTA_EXCEEDED` beyond 16 recipients; see [`ClientError`] for the rest.
    pub async fn add_root_recipient(&self, public_key: &str) -> Result<Answer<Root>, ClientError> {
        let id = Uuid::new_v4();
        let public_key = public_key.to_owned();
        let request = v1::AddRootRecipientRequest { public_key, request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.add_root_recipient)).await?;
        answer.try_map(|response| Root::required(response.root))
    }

    /// Wraps the root key no longer for a recipient. Its key still opens old copies of the store.
    ///
    /// # Errors
    /// `RECIPIENT_NOT_FOUND`; `RECIPIENT_NEEDED` when no configured provider would open the store; see [`ClientError`] for
    /// the rest.
    pub async fn remove_root_recipient(
        &self,
        key_id: &str,
        dry_run: bool,
    ) -> Result<Answer<Root>, ClientError> {
        let id = Uuid::new_v4();
        let key_id = key_id.to_owned();
        let request = v1::RemoveRootRecipientRequest { key_id, dry_run, request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.remove_root_recipient)).await?;
        answer.try_map(|response| Root::required(response.root))
    }

    /// Wraps the root key for the next provider of the configuration too, or for the key that the provider has by now.
    ///
    /// # Errors
    /// `ROOT_UNAVAILABLE`; see [`ClientError`] for the rest.
    pub async fn migrate_root(&self, dry_run: bool) -> Result<Answer<Root>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::MigrateRootRequest { dry_run, request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.migrate_root)).await?;
        answer.try_map(|response| Root::required(response.root))
    }
}

impl Root {
    fn required(root: Option<v1::Root>) -> Result<Self, ClientError> {
        let root = root.ok_or(ClientError::Malformed { what: "root" })?;
        let since = root.health_time.map(time_from);
        let health = match (v1::RootHealth::try_from(root.health), since) {
            (Ok(v1::RootHealth::KeyChanged), Some(since)) => {
                RootHealth::KeyChanged { key_id: root.provider_key_id, since: since? }
            }
            (Ok(v1::RootHealth::Unhealthy), Some(since)) => RootHealth::Unhealthy { since: since? },
            _ => RootHealth::Healthy,
        };
        let epochs = root.epochs.into_iter().map(RootEpoch::from_wire).collect::<Result<_, _>>()?;
        Ok(Self { epoch: root.epoch, epochs, health })
    }
}

impl RootEpoch {
    fn from_wire(epoch: v1::RootEpoch) -> Result<Self, ClientError> {
        Ok(Self {
            number: epoch.number,
            begin_time: required_time(epoch.begin_time)?,
            end_time: epoch.end_time.map(time_from).transpose()?,
            recipients: epoch
                .recipients
                .into_iter()
                .map(RootRecipient::from_wire)
                .collect::<Result<_, _>>()?,
            rows: epoch.rows,
        })
    }
}

impl RootRecipient {
    fn from_wire(of: v1::RootRecipient) -> Result<Self, ClientError> {
        Ok(Self {
            provider: RootProvider::from_wire(of.provider),
            key_id: of.key_id,
            add_time: required_time(of.add_time)?,
            remove_time: of.remove_time.map(time_from).transpose()?,
        })
    }
}

impl RootVerification {
    fn from_wire(found: v1::VerifyRootResponse) -> Self {
        let check = |check: v1::RootProviderCheck| RootProviderCheck {
            provider: RootProvider::from_wire(check.provider),
            key_id: check.key_id,
            opens: check.opens,
        };
        Self {
            providers: found.providers.into_iter().map(check).collect(),
            rows_opened: found.rows_opened,
            rows_damaged: found.rows_damaged,
        }
    }
}
