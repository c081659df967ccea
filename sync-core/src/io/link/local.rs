//! Two ends of a connection within one process, with the same face and the same limits as over a network: for tests of whatever
//! speaks over a [`Connection`].

use super::{
    CloseCode, Connection, Inner, LinkError, ReadInner, Reader, STREAM_WINDOW, STREAMS, Stream, Traffic, WriteInner, Writer,
    too_long,
};
use crate::io::mutex::lock;
use crate::peer::PublicKey;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A pair of connected ends; each end sees the other one's key. The exported secrets come from `secret`.
pub fn pair(keys: [PublicKey; 2], secret: [u8; 32]) -> [Connection; 2] {
    let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), sent: Default::default(), secret });
    [0, 1].map(|side| Connection::new(Inner::Local(Local { side, peer: keys[1 - side], shared: Arc::clone(&shared) })))
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes written by each side.
    sent: [AtomicU64; 2],
    secret: [u8; 32],
}

#[derive(Debug, Default)]
struct State {
    /// Streams that each side has not accepted yet.
    waiting: [VecDeque<Stream>; 2],
    /// Streams that each side has opened and that are still in use.
    opened: [Vec<Weak<()>>; 2],
    /// Who closed the connection, and why.
    closed: Option<(usize, CloseCode)>,
}

