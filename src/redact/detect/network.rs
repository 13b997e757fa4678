//! Addresses: e-mail, IPv6, MAC, URLs with what they carry, and names of hosts.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::Sink;
use crate::redact::bytes::{at, before, cut, is_alphanumeric, is_word, run_end, run_start};
use crate::redact::rule::Pattern;

/// The longest URL that is followed.
const URL: usize = 2048;
/// The longest user, password and host of one.
const AUTHORITY: usize = 512;

/// An e-mail address around the `@` at `place`; returns where to go on.
pub(in crate::redact) fn email(text: &[u8], place: usize, sink: &mut Sink<'_>) -> usize {
    let start = run_start(text, place, 64, is_local);
    let start = start + cut(text, start..place).iter().take_while(|byte| matches!(byte, b'.' | b'-')).count();
    let end = run_end(text, place + 1, 255, |byte| is_host(byte) || byte >= 0x80);
    sink.work(end - start);
    let end = host_end(text, place + 1, end);
    let local = cut(text, start..place);
    let named = !local.is_empty() && !local.ends_with(b".") && memchr::memmem::find(local, b"..").is_none();
    if named && is_domain(cut(text, place + 1..end)) {
        sink.found(Pattern::Email, start..end);
        return end;
    }
    place + 1
}

fn is_local(byte: u8) -> bool {
    is_alphanumeric(byte)
        || byte >= 0x80
        || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-' | b'\'' | b'!' | b'#' | b'&' | b'*')
}

fn is_host(byte: u8) -> bool {
    is_alphanumeric(byte) || byte == b'.' || byte == b'-'
}

/// Without the dots and dashes at its end, which are the sentence's.
fn host_end(text: &[u8], start: usize, end: usize) -> usize {
    let more = cut(text, start..end).iter().rev().take_while(|byte| matches!(byte, b'.' | b'-')).count();
    end - more
}

/// Two labels or more, and the last one a top-level domain by its form.
fn is_domain(host: &[u8]) -> bool {
    let mut labels = host.split(|byte| *byte == b'.');
    let top = labels.next_back().unwrap_or(&[]);
    let top_fits = (2..=24).contains(&top.len())
        && top.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80)
        || top.starts_with(b"xn--");
    let mut below = 0;
    let all = labels.all(|label| {
        below += 1;
        !label.is_empty() && label.len() <= 63 && !label.starts_with(b"-") && !label.ends_with(b"-")
    });
    top_fits && all && below > 0
}

/// An IPv6 or MAC address around the `:` at `place`; returns where to go on.
pub(in crate::redact) fn colon(text: &[u8], place: usize, sink: &mut Sink<'_>) -> usize {
    let part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
    if !part(before(text, place)) && at(text, place + 1) != b':' || !part(at(text, place + 1)) {
        return place + 1;
    }
    let start = run_start(text, place, 5, |byte| byte.is_ascii_hexdigit());
    let end = run_end(text, start, 46, |byte| part(byte) || byte == b'.');
    sink.work(end - start);
    let run = cut(text, start..end);
    let end = start + run.len() - run.iter().rev().take_while(|byte| matches!(byte, b'.')).count();
    let run = cut(text, start..end);
    let run = run.strip_suffix(b":").filter(|rest| !rest.ends_with(b":")).unwrap_or(run);
    let span = start..start + run.len();
    if is_word(before(text, start)) || is_word(at(text, span.end)) || before(text, start) == b':' {
        return end.max(place + 1);
    }
    let colons = run.iter().filter(|byte| **byte == b':').count();
    if colons == 5 && run.len() == 17 && run.split(|byte| *byte == b':').all(|pair| pair.len() == 2) {
        sink.found(Pattern::Mac, span);
    } else if colons >= 2 && is_ipv6(run) {
        sink.found(Pattern::Ipv6, span);
    }
    end.max(place + 1)
}

/// An address of somebody: not unspecified or loopback, and not only a path separator of a language.
fn is_ipv6(run: &[u8]) -> bool {
    let parsed = std::str::from_utf8(run).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
    let written = run.iter().filter(|byte| byte.is_ascii_hexdigit()).count();
    parsed.is_some_and(|address| !address.is_unspecified() && !address.is_loopback()) && written >= 4
}

