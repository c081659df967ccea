//! Pairing over real connections: with friends, guessers, relays and whoever else calls.

use super::*;
use crate::io::link::{CloseCode, Introduction, PairError, Paired, PairingDesk, Stream, join};
use crate::pairing::{Code, LIFETIME, Refusal};
use crate::peer::Name;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::thread;

/// A machine that pairs, and what it stored.
struct Side {
    network: Network,
    name: Name,
    stored: Mutex<Vec<Paired>>,
}

impl Side {
    fn new(name: &str) -> Side {
        Side { network: machine(), name: name.parse().unwrap(), stored: Mutex::default() }
    }

    fn desk(&self) -> PairingDesk {
        PairingDesk::open(&self.network, loopback()).unwrap()
    }

    fn wait(&self, desk: PairingDesk) -> Result<Paired, PairError> {
        desk.wait(Introduction { name: &self.name, store: &|paired| self.store(paired) })
    }

    fn join(&self, code: &Code, to: SocketAddr) -> Result<Paired, PairError> {
        let address = to.to_string().parse().unwrap();
        join(&self.network, code, &address, Introduction { name: &self.name, store: &|paired| self.store(paired) }, PATIENCE)
    }

    fn store(&self, paired: &Paired) -> Result<(), String> {
        self.stored.lock().unwrap().push(paired.clone());
        Ok(())
    }

    fn stored(&self) -> Vec<crate::peer::PublicKey> {
        self.stored.lock().unwrap().iter().map(|paired| paired.key).collect()
    }
}

fn another(code: &Code) -> Code {
    let codes = [1_u64, 2].map(|number| Code::from_random(number.to_le_bytes()));
    codes.into_iter().find(|other| other != code).unwrap()
}

fn refusal(result: Result<Paired, PairError>) -> Refusal {
    match result {
        Err(PairError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn two_machines_store_each_other() {
    let (shows, asks) = (Side::new("server"), Side::new("laptop"));
    let desk = shows.desk();
    let (code, to) = (desk.code().clone(), desk.address());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| shows.wait(desk).unwrap());
        let there = asks.join(&code, to).unwrap();
        let here = waiting.join().unwrap();
        assert_eq!((there.name.as_str(), here.name.as_str()), ("server", "laptop"));
        assert_eq!(there.address.unwrap().to_string(), to.to_string());
        assert!(there.confirmed && here.confirmed);
    });
    assert_eq!(shows.stored(), [asks.network.identity().key()]);
    assert_eq!(asks.stored(), [shows.network.identity().key()]);
}

#[test]
fn a_wrong_code_burns_it_and_there_is_no_second_guess() {
    let (shows, guesses) = (Side::new("server"), Side::new("guesser"));
    let desk = shows.desk();
    let (code, to) = (desk.code().clone(), desk.address());
    // Came before the guess, and waits: it gets no second one.
    let second = Raw::connect(guesses.network.identity(), Purpose::Pair, to);
    second.greet();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| shows.wait(desk));
        assert_eq!(refusal(guesses.join(&another(&code), to)), Refusal::Wrong);
        assert_eq!(refusal(waiting.join().unwrap()), Refusal::Wrong);
    });
    assert!(matches!(second.closed(), quinn::ConnectionError::ApplicationClosed(_)));
    let address = to.to_string().parse().unwrap();
    let own = Introduction { name: &guesses.name, store: &|paired| guesses.store(paired) };
    let late = join(&guesses.network, &code, &address, own, 5 * MOMENT);
    assert!(matches!(late, Err(PairError::Link(_))), "{late:?}");
    assert!(shows.stored().is_empty() && guesses.stored().is_empty());
}

#[test]
fn an_old_code_is_waited_for_no_longer() {
    let (shows, asks) = (Side::new("server"), Side::new("laptop"));
    let desk = shows.desk().aged(LIFETIME);
    let (code, to) = (desk.code().clone(), desk.address());
    assert_eq!(refusal(shows.wait(desk)), Refusal::Expired);
    // A code that was waited for on would be good now.
    let address = to.to_string().parse().unwrap();
    let own = Introduction { name: &asks.name, store: &|paired| asks.store(paired) };
    let late = join(&asks.network, &code, &address, own, 5 * MOMENT);
    assert!(matches!(late, Err(PairError::Link(_))), "{late:?}");
    assert!(shows.stored().is_empty() && asks.stored().is_empty());
}

