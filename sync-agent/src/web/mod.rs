//! The status page and the metrics: read-only renderings of [`Status`] over HTTP, on loopback, for browsers and Prometheus.
//!
//! Whoever has an account on this machine can read the page; so it shows what the status says, and can change nothing. It knows
//! nothing of the agent but where the status comes from. One thread of its own serves it, whatever its clients do.

mod answer;
mod events;
mod host;
mod server;

use crate::log::{Level, Log};
use crate::status::{LISTED, Status};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;

/// Connections at a time; who comes then is told so.
pub const CONNECTIONS: usize = 64;
/// Those of them that may listen for news at a time. The rest asks now and then.
pub const LISTENERS: usize = 16;
/// Bytes of a request's head: line and headers.
pub const HEAD_BYTES: usize = 16 << 10;
/// Headers of a request.
const HEADERS: usize = 64;
/// How long the head of a request may take to come.
const HEAD: Duration = Duration::from_secs(10);
/// How long a request and its answer may take together.
const EXCHANGE: Duration = Duration::from_secs(20);
/// How long the agent may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked for news while somebody listens.
const LOOK: Duration = Duration::from_secs(1);
/// How long a listener hears nothing at most.
const BEAT: Duration = Duration::from_secs(5);
/// How long one listens; a browser asks again by itself.
const LISTEN: Duration = Duration::from_secs(600);
/// How often an address that cannot be had is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the end of the page waits for the agent to say how it is.
const PARTING: Duration = Duration::from_secs(1);

/// Says how the agent is; must return at once.
pub type Source = Arc<dyn Fn() -> Status + Send + Sync>;

/// The page, wherever it is to be. Dropped without [`Web::close`], its thread goes on until the process ends.
pub struct Web {
    shared: Arc<Shared>,
    place: Mutex<Option<Place>>,
}

/// What the thread of the page has, too.
struct Shared {
    source: Source,
    log: Log,
    /// Where it is, or why not; `None`: nowhere, as it was asked for.
    bound: Mutex<Option<Result<SocketAddr, String>>>,
}

/// Where the page is, or tries to be.
struct Place {
    wanted: SocketAddr,
    over: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Web {
    /// A page of this status, nowhere yet.
    #[must_use]
    pub fn new(source: Source, log: Log) -> Web {
        Web { shared: Arc::new(Shared { source, log, bound: Mutex::default() }), place: Mutex::default() }
    }

    /// Takes the page to this address, away from where it was. What cannot be had is told, and tried again.
    pub fn place(&self, wanted: Option<SocketAddr>) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.as_ref().map(|place| place.wanted) == wanted {
            return;
        }
        if let Some(old) = place.take() {
            old.end();
        }
        *self.shared.bound() = None;
        *place = wanted.and_then(|wanted| self.begin(wanted));
    }

    fn begin(&self, wanted: SocketAddr) -> Option<Place> {
        // Tried here first: who starts the agent is told at once where the page is.
        let listener = self.shared.listen(wanted);
        let (over, ended) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let begun = thread::Builder::new().name("page".into()).spawn(move || server::run(&shared, wanted, listener, ended));
        match begun {
            Ok(thread) => Some(Place { wanted, over, thread }),
            Err(error) => {
                self.shared.fails(wanted, &format!("no thread can be started for it: {error}"));
                None
            }
        }
    }

    /// Where the page is.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.bound().as_ref()?.as_ref().ok().copied()
    }

    /// A status with what is to be said of the page.
    #[must_use]
    pub fn told(&self, status: Status) -> Status {
        self.shared.told(status)
    }

    /// Ends it: nobody can come any more, and who is there is cut off.
    pub fn close(&self) {
        self.place(None);
    }
}

impl Place {
    fn end(self) {
        // It has ended already if nobody listens to this any more.
        let _ = self.over.send(());
        // A panic in there was told on stderr; there is nothing left to undo.
        let _ = self.thread.join();
    }
}

impl Shared {
    fn bound(&self) -> MutexGuard<'_, Option<Result<SocketAddr, String>>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, wanted: SocketAddr) -> Option<TcpListener> {
        let opened = TcpListener::bind(wanted).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>((listener, address))
        });
        match opened {
            Ok((listener, address)) => {
                *self.bound() = Some(Ok(address));
                self.tell(Level::Notice, &format!("the status page is at http://{address}/"));
                Some(listener)
            }
            Err(error) => {
                self.fails(wanted, &format!("{error}; it is tried again"));
                None
            }
        }
    }

    /// Told in the log once, and by the status as long as it is so.
    fn fails(&self, wanted: SocketAddr, why: &str) {
        let text = format!(
            "the status page cannot be at {wanted}: {why}; give another address as status in the configuration, or \"off\""
        );
        let failed = Some(Err(text.clone()));
        let mut bound = self.bound();
        let news = *bound != failed;
        *bound = failed;
        drop(bound);
        if news {
            self.tell(Level::Warning, &text);
        }
    }

    fn told(&self, mut status: Status) -> Status {
        match &*self.bound() {
            None => {}
            Some(Ok(address)) => status.page = Some(*address),
            Some(Err(why)) => {
                status.notices.insert(0, why.clone());
                status.notices.truncate(LISTED);
            }
        }
        status
    }

    fn status(&self) -> Status {
        self.told((self.source)())
    }

    fn tell(&self, level: Level, text: &str) {
        (self.log)(level, text);
    }
}
