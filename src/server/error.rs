//! Why a server did not start, or did not end well.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api::transport::TlsError;
use crate::auth::KeySetError;
use crate::commit::{Fault, StartError};
use crate::dev::DevError;
use crate::keyring::KeyringError;
use crate::provider::TransitError;
use crate::service::{AnchorError, Error};
use crate::store::EngineError;

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] EngineError),
    /// The keys cannot be opened.
    #[error("the keys cannot be opened: {0}")]
    Keyring(#[from] KeyringError),
    /// The root provider cannot be set up.
    #[error("the root provider cannot be set up: {0}")]
    Provider(#[from] TransitError),
    /// A recovery key cannot be read.
    #[error("recovery key {}: {problem}", .path.display())]
    Recovery {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate or its key cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] TlsError),
    /// The keys of an issuer cannot be used.
    #[error("the keys of an issuer cannot be used: {0}")]
    Keys(#[from] KeySetError),
    /// A port cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The committer cannot be started.
    #[error(transparent)]
    Committer(#[from] StartError),
    /// What dev mode needs cannot be made.
    #[error("dev mode cannot be set up: {0}")]
    Dev(#[from] DevError),
    /// What must be there before the first call cannot be written.
    #[error("the store cannot be prepared: {0}")]
    Prepare(#[from] Error),
    /// The access logs are not what their anchor says, or it cannot be told.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The generated descriptors are damaged; a defect of the build.
    #[error("the descriptors of the protocol are damaged")]
    Descriptors,
    /// The committer failed while the server was running.
    #[error("the server must be restarted: {0}")]
    Fault(Fault),
    /// The store was not closed as it should be; the next start makes up for it.
    #[error("the store was not closed cleanly")]
    Unclean,
}

impl ServerError {
    /// The exit code of a process that ends so: 5 when the access logs are not what their anchor says or it cannot be told, 70
    /// after a fault, 1 otherwise.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if let Self::Anchor(error) = self
            && error.is_refusal()
        {
            return 5;
        }
        if matches!(self, Self::Fault(_)) { 70 } else { 1 }
    }
}
