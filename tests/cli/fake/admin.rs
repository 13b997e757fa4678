//! The control plane of the fake.

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

    fn keks(&mut self, name: &str) -> Result<Vec<v1::Kek>, Status> {
        let primary = self.tenant(name)?.primary_kek_version;
        let state = |version| if version == primary { v1::KekState::Primary } else { v1::KekState::Enabled };
        let kek = |version| v1::Kek {
            version,
            state: state(version).into(),
            create_time: time(),
            state_time: time(),
        };
        Ok((1..=primary).map(kek).collect())
    }
}

fn line() -> Vec<v1::AuditEvent> {
    vec![v1::AuditEvent { log: "demo/1".to_owned(), sequence: 0, line: LINE.to_owned() }]
}

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
            audit_log: format!("{}/1", request.name),
        };
        state.tenants.insert(request.name, tenant.clone());
        answer(v1::CreateTenantResponse { tenant: Some(tenant) })
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

    async fn list_keks(&self, request: Request<v1::ListKeksRequest>) -> Answer<v1::ListKeksResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("list_keks")?;
        let keks = state.keks(&request.into_inner().tenant)?;
        answer(v1::ListKeksResponse { keks, next_page_token: String::new() })
    }

    async fn rotate_kek(&self, request: Request<v1::RotateKekRequest>) -> Answer<v1::RotateKekResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("rotate_kek")?;
        state.tenant(&request.tenant)?.primary_kek_version += 1;
        let kek = state.keks(&request.tenant)?.pop();
        answer(v1::RotateKekResponse { kek })
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
        self.0.lock().unwrap().begin("list_tokens")?;
        answer(v1::ListTokensResponse { tokens: Vec::new(), next_page_token: String::new() })
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
}
