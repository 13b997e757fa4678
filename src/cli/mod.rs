//! The command line `strongroom <noun> <verb>`.
//!
//! One file for each noun, and in it one function for each verb: it names what it needs, calls the client, and prints.
//! Results go to standard output, everything else to standard error. The process returns 0 when it worked, 1 when the
//! server refused or the work failed, 2 for a wrong command line or profile, 3 when something was not found, 4 when the
//! server cannot be reached, 5 when stored bytes do not open.
//!
//! Nothing here knows the wire: that is the client's. No secret is taken from the command line or the environment.

pub mod args;
pub mod bench;
pub mod failure;
pub mod output;
pub mod profile;
mod root;

mod approval;
mod audit;
mod completion;
mod destroy;
mod entry;
mod event;
mod invocation;
mod job;
mod key;
mod policy;
mod session;
mod status;
mod tenant;
mod token;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::model::Owner;
use crate::model::limits::WALK_DEADLINE_CEILING;
use failure::{Exit, Failure};
use invocation::Invocation;
use output::{Console, Format};

/// How long one call may take if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keep and inspect the context of MCP servers in a Strongroom server
///
/// Results go to standard output, everything else to standard error. Where the server is and which token to use comes
/// from a profile: --profile FILE, else $STRONGROOM_PROFILE, else ./keys/dev/profile.toml (written by 'strongroomd dev'),
/// else ~/.config/strongroom/profile.toml. It is TOML with endpoint, admin_endpoint, ca_file, server_name, token_file,
/// admin_token_file (for the control plane, if it is another one) and tenant; relative paths count from the file.
///
/// Exit codes: 0 it worked; 1 the server refused, or the work failed; 2 wrong command line or profile, nothing was sent;
/// 3 not found; 4 the server cannot be reached; 5 stored bytes do not open: somebody tampered with them.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, propagate_version = false, disable_help_subcommand = true)]
#[command(max_term_width = 100)]
pub struct Cli {
    /// What all commands take.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Profile to use
    #[arg(long, global = true, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Tenant, instead of the profile's
    #[arg(long, global = true, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The end user who owns the session
    ///
    /// A session that was created with an owner can only be used with the same one. In the long form the subject may
    /// contain commas.
    #[arg(long, global = true, value_name = "[ISSUER,CLIENT,]SUBJECT", value_parser = args::owner)]
    pub owner: Option<Owner>,
    /// File that holds the token, instead of the profile's
    ///
    /// It must not be readable by others. A token itself is never given on the command line.
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How to print results
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "table|json"
    )]
    pub output: Format,
    /// How long one call may take, and how long a broken stream is opened again; 5s if not given, and 5m for a call that counts
    /// all sessions of a tenant
    #[arg(long, global = true, value_name = "DURATION", value_parser = args::duration)]
    timeout: Option<Duration>,
    /// Do not ask before something is destroyed
    #[arg(long, global = true)]
    pub yes: bool,
    /// Print results and errors only
    #[arg(long, global = true)]
    pub quiet: bool,
}

