//! Makes the new version of the base and ops. Ops are a peer's: each is checked before it is carried out.

use super::search::LITERAL_BYTES;
use super::{OP_BYTES, Op};
use crate::entry::Hash;
use std::io;
use std::io::Write;

/// Bytes of the base, and of zeros, held at a time.
const BUFFER: usize = 128 << 10;
/// An op of an honest peer stands for 256 bytes on the average: a block of 512 and what differs beside it.
const BYTES_PER_OP: u64 = 128;
/// Ops beyond that average: short files, ends of windows.
const SPARE_OPS: u64 = 64;

/// The base of a patch.
pub trait ReadAt {
    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The system's; an end before the buffer is full is one.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Where the new version goes.
pub trait Output {
    /// The next bytes.
    ///
    /// # Errors
    /// The system's.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// So many zeros next; a file may leave a hole.
    ///
    /// # Errors
    /// The system's.
    fn zeros(&mut self, len: u64) -> io::Result<()>;
}

/// Writes zeros like any other bytes.
#[derive(Debug, Default)]
pub struct Plain<W>(pub W);

impl<W: Write> Output for Plain<W> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        pieces(len).try_for_each(|piece| self.0.write_all(&ZEROS[..piece]))
    }
}

/// Why a patch was given up.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// An op of no bytes, or of too many.
    #[error("an op for {0} bytes")]
    OpLength(u64),
    /// A copy of what the base does not have.
    #[error("a copy of {len} bytes from {offset} on, of a base of {base}")]
    BeyondBase {
        /// Where it begins.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// What the base has.
        base: u64,
    },
    /// More than was announced.
    #[error("the delta makes more than the announced {0} bytes")]
    TooLong(u64),
    /// Less than was announced.
    #[error("the delta makes {made} bytes, {announced} were announced")]
    TooShort {
        /// What it made.
        made: u64,
        /// What was announced.
        announced: u64,
    },
    /// More ops than a file of this size can need.
    #[error("the delta has more than {0} ops")]
    TooManyOps(u64),
    /// The base cannot be read.
    #[error("cannot read the base: {0}")]
    Base(#[source] io::Error),
    /// The new version cannot be written.
    #[error("cannot write the new version: {0}")]
    Output(#[source] io::Error),
}

/// A finished patch.
#[derive(Debug)]
pub struct Patched<O> {
    /// Where it went.
    pub output: O,
    /// Bytes made: the announced size.
    pub size: u64,
    /// BLAKE3 of them. The caller compares it: until then the result is a guess.
    pub hash: Hash,
}

/// Most ops that a new version of this size may take.
#[must_use]
pub fn op_limit(size: u64) -> u64 {
    SPARE_OPS + size / BYTES_PER_OP
}

/// A new version in the making.
#[derive(Debug)]
pub struct Patch<'a, B: ?Sized, O> {
    base: &'a B,
    base_size: u64,
    size: u64,
    output: O,
    made: u64,
    ops: u64,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl<'a, B: ReadAt + ?Sized, O: Output> Patch<'a, B, O> {
    /// A new version of `size` bytes, of a base of `base_size`.
    pub fn new(base: &'a B, base_size: u64, size: u64, output: O) -> Self {
        let hasher = blake3::Hasher::new();
        Patch { base, base_size, size, output, made: 0, ops: 0, hasher, buffer: Vec::new() }
    }

    /// Carries out the next op.
    ///
    /// # Errors
    /// See [`PatchError`]; the output is worthless then.
    pub fn apply(&mut self, op: Op<'_>) -> Result<(), PatchError> {
        let len = op.output();
        let longest = if matches!(op, Op::Literal(_)) { LITERAL_BYTES as u64 } else { OP_BYTES };
        if len == 0 || len > longest {
            return Err(PatchError::OpLength(len));
        }
        self.ops += 1;
        if self.ops > op_limit(self.size) {
            return Err(PatchError::TooManyOps(op_limit(self.size)));
        }
        if len > self.size - self.made {
            return Err(PatchError::TooLong(self.size));
        }
        match op {
            Op::Literal(bytes) => {
                self.hasher.update(bytes);
                self.output.data(bytes).map_err(PatchError::Output)?;
            }
            Op::Zeros(len) => {
                pieces(len).for_each(|piece| {
                    self.hasher.update(&ZEROS[..piece]);
                });
                self.output.zeros(len).map_err(PatchError::Output)?;
            }
            Op::Copy { offset, len } => self.copy(offset, len)?,
        }
        self.made += len;
        Ok(())
    }

    fn copy(&mut self, offset: u64, len: u64) -> Result<(), PatchError> {
        if offset.checked_add(len).is_none_or(|end| end > self.base_size) {
            return Err(PatchError::BeyondBase { offset, len, base: self.base_size });
        }
        self.buffer.resize(BUFFER, 0);
        let mut at = offset;
        for piece in pieces(len) {
            let part = &mut self.buffer[..piece];
            self.base.read_exact_at(part, at).map_err(PatchError::Base)?;
            self.hasher.update(part);
            self.output.data(part).map_err(PatchError::Output)?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Bytes made so far.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// No op is left.
    ///
    /// # Errors
    /// The new version is shorter than announced.
    pub fn finish(self) -> Result<Patched<O>, PatchError> {
        if self.made != self.size {
            return Err(PatchError::TooShort { made: self.made, announced: self.size });
        }
        Ok(Patched { output: self.output, size: self.size, hash: Hash(*self.hasher.finalize().as_bytes()) })
    }
}

static ZEROS: [u8; BUFFER] = [0; BUFFER];

/// Cuts a length into pieces of at most [`BUFFER`].
fn pieces(len: u64) -> impl Iterator<Item = usize> {
    let whole = len / BUFFER as u64;
    let rest = (len % BUFFER as u64) as usize;
    (0..whole).map(|_| BUFFER).chain((rest > 0).then_some(rest))
}
