//! The engine of driftless: synchronises replicas of a tree without losing what anybody wrote.
//!
//! A pure middle decides; the modules below [`io`] act. A module uses only those listed before it.
//!
//! [`io::sync`] is where a caller begins. Two folders, synchronised:
//!
//! ```no_run
#![doc = include_str!("../examples/two_roots.rs")]
//! ```

pub mod path;
pub mod entry;
pub mod ignore;
pub mod knowledge;
pub mod store;
pub mod plan;
pub mod report;
pub mod delta;
pub mod reconcile;
pub mod session;
pub mod congestion;
pub mod pace;
pub mod quiet;
pub mod reserve;
pub mod peer;
pub mod wire;
pub mod pairing;
pub mod io;
