//! Authorities of client certificates that end: the library takes a trusted authority as it is, for ever.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::auth::ClientCertificate;
use crate::model::Timestamp;

/// Those of `authorities` that have not expired, and when the first and the last of these do.
pub(super) struct Living {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// When there will be fewer; none when all have expired already.
    pub(super) fewer: Option<Timestamp>,
    /// When there will be none.
    pub(super) none: Timestamp,
}

impl Living {
    /// When none is left, it has all of them, and nobody is let in.
    pub(super) fn of(authorities: Vec<CertificateDer<'static>>, now: Timestamp) -> Self {
        let ends = |authority: &CertificateDer<'_>| ClientCertificate::read(authority).expires();
        let (alive, dead): (Vec<_>, Vec<_>) =
            authorities.into_iter().partition(|authority| ends(authority) > now);
        if !dead.is_empty() {
            tracing::warn!(expired = dead.len(), left = alive.len(), "authorities of clients have expired");
        }
        let (fewer, none) = (alive.iter().map(ends).min(), alive.iter().map(ends).max());
        let authorities = if alive.is_empty() { dead } else { alive };
        Self { authorities, fewer, none: none.unwrap_or(Timestamp::from_millis(0)) }
    }
}

/// A point in time as the TLS library counts it.
pub(super) const fn at(now: UnixTime) -> Timestamp {
    Timestamp::from_millis(now.as_secs().saturating_mul(1000))
}

/// Lets nobody in any more once all authorities have expired.
#[derive(Debug)]
pub(super) struct Dated {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) ends: Timestamp,
}

impl ClientCertVerifier for Dated {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if at(now) >= self.ends {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
        self.inner.verify_client_cert(own, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
