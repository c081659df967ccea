//! A delta as a stream of ops: bounded, the same however it is cut, and said again in the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::delta::{LITERAL_BYTES, OP_BYTES, Op};
use sync_core::wire::{OpReader, put_op};

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else { return };
    let (ops, whole) = read(stream, stream.len().max(1));
    assert!(!whole || ops == stream, "a number has one form");
    assert!((ops, whole) == read(stream, usize::from(*step) + 1), "the cuts of a stream change what is read");
});

/// The ops, said again; and whether the stream ended with an op.
fn read(stream: &[u8], step: usize) -> (Vec<u8>, bool) {
    let (mut reader, mut said) = (OpReader::default(), Vec::new());
    for part in stream.chunks(step) {
        reader.feed(part);
        loop {
            match reader.next_op() {
                Ok(Some(op)) => {
                    match op {
                        Op::Copy { len, .. } | Op::Zeros(len) => assert!((1..=OP_BYTES).contains(&len)),
                        Op::Literal(bytes) => assert!((1..=LITERAL_BYTES).contains(&bytes.len())),
                    }
                    put_op(&op, &mut said);
                }
                Ok(None) => break,
                Err(_) => return (said, false),
            }
        }
    }
    (said, reader.finish().is_ok())
}
