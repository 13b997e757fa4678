//! Tenants: found by name, created, suspended, resumed. What destroys them is in [`destroy`](super::destroy).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::answers::{AnswerKey, Slot};
use super::attempt::{Attempt, until_won};
use super::cursor::{CursorScope, page_size};
use super::opened::domain;
use super::payload::{self, TenantNamePayload};
use super::view::{Answer, Page, PageRequest, Repeat};
use super::{Error, Failure, Service, TENANTS_IN_MEMORY};
use crate::audit::Operation;
use crate::auth::{ManageTenants, Permit};
use crate::commit::Receipt;
use crate::crypto::{ControlKey, Header, KeyId, Kind, Place, open, seal};
use crate::keyring::{KeyringError, Tenant, TenantChange};
use crate::model::{Revision, TenantId, TenantName, TenantRef, TenantState, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, Table, keys};
use serde::{Deserialize, Serialize};

/// Finds a tenant's row by its name. What it remembers never changes while the tenant lives: name, id and index key.
#[derive(Default)]
pub(super) struct TenantDirectory(Mutex<Directory>);

#[derive(Default)]
struct Directory {
    tenants: HashMap<TenantName, Arc<Tenant>>,
    /// How often something was forgotten: what was read before that may be of a tenant that is gone.
    forgotten: u64,
}

impl TenantDirectory {
    fn known(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.directory().tenants.get(name).map(Arc::clone)
    }

    fn forgotten(&self) -> u64 {
        self.directory().forgotten
    }

    /// Remembers a tenant, unless something was forgotten since its rows were read.
    fn learn(&self, tenant: &Arc<Tenant>, forgotten: u64) {
        let mut directory = self.directory();
        if directory.forgotten != forgotten {
            return;
        }
        if directory.tenants.len() >= TENANTS_IN_MEMORY {
            directory.tenants.clear();
        }
        directory.tenants.insert(tenant.name().clone(), Arc::clone(tenant));
    }

    /// Remembers what a tenant has become, if it is the one that is remembered under its name, as it was before.
    pub(super) fn renew(&self, tenant: &Arc<Tenant>) {
        if let Some(known) = self.directory().tenants.get_mut(tenant.name())
            && known.tenant_ref() == tenant.tenant_ref()
            && known.revision() < tenant.revision()
        {
            *known = Arc::clone(tenant);
        }
    }

    pub(super) fn forget(&self, name: &TenantName) {
        let mut directory = self.directory();
        directory.forgotten += 1;
        directory.tenants.remove(name);
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tenant as administrators see it.
#[derive(Clone, Serialize, Deserialize)]
pub struct TenantDescription {
    /// Name.
    pub name: String,
    /// Id.
    pub id: [u8; 16],
    /// Whether its data may be used.
    pub state: TenantState,
    /// When it was created, in milliseconds since 1970.
    pub created: u64,
    /// Version of its primary key; 0: it is destroyed.
    pub primary: u32,
    /// Epoch of its access log.
    pub audit_epoch: u32,
    /// How often new key versions are made by themselves, in milliseconds; 0: never.
    pub rotation_every: u64,
    /// When next, in milliseconds since 1970.
    pub rotation_next: u64,
    /// When it will be destroyed, or was, in milliseconds since 1970; 0: neither.
    pub destroy_at: u64,
    /// Whether versions of its key can be exported.
    pub exportable: bool,
}

impl TenantDescription {
    pub(super) fn new(tenant: &Tenant) -> Self {
        let rotation = tenant.rotation();
        let every = rotation.map_or(0, |rotation| rotation.every.as_millis());
        Self {
            name: tenant.name().as_str().to_owned(),
            id: tenant.tenant_ref().id.0,
            state: tenant.state(),
            created: tenant.created().as_millis(),
            primary: tenant.primary().map_or(0, |version| version.0),
            audit_epoch: tenant.audit_epoch(),
            rotation_every: u64::try_from(every).unwrap_or(u64::MAX),
            rotation_next: rotation.map_or(0, |rotation| rotation.next.as_millis()),
            destroy_at: tenant.destroy_at().map_or(0, Timestamp::as_millis),
            exportable: tenant.exportable(),
        }
    }
}

/// What can be done to a tenant and taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantVerb {
    /// Its data may not be used.
    Suspend,
    /// Its data may be used again.
    Resume,
    /// It is not destroyed.
    Undestroy,
}

impl TenantVerb {
    const fn operation(self) -> Operation {
        match self {
            Self::Suspend => Operation::TenantSuspend,
            Self::Resume => Operation::TenantResume,
            Self::Undestroy => Operation::TenantCancel,
        }
    }

