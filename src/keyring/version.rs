//! What may be done with a version of a tenant's key, and what comes of it.
//!
//! ```text
//! pending ──promote──▶ primary ──(another is promoted)──▶ enabled ◀──enable── disabled
//!                         ▲──────────promote────────────────┘ └────disable─────▶ ▲
//! pending, enabled, disabled ──schedule──▶ destroy-scheduled ──cancel─────────────┘
//! pending, enabled, disabled, destroy-scheduled ──destroy──▶ destroyed
//! ```
//! The primary is neither disabled nor destroyed: another is promoted first. What is destroyed stays so.

use std::sync::Arc;

use super::tenant::Tenant;
use super::{Keyring, KeyringError, MAX_KEK_VERSIONS, MAX_LISTED_VERSIONS};
use crate::crypto::{Kek, SealError};
use crate::model::{Duration, KekOrigin, KekState, KekVersion, Timestamp};
use crate::store::Row;

/// A version of a tenant's key-encryption key, and what may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KekVersionState {
    /// The version.
    pub version: KekVersion,
    /// What may be done with it.
    pub state: KekState,
    /// When it was made.
    pub created: Timestamp,
    /// When its state last changed.
    pub changed: Timestamp,
    /// When it will be destroyed, while that is scheduled.
    pub destroy_at: Option<Timestamp>,
    /// Where it came from.
    pub origin: KekOrigin,
    /// When it was first exported: from then on there is a copy outside.
    pub exported: Option<Timestamp>,
}

impl KekVersionState {
    pub(super) fn new(version: KekVersion, state: KekState, origin: KekOrigin, now: Timestamp) -> Self {
        Self { version, state, created: now, changed: now, destroy_at: None, origin, exported: None }
    }

    pub(super) fn enter(&mut self, state: KekState, destroy_at: Option<Timestamp>, now: Timestamp) {
        (self.state, self.changed, self.destroy_at) = (state, now, destroy_at);
    }
}

/// When new versions are made by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How often, from one rotation to the next, whoever made it.
    pub every: Duration,
    /// When next.
    pub next: Timestamp,
}

impl Rotation {
    /// The rotation that follows one at the time `now`.
    pub(super) fn after(every: Duration, now: Timestamp) -> Self {
        Self { every, next: now.after(every) }
    }
}

/// A change of one version's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekChange {
    /// It becomes the primary.
    Promote,
    /// It may unwrap again.
    Enable,
    /// It unwraps nothing.
    Disable,
    /// It unwraps nothing, and is destroyed at a time.
    Schedule(Timestamp),
    /// It is not destroyed, and disabled.
    Cancel,
    /// The key is gone.
    Destroy,
}

impl KekChange {
    /// What a version in the state `from` becomes; `None` when the change is not for such a version.
    #[must_use]
    pub const fn applied_to(self, from: KekState) -> Option<KekState> {
        use KekState as S;
        match (self, from) {
            (Self::Promote, S::Pending | S::Primary | S::Enabled) => Some(S::Primary),
            (Self::Enable, S::Primary) => Some(S::Primary),
            (Self::Enable, S::Enabled | S::Disabled) => Some(S::Enabled),
            (Self::Disable, S::Pending | S::Enabled | S::Disabled) => Some(S::Disabled),
            (Self::Schedule(_), S::Pending | S::Enabled | S::Disabled) => Some(S::DestroyScheduled),
            (Self::Cancel, S::DestroyScheduled) => Some(S::Disabled),
            (Self::Destroy, S::Pending | S::Enabled | S::Disabled | S::DestroyScheduled) => {
                Some(S::Destroyed)
            }
            _ => None,
        }
    }
}

impl Keyring {
    /// Adds a version, pending or as the primary: the row to store, one revision further, and the version.
    pub(super) fn add_version(
        &self,
        tenant: &Tenant,
        kek: Kek,
        origin: KekOrigin,
        promote: bool,
        now: Timestamp,
    ) -> Result<(Row, KekVersion), KeyringError> {
        let mut next = tenant.next();
        let version = next.add_version(kek, origin, now)?;
        if promote {
            next.change_version(version, KekChange::Promote, now)?;
            let rotation = next.description.rotation;
            next.description.rotation = rotation.map(|rotation| Rotation::after(rotation.every, now));
        }
        Ok((self.seal_tenant(&next)?, version))
    }
}

