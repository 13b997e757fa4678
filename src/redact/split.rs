//! A value taken apart: a body that shows placeholders, and an overlay that holds what stood there.
//!
//! The overlay is a list of places in the body with the bytes that belong there. Putting them back is copying: nothing is parsed,
//! and what comes out is the value byte for byte. Pieces that a rule drops, masks or generalises are in neither part.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::bytes::cut;
use super::document::{Found, Quotes};
use super::rule::{Action, Rule};

/// Characters that begin and end a placeholder.
const OPEN: &str = "⟦";
const CLOSE: &str = "⟧";
/// How many characters a mask shows, and how many must stay hidden for that.
const SHOWN: usize = 4;
const HIDDEN: usize = 8;

/// A value taken apart.
#[derive(Debug)]
pub struct Redacted<'v> {
    /// The value with placeholders: valid JSON of the same shape if it was JSON.
    pub body: Cow<'v, [u8]>,
    /// What the placeholders stand for, as far as it is kept.
    pub overlay: Overlay,
    /// What was found and done, by rule.
    pub report: Vec<Reported>,
}

/// What one rule found in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    /// The rule.
    pub rule: &'static str,
    /// What happened to it.
    pub action: Action,
    /// How many pieces: what several rules found in one place counts once, for the one that names it.
    pub count: u32,
}

/// Pieces of a value, and where they belong in its body. Wiped when it is dropped; `Debug` shows no piece.
#[derive(Default, Serialize, Deserialize)]
pub struct Overlay(Vec<Piece>);

/// One piece.
#[derive(Serialize, Deserialize)]
struct Piece {
    /// Bytes of the body between the piece before and this one.
    gap: u32,
    /// Bytes of the body that stand for it.
    length: u32,
    original: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlay({} pieces)", self.0.len())
    }
}

/// The overlay does not belong to the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the overlay does not fit the body")]
pub struct Misfit;

impl Overlay {
    /// How many pieces it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value: the body with all pieces put back.
    ///
    /// # Errors
    /// [`Misfit`] when a piece belongs beyond the end of the body.
    pub fn splice(&self, body: &[u8]) -> Result<Vec<u8>, Misfit> {
        let held: usize = self.0.iter().map(|piece| piece.original.len()).sum();
        let mut value = Vec::with_capacity(body.len() + held);
        let mut rest = body;
        for piece in &self.0 {
            let (between, from) = rest.split_at_checked(piece.gap as usize).ok_or(Misfit)?;
            let (_, after) = from.split_at_checked(piece.length as usize).ok_or(Misfit)?;
            value.extend_from_slice(between);
            value.extend_from_slice(&piece.original);
            rest = after;
        }
        value.extend_from_slice(rest);
        Ok(value)
    }

    /// The piece that a placeholder of the body stands for; none if it stands for none that is kept.
    ///
    /// # Errors
    /// [`Misfit`] when a piece belongs beyond the end of the body.
    pub fn reveal(&self, body: &[u8], placeholder: &str) -> Result<Option<&[u8]>, Misfit> {
        let mut rest = body;
        for piece in &self.0 {
            let (_, from) = rest.split_at_checked(piece.gap as usize).ok_or(Misfit)?;
            let (shown, after) = from.split_at_checked(piece.length as usize).ok_or(Misfit)?;
            let shown = trimmed(shown);
            if shown == placeholder.as_bytes() {
                return Ok(Some(&piece.original));
            }
            rest = after;
        }
        Ok(None)
    }
}

/// A placeholder without the quotes of JSON around it.
fn trimmed(shown: &[u8]) -> &[u8] {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\\');
    let start = shown.iter().take_while(|byte| is_quote(byte)).count();
    let end = shown.len() - shown.iter().rev().take_while(|byte| is_quote(byte)).count();
    cut(shown, start..end.max(start))
}

/// What a piece is replaced by under [`Action::Pseudonym`]: the same for the same piece of one tenant.
pub type Pseudonym<'a> = &'a dyn Fn(&[u8]) -> String;

