//! The server's command line.
//!
//! Exit codes: 0 after a clean end, 1 when it could not start or end well, 2 for wrong usage, 5 when the access logs are not
//! what their anchor says or that cannot be told (`AUDIT_ROLLBACK`), 70 when a commit failed and
//! only a restart helps, 78 for a wrong configuration.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Addresses, DevServer, Server, ServerError, initialise, recover};
use crate::config::{Config, ConfigErrors, Log};
use crate::dev::{DevError, DevMaterial, make_token, write_private};
use crate::env::SystemEntropy;
use crate::env::process::{Hardening, harden};
use crate::keyring::KeyFile;
use crate::model::{Scope, TenantSet, TokenName};
use crate::service::{Acceptance, CreateToken, LogAt};
use crate::telemetry;

/// Encrypted context store for MCP servers.
#[derive(Parser)]
#[command(name = "strongroomd", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Serve on loopback with everything made on the first start: for a first look and for development
    Dev {
        /// Where `data` and `keys/dev` are made
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// Ports for data, admin and health instead of 7443, 7444 and 9443; 0 takes a free one
        #[arg(long, value_name = "PORT", num_args = 3)]
        ports: Option<Vec<u16>>,
        /// Which log lines are written, for example "info" or "strongroom=debug"
        #[arg(long)]
        log: Option<String>,
    },
    /// Serve as a configuration file says
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Go on although this access log is not what the anchor says, as the refused start names it. For one start; it goes on record
        #[arg(long, value_name = "LOG:SIZE")]
        accept_rollback: Vec<LogAt>,
        /// Begin a new anchor where there is none, as the refused start names the server's own log. For one start; it goes on record
        #[arg(long, value_name = "LOG:SIZE")]
        new_anchor: Option<LogAt>,
    },
    /// Say what is wrong with a configuration file, and do nothing else
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a keyring file, for a new root provider
    Keyring {
        /// The file; must not exist
        file: PathBuf,
    },
    /// Open a store whose root provider is lost with a recovery key, and wrap its root key for the configured provider
    Recover {
        /// The configuration file; a keyring file that it names is made when there is none
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// A file of mode 0600 with the private half of a recovery key, "srk_…"
        #[arg(long, value_name = "FILE")]
        recovery_key: PathBuf,
    },
    /// Prepare a new installation: keyring file, store, and the first administrator's token
    Init {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where the token is written; must not exist
        #[arg(long, value_name = "FILE")]
        token: PathBuf,
    },
}

/// Why the process ends.
enum Failure {
    Config(ConfigErrors),
    Server(ServerError),
    System(std::io::Error),
    Telemetry(telemetry::TelemetryError),
    Exists(PathBuf),
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

/// Runs the server as the command line says.
#[must_use]
pub fn main() -> ExitCode {
    // Before any thread exists, so that all of them inherit it.
    let hardening = harden();
    let arguments = Arguments::parse();
    let outcome = match arguments.mode {
        Mode::Dev { dir, ports, log } => serve_dev(&dir, ports, log, &hardening),
        Mode::Serve { config, accept_rollback: rollbacks, new_anchor } => {
            serve(&config, Acceptance { rollbacks, new_anchor }, &hardening)
        }
        Mode::Check { config } => check(&config).map(|_| say("the configuration is good")),
        Mode::Init { config, token } => init(&config, &token),
        Mode::Keyring { file } => make_keyring(&file),
        Mode::Recover { config, recovery_key } => restore_root(&config, &recovery_key),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.report()),
    }
}

fn serve_dev(
    dir: &Path,
    ports: Option<Vec<u16>>,
    log: Option<String>,
    hardening: &Hardening,
) -> Result<(), Failure> {
    let log = Log { level: log.unwrap_or_else(|| "warn".to_owned()), ..Log::default() };
    start_telemetry(&log, hardening)?;
    let ports = ports.and_then(|ports| <[u16; 3]>::try_from(ports).ok());
    runtime()?.block_on(async {
        let stop = stop_on_signals()?;
        let server = DevServer::open(dir, ports).await?;
        greet(server.addresses(), server.material());
        server.run(stop).await?;
        Ok(())
    })
}

