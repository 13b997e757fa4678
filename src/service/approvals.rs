//! Approvals as those see them who asked, and those who may decide: listed, looked at, approved, denied, and put away.
//!
//! Who may not do a thing may not decide about it either, and does not learn that it was asked for. No permit is asked for
//! here: what a caller must be allowed depends on the row, and is decided when that has been read.

use std::sync::Arc;

use super::approval::{ApprovalState, Sensitive, StoredApproval};
use super::attempt::{Attempt, until_won};
use super::cursor::page_size;
use super::sweeper::Swept;
use super::view::{Answer, Page, PageRequest};
use super::{Error, Failure, Service};
use crate::audit::{LogKeys, Operation};
use crate::auth::Caller;
use crate::commit::Receipt;
use crate::model::limits::APPROVAL_KEPT;
use crate::model::{TenantId, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, keys};

/// An approval as those see it who asked for it or may decide. Times are milliseconds since 1970; zero stands for "not yet".
#[derive(Clone)]
pub struct ApprovalDescription {
    /// Names it.
    pub id: [u8; 16],
    /// The tenant's name; empty for what is done to the server itself.
    pub tenant: String,
    /// What it is for.
    pub what: Sensitive,
    /// The principal who asked.
    pub requester: String,
    /// When.
    pub asked: u64,
    /// Until when it can be approved and used.
    pub expires: u64,
    /// How far it is.
    pub state: ApprovalState,
    /// The principal who approved or denied; empty while nobody did.
    pub decider: String,
    /// When.
    pub decided: u64,
    /// When what it is for was done.
    pub used: u64,
}

impl ApprovalDescription {
    fn new(stored: &StoredApproval, now: Timestamp) -> Self {
        let approval = stored.approval.clone();
        Self {
            id: stored.id,
            state: approval.state(now),
            tenant: approval.tenant_name,
            what: approval.what,
            requester: approval.requester,
            asked: approval.asked,
            expires: approval.expires,
            decider: approval.decider,
            decided: approval.decided,
            used: approval.used,
        }
    }
}

/// What somebody says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Approve,
    Deny,
}

impl Verdict {
    const fn operation(self) -> Operation {
        match self {
            Self::Approve => Operation::ApprovalApprove,
            Self::Deny => Operation::ApprovalDeny,
        }
    }

    const fn state(self) -> ApprovalState {
        match self {
            Self::Approve => ApprovalState::Approved,
            Self::Deny => ApprovalState::Denied,
        }
    }

    /// Whether the state changes; a verdict that was given already changes nothing.
    const fn changes(self, state: ApprovalState) -> Result<bool, Error> {
        match (self, state) {
            (_, ApprovalState::Waiting) | (Self::Deny, ApprovalState::Approved) => Ok(true),
            (Self::Approve, ApprovalState::Approved) | (Self::Deny, ApprovalState::Denied) => Ok(false),
            (_, ApprovalState::Denied | ApprovalState::Used | ApprovalState::Expired) => {
                Err(Error::ApprovalState(state))
            }
        }
    }
}

impl Service {
    /// Lists the approvals that a caller asked for or may decide about, the first that was asked for first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong page token.
    pub async fn list_approvals(
        &self,
        caller: &Arc<Caller>,
        page: &PageRequest,
    ) -> Result<Answer<Page<ApprovalDescription>>, Failure> {
        let mut attempt = self.system_attempt(caller, Operation::ApprovalList);
        let outcome = self.list_approvals_once(&mut attempt, caller, page).await;
        attempt.close(outcome).await
    }

    async fn list_approvals_once(
        &self,
        attempt: &mut Attempt<'_>,
        caller: &Caller,
        page: &PageRequest,
    ) -> Result<(Page<ApprovalDescription>, Receipt), Error> {
        let scope = self.system_cursor("page_token", b"approvals");
        let after = scope.open(self, &page.token)?.unwrap_or_default();
        let (now, size) = (self.clock.now(), page_size(page.size));
        let mut seen = Vec::new();
        for stored in self.stored_approvals().await? {
            if stored.id[..] > after[..] && is_visible(&stored, caller)? {
                seen.push(stored);
            }
        }
        let next = match seen.get(size.saturating_sub(1)) {
            Some(last) if seen.len() > size => scope.seal(self, &last.id)?,
            Some(_) | None => String::new(),
        };
        let items: Vec<_> = seen.iter().take(size).map(|of| ApprovalDescription::new(of, now)).collect();
        attempt.touched(items.len());
        Ok((Page { items, next }, attempt.record().await?))
    }

