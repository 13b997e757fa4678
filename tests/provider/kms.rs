//! The plugin: what works, what each fault is called, and that none of them changes a store.

use std::sync::Arc;

use strongroom::keyring::{KeyringError, ProviderError, ProviderKind, RootProvider as _};
use strongroom::provider::{Condition, KmsCall, KmsError, KmsPlugin, RootHealth};
use strongroom::store::MemoryEngine;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::engine::ManualClock;
use super::plugin::Plugin;
use super::{NOW, PATIENT, SECRET, SHORT, STORE, assert_no_secret, entropy, open, rows};

fn provider(plugin: &Plugin) -> KmsPlugin {
    KmsPlugin::new(&plugin.socket(), PATIENT, entropy())
}

#[tokio::test]
async fn what_a_plugin_wraps_it_unwraps_with_the_key_id_and_the_annotations_that_it_gave() {
    let plugin = Plugin::start("a").await;
    let kms = provider(&plugin);
    let wrapped = kms.wrap(STORE, SECRET).await.unwrap();
    assert_eq!((wrapped.key_id.as_str(), wrapped.annotations.len()), ("a", 1));
    assert_eq!(kms.unwrap(STORE, &wrapped).await.unwrap().as_slice(), SECRET);
    plugin.call_key("b");
    assert_eq!(kms.status().await.unwrap().key_id, "b");
    assert_eq!(kms.unwrap(STORE, &wrapped).await.unwrap().as_slice(), SECRET, "by the stored key id");
}

#[tokio::test]
async fn a_store_made_through_a_plugin_opens_again_with_one_call() {
    let plugin = Plugin::start("a").await;
    let engine = MemoryEngine::new();
    let made = open(&engine, &provider(&plugin)).await.unwrap();
    assert_eq!(plugin.calls(), ["Status", "Encrypt", "Decrypt", "Decrypt"]);
    let again = open(&engine, &provider(&plugin)).await.unwrap();
    assert_eq!(again.store_id(), made.store_id());
    assert_eq!(plugin.calls(), ["Decrypt"]);
    let recipient = &again.recipients()[0];
    assert_eq!((recipient.provider, recipient.key_id.as_str()), (Some(ProviderKind::Kms), "a"));
}

#[tokio::test]
async fn a_store_opens_after_the_plugin_was_restarted_and_after_its_key_was_rotated() {
    let mut plugin = Plugin::start("a").await;
    let kms = provider(&plugin);
    let engine = MemoryEngine::new();
    open(&engine, &kms).await.unwrap();
    plugin.call_key("b");
    plugin.restart().await;
    open(&engine, &kms).await.expect("the same connection is made again");
}

#[tokio::test]
async fn another_plugin_is_refused_by_both_key_ids_and_changes_nothing() {
    let (right, wrong) = (Plugin::start("a").await, Plugin::start("b").await);
    let engine = MemoryEngine::new();
    open(&engine, &provider(&right)).await.unwrap();
    let before = rows(&engine).await;
    let refused = open(&engine, &provider(&wrong)).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, KeyringError::WrongRoot { provider: ProviderKind::Kms, .. }), "{text}");
    assert!(text.contains("holds key b") && text.contains("KMS plugin a"), "{text}");
    assert_eq!(rows(&engine).await, before);
}

#[tokio::test]
async fn another_key_under_the_same_id_is_refused_and_changes_nothing() {
    let (right, wrong) = (Plugin::start("a").await, Plugin::start("a").await);
    let engine = MemoryEngine::new();
    open(&engine, &provider(&right)).await.unwrap();
    let before = rows(&engine).await;
    let refused = open(&engine, &provider(&wrong)).await.unwrap_err();
    assert!(matches!(refused, KeyringError::Provider { source: ProviderError::Unavailable(_), .. }));
    assert!(refused.to_string().contains("Decrypt: the plugin answered Unknown"), "{refused}");
    // A plugin that says what it means is understood.
    wrong.misbehave("Decrypt", "refuse 3");
    let refused = provider(&wrong).unwrap(STORE, &provider(&right).wrap(STORE, SECRET).await.unwrap()).await;
    assert!(matches!(refused, Err(ProviderError::Rejected)));
    let refused = open(&engine, &provider(&wrong)).await;
    assert!(matches!(refused, Err(KeyringError::Integrity)));
    assert_eq!(rows(&engine).await, before);
}

