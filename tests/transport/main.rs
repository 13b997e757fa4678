//! The transport against real sockets: a listener with all its layers, a small service behind it, and peers good and bad.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod abuse;
mod calls;
mod connections;
mod drain;
mod mutual;
mod raw;
mod service;
mod setup;
mod tls;
