//! Whether a log goes on from what it was once.

use super::blocks::Blocks;
use super::line::{LineTail, LineView};
use super::log::epoch_line;
use super::{LogError, LogKeys, LogReader, Order};
use crate::tlog::{Frontier, leaf_hash};

/// How a log stands to what it was once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It goes on from there, or is still the same.
    GoesOn,
    /// It is shorter, or in an earlier epoch.
    Shorter,
    /// It has as many events, and not those that it had.
    OtherHistory,
}

impl LogReader {
    /// Whether the log goes on from the tree `once` that it had in the epoch `epoch`. Reads what was added since, in that
    /// epoch and in those that followed it; what stood there before is compared by its tree alone.
    ///
    /// # Errors
    /// [`LogError::Integrity`] when the head does not open; [`LogError::Engine`].
    pub async fn continuity(
        &self,
        log: &LogKeys,
        epoch: u32,
        once: &Frontier,
    ) -> Result<Continuity, LogError> {
        let head = self.head(log).await?;
        if (head.epoch(), head.size()) < (epoch, if head.epoch() == epoch { once.size() } else { 0 }) {
            return Ok(Continuity::Shorter);
        }
        let mut tree = once.clone();
        for current in epoch..=head.epoch() {
            let ended = (current > epoch).then(|| std::mem::take(&mut tree));
            let size = if current == head.epoch() { head.size() } else { u64::MAX };
            let added = self.add_lines(&log.in_epoch(current), ended.as_ref(), &mut tree, size).await;
            match added {
                Ok(true) => {}
                Ok(false) | Err(LogError::Damaged { .. }) => return Ok(Continuity::OtherHistory),
                Err(error) => return Err(error),
            }
            // An epoch that was left out has no lines, and ends with what came before.
            if let Some(ended) = ended.filter(|_| tree.size() == 0) {
                tree = ended;
            }
        }
        Ok(if tree == *head.frontier() { Continuity::GoesOn } else { Continuity::OtherHistory })
    }

    /// Adds the lines that follow `tree` in an epoch, up to `size` of them; `false` when its first line does not bind what
    /// `ended` before it.
    async fn add_lines(
        &self,
        log: &LogKeys,
        ended: Option<&Frontier>,
        tree: &mut Frontier,
        size: u64,
    ) -> Result<bool, LogError> {
        let mut blocks = Blocks::from(&*self.engine, log, tree.size(), Order::OldestFirst).await?;
        if blocks.position() != tree.size() {
            return Err(LogError::Damaged { sequence: tree.size() });
        }
        while tree.size() < size {
            let Some((sequence, line)) = blocks.next().await? else { break };
            let view = LineView::parse(line).filter(|view| view.sequence == sequence);
            let view = view.ok_or(LogError::Damaged { sequence })?;
            if let Some(ended) = ended.filter(|ended| sequence == 0 && ended.size() > 0)
                && line != whole_line(&epoch_line(ended, log), &view)
            {
                return Ok(false);
            }
            tree.append(leaf_hash(line));
        }
        Ok(true)
    }
}

fn whole_line(tail: &LineTail, view: &LineView) -> Vec<u8> {
    let mut line = Vec::new();
    tail.write_line(&mut line, view.sequence, view.time);
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::testing::{TestEngine, keys as log_keys};
    use crate::audit::{Event, Operation};
    use crate::env::SystemEntropy;
    use crate::model::{TenantId, Timestamp};
    use crate::store::{Batch, CommitOutcome, Key, Row, StorageEngine as _, keys};

    struct Fixture {
        engine: Arc<TestEngine>,
        reader: LogReader,
        keys: LogKeys,
    }

    impl Fixture {
        fn new() -> Self {
            let engine = TestEngine::new();
            let reader = LogReader::new(Arc::<TestEngine>::clone(&engine));
            Self { engine, reader, keys: log_keys(TenantId([1; 16])) }
        }

        /// Adds a block in an epoch; gives the tree.
        async fn add(&self, epoch: u32, operation: Operation, lines: usize) -> Frontier {
            let keys = Arc::new(self.keys.in_epoch(epoch));
            let log = self.reader.head(&keys).await.unwrap();
            let mut extension = log.extend(&keys, Timestamp::from_millis(5)).unwrap();
            for _ in 0..lines {
                extension.push(&LineTail::new(&Event::new(operation), &keys));
            }
            let mut batch = Batch::default();
            let log = extension.seal(&mut batch, &SystemEntropy::new()).unwrap();
            assert_eq!(self.engine.commit(batch).await.unwrap(), CommitOutcome::Committed);
            log.frontier().clone()
        }

        fn rows(&self) -> std::collections::BTreeMap<Key, Row> {
            self.engine.rows.lock().unwrap().clone()
        }

        async fn since(&self, epoch: u32, once: &Frontier) -> Continuity {
            self.reader.continuity(&self.keys, epoch, once).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_log_goes_on_from_each_of_its_own_trees_also_over_epochs() {
        let log = Fixture::new();
        let mut trees = vec![(1, Frontier::default())];
        for (epoch, lines) in [(1, 3), (1, 40), (2, 1), (2, 7), (5, 2), (5, 300)] {
            trees.push((epoch, log.add(epoch, Operation::EntryRead, lines).await));
            for (epoch, tree) in &trees {
                assert_eq!(log.since(*epoch, tree).await, Continuity::GoesOn, "{epoch} {}", tree.size());
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_was_put_back_is_shorter_and_one_that_went_on_otherwise_has_another_history() {
        let log = Fixture::new();
        log.add(1, Operation::EntryRead, 10).await;
        let earlier = log.rows();
        let tree = log.add(1, Operation::EntryRead, 5).await;
        let next = log.add(2, Operation::EntryRead, 5).await;
        *log.engine.rows.lock().unwrap() = earlier.clone();
        assert_eq!(log.since(1, &tree).await, Continuity::Shorter);
        assert_eq!(log.since(2, &next).await, Continuity::Shorter);
        for lines in [5, 6, 300] {
            *log.engine.rows.lock().unwrap() = earlier.clone();
            log.add(1, Operation::EntryPut, lines).await;
            assert_eq!(log.since(1, &tree).await, Continuity::OtherHistory, "{lines}");
        }
        // The new epoch binds what the earlier state was, and not what was lost.
        *log.engine.rows.lock().unwrap() = earlier;
        log.add(2, Operation::EntryRead, 5).await;
        assert_eq!(log.since(1, &tree).await, Continuity::OtherHistory);
        assert_eq!(log.since(2, &next).await, Continuity::OtherHistory);
        log.engine.rows.lock().unwrap().clear();
        assert_eq!(log.since(1, &tree).await, Continuity::Shorter);
    }

    #[tokio::test]
    async fn a_log_of_which_a_block_behind_the_tree_is_gone_has_another_history() {
        let log = Fixture::new();
        let tree = log.add(1, Operation::EntryRead, 10).await;
        log.add(1, Operation::EntryRead, 10).await;
        log.add(1, Operation::EntryRead, 10).await;
        log.engine.rows.lock().unwrap().remove(&keys::log_block(TenantId([1; 16]), 1, 10)).unwrap();
        assert_eq!(log.since(1, &tree).await, Continuity::OtherHistory);
    }
}
