//! A server in memory, over TLS on loopback, that refuses and lies on demand.
//!
//! It keeps what the command line relies on (revisions, conditions, owners, order of events) and no other promise. Data and
//! control plane share one port. All its times are the same.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use strongroom::proto::v1::admin_service_server::AdminServiceServer;
use strongroom::proto::v1::approval_service_server::ApprovalServiceServer;
use strongroom::proto::v1::context_service_server::{ContextService, ContextServiceServer};
use strongroom::proto::v1::{self, expectation::Condition};
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::command::strongroom;

mod admin;
mod approvals;

/// Every time that the fake names.
pub const TIME: &str = "2026-07-01T12:00:00.000Z";
/// The secret of every token that the fake makes.
pub const SECRET: &str = "srt_0123456789012345678901234567890123456789012";
/// The only line of every access log.
pub const LINE: &str =
    r#"{"v":1,"seq":0,"ts":1782907200000,"typ":"ctx.read","out":"deny","res":{"ver":1.0}}"#;

/// How the fake answers wrongly, in a session that has a tool's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    ChangeEvent,
    ShortenEvent,
    LoseLastEvent,
    SwapEvents,
    AddEvent,
    ChangeEntry,
    LoseEntry,
    AddEntry,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<String, Session>,
    refusals: BTreeMap<&'static str, Status>,
    lie: Option<Lie>,
    stall: Option<Duration>,
    minted: u64,
    calls: u64,
    methods: Vec<&'static str>,
    grace: Option<i64>,
    last_ttl: Option<i64>,
    tenants: BTreeMap<String, v1::Tenant>,
    keks: BTreeMap<String, Vec<v1::Kek>>,
    jobs: BTreeMap<i32, VecDeque<v1::Job>>,
    approvals: Vec<v1::Approval>,
    tokens: u64,
    filter: Option<v1::AuditFilter>,
    is_slow: bool,
}

#[derive(Default)]
struct Session {
    wire: v1::Session,
    kek_version: u32,
    entries: BTreeMap<String, v1::Entry>,
    events: BTreeMap<String, Vec<v1::Event>>,
}

#[derive(Clone, Default)]
struct Service(Arc<Mutex<State>>);

