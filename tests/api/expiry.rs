//! Expiry is exact at read, to the millisecond of the clock; the sweeper only reclaims.

use std::time::Duration;

use strongroom::model::limits::{DELETED_TOMBSTONE_TTL, TOMBSTONE_TTL};
use strongroom::proto::v1::{self, create_session_request, put, update_session_request};
use strongroom::store::{Key, Row, Table, keys};
use tonic::Code;

use crate::requests::{
    absent, append, consume, create, delete, delete_session, events, get, list, list_sessions, millis,
    new_put, owner, put_of, read, read_batch, seconds, update,
};
use crate::site::Site;
use crate::support::{BEGIN, answered, refused};

const MILLISECOND: Duration = Duration::from_millis(1);

fn lasting(site: &Site, ttl: u64) -> v1::CreateSessionRequest {
    let expiration = Some(create_session_request::Expiration::Ttl(seconds(ttl)));
    v1::CreateSessionRequest { expiration, ..create(&site.tenant) }
}

fn short_put(key: &str, ttl: Duration) -> v1::Put {
    v1::Put { expiration: Some(put::Expiration::Ttl(crate::requests::span(ttl))), ..new_put(key, "value") }
}

/// Every call on an expired session says when it expired.
async fn assert_expired(site: &Site, session: &v1::SessionRef, at: u64) {
    let (code, reason) = (Code::FailedPrecondition, "SESSION_EXPIRED");
    let said = [
        site.refused(site.app().get_session(get(session)).await, code, reason, ("ses.read", "fail")).await,
        site.refused(site.app().read_entry(read(session, "k")).await, code, reason, ("ctx.read", "fail"))
            .await,
        site.refused(
            site.app().put_entry(put_of(session, new_put("k", ""))).await,
            code,
            reason,
            ("ctx.put", "fail"),
        )
        .await,
        site.refused(site.app().list_entries(list(session)).await, code, reason, ("ctx.list", "fail")).await,
        site.refused(site.app().read_events(events(session, "s")).await, code, reason, ("evt.read", "fail"))
            .await,
        site.refused(site.app().update_session(update(session)).await, code, reason, ("ses.update", "fail"))
            .await,
        site.refused(
            site.app().delete_session(delete_session(session)).await,
            code,
            reason,
            ("ses.delete", "fail"),
        )
        .await,
    ];
    let at = humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(at)).to_string();
    for refusal in said {
        assert_eq!(refusal.details, [("expire_time".to_owned(), at.clone())].into());
    }
    let listed = answered(site.app().list_sessions(list_sessions(&site.tenant)).await).0;
    assert!(listed.sessions.iter().all(|listed| listed.session_id != session.session_id));
}

async fn rows_of(site: &Site, tables: &[Table]) -> Vec<(Key, Row)> {
    let wanted = |key: &Key| tables.iter().any(|table| key.as_bytes().first() == Some(&(*table as u8)));
    site.world().rows().await.into_iter().filter(|(key, _)| wanted(key)).collect()
}

#[tokio::test]
async fn a_session_ends_at_its_absolute_end() {
    let site = Site::inside().await;
    let session = site.create(lasting(&site, 60)).await;
    site.put(&session, "k", "v").await;
    site.world().clock.advance(Duration::from_millis(59_999));
    assert_eq!(site.look(&session, "k").await, Some((1, b"v".to_vec())));
    site.world().clock.advance(MILLISECOND);
    assert_expired(&site, &session, BEGIN.as_millis() + 60_000).await;
}

#[tokio::test]
async fn a_session_ends_when_it_was_left_unused() {
    let site = Site::inside().await;
    let session =
        site.create(v1::CreateSessionRequest { idle_ttl: Some(seconds(100)), ..lasting(&site, 1000) }).await;
    site.put(&session, "k", "v").await;
    // A use within a tenth of the idle time moves nothing, a use after it does.
    site.world().clock.advance(Duration::from_secs(10));
    site.look(&session, "k").await;
    let shown = answered(site.app().get_session(get(&session)).await).0.session.unwrap();
    assert_eq!(millis(shown.expire_time), BEGIN.as_millis() + 100_000);
    site.world().clock.advance(MILLISECOND);
    site.look(&session, "k").await;
    let shown = answered(site.app().get_session(get(&session)).await).0.session.unwrap();
    assert_eq!(millis(shown.expire_time), BEGIN.as_millis() + 110_001);
    assert_eq!(shown.revision, 1, "a renewal is no change that a caller asked for");

    site.world().clock.advance(Duration::from_millis(99_999));
    assert_eq!(site.look(&session, "k").await, Some((1, b"v".to_vec())));
    site.world().clock.advance(Duration::from_millis(100_000));
    assert_expired(&site, &session, BEGIN.as_millis() + 210_000).await;
}

