//! Recall and precision of the built-in rules on a labelled file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cli::failure::Failure;
use crate::cli::invocation::Invocation;
use crate::cli::output::Record;
use crate::redact::{Category, Match, Redactor};

/// Longest line that is read, in bytes.
const LINE_BYTES: u64 = 16 << 20;

/// Arguments of `policy score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// File with labelled texts
    file: PathBuf,
    /// Also print where the rules were wrong: line, type or rule, and offsets in bytes, never text
    #[arg(long)]
    misses: bool,
}

/// A labelled text.
#[derive(Deserialize)]
struct Line {
    text: String,
    #[serde(default)]
    spans: Option<Vec<Span>>,
    #[serde(default)]
    secret: Option<bool>,
    #[serde(default)]
    rule: Option<String>,
}

/// A labelled piece; offsets count characters.
#[derive(Deserialize)]
struct Span {
    #[serde(rename = "type")]
    kind: String,
    start: usize,
    end: usize,
}

/// Types of spans, and the rules that find them.
const TYPES: &[(&[&str], &[&str])] = &[
    (&["CREDIT_CARD"], &["card"]),
    (&["EMAIL_ADDRESS"], &["email"]),
    (&["IBAN_CODE"], &["iban"]),
    (&["PHONE_NUMBER"], &["phone"]),
    (&["US_SSN"], &["us-ssn", "us-itin"]),
    (&["IP_ADDRESS"], &["ipv4", "ipv6"]),
    (&["URL", "DOMAIN_NAME"], &["url", "domain"]),
];

/// What was counted for one type.
#[derive(Default, Clone, Copy)]
struct Count {
    labelled: u64,
    found: u64,
    right: u64,
    wrong: u64,
}

/// One line of the result.
#[derive(Serialize)]
struct ScoreRecord {
    r#type: String,
    labelled: u64,
    found: u64,
    recall: Option<f64>,
    precision: Option<f64>,
    f1: Option<f64>,
    false_positives: u64,
    megabytes_per_second: Option<f64>,
}

impl ScoreArgs {
    /// Scores the file.
    ///
    /// # Errors
    /// [`Failure`] when the file cannot be read or is not labelled.
    pub(super) fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let lines = self.read()?;
        let redactor = Redactor::standard();
        let mut scores = Scores { misses: self.misses, ..Scores::default() };
        for (number, line) in (1_u64..).zip(&lines) {
            let began = Instant::now();
            let matches =
                redactor.matches(line.text.as_bytes()).map_err(|_| Failure::Malformed("labelled text"))?;
            scores.spent += began.elapsed();
            scores.bytes += line.text.len();
            if let Some(spans) = &line.spans {
                scores.spans(number, &line.text, spans, &matches);
            }
            if let Some(secret) = line.secret {
                scores.secret(number, line.rule.as_deref().unwrap_or("-"), secret, &matches);
            }
        }
        for miss in &scores.notes {
            invocation.console.say(miss)?;
        }
        let mut listing = invocation.console.listing::<ScoreRecord>();
        for record in scores.records() {
            listing.push(&record)?;
        }
        listing.finish()
    }

    fn read(&self) -> Result<Vec<Line>, Failure> {
        let failed = Failure::file(&self.file, "read");
        let mut reader = BufReader::new(File::open(&self.file).map_err(&failed)?);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).map_err(&failed)?;
            if read == 0 {
                return Ok(lines);
            }
            let line: Line =
                serde_json::from_slice(&line).map_err(|_| Failure::Malformed("labelled line"))?;
            if line.spans.is_none() && line.secret.is_none() {
                return Err(Failure::Malformed("labelled line"));
            }
            lines.push(line);
        }
    }
}

#[derive(Default)]
struct Scores {
    misses: bool,
    notes: Vec<String>,
    bytes: usize,
    spent: Duration,
    types: BTreeMap<&'static str, Count>,
    secrets: Count,
    /// Texts without a secret, and those of them in which one was found.
    innocent: (u64, u64),
}

