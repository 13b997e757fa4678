//! `strongroom status`: how the server is.

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time};
use crate::client::ServerStatus;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {}

impl StatusArgs {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let status = invocation.admin()?.status().await.map_err(Failure::call("read the status"))?;
        invocation.console.record(&StatusRecord::from(&*status))
    }
}

/// The state as it is printed.
#[derive(Serialize)]
struct StatusRecord {
    version: String,
    store_uid: String,
    format_version: u32,
    started: Time,
    engine: String,
    disk_bytes: u64,
    rows: u64,
    tenants: u64,
    queue_depth: u64,
    commits: u64,
    committed_operations: u64,
    integrity_failures: u64,
    sessions_expired: u64,
    sweeper_lag_ms: u64,
    system_log_size: u64,
    receipt_verifier: String,
}

impl From<&ServerStatus> for StatusRecord {
    fn from(status: &ServerStatus) -> Self {
        Self {
            version: status.version.clone(),
            store_uid: status.store_uid.clone(),
            format_version: status.format_version,
            started: Time(status.start_time),
            engine: status.engine.clone(),
            disk_bytes: status.disk_bytes,
            rows: status.rows,
            tenants: status.tenants,
            queue_depth: status.queue_depth,
            commits: status.commits,
            committed_operations: status.committed_operations,
            integrity_failures: status.integrity_failures,
            sessions_expired: status.sessions_expired,
            sweeper_lag_ms: u64::try_from(status.sweeper_lag.as_millis()).unwrap_or(u64::MAX),
            system_log_size: status.system_log_size,
            receipt_verifier: status.receipt_verifier.clone(),
        }
    }
}

impl Record for StatusRecord {
    const COLUMNS: &'static [&'static str] = &[
        "VERSION",
        "STORE",
        "FORMAT",
        "STARTED",
        "ENGINE",
        "BYTES ON DISK",
        "ROWS",
        "TENANTS",
        "WAITING FOR COMMIT",
        "COMMITS",
        "OPERATIONS COMMITTED",
        "INTEGRITY FAILURES",
        "SESSIONS EXPIRED",
        "SWEEPER LAG",
        "SERVER LOG SIZE",
        "RECEIPTS VERIFIED BY",
    ];

    fn cells(&self) -> Vec<String> {
        let numbers = [
            self.disk_bytes,
            self.rows,
            self.tenants,
            self.queue_depth,
            self.commits,
            self.committed_operations,
            self.integrity_failures,
            self.sessions_expired,
        ];
        let mut cells = vec![
            self.version.clone(),
            self.store_uid.clone(),
            self.format_version.to_string(),
            self.started.to_string(),
            self.engine.clone(),
        ];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.push(format!("{} ms", self.sweeper_lag_ms));
        cells.push(self.system_log_size.to_string());
        cells.push(self.receipt_verifier.clone());
        cells
    }
}