#[tokio::test]
async fn every_use_renews_and_never_beyond_the_absolute_end() {
    let site = Site::inside().await;
    let request = v1::CreateSessionRequest { idle_ttl: Some(seconds(100)), ..lasting(&site, 1000) };
    let session = site.create(request).await;
    site.put(&session, "k", "v").await;
    let step = Duration::from_secs(90);
    let clock = &site.world().clock;
    clock.advance(step);
    site.put(&session, "k", "v").await;
    clock.advance(step);
    answered(site.app().read_batch(read_batch(&session, &["k"])).await);
    clock.advance(step);
    answered(site.app().list_entries(list(&session)).await);
    clock.advance(step);
    answered(site.app().append_events(append(&session, "s", &["x"])).await);
    clock.advance(step);
    answered(site.app().read_events(events(&session, "s")).await);
    clock.advance(step);
    answered(site.app().delete_entry(delete(&session, "k")).await);
    clock.advance(step);
    let write = crate::requests::write_put(new_put("k", "v"));
    answered(site.app().write_batch(crate::requests::write_batch(&session, vec![write])).await);
    clock.advance(step);
    answered(site.app().delete_entry(consume(&session, "k")).await);
    clock.advance(step);
    answered(site.app().watch_session(crate::requests::watch(&session)).await);
    clock.advance(step);
    site.put(&session, "k", "v").await;
    clock.advance(step);
    answered(site.app().get_session(get(&session)).await);
    clock.advance(Duration::from_secs(10));
    assert_expired(&site, &session, BEGIN.as_millis() + 1_000_000).await;
}

#[tokio::test]
async fn an_update_moves_both_ends() {
    let site = Site::inside().await;
    let session = site.create(lasting(&site, 60)).await;
    let ttl = |ttl| Some(update_session_request::Expiration::Ttl(seconds(ttl)));
    let longer = v1::UpdateSessionRequest { expiration: ttl(600), ..update(&session) };
    answered(site.app().update_session(longer).await);
    site.world().clock.advance(Duration::from_secs(300));
    site.world().sweep().await;
    answered(site.app().get_session(get(&session)).await);
    let shorter = v1::UpdateSessionRequest { expiration: ttl(1), ..update(&session) };
    answered(site.app().update_session(shorter).await);
    site.world().clock.advance(Duration::from_millis(999));
    answered(site.app().get_session(get(&session)).await);
    site.world().clock.advance(MILLISECOND);
    assert_expired(&site, &session, BEGIN.as_millis() + 301_000).await;
    assert_eq!(site.world().sweep().await, 1);
    assert_expired(&site, &session, BEGIN.as_millis() + 301_000).await;
}

#[tokio::test]
async fn an_entry_ends_at_its_time_and_its_revision_goes_on() {
    let site = Site::inside().await;
    let session = site.session().await;
    for swept in [false, true] {
        let (made, _) = answered(
            site.app().put_entry(put_of(&session, short_put("k", Duration::from_millis(1500)))).await,
        );
        let made = made.metadata.unwrap();
        let before = site.look(&session, "k").await;
        assert_eq!(before, Some((made.revision, b"value".to_vec())));
        site.world().clock.advance(Duration::from_millis(1499));
        assert_eq!(site.look(&session, "k").await, before);
        site.world().clock.advance(MILLISECOND);
        if swept {
            // The index knows seconds.
            site.world().clock.advance(Duration::from_secs(1));
            site.world().sweep().await;
        }
        assert_eq!(site.look(&session, "k").await, None);
        assert_eq!(answered(site.app().list_entries(list(&session)).await).0.entries, []);
        let found = answered(site.app().read_batch(read_batch(&session, &["k"])).await).0;
        assert_eq!(found.results[0].entry, None);
        refused(site.app().delete_entry(delete(&session, "k")).await, Code::NotFound, "ENTRY_NOT_FOUND");
        refused(site.app().delete_entry(consume(&session, "k")).await, Code::NotFound, "ENTRY_NOT_FOUND");
        let again = v1::Put { expect: absent(), ..new_put("k", "again") };
        let (again, _) = answered(site.app().put_entry(put_of(&session, again)).await);
        let again = again.metadata.unwrap();
        // The sweeper's tombstone is a revision of its own.
        assert_eq!(again.revision, made.revision + 1 + u64::from(swept));
        assert_eq!(millis(again.create_time), site.world().service.now().as_millis());
    }
}

