//! Who is let in by a client certificate or by a token that somebody else signed, and who is not.

use std::path::PathBuf;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};
use serde_json::{Value, json};
use strongroom::auth::{CertificateAuthenticator, Issuer, JwtAuthenticator, KeySource, Subjects};
use strongroom::model::{
    Binding, Bindings, Duration, Grant, Pattern, Scope, SignatureAlgorithm, TenantName, TenantSet, Whom,
};
use strongroom::proto::v1;
use tonic::{Code, Request};

use crate::requests::{append, create, follow, get};
use crate::site::Site;
use crate::support::{BEGIN, Context, Inside, answered, refused, soon};

const ISSUER: &str = "https://id.example";
const SUBJECT: &str = "system:serviceaccount:shop:web";
const WEB: &str = "spiffe://example.org/ns/shop/sa/web";
/// A key that signs nothing but the tokens of these tests.
const RSA: &[u8] = include_bytes!("identity_rsa.der");

fn now() -> u64 {
    BEGIN.as_millis() / 1000
}

#[expect(clippy::disallowed_methods, reason = "a test makes keys of its own")]
fn random() -> SystemRandom {
    SystemRandom::new()
}

fn encoded(part: &[u8]) -> String {
    BASE64URL_NOPAD.encode(part)
}

/// An issuer with a key of each kind, and the file of its public halves.
struct Identities {
    dir: tempfile::TempDir,
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    rsa: RsaKeyPair,
    keys: Arc<KeySource>,
}

impl Identities {
    fn new() -> Self {
        let random = random();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let p256 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ed25519 = Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(algorithm, p256.as_ref(), &random).unwrap();
        let rsa = RsaKeyPair::from_der(RSA).unwrap();
        let path = dir.path().join("jwks.json");
        std::fs::write(&path, set(&ed25519, &p256, &rsa)).unwrap();
        Self { dir, ed25519, p256, rsa, keys: KeySource::open(path).unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("jwks.json")
    }

    /// A token with these claims, signed as the header says.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let random = random();
        let signature = match header["alg"].as_str().unwrap() {
            "EdDSA" => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
            "ES256" => self.p256.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            "RS256" => self.rsa_signature(&RSA_PKCS1_SHA256, &signed),
            "PS256" => self.rsa_signature(&RSA_PSS_SHA256, &signed),
            other => panic!("{other}"),
        };
        format!("{signed}.{}", encoded(&signature))
    }

    fn rsa_signature(&self, encoding: &'static dyn signature::RsaEncoding, signed: &str) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public().modulus_len()];
        self.rsa.sign(encoding, &random(), signed.as_bytes(), &mut signature).unwrap();
        signature
    }

    /// A token of the usual kind with some claims changed.
    fn token(&self, changes: &Value) -> String {
        self.sign(&header("EdDSA", "ed"), &claims(changes))
    }

    fn client(&self, inside: &Inside, token: &str, certificate: Option<&[u8]>) -> Context {
        self.client_of(inside, token, certificate, false)
    }

    fn client_of(
        &self,
        inside: &Inside,
        token: &str,
        certificate: Option<&[u8]>,
        certificate_bound: bool,
    ) -> Context {
        let issuer = Issuer {
            name: ISSUER.to_owned(),
            audience: "strongroom".to_owned(),
            algorithms: SignatureAlgorithm::ALL.to_vec(),
            keys: Arc::clone(&self.keys),
            leeway: Duration::from_secs(30),
            certificate_bound,
        };
        let whom = Whom::Namespace("shop".to_owned());
        let pattern = Pattern::Subjects { issuer: ISSUER.to_owned(), whom };
        let bindings = Arc::new(Bindings::new(vec![Binding { pattern, grant: grant() }]));
        let more = |gate: strongroom::auth::Gate, clock| {
            gate.with_signed(Arc::new(JwtAuthenticator::new(vec![issuer], bindings, clock)))
        };
        inside.context_through(more, Some(token), certificate)
    }

    async fn accepted(&self, inside: &Inside, token: &str) {
        answered(self.client(inside, token, None).create_session(create("demo")).await);
    }

    async fn refused(&self, inside: &Inside, token: &str) {
        is_refused(self.client(inside, token, None)).await;
    }
}

