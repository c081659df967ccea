//! The agent itself: its folders, its connections, and how they are. Between `service`, which starts, asks and ends it, and the work.

mod members;

use crate::archive::run::Clock;
use crate::config::{Changes, Config, Folder as FolderConfig, diff};
use crate::control::{Ask, Asker, ControlError, Refused};
use crate::folder::{Folder, Setting};
use crate::gossip;
use crate::learnt::{Introducers, Learnt};
use crate::log::{Level, Log};
use crate::mesh::{Directory, Listening, Mesh, Peer};
use crate::permits::Permits;
use crate::quality::SAMPLE;
use crate::roots::Roots;
use crate::status::{BroughtStatus, FolderState, FolderStatus, LISTED, Moment, PathText, PeerStatus, Problems, Status, Watches};
use crate::works::now_ns;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use sync_core::io::home::{Home, HomeError, KnownPeers};
use sync_core::io::link::{Identity, IdentityError, LinkError, Network};
use sync_core::peer::{Id, Name};

/// How often it is looked whether threads have ended.
const GLANCE: Duration = Duration::from_millis(20);
/// How often it is looked whether somebody who is waited for is still heard.
const BEAT: Duration = Duration::from_secs(1);

/// Why the agent could not begin, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// This machine's key cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The known peers cannot be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The network cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A running agent.
pub struct Agent {
    inner: Arc<Inner>,
    ticking: Mutex<Option<JoinHandle<()>>>,
}

/// What its threads have in common.
struct Inner {
    id: Id,
    since: Moment,
    begun: Instant,
    log: Log,
    home: Home,
    /// By which old days are archived.
    clock: Clock,
    mesh: Arc<Mesh>,
    roots: Arc<Roots>,
    held: Mutex<Held>,
    ticker: Ticker,
}

struct Held {
    /// As it was read.
    config: Config,
    /// With the peers that others introduced.
    whole: Config,
    learnt: Learnt,
    introducers: Introducers,
    folders: BTreeMap<Name, Folder>,
    /// Folders that were asked to end, and may still have their roots.
    ending: Vec<Folder>,
    permits: Arc<Permits>,
    listeners: BTreeMap<SocketAddr, (Arc<Listening>, JoinHandle<()>)>,
}

/// Wakes the thread that measures paths and tells of them.
#[derive(Default)]
struct Ticker {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Agent {
    /// Begins: opens the folders, listens, and calls the peers, each in threads of their own. `home` has this machine's key and its
    /// known peers.
    ///
    /// # Errors
    /// A key that cannot be read or made, or a network that cannot be used. A folder that cannot be opened, or an address that
    /// cannot be listened at, is told in the log and by [`Agent::status`], and tried again.
    pub fn start(config: Config, home: &Home, log: Log) -> Result<Agent, AgentError> {
        Agent::start_on(Clock::default(), config, home, log)
    }

    /// As [`Agent::start`], with another clock for the archiving of old days.
    ///
    /// # Errors
    /// As [`Agent::start`].
    #[allow(clippy::disallowed_methods, reason = "the clock from which all else is counted")]
    pub fn start_on(clock: Clock, config: Config, home: &Home, log: Log) -> Result<Agent, AgentError> {
        let network = Network::new(Identity::open(home)?)?;
        let id = network.identity().id();
        let begun = Instant::now();
        let mesh = Mesh::new(network, KnownPeers::open(home.clone())?, begun, Arc::clone(&log));
        let learnt = Learnt::read(home.folder()).unwrap_or_else(|error| {
            log(Level::Warning, &format!("who was introduced before is not known any more: learnt.json: {error}"));
            Learnt::default()
        });
        let held = Held {
            permits: Arc::new(Permits::new(config.limits.exchanges)),
            folders: BTreeMap::new(),
            ending: Vec::new(),
            listeners: BTreeMap::new(),
            whole: config.clone(),
            config,
            learnt,
            introducers: Introducers::new(),
        };
        let inner = Arc::new(Inner {
            id,
            since: now_ns(),
            begun,
            roots: Arc::new(Roots::open(home.folder())),
            home: home.clone(),
            clock,
            log,
            mesh,
            held: Mutex::new(held),
            ticker: Ticker::default(),
        });
        inner.take_over(&BTreeSet::new());
        let ticking = tick(&inner);
        Ok(Agent { inner, ticking: Mutex::new(Some(ticking)) })
    }

    /// Who this machine is.
    #[must_use]
    pub fn id(&self) -> Id {
        self.inner.id
    }

