//! Key material that its owner brings, and keys that go to one.

use std::time::Duration;

use strongroom::crypto::{
    Secret, WrappedKey, WrappingPrivateKey, WrappingPublicKey, export_info, import_info,
};
use strongroom::env::SystemEntropy;
use strongroom::model::{KekVersion, StoreId, TenantId, TenantRef};
use strongroom::proto::v1::{self, KekState, Scope};
use strongroom::store::Table;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::requests::{new_id, read};
use crate::site::Site;
use crate::support::{Inside, Refusal, answered, refused, stamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
const NO_WRAPPING_KEY: (Code, &str) = (Code::NotFound, "WRAPPING_KEY_NOT_FOUND");
const NOT_EXPORTABLE: (Code, &str) = (Code::FailedPrecondition, "KEY_NOT_EXPORTABLE");

fn material() -> Secret {
    Secret::generate(&SystemEntropy::new()).unwrap()
}

fn recipient() -> WrappingPrivateKey {
    WrappingPrivateKey::generate(&SystemEntropy::new()).unwrap()
}

async fn wrapping_key_of(site: &Site, tenant: &str) -> v1::WrappingKey {
    let request = v1::GetWrappingKeyRequest { tenant: tenant.to_owned() };
    answered(site.admin().get_wrapping_key(request).await).0.wrapping_key.unwrap()
}

async fn wrapping_key(site: &Site) -> v1::WrappingKey {
    wrapping_key_of(site, &site.tenant).await
}

fn public(key: &v1::WrappingKey) -> WrappingPublicKey {
    WrappingPublicKey(key.public_key[..].try_into().unwrap())
}

fn wrap(key: &v1::WrappingKey, material: &Secret) -> WrappedKey {
    public(key).wrap_now(key.info.as_bytes(), material).unwrap()
}

fn import(site: &Site, key: &v1::WrappingKey, wrapped: &[u8]) -> v1::ImportKekRequest {
    v1::ImportKekRequest {
        tenant: site.tenant.clone(),
        wrapping_key_uid: key.uid.clone(),
        wrapped: wrapped.to_vec().into(),
        ..Default::default()
    }
}

async fn imported(site: &Site, material: &Secret) -> Result<Response<v1::ImportKekResponse>, Status> {
    let key = wrapping_key(site).await;
    site.admin().import_kek(import(site, &key, &wrap(&key, material).0)).await
}

fn export(site: &Site, version: u32, to: &WrappingPrivateKey) -> v1::ExportKekRequest {
    let recipient_public_key = to.public().0.to_vec().into();
    v1::ExportKekRequest { tenant: site.tenant.clone(), version, recipient_public_key }
}

async fn kek(site: &Site, version: u32) -> v1::Kek {
    let get = v1::GetKekRequest { tenant: site.tenant.clone(), version };
    answered(site.admin().get_kek(get).await).0.kek.unwrap()
}

const PRIMARY_IMPORTED: (&str, &str) = ("KEK_STATE_PRIMARY", "KEK_ORIGIN_IMPORTED");

/// The names of a version's state and origin.
fn named(kek: &v1::Kek) -> (&'static str, &'static str) {
    (kek.state().as_str_name(), kek.origin().as_str_name())
}

/// A site whose tenant is exportable.
async fn exportable() -> Site {
    let mut site = Site::inside().await;
    site.tenant = "open".to_owned();
    let create =
        v1::CreateTenantRequest { name: site.tenant.clone(), exportable: true, ..Default::default() };
    assert!(answered(site.admin().create_tenant(create).await).0.tenant.unwrap().exportable);
    site
}

async fn rows_in(site: &Site, tables: &[Table]) -> usize {
    let is_wanted = |first: u8| tables.iter().any(|table| *table as u8 == first);
    site.world().rows().await.iter().filter(|(key, _)| is_wanted(key.as_bytes()[0])).count()
}

#[tokio::test]
async fn imported_material_is_a_version_like_any_other_and_the_old_one_can_go() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let outcome = imported(&site, &material()).await;
    let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let made = site.answered(outcome, "key.import").await.kek.unwrap();
    assert_eq!(site.event(&place).await["kid"]["kek"], 2);
    assert_eq!((made.version, named(&made)), (2, PRIMARY_IMPORTED));
    assert_eq!(named(&kek(&site, 1).await), ("KEK_STATE_ENABLED", "KEK_ORIGIN_GENERATED"));

    let kind = v1::JobKind::Rewrap.into();
    let rewrap = v1::StartJobRequest { tenant: site.tenant.clone(), kind, ..Default::default() };
    answered(site.admin().start_job(rewrap).await);
    site.world().work().await;
    let destroy = v1::DestroyKekRequest {
        tenant: site.tenant.clone(),
        version: 1,
        grace: Some(crate::requests::seconds(0)),
        ..Default::default()
    };
    assert_eq!(answered(site.admin().destroy_kek(destroy).await).0.sessions, 0);
    let site = site.reopened().await;
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
    assert_eq!(named(&kek(&site, 2).await), PRIMARY_IMPORTED);
}

