//! The built-in rules.
//!
//! They are written from what issuers and standards publish. Every rule shows by example what it finds and what it does not, and
//! each example is a test.

mod credential;
mod personal;

pub use super::rule::Rule;

const PERSONAL: usize = personal::RULES.len();
const ALL: usize = PERSONAL + credential::RULES.len();

/// All of them, personal data first.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses what is out of bounds")]
pub const RULES: &[Rule] = &{
    let mut all = [personal::RULES[0]; ALL];
    let mut place = 1;
    while place < ALL {
        all[place] =
            if place < PERSONAL { personal::RULES[place] } else { credential::RULES[place - PERSONAL] };
        place += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::redact::detect::shape::Shape;
    use crate::redact::detect::tests_of::{found_where, marked};
    use crate::redact::rule::{Detector, Pattern};

    #[test]
    fn every_example_is_found_and_no_counter_example() {
        for rule in RULES {
            for example in rule.examples {
                assert_eq!(found_where(example, |found| found.id == rule.id), marked(example), "{}", rule.id);
            }
            for example in rule.counter_examples {
                let found = found_where(example, |found| found.id == rule.id);
                assert_eq!(found, Vec::<String>::new(), "{}: {example}", rule.id);
            }
        }
    }

    #[test]
    fn rules_have_names_of_their_own_and_say_what_they_find() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(names.len(), RULES.len());
        for rule in RULES {
            let named =
                |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(named(rule.id) && named(rule.kind) && rule.kind.len() <= 16, "{}", rule.id);
            assert!(rule.description.ends_with('.'), "{}", rule.id);
            // Those of tokens are made from the shape; those of whole documents are shown where documents are read.
            let elsewhere = matches!(
                rule.detector,
                Detector::Token(..) | Detector::Pattern(Pattern::SecretName | Pattern::Elicitation)
            );
            let shown = !rule.examples.is_empty() && !rule.counter_examples.is_empty();
            assert!(elsewhere || shown, "{}", rule.id);
        }
    }

    /// The table of rules in the documentation.
    fn reference() -> String {
        let mut table = "| rule | placeholder | default | finds |\n|---|---|---|---|\n".to_owned();
        for rule in RULES {
            let action = format!("{:?}", rule.action).to_lowercase();
            let prefixes = match rule.detector {
                Detector::Token(prefixes, _) => format!(" `{}`", prefixes.join("`, `")),
                Detector::Pattern(_) => String::new(),
            };
            let (id, kind, finds) = (rule.id, rule.kind, rule.description);
            table += &format!("| `{id}` | `⟦{kind}:…⟧` | {action} | {finds}{prefixes} |\n");
        }
        table
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a switch of who writes the document anew, not of the program"
    )]
    #[test]
    fn the_reference_is_as_written_down() {
        const BEGIN: &str = "<!-- rules -->\n";
        const END: &str = "<!-- end of rules -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redaction.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (found, after) = rest.split_once(END).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", reference())).unwrap();
        } else {
            assert_eq!(found, reference(), "UPDATE_GOLDEN=1 writes it anew");
        }
    }

    /// Tokens as their issuers make them are found wherever they stand; cut short they are not.
    #[test]
    fn tokens_are_found_by_prefix_and_shape() {
        let mut state = 0x9E37_79B9_u32;
        let mut choose = |most: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % most
        };
        for rule in RULES {
            let Detector::Token(prefixes, shape) = rule.detector else { continue };
            let shape = Shape::new(shape).unwrap();
            for prefix in prefixes {
                let token = format!("{prefix}{}", shape.sample(&mut choose));
                for text in
                    [format!("‹{token}›"), format!("use \"‹{token}›\" here"), format!("A=‹{token}›\n")]
                {
                    let found = found_where(&text, |found| found.id == rule.id);
                    assert_eq!(found, marked(&text), "{}: {text}", rule.id);
                }
                let cut = format!("{prefix}x y");
                assert_eq!(found_where(&cut, |found| found.id == rule.id), Vec::<String>::new(), "{cut}");
            }
        }
    }
}
