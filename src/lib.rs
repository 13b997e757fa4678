//! Strongroom: an encrypted context store for MCP servers.
<<<<<<< HEAD
pub mod auth;
=======
pub mod audit;
pub mod commit;
>>>>>>> audit
pub mod crypto;
pub mod env;
pub mod keyring;
pub mod model;
pub mod proto;
pub mod store;
