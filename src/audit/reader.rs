//! Reading a log back: searching it, following it, and checking it against its head.

use std::sync::Arc;

use super::blocks::Blocks;
use super::line::LineView;
use super::log::Log;
use super::tree::{Frontier, leaf_hash};
use super::{LogError, LogKeys, OperationSet, OutcomeSet};
use crate::model::Timestamp;
use crate::model::limits::PAGE_SCAN_ROWS;
use crate::store::{Row, StorageEngine, keys};

/// In which direction a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By ascending sequence number.
    OldestFirst,
    /// By descending sequence number.
    NewestFirst,
}

/// Which events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Only events at or after this time.
    pub start: Option<Timestamp>,
    /// Only events before this time.
    pub end: Option<Timestamp>,
    /// Only these operations.
    pub operations: OperationSet,
    /// Only these outcomes.
    pub outcomes: OutcomeSet,
}

impl Filter {
    /// Every event.
    pub const ALL: Self =
        Self { start: None, end: None, operations: OperationSet::ALL, outcomes: OutcomeSet::ALL };

    fn wants(&self, view: &LineView) -> bool {
        self.start.is_none_or(|start| view.time >= start)
            && self.end.is_none_or(|end| view.time < end)
            && self.operations.contains(view.operation)
            && self.outcomes.contains(view.outcome)
    }

    /// Whether no line that follows one of this time can be wanted: times of a log never go back.
    fn is_past(&self, order: Order, time: Timestamp) -> bool {
        match order {
            Order::OldestFirst => self.end.is_some_and(|end| time >= end),
            Order::NewestFirst => self.start.is_some_and(|start| time < start),
        }
    }
}

/// One event as it stands in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number, counting from 0.
    pub sequence: u64,
    /// The canonical line, exactly as it was hashed.
    pub line: String,
}

/// What a bounded search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The events, in the order asked for.
    pub lines: Vec<LogLine>,
    /// Where the search goes on: the number of the next event to look at, in the direction of the search.
    pub next: u64,
    /// Whether nothing is left to look at now. Ascending, `next` is then the number that the log's next event will have
    /// (or the first event at or after the filter's end).
    pub exhausted: bool,
}

/// A log that was recomputed from its lines and found to be as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedLog {
    /// Number of events.
    pub size: u64,
    /// Root of the tree over them.
    pub root: [u8; 32],
}

/// Reads logs from an engine. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    engine: Arc<dyn StorageEngine>,
}

impl LogReader {
    /// A reader of the logs in `engine`.
    #[must_use]
    pub fn new(engine: Arc<dyn StorageEngine>) -> Self {
        Self { engine }
    }

