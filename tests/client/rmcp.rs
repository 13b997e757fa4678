//! The adapters for the Rust MCP SDK: what its servers and clients may expect of a session store and an event store.
//!
//! They run against the fake server, or against a real one (see `bench`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, InitializeRequestParams,
    ProgressNotificationParam, ServerCapabilities, ServerConfig, ServerJsonRpcMessage,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::session::{
    EventStore, ServerSseMessage, SessionManager, SessionState, SessionStore,
};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use strongroom::client::RmcpStore;

use crate::bench::Bench;

impl Bench {
    fn store(&self) -> Arc<RmcpStore> {
        Arc::new(RmcpStore::new(self.tenant()))
    }
}

/// A server with one tool, which reports progress before it answers.
#[derive(Clone)]
struct Reporter;

impl ServerHandler for Reporter {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(token) = context.meta.get_progress_token() {
            context.peer.notify_progress(ProgressNotificationParam::new(token, 0.5)).await.unwrap();
        }
        Ok(CallToolResult::success(vec![ContentBlock::text("arrived")]).into())
    }
}

fn config(store: &Arc<RmcpStore>) -> StreamableHttpServerConfig {
    let mut config = StreamableHttpServerConfig::default();
    config.session_store = Some(Arc::clone(store) as Arc<dyn SessionStore>);
    config
}

/// One server process: what it holds in memory is its own.
fn instance(store: &Arc<RmcpStore>) -> StreamableHttpService<Reporter, LocalSessionManager> {
    let sessions = LocalSessionManager::default().with_event_store(Arc::clone(store) as Arc<dyn EventStore>);
    StreamableHttpService::new(|| Ok(Reporter), Arc::new(sessions), config(store))
}

fn request(method: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request =
        Request::builder().method(method).uri("http://localhost/mcp").header("host", "localhost");
    request = request.header("accept", "application/json, text/event-stream");
    request = request.header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

async fn send<M: SessionManager>(
    server: &StreamableHttpService<Reporter, M>,
    request: Request<Full<Bytes>>,
) -> (StatusCode, Option<String>, String) {
    let response = server.handle(request).await;
    let session = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
    let status = response.status();
    let body = tokio::time::timeout(Duration::from_secs(20), response.into_body().collect()).await;
    let body = body.expect("the body ends").unwrap().to_bytes();
    (status, session, String::from_utf8(body.to_vec()).unwrap())
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"traveller","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const CALL: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"go","arguments":{},"_meta":{"progressToken":"p"}}}"#;

/// Initialises a session and returns its id.
async fn open(server: &StreamableHttpService<Reporter, LocalSessionManager>) -> String {
    let (status, session, _) = send(server, request("POST", &[], INITIALIZE)).await;
    assert_eq!(status, StatusCode::OK);
    let session = session.unwrap();
    let (status, _, _) = send(server, request("POST", &in_session(&session), INITIALIZED)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    session
}

fn in_session(session: &str) -> [(&str, &str); 2] {
    [("mcp-session-id", session), ("mcp-protocol-version", "2025-06-18")]
}

/// The id of the event whose text has `needle`.
fn id_of<'a>(body: &'a str, needle: &str) -> &'a str {
    let event = body.split("\n\n").find(|event| event.contains(needle)).unwrap_or_else(|| panic!("{body}"));
    event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_else(|| panic!("{event}"))
}

fn state(name: &str) -> SessionState {
    let text = format!(
        r#"{{"protocolVersion":"2025-06-18","capabilities":{{}},"clientInfo":{{"name":"{name}","version":"1"}}}}"#
    );
    SessionState::new(serde_json::from_str::<InitializeRequestParams>(&text).unwrap())
}

fn notification(number: u32) -> ServerSseMessage {
    let text = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"p","progress":{number}}}}}"#
    );
    ServerSseMessage::from_message(serde_json::from_str::<ServerJsonRpcMessage>(&text).unwrap())
}

fn response() -> ServerSseMessage {
    let text = r#"{"jsonrpc":"2.0","id":2,"result":{}}"#;
    ServerSseMessage::from_message(serde_json::from_str::<ServerJsonRpcMessage>(text).unwrap())
}

