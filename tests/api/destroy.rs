//! DestroyTenant, UndestroyTenant, and what is left of a destroyed tenant.

use std::time::Duration;

use strongroom::proto::v1::{self, Scope, TenantState, create_session_request};
use strongroom::store::{Key, Table, keys};
use tonic::Code;

use crate::requests::{append, create, get, new_id, put, read, search, seconds, span};
use crate::site::Site;
use crate::support::{answered, refused, stamp};

const STATE: (Code, &str) = (Code::FailedPrecondition, "TENANT_STATE");
const SUSPENDED: (Code, &str) = (Code::FailedPrecondition, "TENANT_SUSPENDED");
const MISSING: (Code, &str) = (Code::NotFound, "TENANT_NOT_FOUND");
const DAY: Duration = Duration::from_secs(24 * 3600);

fn destroy(site: &Site) -> v1::DestroyTenantRequest {
    v1::DestroyTenantRequest { name: site.tenant.clone(), ..Default::default() }
}

/// At once.
fn now(site: &Site, expect_sessions: u64) -> v1::DestroyTenantRequest {
    v1::DestroyTenantRequest { grace: Some(seconds(0)), expect_sessions, ..destroy(site) }
}

fn undestroy(site: &Site) -> v1::UndestroyTenantRequest {
    v1::UndestroyTenantRequest { name: site.tenant.clone(), ..Default::default() }
}

fn long(site: &Site) -> v1::CreateSessionRequest {
    let ttl = create_session_request::Expiration::Ttl(seconds(90 * 24 * 3600));
    v1::CreateSessionRequest { expiration: Some(ttl), ..create(&site.tenant) }
}

async fn suspend(site: &Site) {
    let request = v1::SuspendTenantRequest { name: site.tenant.clone(), ..Default::default() };
    answered(site.admin().suspend_tenant(request).await);
}

async fn resume(site: &Site) {
    let request = v1::ResumeTenantRequest { name: site.tenant.clone(), ..Default::default() };
    answered(site.admin().resume_tenant(request).await);
}

async fn tenant(site: &Site) -> v1::Tenant {
    let get = v1::GetTenantRequest { name: site.tenant.clone() };
    answered(site.admin().get_tenant(get).await).0.tenant.unwrap()
}

fn is(tenant: &v1::Tenant, state: TenantState) -> bool {
    tenant.state() == state
}

/// The rows that are about a tenant, as far as their keys say, without those of its log.
async fn rows_of(site: &Site, uid: &str) -> Vec<Key> {
    let id = uuid::Uuid::parse_str(uid).unwrap().into_bytes();
    let log = [Table::LogBlock as u8, Table::LogHead as u8, Table::LogIndex as u8];
    let about = |key: &Key| {
        let bytes = key.as_bytes();
        !log.contains(&bytes[0]) && bytes.windows(id.len()).any(|part| part == id)
    };
    site.world().rows().await.into_iter().map(|(key, _)| key).filter(about).collect()
}

