//! Assembly and shutdown: the one place that knows all the parts.
//!
//! A server opens the store, the keyring and the committer, binds its ports and only then says that it serves. It stops in
//! the opposite order: not ready, listeners closed, calls finished, what waits committed, store closed. A fault of the
//! committer ends the process with an exit code of its own, because only a restart brings a known state.

pub mod daemon;

mod anchor;
mod dev;
mod error;
mod identity;
mod ports;
mod probes;
mod readiness;
mod root;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::transport::ServeReport;
use crate::commit::Committer;
use crate::config::{Config, EngineKind};
use crate::crypto::RecoveryPrivateKey;
use crate::env::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::keyring::Keyring;
use crate::model::limits::APPROVAL_TTL;
use crate::provider::RootHealth;
use crate::redact::Redactor;
use crate::service::{
    Acceptance, Anchoring, CreateToken, Jobs, Limits, Opened, Parts, RootAccess, Service, Sweeper,
};
use crate::store::{SledEngine, SledOptions, StorageEngine};

pub use dev::DevServer;
pub use error::ServerError;
pub use ports::Addresses;
use readiness::Readiness;

use anchor::{AnchorFile, anchor};
use ports::Ports;
use root::Root;

/// Pause between steps of the sweeper when there is nothing to do.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);
/// Pause between looks for jobs when none works.
const JOB_PAUSE: Duration = Duration::from_millis(500);
/// What closing the committer and the store may take before the process ends anyway.
const CLOSE: Duration = Duration::from_secs(20);

/// What a server works with, once its store is open.
pub(crate) struct Core {
    engine: Arc<dyn StorageEngine>,
    committer: Arc<Committer>,
    keyring: Arc<Keyring>,
    service: Arc<Service>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    anchoring: Option<Arc<Anchoring>>,
}

/// A server whose store is open and whose ports are bound, and which serves nothing yet.
pub struct Server {
    core: Core,
    root: Arc<Root>,
    ports: Ports,
}

impl Server {
    /// Opens everything that a server needs.
    ///
    /// # Errors
    /// [`ServerError`] says what is wrong; nothing serves then.
    pub async fn open(config: Config) -> Result<Self, ServerError> {
        Self::open_accepting(config, Acceptance::default()).await
    }

    /// Opens everything that a server needs, although the access logs are not what their anchor says.
    ///
    /// # Errors
    /// [`ServerError`] says what is wrong; nothing serves then.
    pub async fn open_accepting(config: Config, accepted: Acceptance) -> Result<Self, ServerError> {
        Self::assemble(config, Arc::new(SystemClock::new()), accepted).await
    }

    /// Opens everything that a server needs, for another time than the machine's.
    ///
    /// # Errors
    /// [`ServerError`] says what is wrong; nothing serves then.
    pub async fn open_at(config: Config, clock: Arc<dyn Clock>) -> Result<Self, ServerError> {
        Self::assemble(config, clock, Acceptance::default()).await
    }

    async fn assemble(
        config: Config,
        clock: Arc<dyn Clock>,
        accepted: Acceptance,
    ) -> Result<Self, ServerError> {
        let ports = Ports::bind(&config).await?;
        let (core, root) = Core::open(&config, clock, accepted).await?;
        Ok(Self { core, root, ports })
    }

    /// How the root provider is, while the server runs.
    #[must_use]
    pub fn root_health(&self) -> Arc<RootHealth> {
        Arc::clone(&self.root.health)
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.ports.addresses()
    }

    /// Serves until `stop`, then drains and closes.
    ///
    /// # Errors
    /// [`ServerError::Fault`] when the committer failed, [`ServerError::Unclean`] when the end was not clean.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServerError> {
        let Self { core, root, ports } = self;
        core.service.record_start().await?;
        let (readiness, health) = Readiness::new(Arc::clone(&root.health)).await;
        let drain = CancellationToken::new();
        let watching = tokio::spawn(ports.identities().watch(drain.clone()));
        let served = ports.serve(&core, (Arc::clone(&readiness), health), &drain)?;
        let sweeping = tokio::spawn(sweep(Arc::clone(&core.service), drain.clone()));
        let working = tokio::spawn(work(Arc::clone(&core.service), drain.clone()));
        let rolling = tokio::spawn(roll(Arc::clone(&core.service), drain.clone()));
        let anchoring = tokio::spawn(anchor(core.anchoring.clone(), drain.clone()));
        let ready = tokio::spawn(Arc::clone(&readiness).follow(drain.clone()));
        let asking = tokio::spawn(root.watch(drain.clone()));
        tracing::info!("serving");

        let fault = tokio::select! {
            () = stop.cancelled() => None,
            fault = core.committer.fault() => Some(fault),
        };
        tracing::info!("stopping");
        ready.abort();
        drop(ready.await);
        readiness.tell(false).await;
        drain.cancel();
        for port in served {
            log_drain(port.await.ok());
        }
        // They end by themselves when the drain begins; a panic in them is logged by the panic hook.
        drop((watching.await, sweeping.await, working.await, rolling.await, asking.await, anchoring.await));
        if let Some(fault) = fault {
            tracing::error!(%fault, "the committer failed; restart the server");
            return Err(ServerError::Fault(fault));
        }
        core.close().await
    }
}

