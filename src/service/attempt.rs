//! One attempt at a use case, and what is written about it whatever becomes of it.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::opened::domain as names;
use super::view::{Answer, SessionName};
use super::{Error, Failure, Service, TENANTS_IN_MEMORY};
use crate::audit::{Actor, Event, LogKeys, Operation, Pseudonym, Reason, Resource, Source};
use crate::auth::{Action, Caller, Permit, Target, authorize};
use crate::commit::{Change, Receipt};
use crate::keyring::{Keyring, Tenant};
use crate::model::{
    EntryKey, Owner, Revision, SessionId, StreamName, TenantId, TenantName, TenantRef, TokenName,
};
use crate::store::{Batch, keys};

/// Domains of pseudonyms: the same text in two domains has two pseudonyms.
mod domain {
    pub(super) const PRINCIPAL: &str = "principal";
    pub(super) const OWNER: &str = "owner";
    pub(super) const SESSION: &str = "session";
    pub(super) const ADDRESS: &str = "address";
}

/// Whom or what an event is about, as a search names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// On whose credentials it was done, as [`Principal::id`](crate::auth::Principal::id) names them.
    Principal(String),
    /// The owner that was presented.
    Owner(Owner),
    /// The session.
    Session(SessionId),
    /// The entry.
    Entry(EntryKey),
    /// The stream.
    Stream(StreamName),
    /// The token that was made or revoked.
    Token(TokenName),
    /// Where the request came from.
    Address(IpAddr),
    /// Anything, by its pseudonym in the log.
    Pseudonym(Pseudonym),
}

impl Subject {
    /// Its pseudonym in a log.
    pub(super) fn pseudonym(&self, log: &LogKeys) -> Pseudonym {
        match self {
            Self::Principal(id) => log.pseudonym(domain::PRINCIPAL, &[id.as_bytes()]),
            Self::Owner(owner) => owner_pseudonym(log, owner),
            Self::Session(id) => log.pseudonym(domain::SESSION, &[id.as_bytes()]),
            Self::Entry(key) => log.pseudonym(names::ENTRY, &[key.as_str().as_bytes()]),
            Self::Stream(name) => log.pseudonym(names::STREAM, &[name.as_str().as_bytes()]),
            Self::Token(name) => log.pseudonym(names::TOKEN, &[name.as_str().as_bytes()]),
            Self::Address(address) => address_pseudonym(log, *address),
            Self::Pseudonym(pseudonym) => *pseudonym,
        }
    }
}

fn owner_pseudonym(log: &LogKeys, owner: &Owner) -> Pseudonym {
    let parts = [owner.issuer().as_bytes(), owner.client_id().as_bytes(), owner.subject().as_bytes()];
    log.pseudonym(domain::OWNER, &parts)
}

fn address_pseudonym(log: &LogKeys, address: IpAddr) -> Pseudonym {
    log.pseudonym(domain::ADDRESS, &[address.to_string().as_bytes()])
}

/// The keys of the server's own log.
pub(super) fn system_log(keyring: &Keyring) -> LogKeys {
    let system = keyring.system();
    LogKeys {
        store: keyring.store_id(),
        tenant: TenantRef::SYSTEM,
        epoch: system.audit_epoch(),
        audit: Arc::clone(system.audit()),
        pseudonym: Arc::clone(system.pseudonym()),
        pseudonym_version: system.pseudonym_version(),
    }
}

/// A use case under way: the log that it is written to, and the event as far as it is known.
#[derive(Clone)]
pub(super) struct Attempt<'a> {
    service: &'a Service,
    log: Arc<LogKeys>,
    pub(super) event: Event,
}

impl Service {
    /// Decides whether a caller may do `A` to a tenant, by name.
    ///
    /// # Errors
    /// [`Failure`] when it may not, which is on record then.
    pub async fn permit<A: Action>(&self, caller: &Arc<Caller>, tenant: &str) -> Result<Permit<A>, Failure> {
        let target = TenantName::new(tenant).map(Target::Tenant);
        match target.map_err(|problem| Error::invalid("tenant", problem)) {
            Ok(target) => self.permit_target(caller, target).await,
            Err(error) => Err(self.denied::<A>(caller, error).await),
        }
    }

    /// Decides whether a caller may do `A` to the server itself.
    ///
    /// # Errors
    /// As for [`Service::permit`].
    pub async fn permit_server<A: Action>(&self, caller: &Arc<Caller>) -> Result<Permit<A>, Failure> {
        self.permit_target(caller, Target::Server).await
    }

