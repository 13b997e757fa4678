//! What may be done with a tenant as a whole, and what comes of it.
//!
//! ```text
//! active ◀──resume── suspended ──schedule──▶ destroy-scheduled
//!    └─────suspend──────▶ ▲ └───────cancel────────┘ │
//!                         │                         │
//!                         └────────destroy──────────┴──────▶ destroyed
//! ```
//! An active tenant is not destroyed: it is suspended first, so that what dies with it can be counted and does not grow.
//!
//! Destroying one takes the tenant's key in all its versions, and with it every session key. Its control and index key are
//! made anew: what was sealed or blinded with the old ones (tombstones with their owners, jobs, remembered answers) does
//! not open either. The audit and the pseudonym key stay, and the row with them: the access log is evidence.

use super::KeyringError;
use super::tenant::Tenant;
use crate::env::Entropy;
use crate::model::{KekState, TenantState, Timestamp};

/// A change of a tenant's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantChange {
    /// Its data may be used again.
    Resume,
    /// Its data may not be used.
    Suspend,
    /// Its data may not be used, and its keys are destroyed at a time.
    Schedule(Timestamp),
    /// It is not destroyed, and suspended.
    Cancel,
    /// Its keys are gone.
    Destroy,
}

impl TenantChange {
    /// What a tenant in the state `from` becomes; `None` when the change is not for such a tenant.
    #[must_use]
    pub const fn applied_to(self, from: TenantState) -> Option<TenantState> {
        use TenantState as S;
        match (self, from) {
            (Self::Resume, S::Active | S::Suspended) => Some(S::Active),
            (Self::Suspend, S::Active | S::Suspended) | (Self::Cancel, S::DestroyScheduled) => {
                Some(S::Suspended)
            }
            (Self::Schedule(_), S::Suspended) => Some(S::DestroyScheduled),
            (Self::Destroy, S::Suspended | S::DestroyScheduled) => Some(S::Destroyed),
            _ => None,
        }
    }
}

impl Tenant {
    /// Changes the tenant's state, and destroys its keys where that is asked for.
    pub(super) fn change_state(
        &mut self,
        change: TenantChange,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<(), KeyringError> {
        let from = self.description.state;
        let state = change.applied_to(from).ok_or(KeyringError::WrongTenantState(from))?;
        if state == from {
            return Ok(());
        }
        let destroy_at = match state {
            TenantState::Destroyed => Some(now),
            TenantState::DestroyScheduled => change.time(),
            TenantState::Active | TenantState::Suspended => None,
        };
        let description = &mut self.description;
        (description.state, description.changed, description.destroy_at) = (state, now, destroy_at);
        if state == TenantState::Destroyed { self.destroy_keys(now, entropy) } else { Ok(()) }
    }

    /// From here on there is no primary version, nor any other that is not destroyed.
    fn destroy_keys(&mut self, now: Timestamp, entropy: &dyn Entropy) -> Result<(), KeyringError> {
        self.keys = self.keys.only_for_the_log(entropy)?;
        self.keks.clear();
        let description = &mut self.description;
        (description.primary, description.rotation) = (None, None);
        let living = description.versions.iter_mut().filter(|of| of.state != KekState::Destroyed);
        living.for_each(|of| of.enter(KekState::Destroyed, None, now));
        Ok(())
    }
}

impl TenantChange {
    const fn time(self) -> Option<Timestamp> {
        match self {
            Self::Schedule(at) => Some(at),
            Self::Resume | Self::Suspend | Self::Cancel | Self::Destroy => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_changes_is_the_one_that_is_documented() {
        use TenantState::{Active, DestroyScheduled, Destroyed, Suspended};
        let from = [Active, Suspended, DestroyScheduled, Destroyed];
        let schedule = TenantChange::Schedule(Timestamp::from_millis(9));
        let table = [
            (TenantChange::Resume, [Some(Active), Some(Active), None, None]),
            (TenantChange::Suspend, [Some(Suspended), Some(Suspended), None, None]),
            (schedule, [None, Some(DestroyScheduled), None, None]),
            (TenantChange::Cancel, [None, None, Some(Suspended), None]),
            (TenantChange::Destroy, [None, Some(Destroyed), Some(Destroyed), None]),
        ];
        for (change, expected) in table {
            assert_eq!(from.map(|from| change.applied_to(from)), expected, "{change:?}");
        }
    }
}
