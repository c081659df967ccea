//! The other side of a pull where it is on another machine: what it is asked, and how this side answers the same.

mod content;
mod respond;
mod rows;

