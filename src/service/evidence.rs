//! What makes an access log evidence for people who do not trust the server: checkpoints, proofs, exports.
//!
//! Each of these calls is on record in the log that it is about, and answers for the log up to that record: it is on disk,
//! and with it everything before it. So no checkpoint covers what could still be lost.
//!
//! Roots of complete tiles never change; they stand in the log's index, and are kept in memory (32 bytes for 256 events).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;

use super::attempt::Attempt;
use super::view::Answer;
use super::{Error, Failure, Problem, Service};
use crate::audit::{Event, Filter, LogKeys, LogLine, LogName, Operation, Order};
use crate::auth::{Permit, ReadAudit};
use crate::commit::Receipt;
use crate::model::TenantId;
use crate::tlog::{Checkpoint, Frontier, Hash, ProofFile, Proofs, TILE_HASHES, leaf_hash};

/// Most logs of which tiles are kept in memory.
const LOGS: usize = 16;
/// Events that are read at once.
const CHUNK: u64 = TILE_HASHES;

/// A signed checkpoint of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedLog {
    /// The signed note.
    pub checkpoint: String,
    /// The key with which it verifies.
    pub verifier: String,
    /// The proof that it goes on from an earlier one, when that was asked for.
    pub consistency: Vec<Hash>,
}

/// An event, and the proof that it is in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenEvent {
    /// Its line.
    pub line: String,
    /// The proof, with a signed checkpoint.
    pub proof: String,
    /// The key with which it verifies.
    pub verifier: String,
}

/// Some events of an exported log.
#[derive(Debug)]
pub struct ExportPage {
    /// On the first page: the signed checkpoint, and the key with which it verifies.
    pub signed: Option<(String, String)>,
    /// The lines.
    pub lines: Vec<String>,
    /// On the first page: where it is on record that the log is exported.
    pub receipt: Option<Receipt>,
    /// Whether nothing follows.
    pub last: bool,
}

/// Roots of the complete tiles of logs.
#[derive(Default)]
pub(super) struct TileRoots(Mutex<HashMap<LogName, LogTiles>>);

/// The roots of one log's tiles, the first first. Whoever extends them holds the lock, and what it has read stays when it is
/// cut off.
type LogTiles = Arc<tokio::sync::Mutex<Vec<Hash>>>;

impl TileRoots {
    fn of(&self, log: LogName) -> LogTiles {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.len() >= LOGS && !logs.contains_key(&log) {
            logs.clear();
        }
        Arc::clone(logs.entry(log).or_default())
    }
}

impl Service {
    /// Returns a signed checkpoint of a log and the proof that it goes on from its first `since` events; 0 asks for none.
    /// `uid` is as for [`search_audit`](Self::search_audit).
    ///
    /// # Errors
    /// [`Error::Invalid`] when the log never had so many events, [`Error::Integrity`] when it does not open.
    pub async fn audit_checkpoint(
        &self,
        permit: &Permit<ReadAudit>,
        uid: Option<TenantId>,
        since: u64,
    ) -> Result<Answer<SignedLog>, Failure> {
        let (attempt, _) = self.attempt_audit(permit, uid, Operation::AuditCheckpoint).await?;
        let outcome = self.checkpoint_once(&attempt, since).await;
        attempt.close(outcome).await
    }

    async fn checkpoint_once(
        &self,
        attempt: &Attempt<'_>,
        since: u64,
    ) -> Result<(SignedLog, Receipt), Error> {
        let log = attempt.log();
        if since > self.reader.size(log).await? {
            let form = "the size of an earlier checkpoint of this log";
            return Err(Error::invalid("since_size", Problem::Form { form }));
        }
        let receipt = attempt.record().await?;
        let size = receipt.sequence + 1;
        let proof = Proofs::consistency(since, size).ok_or(Error::Internal)?;
        let consistency = self.solve(log, size, &proof).await?;
        let (checkpoint, verifier) = self.signed(log, size).await?;
        Ok((SignedLog { checkpoint, verifier, consistency }, receipt))
    }

    /// Returns an event and the proof that it is in its log. `uid` is as for [`search_audit`](Self::search_audit).
    ///
    /// # Errors
    /// [`Error::EventNotFound`], [`Error::Integrity`] when the log does not open.
    pub async fn prove_event(
        &self,
        permit: &Permit<ReadAudit>,
        uid: Option<TenantId>,
        sequence: u64,
    ) -> Result<Answer<ProvenEvent>, Failure> {
        let (attempt, _) = self.attempt_audit(permit, uid, Operation::AuditProof).await?;
        let outcome = self.prove_once(&attempt, sequence).await;
        attempt.close(outcome).await
    }

    async fn prove_once(
        &self,
        attempt: &Attempt<'_>,
        sequence: u64,
    ) -> Result<(ProvenEvent, Receipt), Error> {
        let log = attempt.log();
        if sequence >= self.reader.size(log).await? {
            return Err(Error::EventNotFound);
        }
        let receipt = attempt.record().await?;
        let size = receipt.sequence + 1;
        let line = self.lines(log, sequence, sequence + 1).await?.pop().ok_or(Error::Integrity)?;
        let proof = Proofs::inclusion(sequence, size).ok_or(Error::Internal)?;
        let hashes = self.solve(log, size, &proof).await?;
        let (checkpoint, verifier) = self.signed(log, size).await?;
        let proof = ProofFile { index: sequence, hashes, checkpoint }.to_string();
        Ok((ProvenEvent { line: line.line, proof, verifier }, receipt))
    }

