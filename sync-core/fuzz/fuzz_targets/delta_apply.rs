//! A peer's delta against a base of ours: nothing beyond the announced size, nothing beyond the base, no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::delta::{Patch, Plain};
use sync_core::wire::OpReader;

/// Small enough that a run of zeros does not take the fuzzer's time.
const MOST: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((head, stream)) = data.split_at_checked(5) else { return };
    let base = vec![head[0]; usize::from(u16::from_le_bytes([head[1], head[2]]))];
    let size = (u64::from(u16::from_le_bytes([head[3], head[4]])) * 16).min(MOST);
    let mut patch = Patch::new(&base[..], base.len() as u64, size, Plain(Vec::new()));
    let mut ops = OpReader::default();
    for part in stream.chunks(usize::from(head[0]) + 1) {
        ops.feed(part);
        loop {
            match ops.next_op() {
                Ok(Some(op)) => {
                    if patch.apply(op).is_err() {
                        return;
                    }
                    assert!(patch.made() <= size);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    if ops.finish().is_err() {
        return;
    }
    if let Ok(done) = patch.finish() {
        assert!(done.output.0.len() as u64 == size);
        assert!(done.hash.0 == *blake3::hash(&done.output.0).as_bytes());
    }
});
