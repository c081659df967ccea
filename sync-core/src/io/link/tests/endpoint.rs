//! Who is let in, and what strangers can do.

use super::*;
use crate::io::link::{CloseCode, LinkError};
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::thread;

fn why(error: LinkError) -> String {
    assert!(matches!(error, LinkError::Unreachable(_)), "{error:?}");
    error.to_string()
}

#[test]
fn both_ends_know_each_other_by_their_keys() {
    let (near, far) = (machine(), machine());
    let listener = listen(&far, &[&near]);
    let dialled = near.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap();
    let accepted = listener.accept(PATIENCE).unwrap();
    assert_eq!((dialled.peer(), dialled.peer_id()), (far.identity().key(), far.identity().id()));
    assert_eq!(accepted.peer(), near.identity().key());
    assert_eq!(dialled.export(b"EXPORTER-x").unwrap(), accepted.export(b"EXPORTER-x").unwrap());
    assert_ne!(dialled.export(b"EXPORTER-x").unwrap(), dialled.export(b"EXPORTER-y").unwrap());
}

#[test]
fn an_unknown_machine_is_refused_and_told_why() {
    let (near, far, friend) = (machine(), machine(), machine());
    let listener = listen(&far, &[&friend]);
    let error = near.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap_err();
    assert!(why(error).contains("that machine does not know this one"));
    assert!(matches!(listener.accept(MOMENT), Err(LinkError::TooLong(_))), "nobody was let in");
    friend.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap();
}

#[test]
fn a_machine_that_becomes_known_is_let_in_and_one_that_is_forgotten_is_not() {
    let (near, far) = (machine(), machine());
    let known = Arc::new(Mutex::new(BTreeSet::new()));
    let asked = Arc::clone(&known);
    let listener = far.listen_if(loopback(), Arc::new(move |id| asked.lock().unwrap().contains(id))).unwrap();
    let dial = || near.dial(far.identity().id(), &[address(&listener)], PATIENCE);
    for _ in 0..2 {
        assert!(why(dial().unwrap_err()).contains("that machine does not know this one"));
        known.lock().unwrap().insert(near.identity().id());
        let dialled = dial().unwrap();
        assert_eq!(dialled.address(), Some(listener.address()));
        assert_eq!(listener.accept(PATIENCE).unwrap().peer(), near.identity().key());
        known.lock().unwrap().clear();
    }
}

#[test]
fn another_key_at_the_address_is_refused_and_named() {
    let (near, far, impostor) = (machine(), machine(), machine());
    let listener = listen(&impostor, &[&near]);
    let error = why(near.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap_err());
    let expected = format!("another machine answers there, with the id {}", impostor.identity().id());
    assert!(error.contains(&expected), "{error}");
    assert!(matches!(listener.accept(MOMENT), Err(LinkError::TooLong(_))));
}

#[test]
fn another_protocol_is_refused_and_named() {
    let (near, far) = (machine(), machine());
    let syncing = listen(&far, &[&near]);
    let pairing = far.listen_for(loopback(), Trust::Anyone, Purpose::Pair).unwrap();
    let error = near.dial_for(&[address(&syncing)], Trust::Anyone, Purpose::Pair, PATIENCE).unwrap_err();
    assert!(why(error).contains("does not speak driftless-pair/1"));
    let error = near.dial(far.identity().id(), &[address(&pairing)], PATIENCE).unwrap_err();
    assert!(why(error).contains("does not speak driftless/1"));
}

/// A call that nobody answers, begun before `test` and with more patience: it must not have ended when that is over.
fn while_another_call_waits(silent: &Address, test: impl FnOnce()) {
    let caller = machine();
    let nobody = machine().identity().id();
    let (begun, wait) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            begun.send(()).unwrap();
            caller.dial(nobody, std::slice::from_ref(silent), PATIENCE)
        });
        wait.recv().unwrap();
        test();
        assert!(!waiting.is_finished(), "it was waited for what does not answer");
    });
}

#[test]
fn the_first_address_that_answers_is_taken() {
    let (near, far, impostor) = (machine(), machine(), machine());
    let (listener, wrong) = (listen(&far, &[&near]), listen(&impostor, &[&near]));
    // A socket that nobody reads from: no answer at all.
    let silent = UdpSocket::bind(loopback()).unwrap();
    let silent: Address = silent.local_addr().unwrap().to_string().parse().unwrap();
    let by_name = format!("localhost:{}", listener.address().port()).parse().unwrap();
    while_another_call_waits(&silent, || {
        let connection = near.dial(far.identity().id(), &[silent.clone(), address(&wrong), by_name], PATIENCE).unwrap();
        assert_eq!(connection.peer(), far.identity().key());
        assert_eq!(listener.accept(PATIENCE).unwrap().peer(), near.identity().key());
    });
}

#[test]
fn every_address_says_why_it_was_of_no_use() {
    let near = machine();
    let silent = UdpSocket::bind(loopback()).unwrap();
    let silent: Address = silent.local_addr().unwrap().to_string().parse().unwrap();
    let nowhere: Address = "no..where:1".parse().unwrap();
    let mut text = String::new();
    while_another_call_waits(&silent, || {
        text = why(near.dial(near.identity().id(), &[silent.clone(), nowhere.clone()], 5 * MOMENT).unwrap_err());
    });
    assert!(
        text.contains(&format!("{silent}: no answer")) && text.contains(&format!("{nowhere}: the name cannot be resolved")),
        "{text}"
    );
    assert_eq!(why(near.dial(near.identity().id(), &[], MOMENT).unwrap_err()), "there is no address to try");
}

