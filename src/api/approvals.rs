//! What waits for a second person. The decision who may do what here depends on the approval, and is the use case's.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::call::Call;
use super::{convert, parse};
use crate::proto::v1;
use crate::proto::v1::approval_service_server::ApprovalService;
use crate::service::{Operation, Service};

/// Answers the calls of `ApprovalService`.
#[derive(Clone)]
pub struct Approvals {
    service: Arc<Service>,
}

impl Approvals {
    /// Answers from `service`.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

#[tonic::async_trait]
impl ApprovalService for Approvals {
    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::ApprovalList)?;
        let message = request.into_inner();
        let outcome = async {
            let page = parse::page(message.page_size, message.page_token);
            let answer = self.service.list_approvals(call.caller(), &page).await?;
            Ok(answer.map(|page| v1::ListApprovalsResponse {
                approvals: page.items.into_iter().map(convert::approval).collect(),
                next_page_token: page.next,
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn get_approval(
        &self,
        request: Request<v1::GetApprovalRequest>,
    ) -> Result<Response<v1::GetApprovalResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::ApprovalRead)?;
        let message = request.into_inner();
        let outcome = async {
            let id = parse::approval_id(&message.approval_id)?;
            let answer = self.service.approval(call.caller(), id).await?;
            Ok(answer.map(|found| v1::GetApprovalResponse { approval: Some(convert::approval(found)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveRequest>,
    ) -> Result<Response<v1::ApproveResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::ApprovalApprove)?;
        let message = request.into_inner();
        let outcome = async {
            let id = parse::approval_id(&message.approval_id)?;
            let answer = self.service.approve(call.caller(), id).await?;
            Ok(answer.map(|now| v1::ApproveResponse { approval: Some(convert::approval(now)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn deny(&self, request: Request<v1::DenyRequest>) -> Result<Response<v1::DenyResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::ApprovalDeny)?;
        let message = request.into_inner();
        let outcome = async {
            let id = parse::approval_id(&message.approval_id)?;
            let answer = self.service.deny_approval(call.caller(), id).await?;
            Ok(answer.map(|now| v1::DenyResponse { approval: Some(convert::approval(now)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }
}
