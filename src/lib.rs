//! Strongroom: an encrypted context store for MCP servers.
pub mod crypto;
pub mod env;
pub mod keyring;
pub mod model;
pub mod proto;
pub mod store;
