//! A context server in memory, over TLS on loopback, that fails on demand.
//!
//! It keeps the promises that the client relies on (revisions, conditions, owners, request ids, event ids, pages) and none
//! of the others: nothing is encrypted, nothing is durable. A TCP relay stands in
//! front of it, so that a test can cut connections the way a network does.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use prost::Message;
use strongroom::client::{Builder, CreateSession, SessionHandle, Strongroom};
use strongroom::proto::v1::admin_service_server::AdminServiceServer;
use strongroom::proto::v1::context_service_server::{ContextService, ContextServiceServer};
use strongroom::proto::v1::{self, expectation::Condition};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::control::Control;

/// Entries and sessions on one page: small, so that lists have several.
const PAGE: usize = 2;

/// What happens to one call instead of, or besides, its work.
pub enum Fault {
    /// It is refused before any work.
    Refuse(Status),
    /// The work is done, the answer is lost.
    LoseAnswer,
    /// It is never answered.
    Hang,
}

/// One call as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: &'static str,
    pub request_id: String,
    pub call_id: String,
    pub authorization: String,
    pub timeout: String,
}

#[derive(Default)]
struct Store {
    sessions: BTreeMap<(String, String), Session>,
    answers: HashMap<String, Vec<u8>>,
    minted: u64,
    events: u64,
}

struct Session {
    wire: v1::Session,
    revision: u64,
    entries: BTreeMap<String, v1::Entry>,
    streams: HashMap<String, Vec<v1::Event>>,
    changes: broadcast::Sender<v1::EntryChange>,
    appended: Arc<Notify>,
}

/// What the service and the test share.
#[derive(Default)]
pub struct State {
    store: Mutex<Store>,
    faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Seen>>,
    token: Mutex<Option<String>>,
    sequence: AtomicU64,
    /// Ends every open event stream and watch after its next message.
    pub break_streams: Notify,
}

/// A running fake with its relay and files.
pub struct Fake {
    pub state: Arc<State>,
    pub control: Control,
    pub dir: tempfile::TempDir,
    relay: Relay,
    identity: Identity,
    stop: Option<oneshot::Sender<()>>,
}

/// Forwards connections until they are cut.
struct Relay {
    port: u16,
    target: Arc<Mutex<Option<SocketAddr>>>,
    open: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepted: Arc<AtomicU64>,
}

impl Fake {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let identity = Identity::from_pem(issued.cert.pem(), issued.signing_key.serialize_pem());
        std::fs::write(dir.path().join("ca.pem"), issued.cert.pem()).unwrap();
        std::fs::write(dir.path().join("app.token"), "srt_first\n").unwrap();
        let mut fake = Self {
            state: Arc::default(),
            control: Control::default(),
            dir,
            relay: Relay::start().await,
            identity,
            stop: None,
        };
        fake.serve().await;
        fake
    }

    /// Starts a server over the same state and sends new connections to it. The one before it, if any, finishes what it
    /// has begun and ends: each of its connections gets a GOAWAY.
    pub async fn serve(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        *self.relay.target.lock().unwrap() = Some(listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        self.stop = Some(stop);
        let tls = ServerTlsConfig::new().identity(self.identity.clone());
        let service = ContextServiceServer::new(Service { state: Arc::clone(&self.state) });
        let incoming = TcpListenerStream::new(listener)
            .map(|stream| stream.inspect(|stream| stream.set_nodelay(true).unwrap()));
        let server = Server::builder().tls_config(tls).unwrap().add_service(service);
        let server = server.add_service(AdminServiceServer::new(self.control.clone()));
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, async { drop(stopped.await) }));
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.relay.open.lock().unwrap().drain(..).for_each(|task| task.abort());
    }

    /// Refuses connections until [`Self::serve`].
    pub fn close(&self) {
        *self.relay.target.lock().unwrap() = None;
        self.cut();
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.relay.accepted.load(Ordering::SeqCst)
    }

    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("app.token")
    }

    pub fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.relay.port)
    }

    pub fn builder(&self) -> Builder {
        Strongroom::builder()
            .endpoint(self.endpoint())
            .ca_file(self.dir.path().join("ca.pem"))
            .server_name("localhost")
            .token_file(self.token_file())
    }

    pub fn client(&self) -> Strongroom {
        self.builder().build().unwrap()
    }

    /// A new session without an owner.
    pub async fn session(&self) -> SessionHandle {
        let tenant = self.client().tenant("demo").unwrap();
        tenant.create_session(CreateSession::default()).await.unwrap().into_inner()
    }
}