impl Global {
    /// How long one call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// How long a call may take for which the server walks through all sessions of a tenant.
    pub fn walk_timeout(&self) -> Duration {
        self.timeout.unwrap_or(WALK_DEADLINE_CEILING)
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Manage sessions
    ///
    /// A session as JSON: session, owner {issuer, client, subject}, created, expires, expires_at_latest, idle_ttl_ms, labels,
    /// revision, sensitive_purged. What is absent is null; times are RFC 3339 in UTC. 'delete --dry-run' and 'purge --dry-run'
    /// print session, owner, expires, entries (how many would be lost, or lose their full view; the events are lost with the
    /// session, too) and sensitive_purged.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Put, get and watch the entries of a session
    ///
    /// An entry as JSON: key, revision, size, content_type, created, updated, expires, labels; 'get' adds text, or base64 when
    /// the value is no UTF-8. A deletion: key, revision. A change, one line each: key, revision, deleted, snapshot.
    #[command(subcommand)]
    Entry(entry::EntryCommand),
    /// Append to and read the event streams of a session
    ///
    /// An event as JSON, one line each: event_id, appended, content_type, size, and text, or base64 when it is no UTF-8.
    /// 'append' prints event_id.
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Manage tenants
    ///
    /// A tenant as JSON: tenant, uid, state (active, suspended), created, primary_key_version, audit_log, exportable.
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Rotate, disable and destroy the key-encryption keys of a tenant
    ///
    /// A version as JSON: version, state (pending, primary, enabled, disabled, destroy-scheduled, destroyed), created,
    /// state_since, destruction (when it will be destroyed), origin (generated, imported), exported (when it first was).
    /// 'wrapping-key' prints uid, public_key (base64), info and expires. 'census' prints version and sessions for each version; 'disable
    /// --dry-run' prints version, state and sessions. 'destroy' prints tenant, version, state (as it is now; null in a dry run
    /// when the token lacks the scope keys), sessions, irrevocable (from when nothing takes it back), dry_run and horizon (what
    /// it does not reach).
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Show, verify, rotate and share the root key
    ///
    /// 'status' prints each recipient of each epoch; as JSON: epoch, state (newest, rewrapping, ended), rows (of tenants and
    /// of the server, that are wrapped under the epoch), provider, key_id, added, removed; so do 'rotate', 'migrate' and
    /// 'recipient'. 'verify' prints each configured provider: provider, key_id, opens. 'recovery-key' prints the public half.
    #[command(subcommand)]
    Root(root::RootCommand),
    /// Rewrap, scrub or reencrypt all sessions of a tenant
    ///
    /// A job as JSON: uid, kind (rewrap, scrub, reencrypt), state (running, done, cancelled), started, updated, ended, elapsed_seconds,
    /// rate_limit (sessions a second), sessions_total (at the beginning), sessions_seen, sessions_per_second, seconds_left, done
    /// (of a rewrap: sessions that were wrapped anew; of a scrub: records that opened; of a reencrypt: sessions that were
    /// encrypted anew), failed (sessions or records that did not open), failed_sessions (blinded ids, at most 32),
    /// sessions_closed (of a scrub: not looked into, because their key version is disabled or destroyed), before and after
    /// (sessions by key version: version, sessions).
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Decide about what takes two people
    ///
    /// Where the installation asks for a second person, a command that destroys fails, and prints as JSON: approval,
    /// description, expires, scopes (what the approver's token needs), command (what the approver runs). Its exit code is 1.
    /// After the approval, the same command goes ahead.
    ///
    /// An approval as JSON: approval, state (waiting, approved, denied, used, expired), operation, tenant (null: the server
    /// itself), description (exactly what would be done), scopes, requester, asked, expires, decider, decided, used.
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// Manage tokens
    ///
    /// A token as JSON: token, scopes, tenants, created, expires, revoked.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Read the access log
    ///
    /// An event as JSON, one line each: log, sequence, event. The event is the exact line of the log.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Measure what finds sensitive pieces of values
    ///
    /// 'score' prints, for each type of the labels: type, labelled, found, recall, precision, f1, false_positives,
    /// megabytes_per_second (null but for the sums).
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Show the state of the server
    ///
    /// As JSON: version, store_uid, format_version, started, engine, disk_bytes, rows, tenants, queue_depth, commits,
    /// committed_operations, integrity_failures, sessions_expired, sweeper_lag_ms, system_log_size, receipt_verifier. Counts are since the start of
    /// the server.
    Status(status::StatusArgs),
    /// Load a server and measure it, or replay recorded sessions
    ///
    /// A load runs against sessions of its own, which are deleted at the end. Latencies are in microseconds, from HDR
    /// histograms. In a closed loop the next operation begins when one ends; with --rate operations begin at fixed times,
    /// whether earlier ones have ended or not, and latency counts from the intended start, so that a server that stalls
    /// cannot hide it.
    ///
    /// --replay takes JSON lines {"session": NAME, "messages": [MESSAGE, ...]}. Every session becomes a session, every message
    /// (its exact bytes) an event of the stream 'messages', every tool's result an entry as well. Then everything is read
    /// back in the full view and compared byte for byte; the first difference is named, and the exit code is 1.
    ///
    /// The exit code is 1 when an operation failed or a difference was found, and 5 when stored bytes did not open.
    ///
    /// A load as JSON: workload, loop_kind, rate_per_second, size, view, concurrency, connections, threads, sessions,
    /// entries_per_session, warm_up_seconds, elapsed_seconds, operations, operations_per_second, bytes, bytes_per_second,
    /// latency_us {p50, p90, p99, p99_9, max, mean}, by_operation {read, write, append: {operations, latency_us}}, errors by
    /// reason, not_started, interrupted, client_busy, seed. What an open loop could not start in time is counted in not_started,
    /// and enters latency_us with the time that it had waited. client_busy is the share of its time that this client's threads
    /// were working: near 1, it is the client that was measured.
    ///
    /// A replay as JSON: workload, file, tenant, sessions, events, entries, bytes, concurrency, connections, stored and verified
    /// (each with the measures above), equal. There is no report when a difference was found.
    Bench(Box<bench::BenchArgs>),
    /// Print a script that completes this command line in a shell
    ///
    /// For bash: strongroom completion bash > ~/.local/share/bash-completion/completions/strongroom
    Completion(completion::CompletionArgs),
}

/// Reads the command line of this process and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli).into(),
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            // A closed pipe is the only way for this to fail, and then nobody is left to tell.
            if error.print().is_err() { Exit::Failed.into() } else { exit.into() }
        }
    }
}