/// Carries everything between two streams, until either side ends.
fn relay(one: Stream, other: Stream) {
    thread::scope(|scope| {
        for (mut reader, mut writer) in [(one.reader, other.writer), (other.reader, one.writer)] {
            scope.spawn(move || {
                let mut buffer = [0; 256];
                while let Ok(count @ 1..) = reader.read(&mut buffer) {
                    if writer.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn a_relay_with_keys_of_its_own_is_noticed() {
    let (shows, asks, between) = (Side::new("server"), Side::new("laptop"), machine());
    let desk = shows.desk();
    let (code, to) = (desk.code().clone(), desk.address());
    let trap = between.listen_for(loopback(), Trust::Anyone, Purpose::Pair).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| shows.wait(desk));
        scope.spawn(|| {
            let victim = trap.accept(PATIENCE).unwrap();
            let target = to.to_string().parse().unwrap();
            let onward = between.dial_for(&[target], Trust::Anyone, Purpose::Pair, PATIENCE).unwrap();
            relay(victim.accept(PATIENCE).unwrap(), onward.open(PATIENCE).unwrap());
        });
        // The right code, and every byte of the conversation carried on unchanged.
        let asked = asks.join(&code, trap.address());
        assert!(asked.is_err(), "{asked:?}");
        assert_eq!(refusal(waiting.join().unwrap()), Refusal::Wrong);
    });
    assert!(shows.stored().is_empty() && asks.stored().is_empty());
}

#[test]
fn nonsense_and_silence_cost_nobody_the_code() {
    let (shows, asks, stranger) = (Side::new("server"), Side::new("laptop"), machine());
    let desk = shows.desk();
    let (code, to) = (desk.code().clone(), desk.address());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| shows.wait(desk).unwrap());
        for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[1, 33, 0], &[1, 200], &[3, 0], &[2, 33], &[0; 100]] {
            let raw = Raw::connect(stranger.identity(), Purpose::Pair, to);
            raw.greet();
            if bytes == [1, 33, 0] || bytes == [2, 33] {
                // Half of a message, and gone.
                raw.connection.close(0_u32.into(), b"");
                continue;
            }
            let quinn::ConnectionError::ApplicationClosed(close) = raw.say(bytes) else { panic!("{bytes:?}") };
            assert_eq!(close.error_code.into_inner(), u64::from(CloseCode::Protocol.number()));
        }
        let silent: Vec<Raw> = (0..3).map(|_| Raw::connect(stranger.identity(), Purpose::Pair, to)).collect();
        silent.iter().for_each(Raw::greet);
        asks.join(&code, to).unwrap();
        waiting.join().unwrap();
    });
    assert_eq!(shows.stored(), [asks.network.identity().key()]);
}

#[test]
fn who_cannot_store_the_other_does_not_pretend_to() {
    let (shows, asks) = (Side::new("server"), Side::new("laptop"));
    let desk = shows.desk();
    let (code, to) = (desk.code().clone(), desk.address());
    thread::scope(|scope| {
        let full = |_: &Paired| Err("the disk is full".to_owned());
        let name = &shows.name;
        let waiting = scope.spawn(move || desk.wait(Introduction { name, store: &full }));
        assert!(asks.join(&code, to).is_err());
        assert!(matches!(waiting.join().unwrap(), Err(PairError::Store(why)) if why == "the disk is full"));
    });
    assert!(asks.stored().is_empty());
    let desk = shows.desk();
    let (code, to) = (desk.code().clone(), desk.address());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| shows.wait(desk));
        let own = Introduction { name: &asks.name, store: &|_| Err("the disk is full".to_owned()) };
        let address = to.to_string().parse().unwrap();
        assert!(matches!(join(&asks.network, &code, &address, own, PATIENCE), Err(PairError::Store(_))));
        assert!(!waiting.join().unwrap().unwrap().confirmed);
    });
}
