//! The daemon of driftless: one process a server for all folders and peers.
//!
//! It is not part of this release, and nothing is exported yet: a one-shot `driftless sync` run by a timer does its
//! work for local roots. The crate keeps its place in the arrows (`sync-cli` uses `sync-agent` uses `sync-core`), so
//! that the daemon's scheduling and configuration do not grow inside the command.
