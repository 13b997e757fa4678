//! Strongroom: an encrypted context store for MCP servers.
pub mod config;
pub mod crypto;
pub mod dev;
pub mod env;
pub mod model;
pub mod proto;
pub mod store;
pub mod telemetry;
