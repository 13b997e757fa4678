//! Watching a session's entries: first all of them, then each change, and on from where a watch broke off.

use std::sync::Arc;

use super::attempt::{Attempt, until_won};
use super::cursor::CursorScope;
use super::hub::{self, Follower};
use super::opened::{Opened, Same};
use super::view::SessionName;
use super::{Error, Failure, Service};
use crate::audit::Operation;
use crate::auth::{Permit, Read};
use crate::commit::Receipt;
use crate::keyring::Tenant;
use crate::model::limits::PAGE_MAX;
use crate::store::Key;

/// A change of one entry.
#[derive(Clone)]
pub struct Change {
    /// Name.
    pub key: String,
    /// Revision.
    pub revision: u64,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// Some changes.
pub struct WatchPage {
    /// In the order of their commits.
    pub changes: Vec<Change>,
    /// Whether they belong to a listing of all entries.
    pub snapshot: bool,
    /// Whether nothing else had changed when this page was made.
    pub caught_up: bool,
    /// Where to resume; empty in the middle of a listing.
    pub resume: String,
}

/// Where a watch is.
enum Position {
    /// At the beginning: with the token of an earlier watch, if there is one.
    Start(String),
    /// Listing all entries; live changes follow from this position on.
    Listing { after: Option<Key>, live: u64 },
    /// Following changes from this position on.
    Live(u64),
}

/// Watches a session. Each page checks tenant, session and keys anew and is on record before it is given.
pub struct Watcher {
    service: Arc<Service>,
    permit: Permit<Read>,
    name: SessionName,
    session: Same,
    position: Position,
    follower: Option<Follower>,
}

impl Service {
    /// Prepares to watch a session.
    #[must_use]
    pub fn watch_session(
        self: &Arc<Self>,
        permit: Permit<Read>,
        name: SessionName,
        resume: String,
    ) -> Watcher {
        let position = Position::Start(resume);
        let session = Same::default();
        Watcher { service: Arc::clone(self), permit, name, session, position, follower: None }
    }
}

impl Watcher {
    /// The next changes, and where that is on record; to find nothing new leaves no record.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionExpired`], also in the middle of a watch.
    pub async fn next_page(&mut self) -> Result<(WatchPage, Option<Receipt>), Failure> {
        let service = Arc::clone(&self.service);
        let (mut attempt, tenant) = service.attempt(&self.permit, Operation::EntryWatch).await?;
        attempt.about_session(&self.name);
        let outcome = until_won!(self.page_once(&service, &mut attempt, &tenant).await);
        attempt.close_part(outcome).await
    }

    async fn page_once(
        &mut self,
        service: &Service,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
    ) -> Result<(WatchPage, Option<Receipt>), Error> {
        let opened = service.open_session(tenant, &self.name, |_| Vec::new()).await?;
        self.session.check(&opened)?;
        let tag = hub::tag(&opened);
        if self.follower.is_none() {
            self.follower = Some(service.hub.follow(tag));
        }
        if let Position::Start(token) = &self.position {
            self.position = start(service, &opened, token)?;
        }
        if let Position::Live(from) = self.position
            && service.hub.changes(tag, from).is_none()
        {
            // Fallen behind what is remembered: begin anew.
            self.position = Position::Listing { after: None, live: service.hub.position() };
        }
        let page = match &self.position {
            Position::Live(from) => self.live(service, &opened, *from)?,
            Position::Start(_) | Position::Listing { .. } => self.listing(service, &opened).await?,
        };
        if page.changes.is_empty() && !page.snapshot {
            return Ok((page, None));
        }
        attempt.touched(page.changes.len());
        let receipt = service.record_use(attempt, &opened).await?;
        Ok((page, Some(receipt)))
    }

    fn live(&mut self, service: &Service, opened: &Opened, from: u64) -> Result<WatchPage, Error> {
        let (changes, next) = service.hub.changes(hub::tag(opened), from).unwrap_or((Vec::new(), from));
        self.position = Position::Live(next);
        let changes = changes
            .into_iter()
            .map(|change| Change {
                key: change.key.into_string(),
                revision: change.revision,
                deleted: change.deleted,
            })
            .collect();
        let resume = scope(opened).seal(service, &position_bytes(service, next))?;
        Ok(WatchPage { changes, snapshot: false, caught_up: true, resume })
    }

    async fn listing(&mut self, service: &Service, opened: &Opened) -> Result<WatchPage, Error> {
        let (after, live) = match &self.position {
            Position::Listing { after, live } => (after.clone(), *live),
            Position::Start(_) | Position::Live(_) => (None, service.hub.position()),
        };
        let (entries, last) = service.entries_after(opened, after, PAGE_MAX).await?;
        let changes = entries
            .into_iter()
            .map(|entry| Change { key: entry.key, revision: entry.revision, deleted: false })
            .collect();
        let (position, resume) = match last {
            Some(last) => (Position::Listing { after: Some(last), live }, String::new()),
            None => (Position::Live(live), scope(opened).seal(service, &position_bytes(service, live))?),
        };
        let caught_up = matches!(position, Position::Live(_));
        self.position = position;
        Ok(WatchPage { changes, snapshot: true, caught_up, resume })
    }

    /// Waits until something in the session has changed since the last page.
    pub async fn changed(&mut self) {
        match &mut self.follower {
            Some(follower) => follower.changed().await,
            None => std::future::pending().await,
        }
    }
}

fn start(service: &Service, opened: &Opened, token: &str) -> Result<Position, Error> {
    let listing = Position::Listing { after: None, live: service.hub.position() };
    let Some(bytes) = scope(opened).open(service, token)? else {
        return Ok(listing);
    };
    let Some((started, number)) = bytes.split_at_checked(8) else {
        return Ok(listing);
    };
    if *started != service.started.as_millis().to_be_bytes() {
        return Ok(listing);
    }
    Ok(number.try_into().map_or(listing, |number| Position::Live(u64::from_be_bytes(number))))
}

/// A position counts within one process: it is good only together with when that started.
fn position_bytes(service: &Service, position: u64) -> Vec<u8> {
    [service.started.as_millis().to_be_bytes(), position.to_be_bytes()].concat()
}

fn scope(opened: &Opened) -> CursorScope<'_> {
    // Not the handle: a session that is made again under it must not hear of this one.
    let mut request = b"watch".to_vec();
    request.extend_from_slice(&opened.origin().0);
    let tenant = &opened.tenant;
    CursorScope { key: tenant.control(), tenant: tenant.tenant_ref(), field: "resume_token", request }
}
