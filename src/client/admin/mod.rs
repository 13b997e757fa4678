//! The control plane: tenants, keys, jobs, approvals, tokens, the access log, the server's state.

mod approvals;
mod audit;
mod custody;
mod destroy;
mod evidence;
mod jobs;
mod keys;
mod records;
mod root;

pub use approvals::{Approval, ApprovalState};
pub use audit::{AuditEvent, AuditOrder, AuditSearch, AuditSubjects, AuditTail};
pub use custody::{ExportedKek, WrappingKey};
pub use destroy::Destroy;
pub use evidence::{AuditCheckpoint, AuditExport, AuditProof};
pub use jobs::{Job, JobKind, JobState, JobWatch};
pub use records::{
    Kek, KekDestruction, KekUse, NewToken, Rotation, ServerStatus, TenantDestruction, TenantRecord, Token,
    TokenCreated,
};
pub use root::{
    Root, RootEpoch, RootHealth, RootProvider, RootProviderCheck, RootRecipient, RootVerification,
};

use futures_util::stream::BoxStream;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::convert;
use super::error::ClientError;
use super::link::{Link, admin, call};
use super::page;
use crate::proto::v1;

/// The control plane of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    link: Link,
}

impl Admin {
    pub(super) const fn new(link: Link) -> Self {
        Self { link }
    }

    /// Creates a tenant with keys of its own.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when the name is taken; see [`ClientError`] for the rest.
    pub async fn create_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        self.make_tenant(name, false).await
    }

    /// Creates a tenant whose keys can be [exported](Self::export_kek), now and ever after.
    ///
    /// # Errors
    /// As for [`Self::create_tenant`].
    pub async fn create_exportable_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        self.make_tenant(name, true).await
    }

    async fn make_tenant(&self, name: &str, exportable: bool) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let request =
            v1::CreateTenantRequest { name: name.to_owned(), request_id: id.to_string(), exportable };
        let answer = self.link.unary(id, request, call!(admin.create_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Reads one tenant.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn describe_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let request = v1::GetTenantRequest { name: name.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Streams the tenants that the caller may know of.
    #[must_use]
    pub fn tenants(&self) -> BoxStream<'static, Result<TenantRecord, ClientError>> {
        let link = self.link.clone();
        page::stream(move |page_token| {
            let link = link.clone();
            async move {
                let request = v1::ListTenantsRequest { page_size: page::SIZE, page_token };
                let page = link.unary(Uuid::new_v4(), request, call!(admin.list_tenants)).await?.into_inner();
                let tenants = page.tenants.into_iter().map(TenantRecord::from_wire);
                Ok((tenants.collect::<Result<_, _>>()?, page.next_page_token))
            }
        })
    }

    /// Refuses all use of the tenant's data, from the next request on, until it is resumed.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn suspend_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::SuspendTenantRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.suspend_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Ends a suspension.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn resume_tenant(&self, name: &str) -> Result<Answer<TenantRecord>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::ResumeTenantRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.resume_tenant)).await?;
        answer.try_map(|response| TenantRecord::required(response.tenant))
    }

    /// Creates a token. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when the name is taken; see [`ClientError`] for the rest.
    pub async fn create_token(&self, token: NewToken) -> Result<Answer<TokenCreated>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::CreateTokenRequest {
            name: token.name,
            scopes: token.scopes.into_iter().map(|scope| records::scope_to_wire(scope).into()).collect(),
            tenants: token.tenants,
            ttl: token.ttl.map(convert::duration),
            request_id: id.to_string(),
        };
        let answer = self.link.unary(id, request, call!(admin.create_token)).await?;
        answer.try_map(|response| {
            let secret = Zeroizing::new(response.secret);
            Ok(TokenCreated { token: Token::required(response.token)?, secret })
        })
    }

    /// Streams the tokens, without their secrets.
    #[must_use]
    pub fn tokens(&self) -> BoxStream<'static, Result<Token, ClientError>> {
        let link = self.link.clone();
        page::stream(move |page_token| {
            let link = link.clone();
            async move {
                let request = v1::ListTokensRequest { page_size: page::SIZE, page_token };
                let page = link.unary(Uuid::new_v4(), request, call!(admin.list_tokens)).await?.into_inner();
                let tokens = page.tokens.into_iter().map(Token::from_wire).collect::<Result<_, _>>()?;
                Ok((tokens, page.next_page_token))
            }
        })
    }

    /// Revokes a token, from the next request on.
    ///
    /// # Errors
    /// `TOKEN_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn revoke_token(&self, name: &str) -> Result<Answer<Token>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::RevokeTokenRequest { name: name.to_owned(), request_id: id.to_string() };
        let answer = self.link.unary(id, request, call!(admin.revoke_token)).await?;
        answer.try_map(|response| Token::required(response.token))
    }

    /// Reads the state of the server.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Answer<ServerStatus>, ClientError> {
        let request = v1::GetStatusRequest {};
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_status)).await?;
        answer.try_map(ServerStatus::from_wire)
    }
}
