//! The service in this process: in memory, behind an engine that fails on demand, on a clock that the test moves, with
//! randomness from a seed. Calls go through the same layers as over the network, without the network.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::LocalBoxFuture;
use ring::digest::{SHA256, digest};
use strongroom::api::layers::{Around, InFlight, MessageLimits, Methods, Stack};
use strongroom::api::transport::Peer;
use strongroom::api::{Admin, Approvals, Context as ContextHandler, Identify};
use strongroom::auth::{Authenticator, ClientCertificate, Gate, TokenAuthenticator};
use strongroom::commit::Committer;
use strongroom::env::{Clock, Entropy, EntropyError};
use strongroom::keyring::{
    Keyring, KeyringError, ProviderError, ProviderKind, ProviderStatus, RootProvider, Wrapped,
};
use strongroom::model::limits::VALUE_BYTES;
use strongroom::model::{Scope, StoreId, TenantName, TenantSet, Timestamp, TokenName};
use strongroom::proto::DESCRIPTORS;
use strongroom::proto::v1::admin_service_server::AdminServiceServer;
use strongroom::proto::v1::approval_service_server::ApprovalServiceServer;
use strongroom::proto::v1::context_service_server::ContextServiceServer;
use strongroom::service::{
    CreateToken, Jobs, Limits, Parts, Recipient, RootAccess, RootCondition, Service, Sweeper,
};
use strongroom::store::{
    Batch, Effect, Fault, Faulty, Hook, Key, MemoryEngine, Operation, Row, ScanRange, StorageEngine,
};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tower::{Layer as _, ServiceExt as _};
use zeroize::Zeroizing;

use super::daemon::Login;
use super::wire::{self, Approving, Context, Control, Wire, approving, context, control};

