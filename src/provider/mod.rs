//! Root providers that are asked over a connection, and the watch over their health.
//!
//! [`KmsPlugin`] speaks to a Kubernetes KMS v2 plugin over a Unix socket, [`Transit`] to a transit engine of Vault or
//! OpenBao over TLS. Both promise that every call ends within its deadline, that no answer is larger than its bound, that
//! what was wrapped was unwrapped again before it is trusted, and that neither an error nor a `Debug` holds a secret: of
//! what a provider says about a call that carried one, only the code is repeated. [`RootHealth`] says how the provider is
//! and whether new keys may still be made under it. Nothing here is asked for a request: opened keys need no provider.

mod health;
mod kms;
mod transit;

pub use health::{Condition, GRACE, Health, POLL_HEALTHY, POLL_UNHEALTHY, RootHealth};
pub use kms::{KmsCall, KmsError, KmsPlugin};
pub use transit::{Credential, FileProblem, Kubernetes, Transit, TransitCall, TransitError, TransitOptions};
