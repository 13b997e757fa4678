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
    // Of the whole key: an entry's last bytes are its blinded name, which it shares with its namesakes in other sessions.
    let sum = key
        .as_bytes()
        .iter()
        .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    sum % STRIPES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::TenantId;
    use crate::store::keys;

    #[test]
    fn entries_of_one_name_in_many_sessions_do_not_wait_for_each_other() {
        let session = |n: u128| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes();
        let entry = |n| keys::entry(TenantId([7; 16]), &session(n), &[9; 16]);
        let stripes: BTreeSet<usize> = (1..=1000).map(|n| stripe(&entry(n))).collect();
        // A fair draw of 1000 out of 1024 leaves some 640 different ones.
        assert!(stripes.len() > 550, "{}", stripes.len());
    }
}
