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

mod audit;
mod completion;
mod entry;
mod event;
mod invocation;
mod key;
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
use failure::{Exit, Failure};
use invocation::Invocation;
use output::{Console, Format};

/// Keep and inspect the context of MCP servers in a Strongroom server
///
/// Results go to standard output, everything else to standard error. Where the server is and which token to use comes
/// from a profile: --profile FILE, else $STRONGROOM_PROFILE, else ./keys/dev/profile.toml (written by 'strongroomd dev'),
/// else ~/.config/strongroom/profile.toml.
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
    /// How long one call may take, and how long a broken stream is opened again
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = args::duration)]
    pub timeout: Duration,
    /// Do not ask before something is destroyed
    #[arg(long, global = true)]
    pub yes: bool,
    /// Print results and errors only
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Manage sessions
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Put, get and watch the entries of a session
    #[command(subcommand)]
    Entry(entry::EntryCommand),
    /// Append to and read the event streams of a session
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Manage tenants
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// List and rotate the key-encryption keys of a tenant
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Manage tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Read the access log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Show the state of the server
    Status(status::StatusArgs),
    /// Load a server and measure it, or replay recorded sessions
    Bench(Box<bench::BenchArgs>),
    /// Print a script that completes this command line in a shell
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
    match cli.command {
        Command::Session(command) => block_on(command.run(invocation)),
        Command::Entry(command) => block_on(command.run(invocation)),
        Command::Event(command) => block_on(command.run(invocation)),
        Command::Tenant(command) => block_on(command.run(invocation)),
        Command::Key(command) => block_on(command.run(invocation)),
        Command::Token(command) => block_on(command.run(invocation)),
        Command::Audit(command) => block_on(command.run(invocation)),
        Command::Status(command) => block_on(command.run(invocation)),
        Command::Bench(command) => command.run(invocation),
        Command::Completion(command) => command.run(invocation),
    }
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
