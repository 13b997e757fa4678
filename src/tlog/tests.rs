//! Ours against implementations by others, and a campaign of mutations.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor};

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::{Hash as TheirHash, Tile, TileHashReader, TileReader};

use super::*;
use crate::crypto::{ControlKey, NoteSigner, VerifierKey};
use crate::env::SystemEntropy;
use crate::model::StoreId;

/// An entry of a log, as long as real ones are in the tests of mutations.
fn entry(number: u64) -> Vec<u8> {
    format!("{{\"v\":1,\"seq\":{number},\"typ\":\"ctx.read\"}}").into_bytes()
}

/// All leaves of a log, and the roots of its complete tiles.
struct Tree {
    leaves: Vec<Hash>,
    complete: Vec<Hash>,
}

impl Tree {
    fn new(size: u64) -> Self {
        let leaves: Vec<Hash> = (0..size).map(|number| leaf_hash(&entry(number))).collect();
        let tiles = leaves.chunks_exact(256).map(|tile| writer::tile_root(tile.to_vec()));
        Self { complete: tiles.collect(), leaves }
    }

    /// Solves a proof with what it asks for and no more.
    fn solve(&self, proofs: &Proofs) -> Vec<Hash> {
        let tile = |tile: &u64| {
            let first = usize::try_from(tile * TILE_HASHES).unwrap();
            (*tile, self.leaves[first..self.leaves.len().min(first + 256)].to_vec())
        };
        let wanted: BTreeSet<u64> = proofs.tiles();
        assert!(wanted.len() <= 3, "{proofs:?}");
        proofs.solve(&self.complete, &wanted.iter().map(tile).collect()).unwrap()
    }

    fn inclusion(&self, index: u64, size: u64) -> Vec<Hash> {
        self.solve(&Proofs::inclusion(index, size).unwrap())
    }

    fn consistency(&self, old: u64, size: u64) -> Vec<Hash> {
        self.solve(&Proofs::consistency(old, size).unwrap())
    }

    fn root(&self, size: u64) -> Hash {
        self.solve(&Proofs::root(size)).pop().unwrap_or_else(|| Frontier::default().root())
    }
}

type Theirs = MemoryBackedTree<Sha256, Vec<u8>>;

fn theirs(size: u64) -> Theirs {
    let mut tree = Theirs::new();
    (0..size).for_each(|number| tree.push(entry(number)));
    tree
}

/// Some places of a log of this size: all of a small one, the edges of a larger.
fn places(size: u64) -> BTreeSet<u64> {
    let some = [0, 1, 127, 254, 255, 256, 257, size / 2, size * 7 / 13, size.saturating_sub(2)];
    let all = if size <= 40 { 0..size } else { size - 1..size };
    some.into_iter().chain(all).filter(|place| *place < size).collect()
}