impl State {
    /// The next call meets `fault`; several queue up.
    pub fn fail(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// From now on only this token is good.
    pub fn require(&self, token: &str) {
        *self.token.lock().unwrap() = Some(format!("Bearer {token}"));
    }

    /// The calls of one method.
    pub fn seen(&self, method: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.method == method).cloned().collect()
    }

    /// Ends a session as its clock would.
    pub fn expire(&self, session_id: &str) {
        let mut store = self.store.lock().unwrap();
        let session = store.sessions.iter_mut().find(|((_, id), _)| id == session_id).unwrap().1;
        session.wire.expire_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    }

    async fn begin<Q>(
        &self,
        method: &'static str,
        request: Request<Q>,
        request_id: impl Fn(&Q) -> String,
    ) -> Result<(Q, bool), Status> {
        let header = |name: &str| {
            request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let seen = Seen {
            method,
            request_id: request_id(request.get_ref()),
            call_id: header("strongroom-request-id"),
            authorization: header("authorization"),
            timeout: header("grpc-timeout"),
        };
        self.seen.lock().unwrap().push(seen.clone());
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Refuse(status)) => return Err(status),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::LoseAnswer) => return Ok((request.into_inner(), true)),
            None => {}
        }
        let required = self.token.lock().unwrap().clone();
        if required.is_some_and(|token| token != seen.authorization) {
            return Err(refuse(Code::Unauthenticated, "UNAUTHENTICATED", &[]));
        }
        Ok((request.into_inner(), false))
    }

    fn end<R>(&self, lost: bool, response: R) -> Result<Response<R>, Status> {
        if lost {
            return Err(Status::unavailable("the answer was lost"));
        }
        let mut response = Response::new(response);
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst).to_string();
        response.metadata_mut().insert("strongroom-audit-log", "log-demo".parse().unwrap());
        response.metadata_mut().insert("strongroom-audit-seq", sequence.parse().unwrap());
        Ok(response)
    }

    /// Does a mutation once per request id.
    fn once<R: Message + Default>(
        &self,
        id: &str,
        work: impl FnOnce(&mut Store) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let mut store = self.store.lock().unwrap();
        if let Some(answer) = store.answers.get(id) {
            return Ok(R::decode(answer.as_slice()).unwrap());
        }
        let answer = work(&mut store)?;
        store.answers.insert(id.to_owned(), answer.encode_to_vec());
        Ok(answer)
    }
}

impl Store {
    fn session(&mut self, of: Option<v1::SessionRef>) -> Result<&mut Session, Status> {
        let of = of.unwrap();
        let found = self.sessions.get_mut(&(of.tenant, of.session_id));
        let unknown = || refuse(Code::NotFound, "SESSION_NOT_FOUND", &[]);
        let session = found.filter(|session| session.wire.owner == of.owner).ok_or_else(unknown)?;
        let end = session.wire.expire_time.unwrap_or_default();
        if end.seconds == 1 {
            return Err(refuse(
                Code::FailedPrecondition,
                "SESSION_EXPIRED",
                &[("expire_time", "1970-01-01T00:00:01Z")],
            ));
        }
        Ok(session)
    }

