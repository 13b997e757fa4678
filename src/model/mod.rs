//! Nouns, names and bounds.
//!
//! Everything here is plain data that validates itself when it is made, so the rest of the program never meets a name
//! that is too long or a time that is absurd. Nothing here does I/O, knows a wire format or holds a key; it uses `std` only.

pub mod limits;

mod entry;
mod identity;
mod name;
mod scope;
mod session;
mod tenant;
mod time;

pub use entry::{ContentType, Expect, MutationExpiry, Revision, View};
pub use identity::{
    Binding, Bindings, Grant, IDENTITY_BYTES, Identity, Pattern, SignatureAlgorithm, SpiffeId, Whom,
    is_plain, is_segment, is_trust_domain,
};
pub use name::{EntryKey, Labels, NameError, RequestId, SessionId, StreamName, TenantName, TokenName};
pub use scope::{Scope, Scopes, TenantSet};
pub use session::Owner;
pub use tenant::{KekOrigin, KekState, KekVersion, StoreId, TenantId, TenantRef, TenantState};
pub use time::{Duration, Timestamp};
