//! Searching a log: page by page, and past the bundles that the index says to hold nothing of what is wanted.

use std::ops::Range;

use super::block::Block;
use super::blocks::Blocks;
use super::fold::bundles_folded;
use super::index::{IndexPage, PAGE_BUNDLES, Wanted};
use super::reader::{Filter, LogLine, LogPage, LogReader, Order, text_of, view_of};
use super::{LogError, LogKeys};
use crate::model::Timestamp;
use crate::model::limits::{AUDIT_INDEX_PAGES, PAGE_SCAN_ROWS};
use crate::store::{ScanRange, StorageEngine, keys};
use crate::tlog::{Hash, TILE_HASHES};

impl LogReader {
    /// At most `limit` events from `from` on (`None`: from the end that `order` begins with) that `filter` lets through.
    /// Looks at no more than [`PAGE_SCAN_ROWS`] events and [`AUDIT_INDEX_PAGES`] pages of the index, so a page may hold fewer
    /// than `limit` and still not be the last.
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
        let Some(next) = from else {
            return Ok(LogPage { lines: Vec::new(), next: 0, exhausted: true });
        };
        let index = match Wanted::by(filter) {
            Some(wanted) => Some(Index::open(&*self.engine, log, wanted).await?),
            None => None,
        };
        let page = LogPage { lines: Vec::new(), next, exhausted: false };
        let engine = &*self.engine;
        Search { engine, log, order, filter, limit, index, page, looked: 0 }.run().await
    }

    /// The roots of the folded bundles from `first` to before `end`, as far as there are.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn bundle_roots(&self, log: &LogKeys, first: u64, end: u64) -> Result<Vec<Hash>, LogError> {
        let mut roots = Vec::new();
        let mut next = first;
        while next < end {
            let page = IndexPage::read(&*self.engine, log, next / PAGE_BUNDLES).await?;
            let known = page.bundles.iter().skip(within_page(next)).map(|bundle| bundle.root);
            let before = roots.len();
            roots.extend(known.take(usize::try_from(end - next).unwrap_or(usize::MAX)));
            next = first + roots.len() as u64;
            if roots.len() == before {
                break;
            }
        }
        Ok(roots)
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
        let mut block: Option<Block> = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let damaged = LogError::Damaged { sequence: middle };
            if block.as_ref().is_none_or(|block| block.line(middle).is_none()) {
                block = self.block_with(log, middle).await?;
            }
            let line = block.as_ref().and_then(|block| block.line(middle)).ok_or(damaged)?;
            if view_of(line, middle)?.time < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The block that begins at or last before a line.
    async fn block_with(&self, log: &LogKeys, sequence: u64) -> Result<Option<Block>, LogError> {
        let range = ScanRange {
            before: Some(keys::log_block(log.tenant.id, log.epoch, sequence.saturating_add(1))),
            descending: true,
            ..ScanRange::prefix(keys::log_blocks(log.tenant.id, log.epoch))
        };
        let found = self.engine.scan(range, 1).await?;
        found.first().map(|(key, row)| Block::open(log, key, row)).transpose()
    }
}

/// A search for one page.
struct Search<'a> {
    engine: &'a dyn StorageEngine,
    log: &'a LogKeys,
    order: Order,
    filter: &'a Filter,
    limit: usize,
    index: Option<Index<'a>>,
    page: LogPage,
    /// Lines looked at.
    looked: usize,
}

