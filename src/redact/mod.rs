//! Redaction: what is sensitive in a value that is about to be stored.
//!
//! So far these are the parts that a scan is built of: a tokenizer for JSON, decoding with a map back to the bytes that were
//! written, and the recognisers of formats with their check digits. Nothing calls them yet.

#![allow(dead_code, reason = "the pass that calls the recognisers is not there yet")]

mod bytes;
mod decoded;
mod detect;
mod document;
mod json;
pub mod pack;
mod rule;
mod scan;
mod words;

pub use json::DEPTH;
pub use rule::{Action, Category, Rule};
