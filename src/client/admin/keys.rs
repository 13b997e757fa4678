//! The versions of a tenant's key-encryption key: made, promoted, disabled, destroyed. The key itself is never shown.

use std::time::Duration;

use futures_util::stream::BoxStream;
use uuid::Uuid;

use super::Admin;
use super::destroy::Destroy;
use super::records::{Kek, KekDestruction, KekUse, TenantRecord};
use crate::client::answer::Answer;
use crate::client::convert;
use crate::client::error::ClientError;
use crate::client::link::{admin, call};
use crate::client::page;
use crate::proto::v1;

/// Calls a method that takes a tenant, a version and an idempotency key, and that answers with the version.
macro_rules! change {
    ($admin:expr, $method:ident, $request:ident, $tenant:expr, $version:expr) => {{
        let id = Uuid::new_v4();
        let (tenant, version) = ($tenant.to_owned(), $version);
        let request = v1::$request { tenant, version, request_id: id.to_string() };
        let answer = $admin.link.unary(id, request, call!(admin.$method)).await?;
        answer.try_map(|response| Kek::required(response.kek))
    }};
}

impl Admin {
    /// Makes new keys for a session, whoever its owner is, and seals everything in it under them; says whether that is
    /// finished. If not, there is much in it, and the server goes on by itself.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`, `SESSION_NOT_FOUND`, `SESSION_EXPIRED`; `INTEGRITY_FAILURE` when something in it does not open; see
    /// [`ClientError`] for the rest.
    pub async fn rotate_session_key(
        &self,
        tenant: &str,
        session_id: &str,
    ) -> Result<Answer<bool>, ClientError> {
        let id = Uuid::new_v4();
        let (tenant, session_id) = (tenant.to_owned(), session_id.to_owned());
        let request = v1::RotateSessionKeyRequest { tenant, session_id, request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.rotate_session_key)).await?;
        Ok(answer.map(|response| response.finished))
    }

    /// Has new primary versions made by themselves, every 24 h to 3650 days; `None`: not any more.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`, `INVALID_FIELD`; see [`ClientError`] for the rest.
    pub async fn set_kek_rotation(
        &self,
        tenant: &str,
        period: Option<Duration>,
    ) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let (tenant, period) = (tenant.to_owned(), period.map(convert::duration));
        let request = v1::SetKekRotationRequest { tenant, period, request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.set_kek_rotation)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Streams the versions of a tenant's key-encryption key, oldest first.
    #[must_use]
    pub fn keks(&self, tenant: &str) -> BoxStream<'static, Result<Kek, ClientError>> {
        let (link, tenant) = (self.link.clone(), tenant.to_owned());
        page::stream(move |page_token| {
            let (link, tenant) = (link.clone(), tenant.clone());
            async move {
                let request = v1::ListKeksRequest { tenant, page_size: page::SIZE, page_token };
                let page = link.unary(Uuid::new_v4(), request, call!(admin.list_keks)).await?.into_inner();
                let keks = page.keks.into_iter().map(Kek::from_wire).collect::<Result<_, _>>()?;
                Ok((keks, page.next_page_token))
            }
        })
    }

    /// Reads one version.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`, `KEY_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn kek(&self, tenant: &str, version: u32) -> Result<Answer<Kek>, ClientError> {
        let request = v1::GetKekRequest { tenant: tenant.to_owned(), version };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_kek)).await?;
        answer.try_map(|response| Kek::required(response.kek))
    }

    /// Reads the receipt of a version's destruction: a C2SP signed note that says when it was destroyed or will be, and who can
    /// still open old copies of the store. [`ServerStatus::receipt_verifier`](super::ServerStatus) verifies it.
    /// `None` for a version that is not to be destroyed.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`, `KEY_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn kek_receipt(
        &self,
        tenant: &str,
        version: u32,
    ) -> Result<Answer<Option<String>>, ClientError> {
        let request = v1::GetKekRequest { tenant: tenant.to_owned(), version };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_kek)).await?;
        Ok(answer.map(|response| Some(response.receipt).filter(|receipt| !receipt.is_empty())))
    }

    /// Makes a new primary version. Older versions go on opening what they wrapped.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; `QUOTA_EXCEEDED` when there are too many versions; see [`ClientError`] for the rest.
    pub async fn rotate_kek(&self, tenant: &str) -> Result<Answer<Kek>, ClientError> {
        self.add_kek(tenant, false).await
    }

    /// Makes a new version that is pending: it wraps nothing until [`Self::promote_kek`].
    ///
    /// # Errors
    /// As for [`Self::rotate_kek`].
    pub async fn prepare_kek(&self, tenant: &str) -> Result<Answer<Kek>, ClientError> {
        self.add_kek(tenant, true).await
    }

    async fn add_kek(&self, tenant: &str, pending: bool) -> Result<Answer<Kek>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::RotateKekRequest { tenant: tenant.to_owned(), request_id: id.to_string(), pending };
        let answer = self.link.unary(id, request, call!(admin.rotate_kek)).await?;
        answer.try_map(|response| Kek::required(response.kek))
    }

    /// Makes a version that is pending or enabled the primary. What was the primary only unwraps from then on.
    ///
    /// To promote the primary is no error and changes nothing.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`, `KEY_NOT_FOUND`; `KEY_STATE`, with the version's state as the [detail](ClientError::detail)
    /// `state`, when it is in another one; see [`ClientError`] for the rest.
    pub async fn promote_kek(&self, tenant: &str, version: u32) -> Result<Answer<Kek>, ClientError> {
        change!(self, promote_kek, PromoteKekRequest, tenant, version)
    }

    /// Lets a disabled version unwrap again. One that does is left as it is.
    ///
    /// # Errors
    /// As for [`Self::promote_kek`].
    pub async fn enable_kek(&self, tenant: &str, version: u32) -> Result<Answer<Kek>, ClientError> {
        change!(self, enable_kek, EnableKekRequest, tenant, version)
    }

    /// Refuses all use of what a version wrapped with `KEY_DISABLED`, from the next request on, until it is enabled.
    ///
    /// # Errors
    /// As for [`Self::promote_kek`]; the primary is refused with `KEY_STATE`.
    pub async fn disable_kek(&self, tenant: &str, version: u32) -> Result<Answer<Kek>, ClientError> {
        change!(self, disable_kek, DisableKekRequest, tenant, version)
    }

    /// Counts the sessions that each version wraps, oldest version first.
    ///
    /// The server walks through all sessions of the tenant: with many of them it takes longer than other calls.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn count_kek_use(&self, tenant: &str) -> Result<Answer<Vec<KekUse>>, ClientError> {
        let request = v1::CountKekUseRequest { tenant: tenant.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.count_kek_use)).await?;
        Ok(answer.map(|response| response.uses.into_iter().map(KekUse::from_wire).collect()))
    }

    /// Refuses all use of a version from the next request on, and destroys it when its grace is over. What it wraps is lost
    /// then, for ever. The token needs the scope `keys-destroy`.
    ///
    /// The server counts the version's sessions first, as [`Self::count_kek_use`] does.
    ///
    /// # Errors
    /// `KEY_IN_USE`, with the number found as the [detail](ClientError::detail) `sessions`, when other than
    /// `expect_sessions` would die; `KEY_STATE`, with its state as the detail `state`, for the primary and for a version
    /// that is scheduled or destroyed already; `APPROVAL_REQUIRED`, with the details `approval_id`, `description`,
    /// `expire_time` and `scopes`, when somebody else must approve it first; `TENANT_NOT_FOUND`, `KEY_NOT_FOUND`; `INVALID_FIELD` for a grace outside
    /// of its bounds; see [`ClientError`] for the rest.
    pub async fn destroy_kek(
        &self,
        tenant: &str,
        version: u32,
        destroy: Destroy,
    ) -> Result<Answer<KekDestruction>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::DestroyKekRequest {
            tenant: tenant.to_owned(),
            version,
            request_id: id.to_string(),
            grace: destroy.grace_to_wire(),
            expect_sessions: destroy.expect_sessions,
            dry_run: destroy.dry_run,
        };
        let answer = self.link.unary(id, request, call!(admin.destroy_kek)).await?;
        answer.try_map(|response| {
            Ok(KekDestruction { kek: Kek::required(response.kek)?, sessions: response.sessions })
        })
    }

    /// Takes a destruction back while there is time. The version is disabled then.
    ///
    /// # Errors
    /// As for [`Self::promote_kek`]; `KEY_STATE` when no destruction is scheduled, or it is done.
    pub async fn cancel_kek_destruction(
        &self,
        tenant: &str,
        version: u32,
    ) -> Result<Answer<Kek>, ClientError> {
        change!(self, cancel_kek_destruction, CancelKekDestructionRequest, tenant, version)
    }
}
