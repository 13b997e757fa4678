//! Callers that prove who they are by a client certificate.
//!
//! That the certificate is sound, not revoked and of an authority that we trust was found out in the handshake. What is
//! left: whom it names, and whether that is anybody. Exactly one URI in its alternative names, of the one form of a SPIFFE id
//! and of a trust domain that is configured; or, without any URI, a subject that is one common name.

use std::sync::Arc;

use async_trait::async_trait;
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};

use super::{AuthenticateError, Authenticator, Credentials, Principal};
use crate::env::Clock;
use crate::model::{Bindings, Identity, SpiffeId, Timestamp, is_plain};

/// Why a certificate names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// It cannot be read, or has a field twice.
    #[error("the certificate cannot be read")]
    Malformed,
    /// It has several URIs among its alternative names.
    #[error("the certificate names more than one URI")]
    SeveralUris,
    /// Its URI is no SPIFFE id of our form.
    #[error("the certificate's URI is no SPIFFE id of the form spiffe://<trust domain>/ns/<ns>/sa/<sa>")]
    NotSpiffe,
    /// It has no URI, and its subject is not one plain common name.
    #[error("the certificate names neither a URI nor one common name alone")]
    Nameless,
}

/// What we need to know of a certificate that was verified, read once for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    digest: [u8; 32],
    named: Result<Identity, CertificateProblem>,
    expires: Timestamp,
}

impl ClientCertificate {
    /// Reads a certificate in DER. One that cannot be read names nobody and has expired.
    #[must_use]
    pub fn read(der: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, der).as_ref());
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => {
                Self { digest: sha256, named: identity(&certificate), expires: end(&certificate) }
            }
            Ok(_) | Err(_) => Self {
                digest: sha256,
                named: Err(CertificateProblem::Malformed),
                expires: Timestamp::from_millis(0),
            },
        }
    }

    /// Whom it names.
    ///
    /// # Errors
    /// [`CertificateProblem`] says why it names nobody.
    pub const fn identity(&self) -> &Result<Identity, CertificateProblem> {
        &self.named
    }

    /// SHA-256 of the certificate, which a token may be bound to (`x5t#S256`, RFC 8705).
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The end of its validity.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }
}

fn identity(certificate: &X509Certificate<'_>) -> Result<Identity, CertificateProblem> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateProblem::Malformed)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(CertificateProblem::Malformed);
    }
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris.as_slice() {
        [] => common_name(certificate.subject()).map(Identity::CommonName),
        [uri] => SpiffeId::parse(uri).map(Identity::Workload).ok_or(CertificateProblem::NotSpiffe),
        _ => Err(CertificateProblem::SeveralUris),
    }
}

/// The common name of a subject that has nothing else.
fn common_name(subject: &X509Name<'_>) -> Result<String, CertificateProblem> {
    let mut attributes = subject.iter_attributes();
    let names = subject.iter_common_name().next();
    let (Some(only), None, Some(name)) = (attributes.next(), attributes.next(), names) else {
        return Err(CertificateProblem::Nameless);
    };
    let text = name.as_str().map_err(|_| CertificateProblem::Nameless)?;
    if only.attr_type() == name.attr_type() && is_plain(text) {
        Ok(text.to_owned())
    } else {
        Err(CertificateProblem::Nameless)
    }
}

fn end(certificate: &X509Certificate<'_>) -> Timestamp {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

/// Whom we know, and what they may.
#[derive(Debug, Clone, Default)]
pub struct Subjects {
    /// The trust domains whose workloads are accepted.
    pub trust_domains: Vec<String>,
    /// What everybody is granted.
    pub bindings: Bindings,
}

/// Accepts callers whose certificate names someone that a binding grants something.
pub struct CertificateAuthenticator {
    subjects: Arc<Subjects>,
    clock: Arc<dyn Clock>,
}

impl CertificateAuthenticator {
    /// Accepts whom `subjects` names.
    #[must_use]
    pub const fn new(subjects: Arc<Subjects>, clock: Arc<dyn Clock>) -> Self {
        Self { subjects, clock }
    }

    fn accept(&self, certificate: &ClientCertificate) -> Result<Principal, AuthenticateError> {
        let identity = certificate.identity().as_ref().map_err(|_| AuthenticateError::Invalid)?;
        if let Identity::Workload(id) = identity
            && !self.subjects.trust_domains.iter().any(|known| known == id.trust_domain())
        {
            return Err(AuthenticateError::Invalid);
        }
        if certificate.expires() <= self.clock.now() {
            return Err(AuthenticateError::Invalid);
        }
        let grants = self.subjects.bindings.grants(identity);
        // Who is named by nobody is not a principal: the same as an unknown token.
        if grants.is_empty() {
            return Err(AuthenticateError::Invalid);
        }
        Ok(Principal::new(identity.id(), grants, certificate.expires()))
    }
}

#[async_trait]
impl Authenticator for CertificateAuthenticator {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AuthenticateError> {
        self.accept(credentials.certificate().ok_or(AuthenticateError::Missing)?)
    }
}
