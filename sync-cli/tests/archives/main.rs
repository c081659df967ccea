//! `driftless agent run` as processes on several machines that archive their old days: some with a cold root, on another file system and
//! on the same, some without.
//!
//! By default six days of 50 files; `DRIFTLESS_TEST_DAYS=30` and `DRIFTLESS_TEST_DAY_FILES=2000` are the full size.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do, by a real clock")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(clippy::print_stderr, reason = "how much was done is said loudly")]

mod disks;
mod kills;
mod lab;
mod members;
mod repairs;
mod trouble;
