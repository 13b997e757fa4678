//! A bare tonic server: the same message over the same TLS, with nothing in between.

use std::fs;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use strongroom::proto::v1;
use strongroom::proto::v1::context_service_server::{ContextService, ContextServiceServer};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::Outcome;
use crate::load::VALUE_BYTES;

struct Echo {
    entry: v1::Entry,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! unimplemented_calls {
    ($($name:ident: $request:ident -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl ContextService for Echo {
            type ReadEventsStream = Streamed<v1::ReadEventsResponse>;
            type WatchSessionStream = Streamed<v1::WatchSessionResponse>;

            async fn read_entry(
                &self,
                _request: Request<v1::ReadEntryRequest>,
            ) -> Result<Response<v1::ReadEntryResponse>, Status> {
                Ok(Response::new(v1::ReadEntryResponse { entry: Some(self.entry.clone()) }))
            }

            $(async fn $name(&self, _request: Request<v1::$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("an echo"))
            })*
        }
    };
}

unimplemented_calls! {
    create_session: CreateSessionRequest -> v1::CreateSessionResponse;
    get_session: GetSessionRequest -> v1::GetSessionResponse;
    update_session: UpdateSessionRequest -> v1::UpdateSessionResponse;
    list_sessions: ListSessionsRequest -> v1::ListSessionsResponse;
    delete_session: DeleteSessionRequest -> v1::DeleteSessionResponse;
    purge_sensitive: PurgeSensitiveRequest -> v1::PurgeSensitiveResponse;
    put_entry: PutEntryRequest -> v1::PutEntryResponse;
    delete_entry: DeleteEntryRequest -> v1::DeleteEntryResponse;
    list_entries: ListEntriesRequest -> v1::ListEntriesResponse;
    read_batch: ReadBatchRequest -> v1::ReadBatchResponse;
    write_batch: WriteBatchRequest -> v1::WriteBatchResponse;
    append_events: AppendEventsRequest -> v1::AppendEventsResponse;
    read_events: ReadEventsRequest -> Self::ReadEventsStream;
    watch_session: WatchSessionRequest -> Self::WatchSessionStream;
}

/// Serves until it is killed.
pub async fn serve(directory: &Path) -> Outcome<()> {
    let keys = directory.join("keys").join("dev");
    let identity = Identity::from_pem(fs::read(keys.join("server.pem"))?, fs::read(keys.join("server.key"))?);
    let metadata = v1::EntryMetadata { key: "k".to_owned(), revision: 1, ..Default::default() };
    let entry = v1::Entry { metadata: Some(metadata), value: Bytes::from(vec![b'v'; VALUE_BYTES]) };
    // On an incoming of one's own the server's setting has no effect, and without it every call waits 40 ms.
    let socket = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    fs::write(directory.join("echo.new"), socket.local_addr()?.port().to_string())?;
    fs::rename(directory.join("echo.new"), directory.join("echo.port"))?;
    Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))?
        .add_service(ContextServiceServer::new(Echo { entry }))
        .serve_with_incoming(socket)
        .await?;
    Ok(())
}
