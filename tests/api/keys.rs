//! Versions of a tenant's key: listed, made, promoted, disabled, counted, destroyed.

use std::time::Duration;

use strongroom::proto::v1::{self, KekState, Scope, create_session_request};
use strongroom::store::Table;
use tonic::Code;

use crate::requests::{append, create, events, new_put, put_of, read, seconds, span};
use crate::site::Site;
use crate::support::{answered, stamp};

fn rotate(site: &Site) -> v1::RotateKekRequest {
    v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() }
}

fn keks(site: &Site) -> v1::ListKeksRequest {
    v1::ListKeksRequest { tenant: site.tenant.clone(), ..Default::default() }
}

#[tokio::test]
async fn after_a_rotation_old_sessions_open_and_new_ones_are_wrapped_under_the_new_version() {
    let site = Site::outside().await;
    let old = site.session().await;
    site.put(&old, "key", "before").await;
    site.app().append_events(append(&old, "stream", &["before"])).await.unwrap();
    for version in 2..=4 {
        let outcome = site.admin().rotate_kek(rotate(&site)).await;
        let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
        let made = site.answered(outcome, "key.rotate").await.kek.unwrap();
        assert_eq!(site.event(&place).await["kid"]["kek"], version);
        assert_eq!((made.version, made.state), (version, i32::from(KekState::Primary)));
    }
    assert_eq!(site.look(&old, "key").await, Some((1, b"before".to_vec())));
    assert_eq!(site.put(&old, "key", "after").await, 2);
    let (mut stream, _) = answered(site.app().read_events(events(&old, "stream")).await);
    assert_eq!(stream.message().await.unwrap().unwrap().events.len(), 1);

    let (new, place) = answered(site.app().create_session(create(&site.tenant)).await);
    assert_eq!(site.event(&place).await["kid"]["kek"], 4);
    let new = v1::SessionRef {
        tenant: site.tenant.clone(),
        session_id: new.session.unwrap().session_id,
        owner: None,
    };
    site.put(&new, "key", "new").await;

    let listed = site.answered(site.admin().list_keks(keks(&site)).await, "key.list").await.keks;
    let states: Vec<_> = listed.iter().map(|kek| (kek.version, kek.state)).collect();
    let (enabled, primary) = (i32::from(KekState::Enabled), i32::from(KekState::Primary));
    assert_eq!(states, [(1, enabled), (2, enabled), (3, enabled), (4, primary)]);
    assert!(listed.iter().all(|kek| kek.create_time.is_some() && kek.state_time.is_some()));
    let get = v1::GetTenantRequest { name: site.tenant.clone() };
    assert_eq!(answered(site.admin().get_tenant(get).await).0.tenant.unwrap().primary_kek_version, 4);
}

#[tokio::test]
async fn after_a_rotation_and_a_restart_everything_opens() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    answered(site.admin().rotate_kek(rotate(&site)).await);
    let site = site.reopened().await;
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
    let mut request = v1::ListKeksRequest { page_size: 1, ..keks(&site) };
    let first = answered(site.admin().list_keks(request.clone()).await).0;
    assert_eq!(first.keks.len(), 1);
    request.page_token = first.next_page_token;
    let second = answered(site.admin().list_keks(request).await).0;
    assert_eq!((second.keks[0].version, second.next_page_token.as_str()), (2, ""));
}

