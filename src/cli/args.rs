//! How words of the command line become values: durations, times, sizes, owners, conditions, labels.
//!
//! Every parser names the forms that it takes and never repeats what it was given: it may be a secret in the wrong place.
//! Nothing here looks at the clock; a [`Moment`] that counts back from now is resolved by whoever knows the time.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::model::{Expect, Labels, NameError, Owner, Revision, Scope, Timestamp, View};

/// Why a word is not what its option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// No lifetime.
    #[error("expected a duration such as 90s, 15m, 24h or 7d, in whole milliseconds")]
    Duration,
    /// No point in time.
    #[error(
        "expected a time such as 2026-07-01T12:00:00Z, or a duration that counts back from now such as 15m"
    )]
    Moment,
    /// No size.
    #[error("expected a size such as 512, 1KiB or 4MiB")]
    Size,
    /// No rate.
    #[error("expected operations per second such as 2000/s, more than 0 and at most 1000000")]
    Rate,
    /// No condition.
    #[error("expected 'absent' or a revision (1 or more)")]
    Expect,
    /// One comma, or a part that breaks its bound.
    #[error("expected SUBJECT or ISSUER,CLIENT,SUBJECT, each at most 256 bytes, the subject not empty")]
    Owner,
    /// No key and value.
    #[error("expected KEY=VALUE")]
    Label,
    /// No shares, or all of them zero.
    #[error("expected three shares READS:WRITES:APPENDS such as 75:20:5, not all zero")]
    Mix,
    /// No such scope.
    #[error(
        "expected read, read-full, write, purge, keys, keys-destroy, keys-destroy-now, keys-import, keys-export, audit, \
         tenants, tokens or status"
    )]
    Scope,
}

/// A value given on the command line itself. `Debug` does not show it.
#[derive(Clone)]
pub struct Literal(OsString);

impl Literal {
    /// The bytes as they were given.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_encoded_bytes()
    }
}

impl From<OsString> for Literal {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Literal({} bytes)", self.0.len())
    }
}

/// Which part of a value is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ViewArg {
    /// With what the tenant's policy calls sensitive replaced by placeholders
    Redacted,
    /// The original bytes; needs the scope read-full
    Full,
}

impl ViewArg {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redacted => "redacted",
            Self::Full => "full",
        }
    }
}

impl From<ViewArg> for View {
    fn from(view: ViewArg) -> Self {
        match view {
            ViewArg::Redacted => Self::Redacted,
            ViewArg::Full => Self::Full,
        }
    }
}

/// A point in time, given as such or counted back from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This time.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    /// The point in time, seen from `now`.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => {
                Timestamp::from_millis(now.as_millis().saturating_sub(millis(span).unwrap_or(u64::MAX)))
            }
        }
    }
}

/// Takes a duration of whole milliseconds, more than zero.
///
/// # Errors
/// [`ArgumentError::Duration`].
pub fn duration(text: &str) -> Result<Duration, ArgumentError> {
    duration_or_zero(text)
        .and_then(|span| if span.is_zero() { Err(ArgumentError::Duration) } else { Ok(span) })
}

/// Takes a duration of whole milliseconds; a plain 0 is zero.
///
/// # Errors
/// [`ArgumentError::Duration`].
pub fn duration_or_zero(text: &str) -> Result<Duration, ArgumentError> {
    let span = humantime::parse_duration(text).map_err(|_| ArgumentError::Duration)?;
    let whole = span.subsec_nanos() % 1_000_000 == 0 && millis(span).is_some();
    if whole { Ok(span) } else { Err(ArgumentError::Duration) }
}

fn millis(span: Duration) -> Option<u64> {
    u64::try_from(span.as_millis()).ok()
}

/// Takes RFC 3339 with any offset, or a duration that counts back from now.
///
/// # Errors
/// [`ArgumentError::Moment`].
pub fn moment(text: &str) -> Result<Moment, ArgumentError> {
    if let Some(time) = rfc3339(text) {
        return Ok(Moment::At(time));
    }
    duration_or_zero(text).map(Moment::Ago).map_err(|_| ArgumentError::Moment)
}

/// RFC 3339 with its offset, which the parser underneath does not know.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (local, offset) = split_offset(text)?;
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    let utc = i64::try_from(since.as_millis()).ok()?.checked_sub(offset.checked_mul(60_000)?)?;
    u64::try_from(utc).ok().map(Timestamp::from_millis)
}

/// Splits `2026-07-01T12:00:00+02:00` into its local part and its offset in minutes.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let sign = match offset.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some((local, sign * (hours * 60 + minutes)))
}

fn two_digits(text: &str) -> Option<i64> {
    (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Takes a number of bytes with or without a unit (B, kB, MB, KiB, MiB).
///
/// # Errors
/// [`ArgumentError::Size`].
pub fn size(text: &str) -> Result<usize, ArgumentError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or(ArgumentError::Size)?;
    let factor: usize = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        _ => return Err(ArgumentError::Size),
    };
    number.parse::<usize>().ok().and_then(|n| n.checked_mul(factor)).ok_or(ArgumentError::Size)
}

/// Operations per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// Operations per second.
    #[must_use]
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

/// Takes operations per second, with or without `/s`.
///
/// # Errors
/// [`ArgumentError::Rate`].
pub fn rate(text: &str) -> Result<Rate, ArgumentError> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate: f64 = number.parse().map_err(|_| ArgumentError::Rate)?;
    if rate > 0.0 && rate <= 1_000_000.0 { Ok(Rate(rate)) } else { Err(ArgumentError::Rate) }
}