    /// How everything is, as last known. Never waits for work under way.
    #[must_use]
    pub fn status(&self) -> Status {
        let held = self.inner.held();
        let (machines, links) = self.inner.atlas(&held);
        let folders = held.whole.folders.iter().map(|(name, config)| self.inner.folder_status(&held, name, config)).collect();
        Status {
            name: held.config.name.clone(),
            id: self.inner.id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.inner.since,
            listen: held.listeners.values().filter_map(|(listening, _)| Some(listening.listener().ok()?.address())).collect(),
            page: None,
            notices: held.listeners.values().filter_map(|(listening, _)| listening.listener().err()).take(LISTED).collect(),
            folders,
            machines,
            links,
        }
    }

    /// Stops exchanging a folder, or all that there are.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn pause(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.set_paused(folder, true)
    }

    /// Takes it up again.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn resume(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.set_paused(folder, false)
    }

    fn set_paused(&self, folder: Option<&Name>, paused: bool) -> Result<(), ControlError> {
        let held = self.inner.held();
        for (name, folder) in held.named(folder)? {
            if folder.shared().is_paused() != paused {
                folder.shared().pause(paused);
                (self.inner.log)(Level::Notice, &format!("folder {name} is {}", if paused { "paused" } else { "resumed" }));
            }
        }
        self.inner.mesh.wake();
        Ok(())
    }

    /// Scans and exchanges a folder, or all, now.
    ///
    /// # Errors
    /// A folder that is not there, or paused.
    pub fn sync(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        let held = self.inner.held();
        let named = held.named(folder)?;
        if let Some(name) = folder.filter(|_| named.iter().all(|(_, folder)| folder.shared().is_paused())) {
            let text = format!("folder {name} is paused; driftless agent resume {name} takes it up again");
            return Err(ControlError::new(Refused::Paused, text));
        }
        named.iter().for_each(|(_, folder)| folder.shared().sync());
        self.inner.mesh.wake();
        Ok(())
    }

    /// As [`Agent::sync`], with leave for the next pull that deletes, if it comes within the hour, to delete whatever it is to delete.
    ///
    /// # Errors
    /// A folder that is not there, that is paused, or whose root cannot be used.
    pub fn allow_delete(&self, folder: &Name) -> Result<(), ControlError> {
        {
            let held = self.inner.held();
            let found = held.named(Some(folder))?;
            let live = found.first().and_then(|(_, folder)| folder.shared().live());
            let live = live.filter(|_| found.iter().all(|(_, folder)| !folder.shared().is_paused()));
            let Some(live) = live else {
                let text = format!("folder {folder} is paused or cannot be used at present: driftless agent status tells why");
                return Err(ControlError::new(Refused::Paused, text));
            };
            live.allow_deletions();
            let text = format!("{folder}: the next pull that deletes may delete whatever it is to delete, within the hour");
            (self.inner.log)(Level::Notice, &text);
        }
        self.sync(Some(folder))
    }

    /// Archives the old days of a folder, or of all that have a rule for it, now. `accept_clock`: its clock is right, although it jumped.
    ///
    /// # Errors
    /// A folder that is not there, that is paused, or whose days are not archived.
    pub fn archive(&self, folder: Option<&Name>, accept_clock: bool) -> Result<(), ControlError> {
        let held = self.inner.held();
        let named = held.named(folder)?;
        let ruled: Vec<_> = named.into_iter().filter(|(_, folder)| folder.shared().desk.has_rule()).collect();
        if ruled.is_empty() {
            let what = folder.map_or_else(|| "a folder".to_owned(), |name| format!("folder {name}"));
            let text =
                format!("no rule says how old days of {what} are archived: the configuration has no [archive.NAME] for it");
            return Err(ControlError::new(Refused::Request, text));
        }
        let awake: Vec<_> = ruled.iter().filter(|(_, folder)| !folder.shared().is_paused()).collect();
        if let ([], Some((name, _))) = (&awake[..], ruled.first()) {
            let text = format!("folder {name} is paused; driftless agent resume {name} takes it up again");
            return Err(ControlError::new(Refused::Paused, text));
        }
        awake.iter().for_each(|(_, folder)| folder.shared().desk.ask(accept_clock));
        Ok(())
    }

    /// Asks something of the root of a folder, or has something done there, as long as that takes.
    ///
    /// # Errors
    /// A folder that is not there, whose root is not open, or what went wrong.
    pub fn ask(&self, folder: &Name, ask: &Ask, asker: &Asker<'_>) -> Result<(), ControlError> {
        let shared = {
            let held = self.inner.held();
            let found = held.named(Some(folder))?;
            found.into_iter().map(|(_, folder)| Arc::clone(folder.shared())).next()
        };
        shared.map_or(Ok(()), |shared| shared.ask(ask, asker))
    }

    /// Tries anew which peers can be called. [`Agent::status`] tells what comes of it: all that was tried at this moment or later.
    #[must_use]
    pub fn probe(&self) -> Moment {
        let now = now_ns();
        self.inner.mesh.probe();
        now
    }

    /// Goes over to another configuration, and tells what that changed. Links of peers that stay are not dropped.
    ///
    /// # Errors
    /// None at present.
    pub fn reload(&self, config: Config) -> Result<Changes, AgentError> {
        let (changes, paused) = {
            let mut held = self.inner.held();
            let changes = diff(&held.config, &config);
            let mut paused = BTreeSet::new();
            for name in &changes.reopened {
                if let Some(folder) = held.folders.remove(name) {
                    if folder.shared().is_paused() {
                        paused.insert(name.clone());
                    }
                    held.end(folder);
                }
            }
            if changes.limits {
                held.permits.set(config.limits.exchanges);
            }
            held.config = config;
            (changes, paused)
        };
        self.inner.take_over(&paused);
        Ok(changes)
    }

    /// Does it still do its work? Whoever supervises the process is told only as long as it does.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.inner.held().folders.values().all(|folder| !folder.is_over())
    }

    /// Ends it: what was begun finishes its step, states are closed. False if that took longer than `wait`.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "a deadline on the clock from which all else is counted")]
    pub fn stop(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let ticking = self.ticking.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.inner.ticker.end();
        if let Some(ticking) = ticking {
            // A panic there is a defect that was told.
            let _ = ticking.join();
        }
        let (folders, listeners) = {
            let mut held = self.inner.held();
            let mut folders = std::mem::take(&mut held.ending);
            folders.extend(std::mem::take(&mut held.folders).into_values());
            (folders, std::mem::take(&mut held.listeners))
        };
        listeners.values().for_each(|(listener, _)| listener.stop());
        folders.iter().for_each(Folder::stop);
        self.inner.mesh.stop();
        // Threads of others have no deadline to be joined with.
        let mesh = &self.inner.mesh;
        while !(folders.iter().all(Folder::is_over) && mesh.is_over() && mesh.has_no_visitors()) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(GLANCE);
        }
        for (listener, thread) in listeners.into_values() {
            listener.close();
            // A panic there is a defect that was told.
            let _ = thread.join();
        }
        true
    }

    /// Where its key and its known peers are.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.inner.home
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes folders, listeners and connections what the configuration says. Of folders that are opened anew, these were paused, and stay so.
    fn take_over(&self, paused: &BTreeSet<Name>) {
        let mut held = self.held();
        let held = &mut *held;
        if held.learnt.prune(&held.config) {
            self.keep_learnt(held);
        }
        self.introduce(held);
        self.mesh.limit(held.config.limits.bandwidth);
        let gone: Vec<Name> = held.folders.keys().filter(|name| !held.config.folders.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(folder) = held.folders.remove(&name) {
                held.end(folder);
            }
        }
        held.ending.retain(|folder| !folder.is_over());
        for (name, config) in &held.whole.folders {
            match held.folders.get(name) {
                Some(folder) => {
                    folder.shared().desk.configure(held.whole.archives.get(name).cloned());
                    folder.shared().configure(config.clone());
                    folder.shared().keep_free(held.whole.limits.reserve);
                    folder.shared().limit_watches(held.watches_each());
                }
                None => {
                    let setting = self.setting((name, config), held, paused.contains(name));
                    let same = |before: &mut Folder| before.shared().name == *name || before.shared().path() == config.path;
                    let before = held.ending.extract_if(.., same).collect();
                    let folder = Folder::start(name.clone(), config.clone(), setting, before);
                    held.folders.insert(name.clone(), folder);
                }
            }
        }
        self.listen(held);
        self.connect(held);
    }

    /// Goes over to the peers and folders as they are now.
    fn connect(&self, held: &Held) {
        let peers = held.whole.peers.iter();
        let peers = peers.map(|(name, peer)| {
            let learnt = held.introducers.keys().any(|(_, id)| *id == peer.id);
            (name.clone(), Peer { id: peer.id, addresses: peer.addresses.clone(), learnt })
        });
        let folders = held.folders.iter().map(|(name, folder)| (name.clone(), Arc::clone(folder.shared())));
        self.mesh.configure(Directory::new(peers.collect(), folders.collect()));
    }

    fn setting(&self, (name, config): (&Name, &FolderConfig), held: &Held, paused: bool) -> Setting {
        let (roots, path) = (Arc::clone(&self.roots), config.path.clone());
        let log = Arc::clone(&self.log);
        let known = Box::new(move |opened: bool| {
            if opened && let Err(error) = roots.remember(&path) {
                log(Level::Warning, &format!("it is not remembered that {} was open: {error}", path.display()));
            }
            roots.knows(&path)
        });
        Setting {
            own: self.id,
            begun: self.begun,
            log: Arc::clone(&self.log),
            permits: Arc::clone(&held.permits),
            watches: held.watches_each(),
            reserve: held.whole.limits.reserve,
            archive: (held.whole.archives.get(name).cloned(), self.clock),
            paused,
            known,
        }
    }

    fn listen(&self, held: &mut Held) {
        let wanted = &held.config.listen;
        let gone: Vec<SocketAddr> = held.listeners.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            if let Some((listener, thread)) = held.listeners.remove(&address) {
                listener.close();
                // A panic there is a defect that was told.
                let _ = thread.join();
            }
        }
        for address in wanted.clone() {
            held.listeners.entry(address).or_insert_with(|| self.mesh.listen(address));
        }
    }

    fn folder_status(&self, held: &Held, name: &Name, config: &FolderConfig) -> FolderStatus {
        let shared = held.folders.get(name).map(Folder::shared);
        let peers = config.peers.iter().filter_map(|(peer, mode)| {
            let id = held.whole.peers.get(peer)?.id;
            let facts = shared.map(|shared| shared.peer(id))?;
            Some(PeerStatus {
                name: peer.clone(),
                id,
                mode: *mode,
                link: facts.link.unwrap_or_else(|| self.mesh.apart(name, peer)),
                quality: facts.quality,
                lacking_here: facts.lacking_here,
                lacking_there: facts.lacking_there,
                last_sync: facts.last_sync,
                clock_offset_ms: facts.clock_offset_ms,
                transfers: facts.transfers,
                introduced_by: held.introducers.get(&(name.clone(), id)).into_iter().flatten().cloned().collect(),
            })
        });
        let mut status = FolderStatus {
            name: name.clone(),
            place: PathText::new(config.path.as_os_str().as_bytes()),
            state: shared.map_or(FolderState::Starting, |shared| shared.state()),
            paths: None,
            bytes: None,
            watches: Watches::default(),
            conflicts: None,
            in_conflict: Vec::new(),
            problems: Problems::default(),
            recent: Vec::new(),
            brought: BroughtStatus::default(),
            kept: None,
            last_change: None,
            archive: None,
            peers: peers.collect(),
        };
        if let Some(shared) = shared {
            shared.fill(&mut status);
        }
        status
    }
}