#[tokio::test]
async fn a_scheduled_destruction_refuses_all_use_until_it_is_taken_back() {
    let site = Site::inside().await;
    let session = site.create(long(&site)).await;
    site.put(&session, "key", "value").await;
    let refusal = site.admin().destroy_tenant(destroy(&site)).await;
    let refusal = site.refused(refusal, STATE.0, STATE.1, ("tenant.schedule", "fail")).await;
    assert_eq!(refusal.details, [("state".to_owned(), "active".to_owned())].into());

    suspend(&site).await;
    let request = v1::DestroyTenantRequest { expect_sessions: 1, ..destroy(&site) };
    let done = site.answered(site.admin().destroy_tenant(request.clone()).await, "tenant.schedule").await;
    let doomed = done.tenant.unwrap();
    assert!(done.sessions == 1 && is(&doomed, TenantState::DestroyScheduled));
    let week = site.world().service.now().after(7 * DAY);
    assert_eq!(doomed.destroy_time.unwrap().seconds, i64::try_from(week.as_secs()).unwrap());
    assert_eq!(tenant(&site).await, doomed);

    // Who uses its data learns that it is suspended, and the log knows better.
    let outcome = site.app().read_entry(read(&session, "key")).await;
    let place = stamp(outcome.as_ref().unwrap_err().metadata()).unwrap();
    let refusal = refused(outcome, SUSPENDED.0, SUSPENDED.1);
    assert!(refusal.details.is_empty());
    site.recorded(&place, "ctx.read", "fail", Some("TENANT_STATE")).await;
    refused(site.app().put_entry(put(&session, "key", "2")).await, SUSPENDED.0, SUSPENDED.1);
    refused(site.app().create_session(create(&site.tenant)).await, SUSPENDED.0, SUSPENDED.1);

    // Its keys can be looked at and not changed; nor can it be resumed, or scheduled again.
    let name = || site.tenant.clone();
    let list = v1::ListKeksRequest { tenant: name(), ..Default::default() };
    answered(site.admin().list_keks(list).await);
    let rotate = v1::RotateKekRequest { tenant: name(), ..Default::default() };
    let refusal =
        site.refused(site.admin().rotate_kek(rotate).await, STATE.0, STATE.1, ("key.rotate", "fail"));
    assert_eq!(refusal.await.details, [("state".to_owned(), "destroy-scheduled".to_owned())].into());
    let kind = v1::JobKind::Scrub.into();
    let start = v1::StartJobRequest { tenant: name(), kind, ..Default::default() };
    site.refused(site.admin().start_job(start).await, STATE.0, STATE.1, ("job.start", "fail")).await;
    let outcome = {
        let request = v1::ResumeTenantRequest { name: name(), ..Default::default() };
        site.admin().resume_tenant(request).await
    };
    site.refused(outcome, STATE.0, STATE.1, ("tenant.resume", "fail")).await;
    let outcome = site.admin().destroy_tenant(request).await;
    site.refused(outcome, STATE.0, STATE.1, ("tenant.schedule", "fail")).await;

    site.world().clock.advance(7 * DAY - Duration::from_secs(1));
    site.world().sweep().await;
    let back = site.answered(site.admin().undestroy_tenant(undestroy(&site)).await, "tenant.cancel").await;
    let back = back.tenant.unwrap();
    assert!(is(&back, TenantState::Suspended) && back.destroy_time.is_none());
    let outcome = site.admin().undestroy_tenant(undestroy(&site)).await;
    site.refused(outcome, STATE.0, STATE.1, ("tenant.cancel", "fail")).await;
    refused(site.app().read_entry(read(&session, "key")).await, SUSPENDED.0, SUSPENDED.1);
    resume(&site).await;
    site.world().clock.advance(DAY);
    site.world().sweep().await;
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
}

#[tokio::test]
async fn when_the_grace_is_over_nothing_is_left_but_the_log() {
    let site = Site::inside().await;
    let mut sessions = Vec::new();
    for n in 0..3 {
        let session = site.create(long(&site)).await;
        site.put(&session, "key", &format!("value {n}")).await;
        site.app().append_events(append(&session, "stream", &["1", "2"])).await.unwrap();
        sessions.push(session);
    }
    let kind = v1::JobKind::Scrub.into();
    let start = v1::StartJobRequest { tenant: site.tenant.clone(), kind, ..Default::default() };
    answered(site.admin().start_job(start).await);
    let uid = tenant(&site).await.uid;
    suspend(&site).await;
    let request = v1::DestroyTenantRequest { expect_sessions: 3, grace: Some(span(DAY)), ..destroy(&site) };
    answered(site.admin().destroy_tenant(request).await);
    site.world().clock.advance(DAY + Duration::from_secs(1));
    site.world().sweep().await;

    refused(site.app().read_entry(read(&sessions[0], "key")).await, MISSING.0, MISSING.1);
    refused(site.admin().undestroy_tenant(undestroy(&site)).await, MISSING.0, MISSING.1);
    let id = strongroom::model::TenantId(uuid::Uuid::parse_str(&uid).unwrap().into_bytes());
    assert_eq!(rows_of(&site, &uid).await, [keys::tenant(id)], "the tombstone of the tenant alone");
    let listed = answered(site.admin().list_tenants(v1::ListTenantsRequest::default()).await).0.tenants;
    let [gone] = &listed[..] else { panic!("{listed:?}") };
    assert!(is(gone, TenantState::Destroyed) && gone.uid == uid && gone.destroy_time.is_some());
    assert_eq!((gone.name.as_str(), gone.primary_kek_version), ("demo", 0));
}

