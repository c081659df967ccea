//! What changed inside a file, as rsync finds it: signature of the old, delta of the new, patch of the old.
//!
//! (Tridgell and Mackerras, "The rsync algorithm", TR-CS-96-05.) The replica that pulls has an old version, the *base*,
//! and sends its [`Signature`]: a weak and a strong sum of every block. The source [searches](search) the new version
//! for these blocks and answers with [`Op`]s; [`Patch`] makes the new version of them. All three work in windows, so
//! that memory does not grow with the file. Nothing here knows of files, paths or messages: readers and outputs are
//! handed in.
//!
//! The sums only find blocks. MD4 can be forged, and is cut short here: whether the result is right is decided by the
//! BLAKE3 of the whole, which [`Patch::finish`] returns and the caller compares.

mod librsync;
mod patch;
mod search;
mod shape;
mod signature;
mod weak;
mod zeros;

pub use patch::{Output, Patch, PatchError, Patched, Plain, ReadAt, op_limit};
pub use search::{Found, LITERAL_BYTES, SearchError, search};
pub use shape::{Announced, MAX_BASE, MAX_BLOCK, MAX_BLOCKS, MIN_BLOCK, Shape};
pub use signature::{Signature, SignatureError};
pub use zeros::{ZERO_RUN, zero_prefix};

/// Longest copy and longest run of zeros in one op: between two ops a receiver looks whether it should stop.
pub const OP_BYTES: u64 = 64 << 20;

/// One piece of the new version, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// These bytes of the base.
    Copy {
        /// Where in the base.
        offset: u64,
        /// How many; 1 to [`OP_BYTES`].
        len: u64,
    },
    /// These bytes; 1 to [`LITERAL_BYTES`].
    Literal(&'a [u8]),
    /// So many zeros; 1 to [`OP_BYTES`].
    Zeros(u64),
}

impl Op<'_> {
    /// Bytes of the new version that it stands for.
    #[must_use]
    pub fn output(&self) -> u64 {
        match self {
            Op::Copy { len, .. } | Op::Zeros(len) => *len,
            Op::Literal(bytes) => bytes.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;
