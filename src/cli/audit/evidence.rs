//! What the server says of a log, checked before it is handed on: the key, checkpoints, proofs, exports.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt as _;

use super::LogArgs;
use super::files::{CHECKPOINT, EVENTS, ExportFiles, LinesFile};
use super::siem::Format;
use super::verify::{self, KeyArgs};
use crate::cli::failure::Failure;
use crate::cli::invocation::Invocation;
use crate::cli::output::private_file;
use crate::client::AuditExport;
use crate::tlog::{Checkpoint, ProofFile, TileWriter, verify_consistency};

/// Arguments of `audit checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// File with an earlier checkpoint of the log
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

/// Arguments of `audit proof`.
#[derive(Debug, Args)]
pub struct ProofArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The event's sequence number
    sequence: u64,
    /// New file for the event's line, which the proof is about
    #[arg(long, value_name = "FILE")]
    line: Option<PathBuf>,
}

/// Arguments of `audit export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Directory to write to; must not exist
    directory: PathBuf,
    /// In which form the events are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// Prints the key of a log.
pub(super) async fn key(args: &LogArgs, invocation: &mut Invocation) -> Result<(), Failure> {
    let log = args.name(invocation)?;
    let signed = invocation.admin()?.audit_checkpoint(log.as_deref(), 0).await;
    let key = signed.map_err(Failure::call("read the log's key"))?.verifier_key.clone();
    verify::key(&key)?;
    invocation.console.raw(format!("{key}\n").as_bytes())
}

impl CheckpointArgs {
    pub(super) async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let log = self.log.name(invocation)?;
        let earlier = self.since.as_deref().map(verify::read_note).transpose()?;
        // Its signature is looked at below, with the key; its size is what is asked for.
        let size = match &earlier {
            Some(note) => {
                Checkpoint::unverified(note).map_err(Failure::evidence("the earlier checkpoint"))?.size
            }
            None => 0,
        };
        let signed = invocation.admin()?.audit_checkpoint(log.as_deref(), size).await;
        let signed = signed.map_err(Failure::call("read a checkpoint"))?.into_inner();
        let key = self.key.or(&signed.verifier_key)?;
        let now = Checkpoint::open(&signed.checkpoint, &key).map_err(Failure::evidence("the checkpoint"))?;
        if let Some(note) = earlier {
            let then = Checkpoint::open(&note, &key).map_err(Failure::evidence("the earlier checkpoint"))?;
            if !verify_consistency((then.size, &then.root), (now.size, &now.root), &signed.consistency) {
                return Err(Failure::Rewritten { events: then.size });
            }
        }
        invocation.console.raw(signed.checkpoint.as_bytes())
    }
}

impl ProofArgs {
    pub(super) async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let log = self.log.name(invocation)?;
        let proven = invocation.admin()?.prove_event(log.as_deref(), self.sequence).await;
        let proven = proven.map_err(Failure::call("prove the event"))?.into_inner();
        let key = self.key.or(&proven.verifier_key)?;
        let proof = ProofFile::parse(&proven.proof).map_err(Failure::evidence("the proof"))?;
        proof.verify(proven.line.as_bytes(), &key).map_err(Failure::evidence("the proof"))?;
        if proof.index != self.sequence {
            return Err(Failure::Malformed("proof"));
        }
        if let Some(path) = &self.line {
            write(path, proven.line.as_bytes())?;
        }
        invocation.console.raw(proven.proof.as_bytes())
    }
}

impl ExportArgs {
    pub(super) async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let log = self.log.name(invocation)?;
        let export = invocation.admin()?.export_audit(log.as_deref()).await;
        let mut export = export.map_err(Failure::call("export the log"))?;
        let key = self.key.or(&export.verifier_key)?;
        let files = ExportFiles::create(&self.directory)?;
        match self.format {
            Format::Tiles => write_events(&files, &mut export, None).await?,
            Format::Ndjson | Format::Ocsf | Format::Cef => {
                let mut lines = files.new_file(Path::new(EVENTS))?;
                write_events(&files, &mut export, Some(&mut lines)).await?;
            }
        }
        // Last, so that an export that was cut off is none.
        files.write(Path::new(CHECKPOINT), export.checkpoint.as_bytes())?;
        let verified = verify::directory(&self.directory, &key, None)?;
        files.derive(&key, self.format)?;
        invocation.console.record(&verified)
    }
}

/// Writes the tiles, and the events: line by line to `lines`, or in bundles.
async fn write_events(
    files: &ExportFiles<'_>,
    export: &mut AuditExport,
    mut lines: Option<&mut LinesFile>,
) -> Result<(), Failure> {
    let mut writer = TileWriter::new(lines.is_none());
    while let Some(page) = export.lines.next().await {
        for line in page.map_err(Failure::call("export the log"))? {
            let tiles = writer.push(line.as_bytes()).map_err(|_| Failure::Malformed("access log line"))?;
            tiles.iter().try_for_each(|tile| files.write_tile(tile))?;
            if let Some(lines) = &mut lines {
                lines.push(&line)?;
            }
        }
    }
    if let Some(lines) = lines {
        lines.finish()?;
    }
    writer.finish().iter().try_for_each(|tile| files.write_tile(tile))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = private_file(path, true).map_err(Failure::file(path, "created"))?;
    file.write_all(bytes).map_err(Failure::file(path, "written"))
}
