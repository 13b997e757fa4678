//! A closed loop of calls, the same for every server.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom::proto::v1;
use strongroom::proto::v1::context_service_client::ContextServiceClient;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;

use crate::Outcome;
use crate::servers::Server;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 1024;
/// Connections that the calls in flight are spread over.
const CONNECTIONS: usize = 4;

/// A client with its token.
#[derive(Clone)]
pub struct Client {
    channels: Arc<Vec<Channel>>,
    token: AsciiMetadataValue,
}

/// What a closed loop did.
pub struct Load {
    /// Calls a second.
    pub rate: f64,
    /// CPU of the server a call, in microseconds.
    pub cpu: f64,
    /// 99th percentile of the latency.
    pub p99: Duration,
}

impl Client {
    pub async fn connect(server: &Server, directory: &Path) -> Outcome<Self> {
        let token = fs::read_to_string(directory.join("keys").join("dev").join("app.token"))?;
        let mut token: AsciiMetadataValue = format!("Bearer {}", token.trim()).parse()?;
        token.set_sensitive(true);
        Ok(Self { channels: Arc::new(server.connect(CONNECTIONS).await?), token })
    }

    fn context(&self, worker: usize) -> Option<ContextServiceClient<Channel>> {
        let channel = self.channels.get(worker % self.channels.len())?;
        Some(ContextServiceClient::new(channel.clone()))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }

    /// Opens a session.
    pub async fn session(&self, ttl: Option<Duration>) -> Outcome<v1::SessionRef> {
        use v1::create_session_request::Expiration;
        let ttl = ttl.map(|ttl| {
            let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            Expiration::Ttl(prost_types::Duration { seconds, nanos: 0 })
        });
        let message =
            v1::CreateSessionRequest { tenant: "demo".to_owned(), expiration: ttl, ..Default::default() };
        let mut context = self.context(0).ok_or("no connection")?;
        let made = context.create_session(self.request(message)).await?.into_inner();
        let session_id = made.session.ok_or("no session")?.session_id;
        Ok(v1::SessionRef { tenant: "demo".to_owned(), session_id, owner: None })
    }

    /// Puts an entry.
    pub async fn put(
        &self,
        worker: usize,
        session: &v1::SessionRef,
        key: String,
        value: Bytes,
    ) -> Outcome<()> {
        let put = v1::Put { key, value, ..Default::default() };
        let message =
            v1::PutEntryRequest { session: Some(session.clone()), put: Some(put), ..Default::default() };
        let mut context = self.context(worker).ok_or("no connection")?;
        context.put_entry(self.request(message)).await?;
        Ok(())
    }

    /// Reads an entry.
    pub async fn read(&self, worker: usize, session: &v1::SessionRef, key: String) -> Outcome<usize> {
        let message = v1::ReadEntryRequest {
            session: Some(session.clone()),
            key,
            view: v1::View::Full.into(),
            ..Default::default()
        };
        let mut context = self.context(worker).ok_or("no connection")?;
        let answer = context.read_entry(self.request(message)).await?.into_inner();
        Ok(answer.entry.map_or(0, |entry| entry.value.len()))
    }
}

/// What one worker of a loop does, by worker and number of the call.
pub trait Work: Clone + Send + 'static {
    fn call(&self, worker: usize, number: u64) -> impl Future<Output = Outcome<()>> + Send;
}

/// Keeps `in_flight` calls going for `span`.
pub async fn closed_loop(
    server: &Server,
    in_flight: usize,
    span: Duration,
    work: impl Work,
) -> Outcome<Load> {
    let stop = Arc::new(AtomicBool::new(false));
    let numbers = Arc::new(AtomicU64::new(0));
    let (begun, cpu) = (Instant::now(), server.cpu()?);
    let workers: Vec<_> = (0..in_flight)
        .map(|worker| {
            let (stop, numbers, work) = (Arc::clone(&stop), Arc::clone(&numbers), work.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let sent = Instant::now();
                    work.call(worker, number).await?;
                    latencies.push(sent.elapsed());
                }
                Outcome::Ok(latencies)
            })
        })
        .collect();
    tokio::time::sleep(span).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await??);
    }
    let (elapsed, cpu) = (begun.elapsed(), server.cpu()? - cpu);
    latencies.sort_unstable();
    let calls = latencies.len() as f64;
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
    Ok(Load { rate: calls / elapsed.as_secs_f64(), cpu: cpu * 1e6 / calls, p99 })
}
