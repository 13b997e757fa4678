//! A listening socket and everything that was accepted from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Places, Shared};
use super::counters::{Counters, Counts};
use super::limits::ConnectionLimits;
use super::tls::TlsSource;
use crate::api::layers::Rpc;

/// How long accepting pauses when the system refuses it, mostly because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port that is ready to be served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Arc<TlsSource>,
    limits: ConnectionLimits,
    counters: Arc<Counters>,
}

/// How serving a port ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeReport {
    /// Whether every connection ended by itself, within the time for a drain.
    pub drained: bool,
    /// What was counted.
    pub counts: Counts,
}

impl Listener {
    /// Takes a bound socket.
    #[must_use]
    pub fn new(socket: TcpListener, tls: Arc<TlsSource>, limits: ConnectionLimits) -> Self {
        Self { socket, tls, limits, counters: Arc::default() }
    }

    /// What it counts, to be read while it serves.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves `service` until `shutdown`, then drains.
    ///
    /// A drain closes the socket first, so that new connections are refused by the system; asks every connection to close;
    /// and lets what is in flight finish for at most `limits.drain`. What is left then is cut off: handlers are dropped at their
    /// next `await`. When this returns, no handler runs any more. Dropping the future cuts off everything at once.
    pub async fn serve<S: Rpc>(self, service: S, shutdown: CancellationToken) -> ServeReport {
        let Self { socket, tls, limits, counters } = self;
        let sever = CancellationToken::new();
        let drain = shutdown.clone();
        let shared =
            Shared { service, tls, limits, counters: Arc::clone(&counters), drain, sever: sever.clone() };
        let mut door = Door::new(shared);
        shutdown.run_until_cancelled(door.accept_from(&socket)).await;
        drop(socket);
        let drained = timeout(limits.drain, door.wait_for_all()).await.is_ok();
        sever.cancel();
        door.wait_for_all().await;
        ServeReport { drained, counts: counters.counts() }
    }
}

/// Lets connections in while there is room.
struct Door<S> {
    shared: Arc<Shared<S>>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl<S: Rpc> Door<S> {
    fn new(shared: Shared<S>) -> Self {
        let places = |limit: usize| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        let (connections, handshakes) = (places(shared.limits.connections), places(shared.limits.handshakes));
        Self { shared: Arc::new(shared), connections, handshakes, tasks: JoinSet::new() }
    }

    async fn accept_from(&mut self, socket: &TcpListener) {
        let mut is_failing = false;
        loop {
            match socket.accept().await {
                Ok((tcp, address)) => {
                    is_failing = false;
                    self.admit(tcp, address);
                }
                Err(error) => {
                    if !is_failing {
                        tracing::error!(%error, "no connection can be accepted");
                    }
                    is_failing = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&mut self, tcp: TcpStream, address: SocketAddr) {
        while self.tasks.try_join_next().is_some() {}
        let counters = &self.shared.counters;
        counters.accepted.add_one();
        let Ok(connection) = Arc::clone(&self.connections).try_acquire_owned() else {
            counters.refused_connections.add_one();
            return turn_away(&tcp);
        };
        let Ok(handshake) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            counters.refused_handshakes.add_one();
            return turn_away(&tcp);
        };
        let run = Arc::clone(&self.shared).run(tcp, address, Places { handshake, connection });
        self.tasks.spawn(run);
    }

    async fn wait_for_all(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Resets a connection: the client knows at once, and nothing of it stays with us.
fn turn_away(tcp: &TcpStream) {
    if let Err(error) = tcp.set_zero_linger() {
        tracing::debug!(%error, "a connection is closed without a reset");
    }
}