    fn create(&mut self, request: v1::CreateSessionRequest) -> Result<v1::Session, Status> {
        self.minted += 1;
        let id = Some(request.session_id).filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("srs_{}", self.minted));
        let name = (request.tenant, id.clone());
        if self.sessions.contains_key(&name) {
            return Err(refuse(Code::AlreadyExists, "ALREADY_EXISTS", &[]));
        }
        let end = Some(prost_types::Timestamp { seconds: 2_000_000_000, nanos: 0 });
        let wire = v1::Session {
            session_id: id,
            owner: request.owner,
            create_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
            expire_time: end,
            absolute_expire_time: end,
            idle_ttl: request.idle_ttl,
            labels: request.labels,
            revision: 1,
            sensitive_purged: false,
        };
        let session = Session {
            wire: wire.clone(),
            revision: 0,
            entries: BTreeMap::new(),
            streams: HashMap::new(),
            changes: broadcast::channel(64).0,
            appended: Arc::default(),
        };
        self.sessions.insert(name, session);
        Ok(wire)
    }
}

impl Session {
    fn check(&self, key: &str, expect: Option<v1::Expectation>) -> Result<(), Status> {
        let current =
            self.entries.get(key).and_then(|entry| entry.metadata.as_ref()).map_or(0, |m| m.revision);
        let holds = match expect.and_then(|expect| expect.condition) {
            None => true,
            Some(Condition::Absent(_)) => current == 0,
            Some(Condition::Revision(revision)) => current == revision,
        };
        let found = current.to_string();
        if holds {
            Ok(())
        } else {
            Err(refuse(Code::Aborted, "REVISION_MISMATCH", &[("current_revision", &found)]))
        }
    }

    fn put(&mut self, put: v1::Put) -> Result<v1::EntryMetadata, Status> {
        if put.key.is_empty() {
            let mut details = ErrorDetails::with_error_info("INVALID_FIELD", "strongroom.v1", HashMap::new());
            details.add_bad_request_violation("put.key", "must not be empty");
            return Err(Status::with_error_details(
                Code::InvalidArgument,
                "a field is out of its bounds",
                details,
            ));
        }
        self.check(&put.key, put.expect)?;
        self.revision += 1;
        let now = Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 });
        let metadata = v1::EntryMetadata {
            key: put.key.clone(),
            revision: self.revision,
            size: put.value.len() as u64,
            content_type: put.content_type,
            create_time: now,
            update_time: now,
            expire_time: put.expiration.map(|_| prost_types::Timestamp { seconds: 1_790_000_060, nanos: 0 }),
            labels: put.labels,
        };
        let entry = v1::Entry { metadata: Some(metadata.clone()), value: put.value };
        self.entries.insert(put.key.clone(), entry);
        drop(self.changes.send(v1::EntryChange { key: put.key, revision: self.revision, deleted: false }));
        Ok(metadata)
    }

    fn delete(&mut self, delete: &v1::Delete) -> Result<v1::Entry, Status> {
        if !self.entries.contains_key(&delete.key) {
            return Err(refuse(Code::NotFound, "ENTRY_NOT_FOUND", &[]));
        }
        self.check(&delete.key, delete.expect)?;
        self.revision += 1;
        drop(self.changes.send(v1::EntryChange {
            key: delete.key.clone(),
            revision: self.revision,
            deleted: true,
        }));
        Ok(self.entries.remove(&delete.key).unwrap())
    }

    fn after(&self, stream: &str, after: &str) -> Result<Vec<v1::Event>, Status> {
        let events = self.streams.get(stream).cloned().unwrap_or_default();
        if after.is_empty() {
            return Ok(events);
        }
        let unknown = || refuse(Code::NotFound, "EVENT_NOT_FOUND", &[]);
        let place = events.iter().position(|event| event.event_id == after).ok_or_else(unknown)?;
        Ok(events[place + 1..].to_vec())
    }
}

/// A refusal of the form that the server uses.
pub fn refuse(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let details = ErrorDetails::with_error_info(reason, "strongroom.v1", metadata.collect::<HashMap<_, _>>());
    Status::with_error_details(code, reason.to_lowercase(), details)
}

