//! The root provider that a configuration asks for, and the watch over its health.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::ServerError;
use crate::config::{self, Config, Provider, TransitAuth};
use crate::crypto::{RecoveryPrivateKey, RecoveryPublicKey, recovery};
use crate::env::{Clock, Entropy};
use crate::keyring::{
    KeyFile, Keyring, KeyringError, ProviderError, ProviderKind, Recipient, RootProvider, read_own,
};
use crate::provider::{
    Condition, Credential, KmsPlugin, Kubernetes, RootHealth, Transit, TransitError, TransitOptions,
};
use crate::service::{RootAccess, RootCondition};
use crate::store::StorageEngine;

/// Makes what must be there before a store is made: the keyring file, when it is that and there is none.
pub(super) fn prepare(config: &Config, entropy: Arc<dyn Entropy>) -> Result<(), ServerError> {
    if let Provider::File { keyring } = &config.root.provider
        && !keyring.exists()
    {
        KeyFile::create(keyring, entropy)?;
    }
    Ok(())
}

/// A provider of the configuration, ready to be asked.
pub(super) fn provider(
    wanted: &Provider,
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> Result<Box<dyn RootProvider>, ProviderUnready> {
    Ok(match wanted {
        Provider::File { keyring } => Box::new(KeyFile::open(keyring, Arc::clone(entropy))?),
        Provider::Kms { socket, timeout } => Box::new(KmsPlugin::new(socket, *timeout, Arc::clone(entropy))),
        Provider::Transit(transit) => Box::new(Transit::new(options(transit), Arc::clone(clock))?),
    })
}

/// Opens the keys of the store with the provider in use, or with the next one when that cannot: the root key may have moved
/// already. Gives the provider that did, too.
pub(super) async fn open_keyring(
    config: &Config,
    engine: &dyn StorageEngine,
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<Keyring>, Box<dyn RootProvider>), ServerError> {
    let recovery = recovery_keys(config)?;
    let open = async |wanted: &Provider| {
        let provider = provider(wanted, entropy, clock)?;
        let now = clock.now();
        let keyring = Keyring::open(engine, &*provider, &recovery, Arc::clone(entropy), now).await?;
        Ok::<_, ServerError>((Arc::new(keyring.keeping(config.limits.max_opened_sessions)), provider))
    };
    match (open(&config.root.provider).await, &config.root.next) {
        (Err(error), Some(next)) => {
            tracing::warn!(%error, "the root provider does not open the store; trying the next one");
            open(next).await
        }
        (opened, _) => opened,
    }
}

/// Reads the private half of a recovery key from a file that is its owner's alone.
pub(super) fn recovery_key(path: &Path) -> Result<RecoveryPrivateKey, ServerError> {
    let problem = |problem: String| ServerError::Recovery { path: path.to_owned(), problem };
    let text = read_own(path).map_err(|error| problem(error.to_string()))?;
    let text = std::str::from_utf8(&text).map_err(|_| problem("is no text".to_owned()))?;
    recovery::read_private(text).map_err(|error| problem(error.to_string()))
}

/// The recovery keys for which a new store is made.
fn recovery_keys(config: &Config) -> Result<Vec<RecoveryPublicKey>, ServerError> {
    let read = |path: &PathBuf| {
        let problem = |problem: String| ServerError::Recovery { path: path.clone(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        recovery::read_public(&text).map_err(|error| problem(error.to_string()))
    };
    config.root.recovery.iter().map(read).collect()
}

/// The providers of the configuration, and the health of the one in use.
pub(super) struct Root {
    pub(super) health: Arc<RootHealth>,
    in_use: ProviderKind,
    wanted: config::Root,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    asked: Option<Box<dyn RootProvider>>,
}

impl Root {
    /// A keyring file was read and is done with: its key leaves memory here.
    pub(super) fn new(
        provider: Option<Box<dyn RootProvider>>,
        keyring: &Keyring,
        wanted: &config::Root,
        (entropy, clock): (&Arc<dyn Entropy>, &Arc<dyn Clock>),
    ) -> Arc<Self> {
        let in_use = provider.as_ref().map_or(ProviderKind::Recovery, |provider| provider.kind());
        let asked = provider.filter(|provider| provider.kind() != ProviderKind::File);
        let health = match asked {
            None => RootHealth::steady(Arc::clone(clock)),
            Some(_) => RootHealth::new(Arc::clone(clock), wrapped_for(&keyring.recipients(), in_use)),
        };
        Arc::new(Self {
            health: Arc::new(health),
            in_use,
            wanted: wanted.clone(),
            entropy: Arc::clone(entropy),
            clock: Arc::clone(clock),
            asked,
        })
    }

    /// Watches over the provider's health until `stop`.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        match &self.asked {
            Some(provider) => self.health.poll(&**provider, stop).await,
            None => stop.cancelled().await,
        }
    }
}

impl RootAccess for Root {
    fn may_make_keys(&self) -> bool {
        self.health.accepts_new_keys()
    }

    fn providers(&self) -> Result<Vec<Box<dyn RootProvider>>, KeyringError> {
        let wanted = std::iter::once(&self.wanted.provider).chain(&self.wanted.next);
        let ready = |wanted| match provider(wanted, &self.entropy, &self.clock) {
            Ok(provider) => Ok(provider),
            Err(ProviderUnready::Keyring(error)) => Err(error),
            Err(ProviderUnready::Transit(error)) => Err(KeyringError::Provider {
                provider: ProviderKind::Transit,
                source: ProviderError::Unavailable(error.to_string()),
            }),
        };
        wanted.map(ready).collect()
    }

    fn condition(&self) -> RootCondition {
        match self.health.condition() {
            Condition::Healthy => RootCondition::Healthy,
            Condition::KeyChanged { key_id, since } => RootCondition::KeyChanged { key_id, since },
            Condition::Unhealthy { since, .. } => RootCondition::Unhealthy { since },
        }
    }

    fn rewrapped(&self, recipients: &[Recipient]) {
        self.health.rewrapped(wrapped_for(recipients, self.in_use));
    }
}

/// Why a provider cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderUnready {
    /// Its keyring file cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// It cannot be set up.
    #[error(transparent)]
    Transit(#[from] TransitError),
}

impl From<ProviderUnready> for ServerError {
    fn from(unready: ProviderUnready) -> Self {
        match unready {
            ProviderUnready::Keyring(error) => error.into(),
            ProviderUnready::Transit(error) => error.into(),
        }
    }
}

/// The keys of a kind of provider for which the newest epoch is wrapped.
fn wrapped_for(recipients: &[Recipient], kind: ProviderKind) -> Vec<String> {
    let newest = recipients.iter().map(|of| of.epoch).max();
    let current = recipients.iter().filter(|of| Some(of.epoch) == newest);
    current.filter(|of| of.provider == Some(kind)).map(|of| of.key_id.clone()).collect()
}

fn options(transit: &config::Transit) -> TransitOptions {
    let credential = match transit.auth.clone() {
        TransitAuth::Token(path) => Credential::TokenFile(path),
        TransitAuth::Kubernetes { mount, role, jwt } => {
            Credential::Kubernetes(Kubernetes { mount, role, jwt })
        }
    };
    TransitOptions {
        address: transit.address.clone(),
        ca: transit.ca.clone(),
        mount: transit.mount.clone(),
        key: transit.key.clone(),
        namespace: transit.namespace.clone(),
        associated_data: transit.associated_data,
        credential,
        deadline: transit.timeout,
    }
}
