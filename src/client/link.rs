//! The one door through which every call leaves: token, deadline, request id, retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;

use super::answer::Answer;
use super::error::{CallError, ClientError};
use super::retry::{Attempts, Budget, Retries};
use super::token::TokenFile;
use crate::model::limits::{BATCH_VALUE_BYTES, MESSAGE_OVERHEAD_BYTES};
use crate::proto::v1::admin_service_client::AdminServiceClient;
use crate::proto::v1::approval_service_client::ApprovalServiceClient;
use crate::proto::v1::context_service_client::ContextServiceClient;

/// Largest message in either direction: a full batch, with room for a thousand names with labels.
const MESSAGE_BYTES: usize = BATCH_VALUE_BYTES + 16 * MESSAGE_OVERHEAD_BYTES;

/// One method of a generated client, in the form that [`Link`] calls.
macro_rules! call {
    ($service:ident.$method:ident) => {
        |channel, request| async move { $service(channel).$method(request).await }
    };
}
pub(super) use call;

type Bearer = MetadataValue<Ascii>;

/// The connections to one listener, and how calls on them behave. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    channels: Arc<[Channel]>,
    turn: Arc<AtomicUsize>,
    token: Option<Arc<TokenFile>>,
    budget: Arc<Budget>,
    pub(super) timeout: Duration,
    pub(super) retries: Retries,
}

/// The data plane's generated client, with the message bounds of this client.
pub(super) fn context(channel: Channel) -> ContextServiceClient<Channel> {
    ContextServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

/// The control plane's generated client, with the message bounds of this client.
pub(super) fn admin(channel: Channel) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

/// The generated client of what waits for a second person, with the message bounds of this client.
pub(super) fn approval(channel: Channel) -> ApprovalServiceClient<Channel> {
    ApprovalServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

impl Link {
    pub(super) fn new(
        channels: Vec<Channel>,
        token: Option<Arc<TokenFile>>,
        timeout: Duration,
        retries: Retries,
    ) -> Self {
        let budget = Arc::new(Budget::new());
        Self { channels: channels.into(), turn: Arc::default(), token, budget, timeout, retries }
    }

    /// Makes a unary call until it succeeds, fails for good, or its deadline passes.
    pub(super) async fn unary<Q, R, F, Fut>(
        &self,
        id: Uuid,
        message: Q,
        call: F,
    ) -> Result<Answer<R>, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let send = |channel, mut request: Request<Q>, left| {
            request.set_timeout(left);
            call(channel, request)
        };
        self.attempts(id, message, send).await.map(Answer::from)
    }

    /// Opens a server stream, with the patience of a unary call; how long the stream then lasts is up to both ends.
    pub(super) async fn open<Q, R, F, Fut>(&self, message: Q, call: F) -> Result<Streaming<R>, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<R>>, Status>>,
    {
        let send = |channel, request, _| call(channel, request);
        self.attempts(Uuid::new_v4(), message, send).await.map(Response::into_inner)
    }

    async fn attempts<Q, R, F, Fut>(&self, id: Uuid, message: Q, send: F) -> Result<Response<R>, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>, Duration) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut attempts = Attempts::new(&self.retries, &self.budget);
        let mut reread = false;
        loop {
            let (request, bearer) = self.request(id, message.clone()).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout_at(deadline, send(self.channel()?, request, left)).await {
                Ok(Ok(response)) => {
                    self.budget.succeeded();
                    return Ok(response);
                }
                Ok(Err(status)) => CallError::from_status(&status, Some(id)),
                Err(_) => return Err(CallError::deadline(self.timeout, Some(id)).into()),
            };
            if error.code() == Code::Unauthenticated && !reread && self.changed(bearer.as_ref()).await? {
                reread = true;
                continue;
            }
            match attempts.pause(&error) {
                Some(pause) if Instant::now() + pause < deadline => sleep(pause).await,
                Some(_) | None => return Err(error.into()),
            }
        }
    }

    async fn request<Q>(&self, id: Uuid, message: Q) -> Result<(Request<Q>, Option<Bearer>), ClientError> {
        let mut request = Request::new(message);
        let id = MetadataValue::try_from(id.to_string());
        request.metadata_mut().insert("strongroom-request-id", id.map_err(|_| malformed_id())?);
        let Some(token) = &self.token else { return Ok((request, None)) };
        let bearer = token.header().await?;
        request.metadata_mut().insert("authorization", bearer.clone());
        Ok((request, Some(bearer)))
    }

    /// Whether the token file holds another token than the one that was refused.
    async fn changed(&self, refused: Option<&Bearer>) -> Result<bool, ClientError> {
        match (&self.token, refused) {
            (Some(token), Some(refused)) => token.reread(refused).await,
            (Some(_) | None, _) => Ok(false),
        }
    }

    fn channel(&self) -> Result<Channel, ClientError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.channels.len().max(1);
        self.channels.get(turn).cloned().ok_or(ClientError::NoEndpoint { listener: "data" })
    }
}

const fn malformed_id() -> ClientError {
    ClientError::Malformed { what: "request id" }
}