struct Service {
    state: Arc<State>,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn page<T>(items: Vec<T>, token: &str) -> (Vec<T>, String) {
    let start: usize = token.parse().unwrap_or(0);
    let more = items.len() > start + PAGE;
    let next = if more { (start + PAGE).to_string() } else { String::new() };
    (items.into_iter().skip(start).take(PAGE).collect(), next)
}

#[tonic::async_trait]
impl ContextService for Service {
    type ReadEventsStream = Streamed<v1::ReadEventsResponse>;
    type WatchSessionStream = Streamed<v1::WatchSessionResponse>;

    async fn create_session(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Result<Response<v1::CreateSessionResponse>, Status> {
        let (request, lost) = self.state.begin("CreateSession", request, |q| q.request_id.clone()).await?;
        let id = request.request_id.clone();
        let response = self
            .state
            .once(&id, |store| Ok(v1::CreateSessionResponse { session: Some(store.create(request)?) }))?;
        self.state.end(lost, response)
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let (request, lost) = self.state.begin("GetSession", request, |_| String::new()).await?;
        let session = self.state.store.lock().unwrap().session(request.session)?.wire.clone();
        self.state.end(lost, v1::GetSessionResponse { session: Some(session) })
    }

    async fn update_session(
        &self,
        request: Request<v1::UpdateSessionRequest>,
    ) -> Result<Response<v1::UpdateSessionResponse>, Status> {
        let (request, lost) = self.state.begin("UpdateSession", request, |q| q.request_id.clone()).await?;
        let id = request.request_id.clone();
        let response = self.state.once(&id, |store| {
            let session = store.session(request.session)?;
            session.wire.revision += 1;
            session.wire.labels = request.labels.map(|labels| labels.labels).unwrap_or_default();
            Ok(v1::UpdateSessionResponse { session: Some(session.wire.clone()) })
        })?;
        self.state.end(lost, response)
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let (request, lost) = self.state.begin("ListSessions", request, |_| String::new()).await?;
        let store = self.state.store.lock().unwrap();
        let all = store.sessions.values().map(|session| session.wire.clone());
        let all = all.filter(|session| request.owner.is_none() || session.owner == request.owner).collect();
        let (sessions, next_page_token) = page(all, &request.page_token);
        self.state.end(lost, v1::ListSessionsResponse { sessions, next_page_token })
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Result<Response<v1::DeleteSessionResponse>, Status> {
        let (request, lost) = self.state.begin("DeleteSession", request, |q| q.request_id.clone()).await?;
        let id = request.request_id.clone();
        let response = self.state.once(&id, |store| {
            store.session(request.session.clone())?;
            let of = request.session.unwrap();
            store.sessions.remove(&(of.tenant, of.session_id));
            Ok(v1::DeleteSessionResponse {})
        })?;
        self.state.end(lost, response)
    }

    async fn purge_sensitive(
        &self,
        request: Request<v1::PurgeSensitiveRequest>,
    ) -> Result<Response<v1::PurgeSensitiveResponse>, Status> {
        let (request, lost) = self.state.begin("PurgeSensitive", request, |q| q.request_id.clone()).await?;
        let mut store = self.state.store.lock().unwrap();
        let session = store.session(request.session)?;
        session.wire.sensitive_purged = true;
        self.state.end(lost, v1::PurgeSensitiveResponse { session: Some(session.wire.clone()) })
    }

    async fn put_entry(
        &self,
        request: Request<v1::PutEntryRequest>,
    ) -> Result<Response<v1::PutEntryResponse>, Status> {
        let (request, lost) = self.state.begin("PutEntry", request, |q| q.request_id.clone()).await?;
        let id = request.request_id.clone();
        let response = self.state.once(&id, |store| {
            let metadata = store.session(request.session)?.put(request.put.unwrap())?;
            Ok(v1::PutEntryResponse { metadata: Some(metadata), ..Default::default() })
        })?;
        self.state.end(lost, response)
    }

    async fn read_entry(
        &self,
        request: Request<v1::ReadEntryRequest>,
    ) -> Result<Response<v1::ReadEntryResponse>, Status> {
        let (request, lost) = self.state.begin("ReadEntry", request, |_| String::new()).await?;
        let mut store = self.state.store.lock().unwrap();
        let entry = store.session(request.session)?.entries.get(&request.key).cloned();
        let entry = entry.ok_or_else(|| refuse(Code::NotFound, "ENTRY_NOT_FOUND", &[]))?;
        self.state.end(lost, v1::ReadEntryResponse { entry: Some(entry) })
    }

    async fn delete_entry(
        &self,
        request: Request<v1::DeleteEntryRequest>,
    ) -> Result<Response<v1::DeleteEntryResponse>, Status> {
        let (request, lost) = self.state.begin("DeleteEntry", request, |q| q.request_id.clone()).await?;
        let id = request.request_id.clone();
        let response = self.state.once(&id, |store| {
            let session = store.session(request.session)?;
            let entry = session.delete(&request.delete.unwrap())?;
            let entry = Some(entry).filter(|_| request.return_value);
            Ok(v1::DeleteEntryResponse { revision: session.revision, entry })
        })?;
        self.state.end(lost, response)
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        let (request, lost) = self.state.begin("ListEntries", request, |_| String::new()).await?;
        let mut store = self.state.store.lock().unwrap();
        let all = store.session(request.session)?.entries.values();
        let all = all.map(|entry| entry.metadata.clone().unwrap()).collect();
        let (entries, next_page_token) = page(all, &request.page_token);
        self.state.end(lost, v1::ListEntriesResponse { entries, next_page_token })
    }

    async fn read_batch(
        &self,
        request: Request<v1::ReadBatchRequest>,
    ) -> Result<Response<v1::ReadBatchResponse>, Status> {
        let (request, lost) = self.state.begin("ReadBatch", request, |_| String::new()).await?;
        let mut store = self.state.store.lock().unwrap();
        let session = store.session(request.session)?;
        let result = |key: String| v1::ReadResult { entry: session.entries.get(&key).cloned(), key };
        let results = request.keys.into_iter().map(result).collect();
        self.state.end(lost, v1::ReadBatchResponse { results })
    }

    async fn write_batch(
        &self,
        request: Request<v1::WriteBatchRequest>,
    ) -> Result<Response<v1::WriteBatchResponse>, Status> {
        use v1::write::Write;
        let (request, lost) = self.state.begin("WriteBatch", request, |q| q.request_id.clone()).await?;
        let id = request.request_id.clone();
        let response = self.state.once(&id, |store| {
            let session = store.session(request.session)?;
            for write in &request.writes {
                match write.write.as_ref().unwrap() {
                    Write::Put(put) => session.check(&put.key, put.expect)?,
                    Write::Delete(delete) => session.check(&delete.key, delete.expect)?,
                }
            }
            let mut results = Vec::new();
            for write in request.writes {
                let key = match write.write.unwrap() {
                    Write::Put(put) => session.put(put)?.key,
                    Write::Delete(delete) => session.delete(&delete)?.metadata.unwrap().key,
                };
                results.push(v1::WriteResult { key, revision: session.revision, ..Default::default() });
            }
            Ok(v1::WriteBatchResponse { results })
        })?;
        self.state.end(lost, response)
    }

    async fn append_events(
        &self,
        request: Request<v1::AppendEventsRequest>,
    ) -> Result<Response<v1::AppendEventsResponse>, Status> {
        let (request, lost) = self.state.begin("AppendEvents", request, |q| q.request_id.clone()).await?;
        let id = request.request_id.clone();
        let response = self.state.once(&id, |store| {
            store.events += 1000;
            let first = store.events;
            let session = store.session(request.session)?;
            let stream = session.streams.entry(request.stream).or_default();
            let last = stream.last().map_or("none", |event| event.event_id.as_str());
            if !request.expect_last_event_id.is_empty() && request.expect_last_event_id != last {
                return Err(refuse(Code::Aborted, "LAST_EVENT_MISMATCH", &[]));
            }
            let mut event_ids = Vec::new();
            for (number, event) in (first..).zip(request.events) {
                let event_id = format!("{number:016x}");
                event_ids.push(event_id.clone());
                stream.push(v1::Event {
                    event_id,
                    data: event.data,
                    content_type: event.content_type,
                    append_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
                });
            }
            session.appended.notify_waiters();
            Ok(v1::AppendEventsResponse { event_ids, ..Default::default() })
        })?;
        self.state.end(lost, response)
    }

    async fn read_events(
        &self,
        request: Request<v1::ReadEventsRequest>,
    ) -> Result<Response<Self::ReadEventsStream>, Status> {
        let (mut request, lost) = self.state.begin("ReadEvents", request, |_| String::new()).await?;
        let state = Arc::clone(&self.state);
        state
            .store
            .lock()
            .unwrap()
            .session(request.session.clone())?
            .after(&request.stream, &request.after_event_id)?;
        let (out, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let (events, appended) = {
                    let mut store = state.store.lock().unwrap();
                    let Ok(session) = store.session(request.session.clone()) else { return };
                    let appended = Arc::clone(&session.appended).notified_owned();
                    (session.after(&request.stream, &request.after_event_id).unwrap(), appended)
                };
                let broken = state.break_streams.notified();
                for event in events {
                    request.after_event_id.clone_from(&event.event_id);
                    let message = v1::ReadEventsResponse { events: vec![event], caught_up: false };
                    if out.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                if !request.follow {
                    return;
                }
                tokio::select! {
                    () = appended => {}
                    () = broken => {
                        drop(out.send(Err(Status::unavailable("shutting down"))).await);
                        return;
                    }
                }
            }
        });
        self.state.end(lost, Box::pin(ReceiverStream::new(stream)) as Self::ReadEventsStream)
    }

    async fn watch_session(
        &self,
        request: Request<v1::WatchSessionRequest>,
    ) -> Result<Response<Self::WatchSessionStream>, Status> {
        let (request, lost) = self.state.begin("WatchSession", request, |_| String::new()).await?;
        let state = Arc::clone(&self.state);
        let (snapshot, mut changes) = {
            let mut store = state.store.lock().unwrap();
            let session = store.session(request.session)?;
            let change = |entry: &v1::Entry| {
                let metadata = entry.metadata.clone().unwrap();
                v1::EntryChange { key: metadata.key, revision: metadata.revision, deleted: false }
            };
            let since: u64 = request.resume_token.parse().unwrap_or(0);
            let all = session.entries.values().map(change).filter(|change| change.revision > since);
            let message = v1::WatchSessionResponse {
                changes: all.collect(),
                snapshot: request.resume_token.is_empty(),
                caught_up: true,
                resume_token: session.revision.to_string(),
            };
            (message, session.changes.subscribe())
        };
        let (out, stream) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            drop(out.send(Ok(snapshot)).await);
            loop {
                let change = tokio::select! {
                    change = changes.recv() => change,
                    () = state.break_streams.notified() => {
                        drop(out.send(Err(Status::unavailable("shutting down"))).await);
                        return;
                    }
                };
                let Ok(change) = change else { return };
                let message = v1::WatchSessionResponse {
                    resume_token: change.revision.to_string(),
                    changes: vec![change],
                    snapshot: false,
                    caught_up: true,
                };
                if out.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        self.state.end(lost, Box::pin(ReceiverStream::new(stream)) as Self::WatchSessionStream)
    }
}

impl Relay {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Self { port, target: Arc::default(), open: Arc::default(), accepted: Arc::default() };
        let (target, open, accepted) =
            (Arc::clone(&relay.target), Arc::clone(&relay.open), Arc::clone(&relay.accepted));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let Some(target) = *target.lock().unwrap() else { continue };
                let task = tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                });
                open.lock().unwrap().push(task);
            }
        });
        relay
    }
}