/// Takes a value apart. `found` may overlap: then everything that any rule found goes as one piece, in the name of the rule with
/// the highest priority, and of those the one that found most.
pub(super) fn split<'v>(
    value: &'v [u8],
    found: &[Found],
    rules: &[Rule],
    actions: &[Option<Action>],
    pseudonym: Pseudonym<'_>,
) -> Redacted<'v> {
    let named = |found: &Found| {
        let rule = rules.get(usize::from(found.rule))?;
        let action = actions.get(usize::from(found.rule)).copied().flatten()?;
        Some(Named { rule, action, span: found.span.clone(), whole: found.span.len(), quotes: found.quotes })
    };
    let (cutting, flagged): (Vec<_>, Vec<_>) =
        found.iter().filter_map(named).partition(|named| named.action.cuts());
    let mut counts: BTreeMap<&'static str, (Action, u32)> = BTreeMap::new();
    for named in distinct(flagged) {
        counts.entry(named.rule.id).or_insert((named.action, 0)).1 += 1;
    }
    let cutting = united(cutting);
    if cutting.is_empty() {
        return Redacted { body: Cow::Borrowed(value), overlay: Overlay::default(), report: report(counts) };
    }
    let mut writer = Writer {
        value,
        body: Vec::with_capacity(value.len() + 64),
        past: 0,
        gap: 0,
        overlay: Overlay::default(),
    };
    for named in cutting {
        counts.entry(named.rule.id).or_insert((named.action, 0)).1 += 1;
        writer.replace(&named, pseudonym);
    }
    let Writer { mut body, overlay, past, .. } = writer;
    body.extend_from_slice(cut(value, past..value.len()));
    Redacted { body: Cow::Owned(body), overlay, report: report(counts) }
}

fn report(counts: BTreeMap<&'static str, (Action, u32)>) -> Vec<Reported> {
    counts.into_iter().map(|(rule, (action, count))| Reported { rule, action, count }).collect()
}

/// A piece and what is to happen to it.
struct Named<'r> {
    rule: &'r Rule,
    action: Action,
    span: Range<usize>,
    /// How much the rule found that names it.
    whole: usize,
    quotes: Quotes,
}

/// Without what the same rule found in the same place twice.
fn distinct(mut pieces: Vec<Named<'_>>) -> Vec<Named<'_>> {
    pieces.sort_by_key(|named| (named.rule.id, named.span.start, named.span.end));
    pieces.dedup_by(|one, two| one.rule.id == two.rule.id && one.span == two.span);
    pieces
}

/// Pieces that do not overlap, in order.
fn united(mut pieces: Vec<Named<'_>>) -> Vec<Named<'_>> {
    pieces.sort_by_key(|named| (named.span.start, std::cmp::Reverse(named.span.end)));
    let mut united: Vec<Named<'_>> = Vec::with_capacity(pieces.len());
    for next in pieces {
        match united.last_mut() {
            Some(last) if next.span.start < last.span.end => join(last, &next),
            _ => united.push(next),
        }
    }
    united
}

fn join<'r>(last: &mut Named<'r>, next: &Named<'r>) {
    // Pieces of one token of JSON overlap only within it, so the longer one knows what stands around both.
    if next.span.end > last.span.end {
        last.span.end = next.span.end;
        last.quotes = if next.span.len() > last.span.len() { next.quotes } else { last.quotes };
    }
    if (next.rule.priority, next.whole) > (last.rule.priority, last.whole) {
        (last.rule, last.action, last.whole) = (next.rule, next.action, next.whole);
    }
}

struct Writer<'v> {
    value: &'v [u8],
    body: Vec<u8>,
    /// How much of the value was taken over or replaced.
    past: usize,
    /// How much of the body there is since the last piece that is kept.
    gap: usize,
    overlay: Overlay,
}

impl Writer<'_> {
    fn replace(&mut self, named: &Named<'_>, pseudonym: Pseudonym<'_>) {
        let original = cut(self.value, named.span.clone());
        let between = cut(self.value, self.past..named.span.start);
        self.body.extend_from_slice(between);
        self.past = named.span.end;
        let start = self.body.len();
        let number = self.overlay.len() + 1;
        let kind = named.rule.kind;
        let shown = match named.action {
            Action::Pseudonym => format!("{OPEN}{kind}:{}{CLOSE}", pseudonym(original)),
            Action::Mask => format!("{OPEN}{kind}:{}{CLOSE}", mask(original)),
            Action::Generalize => format!("{OPEN}{kind}{}{CLOSE}", general(kind, original)),
            Action::Drop => format!("{OPEN}{kind}{CLOSE}"),
            Action::Protect | Action::Reject | Action::Flag => format!("{OPEN}{kind}:{number}{CLOSE}"),
        };
        quoted(&mut self.body, named.quotes, &shown);
        if named.action.keeps() {
            let length = self.body.len() - start;
            let piece = Piece {
                gap: bounded(start - self.gap),
                length: bounded(length),
                original: Zeroizing::new(original.to_vec()),
            };
            self.overlay.0.push(piece);
            self.gap = self.body.len();
        }
    }
}