/// A MAC address that is written with dashes, whose first pair begins at `start`.
pub(in crate::redact) fn dashed_mac(text: &[u8], start: usize, sink: &mut Sink<'_>) {
    let fits = |at_place: usize| {
        let byte = at(text, start + at_place);
        if at_place % 3 == 2 { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    let letters = cut(text, start..start + 17).iter().any(u8::is_ascii_alphabetic);
    if letters && (0..17).all(fits) && !is_word(before(text, start)) && !is_word(at(text, start + 17)) {
        sink.found(Pattern::Mac, start..start + 17);
    }
}

/// A URL whose `://` ends at `end`; returns where to go on for other URLs.
pub(in crate::redact) fn url(text: &[u8], end: usize, sink: &mut Sink<'_>) -> usize {
    let colon = end - 3;
    let start =
        run_start(text, colon, 24, |byte| is_alphanumeric(byte) || matches!(byte, b'+' | b'.' | b'-'));
    let scheme = cut(text, start..colon);
    let authority_end = run_end(text, end, AUTHORITY, |byte| {
        !byte.is_ascii_whitespace()
            && !matches!(byte, 0 | b'"' | b'<' | b'>' | b'`' | b'\\' | b'/' | b'?' | b'#' | b'\'')
    });
    sink.work(authority_end - start);
    let at_sign = memchr::memrchr(b'@', cut(text, end..authority_end)).map(|place| end + place);
    if let Some(at_sign) = at_sign {
        password(text, end, at_sign, sink);
    }
    let web = [&b"http"[..], b"https", b"ftp", b"ftps", b"ws", b"wss"];
    let is_web = web.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let host_start = at_sign.map_or(end, |place| place + 1);
    let host_last = run_end(text, host_start, 255, |byte| is_host(byte) || byte >= 0x80);
    if !is_web || !is_domain(cut(text, host_start..host_end(text, host_start, host_last))) {
        return end;
    }
    let last = run_end(text, host_last, URL, |byte| {
        !byte.is_ascii_whitespace() && !matches!(byte, 0 | b'"' | b'<' | b'>' | b'`' | b'\\')
    });
    sink.work(last - host_last);
    let whole = url_end(text, start, last);
    sink.found(Pattern::Url, start..whole);
    whole
}

/// The password between the user and the `@` of a URL.
fn password(text: &[u8], start: usize, at_sign: usize, sink: &mut Sink<'_>) {
    let Some(colon) = memchr::memchr(b':', cut(text, start..at_sign)) else { return };
    let value = cut(text, start + colon + 1..at_sign);
    let named = value.starts_with(b"$")
        || value.starts_with(b"{")
        || value.starts_with(b"<")
        || value.starts_with(b"%{");
    let masked = value.iter().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.'));
    if !named && !masked {
        sink.found(Pattern::UrlPassword, start + colon + 1..at_sign);
    }
}

/// Where a URL ends: before the punctuation of the sentence, and before a bracket that was opened outside.
fn url_end(text: &[u8], start: usize, last: usize) -> usize {
    let mut end = last;
    while end > start {
        let url = cut(text, start..end);
        let balance = |open: u8, close: u8| {
            let count = |wanted: u8| url.iter().filter(|byte| **byte == wanted).count();
            count(open) < count(close)
        };
        let drop = match before(text, end) {
            b'.' | b',' | b';' | b':' | b'!' | b'?' | b'\'' | b'*' | b'_' => true,
            b')' => balance(b'(', b')'),
            b']' => balance(b'[', b']'),
            b'}' => balance(b'{', b'}'),
            _ => false,
        };
        if !drop || last - end > 8 {
            break;
        }
        end -= 1;
    }
    end
}

/// A host's name that begins with `www.`, which ends at `end`, or that ends in a common top-level domain.
pub(in crate::redact) fn domain(text: &[u8], place: usize, sink: &mut Sink<'_>) {
    let start = run_start(text, place, 128, is_host);
    let last = host_end(text, start, run_end(text, place, 128, is_host));
    sink.work(last - start);
    let start = start + cut(text, start..last).iter().take_while(|byte| !is_alphanumeric(**byte)).count();
    let span: Range<usize> = start..last;
    let edge = before(text, start);
    let part_of_more = matches!(edge, b'@' | b'/' | b'_' | b'\\' | b'%')
        || edge >= 0x80
        || matches!(at(text, last), b'@' | b'_' | b'(');
    let host = cut(text, span.clone());
    let lowest = host.split(|byte| *byte == b'.').next().unwrap_or(&[]);
    if !part_of_more && is_domain(host) && lowest.len() > 1 {
        let path = if at(text, last) == b'/' { run_end(text, last, URL, is_path) } else { last };
        sink.found(Pattern::Domain, start..url_end(text, start, path));
    }
}

fn is_path(byte: u8) -> bool {
    is_alphanumeric(byte)
        || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~' | b'%' | b'?' | b'=' | b'&' | b'#' | b'+')
}
