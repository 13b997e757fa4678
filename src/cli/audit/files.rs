//! The files of an exported log: where each stands, and which do not belong there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::siem::{Converter, Format};
use crate::cli::failure::Failure;
use crate::cli::output::private_file;
use crate::crypto::VerifierKey;
use crate::tlog::{BUNDLE_ENTRY_BYTES, Checkpoint, TileFile, TilePath, tile_paths};

/// The file with the checkpoint, as C2SP tlog-tiles names it.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The file with the events line by line, where they do not stand in bundles.
pub(super) const EVENTS: &str = "events.ndjson";
/// The forms that are made of the lines.
const DERIVED: [Format; 2] = [Format::Ocsf, Format::Cef];

/// The directory of an export.
pub(super) struct ExportFiles<'a>(&'a Path);

/// A new file of lines.
pub(super) struct LinesFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl LinesFile {
    /// Adds a line.
    pub(super) fn push(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(Failure::file(&self.path, "written"))
    }

    /// Writes out what is not written yet.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.file.flush().map_err(Failure::file(&self.path, "written"))
    }
}

impl<'a> ExportFiles<'a> {
    /// Makes the directory, which must not exist.
    pub(super) fn create(directory: &'a Path) -> Result<Self, Failure> {
        fs::create_dir(directory).map_err(Failure::file(directory, "created"))?;
        Ok(Self(directory))
    }

    /// Takes a directory.
    pub(super) const fn open(directory: &'a Path) -> Self {
        Self(directory)
    }

    /// A new file of lines in it.
    pub(super) fn new_file(&self, name: &Path) -> Result<LinesFile, Failure> {
        let path = self.0.join(name);
        let file = private_file(&path, true).map_err(Failure::file(&path, "created"))?;
        Ok(LinesFile { path, file: BufWriter::new(file) })
    }

    /// Writes a whole new file.
    pub(super) fn write(&self, name: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.0.join(name);
        let mut file = private_file(&path, true).map_err(Failure::file(&path, "created"))?;
        file.write_all(bytes).map_err(Failure::file(&path, "written"))
    }

    /// Writes a tile or a bundle.
    pub(super) fn write_tile(&self, tile: &TileFile) -> Result<(), Failure> {
        let name = PathBuf::from(tile.path.to_string());
        if let Some(parent) = name.parent().map(|parent| self.0.join(parent)) {
            fs::create_dir_all(&parent).map_err(Failure::file(&parent, "created"))?;
        }
        self.write(&name, &tile.bytes)
    }

    /// Reads at most so many bytes of a tile or bundle, and one more; `None` when there is none.
    pub(super) fn read_tile(&self, tile: &TilePath, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = found(File::open(self.0.join(tile.to_string())))? else { return Ok(None) };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, most + 1), &mut bytes).map(|_| Some(bytes))
    }

    /// The events line by line; `None`: they stand in bundles.
    pub(super) fn lines(&self) -> Result<Option<BufReader<File>>, Failure> {
        self.read(EVENTS)
    }

    fn read(&self, name: &str) -> Result<Option<BufReader<File>>, Failure> {
        let path = self.0.join(name);
        let file = found(File::open(&path)).map_err(Failure::file(&path, "read"))?;
        Ok(file.map(BufReader::new))
    }

    /// Makes the records of another form of the lines, which are verified.
    pub(super) fn derive(&self, key: &VerifierKey, format: Format) -> Result<(), Failure> {
        let Some(name) = format.derived() else { return Ok(()) };
        let note = super::verify::read_note(&self.0.join(CHECKPOINT))?;
        let checkpoint = Checkpoint::open(&note, key).map_err(Failure::evidence("the checkpoint"))?;
        let mut records = self.new_file(Path::new(name))?;
        self.each_record(key, &checkpoint, format, &mut |_, record| records.push(&record))?;
        records.finish()
    }

    /// Compares the records of other forms, where there are any, with the lines, which are verified.
    pub(super) fn compare_derived(&self, key: &VerifierKey, checkpoint: &Checkpoint) -> Result<(), Failure> {
        for (format, name) in DERIVED.into_iter().filter_map(|format| Some((format, format.derived()?))) {
            let Some(mut records) = self.read(name)? else { continue };
            let path = self.0.join(name);
            let bad = |place: String| Failure::Tampered { place };
            self.each_record(key, checkpoint, format, &mut |sequence, record| {
                let most = record.len() as u64 + 1;
                let mut found = Vec::new();
                let read = io::Read::take(&mut records, most).read_until(b'\n', &mut found);
                read.map_err(Failure::file(&path, "read"))?;
                match found.strip_suffix(b"\n") == Some(record.as_bytes()) {
                    true => Ok(()),
                    false => Err(bad(format!("event {sequence} in {name} is not the one that was signed"))),
                }
            })?;
            if !records.fill_buf().map_err(Failure::file(&path, "read"))?.is_empty() {
                return Err(bad(format!("{name} goes on after the last event")));
            }
        }
        Ok(())
    }

    /// Hands on the record of each line.
    fn each_record(
        &self,
        key: &VerifierKey,
        checkpoint: &Checkpoint,
        format: Format,
        take: &mut dyn FnMut(u64, String) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(mut lines) = self.lines()? else {
            return Err(Failure::Tampered { place: format!("{EVENTS} is missing") });
        };
        let mut converter = Converter::new(key.name(), &checkpoint.origin, format);
        for sequence in 0..checkpoint.size {
            let mut line = String::new();
            let most = BUNDLE_ENTRY_BYTES as u64 + 1;
            let read = io::Read::take(&mut lines, most).read_line(&mut line);
            read.map_err(Failure::file(&self.0.join(EVENTS), "read"))?;
            let record = converter.next(line.trim_end_matches('\n'));
            take(sequence, record.ok_or(Failure::Malformed("access log line"))?)?;
        }
        Ok(())
    }

    /// Finds a file that belongs to no part of a log of this size.
    pub(super) fn find_surplus(&self, size: u64, in_lines: bool) -> Result<(), Failure> {
        let mut known: HashSet<PathBuf> = [CHECKPOINT.into()].into();
        if in_lines {
            known.insert(EVENTS.into());
            known.extend(DERIVED.iter().filter_map(|format| format.derived()).map(PathBuf::from));
        }
        for tile in tile_paths(size) {
            known.insert(tile.to_string().into());
            if tile.level == Some(0) && !in_lines {
                known.insert(tile.entries().to_string().into());
            }
        }
        let mut directories = vec![self.0.to_owned()];
        while let Some(directory) = directories.pop() {
            let failed = Failure::file(&directory, "read");
            for entry in fs::read_dir(&directory).map_err(&failed)? {
                let entry = entry.map_err(&failed)?;
                let path = entry.path();
                if entry.file_type().map_err(&failed)?.is_dir() {
                    directories.push(path);
                } else if let Some(name) =
                    path.strip_prefix(self.0).ok().filter(|name| !known.contains(*name))
                {
                    let place = format!("{} belongs to no part of the log", name.display());
                    return Err(Failure::Tampered { place });
                }
            }
        }
        Ok(())
    }
}

/// What there is, or `None` when there is nothing of that name.
fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
