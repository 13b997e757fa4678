//! Reading a log back, and checking it against its head. How it is searched is in [`search`](super::search).

use std::sync::Arc;

use super::blocks::Blocks;
use super::line::LineView;
use super::log::Log;
use super::{LogError, LogKeys, OperationSet, OutcomeSet, Pseudonym};
use crate::model::Timestamp;
use crate::store::{Row, StorageEngine, keys};
use crate::tlog::{Frontier, leaf_hash};

/// In which direction a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By ascending sequence number.
    OldestFirst,
    /// By descending sequence number.
    NewestFirst,
}

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Only events at or after this time.
    pub start: Option<Timestamp>,
    /// Only events before this time.
    pub end: Option<Timestamp>,
    /// Only these operations.
    pub operations: OperationSet,
    /// Only these outcomes.
    pub outcomes: OutcomeSet,
    /// Only events in which all of these pseudonyms of the log occur.
    pub about: Vec<Pseudonym>,
}

impl Filter {
    /// Every event.
    pub const ALL: Self = Self {
        start: None,
        end: None,
        operations: OperationSet::ALL,
        outcomes: OutcomeSet::ALL,
        about: Vec::new(),
    };

    pub(super) fn wants(&self, view: &LineView, line: &[u8]) -> bool {
        self.start.is_none_or(|start| view.time >= start)
            && self.end.is_none_or(|end| view.time < end)
            && self.operations.contains(view.operation)
            && self.outcomes.contains(view.outcome)
            && self.about.iter().all(|wanted| Pseudonym::all_in(line).any(|found| found == *wanted))
    }

