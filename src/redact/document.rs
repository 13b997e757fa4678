//! What is sensitive in a whole value: text, or JSON with what its names say, JSON and base64 inside of strings.

use std::ops::Range;

use super::bytes::{at, cut};
use super::decoded::{self, Decoded};
use super::detect::{Hints, Hit, assigned};
use super::json::{self, Malformed, Step, Token};
use super::rule::Pattern;
use super::scan::Scanner;
use super::words::{self, Secrecy};

/// How deep JSON inside of strings of JSON is read as such.
const NESTED: u32 = 2;
/// Shorter texts hold nothing that a rule is about.
const SHORTEST: usize = 6;
/// The shortest text that may be base64 of something, and the longest run that percent-encoding is undone in.
const BASE64: usize = 24;
const PERCENT: usize = 2048;
/// How much of each of two texts is looked at where they meet.
const SEAM: usize = 256;
/// Bytes that recognisers may look at for each byte of the value, and in any case.
const WORK_PER_BYTE: u64 = 64;
const WORK: u64 = 1 << 20;

/// A piece of a value that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) rule: u16,
    /// In the bytes of the value.
    pub(super) span: Range<usize>,
    /// What must stand around something that takes its place.
    pub(super) quotes: Quotes,
}

/// Quotes of JSON, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// The piece is a part of text.
    None,
    /// The piece is a number, in JSON that stands that many strings deep.
    Json(u32),
}

/// Why a value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is nested too deeply to be read as every reader would.
    #[error("nested deeper than {} levels", json::DEPTH)]
    Depth,
    /// It would take too much work to scan.
    #[error("too much of it looks like something sensitive")]
    Budget,
    /// A rule found something that the policy does not take.
    #[error("the rule {0} found what the policy refuses")]
    Rule(&'static str),
}

/// Finds what is sensitive in a value.
pub(super) fn examine(scanner: &Scanner, value: &[u8]) -> Result<Vec<Found>, Refusal> {
    let mut walk = Walk { scanner, found: Vec::new(), hits: Vec::new(), work: 0 };
    let origin = Origin { base: 0, outer: None };
    let looks = json::looks_like_json(value) || json::looks_like_a_scalar(value);
    let is_json = looks && walk.json(value, &origin, 0)?;
    if !is_json {
        walk.found.clear();
        walk.plain(value, &origin, 0, Hints::default())?;
    }
    let budget = WORK + WORK_PER_BYTE.saturating_mul(u64::try_from(value.len()).unwrap_or(u64::MAX));
    if walk.work > budget { Err(Refusal::Budget) } else { Ok(walk.found) }
}

/// Finds what begins in one text and ends in the next, of texts that follow each other: for each of the two, its part.
///
/// Looked at are the ends that meet, [`SEAM`] bytes of each, and neither of two that are JSON.
pub(super) fn across(scanner: &Scanner, one: &[u8], two: &[u8]) -> (Vec<Found>, Vec<Found>) {
    if json::looks_like_json(one) || json::looks_like_json(two) {
        return (Vec::new(), Vec::new());
    }
    let start = one.len().saturating_sub(SEAM);
    let seam = one.len() - start;
    let joined = [cut(one, start..one.len()), cut(two, 0..SEAM)].concat();
    let (mut hits, mut work) = (Vec::new(), 0);
    scanner.scan(&joined, Hints::default(), &mut hits, &mut work);
    let part = |rule, span| Found { rule, span, quotes: Quotes::None };
    let across = hits.iter().filter(|hit| hit.span.start < seam && seam < hit.span.end);
    across
        .map(|hit| {
            (part(hit.rule, start + hit.span.start..one.len()), part(hit.rule, 0..hit.span.end - seam))
        })
        .unzip()
}

/// Where a text stands in the value.
struct Origin<'a> {
    base: usize,
    /// What it was decoded from, and where that stands.
    outer: Option<(&'a Decoded, &'a Origin<'a>)>,
}