/// A running fake, with a directory that holds a profile for it.
pub struct Fake {
    dir: tempfile::TempDir,
    service: Service,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let identity = Identity::from_pem(issued.cert.pem(), issued.signing_key.serialize_pem());
        let service = Service::default();
        let guard = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(ContextServiceServer::new(service.clone()).max_decoding_message_size(32 << 20))
            .add_service(AdminServiceServer::new(service.clone()))
            .add_service(ApprovalServiceServer::new(service.clone()));
        runtime.spawn(server.serve_with_incoming(incoming));
        drop(guard);
        write_profile(dir.path(), port, &issued.cert.pem());
        Self { dir, service, _runtime: runtime }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.service.0.lock().unwrap()
    }

    /// Where to run commands: the profile is found there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// One with a tenant `demo` whose key has two versions: 1, which wraps `sessions` sessions, and the primary.
    pub fn rotated(sessions: usize) -> Self {
        let fake = Self::start();
        strongroom(fake.dir(), ["tenant", "create", "demo"]).ok();
        for _ in 0..sessions {
            fake.session();
        }
        strongroom(fake.dir(), ["key", "rotate"]).ok();
        fake
    }

    /// Creates a session and returns its handle.
    pub fn session(&self) -> String {
        let run = strongroom(self.dir(), ["session", "create", "--output", "json"]).ok();
        run.json()["session"].as_str().unwrap().to_owned()
    }

    /// From now on this method always ends so.
    pub fn refuse(&self, method: &'static str, status: Status) {
        self.state().refusals.insert(method, status);
    }

    pub fn lie(&self, lie: Lie) {
        self.state().lie = Some(lie);
    }

    /// The next put takes so long, and all others wait for it.
    pub fn stall_once(&self, span: Duration) {
        self.state().stall = Some(span);
    }

    /// From now on the job of this kind, of whatever tenant, is each of these in turn, and stays the last one. A look at it
    /// goes on to the next.
    pub fn job_will_be(&self, jobs: impl IntoIterator<Item = v1::Job>) {
        let jobs: VecDeque<_> = jobs.into_iter().collect();
        self.state().jobs.insert(jobs[0].kind, jobs);
    }

    /// From now on these are the approvals.
    pub fn approvals_will_be(&self, approvals: impl IntoIterator<Item = v1::Approval>) {
        self.state().approvals = approvals.into_iter().collect();
    }

    /// From now on new keys for a session are never finished within a call.
    pub fn be_slow(&self) {
        self.state().is_slow = true;
    }

    /// Most sessions a second of the last job that was started.
    pub fn last_rate(&self) -> Option<u32> {
        self.state().jobs.values().flatten().map(|job| job.rate).next_back()
    }

    /// Loses all sessions.
    pub fn forget(&self) {
        self.state().sessions.clear();
    }

    pub fn sessions(&self) -> usize {
        self.state().sessions.len()
    }

    /// How often a method was called.
    pub fn calls_of(&self, method: &str) -> usize {
        self.state().methods.iter().filter(|called| **called == method).count()
    }

    /// Seconds of the grace of the last destruction that was asked for, if one was named.
    pub fn last_grace(&self) -> Option<i64> {
        self.state().grace
    }

    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The bytes of all events.
    pub fn events(&self) -> Vec<Vec<u8>> {
        let state = self.state();
        let events = state.sessions.values().flat_map(|session| session.events.values().flatten());
        events.map(|event| event.data.to_vec()).collect()
    }

    /// The bytes of all entries.
    pub fn entries(&self) -> Vec<Vec<u8>> {
        let state = self.state();
        let entries = state.sessions.values().flat_map(|session| session.entries.values());
        entries.map(|entry| entry.value.to_vec()).collect()
    }

    /// Seconds of the lifetime of the last put.
    pub fn last_ttl(&self) -> Option<i64> {
        self.state().last_ttl
    }

    pub fn tokens_created(&self) -> u64 {
        self.state().tokens
    }

    /// What the last reader of an access log asked for.
    pub fn last_filter(&self) -> Option<v1::AuditFilter> {
        self.state().filter.clone()
    }
}

fn write_profile(dir: &Path, port: u16, ca: &str) {
    let keys = dir.join("keys/dev");
    fs::create_dir_all(&keys).unwrap();
    fs::write(keys.join("ca.pem"), ca).unwrap();
    fs::write(keys.join("app.token"), "srt_app\n").unwrap();
    fs::set_permissions(keys.join("app.token"), fs::Permissions::from_mode(0o600)).unwrap();
    let endpoint = format!("https://127.0.0.1:{port}");
    let profile = format!(
        "endpoint = \"{endpoint}\"\nadmin_endpoint = \"{endpoint}\"\nca_file = \"ca.pem\"\nserver_name = \"localhost\"\n\
         token_file = \"app.token\"\ntenant = \"demo\"\n"
    );
    fs::write(keys.join("profile.toml"), profile).unwrap();
}

/// A refusal with a reason.
pub fn refused(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: Vec<(String, String)> =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let details = ErrorDetails::with_error_info(
        reason,
        "strongroom.v1",
        metadata.into_iter().collect::<std::collections::HashMap<_, _>>(),
    );
    Status::with_error_details(code, "refused by the fake", details)
}

pub fn integrity_failure() -> Status {
    refused(Code::DataLoss, "INTEGRITY_FAILURE", &[])
}

pub fn permission_denied() -> Status {
    refused(Code::PermissionDenied, "PERMISSION_DENIED", &[])
}

fn time() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_782_907_200, nanos: 0 })
}

