//! Calls about the keys of sessions.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::Call;
use crate::api::parse;
use crate::proto::v1;
use crate::service::{Operation, Service};

pub(super) async fn rotate_key(
    service: &Arc<Service>,
    request: Request<v1::RotateSessionKeyRequest>,
) -> Result<Response<v1::RotateSessionKeyResponse>, Status> {
    let call = Call::begin(service, &request, Operation::KeyReencrypt)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let id = parse::session_id(&message.session_id)?;
        let repeat = parse::repeat("RotateSessionKey", &message.request_id, &message)?;
        let answer = service.rotate_session_key(&permit, &id, repeat).await?;
        Ok(answer.map(|done| v1::RotateSessionKeyResponse { finished: done.finished }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}
