//! Strongroom: an encrypted context store for MCP servers.
#![forbid(unsafe_code)]

pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod client;
pub mod commit;
pub mod config;
pub mod crypto;
pub mod dev;
pub mod env;
pub mod keyring;
pub mod model;
pub mod proto;
pub mod provider;
pub mod redact;
pub mod server;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod tlog;
