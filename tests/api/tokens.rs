//! CreateToken, ListTokens, RevokeToken, and who is let in.

use std::time::Duration;

use strongroom::proto::v1::{self, Scope};
use tonic::Code;

use crate::requests::{create, millis, search, seconds};
use crate::site::Site;
use crate::support::{answered, refused};

fn named(name: &str, scopes: &[Scope], tenants: &[&str]) -> v1::CreateTokenRequest {
    v1::CreateTokenRequest {
        name: name.to_owned(),
        scopes: scopes.iter().map(|scope| i32::from(*scope)).collect(),
        tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
        ..Default::default()
    }
}

fn revoke(name: &str) -> v1::RevokeTokenRequest {
    v1::RevokeTokenRequest { name: name.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_token_works_until_it_is_revoked_and_its_secret_is_shown_once() {
    let site = Site::outside().await;
    let name = format!("{}-once", site.tenant);
    let request = named(&name, &[Scope::Write, Scope::Read], &[&site.tenant]);
    let made = site.answered(site.admin().create_token(request.clone()).await, "tok.create").await;
    let token = made.token.unwrap();
    assert!(made.secret.starts_with("srt_") && made.secret.len() == 47);
    assert_eq!(
        (token.name.as_str(), token.revoked, token.tenants.as_slice()),
        (name.as_str(), false, &request.tenants[..])
    );
    assert_eq!(token.scopes, [i32::from(Scope::Read), i32::from(Scope::Write)]);
    assert_eq!(millis(token.expire_time) - millis(token.create_time), 30 * 24 * 3600 * 1000);

    let mut client = site.context(Some(&made.secret));
    answered(client.create_session(create(&site.tenant)).await);
    let now =
        site.answered(site.admin().revoke_token(revoke(&name)).await, "tok.revoke").await.token.unwrap();
    assert_eq!(now, v1::Token { revoked: true, ..token });
    let outcome = client.create_session(create(&site.tenant)).await;
    refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED");
    // To revoke again is no error; the name is not free again.
    site.answered(site.admin().revoke_token(revoke(&name)).await, "tok.revoke").await;
    let again = site.admin().create_token(request).await;
    site.refused(again, Code::AlreadyExists, "ALREADY_EXISTS", ("tok.create", "fail")).await;
    let unknown = site.admin().revoke_token(revoke("no-such-token")).await;
    site.refused(unknown, Code::NotFound, "TOKEN_NOT_FOUND", ("tok.revoke", "fail")).await;
}

#[tokio::test]
async fn list_tokens_shows_everything_but_secrets() {
    let site = Site::inside().await;
    for n in 0..7 {
        answered(site.admin().create_token(named(&format!("more-{n}"), &[Scope::Read], &["demo"])).await);
    }
    let mut names = Vec::new();
    let mut request = v1::ListTokensRequest { page_size: 4, ..Default::default() };
    loop {
        let page = site.answered(site.admin().list_tokens(request.clone()).await, "tok.list").await;
        assert!(page.tokens.len() <= 4);
        for token in page.tokens {
            assert!(!token.scopes.is_empty() && !token.tenants.is_empty());
            names.push(token.name);
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    let expected =
        ["admin", "app", "more-0", "more-1", "more-2", "more-3", "more-4", "more-5", "more-6", "reader"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn create_token_names_the_field_that_is_wrong() {
    let site = Site::outside().await;
    let base = named(&format!("{}-bad", site.tenant), &[Scope::Read], &["demo"]);
    let many: Vec<String> = (0..65).map(|n| format!("t{n}")).collect();
    let ttl = |ttl| v1::CreateTokenRequest { ttl: Some(ttl), ..base.clone() };
    for (field, request) in [
        ("name", v1::CreateTokenRequest { name: "Bad".to_owned(), ..base.clone() }),
        ("name", v1::CreateTokenRequest { name: String::new(), ..base.clone() }),
        ("scopes", v1::CreateTokenRequest { scopes: Vec::new(), ..base.clone() }),
        ("scopes", v1::CreateTokenRequest { scopes: vec![0], ..base.clone() }),
        ("scopes", v1::CreateTokenRequest { scopes: vec![1, 99], ..base.clone() }),
        ("tenants", v1::CreateTokenRequest { tenants: Vec::new(), ..base.clone() }),
        ("tenants", v1::CreateTokenRequest { tenants: many, ..base.clone() }),
        ("tenants", v1::CreateTokenRequest { tenants: vec!["*".into(), "demo".into()], ..base.clone() }),
        ("tenants", v1::CreateTokenRequest { tenants: vec!["De".into()], ..base.clone() }),
        ("ttl", ttl(seconds(59))),
        ("ttl", ttl(seconds(400 * 24 * 3600 + 1))),
        ("ttl", ttl(prost_types::Duration { seconds: -1, nanos: 0 })),
        ("request_id", v1::CreateTokenRequest { request_id: "?".to_owned(), ..base.clone() }),
    ] {
        site.invalid(site.admin().create_token(request).await, field, "tok.create").await;
    }
    site.invalid(site.admin().revoke_token(revoke("")).await, "name", "tok.revoke").await;
    site.answered(site.admin().create_token(base).await, "tok.create").await;
}

#[tokio::test]
async fn a_token_ends_at_its_time_to_the_millisecond() {
    let site = Site::inside().await;
    let request =
        v1::CreateTokenRequest { ttl: Some(seconds(60)), ..named("short", &[Scope::Write], &["demo"]) };
    let secret = answered(site.admin().create_token(request).await).0.secret;
    let mut client = site.context(Some(&secret));
    site.world().clock.advance(Duration::from_millis(59_999));
    answered(client.create_session(create("demo")).await);
    site.world().clock.advance(Duration::from_millis(1));
    let outcome = client.create_session(create("demo")).await;
    refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED");
}

#[tokio::test]
async fn bad_credentials_are_all_the_same_and_counted_in_the_log() {
    let site = Site::inside().await;
    let wrong = format!("srt_{}", "z".repeat(43));
    let cut = wrong[..46].to_owned();
    let long = format!("srt_{}", "z".repeat(5000));
    let mut seen = Vec::new();
    for token in [wrong.as_str(), cut.as_str(), long.as_str(), "srt_", "x", "", "srt_aaa aaa"] {
        let outcome = site.context(Some(token)).create_session(create("demo")).await;
        let refusal = refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED");
        assert_eq!(refusal.stamp, None);
        seen.push(refusal);
    }
    assert!(seen.iter().all(|refusal| *refusal == seen[0]));
    let outcome = site.context(None).create_session(create("demo")).await;
    refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED");
    // On the control plane as well.
    let outcome = site.control(Some(&wrong)).get_status(v1::GetStatusRequest {}).await;
    refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED");

    site.world().clock.advance(Duration::from_secs(61));
    site.world().sweep().await;
    let mut request = search("");
    request.filter = Some(v1::AuditFilter { operations: vec!["auth.fail".to_owned()], ..Default::default() });
    let events = answered(site.admin().search_audit(request).await).0.events;
    let counts = events.iter().map(|event| {
        let event: serde_json::Value = serde_json::from_str(&event.line).unwrap();
        assert_eq!((&event["out"], &event["rsn"]), (&"deny".into(), &"UNAUTHENTICATED".into()));
        event["n"].as_u64().unwrap_or(1)
    });
    assert_eq!(counts.sum::<u64>(), 9);
    assert!(events.len() <= 3, "a flood is few events: {}", events.len());
}

/// `STRONGROOM_FLOOD=1000000` makes it a million.
#[tokio::test]
async fn a_flood_of_bad_logins_makes_two_events_a_minute_and_none_is_forgotten() {
    const TOGETHER: u64 = 64;
    const A_SECOND: u64 = 640;
    let logins = crate::support::variable("STRONGROOM_FLOOD").unwrap_or(16_000);
    let site = Site::inside().await;
    let wrong = format!("srt_{}", "z".repeat(43));
    let client = site.context(Some(&wrong));
    let login = async || {
        let outcome = client.clone().create_session(create("demo")).await;
        refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED");
    };
    for round in 0..logins / TOGETHER {
        futures_util::future::join_all((0..TOGETHER).map(|_| login())).await;
        if ((round + 1) * TOGETHER).is_multiple_of(A_SECOND) {
            site.world().clock.advance(Duration::from_secs(1));
        }
    }
    site.world().clock.advance(Duration::from_secs(61));
    site.world().sweep().await;

    let mut request = search("");
    request.page_size = 1000;
    request.filter = Some(v1::AuditFilter { operations: vec!["auth.fail".to_owned()], ..Default::default() });
    let mut client = site.admin();
    let (mut events, mut counted) = (0, 0);
    loop {
        let page = answered(client.search_audit(request.clone()).await).0;
        for event in &page.events {
            let event: serde_json::Value = serde_json::from_str(&event.line).unwrap();
            (events, counted) = (events + 1, counted + event["n"].as_u64().unwrap_or(1));
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let minutes = logins / A_SECOND / 60 + 1;
    println!("{logins} bad logins in {minutes} minutes: {events} events");
    assert_eq!(counted, logins / TOGETHER * TOGETHER);
    assert!(events <= 2 * (minutes + 1), "{events}");
}

#[tokio::test]
async fn two_authorizations_or_another_scheme_are_refused() {
    let site = Site::outside().await;
    let secret = site.token(&[Scope::Write], &[&site.tenant]).await;
    for headers in [
        vec![format!("Bearer {secret}"), format!("Bearer {secret}")],
        vec![format!("Basic {secret}")],
        vec![secret.clone()],
        vec![format!("Bearer  {secret}")],
        vec![format!("Bearer {secret} ")],
    ] {
        let mut request = tonic::Request::new(create(&site.tenant));
        for header in &headers {
            request.metadata_mut().append("authorization", header.parse().unwrap());
        }
        let outcome = site.context(None).create_session(request).await;
        // HTTP/2 implementations may trim what is around a value.
        if headers[0].ends_with(' ') && outcome.is_ok() {
            continue;
        }
        refused(outcome, Code::Unauthenticated, "UNAUTHENTICATED");
    }
    let mut request = tonic::Request::new(create(&site.tenant));
    request.metadata_mut().append("authorization", format!("bearer {secret}").parse().unwrap());
    answered(site.context(None).create_session(request).await);
}
