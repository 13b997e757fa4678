//! The index of a log: what is in each complete bundle of 256 lines, so that a search opens few of them, and a proof none.
//!
//! A page holds up to 64 bundles, in order:
//!
//! ```text
//! bundles × ( root of its 256 leaves (32) ‖ count (u16) ‖ count × fingerprint (3) )
//! ```
//!
//! A fingerprint is the beginning of a pseudonym that occurs in the bundle, or of the hash of an operation and an outcome that
//! do. They stand in ascending order, each once. A bundle of which a fingerprint matches by chance (once in 50,000 bundles
//! with 300 of them) is read in vain, and none is missed.

use std::collections::BTreeSet;

use super::block::{open_row, seal_row};
use super::line::LineView;
use super::reader::Filter;
use super::{LogError, LogKeys, Operation, OperationSet, Outcome, OutcomeSet, Pseudonym};
use crate::crypto::{Kind, SealError};
use crate::env::Entropy;
use crate::model::Revision;
use crate::store::{Key, Row, StorageEngine, keys};
use crate::tlog::{Frontier, Hash, TILE_HASHES, leaf_hash};

/// Bundles of one page.
pub(super) const PAGE_BUNDLES: u64 = 64;

const FINGERPRINT_BYTES: usize = 3;
const HASH_BYTES: usize = size_of::<Hash>();

type Fingerprint = [u8; FINGERPRINT_BYTES];

/// What is in a complete bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bundle {
    /// The root of its leaves.
    pub(super) root: Hash,
    /// In ascending order.
    fingerprints: Vec<Fingerprint>,
}

impl Bundle {
    /// Takes notice of the lines of a bundle; `None` when one of them is none.
    pub(super) fn of<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut frontier = Frontier::default();
        let mut fingerprints = BTreeSet::new();
        for line in lines {
            let view = LineView::parse(line)?;
            fingerprints.insert(kind(view.operation, view.outcome));
            fingerprints.extend(Pseudonym::all_in(line).map(|pseudonym| name(&pseudonym)));
            frontier.append(leaf_hash(line));
        }
        let fingerprints = fingerprints.into_iter().collect();
        (frontier.size() == TILE_HASHES).then(|| Self { root: frontier.root(), fingerprints })
    }
}

/// What a bundle must hold to be read.
#[derive(Debug)]
pub(super) struct Wanted {
    names: Vec<Fingerprint>,
    /// One of these; `None`: all operations and outcomes are wanted.
    kinds: Option<Vec<Fingerprint>>,
}

impl Wanted {
    /// What a filter asks of a bundle; `None` when that is nothing, so that all must be read.
    pub(super) fn by(filter: &Filter) -> Option<Self> {
        let all = filter.operations == OperationSet::ALL && filter.outcomes == OutcomeSet::ALL;
        let kinds = (!all).then(|| {
            let operations = Operation::ALL.iter().filter(|wanted| filter.operations.contains(**wanted));
            let outcomes = Outcome::ALL.iter().filter(|wanted| filter.outcomes.contains(**wanted));
            operations
                .flat_map(|operation| outcomes.clone().map(|outcome| kind(*operation, *outcome)))
                .collect()
        });
        let names: Vec<_> = filter.about.iter().map(name).collect();
        (!names.is_empty() || kinds.is_some()).then_some(Self { names, kinds })
    }

    /// Whether a bundle may hold a line that is wanted.
    pub(super) fn may_be_in(&self, bundle: &Bundle) -> bool {
        let known = |fingerprint: &Fingerprint| bundle.fingerprints.binary_search(fingerprint).is_ok();
        self.names.iter().all(known) && self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(known))
    }
}

fn name(pseudonym: &Pseudonym) -> Fingerprint {
    first_of(pseudonym.value())
}

fn kind(operation: Operation, outcome: Outcome) -> Fingerprint {
    first_of(&leaf_hash(format!("{} {}", operation.name(), outcome.name()).as_bytes()))
}

fn first_of(bytes: &[u8]) -> Fingerprint {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// A page of the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct IndexPage {
    /// Its bundles, in order.
    pub(super) bundles: Vec<Bundle>,
    revision: Option<Revision>,
}

impl IndexPage {
    /// Reads the page of that number; one that is not there is empty.
    pub(super) async fn read(
        engine: &dyn StorageEngine,
        log: &LogKeys,
        number: u64,
    ) -> Result<Self, LogError> {
        let key = keys::log_index_page(log.tenant.id, log.epoch, number);
        match engine.multi_get(std::slice::from_ref(&key)).await?.into_iter().next().flatten() {
            Some(row) => Self::open(log, &key, &row),
            None => Ok(Self::default()),
        }
    }

    /// Opens the row under `key`.
    pub(super) fn open(log: &LogKeys, key: &Key, row: &Row) -> Result<Self, LogError> {
        let plain = open_row(log, Kind::LogIndex, key, row)?;
        let revision = row.revision().map_err(|_| LogError::Integrity)?;
        let bundles = decode(plain.as_bytes()).ok_or(LogError::Integrity)?;
        Ok(Self { bundles, revision: Some(revision) })
    }

    /// The revision of its row, when it has one.
    pub(super) const fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Its row with its next revision.
    pub(super) fn seal(
        &self,
        log: &LogKeys,
        number: u64,
        entropy: &dyn Entropy,
    ) -> Result<(Key, Row), SealError> {
        let key = keys::log_index_page(log.tenant.id, log.epoch, number);
        let revision = self.revision.map_or(Revision::FIRST, Revision::next);
        let row = seal_row(log, Kind::LogIndex, &key, revision, &encode(&self.bundles), entropy)?;
        Ok((key, row))
    }
}

fn encode(bundles: &[Bundle]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Bundle { root, fingerprints } in bundles {
        bytes.extend_from_slice(root);
        bytes.extend_from_slice(&u16::try_from(fingerprints.len()).unwrap_or(u16::MAX).to_be_bytes());
        fingerprints.iter().for_each(|fingerprint| bytes.extend_from_slice(fingerprint));
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Bundle>> {
    let mut bundles = Vec::new();
    while !bytes.is_empty() {
        let (root, rest) = bytes.split_first_chunk::<HASH_BYTES>()?;
        let (count, rest) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*count)) * FINGERPRINT_BYTES;
        let (listed, rest) = rest.split_at_checked(length)?;
        let (listed, _) = listed.as_chunks::<FINGERPRINT_BYTES>();
        if bundles.len() as u64 >= PAGE_BUNDLES {
            return None;
        }
        bundles.push(Bundle { root: *root, fingerprints: listed.to_vec() });
        bytes = rest;
    }
    Some(bundles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(root: u8, fingerprints: &[Fingerprint]) -> Bundle {
        Bundle { root: [root; 32], fingerprints: fingerprints.to_vec() }
    }

    #[test]
    fn a_page_reads_back_and_one_that_is_cut_off_or_too_long_does_not() {
        let page = [bundle(1, &[[0, 0, 1], [0, 1, 0]]), bundle(2, &[]), bundle(3, &[[9; 3]])];
        let bytes = encode(&page);
        assert_eq!(decode(&bytes).unwrap(), page);
        let whole = [0, 40, 74, bytes.len()];
        for len in (0..bytes.len()).filter(|len| !whole.contains(len)) {
            assert_eq!(decode(&bytes[..len]), None, "{len}");
        }
        assert_eq!(decode(&encode(&vec![bundle(1, &[]); 65])), None);
    }
}
