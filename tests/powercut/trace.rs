//! What a power cut would have left of a directory.
//!
//! A program runs with a shim preloaded ([`Shim::trace`]) that appends to a trace every call that changes a
//! file below one directory, and every sync. From the trace, [`Replay`] makes the directory as it could stand
//! after a power cut at any place of the trace: what was synced is there, and of the rest nothing, a
//! beginning, or any part of it ([`Left`]).
//!
//! **Where acknowledgements stand.** Whoever is told by the program that something is durable reads
//! [`position`] *after* it was told: the trace's length at that moment. Everything that made it durable is
//! recorded below that length, so a cut at that position or later must keep it; a cut before it may. This
//! holds from within the program and from any other process (a client of a traced server), with no clock
//! involved.
//!
//! The model: a sync of a file makes its contents durable, not its name; a sync of a directory makes the
//! names in it durable. Writes to one file and to different files may reach the device in any order, and a
//! write in pieces of 512 bytes. This is harsher than any file system in use.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiled shim.
pub struct Shim {
    library: PathBuf,
}

/// Kinds of calls that [`Shim::fail`] can make fail.
#[derive(Debug, Clone, Copy)]
pub enum Fails {
    Write = 2,
    Sync = 6,
}

impl Shim {
    /// Compiles the shim into `directory`; says why when there is no C compiler.
    pub fn build(directory: &Path) -> Result<Self, String> {
        let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
        fs::write(&source, include_str!("shim.c")).map_err(|error| error.to_string())?;
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .map_err(|error| format!("cc cannot be run: {error}"))?;
        if compiler.status.success() {
            Ok(Self { library })
        } else {
            Err(format!("cc failed: {}", String::from_utf8_lossy(&compiler.stderr)))
        }
    }

    /// Has `command` record what it does below `root`, which must exist, in the file `trace` elsewhere.
    pub fn trace(&self, command: &mut Command, root: &Path, trace: &Path) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("STRONGROOM_TRACE_ROOT", root)
            .env("STRONGROOM_TRACE_FILE", trace);
    }

    /// Has call `number` of a kind, and all later ones of it, fail with a system error number.
    pub fn fail(command: &mut Command, kind: Fails, number: u32, errno: i32) {
        command.env("STRONGROOM_TRACE_FAIL", format!("{}:{number}:{errno}", kind as u32));
    }

    /// Runs `command` as if it never called a function: `fsync`, `fdatasync`, or `all` of both.
    pub fn without(command: &mut Command, function: &str) {
        command.env("STRONGROOM_TRACE_IGNORE", function);
    }
}

/// The length of a trace now: see the module's word on acknowledgements.
pub fn position(trace: &Path) -> u64 {
    fs::metadata(trace).map_or(0, |file| file.len())
}

/// A recorded call.
#[derive(Debug, Clone)]
enum Call {
    Create { path: String, directory: bool },
    Write { path: String, offset: u64, bytes: Range<usize> },
    Truncate { path: String, length: u64 },
    Rename { from: String, to: String },
    Link { from: String, to: String },
    Remove { path: String },
    Sync { path: String, began: u64 },
}

/// A recorded run.
pub struct Trace {
    bytes: Vec<u8>,
    /// Calls, each with the place in the trace where its record ends.
    calls: Vec<(u64, Call)>,
}

const HEADER_BYTES: usize = 32;

impl Trace {
    /// Reads a whole trace.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let (mut calls, mut at) = (Vec::new(), 0);
        while let Some((end, call)) = parse(&bytes, at)? {
            calls.push((end as u64, call));
            at = end;
        }
        Ok(Self { bytes, calls })
    }

    /// Where a cut can be: the end of each record.
    pub fn ends(&self) -> impl ExactSizeIterator<Item = u64> {
        self.calls.iter().map(|(end, _)| *end)
    }

    /// Bytes written, and the syncs.
    pub fn volume(&self) -> (u64, usize) {
        let written = |call: &Call| if let Call::Write { bytes, .. } = call { bytes.len() as u64 } else { 0 };
        let syncs = self.calls.iter().filter(|(_, call)| matches!(call, Call::Sync { .. })).count();
        (self.calls.iter().map(|(_, call)| written(call)).sum(), syncs)
    }

    /// The most bytes that were written to a file between two of its syncs.
    pub fn longest_unsynced(&self, file: &str) -> u64 {
        let (mut longest, mut open) = (0, Vec::<(u64, u64)>::new());
        for (end, call) in &self.calls {
            match call {
                Call::Write { path, bytes, .. } if path == file => {
                    open.push((*end, bytes.len() as u64));
                    longest = longest.max(open.iter().map(|(_, length)| length).sum());
                }
                Call::Sync { path, began } if path == file => open.retain(|(end, _)| end > began),
                _ => {}
            }
        }
        longest
    }
}