impl Origin<'_> {
    fn span(&self, span: &Range<usize>) -> Range<usize> {
        match self.outer {
            None => self.base + span.start..self.base + span.end,
            Some((decoded, origin)) => {
                origin.span(&decoded.source(&(self.base + span.start..self.base + span.end)))
            }
        }
    }

    fn within(&self, start: usize) -> Self {
        Self { base: self.base + start, outer: self.outer }
    }
}

/// What the names above a value say of it.
#[derive(Debug, Clone, Copy, Default)]
struct Under {
    secrecy: Option<Secrecy>,
    hints: Hints,
    /// The value is not data but says what data are like.
    schema: bool,
}

struct Walk<'s> {
    scanner: &'s Scanner,
    found: Vec<Found>,
    hits: Vec<Hit>,
    work: u64,
}

/// What ends the reading of JSON.
enum Stop {
    Malformed,
    Refused(Refusal),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Syntax(_) => Self::Malformed,
            Malformed::Depth(_) => Self::Refused(Refusal::Depth),
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Walk<'_> {
    /// Reads a text as JSON; says whether it is.
    fn json(&mut self, text: &[u8], origin: &Origin<'_>, level: u32) -> Result<bool, Refusal> {
        let answers = answers(text);
        let mut above: Vec<Under> = Vec::new();
        let outcome = json::tokenize::<Stop>(text, &mut |token, span, steps| {
            let pad = above.last().copied().unwrap_or_default();
            above.truncate(steps.len());
            let inherited = above.last().copied().unwrap_or_default();
            while above.len() < steps.len() {
                above.push(if above.is_empty() { inherited } else { pad });
            }
            let under = above.last().copied().unwrap_or_default();
            let content = cut(text, span.clone());
            let origin = origin.within(span.start);
            match token {
                Token::Key => {
                    // Most keys are a name, and a name alone is nothing that a rule is about.
                    if !is_name(content) {
                        self.string(content, &origin, level, Under::default())?;
                    }
                    above.push(below(under, content, steps, text));
                }
                Token::Text | Token::Number if answers.iter().any(|answer| answer.contains(&span.start)) => {
                    self.whole(Pattern::Elicitation, content, &origin, quotes(token, level));
                }
                Token::Text => self.string(content, &origin, level, under)?,
                Token::Number => self.number(content, &origin, level, under)?,
                Token::Open | Token::Close => {}
            }
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(true),
            Err(Stop::Malformed) => Ok(false),
            Err(Stop::Refused(refusal)) => Err(refusal),
        }
    }

    fn string(
        &mut self,
        content: &[u8],
        origin: &Origin<'_>,
        level: u32,
        under: Under,
    ) -> Result<(), Refusal> {
        let plain = memchr::memchr(b'\\', content).is_none() && content.is_ascii();
        if plain {
            return self.text(content, content, origin, origin, level, under);
        }
        let decoded = decoded::unescape(content);
        let inner = Origin { base: 0, outer: Some((&decoded, origin)) };
        self.text(content, decoded.text(), origin, &inner, level, under)
    }

    /// A string's text, which was decoded from `content`.
    fn text(
        &mut self,
        content: &[u8],
        text: &[u8],
        whole: &Origin<'_>,
        inner: &Origin<'_>,
        level: u32,
        under: Under,
    ) -> Result<(), Refusal> {
        if under.secrecy.is_some_and(|secrecy| assigned::under_name(text, secrecy)) {
            self.whole(Pattern::SecretName, content, whole, Quotes::None);
            return Ok(());
        }
        if level < NESTED && json::looks_like_json(text) {
            let before = self.found.len();
            if self.json(text, inner, level + 1)? {
                return Ok(());
            }
            self.found.truncate(before);
        }
        self.encoded(text, inner, under.hints);
        self.scan(text, inner, under.hints);
        Ok(())
    }

    fn number(
        &mut self,
        content: &[u8],
        origin: &Origin<'_>,
        level: u32,
        under: Under,
    ) -> Result<(), Refusal> {
        let secret = under.secrecy.is_some_and(|secrecy| secrecy == Secrecy::Password || content.len() >= 6);
        let quotes = Quotes::Json(level);
        if secret {
            self.whole(Pattern::SecretName, content, origin, quotes);
        } else if content.len() >= 7 {
            self.hits.clear();
            self.scanner.scan(content, under.hints, &mut self.hits, &mut self.work);
            if let Some(hit) = self.hits.first() {
                self.found.push(Found { rule: hit.rule, span: origin.span(&(0..content.len())), quotes });
            }
        }
        Ok(())
    }

    /// A whole value that is no JSON.
    fn plain(&mut self, text: &[u8], origin: &Origin<'_>, _level: u32, hints: Hints) -> Result<(), Refusal> {
        if text.is_ascii() {
            self.encoded(text, origin, hints);
            self.scan(text, origin, hints);
        } else {
            let decoded = decoded::folded(text);
            let inner = Origin { base: 0, outer: Some((&decoded, origin)) };
            self.scan(decoded.text(), &inner, hints);
        }
        Ok(())
    }

    fn scan(&mut self, text: &[u8], origin: &Origin<'_>, hints: Hints) {
        if text.len() < SHORTEST || is_name(text) {
            return;
        }
        self.hits.clear();
        self.scanner.scan(text, hints, &mut self.hits, &mut self.work);
        let found = self.hits.iter().map(|hit| Found {
            rule: hit.rule,
            span: origin.span(&hit.span),
            quotes: Quotes::None,
        });
        self.found.extend(found);
        self.percent(text, origin, hints);
    }

    /// What stands in a text that is base64 as a whole: then all of it is the piece.
    fn encoded(&mut self, text: &[u8], origin: &Origin<'_>, hints: Hints) {
        let Some(plain) = base64(text) else { return };
        self.hits.clear();
        self.scanner.scan(&plain, hints, &mut self.hits, &mut self.work);
        let span = origin.span(&(0..text.len()));
        let found =
            self.hits.iter().map(|hit| Found { rule: hit.rule, span: span.clone(), quotes: Quotes::None });
        self.found.extend(found);
    }

    /// What is hidden by percent-encoding.
    fn percent(&mut self, text: &[u8], origin: &Origin<'_>, hints: Hints) {
        let mut past = 0;
        for sign in memchr::memchr_iter(b'%', text) {
            let encoded =
                decoded::hex(at(text, sign + 1)).is_some() && decoded::hex(at(text, sign + 2)).is_some();
            if sign < past || !encoded {
                continue;
            }
            let belongs = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'<' | b'>');
            let before = cut(text, sign.saturating_sub(PERCENT)..sign)
                .iter()
                .rev()
                .take_while(|byte| belongs(byte))
                .count();
            let after = cut(text, sign..sign + PERCENT).iter().take_while(|byte| belongs(byte)).count();
            let (start, end) = ((sign - before).max(past), sign + after);
            past = end;
            let decoded = decoded::percent_decoded(cut(text, start..end));
            let shifted = origin.within(start);
            let inner = Origin { base: 0, outer: Some((&decoded, &shifted)) };
            self.hits.clear();
            self.scanner.scan(decoded.text(), hints, &mut self.hits, &mut self.work);
            let found = self.hits.iter().map(|hit| Found {
                rule: hit.rule,
                span: inner.span(&hit.span),
                quotes: Quotes::None,
            });
            self.found.extend(found);
        }
    }

