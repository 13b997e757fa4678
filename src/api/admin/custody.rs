//! Calls about key material that comes in or goes out.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::Call;
use crate::api::{convert, parse};
use crate::proto::v1;
use crate::service::{Operation, Service};

pub(super) async fn wrapping_key(
    service: &Arc<Service>,
    request: Request<v1::GetWrappingKeyRequest>,
) -> Result<Response<v1::GetWrappingKeyResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyWrapping)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let answer = service.wrapping_key(&permit).await?;
        Ok(answer.map(|key| v1::GetWrappingKeyResponse { wrapping_key: Some(convert::wrapping_key(key)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn import(
    service: &Arc<Service>,
    request: Request<v1::ImportKekRequest>,
) -> Result<Response<v1::ImportKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyImport)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let repeat = parse::repeat("ImportKek", &message.request_id, &message)?;
        let import = parse::import_kek(&message)?;
        let answer = service.import_kek(&permit, &import, repeat).await?;
        Ok(answer.map(|kek| v1::ImportKekResponse { kek: Some(convert::kek(kek)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn export(
    service: &Arc<Service>,
    request: Request<v1::ExportKekRequest>,
) -> Result<Response<v1::ExportKekResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyExport)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let export = parse::export_kek(&message)?;
        let answer = service.export_kek(&permit, &export).await?;
        Ok(answer.map(|exported| v1::ExportKekResponse {
            kek: Some(convert::kek(exported.kek)),
            wrapped: exported.wrapped.to_vec().into(),
            info: exported.info,
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}