#[test]
fn roots_and_proofs_are_those_of_another_implementation_at_every_size_to_600() {
    let tree = Tree::new(600);
    let mut other = Theirs::new();
    for size in 0..=600 {
        assert_eq!(tree.root(size)[..], other.root().as_bytes()[..], "{size}");
        for index in places(size) {
            let ours = tree.inclusion(index, size);
            let index = usize::try_from(index).unwrap();
            assert_eq!(ours.as_flattened(), other.prove_inclusion(index).as_bytes(), "{index} of {size}");
        }
        for old in places(size).into_iter().filter(|old| *old > 0) {
            let ours = tree.consistency(old, size);
            let added = usize::try_from(size - old).unwrap();
            assert_eq!(ours.as_flattened(), other.prove_consistency(added).as_bytes(), "{old} to {size}");
        }
        other.push(entry(size));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn larger_logs_agree_with_another_implementation_too(size in 600_u64..6000, one: u64, two: u64) {
        let (tree, other) = (Tree::new(size), theirs(size));
        let (index, old) = (one % size, two % size + 1);
        let root = other.root();
        prop_assert_eq!(&tree.root(size)[..], &root.as_bytes()[..]);
        let ours = tree.inclusion(index, size);
        let theirs = other.prove_inclusion(usize::try_from(index).unwrap());
        prop_assert_eq!(ours.as_flattened(), theirs.as_bytes());
        let ours = tree.consistency(old, size);
        let theirs = other.prove_consistency(usize::try_from(size - old).unwrap());
        prop_assert_eq!(ours.as_flattened(), theirs.as_bytes());
    }
}

#[test]
fn proofs_hold_for_what_they_prove_and_for_nothing_else() {
    let tree = Tree::new(600);
    for size in (1..=40).chain([255, 256, 257, 511, 512, 513, 600]) {
        let root = tree.root(size);
        for index in places(size) {
            let leaf = tree.leaves[usize::try_from(index).unwrap()];
            let proof = tree.inclusion(index, size);
            assert!(verify_inclusion(&leaf, index, size, &proof, &root));
            assert!(!verify_inclusion(&[0; 32], index, size, &proof, &root));
            assert!(!verify_inclusion(&leaf, index, size, &proof, &[0; 32]));
            assert!(!verify_inclusion(&leaf, size, size, &proof, &root));
            let elsewhere = (index + 1) % size;
            assert!(size == 1 || !verify_inclusion(&leaf, elsewhere, size, &proof, &root));
            assert!(!verify_inclusion(&leaf, index, size, &[&proof[..], &[leaf]].concat(), &root));
            assert!(proof.is_empty() || !verify_inclusion(&leaf, index, size, &proof[1..], &root));
        }
        for old in places(size).into_iter().filter(|old| *old > 0) {
            let (before, proof) = (tree.root(old), tree.consistency(old, size));
            assert!(verify_consistency((old, &before), (size, &root), &proof), "{old} to {size}");
            assert!(!verify_consistency((old, &[0; 32]), (size, &root), &proof));
            assert!(!verify_consistency((old, &before), (size, &[0; 32]), &proof));
            assert!(!verify_consistency((size + 1, &before), (size, &root), &proof));
            assert!(!verify_consistency((old, &before), (size, &root), &[&proof[..], &[root]].concat()));
            assert!(!verify_consistency((old, &before), (size, &root), &proof[1..]));
        }
    }
    assert!(verify_consistency((0, &[0; 32]), (5, &tree.root(5)), &[]));
    assert!(verify_consistency((5, &tree.root(5)), (5, &tree.root(5)), &[]));
    assert!(!verify_consistency((5, &tree.root(4)), (5, &tree.root(5)), &[]));
    assert_eq!((Proofs::inclusion(5, 5), Proofs::consistency(6, 5)), (None, None));
}

#[test]
fn proofs_of_a_million_leaves_hold_and_need_the_leaves_of_few_tiles() {
    let tree = Tree::new(1_000_000);
    for size in [999_999, 1_000_000, 524_288, 524_289, 65_793] {
        let root = tree.root(size);
        for index in [0, size / 3, size - 1] {
            let leaf = tree.leaves[usize::try_from(index).unwrap()];
            assert!(verify_inclusion(&leaf, index, size, &tree.inclusion(index, size), &root));
            let (old, before) = (index + 1, tree.root(index + 1));
            assert!(verify_consistency((old, &before), (size, &root), &tree.consistency(old, size)));
        }
    }
}

fn signer() -> NoteSigner {
    let control = ControlKey::generate(&SystemEntropy::new()).unwrap();
    NoteSigner::derive(&control, StoreId([7; 16]), "test").unwrap().under(ORIGIN.to_owned())
}

const ORIGIN: &str = "strongroom/test/log";

type Files = BTreeMap<String, Vec<u8>>;

/// An exported log in memory.
#[derive(Clone)]
struct Exported {
    files: Files,
    /// The entries, where they stand on lines.
    lines: Option<Vec<u8>>,
    checkpoint: String,
}

impl Exported {
    fn new(entries: &[Vec<u8>], bundles: bool, signer: NoteSigner) -> Self {
        let mut writer = TileWriter::new(bundles);
        let mut frontier = Frontier::default();
        let mut files = Vec::new();
        for entry in entries {
            files.extend(writer.push(entry).unwrap());
            frontier.append(leaf_hash(entry));
        }
        files.extend(writer.finish());
        let (size, root) = (frontier.size(), frontier.root());
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size, root }.sign(signer);
        let files = files.into_iter().map(|file| (file.path.to_string(), file.bytes)).collect();
        let lines =
            (!bundles).then(|| entries.iter().flat_map(|entry| [entry, &b"\n"[..]].concat()).collect());
        Self { files, lines, checkpoint }
    }

    fn verify(&self, key: &VerifierKey, earlier: Option<&Checkpoint>) -> Result<(), String> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key).map_err(|error| error.to_string())?;
        let mut lines = self.lines.as_deref().map(Cursor::new);
        let mut file = |path: &TilePath, most: u64| -> io::Result<Option<Vec<u8>>> {
            let most = usize::try_from(most).unwrap() + 1;
            Ok(self.files.get(&path.to_string()).map(|bytes| bytes[..bytes.len().min(most)].to_vec()))
        };
        let lines = lines.as_mut().map(|lines| lines as &mut dyn io::BufRead);
        let export = Export { file: &mut file, lines };
        let mut in_place = |sequence, line: &[u8]| line == entry(sequence);
        verify_export(export, &checkpoint, earlier, &mut in_place).map_err(|error| error.to_string())
    }
}

