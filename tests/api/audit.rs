//! SearchAudit, TailAudit, GetStatus.

use std::time::Duration;

use serde_json::Value;
use strongroom::proto::v1::{self, AuditOrder, Scope};
use tonic::{Code, Streaming};

use crate::requests::{create, delete, get, put, read, search, span, time};
use crate::site::Site;
use crate::support::{answered, refused, soon};

fn line(event: &v1::AuditEvent) -> Value {
    serde_json::from_str(&event.line).unwrap()
}

/// The numbers of all events that a search finds, over all its pages.
async fn found(site: &Site, mut request: v1::SearchAuditRequest) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let page = site.answered(site.admin().search_audit(request.clone()).await, "aud.search").await;
        assert!(page.events.len() <= 1000.min(request.page_size as usize));
        numbers.extend(page.events.iter().map(|event| event.sequence));
        if page.next_page_token.is_empty() {
            return numbers;
        }
        request.page_token = page.next_page_token;
    }
}

fn operations(names: &[&str]) -> Option<v1::AuditFilter> {
    let operations = names.iter().map(|name| (*name).to_owned()).collect();
    Some(v1::AuditFilter { operations, ..Default::default() })
}

#[tokio::test]
async fn a_search_finds_what_it_is_asked_for_in_either_order() {
    let site = Site::inside().await;
    let session = site.session().await;
    for n in 0..25 {
        site.put(&session, &format!("key-{n}"), "v").await;
        site.look(&session, &format!("key-{n}")).await;
        site.world().clock.advance(Duration::from_secs(1));
    }
    refused(site.app().read_entry(read(&session, "none")).await, Code::NotFound, "ENTRY_NOT_FOUND");
    let stranger = v1::SessionRef { session_id: "stranger".to_owned(), ..session.clone() };
    refused(site.app().get_session(get(&stranger)).await, Code::NotFound, "SESSION_NOT_FOUND");

    // One session, 25 puts, 25 reads, two refusals.
    let of = |filter| v1::SearchAuditRequest { filter, page_size: 7, ..search("demo") };
    let newest = |request| v1::SearchAuditRequest { order: AuditOrder::NewestFirst.into(), ..request };
    let puts = found(&site, of(operations(&["ctx.put"]))).await;
    assert_eq!(puts, (0..25).map(|n| 1 + 2 * n).collect::<Vec<_>>());
    let backwards = found(&site, newest(of(operations(&["ctx.put"])))).await;
    assert_eq!(backwards, puts.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(found(&site, of(operations(&["ctx.*"]))).await.len(), 51);
    assert_eq!(found(&site, of(operations(&["ctx.put", "ses.*"]))).await.len(), 27);
    for (outcome, count) in [("fail", 1), ("deny", 1)] {
        let outcomes = vec![outcome.to_owned()];
        assert_eq!(
            found(&site, of(Some(v1::AuditFilter { outcomes, ..Default::default() }))).await.len(),
            count
        );
    }
    let begin = crate::support::BEGIN.as_millis();
    let times = v1::AuditFilter {
        start_time: Some(time(begin + 5_000)),
        end_time: Some(time(begin + 8_000)),
        ..operations(&["ctx.put"]).unwrap()
    };
    assert_eq!(found(&site, of(Some(times.clone()))).await, puts[5..8]);
    let backwards = found(&site, newest(of(Some(times)))).await;
    assert_eq!(backwards, puts[5..8].iter().rev().copied().collect::<Vec<_>>());
    let never = v1::AuditFilter { start_time: Some(time(begin * 2)), ..Default::default() };
    assert_eq!(found(&site, of(Some(never))).await, [0; 0]);
}

#[tokio::test]
async fn a_search_finds_whom_and_what_it_is_about_and_says_so_itself() {
    let site = Site::outside().await;
    let session = site.session().await;
    let owner = v1::Owner { subject: "alice".to_owned(), ..Default::default() };
    let create = v1::CreateSessionRequest { owner: Some(owner.clone()), ..create(&site.tenant) };
    let hers = site.create(create).await;
    for n in 0..300 {
        site.put(&session, &format!("key-{}", n % 50), "v").await;
    }
    site.put(&hers, "key-7", "v").await;
    site.look(&hers, "key-7").await;
    let all = found(&site, v1::SearchAuditRequest { page_size: 1000, ..search(&site.tenant) }).await.len();
    let of = |filter| v1::SearchAuditRequest { filter: Some(filter), page_size: 50, ..search(&site.tenant) };
    let puts = |filter| of(v1::AuditFilter { operations: vec!["ctx.put".to_owned()], ..filter });
    let entry = v1::AuditFilter { entry_key: "key-7".to_owned(), ..Default::default() };
    assert_eq!(found(&site, puts(entry.clone())).await.len(), 7);
    let about_her = v1::AuditFilter { owner: Some(owner.clone()), ..Default::default() };
    // Created, put, read.
    assert_eq!(found(&site, of(about_her.clone())).await.len(), 3);
    // The search before was about her, too, and is on record as such.
    let mut hers_and_entry = v1::AuditFilter { session_id: hers.session_id.clone(), ..entry };
    assert_eq!(found(&site, of(hers_and_entry.clone())).await.len(), 2);
    assert_eq!(
        found(&site, of(v1::AuditFilter { outcomes: vec!["ok".to_owned()], ..about_her })).await.len(),
        4
    );
    hers_and_entry.session_id = "no-such-session".to_owned();
    assert_eq!(found(&site, of(hers_and_entry)).await, [0; 0]);

    let first =
        site.answered(site.admin().search_audit(puts(v1::AuditFilter::default())).await, "aud.search").await;
    let line = line(&first.events[0]);
    let text = |pointer: &str| line.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let same = v1::AuditFilter { pseudonyms: vec![text("/sid"), text("/res/kp")], ..Default::default() };
    assert_eq!(found(&site, of(same)).await.len(), 6);
    let here = v1::AuditFilter { address: "127.0.0.1".to_owned(), ..Default::default() };
    assert!(found(&site, of(here.clone())).await.len() > all);
    let elsewhere = v1::AuditFilter { address: "192.0.2.7".to_owned(), ..here };
    assert_eq!(found(&site, of(elsewhere)).await, [0; 0]);
    let nobody = v1::AuditFilter { principal: "token:nobody".to_owned(), ..Default::default() };
    assert_eq!(found(&site, of(nobody)).await, [0; 0]);
}

#[tokio::test]
async fn a_log_has_no_gap_and_every_line_is_canonical() {
    let site = Site::outside().await;
    let session = site.session().await;
    for n in 0..10 {
        site.put(&session, "key", &n.to_string()).await;
    }
    site.app().delete_entry(delete(&session, "key")).await.unwrap();
    let (page, place) = answered(site.admin().search_audit(search(&site.tenant)).await);
    assert_eq!(place.sequence, 12);
    let numbers: Vec<_> = page.events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    let mut last = 0;
    for event in &page.events {
        assert_eq!(event.log, place.log);
        let parsed = line(event);
        assert_eq!((&parsed["v"], &parsed["seq"]), (&1.into(), &event.sequence.into()));
        assert!(parsed["ts"].as_u64().unwrap() >= last);
        last = parsed["ts"].as_u64().unwrap();
        assert!(!event.line.contains(' ') && event.line.len() <= 4096);
        for word in ["key", &session.session_id, &site.tenant] {
            assert!(!event.line.contains(&format!("\"{word}\"")), "{}", event.line);
        }
    }
}

#[tokio::test]
async fn a_search_names_the_field_that_is_wrong() {
    let site = Site::outside().await;
    let of =
        |filter: v1::AuditFilter| v1::SearchAuditRequest { filter: Some(filter), ..search(&site.tenant) };
    let many = vec!["ctx.put".to_owned(); 33];
    let before_time = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    for (field, request) in [
        ("filter.operations", of(operations(&["ctx"]).unwrap())),
        ("filter.operations", of(operations(&["no.such"]).unwrap())),
        ("filter.operations", of(v1::AuditFilter { operations: many, ..Default::default() })),
        ("filter.outcomes", of(v1::AuditFilter { outcomes: vec!["okay".to_owned()], ..Default::default() })),
        ("filter.principal", of(v1::AuditFilter { principal: "p".repeat(2049), ..Default::default() })),
        ("filter.owner", of(v1::AuditFilter { owner: Some(v1::Owner::default()), ..Default::default() })),
        ("filter.session_id", of(v1::AuditFilter { session_id: "a b".to_owned(), ..Default::default() })),
        ("filter.entry_key", of(v1::AuditFilter { entry_key: "k".repeat(513), ..Default::default() })),
        ("filter.stream", of(v1::AuditFilter { stream: "s".repeat(513), ..Default::default() })),
        ("filter.token", of(v1::AuditFilter { token: "Not a name".to_owned(), ..Default::default() })),
        ("filter.address", of(v1::AuditFilter { address: "here".to_owned(), ..Default::default() })),
        (
            "filter.pseudonyms",
            of(v1::AuditFilter { pseudonyms: vec!["alice".to_owned()], ..Default::default() }),
        ),
        (
            "filter.pseudonyms",
            of(v1::AuditFilter { pseudonyms: vec![String::new(); 9], ..Default::default() }),
        ),
        ("filter.start_time", of(v1::AuditFilter { start_time: before_time, ..Default::default() })),
        ("filter.end_time", of(v1::AuditFilter { end_time: before_time, ..Default::default() })),
        ("order", v1::SearchAuditRequest { order: 3, ..search(&site.tenant) }),
        ("page_token", v1::SearchAuditRequest { page_token: "x".to_owned(), ..search(&site.tenant) }),
    ] {
        site.invalid(site.admin().search_audit(request).await, field, "aud.search").await;
    }
    let tail = v1::TailAuditRequest { filter: operations(&["?"]), ..tail(&site.tenant) };
    site.invalid(site.admin().tail_audit(tail).await, "filter.operations", "aud.tail").await;
}

#[tokio::test]
async fn the_servers_own_log_needs_all_tenants() {
    let site = Site::outside().await;
    let secret = site.token(&[Scope::Audit], &[&site.tenant]).await;
    let mut auditor = site.control(Some(&secret));
    answered(auditor.search_audit(search(&site.tenant)).await);
    let denied = refused(auditor.search_audit(search("")).await, Code::PermissionDenied, "PERMISSION_DENIED");
    assert_eq!(denied.details, [("scope".to_owned(), "audit".to_owned())].into());
    refused(auditor.tail_audit(tail("")).await, Code::PermissionDenied, "PERMISSION_DENIED");
    let everything = site.token(&[Scope::Audit], &["*"]).await;
    answered(site.control(Some(&everything)).search_audit(search("")).await);
}

fn tail(tenant: &str) -> v1::TailAuditRequest {
    v1::TailAuditRequest { tenant: tenant.to_owned(), ..Default::default() }
}

async fn next(stream: &mut Streaming<v1::TailAuditResponse>) -> Vec<u64> {
    let message = soon(stream.message()).await.unwrap().unwrap();
    message.events.iter().map(|event| event.sequence).collect()
}

#[tokio::test]
async fn a_tail_shows_the_last_events_and_then_each_new_one() {
    let site = Site::outside().await;
    let session = site.session().await;
    for n in 0..5 {
        site.put(&session, &n.to_string(), "v").await;
    }
    let request = v1::TailAuditRequest {
        backlog: 2,
        follow: true,
        filter: operations(&["ctx.put"]),
        ..tail(&site.tenant)
    };
    let outcome = site.admin().tail_audit(request).await;
    let mut stream = site.answered(outcome, "aud.tail").await;
    assert_eq!(next(&mut stream).await, [4, 5]);
    let mut expected = Vec::new();
    for n in 0..3 {
        let made = site.app().put_entry(put(&session, &n.to_string(), "w")).await;
        expected.push(answered(made).1.sequence);
        site.look(&session, "0").await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(next(&mut stream).await);
    }
    assert_eq!(seen, expected);

    let request = v1::TailAuditRequest { backlog: 3, ..tail(&site.tenant) };
    let (mut stream, _) = answered(site.admin().tail_audit(request).await);
    assert_eq!(next(&mut stream).await.len(), 3);
    assert_eq!(soon(stream.message()).await.unwrap(), None);
    let max_duration = Some(span(Duration::from_millis(50)));
    let request = v1::TailAuditRequest { follow: true, max_duration, ..tail(&site.tenant) };
    let (mut stream, _) = answered(site.admin().tail_audit(request).await);
    while soon(stream.message()).await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_tail_without_a_backlog_misses_nothing_from_its_own_event_on() {
    let site = Site::inside().await;
    let session = site.session().await;
    let request = v1::TailAuditRequest { follow: true, ..tail("demo") };
    let (mut stream, place) = answered(site.admin().tail_audit(request).await);
    let mut expected = vec![place.sequence];
    for n in 0..20 {
        expected.push(answered(site.app().put_entry(put(&session, &n.to_string(), "")).await).1.sequence);
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(next(&mut stream).await);
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn get_status_tells_the_state_of_the_server() {
    let site = Site::outside().await;
    site.session().await;
    let one = site.answered(site.admin().get_status(v1::GetStatusRequest {}).await, "adm.status").await;
    assert_eq!((one.engine.as_str(), one.format_version, one.store_uid.len()), ("sled", 1, 36));
    assert_eq!(one.version, env!("CARGO_PKG_VERSION"));
    assert!(one.start_time.is_some() && one.sweeper_lag.is_some());
    assert!(one.rows > 0 && one.tenants >= 2 && one.disk_bytes > 0 && one.system_log_size > 0);
    assert_eq!(one.integrity_failures, 0);
    let two = site.answered(site.admin().get_status(v1::GetStatusRequest {}).await, "adm.status").await;
    assert!(two.commits > one.commits && two.committed_operations > one.committed_operations);
    assert!(two.system_log_size > one.system_log_size);
}
