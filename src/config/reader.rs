//! Walks through a parsed TOML text, collects mistakes instead of stopping at the first, and knows every field that was
//! asked for, so that all others are unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::units::{ByteSize, parse_byte_size, parse_duration};
use super::{Mistake, Problem};
use crate::model::Duration;

/// How tokens begin: ours, those of Vault and OpenBao, and JSON web tokens.
const TOKENS: [&str; 4] = ["srt_", "hvs.", "hvb.", "eyJ"];
/// Longest name of a mount, a key, a role.
const NAME_BYTES: usize = 128;
/// Longest name that a mistake repeats, in characters.
const NAME_SHOWN: usize = 64;

/// A text that is valid TOML, and what was found wrong with it so far.
///
/// A field that is wrong reads as its default; [`Document::finish`] lets no such value out.
pub(super) struct Document<'t> {
    text: &'t str,
    table: DeTable<'t>,
    known: RefCell<BTreeMap<&'static str, Vec<&'static str>>>,
    mistakes: RefCell<Vec<Mistake>>,
}

/// One `[section]`, which may be missing.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    name: &'static str,
    table: Option<&'d DeTable<'d>>,
}

impl<'t> Document<'t> {
    /// Parses `text`, or gives all its syntax errors.
    pub(super) fn parse(text: &'t str) -> Result<Self, Vec<Mistake>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| syntax(text, error)).collect());
        }
        Ok(Self { text, table: table.into_inner(), known: RefCell::default(), mistakes: RefCell::default() })
    }

    /// The section of that name.
    pub(super) fn section(&self, name: &'static str) -> Section<'_> {
        self.known.borrow_mut().insert(name, Vec::new());
        let value = self.table.get(name);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            self.push(Some(value), name.to_owned(), Problem::Type { expected: "a section" });
        }
        Section { document: self, name, table }
    }

    /// The sections of that name, `[[name]]`, of which there may be up to `max` and may be none.
    pub(super) fn sections(&self, name: &'static str, max: usize) -> Vec<Section<'_>> {
        self.known.borrow_mut().insert(name, Vec::new());
        let Some(value) = self.table.get(name) else { return Vec::new() };
        let tables =
            value.get_ref().as_array().map(|array| array.iter().map(|item| item.get_ref().as_table()));
        let tables: Option<Vec<_>> = tables.and_then(Iterator::collect);
        match tables {
            Some(tables) if tables.len() <= max => {
                tables.into_iter().map(|table| Section { document: self, name, table: Some(table) }).collect()
            }
            Some(_) => {
                self.push(Some(value), name.to_owned(), Problem::TooMany { max });
                Vec::new()
            }
            None => {
                let problem = Problem::Type { expected: "sections, each begun with its name in [[ ]]" };
                self.push(Some(value), name.to_owned(), problem);
                Vec::new()
            }
        }
    }

    /// Gives `read` out if nothing was wrong.
    pub(super) fn finish<T>(self, read: T) -> Result<T, Vec<Mistake>> {
        self.find_unknown();
        let mut mistakes = self.mistakes.into_inner();
        if mistakes.is_empty() {
            return Ok(read);
        }
        mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        Err(mistakes)
    }

    /// Every field that was asked for.
    #[cfg(test)]
    pub(super) fn known_fields(&self) -> Vec<String> {
        let known = self.known.borrow();
        known
            .iter()
            .flat_map(|(section, names)| names.iter().map(move |n| format!("{section}.{n}")))
            .collect()
    }

    fn find_unknown(&self) {
        let known = self.known.borrow();
        for (section, value) in &self.table {
            let Some(names) = known.get(section.get_ref().as_ref()) else {
                let problem = Problem::Unknown { known: known.keys().copied().collect() };
                self.push(Some(section), shorten(section.get_ref()), problem);
                continue;
            };
            let items = value.get_ref().as_array().into_iter().flat_map(|array| array.iter());
            let tables = items.filter_map(|item| item.get_ref().as_table()).chain(value.get_ref().as_table());
            let fields = tables.flat_map(|table| table.iter()).map(|(field, _)| field);
            for field in fields.filter(|field| !names.contains(&field.get_ref().as_ref())) {
                let name = format!("{}.{}", section.get_ref(), shorten(field.get_ref()));
                self.push(Some(field), name, Problem::Unknown { known: names.clone() });
            }
        }
    }

    fn push<V>(&self, at: Option<&Spanned<V>>, field: String, problem: Problem) {
        let line = at.map(|at| line(self.text, at.span().start));
        self.mistakes.borrow_mut().push(Mistake { line, field, problem });
    }
}

