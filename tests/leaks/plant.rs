//! Plants marked words in every field of every call, and keeps what comes back.
//!
//! First every method is called with a good request whose names and values are marked words. Then each of these requests is sent again for each
//! of its fields that hold text or bytes, with a marked word in that field, by callers who may do everything, little and nothing: most of these
//! calls are refused, and each refusal is kept.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use strongroom::crypto::{Secret, WrappingPublicKey, recovery};
use strongroom::env::SystemEntropy;
use strongroom::proto::v1;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::keys::{self, RawKey};
use crate::markers::{Kind, Markers};
use crate::raw::{Protocol, Wire, call};
use crate::support::{Daemon, Login};

/// What came back that others than the caller could see.
#[derive(Default)]
pub struct Harvest {
    /// What each refusal said: message, details and metadata.
    pub refusals: Vec<(String, Vec<u8>)>,
    /// Lines of the access logs.
    pub lines: Vec<String>,
    /// Secrets of tokens that were made.
    pub tokens: Vec<String>,
    /// Keys of the tenant and of the server, and those of a session that lives.
    pub live_keys: Vec<RawKey>,
    /// Keys of a session that was deleted.
    pub dead_keys: Vec<RawKey>,
    /// Answers that held a marked word: its planter's own.
    pub answers_with_words: usize,
}

impl Harvest {
    /// Keeps a refusal.
    pub fn refused(&mut self, what: String, status: &Status) {
        let mut said = format!("{status:?}\n{}\n", status.message()).into_bytes();
        said.extend_from_slice(status.details());
        self.refusals.push((what, said));
    }
}

/// Connections of one caller.
pub struct Caller {
    name: &'static str,
    token: Option<String>,
    data: Wire,
    admin: Wire,
}

impl Caller {
    pub fn new(daemon: &Daemon, name: &'static str, token: Option<String>) -> Self {
        let wire = |endpoint: String| Wire::new(daemon.channel(&endpoint).map_err(Into::into));
        Self { name, token, data: wire(daemon.endpoint()), admin: wire(daemon.admin_endpoint()) }
    }

    /// A request with this caller's token.
    pub fn request(&self, message: Bytes) -> Request<Bytes> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let bearer = AsciiMetadataValue::try_from(format!("Bearer {token}")).unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// Makes a call, whoever it is that answers it.
    pub async fn send(&self, path: &str, request: Request<Bytes>) -> Result<Vec<Bytes>, Status> {
        let wire = if path.contains("ContextService") { &self.data } else { &self.admin };
        call(wire, path, request).await
    }
}

/// One planting.
pub struct Planting<'a> {
    daemon: &'a Daemon,
    markers: &'a mut Markers,
    harvest: &'a mut Harvest,
    protocol: Protocol,
    everything: Caller,
    /// A good request without a request id for each method, by its path.
    good: BTreeMap<String, Vec<u8>>,
}

impl<'a> Planting<'a> {
    pub fn new(daemon: &'a Daemon, markers: &'a mut Markers, harvest: &'a mut Harvest) -> Self {
        let everything = Caller::new(daemon, "who may do everything", Some(daemon.token(Login::Admin)));
        Self { daemon, markers, harvest, protocol: Protocol::read(), everything, good: BTreeMap::new() }
    }

    /// Plants in every field of every method.
    pub async fn everywhere(mut self) {
        let [doomed, session] = self.sessions().await;
        self.entries(&session).await;
        self.events(&session).await;
        self.ends(&session, &doomed).await;
        self.tenants().await;
        self.tokens().await;
        self.root().await;
        self.logs().await;
        self.approvals().await;
        let called: BTreeSet<&String> = self.good.keys().collect();
        assert_eq!(called, self.protocol.methods.keys().collect(), "a method without a good request");
        self.fields().await;
    }

    fn name(&mut self, place: &str) -> String {
        self.markers.word(Kind::Name, place)
    }

    fn content(&mut self, place: &str) -> Bytes {
        let word = self.markers.word(Kind::Content, place);
        Bytes::from(word)
    }

