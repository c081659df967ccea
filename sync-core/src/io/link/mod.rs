//! The connection to another agent: identities, endpoints, connections and streams, with a blocking face and a deadline on every
//! wait. The only place that knows QUIC and TLS; it knows nothing of what is said on a stream, but for pairing.
//!
//! A receiver of quinn closes a connection when one stream has more than 1,024 gaps, and with random losses every lost packet is
//! one. A stream therefore never has more than [`STREAM_WINDOW`] under way: were every other of its packets lost, that would be 904
//! gaps. What is large takes several.

mod controller;
mod identity;
mod pipe;
mod throttle;
mod tls;
mod quic;
mod local;
mod endpoint;
mod pair;
#[cfg(test)]
mod tests;

pub use controller::Measuring;
pub use endpoint::{Listener, Network, SOCKET_BYTES};
pub use identity::{Identity, IdentityError};
pub use local::pair as local_pair;
pub use pair::{Introduction, PairError, Paired, PairingDesk, Store, join};
pub use tls::Admits;

use crate::peer::{Id, PublicKey};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use throttle::Throttle;

/// Bytes under way on one stream, one way.
pub const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes under way on one connection, one way.
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// Streams that the other side may have open at a time.
pub const STREAMS: u32 = 72;
/// How long a silent connection is kept.
pub const IDLE: Duration = Duration::from_secs(30);
/// How long a read or a write waits for anything to happen, unless the stream is told otherwise.
pub const WAIT: Duration = IDLE;

/// Why a connection was closed by one of its ends; the numbers cross the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// All is said.
    Done,
    /// Too many connections.
    Busy,
    /// The other side broke the rules.
    Protocol,
    /// Pairing: the code was wrong, or somebody stands in between.
    WrongCode,
    /// Pairing: the code is used, burnt or expired.
    NoCode,
    /// Something failed here.
    Failed,
    /// It was only to be found out whether somebody answers.
    Probe,
}

impl CloseCode {
    const ALL: [CloseCode; 7] = [
        CloseCode::Done,
        CloseCode::Busy,
        CloseCode::Protocol,
        CloseCode::WrongCode,
        CloseCode::NoCode,
        CloseCode::Failed,
        CloseCode::Probe,
    ];

    fn number(self) -> u32 {
        self as u32
    }

    fn from_number(number: u64) -> CloseCode {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        CloseCode::ALL.get(at).copied().unwrap_or(CloseCode::Failed)
    }
}

/// What can go wrong with a connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Threads, sockets or TLS cannot be set up.
    #[error("cannot {what}: {why}")]
    Setup {
        /// What was attempted.
        what: String,
        /// Why not.
        why: String,
    },
    /// No address answered as it should; each with its reason.
    #[error("{}", attempts(.0))]
    Unreachable(Vec<Attempt>),
    /// Nothing happened in time.
    #[error("{0} took too long")]
    TooLong(&'static str),
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Ended(String),
}

/// One address that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was given.
    pub given: String,
    /// What it stood for, unless that could not be found out.
    pub address: Option<SocketAddr>,
    /// Why it came to nothing.
    pub why: String,
}

fn attempts(attempts: &[Attempt]) -> String {
    let text = |attempt: &Attempt| match attempt.address.filter(|address| address.to_string() != attempt.given) {
        Some(address) => format!("{} ({address}): {}", attempt.given, attempt.why),
        None => format!("{}: {}", attempt.given, attempt.why),
    };
    match attempts {
        [] => "there is no address to try".into(),
        some => some.iter().map(text).collect::<Vec<_>>().join("; "),
    }
}

/// Bytes that crossed the link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From here, with all that the protocol adds.
    pub sent: u64,
    /// To here.
    pub received: u64,
}

/// How good the way of a connection is, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PathQuality {
    /// Smoothed round trip; zero within the process.
    pub rtt: Duration,
    /// Packets sent from here.
    pub sent: u64,
    /// Of those, packets that were given up for lost.
    pub lost: u64,
    /// Packets that came here.
    pub received: u64,
}

/// An authenticated connection to another machine. Usable from several threads.
#[derive(Debug)]
pub struct Connection {
    inner: Inner,
    /// What all its streams together may send.
    throttle: Arc<Throttle>,
    /// Numbers given at this end so far.
    numbers: AtomicU64,
}

#[derive(Debug)]
enum Inner {
    Quic(quic::Quic),
    Local(local::Local),
}

impl Connection {
    fn new(inner: Inner) -> Connection {
        Connection { inner, throttle: Arc::default(), numbers: AtomicU64::new(0) }
    }

    /// The key with which the other side proved who it is.
    pub fn peer(&self) -> PublicKey {
        match &self.inner {
            Inner::Quic(quic) => quic.peer(),
            Inner::Local(local) => local.peer(),
        }
    }

    /// By what the other side is known.
    pub fn peer_id(&self) -> Id {
        self.peer().id()
    }

