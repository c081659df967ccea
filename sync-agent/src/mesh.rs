//! Connections: whoever can be called is called, whoever calls is let in, for each folder and peer one connection. What is said
//! over them is the engine's, what is done with them the folder's.

mod probing;
mod refused;
mod visits;

use crate::folder::{Called, LASTING, Shared};
use crate::log::{Level, Log};
use crate::reach::{Reached, Tried};
use crate::scheduler::{Moment, wait_after};
use crate::status::{self, Link, Reach};
use crate::works::{now_ns, random_share};
use refused::Refused;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use sync_core::io::home::KnownPeers;
use sync_core::io::link::{CloseCode, Connection, LinkError, Listener, Network};
use sync_core::io::sync::{Account, Export, Host, HostOptions, Kept, MAX_TOLD_LINKS, Member, Reaches, Served, SyncError, Tie};
use sync_core::peer::{ADDRESSES, Address, Id, Mode, Name};
use sync_core::report::Monitor;
use visits::{Standing, Visits};

/// How long a peer may take to answer a call.
const CALL: Duration = Duration::from_secs(10);
/// How often it is looked whether a connection is needed, beside being told so.
const LOOK: Duration = Duration::from_secs(1);

/// A peer as the mesh must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: Id,
    pub(crate) addresses: Vec<Address>,
    /// Was it introduced by another peer?
    pub(crate) learnt: bool,
}

/// What the threads of the mesh look things up in; replaced as a whole by a reload.
pub(crate) struct Directory {
    peers: BTreeMap<Name, Peer>,
    folders: BTreeMap<Name, Arc<Shared>>,
    /// For runs of others: one of them works in a folder at a time.
    host: Host,
}

impl Directory {
    pub(crate) fn new(peers: BTreeMap<Name, Peer>, folders: BTreeMap<Name, Arc<Shared>>) -> Directory {
        let exports = folders.values().map(|shared| {
            let kept = Arc::downgrade(shared);
            let kept: Kept = Arc::new(move || kept.upgrade()?.live());
            Export { name: shared.name.clone(), path: shared.path().to_path_buf(), live: Some(kept) }
        });
        // The roots are open already, and each with its own options.
        let host = Host::new(exports.collect(), HostOptions { state_dir: None, keep_versions: None });
        Directory { peers, folders, host }
    }

    /// Has this machine's user given a peer other addresses than before?
    fn are_addressed_anew(&self, before: &Directory) -> bool {
        let configured = self.peers.iter().filter(|(_, peer)| !peer.learnt);
        configured.into_iter().any(|(name, peer)| before.peers.get(name).is_some_and(|before| before.addresses != peer.addresses))
    }
}

/// All connections of the agent.
pub(crate) struct Mesh {
    network: Network,
    known: KnownPeers,
    directory: RwLock<Arc<Directory>>,
    /// The callers by folder and peer, with what became of their last call.
    callers: Mutex<BTreeMap<(Name, Name), Caller>>,
    wake: Condvar,
    wakes: Mutex<u64>,
    stop: AtomicBool,
    visitors: Mutex<Visits>,
    /// What was said of whom who asked for which folder.
    refused: Mutex<Refused>,
    reached: Reached,
    prober: Mutex<Option<JoinHandle<()>>>,
    begun: Instant,
    log: Log,
}

struct Caller {
    thread: JoinHandle<()>,
    end: Arc<AtomicBool>,
    last: Arc<Mutex<LastCall>>,
}

/// An address at which others can call.
pub(crate) struct Listening {
    address: SocketAddr,
    end: AtomicBool,
    now: Mutex<Result<Arc<Listener>, String>>,
}

impl Listening {
    /// Whoever listens there, or why nobody does.
    pub(crate) fn listener(&self) -> Result<Arc<Listener>, String> {
        lock(&self.now).clone()
    }

    /// Nobody is let in any more.
    pub(crate) fn stop(&self) {
        self.end.store(true, Ordering::Release);
        if let Ok(listener) = self.listener() {
            listener.stop();
        }
    }

    /// Ends all of its connections.
    pub(crate) fn close(&self) {
        self.stop();
        if let Ok(listener) = self.listener() {
            listener.close();
        }
    }
}

