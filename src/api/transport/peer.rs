//! What a handler may know of the connection that its request came over.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::auth::ClientCertificate;

/// The other end of a connection; in the extensions of every request.
#[derive(Clone)]
pub struct Peer {
    /// The address that the connection came from. Behind a proxy, the proxy's.
    pub address: SocketAddr,
    /// The certificates that were presented and verified, the peer's own first; empty when there were none.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// What the peer's own certificate says of it.
    pub identity: Option<Arc<ClientCertificate>>,
    /// The version of TLS that was agreed on.
    pub tls: Option<ProtocolVersion>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = self.certificates.len();
        f.debug_struct("Peer")
            .field("certificates", &certificates)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Tells a handler that its connection is to be closed; in the extensions of every request.
///
/// A handler that streams without end should then end its stream: what it leaves unfinished is cut off when the grace of
/// the connection is over. Its client resumes on another connection.
#[derive(Debug, Clone)]
pub struct Closing(pub(super) CancellationToken);

impl Closing {
    /// Waits until the connection is asked to close, by its age or because the server drains.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// Whether it has been asked to close.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }
}
