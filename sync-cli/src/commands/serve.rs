//! `driftless serve`: folders of this machine for known peers, until a signal ends it.

use crate::cli::ServeArgs;
use crate::commands::{Summary, once};
use crate::exit::{self, Exit, Usage};
use crate::home;
use crate::output::Output;
use crate::signals::Interrupt;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use sync_core::io::home::{Home, HomeError, KnownPeers};
use sync_core::io::link::{CloseCode, Connection, Identity, LinkError, Listener, Network};
use sync_core::io::sync::{Export, Host, HostOptions, SyncError};
use sync_core::peer::{Book, Id, Mode, Name};
use sync_core::report::Monitor;

/// How often signals are looked for while nobody comes.
const TICK: Duration = Duration::from_millis(200);
/// Connections at a time; who comes then is told that all are taken.
const SESSIONS: usize = 64;
/// And of one machine.
const OF_ONE: usize = 8;
/// How long sessions may take to finish what they have begun, once the server is to end.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Strangers that are told of in the life of a process: each once, and no endless log for who makes up ids.
const STRANGERS: usize = 1_000;
/// Lines of the gate that wait to be written.
const LINES: usize = 16;

/// Where it listens, for whoever started it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "listening")]
struct Listening {
    address: SocketAddr,
}

/// Serves.
pub(super) fn run(args: &ServeArgs, output: &Output) -> Result<Exit> {
    let host = host(args, output)?;
    let interrupt = Interrupt::install()?;
    match (args.once, args.listen) {
        (Some(caller), listen) => once::serve(&host, caller, listen, &interrupt, output),
        (None, Some(address)) => serve(&host, address, &interrupt, output),
        (None, None) => Err(Usage("give --listen ADDR".into()).into()),
    }
}

fn host(args: &ServeArgs, output: &Output) -> Result<Host> {
    let mut names = BTreeSet::new();
    for root in &args.roots {
        if !names.insert(&root.name) {
            return Err(Usage(format!("two roots have the name {}", root.name)).into());
        }
        // It may be a disk that comes later.
        if !root.path.is_dir() {
            output.talk_safely(&format!("note: {} is no folder at present, and refused until it is one", root.path.display()));
        }
    }
    let exports = args.roots.iter().map(|root| Export { name: root.name.clone(), path: root.path.clone(), live: None }).collect();
    let options = HostOptions { state_dir: args.state.state_dir.clone(), keep_versions: args.keep_versions.0 };
    Ok(Host::new(exports, options))
}

fn serve(host: &Host, address: SocketAddr, interrupt: &Interrupt, output: &Output) -> Result<Exit> {
    let home = home::open()?;
    let network = Network::new(Identity::open(&home)?)?;
    let (gate, lines) = Gate::open(home)?;
    let asked = Arc::clone(&gate);
    let listener = network.listen_if(address, Arc::new(move |id| asked.admits(id)))?;
    let address = listener.address();
    output.line(&format!("listening on {address}"));
    output.event(&Listening { address });
    output.flush();
    let floor = Floor { host, gate, interrupt, output, sessions: Sessions::default() };
    let served = floor.work(&listener, &lines);
    let count = floor.sessions.all.load(Ordering::Relaxed);
    served?;
    output.event(&Summary { count, ..Summary::default() });
    Ok(if interrupt.is_term() { Exit::InSync } else { Exit::Interrupted })
}

/// Who may come in, by the file of peers as it is at each moment.
struct Gate {
    known: KnownPeers,
    strangers: Mutex<BTreeSet<Id>>,
    /// It is asked on a thread that must not wait, not even for stderr.
    tell: SyncSender<String>,
}

impl Gate {
    fn open(home: Home) -> Result<(Arc<Gate>, Receiver<String>)> {
        let (tell, lines) = sync_channel(LINES);
        Ok((Arc::new(Gate { known: KnownPeers::open(home)?, strangers: Mutex::default(), tell }), lines))
    }

    fn book(&self) -> Arc<Book> {
        let (book, error) = self.known.now();
        if let Some(error) = error {
            self.say(format!("{}; until that is mended, those are known who were before", error_text(&error)));
        }
        book
    }

    fn admits(&self, id: &Id) -> bool {
        let known = self.book().named(id).is_some();
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if known {
            strangers.remove(id);
        } else if strangers.len() < STRANGERS && strangers.insert(*id) {
            self.say(format!("refused: no known peer has the id {id}; driftless peer add NAME {id} makes it one"));
        }
        known
    }

    fn grant(&self, id: &Id, folder: &Name) -> Option<Mode> {
        let book = self.book();
        let peer = book.peers().values().find(|peer| peer.id == *id)?;
        peer.grants.get(folder).copied()
    }

    fn name(&self, id: &Id) -> String {
        self.book().named(id).map_or_else(|| id.to_string(), Name::to_string)
    }

    fn say(&self, line: String) {
        // When so many wait already, one more tells nobody anything.
        let _ = self.tell.try_send(line);
    }
}

fn error_text(error: &HomeError) -> String {
    format!("the known peers cannot be read: {error}")
}

