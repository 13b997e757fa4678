//! Which scope each call needs: every call with every scope.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use strongroom::proto::v1::{self, Scope};
use tonic::{Code, Response, Status};

use crate::requests::{
    append, consume, create, delete, delete_session, events, get, list, list_sessions, new_put, purge, put,
    read, read_batch, recovery_key, search, update, watch, write_batch, write_put,
};
use crate::site::Site;
use crate::support::{Context, Control, Refusal};

const SCOPES: [(Scope, &str); 14] = [
    (Scope::Read, "read"),
    (Scope::ReadFull, "read-full"),
    (Scope::Write, "write"),
    (Scope::Purge, "purge"),
    (Scope::Keys, "keys"),
    (Scope::Audit, "audit"),
    (Scope::Tenants, "tenants"),
    (Scope::Tokens, "tokens"),
    (Scope::Status, "status"),
    (Scope::KeysDestroy, "keys-destroy"),
    (Scope::KeysDestroyNow, "keys-destroy-now"),
    (Scope::Root, "root"),
    (Scope::KeysImport, "keys-import"),
    (Scope::KeysExport, "keys-export"),
];

/// Calls that fail for another reason than a permission were permitted.
fn denial<T>(outcome: Result<Response<T>, Status>) -> Option<Refusal> {
    let refusal = Refusal::of(&outcome.err()?);
    (refusal.code == Code::PermissionDenied).then_some(refusal)
}

type Data = fn(Context, v1::SessionRef) -> BoxFuture<'static, Option<Refusal>>;
type Admin = fn(Control, String) -> BoxFuture<'static, Option<Refusal>>;

macro_rules! data {
    ($call:ident, $request:expr) => {
        |mut client, at| {
            Box::pin(async move {
                let request: fn(&v1::SessionRef) -> _ = $request;
                denial(client.$call(request(&at)).await)
            })
        }
    };
}

macro_rules! admin {
    ($call:ident, $request:expr) => {
        |mut client, tenant| {
            Box::pin(async move {
                let request: fn(String) -> _ = $request;
                denial(client.$call(request(tenant)).await)
            })
        }
    };
}

fn full() -> i32 {
    v1::View::Full.into()
}

/// Every call of the data plane, and the scopes that it needs.
const DATA: &[(&str, &[&str], Data)] = &[
    ("CreateSession", &["write"], data!(create_session, |at| create(&at.tenant))),
    ("GetSession", &["read"], data!(get_session, get)),
    ("UpdateSession", &["write"], data!(update_session, update)),
    ("ListSessions", &["write"], data!(list_sessions, |at| list_sessions(&at.tenant))),
    ("DeleteSession", &["write"], data!(delete_session, delete_session)),
    ("PurgeSensitive", &["purge"], data!(purge_sensitive, purge)),
    ("PutEntry", &["write"], data!(put_entry, |at| put(at, "k", "v"))),
    ("ReadEntry", &["read"], data!(read_entry, |at| read(at, "k"))),
    (
        "ReadEntry, full",
        &["read-full"],
        data!(read_entry, |at| v1::ReadEntryRequest { view: full(), ..read(at, "k") }),
    ),
    ("DeleteEntry", &["write"], data!(delete_entry, |at| delete(at, "k"))),
    ("consume", &["write", "read"], data!(delete_entry, |at| consume(at, "k"))),
    (
        "consume, full",
        &["write", "read-full"],
        data!(delete_entry, |at| v1::DeleteEntryRequest { view: full(), ..consume(at, "k") }),
    ),
    ("ListEntries", &["read"], data!(list_entries, list)),
    ("ReadBatch", &["read"], data!(read_batch, |at| read_batch(at, &["k"]))),
    (
        "ReadBatch, full",
        &["read-full"],
        data!(read_batch, |at| v1::ReadBatchRequest { view: full(), ..read_batch(at, &["k"]) }),
    ),
    ("WriteBatch", &["write"], data!(write_batch, |at| write_batch(at, vec![write_put(new_put("k", ""))]))),
    ("AppendEvents", &["write"], data!(append_events, |at| append(at, "s", &["x"]))),
    ("ReadEvents", &["read"], data!(read_events, |at| events(at, "s"))),
    (
        "ReadEvents, full",
        &["read-full"],
        data!(read_events, |at| v1::ReadEventsRequest { view: full(), ..events(at, "s") }),
    ),
    ("WatchSession", &["read"], data!(watch_session, watch)),
];