/// Values are far shorter than that.
fn bounded(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn quoted(body: &mut Vec<u8>, quotes: Quotes, shown: &str) {
    let quote = match quotes {
        Quotes::None => Vec::new(),
        Quotes::Json(level) => {
            let mut quote = vec![b'\\'; (1_usize << level.min(8)) - 1];
            quote.push(b'"');
            quote
        }
    };
    body.extend_from_slice(&quote);
    body.extend_from_slice(shown.as_bytes());
    body.extend_from_slice(&quote);
}

/// Stars, and the last letters and digits where enough others stay hidden.
fn mask(original: &[u8]) -> String {
    let plain: Vec<u8> = original.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    let shown =
        if plain.len() >= SHOWN + HIDDEN { plain.get(plain.len() - SHOWN..).unwrap_or(&[]) } else { &[] };
    let mut mask = "****".to_owned();
    mask.extend(shown.iter().map(|byte| char::from(*byte)));
    mask
}

/// What is coarse of a piece: a network, a domain; nothing of other kinds.
fn general(kind: &str, original: &[u8]) -> String {
    let text = std::str::from_utf8(original).unwrap_or("");
    match kind {
        "ipv4" => text.parse::<std::net::Ipv4Addr>().map_or_else(
            |_| String::new(),
            |address| {
                let [a, b, c, _] = address.octets();
                format!(":{a}.{b}.{c}.0/24")
            },
        ),
        "email" => {
            let domain = text.rsplit('@').next().unwrap_or("");
            let named =
                domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
            if named && domain.len() < text.len() { format!(":@{domain}") } else { String::new() }
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Redactor;
    use super::*;

    fn redacted(redactor: &Redactor, value: &str) -> (String, Overlay) {
        let redacted = redactor.redact(value.as_bytes(), &|_| "p1:abcd".to_owned()).unwrap();
        (String::from_utf8(redacted.body.into_owned()).unwrap(), redacted.overlay)
    }

    #[test]
    fn a_body_shows_placeholders_and_the_overlay_gives_the_value_back() {
        let value = r#"{"to":"ana@example.org","n":4111111111111111,"text":"{\"pin\":12345}"}"#;
        let (body, overlay) = redacted(&Redactor::standard(), value);
        assert_eq!(body, r#"{"to":"⟦email:1⟧","n":"⟦card:2⟧","text":"{\"pin\":\"⟦secret:3⟧\"}"}"#);
        assert_eq!(overlay.splice(body.as_bytes()).unwrap(), value.as_bytes());
        assert_eq!(overlay.reveal(body.as_bytes(), "⟦card:2⟧"), Ok(Some(&b"4111111111111111"[..])));
        assert_eq!(overlay.reveal(body.as_bytes(), "⟦card:9⟧"), Ok(None));
        assert_eq!(overlay.splice(b"short"), Err(Misfit));
        assert_eq!(format!("{overlay:?}"), "Overlay(3 pieces)");
    }

    #[test]
    fn what_overlaps_goes_as_one_piece_under_the_stronger_name() {
        let value = "https://ana:hunter22@example.org/";
        let (body, _) = redacted(&Redactor::standard(), value);
        assert_eq!(body, "https://ana:⟦password:1⟧/");
    }

    #[test]
    fn every_action_does_what_it_says() {
        let value = "from 203.0.113.77 or ana@example.org";
        let shown = |action| {
            let mut redactor = Redactor::standard();
            redactor.set_actions(|_| Some(action));
            let (body, overlay) = redacted(&redactor, value);
            let whole = overlay.splice(body.as_bytes()).unwrap() == value.as_bytes();
            (body, whole)
        };
        let one = |text: &str, whole| (text.to_owned(), whole);
        assert_eq!(shown(Action::Protect), one("from ⟦ipv4:1⟧ or ⟦email:2⟧", true));
        assert_eq!(shown(Action::Pseudonym), one("from ⟦ipv4:p1:abcd⟧ or ⟦email:p1:abcd⟧", true));
        assert_eq!(shown(Action::Drop), one("from ⟦ipv4⟧ or ⟦email⟧", false));
        assert_eq!(shown(Action::Mask), one("from ⟦ipv4:****⟧ or ⟦email:****eorg⟧", false));
        assert_eq!(
            shown(Action::Generalize),
            one("from ⟦ipv4:203.0.113.0/24⟧ or ⟦email:@example.org⟧", false)
        );
        assert_eq!(shown(Action::Flag), one(value, true));
    }

    #[test]
    fn the_report_counts_pieces_by_rule() {
        let value = "ana@example.org, bob@example.org, https://example.com/";
        let redactor = Redactor::standard();
        let report = redactor.redact(value.as_bytes(), &|_| String::new()).unwrap().report;
        let lines: Vec<_> = report.iter().map(|line| (line.rule, line.action, line.count)).collect();
        assert!(lines.contains(&("email", Action::Protect, 2)), "{lines:?}");
        assert!(lines.contains(&("url", Action::Flag, 1)), "{lines:?}");
    }
}
