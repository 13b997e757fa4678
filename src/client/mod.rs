//! The Rust client of Strongroom.
//!
//! It adds to the generated code what a program that runs for months needs: TLS to a named CA alone, a token that is read
//! again when it is rotated, deadlines that travel, retries that are safe because every mutation carries a request id,
//! reconnecting streams, and errors with types. It does not cache values and it does not choose between stores.
//!
//! ```no_run
//! # async fn example() -> Result<(), strongroom::client::ClientError> {
//! use std::time::Duration;
//! use strongroom::client::{CreateSession, Expect, Owner, Strongroom, View};
//!
//! let strongroom = Strongroom::builder()
//!     .endpoint("https://127.0.0.1:7443")
//!     .ca_file("keys/dev/ca.pem")
//!     .server_name("localhost")
//!     .token_file("keys/dev/app.token")
//!     .build()?;
//! let tenant = strongroom.tenant("demo")?;
//!
//! let owner = Owner::new("https://id.example".into(), String::new(), "alice".into()).ok();
//! let session = tenant
//!     .create_session(CreateSession { owner, idle_ttl: Some(Duration::from_secs(1800)), ..CreateSession::default() })
//!     .await?;
//! session.put("basket", "2 tickets").expect(Expect::Absent).content_type("text/plain").await?;
//! let basket = session.read("basket", View::Full).await?;
//! println!("revision {}, recorded at {:?}", basket.metadata.revision.get(), basket.audit());
//! # Ok(())
//! # }
//! ```

mod admin;
mod answer;
mod batch;
mod builder;
mod channel;
mod convert;
mod entry;
mod error;
mod events;
mod follow;
mod lease;
mod link;
mod page;
mod retry;
#[cfg(feature = "rmcp")]
mod rmcp;
mod session;
mod tenant;
mod token;
mod watch;

pub use admin::{
    Admin, Approval, ApprovalState, AuditCheckpoint, AuditEvent, AuditExport, AuditOrder, AuditProof,
    AuditSearch, AuditSubjects, AuditTail, Destroy, ExportedKek, Job, JobKind, JobState, JobWatch, Kek,
    KekDestruction, KekUse, NewToken, Root, RootEpoch, RootHealth, RootProvider, RootProviderCheck,
    RootRecipient, RootVerification, Rotation, ServerStatus, TenantDestruction, TenantRecord, Token,
    TokenCreated, WrappingKey,
};
pub use answer::{Answer, AuditStamp};
pub use batch::{Delete, Found, Put, Write, Written};
pub use builder::Builder;
pub use entry::{DeleteEntry, Entry, EntryMetadata, PutEntry, ReadEntry, TakeEntry};
pub use error::{CallError, ClientError, ErrorReason, FieldViolation, Origin};
pub use events::{AppendEvents, Event, EventStream, Events, NewEvent};
pub use lease::Lease;
pub use retry::Retries;
#[cfg(feature = "rmcp")]
pub use rmcp::{RmcpStore, RmcpStoreError};
pub use session::{Session, SessionHandle, UpdateSession};
pub use tenant::{CreateSession, Tenant};
pub use watch::{EntryChange, Watch, WatchStream, WatchUpdate};

pub use crate::crypto::{Secret, WRAPPED_BYTES, WrappedKey, WrappingPublicKey};
pub use crate::model::{
    Expect, KekOrigin, KekState, MutationExpiry, Owner, Revision, Scope, TenantState, Timestamp, View,
};
pub use bytes::Bytes;
pub use futures_util::stream::BoxStream;
pub use tonic::Code;
pub use uuid::Uuid;

use std::time::Duration;

use crate::model::TenantName;
use link::Link;

/// A client of one store. Cheap to clone; clones share their connections and their retry budget.
#[derive(Debug, Clone)]
pub struct Strongroom {
    data: Option<Link>,
    admin: Option<Link>,
}

impl Strongroom {
    /// Begins the configuration of a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The data of one tenant. Nothing is sent; whether the tenant exists shows at the first call.
    ///
    /// # Errors
    /// [`ClientError::Name`] when the name breaks its bounds, [`ClientError::NoEndpoint`] without a data endpoint.
    pub fn tenant(&self, name: &str) -> Result<Tenant, ClientError> {
        let name =
            TenantName::new(name).map_err(|source| ClientError::Name { what: "tenant's name", source })?;
        let link = self.data.clone().ok_or(ClientError::NoEndpoint { listener: "data" })?;
        Ok(Tenant::new(link, name))
    }

    /// The control plane.
    ///
    /// # Errors
    /// [`ClientError::NoEndpoint`] without an admin endpoint.
    pub fn admin(&self) -> Result<Admin, ClientError> {
        self.admin.clone().map(Admin::new).ok_or(ClientError::NoEndpoint { listener: "admin" })
    }

    /// The same client with another deadline for calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.changed(|link| link.timeout = timeout)
    }

    /// The same client with another way of repeating calls.
    #[must_use]
    pub fn with_retries(&self, retries: Retries) -> Self {
        self.changed(|link| link.retries = retries)
    }

    fn changed(&self, change: impl Fn(&mut Link)) -> Self {
        let mut client = self.clone();
        client.data.iter_mut().chain(&mut client.admin).for_each(change);
        client
    }
}