fn set(ed25519: &Ed25519KeyPair, p256: &EcdsaKeyPair, rsa: &RsaKeyPair) -> String {
    let point = p256.public_key().as_ref();
    let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(rsa.public());
    let (n, e) = (encoded(&n), encoded(&e));
    json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encoded(ed25519.public_key().as_ref()) },
        { "kty": "EC", "crv": "P-256", "kid": "ec", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
        { "kty": "RSA", "kid": "rsa", "n": n, "e": e },
        { "kty": "RSA", "kid": "rs256", "alg": "RS256", "n": n, "e": e },
    ]})
    .to_string()
}

fn header(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "kid": kid, "typ": "JWT" })
}

fn claims(changes: &Value) -> Value {
    let mut claims =
        json!({ "iss": ISSUER, "sub": SUBJECT, "aud": ["strongroom"], "exp": now() + 600, "iat": now() });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()))
}

fn grant() -> Grant {
    let demo = TenantName::new("demo").unwrap();
    Grant {
        scopes: [Scope::Read, Scope::Write].into_iter().collect(),
        tenants: TenantSet::Only([demo].into()),
    }
}

/// Refused, in the words that everybody is refused in.
async fn is_refused(mut client: Context) {
    let refusal =
        refused(client.create_session(create("demo")).await, Code::Unauthenticated, "UNAUTHENTICATED");
    assert_eq!(refusal.text, "the credentials are not valid");
    assert!(refusal.details.is_empty() && refusal.fields.is_empty());
}

/// A certificate with these URIs, as the handshake hands it on once it is verified.
fn certificate(uris: &[&str], subject: &[(DnType, &str)]) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// A client known by a certificate; everybody of the namespace `shop` and the common name `backup` is granted something.
fn known_by(inside: &Inside, certificate: &[u8]) -> Context {
    let namespace = Pattern::Workloads {
        trust_domain: "example.org".to_owned(),
        namespace: Some("shop".to_owned()),
        service_account: None,
    };
    // Bound by mistake; the trust domain is still none of ours.
    let foreign =
        Pattern::Workloads { trust_domain: "other.org".to_owned(), namespace: None, service_account: None };
    let backup = Pattern::CommonName("backup".to_owned());
    let bindings = [namespace, foreign, backup].map(|pattern| Binding { pattern, grant: grant() });
    let (trust_domains, bindings) = (vec!["example.org".to_owned()], Bindings::new(bindings.to_vec()));
    let subjects = Arc::new(Subjects { trust_domains, bindings });
    let more = |gate: strongroom::auth::Gate, clock| {
        gate.with_certificates(Arc::new(CertificateAuthenticator::new(subjects, clock)))
    };
    inside.context_through(more, None, Some(certificate))
}

#[tokio::test]
async fn a_workload_is_known_by_its_spiffe_id_and_may_what_its_binding_says() {
    let inside = Inside::open().await;
    let mut client = known_by(&inside, &certificate(&[WEB], &[]));
    answered(client.create_session(create("demo")).await);
    let foreign = client.create_session(create("other")).await;
    refused(foreign, Code::NotFound, "TENANT_NOT_FOUND");
    let mut named = known_by(&inside, &certificate(&[], &[(DnType::CommonName, "backup")]));
    answered(named.create_session(create("demo")).await);
}

#[tokio::test]
async fn a_certificate_without_a_uri_and_of_another_subject_is_refused() {
    let inside = Inside::open().await;
    is_refused(known_by(&inside, &certificate(&[], &[]))).await;
    is_refused(known_by(&inside, &certificate(&[], &[(DnType::CommonName, "backup2")]))).await;
    let more = [(DnType::CommonName, "backup"), (DnType::OrganizationName, "evil")];
    is_refused(known_by(&inside, &certificate(&[], &more))).await;
}

#[tokio::test]
async fn a_certificate_with_two_uris_is_refused_even_if_both_are_known() {
    let inside = Inside::open().await;
    is_refused(known_by(&inside, &certificate(&[WEB, WEB], &[]))).await;
    is_refused(known_by(&inside, &certificate(&[WEB, "https://example.org/"], &[]))).await;
}

#[tokio::test]
async fn a_certificate_from_another_trust_domain_is_refused_even_if_it_is_bound() {
    let inside = Inside::open().await;
    is_refused(known_by(&inside, &certificate(&["spiffe://other.org/ns/shop/sa/web"], &[]))).await;
}

