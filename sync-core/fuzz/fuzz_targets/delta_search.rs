//! A search with true and with forged signatures: bounded work, and a delta that makes the new version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::delta::{Announced, Found, Patch, Plain, Shape, Signature, search};

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_at_checked(8) else { return };
    let [mode, times, cut, hash, a, b, c, d] = [head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]];
    // Anything may be announced; nothing but our own cut passes.
    let announced = Announced { base: u64::from(u32::from_le_bytes([a, b, c, d])), block: u32::from(cut), hash: u32::from(hash) };
    let _ = Signature::check(announced, rest);
    // Small inputs become files of many blocks.
    let at = rest.len() * usize::from(cut) / 256;
    let base = rest[..at].repeat(usize::from(times) + 1);
    let new = [&rest[at..], &base[base.len().min(usize::from(a))..], &rest[at..]].concat();
    let Ok(signature) = Signature::of(&base[..], base.len() as u64) else { return };
    if mode % 2 == 0 {
        let made = delta(&signature, &base, &new);
        assert!(made == new);
        return;
    }
    // Weak sums that fit the new version, with strong sums that fit, or do not.
    let Ok(forged) = Signature::of(&new[..], new.len() as u64) else { return };
    let Some(shape) = Shape::of(base.len() as u64) else { return };
    let mut sums = forged.to_bytes().into_iter().cycle().take(shape.signature_bytes() as usize).collect::<Vec<_>>();
    if mode % 4 == 1 {
        sums.chunks_mut(4 + shape.hash() as usize).for_each(|sums| sums[4..].fill(hash));
    }
    let signature = Signature::check(shape.announced(), &sums).expect("it has the length of its base");
    // The result may be anything then; but it is as long as it should be.
    let made = delta(&signature, &base, &new);
    assert!(made.len() == new.len());
});

fn delta(signature: &Signature, base: &[u8], new: &[u8]) -> Vec<u8> {
    let mut patch = Patch::new(base, signature.shape().base(), new.len() as u64, Plain(Vec::new()));
    let found: Found = search(signature, new, |op| {
        patch.apply(op).expect("our own ops are sound");
        Ok(())
    })
    .expect("a search in memory does not fail");
    assert!(found.summed <= 11 * found.size + 11, "{found:?}");
    assert!(found.copied + found.literal + found.zeros == new.len() as u64);
    patch.finish().expect("the delta is whole").output.0
}
