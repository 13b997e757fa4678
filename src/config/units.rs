//! Sizes and durations as people write them.

use std::fmt;

use crate::model::Duration;

/// A number of bytes, shown with the largest unit that divides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Units from the largest, so that `B` is tried last.
const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl ByteSize {
    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many MiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |shift: &u32| self.0 != 0 && self.0.trailing_zeros() >= *shift;
        let (unit, shift) = UNITS.into_iter().find(|(_, shift)| divides(shift)).unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// Reads a whole number and a unit: `512B`, `4KiB`, `64MiB`, `2GiB`, `1TiB`; a space may stand between them.
///
/// Powers of ten (`MB`) and bare numbers are refused: people mean different things by them.
#[must_use]
pub fn parse_byte_size(text: &str) -> Option<ByteSize> {
    let (unit, shift) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim_end();
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(1 << shift).map(ByteSize)
}

/// Reads a duration as of `humantime`: `30s`, `500ms`, `1h 30m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("0B", 0), ("512B", 512), ("4KiB", 4096), ("64 MiB", 64 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(parse_byte_size(text), Some(ByteSize::new(bytes)), "{text}");
            assert_eq!(ByteSize::new(bytes).to_string(), text.replace(' ', ""));
        }
        assert_eq!(ByteSize::new(1536).to_string(), "1536B");
    }

    #[test]
    fn what_is_ambiguous_negative_or_too_large_is_no_size() {
        for text in
            ["", "64", "64MB", "64M", "MiB", "-1MiB", "+1MiB", "1.5MiB", "1_000B", "16777216TiB", "１KiB"]
        {
            assert_eq!(parse_byte_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("1h 30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for text in ["", "30", "-3s", "soon"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
