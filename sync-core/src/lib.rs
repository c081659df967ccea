//! The engine of driftless: synchronises replicas of a tree without losing what anybody wrote.
//!
//! A pure middle decides; the modules below [`io`] act. A module uses only those listed before it.

pub mod path;
pub mod entry;
pub mod ignore;
pub mod knowledge;
pub mod store;
pub mod plan;
pub mod report;
pub mod reconcile;
pub mod session;
pub mod io;