impl Ticker {
    fn end(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits; true once it is over.
    fn wait(&self, wait: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_timeout_while(over, wait, |over| !*over).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What is done now and then, in a thread of its own.
fn tick(inner: &Arc<Inner>) -> JoinHandle<()> {
    let inner = Arc::clone(inner);
    thread::spawn(move || {
        let (mut measured, mut told) = (inner.begun.elapsed(), inner.begun.elapsed());
        while !inner.ticker.wait(BEAT) {
            inner.give_up_silent();
            let now = inner.begun.elapsed();
            if now.saturating_sub(told) < gossip::EVERY {
                continue;
            }
            told = now;
            let measure = now.saturating_sub(measured) >= SAMPLE;
            if measure {
                measured = now;
            }
            inner.tick(measure);
        }
    })
}

impl Held {
    /// Asks a folder to end; whoever has its root next waits for it.
    fn end(&mut self, folder: Folder) {
        folder.stop();
        self.ending.push(folder);
    }

    /// Of the watches of all folders, the share of one.
    fn watches_each(&self) -> Option<u64> {
        let folders = self.config.folders.len().max(1) as u64;
        self.config.limits.watches.map(|watches| watches / folders)
    }

    /// The folder of that name, or all.
    fn named(&self, folder: Option<&Name>) -> Result<Vec<(&Name, &Folder)>, ControlError> {
        match folder {
            None => Ok(self.folders.iter().collect()),
            Some(name) => match self.folders.get_key_value(name) {
                Some(found) => Ok(vec![found]),
                None => {
                    let known: Vec<&str> = self.folders.keys().map(Name::as_str).collect();
                    let known =
                        if known.is_empty() { "there are none".to_owned() } else { format!("there are: {}", known.join(", ")) };
                    Err(ControlError::new(Refused::NoSuchFolder, format!("no folder is named {name}; {known}")))
                }
            },
        }
    }
}
