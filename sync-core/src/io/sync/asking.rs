//! How another machine is asked: the greeting, waiting for an answer, and telling meanwhile that this side still works.

use crate::io::channel::{Channel, ChannelError};
use crate::io::link::WAIT;
use crate::report::Monitor;
use crate::wire::{self, Hello, Message, Nothing, Progress, Refusal, Versions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the user's wish to stop is looked for while the other side works.
const GLANCE: Duration = Duration::from_millis(200);
/// A side that works says so every few seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// How often the other side hears that this one works, while it is asked for nothing.
pub(super) const ALIVE: Duration = Duration::from_secs(60);

/// Tells the other side, as long as this one works and asks nothing of it, that the run goes on: else it would give the run up.
pub(super) struct Alive {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Asks, and receives the answer: all of it within that time, however slowly it comes.
pub(super) fn answer_within(control: &mut Channel, question: &Message, time: Duration) -> Result<Message, ChannelError> {
    control.send(question).and_then(|()| receive_within(control, time))
}

/// What comes next: all of it within that time.
pub(super) fn receive_within(control: &mut Channel, time: Duration) -> Result<Message, ChannelError> {
    control.set_deadline(Some(Instant::now() + time));
    let received = control.receive();
    control.set_deadline(None);
    received
}

pub(super) fn hello(control: &mut Channel) -> Result<(), ChannelError> {
    say_hello(control)?;
    hear_hello(control)
}

pub(super) fn say_hello(control: &mut Channel) -> Result<(), ChannelError> {
    let hello = Hello {
        versions: Versions::OURS,
        program: concat!("driftless ", env!("CARGO_PKG_VERSION")).into(),
        capabilities: 0,
        nonce: super::random_bytes()?,
        token: Vec::new(),
    };
    control.send(&Message::Hello(hello))
}

/// What is said besides in the meantime does not matter to who cannot be spoken with.
pub(super) fn hear_hello(control: &mut Channel) -> Result<(), ChannelError> {
    match receive_within(control, WAIT)? {
        Message::HelloAnswer(answer) if offered(answer.version) => {
            control.trust();
            Ok(())
        }
        Message::HelloAnswer(_) => {
            let text = "it speaks a version of the protocol that was not offered: bring both sides to the same release".into();
            Err(ChannelError::Refused(wire::Refused { code: Refusal::Version, text }))
        }
        other => Err(ChannelError::unexpected(other, "the answer to the greeting")),
    }
}

fn offered(version: u32) -> bool {
    (Versions::OURS.oldest..=Versions::OURS.newest).contains(&version)
}

/// Waits for the answer of a side that works, and tells it when the user wants to stop. `each` sees what comes on the way. `None`: it
/// went on for longer than `stopping` after it had been told.
pub(super) fn wait(
    control: &mut Channel,
    monitor: &dyn Monitor,
    stopping: Duration,
    each: &mut dyn FnMut(Message),
) -> Result<Option<Message>, ChannelError> {
    control.set_read_wait(GLANCE);
    let (mut heard, mut told) = (Instant::now(), None);
    loop {
        match told {
            None if monitor.cancelled() => {
                control.send(&Message::Cancel(Nothing))?;
                told = Some(Instant::now());
            }
            // A side that says that it works could do so for ever.
            Some(told) if told.elapsed() > stopping => return Ok(None),
            _ => {}
        }
        match control.poll()? {
            Some(message @ (Message::Progress(_) | Message::Notice(_) | Message::Item(_))) => {
                heard = Instant::now();
                each(message);
            }
            Some(answer) => return Ok(Some(answer)),
            None if heard.elapsed() > SILENCE => {
                let text = format!("it said nothing for {} seconds", SILENCE.as_secs());
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into());
            }
            None => {}
        }
    }
}

impl Alive {
    pub(super) fn begin(control: Arc<Mutex<Channel>>, working: Arc<AtomicBool>, every: Duration) -> Alive {
        let over = Arc::new(AtomicBool::new(false));
        let ending = over.clone();
        let thread = thread::spawn(move || {
            let mut last = Instant::now();
            while !ending.load(Ordering::Acquire) {
                thread::park_timeout(every.saturating_sub(last.elapsed()));
                if last.elapsed() < every {
                    continue;
                }
                last = Instant::now();
                if !working.load(Ordering::Acquire) {
                    continue;
                }
                let free = match control.try_lock() {
                    // Whoever holds the channel is heard of by what it says.
                    Err(TryLockError::WouldBlock) => None,
                    // As everywhere else: a panic of whoever held it before closes no lock.
                    Err(TryLockError::Poisoned(panicked)) => Some(panicked.into_inner()),
                    Ok(control) => Some(control),
                };
                if let Some(mut control) = free {
                    let phase = wire::Phase::Apply;
                    let progress = Progress { phase, files: 0, files_total: None, bytes: 0, bytes_total: None };
                    // Whoever asks next finds out that it cannot be said.
                    let _ = control.send(&Message::Progress(progress)).and_then(|()| control.flush());
                }
            }
        });
        Alive { over, thread: Some(thread) }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there is a defect that changes nothing of what was done.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::link::{CloseCode, Connection, local_pair};
    use crate::io::mutex::lock;
    use crate::peer::PublicKey;
    use std::io::Write as _;

    /// The asking side's channel, and the other one, which has read its first message.
    fn ends() -> ([Arc<Connection>; 2], [Channel; 2]) {
        let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [3; 32]);
        let mut asking = Channel::new(near.open(WAIT).unwrap());
        asking.send(&Message::Scan(Nothing)).and_then(|()| asking.flush()).unwrap();
        let mut asked = Channel::new(far.accept(WAIT).unwrap());
        assert!(matches!(asked.receive().unwrap(), Message::Scan(_)));
        ([near, far].map(Arc::new), [asking, asked])
    }

    fn progress() -> Message {
        let phase = wire::Phase::Scan;
        Message::Progress(Progress { phase, files: 0, files_total: None, bytes: 0, bytes_total: None })
    }

    /// A user who wants to stop.
    struct Stopped;

    impl Monitor for Stopped {
        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_side_that_works_on_although_it_was_told_to_stop_is_left_alone() {
        let ([near, _far], [mut asking, mut asked]) = ends();
        thread::scope(|scope| {
            scope.spawn(move || {
                assert!(matches!(asked.receive().unwrap(), Message::Cancel(_)));
                // It works for ever.
                while asked.send(&progress()).and_then(|()| asked.flush()).is_ok() {
                    thread::yield_now();
                }
            });
            let waited = wait(&mut asking, &Stopped, Duration::from_secs(2), &mut |_| {});
            assert!(matches!(waited, Ok(None)), "{waited:?}");
            near.close(CloseCode::Done);
        });
    }

    #[test]
    fn an_answer_that_comes_after_the_wish_to_stop_counts() {
        let (_ends, [mut asking, mut asked]) = ends();
        thread::scope(|scope| {
            scope.spawn(move || {
                assert!(matches!(asked.receive().unwrap(), Message::Cancel(_)));
                for message in [progress(), Message::Bye(Nothing)] {
                    asked.send(&message).and_then(|()| asked.flush()).unwrap();
                }
                // The stream stays until the other side has read.
                let _ = asked.next_or_end();
            });
            let waited = wait(&mut asking, &Stopped, SILENCE, &mut |_| {});
            assert!(matches!(waited, Ok(Some(Message::Bye(_)))), "{waited:?}");
            asking.finish().unwrap();
        });
    }

    #[test]
    fn an_answer_that_trickles_in_is_waited_for_no_longer_than_one_that_does_not_come() {
        let (connection, _) = ends();
        let mut asking = Channel::new(connection[0].open(WAIT).unwrap());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut answering = connection[1].accept(WAIT).unwrap();
                answering.writer.write_all(&(wire::MAX_FRAME as u32).to_le_bytes()).unwrap();
                while !over.load(Ordering::Acquire) {
                    answering.writer.write_all(&[1]).unwrap();
                    // What is tried here is its slowness.
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let answer = answer_within(&mut asking, &Message::Bye(Nothing), Duration::from_millis(100));
            over.store(true, Ordering::Release);
            let timed_out = |error: &std::io::Error| error.kind() == std::io::ErrorKind::TimedOut;
            assert!(matches!(&answer, Err(ChannelError::Io(error)) if timed_out(error)), "{answer:?}");
        });
    }

    #[test]
    fn as_long_as_this_side_works_the_other_one_hears_of_it() {
        let (_ends, [asking, mut asked]) = ends();
        let (control, working) = (Arc::new(Mutex::new(asking)), Arc::new(AtomicBool::new(true)));
        let alive = Alive::begin(control.clone(), working, Duration::from_millis(1));
        for _ in 0..3 {
            assert!(matches!(asked.receive().unwrap(), Message::Progress(_)));
        }
        drop(alive);
        lock(&control).send(&Message::Bye(Nothing)).unwrap();
        lock(&control).flush().unwrap();
        let mut next = asked.receive().unwrap();
        while matches!(next, Message::Progress(_)) {
            next = asked.receive().unwrap();
        }
        assert!(matches!(next, Message::Bye(_)));
    }

    #[test]
    fn a_panic_under_the_lock_of_a_channel_does_not_silence_it() {
        let (_ends, [asking, mut asked]) = ends();
        let control = Arc::new(Mutex::new(asking));
        let held = control.clone();
        let panicked = thread::spawn(move || {
            let _held = lock(&held);
            panic!("a defect of this test's making");
        });
        assert!(panicked.join().is_err() && control.is_poisoned());
        let _alive = Alive::begin(control, Arc::new(AtomicBool::new(true)), Duration::from_millis(1));
        assert!(matches!(asked.receive().unwrap(), Message::Progress(_)));
    }
}
