//! Numbers that people write in groups: cards, bank accounts, social security and telephone numbers, dates of no interest.
//!
//! A *cluster* is digits with single separators between them. It is read once, into groups; each format then looks at groups
//! that follow each other. What has a check digit stands on its own; a format that could be anything needs a word near by.

use std::ops::Range;

use super::validate;
use super::{Hint, Pattern, Sink};
use crate::redact::bytes::{at, before, cut, is_alphanumeric, is_word};

/// Most groups of a cluster that are looked at together; a longer one continues in its middle.
const GROUPS: usize = 32;
/// How many groups the longest number has; so many are looked at again behind a cut.
const OVERLAP: usize = 8;
/// The most digits of a group; longer runs are no number of interest.
const GROUP_DIGITS: usize = 19;

/// Digits that stand together.
#[derive(Debug, Clone, Copy)]
struct Group {
    start: usize,
    end: usize,
    /// What stands between it and the group before: space, `-`, `.`, `/`, brackets as `)`, `x` for an extension.
    glue: u8,
}

impl Group {
    const fn length(&self) -> usize {
        self.end - self.start
    }
}

/// The groups of a cluster, without an allocation.
struct Groups {
    groups: [Group; GROUPS],
    length: usize,
    digits: usize,
}

impl Groups {
    fn push(&mut self, group: Group) {
        if let Some(slot) = self.groups.get_mut(self.length) {
            *slot = group;
            self.length += 1;
            self.digits += group.length();
        }
    }

    fn as_slice(&self) -> &[Group] {
        self.groups.get(..self.length).unwrap_or(&[])
    }
}

/// Reads the cluster that begins at `start` and reports what it holds; returns where to go on.
pub(in crate::redact) fn cluster(text: &[u8], start: usize, sink: &mut Sink<'_>) -> usize {
    let (groups, end) = read(text, start);
    sink.work(end - start);
    let after_letter = before(text, start).is_ascii_alphabetic();
    if groups.digits < 7 && groups.length < 4 && !after_letter {
        return end;
    }
    let (digits, groups) = (groups.digits, groups.as_slice());
    // What has a form of its own goes first: a telephone number could be made of the beginning of nearly everything.
    let (mut free, mut from) = (0, 0);
    while from < groups.len() {
        let taken = take(text, groups, from, sink);
        if taken > 0 {
            phones(text, groups.get(free..from).unwrap_or(&[]), sink);
            free = from + taken;
        }
        from += taken.max(1);
    }
    phones(text, groups.get(free..).unwrap_or(&[]), sink);
    // A cluster that was cut off goes on a little before the cut, lest what lies across the cut be missed.
    match groups.get(GROUPS - OVERLAP) {
        Some(again) if groups.len() == GROUPS && digits > GROUPS => again.start,
        _ => end,
    }
}

/// The groups from `start` on, and where the reading ended.
fn read(text: &[u8], start: usize) -> (Groups, usize) {
    let none = Group { start: 0, end: 0, glue: 0 };
    let mut groups = Groups { groups: [none; GROUPS], length: 0, digits: 0 };
    let (mut place, mut glue) = (start, 0);
    loop {
        let end = place + cut(text, place..text.len()).iter().take_while(|b| b.is_ascii_digit()).count();
        groups.push(Group { start: place, end, glue });
        if end - place > GROUP_DIGITS || groups.length >= GROUPS {
            return (groups, end);
        }
        match next_group(text, end) {
            Some((next, by)) => (place, glue) = (next, by),
            None => return (groups, end),
        }
    }
}

/// Where the next group begins, and what stands between.
fn next_group(text: &[u8], end: usize) -> Option<(usize, u8)> {
    let (first, second, third) = (at(text, end), at(text, end + 1), at(text, end + 2));
    let digit = |byte: u8| byte.is_ascii_digit();
    match first {
        b' ' | b'-' | b'.' | b'/' | b')' if digit(second) => Some((end + 1, first)),
        b' ' | b'-' if second == b'(' && digit(third) => Some((end + 2, b'(')),
        b')' if matches!(second, b' ' | b'-' | b'.') && digit(third) => Some((end + 2, b')')),
        b'(' if digit(second) => Some((end + 1, b'(')),
        b'x' | b'X' if digit(second) => Some((end + 1, b'x')),
        b' ' if matches!(second, b'x' | b'X') && digit(third) => Some((end + 2, b'x')),
        b' ' if cut(text, end + 1..end + 5).eq_ignore_ascii_case(b"ext.") => extension(text, end + 5),
        b' ' if cut(text, end + 1..end + 4).eq_ignore_ascii_case(b"ext") => extension(text, end + 4),
        _ => None,
    }
}