/// The call recorded at a place, and where its record ends. None at the end, and at a last record that was
/// not written to its end because the program was gone.
fn parse(bytes: &[u8], at: usize) -> io::Result<Option<(usize, Call)>> {
    let Some(header) = bytes.get(at..at + HEADER_BYTES) else { return Ok(None) };
    let word =
        |index: usize| u32::from_le_bytes(header[index * 4..index * 4 + 4].try_into().unwrap()) as usize;
    let a = u64::from_le_bytes(header[16..24].try_into().unwrap());
    let path_end = at + HEADER_BYTES + word(1);
    let end = path_end + word(2);
    if end > bytes.len() {
        return Ok(None);
    }
    let text = |range: Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
    let path = text(at + HEADER_BYTES..path_end);
    let call = match word(0) {
        1 => Call::Create { path, directory: a == 1 },
        2 => Call::Write { path, offset: a, bytes: path_end..end },
        3 => Call::Truncate { path, length: a },
        4 => Call::Rename { from: path, to: text(path_end..end) },
        5 => Call::Remove { path },
        6 => Call::Sync { path, began: a },
        7 => Call::Link { from: path, to: text(path_end..end) },
        kind => {
            let what = format!("the trace has a record of kind {kind} at {at}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    };
    Ok(Some((end, call)))
}

/// What of the unsynced is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// What came before some moment: a device that keeps order.
    Beginning,
    /// Any part of it, writes torn.
    Some,
    /// All: a process that was killed.
    All,
}

type FileId = usize;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(FileId),
}

/// A change of names.
#[derive(Debug, Clone)]
enum Naming {
    Set(String, Node),
    Unset(String),
    Move(String, String, Node),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Set(path, node) => drop(names.insert(path.clone(), *node)),
            Self::Unset(path) => drop(names.remove(path)),
            Self::Move(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }

    fn is_in(&self, directory: &str) -> bool {
        let parent = |path: &str| path.rsplit_once('/').map_or("", |(parent, _)| parent) == directory;
        match self {
            Self::Set(path, _) | Self::Unset(path) => parent(path),
            Self::Move(from, to, _) => parent(from) || parent(to),
        }
    }
}

/// A change of a file's content.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Range<usize> },
    Truncate(u64),
}

#[derive(Debug, Clone, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<(u64, Change)>,
}

/// A run followed up to some place of its trace.
pub struct Replay<'a> {
    trace: &'a Trace,
    next: usize,
    at: u64,
    files: Vec<Content>,
    /// Names as the program sees them.
    names: BTreeMap<String, Node>,
    /// Names on the device, and the changes that are not there yet.
    durable: BTreeMap<String, Node>,
    pending: Vec<(u64, Naming)>,
}

impl<'a> Replay<'a> {
    /// Begins before the trace, with a directory as it was then, all of it durable.
    pub fn new(trace: &'a Trace, start: &Directory) -> Self {
        let (mut files, mut names) = (Vec::new(), BTreeMap::new());
        for (path, content) in &start.0 {
            let node = content.as_ref().map_or(Node::Directory, |bytes| {
                files.push(Content { durable: bytes.clone(), pending: Vec::new() });
                Node::File(files.len() - 1)
            });
            names.insert(path.clone(), node);
        }
        Self { trace, next: 0, at: 0, files, durable: names.clone(), names, pending: Vec::new() }
    }

    /// Goes on to a place of the trace; never back.
    pub fn advance(&mut self, to: u64) {
        while let Some((end, call)) = self.trace.calls.get(self.next)
            && *end <= to
        {
            self.next += 1;
            self.at = *end;
            self.follow(*end, call);
        }
    }

    fn follow(&mut self, end: u64, call: &Call) {
        match call {
            Call::Create { path, directory: true } => {
                self.name(end, Naming::Set(path.clone(), Node::Directory))
            }
            Call::Create { path, directory: false } => {
                self.files.push(Content::default());
                let node = Node::File(self.files.len() - 1);
                self.name(end, Naming::Set(path.clone(), node));
            }
            Call::Write { path, offset, bytes } => {
                self.change(end, path, Change::Write { offset: *offset, bytes: bytes.clone() });
            }
            Call::Truncate { path, length } => self.change(end, path, Change::Truncate(*length)),
            Call::Rename { from, to } => {
                if let Some(node) = self.names.get(from).copied() {
                    self.name(end, Naming::Move(from.clone(), to.clone(), node));
                }
            }
            Call::Link { from, to } => {
                if let Some(node) = self.names.get(from).copied() {
                    self.name(end, Naming::Set(to.clone(), node));
                }
            }
            Call::Remove { path } => self.name(end, Naming::Unset(path.clone())),
            Call::Sync { path, began } => self.sync(path, *began),
        }
    }

    fn name(&mut self, end: u64, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending.push((end, naming));
    }

