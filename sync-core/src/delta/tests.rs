use super::*;
use proptest::prelude::*;
use std::io::Read;

/// Bytes without any structure, the same for the same seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// An op with bytes of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owned {
    Copy(u64, u64),
    Literal(Vec<u8>),
    Zeros(u64),
}

impl Owned {
    pub(super) fn op(&self) -> Op<'_> {
        match self {
            Owned::Copy(offset, len) => Op::Copy { offset: *offset, len: *len },
            Owned::Literal(bytes) => Op::Literal(bytes),
            Owned::Zeros(len) => Op::Zeros(*len),
        }
    }
}

pub(super) fn ops(signature: &Signature, new: impl Read) -> (Vec<Owned>, Found) {
    let mut ops = Vec::new();
    let found = search(signature, new, |op| {
        ops.push(match op {
            Op::Copy { offset, len } => Owned::Copy(offset, len),
            Op::Literal(bytes) => Owned::Literal(bytes.to_vec()),
            Op::Zeros(len) => Owned::Zeros(len),
        });
        Ok(())
    });
    (ops, found.unwrap())
}

pub(super) fn patched(base: &[u8], ops: &[Owned], size: u64) -> Vec<u8> {
    let mut patch = Patch::new(base, base.len() as u64, size, Plain(Vec::new()));
    ops.iter().for_each(|op| patch.apply(op.op()).unwrap());
    let done = patch.finish().unwrap();
    assert_eq!(done.hash.0, *blake3::hash(&done.output.0).as_bytes());
    done.output.0
}

/// The whole way; returns what was found and the number of ops.
fn there_and_back(base: &[u8], new: &[u8]) -> (Found, usize) {
    let signature = Signature::of(base, base.len() as u64).unwrap();
    let sent = Signature::check(signature.shape().announced(), &signature.to_bytes()).unwrap();
    assert_eq!(sent, signature);
    let (ops, found) = ops(&sent, new);
    assert!(patched(base, &ops, new.len() as u64) == new, "another file came out");
    assert_eq!(found.size, new.len() as u64);
    assert_eq!(found.copied + found.literal + found.zeros, found.size);
    assert!(found.summed <= 11 * found.size + 11, "{found:?}");
    (found, ops.len())
}

fn block(base: &[u8]) -> u64 {
    u64::from(Shape::of(base.len() as u64).unwrap().block())
}

#[test]
fn an_equal_file_is_one_copy() {
    for len in [1, 511, 512, 513, 100_000, 3_000_001] {
        let base = noise(1, len);
        assert_eq!(there_and_back(&base, &base), (Found { summed: len as u64, ..found(len, 0) }, 1), "{len}");
    }
}

fn found(copied: usize, literal: usize) -> Found {
    let (copied, literal) = (copied as u64, literal as u64);
    Found { size: copied + literal, copied, literal, ..Found::default() }
}

#[test]
fn a_file_may_become_empty() {
    assert_eq!(there_and_back(&noise(1, 10_000), &[]), (Found::default(), 0));
}

#[test]
fn a_byte_in_front_costs_a_block_at_the_most() {
    let base = noise(2, 20 << 20);
    let new = [&b"!"[..], &base].concat();
    let (found, ops) = there_and_back(&base, &new);
    assert!(found.literal <= block(&base), "{found:?}");
    assert!(ops <= 4, "{ops}");
}

#[test]
fn a_byte_taken_away_in_front_costs_a_block_at_the_most() {
    let base = noise(3, 5 << 20);
    let (found, _) = there_and_back(&base, &base[1..]);
    assert!(found.literal <= block(&base), "{found:?}");
}

#[test]
fn blocks_that_straddle_windows_are_found() {
    // Insertions right before, at and after every end of a window.
    let base = noise(4, 6 << 20);
    for at in [(1 << 20) - 700, (1 << 20) - 1, 1 << 20, (1 << 20) + 3, (2 << 20) - 512] {
        let new = [&base[..at], b"some more", &base[at..]].concat();
        let (found, _) = there_and_back(&base, &new);
        assert!(found.literal <= 2 * block(&base) + 9, "{at}: {found:?}");
    }
}

#[test]
fn edits_in_place_cost_their_blocks() {
    let base = noise(5, 16 << 20);
    let mut new = base.clone();
    for edit in 0..40usize {
        let at = edit * 400_000 + edit * 37;
        new[at..at + 4096].copy_from_slice(&noise(edit as u64 + 100, 4096));
    }
    let (found, _) = there_and_back(&base, &new);
    assert!(found.literal <= 40 * (4096 + 2 * block(&base)), "{found:?}");
    // Whatever did not change is found by its place, at the price of one strong sum.
    assert!(found.summed <= found.size + 40 * 4 * block(&base), "{found:?}");
}

#[test]
fn moved_halves_are_found() {
    let base = noise(6, 4 << 20);
    let (a, b) = base.split_at(1_234_567);
    let (found, _) = there_and_back(&base, &[b, a].concat());
    assert!(found.literal <= 3 * block(&base), "{found:?}");
}

#[test]
fn an_appended_file_costs_what_was_appended() {
    let base = noise(7, 3_000_001);
    let new = [&base[..], &noise(8, 5_000)].concat();
    let (found, _) = there_and_back(&base, &new);
    assert!(found.literal <= 5_000 + block(&base), "{found:?}");
}

#[test]
fn holes_cost_nothing() {
    let mut new = vec![0; 40 << 20];
    let base = noise(9, 200_000);
    new[10 << 20..][..base.len()].copy_from_slice(&base);
    let (found, ops) = there_and_back(&base, &new);
    assert_eq!(found.copied, 199_680, "whole blocks");
    assert!(found.literal < 66_000, "{found:?}");
    assert!(ops <= 6, "{ops}");
}

