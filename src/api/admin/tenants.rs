//! Calls about tenants.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::{Call, Refusal};
use crate::api::{convert, parse};
use crate::model::TenantState;
use crate::proto::v1;
use crate::service::{Answer, Operation, Repeat, Service, TenantDescription};

pub(super) async fn create(
    service: &Arc<Service>,
    request: Request<v1::CreateTenantRequest>,
) -> Result<Response<v1::CreateTenantResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TenantCreate)?;
    let message = request.into_inner();
    let outcome = async {
        // Who may create a tenant may create any.
        let permit = call.permit_server().await?;
        let repeat = parse::repeat("CreateTenant", &message.request_id, &message)?;
        let name = parse::tenant("name", message.name)?;
        let answer = service.create_tenant(&permit, &name, message.exportable, repeat).await?;
        Ok(answer.map(|made| v1::CreateTenantResponse { tenant: Some(convert::tenant(made)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn describe(
    service: &Arc<Service>,
    request: Request<v1::GetTenantRequest>,
) -> Result<Response<v1::GetTenantResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TenantRead)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.tenant_permit(&message.name).await?;
        let answer = service.tenant(&permit).await?;
        Ok(answer.map(|found| v1::GetTenantResponse { tenant: Some(convert::tenant(found)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn list(
    service: &Arc<Service>,
    request: Request<v1::ListTenantsRequest>,
) -> Result<Response<v1::ListTenantsResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TenantList)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit_server().await?;
        let page = parse::page(message.page_size, message.page_token);
        let answer = service.list_tenants(&permit, &page).await?;
        Ok(answer.map(|page| v1::ListTenantsResponse {
            tenants: page.items.into_iter().map(convert::tenant).collect(),
            next_page_token: page.next,
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn suspend(
    service: &Arc<Service>,
    request: Request<v1::SuspendTenantRequest>,
) -> Result<Response<v1::SuspendTenantResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TenantSuspend)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("SuspendTenant", &message.request_id, &message)?;
        let answer = set_state(service, &call, &message.name, TenantState::Suspended, repeat).await?;
        Ok(answer.map(|now| v1::SuspendTenantResponse { tenant: Some(convert::tenant(now)) }))
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn resume(
    service: &Arc<Service>,
    request: Request<v1::ResumeTenantRequest>,
) -> Result<Response<v1::ResumeTenantResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TenantResume)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("ResumeTenant", &message.request_id, &message)?;
        let answer = set_state(service, &call, &message.name, TenantState::Active, repeat).await?;
        Ok(answer.map(|now| v1::ResumeTenantResponse { tenant: Some(convert::tenant(now)) }))
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.finish(outcome).await
}

async fn set_state(
    service: &Service,
    call: &Call,
    name: &str,
    state: TenantState,
    repeat: Option<Repeat>,
) -> Result<Answer<TenantDescription>, Refusal> {
    let permit = call.tenant_permit(name).await?;
    Ok(service.set_tenant_state(&permit, state, repeat).await?)
}