    fn whole(&mut self, pattern: Pattern, content: &[u8], origin: &Origin<'_>, quotes: Quotes) {
        if let (Some(rule), false) = (self.scanner.rule_of(pattern), content.is_empty()) {
            self.found.push(Found { rule, span: origin.span(&(0..content.len())), quotes });
        }
    }
}

/// Whether a text has letters and underscores alone, and not too many.
fn is_name(text: &[u8]) -> bool {
    text.len() <= 64 && text.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
}

fn quotes(token: Token, level: u32) -> Quotes {
    if token == Token::Number { Quotes::Json(level) } else { Quotes::None }
}

/// What holds for the value under a key.
fn below(under: Under, key: &[u8], steps: &[Step], text: &[u8]) -> Under {
    let decoded;
    let name = match memchr::memchr(b'\\', key) {
        None if key.is_ascii() => key,
        _ => {
            decoded = decoded::unescape(key);
            decoded.text()
        }
    };
    let parent = match steps.last() {
        Some(Step::Key(parent)) => cut(text, parent.clone()),
        _ => b"",
    };
    let schema =
        under.schema || matches!(parent, b"properties" | b"$defs" | b"definitions" | b"patternProperties");
    let named = if schema { None } else { words::secrecy(name) };
    Under { secrecy: under.secrecy.filter(|_| !schema).max(named), hints: words::hints(name), schema }
}

