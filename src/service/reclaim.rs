//! Removes what a destroyed tenant left, a bounded step at a time.
//!
//! The expiry index names the tenant's own row until nothing is left: so this goes on where it was when the process is
//! started anew. Sessions go first, each from its own row on, because whoever changes something in a session relies on that
//! row; the walk through the index comes last, when nobody can add to it. What stays is the tenant's row and its access log.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::altered::due;
use super::answers::period;
use super::sweeper::RECLAIM;
use super::{Error, Service};
use crate::audit::Operation;
use crate::keyring::Tenant;
use crate::model::{TenantId, Timestamp};
use crate::store::{Batch, Key, ScanRange, keys};

/// Rows of the expiry index that are looked at in one step.
const GLANCES: usize = 2048;

/// How far the walks through the expiry index are. Those of a process that ended begin anew.
#[derive(Default)]
pub(super) struct Reclaims(Mutex<HashMap<TenantId, Key>>);

impl Reclaims {
    fn places(&self) -> MutexGuard<'_, HashMap<TenantId, Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Removes some of what a destroyed tenant left, and at the end `index`, which says that there may be something.
    pub(super) async fn reclaim_tenant(
        &self,
        tenant: &Tenant,
        index: &Key,
        now: Timestamp,
    ) -> Result<(), Error> {
        if !due(tenant).contains(index) {
            return self.reclaim(tenant, vec![index.clone()]).await;
        }
        for left in left_by(tenant.tenant_ref().id, now) {
            let rows = self.engine.scan_keys(ScanRange::prefix(left), RECLAIM).await?;
            if !rows.is_empty() {
                return self.reclaim(tenant, rows).await;
            }
        }
        self.reclaim_index(tenant, index).await
    }

    /// Goes on with the walk through the expiry index, for the rows about what the tenant had.
    async fn reclaim_index(&self, tenant: &Tenant, index: &Key) -> Result<(), Error> {
        let id = tenant.tenant_ref().id;
        let after = self.reclaims.places().get(&id).cloned();
        let range = ScanRange { after, ..ScanRange::prefix(keys::expiry_rows()) };
        let seen = self.engine.scan_keys(range, GLANCES).await?;
        let last = seen.last().filter(|_| seen.len() == GLANCES).cloned();
        let is_left =
            |row: &Key| row != index && keys::expiring(row).is_some_and(|(_, of)| of.tenant() == Some(id));
        let mut rows: Vec<Key> = seen.into_iter().filter(is_left).collect();
        if last.is_none() {
            rows.push(index.clone());
        }
        if !rows.is_empty() {
            self.reclaim(tenant, rows).await?;
        }
        match last {
            Some(last) => self.reclaims.places().insert(id, last),
            None => self.reclaims.places().remove(&id),
        };
        Ok(())
    }

    async fn reclaim(&self, tenant: &Tenant, rows: Vec<Key>) -> Result<(), Error> {
        let mut attempt = self.own_attempt(tenant, Operation::TenantReclaim);
        attempt.touched(rows.len());
        attempt.commit(Batch { delete: rows, ..Batch::default() }, None).await.map(|_| ())
    }
}

/// What a tenant may have left in tables where its rows stand together. Answers of older periods go with their period.
fn left_by(tenant: TenantId, now: Timestamp) -> [Vec<u8>; 5] {
    let answers = |period| keys::tenant_answers(period, tenant);
    let period = period(now);
    [
        keys::tenant_sessions(tenant),
        keys::jobs(tenant),
        keys::wrapping_keys(tenant),
        answers(period),
        answers(period.saturating_sub(1)),
    ]
}
