//! What can be wrong with bytes from a peer, and where.

use super::MAX_FRAME;
use crate::path::PathError;

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}, at byte {offset} of a message: {fault}")]
pub struct WireError {
    /// Which field of which message.
    pub field: &'static str,
    /// Where reading stopped.
    pub offset: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The message is over before the field is.
    #[error("the message ends early")]
    Ends,
    /// More than 64 bits, or not the shortest form.
    #[error("a number is not in its shortest form")]
    Number,
    /// More than a field may hold.
    #[error("{found}, where {most} is the most")]
    Large {
        /// What it holds.
        found: u64,
        /// What it may hold.
        most: u64,
    },
    /// No value of this enumeration.
    #[error("there is no value {0}")]
    Unknown(u64),
    /// No path below a root.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A list that must ascend does not, or holds something twice.
    #[error("the list does not ascend")]
    Order,
    /// What must not be empty is.
    #[error("it is empty")]
    Empty,
    /// No UTF-8.
    #[error("the text is not UTF-8")]
    Text,
    /// A value that contradicts another one.
    #[error("{0}")]
    Contradiction(&'static str),
    /// The message goes on after its last field.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// A message that no peer would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes is longer than the {MAX_FRAME} that a frame may have")]
pub struct Oversized(pub usize);
