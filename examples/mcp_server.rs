//! A travel desk: an MCP server whose whole memory is Strongroom.
//!
//! It shows the three ways in which an MCP server needs a store:
//!
//! * *State handles* (protocol 2026-07-28): `open_trip` mints a session in Strongroom and returns its handle. Any process
//!   goes on with the trip, for the same user alone: to everybody else the handle is "not found".
//! * *Sessions and event streams* (the revisions before): rmcp's `SessionStore` and `EventStore` are Strongroom, so a
//!   server that was killed is restarted without its clients noticing.
//! * *Once and only once*: a payment token is consumed by exactly one caller, and a lease keeps two replicas from charging
//!   at the same time.
//!
//! **Users are believed, not authenticated.** The header `x-demo-user` names the user. A real server takes the user from a
//! token that it has verified (OAuth, as the MCP specification describes); the rest stays as it is here. For that reason
//! the example listens on loopback alone.
//!
//! ```text
//! strongroomd dev &
//! cargo run --features rmcp --example mcp_server -- --keys keys/dev
//! ```

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, Implementation, ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::EventStore;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom::client::{
    ClientError, CreateSession, Entry, Expect, Owner, RmcpStore, SessionHandle, Strongroom, Tenant, Uuid,
    View,
};

/// Header that names the user. See the module's documentation: it is no authentication.
const USER: &str = "x-demo-user";
/// A trip that nobody touches for so long is forgotten.
const TRIP_IDLE: Duration = Duration::from_secs(2 * 3600);
/// How long a total is good for.
const QUOTE: Duration = Duration::from_secs(15 * 60);
/// Longer than a card processor takes; after it another replica may try.
const CHARGE: Duration = Duration::from_secs(30);

const TRIP: &str = "trip";
const PASSENGERS: &str = "passengers";
const BASKET: &str = "basket";
const RECEIPT: &str = "receipt";
const PAYING: &str = "paying";

#[derive(Parser)]
#[command(about = "A travel desk that keeps its sessions, events and trips in Strongroom")]
struct Args {
    /// Port on loopback
    #[arg(long, default_value_t = 8808)]
    port: u16,
    /// Strongroom's data endpoint
    #[arg(long, default_value = "https://127.0.0.1:7443")]
    strongroom: String,
    /// Name in Strongroom's certificate
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// Directory with ca.pem and app.token
    #[arg(long, default_value = "keys/dev")]
    keys: PathBuf,
    /// Tenant that holds everything
    #[arg(long, default_value = "demo")]
    tenant: String,
}

