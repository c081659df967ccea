//! Fetches what is judged: files of the home folder, roots, the agent, peers, what the system grants. Nothing is changed, and nothing
//! is waited for without end: a disk, a server or a peer that does not answer is a finding.
#![allow(clippy::disallowed_methods, reason = "the home folder and the system's own files are no roots")]

use super::dial::{self, Target};
use super::machine::{self, Access, AgentFound, Configured, OWN, PRIVATE};
use super::probe::Probing;
use super::{Finding, MACHINE, links, mounts, root};
use crate::config::{CONFIG_FILE, Config, load_with};
use crate::control::{Client, SOCKET_FILE, SocketError};
use crate::roots::Roots;
use crate::status::{FolderState, FolderStatus, Status};
use crate::works::now_ns;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use sync_core::io::home::Home;
use sync_core::io::link::{Identity, Network};
use sync_core::io::state::State;
use sync_core::io::sync::{Checkup, Looked, check_up};
use sync_core::io::watch::granted;
use sync_core::peer::{Address, Book, Id};
use sync_core::reserve::Reserve;

/// How long roots and peers may take to answer, all at the same time.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the service manager may take to say whether the clock is set by NTP.
const ASK_CLOCK: Duration = Duration::from_secs(3);
/// What is looked at and called at a time.
const AT_ONCE: usize = 32;
/// Bytes of an answer, and of a number in /proc.
const SHORT: u64 = 4_096;
/// Bytes of the table of mounts.
const MOUNTS_BYTES: u64 = 4 << 20;
/// Where units of systemd lie.
const UNITS: [&str; 4] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What is to be looked at.
#[derive(Debug)]
pub struct Terms {
    /// The home folder, whether it is there or not.
    pub home: PathBuf,
    /// The configuration, or why there is none.
    pub config: Result<PathBuf, String>,
    /// Roots beside those of the configuration.
    pub roots: Vec<PathBuf>,
    /// Where the states of those are.
    pub state_dir: Option<PathBuf>,
}

/// Looks at everything. What is wrong is a finding, and never an error.
#[must_use]
pub fn examine(terms: &Terms) -> Vec<Finding> {
    let mut agent = ask_agent(&terms.home);
    // Each peer is called while the rest is looked at.
    let probing = matches!(agent, AgentFound::Answers(_)).then(|| Probing::begin(&terms.home));
    let home = at_home(terms);
    let config = match &home.configured {
        Configured::Valid(_, config) => Some(config.as_ref()),
        _ => None,
    };
    let status = match &agent {
        AgentFound::Answers(status) => Some(status.as_ref()),
        _ => None,
    };
    let roots = roots(terms, config, status);
    let checkups = at_once(roots.iter().map(Wanted::job).collect());
    let (targets, silent) = match status {
        Some(_) => (Vec::new(), Vec::new()),
        None => targets(config, home.book.as_ref()),
    };
    let calls = calls(home.identity, &targets);
    let clock = synchronised();

    let deaf = deaf(config, status);
    let networked = !targets.is_empty()
        || config.is_some_and(|config| !config.listen.is_empty())
        || !silent.is_empty()
        || status.is_some_and(|status| !status.listen.is_empty());

    let table = read(Path::new("/proc/self/mountinfo"), MOUNTS_BYTES).unwrap_or_default();
    let reserve = config.map_or(Reserve::STANDARD, |config| config.limits.reserve);
    let roots = facts(roots, checkups.collect(), &table, reserve);
    let needed = roots.iter().filter(|(configured, _)| *configured).filter_map(|(_, root)| root.directories()).sum();
    let unprobed = match (&mut agent, probing) {
        (AgentFound::Answers(status), Some(probing)) => probing.finish(status),
        _ => None,
    };
    let machine = machine::Facts {
        home: terms.home.clone(),
        user: rustix::process::geteuid().as_raw(),
        access: home.access,
        key: home.key,
        peers: home.peers,
        networked,
        deaf,
        configured: home.configured,
        agent,
        buffers: ["rmem_max", "wmem_max"].map(|name| number(&Path::new("/proc/sys/net/core").join(name))),
        watches: (needed, granted()),
        clock: (now_ns().0 / 1_000_000_000, env!("DRIFTLESS_BUILT").parse().unwrap_or(0)),
        synchronised: clock,
        sqlite: State::library(),
        unit: unit(),
    };
    let mut found = machine::findings(&machine);
    found.extend(roots.iter().flat_map(|(_, facts)| root::findings(facts, PATIENCE)));
    match (&machine.agent, &machine.configured) {
        (AgentFound::Answers(status), _) => found.extend(links::findings(status, now_ns())),
        (_, Configured::Valid(_, config)) => {
            let alone = config.folders.iter().filter(|(_, folder)| folder.peers.is_empty());
            found.extend(alone.map(|(name, _)| links::alone(name)));
        }
        _ => {}
    }
    found.extend(unprobed);
    found.extend(match calls {
        Some(calls) => dial::findings(&calls, &silent),
        None => {
            let advice = "driftless id makes a key where there is none; one that is refused has to be mended";
            vec![Finding::warning("call", MACHINE, "no peer was called: this machine has no key that can be used", advice)]
        }
    });
    found
}

