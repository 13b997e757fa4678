//! One pass over a text: an automaton finds all words and prefixes that lead somewhere, a table of bytes finds digits and signs,
//! and the recognisers look around those places.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::bytes::{at, before, is_word};
use super::detect::shape::Shape;
use super::detect::token::{self, TokenRule};
use super::detect::{Hint, Hints, Hit, Sink, assigned, network, numbers};
use super::rule::{Detector, PATTERNS, Pattern, Rule};

/// Where a word or a prefix leads.
#[derive(Debug, Clone, Copy)]
enum Lead {
    Token(usize),
    Jwt,
    Pem,
    Url,
    Domain,
    Name,
    Scheme(Pattern),
    Option,
    Arguments,
    Hint(Hint),
}

/// Words that are looked for besides the prefixes of tokens, in lower case.
const LEADS: &[(&str, Lead)] = &[
    ("eyj", Lead::Jwt),
    ("-----begin ", Lead::Pem),
    ("://", Lead::Url),
    ("www.", Lead::Domain),
    (".com", Lead::Domain),
    (".org", Lead::Domain),
    (".net", Lead::Domain),
    (".edu", Lead::Domain),
    (".gov", Lead::Domain),
    (".info", Lead::Domain),
    (".co.", Lead::Domain),
    ("pass", Lead::Name),
    ("_pat", Lead::Name),
    ("pwd", Lead::Name),
    ("secret", Lead::Name),
    ("token", Lead::Name),
    ("key", Lead::Name),
    ("authori", Lead::Name),
    ("credential", Lead::Name),
    ("cookie", Lead::Name),
    ("login", Lead::Name),
    ("cvv", Lead::Name),
    ("bearer", Lead::Scheme(Pattern::Bearer)),
    ("basic", Lead::Scheme(Pattern::Basic)),
    (" -p ", Lead::Option),
    (" -u ", Lead::Option),
    ("credential(", Lead::Arguments),
    ("directoryentry(", Lead::Arguments),
    ("phone", Lead::Hint(Hint::Phone)),
    ("mobile", Lead::Hint(Hint::Phone)),
    ("cell", Lead::Hint(Hint::Phone)),
    ("fax", Lead::Hint(Hint::Phone)),
    ("tel", Lead::Hint(Hint::Phone)),
    ("call", Lead::Hint(Hint::Phone)),
    ("text me", Lead::Hint(Hint::Phone)),
    ("sms", Lead::Hint(Hint::Phone)),
    ("dial", Lead::Hint(Hint::Phone)),
    ("reach", Lead::Hint(Hint::Phone)),
    ("contact", Lead::Hint(Hint::Phone)),
    ("answer", Lead::Hint(Hint::Phone)),
    ("message", Lead::Hint(Hint::Phone)),
    ("whatsapp", Lead::Hint(Hint::Phone)),
    ("ssn", Lead::Hint(Hint::Ssn)),
    ("social security", Lead::Hint(Hint::Ssn)),
    ("card", Lead::Hint(Hint::Card)),
    ("version", Lead::Hint(Hint::Version)),
    ("release", Lead::Hint(Hint::Version)),
    ("routing", Lead::Hint(Hint::Routing)),
    ("aba", Lead::Hint(Hint::Routing)),
    ("cpf", Lead::Hint(Hint::Cpf)),
    ("nhs", Lead::Hint(Hint::Nhs)),
    ("aadhaar", Lead::Hint(Hint::Aadhaar)),
    ("aadhar", Lead::Hint(Hint::Aadhaar)),
];

/// Bytes at which a recogniser looks around.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses what is out of bounds")]
const STOPS: [bool; 256] = {
    let mut stops = [false; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        stops[digit as usize] = true;
        digit += 1;
    }
    stops[b'@' as usize] = true;
    stops[b':' as usize] = true;
    stops[b'-' as usize] = true;
    stops
};

#[inline]
fn stops(byte: u8) -> bool {
    STOPS.get(usize::from(byte)).copied().unwrap_or(false)
}