    /// A value that holds its word every few bytes.
    fn large(&mut self, place: &str, length: usize) -> Bytes {
        let word = self.markers.word(Kind::Content, place);
        let line = format!("{word} and something between, {:0>900}\n", "");
        Bytes::from(line.repeat(length / line.len() + 1))
    }

    /// Makes a call that must succeed; twice under one request id when the method has such.
    async fn good<R: Message + Default>(&mut self, method: &str, request: impl Message) -> R {
        let protocol = &self.protocol.methods;
        let path = protocol.keys().find(|path| path.ends_with(&format!("/{method}"))).unwrap().clone();
        let plain = request.encode_to_vec();
        let identified = self.protocol.fields(&path).into_iter().find(|field| field.name == "request_id");
        let sent = match &identified {
            Some(field) => field.set(&plain, &Uuid::new_v4().to_string()),
            None => Bytes::from(plain.clone()),
        };
        let mut answers = Vec::new();
        for _ in 0..=u8::from(identified.is_some()) {
            let answer = self.everything.send(&path, self.everything.request(sent.clone())).await;
            answers = answer.unwrap_or_else(|status| panic!("{method}: {status:?}"));
            let prefix = self.markers.prefix().as_bytes();
            let found = |answer: &Bytes| answer.windows(prefix.len()).any(|part| part == prefix);
            self.harvest.answers_with_words += usize::from(answers.iter().any(found));
        }
        self.good.insert(path, plain);
        answers.into_iter().next().map(|answer| R::decode(answer).unwrap()).unwrap_or_default()
    }

    async fn sessions(&mut self) -> [v1::SessionRef; 2] {
        let mut made = Vec::new();
        for whose in ["deleted: ", ""] {
            let mut name = |place: &str| self.markers.word(Kind::Name, format!("{whose}{place}"));
            let session = v1::SessionRef {
                tenant: "demo".to_owned(),
                session_id: name("session id"),
                owner: Some(v1::Owner {
                    issuer: name("owner.issuer"),
                    client_id: name("owner.client_id"),
                    subject: name("owner.subject"),
                }),
            };
            let create = v1::CreateSessionRequest {
                tenant: session.tenant.clone(),
                session_id: session.session_id.clone(),
                owner: session.owner.clone(),
                labels: [(name("session label"), name("session label's value"))].into(),
                ..Default::default()
            };
            self.good::<v1::CreateSessionResponse>("CreateSession", create).await;
            made.push(session);
        }
        let labels = [(self.name("later session label"), self.name("later session label's value"))].into();
        let labels = Some(v1::Labels { labels });
        let session = Some(made[1].clone());
        let update = v1::UpdateSessionRequest { session: session.clone(), labels, ..Default::default() };
        self.good::<v1::UpdateSessionResponse>("UpdateSession", update).await;
        self.good::<v1::GetSessionResponse>("GetSession", v1::GetSessionRequest { session }).await;
        let mut list =
            v1::ListSessionsRequest { tenant: "demo".to_owned(), page_size: 1, ..Default::default() };
        let page: v1::ListSessionsResponse = self.good("ListSessions", list.clone()).await;
        list.page_token = page.next_page_token;
        self.good::<v1::ListSessionsResponse>("ListSessions", list).await;
        made.try_into().unwrap()
    }

    fn put(&mut self, value: Bytes) -> v1::Put {
        v1::Put {
            key: self.name("entry key"),
            value,
            content_type: format!("text/{}", self.name("content type")),
            labels: [(self.name("entry label"), self.name("entry label's value"))].into(),
            ..Default::default()
        }
    }

