//! What the anchor says at a start: a log that is not what it was is refused, unless an operator accepts exactly that.
//!
//! An acceptance names a log and the size at which it stands, so that it is good once and for nothing else. It is on record
//! in the log's next epoch, behind the line that binds the epoch before as it was found, and, of a tenant, in the server's own
//! log too; the event binds size and root that the anchor had.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::anchor::{AnchorPlace, Anchoring, Kept, KeptLogs, PlaceError};
use super::{Error, Service};
use crate::audit::{Actor, Continuity, Event, LogError, LogKeys, LogName, Operation, Resource};
use crate::commit::Change;
use crate::keyring::Tenant;
use crate::model::{Revision, TenantId};
use crate::store::{Batch, Row, RowExpect, ScanRange, Table, keys};
use crate::tlog::AnchorTextError;

/// Rows of tenants that are read at once.
const STEP: usize = 256;

/// A log at one size, as `ORIGIN:SIZE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAt {
    /// The log's name in checkpoints.
    pub origin: String,
    /// How many events it has.
    pub size: u64,
}

impl fmt::Display for LogAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.size)
    }
}

/// The text names no log and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a log and its size, such as strongroom/log/…/1:57, as the refused start names them")]
pub struct NotALogAt;

impl FromStr for LogAt {
    type Err = NotALogAt;

    fn from_str(text: &str) -> Result<Self, NotALogAt> {
        let (origin, size) = text.rsplit_once(':').ok_or(NotALogAt)?;
        let log = Self { origin: origin.to_owned(), size: size.parse().map_err(|_| NotALogAt)? };
        if !origin.is_empty() && log.to_string() == text { Ok(log) } else { Err(NotALogAt) }
    }
}

/// What an operator accepts for one start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// Logs that are not what the anchor says, each as it is.
    pub rollbacks: Vec<LogAt>,
    /// That there is no anchor: the server's own log, as it is.
    pub new_anchor: Option<LogAt>,
}

/// A log that is not what its anchored checkpoint says.
#[derive(Debug, Clone)]
pub struct Rollback {
    /// As it is anchored.
    pub anchored: LogAt,
    /// As it is.
    pub found: LogAt,
    /// Whether it is long enough and has other events.
    pub other_history: bool,
    log: LogName,
    epoch: u32,
    root: [u8; 32],
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { anchored, found, other_history, .. } = self;
        let what = if *other_history { "has another history" } else { "was put back" };
        write!(f, "{}: anchored with {} events, and ", anchored.origin, anchored.size)?;
        write!(f, "the store has {} ({what})\n    --accept-rollback {found}", found.size)
    }
}

/// Why a store is not served.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Logs are not what the anchor says.
    #[error("{}", rolled_back(place, logs))]
    RolledBack {
        /// Where the anchor is.
        place: String,
        /// The logs.
        logs: Vec<Rollback>,
    },
    /// There is no anchor, and the store is not new.
    #[error(
        "AUDIT_ROLLBACK: the anchor {place} is not there, so that nobody can tell whether the access logs are what they were.\n\
         Bring it back. If there never was one, or it is lost and the logs were compared with checkpoints kept elsewhere, start once with\n    \
         --new-anchor {now}"
    )]
    Missing {
        /// Where it should be.
        place: String,
        /// The server's own log.
        now: LogAt,
    },
    /// What is there cannot be believed.
    #[error(
        "AUDIT_ROLLBACK: the anchor {place} is not one that this store has signed: {problem}.\n\
         Bring back the right one. If it is lost, keep this one as evidence and move it away; the next start says what to do"
    )]
    Unusable {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        problem: AnchorTextError,
    },
    /// Something was accepted that is not the case.
    #[error("nothing is wrong that {option} would accept; an acceptance is for one start, take it away")]
    NotTheCase {
        /// The option of the command line.
        option: String,
    },
    /// The place cannot be read, or what must be in it now cannot be written.
    #[error("the anchor {place} cannot be {operation}: {source}")]
    Place {
        /// Where it is.
        place: String,
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: PlaceError,
    },
    /// The store cannot be read or written.
    #[error("the access logs cannot be compared with their anchor: {0}")]
    Store(#[from] Error),
}

