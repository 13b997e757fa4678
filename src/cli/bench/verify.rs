//! Reading back what a replay stored, and naming the first difference.
//!
//! Every event and entry that the manifest names must be there with exactly its bytes, events in their order under their
//! ids, and nothing beside them. A difference is named by handle, id or key, and length; content is never shown.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::manifest::{Item, Manifest, StoredSession};
use super::measure::Operation;
use super::progress::{Goal, Progress};
use super::replay::Shared;
use super::report::{Phase, ReplayReport};
use super::{BenchArgs, BenchError};
use crate::cli::Global;
use crate::cli::failure::Failure;
use crate::cli::invocation::Invocation;
use crate::client::{ClientError, Entry, Owner, SessionHandle, Tenant, View};

/// A difference between what was stored and what was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    session: String,
    recorded: String,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// An event that was stored is not there: the stream ends before it.
    EventMissing { index: usize, id: String, length: usize },
    /// An event stands where another one should.
    EventMoved { index: usize, id: String, found: String },
    /// An event has other bytes.
    Event { index: usize, id: String, length: usize, found: usize },
    /// There is an event after the last one that was stored.
    EventAdded { index: usize, id: String },
    /// An entry that was stored is not there.
    EntryMissing { key: String, length: usize },
    /// An entry has other bytes.
    Entry { key: String, length: usize, found: usize },
    /// There is an entry that was not stored.
    EntryAdded { key: String },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} (recorded as {}): ", self.session, self.recorded)?;
        match &self.what {
            What::EventMissing { index, id, length } => {
                write!(f, "event {index} ({id}, {length} bytes) is missing")
            }
            What::EventMoved { index, id, found } => write!(f, "event {index} is {found} instead of {id}"),
            What::Event { index, id, length, found } => {
                write!(f, "event {index} ({id}) differs: {length} bytes were stored, {found} bytes were read")
            }
            What::EventAdded { index, id } => write!(f, "event {index} ({id}) was never stored"),
            What::EntryMissing { key, length } => write!(f, "entry {key} ({length} bytes) is missing"),
            What::Entry { key, length, found } => {
                write!(f, "entry {key} differs: {length} bytes were stored, {found} bytes were read")
            }
            What::EntryAdded { key } => write!(f, "entry {key} was never stored"),
        }
    }
}

/// One comparison of a manifest with a server.
pub(super) struct Verification<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) tenant: &'a Tenant,
    pub(super) owner: Option<Owner>,
    pub(super) manifest: &'a Manifest,
}

/// Verifies what an earlier replay stored.
pub(super) async fn run(args: &BenchArgs, invocation: &mut Invocation) -> Result<(), Failure> {
    let Some(path) = &args.manifest else {
        return Err(Failure::Combination("--verify-only needs --manifest FILE"));
    };
    let manifest = Manifest::read(path).map_err(BenchError::from)?;
    let owner = manifest.owner(path).map_err(BenchError::from)?;
    let (_, tenant) = args.client(invocation, Some(&manifest.tenant))?;
    let verification = Verification { args, tenant: &tenant, owner, manifest: &manifest };
    let read = verification.run(invocation.global()).await?;
    invocation.console.record(&ReplayReport::new(args, None, &manifest, None, read))
}

impl Verification<'_> {
    /// Reads everything back.
    ///
    /// # Errors
    /// [`BenchError::Different`] names the first difference in the order of the manifest, [`BenchError::Call`] the first
    /// session that could not be read.
    pub(super) async fn run(self, global: &Global) -> Result<Phase, Failure> {
        let items = u64::try_from(self.manifest.items()).unwrap_or(u64::MAX);
        let progress = Progress::begin("verifying", Goal::Count(items), global.quiet);
        let shared = Arc::new(Shared::new(self.args.concurrency, &progress)?);
        let begin = Instant::now();
        let sessions = stream::iter(&self.manifest.sessions).map(|stored| {
            let reader = Reader {
                session: self.tenant.session(stored.session.as_str(), self.owner.clone()),
                stored: stored.clone(),
                stream: self.manifest.stream.clone(),
                patience: global.timeout(),
                shared: Arc::clone(&shared),
            };
            let compared = tokio::spawn(reader.compare());
            async { compared.await.unwrap_or(Err(BenchError::Worker)) }
        });
        let found: Vec<Option<Difference>> = sessions.buffered(self.args.concurrency).try_collect().await?;
        let elapsed = begin.elapsed();
        let sessions = found.iter().flatten().count();
        match found.iter().flatten().next().cloned() {
            None => Ok(shared.phase(elapsed)),
            Some(first) => {
                Err(BenchError::Different { first: Box::new(first), sessions, of: found.len() }.into())
            }
        }
    }
}

