//! `strongroom tenant`: tenants, each with keys of its own.

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::destroy::{self, HORIZON, HowArgs, PlanArgs};
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time, optional_cell};
use crate::client::{Admin, Destroy, TenantDestruction, TenantRecord, TenantState};
use crate::model::Timestamp;

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant with keys of its own
    Create(CreateArgs),
    /// List the tenants that the token may know of
    List,
    /// Show a tenant
    Describe(NamedArgs),
    /// Refuse all use of a tenant's data until it is resumed
    ///
    /// It takes effect with the next request. Nothing is lost.
    Suspend(SuspendArgs),
    /// End a suspension
    Resume(NamedArgs),
    /// Refuse all use of a suspended tenant, and destroy its keys when its grace is over
    ///
    /// All that it keeps is lost then, and there must be nothing unless --force says how many sessions that is. The server counts
    /// them first; with many sessions, give it longer with --timeout. Its access log stays, its rows are reclaimed, and its
    /// name is free. An active tenant is refused: suspend it first, so that nothing is added. The token needs the scopes
    /// tenants and keys-destroy.
    ///
    /// What it does not reach: copies of the wrapped keys in backups and in old storage segments stay openable by whoever
    /// holds the root key, until the keys of that root epoch's recipients are destroyed. Tokens that name the tenant go on
    /// naming it, and are good for the next tenant of that name: revoke them.
    Destroy(DestroyArgs),
    /// Take a destruction back while there is time
    ///
    /// The tenant is suspended then; 'tenant resume' lets its data be used again.
    Undestroy(NamedArgs),
}

/// Arguments of `tenant create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Let versions of its key be exported, now and ever after; otherwise they never leave the store
    #[arg(long)]
    exportable: bool,
}

/// Arguments of the verbs that take a tenant and nothing else.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// The tenant's name: 1 to 63 of a-z, 0-9 and '-'
    name: String,
}

/// Arguments of `tenant suspend`.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    which: NamedArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Arguments of `tenant destroy`.
#[derive(Debug, Args)]
pub struct DestroyArgs {
    #[command(flatten)]
    which: NamedArgs,
    #[command(flatten)]
    how: HowArgs,
}

impl TenantCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let admin = invocation.admin()?;
        let tenant = match self {
            Self::Create(args) => {
                let name = &args.named.name;
                let made = if args.exportable {
                    admin.create_exportable_tenant(name).await
                } else {
                    admin.create_tenant(name).await
                };
                made.map_err(Failure::call("create the tenant"))?
            }
            Self::Describe(args) => {
                admin.describe_tenant(&args.name).await.map_err(Failure::call("show the tenant"))?
            }
            Self::Suspend(args) => return suspend(&admin, &args, invocation).await,
            Self::Resume(args) => {
                admin.resume_tenant(&args.name).await.map_err(Failure::call("resume the tenant"))?
            }
            Self::Undestroy(args) => {
                let tenant = admin.undestroy_tenant(&args.name).await;
                let tenant = tenant.map_err(Failure::call("take the destruction back"))?;
                let resume = format!("strongroom tenant resume {}", args.name);
                invocation
                    .console
                    .say(format_args!("It is suspended now. Its data can be used after: {resume}"))?;
                tenant
            }
            Self::Destroy(args) => return destroy_tenant(&admin, &args, invocation).await,
            Self::List => return list(invocation).await,
        };
        invocation.console.record(&Shown::from(&*tenant))
    }
}

async fn suspend(admin: &Admin, args: &SuspendArgs, invocation: &mut Invocation) -> Result<(), Failure> {
    let name = &args.which.name;
    let tenant = if args.plan.dry_run {
        admin.describe_tenant(name).await.map_err(Failure::call("show the tenant"))?
    } else {
        invocation.confirm("This refuses all use of the tenant's data until it is resumed.", name)?;
        admin.suspend_tenant(name).await.map_err(Failure::call("suspend the tenant"))?
    };
    invocation.console.record(&Shown::from(&*tenant))?;
    args.plan.say(&mut invocation.console)
}

async fn list(invocation: &mut Invocation) -> Result<(), Failure> {
    let mut tenants = invocation.admin()?.tenants();
    let mut listing = invocation.console.listing();
    while let Some(tenant) = tenants.next().await {
        listing.push(&Shown::from(&tenant.map_err(Failure::call("list the tenants"))?))?;
    }
    listing.finish()
}

