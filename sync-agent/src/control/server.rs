//! Answers on the socket: one thread waits, and one for each client converses, so that none keeps another one waiting.

use super::inquiry::{Ask, Asker, Tell};
use super::line::{self, Deadline, Lines};
use super::socket::{self, SocketError, failed};
use super::{
    ANSWER_BYTES, Answer, BEAT, CLIENTS, Control, ControlError, Outcome, PATIENCE, PIECES, REQUEST_BYTES, Refused, Request,
    SOCKET_FILE, Spoken, VERSION, Wish,
};
use crate::log::{Level, Log};
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use sync_core::peer::Name;

/// The socket of an agent. It is to be closed; dropped without that, the thread goes on until the process ends.
pub struct Server {
    home: PathBuf,
    /// Wakes the waiting thread when it is dropped.
    wake: UnixStream,
    waiting: JoinHandle<()>,
    floor: Arc<Floor>,
}

/// The connections of those that wait for the agent's end. They notice it when this is dropped.
#[must_use = "whoever waits is told by the drop that the agent has ended"]
pub struct Parting(#[allow(dead_code, reason = "what counts is the end of its life")] Vec<UnixStream>);

struct Floor {
    control: Arc<dyn Control>,
    log: Log,
    clients: AtomicUsize,
    parting: Mutex<Vec<UnixStream>>,
}

impl Server {
    /// Opens the socket. Whoever calls this holds the agent's lock, and keeps it until the server is closed.
    ///
    /// # Errors
    /// Something else in its place, or a system that refuses.
    pub fn open(home: &Path, control: Arc<dyn Control>, log: Log) -> Result<Server, SocketError> {
        let path = home.join(SOCKET_FILE);
        let listener = socket::listen(home)?;
        let (wake, woken) = UnixStream::pair().map_err(failed("set up", &path))?;
        let floor = Arc::new(Floor { control, log, clients: AtomicUsize::new(0), parting: Mutex::default() });
        let own = Arc::clone(&floor);
        let begun = thread::Builder::new().name("control".into()).spawn(move || own.wait(&listener, &woken));
        let waiting = begun.map_err(failed("start a thread for", &path))?;
        Ok(Server { home: home.to_owned(), wake, waiting, floor })
    }

    /// Ends it: nobody can come any more. What is being answered has its own deadline.
    ///
    /// # Errors
    /// A socket that cannot be removed.
    pub fn close(self) -> (Parting, Result<(), SocketError>) {
        let removed = socket::remove(&self.home);
        drop(self.wake);
        // A panic in there was told on stderr; there is nothing left to undo.
        let _ = self.waiting.join();
        let mut parting = self.floor.parting.lock().unwrap_or_else(PoisonError::into_inner);
        (Parting(std::mem::take(&mut parting)), removed)
    }
}

/// A client's place among them.
struct Seat(Arc<Floor>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Floor {
    /// Until the other end of `woken` is gone.
    fn wait(self: &Arc<Floor>, listener: &UnixListener, woken: &UnixStream) {
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            match poll(&mut events, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return self.tell(Level::Error, &format!("the control socket is of no use any more: {error}")),
            }
            if !events[1].revents().is_empty() {
                return;
            }
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.tell(Level::Warning, &format!("a client of the control socket cannot be let in: {error}"));
                    // Without descriptors it would be asked again at once: whoever ends meanwhile gives some back.
                    let wait = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
                    if poll(&mut [PollFd::new(woken, PollFlags::IN)], Some(&wait)).is_ok_and(|count| count > 0) {
                        return;
                    }
                }
            }
        }
    }

    fn admit(self: &Arc<Floor>, stream: UnixStream) {
        let seat = Seat(Arc::clone(self));
        if self.clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS {
            let error =
                ControlError::new(Refused::Busy, format!("{CLIENTS} clients ask this agent already: try again in a moment"));
            // A short line fits into the socket's buffer: this does not wait.
            self.answered(&stream, answer::<()>(Err(error)));
            return;
        }
        let begun = thread::Builder::new().name("client".into()).spawn(move || seat.0.converse(stream));
        if let Err(error) = begun {
            self.tell(Level::Warning, &format!("cannot start a thread for a client of the control socket: {error}"));
        }
    }

    fn converse(&self, stream: UnixStream) {
        let request = self.hear(&stream);
        let stops = matches!(request, Ok(Wish::Stop));
        let line = match request {
            Ok(Wish::Ask { folder, ask }) => self.inquire(&stream, &folder, &ask),
            Ok(wish) => self.carry_out(wish),
            Err(error) => answer::<()>(Err(error)),
        };
        if self.answered(&stream, line) && stops {
            self.parting.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
        if stops {
            self.control.stop();
        }
    }

    fn hear(&self, stream: &UnixStream) -> Result<Wish, ControlError> {
        let refused = |text: String| ControlError::new(Refused::Request, text);
        let user = socket::user_of(stream).map_err(|error| refused(format!("cannot tell who asks: {error}")))?;
        if !socket::may_talk(user) {
            self.tell(Level::Warning, &format!("the user {user} was refused at the control socket"));
            return Err(refused("this agent is another user's".into()));
        }
        let line = Lines::of(stream).read(REQUEST_BYTES, Deadline::after(PATIENCE)).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => refused(format!("no request came within {} seconds", PATIENCE.as_secs())),
            _ => refused(format!("the request cannot be read: {error}")),
        })?;
        let line = line.ok_or_else(|| refused("the request has no end".into()))?;
        let no_request = |error: serde_json::Error| refused(format!("no request that this agent knows: {error}"));
        let spoken: Spoken = serde_json::from_slice(&line).map_err(no_request)?;
        if spoken.version != VERSION {
            let text = format!(
                "this agent speaks version {VERSION}, not {}: restart it, or ask with the program it runs",
                spoken.version
            );
            return Err(refused(text));
        }
        serde_json::from_slice::<Request>(&line).map(|request| request.wish).map_err(no_request)
    }

    fn carry_out(&self, wish: Wish) -> Vec<u8> {
        match wish {
            Wish::Status => answer(Ok(self.control.status())),
            Wish::Pause { folder } => answer(self.control.pause(folder.as_ref())),
            Wish::Resume { folder } => answer(self.control.resume(folder.as_ref())),
            Wish::Sync { folder } => answer(self.control.sync(folder.as_ref())),
            Wish::AllowDelete { folder } => answer(self.control.allow_delete(&folder)),
            Wish::Archive { folder, accept_clock } => answer(self.control.archive(folder.as_ref(), accept_clock)),
            Wish::Reload => answer(self.control.reload()),
            Wish::Probe => answer(self.control.probe()),
            // Answered in several lines, and told by whoever converses.
            Wish::Ask { .. } | Wish::Stop => answer(Ok(())),
        }
    }

    /// Hands on the answer piece by piece, with signs of life while there is none, and returns its end. A client that went away is
    /// noticed by what cannot be told to it.
    fn inquire(&self, stream: &UnixStream, folder: &Name, ask: &Ask) -> Vec<u8> {
        let (tell, told) = sync_channel(PIECES);
        let gone = AtomicBool::new(false);
        let asker = Asker::new(tell, &gone);
        let done = thread::scope(|scope| {
            let work = thread::Builder::new().name("inquiry".into()).spawn_scoped(scope, move || {
                let asker = asker;
                self.control.ask(folder, ask, &asker)
            });
            let work = match work {
                Ok(work) => work,
                Err(error) => {
                    return Err(ControlError::new(Refused::Failed, format!("no thread can be started for it: {error}")));
                }
            };
            loop {
                let piece = match told.recv_timeout(BEAT) {
                    Ok(piece) => piece,
                    Err(RecvTimeoutError::Timeout) => Tell::Beat,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                let heard = !gone.load(Ordering::Acquire) && self.answered(stream, line_of::<()>(Outcome::Told(piece)));
                gone.store(!heard, Ordering::Release);
            }
            work.join().unwrap_or_else(|_| {
                let text = "a defect of driftless ended it: its log tells more; nothing that was kept is lost";
                Err(ControlError::new(Refused::Failed, text))
            })
        });
        answer(done)
    }

    /// Whether the line went out whole. A client that went away, or that does not listen, is not waited for.
    fn answered(&self, stream: &UnixStream, line: Vec<u8>) -> bool {
        line::write(stream, &line, Deadline::after(PATIENCE)).is_ok()
    }

    fn tell(&self, level: Level, text: &str) {
        (self.log)(level, text);
    }
}

fn answer<T: Serialize>(result: Result<T, ControlError>) -> Vec<u8> {
    let result = match result {
        Ok(done) => Outcome::Done(done),
        Err(error) => Outcome::Error(error),
    };
    line_of(result)
}

fn line_of<T: Serialize>(result: Outcome<T>) -> Vec<u8> {
    let line = serde_json::to_vec(&Answer { version: VERSION, result }).expect("answers have text keys and plain values");
    if line.len() <= ANSWER_BYTES {
        return line;
    }
    let error = ControlError::new(Refused::Failed, format!("the answer has {} bytes, more than {ANSWER_BYTES}", line.len()));
    serde_json::to_vec(&Answer::<()> { version: VERSION, result: Outcome::Error(error) }).expect("a text is JSON")
}
