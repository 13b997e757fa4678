//! Opens every record, to see whether it does.

use std::sync::atomic::Ordering;

use crate::audit::Operation;
use crate::crypto::open;
use crate::keyring::{SessionKeys, Tenant};
use crate::service::job::StoredJob;
use crate::service::opened::{SessionRow, opener, row_header};
use crate::service::parted::halves;
use crate::service::{Error, Service};
use crate::store::{Key, Row, ScanRange, keys};

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
        let (keys, former) = match self.peek_session_row(tenant, key, row) {
            Ok(SessionRow::Live { keys, former, .. }) => (keys, former),
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
            for (row_key, row) in &rows {
                match self.opens(tenant, key, (&keys, former.as_ref()), (row_key, row)).await? {
                    true => stored.job.done += 1,
                    false => self.report_damage(tenant, stored, row_key).await?,
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == SCRUB_ROWS => after = last.clone(),
                Some(_) | None => return Ok(true),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether the record of a row in a session opens where it stands. What does not is read once more together with the
    /// session's row: it may have been sealed under new keys meanwhile.
    async fn opens(
        &self,
        tenant: &Tenant,
        root: &Key,
        keys: (&SessionKeys, Option<&SessionKeys>),
        (key, row): (&Key, &Row),
    ) -> Result<bool, Error> {
        if self.opens_under(tenant, root, keys, (key, row)).is_ok() {
            return Ok(true);
        }
        let [Some(root_row), Some(row)] = self.read([root.clone(), key.clone()]).await? else {
            return Ok(true);
        };
        Ok(match self.peek_session_row(tenant, root, &root_row) {
            Ok(SessionRow::Live { keys, former, .. }) => {
                self.opens_under(tenant, root, (&keys, former.as_ref()), (key, &row)).is_ok()
            }
            // It has ended.
            Ok(SessionRow::Ended(_)) => true,
            Err(_) => false,
        })
    }

    fn opens_under(
        &self,
        tenant: &Tenant,
        root: &Key,
        (keys, former): (&SessionKeys, Option<&SessionKeys>),
        (key, row): (&Key, &Row),
    ) -> Result<(), Error> {
        let (record, _) = halves(row)?;
        let named = opener(keys, former, record);
        open(named.body(), row_header(named, key, row)?, &self.place(tenant, key), record)?;
        self.check_overlay(tenant, (root, named), (key, row))
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
