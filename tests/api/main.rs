//! The API as its callers see it: a server process over TLS, and the same service in memory where time must pass, rows
//! must be tampered with or disks must fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod requests;
mod site;

mod anchor;
mod approvals;
mod audit;
mod bad_input;
mod batches;
mod contention;
mod custody;
mod destroy;
mod entries;
mod events;
mod expiry;
mod faults;
mod hidden;
mod identity;
mod integrity;
mod jobs;
mod keys;
mod pages;
mod permissions;
mod race;
mod redaction;
mod reencrypt;
mod repeat;
mod root;
mod sessions;
mod tenants;
mod tokens;
mod watch;
