//! A load: sessions of its own, workers that read, write and append, and what that took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::measure::{Operation, Tally};
use super::pace::{Extent, Pace};
use super::progress::{Goal, Progress};
use super::random::{Choices, Values};
use super::report::{Busy, LoadReport};
use super::{BenchArgs, BenchError, Mix, PAUSE_WHEN_UNREACHABLE, Workload, reason_of};
use crate::cli::failure::{Exit, Failure, exit_of};
use crate::cli::invocation::Invocation;
use crate::client::{
    ClientError, CreateSession, Put, Retries, SessionHandle, Strongroom, Tenant, Uuid, View, Write,
};
use crate::model::limits::BATCH_ENTRIES;

/// Label of the sessions that a load makes, so that left-overs can be told.
const LABEL: (&str, &str) = ("made-by", "strongroom-bench");
/// Bytes of values in one batch while entries are prepared.
const BATCH_BYTES: usize = 4 << 20;

/// What the workers share.
struct Load {
    sessions: Vec<SessionHandle>,
    keys: Vec<String>,
    values: Values,
    view: View,
    mix: Mix,
    seed: u64,
}

/// What one phase has measured.
pub(super) struct Measured {
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
}

/// Prepares, warms up, measures, cleans up, reports.
pub(super) async fn run(
    args: &BenchArgs,
    workload: Workload,
    invocation: &mut Invocation,
) -> Result<(), Failure> {
    let (client, tenant) = args.client(invocation, None)?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let quiet = invocation.global().quiet;
    let load = Arc::new(Load::prepare(args, workload, &client, &tenant, invocation, seed).await?);
    let outcome = load.measure(args, quiet).await;
    if !args.keep {
        load.clean_up(args.concurrency, invocation).await?;
    }
    let (measured, busy) = outcome?;
    invocation.console.record(&LoadReport::new(args, workload, seed, &measured, busy))?;
    match measured.tally.errors().iter().max_by_key(|(_, count)| **count) {
        Some((reason, _)) => {
            let failed = measured.tally.failures();
            Err(BenchError::OperationsFailed { failed, reason: reason.clone() }.into())
        }
        None if measured.interrupted => Err(BenchError::Interrupted.into()),
        None => Ok(()),
    }
}

/// Below 2³², so that it is easily typed again.
fn fresh_seed() -> u64 {
    u64::from(Uuid::new_v4().as_fields().0)
}

impl Load {
    async fn prepare(
        args: &BenchArgs,
        workload: Workload,
        client: &Strongroom,
        tenant: &Tenant,
        invocation: &mut Invocation,
        seed: u64,
    ) -> Result<Self, Failure> {
        let mix = match workload {
            Workload::Read => Mix { reads: 1, writes: 0, appends: 0 },
            Workload::Write => Mix { reads: 0, writes: 1, appends: 0 },
            Workload::Append => Mix { reads: 0, writes: 0, appends: 1 },
            Workload::Mixed => args.mix,
        };
        let owner = invocation.owner();
        let create = |_| async {
            let labels = [(LABEL.0.to_owned(), LABEL.1.to_owned())].into();
            let wanted = CreateSession { owner: owner.clone(), labels, ..CreateSession::default() };
            tenant.create_session(wanted).await.map(crate::client::Answer::into_inner)
        };
        let created = stream::iter(0..args.sessions).map(create).buffer_unordered(args.concurrency);
        let sessions =
            created.try_collect().await.map_err(Failure::call("create the sessions of the load"))?;
        let values = Values::new(args.size, seed);
        let keys = (0..args.entries).map(|number| format!("entry-{number:05}")).collect();
        let mut load = Self { sessions, keys, values, view: args.view.into(), mix, seed };
        if mix.reads > 0 {
            load.fill(args.concurrency).await.map_err(Failure::call("put the entries of the load"))?;
        }
        // What a load measures, and counts as failed, are single attempts.
        let single = client
            .with_retries(Retries::none())
            .tenant(tenant.name())
            .map_err(Failure::call("use the tenant"))?;
        for session in &mut load.sessions {
            *session = single.session(session.id(), session.owner().cloned());
        }
        Ok(load)
    }

    /// Puts every entry once, so that each read finds one.
    async fn fill(&self, concurrency: usize) -> Result<(), ClientError> {
        let at_once = (BATCH_BYTES / self.values.size().max(1)).clamp(1, BATCH_ENTRIES);
        let batches = self
            .sessions
            .iter()
            .flat_map(|session| self.keys.chunks(at_once).map(move |keys| (session, keys)));
        let puts = stream::iter(batches.enumerate()).map(|(lane, (session, keys))| async move {
            let mut choices = Choices::new(self.seed, u64::try_from(lane).unwrap_or_default());
            let writes =
                keys.iter().map(|key| Write::from(Put::new(key.as_str(), self.values.one(&mut choices))));
            session.write_batch(writes.collect::<Vec<_>>()).await.map(|_| ())
        });
        puts.buffer_unordered(concurrency.min(16)).try_collect().await
    }

