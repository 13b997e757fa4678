//! Who a certificate or a signed token names, and what a configuration lets them do.
//!
//! A [`Binding`] is typed: a [`Pattern`] names principals, a [`Grant`] says what they may do and for whom. There are no
//! wildcards and no templates in text. What a binding does not name is not allowed.

use std::fmt;
use std::sync::Arc;

use super::{Scopes, TenantSet};

/// Longest trust domain, namespace, service account, issuer, subject or common name, in bytes.
pub const IDENTITY_BYTES: usize = 255;

/// Whom credentials name. `Debug` shows the kind alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// A workload, by the SPIFFE id in its certificate.
    Workload(SpiffeId),
    /// The subject of a certificate that has a common name and nothing else.
    CommonName(String),
    /// The subject of a token that a trusted issuer signed.
    Subject {
        /// The issuer, exactly as configured.
        issuer: String,
        /// Whom it means.
        subject: String,
    },
}

impl Identity {
    /// The name under which the access log and approvals know the principal; no two identities share one.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Workload(id) => id.to_string(),
            Self::CommonName(name) => format!("cn:{name}"),
            // Neither part has a space.
            Self::Subject { issuer, subject } => format!("jwt:{issuer} {subject}"),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload(_) => "Workload",
            Self::CommonName(_) => "CommonName",
            Self::Subject { .. } => "Subject",
        })
    }
}

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, and no other form.
#[derive(Clone, PartialEq, Eq)]
pub struct SpiffeId {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

impl SpiffeId {
    /// Takes an id apart. No part may be empty, longer than [`IDENTITY_BYTES`], or made of other characters than SPIFFE
    /// allows; there is no percent-encoding, no port, no query and no fragment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("spiffe://")?.split('/');
        let trust_domain = parts.next().filter(|part| is_trust_domain(part))?;
        let (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        (is_segment(namespace) && is_segment(service_account)).then(|| Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    /// Whose word it is.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpiffeId(…)")
    }
}

/// Whether `text` can be a trust domain: 1 to 255 characters of `a-z`, `0-9`, `.`, `-` and `_`.
#[must_use]
pub fn is_trust_domain(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    (1..=IDENTITY_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether `text` can be one segment of a SPIFFE path: letters, digits, `.`, `-` and `_`, and not dots alone.
#[must_use]
pub fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=IDENTITY_BYTES).contains(&text.len())
        && text.bytes().all(allowed)
        && text.bytes().any(|byte| byte != b'.')
}

/// Whether `text` can be an issuer, a subject or a common name: 1 to 255 visible ASCII characters.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    (1..=IDENTITY_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Which principals a binding is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Workloads by certificate.
    Workloads {
        /// Of this trust domain,
        trust_domain: String,
        /// of this namespace, or of all;
        namespace: Option<String>,
        /// this service account, or all.
        service_account: Option<String>,
    },
    /// The certificate with this common name and nothing else in its subject.
    CommonName(String),
    /// Subjects of signed tokens.
    Subjects {
        /// Of this issuer,
        issuer: String,
        /// these.
        whom: Whom,
    },
}

/// Which subjects of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// All that it signs tokens for.
    All,
    /// Kubernetes service accounts of this namespace.
    Namespace(String),
    /// This one.
    One(String),
}

impl Pattern {
    /// Whether `identity` is one of them.
    #[must_use]
    pub fn matches(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Workloads { trust_domain, namespace, service_account }, Identity::Workload(id)) => {
                *trust_domain == id.trust_domain
                    && namespace.as_ref().is_none_or(|namespace| *namespace == id.namespace)
                    && service_account.as_ref().is_none_or(|account| *account == id.service_account)
            }
            (Self::CommonName(bound), Identity::CommonName(name)) => bound == name,
            (Self::Subjects { issuer, whom }, Identity::Subject { issuer: signed_by, subject }) => {
                issuer == signed_by && whom.matches(subject)
            }
            (Self::Workloads { .. } | Self::CommonName(_) | Self::Subjects { .. }, _) => false,
        }
    }
}

impl Whom {
    fn matches(&self, subject: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == subject,
            Self::Namespace(bound) => subject
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(namespace, account)| namespace == bound && is_segment(account)),
        }
    }
}