impl<'d> Section<'d> {
    /// Whether the text has it at all.
    pub(super) const fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Records that something is wrong with a field.
    pub(super) fn mistake(&self, name: &str, problem: Problem) {
        let value = self.table.and_then(|table| table.get(name));
        self.document.push(value, format!("{}.{name}", self.name), problem);
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, name: &'static str, default: bool) -> bool {
        self.read(name, |value| value.as_bool().ok_or(Problem::Type { expected: "true or false" }))
            .unwrap_or(default)
    }

    /// A whole number from `min` to `max`.
    pub(super) fn count(&self, name: &'static str, default: usize, min: usize, max: usize) -> usize {
        self.read(name, |value| {
            let number = value.as_integer().ok_or(Problem::Type { expected: "a whole number" })?;
            // What is no usize (negative, or far too large) is outside every range.
            let number = usize::from_str_radix(number.as_str(), number.radix()).ok();
            number.filter(|number| (min..=max).contains(number)).ok_or_else(|| out_of_range(&min, &max))
        })
        .unwrap_or(default)
    }

    /// A size from `min` to `max`.
    pub(super) fn size(
        &self,
        name: &'static str,
        default: ByteSize,
        min: ByteSize,
        max: ByteSize,
    ) -> ByteSize {
        self.read(name, |value| {
            let size = value.as_str().and_then(parse_byte_size).ok_or(Problem::NotASize)?;
            if (min..=max).contains(&size) { Ok(size) } else { Err(out_of_range(&min, &max)) }
        })
        .unwrap_or(default)
    }

    /// A duration from `min` to `max`.
    pub(super) fn duration(
        &self,
        name: &'static str,
        default: Duration,
        min: Duration,
        max: Duration,
    ) -> Duration {
        let show = humantime::format_duration;
        self.read(name, |value| {
            let span = value.as_str().and_then(parse_duration).ok_or(Problem::NotADuration)?;
            if (min..=max).contains(&span) { Ok(span) } else { Err(out_of_range(&show(min), &show(max))) }
        })
        .unwrap_or(default)
    }