/// The decoded bytes of a text that is base64 as a whole, if they are text again.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let body = match memchr::memmem::find(cut(text, 0..64), b";base64,") {
        Some(comma) => cut(text, comma + 8..text.len()),
        None => text,
    };
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    if body.len() < BASE64 || !cut(body, 0..64).iter().all(known) || !body.iter().all(known) {
        return None;
    }
    let pad = body.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = cut(body, 0..body.len() - pad);
    let plain = data_encoding::BASE64_NOPAD
        .decode(body)
        .or_else(|_| data_encoding::BASE64URL_NOPAD.decode(body))
        .ok()?;
    std::str::from_utf8(&plain)
        .is_ok_and(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()))
        .then_some(plain)
}

/// The objects that hold what a user answered: `content` beside an `action` of `accept` (MCP, elicitation).
fn answers(text: &[u8]) -> Vec<Range<usize>> {
    let mut answers = Vec::new();
    if memchr::memmem::find(text, b"\"accept\"").is_none()
        || memchr::memmem::find(text, b"\"content\"").is_none()
    {
        return answers;
    }
    // By depth: whether the object there says that it was accepted, and where its content stands.
    let mut objects: Vec<(bool, Option<Range<usize>>)> = Vec::new();
    let done = json::tokenize::<Malformed>(text, &mut |token, span, steps| {
        let depth = steps.len();
        let name = match steps.last() {
            Some(Step::Key(key)) => cut(text, key.clone()),
            _ => b"",
        };
        match token {
            Token::Open => {
                objects.truncate(depth);
                objects.resize(depth + 1, (false, None));
                if let (b"content", b'{', Some(parent)) =
                    (name, at(text, span.start), depth.checked_sub(1).and_then(|p| objects.get_mut(p)))
                {
                    parent.1 = Some(span.start..usize::MAX);
                }
            }
            Token::Close => {
                let ended = objects.get(depth).cloned();
                objects.truncate(depth);
                if let Some((true, Some(content))) = ended {
                    answers.push(content);
                }
                let parent = depth.checked_sub(1).and_then(|p| objects.get_mut(p));
                if let (b"content", Some(content)) = (name, parent.and_then(|parent| parent.1.as_mut())) {
                    content.end = content.end.min(span.end);
                }
            }
            Token::Text if name == b"action" && cut(text, span.clone()) == b"accept" => {
                if let Some(parent) = depth.checked_sub(1).and_then(|p| objects.get_mut(p)) {
                    parent.0 = true;
                }
            }
            Token::Key | Token::Text | Token::Number => {}
        }
        Ok(())
    });
    if done.is_err() { Vec::new() } else { answers }
}

#[cfg(test)]
mod tests {
    use super::super::detect::tests_of::{marked, unmarked};
    use super::super::pack;
    use super::*;

    /// What is found in a text without its marks, as it was written there.
    fn found(text: &str) -> Vec<String> {
        let plain = unmarked(text);
        let mut found = examine(&Scanner::new(pack::RULES), plain.as_bytes()).unwrap();
        found.retain(|found| pack::RULES[usize::from(found.rule)].action.cuts());
        found.sort_by_key(|found| (found.span.start, std::cmp::Reverse(found.span.end)));
        let mut end = 0;
        found.retain(|found| {
            let new = found.span.end > end;
            end = end.max(found.span.end);
            new
        });
        found
            .iter()
            .map(|found| String::from_utf8_lossy(&plain.as_bytes()[found.span.clone()]).into_owned())
            .collect()
    }

