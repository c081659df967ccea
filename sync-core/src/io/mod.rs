//! Effects: everything that touches disks, networks, clocks and threads. The only place where that is allowed.
#![allow(clippy::disallowed_methods)]

pub mod kill;
mod mutex;
pub mod fs;
pub mod watch;
pub mod state;
pub mod generation;
pub mod scan;
pub mod home;
pub mod link;
pub mod channel;
pub mod source;
pub mod places;
pub mod speaker;
pub mod there;
pub mod stage;
pub mod apply;
pub mod archive;
pub mod remote;
pub mod sync;
