//! Root providers that are asked over a connection: a KMS v2 plugin in a process of its own and a transit engine over real
//! TLS, both of which can be told to misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod engine;
mod kms;
mod plugin;
mod server;
mod transit;

use std::sync::Arc;
use std::time::Duration;

use strongroom::env::{Entropy, SystemEntropy};
use strongroom::keyring::{Keyring, KeyringError, RootProvider};
use strongroom::model::{StoreId, Timestamp};
use strongroom::store::{MemoryEngine, ScanRange, StorageEngine as _};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const STORE: StoreId = StoreId([7; 16]);
/// What is wrapped here: no part of it occurs by accident.
const SECRET: &[u8; 32] = b"the secret that none may repeat!";
/// The deadline of calls that must be answered.
const PATIENT: Duration = Duration::from_secs(20);
/// The deadline of calls that are not answered.
const SHORT: Duration = Duration::from_millis(300);

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

async fn open(engine: &MemoryEngine, provider: &dyn RootProvider) -> Result<Keyring, KeyringError> {
    Keyring::open(engine, provider, &[], entropy(), NOW).await
}

/// All rows of a store, to see that nothing was changed.
async fn rows(engine: &MemoryEngine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = engine.scan(ScanRange::prefix([]), 1000).await.unwrap();
    rows.into_iter().map(|(key, row)| (key.as_bytes().to_vec(), row.as_bytes().to_vec())).collect()
}

/// The secret is in neither text, in no spelling that a program might use.
fn assert_no_secret(secret: &[u8], texts: &[String]) {
    let spellings = [
        String::from_utf8_lossy(secret).into_owned(),
        data_encoding::BASE64.encode(secret),
        data_encoding::HEXLOWER.encode(secret),
        format!("{secret:?}"),
    ];
    for text in texts {
        assert!(spellings.iter().all(|spelling| !text.contains(spelling)), "{text}");
    }
}
