//! The other side of a pull where it is on another machine: what it is asked, and how this side answers the same.
#![allow(dead_code, reason = "the responder is to call what answers")]

mod base;
mod content;
mod fetch;
mod receive;
mod respond;
mod rows;
#[cfg(test)]
mod tests_content;
#[cfg(test)]
mod tests_delta;
#[cfg(test)]
mod tests_resume;

pub use fetch::{CONTENT_WAIT, REQUESTS, RemoteSource};
