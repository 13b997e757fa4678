//! Errors as they leave the server: a code, a text, and `google.rpc` details that a program can act on.
//!
//! Every status carries an `ErrorInfo` in the domain `strongroom.v1`. The text is for people and never holds content.
//! A status that came from a peer is never passed on: it would carry that peer's metadata to our caller.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub use crate::proto::ERROR_DOMAIN;
use crate::proto::reason_name;
use crate::proto::v1::ErrorReason;

/// A status in the making.
#[derive(Debug, Clone)]
#[must_use = "a draft is nothing until it is built"]
pub struct Draft {
    code: Code,
    message: String,
    reason: &'static str,
    metadata: HashMap<String, String>,
    fields: Vec<(String, String)>,
    retry_after: Option<Duration>,
}

/// Begins a status with `code`, the machine-readable `reason` and a text without content.
pub fn status(code: Code, reason: ErrorReason, message: impl Into<String>) -> Draft {
    Draft {
        code,
        message: message.into(),
        reason: reason_name(reason),
        metadata: HashMap::new(),
        fields: Vec::new(),
        retry_after: None,
    }
}

/// Begins an INVALID_ARGUMENT that blames one field; its text names the field, too.
pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Draft {
    let (field, description) = (field.into(), description.into());
    let text = format!("{field} {description}");
    status(Code::InvalidArgument, ErrorReason::InvalidField, text).field(field, description)
}

impl Draft {
    /// Adds a pair to the metadata of the `ErrorInfo`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a violation to the `BadRequest`: the path of the field and what is wrong with it.
    pub fn field(mut self, name: impl Into<String>, description: impl Into<String>) -> Self {
        self.fields.push((name.into(), description.into()));
        self
    }

    /// Adds a `RetryInfo`: how long to wait before the same request has a chance.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Makes the status.
    #[must_use]
    pub fn build(self) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason, ERROR_DOMAIN, self.metadata);
        for (field, description) in self.fields {
            details.add_bad_request_violation(field, description);
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        Status::with_error_details(self.code, self.message, details)
    }
}

impl From<Draft> for Status {
    fn from(draft: Draft) -> Self {
        draft.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_metadata_fields_and_delay() {
        let built = status(Code::Aborted, ErrorReason::RevisionMismatch, "the revision is another")
            .metadata("current_revision", "7")
            .field("put.expect", "does not hold")
            .retry_after(Duration::from_millis(250))
            .build();
        let details = built.get_error_details();
        let reason = details.error_info().unwrap();
        assert_eq!(built.code(), Code::Aborted);
        assert_eq!((reason.reason.as_str(), reason.domain.as_str()), ("REVISION_MISMATCH", "strongroom.v1"));
        assert_eq!(reason.metadata["current_revision"], "7");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "put.expect");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_status_without_fields_or_delay_claims_neither() {
        let built = status(Code::NotFound, ErrorReason::EntryNotFound, "no such entry").build();
        let details = built.get_error_details();
        assert!(details.bad_request().is_none() && details.retry_info().is_none());
    }

    #[test]
    fn an_invalid_field_is_named_in_the_text_and_in_the_details() {
        let built = invalid_field("page_size", "is negative").build();
        assert_eq!(built.message(), "page_size is negative");
        assert_eq!(built.get_error_details().bad_request().unwrap().field_violations[0].field, "page_size");
    }
}