/// What became of the last call.
#[derive(Debug, Clone, Default)]
struct LastCall {
    since: Option<status::Moment>,
    why: Option<String>,
    next_try: Option<status::Moment>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values that are replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mesh {
    pub(crate) fn new(network: Network, known: KnownPeers, begun: Instant, log: Log) -> Arc<Mesh> {
        let mesh = Arc::new(Mesh {
            network,
            known,
            directory: RwLock::new(Arc::new(Directory::new(BTreeMap::new(), BTreeMap::new()))),
            callers: Mutex::default(),
            wake: Condvar::new(),
            wakes: Mutex::default(),
            stop: AtomicBool::new(false),
            visitors: Mutex::default(),
            refused: Mutex::default(),
            reached: Reached::default(),
            prober: Mutex::default(),
            begun,
            log,
        });
        let probing = Arc::clone(&mesh);
        *lock(&mesh.prober) = Some(thread::spawn(move || probing.probe_all()));
        mesh
    }

    fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whoever waits looks again.
    pub(crate) fn wake(&self) {
        *lock(&self.wakes) += 1;
        self.wake.notify_all();
    }

    fn rest(&self, wait: Duration, end: &AtomicBool) {
        let before = lock(&self.wakes);
        let number = *before;
        let quiet = |now: &mut u64| *now == number && !self.is_stopping() && !end.load(Ordering::Acquire);
        drop(self.wake.wait_timeout_while(before, wait, quiet));
    }

    /// Goes over to other peers and folders. Connections that may stay do.
    pub(crate) fn configure(self: &Arc<Self>, directory: Directory) {
        let directory = Arc::new(directory);
        let before = {
            let mut now = self.directory.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *now, Arc::clone(&directory))
        };
        let mut wanted = BTreeMap::new();
        for (folder, shared) in &directory.folders {
            let mut modes = BTreeMap::new();
            for (peer, known) in &directory.peers {
                let Some(mode) = shared.mode(peer) else { continue };
                modes.insert(known.id, (peer.clone(), mode));
                if !known.addresses.is_empty() {
                    wanted.insert((folder.clone(), peer.clone()), known.clone());
                }
            }
            shared.keep(&modes);
        }
        let mut callers = lock(&self.callers);
        let gone: Vec<_> = callers.extract_if(.., |key, _| !wanted.contains_key(key)).map(|(_, caller)| caller).collect();
        gone.iter().for_each(|caller| caller.end.store(true, Ordering::Release));
        // Whoever waits after a failure is woken by what may have ended it alone, and not by whatever others say of their peers.
        let mut woken = !gone.is_empty() || directory.are_addressed_anew(&before);
        for key in wanted.into_keys().filter(|key| !callers.contains_key(key)).collect::<Vec<_>>() {
            let (end, last) = (Arc::<AtomicBool>::default(), Arc::<Mutex<LastCall>>::default());
            let calling = Calling {
                mesh: Arc::clone(self),
                folder: key.0.clone(),
                peer: key.1.clone(),
                end: end.clone(),
                last: last.clone(),
            };
            let thread = thread::spawn(move || calling.run());
            woken = true;
            callers.insert(key, Caller { thread, end, last });
        }
        drop(callers);
        self.reached.keep(|id| directory.peers.values().any(|peer| peer.id == *id));
        if woken {
            self.wake();
        }
    }

    /// Listens at an address, until it is stopped. Where that fails, somebody may still be there: it is tried again.
    pub(crate) fn listen(self: &Arc<Self>, address: SocketAddr) -> (Arc<Listening>, JoinHandle<()>) {
        let listening = Arc::new(Listening { address, end: AtomicBool::new(false), now: Mutex::new(Err(String::new())) });
        self.try_to_listen(&listening);
        let (mesh, waiting) = (Arc::clone(self), Arc::clone(&listening));
        let thread = thread::spawn(move || {
            while !mesh.is_stopping() && !waiting.end.load(Ordering::Acquire) {
                match waiting.listener() {
                    Ok(listener) => {
                        mesh.accept(&listener);
                        *lock(&waiting.now) = Err("nobody is waited for any more".into());
                    }
                    Err(_) => {
                        mesh.rest(LOOK, &waiting.end);
                        mesh.try_to_listen(&waiting);
                    }
                }
            }
        });
        (listening, thread)
    }

