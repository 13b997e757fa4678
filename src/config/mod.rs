//! The server's configuration: one TOML file, read once, checked as a whole.
//!
//! [`Config::load`] reports *every* mistake of a file with its line, its field and what is allowed, and never repeats a
//! value: it may be a secret that was put into the wrong place. Unknown fields are mistakes. The file holds no secret, only
//! paths; relative ones start at the file's own directory. Each field but five has a safe default; a test counts the fields.
//! What this module does not do: it opens no store, binds no port and reads no key.
//!
//! ```toml
//! [listen]
//! data = "127.0.0.1:7443"     # ContextService
//! admin = "127.0.0.1:7444"    # AdminService
//! health = "127.0.0.1:9443"   # health and metrics, nothing else
//!
//! [tls]
//! certificate = "server.pem"  # required: the chain, leaf first
//! key = "server.key"          # required: PKCS#8; or STRONGROOM_TLS_KEY_FILE
//! client_ca = "clients.pem"   # the authorities of client certificates; none by default
//! client_crl = "revoked.pem"  # lists of revoked client certificates; then each must be covered; none by default
//! allow_tls12 = false
//!
//! [client_certificates]       # "off", "optional" or "required"; "off" without tls.client_ca
//! data = "optional"
//! admin = "optional"
//! health = "optional"
//! trust_domains = []          # whose SPIFFE ids are accepted, such as "example.org"
//!
//! [store]
//! engine = "sled"
//! path = "data"               # required
//! cache = "128MiB"            # 16MiB to 1TiB
//!
//! [root]
//! provider = "file"           # or "kms" or "transit", see below
//! keyring = "root.key"        # required: the keyring file; or STRONGROOM_KEYRING_FILE
//! recovery = ["recovery.pub"] # required, at least one: public keys of the offline recovery recipients
//!
//! [limits]
//! max_value = "4MiB"          # 1KiB to 16MiB
//! max_connections = 4096      # 1 to 65536, each listener
//! max_requests = 4096         # 1 to 65536, in flight
//! max_streams = 4096          # 1 to 65536, followed streams and watches
//! max_opened_sessions = 16384 # 16 to 1000000, sessions whose keys are kept in memory
//! request_timeout = "30s"     # 1s to 30s, whatever deadline a caller sets
//! connection_age = "1h"       # 1m to 1day; then the connection is asked to go, with jitter
//! drain_timeout = "30s"       # 1s to 10m, for requests in flight at shutdown
//!
//! [approvals]
//! required = false            # recommended: true, as soon as there are two people; see keys/README.md
//!
//! [redaction]
//! policy = "standard"         # or "off": values are stored as they come, and the redacted view is the full one
//!
//! [audit]
//! anchor = "/anchor/strongroom" # a file on another volume that keeps the logs' latest checkpoints; none by default
//!
//! [log]
//! format = "text"             # or "json"
//! level = "info"              # a level, or directives such as "info,strongroom::commit=debug"
//! ```
//!
//! The root provider is one of three, and only its own fields are known. A Kubernetes KMS v2 plugin:
//!
//! ```toml
//! [root]
//! provider = "kms"
//! socket = "/run/kms/plugin.sock" # required: the plugin's Unix socket
//! timeout = "3s"                  # 100ms to 30s, of each call
//! recovery = ["recovery.pub"]     # required, as above
//! ```
//!
//! A transit engine of Vault or OpenBao, whose token needs the `update` capability for `encrypt/<key>` and `decrypt/<key>`:
//!
//! ```toml
//! [root]
//! provider = "transit"
//! address = "https://bao.example:8200" # required: https, a host and a port
//! ca = "bao-ca.pem"                    # required: the authorities of its certificate
//! mount = "transit"
//! key = "strongroom"                   # required: the engine's key
//! namespace = "team"                   # none by default
//! associated_data = false              # bind the store's id; the key's type must be able to
//! auth = "token"                       # or "kubernetes", see below
//! token = "bao.token"                  # required: a file with the token, read for each call
//! timeout = "3s"                       # 100ms to 30s, of each call
//! recovery = ["recovery.pub"]          # required, as above
//! ```
//!
//! With `auth = "kubernetes"` there is no `token`, and instead:
//!
//! ```toml
//! auth_mount = "kubernetes"
//! role = "strongroom"                                         # required
//! jwt = "/var/run/secrets/kubernetes.io/serviceaccount/token" # the service account's token, read for each login
//! ```
//!
//! While the root key moves to another provider, that one stands in a section of its own, with the same fields but `recovery`:
//!
//! ```toml
//! [next_root]
//! provider = "file"
//! keyring = "next.key"
//! ```
//!
//! Issuers of signed tokens, as many as there are:
//!
//! ```toml
//! [[jwt]]
//! issuer = "https://kubernetes.default.svc.cluster.local" # required: exactly as in the tokens
//! audience = "strongroom"      # required: what tokens for us are for
//! algorithms = ["RS256"]       # required, at least one: RS256, PS256, ES256, EdDSA
//! jwks = "jwks.json"           # required: the issuer's public keys
//! leeway = "30s"               # 0s to 60s, how far clocks may differ
//! certificate_bound = false    # whether tokens must be bound to the client's certificate (cnf.x5t#S256)
//! ```
//!
//! What they and the workloads with client certificates may do; what stands nowhere is denied. A principal is named by a
//! trust domain, a namespace in it, and a service account in that:
//!
//! ```toml
//! [[bindings]]
//! trust_domain = "example.org" # required; or common_name, or issuer
//! namespace = "shop"           # all by default
//! service_account = "web"      # all by default
//! tenants = ["acme"]           # required, or all_tenants = true
//! scopes = ["read", "write"]   # required, at least one
//! ```
//!
//! by the common name that is the whole subject of a certificate (`common_name = "backup"`), or by `issuer` and, where it is
//! not for all of them, `subject`, or `namespace` for the service accounts of Kubernetes.

