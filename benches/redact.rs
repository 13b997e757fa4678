//! What does it cost to find what is sensitive in a value, and to take it apart?
//!
//! Expectation: 200 MB/s and more on messages of MCP, most of it one automaton over text and the tokenizer; 50 MB/s and more on
//! bodies that were made to be slow; and the same rate for a value of twice the size, because the work is bounded for each byte.
//!
//! `STRONGROOM_MESSAGES=FILE` takes messages from recorded sessions, as `strongroom bench --replay` does; without it there are a
//! few of our own.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strongroom::redact::Redactor;

const MIB: usize = 1 << 20;

/// Bodies that have something for a recogniser to look at everywhere.
const HOSTILE: &[(&str, &str)] = &[
    ("names of secrets", "password token secret key "),
    ("names without end", "password="),
    ("assignments", "api_key: a1b2c3d4e5f6\n"),
    ("brackets", "[{(<"),
    ("near-misses of cards", "4111 1111 1111 1112 "),
    ("digits", "1234567890"),
    ("signs", "a@b "),
    ("colons", "0f:"),
    ("addresses", "https://"),
    ("tokens cut short", "eyJhbGciOi."),
    ("keys cut short", "-----BEGIN RSA PRIVATE KEY-----"),
    ("percent signs", "%41%42 "),
    ("escapes", "\\u0041\\n"),
    ("other scripts", "４１１１ ٣٤ é"),
];

fn messages() -> Vec<Vec<u8>> {
    #[allow(clippy::disallowed_methods, reason = "a switch of who measures, not of the program")]
    let file = std::env::var_os("STRONGROOM_MESSAGES");
    let recorded = file.and_then(|file| std::fs::read_to_string(file).ok());
    let Some(recorded) = recorded else { return own_messages() };
    let mut messages = Vec::new();
    for line in recorded.lines() {
        let Ok(session) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let found = session.get("messages").and_then(serde_json::Value::as_array);
        messages.extend(found.into_iter().flatten().map(|message| message.to_string().into_bytes()));
    }
    messages
}

fn own_messages() -> Vec<Vec<u8>> {
    let text = "The quarterly report covers revenue by region. See the table below for the totals, and section 4 for what changed. ";
    let rows = (0..40).map(|row| format!("| {row} | region {row} | {} | up |\\n", row * 7919 % 1000));
    let rows: String = rows.collect();
    let result = |body: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":[{{"type":"text","text":"{body}"}}],"isError":false}}}}"#
        )
    };
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"query":"weather in Berlin","limit":10}}}"#;
    [
        call.to_owned(),
        result(&text.repeat(20)),
        result(&rows),
        result(&format!("{text} write to ana@example.org")),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn typical(c: &mut Criterion) {
    let messages = messages();
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let redactor = Redactor::standard();
    let mut group = c.benchmark_group("messages");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("take apart", |b| {
        b.iter(|| {
            for message in &messages {
                drop(black_box(redactor.redact(black_box(message), &|_| String::new())));
            }
        });
    });
    group.finish();
}

fn hostile(c: &mut Criterion) {
    let redactor = Redactor::standard();
    let mut group = c.benchmark_group("hostile");
    group.sample_size(10);
    for (name, unit) in HOSTILE {
        for size in [MIB / 2, MIB] {
            let body = unit.repeat(size / unit.len()).into_bytes();
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(BenchmarkId::new(*name, size), &body, |b, body| {
                b.iter(|| redactor.redact(black_box(body), &|_| String::new()).is_ok());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, typical, hostile);
criterion_main!(benches);
