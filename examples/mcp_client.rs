//! A traveller: an MCP client that drives the travel desk of `mcp_server` step by step.
//!
//! Each step is one process, so that the server, or this client, can be killed in between. Every line on stdout is a word
//! and what belongs to it, for scripts to look at; the exit code is 0 when the step went as it should.
//!
//! ```text
//! cargo run --features rmcp --example mcp_client -- begin
//! cargo run --features rmcp --example mcp_client -- continue --trip srs_…
//! cargo run --features rmcp --example mcp_client -- steal --trip srs_… --user eve
//! cargo run --features rmcp --example mcp_client -- resume
//! ```

#![expect(clippy::indexing_slicing, reason = "a JSON value yields null for what it does not have")]

use std::collections::HashMap;
use std::error::Error;

use clap::{Parser, Subcommand};
use http::{HeaderName, HeaderValue};
use rmcp::model::{CallToolRequestParams, ClientConfig, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "Drives the travel desk step by step")]
struct Args {
    /// The travel desk
    #[arg(long, global = true, default_value = "http://127.0.0.1:8808/mcp")]
    url: String,
    /// Who travels
    #[arg(long, global = true, default_value = "alice")]
    user: String,
    #[command(subcommand)]
    step: Step,
}

#[derive(Subcommand)]
enum Step {
    /// Open a trip and fill it; prints its handle
    Begin,
    /// Go on with a trip and pay it, trying twice at the same time
    Continue {
        /// Handle of the trip
        #[arg(long)]
        trip: String,
    },
    /// Try to get at somebody else's trip; succeeds when the desk says "not found"
    Steal {
        /// Handle of the trip
        #[arg(long)]
        trip: String,
    },
    /// Open an MCP session of the older protocol, wait for a line on stdin, and go on in the same session
    Resume,
    /// Close a trip
    Close {
        /// Handle of the trip
        #[arg(long)]
        trip: String,
    },
}

/// Which era of the protocol a client speaks.
enum Era {
    /// 2026-07-28: no session, the handle is all there is.
    Handles,
    /// The revisions before: `initialize` and `Mcp-Session-Id`.
    Sessions,
}

type Client = RunningService<RoleClient, ClientConfig>;
type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let args = Args::parse();
    match &args.step {
        Step::Begin => begin(&args).await,
        Step::Continue { trip } => go_on(&args, trip).await,
        Step::Steal { trip } => steal(&args, trip).await,
        Step::Resume => resume(&args).await,
        Step::Close { trip } => close(&args, trip).await,
    }
}

async fn begin(args: &Args) -> Outcome<()> {
    let client = connect(args, Era::Handles).await?;
    let trip = open(&client).await?;
    println!("trip {trip}");
    let ada = json!({ "trip": trip, "name": "Ada Lovelace", "passport": "L01X00T47" });
    println!("passengers {}", call(&client, "add_passenger", ada).await?["passengers"]);
    for (item, cents) in [("night train to Lisbon", 18_900), ("window seat", 1_250)] {
        call(&client, "add_to_basket", json!({ "trip": trip, "item": item, "cents": cents })).await?;
    }
    println!("basket {}", show(&client, &trip).await?["cents"]);
    end(client).await
}

async fn go_on(args: &Args, trip: &str) -> Outcome<()> {
    let client = connect(args, Era::Handles).await?;
    let shown = show(&client, trip).await?;
    println!("destination {}", text(&shown["destination"]));
    println!("passenger {}", text(&shown["passengers"][0]));
    println!("basket {}", shown["cents"]);
    let payment =
        json!({ "trip": trip, "payment_token": shown["payment_token"], "card": "4929123412341234" });
    let (one, two) =
        tokio::join!(call(&client, "pay", payment.clone()), call(&client, "pay", payment.clone()));
    let (receipt, refusal) = match (one, two) {
        (Ok(receipt), Err(refusal)) | (Err(refusal), Ok(receipt)) => (receipt, refusal),
        (Ok(_), Ok(_)) => return Err("the trip was paid twice".into()),
        (Err(error), Err(_)) => return Err(error),
    };
    println!("paid {} {}", text(&receipt["receipt"]), receipt["cents"]);
    println!("refused-at-the-same-time {refusal}");
    let again = call(&client, "pay", payment).await.err().ok_or("the trip was paid again")?;
    println!("refused-afterwards {again}");
    end(client).await
}

async fn steal(args: &Args, trip: &str) -> Outcome<()> {
    let client = connect(args, Era::Handles).await?;
    let refusal = show(&client, trip).await.err().ok_or("the trip was shown to somebody else")?.to_string();
    println!("refused {refusal}");
    end(client).await?;
    if refusal.starts_with("not found") {
        Ok(())
    } else {
        Err("the refusal tells more than \"not found\"".into())
    }
}

async fn resume(args: &Args) -> Outcome<()> {
    let client = connect(args, Era::Sessions).await?;
    let trip = open(&client).await?;
    println!("trip {trip}");
    println!("waiting restart the travel desk, then press Enter");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    println!("resumed {}", text(&show(&client, &trip).await?["destination"]));
    end(client).await
}

async fn close(args: &Args, trip: &str) -> Outcome<()> {
    let client = connect(args, Era::Handles).await?;
    call(&client, "close_trip", json!({ "trip": trip })).await?;
    println!("closed {trip}");
    let gone = show(&client, trip).await.err().ok_or("the trip is still there")?;
    println!("refused {gone}");
    end(client).await
}

async fn connect(args: &Args, era: Era) -> Outcome<Client> {
    let user = HashMap::from([(HeaderName::from_static("x-demo-user"), HeaderValue::from_str(&args.user)?)]);
    let mut config = StreamableHttpClientTransportConfig::with_uri(args.url.as_str()).custom_headers(user);
    // A session that the server no longer knows must show as a failure here, not be replaced behind our back.
    config.reinit_on_expired_session = false;
    let transport = StreamableHttpClientTransport::from_config(config);
    let (version, lifecycle) = match era {
        Era::Handles => {
            let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
            (ProtocolVersion::V_2026_07_28, ClientLifecycleMode::Discover { preferred_versions })
        }
        Era::Sessions => (ProtocolVersion::LATEST_WITH_INITIALIZE, ClientLifecycleMode::Initialize),
    };
    let client = ClientConfig::default().with_protocol_version(version);
    Ok(client.serve_with_lifecycle(transport, lifecycle).await?)
}

async fn open(client: &Client) -> Outcome<String> {
    Ok(text(&call(client, "open_trip", json!({ "destination": "Lisbon" })).await?["trip"]).to_owned())
}

async fn show(client: &Client, trip: &str) -> Outcome<Value> {
    call(client, "show_basket", json!({ "trip": trip })).await
}

/// Calls a tool; a refusal by the desk is an error with the desk's words.
async fn call(client: &Client, tool: &'static str, arguments: Value) -> Outcome<Value> {
    let Value::Object(arguments) = arguments else { return Err("arguments are an object".into()) };
    let result = client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await?;
    let said = result.content.first().and_then(|block| block.as_text()).ok_or("the desk said nothing")?;
    if result.is_error == Some(true) {
        return Err(said.text.clone().into());
    }
    Ok(serde_json::from_str(&said.text)?)
}

async fn end(client: Client) -> Outcome<()> {
    client.cancel().await?;
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
