//! Looking at bytes by place without ever panicking: beyond the end there is a NUL, which no detector takes for part of a value.

use std::ops::Range;

/// The byte at a place, NUL beyond the end.
#[inline]
pub(super) fn at(text: &[u8], place: usize) -> u8 {
    text.get(place).copied().unwrap_or(0)
}

/// The byte before a place, NUL at the beginning.
#[inline]
pub(super) fn before(text: &[u8], place: usize) -> u8 {
    place.checked_sub(1).map_or(0, |place| at(text, place))
}

/// The bytes of a range, as far as there are any.
#[inline]
pub(super) fn cut(text: &[u8], range: Range<usize>) -> &[u8] {
    let end = range.end.min(text.len());
    text.get(range.start.min(end)..end).unwrap_or(&[])
}

/// The end of the run of bytes from `start` on for which `belongs` holds, at most `most` bytes on.
#[inline]
pub(super) fn run_end(text: &[u8], start: usize, most: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let window = cut(text, start..start.saturating_add(most));
    start + window.iter().position(|byte| !belongs(*byte)).unwrap_or(window.len())
}

/// The start of the run of bytes that ends at `end` for which `belongs` holds, at most `most` bytes back.
#[inline]
pub(super) fn run_start(text: &[u8], end: usize, most: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let window = cut(text, end.saturating_sub(most)..end);
    end - window.iter().rev().position(|byte| !belongs(*byte)).unwrap_or(window.len())
}

/// Letters, digits and the underscore of ASCII, and every byte of a longer character.
#[inline]
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Letters and digits of ASCII.
#[inline]
pub(super) fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Skips spaces and tabs, at most 16.
pub(super) fn skip_blanks(text: &[u8], start: usize) -> usize {
    run_end(text, start, 16, |byte| byte == b' ' || byte == b'\t')
}

/// Whether the bytes from `place` on begin with a word, whatever the case of its letters; the word is in lower case.
pub(super) fn starts_with(text: &[u8], place: usize, word: &[u8]) -> bool {
    cut(text, place..place.saturating_add(word.len())).eq_ignore_ascii_case(word)
}

/// The entropy of a sample in bits a byte, by the frequencies of its bytes.
pub(super) fn entropy(sample: &[u8]) -> f64 {
    let mut counts = [0_u16; 256];
    for byte in sample.iter().take(512) {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let total = f64::from(u16::try_from(sample.len().min(512)).unwrap_or(512));
    let share = |count: &u16| f64::from(*count) / total;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_ends_there_is_nothing() {
        assert_eq!((at(b"a", 1), before(b"a", 0)), (0, 0));
        assert_eq!(cut(b"abc", 2..9), b"c");
        assert_eq!(cut(b"abc", 7..9), b"");
        assert_eq!(run_end(b"aab", 0, 9, |byte| byte == b'a'), 2);
        assert_eq!(run_start(b"baa", 3, 1, |byte| byte == b'a'), 2);
    }

    #[test]
    fn entropy_counts_different_bytes() {
        assert!(entropy(b"aaaa") < 0.01);
        assert!((entropy(b"abcd") - 2.0).abs() < 0.01);
    }
}
