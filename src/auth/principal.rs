//! The caller of a request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Grant, Timestamp};

/// Someone whose credentials were good.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    id: String,
    grants: Arc<[Grant]>,
    expires: Timestamp,
}

impl Principal {
    pub(super) const fn new(id: String, grants: Arc<[Grant]>, expires: Timestamp) -> Self {
        Self { id, grants, expires }
    }

    /// The name under which the access log knows the principal (as a pseudonym): `token:<name>`, `spiffe://…`,
    /// `cn:<common name>` or `jwt:<issuer> <subject>`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the credentials allow, and for which tenants.
    pub(super) fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// When the credentials end.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").field("grants", &self.grants).finish_non_exhaustive()
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