/// Every call of the control plane, and the scope that it needs for all tenants or, where this says so, for one.
const ADMIN: &[(&str, &str, bool, Admin)] = &[
    ("CreateTenant", "tenants", false, admin!(create_tenant, |_| v1::CreateTenantRequest::default())),
    ("GetTenant", "tenants", false, admin!(get_tenant, |name| v1::GetTenantRequest { name })),
    ("ListTenants", "tenants", false, admin!(list_tenants, |_| v1::ListTenantsRequest::default())),
    (
        "SuspendTenant",
        "tenants",
        false,
        admin!(suspend_tenant, |_| v1::SuspendTenantRequest {
            name: "nobody".to_owned(),
            ..Default::default()
        }),
    ),
    (
        "ResumeTenant",
        "tenants",
        false,
        admin!(resume_tenant, |name| v1::ResumeTenantRequest { name, ..Default::default() }),
    ),
    ("DestroyTenant", "tenants", false, admin!(destroy_tenant, |_| v1::DestroyTenantRequest::default())),
    (
        "UndestroyTenant",
        "tenants",
        false,
        admin!(undestroy_tenant, |name| v1::UndestroyTenantRequest { name, ..Default::default() }),
    ),
    (
        "ListKeks",
        "keys",
        true,
        admin!(list_keks, |tenant| v1::ListKeksRequest { tenant, ..Default::default() }),
    ),
    (
        "RotateKek",
        "keys",
        true,
        admin!(rotate_kek, |tenant| v1::RotateKekRequest { tenant, ..Default::default() }),
    ),
    ("GetKek", "keys", true, admin!(get_kek, |tenant| v1::GetKekRequest { tenant, version: 1 })),
    (
        "SetKekRotation",
        "keys",
        true,
        admin!(set_kek_rotation, |tenant| v1::SetKekRotationRequest { tenant, ..Default::default() }),
    ),
    (
        "PromoteKek",
        "keys",
        true,
        admin!(promote_kek, |tenant| v1::PromoteKekRequest { tenant, ..Default::default() }),
    ),
    (
        "EnableKek",
        "keys",
        true,
        admin!(enable_kek, |tenant| v1::EnableKekRequest { tenant, ..Default::default() }),
    ),
    (
        "DisableKek",
        "keys",
        true,
        admin!(disable_kek, |tenant| v1::DisableKekRequest { tenant, ..Default::default() }),
    ),
    ("CountKekUse", "keys", true, admin!(count_kek_use, |tenant| v1::CountKekUseRequest { tenant })),
    (
        "DestroyKek",
        "keys-destroy",
        true,
        admin!(destroy_kek, |tenant| v1::DestroyKekRequest { tenant, ..Default::default() }),
    ),
    (
        "CancelKekDestruction",
        "keys",
        true,
        admin!(cancel_kek_destruction, |tenant| v1::CancelKekDestructionRequest {
            tenant,
            ..Default::default()
        }),
    ),
    (
        "RotateSessionKey",
        "keys",
        true,
        admin!(rotate_session_key, |tenant| v1::RotateSessionKeyRequest { tenant, ..Default::default() }),
    ),
    (
        "GetWrappingKey",
        "keys-import",
        true,
        admin!(get_wrapping_key, |tenant| v1::GetWrappingKeyRequest { tenant }),
    ),
    (
        "ImportKek",
        "keys-import",
        true,
        admin!(import_kek, |tenant| v1::ImportKekRequest { tenant, ..Default::default() }),
    ),
    (
        "ExportKek",
        "keys-export",
        true,
        admin!(export_kek, |tenant| v1::ExportKekRequest { tenant, version: 1, ..Default::default() }),
    ),
    (
        "StartJob",
        "keys",
        true,
        admin!(start_job, |tenant| v1::StartJobRequest { tenant, ..Default::default() }),
    ),
    ("GetJob", "keys", true, admin!(get_job, |tenant| v1::GetJobRequest { tenant, kind: 1 })),
    ("ListJobs", "keys", true, admin!(list_jobs, |tenant| v1::ListJobsRequest { tenant })),
    ("CancelJob", "keys", true, admin!(cancel_job, |tenant| v1::CancelJobRequest { tenant, kind: 1 })),
    ("GetRoot", "root", false, admin!(get_root, |_| v1::GetRootRequest {})),
    ("VerifyRoot", "root", false, admin!(verify_root, |_| v1::VerifyRootRequest {})),
    (
        "RotateRoot",
        "root",
        false,
        admin!(rotate_root, |_| v1::RotateRootRequest { dry_run: true, ..Default::default() }),
    ),
    (
        "AddRootRecipient",
        "root",
        false,
        admin!(add_root_recipient, |_| v1::AddRootRecipientRequest {
            public_key: recovery_key(),
            ..Default::default()
        }),
    ),
    (
        "RemoveRootRecipient",
        "root",
        false,
        admin!(remove_root_recipient, |_| v1::RemoveRootRecipientRequest {
            key_id: "nobody's".to_owned(),
            ..Default::default()
        }),
    ),
    ("MigrateRoot", "root", false, admin!(migrate_root, |_| v1::MigrateRootRequest::default())),
    ("CreateToken", "tokens", false, admin!(create_token, |_| v1::CreateTokenRequest::default())),
    ("ListTokens", "tokens", false, admin!(list_tokens, |_| v1::ListTokensRequest::default())),
    ("RevokeToken", "tokens", false, admin!(revoke_token, |_| v1::RevokeTokenRequest::default())),
    ("SearchAudit", "audit", true, admin!(search_audit, |tenant| search(&tenant))),
    ("SearchAudit of the server", "audit", false, admin!(search_audit, |_| search(""))),
    (
        "GetCheckpoint",
        "audit",
        true,
        admin!(get_checkpoint, |tenant| v1::GetCheckpointRequest { tenant, ..Default::default() }),
    ),
    ("GetProof", "audit", true, admin!(get_proof, |tenant| v1::GetProofRequest { tenant, sequence: 0 })),
    ("ExportAudit", "audit", true, admin!(export_audit, |tenant| v1::ExportAuditRequest { tenant })),
    (
        "TailAudit",
        "audit",
        true,
        admin!(tail_audit, |tenant| v1::TailAuditRequest { tenant, ..Default::default() }),
    ),
    ("GetStatus", "status", false, admin!(get_status, |_| v1::GetStatusRequest {})),
];