#[tokio::test]
async fn a_certificate_whose_workload_nobody_bound_or_whose_uri_has_another_form_is_refused() {
    let inside = Inside::open().await;
    for uri in ["spiffe://example.org/ns/bank/sa/web", "spiffe://example.org/web", "https://example.org/"] {
        // A subject that is bound does not help who has a URI.
        let subject = [(DnType::CommonName, "backup")];
        is_refused(known_by(&inside, &certificate(&[uri], &subject))).await;
    }
    is_refused(known_by(&inside, b"no certificate")).await;
}

#[tokio::test]
async fn a_certificate_that_expires_on_an_open_connection_is_refused_from_then_on() {
    let inside = Inside::open().await;
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(WEB.try_into().unwrap())];
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let mut client = known_by(&inside, &der);
    answered(client.create_session(create("demo")).await);
    inside.clock.advance_to(strongroom::model::Timestamp::from_millis(1_798_761_600_000));
    is_refused(client).await;
}

#[tokio::test]
async fn a_bearer_token_that_is_wrong_is_refused_over_a_good_certificate() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let expired = identities.token(&json!({ "exp": now() - 60 }));
    is_refused(identities.client(&inside, &expired, Some(&certificate(&[WEB], &[])))).await;
}

#[tokio::test]
async fn without_any_credentials_nobody_is_let_in() {
    let inside = Inside::open().await;
    let outcome = inside.context_with(None).create_session(create("demo")).await;
    assert_eq!(refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED").text, "no credentials");
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_accepted_by_the_key_that_it_names_and_no_other() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let good = claims(&json!({}));
    for (alg, kid) in
        [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa"), ("PS256", "rsa"), ("RS256", "rs256")]
    {
        identities.accepted(&inside, &identities.sign(&header(alg, kid), &good)).await;
    }
    for (alg, kid) in [("EdDSA", "ec"), ("ES256", "ed"), ("RS256", "ec"), ("PS256", "rs256")] {
        identities.refused(&inside, &identities.sign(&header(alg, kid), &good)).await;
    }
}

#[tokio::test]
async fn an_altered_token_is_refused() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let token = identities.token(&json!({}));
    let other = identities.token(&json!({ "sub": "system:serviceaccount:shop:other" }));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    for wrong in
        [format!("{signed}.{signature}"), format!("{signed}."), format!("{token}="), format!("{token}.")]
    {
        identities.refused(&inside, &wrong).await;
    }
    identities.accepted(&inside, &token).await;
}

#[tokio::test]
async fn an_expired_token_is_refused_once_the_leeway_is_over() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    identities.accepted(&inside, &identities.token(&json!({ "exp": now() - 29 }))).await;
    for wrong in
        [json!(now() - 30), json!(now() - 600), json!((now() + 600).to_string()), json!(-1), json!(null)]
    {
        identities.refused(&inside, &identities.token(&json!({ "exp": wrong }))).await;
    }
    let mut endless = claims(&json!({}));
    endless.as_object_mut().unwrap().remove("exp");
    identities.refused(&inside, &identities.sign(&header("EdDSA", "ed"), &endless)).await;
}

#[tokio::test]
async fn a_token_that_is_not_valid_yet_is_refused() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    identities.accepted(&inside, &identities.token(&json!({ "nbf": now() + 30 }))).await;
    for wrong in [json!(now() + 31), json!((now() + 600).to_string())] {
        identities.refused(&inside, &identities.token(&json!({ "nbf": wrong }))).await;
    }
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    identities.accepted(&inside, &identities.token(&json!({ "aud": "strongroom" }))).await;
    let many: Vec<_> = (0..16).map(|n| n.to_string()).chain(["strongroom".to_owned()]).collect();
    for wrong in [json!("strongroom2"), json!(["a", "b"]), json!([]), json!(""), json!(many)] {
        identities.refused(&inside, &identities.token(&json!({ "aud": wrong }))).await;
    }
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    for wrong in ["https://id.example/", "https://ID.example", "https://evil.example", ""] {
        identities.refused(&inside, &identities.token(&json!({ "iss": wrong }))).await;
    }
}

