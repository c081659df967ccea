//! Messages over one stream of a connection, in both directions: framed, bounded, and with a deadline on every wait.

use crate::io::link::{LinkError, Stream, WAIT};
use crate::path::escape;
use crate::wire::{FrameReader, MAX_FRAME, MAX_HELLO, Message, Oversized, Refusal, Refused, WireError, put_frame};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// What is to be sent waits for more until there is so much of it, or until an answer is waited for.
const HELD_BYTES: usize = 64 << 10;
/// How often the wish to stop is looked for in a wait.
const GLANCE: Duration = Duration::from_millis(200);

/// What can go wrong between two sides.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection cannot be made, or failed as a whole.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The connection failed, or nothing came in time.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error("the other side sent what cannot be read: {0}")]
    Wire(#[from] WireError),
    /// A message would be longer than the other side takes.
    #[error("cannot send: {0}")]
    Oversized(#[from] Oversized),
    /// Another message was to come.
    #[error("the other side sent {found} where {expected} was to come")]
    Unexpected {
        /// What came.
        found: &'static str,
        /// What was to come.
        expected: &'static str,
    },
    /// The other side does not do it.
    #[error("the other side refused: {}", escape(.0.text.as_bytes()))]
    Refused(Refused),
    /// No more messages come.
    #[error("the other side ended the conversation")]
    Ended,
    /// This side failed at what it was asked for.
    #[error("cannot answer the other side: {0}")]
    Failed(String),
}

impl ChannelError {
    /// Another message than was to come: a refusal says what it is.
    #[must_use]
    pub fn unexpected(found: Message, expected: &'static str) -> ChannelError {
        match found {
            Message::Refused(refused) => ChannelError::Refused(refused),
            other => ChannelError::Unexpected { found: other.name(), expected },
        }
    }
}

/// A stream that carries messages.
#[derive(Debug)]
pub struct Channel {
    stream: Stream,
    frames: FrameReader,
    out: Vec<u8>,
    read: Box<[u8]>,
    /// How long a single wait for something to read may take.
    wait: Duration,
    /// Ends every wait when it is set.
    stop: Option<Arc<AtomicBool>>,
    /// Why nothing can be sent any more. What was on its way then may have gone in part, and never goes again.
    broken: Option<(ErrorKind, String)>,
}

impl Channel {
    /// For a peer that is known: messages of any length that is allowed.
    #[must_use]
    pub fn new(stream: Stream) -> Channel {
        Channel::with_limit(stream, MAX_FRAME)
    }

    /// For a peer that has not said who it is: short messages only, until [`Channel::trust`].
    #[must_use]
    pub fn for_hello(stream: Stream) -> Channel {
        Channel::with_limit(stream, MAX_HELLO)
    }

    fn with_limit(stream: Stream, limit: usize) -> Channel {
        let (frames, read) = (FrameReader::new(limit), vec![0; READ_BYTES].into());
        Channel { stream, frames, out: Vec::new(), read, wait: WAIT, stop: None, broken: None }
    }

    /// From now on messages may be as long as any.
    pub fn trust(&mut self) {
        self.frames.set_limit(MAX_FRAME);
    }

    /// How long a single wait may take, for reading and for writing.
    pub fn set_wait(&mut self, wait: Duration) {
        self.set_read_wait(wait);
        self.stream.writer.set_wait(wait);
    }

    /// How long a single wait for something to read may take.
    pub fn set_read_wait(&mut self, wait: Duration) {
        self.wait = wait;
        self.stream.reader.set_wait(wait);
    }

    /// When a message has to be here, however often bytes of it come.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.stream.reader.set_deadline(deadline);
    }

    /// Every wait for something to read ends soon after this is set.
    pub fn set_stop(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// Sends a message, soon: [`Channel::flush`] sends it now.
    pub fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        if self.broken.is_some() {
            return self.flush();
        }
        put_frame(message, &mut self.out)?;
        if self.out.len() >= HELD_BYTES { self.flush() } else { Ok(()) }
    }

    /// Sends what waits to be sent. Once that has failed, nothing is sent any more.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        if let Some((kind, why)) = &self.broken {
            return Err(io::Error::new(*kind, why.clone()).into());
        }
        if !self.out.is_empty() {
            let sent = self.stream.writer.write_all(&self.out);
            self.out.clear();
            if let Err(error) = sent {
                self.broken = Some((error.kind(), error.to_string()));
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// The next message. What waits to be sent goes first.
    pub fn receive(&mut self) -> Result<Message, ChannelError> {
        self.next_or_end()?.ok_or(ChannelError::Ended)
    }

    /// As [`Channel::receive`]; `None` if the other side has ended the stream between two messages.
    pub fn next_or_end(&mut self) -> Result<Option<Message>, ChannelError> {
        self.flush()?;
        loop {
            if let Some(message) = self.frames.next_message()? {
                return Ok(Some(message));
            }
            match self.read()? {
                0 if self.frames.is_inside() => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                0 => return Ok(None),
                count => self.frames.feed(&self.read[..count]),
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let Some(stop) = &self.stop else { return self.stream.reader.read(&mut self.read) };
        let until = Instant::now() + self.wait;
        loop {
            if stop.load(Ordering::Acquire) {
                return Err(io::Error::new(ErrorKind::ConnectionAborted, "the run was stopped"));
            }
            let left = until.saturating_duration_since(Instant::now());
            self.stream.reader.set_wait(left.min(GLANCE));
            match self.stream.reader.read(&mut self.read) {
                Err(error) if error.kind() == ErrorKind::TimedOut && left > GLANCE => {}
                read => return read,
            }
        }
    }

    /// The next message if one comes within the wait that was set; a message that has begun by then is not lost.
    pub fn poll(&mut self) -> Result<Option<Message>, ChannelError> {
        // What could not be sent in time is no wait for something to read, and was perhaps sent in part.
        self.flush()?;
        // Bytes that trickle in would go on and on.
        self.set_deadline(Some(Instant::now() + self.wait));
        let received = self.receive();
        self.set_deadline(None);
        match received {
            Err(ChannelError::Io(error)) if error.kind() == ErrorKind::TimedOut => Ok(None),
            other => other.map(Some),
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(mut self) -> Result<(), ChannelError> {
        self.flush()?;
        Ok(self.stream.writer.finish()?)
    }

    /// Tells the other side that something is not done, and why.
    pub fn refuse(&mut self, code: Refusal, text: impl Into<String>) -> Result<(), ChannelError> {
        let text = crate::wire::cut(&text.into()).to_owned();
        self.send(&Message::Refused(Refused { code, text }))?;
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::link::local_pair;
    use crate::peer::PublicKey;
    use crate::wire::{Data, FileData, MAX_DATA, Nothing};
    use std::thread;

    #[test]
    fn a_message_that_trickles_in_is_waited_for_no_longer_than_one_that_does_not_come() {
        let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
        let heard = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = far.open(WAIT).unwrap();
                stream.writer.write_all(&(MAX_FRAME as u32).to_le_bytes()).unwrap();
                while !heard.load(Ordering::Acquire) {
                    stream.writer.write_all(&[1]).unwrap();
                    // What is tried here is its slowness.
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let mut channel = Channel::new(near.accept(WAIT).unwrap());
            channel.set_wait(Duration::from_millis(100));
            let polled = [channel.poll(), channel.poll()];
            channel.set_deadline(Some(Instant::now() + Duration::from_millis(100)));
            let received = channel.receive();
            heard.store(true, Ordering::Release);
            assert!(polled.iter().all(|polled| matches!(polled, Ok(None))), "{polled:?}");
            assert!(matches!(&received, Err(ChannelError::Io(error)) if error.kind() == ErrorKind::TimedOut), "{received:?}");
        });
    }

    #[test]
    fn what_went_in_part_never_goes_again() {
        let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
        let mut sending = Channel::new(near.open(WAIT).unwrap());
        sending.set_wait(Duration::from_millis(1));
        let large = Message::FileData(FileData { data: Data::Plain(vec![7; MAX_DATA].into()) });
        let mut sent = 0;
        let failed = loop {
            match sending.send(&large) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(&failed, ChannelError::Io(error) if error.kind() == ErrorKind::TimedOut), "{failed:?}");
        let mut receiving = Channel::new(far.accept(WAIT).unwrap());
        for _ in 0..sent {
            assert!(matches!(receiving.receive(), Ok(Message::FileData(_))));
        }
        // There is room now, and none of it is used.
        let nothing = Message::Cancel(Nothing);
        for failed in [sending.flush(), sending.send(&nothing), sending.next_or_end().map(|_| ()), sending.finish()] {
            assert!(matches!(&failed, Err(ChannelError::Io(error)) if error.kind() == ErrorKind::TimedOut), "{failed:?}");
        }
        let received = receiving.receive();
        assert!(matches!(&received, Err(ChannelError::Io(error)) if error.kind() == ErrorKind::ConnectionReset), "{received:?}");
    }
}
