//! The control plane of the fake.

use std::collections::VecDeque;
use std::pin::Pin;

use strongroom::proto::v1;
use strongroom::proto::v1::admin_service_server::AdminService;
use tokio_stream::Stream;
use tonic::{Code, Request, Status};

use super::{Answer, LINE, SECRET, Service, State, answer, refused, time};

impl State {
    fn tenant(&mut self, name: &str) -> Result<&mut v1::Tenant, Status> {
        self.tenants.get_mut(name).ok_or_else(|| refused(Code::NotFound, "TENANT_NOT_FOUND", &[]))
    }

    fn keks(&mut self, name: &str) -> Result<&mut Vec<v1::Kek>, Status> {
        self.tenant(name)?;
        Ok(self.keks.entry(name.to_owned()).or_default())
    }

    fn kek(&mut self, name: &str, version: u32) -> Result<&mut v1::Kek, Status> {
        let found = self.keks(name)?.iter_mut().find(|kek| kek.version == version);
        found.ok_or_else(|| refused(Code::NotFound, "KEY_NOT_FOUND", &[]))
    }

    fn add_kek(&mut self, name: &str, state: v1::KekState) -> Result<v1::Kek, Status> {
        let keks = self.keks(name)?;
        let version = u32::try_from(keks.len()).unwrap() + 1;
        keks.push(v1::Kek {
            version,
            state: state.into(),
            create_time: time(),
            state_time: time(),
            origin: v1::KekOrigin::Generated.into(),
            ..Default::default()
        });
        Ok(*keks.last().unwrap())
    }

    /// Puts a version that is in one of some states into another.
    fn change_kek(
        &mut self,
        name: &str,
        version: u32,
        from: &[v1::KekState],
        to: v1::KekState,
    ) -> Result<v1::Kek, Status> {
        let kek = self.kek(name, version)?;
        if !from.contains(&kek.state()) {
            let state = kek.state().as_str_name().trim_start_matches("KEK_STATE_").to_lowercase();
            let state = state.replace('_', "-");
            return Err(refused(Code::FailedPrecondition, "KEY_STATE", &[("state", &state)]));
        }
        kek.set_state(to);
        kek.destroy_time = None;
        Ok(*kek)
    }

    fn promote_kek(&mut self, name: &str, version: u32) -> Result<v1::Kek, Status> {
        let from = [v1::KekState::Pending, v1::KekState::Enabled, v1::KekState::Primary];
        let kek = self.change_kek(name, version, &from, v1::KekState::Primary)?;
        let before = std::mem::replace(&mut self.tenant(name)?.primary_kek_version, version);
        if before != version {
            self.change_kek(name, before, &[v1::KekState::Primary], v1::KekState::Enabled)?;
        }
        Ok(kek)
    }

    fn sessions_of(&self, version: u32) -> u64 {
        self.sessions.values().filter(|session| session.kek_version == version).count() as u64
    }

    fn destroy_kek(&mut self, request: &v1::DestroyKekRequest) -> Result<v1::DestroyKekResponse, Status> {
        const LIVING: [v1::KekState; 3] =
            [v1::KekState::Pending, v1::KekState::Enabled, v1::KekState::Disabled];
        let (name, version, sessions) =
            (request.tenant.as_str(), request.version, self.sessions_of(request.version));
        let before = *self.kek(name, version)?;
        let grace = request.grace.map_or(7 * 24 * 3600, |grace| grace.seconds);
        let at = time().map(|at| prost_types::Timestamp { seconds: at.seconds + grace, ..at });
        let mut kek = if grace == 0 {
            self.change_kek(name, version, &LIVING, v1::KekState::Destroyed)?
        } else {
            self.change_kek(name, version, &LIVING, v1::KekState::DestroyScheduled)?
        };
        kek.destroy_time = at.filter(|_| grace > 0);
        let (found, expected) = (sessions.to_string(), request.expect_sessions);
        let refusal = (sessions != expected)
            .then(|| refused(Code::FailedPrecondition, "KEY_IN_USE", &[("sessions", &found)]));
        *self.kek(name, version)? = if request.dry_run || refusal.is_some() { before } else { kek };
        match refusal.filter(|_| !request.dry_run) {
            Some(refusal) => Err(refusal),
            None => Ok(v1::DestroyKekResponse { kek: Some(kek), sessions }),
        }
    }

