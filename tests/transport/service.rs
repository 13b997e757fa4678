//! A service whose answers are chosen by its callers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use strongroom::api::layers::{Correlation, Deadline};
use strongroom::api::transport::{Closing, Peer};
use strongroom::proto::v1::context_service_server::ContextService;
use strongroom::proto::v1::{self, ReadEventsResponse};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// `PutEntry` does what its key says, `ReadEntry` answers with as many bytes as its key says, `ReadEvents` streams.
#[derive(Debug, Clone)]
pub struct Scripted {
    /// Lets calls of `wait` go on, one a permit.
    pub gate: Arc<Semaphore>,
    /// Handlers that are at work.
    pub running: Arc<AtomicUsize>,
    /// Handlers that were begun.
    pub begun: Arc<AtomicUsize>,
}

impl Scripted {
    pub fn new() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), running: Arc::default(), begun: Arc::default() }
    }

    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Running {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(&self.running))
    }
}

/// Counts a handler for as long as it lives.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<ReadEventsResponse, Status>> + Send>>;

fn message(bytes: usize) -> ReadEventsResponse {
    let event = v1::Event { data: Bytes::from(vec![7; bytes]), ..Default::default() };
    ReadEventsResponse { events: vec![event], caught_up: false }
}

macro_rules! refuse_all_others {
    ($($method:ident $request:ident $response:ident;)*) => {
        #[tonic::async_trait]
        impl ContextService for Scripted {
            async fn put_entry(&self, request: Request<v1::PutEntryRequest>) -> Result<Response<v1::PutEntryResponse>, Status> {
                self.put(request).await
            }

            async fn read_entry(&self, request: Request<v1::ReadEntryRequest>) -> Result<Response<v1::ReadEntryResponse>, Status> {
                let bytes = request.into_inner().key.parse().unwrap();
                let value = Bytes::from(vec![7; bytes]);
                Ok(Response::new(v1::ReadEntryResponse { entry: Some(v1::Entry { metadata: None, value }) }))
            }

            type ReadEventsStream = Events;

            async fn read_events(&self, request: Request<v1::ReadEventsRequest>) -> Result<Response<Events>, Status> {
                Ok(Response::new(self.events(request)))
            }

            type WatchSessionStream = Pin<Box<dyn Stream<Item = Result<v1::WatchSessionResponse, Status>> + Send>>;

            async fn watch_session(&self, _: Request<v1::WatchSessionRequest>) -> Result<Response<Self::WatchSessionStream>, Status> {
                Err(Status::unimplemented("not scripted"))
            }

            $(async fn $method(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(Status::unimplemented("not scripted"))
            })*
        }
    };
}

refuse_all_others! {
    create_session CreateSessionRequest CreateSessionResponse;
    get_session GetSessionRequest GetSessionResponse;
    update_session UpdateSessionRequest UpdateSessionResponse;
    list_sessions ListSessionsRequest ListSessionsResponse;
    delete_session DeleteSessionRequest DeleteSessionResponse;
    purge_sensitive PurgeSensitiveRequest PurgeSensitiveResponse;
    delete_entry DeleteEntryRequest DeleteEntryResponse;
    list_entries ListEntriesRequest ListEntriesResponse;
    read_batch ReadBatchRequest ReadBatchResponse;
    write_batch WriteBatchRequest WriteBatchResponse;
    append_events AppendEventsRequest AppendEventsResponse;
}

impl Scripted {
    async fn put(
        &self,
        request: Request<v1::PutEntryRequest>,
    ) -> Result<Response<v1::PutEntryResponse>, Status> {
        let _running = self.enter();
        let answers = describe(&request);
        let put = request.into_inner().put.unwrap_or_default();
        match put.key.as_str() {
            "wait" => self.gate.acquire().await.unwrap().forget(),
            "hang" => std::future::pending().await,
            "busy" => {
                let gate = self.gate.acquire();
                let runtime = tokio::runtime::Handle::current();
                tokio::task::block_in_place(|| runtime.block_on(gate)).unwrap().forget();
                std::future::pending().await
            }
            "panic" => panic!("patient 4711"),
            _ => {}
        }
        let metadata = v1::EntryMetadata {
            key: put.key,
            size: put.value.len() as u64,
            content_type: answers,
            ..Default::default()
        };
        Ok(Response::new(v1::PutEntryResponse { metadata: Some(metadata), ..Default::default() }))
    }

    fn events(&self, request: Request<v1::ReadEventsRequest>) -> Events {
        let running = self.enter();
        let closing = request.extensions().get::<Closing>().unwrap().clone();
        let request = request.into_inner();
        let first = stream::iter([Ok(message(1))]);
        match request.stream.as_str() {
            "follow" => Box::pin(first.chain(stream::once(async move {
                let _running = running;
                closing.begun().await;
                Ok(message(2))
            }))),
            "hang" => Box::pin(first.chain(stream::once(async move {
                let _running = running;
                std::future::pending().await
            }))),
            "panic" => Box::pin(first.chain(stream::once(async move {
                let _running = running;
                tokio::task::yield_now().await;
                panic!("patient 4711")
            }))),
            bytes => Box::pin(stream::iter([Ok(message(bytes.parse().unwrap()))])),
        }
    }
}

/// What a handler finds in the extensions of its request.
fn describe(request: &Request<v1::PutEntryRequest>) -> String {
    let extensions = request.extensions();
    let peer = extensions.get::<Peer>().expect("a peer");
    let call = extensions.get::<Correlation>().expect("a correlation");
    let deadline = extensions.get::<Deadline>().expect("a deadline");
    assert!(!deadline.passed() && extensions.get::<Closing>().is_some());
    format!("{} certificates, {:?}, id {:02x}", peer.certificates.len(), peer.tls.unwrap(), call.request[0])
}
