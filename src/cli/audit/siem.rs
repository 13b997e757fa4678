//! Events as other people's tools read them: OCSF records and CEF lines, made of the lines of a log.
//!
//! Every record names the place of its event in the log and the hash of its leaf, so that it can be traced back to the line
//! that was signed. What has no place of its own in the other form is carried along: OCSF has `unmapped` for it, and a CEF
//! line ends with the whole event.

use clap::ValueEnum;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use crate::tlog::{Hash, leaf_hash};

/// In which form events are exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// C2SP tlog-tiles: tiles of hashes, and bundles of events
    #[default]
    Tiles,
    /// The exact lines in events.ndjson, and the tiles of hashes
    Ndjson,
    /// As ndjson, and events.ocsf.ndjson: OCSF 1.9.0-dev, class 6005, of failed logins 3002
    Ocsf,
    /// As ndjson, and events.cef: CEF 0
    Cef,
}

impl Format {
    /// The file with the records that are made of the lines; `None`: there is none.
    pub(super) const fn derived(self) -> Option<&'static str> {
        match self {
            Self::Tiles | Self::Ndjson => None,
            Self::Ocsf => Some("events.ocsf.ndjson"),
            Self::Cef => Some("events.cef"),
        }
    }
}

/// Version of OCSF that the records are of: the first with the profile `record_integrity`.
const OCSF: &str = "1.9.0-dev";
/// What every record names as its source.
const PRODUCT: &str = "Strongroom";

/// Where a field of a line goes.
struct Place {
    /// JSON Pointer in the line.
    line: &'static str,
    /// JSON Pointer in the OCSF record.
    ocsf: &'static str,
    /// Whether OCSF wants a text where the line has a number.
    as_text: bool,
    /// Key of the CEF extension, and the label that goes with a custom one; empty: it is in `msg` alone.
    cef: (&'static str, &'static str),
}

const fn place(line: &'static str, ocsf: &'static str, cef: &'static str, label: &'static str) -> Place {
    Place { line, ocsf, as_text: false, cef: (cef, label) }
}

/// All fields that have a place of their own. The paths are those of the OCSF schema, class 6005.
const PLACES: [Place; 16] = [
    place("/ts", "/time", "rt", ""),
    place("/seq", "/metadata/sequence", "externalId", ""),
    place("/typ", "/metadata/event_code", "", ""),
    place("/out", "/status", "outcome", ""),
    Place { as_text: true, ..place("/code", "/status_code", "", "") },
    place("/rsn", "/status_detail", "reason", ""),
    place("/ten", "/metadata/tenant_uid", "cs1", "tenant"),
    place("/rid", "/metadata/correlation_uid", "", ""),
    place("/act/p", "/actor/user/uid", "suid", ""),
    place("/act/k", "/actor/user/type", "", ""),
    place("/own", "/actor/session/credential_uid", "duid", ""),
    place("/sid", "/actor/session/uid", "cs2", "session"),
    place("/res/kp", "/databucket/uid", "cs3", "resource"),
    Place { as_text: true, ..place("/res/ver", "/databucket/version", "cn1", "revision") },
    place("/nb/out", "/query_info/bytes", "out", ""),
    // A pseudonym is no address.
    place("/net/ip", "/src_endpoint/uid", "cs4", "address"),
];

/// What an operation is in the classes of OCSF, by what follows the last dot of its name.
const ACTIVITIES: [(&str, u8); 22] = [
    ("read", 1),
    ("reveal", 1),
    ("describe", 1),
    ("status", 1),
    ("update", 2),
    ("renew", 2),
    ("search", 4),
    ("census", 4),
    ("put", 5),
    ("append", 5),
    ("import", 5),
    ("create", 6),
    ("rotate", 6),
    ("delete", 7),
    ("consume", 7),
    ("expire", 7),
    ("purge", 7),
    ("destroy", 7),
    ("reclaim", 7),
    ("revoke", 7),
    ("list", 8),
    ("watch", 8),
];
const OTHER: u8 = 99;

