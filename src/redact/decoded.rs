//! Text as a reader sees it, and where each part of it stands in the bytes that were written.
//!
//! Escapes of JSON strings are resolved, percent-encoding is undone, full-width and other digits become ASCII digits, dashes and
//! spaces become the plain ones, characters without width go. The map back is by units: runs that were copied, and single
//! characters that became something else. A span that touches a part of such a character covers the whole of it.

use std::ops::Range;

use super::bytes::{at, cut};

/// Decoded text with its map.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    text: Vec<u8>,
    units: Vec<Unit>,
}

/// A part of the text: copied bytes, or one character that became something else.
#[derive(Debug, Clone, Copy)]
struct Unit {
    at: usize,
    source: usize,
    source_end: usize,
    copied: bool,
}

impl Decoded {
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The span of the source that a span of the text came from; never less than it.
    pub(super) fn source(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.unit(span.start);
        let last = self.unit(span.end.saturating_sub(1).max(span.start));
        let from = if start.copied { start.source + (span.start - start.at) } else { start.source };
        let to = if last.copied { last.source + (span.end - last.at) } else { last.source_end };
        from..to.max(from)
    }

    fn unit(&self, place: usize) -> Unit {
        let after = self.units.partition_point(|unit| unit.at <= place);
        let none = Unit { at: 0, source: 0, source_end: 0, copied: true };
        after.checked_sub(1).and_then(|unit| self.units.get(unit)).copied().unwrap_or(none)
    }

    fn copy(&mut self, source: &[u8], range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        match self.units.last_mut() {
            Some(last) if last.copied && last.source_end == range.start => last.source_end = range.end,
            _ => self.units.push(Unit {
                at: self.text.len(),
                source: range.start,
                source_end: range.end,
                copied: true,
            }),
        }
        self.text.extend_from_slice(cut(source, range));
    }

    fn replace(&mut self, range: &Range<usize>, by: &[u8]) {
        if !by.is_empty() {
            let unit =
                Unit { at: self.text.len(), source: range.start, source_end: range.end, copied: false };
            self.units.push(unit);
            self.text.extend_from_slice(by);
        }
    }

