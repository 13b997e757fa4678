//! What the verbs share that destroy keys: what they take, and what they say before and after.

use std::time::Duration;

use clap::Args;

use super::args;
use super::failure::Failure;
use super::output::{Console, Time};
use crate::client::Destroy;
use crate::model::Timestamp;

const UNCHANGED: &str = "Nothing was changed: this was a dry run.";

/// What the destruction of a key does not reach.
pub const HORIZON: &str = "copies of the wrapped key in backups and in old storage segments stay openable by whoever holds \
    the root key, until the keys of that root epoch's recipients are destroyed";

/// Arguments of verbs that can be tried.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Change nothing, but say what would be changed
    #[arg(long)]
    pub dry_run: bool,
}

impl PlanArgs {
    /// Says, after a dry run, that it was one.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn say(&self, console: &mut Console) -> Result<(), Failure> {
        if self.dry_run { console.say(UNCHANGED) } else { Ok(()) }
    }
}

/// How something is to be destroyed.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// How long it can be taken back: 24h to 90d; 7d if not given
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    grace: Option<Duration>,
    /// Destroy it at once, which nothing takes back; needs the scope keys-destroy-now as well
    #[arg(long, conflicts_with = "grace")]
    no_grace: bool,
    /// Destroy it although sessions are lost with it
    #[arg(long, requires = "sessions")]
    force: bool,
    /// The number of sessions that may be lost; nothing is done when another one is found
    #[arg(long, value_name = "N", requires = "force")]
    sessions: Option<u64>,
    /// Change nothing, but say what would be lost
    #[arg(long)]
    dry_run: bool,
}

impl HowArgs {
    /// The same for the server.
    pub fn destroy(&self) -> Destroy {
        Destroy {
            grace: if self.no_grace { Some(Duration::ZERO) } else { self.grace },
            expect_sessions: self.sessions.unwrap_or_default(),
            dry_run: self.dry_run,
        }
    }
}

/// A number of sessions in words.
pub fn counted(sessions: u64) -> String {
    match sessions {
        0 => "no session".to_owned(),
        1 => "1 session".to_owned(),
        _ => format!("{sessions} sessions"),
    }
}

/// What somebody is asked before `what` is destroyed, at once or at a time.
pub fn consequence(what: &str, sessions: u64, at: Option<Timestamp>) -> String {
    let lost = match sessions {
        0 => "No session is lost with it.".to_owned(),
        sessions => format!("With it {} will be lost, with all that is kept there.", counted(sessions)),
    };
    let when = match at {
        Some(at) => {
            format!("At once nobody can use it, and from {} on nothing takes that back.", Time(at))
        }
        None => "It is gone at once, and nothing takes that back.".to_owned(),
    };
    format!("This destroys {what}. {lost}\n{when}\nWhat it does not reach: {HORIZON}.")
}

/// Says what a dry run found, and whether it would have gone ahead.
///
/// # Errors
/// [`Failure::Output`].
pub fn say_dry_run(console: &mut Console, sessions: u64, destroy: Destroy) -> Result<(), Failure> {
    console.say(UNCHANGED)?;
    if sessions == destroy.expect_sessions {
        return Ok(());
    }
    let needed = match sessions {
        0 => "without --force and --sessions".to_owned(),
        sessions => format!("with --force --sessions {sessions}"),
    };
    console.say(format_args!("As it stands it would be refused; it goes ahead {needed}."))
}

/// Says until when a destruction can be taken back, and with which command.
///
/// # Errors
/// [`Failure::Output`].
pub fn say_done(console: &mut Console, at: Option<Timestamp>, undo: &str) -> Result<(), Failure> {
    match at {
        Some(at) => console.say(format_args!("It can be taken back until {}: {undo}", Time(at))),
        None => console.say("It is destroyed. Nothing takes that back."),
    }
}
