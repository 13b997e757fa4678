//! Strongroom: an encrypted context store for MCP servers.
pub mod cli;
pub mod client;
pub mod crypto;
pub mod env;
pub mod model;
pub mod proto;
pub mod store;
