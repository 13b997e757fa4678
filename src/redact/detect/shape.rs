//! Shapes of tokens, in a small part of the notation of regular expressions: characters, `\.`, classes such as
//! `[A-Za-z0-9_-]`, and counts `{36}` or `{20,}` behind a class. A run takes as much as it can, and there is no going back,
//! so that a match is linear and bounded by [`MOST`].

use super::super::bytes::at;

/// The longest run without an upper bound of its own.
pub(in crate::redact) const MOST: usize = 2048;

/// A part of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redact) struct Run {
    /// Which bytes belong to it.
    class: [u64; 4],
    least: usize,
    most: usize,
}

impl Run {
    fn has(&self, byte: u8) -> bool {
        let word = self.class.get(usize::from(byte >> 6)).copied().unwrap_or(0);
        word & 1 << (byte & 63) != 0
    }
}

/// A compiled shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redact) struct Shape(Vec<Run>);

impl Shape {
    /// Compiles the notation; none where it is not understood.
    pub(in crate::redact) fn new(notation: &str) -> Option<Self> {
        let mut letters = notation.bytes().peekable();
        let mut runs: Vec<Run> = Vec::new();
        while let Some(letter) = letters.next() {
            let class = match letter {
                b'[' => class(&mut letters)?,
                b'\\' => single(letters.next()?),
                other => single(other),
            };
            let (least, most) = match letters.peek() {
                Some(b'{') => count(&mut letters)?,
                _ => (1, 1),
            };
            runs.push(Run { class, least, most });
        }
        Some(Self(runs))
    }

    /// The end of the match that begins at `start`, if there is one that nothing goes on behind.
    pub(in crate::redact) fn end(&self, text: &[u8], start: usize) -> Option<usize> {
        let mut place = start;
        for run in &self.0 {
            let rest = text.get(place..).unwrap_or(&[]);
            let length = rest.iter().take(run.most).take_while(|byte| run.has(**byte)).count();
            if length < run.least {
                return None;
            }
            place += length;
        }
        let goes_on = self
            .0
            .last()
            .is_some_and(|run| run.has(at(text, place)) && at(text, place).is_ascii_alphanumeric());
        (!goes_on).then_some(place)
    }

    /// A text of this shape, of characters that `choose` picks: it takes a bound and returns less.
    #[cfg(test)]
    pub(in crate::redact) fn sample(&self, choose: &mut dyn FnMut(usize) -> usize) -> String {
        let mut out = String::new();
        for run in &self.0 {
            let members: Vec<u8> = (33..127).filter(|byte| run.has(*byte)).collect();
            let length = run.least + choose(run.most.min(run.least + 8) - run.least + 1);
            for _ in 0..length {
                out.push(char::from(members[choose(members.len())]));
            }
        }
        out
    }
}

fn single(byte: u8) -> [u64; 4] {
    let mut class = [0; 4];
    add(&mut class, byte);
    class
}

fn add(class: &mut [u64; 4], byte: u8) {
    if let Some(word) = class.get_mut(usize::from(byte >> 6)) {
        *word |= 1 << (byte & 63);
    }
}

fn class(letters: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Option<[u64; 4]> {
    let mut class = [0; 4];
    loop {
        let first = match letters.next()? {
            b']' => return Some(class),
            b'\\' => letters.next()?,
            other => other,
        };
        let mut last = first;
        if letters.peek() == Some(&b'-') {
            letters.next();
            match letters.peek()? {
                b']' => add(&mut class, b'-'),
                _ => last = letters.next()?,
            }
        }
        for byte in first..=last {
            add(&mut class, byte);
        }
    }
}

fn count(letters: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Option<(usize, usize)> {
    letters.next();
    let text: Vec<u8> = letters.take_while(|letter| *letter != b'}').collect();
    let text = String::from_utf8(text).ok()?;
    match text.split_once(',') {
        None => text.parse().ok().map(|exactly| (exactly, exactly)),
        Some((least, "")) => least.parse().ok().map(|least| (least, MOST)),
        Some((least, most)) => Some((least.parse().ok()?, most.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_match_as_far_as_they_go_and_no_further() {
        let shape = Shape::new(r"v[0-9]\.[a-f]{3}-[A-Za-z0-9_-]{2,4}").unwrap();
        for (text, end) in [
            ("v1.abc-xy", Some(9)),
            ("v1.abc-xy z", Some(9)),
            ("v1.abc-wxyz", Some(11)),
            ("v1.abc-vwxyz", None),
            ("v1.abg-xy", None),
            ("v1.abc-x", None),
            ("v11abc-xy", None),
        ] {
            assert_eq!(shape.end(text.as_bytes(), 0), end, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_shape() {
        for notation in ["[a", "a{x}", "\\", "a{1,x}"] {
            assert_eq!(Shape::new(notation), None, "{notation}");
        }
    }
}
