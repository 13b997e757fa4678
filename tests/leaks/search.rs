//! Looks for marked words and for secrets, in their own form and in the forms into which they are usually put.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use crate::markers::Markers;

/// Bytes that must not turn up, and what they are.
struct Needle {
    what: String,
    bytes: Vec<u8>,
    /// Whether a marked word begins with it.
    marks: bool,
}

/// Everything that must not turn up.
pub struct Search<'a> {
    markers: &'a Markers,
    needles: Vec<Needle>,
    /// By their first two bytes, which needles there are.
    begin: Vec<Vec<usize>>,
}

/// Memory is mostly empty.
const EMPTY: [u8; 4096] = [0; 4096];

/// What was found, how often.
pub type Found = BTreeMap<String, usize>;

impl<'a> Search<'a> {
    /// Looks for the marked words, as they are, in base64 and in hexadecimal.
    pub fn new(markers: &'a Markers) -> Self {
        let mut search = Self { markers, needles: Vec::new(), begin: vec![Vec::new(); 1 << 16] };
        let prefix = markers.prefix().as_bytes();
        search.needle("a word", prefix, true);
        search.encodings("a word", prefix);
        search
    }

    /// Looks for a secret text as well.
    pub fn text(mut self, what: &str, text: &str) -> Self {
        self.needle(what, text.as_bytes(), false);
        self.encodings(what, text.as_bytes());
        self
    }

    /// Looks for secret bytes as well.
    pub fn bytes(mut self, what: &str, bytes: &[u8]) -> Self {
        self.needle(what, bytes, false);
        self.encodings(what, bytes);
        self
    }

    /// Looks for bytes as they are alone.
    pub fn exactly(mut self, what: &str, bytes: &[u8]) -> Self {
        self.needle(what, bytes, false);
        self
    }

    fn needle(&mut self, what: &str, bytes: &[u8], marks: bool) {
        assert!(bytes.len() >= 10, "too short to be looked for: {what}");
        if self.needles.iter().all(|needle| needle.bytes != bytes) {
            self.begin[first_two(bytes)].push(self.needles.len());
            self.needles.push(Needle { what: what.to_owned(), bytes: bytes.to_vec(), marks });
        }
    }

    fn encodings(&mut self, what: &str, bytes: &[u8]) {
        for encoding in [HEXLOWER, HEXUPPER] {
            self.needle(&format!("{what} in hexadecimal"), encoding.encode(bytes).as_bytes(), false);
        }
        // Where the bytes begin within a group of three decides about every character.
        for offset in 0..3 {
            let shifted = [&[0; 2][..offset], bytes].concat();
            let whole = shifted.len() / 3 * 4;
            for encoding in [BASE64, BASE64URL_NOPAD] {
                let text = encoding.encode(&shifted);
                let certain = &text.as_bytes()[offset.div_ceil(3) * 4..whole];
                self.needle(&format!("{what} in base64"), certain, false);
            }
        }
    }

    /// What there is in `bytes`.
    pub fn bytes_of(&self, place: &str, bytes: &[u8]) -> Found {
        let mut found = Found::new();
        let mut at = 0;
        while at + 1 < bytes.len() {
            if bytes[at] == 0 && bytes[at..].starts_with(&EMPTY) {
                at += EMPTY.len();
                continue;
            }
            for number in &self.begin[first_two(&bytes[at..])] {
                let needle = &self.needles[*number];
                if bytes[at..].starts_with(&needle.bytes) {
                    let what = if needle.marks { self.name(&bytes[at..]) } else { needle.what.clone() };
                    *found.entry(format!("{what} in {place}")).or_default() += 1;
                }
            }
            at += 1;
        }
        found
    }

    fn name(&self, text: &[u8]) -> String {
        match self.markers.recognise(text) {
            Some(planted) => format!("{:?} {}", planted.kind, planted.place),
            None => "a damaged word".to_owned(),
        }
    }

    /// What there is in all files below a directory; how many bytes they have.
    pub fn files(&self, directory: &Path) -> (Found, usize) {
        let (mut found, mut size) = (Found::new(), 0);
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            merge(&mut found, self.bytes_of("a file's name", name.as_bytes()));
            let (inner, bytes) = match path.is_dir() {
                true => self.files(&path),
                false => {
                    let bytes = fs::read(&path).unwrap();
                    (self.bytes_of(&name, &bytes), bytes.len())
                }
            };
            merge(&mut found, inner);
            size += bytes;
        }
        (found, size)
    }

    /// What there is in the memory of a process; how many bytes were read.
    ///
    /// # Errors
    /// The system's, when this process may not read that one's memory.
    pub fn memory(&self, pid: u32) -> io::Result<(Found, usize)> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
        let (mut found, mut size) = (Found::new(), 0);
        for region in maps.lines().filter_map(Region::parse) {
            let mut bytes = vec![0; region.end - region.start];
            if memory.read_exact_at(&mut bytes, region.start as u64).is_err() {
                // A guard page, or what the kernel alone may read.
                continue;
            }
            size += bytes.len();
            merge(&mut found, self.bytes_of(region.name, &bytes));
        }
        Ok((found, size))
    }
}

/// A readable region of memory that is not a file's.
struct Region<'a> {
    start: usize,
    end: usize,
    name: &'a str,
}

impl<'a> Region<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|number| usize::from_str_radix(number, 16).unwrap());
        let readable = fields.next()?.starts_with('r');
        let name = fields.nth(3).unwrap_or("anonymous memory");
        (readable && !name.starts_with("[v")).then_some(Self { start, end, name })
    }
}

/// Adds what was found elsewhere.
pub fn merge(into: &mut Found, other: Found) {
    for (what, count) in other {
        *into.entry(what).or_default() += count;
    }
}

fn first_two(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}
