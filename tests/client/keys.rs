//! The versions of a tenant's key, against a real server: what is disabled or destroyed is what it says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use strongroom::client::{
    Admin, AuditSearch, ClientError, CreateSession, Destroy, ErrorReason, KekState, KekUse, NewToken, Scope,
    SessionHandle, Tenant, TenantState, View,
};

use crate::support::{Daemon, Login};

/// A tenant of its own on a real server.
struct Site {
    daemon: Arc<Daemon>,
    admin: Admin,
    tenant: Tenant,
    name: &'static str,
}

impl Site {
    async fn new(name: &'static str) -> Self {
        let daemon = Daemon::shared().await;
        let sdk = daemon.sdk(Login::Admin);
        let admin = sdk.admin().unwrap();
        admin.create_tenant(name).await.unwrap();
        Self { daemon, admin, tenant: sdk.tenant(name).unwrap(), name }
    }

    /// A session with an entry.
    async fn session(&self) -> SessionHandle {
        let session = self.tenant.create_session(CreateSession::default()).await.unwrap().into_inner();
        session.put("key", "value").await.unwrap();
        session
    }

    async fn states(&self) -> Vec<KekState> {
        self.admin.keks(self.name).map_ok(|kek| kek.state).try_collect().await.unwrap()
    }

    async fn uses(&self) -> Vec<(u32, u64)> {
        let uses = self.admin.count_kek_use(self.name).await.unwrap().into_inner();
        uses.iter().map(|KekUse { version, sessions }| (*version, *sessions)).collect()
    }

    /// The control plane with a token of these scopes.
    async fn admin_with(&self, scopes: &[Scope]) -> Admin {
        let wanted = NewToken {
            name: format!("{}-{}", self.name, scopes.len()),
            scopes: scopes.to_vec(),
            tenants: vec![self.name.to_owned()],
            ttl: None,
        };
        let token = self.admin.create_token(wanted).await.unwrap().into_inner();
        let file = self.daemon.dir().join(&token.token.name);
        std::fs::write(&file, token.secret.as_str()).unwrap();
        self.daemon.sdk_builder(Login::Admin).token_file(file).build().unwrap().admin().unwrap()
    }
}

async fn look(session: &SessionHandle) -> Result<Vec<u8>, ErrorReason> {
    let found = session.read("key", View::Full).await;
    found.map(|entry| entry.value.to_vec()).map_err(|error| error.reason())
}

/// The reason of a refusal, with the detail that goes with it.
fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>, detail: &str) -> (ErrorReason, String) {
    let error = answer.unwrap_err();
    (error.reason(), error.detail(detail).unwrap_or_default().to_owned())
}

fn in_state(state: &str) -> (ErrorReason, String) {
    (ErrorReason::KeyState, state.to_owned())
}

#[tokio::test]
async fn a_disabled_version_refuses_what_it_wrapped_until_it_is_enabled() {
    let site = Site::new("disabled").await;
    let (admin, name) = (&site.admin, site.name);
    let old = site.session().await;
    let made = admin.prepare_kek(name).await.unwrap();
    assert_eq!((made.version, made.state, made.destroy_time), (2, KekState::Pending, None));
    assert_eq!(site.states().await, [KekState::Primary, KekState::Pending]);
    assert_eq!(admin.promote_kek(name, 2).await.unwrap().state, KekState::Primary);
    assert_eq!(site.states().await, [KekState::Enabled, KekState::Primary]);
    let new = site.session().await;
    assert_eq!(site.uses().await, [(1, 1), (2, 1)]);

    assert_eq!(admin.disable_kek(name, 1).await.unwrap().state, KekState::Disabled);
    assert_eq!(look(&old).await, Err(ErrorReason::KeyDisabled));
    assert_eq!(look(&new).await, Ok(b"value".to_vec()));
    assert_eq!(admin.kek(name, 1).await.unwrap().state, KekState::Disabled);
    assert_eq!(refusal(admin.promote_kek(name, 1).await, "state"), in_state("disabled"));

    assert_eq!(admin.enable_kek(name, 1).await.unwrap().state, KekState::Enabled);
    assert_eq!(look(&old).await, Ok(b"value".to_vec()));
    let rotated = admin.rotate_kek(name).await.unwrap();
    assert_eq!((rotated.version, rotated.state), (3, KekState::Primary));
    assert_eq!(site.states().await, [KekState::Enabled, KekState::Enabled, KekState::Primary]);
}

#[tokio::test]
async fn the_primary_is_neither_disabled_nor_destroyed() {
    let site = Site::new("primary").await;
    let (admin, name) = (&site.admin, site.name);
    let now = Destroy { grace: Some(Duration::ZERO), ..Destroy::default() };
    let dry = Destroy { dry_run: true, ..Destroy::default() };
    assert_eq!(refusal(admin.disable_kek(name, 1).await, "state"), in_state("primary"));
    for destroy in [Destroy::default(), now, dry] {
        let refused = admin.destroy_kek(name, 1, destroy).await;
        assert_eq!(refusal(refused, "state"), in_state("primary"), "{destroy:?}");
    }
    assert_eq!(site.states().await, [KekState::Primary]);
}