    async fn permit_target<A: Action>(
        &self,
        caller: &Arc<Caller>,
        target: Target,
    ) -> Result<Permit<A>, Failure> {
        let server = target == Target::Server;
        match authorize(caller, target) {
            Ok(permit) => Ok(permit),
            // That the server exists is no secret, so that who lacks a right to it may know that.
            Err(_) if server => Err(self.denied::<A>(caller, Error::PermissionDenied(A::SCOPE)).await),
            Err(denied) => Err(self.denied::<A>(caller, denied.into()).await),
        }
    }

    async fn denied<A: Action>(&self, caller: &Caller, error: Error) -> Failure {
        let mut attempt = self.system_attempt(caller, Operation::AuthorizationDeny);
        attempt.event.scope = Some(A::SCOPE);
        attempt.fail(error).await
    }

    /// Puts a request that was malformed on record.
    pub async fn refuse(&self, caller: &Caller, operation: Operation, error: Error) -> Failure {
        self.system_attempt(caller, operation).fail(error).await
    }

    /// Begins a use case on a tenant.
    pub(super) async fn attempt<A: Action>(
        &self,
        permit: &Permit<A>,
        operation: Operation,
    ) -> Result<(Attempt<'_>, Arc<Tenant>), Failure> {
        let tenant = match permit.target() {
            Target::Tenant(name) => self.find_tenant(name).await,
            Target::Server => Err(Error::Internal),
        };
        self.attempt_found(permit, tenant, operation).await
    }

    /// Begins a use case on a tenant that is named by its id, also on one that is destroyed.
    pub(super) async fn attempt_by_id<A: Action>(
        &self,
        permit: &Permit<A>,
        id: TenantId,
        operation: Operation,
    ) -> Result<(Attempt<'_>, Arc<Tenant>), Failure> {
        let tenant = match self.tenant_of(&keys::tenant(id)).await {
            Ok(tenant) => tenant.ok_or(Error::TenantNotFound),
            Err(error) => Err(error),
        };
        self.attempt_found(permit, tenant, operation).await
    }

    async fn attempt_found<A: Action>(
        &self,
        permit: &Permit<A>,
        tenant: Result<Arc<Tenant>, Error>,
        operation: Operation,
    ) -> Result<(Attempt<'_>, Arc<Tenant>), Failure> {
        let mut attempt = match &tenant {
            Ok(tenant) => self.attempt_on(self.log_of(tenant), permit.caller(), operation),
            Err(_) => self.system_attempt(permit.caller(), operation),
        };
        attempt.event.scope = Some(A::SCOPE);
        match tenant {
            Ok(tenant) => Ok((attempt, tenant)),
            Err(error) => Err(attempt.fail(error).await),
        }
    }

