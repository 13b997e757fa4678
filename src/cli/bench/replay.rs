//! A replay: recorded sessions become sessions of the server, and are read back.
//!
//! Within a session messages are appended in their order, one call each, as they were when they were recorded; the results
//! of tools are put beside that. All calls of all sessions share one bound on what is in flight.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::load::lock;
use super::manifest::{Item, Manifest, StoredSession};
use super::measure::{Operation, Tally};
use super::progress::{Goal, Progress};
use super::recording::{Message, RecordedSession};
use super::report::{Phase, ReplayReport};
use super::verify::Verification;
use super::{BenchArgs, BenchError};
use crate::cli::failure::Failure;
use crate::cli::invocation::Invocation;
use crate::client::{Answer, ClientError, CreateSession, Expect, Owner, SessionHandle, Tenant};

/// Stream that holds the messages.
pub(super) const STREAM: &str = "messages";

/// What all sessions of a replay or a verification share.
pub(super) struct Shared {
    permits: Semaphore,
    pub(super) tally: Mutex<Tally>,
    done: Arc<AtomicU64>,
}

impl Shared {
    /// Begins with nothing in flight.
    pub(super) fn new(concurrency: usize, progress: &Progress) -> Result<Self, BenchError> {
        let tally = Mutex::new(Tally::new()?);
        Ok(Self { permits: Semaphore::new(concurrency), tally, done: progress.counter() })
    }

    /// Makes one call when there is room for it, and measures it.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        bytes: impl Fn(&T) -> usize,
        call: impl IntoFuture<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        // The semaphore is never closed; without a permit the call would be made all the same.
        let _permit = self.permits.acquire().await;
        let begin = Instant::now();
        let answer = call.await?;
        let moved = u64::try_from(bytes(&answer)).unwrap_or(u64::MAX);
        lock(&self.tally).succeeded(operation, begin.elapsed(), moved);
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }

    /// What was measured, after the last call.
    pub(super) fn phase(&self, elapsed: Duration) -> Phase {
        Phase::new(&lock(&self.tally), elapsed)
    }
}

/// Stores the recorded sessions, writes the manifest, reads everything back, reports.
pub(super) async fn run(
    args: &BenchArgs,
    recorded: Vec<RecordedSession>,
    invocation: &mut Invocation,
) -> Result<(), Failure> {
    let (_, tenant) = args.client(invocation, None)?;
    let (stored, written) = store(args, recorded, &tenant, invocation).await?;
    let manifest = Manifest::new(tenant.name(), invocation.owner().as_ref(), STREAM, stored);
    if let Some(path) = &args.manifest {
        manifest.write(path).map_err(BenchError::from)?;
    }
    let verification = Verification { args, tenant: &tenant, owner: invocation.owner(), manifest: &manifest };
    let read = verification.run(invocation.global()).await?;
    if args.manifest.is_none() && !args.keep {
        delete(&manifest, &tenant, invocation.owner(), args.concurrency).await?;
    }
    let path = args.replay.as_deref().map(Path::to_path_buf);
    invocation.console.record(&ReplayReport::new(args, path, &manifest, Some(written), read))
}

async fn store(
    args: &BenchArgs,
    recorded: Vec<RecordedSession>,
    tenant: &Tenant,
    invocation: &Invocation,
) -> Result<(Vec<StoredSession>, Phase), Failure> {
    let items =
        recorded.iter().flat_map(|session| &session.messages).map(|message| 1 + u64::from(message.is_result));
    let progress = Progress::begin("replaying", Goal::Count(items.sum()), invocation.global().quiet);
    let shared = Arc::new(Shared::new(args.concurrency, &progress)?);
    let begin = Instant::now();
    let sessions = stream::iter(recorded).map(|session| {
        let (shared, tenant, owner) = (Arc::clone(&shared), tenant.clone(), invocation.owner());
        let replayed = tokio::spawn(replay(session, tenant, owner, shared));
        async { replayed.await.unwrap_or(Err(BenchError::Worker)) }
    });
    let stored: Vec<StoredSession> = sessions.buffered(args.concurrency).try_collect().await?;
    Ok((stored, shared.phase(begin.elapsed())))
}

async fn replay(
    recorded: RecordedSession,
    tenant: Tenant,
    owner: Option<Owner>,
    shared: Arc<Shared>,
) -> Result<StoredSession, BenchError> {
    let failed = |doing, session: &str| {
        let session = session.to_owned();
        move |source| BenchError::Call { doing, session, source }
    };
    let wanted = CreateSession { owner, ..CreateSession::default() };
    let created =
        tenant.create_session(wanted).await.map_err(failed("create a session for", &recorded.name))?;
    let session = created.into_inner();
    let (events, entries) = tokio::join!(
        append_all(&session, &recorded.messages, &shared),
        put_all(&session, &recorded.messages, &shared)
    );
    Ok(StoredSession {
        recorded: recorded.name,
        events: events.map_err(failed("append to", session.id()))?,
        entries: entries.map_err(failed("put into", session.id()))?,
        session: session.id().to_owned(),
    })
}

async fn append_all(
    session: &SessionHandle,
    messages: &[Message],
    shared: &Shared,
) -> Result<Vec<Item>, ClientError> {
    let mut items = Vec::with_capacity(messages.len());
    for message in messages {
        let bytes = message.json.clone();
        let append = session.append(STREAM, [bytes.clone()]);
        let ids = shared.call(Operation::Append, |_| bytes.len(), append).await?;
        let id = ids.into_inner().pop().ok_or(ClientError::Malformed { what: "event id" })?;
        items.push(Item::new(id, bytes));
    }
    Ok(items)
}

async fn put_all(
    session: &SessionHandle,
    messages: &[Message],
    shared: &Shared,
) -> Result<Vec<Item>, ClientError> {
    let mut items = Vec::new();
    for (index, message) in messages.iter().enumerate().filter(|(_, message)| message.is_result) {
        let (key, bytes) = (format!("tool-result/{index:05}"), message.json.clone());
        let put =
            session.put(key.as_str(), bytes.clone()).expect(Expect::Absent).content_type("application/json");
        shared.call(Operation::Write, |_| bytes.len(), put).await?;
        items.push(Item::new(key, bytes));
    }
    Ok(items)
}

async fn delete(
    manifest: &Manifest,
    tenant: &Tenant,
    owner: Option<Owner>,
    concurrency: usize,
) -> Result<(), Failure> {
    let deletions = stream::iter(&manifest.sessions).map(|stored| {
        let session = tenant.session(stored.session.as_str(), owner.clone());
        async move { session.delete_session().await.map(Answer::into_inner) }
    });
    let deleted = deletions.buffer_unordered(concurrency).try_collect::<Vec<()>>().await;
    deleted.map(|_| ()).map_err(Failure::call("delete the sessions of the replay"))
}
