//! The data plane.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::call::{Call, Refusal};
use super::follow::{Following, Pace};
use super::{convert, parse};
use crate::model::Revision;
use crate::proto::v1;
use crate::proto::v1::context_service_server::ContextService;
use crate::service::{
    Answer, CreateSession, LastEvent, Lifetime, NewEvent, Operation, Service, UpdateSession,
};

/// Answers the calls of `ContextService`.
#[derive(Clone)]
pub struct Context {
    service: Arc<Service>,
}

impl Context {
    /// Answers from `service`.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

/// What a stream of answers is.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The expected last event that stands for "there must be none".
const NO_EVENT: &str = "none";

#[tonic::async_trait]
impl ContextService for Context {
    type ReadEventsStream = Streamed<v1::ReadEventsResponse>;
    type WatchSessionStream = Streamed<v1::WatchSessionResponse>;

    async fn create_session(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Result<Response<v1::CreateSessionResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::SessionCreate)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let repeat = parse::repeat("CreateSession", &message.request_id, &message)?;
            let create = CreateSession {
                id: parse::chosen_session(message.session_id)?,
                owner: parse::owner("owner", message.owner)?,
                lifetime: Lifetime {
                    absolute: parse::create_expiry(message.expiration)?,
                    idle: message.idle_ttl.map(|idle| parse::duration("idle_ttl", idle)).transpose()?,
                },
                labels: parse::labels("labels", message.labels)?,
            };
            let answer = self.service.create_session(&permit, &create, repeat).await?;
            Ok(answer.map(|made| v1::CreateSessionResponse { session: Some(convert::session(made)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::SessionRead)?;
        let message = request.into_inner();
        let outcome = async {
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let answer = self.service.get_session(&permit, &parse::session(session)?).await?;
            Ok(answer.map(|found| v1::GetSessionResponse { session: Some(convert::session(found)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn update_session(
        &self,
        request: Request<v1::UpdateSessionRequest>,
    ) -> Result<Response<v1::UpdateSessionResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::SessionUpdate)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("UpdateSession", &message.request_id, &message)?;
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let name = parse::session(session)?;
            let update = UpdateSession {
                lifetime: Lifetime {
                    absolute: parse::update_expiry(message.expiration)?,
                    idle: message.idle_ttl.map(|idle| parse::duration("idle_ttl", idle)).transpose()?,
                },
                labels: message.labels.map(|labels| parse::labels("labels", labels.labels)).transpose()?,
                expect: Revision::new(message.expect_revision),
            };
            let answer = self.service.update_session(&permit, &name, &update, repeat).await?;
            Ok(answer.map(|now| v1::UpdateSessionResponse { session: Some(convert::session(now)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::SessionList)?;
        let message = request.into_inner();
        let outcome = async {
            let permit = call.permit(&message.tenant).await?;
            let owner = parse::owner("owner", message.owner)?;
            let page = parse::page(message.page_size, message.page_token);
            let answer = self.service.list_sessions(&permit, owner.as_ref(), &page).await?;
            Ok(answer.map(|page| v1::ListSessionsResponse {
                sessions: page.items.into_iter().map(convert::session).collect(),
                next_page_token: page.next,
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Result<Response<v1::DeleteSessionResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::SessionDelete)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("DeleteSession", &message.request_id, &message)?;
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let answer = self.service.delete_session(&permit, &parse::session(session)?, repeat).await?;
            Ok(answer.map(|()| v1::DeleteSessionResponse {}))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn purge_sensitive(
        &self,
        request: Request<v1::PurgeSensitiveRequest>,
    ) -> Result<Response<v1::PurgeSensitiveResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::SessionPurge)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("PurgeSensitive", &message.request_id, &message)?;
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let answer = self.service.purge_sensitive(&permit, &parse::session(session)?, repeat).await?;
            Ok(answer.map(|now| v1::PurgeSensitiveResponse { session: Some(convert::session(now)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn put_entry(
        &self,
        request: Request<v1::PutEntryRequest>,
    ) -> Result<Response<v1::PutEntryResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EntryPut)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("PutEntry", &message.request_id, &message)?;
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let name = parse::session(session)?;
            let put = parse::put(parse::required("put", message.put)?)?;
            let answer = self.service.put_entry(&permit, &name, &put, repeat).await?;
            Ok(answer.map(|(entry, report)| v1::PutEntryResponse {
                metadata: Some(convert::metadata(entry)),
                redactions: convert::redactions(report),
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn read_entry(
        &self,
        request: Request<v1::ReadEntryRequest>,
    ) -> Result<Response<v1::ReadEntryResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EntryRead)?;
        let message = request.into_inner();
        let outcome = async {
            let session = parse::required("session", message.session)?;
            let reading = call.reading(&session.tenant, parse::view(message.view)?).await?;
            let name = parse::session(session)?;
            let key = parse::entry_key("key", message.key)?;
            let least = Revision::new(message.min_revision);
            let answer = self.service.read_entry(&reading, &name, &key, least).await?;
            Ok(answer.map(|entry| v1::ReadEntryResponse { entry: Some(convert::entry(entry)) }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn delete_entry(
        &self,
        request: Request<v1::DeleteEntryRequest>,
    ) -> Result<Response<v1::DeleteEntryResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EntryDelete)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("DeleteEntry", &message.request_id, &message)?;
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let view = parse::view(message.view)?;
            let reading = match message.return_value {
                true => Some(call.reading(&session.tenant, view).await?),
                false => None,
            };
            let name = parse::session(session)?;
            let delete = parse::delete(parse::required("delete", message.delete)?)?;
            let answer = self.service.delete_entry(&permit, &name, &delete, reading.as_ref(), repeat).await?;
            Ok(answer.map(|(revision, entry)| v1::DeleteEntryResponse {
                revision,
                entry: entry.map(convert::entry),
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EntryList)?;
        let message = request.into_inner();
        let outcome = async {
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let page = parse::page(message.page_size, message.page_token);
            let answer = self.service.list_entries(&permit, &parse::session(session)?, &page).await?;
            Ok(answer.map(|page| v1::ListEntriesResponse {
                entries: page.items.into_iter().map(convert::metadata).collect(),
                next_page_token: page.next,
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn read_batch(
        &self,
        request: Request<v1::ReadBatchRequest>,
    ) -> Result<Response<v1::ReadBatchResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EntryRead)?;
        let message = request.into_inner();
        let outcome = async {
            let session = parse::required("session", message.session)?;
            let reading = call.reading(&session.tenant, parse::view(message.view)?).await?;
            let name = parse::session(session)?;
            let keys = parse::entry_keys(message.keys)?;
            let answer = self.service.read_batch(&reading, &name, &keys).await?;
            Ok(answer.map(|entries| {
                let results = keys.into_iter().zip(entries).map(|(key, entry)| v1::ReadResult {
                    key: key.into_string(),
                    entry: entry.map(convert::entry),
                });
                v1::ReadBatchResponse { results: results.collect() }
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn write_batch(
        &self,
        request: Request<v1::WriteBatchRequest>,
    ) -> Result<Response<v1::WriteBatchResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EntryPut)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("WriteBatch", &message.request_id, &message)?;
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let name = parse::session(session)?;
            let writes = message.writes.into_iter().map(parse::write).collect::<Result<Vec<_>, _>>()?;
            let answer = self.service.write_batch(&permit, &name, &writes, repeat).await?;
            Ok(answer.map(|written| {
                let results = writes.iter().zip(written).map(|(write, (revision, report))| v1::WriteResult {
                    key: write.key().as_str().to_owned(),
                    revision,
                    redactions: convert::redactions(report),
                });
                v1::WriteBatchResponse { results: results.collect() }
            }))
        };
        let outcome = outcome.await;
        call.finish(outcome).await
    }

    async fn append_events(
        &self,
        request: Request<v1::AppendEventsRequest>,
    ) -> Result<Response<v1::AppendEventsResponse>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EventAppend)?;
        let message = request.into_inner();
        let outcome = async {
            let repeat = parse::repeat("AppendEvents", &message.request_id, &message)?;
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let name = parse::session(session)?;
            let stream = parse::stream(message.stream)?;
            let events = message.events.into_iter().map(new_event).collect::<Result<Vec<_>, _>>()?;
            let last = match message.expect_last_event_id {
                id if id.is_empty() => LastEvent::Any,
                id if id == NO_EVENT => LastEvent::None,
                id => LastEvent::Id(id),
            };
            let answer = self.service.append_events(&permit, &name, &stream, &events, &last, repeat).await?;
            Ok(answer.map(|(event_ids, report)| {
                let redactions = convert::redactions(report);
                v1::AppendEventsResponse { event_ids, redactions }
            }))
        };
        let outcome: Result<Answer<_>, Refusal> = outcome.await;
        call.finish(outcome).await
    }

    async fn read_events(
        &self,
        request: Request<v1::ReadEventsRequest>,
    ) -> Result<Response<Self::ReadEventsStream>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EventRead)?;
        let extensions = request.extensions().clone();
        let message = request.into_inner();
        let prepared = async {
            let session = parse::required("session", message.session)?;
            let reading = call.reading(&session.tenant, parse::view(message.view)?).await?;
            let name = parse::session(session)?;
            let stream = parse::stream(message.stream)?;
            let after = Some(message.after_event_id).filter(|after| !after.is_empty());
            let pace = Pace::new(message.follow, parse::follow(message.max_duration)?, &call, &extensions);
            Ok::<_, Refusal>((self.service.read_events(reading, name, stream, after), pace))
        };
        let (reader, pace) = match prepared.await {
            Ok(prepared) => prepared,
            Err(refused) => return Err(call.refused(refused).await),
        };
        let limit = Some(message.limit).filter(|limit| *limit != 0);
        Following::events(reader, limit).respond(call, pace).await
    }

    async fn watch_session(
        &self,
        request: Request<v1::WatchSessionRequest>,
    ) -> Result<Response<Self::WatchSessionStream>, Status> {
        let call = Call::begin(&self.service, &request, Operation::EntryWatch)?;
        let extensions = request.extensions().clone();
        let message = request.into_inner();
        let prepared = async {
            let session = parse::required("session", message.session)?;
            let permit = call.permit(&session.tenant).await?;
            let name = parse::session(session)?;
            let pace = Pace::new(true, parse::follow(message.max_duration)?, &call, &extensions);
            Ok::<_, Refusal>((self.service.watch_session(permit, name, message.resume_token), pace))
        };
        let (watcher, pace) = match prepared.await {
            Ok(prepared) => prepared,
            Err(refused) => return Err(call.refused(refused).await),
        };
        Following::watch(watcher).respond(call, pace).await
    }
}

fn new_event(event: v1::NewEvent) -> Result<NewEvent, crate::service::Error> {
    Ok(NewEvent {
        value: event.data,
        content_type: parse::content_type("events.content_type", event.content_type)?,
    })
}