/// Whose log the lines are of.
#[derive(Debug, Clone)]
pub(super) struct Converter {
    /// Name of the key that signs the log.
    authority: String,
    /// Name of the log.
    origin: String,
    format: Format,
    previous: Option<Hash>,
}

impl Converter {
    pub(super) fn new(authority: &str, origin: &str, format: Format) -> Self {
        Self { authority: authority.to_owned(), origin: origin.to_owned(), format, previous: None }
    }

    /// The record of the line that comes next, without an end; `None` when it is no event.
    pub(super) fn next(&mut self, line: &str) -> Option<String> {
        let event: Value = serde_json::from_str(line).ok()?;
        let leaf = leaf_hash(line.as_bytes());
        let record = match self.format {
            Format::Cef => self.cef(&event, line, &leaf)?,
            Format::Ocsf | Format::Ndjson | Format::Tiles => self.ocsf(&event, &leaf)?.to_string(),
        };
        self.previous = Some(leaf);
        Some(record)
    }

    fn ocsf(&self, event: &Value, leaf: &Hash) -> Option<Value> {
        let operation = event.get("typ")?.as_str()?;
        let denied = event.get("out")?.as_str()? == "deny";
        let is_login = operation == "auth.fail";
        let activity = if is_login { 1 } else { activity_of(operation) };
        let class: u32 = if is_login { 3002 } else { 6005 };
        let mut record = json!({
            "class_uid": class,
            "category_uid": class / 1000,
            "activity_id": activity,
            "activity_name": operation,
            "type_uid": class * 100 + u32::from(activity),
            "severity_id": severity(event),
            "status_id": if event.get("out")?.as_str()? == "ok" { 1 } else { 2 },
            "metadata": {
                "version": OCSF,
                "profiles": ["record_integrity", "security_control"],
                "product": { "name": PRODUCT, "vendor_name": PRODUCT, "version": env!("CARGO_PKG_VERSION") },
                "log_name": self.origin,
            },
            "actor": { "app_name": PRODUCT },
            "src_endpoint": { "name": PRODUCT },
            "attestation_list": [self.attestation(leaf)],
        });
        if is_login {
            put(&mut record, "/user/name", "unknown".into());
            put(&mut record, "/service/name", PRODUCT.into());
        } else {
            put(&mut record, "/databucket/name", PRODUCT.into());
        }
        if denied {
            put(&mut record, "/action_id", 2.into());
            put(&mut record, "/disposition_id", 2.into());
        } else if event.pointer("/pol/view").and_then(Value::as_str) == Some("redacted") {
            put(&mut record, "/action_id", 4.into());
            put(&mut record, "/disposition_id", 11.into());
        }
        if let Some(scope) = event.pointer("/pol/authz") {
            put(&mut record, "/policy/uid", scope.clone());
        }
        carry(&mut record, event, "");
        Some(record)
    }

    fn attestation(&self, leaf: &Hash) -> Value {
        let mut attestation = json!({
            "authority_uid": self.authority,
            "chain_uid": self.origin,
            "fingerprint": fingerprint(leaf),
        });
        if let Some(previous) = &self.previous {
            put(&mut attestation, "/prev_event/fingerprint", fingerprint(previous));
        }
        attestation
    }

    fn cef(&self, event: &Value, line: &str, leaf: &Hash) -> Option<String> {
        let operation = event.get("typ")?.as_str()?;
        let header = [PRODUCT, PRODUCT, env!("CARGO_PKG_VERSION"), operation, operation].map(cef_header);
        let mut extension = Vec::new();
        for place in PLACES.iter().filter(|place| !place.cef.0.is_empty()) {
            let Some(value) = event.pointer(place.line) else { continue };
            let (key, label) = place.cef;
            extension.push(format!("{key}={}", cef_value(&text_of(value))));
            if !label.is_empty() {
                extension.push(format!("{key}Label={label}"));
            }
        }
        extension.push(format!("cs5={} cs5Label=log", cef_value(&self.origin)));
        extension.push(format!("cs6={} cs6Label=leaf", HEXLOWER.encode(leaf)));
        extension.push(format!("msg={}", cef_value(line)));
        let severity = severity(event) * 3;
        Some(format!("CEF:0|{}|{severity}|{}", header.join("|"), extension.join(" ")))
    }
}

