//! A byte tokenizer for JSON with a stack of places; no tree is built.
//!
//! It takes RFC 8259, one value, or several with white space between them of which
//! all but the first are objects or arrays (JSON lines), and nothing else: what another parser
//! could read differently is refused. Nesting is bounded by [`DEPTH`].

use std::ops::Range;

use super::bytes::{at, cut};

/// The deepest nesting of arrays and objects.
pub const DEPTH: usize = 64;

/// Why bytes are no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The grammar is broken here.
    #[error("no JSON at byte {0}")]
    Syntax(usize),
    /// Nested deeper than [`DEPTH`].
    #[error("nested too deeply at byte {0}")]
    Depth(usize),
}

/// Where a value stands below the one around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Under a key: the span of its content, without quotes.
    Key(Range<usize>),
    /// At a place of an array.
    Index(u32),
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The content of a key, without quotes.
    Key,
    /// The content of a string, without quotes.
    Text,
    /// A number.
    Number,
    /// The beginning of an object or array.
    Open,
    /// Its end.
    Close,
}

/// Tokenizes `text` and shows each token with its span and the steps that lead to it.
///
/// # Errors
/// [`Malformed`], or what `visit` returned.
pub(super) fn tokenize<E: From<Malformed>>(text: &[u8], visit: Visit<'_, E>) -> Result<(), E> {
    let mut reader = Reader { text, place: 0, steps: Vec::new(), frames: Vec::new() };
    reader.skip_space();
    loop {
        reader.value(visit)?;
        reader.skip_space();
        if reader.place >= text.len() {
            return Ok(());
        }
        // Numbers after each other are rather text: a card's number has four.
        if !matches!(at(text, reader.place), b'{' | b'[') {
            return Err(Malformed::Syntax(reader.place).into());
        }
    }
}

