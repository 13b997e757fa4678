//! `strongroom session`: contexts with an owner and a lifetime.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::args;
use super::destroy::PlanArgs;
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time, label_cell, optional_cell};
use crate::client::{CreateSession, Owner, Revision, Session};

/// What can be done with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Create a session and print its handle
    ///
    /// With --owner it belongs to that user, and only calls that name the same owner find it.
    Create(CreateArgs),
    /// Show a session
    Get(NamedArgs),
    /// Change the lifetime or the labels of a session
    ///
    /// What is not named stays as it is.
    Update(UpdateArgs),
    /// List the live sessions of the tenant, in no particular order
    ///
    /// With --owner only the sessions of that user.
    List(ListArgs),
    /// Erase a session for ever
    ///
    /// Its keys are dropped in the same commit, so what it held cannot be opened again, not even from a backup of the files.
    Delete(LossArgs),
    /// Drop the key of the sensitive part of a session that stays active
    ///
    /// Full views end for ever, redacted ones go on. Needs the scope purge.
    Purge(LossArgs),
    /// Make new keys for a session and seal everything in it under them
    ///
    /// For keys that may have leaked: they open nothing that is stored from then on. Nothing else changes, not even the ids
    /// of events. Copies of rows in old storage segments and in backups stay as they were. Needs the scope keys; the owner
    /// need not be named. Prints session and finished: when that is false, the server goes on by itself.
    RotateKey(NamedArgs),
}

/// Arguments of `session create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Handle to use, instead of one that the server mints
    ///
    /// 1 to 128 visible ASCII characters. Choose one that is hard to guess if it leaves your hands.
    #[arg(long, value_name = "HANDLE")]
    id: Option<String>,
    /// How long it lives at the most: 1s to 400d; 24h if not given
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// How long it may be left unused: 1s to 400d
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    idle_ttl: Option<Duration>,
    /// Label (can be repeated)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = args::label)]
    labels: Vec<(String, String)>,
}

/// Arguments of the verbs that take a session and nothing else.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// The session's handle
    session: String,
}

/// Arguments of the verbs that take something from a session for ever.
#[derive(Debug, Args)]
pub struct LossArgs {
    #[command(flatten)]
    which: NamedArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Arguments of `session update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The session's handle
    session: String,
    /// New absolute lifetime, counted from now: 1s to 400d
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// New idle lifetime, counted from now: 1s to 400d; 0s removes it
    #[arg(long, value_name = "DURATION", value_parser = args::duration_or_zero)]
    idle_ttl: Option<Duration>,
    /// Label; all labels are replaced (can be repeated)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = args::label)]
    labels: Vec<(String, String)>,
    /// Remove all labels
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Only if the metadata still has this revision
    #[arg(long, value_name = "REVISION", value_parser = args::revision)]
    expect: Option<Revision>,
}

/// Arguments of `session list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl SessionCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::Create(args) => args.run(invocation).await,
            Self::Get(args) => get(&args.session, invocation).await,
            Self::Update(args) => args.run(invocation).await,
            Self::List(args) => args.run(invocation).await,
            Self::Delete(args) if args.plan.dry_run => args.say(invocation).await,
            Self::Purge(args) if args.plan.dry_run => args.say(invocation).await,
            Self::Delete(args) => delete(&args.which.session, invocation).await,
            Self::Purge(args) => purge(&args.which.session, invocation).await,
            Self::RotateKey(args) => rotate_key(&args.session, invocation).await,
        }
    }
}

impl CreateArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let wanted = CreateSession {
            owner: invocation.owner(),
            ttl: self.ttl,
            idle_ttl: self.idle_ttl,
            labels: labels(self.labels)?,
            session_id: self.id,
            request_id: None,
        };
        let created = invocation.tenant()?.create_session(wanted).await;
        let handle = created.map_err(Failure::call("create the session"))?;
        let session = handle.opened().ok_or(Failure::Malformed("session"))?;
        invocation.console.record(&SessionRecord::from(session))
    }
}

impl UpdateArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let relabelled = self.no_labels || !self.labels.is_empty();
        if self.ttl.is_none() && self.idle_ttl.is_none() && !relabelled {
            return Err(Failure::Combination(
                "nothing to change: give --ttl, --idle-ttl, --label or --no-labels",
            ));
        }
        let mut update = invocation.session(&self.session)?.update();
        if let Some(ttl) = self.ttl {
            update = update.ttl(ttl);
        }
        if let Some(ttl) = self.idle_ttl {
            update = update.idle_ttl(ttl);
        }
        if relabelled {
            update = update.labels(labels(self.labels)?);
        }
        if let Some(revision) = self.expect {
            update = update.expect_revision(revision);
        }
        let session = update.await.map_err(Failure::call("update the session"))?;
        invocation.console.record(&SessionRecord::from(&*session))
    }
}

impl ListArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let owner = invocation.owner();
        let sessions = invocation.tenant()?.sessions(owner.as_ref());
        let mut sessions = sessions.take(self.limit.unwrap_or(usize::MAX));
        let mut listing = invocation.console.listing();
        while let Some(session) = sessions.next().await {
            listing.push(&SessionRecord::from(&session.map_err(Failure::call("list the sessions"))?))?;
        }
        listing.finish()
    }
}

