//! What commands print: results on standard output as tables or JSON, everything else on standard error.
//!
//! A table is aligned and has its times in UTC. JSON has the same facts under stable names: one document for a result,
//! an array for a listing, one line per item for a stream. Control characters from the server never reach a terminal.
//! Listings are written block by block, so memory stays bounded however long they are.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use clap::ValueEnum;
use serde::{Serialize, Serializer};
use unicode_width::UnicodeWidthStr as _;

use super::failure::Failure;
use crate::model::Timestamp;

#[cfg(test)]
pub(crate) mod tests;

/// Rows that are aligned together; the next block keeps at least the widths of the one before.
const BLOCK_ROWS: usize = 1000;
/// The last millisecond of the year 9999, the latest time that RFC 3339 can write.
const LATEST: u64 = 253_402_300_799_999;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people
    #[default]
    Table,
    /// JSON, for programs
    Json,
}

/// Something that can be printed in either format.
pub trait Record: Serialize {
    /// Headings of the table, one for each cell.
    const COLUMNS: &'static [&'static str];

    /// The cells of this row.
    fn cells(&self) -> Vec<String>;
}

/// The terminal, or what stands in its place.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    input: Box<dyn BufRead + Send>,
    format: Format,
    quiet: bool,
    asks: bool,
    colours: bool,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Console {
    /// Takes the standard streams of this process.
    #[must_use]
    pub fn of_process(format: Format, quiet: bool) -> Self {
        Self {
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            input: Box::new(io::BufReader::new(io::stdin())),
            format,
            quiet,
            asks: io::stdin().is_terminal() && io::stderr().is_terminal(),
            colours: io::stdout().is_terminal(),
        }
    }

    /// The format of results.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether somebody is there to answer a question.
    #[must_use]
    pub const fn asks(&self) -> bool {
        self.asks
    }

    /// Prints one result: a name and a value a line, or one JSON document.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn record<R: Record>(&mut self, record: &R) -> Result<(), Failure> {
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut self.out, record).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
            Format::Table => self.pairs(R::COLUMNS, &record.cells())?,
        }
        Ok(self.out.flush()?)
    }

    fn pairs(&mut self, columns: &[&str], cells: &[String]) -> io::Result<()> {
        let width = columns.iter().map(|column| column.width()).max().unwrap_or_default();
        for (column, cell) in columns.iter().zip(cells) {
            let name = self.heading(&column.to_lowercase(), width);
            writeln!(self.out, "{name}  {}", printable(cell))?;
        }
        Ok(())
    }

    /// Begins a listing: a table, or one JSON array.
    pub fn listing<R: Record>(&mut self) -> Listing<'_, R> {
        Listing {
            console: self,
            widths: widths_of(R::COLUMNS),
            rows: Vec::new(),
            written: 0,
            record: std::marker::PhantomData,
        }
    }

    /// Begins a stream: rows that appear as they come, or JSON lines.
    ///
    /// `widths` are the least widths of the columns, because later rows cannot move earlier ones.
    pub fn stream<R: Record>(&mut self, widths: &[usize]) -> Stream<'_, R> {
        let mut least = widths_of(R::COLUMNS);
        for (width, least) in widths.iter().zip(&mut least) {
            *least = (*least).max(*width);
        }
        Stream { console: self, widths: least, begun: false, record: std::marker::PhantomData }
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(self.out.flush()?)
    }

    /// Says something to the person at the terminal, unless they asked for quiet.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn say(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        if !self.quiet {
            writeln!(self.err, "{text}")?;
        }
        Ok(())
    }

    /// Asks for one line.
    ///
    /// # Errors
    /// [`Failure::Output`] when a stream breaks.
    pub fn ask(&mut self, question: impl fmt::Display) -> Result<String, Failure> {
        write!(self.err, "{question} ")?;
        self.err.flush()?;
        let mut answer = String::new();
        self.input.read_line(&mut answer)?;
        Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Reads everything that comes on standard input, but not more than `most` bytes and one.
    ///
    /// # Errors
    /// What reading returned.
    pub fn read_input(&mut self, most: usize) -> io::Result<Vec<u8>> {
        read_bounded(&mut self.input, most)
    }

    fn heading(&self, text: &str, width: usize) -> String {
        let padded = pad(text, width);
        if self.colours { format!("\u{1b}[1m{padded}\u{1b}[0m") } else { padded }
    }

    fn write_heading(&mut self, columns: &[&str], widths: &[usize]) -> io::Result<()> {
        let last = columns.len().saturating_sub(1);
        let cells = columns.iter().zip(widths).enumerate();
        let line: Vec<String> = cells
            .map(|(at, (column, width))| self.heading(column, if at == last { 0 } else { *width }))
            .collect();
        writeln!(self.out, "{}", line.join("  "))
    }

    fn write_row(&mut self, cells: &[String], widths: &[usize]) -> io::Result<()> {
        let cells = cells.iter().zip(widths);
        let line: Vec<String> = cells.map(|(cell, width)| pad(cell, *width)).collect();
        writeln!(self.out, "{}", line.join("  ").trim_end())
    }
}