#[tokio::test]
async fn a_put_that_replaces_moves_the_end() {
    let site = Site::inside().await;
    let session = site.session().await;
    let second = Duration::from_secs(1);
    answered(site.app().put_entry(put_of(&session, short_put("longer", second))).await);
    answered(site.app().put_entry(put_of(&session, short_put("longer", second * 10))).await);
    answered(site.app().put_entry(put_of(&session, short_put("for ever", second))).await);
    answered(site.app().put_entry(put_of(&session, new_put("for ever", "value"))).await);
    answered(site.app().put_entry(put_of(&session, short_put("shorter", second * 10))).await);
    answered(site.app().put_entry(put_of(&session, short_put("shorter", second))).await);
    site.world().clock.advance(second * 5);
    site.world().sweep().await;
    assert_eq!(site.look(&session, "longer").await, Some((2, b"value".to_vec())));
    assert_eq!(site.look(&session, "for ever").await, Some((2, b"value".to_vec())));
    assert_eq!(site.look(&session, "shorter").await, None);
    site.world().clock.advance(second * 10);
    site.world().sweep().await;
    assert_eq!(site.look(&session, "longer").await, None);
    assert_eq!(site.look(&session, "for ever").await, Some((2, b"value".to_vec())));
    let index = rows_of(&site, &[Table::Expiry]).await;
    assert_eq!(index.len(), 1, "the session's own");
}

#[tokio::test]
async fn the_sweeper_reclaims_everything_and_counts() {
    let site = Site::inside().await;
    let clean = rows_of(&site, &[Table::Session, Table::Expiry, Table::Answer]).await;
    assert_eq!(clean.len(), 0);
    for n in 0..20 {
        let session = site.create(lasting(&site, 60 + n % 3)).await;
        for key in 0..30 {
            let put = short_put(&key.to_string(), Duration::from_secs(30 + key));
            let request =
                v1::PutEntryRequest { request_id: crate::requests::new_id(), ..put_of(&session, put) };
            answered(site.app().put_entry(request).await);
        }
        answered(site.app().append_events(append(&session, "s", &["1", "2", "3"])).await);
    }
    let alive = site.create(lasting(&site, 100 * 24 * 3600)).await;
    site.put(&alive, "k", "v").await;
    site.world().clock.advance(Duration::from_secs(62));
    assert_eq!(site.world().sweep().await, 20);
    assert_eq!(site.world().service.counts().sessions_expired, 20);
    let left = rows_of(&site, &[Table::Session]).await;
    assert_eq!(left.len(), 22, "20 tombstones, one session and its entry");
    // Not before their time is over, the tombstones go as well, and answers after theirs.
    site.world().clock.advance(TOMBSTONE_TTL - Duration::from_secs(3));
    site.world().sweep().await;
    let left = rows_of(&site, &[Table::Session]).await;
    assert_eq!(left.len(), 22);
    site.world().clock.advance(Duration::from_secs(5));
    site.world().sweep().await;
    let left = rows_of(&site, &[Table::Session, Table::Expiry, Table::Answer]).await;
    assert_eq!(left.len(), 3, "the session, its entry, its place in the index");
    let status = answered(site.admin().get_status(v1::GetStatusRequest {}).await).0;
    assert_eq!((status.sessions_expired, status.sweeper_lag), (20, Some(seconds(0))));
}

