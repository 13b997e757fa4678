//! Between the wire's messages and the model's values.

use std::time::Duration;

use super::error::ClientError;
use crate::model::{Expect, MutationExpiry, Owner, Revision, Timestamp, View};
use crate::proto::v1;

pub(super) fn owner(owner: &Owner) -> v1::Owner {
    v1::Owner {
        issuer: owner.issuer().to_owned(),
        client_id: owner.client_id().to_owned(),
        subject: owner.subject().to_owned(),
    }
}

pub(super) fn owner_from(owner: v1::Owner) -> Result<Owner, ClientError> {
    Owner::new(owner.issuer, owner.client_id, owner.subject)
        .map_err(|_| ClientError::Malformed { what: "owner" })
}

pub(super) const fn view(view: View) -> v1::View {
    match view {
        View::Redacted => v1::View::Redacted,
        View::Full => v1::View::Full,
    }
}

pub(super) fn expectation(expect: Expect) -> Option<v1::Expectation> {
    use v1::expectation::Condition;
    let condition = match expect {
        Expect::Any => return None,
        Expect::Absent => Condition::Absent(true),
        Expect::Revision(revision) => Condition::Revision(revision.get()),
    };
    Some(v1::Expectation { condition: Some(condition) })
}

pub(super) fn revision_from(number: u64) -> Result<Revision, ClientError> {
    Revision::new(number).ok_or(ClientError::Malformed { what: "revision" })
}

/// A duration of whole milliseconds; what is below a millisecond is cut off.
pub(super) fn duration(span: Duration) -> prost_types::Duration {
    let nanos = i32::try_from(span.subsec_millis() * 1_000_000).unwrap_or_default();
    prost_types::Duration { seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), nanos }
}

pub(super) fn duration_from(span: prost_types::Duration) -> Result<Duration, ClientError> {
    // Not by prost's conversion: it overflows on what no honest server sends.
    let seconds = u64::try_from(span.seconds).ok();
    let nanos = u32::try_from(span.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let span = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
    span.ok_or(ClientError::Malformed { what: "duration" })
}

pub(super) fn time(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.as_millis() % 1000 * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: i64::try_from(at.as_secs()).unwrap_or(i64::MAX), nanos }
}

pub(super) fn time_from(at: prost_types::Timestamp) -> Result<Timestamp, ClientError> {
    let malformed = ClientError::Malformed { what: "time" };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(at.seconds), u64::try_from(at.nanos)) else {
        return Err(malformed);
    };
    let millis = seconds.checked_mul(1000).and_then(|whole| whole.checked_add(nanos / 1_000_000));
    millis.map(Timestamp::from_millis).ok_or(malformed)
}

/// A time that must be there.
pub(super) fn required_time(at: Option<prost_types::Timestamp>) -> Result<Timestamp, ClientError> {
    time_from(at.ok_or(ClientError::Malformed { what: "time" })?)
}

/// A point in time as error details carry it: RFC 3339, or milliseconds since the epoch.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(millis) = text.parse() {
        return Some(Timestamp::from_millis(millis));
    }
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(u64::try_from(since.as_millis()).ok()?))
}

/// Fills one of the wire's `oneof {ttl, expire_time}`.
macro_rules! expiration {
    ($name:ident, $oneof:path) => {
        pub(super) fn $name(expiry: MutationExpiry) -> Option<$oneof> {
            type Expiration = $oneof;
            match expiry {
                MutationExpiry::Default => None,
                MutationExpiry::After(span) => Some(Expiration::Ttl(duration(span))),
                MutationExpiry::At(at) => Some(Expiration::ExpireTime(time(at))),
            }
        }
    };
}

expiration!(update_expiration, v1::update_session_request::Expiration);
expiration!(put_expiration, v1::put::Expiration);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_survive_the_wire_to_the_millisecond() {
        let at = Timestamp::from_millis(1_790_000_123_456);
        assert_eq!(time_from(time(at)).unwrap(), at);
        let span = Duration::from_millis(90_061_007);
        assert_eq!(duration_from(duration(span)).unwrap(), span);
    }

    #[test]
    fn a_span_outside_of_what_the_protocol_allows_is_malformed() {
        for (seconds, nanos) in
            [(-1, 0), (0, -1), (1, 1_000_000_000), (i64::MAX, i32::MAX), (i64::MIN, i32::MIN)]
        {
            let span = prost_types::Duration { seconds, nanos };
            assert!(matches!(duration_from(span), Err(ClientError::Malformed { what: "duration" })));
        }
    }

    #[test]
    fn a_negative_time_is_malformed() {
        let before = prost_types::Timestamp { seconds: -1, nanos: 0 };
        assert!(matches!(time_from(before), Err(ClientError::Malformed { what: "time" })));
    }

    #[test]
    fn times_in_error_details_are_read_in_both_forms() {
        let at = Timestamp::from_millis(1_790_000_123_456);
        assert_eq!(parse_time("1790000123456"), Some(at));
        assert_eq!(parse_time("2026-09-21T14:15:23.456Z"), Some(at));
        assert_eq!(parse_time("soon"), None);
    }
}