impl Search<'_> {
    async fn run(mut self) -> Result<LogPage, LogError> {
        loop {
            if self.is_spent() {
                return Ok(self.page);
            }
            let stretch = self.stretch();
            let may_hold = match &mut self.index {
                Some(index) => index.may_hold(self.page.next / TILE_HASHES).await?,
                None => true,
            };
            if may_hold {
                self.read(&stretch).await?;
            } else {
                self.skip(&stretch);
            }
            if self.page.exhausted {
                return Ok(self.page);
            }
        }
    }

    fn is_spent(&self) -> bool {
        let index = self.index.as_ref().map_or(0, |index| index.pages_read);
        self.page.lines.len() >= self.limit || self.looked >= PAGE_SCAN_ROWS || index > AUDIT_INDEX_PAGES
    }

    /// The lines that are read, or left out, together: those of a bundle that is in the index, or all that are in none.
    fn stretch(&self) -> Range<u64> {
        let bundle = self.page.next / TILE_HASHES;
        match &self.index {
            Some(index) if bundle < index.folded => bundle * TILE_HASHES..(bundle + 1) * TILE_HASHES,
            Some(index) => index.folded * TILE_HASHES..u64::MAX,
            None => 0..u64::MAX,
        }
    }

    /// Goes on behind a bundle that holds nothing of what is wanted.
    fn skip(&mut self, stretch: &Range<u64>) {
        match self.order {
            Order::OldestFirst => self.page.next = stretch.end,
            Order::NewestFirst => {
                self.page.next = stretch.start.saturating_sub(1);
                self.page.exhausted = stretch.start == 0;
            }
        }
    }

    /// Looks at the lines of a stretch until it ends, or the page does.
    async fn read(&mut self, stretch: &Range<u64>) -> Result<(), LogError> {
        let mut blocks = Blocks::from(self.engine, self.log, self.page.next, self.order).await?;
        self.page.next = blocks.position();
        while !self.is_spent() {
            self.page.exhausted = blocks.has_passed_first();
            if self.page.exhausted || !stretch.contains(&self.page.next) {
                return Ok(());
            }
            let Some((sequence, line)) = blocks.next().await? else {
                self.page.exhausted = true;
                return Ok(());
            };
            let view = view_of(line, sequence)?;
            if self.filter.is_past(self.order, view.time) {
                self.page.exhausted = true;
                return Ok(());
            }
            if self.filter.wants(&view, line) {
                self.page.lines.push(LogLine { sequence, line: text_of(line, sequence)? });
            }
            self.looked += 1;
            self.page.next = blocks.position();
        }
        self.page.exhausted = blocks.has_passed_first();
        Ok(())
    }
}

/// The index of a log, as far as a search has read it.
struct Index<'a> {
    engine: &'a dyn StorageEngine,
    log: &'a LogKeys,
    wanted: Wanted,
    /// The number of bundles in it.
    folded: u64,
    page: Option<(u64, IndexPage)>,
    pages_read: usize,
}

impl<'a> Index<'a> {
    async fn open(engine: &'a dyn StorageEngine, log: &'a LogKeys, wanted: Wanted) -> Result<Self, LogError> {
        let folded = bundles_folded(engine, log).await?;
        Ok(Self { engine, log, wanted, folded, page: None, pages_read: 0 })
    }

    /// Whether a bundle may hold a line that is wanted. Of one that is not in the index nothing is known.
    async fn may_hold(&mut self, bundle: u64) -> Result<bool, LogError> {
        if bundle >= self.folded {
            return Ok(true);
        }
        let number = bundle / PAGE_BUNDLES;
        let page = match self.page.take().filter(|(known, _)| *known == number) {
            Some((_, page)) => page,
            None => {
                self.pages_read += 1;
                IndexPage::read(self.engine, self.log, number).await?
            }
        };
        let found = page.bundles.get(within_page(bundle)).map(|found| self.wanted.may_be_in(found));
        self.page = Some((number, page));
        found.ok_or(LogError::Damaged { sequence: bundle.saturating_mul(TILE_HASHES) })
    }
}

