//! Two people for what cannot be undone: one asks for it by doing it, another one approves, the first does it again.
//!
//! A use case that is on the list of [`Sensitive`] asks [`Service::approved`] once its own checks have passed. Where the
//! installation wants a second person and none has approved exactly this, the request is stored and the use case fails with
//! [`Error::ApprovalRequired`]. An approval is for one principal and one request, of which every part is compared; it is used
//! up in the commit of what it allowed, so that it works once, whoever races. What this module does not know is people: two
//! principals may be one person with two tokens.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::attempt::Attempt;
use super::tenant::system_header;
use super::{Error, Service, payload};
use crate::audit::Operation;
use crate::auth::{
    Action as _, Caller, DestroyKeys, DestroyKeysNow, ExportKeys, ImportKeys, ManageRoot, ManageTenants,
    Target, allows,
};
use crate::crypto::{Kind, open, seal};
use crate::keyring::Tenant;
use crate::model::limits::{APPROVALS_OPEN, APPROVALS_OPEN_EACH, APPROVALS_STORED};
use crate::model::{Duration, Revision, Scope, TenantId, TenantName, TenantRef, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, Table, keys};

/// What is done only with the approval of a second person, where the installation wants one.
///
/// This is the one list. To add an operation: a variant that holds *everything* that was asked for but the request id and the
/// tenant (of what is secret or large, the SHA-256), its lines in `operation`, `scopes` and `Display` below, and in the use
/// case, behind its own checks and the way out of a dry run, `Service::approved` (with no tenant for what is done to the server
/// itself) and then `Approval::stage` on the batch that has the effect. Tests of it go to `tests/api/approvals.rs`, what it stores
/// to section 9 of `docs/format.md`. Variants are only appended, and keep their fields: they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sensitive {
    /// A version of a tenant's key is made useless, and destroyed when its grace is over.
    KeySchedule {
        /// The version.
        version: u32,
        /// The grace, in milliseconds.
        grace: u64,
        /// The number of sessions that die.
        sessions: u64,
    },
    /// A version of a tenant's key is destroyed at once.
    KeyDestroy {
        /// The version.
        version: u32,
        /// The number of sessions that die.
        sessions: u64,
    },
    /// A new epoch of the root key begins, and the old one ends.
    RootRotate,
    /// The root key is wrapped for one more recovery key.
    RootAdd {
        /// The public half.
        public_key: String,
    },
    /// The root key is wrapped for a recipient no longer.
    RootRemove {
        /// The recipient's key id; there is one with it.
        key_id: String,
    },
    /// The root key is wrapped for the next provider, or for the key that the provider in use has by now.
    RootMigrate,
    /// A tenant is made useless, and destroyed when its grace is over.
    TenantSchedule {
        /// The grace, in milliseconds.
        grace: u64,
        /// The number of sessions that die.
        sessions: u64,
    },
    /// A tenant is destroyed at once.
    TenantDestroy {
        /// The number of sessions that die.
        sessions: u64,
    },
    /// A version of a tenant's key is made of material from outside.
    KeyImport {
        /// The wrapping key.
        wrapping_key: [u8; 16],
        /// SHA-256 of the wrapped material.
        wrapped: [u8; 32],
        /// Whether it is left pending.
        pending: bool,
    },
    /// A version of a tenant's key is given out.
    KeyExport {
        /// The version.
        version: u32,
        /// The X25519 public key that it is wrapped for.
        recipient: [u8; 32],
    },
}