fn extension(text: &[u8], after: usize) -> Option<(usize, u8)> {
    let place = after + usize::from(at(text, after) == b' ');
    at(text, place).is_ascii_digit().then_some((place, b'x'))
}

/// Looks at the first groups; says how many it took, none if they are something else.
type Reading = fn(&[u8], &[Group], &mut Sink<'_>) -> usize;

/// Reports the best reading of the groups from `from` on; returns how many it took.
fn take(text: &[u8], groups: &[Group], from: usize, sink: &mut Sink<'_>) -> usize {
    let rest = groups.get(from..).unwrap_or(&[]);
    let readings: [Reading; 5] = [iban, card, ipv4, identity, date];
    readings.iter().map(|reading| reading(text, rest, sink)).find(|taken| *taken > 0).unwrap_or(0)
}

/// Reports the telephone numbers among groups that are nothing else.
fn phones(text: &[u8], groups: &[Group], sink: &mut Sink<'_>) {
    let mut from = 0;
    while from < groups.len() {
        from += phone(text, groups.get(from..).unwrap_or(&[]), sink).max(1);
    }
}

/// The span of the first `count` groups.
fn span(groups: &[Group], count: usize) -> Range<usize> {
    let start = groups.first().map_or(0, |group| group.start);
    start..count.checked_sub(1).and_then(|last| groups.get(last)).map_or(start, |group| group.end)
}

/// Whether a value may begin and end there: no letter or digit goes on.
fn stands_alone(text: &[u8], span: &Range<usize>) -> bool {
    !is_word(before(text, span.start)) && !is_word(at(text, span.end))
}

/// The values of the digits of groups, as far as a number of interest has them.
struct Digits {
    digits: [u8; 2 * GROUP_DIGITS],
    length: usize,
}

impl Digits {
    fn push(&mut self, text: &[u8], group: &Group) {
        for byte in cut(text, group.start..group.end) {
            if let Some(slot) = self.digits.get_mut(self.length) {
                *slot = byte.wrapping_sub(b'0');
                self.length += 1;
            }
        }
    }
}

impl std::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.digits.get(..self.length).unwrap_or(&[])
    }
}

fn digits(text: &[u8], groups: &[Group]) -> Digits {
    let mut digits = Digits { digits: [0; 2 * GROUP_DIGITS], length: 0 };
    groups.iter().for_each(|group| digits.push(text, group));
    digits
}

/// How long groups are, in the room that is given.
fn lengths<'r>(groups: &[Group], room: &'r mut [usize; GROUPS]) -> &'r [usize] {
    let count = groups.len().min(GROUPS);
    for (slot, group) in room.iter_mut().zip(groups) {
        *slot = group.length();
    }
    room.get(..count).unwrap_or(&[])
}

fn card(text: &[u8], groups: &[Group], sink: &mut Sink<'_>) -> usize {
    let mut total = 0;
    let glue = groups.get(1).map_or(0, |group| group.glue);
    for (count, group) in groups.iter().enumerate().take(6) {
        total += group.length();
        let joined = count == 0 || (group.glue == glue && matches!(glue, b' ' | b'-' | b'.'));
        let shaped = count == 0 || (3..=6).contains(&groups.first().map_or(0, Group::length));
        if !joined || !shaped || total > GROUP_DIGITS || (count > 0 && group.length() < 2) {
            return 0;
        }
        let taken = groups.get(..=count).unwrap_or(&[]);
        let whole = span(groups, count + 1);
        if total >= 12
            && card_groups(taken)
            && stands_alone(text, &whole)
            && validate::card(&digits(text, taken))
        {
            // Twelve digits and a check digit are met by chance too often to go without a word.
            let chance = total < 13 && count > 0 && !sink.hinted(Hint::Card, whole.start);
            if !chance {
                sink.found(Pattern::Card, whole);
                return count + 1;
            }
        }
    }
    0
}

