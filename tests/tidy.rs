//! The style and the layers of the sources, held by a test.
//!
//! Each rule reads the sources, prints all offenders at once, and is itself tested on small made-up sources. Sources are
//! read as text in which comments and literals are blanked, so that prose and labels do not count as code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom: a module of the crate's root, and the others that it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("api", &["service", "auth", "model", "telemetry", "proto"]),
    ("audit", &["store", "crypto", "env", "model", "tlog"]),
    ("auth", &["env", "model"]),
    ("cli", &["client", "config", "crypto", "env", "model", "redact", "tlog"]),
    ("client", &["proto", "model", "crypto", "tlog"]),
    ("commit", &["audit", "store", "env", "model"]),
    ("config", &["model"]),
    ("crypto", &["env", "model"]),
    ("dev", &["env", "model"]),
    ("env", &["model"]),
    ("keyring", &["store", "crypto", "env", "model"]),
    ("model", &[]),
    ("proto", &[]),
    ("provider", &["keyring", "crypto", "env", "model"]),
    ("redact", &["model"]),
    (
        "server",
        &[
            "api",
            "audit",
            "auth",
            "commit",
            "config",
            "crypto",
            "dev",
            "env",
            "keyring",
            "model",
            "provider",
            "redact",
            "service",
            "store",
            "telemetry",
            "tlog",
        ],
    ),
    (
        "service",
        &[
            "commit",
            "audit",
            "store",
            "keyring",
            "crypto",
            "redact",
            "auth",
            "env",
            "telemetry",
            "model",
            "tlog",
        ],
    ),
    ("store", &["crypto", "model"]),
    ("telemetry", &["config", "model"]),
    ("tlog", &["crypto", "env", "model"]),
    ("testing", &["store", "crypto", "env", "model"]),
];

/// What a test inside the crate may name besides: fakes, and the real clock and entropy.
const IN_TESTS: &[&str] = &["env", "testing"];
/// What the binaries may name.
const BINARIES: &[&str] = &["server", "cli"];
/// Where secrets may be exposed.
const EXPOSING: &[&str] = &["crypto", "keyring"];
/// Where generated messages may be named.
const WIRE: &[&str] = &["api", "client", "proto"];

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
/// Files that may be longer, each with the reason. Empty, and meant to stay so.
const LONG_FILES: &[(&str, &str)] = &[];
/// Files of tests that may use `unsafe`, each with the reason.
const UNSAFE: &[(&str, &str)] = &[("tests/freed/main.rs", "an allocator that inspects freed blocks")];
/// Names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "manager", "managers", "misc", "data", "info"];
/// Crates that must not be linked: a second cryptographic provider panics at run time, and none but ring is reviewed here.
const BANNED_CRATES: &[&str] = &["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"];

/// A source file, its path relative to the package.
struct Source {
    path: PathBuf,
    text: String,
    /// The text with comments and literals blanked; the same lines.
    code: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { path: path.into(), code: blank(&text), text }
    }

    /// Places in the file that the rule forbids, as `path:line: what`.
    fn offence(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }

    /// The module of the crate's root to which the file belongs; none for the root and the binaries.
    fn module(&self) -> Option<String> {
        let path = self.path.strip_prefix("src").ok()?;
        let first = path.iter().next()?.to_str()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(name, "lib" | "bin")).then(|| name.to_owned())
    }

    /// How deep the file's module lies below the crate's root.
    fn depth(&self) -> usize {
        let components = self.path.iter().count() - 1;
        let is_root_of_module = self.path.file_stem().is_some_and(|stem| stem == "mod");
        if is_root_of_module { components - 1 } else { components }
    }

    /// Whether the whole file is a test: its name says so.
    fn is_test_file(&self) -> bool {
        let stem = self.path.file_stem().unwrap().to_str().unwrap();
        stem == "tests" || self.path.iter().any(|part| part == "tests")
    }

    /// The first line of the unit tests; beyond the end when there are none.
    fn tests_begin(&self) -> usize {
        if self.is_test_file() {
            return 0;
        }
        let lines: Vec<_> = self.code.lines().collect();
        let is_module =
            |at: usize| lines.get(at + 1).is_some_and(|next| next.trim_start().starts_with("mod "));
        (0..lines.len())
            .find(|at| lines[*at].trim() == "#[cfg(test)]" && is_module(*at))
            .unwrap_or(lines.len())
    }
}