fn ask_agent(home: &Path) -> AgentFound {
    match Client::new(home).status() {
        Ok(Ok(status)) => AgentFound::Answers(Box::new(status)),
        Ok(Err(refused)) => AgentFound::Trouble(refused.to_string()),
        Err(SocketError::NoAgent(_)) => AgentFound::Nobody,
        Err(error) => AgentFound::Trouble(error.to_string()),
    }
}

/// What was found in the home folder.
struct AtHome {
    access: Vec<Access>,
    identity: Option<Identity>,
    key: Option<Result<Id, String>>,
    book: Option<Book>,
    peers: Option<Result<usize, String>>,
    configured: Configured,
}

fn at_home(terms: &Terms) -> AtHome {
    let folder = &terms.home;
    let files = [
        (folder.clone(), "the home folder", OWN, PRIVATE, 0o700),
        (folder.join("identity.key"), "the key", PRIVATE, PRIVATE, 0o600),
        (folder.join("peers.toml"), "the file of known peers", OWN, OWN, 0o600),
        (folder.join(CONFIG_FILE), "the configuration", OWN, OWN, 0o600),
        (folder.join(SOCKET_FILE), "the control socket", PRIVATE, PRIVATE, 0o600),
    ];
    let access: Vec<Access> = files
        .into_iter()
        .filter_map(|(path, what, forbidden, unwanted, proper)| {
            let found = path.metadata().ok()?;
            Some(Access { path, what, mode: found.mode(), owner: found.uid(), forbidden, unwanted, proper })
        })
        .collect();
    let there = |name: &str| access.iter().any(|access| access.path == folder.join(name));
    let mut home = AtHome {
        identity: None,
        key: None,
        book: Some(Book::default()),
        peers: None,
        configured: Configured::Nowhere(String::new()),
        access: Vec::new(),
    };
    let opened = match access.is_empty() {
        true => None,
        false => Some(Home::open(folder)),
    };
    match opened {
        // Nothing is made: a machine on which nothing was set up stays as it is.
        None => {}
        Some(Err(error)) => {
            home.configured = Configured::Unread(error.to_string());
            home.book = None;
        }
        Some(Ok(opened)) => {
            if there("identity.key") {
                let read = Identity::open(&opened);
                home.key = Some(read.as_ref().map(Identity::id).map_err(ToString::to_string));
                home.identity = read.ok();
            }
            if there("peers.toml") {
                let read = opened.book();
                home.peers = Some(read.as_ref().map(|book| book.peers().len()).map_err(ToString::to_string));
                home.book = read.ok();
            }
        }
    }
    home.access = access;
    home.configured = configured(terms, home.book.as_ref(), home.configured);
    home
}

fn configured(terms: &Terms, book: Option<&Book>, before: Configured) -> Configured {
    if let Configured::Unread(_) = before {
        return before;
    }
    match (&terms.config, book) {
        (Err(why), _) => Configured::Nowhere(why.clone()),
        (Ok(_), None) => Configured::Unread("the known peers, which it may name, cannot be read".into()),
        (Ok(path), Some(book)) => match load_with(path, book) {
            Ok(config) => Configured::Valid(path.clone(), Box::new(config)),
            Err(error) => Configured::Refused(error.to_string()),
        },
    }
}