#[tokio::test]
async fn a_version_in_use_is_destroyed_only_with_the_exact_number_of_its_sessions() {
    let site = Site::new("in-use").await;
    let (admin, name) = (&site.admin, site.name);
    let sessions = [site.session().await, site.session().await];
    admin.rotate_kek(name).await.unwrap();
    for expect_sessions in [0, 1, 3] {
        let refused = admin.destroy_kek(name, 1, Destroy { expect_sessions, ..Destroy::default() }).await;
        assert_eq!(refusal(refused, "sessions"), (ErrorReason::KeyInUse, "2".to_owned()));
    }
    assert_eq!(site.states().await, [KekState::Enabled, KekState::Primary]);
    assert_eq!(look(&sessions[0]).await, Ok(b"value".to_vec()));

    let plan = admin.destroy_kek(name, 1, Destroy { dry_run: true, ..Destroy::default() }).await.unwrap();
    assert_eq!((plan.kek.state, plan.sessions), (KekState::DestroyScheduled, 2));
    assert_eq!(site.states().await, [KekState::Enabled, KekState::Primary]);

    let now = Destroy { grace: Some(Duration::ZERO), expect_sessions: 2, dry_run: false };
    let done = admin.destroy_kek(name, 1, now).await.unwrap();
    assert_eq!((done.kek.state, done.kek.destroy_time, done.sessions), (KekState::Destroyed, None, 2));
    for session in &sessions {
        assert_eq!(look(session).await, Err(ErrorReason::KeyDestroyed));
    }
    assert_eq!(refusal(admin.enable_kek(name, 1).await, "state"), in_state("destroyed"));
    assert!(site.uses().await.contains(&(2, 0)));
}

#[tokio::test]
async fn a_destruction_is_taken_back_within_its_grace() {
    let site = Site::new("grace").await;
    let (admin, name) = (&site.admin, site.name);
    let session = site.session().await;
    admin.rotate_kek(name).await.unwrap();
    assert_eq!(refusal(admin.cancel_kek_destruction(name, 1).await, "state"), in_state("enabled"));
    let day = Duration::from_secs(86_400);
    for (grace, span) in [(None, 7 * day), (Some(day), day), (Some(90 * day), 90 * day)] {
        let destroy = Destroy { grace, expect_sessions: 1, dry_run: false };
        let done = admin.destroy_kek(name, 1, destroy).await.unwrap();
        assert_eq!((done.kek.state, done.sessions), (KekState::DestroyScheduled, 1));
        let left = done.kek.destroy_time.unwrap().as_millis() - done.kek.state_time.as_millis();
        assert_eq!(u128::from(left), span.as_millis());
        assert_eq!(admin.kek(name, 1).await.unwrap().destroy_time, done.kek.destroy_time);
        assert_eq!(look(&session).await, Err(ErrorReason::KeyDisabled));
        let refused = admin.destroy_kek(name, 1, destroy).await;
        assert_eq!(refusal(refused, "state"), in_state("destroy-scheduled"));

        let kept = admin.cancel_kek_destruction(name, 1).await.unwrap();
        assert_eq!((kept.state, kept.destroy_time), (KekState::Disabled, None));
        assert_eq!(look(&session).await, Err(ErrorReason::KeyDisabled));
    }
    admin.enable_kek(name, 1).await.unwrap();
    assert_eq!(look(&session).await, Ok(b"value".to_vec()));
}

#[tokio::test]
async fn a_grace_outside_of_its_bounds_is_refused_and_a_tiny_one_is_not_none() {
    let site = Site::new("bounds").await;
    let (admin, name) = (&site.admin, site.name);
    admin.rotate_kek(name).await.unwrap();
    let day = Duration::from_secs(86_400);
    let millisecond = Duration::from_millis(1);
    for grace in [Duration::from_nanos(1), millisecond, day - millisecond, 90 * day + millisecond] {
        let destroy = Destroy { grace: Some(grace), ..Destroy::default() };
        let refused = admin.destroy_kek(name, 1, destroy).await;
        assert_eq!(refusal(refused, "").0, ErrorReason::InvalidField, "{grace:?}");
    }
    assert_eq!(site.states().await, [KekState::Enabled, KekState::Primary]);
}

#[tokio::test]
async fn a_version_or_tenant_that_does_not_exist_is_not_found() {
    let site = Site::new("missing").await;
    let admin = &site.admin;
    for (tenant, version, reason) in
        [(site.name, 2, ErrorReason::KeyNotFound), ("no-such-tenant", 1, ErrorReason::TenantNotFound)]
    {
        let refused = [
            refusal(admin.kek(tenant, version).await, ""),
            refusal(admin.promote_kek(tenant, version).await, ""),
            refusal(admin.enable_kek(tenant, version).await, ""),
            refusal(admin.disable_kek(tenant, version).await, ""),
            refusal(admin.destroy_kek(tenant, version, Destroy::default()).await, ""),
            refusal(admin.cancel_kek_destruction(tenant, version).await, ""),
        ];
        assert!(refused.iter().all(|(found, _)| *found == reason), "{refused:?}");
    }
    let unknown = admin.count_kek_use("no-such-tenant").await;
    assert_eq!(refusal(unknown, "").0, ErrorReason::TenantNotFound);
}

