//! A version of a key as it is printed.

use serde::Serialize;

use crate::cli::output::{Record, Time, optional_cell};
use crate::client::Kek;

/// A version as it is printed.
#[derive(Serialize)]
pub(super) struct KeyRecord {
    version: u32,
    state: &'static str,
    created: Time,
    state_since: Time,
    destruction: Option<Time>,
    origin: &'static str,
    exported: Option<Time>,
}

impl From<&Kek> for KeyRecord {
    fn from(key: &Kek) -> Self {
        Self {
            version: key.version,
            state: key.state.name(),
            created: Time(key.create_time),
            state_since: Time(key.state_time),
            destruction: key.destroy_time.map(Time),
            origin: key.origin.name(),
            exported: key.export_time.map(Time),
        }
    }
}

impl Record for KeyRecord {
    const COLUMNS: &'static [&'static str] =
        &["VERSION", "STATE", "ORIGIN", "CREATED", "STATE SINCE", "EXPORTED", "DESTRUCTION"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.version.to_string(),
            self.state.to_owned(),
            self.origin.to_owned(),
            self.created.to_string(),
            self.state_since.to_string(),
            optional_cell(self.exported),
            optional_cell(self.destruction),
        ]
    }
}
