//! The environment variables that the program reads, all of them.
//!
//! Each names a file; none holds a secret. Variables that are empty count as not set.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const TLS_KEY: &str = "STRONGROOM_TLS_KEY_FILE";
const KEYRING: &str = "STRONGROOM_KEYRING_FILE";
const PROFILE: &str = "STRONGROOM_PROFILE";
const HOME: &str = "HOME";

/// What the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    tls_key: Option<PathBuf>,
    keyring: Option<PathBuf>,
    profile: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn read() -> Self {
        Self::from(|name| std::env::var_os(name))
    }

    /// An environment that names these two files, for the server's tests.
    #[must_use]
    pub fn with(tls_key: Option<PathBuf>, keyring: Option<PathBuf>) -> Self {
        Self { tls_key, keyring, ..Self::default() }
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { tls_key: path(TLS_KEY), keyring: path(KEYRING), profile: path(PROFILE), home: path(HOME) }
    }

    /// `STRONGROOM_TLS_KEY_FILE`: the server's private key, instead of `tls.key`.
    #[must_use]
    pub fn tls_key(&self) -> Option<&Path> {
        self.tls_key.as_deref()
    }

    /// `STRONGROOM_KEYRING_FILE`: the keyring file, instead of `root.keyring`.
    #[must_use]
    pub fn keyring(&self) -> Option<&Path> {
        self.keyring.as_deref()
    }

    /// `STRONGROOM_PROFILE`: the CLI's profile.
    #[must_use]
    pub fn profile(&self) -> Option<&Path> {
        self.profile.as_deref()
    }

    /// `HOME`: where the CLI looks for `.config/strongroom/profile.toml`.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let environment = Environment::from(|name| match name {
            PROFILE => Some("p.toml".into()),
            KEYRING => Some("".into()),
            _ => None,
        });
        assert_eq!(environment.profile(), Some(Path::new("p.toml")));
        assert_eq!((environment.keyring(), environment.home()), (None, None));
    }
}
