//! `strongroom root`: the root epoch keys, under which the keys of all tenants are wrapped. No key is ever shown.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::destroy::PlanArgs;
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time, optional_cell, printable, private_file, read_bounded};
use crate::client::{Admin, Root, RootEpoch, RootHealth, RootProviderCheck, RootRecipient, RootVerification};
use crate::crypto::recovery;
use crate::env::SystemEntropy;

/// Longer than any recovery key.
const KEY_FILE_BYTES: usize = 4096;
/// What the removal of a recipient does not reach.
const HORIZON: &str = "Its key still opens the root key in old copies of the store, and whoever opened it may know the root \
    key: 'strongroom root rotate' begins a new one.";

/// What can be done with the root key.
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Show the root epochs, who can unwrap them, and how the provider is
    Status,
    /// Ask the configured providers to unwrap the root key, and open the keys of every tenant
    Verify,
    /// Begin a new epoch of the root key
    ///
    /// From now on it wraps what is new. The server wraps anew what is wrapped under the old epoch, while traffic goes on, and
    /// then ends it; 'root status' shows how far it is. The new epoch is wrapped for the configured providers and for
    /// every recovery key. Old copies of the store open with the old epoch's recipients until their keys are destroyed.
    Rotate(PlanArgs),
    /// Say who can unwrap the root key
    #[command(subcommand)]
    Recipient(RecipientCommand),
    /// Wrap the root key for the next provider of the configuration, too
    ///
    /// The configuration names it in [next_root]. Without that section: for the key that the provider in use has by now.
    Migrate(PlanArgs),
    /// Make a recovery key: the private half goes into a file, the public half is printed
    ///
    /// Nothing is asked of the server: make it on a machine that is not connected to anything.
    RecoveryKey(RecoveryKeyArgs),
}

/// Who can unwrap the root key.
#[derive(Debug, Subcommand)]
pub enum RecipientCommand {
    /// Wrap the root key for one more recovery key
    Add(AddArgs),
    /// Wrap the root key no longer for a recipient
    ///
    /// Its key still opens the root key in old copies of the store.
    Remove(RemoveArgs),
}

/// Arguments of `root recipient add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The public half of the recovery key, "srp_…"
    public_key: String,
}

/// Arguments of `root recipient remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The recipient's key id, as 'root status' shows it
    key_id: String,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Arguments of `root recovery-key`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RecoveryKeyArgs {
    /// Where the private half is written; must not exist
    #[arg(long, value_name = "FILE")]
    private: Option<PathBuf>,
    /// Make nothing, but print the public half of the private one in this file
    #[arg(long, value_name = "FILE")]
    of: Option<PathBuf>,
}

impl RootCommand {
    /// Carries it out.
    ///
    /// # Errors
    /// [`Failure`] says what went wrong.
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::Status => {
                let root = invocation.admin()?.root().await.map_err(Failure::call("read the root epochs"))?;
                show(&root, invocation)
            }
            Self::Verify => verify(invocation).await,
            Self::Rotate(plan) => rotate(&plan, invocation).await,
            Self::Recipient(RecipientCommand::Add(args)) => {
                let added = invocation.admin()?.add_root_recipient(args.public_key.trim()).await;
                show(&*added.map_err(Failure::call("wrap the root key for the recovery key"))?, invocation)
            }
            Self::Recipient(RecipientCommand::Remove(args)) => remove(&args, invocation).await,
            Self::Migrate(plan) => {
                let moved = invocation.admin()?.migrate_root(plan.dry_run).await;
                let moved = moved.map_err(Failure::call("wrap the root key for the provider"))?;
                show(&moved, invocation)?;
                plan.say(&mut invocation.console)
            }
            Self::RecoveryKey(args) => recovery_key(&args, invocation),
        }
    }
}

async fn rotate(plan: &PlanArgs, invocation: &mut Invocation) -> Result<(), Failure> {
    let admin = invocation.admin()?;
    if !plan.dry_run {
        invocation.confirm("This begins a new epoch of the root key, and ends the old one.", "root")?;
    }
    let rolled = admin.rotate_root(plan.dry_run).await;
    show(&*rolled.map_err(Failure::call("begin a new root epoch"))?, invocation)?;
    plan.say(&mut invocation.console)
}

async fn remove(args: &RemoveArgs, invocation: &mut Invocation) -> Result<(), Failure> {
    let admin = invocation.admin()?;
    let failed = Failure::call("remove the recipient");
    if args.plan.dry_run {
        show(&*admin.remove_root_recipient(&args.key_id, true).await.map_err(&failed)?, invocation)?;
        return args.plan.say(&mut invocation.console);
    }
    let shown = printable(&args.key_id);
    invocation.confirm(&format!("{shown} will not unwrap the root key any more. {HORIZON}"), &args.key_id)?;
    show(&*admin.remove_root_recipient(&args.key_id, false).await.map_err(&failed)?, invocation)?;
    invocation.console.say(HORIZON)
}

