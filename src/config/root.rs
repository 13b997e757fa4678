//! The `[root]` section: which provider unwraps the root epoch keys, and the fields of that one alone.

use std::path::{Path, PathBuf};

use super::reader::{Document, Section};
use super::{Environment, Mistake, environment_or_file, files};
use crate::model::Duration;

/// Deadline of a call of a provider that is asked over a connection.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Where Kubernetes puts a service account's token.
const JWT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The root provider and the way back when it is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// What unwraps the root epoch keys.
    pub provider: Provider,
    /// Files with the public keys of the recovery recipients.
    pub recovery: Vec<PathBuf>,
    /// Where the root epoch keys move to, while they do.
    pub next: Option<Provider>,
}

/// What unwraps the root epoch keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// A keyring file.
    File {
        /// The file.
        keyring: PathBuf,
    },
    /// A Kubernetes KMS v2 plugin.
    Kms {
        /// The plugin's Unix socket.
        socket: PathBuf,
        /// The deadline of each call.
        timeout: Duration,
    },
    /// A transit engine of Vault or OpenBao.
    Transit(Box<Transit>),
}

/// A transit engine, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transit {
    /// `https://host[:port]`.
    pub address: String,
    /// The authorities of the server's certificate.
    pub ca: PathBuf,
    /// Where the engine is mounted.
    pub mount: String,
    /// The engine's key.
    pub key: String,
    /// The namespace, where the server has them.
    pub namespace: Option<String>,
    /// Whether the store's id is bound as associated data.
    pub associated_data: bool,
    /// Who asks.
    pub auth: TransitAuth,
    /// The deadline of each call.
    pub timeout: Duration,
}

/// How a transit engine is shown who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitAuth {
    /// A file with a token.
    Token(PathBuf),
    /// The token of a Kubernetes service account.
    Kubernetes {
        /// Where the auth method is mounted.
        mount: String,
        /// The role to log in with.
        role: String,
        /// The file with the service account's token.
        jwt: PathBuf,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Kms,
    Transit,
}

#[derive(Clone, Copy)]
enum AuthKind {
    Token,
    Kubernetes,
}

impl Root {
    /// What is wrong with the files that the section names.
    pub(super) fn check_files(&self) -> Vec<Mistake> {
        let mut mistakes = self.provider.check_files("root");
        mistakes.extend(self.next.iter().flat_map(|next| next.check_files("next_root")));
        mistakes.extend(self.recovery.iter().filter_map(|path| files::check_public("root.recovery", path)));
        mistakes
    }
}

impl Provider {
    fn check_files(&self, section: &str) -> Vec<Mistake> {
        let field = |name: &str| format!("{section}.{name}");
        let found = match self {
            Self::File { keyring } => vec![files::check_secret(&field("keyring"), keyring, files::KEYRING)],
            Self::Kms { socket, .. } => vec![files::check_socket(&field("socket"), socket)],
            Self::Transit(transit) => {
                let credential = match &transit.auth {
                    TransitAuth::Token(token) => {
                        files::check_secret(&field("token"), token, files::PRIVATE_KEY)
                    }
                    // Kubernetes decides about the mode of what it mounts.
                    TransitAuth::Kubernetes { jwt, .. } => files::check_public(&field("jwt"), jwt),
                };
                vec![files::check_public(&field("ca"), &transit.ca), credential]
            }
        };
        found.into_iter().flatten().collect()
    }
}

pub(super) fn read(document: &Document<'_>, base: &Path, environment: &Environment) -> Root {
    let section = document.section("root");
    let next = document.section("next_root");
    Root {
        provider: read_provider(&section, base, |section| {
            environment_or_file(section, "keyring", base, environment.keyring())
        }),
        recovery: section.required_paths("recovery", base),
        next: next
            .is_there()
            .then(|| read_provider(&next, base, |section| section.required_path("keyring", base))),
    }
}

fn read_provider<'d>(
    section: &Section<'d>,
    base: &Path,
    keyring: impl Fn(&Section<'d>) -> PathBuf,
) -> Provider {
    let kinds = [("file", Kind::File), ("kms", Kind::Kms), ("transit", Kind::Transit)];
    match section.one_of("provider", &kinds, Kind::File) {
        Kind::File => Provider::File { keyring: keyring(section) },
        Kind::Kms => {
            Provider::Kms { socket: section.required_path("socket", base), timeout: read_timeout(section) }
        }
        Kind::Transit => Provider::Transit(Box::new(read_transit(section, base))),
    }
}

fn read_transit(section: &Section<'_>, base: &Path) -> Transit {
    Transit {
        address: section.required_https("address"),
        ca: section.required_path("ca", base),
        mount: section.path_of_names("mount").unwrap_or_else(|| "transit".to_owned()),
        key: section.required_name("key"),
        namespace: section.path_of_names("namespace"),
        associated_data: section.boolean("associated_data", false),
        auth: read_auth(section, base),
        timeout: read_timeout(section),
    }
}

fn read_auth(section: &Section<'_>, base: &Path) -> TransitAuth {
    let kinds = [("token", AuthKind::Token), ("kubernetes", AuthKind::Kubernetes)];
    match section.one_of("auth", &kinds, AuthKind::Token) {
        AuthKind::Token => TransitAuth::Token(section.required_path("token", base)),
        AuthKind::Kubernetes => TransitAuth::Kubernetes {
            mount: section.path_of_names("auth_mount").unwrap_or_else(|| "kubernetes".to_owned()),
            role: section.required_name("role"),
            jwt: section.path("jwt", base).unwrap_or_else(|| JWT.into()),
        },
    }
}

