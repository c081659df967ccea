//! `driftless agent run` as processes on several machines with a network between them that loses, delays and cuts, and changes
//! while they run. Each machine is a network namespace of its own; skipped, loudly, where that is not permitted.
//!
//! `DRIFTLESS_TEST_SOAK=MINUTES` is how long the soak works (by default a third of a minute), `DRIFTLESS_TEST_SEED=N` what it does,
//! `DRIFTLESS_TEST_KEEP=DIR` a folder for its trees, logs and states that stays. CONTRIBUTING.md has the command.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do, by a real clock")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(clippy::print_stderr, reason = "what is skipped, and how much was done, is said loudly")]

mod cases;
mod lab;
mod ledger;
mod soak;
mod trouble;
mod users;
mod ways;
