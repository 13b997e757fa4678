//! TLS, with certificates that are replaced while connections come in.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ring::digest::{Context, Digest, SHA256};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::{Zeroize as _, Zeroizing};

use super::clients::{self, Dated, Living};
use crate::model::Timestamp;

/// The protocol that is offered, and the only one that is taken.
pub(super) const ALPN: &[u8] = b"h2";

/// How often the files are looked at, unless an installation says otherwise.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// Largest file: a bundle of a thousand certificates has below 2 MiB.
const FILE_BYTES: u64 = 4 << 20;

/// Which client certificates are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// None.
    None,
    /// One of the authorities in this PEM file, or none. One of another authority fails the handshake.
    Optional(PathBuf),
    /// One of the authorities in this PEM file; without it the handshake fails.
    Required(PathBuf),
}

/// Which versions of TLS are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersions {
    /// TLS 1.3.
    #[default]
    Only13,
    /// TLS 1.3 and, for clients that have no better, TLS 1.2.
    From12,
}

impl TlsVersions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Only13 => vec![&rustls::version::TLS13],
            Self::From12 => vec![&rustls::version::TLS13, &rustls::version::TLS12],
        }
    }
}

/// The files that a server's TLS is made of, and how it is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the server's certificate and those between it and the root.
    pub chain: PathBuf,
    /// PEM file with its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// Client certificates.
    pub clients: ClientAuth,
    /// PEM file with the lists of revoked certificates. With it, every certificate of a client's chain must be covered by a
    /// list that has not expired.
    pub revoked: Option<PathBuf>,
    /// Versions.
    pub versions: TlsVersions,
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is larger than 4 MiB, so it is not what it should be.
    #[error("{} is larger than {FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not PEM, or a section of it is damaged.
    #[error("{} is not valid PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate and no list of revoked ones", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no private key that we can use.
    #[error("{} holds no private key of a kind that is supported", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The private key is not that of the certificate: perhaps one file was replaced and the other not yet.
    #[error("the private key is not that of the certificate")]
    Mismatch,
    /// The certificate, or one of an authority, is not valid.
    #[error("a certificate is not valid: {0}")]
    Certificate(rustls::Error),
    /// The authorities cannot verify clients.
    #[error("the client authorities are not usable: {0}")]
    Clients(#[from] VerifierBuilderError),
    /// The cryptographic provider does not speak the versions asked for.
    #[error("the TLS versions are not supported: {0}")]
    Versions(rustls::Error),
}

/// What a look at the files led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// They hold what they held before.
    Unchanged,
    /// New connections use what they hold now.
    Replaced,
}

/// A server's TLS configuration, which follows its files.
///
/// What was loaded last stays in use while the files are damaged, missing or do not fit each other. Connections that are open
/// keep the configuration that they began with, until their age ends them.
#[derive(Debug)]
pub struct TlsSource {
    files: TlsFiles,
    current: RwLock<Loaded>,
    fault: Mutex<Option<String>>,
    failures: AtomicU64,
    replaced: watch::Sender<()>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// When the first authority of clients expires.
    fewer: Option<Timestamp>,
    digest: Digest,
}

impl TlsSource {
    /// Loads the files. Blocks for as long as reading them takes.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used; a server does not start without TLS.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let contents = Contents::read(&files)?;
        let current = RwLock::new(contents.load(&files)?);
        let (fault, failures) = (Mutex::new(None), AtomicU64::new(0));
        Ok(Arc::new(Self { files, current, fault, failures, replaced: watch::Sender::new(()) }))
    }

    /// The configuration for a new connection.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Why the files cannot be used now, if they cannot and an older state of them is in use.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a look at the files found some that cannot be used.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Waits until the client that presented `certificates`, its own first, would not be let in any more, because what was
    /// loaded since distrusts it. A client that presented none is never distrusted.
    pub(super) async fn distrusts(&self, certificates: &[CertificateDer<'static>]) {
        let mut replaced = self.replaced.subscribe();
        while self.trusts(certificates) {
            if replaced.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn trusts(&self, certificates: &[CertificateDer<'static>]) -> bool {
        let Some((own, others)) = certificates.split_first() else { return true };
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let now = current.config.time_provider.current_time();
        now.is_some_and(|now| current.verifier.verify_client_cert(own, others, now).is_ok())
    }

    /// Looks at the files and takes over what they hold, if that is new. Blocks for as long as reading them takes.
    ///
    /// It compares contents, not times or names, so it does not matter how they were replaced: written over, renamed, or by
    /// a symbolic link to their directory, as Kubernetes does it.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used. What was loaded last stays in use.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        let contents = Contents::read(&self.files)?;
        let digest = contents.digest();
        let is_current = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            let lives = current.fewer.is_none_or(|fewer| clients::at(UnixTime::now()) < fewer);
            lives && current.digest.as_ref() == digest.as_ref()
        };
        if is_current {
            return Ok(Reload::Unchanged);
        }
        let loaded = contents.load(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        self.replaced.send_replace(());
        Ok(Reload::Replaced)
    }

    /// Looks at the files every `every`, until `stop`. One watch serves all listeners that share the source.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let source = Arc::clone(&self);
            if let Ok(outcome) = tokio::task::spawn_blocking(move || source.reload()).await {
                self.note(&outcome);
            }
        }
    }

    /// Logs what is new, once, however often it is found.
    fn note(&self, outcome: &Result<Reload, TlsError>) {
        let fault = outcome.as_ref().err().map(ToString::to_string);
        if fault.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let mut last = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, &fault) {
            (Ok(Reload::Replaced), _) => tracing::info!("the TLS certificate was replaced"),
            (_, Some(fault)) if last.as_ref() != Some(fault) => {
                tracing::error!(%fault, "the new TLS files cannot be used; the last good ones stay in use");
            }
            _ => {}
        }
        *last = fault;
    }
}