fn text_of(event: &ServerSseMessage) -> String {
    serde_json::to_string(event.message.as_deref().unwrap()).unwrap()
}

fn unique() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[tokio::test]
async fn a_state_is_loaded_as_it_was_stored_replaced_and_deleted() {
    let bench = Bench::start().await;
    let (store, id) = (bench.store(), unique());
    assert!(store.load(&id).await.unwrap().is_none());
    store.store(&id, &state("first")).await.unwrap();
    store.store(&id, &state("second")).await.unwrap();
    let loaded = bench.store().load(&id).await.unwrap().unwrap();
    assert_eq!(loaded.initialize_params.client_info.name, "second");
    assert!(store.load(&unique()).await.unwrap().is_none());
    store.delete(&id).await.unwrap();
    assert!(store.load(&id).await.unwrap().is_none());
    store.delete(&id).await.unwrap();
}

#[tokio::test]
async fn a_session_id_that_no_server_gave_out_is_unknown_and_not_an_error() {
    let bench = Bench::start().await;
    for id in ["", "with space", "ä", &"x".repeat(117), "../state", "srs_1"] {
        assert!(bench.store().load(id).await.unwrap().is_none(), "{id}");
        bench.store().delete(id).await.unwrap();
    }
    assert!(bench.store().store("with space", &state("x")).await.is_err());
}

