//! The wire: what comes in over gRPC is parsed, handed to a use case, and its outcome converted back.

pub mod layers;
pub mod status;
pub mod transport;