mod environment;
mod files;
mod identity;
mod mistake;
mod oversight;
mod reader;
mod root;
mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use environment::Environment;
pub use identity::{ClientCertificates, Clients, JwtIssuer};
pub use mistake::{ConfigErrors, Mistake, Problem};
pub use oversight::{Approvals, Audit, Redaction};
pub use root::{Provider, Root, Transit, TransitAuth};
pub use units::{ByteSize, parse_byte_size, parse_duration};

use crate::model::{Binding, Duration, limits};
use reader::{Document, Section};

/// Largest configuration file: a file of this size is not a configuration.
const FILE_BYTES: u64 = 1 << 20;

/// Everything that `strongroomd` can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// How its ports are secured.
    pub tls: Tls,
    /// Which listeners ask for client certificates.
    pub clients: Clients,
    /// Whose signed tokens are accepted.
    pub jwt: Vec<JwtIssuer>,
    /// What their principals may do.
    pub bindings: Vec<Binding>,
    /// Where rows are kept.
    pub store: Store,
    /// What unwraps the root epoch keys.
    pub root: Root,
    /// Bounds that an operator may move.
    pub limits: Limits,
    /// Whether it takes two people to do what cannot be undone.
    pub approvals: Approvals,
    /// What is cut out of values.
    pub redaction: Redaction,
    /// What is kept of the access logs outside of the store.
    pub audit: Audit,
    /// What is logged, and how.
    pub log: Log,
}

/// Addresses of the three listeners. Port 0 asks the system for a free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The data plane.
    pub data: SocketAddr,
    /// The control plane.
    pub admin: SocketAddr,
    /// Health and metrics; serves nothing else.
    pub health: SocketAddr,
}

/// Files and versions for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain in PEM, leaf first.
    pub certificate: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
    /// The authorities of client certificates; without it no client certificate is asked for.
    pub client_ca: Option<PathBuf>,
    /// Lists of revoked client certificates.
    pub client_crl: Option<PathBuf>,
    /// Whether TLS 1.2 is accepted beside 1.3.
    pub allow_tls12: bool,
}

/// The storage engines that can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// The embedded engine.
    Sled,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which engine.
    pub engine: EngineKind,
    /// The engine's directory; it is made when it does not exist.
    pub path: PathBuf,
    /// Bytes of pages kept in memory. Plan for 150 to 250 MB more.
    pub cache_bytes: u64,
}