/// Blanks comments, strings and characters, and keeps the lines.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (literal, keep) = match literal_length(rest, out.chars().next_back()) {
            0 => (first.len_utf8(), true),
            length => (length, false),
        };
        let (token, after) = rest.split_at(literal);
        if keep {
            out.push_str(token);
        } else {
            out.extend(token.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    out
}

/// Bytes of the comment or literal that `text` begins with; 0 when it begins with code.
fn literal_length(text: &str, before: Option<char>) -> usize {
    let until =
        |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let in_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if text.starts_with('"') {
        return quoted_length(text, 1);
    }
    if !in_word {
        let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r')).unwrap_or("");
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') && !raw.is_empty() {
            let open = text.len() - raw.len() + hashes + 1;
            return until(&format!("\"{}", "#".repeat(hashes)), open);
        }
    }
    character_length(text)
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let step = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if rest.starts_with("*/") {
            depth -= 1;
            2
        } else {
            rest.chars().next().unwrap().len_utf8()
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Length of a literal that ends in the quote that it begins with, whose content begins at `start`.
fn quoted_length(text: &str, start: usize) -> usize {
    let quote = text.as_bytes()[start - 1];
    let bytes = text.as_bytes();
    let mut at = start;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// A character and not a lifetime: the quote closes after one letter, or after an escape.
fn character_length(text: &str) -> usize {
    let mut letters = text.chars();
    if letters.next() != Some('\'') {
        return 0;
    }
    match letters.next() {
        Some('\\') => quoted_length(text, 1),
        Some(letter) if letters.next() == Some('\'') => 2 + letter.len_utf8(),
        _ => 0,
    }
}

/// Identifiers and punctuation, each with its line; `::` is one.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            if !first.is_whitespace() {
                tokens.push((number + 1, &rest[..length]));
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// The modules of the crate's root that the code names, with the line, and whether it is inside unit tests.
fn named_modules(source: &Source) -> Vec<(usize, String, bool)> {
    let tokens = tokens(&source.code);
    let tests = source.tests_begin();
    let mut named = Vec::new();
    let mut nesting = Nesting::new(source.depth());
    for at in 0..tokens.len() {
        nesting.pass(&tokens, at);
        let Some(after) = path_to_root(&tokens, at, nesting.depth()) else { continue };
        for (line, name) in heads(&tokens, after) {
            named.push((line, name.to_owned(), line > tests));
        }
    }
    named
}

/// How deep the module lies in which a token stands.
struct Nesting {
    file: usize,
    /// For each open brace, whether a module begins with it.
    braces: Vec<bool>,
}

impl Nesting {
    fn new(file: usize) -> Self {
        Self { file, braces: Vec::new() }
    }

    fn pass(&mut self, tokens: &[(usize, &str)], at: usize) {
        match tokens[at].1 {
            "{" => self.braces.push(at >= 2 && tokens[at - 2].1 == "mod"),
            "}" => drop(self.braces.pop()),
            _ => {}
        }
    }

    fn depth(&self) -> usize {
        self.file + self.braces.iter().filter(|is_module| **is_module).count()
    }
}

/// If a path that leads to the crate's root begins at `at`: the place behind its `::`.
fn path_to_root(tokens: &[(usize, &str)], at: usize, depth: usize) -> Option<usize> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|(_, token)| *token == text);
    if at > 0 && is(at - 1, "::") {
        return None;
    }
    if (is(at, "crate") || is(at, "strongroom")) && is(at + 1, "::") {
        return Some(at + 2);
    }
    let mut after = at;
    let mut climbed = 0;
    while is(after, "super") && is(after + 1, "::") {
        climbed += 1;
        after += 2;
    }
    (climbed > 0 && climbed >= depth).then_some(after)
}

/// The first names of the path or of the group of paths at `at`.
fn heads<'t>(tokens: &[(usize, &'t str)], at: usize) -> Vec<(usize, &'t str)> {
    if tokens.get(at).is_none_or(|(_, token)| *token != "{") {
        return tokens.get(at).copied().into_iter().collect();
    }
    let (mut depth, mut heads, mut expected) = (0, Vec::new(), true);
    for (line, token) in &tokens[at..] {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => expected = true,
            name if depth == 1 && expected => {
                heads.push((*line, name));
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn layer_offences(sources: &[Source]) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src")) {
        let module = source.module();
        let (own, allowed): (&str, &[&str]) = match &module {
            None if source.path.starts_with("src/bin") => ("bin", BINARIES),
            None => continue,
            Some(module) => match LAYERS.iter().find(|(name, _)| name == module) {
                Some(layer) => *layer,
                None => {
                    offences
                        .push(source.offence(1, format!("{module} stands in no layer: add it to LAYERS")));
                    continue;
                }
            },
        };
        for (line, name, in_test) in named_modules(source) {
            let fake = in_test && IN_TESTS.contains(&name.as_str());
            if name != own && !fake && !allowed.contains(&name.as_str()) && is_module(&name) {
                offences.push(source.offence(line, format!("{own} may not import {name}")));
            }
        }
    }
    offences
}

/// Macros and items of the crate's root are no modules.
fn is_module(name: &str) -> bool {
    LAYERS.iter().any(|(module, _)| *module == name)
}

/// The table has no cycle: else it would be no order of layers.
fn cycles(layers: &[(&str, &[&str])]) -> Vec<String> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    loop {
        let ready: Vec<_> = layers
            .iter()
            .filter(|(name, uses)| !done.contains(name) && uses.iter().all(|used| done.contains(used)))
            .map(|(name, _)| *name)
            .collect();
        if ready.is_empty() {
            break;
        }
        done.extend(ready);
    }
    layers
        .iter()
        .filter(|(name, _)| !done.contains(name))
        .map(|(name, _)| format!("{name} is in a cycle"))
        .collect()
}

