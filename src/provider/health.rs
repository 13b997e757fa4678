//! How the root provider is, and what may still be done while it is not well.
//!
//! [`Health`] is a state machine without a clock of its own; [`RootHealth`] shares it and feeds it by asking the provider:
//! each minute while it is healthy, soon and then every ten seconds while it is not. A provider that is unwell for less
//! than [`GRACE`] changes nothing; after that no new keys may be made, because they would come to depend on a root that may
//! be gone. What is opened already goes on. A poll that no longer comes counts as a provider that does not answer.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::env::Clock;
use crate::keyring::{ProviderError, ProviderStatus, RootProvider};
use crate::model::{Duration, Timestamp};

/// How long new keys are still made under a provider that is unwell.
pub const GRACE: Duration = Duration::from_secs(180);
/// Pause between polls of a healthy provider.
pub const POLL_HEALTHY: Duration = Duration::from_secs(60);
/// Longest pause between polls of an unhealthy provider; the first are shorter.
pub const POLL_UNHEALTHY: Duration = Duration::from_secs(10);

/// First pause after a failed poll: most failures are short.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// How late a poll may be before its absence counts as a failure: more than the longest deadline of a call.
const LATE: Duration = Duration::from_secs(60);

/// How a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It answers, and wraps with the key that the store's root key is wrapped with.
    Healthy,
    /// It answers, but wraps with another key by now: the root key should be wrapped anew. Everything goes on.
    KeyChanged {
        /// The key that it wraps with now.
        key_id: String,
        /// When that was first seen.
        since: Timestamp,
    },
    /// It does not answer as it should.
    Unhealthy {
        /// When that was first seen.
        since: Timestamp,
        /// What was wrong the last time.
        problem: String,
    },
}

impl Condition {
    /// Whether both are the same variant: only then it is no news.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What is known of a provider's health. Time is an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    condition: Condition,
    heard: Timestamp,
    failures: u32,
    wrapped_for: Vec<String>,
    polled: bool,
}

impl Health {
    /// A provider that has just answered. `wrapped_for` are the ids of its keys for which the current root epoch key is
    /// wrapped.
    #[must_use]
    pub const fn new(wrapped_for: Vec<String>, now: Timestamp) -> Self {
        Self { condition: Condition::Healthy, heard: now, failures: 0, wrapped_for, polled: true }
    }

    /// A provider that is needed once and never again, such as a file that was read: it is always healthy.
    #[must_use]
    pub fn steady(now: Timestamp) -> Self {
        Self { polled: false, ..Self::new(Vec::new(), now) }
    }

    /// How the provider was when it was last asked.
    #[must_use]
    pub const fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Whether new keys may be made: the provider has not been unwell for [`GRACE`] or longer.
    #[must_use]
    pub fn accepts_new_keys(&self, now: Timestamp) -> bool {
        self.unwell_since(now).is_none_or(|since| now.since(since) < GRACE)
    }

    /// How long the provider has been unwell, or its poll overdue; zero while it is well.
    #[must_use]
    pub fn unwell_for(&self, now: Timestamp) -> Duration {
        self.unwell_since(now).map_or(Duration::ZERO, |since| now.since(since))
    }

    /// How long the provider has wrapped with another key; zero when it does not.
    #[must_use]
    pub fn key_changed_for(&self, now: Timestamp) -> Duration {
        match self.condition {
            Condition::KeyChanged { since, .. } => now.since(since),
            Condition::Healthy | Condition::Unhealthy { .. } => Duration::ZERO,
        }
    }

