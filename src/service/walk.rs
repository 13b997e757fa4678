//! A walk over the sessions of a tenant.

use super::{Error, Service};
use crate::keyring::Tenant;
use crate::store::{Key, Row, ScanRange, keys};

/// After so many sessions others get their turn: the engine answers without ever waiting.
const STRIDE: usize = 64;

/// The sessions' own rows, in the order of their keys, each as it is when the walk comes by.
pub(super) struct Walk<'a> {
    service: &'a Service,
    prefix: Vec<u8>,
    after: Option<Key>,
    steps: usize,
}

impl Service {
    /// Begins a walk over all of a tenant's sessions, or over those behind a place where another walk was.
    pub(super) fn sessions_of(&self, tenant: &Tenant, after: Option<Key>) -> Walk<'_> {
        Walk { service: self, prefix: keys::tenant_sessions(tenant.tenant_ref().id), after, steps: 0 }
    }
}

impl Walk<'_> {
    /// The next session's row.
    pub(super) async fn next(&mut self) -> Result<Option<(Key, Row)>, Error> {
        self.steps += 1;
        if self.steps.is_multiple_of(STRIDE) {
            tokio::task::yield_now().await;
        }
        let range = ScanRange { after: self.after.clone(), ..ScanRange::prefix(self.prefix.clone()) };
        let found = self.service.engine.scan(range, 1).await?.pop();
        if let Some((key, _)) = &found {
            self.after = Some(keys::session_end(key));
        }
        Ok(found)
    }

    /// The place behind the last session, for a walk that goes on from here.
    pub(super) fn place(self) -> Option<Key> {
        self.after
    }
}