/// A compiled set of rules.
#[derive(Debug)]
pub(super) struct Scanner {
    automaton: AhoCorasick,
    /// By the automaton's patterns.
    leads: Vec<Vec<Lead>>,
    tokens: Vec<TokenRule>,
    patterns: [Option<u16>; PATTERNS],
}

impl Scanner {
    /// Compiles rules; what they find is named by their places in the slice.
    ///
    /// # Panics
    /// Never for the built-in pack, which a test compiles.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut patterns = [None; PATTERNS];
        let mut tokens = Vec::new();
        let mut words: Vec<(String, Lead)> =
            LEADS.iter().map(|(word, lead)| ((*word).to_owned(), *lead)).collect();
        for (rule, place) in rules.iter().zip(0_u16..) {
            match rule.detector {
                Detector::Pattern(pattern) => {
                    if let Some(slot) = patterns.get_mut(pattern as usize) {
                        *slot = Some(place);
                    }
                }
                Detector::Token(prefixes, shape) => {
                    let Some(tail) = Shape::new(shape) else { continue };
                    for prefix in prefixes {
                        words.push((prefix.to_ascii_lowercase(), Lead::Token(tokens.len())));
                        tokens.push(TokenRule { prefix: prefix.as_bytes(), tail: tail.clone(), rule: place });
                    }
                }
            }
        }
        words.sort_by(|one, two| one.0.cmp(&two.0));
        let mut leads: Vec<Vec<Lead>> = Vec::new();
        let mut distinct: Vec<&str> = Vec::new();
        for (word, lead) in &words {
            match leads.last_mut() {
                Some(same) if distinct.last() == Some(&word.as_str()) => same.push(*lead),
                _ => {
                    distinct.push(word);
                    leads.push(vec![*lead]);
                }
            }
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&distinct)
            .unwrap_or_else(|_| unreachable!("a few hundred short words make an automaton"));
        Self { automaton, leads, tokens, patterns }
    }

    /// The rule of a pattern.
    pub(super) fn rule_of(&self, pattern: Pattern) -> Option<u16> {
        self.patterns.get(pattern as usize).copied().flatten()
    }

    /// Adds what is found in a text, in no order; `work` counts the bytes that were looked at besides the pass itself.
    pub(super) fn scan(&self, text: &[u8], under: Hints, found: &mut Vec<Hit>, work: &mut u64) {
        let mut pass = Pass {
            scanner: self,
            text,
            sink: Sink::new(&self.patterns, under, found, work),
            past: Past::default(),
        };
        let mut place = 0;
        for lead in self.automaton.find_overlapping_iter(text) {
            place = pass.walk(place, lead.end());
            let leads = self.leads.get(lead.pattern().as_usize()).map_or(&[][..], Vec::as_slice);
            for one in leads {
                pass.follow(*one, lead.start(), lead.end());
            }
        }
        pass.walk(place, text.len());
    }
}

/// How far recognisers went, so that none begins again inside of what was seen.
#[derive(Debug, Default)]
struct Past {
    name: usize,
    /// The end of the last value that was looked at, and how many names within it were.
    value: (usize, u8),
    jwt: usize,
    pem: usize,
    url: usize,
}

/// How many names are looked at within what one of them has for its value.
const NAMES_IN_VALUE: u8 = 4;

impl Past {
    /// Takes over how far a name and its value went. A value that holds name after name is passed over in the end, lest each of
    /// them be read up to the same end again.
    fn name(&mut self, seen: &assigned::Seen) {
        let tries = if seen.name_end < self.value.0 { self.value.1 + 1 } else { 0 };
        self.value = (self.value.0.max(seen.value_end), tries);
        self.name = if seen.found || tries >= NAMES_IN_VALUE { self.value.0 } else { seen.name_end };
    }
}

struct Pass<'s, 't> {
    scanner: &'s Scanner,
    text: &'t [u8],
    sink: Sink<'t>,
    past: Past,
}

impl Pass<'_, '_> {
    /// Looks at the digits and signs from `place` up to `end`; returns how far that came.
    fn walk(&mut self, mut place: usize, end: usize) -> usize {
        let text = self.text;
        while place < end {
            let rest = text.get(place..end).unwrap_or(&[]);
            let Some(next) = rest.iter().position(|byte| stops(*byte)) else { return end };
            place = self.stop(place + next);
        }
        place
    }

