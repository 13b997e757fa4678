//! How a client is configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Strongroom;
use super::channel::{Route, Target};
use super::error::ClientError;
use super::link::Link;
use super::retry::Retries;
use super::token::TokenFile;

/// Deadline of a call when none is configured.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Port of an endpoint that names none, on the data listener.
const DATA_PORT: u16 = 7443;
/// Port of an endpoint that names none, on the admin listener.
const ADMIN_PORT: u16 = 7444;
/// Most connections to one listener.
const CONNECTIONS: usize = 64;

/// Collects the configuration of a [`Strongroom`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    endpoints: Vec<String>,
    admin_endpoints: Vec<String>,
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    token_file: Option<PathBuf>,
    admin_token_file: Option<PathBuf>,
    timeout: Duration,
    retries: Retries,
    connections: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            admin_endpoints: Vec::new(),
            ca_file: None,
            server_name: None,
            token_file: None,
            admin_token_file: None,
            timeout: TIMEOUT,
            retries: Retries::default(),
            connections: 1,
        }
    }
}

impl Builder {
    /// Adds an endpoint of the data plane, `https://host[:port]`, port 7443 unless named. Several endpoints of the same
    /// store take turns.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Adds an endpoint of the control plane, `https://host[:port]`, port 7444 unless named.
    pub fn admin_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.admin_endpoints.push(endpoint.into());
        self
    }

    /// Names the PEM file with the certificates that may have signed the server's. It is read again for every new
    /// connection. The system's roots are never trusted.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Sets the name that the server's certificate must carry, when it is not the endpoint's host.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Names the file with the token. It is read again when it changes, and once more when the server refuses the token.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// Names another token file for the control plane. Default: the same token on both.
    pub fn admin_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.admin_token_file = Some(path.into());
        self
    }

    /// Sets the deadline of a call, its retries included; it travels with the call. Default: 5 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how calls are repeated.
    pub const fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how many connections share the calls to each listener, 1 to 64. Default: 1, which carries 256 calls at a time.
    pub const fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Makes the client. Nothing is connected before the first call; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`] names what is missing or malformed, and the file that cannot be read.
    pub fn build(self) -> Result<Strongroom, ClientError> {
        if self.endpoints.is_empty() && self.admin_endpoints.is_empty() {
            return Err(ClientError::NoEndpoint { listener: "data" });
        }
        let open = |path: &PathBuf| Arc::new(TokenFile::new(path.clone()));
        let token = self.token_file.as_ref().map(open);
        let admin_token = self.admin_token_file.as_ref().map(open).or_else(|| token.clone());
        Ok(Strongroom {
            data: self.link(&self.endpoints, DATA_PORT, token)?,
            admin: self.link(&self.admin_endpoints, ADMIN_PORT, admin_token)?,
        })
    }

    fn link(
        &self,
        endpoints: &[String],
        port: u16,
        token: Option<Arc<TokenFile>>,
    ) -> Result<Option<Link>, ClientError> {
        let parse = |endpoint: &String| Target::parse(endpoint, port);
        let targets = endpoints.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = targets.first() else { return Ok(None) };
        let ca_file = self.ca_file.clone().ok_or(ClientError::NoCaFile)?;
        let name = self.server_name.clone().unwrap_or_else(|| first.host().to_owned());
        let mut channels = Vec::new();
        for _ in 0..self.connections.clamp(1, CONNECTIONS) {
            let route = Arc::new(Route::new(targets.clone(), ca_file.clone(), &name)?);
            channels.push(route.channel()?);
        }
        Ok(Some(Link::new(channels, token, self.timeout, self.retries)))
    }
}