/// Bounds that an operator may move, within those of [`limits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest value of an entry, in bytes.
    pub max_value_bytes: usize,
    /// Most connections to one listener.
    pub max_connections: usize,
    /// Most requests in flight.
    pub max_requests: usize,
    /// Most followed streams and watches.
    pub max_streams: usize,
    /// Most sessions whose keys are kept in memory.
    pub max_opened_sessions: usize,
    /// Longest that one request may take.
    pub request_timeout: Duration,
    /// Age at which a connection is asked to go.
    pub connection_age: Duration,
    /// Longest wait for requests in flight at shutdown.
    pub drain_timeout: Duration,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The form of its lines.
    pub format: LogFormat,
    /// Which are written: a level, or directives as of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

impl Config {
    /// Reads a file and checks its values. [`check_files`](Self::check_files) looks at the files that it names: before
    /// they are used, but not before `init` has made the keyring file.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every mistake that was found. Mistakes in the syntax hide all others.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let in_file = |mistakes| ConfigErrors::new(path, mistakes);
        let text = files::read_text(path, FILE_BYTES).map_err(|mistake| in_file(vec![mistake]))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base, &Environment::read()).map_err(in_file)
    }

    /// Checks the text of a file that stands in the directory `base`, without touching any other file.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of the text; those without a line come last.
    pub fn parse(text: &str, base: &Path, environment: &Environment) -> Result<Self, Vec<Mistake>> {
        let document = Document::parse(text)?;
        let listen = read_listen(&document);
        let tls = read_tls(&document, base, environment);
        let config = Self {
            listen,
            clients: identity::read_clients(&document, tls.client_ca.is_some()),
            tls,
            jwt: identity::read_issuers(&document, base),
            bindings: identity::read_bindings(&document),
            store: read_store(&document, base),
            root: root::read(&document, base, environment),
            limits: read_limits(&document),
            approvals: oversight::read_approvals(&document),
            redaction: oversight::read_redaction(&document),
            audit: oversight::read_audit(&document, base),
            log: read_log(&document),
        };
        document.finish(config)
    }

    /// What is wrong with the files that the configuration names: missing, not a file, open to others.
    #[must_use]
    pub fn check_files(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        mistakes.extend(files::check_public("tls.certificate", &self.tls.certificate));
        mistakes.extend(files::check_secret("tls.key", &self.tls.key, files::PRIVATE_KEY));
        mistakes
            .extend(self.tls.client_ca.iter().filter_map(|path| files::check_public("tls.client_ca", path)));
        mistakes.extend(
            self.tls.client_crl.iter().filter_map(|path| files::check_public("tls.client_crl", path)),
        );
        mistakes.extend(self.jwt.iter().filter_map(JwtIssuer::check_files));
        mistakes.extend(files::check_directory("store.path", &self.store.path));
        mistakes.extend(self.root.check_files());
        mistakes.extend(self.audit.anchor.iter().filter_map(|path| files::check_own("audit.anchor", path)));
        mistakes
    }

    /// The configuration of dev mode: loopback, the store in `<dir>/data`, secrets in `<dir>/keys/dev`.
    #[must_use]
    pub fn dev(dir: &Path) -> Self {
        let keys = dir.join("keys").join("dev");
        Self {
            listen: Listen::default(),
            tls: Tls {
                certificate: keys.join("server.pem"),
                key: keys.join("server.key"),
                client_ca: None,
                client_crl: None,
                allow_tls12: false,
            },
            clients: Clients::default(),
            jwt: Vec::new(),
            bindings: Vec::new(),
            store: Store {
                engine: EngineKind::Sled,
                path: dir.join("data"),
                cache_bytes: Store::DEFAULT_CACHE.bytes(),
            },
            root: Root {
                provider: Provider::File { keyring: keys.join("root.key") },
                recovery: vec![keys.join("recovery.pub")],
                next: None,
            },
            limits: Limits::default(),
            approvals: Approvals::default(),
            redaction: Redaction::default(),
            audit: Audit::default(),
            log: Log::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { data: loopback(7443), admin: loopback(7444), health: loopback(9443) }
    }
}