/// All that serves: one thread for each connection, and one that lets them in.
struct Floor<'a> {
    host: &'a Host,
    gate: Arc<Gate>,
    interrupt: &'a Interrupt,
    output: &'a Output,
    sessions: Sessions,
}

impl Floor<'_> {
    fn work(&self, listener: &Listener, lines: &Receiver<String>) -> Result<()> {
        thread::scope(|scope| {
            let ended = loop {
                lines.try_iter().for_each(|line| self.output.talk_safely(&line));
                if self.interrupt.asked() {
                    break Ok(());
                }
                match listener.accept(TICK) {
                    Ok(connection) => match self.sessions.enter(connection.peer_id()) {
                        Some(seat) => drop(scope.spawn(move || self.session(connection, &seat))),
                        None => connection.close(CloseCode::Busy),
                    },
                    Err(LinkError::TooLong(_)) => {}
                    Err(error) => break Err(error).context("cannot listen any more"),
                }
            };
            listener.stop();
            self.sessions.wait_for_none(GRACE);
            listener.close();
            ended
        })
    }

    fn session(&self, connection: Connection, _seat: &Seat<'_>) {
        let id = connection.peer_id();
        let name = self.gate.name(&id);
        let from = connection.address().map_or_else(String::new, |address| format!(" from {address}"));
        self.output.talk(&format!("{name}: connected{from}"));
        let monitor = Attendant { name: &name, interrupt: self.interrupt, output: self.output };
        let served = self.host.serve(connection, &|folder| self.gate.grant(&id, folder), &monitor);
        tell_end(&name, served, self.output);
    }
}

/// How a session ended, on stderr.
pub(super) fn tell_end(name: &str, served: Result<(), SyncError>, output: &Output) {
    match served {
        Ok(()) => output.talk(&format!("{name}: finished")),
        Err(error) => output.talk_safely(&format!("{name}: {}", exit::words(&error.into()))),
    }
}

/// Listens to one session.
struct Attendant<'a> {
    name: &'a str,
    interrupt: &'a Interrupt,
    output: &'a Output,
}

impl Monitor for Attendant<'_> {
    fn notice(&self, text: &str) {
        self.output.talk_safely(&format!("{}: {text}", self.name));
    }

    fn cancelled(&self) -> bool {
        self.interrupt.asked()
    }
}

/// How many sessions there are.
#[derive(Default)]
struct Sessions {
    open: Mutex<BTreeMap<Id, usize>>,
    changed: Condvar,
    all: AtomicU64,
}

/// A session's place among them.
struct Seat<'a>(&'a Sessions, Id);

impl Sessions {
    /// `None`: all places are taken, or those of this machine.
    fn enter(&self, id: Id) -> Option<Seat<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.entry(id).or_default();
        if all >= SESSIONS || *own >= OF_ONE {
            return None;
        }
        *own += 1;
        self.all.fetch_add(1, Ordering::Relaxed);
        Some(Seat(self, id))
    }

    fn wait_for_none(&self, wait: Duration) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether they have ended or not: the caller goes on.
        let _ = self.changed.wait_timeout_while(open, wait, |open| !open.is_empty());
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.1) {
            *own -= 1;
        }
        open.retain(|_, own| *own > 0);
        drop(open);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::peer::{Peer, PublicKey};

    #[test]
    fn seats_are_taken_and_given_back() {
        let sessions = Sessions::default();
        let id = |number: usize| PublicKey::from_bytes([number as u8; 32]).id();
        let seats: Vec<_> = (0..SESSIONS).map(|number| sessions.enter(id(number / OF_ONE)).unwrap()).collect();
        assert!(sessions.enter(id(255)).is_none());
        sessions.wait_for_none(Duration::ZERO);
        drop(seats);
        let own: Vec<_> = (0..OF_ONE).map(|_| sessions.enter(id(1))).collect();
        assert!(own.iter().all(Option::is_some) && sessions.enter(id(1)).is_none() && sessions.enter(id(2)).is_some());
        drop(own);
        sessions.wait_for_none(GRACE);
        assert_eq!(sessions.all.load(Ordering::Relaxed), (SESSIONS + OF_ONE) as u64 + 1);
    }

    #[test]
    fn a_stranger_is_told_of_once_and_let_in_when_it_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let (gate, lines) = Gate::open(home.clone()).unwrap();
        let id = PublicKey::from_bytes([1; 32]).id();
        assert!(!gate.admits(&id) && !gate.admits(&id));
        assert_eq!(lines.try_iter().count(), 1);
        let folder: Name = "hot".parse().unwrap();
        let peer = Peer { id, addresses: Vec::new(), grants: [(folder.clone(), Mode::NoDelete)].into() };
        home.change_book(|book| book.add("web2".parse().unwrap(), peer)).unwrap();
        assert!(gate.admits(&id));
        assert_eq!((gate.name(&id), gate.grant(&id, &folder)), ("web2".into(), Some(Mode::NoDelete)));
        assert_eq!(gate.grant(&id, &"cold".parse().unwrap()), None);
        home.change_book(|book| book.remove(&"web2".parse().unwrap())).unwrap();
        assert!(!gate.admits(&id) && gate.grant(&id, &folder).is_none());
        assert!(lines.try_iter().all(|line| line.contains("no known peer")));
    }
}
