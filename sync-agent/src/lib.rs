//! The daemon of driftless: one process a server for all folders and peers.
//!
//! `config` is what it is to do, `archive` which days move to cold storage, `status` how it is; `control` carries both over a socket, `service` makes a process of it, and
//! `agent` does the work. It neither prints nor reads the environment: `sync-cli` hands in what it needs.

pub mod values;
pub mod archive;
pub mod config;
pub mod log;
pub mod status;
pub mod days;
pub mod metrics;
pub mod control;
mod notify;
mod scheduler;
mod quality;
mod gossip;
mod reach;
mod atlas;
mod learnt;
mod roots;
mod passed;
mod permits;
mod works;
pub mod web;
mod folder;
mod mesh;
pub mod agent;
pub mod service;
pub mod doctor;
#[cfg(test)]
mod simulation;

pub use notify::Supervisor;
pub use works::again_after;