    /// Where the other side is at present; nowhere within the process.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.inner {
            Inner::Quic(quic) => Some(quic.address()),
            Inner::Local(_) => None,
        }
    }

    /// A new stream; the other side learns of it with the first bytes. Waits while too many are open.
    pub fn open(&self, wait: Duration) -> Result<Stream, LinkError> {
        let stream = match &self.inner {
            Inner::Quic(quic) => quic.open(wait),
            Inner::Local(local) => local.open(wait),
        };
        stream.map(|stream| self.gated(stream))
    }

    /// The next stream that the other side opens.
    pub fn accept(&self, wait: Duration) -> Result<Stream, LinkError> {
        let stream = match &self.inner {
            Inner::Quic(quic) => quic.accept(wait),
            Inner::Local(local) => local.accept(wait),
        };
        stream.map(|stream| self.gated(stream))
    }

    fn gated(&self, mut stream: Stream) -> Stream {
        stream.writer.throttle = self.throttle.clone();
        stream
    }

    /// A number that nothing else at this end of the connection has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on, all streams together take no more than so many bytes a second from this side; `None`: as many as there are.
    /// What the connection adds to them, and what it sends again after losses, comes on top.
    pub fn limit(&self, bytes_per_second: Option<u64>) {
        self.throttle.set(bytes_per_second);
    }

    /// Ends the connection at once: what was not read by the other side is lost.
    pub fn close(&self, code: CloseCode) {
        match &self.inner {
            Inner::Quic(quic) => quic.close(code),
            Inner::Local(local) => local.close(code),
        }
    }

    /// Waits until the connection has ended. With which code, if the other side ended it.
    pub fn wait_closed(&self, wait: Duration) -> Result<Option<CloseCode>, LinkError> {
        match &self.inner {
            Inner::Quic(quic) => quic.wait_closed(wait),
            Inner::Local(local) => local.wait_closed(wait),
        }
    }

    /// What crossed so far.
    pub fn traffic(&self) -> Traffic {
        match &self.inner {
            Inner::Quic(quic) => quic.traffic(),
            Inner::Local(local) => local.traffic(),
        }
    }

    /// How good the way is.
    pub fn quality(&self) -> PathQuality {
        match &self.inner {
            Inner::Quic(quic) => quic.quality(),
            Inner::Local(_) => PathQuality::default(),
        }
    }

    /// A secret that only both ends of this very connection know, for this purpose (RFC 8446, section 7.5).
    pub fn export(&self, label: &[u8]) -> Result<[u8; 32], LinkError> {
        match &self.inner {
            Inner::Quic(quic) => quic.export(label),
            Inner::Local(local) => Ok(local.export(label)),
        }
    }
}

/// How long an operation on a stream may wait.
#[derive(Debug, Clone, Copy)]
struct Patience {
    wait: Duration,
    deadline: Option<Instant>,
}

impl Patience {
    const fn new() -> Patience {
        Patience { wait: WAIT, deadline: None }
    }

    fn left(&self) -> Duration {
        let until = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        until.map_or(self.wait, |until| until.min(self.wait))
    }
}

/// Both ways of a stream. They may be used by two threads.
#[derive(Debug)]
pub struct Stream {
    /// What comes from the other side.
    pub reader: Reader,
    /// What goes there.
    pub writer: Writer,
}

/// One way of a stream: from the other side.
#[derive(Debug)]
pub struct Reader {
    inner: ReadInner,
    patience: Patience,
}

#[derive(Debug)]
enum ReadInner {
    Quic(quic::Reading),
    Local(local::Reading),
}

impl Reader {
    fn new(inner: ReadInner) -> Reader {
        Reader { inner, patience: Patience::new() }
    }

    /// How long a single read may wait for bytes.
    pub fn set_wait(&mut self, wait: Duration) {
        self.patience.wait = wait;
    }

    /// When all reading has to be over, however often bytes come.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.patience.deadline = deadline;
    }
}

impl Read for Reader {
    /// Nothing is the end that the other side has made; a stream that was given up is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            ReadInner::Quic(quic) => quic.read(buffer, self.patience.left()),
            ReadInner::Local(local) => local.read(buffer, self.patience.left()),
        }
    }
}

/// One way of a stream: to the other side. Dropped before it is finished, the stream is given up.
#[derive(Debug)]
pub struct Writer {
    inner: WriteInner,
    patience: Patience,
    throttle: Arc<Throttle>,
}

#[derive(Debug)]
enum WriteInner {
    Quic(quic::Writing),
    Local(local::Writing),
}

impl Writer {
    fn new(inner: WriteInner) -> Writer {
        Writer { inner, patience: Patience::new(), throttle: Arc::default() }
    }

    /// How long a single write may wait for room.
    pub fn set_wait(&mut self, wait: Duration) {
        self.patience.wait = wait;
    }

    /// When all writing has to be over.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.patience.deadline = deadline;
    }

    /// Nothing more will come: the other side reads the end.
    pub fn finish(mut self) -> io::Result<()> {
        match &mut self.inner {
            WriteInner::Quic(quic) => quic.finish(),
            WriteInner::Local(local) => local.finish(),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let passing = self.throttle.pass(bytes.len());
        let written = self.write_now(&bytes[..passing]);
        self.throttle.give_back(passing - written.as_ref().copied().unwrap_or(0));
        written
    }

    /// Nothing is held back here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            WriteInner::Quic(quic) => quic.write(bytes, self.patience.left()),
            WriteInner::Local(local) => local.write(bytes, self.patience.left()),
        }
    }
}

fn too_long(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took too long"))
}
