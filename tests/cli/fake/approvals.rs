//! What waits for a second person in the fake. It checks nobody's rights.

use strongroom::proto::v1;
use strongroom::proto::v1::approval_service_server::ApprovalService;
use tonic::{Code, Request, Status};

use super::{Answer, Service, State, answer, refused, time};

impl State {
    fn approval(&mut self, id: &str) -> Result<&mut v1::Approval, Status> {
        let found = self.approvals.iter_mut().find(|approval| approval.approval_id == id);
        found.ok_or_else(|| refused(Code::NotFound, "APPROVAL_NOT_FOUND", &[]))
    }

    fn decide(&mut self, id: &str, state: v1::ApprovalState) -> Result<v1::Approval, Status> {
        let approval = self.approval(id)?;
        approval.set_state(state);
        approval.decider = "token:app".to_owned();
        approval.decide_time = time();
        Ok(approval.clone())
    }
}

#[tonic::async_trait]
impl ApprovalService for Service {
    async fn list_approvals(
        &self,
        _: Request<v1::ListApprovalsRequest>,
    ) -> Answer<v1::ListApprovalsResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("list_approvals")?;
        let approvals = state.approvals.clone();
        answer(v1::ListApprovalsResponse { approvals, next_page_token: String::new() })
    }

    async fn get_approval(
        &self,
        request: Request<v1::GetApprovalRequest>,
    ) -> Answer<v1::GetApprovalResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("get_approval")?;
        let approval = state.approval(&request.into_inner().approval_id)?.clone();
        answer(v1::GetApprovalResponse { approval: Some(approval) })
    }

    async fn approve(&self, request: Request<v1::ApproveRequest>) -> Answer<v1::ApproveResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("approve")?;
        let approval = state.decide(&request.into_inner().approval_id, v1::ApprovalState::Approved)?;
        answer(v1::ApproveResponse { approval: Some(approval) })
    }

    async fn deny(&self, request: Request<v1::DenyRequest>) -> Answer<v1::DenyResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("deny")?;
        let approval = state.decide(&request.into_inner().approval_id, v1::ApprovalState::Denied)?;
        answer(v1::DenyResponse { approval: Some(approval) })
    }
}
