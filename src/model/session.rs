//! Who a session belongs to.

use std::fmt;

use super::NameError;
use super::limits::OWNER_PART_BYTES;

/// The end user on whose behalf a session is kept: issuer, client and subject, compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    issuer: String,
    client_id: String,
    subject: String,
}

impl Owner {
    /// Checks and takes the three parts: each at most 256 bytes, the subject not empty.
    ///
    /// # Errors
    /// [`NameError`] says which bound is broken.
    pub fn new(issuer: String, client_id: String, subject: String) -> Result<Self, NameError> {
        if subject.is_empty() {
            return Err(NameError::Empty);
        }
        if [&issuer, &client_id, &subject].iter().any(|part| part.len() > OWNER_PART_BYTES) {
            return Err(NameError::TooLong { max: OWNER_PART_BYTES });
        }
        Ok(Self { issuer, client_id, subject })
    }

    /// The authority that issued the subject; may be empty.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The client through which the user acts; may be empty.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The user within the issuer.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner(…)")
    }
}