struct TheirReader<'a>(&'a Exported);

impl TileReader for TheirReader<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let path = |tile: &Tile| tile.path().replacen("tile/8/", "tile/", 1);
        Ok(tiles.iter().map(|tile| self.0.files[&path(tile)].clone()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[test]
fn another_implementation_reads_our_checkpoints_and_proves_entries_from_our_tiles() {
    let size = 66_000;
    let entries: Vec<_> = (0..size).map(entry).collect();
    let exported = Exported::new(&entries, true, signer());
    assert_eq!(exported.files.len() as u64, tile_paths(size).count() as u64 + size.div_ceil(256));
    let text = exported.checkpoint.split_inclusive("\n\n").next().unwrap().trim_end_matches('\n');
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(format!("{text}\n").as_bytes()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, size));
    let files = TheirReader(&exported);
    let reader = TileHashReader::new(size, *checkpoint.hash(), &files);
    for index in [0, 255, 256, 65_535, 65_536, size - 1] {
        let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
        let leaf = tlog_tiles::record_hash(&entry(index));
        assert!(tlog_tiles::check_record(&proof, size, *checkpoint.hash(), index, leaf).is_ok());
        let leaf: TheirHash = tlog_tiles::record_hash(b"another");
        assert!(tlog_tiles::check_record(&proof, size, *checkpoint.hash(), index, leaf).is_err());
    }
}

#[test]
fn a_proof_file_is_read_back_and_shows_its_entry_alone() {
    let (tree, signer) = (Tree::new(300), signer());
    let key: VerifierKey = signer.verifier().parse().unwrap();
    let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size: 300, root: tree.root(300) };
    let note = checkpoint.sign(signer);
    let proof = ProofFile { index: 257, hashes: tree.inclusion(257, 300), checkpoint: note };
    let text = proof.to_string();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 257\n"));
    assert_eq!(ProofFile::parse(&text).as_ref(), Ok(&proof));
    assert_eq!(proof.verify(&entry(257), &key), Ok(checkpoint));
    assert_eq!(proof.verify(&entry(258), &key), Err(ProofFileError::NotIncluded));
    let moved = ProofFile { index: 256, ..proof };
    assert_eq!(moved.verify(&entry(257), &key), Err(ProofFileError::NotIncluded));
    for bad in [
        "",
        "c2sp.org/tlog-proof@v1\nindex 1",
        &text.replace("@v1", "@v2"),
        &text.replace("index 257", "index 0257"),
    ] {
        assert_eq!(ProofFile::parse(bad), Err(ProofFileError::Form), "{bad}");
    }
    let many = text.replacen("\n\n", &format!("{}\n\n", format!("\n{}", "A".repeat(43) + "=").repeat(70)), 1);
    assert_eq!(ProofFile::parse(&many), Err(ProofFileError::Form));
}