    const fn change(self) -> TenantChange {
        match self {
            Self::Suspend => TenantChange::Suspend,
            Self::Resume => TenantChange::Resume,
            Self::Undestroy => TenantChange::Cancel,
        }
    }
}

impl Service {
    /// Finds a tenant by name, whatever its state.
    pub(super) async fn find_tenant(&self, name: &TenantName) -> Result<Arc<Tenant>, Error> {
        if let Some(tenant) = self.tenants.known(name) {
            return Ok(tenant);
        }
        let forgotten = self.tenants.forgotten();
        let directory = self.tenant_name_key(name);
        let [row] = self.read([directory.clone()]).await?;
        let key = keys::tenant(self.open_tenant_name(&directory, &row.ok_or(Error::TenantNotFound)?)?);
        let [row] = self.read([key.clone()]).await?;
        let (tenant, _) = self.opened_tenant(&key, row.ok_or(Error::TenantNotFound)?).await?;
        if tenant.name() != name {
            return Err(Error::Integrity);
        }
        self.tenants.learn(&tenant, forgotten);
        Ok(tenant)
    }

    /// Reads a fixed number of rows.
    pub(super) async fn read<const N: usize>(&self, keys: [Key; N]) -> Result<[Option<Row>; N], Error> {
        self.engine.multi_get(&keys).await?.try_into().map_err(|_| Error::Internal)
    }

    pub(super) fn tenant_name_key(&self, name: &TenantName) -> Key {
        keys::tenant_name(&self.keyring.system().index().blind(domain::TENANT, &[name.as_bytes()]))
    }

    pub(super) fn open_tenant_name(&self, key: &Key, row: &Row) -> Result<TenantId, Error> {
        let [record] = row.exactly()?;
        let header = system_header(Kind::TenantName, row.revision()?);
        let opened = open(
            self.keyring.system().control(),
            header,
            &self.place_within(TenantRef::SYSTEM, key),
            record,
        )?;
        let found: TenantNamePayload = payload::decode(opened.as_bytes())?;
        Ok(TenantId(found.id))
    }

    /// Refuses to make keys while the root provider has been away for too long: nobody should come to depend on keys whose
    /// root may not come back.
    pub(super) fn may_make_keys(&self) -> Result<(), Error> {
        if self.root.may_make_keys() { Ok(()) } else { Err(Error::Unavailable) }
    }

