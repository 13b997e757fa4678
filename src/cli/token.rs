//! `strongroom token`: bearer tokens for programs and people.
//!
//! A secret goes into a file that only its owner may read, or to standard output when that is asked for. It is never
//! taken from or put on a command line.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::args;
use super::destroy::PlanArgs;
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{self, Record, Time};
use crate::client::{NewToken, Scope, Token, TokenCreated};

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token
    ///
    /// Its secret is written to a new file with mode 600, or printed when --show is given. The server keeps a digest only:
    /// nobody can show the secret again.
    Create(CreateArgs),
    /// List tokens, without their secrets
    List,
    /// Revoke a token, from the next request on
    Revoke(RevokeArgs),
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("destination").required(true).args(["out", "show"]))]
pub struct CreateArgs {
    /// Public name: 1 to 63 of a-z, 0-9 and '-'
    name: String,
    /// What it allows (can be repeated, or separated by commas)
    ///
    /// read: redacted views; read-full: full views; write: create, change and delete sessions, entries and events; purge:
    /// purge the sensitive part of sessions; keys: list, rotate, promote, enable and disable keys, and take back their
    /// destruction; keys-destroy: destroy keys after a grace; keys-destroy-now: together with keys-destroy, destroy keys at
    /// once; keys-import: import key material; keys-export: export the keys of tenants that are exportable; audit: read the
    /// access log; tenants: create, suspend and resume tenants, and together with keys-destroy destroy them; tokens: create,
    /// list and revoke tokens; status: the server's state.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = args::scope, required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Tenant for which it is good (can be repeated); the profile's tenant if none is named
    #[arg(long = "for-tenant", value_name = "NAME")]
    tenants: Vec<String>,
    /// Good for every tenant, those to come included, and for the server itself
    #[arg(long, conflicts_with = "tenants")]
    all_tenants: bool,
    /// How long it lives: 1m to 400d; 30d if not given
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// New file for the secret
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the secret
    #[arg(long)]
    show: bool,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The token's public name
    name: String,
    #[command(flatten)]
    plan: PlanArgs,
}

impl TokenCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::Create(args) => args.run(invocation).await,
            Self::List => list(invocation).await,
            Self::Revoke(args) if args.plan.dry_run => args.say(invocation).await,
            Self::Revoke(args) => revoke(&args.name, invocation).await,
        }
    }
}

impl CreateArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let admin = invocation.admin()?;
        let tenants = match (self.all_tenants, self.tenants.is_empty()) {
            (true, _) => vec!["*".to_owned()],
            (false, true) => vec![invocation.tenant_name(&invocation.profile()?)?.into_string()],
            (false, false) => self.tenants,
        };
        let wanted = NewToken { name: self.name, scopes: self.scopes, tenants, ttl: self.ttl };
        let Some(path) = self.out else {
            let created = admin.create_token(wanted).await.map_err(Failure::call("create the token"))?;
            let mut secret = created.secret.clone();
            secret.push('\n');
            invocation.console.raw(secret.as_bytes())?;
            return invocation.console.say("Keep it in a file of mode 600; it is not shown again.");
        };
        // The file is made first: a secret that cannot be written anywhere would be lost.
        let file = output::private_file(&path, true).map_err(Failure::file(&path, "created"))?;
        let created = match admin.create_token(wanted).await {
            Ok(created) => created.into_inner(),
            Err(error) => {
                fs::remove_file(&path).map_err(Failure::file(&path, "removed"))?;
                return Err(Failure::call("create the token")(error));
            }
        };
        write_secret(file, &path, &created)?;
        invocation.console.record(&TokenRecord::from(&created.token))
    }
}

fn write_secret(mut file: fs::File, path: &Path, created: &TokenCreated) -> Result<(), Failure> {
    let written = file.write_all(created.secret.as_bytes()).and_then(|()| file.write_all(b"\n"));
    written.and_then(|()| file.sync_all()).map_err(Failure::file(path, "written"))
}

impl RevokeArgs {
    /// Shows the token that would be revoked.
    async fn say(&self, invocation: &mut Invocation) -> Result<(), Failure> {
        let mut tokens = invocation.admin()?.tokens();
        while let Some(token) = tokens.next().await {
            let token = token.map_err(Failure::call("list the tokens"))?;
            if token.name == self.name {
                invocation.console.record(&TokenRecord::from(&token))?;
                return self.plan.say(&mut invocation.console);
            }
        }
        Err(Failure::NoSuchToken)
    }
}

async fn list(invocation: &mut Invocation) -> Result<(), Failure> {
    let mut tokens = invocation.admin()?.tokens();
    let mut listing = invocation.console.listing();
    while let Some(token) = tokens.next().await {
        listing.push(&TokenRecord::from(&token.map_err(Failure::call("list the tokens"))?))?;
    }
    listing.finish()
}

async fn revoke(name: &str, invocation: &mut Invocation) -> Result<(), Failure> {
    let admin = invocation.admin()?;
    invocation.confirm("This revokes the token for ever, from the next request on.", name)?;
    let token = admin.revoke_token(name).await.map_err(Failure::call("revoke the token"))?;
    invocation.console.record(&TokenRecord::from(&*token))
}

/// A token as it is printed.
#[derive(Serialize)]
struct TokenRecord {
    token: String,
    scopes: Vec<&'static str>,
    tenants: Vec<String>,
    created: Time,
    expires: Time,
    revoked: bool,
}

impl From<&Token> for TokenRecord {
    fn from(token: &Token) -> Self {
        Self {
            token: token.name.clone(),
            scopes: token.scopes.iter().map(|scope| scope.name()).collect(),
            tenants: token.tenants.clone(),
            created: Time(token.create_time),
            expires: Time(token.expire_time),
            revoked: token.revoked,
        }
    }
}

impl Record for TokenRecord {
    const COLUMNS: &'static [&'static str] = &["TOKEN", "SCOPES", "TENANTS", "CREATED", "EXPIRES", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.token.clone(),
            self.scopes.join(","),
            self.tenants.join(","),
            self.created.to_string(),
            self.expires.to_string(),
            if self.revoked { "revoked" } else { "valid until it expires" }.to_owned(),
        ]
    }
}
