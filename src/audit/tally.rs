//! Failures that anybody can cause without credentials, counted by source and minute, so that a flood of them fills neither
//! the disk nor the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Event, Operation};
use crate::model::Timestamp;

/// Most sources that are told apart within a minute. Each costs at most two events a minute, about 1 KiB: with the sources
/// beyond them counted together, a flood costs below 400 MiB a day.
pub const TALLY_SOURCES: usize = 256;

const MINUTE_MS: u64 = 60_000;

/// Counts failures. The first of a source in a minute is an event at once; those that follow are counted, and become one
/// event when the minute is over.
#[derive(Debug, Default)]
pub struct FailureTally(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    number: u64,
    sources: BTreeMap<(Operation, Option<[u8; 16]>), Window>,
}

#[derive(Debug)]
struct Window {
    event: Event,
    /// How many followed the first.
    more: u32,
}

impl FailureTally {
    /// Counts a failure; returns the events to commit now: it itself if it is the first of its operation and source in this
    /// minute, after the counts of the minute before if that has ended.
    #[must_use]
    pub fn record(&self, event: Event, now: Timestamp) -> Vec<Event> {
        let mut minute = self.minute();
        let mut events = minute.advance(now);
        let source = event.source.map(|source| *source.ip.value());
        let known = minute.sources.contains_key(&(event.operation, source));
        let event = if known || minute.sources.len() < TALLY_SOURCES { event } else { anonymous(event) };
        let source = event.source.map(|source| *source.ip.value());
        match minute.sources.get_mut(&(event.operation, source)) {
            Some(window) => window.more = window.more.saturating_add(1),
            None => {
                minute.sources.insert((event.operation, source), Window { event, more: 0 });
                events.push(event);
            }
        }
        events
    }

    /// The counts of the minute before, if it has ended at `now`. To be called about once a minute, so that the counts of a
    /// flood that has stopped get into the log too.
    #[must_use]
    pub fn flush(&self, now: Timestamp) -> Vec<Event> {
        self.minute().advance(now)
    }

    /// All counts, whether their minute has ended or not: for the end of the process.
    #[must_use]
    pub fn finish(&self) -> Vec<Event> {
        self.minute().end()
    }

    fn minute(&self) -> MutexGuard<'_, Minute> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minute {
    fn advance(&mut self, now: Timestamp) -> Vec<Event> {
        let number = now.as_millis() / MINUTE_MS;
        if number <= self.number {
            return Vec::new();
        }
        self.number = number;
        self.end()
    }

    fn end(&mut self) -> Vec<Event> {
        let ended = std::mem::take(&mut self.sources).into_values();
        ended.filter(|window| window.more > 0).map(Window::into_event).collect()
    }
}

impl Window {
    /// One event for those that followed the first: what they have in common, and their number.
    fn into_event(self) -> Event {
        let Event { operation, outcome, reason, source, .. } = self.event;
        Event { outcome, reason, source, count: self.more, ..Event::new(operation) }
    }
}

/// What stands for all sources that are not told apart.
fn anonymous(event: Event) -> Event {
    Event { source: None, actor: None, ..event }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::keys;
    use crate::audit::{Outcome, Reason, Source};
    use crate::model::TenantId;

    fn failure(source: u32) -> Event {
        let ip = keys(TenantId::SYSTEM).pseudonym("ip", &[&source.to_be_bytes()]);
        Event {
            source: Some(Source { ip, tls: None }),
            request: Some([7; 16]),
            ..Event::new(Operation::AuthenticationFail).denied(Reason::Unauthenticated)
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_first_of_a_minute_is_an_event_and_the_others_become_one() {
        let tally = FailureTally::default();
        assert_eq!(tally.record(failure(1), at(60)), [failure(1)]);
        for second in 61..120 {
            assert_eq!(tally.record(failure(1), at(second)), []);
        }
        assert_eq!(tally.record(failure(2), at(119)), [failure(2)]);
        let counted = Event { count: 59, request: None, ..failure(1) };
        assert_eq!(tally.flush(at(119)), []);
        assert_eq!(tally.record(failure(1), at(120)), [counted, failure(1)]);
        assert_eq!(tally.flush(at(240)), []);
        assert_eq!(tally.record(failure(1), at(240)), [failure(1)]);
        assert_eq!(tally.record(failure(1), at(241)), []);
        assert_eq!(tally.finish(), [Event { count: 1, request: None, ..failure(1) }]);
        assert_eq!(tally.finish(), []);
    }

    #[test]
    fn a_flood_from_many_sources_makes_a_bounded_number_of_events_and_loses_no_count() {
        let tally = FailureTally::default();
        let mut events = Vec::new();
        for source in 0..10_000 {
            events.extend(tally.record(failure(source), at(60)));
            events.extend(tally.record(failure(source), at(61)));
        }
        events.extend(tally.flush(at(120)));
        assert!(events.len() <= 2 * (TALLY_SOURCES + 1), "{}", events.len());
        assert_eq!(events.iter().map(|event| event.count).sum::<u32>(), 20_000);
        assert!(events.iter().all(|event| event.outcome == Outcome::Deny));
        let together: u32 =
            events.iter().filter(|event| event.source.is_none()).map(|event| event.count).sum();
        assert_eq!(together, 2 * (10_000 - u32::try_from(TALLY_SOURCES).unwrap()));
    }
}
