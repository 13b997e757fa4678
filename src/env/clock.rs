//! Time that never runs backwards.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;

/// A source of the current time.
pub trait Clock: Send + Sync + 'static {
    /// The current time. Never earlier than an answer given before.
    fn now(&self) -> Timestamp;

    /// The jump of the wall clock that was last noticed since this was last asked, if there was one.
    fn take_jump(&self) -> Option<ClockJump> {
        None
    }
}

/// A jump of the wall clock against the monotonic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockJump {
    /// What the monotonic clock said it was.
    pub expected: Timestamp,
    /// What the wall clock said.
    pub found: Timestamp,
}

/// How far the wall clock may stray from the monotonic one in one step before that counts as a jump. NTP slews at most
/// 500 ppm, so that a second is far more than honest correction between two requests.
const JUMP: Duration = Duration::from_secs(60);

/// The system's wall clock, guarded by its monotonic clock.
///
/// Small corrections forward are followed. A jump (more than a minute in either direction) is *not* followed: time goes
/// on at the monotonic clock's pace, so that a wrong wall clock neither resurrects nor mass-expires sessions; the jump is
/// reported once through [`Clock::take_jump`]. A restart takes the wall clock as it is.
#[derive(Debug)]
pub struct SystemClock {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Monotonic reading and the time that it stood for.
    anchor: (Instant, Timestamp),
    last: Timestamp,
    jump: Option<ClockJump>,
    reported: Option<Timestamp>,
}

impl SystemClock {
    /// Starts from the wall clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
    pub fn new() -> Self {
        let now = wall();
        Self {
            state: Mutex::new(State { anchor: (Instant::now(), now), last: now, jump: None, reported: None }),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.advance(Instant::now(), wall())
    }

    fn take_jump(&self) -> Option<ClockJump> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).jump.take()
    }
}

impl State {
    fn advance(&mut self, monotonic: Instant, wall: Timestamp) -> Timestamp {
        let (anchor, anchored) = self.anchor;
        let expected = anchored.after(monotonic.saturating_duration_since(anchor));
        let stray = wall.since(expected).max(expected.since(wall));
        let now = if stray <= JUMP {
            self.anchor = (monotonic, wall);
            self.reported = None;
            wall
        } else {
            self.report(expected, wall);
            expected
        };
        self.last = self.last.max(now);
        self.last
    }

    fn report(&mut self, expected: Timestamp, found: Timestamp) {
        if self.reported.is_none() {
            self.jump = Some(ClockJump { expected, found });
            self.reported = Some(found);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the test needs a monotonic origin")]
    fn state(at: u64) -> (State, Instant) {
        let origin = Instant::now();
        let at = Timestamp::from_millis(at);
        (State { anchor: (origin, at), last: at, jump: None, reported: None }, origin)
    }

    #[test]
    fn small_corrections_are_followed_but_never_backwards() {
        let (mut state, origin) = state(1_000_000);
        let later = origin + Duration::from_secs(10);
        assert_eq!(state.advance(later, Timestamp::from_millis(1_010_500)).as_millis(), 1_010_500);
        assert_eq!(state.advance(later, Timestamp::from_millis(1_010_000)).as_millis(), 1_010_500);
        assert_eq!(state.jump, None);
    }

    #[test]
    fn a_jump_is_not_followed_and_is_reported_once() {
        let (mut state, origin) = state(100_000_000);
        for (second, wall) in [(1, 1_u64), (2, 2_000), (3, 900_000_000)] {
            let now = state.advance(origin + Duration::from_secs(second), Timestamp::from_millis(wall));
            assert_eq!(now.as_millis(), 100_000_000 + second * 1000);
        }
        let jump = state.jump.take().unwrap();
        assert_eq!(jump.found.as_millis(), 1);
        let back = state.advance(origin + Duration::from_secs(4), Timestamp::from_millis(100_004_200));
        assert_eq!((back.as_millis(), state.jump), (100_004_200, None));
    }
}