impl AnchorError {
    /// Whether somebody must look into what happened, rather than mend the installation.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::RolledBack { .. } | Self::Missing { .. } | Self::Unusable { .. })
    }
}

fn rolled_back(place: &str, logs: &[Rollback]) -> String {
    let (count, lines) = (logs.len(), logs.iter().map(|log| format!("\n  {log}")).collect::<String>());
    format!(
        "AUDIT_ROLLBACK: {count} access log(s) are not what the anchor {place} says:{lines}\n\
         Find out first who put the store back, and keep a copy of the anchor: what was on record since is lost here.\n\
         To go on all the same, start once with the option below each log; that goes on record"
    )
}

/// An anchor that was compared with the store.
pub enum Opened {
    /// The logs are what they were, or what was accepted.
    Ready(Arc<Anchoring>),
    /// The server's own log goes on in another epoch: the store must be opened again, and asked again.
    Again,
}

/// Whose log it is.
enum Subject {
    Server,
    Tenant(Arc<Tenant>, Row),
}

impl Anchoring {
    /// Compares the logs of a store with their anchor, before anything is committed. What of `accepted` was used is taken out
    /// of it.
    ///
    /// # Errors
    /// [`AnchorError`] when the store must not be served.
    pub async fn open(
        service: &Arc<Service>,
        place: Box<dyn AnchorPlace>,
        accepted: &mut Acceptance,
    ) -> Result<Opened, AnchorError> {
        let read = place.read().await;
        let text = read.map_err(|source| failed(&*place, "read", source))?;
        let Some(text) = text else {
            return Self::begin(service, place, accepted).await.map(Opened::Ready);
        };
        let opened = service.open_anchor(&text);
        let mut logs = opened.map_err(|problem| AnchorError::Unusable { place: place.name(), problem })?;
        let accepts = service.judge(&*place, &logs, accepted).await?;
        if let Some(rollback) = accepts.iter().find(|rollback| rollback.log.tenant == TenantId::SYSTEM) {
            let kept = service.accept_server_rollback(rollback).await?;
            logs.insert(TenantId::SYSTEM, kept);
            let written = place.replace(service.anchor_text(&logs)?).await;
            written.map_err(|source| failed(&*place, "written", source))?;
            accepted.rollbacks.retain(|log| *log != rollback.found);
            return Ok(Opened::Again);
        }
        for rollback in &accepts {
            service.accept_rollback(rollback).await?;
            logs.remove(&rollback.log.tenant);
        }
        Self::ready(service, place, logs, !accepts.is_empty()).await.map(Opened::Ready)
    }

    async fn begin(
        service: &Arc<Service>,
        place: Box<dyn AnchorPlace>,
        accepted: &Acceptance,
    ) -> Result<Arc<Self>, AnchorError> {
        if let Some(log) = accepted.rollbacks.first() {
            return Err(AnchorError::NotTheCase { option: format!("--accept-rollback {log}") });
        }
        if !service.is_new().await? {
            let now = service.log_at(&service.system_log).await?;
            if accepted.new_anchor.as_ref() != Some(&now) {
                return Err(AnchorError::Missing { place: place.name(), now });
            }
            service.own_server_attempt(Operation::SystemAnchor).record().await?;
        }
        Self::ready(service, place, KeptLogs::new(), true).await
    }

    /// Begins with all logs as they are. What the anchor said of one that does not open stays.
    async fn ready(
        service: &Arc<Service>,
        place: Box<dyn AnchorPlace>,
        mut logs: KeptLogs,
        must_be_written: bool,
    ) -> Result<Arc<Self>, AnchorError> {
        drop(service.committer.take_grown());
        service.keep_all(&mut logs).await?;
        let name = place.name();
        let anchoring = Self::new(Arc::clone(service), place, logs);
        if !anchoring.round().await && must_be_written {
            let source = PlaceError::new("see the line before");
            return Err(AnchorError::Place { place: name, operation: "written", source });
        }
        Ok(Arc::new(anchoring))
    }
}

