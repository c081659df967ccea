//! A stream from somebody unknown: short messages only until it has said who it is, however the stream is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::wire::{FrameReader, MAX_FRAME, MAX_HELLO, MAX_TEXT, MAX_TOKEN, Message, Versions};

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert!(whole == read(stream, usize::from(*step) + 1), "the cuts of a stream change what is read");
});

/// What was read, and whether it ended well.
fn read(stream: &[u8], step: usize) -> (Vec<Message>, bool) {
    let mut reader = FrameReader::new(MAX_HELLO);
    let (mut messages, mut known) = (Vec::new(), false);
    for part in stream.chunks(step) {
        reader.feed(part);
        loop {
            let message = match reader.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    assert!(reader.next_message() == Err(error), "what follows an error is no message");
                    return (messages, false);
                }
            };
            match &message {
                Message::Hello(hello) => {
                    assert!(hello.token.len() <= MAX_TOKEN && hello.program.len() <= MAX_TEXT);
                    let common = hello.versions.common(Versions::OURS);
                    assert!(common.is_none_or(|one| (hello.versions.oldest..=hello.versions.newest).contains(&one)));
                    known = true;
                    reader.set_limit(MAX_FRAME);
                }
                Message::HelloAnswer(answer) => assert!(answer.proof.len() <= MAX_TOKEN),
                Message::Refused(refused) => assert!(refused.text.len() <= MAX_TEXT),
                _ => {}
            }
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert!(known || bytes.len() <= MAX_HELLO);
            messages.push(message);
        }
    }
    (messages, !reader.is_inside())
}