#[tokio::test]
async fn an_initialised_session_is_stored_and_erased_when_its_client_deletes_it() {
    let bench = Bench::start().await;
    let (store, server) = (bench.store(), instance(&bench.store()));
    let session = open(&server).await;
    let stored = store.load(&session).await.unwrap().unwrap();
    assert_eq!(stored.initialize_params.client_info.name, "traveller");
    let (status, _, _) = send(&server, request("DELETE", &in_session(&session), "")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert!(store.load(&session).await.unwrap().is_none());
}

#[tokio::test]
async fn another_instance_goes_on_with_a_session() {
    let bench = Bench::start().await;
    let session = open(&instance(&bench.store())).await;
    let (status, _, body) =
        send(&instance(&bench.store()), request("POST", &in_session(&session), CALL)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("arrived"), "{body}");
    let other = Bench::start().await;
    if other.fake.is_some() {
        let stranger = instance(&other.store());
        let (status, _, _) = send(&stranger, request("POST", &in_session(&session), CALL)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn another_instance_replays_what_a_client_missed() {
    let bench = Bench::start().await;
    let first = instance(&bench.store());
    let session = open(&first).await;
    let (_, _, body) = send(&first, request("POST", &in_session(&session), CALL)).await;
    let seen = id_of(&body, "notifications/progress").to_owned();
    let missed = id_of(&body, r#""id":2"#).to_owned();
    drop(first);

    let headers = [in_session(&session).as_slice(), &[("last-event-id", seen.as_str())]].concat();
    let (status, _, replayed) = send(&instance(&bench.store()), request("GET", &headers, "")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(id_of(&replayed, r#""id":2"#), missed);
    assert!(!replayed.contains("notifications/progress"), "{replayed}");
}

#[tokio::test]
async fn an_instance_without_sessions_replays_too() {
    let bench = Bench::start().await;
    let store = bench.store();
    let stateless = || {
        let sessions = NeverSessionManager::default().with_event_store(bench.store() as Arc<dyn EventStore>);
        let config = config(&store).with_legacy_session_mode(false);
        StreamableHttpService::new(|| Ok(Reporter), Arc::new(sessions), config)
    };
    let version = ("mcp-protocol-version", "2026-07-28");
    let meta = r#""_meta":{"progressToken":"p","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
    let call = CALL.replace(r#""_meta":{"progressToken":"p"}"#, meta);
    let headers = [version, ("mcp-method", "tools/call"), ("mcp-name", "go")];
    let (status, session, body) = send(&stateless(), request("POST", &headers, &call)).await;
    assert_eq!((status, session), (StatusCode::OK, None), "{body}");
    let seen = id_of(&body, "notifications/progress").to_owned();
    let (_, _, replayed) = send(&stateless(), request("GET", &[version, ("last-event-id", &seen)], "")).await;
    assert!(replayed.contains("arrived"), "{replayed}");
}

#[tokio::test]
async fn a_replay_has_the_later_events_of_its_own_stream_under_their_first_ids() {
    let bench = Bench::start().await;
    let (store, one, two) = (bench.store(), unique(), unique());
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(store.store_event(&one, &notification(number)).await.unwrap());
        store.store_event(&two, &notification(100 + number)).await.unwrap();
    }
    let replayed: Vec<_> = bench.store().replay_events_after(&ids[1]).await.unwrap().collect().await;
    let replayed_ids: Vec<_> = replayed.iter().map(|event| event.event_id.clone().unwrap()).collect();
    assert_eq!(replayed_ids, ids[2..]);
    assert_eq!(text_of(&replayed[0]), text_of(&notification(2)));
    assert_eq!(bench.store().replay_events_after(&ids[3]).await.unwrap().count().await, 0);
}

#[tokio::test]
async fn a_hint_to_come_back_is_replayed_as_one() {
    let bench = Bench::start().await;
    let (store, stream) = (bench.store(), unique());
    let first = store.store_event(&stream, &notification(1)).await.unwrap();
    let mut hint = ServerSseMessage::default();
    hint.retry = Some(Duration::from_millis(1500));
    store.store_event(&stream, &hint).await.unwrap();
    let replayed: Vec<_> = store.replay_events_after(&first).await.unwrap().collect().await;
    assert_eq!(replayed[0].retry, Some(Duration::from_millis(1500)));
    assert!(replayed[0].message.is_none());
}

#[tokio::test]
async fn event_ids_that_were_not_given_out_are_refused() {
    let bench = Bench::start().await;
    let (store, stream) = (bench.store(), unique());
    let id = store.store_event(&stream, &notification(1)).await.unwrap();
    let (name, event) = id.split_once('.').unwrap();
    let other = store.store_event(&unique(), &notification(2)).await.unwrap();
    let foreign = other.split_once('.').unwrap().0;
    let long = "x".repeat(200);
    for bad in [
        "",
        "0",
        ".",
        &format!("{name}."),
        &format!(".{event}"),
        &format!("{foreign}.{event}"),
        &format!("{long}.1"),
    ] {
        assert!(store.replay_events_after(bad).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn instances_share_a_sessions_standalone_stream_and_its_ids_hide_the_session() {
    let bench = Bench::start().await;
    let session = unique();
    let stream = format!("{session}:common");
    let (one, two) = (bench.store(), bench.store());
    let events = (notification(1), notification(2));
    let (first, second) =
        tokio::join!(one.store_event(&stream, &events.0), two.store_event(&stream, &events.1));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.split_once('.').unwrap().0, second.split_once('.').unwrap().0);
    assert!(!first.contains(&session));
    let third = one.store_event(&stream, &notification(3)).await.unwrap();
    let replayed: Vec<_> = two.replay_events_after(&first).await.unwrap().collect().await;
    assert_eq!(replayed.last().unwrap().event_id.as_ref(), Some(&third));

    one.store(&session, &state("x")).await.unwrap();
    one.delete(&session).await.unwrap();
    assert!(two.replay_events_after(&first).await.is_err());
}

#[tokio::test]
async fn a_replay_that_follows_ends_with_the_response() {
    let bench = Bench::start().await;
    let stream = unique();
    let first = bench.store().store_event(&stream, &notification(1)).await.unwrap();
    let following = RmcpStore::new(bench.tenant()).follow(Duration::from_secs(20));
    let mut replay = following.replay_events_after(&first).await.unwrap();
    let elsewhere = bench.store();
    elsewhere.store_event(&stream, &notification(2)).await.unwrap();
    assert_eq!(text_of(&replay.next().await.unwrap()), text_of(&notification(2)));
    elsewhere.store_event(&stream, &response()).await.unwrap();
    assert_eq!(text_of(&replay.next().await.unwrap()), text_of(&response()));
    assert!(replay.next().await.is_none());
}