    async fn entries(&mut self, session: &v1::SessionRef) {
        let session = Some(session.clone());
        let values = [
            self.content("a value"),
            self.large("a value of 10 kB", 10_000),
            self.large("a value of 200 kB", 200_000),
            self.large("a value of 3 MB", 3_000_000),
        ];
        let mut keys = Vec::new();
        for value in values {
            let put = self.put(value);
            keys.push(put.key.clone());
            let put = v1::PutEntryRequest { session: session.clone(), put: Some(put), ..Default::default() };
            self.good::<v1::PutEntryResponse>("PutEntry", put).await;
        }
        for key in &keys {
            let (key, view) = (key.clone(), v1::View::Full.into());
            let read = v1::ReadEntryRequest { session: session.clone(), key, view, min_revision: 0 };
            self.good::<v1::ReadEntryResponse>("ReadEntry", read).await;
        }
        let list = v1::ListEntriesRequest { session: session.clone(), page_size: 2, ..Default::default() };
        self.good::<v1::ListEntriesResponse>("ListEntries", list).await;
        let read =
            v1::ReadBatchRequest { session: session.clone(), keys: keys[..3].into(), ..Default::default() };
        self.good::<v1::ReadBatchResponse>("ReadBatch", read).await;
        let value = self.content("a value of a batch");
        let written = v1::write::Write::Put(self.put(value));
        let deleted = v1::write::Write::Delete(v1::Delete { key: keys[3].clone(), expect: None });
        let writes = [written, deleted].map(|write| v1::Write { write: Some(write) }).into();
        let write = v1::WriteBatchRequest { session: session.clone(), writes, ..Default::default() };
        self.good::<v1::WriteBatchResponse>("WriteBatch", write).await;
        let delete = Some(v1::Delete { key: keys[2].clone(), expect: None });
        let take = v1::DeleteEntryRequest {
            session: session.clone(),
            delete,
            return_value: true,
            view: v1::View::Full.into(),
            ..Default::default()
        };
        self.good::<v1::DeleteEntryResponse>("DeleteEntry", take).await;
        let max_duration = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let watch = v1::WatchSessionRequest { session, max_duration, ..Default::default() };
        self.good::<v1::WatchSessionResponse>("WatchSession", watch).await;
    }

    /// A value of which a part is cut out, and its full view: from then on the sensitive key is in use.
    async fn sensitive(&mut self, session: &v1::SessionRef) {
        let word = self.markers.word(Kind::Content, "a password in a value");
        let put = self.put(Bytes::from(format!("{{\"password\":\"{word}\"}}")));
        let (session, key, view) = (Some(session.clone()), put.key.clone(), v1::View::Full.into());
        let put = v1::PutEntryRequest { session: session.clone(), put: Some(put), ..Default::default() };
        self.good::<v1::PutEntryResponse>("PutEntry", put).await;
        let read = v1::ReadEntryRequest { session, key, view, min_revision: 0 };
        self.good::<v1::ReadEntryResponse>("ReadEntry", read).await;
    }

    async fn events(&mut self, session: &v1::SessionRef) {
        let session = Some(session.clone());
        let stream = self.name("stream");
        let events = [self.content("an event"), self.large("an event of 300 kB", 300_000)];
        let content_type = self.name("an event's content type");
        let events = events.map(|data| v1::NewEvent { data, content_type: content_type.clone() }).into();
        let append = v1::AppendEventsRequest {
            session: session.clone(),
            stream: stream.clone(),
            events,
            ..Default::default()
        };
        self.good::<v1::AppendEventsResponse>("AppendEvents", append).await;
        let view = v1::View::Full.into();
        let read = v1::ReadEventsRequest { session, stream, view, ..Default::default() };
        self.good::<v1::ReadEventsResponse>("ReadEvents", read).await;
    }