impl Store {
    /// Enough for the inner pages of 10⁶ rows; sled must always be given a bound.
    const DEFAULT_CACHE: ByteSize = ByteSize::mib(128);
}

impl Limits {
    const MAX_VALUE: ByteSize = ByteSize::new(limits::VALUE_BYTES as u64);
    const CONNECTION_AGE: Duration = Duration::from_secs(3600);
    const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_value_bytes: limits::VALUE_BYTES,
            max_connections: limits::CONNECTIONS,
            max_requests: limits::REQUESTS_IN_FLIGHT,
            max_streams: limits::FOLLOWED_STREAMS,
            max_opened_sessions: limits::OPENED_SESSIONS,
            request_timeout: limits::DEADLINE_CEILING,
            connection_age: Self::CONNECTION_AGE,
            drain_timeout: Self::DRAIN_TIMEOUT,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

fn read_listen(document: &Document<'_>) -> Listen {
    let section = document.section("listen");
    let default = Listen::default();
    let listen = Listen {
        data: section.address("data", default.data),
        admin: section.address("admin", default.admin),
        health: section.address("health", default.health),
    };
    let pairs = [
        ("admin", listen.admin, "listen.data", listen.data),
        ("health", listen.health, "listen.data", listen.data),
        ("health", listen.health, "listen.admin", listen.admin),
    ];
    for (name, address, other, taken) in pairs {
        if collide(address, taken) {
            section.mistake(name, Problem::AddressTaken { by: other });
        }
    }
    listen
}

/// Whether two listeners could not both be bound.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_host
}

fn read_tls(document: &Document<'_>, base: &Path, environment: &Environment) -> Tls {
    let section = document.section("tls");
    let client_ca = section.path("client_ca", base);
    let client_crl = section.path("client_crl", base);
    if client_crl.is_some() && client_ca.is_none() {
        section.mistake("client_crl", Problem::Needs { field: "tls.client_ca" });
    }
    Tls {
        certificate: section.required_path("certificate", base),
        key: environment_or_file(&section, "key", base, environment.tls_key()),
        client_ca,
        client_crl,
        allow_tls12: section.boolean("allow_tls12", false),
    }
}

fn read_store(document: &Document<'_>, base: &Path) -> Store {
    let section = document.section("store");
    Store {
        engine: section.one_of("engine", &[("sled", EngineKind::Sled)], EngineKind::Sled),
        path: section.required_path("path", base),
        cache_bytes: section
            .size("cache", Store::DEFAULT_CACHE, ByteSize::mib(16), ByteSize::mib(1 << 20))
            .bytes(),
    }
}

/// A path from the environment goes before the file's, whose field may then be missing but not be wrong.
fn environment_or_file(
    section: &Section<'_>,
    name: &'static str,
    base: &Path,
    set: Option<&Path>,
) -> PathBuf {
    match set {
        Some(path) => {
            section.path(name, base);
            path.to_owned()
        }
        None => section.required_path(name, base),
    }
}

fn read_limits(document: &Document<'_>) -> Limits {
    let section = document.section("limits");
    let default = Limits::default();
    let ceiling = ByteSize::new(limits::VALUE_BYTES_CEILING as u64);
    let max_value = section.size("max_value", Limits::MAX_VALUE, ByteSize::kib(1), ceiling).bytes();
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    Limits {
        max_value_bytes: usize::try_from(max_value).unwrap_or(limits::VALUE_BYTES_CEILING),
        max_connections: section.count("max_connections", default.max_connections, 1, 65_536),
        max_requests: section.count("max_requests", default.max_requests, 1, 65_536),
        max_streams: section.count("max_streams", default.max_streams, 1, 65_536),
        max_opened_sessions: section.count("max_opened_sessions", default.max_opened_sessions, 16, 1_000_000),
        request_timeout: section.duration(
            "request_timeout",
            default.request_timeout,
            second,
            limits::DEADLINE_CEILING,
        ),
        connection_age: section.duration("connection_age", default.connection_age, minute, 24 * 60 * minute),
        drain_timeout: section.duration("drain_timeout", default.drain_timeout, second, 10 * minute),
    }
}