#[tokio::test]
async fn the_version_is_the_material_that_was_imported() {
    let site = exportable().await;
    let (material, to) = (material(), recipient());
    answered(imported(&site, &material).await);
    let out = answered(site.admin().export_kek(export(&site, 2, &to)).await).0;
    let unwrapped = to.unwrap(out.info.as_bytes(), &out.wrapped).unwrap();
    assert!(unwrapped.equals(&material));
}

#[tokio::test]
async fn a_pending_import_wraps_nothing_until_it_is_promoted() {
    let site = Site::inside().await;
    let key = wrapping_key(&site).await;
    let request = v1::ImportKekRequest { pending: true, ..import(&site, &key, &wrap(&key, &material()).0) };
    let made = answered(site.admin().import_kek(request).await).0.kek.unwrap();
    assert_eq!((made.version, named(&made)), (2, ("KEK_STATE_PENDING", "KEK_ORIGIN_IMPORTED")));
    let promote = v1::PromoteKekRequest { tenant: site.tenant.clone(), version: 2, ..Default::default() };
    let promoted = answered(site.admin().promote_kek(promote).await).0.kek.unwrap();
    assert_eq!(named(&promoted), PRIMARY_IMPORTED);
}

#[tokio::test]
async fn a_wrapping_key_is_for_one_import() {
    let site = Site::inside().await;
    let key = wrapping_key(&site).await;
    let first =
        v1::ImportKekRequest { request_id: new_id(), ..import(&site, &key, &wrap(&key, &material()).0) };
    let (made, _) = answered(site.admin().import_kek(first.clone()).await);
    assert_eq!(rows_in(&site, &[Table::WrappingKey, Table::Expiry]).await, 0, "it went with the import");
    // The same request is answered again; another one finds nothing.
    assert_eq!(answered(site.admin().import_kek(first).await).0, made);
    let second = import(&site, &key, &wrap(&key, &material()).0);
    let outcome = site.admin().import_kek(second).await;
    site.refused(outcome, NO_WRAPPING_KEY.0, NO_WRAPPING_KEY.1, ("key.import", "fail")).await;
}

#[tokio::test]
async fn of_concurrent_imports_with_one_wrapping_key_one_is_done() {
    let site = Site::inside().await;
    let key = wrapping_key(&site).await;
    let imports = (0..8).map(|_| {
        let (mut admin, request) = (site.admin(), import(&site, &key, &wrap(&key, &material()).0));
        async move { admin.import_kek(request).await.is_ok() }
    });
    let done = crate::support::soon(futures_util::future::join_all(imports)).await;
    assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    let get = v1::GetTenantRequest { name: site.tenant.clone() };
    assert_eq!(answered(site.admin().get_tenant(get).await).0.tenant.unwrap().primary_kek_version, 2);
}

#[tokio::test]
async fn a_wrapping_key_ends_after_three_days_and_is_swept() {
    let site = Site::inside().await;
    let (early, late) = (wrapping_key(&site).await, wrapping_key(&site).await);
    let begun = site.world().service.now();
    let end = early.expire_time.unwrap();
    assert_eq!(end.seconds, i64::try_from(begun.after(3 * DAY).as_secs()).unwrap());
    site.world().clock.advance(3 * DAY - Duration::from_millis(1));
    answered(site.admin().import_kek(import(&site, &early, &wrap(&early, &material()).0)).await);
    site.world().sweep().await;
    assert_eq!(rows_in(&site, &[Table::WrappingKey]).await, 1);
    site.world().clock.advance(Duration::from_millis(1));
    let outcome = site.admin().import_kek(import(&site, &late, &wrap(&late, &material()).0)).await;
    site.refused(outcome, NO_WRAPPING_KEY.0, NO_WRAPPING_KEY.1, ("key.import", "fail")).await;
    site.world().sweep().await;
    assert_eq!(rows_in(&site, &[Table::WrappingKey, Table::Expiry]).await, 0);
}