impl Sensitive {
    /// What is done, as the access log names it.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::KeySchedule { .. } => Operation::KeySchedule,
            Self::KeyDestroy { .. } => Operation::KeyDestroy,
            Self::RootRotate => Operation::RootRotate,
            Self::RootAdd { .. } => Operation::RootAdd,
            Self::RootRemove { .. } => Operation::RootRemove,
            Self::RootMigrate => Operation::RootMigrate,
            Self::TenantSchedule { .. } => Operation::TenantSchedule,
            Self::TenantDestroy { .. } => Operation::TenantDestroy,
            Self::KeyImport { .. } => Operation::KeyImport,
            Self::KeyExport { .. } => Operation::KeyExport,
        }
    }

    /// What it takes to do it, and so to approve it. Never nothing.
    #[must_use]
    pub const fn scopes(&self) -> &'static [Scope] {
        match self {
            Self::KeySchedule { .. } => &[DestroyKeys::SCOPE],
            Self::KeyDestroy { .. } => &[DestroyKeys::SCOPE, DestroyKeysNow::SCOPE],
            Self::RootRotate | Self::RootAdd { .. } | Self::RootRemove { .. } | Self::RootMigrate => {
                &[ManageRoot::SCOPE]
            }
            Self::TenantSchedule { .. } => &[ManageTenants::SCOPE, DestroyKeys::SCOPE],
            Self::TenantDestroy { .. } => &[ManageTenants::SCOPE, DestroyKeys::SCOPE, DestroyKeysNow::SCOPE],
            Self::KeyImport { .. } => &[ImportKeys::SCOPE],
            Self::KeyExport { .. } => &[ExportKeys::SCOPE],
        }
    }
}

/// Says exactly what would be done, to whom is to decide. It names nothing that a caller chose but keys that were checked.
impl fmt::Display for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeySchedule { version, grace, sessions } => {
                let grace = humantime::format_duration(Duration::from_millis(*grace));
                write!(
                    f,
                    "destroy version {version} of the tenant's key after a grace of {grace}; {}",
                    Lost(*sessions)
                )
            }
            Self::KeyDestroy { version, sessions } => {
                write!(f, "destroy version {version} of the tenant's key at once; {}", Lost(*sessions))
            }
            Self::RootRotate => f.write_str("begin a new epoch of the root key and end the old one"),
            Self::RootAdd { public_key } => {
                write!(f, "wrap the root key for the recovery key {public_key}, too")
            }
            Self::RootRemove { key_id } => {
                write!(f, "wrap the root key for {} no longer", key_id.escape_debug())
            }
            Self::TenantSchedule { grace, sessions } => {
                let grace = humantime::format_duration(Duration::from_millis(*grace));
                write!(f, "destroy the tenant after a grace of {grace}; {}", Lost(*sessions))
            }
            Self::TenantDestroy { sessions } => {
                write!(f, "destroy the tenant at once; {}", Lost(*sessions))
            }
            Self::KeyImport { wrapped, pending, .. } => {
                let place = if *pending { "a pending version" } else { "the primary version" };
                write!(
                    f,
                    "make {place} of the tenant's key of imported material, SHA-256 of the wrapped bytes "
                )?;
                f.write_str(&HEXLOWER.encode(wrapped))
            }
            Self::KeyExport { version, recipient } => {
                write!(
                    f,
                    "export version {version} of the tenant's key, wrapped for the X25519 public key "
                )?;
                f.write_str(&HEXLOWER.encode(recipient))
            }
            Self::RootMigrate => f.write_str("wrap the root key for another provider or key, too"),
        }
    }
}

/// Sessions that die with something.
struct Lost(u64);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("no session is lost with it"),
            1 => f.write_str("1 session is lost with it"),
            sessions => write!(f, "{sessions} sessions are lost with it"),
        }
    }
}

/// How far an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalState {
    /// Nobody has decided yet.
    Waiting,
    /// Who asked may go ahead, once.
    Approved,
    /// Somebody else denied it, or who asked withdrew it.
    Denied,
    /// What it was for was done.
    Used,
    /// Its time was over before it was used.
    Expired,
}

impl ApprovalState {
    /// The name, as in `google.rpc.ErrorInfo.metadata`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Used => "used",
            Self::Expired => "expired",
        }
    }

    /// Whether it may still come to something.
    pub(super) const fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Approved)
    }
}

/// What somebody else must approve first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Names the approval.
    pub id: [u8; 16],
    /// What it is for.
    pub what: Sensitive,
    /// Until when it can be approved and used.
    pub expires: Timestamp,
}

/// An approval as it is stored. Times are milliseconds since 1970; zero stands for "not yet".
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ApprovalPayload {
    /// Id and incarnation of the tenant; those of the server for what is done to the server itself.
    tenant: ([u8; 16], u32),
    /// The tenant's name; empty for the server.
    pub(super) tenant_name: String,
    pub(super) what: Sensitive,
    /// The principal who asked, and who alone may use it.
    pub(super) requester: String,
    pub(super) asked: u64,
    pub(super) expires: u64,
    /// As it was written; a time that is over ends it all the same.
    pub(super) state: ApprovalState,
    /// The principal who approved or denied; empty while nobody did.
    pub(super) decider: String,
    pub(super) decided: u64,
    pub(super) used: u64,
}