/// Groups as cards are written: together, in fours, or as American Express and Diners print them.
fn card_groups(groups: &[Group]) -> bool {
    let mut room = [0; GROUPS];
    match lengths(groups, &mut room) {
        [_] => true,
        [4, 6, 5] | [4, 6, 4] => true,
        [head @ .., last] => head.iter().all(|length| *length == 4) && (1..=4).contains(last),
        [] => false,
    }
}

fn ipv4(text: &[u8], groups: &[Group], sink: &mut Sink<'_>) -> usize {
    let Some(four) = groups.get(..4) else { return 0 };
    let dotted = four.iter().skip(1).all(|group| group.glue == b'.');
    let octet = |group: &Group| {
        let digits = cut(text, group.start..group.end);
        let value = digits.iter().fold(0_u32, |n, d| n.saturating_mul(10) + u32::from(d - b'0'));
        (digits.len() <= 3 && value < 256 && (digits.len() == 1 || digits.first() != Some(&b'0')))
            .then_some(value)
    };
    if !dotted || groups.get(4).is_some_and(|group| group.glue == b'.' || group.glue == b'-') {
        return 0;
    }
    let mut octets = [0; 4];
    for (slot, group) in octets.iter_mut().zip(four) {
        let Some(value) = octet(group) else { return 0 };
        *slot = value;
    }
    let whole = span(groups, 4);
    if before(text, whole.start) == b'.' {
        return 0;
    }
    let version =
        matches!(before(text, whole.start), b'v' | b'V' | b'-') || sink.hinted(Hint::Version, whole.start);
    let nobody = matches!(octets, [0 | 127 | 255, ..] | [.., 0] | [8, 8, 8, 8] | [1, 1, 1, 1]);
    if !version && !nobody && stands_alone(text, &whole) {
        sink.found(Pattern::Ipv4, whole);
    }
    4
}

/// Social security, taxpayer, NHS, Aadhaar, CPF and routing numbers.
fn identity(text: &[u8], groups: &[Group], sink: &mut Sink<'_>) -> usize {
    let number = |group: &Group| {
        cut(text, group.start..group.end)
            .iter()
            .fold(0_u32, |n, d| n.wrapping_mul(10).wrapping_add(u32::from(d.wrapping_sub(b'0'))))
    };
    let mut room = [0; GROUPS];
    let lengths = lengths(groups.get(..4).unwrap_or(groups), &mut room);
    let mut glues = [0; 4];
    glues.iter_mut().zip(groups).for_each(|(slot, group)| *slot = group.glue);
    let glues = glues.get(..groups.len().min(4)).unwrap_or(&[]);
    let start = groups.first().map_or(0, |group| group.start);
    let all = |count: usize| digits(text, groups.get(..count).unwrap_or(&[]));
    let (pattern, count) = match (lengths, glues) {
        ([3, 2, 4, ..], [_, one @ (b'-' | b' ' | b'.'), two, ..]) if one == two => {
            let parts: Vec<u32> = groups.iter().take(3).map(number).collect();
            let &[area, group, serial] = parts.as_slice() else { return 0 };
            let worded = sink.hinted(Hint::Ssn, start);
            match () {
                () if *one != b'-' && !worded => return 0,
                () if validate::ssn(area, group, serial) => (Pattern::Ssn, 3),
                () if validate::itin(area, group) && serial != 0 => (Pattern::Itin, 3),
                () => return 0,
            }
        }
        ([9, ..], _) if sink.hinted(Hint::Ssn, start) => {
            let whole = groups.first().map_or(0, number);
            let (area, group, serial) = (whole / 1_000_000, whole / 10_000 % 100, whole % 10_000);
            if !validate::ssn(area, group, serial) {
                return 0;
            }
            (Pattern::Ssn, 1)
        }
        ([9, ..], _) if sink.hinted(Hint::Routing, start) && validate::aba(&all(1)) => (Pattern::Routing, 1),
        ([3, 3, 3, 2], [_, b'.', b'.', b'-']) if validate::cpf(&all(4)) => (Pattern::Cpf, 4),
        ([11, ..], _) if sink.hinted(Hint::Cpf, start) && validate::cpf(&all(1)) => (Pattern::Cpf, 1),
        ([3, 3, 4, ..], [_, b' ', b' ', ..]) if sink.hinted(Hint::Nhs, start) && validate::nhs(&all(3)) => {
            (Pattern::Nhs, 3)
        }
        ([10, ..], _) if sink.hinted(Hint::Nhs, start) && validate::nhs(&all(1)) => (Pattern::Nhs, 1),
        ([4, 4, 4], [_, b' ' | b'-', ..]) | ([4, 4, 4, ..], [_, b' ', b' ', ..])
            if sink.hinted(Hint::Aadhaar, start) && validate::aadhaar(&all(3)) =>
        {
            (Pattern::Aadhaar, 3)
        }
        ([12, ..], _) if sink.hinted(Hint::Aadhaar, start) && validate::aadhaar(&all(1)) => {
            (Pattern::Aadhaar, 1)
        }
        _ => return 0,
    };
    let whole = span(groups, count);
    if !stands_alone(text, &whole) || groups.get(count).is_some_and(|next| next.glue == b'-') {
        return 0;
    }
    sink.found(pattern, whole);
    count
}

