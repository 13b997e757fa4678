//! Tenants, the store, and the versions of a tenant's key.

use serde::{Deserialize, Serialize};

/// The identity of a store, made when it is created: 16 random bytes in the form of a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

/// The identity of a tenant: 16 random bytes in the form of a UUID. The nil id stands for the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub [u8; 16]);

impl TenantId {
    /// The server itself, as the owner of the system's log and of control rows.
    pub const SYSTEM: Self = Self([0; 16]);
}

/// A tenant as it is bound into every seal: its id and its incarnation, so that not even a reused id opens old rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantRef {
    /// The id.
    pub id: TenantId,
    /// Counts from 1; 0 for the server itself.
    pub incarnation: u32,
}

impl TenantRef {
    /// The server itself.
    pub const SYSTEM: Self = Self { id: TenantId::SYSTEM, incarnation: 0 };
}

/// Whether a tenant's data may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TenantState {
    /// In use.
    Active,
    /// All use is refused.
    Suspended,
    /// All use is refused, and its keys are destroyed when its time comes.
    DestroyScheduled,
    /// Its keys are gone for ever. What is left of it is its access log.
    Destroyed,
}

impl TenantState {
    /// The state's name, as in the CLI and in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::DestroyScheduled => "destroy-scheduled",
            Self::Destroyed => "destroyed",
        }
    }
}

/// The version of a tenant's key-encryption key; counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KekVersion(pub u32);

/// Where a version of a key-encryption key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekOrigin {
    /// It was made here, and nobody else has had it.
    Generated,
    /// Its material was brought in: whoever brought it may have kept it.
    Imported,
}

impl KekOrigin {
    /// The origin's name, as in the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Imported => "imported",
        }
    }
}

/// The state of a version of a key-encryption key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekState {
    /// Made, not yet used.
    Pending,
    /// Wraps what is new, unwraps what it wrapped.
    Primary,
    /// Unwraps only.
    Enabled,
    /// Refused until it is enabled again.
    Disabled,
    /// Refused, and destroyed when its time comes.
    DestroyScheduled,
    /// Gone for ever.
    Destroyed,
}

impl KekState {
    /// The state's name, as in the CLI and in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Primary => "primary",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::DestroyScheduled => "destroy-scheduled",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether a key in this state may unwrap.
    #[must_use]
    pub const fn unwraps(self) -> bool {
        matches!(self, Self::Primary | Self::Enabled)
    }
}