#[tokio::test]
async fn a_session_of_few_rows_is_reclaimed_in_the_commit_that_ends_it() {
    let site = Site::inside().await;
    let session = site.create(lasting(&site, 60)).await;
    site.put(&session, "k", "v").await;
    let (_, stamp) = answered(site.app().append_events(append(&session, "s", &["1"])).await);
    let behind = rows_of(&site, &[Table::Session]).await.len() - 1;
    site.world().clock.advance(Duration::from_secs(61));
    assert_eq!(site.world().sweep().await, 1);
    let swept = site.events_since(stamp.sequence + 1).await;
    let kinds: Vec<_> = swept.iter().map(|event| event["typ"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ses.expire"]);
    assert_eq!(swept[0]["res"]["n"], behind);
    assert_eq!(rows_of(&site, &[Table::Session]).await.len(), 1, "the tombstone");
}

#[tokio::test]
async fn a_tombstone_lasts_for_a_day_and_then_the_session_was_never_there() {
    let site = Site::inside().await;
    let session = site.create(lasting(&site, 60)).await;
    let end = BEGIN.as_millis() + 60_000;
    site.world().clock.advance(Duration::from_secs(61));
    site.world().sweep().await;
    site.world().clock.advance(TOMBSTONE_TTL - Duration::from_secs(1) - MILLISECOND);
    site.world().sweep().await;
    assert_expired(&site, &session, end).await;
    site.world().clock.advance(Duration::from_secs(1));
    site.world().sweep().await;
    refused(site.app().get_session(get(&session)).await, Code::NotFound, "SESSION_NOT_FOUND");
}

#[tokio::test]
async fn a_deleted_sessions_row_outlives_every_request_that_read_it() {
    let site = Site::inside().await;
    let request = v1::CreateSessionRequest { session_id: "again".to_owned(), ..create(&site.tenant) };
    let session = site.create(request.clone()).await;
    site.put(&session, "k", "v").await;
    let [(_, first)] = &rows_of(&site, &[Table::Session]).await[..1] else { panic!("a session row") };
    let first = first.revision().unwrap();
    answered(site.app().delete_session(delete_session(&session)).await);
    site.world().clock.advance(DELETED_TOMBSTONE_TTL - MILLISECOND);
    site.world().sweep().await;
    site.create(request.clone()).await;
    let rows = rows_of(&site, &[Table::Session]).await;
    assert_eq!(rows.len(), 1);
    assert!(rows[0].1.revision().unwrap() > first, "an old expectation cannot hold for the new session");

    answered(site.app().delete_session(delete_session(&session)).await);
    site.world().clock.advance(DELETED_TOMBSTONE_TTL + Duration::from_secs(1));
    site.world().sweep().await;
    assert_eq!(rows_of(&site, &[Table::Session, Table::Expiry]).await.len(), 0);
}

#[tokio::test]
async fn an_expired_session_may_be_made_again_and_nothing_old_is_seen() {
    for swept in [false, true] {
        let site = Site::inside().await;
        let request = v1::CreateSessionRequest {
            session_id: "again".to_owned(),
            owner: Some(owner("alice")),
            ..lasting(&site, 60)
        };
        let session = site.create(request.clone()).await;
        for n in 0..1100 {
            // More than are reclaimed in one step.
            if n % 100 == 0 {
                let writes = (n..n + 100)
                    .map(|n| crate::requests::write_put(new_put(&n.to_string(), "old")))
                    .collect();
                answered(site.app().write_batch(crate::requests::write_batch(&session, writes)).await);
            }
        }
        answered(site.app().append_events(append(&session, "s", &["old"])).await);
        site.world().clock.advance(Duration::from_secs(60));
        if swept {
            site.world().sweep().await;
        }
        let session = site.create(v1::CreateSessionRequest { owner: Some(owner("bob")), ..request }).await;
        assert_eq!(site.look(&session, "7").await, None);
        assert_eq!(answered(site.app().list_entries(list(&session)).await).0.entries, []);
        let (mut stream, _) = answered(site.app().read_events(events(&session, "s")).await);
        assert_eq!(stream.message().await.unwrap().unwrap().events, []);
        assert_eq!(site.put(&session, "7", "new").await, 1);
        let alices = v1::SessionRef { owner: Some(owner("alice")), ..session.clone() };
        refused(site.app().get_session(get(&alices)).await, Code::NotFound, "SESSION_NOT_FOUND");
        // What the sweeper still knew of the old one does the new one no harm.
        site.world().clock.advance(Duration::from_secs(59));
        site.world().sweep().await;
        assert_eq!(site.look(&session, "7").await, Some((1, b"new".to_vec())));
    }
}

#[tokio::test]
async fn what_the_sweeper_cannot_sweep_does_not_hold_up_what_is_behind_it() {
    let site = Site::inside().await;
    for _ in 0..600 {
        site.create(lasting(&site, 60)).await;
    }
    let damaged: Vec<_> = rows_of(&site, &[Table::Session])
        .await
        .into_iter()
        .filter(|(key, _)| keys::is_session(key))
        .collect();
    for (key, row) in &damaged {
        let mut bytes = row.as_bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        site.world().tamper(key, Some(Row::from_stored(bytes.into()))).await;
    }
    site.world().clock.advance(Duration::from_secs(1));
    let good = site.create(lasting(&site, 60)).await;
    site.world().clock.advance(Duration::from_secs(60));
    let mut expired = 0;
    for _ in 0..4 {
        expired += site.world().sweeper.step().await.map_or(0, |report| report.sessions);
    }
    // A step with a failure says so instead of what it did; the count has it in any case.
    assert!(expired <= 1);
    assert_eq!(site.world().service.counts().sessions_expired, 1);
    refused(site.app().get_session(get(&good)).await, Code::FailedPrecondition, "SESSION_EXPIRED");
    // Each damaged row is counted and on record once, however often it is met.
    assert_eq!(site.world().service.counts().integrity_failures, 600);
    for _ in 0..4 {
        site.world().sweeper.step().await.ok();
    }
    assert_eq!(site.world().service.counts().integrity_failures, 600);
}