    fn destroy_tenant(
        &mut self,
        request: &v1::DestroyTenantRequest,
    ) -> Result<v1::DestroyTenantResponse, Status> {
        let sessions = self.sessions.len() as u64;
        let before = self.tenant(&request.name)?.clone();
        let grace = request.grace.map_or(7 * 24 * 3600, |grace| grace.seconds);
        let to = if grace == 0 { v1::TenantState::Destroyed } else { v1::TenantState::DestroyScheduled };
        let mut tenant = self.change_tenant(&request.name, v1::TenantState::Suspended, to)?;
        tenant.destroy_time = time().map(|at| prost_types::Timestamp { seconds: at.seconds + grace, ..at });
        let other = sessions != request.expect_sessions && !request.dry_run;
        if request.dry_run || other {
            *self.tenant(&request.name)? = before;
        } else if grace == 0 {
            self.tenants.remove(&request.name);
        } else {
            *self.tenant(&request.name)? = tenant.clone();
        }
        let found = sessions.to_string();
        match other {
            true => Err(refused(Code::FailedPrecondition, "TENANT_IN_USE", &[("sessions", &found)])),
            false => Ok(v1::DestroyTenantResponse { tenant: Some(tenant), sessions }),
        }
    }

    /// Puts a tenant that is in one state into another.
    fn change_tenant(
        &mut self,
        name: &str,
        from: v1::TenantState,
        to: v1::TenantState,
    ) -> Result<v1::Tenant, Status> {
        let tenant = self.tenant(name)?;
        if tenant.state() != from {
            let state = tenant.state().as_str_name().trim_start_matches("TENANT_STATE_").to_lowercase();
            let state = state.replace('_', "-");
            return Err(refused(Code::FailedPrecondition, "TENANT_STATE", &[("state", &state)]));
        }
        tenant.set_state(to);
        tenant.destroy_time = None;
        Ok(tenant.clone())
    }

    fn census(&mut self, name: &str) -> Result<Vec<v1::KekUse>, Status> {
        let mut keks = self.keks(name)?.clone();
        keks.retain(|kek| kek.state() != v1::KekState::Destroyed);
        let uses = keks
            .iter()
            .map(|kek| v1::KekUse { version: kek.version, sessions: self.sessions_of(kek.version) });
        Ok(uses.collect())
    }

    /// Does the whole job, which then is running for one more look.
    fn start_job(&mut self, request: &v1::StartJobRequest) -> Result<v1::Job, Status> {
        let before = self.census(&request.tenant)?;
        let running = |jobs: &VecDeque<v1::Job>| jobs[0].state() == v1::JobState::Running;
        if self.jobs.get(&request.kind).is_some_and(running) {
            return Err(refused(Code::AlreadyExists, "ALREADY_EXISTS", &[]));
        }
        let sessions = self.sessions.len() as u64;
        let running = v1::Job {
            uid: "00000000-0000-4000-8000-000000000002".to_owned(),
            kind: request.kind,
            state: v1::JobState::Running.into(),
            create_time: time(),
            update_time: time(),
            rate: request.rate,
            sessions_total: sessions,
            before,
            ..v1::Job::default()
        };
        if request.kind() == v1::JobKind::Rewrap {
            let primary = self.tenant(&request.tenant)?.primary_kek_version;
            self.sessions.values_mut().for_each(|session| session.kek_version = primary);
        }
        let ended = time().map(|at| prost_types::Timestamp { seconds: at.seconds + 2, ..at });
        let done = v1::Job {
            state: v1::JobState::Done.into(),
            update_time: ended,
            end_time: ended,
            sessions_seen: sessions,
            done: sessions,
            after: self.census(&request.tenant)?,
            ..running.clone()
        };
        self.jobs.insert(request.kind, VecDeque::from([running.clone(), running.clone(), done]));
        self.look_at_job(request.kind)
    }

