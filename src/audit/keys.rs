//! Which log an event goes to, and the keys that go with it.

use std::fmt;
use std::sync::Arc;

use data_encoding::{Encoding, HEXLOWER};

use crate::crypto::{AuditKey, PseudonymKey};
use crate::model::{StoreId, TenantId, TenantRef};

/// The name of a log: tenant and epoch. Shown as `sr1/<tenant id, 32 hex digits>/<epoch>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogName {
    /// The tenant; the nil id for the server's own log.
    pub tenant: TenantId,
    /// The epoch; counts from 1.
    pub epoch: u32,
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sr1/{}/{}", HEXLOWER.encode(&self.tenant.0), self.epoch)
    }
}

/// Everything that is needed to write to a tenant's log and to read it back.
#[derive(Debug)]
pub struct LogKeys {
    /// The store.
    pub store: StoreId,
    /// The tenant; [`TenantRef::SYSTEM`] for the server's own log.
    pub tenant: TenantRef,
    /// The epoch that is being written.
    pub epoch: u32,
    /// Seals blocks and head.
    pub audit: Arc<AuditKey>,
    /// Turns identifiers into pseudonyms.
    pub pseudonym: Arc<PseudonymKey>,
    /// The version of the pseudonym key.
    pub pseudonym_version: u32,
}

impl LogKeys {
    /// The log's name.
    #[must_use]
    pub fn name(&self) -> LogName {
        LogName { tenant: self.tenant.id, epoch: self.epoch }
    }

    /// The same log in another epoch.
    #[must_use]
    pub fn in_epoch(&self, epoch: u32) -> Self {
        Self {
            epoch,
            audit: Arc::clone(&self.audit),
            pseudonym: Arc::clone(&self.pseudonym),
            store: self.store,
            tenant: self.tenant,
            pseudonym_version: self.pseudonym_version,
        }
    }

    /// The pseudonym of a value, for events of this log.
    #[must_use]
    pub fn pseudonym(&self, domain: &'static str, parts: &[&[u8]]) -> Pseudonym {
        Pseudonym { version: self.pseudonym_version, value: self.pseudonym.pseudonym(domain, parts) }
    }
}

/// Stands for an identifier in the log: who knows the identifier and has the key can search for it, nobody else can
/// tell what it was. Shown as `p<version>:` and 26 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pseudonym {
    version: u32,
    value: [u8; 16],
}

impl Pseudonym {
    /// The version of the key that made it.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its bytes.
    #[must_use]
    pub fn value(&self) -> &[u8; 16] {
        &self.value
    }
}

/// RFC 4648 base32 in lower case, without padding.
pub(super) fn base32() -> &'static Encoding {
    static BASE32: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
        let mut specification = data_encoding::Specification::new();
        specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
    });
    &BASE32
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}:{}", self.version, base32().encode(&self.value))
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