#[tokio::test]
async fn a_key_that_changes_between_status_and_encrypt_is_settled() {
    for (fault, key_id) in [("another key once", "a"), ("new key", "new")] {
        let plugin = Plugin::start("a").await;
        plugin.misbehave("Encrypt", fault);
        let wrapped = provider(&plugin).encrypt(SECRET).await.unwrap();
        assert_eq!(wrapped.key_id, key_id, "{fault}");
        assert_eq!(plugin.calls(), ["Status", "Encrypt", "Status", "Encrypt", "Decrypt"], "{fault}");
    }
}

#[tokio::test]
async fn a_key_that_never_settles_is_an_error_after_three_attempts_and_no_store_is_made() {
    let plugin = Plugin::start("a").await;
    plugin.misbehave("Encrypt", "another key");
    let refused = provider(&plugin).encrypt(SECRET).await;
    assert!(matches!(refused, Err(KmsError::KeyIdUnsettled { attempts: 3 })), "{refused:?}");
    assert_eq!(plugin.calls(), ["Status", "Encrypt"].repeat(3));
    let engine = MemoryEngine::new();
    assert!(matches!(open(&engine, &provider(&plugin)).await, Err(KeyringError::Provider { .. })));
    assert_eq!(rows(&engine).await, []);
}

/// What the error of a fault must be.
type Named = fn(&KmsError) -> bool;

