//! What a listener counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened on a listener since it began to serve. Read with [`Counters::counts`] at any time.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(super) $name: Counter,)*
        }

        /// A reading of [`Counters`].
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The present values; each is exact, together they may be a moment apart.
            #[must_use]
            pub fn counts(&self) -> Counts {
                Counts { $($name: self.$name.value(),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted by the system.
    accepted,
    /// Those closed at once because there were too many connections.
    refused_connections,
    /// Those closed at once because there were too many handshakes.
    refused_handshakes,
    /// Handshakes that failed: TLS, ALPN or the HTTP/2 preface.
    failed_handshakes,
    /// Handshakes that took too long.
    expired_handshakes,
    /// Connections whose handshake succeeded.
    opened,
    /// Connections of these that have ended.
    closed,
    /// Those of them that were asked to close because of their age.
    aged,
    /// Those of them that ended by an error, of the protocol, of a limit or of the network, before they were asked to close.
    broken,
    /// Those of them that were cut off because they did not end in time.
    severed,
    /// Streams reset because their peer left the answer untaken.
    stalled_streams,
}

/// One number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    /// Connections that are open now, without those in their handshake.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}
