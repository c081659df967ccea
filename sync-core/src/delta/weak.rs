//! The rolling sum of librsync, and a filter that tells at almost no cost that a sum is none of the signature's.

use super::signature::Signature;

/// What librsync adds to every byte.
const OFFSET: u32 = 31;
/// Bits of the filter per block, before rounding up: two probes pass one foreign sum in about 1,000.
const BITS_PER_BLOCK: usize = 32;
/// Odd factors that spread a sum over the filter, one a probe.
const FACTORS: [u32; 2] = [0x9e37_79b1, 0x85eb_ca77];

/// The sum of a block, as it is rolled from byte to byte. Both halves count modulo 2^16.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weak {
    low: u32,
    high: u32,
    block: u32,
}

impl Weak {
    /// The sum of these bytes.
    pub(super) fn of(block: &[u8]) -> Weak {
        let len = block.len() as u32;
        let (mut low, mut high) = (0u32, 0u32);
        for (at, byte) in block.iter().enumerate() {
            let byte = u32::from(*byte);
            low = low.wrapping_add(byte);
            high = high.wrapping_add(byte.wrapping_mul(len.wrapping_sub(at as u32)));
        }
        // The sum over 1..=len, halved before it can overflow what is kept of it.
        let triangle = (u64::from(len) * (u64::from(len) + 1) / 2) as u32;
        low = low.wrapping_add(len.wrapping_mul(OFFSET));
        high = high.wrapping_add(triangle.wrapping_mul(OFFSET));
        Weak { low, high, block: len }
    }

    /// One byte further.
    #[inline]
    pub(super) fn roll(&mut self, old: u8, new: u8) {
        let old = u32::from(old);
        self.low = self.low.wrapping_add(u32::from(new)).wrapping_sub(old);
        self.high = self.high.wrapping_add(self.low).wrapping_sub(self.block.wrapping_mul(old + OFFSET));
    }

    /// As a signature holds it.
    #[inline]
    pub(super) fn value(self) -> u32 {
        (self.low & 0xffff) | (self.high << 16)
    }
}

/// Which weak sums a signature holds.
#[derive(Debug)]
pub(super) struct WeakSet {
    bits: Vec<u64>,
    shift: u32,
    sums: Vec<u32>,
}

impl WeakSet {
    pub(super) fn of(signature: &Signature) -> WeakSet {
        let entry = signature.shape().entry();
        let sum = |sums: &[u8]| u32::from_be_bytes([sums[0], sums[1], sums[2], sums[3]]);
        let mut sums: Vec<u32> = signature.full_sums().chunks_exact(entry).map(sum).collect();
        sums.sort_unstable();
        sums.dedup();
        let bits = (sums.len() * BITS_PER_BLOCK).next_power_of_two().max(1 << 16);
        let mut set = WeakSet { bits: vec![0; bits / 64], shift: 32 - bits.trailing_zeros(), sums };
        for at in 0..set.sums.len() {
            for factor in FACTORS {
                let bit = set.probe(set.sums[at], factor);
                set.bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        set
    }

    #[inline]
    fn contains(&self, sum: u32) -> bool {
        let [first, second] = FACTORS;
        self.bit(sum, first) && self.bit(sum, second) && self.sums.binary_search(&sum).is_ok()
    }

    /// The first offset whose sum is one of the signature's. `weak` is the sum at the beginning of `data`, and is rolled to
    /// where it was found.
    pub(super) fn next_hit(&self, data: &[u8], weak: &mut Weak) -> Option<usize> {
        let block = weak.block as usize;
        let mut sum = *weak;
        for (at, (old, new)) in data.iter().zip(&data[block..]).enumerate() {
            if self.contains(sum.value()) {
                *weak = sum;
                return Some(at);
            }
            sum.roll(*old, *new);
        }
        *weak = sum;
        self.contains(sum.value()).then(|| data.len() - block)
    }

    #[inline]
    fn bit(&self, sum: u32, factor: u32) -> bool {
        let bit = self.probe(sum, factor);
        self.bits[bit / 64] & (1 << (bit % 64)) != 0
    }

    #[inline]
    fn probe(&self, sum: u32, factor: u32) -> usize {
        (sum.wrapping_mul(factor) >> self.shift) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_fast_rsync_and_roll() {
        let data: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for block in [512usize, 1 << 16, 1 << 17] {
            let options = fast_rsync::SignatureOptions { block_size: block as u32, crypto_hash_size: 8 };
            let expected = |at: usize| {
                let bytes = fast_rsync::Signature::calculate(&data[at..at + block], options).into_serialized();
                u32::from_be_bytes(bytes[12..16].try_into().unwrap())
            };
            let mut weak = Weak::of(&data[..block]);
            for at in 0..40 {
                assert_eq!(weak.value(), expected(at), "{block} at {at}");
                weak.roll(data[at], data[at + block]);
            }
        }
    }
}