#[tokio::test]
async fn each_fault_has_its_name_and_no_store_is_made_with_it() {
    let faults: [(&str, &str, Named); 18] = [
        (
            "Status",
            "unhealthy",
            |e| matches!(e, KmsError::Unhealthy { healthz } if healthz == "the disk burns"),
        ),
        ("Status", "old", |e| matches!(e, KmsError::Version { found } if found == "v2beta1")),
        ("Status", "no key id", |e| matches!(e, KmsError::KeyId { call: KmsCall::Status })),
        ("Status", "long key id", |e| matches!(e, KmsError::KeyId { call: KmsCall::Status })),
        ("Status", "malformed", |e| matches!(e, KmsError::Malformed { call: KmsCall::Status })),
        ("Encrypt", "malformed", |e| matches!(e, KmsError::Malformed { call: KmsCall::Encrypt })),
        ("Encrypt", "long ciphertext", |e| matches!(e, KmsError::Ciphertext)),
        ("Encrypt", "empty ciphertext", |e| matches!(e, KmsError::Ciphertext)),
        ("Encrypt", "annotation without a domain", |e| matches!(e, KmsError::AnnotationName)),
        ("Encrypt", "annotations beyond the contract", |e| matches!(e, KmsError::Annotations)),
        ("Encrypt", "huge", |e| matches!(e, KmsError::AnswerTooLarge { call: KmsCall::Encrypt, .. })),
        ("Decrypt", "another plaintext", |e| matches!(e, KmsError::NotTheSame)),
        ("Decrypt", "short plaintext", |e| matches!(e, KmsError::NotTheSame)),
        ("Decrypt", "empty plaintext", |e| matches!(e, KmsError::Plaintext)),
        ("Decrypt", "long plaintext", |e| matches!(e, KmsError::Plaintext)),
        ("Encrypt", "refuse 7", |e| {
            matches!(e, KmsError::Refused { call: KmsCall::Encrypt, code: Code::PermissionDenied })
        }),
        ("Decrypt", "refuse 13", |e| {
            matches!(e, KmsError::Refused { call: KmsCall::Decrypt, code: Code::Internal })
        }),
        ("Status", "refuse 14", |e| {
            matches!(e, KmsError::Refused { call: KmsCall::Status, code: Code::Unavailable })
        }),
    ];
    let plugin = Plugin::start("a").await;
    let (kms, engine) = (provider(&plugin), MemoryEngine::new());
    for (call, fault, named) in faults {
        plugin.misbehave(call, fault);
        let error = kms.encrypt(SECRET).await.unwrap_err();
        assert!(named(&error), "{call} {fault}: {error:?}");
        let refused = open(&engine, &kms).await.unwrap_err();
        assert!(matches!(refused, KeyringError::Provider { .. }), "{call} {fault}: {refused:?}");
        assert_eq!(rows(&engine).await, [], "{call} {fault}");
    }
    plugin.behave();
    open(&engine, &kms).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_too_large_for_a_stanza_is_refused_by_name() {
    let plugin = Plugin::start("a").await;
    plugin.misbehave("Encrypt", "annotations beyond a stanza");
    let engine = MemoryEngine::new();
    let refused = open(&engine, &provider(&plugin)).await;
    assert!(matches!(refused, Err(KeyringError::StanzaTooLarge { max: 2048 })), "{refused:?}");
    assert_eq!(rows(&engine).await, []);
}

#[tokio::test]
async fn a_store_that_was_made_opens_with_no_faulty_answer_and_is_not_changed_by_one() {
    let plugin = Plugin::start("a").await;
    let (kms, engine) = (provider(&plugin), MemoryEngine::new());
    open(&engine, &kms).await.unwrap();
    let before = rows(&engine).await;
    for fault in ["another plaintext", "short plaintext"] {
        plugin.misbehave("Decrypt", fault);
        assert!(matches!(open(&engine, &kms).await, Err(KeyringError::Integrity)), "{fault}");
    }
    for fault in ["empty plaintext", "long plaintext", "malformed", "refuse 14", "refuse 2"] {
        plugin.misbehave("Decrypt", fault);
        assert!(matches!(open(&engine, &kms).await, Err(KeyringError::Provider { .. })), "{fault}");
    }
    assert_eq!(rows(&engine).await, before);
    plugin.behave();
    open(&engine, &kms).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_does_not_answer_is_given_up_at_the_deadline() {
    let plugin = Plugin::start("a").await;
    let kms = KmsPlugin::new(&plugin.socket(), SHORT, entropy());
    kms.key_id().await.unwrap();
    for (call, slow) in
        [("Status", KmsCall::Status), ("Encrypt", KmsCall::Encrypt), ("Decrypt", KmsCall::Decrypt)]
    {
        plugin.misbehave(call, "slow");
        let begun = tokio::time::Instant::now();
        let error = kms.encrypt(SECRET).await.unwrap_err();
        assert!(matches!(error, KmsError::Deadline { call, after: SHORT } if call == slow), "{error:?}");
        assert!(begun.elapsed() < PATIENT / 4, "{call}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_plugin_that_is_gone_or_speaks_no_grpc_is_unreachable_at_its_socket() {
    let mut plugin = Plugin::start("a").await;
    let kms = provider(&plugin);
    kms.key_id().await.unwrap();
    plugin.kill();
    for _ in 0..2 {
        let error = kms.key_id().await.unwrap_err();
        assert!(
            matches!(&error, KmsError::Unreachable { socket, .. } if *socket == plugin.socket()),
            "{error:?}"
        );
    }
    plugin.misbehave("*", "garbage");
    plugin.restart().await;
    let error = provider(&plugin).key_id().await.unwrap_err();
    assert!(matches!(error, KmsError::Unreachable { call: KmsCall::Status, .. }), "{error:?}");
    plugin.behave();
    assert_eq!(kms.key_id().await.unwrap(), "a", "a plugin that came back is used again");
}

#[tokio::test]
async fn no_error_and_no_debug_text_repeats_what_was_wrapped() {
    let plugin = Plugin::start("a").await;
    let kms = provider(&plugin);
    let mut texts = vec![format!("{kms:?}")];
    for (call, code) in [("Encrypt", 3), ("Encrypt", 13), ("Decrypt", 2), ("Decrypt", 5), ("Decrypt", 11)] {
        plugin.misbehave(call, &format!("refuse {code}"));
        let error = kms.encrypt(SECRET).await.unwrap_err();
        texts.extend([format!("{error}"), format!("{error:?}")]);
        let error = ProviderError::from(error);
        texts.extend([format!("{error}"), format!("{error:?}")]);
    }
    assert_no_secret(SECRET, &texts);
}

#[tokio::test]
async fn more_than_the_contract_allows_is_not_even_sent() {
    let plugin = Plugin::start("a").await;
    let refused = provider(&plugin).wrap(STORE, &[1; 1025]).await;
    assert!(matches!(refused, Err(ProviderError::TooLarge)));
    assert_eq!(plugin.calls(), [""; 0]);
}

#[tokio::test]
async fn the_watch_tells_of_a_plugin_that_is_ill_and_comes_back_with_another_key() {
    let mut plugin = Plugin::start("a").await;
    let kms = provider(&plugin);
    plugin.kill();
    let health = RootHealth::new(Arc::new(ManualClock::new(NOW)), vec!["a".to_owned()]);
    let (mut told, stop) = (health.subscribe(), CancellationToken::new());
    let story = async {
        told.changed().await.unwrap();
        assert!(matches!(health.condition(), Condition::Unhealthy { since: NOW, .. }), "{health:?}");
        plugin.call_key("b");
        plugin.restart().await;
        while matches!(health.condition(), Condition::Unhealthy { .. }) {
            told.changed().await.unwrap();
        }
        let changed = Condition::KeyChanged { key_id: "b".to_owned(), since: NOW };
        assert_eq!(health.condition(), changed);
        stop.cancel();
    };
    let both = async { tokio::join!(health.poll(&kms, stop.clone()), story) };
    tokio::time::timeout(PATIENT * 3, both).await.expect("not in time");
}
