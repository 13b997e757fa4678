//! Lists: sizes and tokens of pages, and very long lists.

use std::collections::BTreeSet;

use strongroom::proto::v1::{self, Scope};
use tonic::{Code, Response, Status};

use crate::requests::{create, delete, list, list_sessions, new_put, owner, search, write_batch, write_put};
use crate::site::Site;
use crate::support::{answered, refused};

/// Fills a session with entries named by their number.
async fn fill(site: &Site, session: &v1::SessionRef, count: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    for part in numbers.chunks(256) {
        let writes = part.iter().map(|n| write_put(new_put(&n.to_string(), n.to_string()))).collect();
        answered(site.app().write_batch(write_batch(session, writes)).await);
    }
}

/// Lists all names, with pages of a size; says how many pages it took.
async fn names(site: &Site, session: &v1::SessionRef, page_size: u32) -> (Vec<String>, usize) {
    let mut request = v1::ListEntriesRequest { page_size, ..list(session) };
    let (mut names, mut pages) = (Vec::new(), 0);
    loop {
        let page = answered(site.app().list_entries(request.clone()).await).0;
        let bound = if page_size == 0 { 100 } else { page_size.min(1000) };
        assert!(page.entries.len() <= bound as usize);
        names.extend(page.entries.into_iter().map(|entry| entry.key));
        pages += 1;
        if page.next_page_token.is_empty() {
            return (names, pages);
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_list_shows_each_entry_once_whatever_the_size_of_its_pages() {
    let site = Site::inside().await;
    let session = site.session().await;
    fill(&site, &session, 1234).await;
    let all: BTreeSet<_> = (0..1234).map(|n| n.to_string()).collect();
    for (size, most) in [(0, 14), (1, 1235), (7, 178), (1000, 3), (u32::MAX, 3)] {
        let (found, pages) = names(&site, &session, size).await;
        assert_eq!(found.len(), 1234, "{size}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all);
        assert!(pages <= most, "{size}: {pages}");
    }
}

#[tokio::test]
async fn a_list_goes_on_over_what_is_added_and_removed_meanwhile() {
    let site = Site::inside().await;
    let session = site.session().await;
    fill(&site, &session, 300).await;
    let mut request = v1::ListEntriesRequest { page_size: 100, ..list(&session) };
    let first = answered(site.app().list_entries(request.clone()).await).0;
    let seen: BTreeSet<_> = first.entries.into_iter().map(|entry| entry.key).collect();
    for n in 0..300 {
        if n % 2 == 0 {
            answered(site.app().delete_entry(delete(&session, &n.to_string())).await);
        }
    }
    request.page_token = first.next_page_token;
    let mut later = BTreeSet::new();
    loop {
        let page = answered(site.app().list_entries(request.clone()).await).0;
        later.extend(page.entries.into_iter().map(|entry| entry.key));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(seen.is_disjoint(&later));
    let odd: BTreeSet<_> = (0..300).filter(|n| n % 2 == 1).map(|n| n.to_string()).collect();
    assert_eq!(later, odd.difference(&seen).cloned().collect());
}

#[tokio::test]
async fn deleted_entries_make_pages_short_and_not_endless() {
    let site = Site::inside().await;
    let session = site.session().await;
    fill(&site, &session, 6000).await;
    let numbers: Vec<usize> = (0..6000).filter(|n| n % 1000 != 0).collect();
    for part in numbers.chunks(256) {
        let writes = part.iter().map(|n| crate::requests::write_delete(&n.to_string(), None)).collect();
        answered(site.app().write_batch(write_batch(&session, writes)).await);
    }
    let (found, pages) = names(&site, &session, 100).await;
    assert_eq!((found.len(), pages), (6, 2), "5000 rows are looked at for one page");
}

#[tokio::test]
async fn page_tokens_are_good_for_the_request_that_they_were_given_for() {
    let site = Site::inside().await;
    let (session, other) = (site.session().await, site.session().await);
    for at in [&session, &other] {
        fill(&site, at, 3).await;
    }
    let theirs = "theirs".to_owned();
    answered(
        site.admin()
            .create_tenant(v1::CreateTenantRequest { name: theirs.clone(), ..Default::default() })
            .await,
    );
    let secret = site.token(&[Scope::Read, Scope::Write], &[&theirs]).await;
    let mut foreign = site.context(Some(&secret));
    for _ in 0..3 {
        answered(foreign.create_session(create(&theirs)).await);
    }
    let entries = async |at| {
        let request = v1::ListEntriesRequest { page_size: 1, ..list(at) };
        answered(site.app().list_entries(request).await).0.next_page_token
    };
    let request = v1::ListSessionsRequest { page_size: 1, ..list_sessions("demo") };
    let sessions = answered(site.app().list_sessions(request).await).0.next_page_token;
    let request = v1::ListSessionsRequest { page_size: 1, ..list_sessions(&theirs) };
    let theirs = answered(foreign.list_sessions(request).await).0.next_page_token;
    let request = v1::ListTenantsRequest { page_size: 1, ..Default::default() };
    let tenants = answered(site.admin().list_tenants(request).await).0.next_page_token;
    let request = v1::ListTokensRequest { page_size: 1, ..Default::default() };
    let tokens = answered(site.admin().list_tokens(request).await).0.next_page_token;
    let request = v1::SearchAuditRequest { page_size: 1, ..search("demo") };
    let events = answered(site.admin().search_audit(request).await).0.next_page_token;
    let all = [entries(&session).await, entries(&other).await, sessions, theirs, tenants, tokens, events];
    assert!(all.iter().all(|token| !token.is_empty()));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    for (place, page_token) in all.into_iter().enumerate() {
        let own = |of: usize| place == of;
        let request = v1::ListEntriesRequest { page_token: page_token.clone(), ..list(&session) };
        accepted(site.app().list_entries(request).await, own(0));
        let request = v1::ListSessionsRequest { page_token: page_token.clone(), ..list_sessions("demo") };
        accepted(site.app().list_sessions(request.clone()).await, own(2));
        let alices = v1::ListSessionsRequest { owner: Some(owner("alice")), ..request };
        accepted(site.app().list_sessions(alices).await, false);
        let request = v1::ListTenantsRequest { page_token: page_token.clone(), ..Default::default() };
        accepted(site.admin().list_tenants(request).await, own(4));
        let request = v1::ListTokensRequest { page_token: page_token.clone(), ..Default::default() };
        accepted(site.admin().list_tokens(request).await, own(5));
        let (page_token, tenant) = (page_token, "demo".to_owned());
        let request = v1::ListKeksRequest { page_token: page_token.clone(), tenant, ..Default::default() };
        accepted(site.admin().list_keks(request).await, false);
        let request = v1::SearchAuditRequest { page_token, ..search("demo") };
        accepted(site.admin().search_audit(request).await, own(6));
    }
}

/// A page token is accepted by the request that it is for, and blamed by every other.
#[track_caller]
fn accepted<T>(outcome: Result<Response<T>, Status>, is_own: bool) {
    if is_own {
        answered(outcome);
    } else {
        assert_eq!(refused(outcome, Code::InvalidArgument, "INVALID_FIELD").fields, ["page_token"]);
    }
}

#[tokio::test]
async fn a_page_token_that_was_changed_anywhere_is_refused() {
    let site = Site::inside().await;
    let session = site.session().await;
    fill(&site, &session, 3).await;
    let request = v1::ListEntriesRequest { page_size: 1, ..list(&session) };
    let token = answered(site.app().list_entries(request).await).0.next_page_token;
    let mut changed: Vec<String> = (0..token.len()).map(|len| token[..len].to_owned()).skip(1).collect();
    for place in 0..token.len() {
        let other = if token.as_bytes()[place] == b'A' { "B" } else { "A" };
        let mut one = token.clone();
        one.replace_range(place..=place, other);
        changed.push(one);
    }
    changed.extend([
        format!("{token}A"),
        format!("{token}="),
        format!(" {token}"),
        "é".to_owned(),
        "x".repeat(2049),
    ]);
    for page_token in changed {
        let request = v1::ListEntriesRequest { page_token, ..list(&session) };
        let refusal = refused(site.app().list_entries(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(refusal.fields, ["page_token"]);
    }
}

#[tokio::test]
async fn a_session_holds_a_hundred_thousand_entries() {
    // In a process of its own, because its memory is measured.
    let daemon = std::sync::Arc::new(crate::support::Daemon::start().await);
    let site = Site::on(std::sync::Arc::clone(&daemon)).await;
    let session = site.session().await;
    let before = daemon.memory("VmRSS");
    fill(&site, &session, 100_000).await;
    let filled = daemon.memory("VmHWM");
    let (found, pages) = names(&site, &session, 1000).await;
    assert_eq!(found.len(), 100_000);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), 100_000);
    assert!((100..=102).contains(&pages), "{pages}");
    assert_eq!(site.look(&session, "77777").await, Some((1, b"77777".to_vec())));
    answered(site.app().delete_session(crate::requests::delete_session(&session)).await);
    let listed = daemon.memory("VmHWM");
    println!("{} MiB before, {} MiB filled, {} MiB listed", before >> 20, filled >> 20, listed >> 20);
    // The engine caches what it may (128 MiB), the log of 100,000 events included; the allocator keeps some of what passed.
    let bound = 320 << 20;
    assert!(listed < before + bound, "{} MiB more", (listed - before) >> 20);
    // Listing adds what one page takes.
    assert!(listed < filled + (32 << 20), "{} MiB more", (listed - filled) >> 20);
}
