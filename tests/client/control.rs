//! The control plane's calls, against a service that answers them from a list of events and otherwise from thin air.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use strongroom::client::{
    Admin, AuditSearch, AuditTail, ClientError, Destroy, ErrorReason, JobKind, JobState, JobWatch, KekState,
    KekUse, NewToken, Retries, Scope, TenantState, Timestamp,
};
use strongroom::proto::v1;
use strongroom::proto::v1::admin_service_server::AdminService;
use tokio::sync::Notify;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::fake::Fake;

/// A fake control plane.
#[derive(Clone, Default)]
pub struct Control(Arc<Known>);

/// What it knows.
#[derive(Default)]
struct Known {
    events: Mutex<Vec<v1::AuditEvent>>,
    written: Notify,
    broken: Notify,
    created: Mutex<Vec<v1::CreateTokenRequest>>,
    destroyed: Mutex<Vec<v1::DestroyKekRequest>>,
    started: Mutex<Vec<v1::StartJobRequest>>,
    /// What a look at a job brings, one after the other.
    looks: Mutex<VecDeque<Result<v1::Job, Status>>>,
}

const WHEN: Option<prost_types::Timestamp> =
    Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 });

fn tenant(name: &str, state: v1::TenantState) -> Option<v1::Tenant> {
    let mut tenant = v1::Tenant {
        name: name.to_owned(),
        create_time: WHEN,
        primary_kek_version: 1,
        ..v1::Tenant::default()
    };
    tenant.set_state(state);
    Some(tenant)
}

fn kek(version: u32, state: v1::KekState) -> v1::Kek {
    let mut kek = v1::Kek { version, create_time: WHEN, state_time: WHEN, ..v1::Kek::default() };
    kek.set_origin(v1::KekOrigin::Generated);
    kek.set_state(state);
    kek
}

fn token(name: String, scopes: Vec<i32>, revoked: bool) -> v1::Token {
    v1::Token { name, scopes, tenants: vec!["demo".into()], create_time: WHEN, expire_time: WHEN, revoked }
}

fn job(state: v1::JobState, seen: u64) -> v1::Job {
    let mut job = v1::Job {
        uid: "uid".into(),
        create_time: WHEN,
        update_time: WHEN,
        sessions_total: 9,
        sessions_seen: seen,
        before: vec![v1::KekUse { version: 1, sessions: 9 }],
        ..v1::Job::default()
    };
    job.set_kind(v1::JobKind::Scrub);
    job.set_state(state);
    job
}

impl Control {
    fn looks(&self, looks: impl IntoIterator<Item = Result<v1::Job, Status>>) {
        self.0.looks.lock().unwrap().extend(looks);
    }

    fn write(&self, sequences: std::ops::Range<u64>) {
        let line = |sequence| v1::AuditEvent {
            log: "log".into(),
            sequence,
            line: format!("{{\"seq\":{sequence}}}"),
        };
        self.0.events.lock().unwrap().extend(sequences.map(line));
        self.0.written.notify_waiters();
    }
}

#[tonic::async_trait]
impl AdminService for Control {
    type TailAuditStream = ReceiverStream<Result<v1::TailAuditResponse, Status>>;
    type ExportAuditStream = ReceiverStream<Result<v1::ExportAuditResponse, Status>>;

    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::CreateTenantResponse>, Status> {
        let tenant = tenant(&request.get_ref().name, v1::TenantState::Active);
        Ok(Response::new(v1::CreateTenantResponse { tenant }))
    }