impl ApprovalPayload {
    /// A request that waits; its time is over at once until somebody says when.
    fn new(caller: &Caller, tenant: Option<&Tenant>, what: Sensitive, now: u64) -> Self {
        let TenantRef { id, incarnation } = tenant.map_or(TenantRef::SYSTEM, Tenant::tenant_ref);
        Self {
            tenant: (id.0, incarnation),
            tenant_name: tenant.map_or_else(String::new, |tenant| tenant.name().as_str().to_owned()),
            what,
            requester: caller.principal.id().to_owned(),
            asked: now,
            expires: now,
            state: ApprovalState::Waiting,
            decider: String::new(),
            decided: 0,
            used: 0,
        }
    }

    /// How far it is now.
    pub(super) fn state(&self, now: Timestamp) -> ApprovalState {
        if self.state.is_open() && self.expires <= now.as_millis() {
            ApprovalState::Expired
        } else {
            self.state
        }
    }

    /// Whether the same principal asked for the same, of the same tenant, in every part.
    fn is_alike(&self, other: &Self) -> bool {
        self.requester == other.requester && self.tenant == other.tenant && self.what == other.what
    }

    /// Whether `caller` asked for it.
    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        self.requester == caller.principal.id()
    }

    /// Whether `caller` could do what it is for, to what it is for.
    pub(super) fn concerns(&self, caller: &Caller) -> Result<bool, Error> {
        let target = match self.tenant_name.as_str() {
            "" => Target::Server,
            name => Target::Tenant(TenantName::new(name).map_err(|_| Error::Integrity)?),
        };
        // Only who may manage all tenants may end one.
        let ends = matches!(self.what, Sensitive::TenantSchedule { .. } | Sensitive::TenantDestroy { .. });
        let over_all = !ends || allows(caller, &Target::Server, &[ManageTenants::SCOPE]).is_ok();
        Ok(over_all && allows(caller, &target, self.what.scopes()).is_ok())
    }

    /// The tenant; the server for what is done to the server itself.
    pub(super) const fn tenant_id(&self) -> TenantId {
        TenantId(self.tenant.0)
    }

    fn asked(&self, id: [u8; 16]) -> Asked {
        Asked { id, what: self.what.clone(), expires: Timestamp::from_millis(self.expires) }
    }
}

/// An approval with its row, for a change that relies on it.
pub(super) struct StoredApproval {
    pub(super) key: Key,
    pub(super) row: Row,
    pub(super) id: [u8; 16],
    pub(super) approval: ApprovalPayload,
}

/// What the installation wants of approvals.
pub(super) struct Approvals {
    lifetime: Option<Duration>,
    /// Held by who may store a request: so that there is one for each, and never more than there may be.
    turn: Mutex<()>,
}

impl Approvals {
    pub(super) fn new(lifetime: Option<Duration>) -> Self {
        Self { lifetime, turn: Mutex::default() }
    }
}

/// The leave to do something: the approval of a second person, or that none is wanted.
#[must_use = "an approval that is not staged is not used up"]
pub(super) struct Approval(Option<StoredApproval>);

impl Approval {
    /// The leave to do what needs nobody else.
    pub(super) const NOT_NEEDED: Self = Self(None);

    /// Uses it up in the commit of what it allowed, on the condition that nobody used, denied or replaced it until then.
    pub(super) fn stage(self, service: &Service, batch: &mut Batch) -> Result<(), Error> {
        let Some(mut stored) = self.0 else { return Ok(()) };
        stored.approval.state = ApprovalState::Used;
        stored.approval.used = service.clock.now().as_millis();
        service.stage_approval(&stored, batch)
    }
}

