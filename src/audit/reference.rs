//! The reference of events in `docs/audit.md` is made of the types, so that it can lack none and promise none.

use std::fmt::Write as _;

use super::{Operation, Outcome, Reason};

const BEGIN: &str = "<!-- events -->\n";
const END: &str = "<!-- end of events -->";

/// Families, in the order in which they are listed.
const FAMILIES: [(&str, &str); 14] = [
    ("ses", "Sessions"),
    ("ctx", "Entries"),
    ("evt", "Events of streams"),
    ("key", "Keys of tenants"),
    ("root", "The root key"),
    ("job", "Jobs"),
    ("approval", "Approvals"),
    ("tenant", "Tenants"),
    ("tok", "Tokens"),
    ("auth", "Authentication"),
    ("authz", "Authorization"),
    ("rate", "Rates"),
    ("aud", "The access log itself"),
    ("adm", "Administration"),
];

fn reference() -> String {
    let mut text = String::from("| operation | what happened |\n|---|---|\n");
    let families = FAMILIES.iter().copied().chain([("sys", "The server")]);
    for (family, title) in families {
        writeln!(text, "| **{title}** | |").unwrap();
        let members = Operation::ALL.iter().filter(|one| one.name().split('.').next() == Some(family));
        for operation in members {
            writeln!(text, "| `{}` | {} |", operation.name(), operation.meaning().trim()).unwrap();
        }
    }
    let outcomes: Vec<_> = Outcome::ALL.iter().map(|outcome| format!("`{}`", outcome.name())).collect();
    writeln!(text, "\nOutcomes: {}.\n", outcomes.join(", ")).unwrap();
    writeln!(text, "| reason (`rsn`) | gRPC status (`code`) | why |\n|---|---|---|").unwrap();
    for reason in Reason::ALL {
        writeln!(text, "| `{}` | {} | {} |", reason.name(), reason.code(), reason.meaning().trim()).unwrap();
    }
    text
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that is told to write its golden file")]
fn the_reference_of_events_is_as_written_down() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", reference())).unwrap();
    } else {
        assert_eq!(found, reference(), "UPDATE_GOLDEN=1 writes it anew");
    }
}

#[test]
fn every_operation_is_of_a_family_in_the_reference() {
    let text = reference();
    for operation in Operation::ALL {
        assert_eq!(text.matches(&format!("| `{}` |", operation.name())).count(), 1, "{operation:?}");
    }
}