impl Scores {
    fn spans(&mut self, number: u64, text: &str, spans: &[Span], matches: &[Match]) {
        let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let place = |character: usize| offsets.get(character).copied().unwrap_or(text.len());
        let labelled: Vec<(&str, Range<usize>)> =
            spans.iter().map(|span| (span.kind.as_str(), place(span.start)..place(span.end))).collect();
        for (kinds, rules) in TYPES {
            let of_type = |kind: &str| kinds.contains(&kind);
            let of_rule = |found: &&Match| rules.contains(&found.rule);
            let mut count = Count::default();
            for (_, span) in labelled.iter().filter(|(kind, _)| of_type(kind)) {
                count.labelled += 1;
                let covered = covered(span, matches.iter().filter(of_rule));
                count.found += u64::from(covered);
                self.note(!covered, || {
                    format!("line {number}: {} missed at {}..{}", kinds.join("/"), span.start, span.end)
                });
            }
            let mut finds: Vec<&Match> = matches.iter().filter(of_rule).collect();
            finds.sort_by_key(|found| (found.span.start, std::cmp::Reverse(found.span.end)));
            finds.dedup_by(|next, first| next.span.start < first.span.end);
            for found in finds {
                let touches =
                    |span: &Range<usize>| found.span.start < span.end && span.start < found.span.end;
                let right = labelled.iter().any(|(kind, span)| of_type(kind) && touches(span));
                // A part of something else that is labelled is no mistake, and no merit: a domain within an address.
                let within =
                    |span: &Range<usize>| span.start <= found.span.start && found.span.end <= span.end;
                let pattern = |kind: &str| TYPES.iter().any(|(kinds, _)| kinds.contains(&kind));
                let part = !right && labelled.iter().any(|(kind, span)| pattern(kind) && within(span));
                count.right += u64::from(right);
                count.wrong += u64::from(!right && !part);
                self.note(!right && !part, || {
                    format!("line {number}: {} wrong at {}..{}", found.rule, found.span.start, found.span.end)
                });
            }
            let name = kinds.first().copied().unwrap_or_default();
            self.types.entry(name).or_default().add(count);
        }
    }

    fn secret(&mut self, number: u64, rule: &str, secret: bool, matches: &[Match]) {
        let hits: Vec<&str> = matches
            .iter()
            .filter(|found| found.category == Category::Credential)
            .map(|found| found.rule)
            .collect();
        if secret {
            self.secrets.labelled += 1;
            self.secrets.found += u64::from(!hits.is_empty());
            self.note(hits.is_empty(), || format!("line {number}: {rule} missed"));
        } else {
            self.innocent.0 += 1;
            self.innocent.1 += u64::from(!hits.is_empty());
            self.note(!hits.is_empty(), || {
                format!("line {number}: {rule} is said to hold none, {} found", hits.join(" "))
            });
        }
    }

    fn note(&mut self, wanted: bool, note: impl FnOnce() -> String) {
        if wanted && self.misses {
            self.notes.push(note());
        }
    }

    fn records(&self) -> Vec<ScoreRecord> {
        let mut total = Count::default();
        let mut records = Vec::new();
        for (name, count) in &self.types {
            total.add(*count);
            records.push(ScoreRecord::new(name, *count));
        }
        let speed = ratio(self.bytes as u64, u64::try_from(self.spent.as_micros()).unwrap_or(u64::MAX));
        if !records.is_empty() {
            records.push(ScoreRecord { megabytes_per_second: speed, ..ScoreRecord::new("all types", total) });
        }
        if self.secrets.labelled + self.innocent.0 > 0 {
            let (texts, wrong) = self.innocent;
            let count = Count { right: self.secrets.found, wrong, ..self.secrets };
            records.push(ScoreRecord { megabytes_per_second: speed, ..ScoreRecord::new("secrets", count) });
            let innocent = Count { labelled: texts, ..Count::default() };
            let record = ScoreRecord::new("without secrets", innocent);
            records.push(ScoreRecord { false_positives: wrong, recall: None, ..record });
        }
        records
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.labelled += other.labelled;
        self.found += other.found;
        self.right += other.right;
        self.wrong += other.wrong;
    }
}

impl ScoreRecord {
    fn new(name: &str, count: Count) -> Self {
        let recall = ratio(count.found, count.labelled);
        let precision = ratio(count.right, count.right + count.wrong);
        let f1 = recall.zip(precision).filter(|(r, p)| r + p > 0.0).map(|(r, p)| 2.0 * r * p / (r + p));
        Self {
            r#type: name.to_owned(),
            labelled: count.labelled,
            found: count.found,
            recall,
            precision,
            f1,
            false_positives: count.wrong,
            megabytes_per_second: None,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of lines and bytes of a file are far below 2^52")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Whether finds cover all of a span.
fn covered<'m>(span: &Range<usize>, finds: impl Iterator<Item = &'m Match>) -> bool {
    let mut finds: Vec<&Range<usize>> = finds.map(|found| &found.span).collect();
    finds.sort_by_key(|found| found.start);
    let end =
        finds.iter().fold(span.start, |end, found| if found.start <= end { end.max(found.end) } else { end });
    end >= span.end
}

impl Record for ScoreRecord {
    const COLUMNS: &'static [&'static str] =
        &["TYPE", "LABELLED", "FOUND", "RECALL", "PRECISION", "F1", "FALSE POSITIVES", "MB/S"];

    fn cells(&self) -> Vec<String> {
        let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"));
        let speed = self.megabytes_per_second.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.0}"));
        vec![
            self.r#type.clone(),
            self.labelled.to_string(),
            self.found.to_string(),
            share(self.recall),
            share(self.precision),
            share(self.f1),
            self.false_positives.to_string(),
            speed,
        ]
    }
}