fn failed(place: &dyn AnchorPlace, operation: &'static str, source: PlaceError) -> AnchorError {
    AnchorError::Place { place: place.name(), operation, source }
}

impl Service {
    /// The logs that are not what the anchor says, all of which are accepted.
    async fn judge(
        &self,
        place: &dyn AnchorPlace,
        logs: &KeptLogs,
        accepted: &Acceptance,
    ) -> Result<Vec<Rollback>, AnchorError> {
        let mut found = Vec::new();
        for kept in logs.values() {
            found.extend(self.rollback_of(kept).await?);
        }
        let is_accepted = |log: &Rollback| accepted.rollbacks.contains(&log.found);
        if found.iter().any(|log| !is_accepted(log)) {
            let logs = found.into_iter().filter(|log| !is_accepted(log)).collect();
            return Err(AnchorError::RolledBack { place: place.name(), logs });
        }
        if let Some(log) = &accepted.new_anchor {
            return Err(AnchorError::NotTheCase { option: format!("--new-anchor {log}") });
        }
        let is_found = |log: &LogAt| found.iter().any(|rollback| rollback.found == *log);
        match accepted.rollbacks.iter().find(|log| !is_found(log)) {
            Some(log) => Err(AnchorError::NotTheCase { option: format!("--accept-rollback {log}") }),
            None => Ok(found),
        }
    }