    fn try_to_listen(self: &Arc<Self>, listening: &Listening) {
        if listening.end.load(Ordering::Acquire) || self.is_stopping() {
            return;
        }
        let asked = Arc::downgrade(self);
        let admits = Arc::new(move |id: &Id| asked.upgrade().is_some_and(|mesh| mesh.admits(id)));
        let made = self.network.listen_if(listening.address, admits).map(Arc::new).map_err(|error| error.to_string());
        let mut now = lock(&listening.now);
        match (&made, &*now) {
            (Ok(listener), _) => (self.log)(Level::Notice, &format!("listening on {}", listener.address())),
            (Err(why), Err(before)) if why == before => {}
            (Err(why), _) => (self.log)(Level::Error, &format!("{why}; it is tried again")),
        }
        *now = made;
    }

    fn admits(&self, id: &Id) -> bool {
        let (book, _) = self.known.now();
        self.directory().peers.values().any(|peer| peer.id == *id) || book.named(id).is_some()
    }

    /// What may a machine do here that is known?
    fn standing(&self, id: Id) -> Standing {
        let (directory, (book, _)) = (self.directory(), self.known.now());
        let name = directory.peers.iter().find(|(_, peer)| peer.id == id).map(|(name, _)| name);
        let shared = name.map_or(0, |name| directory.folders.values().filter(|shared| shared.mode(name).is_some()).count());
        let mut granted = book.peers().values().filter(|peer| peer.id == id).flat_map(|peer| peer.grants.keys());
        match shared {
            0 if granted.any(|folder| directory.folders.contains_key(folder)) => Standing::Guest,
            0 => Standing::Stranger,
            folders => Standing::Member(folders),
        }
    }

    fn accept(self: &Arc<Self>, listener: &Listener) {
        while !self.is_stopping() {
            match listener.accept(LOOK) {
                Ok(connection) => {
                    let id = connection.peer_id();
                    let standing = self.standing(id);
                    if !lock(&self.visitors).enter(id, standing) {
                        connection.close(CloseCode::Busy);
                        continue;
                    }
                    let mesh = Arc::clone(self);
                    drop(thread::spawn(move || {
                        let _visit = Visit(&mesh, id);
                        mesh.receive(connection);
                    }));
                }
                Err(LinkError::TooLong(_)) => {}
                Err(LinkError::Ended(_)) => return,
                Err(error) => {
                    (self.log)(Level::Error, &format!("{} is listened at no more: {error}", listener.address()));
                    return;
                }
            }
        }
    }

    /// Serves a run, or lets the peer join a folder.
    fn receive(&self, connection: Connection) {
        let (id, directory) = (connection.peer_id(), self.directory());
        let (book, _) = self.known.now();
        let named = directory.peers.iter().find(|(_, peer)| peer.id == id).map(|(name, _)| name.clone());
        let shown = named.clone().or_else(|| book.named(&id).cloned()).map_or_else(|| id.to_string(), |name| name.to_string());
        let asked: Mutex<Option<Name>> = Mutex::new(None);
        // As it is at each moment: what is taken back ends what is under way.
        let grants = |folder: &Name| -> Option<Mode> {
            *lock(&asked) = Some(folder.clone());
            let directory = self.directory();
            let shared = directory.folders.get(folder)?;
            let here = directory.peers.iter().find(|(_, peer)| peer.id == id).and_then(|(name, _)| shared.mode(name));
            here.or_else(|| self.known.now().0.peers().values().find(|peer| peer.id == id)?.grants.get(folder).copied())
        };
        let met: Mutex<Option<(Arc<Shared>, u64)>> = Mutex::new(None);
        let ear = |folder: &Name| {
            let shared = directory.folders.get(folder)?;
            named.as_ref().and_then(|name| shared.mode(name))?;
            let (number, ear) = shared.ear(id);
            *lock(&met) = Some((Arc::clone(shared), number));
            Some(ear)
        };
        let monitor = Visitor { mesh: self, shown: &shown };
        let served = directory.host.serve_or_join(connection, &grants, &ear, &monitor);
        let asked = lock(&asked).take();
        if served.is_ok() {
            lock(&self.refused).served(&id, &asked);
        }
        match served {
            Ok(Served::Joined(member)) => {
                if let Some((shared, number)) = lock(&met).take() {
                    shared.joined(*member, Called::ByThem, number);
                }
            }
            // Somebody looked whether this machine can be called.
            Ok(Served::Probed) => {}
            Ok(Served::Run) => (self.log)(Level::Info, &format!("{shown}: a run has ended")),
            Err(error) => {
                let here = asked.as_ref().and_then(|folder| self.directory().folders.get(folder).cloned());
                // Of its own folders, this agent has said before why it cannot use them.
                let (level, text) = match here.filter(|shared| shared.live().is_none()) {
                    Some(shared) => (Level::Info, format!("{shown} was refused {}: it cannot be used at present", shared.name)),
                    None => (Level::Warning, format!("{shown}: {error}")),
                };
                let said = lock(&self.refused).say(id, asked, &text, self.now());
                if let Some(text) = said {
                    (self.log)(level, &text);
                }
            }
        }
    }

