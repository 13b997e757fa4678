//! Values that stand beside the name of a secret: in settings, code, headers, command lines, markup and prose.
//!
//! A keyword leads here. The name around it is read, then what separates it from its value, then the value, each in a window of
//! bounded length. A value that only names another place - a variable, a call, a blank to fill in - is none.

use std::ops::Range;

use super::Sink;
use super::token::is_monotonous;
use crate::redact::bytes::{at, before, cut, entropy, is_word, run_end, run_start, skip_blanks, starts_with};
use crate::redact::rule::Pattern;
use crate::redact::words::{Secrecy, secrecy};

/// What a placeholder begins with: what was cut out is not found again.
const OPEN: &[u8] = "⟦".as_bytes();
/// The longest name around a keyword, on each side.
const NAME: usize = 64;
/// The longest value in quotes, and without.
const QUOTED: usize = 4096;
const VALUE: usize = 256;
/// How much of a value tells whether somebody made it up.
const HEAD: usize = 64;
/// The shortest password, and the shortest token.
const PASSWORD: usize = 4;
const TOKEN: usize = 8;

/// How far a name and its value went.
pub(in crate::redact) struct Seen {
    pub(in crate::redact) name_end: usize,
    pub(in crate::redact) value_end: usize,
    pub(in crate::redact) found: bool,
}

/// The value that belongs to the name around the keyword from `start` to `end`.
pub(in crate::redact) fn assigned(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) -> Seen {
    let name_start = run_start(text, start, NAME, is_name);
    let name_end = run_end(text, end, NAME, is_name);
    let name_end = name_end - usize::from(name_end > end && matches!(before(text, name_end), b'.' | b'-'));
    sink.work(name_end - name_start);
    let mut seen = Seen { name_end, value_end: name_end, found: false };
    let Some((span, pattern)) = assignment(text, name_start..name_end) else { return seen };
    sink.work(span.end - name_end);
    seen.value_end = span.end;
    if let Some(pattern) = pattern {
        seen.found = true;
        sink.found(pattern, span);
    }
    seen
}

/// The span of the value behind a name, and what it is, if it is a secret.
fn assignment(text: &[u8], name: Range<usize>) -> Option<(Range<usize>, Option<Pattern>)> {
    if cut(text, name.start.saturating_sub(OPEN.len())..name.start) == OPEN {
        return None;
    }
    let option = at(text, name.start) == b'-' && !is_word(before(text, name.start));
    let (place, link) = separator(text, name.end, option)?;
    let secrecy = secrecy(cut(text, name.clone()))?;
    let (span, quoted) = value(text, place, link)?;
    let in_list = before(text, name.start) == b';';
    let alone = in_list || begins_line(text, name.start) && ends_line(text, span.end);
    let pattern = if secrecy == Secrecy::Password { Pattern::Assigned } else { Pattern::AssignedToken };
    let is_secret = is_secret(cut(text, span.clone()), secrecy, quoted, link, alone);
    Some((span, is_secret.then_some(pattern)))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// What stands between a name and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// `=`, `:` and their kin.
    Sign,
    /// Comparison, a comma, a blank: only a quoted value follows.
    Loose,
    /// A blank after an option of a command line.
    Option,
    /// The end of a tag, or another attribute.
    Markup,
    /// Words of a sentence.
    Prose,
}

/// Reads over the separator; returns where the value begins.
fn separator(text: &[u8], name_end: usize, option: bool) -> Option<(usize, Link)> {
    let mut place = name_end;
    while place < name_end + 4 && matches!(at(text, place), b'"' | b'\'' | b'`' | b']' | b'\\' | b')') {
        place += 1;
    }
    let closed = place > name_end;
    let blank = skip_blanks(text, place);
    // Most names in prose have nothing that could be their value.
    if at(text, blank).is_ascii_alphanumeric()
        && !option
        && !matches!(at(text, blank), b'i' | b'f' | b'o' | b'v' | b'I')
    {
        let login = blank > place && follows_a_login(text, blank);
        return login.then_some((blank, Link::Loose));
    }
    let signs: [(&[u8], Link); 8] = [
        (b"=>", Link::Sign),
        (b":=", Link::Sign),
        (b"!==", Link::Loose),
        (b"===", Link::Loose),
        (b"==", Link::Loose),
        (b"!=", Link::Loose),
        (b"=", Link::Sign),
        (b":", Link::Sign),
    ];
    if let Some((sign, link)) = signs.iter().find(|(sign, _)| starts_with(text, blank, sign)) {
        return Some((over_break(text, blank + sign.len()), *link));
    }
    if at(text, blank) == b',' && closed {
        return Some((skip_blanks(text, blank + 1), Link::Loose));
    }
    if at(text, place) == b'>' {
        return Some((place + 1, Link::Markup));
    }
    if starts_with(text, blank, b"value=") {
        return Some((blank + 6, Link::Markup));
    }
    if let Some(after) = prose(text, blank) {
        return Some((after, Link::Prose));
    }
    (blank > place).then_some((blank, if option { Link::Option } else { Link::Loose }))
}

