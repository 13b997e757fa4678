//! Calls about access logs.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::Streamed;
use crate::api::call::{Call, Refusal};
use crate::api::follow::{Following, Pace};
use crate::api::{convert, parse};
use crate::proto::v1;
use crate::service::{AuditQuery, Operation, Service};

/// Longest export: the checkpoint that came first shows a caller that was cut off.
const EXPORT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn search(
    service: &Arc<Service>,
    request: Request<v1::SearchAuditRequest>,
) -> Result<Response<v1::SearchAuditResponse>, Status> {
    let call = Call::begin(service, &request, Operation::AuditSearch)?;
    let message = request.into_inner();
    let outcome = async {
        let (permit, uid) = call.permit_log(&message.tenant).await?;
        let query = AuditQuery {
            about: parse::subjects(message.filter.as_ref())?,
            filter: parse::filter(message.filter)?,
            order: parse::order(message.order)?,
            page: parse::page(message.page_size, message.page_token),
        };
        let answer = service.search_audit(&permit, uid, &query).await?;
        Ok(answer.map(|page| {
            let events = page.lines.into_iter().map(|line| convert::audit_event(&page.log, line));
            v1::SearchAuditResponse { events: events.collect(), next_page_token: page.next }
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn tail(
    service: &Arc<Service>,
    request: Request<v1::TailAuditRequest>,
) -> Result<Response<Streamed<v1::TailAuditResponse>>, Status> {
    let call = Call::begin(service, &request, Operation::AuditTail)?;
    let extensions = request.extensions().clone();
    let message = request.into_inner();
    let prepared = async {
        let (permit, uid) = call.permit_log(&message.tenant).await?;
        let about = parse::subjects(message.filter.as_ref())?;
        let filter = parse::filter(message.filter)?;
        let pace = Pace::new(message.follow, parse::follow(message.max_duration)?, &call, &extensions);
        let backlog = usize::try_from(message.backlog).unwrap_or(usize::MAX);
        Ok::<_, Refusal>((service.tail_audit(permit, uid, backlog, &filter, &about).await?, pace))
    };
    let (tail, pace) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refused) => return Err(call.refused(refused).await),
    };
    Following::audit(tail).respond(call, pace).await
}

pub(super) async fn checkpoint(
    service: &Arc<Service>,
    request: Request<v1::GetCheckpointRequest>,
) -> Result<Response<v1::GetCheckpointResponse>, Status> {
    let call = Call::begin(service, &request, Operation::AuditCheckpoint)?;
    let message = request.into_inner();
    let outcome = async {
        let (permit, uid) = call.permit_log(&message.tenant).await?;
        let answer = service.audit_checkpoint(&permit, uid, message.since_size).await?;
        Ok(answer.map(|signed| v1::GetCheckpointResponse {
            checkpoint: signed.checkpoint,
            verifier_key: signed.verifier,
            consistency_proof: signed.consistency.into_iter().map(|hash| hash.to_vec().into()).collect(),
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn proof(
    service: &Arc<Service>,
    request: Request<v1::GetProofRequest>,
) -> Result<Response<v1::GetProofResponse>, Status> {
    let call = Call::begin(service, &request, Operation::AuditProof)?;
    let message = request.into_inner();
    let outcome = async {
        let (permit, uid) = call.permit_log(&message.tenant).await?;
        let answer = service.prove_event(&permit, uid, message.sequence).await?;
        Ok(answer.map(|proven| v1::GetProofResponse {
            proof: proven.proof,
            line: proven.line,
            verifier_key: proven.verifier,
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn export(
    service: &Arc<Service>,
    request: Request<v1::ExportAuditRequest>,
) -> Result<Response<Streamed<v1::ExportAuditResponse>>, Status> {
    let call = Call::begin(service, &request, Operation::AuditExport)?;
    let extensions = request.extensions().clone();
    let message = request.into_inner();
    let prepared = async {
        let (permit, uid) = call.permit_log(&message.tenant).await?;
        let pace = Pace::new(false, EXPORT, &call, &extensions);
        Ok::<_, Refusal>((service.export_audit(&permit, uid).await?, pace))
    };
    let (export, pace) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refused) => return Err(call.refused(refused).await),
    };
    Following::export(export).respond(call, pace).await
}