fn within_page(bundle: u64) -> usize {
    usize::try_from(bundle % PAGE_BUNDLES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::testing::{TestEngine, keys as log_keys};
    use crate::audit::{Event, Fold, LineTail, Operation, OperationSet, OutcomeSet, Pseudonym, Reason};
    use crate::env::SystemEntropy;
    use crate::model::TenantId;
    use crate::store::{Batch, CommitOutcome};
    use crate::tlog::{Frontier, leaf_hash};

    struct Fixture {
        engine: Arc<TestEngine>,
        reader: LogReader,
        keys: Arc<LogKeys>,
    }

    /// One of a thousand sessions has nothing but the line 1,000; the others come again after each 7, 70 or 700.
    fn session(keys: &LogKeys, sequence: u64) -> Pseudonym {
        let number = match sequence {
            1000 => 0,
            // The first line of a bundle, and the last of another.
            1280 | 1791 => 100,
            rare if rare.is_multiple_of(700) => 1,
            often => 2 + often % 7,
        };
        keys.pseudonym("session", &[&number.to_be_bytes()])
    }

    impl Fixture {
        /// A log in blocks of one to forty lines, two lines a millisecond.
        async fn new(lines: u64) -> Self {
            let engine = TestEngine::new();
            let reader = LogReader::new(Arc::<TestEngine>::clone(&engine));
            let fixture = Self { engine, reader, keys: Arc::new(log_keys(TenantId([1; 16]))) };
            let mut next = 0;
            while next < lines {
                let end = lines.min(next + 1 + next * 7 % 40);
                fixture.add(next..end).await;
                next = end;
            }
            fixture
        }

        async fn add(&self, lines: Range<u64>) {
            let log = self.reader.head(&self.keys).await.unwrap();
            let mut extension = log.extend(&self.keys, Timestamp::from_millis(lines.start / 2)).unwrap();
            for sequence in lines {
                let operation = if sequence == 500 { Operation::KeyDestroy } else { Operation::EntryRead };
                let mut event = Event::new(operation);
                event.session = Some(session(&self.keys, sequence));
                let event = if sequence % 3 == 0 { event.failed(Reason::EntryNotFound) } else { event };
                extension.push(&LineTail::new(&event, &self.keys));
            }
            let mut batch = Batch::default();
            extension.seal(&mut batch, &SystemEntropy::new()).unwrap();
            self.commit(batch).await;
        }

        async fn commit(&self, batch: Batch) {
            assert_eq!(self.engine.commit(batch).await.unwrap(), CommitOutcome::Committed);
        }

        async fn fold(&self, number: u64) {
            let fold = Fold::read(&*self.engine, &self.keys, number, number + 1).await.unwrap();
            let mut batch = Batch::default();
            fold.seal(&self.keys, &mut batch, &SystemEntropy::new()).unwrap();
            self.commit(batch).await;
        }

        async fn find(&self, order: Order, filter: &Filter, limit: usize) -> Vec<u64> {
            let (mut found, mut from) = (Vec::new(), None);
            loop {
                let page = self.reader.search(&self.keys, from, order, filter, limit).await.unwrap();
                assert!(page.lines.len() <= limit);
                found.extend(page.lines.iter().map(|line| line.sequence));
                if page.exhausted {
                    return found;
                }
                from = Some(page.next);
            }
        }

        fn about(&self, sequence: u64) -> Filter {
            Filter { about: vec![session(&self.keys, sequence)], ..Filter::ALL }
        }

        /// What a reader that looks at every line finds.
        fn naive(&self, sequence: u64, lines: Range<u64>) -> Vec<u64> {
            let wanted = session(&self.keys, sequence);
            lines.filter(|sequence| session(&self.keys, *sequence) == wanted).collect()
        }
    }

    const LINES: u64 = 2100;

    #[tokio::test]
    async fn a_search_finds_the_same_however_much_of_the_log_is_folded() {
        let log = Fixture::new(LINES).await;
        let head = log.reader.head(&log.keys).await.unwrap();
        for folded in 0..=LINES / TILE_HASHES {
            assert_eq!(bundles_folded(&*log.engine, &log.keys).await.unwrap(), folded);
            for (sequence, limit) in [(1000, 1), (1280, 1), (700, 2), (3, 100), (3, 1000)] {
                let mut expected = log.naive(sequence, 0..LINES);
                let filter = log.about(sequence);
                assert_eq!(log.find(Order::OldestFirst, &filter, limit).await, expected, "{folded}");
                let time = |line: u64| Some(Timestamp::from_millis(line / 2));
                let between = Filter { start: time(600), end: time(1400), ..filter.clone() };
                let times = log.find(Order::OldestFirst, &between, limit).await;
                let newest = log.find(Order::NewestFirst, &between, limit).await;
                assert!(newest.iter().rev().eq(&times), "{folded}");
                assert!(times.iter().all(|found| expected.contains(found)), "{folded}");
                assert!(times.len() <= expected.len() && (sequence != 700 || !times.is_empty()), "{folded}");
                expected.reverse();
                assert_eq!(log.find(Order::NewestFirst, &filter, limit).await, expected, "{folded}");
            }
            let all = log.find(Order::OldestFirst, &Filter::ALL, 1000).await;
            assert_eq!(all, (0..LINES).collect::<Vec<_>>(), "{folded}");
            let verified = log.reader.verify(&log.keys).await.unwrap();
            assert_eq!((verified.size, verified.root), (LINES, head.frontier().root()), "{folded}");
            if folded < LINES / TILE_HASHES {
                log.fold(folded).await;
            }
        }
        let blocks = keys::log_blocks(log.keys.tenant.id, 1);
        let rows = log.engine.scan_keys(ScanRange::prefix(blocks), 100).await.unwrap();
        let firsts: Vec<_> = rows.iter().filter_map(keys::log_block_first).take(9).collect();
        assert_eq!(firsts, (0..9).map(|bundle| bundle * TILE_HASHES).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn bundles_that_hold_nothing_of_what_is_wanted_are_not_opened() {
        let log = Fixture::new(LINES).await;
        for number in 0..LINES / TILE_HASHES {
            log.fold(number).await;
        }
        // Of what a search opens, a damaged row is found: so none but these are opened.
        let damage = |bundle: u64| {
            let key = keys::log_block(log.keys.tenant.id, 1, bundle * TILE_HASHES);
            let mut rows = log.engine.rows.lock().unwrap();
            let mut bytes = rows[&key].as_bytes().to_vec();
            bytes[100] ^= 1;
            rows.insert(key, crate::store::Row::from_stored(bytes.into()));
        };
        [0, 2, 4, 5, 6, 7].into_iter().for_each(damage);
        assert_eq!(log.find(Order::OldestFirst, &log.about(1000), 10).await, [1000]);
        assert_eq!(log.find(Order::NewestFirst, &log.about(1000), 10).await, [1000]);
        let operations = OperationSet::NONE.with(Operation::KeyDestroy);
        let destroyed = Filter { operations, ..Filter::ALL };
        assert_eq!(log.find(Order::NewestFirst, &destroyed, 10).await, [500]);
        let failed =
            Filter { outcomes: OutcomeSet::NONE.with(crate::audit::Outcome::Fail), ..destroyed.clone() };
        assert_eq!(log.find(Order::OldestFirst, &failed, 10).await, [0_u64; 0]);
        damage(3);
        let found = log.reader.search(&log.keys, None, Order::OldestFirst, &log.about(1000), 10).await;
        assert!(matches!(found, Err(LogError::Integrity)), "{found:?}");
    }

    #[tokio::test]
    async fn the_roots_in_the_index_are_those_of_the_lines() {
        let log = Fixture::new(70 * TILE_HASHES + 5).await;
        for number in 0..70 {
            log.fold(number).await;
        }
        let all = Filter::ALL;
        let page = log.reader.search(&log.keys, Some(66 * TILE_HASHES), Order::OldestFirst, &all, 256);
        let mut frontier = Frontier::default();
        page.await.unwrap().lines.iter().for_each(|line| frontier.append(leaf_hash(line.line.as_bytes())));
        let roots = log.reader.bundle_roots(&log.keys, 62, 1000).await.unwrap();
        assert_eq!((roots.len(), roots[4]), (8, frontier.root()));
        assert_eq!(log.reader.bundle_roots(&log.keys, 62, 64).await.unwrap(), roots[..2]);
        assert_eq!(log.reader.bundle_roots(&log.keys, 70, 80).await.unwrap(), [] as [Hash; 0]);
    }

    #[tokio::test]
    async fn a_walk_goes_on_when_what_it_walks_over_is_folded_meanwhile() {
        for (order, last) in [(Order::OldestFirst, LINES - 1), (Order::NewestFirst, 0)] {
            let log = Fixture::new(LINES).await;
            let from = if order == Order::OldestFirst { 0 } else { LINES - 1 };
            let mut blocks = Blocks::from(&*log.engine, &log.keys, from, order).await.unwrap();
            let (mut seen, mut newest) = (0, 0);
            while let Some((sequence, _)) = blocks.next().await.unwrap() {
                (seen, newest) = (seen + 1, sequence);
                if seen % 150 == 50 && seen / 150 < LINES / TILE_HASHES {
                    log.fold(seen / 150).await;
                }
            }
            assert_eq!((seen, newest), (LINES, last));
        }
    }

    #[tokio::test]
    async fn several_bundles_at_once_are_folded_as_one_after_the_other() {
        let (one, several) = (Fixture::new(70 * TILE_HASHES).await, Fixture::new(70 * TILE_HASHES).await);
        let lines = async |log: &Fixture| {
            let blocks = keys::log_blocks(log.keys.tenant.id, 1);
            let rows = log.engine.scan(ScanRange::prefix(blocks), 1000).await.unwrap();
            let open = |(key, row)| Block::open(&log.keys, key, row).unwrap();
            let blocks: Vec<_> = rows.iter().map(|(key, row)| open((key, row))).collect();
            let whole = |block: &Block| block.framed(block.first(), block.end()).unwrap().to_vec();
            blocks.iter().map(whole).collect::<Vec<_>>()
        };
        let mut next = 0;
        while next < 70 {
            let fold = Fold::read(&*several.engine, &several.keys, next, 70).await.unwrap();
            // Never more than four, and none of two pages.
            assert_eq!(fold.bundles(), if next < 64 { 4 } else { 70_u64.min(next + 4) - next });
            next += fold.bundles();
            let mut batch = Batch::default();
            fold.seal(&several.keys, &mut batch, &SystemEntropy::new()).unwrap();
            several.commit(batch).await;
        }
        for number in 0..70 {
            one.fold(number).await;
        }
        assert_eq!(lines(&one).await, lines(&several).await);
        let roots = async |log: &Fixture| log.reader.bundle_roots(&log.keys, 0, 70).await.unwrap();
        assert_eq!(roots(&one).await, roots(&several).await);
    }

    #[tokio::test]
    async fn a_bundle_is_not_folded_twice_nor_before_those_in_front_of_it_nor_when_a_block_is_gone() {
        let log = Fixture::new(LINES).await;
        let wrong = async |number| Fold::read(&*log.engine, &log.keys, number, number + 1).await.unwrap_err();
        assert!(matches!(wrong(1).await, LogError::Damaged { sequence: 256 }));
        log.fold(0).await;
        assert!(matches!(wrong(0).await, LogError::Damaged { sequence: 0 }));
        let blocks = keys::log_blocks(log.keys.tenant.id, 1);
        let rows = log.engine.scan_keys(ScanRange::prefix(blocks), 5).await.unwrap();
        log.engine.rows.lock().unwrap().remove(&rows[3]).unwrap();
        let found = wrong(1).await;
        let gone = keys::log_block_first(&rows[3]).unwrap();
        assert!(matches!(found, LogError::Damaged { sequence } if sequence == gone), "{found:?}");
    }
}