    /// The place of a record in a table of a tenant's, or of the server's own.
    pub(super) fn place_within<'a>(&self, tenant: TenantRef, key: &'a Key) -> Place<'a> {
        Place { store: self.keyring.store_id(), tenant, session: &[], key: key.within_tenant() }
    }

    /// The key under which answers to administrators are remembered.
    pub(super) fn system_answer_key(&self) -> AnswerKey<'_, ControlKey> {
        AnswerKey { key: self.keyring.system().control(), id: KeyId(TenantId::SYSTEM.0), former: None }
    }

    /// The slot of an administrator's request.
    pub(super) fn system_slot<A>(&self, permit: &Permit<A>, repeat: Option<Repeat>) -> Option<Slot> {
        let index = self.keyring.system().index();
        let now = self.clock.now();
        repeat.map(|repeat| Slot::new(index, TenantRef::SYSTEM, permit.caller(), repeat, now))
    }

    /// The answer that an administrator's request got before.
    pub(super) async fn system_answer<T: serde::de::DeserializeOwned>(
        &self,
        slot: Option<&Slot>,
    ) -> Result<Option<T>, Error> {
        match slot {
            Some(slot) => slot.given(self, &self.system_answer_key(), &self.read(slot.keys()).await?),
            None => Ok(None),
        }
    }

    /// Creates a tenant with keys of its own, which may leave the store only if it is `exportable`.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when the name is taken.
    pub async fn create_tenant(
        &self,
        permit: &Permit<ManageTenants>,
        name: &TenantName,
        exportable: bool,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TenantDescription>, Failure> {
        let attempt = self.server_attempt(permit, Operation::TenantCreate);
        let slot = self.system_slot(permit, repeat);
        let outcome = until_won!(self.create_tenant_once(&attempt, name, exportable, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    /// Makes sure that a tenant of this name is there, for installations that begin with one.
    ///
    /// # Errors
    /// [`Error`] when it cannot be stored.
    pub async fn ensure_tenant(&self, name: &TenantName) -> Result<(), Error> {
        let attempt = self.own_server_attempt(Operation::TenantCreate);
        match until_won!(self.create_tenant_once(&attempt, name, false, None).await) {
            Ok(_) | Err(Error::AlreadyExists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create_tenant_once(
        &self,
        attempt: &Attempt<'_>,
        name: &TenantName,
        exportable: bool,
        slot: Option<&Slot>,
    ) -> Result<(TenantDescription, Receipt), Error> {
        if let Some(given) = self.system_answer(slot).await? {
            return Ok((given, attempt.record().await?));
        }
        let directory = self.tenant_name_key(name);
        if let [Some(_)] = self.read([directory.clone()]).await? {
            return Err(Error::AlreadyExists);
        }
        self.may_make_keys()?;
        let now = self.clock.now();
        let (key, row, tenant) = if exportable {
            self.keyring.create_exportable_tenant(name, now)?
        } else {
            self.keyring.create_tenant(name, now)?
        };
        let plain = payload::encode(&TenantNamePayload { id: tenant.tenant_ref().id.0 })?;
        let header = system_header(Kind::TenantName, Revision::FIRST);
        let place = self.place_within(TenantRef::SYSTEM, &directory);
        let record = seal(self.keyring.system().control(), header, &place, &plain, &*self.entropy)?;
        let description = TenantDescription::new(&tenant);

        let mut batch = Batch::default();
        batch.expect.extend([(directory.clone(), RowExpect::Absent), (key.clone(), RowExpect::Absent)]);
        batch.expect.push(self.keyring.expected_epoch(&row)?);
        batch.put.extend([(directory, Row::new(Revision::FIRST, &[&record])), (key, row)]);
        if let Some(slot) = slot {
            slot.give(self, &self.system_answer_key(), &description, &mut batch)?;
        }
        let receipt = attempt.commit(batch, None).await?;
        Ok((description, receipt))
    }

    /// Returns one tenant.
    ///
    /// # Errors
    /// [`Error::TenantNotFound`].
    pub async fn tenant<A: crate::auth::Action>(
        &self,
        permit: &Permit<A>,
    ) -> Result<Answer<TenantDescription>, Failure> {
        let (attempt, tenant) = self.attempt(permit, Operation::TenantRead).await?;
        let outcome = async {
            let tenant = self.fresh_tenant(&tenant).await?.0;
            Ok((TenantDescription::new(&tenant), attempt.record().await?))
        };
        let outcome = outcome.await;
        attempt.close(outcome).await
    }

    /// The tenant that a row belongs to, as it is now, also when it is destroyed.
    pub(super) async fn tenant_of(&self, row: &Key) -> Result<Option<Arc<Tenant>>, Error> {
        match row.tenant() {
            Some(id) => self.tenant_with(id).await,
            None => Ok(None),
        }
    }

    /// The tenant of that id, if there is one.
    pub(super) async fn tenant_with(&self, id: TenantId) -> Result<Option<Arc<Tenant>>, Error> {
        let key = keys::tenant(id);
        let [tenant] = self.read([key.clone()]).await?;
        match tenant {
            Some(row) => Ok(Some(self.open_tenant(&key, row).await?.0)),
            None => Ok(None),
        }
    }

    /// The tenant's row as it is now, whatever its state, while the tenant is not destroyed: its name is free then.
    pub(super) async fn fresh_tenant(&self, known: &Tenant) -> Result<(Arc<Tenant>, Row), Error> {
        let [row] = self.read([known.row_key().clone()]).await?;
        if let Some(row) = row {
            let (tenant, row) = self.tenant_now(known, row).await?;
            if tenant.state() != TenantState::Destroyed {
                return Ok((tenant, row));
            }
        }
        self.tenants.forget(known.name());
        Err(Error::TenantNotFound)
    }

    /// A tenant by its row, and the row as it is now. Whoever finds it by its name finds that from now on: what is known by name
    /// holds keys, too, and must not outlive them.
    pub(super) async fn open_tenant(&self, key: &Key, row: Row) -> Result<(Arc<Tenant>, Row), Error> {
        let (tenant, row) = self.opened_tenant(key, row).await?;
        self.tenants.renew(&tenant);
        Ok((tenant, row))
    }

    /// What a tenant that was found by its name has become by its row, and the row as it is now.
    pub(super) async fn tenant_now(&self, known: &Tenant, row: Row) -> Result<(Arc<Tenant>, Row), Error> {
        let (tenant, row) = self.opened_tenant(known.row_key(), row).await?;
        if tenant.revision() != known.revision() {
            self.tenants.renew(&tenant);
        }
        Ok((tenant, row))
    }

    /// Opens a row that was read just now. The root epoch that it was wrapped under may have ended since, and its key be gone
    /// from memory: then the row was wrapped anew before, and is read again. One that was not is damaged, or was put back.
    async fn opened_tenant(&self, key: &Key, mut row: Row) -> Result<(Arc<Tenant>, Row), Error> {
        loop {
            match self.keyring.open_tenant(key, &row) {
                Err(KeyringError::Integrity) if self.keyring.epoch_of(&row).is_err() => {
                    let [again] = self.read([key.clone()]).await?;
                    row = again.filter(|again| *again != row).ok_or(Error::Integrity)?;
                }
                opened => return Ok((opened?, row)),
            }
        }
    }

    /// Lists all tenants, those that are destroyed among them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong page token.
    pub async fn list_tenants(
        &self,
        permit: &Permit<ManageTenants>,
        page: &PageRequest,
    ) -> Result<Answer<Page<TenantDescription>>, Failure> {
        let mut attempt = self.server_attempt(permit, Operation::TenantList);
        let outcome = self.list_tenants_once(&mut attempt, page).await;
        attempt.close(outcome).await
    }

    async fn list_tenants_once(
        &self,
        attempt: &mut Attempt<'_>,
        page: &PageRequest,
    ) -> Result<(Page<TenantDescription>, Receipt), Error> {
        let scope = self.system_cursor("page_token", b"tenants");
        let size = page_size(page.size);
        let after = scope.open(self, &page.token)?.map(Key::from_stored);
        let range = ScanRange { after, ..ScanRange::prefix(keys::table(Table::Tenant)) };
        let rows = self.engine.scan(range, size).await?;
        let next = match rows.last() {
            Some((key, _)) if rows.len() == size => scope.seal(self, key.as_bytes())?,
            Some(_) | None => String::new(),
        };
        let mut items = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            items.push(TenantDescription::new(&self.open_tenant(&key, row).await?.0));
        }
        attempt.touched(items.len());
        Ok((Page { items, next }, attempt.record().await?))
    }

    /// The scope of a page token of a list of the server's own.
    pub(super) fn system_cursor(&self, field: &'static str, request: &[u8]) -> CursorScope<'_> {
        let key = self.keyring.system().control();
        CursorScope { key, tenant: TenantRef::SYSTEM, field, request: request.to_vec() }
    }

    /// Changes a tenant's state. To suspend or resume what is suspended or in use already is no error.
    ///
    /// # Errors
    /// [`Error::TenantNotFound`]; [`Error::TenantState`] when this is not for a tenant in its state.
    pub async fn change_tenant(
        &self,
        permit: &Permit<ManageTenants>,
        verb: TenantVerb,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TenantDescription>, Failure> {
        let (attempt, tenant) = self.attempt(permit, verb.operation()).await?;
        let slot = self.system_slot(permit, repeat);
        let outcome = until_won!(self.change_tenant_once(&attempt, &tenant, verb, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn change_tenant_once(
        &self,
        attempt: &Attempt<'_>,
        tenant: &Tenant,
        verb: TenantVerb,
        slot: Option<&Slot>,
    ) -> Result<(TenantDescription, Receipt), Error> {
        if let Some(given) = self.system_answer(slot).await? {
            return Ok((given, attempt.record().await?));
        }
        let (tenant, row) = self.fresh_tenant(tenant).await?;
        let changed = self.keyring.change_tenant(&tenant, verb.change(), self.clock.now())?;
        let (mut batch, after) = self.tenant_change(&tenant, &row, changed)?;
        let description = TenantDescription::new(&after);
        if after.state() == tenant.state() {
            batch = Batch::default();
        }
        if let Some(slot) = slot {
            slot.give(self, &self.system_answer_key(), &description, &mut batch)?;
        }
        let change = self.hub.changing_tenant(tenant.tenant_ref().id);
        Ok((description, attempt.commit(batch, Some(change)).await?))
    }
}

/// The header of a record in a table of the server's own.
pub(super) const fn system_header(kind: Kind, revision: Revision) -> Header {
    Header { kind, key_id: KeyId(TenantId::SYSTEM.0), revision: revision.get() }
}