/// A log of this size with each of the mutations of its entries, and the event at which it must be found.
fn mutations(size: u64, at: u64) -> Vec<(&'static str, Vec<Vec<u8>>, u64)> {
    let whole: Vec<_> = (0..size).map(entry).collect();
    let place = usize::try_from(at).unwrap();
    let mutate = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut entries = whole.clone();
        change(&mut entries);
        entries
    };
    let mut all = vec![
        ("flip", mutate(&|entries| entries[place][3] ^= 1), at),
        ("drop", mutate(&|entries| drop(entries.remove(place))), at),
        ("replace", mutate(&|entries| entries[place] = entry(at + 1_000_000)), at),
        ("truncate", mutate(&|entries| entries.truncate(place)), at),
        ("duplicate", mutate(&|entries| entries.insert(place, entry(at))), at + 1),
    ];
    if at + 1 < size {
        all.push(("reorder", mutate(&|entries| entries.swap(place, place + 1)), at));
    }
    all
}

#[test]
fn every_mutation_of_entries_is_found_and_its_first_place_named() {
    let size = 1300;
    let signer = signer();
    let key: VerifierKey = signer.verifier().parse().unwrap();
    let whole: Vec<_> = (0..size).map(entry).collect();
    let mut signer = Some(signer);
    let mut found = 0;
    let sound = Exported::new(&whole, true, signer.take().unwrap());
    assert_eq!(sound.verify(&key, None), Ok(()));
    for at in [0, 1, 254, 255, 256, 257, 600, 1023, 1024, 1279, 1280, 1298, 1299] {
        for (name, entries, first) in mutations(size, at) {
            let lines = entries.iter().flat_map(|entry| [entry, &b"\n"[..]].concat()).collect();
            let exported = Exported { lines: Some(lines), ..sound.clone() };
            let error = exported.verify(&key, None).unwrap_err();
            assert!(error.starts_with(&format!("event {first} ")), "{name} at {at}: {error}");
            // The same in bundles: each is cut anew from the mutated entries, and the tiles with hashes stay as they were.
            let mut exported = sound.clone();
            exported.files.retain(|path, _| !path.contains("entries"));
            let mut writer = TileWriter::new(true);
            let mut files: Vec<_> = entries.iter().flat_map(|entry| writer.push(entry).unwrap()).collect();
            files.extend(writer.finish());
            let bundles = files.into_iter().filter(|file| file.path.level.is_none());
            exported.files.extend(bundles.map(|file| (file.path.to_string(), file.bytes)));
            let error = exported.verify(&key, None).unwrap_err();
            let bundle = format!("tile/entries/{:03}", first / 256);
            let named = error.starts_with(&format!("event {first} ")) || error.starts_with(&bundle);
            assert!(named, "{name} at {at} in bundles: {error}");
            found += 2;
        }
    }
    assert!(found >= 150, "{found}");
}

#[test]
fn every_flipped_lost_and_cut_file_is_found_and_named() {
    let signer = signer();
    let key: VerifierKey = signer.verifier().parse().unwrap();
    let whole: Vec<_> = (0..700).map(entry).collect();
    let sound = Exported::new(&whole, true, signer);
    for (path, bytes) in &sound.files {
        let mut lost = sound.clone();
        lost.files.remove(path);
        assert_eq!(lost.verify(&key, None), Err(format!("{path} is missing")));
        let mut cut = sound.clone();
        cut.files.insert(path.clone(), bytes[..bytes.len() - 1].to_vec());
        let longer =
            Exported { files: Files::from([(path.clone(), [&bytes[..], b"x"].concat())]), ..sound.clone() };
        let mut longer_files = sound.files.clone();
        longer_files.extend(longer.files);
        for malformed in [cut, Exported { files: longer_files, ..sound.clone() }] {
            assert_eq!(malformed.verify(&key, None), Err(format!("{path} is malformed")));
        }
        for at in (0..bytes.len()).step_by(61) {
            let mut flipped = sound.clone();
            flipped.files.get_mut(path).unwrap()[at] ^= 0x10;
            let error = flipped.verify(&key, None).unwrap_err();
            let number = path.split('/').nth(2).unwrap().trim_end_matches(".p").parse::<u64>().unwrap();
            match path.contains("entries") {
                true => {
                    let event =
                        error.strip_prefix("event ").and_then(|rest| rest.split(' ').next()?.parse().ok());
                    let near = event.is_some_and(|event: u64| event / 256 == number);
                    assert!(near || error.starts_with(path.as_str()), "{path} at {at}: {error}");
                }
                false => assert!(error.starts_with(path.as_str()), "{path} at {at}: {error}"),
            }
        }
    }
}