/// Does what a command line says, prints what came of it and says what to return.
#[must_use]
pub fn run(cli: Cli) -> Exit {
    match perform(cli) {
        Ok(()) => Exit::Success,
        Err(failure) => {
            report(&failure);
            failure.exit()
        }
    }
}

fn perform(cli: Cli) -> Result<(), Failure> {
    let console = Console::of_process(cli.global.output, cli.global.quiet);
    let mut invocation = Invocation::new(cli.global, console);
    let invocation = &mut invocation;
    let outcome = match cli.command {
        Command::Session(command) => block_on(command.run(invocation)),
        Command::Entry(command) => block_on(command.run(invocation)),
        Command::Event(command) => block_on(command.run(invocation)),
        Command::Tenant(command) => block_on(command.run(invocation)),
        Command::Key(command) => block_on(command.run(invocation)),
        Command::Root(command) => block_on(command.run(invocation)),
        Command::Job(command) => block_on(command.run(invocation)),
        Command::Approval(command) => block_on(command.run(invocation)),
        Command::Token(command) => block_on(command.run(invocation)),
        Command::Audit(command) => block_on(command.run(invocation)),
        Command::Policy(command) => command.run(invocation),
        Command::Status(command) => block_on(command.run(invocation)),
        Command::Bench(command) => command.run(invocation),
        Command::Completion(command) => command.run(invocation),
    };
    if let Err(failure) = &outcome {
        approval::tell(failure, invocation)?;
    }
    outcome
}

/// Runs a command that makes one call or stream at a time.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    runtime.block_on(Box::pin(command))
}

/// Prints why it failed and what to do about it.
fn report(failure: &Failure) {
    if failure.is_silent() {
        return;
    }
    let text = failure.to_string();
    let mut lines = format!("error: {}\n", output::printable(&text));
    if let Some(hint) = failure.hint() {
        lines.push_str(&format!("hint: {}\n", output::printable(&hint)));
    }
    // Without standard error there is nowhere to say that it is gone; the exit code still tells.
    if std::io::stderr().write_all(lines.as_bytes()).is_err() {}
}
