//! Fixtures of the integration tests: [`Daemon`], a server process in dev mode, and [`Inside`], the same service in this
//! process, in memory, on a clock that the test moves.
//!
//! Include it with `#[path = "../support/mod.rs"] mod support;`. Both give the generated clients as [`Context`] and
//! [`Control`], so that a test of a call does not care where the call goes.
#![allow(dead_code, unused_imports, reason = "each test binary uses another part of it")]

mod daemon;
mod inside;
mod raw;
mod wire;

pub use daemon::{Daemon, Login};
pub use inside::{BEGIN, FakeClock, Inside, SeededEntropy, secret};
pub use raw::Raw;
pub use wire::{Approving, Context, Control, Refusal, Stamp, answered, refused, stamp};

use std::time::Duration;

/// Longer than anything here takes on a busy machine, shorter than a test run should hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A number from the environment: how long to try.
#[expect(clippy::disallowed_methods, reason = "how long to try is asked for in the environment")]
pub fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect(name))
}

/// Waits for `future`, not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("not in time")
}

/// Waits for `future` for less than the time between two heartbeats of a followed stream: what comes within it was told
/// at once.
pub async fn promptly<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("not told at once")
}

/// Waits until `condition` gives something.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let held = async {
        loop {
            if let Some(found) = condition() {
                break found;
            }
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}
