//! What do sealing, authorization and a durable access log cost?
//!
//! Expectation: the bare server needs about 17 µs of CPU a call. Ours adds token lookup, three rows, an HKDF and an AES-GCM
//! opening, two pseudonyms, one leaf: about 15 µs more. With client and server on two cores the ratio should be near 0.6.

use std::time::Duration;

use bytes::Bytes;
use strongroom::proto::v1;

use crate::load::{Client, VALUE_BYTES, Work, closed_loop};
use crate::servers::Server;
use crate::{Outcome, spread};

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(4);
const WARM: Duration = Duration::from_secs(1);
/// Entries that are read in turn.
const ENTRIES: u64 = 1000;

#[derive(Clone)]
struct Reads {
    client: Client,
    session: v1::SessionRef,
}

impl Work for Reads {
    async fn call(&self, worker: usize, number: u64) -> Outcome<()> {
        let read = self.client.read(worker, &self.session, format!("k{}", number % ENTRIES)).await?;
        if read == VALUE_BYTES { Ok(()) } else { Err("a value of another length".into()) }
    }
}

pub async fn run() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let (ours, _) = Server::strongroom(directory.path())?;
    let echo = Server::echo(directory.path())?;
    let client = Client::connect(&ours, directory.path()).await?;
    let session = client.session(None).await?;
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    for number in 0..ENTRIES {
        client.put(0, &session, format!("k{number}"), value.clone()).await?;
    }
    let reads = Reads { client, session: session.clone() };
    let echoes = Reads { client: Client::connect(&echo, directory.path()).await?, session };
    println!(
        "in flight | ours/s | echo/s | ratio (min median max) | CPU µs a call, ours and echo | p99 ms, ours and echo"
    );
    for in_flight in [1, 16, 64] {
        closed_loop(&ours, in_flight, WARM, reads.clone()).await?;
        closed_loop(&echo, in_flight, WARM, echoes.clone()).await?;
        let mut rows = Vec::new();
        for _ in 0..ROUNDS {
            let ours = closed_loop(&ours, in_flight, SPAN, reads.clone()).await?;
            let echo = closed_loop(&echo, in_flight, SPAN, echoes.clone()).await?;
            rows.push((ours, echo));
        }
        let median = |figure: &dyn Fn(&(crate::load::Load, crate::load::Load)) -> f64| {
            spread(rows.iter().map(figure).collect()).1
        };
        let (least, middle, most) = spread(rows.iter().map(|(ours, echo)| ours.rate / echo.rate).collect());
        println!(
            "{in_flight:>9} | {:.0} | {:.0} | {least:.2} {middle:.2} {most:.2} | {:.1} {:.1} | {:.2} {:.2}",
            median(&|(ours, _)| ours.rate),
            median(&|(_, echo)| echo.rate),
            median(&|(ours, _)| ours.cpu),
            median(&|(_, echo)| echo.cpu),
            median(&|(ours, _)| ours.p99.as_secs_f64() * 1e3),
            median(&|(_, echo)| echo.p99.as_secs_f64() * 1e3),
        );
    }
    Ok(())
}
