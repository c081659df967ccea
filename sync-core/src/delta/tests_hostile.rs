use super::tests::{Owned, noise, ops, patched};
use super::weak::Weak;
use super::*;

fn announced(base: u64, block: u32, hash: u32) -> Announced {
    Announced { base, block, hash }
}

#[test]
fn a_cut_that_is_not_ours_is_refused() {
    let shape = Shape::of(1 << 20).unwrap();
    let sums = vec![0; shape.signature_bytes() as usize];
    assert!(Signature::check(shape.announced(), &sums).is_ok());
    for (block, hash) in [(0, 8), (512, 0), (0, 0), (512, 16), (512, 17), (1024, 8), (u32::MAX, 8), (512, u32::MAX), (511, 8)] {
        let refused = Signature::check(announced(1 << 20, block, hash), &sums);
        assert!(matches!(refused, Err(SignatureError::Shape(_))), "{block} {hash}");
    }
    for base in [0, MAX_BASE + 1, 1 << 63, u64::MAX] {
        assert!(matches!(Signature::check(announced(base, 512, 8), &sums), Err(SignatureError::Size(_))), "{base}");
    }
}

#[test]
fn too_many_or_too_few_sums_are_refused() {
    let shape = Shape::of(1 << 20).unwrap();
    let right = shape.signature_bytes() as usize;
    for len in [0, 1, 11, 12, right - 12, right - 1, right + 1, right + 12, 12 * 1_000_000] {
        let refused = Signature::check(shape.announced(), &vec![0; len]);
        assert!(matches!(refused, Err(SignatureError::Length { .. })), "{len}");
    }
}

/// A signature of `base` bytes with these weak sums in turn, and strong sums that fit nothing.
fn forged(base: u64, weak: impl Iterator<Item = u32>) -> Signature {
    let shape = Shape::of(base).unwrap();
    let sums: Vec<u8> = weak
        .take(shape.blocks() as usize)
        .flat_map(|sum| sum.to_be_bytes().into_iter().chain(std::iter::repeat_n(0xaa, shape.hash() as usize)))
        .collect();
    Signature::check(shape.announced(), &sums).unwrap()
}

#[test]
fn weak_sums_forged_to_fit_everywhere_cost_a_bounded_number_of_strong_sums() {
    let base = 64u64 << 20;
    let block = Shape::of(base).unwrap().block() as usize;
    let new = noise(1, 3 << 20);
    let mut weak = Weak::of(&new[..block]);
    let mut sums = vec![weak.value()];
    for at in 0..new.len() - block {
        weak.roll(new[at], new[at + block]);
        sums.push(weak.value());
    }
    // As many as fit, once the first offsets and once spread over all.
    let step = sums.len() / (base as usize / block);
    for signature in [forged(base, sums.iter().copied().cycle()), forged(base, sums.iter().copied().step_by(step).cycle())] {
        let (ops, found) = ops(&signature, &new[..]);
        assert!(found.summed <= 11 * new.len() as u64, "{found:?}");
        assert_eq!(patched(&[], &ops, new.len() as u64), new);
    }
}

#[test]
fn as_many_equal_weak_sums_as_there_can_be_cost_no_more() {
    // Every block of a base of 16 GiB, and every offset of the new version, has the weak sum of ones.
    let base = 16u64 << 30;
    let shape = Shape::of(base).unwrap();
    assert_eq!(shape.blocks(), u64::from(MAX_BLOCKS));
    let new = vec![1u8; 2 << 20];
    let sum = Weak::of(&new[..shape.block() as usize]).value();
    let (ops, found) = ops(&forged(base, std::iter::repeat(sum)), &new[..]);
    assert!(found.summed <= 11 * found.size, "{found:?}");
    assert_eq!(found.literal, found.size);
    assert_eq!(patched(&[], &ops, found.size), new);
}

#[test]
fn a_million_equal_weak_sums_are_more_than_any_base_has() {
    let sums = vec![7; 1_000_000 * 16];
    for base in [1 << 30, MAX_BASE] {
        let shape = Shape::of(base).unwrap();
        assert!(matches!(Signature::check(shape.announced(), &sums), Err(SignatureError::Length { .. })));
    }
}

