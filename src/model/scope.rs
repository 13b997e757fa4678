//! What credentials allow, and for which tenants.

use std::collections::BTreeSet;

use super::TenantName;

/// One permission that a token may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read redacted views, list entries, get sessions.
    Read,
    /// Read full views.
    ReadFull,
    /// Create, update and delete sessions, entries and events; list sessions.
    Write,
    /// Purge the sensitive part of sessions.
    Purge,
    /// List, rotate, promote, enable and disable keys; take back their destruction.
    Keys,
    /// Read and search the access log.
    Audit,
    /// Create, suspend and resume tenants.
    Tenants,
    /// Create, list and revoke tokens.
    Tokens,
    /// Read the server's status.
    Status,
    /// Destroy keys, after a grace period.
    KeysDestroy,
    /// Destroy keys without a grace period.
    KeysDestroyNow,
    /// Look at, roll and share the root key.
    Root,
    /// Import key material.
    KeysImport,
    /// Export keys of tenants that are exportable.
    KeysExport,
}

impl Scope {
    /// All scopes, in the order of their bits.
    pub const ALL: [Self; 14] = [
        Self::Read,
        Self::ReadFull,
        Self::Write,
        Self::Purge,
        Self::Keys,
        Self::Audit,
        Self::Tenants,
        Self::Tokens,
        Self::Status,
        Self::KeysDestroy,
        Self::KeysDestroyNow,
        Self::Root,
        Self::KeysImport,
        Self::KeysExport,
    ];

    /// The scope's name, as in the CLI and in the access log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadFull => "read-full",
            Self::Write => "write",
            Self::Purge => "purge",
            Self::Keys => "keys",
            Self::Audit => "audit",
            Self::Tenants => "tenants",
            Self::Tokens => "tokens",
            Self::Status => "status",
            Self::KeysDestroy => "keys-destroy",
            Self::KeysDestroyNow => "keys-destroy-now",
            Self::Root => "root",
            Self::KeysImport => "keys-import",
            Self::KeysExport => "keys-export",
        }
    }

    /// The scope of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    const fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// A set of scopes; empty allows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// Whether the set has `scope`.
    #[must_use]
    pub const fn allows(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in the set.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.allows(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// The tenants for which credentials are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantSet {
    /// Every tenant, those to come included, and the server itself.
    All,
    /// These alone.
    Only(BTreeSet<TenantName>),
}

impl TenantSet {
    /// Whether `tenant` is among them.
    #[must_use]
    pub fn contains(&self, tenant: &TenantName) -> bool {
        match self {
            Self::All => true,
            Self::Only(tenants) => tenants.contains(tenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_has_a_bit_and_a_name_of_its_own() {
        let all: Scopes = Scope::ALL.into_iter().collect();
        assert_eq!(all.iter().count(), Scope::ALL.len());
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.name()), Some(scope));
            let one: Scopes = [scope].into_iter().collect();
            assert_eq!(one.iter().collect::<Vec<_>>(), [scope]);
        }
    }
}