/// Over blanks, and one break of the line.
fn over_break(text: &[u8], start: usize) -> usize {
    let place = skip_blanks(text, start);
    if at(text, place) == b'\n' { skip_blanks(text, place + 1) } else { place }
}

/// Over the words that lead a sentence from the name to its value: `is`, `for user 'x' is`, `to`.
fn prose(text: &[u8], start: usize) -> Option<usize> {
    let window = cut(text, start..start + 64);
    let line = window.iter().position(|byte| *byte == b'\n').unwrap_or(window.len());
    let window = cut(window, 0..line);
    if starts_with(window, 0, b"is ") {
        return Some(start + skip_blanks(window, 3));
    }
    let leads = starts_with(window, 0, b"for ") || starts_with(window, 0, b"of ");
    let verb = memchr::memmem::find(window, b" is ").filter(|_| leads)?;
    Some(start + skip_blanks(window, verb + 4))
}

/// The span of a value, and whether it is quoted.
fn value(text: &[u8], start: usize, link: Link) -> Option<(Range<usize>, bool)> {
    let mut place = start;
    // A prefix of a string literal, as in b"…" and @"…".
    if matches!(at(text, place), b'b' | b'r' | b'f' | b'u' | b'@')
        && matches!(at(text, place + 1), b'"' | b'\'')
    {
        place += 1;
    }
    let escaped = at(text, place) == b'\\' && matches!(at(text, place + 1), b'"' | b'\'');
    place += usize::from(escaped);
    let quote = at(text, place);
    if matches!(quote, b'"' | b'\'' | b'`') {
        let first = place + 1;
        let last = run_end(text, first, QUOTED, |byte| byte != quote && byte != b'\n');
        if at(text, last) != quote {
            return None;
        }
        let last = last - usize::from(escaped && before(text, last) == b'\\');
        return Some((first..last, true));
    }
    let last = match link {
        Link::Loose if follows_a_login(text, start) => {
            run_end(text, place, VALUE, |byte| !byte.is_ascii_whitespace() && !matches!(byte, 0 | b'"'))
        }
        Link::Sign | Link::Option => run_end(text, place, VALUE, |byte| {
            byte > b' ' && !matches!(byte, b'"' | b'\'' | b'`' | b',' | b';' | b'<' | b'>')
        }),
        Link::Markup => run_end(text, place, VALUE, |byte| !matches!(byte, 0 | b'<' | b'>' | b'\n' | b'"')),
        Link::Loose | Link::Prose => return None,
    };
    let closing = cut(text, place..last)
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b')' | b']' | b'}' | b'\\'))
        .count();
    Some((place..last - closing, false))
}

/// Whether the line, or the one before, names a user as the file `.netrc` does.
fn follows_a_login(text: &[u8], start: usize) -> bool {
    let lead = cut(text, start.saturating_sub(64)..start);
    memchr::memmem::rfind(lead, b"login ")
        .is_some_and(|login| cut(lead, login..lead.len()).iter().filter(|byte| **byte == b'\n').count() < 2)
}

fn begins_line(text: &[u8], start: usize) -> bool {
    let line = run_start(text, start, 32, |byte| byte != b'\n');
    let lead = cut(text, line..start);
    let lead = lead.strip_prefix(b"export ").unwrap_or(lead);
    lead.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'#' | b'-' | b'/' | b'"' | b'\'' | b';'))
}

fn ends_line(text: &[u8], end: usize) -> bool {
    matches!(at(text, skip_blanks(text, end)), 0 | b'\n' | b'\r' | b'#')
}

/// Whether a value is the secret itself.
fn is_secret(value: &[u8], secrecy: Secrecy, quoted: bool, link: Link, alone: bool) -> bool {
    let least = if secrecy == Secrecy::Password { PASSWORD } else { TOKEN };
    if value.len() < least || is_elsewhere(value) || is_blank_to_fill(value) {
        return false;
    }
    let spaced = value.iter().any(u8::is_ascii_whitespace);
    match secrecy {
        Secrecy::Token => !spaced && is_generated(value),
        Secrecy::Password if value.starts_with(b"/") => is_generated(value) && !is_path(value),
        Secrecy::Password if quoted && link == Link::Prose => !spaced,
        Secrecy::Password if quoted => {
            value.iter().filter(|byte| **byte == b' ').count() < 3 && (!spaced || has_digit(value))
        }
        Secrecy::Password if link == Link::Markup => !spaced,
        Secrecy::Password => {
            is_generated(value) || is_mixed(value) || (alone && value.len() >= 4) || link == Link::Option
        }
    }
}

