//! Redaction: what is sensitive in a value that is about to be stored, cut out and kept apart.
//!
//! [`Redactor::redact`] reads a value once. What its rules find is replaced by placeholders in a body, and goes to an overlay that
//! is sealed under another key: who may see the redacted view opens the body alone. Putting both together gives the value byte for
//! byte. The parts, from the inside out: `json` tokenises, `decoded` undoes escapes and keeps the way back, `detect` recognises
//! formats, `scan` leads to the places that are worth a look, `document` knows what names say, `split` takes the value apart.

mod bytes;
mod decoded;
mod detect;
mod document;
mod json;
pub mod pack;
mod rule;
mod scan;
mod split;
mod words;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

pub use document::Refusal;
pub use json::DEPTH;
pub use rule::{Action, Category, Rule};
use scan::Scanner;
pub use split::{Misfit, Overlay, Pseudonym, Redacted, Reported};

/// The built-in rules, compiled once.
static SCANNER: LazyLock<Arc<Scanner>> = LazyLock::new(|| Arc::new(Scanner::new(pack::RULES)));

/// Finds what rules are about, and does with it what a policy says. Cheap to clone.
#[derive(Clone)]
pub struct Redactor {
    scanner: Arc<Scanner>,
    /// By rule; none: it is off.
    actions: Vec<Option<Action>>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = self.actions.iter().flatten().count();
        write!(f, "Redactor({on} of {} rules)", self.actions.len())
    }
}

/// What a rule found in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The rule.
    pub rule: &'static str,
    /// What it is about.
    pub category: Category,
    /// In the bytes of the value.
    pub span: Range<usize>,
}

impl Redactor {
    /// The built-in rules with their own actions.
    #[must_use]
    pub fn standard() -> Self {
        let actions = pack::RULES.iter().map(|rule| Some(rule.action)).collect();
        Self { scanner: Arc::clone(&SCANNER), actions }
    }

    /// Sets what happens to what each rule finds; none: the rule is off.
    pub fn set_actions(&mut self, action: impl Fn(&Rule) -> Option<Action>) {
        self.actions = pack::RULES.iter().map(action).collect();
    }

    /// Everything that rules which are on find in a value, in no order. What several rules find may overlap.
    ///
    /// # Errors
    /// [`Refusal`] when the value cannot be read safely, or within bounds.
    pub fn matches(&self, value: &[u8]) -> Result<Vec<Match>, Refusal> {
        let found = document::examine(&self.scanner, value)?;
        let on = |place: u16| self.actions.get(usize::from(place)).copied().flatten().is_some();
        let named = |found: document::Found| {
            let rule = pack::RULES.get(usize::from(found.rule)).filter(|_| on(found.rule))?;
            Some(Match { rule: rule.id, category: rule.category, span: found.span })
        };
        Ok(found.into_iter().filter_map(named).collect())
    }

    /// Takes a value apart.
    ///
    /// # Errors
    /// [`Refusal`] when the value cannot be read safely, or within bounds, or a rule that is set to refuse found something.
    pub fn redact<'v>(&self, value: &'v [u8], pseudonym: Pseudonym<'_>) -> Result<Redacted<'v>, Refusal> {
        self.redact_between((&[], &[]), value, pseudonym)
    }

    /// The same of a value that stands between two others, as events of a stream do: what begins in one text and ends in the next is
    /// found in both. What is JSON stands alone.
    ///
    /// # Errors
    /// As for [`redact`](Self::redact).
    pub fn redact_between<'v>(
        &self,
        (before, after): (&[u8], &[u8]),
        value: &'v [u8],
        pseudonym: Pseudonym<'_>,
    ) -> Result<Redacted<'v>, Refusal> {
        let mut found = document::examine(&self.scanner, value)?;
        found.extend(document::across(&self.scanner, before, value).1);
        found.extend(document::across(&self.scanner, value, after).0);
        let refusing = |found: &document::Found| {
            let place = usize::from(found.rule);
            let action = self.actions.get(place).copied().flatten();
            pack::RULES.get(place).filter(|_| action == Some(Action::Reject)).map(|rule| rule.id)
        };
        if let Some(rule) = found.iter().find_map(refusing) {
            return Err(Refusal::Rule(rule));
        }
        Ok(split::split(value, &found, pack::RULES, &self.actions, pseudonym))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_that_is_spread_over_two_texts_is_found_in_both() {
        let redactor = Redactor::standard();
        let (one, two): (&[u8], &[u8]) =
            (b"data: the password is hunter, api_key=a81bc3", b"d94f20e5 and more");
        let body = |between, value| {
            let redacted = redactor.redact_between(between, value, &|_| String::new()).unwrap();
            assert_eq!(redacted.overlay.splice(&redacted.body).unwrap(), value);
            String::from_utf8(redacted.body.into_owned()).unwrap()
        };
        assert_eq!(body((&[], two), one), "data: the password is hunter, api_key=⟦secret:1⟧");
        assert_eq!(body((one, &[]), two), "⟦secret:1⟧ and more");
        assert_eq!(body((&[], &[]), two), "d94f20e5 and more");
        assert_eq!(body((b"{\"a\":1}", b"{}"), two), "d94f20e5 and more");
    }

    /// Pieces of text that rules are about, and others.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "[ -~]{0,12}",
            2 => "\\PC{0,6}",
            1 => Just("ana@example.org".to_owned()),
            1 => Just("4111 1111 1111 1111".to_owned()),
            1 => Just("password=hunter22!".to_owned()),
            1 => Just("+44 20 7946 0958".to_owned()),
            1 => Just("ana%40example.org".to_owned()),
            1 => Just("４１１１１１１１１１１１１１１１".to_owned()),
        ]
    }

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.join(" "))
    }

    fn document() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            Just(serde_json::json!(4_111_111_111_111_111_u64)),
            text().prop_map(serde_json::Value::from),
            text().prop_map(|text| serde_json::json!({ "password": text, "n": 12 }).to_string().into()),
        ];
        let key = prop_oneof![Just("password".to_owned()), Just("phone".to_owned()), text()];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Arrays and objects with their sizes, and what is no string: the shape that a reader relies on.
    fn shape(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::Array(items) => {
                format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(","))
            }
            serde_json::Value::Object(map) => {
                // Keys may be placeholders, and so in another order.
                let mut members: Vec<_> = map.values().map(shape).collect();
                members.sort();
                format!("{{{}}}", members.join(","))
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => ".".to_owned(),
        }
    }

    fn comes_back(value: &[u8]) -> Vec<u8> {
        let redacted = Redactor::standard().redact(value, &|_| String::new()).unwrap();
        assert_eq!(redacted.overlay.splice(&redacted.body).unwrap(), value);
        redacted.body.into_owned()
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(value in proptest::collection::vec(any::<u8>(), 0..400)) {
            comes_back(&value);
        }

        #[test]
        fn any_text_comes_back_and_nothing_is_left_to_find(value in text()) {
            let body = comes_back(value.as_bytes());
            let again = Redactor::standard().redact(&body, &|_| String::new()).unwrap();
            prop_assert!(again.overlay.is_empty(), "{}", String::from_utf8_lossy(&body));
        }

        #[test]
        fn json_comes_back_and_its_body_is_json_of_the_same_shape(value in document()) {
            let text = value.to_string();
            let body = comes_back(text.as_bytes());
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(shape(&read), shape(&value));
            prop_assert!(!String::from_utf8(body).unwrap().contains("ana@example.org"));
        }
    }
}
