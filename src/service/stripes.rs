//! Lets changes of the same thing queue in this process instead of losing races against each other.
//!
//! This is for speed alone: what keeps changes apart is the expectation in the commit.

use tokio::sync::{Mutex, MutexGuard};

use crate::store::Key;

const STRIPES: usize = 1024;

/// A fixed set of locks, shared by all keys.
pub(super) struct Stripes(Vec<Mutex<()>>);

impl Default for Stripes {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }
}

impl Stripes {
    /// Waits until nobody else changes any of `keys`.
    pub(super) async fn hold<'a>(&'a self, keys: impl Iterator<Item = &Key>) -> Vec<MutexGuard<'a, ()>> {
        let mut numbers: Vec<usize> = keys.map(stripe).collect();
        // In one order for all, each once: no deadlock.
        numbers.sort_unstable();
        numbers.dedup();
        let mut held = Vec::with_capacity(numbers.len());
        for number in numbers {
            if let Some(stripe) = self.0.get(number) {
                held.push(stripe.lock().await);
            }
        }
        held
    }
}

fn stripe(key: &Key) -> usize {
    // The last bytes of a key are blinded, so they are spread evenly.
    key.as_bytes()
        .iter()
        .rev()
        .take(8)
        .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)))
        % STRIPES
}