/// Names between slashes.
fn is_path(value: &[u8]) -> bool {
    let mut parts = value.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.all(|part| is_identifier(part) || part.len() < 5)
}

fn has_digit(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_digit)
}

/// Letters with digits or signs that no identifier has.
fn is_mixed(value: &[u8]) -> bool {
    let value = cut(value, 0..HEAD);
    has_digit(value)
        || value.iter().any(|byte| {
            matches!(byte, b'!' | b'@' | b'#' | b'$' | b'%' | b'^' | b'&' | b'*' | b'?' | b'+' | b'~')
        })
}

/// A value that nobody made up: digits among letters, or many different characters.
fn is_generated(value: &[u8]) -> bool {
    let head = cut(value, 0..HEAD);
    value.len() >= TOKEN
        && !is_monotonous(head)
        && (has_digit(head) && entropy(head) >= 2.2
            || value.len() >= 20 && entropy(head) >= 3.6 && !is_identifier(value))
}

fn is_identifier(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-' | b'.'))
}

/// A variable, a call or a path to somewhere else.
fn is_elsewhere(value: &[u8]) -> bool {
    let leads: [&[u8]; 27] = [
        b"&lt;",
        b".",
        b",",
        b";",
        b"+",
        b"#{",
        b"\\",
        b"arn:",
        b"'",
        b"$",
        b"{{",
        b"{",
        b"<",
        b"%(",
        b"%{",
        b"[",
        b"process.env",
        b"os.environ",
        b"os.getenv",
        b"getenv",
        b"env.",
        b"env(",
        b"secrets.",
        b"vault:",
        b"file:",
        b"http://",
        b"https://",
    ];
    let called =
        memchr::memchr(b'(', value).is_some_and(|open| open > 0 && is_identifier(cut(value, 0..open)));
    let path = is_identifier(value) && memchr::memchr(b'.', value).is_some() && !has_digit(value);
    leads.iter().any(|lead| starts_with(value, 0, lead)) && !is_password_with_dollar(value) || called || path
}

/// `$ecret1!` is a password, `$SECRET` and `${secret}` are variables.
fn is_password_with_dollar(value: &[u8]) -> bool {
    let rest = cut(value, 1..value.len());
    value.starts_with(b"$")
        && !rest.starts_with(b"{")
        && !rest.starts_with(b"(")
        && rest.iter().any(|byte| !is_word(*byte) && !matches!(byte, b'.' | b'[' | b']' | b'-' | b'>' | b'/'))
}

/// What stands where a secret is to be filled in.
fn is_blank_to_fill(value: &[u8]) -> bool {
    let words: [&[u8]; 26] = [
        b"null",
        b"none",
        b"nil",
        b"true",
        b"false",
        b"undefined",
        b"string",
        b"str",
        b"bytes",
        b"optional",
        b"required",
        b"password",
        b"secret",
        b"token",
        b"changeme",
        b"redacted",
        b"empty",
        b"example",
        b"not-set",
        b"unset",
        b"missing",
        b"value",
        b"string,",
        b"object",
        b"number",
        b"todo",
    ];
    let same = value.iter().all(|byte| Some(byte) == value.first()) && value.len() < 32;
    let dots = value.iter().all(|byte| matches!(byte, b'*' | b'.' | b'x' | b'X' | b'-' | b'_' | b'#' | b'?'));
    let asked = starts_with(value, 0, b"your")
        || starts_with(value, 0, b"my_")
        || starts_with(value, 0, b"insert_")
        || starts_with(value, 0, b"enter ")
        || memchr::memmem::find(value, OPEN).is_some();
    let named = value.len() < 40
        && [&b"password"[..], b"Password", b"PASSWORD"]
            .iter()
            .any(|word| memchr::memmem::find(value, word).is_some());
    same || dots || asked || named || words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The credentials of an `Authorization` header: `Basic` or `Bearer` ends at `end`.
pub(in crate::redact) fn scheme(text: &[u8], end: usize, pattern: Pattern, sink: &mut Sink<'_>) {
    let place = skip_blanks(text, end + usize::from(at(text, end) == b':'));
    if place == end {
        return;
    }
    let last = run_end(text, place, QUOTED, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b':')
    });
    let value = cut(text, place..last);
    sink.work(value.len());
    let least = if pattern == Pattern::Basic { 12 } else { 10 };
    let basic = pattern != Pattern::Basic || is_basic(value);
    if value.len() >= least && basic && is_generated(value) && !is_blank_to_fill(value) {
        sink.found(pattern, place..last);
    }
}

/// Base64 of a user and a password (RFC 7617).
fn is_basic(value: &[u8]) -> bool {
    let trimmed = value.strip_suffix(b"==").or_else(|| value.strip_suffix(b"=")).unwrap_or(value);
    data_encoding::BASE64_NOPAD.decode(trimmed).is_ok_and(|plain| plain.contains(&b':'))
}