/// Dates and times are passed over, so that no telephone number is seen in them.
fn date(text: &[u8], groups: &[Group], _: &mut Sink<'_>) -> usize {
    let [first, second, third, ..] = groups else { return 0 };
    let same = second.glue == third.glue && matches!(second.glue, b'-' | b'/' | b'.');
    let lengths = (first.length(), second.length(), third.length());
    let short = |group: &Group, most: u32| {
        let digits = cut(text, group.start..group.end).iter().take(2);
        let value = digits.fold(0_u32, |n, d| n * 10 + u32::from(d - b'0'));
        group.length() <= 2 && (1..=most).contains(&value)
    };
    let begins_with_year = lengths.0 == 4 && short(second, 12) && short(third, 31);
    let ends_with_year = lengths.2 == 4 && short(first, 31) && short(second, 31);
    if same && (begins_with_year || ends_with_year) { 3 } else { 0 }
}

/// The most digits of a telephone number with an extension.
const PHONE_DIGITS: usize = 22;

/// How sure the grouping alone makes it that a number is a telephone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    No,
    WithWord,
    Sure,
}

fn phone(text: &[u8], groups: &[Group], sink: &mut Sink<'_>) -> usize {
    let first = groups.first().map_or(0, |group| group.start);
    let (start, plus) = phone_start(text, first);
    if is_word(before(text, start)) || matches!(before(text, start), b'.' | b'/' | b'=' | b'#' | b'$') {
        return 0;
    }
    let hinted = sink.hinted(Hint::Phone, start);
    let shaped = plus
        || at(text, first) == b'0'
        || start < first
        || groups.first().is_some_and(|group| matches!(group.length(), 1 | 3));
    let mut total = 0;
    let most = groups.iter().take(OVERLAP).take_while(|group| {
        total += group.length();
        total <= PHONE_DIGITS
    });
    for count in (1..=most.count()).rev() {
        let taken = groups.get(..count).unwrap_or(&[]);
        let whole = start..span(groups, count).end;
        let after = at(text, whole.end);
        let goes_on = is_word(after)
            || (matches!(after, b'/' | b'%' | b'$'))
            || (after == b':' && is_alphanumeric(at(text, whole.end + 1)));
        if goes_on || (count < groups.len() && !may_end_before(groups.get(count))) {
            continue;
        }
        if !shaped && !hinted && !labelled(text, whole.end) {
            continue;
        }
        match likeness(text, taken, plus) {
            Likeness::No => {}
            Likeness::WithWord if !hinted && !labelled(text, whole.end) => {}
            Likeness::WithWord | Likeness::Sure => {
                sink.found(Pattern::Phone, whole);
                return count;
            }
        }
    }
    0
}

/// Where a number that has its first digit there begins, and whether with a plus.
fn phone_start(text: &[u8], first: usize) -> (usize, bool) {
    match (before(text, first), before(text, first.saturating_sub(1))) {
        (b'+', _) => (first - 1, true),
        (b'(', b'+') => (first - 2, true),
        (b'(', _) => (first - 1, false),
        _ => (first, false),
    }
}

/// A number may end where the next group is another thing.
fn may_end_before(next: Option<&Group>) -> bool {
    next.is_none_or(|group| matches!(group.glue, b' ' | b'(' | b'/'))
}