/// When a store in memory begins: 2026-09-21.
pub const BEGIN: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// The tenant of dev mode, which is there from the beginning.
const TENANT: &str = "demo";
/// How long the tokens last: as long as any may.
const TOKEN_TTL: Duration = Duration::from_secs(400 * 24 * 3600);

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// Moves it forward.
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Moves it forward to a point in time.
    pub fn advance_to(&self, time: Timestamp) {
        self.0.fetch_max(time.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Bytes that look random and are the same for the same seed.
#[derive(Debug)]
pub struct SeededEntropy {
    seed: u64,
    drawn: AtomicU64,
}

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: AtomicU64::new(0) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in bytes.chunks_mut(32) {
            let number = self.drawn.fetch_add(1, Ordering::Relaxed);
            let block = digest(&SHA256, &[self.seed.to_be_bytes(), number.to_be_bytes()].concat());
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A root provider that wraps nothing: what it is given is what is stored.
struct Open;

#[async_trait]
impl RootProvider for Open {
    fn kind(&self) -> ProviderKind {
        ProviderKind::File
    }

    async fn status(&self) -> Result<ProviderStatus, ProviderError> {
        Ok(ProviderStatus { key_id: "open".to_owned() })
    }

    async fn wrap(&self, _: StoreId, secret: &[u8]) -> Result<Wrapped, ProviderError> {
        let ciphertext = secret.to_vec();
        Ok(Wrapped { key_id: "open".to_owned(), annotations: Vec::new(), ciphertext })
    }

    async fn unwrap(&self, _: StoreId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        Ok(Zeroizing::new(wrapped.ciphertext.clone()))
    }
}

/// The root provider of a service in memory, and whether it is well.
struct OpenRoot(Arc<AtomicBool>);

impl RootAccess for OpenRoot {
    fn may_make_keys(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn providers(&self) -> Result<Vec<Box<dyn RootProvider>>, KeyringError> {
        Ok(vec![Box::new(Open)])
    }

    fn condition(&self) -> RootCondition {
        RootCondition::Healthy
    }

    fn rewrapped(&self, _: &[Recipient]) {}
}

/// A service in memory. Tenant and tokens are those of dev mode.
pub struct Inside {
    /// Where the rows are; [`Faulty::inner`] shows them to the test without counting calls.
    pub engine: Arc<Faulty<MemoryEngine>>,
    pub clock: Arc<FakeClock>,
    pub entropy: Arc<SeededEntropy>,
    pub keyring: Arc<Keyring>,
    pub committer: Arc<Committer>,
    pub service: Arc<Service>,
    pub sweeper: Sweeper,
    pub jobs: Jobs,
    /// Whether the root provider is well enough for new keys.
    pub new_keys: Arc<AtomicBool>,
    approvals: Option<Duration>,
    data: Wire,
    admin: Wire,
}

impl Inside {
    /// A service on an empty store.
    pub async fn open() -> Self {
        Self::open_seeded(1).await
    }

    pub async fn open_seeded(seed: u64) -> Self {
        let engine = Arc::new(Faulty::new(MemoryEngine::new()));
        let clock = Arc::new(FakeClock(AtomicU64::new(BEGIN.as_millis())));
        Self::assemble(engine, clock, Arc::new(SeededEntropy::new(seed)), None).await
    }

    /// A service on an empty store, where it takes two people to do what cannot be undone.
    pub async fn open_with_approvals(lifetime: Duration) -> Self {
        let engine = Arc::new(Faulty::new(MemoryEngine::new()));
        let clock = Arc::new(FakeClock(AtomicU64::new(BEGIN.as_millis())));
        Self::assemble(engine, clock, Arc::new(SeededEntropy::new(1)), Some(lifetime)).await
    }

    /// The same store in the hands of another process: nothing that was remembered is left. Faults are healed.
    pub async fn reopen(self) -> Self {
        self.committer.shutdown().await;
        let engine = Arc::new(Faulty::new(MemoryEngine::new()));
        let rows = self.rows().await;
        engine.inner().commit(Batch { put: rows, ..Batch::default() }).await.unwrap();
        Self::assemble(engine, Arc::clone(&self.clock), Arc::clone(&self.entropy), self.approvals).await
    }

    async fn assemble(
        engine: Arc<Faulty<MemoryEngine>>,
        clock: Arc<FakeClock>,
        entropy: Arc<SeededEntropy>,
        approvals: Option<Duration>,
    ) -> Self {
        let dyn_clock: Arc<dyn Clock> = Arc::<FakeClock>::clone(&clock);
        let dyn_entropy: Arc<dyn Entropy> = Arc::<SeededEntropy>::clone(&entropy);
        let dyn_engine: Arc<dyn StorageEngine> = Arc::<Faulty<MemoryEngine>>::clone(&engine);
        let keyring = Keyring::open(&*engine, &Open, &[], Arc::clone(&dyn_entropy), clock.now());
        let keyring = Arc::new(keyring.await.unwrap());
        let committer =
            Committer::start(Arc::clone(&dyn_engine), Arc::clone(&dyn_clock), Arc::clone(&dyn_entropy))
                .unwrap();
        let new_keys = Arc::new(AtomicBool::new(true));
        let service = Service::new(Parts {
            engine: dyn_engine,
            committer: Arc::clone(&committer),
            keyring: Arc::clone(&keyring),
            clock: Arc::clone(&dyn_clock),
            entropy: dyn_entropy,
            limits: Limits { value_bytes: VALUE_BYTES },
            redactor: Some(strongroom::redact::Redactor::standard()),
            root: Arc::new(OpenRoot(Arc::clone(&new_keys))),
            approvals,
        });
        service.ensure_tenant(&TenantName::new(TENANT).unwrap()).await.unwrap();
        for login in [Login::App, Login::Admin, Login::Reader] {
            service.ensure_token(&grant(login), &secret(login)).await.unwrap();
        }
        let tokens = TokenAuthenticator::new(service.tokens(), dyn_clock);
        let (data, admin) = routes(&service, Arc::new(tokens));
        let sweeper = Sweeper::new(Arc::clone(&service));
        let jobs = Jobs::new(Arc::clone(&service));
        Self {
            engine,
            clock,
            entropy,
            keyring,
            committer,
            service,
            sweeper,
            jobs,
            new_keys,
            approvals,
            data,
            admin,
        }
    }

    /// The data plane as somebody finds it whose connection has `certificate` (DER) and who may also be known to others
    /// than our own tokens.
    pub fn context_through(
        &self,
        more: impl FnOnce(Gate, Arc<dyn Clock>) -> Gate,
        token: Option<&str>,
        certificate: Option<&[u8]>,
    ) -> Context {
        let clock: Arc<dyn Clock> = Arc::<FakeClock>::clone(&self.clock);
        let tokens = TokenAuthenticator::new(self.service.tokens(), Arc::clone(&clock));
        let (data, _) = routes(&self.service, Arc::new(more(Gate::new(Arc::new(tokens)), clock)));
        let identity = certificate.map(|der| Arc::new(ClientCertificate::read(der)));
        let address = ([127, 0, 0, 1], 1).into();
        let peer = Peer { address, certificates: Arc::new([]), identity, tls: None };
        let over = data.map_request(move |mut request: http::Request<tonic::body::Body>| {
            request.extensions_mut().insert(peer.clone());
            request
        });
        context(wire::wire(over, token))
    }

    /// The generated client of the data plane.
    pub fn context(&self, login: Login) -> Context {
        self.context_with(Some(&secret(login)))
    }

    pub fn context_with(&self, token: Option<&str>) -> Context {
        context(wire::wire(self.data.clone(), token))
    }

    /// The generated client of the control plane.
    pub fn control(&self, login: Login) -> Control {
        self.control_with(Some(&secret(login)))
    }

    pub fn control_with(&self, token: Option<&str>) -> Control {
        control(wire::wire(self.admin.clone(), token))
    }

    /// The generated client of what waits for a second person.
    pub fn approving_with(&self, token: Option<&str>) -> Approving {
        approving(wire::wire(self.admin.clone(), token))
    }

    /// Lets the sweeper work until it has nothing to do; returns how many sessions it expired.
    pub async fn sweep(&self) -> usize {
        let mut sessions = 0;
        loop {
            let before = self.engine.calls(Operation::Commit);
            sessions += self.sweeper.step().await.unwrap().sessions;
            if self.engine.calls(Operation::Commit) == before {
                return sessions;
            }
        }
    }

    /// Lets jobs work until they have ended.
    pub async fn work(&self) {
        while self.jobs.round().await.unwrap().working > 0 {}
    }

    /// Runs two calls of which the second reads before what the first changes is there, and commits after it: the engine
    /// holds the next commit until another change waits behind it. The second begins when the first is with the engine, so
    /// that they do not go in one group.
    pub fn together<'a>(
        &'a self,
        first: impl Future<Output = ()> + 'a,
        second: impl Future<Output = ()> + 'a,
    ) -> LocalBoxFuture<'a, ()> {
        Box::pin(self.one_behind_the_other(Box::pin(first), Box::pin(second)))
    }

    async fn one_behind_the_other(&self, first: LocalBoxFuture<'_, ()>, second: LocalBoxFuture<'_, ()>) {
        let (held, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (reached, wait) = (Arc::clone(&held), Arc::clone(&gate));
        let hook: Hook = Arc::new(move |_| {
            reached.add_permits(2);
            let wait = Arc::clone(&wait);
            Box::pin(async move { wait.acquire_owned().await.unwrap().forget() })
        });
        let number = Some(self.engine.calls(Operation::Commit) + 1);
        self.engine.inject(Fault { operation: Operation::Commit, number, effect: Effect::Wait(hook) });
        let second = async {
            held.acquire().await.unwrap().forget();
            second.await;
        };
        // Before the first is with the engine it is what waits.
        let both = async {
            held.acquire().await.unwrap().forget();
            super::until("the second change", || (self.committer.stats().depth > 0).then_some(())).await;
            gate.add_permits(1);
        };
        super::soon(futures_util::future::join3(first, second, both)).await;
    }

    /// All rows, as they are stored.
    pub async fn rows(&self) -> Vec<(Key, Row)> {
        self.engine.inner().scan(ScanRange::prefix(Vec::new()), usize::MAX).await.unwrap()
    }

    /// Writes a row behind everybody's back; `None` removes it.
    pub async fn tamper(&self, key: &Key, row: Option<Row>) {
        let batch = match row {
            Some(row) => Batch { put: vec![(key.clone(), row)], ..Batch::default() },
            None => Batch { delete: vec![key.clone()], ..Batch::default() },
        };
        self.engine.inner().commit(batch).await.unwrap();
    }
}

/// The secret of a token.
pub fn secret(login: Login) -> String {
    let letter = match login {
        Login::App => "a",
        Login::Admin => "b",
        Login::Reader => "c",
    };
    format!("srt_{}", letter.repeat(43))
}

fn grant(login: Login) -> CreateToken {
    let demo = TenantSet::Only([TenantName::new(TENANT).unwrap()].into());
    let (name, scopes, tenants) = match login {
        Login::App => ("app", vec![Scope::Read, Scope::ReadFull, Scope::Write], demo),
        Login::Admin => ("admin", Scope::ALL.to_vec(), TenantSet::All),
        Login::Reader => ("reader", vec![Scope::Read], demo),
    };
    CreateToken {
        name: TokenName::new(name).unwrap(),
        scopes: scopes.into_iter().collect(),
        tenants,
        ttl: Some(TOKEN_TTL),
    }
}

/// The data and the admin port without sockets.
fn routes(service: &Arc<Service>, authenticator: Arc<dyn Authenticator>) -> (Wire, Wire) {
    let methods = Arc::new(Methods::from_descriptors([DESCRIPTORS]).unwrap());
    let in_flight = InFlight::with_bounds(Arc::clone(&methods), 4096, 4096);
    let minted = Mutex::new(0_u128);
    let mint = move || {
        let mut minted = minted.lock().unwrap();
        *minted += 1;
        minted.to_be_bytes()
    };
    let stack = Stack::new(methods, mint, in_flight, MessageLimits::default(), Duration::from_secs(30));
    let identify = Around(Identify::new(authenticator, Arc::clone(service)));
    let data = ContextServiceServer::new(ContextHandler::new(Arc::clone(service)))
        .max_decoding_message_size(usize::MAX);
    let admin =
        AdminServiceServer::new(Admin::new(Arc::clone(service))).max_decoding_message_size(usize::MAX);
    let approvals = ApprovalServiceServer::new(Approvals::new(Arc::clone(service)));
    let [data, admin] = [Routes::new(data), Routes::new(admin).add_service(approvals)]
        .map(|routes| wire::wire(stack.around(identify.layer(routes.prepare())), None));
    (data, admin)
}
