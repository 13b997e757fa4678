//! Who is let in: client certificates for each listener, issuers of signed tokens, and what their principals may do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::reader::{Document, Section};
use super::{Mistake, Problem, files};
use crate::model::{
    Binding, Duration, Grant, Pattern, Scope, Scopes, SignatureAlgorithm, TenantName, TenantSet, Whom,
    is_plain, is_segment, is_trust_domain,
};

/// Most bindings, and most issuers.
const BINDINGS: usize = 1024;
const ISSUERS: usize = 16;
/// How far clocks may differ, at most.
const LEEWAY_MAX: Duration = Duration::from_secs(60);

/// Whether a listener asks its clients for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// It does not.
    #[default]
    Off,
    /// A client may have none, but not a wrong one.
    Optional,
    /// Without one, the handshake fails.
    Required,
}

/// Which listeners ask for client certificates, and whose workloads they may name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// The data plane.
    pub data: ClientCertificates,
    /// The control plane.
    pub admin: ClientCertificates,
    /// Health and metrics.
    pub health: ClientCertificates,
    /// The trust domains that are accepted. There is no default.
    pub trust_domains: Vec<String>,
}

/// An issuer of tokens that are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuer {
    /// Its name, exactly as in the tokens.
    pub issuer: String,
    /// Our name, which must be among those that a token is for.
    pub audience: String,
    /// What it may sign with.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// The file with its keys, a JWK set.
    pub jwks: PathBuf,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Whether its tokens must be bound to the client's certificate.
    pub certificate_bound: bool,
}

impl JwtIssuer {
    pub(super) fn check_files(&self) -> Option<Mistake> {
        files::check_public("jwt.jwks", &self.jwks)
    }
}

pub(super) fn read_clients(document: &Document<'_>, has_authorities: bool) -> Clients {
    use ClientCertificates::{Off, Optional, Required};
    let section = document.section("client_certificates");
    let listener = |name| {
        let words = [("off", Off), ("optional", Optional), ("required", Required)];
        let chosen = section.one_of(name, &words, if has_authorities { Optional } else { Off });
        if chosen != Off && !has_authorities {
            section.mistake(name, Problem::Needs { field: "tls.client_ca" });
        }
        chosen
    };
    let (data, admin, health) = (listener("data"), listener("admin"), listener("health"));
    let trust_domains =
        section.texts("trust_domains", "a list of trust domains, such as \"example.org\"", is_trust_domain);
    Clients { data, admin, health, trust_domains: trust_domains.unwrap_or_default() }
}

pub(super) fn read_issuers(document: &Document<'_>, base: &Path) -> Vec<JwtIssuer> {
    let sections = document.sections("jwt", ISSUERS);
    let issuers: Vec<_> = sections.iter().map(|section| read_issuer(section, base)).collect();
    let mut seen = BTreeSet::new();
    for (section, issuer) in sections.iter().zip(&issuers) {
        if !seen.insert(&issuer.issuer) {
            section.mistake("issuer", Problem::Twice);
        }
    }
    issuers
}

fn read_issuer(section: &Section<'_>, base: &Path) -> JwtIssuer {
    let plain = "1 to 255 visible ASCII characters";
    let all = SignatureAlgorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    JwtIssuer {
        issuer: section.required_text("issuer", plain, is_plain),
        audience: section.required_text("audience", plain, is_plain),
        algorithms: section.required_words("algorithms", &all),
        jwks: section.required_path("jwks", base),
        leeway: section.duration("leeway", Duration::from_secs(30), Duration::ZERO, LEEWAY_MAX),
        certificate_bound: section.boolean("certificate_bound", false),
    }
}

pub(super) fn read_bindings(document: &Document<'_>) -> Vec<Binding> {
    let sections = document.sections("bindings", BINDINGS);
    sections
        .iter()
        .map(|section| Binding { pattern: read_pattern(section), grant: read_grant(section) })
        .collect()
}

/// Exactly one of `trust_domain`, `common_name` and `issuer` says which kind it is.
fn read_pattern(section: &Section<'_>) -> Pattern {
    let plain = "1 to 255 visible ASCII characters";
    let one = "one segment of a SPIFFE path: letters, digits and . - _";
    let trust_domain =
        section.text("trust_domain", "a trust domain, such as \"example.org\"", is_trust_domain);
    let common_name = section.text("common_name", plain, is_plain);
    let issuer = section.text("issuer", plain, is_plain);
    let namespace = section.text("namespace", one, is_segment);
    let service_account = section.text("service_account", one, is_segment);
    let subject = section.text("subject", plain, is_plain);
    if service_account.is_some() && (namespace.is_none() || trust_domain.is_none()) {
        section.mistake("service_account", Problem::Needs { field: "trust_domain and namespace" });
    }
    if subject.is_some() && (issuer.is_none() || namespace.is_some()) {
        section.mistake("subject", Problem::Needs { field: "issuer, and no namespace" });
    }
    if namespace.is_some() && common_name.is_some() {
        section.mistake("namespace", Problem::Needs { field: "trust_domain or issuer" });
    }
    match (trust_domain, common_name, issuer) {
        (Some(trust_domain), None, None) => Pattern::Workloads { trust_domain, namespace, service_account },
        (None, Some(name), None) => Pattern::CommonName(name),
        (None, None, Some(issuer)) => {
            let whom = match (subject, namespace) {
                (Some(subject), _) => Whom::One(subject),
                (None, Some(namespace)) => Whom::Namespace(namespace),
                (None, None) => Whom::All,
            };
            Pattern::Subjects { issuer, whom }
        }
        _ => {
            let problem =
                Problem::Type { expected: "with exactly one of trust_domain, common_name and issuer" };
            section.mistake("trust_domain", problem);
            Pattern::CommonName(String::new())
        }
    }
}