#[test]
fn low_entropy_costs_one_strong_sum_a_block() {
    // Every offset has the weak sum of every block; the first one that is looked at fits, and the next one is a block on.
    let base = vec![0xffu8; 4 << 20];
    let signature = Signature::of(&base[..], base.len() as u64).unwrap();
    let mut new = noise(1, 100);
    new.extend(&base);
    let (ops, found) = ops(&signature, &new[..]);
    assert!(found.summed <= 2 * found.size, "{found:?}");
    assert!(found.literal <= 100 + 2 * u64::from(signature.shape().block()), "{found:?}");
    assert_eq!(found.refused, 0);
    assert_eq!(patched(&base, &ops, found.size), new);
}

#[test]
fn forged_sums_of_a_short_last_block_lead_nowhere() {
    // The last sums are those of a whole block of the new version: a copy of it would end beyond the base.
    let base = noise(1, 700);
    let new = noise(2, 2048);
    let shape = Shape::of(700).unwrap();
    let mut sums = Signature::of(&base[..], 700).unwrap().to_bytes();
    let entry = shape.entry();
    sums[entry..].copy_from_slice(&Signature::of(&new[..512], 512).unwrap().to_bytes());
    let signature = Signature::check(shape.announced(), &sums).unwrap();
    let (ops, found) = ops(&signature, &new[..]);
    assert_eq!(found.literal, 2048);
    assert_eq!(patched(&base, &ops, 2048), new);
}

fn refused(ops: &[Owned], size: u64) -> PatchError {
    let base = noise(1, 1000);
    let mut patch = Patch::new(&base[..], 1000, size, Plain(Vec::new()));
    for op in ops {
        if let Err(error) = patch.apply(op.op()) {
            return error;
        }
    }
    patch.finish().unwrap_err()
}

#[test]
fn copies_beyond_the_base_are_refused() {
    for (offset, len) in [(0, 1001), (1000, 1), (999, 2), (u64::MAX, 1), (u64::MAX - 1, 2), (1 << 63, 1000)] {
        let error = refused(&[Owned::Copy(offset, len)], 5000);
        assert!(matches!(error, PatchError::BeyondBase { .. }), "{offset} {len}: {error}");
    }
}

#[test]
fn the_announced_size_is_neither_exceeded_nor_missed() {
    assert!(matches!(refused(&[Owned::Copy(0, 900), Owned::Copy(0, 101)], 1000), PatchError::TooLong(1000)));
    assert!(matches!(refused(&[Owned::Zeros(11)], 10), PatchError::TooLong(10)));
    assert!(matches!(refused(&[Owned::Literal(vec![1; 11])], 10), PatchError::TooLong(10)));
    assert!(matches!(refused(&[Owned::Copy(0, 999)], 1000), PatchError::TooShort { made: 999, announced: 1000 }));
    assert!(matches!(refused(&[], 1), PatchError::TooShort { made: 0, .. }));
}

#[test]
fn ops_without_bytes_or_with_too_many_are_refused() {
    for op in [Owned::Copy(0, 0), Owned::Zeros(0), Owned::Literal(Vec::new())] {
        assert!(matches!(refused(&[op], 10), PatchError::OpLength(0)));
    }
    for op in [
        Owned::Zeros(OP_BYTES + 1),
        Owned::Zeros(u64::MAX),
        Owned::Copy(0, OP_BYTES + 1),
        Owned::Copy(0, u64::MAX),
        Owned::Literal(vec![0; LITERAL_BYTES + 1]),
    ] {
        assert!(matches!(refused(&[op], u64::MAX), PatchError::OpLength(_)));
    }
}

#[test]
fn a_file_of_single_bytes_takes_too_many_ops() {
    let ops = vec![Owned::Literal(vec![1]); 1000];
    assert!(matches!(refused(&ops, 1000), PatchError::TooManyOps(71)));
}

#[test]
fn a_base_that_became_shorter_is_an_error() {
    let base = noise(1, 1000);
    let mut patch = Patch::new(&base[..], 2000, 2000, Plain(Vec::new()));
    assert!(matches!(patch.apply(Op::Copy { offset: 0, len: 2000 }), Err(PatchError::Base(_))));
    assert!(matches!(Signature::of(&base[..], 2000), Err(SignatureError::Read(_))));
}
