//! Calls about tenants.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::{Call, Refusal};
use crate::api::{convert, parse};
use crate::proto::v1;
use crate::service::{Answer, Operation, Repeat, Service, TenantDescription, TenantVerb};

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
        let answer = change(service, &call, &message.name, TenantVerb::Suspend, repeat).await?;
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
        let answer = change(service, &call, &message.name, TenantVerb::Resume, repeat).await?;
        Ok(answer.map(|now| v1::ResumeTenantResponse { tenant: Some(convert::tenant(now)) }))
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn destroy(
    service: &Arc<Service>,
    request: Request<v1::DestroyTenantRequest>,
) -> Result<Response<v1::DestroyTenantResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TenantSchedule)?;
    let message = request.into_inner();
    let outcome = async {
        let tenant = call.tenant_permit(&message.name).await?;
        let keys = call.permit(&message.name).await?;
        let repeat = parse::repeat("DestroyTenant", &message.request_id, &message)?;
        let destroy = parse::destroy_tenant(&message)?;
        let answer = match destroy.grace {
            Some(grace) if grace.is_zero() => {
                let now = call.permit(&message.name).await?;
                service.destroy_tenant_now(&tenant, &keys, &now, &destroy, repeat).await?
            }
            Some(_) | None => service.destroy_tenant(&tenant, &keys, &destroy, repeat).await?,
        };
        Ok(answer.map(|done| v1::DestroyTenantResponse {
            tenant: Some(convert::tenant(done.tenant)),
            sessions: done.sessions,
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn undestroy(
    service: &Arc<Service>,
    request: Request<v1::UndestroyTenantRequest>,
) -> Result<Response<v1::UndestroyTenantResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TenantCancel)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("UndestroyTenant", &message.request_id, &message)?;
        let answer = change(service, &call, &message.name, TenantVerb::Undestroy, repeat).await?;
        Ok(answer.map(|now| v1::UndestroyTenantResponse { tenant: Some(convert::tenant(now)) }))
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.finish(outcome).await
}

async fn change(
    service: &Service,
    call: &Call,
    name: &str,
    verb: TenantVerb,
    repeat: Option<Repeat>,
) -> Result<Answer<TenantDescription>, Refusal> {
    let permit = call.tenant_permit(name).await?;
    Ok(service.change_tenant(&permit, verb, repeat).await?)
}