/// Whether a word such as `fax` stands behind the number.
fn labelled(text: &[u8], end: usize) -> bool {
    let after =
        end + cut(text, end..end + 3).iter().take_while(|b| matches!(b, b' ' | b'-' | b'(' | b',')).count();
    if !at(text, after).is_ascii_alphabetic() {
        return false;
    }
    let labels: [&[u8]; 9] =
        [b"office", b"fax", b"mobile", b"cell", b"home", b"work", b"phone", b"tel", b"ext"];
    labels.iter().any(|label| {
        cut(text, after..after + label.len()).eq_ignore_ascii_case(label)
            && !is_word(at(text, after + label.len()))
    })
}

fn likeness(text: &[u8], groups: &[Group], plus: bool) -> Likeness {
    let extended = groups.len() > 1 && groups.last().is_some_and(|group| group.glue == b'x');
    let number = if extended { groups.get(..groups.len() - 1).unwrap_or(&[]) } else { groups };
    if number.iter().any(|group| group.glue == b'x' || group.glue == b'/') {
        return Likeness::No;
    }
    let total: usize = number.iter().map(Group::length).sum();
    let mut room = [0; GROUPS];
    let lengths = lengths(number, &mut room);
    let start = number.first().map_or(0, |group| group.start);
    let zero = at(text, start) == b'0';
    let area_in_brackets =
        before(text, start) == b'(' && number.get(1).is_some_and(|group| group.glue == b')');
    let even =
        number.get(2..).unwrap_or(&[]).iter().all(|group| Some(group.glue) == number.get(1).map(|g| g.glue));
    match lengths {
        _ if plus && (7..=15).contains(&total) => Likeness::Sure,
        _ if zero && at(text, start + 1) == b'0' && lengths.len() > 1 && (9..=16).contains(&total) => {
            Likeness::Sure
        }
        [3, 3, 4] if area_in_brackets || even => north_american(text, number),
        [1, 3, 3, 4] if at(text, start) == b'1' => north_american(text, number.get(1..).unwrap_or(&[])),
        _ if area_in_brackets && (7..=11).contains(&total) => Likeness::WithWord,
        [_, _, _, ..] if zero && even && (9..=11).contains(&total) => Likeness::Sure,
        [2, 2, 2, 2] | [3, 3, 3] | [2, 3, 3] | [3, 2, 3] | [3, 2, 2, 2] | [3, 3, 2, 2] | [4, 2, 2, 2] => {
            Likeness::WithWord
        }
        [_, _, _, ..] if (8..=13).contains(&total) => Likeness::WithWord,
        [3, 4] | [4, 4] | [2..=5, 5..=8] => Likeness::WithWord,
        [7..=12] => Likeness::WithWord,
        _ => Likeness::No,
    }
}

/// Area codes and exchanges of North America begin with 2 to 9; other numbers of that shape need a word.
fn north_american(text: &[u8], groups: &[Group]) -> Likeness {
    let valid = groups.iter().take(2).all(|group| matches!(at(text, group.start), b'2'..=b'9'));
    if valid { Likeness::Sure } else { Likeness::WithWord }
}

/// An IBAN whose two check digits begin at the first group: letters before, groups of four behind.
fn iban(text: &[u8], groups: &[Group], sink: &mut Sink<'_>) -> usize {
    let Some(group) = groups.first() else { return 0 };
    let country = [before(text, group.start.saturating_sub(1)), before(text, group.start)];
    if group.length() < 2 || !country.iter().all(u8::is_ascii_alphabetic) {
        return 0;
    }
    let start = group.start - 2;
    let Some(length) = validate::iban_length(country.map(|letter| letter.to_ascii_uppercase())) else {
        return 0;
    };
    if is_word(before(text, start)) {
        return 0;
    }
    let mut letters = Vec::with_capacity(length);
    let mut place = start;
    while letters.len() < length {
        match at(text, place) {
            letter if is_alphanumeric(letter) => letters.push(letter),
            b' ' | b'-' | b'.' if is_alphanumeric(before(text, place)) => {}
            _ => return 0,
        }
        place += 1;
    }
    sink.work(length);
    if is_word(at(text, place)) || !validate::iban(&letters) {
        return 0;
    }
    sink.found(Pattern::Iban, start..place);
    groups.iter().take_while(|group| group.start < place).count()
}