#[test]
fn a_log_that_was_replaced_as_a_whole_or_signed_by_another_is_found() {
    let ours = signer();
    let key: VerifierKey = ours.verifier().parse().unwrap();
    let whole: Vec<_> = (0..600).map(entry).collect();
    let mut forged = whole.clone();
    forged[300] = entry(301);
    let sound = Exported::new(&whole, true, ours);
    let other = Exported::new(&forged, true, signer());
    assert_eq!(other.verify(&key, None), Err("it is not signed by the key".to_owned()));
    let under_our_checkpoint = Exported { checkpoint: sound.checkpoint.clone(), ..other.clone() };
    let error = under_our_checkpoint.verify(&key, None).unwrap_err();
    assert!(error.starts_with("the log is another than the one that was signed"), "{error}");
    // Entries and hashes of one tile, but not the tile above.
    let mut partly = sound.clone();
    for path in ["tile/0/001", "tile/entries/001"] {
        partly.files.insert(path.to_owned(), other.files[path].clone());
    }
    let error = partly.verify(&key, None).unwrap_err();
    assert!(error.starts_with("the events of tile/0/001 are not those that were signed"), "{error}");
}

#[test]
fn a_log_that_was_rewritten_or_cut_under_the_same_key_is_found_by_an_earlier_checkpoint() {
    let control = ControlKey::generate(&SystemEntropy::new()).unwrap();
    let ours = || NoteSigner::derive(&control, StoreId([7; 16]), "test").unwrap().under(ORIGIN.to_owned());
    let key: VerifierKey = ours().verifier().parse().unwrap();
    let whole: Vec<_> = (0..600).map(entry).collect();
    let earlier = |size: usize| {
        let note = Exported::new(&whole[..size], true, ours()).checkpoint;
        Checkpoint::open(&note, &key).unwrap()
    };
    let sound = Exported::new(&whole, true, ours());
    for size in [0, 1, 255, 256, 500, 600] {
        assert_eq!(sound.verify(&key, Some(&earlier(size))), Ok(()), "{size}");
    }
    let mut moved = whole.clone();
    moved.swap(100, 101);
    let rewritten = Exported::new(&moved, true, ours());
    let error = rewritten.verify(&key, None).unwrap_err();
    assert!(error.starts_with("event 100 does not say that it stands there"), "{error}");
    let mut changed = Exported::new(&whole[..400], true, ours());
    let error = changed.verify(&key, Some(&earlier(500))).unwrap_err();
    assert!(error.starts_with("the log ends before event 499"), "{error}");
    let forked: Vec<_> =
        (0..600).map(|number| if number < 100 { entry(number) } else { b"{}".to_vec() }).collect();
    changed = Exported::new(&forked, true, ours());
    let checkpoint = Checkpoint::open(&changed.checkpoint, &key).unwrap();
    let mut file = |path: &TilePath, _| Ok(changed.files.get(&path.to_string()).cloned());
    let export = Export { file: &mut file, lines: None };
    let error = verify_export(export, &checkpoint, Some(&earlier(500)), &mut |_, _| true);
    assert!(matches!(error, Err(VerifyError::Bad(BadPlace::Rewritten(500)))), "{error:?}");
}