    /// So many bytes a second go each way at the most, to and from all peers together; connections stay.
    pub(crate) fn limit(&self, bytes_per_second: Option<u64>) {
        self.network.limit(bytes_per_second);
    }

    fn now(&self) -> Moment {
        self.begun.elapsed()
    }

    /// A call came to this, whatever it was made for.
    fn tried(&self, peer: Id, reach: Reach) {
        self.reached.called(peer, reach, now_ns(), self.now());
    }

    /// Can a peer be called from here, by what was tried last?
    pub(crate) fn reached(&self, peer: Id) -> Option<Tried> {
        self.reached.of(peer)
    }

    /// All peers are tried now.
    pub(crate) fn probe(&self) {
        self.reached.again(self.now());
        self.wake();
    }

    /// What this machine says of itself to the members of a folder.
    pub(crate) fn account(&self, shared: &Shared, name: &Name, addresses: &[Address]) -> Account {
        let directory = self.directory();
        let tie = |(peer, known): (&Name, &Peer)| -> Option<Tie> {
            let mode = shared.mode(peer)?;
            let reaches = self.reached(known.id).and_then(|tried| match tried.reach {
                Reach::Answers { address } => address.parse().ok().map(Reaches::Answers),
                Reach::Fails { why } => Some(Reaches::fails(&why)),
            });
            Some(Tie { learnt: known.learnt, ..shared.tie(known.id, mode, reaches) })
        };
        let mut links: Vec<Tie> = directory.peers.iter().filter_map(tie).collect();
        links.sort_by_key(|link| link.to);
        links.truncate(MAX_TOLD_LINKS);
        let addresses = addresses.iter().take(ADDRESSES).cloned().collect();
        let (origin, introduces) = (self.network.identity().id(), shared.introduces());
        Account { origin, number: 0, age_s: 0, name: name.clone(), addresses, introduces, links }
    }

    /// What became of the last call to a peer for a folder.
    pub(crate) fn apart(&self, folder: &Name, peer: &Name) -> Link {
        let last = lock(&self.callers).get(&(folder.clone(), peer.clone())).map(|caller| lock(&caller.last).clone());
        let LastCall { since, why, next_try } = last.unwrap_or_default();
        let address = self.directory().peers.get(peer).and_then(|peer| peer.addresses.first().cloned());
        Link::Apart { since, why, address, next_try }
    }

    /// Has everybody left whose run, or joining, was under way?
    pub(crate) fn has_no_visitors(&self) -> bool {
        lock(&self.visitors).is_empty()
    }

    /// Asks all callers to end: [`Mesh::is_over`] tells when they have. Connections end with their folders.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        lock(&self.callers).values().for_each(|caller| caller.end.store(true, Ordering::Release));
        self.wake();
    }

    /// Has everybody ended who calls?
    pub(crate) fn is_over(&self) -> bool {
        let callers = lock(&self.callers).values().all(|caller| caller.thread.is_finished());
        callers && lock(&self.prober).as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Somebody who was let in and has not left yet.
struct Visit<'a>(&'a Mesh, Id);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        lock(&self.0.visitors).leave(self.1);
    }
}

/// Listens to a run, or to a joining.
struct Visitor<'a> {
    mesh: &'a Mesh,
    shown: &'a str,
}

impl Monitor for Visitor<'_> {
    fn notice(&self, text: &str) {
        (self.mesh.log)(Level::Notice, &format!("{}: {text}", self.shown));
    }

    fn cancelled(&self) -> bool {
        self.mesh.is_stopping()
    }
}

/// Calls one peer for one folder, again and again while there is no connection.
struct Calling {
    mesh: Arc<Mesh>,
    folder: Name,
    peer: Name,
    end: Arc<AtomicBool>,
    last: Arc<Mutex<LastCall>>,
}

