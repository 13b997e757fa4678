//! One suite for everything that implements the storage seam: each test here runs over each engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod commits;
mod faulty;
mod fixture;
mod lifecycle;
mod model;
mod scans;
mod sled;
mod values;

/// Runs a suite's functions, each taking a [`fixture::Fixture`], once per engine.
macro_rules! over_every_engine {
    ($($test:ident),* $(,)?) => {
        mod memory { $(#[test] fn $test() { super::$test(&$crate::fixture::Fixture::memory()); })* }
        mod sled { $(#[test] fn $test() { super::$test(&$crate::fixture::Fixture::sled()); })* }
        mod faulty { $(#[test] fn $test() { super::$test(&$crate::fixture::Fixture::faulty()); })* }
    };
}
use over_every_engine;
