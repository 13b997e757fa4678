//! Opens every record, to see whether it does.

use std::sync::atomic::Ordering;

use crate::audit::Operation;
use crate::crypto::{Header, Kind, open};
use crate::keyring::{SessionKeys, Tenant};
use crate::model::Revision;
use crate::service::job::StoredJob;
use crate::service::opened::SessionRow;
use crate::service::{Error, Service};
use crate::store::{Key, Row, ScanRange, SessionPart, keys};

/// Rows of a session that a scrub holds in memory at once: with the largest values 64 MiB.
const SCRUB_ROWS: usize = 16;

impl Service {
    /// Opens every record of a session; says whether there was anything to do.
    pub(super) async fn scrub_session(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        key: &Key,
        row: &Row,
    ) -> Result<bool, Error> {
        let keys = match self.open_session_row(tenant, key, row) {
            Ok(SessionRow::Live { keys, .. }) => keys,
            Ok(SessionRow::Ended(_)) => return Ok(false),
            Err(Error::KeyDisabled | Error::KeyDestroyed) => {
                stored.job.seen += 1;
                stored.job.closed += 1;
                return Ok(true);
            }
            Err(Error::Integrity) => {
                stored.job.seen += 1;
                stored.job.fail(key);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        stored.job.seen += 1;
        stored.job.done += 1;
        let mut after = key.clone();
        loop {
            let range =
                ScanRange { after: Some(after.clone()), ..ScanRange::prefix(keys::rows_of_session(key)) };
            let rows = self.engine.scan(range, SCRUB_ROWS).await?;
            for (key, row) in &rows {
                match self.opens(tenant, &keys, key, row) {
                    true => stored.job.done += 1,
                    false => self.report_damage(tenant, stored, key).await?,
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == SCRUB_ROWS => after = last.clone(),
                Some(_) | None => return Ok(true),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether the record of a row in a session opens where it stands.
    fn opens(&self, tenant: &Tenant, session: &SessionKeys, key: &Key, row: &Row) -> bool {
        let check = || {
            let [record] = row.exactly()?;
            let tombstone = Header::named_kind(record) == Some(Kind::EntryTombstone as u8);
            let revision = row.revision()?;
            let (kind, revision) = match key.within_session().first().copied() {
                Some(part) if part == SessionPart::Entry as u8 && tombstone => {
                    (Kind::EntryTombstone, revision)
                }
                Some(part) if part == SessionPart::Entry as u8 => (Kind::Entry, revision),
                Some(part) if part == SessionPart::Stream as u8 => (Kind::Stream, revision),
                Some(part) if part == SessionPart::Event as u8 => (Kind::Event, Revision::FIRST),
                Some(_) | None => return Err(Error::Integrity),
            };
            let header = Header { kind, key_id: session.body_id(), revision: revision.get() };
            open(session.body(), header, &self.place(tenant, key), record)?;
            Ok(())
        };
        check().is_ok()
    }

    async fn report_damage(&self, tenant: &Tenant, stored: &mut StoredJob, key: &Key) -> Result<(), Error> {
        let known = stored.job.failures.len();
        stored.job.fail(key);
        if stored.job.failures.len() > known {
            // One event a session, and no more than the job names.
            return self
                .own_attempt(tenant, Operation::KeyScrub)
                .fail(Error::Integrity)
                .await
                .receipt
                .map_or(Err(Error::AuditUnavailable), |_| Ok(()));
        }
        self.counters.integrity_failures.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