/// An old session and the tenant that takes the name, while the rows of the old one are still there.
async fn destroyed_and_made_again(site: &Site) -> (v1::SessionRef, String) {
    let named = v1::CreateSessionRequest { session_id: "same-name".to_owned(), ..long(site) };
    let session = site.create(named).await;
    site.put(&session, "key", "old").await;
    let uid = tenant(site).await.uid;
    suspend(site).await;
    let done = site.answered(site.admin().destroy_tenant(now(site, 1)).await, "tenant.destroy").await;
    assert!(done.sessions == 1 && is(&done.tenant.unwrap(), TenantState::Destroyed));
    let create = v1::CreateTenantRequest { name: site.tenant.clone(), ..Default::default() };
    answered(site.admin().create_tenant(create).await);
    (session, uid)
}

#[tokio::test]
async fn a_new_tenant_of_the_same_name_never_opens_old_rows() {
    for swept in [false, true] {
        let site = Site::inside().await;
        let (session, uid) = destroyed_and_made_again(&site).await;
        assert!(rows_of(&site, &uid).await.len() > 1, "the old rows are still there");
        if swept {
            site.world().sweep().await;
        }
        let new = tenant(&site).await;
        assert!(new.uid != uid && is(&new, TenantState::Active) && new.primary_kek_version == 1);
        let missing = (Code::NotFound, "SESSION_NOT_FOUND");
        refused(site.app().get_session(get(&session)).await, missing.0, missing.1);
        refused(site.app().read_entry(read(&session, "key")).await, missing.0, missing.1);
        refused(site.app().put_entry(put(&session, "key", "2")).await, missing.0, missing.1);
        // The handle is free, and what is kept under it now outlives what is reclaimed.
        let named = v1::CreateSessionRequest { session_id: session.session_id.clone(), ..long(&site) };
        assert_eq!(site.create(named).await, session);
        assert_eq!(site.put(&session, "key", "new").await, 1);
        site.world().sweep().await;
        let site = site.reopened().await;
        assert_eq!(site.look(&session, "key").await, Some((1, b"new".to_vec())));
        assert_eq!(rows_of(&site, &uid).await.len(), 1);
        let listed = answered(site.admin().list_tenants(v1::ListTenantsRequest::default()).await).0.tenants;
        let mut states: Vec<_> = listed.iter().map(|tenant| (tenant.state, tenant.name.as_str())).collect();
        states.sort_unstable();
        let [active, destroyed] = [TenantState::Active, TenantState::Destroyed].map(i32::from);
        assert_eq!(states, [(active, "demo"), (destroyed, "demo")]);
    }
}

#[tokio::test]
async fn the_old_rows_under_the_new_tenants_keys_are_damage_and_nothing_else() {
    let site = Site::inside().await;
    let (session, uid) = destroyed_and_made_again(&site).await;
    let new = tenant(&site).await.uid;
    let [old, new] = [uid, new].map(|uid| uuid::Uuid::parse_str(&uid).unwrap().into_bytes());
    let named = v1::CreateSessionRequest { session_id: session.session_id.clone(), ..long(&site) };
    site.create(named).await;
    let rows = site.world().rows().await;
    let session_row = |id: [u8; 16]| {
        let mine = |key: &Key| keys::is_session(key) && key.tenant() == Some(strongroom::model::TenantId(id));
        rows.iter().find(|(key, _)| mine(key)).unwrap().clone()
    };
    // Whoever can write the files puts the old row where the new tenant looks for it.
    let (place, old_row) = (session_row(new).0, session_row(old).1);
    site.world().tamper(&place, Some(old_row)).await;
    let outcome = site.app().read_entry(read(&session, "key")).await;
    refused(outcome, Code::DataLoss, "INTEGRITY_FAILURE");
}