async fn verify(invocation: &mut Invocation) -> Result<(), Failure> {
    let admin: Admin = invocation.admin()?;
    let RootVerification { providers, rows_opened, rows_damaged } =
        admin.verify_root().await.map_err(Failure::call("verify the root key"))?.into_inner();
    let mut listing = invocation.console.listing();
    for provider in &providers {
        listing.push(&CheckRecord::from(provider))?;
    }
    listing.finish()?;
    invocation
        .console
        .say(format_args!("{rows_opened} rows with wrapped keys open, {rows_damaged} do not."))?;
    match (rows_damaged, providers.iter().any(|provider| provider.opens)) {
        (0, true) => Ok(()),
        (0, false) => Err(Failure::RootUnopened),
        (damaged, _) => Err(Failure::RootDamaged { damaged }),
    }
}

fn recovery_key(args: &RecoveryKeyArgs, invocation: &mut Invocation) -> Result<(), Failure> {
    let public = match (&args.private, &args.of) {
        (Some(path), _) => make(path)?,
        (None, Some(path)) => public_half(path)?,
        (None, None) => return Ok(()),
    };
    invocation.console.raw(format!("{public}\n").as_bytes())
}

fn make(path: &Path) -> Result<String, Failure> {
    let failed = Failure::file(path, "write");
    let key = recovery::generate(&SystemEntropy::new()).map_err(|_| Failure::NoEntropy)?;
    let mut file = private_file(path, true).map_err(&failed)?;
    file.write_all(recovery::write_private(&key).as_bytes()).map_err(&failed)?;
    file.write_all(b"\n").map_err(&failed)?;
    file.sync_all().map_err(&failed)?;
    Ok(recovery::write_public(&key.public()))
}

fn public_half(path: &Path) -> Result<String, Failure> {
    let failed = Failure::file(path, "read");
    let mut file = std::fs::File::open(path).map_err(&failed)?;
    let text = Zeroizing::new(read_bounded(&mut file, KEY_FILE_BYTES).map_err(&failed)?);
    let text = std::str::from_utf8(&text).map_err(|_| Failure::NoRecoveryKey(path.to_owned()))?;
    let key = recovery::read_private(text).map_err(|_| Failure::NoRecoveryKey(path.to_owned()))?;
    Ok(recovery::write_public(&key.public()))
}

fn show(root: &Root, invocation: &mut Invocation) -> Result<(), Failure> {
    let mut listing = invocation.console.listing();
    for epoch in &root.epochs {
        for recipient in &epoch.recipients {
            listing.push(&RecipientRecord::new(root, epoch, recipient))?;
        }
    }
    listing.finish()?;
    match &root.health {
        RootHealth::Healthy => Ok(()),
        RootHealth::KeyChanged { key_id, since } => invocation.console.say(format_args!(
            "Since {} the provider wraps with {}: 'strongroom root migrate' wraps the root key for it.",
            Time(*since),
            printable(key_id)
        )),
        RootHealth::Unhealthy { since } => invocation.console.say(format_args!(
            "The provider does not answer since {}: after three minutes no new keys are made.",
            Time(*since)
        )),
    }
}

/// A recipient of an epoch, as it is printed.
#[derive(Serialize)]
struct RecipientRecord {
    epoch: u32,
    state: &'static str,
    rows: u64,
    provider: &'static str,
    key_id: String,
    added: Time,
    removed: Option<Time>,
}

impl RecipientRecord {
    fn new(root: &Root, epoch: &RootEpoch, recipient: &RootRecipient) -> Self {
        let state = match epoch.end_time {
            Some(_) => "ended",
            None if epoch.number == root.epoch => "newest",
            None => "rewrapping",
        };
        Self {
            epoch: epoch.number,
            state,
            rows: epoch.rows,
            provider: recipient.provider.name(),
            key_id: recipient.key_id.clone(),
            added: Time(recipient.add_time),
            removed: recipient.remove_time.map(Time),
        }
    }
}

impl Record for RecipientRecord {
    const COLUMNS: &'static [&'static str] =
        &["EPOCH", "STATE", "ROWS", "PROVIDER", "KEY ID", "ADDED", "REMOVED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.epoch.to_string(),
            self.state.to_owned(),
            self.rows.to_string(),
            self.provider.to_owned(),
            printable(&self.key_id),
            self.added.to_string(),
            optional_cell(self.removed),
        ]
    }
}

/// A provider that was asked, as it is printed.
#[derive(Serialize)]
struct CheckRecord {
    provider: &'static str,
    key_id: String,
    opens: bool,
}

impl From<&RootProviderCheck> for CheckRecord {
    fn from(check: &RootProviderCheck) -> Self {
        Self { provider: check.provider.name(), key_id: check.key_id.clone(), opens: check.opens }
    }
}

impl Record for CheckRecord {
    const COLUMNS: &'static [&'static str] = &["PROVIDER", "KEY ID", "OPENS"];

    fn cells(&self) -> Vec<String> {
        vec![self.provider.to_owned(), printable(&self.key_id), self.opens.to_string()]
    }
}
