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

    /// Reads what [`Display`](fmt::Display) writes; `None` when it is anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"p")?;
        let colon = text.iter().take(VERSION_DIGITS + 1).position(|byte| *byte == b':')?;
        let (version, value) = text.split_at_checked(colon)?;
        let value = value.get(1..).filter(|value| value.len() == VALUE_CHARACTERS)?;
        let version: u32 = std::str::from_utf8(version).ok()?.parse().ok()?;
        let pseudonym = Self { version, value: base32().decode(value).ok()?.try_into().ok()? };
        // Digits with zeros or signs before them are not what is written.
        (pseudonym.to_string().as_bytes().get(1..) == Some(text)).then_some(pseudonym)
    }

    /// The pseudonyms in a canonical line: no other text in it has their form.
    pub fn all_in(line: &[u8]) -> impl Iterator<Item = Self> {
        line.split(|byte| *byte == b'"').filter_map(Self::parse)
    }

    /// Its bytes.
    #[must_use]
    pub fn value(&self) -> &[u8; 16] {
        &self.value
    }
}

/// Digits of the highest version.
const VERSION_DIGITS: usize = 10;
/// Characters of base32 for 16 bytes.
const VALUE_CHARACTERS: usize = 26;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::keys;

    #[test]
    fn a_pseudonym_reads_back_and_nothing_else_does() {
        let keys = LogKeys { pseudonym_version: u32::MAX, ..keys(TenantId([1; 16])) };
        let pseudonym = keys.pseudonym("owner", &[b"alice"]);
        let text = pseudonym.to_string();
        assert_eq!(Pseudonym::parse(text.as_bytes()), Some(pseudonym));
        let line = format!(r#"{{"v":1,"act":{{"k":"token","p":"{text}"}},"sid":"p:","x":"p1:"}}"#);
        assert_eq!(Pseudonym::all_in(line.as_bytes()).collect::<Vec<_>>(), [pseudonym]);
        let value = &text[text.len() - 26..];
        for wrong in ["", "p", "p1", "p1:", value, &format!("p01:{value}"), &format!("p+1:{value}")] {
            assert_eq!(Pseudonym::parse(wrong.as_bytes()), None, "{wrong}");
        }
        for wrong in
            [format!("p99999999999:{value}"), format!("p1:{value}a"), format!("p1:{}", value.to_uppercase())]
        {
            assert_eq!(Pseudonym::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