fn read_timeout(section: &Section<'_>) -> Duration {
    section.duration("timeout", TIMEOUT, Duration::from_millis(100), Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Problem};
    use super::*;

    const REST: &str = "[tls]\ncertificate='c'\nkey='k'\n[store]\npath='d'\n";

    fn parse(root: &str) -> Result<Root, Vec<(String, Problem)>> {
        let text = format!("{REST}[root]\n{root}\nrecovery=['p']\n");
        let config = Config::parse(&text, Path::new("/etc"), &Environment::default());
        let named = |mistakes: Vec<Mistake>| mistakes.into_iter().map(|m| (m.field, m.problem)).collect();
        config.map(|config| config.root).map_err(named)
    }

    fn unknown(root: &str) -> Vec<String> {
        let mistakes = parse(root).unwrap_err();
        assert!(
            mistakes.iter().all(|(_, problem)| matches!(problem, Problem::Unknown { .. })),
            "{mistakes:?}"
        );
        mistakes.into_iter().map(|(field, _)| field).collect()
    }

    const TRANSIT: &str = "provider='transit'\naddress='https://bao:8200'\nca='ca.pem'\nkey='sr'\n";

    #[test]
    fn a_kms_plugin_needs_its_socket_alone() {
        let provider = parse("provider='kms'\nsocket='/run/kms.sock'").unwrap().provider;
        assert_eq!(provider, Provider::Kms { socket: "/run/kms.sock".into(), timeout: TIMEOUT });
        assert_eq!(parse("provider='kms'").unwrap_err(), [("root.socket".to_owned(), Problem::Missing)]);
    }

    #[test]
    fn a_transit_engine_has_defaults_for_all_but_its_place_its_key_and_its_credential() {
        let Provider::Transit(found) = parse(&format!("{TRANSIT}token='t'")).unwrap().provider else {
            panic!("another provider")
        };
        let expected = Transit {
            address: "https://bao:8200".to_owned(),
            ca: "/etc/ca.pem".into(),
            mount: "transit".to_owned(),
            key: "sr".to_owned(),
            namespace: None,
            associated_data: false,
            auth: TransitAuth::Token("/etc/t".into()),
            timeout: TIMEOUT,
        };
        assert_eq!(*found, expected);
        let mistakes = parse("provider='transit'").unwrap_err();
        let fields: Vec<_> = mistakes.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["root.address", "root.ca", "root.key", "root.token"]);
    }

    #[test]
    fn kubernetes_auth_needs_its_role_alone() {
        let text = format!("{TRANSIT}auth='kubernetes'\nrole='sr'");
        let Provider::Transit(found) = parse(&text).unwrap().provider else { panic!("another provider") };
        let [mount, role] = ["kubernetes", "sr"].map(str::to_owned);
        assert_eq!(found.auth, TransitAuth::Kubernetes { mount, role, jwt: JWT.into() });
        assert_eq!(
            parse(&format!("{TRANSIT}auth='kubernetes'")).unwrap_err(),
            [("root.role".to_owned(), Problem::Missing)]
        );
    }

    #[test]
    fn only_the_fields_of_the_chosen_provider_are_known() {
        assert_eq!(unknown("keyring='r'\nsocket='s'\nkey='k'"), ["root.socket", "root.key"]);
        assert_eq!(
            unknown("provider='kms'\nsocket='s'\nkeyring='r'\ntoken='t'"),
            ["root.keyring", "root.token"]
        );
        assert_eq!(
            unknown(&format!("{TRANSIT}token='t'\nrole='r'\nsocket='s'")),
            ["root.role", "root.socket"]
        );
        assert_eq!(unknown(&format!("{TRANSIT}auth='kubernetes'\nrole='r'\ntoken='t'")), ["root.token"]);
    }

    #[test]
    fn an_engine_is_never_asked_without_tls_nor_outside_its_path() {
        let good = format!("{TRANSIT}token='t'");
        for address in ["http://bao:8200", "bao:8200", "https://user@bao", "https://bao/v1", "https://"] {
            let mistakes = parse(&good.replace("https://bao:8200", address)).unwrap_err();
            assert_eq!(mistakes, [("root.address".to_owned(), Problem::NotHttps)], "{address}");
        }
        for (field, text) in
            [("key", "key='a/b'"), ("key", "key='..'"), ("key", "key='a?b'"), ("key", "key=''")]
        {
            let mistakes = parse(&good.replace("key='sr'", text)).unwrap_err();
            assert_eq!(mistakes, [(format!("root.{field}"), Problem::NotAName)], "{text}");
        }
        for mount in ["/a", "a//b", "../a", "a b", ""] {
            let mistakes = parse(&format!("{good}\nmount='{mount}'")).unwrap_err();
            assert_eq!(mistakes, [("root.mount".to_owned(), Problem::NotAName)], "{mount}");
        }
    }

    #[test]
    fn a_token_in_place_of_its_file_is_refused() {
        for secret in ["hvs.CAESIJ", "hvb.CAESIJ", "eyJhbGciOi"] {
            let mistakes = parse(&format!("{TRANSIT}token='{secret}'")).unwrap_err();
            assert_eq!(mistakes, [("root.token".to_owned(), Problem::SecretInPlaceOfPath)], "{secret}");
        }
    }

    #[test]
    fn a_file_in_place_of_the_socket_is_a_mistake_and_a_plugin_that_is_not_there_yet_is_none() {
        let home = tempfile::tempdir().unwrap();
        let check = |socket: PathBuf| Provider::Kms { socket, timeout: TIMEOUT }.check_files("root");
        assert_eq!(check(home.path().join("later.sock")), []);
        let socket = home.path().join("plugin.sock");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(check(socket), []);
        let path = home.path().join("file");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(check(path.clone())[0].problem, Problem::NotASocket { path });
    }
}
