//! One run of a command: what was asked for on the command line, the profile behind it, and the clients made from both.

use std::path::Path;

use super::Global;
use super::failure::Failure;
use super::output::{Console, Format};
use super::profile::{self, Profile};
use crate::client::{Admin, Builder, SessionHandle, Strongroom, Tenant};
use crate::env::{Clock as _, SystemClock};
use crate::model::{Owner, SessionId, TenantName, Timestamp};

/// One run of a command.
#[derive(Debug)]
pub struct Invocation {
    global: Global,
    clock: SystemClock,
    /// Where results and questions go.
    pub console: Console,
}

impl Invocation {
    /// Begins a run. Nothing is read or sent yet.
    #[must_use]
    pub fn new(global: Global, console: Console) -> Self {
        Self { global, clock: SystemClock::new(), console }
    }

    /// What all commands take.
    #[must_use]
    pub const fn global(&self) -> &Global {
        &self.global
    }

    /// The end user who was named.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.global.owner.clone()
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether results are JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.console.format() == Format::Json
    }

    /// Finds and reads the profile.
    ///
    /// # Errors
    /// [`Failure::Profile`].
    pub fn profile(&self) -> Result<Profile, Failure> {
        Ok(Profile::find(self.global.profile.as_deref())?)
    }

    /// The tenant that was named, else the profile's.
    ///
    /// # Errors
    /// [`Failure::Name`] or [`Failure::Profile`].
    pub fn tenant_name(&self, profile: &Profile) -> Result<TenantName, Failure> {
        match &self.global.tenant {
            Some(name) => TenantName::new(name.as_str()).map_err(Failure::name("tenant")),
            None => profile.tenant.clone().ok_or_else(|| profile.unset("tenant").into()),
        }
    }

    /// The tenant to work in, through the data plane.
    ///
    /// # Errors
    /// [`Failure::Profile`], [`Failure::Name`] or [`Failure::Call`].
    pub fn tenant(&self) -> Result<Tenant, Failure> {
        let profile = self.profile()?;
        let name = self.tenant_name(&profile)?;
        self.data_client(&profile, 1)?.tenant(name.as_str()).map_err(Failure::call("use the tenant"))
    }

    /// A session of that tenant, with the owner that was named.
    ///
    /// # Errors
    /// As [`Self::tenant`].
    pub fn session(&self, handle: &str) -> Result<SessionHandle, Failure> {
        let id = SessionId::new(handle).map_err(Failure::name("session"))?;
        Ok(self.tenant()?.session(id.as_str(), self.owner()))
    }

    /// The control plane.
    ///
    /// # Errors
    /// [`Failure::Profile`] or [`Failure::Call`].
    pub fn admin(&self) -> Result<Admin, Failure> {
        self.control()?.admin().map_err(Failure::call("set up the client"))
    }

    /// The control plane, for calls for which the server walks through all sessions of a tenant.
    ///
    /// # Errors
    /// As for [`Invocation::admin`].
    pub fn patient_admin(&self) -> Result<Admin, Failure> {
        let client = self.control()?.with_timeout(self.global.walk_timeout());
        client.admin().map_err(Failure::call("set up the client"))
    }

    fn control(&self) -> Result<Strongroom, Failure> {
        let profile = self.profile()?;
        let endpoint = profile.admin_endpoint.as_ref().ok_or_else(|| profile.unset("admin_endpoint"))?;
        let token = profile.admin_token_file.as_deref().or(profile.token_file.as_deref());
        let builder = self.builder(&profile, token)?.admin_endpoint(endpoint.as_str());
        builder.build().map_err(Failure::call("set up the client"))
    }

    /// A client of the data plane, over so many connections.
    ///
    /// # Errors
    /// [`Failure::Profile`] or [`Failure::Call`].
    pub fn data_client(&self, profile: &Profile, connections: usize) -> Result<Strongroom, Failure> {
        let builder = self.builder(profile, profile.token_file.as_deref())?.connections(connections);
        builder.endpoint(profile.endpoint.as_str()).build().map_err(Failure::call("set up the client"))
    }

    fn builder(&self, profile: &Profile, token: Option<&Path>) -> Result<Builder, Failure> {
        let token = self.global.token_file.as_deref().or(token).ok_or_else(|| profile.unset("token_file"))?;
        profile::check_token_file(token)?;
        let mut builder = Strongroom::builder().token_file(token).timeout(self.global.timeout());
        if let Some(file) = &profile.ca_file {
            builder = builder.ca_file(file);
        }
        if let Some(name) = &profile.server_name {
            builder = builder.server_name(name.as_str());
        }
        Ok(builder)
    }

    /// Whether somebody must be asked before something is destroyed: not with `--yes`.
    ///
    /// # Errors
    /// [`Failure::NobodyToAsk`] without a terminal.
    pub fn must_ask(&self) -> Result<bool, Failure> {
        match (self.global.yes, self.console.asks()) {
            (true, _) => Ok(false),
            (false, true) => Ok(true),
            (false, false) => Err(Failure::NobodyToAsk),
        }
    }

    /// Asks for the name of what is about to be destroyed, unless `--yes` was given.
    ///
    /// # Errors
    /// [`Failure::NotConfirmed`] when another name is typed, [`Failure::NobodyToAsk`] without a terminal.
    pub fn confirm(&mut self, consequence: &str, name: &str) -> Result<(), Failure> {
        if !self.must_ask()? {
            return Ok(());
        }
        let answer = self.console.ask(format_args!("{consequence}\nType {name} to go on:"))?;
        if answer == name { Ok(()) } else { Err(Failure::NotConfirmed { name: name.to_owned() }) }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::output::tests::console;

    fn invocation(input: Option<&'static str>, yes: bool) -> Invocation {
        let mut words = vec!["strongroom", "status"];
        words.extend(yes.then_some("--yes"));
        let (console, _, _) = console(Format::Table, input);
        Invocation::new(Cli::parse_from(words).global, console)
    }

    #[test]
    fn destruction_needs_the_name_typed_back() {
        assert!(invocation(Some("demo\n"), false).confirm("It ends.", "demo").is_ok());
        for answer in ["\n", "y\n", "demo2\n", "", " demo\n"] {
            let refused = invocation(Some(answer), false).confirm("It ends.", "demo");
            assert!(matches!(refused, Err(Failure::NotConfirmed { .. })), "{answer:?}");
        }
    }

    #[test]
    fn without_a_terminal_only_yes_goes_ahead() {
        assert!(matches!(invocation(None, false).confirm("It ends.", "demo"), Err(Failure::NobodyToAsk)));
        assert!(invocation(None, true).confirm("It ends.", "demo").is_ok());
    }
}
