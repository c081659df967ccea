//! The command as a black box: every test runs the built binary on folders of its own.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(clippy::print_stderr, reason = "what is skipped is said loudly")]

mod agent;
mod archive;
mod conflicts;
mod doctor;
mod guards;
mod held;
mod held_days;
mod json;
mod machine;
mod machines;
mod packaging;
mod pair;
mod peers;
mod refusals;
mod repair;
mod selection;
mod serve;
#[path = "../common/serving.rs"]
mod serving;
mod ssh;
mod sync;
mod terminal;
mod transfer;
mod usage;
mod versions;
mod watch;
