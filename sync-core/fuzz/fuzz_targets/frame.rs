//! A stream of frames, cut anywhere: no panic, and what is understood is said again in the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::wire::{FrameReader, MAX_FRAME, Message, put_frame};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Message::decode(data) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert!(Message::decode(&bytes).as_ref() == Ok(&message));
        let mut frame = Vec::new();
        put_frame(&message, &mut frame).expect("what fitted into a frame fits again");
    }
    let Some((step, stream)) = data.split_first() else { return };
    let mut reader = FrameReader::new(MAX_FRAME);
    for part in stream.chunks(usize::from(*step) + 1) {
        reader.feed(part);
        while let Ok(Some(_)) = reader.next_message() {}
    }
});