#[test]
fn garbage_on_the_port_disturbs_nobody() {
    let (near, far) = (machine(), machine());
    let listener = listen(&far, &[&near]);
    let socket = UdpSocket::bind(loopback()).unwrap();
    let mut noise = blake3::Hasher::new().finalize_xof();
    for round in 0..2_000_usize {
        let mut packet = vec![0; 1 + round * 7 % 1_400];
        noise.fill(&mut packet);
        // Every other one looks like the start of a connection of QUIC version 1.
        if round % 2 == 0 && packet.len() > 5 {
            packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        socket.send_to(&packet, listener.address()).unwrap();
    }
    let connection = near.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap();
    assert_eq!(listener.accept(PATIENCE).unwrap().peer(), near.identity().key());
    assert_eq!(connection.peer(), far.identity().key());
}

#[test]
fn whoever_says_nothing_is_dropped_in_time_and_keeps_nobody_out() {
    let (near, far) = (machine(), machine());
    let listener = listen(&far, &[&near]);
    let silent: Vec<Raw> = (0..12).map(|_| Raw::connect(near.identity(), Purpose::Sync, listener.address())).collect();
    near.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap();
    for raw in &silent {
        assert!(matches!(raw.closed(), quinn::ConnectionError::ApplicationClosed(_)));
    }
}

#[test]
fn a_greeting_that_is_none_ends_the_connection() {
    let (near, far) = (machine(), machine());
    let listener = listen(&far, &[&near]);
    let raw = Raw::connect(near.identity(), Purpose::Sync, listener.address());
    raw.runtime.block_on(async {
        let mut stream = raw.connection.open_uni().await.unwrap();
        stream.write_all(b"GET / HTTP/1.0").await.unwrap();
    });
    let quinn::ConnectionError::ApplicationClosed(close) = raw.closed() else { panic!("not closed by the listener") };
    assert_eq!(close.error_code.into_inner(), u64::from(CloseCode::Protocol.number()));
    assert!(matches!(listener.accept(MOMENT), Err(LinkError::TooLong(_))));
}

#[test]
fn a_stopped_listener_waits_for_nobody() {
    let far = machine();
    let listener = listen(&far, &[]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| listener.accept(PATIENCE));
        listener.stop();
        assert!(matches!(waiting.join().unwrap(), Err(LinkError::Ended(_))));
    });
    assert!(matches!(listener.accept(PATIENCE), Err(LinkError::Ended(_))));
}

#[test]
fn a_port_that_is_taken_is_told() {
    let far = machine();
    let listener = listen(&far, &[]);
    let error = far.listen(listener.address(), BTreeSet::new()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}", listener.address())), "{error}");
}

/// Two machines, and two pipes between them.
fn through_pipes() -> (Network, Network, Connection, Connection) {
    let (near, far) = (machine(), machine());
    let ((read_near, write_far), (read_far, write_near)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let (near_id, far_id) = (near.identity().id(), far.identity().id());
    let (called, answered) = thread::scope(|scope| {
        let answered = scope.spawn(|| far.answer_through(near_id, Box::new(read_far), Box::new(write_far), PATIENCE));
        let called = near.call_through(far_id, Box::new(read_near), Box::new(write_near), PATIENCE);
        (called.unwrap(), answered.join().unwrap().unwrap())
    });
    (near, far, called, answered)
}

#[test]
fn a_pipe_carries_a_connection_as_a_network_does() {
    let (_near, _far, called, answered) = through_pipes();
    assert_eq!(called.export(b"x").unwrap(), answered.export(b"x").unwrap());
    let content: Vec<u8> = (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    thread::scope(|scope| {
        let sent = &content;
        scope.spawn(|| {
            let mut stream = answered.accept(PATIENCE).unwrap();
            let mut question = [0; 3];
            stream.reader.read_exact(&mut question).unwrap();
            stream.writer.write_all(sent).unwrap();
            stream.writer.finish().unwrap();
            // The connection stays until all has arrived.
            answered.wait_closed(PATIENCE).unwrap();
        });
        let mut stream = called.open(PATIENCE).unwrap();
        stream.writer.write_all(b"all").unwrap();
        let mut arrived = Vec::new();
        stream.reader.read_to_end(&mut arrived).unwrap();
        assert!(arrived == content);
        called.close(CloseCode::Done);
    });
}

#[test]
fn the_last_word_of_who_leaves_a_pipe_is_heard() {
    let (near, far, called, answered) = through_pipes();
    thread::scope(|scope| {
        scope.spawn(|| {
            answered.close(CloseCode::Done);
            drop((answered, far));
        });
        assert_eq!(called.wait_closed(PATIENCE).unwrap(), Some(CloseCode::Done));
        // The other end waits for this one to leave.
        drop((called, near));
    });
}

#[test]
fn the_end_of_a_pipe_is_the_end_of_its_connection() {
    let (near, far) = (machine(), machine());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(writer);
    let (_kept, sink) = std::io::pipe().unwrap();
    // Whatever waited for as long as it may would have taken too long.
    let refused = near.call_through(far.identity().id(), Box::new(reader), Box::new(sink), PATIENCE);
    assert!(matches!(refused, Err(LinkError::Ended(_))), "{refused:?}");
}
