//! CreateTenant, GetTenant, ListTenants, SuspendTenant, ResumeTenant.

use std::collections::BTreeSet;

use strongroom::proto::v1::{self, Scope, TenantState};
use tonic::Code;

use crate::requests::{
    append, create, delete_session, events, follow, get, new_id, put, read, search, watch,
};
use crate::site::Site;
use crate::support::{Refusal, answered, promptly, refused, soon};

fn named(name: &str) -> v1::CreateTenantRequest {
    v1::CreateTenantRequest { name: name.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_tenant_is_created_once_and_described() {
    let site = Site::outside().await;
    let name = format!("{}-new", site.tenant);
    let made = site.answered(site.admin().create_tenant(named(&name)).await, "tenant.create").await;
    let made = made.tenant.unwrap();
    assert_eq!((made.name.as_str(), made.primary_kek_version), (name.as_str(), 1));
    assert_eq!(made.state, i32::from(TenantState::Active));
    let hex = made.uid.replace('-', "");
    assert_eq!((made.uid.len(), made.audit_log.as_str()), (36, format!("sr1/{hex}/1").as_str()));
    assert!(made.create_time.is_some());
    let again = site.admin().create_tenant(named(&name)).await;
    site.refused(again, Code::AlreadyExists, "ALREADY_EXISTS", ("tenant.create", "fail")).await;
    let found = answered(site.admin().get_tenant(v1::GetTenantRequest { name }).await).0;
    assert_eq!(found.tenant, Some(made));

    for bad in ["", "-a", "a-", "A", "a.b", "a b", &"a".repeat(64)] {
        site.invalid(site.admin().create_tenant(named(bad)).await, "name", "tenant.create").await;
    }
    let bad_id = v1::CreateTenantRequest { request_id: "?".to_owned(), ..named("fine") };
    site.invalid(site.admin().create_tenant(bad_id).await, "request_id", "tenant.create").await;
}

#[tokio::test]
async fn unknown_tenants_are_not_found() {
    let site = Site::outside().await;
    let name = "no-such-tenant".to_owned();
    let missing = (Code::NotFound, "TENANT_NOT_FOUND");
    let outcome = site.admin().get_tenant(v1::GetTenantRequest { name: name.clone() }).await;
    site.refused(outcome, missing.0, missing.1, ("tenant.read", "deny")).await;
    let request = v1::SuspendTenantRequest { name: name.clone(), ..Default::default() };
    let outcome = site.admin().suspend_tenant(request).await;
    site.refused(outcome, missing.0, missing.1, ("tenant.suspend", "deny")).await;
    let request = v1::ResumeTenantRequest { name: name.clone(), ..Default::default() };
    let outcome = site.admin().resume_tenant(request).await;
    site.refused(outcome, missing.0, missing.1, ("tenant.resume", "deny")).await;
    let request = v1::ListKeksRequest { tenant: name.clone(), ..Default::default() };
    site.refused(site.admin().list_keks(request).await, missing.0, missing.1, ("key.list", "deny")).await;
    let request = v1::RotateKekRequest { tenant: name.clone(), ..Default::default() };
    site.refused(site.admin().rotate_kek(request).await, missing.0, missing.1, ("key.rotate", "deny")).await;
    let outcome = site.admin().search_audit(search(&name)).await;
    site.refused(outcome, missing.0, missing.1, ("aud.search", "deny")).await;
    let request = v1::TailAuditRequest { tenant: name.clone(), ..Default::default() };
    site.refused(site.admin().tail_audit(request).await, missing.0, missing.1, ("aud.tail", "deny")).await;
    let outcome = site.root().create_session(create(&name)).await;
    site.refused(outcome, missing.0, missing.1, ("ses.create", "deny")).await;
    for bad in ["", "Bad", "a/b"] {
        let outcome = site.root().create_session(create(bad)).await;
        refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
    }
}

#[tokio::test]
async fn list_tenants_shows_all_in_pages() {
    let site = Site::inside().await;
    let mut names = BTreeSet::from(["demo".to_owned()]);
    for n in 0..11 {
        let name = format!("more-{n}");
        answered(site.admin().create_tenant(named(&name)).await);
        names.insert(name);
    }
    let mut found = Vec::new();
    let mut request = v1::ListTenantsRequest { page_size: 5, ..Default::default() };
    loop {
        let page = site.answered(site.admin().list_tenants(request.clone()).await, "tenant.list").await;
        assert!(page.tenants.len() <= 5);
        found.extend(page.tenants.into_iter().map(|tenant| tenant.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found.len(), names.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
}

#[tokio::test]
async fn a_suspended_tenants_data_is_refused_until_it_is_resumed() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    site.app().append_events(append(&session, "stream", &["1"])).await.unwrap();
    let (mut following, _) = answered(site.app().read_events(follow(&session, "stream")).await);
    soon(following.message()).await.unwrap().unwrap();
    let (mut watching, _) = answered(site.app().watch_session(watch(&session)).await);
    soon(watching.message()).await.unwrap().unwrap();

    let gone = site.session().await;
    let deleted = v1::DeleteSessionRequest { request_id: new_id(), ..delete_session(&gone) };
    site.answered(site.app().delete_session(deleted.clone()).await, "ses.delete").await;

    let request = v1::SuspendTenantRequest { name: site.tenant.clone(), ..Default::default() };
    for _ in 0..2 {
        let outcome = site.admin().suspend_tenant(request.clone()).await;
        let now = site.answered(outcome, "tenant.suspend").await.tenant.unwrap();
        assert_eq!(now.state, i32::from(TenantState::Suspended));
    }
    let (code, reason) = (Code::FailedPrecondition, "TENANT_SUSPENDED");
    let outcome = site.app().create_session(create(&site.tenant)).await;
    site.refused(outcome, code, reason, ("ses.create", "fail")).await;
    site.refused(site.app().get_session(get(&session)).await, code, reason, ("ses.read", "fail")).await;
    site.refused(site.app().read_entry(read(&session, "key")).await, code, reason, ("ctx.read", "fail"))
        .await;
    site.refused(site.app().put_entry(put(&session, "key", "2")).await, code, reason, ("ctx.put", "fail"))
        .await;
    let outcome = site.app().list_sessions(crate::requests::list_sessions(&site.tenant)).await;
    site.refused(outcome, code, reason, ("ses.list", "fail")).await;
    let outcome = site.app().read_events(events(&session, "stream")).await;
    site.refused(outcome, code, reason, ("evt.read", "fail")).await;
    // Not even what was done before is told again.
    site.refused(site.app().delete_session(deleted).await, code, reason, ("ses.delete", "fail")).await;
    // Streams that were open end with their next look.
    for end in
        [promptly(following.message()).await.map(|_| ()), promptly(watching.message()).await.map(|_| ())]
    {
        assert_eq!(Refusal::of(&end.unwrap_err()).reason, reason);
    }
    // Its keys and its log are not its data.
    let rotate = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
    site.answered(site.admin().rotate_kek(rotate).await, "key.rotate").await;
    site.answered(site.admin().search_audit(search(&site.tenant)).await, "aud.search").await;

    let request = v1::ResumeTenantRequest { name: site.tenant.clone(), ..Default::default() };
    let now = site.answered(site.admin().resume_tenant(request).await, "tenant.resume").await.tenant.unwrap();
    assert_eq!(now.state, i32::from(TenantState::Active));
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
}

#[tokio::test]
async fn managing_tenants_needs_all_tenants() {
    let site = Site::outside().await;
    let secret = site.token(&[Scope::Tenants], &[&site.tenant]).await;
    let mut admin = site.control(Some(&secret));
    let denied = (Code::PermissionDenied, "PERMISSION_DENIED");
    let name = || site.tenant.clone();
    let suspend = v1::SuspendTenantRequest { name: name(), ..Default::default() };
    refused(admin.suspend_tenant(suspend).await, denied.0, denied.1);
    let resume = v1::ResumeTenantRequest { name: name(), ..Default::default() };
    refused(admin.resume_tenant(resume).await, denied.0, denied.1);
    refused(admin.get_tenant(v1::GetTenantRequest { name: name() }).await, denied.0, denied.1);
    refused(admin.list_tenants(v1::ListTenantsRequest::default()).await, denied.0, denied.1);
    refused(admin.create_tenant(named("another")).await, denied.0, denied.1);
    site.session().await;
}