    /// Whether no line that follows one of this time can be wanted: times of a log never go back.
    pub(super) fn is_past(&self, order: Order, time: Timestamp) -> bool {
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
    pub(super) engine: Arc<dyn StorageEngine>,
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
pub(super) fn view_of(line: &[u8], sequence: u64) -> Result<LineView, LogError> {
    LineView::parse(line).filter(|view| view.sequence == sequence).ok_or(LogError::Damaged { sequence })
}

pub(super) fn text_of(line: &[u8], sequence: u64) -> Result<String, LogError> {
    String::from_utf8(line.to_vec()).map_err(|_| LogError::Damaged { sequence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::{TestEngine, keys as log_keys};
    use crate::audit::{Event, LineTail, Operation, Outcome, Reason};
    use crate::env::SystemEntropy;
    use crate::model::TenantId;
    use crate::store::{Batch, CommitOutcome, Key};

    struct Fixture {
        engine: Arc<TestEngine>,
        reader: LogReader,
        keys: Arc<LogKeys>,
    }

    /// The event of that number: operations and outcomes in turn.
    fn event(sequence: u64) -> Event {
        match sequence % 4 {
            0 => Event::new(Operation::EntryPut),
            1 => Event::new(Operation::EntryRead),
            2 => Event::new(Operation::EntryRead).denied(Reason::PermissionDenied),
            _ => Event::new(Operation::SessionRead).failed(Reason::SessionNotFound),
        }
    }

    impl Fixture {
        /// A log of blocks of these sizes, the time of each block ten times its index.
        async fn new(blocks: &[usize]) -> Self {
            let engine = TestEngine::new();
            let reader = LogReader::new(Arc::<TestEngine>::clone(&engine));
            let fixture = Self { engine, reader, keys: Arc::new(log_keys(TenantId([1; 16]))) };
            for (index, lines) in (0..).zip(blocks) {
                fixture.add(index * 10, *lines).await;
            }
            fixture
        }

        async fn add(&self, now: u64, lines: usize) {
            let log = self.reader.head(&self.keys).await.unwrap();
            let mut extension = log.extend(&self.keys, Timestamp::from_millis(now)).unwrap();
            for sequence in (log.size()..).take(lines) {
                extension.push(&LineTail::new(&event(sequence), &self.keys));
            }
            let mut batch = Batch::default();
            extension.seal(&mut batch, &SystemEntropy::new()).unwrap();
            assert_eq!(self.engine.commit(batch).await.unwrap(), CommitOutcome::Committed);
        }

        /// The numbers found by following pages to their end, and how many pages that took.
        async fn search(
            &self,
            from: Option<u64>,
            order: Order,
            filter: &Filter,
            limit: usize,
        ) -> (Vec<u64>, usize) {
            let mut page = self.reader.search(&self.keys, from, order, filter, limit).await.unwrap();
            let mut found: Vec<u64> = page.lines.iter().map(|line| line.sequence).collect();
            let mut pages = 1;
            while !page.exhausted {
                assert!(page.lines.len() <= limit);
                page = self.reader.search(&self.keys, Some(page.next), order, filter, limit).await.unwrap();
                found.extend(page.lines.iter().map(|line| line.sequence));
                pages += 1;
            }
            (found, pages)
        }

        fn block_key(&self, first: u64) -> Key {
            keys::log_block(self.keys.tenant.id, 1, first)
        }
    }

    const SIZES: [usize; 6] = [3, 1, 40, 2, 1, 17];
    const TOTAL: u64 = 64;

    #[tokio::test]
    async fn pages_of_every_size_in_both_orders_give_every_event_once() {
        let log = Fixture::new(&SIZES).await;
        let ascending: Vec<u64> = (0..TOTAL).collect();
        let descending: Vec<u64> = (0..TOTAL).rev().collect();
        for limit in [1, 2, 3, 7, 40, 63, 64, 65, 1000] {
            let (found, _) = log.search(None, Order::OldestFirst, &Filter::ALL, limit).await;
            assert_eq!(found, ascending, "{limit}");
            let (found, _) = log.search(None, Order::NewestFirst, &Filter::ALL, limit).await;
            assert_eq!(found, descending, "{limit}");
        }
        for from in 0..TOTAL {
            let (found, _) = log.search(Some(from), Order::OldestFirst, &Filter::ALL, 10).await;
            assert_eq!(found, (from..TOTAL).collect::<Vec<_>>());
            let (found, _) = log.search(Some(from), Order::NewestFirst, &Filter::ALL, 10).await;
            assert_eq!(found, (0..=from).rev().collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn filters_give_what_a_look_at_every_event_gives() {
        let log = Fixture::new(&SIZES).await;
        let all = log.reader.search(&log.keys, None, Order::OldestFirst, &Filter::ALL, 1000).await.unwrap();
        let views: Vec<_> =
            all.lines.iter().map(|line| LineView::parse(line.line.as_bytes()).unwrap()).collect();
        let times = [None, Some(0), Some(1), Some(10), Some(20), Some(21), Some(50), Some(51), Some(99)];
        let reads = OperationSet::NONE.with(Operation::EntryRead);
        let denials = OutcomeSet::NONE.with(Outcome::Deny);
        for start in times {
            for end in times {
                for (operations, outcomes) in
                    [(OperationSet::ALL, OutcomeSet::ALL), (reads, OutcomeSet::ALL), (reads, denials)]
                {
                    let filter = Filter {
                        about: Vec::new(),
                        start: start.map(Timestamp::from_millis),
                        end: end.map(Timestamp::from_millis),
                        operations,
                        outcomes,
                    };
                    let wanted = views.iter().filter(|view| {
                        start.is_none_or(|start| view.time.as_millis() >= start)
                            && end.is_none_or(|end| view.time.as_millis() < end)
                            && operations.contains(view.operation)
                            && outcomes.contains(view.outcome)
                    });
                    let mut wanted: Vec<u64> = wanted.map(|view| view.sequence).collect();
                    let (found, _) = log.search(None, Order::OldestFirst, &filter, 5).await;
                    assert_eq!(found, wanted, "{filter:?}");
                    wanted.reverse();
                    let (found, _) = log.search(None, Order::NewestFirst, &filter, 5).await;
                    assert_eq!(found, wanted, "{filter:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_search_looks_at_a_bounded_number_of_events() {
        let log = Fixture::new(&[4000, 4000, 4000]).await;
        let none = Filter { operations: OperationSet::NONE, ..Filter::ALL };
        for order in [Order::OldestFirst, Order::NewestFirst] {
            assert_eq!(log.search(None, order, &none, 10).await, (vec![], 3));
        }
    }

    #[tokio::test]
    async fn a_log_is_followed_from_where_the_last_page_ended() {
        let log = Fixture::new(&[]).await;
        let page = log.reader.search(&log.keys, None, Order::OldestFirst, &Filter::ALL, 10).await.unwrap();
        assert_eq!(page, LogPage { lines: vec![], next: 0, exhausted: true });
        let mut next = page.next;
        for lines in [2, 1, 5] {
            log.add(1, lines).await;
            let page =
                log.reader.search(&log.keys, Some(next), Order::OldestFirst, &Filter::ALL, 10).await.unwrap();
            assert_eq!((page.lines.len(), page.exhausted), (lines, true));
            assert_eq!(page.lines[0].sequence, next);
            next = page.next;
        }
        let (found, _) = log.search(Some(next + 5), Order::OldestFirst, &Filter::ALL, 10).await;
        assert!(found.is_empty());
        let newest = log.search(None, Order::NewestFirst, &Filter::ALL, 10).await.0;
        assert_eq!(newest, [7, 6, 5, 4, 3, 2, 1, 0]);
    }

    #[tokio::test]
    async fn a_sound_log_verifies_with_the_root_of_its_lines() {
        let empty = Fixture::new(&[]).await;
        let root = Frontier::default().root();
        assert_eq!(empty.reader.verify(&empty.keys).await.unwrap(), VerifiedLog { size: 0, root });
        let log = Fixture::new(&SIZES).await;
        let all = log.reader.search(&log.keys, None, Order::OldestFirst, &Filter::ALL, 1000).await.unwrap();
        let mut frontier = Frontier::default();
        all.lines.iter().for_each(|line| frontier.append(leaf_hash(line.line.as_bytes())));
        let verified = log.reader.verify(&log.keys).await.unwrap();
        assert_eq!(verified, VerifiedLog { size: TOTAL, root: frontier.root() });
        let later = LogKeys { epoch: 2, ..log_keys(TenantId([1; 16])) };
        assert!(matches!(log.reader.verify(&later).await, Err(LogError::OtherEpoch { current: 1 })));
    }

    #[tokio::test]
    async fn a_missing_block_is_found_by_verification_and_by_search() {
        for (first, at) in [(0, 0), (3, 3), (4, 4), (47, 47)] {
            let log = Fixture::new(&SIZES).await;
            log.engine.rows.lock().unwrap().remove(&log.block_key(first));
            let found = log.reader.verify(&log.keys).await;
            assert!(matches!(found, Err(LogError::Damaged { sequence }) if sequence == at), "{found:?}");
        }
        let log = Fixture::new(&SIZES).await;
        log.engine.rows.lock().unwrap().remove(&log.block_key(4));
        for (order, at) in [(Order::OldestFirst, 4), (Order::NewestFirst, 43)] {
            let found = log.reader.search(&log.keys, None, order, &Filter::ALL, 1000).await;
            assert!(matches!(found, Err(LogError::Damaged { sequence }) if sequence == at), "{found:?}");
        }
    }

    #[tokio::test]
    async fn a_flipped_a_moved_and_a_surplus_block_and_an_older_head_are_found() {
        let log = Fixture::new(&SIZES).await;
        let whole = log.engine.rows.lock().unwrap().clone();
        let check = async |key: &Key, row: Option<Row>| {
            *log.engine.rows.lock().unwrap() = whole.clone();
            row.and_then(|row| log.engine.rows.lock().unwrap().insert(key.clone(), row));
            log.reader.verify(&log.keys).await
        };
        let block = whole[&log.block_key(4)].clone();
        assert!(check(&log.block_key(4), Some(block.clone())).await.is_ok());
        for at in (0..block.as_bytes().len()).step_by(37) {
            let mut flipped = block.as_bytes().to_vec();
            flipped[at] ^= 1;
            let row = Row::from_stored(flipped.into());
            let found = check(&log.block_key(4), Some(row)).await;
            assert!(matches!(found, Err(LogError::Integrity)), "{at}: {found:?}");
        }
        assert!(matches!(check(&log.block_key(47), Some(block.clone())).await, Err(LogError::Integrity)));
        let surplus = check(&log.block_key(TOTAL), Some(block)).await;
        assert!(matches!(surplus, Err(LogError::Integrity)), "{surplus:?}");

        let shorter = Fixture::new(&SIZES[..5]).await;
        let head = keys::log_head(log.keys.tenant.id);
        let found = check(&head, shorter.engine.row(&head)).await;
        assert!(matches!(found, Err(LogError::Damaged { sequence: 47 })), "{found:?}");
        let other = Fixture::new(&[1; 64]).await;
        let found = check(&head, other.engine.row(&head)).await;
        assert!(matches!(found, Err(LogError::HeadMismatch)), "{found:?}");
    }
}