#[tokio::test]
async fn wrapping_keys_are_bounded_and_make_room_when_they_end() {
    let site = Site::inside().await;
    let request = || v1::GetWrappingKeyRequest { tenant: site.tenant.clone() };
    let mut uids = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let made = site.answered(site.admin().get_wrapping_key(request()).await, "key.wrapping").await;
        uids.insert(made.wrapping_key.unwrap().uid);
    }
    assert_eq!(uids.len(), 16);
    let outcome = site.admin().get_wrapping_key(request()).await;
    let refusal =
        site.refused(outcome, Code::ResourceExhausted, "QUOTA_EXCEEDED", ("key.wrapping", "fail")).await;
    assert_eq!(refusal.details, [("limit".to_owned(), "16".to_owned())].into());
    site.world().clock.advance(3 * DAY + Duration::from_secs(1));
    site.world().sweep().await;
    wrapping_key(&site).await;
}

/// What is bound, of another store, tenant or wrapping key.
fn infos_of_others(key: &v1::WrappingKey) -> [String; 4] {
    let id = Uuid::parse_str(&key.uid).unwrap().into_bytes();
    let [store, tenant] = ["store=", "tenant="].map(|name| {
        let hex = &key.info.split_once(name).unwrap().1[..32];
        <[u8; 16]>::try_from(data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap()
    });
    let tenant_ref = |id, incarnation| TenantRef { id: TenantId(id), incarnation };
    let info = |store, tenant, key| import_info(StoreId(store), tenant, &key);
    assert_eq!(info(store, tenant_ref(tenant, 1), id), key.info, "the others differ in what they say");
    [
        info([7; 16], tenant_ref(tenant, 1), id),
        info(store, tenant_ref([7; 16], 1), id),
        info(store, tenant_ref(tenant, 2), id),
        info(store, tenant_ref(tenant, 1), [7; 16]),
    ]
}

#[tokio::test]
async fn what_was_wrapped_for_something_else_or_was_altered_does_not_open_and_changes_nothing() {
    let site = Site::inside().await;
    let key = wrapping_key(&site).await;
    let before = rows_in(&site, &[Table::Tenant, Table::WrappingKey, Table::Expiry]).await;
    let good = wrap(&key, &material()).0;
    let mut wrong: Vec<Vec<u8>> = infos_of_others(&key)
        .iter()
        .map(|info| public(&key).wrap_now(info.as_bytes(), &material()).unwrap().0.to_vec())
        .collect();
    for at in [0, 31, 32, 63, 64, 79] {
        let mut flipped = good.to_vec();
        flipped[at] ^= 1;
        wrong.push(flipped);
    }
    wrong.extend([[[0; 32].as_slice(), &good[32..]].concat(), vec![0; 80]]);
    let size = [&good[..79], &good[..32], &[]].map(<[u8]>::to_vec);
    wrong.extend(size.into_iter().chain([[good.as_slice(), &[0]].concat()]));
    for wrapped in wrong {
        let outcome = site.admin().import_kek(import(&site, &key, &wrapped)).await;
        let refusal = site.invalid(outcome, "wrapped", "key.import").await;
        assert!(!refusal.text.contains(&data_encoding::HEXLOWER.encode(&wrapped)) || wrapped.is_empty());
    }
    let nameless = v1::ImportKekRequest { wrapping_key_uid: "?".to_owned(), ..import(&site, &key, &good) };
    let outcome = site.admin().import_kek(nameless).await;
    site.invalid(outcome, "wrapping_key_uid", "key.import").await;
    assert_eq!(rows_in(&site, &[Table::Tenant, Table::WrappingKey, Table::Expiry]).await, before);
    // It is still there for what was wrapped for it.
    answered(site.admin().import_kek(import(&site, &key, &good)).await);
}

#[tokio::test]
async fn another_tenants_wrapping_key_is_none() {
    let site = Site::inside().await;
    let create = v1::CreateTenantRequest { name: "other".to_owned(), ..Default::default() };
    answered(site.admin().create_tenant(create).await);
    let theirs = wrapping_key_of(&site, "other").await;
    let outcome = site.admin().import_kek(import(&site, &theirs, &wrap(&theirs, &material()).0)).await;
    site.refused(outcome, NO_WRAPPING_KEY.0, NO_WRAPPING_KEY.1, ("key.import", "fail")).await;
}

#[tokio::test]
async fn material_that_is_no_key_is_refused() {
    let site = Site::inside().await;
    for byte in [0, 0x61, 0xff] {
        let outcome = imported(&site, &Secret::from_slice(&[byte; 32]).unwrap()).await;
        let refusal = site.invalid(outcome, "wrapped", "key.import").await;
        assert!(refusal.text.contains("all of its bytes are the same"), "{}", refusal.text);
    }
}

#[tokio::test]
async fn material_that_is_a_version_already_is_refused_until_that_is_destroyed_and_brings_nothing_back() {
    let site = Site::inside().await;
    let material = material();
    answered(imported(&site, &material).await);
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let outcome = imported(&site, &material).await;
    site.refused(outcome, Code::AlreadyExists, "ALREADY_EXISTS", ("key.import", "fail")).await;

    let rotate = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
    answered(site.admin().rotate_kek(rotate).await);
    let destroy = v1::DestroyKekRequest {
        tenant: site.tenant.clone(),
        version: 2,
        grace: Some(crate::requests::seconds(0)),
        expect_sessions: 1,
        ..Default::default()
    };
    answered(site.admin().destroy_kek(destroy).await);
    let again = answered(imported(&site, &material).await).0.kek.unwrap();
    assert_eq!(again.version, 4);
    let outcome = site.app().read_entry(read(&session, "key")).await;
    site.refused(outcome, Code::FailedPrecondition, "KEY_DESTROYED", ("ctx.read", "fail")).await;
}

#[tokio::test]
async fn an_export_opens_for_its_recipient_alone_and_is_marked_and_on_record_before_and_after() {
    let site = exportable().await;
    let (to, other) = (recipient(), recipient());
    let now = site.world().service.now();
    let outcome = site.admin().export_kek(export(&site, 1, &to)).await;
    let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
    let out = outcome.unwrap().into_inner();
    let exported = out.kek.unwrap();
    assert_eq!(exported.export_time.unwrap().seconds, i64::try_from(now.as_secs()).unwrap());
    to.unwrap(out.info.as_bytes(), &out.wrapped).unwrap();
    assert!(other.unwrap(out.info.as_bytes(), &out.wrapped).is_err());
    assert!(to.unwrap(b"", &out.wrapped).is_err());

    let events = site.events_since(place.sequence - 1).await;
    let digest = ring::digest::digest(&ring::digest::SHA256, &to.public().0);
    let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
    for (event, phase) in events.iter().zip([Some("intent"), None]) {
        assert_eq!((event["typ"].as_str(), event["ph"].as_str()), (Some("key.export"), phase), "{event}");
        assert_eq!((&event["kid"]["kek"], &event["pol"]["authz"]), (&1.into(), &"keys-export".into()));
        assert_eq!(event["ch"].as_str(), Some(&*digest), "{event}");
    }
    // A later export leaves the mark as it is.
    site.world().clock.advance(DAY);
    let later = answered(site.admin().export_kek(export(&site, 1, &other)).await).0.kek.unwrap();
    assert_eq!(later.export_time, exported.export_time);
    let tenant = site.tenant.clone();
    let mut site = site.reopened().await;
    site.tenant = tenant;
    assert_eq!(kek(&site, 1).await.export_time, exported.export_time);
}

#[tokio::test]
async fn where_it_takes_two_people_so_do_imports_and_exports_each_for_exactly_what_was_asked_for() {
    let mut site = Site::within(Inside::open_with_approvals(DAY).await);
    site.tenant = "open".to_owned();
    let create =
        v1::CreateTenantRequest { name: site.tenant.clone(), exportable: true, ..Default::default() };
    answered(site.admin().create_tenant(create).await);
    let other = site.token(&[Scope::KeysImport, Scope::KeysExport], &["open"]).await;
    let (one, another) = (recipient(), recipient());
    let key = wrapping_key(&site).await;
    let import = import(&site, &key, &wrap(&key, &material()).0);
    let pending = v1::ImportKekRequest { pending: true, ..import.clone() };

    let to = data_encoding::HEXLOWER.encode(&one.public().0);
    let said = format!("export version 1 of the tenant's key, wrapped for the X25519 public key {to}");
    approve(&site, &other, site.admin().export_kek(export(&site, 1, &one)).await, &said).await;
    required(site.admin().export_kek(export(&site, 1, &another)).await);
    let out = answered(site.admin().export_kek(export(&site, 1, &one)).await).0;
    one.unwrap(out.info.as_bytes(), &out.wrapped).unwrap();
    required(site.admin().export_kek(export(&site, 1, &one)).await);

    let digest = ring::digest::digest(&ring::digest::SHA256, &import.wrapped);
    let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
    let said = format!(
        "make the primary version of the tenant's key of imported material, SHA-256 of the wrapped bytes {digest}"
    );
    approve(&site, &other, site.admin().import_kek(import.clone()).await, &said).await;
    required(site.admin().import_kek(pending).await);
    let made = answered(site.admin().import_kek(import).await).0.kek.unwrap();
    assert_eq!((made.version, named(&made)), (2, PRIMARY_IMPORTED));
}

/// The refusal for want of an approval.
#[track_caller]
fn required<T>(outcome: Result<Response<T>, Status>) -> Refusal {
    refused(outcome, Code::FailedPrecondition, "APPROVAL_REQUIRED")
}

/// Approves what was asked for, as somebody else who reads `said`.
async fn approve<T>(site: &Site, other: &str, outcome: Result<Response<T>, Status>, said: &str) {
    let asked = required(outcome).details;
    assert_eq!(asked["description"], said);
    let approval_id = asked["approval_id"].clone();
    answered(site.approving(Some(other)).approve(v1::ApproveRequest { approval_id }).await);
}

#[tokio::test]
async fn an_export_that_loses_against_a_destruction_gives_nothing_out() {
    let site = exportable().await;
    let rotate = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
    answered(site.admin().rotate_kek(rotate).await);
    let destroy = v1::DestroyKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    let (mut first, mut second) = (site.admin(), site.admin());
    // The second has read the tenant's row, and said what it intends, when the first changes it.
    let destroying = async {
        answered(first.destroy_kek(destroy).await);
    };
    let exporting = async {
        let outcome = second.export_kek(export(&site, 1, &recipient())).await;
        refused(outcome, Code::FailedPrecondition, "KEY_STATE");
    };
    site.world().together(destroying, exporting).await;
    assert_eq!(kek(&site, 1).await.export_time, None);
}

#[tokio::test]
async fn an_import_and_a_rotation_at_the_same_time_each_make_a_version() {
    let site = Site::inside().await;
    let key = wrapping_key(&site).await;
    let request = import(&site, &key, &wrap(&key, &material()).0);
    let rotate = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
    let (mut first, mut second) = (site.admin(), site.admin());
    let rotating = async {
        assert_eq!(answered(first.rotate_kek(rotate).await).0.kek.unwrap().version, 2);
    };
    let importing = async {
        assert_eq!(answered(second.import_kek(request).await).0.kek.unwrap().version, 3);
    };
    site.world().together(rotating, importing).await;
    assert_eq!(named(&kek(&site, 2).await), ("KEK_STATE_ENABLED", "KEK_ORIGIN_GENERATED"));
    assert_eq!(named(&kek(&site, 3).await), PRIMARY_IMPORTED);
}

#[tokio::test]
async fn a_tenant_that_was_not_created_exportable_lets_no_key_out() {
    let site = Site::inside().await;
    answered(imported(&site, &material()).await);
    for version in [1, 2, 3] {
        let outcome = site.admin().export_kek(export(&site, version, &recipient())).await;
        site.refused(outcome, NOT_EXPORTABLE.0, NOT_EXPORTABLE.1, ("key.export", "fail")).await;
    }
    assert_eq!(kek(&site, 1).await.export_time, None);
    let get = v1::GetTenantRequest { name: site.tenant.clone() };
    assert!(!answered(site.admin().get_tenant(get).await).0.tenant.unwrap().exportable);
}

#[tokio::test]
async fn versions_that_are_refused_for_use_or_gone_are_not_exported_and_neither_is_one_for_everybody() {
    let site = exportable().await;
    for pending in [false, true] {
        let rotate = v1::RotateKekRequest { tenant: site.tenant.clone(), pending, ..Default::default() };
        answered(site.admin().rotate_kek(rotate).await);
    }
    answered(site.admin().export_kek(export(&site, 3, &recipient())).await);
    let low_order =
        v1::ExportKekRequest { recipient_public_key: vec![0; 32].into(), ..export(&site, 2, &recipient()) };
    let short = v1::ExportKekRequest { recipient_public_key: vec![9; 31].into(), ..low_order.clone() };
    for request in [low_order, short] {
        let outcome = site.admin().export_kek(request).await;
        site.invalid(outcome, "recipient_public_key", "key.export").await;
    }
    let unknown = site.admin().export_kek(export(&site, 9, &recipient())).await;
    site.refused(unknown, Code::NotFound, "KEY_NOT_FOUND", ("key.export", "fail")).await;

    let disable = v1::DisableKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    answered(site.admin().disable_kek(disable).await);
    let now = Some(crate::requests::seconds(0));
    let destroy = v1::DestroyKekRequest { tenant: site.tenant.clone(), version: 1, ..Default::default() };
    for grace in [None, None, now] {
        let outcome = site.admin().export_kek(export(&site, 1, &recipient())).await;
        site.refused(outcome, Code::FailedPrecondition, "KEY_STATE", ("key.export", "fail")).await;
        // Scheduled, still scheduled, then destroyed.
        let request = v1::DestroyKekRequest { grace, ..destroy.clone() };
        let done = site.admin().destroy_kek(request).await;
        assert!(done.is_ok() || kek(&site, 1).await.state() == KekState::DestroyScheduled);
    }
    assert_eq!(named(&kek(&site, 1).await).0, "KEK_STATE_DESTROYED");
    let outcome = site.admin().export_kek(export(&site, 1, &recipient())).await;
    site.refused(outcome, Code::FailedPrecondition, "KEY_STATE", ("key.export", "fail")).await;
    assert_eq!(kek(&site, 2).await.export_time, None, "no refusal left a mark");
}

#[tokio::test]
async fn who_may_change_keys_may_neither_import_nor_export_them() {
    let site = exportable().await;
    let denied = (Code::PermissionDenied, "PERMISSION_DENIED");
    let keys = [Scope::Keys, Scope::KeysDestroy, Scope::KeysDestroyNow, Scope::Tenants];
    let mut keeper = site.control(Some(&site.token(&keys, &["*"]).await));
    refused(keeper.export_kek(export(&site, 1, &recipient())).await, denied.0, denied.1);
    let request = v1::GetWrappingKeyRequest { tenant: site.tenant.clone() };
    refused(keeper.get_wrapping_key(request.clone()).await, denied.0, denied.1);
    let mut importer = site.control(Some(&site.token(&[Scope::KeysImport], &["open"]).await));
    answered(importer.get_wrapping_key(request).await);
    refused(importer.export_kek(export(&site, 1, &recipient())).await, denied.0, denied.1);
}

#[tokio::test]
async fn a_wrapping_key_whose_row_was_altered_is_damage_and_imports_nothing() {
    let site = Site::inside().await;
    let (one, two) = (wrapping_key(&site).await, wrapping_key(&site).await);
    let rows = site.world().rows().await;
    let stored = rows.iter().filter(|(key, _)| key.as_bytes()[0] == Table::WrappingKey as u8);
    let [(first, _), (second, second_row)] = stored.collect::<Vec<_>>()[..] else { panic!("two are stored") };
    // The row of one in the place of the other.
    site.world().tamper(first, Some(second_row.clone())).await;
    let moved =
        if first.within_tenant() == Uuid::parse_str(&one.uid).unwrap().as_bytes() { &one } else { &two };
    assert_ne!(first, second);
    let outcome = site.admin().import_kek(import(&site, moved, &wrap(moved, &material()).0)).await;
    site.refused(outcome, Code::DataLoss, "INTEGRITY_FAILURE", ("key.import", "fail")).await;
}

#[test]
fn what_is_bound_to_an_export_is_not_what_is_bound_to_an_import() {
    let (store, tenant) = (StoreId([1; 16]), TenantRef { id: TenantId([2; 16]), incarnation: 1 });
    let (key, material) = (recipient(), material());
    let exported = export_info(store, tenant, KekVersion(1));
    let wrapped = key.public().wrap_now(exported.as_bytes(), &material).unwrap();
    assert!(key.unwrap(import_info(store, tenant, &[3; 16]).as_bytes(), &wrapped.0).is_err());
    assert!(key.secret().expose() != material.expose());
}