#[tokio::test]
async fn versions_are_bounded_and_the_bound_is_told() {
    let site = Site::inside().await;
    for _ in 1..strongroom::keyring::MAX_KEK_VERSIONS {
        answered(site.admin().rotate_kek(rotate(&site)).await);
    }
    let outcome = site.admin().rotate_kek(rotate(&site)).await;
    let exceeded = (Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let refusal = site.refused(outcome, exceeded.0, exceeded.1, ("key.rotate", "fail")).await;
    assert_eq!(refusal.details, [("limit".to_owned(), "120".to_owned())].into());
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let listed = answered(site.admin().list_keks(keks(&site)).await).0;
    assert_eq!((listed.keks.len(), listed.next_page_token.is_empty()), (100, false));
}

#[tokio::test]
async fn concurrent_rotations_each_make_a_version() {
    let site = Site::inside().await;
    let rotations = (0..8).map(|_| {
        let (mut admin, request) = (site.admin(), rotate(&site));
        async move { answered(admin.rotate_kek(request).await).0.kek.unwrap().version }
    });
    let mut made = crate::support::soon(futures_util::future::join_all(rotations)).await;
    made.sort_unstable();
    assert_eq!(made, (2..=9).collect::<Vec<_>>());
}

const KEY_STATE: (Code, &str) = (Code::FailedPrecondition, "KEY_STATE");
const KEY_IN_USE: (Code, &str) = (Code::FailedPrecondition, "KEY_IN_USE");
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The name of a state.
fn named(state: i32) -> &'static str {
    KekState::try_from(state).unwrap().as_str_name().strip_prefix("KEK_STATE_").unwrap()
}

fn destroy(site: &Site, version: u32) -> v1::DestroyKekRequest {
    v1::DestroyKekRequest { tenant: site.tenant.clone(), version, ..Default::default() }
}

fn long(site: &Site) -> v1::CreateSessionRequest {
    let ttl = create_session_request::Expiration::Ttl(seconds(90 * 24 * 3600));
    v1::CreateSessionRequest { expiration: Some(ttl), ..create(&site.tenant) }
}

/// Has a verb done to a version; gives its state then.
macro_rules! verb {
    ($site:expr, $call:ident, $request:ident, $version:expr, $typ:literal) => {{
        let request = v1::$request { tenant: $site.tenant.clone(), version: $version, ..Default::default() };
        let outcome = $site.admin().$call(request).await;
        let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
        let kek = $site.answered(outcome, $typ).await.kek.unwrap();
        assert_eq!($site.event(&place).await["kid"]["kek"], $version);
        assert_eq!(kek.version, $version);
        named(kek.state)
    }};
}

async fn state(site: &Site, version: u32) -> &'static str {
    let get = v1::GetKekRequest { tenant: site.tenant.clone(), version };
    let kek = site.answered(site.admin().get_kek(get).await, "key.read").await.kek.unwrap();
    named(kek.state)
}

async fn uses(site: &Site) -> Vec<(u32, u64)> {
    let count = v1::CountKekUseRequest { tenant: site.tenant.clone() };
    let found = site.answered(site.admin().count_kek_use(count).await, "key.census").await.uses;
    found.into_iter().map(|found| (found.version, found.sessions)).collect()
}

#[tokio::test]
async fn a_pending_version_wraps_nothing_until_it_is_promoted() {
    let site = Site::inside().await;
    let request = v1::RotateKekRequest { pending: true, ..rotate(&site) };
    let made = site.answered(site.admin().rotate_kek(request).await, "key.rotate").await.kek.unwrap();
    assert_eq!((made.version, made.state), (2, i32::from(KekState::Pending)));
    site.session().await;
    assert_eq!(uses(&site).await, [(1, 1), (2, 0)]);
    assert_eq!(verb!(site, promote_kek, PromoteKekRequest, 2, "key.promote"), "PRIMARY");
    assert_eq!(state(&site, 1).await, "ENABLED");
    site.session().await;
    assert_eq!(uses(&site).await, [(1, 1), (2, 1)]);
    // An earlier one can be promoted again, and to promote the primary is to do what is done.
    assert_eq!(verb!(site, promote_kek, PromoteKekRequest, 1, "key.promote"), "PRIMARY");
    assert_eq!(verb!(site, promote_kek, PromoteKekRequest, 1, "key.promote"), "PRIMARY");
    assert_eq!(state(&site, 2).await, "ENABLED");
}