fn read_log(document: &Document<'_>) -> Log {
    let section = document.section("log");
    let default = Log::default();
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Log {
        format: section.one_of("format", &formats, default.format),
        level: section.log_filter("level", default.level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "
        [tls]
        certificate = 'server.pem'
        key = 'server.key'
        [store]
        path = 'data'
        [root]
        keyring = '/secrets/root.key'
        recovery = ['recovery.pub']
    ";

    fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
        Config::parse(text, Path::new("/etc/strongroom"), &Environment::default())
    }

    fn problems(text: &str) -> Vec<(String, Problem)> {
        parse(text).unwrap_err().into_iter().map(|m| (m.field, m.problem)).collect()
    }

    /// The examples of the module's documentation: the whole file, then the sections of the other root providers.
    fn examples() -> Vec<String> {
        let source = include_str!("mod.rs");
        let blocks = source.split("//! ```toml\n").skip(1);
        let lines = |block: &str| {
            let lines = block.lines().take_while(|line| !line.ends_with("```"));
            lines.map(|line| format!("{}\n", line[3..].trim())).collect()
        };
        blocks.map(lines).collect()
    }

    fn documented() -> String {
        examples().remove(0)
    }

    /// The documented file with another root provider.
    fn documented_with(root: &str) -> String {
        let whole = documented();
        let (before, rest) = whole.split_once("[root]").unwrap();
        let (_, after) = rest.split_once("[limits]").unwrap();
        format!("{before}{root}[limits]{after}")
    }

    fn known_fields(text: &str) -> usize {
        let document = Document::parse(text).unwrap();
        let (base, environment) = (Path::new(""), Environment::default());
        read_listen(&document);
        read_tls(&document, base, &environment);
        identity::read_clients(&document, true);
        read_store(&document, base);
        root::read(&document, base, &environment);
        read_limits(&document);
        oversight::read_approvals(&document);
        oversight::read_redaction(&document);
        oversight::read_audit(&document, base);
        read_log(&document);
        document.known_fields().len()
    }

    #[test]
    fn the_smallest_file_has_the_safe_defaults_and_paths_beside_it() {
        let config = parse(SMALLEST).unwrap();
        assert_eq!(config.listen, Listen::default());
        assert!(config.listen.data.ip().is_loopback() && config.listen.admin.ip().is_loopback());
        assert_eq!(config.tls.key, Path::new("/etc/strongroom/server.key"));
        assert!(!config.tls.allow_tls12);
        assert_eq!(config.root.provider, Provider::File { keyring: "/secrets/root.key".into() });
        assert_eq!((config.limits, config.log), (Limits::default(), Log::default()));
        assert!(!config.approvals.required && config.redaction.enabled);
    }

    #[test]
    fn the_documented_file_is_accepted_and_shows_every_default() {
        let text = documented();
        let bare = text
            .replace("\nclient_c", "\n# client_c")
            .replace("\nanchor", "\n# anchor")
            .replace("\"optional\"", "\"off\"");
        let config = parse(&bare).unwrap();
        assert_eq!(config, Config { root: config.root.clone(), ..parse(SMALLEST).unwrap() });
        assert_eq!(
            parse(&text).unwrap().tls.client_ca.as_deref(),
            Some(Path::new("/etc/strongroom/clients.pem"))
        );
    }

    #[test]
    fn there_are_at_most_thirty_two_fields_and_nine_more_for_an_engine_and_all_are_documented() {
        let [whole, kms, transit, kubernetes, next, _jwt, _bindings] = examples().try_into().unwrap();
        let transit = documented_with(&transit);
        let (before, rest) = transit.split_once("auth = \"token\"").unwrap();
        let (_, after) = rest.split_once("token = \"bao.token\"").unwrap();
        let kubernetes = format!("{before}auth = \"kubernetes\"\n{kubernetes}\n#{after}");
        for (text, most) in
            [(whole, 32), (documented_with(&kms), 32), (transit.clone(), 41), (kubernetes, 41)]
        {
            assert!(parse(&text).is_ok(), "{:?}", parse(&text));
            let shown = text.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
            assert_eq!(shown, known_fields(&text), "{text}");
            assert!(shown <= most, "{shown} fields");
        }
        let moving = parse(&format!("{}{next}", examples().remove(0))).unwrap();
        assert_eq!(moving.root.next, Some(Provider::File { keyring: "/etc/strongroom/next.key".into() }));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = "
            [listen]
            data = 'localhost'
            admin = '127.0.0.1:9443'
            [tls]
            allow_tls12 = 'yes'
            key = 5
            [store]
            path = ''
            engine = 'rocks'
            cache = '1MiB'
            [limits]
            max_value = '17MiB'
            max_connections = 0
            drain_timeout = 'soon'
            max_valeu = 3
            [log]
            format = 'xml'
            level = 'info,=='
            [extra]
            a = 1
        ";
        let found = problems(text);
        let fields: Vec<_> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "listen.data",
                "tls.allow_tls12",
                "tls.key",
                "store.path",
                "store.engine",
                "store.cache",
                "limits.max_value",
                "limits.max_connections",
                "limits.drain_timeout",
                "limits.max_valeu",
                "log.format",
                "log.level",
                "extra",
                "listen.health",
                "tls.certificate",
                "root.keyring",
                "root.recovery",
            ]
        );
        assert!(matches!(found[0].1, Problem::NotAnAddress));
        assert!(matches!(found[6].1, Problem::OutOfRange { .. }));
        assert!(matches!(found[9].1, Problem::Unknown { .. }));
        assert!(matches!(found[13].1, Problem::AddressTaken { by: "listen.admin" }));
        assert!(matches!(found[15].1, Problem::Missing));
    }

    #[test]
    fn a_mistake_names_line_field_and_range_but_never_the_value() {
        let text = format!("{SMALLEST}\n[limits]\nmax_value = 'srt_hunter2'\nmax_requests = 70000\n");
        let errors = ConfigErrors::new(Path::new("strongroom.toml"), parse(&text).unwrap_err()).to_string();
        assert!(errors.contains("line 12: limits.max_value: must be a size"), "{errors}");
        assert!(errors.contains("line 13: limits.max_requests: must lie between 1 and 65536"), "{errors}");
        assert!(!errors.contains("hunter2") && !errors.contains("70000"), "{errors}");
    }

    #[test]
    fn a_key_in_place_of_a_path_is_refused() {
        for secret in ["-----BEGIN PRIVATE KEY-----\\nMC4", "srt_AAAA"] {
            let text = SMALLEST.replace("'server.key'", &format!("\"{secret}\""));
            assert_eq!(problems(&text), [("tls.key".to_owned(), Problem::SecretInPlaceOfPath)]);
        }
    }

    #[test]
    fn every_syntax_error_is_reported_without_the_text_around_it() {
        let text = "[tls]\nkey = srt_hunter2\n[store\npath = 'x'\n";
        let mistakes = parse(text).unwrap_err();
        assert!(mistakes.len() >= 2, "{mistakes:?}");
        assert!(mistakes.iter().all(|mistake| matches!(mistake.problem, Problem::Syntax { .. })));
        let shown = ConfigErrors::new(Path::new("f"), mistakes).to_string();
        assert!(
            shown.contains("line 2") && shown.contains("line 3") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn paths_of_secrets_may_come_from_the_environment() {
        let environment = Environment::with(Some("/run/tls.key".into()), Some("/run/root.key".into()));
        let text = "[tls]\ncertificate='c'\n[store]\npath='d'\n[root]\nrecovery=['r']\n";
        let config = Config::parse(text, Path::new("/etc"), &environment).unwrap();
        assert_eq!(config.tls.key, Path::new("/run/tls.key"));
        let keyring = Path::new("/run/root.key").to_owned();
        assert_eq!(config.root.provider, Provider::File { keyring });
    }

    #[test]
    fn two_listeners_on_a_wildcard_and_the_same_port_collide_and_port_zero_never_does() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(collide(at("0.0.0.0:7443"), at("127.0.0.1:7443")));
        assert!(!collide(at("127.0.0.2:7443"), at("127.0.0.1:7443")));
        assert!(!collide(at("127.0.0.1:0"), at("127.0.0.1:0")));
    }
}