    fn change(&mut self, end: u64, path: &str, change: Change) {
        // A file that has no name any more cannot be found after a power cut.
        if let Some(Node::File(file)) = self.names.get(path) {
            self.files[*file].pending.push((end, change));
        }
    }

    fn sync(&mut self, path: &str, began: u64) {
        if let Some(Node::File(file)) = self.names.get(path) {
            let content = &mut self.files[*file];
            let (now, later) = content.pending.drain(..).partition(|(end, _)| *end <= began);
            content.pending = later;
            let now: Vec<_> = now;
            now.iter().for_each(|(_, change)| apply(&mut content.durable, change, &self.trace.bytes));
            return;
        }
        let (now, later): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|(end, naming)| *end <= began && naming.is_in(path));
        self.pending = later;
        now.iter().for_each(|(_, naming)| naming.apply(&mut self.durable));
    }

    /// The directory after a power cut here.
    pub fn cut(&self, left: Left, random: &mut Random) -> Directory {
        let moment = self.moment(random);
        let survives = |end: u64, random: &mut Random| match left {
            Left::Nothing => false,
            Left::Beginning => end <= moment,
            Left::Some => random.below(2) == 0,
            Left::All => true,
        };
        let mut names = self.durable.clone();
        for (end, naming) in &self.pending {
            if survives(*end, random) {
                naming.apply(&mut names);
            }
        }
        let whole = |content: &Content, random: &mut Random| {
            let mut bytes = content.durable.clone();
            for (end, change) in &content.pending {
                if survives(*end, random) {
                    apply_torn(&mut bytes, change, &self.trace.bytes, left, random);
                }
            }
            bytes
        };
        let restored = |node: Node, random: &mut Random| match node {
            Node::Directory => None,
            Node::File(file) => Some(whole(&self.files[file], random)),
        };
        Directory(names.into_iter().map(|(path, node)| (path, restored(node, random))).collect())
    }

    /// Some moment between the oldest unsynced change and now.
    fn moment(&self, random: &mut Random) -> u64 {
        let names = self.pending.iter().map(|(end, _)| *end);
        let contents = self.files.iter().flat_map(|file| file.pending.iter().map(|(end, _)| *end));
        let oldest = names.chain(contents).min().unwrap_or(self.at);
        oldest.saturating_sub(1) + random.below(self.at - oldest.min(self.at) + 2)
    }
}

fn apply(to: &mut Vec<u8>, change: &Change, trace: &[u8]) {
    match change {
        Change::Truncate(length) => to.resize(*length as usize, 0),
        Change::Write { offset, bytes } => put(to, *offset as usize, &trace[bytes.clone()]),
    }
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

const SECTOR_BYTES: usize = 512;

/// Writes a change that is not wholly there: whole, up to a sector, or some of its sectors.
fn apply_torn(to: &mut Vec<u8>, change: &Change, trace: &[u8], left: Left, random: &mut Random) {
    let Change::Write { offset, bytes } = change else { return apply(to, change, trace) };
    let (offset, bytes) = (*offset as usize, &trace[bytes.clone()]);
    match if left == Left::Some { random.below(3) } else { 0 } {
        0 => put(to, offset, bytes),
        1 => {
            let sectors = bytes.len() / SECTOR_BYTES;
            let kept = random.below(sectors as u64 + 1) as usize * SECTOR_BYTES;
            put(to, offset, &bytes[..kept]);
        }
        _ => {
            for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if random.below(2) == 0 {
                    put(to, offset + index * SECTOR_BYTES, sector);
                }
            }
        }
    }
}

/// A directory's files and directories by their paths within it; directories have no content.
#[derive(Debug, Clone, Default)]
pub struct Directory(BTreeMap<String, Option<Vec<u8>>>);

impl Directory {
    /// Takes a directory from disk.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut taken = Self::default();
        taken.take(root, "")?;
        Ok(taken)
    }

    fn take(&mut self, root: &Path, within: &str) -> io::Result<()> {
        for entry in fs::read_dir(root.join(within))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if within.is_empty() { name } else { format!("{within}/{name}") };
            if entry.file_type()?.is_dir() {
                self.0.insert(path.clone(), None);
                self.take(root, &path)?;
            } else {
                self.0.insert(path, Some(fs::read(entry.path())?));
            }
        }
        Ok(())
    }

    /// Writes it to disk, in place of what is there.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        fs::create_dir_all(root)?;
        for (path, content) in &self.0 {
            let path = root.join(path);
            match content {
                None => fs::create_dir_all(path)?,
                // Its directory is not on the device, so neither is it.
                Some(_) if !path.parent().is_some_and(Path::is_dir) => {}
                Some(bytes) => fs::write(path, bytes)?,
            }
        }
        Ok(())
    }
}

/// Random numbers that a seed repeats (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or_default()
    }
}