#[tokio::test]
async fn a_disabled_version_refuses_from_the_next_request_on_until_it_is_enabled() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    answered(site.admin().rotate_kek(rotate(&site)).await);
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
    assert_eq!(verb!(site, disable_kek, DisableKekRequest, 1, "key.disable"), "DISABLED");
    let disabled = (Code::FailedPrecondition, "KEY_DISABLED");
    let outcome = site.app().read_entry(read(&session, "key")).await;
    site.refused(outcome, disabled.0, disabled.1, ("ctx.read", "fail")).await;
    let outcome = site.app().put_entry(put_of(&session, new_put("key", "more"))).await;
    site.refused(outcome, disabled.0, disabled.1, ("ctx.put", "fail")).await;
    let promote = v1::PromoteKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    let refusal = site.admin().promote_kek(promote).await;
    let refusal = site.refused(refusal, KEY_STATE.0, KEY_STATE.1, ("key.promote", "fail")).await;
    assert_eq!(refusal.details, [("state".to_owned(), "disabled".to_owned())].into());
    assert_eq!(verb!(site, enable_kek, EnableKekRequest, 1, "key.enable"), "ENABLED");
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
}

#[tokio::test]
async fn the_primary_is_neither_disabled_nor_destroyed_and_what_is_unknown_is_not_found() {
    let site = Site::inside().await;
    let disable = v1::DisableKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    let outcome = site.admin().disable_kek(disable).await;
    site.refused(outcome, KEY_STATE.0, KEY_STATE.1, ("key.disable", "fail")).await;
    for grace in [None, Some(seconds(0))] {
        let request = v1::DestroyKekRequest { grace, ..destroy(&site, 1) };
        let typ = if grace.is_some() { "key.destroy" } else { "key.schedule" };
        let outcome = site.admin().destroy_kek(request).await;
        site.refused(outcome, KEY_STATE.0, KEY_STATE.1, (typ, "fail")).await;
    }
    let outcome = site.admin().destroy_kek(destroy(&site, 7)).await;
    site.refused(outcome, Code::NotFound, "KEY_NOT_FOUND", ("key.schedule", "fail")).await;
}

#[tokio::test]
async fn a_version_in_use_is_destroyed_only_by_who_knows_what_dies() {
    let site = Site::inside().await;
    for _ in 0..3 {
        site.session().await;
    }
    answered(site.admin().rotate_kek(rotate(&site)).await);
    site.session().await;
    for expect_sessions in [0, 2, 4] {
        let request = v1::DestroyKekRequest { expect_sessions, ..destroy(&site, 1) };
        let outcome = site.admin().destroy_kek(request).await;
        let refusal = site.refused(outcome, KEY_IN_USE.0, KEY_IN_USE.1, ("key.schedule", "fail")).await;
        assert_eq!(refusal.details, [("sessions".to_owned(), "3".to_owned())].into());
    }
    let request = v1::DestroyKekRequest { dry_run: true, ..destroy(&site, 1) };
    let said = site.answered(site.admin().destroy_kek(request).await, "key.census").await;
    let scheduled = i32::from(KekState::DestroyScheduled);
    assert_eq!((said.sessions, said.kek.unwrap().state), (3, scheduled));
    assert_eq!(state(&site, 1).await, "ENABLED", "a dry run changes nothing");
    let request = v1::DestroyKekRequest { expect_sessions: 3, ..destroy(&site, 1) };
    let said = site.answered(site.admin().destroy_kek(request).await, "key.schedule").await;
    assert_eq!((said.sessions, said.kek.unwrap().state), (3, scheduled));
}