    fn replace_char(&mut self, range: &Range<usize>, by: char) {
        self.replace(range, by.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// Takes over a character beyond ASCII: folded, dropped or as it is. Returns its end.
    fn take_wide(&mut self, source: &[u8], start: usize) -> usize {
        let Some(letter) = char_at(source, start) else {
            self.copy(source, start..start + 1);
            return start + 1;
        };
        let range = start..start + letter.len_utf8();
        match fold(letter) {
            Fold::Keep => self.copy(source, range.clone()),
            Fold::Drop => {}
            Fold::As(byte) => self.replace(&range, &[byte]),
        }
        range.end
    }
}

/// Resolves the escapes of a JSON string's content and folds it.
pub(super) fn unescape(source: &[u8]) -> Decoded {
    walk(source, |decoded, source, place| match at(source, place) {
        b'\\' => Some(take_escape(decoded, source, place)),
        _ => None,
    })
}

/// Folds text.
pub(super) fn folded(source: &[u8]) -> Decoded {
    walk(source, |_, _, _| None)
}

/// Undoes percent-encoding, and folds.
pub(super) fn percent_decoded(source: &[u8]) -> Decoded {
    walk(source, |decoded, source, place| {
        let high = hex(at(source, place + 1))?;
        let low = hex(at(source, place + 2))?;
        if at(source, place) != b'%' {
            return None;
        }
        decoded.replace(&(place..place + 3), &[high << 4 | low]);
        Some(place + 3)
    })
}

/// Goes through the source; `special` may take a place over, and then says where to go on.
fn walk(source: &[u8], special: impl Fn(&mut Decoded, &[u8], usize) -> Option<usize>) -> Decoded {
    let mut decoded = Decoded { text: Vec::with_capacity(source.len()), units: Vec::new() };
    let (mut place, mut copied) = (0, 0);
    let is_ascii = source.is_ascii();
    loop {
        let rest = cut(source, place..source.len());
        let next = if is_ascii {
            memchr::memchr2(b'\\', b'%', rest)
        } else {
            rest.iter().position(|byte| matches!(byte, b'\\' | b'%' | 0x80..))
        };
        let Some(byte) = next.and_then(|next| rest.get(next)) else { break };
        place += next.unwrap_or(0);
        decoded.copy(source, copied..place);
        place = match special(&mut decoded, source, place) {
            Some(after) => after,
            None if *byte >= 0x80 => decoded.take_wide(source, place),
            None => {
                decoded.copy(source, place..place + 1);
                place + 1
            }
        };
        copied = place;
    }
    decoded.copy(source, copied..source.len());
    decoded
}

fn take_escape(decoded: &mut Decoded, source: &[u8], place: usize) -> usize {
    let plain = match at(source, place + 1) {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return take_unicode_escape(decoded, source, place),
        other => other,
    };
    decoded.replace(&(place..(place + 2).min(source.len())), &[plain]);
    place + 2
}

fn take_unicode_escape(decoded: &mut Decoded, source: &[u8], place: usize) -> usize {
    let first = four_hex(source, place + 2);
    let second = four_hex(source, place + 8).filter(|_| cut(source, place + 6..place + 8) == b"\\u");
    let pair = first.zip(second).and_then(|(high, low)| {
        let surrogates = (0xD800..0xDC00).contains(&high) && (0xDC00..0xE000).contains(&low);
        surrogates.then(|| char::from_u32(0x1_0000 + ((high - 0xD800) << 10 | (low - 0xDC00)))).flatten()
    });
    let (letter, length) = match pair {
        Some(letter) => (letter, 12),
        None => (first.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
    };
    let range = place..(place + length).min(source.len());
    match fold(letter) {
        Fold::Keep => decoded.replace_char(&range, letter),
        Fold::Drop => {}
        Fold::As(byte) => decoded.replace(&range, &[byte]),
    }
    range.end
}

fn four_hex(source: &[u8], place: usize) -> Option<u32> {
    (place..place + 4).try_fold(0, |number, place| Some(number << 4 | u32::from(hex(at(source, place))?)))
}

/// The value of a hexadecimal digit.
pub(super) fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The character that begins at a place; none where the bytes are no UTF-8.
pub(super) fn char_at(source: &[u8], place: usize) -> Option<char> {
    let length = match at(source, place) {
        0..0x80 => 1,
        0xC2..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0..0xF5 => 4,
        _ => return None,
    };
    std::str::from_utf8(cut(source, place..place + length)).ok()?.chars().next()
}

enum Fold {
    Keep,
    Drop,
    As(u8),
}

/// The first of the ten digits of scripts that people type numbers in.
const DIGIT_ZEROS: &[u32] = &[
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0E50,
    0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810, 0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6,
];

/// What stands for a plain character, or for none.
fn fold(letter: char) -> Fold {
    match letter {
        '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' => Fold::Drop,
        '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' => Fold::Drop,
        '\u{FE00}'..='\u{FE0F}' | '\u{E0000}'..='\u{E01EF}' => Fold::Drop,
        '\u{00A0}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => Fold::As(b' '),
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' => Fold::As(b'-'),
        '\u{FF01}'..='\u{FF5E}' => Fold::As(u8::try_from(u32::from(letter) - 0xFF01 + 0x21).unwrap_or(b'?')),
        _ => digit(letter).map_or(Fold::Keep, |digit| Fold::As(b'0' + digit)),
    }
}

fn digit(letter: char) -> Option<u8> {
    let code = u32::from(letter);
    let zero = DIGIT_ZEROS.get(DIGIT_ZEROS.partition_point(|zero| *zero <= code).checked_sub(1)?)?;
    u8::try_from(code - zero).ok().filter(|digit| *digit < 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_of(decoded: &Decoded, part: &str) -> Range<usize> {
        let at = memchr::memmem::find(decoded.text(), part.as_bytes()).unwrap();
        decoded.source(&(at..at + part.len()))
    }

    #[test]
    fn escapes_are_resolved_and_lead_back() {
        let source = br#"a\n4111\u00201111\ud83d\ude00z"#;
        let decoded = unescape(source);
        assert_eq!(decoded.text(), "a\n4111 1111😀z".as_bytes());
        assert_eq!(source_of(&decoded, "4111 1111"), 3..17);
        assert_eq!(source_of(&decoded, "😀"), 17..29);
        assert_eq!(source_of(&decoded, "z"), 29..30);
    }

    #[test]
    fn digits_of_other_scripts_and_hidden_characters_fold() {
        let decoded = folded("x４１\u{200B}１１٣\u{2011}y".as_bytes());
        assert_eq!(decoded.text(), b"x41113-y");
        assert_eq!(source_of(&decoded, "4111"), 1..16);
    }

    #[test]
    fn percent_encoding_and_what_is_none() {
        let decoded = percent_decoded(b"a%40b%zz%4");
        assert_eq!(decoded.text(), b"a@b%zz%4");
        assert_eq!(source_of(&decoded, "a@b"), 0..5);
    }

    #[test]
    fn bytes_that_are_no_text_stay() {
        let source = b"\xff\xfea\xe2\x82";
        let decoded = folded(source);
        assert_eq!(decoded.text(), source);
        assert_eq!(decoded.source(&(0..5)), 0..5);
    }

    #[test]
    fn lone_surrogates_become_replacements() {
        assert_eq!(unescape(br"\ud800x").text(), "\u{FFFD}x".as_bytes());
        assert_eq!(unescape(br"\").text(), b"\0");
    }
}