/// The password after `-p` or of `-u user:password` of a command line, whose dash is at `start`.
pub(in crate::redact) fn option(text: &[u8], start: usize, sink: &mut Sink<'_>) {
    if !matches!(before(text, start), b' ' | b'\t') {
        return;
    }
    let user = at(text, start + 1) == b'u';
    let place = skip_blanks(text, start + 2);
    let Some((span, _)) = value(text, place, Link::Option) else { return };
    let written = cut(text, span.clone());
    sink.work(written.len());
    if place == start + 2 || is_elsewhere(written) || is_blank_to_fill(written) {
        return;
    }
    let colon = memchr::memchr(b':', written).filter(|_| user);
    if let Some(colon) = colon.filter(|colon| written.len() > colon + PASSWORD) {
        sink.found(Pattern::CommandLine, span.start + colon + 1..span.end);
    } else if !user && names_a_user(text, start) && written.len() > PASSWORD {
        sink.found(Pattern::CommandLine, span);
    }
}

/// Whether the command names a user before its `-p`, which is otherwise a port or a path.
fn names_a_user(text: &[u8], start: usize) -> bool {
    let line = run_start(text, start, 160, |byte| byte != b'\n');
    let lead = cut(text, line..start);
    memchr::memmem::find(lead, b" -u ").is_some() || memchr::memmem::find(lead, b"login").is_some()
}

/// The last of the quoted arguments of a call that makes credentials, whose bracket is at `open`.
pub(in crate::redact) fn arguments(text: &[u8], open: usize, sink: &mut Sink<'_>) {
    if at(text, open) != b'(' {
        return;
    }
    let window = cut(text, open..open + 256);
    let close = memchr::memchr(b')', window).unwrap_or(0);
    sink.work(close);
    let inside = cut(window, 1..close);
    let mut quoted = inside.split(|byte| *byte == b'"');
    let parts: Vec<&[u8]> = quoted.by_ref().take(7).collect();
    let (Some(last), true) = (parts.get(3), parts.len() >= 5) else { return };
    let last = parts.get(5).unwrap_or(last);
    let Some(offset) = memchr::memmem::rfind(inside, last) else { return };
    if last.len() >= PASSWORD && !is_elsewhere(last) {
        let first = open + 1 + offset;
        sink.found(Pattern::Assigned, first..first + last.len());
    }
}

/// Whether a whole JSON value under a name is the secret that the name speaks of.
pub(in crate::redact) fn under_name(value: &[u8], secrecy: Secrecy) -> bool {
    let spaces = value.iter().filter(|byte| byte.is_ascii_whitespace()).count();
    match secrecy {
        Secrecy::Password => !value.is_empty() && !value.starts_with(b"${") && !value.starts_with(b"{{"),
        Secrecy::Token => {
            value.len() >= 6
                && spaces < 2
                && !is_blank_to_fill(value)
                && (has_digit(value) || value.len() >= 12 && !is_identifier(value) || value.len() >= 20)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_of::{found_by, marked};
    use super::*;

    #[test]
    fn values_are_found_in_the_forms_that_people_write() {
        for text in [
            "DB_PASSWORD=‹hunter22›",
            "password: \"‹correct horse 1›\"",
            "  'apiKey' => '‹a81bc3d94f20e5›',",
            "String CLIENT_SECRET = \"‹6fb1cff7690db9ac›\";",
            "<password>‹s3cr3t›</password>",
            "<add key=\"DbPassword\" value=\"‹Prestig1$›\"/>",
            "mysql --password ‹tiger!7› -h db",
            "the password is \"‹centipede›\" and press",
            "{\\\"password\\\": \\\"‹goodspec1›\\\"}",
            "if token == '‹0a1b2c3d4e5f›' {",
            "password = ‹open_sesame›\n",
            "os.getenv('API_KEY', '‹k92jd83hs71b›')",
        ] {
            assert_eq!(found_by(&[Pattern::Assigned, Pattern::AssignedToken], text), marked(text), "{text}");
        }
    }

    #[test]
    fn what_only_names_a_secret_is_none() {
        for text in [
            "password = ${DB_PASSWORD}",
            "token: process.env.TOKEN",
            "password = get_password()",
            "\"password\": \"\"",
            "api_key=YOUR_API_KEY",
            "\"strong-password\":\"/en/auth/2.0/strong-words\"",
            "password: ********",
            "the token is expired",
            "let token = next_token;",
            "max_tokens: 4096",
            "password_file = /run/secrets/db",
            "token_type: Bearer",
            "passwords are hashed",
        ] {
            assert_eq!(
                found_by(&[Pattern::Assigned, Pattern::AssignedToken], text),
                Vec::<String>::new(),
                "{text}"
            );
        }
    }
}