    async fn get_tenant(
        &self,
        _: Request<v1::GetTenantRequest>,
    ) -> Result<Response<v1::GetTenantResponse>, Status> {
        Ok(Response::new(v1::GetTenantResponse { tenant: tenant("demo", v1::TenantState::Unspecified) }))
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let (name, next) = if request.get_ref().page_token.is_empty() { ("one", "2") } else { ("two", "") };
        let tenants = tenant(name, v1::TenantState::Active).into_iter().collect();
        Ok(Response::new(v1::ListTenantsResponse { tenants, next_page_token: next.to_owned() }))
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Result<Response<v1::SuspendTenantResponse>, Status> {
        let tenant = tenant(&request.get_ref().name, v1::TenantState::Suspended);
        Ok(Response::new(v1::SuspendTenantResponse { tenant }))
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Result<Response<v1::ResumeTenantResponse>, Status> {
        let tenant = tenant(&request.get_ref().name, v1::TenantState::Active);
        Ok(Response::new(v1::ResumeTenantResponse { tenant }))
    }

    async fn destroy_tenant(
        &self,
        _: Request<v1::DestroyTenantRequest>,
    ) -> Result<Response<v1::DestroyTenantResponse>, Status> {
        // It is to be destroyed, and nothing says when.
        let tenant = tenant("demo", v1::TenantState::DestroyScheduled);
        Ok(Response::new(v1::DestroyTenantResponse { tenant, sessions: 1 }))
    }

    async fn undestroy_tenant(
        &self,
        _: Request<v1::UndestroyTenantRequest>,
    ) -> Result<Response<v1::UndestroyTenantResponse>, Status> {
        // What was scheduled once has no time any more.
        let tenant = tenant("demo", v1::TenantState::Suspended);
        let tenant = tenant.map(|tenant| v1::Tenant { destroy_time: WHEN, ..tenant });
        Ok(Response::new(v1::UndestroyTenantResponse { tenant }))
    }

    async fn set_kek_rotation(
        &self,
        _: Request<v1::SetKekRotationRequest>,
    ) -> Result<Response<v1::SetKekRotationResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn rotate_session_key(
        &self,
        _: Request<v1::RotateSessionKeyRequest>,
    ) -> Result<Response<v1::RotateSessionKeyResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn list_keks(
        &self,
        _: Request<v1::ListKeksRequest>,
    ) -> Result<Response<v1::ListKeksResponse>, Status> {
        let keks = vec![kek(1, v1::KekState::Enabled), kek(2, v1::KekState::Primary)];
        Ok(Response::new(v1::ListKeksResponse { keks, next_page_token: String::new() }))
    }

    async fn rotate_kek(
        &self,
        _: Request<v1::RotateKekRequest>,
    ) -> Result<Response<v1::RotateKekResponse>, Status> {
        Ok(Response::new(v1::RotateKekResponse { kek: Some(kek(3, v1::KekState::Primary)) }))
    }

    async fn get_kek(
        &self,
        request: Request<v1::GetKekRequest>,
    ) -> Result<Response<v1::GetKekResponse>, Status> {
        let kek = kek(request.get_ref().version, v1::KekState::DestroyScheduled);
        Ok(Response::new(v1::GetKekResponse { kek: Some(kek), receipt: String::new() }))
    }

    async fn promote_kek(
        &self,
        request: Request<v1::PromoteKekRequest>,
    ) -> Result<Response<v1::PromoteKekResponse>, Status> {
        let kek = kek(request.get_ref().version, v1::KekState::Primary);
        Ok(Response::new(v1::PromoteKekResponse { kek: Some(kek) }))
    }

    async fn enable_kek(
        &self,
        _: Request<v1::EnableKekRequest>,
    ) -> Result<Response<v1::EnableKekResponse>, Status> {
        Ok(Response::new(v1::EnableKekResponse { kek: None }))
    }

    async fn disable_kek(
        &self,
        request: Request<v1::DisableKekRequest>,
    ) -> Result<Response<v1::DisableKekResponse>, Status> {
        let kek = kek(request.get_ref().version, v1::KekState::Unspecified);
        Ok(Response::new(v1::DisableKekResponse { kek: Some(kek) }))
    }

    async fn count_kek_use(
        &self,
        _: Request<v1::CountKekUseRequest>,
    ) -> Result<Response<v1::CountKekUseResponse>, Status> {
        let uses = vec![v1::KekUse { version: 2, sessions: 3 }];
        Ok(Response::new(v1::CountKekUseResponse { uses }))
    }

    async fn destroy_kek(
        &self,
        request: Request<v1::DestroyKekRequest>,
    ) -> Result<Response<v1::DestroyKekResponse>, Status> {
        let request = request.into_inner();
        let mut kek = kek(request.version, v1::KekState::DestroyScheduled);
        kek.destroy_time = WHEN;
        self.0.destroyed.lock().unwrap().push(request);
        Ok(Response::new(v1::DestroyKekResponse { kek: Some(kek), sessions: 4 }))
    }

    async fn cancel_kek_destruction(
        &self,
        request: Request<v1::CancelKekDestructionRequest>,
    ) -> Result<Response<v1::CancelKekDestructionResponse>, Status> {
        // What was scheduled once has no time any more.
        let mut kek = kek(request.get_ref().version, v1::KekState::Disabled);
        kek.destroy_time = WHEN;
        Ok(Response::new(v1::CancelKekDestructionResponse { kek: Some(kek) }))
    }

    async fn get_wrapping_key(
        &self,
        _: Request<v1::GetWrappingKeyRequest>,
    ) -> Result<Response<v1::GetWrappingKeyResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn import_kek(
        &self,
        _: Request<v1::ImportKekRequest>,
    ) -> Result<Response<v1::ImportKekResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn export_kek(
        &self,
        _: Request<v1::ExportKekRequest>,
    ) -> Result<Response<v1::ExportKekResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn start_job(
        &self,
        request: Request<v1::StartJobRequest>,
    ) -> Result<Response<v1::StartJobResponse>, Status> {
        self.0.started.lock().unwrap().push(request.into_inner());
        Ok(Response::new(v1::StartJobResponse { job: Some(job(v1::JobState::Running, 0)) }))
    }

    async fn get_job(&self, _: Request<v1::GetJobRequest>) -> Result<Response<v1::GetJobResponse>, Status> {
        let look = self.0.looks.lock().unwrap().pop_front();
        let job = look.unwrap_or_else(|| Err(Status::unavailable("nothing more")))?;
        Ok(Response::new(v1::GetJobResponse { job: Some(job) }))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let rewrap = v1::Job {
            kind: v1::JobKind::Rewrap.into(),
            end_time: WHEN,
            rate: 7,
            ..job(v1::JobState::Cancelled, 3)
        };
        Ok(Response::new(v1::ListJobsResponse { jobs: vec![rewrap, job(v1::JobState::Running, 0)] }))
    }

    async fn cancel_job(
        &self,
        _: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        Ok(Response::new(v1::CancelJobResponse { job: None }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let request = request.into_inner();
        self.0.created.lock().unwrap().push(request.clone());
        let token = Some(token(request.name, request.scopes, false));
        Ok(Response::new(v1::CreateTokenResponse { token, secret: "srt_shown-once".into() }))
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let tokens =
            vec![token("app".into(), (1..=11).collect(), false), token("old".into(), vec![77], false)];
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token: String::new() }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let token = Some(token(request.into_inner().name, vec![1], true));
        Ok(Response::new(v1::RevokeTokenResponse { token }))
    }

    async fn search_audit(
        &self,
        request: Request<v1::SearchAuditRequest>,
    ) -> Result<Response<v1::SearchAuditResponse>, Status> {
        let start: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let all = self.0.events.lock().unwrap();
        let events: Vec<_> = all.iter().skip(start).take(2).cloned().collect();
        let next = if start + 2 < all.len() { (start + 2).to_string() } else { String::new() };
        Ok(Response::new(v1::SearchAuditResponse { events, next_page_token: next }))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let v1::GetCheckpointRequest { tenant, since_size } = request.into_inner();
        // A hash of another length is none.
        let consistency_proof = vec![vec![1; if since_size == 9 { 31 } else { 32 }].into()];
        let (checkpoint, verifier_key) = (format!("{tenant} {since_size}"), "key".to_owned());
        Ok(Response::new(v1::GetCheckpointResponse { checkpoint, verifier_key, consistency_proof }))
    }

    async fn get_proof(
        &self,
        request: Request<v1::GetProofRequest>,
    ) -> Result<Response<v1::GetProofResponse>, Status> {
        let v1::GetProofRequest { tenant, sequence } = request.into_inner();
        let (proof, line) = (format!("{tenant} {sequence}"), "{}".to_owned());
        Ok(Response::new(v1::GetProofResponse { proof, line, verifier_key: "key".to_owned() }))
    }

    async fn export_audit(
        &self,
        request: Request<v1::ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        let (out, stream) = tokio::sync::mpsc::channel(4);
        let (checkpoint, verifier_key) = (request.into_inner().tenant, "key".to_owned());
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let first = v1::ExportAuditResponse { checkpoint, verifier_key, lines: lines(&["0", "1"]) };
        let second = v1::ExportAuditResponse { lines: lines(&["2"]), ..Default::default() };
        for message in [Ok(first), Ok(second), Err(Status::unavailable("shutting down"))] {
            out.send(message).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn tail_audit(
        &self,
        request: Request<v1::TailAuditRequest>,
    ) -> Result<Response<Self::TailAuditStream>, Status> {
        let request = request.into_inner();
        let (out, stream) = tokio::sync::mpsc::channel(4);
        let control = Arc::clone(&self.0);
        let mut next = control.events.lock().unwrap().len().saturating_sub(request.backlog as usize);
        tokio::spawn(async move {
            loop {
                let written = control.written.notified();
                let events: Vec<_> = control.events.lock().unwrap().iter().skip(next).cloned().collect();
                next += events.len();
                if !events.is_empty() && out.send(Ok(v1::TailAuditResponse { events })).await.is_err() {
                    return;
                }
                if !request.follow {
                    return;
                }
                tokio::select! {
                    () = written => {}
                    () = control.broken.notified() => {
                        drop(out.send(Err(Status::unavailable("shutting down"))).await);
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let sweeper_lag = Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
        let status = v1::GetStatusResponse {
            start_time: WHEN,
            sweeper_lag,
            tenants: 3,
            ..v1::GetStatusResponse::default()
        };
        Ok(Response::new(status))
    }

    async fn get_root(
        &self,
        _: Request<v1::GetRootRequest>,
    ) -> Result<Response<v1::GetRootResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn verify_root(
        &self,
        _: Request<v1::VerifyRootRequest>,
    ) -> Result<Response<v1::VerifyRootResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn rotate_root(
        &self,
        _: Request<v1::RotateRootRequest>,
    ) -> Result<Response<v1::RotateRootResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn add_root_recipient(
        &self,
        _: Request<v1::AddRootRecipientRequest>,
    ) -> Result<Response<v1::AddRootRecipientResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn remove_root_recipient(
        &self,
        _: Request<v1::RemoveRootRecipientRequest>,
    ) -> Result<Response<v1::RemoveRootRecipientResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn migrate_root(
        &self,
        _: Request<v1::MigrateRootRequest>,
    ) -> Result<Response<v1::MigrateRootResponse>, Status> {
        Err(Status::unimplemented("is tried on a real server"))
    }
}

fn admin(fake: &Fake) -> Admin {
    fake.builder().admin_endpoint(fake.endpoint()).build().unwrap().admin().unwrap()
}

#[tokio::test]
async fn tenants_and_keys_are_read_with_their_states() {
    let fake = Fake::start().await;
    let admin = admin(&fake);
    assert_eq!(admin.create_tenant("new").await.unwrap().state, TenantState::Active);
    assert_eq!(admin.suspend_tenant("new").await.unwrap().state, TenantState::Suspended);
    assert_eq!(admin.resume_tenant("new").await.unwrap().name, "new");
    let names: Vec<_> = admin.tenants().map_ok(|tenant| tenant.name).try_collect().await.unwrap();
    assert_eq!(names, ["one", "two"]);
    let states: Vec<_> = admin.keks("new").map_ok(|kek| kek.state).try_collect().await.unwrap();
    assert_eq!(states, [KekState::Enabled, KekState::Primary]);
    let rotated = admin.rotate_kek("new").await.unwrap();
    assert_eq!((rotated.version, rotated.create_time), (3, Timestamp::from_millis(1_790_000_000_000)));
    assert_eq!(admin.status().await.unwrap().sweeper_lag, Duration::from_millis(1500));
}

#[tokio::test]
async fn a_destruction_goes_out_as_it_was_asked_for() {
    let fake = Fake::start().await;
    let destroy = Destroy { grace: Some(Duration::from_secs(86_400)), expect_sessions: 4, dry_run: true };
    let done = admin(&fake).destroy_kek("demo", 7, destroy).await.unwrap();
    assert_eq!((done.kek.version, done.sessions), (7, 4));
    assert_eq!(done.kek.destroy_time, Some(Timestamp::from_millis(1_790_000_000_000)));
    admin(&fake).destroy_kek("demo", 7, Destroy::default()).await.unwrap();
    let sent = fake.control.0.destroyed.lock().unwrap().clone();
    let asked =
        |at: usize| (sent[at].grace.map(|grace| grace.seconds), sent[at].expect_sessions, sent[at].dry_run);
    assert_eq!((asked(0), asked(1)), ((Some(86_400), 4, true), (None, 0, false)));
    assert_eq!((sent[0].tenant.as_str(), sent[0].version), ("demo", 7));
    assert!(sent[0].request_id.len() == 36 && sent[0].request_id != sent[1].request_id);
}

#[tokio::test]
async fn a_version_that_makes_no_sense_is_malformed() {
    let fake = Fake::start().await;
    let admin = admin(&fake);
    let what = |error| if let ClientError::Malformed { what } = error { what } else { panic!("{error}") };
    assert_eq!(what(admin.kek("demo", 1).await.unwrap_err()), "time", "scheduled, but not for when");
    assert_eq!(what(admin.enable_kek("demo", 1).await.unwrap_err()), "key");
    assert_eq!(what(admin.disable_kek("demo", 1).await.unwrap_err()), "key state");
    assert_eq!(admin.cancel_kek_destruction("demo", 1).await.unwrap().destroy_time, None);
    assert_eq!(what(admin.destroy_tenant("demo", Destroy::default()).await.unwrap_err()), "time");
    assert_eq!(admin.undestroy_tenant("demo").await.unwrap().destroy_time, None);
}

#[tokio::test]
async fn a_job_goes_out_as_it_was_asked_for_and_is_read_with_its_times() {
    let fake = Fake::start().await;
    let admin = admin(&fake);
    for rate in [None, Some(250)] {
        let begun = admin.start_job("demo", JobKind::Scrub, rate).await.unwrap();
        assert_eq!((begun.kind, begun.state, begun.end_time), (JobKind::Scrub, JobState::Running, None));
        assert_eq!(
            (begun.before.as_slice(), begun.rate),
            ([KekUse { version: 1, sessions: 9 }].as_slice(), None)
        );
    }
    let sent = fake.control.0.started.lock().unwrap().clone();
    let asked = |at: usize| (sent[at].tenant.as_str(), sent[at].kind, sent[at].rate);
    assert_eq!(asked(0), ("demo", v1::JobKind::Scrub as i32, 0));
    assert_eq!(asked(1), ("demo", v1::JobKind::Scrub as i32, 250));
    assert!(sent[0].request_id.len() == 36 && sent[0].request_id != sent[1].request_id);
    let jobs = admin.jobs("demo").await.unwrap();
    assert_eq!((jobs[0].kind, jobs[0].state, jobs[0].rate), (JobKind::Rewrap, JobState::Cancelled, Some(7)));
    assert_eq!(jobs[0].end_time, Some(Timestamp::from_millis(1_790_000_000_000)));
    assert_eq!((jobs.len(), jobs[1].kind), (2, JobKind::Scrub));
}

#[tokio::test]
async fn a_job_that_makes_no_sense_is_malformed() {
    let fake = Fake::start().await;
    let admin = admin(&fake);
    let running = || job(v1::JobState::Running, 0);
    let backwards = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    for (answer, expected) in [
        (v1::Job { kind: 99, ..running() }, "job kind"),
        (v1::Job { state: 0, ..running() }, "job state"),
        (v1::Job { update_time: None, ..running() }, "time"),
        (v1::Job { end_time: backwards, ..running() }, "time"),
    ] {
        fake.control.looks([Ok(answer)]);
        let error = admin.job("demo", JobKind::Scrub).await.unwrap_err();
        assert!(matches!(error, ClientError::Malformed { what } if what == expected), "{error}");
    }
    let error = admin.cancel_job("demo", JobKind::Scrub).await.unwrap_err();
    assert!(matches!(error, ClientError::Malformed { what: "job" }), "{error}");
}

const AT_ONCE: JobWatch = JobWatch { interval: Duration::ZERO, patience: Duration::from_secs(60) };

#[tokio::test]
async fn a_watch_asks_again_until_the_job_has_ended_and_no_longer() {
    let fake = Fake::start().await;
    let ends = job(v1::JobState::Done, 9);
    fake.control.looks([Ok(job(v1::JobState::Running, 0)), Ok(job(v1::JobState::Running, 5)), Ok(ends)]);
    fake.control.looks([Ok(job(v1::JobState::Running, 7))]);
    let watch = admin(&fake).watch_job("demo", JobKind::Scrub, AT_ONCE);
    let seen: Vec<_> = watch.map_ok(|job| job.sessions_seen).try_collect().await.unwrap();
    assert_eq!(seen, [0, 5, 9]);
    assert_eq!(fake.control.0.looks.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_watch_waits_between_two_questions() {
    let fake = Fake::start().await;
    fake.control.looks([Ok(job(v1::JobState::Running, 0)), Ok(job(v1::JobState::Done, 9))]);
    let never = JobWatch { interval: Duration::MAX, ..AT_ONCE };
    let mut watch = admin(&fake).watch_job("demo", JobKind::Scrub, never);
    assert_eq!(watch.next().await.unwrap().unwrap().sessions_seen, 0);
    assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());
    assert_eq!(fake.control.0.looks.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_watch_goes_on_when_the_server_was_away() {
    let fake = Fake::start().await;
    let away = || Err(Status::unavailable("restarting"));
    fake.control.looks([
        Ok(job(v1::JobState::Running, 4)),
        away(),
        away(),
        Ok(job(v1::JobState::Cancelled, 4)),
    ]);
    let admin = fake.builder().retries(Retries::none()).admin_endpoint(fake.endpoint());
    let watch = admin.build().unwrap().admin().unwrap().watch_job("demo", JobKind::Scrub, AT_ONCE);
    let states: Vec<_> = watch.map_ok(|job| job.state).try_collect().await.unwrap();
    assert_eq!(states, [JobState::Running, JobState::Cancelled]);
}

#[tokio::test]
async fn a_watch_ends_with_an_error_when_its_patience_is_over_or_nothing_can_get_better() {
    let fake = Fake::start().await;
    let admin = admin(&fake);
    let ended = |patience| {
        let watch = admin.watch_job("demo", JobKind::Scrub, JobWatch { patience, ..AT_ONCE });
        async move { watch.try_collect::<Vec<_>>().await.unwrap_err() }
    };
    assert_eq!(ended(Duration::ZERO).await.code(), Code::Unavailable);
    fake.control.looks([Err(Status::not_found("no job")), Ok(job(v1::JobState::Done, 9))]);
    let error = ended(Duration::from_secs(60)).await;
    assert_eq!((error.code(), error.reason()), (Code::NotFound, ErrorReason::Unspecified));
    assert_eq!(fake.control.0.looks.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_with_a_state_that_is_not_known_is_malformed() {
    let fake = Fake::start().await;
    let unknown = admin(&fake).describe_tenant("demo").await.unwrap_err();
    assert!(matches!(unknown, ClientError::Malformed { what: "tenant state" }));
}

#[tokio::test]
async fn a_tokens_secret_is_given_once_and_never_printed() {
    let fake = Fake::start().await;
    let admin = admin(&fake);
    let wanted = NewToken {
        name: "app".into(),
        scopes: Scope::ALL.to_vec(),
        tenants: vec!["demo".into()],
        ttl: Some(Duration::from_secs(60)),
    };
    let created = admin.create_token(wanted).await.unwrap();
    assert_eq!(created.secret.as_str(), "srt_shown-once");
    assert_eq!(created.token.scopes, Scope::ALL);
    assert!(!format!("{created:?}").contains("srt_"));
    let sent = fake.control.0.created.lock().unwrap()[0].clone();
    assert_eq!((sent.ttl.unwrap().seconds, sent.request_id.len()), (60, 36));
    assert!(admin.revoke_token("app").await.unwrap().revoked);
}

#[tokio::test]
async fn a_scope_that_is_not_known_is_malformed_and_not_left_out() {
    let fake = Fake::start().await;
    let listed: Result<Vec<_>, _> = admin(&fake).tokens().try_collect().await;
    assert!(matches!(listed.unwrap_err(), ClientError::Malformed { what: "scope" }));
}

#[tokio::test]
async fn a_search_goes_through_all_pages() {
    let fake = Fake::start().await;
    fake.control.write(0..5);
    let found: Vec<_> = admin(&fake).search_audit(AuditSearch::default()).try_collect().await.unwrap();
    assert_eq!(found.iter().map(|event| event.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn evidence_is_handed_on_as_it_came_and_a_broken_export_is_told() {
    let fake = Fake::start().await;
    let admin = admin(&fake);
    let signed = admin.audit_checkpoint(Some("demo"), 3).await.unwrap().into_inner();
    assert_eq!((signed.checkpoint.as_str(), signed.consistency), ("demo 3", vec![[1; 32]]));
    let malformed = admin.audit_checkpoint(None, 9).await.unwrap_err();
    assert!(matches!(malformed, ClientError::Malformed { what: "proof" }), "{malformed:?}");
    let proven = admin.prove_event(None, 7).await.unwrap().into_inner();
    assert_eq!((proven.proof.as_str(), proven.line.as_str()), (" 7", "{}"));
    let export = admin.export_audit(Some("demo")).await.unwrap();
    assert_eq!((export.checkpoint.as_str(), export.verifier_key.as_str()), ("demo", "key"));
    let pages: Vec<_> = export.lines.collect().await;
    assert_eq!(pages[0].as_ref().unwrap(), &["0", "1"]);
    assert_eq!(pages[1].as_ref().unwrap(), &["2"]);
    assert!(pages[2].is_err() && pages.len() == 3);
}

#[tokio::test]
async fn a_tail_goes_on_after_a_break_with_what_was_written_meanwhile() {
    let fake = Fake::start().await;
    fake.control.write(0..3);
    let mut tail = admin(&fake).tail_audit(AuditTail { backlog: 2, ..AuditTail::default() });
    for sequence in [1, 2] {
        assert_eq!(tail.next().await.unwrap().unwrap().sequence, sequence);
    }
    fake.control.0.broken.notify_waiters();
    fake.control.write(3..5);
    for sequence in [3, 4] {
        assert_eq!(tail.next().await.unwrap().unwrap().sequence, sequence);
    }
}

#[tokio::test]
async fn a_tail_that_missed_events_says_so() {
    let fake = Fake::start().await;
    fake.control.write(0..1);
    let mut tail = admin(&fake).tail_audit(AuditTail { backlog: 1, ..AuditTail::default() });
    assert_eq!(tail.next().await.unwrap().unwrap().sequence, 0);
    fake.close();
    fake.control.write(1..1200);
    let mut fake = fake;
    fake.serve().await;
    let gap = tail.next().await.unwrap().unwrap_err();
    assert!(matches!(gap, ClientError::Gap { after: 0, .. }), "{gap}");
}
