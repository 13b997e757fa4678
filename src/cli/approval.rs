//! `strongroom approval`: what waits for a second person.
//!
//! Nothing is asked for here: a command that needs somebody else's approval asks by being run, says so, and fails. It goes
//! ahead when it is run again after the approval.

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time, optional_cell};
use crate::client::{Approval, ApprovalState, ClientError, ErrorReason};

/// What can be done with approvals.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// List the approvals that you asked for or may decide about, the first first
    List(ListArgs),
    /// Show an approval, and exactly what would be done
    Describe(WhichArgs),
    /// Let somebody else go ahead with what they asked for
    ///
    /// It shows what would be done, and asks for the tenant's name. Who asked then runs the same command again: it works
    /// once, and only unchanged. The token must allow what it approves, and must not be the one that asked.
    Approve(WhichArgs),
    /// Deny what somebody asked for, or withdraw what you asked for
    ///
    /// What was approved already can be denied as long as it was not used.
    Deny(WhichArgs),
}

/// Arguments of `approval list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Those too that were used, denied or not used in time
    #[arg(long)]
    all: bool,
}

/// Arguments of the verbs that take an approval and nothing else.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// The approval, as 'approval list' shows it
    #[arg(value_name = "APPROVAL")]
    id: String,
}

impl ApprovalCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::List(args) => list(&args, invocation).await,
            Self::Describe(args) => describe(&args.id, invocation).await,
            Self::Approve(args) => approve(&args.id, invocation).await,
            Self::Deny(args) => deny(&args.id, invocation).await,
        }
    }
}

/// Prints what must be approved first, when that is why a command failed: who needs which command, and until when.
///
/// # Errors
/// [`Failure::Output`].
pub fn tell(failure: &Failure, invocation: &mut Invocation) -> Result<(), Failure> {
    let Failure::Call { source, .. } = failure else { return Ok(()) };
    if source.reason() == ErrorReason::ApprovalRequired {
        invocation.console.record(&RequiredRecord::new(source))?;
    }
    Ok(())
}

async fn list(args: &ListArgs, invocation: &mut Invocation) -> Result<(), Failure> {
    let mut approvals = invocation.admin()?.approvals();
    let mut listing = invocation.console.listing();
    while let Some(approval) = approvals.next().await {
        let approval = approval.map_err(Failure::call("list the approvals"))?;
        if args.all || matches!(approval.state, ApprovalState::Waiting | ApprovalState::Approved) {
            listing.push(&ApprovalRow(ApprovalRecord::from(&approval)))?;
        }
    }
    listing.finish()
}

async fn describe(id: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let approval = invocation.admin()?.approval(id).await.map_err(Failure::call("show the approval"))?;
    invocation.console.record(&ApprovalRecord::from(&*approval))
}

async fn approve(id: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let admin = invocation.admin()?;
    if invocation.must_ask()? {
        let approval = admin.approval(id).await.map_err(Failure::call("show the approval"))?;
        let name = approval.tenant.clone().unwrap_or_else(|| approval.id.clone());
        invocation.confirm(&consequence(&approval), &name)?;
    }
    let approval = admin.approve(id).await.map_err(Failure::call("approve"))?;
    invocation.console.record(&ApprovalRecord::from(&*approval))?;
    invocation.console.say(format_args!(
        "{} can go ahead until {}, once, by running the same command again.",
        approval.requester,
        Time(approval.expire_time)
    ))
}

async fn deny(id: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let approval = invocation.admin()?.deny_approval(id).await.map_err(Failure::call("deny"))?;
    invocation.console.record(&ApprovalRecord::from(&*approval))
}

/// What an approval comes to, for whom is to say yes.
fn consequence(approval: &Approval) -> String {
    let at = match &approval.tenant {
        Some(tenant) => format!("to the tenant {tenant}"),
        None => "to the server itself".to_owned(),
    };
    format!(
        "{} wants to do this {at}:\n  {}\nIt was asked for at {} and can be done once, until {}.",
        approval.requester,
        approval.description,
        Time(approval.create_time),
        Time(approval.expire_time)
    )
}

/// What must be approved before a command goes ahead, as it is printed.
#[derive(Serialize)]
struct RequiredRecord {
    approval: String,
    description: String,
    expires: String,
    scopes: Vec<String>,
    command: String,
}

impl RequiredRecord {
    fn new(error: &ClientError) -> Self {
        let [approval, description, expires, scopes] =
            ["approval_id", "description", "expire_time", "scopes"]
                .map(|name| error.detail(name).unwrap_or_default().to_owned());
        Self {
            command: format!("strongroom approval approve {approval}"),
            scopes: scopes.split(',').map(str::to_owned).collect(),
            approval,
            description,
            expires,
        }
    }
}

impl Record for RequiredRecord {
    const COLUMNS: &'static [&'static str] =
        &["APPROVAL", "WHAT WAS ASKED FOR", "EXPIRES", "APPROVER NEEDS", "APPROVER RUNS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.approval.clone(),
            self.description.clone(),
            self.expires.clone(),
            self.scopes.join(","),
            self.command.clone(),
        ]
    }
}

/// An approval as it is printed.
#[derive(Serialize)]
struct ApprovalRecord {
    approval: String,
    state: &'static str,
    operation: String,
    tenant: Option<String>,
    description: String,
    scopes: Vec<&'static str>,
    requester: String,
    asked: Time,
    expires: Time,
    decider: Option<String>,
    decided: Option<Time>,
    used: Option<Time>,
}

impl From<&Approval> for ApprovalRecord {
    fn from(approval: &Approval) -> Self {
        let (decider, decided) = approval.decided.clone().unzip();
        Self {
            approval: approval.id.clone(),
            state: approval.state.name(),
            operation: approval.operation.clone(),
            tenant: approval.tenant.clone(),
            description: approval.description.clone(),
            scopes: approval.scopes.iter().map(|scope| scope.name()).collect(),
            requester: approval.requester.clone(),
            asked: Time(approval.create_time),
            expires: Time(approval.expire_time),
            decider,
            decided: decided.map(Time),
            used: approval.use_time.map(Time),
        }
    }
}

impl Record for ApprovalRecord {
    const COLUMNS: &'static [&'static str] = &[
        "APPROVAL",
        "STATE",
        "OPERATION",
        "TENANT",
        "DESCRIPTION",
        "APPROVER NEEDS",
        "REQUESTER",
        "ASKED",
        "EXPIRES",
        "DECIDER",
        "DECIDED",
        "USED",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.approval.clone(),
            self.state.to_owned(),
            self.operation.clone(),
            optional_cell(self.tenant.clone()),
            self.description.clone(),
            self.scopes.join(","),
            self.requester.clone(),
            self.asked.to_string(),
            self.expires.to_string(),
            optional_cell(self.decider.clone()),
            optional_cell(self.decided),
            optional_cell(self.used),
        ]
    }
}

/// An approval as a row of a listing: the same facts as JSON, fewer as a table.
#[derive(Serialize)]
#[serde(transparent)]
struct ApprovalRow(ApprovalRecord);

impl Record for ApprovalRow {
    const COLUMNS: &'static [&'static str] =
        &["APPROVAL", "STATE", "TENANT", "REQUESTER", "EXPIRES", "DESCRIPTION"];

    fn cells(&self) -> Vec<String> {
        let approval = &self.0;
        vec![
            approval.approval.clone(),
            approval.state.to_owned(),
            optional_cell(approval.tenant.clone()),
            approval.requester.clone(),
            approval.expires.to_string(),
            approval.description.clone(),
        ]
    }
}
