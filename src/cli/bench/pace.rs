//! When the next operation begins: as soon as one ends (closed loop), or at a fixed rate (open loop).
//!
//! In the open loop every operation has an intended start, and its latency counts from there: when the server stalls, the
//! operations that should have been sent meanwhile show it, instead of being left out ("coordinated omission"). A thread
//! of its own releases them, because the runtime's timers round to whole milliseconds. What the clients could not even
//! start by the end is counted, and enters the latencies with the time that it had waited by then.
//!
//! Latencies need a finer clock than `env::Clock`, so this measures with the runtime's monotonic one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::cli::args::Rate;

/// Longest sleep of the releasing thread, so that it notices soon when it shall stop.
const NAP: Duration = Duration::from_millis(20);

/// When each operation of an open loop is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Operations in 10⁶ seconds.
    per_megasecond: u64,
}

impl Schedule {
    /// Nanoseconds in 10⁶ seconds.
    const MEGASECOND: u128 = 1_000_000_000_000_000;

    /// Spreads operations evenly at `rate`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is above 0 and at most 10^6, so that the product is below 2^53"
    )]
    pub fn at(rate: Rate) -> Self {
        Self { per_megasecond: ((rate.per_second() * 1e6) as u64).max(1) }
    }

    /// When operation `index` (from 0) is due, counted from the beginning.
    #[must_use]
    pub fn due_at(self, index: u64) -> Duration {
        let nanos = u128::from(index) * Self::MEGASECOND / u128::from(self.per_megasecond);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many operations are due within the first `elapsed`; the first one is due at once.
    #[must_use]
    pub fn due_by(self, elapsed: Duration) -> u64 {
        let periods = elapsed.as_nanos() * u128::from(self.per_megasecond) / Self::MEGASECOND;
        u64::try_from(periods).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// How much is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So long.
    For(Duration),
    /// So many operations.
    Times(u64),
}

/// Hands out the beginnings of operations to concurrent workers.
#[derive(Debug)]
pub struct Pace {
    begin: Instant,
    end: Option<Instant>,
    total: u64,
    claimed: AtomicU64,
    started: AtomicU64,
    stopped: AtomicBool,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    schedule: Schedule,
    due: Semaphore,
}

impl Pace {
    /// Lets every worker begin its next operation when its last one has ended.
    #[must_use]
    pub fn closed(extent: Extent) -> Self {
        Self::new(extent, None)
    }

    /// Releases operations at `rate`, whether earlier ones have ended or not, to as many as `workers` at a time.
    ///
    /// # Errors
    /// When the releasing thread cannot be started.
    pub fn open(extent: Extent, rate: Rate, workers: usize) -> io::Result<Arc<Self>> {
        let pace = Arc::new(Self::new(extent, Some(Schedule::at(rate))));
        let releasing = Arc::clone(&pace);
        thread::Builder::new().name("pace".to_owned()).spawn(move || releasing.release(workers))?;
        Ok(pace)
    }

    fn new(extent: Extent, schedule: Option<Schedule>) -> Self {
        let begin = Instant::now();
        let (end, total) = match (extent, schedule) {
            (Extent::Times(total), _) => (None, total),
            (Extent::For(span), None) => (Some(begin + span), u64::MAX),
            // What is due at the very end itself would begin after it.
            (Extent::For(span), Some(schedule)) => {
                (Some(begin + span), schedule.due_by(span.saturating_sub(Duration::from_nanos(1))))
            }
        };
        let open = schedule.map(|schedule| Open { schedule, due: Semaphore::new(0) });
        Self {
            begin,
            end,
            total,
            claimed: AtomicU64::new(0),
            started: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            open,
        }
    }

    /// Waits for the next operation and returns its intended start; `None` when the work is over.
    pub async fn next(&self) -> Option<Instant> {
        if let Some(open) = &self.open {
            // The semaphore is closed when the work is stopped.
            open.due.acquire().await.ok()?.forget();
        }
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        if self.end.is_some_and(|end| now >= end) {
            return None;
        }
        let index = self.claimed.fetch_add(1, Ordering::Relaxed);
        if index >= self.total {
            return None;
        }
        self.started.fetch_add(1, Ordering::Relaxed);
        Some(self.open.as_ref().map_or(now, |open| self.begin + open.schedule.due_at(index)))
    }

    /// Ends the work early: nothing more begins.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(open) = &self.open {
            open.due.close();
        }
    }

    /// When the work began.
    #[must_use]
    pub const fn begin(&self) -> Instant {
        self.begin
    }

    /// Operations begun so far.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// How long each operation had waited that was due before the end and never began; empty in a closed loop.
    pub fn left_behind(&self) -> impl Iterator<Item = Duration> {
        let open = self.open.as_ref().filter(|_| !self.stopped.load(Ordering::Relaxed));
        let late = open.zip(self.end).map(|(open, end)| {
            let span = end - self.begin;
            (self.started()..self.total).map(move |index| span.saturating_sub(open.schedule.due_at(index)))
        });
        late.into_iter().flatten()
    }

    /// Releases what is due, until everything is; then lets every worker see that it is over.
    fn release(&self, workers: usize) {
        let Some(open) = &self.open else { return };
        let mut released = 0;
        while released < self.total && !self.stopped.load(Ordering::Relaxed) {
            let due = open.schedule.due_by(self.begin.elapsed()).min(self.total);
            open.due.add_permits(usize::try_from(due.saturating_sub(released)).unwrap_or(workers));
            released = due;
            let next = self.begin + open.schedule.due_at(released);
            nap(next.saturating_duration_since(Instant::now()).min(NAP));
        }
        open.due.add_permits(workers);
    }
}

