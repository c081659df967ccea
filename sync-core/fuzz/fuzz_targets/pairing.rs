//! Pairing with somebody who does not hold the code, and says anything: no panic, nobody is let in, one guess and no second.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use sync_core::pairing::{Asking, Binding, Code, Desk, LIFETIME, MESSAGE_BYTES, Message, Refusal};
use sync_core::peer::{Name, PublicKey};

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_at_checked(9) else { return };
    let _ = String::from_utf8_lossy(rest).parse::<Code>();
    let messages = messages(rest);
    let code = Code::from_random([1, 2, 3, 4, 5, 6, 7, 8]);
    let keys = [head[0], head[1]].map(|byte| PublicKey::from_bytes([byte; 32]));
    let binding = Binding { asking: keys[0], showing: keys[1], exported: [head[2]; 32] };
    let age = LIFETIME * u32::from(head[3]) / 200;
    shows(Desk::new(code.clone()), &messages, &binding, [head[4]; 32], age);
    asks(&code, &messages, binding, [head[5]; 32]);
    between(&code, &messages, binding, head[6]);
});

/// Whatever is cut out of the bytes as its head says.
fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(head) = bytes.first_chunk() {
        let Ok(body) = Message::body_bytes(*head) else { break };
        assert!(head.len() + body <= MESSAGE_BYTES);
        let Some((message, rest)) = bytes.split_at_checked(head.len() + body) else { break };
        bytes = rest;
        let Ok(message) = Message::decode(message) else { continue };
        assert!(Message::decode(&message.encode()) == Ok(message.clone()));
        messages.push(message);
    }
    messages
}

fn name() -> Name {
    "here".parse().expect("it is a name")
}

/// Each pair of messages is a connection of its own to the one desk.
fn shows(mut desk: Desk, messages: &[Message], binding: &Binding, random: [u8; 32], age: Duration) {
    let mut burnt = None;
    for conversation in messages.chunks(2) {
        let attempt = match desk.handle_share(&conversation[0], binding, random, age) {
            Ok((attempt, _)) => attempt,
            Err(refusal) => {
                assert!(burnt.is_none_or(|burnt| burnt == refusal));
                continue;
            }
        };
        assert!(age < LIFETIME && burnt.is_none());
        let Some(proof) = conversation.get(1) else { continue };
        match desk.handle_proof(attempt, proof, name(), age) {
            Ok(_) => panic!("nobody guesses 23 bits through a proof of 256"),
            Err(Refusal::Wrong) => burnt = Some(Refusal::Burnt),
            Err(refusal) => assert!(refusal == Refusal::Malformed),
        }
    }
    assert!(burnt.is_none_or(|burnt| desk.check(age) == Err(burnt)));
}

fn asks(code: &Code, messages: &[Message], binding: Binding, random: [u8; 32]) {
    let (asking, _) = Asking::start(code, binding, random);
    let [share, rest @ ..] = messages else { return };
    let Ok((proven, _)) = asking.handle_share(share, name()) else { return };
    if let Some(proof) = rest.first() {
        assert!(proven.handle_proof(proof).is_err());
    }
}

/// Both hold the code, and somebody between them exchanges one message.
fn between(code: &Code, messages: &[Message], binding: Binding, at: u8) {
    let Some(forged) = messages.first() else { return };
    let mut desk = Desk::new(code.clone());
    let (asking, share) = Asking::start(code, binding, [1; 32]);
    let swap = |number: u8, message: Message| if at % 4 == number { forged.clone() } else { message };
    let sent = swap(0, share.clone());
    let Ok((attempt, answer)) = desk.handle_share(&sent, &binding, [2; 32], Duration::ZERO) else { return };
    let heard = swap(1, answer.clone());
    let Ok((proven, proof)) = asking.handle_share(&heard, name()) else { return };
    let shown = swap(2, proof.clone());
    let told = match desk.handle_proof(attempt, &shown, name(), Duration::ZERO) {
        Ok((_, told)) => {
            assert!(sent == share && heard == answer && shown == proof);
            told
        }
        Err(_) => return assert!(at % 4 != 3),
    };
    let last = swap(3, told.clone());
    assert!(proven.handle_proof(&last).is_ok() == (last == told));
}