async fn destroy_tenant(
    admin: &Admin,
    args: &DestroyArgs,
    invocation: &mut Invocation,
) -> Result<(), Failure> {
    let (name, destroy) = (args.which.name.as_str(), args.how.destroy());
    if destroy.dry_run {
        let plan = destroy_once(admin, name, destroy).await?;
        let state = admin.describe_tenant(name).await.map_err(Failure::call("show the tenant"))?.state;
        invocation.console.record(&Destruction::new(&plan, state, true))?;
        return destroy::say_dry_run(&mut invocation.console, plan.sessions, destroy);
    }
    if invocation.must_ask()? {
        let plan = destroy_once(admin, name, Destroy { dry_run: true, ..destroy }).await?;
        if plan.sessions != destroy.expect_sessions {
            return Err(Failure::TenantInUse { tenant: name.to_owned(), sessions: plan.sessions });
        }
        let what = format!("the tenant {name}, with all versions of its key");
        invocation.confirm(&destroy::consequence(&what, plan.sessions, revocable(&plan)), name)?;
    }
    let done = destroy_once(admin, name, destroy).await?;
    invocation.console.record(&Destruction::new(&done, done.tenant.state, false))?;
    let undo = format!("strongroom tenant undestroy {name}");
    destroy::say_done(&mut invocation.console, revocable(&done), &undo)
}

async fn destroy_once(admin: &Admin, name: &str, destroy: Destroy) -> Result<TenantDestruction, Failure> {
    let answer = admin.destroy_tenant(name, destroy).await;
    Ok(answer.map_err(Failure::call("destroy the tenant"))?.into_inner())
}

/// Until when it can be taken back, if it can.
fn revocable(done: &TenantDestruction) -> Option<Timestamp> {
    done.tenant.destroy_time.filter(|_| done.tenant.state == TenantState::DestroyScheduled)
}

/// What a destruction does, or would do, as it is printed.
#[derive(Serialize)]
struct Destruction {
    tenant: String,
    uid: String,
    /// As it is now, in a dry run too.
    state: &'static str,
    sessions: u64,
    irrevocable: Option<Time>,
    dry_run: bool,
    horizon: &'static str,
}

impl Destruction {
    fn new(done: &TenantDestruction, state: TenantState, dry_run: bool) -> Self {
        Self {
            tenant: done.tenant.name.clone(),
            uid: done.tenant.uid.clone(),
            state: state.name(),
            sessions: done.sessions,
            irrevocable: done.tenant.destroy_time.map(Time),
            dry_run,
            horizon: HORIZON,
        }
    }
}

impl Record for Destruction {
    const COLUMNS: &'static [&'static str] =
        &["TENANT", "UID", "STATE", "SESSIONS LOST", "IRREVOCABLE FROM", "NOT REACHED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.tenant.clone(),
            self.uid.clone(),
            self.state.to_owned(),
            self.sessions.to_string(),
            optional_cell(self.irrevocable),
            self.horizon.to_owned(),
        ]
    }
}

/// A tenant as it is printed.
#[derive(Serialize)]
struct Shown {
    tenant: String,
    uid: String,
    state: &'static str,
    created: Time,
    primary_key_version: u32,
    audit_log: String,
    /// When it will be destroyed, or was.
    destruction: Option<Time>,
    exportable: bool,
}

impl From<&TenantRecord> for Shown {
    fn from(tenant: &TenantRecord) -> Self {
        Self {
            tenant: tenant.name.clone(),
            uid: tenant.uid.clone(),
            state: tenant.state.name(),
            created: Time(tenant.create_time),
            primary_key_version: tenant.primary_kek_version,
            audit_log: tenant.audit_log.clone(),
            destruction: tenant.destroy_time.map(Time),
            exportable: tenant.exportable,
        }
    }
}

impl Record for Shown {
    const COLUMNS: &'static [&'static str] =
        &["TENANT", "STATE", "KEY VERSION", "EXPORTABLE", "CREATED", "DESTRUCTION", "UID", "AUDIT LOG"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.tenant.clone(),
            self.state.to_owned(),
            self.primary_key_version.to_string(),
            if self.exportable { "yes" } else { "no" }.to_owned(),
            self.created.to_string(),
            optional_cell(self.destruction),
            self.uid.clone(),
            self.audit_log.clone(),
        ]
    }
}