#[test]
fn unchanged_sparse_files_are_zeros_and_copies() {
    let mut base = vec![0; 8 << 20];
    for at in (0..base.len()).step_by(1 << 20) {
        base[at..at + 70_000].copy_from_slice(&noise(at as u64, 70_000));
    }
    let (found, _) = there_and_back(&base, &base);
    assert_eq!(found.literal, 0, "{found:?}");
}

#[test]
fn noise_against_noise_is_literal_and_almost_free() {
    let (found, _) = there_and_back(&noise(10, 4 << 20), &noise(11, 4 << 20));
    assert_eq!(found.literal, 4 << 20);
    assert!(found.summed < 1 << 20, "{found:?}");
}

#[test]
fn text_of_few_words_is_found() {
    let words = ["alpha ", "beta ", "gamma ", "delta\n"];
    let text = |seed| -> Vec<u8> { noise(seed, 400_000).iter().flat_map(|b| words[usize::from(b % 4)].bytes()).collect() };
    let base = text(1);
    let new = [&base[..700_000], b"inserted", &base[700_000..]].concat();
    let (found, _) = there_and_back(&base, &new);
    assert!(found.literal <= 3 * block(&base), "{found:?}");
    assert_eq!(found.refused, 0);
}

/// Counts what is asked for at once, and gives less.
struct Stingy<'a>(&'a [u8]);

impl Read for Stingy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert!(buffer.len() <= 8 << 20, "{} bytes asked for at once", buffer.len());
        let len = buffer.len().min(1009);
        self.0.read(&mut buffer[..len])
    }
}

#[test]
fn readers_may_give_little_and_are_never_asked_for_the_whole() {
    let base = noise(12, 9 << 20);
    let signature = Signature::of(Stingy(&base), base.len() as u64).unwrap();
    assert_eq!(signature, Signature::of(&base[..], base.len() as u64).unwrap());
    let (ops, _) = ops(&signature, Stingy(&base));
    assert_eq!(ops, [Owned::Copy(0, base.len() as u64)]);
}

#[test]
fn a_segmented_signature_is_that_of_the_whole() {
    let base = noise(13, (9 << 20) + 77);
    let shape = Shape::of(base.len() as u64).unwrap();
    let whole = fast_rsync::Signature::calculate(&base, shape.options());
    let signature = Signature::of(&base[..], base.len() as u64).unwrap();
    assert_eq!(signature.to_bytes(), &whole.serialized()[12..]);
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, Vec<u8>),
    Delete(usize, usize),
    Overwrite(usize, Vec<u8>),
    Move(usize, usize, usize),
    Zero(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || any::<prop::sample::Index>().prop_map(|i| i.index(1 << 22));
    let bytes = || prop::collection::vec(any::<u8>(), 1..3000);
    prop_oneof![
        (at(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1..20_000usize).prop_map(|(at, len)| Edit::Delete(at, len)),
        (at(), bytes()).prop_map(|(at, bytes)| Edit::Overwrite(at, bytes)),
        (at(), 1..50_000usize, at()).prop_map(|(from, len, to)| Edit::Move(from, len, to)),
        (at(), 1..200_000usize).prop_map(|(at, len)| Edit::Zero(at, len)),
    ]
}

/// Returns how many places the edit touches, with how many bytes.
fn carry_out(data: &mut Vec<u8>, edit: &Edit) -> (u64, u64) {
    let size = data.len().max(1);
    match edit {
        Edit::Insert(at, bytes) => {
            let at = at % size;
            data.splice(at..at, bytes.iter().copied());
            (1, bytes.len() as u64)
        }
        Edit::Delete(at, len) => {
            let at = (at % size).min(data.len());
            data.drain(at..(at + len).min(data.len()));
            (1, 0)
        }
        Edit::Overwrite(at, bytes) => {
            let at = (at % size).min(data.len());
            let end = (at + bytes.len()).min(data.len());
            data.splice(at..end, bytes.iter().copied());
            (1, bytes.len() as u64)
        }
        Edit::Move(from, len, to) => {
            let from = (from % size).min(data.len());
            let part: Vec<u8> = data.drain(from..(from + len).min(data.len())).collect();
            let to = (to % size).min(data.len());
            data.splice(to..to, part);
            (3, 0)
        }
        Edit::Zero(at, len) => {
            let at = (at % size).min(data.len());
            data.splice(at..at, std::iter::repeat_n(0, *len));
            (3, (*len as u64).min(3 * ZERO_RUN as u64))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_patch_of_the_delta_is_the_new_version_and_little_is_literal(
        seed in 0..1000u64,
        len in 1..3_000_000usize,
        edits in prop::collection::vec(edit(), 0..8),
    ) {
        let base = noise(seed, len);
        let mut new = base.clone();
        let (mut places, mut bytes) = (0, 0);
        for edit in &edits {
            let (p, b) = carry_out(&mut new, edit);
            places += p;
            bytes += b;
        }
        let (found, ops) = there_and_back(&base, &new);
        // Every place spoils the two blocks it touches; the end of the base is a short block of its own.
        let limit = bytes + (2 * places + 2) * block(&base);
        prop_assert!(found.literal <= limit, "{found:?}, at most {limit}");
        prop_assert!(ops as u64 <= op_limit(new.len() as u64));
    }

    #[test]
    fn few_different_bytes_make_no_wrong_file(
        base in prop::collection::vec(0..2u8, 1..60_000),
        new in prop::collection::vec(0..2u8, 0..60_000),
        repeat in 1..4usize,
    ) {
        there_and_back(&base, &new.repeat(repeat));
        there_and_back(&base.repeat(repeat), &[&new[..], &base].concat());
    }
}
