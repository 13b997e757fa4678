//! Many clients at one thing: nothing is lost, nothing is given twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use strongroom::client::{CreateSession, Expect, SessionHandle, Strongroom, View};
use strongroom::proto::v1;
use tonic::Code;

use crate::requests::{consume, new_put, put_of, revision};
use crate::site::Site;
use crate::support::{Daemon, Login, Refusal, answered, soon};

const CLIENTS: usize = 64;

/// The SDK with a connection of its own.
fn sdk(daemon: &Daemon) -> Strongroom {
    daemon.sdk(Login::App)
}

async fn shared_session(daemon: &Daemon) -> SessionHandle {
    sdk(daemon).tenant("demo").unwrap().create_session(CreateSession::default()).await.unwrap().into_inner()
}

/// The same session through another connection.
fn through(daemon: &Daemon, session: &SessionHandle) -> SessionHandle {
    sdk(daemon).tenant("demo").unwrap().session(session.id(), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_increment_one_counter_lose_no_increment() {
    const EACH: u64 = 1;
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "counter", "0").await;
    let tries = Arc::new(AtomicUsize::new(0));
    let increments = (0..CLIENTS).map(|_| {
        let (site, session, tries) = (&site, &session, Arc::clone(&tries));
        async move {
            let mut client = site.app();
            for _ in 0..EACH {
                loop {
                    tries.fetch_add(1, Ordering::Relaxed);
                    let (at, value) = site.look(session, "counter").await.unwrap();
                    let next: u64 = std::str::from_utf8(&value).unwrap().parse::<u64>().unwrap() + 1;
                    let put = v1::Put { expect: revision(at), ..new_put("counter", next.to_string()) };
                    match client.put_entry(put_of(session, put)).await {
                        Ok(_) => break,
                        Err(status) => assert_eq!(Refusal::of(&status).reason, "REVISION_MISMATCH"),
                    }
                }
            }
        }
    });
    soon(join_all(increments)).await;
    let total = CLIENTS as u64 * EACH;
    assert_eq!(site.look(&session, "counter").await, Some((total + 1, total.to_string().into_bytes())));
    assert!(tries.load(Ordering::Relaxed) as u64 > total, "there was contention");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_sdk_that_modify_one_entry_lose_nothing() {
    let daemon = Daemon::shared().await;
    let session = shared_session(&daemon).await;
    let done = AtomicU64::new(0);
    let modifying = (0..8).map(|_| {
        let (session, done) = (through(&daemon, &session), &done);
        async move {
            for _ in 0..4 {
                let written = session
                    .modify("counter", |entry| {
                        let now: u64 = entry.map_or(0, |entry| {
                            String::from_utf8(entry.value.to_vec()).unwrap().parse().unwrap()
                        });
                        Some((now + 1).to_string())
                    })
                    .await;
                match written {
                    Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => assert!(error.is_revision_mismatch(), "{error}"),
                }
            }
        }
    });
    soon(join_all(modifying)).await;
    let counter = session.read("counter", View::Full).await.unwrap();
    assert_eq!(counter.value, done.load(Ordering::Relaxed).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_consume_an_entry_exactly_one_gets_it() {
    let site = Site::outside().await;
    let session = site.session().await;
    for round in 0..10 {
        let key = format!("once-{round}");
        site.put(&session, &key, "the value").await;
        let consuming = (0..CLIENTS).map(|_| {
            let (mut client, request) = (site.app(), consume(&session, &key));
            async move {
                match client.delete_entry(request).await {
                    Ok(response) => {
                        assert_eq!(&response.into_inner().entry.unwrap().value[..], b"the value");
                        true
                    }
                    Err(status) => {
                        let refusal = Refusal::of(&status);
                        assert_eq!(
                            (refusal.code, refusal.reason.as_str()),
                            (Code::NotFound, "ENTRY_NOT_FOUND")
                        );
                        false
                    }
                }
            }
        });
        let winners = soon(join_all(consuming)).await.into_iter().filter(|won| *won).count();
        assert_eq!(winners, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_hold_a_lease_never_overlap() {
    let daemon = Daemon::shared().await;
    let session = shared_session(&daemon).await;
    let held = Arc::new(AtomicBool::new(false));
    let fence = Arc::new(AtomicU64::new(0));
    let holders = (0..16).map(|_| {
        let (session, held, fence) = (through(&daemon, &session), Arc::clone(&held), Arc::clone(&fence));
        async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(3));
            let mut held_times = 0;
            while held_times < 3 {
                ticks.tick().await;
                let Some(mut lease) = session.lease("lease", Duration::from_secs(60)).await.unwrap() else {
                    continue;
                };
                assert!(!held.swap(true, Ordering::SeqCst), "two hold the lease");
                let token = lease.fencing_token().get();
                assert!(fence.swap(token, Ordering::SeqCst) < token, "fencing tokens grow");
                assert!(lease.renew().await.unwrap());
                let renewed = lease.fencing_token().get();
                assert!(fence.swap(renewed, Ordering::SeqCst) < renewed);
                held.store(false, Ordering::SeqCst);
                assert!(lease.release().await.unwrap());
                held_times += 1;
            }
        }
    });
    soon(join_all(holders)).await;
    assert!(fence.load(Ordering::SeqCst) >= 16 * 3 * 3 - 1);
}

#[tokio::test]
async fn a_lease_that_ended_is_anothers_and_the_first_holder_cannot_renew_it() {
    let site = Site::inside().await;
    let session = site.session().await;
    let lease = |expect, ttl| {
        let expiration = Some(v1::put::Expiration::Ttl(crate::requests::seconds(ttl)));
        put_of(&session, v1::Put { expect, expiration, ..new_put("lease", "") })
    };
    let (first, _) = answered(site.app().put_entry(lease(crate::requests::absent(), 10)).await);
    let first = first.metadata.unwrap().revision;
    site.world().clock.advance(Duration::from_secs(10));
    let (second, _) = answered(site.app().put_entry(lease(crate::requests::absent(), 10)).await);
    let second = second.metadata.unwrap().revision;
    assert!(second > first);
    for stale in [first, first + 7] {
        let outcome = site.app().put_entry(lease(revision(stale), 10)).await;
        crate::support::refused(outcome, Code::Aborted, "REVISION_MISMATCH");
    }
    answered(site.app().put_entry(lease(revision(second), 10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_create_one_session_or_one_entry_exactly_one_does() {
    let daemon = Daemon::shared().await;
    let session = shared_session(&daemon).await;
    let tenant = sdk(&daemon).tenant("demo").unwrap();
    let name = format!("contended-{}", session.id());
    let creating = (0..CLIENTS).map(|_| {
        let create = CreateSession { session_id: Some(name.clone()), ..CreateSession::default() };
        let (tenant, session) = (tenant.clone(), session.clone());
        async move {
            let created = match tenant.create_session(create).await {
                Ok(_) => 1,
                Err(error) => {
                    assert!(error.is_already_exists(), "{error}");
                    0
                }
            };
            let put = match session.put("absent", "x").expect(Expect::Absent).await {
                Ok(_) => 1,
                Err(error) => {
                    assert!(error.is_revision_mismatch(), "{error}");
                    0
                }
            };
            (created, put)
        }
    });
    let done = soon(join_all(creating)).await;
    assert_eq!(done.iter().map(|(created, _)| created).sum::<i32>(), 1);
    assert_eq!(done.iter().map(|(_, put)| put).sum::<i32>(), 1);
}