    /// Prepares the export of a log. `uid` is as for [`search_audit`](Self::search_audit).
    ///
    /// # Errors
    /// [`Error::TenantNotFound`], [`Error::Integrity`] when the log does not open.
    pub async fn export_audit(
        self: &Arc<Self>,
        permit: &Permit<ReadAudit>,
        uid: Option<TenantId>,
    ) -> Result<AuditExport, Failure> {
        let (attempt, _) = self.attempt_audit(permit, uid, Operation::AuditExport).await?;
        let (log, event) = (Arc::clone(attempt.log()), attempt.event);
        let outcome = async {
            let receipt = attempt.record().await?;
            Ok((self.signed(&log, receipt.sequence + 1).await?, receipt))
        };
        let outcome = outcome.await;
        let Answer { value, receipt } = attempt.close(outcome).await?;
        let size = receipt.sequence + 1;
        Ok(AuditExport {
            service: Arc::clone(self),
            log,
            event,
            size,
            next: 0,
            begin: Some((value, receipt)),
        })
    }

    /// A log's name in checkpoints: unlike [`LogName`], it names the store too, as each has a log of its own.
    pub(super) fn origin(&self, log: LogName) -> String {
        let (store, tenant) = (HEXLOWER.encode(&self.keyring.store_id().0), HEXLOWER.encode(&log.tenant.0));
        format!("strongroom/log/{store}/{tenant}/{}", log.epoch)
    }

    /// The signed checkpoint of a log's first `size` events, and the key with which it verifies.
    async fn signed(&self, log: &Arc<LogKeys>, size: u64) -> Result<(String, String), Error> {
        let root = self.solve(log, size, &Proofs::root(size)).await?.pop();
        let root = root.unwrap_or_else(|| Frontier::default().root());
        let checkpoint = Checkpoint { origin: self.origin(log.name()), size, root };
        let verifier = self.notary()?.under(checkpoint.origin.clone()).verifier();
        Ok((checkpoint.sign(self.notary()?), verifier))
    }

    async fn solve(&self, log: &Arc<LogKeys>, size: u64, proofs: &Proofs) -> Result<Vec<Hash>, Error> {
        let tiles = self.tile_roots.of(log.name());
        let mut complete = tiles.lock().await;
        let known = self.reader.bundle_roots(log, complete.len() as u64, size / TILE_HASHES).await?;
        complete.extend(known);
        while (complete.len() as u64) < size / TILE_HASHES {
            let leaves = self.tile(log, complete.len() as u64, size).await?;
            let mut frontier = Frontier::default();
            leaves.into_iter().for_each(|leaf| frontier.append(leaf));
            complete.push(frontier.root());
        }
        let mut leaves = BTreeMap::new();
        for tile in proofs.tiles() {
            leaves.insert(tile, self.tile(log, tile, size).await?);
        }
        proofs.solve(&complete, &leaves).ok_or(Error::Internal)
    }

    /// The leaves of a tile, as far as a log of `size` events has them.
    async fn tile(&self, log: &LogKeys, tile: u64, size: u64) -> Result<Vec<Hash>, Error> {
        let first = tile * TILE_HASHES;
        let lines = self.lines(log, first, size.min(first + TILE_HASHES)).await?;
        Ok(lines.iter().map(|line| leaf_hash(line.line.as_bytes())).collect())
    }

    /// The lines from `first` to before `end`: all of them, or an error.
    async fn lines(&self, log: &LogKeys, first: u64, end: u64) -> Result<Vec<LogLine>, Error> {
        let count = usize::try_from(end.saturating_sub(first)).map_err(|_| Error::Internal)?;
        let page = self.reader.search(log, Some(first), Order::OldestFirst, &Filter::ALL, count).await?;
        let dense = page.lines.iter().map(|line| line.sequence).eq(first..end);
        if dense { Ok(page.lines) } else { Err(Error::Integrity) }
    }
}

/// Exports a log, page by page.
pub struct AuditExport {
    service: Arc<Service>,
    log: Arc<LogKeys>,
    /// What is on record of this export.
    event: Event,
    size: u64,
    next: u64,
    begin: Option<((String, String), Receipt)>,
}

impl AuditExport {
    /// The next page.
    ///
    /// # Errors
    /// [`Error::Integrity`] when the log does not open; that is on record too.
    pub async fn next_page(&mut self) -> Result<ExportPage, Failure> {
        let end = self.size.min(self.next + CHUNK);
        let lines = match self.service.lines(&self.log, self.next, end).await {
            Ok(lines) => lines.into_iter().map(|line| line.line).collect(),
            Err(error) => return Err(self.service.again(&self.log, self.event).fail(error).await),
        };
        self.next = end;
        let (signed, receipt) = self.begin.take().unzip();
        Ok(ExportPage { signed, lines, receipt, last: end == self.size })
    }
}
