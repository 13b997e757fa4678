//! Sessions: a context with an owner and a lifetime, named by a handle.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;

use super::answers::{AnswerKey, Slot};
use super::attempt::{Attempt, until_won};
use super::cursor::{CursorScope, page_size};
use super::expiry::Bounds;
use super::hub::Announcement;
use super::opened::{Opened, SessionRow, control_id, move_expiry};
use super::payload::{SessionPayload, StoredOwner, TombstonePayload, stored_labels};
use super::view::{Answer, Page, PageRequest, Repeat, SessionDescription, SessionName};
use super::{Error, Failure, Service};
use crate::audit::Operation;
use crate::auth::{ListSessions, Permit, PurgeSensitive, Read, Write};
use crate::commit::Receipt;
use crate::crypto::{BodyDek, ControlKey};
use crate::keyring::Tenant;
use crate::model::limits::{PAGE_SCAN_ROWS, SESSION_TTL_DEFAULT, SESSION_TTL_MIN, TTL_MAX};
use crate::model::{Duration, Labels, MutationExpiry, Owner, Revision, SessionId, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, keys};

/// Random bytes in a minted handle.
const HANDLE_BYTES: usize = 24;

/// How long a session shall live.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// Its absolute end.
    pub absolute: MutationExpiry,
    /// How long it may be left unused; `None`: not said, zero: for ever.
    pub idle: Option<Duration>,
}

/// A session to create.
#[derive(Debug, Clone)]
pub struct CreateSession {
    /// The handle; `None`: one is minted.
    pub id: Option<SessionId>,
    /// The user who owns it.
    pub owner: Option<Owner>,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Labels.
    pub labels: Labels,
}

/// Changes of a session.
#[derive(Debug, Clone)]
pub struct UpdateSession {
    /// Lifetime, from now on.
    pub lifetime: Lifetime,
    /// Labels, in place of all there are.
    pub labels: Option<Labels>,
    /// The revision that the metadata must have.
    pub expect: Option<Revision>,
}

const ABSOLUTE: Bounds = Bounds { field: "expiration", min: SESSION_TTL_MIN, max: TTL_MAX };
const IDLE: Bounds = Bounds { field: "idle_ttl", min: SESSION_TTL_MIN, max: TTL_MAX };

