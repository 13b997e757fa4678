//! A server with issuers and bindings in its configuration file, asked as an operator's programs ask it.

use std::fs;

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::installation::Installation;

const BINDING: &str = "
[[jwt]]
issuer = 'https://id.example'
audience = 'strongroom'
algorithms = ['EdDSA']
jwks = 'jwks.json'

[[bindings]]
issuer = 'https://id.example'
subject = 'web'
tenants = ['demo']
scopes = ['read', 'write']
";

fn token(key: &Ed25519KeyPair, subject: &str) -> String {
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let claims =
        json!({ "iss": "https://id.example", "sub": subject, "aud": "strongroom", "exp": 4_102_444_800_u64 });
    let signed = format!("{}.{}", part(json!({ "alg": "EdDSA", "kid": "one" })), part(claims));
    let signature = BASE64URL_NOPAD.encode(key.sign(signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}

#[test]
fn a_signed_token_of_a_configured_issuer_may_what_its_binding_says_and_nothing_else() {
    let mut installation = Installation::new();
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = BASE64URL_NOPAD.encode(key.public_key().as_ref());
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": public }] });
    fs::write(installation.path("jwks.json"), set.to_string()).unwrap();
    installation.configure("keyring = 'keys/dev/root.key'", BINDING);
    installation.serve();
    let app = installation.path("keys/dev/app.token");
    fs::write(&app, token(&key, "web")).unwrap();
    let made = installation.strongroom("session create --owner alice");
    assert_eq!(made.code, 0, "{}", made.err);
    // It administers nothing.
    fs::write(installation.path("keys/dev/admin.token"), token(&key, "web")).unwrap();
    let foreign = installation.strongroom("tenant list").fails(1);
    assert!(foreign.err.contains("scope"), "{}", foreign.err);
    fs::write(&app, token(&key, "other")).unwrap();
    let refused = installation.strongroom("session create --owner alice");
    assert!(refused.code != 0 && refused.err.contains("the credentials are not valid"), "{}", refused.err);
}
