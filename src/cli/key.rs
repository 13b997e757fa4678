//! `strongroom key`: the versions of a tenant's key-encryption key. The key itself is never shown.
//!
//! What destroys says before what will be lost and until when that can be taken back, and asks for the version's name.

mod custody;
mod record;

use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::args;
use super::destroy::{self, HORIZON, HowArgs, counted};
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time, optional_cell};
use crate::client::{Admin, ClientError, Destroy, ErrorReason, Kek, KekDestruction, KekState, KekUse};
use record::KeyRecord;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the versions of the tenant's key, oldest first
    List,
    /// Show a version
    Describe(VersionArgs),
    /// Make a new primary version
    ///
    /// From now on it wraps what is new. Older versions go on opening what they wrapped.
    Rotate(RotateArgs),
    /// Have new primary versions made by themselves, or not any more
    ///
    /// The period is counted from the last rotation, whoever made it. Rewrapping stays a job of its own.
    AutoRotate(AutoRotateArgs),
    /// Make a pending or enabled version the primary
    ///
    /// From now on it wraps what is new. What was the primary is enabled: it goes on opening what it wrapped.
    Promote(VersionArgs),
    /// Let a disabled version open again what it wrapped
    Enable(VersionArgs),
    /// Refuse all use of what a version wrapped until it is enabled
    ///
    /// It takes effect with the next request. Nothing is lost. The primary is refused: promote another version first.
    Disable(DisableArgs),
    /// Count the sessions that each version wraps
    ///
    /// The server walks through all sessions of the tenant; with many of them that takes a while, and --timeout says how long it may.
    Census,
    /// Refuse all use of a version, and destroy it when its grace is over
    ///
    /// The sessions that it wraps are lost then, with everything in them, and there must be none unless --force says how many.
    /// The server counts them first, which takes a while with many sessions in the tenant. The primary is
    /// refused: promote another version first. The token needs the scope keys-destroy. Where the installation asks for a second
    /// person, the command fails and says what must be approved; run again after that, it goes ahead.
    ///
    /// What it does not reach: copies of the wrapped key in backups and in old storage segments stay openable by whoever
    /// holds the root key, until the keys of that root epoch's recipients are destroyed.
    Destroy(DestroyArgs),
    /// Print the receipt of a destruction, which is done or scheduled
    ///
    /// A C2SP signed note: when the version was destroyed or will be, and whose keys still open copies of the store from
    /// before. 'strongroom status' shows the key with which anyone can verify it.
    Receipt(VersionArgs),
    /// Make a public key for which key material can be wrapped elsewhere, to be imported
    ///
    /// It is for one import and for 3 days. What wraps for it does HPKE (RFC 9180): base mode, single-shot, DHKEM(X25519,
    /// HKDF-SHA256), HKDF-SHA256, AES-256-GCM, no associated data, with 'info' as it is printed. Wrapped material is the
    /// encapsulated key (32 bytes) and the ciphertext with its tag (48 bytes). The token needs the scope keys-import.
    WrappingKey,
    /// Make a version of your own key material
    ///
    /// The material is wrapped here and never leaves this machine in the clear. From then on the version is like any other.
    /// Whoever keeps a copy of the material can still open what it wraps when the version is destroyed. The token needs the
    /// scope keys-import.
    Import(custody::ImportArgs),
    /// Write a version to a file, wrapped for a public key
    ///
    /// Only for tenants that were created with --exportable. The version is marked as exported for ever, and the access log
    /// says for which public key. It is wrapped as 'key wrapping-key' says; 'info' stands in the file. The token needs the
    /// scope keys-export.
    Export(custody::ExportArgs),
    /// Take a destruction back while there is time
    ///
    /// The version is disabled then; 'key enable' lets it open again what it wrapped.
    CancelDestroy(VersionArgs),
}

/// Arguments of the verbs that take a version and nothing else.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// The version, as 'key list' shows it
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
}

/// Arguments of `key rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Only make the version, and leave it pending until 'key promote'
    #[arg(long)]
    pending: bool,
}

