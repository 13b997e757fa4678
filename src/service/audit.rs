//! Reading an access log. Reading is an event of the log that is read.

use std::sync::Arc;

use super::attempt::{Attempt, Subject};
use super::cursor::{CursorScope, page_size};
use super::view::{Answer, PageRequest};
use super::{Error, Failure, Service};
use crate::audit::{Event, Filter, LogError, LogKeys, LogLine, Operation, Order};
use crate::auth::{Permit, ReadAudit, Target};
use crate::commit::Receipt;
use crate::crypto::ControlKey;
use crate::keyring::Tenant;
use crate::model::limits::AUDIT_BACKLOG;
use crate::model::{TenantId, TenantRef};

/// What is wanted of a log.
#[derive(Debug, Clone)]
pub struct AuditQuery {
    /// Which events.
    pub filter: Filter,
    /// Only events about all of these; the filter's own pseudonyms are none.
    pub about: Vec<Subject>,
    /// In which order.
    pub order: Order,
    /// Which page.
    pub page: PageRequest,
}

/// Some events of a log.
pub struct AuditPage {
    /// The log's name.
    pub log: String,
    /// The events.
    pub lines: Vec<LogLine>,
    /// Sealed; empty on the last page.
    pub next: String,
}

/// The log that a permit is for.
pub(super) struct LogOwner {
    tenant: Option<Arc<Tenant>>,
}

/// The filter with the pseudonyms of what is asked about; the event says whom that was.
fn about(attempt: &mut Attempt<'_>, filter: &Filter, subjects: &[Subject]) -> Filter {
    let log = Arc::clone(attempt.log());
    for subject in subjects {
        let pseudonym = subject.pseudonym(&log);
        match subject {
            Subject::Session(_) => attempt.event.session = Some(pseudonym),
            Subject::Owner(_) => attempt.event.owner = Some(pseudonym),
            Subject::Entry(_) | Subject::Stream(_) | Subject::Token(_) => attempt.about_pseudonym(pseudonym),
            // Who asks, and from where, stands in these places.
            Subject::Principal(_) | Subject::Address(_) | Subject::Pseudonym(_) => {}
        }
    }
    Filter { about: subjects.iter().map(|subject| subject.pseudonym(&log)).collect(), ..filter.clone() }
}

impl Service {
    pub(super) async fn attempt_audit(
        &self,
        permit: &Permit<ReadAudit>,
        uid: Option<TenantId>,
        operation: Operation,
    ) -> Result<(Attempt<'_>, LogOwner), Failure> {
        let (attempt, tenant) = match (permit.target(), uid) {
            (Target::Server, None) => {
                return Ok((self.server_attempt(permit, operation), LogOwner { tenant: None }));
            }
            (Target::Server, Some(id)) => self.attempt_by_id(permit, id, operation).await?,
            (Target::Tenant(_), _) => self.attempt(permit, operation).await?,
        };
        Ok((attempt, LogOwner { tenant: Some(tenant) }))
    }

    fn log_scope<'a>(&'a self, owner: &'a LogOwner, request: Vec<u8>) -> CursorScope<'a> {
        let (key, tenant): (&ControlKey, TenantRef) = match &owner.tenant {
            Some(tenant) => (tenant.control(), tenant.tenant_ref()),
            None => (self.keyring.system().control(), TenantRef::SYSTEM),
        };
        CursorScope { key, tenant, field: "page_token", request }
    }

    /// Returns events of a log. `uid` names a tenant in a permit for all of them, also one that is destroyed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong page token, [`Error::Integrity`] when the log does not open.
    pub async fn search_audit(
        &self,
        permit: &Permit<ReadAudit>,
        uid: Option<TenantId>,
        query: &AuditQuery,
    ) -> Result<Answer<AuditPage>, Failure> {
        let (mut attempt, owner) = self.attempt_audit(permit, uid, Operation::AuditSearch).await?;
        let outcome = self.search_once(&mut attempt, &owner, query).await;
        attempt.close(outcome).await
    }