    fn stop(&mut self, place: usize) -> usize {
        let text = self.text;
        match at(text, place) {
            b'@' => network::email(text, place, &mut self.sink).max(place + 1),
            b':' => network::colon(text, place, &mut self.sink).max(place + 1),
            b'-' => {
                if at(text, place + 3) == b'-' && at(text, place + 6) == b'-' && place >= 2 {
                    network::dashed_mac(text, place - 2, &mut self.sink);
                }
                place + 1
            }
            _ if is_word(before(text, place)) && !self.may_be_iban(place) => {
                place
                    + text.get(place..).unwrap_or(&[]).iter().take_while(|byte| byte.is_ascii_digit()).count()
            }
            _ => {
                if at(text, place + 2) == b'-' && at(text, place + 5) == b'-' {
                    network::dashed_mac(text, place, &mut self.sink);
                }
                numbers::cluster(text, place, &mut self.sink).max(place + 1)
            }
        }
    }

    /// Two letters and nothing else stand before the digits.
    fn may_be_iban(&self, place: usize) -> bool {
        let letter = |back: usize| {
            place.checked_sub(back).is_some_and(|at_place| at(self.text, at_place).is_ascii_alphabetic())
        };
        letter(1)
            && letter(2)
            && !place.checked_sub(3).is_some_and(|at_place| is_word(at(self.text, at_place)))
    }

    fn follow(&mut self, lead: Lead, start: usize, end: usize) {
        let (text, sink, past) = (self.text, &mut self.sink, &mut self.past);
        match lead {
            Lead::Token(token) => {
                if let Some(rule) = self.scanner.tokens.get(token) {
                    rule.examine(text, end, sink);
                }
            }
            Lead::Jwt if start >= past.jwt => past.jwt = token::jwt(text, start, sink),
            Lead::Pem if start >= past.pem => past.pem = token::pem(text, start, end, sink),
            Lead::Url if start >= past.url => past.url = network::url(text, end, sink),
            Lead::Domain if start >= past.url => network::domain(text, start, sink),
            Lead::Name if start >= past.name => past.name(&assigned::assigned(text, start, end, sink)),
            Lead::Scheme(pattern) if !is_word(before(text, start)) => {
                assigned::scheme(text, end, pattern, sink)
            }
            Lead::Option => assigned::option(text, start + 1, sink),
            Lead::Arguments => assigned::arguments(text, end - 1, sink),
            Lead::Hint(hint) if !before(text, start).is_ascii_alphabetic() => sink.note(hint, end),
            Lead::Jwt
            | Lead::Pem
            | Lead::Url
            | Lead::Domain
            | Lead::Name
            | Lead::Scheme(_)
            | Lead::Hint(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::detect::tests_of::found_where;
    use super::super::pack;
    use super::*;

    #[test]
    fn a_long_line_of_anything_is_linear_work() {
        let scanner = Scanner::new(pack::RULES);
        for unit in [
            "password",
            "key=",
            "a@",
            "1 2 3 4 ",
            "4111 1111 1111 111",
            "://",
            "eyJ",
            "-----BEGIN ",
            "token: ",
            "0:",
            "www.",
            "-p -u ",
        ] {
            let work = |times: usize| {
                let (mut hits, mut work) = (Vec::new(), 0);
                scanner.scan(unit.repeat(times).as_bytes(), Hints::default(), &mut hits, &mut work);
                work
            };
            let (one, two) = (work(4_000), work(8_000));
            assert!(two <= one * 5 / 2 + 20_000, "{unit}: {one} then {two}");
        }
    }

    #[test]
    fn several_things_in_a_line_are_all_found() {
        let text = "‹ana@example.org› called ‹415-555-2671› from ‹203.0.113.9›";
        let found = found_where(text, |rule| matches!(rule.id, "email" | "phone" | "ipv4"));
        assert_eq!(found, ["ana@example.org", "415-555-2671", "203.0.113.9"]);
    }
}