/// Arguments of `key auto-rotate`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct AutoRotateArgs {
    /// How often: 24h to 3650d
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    every: Option<Duration>,
    /// Not any more
    #[arg(long)]
    off: bool,
}

/// Arguments of `key disable`.
#[derive(Debug, Args)]
pub struct DisableArgs {
    #[command(flatten)]
    which: VersionArgs,
    /// Change nothing, but count the sessions that would become unreadable
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `key destroy`.
#[derive(Debug, Args)]
pub struct DestroyArgs {
    #[command(flatten)]
    which: VersionArgs,
    #[command(flatten)]
    how: HowArgs,
}

impl KeyCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let keys = Keys::new(invocation)?;
        let key = match self {
            Self::List => return keys.list(invocation).await,
            Self::Census => return keys.census(invocation).await,
            Self::AutoRotate(args) => return keys.auto_rotate(args.every, invocation).await,
            Self::WrappingKey => return keys.wrapping_key(invocation).await,
            Self::Export(args) => return keys.export(args, invocation).await,
            Self::Import(args) => keys.import(args, invocation).await?,
            Self::Destroy(args) => return keys.destroy(&args, invocation).await,
            Self::Disable(args) if args.dry_run => {
                return keys.disabling(args.which.version, invocation).await;
            }
            Self::Disable(args) => keys.disable(args.which.version).await?,
            Self::Describe(args) => keys.describe(args.version).await?,
            Self::Rotate(args) => keys.rotate(args.pending).await?,
            Self::Receipt(args) => return keys.receipt(args.version, invocation).await,
            Self::Promote(args) => keys.promote(args.version).await?,
            Self::Enable(args) => keys.enable(args.version).await?,
            Self::CancelDestroy(args) => keys.cancel(args.version, invocation).await?,
        };
        invocation.console.record(&KeyRecord::from(&key))
    }
}

/// When a key is rotated by itself, as it is printed.
#[derive(Serialize)]
struct RotationRecord {
    tenant: String,
    period_seconds: Option<u64>,
    next: Option<Time>,
}

impl Record for RotationRecord {
    const COLUMNS: &'static [&'static str] = &["TENANT", "ROTATED EVERY", "NEXT"];

    fn cells(&self) -> Vec<String> {
        let period =
            self.period_seconds.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
        let never = || "never".to_owned();
        vec![
            self.tenant.clone(),
            period.map_or_else(never, |period| period.to_string()),
            self.next.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        ]
    }
}

/// The key of one tenant.
struct Keys {
    admin: Admin,
    /// For what the server walks through all sessions for.
    patient: Admin,
    tenant: String,
}

impl Keys {
    fn new(invocation: &Invocation) -> Result<Self, Failure> {
        let tenant = invocation.tenant_name(&invocation.profile()?)?.into_string();
        Ok(Self { admin: invocation.admin()?, patient: invocation.patient_admin()?, tenant })
    }

    async fn list(&self, invocation: &mut Invocation) -> Result<(), Failure> {
        let mut keys = self.admin.keks(&self.tenant);
        let mut listing = invocation.console.listing();
        while let Some(key) = keys.next().await {
            listing.push(&KeyRecord::from(&key.map_err(Failure::call("list the keys"))?))?;
        }
        listing.finish()
    }

    async fn census(&self, invocation: &mut Invocation) -> Result<(), Failure> {
        let uses = self.uses().await?;
        let mut listing = invocation.console.listing();
        for found in uses {
            listing.push(&UseRecord { version: found.version, sessions: found.sessions })?;
        }
        listing.finish()
    }

    async fn uses(&self) -> Result<Vec<KekUse>, Failure> {
        let uses = self.patient.count_kek_use(&self.tenant).await;
        Ok(uses.map_err(Failure::call("count the sessions"))?.into_inner())
    }

    async fn describe(&self, version: u32) -> Result<Kek, Failure> {
        let key = self.admin.kek(&self.tenant, version).await;
        Ok(key.map_err(Failure::call("show the version"))?.into_inner())
    }