#[tokio::test]
async fn the_log_of_a_destroyed_tenant_is_read_by_its_uid() {
    let site = Site::inside().await;
    let (_, uid) = destroyed_and_made_again(&site).await;
    site.world().sweep().await;
    let site = site.reopened().await;
    let by_uid = format!("uid:{uid}");
    let page = site.answered(site.admin().search_audit(search(&by_uid)).await, "aud.search").await;
    let lines: Vec<serde_json::Value> =
        page.events.iter().map(|event| serde_json::from_str(&event.line).unwrap()).collect();
    let typed = |typ: &str| lines.iter().filter(|line| line["typ"] == typ).collect::<Vec<_>>();
    assert_eq!((typed("ctx.put").len(), typed("tenant.suspend").len()), (1, 1));
    let [destroyed] = typed("tenant.destroy")[..] else { panic!("{lines:?}") };
    assert_eq!((&destroyed["out"], &destroyed["res"]["n"]), (&"ok".into(), &1.into()));
    assert_eq!(destroyed["pol"]["authz"], "keys-destroy");
    assert!(typed("tenant.reclaim").len() > 1);
    // By name it is another tenant's.
    let page = answered(site.admin().search_audit(search("demo")).await).0;
    assert!(page.events.iter().all(|event| !event.line.contains("tenant.destroy")));
    let tail = v1::TailAuditRequest { tenant: by_uid.clone(), backlog: 1, ..Default::default() };
    let (mut tail, _) = answered(site.admin().tail_audit(tail).await);
    assert_eq!(tail.message().await.unwrap().unwrap().events.len(), 1);

    // A name may have been several tenants': so a token for the name is not one for the uid.
    let secret = site.token(&[Scope::Audit], &["demo"]).await;
    let outcome = site.control(Some(&secret)).search_audit(search(&by_uid)).await;
    refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    site.invalid(site.admin().search_audit(search("uid:demo")).await, "tenant", "aud.search").await;
    let nobody = search("uid:00000000-0000-4000-8000-000000000000");
    refused(site.admin().search_audit(nobody).await, MISSING.0, MISSING.1);
}

#[tokio::test]
async fn a_tenant_in_use_is_destroyed_only_by_who_knows_what_dies() {
    let site = Site::inside().await;
    for _ in 0..3 {
        site.session().await;
    }
    suspend(&site).await;
    for expect_sessions in [0, 2, 4] {
        let request = v1::DestroyTenantRequest { expect_sessions, ..destroy(&site) };
        let outcome = site.admin().destroy_tenant(request).await;
        let refusal = (Code::FailedPrecondition, "TENANT_IN_USE", ("tenant.schedule", "fail"));
        let refusal = site.refused(outcome, refusal.0, refusal.1, refusal.2).await;
        assert_eq!(refusal.details, [("sessions".to_owned(), "3".to_owned())].into());
    }
    // A dry run counts, and is on record as that, whatever it is a rehearsal of.
    for (grace, would_be) in
        [(None, TenantState::DestroyScheduled), (Some(seconds(0)), TenantState::Destroyed)]
    {
        let request = v1::DestroyTenantRequest { dry_run: true, grace, ..destroy(&site) };
        let said = site.answered(site.admin().destroy_tenant(request).await, "tenant.census").await;
        assert!(said.sessions == 3 && is(&said.tenant.unwrap(), would_be));
        assert!(is(&tenant(&site).await, TenantState::Suspended), "a dry run changes nothing");
    }
    for grace in [DAY - Duration::from_millis(1), 91 * DAY] {
        let request = v1::DestroyTenantRequest { grace: Some(span(grace)), ..now(&site, 3) };
        site.invalid(site.admin().destroy_tenant(request).await, "grace", "tenant.schedule").await;
    }
    answered(site.admin().destroy_tenant(now(&site, 3)).await);
    refused(site.app().create_session(create(&site.tenant)).await, MISSING.0, MISSING.1);
}

