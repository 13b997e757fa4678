//! The profile: where the server is, how to trust it, and where the token lies.
//!
//! A TOML file, searched for in this order: `--profile FILE`, `$STRONGROOM_PROFILE`, `./keys/dev/profile.toml`,
//! `~/.config/strongroom/profile.toml`. Unknown fields are errors; relative paths count from the profile's directory.
//! Secrets are named by path only, and a token file that others may read is refused. Neither a token nor the content of
//! a file appears in an error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::model::TenantName;

/// Names the profile file; the only variable that is read.
pub const PROFILE_VARIABLE: &str = "STRONGROOM_PROFILE";

/// The profile that a development server writes.
const DEV_PROFILE: &str = "keys/dev/profile.toml";
/// The user's own profile, below the home directory.
const USER_PROFILE: &str = ".config/strongroom/profile.toml";
/// A profile is a handful of lines; a larger file is a mistake.
const PROFILE_BYTES: u64 = 64 << 10;

/// What is wrong with the profile or with a file that it names.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is no profile in any of the usual places.
    #[error("no profile was found: neither {DEV_PROFILE} nor ~/{USER_PROFILE} exists")]
    None,
    /// The profile that was named cannot be read.
    #[error("the profile {} cannot be read: {source}", path.display())]
    Read {
        /// The profile.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a profile.
    #[error("the profile {} is not valid: {reason}", path.display())]
    Invalid {
        /// The profile.
        path: PathBuf,
        /// What is wrong, with the line where it is known.
        reason: String,
    },
    /// A field is missing that this command needs.
    #[error("the profile {} does not set {field}", path.display())]
    Unset {
        /// The profile.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
    /// A token was given where the path of its file belongs.
    #[error("the path of the token file looks like a token itself")]
    TokenInPlaceOfPath,
    /// The token file cannot be read.
    #[error("the token file {} cannot be read: {source}", path.display())]
    Token {
        /// The token file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the token file.
    #[error("the token file {} may be read by others (mode {mode:03o})", path.display())]
    TokenExposed {
        /// The token file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl ProfileError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::None => {
                format!("'strongroomd dev' writes one; or name yours with --profile FILE or ${PROFILE_VARIABLE}")
            }
            Self::Read { .. } => "check the path after --profile or in the environment".to_owned(),
            Self::Invalid { .. } => {
                "known fields: endpoint, admin_endpoint, ca_file, server_name, token_file, admin_token_file, tenant".to_owned()
            }
            Self::Unset { field: "tenant", .. } => "add a line tenant = \"NAME\", or give --tenant NAME".to_owned(),
            Self::Unset { field: "token_file", .. } => {
                "add a line token_file = \"PATH\", or give --token-file PATH".to_owned()
            }
            Self::Unset { field, .. } => format!("add a line {field} = \"…\""),
            Self::TokenInPlaceOfPath => {
                "write the token into a file of mode 600 and give its path; a token on a command line can be seen by others, so revoke this one".to_owned()
            }
            Self::Token { .. } => "check token_file in the profile, or --token-file".to_owned(),
            Self::TokenExposed { path, .. } => format!("chmod 600 {}", path.display()),
        }
    }
}

/// A profile as it was read, with all paths resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Where it was read from.
    pub path: PathBuf,
    /// `https://host:port` of the data plane.
    pub endpoint: String,
    /// `https://host:port` of the control plane.
    pub admin_endpoint: Option<String>,
    /// PEM file of the authorities that may sign the server's certificate; unset: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Name that the server's certificate must bear, when it is not the endpoint's host.
    pub server_name: Option<String>,
    /// File that holds the token.
    pub token_file: Option<PathBuf>,
    /// File that holds the token for the control plane, when it is another one.
    pub admin_token_file: Option<PathBuf>,
    /// Tenant to use when none is named.
    pub tenant: Option<TenantName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    endpoint: String,
    admin_endpoint: Option<String>,
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    token_file: Option<PathBuf>,
    admin_token_file: Option<PathBuf>,
    tenant: Option<String>,
}

impl Profile {
    /// Finds the profile and reads it.
    ///
    /// # Errors
    /// [`ProfileError::None`], [`ProfileError::Read`] or [`ProfileError::Invalid`].
    pub fn find(named: Option<&Path>) -> Result<Self, ProfileError> {
        if let Some(path) = named {
            return Self::read(path);
        }
        if let Some(path) = from_environment(PROFILE_VARIABLE) {
            return Self::read(&path);
        }
        let usual =
            [Some(PathBuf::from(DEV_PROFILE)), from_environment("HOME").map(|home| home.join(USER_PROFILE))];
        match usual.into_iter().flatten().find(|path| path.exists()) {
            Some(path) => Self::read(&path),
            None => Err(ProfileError::None),
        }
    }