    async fn receipt(&self, version: u32, invocation: &mut Invocation) -> Result<(), Failure> {
        let receipt = self.admin.kek_receipt(&self.tenant, version).await;
        match receipt.map_err(Failure::call("read the receipt"))?.into_inner() {
            Some(receipt) => invocation.console.raw(receipt.as_bytes()),
            None => Err(Failure::NoReceipt { version }),
        }
    }

    async fn rotate(&self, pending: bool) -> Result<Kek, Failure> {
        let made = if pending {
            self.admin.prepare_kek(&self.tenant).await
        } else {
            self.admin.rotate_kek(&self.tenant).await
        };
        Ok(made.map_err(Failure::call("rotate the key"))?.into_inner())
    }

    async fn auto_rotate(&self, every: Option<Duration>, invocation: &mut Invocation) -> Result<(), Failure> {
        let tenant = self.admin.set_kek_rotation(&self.tenant, every).await;
        let tenant = tenant.map_err(Failure::call("change the rotation of the key"))?;
        let rotation = tenant.rotation;
        invocation.console.record(&RotationRecord {
            tenant: tenant.name.clone(),
            period_seconds: rotation.map(|rotation| rotation.period.as_secs()),
            next: rotation.map(|rotation| Time(rotation.next)),
        })
    }

    async fn promote(&self, version: u32) -> Result<Kek, Failure> {
        let key = self.admin.promote_kek(&self.tenant, version).await;
        Ok(key.map_err(Failure::call("promote the version"))?.into_inner())
    }

    async fn enable(&self, version: u32) -> Result<Kek, Failure> {
        let key = self.admin.enable_kek(&self.tenant, version).await;
        Ok(key.map_err(Failure::call("enable the version"))?.into_inner())
    }

    async fn disable(&self, version: u32) -> Result<Kek, Failure> {
        let key = self.admin.disable_kek(&self.tenant, version).await;
        Ok(key.map_err(Failure::call("disable the version"))?.into_inner())
    }

    /// Says what a disabling would do.
    async fn disabling(&self, version: u32, invocation: &mut Invocation) -> Result<(), Failure> {
        let state = self.describe(version).await?.state;
        let uses = self.uses().await?;
        let sessions = uses.iter().find(|found| found.version == version).map_or(0, |found| found.sessions);
        invocation.console.record(&DisablingRecord { version, state: state.name(), sessions })?;
        let effect = match state {
            KekState::Pending | KekState::Enabled => {
                format!("{} would become unreadable until it is enabled again", counted(sessions))
            }
            KekState::Disabled => "it is disabled already".to_owned(),
            KekState::Primary | KekState::DestroyScheduled | KekState::Destroyed => {
                format!("it would be refused, because the version is {}", state.name())
            }
        };
        invocation.console.say(format_args!("Nothing was changed: {effect}."))
    }

    async fn cancel(&self, version: u32, invocation: &mut Invocation) -> Result<Kek, Failure> {
        let key = self.admin.cancel_kek_destruction(&self.tenant, version).await;
        let key = key.map_err(Failure::call("take the destruction back"))?.into_inner();
        invocation.console.say(format_args!(
            "It is disabled now. It opens again what it wrapped after: {}",
            self.command("enable", version)
        ))?;
        Ok(key)
    }

    async fn destroy(&self, args: &DestroyArgs, invocation: &mut Invocation) -> Result<(), Failure> {
        let version = args.which.version;
        let destroy = args.how.destroy();
        if destroy.dry_run {
            return self.destroying(version, destroy, invocation).await;
        }
        self.confirm_destruction(version, destroy, invocation).await?;
        let done = self.destroy_once(version, destroy).await?;
        invocation.console.record(&self.destruction(&done, Some(done.kek.state), false))?;
        let undo = self.command("cancel-destroy", version);
        destroy::say_done(&mut invocation.console, done.kek.destroy_time, &undo)
    }

    async fn destroy_once(&self, version: u32, destroy: Destroy) -> Result<KekDestruction, Failure> {
        let answer = self.patient.destroy_kek(&self.tenant, version, destroy).await;
        Ok(answer.map_err(Failure::call("destroy the version"))?.into_inner())
    }

