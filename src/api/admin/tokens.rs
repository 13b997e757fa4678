//! Calls about tokens.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::call::Call;
use crate::api::{convert, parse};
use crate::proto::v1;
use crate::service::{CreateToken, Operation, Service};

pub(super) async fn create(
    service: &Arc<Service>,
    request: Request<v1::CreateTokenRequest>,
) -> Result<Response<v1::CreateTokenResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TokenCreate)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit_server().await?;
        let repeat = parse::repeat("CreateToken", &message.request_id, &message)?;
        let create = CreateToken {
            name: parse::token_name(message.name)?,
            scopes: parse::scopes(&message.scopes)?,
            tenants: parse::tenants(message.tenants)?,
            ttl: message.ttl.map(|ttl| parse::duration("ttl", ttl)).transpose()?,
        };
        let answer = service.create_token(&permit, &create, repeat).await?;
        Ok(answer.map(|made| v1::CreateTokenResponse {
            token: Some(convert::token(made.token)),
            secret: made.secret.to_string(),
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn list(
    service: &Arc<Service>,
    request: Request<v1::ListTokensRequest>,
) -> Result<Response<v1::ListTokensResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TokenList)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit_server().await?;
        let page = parse::page(message.page_size, message.page_token);
        let answer = service.list_tokens(&permit, &page).await?;
        Ok(answer.map(|page| v1::ListTokensResponse {
            tokens: page.items.into_iter().map(convert::token).collect(),
            next_page_token: page.next,
        }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}

pub(super) async fn revoke(
    service: &Arc<Service>,
    request: Request<v1::RevokeTokenRequest>,
) -> Result<Response<v1::RevokeTokenResponse>, Status> {
    let call = Call::begin(service, &request, Operation::TokenRevoke)?;
    let message = request.into_inner();
    let outcome = async {
        let permit = call.permit_server().await?;
        let repeat = parse::repeat("RevokeToken", &message.request_id, &message)?;
        let name = parse::token_name(message.name)?;
        let answer = service.revoke_token(&permit, &name, repeat).await?;
        Ok(answer.map(|token| v1::RevokeTokenResponse { token: Some(convert::token(token)) }))
    };
    let outcome = outcome.await;
    call.finish(outcome).await
}