impl Tenant {
    /// Adds a version that is pending.
    pub(super) fn add_version(
        &mut self,
        kek: Kek,
        origin: KekOrigin,
        now: Timestamp,
    ) -> Result<KekVersion, KeyringError> {
        let versions = &mut self.description.versions;
        if self.keks.len() >= MAX_KEK_VERSIONS || versions.len() >= MAX_LISTED_VERSIONS {
            return Err(KeyringError::TooManyVersions {
                living: MAX_KEK_VERSIONS,
                listed: MAX_LISTED_VERSIONS,
            });
        }
        let last = versions.last().map_or(0, |of| of.version.0);
        let version = KekVersion(last.checked_add(1).ok_or(KeyringError::Seal(SealError::TooLarge))?);
        versions.push(KekVersionState::new(version, KekState::Pending, origin, now));
        self.keks.push((version, Arc::new(kek)));
        Ok(version)
    }

    /// Changes the state of a version.
    pub(super) fn change_version(
        &mut self,
        version: KekVersion,
        change: KekChange,
        now: Timestamp,
    ) -> Result<(), KeyringError> {
        let versions = &mut self.description.versions;
        let found = versions.iter_mut().find(|of| of.version == version);
        let found = found.ok_or(KeyringError::UnknownVersion(version))?;
        let state = change.applied_to(found.state).ok_or(KeyringError::WrongState(found.state))?;
        if state == found.state {
            return Ok(());
        }
        let destroy_at = if let KekChange::Schedule(at) = change { Some(at) } else { None };
        found.enter(state, destroy_at, now);
        match state {
            KekState::Primary => {
                let before = self.description.primary.replace(version);
                for of in versions.iter_mut().filter(|of| Some(of.version) == before) {
                    of.enter(KekState::Enabled, None, now);
                }
            }
            KekState::Destroyed => self.keks.retain(|(held, _)| *held != version),
            KekState::Pending | KekState::Enabled | KekState::Disabled | KekState::DestroyScheduled => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KekState; 6] = [
        KekState::Pending,
        KekState::Primary,
        KekState::Enabled,
        KekState::Disabled,
        KekState::DestroyScheduled,
        KekState::Destroyed,
    ];
    const CHANGES: [KekChange; 6] = [
        KekChange::Promote,
        KekChange::Enable,
        KekChange::Disable,
        KekChange::Schedule(Timestamp::from_millis(9)),
        KekChange::Cancel,
        KekChange::Destroy,
    ];

    #[test]
    fn the_table_of_changes_is_the_one_that_is_documented() {
        use KekState::{DestroyScheduled, Destroyed, Disabled, Enabled, Primary};
        let table = CHANGES.map(|change| ALL.map(|from| change.applied_to(from)));
        let expected = [
            [Some(Primary), Some(Primary), Some(Primary), None, None, None],
            [None, Some(Primary), Some(Enabled), Some(Enabled), None, None],
            [Some(Disabled), None, Some(Disabled), Some(Disabled), None, None],
            [Some(DestroyScheduled), None, Some(DestroyScheduled), Some(DestroyScheduled), None, None],
            [None, None, None, None, Some(Disabled), None],
            [Some(Destroyed), None, Some(Destroyed), Some(Destroyed), Some(Destroyed), None],
        ];
        assert_eq!(table, expected);
    }

    #[test]
    fn nothing_leaves_destroyed_and_nothing_but_a_promotion_touches_the_primary() {
        for change in CHANGES {
            assert_eq!(change.applied_to(KekState::Destroyed), None);
            let stays = change.applied_to(KekState::Primary).is_none_or(|state| state == KekState::Primary);
            assert!(stays, "{change:?}");
        }
    }
}