fn nap(span: Duration) {
    let request = Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    };
    // A signal ends a nap early, which the caller's loop makes up for.
    match nanosleep(&request) {
        NanosleepRelativeResult::Ok
        | NanosleepRelativeResult::Interrupted(_)
        | NanosleepRelativeResult::Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn schedule(rate: &str) -> Schedule {
        Schedule::at(args::rate(rate).unwrap())
    }

    #[test]
    fn operations_are_due_at_even_distances_from_the_beginning() {
        let schedule = schedule("2000/s");
        assert_eq!(schedule.due_at(0), Duration::ZERO);
        assert_eq!(schedule.due_at(1), Duration::from_micros(500));
        assert_eq!(schedule.due_at(2000), Duration::from_secs(1));
        // An hour later the rounding of a single period has not added up.
        let thirds = Schedule::at(args::rate("3").unwrap());
        assert_eq!(thirds.due_at(3 * 3600), Duration::from_secs(3600));
    }

    #[test]
    fn an_operation_is_released_exactly_when_it_is_due() {
        for rate in ["0.5", "3", "1000", "333333.3", "1000000"] {
            let schedule = schedule(rate);
            for index in [1, 2, 7, 1000, 123_456] {
                let due = schedule.due_at(index);
                assert!(schedule.due_by(due + Duration::from_nanos(1)) > index, "{rate} {index}");
                assert!(
                    schedule.due_by(due.saturating_sub(Duration::from_nanos(1))) <= index,
                    "{rate} {index}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_closed_loop_begins_exactly_as_many_operations_as_were_asked_for() {
        let pace = Pace::closed(Extent::Times(3));
        let mut begun = 0;
        while pace.next().await.is_some() {
            begun += 1;
        }
        assert_eq!((begun, pace.started(), pace.left_behind().count()), (3, 3, 0));
    }

    #[tokio::test]
    async fn a_closed_loop_ends_with_its_time() {
        let pace = Pace::closed(Extent::For(Duration::ZERO));
        assert_eq!(pace.next().await, None);
    }

    #[tokio::test]
    async fn an_open_loop_counts_latency_from_the_intended_start_however_late_it_begins() {
        let pace = Pace::open(Extent::Times(50), args::rate("10000/s").unwrap(), 1).unwrap();
        let begin = pace.begin();
        let mut intended = Vec::new();
        while let Some(start) = pace.next().await {
            intended.push(start - begin);
        }
        let expected: Vec<_> = (0..50).map(|index| Duration::from_micros(100 * index)).collect();
        assert_eq!(intended, expected);
    }

    #[tokio::test]
    async fn nothing_begins_before_it_is_due() {
        let pace = Pace::open(Extent::Times(20), args::rate("1000/s").unwrap(), 4).unwrap();
        while let Some(start) = pace.next().await {
            assert!(Instant::now() >= start);
        }
        assert_eq!(pace.started(), 20);
    }

    #[tokio::test]
    async fn what_never_began_is_left_behind_with_the_time_that_it_had_waited() {
        // A thousand operations are due in no time at all, and no worker ever asks for one.
        let pace =
            Pace::open(Extent::For(Duration::from_millis(10)), args::rate("100000/s").unwrap(), 1).unwrap();
        let waited: Vec<_> = pace.left_behind().collect();
        assert_eq!(waited.len(), 1000);
        assert_eq!(waited.first(), Some(&Duration::from_millis(10)));
        assert_eq!(waited.last(), Some(&Duration::from_micros(10)));
    }

    #[tokio::test]
    async fn stopping_ends_every_worker() {
        let pace =
            Pace::open(Extent::For(Duration::from_secs(3600)), args::rate("0.001").unwrap(), 2).unwrap();
        assert!(pace.next().await.is_some());
        pace.stop();
        assert_eq!(pace.next().await, None);
        assert_eq!(pace.left_behind().count(), 0);
    }
}
