//! Keys of logs for tests.

use std::sync::Arc;

use super::LogKeys;
use crate::crypto::{AuditKey, PseudonymKey, Secret, WrappableKey as _};
use crate::model::{StoreId, TenantId, TenantRef};

/// The keys of a tenant's log in its first epoch: the same for the same tenant.
pub(crate) fn keys(tenant: TenantId) -> LogKeys {
    let secret = |role| Secret::from_slice(&[tenant.0, [role; 16]].concat()).unwrap();
    LogKeys {
        store: StoreId([9; 16]),
        tenant: TenantRef { id: tenant, incarnation: 1 },
        epoch: 1,
        audit: Arc::new(AuditKey::from_secret(secret(1))),
        pseudonym: Arc::new(PseudonymKey::from_secret(secret(2))),
        pseudonym_version: 1,
    }
}