    /// Begins a use case on the server itself.
    pub(super) fn server_attempt<A: Action>(&self, permit: &Permit<A>, operation: Operation) -> Attempt<'_> {
        let mut attempt = self.system_attempt(permit.caller(), operation);
        attempt.event.scope = Some(A::SCOPE);
        attempt
    }

    /// Begins something that the server does by itself, in a tenant's log.
    pub(super) fn own_attempt(&self, tenant: &Tenant, operation: Operation) -> Attempt<'_> {
        let mut event = Event::new(operation);
        event.actor = Some(Actor::System);
        Attempt { service: self, log: self.log_of(tenant), event }
    }

    /// Begins something that the server does by itself, in its own log.
    pub(super) fn own_server_attempt(&self, operation: Operation) -> Attempt<'_> {
        let mut event = Event::new(operation);
        event.actor = Some(Actor::System);
        Attempt { service: self, log: Arc::clone(&self.system_log), event }
    }

    /// Begins something that a caller does, in the server's own log.
    pub(super) fn system_attempt(&self, caller: &Caller, operation: Operation) -> Attempt<'_> {
        self.attempt_on(Arc::clone(&self.system_log), caller, operation)
    }

    /// Begins something that a caller does, in a log.
    pub(super) fn attempt_on(&self, log: Arc<LogKeys>, caller: &Caller, operation: Operation) -> Attempt<'_> {
        let mut event = Event::new(operation);
        let principal = log.pseudonym(domain::PRINCIPAL, &[caller.principal.id().as_bytes()]);
        event.actor = Some(Actor::Token(principal));
        event.trace = caller.trace;
        event.source =
            caller.source.map(|source| Source { ip: address_pseudonym(&log, source.address), tls: None });
        Attempt { service: self, log, event }
    }

    /// The keys of a tenant's log.
    pub(super) fn log_of(&self, tenant: &Tenant) -> Arc<LogKeys> {
        let (id, epoch) = (tenant.tenant_ref(), tenant.audit_epoch());
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        // The keys of a row that was stored anew are opened anew: those from before are not kept beside them.
        let same = |log: &&Arc<LogKeys>| {
            log.tenant == id && log.epoch == epoch && Arc::ptr_eq(&log.audit, tenant.audit())
        };
        if let Some(log) = logs.get(&id.id).filter(same) {
            return Arc::clone(log);
        }
        let log = Arc::new(LogKeys {
            store: self.keyring.store_id(),
            tenant: id,
            epoch,
            audit: Arc::clone(tenant.audit()),
            pseudonym: Arc::clone(tenant.pseudonym()),
            pseudonym_version: tenant.pseudonym_version(),
        });
        if logs.len() >= TENANTS_IN_MEMORY {
            logs.clear();
        }
        logs.insert(id.id, Arc::clone(&log));
        log
    }

    /// Puts a refused authentication on record; those from one address and minute become one event.
    ///
    /// # Errors
    /// [`Error`] when the access log cannot be written.
    pub async fn record_refusal(&self, address: IpAddr) -> Result<(), Error> {
        let event = self.authentication_failure(address).denied(Reason::Unauthenticated);
        self.record_own(self.refusals.record(event, self.clock.now())).await
    }

    /// Puts on record that a token was presented whose row does not open.
    pub async fn record_damaged_token(&self, address: IpAddr) -> Failure {
        let event = self.authentication_failure(address);
        self.again(&self.system_log, event).fail(Error::Integrity).await
    }

    fn authentication_failure(&self, address: IpAddr) -> Event {
        let source = Some(Source { ip: address_pseudonym(&self.system_log, address), tls: None });
        Event { source, ..Event::new(Operation::AuthenticationFail) }
    }

    /// Goes on with something that is on record already, to say that it failed after that.
    pub(super) fn again(&self, log: &Arc<LogKeys>, event: Event) -> Attempt<'_> {
        Attempt { service: self, log: Arc::clone(log), event }
    }

    /// Puts counted refusals of past minutes on record.
    pub(super) async fn record_past_refusals(&self) -> Result<(), Error> {
        self.record_own(self.refusals.flush(self.clock.now())).await
    }

    /// Puts everything on record that was only counted so far, and that the server stops.
    ///
    /// # Errors
    /// [`Error`] when the access log cannot be written.
    pub async fn record_stop(&self) -> Result<(), Error> {
        self.record_own(self.refusals.finish()).await?;
        self.own_server_attempt(Operation::SystemStop).record().await.map(|_| ())
    }

    /// Puts on record that the server has started.
    ///
    /// # Errors
    /// [`Error`] when the access log cannot be written.
    pub async fn record_start(&self) -> Result<(), Error> {
        self.own_server_attempt(Operation::SystemStart).record().await.map(|_| ())
    }

    /// Puts a jump of the wall clock on record, when there was one.
    pub(super) async fn record_clock(&self) -> Result<(), Error> {
        let Some(jump) = self.clock.take_jump() else {
            return Ok(());
        };
        tracing::error!(
            expected_ms = jump.expected.as_millis(),
            found_ms = jump.found.as_millis(),
            "the wall clock jumped and is not followed"
        );
        self.own_server_attempt(Operation::SystemClock).record().await.map(|_| ())
    }

    async fn record_own(&self, events: Vec<Event>) -> Result<(), Error> {
        for event in events {
            Attempt { service: self, log: Arc::clone(&self.system_log), event }.record().await?;
        }
        Ok(())
    }
}