#[tokio::test]
async fn a_token_of_a_subject_whom_nobody_bound_is_refused() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    for wrong in ["system:serviceaccount:bank:web", "system:serviceaccount:shop:a b", "web", ""] {
        identities.refused(&inside, &identities.token(&json!({ "sub": wrong }))).await;
    }
}

#[tokio::test]
async fn a_token_that_is_not_signed_is_refused() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    for alg in ["none", "None", "NONE", ""] {
        let bare = unsigned(&header(alg, "ed"), &claims(&json!({})));
        identities.refused(&inside, &format!("{bare}.")).await;
        identities.refused(&inside, &bare).await;
    }
}

#[tokio::test]
async fn a_token_signed_with_the_public_key_as_a_shared_secret_is_refused() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let bare = unsigned(&header("HS256", "rsa"), &claims(&json!({})));
    for secret in [identities.rsa.public().as_ref(), identities.ed25519.public_key().as_ref()] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = encoded(hmac::sign(&key, bare.as_bytes()).as_ref());
        identities.refused(&inside, &format!("{bare}.{signature}")).await;
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_never_makes_the_server_look_for_keys() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    // Whoever looked at the file now would be told so.
    std::fs::remove_file(identities.path()).unwrap();
    for n in 0..500 {
        let token = identities.sign(&header("EdDSA", &format!("unknown-{n}")), &claims(&json!({})));
        identities.refused(&inside, &token).await;
    }
    assert_eq!(identities.keys.failures(), 0);
    identities.accepted(&inside, &identities.token(&json!({}))).await;
}

#[tokio::test]
async fn the_name_of_a_key_is_never_a_path_and_a_token_cannot_bring_its_own_key() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let file = identities.path().display().to_string();
    for kid in ["../jwks.json", "/dev/null", &file, "ed\0", "ed' OR '1'='1", "ED", "", " ed"] {
        let token = identities.sign(&header("EdDSA", kid), &claims(&json!({})));
        identities.refused(&inside, &token).await;
    }
    for (name, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("jwk", json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" })),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("typ", json!("dpop+jwt")),
    ] {
        let mut more = header("EdDSA", "ed");
        more[name] = value;
        identities.refused(&inside, &identities.sign(&more, &claims(&json!({})))).await;
    }
    let nameless = identities.sign(&json!({ "alg": "EdDSA" }), &claims(&json!({})));
    identities.refused(&inside, &nameless).await;
}

#[tokio::test]
async fn a_token_that_is_too_large_is_refused_however_good_it_is() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    identities.accepted(&inside, &identities.token(&json!({ "more": "x".repeat(5000) }))).await;
    identities.refused(&inside, &identities.token(&json!({ "more": "x".repeat(7000) }))).await;
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_is_refused_when_it_is_replayed_over_another_or_none() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let (own, other) = (certificate(&[WEB], &[]), certificate(&[WEB], &[]));
    let thumbprint = encoded(digest(&SHA256, &own).as_ref());
    let token = identities.token(&json!({ "cnf": { "x5t#S256": thumbprint } }));
    let mut client = identities.client(&inside, &token, Some(&own));
    answered(client.create_session(create("demo")).await);
    is_refused(identities.client(&inside, &token, Some(&other))).await;
    is_refused(identities.client(&inside, &token, None)).await;
    for way in [json!({ "jkt": "AAAA" }), json!({}), json!({ "x5t#S256": "AAAA" })] {
        let token = identities.token(&json!({ "cnf": way }));
        is_refused(identities.client(&inside, &token, Some(&own))).await;
    }
    // Where tokens must be bound, one that is not is refused, too.
    let free = identities.token(&json!({}));
    is_refused(identities.client_of(&inside, &free, Some(&own), true)).await;
}

#[tokio::test]
async fn the_tenant_is_the_one_in_the_body_whatever_the_metadata_say() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let mut client = identities.client(&inside, &identities.token(&json!({})), None);
    for name in ["tenant", "strongroom-tenant", "x-tenant-id"] {
        let mut request = Request::new(create("other"));
        request.metadata_mut().insert(name, "demo".parse().unwrap());
        refused(client.create_session(request).await, Code::NotFound, "TENANT_NOT_FOUND");
        let mut request = Request::new(create("demo"));
        request.metadata_mut().insert(name, "other".parse().unwrap());
        let (made, _) = answered(client.create_session(request).await);
        let session_id = made.session.unwrap().session_id;
        let at = v1::SessionRef { tenant: "demo".to_owned(), session_id, ..Default::default() };
        answered(client.get_session(get(&at)).await);
    }
}

