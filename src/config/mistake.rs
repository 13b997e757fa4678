//! What can be wrong with a configuration.
//!
//! No message repeats a value of the file: it may be a secret that was put into the wrong place.

use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    file: PathBuf,
    mistakes: Vec<Mistake>,
}

impl ConfigErrors {
    /// The mistakes of `file`.
    #[must_use]
    pub fn new(file: &Path, mistakes: Vec<Mistake>) -> Self {
        Self { file: file.to_owned(), mistakes }
    }

    /// The mistakes, in the order of the file; those without a line come last.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.mistakes.len() == 1 { "" } else { "s" };
        write!(f, "{}: {} mistake{plural}", self.file.display(), self.mistakes.len())?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, counted from 1; none when something is missing or is wrong outside the text.
    pub line: Option<usize>,
    /// The field with its section, such as `limits.max_value`; empty for the file as a whole.
    pub field: String,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not TOML.
    #[error("is not valid TOML: {message}")]
    Syntax {
        /// What the parser says, without the text around it.
        message: String,
    },
    /// There is no such field or section.
    #[error("is not known here; known are: {}", known.join(", "))]
    Unknown {
        /// What could stand in its place.
        known: Vec<&'static str>,
    },
    /// It has no default and is not there.
    #[error("is missing")]
    Missing,
    /// It is of another type.
    #[error("must be {expected}")]
    Type {
        /// What it must be.
        expected: &'static str,
    },
    /// It is a number, size or duration outside its range.
    #[error("must lie between {min} and {max}")]
    OutOfRange {
        /// The smallest that is allowed.
        min: String,
        /// The largest that is allowed.
        max: String,
    },
    /// It is none of the words that are allowed.
    #[error("must be one of: {}", allowed.join(", "))]
    NotAmong {
        /// The words.
        allowed: Vec<&'static str>,
    },
    /// It needs another field beside it.
    #[error("needs {field} beside it")]
    Needs {
        /// What is needed.
        field: &'static str,
    },
    /// Another section has the same.
    #[error("stands in another section already")]
    Twice,
    /// There are too many sections of this name.
    #[error("must not stand there more than {max} times")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// It is no address with a port.
    #[error("must be an IP address and a port, such as \"127.0.0.1:7443\"")]
    NotAnAddress,
    /// It is no address of a server that is asked over TLS.
    #[error("must be an address such as \"https://bao.example:8200\"; plain http is not spoken")]
    NotHttps,
    /// It is no name that can stand in a path of the server that is asked.
    #[error(
        "must be 1 to 128 letters, digits and the characters - _ . (in a mount or namespace also / between names)"
    )]
    NotAName,
    /// Another listener has the address.
    #[error("collides with {by}")]
    AddressTaken {
        /// The other listener's field.
        by: &'static str,
    },
    /// It is no byte size.
    #[error("must be a size, such as \"64MiB\"; units are B, KiB, MiB, GiB, TiB")]
    NotASize,
    /// It is no duration.
    #[error("must be a duration, such as \"30s\" or \"1h 30m\"")]
    NotADuration,
    /// It is no filter for log lines.
    #[error(
        "must be a level (error, warn, info, debug, trace) or directives such as \"info,strongroom::commit=debug\""
    )]
    NotALogFilter,
    /// It is the secret itself.
    #[error(
        "must be the path of a file; the secret itself does not belong here: remove it, and consider it known to others"
    )]
    SecretInPlaceOfPath,
    /// The file cannot be read.
    #[error("cannot read {}: {kind}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// It is not a regular file.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// It is not a Unix socket.
    #[error("{} is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// It is larger than any such file may be.
    #[error("{} is larger than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// Others than its owner and readers of its group can get at it.
    #[error("{} is open to others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}