impl Calling {
    fn is_over(&self) -> bool {
        self.end.load(Ordering::Acquire) || self.mesh.is_stopping()
    }

    fn run(&self) {
        let mut failures = 0;
        // Since when there is the connection that the last call made, until it is known to last.
        let mut made: Option<Moment> = None;
        // The one before was gone again at once: that there is another is told once it lasts.
        let mut fleeting = false;
        while !self.is_over() {
            let directory = self.mesh.directory();
            let found = directory.folders.get(&self.folder).zip(directory.peers.get(&self.peer));
            let Some((shared, peer)) = found else { return };
            if shared.live().is_none() || shared.is_paused() {
                (failures, made, fleeting) = (0, None, false);
                *lock(&self.last) = LastCall::default();
                self.mesh.rest(LOOK, &self.end);
                continue;
            }
            let young = made.is_some_and(|made| self.mesh.now().saturating_sub(made) < LASTING);
            let there = shared.has(peer.id);
            if there && !young {
                if fleeting && made.is_some() {
                    self.connected(shared);
                }
                (failures, made, fleeting) = (0, None, false);
                *lock(&self.last) = LastCall::default();
            }
            if there {
                self.mesh.rest(LOOK, &self.end);
                continue;
            }
            made = None;
            if young {
                // Called again at once, one that loses every connection would be called without end.
                fleeting = true;
                let why = format!("the connection was gone again within {} seconds", LASTING.as_secs());
                self.rest_after(&mut failures, shared, why);
                continue;
            }
            let Some(mode) = shared.mode(&self.peer) else { return };
            let called = self.call(shared, peer, |connection, number, ear| {
                // Not before: a root that somebody keeps while a call takes its time could not be opened anew.
                let closed = || SyncError::Root(format!("the folder {} was closed here meanwhile", self.folder));
                let live = shared.live().ok_or_else(closed)?;
                Member::join(&live, connection, mode, ear, &Visitor { mesh: &self.mesh, shown: self.peer.as_str() })
                    .map(|member| (member, number))
            });
            match called {
                Ok(true) => {
                    made = Some(self.mesh.now());
                    if !fleeting {
                        failures = 0;
                        *lock(&self.last) = LastCall::default();
                        self.connected(shared);
                    }
                }
                // The other connection stays.
                Ok(false) => self.mesh.rest(LOOK, &self.end),
                Err(why) => self.rest_after(&mut failures, shared, why),
            }
        }
    }

    fn connected(&self, shared: &Shared) {
        shared.log(Level::Notice, &format!("{} is connected, it was called", self.peer));
    }

    /// It failed once more: the longer it has, the longer it is left alone.
    fn rest_after(&self, failures: &mut u32, shared: &Shared, why: String) {
        *failures = failures.saturating_add(1);
        let wait = wait_after(*failures, random_share());
        self.failed(shared, why, wait);
        self.mesh.rest(wait, &self.end);
    }

    fn call(
        &self,
        shared: &Arc<Shared>,
        peer: &Peer,
        join: impl FnOnce(Connection, u64, sync_core::io::sync::Ear) -> Result<(Member, u64), SyncError>,
    ) -> Result<bool, String> {
        let dialled = self.mesh.network.dial(peer.id, &peer.addresses, CALL);
        let connection = dialled.map_err(|error| {
            self.mesh.tried(peer.id, Reach::Fails { why: error.to_string() });
            error.to_string()
        })?;
        if let Some(address) = connection.address() {
            self.mesh.tried(peer.id, Reach::Answers { address: address.to_string() });
        }
        let (number, ear) = shared.ear(peer.id);
        let (member, number) = join(connection, number, ear).map_err(|error| error.to_string())?;
        Ok(shared.joined(member, Called::ByUs, number))
    }

    /// One line when it begins to fail, and when it fails for another reason.
    fn failed(&self, shared: &Shared, why: String, wait: Duration) {
        let mut last = lock(&self.last);
        if last.why.as_ref() != Some(&why) {
            shared.log(Level::Warning, &format!("{} is not reached: {why}; it is tried again", self.peer));
        }
        let now = now_ns();
        let wait = i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        *last = LastCall {
            since: last.since.or(Some(now)),
            why: Some(why),
            next_try: Some(status::Moment(now.0.saturating_add(wait))),
        };
    }
}
