//! What a user is promised, on real trees and under real trouble, with the built binary. Slower than `cli`.
//!
//! Larger than by default, by environment variables: `DRIFTLESS_TEST_FILES` (files of a copied tree),
//! `DRIFTLESS_TEST_KILLS` (runs that are killed), `DRIFTLESS_TEST_ROUNDS` (rounds of three roots). With
//! `DRIFTLESS_TEST_LINK=quic`, `ssh` or `pipe` every second root is one of another machine.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(clippy::print_stderr, reason = "what is skipped, and how much was done, is said loudly")]

mod archive_damage;
mod archive_guards;
mod archive_kills;
mod archive_rules;
mod changes;
mod cold;
mod contact;
mod disk;
mod guards;
mod kills;
mod kinds;
mod lab;
mod link;
mod obstacles;
mod options;
mod policies;
#[path = "../common/serving.rs"]
mod serving;
mod three;
mod trees;
mod writers;
