//! Strongroom: an encrypted context store for MCP servers.
pub mod api;
pub mod crypto;
pub mod env;
pub mod model;
pub mod proto;
pub mod store;
