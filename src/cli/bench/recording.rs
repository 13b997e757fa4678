//! Recorded sessions: a file of JSON lines, each `{"session": NAME, "messages": [MESSAGE, …]}`.
//!
//! A message is kept as the exact bytes that stand in the file. It is a tool's result when its `role` is `tool` (or
//! `function`, or `tool_result`), or when one part of its `content` has the type `tool_result`. Nothing else about a
//! message matters here. Errors name lines and sizes, never content.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::limits::EVENT_BYTES;

/// Largest file that is taken: it is held in memory, to be compared with what is read back.
const FILE_BYTES: u64 = 1 << 30;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too large.
    #[error("{} is larger than {FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is not a recorded session.
    #[error("line {line}, column {column}: not an object with \"session\" and \"messages\"")]
    Line {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
    },
    /// A message is larger than an event may be.
    #[error("line {line}: message {message} has {bytes} bytes; an event has at most {EVENT_BYTES}")]
    Message {
        /// Counts from 1.
        line: usize,
        /// Counts from 0.
        message: usize,
        /// Its size.
        bytes: usize,
    },
    /// There is no session in it.
    #[error("{} holds no session", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// One recorded session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedSession {
    /// The name that the file gives it.
    pub name: String,
    /// Its messages, in order.
    pub messages: Vec<Message>,
}

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Exactly as it stands in the file.
    pub json: Bytes,
    /// Whether it is a tool's result.
    pub is_result: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} bytes)", self.json.len())
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    session: String,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    role: serde_json::Value,
    #[serde(default)]
    content: Content,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Content {
    Parts(Vec<Part>),
    #[default]
    Nothing,
    Else(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Typed {
        #[serde(rename = "type")]
        kind: String,
    },
    Else(serde::de::IgnoredAny),
}

/// Reads a file of recorded sessions.
///
/// # Errors
/// [`RecordingError`] names the first line that is not right.
pub fn read(path: &Path) -> Result<Vec<RecordedSession>, RecordingError> {
    let unreadable = |source| RecordingError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES {
        return Err(RecordingError::TooLarge { path: path.to_owned() });
    }
    let sessions = parse(&Bytes::from(fs::read(path).map_err(unreadable)?))?;
    if sessions.is_empty() { Err(RecordingError::Empty { path: path.to_owned() }) } else { Ok(sessions) }
}

/// Takes the sessions out of the file's bytes, without copying messages.
///
/// # Errors
/// [`RecordingError::Line`] or [`RecordingError::Message`].
pub fn parse(file: &Bytes) -> Result<Vec<RecordedSession>, RecordingError> {
    let lines = file.split(|byte| *byte == b'\n').enumerate();
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    filled.map(|(index, line)| session(file, index + 1, line)).collect()
}

fn session(file: &Bytes, number: usize, text: &[u8]) -> Result<RecordedSession, RecordingError> {
    let line: Line<'_> = serde_json::from_slice(text)
        .map_err(|error| RecordingError::Line { line: number, column: error.column() })?;
    let messages = line.messages.into_iter().enumerate();
    let messages =
        messages.map(|(index, raw)| message(file, number, index, raw)).collect::<Result<_, _>>()?;
    Ok(RecordedSession { name: line.session, messages })
}

fn message(file: &Bytes, line: usize, index: usize, raw: &RawValue) -> Result<Message, RecordingError> {
    let json = file.slice_ref(raw.get().as_bytes());
    if json.len() > EVENT_BYTES {
        return Err(RecordingError::Message { line, message: index, bytes: json.len() });
    }
    Ok(Message { is_result: is_result(raw.get()), json })
}

fn is_result(json: &str) -> bool {
    let Ok(shape) = serde_json::from_str::<Shape>(json) else { return false };
    if matches!(shape.role.as_str(), Some("tool" | "function" | "tool_result")) {
        return true;
    }
    match shape.content {
        Content::Parts(parts) => {
            parts.iter().any(|part| matches!(part, Part::Typed { kind } if kind == "tool_result"))
        }
        Content::Nothing | Content::Else(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &'static str) -> Result<Vec<RecordedSession>, RecordingError> {
        parse(&Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn messages_are_the_exact_bytes_of_the_file() {
        let text = concat!(
            "{\"session\": \"one\", \"messages\": [ {\"role\" : \"user\",\"content\":\"h\\u00e4 \\\"x\\\"\"} ,\t{\"b\":1,\"a\":[2.50]}]}\n",
            "\n",
            "{\"messages\":[],\"session\":\"two\",\"extra\":true}\r\n",
        );
        let sessions = parsed(text).unwrap();
        let names: Vec<_> = sessions.iter().map(|session| session.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        let messages: Vec<_> = sessions[0].messages.iter().map(|message| &message.json[..]).collect();
        assert_eq!(
            messages,
            [&b"{\"role\" : \"user\",\"content\":\"h\\u00e4 \\\"x\\\"\"}"[..], b"{\"b\":1,\"a\":[2.50]}"]
        );
    }

    #[test]
    fn results_of_tools_are_known_by_role_or_by_part() {
        for (json, expected) in [
            (r#"{"role":"tool","content":"x"}"#, true),
            (r#"{"role":"function","name":"f"}"#, true),
            (r#"{"role":"user","content":[{"type":"text"},{"type":"tool_result","content":[]}]}"#, true),
            (r#"{"role":"user","content":[{"type":"text","text":"tool_result"}]}"#, false),
            (r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}"#, false),
            (r#"{"role":7,"content":["tool_result",{"a":1},null]}"#, false),
            (r#""tool""#, false),
            ("null", false),
        ] {
            assert_eq!(is_result(json), expected, "{json}");
        }
    }

    #[test]
    fn a_wrong_line_is_named_without_its_content() {
        for wrong in [
            "{\"session\":\"a\"}",
            "{\"session\":\"secret\",\"messages\":\"secret\"}",
            "[]",
            "{\"session\"",
            "\u{1}",
        ] {
            let text = format!("{{\"session\":\"ok\",\"messages\":[]}}\n{wrong}\n");
            let error = parse(&Bytes::from(text)).unwrap_err();
            assert!(matches!(error, RecordingError::Line { line: 2, .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }

    #[test]
    fn a_message_larger_than_an_event_is_refused_before_anything_is_sent() {
        let text = format!("{{\"session\":\"a\",\"messages\":[1,\"{}\"]}}", "x".repeat(EVENT_BYTES));
        let error = parse(&Bytes::from(text)).unwrap_err();
        assert!(
            matches!(error, RecordingError::Message { line: 1, message: 1, bytes } if bytes == EVENT_BYTES + 2)
        );
    }
}
