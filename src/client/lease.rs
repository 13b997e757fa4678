//! Leases, and reads that are written back: what several writers of one entry need.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::answer::Answer;
use super::entry::{Entry, EntryMetadata};
use super::error::ClientError;
use super::retry::Retries;
use super::session::SessionHandle;
use crate::model::{Expect, Revision, View};

/// How often a read-modify-write is tried against other writers.
const ROUNDS: u32 = 16;

/// The exclusive right to something, until it ends. It is an entry that must be absent to be taken and that ends by
/// itself, so a holder that dies holds nobody up for longer than the lease's length.
///
/// A lease does not stop a holder that has lost it without noticing. What the lease protects should refuse any
/// [`fencing token`](Self::fencing_token) below the highest it has seen.
pub struct Lease {
    session: SessionHandle,
    key: String,
    ttl: Duration,
    revision: Revision,
}

impl SessionHandle {
    /// Takes the lease `key` for `ttl`; `None` when another holds it.
    ///
    /// # Errors
    /// See [`ClientError`]; that the lease is held is none.
    pub async fn lease(&self, key: impl Into<String>, ttl: Duration) -> Result<Option<Lease>, ClientError> {
        let key = key.into();
        match self.put(key.clone(), Bytes::new()).ttl(ttl).expect(Expect::Absent).await {
            Ok(taken) => Ok(Some(Lease { session: self.clone(), key, ttl, revision: taken.revision })),
            Err(error) if error.is_revision_mismatch() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the entry `key` in full, changes it and writes it back, again and again while others write it in between, up
    /// to 16 times. `change` gets `None` when there is no entry; when it returns `None`, nothing is written.
    ///
    /// The entry keeps its media type; its labels and its own end are set anew: none, and the session's.
    ///
    /// # Errors
    /// `REVISION_MISMATCH` when others were faster every time; see [`ClientError`] for the rest.
    pub async fn modify<V: Into<Bytes>>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<&Entry>) -> Option<V> + Send,
    ) -> Result<Option<Answer<EntryMetadata>>, ClientError> {
        let pauses = Retries {
            pause: Duration::from_millis(2),
            pause_max: Duration::from_millis(200),
            ..Retries::default()
        };
        let mut round = 1;
        loop {
            let entry = absent_as_none(self.read(key, View::Full).await)?;
            let Some(value) = change(entry.as_ref()) else { return Ok(None) };
            let expect =
                entry.as_ref().map_or(Expect::Absent, |entry| Expect::Revision(entry.metadata.revision));
            let content_type = entry.map(|entry| entry.metadata.content_type).unwrap_or_default();
            match self.put(key, value).expect(expect).content_type(content_type).await {
                Err(error) if error.is_revision_mismatch() && round < ROUNDS => {
                    sleep(pauses.pause_after(round)).await;
                    round += 1;
                }
                outcome => return outcome.map(Some),
            }
        }
    }
}

impl Lease {
    /// Grows with every taking and renewal of this lease, for as long as the session lives.
    #[must_use]
    pub const fn fencing_token(&self) -> Revision {
        self.revision
    }

    /// Extends the lease by its whole length from now. `false`: it had ended and may be another's now.
    ///
    /// # Errors
    /// See [`ClientError`]; after one it is not known whether the lease was renewed.
    pub async fn renew(&mut self) -> Result<bool, ClientError> {
        let expect = Expect::Revision(self.revision);
        match self.session.put(self.key.clone(), Bytes::new()).ttl(self.ttl).expect(expect).await {
            Ok(renewed) => {
                self.revision = renewed.revision;
                Ok(true)
            }
            Err(error) if lost(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back. `false`: it had ended already.
    ///
    /// # Errors
    /// See [`ClientError`]; the lease then ends by itself.
    pub async fn release(self) -> Result<bool, ClientError> {
        let expect = Expect::Revision(self.revision);
        match self.session.delete(self.key.clone()).expect(expect).await {
            Ok(_) => Ok(true),
            Err(error) if lost(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// An entry that does not exist is an answer here, a session that does not exist is not.
pub(super) fn absent_as_none<T>(outcome: Result<Answer<T>, ClientError>) -> Result<Option<T>, ClientError> {
    match outcome {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(error) if error.is_entry_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn lost(error: &ClientError) -> bool {
    error.is_revision_mismatch() || error.is_entry_not_found()
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("revision", &self.revision).finish_non_exhaustive()
    }
}