    /// Says what a destruction would do.
    async fn destroying(
        &self,
        version: u32,
        destroy: Destroy,
        invocation: &mut Invocation,
    ) -> Result<(), Failure> {
        let plan = self.destroy_once(version, destroy).await?;
        let state = self.visible_state(version).await?;
        invocation.console.record(&self.destruction(&plan, state, true))?;
        destroy::say_dry_run(&mut invocation.console, plan.sessions, destroy)
    }

    /// The version's state, if the token may know it: destroying and looking are two scopes.
    async fn visible_state(&self, version: u32) -> Result<Option<KekState>, Failure> {
        let hidden = |error: &ClientError| error.reason() == ErrorReason::PermissionDenied;
        match self.admin.kek(&self.tenant, version).await {
            Ok(key) => Ok(Some(key.state)),
            Err(error) if hidden(&error) => Ok(None),
            Err(error) => Err(Failure::call("show the version")(error)),
        }
    }

    /// Finds out what would be lost, and asks whether it may be.
    async fn confirm_destruction(
        &self,
        version: u32,
        destroy: Destroy,
        invocation: &mut Invocation,
    ) -> Result<(), Failure> {
        if !invocation.must_ask()? {
            return Ok(());
        }
        let plan = self.destroy_once(version, Destroy { dry_run: true, ..destroy }).await?;
        if plan.sessions != destroy.expect_sessions {
            return Err(Failure::KeyInUse { version, sessions: plan.sessions });
        }
        let what = format!("version {version} of the key of the tenant {}", self.tenant);
        let consequence = destroy::consequence(&what, plan.sessions, plan.kek.destroy_time);
        invocation.confirm(&consequence, &format!("{}/{version}", self.tenant))
    }

    fn command(&self, verb: &str, version: u32) -> String {
        format!("strongroom key {verb} {version} --tenant {}", self.tenant)
    }

    fn destruction(
        &self,
        done: &KekDestruction,
        state: Option<KekState>,
        dry_run: bool,
    ) -> DestructionRecord {
        DestructionRecord {
            tenant: self.tenant.clone(),
            version: done.kek.version,
            state: state.map(KekState::name),
            sessions: done.sessions,
            irrevocable: Time(done.kek.destroy_time.unwrap_or(done.kek.state_time)),
            dry_run,
            horizon: HORIZON,
        }
    }
}

/// What a version wraps, as it is printed.
#[derive(Serialize)]
struct UseRecord {
    version: u32,
    sessions: u64,
}

impl Record for UseRecord {
    const COLUMNS: &'static [&'static str] = &["VERSION", "SESSIONS"];

    fn cells(&self) -> Vec<String> {
        vec![self.version.to_string(), self.sessions.to_string()]
    }
}

/// What a disabling would do, as it is printed.
#[derive(Serialize)]
struct DisablingRecord {
    version: u32,
    state: &'static str,
    sessions: u64,
}

impl Record for DisablingRecord {
    const COLUMNS: &'static [&'static str] = &["VERSION", "STATE", "SESSIONS"];

    fn cells(&self) -> Vec<String> {
        vec![self.version.to_string(), self.state.to_owned(), self.sessions.to_string()]
    }
}

/// What a destruction does, or would do, as it is printed.
#[derive(Serialize)]
struct DestructionRecord {
    tenant: String,
    version: u32,
    /// As it is now, in a dry run too.
    state: Option<&'static str>,
    sessions: u64,
    irrevocable: Time,
    dry_run: bool,
    horizon: &'static str,
}

impl Record for DestructionRecord {
    const COLUMNS: &'static [&'static str] =
        &["TENANT", "VERSION", "STATE", "SESSIONS LOST", "IRREVOCABLE FROM", "NOT REACHED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.tenant.clone(),
            self.version.to_string(),
            optional_cell(self.state),
            self.sessions.to_string(),
            self.irrevocable.to_string(),
            self.horizon.to_owned(),
        ]
    }
}
