//! How large the steps of jobs are: full ones while nobody else is at work, small ones while there is traffic.
//!
//! Every request commits an event, so what the committer has done beyond the jobs' own commits is traffic.

use crate::model::{Duration, Timestamp};

/// Most sessions in one step.
pub(super) const STEP: usize = 256;
/// Most sessions in one step while there is traffic: what others wait for is one commit of so many rows.
pub(super) const BUSY_STEP: usize = 16;
/// For how long a request counts as traffic.
const QUIET_AFTER: Duration = Duration::from_millis(100);

/// Tells traffic from quiet.
#[derive(Default)]
pub(super) struct Pace {
    /// Operations of others, at the last look.
    others: Option<u64>,
    /// When there were more than at the look before.
    traffic: Option<Timestamp>,
}

impl Pace {
    /// Whether there is traffic, by all operations that were committed and the jobs' own among them.
    pub(super) fn is_busy(&mut self, operations: u64, own: u64, now: Timestamp) -> bool {
        let others = operations.saturating_sub(own);
        if self.others.is_some_and(|before| others > before) {
            self.traffic = Some(now);
        }
        self.others = Some(others);
        self.traffic.is_some_and(|at| now.since(at) < QUIET_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_what_others_commit_and_is_over_after_a_while() {
        let at = Timestamp::from_millis;
        let mut pace = Pace::default();
        // What was before the first look is not known to be traffic, and the jobs' own commits are none.
        assert!(!pace.is_busy(10, 0, at(0)));
        assert!(!pace.is_busy(15, 5, at(1)));
        assert!(pace.is_busy(17, 6, at(2)));
        assert!(pace.is_busy(18, 7, at(101)));
        assert!(!pace.is_busy(18, 7, at(102)));
        assert!(pace.is_busy(19, 7, at(103)));
    }
}