#[tokio::test]
async fn a_destruction_can_be_taken_back_until_its_time_and_not_after() {
    let site = Site::inside().await;
    let session = site.create(long(&site)).await;
    site.put(&session, "key", "value").await;
    answered(site.admin().rotate_kek(rotate(&site)).await);
    let doomed = v1::DestroyKekRequest { expect_sessions: 1, ..destroy(&site, 1) };
    for grace in [DAY - Duration::from_millis(1), 91 * DAY] {
        let request = v1::DestroyKekRequest { grace: Some(span(grace)), ..doomed.clone() };
        let outcome = site.admin().destroy_kek(request).await;
        site.refused(outcome, Code::InvalidArgument, "INVALID_FIELD", ("key.schedule", "fail")).await;
    }
    answered(site.admin().destroy_kek(doomed.clone()).await);
    site.world().clock.advance(7 * DAY - Duration::from_secs(2));
    site.world().sweep().await;
    let outcome = site.app().read_entry(read(&session, "key")).await;
    site.refused(outcome, Code::FailedPrecondition, "KEY_DISABLED", ("ctx.read", "fail")).await;
    let cancelled = verb!(site, cancel_kek_destruction, CancelKekDestructionRequest, 1, "key.cancel");
    assert_eq!(cancelled, "DISABLED");
    verb!(site, enable_kek, EnableKekRequest, 1, "key.enable");
    site.world().clock.advance(Duration::from_secs(5));
    site.world().sweep().await;
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));

    let request = v1::DestroyKekRequest { grace: Some(span(DAY)), ..doomed };
    answered(site.admin().destroy_kek(request).await);
    site.world().clock.advance(DAY + Duration::from_secs(1));
    site.world().sweep().await;
    assert_eq!(state(&site, 1).await, "DESTROYED");
    let cancel =
        v1::CancelKekDestructionRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    let outcome = site.admin().cancel_kek_destruction(cancel).await;
    site.refused(outcome, KEY_STATE.0, KEY_STATE.1, ("key.cancel", "fail")).await;
    let outcome = site.app().read_entry(read(&session, "key")).await;
    site.refused(outcome, Code::FailedPrecondition, "KEY_DESTROYED", ("ctx.read", "fail")).await;
    // When its session would have ended, what is left of it goes.
    site.world().clock.advance(90 * DAY);
    site.world().sweep().await;
    let left = site.world().rows().await;
    let table = |wanted: Table| left.iter().filter(|(key, _)| key.as_bytes()[0] == wanted as u8).count();
    assert_eq!((table(Table::Session), table(Table::Expiry)), (0, 0));
}

#[tokio::test]
async fn to_destroy_at_once_takes_both_rights() {
    let site = Site::outside().await;
    answered(site.admin().rotate_kek(rotate(&site)).await);
    let request = v1::DestroyKekRequest { grace: Some(seconds(0)), ..destroy(&site, 1) };
    for (scope, missing) in
        [(Scope::KeysDestroy, "keys-destroy-now"), (Scope::KeysDestroyNow, "keys-destroy")]
    {
        let one = site.token(&[scope], &[&site.tenant]).await;
        let outcome = site.control(Some(&one)).destroy_kek(request.clone()).await;
        let denied = (Code::PermissionDenied, "PERMISSION_DENIED");
        let refusal = site.refused(outcome, denied.0, denied.1, ("authz.deny", "deny")).await;
        assert_eq!(refusal.details, [("scope".to_owned(), missing.to_owned())].into());
    }
    let both = site.token(&[Scope::KeysDestroy, Scope::KeysDestroyNow], &[&site.tenant]).await;
    let outcome = site.control(Some(&both)).destroy_kek(request).await;
    let gone = site.answered(outcome, "key.destroy").await.kek.unwrap();
    assert_eq!(gone.state, i32::from(KekState::Destroyed));
    assert_eq!(state(&site, 1).await, "DESTROYED");
}

/// The run-book in `keys/README.md`.
#[tokio::test]
async fn a_suspected_version_is_replaced_disabled_and_destroyed() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    answered(site.admin().rotate_kek(rotate(&site)).await);
    // Reading stops at once, and is possible again for the time of the rewrap.
    verb!(site, disable_kek, DisableKekRequest, 1, "key.disable");
    let outcome = site.app().read_entry(read(&session, "key")).await;
    site.refused(outcome, Code::FailedPrecondition, "KEY_DISABLED", ("ctx.read", "fail")).await;
    verb!(site, enable_kek, EnableKekRequest, 1, "key.enable");
    let kind = v1::JobKind::Rewrap.into();
    let rewrap = v1::StartJobRequest { tenant: site.tenant.clone(), kind, ..Default::default() };
    answered(site.admin().start_job(rewrap).await);
    site.world().work().await;
    assert_eq!(uses(&site).await, [(1, 0), (2, 1)]);
    verb!(site, disable_kek, DisableKekRequest, 1, "key.disable");
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
    answered(site.admin().destroy_kek(destroy(&site, 1)).await);
    site.world().clock.advance(8 * DAY);
    site.world().sweep().await;
    assert_eq!(state(&site, 1).await, "DESTROYED");
}