    /// How long to wait until the provider should be asked again.
    #[must_use]
    pub fn next_poll(&self, now: Timestamp) -> Duration {
        match self.condition {
            Condition::Healthy | Condition::KeyChanged { .. } => POLL_HEALTHY,
            Condition::Unhealthy { since, .. } => {
                let doubled = FIRST_RETRY * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(8));
                let pause = doubled.min(POLL_UNHEALTHY);
                // Who waits for the end of the grace is woken when it ends.
                match GRACE.saturating_sub(now.since(since)) {
                    Duration::ZERO => pause,
                    left => pause.min(left),
                }
            }
        }
    }

    /// Takes in what the provider answered. Says whether the condition is another kind than before.
    pub fn observe(&mut self, now: Timestamp, answer: Result<ProviderStatus, ProviderError>) -> bool {
        let next = match answer {
            Ok(status) => {
                (self.heard, self.failures) = (now, 0);
                self.answered(now, status.key_id)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let since = self.unwell_since(now).unwrap_or(now);
                Condition::Unhealthy { since, problem: error.to_string() }
            }
        };
        let news = !self.condition.is_like(&next);
        self.condition = next;
        news
    }

    /// Notes that the current root epoch key is now wrapped for these keys of the provider.
    pub fn rewrapped(&mut self, now: Timestamp, wrapped_for: Vec<String>) {
        self.wrapped_for = wrapped_for;
        if let Condition::KeyChanged { key_id, .. } = &self.condition {
            self.condition = self.answered(now, key_id.clone());
        }
    }

    fn answered(&self, now: Timestamp, key_id: String) -> Condition {
        if self.wrapped_for.contains(&key_id) {
            return Condition::Healthy;
        }
        match &self.condition {
            Condition::KeyChanged { key_id: known, since } if *known == key_id => {
                Condition::KeyChanged { key_id, since: *since }
            }
            Condition::Healthy | Condition::KeyChanged { .. } | Condition::Unhealthy { .. } => {
                Condition::KeyChanged { key_id, since: now }
            }
        }
    }

    /// Since when the provider is unwell, or the poll is overdue.
    fn unwell_since(&self, now: Timestamp) -> Option<Timestamp> {
        match self.condition {
            Condition::Unhealthy { since, .. } => Some(since),
            Condition::Healthy | Condition::KeyChanged { .. } => {
                let due = self.heard.after(POLL_HEALTHY).after(LATE);
                (self.polled && now > due).then_some(due)
            }
        }
    }
}

/// The health of the provider of a running server.
pub struct RootHealth {
    state: watch::Sender<Health>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for RootHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootHealth").field("condition", &self.condition()).finish_non_exhaustive()
    }
}

impl RootHealth {
    /// A provider that has just unwrapped a store's root epoch key; see [`Health::new`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, wrapped_for: Vec<String>) -> Self {
        let state = watch::Sender::new(Health::new(wrapped_for, clock.now()));
        Self { state, clock }
    }

    /// A provider that is needed once and never again; see [`Health::steady`].
    #[must_use]
    pub fn steady(clock: Arc<dyn Clock>) -> Self {
        let state = watch::Sender::new(Health::steady(clock.now()));
        Self { state, clock }
    }

    /// How the provider was when it was last asked.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.state.borrow().condition().clone()
    }

    /// Whether new keys may be made now. Asks nobody: it costs a lock that is never held for long.
    #[must_use]
    pub fn accepts_new_keys(&self) -> bool {
        self.state.borrow().accepts_new_keys(self.clock.now())
    }

    /// How long the provider has been unwell; zero while it is well.
    #[must_use]
    pub fn unwell_for(&self) -> Duration {
        self.state.borrow().unwell_for(self.clock.now())
    }

    /// How long the provider has wrapped with another key; zero when it does not.
    #[must_use]
    pub fn key_changed_for(&self) -> Duration {
        self.state.borrow().key_changed_for(self.clock.now())
    }

    /// Wakes after every poll, and when the grace of an unhealthy provider ends.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.state.subscribe()
    }

    /// Notes that the current root epoch key is now wrapped for these keys of the provider.
    pub fn rewrapped(&self, wrapped_for: Vec<String>) {
        let now = self.clock.now();
        self.state.send_modify(|health| health.rewrapped(now, wrapped_for));
    }

    /// Asks the provider, first at once, until `stop`.
    pub async fn poll(&self, provider: &dyn RootProvider, stop: CancellationToken) {
        let mut pause = Duration::ZERO;
        let mut accepts = true;
        let next = async {
            loop {
                tokio::time::sleep(pause).await;
                let answer = provider.status().await;
                pause = self.take_in(answer);
                if std::mem::replace(&mut accepts, self.accepts_new_keys()) && !accepts {
                    tracing::error!(
                        "the root provider has been unwell for three minutes; no new keys are made"
                    );
                }
            }
        };
        // What ends a poll early is the end of the server.
        let ended: Option<std::convert::Infallible> = stop.run_until_cancelled(next).await;
        if let Some(never) = ended {
            match never {}
        }
    }

    fn take_in(&self, answer: Result<ProviderStatus, ProviderError>) -> Duration {
        let now = self.clock.now();
        let mut pause = Duration::ZERO;
        self.state.send_modify(|health| {
            if health.observe(now, answer) {
                log(health.condition());
            }
            pause = health.next_poll(now);
        });
        pause
    }
}

