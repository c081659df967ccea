//! Packed content: a peer's makes no more of itself than it may, and ours comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::wire::{Data, MAX_DATA, MAX_RATIO, Packer, Unpacker};

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_at_checked(4) else { return };
    let most = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize % (MAX_DATA + 1);
    let mut unpacker = Unpacker::new();
    // The same unpacker for all: what failed leaves nothing behind.
    for piece in rest.chunks((rest.len() / (usize::from(head[3] % 4) + 1)).max(1)) {
        if let Ok(bytes) = Data::Packed(piece.into()).open(most, &mut unpacker) {
            assert!(bytes.len() <= most && bytes.len() <= piece.len() * MAX_RATIO);
        }
    }
    // Small inputs become pieces long enough to be sampled.
    let content = rest.repeat(usize::from(head[3]) + 1);
    let mut packer = Packer::new();
    for piece in content.chunks(MAX_DATA) {
        let data = Data::of(piece, Some(&mut packer));
        assert!(piece.len() <= data.len() * MAX_RATIO);
        assert!(data.open(piece.len(), &mut unpacker).expect("our own pieces can be opened") == piece);
        if let [_, shorter @ ..] = piece {
            assert!(data.open(shorter.len(), &mut unpacker).is_err(), "more than was announced");
        }
    }
});