/// One root that is to be looked at.
struct Wanted {
    subject: String,
    path: PathBuf,
    state_dir: Option<PathBuf>,
    looked: Looked,
    /// Is it one of the configuration?
    configured: bool,
    agent: Option<FolderStatus>,
}

impl Wanted {
    fn job(&self) -> Job<Result<Checkup, String>> {
        let (path, state_dir, looked) = (self.path.clone(), self.state_dir.clone(), self.looked);
        Box::new(move || check_up(&path, state_dir.as_deref(), looked).map_err(|error| error.to_string()))
    }
}

/// Folders of the configuration, those of the agent that it does not name (any more), and roots that were asked for.
fn roots(terms: &Terms, config: Option<&Config>, status: Option<&Status>) -> Vec<Wanted> {
    let known = Roots::open(&terms.home);
    let told = || status.into_iter().flat_map(|status| &status.folders);
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    let mut add = |subject: String, path: &Path, state_dir: Option<PathBuf>, configured: bool| {
        // Nothing is asked of the disk, which may not answer: looking has a deadline, and this has none.
        if !seen.insert(std::path::absolute(path).unwrap_or_else(|_| path.to_owned())) {
            return;
        }
        let agent = told().find(|folder| folder.place.bytes() == path.as_os_str().as_bytes()).cloned();
        let open = agent.as_ref().is_some_and(|folder| !matches!(folder.state, FolderState::Unavailable { .. }));
        let looked = match (open, known.knows(path)) {
            (true, _) => Looked::Busy,
            (false, true) => Looked::Used,
            (false, false) => Looked::Idle,
        };
        wanted.push(Wanted { subject, path: path.to_owned(), state_dir, looked, configured, agent });
    };
    for (name, folder) in config.into_iter().flat_map(|config| &config.folders) {
        add(format!("folder {name}"), &folder.path, folder.state_dir.clone(), true);
    }
    for folder in told() {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&folder.place.bytes()));
        add(format!("folder {}", folder.name), &path, None, true);
    }
    for path in &terms.roots {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let subject = format!("root {}", sync_core::path::escape(path.as_os_str().as_bytes()));
        add(subject, &path, terms.state_dir.clone(), false);
    }
    wanted
}

fn facts(
    wanted: Vec<Wanted>,
    found: Vec<Option<Result<Checkup, String>>>,
    table: &[u8],
    reserve: Reserve,
) -> Vec<(bool, root::Facts)> {
    let both = wanted.into_iter().zip(found);
    both.map(|(wanted, looked)| {
        let real = match &looked {
            Some(Ok(checkup)) => checkup.path.clone(),
            _ => wanted.path.clone(),
        };
        let facts = root::Facts {
            subject: wanted.subject,
            path: wanted.path,
            state_elsewhere: wanted.state_dir.is_some(),
            looked,
            mount: mounts::of(table, &real),
            agent: wanted.agent,
            reserve,
        };
        (wanted.configured, facts)
    })
    .collect()
}

/// Every address of every known peer; and peers without one.
fn targets(config: Option<&Config>, book: Option<&Book>) -> (Vec<Target>, Vec<String>) {
    let mut peers: BTreeMap<Id, (String, Vec<Address>)> = BTreeMap::new();
    for (name, peer) in config.into_iter().flat_map(|config| &config.peers) {
        peers.insert(peer.id, (name.to_string(), peer.addresses.clone()));
    }
    for (name, peer) in book.into_iter().flat_map(|book| book.peers()) {
        peers.entry(peer.id).or_insert_with(|| (name.to_string(), peer.addresses.clone()));
    }
    let (mut targets, mut silent) = (Vec::new(), Vec::new());
    for (id, (peer, addresses)) in peers {
        if addresses.is_empty() {
            silent.push(peer.clone());
        }
        targets.extend(addresses.into_iter().map(|address| Target { peer: peer.clone(), id, address }));
    }
    (targets, silent)
}

