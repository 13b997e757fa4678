//! Who is calling, and what may they do.
//!
//! An [`Authenticator`] turns credentials into a [`Principal`]; [`authorize`] turns a principal and an action into a
//! [`Permit`]. A permit can be made nowhere else, names one tenant, and every use case asks for one (or, where what it takes is
//! known only once a row was read, asks [`allows`]): nothing runs without a decision. Everything that is not allowed is denied.
//!
//! This module stores nothing: tokens are found through the [`TokenDirectory`] seam.

mod authenticate;
mod certificate;
mod gate;
mod jwt;
mod permit;
mod principal;

pub use authenticate::{
    AuthenticateError, Authenticator, Credentials, TokenAuthenticator, TokenDirectory, TokenGrant,
    token_digest,
};
pub use certificate::{CertificateAuthenticator, CertificateProblem, ClientCertificate, Subjects};
pub use gate::Gate;
pub use jwt::{Issuer, JwtAuthenticator, KeySet, KeySetError, KeySource};
pub use permit::{
    Action, Denied, DestroyKeys, DestroyKeysNow, ExportKeys, ImportKeys, ListSessions, ManageKeys,
    ManageRoot, ManageTenants, ManageTokens, Permit, PurgeSensitive, Read, ReadAudit, ReadFull, ReadStatus,
    Target, Write, allows, authorize,
};
pub use principal::{Caller, Principal, Source};