#[tokio::test]
async fn every_call_of_the_data_plane_needs_its_scopes_and_no_other() {
    let site = Site::inside().await;
    let mut clients = BTreeMap::new();
    for (scope, name) in SCOPES {
        clients.insert(name, site.client(&[scope]).await);
    }
    let session = site.session().await;
    for (call, needed, make) in DATA {
        for (name, client) in &clients {
            let found = make(client.clone(), session.clone()).await;
            if needed.len() == 1 && needed[0] == *name {
                assert_eq!(found, None, "{call} with {name}");
                continue;
            }
            let found = found.unwrap_or_else(|| panic!("{call} with {name}"));
            let missing = needed.iter().find(|needed| *needed != name).unwrap();
            match *missing {
                "read-full" => assert_eq!(found.reason, "VIEW_NOT_PERMITTED", "{call} with {name}"),
                missing => {
                    assert_eq!(found.reason, "PERMISSION_DENIED", "{call} with {name}");
                    assert_eq!(found.details, [("scope".to_owned(), missing.to_owned())].into());
                }
            }
            let place = found.stamp.unwrap();
            let event = site.recorded(&place, "authz.deny", "deny", Some(&found.reason)).await;
            assert_eq!(event["pol"]["authz"], *missing);
        }
    }
    // With the scopes together, what needs two of them is permitted.
    let mut both = site.client(&[Scope::Write, Scope::Read]).await;
    assert_eq!(denial(both.delete_entry(consume(&session, "k")).await), None);
}

#[tokio::test]
async fn every_call_of_the_control_plane_needs_its_scope_and_no_other() {
    let site = Site::inside().await;
    for (scope, name) in SCOPES {
        for tenants in ["*", "demo"] {
            let secret = site.token(&[scope], &[tenants]).await;
            for (call, needed, one_will_do, make) in ADMIN {
                let found = make(site.control(Some(&secret)), "demo".to_owned()).await;
                let permitted = name == *needed && (tenants == "*" || *one_will_do);
                assert_eq!(found.is_none(), permitted, "{call} with {name} for {tenants}: {found:?}");
                if let Some(found) = found {
                    assert_eq!(found.details, [("scope".to_owned(), (*needed).to_owned())].into(), "{call}");
                    assert!(found.stamp.is_some());
                }
            }
        }
    }
}

#[tokio::test]
async fn who_may_read_may_not_see_the_full_view() {
    let site = Site::outside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let request = v1::ReadEntryRequest { view: full(), ..read(&session, "key") };
    let outcome = site.reader().read_entry(request).await;
    let denied = (Code::PermissionDenied, "VIEW_NOT_PERMITTED");
    site.refused(outcome, denied.0, denied.1, ("authz.deny", "deny")).await;
    site.answered(site.reader().read_entry(read(&session, "key")).await, "ctx.read").await;
}