impl Service {
    /// Opens a session.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when the tenant has a live session with this handle.
    pub async fn create_session(
        &self,
        permit: &Permit<Write>,
        create: &CreateSession,
        repeat: Option<Repeat>,
    ) -> Result<Answer<SessionDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::SessionCreate).await?;
        let outcome = match self.session_name(create) {
            Ok(name) => {
                attempt.about_session(&name);
                let slot = repeat.map(|repeat| self.tenant_slot(&tenant, permit, repeat));
                until_won!(
                    self.create_session_once(&mut attempt, &tenant, &name, create, slot.as_ref()).await
                )
            }
            Err(error) => Err(error),
        };
        attempt.close(outcome).await
    }

    fn session_name(&self, create: &CreateSession) -> Result<SessionName, Error> {
        let id = match &create.id {
            Some(id) => id.clone(),
            None => {
                let mut random = [0; HANDLE_BYTES];
                self.entropy.fill(&mut random)?;
                SessionId::new(format!("srs_{}", BASE64URL_NOPAD.encode(&random)))
                    .map_err(|_| Error::Internal)?
            }
        };
        Ok(SessionName { id, owner: create.owner.clone() })
    }

    /// The slot of a request whose answer must outlive the session.
    fn tenant_slot<A>(&self, tenant: &Tenant, permit: &Permit<A>, repeat: Repeat) -> Slot {
        Slot::new(tenant.index(), tenant.tenant_ref(), permit.caller(), repeat, self.clock.now())
    }

    async fn create_session_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        create: &CreateSession,
        slot: Option<&Slot>,
    ) -> Result<(SessionDescription, Receipt), Error> {
        let id = Self::blind_session(tenant, &name.id);
        let key = keys::session(tenant.tenant_ref().id, &id);
        let mut wanted = vec![tenant.row_key().clone(), key.clone()];
        wanted.extend(slot.iter().flat_map(|slot| slot.keys()));
        let mut rows = self.engine.multi_get(&wanted).await?;
        let answers = rows.split_off(2.min(rows.len()));
        let row = rows.pop().flatten();
        let (tenant, tenant_row) = self.usable_tenant(tenant, rows.pop().flatten()).await?;
        if let Some(slot) = slot
            && let Some(given) = slot.given(self, &control_answers(&tenant), &answers)?
        {
            return Ok((given, attempt.record().await?));
        }
        if let Some(row) = &row {
            self.make_way(&tenant, &key, row).await?;
        }

        let session = self.new_session(name, create)?;
        let revision = row.as_ref().map_or(Ok(Revision::FIRST), |row| row.revision().map(Revision::next))?;
        self.may_make_keys()?;
        let wrapped = self.keyring.create_session_keys(&tenant, &key)?;
        let metadata = self.seal_session(&tenant, &key, &wrapped.keys, revision, &session)?;
        let description = SessionDescription::new(&session);
        attempt.event.kek = tenant.primary();
        attempt.event.dek = Some(wrapped.keys.body_id());

        let mut batch = Batch::default();
        // The key version that the session's keys were wrapped under must still be the primary one.
        batch.expect.push((tenant.row_key().clone(), RowExpect::unchanged(Some(&tenant_row))));
        batch.expect.push((key.clone(), RowExpect::unchanged(row.as_ref())));
        batch.put.push((keys::expiry(session.end(), &key), Row::marker()));
        batch.put.push((key, Row::new(revision, &[&wrapped.body, &wrapped.sensitive, &metadata])));
        if let Some(slot) = slot {
            slot.give(self, &control_answers(&tenant), &description, &mut batch)?;
        }
        Ok((description, attempt.commit(batch, None).await?))
    }

    /// Checks that a session row which is there is one that may be replaced, with nothing of it left behind.
    async fn make_way(&self, tenant: &Tenant, key: &Key, row: &Row) -> Result<(), Error> {
        match self.open_session_row(tenant, key, row)? {
            SessionRow::Live { session, .. } if session.end() > self.clock.now() => Err(Error::AlreadyExists),
            SessionRow::Live { session, .. } => {
                self.expire_session(tenant, key, row, &session).await?;
                Err(Error::Contended)
            }
            SessionRow::Ended(_) => {
                while self.reclaim_session(tenant, key).await? {}
                Ok(())
            }
        }
    }

    fn new_session(&self, name: &SessionName, create: &CreateSession) -> Result<SessionPayload, Error> {
        let now = self.clock.now();
        let idle = create.lifetime.idle.unwrap_or_default();
        if create.lifetime.idle.is_some() {
            IDLE.span(idle)?;
        }
        let absolute =
            ABSOLUTE.end(create.lifetime.absolute, now)?.unwrap_or_else(|| now.after(SESSION_TTL_DEFAULT));
        Ok(SessionPayload {
            id: name.id.as_str().to_owned(),
            owner: name.owner.as_ref().map(StoredOwner::from),
            created: now.as_millis(),
            absolute_end: absolute.as_millis(),
            idle_ttl: millis(idle),
            idle_end: now.after(idle).as_millis(),
            labels: stored_labels(&create.labels),
            revision: 1,
            purged: false,
            rekeyed: None,
        })
    }

    /// Returns a session's metadata.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionExpired`].
    pub async fn get_session(
        &self,
        permit: &Permit<Read>,
        name: &SessionName,
    ) -> Result<Answer<SessionDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::SessionRead).await?;
        attempt.about_session(name);
        let outcome = async {
            let opened = self.open_session(&tenant, name, |_| Vec::new()).await?;
            Ok((describe(&opened), attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// Changes a session's lifetime or labels.
    ///
    /// # Errors
    /// [`Error::RevisionMismatch`] when the metadata has another revision than expected.
    pub async fn update_session(
        &self,
        permit: &Permit<Write>,
        name: &SessionName,
        update: &UpdateSession,
        repeat: Option<Repeat>,
    ) -> Result<Answer<SessionDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::SessionUpdate).await?;
        attempt.about_session(name);
        let slot = repeat.map(|repeat| self.tenant_slot(&tenant, permit, repeat));
        let outcome = until_won!(self.update_once(&attempt, &tenant, name, update, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn update_once(
        &self,
        attempt: &Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        update: &UpdateSession,
        slot: Option<&Slot>,
    ) -> Result<(SessionDescription, Receipt), Error> {
        let opened = self.open_session(tenant, name, |_| slot_keys(slot)).await?;
        if let Some(given) = opened.given(self, slot, &opened.rows)? {
            return Ok((given, attempt.record().await?));
        }
        let current = Revision::new(opened.session.revision);
        if update.expect.is_some() && update.expect != current {
            return Err(Error::RevisionMismatch { current });
        }
        let session = updated(&opened, update)?;
        let mut batch = opened.batch();
        move_expiry(&mut batch, &opened.key, opened.session.end(), session.end());
        batch.put.push((opened.key.clone(), self.replaced(&opened, &session)?));
        let description = SessionDescription::new(&session);
        opened.give(self, slot, &description, &mut batch)?;
        Ok((description, attempt.commit(batch, None).await?))
    }

    /// Lists the live sessions of a tenant.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong page token.
    pub async fn list_sessions(
        &self,
        permit: &Permit<ListSessions>,
        owner: Option<&Owner>,
        page: &PageRequest,
    ) -> Result<Answer<Page<SessionDescription>>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::SessionList).await?;
        let outcome = self.list_sessions_once(&mut attempt, &tenant, owner, page).await;
        attempt.close(outcome).await
    }

    async fn list_sessions_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        owner: Option<&Owner>,
        page: &PageRequest,
    ) -> Result<(Page<SessionDescription>, Receipt), Error> {
        let (_, row) = self.fresh_tenant(tenant).await?;
        let (tenant, _) = self.usable_tenant(tenant, Some(row)).await?;
        let scope = list_scope(&tenant, owner);
        let after = scope.open(self, &page.token)?.map(Key::from_stored);
        let mut walk = self.sessions_of(&tenant, after);
        let now = self.clock.now();
        let size = page_size(page.size);
        let mut items = Vec::new();
        let mut exhausted = false;
        for _ in 0..PAGE_SCAN_ROWS {
            if items.len() == size {
                break;
            }
            let Some((key, row)) = walk.next().await? else {
                exhausted = true;
                break;
            };
            if let SessionRow::Live { session, .. } = self.open_session_row(&tenant, &key, &row)?
                && session.end() > now
                && owner.is_none_or(|owner| session.owner.as_ref().is_some_and(|stored| stored.is(owner)))
            {
                items.push(SessionDescription::new(&session));
            }
        }
        let next = match walk.place() {
            Some(after) if !exhausted => scope.seal(self, after.as_bytes())?,
            Some(_) | None => String::new(),
        };
        attempt.touched(items.len());
        Ok((Page { items, next }, attempt.record().await?))
    }

    /// Erases a session: its keys go with this commit, its rows soon after.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionExpired`].
    pub async fn delete_session(
        &self,
        permit: &Permit<Write>,
        name: &SessionName,
        repeat: Option<Repeat>,
    ) -> Result<Answer<()>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::SessionDelete).await?;
        attempt.about_session(name);
        let slot = repeat.map(|repeat| self.tenant_slot(&tenant, permit, repeat));
        let outcome = until_won!(self.delete_once(&attempt, &tenant, name, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn delete_once(
        &self,
        attempt: &Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        slot: Option<&Slot>,
    ) -> Result<((), Receipt), Error> {
        if let Some(slot) = slot
            && self.was_deleted(tenant, slot).await?
        {
            return Ok(((), attempt.record().await?));
        }
        let opened = self.open_session(tenant, name, |_| Vec::new()).await?;
        let ended = opened.now.as_millis();
        let tombstone = TombstonePayload { owner: opened.session.owner.clone(), ended, deleted: true };
        let mut batch = opened.batch();
        move_expiry(&mut batch, &opened.key, opened.session.end(), opened.now);
        let revision = opened.row.revision()?.next();
        let row = self.seal_tombstone(&opened.tenant, &opened.key, revision, &tombstone)?;
        batch.put.push((opened.key.clone(), row));
        if let Some(slot) = slot {
            slot.give(self, &control_answers(&opened.tenant), &(), &mut batch)?;
        }
        let ending = self.ending(&opened.tenant, opened.id, &opened.key);
        Ok(((), attempt.commit(batch, Some(ending)).await?))
    }

    /// Whether this request deleted the session already. The tenant must still be one whose data may be used.
    async fn was_deleted(&self, tenant: &Tenant, slot: &Slot) -> Result<bool, Error> {
        let [now, before] = slot.keys();
        let [row, now, before] = self.read([tenant.row_key().clone(), now, before]).await?;
        let (tenant, _) = self.usable_tenant(tenant, row).await?;
        Ok(slot.given::<()>(self, &control_answers(&tenant), &[now, before])?.is_some())
    }

    /// Drops the key of the sensitive part of a session that stays active.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionExpired`].
    pub async fn purge_sensitive(
        &self,
        permit: &Permit<PurgeSensitive>,
        name: &SessionName,
        repeat: Option<Repeat>,
    ) -> Result<Answer<SessionDescription>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::SessionPurge).await?;
        attempt.about_session(name);
        let slot = repeat.map(|repeat| self.tenant_slot(&tenant, permit, repeat));
        let outcome = until_won!(self.purge_once(&attempt, &tenant, name, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn purge_once(
        &self,
        attempt: &Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        slot: Option<&Slot>,
    ) -> Result<(SessionDescription, Receipt), Error> {
        let opened = self.open_session(tenant, name, |_| slot_keys(slot)).await?;
        if let Some(given) = opened.given(self, slot, &opened.rows)? {
            return Ok((given, attempt.record().await?));
        }
        let mut session = SessionPayload::clone(&opened.session);
        session.revision += 1;
        session.purge();
        let mut batch = opened.batch();
        batch.put.push((opened.key.clone(), self.without_sensitive(&opened, &session)?));
        let description = SessionDescription::new(&session);
        opened.give(self, slot, &description, &mut batch)?;
        let (keyring, key) = (Arc::clone(&self.keyring), opened.key.clone());
        let forget: Announcement = Box::new(move || keyring.forget_session_keys(&key));
        Ok((description, attempt.commit(batch, Some(forget)).await?))
    }
}

impl Opened {
    fn answers(&self) -> AnswerKey<'_, BodyDek> {
        let former = self.former.as_ref().map(|former| (former.body(), former.body_id()));
        AnswerKey { key: self.keys.body(), id: self.keys.body_id(), former }
    }

    /// The answer that a request got before, from the rows under the slot's keys.
    pub(super) fn given<T: serde::de::DeserializeOwned>(
        &self,
        service: &Service,
        slot: Option<&Slot>,
        rows: &[Option<Row>],
    ) -> Result<Option<T>, Error> {
        slot.map_or(Ok(None), |slot| slot.given(service, &self.answers(), rows))
    }

    /// Adds an answer, to be erased with the session.
    pub(super) fn give<T: serde::Serialize>(
        &self,
        service: &Service,
        slot: Option<&Slot>,
        answer: &T,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        slot.map_or(Ok(()), |slot| slot.give(service, &self.answers(), answer, batch))
    }

    /// The slot of a request within the session.
    pub(super) fn name_slot<A>(
        service: &Service,
        tenant: &Tenant,
        permit: &Permit<A>,
        repeat: Repeat,
    ) -> Slot {
        service.tenant_slot(tenant, permit, repeat)
    }
}

/// Answers that must outlive the session are sealed under the tenant's key.
fn control_answers(tenant: &Tenant) -> AnswerKey<'_, ControlKey> {
    AnswerKey { key: tenant.control(), id: control_id(tenant), former: None }
}