#[tokio::test]
async fn what_is_scheduled_can_be_done_at_once() {
    let site = Site::inside().await;
    let wrapping = v1::GetWrappingKeyRequest { tenant: site.tenant.clone() };
    answered(site.admin().get_wrapping_key(wrapping.clone()).await);
    suspend(&site).await;
    answered(site.admin().destroy_tenant(destroy(&site)).await);
    refused(site.admin().get_wrapping_key(wrapping).await, Code::FailedPrecondition, "TENANT_STATE");
    answered(site.admin().destroy_tenant(now(&site, 0)).await);
    site.world().sweep().await;
    let rows = site.world().rows().await;
    let table = |wanted: Table| rows.iter().filter(|(key, _)| key.as_bytes()[0] == wanted as u8).count();
    assert_eq!((table(Table::TenantName), table(Table::Tenant), table(Table::Expiry)), (0, 1, 0));
    assert_eq!(table(Table::WrappingKey), 0);
    let status = answered(site.admin().get_status(v1::GetStatusRequest {}).await).0;
    assert_eq!(status.tenants, 0);
}

#[tokio::test]
async fn to_destroy_a_tenant_takes_every_right() {
    let site = Site::outside().await;
    suspend(&site).await;
    let all = [Scope::Tenants, Scope::KeysDestroy, Scope::KeysDestroyNow];
    for (without, missing) in [(0, "tenants"), (1, "keys-destroy"), (2, "keys-destroy-now")] {
        let rest: Vec<_> = all.into_iter().enumerate().filter(|(at, _)| *at != without).collect();
        let rest: Vec<_> = rest.into_iter().map(|(_, scope)| scope).collect();
        let some = site.token(&rest, &["*"]).await;
        let outcome = site.control(Some(&some)).destroy_tenant(now(&site, 0)).await;
        let denied = (Code::PermissionDenied, "PERMISSION_DENIED");
        let refusal = site.refused(outcome, denied.0, denied.1, ("authz.deny", "deny")).await;
        assert_eq!(refusal.details, [("scope".to_owned(), missing.to_owned())].into());
    }
    let one_tenant = site.token(&all, &[&site.tenant]).await;
    let outcome = site.control(Some(&one_tenant)).destroy_tenant(now(&site, 0)).await;
    refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let graceful = site.token(&all[..2], &["*"]).await;
    answered(site.control(Some(&graceful)).destroy_tenant(destroy(&site)).await);
    let everything = site.token(&all, &["*"]).await;
    answered(site.control(Some(&everything)).destroy_tenant(now(&site, 0)).await);
}

#[tokio::test]
async fn who_asks_again_for_a_destruction_that_is_done_gets_the_same_answer() {
    let site = Site::outside().await;
    suspend(&site).await;
    let request = v1::DestroyTenantRequest { request_id: new_id(), ..now(&site, 0) };
    let (first, _) = answered(site.admin().destroy_tenant(request.clone()).await);
    assert_eq!(answered(site.admin().destroy_tenant(request.clone()).await).0, first);
    let create = v1::CreateTenantRequest { name: site.tenant.clone(), ..Default::default() };
    answered(site.admin().create_tenant(create).await);
    assert_eq!(answered(site.admin().destroy_tenant(request).await).0, first);
    assert!(is(&tenant(&site).await, TenantState::Active), "the new tenant is another one");
}

/// With many rows a reclaim takes many steps; whenever the process ends, the next one goes on.
#[tokio::test]
async fn a_reclaim_goes_on_after_a_restart_between_any_two_of_its_steps() {
    let mut site = Site::inside().await;
    for _ in 0..3 {
        let session = site.create(long(&site)).await;
        for n in 0..30 {
            let names: Vec<_> = (0..20).map(|m| format!("{n}-{m}")).collect();
            let puts = names.iter().map(|name| crate::requests::new_put(name, "value"));
            let writes = puts.map(crate::requests::write_put).collect();
            site.app().write_batch(crate::requests::write_batch(&session, writes)).await.unwrap();
        }
    }
    let uid = tenant(&site).await.uid;
    suspend(&site).await;
    answered(site.admin().destroy_tenant(now(&site, 3)).await);
    let mut left = vec![rows_of(&site, &uid).await.len()];
    while left[left.len() - 1] > 1 && left.len() < 50 {
        site.world().sweeper.step().await.unwrap();
        left.push(rows_of(&site, &uid).await.len());
        site = site.reopened().await;
    }
    assert!(left.is_sorted_by(|one, next| one > next) && left.len() > 5, "{left:?}");
    assert!(left.windows(2).all(|step| step[0] - step[1] <= 501), "{left:?}");
}