/// Whether the text looks as if it were one number or one string.
pub(super) fn looks_like_a_scalar(text: &[u8]) -> bool {
    match text.first() {
        Some(b'"') => text.len() > 1 && text.ends_with(b"\""),
        Some(b'-' | b'0'..=b'9') => {
            text.iter().all(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
        }
        _ => false,
    }
}

/// Whether the text looks as if it were an object or array.
pub(super) fn looks_like_json(text: &[u8]) -> bool {
    let first = text.iter().find(|byte| !is_space(**byte));
    let last = text.iter().rev().find(|byte| !is_space(**byte));
    matches!((first, last), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Object,
    Array,
}

struct Reader<'a> {
    text: &'a [u8],
    place: usize,
    steps: Vec<Step>,
    frames: Vec<Frame>,
}

/// What is shown each token, with its span and the steps that lead to it.
type Visit<'v, E> = &'v mut dyn FnMut(Token, Range<usize>, &[Step]) -> Result<(), E>;

impl Reader<'_> {
    /// Reads one value with everything in it.
    fn value<E: From<Malformed>>(&mut self, visit: Visit<'_, E>) -> Result<(), E> {
        let outside = self.frames.len();
        loop {
            let opened = self.scalar_or_open(visit)?;
            if opened && self.first_in_frame(visit)? {
                continue;
            }
            if !self.next_in_frame(outside, visit)? {
                return Ok(());
            }
        }
    }

    /// Reads a scalar, or the beginning of an object or array; says whether it was the latter.
    fn scalar_or_open<E: From<Malformed>>(&mut self, visit: Visit<'_, E>) -> Result<bool, E> {
        let start = self.place;
        match at(self.text, start) {
            b'"' => {
                let content = self.string()?;
                visit(Token::Text, content, &self.steps)?;
            }
            b'{' => return self.open(Frame::Object, visit),
            b'[' => return self.open(Frame::Array, visit),
            b'-' | b'0'..=b'9' => {
                self.number()?;
                visit(Token::Number, start..self.place, &self.steps)?;
            }
            b't' => self.literal(b"true")?,
            b'f' => self.literal(b"false")?,
            b'n' => self.literal(b"null")?,
            _ => return Err(Malformed::Syntax(start).into()),
        }
        Ok(false)
    }

    fn open<E: From<Malformed>>(&mut self, frame: Frame, visit: Visit<'_, E>) -> Result<bool, E> {
        if self.frames.len() >= DEPTH {
            return Err(Malformed::Depth(self.place).into());
        }
        visit(Token::Open, self.place..self.place + 1, &self.steps)?;
        self.frames.push(frame);
        self.place += 1;
        self.skip_space();
        Ok(true)
    }

    /// After the beginning of an object or array: whether a value comes first. An empty one is closed.
    fn first_in_frame<E: From<Malformed>>(&mut self, visit: Visit<'_, E>) -> Result<bool, E> {
        match (self.frames.last(), at(self.text, self.place)) {
            (Some(Frame::Object), b'}') | (Some(Frame::Array), b']') => {
                self.close(visit)?;
                Ok(false)
            }
            (Some(Frame::Object), _) => self.key(visit).map(|()| true),
            _ => {
                self.steps.push(Step::Index(0));
                Ok(true)
            }
        }
    }

    /// After a value: whether another one follows before the frame `outside` is reached.
    fn next_in_frame<E: From<Malformed>>(&mut self, outside: usize, visit: Visit<'_, E>) -> Result<bool, E> {
        while self.frames.len() > outside {
            self.skip_space();
            let last = self.steps.pop();
            match (self.frames.last(), at(self.text, self.place)) {
                (Some(Frame::Object), b',') => {
                    self.place += 1;
                    self.skip_space();
                    self.key(visit)?;
                    return Ok(true);
                }
                (Some(Frame::Array), b',') => {
                    self.place += 1;
                    self.skip_space();
                    let index = if let Some(Step::Index(index)) = last { index } else { 0 };
                    self.steps.push(Step::Index(index.saturating_add(1)));
                    return Ok(true);
                }
                (Some(Frame::Object), b'}') | (Some(Frame::Array), b']') => self.close(visit)?,
                _ => return Err(Malformed::Syntax(self.place).into()),
            }
        }
        Ok(false)
    }

    fn close<E: From<Malformed>>(&mut self, visit: Visit<'_, E>) -> Result<(), E> {
        self.frames.pop();
        self.place += 1;
        visit(Token::Close, self.place - 1..self.place, &self.steps)
    }

    fn key<E: From<Malformed>>(&mut self, visit: Visit<'_, E>) -> Result<(), E> {
        if at(self.text, self.place) != b'"' {
            return Err(Malformed::Syntax(self.place).into());
        }
        let content = self.string()?;
        visit(Token::Key, content.clone(), &self.steps)?;
        self.skip_space();
        if at(self.text, self.place) != b':' {
            return Err(Malformed::Syntax(self.place).into());
        }
        self.place += 1;
        self.skip_space();
        self.steps.push(Step::Key(content));
        Ok(())
    }

    /// Reads a string; returns the span of its content.
    fn string(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.place + 1;
        let mut place = start;
        let mut ascii = true;
        loop {
            let rest = cut(self.text, place..self.text.len());
            let special = memchr::memchr2(b'"', b'\\', rest).ok_or(Malformed::Syntax(start))?;
            let plain = cut(rest, 0..special);
            // Without a way out of the loop, so that many bytes are looked at together.
            if plain.iter().fold(false, |any, byte| any | (*byte < 0x20)) {
                return Err(Malformed::Syntax(place));
            }
            ascii = ascii && plain.is_ascii();
            place += special;
            if at(self.text, place) == b'"' {
                break;
            }
            place = self.escape(place)?;
        }
        let content = start..place;
        if !ascii && std::str::from_utf8(cut(self.text, content.clone())).is_err() {
            return Err(Malformed::Syntax(start));
        }
        self.place = place + 1;
        Ok(content)
    }

    /// Checks the escape at a place; returns its end.
    fn escape(&self, place: usize) -> Result<usize, Malformed> {
        match at(self.text, place + 1) {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(place + 2),
            b'u' if (2..6).all(|offset| at(self.text, place + offset).is_ascii_hexdigit()) => Ok(place + 6),
            _ => Err(Malformed::Syntax(place)),
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        let start = self.place;
        self.place += usize::from(at(self.text, start) == b'-');
        let whole = self.place;
        self.digits(start)?;
        if at(self.text, whole) == b'0' && self.place > whole + 1 {
            return Err(Malformed::Syntax(start));
        }
        if at(self.text, self.place) == b'.' {
            self.place += 1;
            self.digits(start)?;
        }
        if matches!(at(self.text, self.place), b'e' | b'E') {
            self.place += 1;
            self.place += usize::from(matches!(at(self.text, self.place), b'+' | b'-'));
            self.digits(start)?;
        }
        Ok(())
    }

    fn digits(&mut self, start: usize) -> Result<(), Malformed> {
        let first = self.place;
        while at(self.text, self.place).is_ascii_digit() {
            self.place += 1;
        }
        if self.place == first { Err(Malformed::Syntax(start)) } else { Ok(()) }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if cut(self.text, self.place..self.place + word.len()) != word {
            return Err(Malformed::Syntax(self.place));
        }
        self.place += word.len();
        Ok(())
    }

    fn skip_space(&mut self) {
        while is_space(at(self.text, self.place)) {
            self.place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<String>, Malformed> {
        let mut all = Vec::new();
        tokenize::<Malformed>(text.as_bytes(), &mut |token, span, steps| {
            let place: Vec<_> = steps
                .iter()
                .map(|step| match step {
                    Step::Key(key) => text[key.clone()].to_owned(),
                    Step::Index(index) => index.to_string(),
                })
                .collect();
            all.push(format!("{token:?} {} {}", &text[span], place.join("/")));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn every_token_has_its_place() {
        let all = tokens(r#"{"a":[1,"x",{}],"b":{"c":"\"y"}}"#).unwrap();
        let leaves: Vec<_> = all.iter().filter(|t| t.starts_with("Text") || t.starts_with("Num")).collect();
        assert_eq!(leaves, ["Number 1 a/0", "Text x a/1", r#"Text \"y b/c"#]);
    }

    #[test]
    fn lines_of_values_are_taken() {
        let leaves = tokens("{\"a\":1}\n[\"b\"]\n").unwrap();
        assert!(leaves.contains(&"Number 1 a".to_owned()) && leaves.contains(&"Text b 0".to_owned()));
        assert_eq!(tokens("[1] 4111 1111"), Err(Malformed::Syntax(4)));
    }

    #[test]
    fn it_takes_what_another_parser_takes_and_nothing_else() {
        for text in [
            "{}",
            "[]",
            "[[],{}]",
            "1.5e-3",
            "-0",
            "\"\\u0041\"",
            "null",
            "[true,false]",
            " {\"a\" : 1 } ",
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{,}",
            "01",
            "1.",
            "1e",
            "+1",
            "\"\\x\"",
            "\"a\nb\"",
            "tru",
            "[1 2]",
            "{\"a\":1,}",
            "\"\\u00g0\"",
            "]",
            "{]",
            "[}",
            "nul",
            "-",
            "\"abc",
            "{a:1}",
        ] {
            let other = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(tokens(text).is_ok(), other, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(tokens(&nested(DEPTH)).is_ok());
        assert_eq!(tokens(&nested(DEPTH + 1)), Err(Malformed::Depth(DEPTH)));
    }
}
