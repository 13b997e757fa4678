//! What is looked for in a piece of text: recognisers that are led to a place, and what takes their finds.
//!
//! Each recogniser examines a window of bounded length around its place.

pub(super) mod assigned;
pub(super) mod network;
pub(super) mod numbers;
pub(super) mod shape;
pub(super) mod token;
pub(super) mod validate;

use std::ops::Range;

use super::rule::Pattern;

/// A word near by that makes another reading likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Hint {
    Phone,
    Ssn,
    Card,
    Version,
    Routing,
    Cpf,
    Nhs,
    Aadhaar,
}

/// How many hints there are.
const HINTS: usize = 8;
/// How far before a number its word may stand.
const HINT_WINDOW: usize = 64;

/// Hints that hold for a whole text, from the key that it stands under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hints(u16);

impl Hints {
    pub(super) fn with(self, hint: Hint) -> Self {
        Self(self.0 | 1 << hint as u8)
    }

    fn has(self, hint: Hint) -> bool {
        self.0 & 1 << hint as u8 != 0
    }
}

/// What was found: which rule, and where in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) rule: u16,
    pub(super) span: Range<usize>,
}

/// What takes the finds of one text, and remembers what was passed.
pub(super) struct Sink<'a> {
    /// The rule of each pattern, none if it is off.
    patterns: &'a [Option<u16>],
    found: &'a mut Vec<Hit>,
    work: &'a mut u64,
    under: Hints,
    /// The end of the last word of each hint, zero if there was none.
    hints: [usize; HINTS],
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        patterns: &'a [Option<u16>],
        under: Hints,
        found: &'a mut Vec<Hit>,
        work: &'a mut u64,
    ) -> Self {
        Self { patterns, found, work, under, hints: [0; HINTS] }
    }

    fn found(&mut self, pattern: Pattern, span: Range<usize>) {
        if let Some(rule) = self.patterns.get(pattern as usize).copied().flatten() {
            self.hit(rule, span);
        }
    }

    fn hit(&mut self, rule: u16, span: Range<usize>) {
        if !span.is_empty() {
            self.found.push(Hit { rule, span });
        }
    }

    /// Counts bytes that were looked at besides the pass itself.
    fn work(&mut self, bytes: usize) {
        *self.work = self.work.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn note(&mut self, hint: Hint, end: usize) {
        if let Some(last) = self.hints.get_mut(hint as usize) {
            *last = end;
        }
    }

    /// Whether a word for it stands before the place, or the text stands under such a key.
    fn hinted(&self, hint: Hint, place: usize) -> bool {
        let last = self.hints.get(hint as usize).copied().unwrap_or(0);
        self.under.has(hint) || (last > 0 && last <= place && place - last <= HINT_WINDOW)
    }
}

#[cfg(test)]
pub(super) mod tests_of {
    use super::super::pack;
    use super::super::rule::{Detector, Pattern};
    use super::super::scan::Scanner;
    use super::*;

    /// What stands between `‹` and `›`.
    pub(in crate::redact) fn marked(text: &str) -> Vec<String> {
        text.split('‹').skip(1).map(|part| part.split('›').next().unwrap().to_owned()).collect()
    }

    /// The text without the marks.
    pub(in crate::redact) fn unmarked(text: &str) -> String {
        text.replace(['‹', '›'], "")
    }

    /// What the rules of some patterns find in the text without its marks.
    pub(in crate::redact) fn found_by(patterns: &[Pattern], text: &str) -> Vec<String> {
        found_where(
            text,
            |rule| matches!(rule.detector, Detector::Pattern(found) if patterns.contains(&found)),
        )
    }

    /// What some rules find in the text without its marks.
    pub(in crate::redact) fn found_where(text: &str, wanted: impl Fn(&pack::Rule) -> bool) -> Vec<String> {
        let plain = unmarked(text);
        let (scanner, mut hits, mut work) = (Scanner::new(pack::RULES), Vec::new(), 0);
        scanner.scan(plain.as_bytes(), Hints::default(), &mut hits, &mut work);
        let rule = |hit: &Hit| &pack::RULES[usize::from(hit.rule)];
        hits.sort_by_key(|hit| hit.span.start);
        hits.dedup();
        hits.iter().filter(|hit| wanted(rule(hit))).map(|hit| plain[hit.span.clone()].to_owned()).collect()
    }
}
