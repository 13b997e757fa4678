//! Exported logs, verified without asking the server.

use std::fs::File;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::files::{CHECKPOINT, ExportFiles};
use crate::cli::failure::Failure;
use crate::cli::invocation::Invocation;
use crate::cli::output::{Record, read_bounded};
use crate::crypto::VerifierKey;
use crate::tlog::{Checkpoint, Export, TilePath, VerifyError, verify_export};

/// Longest checkpoint or key that is read, in bytes.
const NOTE_BYTES: usize = 64 * 1024;

/// The key that is trusted.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// File with the log's key, as 'audit key' printed it at another time; without it, what the server says now is believed
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Directory with an exported log
    directory: PathBuf,
    /// File with the log's key, as 'audit key' printed it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File with an earlier checkpoint: the log must go on from it
    #[arg(long, value_name = "CHECKPOINT")]
    since: Option<PathBuf>,
}

impl KeyArgs {
    /// The key of the file, or the one that the server named.
    pub(super) fn or(&self, named: &str) -> Result<VerifierKey, Failure> {
        match &self.key {
            Some(path) => key_of(path),
            None => key(named),
        }
    }
}

impl VerifyArgs {
    pub(super) fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let key = key_of(&self.key)?;
        let earlier = self.since.as_deref().map(read_note).transpose()?;
        let earlier = earlier.map(|note| Checkpoint::open(&note, &key)).transpose();
        let earlier = earlier.map_err(Failure::evidence("the earlier checkpoint"))?;
        let verified = directory(&self.directory, &key, earlier.as_ref())?;
        invocation.console.record(&verified)
    }
}

/// Verifies an export against its own checkpoint, and that it goes on from an `earlier` one.
pub(super) fn directory(
    path: &Path,
    key: &VerifierKey,
    earlier: Option<&Checkpoint>,
) -> Result<VerifiedRecord, Failure> {
    let files = ExportFiles::open(path);
    let note = read_note(&path.join(CHECKPOINT))?;
    let checkpoint = Checkpoint::open(&note, key).map_err(Failure::evidence("the checkpoint"))?;
    let mut lines = files.lines()?;
    let in_lines = lines.is_some();
    let mut file = |place: &TilePath, most: u64| files.read_tile(place, most);
    let lines = lines.as_mut().map(|lines| lines as &mut dyn BufRead);
    match verify_export(Export { file: &mut file, lines }, &checkpoint, earlier, &mut is_numbered) {
        Ok(()) => {}
        Err(VerifyError::Bad(place)) => return Err(Failure::Tampered { place: place.to_string() }),
        Err(VerifyError::Read(source)) => return Err(Failure::file(path, "read")(source)),
    }
    files.compare_derived(key, &checkpoint)?;
    files.find_surplus(checkpoint.size, in_lines)?;
    Ok(VerifiedRecord::new(&checkpoint, earlier))
}

/// Whether an event says that it is number `sequence`.
fn is_numbered(sequence: u64, line: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
    }
    serde_json::from_slice::<Numbered>(line).is_ok_and(|line| line.seq == sequence)
}

/// Reads a checkpoint's note.
pub(super) fn read_note(path: &Path) -> Result<String, Failure> {
    let failed = Failure::file(path, "read");
    let bytes = File::open(path).and_then(|mut file| read_bounded(&mut file, NOTE_BYTES)).map_err(&failed)?;
    String::from_utf8(bytes).map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}

/// Reads a verifier key.
pub(super) fn key(text: &str) -> Result<VerifierKey, Failure> {
    text.trim().parse().map_err(Failure::evidence("the key"))
}

fn key_of(path: &Path) -> Result<VerifierKey, Failure> {
    key(&read_note(path)?)
}

/// What was verified, as it is printed.
#[derive(Serialize)]
pub(super) struct VerifiedRecord {
    log: String,
    events: u64,
    root: String,
    goes_on_from: Option<u64>,
}

impl VerifiedRecord {
    fn new(checkpoint: &Checkpoint, earlier: Option<&Checkpoint>) -> Self {
        Self {
            log: checkpoint.origin.clone(),
            events: checkpoint.size,
            root: data_encoding::BASE64.encode(&checkpoint.root),
            goes_on_from: earlier.map(|earlier| earlier.size),
        }
    }
}

impl Record for VerifiedRecord {
    const COLUMNS: &'static [&'static str] = &["LOG", "EVENTS", "ROOT", "GOES ON FROM"];

    fn cells(&self) -> Vec<String> {
        let goes_on_from = crate::cli::output::optional_cell(self.goes_on_from);
        vec![self.log.clone(), self.events.to_string(), self.root.clone(), goes_on_from]
    }
}