/// Takes `absent` or a revision.
///
/// # Errors
/// [`ArgumentError::Expect`].
pub fn expect(text: &str) -> Result<Expect, ArgumentError> {
    if text == "absent" {
        return Ok(Expect::Absent);
    }
    revision(text).map(Expect::Revision)
}

/// Takes a revision, 1 or more.
///
/// # Errors
/// [`ArgumentError::Expect`].
pub fn revision(text: &str) -> Result<Revision, ArgumentError> {
    text.parse().ok().and_then(Revision::new).ok_or(ArgumentError::Expect)
}

/// Takes `SUBJECT` or `ISSUER,CLIENT,SUBJECT`; in the second form the subject may hold commas.
///
/// # Errors
/// [`ArgumentError::Owner`].
pub fn owner(text: &str) -> Result<Owner, ArgumentError> {
    let mut parts = text.splitn(3, ',');
    let (issuer, client, subject) = match (parts.next(), parts.next(), parts.next()) {
        (Some(subject), None, None) => ("", "", subject),
        (Some(issuer), Some(client), Some(subject)) => (issuer, client, subject),
        _ => return Err(ArgumentError::Owner),
    };
    Owner::new(issuer.into(), client.into(), subject.into()).map_err(|_| ArgumentError::Owner)
}

/// Takes `KEY=VALUE`; the value may be empty and may hold `=`.
///
/// # Errors
/// [`ArgumentError::Label`].
pub fn label(text: &str) -> Result<(String, String), ArgumentError> {
    let (key, value) = text.split_once('=').ok_or(ArgumentError::Label)?;
    if key.is_empty() { Err(ArgumentError::Label) } else { Ok((key.into(), value.into())) }
}

/// Checks a set of labels.
///
/// # Errors
/// [`NameError`] says which bound is broken.
pub fn labels(pairs: Vec<(String, String)>) -> Result<Labels, NameError> {
    Labels::new(pairs)
}

/// Takes the name of a scope.
///
/// # Errors
/// [`ArgumentError::Scope`].
pub fn scope(text: &str) -> Result<Scope, ArgumentError> {
    Scope::from_name(text).ok_or(ArgumentError::Scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_milliseconds_and_not_zero() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "0s", "15", "-1s", "1us", "999999999999999999y", "soon"] {
            assert_eq!(duration(wrong), Err(ArgumentError::Duration), "{wrong}");
        }
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn moments_are_rfc_3339_with_any_offset_or_count_back() {
        let noon = Timestamp::from_millis(1_782_907_200_000);
        for text in ["2026-07-01T12:00:00Z", "2026-07-01T14:00:00+02:00", "2026-07-01T06:30:00.000-05:30"] {
            assert_eq!(moment(text), Ok(Moment::At(noon)), "{text}");
        }
        assert_eq!(moment("15m").unwrap().resolve(noon).as_millis(), 1_782_907_200_000 - 900_000);
        assert_eq!(moment("1h").unwrap().resolve(Timestamp::from_millis(5)).as_millis(), 0);
        for wrong in
            ["", "yesterday", "2026-07-01", "2026-07-01T12:00:00", "2026-07-01T12:00:00+2:00", "é€€€€€Z"]
        {
            assert_eq!(moment(wrong), Err(ArgumentError::Moment), "{wrong}");
        }
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("1KiB"), Ok(1024));
        assert_eq!(size("2kB"), Ok(2000));
        assert_eq!(size("4 MiB"), Ok(4 << 20));
        for wrong in ["", "KiB", "1GiB", "-1", "1.5KiB", "99999999999999999999", "99999999999999MiB"] {
            assert_eq!(size(wrong), Err(ArgumentError::Size), "{wrong}");
        }
    }

    #[test]
    fn an_owner_is_a_subject_or_all_three_parts() {
        let alone = owner("alice").unwrap();
        assert_eq!((alone.issuer(), alone.client_id(), alone.subject()), ("", "", "alice"));
        let three = owner("https://id.example,travel,alice,the first").unwrap();
        assert_eq!(
            (three.issuer(), three.client_id(), three.subject()),
            ("https://id.example", "travel", "alice,the first")
        );
        for wrong in ["", "a,b", "a,b,"] {
            assert_eq!(owner(wrong), Err(ArgumentError::Owner), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_absent_or_a_positive_revision() {
        assert_eq!(expect("absent"), Ok(Expect::Absent));
        assert_eq!(expect("7"), Ok(Expect::Revision(Revision::new(7).unwrap())));
        for wrong in ["0", "-1", "any", ""] {
            assert_eq!(expect(wrong), Err(ArgumentError::Expect), "{wrong}");
        }
    }

    #[test]
    fn rates_are_positive_and_bounded() {
        assert_eq!(rate("2000/s").map(Rate::per_second), Ok(2000.0));
        assert_eq!(rate("0.5").map(Rate::per_second), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "inf", "1000001", "5/m", ""] {
            assert_eq!(rate(wrong), Err(ArgumentError::Rate), "{wrong}");
        }
    }

    #[test]
    fn a_literal_is_not_shown_by_debug() {
        let literal = Literal::from(OsString::from("hunter2"));
        assert_eq!(format!("{literal:?}"), "Literal(7 bytes)");
        assert_eq!(literal.into_bytes(), b"hunter2");
    }
}
