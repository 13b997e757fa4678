//! Wraps the keys of sessions anew under the primary version.

use crate::keyring::{Keyring, Tenant};
use crate::service::job::StoredJob;
use crate::service::opened::SessionRow;
use crate::service::{Error, Service};
use crate::store::{Batch, Key, Row, RowExpect};

impl Service {
    /// Adds a session with its keys wrapped anew to the batch; says whether there was anything to do.
    pub(super) fn rewrap_session(
        &self,
        tenant: &Tenant,
        stored: &mut StoredJob,
        key: &Key,
        row: &Row,
        batch: &mut Batch,
    ) -> Result<bool, Error> {
        let job = &mut stored.job;
        let records = row.records()?;
        let named = match records.as_slice() {
            // A tombstone has no keys.
            [_] => return Ok(false),
            [named @ .., _] => named,
            [] => return Err(Error::Integrity),
        };
        job.seen += 1;
        let is_current = |record: &[u8]| Keyring::wrapping_version(record) == tenant.primary();
        if named.iter().copied().all(is_current) {
            return Ok(false);
        }
        let rewrapped = match self.rewrapped(tenant, key, row) {
            Err(Error::Integrity | Error::KeyDisabled | Error::KeyDestroyed) => {
                job.fail(key);
                return Ok(false);
            }
            rewrapped => rewrapped?,
        };
        let Some(rewrapped) = rewrapped else { return Ok(false) };
        if batch.expect.is_empty() {
            // The version that all are wrapped under must still be the primary when they are stored.
            batch.expect.push((tenant.row_key().clone(), RowExpect::Revision(tenant.revision())));
        }
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(row))));
        batch.put.push((key.clone(), rewrapped));
        job.done += 1;
        Ok(true)
    }

    /// A session's row with the same keys, wrapped under the primary version.
    ///
    /// Its revision goes up, so that whoever relied on the row as it was loses the race, and does not put the old one back.
    fn rewrapped(&self, tenant: &Tenant, key: &Key, row: &Row) -> Result<Option<Row>, Error> {
        let SessionRow::Live { keys, former, session } = self.peek_session_row(tenant, key, row)? else {
            return Ok(None);
        };
        let revision = row.revision()?.next();
        let mut records = Vec::new();
        for keys in [Some(&keys), former.as_ref()].into_iter().flatten() {
            let (body, sensitive) = self.keyring.rewrap_session_keys(tenant, key, keys)?;
            records.push(body);
            records.extend(sensitive);
        }
        records.push(self.seal_session(tenant, key, &keys, revision, &session)?);
        Ok(Some(Row::new(revision, &records.iter().collect::<Vec<_>>())))
    }
}
