//! How a base of a given size is cut into blocks. Both sides compute it; what a peer announces must agree.

/// Smallest block. Below it the sums of a block, 12 bytes, are no longer small beside the block.
pub const MIN_BLOCK: u32 = 512;
/// Largest block: that of [`MAX_BASE`].
pub const MAX_BLOCK: u32 = 1 << 20;
/// Most blocks of a base. Bounds the signature (2 MiB) and its index (some 6 MiB), and with them what a peer can make
/// this side hold.
pub const MAX_BLOCKS: u32 = 1 << 17;
/// Largest base; beyond it a file is sent whole.
pub const MAX_BASE: u64 = MAX_BLOCK as u64 * MAX_BLOCKS as u64;
/// Bases up to this size have the short strong sum.
const SHORT_HASH_BASE: u64 = 1 << 30;

/// Bases up to this size have the smaller blocks.
const FINE_BASE: u64 = 512 << 20;

/// Bytes of a block's weak sum.
pub(super) const WEAK: usize = 4;

/// The cut of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    base: u64,
    block: u32,
    hash: u32,
}

/// What a peer says of a signature that it is about to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Size of the base.
    pub base: u64,
    /// Size of a block.
    pub block: u32,
    /// Bytes of a block's strong sum.
    pub hash: u32,
}

impl Shape {
    /// The cut of a base of so many bytes; `None` where a signature makes no sense: empty, or beyond [`MAX_BASE`].
    ///
    /// The block is the smallest power of two from half the square root of the size on, which balances the signature
    /// (twice the root in blocks) against what a changed byte costs (a block). Beyond 512 MiB it begins at the root itself, as
    /// rsync's, so that the signature of 1 GiB takes 384 KiB. From 16 GiB on it grows with the size, by [`MAX_BLOCKS`].
    ///
    /// The strong sum has 8 bytes up to 1 GiB, 12 beyond. A false match needs a pair of an offset in the new version
    /// and a block whose weak and strong sums are equal although the bytes differ. For two versions of 1 GiB there are
    /// 2^30 · 2^16 pairs; of the 32 bits of the weak sum 16 may be trusted (its halves are not uniform), so that
    /// 8 bytes leave 2^(46 − 16 − 64) = 2^−34. For 128 GiB there are 2^37 · 2^17 pairs, and 12 bytes leave
    /// 2^(54 − 16 − 96) = 2^−58. A false match costs a second transfer, not a wrong file.
    #[must_use]
    pub fn of(base: u64) -> Option<Shape> {
        if base == 0 || base > MAX_BASE {
            return None;
        }
        let mut block = MIN_BLOCK;
        let fine = if base <= FINE_BASE { 4 } else { 1 };
        while fine * u64::from(block) * u64::from(block) < base {
            block *= 2;
        }
        while base.div_ceil(u64::from(block)) > u64::from(MAX_BLOCKS) {
            block *= 2;
        }
        Some(Shape { base, block, hash: if base <= SHORT_HASH_BASE { 8 } else { 12 } })
    }

    /// Size of the base.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Size of a block.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Bytes of a block's strong sum.
    #[must_use]
    pub fn hash(&self) -> u32 {
        self.hash
    }

    /// Number of blocks; the last one may be short.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.base.div_ceil(u64::from(self.block))
    }

    /// Number of blocks of full length.
    pub(super) fn full_blocks(&self) -> u64 {
        self.base / u64::from(self.block)
    }

    /// Bytes of one block's sums.
    pub(super) fn entry(&self) -> usize {
        WEAK + self.hash as usize
    }

    /// Bytes of the signature.
    #[must_use]
    pub fn signature_bytes(&self) -> u64 {
        self.blocks() * self.entry() as u64
    }

    /// What is told to the peer.
    #[must_use]
    pub fn announced(&self) -> Announced {
        Announced { base: self.base, block: self.block, hash: self.hash }
    }

    pub(super) fn options(&self) -> fast_rsync::SignatureOptions {
        fast_rsync::SignatureOptions { block_size: self.block, crypto_hash_size: self.hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_the_root_of_the_size_and_their_number_is_bounded() {
        let table = [
            (1, 512),
            (1 << 20, 512),
            ((1 << 20) + 1, 1024),
            (256 << 20, 8192),
            (512 << 20, 16384),
            (1 << 30, 32768),
            (4 << 30, 65536),
        ];
        for (base, block) in table {
            assert_eq!(Shape::of(base).unwrap().block(), block, "{base}");
        }
        assert_eq!(Shape::of(100 << 30).unwrap().block(), 1 << 20);
        assert_eq!(Shape::of(MAX_BASE).unwrap().block(), MAX_BLOCK);
        assert_eq!(Shape::of(MAX_BASE + 1), None);
        assert_eq!(Shape::of(0), None);
        assert!(Shape::of(1 << 30).unwrap().signature_bytes() <= 512 << 10);
        for power in 0..=37 {
            for size in [(1u64 << power) - 1, 1 << power, (1 << power) + 1].into_iter().filter(|s| (1..=MAX_BASE).contains(s)) {
                let shape = Shape::of(size).unwrap();
                assert!(shape.blocks() <= u64::from(MAX_BLOCKS), "{size}");
                assert!((MIN_BLOCK..=MAX_BLOCK).contains(&shape.block()), "{size}");
                assert!(shape.signature_bytes() <= 2 << 20, "{size}");
            }
        }
    }
}