impl Service {
    /// Gives the leave for `what` to be done to a tenant, or to the server itself, as `attempt` is about to; from here on its
    /// event names the approval.
    ///
    /// # Errors
    /// [`Error::ApprovalRequired`] when somebody else must approve it first, which has been asked for then;
    /// [`Error::QuotaExceeded`] when too much was asked for already.
    pub(super) async fn approved(
        &self,
        attempt: &mut Attempt<'_>,
        caller: &Caller,
        tenant: Option<&Tenant>,
        what: Sensitive,
    ) -> Result<Approval, Error> {
        let Some(lifetime) = self.approvals.lifetime else { return Ok(Approval::NOT_NEEDED) };
        let _turn = self.approvals.turn.lock().await;
        let now = self.clock.now();
        let mut asking = ApprovalPayload::new(caller, tenant, what, now.as_millis());
        asking.expires = now.after(lifetime).as_millis();
        let mut stored = self.stored_approvals().await?;
        let open = |of: &StoredApproval| of.approval.state(now).is_open() && of.approval.is_alike(&asking);
        let Some(open) = stored.iter().position(open) else {
            let id = self.ask(attempt, &asking, &stored, now).await?;
            return Err(Error::ApprovalRequired(Box::new(asking.asked(id))));
        };
        let found = stored.swap_remove(open);
        attempt.event.approval = Some(found.id);
        if found.approval.state == ApprovalState::Approved {
            return Ok(Approval(Some(found)));
        }
        Err(Error::ApprovalRequired(Box::new(found.approval.asked(found.id))))
    }

    /// Stores a request for somebody else to decide about; gives the id of the approval.
    async fn ask(
        &self,
        attempt: &mut Attempt<'_>,
        asking: &ApprovalPayload,
        stored: &[StoredApproval],
        now: Timestamp,
    ) -> Result<[u8; 16], Error> {
        let id = self.new_approval_id(now)?;
        let key = keys::approval(&id);
        let mut batch = make_room(asking, stored, now)?;
        batch.expect.push((key.clone(), RowExpect::Absent));
        batch.put.push((key.clone(), self.seal_approval(&key, Revision::FIRST, asking)?));
        batch.put.push((keys::expiry(Timestamp::from_millis(asking.expires), &key), Row::marker()));
        attempt.event.approval = Some(id);
        let mut request = attempt.clone();
        request.event.operation = Operation::ApprovalRequest;
        request.commit(batch, None).await?;
        Ok(id)
    }

    /// Ids in the order of time: so that of the rows the first was asked for first.
    fn new_approval_id(&self, now: Timestamp) -> Result<[u8; 16], Error> {
        let mut random = [0; 10];
        self.entropy.fill(&mut random)?;
        Ok(uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid().into_bytes())
    }

    /// All approvals, the first that was asked for first.
    pub(super) async fn stored_approvals(&self) -> Result<Vec<StoredApproval>, Error> {
        let range = ScanRange::prefix(keys::table(Table::Approval));
        let rows = self.engine.scan(range, APPROVALS_STORED).await?;
        rows.into_iter().map(|(key, row)| self.open_approval(key, row)).collect()
    }

    pub(super) async fn stored_approval(&self, id: [u8; 16]) -> Result<Option<StoredApproval>, Error> {
        let key = keys::approval(&id);
        let [row] = self.read([key.clone()]).await?;
        row.map(|row| self.open_approval(key, row)).transpose()
    }

    pub(super) fn open_approval(&self, key: Key, row: Row) -> Result<StoredApproval, Error> {
        let id = keys::approval_id(&key).ok_or(Error::Integrity)?;
        let [record] = row.exactly()?;
        let header = system_header(Kind::Approval, row.revision()?);
        let opened = open(
            self.keyring.system().control(),
            header,
            &self.place_within(TenantRef::SYSTEM, &key),
            record,
        )?;
        let approval = payload::decode(opened.as_bytes())?;
        Ok(StoredApproval { key, row, id, approval })
    }

    /// Adds an approval's new state to a batch, on the condition that nobody changed it.
    pub(super) fn stage_approval(&self, stored: &StoredApproval, batch: &mut Batch) -> Result<(), Error> {
        let row = self.seal_approval(&stored.key, stored.row.revision()?.next(), &stored.approval)?;
        batch.expect.push((stored.key.clone(), RowExpect::unchanged(Some(&stored.row))));
        batch.put.push((stored.key.clone(), row));
        Ok(())
    }

