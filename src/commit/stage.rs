//! Which changes of a group go together: their expectations are checked against what was staged before them, and what
//! they rely on in the store is gathered for the engine to check. Pure: no I/O, no time.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use crate::store::{Batch, Key, Row, RowExpect};

/// What becomes of a change when it is staged after others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It goes with the group.
    Accepted,
    /// If the group is committed, these rows are not as it expects: changes before it wrote them otherwise, or rely on another
    /// stored revision.
    Lost(Vec<Key>),
}

/// The changes of one group that go together. Rows are kept in the order of their keys, in which engines write best.
#[derive(Debug, Default)]
pub(super) struct Stage<'a> {
    /// Rows as they are after the changes accepted so far; `None`: deleted.
    rows: BTreeMap<&'a Key, Option<&'a Row>>,
    /// What the accepted changes rely on in the store.
    expect: BTreeMap<&'a Key, RowExpect>,
}

impl<'a> Stage<'a> {
    /// Judges a change, and stages it when it is accepted; otherwise nothing of it.
    pub(super) fn admit(&mut self, batch: &'a Batch) -> Judgement {
        let judgement = self.judge(batch);
        if judgement == Judgement::Accepted {
            self.add(batch);
        }
        judgement
    }

    fn judge(&self, batch: &Batch) -> Judgement {
        let mut lost = Vec::new();
        for (key, expect) in &batch.expect {
            let holds = match (self.rows.get(key), self.expect.get(key)) {
                (Some(staged), _) => expect.holds(*staged),
                (None, Some(stored)) => expect == stored,
                (None, None) => true,
            };
            if !holds {
                lost.push(key.clone());
            }
        }
        for (key, row) in writes(batch) {
            // Writing what stands there already is no race; and who expects a row was judged above.
            let races = self.rows.get(key).is_some_and(|staged| *staged != row);
            if races && !batch.expect.iter().any(|(expected, _)| expected == key) {
                lost.push(key.clone());
            }
        }
        if lost.is_empty() { Judgement::Accepted } else { Judgement::Lost(lost) }
    }

    fn add(&mut self, batch: &'a Batch) {
        for (key, expect) in &batch.expect {
            if let (Entry::Vacant(vacant), None) = (self.expect.entry(key), self.rows.get(key)) {
                vacant.insert(*expect);
            }
        }
        self.rows.extend(writes(batch));
    }

    /// One batch of everything that was accepted.
    pub(super) fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        batch.expect.extend(self.expect.iter().map(|(key, expect)| ((*key).clone(), *expect)));
        for (key, row) in &self.rows {
            match row {
                Some(row) => batch.put.push(((*key).clone(), (*row).clone())),
                None => batch.delete.push((*key).clone()),
            }
        }
        batch
    }
}

/// Each key that a batch writes, and the row; `None`: it is deleted.
fn writes(batch: &Batch) -> impl Iterator<Item = (&Key, Option<&Row>)> {
    let put = batch.put.iter().map(|(key, row)| (key, Some(row)));
    put.chain(batch.delete.iter().map(|key| (key, None)))
}

