//! What is destroyed with all that it protects: how, and a tenant as a whole.

use std::time::Duration;

use uuid::Uuid;

use super::Admin;
use super::records::{TenantDestruction, TenantRecord};
use crate::client::answer::Answer;
use crate::client::convert;
use crate::client::error::ClientError;
use crate::client::link::{admin, call};
use crate::proto::v1;

/// How a version of a key, or a tenant, is to be destroyed. By default: after 7 days, and only when no session dies with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Destroy {
    /// How long it can be taken back, 24 h to 90 days; `None`: 7 days. Zero destroys at once, which nothing takes back and
    /// for which the token needs the scope `keys-destroy-now` as well.
    pub grace: Option<Duration>,
    /// The number of sessions that die with it. When another number is found, nothing is done.
    pub expect_sessions: u64,
    /// Changes nothing: the answer only says what would be done, whatever `expect_sessions` is.
    pub dry_run: bool,
}

impl Destroy {
    /// The grace in whole milliseconds. What is left of one counts as one: a short grace must never become none.
    pub(super) fn grace_to_wire(&self) -> Option<prost_types::Duration> {
        let whole = |span: Duration| {
            let rest = u32::from(!span.subsec_nanos().is_multiple_of(1_000_000));
            convert::duration(span.saturating_add(Duration::from_millis(1).saturating_mul(rest)))
        };
        self.grace.map(whole)
    }
}

impl Admin {
    /// Refuses all use of a suspended tenant from the next request on, and destroys its keys when its grace is over. All that
    /// it keeps is lost then, for ever; its access log stays, and its name is free. The token needs the scopes `tenants` and
    /// `keys-destroy`.
    ///
    /// The server counts the tenant's sessions first, as [`Self::count_kek_use`] does.
    ///
    /// # Errors
    /// `TENANT_IN_USE`, with the number found as the [detail](ClientError::detail) `sessions`, when other than
    /// `expect_sessions` would die; `TENANT_STATE`, with its state as the detail `state`, for a tenant that is not suspended,
    /// unless it is to be destroyed and the grace is zero; `TENANT_NOT_FOUND`; `INVALID_FIELD` for a grace outside of its
    /// bounds; see [`ClientError`] for the rest.
    pub async fn destroy_tenant(
        &self,
        name: &str,
        destroy: Destroy,
    ) -> Result<Answer<TenantDestruction>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::DestroyTenantRequest {
            name: name.to_owned(),
            request_id: id.to_string(),
            grace: destroy.grace_to_wire(),
            expect_sessions: destroy.expect_sessions,
            dry_run: destroy.dry_run,
        };
        let answer = self.link.unary(id, request, call!(admin.destroy_tenant)).await?;
        answer.try_map(|response| {
            let tenant = TenantRecord::required(response.tenant)?;
            Ok(TenantDestruction { tenant, sessions: response.sessions })
        })
    }

    /// Takes the destruction of a tenant back while there is time. The tenant is suspended then.
    ///
    /// # Errors
    /// `TENANT_STATE`, with its state as the [detail](ClientError::detail) `state`, when none is scheduled;
    /// `TENANT_NOT_FOUND`, also when it is destroyed; see [`ClientError`] for the rest.
    pub async fn undestroy_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::UndestroyTenantRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.undestroy_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_grace_of_zero_goes_out_as_zero() {
        let wire = |grace| Destroy { grace, ..Destroy::default() }.grace_to_wire();
        let span = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(wire(None), None);
        assert_eq!(wire(Some(Duration::ZERO)), span(0, 0));
        assert_eq!(wire(Some(Duration::from_nanos(1))), span(0, 1_000_000));
        assert_eq!(wire(Some(Duration::from_micros(999_500))), span(1, 0));
        assert_eq!(wire(Some(Duration::from_secs(86_400))), span(86_400, 0));
        assert_eq!(wire(Some(Duration::MAX)), span(i64::MAX, 999_000_000));
    }
}
