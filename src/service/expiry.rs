//! When something ends: from what a caller said to a point in time within its bounds.

use super::{Error, Problem};
use crate::model::{Duration, MutationExpiry, Timestamp};

/// The bounds of a lifetime, and the field that is blamed when it lies outside.
pub(super) struct Bounds {
    pub(super) field: &'static str,
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Bounds {
    /// The end that was asked for, or `None` when the caller left it open.
    pub(super) fn end(&self, expiry: MutationExpiry, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let end = match expiry {
            MutationExpiry::Default => return Ok(None),
            MutationExpiry::After(span) => now.after(span),
            MutationExpiry::At(time) => time,
        };
        self.span(end.since(now))?;
        Ok(Some(end))
    }

    /// Whether a span lies within the bounds.
    pub(super) fn span(&self, span: Duration) -> Result<(), Error> {
        if span < self.min || span > self.max {
            return Err(Error::invalid(self.field, Problem::Span { min: self.min, max: self.max }));
        }
        Ok(())
    }
}
