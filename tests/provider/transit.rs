//! The transit engine: what is sent, what works, what each fault is called, and that none of them changes a store.

use std::fs;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::json;
use strongroom::keyring::{KeyringError, ProviderError, ProviderKind, RootProvider as _};
use strongroom::model::StoreId;
use strongroom::provider::{FileProblem, TransitCall, TransitError, TransitOptions};
use strongroom::store::MemoryEngine;

use super::engine::{Engine, Fault, JWT, TOKEN};
use super::{PATIENT, SECRET, SHORT, STORE, assert_no_secret, open, rows};

#[tokio::test]
async fn what_is_sent_is_what_the_engine_documents() {
    let engine = Engine::start().await;
    let namespace = Some("team-1".to_owned());
    let transit = engine.provider(TransitOptions { namespace, ..engine.options() });
    let wrapped = transit.wrap(STORE, SECRET).await.unwrap();
    assert_eq!(wrapped.key_id, "team/transit/strongroom:v1");
    let ciphertext = String::from_utf8(wrapped.ciphertext.clone()).unwrap();
    assert!(ciphertext.starts_with("vault:v1:"), "{ciphertext}");
    assert_eq!(transit.unwrap(STORE, &wrapped).await.unwrap().as_slice(), SECRET);

    let received = engine.received();
    let [encrypt, verify, decrypt] = received.as_slice() else { panic!("{received:?}") };
    for request in &received {
        assert_eq!(request.method, http::Method::POST);
        assert_eq!(request.header("x-vault-token"), Some(TOKEN));
        assert_eq!(request.header("x-vault-namespace"), Some("team-1"));
        assert_eq!(request.header("x-vault-request"), Some("true"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("host"), Some(format!("localhost:{}", engine.port).as_str()));
    }
    assert_eq!(encrypt.path, "/v1/team/transit/encrypt/strongroom");
    assert_eq!(encrypt.body, json!({ "plaintext": BASE64.encode(SECRET) }));
    for request in [verify, decrypt] {
        assert_eq!(request.path, "/v1/team/transit/decrypt/strongroom");
        assert_eq!(request.body, json!({ "ciphertext": ciphertext }));
    }
}

#[tokio::test]
async fn the_store_is_bound_where_the_key_can_and_another_store_is_rejected() {
    let engine = Engine::start().await;
    let transit = engine.provider(TransitOptions { associated_data: true, ..engine.options() });
    let wrapped = transit.wrap(STORE, SECRET).await.unwrap();
    for request in engine.received() {
        assert_eq!(request.body["associated_data"], json!(BASE64.encode(&STORE.0)));
        assert_eq!(request.header("x-vault-namespace"), None);
    }
    assert_eq!(transit.unwrap(STORE, &wrapped).await.unwrap().as_slice(), SECRET);
    let refused = transit.unwrap(StoreId([8; 16]), &wrapped).await;
    assert!(matches!(refused, Err(ProviderError::Rejected)));
    let unbound = engine.provider(engine.options()).unwrap(STORE, &wrapped).await;
    assert!(matches!(unbound, Err(ProviderError::Rejected)));
}

#[tokio::test]
async fn a_store_made_through_an_engine_opens_again_with_one_call_even_after_a_rotation() {
    let engine = Engine::start().await;
    let (transit, store) = (engine.provider(engine.options()), MemoryEngine::new());
    let made = open(&store, &transit).await.unwrap();
    assert_eq!(engine.calls(), ["encrypt", "decrypt", "decrypt"]);
    engine.rotate();
    let again = open(&store, &engine.provider(engine.options())).await.unwrap();
    assert_eq!((again.store_id(), engine.calls()), (made.store_id(), vec!["decrypt".to_owned()]));
    let recipient = &again.recipients()[0];
    assert_eq!(recipient.provider, Some(ProviderKind::Transit));
    assert_eq!(recipient.key_id, "team/transit/strongroom:v1");
    assert_eq!(transit.status().await.unwrap().key_id, "team/transit/strongroom:v2");
}

#[tokio::test]
async fn another_key_is_a_wrong_root_and_another_engine_is_rejected_and_nothing_is_changed() {
    let (right, wrong) = (Engine::start().await, Engine::start().await);
    let store = MemoryEngine::new();
    open(&store, &right.provider(right.options())).await.unwrap();
    let before = rows(&store).await;
    let refused = open(&store, &wrong.provider(wrong.options())).await;
    assert!(matches!(refused, Err(KeyringError::Integrity)), "{refused:?}");
    wrong.misbehave(
        "encrypt",
        Fault::Body(
            json!({ "data": { "ciphertext": "vault:v4:AAAA", "key_version": 4 } }).to_string().into_bytes(),
        ),
    );
    let other = TransitOptions { key: "other".to_owned(), ..wrong.options() };
    let refused = open(&store, &wrong.provider(other)).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, KeyringError::WrongRoot { .. }), "{text}");
    assert!(text.contains("team/transit/other:v4") && text.contains("team/transit/strongroom:v1"), "{text}");
    assert_eq!(rows(&store).await, before);
}