impl LossArgs {
    /// Says what would be lost.
    async fn say(&self, invocation: &mut Invocation) -> Result<(), Failure> {
        let handle = &self.which.session;
        let session = invocation.session(handle)?;
        let described = session.describe().await.map_err(Failure::call("show the session"))?;
        let (mut entries, mut count) = (session.entries(), 0);
        while let Some(entry) = entries.next().await {
            entry.map_err(Failure::call("list the entries"))?;
            count += 1;
        }
        invocation.console.record(&LossRecord {
            session: handle.clone(),
            owner: described.owner.as_ref().map(OwnerRecord::from),
            expires: Time(described.expire_time),
            entries: count,
            sensitive_purged: described.sensitive_purged,
        })?;
        self.plan.say(&mut invocation.console)
    }
}

async fn get(handle: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let session = invocation.session(handle)?.describe().await.map_err(Failure::call("show the session"))?;
    invocation.console.record(&SessionRecord::from(&*session))
}

async fn delete(handle: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let session = invocation.session(handle)?;
    invocation.confirm("This erases the session and everything in it, for ever.", handle)?;
    session.delete_session().await.map_err(Failure::call("delete the session"))?;
    invocation.console.say(format_args!("Deleted the session {handle}"))
}

async fn purge(handle: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let session = invocation.session(handle)?;
    invocation.confirm("This ends all full views of the session's values, for ever.", handle)?;
    let session = session.purge_sensitive().await.map_err(Failure::call("purge the session"))?;
    invocation.console.record(&SessionRecord::from(&*session))
}

async fn rotate_key(handle: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let tenant = invocation.tenant_name(&invocation.profile()?)?;
    let rotated = invocation.admin()?.rotate_session_key(tenant.as_str(), handle).await;
    let finished = *rotated.map_err(Failure::call("rotate the session's keys"))?;
    invocation.console.record(&RotatedRecord { session: handle.to_owned(), finished })
}

/// Checks labels and puts them in order.
pub(super) fn labels(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let labels = args::labels(pairs).map_err(Failure::name("labels"))?;
    Ok(labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// A session that got new keys, as it is printed.
#[derive(Serialize)]
struct RotatedRecord {
    session: String,
    finished: bool,
}

impl Record for RotatedRecord {
    const COLUMNS: &'static [&'static str] = &["SESSION", "FINISHED"];

    fn cells(&self) -> Vec<String> {
        vec![self.session.clone(), if self.finished { "yes" } else { "no" }.to_owned()]
    }
}

/// What would be lost with a session, beside its events, as it is printed.
#[derive(Serialize)]
struct LossRecord {
    session: String,
    owner: Option<OwnerRecord>,
    expires: Time,
    entries: u64,
    sensitive_purged: bool,
}

impl Record for LossRecord {
    const COLUMNS: &'static [&'static str] = &["SESSION", "OWNER", "EXPIRES", "ENTRIES", "SENSITIVE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.session.clone(),
            optional_cell(self.owner.as_ref()),
            self.expires.to_string(),
            self.entries.to_string(),
            sensitive_cell(self.sensitive_purged),
        ]
    }
}

/// A session as it is printed.
#[derive(Serialize)]
struct SessionRecord {
    session: String,
    owner: Option<OwnerRecord>,
    created: Time,
    expires: Time,
    expires_at_latest: Time,
    idle_ttl_ms: Option<u64>,
    labels: BTreeMap<String, String>,
    revision: u64,
    sensitive_purged: bool,
}

#[derive(Serialize)]
struct OwnerRecord {
    issuer: String,
    client: String,
    subject: String,
}

impl From<&Session> for SessionRecord {
    fn from(session: &Session) -> Self {
        Self {
            session: session.id.clone(),
            owner: session.owner.as_ref().map(OwnerRecord::from),
            created: Time(session.create_time),
            expires: Time(session.expire_time),
            expires_at_latest: Time(session.absolute_expire_time),
            idle_ttl_ms: session.idle_ttl.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            labels: session.labels.clone(),
            revision: session.revision.get(),
            sensitive_purged: session.sensitive_purged,
        }
    }
}

impl From<&Owner> for OwnerRecord {
    fn from(owner: &Owner) -> Self {
        Self {
            issuer: owner.issuer().to_owned(),
            client: owner.client_id().to_owned(),
            subject: owner.subject().to_owned(),
        }
    }
}

impl std::fmt::Display for OwnerRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.issuer.is_empty() && self.client.is_empty() {
            return f.write_str(&self.subject);
        }
        write!(f, "{},{},{}", self.issuer, self.client, self.subject)
    }
}

impl Record for SessionRecord {
    const COLUMNS: &'static [&'static str] = &[
        "SESSION",
        "OWNER",
        "CREATED",
        "EXPIRES",
        "EXPIRES AT LATEST",
        "IDLE TTL",
        "REVISION",
        "SENSITIVE",
        "LABELS",
    ];

    fn cells(&self) -> Vec<String> {
        let idle = self.idle_ttl_ms.map(|ms| humantime::format_duration(Duration::from_millis(ms)));
        vec![
            self.session.clone(),
            optional_cell(self.owner.as_ref()),
            self.created.to_string(),
            self.expires.to_string(),
            self.expires_at_latest.to_string(),
            optional_cell(idle),
            self.revision.to_string(),
            sensitive_cell(self.sensitive_purged),
            label_cell(self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
        ]
    }
}

fn sensitive_cell(purged: bool) -> String {
    if purged { "purged" } else { "kept" }.to_owned()
}