    fn look_at_job(&mut self, kind: i32) -> Result<v1::Job, Status> {
        let missing = || refused(Code::NotFound, "JOB_NOT_FOUND", &[]);
        let jobs = self.jobs.get_mut(&kind).ok_or_else(missing)?;
        let job = jobs[0].clone();
        if jobs.len() > 1 {
            jobs.pop_front();
        }
        Ok(job)
    }

    fn cancel_job(&mut self, kind: i32) -> Result<v1::Job, Status> {
        let mut job = self.look_at_job(kind)?;
        if job.state() == v1::JobState::Running {
            job.set_state(v1::JobState::Cancelled);
            job.end_time = job.update_time;
            job.after.clone_from(&job.before);
            self.jobs.insert(kind, VecDeque::from([job.clone()]));
        }
        Ok(job)
    }
}

fn line() -> Vec<v1::AuditEvent> {
    vec![v1::AuditEvent { log: "demo/1".to_owned(), sequence: 0, line: LINE.to_owned() }]
}

/// The uid of every wrapping key.
pub const WRAPPING_KEY: &str = "00000000-0000-4000-8000-000000000002";

fn token(name: String, scopes: Vec<i32>, tenants: Vec<String>, revoked: bool) -> Option<v1::Token> {
    Some(v1::Token { name, scopes, tenants, create_time: time(), expire_time: time(), revoked })
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Answer<v1::CreateTenantResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("create_tenant")?;
        let tenant = v1::Tenant {
            name: request.name.clone(),
            uid: "00000000-0000-4000-8000-000000000001".to_owned(),
            state: v1::TenantState::Active.into(),
            create_time: time(),
            primary_kek_version: 1,
            exportable: request.exportable,
            audit_log: format!("{}/1", request.name),
            ..Default::default()
        };
        state.tenants.insert(request.name.clone(), tenant.clone());
        state.add_kek(&request.name, v1::KekState::Primary)?;
        answer(v1::CreateTenantResponse { tenant: Some(tenant) })
    }

    async fn set_kek_rotation(
        &self,
        request: Request<v1::SetKekRotationRequest>,
    ) -> Answer<v1::SetKekRotationResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("set_kek_rotation")?;
        let request = request.into_inner();
        let next_rotation_time = request.period.as_ref().and_then(|_| time());
        let tenant = v1::Tenant {
            rotation_period: request.period,
            next_rotation_time,
            ..state.tenant(&request.tenant)?.clone()
        };
        answer(v1::SetKekRotationResponse { tenant: Some(tenant) })
    }

    async fn rotate_session_key(
        &self,
        request: Request<v1::RotateSessionKeyRequest>,
    ) -> Answer<v1::RotateSessionKeyResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("rotate_session_key")?;
        let request = request.into_inner();
        state.tenant(&request.tenant)?;
        if !state.sessions.contains_key(&request.session_id) {
            return Err(super::refused(tonic::Code::NotFound, "SESSION_NOT_FOUND", &[]));
        }
        answer(v1::RotateSessionKeyResponse { finished: !state.is_slow })
    }

    async fn get_tenant(&self, request: Request<v1::GetTenantRequest>) -> Answer<v1::GetTenantResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("get_tenant")?;
        let tenant = state.tenant(&request.into_inner().name)?.clone();
        answer(v1::GetTenantResponse { tenant: Some(tenant) })
    }

    async fn list_tenants(&self, _: Request<v1::ListTenantsRequest>) -> Answer<v1::ListTenantsResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("list_tenants")?;
        let tenants = state.tenants.values().cloned().collect();
        answer(v1::ListTenantsResponse { tenants, next_page_token: String::new() })
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Answer<v1::SuspendTenantResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("suspend_tenant")?;
        let tenant = state.tenant(&request.into_inner().name)?;
        tenant.state = v1::TenantState::Suspended.into();
        answer(v1::SuspendTenantResponse { tenant: Some(tenant.clone()) })
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Answer<v1::ResumeTenantResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("resume_tenant")?;
        let tenant = state.tenant(&request.into_inner().name)?;
        tenant.state = v1::TenantState::Active.into();
        answer(v1::ResumeTenantResponse { tenant: Some(tenant.clone()) })
    }

    async fn destroy_tenant(
        &self,
        request: Request<v1::DestroyTenantRequest>,
    ) -> Answer<v1::DestroyTenantResponse> {
        let mut state = self.0.lock().unwrap();
        let request = request.into_inner();
        state.begin(if request.dry_run { "destroy_tenant dry run" } else { "destroy_tenant" })?;
        answer(state.destroy_tenant(&request)?)
    }

    async fn undestroy_tenant(
        &self,
        request: Request<v1::UndestroyTenantRequest>,
    ) -> Answer<v1::UndestroyTenantResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("undestroy_tenant")?;
        let (from, to) = (v1::TenantState::DestroyScheduled, v1::TenantState::Suspended);
        let tenant = state.change_tenant(&request.get_ref().name, from, to)?;
        answer(v1::UndestroyTenantResponse { tenant: Some(tenant) })
    }

    async fn list_keks(&self, request: Request<v1::ListKeksRequest>) -> Answer<v1::ListKeksResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("list_keks")?;
        let keks = state.keks(&request.into_inner().tenant)?.clone();
        answer(v1::ListKeksResponse { keks, next_page_token: String::new() })
    }

    async fn rotate_kek(&self, request: Request<v1::RotateKekRequest>) -> Answer<v1::RotateKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("rotate_kek")?;
        let kek = state.add_kek(&request.tenant, v1::KekState::Pending)?;
        let kek = if request.pending { kek } else { state.promote_kek(&request.tenant, kek.version)? };
        answer(v1::RotateKekResponse { kek: Some(kek) })
    }

    async fn get_kek(&self, request: Request<v1::GetKekRequest>) -> Answer<v1::GetKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("get_kek")?;
        let kek = *state.kek(&request.tenant, request.version)?;
        answer(v1::GetKekResponse { kek: Some(kek), receipt: String::new() })
    }

    async fn promote_kek(&self, request: Request<v1::PromoteKekRequest>) -> Answer<v1::PromoteKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("promote_kek")?;
        let kek = state.promote_kek(&request.tenant, request.version)?;
        answer(v1::PromoteKekResponse { kek: Some(kek) })
    }

    async fn enable_kek(&self, request: Request<v1::EnableKekRequest>) -> Answer<v1::EnableKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("enable_kek")?;
        let from = [v1::KekState::Disabled, v1::KekState::Enabled];
        let kek = state.change_kek(&request.tenant, request.version, &from, v1::KekState::Enabled)?;
        answer(v1::EnableKekResponse { kek: Some(kek) })
    }

    async fn disable_kek(&self, request: Request<v1::DisableKekRequest>) -> Answer<v1::DisableKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("disable_kek")?;
        let from = [v1::KekState::Pending, v1::KekState::Enabled, v1::KekState::Disabled];
        let kek = state.change_kek(&request.tenant, request.version, &from, v1::KekState::Disabled)?;
        answer(v1::DisableKekResponse { kek: Some(kek) })
    }

    async fn count_kek_use(
        &self,
        request: Request<v1::CountKekUseRequest>,
    ) -> Answer<v1::CountKekUseResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("count_kek_use")?;
        let uses = state.census(&request.tenant)?;
        answer(v1::CountKekUseResponse { uses })
    }

    async fn destroy_kek(&self, request: Request<v1::DestroyKekRequest>) -> Answer<v1::DestroyKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin(if request.dry_run { "destroy_kek dry run" } else { "destroy_kek" })?;
        state.grace = request.grace.map(|grace| grace.seconds);
        answer(state.destroy_kek(&request)?)
    }

    async fn cancel_kek_destruction(
        &self,
        request: Request<v1::CancelKekDestructionRequest>,
    ) -> Answer<v1::CancelKekDestructionResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("cancel_kek_destruction")?;
        let from = [v1::KekState::DestroyScheduled];
        let kek = state.change_kek(&request.tenant, request.version, &from, v1::KekState::Disabled)?;
        answer(v1::CancelKekDestructionResponse { kek: Some(kek) })
    }

    async fn get_wrapping_key(
        &self,
        _: Request<v1::GetWrappingKeyRequest>,
    ) -> Answer<v1::GetWrappingKeyResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("get_wrapping_key")?;
        let key = v1::WrappingKey {
            uid: WRAPPING_KEY.to_owned(),
            public_key: vec![9; 32].into(),
            info: "what is bound".to_owned(),
            expire_time: time(),
        };
        answer(v1::GetWrappingKeyResponse { wrapping_key: Some(key) })
    }

    async fn import_kek(&self, request: Request<v1::ImportKekRequest>) -> Answer<v1::ImportKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("import_kek")?;
        if request.wrapping_key_uid != WRAPPING_KEY || request.wrapped.len() != 80 {
            return Err(refused(Code::NotFound, "WRAPPING_KEY_NOT_FOUND", &[]));
        }
        let version = state.add_kek(&request.tenant, v1::KekState::Pending)?.version;
        state.kek(&request.tenant, version)?.set_origin(v1::KekOrigin::Imported);
        if !request.pending {
            state.promote_kek(&request.tenant, version)?;
        }
        answer(v1::ImportKekResponse { kek: Some(*state.kek(&request.tenant, version)?) })
    }

    async fn export_kek(&self, request: Request<v1::ExportKekRequest>) -> Answer<v1::ExportKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("export_kek")?;
        if !state.tenant(&request.tenant)?.exportable {
            return Err(refused(Code::FailedPrecondition, "KEY_NOT_EXPORTABLE", &[]));
        }
        let kek = state.kek(&request.tenant, request.version)?;
        kek.export_time = time();
        let (kek, wrapped) = (Some(*kek), vec![7; 80].into());
        answer(v1::ExportKekResponse { kek, wrapped, info: "what is bound".to_owned() })
    }

    async fn start_job(&self, request: Request<v1::StartJobRequest>) -> Answer<v1::StartJobResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("start_job")?;
        answer(v1::StartJobResponse { job: Some(state.start_job(&request)?) })
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Answer<v1::GetJobResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("get_job")?;
        state.tenant(&request.tenant)?;
        answer(v1::GetJobResponse { job: Some(state.look_at_job(request.kind)?) })
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("list_jobs")?;
        state.tenant(&request.tenant)?;
        let jobs = state.jobs.values().map(|jobs| jobs[0].clone()).collect();
        answer(v1::ListJobsResponse { jobs })
    }

    async fn cancel_job(&self, request: Request<v1::CancelJobRequest>) -> Answer<v1::CancelJobResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("cancel_job")?;
        state.tenant(&request.tenant)?;
        answer(v1::CancelJobResponse { job: Some(state.cancel_job(request.kind)?) })
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("create_token")?;
        state.tokens += 1;
        let token = token(request.name, request.scopes, request.tenants, false);
        answer(v1::CreateTokenResponse { token, secret: SECRET.to_owned() })
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Answer<v1::ListTokensResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("list_tokens")?;
        // Whatever tokens were made, they are shown as one.
        let made = (state.tokens > 0)
            .then(|| token("ci".to_owned(), vec![v1::Scope::Read.into()], vec!["*".to_owned()], false));
        let tokens = made.flatten().into_iter().collect();
        answer(v1::ListTokensResponse { tokens, next_page_token: String::new() })
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Answer<v1::RevokeTokenResponse> {
        self.0.lock().unwrap().begin("revoke_token")?;
        let token =
            token(request.into_inner().name, vec![v1::Scope::Read.into()], vec!["*".to_owned()], true);
        answer(v1::RevokeTokenResponse { token })
    }

    async fn search_audit(
        &self,
        request: Request<v1::SearchAuditRequest>,
    ) -> Answer<v1::SearchAuditResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("search_audit")?;
        state.filter = request.into_inner().filter;
        answer(v1::SearchAuditResponse { events: line(), next_page_token: String::new() })
    }

    type TailAuditStream = Pin<Box<dyn Stream<Item = Result<v1::TailAuditResponse, Status>> + Send>>;

    async fn tail_audit(&self, request: Request<v1::TailAuditRequest>) -> Answer<Self::TailAuditStream> {
        let mut state = self.0.lock().unwrap();
        state.begin("tail_audit")?;
        state.filter = request.into_inner().filter;
        answer(Box::pin(tokio_stream::once(Ok(v1::TailAuditResponse { events: line() }))))
    }

    async fn get_checkpoint(
        &self,
        _: Request<v1::GetCheckpointRequest>,
    ) -> Answer<v1::GetCheckpointResponse> {
        self.0.lock().unwrap().begin("get_checkpoint")?;
        answer(v1::GetCheckpointResponse { checkpoint: "no note".to_owned(), ..Default::default() })
    }

    async fn get_proof(&self, _: Request<v1::GetProofRequest>) -> Answer<v1::GetProofResponse> {
        self.0.lock().unwrap().begin("get_proof")?;
        answer(v1::GetProofResponse { proof: "no proof".to_owned(), ..Default::default() })
    }

    type ExportAuditStream = Pin<Box<dyn Stream<Item = Result<v1::ExportAuditResponse, Status>> + Send>>;

    async fn export_audit(&self, _: Request<v1::ExportAuditRequest>) -> Answer<Self::ExportAuditStream> {
        self.0.lock().unwrap().begin("export_audit")?;
        answer(Box::pin(tokio_stream::once(Ok(v1::ExportAuditResponse::default()))))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Answer<v1::GetStatusResponse> {
        self.0.lock().unwrap().begin("get_status")?;
        answer(v1::GetStatusResponse {
            version: "0".to_owned(),
            store_uid: "00000000-0000-4000-8000-000000000000".to_owned(),
            start_time: time(),
            engine: "memory".to_owned(),
            ..v1::GetStatusResponse::default()
        })
    }

    async fn get_root(&self, _: Request<v1::GetRootRequest>) -> Answer<v1::GetRootResponse> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn verify_root(&self, _: Request<v1::VerifyRootRequest>) -> Answer<v1::VerifyRootResponse> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn rotate_root(&self, _: Request<v1::RotateRootRequest>) -> Answer<v1::RotateRootResponse> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn add_root_recipient(
        &self,
        _: Request<v1::AddRootRecipientRequest>,
    ) -> Answer<v1::AddRootRecipientResponse> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn remove_root_recipient(
        &self,
        _: Request<v1::RemoveRootRecipientRequest>,
    ) -> Answer<v1::RemoveRootRecipientResponse> {
        Err(Status::unimplemented("is tried on a real server"))
    }

    async fn migrate_root(&self, _: Request<v1::MigrateRootRequest>) -> Answer<v1::MigrateRootResponse> {
        Err(Status::unimplemented("is tried on a real server"))
    }
}
