//! The command line as a user meets it: the binary is run, and what it prints and returns is looked at.
//!
//! `fake` is a server in memory for what a real one does not do on demand: lose events, change bytes, refuse. Tests
//! in `tour` hold for any server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod anchor;
mod approvals;
mod bench;
mod command;
mod custody;
mod dev_server;
mod evidence;
mod exit_codes;
mod fake;
mod help;
mod identity;
mod installation;
mod jobs;
mod keys;
mod nouns;
mod profile;
mod runbooks;
mod tenants;
mod tour;
