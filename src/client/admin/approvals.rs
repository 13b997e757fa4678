//! What waits for a second person. Nothing is asked for here: the call that needs an approval asks for it.

use futures_util::stream::BoxStream;
use uuid::Uuid;

use super::Admin;
use super::records::scope_from_wire;
use crate::client::answer::Answer;
use crate::client::convert::{required_time, time_from};
use crate::client::error::ClientError;
use crate::client::link::{approval, call};
use crate::client::page;
use crate::model::{Scope, Timestamp};
use crate::proto::v1;

/// How far an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalState {
    /// Nobody has decided yet.
    Waiting,
    /// Who asked may go ahead, once.
    Approved,
    /// Somebody denied it, or who asked withdrew it.
    Denied,
    /// What it was for was done.
    Used,
    /// Its time was over before it was used.
    Expired,
}

/// What somebody asked for, and what became of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Names it. A UUID.
    pub id: String,
    /// What is to be done, as the access log names it, for example `key.destroy`.
    pub operation: String,
    /// To which tenant; `None` for what is done to the server itself.
    pub tenant: Option<String>,
    /// Exactly what would be done, in the server's words.
    pub description: String,
    /// What the token of who approves must allow.
    pub scopes: Vec<Scope>,
    /// The principal who asked, for example `token:ops`.
    pub requester: String,
    /// When.
    pub create_time: Timestamp,
    /// Until when it can be approved and used.
    pub expire_time: Timestamp,
    /// How far it is.
    pub state: ApprovalState,
    /// The principal who approved or denied, and when.
    pub decided: Option<(String, Timestamp)>,
    /// When what it is for was done.
    pub use_time: Option<Timestamp>,
}

impl Admin {
    /// Streams the approvals that the caller asked for or may decide about, the first that was asked for first.
    #[must_use]
    pub fn approvals(&self) -> BoxStream<'static, Result<Approval, ClientError>> {
        let link = self.link.clone();
        page::stream(move |page_token| {
            let link = link.clone();
            async move {
                let request = v1::ListApprovalsRequest { page_size: page::SIZE, page_token };
                let page = link.unary(Uuid::new_v4(), request, call!(approval.list_approvals)).await?;
                let page = page.into_inner();
                let approvals = page.approvals.into_iter().map(Approval::from_wire);
                Ok((approvals.collect::<Result<_, _>>()?, page.next_page_token))
            }
        })
    }

    /// Reads one approval.
    ///
    /// # Errors
    /// `APPROVAL_NOT_FOUND`, also for one that is none of the caller's business; see [`ClientError`] for the rest.
    pub async fn approval(&self, id: &str) -> Result<Answer<Approval>, ClientError> {
        let request = v1::GetApprovalRequest { approval_id: id.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(approval.get_approval)).await?;
        answer.try_map(|response| Approval::required(response.approval))
    }

    /// Lets the principal who asked go ahead, once. To approve again is no error.
    ///
    /// # Errors
    /// `APPROVAL_NOT_FOUND`, also when the token does not allow what it is for; `APPROVAL_OWN` when the caller asked for it;
    /// `APPROVAL_STATE`, with the state as the [detail](ClientError::detail) `state`, when it was denied, used, or not used
    /// in time; see [`ClientError`] for the rest.
    pub async fn approve(&self, id: &str) -> Result<Answer<Approval>, ClientError> {
        let request = v1::ApproveRequest { approval_id: id.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(approval.approve)).await?;
        answer.try_map(|response| Approval::required(response.approval))
    }

    /// Ends an approval that was not used: denies it, or withdraws what the caller asked for. To deny again is no error.
    ///
    /// # Errors
    /// As for [`Self::approve`], without `APPROVAL_OWN`.
    pub async fn deny_approval(&self, id: &str) -> Result<Answer<Approval>, ClientError> {
        let request = v1::DenyRequest { approval_id: id.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(approval.deny)).await?;
        answer.try_map(|response| Approval::required(response.approval))
    }
}

impl ApprovalState {
    /// Its name, as in the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Used => "used",
            Self::Expired => "expired",
        }
    }

    const fn from_wire(state: v1::ApprovalState) -> Result<Self, ClientError> {
        Ok(match state {
            v1::ApprovalState::Waiting => Self::Waiting,
            v1::ApprovalState::Approved => Self::Approved,
            v1::ApprovalState::Denied => Self::Denied,
            v1::ApprovalState::Used => Self::Used,
            v1::ApprovalState::Expired => Self::Expired,
            v1::ApprovalState::Unspecified => return Err(ClientError::Malformed { what: "approval state" }),
        })
    }
}

impl Approval {
    fn required(approval: Option<v1::Approval>) -> Result<Self, ClientError> {
        Self::from_wire(approval.ok_or(ClientError::Malformed { what: "approval" })?)
    }

    fn from_wire(approval: v1::Approval) -> Result<Self, ClientError> {
        let state = ApprovalState::from_wire(approval.state())?;
        let scopes = approval.scopes.iter().map(|scope| scope_from_wire(*scope)).collect::<Result<_, _>>()?;
        let decided = approval.decide_time.map(time_from).transpose()?;
        Ok(Self {
            id: approval.approval_id,
            operation: approval.operation,
            tenant: Some(approval.tenant).filter(|name| !name.is_empty()),
            description: approval.description,
            scopes,
            requester: approval.requester,
            create_time: required_time(approval.create_time)?,
            expire_time: required_time(approval.expire_time)?,
            state,
            decided: decided.map(|at| (approval.decider, at)),
            use_time: approval.use_time.map(time_from).transpose()?,
        })
    }
}
