//! Dev mode: everything that a first look needs, made on the first start. Never a default.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Addresses, Server, ServerError};
use crate::config::Config;
use crate::crypto::recovery;
use crate::dev::{DevMaterial, DevPaths, DevToken, TENANT, prepare, write_private};
use crate::env::{Entropy, SystemClock, SystemEntropy};
use crate::keyring::{KeyFile, KeyringError};
use crate::model::limits::TTL_MAX;
use crate::model::{TenantName, TokenName};
use crate::service::{CreateToken, Error};

/// A server in dev mode, ready to serve.
pub struct DevServer {
    server: Server,
    material: DevMaterial,
}

impl DevServer {
    /// Makes what is missing below `dir`, and opens a server on it.
    ///
    /// # Errors
    /// [`ServerError`] says what is wrong.
    pub async fn open(dir: &Path, listen: Option<[u16; 3]>) -> Result<Self, ServerError> {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let material = prepare(dir, &*entropy, &SystemClock::new(), |paths| make_root_keys(paths, &entropy))?;
        let mut config = Config::dev(dir);
        if let Some([data, admin, health]) = listen {
            config.listen.data.set_port(data);
            config.listen.admin.set_port(admin);
            config.listen.health.set_port(health);
        }
        let server = Server::open(config).await?;
        server.core.service.ensure_tenant(&name()?).await?;
        for token in &material.tokens {
            server.core.service.ensure_token(&grant(token)?, token.secret()).await?;
        }
        let Addresses { data, admin, .. } = server.addresses();
        material.write_profile(data, admin)?;
        Ok(Self { server, material })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.server.addresses()
    }

    /// What was made for it.
    #[must_use]
    pub const fn material(&self) -> &DevMaterial {
        &self.material
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// As for [`Server::run`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServerError> {
        let Self { server, material } = self;
        // It holds the tokens, which a server that runs has no use for.
        drop(material);
        server.run(stop).await
    }
}

fn make_root_keys(paths: &DevPaths, entropy: &Arc<dyn Entropy>) -> Result<(), ServerError> {
    if !paths.root_key.exists() {
        KeyFile::create(&paths.root_key, Arc::clone(entropy))?;
    }
    if !paths.recovery_key.exists() || !paths.recovery_pub.exists() {
        let key = recovery::generate(&**entropy).map_err(KeyringError::from)?;
        write_private(&paths.recovery_key, recovery::write_private(&key).as_bytes())?;
        write_private(&paths.recovery_pub, recovery::write_public(&key.public()).as_bytes())?;
    }
    Ok(())
}

fn name() -> Result<TenantName, Error> {
    TenantName::new(TENANT).map_err(|_| Error::Internal)
}

fn grant(token: &DevToken) -> Result<CreateToken, Error> {
    Ok(CreateToken {
        name: TokenName::new(token.name).map_err(|_| Error::Internal)?,
        scopes: token.scopes,
        tenants: token.tenants.clone(),
        ttl: Some(TTL_MAX),
    })
}