    async fn ends(&mut self, session: &v1::SessionRef, doomed: &v1::SessionRef) {
        let value = self.content("a value of a session that is deleted");
        let put = Some(self.put(value));
        let put = v1::PutEntryRequest { session: Some(doomed.clone()), put, ..Default::default() };
        self.good::<v1::PutEntryResponse>("PutEntry", put).await;
        let whose = "a session that got new keys";
        let [_, former] = keys::of_session(self.daemon, "demo", &session.session_id, whose).await;
        let session_id = session.session_id.clone();
        let rotate =
            v1::RotateSessionKeyRequest { tenant: "demo".to_owned(), session_id, ..Default::default() };
        self.good::<v1::RotateSessionKeyResponse>("RotateSessionKey", rotate).await;
        self.sensitive(session).await;
        let [own, live] = keys::of_session(self.daemon, "demo", &session.session_id, "a session").await;
        let [_, dead] = keys::of_session(self.daemon, "demo", &doomed.session_id, "a deleted session").await;
        self.harvest.live_keys = [own, live].concat();
        self.harvest.dead_keys = [dead, former].concat();
        let purge = v1::PurgeSensitiveRequest { session: Some(doomed.clone()), ..Default::default() };
        self.good::<v1::PurgeSensitiveResponse>("PurgeSensitive", purge).await;
        let delete = v1::DeleteSessionRequest { session: Some(doomed.clone()), ..Default::default() };
        self.good::<v1::DeleteSessionResponse>("DeleteSession", delete).await;
        // What follows uses the session that lives.
        let value = self.content("the newest value");
        let put = Some(self.put(value));
        let put = v1::PutEntryRequest { session: Some(session.clone()), put, ..Default::default() };
        self.good::<v1::PutEntryResponse>("PutEntry", put).await;
    }

    async fn tenants(&mut self) {
        let name = self.name("tenant");
        let create = v1::CreateTenantRequest { name: name.clone(), exportable: true, ..Default::default() };
        self.good::<v1::CreateTenantResponse>("CreateTenant", create).await;
        self.good::<v1::GetTenantResponse>("GetTenant", v1::GetTenantRequest { name: name.clone() }).await;
        self.good::<v1::ListTenantsResponse>("ListTenants", v1::ListTenantsRequest::default()).await;
        let rotate = v1::RotateKekRequest { tenant: name.clone(), ..Default::default() };
        self.good::<v1::RotateKekResponse>("RotateKek", rotate).await;
        let list = v1::ListKeksRequest { tenant: name.clone(), ..Default::default() };
        self.good::<v1::ListKeksResponse>("ListKeks", list).await;
        self.keys(&name).await;
        let suspend = v1::SuspendTenantRequest { name: name.clone(), ..Default::default() };
        self.good::<v1::SuspendTenantResponse>("SuspendTenant", suspend).await;
        let destroy = v1::DestroyTenantRequest { name: name.clone(), ..Default::default() };
        self.good::<v1::DestroyTenantResponse>("DestroyTenant", destroy).await;
        let undestroy = v1::UndestroyTenantRequest { name: name.clone(), ..Default::default() };
        self.good::<v1::UndestroyTenantResponse>("UndestroyTenant", undestroy).await;
        let resume = v1::ResumeTenantRequest { name, ..Default::default() };
        self.good::<v1::ResumeTenantResponse>("ResumeTenant", resume).await;
    }

