//! Calls about the versions of a tenant's key.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::{Call, Refusal};
use crate::api::{convert, parse};
use crate::model::KekVersion;
use crate::proto::v1;
use crate::service::{Answer, KekUse, KekVerb, Operation, Repeat, Service};

pub(super) async fn list(
    service: &Arc<Service>,
    request: Request<v1::ListKeksRequest>,
) -> Result<Response<v1::ListKeksResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyList)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let page = parse::page(message.page_size, message.page_token);
        let answer = service.list_keks(&permit, &page).await?;
        Ok(answer.map(|page| v1::ListKeksResponse {
            keks: page.items.into_iter().map(convert::kek).collect(),
            next_page_token: page.next,
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn rotate(
    service: &Arc<Service>,
    request: Request<v1::RotateKekRequest>,
) -> Result<Response<v1::RotateKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyRotate)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("RotateKek", &message.request_id, &message)?;
        let permit = call.permit(&message.tenant).await?;
        let answer = service.rotate_kek(&permit, message.pending, repeat).await?;
        Ok(answer.map(|kek| v1::RotateKekResponse { kek: Some(convert::kek(kek)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn describe(
    service: &Arc<Service>,
    request: Request<v1::GetKekRequest>,
) -> Result<Response<v1::GetKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyRead)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let answer = service.kek(&permit, KekVersion(message.version)).await?;
        Ok(answer.map(|(kek, receipt)| v1::GetKekResponse {
            kek: Some(convert::kek(kek)),
            receipt: receipt.unwrap_or_default(),
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn set_rotation(
    service: &Arc<Service>,
    request: Request<v1::SetKekRotationRequest>,
) -> Result<Response<v1::SetKekRotationResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeySetRotation)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let repeat = parse::repeat("SetKekRotation", &message.request_id, &message)?;
        let every = message.period.map(|period| parse::duration("period", period)).transpose()?;
        let answer = service.set_kek_rotation(&permit, every, repeat).await?;
        Ok(answer.map(|now| v1::SetKekRotationResponse { tenant: Some(convert::tenant(now)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn promote(
    service: &Arc<Service>,
    request: Request<v1::PromoteKekRequest>,
) -> Result<Response<v1::PromoteKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyPromote)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("PromoteKek", &message.request_id, &message)?;
        let kek = change(service, &call, &message.tenant, message.version, KekVerb::Promote, repeat).await?;
        Ok(kek.map(|kek| v1::PromoteKekResponse { kek: Some(kek) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn enable(
    service: &Arc<Service>,
    request: Request<v1::EnableKekRequest>,
) -> Result<Response<v1::EnableKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyEnable)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("EnableKek", &message.request_id, &message)?;
        let kek = change(service, &call, &message.tenant, message.version, KekVerb::Enable, repeat).await?;
        Ok(kek.map(|kek| v1::EnableKekResponse { kek: Some(kek) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn disable(
    service: &Arc<Service>,
    request: Request<v1::DisableKekRequest>,
) -> Result<Response<v1::DisableKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyDisable)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("DisableKek", &message.request_id, &message)?;
        let kek = change(service, &call, &message.tenant, message.version, KekVerb::Disable, repeat).await?;
        Ok(kek.map(|kek| v1::DisableKekResponse { kek: Some(kek) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn cancel_destruction(
    service: &Arc<Service>,
    request: Request<v1::CancelKekDestructionRequest>,
) -> Result<Response<v1::CancelKekDestructionResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyCancel)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("CancelKekDestruction", &message.request_id, &message)?;
        let kek = change(service, &call, &message.tenant, message.version, KekVerb::Cancel, repeat).await?;
        Ok(kek.map(|kek| v1::CancelKekDestructionResponse { kek: Some(kek) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn count_use(
    service: &Arc<Service>,
    request: Request<v1::CountKekUseRequest>,
) -> Result<Response<v1::CountKekUseResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyCensus)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let answer = service.count_kek_use(&permit).await?;
        let uses = |found: Vec<KekUse>| found.into_iter().map(convert::kek_use).collect();
        Ok(answer.map(|found| v1::CountKekUseResponse { uses: uses(found) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn destroy(
    service: &Arc<Service>,
    request: Request<v1::DestroyKekRequest>,
) -> Result<Response<v1::DestroyKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeySchedule)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let repeat = parse::repeat("DestroyKek", &message.request_id, &message)?;
        let destroy = parse::destroy_kek(&message)?;
        let answer = match destroy.grace {
            Some(grace) if grace.is_zero() => {
                let now = call.permit(&message.tenant).await?;
                service.destroy_kek_now(&permit, &now, &destroy, repeat).await?
            }
            Some(_) | None => service.destroy_kek(&permit, &destroy, repeat).await?,
        };
        Ok(answer.map(|kek| v1::DestroyKekResponse { sessions: kek.sessions, kek: Some(convert::kek(kek)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

async fn change(
    service: &Service,
    call: &Call,
    tenant: &str,
    version: u32,
    verb: KekVerb,
    repeat: Option<Repeat>,
) -> Result<Answer<v1::Kek>, Refusal> {
    let permit = call.permit(tenant).await?;
    let answer = service.change_kek(&permit, KekVersion(version), verb, repeat).await?;
    Ok(answer.map(convert::kek))
}
