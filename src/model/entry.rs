//! What belongs to an entry besides its value.

use std::fmt;

use super::limits::CONTENT_TYPE_BYTES;
use super::{Duration, NameError, Timestamp};

/// The revision of a row: counts from 1 and never goes back, not even across deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The first revision.
    pub const FIRST: Self = Self(1);

    /// Takes a number; zero is no revision.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The condition under which a mutation may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever the state.
    Any,
    /// The entry must not exist, or must have expired.
    Absent,
    /// The entry must exist with exactly this revision.
    Revision(Revision),
}

/// Which part of a stored value is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The body alone, with placeholders where something sensitive stood.
    Redacted,
    /// The original bytes.
    Full,
}

/// When something that is being written shall end, as its writer said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MutationExpiry {
    /// As late as its surroundings allow.
    Default,
    /// So long from now.
    After(Duration),
    /// At this time.
    At(Timestamp),
}

/// A media type: at most 128 visible ASCII characters and spaces; may be empty.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ContentType(String);

impl ContentType {
    /// Checks and takes a media type.
    ///
    /// # Errors
    /// [`NameError`] says which bound is broken.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.len() > CONTENT_TYPE_BYTES {
            return Err(NameError::TooLong { max: CONTENT_TYPE_BYTES });
        }
        if !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(NameError::Characters { allowed: "visible ASCII characters and spaces" });
        }
        Ok(Self(text))
    }

    /// The media type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentType({} bytes)", self.0.len())
    }
}
