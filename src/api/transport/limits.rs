//! The bounds of a listener and its connections.

use std::time::Duration;

use crate::model::limits::{
    CONNECTIONS, DEADLINE_CEILING, HANDSHAKE_TIMEOUT, HANDSHAKES, STREAMS_PER_CONNECTION,
};

/// Longest header list of a request, in bytes as HTTP/2 counts them: a token and a trace have below 1 KiB.
const HEADER_LIST_BYTES: u32 = 16 << 10;
/// After how long a connection is asked to close, so that clients spread over replicas that were added.
const AGE: Duration = Duration::from_secs(30 * 60);
/// How far ages spread about [`AGE`], in per cent to either side, so that connections opened together do not close together.
const AGE_SPREAD_PERCENT: u32 = 20;
/// How long a connection that was asked to close may take: a call that began just before has its whole time.
const CLOSE_GRACE: Duration = DEADLINE_CEILING.saturating_add(Duration::from_secs(5));
/// How long a drain may take: below the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(25);
/// How often a connection is pinged: often enough for load balancers, which forget one after 60 s or more.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a ping may stay without an answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a peer may leave an answer untaken. It holds memory of ours meanwhile.
const STALL: Duration = Duration::from_secs(60);
/// Most streams that a peer makes us reset by breaking the protocol (RUSTSEC-2024-0003).
const ERROR_RESETS: usize = 1024;
/// Most streams that a peer resets before we have looked at them (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// The bounds of one listener. The defaults are those of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most connections, those in their handshake included. One more is closed at once.
    pub connections: usize,
    /// Most handshakes at one time. One more is closed at once.
    pub handshakes: usize,
    /// Longest time from the accepted connection to the HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// Most concurrent streams of a connection.
    pub streams: u32,
    /// Longest header list of a request, in bytes.
    pub header_list_bytes: u32,
    /// Mean age at which a connection is asked to close.
    pub age: Duration,
    /// How far ages spread about the mean, in per cent to either side; at most 100.
    pub age_spread_percent: u32,
    /// Longest time from there to its end.
    pub close_grace: Duration,
    /// Longest time that a drain takes.
    pub drain: Duration,
    /// Time between pings.
    pub keepalive_interval: Duration,
    /// Longest time that the answer to a ping may take.
    pub keepalive_timeout: Duration,
    /// Longest time that a peer may leave an answer untaken; then its stream is reset.
    pub stall: Duration,
    /// Most streams reset for errors of the peer; then the connection ends.
    pub error_resets: usize,
    /// Most streams reset by the peer before they were looked at; then the connection ends.
    pub pending_resets: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            handshakes: HANDSHAKES,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            streams: STREAMS_PER_CONNECTION,
            header_list_bytes: HEADER_LIST_BYTES,
            age: AGE,
            age_spread_percent: AGE_SPREAD_PERCENT,
            close_grace: CLOSE_GRACE,
            drain: DRAIN,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            stall: STALL,
            error_resets: ERROR_RESETS,
            pending_resets: PENDING_RESETS,
        }
    }
}

/// 2⁶⁴ divided by the golden ratio. Its multiples, taken modulo 2⁶⁴, stay as far from each other as multiples can.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl ConnectionLimits {
    /// The age of the `ordinal`th connection.
    ///
    /// Not random but better: any run of connections is spread evenly over the whole range, so a fleet of clients that
    /// connects at once comes back one by one.
    pub(super) fn age_of(&self, ordinal: u64) -> Duration {
        let half = self.age / 100 * self.age_spread_percent.min(100);
        let part = u32::try_from(ordinal.wrapping_mul(GOLDEN) >> 44).unwrap_or_default();
        (self.age - half).saturating_add(half * 2 / (1 << 20) * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_spread_evenly_within_a_fifth_of_the_mean() {
        let limits = ConnectionLimits::default();
        let mut minutes: Vec<_> = (0..120).map(|n| limits.age_of(n).as_secs_f64() / 60.0).collect();
        minutes.sort_by(f64::total_cmp);
        assert!(minutes[0] >= 24.0 && minutes[119] <= 36.0, "{} to {}", minutes[0], minutes[119]);
        let gap = minutes.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(gap < 0.25, "a gap of {gap} minutes; an even one would have 0.1");
    }

    #[test]
    fn without_a_spread_every_age_is_the_mean() {
        let limits = ConnectionLimits { age_spread_percent: 0, ..ConnectionLimits::default() };
        assert_eq!(limits.age_of(1), limits.age_of(2));
        assert_eq!(limits.age_of(3), limits.age);
    }
}