fn log(condition: &Condition) {
    match condition {
        Condition::Healthy => tracing::info!("the root provider is healthy"),
        Condition::KeyChanged { key_id, .. } => {
            tracing::warn!(key_id, "the root provider wraps with another key; wrap the root key anew");
        }
        Condition::Unhealthy { problem, .. } => {
            tracing::warn!(problem, "the root provider is unwell; new keys are still made for three minutes");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use zeroize::Zeroizing;

    use super::*;
    use crate::keyring::{ProviderKind, Wrapped};
    use crate::model::StoreId;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + second * 1000)
    }

    fn named(key_id: &str) -> Result<ProviderStatus, ProviderError> {
        Ok(ProviderStatus { key_id: key_id.to_owned() })
    }

    fn gone() -> Result<ProviderStatus, ProviderError> {
        Err(ProviderError::Unavailable("gone".to_owned()))
    }

    fn health() -> Health {
        Health::new(vec!["a".to_owned()], at(0))
    }

    #[test]
    fn new_keys_are_made_for_three_minutes_of_an_unhealthy_provider_and_no_longer() {
        let mut health = health();
        assert!(health.observe(at(60), gone()));
        for second in [60, 61, 239] {
            assert!(health.accepts_new_keys(at(second)), "{second}");
        }
        assert!(!health.observe(at(200), gone()), "the same condition is no news");
        assert!(!health.accepts_new_keys(at(240)), "a later failure does not begin the grace anew");
        assert_eq!(health.condition(), &Condition::Unhealthy { since: at(60), problem: "gone".to_owned() });
    }

    #[test]
    fn one_good_answer_ends_the_unhealthy_time_and_the_next_grace_is_a_whole_one() {
        let mut health = health();
        health.observe(at(60), gone());
        health.observe(at(300), gone());
        assert!(!health.accepts_new_keys(at(300)));
        assert!(health.observe(at(301), named("a")));
        assert!(health.accepts_new_keys(at(301)));
        health.observe(at(302), gone());
        assert!(health.accepts_new_keys(at(302 + 179)) && !health.accepts_new_keys(at(302 + 180)));
    }

    #[test]
    fn a_changed_key_is_told_and_keeps_its_time_until_the_root_key_is_wrapped_anew() {
        let mut health = health();
        let changed = Condition::KeyChanged { key_id: "b".to_owned(), since: at(60) };
        assert!(health.observe(at(60), named("b")));
        assert!(!health.observe(at(120), named("b")));
        assert_eq!(health.condition(), &changed);
        assert!(health.accepts_new_keys(at(120)));
        health.rewrapped(at(130), vec!["a".to_owned(), "c".to_owned()]);
        assert_eq!(health.condition(), &Condition::KeyChanged { key_id: "b".to_owned(), since: at(60) });
        health.rewrapped(at(131), vec!["b".to_owned()]);
        assert_eq!(health.condition(), &Condition::Healthy);
    }

    #[test]
    fn a_key_that_changes_and_changes_back_is_no_change() {
        let mut health = health();
        health.observe(at(60), named("b"));
        assert!(health.observe(at(120), named("a")));
        assert_eq!(health.condition(), &Condition::Healthy);
    }

    #[test]
    fn pauses_are_a_minute_while_healthy_and_grow_to_ten_seconds_while_not() {
        let mut health = health();
        assert_eq!(health.next_poll(at(0)), POLL_HEALTHY);
        let pauses: Vec<_> = (0..6)
            .map(|second| {
                health.observe(at(second), gone());
                health.next_poll(at(second)).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert_eq!(health.next_poll(at(177)), 3 * SECOND, "the end of the grace is not slept through");
        assert_eq!(health.next_poll(at(180)), POLL_UNHEALTHY);
        health.observe(at(200), named("b"));
        assert_eq!(health.next_poll(at(200)), POLL_HEALTHY);
    }

    #[test]
    fn silence_of_the_poll_itself_ends_in_no_new_keys() {
        let mut health = health();
        assert!(health.accepts_new_keys(at(60 + 60 + 179)));
        assert!(!health.accepts_new_keys(at(60 + 60 + 180)));
        health.observe(at(400), gone());
        assert!(!health.accepts_new_keys(at(400)), "a failure after silence begins no new grace");
        assert_eq!(health.condition(), &Condition::Unhealthy { since: at(120), problem: "gone".to_owned() });
    }

    #[test]
    fn a_file_that_was_read_is_healthy_without_being_asked() {
        assert!(Health::steady(at(0)).accepts_new_keys(at(100_000_000)));
    }

    /// Follows tokio's paused time, so that the two cannot disagree.
    struct TokioClock(tokio::time::Instant);

    impl Clock for TokioClock {
        fn now(&self) -> Timestamp {
            at(0).after(self.0.elapsed())
        }
    }

    /// Answers as it is told, and notes when it was asked.
    struct Scripted {
        begun: tokio::time::Instant,
        answers: Mutex<Vec<Result<ProviderStatus, ProviderError>>>,
        asked: Mutex<Vec<u64>>,
        stop: CancellationToken,
    }

    #[async_trait]
    impl RootProvider for Scripted {
        fn kind(&self) -> ProviderKind {
            ProviderKind::Kms
        }

        async fn status(&self) -> Result<ProviderStatus, ProviderError> {
            self.asked.lock().unwrap().push(self.begun.elapsed().as_secs());
            let answer = self.answers.lock().unwrap().pop();
            match answer {
                Some(answer) => answer,
                None => {
                    self.stop.cancel();
                    std::future::pending().await
                }
            }
        }

        async fn wrap(&self, _: StoreId, _: &[u8]) -> Result<Wrapped, ProviderError> {
            Err(ProviderError::UnknownKey)
        }

        async fn unwrap(&self, _: StoreId, _: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
            Err(ProviderError::UnknownKey)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_poll_asks_at_once_keeps_its_pauses_and_ends_when_it_is_told() {
        let begun = tokio::time::Instant::now();
        let mut answers = vec![named("a"), named("a"), gone(), gone(), gone(), named("a"), named("b")];
        answers.reverse();
        let stop = CancellationToken::new();
        let provider =
            Scripted { begun, answers: Mutex::new(answers), asked: Mutex::default(), stop: stop.clone() };
        let health = RootHealth::new(Arc::new(TokioClock(begun)), vec!["a".to_owned()]);
        let watching = health.subscribe();
        health.poll(&provider, stop).await;
        assert_eq!(*provider.asked.lock().unwrap(), [0, 60, 120, 121, 123, 127, 187, 247]);
        let changed = Condition::KeyChanged { key_id: "b".to_owned(), since: at(187) };
        assert_eq!((health.condition(), watching.has_changed().unwrap()), (changed, true));
    }
}
