//! Leaks: nothing that a caller entrusts to the server turns up where it does not belong.
//!
//! Marked words are planted in every field of every call and in everything around calls (`plant`, `strangers`), against a server process that logs
//! all it can. Then the words are looked for, and with them the tokens and the root key, as they are, in base64 and in hexadecimal (`search`): in the
//! store's files, in standard output and error, in metrics, in what refusals said, in the access logs, and in the memory of the process once all
//! callers have gone.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod destroyed;
mod ended;
mod header;
mod keys;
mod markers;
mod plant;
mod raw;
mod search;
mod strangers;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use rustix::process::Signal;
use tower::{Service as _, ServiceExt as _};

use crate::markers::Markers;
use crate::plant::{Harvest, Planting, read_log};
use crate::search::{Found, Search, merge};
use crate::support::{Daemon, Login, until};

/// Everything that must not turn up anywhere but where it was put.
async fn secrets<'a>(daemon: &Daemon, markers: &'a Markers, harvest: &Harvest) -> Search<'a> {
    let mut search = Search::new(markers);
    let own = [Login::App, Login::Admin, Login::Reader].map(|login| daemon.token(login));
    for token in own.iter().chain(&harvest.tokens) {
        let secret = BASE64URL_NOPAD.decode(token.strip_prefix("srt_").unwrap().as_bytes()).unwrap();
        search = search.text("a token", token).bytes("a token's secret", &secret);
        search =
            search.exactly("a token as it travels", &header::compressed(&format!("Bearer {token}")).await);
    }
    for (whose, key) in harvest.live_keys.iter().chain(&harvest.dead_keys) {
        search = search.bytes(whose, key);
    }
    let key = root_key(&daemon.keys().join("root.key"));
    search.bytes("the root key", &key)
}

/// Names that the server remembers of what is in use; nothing else of a request may stay in memory.
const REMEMBERED: [&str; 10] = [
    "Name session id",
    "Name owner.",
    "Name session label",
    "Name later session label",
    "Name tenant",
    "Name token name",
    "Name a token's tenant",
    // Of the last changes, for those who watch.
    "Name entry key",
    "Name deleted: entry key",
    // Such names from fields of their own.
    "Name /strongroom.v1.",
];
/// Fields whose words may be remembered.
const FIELDS: [&str; 7] =
    [" session_id ", ".session_id ", "owner.", "labels.labels.", ".key ", " name ", " tenants "];

fn is_remembered(what: &str) -> bool {
    let by_field = !what.contains("/strongroom.v1.") || FIELDS.iter().any(|field| what.contains(field));
    by_field && REMEMBERED.iter().any(|name| what.starts_with(name))
}

/// The key in a keyring file.
fn root_key(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
    let key = BASE64.decode(line.as_bytes()).unwrap();
    assert_eq!(key.len(), 32);
    key
}

async fn metrics(daemon: &Daemon) -> String {
    let endpoint = daemon.health_endpoint();
    let request = http::Request::get(format!("{endpoint}/metrics")).body(tonic::body::Body::empty()).unwrap();
    let mut channel = daemon.channel(&endpoint);
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Waits until nobody is connected to the server any more.
async fn all_gone(daemon: &Daemon) {
    let ports: Vec<String> = [daemon.endpoint(), daemon.admin_endpoint(), daemon.health_endpoint()]
        .iter()
        .map(|endpoint| {
            format!("0100007F:{:04X}", endpoint.rsplit_once(':').unwrap().1.parse::<u16>().unwrap())
        })
        .collect();
    until("the end of all connections", || {
        const LISTENS: &str = "0A";
        const GONE: &str = "06";
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let connected = sockets.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            ports.iter().any(|port| port == fields[1]) && fields[3] != LISTENS && fields[3] != GONE
        });
        (!connected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_planted_leaks() {
    let mut daemon = Daemon::start_with(&["--log", "trace"]).await;
    let (mut markers, mut harvest) = (Markers::new(), Harvest::default());
    Planting::new(&daemon, &mut markers, &mut harvest).everywhere().await;
    strangers::knock(&daemon, &mut markers, &mut harvest).await;
    for log in ["demo", ""] {
        harvest.lines.extend(read_log(&daemon, log).await);
    }
    let metrics = metrics(&daemon).await;
    let groups =
        |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let committed = groups("strongroom_commit_groups_total").expect("groups were committed");
    assert!(groups("strongroom_commit_seconds_count") >= Some(committed), "{metrics}");
    all_gone(&daemon).await;
    println!(
        "{} words planted, {} calls refused, {} answers with words, {} events",
        markers.count(),
        harvest.refusals.len(),
        harvest.answers_with_words,
        harvest.lines.len()
    );
    let search = secrets(&daemon, &markers, &harvest).await;

    let mut found = Found::new();
    for (what, said) in &harvest.refusals {
        merge(&mut found, search.bytes_of(&format!("the refusal of {what}"), said));
    }
    merge(&mut found, search.bytes_of("the access log", harvest.lines.join("\n").as_bytes()));
    merge(&mut found, search.bytes_of("metrics", metrics.as_bytes()));
    memory(&daemon, &search, &harvest, &mut found);
    merge(&mut found, files(&daemon, &search));
    // A request for a core image.
    daemon.signal(Signal::ABORT);
    let status = daemon.ended().await;
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    merge(&mut found, files(&daemon, &search));
    merge(&mut found, search.bytes_of("standard output and error", daemon.logs().as_bytes()));
    assert!(daemon.logs().contains("DEBUG"), "there is hardly a log: {}", daemon.logs());
    assert!(found.is_empty(), "{found:#?}");
}

fn files(daemon: &Daemon, search: &Search) -> Found {
    let (found, size) = search.files(&daemon.dir().join("data"));
    println!("{size} bytes of files");
    assert!(size > 1 << 20);
    found
}

/// Looks into the memory of the process, as a core image would show it.
fn memory(daemon: &Daemon, search: &Search, harvest: &Harvest, into: &mut Found) {
    let (found, size) = match search.memory(daemon.pid()) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            println!("SKIPPED: only root can read the memory of a process that is not dumpable: {error}");
            return;
        }
    };
    println!("{size} bytes of memory");
    let (remembered, leaked): (Found, Found) = found.into_iter().partition(|(what, _)| is_remembered(what));
    println!("names that are remembered: {remembered:#?}");
    assert!(!remembered.is_empty(), "the search finds nothing");
    // Keys in use are there, and once each.
    let in_use = |what: &str| {
        harvest.live_keys.iter().any(|(whose, _)| what == format!("{whose} in anonymous memory"))
    };
    let (keys, leaked): (Found, Found) = leaked.into_iter().partition(|(what, _)| in_use(what));
    assert_eq!(keys.values().copied().collect::<Vec<_>>(), vec![1; harvest.live_keys.len()], "{keys:#?}");
    merge(into, leaked);
}