fn activity_of(operation: &str) -> u8 {
    let verb = operation.rsplit('.').next().unwrap_or_default();
    ACTIVITIES.iter().find(|(known, _)| *known == verb).map_or(OTHER, |(_, activity)| *activity)
}

/// 1 informational, 2 low: it failed, 3 medium: it was denied.
fn severity(event: &Value) -> u8 {
    match event.get("out").and_then(Value::as_str) {
        Some("ok") => 1,
        Some("deny") => 3,
        _ => 2,
    }
}

fn fingerprint(hash: &Hash) -> Value {
    json!({ "algorithm": "SHA-256", "algorithm_id": 3, "value": HEXLOWER.encode(hash) })
}

/// Carries all fields of `part` over, each to its place or to `unmapped`.
fn carry(record: &mut Value, part: &Value, path: &str) {
    if let Value::Object(fields) = part {
        for (name, field) in fields {
            carry(record, field, &format!("{path}/{name}"));
        }
        return;
    }
    match PLACES.iter().find(|place| place.line == path) {
        Some(place) if place.as_text => put(record, place.ocsf, text_of(part).into()),
        Some(place) => put(record, place.ocsf, part.clone()),
        None => put(record, &format!("/unmapped{path}"), part.clone()),
    }
}

/// Sets the field at a JSON Pointer of names, with the objects on the way to it.
fn put(record: &mut Value, pointer: &str, value: Value) {
    let mut names: Vec<&str> = pointer.split('/').skip(1).collect();
    let Some(last) = names.pop() else { return };
    let mut object = record;
    for name in names {
        if !object.get(name).is_some_and(Value::is_object) {
            insert(object, name, Value::Object(Map::new()));
        }
        let Some(inner) = object.get_mut(name) else { return };
        object = inner;
    }
    insert(object, last, value);
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn cef_header(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|")
}

fn cef_value(text: &str) -> String {
    text.replace('\\', "\\\\").replace('=', "\\=").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = r#"{"v":1,"seq":7,"ts":1782907200007,"typ":"ctx.read","out":"ok","ten":"t","act":{"k":"token","p":"p1:a"},"sid":"p1:s","res":{"kp":"p1:e","ver":3},"nb":{"out":5},"kid":{"kek":1},"pol":{"authz":"read","view":"redacted"},"net":{"ip":"p1:i"},"us":9}"#;
    const DENIED: &str = r#"{"v":1,"seq":8,"ts":1782907200008,"typ":"auth.fail","out":"deny","code":16,"rsn":"UNAUTHENTICATED","net":{"ip":"p1:i"},"n":3}"#;

    fn converter(format: Format) -> Converter {
        Converter::new("strongroom/log", "strongroom/log/1/2/3", format)
    }

    fn pointers(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
        match value.as_object() {
            Some(fields) => {
                fields.iter().for_each(|(name, field)| pointers(field, &format!("{path}/{name}"), found));
            }
            None => found.push((path.to_owned(), text_of(value))),
        }
    }

    #[test]
    fn an_ocsf_record_has_what_its_class_requires_and_everything_that_the_line_has() {
        let mut converter = converter(Format::Ocsf);
        for (line, class, activity) in [(READ, 6005, 1), (DENIED, 3002, 1)] {
            let record: Value = serde_json::from_str(&converter.next(line).unwrap()).unwrap();
            assert_eq!(record["type_uid"], class * 100 + activity);
            for required in ["activity_id", "category_uid", "severity_id", "time"] {
                assert!(record[required].is_number(), "{required}");
            }
            for required in ["actor", "src_endpoint", "metadata"] {
                assert!(record[required].is_object(), "{required}");
            }
            assert!(
                record["databucket"].is_object()
                    || record["service"].is_object() && record["user"].is_object()
            );
            let hash = HEXLOWER.encode(&leaf_hash(line.as_bytes()));
            assert_eq!(record["attestation_list"][0]["fingerprint"]["value"], hash);
            let (mut of_line, mut of_record) = (Vec::new(), Vec::new());
            pointers(&serde_json::from_str(line).unwrap(), "", &mut of_line);
            pointers(&record, "", &mut of_record);
            for (path, value) in of_line {
                let there = PLACES.iter().find(|place| place.line == path);
                let there = there.map_or_else(|| format!("/unmapped{path}"), |place| place.ocsf.to_owned());
                assert!(of_record.contains(&(there, value)), "{path}");
            }
        }
    }

    #[test]
    fn a_record_names_the_event_before_it_and_what_was_refused_or_redacted() {
        let mut converter = converter(Format::Ocsf);
        let read: Value = serde_json::from_str(&converter.next(READ).unwrap()).unwrap();
        let denied: Value = serde_json::from_str(&converter.next(DENIED).unwrap()).unwrap();
        assert!(read["attestation_list"][0]["prev_event"].is_null());
        let before = &denied["attestation_list"][0]["prev_event"]["fingerprint"]["value"];
        assert_eq!(*before, HEXLOWER.encode(&leaf_hash(READ.as_bytes())));
        assert_eq!((&read["action_id"], &read["disposition_id"]), (&4.into(), &11.into()));
        assert_eq!((&denied["action_id"], &denied["status_id"]), (&2.into(), &2.into()));
    }

    #[test]
    fn a_cef_line_escapes_what_its_form_would_take_for_something_else() {
        let mut converter = converter(Format::Cef);
        let line = converter.next(DENIED).unwrap();
        let (header, extension) = line.split_at(line.rfind("|9|").unwrap());
        assert_eq!(
            header,
            format!("CEF:0|Strongroom|Strongroom|{}|auth.fail|auth.fail", env!("CARGO_PKG_VERSION"))
        );
        assert!(
            extension.contains(" reason=UNAUTHENTICATED ") && extension.contains("cs4=p1:i cs4Label=address")
        );
        assert!(extension.ends_with(&format!("msg={DENIED}")));
        assert_eq!(cef_header("a|b\\c"), "a\\|b\\\\c");
        assert_eq!(cef_value("a=b\\c\nd"), "a\\=b\\\\c\\nd");
    }

    #[test]
    fn the_mapping_is_as_written_down() {
        let written = include_str!("../../../docs/audit.md");
        let dotted = |pointer: &str| format!("`{}`", pointer.trim_start_matches('/').replace('/', "."));
        for Place { line, ocsf, cef: (key, label), .. } in &PLACES {
            let cef = match (*key, *label) {
                ("", _) => "–".to_owned(),
                (key, "") => format!("`{key}`"),
                (key, label) => format!("`{key}` ({label})"),
            };
            let row = format!("\n| {} | {} | {cef} |\n", dotted(line), dotted(ocsf));
            assert!(written.contains(&row), "docs/audit.md lacks: {row}");
        }
        for (verb, activity) in ACTIVITIES {
            let (_, listed) = written.split_once(&format!("{activity}: `")).unwrap();
            let listed = listed.split(';').next().unwrap();
            assert!(listed.starts_with(verb) || listed.contains(&format!("`{verb}`")), "{verb}");
        }
    }

    #[test]
    fn what_is_no_event_has_no_record() {
        for format in [Format::Ocsf, Format::Cef] {
            for wrong in ["", "{", "[]", "{}", r#"{"typ":1,"out":"ok"}"#] {
                assert_eq!(converter(format).next(wrong), None, "{wrong}");
            }
        }
    }
}
