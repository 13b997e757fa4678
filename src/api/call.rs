//! What all handlers share: the caller, the permit, and the way back.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::error::{refusal, stamp};
use super::parse;
use super::status::status;
use crate::auth::{Action, Caller, ManageTenants, Permit};
use crate::model::{TenantId, View};
use crate::proto::v1::ErrorReason;
use crate::service::{Answer, Error, Failure, Operation, Reading, Receipt, Service};

/// What a tenant's uid is behind where a name could stand. No name has a colon.
const UID: &str = "uid:";

/// Why a handler did not answer.
pub(super) enum Refusal {
    /// A use case refused, and that is on record.
    Failed(Failure),
    /// The request could not even be parsed; that is not on record yet.
    Malformed(Error),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Malformed(error)
    }
}

/// One call under way.
pub(super) struct Call {
    service: Arc<Service>,
    caller: Arc<Caller>,
    operation: Operation,
}

impl Call {
    /// Takes the caller that was authenticated before.
    pub(super) fn begin<T>(
        service: &Arc<Service>,
        request: &Request<T>,
        operation: Operation,
    ) -> Result<Self, Status> {
        let caller = request.extensions().get::<Arc<Caller>>().ok_or_else(|| {
            status(Code::Unauthenticated, ErrorReason::Unauthenticated, "no credentials").build()
        })?;
        Ok(Self { service: Arc::clone(service), caller: Arc::clone(caller), operation })
    }

    /// Who calls.
    pub(super) const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    pub(super) async fn permit<A: Action>(&self, tenant: &str) -> Result<Permit<A>, Failure> {
        self.service.permit(&self.caller, tenant).await
    }

    pub(super) async fn permit_server<A: Action>(&self) -> Result<Permit<A>, Failure> {
        self.service.permit_server(&self.caller).await
    }

    /// The right to manage one tenant, which only who may manage all of them has.
    pub(super) async fn tenant_permit(&self, name: &str) -> Result<Permit<ManageTenants>, Failure> {
        self.permit_server::<ManageTenants>().await?;
        self.permit(name).await
    }

    /// A permit for the log of a tenant, or with an empty name for the server's own. Who names a tenant by its uid, which is
    /// given as well then, needs one for all of them: a name may have been several tenants'.
    pub(super) async fn permit_log<A: Action>(
        &self,
        tenant: &str,
    ) -> Result<(Permit<A>, Option<TenantId>), Refusal> {
        if let Some(uid) = tenant.strip_prefix(UID) {
            let permit = self.permit_server().await?;
            return Ok((permit, Some(parse::tenant_uid("tenant", uid)?)));
        }
        let permit = if tenant.is_empty() { self.permit_server().await } else { self.permit(tenant).await };
        Ok((permit?, None))
    }

    pub(super) async fn reading(&self, tenant: &str, view: View) -> Result<Reading, Failure> {
        match view {
            View::Redacted => self.permit(tenant).await.map(Reading::Redacted),
            View::Full => self.permit(tenant).await.map(Reading::Full),
        }
    }

    /// Converts the outcome; what was malformed is put on record first.
    pub(super) async fn finish<T>(&self, outcome: Result<Answer<T>, Refusal>) -> Result<Response<T>, Status> {
        match outcome {
            Ok(Answer { value, receipt }) => Ok(self.stamped(value, Some(receipt))),
            Err(refused) => Err(self.refused(refused).await),
        }
    }

    /// A response that says where it is on record.
    pub(super) fn stamped<T>(&self, value: T, receipt: Option<Receipt>) -> Response<T> {
        let mut response = Response::new(value);
        if let Some(receipt) = receipt {
            stamp(response.metadata_mut(), receipt);
        }
        response
    }

    pub(super) async fn refused(&self, refused: Refusal) -> Status {
        let failure = match refused {
            Refusal::Failed(failure) => failure,
            Refusal::Malformed(error) => self.service.refuse(&self.caller, self.operation, error).await,
        };
        refusal(&failure)
    }

    /// How long the caller's credentials are still good.
    pub(super) fn credentials_left(&self) -> crate::model::Duration {
        self.caller.principal.expires().since(self.service.now())
    }
}