#[tokio::test]
async fn a_key_is_rotated_by_itself_when_its_period_is_over() {
    let site = Site::inside().await;
    let set = |period: Option<Duration>| v1::SetKekRotationRequest {
        tenant: site.tenant.clone(),
        period: period.map(span),
        ..Default::default()
    };
    for period in [DAY - Duration::from_millis(1), 3651 * DAY] {
        let outcome = site.admin().set_kek_rotation(set(Some(period))).await;
        site.refused(outcome, Code::InvalidArgument, "INVALID_FIELD", ("key.period", "fail")).await;
    }
    let outcome = site.admin().set_kek_rotation(set(Some(2 * DAY))).await;
    let tenant = site.answered(outcome, "key.period").await.tenant.unwrap();
    assert_eq!(tenant.rotation_period, Some(span(2 * DAY)));
    let primary = || async {
        let get = v1::GetTenantRequest { name: site.tenant.clone() };
        answered(site.admin().get_tenant(get).await).0.tenant.unwrap().primary_kek_version
    };
    site.world().clock.advance(2 * DAY - Duration::from_secs(2));
    site.world().sweep().await;
    assert_eq!(primary().await, 1);
    for version in 2..=4 {
        site.world().clock.advance(2 * DAY);
        site.world().sweep().await;
        assert_eq!(primary().await, version);
    }
    // Counted from the last rotation, whoever made it.
    site.world().clock.advance(DAY);
    answered(site.admin().rotate_kek(rotate(&site)).await);
    site.world().clock.advance(2 * DAY - Duration::from_secs(2));
    site.world().sweep().await;
    assert_eq!(primary().await, 5);
    site.world().clock.advance(Duration::from_secs(3));
    site.world().sweep().await;
    assert_eq!(primary().await, 6);
    let outcome = site.admin().set_kek_rotation(set(None)).await;
    let tenant = site.answered(outcome, "key.period").await.tenant.unwrap();
    assert_eq!((tenant.rotation_period, tenant.next_rotation_time), (None, None));
    site.world().clock.advance(30 * DAY);
    site.world().sweep().await;
    assert_eq!(primary().await, 6);
    let left = site.world().rows().await;
    assert!(!left.iter().any(|(key, _)| key.as_bytes()[0] == Table::Expiry as u8), "an index row is left");
}

#[tokio::test]
async fn while_the_root_provider_is_away_for_long_no_keys_are_made_and_everything_else_goes_on() {
    let site = Site::inside().await;
    let session = site.session().await;
    let period = Some(span(DAY));
    let set = v1::SetKekRotationRequest { tenant: site.tenant.clone(), period, ..Default::default() };
    answered(site.admin().set_kek_rotation(set).await);
    site.world().new_keys.store(false, std::sync::atomic::Ordering::SeqCst);
    let unavailable = (Code::Unavailable, "UNAVAILABLE");
    let outcome = site.app().create_session(create(&site.tenant)).await;
    site.refused(outcome, unavailable.0, unavailable.1, ("ses.create", "fail")).await;
    let outcome = site.admin().rotate_kek(rotate(&site)).await;
    site.refused(outcome, unavailable.0, unavailable.1, ("key.rotate", "fail")).await;
    let tenant = v1::CreateTenantRequest { name: "other".to_owned(), ..Default::default() };
    let refusal = crate::support::Refusal::of(&site.admin().create_tenant(tenant).await.unwrap_err());
    assert_eq!(refusal.reason, unavailable.1);
    site.put(&session, "key", "value").await;
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
    site.world().clock.advance(DAY + Duration::from_secs(1));
    site.world().sweep().await;
    assert_eq!(state(&site, 1).await, "PRIMARY", "a rotation was due, and waits");
    site.world().new_keys.store(true, std::sync::atomic::Ordering::SeqCst);
    site.world().sweep().await;
    assert_eq!(state(&site, 2).await, "PRIMARY");
    site.session().await;
}
