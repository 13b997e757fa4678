//! A session's keys.

use std::fmt;
use std::sync::Arc;

use crate::crypto::{BodyDek, KeyId, Sealed, SensitiveDek};

/// A session's keys, unwrapped. Cheap to clone: clones share one copy of the keys.
#[derive(Clone)]
pub struct SessionKeys(pub(super) Arc<OpenedSession>);

pub(super) struct OpenedSession {
    pub(super) body: (KeyId, BodyDek),
    pub(super) sensitive: Option<(KeyId, SensitiveDek)>,
}

/// A new session's keys, and the records to store them as.
#[derive(Debug)]
pub struct WrappedSession {
    /// The keys.
    pub keys: SessionKeys,
    /// The body key, wrapped.
    pub body: Sealed,
    /// The sensitive key, wrapped.
    pub sensitive: Sealed,
}

impl SessionKeys {
    /// The key for bodies, names and metadata.
    #[must_use]
    pub fn body(&self) -> &BodyDek {
        &self.0.body.1
    }

    /// The body key's id.
    #[must_use]
    pub fn body_id(&self) -> KeyId {
        self.0.body.0
    }

    /// The key for what is sensitive; none once it was purged.
    #[must_use]
    pub fn sensitive(&self) -> Option<&SensitiveDek> {
        self.0.sensitive.as_ref().map(|(_, dek)| dek)
    }

    /// The sensitive key's id.
    #[must_use]
    pub fn sensitive_id(&self) -> Option<KeyId> {
        self.0.sensitive.as_ref().map(|(id, _)| *id)
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}