#[tokio::test]
async fn what_is_written_while_a_tenant_is_suspended_or_destroyed_loses() {
    let site = Site::inside().await;
    let session = site.create(long(&site)).await;
    let outcomes = std::sync::Mutex::new(Vec::new());
    let told =
        |status: tonic::Status| outcomes.lock().unwrap().push(crate::support::Refusal::of(&status).reason);
    site.world()
        .together(suspend(&site), async {
            told(site.app().put_entry(put(&session, "key", "late")).await.unwrap_err());
        })
        .await;
    resume(&site).await;
    site.world()
        .together(suspend(&site), async {
            told(site.app().create_session(create(&site.tenant)).await.unwrap_err());
        })
        .await;
    resume(&site).await;
    site.world()
        .together(suspend(&site), async {
            told(site.app().append_events(append(&session, "stream", &["late"])).await.unwrap_err());
        })
        .await;
    // A tenant that is resumed while it is scheduled is one or the other.
    site.world()
        .together(async { drop(answered(site.admin().destroy_tenant(now(&site, 1)).await)) }, async {
            let request = v1::ResumeTenantRequest { name: site.tenant.clone(), ..Default::default() };
            told(site.admin().resume_tenant(request).await.unwrap_err());
        })
        .await;
    let reasons = outcomes.lock().unwrap().clone();
    assert_eq!(reasons, ["TENANT_SUSPENDED", "TENANT_SUSPENDED", "TENANT_SUSPENDED", "TENANT_NOT_FOUND"]);
    let rows = site.world().rows().await;
    let of_sessions = rows.iter().filter(|(key, _)| key.as_bytes()[0] == Table::Session as u8).count();
    assert_eq!(of_sessions, 1, "the session itself, and nothing that came late");
}

#[tokio::test]
async fn a_job_that_is_started_while_the_tenant_is_scheduled_loses() {
    let site = Site::inside().await;
    suspend(&site).await;
    site.world()
        .together(async { drop(answered(site.admin().destroy_tenant(destroy(&site)).await)) }, async {
            let kind = v1::JobKind::Scrub.into();
            let start = v1::StartJobRequest { tenant: site.tenant.clone(), kind, ..Default::default() };
            refused(site.admin().start_job(start).await, STATE.0, STATE.1);
        })
        .await;
    let rows = site.world().rows().await;
    assert!(rows.iter().all(|(key, _)| key.as_bytes()[0] != Table::Job as u8));
}

#[tokio::test]
async fn jobs_and_rotations_of_a_scheduled_tenant_rest_until_it_is_taken_back() {
    let site = Site::inside().await;
    site.create(long(&site)).await;
    let name = || site.tenant.clone();
    let kind = v1::JobKind::Scrub.into();
    let start = v1::StartJobRequest { tenant: name(), kind, ..Default::default() };
    answered(site.admin().start_job(start).await);
    let period = Some(span(DAY));
    let every = v1::SetKekRotationRequest { tenant: name(), period, ..Default::default() };
    answered(site.admin().set_kek_rotation(every).await);
    suspend(&site).await;
    let request = v1::DestroyTenantRequest { expect_sessions: 1, ..destroy(&site) };
    answered(site.admin().destroy_tenant(request).await);
    site.world().clock.advance(3 * DAY);
    site.world().sweep().await;
    site.world().work().await;
    let job = async || {
        let get = v1::GetJobRequest { tenant: name(), kind };
        answered(site.admin().get_job(get).await).0.job.unwrap().state()
    };
    assert!(job().await == v1::JobState::Running);
    assert_eq!(tenant(&site).await.primary_kek_version, 1);
    answered(site.admin().undestroy_tenant(undestroy(&site)).await);
    site.world().sweep().await;
    site.world().work().await;
    assert!(job().await == v1::JobState::Done);
    assert_eq!(tenant(&site).await.primary_kek_version, 2);
}
