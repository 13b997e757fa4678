//! Names that a caller chooses, each valid from the moment it exists.

use std::collections::BTreeMap;
use std::fmt;

use super::limits;

/// What is wrong with a name.
///
/// The text never repeats the name itself: it may be a secret that was put into the wrong field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// It is empty.
    Empty,
    /// It is longer than this many bytes.
    TooLong {
        /// The bound.
        max: usize,
    },
    /// It has a character that is not allowed; this says which are.
    Characters {
        /// The characters that are allowed.
        allowed: &'static str,
    },
    /// There are more than this many labels.
    TooMany {
        /// The bound.
        max: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong { max } => write!(f, "must not be longer than {max} bytes"),
            Self::Characters { allowed } => write!(f, "must consist of {allowed}"),
            Self::TooMany { max } => write!(f, "must not have more than {max} labels"),
        }
    }
}

impl std::error::Error for NameError {}

/// Declares a name: a string that was checked by `$check`.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`NameError`] says which bound it breaks.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                $check(&name)?;
                Ok(Self(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name's bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// Gives the text away.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}

name!(
    /// A tenant's name: 1 to 63 characters of `a-z`, `0-9` and `-`, not starting or ending with `-`.
    TenantName,
    check_label
);
name!(
    /// A token's public name, of the same form as a tenant's.
    TokenName,
    check_label
);
name!(
    /// A session's handle: 1 to 128 visible ASCII characters. Possession proves nothing, but it is not printed either.
    SessionId,
    check_session_id
);
name!(
    /// An entry's name within its session: 1 to 512 bytes of UTF-8 without control characters.
    EntryKey,
    check_entry_key
);
name!(
    /// A stream's name within its session, of the same form as an entry's.
    StreamName,
    check_entry_key
);

fn bounded(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > max {
        return Err(NameError::TooLong { max });
    }
    Ok(())
}

fn check_label(name: &str) -> Result<(), NameError> {
    bounded(name, limits::TENANT_NAME_BYTES)?;
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !inner || name.starts_with('-') || name.ends_with('-') {
        return Err(NameError::Characters { allowed: "a-z, 0-9 and '-', not at either end" });
    }
    Ok(())
}

fn check_session_id(name: &str) -> Result<(), NameError> {
    bounded(name, limits::SESSION_ID_BYTES)?;
    if !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(NameError::Characters { allowed: "visible ASCII characters" });
    }
    Ok(())
}

fn check_entry_key(name: &str) -> Result<(), NameError> {
    bounded(name, limits::ENTRY_KEY_BYTES)?;
    if name.chars().any(char::is_control) {
        return Err(NameError::Characters { allowed: "UTF-8 without control characters" });
    }
    Ok(())
}

/// Labels of a session or an entry: at most 32, keys of 1 to 63 bytes, values of 0 to 256 bytes, no control characters.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks and takes labels.
    ///
    /// # Errors
    /// [`NameError`] says which bound is broken.
    pub fn new(labels: impl IntoIterator<Item = (String, String)>) -> Result<Self, NameError> {
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        if labels.len() > limits::LABELS {
            return Err(NameError::TooMany { max: limits::LABELS });
        }
        for (key, value) in &labels {
            check_label_pair(key, value)?;
        }
        Ok(Self(labels))
    }

    /// The labels in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Labels({})", self.0.len())
    }
}

fn check_label_pair(key: &str, value: &str) -> Result<(), NameError> {
    bounded(key, limits::LABEL_KEY_BYTES)?;
    if value.len() > limits::LABEL_VALUE_BYTES {
        return Err(NameError::TooLong { max: limits::LABEL_VALUE_BYTES });
    }
    if key.chars().chain(value.chars()).any(char::is_control) {
        return Err(NameError::Characters { allowed: "UTF-8 without control characters" });
    }
    Ok(())
}

/// The id under which a mutation may be repeated: a UUID, kept as its 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names_are_dns_labels() {
        assert!(TenantName::new("acme-2").is_ok());
        assert_eq!(TenantName::new(""), Err(NameError::Empty));
        assert_eq!(TenantName::new("a".repeat(64)), Err(NameError::TooLong { max: 63 }));
        for bad in ["-a", "a-", "A", "a/b", "*", "ä", "a b", "..", "a\0"] {
            assert!(matches!(TenantName::new(bad), Err(NameError::Characters { .. })), "{bad}");
        }
    }

    #[test]
    fn entry_keys_take_any_text_but_control_characters() {
        assert!(EntryKey::new("https://例え.jp/a b").is_ok());
        assert!(EntryKey::new("k".repeat(512)).is_ok());
        assert_eq!(EntryKey::new("k".repeat(513)), Err(NameError::TooLong { max: 512 }));
        assert!(matches!(EntryKey::new("a\nb"), Err(NameError::Characters { .. })));
    }

    #[test]
    fn labels_are_bounded_in_number_and_size() {
        let many = (0..33).map(|n| (format!("k{n}"), String::new()));
        assert_eq!(Labels::new(many), Err(NameError::TooMany { max: 32 }));
        let long = [("k".to_owned(), "v".repeat(257))];
        assert_eq!(Labels::new(long), Err(NameError::TooLong { max: 256 }));
    }

    #[test]
    fn debug_output_does_not_repeat_names() {
        let key = EntryKey::new("patient-4711").unwrap();
        assert_eq!(format!("{key:?}"), "EntryKey(12 bytes)");
    }
}