    async fn measure(self: &Arc<Self>, args: &BenchArgs, quiet: bool) -> Result<(Measured, Busy), Failure> {
        if !args.warm_up.is_zero() {
            let warmed = self.phase(args, "warming up", Extent::For(args.warm_up), quiet).await?;
            if warmed.interrupted {
                return Err(BenchError::Interrupted.into());
            }
        }
        let before = Busy::now();
        let measured = self.phase(args, "measuring", args.extent(), quiet).await?;
        let busy = before.until_now(measured.elapsed);
        Ok((measured, busy))
    }

    async fn phase(
        self: &Arc<Self>,
        args: &BenchArgs,
        what: &'static str,
        extent: Extent,
        quiet: bool,
    ) -> Result<Measured, Failure> {
        let goal = match extent {
            Extent::For(span) => Goal::Time(span),
            Extent::Times(count) => Goal::Count(count),
        };
        let progress = Progress::begin(what, goal, quiet);
        let pace = match args.rate {
            None => Arc::new(Pace::closed(extent)),
            Some(rate) => Pace::open(extent, rate, args.concurrency).map_err(Failure::Start)?,
        };
        let tally = Arc::new(Mutex::new(Tally::new().map_err(BenchError::from)?));
        let mut workers = JoinSet::new();
        for lane in 0..args.concurrency {
            let worker = Worker {
                load: Arc::clone(self),
                pace: Arc::clone(&pace),
                tally: Arc::clone(&tally),
                done: progress.counter(),
                choices: Choices::new(self.seed, u64::try_from(lane).unwrap_or_default()),
                stream: format!("bench-{lane:04}"),
            };
            workers.spawn(worker.run());
        }
        let interrupted = finish(workers, &pace).await?;
        let elapsed = pace.begin().elapsed();
        let mut tally = lock(&tally).clone();
        for (number, waited) in (0..).zip(pace.left_behind()) {
            tally.left_behind(self.mix.operation(number), waited);
        }
        Ok(Measured { tally, elapsed, interrupted })
    }

    async fn clean_up(&self, concurrency: usize, invocation: &mut Invocation) -> Result<(), Failure> {
        let deletions = stream::iter(&self.sessions).map(SessionHandle::delete_session);
        let failed = deletions.buffer_unordered(concurrency).filter_map(|deleted| async { deleted.err() });
        let failed: Vec<ClientError> = failed.collect().await;
        match failed.first() {
            None => Ok(()),
            Some(error) => invocation.console.say(format_args!(
                "warning: {} of {} sessions of the load could not be deleted: {error}",
                failed.len(),
                self.sessions.len()
            )),
        }
    }

    /// Does one operation and says how many bytes of values it moved.
    async fn perform(
        &self,
        operation: Operation,
        stream: &str,
        choices: &mut Choices,
    ) -> Result<u64, ClientError> {
        let session = self.sessions.get(choices.below(self.sessions.len()));
        let key = self.keys.get(choices.below(self.keys.len()));
        let (Some(session), Some(key)) = (session, key) else { return Ok(0) };
        let moved = match operation {
            Operation::Read => session.read(key.as_str(), self.view).await?.value.len(),
            Operation::Write => {
                session.put(key.as_str(), self.values.one(choices)).await?;
                self.values.size()
            }
            Operation::Append => {
                session.append(stream, [self.values.one(choices)]).await?;
                self.values.size()
            }
        };
        Ok(u64::try_from(moved).unwrap_or(u64::MAX))
    }
}

/// One of the operations in flight.
struct Worker {
    load: Arc<Load>,
    pace: Arc<Pace>,
    tally: Arc<Mutex<Tally>>,
    done: Arc<AtomicU64>,
    choices: Choices,
    /// Of its own in each session, so that appends do not wait for each other.
    stream: String,
}

impl Worker {
    async fn run(mut self) {
        while let Some(intended) = self.pace.next().await {
            let operation = self.load.mix.operation(self.choices.next());
            let outcome = self.load.perform(operation, &self.stream, &mut self.choices).await;
            let latency = intended.elapsed();
            self.done.fetch_add(1, Ordering::Relaxed);
            match outcome {
                Ok(bytes) => lock(&self.tally).succeeded(operation, latency, bytes),
                Err(error) => {
                    lock(&self.tally).failed(reason_of(&error));
                    if exit_of(&error) == Exit::Unreachable {
                        sleep(PAUSE_WHEN_UNREACHABLE).await;
                    }
                }
            }
        }
    }
}

/// Waits for the workers; an interrupt lets each end what it is doing. Says whether there was one.
async fn finish(mut workers: JoinSet<()>, pace: &Pace) -> Result<bool, Failure> {
    let mut interrupted = false;
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                None => return Ok(interrupted),
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(BenchError::Worker.into()),
            },
            signal = tokio::signal::ctrl_c(), if !interrupted => {
                signal.map_err(Failure::Start)?;
                interrupted = true;
                pace.stop();
            }
        }
    }
}

/// A tally that a worker left behind in a panic is still a tally.
pub(super) fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