impl Core {
    /// Opens the store, and compares its logs with their anchor before anything is written.
    async fn open(
        config: &Config,
        clock: Arc<dyn Clock>,
        mut accepted: Acceptance,
    ) -> Result<(Self, Arc<Root>), ServerError> {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let engine = open_engine(config)?;
        loop {
            let (keyring, provider) = root::open_keyring(config, &*engine, &entropy, &clock).await?;
            let root = Root::new(Some(provider), &keyring, &config.root, (&entropy, &clock));
            let parts = (Arc::clone(&clock), Arc::clone(&entropy));
            let mut core = Self::assemble(config, Arc::clone(&engine), keyring, &root, parts)?;
            let Some(path) = &config.audit.anchor else { return Ok((core, root)) };
            let place = Box::new(AnchorFile::new(path));
            if let Opened::Ready(anchoring) = Anchoring::open(&core.service, place, &mut accepted).await? {
                core.anchoring = Some(anchoring);
                return Ok((core, root));
            }
            core.committer.shutdown().await;
        }
    }

    /// Opens a store whose root provider is lost.
    async fn recover(config: &Config, key: &RecoveryPrivateKey) -> Result<Self, ServerError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let engine = open_engine(config)?;
        let keyring = Arc::new(Keyring::recover(&*engine, key, Arc::clone(&entropy)).await?);
        root::prepare(config, Arc::clone(&entropy))?;
        root::provider(&config.root.provider, &entropy, &clock)?;
        let root = Root::new(None, &keyring, &config.root, (&entropy, &clock));
        Self::assemble(config, engine, keyring, &root, (clock, entropy))
    }

    fn assemble(
        config: &Config,
        engine: Arc<dyn StorageEngine>,
        keyring: Arc<Keyring>,
        root: &Arc<Root>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, ServerError> {
        let committer = Committer::start(Arc::clone(&engine), Arc::clone(&clock), Arc::clone(&entropy))?;
        let service = Service::new(Parts {
            engine: Arc::clone(&engine),
            committer: Arc::clone(&committer),
            keyring: Arc::clone(&keyring),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            limits: Limits { value_bytes: config.limits.max_value_bytes },
            redactor: config.redaction.enabled.then(Redactor::standard),
            root: Arc::clone(root) as Arc<dyn RootAccess>,
            approvals: config.approvals.required.then_some(APPROVAL_TTL),
        });
        Ok(Self { engine, committer, keyring, service, entropy, clock, anchoring: None })
    }

    async fn close(self) -> Result<(), ServerError> {
        let closing = async {
            let recorded = self.service.record_stop().await;
            self.committer.shutdown().await;
            if let Some(anchoring) = &self.anchoring {
                // What is wrong with it is logged there; the next start compares with what was anchored before.
                anchoring.finish().await;
            }
            let closed = self.engine.close().await;
            recorded.is_ok() && closed.is_ok()
        };
        match tokio::time::timeout(CLOSE, closing).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(ServerError::Unclean),
        }
    }
}

/// Prepares a new installation: makes the keyring file if there is none, the store, and a first administrator's token.
///
/// # Errors
/// [`ServerError`] says what is wrong. What was made until then stays, and is used by the next try.
pub async fn initialise(config: &Config, first: &CreateToken, secret: &str) -> Result<(), ServerError> {
    root::prepare(config, Arc::new(SystemEntropy::new()))?;
    let (core, _) = Core::open(config, Arc::new(SystemClock::new()), Acceptance::default()).await?;
    core.service.ensure_token(first, secret).await?;
    core.close().await
}

/// Opens a store whose root provider is lost with a recovery key, and wraps its root key for the provider of the
/// configuration; a keyring file is made when there is none. Says for which key; none when the provider opens the store
/// anyway.
///
/// # Errors
/// [`ServerError`] says what is wrong. The store is unchanged then; a keyring file that was made stays.
pub async fn recover(config: &Config, recovery_key: &Path) -> Result<Option<String>, ServerError> {
    let core = Core::recover(config, &root::recovery_key(recovery_key)?).await?;
    let recovered = core.service.recover_root().await;
    core.close().await?;
    Ok(recovered?.map(|recipient| recipient.key_id))
}

fn open_engine(config: &Config) -> Result<Arc<dyn StorageEngine>, ServerError> {
    match config.store.engine {
        EngineKind::Sled => {
            let options = SledOptions {
                cache_bytes: config.store.cache_bytes,
                ..SledOptions::new(config.store.path.clone())
            };
            Ok(Arc::new(SledEngine::open(&options)?))
        }
    }
}

fn log_drain(report: Option<ServeReport>) {
    match report {
        Some(ServeReport { drained: true, .. }) => {}
        Some(_) => tracing::warn!("some connections did not end in time and were cut off"),
        None => tracing::error!("a listener ended by a panic"),
    }
}

async fn work(service: Arc<Service>, stop: CancellationToken) {
    let jobs = Jobs::new(service);
    while !stop.is_cancelled() {
        let pause = match jobs.round().await {
            Ok(report) if report.working > 0 => report.pause,
            Ok(_) => JOB_PAUSE,
            Err(error) => {
                tracing::warn!(%error, "a job could not finish a step");
                JOB_PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Goes on with the roll of a root epoch, whenever there is one.
async fn roll(service: Arc<Service>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let more = match service.roll_step().await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "the roll of the root epoch could not finish a step");
                false
            }
        };
        if !more {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(JOB_PAUSE) => {}
            }
        }
    }
}

async fn sweep(service: Arc<Service>, stop: CancellationToken) {
    let sweeper = Sweeper::new(service);
    while !stop.is_cancelled() {
        let more = match sweeper.step().await {
            Ok(report) => report.more,
            Err(error) => {
                tracing::warn!(%error, "the sweeper could not finish a step");
                false
            }
        };
        if !more {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(SWEEP_PAUSE) => {}
            }
        }
    }
}