/// Reads up to one byte more than `most`, so that the caller can tell that there was too much.
///
/// # Errors
/// What reading returned.
pub fn read_bounded(from: &mut dyn io::Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    io::Read::read_to_end(&mut io::Read::take(from, bound), &mut bytes)?;
    Ok(bytes)
}

/// A listing that is being printed. [`Listing::finish`] must end it.
#[derive(Debug)]
pub struct Listing<'a, R> {
    console: &'a mut Console,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    written: usize,
    record: std::marker::PhantomData<R>,
}

impl<R: Record> Listing<'_, R> {
    /// Adds one item.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn push(&mut self, record: &R) -> Result<(), Failure> {
        match self.console.format {
            Format::Json => {
                let before = if self.written == 0 { "[\n  " } else { ",\n  " };
                self.console.out.write_all(before.as_bytes())?;
                serde_json::to_writer(&mut self.console.out, record).map_err(io::Error::from)?;
            }
            Format::Table => {
                self.rows.push(record.cells().iter().map(|cell| printable(cell)).collect());
                if self.rows.len() == BLOCK_ROWS {
                    self.write_block()?;
                }
            }
        }
        self.written = self.written.saturating_add(1);
        Ok(())
    }

    /// Prints what is left.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn finish(mut self) -> Result<(), Failure> {
        match self.console.format {
            Format::Json if self.written == 0 => self.console.out.write_all(b"[]\n")?,
            Format::Json => self.console.out.write_all(b"\n]\n")?,
            Format::Table => self.write_block()?,
        }
        Ok(self.console.out.flush()?)
    }

    fn write_block(&mut self) -> io::Result<()> {
        let first = self.written < BLOCK_ROWS;
        for row in &self.rows {
            widen(&mut self.widths, row);
        }
        if first {
            self.console.write_heading(R::COLUMNS, &self.widths)?;
        }
        for row in self.rows.drain(..) {
            self.console.write_row(&row, &self.widths)?;
        }
        Ok(())
    }
}

/// A stream that is being printed, every item at once.
#[derive(Debug)]
pub struct Stream<'a, R> {
    console: &'a mut Console,
    widths: Vec<usize>,
    begun: bool,
    record: std::marker::PhantomData<R>,
}

impl<R: Record> Stream<'_, R> {
    /// Prints one item.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn push(&mut self, record: &R) -> Result<(), Failure> {
        match self.console.format {
            Format::Json => {
                serde_json::to_writer(&mut self.console.out, record).map_err(io::Error::from)?;
                self.console.out.write_all(b"\n")?;
            }
            Format::Table => {
                let row: Vec<String> = record.cells().iter().map(|cell| printable(cell)).collect();
                widen(&mut self.widths, &row);
                if !self.begun {
                    self.console.write_heading(R::COLUMNS, &self.widths)?;
                    self.begun = true;
                }
                self.console.write_row(&row, &self.widths)?;
            }
        }
        Ok(self.console.out.flush()?)
    }
}

/// A point in time as it is printed: RFC 3339 in UTC, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Duration::from_millis(self.0.as_millis().min(LATEST));
        humantime::format_rfc3339_millis(UNIX_EPOCH + since).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes of a value as JSON: `text` when they are UTF-8, else `base64`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// The bytes are this text.
    Text(String),
    /// The bytes, in standard base64 with padding.
    Base64(String),
}

impl From<&Bytes> for Content {
    fn from(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(data_encoding::BASE64.encode(bytes)),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(…)")
    }
}

/// Opens a file for its owner alone: a new one, or, unless it must be `new`, an old one that is emptied.
///
/// # Errors
/// What the system said; `AlreadyExists` when it must be new and is not.
pub fn private_file(path: &Path, new: bool) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(!new).create_new(new);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
        let file = options.mode(0o600).open(path)?;
        // The mode above counts for a new file only.
        if file.metadata()?.is_file() {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

/// Labels as a cell: `a=1 b=2`.
#[must_use]
pub fn label_cell<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// What may be absent as a cell: `-` when it is.
#[must_use]
pub fn optional_cell(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The text with every control character shown as an escape, so that it cannot steer a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    if !text.chars().any(steers) {
        return text.to_owned();
    }
    let escape = |c: char| if steers(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Control characters, and those that turn the direction of writing.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn widths_of(columns: &[&str]) -> Vec<usize> {
    columns.iter().map(|column| column.width()).collect()
}

fn widen(widths: &mut [usize], row: &[String]) {
    for (width, cell) in widths.iter_mut().zip(row) {
        *width = (*width).max(cell.width());
    }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}