/// The comparison of one session.
struct Reader {
    session: SessionHandle,
    stored: StoredSession,
    stream: String,
    patience: std::time::Duration,
    shared: Arc<Shared>,
}

impl Reader {
    async fn compare(self) -> Result<Option<Difference>, BenchError> {
        let what = match self.compare_events().await {
            Ok(None) => self.compare_entries().await,
            other => other,
        };
        let session = self.stored.session.clone();
        let what = what.map_err(|source| BenchError::Call { doing: "read back", session, source })?;
        Ok(what.map(|what| Difference {
            session: self.stored.session.clone(),
            recorded: self.stored.recorded.clone(),
            what,
        }))
    }

    /// Reads the whole stream in one call, which counts as one operation of the size of all its events.
    async fn compare_events(&self) -> Result<Option<What>, ClientError> {
        let events = self.session.events(self.stream.as_str(), View::Full).patience(self.patience);
        let replay = async { events.replay().try_collect::<Vec<_>>().await };
        let size = |events: &Vec<crate::client::Event>| events.iter().map(|event| event.bytes.len()).sum();
        let events = self.shared.call(Operation::Read, size, replay).await?;
        let pairs = self.stored.events.iter().zip(&events).enumerate();
        for (index, (stored, found)) in pairs {
            if stored.name != found.id {
                let id = stored.name.clone();
                return Ok(Some(What::EventMoved { index, id, found: found.id.clone() }));
            }
            if !stored.matches(&found.bytes) {
                let (id, length, found) = (stored.name.clone(), stored.length, found.bytes.len());
                return Ok(Some(What::Event { index, id, length, found }));
            }
        }
        let index = events.len().min(self.stored.events.len());
        let missing = self.stored.events.get(index).map(|stored| What::EventMissing {
            index,
            id: stored.name.clone(),
            length: stored.length,
        });
        Ok(missing
            .or_else(|| events.get(index).map(|event| What::EventAdded { index, id: event.id.clone() })))
    }

    async fn compare_entries(&self) -> Result<Option<What>, ClientError> {
        for stored in &self.stored.entries {
            if let Some(what) = self.compare_entry(stored).await? {
                return Ok(Some(what));
            }
        }
        let known: BTreeSet<&str> = self.stored.entries.iter().map(|stored| stored.name.as_str()).collect();
        let mut listed = self.session.entries();
        while let Some(entry) = listed.next().await {
            let key = entry?.key;
            if !known.contains(key.as_str()) {
                return Ok(Some(What::EntryAdded { key }));
            }
        }
        Ok(None)
    }

    async fn compare_entry(&self, stored: &Item) -> Result<Option<What>, ClientError> {
        let read = async {
            let entry = self.session.read(stored.name.as_str(), View::Full).await;
            entry.map(crate::client::Answer::into_inner)
        };
        let entry = match self.shared.call(Operation::Read, |entry: &Entry| entry.value.len(), read).await {
            Ok(entry) => entry,
            Err(error) if error.reason() == crate::client::ErrorReason::EntryNotFound => {
                return Ok(Some(What::EntryMissing { key: stored.name.clone(), length: stored.length }));
            }
            Err(error) => return Err(error),
        };
        let differs = !stored.matches(&entry.value);
        Ok(differs.then(|| What::Entry {
            key: stored.name.clone(),
            length: stored.length,
            found: entry.value.len(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_handle_id_and_lengths() {
        let difference = Difference {
            session: "srs_a".to_owned(),
            recorded: "one".to_owned(),
            what: What::Event { index: 3, id: "e3".to_owned(), length: 10, found: 9 },
        };
        assert_eq!(
            difference.to_string(),
            "session srs_a (recorded as one): event 3 (e3) differs: 10 bytes were stored, 9 bytes were read"
        );
    }
}