    /// The state of the log as its head says; of a log without events, an empty one.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn head(&self, log: &LogKeys) -> Result<Log, LogError> {
        Log::open(log, self.head_row(log).await?.as_ref())
    }

    /// The number of events in the log.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn size(&self, log: &LogKeys) -> Result<u64, LogError> {
        Ok(self.head(log).await?.size())
    }

    /// At most `limit` events from `from` on (`None`: from the end that `order` begins with) that `filter` lets through.
    /// Looks at no more than [`PAGE_SCAN_ROWS`] events, so a page may hold fewer than `limit` and still not be the last.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn search(
        &self,
        log: &LogKeys,
        from: Option<u64>,
        order: Order,
        filter: &Filter,
        limit: usize,
    ) -> Result<LogPage, LogError> {
        let from = match from {
            Some(from) => Some(from),
            None => self.beginning(log, order, filter).await?,
        };
        match from {
            Some(from) => self.page(log, from, order, filter, limit).await,
            None => Ok(LogPage { lines: Vec::new(), next: 0, exhausted: true }),
        }
    }

    async fn page(
        &self,
        log: &LogKeys,
        from: u64,
        order: Order,
        filter: &Filter,
        limit: usize,
    ) -> Result<LogPage, LogError> {
        let mut blocks = Blocks::from(&*self.engine, log, from, order).await?;
        let mut page = LogPage { lines: Vec::new(), next: blocks.position(), exhausted: false };
        for _ in 0..PAGE_SCAN_ROWS {
            page.exhausted = blocks.has_passed_first();
            if page.exhausted || page.lines.len() >= limit {
                return Ok(page);
            }
            let Some((sequence, line)) = blocks.next().await? else {
                return Ok(LogPage { exhausted: true, ..page });
            };
            let view = view_of(line, sequence)?;
            if filter.is_past(order, view.time) {
                return Ok(LogPage { exhausted: true, ..page });
            }
            if filter.wants(&view) {
                page.lines.push(LogLine { sequence, line: text_of(line, sequence)? });
            }
            page.next = blocks.position();
        }
        page.exhausted = blocks.has_passed_first();
        Ok(page)
    }

    /// The event that a search in `order` begins with; `None` when there is none.
    async fn beginning(&self, log: &LogKeys, order: Order, filter: &Filter) -> Result<Option<u64>, LogError> {
        match (order, filter.start, filter.end) {
            (Order::OldestFirst, None, _) => Ok(Some(0)),
            (Order::OldestFirst, Some(start), _) => self.first_at(log, start).await.map(Some),
            (Order::NewestFirst, _, None) => Ok(self.size(log).await?.checked_sub(1)),
            (Order::NewestFirst, _, Some(end)) => Ok(self.first_at(log, end).await?.checked_sub(1)),
        }
    }

    /// The number of the first event at or after `time`, or of the event that is to come: a binary search over blocks.
    async fn first_at(&self, log: &LogKeys, time: Timestamp) -> Result<u64, LogError> {
        let (mut low, mut high) = (0, self.size(log).await?);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut blocks = Blocks::from(&*self.engine, log, middle, Order::OldestFirst).await?;
            let Some((sequence, line)) = blocks.next().await? else {
                return Err(LogError::Damaged { sequence: middle });
            };
            if view_of(line, sequence)?.time < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Recomputes the tree from all lines of the epoch and compares it with the head, numbers and times too.
    ///
    /// Events that are added meanwhile do no harm and are not looked at.
    ///
    /// # Errors
    /// [`LogError`] names what is wrong.
    pub async fn verify(&self, log: &LogKeys) -> Result<VerifiedLog, LogError> {
        let row = self.head_row(log).await?;
        let head = Log::open(log, row.as_ref())?;
        if head.epoch() != log.epoch {
            return Err(LogError::OtherEpoch { current: head.epoch() });
        }
        let mut blocks = Blocks::from(&*self.engine, log, 0, Order::OldestFirst).await?;
        let mut frontier = Frontier::default();
        let mut last = Timestamp::default();
        while frontier.size() < head.size() {
            let sequence = frontier.size();
            let Some((_, line)) = blocks.next().await? else { return Err(LogError::Damaged { sequence }) };
            let view = view_of(line, sequence)?;
            if view.time < last {
                return Err(LogError::Damaged { sequence });
            }
            last = view.time;
            frontier.append(leaf_hash(line));
        }
        if frontier != *head.frontier() || last != head.last() {
            return Err(LogError::HeadMismatch);
        }
        // A block beyond the head is one that was added meanwhile, and then the head has moved too.
        if blocks.next().await?.is_some() && self.head_row(log).await? == row {
            return Err(LogError::Damaged { sequence: head.size() });
        }
        Ok(VerifiedLog { size: frontier.size(), root: frontier.root() })
    }

    async fn head_row(&self, log: &LogKeys) -> Result<Option<Row>, LogError> {
        let rows = self.engine.multi_get(&[keys::log_head(log.tenant.id)]).await?;
        Ok(rows.into_iter().next().flatten())
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogReader({})", self.engine.name())
    }
}

/// The view of a line that must have this number.
fn view_of(line: &[u8], sequence: u64) -> Result<LineView, LogError> {
    LineView::parse(line).filter(|view| view.sequence == sequence).ok_or(LogError::Damaged { sequence })
}

fn text_of(line: &[u8], sequence: u64) -> Result<String, LogError> {
    String::from_utf8(line.to_vec()).map_err(|_| LogError::Damaged { sequence })
}
