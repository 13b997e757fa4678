//! Where walks over sessions are that took more than one turn. It saves a second walk over the same rows, and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::crypto::KeyId;
use crate::store::Key;

/// Most places that are remembered; with more, all are forgotten.
const PLACES: usize = 1024;

/// For sessions by their rows: the key under which the walk seals, and the row that it came to.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<Key, (KeyId, Key)>>);

impl Places {
    /// Where the walk is that seals under this key.
    pub(super) fn of(&self, session: &Key, body: KeyId) -> Option<Key> {
        let places = self.places();
        places.get(session).filter(|(under, _)| *under == body).map(|(_, place)| place.clone())
    }

    pub(super) fn remember(&self, session: &Key, body: KeyId, place: Option<Key>) {
        let Some(place) = place else { return };
        let mut places = self.places();
        if places.len() >= PLACES {
            places.clear();
        }
        places.insert(session.clone(), (body, place));
    }

    pub(super) fn forget(&self, session: &Key) {
        self.places().remove(session);
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Key, (KeyId, Key)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