/// What a signed token may be signed with. There is no algorithm with a shared secret, and none without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl SignatureAlgorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// The name, as in the header of a token (RFC 7518, RFC 8037).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of exactly that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// What somebody may do, and for which tenants. Grants are never mixed: the scopes of one do not count for the tenants of
/// another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What.
    pub scopes: Scopes,
    /// For whom.
    pub tenants: TenantSet,
}

/// What the principals of a pattern are granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Who.
    pub pattern: Pattern,
    /// What.
    pub grant: Grant,
}

/// All bindings of an installation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings(Vec<Binding>);

impl Bindings {
    /// Takes bindings.
    #[must_use]
    pub const fn new(bindings: Vec<Binding>) -> Self {
        Self(bindings)
    }

    /// Everything that `identity` is granted; empty for who is not named.
    #[must_use]
    pub fn grants(&self, identity: &Identity) -> Arc<[Grant]> {
        let own = self.0.iter().filter(|binding| binding.pattern.matches(identity));
        own.map(|binding| binding.grant.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(text: &str) -> Identity {
        Identity::Workload(SpiffeId::parse(text).unwrap())
    }

    #[test]
    fn a_spiffe_id_has_one_form() {
        let id = "spiffe://example.org/ns/shop/sa/web";
        assert_eq!(SpiffeId::parse(id).unwrap().to_string(), id);
        for other in [
            "",
            "spiffe://",
            "spiffe:///ns/shop/sa/web",
            "SPIFFE://example.org/ns/shop/sa/web",
            "https://example.org/ns/shop/sa/web",
            "spiffe://example.org/ns/shop/sa/web/",
            "spiffe://example.org/ns//sa/web",
            "spiffe://example.org/ns/../sa/web",
            "spiffe://example.org/ns/shop/sa/*",
            "spiffe://example.org/ns/shop/sa/a%2Fb",
            "spiffe://example.org/ns/shop/sa/web?a=b",
            "spiffe://example.org:443/ns/shop/sa/web",
            "spiffe://user@example.org/ns/shop/sa/web",
            "spiffe://Example.org/ns/shop/sa/web",
            "spiffe://example.org/sa/web/ns/shop",
            "spiffe://example.org/web",
        ] {
            assert_eq!(SpiffeId::parse(other), None, "{other}");
        }
        assert_eq!(SpiffeId::parse(&format!("spiffe://e/ns/{}/sa/b", "n".repeat(256))), None);
    }

    #[test]
    fn a_pattern_names_one_workload_a_namespace_or_a_trust_domain_and_nobody_else() {
        let web = workload("spiffe://example.org/ns/shop/sa/web");
        let pattern = |namespace: Option<&str>, account: Option<&str>| Pattern::Workloads {
            trust_domain: "example.org".to_owned(),
            namespace: namespace.map(str::to_owned),
            service_account: account.map(str::to_owned),
        };
        for (pattern, others) in [
            (pattern(Some("shop"), Some("web")), &["spiffe://example.org/ns/shop/sa/web2"][..]),
            (pattern(Some("shop"), None), &["spiffe://example.org/ns/shop2/sa/web"]),
            (pattern(None, None), &["spiffe://example.org.evil/ns/shop/sa/web"]),
        ] {
            assert!(pattern.matches(&web));
            for other in others {
                assert!(!pattern.matches(&workload(other)), "{other}");
            }
            assert!(!pattern.matches(&Identity::CommonName("web".to_owned())));
        }
    }

    #[test]
    fn a_namespace_of_kubernetes_is_a_whole_part_of_the_subject() {
        let pattern =
            Pattern::Subjects { issuer: "https://k8s".to_owned(), whom: Whom::Namespace("shop".to_owned()) };
        let subject = |issuer: &str, subject: &str| {
            let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
            pattern.matches(&Identity::Subject { issuer, subject })
        };
        assert!(subject("https://k8s", "system:serviceaccount:shop:web"));
        assert!(!subject("https://k8s/", "system:serviceaccount:shop:web"));
        for other in ["system:serviceaccount:shop2:web", "system:serviceaccount:shop:", "shop", "shop:web"] {
            assert!(!subject("https://k8s", other), "{other}");
        }
    }
}