/// `.expose()` outside its rooms. Integration tests may look for raw keys where none may be, so they are left out.
fn expose_offences(sources: &[Source]) -> Vec<String> {
    let elsewhere =
        |source: &&Source| !source.module().is_some_and(|module| EXPOSING.contains(&module.as_str()));
    let shipped = |source: &&Source| !source.path.starts_with("tests");
    lines_with(
        sources.iter().filter(elsewhere).filter(shipped),
        |line| line.contains(".expose()"),
        "exposes a secret",
    )
}

fn wire_offences(sources: &[Source]) -> Vec<String> {
    let elsewhere = |source: &&Source| {
        source.path.starts_with("src")
            && !source.module().is_some_and(|module| WIRE.contains(&module.as_str()))
    };
    lines_with(sources.iter().filter(elsewhere), |line| line.contains("proto::"), "names generated messages")
}

fn lines_with<'s>(
    sources: impl Iterator<Item = &'s Source>,
    found: impl Fn(&str) -> bool,
    what: &str,
) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources {
        for (number, line) in source.code.lines().enumerate().filter(|(_, line)| found(line)) {
            offences.push(source.offence(number + 1, format!("{what}: {}", line.trim())));
        }
    }
    offences
}

fn file_length_offences(sources: &[Source]) -> Vec<String> {
    let allowed = |source: &Source| LONG_FILES.iter().any(|(path, _)| Path::new(path) == source.path);
    let long = |source: &&Source| source.path.starts_with("src") && source.tests_begin() > MAX_FILE_LINES;
    let offence = |source: &Source| source.offence(MAX_FILE_LINES, format!("{} lines", source.tests_begin()));
    sources.iter().filter(long).filter(|source| !allowed(source)).map(offence).collect()
}

fn function_length_offences(sources: &[Source]) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources {
        let lines: Vec<_> = source.code.lines().collect();
        for (name, first, last) in functions(&source.code) {
            let length = lines[first - 1..last].iter().filter(|line| !line.trim().is_empty()).count();
            if length > MAX_FUNCTION_LINES + 2 {
                offences.push(source.offence(first, format!("fn {name} has {} lines", length - 2)));
            }
        }
    }
    offences
}

/// Name, line of the opening brace and line of the closing brace of each function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let tokens = tokens(code);
    let mut functions = Vec::new();
    for at in (0..tokens.len().saturating_sub(1)).filter(|at| tokens[*at].1 == "fn") {
        let name = tokens[at + 1].1;
        // `fn(` is a type.
        if let Some(open) = body(&tokens, at).filter(|_| name != "(") {
            functions.push((name.to_owned(), tokens[open].0, closing(&tokens, open)));
        }
    }
    functions
}