    fn seal_approval(&self, key: &Key, revision: Revision, approval: &ApprovalPayload) -> Result<Row, Error> {
        let plain = payload::encode(approval)?;
        let header = system_header(Kind::Approval, revision);
        let control = self.keyring.system().control();
        let record =
            seal(control, header, &self.place_within(TenantRef::SYSTEM, key), &plain, &*self.entropy)?;
        Ok(Row::new(revision, &[&record]))
    }
}

/// A batch that removes the oldest approval that has come to its end, when there are as many as there may be.
///
/// # Errors
/// [`Error::QuotaExceeded`] when there are too many that have not.
fn make_room(asking: &ApprovalPayload, stored: &[StoredApproval], now: Timestamp) -> Result<Batch, Error> {
    let open = || stored.iter().filter(|of| of.approval.state(now).is_open());
    let own = open().filter(|of| of.approval.requester == asking.requester);
    for (found, max) in [(own.count(), APPROVALS_OPEN_EACH), (open().count(), APPROVALS_OPEN)] {
        if found >= max {
            return Err(Error::QuotaExceeded { max, what: "open approvals" });
        }
    }
    let mut batch = Batch::default();
    if stored.len() >= APPROVALS_STORED {
        // One whose time is over and that nobody has put on record yet is left to the sweeper.
        let full = || Error::QuotaExceeded { max: APPROVALS_STORED, what: "approvals" };
        let oldest = stored.iter().find(|of| !of.approval.state.is_open()).ok_or_else(full)?;
        batch.expect.push((oldest.key.clone(), RowExpect::unchanged(Some(&oldest.row))));
        batch.delete.push(oldest.key.clone());
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Sensitive; 2] = [
        Sensitive::KeySchedule { version: 3, grace: 7 * 24 * 3_600_000, sessions: 120 },
        Sensitive::KeyDestroy { version: 3, sessions: 1 },
    ];

    #[test]
    fn what_needs_two_takes_rights_and_says_what_it_is() {
        let said = [
            "destroy version 3 of the tenant's key after a grace of 7days; 120 sessions are lost with it",
            "destroy version 3 of the tenant's key at once; 1 session is lost with it",
        ];
        for (what, said) in ALL.iter().zip(said) {
            assert!(!what.scopes().is_empty(), "{what}");
            assert_eq!(what.to_string(), said);
        }
    }

    /// Section 9 of `docs/format.md`: what is stored opens as what it was.
    #[test]
    fn what_is_stored_keeps_its_form() {
        let approval = |what| ApprovalPayload {
            tenant: ([7; 16], 1),
            tenant_name: "demo".to_owned(),
            what,
            requester: "token:a".to_owned(),
            asked: 1,
            expires: 2,
            state: ApprovalState::Approved,
            decider: "token:b".to_owned(),
            decided: 3,
            used: 0,
        };
        let of = |what: &[u8]| {
            let begin = [&[1][..], &[7; 16], &[1, 4], b"demo"].concat();
            [&begin[..], what, &[7], b"token:a", &[1, 2, 1, 7], b"token:b", &[3, 0]].concat()
        };
        let forms = [of(&[0, 3, 0x80, 0x88, 0xb2, 0xa0, 2, 120]), of(&[1, 3, 1])];
        for (what, form) in ALL.into_iter().zip(forms) {
            assert_eq!(*payload::encode(&approval(what.clone())).unwrap(), form);
            assert_eq!(payload::decode::<ApprovalPayload>(&form).unwrap().what, what);
        }
    }

    #[test]
    fn time_ends_what_is_open_and_nothing_else() {
        let at = Timestamp::from_millis;
        for (state, later) in [
            (ApprovalState::Waiting, ApprovalState::Expired),
            (ApprovalState::Approved, ApprovalState::Expired),
            (ApprovalState::Denied, ApprovalState::Denied),
            (ApprovalState::Used, ApprovalState::Used),
            (ApprovalState::Expired, ApprovalState::Expired),
        ] {
            let approval = ApprovalPayload {
                tenant: ([0; 16], 0),
                tenant_name: String::new(),
                what: ALL[1].clone(),
                requester: String::new(),
                asked: 1,
                expires: 10,
                state,
                decider: String::new(),
                decided: 0,
                used: 0,
            };
            assert_eq!((approval.state(at(9)), approval.state(at(10))), (state, later));
        }
    }
}
