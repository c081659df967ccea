//! Effects: everything that touches disks, clocks and threads. The only place where that is allowed.
#![allow(clippy::disallowed_methods)]

pub mod fs;
pub mod scan;
pub mod state;
pub mod sync;