    async fn search_once(
        &self,
        attempt: &mut Attempt<'_>,
        owner: &LogOwner,
        query: &AuditQuery,
    ) -> Result<(AuditPage, Receipt), Error> {
        let filter = about(attempt, &query.filter, &query.about);
        let request = format!("audit {filter:?} {:?}", query.order).into_bytes();
        let scope = self.log_scope(owner, request);
        let from = scope.open(self, &query.page.token)?.and_then(|bytes| bytes.try_into().ok());
        let from = from.map(u64::from_be_bytes);
        let log = Arc::clone(attempt.log());
        let size = page_size(query.page.size);
        let page = self.reader.search(&log, from, query.order, &filter, size).await?;
        let next = if page.exhausted { String::new() } else { scope.seal(self, &page.next.to_be_bytes())? };
        attempt.touched(page.lines.len());
        let receipt = attempt.record().await?;
        Ok((AuditPage { log: log.name().to_string(), lines: page.lines, next }, receipt))
    }

    /// Prepares to tail a log: the last `backlog` events first, then those that come. `uid` is as for
    /// [`search_audit`](Self::search_audit).
    ///
    /// # Errors
    /// [`Error::TenantNotFound`].
    pub async fn tail_audit(
        self: &Arc<Self>,
        permit: Permit<ReadAudit>,
        uid: Option<TenantId>,
        backlog: usize,
        filter: &Filter,
        subjects: &[Subject],
    ) -> Result<AuditTail, Failure> {
        let (mut attempt, _) = self.attempt_audit(&permit, uid, Operation::AuditTail).await?;
        let filter = about(&mut attempt, filter, subjects);
        let (log, event) = (Arc::clone(attempt.log()), attempt.event);
        let outcome = async {
            // Asked first: what is written while the backlog is read must come after it.
            let size = self.reader.size(&log).await?;
            let lines = match backlog.min(AUDIT_BACKLOG) {
                0 => Vec::new(),
                backlog => {
                    let newest = self.reader.search(&log, None, Order::NewestFirst, &filter, backlog).await?;
                    newest.lines.into_iter().rev().collect()
                }
            };
            let next = match lines.last() {
                Some(LogLine { sequence, .. }) => sequence + 1,
                None => size,
            };
            Ok(((lines, next), attempt.record().await?))
        };
        let outcome = outcome.await;
        let Answer { value: (lines, next), receipt } = attempt.close(outcome).await?;
        let news = self.committer.progress();
        let service = Arc::clone(self);
        Ok(AuditTail { service, log, filter, backlog: lines, next, news, receipt: Some(receipt), event })
    }
}

/// Follows a log.
pub struct AuditTail {
    service: Arc<Service>,
    log: Arc<LogKeys>,
    filter: Filter,
    backlog: Vec<LogLine>,
    next: u64,
    news: tokio::sync::watch::Receiver<u64>,
    receipt: Option<Receipt>,
    /// What is on record of this tail.
    event: Event,
}

impl AuditTail {
    /// The log's name.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.name().to_string()
    }

    /// Where it is on record that the log is tailed; told once.
    pub fn receipt(&mut self) -> Option<Receipt> {
        self.receipt.take()
    }

    /// The events that have come since the last call; none when there are none.
    ///
    /// # Errors
    /// [`Error::Integrity`] when the log does not open.
    pub async fn next_lines(&mut self) -> Result<Vec<LogLine>, Failure> {
        match self.look().await {
            Ok(lines) => Ok(lines),
            Err(error) => Err(self.service.again(&self.log, self.event).fail(error).await),
        }
    }

    async fn look(&mut self) -> Result<Vec<LogLine>, Error> {
        if !self.backlog.is_empty() {
            return Ok(std::mem::take(&mut self.backlog));
        }
        self.news.mark_unchanged();
        loop {
            let most = crate::model::limits::PAGE_MAX;
            let page = self
                .service
                .reader
                .search(&self.log, Some(self.next), Order::OldestFirst, &self.filter, most)
                .await?;
            self.next = page.next;
            if page.exhausted || !page.lines.is_empty() {
                return Ok(page.lines);
            }
        }
    }

    /// Waits until something was committed since the last look.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Engine(error) => error.into(),
            LogError::Integrity | LogError::Damaged { .. } | LogError::HeadMismatch => Self::Integrity,
            LogError::OtherEpoch { .. } => Self::Unavailable,
        }
    }
}
