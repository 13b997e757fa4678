//! Calls about the root epoch keys.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::{Call, Refusal};
use crate::api::{convert, parse};
use crate::proto::v1;
use crate::service::{Answer, Operation, Repeat, RootVerb, Service};

pub(super) async fn describe(
    service: &Arc<Service>,
    request: Request<v1::GetRootRequest>,
) -> Result<Response<v1::GetRootResponse>, Status> {
    let call = Call::begin(service, &request, Operation::RootRead)?;
    let outcome = async {
        let permit = call.permit_server().await?;
        let answer = service.root(&permit).await?;
        Ok(answer.map(|root| v1::GetRootResponse { root: Some(convert::root(root)) }))
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn verify(
    service: &Arc<Service>,
    request: Request<v1::VerifyRootRequest>,
) -> Result<Response<v1::VerifyRootResponse>, Status> {
    let call = Call::begin(service, &request, Operation::RootVerify)?;
    let outcome = async {
        let permit = call.permit_server().await?;
        Ok(service.verify_root(&permit).await?.map(convert::root_verification))
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn rotate(
    service: &Arc<Service>,
    request: Request<v1::RotateRootRequest>,
) -> Result<Response<v1::RotateRootResponse>, Status> {
    let call = Call::begin(service, &request, Operation::RootRotate)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("RotateRoot", &message.request_id, &message)?;
        let answer = change(service, &call, &RootVerb::Rotate, message.dry_run, repeat).await?;
        Ok(answer.map(|root| v1::RotateRootResponse { root: Some(root) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn add_recipient(
    service: &Arc<Service>,
    request: Request<v1::AddRootRecipientRequest>,
) -> Result<Response<v1::AddRootRecipientResponse>, Status> {
    let call = Call::begin(service, &request, Operation::RootAdd)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("AddRootRecipient", &message.request_id, &message)?;
        let verb = RootVerb::add("public_key", &message.public_key)?;
        let answer = change(service, &call, &verb, false, repeat).await?;
        Ok(answer.map(|root| v1::AddRootRecipientResponse { root: Some(root) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn remove_recipient(
    service: &Arc<Service>,
    request: Request<v1::RemoveRootRecipientRequest>,
) -> Result<Response<v1::RemoveRootRecipientResponse>, Status> {
    let call = Call::begin(service, &request, Operation::RootRemove)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("RemoveRootRecipient", &message.request_id, &message)?;
        let verb = RootVerb::Remove(parse::root_key_id("key_id", &message.key_id)?);
        let answer = change(service, &call, &verb, message.dry_run, repeat).await?;
        Ok(answer.map(|root| v1::RemoveRootRecipientResponse { root: Some(root) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn migrate(
    service: &Arc<Service>,
    request: Request<v1::MigrateRootRequest>,
) -> Result<Response<v1::MigrateRootResponse>, Status> {
    let call = Call::begin(service, &request, Operation::RootMigrate)?;
    let message = request.into_inner();
    let outcome = async {
        let repeat = parse::repeat("MigrateRoot", &message.request_id, &message)?;
        let answer = change(service, &call, &RootVerb::Migrate, message.dry_run, repeat).await?;
        Ok(answer.map(|root| v1::MigrateRootResponse { root: Some(root) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

async fn change(
    service: &Service,
    call: &Call,
    verb: &RootVerb,
    dry_run: bool,
    repeat: Option<Repeat>,
) -> Result<Answer<v1::Root>, Refusal> {
    let permit = call.permit_server().await?;
    Ok(service.change_root(&permit, verb, dry_run, repeat).await?.map(convert::root))
}
