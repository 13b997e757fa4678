//! The wire: what comes in over gRPC is parsed, handed to a use case, and its outcome converted back.

pub mod layers;
pub mod status;

mod admin;
mod approvals;
mod call;
mod context;
mod convert;
mod error;
mod follow;
mod identify;
mod parse;

/// What the protocol's descriptors and generated servers are called, for those who assemble a server.
pub use crate::proto::{
    DESCRIPTORS, v1::admin_service_server::AdminServiceServer,
    v1::approval_service_server::ApprovalServiceServer, v1::context_service_server::ContextServiceServer,
};
pub use admin::Admin;
pub use approvals::Approvals;
pub use context::Context;
pub use error::{AUDIT_LOG_HEADER, AUDIT_SEQUENCE_HEADER};
pub use identify::Identify;
pub mod transport;
