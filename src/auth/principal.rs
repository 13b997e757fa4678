//! The caller of a request.

use std::fmt;
use std::net::IpAddr;

use crate::model::{Scopes, TenantSet, Timestamp};

/// Someone whose credentials were good.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    id: String,
    scopes: Scopes,
    tenants: TenantSet,
    expires: Timestamp,
}

impl Principal {
    pub(super) fn new(id: String, scopes: Scopes, tenants: TenantSet, expires: Timestamp) -> Self {
        Self { id, scopes, tenants, expires }
    }

    /// The name under which the access log knows the principal (as a pseudonym): `token:<name>`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the credentials allow.
    #[must_use]
    pub const fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// For which tenants they allow it.
    #[must_use]
    pub const fn tenants(&self) -> &TenantSet {
        &self.tenants
    }

    /// When the credentials end.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The peer's address.
    pub address: IpAddr,
}

/// A principal together with what one request says about itself.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who calls.
    pub principal: Principal,
    /// Where from; absent in process.
    pub source: Option<Source>,
    /// The W3C trace id that came with the request.
    pub trace: Option<[u8; 16]>,
}
