//! Rows of every size come back as they were, and take their room back with them.

use strongroom::store::{Row, ScanRange};

use crate::fixture::{Fixture, key, row};

crate::over_every_engine!(
    rows_of_every_size_come_back,
    a_row_changes_size_up_and_down,
    rows_whose_keys_begin_one_another_stay_apart,
    any_bytes_are_a_key,
);

/// Around the places where an engine may cut a row in pieces, and the largest that the product allows.
const SIZES: [usize; 14] = [
    0,
    1,
    100,
    4096,
    (16 << 10) - 9,
    (16 << 10) - 8,
    (16 << 10) - 7,
    (32 << 10) - 8,
    (32 << 10) - 7,
    64 << 10,
    100_000,
    1 << 20,
    4 << 20,
    16 << 20,
];

/// Bytes that differ from place to place, so that exchanged pieces show.
fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (word >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn rows_of_every_size_come_back(store: &Fixture) {
    for (seed, size) in (1..).zip(SIZES) {
        store.put(&[(key(format!("{size:08}")), row(seed, &bytes(size, seed)))]);
    }
    let expected: Vec<_> = (1..)
        .zip(SIZES)
        .map(|(seed, size)| (key(format!("{size:08}")), row(seed, &bytes(size, seed))))
        .collect();
    assert!(store.all() == expected);
    for (key, row) in expected {
        assert!(store.read_one(&key) == Some(row), "{key:?}");
    }
    store.put(&[(key("shorter than a revision"), Row::from_stored(vec![1, 2, 3].into()))]);
    store.put(&[(key("empty"), Row::from_stored(Vec::new().into()))]);
    assert_eq!(store.read_one(&key("empty")), Some(Row::from_stored(Vec::new().into())));
}

fn a_row_changes_size_up_and_down(store: &Fixture) {
    let neighbour = (key("k2"), row(1, &bytes(70_000, 99)));
    store.put(std::slice::from_ref(&neighbour));
    for (number, size) in (1..).zip([1_000_000, 10, 40_000, 100_000, 16_384, 0, 300_000]) {
        let written = row(number, &bytes(size, number));
        store.put(&[(key("k"), written.clone())]);
        assert!(store.all() == [(key("k"), written), neighbour.clone()], "at {size}");
    }
    store.delete(&[key("k")]);
    assert!(store.all() == [neighbour]);
    store.put(&[(key("k"), row(1, &bytes(20_000, 5)))]);
    assert!(store.read_one(&key("k")) == Some(row(1, &bytes(20_000, 5))));
}

fn rows_whose_keys_begin_one_another_stay_apart(store: &Fixture) {
    let keys = [key("a"), key("a\0"), key("a\0\0\0\0"), key("a\0\0\0\0\0\0\0\0"), key("")];
    let rows: Vec<_> =
        (1..).zip(&keys).map(|(number, key)| (key.clone(), row(number, &bytes(50_000, number)))).collect();
    store.put(&rows);
    for (key, row) in &rows {
        assert!(store.read_one(key).as_ref() == Some(row), "{key:?}");
    }
    store.delete(&[key("a")]);
    assert!(store.read_one(&key("a\0")).as_ref() == Some(&rows[1].1));
    assert_eq!(store.scan(ScanRange::prefix("a"), 10).len(), 3);
}

fn any_bytes_are_a_key(store: &Fixture) {
    let mut keys: Vec<_> = (0..=u8::MAX).map(|byte| key([byte])).collect();
    keys.extend([key([0xff, 0xff]), key([0xff; 40]), key([0; 40]), key("")]);
    keys.sort();
    let rows: Vec<_> = keys.iter().map(|key| (key.clone(), row(1, key.as_bytes()))).collect();
    store.put(&rows);
    assert_eq!(store.all(), rows);
}
