//! Tokens that begin with a prefix which their issuer published, and the two formats that wrap others: JWT and PEM.

use std::ops::Range;

use super::Sink;
use super::shape::Shape;
use crate::redact::bytes::{at, before, cut, entropy, is_alphanumeric, run_end};
use crate::redact::rule::Pattern;

/// The longest JWT and the longest PEM block that are looked for; longer ones are cut at the bound.
const JWT: usize = 16 << 10;
const PEM: usize = 64 << 10;

/// Prefixes up to this length need more than their shape.
const SHORT: usize = 4;

/// A compiled token rule.
#[derive(Debug, Clone)]
pub(in crate::redact) struct TokenRule {
    pub(in crate::redact) prefix: &'static [u8],
    pub(in crate::redact) tail: Shape,
    pub(in crate::redact) rule: u16,
}

impl TokenRule {
    /// Looks for the token whose prefix ends at `end`.
    pub(in crate::redact) fn examine(&self, text: &[u8], end: usize, sink: &mut Sink<'_>) {
        let start = end - self.prefix.len();
        let inside_word = is_alphanumeric(before(text, start))
            && self.prefix.first().is_some_and(|b| b.is_ascii_alphanumeric());
        let escaped = before(text, start.saturating_sub(1)) == b'\\'
            && matches!(before(text, start), b'n' | b't' | b'r');
        if (inside_word && !escaped) || cut(text, start..end) != self.prefix {
            return;
        }
        sink.work(8);
        if let Some(last) = self.tail.end(text, end) {
            sink.work(last - end);
            let tail = cut(text, end..last);
            // A short prefix is also the beginning of words: there nobody generated what has no digit.
            let plain = self.prefix.len() <= SHORT && !tail.iter().any(u8::is_ascii_digit);
            if !plain && !is_monotonous(tail) {
                sink.hit(self.rule, start..last);
            }
        }
    }
}

/// A text that nobody generated: few different characters for its length.
pub(in crate::redact) fn is_monotonous(tail: &[u8]) -> bool {
    tail.len() >= 10 && entropy(tail) < 1.5
}

/// A JSON Web Token: header and payload begin as base64 of `{"`, then a signature; the header must decode.
pub(in crate::redact) fn jwt(text: &[u8], start: usize, sink: &mut Sink<'_>) -> usize {
    if is_base64(before(text, start)) || before(text, start) == b'.' {
        return start;
    }
    let header_end = run_end(text, start, 4096, is_base64);
    sink.work(header_end - start);
    let payload = header_end + 1;
    if at(text, header_end) != b'.' || !header_decodes(cut(text, start..header_end)) {
        return header_end;
    }
    let payload_end = run_end(text, payload, JWT, is_base64);
    let signature_end = match at(text, payload_end) {
        b'.' => run_end(text, payload_end + 1, 4096, |byte| is_base64(byte) || byte == b'.'),
        _ => payload_end,
    };
    sink.work(signature_end - payload);
    if payload_end - payload >= 10 {
        sink.found(Pattern::Jwt, start..signature_end);
    }
    signature_end
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=')
}

/// The first bytes of a header are an object with a member such as `alg`; the rest may have been tampered with.
fn header_decodes(header: &[u8]) -> bool {
    let whole = header.len() / 4 * 4;
    let decoded = data_encoding::BASE64URL_NOPAD.decode(cut(header, 0..whole.min(64)));
    let known: [&[u8]; 6] = [b"\"alg\"", b"\"typ\"", b"\"kid\"", b"\"enc\"", b"\"cty\"", b"\"x5"];
    decoded.is_ok_and(|json| {
        json.starts_with(b"{") && known.iter().any(|name| memchr::memmem::find(&json, name).is_some())
    })
}

/// A PEM block with a private key, whose dashes begin at `start`; returns where to go on.
pub(in crate::redact) fn pem(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) -> usize {
    let label = cut(text, end..end + 64);
    let Some(label_end) = memchr::memmem::find(label, b"-----") else { return end };
    let label = cut(label, 0..label_end);
    if memchr::memmem::find(label, b"PRIVATE KEY").is_none() {
        return end;
    }
    let body = end + label_end + 5;
    let rest = cut(text, body..body.saturating_add(PEM));
    let close = memchr::memmem::find(rest, b"-----");
    let block_end = match close {
        Some(dashes) if cut(rest, dashes..dashes + 9) == b"-----END " => {
            let after = body + dashes + 9;
            let tail = memchr::memmem::find(cut(text, after..after + 64), b"-----").map_or(0, |at| at + 5);
            after + tail
        }
        Some(dashes) => body + dashes,
        None => body + rest.len(),
    };
    sink.work(block_end - start);
    sink.found(Pattern::Pem, trimmed(text, start..block_end));
    block_end
}

fn trimmed(text: &[u8], span: Range<usize>) -> Range<usize> {
    let blank = cut(text, span.clone()).iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
    span.start..span.end - blank
}
