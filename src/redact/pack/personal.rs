//! Rules for personal data, and for what tells where something is.

use crate::redact::rule::{Action, Category, Detector, Pattern, Rule};

const fn personal(
    (id, kind): (&'static str, &'static str),
    pattern: Pattern,
    priority: u8,
    description: &'static str,
    examples: &'static [&'static str],
    counter_examples: &'static [&'static str],
) -> Rule {
    let detector = Detector::Pattern(pattern);
    let (category, action) = (Category::Pii, Action::Protect);
    Rule { id, kind, category, action, priority, description, examples, counter_examples, detector }
}

/// A rule that reports and leaves alone, unless a policy says otherwise.
const fn resource(rule: Rule) -> Rule {
    Rule { category: Category::Resource, action: Action::Flag, ..rule }
}

pub(super) const RULES: &[Rule] = &[
    personal(
        ("card", "card"),
        Pattern::Card,
        90,
        "Numbers of payment cards: issuer, length and check digit (ISO/IEC 7812).",
        &[
            "pay with ‹4111 1111 1111 1111› please",
            "‹378282246310005›",
            "card ‹5555-5555-5555-4444›.",
            "0 ‹4111 1111 1111 1111›",
        ],
        &["4111 1111 1111 1112", "order 1234567890123456", "0000 0000 0000 0000"],
    ),
    personal(
        ("iban", "iban"),
        Pattern::Iban,
        90,
        "International bank account numbers: country, length and remainder (ISO 13616).",
        &["to ‹GB82 WEST 1234 5698 7654 32›", "IBAN:‹DE89370400440532013000›", "‹NO9386011117947›"],
        &["GB82 WEST 1234 5698 7654 33", "ZZ89370400440532013000"],
    ),
    personal(
        ("us-ssn", "ssn"),
        Pattern::Ssn,
        80,
        "Social security numbers of the US, grouped with dashes, or near a word for them.",
        &["‹536-90-4399›", "my SSN is ‹536904399›", "social security ‹536 90 4399›"],
        &["000-12-3456", "666-12-3456", "part 536904399", "536-90-43991"],
    ),
    personal(
        ("us-itin", "itin"),
        Pattern::Itin,
        80,
        "Individual taxpayer identification numbers of the US.",
        &["‹912-70-1234›"],
        &["912-66-1234"],
    ),
    personal(
        ("uk-nhs", "nhs"),
        Pattern::Nhs,
        80,
        "Numbers of the NHS, by check digit, near a word for them.",
        &["NHS number ‹943 476 5919›", "nhs: ‹9434765919›"],
        &["943 476 5919 units", "NHS number 943 476 5918"],
    ),
    personal(
        ("in-aadhaar", "aadhaar"),
        Pattern::Aadhaar,
        80,
        "Aadhaar numbers, by Verhoeff's check digit, near a word for them.",
        &["Aadhaar ‹2341 2341 2346›"],
        &["Aadhaar 2341 2341 2347", "2341 2341 2346"],
    ),
    personal(
        ("br-cpf", "cpf"),
        Pattern::Cpf,
        80,
        "Brazilian CPF numbers, by check digits, as they are printed or near the word.",
        &["‹529.982.247-25›", "CPF ‹52998224725›"],
        &["529.982.247-26", "111.111.111-11"],
    ),
    personal(
        ("us-routing", "routing"),
        Pattern::Routing,
        70,
        "ABA routing numbers, by check digit, near a word for them.",
        &["routing number ‹011000015›"],
        &["routing number 011000016", "011000015"],
    ),
    personal(
        ("phone", "phone"),
        Pattern::Phone,
        50,
        "Telephone numbers: with a country's code, as North America groups them, or near a word for them.",
        &[
            "call ‹+44 20 7946 0958›",
            "‹(415) 555-2671›",
            "phone: ‹5552671›",
            "call me on ‹01.84.17.61.18›",
            "‹212-555-0199 x12›",
        ],
        &["2024-01-15", "version 10.2.3.4", "in 2019 and 2020", "id 5552671"],
    ),
    personal(
        ("email", "email"),
        Pattern::Email,
        70,
        "Addresses of electronic mail (RFC 5321, and names beyond ASCII).",
        &["write to ‹ana.b+x@example.co.uk›.", "<‹o'neil@example.org›>", "‹jürgen@example.de›"],
        &["user@localhost", "a@b", "@decorator", "x @ y.com"],
    ),
    personal(
        ("ipv4", "ipv4"),
        Pattern::Ipv4,
        60,
        "IPv4 addresses of somebody: no loopback, no network, no well-known resolver.",
        &["from ‹203.0.113.77› today", "http://‹198.51.100.4›:8080/"],
        &["127.0.0.1", "0.0.0.0", "version 1.2.3.4", "256.1.1.1", "1.2.3.4.5"],
    ),
    personal(
        ("ipv6", "ipv6"),
        Pattern::Ipv6,
        60,
        "IPv6 addresses of somebody (RFC 4291).",
        &["‹2001:db8:85a3::8a2e:370:7334›", "[‹fe80::1ff:fe23:4567:890a›]"],
        &["::1", "std::fs::File", "12:30:45"],
    ),
    personal(
        ("mac", "mac"),
        Pattern::Mac,
        60,
        "Addresses of network interfaces (IEEE 802).",
        &["‹00:1a:2b:3c:4d:5e›", "‹00-1A-2B-3C-4D-5E›"],
        &["00:1a:2b:3c:4d", "12:34:56"],
    ),
    resource(personal(
        ("url", "url"),
        Pattern::Url,
        20,
        "Addresses on the web.",
        &["see ‹https://example.com/a?b=c›.", "(‹http://example.org/x_(y)›)"],
        &["file:///etc/hosts", "https://localhost/x"],
    )),
    resource(personal(
        ("domain", "domain"),
        Pattern::Domain,
        10,
        "Names of hosts that begin with www or end in a common top-level domain.",
        &["at ‹www.example.co.uk›", "‹example.com› is"],
        &["main.rs", "a.command", "node.js"],
    )),
];
