//! `driftless serve` and `driftless sync` as processes with a network between them: bad links, hostile machines, and either
//! process killed at any moment.
//!
//! By default little of everything. `DRIFTLESS_TEST_LINKS=all`: every loss and round trip, and cuts longer than a connection
//! lives. `DRIFTLESS_TEST_HOSTILE=SECONDS`: so long is each hostile machine at work. `DRIFTLESS_TEST_KILLS=N`: so many processes
//! are killed; `DRIFTLESS_TEST_SEED=N`: at other moments.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(clippy::print_stderr, reason = "what is skipped, and how much was done, is said loudly")]

mod foe;
mod hostile;
mod kills;
mod lab;
mod links;
#[path = "../common/serving.rs"]
mod serving;