    /// Versions of a tenant's key, of which the second is the primary, and jobs.
    async fn keys(&mut self, name: &str) {
        let tenant = || name.to_owned();
        let kind = v1::JobKind::Rewrap.into();
        let period = Some(prost_types::Duration { seconds: 30 * 24 * 3600, nanos: 0 });
        let set = v1::SetKekRotationRequest { tenant: tenant(), period, ..Default::default() };
        self.good::<v1::SetKekRotationResponse>("SetKekRotation", set).await;
        let get = v1::GetKekRequest { tenant: tenant(), version: 1 };
        self.good::<v1::GetKekResponse>("GetKek", get).await;
        let promote = v1::PromoteKekRequest { tenant: tenant(), version: 1, ..Default::default() };
        self.good::<v1::PromoteKekResponse>("PromoteKek", promote).await;
        let disable = v1::DisableKekRequest { tenant: tenant(), version: 2, ..Default::default() };
        self.good::<v1::DisableKekResponse>("DisableKek", disable).await;
        let enable = v1::EnableKekRequest { tenant: tenant(), version: 2, ..Default::default() };
        self.good::<v1::EnableKekResponse>("EnableKek", enable).await;
        let count = v1::CountKekUseRequest { tenant: tenant() };
        self.good::<v1::CountKekUseResponse>("CountKekUse", count).await;
        let destroy = v1::DestroyKekRequest { tenant: tenant(), version: 2, ..Default::default() };
        self.good::<v1::DestroyKekResponse>("DestroyKek", destroy).await;
        let cancel = v1::CancelKekDestructionRequest { tenant: tenant(), version: 2, ..Default::default() };
        self.good::<v1::CancelKekDestructionResponse>("CancelKekDestruction", cancel).await;
        let get = v1::GetWrappingKeyRequest { tenant: tenant() };
        let made: v1::GetWrappingKeyResponse = self.good("GetWrappingKey", get).await;
        let key = made.wrapping_key.unwrap();
        let material = Secret::generate(&SystemEntropy::new()).unwrap();
        let public = WrappingPublicKey(key.public_key[..].try_into().unwrap());
        let import = v1::ImportKekRequest {
            tenant: tenant(),
            wrapping_key_uid: key.uid,
            wrapped: public.wrap_now(key.info.as_bytes(), &material).unwrap().0.to_vec().into(),
            pending: true,
            ..Default::default()
        };
        self.good::<v1::ImportKekResponse>("ImportKek", import).await;
        self.harvest.live_keys.push(("imported key material".to_owned(), *material.expose()));
        let recipient_public_key = vec![9; 32].into();
        let export = v1::ExportKekRequest { tenant: tenant(), version: 1, recipient_public_key };
        self.good::<v1::ExportKekResponse>("ExportKek", export).await;
        let start = v1::StartJobRequest { tenant: tenant(), kind, ..Default::default() };
        self.good::<v1::StartJobResponse>("StartJob", start).await;
        self.good::<v1::GetJobResponse>("GetJob", v1::GetJobRequest { tenant: tenant(), kind }).await;
        self.good::<v1::ListJobsResponse>("ListJobs", v1::ListJobsRequest { tenant: tenant() }).await;
        self.good::<v1::CancelJobResponse>("CancelJob", v1::CancelJobRequest { tenant: tenant(), kind })
            .await;
    }

    async fn root(&mut self) {
        let public_key = recovery::write_public(&recovery::generate(&SystemEntropy::new()).unwrap().public());
        let add = v1::AddRootRecipientRequest { public_key: public_key.clone(), ..Default::default() };
        self.good::<v1::AddRootRecipientResponse>("AddRootRecipient", add).await;
        let remove = v1::RemoveRootRecipientRequest { key_id: public_key, ..Default::default() };
        self.good::<v1::RemoveRootRecipientResponse>("RemoveRootRecipient", remove).await;
        self.good::<v1::MigrateRootResponse>("MigrateRoot", v1::MigrateRootRequest::default()).await;
        self.good::<v1::RotateRootResponse>("RotateRoot", v1::RotateRootRequest::default()).await;
        self.good::<v1::VerifyRootResponse>("VerifyRoot", v1::VerifyRootRequest {}).await;
        self.good::<v1::GetRootResponse>("GetRoot", v1::GetRootRequest {}).await;
    }

    async fn tokens(&mut self) {
        let tenant = self.name("a token's tenant");
        for tenants in [vec!["demo".to_owned()], vec!["demo".to_owned(), tenant]] {
            let create = v1::CreateTokenRequest {
                name: self.name("token name"),
                scopes: vec![v1::Scope::Read.into()],
                tenants,
                ..Default::default()
            };
            let made: v1::CreateTokenResponse = self.good("CreateToken", create.clone()).await;
            let holder =
                Caller::new(self.daemon, "who holds a token that was made", Some(made.secret.clone()));
            let list = v1::ListSessionsRequest { tenant: "demo".to_owned(), ..Default::default() };
            let list = holder.request(list.encode_to_vec().into());
            let refused = holder.send("/strongroom.v1.ContextService/ListSessions", list).await.unwrap_err();
            self.harvest.refused("ListSessions by who may only read".to_owned(), &refused);
            self.harvest.tokens.push(made.secret);
            let revoke = v1::RevokeTokenRequest { name: create.name, ..Default::default() };
            self.good::<v1::RevokeTokenResponse>("RevokeToken", revoke).await;
        }
        self.good::<v1::ListTokensResponse>("ListTokens", v1::ListTokensRequest::default()).await;
    }