/// Of changes that were staged in this order, those that relied on stored rows which `conflicts` says are otherwise, each
/// with the keys. Who relied on a row that another change had staged before did not rely on the stored one.
pub(super) fn losers<'a>(
    staged: impl Iterator<Item = (usize, &'a Batch)>,
    conflicts: &BTreeSet<Key>,
) -> Vec<(usize, Vec<Key>)> {
    let mut written = BTreeSet::new();
    let mut losers = Vec::new();
    for (index, batch) in staged {
        let expected = batch.expect.iter().map(|(key, _)| key);
        let lost: Vec<Key> =
            expected.filter(|key| conflicts.contains(key) && !written.contains(key)).cloned().collect();
        if !lost.is_empty() {
            losers.push((index, lost));
        }
        written.extend(writes(batch).map(|(key, _)| key).filter(|key| conflicts.contains(key)));
    }
    losers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;

    fn key(name: u8) -> Key {
        Key::from_stored(vec![name])
    }

    fn row(revision: u64) -> Row {
        Row::new(Revision::new(revision).unwrap(), &[])
    }

    fn at(revision: u64) -> RowExpect {
        RowExpect::Revision(Revision::new(revision).unwrap())
    }

    fn batch(expect: &[(u8, RowExpect)], put: &[(u8, u64)], delete: &[u8]) -> Batch {
        Batch {
            expect: expect.iter().map(|(name, expect)| (key(*name), *expect)).collect(),
            put: put.iter().map(|(name, revision)| (key(*name), row(*revision))).collect(),
            delete: delete.iter().map(|name| key(*name)).collect(),
        }
    }

    fn judge(batches: &[Batch]) -> Vec<Judgement> {
        let mut stage = Stage::default();
        batches.iter().map(|batch| stage.admit(batch)).collect()
    }

    #[test]
    fn of_two_that_expect_the_same_revision_and_write_the_second_loses() {
        let write = batch(&[(1, at(3))], &[(1, 4)], &[]);
        assert_eq!(judge(&[write.clone(), write]), [Judgement::Accepted, Judgement::Lost(vec![key(1)])]);
    }

    #[test]
    fn who_expects_the_staged_revision_follows_on_and_the_store_is_asked_for_the_first_alone() {
        let mut stage = Stage::default();
        let batches = [
            batch(&[(1, at(3))], &[(1, 4)], &[]),
            batch(&[(1, at(4))], &[], &[1]),
            batch(&[(1, RowExpect::Absent)], &[(1, 5)], &[]),
        ];
        for batch in &batches {
            assert_eq!(stage.admit(batch), Judgement::Accepted);
        }
        let whole = stage.batch();
        assert_eq!(whole.expect, [(key(1), at(3))]);
        assert_eq!(whole.put, [(key(1), row(5))]);
        assert_eq!(whole.delete, []);
    }

    #[test]
    fn a_write_without_expectation_to_a_staged_row_loses_unless_it_is_the_same() {
        let blind = batch(&[], &[(1, 1)], &[]);
        let other = batch(&[], &[(1, 2)], &[]);
        let delete = batch(&[], &[], &[1]);
        let lost = || Judgement::Lost(vec![key(1)]);
        assert_eq!(
            judge(&[blind.clone(), blind.clone(), other, delete.clone()]),
            [Judgement::Accepted, Judgement::Accepted, lost(), lost()]
        );
        assert_eq!(
            judge(&[delete.clone(), delete, blind]),
            [Judgement::Accepted, Judgement::Accepted, lost()]
        );
    }

    #[test]
    fn who_relies_on_another_stored_revision_than_one_before_loses_against_it() {
        let batches = [batch(&[(1, at(3))], &[(2, 1)], &[]), batch(&[(1, at(4))], &[(3, 1)], &[])];
        assert_eq!(judge(&batches), [Judgement::Accepted, Judgement::Lost(vec![key(1)])]);
    }

    #[test]
    fn nothing_of_a_loser_is_staged() {
        let mut stage = Stage::default();
        let winner = batch(&[(1, at(1))], &[(1, 2)], &[]);
        let loser = batch(&[(1, at(1)), (2, at(7))], &[(1, 2), (3, 1)], &[4]);
        let after = batch(&[(3, RowExpect::Absent)], &[], &[]);
        assert_eq!(stage.admit(&winner), Judgement::Accepted);
        assert_eq!(stage.admit(&loser), Judgement::Lost(vec![key(1)]));
        assert_eq!(stage.admit(&after), Judgement::Accepted);
        let whole = stage.batch();
        assert_eq!(whole.expect, [(key(1), at(1)), (key(3), RowExpect::Absent)]);
        assert_eq!((whole.put, whole.delete), (vec![(key(1), row(2))], vec![]));
    }

    #[test]
    fn losers_are_those_that_relied_on_the_store_itself() {
        let staged = [
            batch(&[(1, at(3))], &[(1, 4)], &[]),
            batch(&[(1, at(4))], &[(1, 5)], &[]),
            batch(&[(2, at(1)), (3, at(1))], &[], &[]),
            batch(&[(3, at(1))], &[], &[]),
        ];
        let found = losers(staged.iter().enumerate(), &[key(1), key(2)].into());
        assert_eq!(found, [(0, vec![key(1)]), (2, vec![key(2)])]);
        assert_eq!(losers(staged.iter().enumerate(), &[key(9)].into()), []);
    }
}