    async fn rollback_of(&self, kept: &Kept) -> Result<Option<Rollback>, Error> {
        let Kept { log, anchored } = kept;
        let was = LogAt { origin: anchored.origin.clone(), size: anchored.frontier.size() };
        let rollback = |found: LogAt, epoch: u32, other_history| Rollback {
            anchored: was.clone(),
            found,
            other_history,
            log: *log,
            epoch: log.epoch.max(epoch) + 1,
            root: anchored.frontier.root(),
        };
        let subject = match self.subject(log.tenant).await {
            Err(Error::Integrity) => {
                // Its log takes no event either.
                tracing::error!(log = anchored.origin, "the row of a tenant does not open");
                return Ok(None);
            }
            found => found?,
        };
        let Some(subject) = subject else {
            return Ok(Some(rollback(LogAt { size: 0, ..was.clone() }, 0, false)));
        };
        let keys = self.keys_of(&subject);
        let other_history = match self.reader.continuity(&keys, log.epoch, &anchored.frontier).await {
            Ok(Continuity::GoesOn) => return Ok(None),
            Ok(continuity) => continuity == Continuity::OtherHistory,
            Err(LogError::Integrity) => {
                // It takes no event, so that it cannot go on otherwise; who reads it is told the same.
                tracing::error!(log = anchored.origin, "the head of an access log does not open");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let found = self.log_at(&keys).await?;
        Ok(Some(rollback(found, self.reader.head(&keys).await?.epoch(), other_history)))
    }

    async fn subject(&self, tenant: TenantId) -> Result<Option<Subject>, Error> {
        if tenant == TenantId::SYSTEM {
            return Ok(Some(Subject::Server));
        }
        let key = keys::tenant(tenant);
        let [row] = self.read([key.clone()]).await?;
        let Some(row) = row else { return Ok(None) };
        let (tenant, row) = self.open_tenant(&key, row).await?;
        Ok(Some(Subject::Tenant(tenant, row)))
    }

    fn keys_of(&self, subject: &Subject) -> Arc<LogKeys> {
        match subject {
            Subject::Server => Arc::clone(&self.system_log),
            Subject::Tenant(tenant, _) => self.log_of(tenant),
        }
    }

    async fn log_at(&self, log: &LogKeys) -> Result<LogAt, Error> {
        let head = self.reader.head(log).await?;
        let name = LogName { tenant: log.tenant.id, epoch: head.epoch() };
        Ok(LogAt { origin: self.origin(name), size: head.size() })
    }

    /// Whether nothing was ever stored but the server's own keys.
    async fn is_new(&self) -> Result<bool, Error> {
        for table in [Table::Tenant, Table::Token, Table::LogHead, Table::LogBlock] {
            if !self.engine.scan_keys(ScanRange::prefix(keys::table(table)), 1).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn accept_server_rollback(&self, rollback: &Rollback) -> Result<Kept, Error> {
        let key = self.keyring.system_row();
        let [row] = self.read([key.clone()]).await?;
        let row = row.ok_or(Error::Integrity)?;
        let changed = self.keyring.change_server_audit_epoch(&row, rollback.epoch)?;
        let expect =
            vec![(key.clone(), RowExpect::unchanged(Some(&row))), self.keyring.expected_epoch(&changed)?];
        let batch = Batch { expect, put: vec![(key, changed)], delete: Vec::new() };
        let log = Arc::new(self.system_log.in_epoch(rollback.epoch));
        let events = vec![(Arc::clone(&log), event_of(rollback))];
        self.committer.commit(Change { batch, events, committed: None }).await?;
        let head = self.reader.head(&log).await?;
        self.kept(log.name(), head.frontier().clone())
    }

    async fn accept_rollback(&self, rollback: &Rollback) -> Result<(), Error> {
        let event = event_of(rollback);
        let there = Event { tenant: Some(rollback.log.tenant), ..event };
        let mut events = vec![(Arc::clone(&self.system_log), there)];
        let mut batch = Batch::default();
        if let Some(Subject::Tenant(tenant, row)) = self.subject(rollback.log.tenant).await? {
            let changed = self.keyring.change_audit_epoch(&tenant, rollback.epoch)?;
            let (change, after) = self.tenant_change(&tenant, &row, changed)?;
            batch = change;
            events.push((self.log_of(&after), event));
        }
        self.committer.commit(Change { batch, events, committed: None }).await?;
        Ok(())
    }

    /// Puts all logs that open into `logs`, as they are.
    async fn keep_all(&self, logs: &mut KeptLogs) -> Result<(), Error> {
        self.keep_one(&self.system_log, logs).await?;
        let mut range = ScanRange::prefix(keys::table(Table::Tenant));
        loop {
            let rows = self.engine.scan(range.clone(), STEP).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            range.after = Some(last.clone());
            for (key, row) in rows {
                match self.open_tenant(&key, row).await {
                    Ok((tenant, _)) => self.keep_one(&self.log_of(&tenant), logs).await?,
                    Err(Error::Integrity) => tracing::error!(?key, "the row of a tenant does not open"),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    async fn keep_one(&self, log: &LogKeys, logs: &mut KeptLogs) -> Result<(), Error> {
        match self.reader.head(log).await {
            Ok(head) => {
                let name = LogName { tenant: log.tenant.id, epoch: head.epoch() };
                logs.insert(name.tenant, self.kept(name, head.frontier().clone())?);
                Ok(())
            }
            Err(LogError::Integrity) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What goes on record of an acceptance: size and root that the log had by its anchor.
fn event_of(rollback: &Rollback) -> Event {
    let resource = Resource { revision: Revision::new(rollback.anchored.size), ..Resource::default() };
    Event {
        actor: Some(Actor::System),
        resource: Some(resource),
        content_hash: Some(rollback.root),
        ..Event::new(Operation::SystemRollback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_at_a_size_is_read_back_and_nothing_else_is_one() {
        let text = "strongroom/log/00/11/1:57";
        let log: LogAt = text.parse().unwrap();
        assert_eq!((log.size, log.to_string()), (57, text.to_owned()));
        for other in ["", ":", ":5", "a", "a:", "a:b", "a:-1", "a:05", "a:+5", "a:5 "] {
            assert_eq!(other.parse::<LogAt>(), Err(NotALogAt), "{other}");
        }
    }
}