impl Attempt<'_> {
    /// Says which session this is about.
    pub(super) fn about_session(&mut self, name: &SessionName) {
        self.event.session = Some(self.log.pseudonym(domain::SESSION, &[name.id.as_bytes()]));
        self.event.owner = name.owner.as_ref().map(|owner| owner_pseudonym(&self.log, owner));
    }

    /// Says which entry, stream or token this is about.
    pub(super) fn about(&mut self, domain: &'static str, name: &str) {
        self.about_pseudonym(self.log.pseudonym(domain, &[name.as_bytes()]));
    }

    /// The same, of one whose pseudonym is known.
    pub(super) fn about_pseudonym(&mut self, name: Pseudonym) {
        let resource = self.event.resource.unwrap_or_default();
        self.event.resource = Some(Resource { name: Some(name), ..resource });
    }

    /// Says which revision was read or made.
    pub(super) fn at_revision(&mut self, revision: Revision) {
        let mut resource = self.event.resource.unwrap_or_default();
        resource.revision = Some(revision);
        self.event.resource = Some(resource);
    }

    /// The same, of a revision as callers see it.
    pub(super) fn seen_revision(&mut self, revision: u64) {
        if let Some(revision) = Revision::new(revision) {
            self.at_revision(revision);
        }
    }

    /// Says how many things were touched.
    pub(super) fn touched(&mut self, items: usize) {
        let resource = self.event.resource.unwrap_or_default();
        self.event.resource = Some(Resource { items: items as u64, ..resource });
    }

    /// The keys of the log that this is written to.
    pub(super) const fn log(&self) -> &Arc<LogKeys> {
        &self.log
    }

    /// Commits rows together with the event that says that this was done.
    pub(super) async fn commit(
        &self,
        batch: Batch,
        committed: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<Receipt, Error> {
        self.commit_events(batch, vec![self.event], committed).await
    }

    /// Commits rows together with several events.
    pub(super) async fn commit_events(
        &self,
        batch: Batch,
        events: Vec<Event>,
        committed: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<Receipt, Error> {
        let events = events.into_iter().map(|event| (Arc::clone(&self.log), event)).collect();
        Ok(self.service.committer.commit(Change { batch, events, committed }).await?)
    }

    /// Commits the event alone.
    pub(super) async fn record(&self) -> Result<Receipt, Error> {
        self.commit(Batch::default(), None).await
    }

    /// Turns the outcome into an answer; a failure is put on record first.
    pub(super) async fn close<T>(self, outcome: Result<(T, Receipt), Error>) -> Result<Answer<T>, Failure> {
        match outcome {
            Ok((value, receipt)) => Ok(Answer { value, receipt }),
            Err(error) => Err(self.fail(error).await),
        }
    }

    /// The same for what may have nothing to record.
    pub(super) async fn close_part<T>(
        self,
        outcome: Result<(T, Option<Receipt>), Error>,
    ) -> Result<(T, Option<Receipt>), Failure> {
        match outcome {
            Ok(part) => Ok(part),
            Err(error) => Err(self.fail(error).await),
        }
    }

    /// Puts the failure on record.
    pub(super) async fn fail(mut self, error: Error) -> Failure {
        if matches!(error, Error::Integrity) {
            self.service.counters.integrity_failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(operation = self.event.operation.name(), "a stored record did not open");
        }
        let reason = error.reason();
        // What could not be committed for want of a committer cannot be recorded by it either.
        if matches!(reason, Reason::Overloaded | Reason::AuditUnavailable) {
            return Failure { error, receipt: None };
        }
        self.event = without_effect(self.event);
        self.event = if error.is_denial() { self.event.denied(reason) } else { self.event.failed(reason) };
        match self.record().await {
            Ok(receipt) => Failure { error, receipt: Some(receipt) },
            // That the volume is full tells nobody anything that needed a record.
            Err(Error::AuditUnavailable) if matches!(error, Error::StorageFull) => {
                Failure { error, receipt: None }
            }
            // Not even a refusal is answered without a record: a flood must not be a way to try things unseen.
            Err(unrecorded) => Failure { error: unrecorded, receipt: None },
        }
    }
}

/// The event without what an operation would have brought about, had it not failed.
const fn without_effect(event: Event) -> Event {
    let resource = match event.resource {
        Some(resource) => Some(Resource { revision: None, ..resource }),
        None => None,
    };
    Event { resource, bytes_out: 0, content_hash: None, dek: None, kek: None, ..event }
}

/// Tries a step again while it loses races, up to [`RACE_RETRIES`](crate::model::limits::RACE_RETRIES) times.
macro_rules! until_won {
    ($step:expr) => {{
        let mut outcome = Err($crate::service::Error::Contended);
        for _ in 0..$crate::model::limits::RACE_RETRIES {
            outcome = $step;
            if !matches!(outcome, Err($crate::service::Error::Contended)) {
                break;
            }
        }
        outcome
    }};
}
pub(super) use until_won;
