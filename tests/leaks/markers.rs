//! Marked words: each is planted in one place, and is recognised wherever it turns up.

use strongroom::env::{Entropy as _, SystemEntropy};

/// Makes words that begin alike, with what nobody else writes, and end in their number.
pub struct Markers {
    prefix: String,
    planted: Vec<Planted>,
}

/// What a word was planted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A value, an event's bytes: what the store is there for.
    Content,
    /// A token, right or wrong.
    Token,
    /// A name that a caller chose, in a field that is for it or in another one.
    Name,
    /// Something that belongs to a request and to nothing that is stored: metadata, paths, page tokens.
    Request,
}

/// A word, and where it was planted.
#[derive(Debug, Clone)]
pub struct Planted {
    pub kind: Kind,
    pub place: String,
}

const PREFIX: usize = 16;
const NUMBER: usize = 6;

impl Markers {
    pub fn new() -> Self {
        let mut random = [0; PREFIX];
        SystemEntropy::new().fill(&mut random).unwrap();
        let letters =
            random.iter().map(|byte| char::from(b"bcdfghjkmnpqrstvwxz24567"[usize::from(byte % 24)]));
        // A letter first, so that it is a label wherever a label is wanted.
        Self { prefix: format!("q{}", letters.skip(1).collect::<String>()), planted: Vec::new() }
    }

    /// A new word: 22 characters of `a-z` and `0-9`.
    pub fn word(&mut self, kind: Kind, place: impl Into<String>) -> String {
        self.planted.push(Planted { kind, place: place.into() });
        format!("{}{:06}", self.prefix, self.planted.len() - 1)
    }

    /// What all words begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The word that begins at the beginning of `text`.
    pub fn recognise(&self, text: &[u8]) -> Option<&Planted> {
        let number = text.get(self.prefix.len()..self.prefix.len() + NUMBER)?;
        self.planted.get(std::str::from_utf8(number).ok()?.parse::<usize>().ok()?)
    }

    /// How many words there are.
    pub fn count(&self) -> usize {
        self.planted.len()
    }
}
