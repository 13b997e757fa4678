//! Calls about the server's own state.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::{Call, Refusal};
use crate::api::convert;
use crate::proto::v1;
use crate::service::{Operation, Service};

pub(super) async fn describe(
    service: &Arc<Service>,
    request: Request<v1::GetStatusRequest>,
) -> Result<Response<v1::GetStatusResponse>, Status> {
    let call = Call::begin(service, &request, Operation::StatusRead)?;
    let outcome = async {
        let permit = call.permit_server().await?;
        let answer = service.status(&permit).await?;
        Ok(answer.map(|status| convert::status(&status)))
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.finish(outcome).await
}