/// The contents of the files, wiped when they are dropped.
struct Contents {
    chain: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    authorities: Option<Zeroizing<Vec<u8>>>,
    revoked: Option<Zeroizing<Vec<u8>>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let authorities = match &files.clients {
            ClientAuth::None => None,
            ClientAuth::Optional(path) | ClientAuth::Required(path) => Some(read_file(path)?),
        };
        let revoked = files.revoked.as_deref().filter(|_| authorities.is_some());
        let revoked = revoked.map(read_file).transpose()?;
        Ok(Self { chain: read_file(&files.chain)?, key: read_file(&files.key)?, authorities, revoked })
    }

    fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        let parts = [Some(&self.chain), Some(&self.key), self.authorities.as_ref(), self.revoked.as_ref()];
        for part in parts.into_iter().flatten() {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.finish()
    }

    fn load(&self, files: &TlsFiles) -> Result<Loaded, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (verifier, fewer) = self.verifier(files, &provider)?;
        let config = self.configure(files, provider, Arc::clone(&verifier))?;
        Ok(Loaded { config, verifier, fewer, digest: self.digest() })
    }

    fn configure(
        &self,
        files: &TlsFiles,
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let certified = self.certified(files)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&files.versions.list())
            .map_err(TlsError::Versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        if files.clients != ClientAuth::None {
            // A resumed session is not verified again: a certificate that has expired or whose authority is gone would pass.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    }

    fn certified(&self, files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.chain, &files.chain)?;
        let bad_key = |_| TlsError::Key { path: files.key.clone() };
        let mut key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Key { path: files.key.clone() })?;
        let signer = any_supported_type(&key).map_err(bad_key);
        key.zeroize();
        let certified = CertifiedKey::new(chain, signer?);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch),
            Err(error) => Err(TlsError::Certificate(error)),
        }
    }

    fn verifier(
        &self,
        files: &TlsFiles,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Arc<dyn ClientCertVerifier>, Option<Timestamp>), TlsError> {
        let (path, is_required) = match &files.clients {
            ClientAuth::None => return Ok((Arc::new(NoClientAuth), None)),
            ClientAuth::Optional(path) => (path, false),
            ClientAuth::Required(path) => (path, true),
        };
        let mut roots = RootCertStore::empty();
        let found = certificates(self.authorities.as_deref().map_or(&[], Vec::as_slice), path)?;
        let Living { authorities, fewer, none } = Living::of(found, clients::at(UnixTime::now()));
        for authority in authorities {
            roots.add(authority).map_err(TlsError::Certificate)?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = match (&files.revoked, &self.revoked) {
            (Some(path), Some(pem)) => builder.with_crls(lists(pem, path)?).enforce_revocation_expiration(),
            _ => builder,
        };
        let builder = if is_required { builder } else { builder.allow_unauthenticated() };
        Ok((Arc::new(Dated { inner: builder.build()?, ends: none }), fewer))
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { path: path.to_owned() }),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsError::Pem { path: path.to_owned() }),
    }
}

fn lists(pem: &[u8], path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { path: path.to_owned() }),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsError::Pem { path: path.to_owned() }),
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |error| TlsError::Read { path: path.to_owned(), error };
    let mut contents = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut contents)).map_err(failed)?;
    if u64::try_from(contents.len()).is_ok_and(|bytes| bytes <= FILE_BYTES) {
        Ok(contents)
    } else {
        Err(TlsError::TooLarge { path: path.to_owned() })
    }
}
