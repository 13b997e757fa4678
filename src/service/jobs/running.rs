//! Which jobs work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::Key;

/// The rows of the jobs that work, and of some that may have ended. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::service) struct Running(Arc<Mutex<BTreeMap<Key, u64>>>);

impl Running {
    /// Adds a job that works.
    pub(in crate::service) fn begin(&self, key: Key) {
        *self.jobs().entry(key).or_default() += 1;
    }

    /// All of them, each with how often it has begun.
    pub(super) fn all(&self) -> Vec<(Key, u64)> {
        self.jobs().iter().map(|(key, generation)| (key.clone(), *generation)).collect()
    }

    /// Removes a job that was found to have ended, unless it has begun again meanwhile.
    pub(super) fn end(&self, key: &Key, generation: u64) {
        let mut jobs = self.jobs();
        if jobs.get(key) == Some(&generation) {
            jobs.remove(key);
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_began_again_meanwhile_is_not_taken_for_ended() {
        let running = Running::default();
        let key = Key::from_stored(vec![1]);
        running.begin(key.clone());
        let (_, first) = running.all().remove(0);
        running.begin(key.clone());
        running.end(&key, first);
        let (_, second) = running.all().remove(0);
        running.end(&key, second);
        assert!(running.all().is_empty());
    }
}
