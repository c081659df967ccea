//! The sums of a base's blocks: computed piece by piece, and checked before anything is looked up in them.

use super::shape::{Announced, MAX_BASE, Shape};
use std::io;
use std::io::Read;

/// Bytes of the base read at a time, or one block.
const SEGMENT: usize = 4 << 20;
/// What fast_rsync puts before the sums: magic, block size, size of a strong sum.
const HEADER: usize = 12;
/// librsync's magic of a signature with MD4 sums.
const MAGIC: u32 = 0x7273_0136;

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Empty, or too large.
    #[error("a base of {0} bytes has no signature: 1 to {MAX_BASE} bytes have one")]
    Size(u64),
    /// The peer cuts the base in another way.
    #[error("the signature of a base of {} bytes announces blocks of {} bytes and strong sums of {}", .0.base, .0.block, .0.hash)]
    Shape(Announced),
    /// Too many or too few sums.
    #[error("the signature has {found} bytes, where a base of {base} bytes needs {expected}")]
    Length {
        /// Size of the base.
        base: u64,
        /// What it needs.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The base cannot be read, or became shorter.
    #[error("cannot read the base: {0}")]
    Read(#[from] io::Error),
    /// The library does not read what was checked here.
    #[error("fast_rsync refuses a signature that passed every check")]
    Library,
}

/// The sums of a base, checked: the cut is our own, and there are exactly as many as it has blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    shape: Shape,
    /// Blocks of full length, in fast_rsync's form. A short last block is kept apart: looked up as one of full
    /// length, forged sums of it would lead to a copy beyond the base.
    full: fast_rsync::Signature,
    last: Vec<u8>,
}

impl Signature {
    /// Reads a base of `size` bytes.
    ///
    /// # Errors
    /// There is none for this size, or the base cannot be read that far.
    pub fn of(mut base: impl Read, size: u64) -> Result<Signature, SignatureError> {
        let shape = Shape::of(size).ok_or(SignatureError::Size(size))?;
        let block = shape.block() as usize;
        let segment = SEGMENT.max(block) / block * block;
        let mut sums = Vec::with_capacity(shape.signature_bytes() as usize);
        let mut buffer = vec![0; segment.min(usize::try_from(size).unwrap_or(segment))];
        let mut left = size;
        while left > 0 {
            let part = &mut buffer[..segment.min(usize::try_from(left).unwrap_or(segment))];
            base.read_exact(part)?;
            sums.extend_from_slice(&fast_rsync::Signature::calculate(part, shape.options()).serialized()[HEADER..]);
            left -= part.len() as u64;
        }
        Signature::checked(shape, &sums)
    }

    /// Takes a peer's signature. Nothing of it reaches fast_rsync before it passed: a block of 0 bytes makes it
    /// panic, a strong sum of 0 bytes makes it loop for ever.
    ///
    /// # Errors
    /// The announced cut is not the one that this size has, or the length is not the one that the cut has.
    pub fn check(announced: Announced, sums: &[u8]) -> Result<Signature, SignatureError> {
        let shape = Shape::of(announced.base).ok_or(SignatureError::Size(announced.base))?;
        if shape.announced() != announced {
            return Err(SignatureError::Shape(announced));
        }
        Signature::checked(shape, sums)
    }

    fn checked(shape: Shape, sums: &[u8]) -> Result<Signature, SignatureError> {
        if sums.len() as u64 != shape.signature_bytes() {
            let (base, expected, found) = (shape.base(), shape.signature_bytes(), sums.len() as u64);
            return Err(SignatureError::Length { base, expected, found });
        }
        let (full, last) = sums.split_at(shape.full_blocks() as usize * shape.entry());
        let mut bytes = Vec::with_capacity(HEADER + full.len());
        for number in [MAGIC, shape.block(), shape.hash()] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend_from_slice(full);
        let full = fast_rsync::Signature::deserialize(bytes).map_err(|_| SignatureError::Library)?;
        Ok(Signature { shape, full, last: last.to_vec() })
    }

    /// How the base is cut.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The sums, as a peer takes them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.full_sums(), &self.last].concat()
    }

    pub(super) fn index(&self) -> fast_rsync::IndexedSignature<'_> {
        self.full.index()
    }

    /// Sums of the blocks of full length.
    pub(super) fn full_sums(&self) -> &[u8] {
        &self.full.serialized()[HEADER..]
    }

    /// Sums of these bytes, block by block.
    pub(super) fn sums_of(&self, data: &[u8]) -> Vec<u8> {
        fast_rsync::Signature::calculate(data, self.shape.options()).serialized()[HEADER..].to_vec()
    }

    /// Sums of the short last block, and its length; `None` if the last block is whole.
    pub(super) fn last(&self) -> Option<(&[u8], usize)> {
        let len = (self.shape.base() % u64::from(self.shape.block())) as usize;
        (len > 0).then_some((&self.last[..], len))
    }
}
