//! The control plane. One module for each noun holds its calls.

mod audit;
mod custody;
mod jobs;
mod keys;
mod root;
mod sessions;
mod status;
mod tenants;
mod tokens;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use crate::proto::v1;
use crate::proto::v1::admin_service_server::AdminService;
use crate::service::Service;

/// Answers the calls of `AdminService`.
#[derive(Clone)]
pub struct Admin {
    service: Arc<Service>,
}

impl Admin {
    /// Answers from `service`.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

/// What a stream of answers is.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AdminService for Admin {
    type TailAuditStream = Streamed<v1::TailAuditResponse>;
    type ExportAuditStream = Streamed<v1::ExportAuditResponse>;

    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::CreateTenantResponse>, Status> {
        tenants::create(&self.service, request).await
    }

    async fn get_tenant(
        &self,
        request: Request<v1::GetTenantRequest>,
    ) -> Result<Response<v1::GetTenantResponse>, Status> {
        tenants::describe(&self.service, request).await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        tenants::list(&self.service, request).await
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Result<Response<v1::SuspendTenantResponse>, Status> {
        tenants::suspend(&self.service, request).await
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Result<Response<v1::ResumeTenantResponse>, Status> {
        tenants::resume(&self.service, request).await
    }

    async fn destroy_tenant(
        &self,
        request: Request<v1::DestroyTenantRequest>,
    ) -> Result<Response<v1::DestroyTenantResponse>, Status> {
        tenants::destroy(&self.service, request).await
    }

    async fn undestroy_tenant(
        &self,
        request: Request<v1::UndestroyTenantRequest>,
    ) -> Result<Response<v1::UndestroyTenantResponse>, Status> {
        tenants::undestroy(&self.service, request).await
    }

    async fn list_keks(
        &self,
        request: Request<v1::ListKeksRequest>,
    ) -> Result<Response<v1::ListKeksResponse>, Status> {
        keys::list(&self.service, request).await
    }

    async fn rotate_kek(
        &self,
        request: Request<v1::RotateKekRequest>,
    ) -> Result<Response<v1::RotateKekResponse>, Status> {
        keys::rotate(&self.service, request).await
    }

    async fn get_kek(
        &self,
        request: Request<v1::GetKekRequest>,
    ) -> Result<Response<v1::GetKekResponse>, Status> {
        keys::describe(&self.service, request).await
    }

    async fn set_kek_rotation(
        &self,
        request: Request<v1::SetKekRotationRequest>,
    ) -> Result<Response<v1::SetKekRotationResponse>, Status> {
        keys::set_rotation(&self.service, request).await
    }

    async fn promote_kek(
        &self,
        request: Request<v1::PromoteKekRequest>,
    ) -> Result<Response<v1::PromoteKekResponse>, Status> {
        keys::promote(&self.service, request).await
    }

    async fn enable_kek(
        &self,
        request: Request<v1::EnableKekRequest>,
    ) -> Result<Response<v1::EnableKekResponse>, Status> {
        keys::enable(&self.service, request).await
    }

    async fn disable_kek(
        &self,
        request: Request<v1::DisableKekRequest>,
    ) -> Result<Response<v1::DisableKekResponse>, Status> {
        keys::disable(&self.service, request).await
    }

    async fn cancel_kek_destruction(
        &self,
        request: Request<v1::CancelKekDestructionRequest>,
    ) -> Result<Response<v1::CancelKekDestructionResponse>, Status> {
        keys::cancel_destruction(&self.service, request).await
    }

    async fn count_kek_use(
        &self,
        request: Request<v1::CountKekUseRequest>,
    ) -> Result<Response<v1::CountKekUseResponse>, Status> {
        keys::count_use(&self.service, request).await
    }

    async fn destroy_kek(
        &self,
        request: Request<v1::DestroyKekRequest>,
    ) -> Result<Response<v1::DestroyKekResponse>, Status> {
        keys::destroy(&self.service, request).await
    }

    async fn rotate_session_key(
        &self,
        request: Request<v1::RotateSessionKeyRequest>,
    ) -> Result<Response<v1::RotateSessionKeyResponse>, Status> {
        sessions::rotate_key(&self.service, request).await
    }

    async fn get_wrapping_key(
        &self,
        request: Request<v1::GetWrappingKeyRequest>,
    ) -> Result<Response<v1::GetWrappingKeyResponse>, Status> {
        custody::wrapping_key(&self.service, request).await
    }

    async fn import_kek(
        &self,
        request: Request<v1::ImportKekRequest>,
    ) -> Result<Response<v1::ImportKekResponse>, Status> {
        custody::import(&self.service, request).await
    }

    async fn export_kek(
        &self,
        request: Request<v1::ExportKekRequest>,
    ) -> Result<Response<v1::ExportKekResponse>, Status> {
        custody::export(&self.service, request).await
    }

    async fn start_job(
        &self,
        request: Request<v1::StartJobRequest>,
    ) -> Result<Response<v1::StartJobResponse>, Status> {
        jobs::start(&self.service, request).await
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        jobs::describe(&self.service, request).await
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        jobs::cancel(&self.service, request).await
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        jobs::list(&self.service, request).await
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        tokens::create(&self.service, request).await
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        tokens::list(&self.service, request).await
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        tokens::revoke(&self.service, request).await
    }

    async fn search_audit(
        &self,
        request: Request<v1::SearchAuditRequest>,
    ) -> Result<Response<v1::SearchAuditResponse>, Status> {
        audit::search(&self.service, request).await
    }

    async fn tail_audit(
        &self,
        request: Request<v1::TailAuditRequest>,
    ) -> Result<Response<Self::TailAuditStream>, Status> {
        audit::tail(&self.service, request).await
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        audit::checkpoint(&self.service, request).await
    }

    async fn get_proof(
        &self,
        request: Request<v1::GetProofRequest>,
    ) -> Result<Response<v1::GetProofResponse>, Status> {
        audit::proof(&self.service, request).await
    }

    async fn export_audit(
        &self,
        request: Request<v1::ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        audit::export(&self.service, request).await
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        status::describe(&self.service, request).await
    }

    async fn get_root(
        &self,
        request: Request<v1::GetRootRequest>,
    ) -> Result<Response<v1::GetRootResponse>, Status> {
        root::describe(&self.service, request).await
    }

    async fn verify_root(
        &self,
        request: Request<v1::VerifyRootRequest>,
    ) -> Result<Response<v1::VerifyRootResponse>, Status> {
        root::verify(&self.service, request).await
    }

    async fn rotate_root(
        &self,
        request: Request<v1::RotateRootRequest>,
    ) -> Result<Response<v1::RotateRootResponse>, Status> {
        root::rotate(&self.service, request).await
    }

    async fn add_root_recipient(
        &self,
        request: Request<v1::AddRootRecipientRequest>,
    ) -> Result<Response<v1::AddRootRecipientResponse>, Status> {
        root::add_recipient(&self.service, request).await
    }

    async fn remove_root_recipient(
        &self,
        request: Request<v1::RemoveRootRecipientRequest>,
    ) -> Result<Response<v1::RemoveRootRecipientResponse>, Status> {
        root::remove_recipient(&self.service, request).await
    }

    async fn migrate_root(
        &self,
        request: Request<v1::MigrateRootRequest>,
    ) -> Result<Response<v1::MigrateRootResponse>, Status> {
        root::migrate(&self.service, request).await
    }
}