    /// Reads the profile at `path`.
    ///
    /// # Errors
    /// [`ProfileError::Read`] or [`ProfileError::Invalid`].
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let unreadable = |source| ProfileError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(unreadable)?.len() > PROFILE_BYTES {
            return Err(invalid(path, format!("it is larger than {PROFILE_BYTES} bytes")));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ProfileError> {
        let document: Document =
            toml::from_str(text).map_err(|error| invalid(path, describe(text, &error)))?;
        for endpoint in [Some(&document.endpoint), document.admin_endpoint.as_ref()].into_iter().flatten() {
            check_endpoint(path, endpoint)?;
        }
        let tenant = document.tenant.map(TenantName::new).transpose();
        let tenant = tenant.map_err(|error| invalid(path, format!("tenant {error}")))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let resolve = |file: Option<PathBuf>| file.map(|file| directory.join(file));
        Ok(Self {
            path: path.to_owned(),
            endpoint: document.endpoint,
            admin_endpoint: document.admin_endpoint,
            ca_file: resolve(document.ca_file),
            server_name: document.server_name,
            token_file: resolve(document.token_file),
            admin_token_file: resolve(document.admin_token_file),
            tenant,
        })
    }

    /// The error that says that `field` is missing.
    #[must_use]
    pub fn unset(&self, field: &'static str) -> ProfileError {
        ProfileError::Unset { path: self.path.clone(), field }
    }
}

/// Checks that the token file can be read by its owner and by nobody else.
///
/// # Errors
/// [`ProfileError::TokenInPlaceOfPath`], [`ProfileError::Token`] or [`ProfileError::TokenExposed`].
pub fn check_token_file(path: &Path) -> Result<(), ProfileError> {
    let is_token = |name: &str| name.starts_with("srt_") || name.starts_with("eyJ");
    if path.file_name().is_some_and(|name| is_token(&name.to_string_lossy())) {
        return Err(ProfileError::TokenInPlaceOfPath);
    }
    let file = fs::File::open(path).and_then(|file| file.metadata());
    let metadata = file.map_err(|source| ProfileError::Token { path: path.to_owned(), source })?;
    match exposed(&metadata) {
        Some(mode) => Err(ProfileError::TokenExposed { path: path.to_owned(), mode }),
        None => Ok(()),
    }
}

/// The permission bits, if they let anybody but the owner in.
#[cfg(unix)]
pub(super) fn exposed(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
pub(super) fn exposed(_: &fs::Metadata) -> Option<u32> {
    None
}

fn check_endpoint(path: &Path, endpoint: &str) -> Result<(), ProfileError> {
    let https = endpoint.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    if https { Ok(()) } else { Err(invalid(path, "an endpoint must begin with https://".to_owned())) }
}

fn invalid(path: &Path, reason: String) -> ProfileError {
    ProfileError::Invalid { path: path.to_owned(), reason }
}

/// What the parser says, with the line but without a copy of it.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let line =
        error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the path of the profile is the one thing taken from the environment"
)]
fn from_environment(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Profile, ProfileError> {
        Profile::parse(Path::new("/etc/strongroom/profile.toml"), text)
    }

    #[test]
    fn relative_paths_count_from_the_profile() {
        let profile = parse(
            "endpoint = \"https://a:1\"\nca_file = \"ca.pem\"\ntoken_file = \"/run/token\"\ntenant = \"demo\"\n",
        )
        .unwrap();
        assert_eq!(profile.ca_file.as_deref(), Some(Path::new("/etc/strongroom/ca.pem")));
        assert_eq!(profile.token_file.as_deref(), Some(Path::new("/run/token")));
        assert_eq!(profile.tenant.unwrap().as_str(), "demo");
    }

    #[test]
    fn unknown_fields_are_errors_that_name_the_line() {
        let error = parse("endpoint = \"https://a:1\"\ntoken = \"srt_secret\"\n").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ProfileError::Invalid { .. }));
        assert!(text.contains("line 2") && text.contains("unknown field"), "{text}");
        assert!(!text.contains("srt_secret"), "{text}");
    }

    #[test]
    fn plain_http_and_bad_tenants_are_refused() {
        for text in ["endpoint = \"http://a:1\"", "endpoint = \"https://a:1\"\ntenant = \"Demo!\"", ""] {
            assert!(matches!(parse(text), Err(ProfileError::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn a_token_in_place_of_a_path_is_not_repeated() {
        let error = check_token_file(Path::new("srt_abcdef")).unwrap_err();
        assert!(matches!(error, ProfileError::TokenInPlaceOfPath));
        assert!(!format!("{error} {error:?} {}", error.hint()).contains("abcdef"));
    }

    #[cfg(unix)]
    #[test]
    fn a_token_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.token");
        fs::write(&path, "srt_secret").unwrap();
        for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let outcome = check_token_file(&path);
            assert_eq!(matches!(outcome, Err(ProfileError::TokenExposed { .. })), refused, "{mode:o}");
        }
    }
}