/// The keys of a slot, if there is one.
pub(super) fn slot_keys(slot: Option<&Slot>) -> Vec<Key> {
    slot.map(|slot| slot.keys().to_vec()).unwrap_or_default()
}

fn describe(opened: &Opened) -> SessionDescription {
    SessionDescription::new(&opened.session)
}

fn updated(opened: &Opened, update: &UpdateSession) -> Result<SessionPayload, Error> {
    let mut session = SessionPayload::clone(&opened.session);
    if let Some(end) = ABSOLUTE.end(update.lifetime.absolute, opened.now)? {
        session.absolute_end = end.as_millis();
    }
    if let Some(idle) = update.lifetime.idle {
        if !idle.is_zero() {
            IDLE.span(idle)?;
        }
        session.idle_ttl = millis(idle);
        session.idle_end = opened.now.after(idle).as_millis();
    }
    if let Some(labels) = &update.labels {
        session.labels = stored_labels(labels);
    }
    session.revision += 1;
    Ok(session)
}

fn list_scope<'a>(tenant: &'a Tenant, owner: Option<&Owner>) -> CursorScope<'a> {
    let mut request = b"sessions".to_vec();
    for part in owner.iter().flat_map(|owner| [owner.issuer(), owner.client_id(), owner.subject()]) {
        request.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        request.extend_from_slice(part.as_bytes());
    }
    CursorScope { key: tenant.control(), tenant: tenant.tenant_ref(), field: "page_token", request }
}

fn millis(span: Duration) -> u64 {
    Timestamp::default().after(span).as_millis()
}
