//! `strongroom key`: the versions of a tenant's key-encryption key. The key itself is never shown.

use clap::Subcommand;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time};
use crate::client::{Kek, KekState};

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the versions of the tenant's key, oldest first
    List,
    /// Make a new primary version
    ///
    /// From now on it wraps what is new. Older versions go on opening what they wrapped.
    Rotate,
}

impl KeyCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let tenant = invocation.tenant_name(&invocation.profile()?)?;
        let admin = invocation.admin()?;
        match self {
            Self::Rotate => {
                let key = admin.rotate_kek(tenant.as_str()).await.map_err(Failure::call("rotate the key"))?;
                invocation.console.record(&KeyRecord::from(&*key))
            }
            Self::List => {
                let mut keys = admin.keks(tenant.as_str());
                let mut listing = invocation.console.listing();
                while let Some(key) = keys.next().await {
                    listing.push(&KeyRecord::from(&key.map_err(Failure::call("list the keys"))?))?;
                }
                listing.finish()
            }
        }
    }
}

/// A version as it is printed.
#[derive(Serialize)]
struct KeyRecord {
    version: u32,
    state: &'static str,
    created: Time,
    state_since: Time,
}

impl From<&Kek> for KeyRecord {
    fn from(key: &Kek) -> Self {
        let state = match key.state {
            KekState::Pending => "pending",
            KekState::Primary => "primary",
            KekState::Enabled => "enabled",
            KekState::Disabled => "disabled",
            KekState::DestroyScheduled => "destroy-scheduled",
            KekState::Destroyed => "destroyed",
        };
        Self {
            version: key.version,
            state,
            created: Time(key.create_time),
            state_since: Time(key.state_time),
        }
    }
}

impl Record for KeyRecord {
    const COLUMNS: &'static [&'static str] = &["VERSION", "STATE", "CREATED", "STATE SINCE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.version.to_string(),
            self.state.to_owned(),
            self.created.to_string(),
            self.state_since.to_string(),
        ]
    }
}
