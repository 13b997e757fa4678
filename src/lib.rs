//! Strongroom: an encrypted context store for MCP servers.
pub mod audit;
pub mod auth;
pub mod commit;
pub mod api;
pub mod crypto;
pub mod env;
pub mod keyring;
pub mod model;
pub mod proto;
pub mod service;
pub mod store;