/// The brace that opens the body of the function at `at`; none when it is only declared.
fn body(tokens: &[(usize, &str)], at: usize) -> Option<usize> {
    let mut depth = 0;
    for (place, (_, token)) in tokens.iter().enumerate().skip(at) {
        match *token {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "{" if depth == 0 => return Some(place),
            ";" if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn closing(tokens: &[(usize, &str)], open: usize) -> usize {
    let mut depth = 0;
    for (line, token) in &tokens[open..] {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return *line;
        }
    }
    tokens.last().map_or(1, |(line, _)| *line)
}

/// Unfinished work, in code and in comments. This file names the marks and is left out.
fn unfinished_offences(sources: &[Source]) -> Vec<String> {
    let marks = ["TODO", "FIXME", "HACK", "todo!", "unimplemented!", "dbg!"];
    let mut offences = Vec::new();
    for source in sources.iter().filter(|source| source.path != Path::new("tests/tidy.rs")) {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                offences.push(source.offence(number + 1, mark));
            }
        }
    }
    offences
}

fn reasonless_offences(sources: &[Source]) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources {
        for start in ["[allow(", "[expect("] {
            for (at, _) in source.code.match_indices(start) {
                let attribute = source.code[at..].split(']').next().unwrap();
                if !attribute.contains("reason =") {
                    let line = source.code[..at].matches('\n').count() + 1;
                    offences.push(source.offence(line, "a lint is silenced without a reason"));
                }
            }
        }
    }
    offences
}

/// The library and each binary forbid `unsafe`, so that nothing below them can allow it; elsewhere only the named files may.
fn unsafe_offences(sources: &[Source]) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources {
        let path = source.path.to_str().unwrap();
        let is_root = path == "src/lib.rs" || path.starts_with("src/bin/");
        if is_root && !source.code.contains("#![forbid(unsafe_code)]") {
            offences.push(source.offence(1, "does not forbid unsafe code"));
        }
        let allowed = UNSAFE.iter().any(|(file, _)| *file == path);
        let silenced =
            ["allow(unsafe_code", "expect(unsafe_code"].iter().any(|start| source.code.contains(start));
        if silenced && !allowed {
            offences.push(source.offence(1, "allows unsafe code"));
        }
    }
    offences
}

fn name_offences(sources: &[Source]) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources {
        let parts = source.path.iter().map(|part| part.to_str().unwrap());
        let names = parts.map(|part| part.strip_suffix(".rs").unwrap_or(part).to_owned());
        let tokens = tokens(&source.code);
        let modules = tokens.windows(2).filter(|pair| pair[0].1 == "mod").map(|pair| pair[1].1.to_owned());
        for name in names.chain(modules).filter(|name| EMPTY_NAMES.contains(&name.as_str())) {
            offences.push(source.offence(1, format!("a module called {name} says nothing")));
        }
    }
    offences
}

fn doc_offences(sources: &[Source]) -> Vec<String> {
    let undocumented = |source: &&Source| source.path.starts_with("src") && !source.text.starts_with("//! ");
    sources.iter().filter(undocumented).map(|source| source.offence(1, "does not begin with //!")).collect()
}

/// Decision records are `NNNN-title.md`, from 0001 without gaps.
fn decision_offences(names: &[&str]) -> Vec<String> {
    let misplaced = |(number, name): (usize, &&str)| {
        let right = name.starts_with(&format!("{number:04}-")) && name.ends_with(".md");
        (!right).then(|| format!("docs/decisions/{name}: number {number:04} was expected"))
    };
    (1..).zip(names).filter_map(misplaced).collect()
}

fn banned_offences(lock: &str) -> Vec<String> {
    let name = |line: &str| {
        line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
    };
    let names = lock.lines().filter_map(name);
    names
        .filter(|name| BANNED_CRATES.contains(&name.as_str()))
        .map(|name| format!("Cargo.lock: {name} is banned"))
        .collect()
}