/// What can go wrong at the desk, in the words that a model gets to read.
#[derive(Debug, thiserror::Error)]
enum DeskError {
    #[error("name yourself in the header {USER}")]
    NoUser,
    #[error("not found: there is no such trip")]
    NoTrip,
    #[error("expired: the trip was forgotten, open another one")]
    TripExpired,
    #[error("the basket is empty")]
    EmptyBasket,
    #[error("a payment of this trip is under way")]
    PaymentUnderWay,
    #[error("this payment token was used or has expired, show the basket again for another one")]
    NoPaymentToken,
    #[error("this trip is paid already")]
    AlreadyPaid,
    #[error("the desk is out of order")]
    Store(#[source] ClientError),
    #[error("the desk cannot read its own notes")]
    Notes(#[from] serde_json::Error),
}

#[derive(Deserialize, JsonSchema)]
struct OpenTrip {
    /// Where to
    destination: String,
}

#[derive(Deserialize, JsonSchema)]
struct AddPassenger {
    /// Handle of the trip
    trip: String,
    /// Name as in the passport
    name: String,
    /// Number of the passport
    passport: String,
}

#[derive(Deserialize, JsonSchema)]
struct AddToBasket {
    /// Handle of the trip
    trip: String,
    /// What is bought
    item: String,
    /// Its price in cents
    cents: u32,
}

#[derive(Deserialize, JsonSchema)]
struct OfTrip {
    /// Handle of the trip
    trip: String,
}

#[derive(Deserialize, JsonSchema)]
struct Pay {
    /// Handle of the trip
    trip: String,
    /// Token from show_basket; good for one payment
    payment_token: String,
    /// Number of the card
    card: String,
}

#[derive(Serialize, Deserialize)]
struct Trip {
    destination: String,
}

#[derive(Serialize, Deserialize)]
struct Passenger {
    name: String,
    passport: String,
}

#[derive(Serialize, Deserialize)]
struct Item {
    item: String,
    cents: u32,
}

#[derive(Serialize, Deserialize)]
struct Receipt {
    number: String,
    cents: u32,
    card: String,
    /// Revision of the lease under which the card was charged: the processor refuses a lower one.
    fence: u64,
}

/// The desk itself holds nothing: every replica, and every process after a crash, is as good as another.
#[derive(Clone)]
struct Desk {
    tenant: Tenant,
    tool_router: ToolRouter<Self>,
}

type Reply = Result<CallToolResult, ErrorData>;
type Parts = http::request::Parts;

#[tool_router]
impl Desk {
    fn new(tenant: Tenant) -> Self {
        Self { tenant, tool_router: Self::tool_router() }
    }

    #[tool(description = "Opens a trip and returns its handle, which all other tools need")]
    async fn open_trip(
        &self,
        Extension(request): Extension<Parts>,
        Parameters(arguments): Parameters<OpenTrip>,
    ) -> Reply {
        reply(self.opened(&request, &arguments).await)
    }

    #[tool(description = "Adds a passenger to a trip")]
    async fn add_passenger(
        &self,
        Extension(request): Extension<Parts>,
        Parameters(AddPassenger { trip, name, passport }): Parameters<AddPassenger>,
    ) -> Reply {
        reply(self.added(&request, &trip, PASSENGERS, Passenger { name, passport }).await)
    }

    #[tool(description = "Puts something into a trip's basket")]
    async fn add_to_basket(
        &self,
        Extension(request): Extension<Parts>,
        Parameters(AddToBasket { trip, item, cents }): Parameters<AddToBasket>,
    ) -> Reply {
        reply(self.added(&request, &trip, BASKET, Item { item, cents }).await)
    }

    #[tool(description = "Shows a trip's passengers and basket, and returns a payment token for the total")]
    async fn show_basket(
        &self,
        Extension(request): Extension<Parts>,
        Parameters(OfTrip { trip }): Parameters<OfTrip>,
    ) -> Reply {
        reply(self.shown(&request, &trip).await)
    }

    #[tool(description = "Pays a trip's total once")]
    async fn pay(
        &self,
        Extension(request): Extension<Parts>,
        Parameters(arguments): Parameters<Pay>,
    ) -> Reply {
        reply(self.paid(&request, &arguments).await)
    }

    #[tool(description = "Closes a trip: everything about it is erased")]
    async fn close_trip(
        &self,
        Extension(request): Extension<Parts>,
        Parameters(OfTrip { trip }): Parameters<OfTrip>,
    ) -> Reply {
        reply(self.closed(&request, &trip).await)
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Desk {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("travel-desk", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "Open a trip, add passengers and items, show the basket, pay with its payment token.",
            )
    }
}

impl Desk {
    async fn opened(&self, request: &Parts, arguments: &OpenTrip) -> Result<Value, DeskError> {
        let owner = Some(user(request)?);
        let session = CreateSession { owner, idle_ttl: Some(TRIP_IDLE), ..CreateSession::default() };
        let session = self.tenant.create_session(session).await.map_err(DeskError::from_store)?;
        let trip = Trip { destination: arguments.destination.clone() };
        put(&session, TRIP, &trip, Expect::Absent).await?;
        Ok(json!({ "trip": session.id() }))
    }

    async fn added<T: Serialize>(
        &self,
        request: &Parts,
        trip: &str,
        list: &str,
        thing: T,
    ) -> Result<Value, DeskError> {
        let session = self.trip(request, trip)?;
        let thing = serde_json::to_value(thing)?;
        let mut count = 0;
        // Two tools may add at the same time: what the other wrote is read again and extended.
        let add = |entry: Option<&Entry>| {
            let mut things: Vec<Value> =
                entry.map_or_else(Vec::new, |entry| parsed(entry).unwrap_or_default());
            things.push(thing.clone());
            count = things.len();
            Some(Value::from(things).to_string())
        };
        session.modify(list, add).await.map_err(DeskError::from_store)?;
        Ok(json!({ list: count }))
    }

    async fn shown(&self, request: &Parts, trip: &str) -> Result<Value, DeskError> {
        let session = self.trip(request, trip)?;
        let names = [TRIP, PASSENGERS, BASKET, RECEIPT];
        let found = session.read_batch(names, View::Full).await.map_err(DeskError::from_store)?.into_inner();
        let [trip, passengers, basket, receipt] = <[_; 4]>::try_from(found).map_err(|_| DeskError::NoTrip)?;
        let trip: Trip = parsed(&trip.entry.ok_or(DeskError::NoTrip)?)?;
        let passengers: Vec<Passenger> = all(passengers.entry.as_ref())?;
        let basket: Vec<Item> = all(basket.entry.as_ref())?;
        let cents: u32 = basket.iter().map(|item| item.cents).sum();
        let paid = receipt.entry.is_some();
        let token = if paid || cents == 0 { None } else { Some(quote(&session, cents).await?) };
        Ok(json!({
            "destination": trip.destination,
            "passengers": passengers.iter().map(|passenger| &passenger.name).collect::<Vec<_>>(),
            "basket": basket,
            "cents": cents,
            "paid": paid,
            "payment_token": token,
        }))
    }

    async fn paid(&self, request: &Parts, payment: &Pay) -> Result<Value, DeskError> {
        let session = self.trip(request, &payment.trip)?;
        let lease = session.lease(PAYING, CHARGE).await.map_err(DeskError::from_store)?;
        let lease = lease.ok_or(DeskError::PaymentUnderWay)?;
        let outcome = charge(&session, payment, lease.fencing_token().get()).await;
        // When this fails the lease ends by itself, and the outcome stands.
        if let Err(error) = lease.release().await {
            tracing::warn!(%error, "the lease was not released");
        }
        outcome
    }

    async fn closed(&self, request: &Parts, trip: &str) -> Result<Value, DeskError> {
        self.trip(request, trip)?.delete_session().await.map_err(DeskError::from_store)?;
        Ok(json!({ "closed": true }))
    }

    /// Names the trip together with the user who asks. Whether the two belong together is Strongroom's answer.
    fn trip(&self, request: &Parts, trip: &str) -> Result<SessionHandle, DeskError> {
        Ok(self.tenant.session(trip, Some(user(request)?)))
    }
}

impl DeskError {
    fn from_store(error: ClientError) -> Self {
        if error.is_expired() {
            Self::TripExpired
        } else if error.is_not_found() {
            Self::NoTrip
        } else {
            Self::Store(error)
        }
    }
}

/// Mints a token for one payment of `cents`. It ends by itself, and whoever takes it first has it alone.
async fn quote(session: &SessionHandle, cents: u32) -> Result<String, DeskError> {
    let token = Uuid::new_v4().to_string();
    let put = session.put(token_key(&token), json!(cents).to_string()).ttl(QUOTE).expect(Expect::Absent);
    put.await.map_err(DeskError::from_store)?;
    Ok(token)
}

/// Charges the card. Whoever gets here holds the lease; whoever gets past the token is the only one with it.
async fn charge(session: &SessionHandle, payment: &Pay, fence: u64) -> Result<Value, DeskError> {
    match session.read(RECEIPT, View::Redacted).await {
        Ok(_) => return Err(DeskError::AlreadyPaid),
        Err(error) if error.is_entry_not_found() => {}
        Err(error) => return Err(DeskError::from_store(error)),
    }
    let token = match session.take(token_key(&payment.payment_token), View::Full).await {
        Ok(token) => token,
        Err(error) if error.is_entry_not_found() => return Err(DeskError::NoPaymentToken),
        Err(error) => return Err(DeskError::from_store(error)),
    };
    let cents: u32 = parsed(&token)?;
    if cents == 0 {
        return Err(DeskError::EmptyBasket);
    }
    // Here a real desk calls its card processor, with `payment_token` as the idempotency key and `fence` as the fence.
    let number = format!("R-{}", token.metadata.revision.get());
    let receipt = Receipt { number, cents, card: payment.card.clone(), fence };
    put(session, RECEIPT, &receipt, Expect::Absent).await?;
    Ok(json!({ "receipt": receipt.number, "cents": receipt.cents }))
}

async fn put<T: Serialize>(
    session: &SessionHandle,
    key: &str,
    value: &T,
    expect: Expect,
) -> Result<(), DeskError> {
    let value = serde_json::to_vec(value)?;
    session
        .put(key, value)
        .content_type("application/json")
        .expect(expect)
        .await
        .map_err(DeskError::from_store)?;
    Ok(())
}

fn token_key(token: &str) -> String {
    format!("payment-token/{token}")
}

fn parsed<T: DeserializeOwned>(entry: &Entry) -> Result<T, DeskError> {
    Ok(serde_json::from_slice(&entry.value)?)
}

fn all<T: DeserializeOwned>(entry: Option<&Entry>) -> Result<Vec<T>, DeskError> {
    entry.map_or_else(|| Ok(Vec::new()), parsed)
}

fn user(request: &Parts) -> Result<Owner, DeskError> {
    let name = request.headers.get(USER).and_then(|name| name.to_str().ok()).ok_or(DeskError::NoUser)?;
    Owner::new("https://travel-desk.example".to_owned(), "travel-desk".to_owned(), name.to_owned())
        .map_err(|_| DeskError::NoUser)
}

/// A refusal is a result that the model can read; only what it must not know stays in the log.
fn reply(outcome: Result<Value, DeskError>) -> Reply {
    Ok(match outcome {
        Ok(content) => CallToolResult::success(vec![ContentBlock::text(content.to_string())]),
        Err(error) => {
            if let DeskError::Store(cause) = &error {
                tracing::error!(%cause, "the store refused");
            }
            CallToolResult::error(vec![ContentBlock::text(error.to_string())])
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let strongroom = Strongroom::builder()
        .endpoint(&args.strongroom)
        .server_name(&args.server_name)
        .ca_file(args.keys.join("ca.pem"))
        .token_file(args.keys.join("app.token"))
        .build()?;
    let tenant = strongroom.tenant(&args.tenant)?;

    let store = Arc::new(RmcpStore::new(tenant.clone()));
    let sessions = LocalSessionManager::default().with_event_store(Arc::clone(&store) as Arc<dyn EventStore>);
    let mut config = StreamableHttpServerConfig::default();
    config.session_store = Some(store);
    let mcp = StreamableHttpService::new(move || Ok(Desk::new(tenant.clone())), Arc::new(sessions), config);

    let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port))).await?;
    println!("travel desk at http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, axum::Router::new().nest_service("/mcp", mcp)).await?;
    Ok(())
}
