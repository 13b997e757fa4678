//! The Rust client against a server that fails on demand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod bench;
mod calls;
mod control;
mod failures;
mod fake;
#[cfg(feature = "rmcp")]
mod rmcp;
mod streams;
#[cfg(feature = "rmcp")]
mod tour;
