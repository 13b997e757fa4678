//! What operators are held to: a second person, values of which the sensitive part is kept apart, and a record that does not go
//! back.

use std::path::{Path, PathBuf};

use super::reader::Document;

/// Whether it takes two people to do what cannot be undone. By default it does not, because an installation with one token
/// could destroy nothing then; with two people it should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvals {
    /// Whether somebody else must approve it first.
    pub required: bool,
}

/// What is cut out of values before they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redaction {
    /// Whether the built-in policy is applied.
    pub enabled: bool,
}

impl Default for Redaction {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// What is kept of the access logs outside of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// The file with the latest checkpoint of each log. It belongs on another volume than the store, and is of no use on the same.
    pub anchor: Option<PathBuf>,
}

pub(super) fn read_approvals(document: &Document<'_>) -> Approvals {
    Approvals { required: document.section("approvals").boolean("required", Approvals::default().required) }
}

pub(super) fn read_redaction(document: &Document<'_>) -> Redaction {
    let policies = [("standard", true), ("off", false)];
    Redaction {
        enabled: document.section("redaction").one_of("policy", &policies, Redaction::default().enabled),
    }
}

pub(super) fn read_audit(document: &Document<'_>, base: &Path) -> Audit {
    Audit { anchor: document.section("audit").path("anchor", base) }
}
