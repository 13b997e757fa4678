//! Whether the server should be sent traffic, and who is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::provider::RootHealth;

/// The services of which health is reported; the empty name stands for the server.
const REPORTED: [&str; 4] =
    ["", "strongroom.v1.ContextService", "strongroom.v1.AdminService", "strongroom.v1.ApprovalService"];

/// Whether the server is ready: it serves, does not stop yet, and its root provider is well enough for new keys.
pub(super) struct Readiness {
    reporter: HealthReporter,
    serving: AtomicBool,
    root: Arc<RootHealth>,
}

impl Readiness {
    /// Not ready, and the service that tells callers of the gRPC health protocol.
    pub(super) async fn new(root: Arc<RootHealth>) -> (Arc<Self>, HealthServer<impl Health>) {
        let (reporter, health) = tonic_health::server::health_reporter();
        let readiness = Self { reporter, serving: AtomicBool::new(false), root };
        // tonic-health begins as SERVING; until the ports are served nobody can ask.
        readiness.tell(false).await;
        (Arc::new(readiness), health)
    }

    /// Whether it is ready now.
    pub(super) fn is_ready(&self) -> bool {
        self.serving.load(Ordering::Relaxed) && self.root.accepts_new_keys()
    }

    /// How the root provider is.
    pub(super) fn root(&self) -> &RootHealth {
        &self.root
    }

    /// Tells whoever asks from now on.
    pub(super) async fn tell(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
        let status = match serving {
            true => tonic_health::ServingStatus::Serving,
            false => tonic_health::ServingStatus::NotServing,
        };
        for name in REPORTED {
            self.reporter.set_service_status(name, status).await;
        }
    }

    /// Tells how the root provider is, until `stop`.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut told = self.root.subscribe();
        let mut serving = None;
        while !stop.is_cancelled() {
            let now = self.root.accepts_new_keys();
            if serving.replace(now) != Some(now) {
                self.tell(now).await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = told.changed() => if changed.is_err() { return },
            }
        }
    }
}