impl Shared {
    /// Waits until `ready` yields something.
    fn wait<T>(&self, wait: Duration, mut ready: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + wait;
        let mut state = lock(&self.state);
        loop {
            if let Some(done) = ready(&mut state) {
                return Some(done);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn ended(&self) -> bool {
        lock(&self.state).closed.is_some()
    }
}

/// One end.
#[derive(Debug)]
pub(super) struct Local {
    side: usize,
    peer: PublicKey,
    shared: Arc<Shared>,
}

impl Local {
    pub(super) fn peer(&self) -> PublicKey {
        self.peer
    }

    pub(super) fn open(&self, wait: Duration) -> Result<Stream, LinkError> {
        let side = self.side;
        let done = self.shared.wait(wait, |state| {
            if state.closed.is_some() {
                return Some(Err(ended()));
            }
            state.opened[side].retain(|stream| stream.strong_count() > 0);
            if state.opened[side].len() >= STREAMS as usize {
                return None;
            }
            let token = Arc::new(());
            state.opened[side].push(Arc::downgrade(&token));
            let (there, back) = (Pipe::new(&self.shared, side), Pipe::new(&self.shared, 1 - side));
            state.waiting[1 - side].push_back(stream(&back, &there, &token));
            Some(Ok(stream(&there, &back, &token)))
        });
        self.shared.changed.notify_all();
        done.ok_or(LinkError::TooLong("opening a stream"))?
    }

    pub(super) fn accept(&self, wait: Duration) -> Result<Stream, LinkError> {
        let done = self.shared.wait(wait, |state| match state.waiting[self.side].pop_front() {
            Some(stream) if state.closed.is_none() => Some(Ok(stream)),
            _ => state.closed.map(|_| Err(ended())),
        });
        done.ok_or(LinkError::TooLong("waiting for a stream"))?
    }

    pub(super) fn close(&self, code: CloseCode) {
        let waiting = {
            let mut state = lock(&self.shared.state);
            state.closed.get_or_insert((self.side, code));
            std::mem::take(&mut state.waiting)
        };
        // Streams take the lock when they are dropped.
        drop(waiting);
        self.shared.changed.notify_all();
    }

    pub(super) fn wait_closed(&self, wait: Duration) -> Result<Option<CloseCode>, LinkError> {
        let closed = self.shared.wait(wait, |state| state.closed);
        let (by, code) = closed.ok_or(LinkError::TooLong("the end of the connection"))?;
        Ok((by != self.side).then_some(code))
    }

    pub(super) fn traffic(&self) -> Traffic {
        let bytes = |side: usize| self.shared.sent[side].load(Ordering::Relaxed);
        Traffic { sent: bytes(self.side), received: bytes(1 - self.side) }
    }

    pub(super) fn export(&self, label: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.shared.secret, label).as_bytes()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.close(CloseCode::Failed);
    }
}

fn ended() -> LinkError {
    LinkError::Ended("one of its ends closed it".into())
}

fn stream(write: &Arc<Pipe>, read: &Arc<Pipe>, token: &Arc<()>) -> Stream {
    let (reading, writing) = ((Arc::clone(read), Arc::clone(token)), (Arc::clone(write), Arc::clone(token)));
    Stream {
        reader: Reader::new(ReadInner::Local(Reading { pipe: reading.0, _used: reading.1 })),
        writer: Writer::new(WriteInner::Local(Writing { pipe: writing.0, _used: writing.1 })),
    }
}

/// One way of a stream.
#[derive(Debug)]
struct Pipe {
    shared: Weak<Shared>,
    from: usize,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    bytes: VecDeque<u8>,
    end: Option<End>,
    unread: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    GivenUp,
}

impl Pipe {
    fn new(shared: &Arc<Shared>, from: usize) -> Arc<Pipe> {
        Arc::new(Pipe { shared: Arc::downgrade(shared), from, content: Mutex::default() })
    }

    /// Waits until `ready` yields something, or the connection has ended.
    fn wait<T>(&self, wait: Duration, what: &str, mut ready: impl FnMut(&mut Content) -> Option<io::Result<T>>) -> io::Result<T> {
        let over = || io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has ended");
        let shared = self.shared.upgrade().ok_or_else(over)?;
        let done = shared.wait(wait, |state| match ready(&mut lock(&self.content)) {
            None | Some(Err(_)) if state.closed.is_some() => Some(Err(over())),
            done => done,
        });
        shared.changed.notify_all();
        done.ok_or_else(|| too_long(what))?
    }

    fn change(&self, change: impl FnOnce(&mut Content)) {
        change(&mut lock(&self.content));
        if let Some(shared) = self.shared.upgrade() {
            // Taken for a moment, so that no waiter misses the change between its look and its sleep.
            let _ = shared.ended();
            shared.changed.notify_all();
        }
    }
}

#[derive(Debug)]
pub(super) struct Reading {
    pipe: Arc<Pipe>,
    _used: Arc<()>,
}

impl Reading {
    pub(super) fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        self.pipe.wait(wait, "reading", |content| {
            let count = content.bytes.len().min(buffer.len());
            if count > 0 || buffer.is_empty() {
                content.bytes.drain(..count).zip(buffer.iter_mut()).for_each(|(byte, place)| *place = byte);
                return Some(Ok(count));
            }
            match content.end? {
                End::Finished => Some(Ok(0)),
                End::GivenUp => Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the other side gave the stream up"))),
            }
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.pipe.change(|content| content.unread = true);
    }
}

#[derive(Debug)]
pub(super) struct Writing {
    pipe: Arc<Pipe>,
    _used: Arc<()>,
}

impl Writing {
    pub(super) fn write(&mut self, bytes: &[u8], wait: Duration) -> io::Result<usize> {
        let written = self.pipe.wait(wait, "writing", |content| {
            if content.unread {
                return Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other side reads no further")));
            }
            let room = (STREAM_WINDOW as usize).saturating_sub(content.bytes.len());
            let count = room.min(bytes.len());
            content.bytes.extend(&bytes[..count]);
            (count > 0 || bytes.is_empty()).then_some(Ok(count))
        })?;
        if let Some(shared) = self.pipe.shared.upgrade() {
            shared.sent[self.pipe.from].fetch_add(written as u64, Ordering::Relaxed);
        }
        Ok(written)
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.pipe.change(|content| content.end = content.end.or(Some(End::Finished)));
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.pipe.change(|content| content.end = content.end.or(Some(End::GivenUp)));
    }
}