fn serve(path: &Path, accepted: Acceptance, hardening: &Hardening) -> Result<(), Failure> {
    let config = check(path)?;
    start_telemetry(&config.log, hardening)?;
    runtime()?.block_on(async {
        let stop = stop_on_signals()?;
        Server::open_accepting(config, accepted).await?.run(stop).await?;
        Ok(())
    })
}

/// Reads a configuration and looks at the files that it names.
fn check(path: &Path) -> Result<Config, Failure> {
    let config = Config::load(path).map_err(Failure::Config)?;
    let mistakes = config.check_files();
    if mistakes.is_empty() { Ok(config) } else { Err(Failure::Config(ConfigErrors::new(path, mistakes))) }
}

fn init(path: &Path, token: &Path) -> Result<(), Failure> {
    let config = Config::load(path).map_err(Failure::Config)?;
    if token.exists() {
        return Err(Failure::Exists(token.to_owned()));
    }
    let secret = make_token(&SystemEntropy::new()).map_err(DevError::from).map_err(ServerError::from)?;
    let first = CreateToken {
        name: TokenName::new("first-administrator").map_err(|_| ServerError::Unclean)?,
        scopes: Scope::ALL.into_iter().collect(),
        tenants: TenantSet::All,
        ttl: None,
    };
    runtime()?.block_on(initialise(&config, &first, &secret))?;
    write_private(token, secret.as_bytes()).map_err(ServerError::from)?;
    say(&format!("the store is ready; the first administrator's token is in {}", token.display()));
    Ok(())
}

fn make_keyring(path: &Path) -> Result<(), Failure> {
    let made = KeyFile::create(path, Arc::new(SystemEntropy::new())).map_err(ServerError::from)?;
    say(&format!("the keyring file {} holds the key {}", path.display(), made.key_id()));
    Ok(())
}

fn restore_root(path: &Path, recovery_key: &Path) -> Result<(), Failure> {
    let config = Config::load(path).map_err(Failure::Config)?;
    match runtime()?.block_on(recover(&config, recovery_key))? {
        Some(key_id) => say(&format!(
            "the root key is wrapped for {key_id} again; start the server, then 'strongroom root verify'"
        )),
        None => say("nothing was done: the configured provider can unwrap the root key"),
    }
    Ok(())
}

fn start_telemetry(log: &Log, hardening: &Hardening) -> Result<(), Failure> {
    telemetry::init(log).map_err(Failure::Telemetry)?;
    for (measure, error) in hardening.missing() {
        tracing::warn!(?measure, %error, "the process could not be hardened fully");
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, std::io::Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_on_signals() -> Result<CancellationToken, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let first = stop.clone();
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if again {
                tracing::error!("stopped at once by a second signal");
                std::process::exit(1);
            }
            first.cancel();
        }
    });
    Ok(stop)
}

fn greet(addresses: Addresses, material: &DevMaterial) {
    let keys = material.paths.dir.display();
    let Addresses { data, admin, health } = addresses;
    say(&format!(
        "Strongroom in dev mode: not for production.\n\
         \n  data    https://{data}\n  admin   https://{admin}\n  health  https://{health}  (and /metrics)\n\
         \n  tenant  {}\n  secrets {keys}\n\
         \nIn another terminal:\n\
         \n  alias strongroom=\"cargo run --quiet --release --bin strongroom --\"\
         \n  strongroom status\
         \n  strongroom session create --owner alice\
         \n  strongroom audit tail\n\
         \nStop with Ctrl-C.",
        crate::dev::TENANT,
    ));
}

/// Writes a line for people; that nobody reads it is no reason to stop.
fn say(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        tracing::debug!("nobody reads the standard output");
    }
}

impl Failure {
    /// Says what is wrong on stderr, and with which code the process ends.
    fn report(&self) -> u8 {
        let (text, code) = match self {
            Self::Config(errors) => (errors.to_string(), 78),
            Self::Server(error) => (error.to_string(), error.exit_code()),
            Self::System(error) => (format!("the system refused: {error}"), 1),
            Self::Telemetry(error) => (error.to_string(), 1),
            Self::Exists(path) => (format!("{} exists already and is not replaced", path.display()), 1),
        };
        if writeln!(std::io::stderr().lock(), "strongroomd: {text}").is_err() {
            tracing::debug!("nobody reads the standard error");
        }
        code
    }
}
