//! Tests of what is printed, and a console for the tests of others.

use std::sync::{Arc, Mutex};

use super::*;

/// A stream that keeps what is written to it.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A console that answers questions with `input` and keeps what is printed.
pub fn console(format: Format, input: Option<&'static str>) -> (Console, Captured, Captured) {
    let (out, err) = (Captured::default(), Captured::default());
    let console = Console {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        input: Box::new(io::Cursor::new(input.unwrap_or_default())),
        format,
        quiet: false,
        asks: input.is_some(),
        colours: false,
    };
    (console, out, err)
}

#[derive(Serialize)]
struct Pair {
    name: &'static str,
    size: u64,
}

impl Record for Pair {
    const COLUMNS: &'static [&'static str] = &["NAME", "SIZE"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_owned(), self.size.to_string()]
    }
}

const PAIRS: [Pair; 3] = [
    Pair { name: "a", size: 1 },
    Pair { name: "zürich-日本", size: 20 },
    Pair { name: "x\u{1b}[2J\u{202e}", size: 3 },
];

fn listed(format: Format, pairs: &[Pair]) -> String {
    let (mut console, out, _) = console(format, None);
    let mut listing = console.listing();
    for pair in pairs {
        listing.push(pair).unwrap();
    }
    listing.finish().unwrap();
    out.text()
}

#[test]
fn a_table_is_aligned_and_cannot_steer_the_terminal() {
    let expected = "NAME                SIZE\na                   1\nzürich-日本         20\n\
                    x\\u{1b}[2J\\u{202e}  3\n";
    assert_eq!(listed(Format::Table, &PAIRS), expected);
}

#[test]
fn a_listing_in_json_is_one_array_even_when_empty() {
    let parsed: serde_json::Value = serde_json::from_str(&listed(Format::Json, &PAIRS)).unwrap();
    assert_eq!(parsed.as_array().unwrap().len(), 3);
    assert_eq!(listed(Format::Json, &[]), "[]\n");
    assert_eq!(listed(Format::Table, &[]), "NAME  SIZE\n");
}

#[test]
fn a_long_listing_has_one_heading_and_every_row() {
    let pairs: Vec<Pair> = (0..2500).map(|size| Pair { name: "n", size }).collect();
    let text = listed(Format::Table, &pairs);
    assert_eq!(text.lines().count(), 2501);
    assert_eq!(text.matches("NAME").count(), 1);
    assert_eq!(listed(Format::Table, &pairs[..1000]).lines().count(), 1001);
    assert_eq!(listed(Format::Table, &pairs[..1000]).matches("NAME").count(), 1);
}

#[test]
fn a_stream_in_json_is_one_line_an_item() {
    let (mut console, out, _) = console(Format::Json, None);
    let mut stream = console.stream(&[]);
    for pair in &PAIRS {
        stream.push(pair).unwrap();
    }
    assert_eq!(out.text().lines().next(), Some("{\"name\":\"a\",\"size\":1}"));
    assert_eq!(out.text().lines().count(), 3);
}

#[test]
fn times_are_utc_and_the_far_future_can_be_printed() {
    assert_eq!(Time(Timestamp::from_millis(1_782_907_200_007)).to_string(), "2026-07-01T12:00:00.007Z");
    assert_eq!(Time(Timestamp::FAR_FUTURE).to_string(), "9999-12-31T23:59:59.999Z");
}

#[test]
fn too_much_input_is_noticed_and_not_read_on() {
    assert_eq!(read_bounded(&mut io::Cursor::new([7; 10]), 4).unwrap().len(), 5);
    assert_eq!(read_bounded(&mut io::Cursor::new([7; 4]), 4).unwrap().len(), 4);
}