    /// An IP address and a port.
    pub(super) fn address(&self, name: &'static str, default: SocketAddr) -> SocketAddr {
        let address = |value: &DeValue<'_>| value.as_str().and_then(|text| text.parse().ok());
        self.read(name, |value| address(value).ok_or(Problem::NotAnAddress)).unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, name: &'static str, words: &[(&'static str, T)], default: T) -> T {
        self.read(name, |value| {
            let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
            let allowed = || words.iter().map(|(word, _)| *word).collect();
            found.map(|(_, meaning)| *meaning).ok_or_else(|| Problem::NotAmong { allowed: allowed() })
        })
        .unwrap_or(default)
    }

    /// A filter for log lines.
    pub(super) fn log_filter(&self, name: &'static str, default: String) -> String {
        self.read(name, |value| {
            let text = value.as_str().ok_or(Problem::NotALogFilter)?;
            match tracing_subscriber::EnvFilter::builder().parse(text) {
                Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
                Ok(_) | Err(_) => Err(Problem::NotALogFilter),
            }
        })
        .unwrap_or(default)
    }

    /// `https://host[:port]`, which must be there.
    pub(super) fn required_https(&self, name: &'static str) -> String {
        self.require(name);
        self.read(name, |value| {
            let text = value.as_str().ok_or(Problem::NotHttps)?;
            if is_https(text) { Ok(text.to_owned()) } else { Err(Problem::NotHttps) }
        })
        .unwrap_or_default()
    }

    /// A name that can be one segment of a path, which must be there.
    pub(super) fn required_name(&self, name: &'static str) -> String {
        self.require(name);
        self.read(name, |value| segments(value, 1)).unwrap_or_default()
    }

    /// Names that can be the segments of a path.
    pub(super) fn path_of_names(&self, name: &'static str) -> Option<String> {
        self.read(name, |value| segments(value, usize::MAX))
    }

    /// A text that `is_right` accepts.
    pub(super) fn text(
        &self,
        name: &'static str,
        expected: &'static str,
        is_right: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.read(name, |value| right_text(value, expected, &is_right))
    }

    /// Such a text, which must be there.
    pub(super) fn required_text(
        &self,
        name: &'static str,
        expected: &'static str,
        is_right: impl Fn(&str) -> bool,
    ) -> String {
        self.require(name);
        self.text(name, expected, is_right).unwrap_or_default()
    }

    /// A list of such texts.
    pub(super) fn texts(
        &self,
        name: &'static str,
        expected: &'static str,
        is_right: impl Fn(&str) -> bool,
    ) -> Option<Vec<String>> {
        self.read(name, |value| {
            let array = value.as_array().ok_or(Problem::Type { expected })?;
            array.iter().map(|item| right_text(item.get_ref(), expected, &is_right)).collect()
        })
    }

    /// A list of at least one of a few words, which must be there.
    pub(super) fn required_words<T: Copy>(&self, name: &'static str, words: &[(&'static str, T)]) -> Vec<T> {
        self.require(name);
        let wrong = || Problem::NotAmong { allowed: words.iter().map(|(word, _)| *word).collect() };
        let meaning =
            |text: Option<&str>| words.iter().find(|(word, _)| text == Some(word)).map(|(_, of)| *of);
        self.read(name, |value| {
            let array = value.as_array().filter(|array| !array.is_empty()).ok_or_else(wrong)?;
            array.iter().map(|item| meaning(item.get_ref().as_str()).ok_or_else(wrong)).collect()
        })
        .unwrap_or_default()
    }

    /// A path, relative to `base` if it is not absolute.
    pub(super) fn path(&self, name: &'static str, base: &Path) -> Option<PathBuf> {
        self.read(name, |value| path(value, base))
    }

    /// A path that must be there.
    pub(super) fn required_path(&self, name: &'static str, base: &Path) -> PathBuf {
        self.require(name);
        self.path(name, base).unwrap_or_default()
    }

    /// A list of at least one path.
    pub(super) fn required_paths(&self, name: &'static str, base: &Path) -> Vec<PathBuf> {
        self.require(name);
        self.read(name, |value| {
            let array = value.as_array().filter(|array| !array.is_empty());
            let array = array.ok_or(Problem::Type { expected: "a list of at least one path" })?;
            array.iter().map(|value| path(value.get_ref(), base)).collect()
        })
        .unwrap_or_default()
    }

    fn require(&self, name: &'static str) {
        if self.table.is_none_or(|table| !table.contains_key(name)) {
            self.mistake(name, Problem::Missing);
        }
    }

    fn read<T>(
        &self,
        name: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<T> {
        if let Some(names) = self.document.known.borrow_mut().get_mut(self.name) {
            names.push(name);
        }
        let value = self.table?.get(name)?;
        convert(value.get_ref()).map_err(|problem| self.mistake(name, problem)).ok()
    }
}

fn path(value: &DeValue<'_>, base: &Path) -> Result<PathBuf, Problem> {
    let text = value.as_str().ok_or(Problem::Type { expected: "the path of a file, as text" })?;
    if text.contains("-----BEGIN")
        || text.contains('\n')
        || TOKENS.iter().any(|token| text.starts_with(token))
    {
        return Err(Problem::SecretInPlaceOfPath);
    }
    if text.is_empty() || text.contains('\0') {
        return Err(Problem::Type { expected: "the path of a file, not empty" });
    }
    Ok(base.join(text))
}

fn right_text(
    value: &DeValue<'_>,
    expected: &'static str,
    is_right: &impl Fn(&str) -> bool,
) -> Result<String, Problem> {
    let text = value.as_str().filter(|text| is_right(text)).ok_or(Problem::Type { expected })?;
    Ok(text.to_owned())
}

fn is_https(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    uri.scheme_str() == Some("https") && bare && host
}

fn segments(value: &DeValue<'_>, max: usize) -> Result<String, Problem> {
    let text = value.as_str().ok_or(Problem::NotAName)?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let right = |name: &str| {
        (1..=NAME_BYTES).contains(&name.len())
            && name.bytes().all(letter)
            && name.bytes().any(|byte| byte != b'.')
    };
    let named = text.split('/').count() <= max && text.split('/').all(right);
    if named { Ok(text.to_owned()) } else { Err(Problem::NotAName) }
}

fn out_of_range(min: &impl ToString, max: &impl ToString) -> Problem {
    Problem::OutOfRange { min: min.to_string(), max: max.to_string() }
}

/// The parser's message alone: its `Display` would show the line, which may hold a secret.
fn syntax(text: &str, error: &Error) -> Mistake {
    let line = error.span().map(|span| line(text, span.start));
    Mistake { line, field: String::new(), problem: Problem::Syntax { message: error.message().to_owned() } }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn shorten(name: &str) -> String {
    name.chars().take(NAME_SHOWN).filter(|letter| !letter.is_control()).collect()
}
