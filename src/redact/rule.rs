//! Rules: what is looked for, what it is called, and what happens to it.

use serde::{Deserialize, Serialize};

/// What happens to what a rule finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Cut out, kept in the overlay under the sensitive key.
    Protect,
    /// Cut out and not kept.
    Drop,
    /// Cut out and not kept, but for its last four characters where at least eight others stay hidden.
    Mask,
    /// As protect, with a placeholder that is the same for the same value of one tenant.
    Pseudonym,
    /// Cut out and not kept, but for what is coarse: the network of an address, the domain of an e-mail address.
    Generalize,
    /// The whole write is refused.
    Reject,
    /// Left as it is, and reported.
    Flag,
}

impl Action {
    /// Whether it takes the value out of the body.
    #[must_use]
    pub const fn cuts(self) -> bool {
        !matches!(self, Self::Reject | Self::Flag)
    }

    /// Whether the full view has the value again.
    #[must_use]
    pub const fn keeps(self) -> bool {
        matches!(self, Self::Protect | Self::Pseudonym | Self::Reject | Self::Flag)
    }
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Personal data.
    Pii,
    /// What lets its holder in.
    Credential,
    /// Places in messages of the Model Context Protocol and of OAuth.
    Mcp,
    /// Names of accounts and resources, which are no secrets but tell where one is.
    Resource,
    /// A tenant's own.
    Tenant,
}

/// The formats that are recognised by more than a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Pattern {
    Card,
    Iban,
    Ssn,
    Itin,
    Nhs,
    Aadhaar,
    Cpf,
    Routing,
    Phone,
    Email,
    Ipv4,
    Ipv6,
    Mac,
    Url,
    Domain,
    UrlPassword,
    Bearer,
    Basic,
    Jwt,
    Pem,
    Assigned,
    AssignedToken,
    CommandLine,
    SecretName,
    Elicitation,
}

/// How many patterns there are.
pub(super) const PATTERNS: usize = Pattern::Elicitation as usize + 1;

/// How a built-in rule finds what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detector {
    /// A format with its own recogniser.
    Pattern(Pattern),
    /// A token: one of the prefixes, then a shape.
    Token(&'static [&'static str], &'static str),
}

/// A rule of the built-in pack.
///
/// In examples, what must be found stands between `‹` and `›`; a counter-example holds nothing that this rule finds.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name in policies and reports, stable.
    pub id: &'static str,
    /// The word in placeholders.
    pub kind: &'static str,
    /// What it is about.
    pub category: Category,
    /// What happens unless a policy says otherwise.
    pub action: Action,
    /// Which of two rules that overlap names the piece; the higher one.
    pub priority: u8,
    /// What it finds, for people.
    pub description: &'static str,
    /// What it finds, shown.
    pub examples: &'static [&'static str],
    /// What it does not find, shown.
    pub counter_examples: &'static [&'static str],
    pub(super) detector: Detector,
}