impl State {
    fn begin(&mut self, method: &'static str) -> Result<(), Status> {
        self.calls += 1;
        self.methods.push(method);
        self.refusals.get(method).map_or(Ok(()), |status| Err(status.clone()))
    }

    fn session(&mut self, named: Option<v1::SessionRef>) -> Result<&mut Session, Status> {
        let named = named.unwrap();
        let found =
            self.sessions.get_mut(&named.session_id).filter(|session| session.wire.owner == named.owner);
        found.ok_or_else(|| refused(Code::NotFound, "SESSION_NOT_FOUND", &[]))
    }
}

impl Session {
    fn has_result(&self) -> bool {
        self.entries.keys().any(|key| key.starts_with("tool-result/"))
    }

    fn check(&self, key: &str, expect: Option<&v1::Expectation>) -> Result<(), Status> {
        let current = self.entries.get(key).map_or(0, |entry| entry.metadata.as_ref().unwrap().revision);
        let holds = match expect.and_then(|expect| expect.condition.as_ref()) {
            None => true,
            Some(Condition::Absent(_)) => current == 0,
            Some(Condition::Revision(revision)) => current == *revision,
        };
        let current = current.to_string();
        let mismatch = || refused(Code::Aborted, "REVISION_MISMATCH", &[("current_revision", &current)]);
        if holds { Ok(()) } else { Err(mismatch()) }
    }

    fn put(&mut self, put: v1::Put) -> Result<v1::EntryMetadata, Status> {
        self.check(&put.key, put.expect.as_ref())?;
        let before = self.entries.get(&put.key).map_or(0, |entry| entry.metadata.as_ref().unwrap().revision);
        let metadata = v1::EntryMetadata {
            key: put.key.clone(),
            revision: before + 1,
            size: put.value.len() as u64,
            content_type: put.content_type,
            create_time: time(),
            update_time: time(),
            expire_time: None,
            labels: put.labels,
        };
        let entry = v1::Entry { metadata: Some(metadata.clone()), value: put.value };
        self.entries.insert(put.key, entry);
        Ok(metadata)
    }
}

fn changed(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    bytes.into()
}