fn read_grant(section: &Section<'_>) -> Grant {
    let scopes = section.required_words("scopes", &Scope::ALL.map(|scope| (scope.name(), scope)));
    let expected = "a list of tenants' names; all_tenants = true stands for all of them";
    let named = section.texts("tenants", expected, |name| TenantName::new(name).is_ok());
    let all = section.boolean("all_tenants", false);
    let named: BTreeSet<_> =
        named.unwrap_or_default().into_iter().filter_map(|name| TenantName::new(name).ok()).collect();
    if all != named.is_empty() {
        section.mistake("tenants", Problem::Type { expected });
    }
    let tenants = if all { TenantSet::All } else { TenantSet::Only(named) };
    Grant { scopes: scopes.into_iter().collect::<Scopes>(), tenants }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Environment};
    use super::*;

    const REST: &str =
        "[tls]\ncertificate='c'\nkey='k'\n[store]\npath='d'\n[root]\nkeyring='r'\nrecovery=['p']\n";

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let config = Config::parse(&format!("{REST}{text}"), Path::new("/etc"), &Environment::default());
        config.map_err(|mistakes| mistakes.into_iter().map(|mistake| mistake.field).collect())
    }

    #[test]
    fn without_authorities_no_listener_can_ask_for_certificates() {
        assert_eq!(parse("").unwrap().clients, Clients::default());
        let mistakes = parse("[client_certificates]\nadmin = 'required'\n").unwrap_err();
        assert_eq!(mistakes, ["client_certificates.admin"]);
    }

    #[test]
    fn a_binding_names_one_kind_of_principal_tenants_and_scopes() {
        let rest = "tenants=['acme']\nscopes=['read','write']";
        let text = format!("[[bindings]]\ntrust_domain='example.org'\nnamespace='shop'\n{rest}\n");
        let [binding] = parse(&text).unwrap().bindings.try_into().unwrap();
        let expected = Pattern::Workloads {
            trust_domain: "example.org".to_owned(),
            namespace: Some("shop".to_owned()),
            service_account: None,
        };
        assert_eq!(binding.pattern, expected);
        assert!(binding.grant.scopes.allows(Scope::Write) && !binding.grant.scopes.allows(Scope::ReadFull));
        for (wrong, field) in [
            ("trust_domain='e'\nissuer='i'", "trust_domain"),
            ("namespace='shop'", "trust_domain"),
            ("trust_domain='e'\nservice_account='web'", "service_account"),
            ("trust_domain='*'", "trust_domain"),
            ("trust_domain='e'\nnamespace='shop*'", "namespace"),
            ("issuer='i'\nsubject='s'\nnamespace='n'", "subject"),
            ("trust_domain='e'\nall_tenants=true", "tenants"),
            ("trust_domain='e'\nprincipal='x'", "principal"),
        ] {
            let mistakes = parse(&format!("[[bindings]]\n{wrong}\n{rest}\n")).unwrap_err();
            assert!(mistakes.contains(&format!("bindings.{field}")), "{wrong}: {mistakes:?}");
        }
    }

    #[test]
    fn tenants_of_a_binding_are_names_and_never_wildcards_or_paths() {
        for tenant in ["*", "acme*", "../acme", "a/b", "", "ACME", "acme\\u0000"] {
            let text = format!("[[bindings]]\nissuer='i'\nscopes=['read']\ntenants=[\"{tenant}\"]\n");
            assert!(parse(&text).unwrap_err().contains(&"bindings.tenants".to_owned()), "{tenant}");
        }
        for none in ["", "tenants=[]"] {
            let text = format!("[[bindings]]\nissuer='i'\nscopes=['read']\n{none}\n");
            assert_eq!(parse(&text).unwrap_err(), ["bindings.tenants"]);
        }
    }

    #[test]
    fn an_issuer_must_say_what_it_signs_with_and_never_with_a_shared_secret() {
        let good = "[[jwt]]\nissuer='https://i'\naudience='strongroom'\njwks='keys.json'\n";
        let issuer = parse(&format!("{good}algorithms=['ES256']\n")).unwrap().jwt.remove(0);
        assert_eq!((issuer.jwks, issuer.leeway), ("/etc/keys.json".into(), Duration::from_secs(30)));
        for wrong in
            ["", "algorithms=[]", "algorithms=['none']", "algorithms=['HS256']", "algorithms=['ES256', 1]"]
        {
            assert_eq!(parse(&format!("{good}{wrong}\n")).unwrap_err(), ["jwt.algorithms"], "{wrong}");
        }
        let late = parse(&format!("{good}algorithms=['ES256']\nleeway='61s'\n")).unwrap_err();
        assert_eq!(late, ["jwt.leeway"]);
        let twice = format!("{good}algorithms=['ES256']\n{good}algorithms=['ES256']\n");
        assert_eq!(parse(&twice).unwrap_err(), ["jwt.issuer"]);
    }
}
