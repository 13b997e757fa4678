//! Chooses the server of a test that any server must pass: the fake, or a real one.
//!
//! When `STRONGROOM_TEST_DIR` names the directory of a server that was started with `strongroomd dev`, it is that server.

use std::path::PathBuf;

use strongroom::client::{CreateSession, SessionHandle, Strongroom, Tenant};

use crate::fake::Fake;

/// A server with a tenant `demo`.
pub struct Bench {
    pub endpoint: String,
    /// Directory with `ca.pem` and `app.token`.
    pub keys: PathBuf,
    pub fake: Option<Fake>,
}

impl Bench {
    #[allow(clippy::disallowed_methods, reason = "chooses the server that the tests run against")]
    pub async fn start() -> Self {
        let Some(dir) = std::env::var_os("STRONGROOM_TEST_DIR") else {
            let fake = Fake::start().await;
            return Self { endpoint: fake.endpoint(), keys: fake.dir.path().to_owned(), fake: Some(fake) };
        };
        let keys = PathBuf::from(dir).join("keys/dev");
        let profile: toml::Table =
            std::fs::read_to_string(keys.join("profile.toml")).unwrap().parse().unwrap();
        Self { endpoint: profile["endpoint"].as_str().unwrap().to_owned(), keys, fake: None }
    }

    pub fn tenant(&self) -> Tenant {
        let builder = Strongroom::builder().endpoint(&self.endpoint).server_name("localhost");
        let client = builder.ca_file(self.keys.join("ca.pem")).token_file(self.keys.join("app.token"));
        client.build().unwrap().tenant("demo").unwrap()
    }

    /// A new session without an owner.
    pub async fn session(&self) -> SessionHandle {
        self.tenant().create_session(CreateSession::default()).await.unwrap().into_inner()
    }
}
