//! An answer together with the place of its event in the access log.

use std::ops::{Deref, DerefMut};

use tonic::Response;

/// What a call returned, and where the access log records the call. Dereferences to the content.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    content: T,
    audit: Option<AuditStamp>,
}

/// The place of an event in an access log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuditStamp {
    /// Name of the log.
    pub log: String,
    /// Sequence number in that log, counting from 0.
    pub sequence: u64,
}

impl<T> Answer<T> {
    /// Where the access log records the call; `None` when the server did not say.
    #[must_use]
    pub const fn audit(&self) -> Option<&AuditStamp> {
        self.audit.as_ref()
    }

    /// Takes the content and forgets the stamp.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.content
    }

    /// Takes both apart.
    #[must_use]
    pub fn into_parts(self) -> (T, Option<AuditStamp>) {
        (self.content, self.audit)
    }

    /// Changes the content and keeps the stamp.
    ///
    /// # Errors
    /// Whatever `change` returns.
    pub fn try_map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Answer<U>, E> {
        Ok(Answer { content: change(self.content)?, audit: self.audit })
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { content: change(self.content), audit: self.audit }
    }
}

impl<T> Deref for Answer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

impl<T> DerefMut for Answer<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.content
    }
}

impl<T> From<Response<T>> for Answer<T> {
    fn from(response: Response<T>) -> Self {
        let audit = AuditStamp::from_metadata(response.metadata());
        Self { content: response.into_inner(), audit }
    }
}
