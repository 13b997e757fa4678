//! The control plane.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::call::{Call, Refusal};
use super::follow::{Following, Pace};
use super::{convert, parse};
use crate::model::{KekVersion, TenantState};
use crate::proto::v1;
use crate::proto::v1::admin_service_server::AdminService;
use crate::service::{
    Answer, AuditQuery, CreateToken, KekUse, KekVerb, Operation, Repeat, Service, TenantDescription,
};

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

    async fn set_state(
        &self,
        call: &Call,
        name: &str,
        state: TenantState,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TenantDescription>, Refusal> {
        let permit = call.tenant_permit(name).await?;
        Ok(self.service.set_tenant_state(&permit, state, repeat).await?)
    }

    async fn change_kek(
        &self,
        call: &Call,
        tenant: &str,
        version: u32,
        verb: KekVerb,
        repeat: Option<Repeat>,
    ) -> Result<Answer<v1::Kek>, Refusal> {
        let permit = call.permit(tenant).await?;
        let answer = self.service.change_kek(&permit, KekVersion(version), verb, repeat).await?;
        Ok(answer.map(convert::kek))
    }
}

/// What a stream of answers is.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AdminService for Admin {
    type TailAuditStream = Streamed<v1::TailAuditResponse>;

    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::CreateTenantResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TenantCreate)?;
        let message = request.into_inner();
        let outcome = async {
            // Who may create a tenant may create any.
            let permit = call.permit_server().await?;
            let repeat = parse::repeat("CreateTenant", &message.request_id, &message)?;
            let name = parse::tenant("name", message.name)?;
            let answer = self.service.create_tenant(&permit, &name, repeat).await?;
            Ok(answer.map(|made| v1::CreateTenantResponse { tenant: Some(convert::tenant(made)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn get_tenant(
        &self,
        request: Request<v1::GetTenantRequest>,
    ) -> Result<Response<v1::GetTenantResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TenantRead)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.tenant_permit(&message.name).await?;
            let answer = self.service.tenant(&permit).await?;
            Ok(answer.map(|found| v1::GetTenantResponse { tenant: Some(convert::tenant(found)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TenantList)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit_server().await?;
            let page = parse::page(message.page_size, message.page_token);
            let answer = self.service.list_tenants(&permit, &page).await?;
            Ok(answer.map(|page| v1::ListTenantsResponse {
                tenants: page.items.into_iter().map(convert::tenant).collect(),
                next_page_token: page.next,
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Result<Response<v1::SuspendTenantResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TenantSuspend)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("SuspendTenant", &message.request_id, &message)?;
            let answer = self.set_state(&call, &message.name, TenantState::Suspended, repeat).await?;
            Ok(answer.map(|now| v1::SuspendTenantResponse { tenant: Some(convert::tenant(now)) }))
        };
        let outcome: Result<_, Refusal> = outcome.await;
        call.finish(outcome).await
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Result<Response<v1::ResumeTenantResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TenantResume)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("ResumeTenant", &message.request_id, &message)?;
            let answer = self.set_state(&call, &message.name, TenantState::Active, repeat).await?;
            Ok(answer.map(|now| v1::ResumeTenantResponse { tenant: Some(convert::tenant(now)) }))
        };
        let outcome: Result<_, Refusal> = outcome.await;
        call.finish(outcome).await
    }

    async fn list_keks(
        &self,
        request: Request<v1::ListKeksRequest>,
    ) -> Result<Response<v1::ListKeksResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyList)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let page = parse::page(message.page_size, message.page_token);
            let answer = self.service.list_keks(&permit, &page).await?;
            Ok(answer.map(|page| v1::ListKeksResponse {
                keks: page.items.into_iter().map(convert::kek).collect(),
                next_page_token: page.next,
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn rotate_kek(
        &self,
        request: Request<v1::RotateKekRequest>,
    ) -> Result<Response<v1::RotateKekResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyRotate)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("RotateKek", &message.request_id, &message)?;
            let permit = call.permit(&message.tenant).await?;
            let answer = self.service.rotate_kek(&permit, message.pending, repeat).await?;
            Ok(answer.map(|kek| v1::RotateKekResponse { kek: Some(convert::kek(kek)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn get_kek(
        &self,
        request: Request<v1::GetKekRequest>,
    ) -> Result<Response<v1::GetKekResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyRead)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let answer = self.service.kek(&permit, KekVersion(message.version)).await?;
            Ok(answer.map(|kek| v1::GetKekResponse { kek: Some(convert::kek(kek)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn set_kek_rotation(
        &self,
        request: Request<v1::SetKekRotationRequest>,
    ) -> Result<Response<v1::SetKekRotationResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeySetRotation)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let repeat = parse::repeat("SetKekRotation", &message.request_id, &message)?;
            let every = message.period.map(|period| parse::duration("period", period)).transpose()?;
            let answer = self.service.set_kek_rotation(&permit, every, repeat).await?;
            Ok(answer.map(|now| v1::SetKekRotationResponse { tenant: Some(convert::tenant(now)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn promote_kek(
        &self,
        request: Request<v1::PromoteKekRequest>,
    ) -> Result<Response<v1::PromoteKekResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyPromote)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("PromoteKek", &message.request_id, &message)?;
            let kek =
                self.change_kek(&call, &message.tenant, message.version, KekVerb::Promote, repeat).await?;
            Ok(kek.map(|kek| v1::PromoteKekResponse { kek: Some(kek) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn enable_kek(
        &self,
        request: Request<v1::EnableKekRequest>,
    ) -> Result<Response<v1::EnableKekResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyEnable)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("EnableKek", &message.request_id, &message)?;
            let kek =
                self.change_kek(&call, &message.tenant, message.version, KekVerb::Enable, repeat).await?;
            Ok(kek.map(|kek| v1::EnableKekResponse { kek: Some(kek) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn disable_kek(
        &self,
        request: Request<v1::DisableKekRequest>,
    ) -> Result<Response<v1::DisableKekResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyDisable)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("DisableKek", &message.request_id, &message)?;
            let kek =
                self.change_kek(&call, &message.tenant, message.version, KekVerb::Disable, repeat).await?;
            Ok(kek.map(|kek| v1::DisableKekResponse { kek: Some(kek) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn cancel_kek_destruction(
        &self,
        request: Request<v1::CancelKekDestructionRequest>,
    ) -> Result<Response<v1::CancelKekDestructionResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyCancel)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("CancelKekDestruction", &message.request_id, &message)?;
            let kek =
                self.change_kek(&call, &message.tenant, message.version, KekVerb::Cancel, repeat).await?;
            Ok(kek.map(|kek| v1::CancelKekDestructionResponse { kek: Some(kek) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn count_kek_use(
        &self,
        request: Request<v1::CountKekUseRequest>,
    ) -> Result<Response<v1::CountKekUseResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeyCensus)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let answer = self.service.count_kek_use(&permit).await?;
            let uses = |found: Vec<KekUse>| found.into_iter().map(convert::kek_use).collect();
            Ok(answer.map(|found| v1::CountKekUseResponse { uses: uses(found) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn destroy_kek(
        &self,
        request: Request<v1::DestroyKekRequest>,
    ) -> Result<Response<v1::DestroyKekResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::KeySchedule)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let repeat = parse::repeat("DestroyKek", &message.request_id, &message)?;
            let destroy = parse::destroy_kek(&message)?;
            let answer = match destroy.grace {
                Some(grace) if grace.is_zero() => {
                    let now = call.permit(&message.tenant).await?;
                    self.service.destroy_kek_now(&permit, &now, &destroy, repeat).await?
                }
                Some(_) | None => self.service.destroy_kek(&permit, &destroy, repeat).await?,
            };
            Ok(answer
                .map(|kek| v1::DestroyKekResponse { sessions: kek.sessions, kek: Some(convert::kek(kek)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn start_job(
        &self,
        request: Request<v1::StartJobRequest>,
    ) -> Result<Response<v1::StartJobResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::JobStart)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let kind = parse::job_kind(message.kind)?;
            let repeat = parse::repeat("StartJob", &message.request_id, &message)?;
            let answer = self.service.start_job(&permit, kind, message.rate, repeat).await?;
            Ok(answer.map(|job| v1::StartJobResponse { job: Some(convert::job(&job)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::JobRead)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let kind = parse::job_kind(message.kind)?;
            let answer = self.service.job(&permit, kind).await?;
            Ok(answer.map(|job| v1::GetJobResponse { job: Some(convert::job(&job)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::JobCancel)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let kind = parse::job_kind(message.kind)?;
            let answer = self.service.cancel_job(&permit, kind).await?;
            Ok(answer.map(|job| v1::CancelJobResponse { job: Some(convert::job(&job)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::JobList)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let answer = self.service.jobs(&permit).await?;
            Ok(answer.map(|jobs| v1::ListJobsResponse { jobs: jobs.iter().map(convert::job).collect() }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TokenCreate)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit_server().await?;
            let repeat = parse::repeat("CreateToken", &message.request_id, &message)?;
            let create = CreateToken {
                name: parse::token_name(message.name)?,
                scopes: parse::scopes(&message.scopes)?,
                tenants: parse::tenants(message.tenants)?,
                ttl: message.ttl.map(|ttl| parse::duration("ttl", ttl)).transpose()?,
            };
            let answer = self.service.create_token(&permit, &create, repeat).await?;
            Ok(answer.map(|made| v1::CreateTokenResponse {
                token: Some(convert::token(made.token)),
                secret: made.secret.to_string(),
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TokenList)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit_server().await?;
            let page = parse::page(message.page_size, message.page_token);
            let answer = self.service.list_tokens(&permit, &page).await?;
            Ok(answer.map(|page| v1::ListTokensResponse {
                tokens: page.items.into_iter().map(convert::token).collect(),
                next_page_token: page.next,
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::TokenRevoke)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit_server().await?;
            let repeat = parse::repeat("RevokeToken", &message.request_id, &message)?;
            let name = parse::token_name(message.name)?;
            let answer = self.service.revoke_token(&permit, &name, repeat).await?;
            Ok(answer.map(|token| v1::RevokeTokenResponse { token: Some(convert::token(token)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn search_audit(
        &self,
        request: Request<v1::SearchAuditRequest>,
    ) -> Result<Response<v1::SearchAuditResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::AuditSearch)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit_log(&message.tenant).await?;
            let query = AuditQuery {
                filter: parse::filter(message.filter)?,
                order: parse::order(message.order)?,
                page: parse::page(message.page_size, message.page_token),
            };
            let answer = self.service.search_audit(&permit, &query).await?;
            Ok(answer.map(|page| {
                let events = page.lines.into_iter().map(|line| convert::audit_event(&page.log, line));
                v1::SearchAuditResponse { events: events.collect(), next_page_token: page.next }
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn tail_audit(
        &self,
        request: Request<v1::TailAuditRequest>,
    ) -> Result<Response<Self::TailAuditStream>, Status> {
        let call = Call::begin(&self.service, &request, Operation::AuditTail)?;
        let extensions = request.extensions().clone();
        let message = request.into_inner();
        let prepared = async {
            let permit = call.permit_log(&message.tenant).await?;
            let filter = parse::filter(message.filter)?;
            let pace = Pace::new(message.follow, parse::follow(message.max_duration)?, &call, &extensions);
            let backlog = usize::try_from(message.backlog).unwrap_or(usize::MAX);
            Ok::<_, Refusal>((self.service.tail_audit(permit, backlog, filter).await?, pace))
        };
        let (tail, pace) = match prepared.await {
            Ok(prepared) => prepared,
            Err(refused) => return Err(call.refused(refused).await),
        };
        Following::audit(tail).respond(call, pace).await
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::StatusRead)?;
        let outcome = async {
            let permit = call.permit_server().await?;
            let answer = self.service.status(&permit).await?;
            Ok(answer.map(|status| convert::status(&status)))
        };
        let outcome: Result<_, Refusal> = outcome.await;
        call.finish(outcome).await
    }
}
