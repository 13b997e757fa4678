//! The root provider that a configuration asks for, and the watch over its health.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::ServerError;
use crate::config::{self, Config, Provider, TransitAuth};
use crate::env::{Clock, Entropy};
use crate::keyring::{KeyFile, Keyring, ProviderKind, RootProvider};
use crate::provider::{Credential, KmsPlugin, Kubernetes, RootHealth, Transit, TransitOptions};

/// Makes what must be there before a store is made: the keyring file, when it is that and there is none.
pub(super) fn prepare(config: &Config, entropy: Arc<dyn Entropy>) -> Result<(), ServerError> {
    if let Provider::File { keyring } = &config.root.provider
        && !keyring.exists()
    {
        KeyFile::create(keyring, entropy)?;
    }
    Ok(())
}

/// The provider, ready to be asked.
pub(super) fn provider(
    config: &Config,
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> Result<Box<dyn RootProvider>, ServerError> {
    Ok(match &config.root.provider {
        Provider::File { keyring } => Box::new(key_file(keyring, entropy)?),
        Provider::Kms { socket, timeout } => Box::new(KmsPlugin::new(socket, *timeout, Arc::clone(entropy))),
        Provider::Transit(transit) => Box::new(Transit::new(options(transit), Arc::clone(clock))?),
    })
}

/// A provider that opened a store, while the server runs.
pub(super) struct Root {
    pub(super) health: Arc<RootHealth>,
    asked: Option<Box<dyn RootProvider>>,
}

impl Root {
    /// A keyring file was read and is done with: its key leaves memory here.
    pub(super) fn new(provider: Box<dyn RootProvider>, keyring: &Keyring, clock: &Arc<dyn Clock>) -> Self {
        let kind = provider.kind();
        if kind == ProviderKind::File {
            return Self { health: Arc::new(RootHealth::steady(Arc::clone(clock))), asked: None };
        }
        let newest = keyring.recipients().iter().map(|of| of.epoch).max();
        let current = keyring.recipients().iter().filter(|of| Some(of.epoch) == newest);
        let ours = current.filter(|of| of.provider == Some(kind)).map(|of| of.key_id.clone());
        let health = Arc::new(RootHealth::new(Arc::clone(clock), ours.collect()));
        Self { health, asked: Some(provider) }
    }

    /// Watches over the provider's health until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        match &self.asked {
            Some(provider) => self.health.poll(&**provider, stop).await,
            None => stop.cancelled().await,
        }
    }
}

fn key_file(path: &Path, entropy: &Arc<dyn Entropy>) -> Result<KeyFile, ServerError> {
    Ok(KeyFile::open(path, Arc::clone(entropy))?)
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
