//! `strongroom tenant`: tenants, each with keys of its own.

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time};
use crate::client::{TenantRecord, TenantState};

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
    Suspend(NamedArgs),
    /// End a suspension
    Resume(NamedArgs),
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
            Self::Suspend(args) => {
                invocation
                    .confirm("This refuses all use of the tenant's data until it is resumed.", &args.name)?;
                admin.suspend_tenant(&args.name).await.map_err(Failure::call("suspend the tenant"))?
            }
            Self::Resume(args) => {
                admin.resume_tenant(&args.name).await.map_err(Failure::call("resume the tenant"))?
            }
            Self::List => return list(invocation).await,
        };
        invocation.console.record(&Shown::from(&*tenant))
    }
}

async fn list(invocation: &mut Invocation) -> Result<(), Failure> {
    let mut tenants = invocation.admin()?.tenants();
    let mut listing = invocation.console.listing();
    while let Some(tenant) = tenants.next().await {
        listing.push(&Shown::from(&tenant.map_err(Failure::call("list the tenants"))?))?;
    }
    listing.finish()
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
    exportable: bool,
}

impl From<&TenantRecord> for Shown {
    fn from(tenant: &TenantRecord) -> Self {
        let state = match tenant.state {
            TenantState::Active => "active",
            TenantState::Suspended => "suspended",
        };
        Self {
            tenant: tenant.name.clone(),
            uid: tenant.uid.clone(),
            state,
            created: Time(tenant.create_time),
            primary_key_version: tenant.primary_kek_version,
            audit_log: tenant.audit_log.clone(),
            exportable: tenant.exportable,
        }
    }
}

impl Record for Shown {
    const COLUMNS: &'static [&'static str] =
        &["TENANT", "STATE", "KEY VERSION", "EXPORTABLE", "CREATED", "UID", "AUDIT LOG"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.tenant.clone(),
            self.state.to_owned(),
            self.primary_key_version.to_string(),
            if self.exportable { "yes" } else { "no" }.to_owned(),
            self.created.to_string(),
            self.uid.clone(),
            self.audit_log.clone(),
        ]
    }
}