/// The format's text names every kind, table and label that the sources declare.
fn format_offences(format: &str, kinds: &str, tables: &str, labels: &str) -> Vec<String> {
    let declared = |source: &str, item: &str| -> Vec<(String, String)> {
        let body = source.split_once(item).map_or("", |(_, rest)| rest.split("\n}").next().unwrap());
        let pairs = body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let mut wanted = Vec::new();
    for (name, number) in declared(kinds, "pub enum Kind {") {
        wanted.push(format!("| {number} | `{name}`"));
    }
    for (_, tag) in declared(tables, "pub enum Table {") {
        wanted.push(format!("| `{}` ‖", tag.trim_start_matches("b'").trim_end_matches('\'')));
    }
    for line in labels.lines().filter(|line| line.contains("const ") && line.contains(": &str = ")) {
        wanted.push(line.split('"').nth(1).unwrap().to_owned());
    }
    assert!(wanted.len() > 3, "the declarations were not found");
    let missing = wanted.into_iter().filter(|text| !format.contains(text));
    missing.map(|text| format!("docs/format.md does not have {text}")).collect()
}

/// A name in backticks with three underscores or more is a test, and must be one.
fn cited_tests_offences(document: &str, sources: &[Source]) -> Vec<String> {
    let is_test = |name: &&str| {
        name.matches('_').count() >= 3 && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
    };
    let cited: Vec<_> = document.split('`').skip(1).step_by(2).filter(is_test).collect();
    let exists = |name: &str| sources.iter().any(|source| source.code.contains(&format!("fn {name}(")));
    cited.into_iter().filter(|name| !exists(name)).map(|name| format!("there is no test {name}")).collect()
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust sources of the package.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for dir in ["src", "tests", "benches", "examples"] {
        collect(&package().join(dir), &mut paths);
    }
    paths.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Source::new(path.strip_prefix(package()).unwrap(), text)
    };
    let sources: Vec<_> = paths.into_iter().map(source).collect();
    assert!(sources.len() > 20, "only {} sources were found", sources.len());
    sources
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn none(rule: &str, offences: &[String]) {
    let mut list = String::new();
    for offence in offences {
        writeln!(list, "  {offence}").unwrap();
    }
    assert!(offences.is_empty(), "{rule}: {} offenders\n{list}", offences.len());
}

#[test]
fn modules_import_only_what_their_layer_allows() {
    none("layers", &layer_offences(&sources()));
    none("layers", &cycles(LAYERS));
}

#[test]
fn secrets_are_exposed_in_their_rooms_alone() {
    none("expose", &expose_offences(&sources()));
}

#[test]
fn generated_messages_are_named_at_the_edges_alone() {
    none("proto", &wire_offences(&sources()));
}

#[test]
fn files_and_functions_are_short() {
    none("file length", &file_length_offences(&sources()));
    none("function length", &function_length_offences(&sources()));
}

#[test]
fn nothing_is_left_unfinished() {
    none("unfinished", &unfinished_offences(&sources()));
}

#[test]
fn lints_are_silenced_with_a_reason() {
    none("reasons", &reasonless_offences(&sources()));
}

#[test]
fn the_library_and_the_binaries_forbid_unsafe_code() {
    none("unsafe", &unsafe_offences(&sources()));
}

#[test]
fn modules_have_names_that_say_something_and_begin_with_their_documentation() {
    none("names", &name_offences(&sources()));
    none("documentation", &doc_offences(&sources()));
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let dir = package().join("docs/decisions");
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    assert!(!names.is_empty());
    none("decisions", &decision_offences(&names.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn no_banned_crate_is_locked() {
    none("crates", &banned_offences(&fs::read_to_string(package().join("Cargo.lock")).unwrap()));
}

#[test]
fn the_format_names_every_kind_table_and_label() {
    let read = |path: &str| fs::read_to_string(package().join(path)).unwrap();
    let (kinds, tables) = (read("src/crypto/record.rs"), read("src/store/layout.rs"));
    none("format", &format_offences(&read("docs/format.md"), &kinds, &tables, &read("src/crypto/label.rs")));
}

#[test]
fn the_threat_model_cites_tests_that_exist() {
    let document = fs::read_to_string(package().join("docs/threat-model.md")).unwrap();
    none("threat model", &cited_tests_offences(&document, &sources()));
}

/// The rules themselves.
mod rules {
    use super::*;

    fn source(path: &str, text: &str) -> Vec<Source> {
        vec![Source::new(path, text)]
    }

    fn layers(path: &str, text: &str) -> Vec<String> {
        layer_offences(&source(path, text))
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ \n */ d", "a              \n    d"),
            ("\"a\\\"b\" c", "       c"),
            ("r#\"a\"b\"# c", "         c"),
            ("br\"a\" c", "      c"),
            ("'\"' a", "    a"),
            ("'\\'' a", "     a"),
            ("&'a str", "&'a str"),
            ("'ä' a", "    a"),
            ("r#type", "r#type"),
            ("for \"x\"", "for    "),
            ("\"//\" a", "     a"),
            ("b'\\n' a", "b     a"),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn an_import_against_the_layers_is_found_in_all_its_forms() {
        for text in [
            "use crate::service::Thing;",
            "use crate::{model, service::Thing};",
            "fn f() { crate::service::run() }",
            "use crate::{\n    model::{A, B},\n    service,\n};",
            "use super::super::service::Thing;",
            "use super::super::{model, service};",
            "mod inner { use super::super::super::service; }",
            "#[cfg(test)]\nmod tests { use crate::service::Thing; }",
        ] {
            let found = layers("src/store/sled.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains("store may not import service"), "{found:?}");
        }
        assert_eq!(layers("src/store/mod.rs", "use super::service;").len(), 1);
        assert_eq!(layers("src/store.rs", "use super::service;").len(), 1);
    }

    #[test]
    fn what_is_allowed_or_no_import_is_not_found() {
        for text in [
            "use crate::crypto::Sealed;",
            "use crate::store::Row;",
            "// use crate::service::Thing;",
            "/// [`Thing`](crate::service::Thing)",
            "const A: &str = \"crate::service\";",
            "use super::service;",
            "mod inner { use super::super::service; }",
            "use crate::named_macro;",
            "use other::crate_::service;",
            "#[cfg(test)]\nmod tests { use crate::env::SystemEntropy; }",
        ] {
            assert_eq!(layers("src/store/sled.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn what_tests_may_import_the_code_before_them_may_not() {
        let text = "use crate::env::Clock;\n#[cfg(test)]\nmod tests { use crate::env::Clock; }";
        assert_eq!(layers("src/store/sled.rs", text), ["src/store/sled.rs:1: store may not import env"]);
        assert_eq!(layers("src/store/tests.rs", "use crate::env::Clock;"), [""; 0]);
    }

    #[test]
    fn binaries_and_unknown_modules_are_held_too() {
        assert_eq!(layers("src/bin/strongroomd.rs", "fn main() { strongroom::server::main() }"), [""; 0]);
        let found = layers("src/bin/strongroomd.rs", "use strongroom::keyring::Keyring;");
        assert_eq!(found, ["src/bin/strongroomd.rs:1: bin may not import keyring"]);
        assert!(layers("src/novel/mod.rs", "")[0].contains("stands in no layer"));
    }

    #[test]
    fn a_cycle_in_the_table_is_found() {
        assert_eq!(cycles(&[("a", &["b"]), ("b", &["a"]), ("c", &[])]).len(), 2);
    }

    #[test]
    fn exposing_and_naming_the_wire_elsewhere_is_found() {
        let text = "fn f(key: Key) { key.secret()\n.expose() }";
        assert_eq!(expose_offences(&source("src/service/put.rs", text)).len(), 1);
        assert_eq!(expose_offences(&source("benches/seal.rs", text)).len(), 1);
        for path in ["src/crypto/seal.rs", "src/keyring/mod.rs", "tests/memory.rs"] {
            assert_eq!(expose_offences(&source(path, text)), [""; 0]);
        }
        let text = "use crate::proto::v1;\n// proto::v1 in prose";
        assert_eq!(wire_offences(&source("src/service/put.rs", text)).len(), 1);
        assert_eq!(wire_offences(&source("src/api/put.rs", text)), [""; 0]);
    }

    #[test]
    fn long_files_are_found_and_their_tests_not_counted() {
        let long = "//! x\n".repeat(501);
        assert_eq!(file_length_offences(&source("src/store/a.rs", &long)).len(), 1);
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}", "//! x\n".repeat(400));
        assert_eq!(file_length_offences(&source("src/store/a.rs", &tested)), [""; 0]);
        let early = format!("#[cfg(test)]\nconst A: u8 = 1;\n{long}");
        assert_eq!(file_length_offences(&source("src/store/a.rs", &early)).len(), 1);
    }

    #[test]
    fn long_functions_are_found_and_comments_not_counted() {
        let body = |lines: usize, line: &str| {
            format!("fn f() {{\n{}}}\nfn g() {{}}\n", format!("{line}\n").repeat(lines))
        };
        assert_eq!(
            function_length_offences(&source("src/a.rs", &body(71, "x();"))),
            ["src/a.rs:1: fn f has 71 lines"]
        );
        assert_eq!(function_length_offences(&source("src/a.rs", &body(70, "x();"))), [""; 0]);
        let array = body(71, "x();").replace("fn f()", "fn f(a: [u8; 4]) -> [u8; 4]");
        assert_eq!(function_length_offences(&source("src/a.rs", &array)).len(), 1);
        assert_eq!(function_length_offences(&source("src/a.rs", "trait A { fn f(); }")), [""; 0]);
        assert_eq!(function_length_offences(&source("src/a.rs", &body(200, "// x"))), [""; 0]);
    }

    #[test]
    fn unfinished_work_and_silenced_lints_are_found() {
        for text in ["// TODO: later", "fn f() { todo!() }", "dbg!(x);", "// a HACK"] {
            assert_eq!(unfinished_offences(&source("src/a.rs", text)).len(), 1, "{text}");
        }
        for text in ["#[allow(dead_code)]", "#![allow(\n    dead_code,\n)]", "#[expect(unused)]"] {
            assert_eq!(reasonless_offences(&source("src/a.rs", text)).len(), 1, "{text}");
        }
        let text = "#[allow(\n    dead_code,\n    reason = \"it is ]\"\n)]";
        assert_eq!(reasonless_offences(&source("src/a.rs", text)), [""; 0]);
    }

    #[test]
    fn unsafe_code_is_found_where_it_is_allowed_or_not_forbidden() {
        let forbidding = "//! A root.\n#![forbid(unsafe_code)]\n";
        for (path, text, offences) in [
            ("src/lib.rs", forbidding, 0),
            ("src/lib.rs", "//! #![forbid(unsafe_code)]\n", 1),
            ("src/bin/one.rs", "fn main() {}", 1),
            ("src/store/row.rs", "#![allow(unsafe_code, reason = \"speed\")]", 1),
            ("tests/other.rs", "#![expect(unsafe_code, reason = \"speed\")]", 1),
            (UNSAFE[0].0, "#![expect(unsafe_code, reason = \"an allocator\")]", 0),
        ] {
            assert_eq!(unsafe_offences(&source(path, text)).len(), offences, "{path}: {text}");
        }
    }

    #[test]
    fn empty_names_and_missing_documentation_are_found() {
        assert_eq!(name_offences(&source("src/store/utils.rs", "")).len(), 1);
        assert_eq!(name_offences(&source("src/helper/mod.rs", "")).len(), 1);
        assert_eq!(name_offences(&source("src/store/mod.rs", "mod manager {}")).len(), 1);
        assert_eq!(name_offences(&source("src/store/row.rs", "fn utils() {}")), [""; 0]);
        assert_eq!(doc_offences(&source("src/store/row.rs", "use std::fs;\n//! late")).len(), 1);
    }

    #[test]
    fn gaps_between_decisions_are_found() {
        assert_eq!(decision_offences(&["0001-a.md", "0002-b.md"]), [""; 0]);
        assert_eq!(decision_offences(&["0001-a.md", "0003-b.md"]).len(), 1);
        assert_eq!(decision_offences(&["0001-a.md", "0001-b.md"]).len(), 1);
        assert_eq!(decision_offences(&["0001-a.txt"]).len(), 1);
    }

    #[test]
    fn a_banned_crate_in_the_lock_file_is_found() {
        let lock = "[[package]]\nname = \"ring\"\n[[package]]\nname = \"aws-lc-rs\"\n";
        assert_eq!(banned_offences(lock), ["Cargo.lock: aws-lc-rs is banned"]);
    }

    #[test]
    fn what_the_format_forgets_is_found() {
        let kinds = "pub enum Kind {\n    /// A.\n    Entry = 20,\n    Event = 24,\n}";
        let tables = "pub enum Table {\n    Meta = b'M',\n}";
        let labels = "pub(super) const RECORD: &str = \"strongroom/v1\";";
        let whole = "| 20 | `Entry` | | 24 | `Event` |\n| `M` ‖ \"format\"\nstrongroom/v1";
        assert_eq!(format_offences(whole, kinds, tables, labels), [""; 0]);
        for part in ["| 20 | `Entry`", "| `M` ‖", "strongroom/v1"] {
            let found = format_offences(&whole.replace(part, ""), kinds, tables, labels);
            assert_eq!(found, [format!("docs/format.md does not have {part}")]);
        }
    }

    #[test]
    fn a_cited_test_that_is_gone_is_found() {
        let sources = source("src/a.rs", "#[test]\nfn a_row_does_not_open() {}");
        let document = "shown by `a_row_does_not_open`, `a_row_that_is_gone` and `RLIMIT_MEMLOCK`";
        assert_eq!(cited_tests_offences(document, &sources), ["there is no test a_row_that_is_gone"]);
    }
}
