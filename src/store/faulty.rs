//! An engine that fails when a script says so, around any other, for tests.
//!
//! It shows what the rest of the program does when a disk fills up, breaks or stalls at any one call. A
//! commit that fails with anything but [`Failure::Full`] and [`Failure::Busy`] closes it, as it closes the
//! embedded engine.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{Batch, CommitOutcome, EngineError, EngineStats, Key, Row, ScanPage, ScanRange, StorageEngine};

/// A call to an engine, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`StorageEngine::multi_get`].
    MultiGet,
    /// [`StorageEngine::scan`].
    Scan,
    /// [`StorageEngine::commit`].
    Commit,
    /// [`StorageEngine::stats`].
    Stats,
    /// [`StorageEngine::close`].
    Close,
}

const OPERATIONS: usize = 5;

/// One call: its kind, and its number among the calls of its kind, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub operation: Operation,
    /// The how manieth such call it is.
    pub number: u64,
}

/// What to fail with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// [`EngineError::Io`] with this kind of system error.
    Io(ErrorKind),
    /// [`EngineError::Full`].
    Full,
    /// [`EngineError::Busy`].
    Busy,
    /// [`EngineError::Corrupt`].
    Corrupt,
    /// [`EngineError::Closed`].
    Closed,
}

impl Failure {
    fn error(self) -> EngineError {
        match self {
            Self::Io(kind) => EngineError::Io { operation: "an injected fault", source: kind.into() },
            Self::Full => EngineError::Full,
            Self::Busy => EngineError::Busy,
            Self::Corrupt => EngineError::Corrupt { what: "an injected fault".to_owned() },
            Self::Closed => EngineError::Closed,
        }
    }
}

/// What a call waits for before it goes on.
pub type Hook = Arc<dyn Fn(Call) -> BoxFuture<'static, ()> + Send + Sync>;

/// What happens to a call.
#[derive(Clone)]
pub enum Effect {
    /// It fails and the engine below does not see it.
    Fail(Failure),
    /// The engine below does it, and then it fails: what a caller sees when the answer is lost.
    FailAfter(Failure),
    /// It waits for what the hook returns, and goes on.
    Wait(Hook),
    /// The engine below does it, and then it waits for what the hook returns: an answer that is old when it comes.
    WaitAfter(Hook),
}

/// What happens to a call that the engine below has done.
enum After {
    Fail(Failure),
    Wait(BoxFuture<'static, ()>),
}

/// An entry of the script.
#[derive(Clone)]
pub struct Fault {
    /// Which kind of call.
    pub operation: Operation,
    /// Which of them, from 1; `None` for every one.
    pub number: Option<u64>,
    /// What happens to it.
    pub effect: Effect,
}

/// An engine around another that follows a script of faults and counts calls.
pub struct Faulty<E> {
    inner: E,
    script: Mutex<Script>,
    failed: AtomicBool,
}

#[derive(Default)]
struct Script {
    faults: Vec<Fault>,
    calls: [u64; OPERATIONS],
}

impl<E: StorageEngine> Faulty<E> {
    /// Wraps `inner` with an empty script.
    #[must_use]
    pub fn new(inner: E) -> Self {
        Self { inner, script: Mutex::default(), failed: AtomicBool::new(false) }
    }

    /// Adds to the script. Where several entries match a call, the first holds.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        self.inject(fault);
        self
    }

    /// Adds to the script of an engine in use.
    pub fn inject(&self, fault: Fault) {
        self.script().faults.push(fault);
    }

    /// Empties the script; calls are counted on.
    pub fn heal(&self) {
        self.script().faults.clear();
    }

    /// How many calls of a kind there were.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.script().calls.get(operation as usize).copied().unwrap_or_default()
    }

    /// The engine below.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.inner
    }

    /// Counts a call, lets it wait if the script says so, and says what happens to it afterwards.
    async fn enter(&self, operation: Operation) -> Result<Option<After>, EngineError> {
        let (call, effect) = self.script().next(operation);
        if self.failed.load(Ordering::Acquire) && operation != Operation::Close {
            return Err(EngineError::Closed);
        }
        match effect {
            None => Ok(None),
            Some(Effect::Fail(failure)) => Err(self.fail(operation, failure)),
            Some(Effect::FailAfter(failure)) => Ok(Some(After::Fail(failure))),
            Some(Effect::WaitAfter(hook)) => Ok(Some(After::Wait(hook(call)))),
            Some(Effect::Wait(hook)) => {
                hook(call).await;
                Ok(None)
            }
        }
    }

    async fn leave<T>(
        &self,
        operation: Operation,
        after: Option<After>,
        result: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let value = result?;
        match after {
            None => Ok(value),
            Some(After::Fail(failure)) => Err(self.fail(operation, failure)),
            Some(After::Wait(waited)) => {
                waited.await;
                Ok(value)
            }
        }
    }

    fn fail(&self, operation: Operation, failure: Failure) -> EngineError {
        if operation == Operation::Commit && !matches!(failure, Failure::Full | Failure::Busy) {
            self.failed.store(true, Ordering::Release);
        }
        failure.error()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    fn next(&mut self, operation: Operation) -> (Call, Option<Effect>) {
        let mut number = 1;
        if let Some(calls) = self.calls.get_mut(operation as usize) {
            *calls += 1;
            number = *calls;
        }
        let matches = |fault: &&Fault| {
            fault.operation == operation && fault.number.is_none_or(|scripted| scripted == number)
        };
        (Call { operation, number }, self.faults.iter().find(matches).map(|fault| fault.effect.clone()))
    }
}

#[async_trait]
impl<E: StorageEngine> StorageEngine for Faulty<E> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn multi_get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, EngineError> {
        let after = self.enter(Operation::MultiGet).await?;
        self.leave(Operation::MultiGet, after, self.inner.multi_get(keys).await).await
    }

    async fn scan(&self, range: ScanRange, limit: usize) -> Result<ScanPage, EngineError> {
        let after = self.enter(Operation::Scan).await?;
        self.leave(Operation::Scan, after, self.inner.scan(range, limit).await).await
    }

    async fn scan_keys(&self, range: ScanRange, limit: usize) -> Result<Vec<Key>, EngineError> {
        let after = self.enter(Operation::Scan).await?;
        self.leave(Operation::Scan, after, self.inner.scan_keys(range, limit).await).await
    }

    async fn commit(&self, batch: Batch) -> Result<CommitOutcome, EngineError> {
        let after = self.enter(Operation::Commit).await?;
        self.leave(Operation::Commit, after, self.inner.commit(batch).await).await
    }

    async fn stats(&self) -> Result<EngineStats, EngineError> {
        let after = self.enter(Operation::Stats).await?;
        self.leave(Operation::Stats, after, self.inner.stats().await).await
    }

    async fn close(&self) -> Result<(), EngineError> {
        let after = self.enter(Operation::Close).await?;
        self.leave(Operation::Close, after, self.inner.close().await).await
    }
}
