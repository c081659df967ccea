//! One face, two ways to carry it: every test runs over QUIC and within the process.

use super::*;
use crate::io::link::{CloseCode, LinkError, STREAM_WINDOW, STREAMS, local_pair};
use crate::peer::PublicKey;
use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Instant;

/// Runs over both.
fn both_ways(test: impl Fn(&Connection, &Connection)) {
    let ([near, far], _listener) = quic_pair();
    test(&near, &far);
    let keys = [1, 2].map(|key| PublicKey::from_bytes([key; 32]));
    let [near, far] = local_pair(keys, [3; 32]);
    assert_eq!((near.peer(), far.peer()), (keys[1], keys[0]));
    assert_eq!(near.export(b"x").unwrap(), far.export(b"x").unwrap());
    test(&near, &far);
}

#[test]
fn what_is_written_arrives_and_is_counted() {
    both_ways(|near, far| {
        let content: Vec<u8> = (0..3 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = far.accept(PATIENCE).unwrap();
                std::io::copy(&mut stream.reader, &mut stream.writer).unwrap();
                stream.writer.finish().unwrap();
            });
            let mut stream = near.open(PATIENCE).unwrap();
            let (mut writer, reader) = (stream.writer, &mut stream.reader);
            let sent = &content;
            scope.spawn(move || {
                writer.write_all(sent).unwrap();
                writer.finish().unwrap();
            });
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            assert!(back == content);
        });
        let traffic = near.traffic();
        assert!(traffic.sent >= 3 << 20 && traffic.received >= 3 << 20, "{traffic:?}");
        assert!(far.traffic().received >= 3 << 20);
    });
}

#[test]
fn a_limit_of_the_network_holds_for_all_its_connections_those_that_there_are_too_and_ends_none() {
    const RATE: u64 = 1 << 20;
    for receiving in [false, true] {
        let (near, far) = (machine(), machine());
        let listener = listen(&far, &[&near]);
        let meet = || {
            let dialled = near.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap();
            (dialled, listener.accept(PATIENCE).unwrap())
        };
        let pairs = [meet(), meet()];
        let limited = if receiving { &far } else { &near };
        limited.limit(Some(RATE));
        let send = |bytes: usize| {
            let began = Instant::now();
            let ends = pairs.iter().map(|(near, far)| {
                let mut stream = near.open(PATIENCE).unwrap();
                stream.writer.write_all(&[7]).unwrap();
                (stream, far.accept(PATIENCE).unwrap())
            });
            let ends: Vec<_> = ends.collect();
            thread::scope(|scope| {
                for (mut sending, mut taking) in ends {
                    scope.spawn(move || {
                        sending.writer.write_all(&vec![7; bytes]).unwrap();
                        sending.writer.finish().unwrap();
                    });
                    scope.spawn(move || {
                        let mut read = Vec::new();
                        taking.reader.read_to_end(&mut read).unwrap();
                        assert_eq!(read.len(), bytes + 1);
                    });
                }
            });
            began.elapsed()
        };
        let elapsed = send(512 << 10);
        // What may go at once, and the last piece of each.
        let allowed = elapsed.as_secs_f64() * RATE as f64 + (RATE / 10 + 2 * (64 << 10)) as f64;
        assert!((1 << 20) as f64 <= allowed, "more than {allowed} bytes in {elapsed:?}");
        limited.limit(None);
        send(4 << 20);
        assert!(
            pairs.iter().all(|(near, far)| near.wait_closed(Duration::ZERO).is_err() && far.wait_closed(Duration::ZERO).is_err())
        );
    }
}

#[test]
fn what_is_limited_takes_its_time_over_all_streams_together() {
    both_ways(|near, far| {
        near.limit(Some(256 << 10));
        thread::scope(|scope| {
            let began = Instant::now();
            for _ in 0..2 {
                let mut stream = near.open(PATIENCE).unwrap();
                scope.spawn(move || {
                    stream.writer.write_all(&[7; 96 << 10]).unwrap();
                    stream.writer.finish().unwrap();
                });
            }
            for _ in 0..2 {
                let mut stream = far.accept(PATIENCE).unwrap();
                let mut read = Vec::new();
                stream.reader.read_to_end(&mut read).unwrap();
                assert_eq!(read.len(), 96 << 10);
            }
            // A quarter is what may go at once, and the last piece of each stream.
            assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
        });
        near.limit(None);
        near.open(PATIENCE).unwrap().writer.write_all(&[7; 64 << 10]).unwrap();
    });
}

#[test]
fn a_stream_that_was_given_up_does_not_look_whole() {
    both_ways(|near, far| {
        let mut stream = near.open(PATIENCE).unwrap();
        stream.writer.write_all(b"half").unwrap();
        let mut other = far.accept(PATIENCE).unwrap();
        let mut half = [0; 4];
        other.reader.read_exact(&mut half).unwrap();
        drop(stream);
        assert_eq!(other.reader.read(&mut half).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn every_wait_has_an_end() {
    both_ways(|near, far| {
        assert!(matches!(far.accept(MOMENT), Err(LinkError::TooLong(_))));
        assert!(matches!(near.wait_closed(MOMENT), Err(LinkError::TooLong(_))));
        let mut stream = near.open(PATIENCE).unwrap();
        stream.reader.set_wait(MOMENT);
        assert_eq!(stream.reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        stream.reader.set_wait(PATIENCE);
        stream.reader.set_deadline(Some(Instant::now()));
        assert_eq!(stream.reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    both_ways(|near, far| {
        let mut stream = near.open(PATIENCE).unwrap();
        stream.writer.set_wait(MOMENT);
        let block = vec![7; 64 << 10];
        let mut written = 0;
        let error = loop {
            match stream.writer.write(&block) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // Over a network the sender may hold as much again as the receiver allows.
        assert!(written >= STREAM_WINDOW as usize && written <= 20 * STREAM_WINDOW as usize, "{written}");
        drop(far.accept(PATIENCE).unwrap());
        stream.writer.set_wait(PATIENCE);
        let stopped = stream.writer.write(&block).unwrap_err().kind();
        assert_eq!(stopped, ErrorKind::BrokenPipe);
    });
}

#[test]
fn streams_are_limited_and_come_free_again() {
    both_ways(|near, far| {
        let mut open: Vec<_> = (0..STREAMS).map(|_| near.open(PATIENCE).unwrap()).collect();
        assert!(matches!(near.open(MOMENT), Err(LinkError::TooLong(_))));
        let mut one = open.pop().unwrap();
        one.writer.write_all(b"x").unwrap();
        one.writer.finish().unwrap();
        drop(one.reader);
        // The other side takes the streams in their order, and lets all of them go.
        open.iter_mut().for_each(|stream| stream.writer.write_all(b"x").unwrap());
        open.clear();
        for _ in 0..STREAMS {
            drop(far.accept(PATIENCE).unwrap());
        }
        near.open(PATIENCE).unwrap();
    });
}

#[test]
fn a_closed_connection_ends_everything_on_it() {
    both_ways(|near, far| {
        let mut stream = near.open(PATIENCE).unwrap();
        stream.writer.write_all(b"x").unwrap();
        far.close(CloseCode::Done);
        assert_eq!(near.wait_closed(PATIENCE).unwrap(), Some(CloseCode::Done));
        assert_eq!(far.wait_closed(PATIENCE).unwrap(), None);
        assert_eq!(stream.reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert!(stream.writer.write(b"x").is_err());
        assert!(matches!(near.open(PATIENCE), Err(LinkError::Ended(_))));
        assert!(matches!(near.accept(PATIENCE), Err(LinkError::Ended(_))));
    });
}
