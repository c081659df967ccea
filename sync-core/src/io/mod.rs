//! Effects: everything that touches disks, networks, clocks and threads. The only place where that is allowed.
#![allow(clippy::disallowed_methods)]

pub mod kill;
pub mod fs;
pub mod state;
pub mod scan;
pub mod source;
pub mod stage;
pub mod apply;
pub mod sync;
pub mod home;
pub mod link;