    /// Returns one approval.
    ///
    /// # Errors
    /// [`Error::ApprovalNotFound`], also for one that is none of the caller's business.
    pub async fn approval(
        &self,
        caller: &Arc<Caller>,
        id: [u8; 16],
    ) -> Result<Answer<ApprovalDescription>, Failure> {
        let (attempt, stored) = self.attempt_approval(caller, Operation::ApprovalRead, id).await?;
        let outcome =
            async { Ok((ApprovalDescription::new(&stored, self.clock.now()), attempt.record().await?)) };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// Lets who asked go ahead, once. To approve again is no error.
    ///
    /// # Errors
    /// [`Error::ApprovalNotFound`], also for one that is for something that the caller may not do itself;
    /// [`Error::ApprovalOwn`] when the caller asked for it; [`Error::ApprovalState`] when it has come to its end.
    pub async fn approve(
        &self,
        caller: &Arc<Caller>,
        id: [u8; 16],
    ) -> Result<Answer<ApprovalDescription>, Failure> {
        self.decide(caller, id, Verdict::Approve).await
    }

    /// Ends an approval that was not used, for who asked or could approve. To deny again is no error.
    ///
    /// # Errors
    /// [`Error::ApprovalNotFound`], also for one that is none of the caller's business; [`Error::ApprovalState`] when it was
    /// used, or its time is over.
    pub async fn deny_approval(
        &self,
        caller: &Arc<Caller>,
        id: [u8; 16],
    ) -> Result<Answer<ApprovalDescription>, Failure> {
        self.decide(caller, id, Verdict::Deny).await
    }

    async fn decide(
        &self,
        caller: &Arc<Caller>,
        id: [u8; 16],
        verdict: Verdict,
    ) -> Result<Answer<ApprovalDescription>, Failure> {
        let (attempt, _) = self.attempt_approval(caller, verdict.operation(), id).await?;
        let outcome = until_won!(self.decide_once(&attempt, caller, id, verdict).await);
        attempt.close(outcome).await
    }

    async fn decide_once(
        &self,
        attempt: &Attempt<'_>,
        caller: &Caller,
        id: [u8; 16],
        verdict: Verdict,
    ) -> Result<(ApprovalDescription, Receipt), Error> {
        let mut stored = self.visible_approval(caller, id).await?;
        if verdict == Verdict::Approve && stored.approval.is_of(caller) {
            return Err(Error::ApprovalOwn);
        }
        let now = self.clock.now();
        let mut batch = Batch::default();
        if verdict.changes(stored.approval.state(now))? {
            stored.approval.state = verdict.state();
            stored.approval.decider = caller.principal.id().to_owned();
            stored.approval.decided = now.as_millis();
            self.stage_approval(&stored, &mut batch)?;
        }
        let receipt = attempt.commit(batch, None).await?;
        Ok((ApprovalDescription::new(&stored, now), receipt))
    }

    /// Begins a use case on an approval that the caller may see, in the log of the tenant that it is about.
    async fn attempt_approval(
        &self,
        caller: &Arc<Caller>,
        operation: Operation,
        id: [u8; 16],
    ) -> Result<(Attempt<'_>, StoredApproval), Failure> {
        let found = async {
            let stored = self.visible_approval(caller, id).await?;
            Ok((self.log_with(stored.approval.tenant_id()).await?, stored))
        };
        match found.await {
            Ok((log, stored)) => {
                let mut attempt = self.attempt_on(log, caller, operation);
                attempt.event.approval = Some(id);
                Ok((attempt, stored))
            }
            Err(error) => Err(self.system_attempt(caller, operation).fail(error).await),
        }
    }

    async fn visible_approval(&self, caller: &Caller, id: [u8; 16]) -> Result<StoredApproval, Error> {
        let stored = self.stored_approval(id).await?.ok_or(Error::ApprovalNotFound)?;
        if is_visible(&stored, caller)? { Ok(stored) } else { Err(Error::ApprovalNotFound) }
    }

    /// The log of a tenant; the server's own for the server itself, and for a tenant that is no more.
    async fn log_with(&self, tenant: TenantId) -> Result<Arc<LogKeys>, Error> {
        let tenant = self.tenant_with(tenant).await?;
        Ok(tenant.map_or_else(|| Arc::clone(&self.system_log), |tenant| self.log_of(&tenant)))
    }

    /// Puts on record that the time of an approval is over, and removes it when nobody needs to look at it any more.
    pub(super) async fn sweep_approval(&self, index: Key, key: Key, now: Timestamp) -> Result<Swept, Error> {
        let [row] = self.read([key.clone()]).await?;
        let Some(row) = row else {
            return self.drop_index(None, index).await;
        };
        let mut stored = self.open_approval(key, row)?;
        let expires = Timestamp::from_millis(stored.approval.expires);
        let kept = keys::expiry(expires.after(APPROVAL_KEPT), &stored.key);
        let mut batch = Batch { delete: vec![index.clone()], ..Batch::default() };
        let mut operation = Operation::SessionReclaim;
        if index != kept {
            if now < expires {
                return Ok(Swept::NotYet);
            }
            batch.put.push((kept, Row::marker()));
            if stored.approval.state.is_open() {
                operation = Operation::ApprovalExpire;
                stored.approval.state = ApprovalState::Expired;
                self.stage_approval(&stored, &mut batch)?;
            }
        } else if now < expires.after(APPROVAL_KEPT) {
            return Ok(Swept::NotYet);
        } else {
            batch.expect.push((stored.key.clone(), RowExpect::unchanged(Some(&stored.row))));
            batch.delete.push(stored.key.clone());
        }
        let mut attempt = self.own_attempt_with(stored.approval.tenant_id(), operation).await?;
        attempt.event.approval = Some(stored.id);
        attempt.touched(1);
        attempt.commit(batch, None).await?;
        Ok(Swept::Other)
    }

    /// Begins something that the server does by itself, in the log of a tenant if there is one.
    async fn own_attempt_with(&self, tenant: TenantId, operation: Operation) -> Result<Attempt<'_>, Error> {
        let tenant = self.tenant_with(tenant).await?;
        Ok(match tenant {
            Some(tenant) => self.own_attempt(&tenant, operation),
            None => self.own_server_attempt(operation),
        })
    }
}

/// Whether `caller` asked for it, or may decide about it.
fn is_visible(stored: &StoredApproval, caller: &Caller) -> Result<bool, Error> {
    Ok(stored.approval.is_of(caller) || stored.approval.concerns(caller)?)
}