#[tokio::test]
async fn a_destruction_needs_scopes_of_its_own() {
    let site = Site::new("scopes").await;
    site.admin.rotate_kek(site.name).await.unwrap();
    let now = Destroy { grace: Some(Duration::ZERO), ..Destroy::default() };
    let keeper = site.admin_with(&[Scope::Keys]).await;
    let refused = keeper.destroy_kek(site.name, 1, Destroy::default()).await;
    assert_eq!(refusal(refused, "").0, ErrorReason::PermissionDenied);
    let destroyer = site.admin_with(&[Scope::Keys, Scope::KeysDestroy]).await;
    let refused = destroyer.destroy_kek(site.name, 1, now).await;
    assert_eq!(refusal(refused, "").0, ErrorReason::PermissionDenied);
    destroyer.destroy_kek(site.name, 1, Destroy::default()).await.unwrap();
    assert_eq!(site.states().await, [KekState::DestroyScheduled, KekState::Primary]);
    let at_once = site.admin_with(&[Scope::Keys, Scope::KeysDestroy, Scope::KeysDestroyNow]).await;
    at_once.destroy_kek(site.name, 1, now).await.unwrap();
    assert_eq!(site.states().await, [KekState::Destroyed, KekState::Primary]);
}

#[tokio::test]
async fn a_key_is_set_to_rotate_by_itself_and_not_to() {
    let site = Site::new("rotation").await;
    let day = Duration::from_secs(86_400);
    let set = site.admin.set_kek_rotation(site.name, Some(30 * day)).await.unwrap().into_inner();
    let rotation = set.rotation.unwrap();
    assert_eq!(rotation.period, 30 * day);
    assert!(rotation.next > set.create_time);
    let refused = site.admin.set_kek_rotation(site.name, Some(day / 2)).await;
    assert_eq!(refusal(refused, "").0, ErrorReason::InvalidField);
    let off = site.admin.set_kek_rotation(site.name, None).await.unwrap();
    assert_eq!(off.rotation, None);
}

#[tokio::test]
async fn a_suspended_tenant_is_destroyed_and_had_back_until_it_is_gone() {
    let site = Site::new("parting").await;
    let (admin, name) = (&site.admin, site.name);
    let session = site.session().await;
    let state = |state: &str| (ErrorReason::TenantState, state.to_owned());
    let with = Destroy { expect_sessions: 1, ..Destroy::default() };
    assert_eq!(refusal(admin.destroy_tenant(name, with).await, "state"), state("active"));
    assert_eq!(refusal(admin.undestroy_tenant(name).await, "state"), state("active"));
    admin.suspend_tenant(name).await.unwrap();
    let refused = refusal(admin.destroy_tenant(name, Destroy::default()).await, "sessions");
    assert_eq!(refused, (ErrorReason::TenantInUse, "1".to_owned()));
    let plan = admin.destroy_tenant(name, Destroy { dry_run: true, ..Destroy::default() }).await.unwrap();
    assert_eq!((plan.tenant.state, plan.sessions), (TenantState::DestroyScheduled, 1));

    let doomed = admin.destroy_tenant(name, with).await.unwrap().into_inner().tenant;
    assert!(doomed.state == TenantState::DestroyScheduled && doomed.destroy_time.is_some());
    assert_eq!(admin.describe_tenant(name).await.unwrap().into_inner(), doomed);
    assert_eq!(look(&session).await, Err(ErrorReason::TenantSuspended));
    assert_eq!(refusal(admin.rotate_kek(name).await, "state"), state("destroy-scheduled"));
    let back = admin.undestroy_tenant(name).await.unwrap();
    assert_eq!((back.state, back.destroy_time), (TenantState::Suspended, None));

    let now = Destroy { grace: Some(Duration::ZERO), ..with };
    let gone = admin.destroy_tenant(name, now).await.unwrap().into_inner().tenant;
    assert_eq!((gone.state, gone.primary_kek_version), (TenantState::Destroyed, 0));
    assert_eq!(look(&session).await, Err(ErrorReason::TenantNotFound));
    let listed: Vec<_> = admin.tenants().try_collect().await.unwrap();
    assert!(listed.contains(&gone));
    let search = AuditSearch { tenant: Some(format!("uid:{}", gone.uid)), ..AuditSearch::default() };
    let events: Vec<_> = admin.search_audit(search).try_collect().await.unwrap();
    assert!(events.iter().any(|event| event.line.contains("tenant.destroy")));
}
