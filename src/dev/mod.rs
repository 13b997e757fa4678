//! The material of dev mode: everything that a first start needs and nobody should have to make by hand.
//!
//! [`prepare`] makes, under `<dir>/keys/dev`, a certificate authority, a server certificate for `localhost`, `127.0.0.1`
//! and `::1`, three tokens, and (through a function of the caller's) the keyring file and the recovery key pair. Each file
//! appears whole or not at all and is for its owner alone. What is there stays, so that it can be called at every start and
//! after a start that was cut off. Files that others could have read are refused, not repaired: they must be taken for known.
//! What this module does not do: it touches no store, registers no token and is never used by `serve`.

mod certificates;
mod files;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::env::{Clock, Entropy, EntropyError};
use crate::model::{NameError, Scope, Scopes, TenantName, TenantSet};

/// The tenant of dev mode.
pub const TENANT: &str = "demo";

/// Begins every token, so that a leaked one can be found by looking for it.
const TOKEN_PREFIX: &str = "srt_";
/// Secret bytes in a token: 43 characters of base64url.
const TOKEN_SECRET_BYTES: usize = 32;

/// Why the material could not be made. No variant holds anything secret.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The operating system reported an error.
    #[error("{} cannot be {operation}: {source}", path.display())]
    Io {
        /// What was being done: read, written …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Others than the owner can get at it.
    #[error("{} has mode {mode:04o}: others may have read it; remove it, and a new one will be made", path.display())]
    OpenToOthers {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something else stands in a file's or directory's place: a link, a device.
    #[error("{} is not a {expected}", path.display())]
    NotA {
        /// What stands in the place.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
    },
    /// It is there, but it is not what it should be.
    #[error("{} does not hold {expected}; remove it, and a new one will be made", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The keyring file or the recovery key pair could not be made.
    #[error("the root keys cannot be made: {0}")]
    RootKeys(#[source] Box<dyn Error + Send + Sync>),
    /// The name of dev mode's tenant is none.
    #[error("the tenant's name {0}")]
    Tenant(#[from] NameError),
    /// The system's random number generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Where everything of dev mode lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevPaths {
    /// `<dir>/keys/dev`, of mode 0700.
    pub dir: PathBuf,
    /// The keyring file.
    pub root_key: PathBuf,
    /// The private half of the recovery key. It should not stay here, but this is dev mode.
    pub recovery_key: PathBuf,
    /// The public half of the recovery key.
    pub recovery_pub: PathBuf,
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The authority's private key.
    pub ca_key: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// The profile for the CLI.
    pub profile: PathBuf,
}

impl DevPaths {
    /// The places below `dir`, whether there is anything or not.
    #[must_use]
    pub fn under(dir: &Path) -> Self {
        let dir = dir.join("keys").join("dev");
        Self {
            root_key: dir.join("root.key"),
            recovery_key: dir.join("recovery.key"),
            recovery_pub: dir.join("recovery.pub"),
            ca: dir.join("ca.pem"),
            ca_key: dir.join("ca.key"),
            certificate: dir.join("server.pem"),
            key: dir.join("server.key"),
            profile: dir.join("profile.toml"),
            dir,
        }
    }

    /// The file of the token of that name.
    #[must_use]
    pub fn token(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.token"))
    }
}

/// A token of dev mode, to be registered by its digest.
pub struct DevToken {
    /// Its name, and that of its file: `app`, `admin`, `reader`.
    pub name: &'static str,
    /// What it permits.
    pub scopes: Scopes,
    /// For which tenants.
    pub tenants: TenantSet,
    secret: Zeroizing<String>,
}

impl DevToken {
    /// The token as it is presented: `srt_` and 43 characters.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl std::fmt::Debug for DevToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DevToken({})", self.name)
    }
}

/// What [`prepare`] made or found.
#[derive(Debug)]
pub struct DevMaterial {
    /// Where it lies.
    pub paths: DevPaths,
    /// The tokens.
    pub tokens: Vec<DevToken>,
    /// Whether the server's certificate was made now.
    pub new_certificate: bool,
}

/// Makes what is missing under `<dir>/keys/dev`.
///
/// `make_root_keys` is called each time, with the directory there and locked against a second start; it makes `root_key`,
/// `recovery_key` and `recovery_pub` as far as they are missing, each whole or not at all, for their owner alone.
///
/// # Errors
/// [`DevError`] when something cannot be made, is open to others, or is not what it should be. What was made until then stays
/// and is used by the next start.
pub fn prepare<E>(
    dir: &Path,
    entropy: &dyn Entropy,
    clock: &dyn Clock,
    make_root_keys: impl FnOnce(&DevPaths) -> Result<(), E>,
) -> Result<DevMaterial, DevError>
where
    E: Error + Send + Sync + 'static,
{
    let paths = DevPaths::under(dir);
    files::make_private_directory(&paths.dir)?;
    let _lock = files::lock(&paths.dir.join(".lock"))?;

    make_root_keys(&paths).map_err(|error| DevError::RootKeys(Box::new(error)))?;
    for secret in [&paths.root_key, &paths.recovery_key] {
        files::require_private(secret)?;
    }
    files::require(&paths.recovery_pub)?;
    let new_certificate = certificates::ensure(&paths, clock.now())?;
    let tokens = plan()?
        .into_iter()
        .map(|(name, scopes, tenants)| {
            let secret = ensure_token(&paths.token(name), entropy)?;
            Ok(DevToken { name, scopes, tenants, secret })
        })
        .collect::<Result<_, DevError>>()?;
    Ok(DevMaterial { paths, tokens, new_certificate })
}

impl DevMaterial {
    /// Writes the CLI's profile for a server that listens at these addresses; to be called once they are known.
    ///
    /// # Errors
    /// [`DevError`] when it cannot be written.
    pub fn write_profile(&self, data: SocketAddr, admin: SocketAddr) -> Result<(), DevError> {
        let profile = format!(
            "# Written by `strongroomd dev` at each start. Paths are relative to this file.\n\
             endpoint = \"https://{data}\"\nadmin_endpoint = \"https://{admin}\"\nca_file = \"ca.pem\"\n\
             token_file = \"app.token\"\nadmin_token_file = \"admin.token\"\ntenant = \"{TENANT}\"\n"
        );
        files::write(&self.paths.profile, profile.as_bytes())
    }
}

/// Writes a file for its owner alone, whole or not at all.
///
/// # Errors
/// [`DevError`] when it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DevError> {
    files::write(path, bytes)
}

type Plan = Vec<(&'static str, Scopes, TenantSet)>;

fn plan() -> Result<Plan, NameError> {
    let demo = TenantSet::Only([TenantName::new(TENANT)?].into());
    Ok(vec![
        ("app", [Scope::Read, Scope::ReadFull, Scope::Write].into_iter().collect(), demo.clone()),
        ("admin", Scope::ALL.into_iter().collect(), TenantSet::All),
        ("reader", [Scope::Read].into_iter().collect(), demo),
    ])
}

fn ensure_token(path: &Path, entropy: &dyn Entropy) -> Result<Zeroizing<String>, DevError> {
    if let Some(found) = files::read_private(path)? {
        return parse_token(&found)
            .ok_or_else(|| DevError::Malformed { path: path.to_owned(), expected: "a token" });
    }
    let token = make_token(entropy)?;
    files::write(path, token.as_bytes())?;
    Ok(token)
}

/// Makes the secret of a token: `srt_` and 43 characters, 256 random bits.
///
/// # Errors
/// [`EntropyError`] when the system's generator fails.
pub fn make_token(entropy: &dyn Entropy) -> Result<Zeroizing<String>, EntropyError> {
    let mut bytes = Zeroizing::new([0; TOKEN_SECRET_BYTES]);
    entropy.fill(&mut bytes[..])?;
    let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(&bytes[..]));
    Ok(Zeroizing::new([TOKEN_PREFIX, encoded.as_str()].concat()))
}

fn parse_token(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end();
    let secret =
        BASE64URL_NOPAD.decode(text.strip_prefix(TOKEN_PREFIX)?.as_bytes()).map(Zeroizing::new).ok()?;
    (secret.len() == TOKEN_SECRET_BYTES).then(|| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests;
