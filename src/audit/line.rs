//! The canonical line of an event, and a view of what a search needs from it.
//!
//! ```text
//! {"v":1,"seq":N,"ts":MS,"typ":"…"[,"ph":"intent"],"out":"…"[,…]}
//! ```
//!
//! Keys stand in the order of the writer below; what is empty is left out; there are no spaces, no floats, and no
//! character that JSON would have to escape. `ts` is in milliseconds since 1970.

use super::event::{Actor, Event, Phase, Resource, Source, TlsVersion};
use super::keys::{LogKeys, Pseudonym, base32};
use super::{Operation, Outcome};
use crate::model::{Revision, TenantId, Timestamp, View};

const BEGIN: &[u8] = b"{\"v\":1,\"seq\":";
const TIME: &[u8] = b",\"ts\":";

/// Longest beginning of a line: both numbers with 20 digits.
pub const PREFIX_BYTES: usize = BEGIN.len() + TIME.len() + 40;

/// A line from after its time to its end. What is before it is known only when the event gets its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineTail(Vec<u8>);

impl LineTail {
    /// Writes what does not depend on the event's place in the log of `keys`.
    #[must_use]
    pub fn new(event: &Event, keys: &LogKeys) -> Self {
        let mut line = Writer(Vec::with_capacity(512));
        line.event(event, event.tenant.unwrap_or(keys.tenant.id));
        Self(line.0)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Appends the whole line to `out`.
    pub fn write_line(&self, out: &mut Vec<u8>, sequence: u64, time: Timestamp) {
        let mut line = Writer(std::mem::take(out));
        line.0.extend_from_slice(BEGIN);
        line.digits(sequence);
        line.0.extend_from_slice(TIME);
        line.digits(time.as_millis());
        line.0.extend_from_slice(&self.0);
        *out = line.0;
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn event(&mut self, event: &Event, tenant: TenantId) {
        // A sequence number and a time stand before this, hence the comma.
        self.0.extend_from_slice(b",\"typ\":\"");
        self.0.extend_from_slice(event.operation.name().as_bytes());
        self.0.push(b'"');
        match event.phase {
            Phase::Intent => self.text("ph", "intent"),
            Phase::Done => {}
        }
        self.text("out", event.outcome.name());
        if let Some(reason) = event.reason {
            self.number("code", u64::from(reason.code()));
            self.text("rsn", reason.name());
        }
        if tenant != TenantId::SYSTEM {
            self.uuid("ten", tenant.0);
        }
        self.actor(event.actor);
        self.pseudonym("own", event.owner);
        self.pseudonym("sid", event.session);
        self.resource(event.resource.unwrap_or_default());
        self.object("nb", |line| {
            line.count("in", event.bytes_in, 0);
            line.count("out", event.bytes_out, 0);
        });
        self.content(event);
        self.policy(event);
        self.source(event.source);
        self.context(event);
        self.0.push(b'}');
    }

    fn actor(&mut self, actor: Option<Actor>) {
        self.object("act", |line| match actor {
            Some(Actor::Token(name)) => {
                line.text("k", "token");
                line.pseudonym("p", Some(name));
            }
            Some(Actor::System) => line.text("k", "system"),
            None => {}
        });
    }

    fn resource(&mut self, resource: Resource) {
        self.object("res", |line| {
            line.pseudonym("kp", resource.name);
            line.count("ver", resource.revision.map_or(0, Revision::get), 0);
            line.count("n", resource.items, 0);
        });
    }

    fn content(&mut self, event: &Event) {
        if let Some(hash) = &event.content_hash {
            self.hex("ch", hash);
        }
        self.object("kid", |line| {
            if let Some(dek) = &event.dek {
                line.hex("dek", &dek.0);
            }
            if let Some(kek) = event.kek {
                line.number("kek", u64::from(kek.0));
            }
        });
    }

    fn policy(&mut self, event: &Event) {
        self.object("pol", |line| {
            if let Some(scope) = event.scope {
                line.text("authz", scope.name());
            }
            match event.view {
                Some(View::Redacted) => line.text("view", "redacted"),
                Some(View::Full) => line.text("view", "full"),
                None => {}
            }
            if let Some(approval) = event.approval {
                line.uuid("apr", approval);
            }
            if let Some(redaction) = event.redaction {
                line.number("red", u64::from(redaction.policy));
            }
        });
        self.object("red", |line| {
            line.count("n", event.redaction.map_or(0, |redaction| u64::from(redaction.pieces)), 0);
        });
    }

    fn source(&mut self, source: Option<Source>) {
        self.object("net", |line| {
            line.pseudonym("ip", source.map(|source| source.ip));
            match source.and_then(|source| source.tls) {
                Some(TlsVersion::V1_2) => line.text("tls", "1.2"),
                Some(TlsVersion::V1_3) => line.text("tls", "1.3"),
                None => {}
            }
        });
    }

    fn context(&mut self, event: &Event) {
        if let Some(trace) = &event.trace {
            self.hex("tr", trace);
        }
        if let Some(request) = &event.request {
            self.uuid("rid", *request);
        }
        if let Some(micros) = event.micros {
            self.number("us", micros);
        }
        self.count("n", u64::from(event.count), 1);
    }

    fn key(&mut self, key: &str) {
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// Only names that are constants of this program come here: nothing that would have to be escaped.
    fn text(&mut self, key: &str, text: &'static str) {
        self.key(key);
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.digits(number);
    }

    /// A number that is left out when it is the usual one.
    fn count(&mut self, key: &str, number: u64, usual: u64) {
        if number != usual {
            self.number(key, number);
        }
    }

    fn hex(&mut self, key: &str, bytes: &[u8]) {
        self.key(key);
        self.encoded(&data_encoding::HEXLOWER, b"\"", bytes);
    }

    fn uuid(&mut self, key: &str, bytes: [u8; 16]) {
        self.key(key);
        self.0.push(b'"');
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut text);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
    }

    fn pseudonym(&mut self, key: &str, pseudonym: Option<Pseudonym>) {
        let Some(pseudonym) = pseudonym else { return };
        self.key(key);
        self.0.extend_from_slice(b"\"p");
        self.digits(u64::from(pseudonym.version()));
        self.encoded(base32(), b":", pseudonym.value());
    }

    /// `before`, `bytes` as text, and the quotation mark that ends them.
    fn encoded(&mut self, encoding: &data_encoding::Encoding, before: &[u8], bytes: &[u8]) {
        self.0.extend_from_slice(before);
        let start = self.0.len();
        self.0.resize(start + encoding.encode_len(bytes.len()), 0);
        if let Some(room) = self.0.get_mut(start..) {
            encoding.encode_mut(bytes, room);
        }
        self.0.push(b'"');
    }

    /// An object with the fields that `fill` writes; left out when it writes none.
    fn object(&mut self, key: &str, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.key(key);
        self.0.push(b'{');
        let empty = self.0.len();
        fill(self);
        if self.0.len() == empty {
            self.0.truncate(start);
        } else {
            self.0.push(b'}');
        }
    }

    fn digits(&mut self, mut number: u64) {
        let start = self.0.len();
        loop {
            let [digit, ..] = (number % 10).to_le_bytes();
            self.0.push(b'0' + digit);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        if let Some(digits) = self.0.get_mut(start..) {
            digits.reverse();
        }
    }
}

/// What a search needs to know of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineView {
    /// Its number in the log.
    pub sequence: u64,
    /// Its time.
    pub time: Timestamp,
    /// What was done.
    pub operation: Operation,
    /// What became of it.
    pub outcome: Outcome,
}

impl LineView {
    /// Reads the beginning of a canonical line, and checks that it is one; the rest is not looked at.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (sequence, rest) = number(line.strip_prefix(BEGIN)?)?;
        let (time, rest) = number(rest.strip_prefix(TIME)?)?;
        let (operation, rest) = text(rest.strip_prefix(b",\"typ\":\"")?)?;
        let rest = rest.strip_prefix(b",\"ph\":\"intent\"").unwrap_or(rest);
        let (outcome, rest) = text(rest.strip_prefix(b",\"out\":\"")?)?;
        let begins_another = matches!(rest, [b'}'] | [b',', .., b'}']);
        begins_another.then_some(Self {
            sequence,
            time: Timestamp::from_millis(time),
            operation: Operation::from_name(operation)?,
            outcome: Outcome::from_name(outcome)?,
        })
    }
}

/// A decimal number without leading zeros, and what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let len = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at_checked(len)?;
    if digits.len() > 1 && digits.first() == Some(&b'0') {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// A text up to its quotation mark, and what follows that.
fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let len = bytes.iter().take(32).position(|byte| *byte == b'"')?;
    let (text, rest) = bytes.split_at_checked(len)?;
    Some((std::str::from_utf8(text).ok()?, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::keys;
    use crate::audit::{OperationSet, Reason};
    use crate::crypto::KeyId;
    use crate::model::limits::AUDIT_LINE_BYTES;
    use crate::model::{KekVersion, Scope};

    fn line(event: &Event, keys: &LogKeys, sequence: u64, time: u64) -> String {
        let mut out = Vec::new();
        LineTail::new(event, keys).write_line(&mut out, sequence, Timestamp::from_millis(time));
        String::from_utf8(out).unwrap()
    }

    /// Every field at its longest.
    fn full(keys: &LogKeys) -> Event {
        let pseudonym = Some(keys.pseudonym("test", &[b"value"]));
        Event {
            operation: Operation::TenantSuspend,
            phase: Phase::Intent,
            outcome: Outcome::Deny,
            reason: Some(Reason::LastEventMismatch),
            tenant: Some(TenantId([0xff; 16])),
            actor: pseudonym.map(Actor::Token),
            owner: pseudonym,
            session: pseudonym,
            resource: Some(Resource { name: pseudonym, revision: Revision::new(u64::MAX), items: u64::MAX }),
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
            content_hash: Some([0xab; 32]),
            dek: Some(KeyId([0xcd; 16])),
            kek: Some(KekVersion(u32::MAX)),
            scope: Some(Scope::ReadFull),
            view: Some(View::Redacted),
            approval: Some([3; 16]),
            redaction: Some(crate::audit::Redaction { policy: u32::MAX, pieces: u32::MAX }),
            source: pseudonym.map(|ip| Source { ip, tls: Some(TlsVersion::V1_3) }),
            trace: Some([1; 16]),
            request: Some([2; 16]),
            micros: Some(u64::MAX),
            count: u32::MAX,
        }
    }

    #[test]
    fn a_plain_event_is_a_short_line() {
        let keys = keys(TenantId([0x0a; 16]));
        let read = Event { bytes_out: 12, ..Event::new(Operation::EntryRead) };
        assert_eq!(
            line(&read, &keys, 7, 1_700_000_000_123),
            r#"{"v":1,"seq":7,"ts":1700000000123,"typ":"ctx.read","out":"ok","ten":"0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a","nb":{"out":12}}"#
        );
        let start = Event { actor: Some(Actor::System), ..Event::new(Operation::SystemStart) };
        assert_eq!(
            line(&start, &crate::audit::testing::keys(TenantId::SYSTEM), 0, 0),
            r#"{"v":1,"seq":0,"ts":0,"typ":"sys.start","out":"ok","act":{"k":"system"}}"#
        );
    }

    #[test]
    fn every_field_has_its_place_and_the_longest_line_is_within_its_bound() {
        let keys = LogKeys { pseudonym_version: u32::MAX, ..keys(TenantId([3; 16])) };
        let p = keys.pseudonym("test", &[b"value"]).to_string();
        assert!(p.starts_with("p4294967295:") && p.len() == 12 + 26, "{p}");
        let max = u64::MAX;
        let expected = format!(
            concat!(
                r#"{{"v":1,"seq":{max},"ts":{max},"typ":"tenant.suspend","ph":"intent","out":"deny","code":10,"#,
                r#""rsn":"LAST_EVENT_MISMATCH","ten":"{ff}","act":{{"k":"token","p":"{p}"}},"own":"{p}","#,
                r#""sid":"{p}","res":{{"kp":"{p}","ver":{max},"n":{max}}},"nb":{{"in":{max},"out":{max}}},"#,
                r#""ch":"{ab}","kid":{{"dek":"{cd}","kek":4294967295}},"pol":{{"authz":"read-full","#,
                r#""view":"redacted","apr":"{three}","red":4294967295}},"red":{{"n":4294967295}},"net":{{"ip":"{p}","tls":"1.3"}},"tr":"{one}","rid":"{two}","#,
                r#""us":{max},"n":4294967295}}"#
            ),
            max = max,
            p = p,
            ff = "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ab = "ab".repeat(32),
            cd = "cd".repeat(16),
            one = "01".repeat(16),
            two = "02020202-0202-0202-0202-020202020202",
            three = "03030303-0303-0303-0303-030303030303",
        );
        let found = line(&full(&keys), &keys, max, max);
        assert_eq!(found, expected);
        assert!(found.len() <= AUDIT_LINE_BYTES);
        assert!(found.len() - LineTail::new(&full(&keys), &keys).bytes() <= PREFIX_BYTES);
    }

    #[test]
    fn lines_are_json_and_need_no_escapes() {
        let keys = keys(TenantId([3; 16]));
        for operation in Operation::ALL {
            for reason in Reason::ALL {
                let event = Event { operation: *operation, ..full(&keys) }.failed(*reason);
                let line = line(&event, &keys, 1, 2);
                assert!(line.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{line}");
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(value["typ"], operation.name());
                assert_eq!(value["rsn"], reason.name());
            }
        }
    }

    /// What is `Copy` owns no text; that no field borrows one is seen in the source.
    #[test]
    fn no_text_enters_an_event() {
        const fn only_plain_values<T: Copy + 'static>() {}
        only_plain_values::<Event>();
        for source in [include_str!("event.rs"), include_str!("keys.rs")] {
            let types = source.lines().filter(|line| line.trim_start().starts_with("pub "));
            for field in types.filter(|line| line.trim_end().ends_with(',') && line.contains(':')) {
                assert!(!field.contains("str") && !field.contains("String"), "{field}");
            }
        }
    }

    #[test]
    fn the_view_of_a_line_is_what_was_written() {
        let keys = keys(TenantId([3; 16]));
        for (n, operation) in (0..).zip(Operation::ALL) {
            for outcome in Outcome::ALL {
                for phase in [Phase::Intent, Phase::Done] {
                    let event = Event { operation: *operation, outcome, phase, ..full(&keys) };
                    let view = LineView::parse(line(&event, &keys, n, n << 40).as_bytes()).unwrap();
                    let time = Timestamp::from_millis(n << 40);
                    assert_eq!(view, LineView { sequence: n, time, operation: *operation, outcome });
                    assert!(OperationSet::ALL.contains(view.operation));
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_canonical_line_has_no_view() {
        let good = r#"{"v":1,"seq":7,"ts":1,"typ":"ctx.read","out":"ok","us":1}"#;
        assert!(LineView::parse(good.as_bytes()).is_some());
        let bad = [
            r#"{"v":2,"seq":7,"ts":1,"typ":"ctx.read","out":"ok","us":1}"#,
            r#"{"v":1,"seq":07,"ts":1,"typ":"ctx.read","out":"ok","us":1}"#,
            r#"{"v":1,"seq":,"ts":1,"typ":"ctx.read","out":"ok","us":1}"#,
            r#"{"v":1,"seq":7,"ts":99999999999999999999,"typ":"ctx.read","out":"ok"}"#,
            r#"{"v":1,"seq":7,"ts":1,"typ":"ctx.raed","out":"ok","us":1}"#,
            r#"{"v":1,"seq":7,"ts":1,"typ":"ctx.read","out":"maybe"}"#,
            r#"{"v":1,"seq":7,"ts":1,"typ":"ctx.read","out":"ok""#,
            r#"{"v":1,"seq":7,"ts":1,"typ":"ctx.read","out":"ok"} "#,
            r#"{"v":1, "seq":7,"ts":1,"typ":"ctx.read","out":"ok"}"#,
        ];
        for line in bad {
            assert_eq!(LineView::parse(line.as_bytes()), None, "{line}");
        }
        for len in 0..good.len() {
            assert_eq!(LineView::parse(&good.as_bytes()[..len]), None, "{len}");
        }
    }
}