fn lied(lie: Option<Lie>, session: &Session, mut events: Vec<v1::Event>) -> Vec<v1::Event> {
    let Some(lie) = lie.filter(|_| session.has_result()) else { return events };
    match lie {
        Lie::ChangeEvent => events[1].data = changed(&events[1].data),
        Lie::ShortenEvent => events[1].data = events[1].data.slice(1..),
        Lie::LoseLastEvent => drop(events.pop()),
        Lie::SwapEvents => events.swap(0, 1),
        Lie::AddEvent => {
            let mut stray = events[0].clone();
            stray.event_id = "stray".to_owned();
            events.push(stray);
        }
        Lie::ChangeEntry | Lie::LoseEntry | Lie::AddEntry => {}
    }
    events
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

#[tonic::async_trait]
impl ContextService for Service {
    async fn create_session(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Answer<v1::CreateSessionResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("create_session")?;
        state.minted += 1;
        let session_id = format!("srs_{:04}", state.minted);
        let wire = v1::Session {
            session_id: session_id.clone(),
            owner: request.owner,
            create_time: time(),
            expire_time: time(),
            absolute_expire_time: time(),
            idle_ttl: request.idle_ttl,
            labels: request.labels,
            revision: 1,
            sensitive_purged: false,
        };
        let kek_version = state.tenants.get(&request.tenant).map_or(1, |tenant| tenant.primary_kek_version);
        state.sessions.insert(session_id, Session { wire: wire.clone(), kek_version, ..Session::default() });
        answer(v1::CreateSessionResponse { session: Some(wire) })
    }

    async fn get_session(&self, request: Request<v1::GetSessionRequest>) -> Answer<v1::GetSessionResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("get_session")?;
        let session = state.session(request.into_inner().session)?.wire.clone();
        answer(v1::GetSessionResponse { session: Some(session) })
    }

    async fn update_session(
        &self,
        request: Request<v1::UpdateSessionRequest>,
    ) -> Answer<v1::UpdateSessionResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("update_session")?;
        let session = state.session(request.session)?;
        if request.expect_revision != 0 && request.expect_revision != session.wire.revision {
            return Err(refused(Code::Aborted, "REVISION_MISMATCH", &[]));
        }
        session.wire.revision += 1;
        session.wire.idle_ttl = request.idle_ttl.or(session.wire.idle_ttl);
        if let Some(labels) = request.labels {
            session.wire.labels = labels.labels;
        }
        answer(v1::UpdateSessionResponse { session: Some(session.wire.clone()) })
    }

    async fn list_sessions(&self, _: Request<v1::ListSessionsRequest>) -> Answer<v1::ListSessionsResponse> {
        let mut state = self.0.lock().unwrap();
        state.begin("list_sessions")?;
        let sessions = state.sessions.values().map(|session| session.wire.clone()).collect();
        answer(v1::ListSessionsResponse { sessions, next_page_token: String::new() })
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Answer<v1::DeleteSessionResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("delete_session")?;
        let id = state.session(request.session)?.wire.session_id.clone();
        state.sessions.remove(&id);
        answer(v1::DeleteSessionResponse {})
    }

    async fn purge_sensitive(
        &self,
        request: Request<v1::PurgeSensitiveRequest>,
    ) -> Answer<v1::PurgeSensitiveResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("purge_sensitive")?;
        let session = state.session(request.session)?;
        session.wire.sensitive_purged = true;
        answer(v1::PurgeSensitiveResponse { session: Some(session.wire.clone()) })
    }

    async fn put_entry(&self, request: Request<v1::PutEntryRequest>) -> Answer<v1::PutEntryResponse> {
        let stall = self.0.lock().unwrap().stall.take();
        if let Some(span) = stall {
            tokio::time::sleep(span).await;
        }
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("put_entry")?;
        let put = request.put.unwrap();
        if let Some(v1::put::Expiration::Ttl(ttl)) = &put.expiration {
            state.last_ttl = Some(ttl.seconds);
        }
        let metadata = state.session(request.session)?.put(put)?;
        answer(v1::PutEntryResponse { redactions: Vec::new(), metadata: Some(metadata) })
    }

    async fn read_entry(&self, request: Request<v1::ReadEntryRequest>) -> Answer<v1::ReadEntryResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("read_entry")?;
        let lie = state.lie;
        let session = state.session(request.session)?;
        let missing = || refused(Code::NotFound, "ENTRY_NOT_FOUND", &[]);
        let mut entry = session.entries.get(&request.key).cloned().ok_or_else(missing)?;
        match lie.filter(|_| session.has_result()) {
            Some(Lie::LoseEntry) => return Err(missing()),
            Some(Lie::ChangeEntry) => entry.value = changed(&entry.value),
            _ => {}
        }
        answer(v1::ReadEntryResponse { entry: Some(entry) })
    }

    async fn delete_entry(
        &self,
        request: Request<v1::DeleteEntryRequest>,
    ) -> Answer<v1::DeleteEntryResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("delete_entry")?;
        let delete = request.delete.unwrap();
        let session = state.session(request.session)?;
        session.check(&delete.key, delete.expect.as_ref())?;
        let entry = session.entries.remove(&delete.key);
        let entry = entry.ok_or_else(|| refused(Code::NotFound, "ENTRY_NOT_FOUND", &[]))?;
        let revision = entry.metadata.as_ref().unwrap().revision + 1;
        answer(v1::DeleteEntryResponse { revision, entry: request.return_value.then_some(entry) })
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Answer<v1::ListEntriesResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("list_entries")?;
        let lie = state.lie;
        let session = state.session(request.session)?;
        let mut entries: Vec<_> =
            session.entries.values().filter_map(|entry| entry.metadata.clone()).collect();
        if lie == Some(Lie::AddEntry) && session.has_result() {
            entries.push(v1::EntryMetadata { key: "stray".to_owned(), ..entries[0].clone() });
        }
        answer(v1::ListEntriesResponse { entries, next_page_token: String::new() })
    }

    async fn read_batch(&self, _: Request<v1::ReadBatchRequest>) -> Answer<v1::ReadBatchResponse> {
        Err(Status::unimplemented("the command line does not read batches"))
    }

    async fn write_batch(&self, request: Request<v1::WriteBatchRequest>) -> Answer<v1::WriteBatchResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("write_batch")?;
        let session = state.session(request.session)?;
        let mut results = Vec::new();
        for write in request.writes {
            let Some(v1::write::Write::Put(put)) = write.write else { continue };
            let metadata = session.put(put)?;
            results.push(v1::WriteResult {
                redactions: Vec::new(),
                key: metadata.key,
                revision: metadata.revision,
            });
        }
        answer(v1::WriteBatchResponse { results })
    }

    async fn append_events(
        &self,
        request: Request<v1::AppendEventsRequest>,
    ) -> Answer<v1::AppendEventsResponse> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("append_events")?;
        let session = state.session(request.session)?;
        let session_id = session.wire.session_id.clone();
        let events = session.events.entry(request.stream).or_default();
        let last = events.last().map_or("none", |event| event.event_id.as_str());
        if !request.expect_last_event_id.is_empty() && request.expect_last_event_id != last {
            return Err(refused(Code::Aborted, "LAST_EVENT_MISMATCH", &[]));
        }
        let mut event_ids = Vec::new();
        for new in request.events {
            let event_id = format!("{session_id}-{:06}", events.len());
            event_ids.push(event_id.clone());
            let content_type = new.content_type;
            events.push(v1::Event { event_id, data: new.data, content_type, append_time: time() });
        }
        answer(v1::AppendEventsResponse { redactions: Vec::new(), event_ids })
    }

    type ReadEventsStream = Pin<Box<dyn Stream<Item = Result<v1::ReadEventsResponse, Status>> + Send>>;

    async fn read_events(&self, request: Request<v1::ReadEventsRequest>) -> Answer<Self::ReadEventsStream> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("read_events")?;
        let lie = state.lie;
        let session = state.session(request.session)?;
        let events = session.events.get(&request.stream).cloned().unwrap_or_default();
        let events = lied(lie, session, events);
        let after =
            events.iter().position(|event| event.event_id == request.after_event_id).map_or(0, |at| at + 1);
        let limit = if request.limit == 0 { usize::MAX } else { usize::try_from(request.limit).unwrap() };
        let events: Vec<_> = events.into_iter().skip(after).take(limit).collect();
        let messages: Vec<_> = events
            .chunks(2)
            .map(|events| Ok(v1::ReadEventsResponse { events: events.to_vec(), caught_up: false }))
            .collect();
        answer(Box::pin(tokio_stream::iter(messages)))
    }

    type WatchSessionStream = Pin<Box<dyn Stream<Item = Result<v1::WatchSessionResponse, Status>> + Send>>;

    async fn watch_session(
        &self,
        request: Request<v1::WatchSessionRequest>,
    ) -> Answer<Self::WatchSessionStream> {
        let (mut state, request) = (self.0.lock().unwrap(), request.into_inner());
        state.begin("watch_session")?;
        let session = state.session(request.session)?;
        let metadata = session.entries.values().filter_map(|entry| entry.metadata.clone());
        let changes = metadata.map(|found| v1::EntryChange {
            key: found.key,
            revision: found.revision,
            deleted: false,
        });
        let first = v1::WatchSessionResponse {
            changes: changes.collect(),
            snapshot: true,
            caught_up: true,
            resume_token: "resume".to_owned(),
        };
        let stream = tokio_stream::StreamExt::chain(tokio_stream::once(Ok(first)), tokio_stream::pending());
        answer(Box::pin(stream))
    }
}
