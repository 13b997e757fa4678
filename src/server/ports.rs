//! The three ports: data, admin, and health with metrics. All of them speak TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::identity::Identities;
use super::probes::{Measure, Probes};
use super::readiness::Readiness;
use super::{Core, ServerError};
use crate::api::layers::{Around, InFlight, MessageLimits, Methods, Rpc, Stack};
use crate::api::transport::{ConnectionLimits, Listener, ServeReport};
use crate::api::{
    Admin, AdminServiceServer, ApprovalServiceServer, Approvals, Context, ContextServiceServer, DESCRIPTORS,
    Identify,
};
use crate::config::{Config, Limits};
use crate::model::limits::DEADLINE_CEILING;
use crate::telemetry::metrics::Metrics;
use tower::Layer as _;

/// Everything that is served, so that it is known which methods stream.
const DESCRIBED: [&[u8]; 3] =
    [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The data plane.
    pub data: SocketAddr,
    /// The control plane.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub health: SocketAddr,
}

/// Bound ports that nobody answers yet.
pub(super) struct Ports {
    sockets: [TcpListener; 3],
    addresses: Addresses,
    identities: Identities,
    config: Config,
}

impl Ports {
    pub(super) async fn bind(config: &Config) -> Result<Self, ServerError> {
        let identities = Identities::open(config)?;
        let (data, data_at) = bind(config.listen.data).await?;
        let (admin, admin_at) = bind(config.listen.admin).await?;
        let (health, health_at) = bind(config.listen.health).await?;
        let addresses = Addresses { data: data_at, admin: admin_at, health: health_at };
        Ok(Self { sockets: [data, admin, health], addresses, identities, config: config.clone() })
    }

    pub(super) const fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub(super) fn identities(&self) -> Identities {
        self.identities.clone()
    }

    /// Answers on all ports until `drain`.
    pub(super) fn serve(
        self,
        core: &Core,
        (readiness, health): (Arc<Readiness>, HealthServer<impl Health>),
        drain: &CancellationToken,
    ) -> Result<[JoinHandle<ServeReport>; 3], ServerError> {
        let methods = Arc::new(Methods::from_descriptors(DESCRIBED).map_err(|_| ServerError::Descriptors)?);
        let limits = &self.config.limits;
        let Limits { max_requests, max_streams, .. } = *limits;
        let in_flight = InFlight::with_bounds(Arc::clone(&methods), max_requests, max_streams);
        let metrics = Arc::new(Metrics::new(methods.paths()));
        let stack = stack(core, methods, in_flight.clone(), limits);
        let gate = self.identities.gate(core, &self.config);
        let identify = Around(Identify::new(gate, Arc::clone(&core.service)));
        let [data, admin, probes] = routes(core, health)?;
        let asked = Around(Probes::new(core, readiness, Arc::clone(&metrics), in_flight, self.identities()));
        let limits = ConnectionLimits {
            connections: limits.max_connections,
            age: limits.connection_age,
            drain: limits.drain_timeout,
            ..ConnectionLimits::default()
        };
        let [data_tls, admin_tls, probes_tls] = self.identities.tls;
        let [data_socket, admin_socket, probes_socket] = self.sockets;
        let measure = Measure::new(metrics);
        let answer = |routes| Around(measure.clone()).layer(stack.around(identify.layer(routes)));
        let listener = |socket, tls| Listener::new(socket, tls, limits);
        Ok([
            listen(listener(data_socket, data_tls), answer(data), drain),
            listen(listener(admin_socket, admin_tls), answer(admin), drain),
            listen(listener(probes_socket, probes_tls), asked.layer(answer(probes)), drain),
        ])
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Bind { address, source };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

fn listen(listener: Listener, service: impl Rpc, drain: &CancellationToken) -> JoinHandle<ServeReport> {
    tokio::spawn(listener.serve(service, drain.clone()))
}

fn stack(core: &Core, methods: Arc<Methods>, in_flight: InFlight, limits: &Limits) -> Stack {
    let entropy = Arc::clone(&core.entropy);
    let mint = move || {
        let mut id = [0; 16];
        // An id that is not random is a nuisance in logs and nothing worse.
        if entropy.fill(&mut id).is_err() {
            tracing::warn!("no entropy for a request id");
        }
        uuid::Builder::from_random_bytes(id).into_uuid().into_bytes()
    };
    let ceiling = limits.request_timeout.min(DEADLINE_CEILING);
    Stack::new(methods, mint, in_flight, MessageLimits::default(), ceiling)
}

/// The routes of the data, the admin and the health port.
fn routes(core: &Core, health: HealthServer<impl Health>) -> Result<[Routes; 3], ServerError> {
    let MessageLimits { request, response, .. } = MessageLimits::default();
    let context = ContextServiceServer::new(Context::new(Arc::clone(&core.service)))
        .max_decoding_message_size(request)
        .max_encoding_message_size(response);
    let admin = AdminServiceServer::new(Admin::new(Arc::clone(&core.service)))
        .max_decoding_message_size(request)
        .max_encoding_message_size(response);
    let approvals = ApprovalServiceServer::new(Approvals::new(Arc::clone(&core.service)))
        .max_decoding_message_size(request)
        .max_encoding_message_size(response);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .build_v1()
            .map_err(|_| ServerError::Descriptors)
    };
    let data = Routes::new(context).add_service(health.clone()).add_service(reflection()?);
    let admin =
        Routes::new(admin).add_service(approvals).add_service(health.clone()).add_service(reflection()?);
    Ok([data, admin, Routes::new(health)].map(Routes::prepare))
}