#[tokio::test]
async fn tenants_with_wildcards_and_path_characters_are_no_tenants() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let mut client = identities.client(&inside, &identities.token(&json!({})), None);
    for tenant in ["*", "dem*", "demo/", "../demo", "demo/../demo", "demo\0", "%64emo", "DEMO", " demo", ""] {
        refused(client.create_session(create(tenant)).await, Code::InvalidArgument, "INVALID_FIELD");
    }
}

#[tokio::test]
async fn a_revoked_token_gets_nothing_more_on_a_stream_that_is_open() {
    let site = Site::inside().await;
    let session = site.session().await;
    let request = v1::CreateTokenRequest {
        name: "follower".to_owned(),
        scopes: vec![v1::Scope::Read.into(), v1::Scope::ReadFull.into()],
        tenants: vec![site.tenant.clone()],
        ..Default::default()
    };
    let secret = answered(site.admin().create_token(request).await).0.secret;
    answered(site.app().append_events(append(&session, "s", &["before"])).await);
    let mut stream = answered(site.context(Some(&secret)).read_events(follow(&session, "s")).await).0;
    let first = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(first.events.len(), 1);
    let revoke = v1::RevokeTokenRequest { name: "follower".to_owned(), ..Default::default() };
    answered(site.admin().revoke_token(revoke).await);
    answered(site.app().append_events(append(&session, "s", &["after"])).await);
    let ended = loop {
        match soon(stream.message()).await {
            Ok(Some(message)) => assert!(message.events.is_empty(), "it read on"),
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn keys_of_an_issuer_are_replaced_ten_times_under_load_and_no_call_fails() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    for _ in 0..10 {
        let next = Identities::new();
        // As issuers do it: the new key beside the old one first, then the new one alone.
        let both = |file: PathBuf| -> Vec<Value> {
            let set: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            set["keys"].as_array().unwrap().clone()
        };
        let mut fresh = both(next.path()).remove(0);
        fresh["kid"] = json!("next");
        let mut keys = both(identities.path());
        keys.retain(|key| key["kid"] != "next");
        keys.push(fresh);
        std::fs::write(identities.path(), json!({ "keys": keys }).to_string()).unwrap();
        let source = Arc::clone(&identities.keys);
        let reloading = tokio::task::spawn_blocking(move || source.reload());
        for _ in 0..10 {
            identities.accepted(&inside, &identities.token(&json!({}))).await;
        }
        reloading.await.unwrap();
        identities.accepted(&inside, &next.sign(&header("EdDSA", "next"), &claims(&json!({})))).await;
    }
    assert_eq!(identities.keys.failures(), 0);
}

#[tokio::test]
async fn damaged_keys_of_an_issuer_leave_the_last_good_ones_in_use_and_are_counted() {
    let inside = Inside::open().await;
    let identities = Identities::new();
    let good = std::fs::read(identities.path()).unwrap();
    let ed = encoded(identities.ed25519.public_key().as_ref());
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": ed });
    let mut secret = key.clone();
    secret["d"] = json!("AAAA");
    let bad = [
        json!({ "keys": [] }),
        json!({ "keys": [key, key] }),
        json!({ "keys": [secret] }),
        json!({ "keys": [{ "kty": "oct", "kid": "a", "k": "AAAA" }] }),
        json!({ "keys": [{ "kty": "RSA", "kid": "a", "n": "AAAA", "e": "AQAB" }] }),
        json!({ "keys": vec![key.clone(); 65] }),
        json!("keys"),
    ];
    for (number, bad) in (1..).zip(bad) {
        std::fs::write(identities.path(), bad.to_string()).unwrap();
        identities.keys.reload();
        assert_eq!(identities.keys.failures(), number, "{bad}");
        identities.accepted(&inside, &identities.token(&json!({}))).await;
    }
    std::fs::write(identities.path(), good).unwrap();
    identities.keys.reload();
    assert_eq!(identities.keys.failures(), 7);
}