/// What the error of a fault must be.
type Named = fn(&TransitError) -> bool;

#[tokio::test]
async fn each_fault_has_its_name_and_no_store_is_made_with_it() {
    let body = |text: &str| Fault::Body(text.as_bytes().to_vec());
    let data = |value: serde_json::Value| Fault::Body(json!({ "data": value }).to_string().into_bytes());
    let faults: Vec<(&str, Fault, Named)> = vec![
        ("encrypt", Fault::Status(400), |e| {
            matches!(e, TransitError::BadRequest { call: TransitCall::Encrypt })
        }),
        ("encrypt", Fault::Status(403), |e| matches!(e, TransitError::Denied { call: TransitCall::Encrypt })),
        ("decrypt", Fault::Status(404), |e| {
            matches!(e, TransitError::NotFound { call: TransitCall::Decrypt })
        }),
        ("encrypt", Fault::Status(429), |e| matches!(e, TransitError::RateLimited { .. })),
        ("encrypt", Fault::Status(503), |e| matches!(e, TransitError::Sealed { .. })),
        (
            "encrypt",
            Fault::Status(500),
            |e| matches!(e, TransitError::Refused { status, .. } if *status == 500),
        ),
        ("encrypt", Fault::Redirect, |e| matches!(e, TransitError::Refused { status, .. } if *status == 307)),
        (
            "encrypt",
            Fault::Status(204),
            |e| matches!(e, TransitError::Refused { status, .. } if *status == 204),
        ),
        ("encrypt", Fault::Close, |e| matches!(e, TransitError::Broken { .. })),
        ("encrypt", Fault::Garbage, |e| matches!(e, TransitError::Broken { .. })),
        ("encrypt", body(""), |e| matches!(e, TransitError::Malformed { .. })),
        ("encrypt", body("{\"data\":{}}"), |e| matches!(e, TransitError::Malformed { .. })),
        ("encrypt", data(json!({ "ciphertext": "AAAA" })), |e| matches!(e, TransitError::Malformed { .. })),
        ("encrypt", data(json!({ "ciphertext": "vault:v1:AA", "key_version": 2 })), |e| {
            matches!(e, TransitError::Malformed { .. })
        }),
        ("encrypt", Fault::Body(vec![b' '; (64 << 10) + 1]), |e| {
            matches!(e, TransitError::AnswerTooLarge { call: TransitCall::Encrypt, max: 65536 })
        }),
        ("decrypt", data(json!({ "plaintext": "=" })), |e| {
            matches!(e, TransitError::Malformed { call: TransitCall::Decrypt })
        }),
        ("decrypt", data(json!({ "plaintext": "A".repeat(1400) })), |e| {
            matches!(e, TransitError::Malformed { call: TransitCall::Decrypt })
        }),
        ("decrypt", data(json!({ "plaintext": BASE64.encode(&[9; 32]) })), |e| {
            matches!(e, TransitError::NotTheSame)
        }),
        ("decrypt", data(json!({ "plaintext": "" })), |e| matches!(e, TransitError::NotTheSame)),
    ];
    let engine = Engine::start().await;
    let (transit, store) = (engine.provider(engine.options()), MemoryEngine::new());
    for (at, fault, named) in faults {
        engine.misbehave(at, fault.clone());
        let error = transit.encrypt(STORE, SECRET).await.unwrap_err();
        assert!(named(&error), "{at} {fault:?}: {error:?}");
        let refused = open(&store, &transit).await.unwrap_err();
        assert!(matches!(refused, KeyringError::Provider { .. }), "{at} {fault:?}: {refused:?}");
        assert_eq!(rows(&store).await, [], "{at} {fault:?}");
    }
    engine.behave();
    open(&store, &transit).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_given_up_at_the_deadline() {
    let engine = Engine::start().await;
    let transit = engine.provider(TransitOptions { deadline: SHORT, ..engine.options() });
    for (at, slow) in [("encrypt", TransitCall::Encrypt), ("decrypt", TransitCall::Decrypt)] {
        engine.misbehave(at, Fault::Slow);
        let begun = tokio::time::Instant::now();
        let error = transit.encrypt(STORE, SECRET).await.unwrap_err();
        assert!(matches!(error, TransitError::Deadline { call, after: SHORT } if call == slow), "{error:?}");
        assert!(begun.elapsed() < PATIENT / 4, "{at}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_is_not_of_the_authority_is_never_asked() {
    let (engine, other) = (Engine::start().await, Engine::start().await);
    let asked = |options| {
        let transit = engine.provider(options);
        async move { transit.encrypt(STORE, SECRET).await.unwrap_err() }
    };
    let error = asked(TransitOptions { address: "https://localhost:1".to_owned(), ..engine.options() }).await;
    assert!(matches!(error, TransitError::Unreachable { call: TransitCall::Encrypt, .. }), "{error:?}");
    let error = asked(TransitOptions { ca: other.file("ca.pem"), ..engine.options() }).await;
    assert!(matches!(error, TransitError::Tls { .. }), "{error:?}");
    let address = format!("https://127.0.0.1:{}", engine.port);
    let error = asked(TransitOptions { address, ..engine.options() }).await;
    assert!(matches!(error, TransitError::Tls { .. }), "another name: {error:?}");
    assert_eq!(engine.calls(), [""; 0]);
}

#[tokio::test]
async fn an_address_without_tls_and_names_that_leave_their_path_are_refused_before_anything_is_asked() {
    let engine = Engine::start().await;
    let plain = TransitOptions { address: format!("http://localhost:{}", engine.port), ..engine.options() };
    assert!(matches!(engine.try_provider(plain), Err(TransitError::Address)));
    let mount = "transit/../sys".to_owned();
    let refused = engine.try_provider(TransitOptions { mount, ..engine.options() });
    assert!(matches!(refused, Err(TransitError::Option { option: "mount" })));
    for namespace in ["a\nx-vault-token: b", "a b", "../root", "/"] {
        let namespace = Some(namespace.to_owned());
        let refused = engine.try_provider(TransitOptions { namespace, ..engine.options() });
        assert!(matches!(refused, Err(TransitError::Option { option: "namespace" })));
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let engine = Engine::start().await;
    let transit = engine.provider(engine.options());
    let problem = |error: TransitError| {
        let TransitError::File { path, problem } = error else { panic!("{error:?}") };
        (path, problem)
    };
    let token = engine.file("token");
    for (text, wrong) in [
        ("", FileProblem::NotAToken),
        (" \n", FileProblem::NotAToken),
        ("two words", FileProblem::NotAToken),
        (&"t".repeat(20_000), FileProblem::TooLarge(16 << 10)),
    ] {
        fs::write(&token, text).unwrap();
        let error = transit.encrypt(STORE, SECRET).await.unwrap_err();
        assert_eq!(problem(error), (token.clone(), wrong));
    }
    fs::remove_file(&token).unwrap();
    let (path, wrong) = problem(transit.encrypt(STORE, SECRET).await.unwrap_err());
    assert_eq!((path, wrong), (token.clone(), FileProblem::Unreadable(std::io::ErrorKind::NotFound)));
    fs::write(&token, TOKEN).unwrap();
    fs::write(engine.file("ca.pem"), "no certificate").unwrap();
    let (path, wrong) = problem(transit.encrypt(STORE, SECRET).await.unwrap_err());
    assert_eq!((path, wrong), (engine.file("ca.pem"), FileProblem::NotCertificates));
    assert_eq!(engine.calls(), [""; 0]);
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_counts_from_the_next_call_on() {
    let engine = Engine::start().await;
    let transit = engine.provider(engine.options());
    transit.status().await.unwrap();
    engine.accept_tokens(&["hvs.the-second-token"]);
    let error = transit.encrypt(STORE, SECRET).await.unwrap_err();
    assert!(matches!(error, TransitError::Denied { .. }), "{error:?}");
    fs::write(engine.file("token"), "hvs.the-second-token\n").unwrap();
    transit.status().await.unwrap();
}

#[tokio::test]
async fn a_service_account_logs_in_once_and_again_before_its_lease_ends() {
    let engine = Engine::start().await;
    let transit = engine.provider(engine.kubernetes());
    transit.status().await.unwrap();
    let received = engine.received();
    assert_eq!(received[0].path, "/v1/auth/kubernetes/login");
    assert_eq!(received[0].body, json!({ "role": "strongroom", "jwt": JWT }));
    assert_eq!(received[0].header("x-vault-token"), None);
    assert_eq!(received[1].header("x-vault-token"), Some("hvs.login-1"));
    engine.clock.advance(Duration::from_secs(2399));
    transit.status().await.unwrap();
    assert_eq!(engine.calls(), ["encrypt"], "two thirds of an hour are not over");
    engine.clock.advance(Duration::from_secs(1));
    transit.status().await.unwrap();
    assert_eq!(engine.calls(), ["login", "encrypt"]);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_by_one_login_and_a_refusal_that_stays_is_an_error() {
    let engine = Engine::start().await;
    let transit = engine.provider(engine.kubernetes());
    transit.status().await.unwrap();
    engine.accept_tokens(&[]);
    engine.calls();
    transit.status().await.unwrap();
    assert_eq!(engine.calls(), ["encrypt", "login", "encrypt"]);
    engine.misbehave("encrypt", Fault::Status(403));
    let error = transit.encrypt(STORE, SECRET).await.unwrap_err();
    assert!(matches!(error, TransitError::Denied { call: TransitCall::Encrypt }), "{error:?}");
    assert_eq!(engine.calls(), ["encrypt", "login", "encrypt"]);
    fs::write(engine.file("jwt"), "eyJ.of.another").unwrap();
    engine.behave();
    engine.clock.advance(Duration::from_secs(3600));
    let error = transit.encrypt(STORE, SECRET).await.unwrap_err();
    assert!(matches!(error, TransitError::Denied { call: TransitCall::Login }), "{error:?}");
}

#[tokio::test]
async fn no_error_and_no_debug_text_repeats_a_token_or_what_was_wrapped() {
    let engine = Engine::start().await;
    let mut texts = Vec::new();
    for options in [engine.options(), engine.kubernetes()] {
        let transit = engine.provider(options);
        texts.push(format!("{transit:?}"));
        for (at, status) in [("encrypt", 400), ("encrypt", 403), ("decrypt", 500), ("login", 500)] {
            engine.misbehave(at, Fault::Status(status));
            let Err(error) = transit.encrypt(STORE, SECRET).await else { continue };
            texts.extend([format!("{error}"), format!("{error:?}")]);
            let error = ProviderError::from(error);
            texts.extend([format!("{error}"), format!("{error:?}")]);
        }
    }
    assert!(texts.len() > 20, "{texts:?}");
    assert_no_secret(SECRET, &texts);
    assert!(texts.iter().all(|text| !text.contains("hvs.") && !text.contains("eyJ")), "{texts:?}");
}