    #[track_caller]
    fn assert_found(text: &str) {
        assert_eq!(found(text), marked(text), "{text}");
    }

    #[test]
    fn what_stands_under_the_name_of_a_secret_is_one_whatever_its_type() {
        assert_found(r#"{"password":"‹x›","user":"ana"}"#);
        assert_found(r#"{"dbPassword":‹12›,"port":5432}"#);
        assert_found(r#"{"credentials":{"password":["‹a b›",‹1.5e3›,null,true]}}"#);
        assert_found(r#"{"access_token":"‹s0meGenerated›","token_type":"Bearer","expires_in":3600}"#);
        assert_found(r#"{"usage":{"max_tokens":409600,"total_tokens":1234567}}"#);
    }

    #[test]
    fn a_schema_is_no_data() {
        assert_found(r#"{"properties":{"password":{"type":"string","description":"The password"}}}"#);
    }

    #[test]
    fn json_inside_of_a_string_is_read_too() {
        assert_found(r#"{"text":"{\"password\":\"‹hunter22›\",\"n\":\"‹ana@example.org›\"}"}"#);
        assert_found(r#"{"text":"{\"pin\":‹1234›}"}"#);
        assert_found(r#"{"t":"{\"u\":\"{\\\"password\\\":\\\"‹hunter22›\\\"}\"}"}"#);
    }

    #[test]
    fn secrets_are_found_as_keys_of_objects() {
        assert_found(r#"{"‹ana@example.org›":1}"#);
    }

    #[test]
    fn numbers_are_found_as_numbers() {
        assert_found(r#"{"n":‹4111111111111111›}"#);
        assert_found(r#"{"phone":‹5552671›,"count":5552671}"#);
    }

    #[test]
    fn encoded_values_are_found_as_a_whole() {
        assert_found(r#"{"data":"‹eyJhIjoiYW5hQGV4YW1wbGUub3JnIn0=›"}"#);
        assert_found("q=‹ana%40example.org›&r=1");
        assert_found(r#"{"data":"aGVsbG8gd29ybGQsIGhlbGxvIHdvcmxk"}"#);
    }

    #[test]
    fn escapes_and_other_writings_of_digits_hide_nothing() {
        assert_found(r#"{"a":"‹4111\u00201111 1111 1111›"}"#);
        assert_found(r#"{"a":"‹ana\u0040example.org›"}"#);
        assert_found("card ‹４１１１ 1111 1111 1111› ok");
        assert_found("card ‹4111\u{200B}111111111111› ok");
        assert_found("é ‹ana@example.org› ü");
    }

    #[test]
    fn answers_of_users_are_found_wherever_their_action_stands() {
        assert_found(r#"{"result":{"action":"accept","content":{"name":"‹Ana›","age":‹7›,"ok":true}}}"#);
        assert_found(r#"{"result":{"content":{"name":"‹Ana›"},"action":"accept"}}"#);
        assert_found(r#"{"result":{"content":{"name":"Ana"},"action":"decline"}}"#);
        assert_found(r#"{"action":"accept","x":{"content":{"name":"Ana"}}}"#);
    }

    #[test]
    fn what_is_no_json_is_text_and_what_is_too_deep_is_refused() {
        assert_found(r#"{"password": "‹hunter22›", trailing}"#);
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert_eq!(examine(&Scanner::new(pack::RULES), deep.as_bytes()), Err(Refusal::Depth));
    }

    #[test]
    fn bytes_that_are_no_text_are_passed_over() {
        let mut value = b"\xff\xfe ana@example.org ".to_vec();
        value.push(0xC3);
        let found = examine(&Scanner::new(pack::RULES), &value).unwrap();
        assert!(found.iter().any(|found| value[found.span.clone()].ends_with(b"ana@example.org")));
    }
}
