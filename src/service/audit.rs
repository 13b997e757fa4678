//! Reading an access log. Reading is an event of the log that is read.

use std::sync::Arc;

use super::attempt::Attempt;
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
pub(super) struct Subject {
    tenant: Option<Arc<Tenant>>,
}

impl Service {
    pub(super) async fn attempt_audit(
        &self,
        permit: &Permit<ReadAudit>,
        uid: Option<TenantId>,
        operation: Operation,
    ) -> Result<(Attempt<'_>, Subject), Failure> {
        let (attempt, tenant) = match (permit.target(), uid) {
            (Target::Server, None) => {
                return Ok((self.server_attempt(permit, operation), Subject { tenant: None }));
            }
            (Target::Server, Some(id)) => self.attempt_by_id(permit, id, operation).await?,
            (Target::Tenant(_), _) => self.attempt(permit, operation).await?,
        };
        Ok((attempt, Subject { tenant: Some(tenant) }))
    }

    fn subject_scope<'a>(&'a self, subject: &'a Subject, request: Vec<u8>) -> CursorScope<'a> {
        let (key, tenant): (&ControlKey, TenantRef) = match &subject.tenant {
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
        let (mut attempt, subject) = self.attempt_audit(permit, uid, Operation::AuditSearch).await?;
        let outcome = self.search_once(&mut attempt, &subject, query).await;
        attempt.close(outcome).await
    }

    async fn search_once(
        &self,
        attempt: &mut Attempt<'_>,
        subject: &Subject,
        query: &AuditQuery,
    ) -> Result<(AuditPage, Receipt), Error> {
        let request = format!("audit {:?} {:?}", query.filter, query.order).into_bytes();
        let scope = self.subject_scope(subject, request);
        let from = scope.open(self, &query.page.token)?.and_then(|bytes| bytes.try_into().ok());
        let from = from.map(u64::from_be_bytes);
        let log = Arc::clone(attempt.log());
        let size = page_size(query.page.size);
        let page = self.reader.search(&log, from, query.order, &query.filter, size).await?;
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
        filter: Filter,
    ) -> Result<AuditTail, Failure> {
        let (attempt, _) = self.attempt_audit(&permit, uid, Operation::AuditTail).await?;
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
