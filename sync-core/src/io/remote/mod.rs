//! The other side of a pull where it is on another machine: what it is asked, and how this side answers the same.
//!
//! [`Here`] is a root of this machine, read in place. [`RemoteThere`] is one on another machine, whose agent [`respond`]s
//! from a `Here` of its own: so a pull learns the same from both.

mod lanes;
mod base;
mod beats;
mod content;
mod fetch;
mod follow;
mod gate;
mod here;
mod receive;
mod respond;
mod rows;
mod shelf;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_content;
#[cfg(test)]
mod tests_delta;
#[cfg(test)]
mod tests_resume;

pub use fetch::{CONTENT_WAIT, REQUESTS, RemoteSource};
pub use gate::{Allowed, Gate};
pub use here::{Here, Told, identity};
pub use lanes::Parked;
pub use respond::{PATIENCE, respond};
pub use rows::RemoteThere;