    /// In dev mode nothing waits for a second person: what asks for one approval is refused, however good it is.
    async fn approvals(&mut self) {
        self.good::<v1::ListApprovalsResponse>("ListApprovals", v1::ListApprovalsRequest::default()).await;
        let approval_id = Uuid::new_v4().to_string();
        let of_one = v1::GetApprovalRequest { approval_id }.encode_to_vec();
        for method in ["GetApproval", "Approve", "Deny"] {
            let path = format!("/strongroom.v1.ApprovalService/{method}");
            let request = self.everything.request(of_one.clone().into());
            let refused = self.everything.send(&path, request).await.unwrap_err();
            self.harvest.refused(format!("{method} of none"), &refused);
            self.good.insert(path, of_one.clone());
        }
    }

    async fn logs(&mut self) {
        let search = v1::SearchAuditRequest { tenant: "demo".to_owned(), ..Default::default() };
        self.good::<v1::SearchAuditResponse>("SearchAudit", search).await;
        let tenant = || "demo".to_owned();
        let checkpoint = v1::GetCheckpointRequest { tenant: tenant(), ..Default::default() };
        self.good::<v1::GetCheckpointResponse>("GetCheckpoint", checkpoint).await;
        let proof = v1::GetProofRequest { tenant: tenant(), sequence: 0 };
        self.good::<v1::GetProofResponse>("GetProof", proof).await;
        let export = v1::ExportAuditRequest { tenant: tenant() };
        self.good::<v1::ExportAuditResponse>("ExportAudit", export).await;
        let tail = v1::TailAuditRequest { tenant: "demo".to_owned(), backlog: 10, ..Default::default() };
        self.good::<v1::TailAuditResponse>("TailAudit", tail).await;
        self.good::<v1::GetStatusResponse>("GetStatus", v1::GetStatusRequest {}).await;
    }

    /// Sends every good request again for each of its fields, with a word in it.
    async fn fields(&mut self) {
        let wrong = format!("srt_{}", self.markers.word(Kind::Token, "a token that nobody has"));
        let little = Caller::new(self.daemon, "who may read", Some(self.daemon.token(Login::Reader)));
        let stranger = Caller::new(self.daemon, "who has a wrong token", Some(wrong));
        let nobody = Caller::new(self.daemon, "who has no token", None);
        for (path, good) in std::mem::take(&mut self.good) {
            for field in self.protocol.fields(&path) {
                for caller in [&self.everything, &little, &stranger, &nobody] {
                    let what = format!("{path} {} by {}", field.name, caller.name);
                    let word = self.markers.word(kind_of(&field.name, field.is_bytes), what.clone());
                    let request = caller.request(field.set(&good, &word));
                    if let Err(status) = caller.send(&path, request).await {
                        self.harvest.refused(what, &status);
                    }
                }
            }
        }
    }
}

/// All lines of a log; of the server's own when `tenant` is empty.
pub async fn read_log(daemon: &Daemon, tenant: &str) -> Vec<String> {
    let mut admin = daemon.control(Login::Admin);
    let mut search =
        v1::SearchAuditRequest { tenant: tenant.to_owned(), page_size: 1000, ..Default::default() };
    let mut lines = Vec::new();
    loop {
        let page = admin.search_audit(search.clone()).await.unwrap().into_inner();
        lines.extend(page.events.into_iter().map(|event| event.line));
        if page.next_page_token.is_empty() {
            return lines;
        }
        search.page_token = page.next_page_token;
    }
}

fn kind_of(field: &str, is_bytes: bool) -> Kind {
    const OF_THE_REQUEST: [&str; 7] = [
        "page_token",
        "resume_token",
        "request_id",
        "after_event_id",
        "expect_last_event_id",
        "filter.operations",
        "filter.outcomes",
    ];
    match field {
        _ if is_bytes => Kind::Content,
        field if OF_THE_REQUEST.contains(&field) => Kind::Request,
        _ => Kind::Name,
    }
}