/// Calls all of them at once; `None` where there is no key to call with.
fn calls(identity: Option<Identity>, targets: &[Target]) -> Option<Vec<(Target, dial::Called)>> {
    if targets.is_empty() {
        return Some(Vec::new());
    }
    let network = match Network::new(identity?) {
        Ok(network) => network,
        Err(error) => {
            let failed = |target: &Target| (target.clone(), Some(Err(error.to_string())));
            return Some(targets.iter().map(failed).collect());
        }
    };
    let jobs: Vec<Job<Result<Duration, String>>> = targets
        .iter()
        .map(|target| -> Job<Result<Duration, String>> {
            let (network, target) = (network.clone(), target.clone());
            Box::new(move || dial::call(&network, &target))
        })
        .collect();
    Some(targets.iter().cloned().zip(at_once(jobs).collect()).collect())
}

/// Addresses of the configuration at which nobody listens.
fn deaf(config: Option<&Config>, status: Option<&Status>) -> Vec<(std::net::SocketAddr, String)> {
    let addresses = config.into_iter().flat_map(|config| &config.listen);
    let why = |address: &std::net::SocketAddr| match status {
        Some(status) => {
            let served =
                |at: &std::net::SocketAddr| at.ip() == address.ip() && (address.port() == 0 || at.port() == address.port());
            (!status.listen.iter().any(served)).then(|| "the agent does not listen there, as its notices say".to_owned())
        }
        None => UdpSocket::bind(address).err().map(|error| error.to_string()),
    };
    addresses.filter_map(|address| Some((*address, why(address)?))).collect()
}

/// Does the service manager say that the clock is set by NTP? `None`: it cannot be asked.
fn synchronised() -> Option<bool> {
    let args = ["show", "--property=NTPSynchronized", "--value"];
    let mut command = Command::new("timedatectl");
    let mut child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let out = child.stdout.take()?;
    let (tell, told) = sync_channel(1);
    thread::spawn(move || {
        let mut text = String::new();
        let read = out.take(SHORT).read_to_string(&mut text);
        // Whoever asked may have given up.
        let _ = tell.send(read.map(|_| text));
    });
    let answer = told.recv_timeout(ASK_CLOCK);
    // It has ended, or it hangs: either way it goes.
    let _ = child.kill();
    let _ = child.wait();
    match answer.ok()?.ok()?.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn unit() -> Option<PathBuf> {
    UNITS.iter().find_map(|folder| {
        let mut entries = std::fs::read_dir(folder).ok()?.flatten();
        entries.find_map(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            (name.starts_with("driftless") && name.ends_with(".service")).then(|| entry.path())
        })
    })
}

fn number(path: &Path) -> Option<u64> {
    String::from_utf8(read(path, SHORT)?).ok()?.trim().parse().ok()
}

fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// Jobs under way.
struct Under<T> {
    count: usize,
    deadline: Instant,
    told: Receiver<(usize, T)>,
}

/// Begins jobs on a few threads. Whoever hangs keeps its thread, and nobody waits for it.
fn at_once<T: Send + 'static>(jobs: Vec<Job<T>>) -> Under<T> {
    let count = jobs.len();
    let (tell, told) = sync_channel(count.max(1));
    let queue: VecDeque<_> = jobs.into_iter().enumerate().collect();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..count.min(AT_ONCE) {
        let (queue, tell) = (Arc::clone(&queue), tell.clone());
        thread::spawn(move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some((at, job)) = next() {
                if tell.send((at, job())).is_err() {
                    return;
                }
            }
        });
    }
    Under { count, deadline: Instant::now() + PATIENCE, told }
}

impl<T> Under<T> {
    /// What came of each; `None` for those that are not over by the deadline.
    fn collect(self) -> Vec<Option<T>> {
        let mut results: Vec<Option<T>> = (0..self.count).map(|_| None).collect();
        for _ in 0..self.count {
            let left = self.deadline.saturating_duration_since(Instant::now());
            // All threads are gone only if all of them panicked: a defect, and told as no answer.
            let Ok((at, result)) = self.told.recv_timeout(left) else { break };
            results[at] = Some(result);
        }
        results
    }
}
