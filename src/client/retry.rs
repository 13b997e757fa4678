//! When a failed call is tried again, and when it is not.
//!
//! Every call of this client may be sent twice: reads change nothing but the access log, and a mutation carries a request
//! id under which the server answers a repetition as it answered the first time. What keeps retries from making an outage
//! worse is the budget that all calls of one client share (gRPC proposal A6, "retry throttling").

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tonic::Code;
use uuid::Uuid;

use super::error::{CallError, Origin};

/// How often and how patiently a call is repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retries {
    /// Attempts in all, the first one included; 1 turns retries off. Default: 4.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles from one attempt to the next. Default: 0.1 s.
    pub pause: Duration,
    /// Longest pause. Default: 2 s.
    pub pause_max: Duration,
    /// Whether failing to connect is repeated until the deadline, beyond `attempts`: a call then waits for a server that
    /// restarts. Default: false.
    pub wait_for_connection: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 4,
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(2),
            wait_for_connection: false,
        }
    }
}

impl Retries {
    /// One attempt only.
    #[must_use]
    pub fn none() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// The pause after so many attempts that failed, each drawn from 80 to 120 % of its nominal length.
    pub(super) fn pause_after(&self, failed: u32) -> Duration {
        let doubled =
            self.pause.saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX));
        jitter(doubled.min(self.pause_max))
    }
}

/// The budget that all calls of one client share: a refusal by the server costs 1, a success earns 0.1, and there are
/// retries only while more than half of the 100 is left. 100 and not 10, so that the refusals of one server that drains,
/// which all calls in flight get at once, do not use it up. Lost connections cost nothing: the pauses between connects
/// hold back what they could do.
#[derive(Debug)]
pub(super) struct Budget {
    thousandths: AtomicU32,
}

impl Budget {
    const FULL: u32 = 100_000;
    const FAILURE: u32 = 1_000;
    const SUCCESS: u32 = 100;

    pub(super) const fn new() -> Self {
        Self { thousandths: AtomicU32::new(Self::FULL) }
    }

    pub(super) fn succeeded(&self) {
        self.change(|left| (left + Self::SUCCESS).min(Self::FULL));
    }

    /// Notes a refusal and says whether a retry is still affordable.
    pub(super) fn refused(&self) -> bool {
        self.change(|left| left.saturating_sub(Self::FAILURE)) > Self::FULL / 2
    }

    fn change(&self, change: impl Fn(u32) -> u32) -> u32 {
        let mut left = self.thousandths.load(Ordering::Relaxed);
        loop {
            let next = change(left);
            match self.thousandths.compare_exchange_weak(left, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return next,
                Err(found) => left = found,
            }
        }
    }
}

/// The attempts of one call.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    retries: &'a Retries,
    budget: &'a Budget,
    failed: u32,
    unsent: u32,
}

/// How often a call is sent again because the server had not taken it up; these attempts count for nothing else.
const UNSENT: u32 = 10;
/// Pause before the first of those: time for the dead connection to be noticed everywhere.
const UNSENT_PAUSE: Duration = Duration::from_millis(1);

impl<'a> Attempts<'a> {
    pub(super) const fn new(retries: &'a Retries, budget: &'a Budget) -> Self {
        Self { retries, budget, failed: 0, unsent: 0 }
    }

    /// How long to wait before the next attempt; `None` when `error` is final.
    pub(super) fn pause(&mut self, error: &CallError) -> Option<Duration> {
        let wait = retryable(error)?;
        if error.origin() == Origin::NotSent && self.unsent < UNSENT && self.retries.attempts > 1 {
            self.unsent += 1;
            return Some(jitter(UNSENT_PAUSE.saturating_mul(1 << self.unsent)));
        }
        self.failed = self.failed.saturating_add(1);
        let affordable = error.origin() != Origin::Server || self.budget.refused();
        let waiting = self.retries.wait_for_connection && error.origin() == Origin::NotConnected;
        if !waiting && (!affordable || self.failed >= self.retries.attempts) {
            return None;
        }
        Some(self.retries.pause_after(self.failed).max(wait))
    }
}

/// Whether `error` may be gone at the next attempt, and the least time to wait for that.
fn retryable(error: &CallError) -> Option<Duration> {
    match error.code() {
        Code::Unavailable => Some(error.retry_after().unwrap_or_default()),
        Code::ResourceExhausted => error.retry_after(),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => None,
    }
}

/// Draws from 80 to 120 % of `span`, so that clients that failed together do not come back together.
pub(super) fn jitter(span: Duration) -> Duration {
    let draw = Uuid::new_v4().as_u128() % 401;
    let permille = 800 + u32::try_from(draw).unwrap_or_default();
    span.saturating_mul(permille) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    fn refused(status: &Status) -> CallError {
        CallError::from_status(status, None)
    }

    #[test]
    fn the_budget_ends_retries_and_successes_restore_them() {
        let budget = Budget::new();
        assert_eq!((0..100).filter(|_| budget.refused()).count(), 49);
        for _ in 0..520 {
            budget.succeeded();
        }
        assert!(budget.refused());
    }

    #[test]
    fn pauses_double_to_their_bound_within_the_jitter() {
        let retries = Retries::default();
        for (failed, nominal) in [(1, 100), (2, 200), (3, 400), (5, 1600), (6, 2000), (90, 2000)] {
            let pause = retries.pause_after(failed).as_millis();
            assert!((nominal * 8 / 10..=nominal * 12 / 10).contains(&pause), "{failed}: {pause}");
        }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        for (status, again) in [
            (Status::unavailable(""), true),
            (Status::resource_exhausted(""), false),
            (Status::aborted(""), false),
            (Status::internal(""), false),
            (Status::cancelled(""), false),
            (Status::deadline_exceeded(""), false),
        ] {
            let (retries, budget) = (Retries::default(), Budget::new());
            let pause = Attempts::new(&retries, &budget).pause(&refused(&status));
            assert_eq!(pause.is_some(), again, "{status:?}");
        }
    }

    #[test]
    fn attempts_end_after_the_fourth() {
        let (retries, budget) = (Retries::default(), Budget::new());
        let mut attempts = Attempts::new(&retries, &budget);
        let error = refused(&Status::unavailable(""));
        let pauses = (0..4).filter(|_| attempts.pause(&error).is_some()).count();
        assert_eq!(pauses, 3);
    }
}
