//! Scans: order, bounds, pages.

use strongroom::store::{Key, ScanRange};

use crate::fixture::{Fixture, key, row};

crate::over_every_engine!(
    a_scan_is_in_the_order_of_keys,
    a_scan_stays_within_its_prefix,
    after_and_before_exclude_their_keys,
    bounds_outside_the_prefix_do_not_widen_it,
    a_limit_is_kept,
    pages_see_each_row_once,
    an_empty_range_is_empty,
);

fn filled(store: &Fixture, names: &[&str]) {
    let rows: Vec<_> = names.iter().map(|name| (key(name), row(1, name.as_bytes()))).collect();
    store.put(&rows);
}

fn names(page: &[(Key, strongroom::store::Row)]) -> Vec<String> {
    page.iter().map(|(key, _)| String::from_utf8(key.as_bytes().to_vec()).unwrap()).collect()
}

fn scanned(store: &Fixture, range: &ScanRange) -> [Vec<String>; 2] {
    let up = store.scan(ScanRange { descending: false, ..range.clone() }, 100);
    let down = store.scan(ScanRange { descending: true, ..range.clone() }, 100);
    [names(&up), names(&down)]
}

fn check(store: &Fixture, range: &ScanRange, expected: &[&str]) {
    let [up, mut down] = scanned(store, range);
    assert_eq!(up, expected, "{range:?}");
    down.reverse();
    assert_eq!(down, expected, "{range:?}, descending");
}

fn a_scan_is_in_the_order_of_keys(store: &Fixture) {
    filled(store, &["b", "a", "ab", "aa", "c", "B"]);
    check(store, &ScanRange::prefix(""), &["B", "a", "aa", "ab", "b", "c"]);
}

fn a_scan_stays_within_its_prefix(store: &Fixture) {
    filled(store, &["a", "ab", "ab1", "ab2", "ac", "b"]);
    check(store, &ScanRange::prefix("ab"), &["ab", "ab1", "ab2"]);
    check(store, &ScanRange::prefix("x"), &[]);
    store.put(&[(key([0xff]), row(1, b"")), (key([0xff, 0xff, 1]), row(1, b"")), (key([0xfe]), row(1, b""))]);
    assert_eq!(store.scan(ScanRange::prefix([0xff]), 10).len(), 2);
    assert_eq!(store.scan(ScanRange::prefix([0xff, 0xff]), 10).len(), 1);
}

fn after_and_before_exclude_their_keys(store: &Fixture) {
    filled(store, &["k1", "k2", "k3", "k4"]);
    let range = |after: Option<&str>, before: Option<&str>| ScanRange {
        after: after.map(key),
        before: before.map(key),
        ..ScanRange::prefix("k")
    };
    check(store, &range(Some("k1"), None), &["k2", "k3", "k4"]);
    check(store, &range(None, Some("k4")), &["k1", "k2", "k3"]);
    check(store, &range(Some("k1"), Some("k4")), &["k2", "k3"]);
    check(store, &range(Some("k11"), Some("k34")), &["k2", "k3"]);
    check(store, &range(Some("k4"), None), &[]);
    check(store, &range(None, Some("k1")), &[]);
}

fn bounds_outside_the_prefix_do_not_widen_it(store: &Fixture) {
    filled(store, &["j", "k1", "k2", "l"]);
    let range = |after: &str, before: &str| ScanRange {
        after: Some(key(after)),
        before: Some(key(before)),
        ..ScanRange::prefix("k")
    };
    check(store, &range("a", "z"), &["k1", "k2"]);
    check(store, &range("k", "l"), &["k1", "k2"]);
    check(store, &range("l", "z"), &[]);
    check(store, &range("a", "j"), &[]);
}

fn a_limit_is_kept(store: &Fixture) {
    filled(store, &["a", "b", "c"]);
    assert_eq!(names(&store.scan(ScanRange::prefix(""), 2)), ["a", "b"]);
    let down = ScanRange { descending: true, ..ScanRange::prefix("") };
    assert_eq!(names(&store.scan(down, 2)), ["c", "b"]);
    assert_eq!(store.scan(ScanRange::prefix(""), 0), []);
    assert_eq!(store.scan(ScanRange::prefix(""), usize::MAX).len(), 3);
}

/// Large rows stand between small ones: their pieces must not count as rows.
fn pages_see_each_row_once(store: &Fixture) {
    let rows: Vec<_> = (0..300_u64)
        .map(|number| {
            let size = if number % 25 == 0 { 70_000 } else { 50 };
            (key(format!("k{number:04}")), row(number + 1, &vec![number as u8; size]))
        })
        .collect();
    store.put(&rows);
    store.put(&[(key("j"), row(1, b"")), (key("l"), row(1, b""))]);
    for page in [1, 7, 100, 299, 300, 301] {
        assert!(walked(store, page, false) == rows, "ascending by {page}");
        let mut down = walked(store, page, true);
        down.reverse();
        assert!(down == rows, "descending by {page}");
    }
}

fn walked(store: &Fixture, page: usize, descending: bool) -> Vec<(Key, strongroom::store::Row)> {
    let mut range = ScanRange { descending, ..ScanRange::prefix("k") };
    let mut seen = Vec::new();
    loop {
        let found = store.scan(range.clone(), page);
        assert!(found.len() <= page);
        let Some((last, _)) = found.last() else { return seen };
        if descending {
            range.before = Some(last.clone());
        } else {
            range.after = Some(last.clone());
        }
        seen.extend(found);
    }
}

fn an_empty_range_is_empty(store: &Fixture) {
    filled(store, &["k1", "k2"]);
    let crossed = ScanRange { after: Some(key("k2")), before: Some(key("k1")), ..ScanRange::prefix("k") };
    check(store, &crossed, &[]);
    let same = ScanRange { after: Some(key("k1")), before: Some(key("k1")), ..ScanRange::prefix("k") };
    check(store, &same, &[]);
}
