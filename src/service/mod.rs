//! The use cases: what Strongroom does, without a word of gRPC.
//!
//! Every use case takes a [`Permit`](crate::auth::Permit) (those about approvals decide when they have read the approval), reads the control rows that it depends on together with its
//! data, and answers only when the event that records it is on disk. One that fails changed nothing, and is on record
//! as well. Rows are the truth: what is kept in memory is addressed by the exact bytes of the row that it came from.

mod altered;
mod anchor;
mod answers;
mod approval;
mod approvals;
mod attempt;
mod audit;
mod batch;
mod cursor;
mod custody;
mod destroy;
mod entry;
mod entry_row;
mod error;
mod event;
mod evidence;
mod expiry;
mod hub;
mod job;
mod jobs;
mod key;
mod memo;
mod opened;
mod parted;
mod payload;
mod places;
mod receipt;
mod reclaim;
mod reencrypt;
mod rollback;
mod root;
mod session;
mod status;
mod stripes;
mod sweeper;
mod tenant;
mod token;
mod view;
mod walk;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

pub use crate::audit::{Filter, LogLine, Operation, OperationSet, Order, Outcome, OutcomeSet, Pseudonym};
pub use crate::commit::Receipt;
pub use crate::keyring::{ProviderKind, Recipient, RootEpoch, RootRecipient};
pub use crate::redact::{Action as RedactionAction, Reported};
pub use anchor::{AnchorHealth, AnchorPlace, Anchoring, PlaceError};
pub use approval::{ApprovalState, Asked, Sensitive};
pub use approvals::ApprovalDescription;
pub use attempt::Subject;
pub use audit::{AuditPage, AuditQuery, AuditTail};
pub use custody::{ExportKek, ExportedKek, ImportKek, WrappingKeyDescription};
pub use destroy::{DestroyTenant, TenantDestruction};
pub use entry::Reading;
pub use error::{Error, Failure, Problem};
pub use event::{Appended, EventPage, EventReader, LastEvent, NewEvent};
pub use evidence::{AuditExport, ExportPage, ProvenEvent, SignedLog};
pub use job::{JobDescription, JobKind, JobState};
pub use jobs::{JobReport, Jobs};
pub use key::{DestroyKek, KekDescription, KekUse, KekVerb};
pub use reencrypt::Reencryption;
pub use rollback::{Acceptance, AnchorError, LogAt, NotALogAt, Opened, Rollback};
pub use root::{RootAccess, RootCondition, RootDescription, RootVerb, RootVerification};
pub use session::{CreateSession, Lifetime, UpdateSession};
pub use status::{Counts, JobCounts, Status};
pub use sweeper::{SweepReport, Sweeper};
pub use tenant::{TenantDescription, TenantVerb};
pub use token::{CreateToken, TokenCreated, TokenDescription, Tokens};
pub use view::{
    Answer, DeleteEntry, EntryDescription, EntryWithValue, EventDescription, Page, PageRequest, PutEntry,
    Repeat, SessionDescription, SessionName, WriteEntry, rfc3339,
};
pub use watch::{Change as EntryChange, WatchPage, Watcher};

use crate::audit::{FailureTally, LogKeys, LogReader};
use crate::commit::Committer;
use crate::env::{Clock, Entropy};
use crate::keyring::Keyring;
use crate::model::{Duration, TenantId, Timestamp};
use crate::redact::Redactor;
use crate::store::StorageEngine;

use approval::Approvals;
use evidence::TileRoots;
use hub::Hub;
use jobs::{JobCounters, Running};
use opened::SessionMemo;
use places::Places;
use reclaim::Reclaims;
use root::Roll;
use stripes::Stripes;
use tenant::TenantDirectory;

/// What every use case works with.
pub struct Service {
    engine: Arc<dyn StorageEngine>,
    committer: Arc<Committer>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    system_log: Arc<LogKeys>,
    reader: LogReader,
    tenants: Arc<TenantDirectory>,
    logs: Mutex<HashMap<TenantId, Arc<LogKeys>>>,
    sessions: SessionMemo,
    tokens: Arc<Tokens>,
    hub: Hub,
    running: Running,
    places: Places,
    stripes: Stripes,
    reclaims: Reclaims,
    refusals: FailureTally,
    tile_roots: TileRoots,
    limits: Limits,
    redactor: Option<Arc<Redactor>>,
    root: Arc<dyn RootAccess>,
    roll: Roll,
    approvals: Approvals,
    counters: Counters,
    started: Timestamp,
}

/// Bounds that the operator may set.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest value of an entry, in bytes.
    pub value_bytes: usize,
}

/// What the service counts.
#[derive(Debug, Default)]
struct Counters {
    integrity_failures: AtomicU64,
    sessions_expired: AtomicU64,
    sweeper_lag_millis: AtomicU64,
    jobs: JobCounters,
}

/// What a service is made of.
pub struct Parts {
    /// Where rows are.
    pub engine: Arc<dyn StorageEngine>,
    /// The door for everything durable.
    pub committer: Arc<Committer>,
    /// Keys.
    pub keyring: Arc<Keyring>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Bounds.
    pub limits: Limits,
    /// What takes values apart; none: they are stored as they come.
    pub redactor: Option<Redactor>,
    /// The root providers.
    pub root: Arc<dyn RootAccess>,
    /// How long somebody else has to approve what cannot be undone; `None`: nobody else is asked.
    pub approvals: Option<Duration>,
}

impl Service {
    /// Assembles the service.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { engine, committer, keyring, clock, entropy, limits, redactor, root, approvals } = parts;
        let tokens = Arc::new(Tokens::new(Arc::clone(&engine), Arc::clone(&keyring)));
        Arc::new(Self {
            system_log: Arc::new(attempt::system_log(&keyring)),
            reader: LogReader::new(Arc::clone(&engine)),
            tenants: Arc::default(),
            logs: Mutex::default(),
            sessions: SessionMemo::default(),
            tokens,
            hub: Hub::default(),
            running: Running::default(),
            places: Places::default(),
            stripes: Stripes::default(),
            reclaims: Reclaims::default(),
            refusals: FailureTally::default(),
            tile_roots: TileRoots::default(),
            counters: Counters::default(),
            started: clock.now(),
            engine,
            committer,
            keyring,
            clock,
            entropy,
            limits,
            redactor: redactor.map(Arc::new),
            root,
            roll: Roll::default(),
            approvals: Approvals::new(approvals),
        })
    }

    /// The directory in which the authenticator finds tokens.
    #[must_use]
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens)
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Bounds that the operator set.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }
}

/// Most tenants whose opened rows are kept in memory.
const TENANTS_IN_MEMORY: usize = 4096;
