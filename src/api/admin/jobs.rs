//! Calls about jobs.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::Call;
use crate::api::{convert, parse};
use crate::proto::v1;
use crate::service::{Operation, Service};

pub(super) async fn start(
    service: &Arc<Service>,
    request: Request<v1::StartJobRequest>,
) -> Result<Response<v1::StartJobResponse>, Status> {
    let call = Call::begin(service, &request, Operation::JobStart)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let kind = parse::job_kind(message.kind)?;
        let repeat = parse::repeat("StartJob", &message.request_id, &message)?;
        let answer = service.start_job(&permit, kind, message.rate, repeat).await?;
        Ok(answer.map(|job| v1::StartJobResponse { job: Some(convert::job(&job)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn describe(
    service: &Arc<Service>,
    request: Request<v1::GetJobRequest>,
) -> Result<Response<v1::GetJobResponse>, Status> {
    let call = Call::begin(service, &request, Operation::JobRead)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let kind = parse::job_kind(message.kind)?;
        let answer = service.job(&permit, kind).await?;
        Ok(answer.map(|job| v1::GetJobResponse { job: Some(convert::job(&job)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn cancel(
    service: &Arc<Service>,
    request: Request<v1::CancelJobRequest>,
) -> Result<Response<v1::CancelJobResponse>, Status> {
    let call = Call::begin(service, &request, Operation::JobCancel)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let kind = parse::job_kind(message.kind)?;
        let answer = service.cancel_job(&permit, kind).await?;
        Ok(answer.map(|job| v1::CancelJobResponse { job: Some(convert::job(&job)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn list(
    service: &Arc<Service>,
    request: Request<v1::ListJobsRequest>,
) -> Result<Response<v1::ListJobsResponse>, Status> {
    let call = Call::begin(service, &request, Operation::JobList)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit(&message.tenant).await?;
        let answer = service.jobs(&permit).await?;
        Ok(answer.map(|jobs| v1::ListJobsResponse { jobs: jobs.iter().map(convert::job).collect() }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}
