//! Who is let in, made from the configuration, and kept up to date with its files.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Core, ServerError};
use crate::api::transport::{ClientAuth, RELOAD_EVERY, TlsFiles, TlsSource, TlsVersions};
use crate::auth::{
    Authenticator, CertificateAuthenticator, Gate, Issuer, JwtAuthenticator, KeySource, Subjects,
    TokenAuthenticator,
};
use crate::config::{ClientCertificates, Config};
use crate::model::Bindings;

/// What the files of the configuration say about who is let in.
#[derive(Clone)]
pub(super) struct Identities {
    /// Of the data, the admin and the health port.
    pub(super) tls: [Arc<TlsSource>; 3],
    keys: Vec<Arc<KeySource>>,
}

impl Identities {
    /// Loads all of them; a server does not start without one.
    pub(super) fn open(config: &Config) -> Result<Self, ServerError> {
        let clients = &config.clients;
        let tls = [clients.data, clients.admin, clients.health];
        let [data, admin, health] = tls.map(|asked| TlsSource::open(files(config, asked)));
        let keys = config.jwt.iter().map(|issuer| KeySource::open(issuer.jwks.clone()));
        Ok(Self { tls: [data?, admin?, health?], keys: keys.collect::<Result<_, _>>()? })
    }

    /// Who decides who is calling.
    pub(super) fn gate(&self, core: &Core, config: &Config) -> Arc<dyn Authenticator> {
        let clock = || Arc::clone(&core.clock);
        let bindings = Bindings::new(config.bindings.clone());
        let trust_domains = config.clients.trust_domains.clone();
        let subjects = Arc::new(Subjects { trust_domains, bindings: bindings.clone() });
        let issuers = config.jwt.iter().zip(&self.keys).map(|(issuer, keys)| Issuer {
            name: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            algorithms: issuer.algorithms.clone(),
            keys: Arc::clone(keys),
            leeway: issuer.leeway,
            certificate_bound: issuer.certificate_bound,
        });
        let tokens = TokenAuthenticator::new(core.service.tokens(), clock());
        let signed = JwtAuthenticator::new(issuers.collect(), Arc::new(bindings), clock());
        let certificates = CertificateAuthenticator::new(subjects, clock());
        Arc::new(
            Gate::new(Arc::new(tokens))
                .with_certificates(Arc::new(certificates))
                .with_signed(Arc::new(signed)),
        )
    }

    /// How often a look at the files found some that cannot be used.
    pub(super) fn failures(&self) -> u64 {
        let tls = self.tls.iter().map(|source| source.failures());
        tls.chain(self.keys.iter().map(|source| source.failures())).sum()
    }

    /// Follows the files until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let Self { tls: [data, admin, health], keys } = self;
        let watch = |source: Arc<TlsSource>| source.watch(RELOAD_EVERY, stop.clone());
        tokio::join!(watch(data), watch(admin), watch(health), watch_keys(keys, stop.clone()));
    }
}

async fn watch_keys(keys: Vec<Arc<KeySource>>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(RELOAD_EVERY)).await.is_some() {
        let sources = keys.clone();
        let reload = move || sources.iter().for_each(|source| source.reload());
        if tokio::task::spawn_blocking(reload).await.is_err() {
            tracing::error!("a look at the keys of the issuers ended by a panic");
        }
    }
}

fn files(config: &Config, asked: ClientCertificates) -> TlsFiles {
    let clients = match (asked, config.tls.client_ca.clone()) {
        (ClientCertificates::Off, _) | (_, None) => ClientAuth::None,
        (ClientCertificates::Optional, Some(authorities)) => ClientAuth::Optional(authorities),
        (ClientCertificates::Required, Some(authorities)) => ClientAuth::Required(authorities),
    };
    TlsFiles {
        chain: config.tls.certificate.clone(),
        key: config.tls.key.clone(),
        clients,
        revoked: config.tls.client_crl.clone(),
        versions: if config.tls.allow_tls12 { TlsVersions::From12 } else { TlsVersions::Only13 },
    }
}
