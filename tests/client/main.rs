//! The Rust client against a server that fails on demand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod bench;
mod calls;
mod control;
mod failures;
mod fake;
mod jobs;
mod keys;
#[cfg(feature = "rmcp")]
mod rmcp;
mod streams;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "rmcp")]
mod tour;
