//! One folder: its root stays open, is watched, looked at, and pulled into. One thread does all work on it (`jobs`), in the order
//! that `scheduler` says; another listens for changes (`watching`), one reads what takes long and has to be read before a pull can decide
//! (`reading`), and one moves its old days to a cold root (`archiving`).

mod archiving;
mod by_hand;
mod days;
mod jobs;
mod listeners;
mod noticed;
mod peers;
mod reading;
mod repairing;
mod scrubbing;
mod shown;
mod unseen;
mod watching;

use crate::archive::run::Clock;
use crate::config;
use crate::gossip::{Table, Told};
use crate::log::{Level, Log};
use crate::permits::{Permits, Who};
use crate::quality::{Pulse, Quality};
use crate::scheduler::{Job, Moment, Next, Scheduler};
use crate::status::{self, Behind};
use crate::works::{Watchful, random_share};
use archiving::Desk;
use noticed::Noticed;
use shown::{Facts, Source, from_peer};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use sync_core::io::sync::{Live, Member, Options, SyncError, is_root_lost};
use sync_core::peer::{Id, Mode, Name};
use sync_core::reserve::Reserve;

/// How long a root that cannot be used is left alone before it is tried again.
const REOPEN: Duration = Duration::from_secs(5);
/// How often it is looked whether whoever waits to do something by hand has had its turn.
const GLANCE: Duration = Duration::from_millis(5);
/// A connection that was there for so long was no mistake: whoever calls again after that has lost it.
pub(crate) const LASTING: Duration = Duration::from_secs(10);
/// Longest wait for anything: the wish to end comes by a signal of its own.
const LONG: Duration = Duration::from_secs(3600);

/// A folder, and its threads.
pub(crate) struct Folder {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a folder, and those of its connections, have in common.
pub(crate) struct Shared {
    pub(crate) name: Name,
    own: Id,
    path: PathBuf,
    begun: Instant,
    log: Log,
    permits: Arc<Permits>,
    config: Mutex<config::Folder>,
    /// As many watches as the folder may have.
    watches: Mutex<Option<u64>>,
    /// What stays free where content comes to.
    reserve: Mutex<Reserve>,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    stop: AtomicBool,
    numbers: AtomicU64,
    /// Who waits to do something in the root by hand.
    waiting: AtomicUsize,
    known: Box<dyn Fn(bool) -> bool + Send + Sync>,
    /// What is known of all members.
    gossip: Mutex<Table>,
    /// How its old days are archived.
    pub(crate) desk: Desk,
}

/// What waits to be done, and what is known of the folder.
struct Inbox {
    live: Option<Arc<Live>>,
    scheduler: Scheduler<Id>,
    /// Paths that were noticed, and are quiet.
    noticed: Noticed,
    members: BTreeMap<Id, Joined>,
    /// Peers that called, and whose connection was gone again at once: that there is another is told once it lasts.
    fleeting: BTreeSet<Id>,
    /// What the peers are called here, and as what they may take part.
    allowed: BTreeMap<Id, (Name, Mode)>,
    /// The root is to be opened anew.
    reopen: bool,
    /// Somebody said that it begins anew then, and hears what came of it.
    rejoin: Option<SyncSender<Result<(), String>>>,
    /// There was leave for a pull, which may be kept for it.
    called: bool,
    /// Peers whose pulls left files to be read first, and when they are read.
    unread: BTreeMap<Id, Moment>,
    /// What is under way.
    running: Option<Job<Id>>,
    /// Who listens for changes at present.
    watch: Option<Arc<watching::End>>,
    facts: Facts,
}

/// A connected peer.
struct Joined {
    number: u64,
    member: Arc<Member>,
    called: bool,
    since: status::Moment,
    /// When it joined.
    at: Moment,
    /// That it did is told once the connection lasts.
    untold: bool,
    quality: Quality,
    /// Since the job under way began, if it is its.
    pulse: Pulse,
    /// Its sequence number up to which all of it is here.
    incorporated: u64,
    lacking: Option<Behind>,
    /// How often in a row nothing came of reading files for pulls from it; one where something did.
    reads: u32,
    /// How long the last such reading took.
    in_vain: Duration,
    /// The first path that the pull under way is to bring.
    awaited: Option<status::PathText>,
    last_sync: Option<status::Moment>,
    /// Large files that are on their way from it.
    transfers: Vec<status::Transfer>,
    /// Which accounts of members it was told.
    told: Told,
}

/// Why a job is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halt {
    /// A user waits to do something by hand.
    ForUser,
    /// Its time is over, or nobody wants it any more.
    Over,
}

/// Who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called {
    ByUs,
    ByThem,
}

/// What a folder needs besides its configuration.
pub(crate) struct Setting {
    pub(crate) own: Id,
    pub(crate) begun: Instant,
    pub(crate) log: Log,
    pub(crate) permits: Arc<Permits>,
    pub(crate) watches: Option<u64>,
    pub(crate) reserve: Reserve,
    /// How its old days are archived, and by which clock.
    pub(crate) archive: (Option<config::Archive>, Clock),
    /// Does it begin by doing nothing?
    pub(crate) paused: bool,
    /// Was the root open before? With `true` it is remembered that it was.
    pub(crate) known: Box<dyn Fn(bool) -> bool + Send + Sync>,
}

impl Folder {
    /// Starts its threads. They wait for those of `before`, which have the same root or name, and were asked to end.
    pub(crate) fn start(name: Name, config: config::Folder, setting: Setting, before: Vec<Folder>) -> Folder {
        let Setting { own, begun, log, permits, watches, reserve, archive: (rule, clock), paused, known } = setting;
        let mut scheduler = Scheduler::new(begun.elapsed(), config.schedule);
        scheduler.pause(paused);
        let inbox = Inbox {
            live: None,
            scheduler,
            noticed: Noticed::default(),
            members: BTreeMap::new(),
            fleeting: BTreeSet::new(),
            allowed: BTreeMap::new(),
            reopen: false,
            rejoin: None,
            called: false,
            unread: BTreeMap::new(),
            running: None,
            watch: None,
            facts: Facts::default(),
        };
        let shared = Arc::new(Shared {
            name,
            own,
            path: config.path.clone(),
            begun,
            log,
            permits,
            config: Mutex::new(config),
            watches: Mutex::new(watches),
            reserve: Mutex::new(reserve),
            inbox: Mutex::new(inbox),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            known,
            gossip: Mutex::new(Table::new(own)),
            desk: Desk::new(rule, clock),
        });
        let worker = Arc::clone(&shared);
        let threads = vec![thread::spawn(move || {
            // Two that have one root at a time would be refused it; whoever waits for these threads waits for those too.
            before.into_iter().for_each(Folder::join);
            worker.work();
        })];
        Folder { shared, threads }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks it to end. What has begun finishes its step.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // Whoever looked at it a moment before waits by now, and hears of it.
        drop(self.shared.inbox());
        self.shared.wake.notify_all();
    }

    /// Waits until it has ended.
    fn join(self) {
        for thread in self.threads {
            // A panic there is a defect that was told.
            let _ = thread.join();
        }
    }

    /// Has it ended?
    pub(crate) fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Inbox {
    /// Something more, or less, waits to be looked at.
    fn looks(&mut self, now: Moment) {
        let at = self.noticed.ready(now);
        self.scheduler.ready_at(at);
    }

    /// What a peer is called here; its id if it is called nothing any more.
    fn name_of(&self, peer: Id) -> String {
        self.allowed.get(&peer).map_or_else(|| peer.to_string(), |(name, _)| name.to_string())
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Every change of it is whole before anything can panic.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of all members. Never locked while something else of the folder is asked for.
    pub(crate) fn gossip(&self) -> MutexGuard<'_, Table> {
        self.gossip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> config::Folder {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn now(&self) -> Moment {
        self.begun.elapsed()
    }

    /// Where its root is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Is it to end?
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The root, while it is open.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.inbox().live.clone()
    }

    /// May a peer take part, and as what?
    pub(crate) fn mode(&self, peer: &Name) -> Option<Mode> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).peers.get(peer).copied()
    }

    /// May its members get to know each other by this machine?
    pub(crate) fn introduces(&self) -> bool {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).introduce
    }

    /// Takes over what does not need the root to be opened anew.
    pub(crate) fn configure(&self, config: config::Folder) {
        let now = self.now();
        let mut inbox = self.inbox();
        inbox.scheduler.set_every(config.schedule, now);
        let mut known = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        // Who takes part, who introduces whom, and how often everything is looked at, is no matter of the root.
        let root = |config: &config::Folder| config::Folder {
            peers: BTreeMap::new(),
            schedule: Duration::ZERO,
            introduce: false,
            ..config.clone()
        };
        inbox.reopen |= root(&known) != root(&config);
        *known = config;
        drop(known);
        drop(inbox);
        self.wake.notify_all();
    }

    /// From now on so much stays free.
    pub(crate) fn keep_free(&self, reserve: Reserve) {
        let mut inbox = self.inbox();
        let before = std::mem::replace(&mut *self.reserve.lock().unwrap_or_else(PoisonError::into_inner), reserve);
        inbox.reopen |= before != reserve;
        drop(inbox);
        self.wake.notify_all();
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.inbox().scheduler.pause(paused);
        self.wake.notify_all();
        self.desk.wake();
        if paused {
            self.desk.give_up_lender();
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.inbox().scheduler.is_paused()
    }

    /// Looks at everything, and asks everybody, now.
    pub(crate) fn sync(&self) {
        let now = self.now();
        let mut inbox = self.inbox();
        inbox.scheduler.look_at_all(now);
        let peers: Vec<Id> = inbox.members.keys().copied().collect();
        peers.into_iter().for_each(|peer| inbox.scheduler.ask_again(peer, now));
        drop(inbox);
        self.wake.notify_all();
    }

    /// Should a job stop that holds others up since that moment, and why?
    pub(crate) fn is_to_stop(&self, job: Job<Id>, since: Option<Moment>) -> Option<Halt> {
        if self.is_stopping() {
            return Some(Halt::Over);
        }
        let now = self.now();
        // Whoever brings content has leave for it, and other folders may wait for that.
        let brings = matches!(job, Job::Pull(_)) && since.is_some();
        if brings && self.waiting.load(Ordering::Acquire) > 0 {
            // Somebody sits and waits: what it has brought stays, and it goes on afterwards.
            return Some(Halt::ForUser);
        }
        let waited_for = brings && self.permits.are_waited_for();
        let inbox = self.inbox();
        let scheduler = &inbox.scheduler;
        let held_up = since.is_some_and(|since| {
            now.saturating_sub(since) > scheduler.slice(job) && (waited_for || scheduler.others_wait(job, now))
        });
        let gone = matches!(job, Job::Pull(peer) if !inbox.members.contains_key(&peer));
        let over = inbox.reopen || scheduler.is_paused() || gone || (matches!(job, Job::Pull(_)) && held_up);
        over.then_some(Halt::Over)
    }

    /// Until the folder is to end: opens the root, works on it, and opens it again when it has become another.
    fn work(self: Arc<Self>) {
        while !self.is_stopping() {
            let opened = unbroken(|| self.open().map(Arc::new).map_err(|error| error.to_string()));
            let worked = opened.and_then(|live| self.work_on(&live));
            // Whoever waits for somebody else to let go of the root, or is at some step of opening it, gives up for that.
            if let Err(why) = worked
                && !self.is_stopping()
            {
                self.say(Source::Root, Level::Error, &why);
                self.inbox().facts.unavailable = Some(why);
                self.rest(REOPEN);
            }
        }
    }

    fn rest(&self, wait: Duration) {
        let inbox = self.inbox();
        let quiet = |inbox: &mut Inbox| !self.is_stopping() && !inbox.reopen;
        let (mut inbox, _) = self.wake.wait_timeout_while(inbox, wait, quiet).unwrap_or_else(PoisonError::into_inner);
        inbox.reopen = false;
    }

    /// Opens the root. Whoever looks at something in it from before, or is about to end, is waited for until the lock of its state is
    /// gone, and not only until nobody needs it any more: a state that is being closed is held by this process itself.
    fn open(&self) -> Result<Live, SyncError> {
        // What a reload changes from here on has it opened anew once more.
        self.inbox().reopen = false;
        let config = self.config();
        let rejoin = self.inbox().rejoin.take();
        let options = Options {
            rejoin: rejoin.is_some(),
            conflicts: config.conflicts,
            ignore: config.ignore,
            max_delete: Some(config.max_delete),
            keep_versions: config.keep_versions,
            reserve: *self.reserve.lock().unwrap_or_else(PoisonError::into_inner),
            state_dir: config.state_dir,
            ..Options::standard()
        };
        let monitor = Watchful::of_root(self);
        let opened = Live::open(self.name.clone(), &self.path, options, (self.known)(false), &monitor);
        if let Some(rejoin) = rejoin {
            // Whoever asked may have gone.
            let _ = rejoin.try_send(opened.as_ref().map(drop).map_err(ToString::to_string));
        }
        if opened.is_ok() {
            (self.known)(true);
        }
        opened
    }

    /// Until the root is to be closed. `Err`: its work broke off.
    fn work_on(self: &Arc<Self>, live: &Arc<Live>) -> Result<(), String> {
        {
            let mut inbox = self.inbox();
            inbox.live = Some(Arc::clone(live));
            inbox.facts.unavailable = None;
            inbox.facts.problems.remove(&Source::Root);
            inbox.facts.said.remove(&Source::Root);
            let now = self.now();
            inbox.scheduler.opened(now);
        }
        let mut watching = self.watch(live);
        let archiving = self.archive(live);
        let reading = self.read_beside(live);
        let worked = unbroken(|| {
            while let Some(job) = self.next_job() {
                let how = self.carry_out(live, job, &mut watching);
                let (now, jitter) = (self.now(), random_share());
                let mut inbox = self.inbox();
                inbox.running = None;
                inbox.scheduler.ended(job, how, now, jitter);
            }
            Ok(())
        });
        self.permits.leave(self.who());
        self.watch_no_more(watching);
        self.read_no_more(reading);
        self.archive_no_more(archiving);
        let (members, live) = {
            let mut inbox = self.inbox();
            inbox.running = None;
            inbox.unread.clear();
            inbox.noticed.clear();
            inbox.scheduler.ready_at(None);
            // With a root that is opened anew, all of that is found out anew.
            inbox.facts.problems.retain(|source, _| !matches!(source, Source::Pull(_) | Source::Read(_)));
            inbox.facts.said.retain(|source, _| !matches!(source, Source::Pull(_) | Source::Read(_)));
            inbox.facts.stopped.clear();
            (std::mem::take(&mut inbox.members), inbox.live.take())
        };
        for peer in members.keys() {
            self.inbox().scheduler.left(*peer);
            self.gossip().left(*peer);
        }
        members.values().for_each(|joined| joined.member.leave());
        drop((members, live));
        worked
    }

    /// By what it is told from other folders that wait for leave.
    fn who(&self) -> Who {
        std::ptr::from_ref(self) as Who
    }

    /// The next job; `None` once the root is to be closed.
    fn next_job(&self) -> Option<Job<Id>> {
        loop {
            let job = self.next_or_called()?;
            match job {
                Some(Job::Pull(_)) => {}
                // Leave that is kept for this folder is for others first, or altogether.
                Some(_) => self.permits.later(self.who()),
                None if self.permits.is_kept_for(self.who()) => self.permits.leave(self.who()),
                None => {}
            }
            if job.is_some() {
                return job;
            }
        }
    }

    /// The next job; none if there was leave for a pull, and there is nothing to pull. `None` once the root is to
    /// be closed.
    fn next_or_called(&self) -> Option<Option<Job<Id>>> {
        let mut inbox = self.inbox();
        loop {
            if self.is_stopping() || inbox.reopen {
                inbox.reopen = false;
                return None;
            }
            if self.waiting.load(Ordering::Acquire) > 0 {
                // It would be in the way again. Whoever waits has its turn as soon as what is under way has ended, and wakes this.
                inbox = self.wake.wait_timeout(inbox, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let now = self.now();
            let wait = match inbox.scheduler.next(now) {
                Next::Now(job) => {
                    inbox.scheduler.begin(job);
                    inbox.running = Some(job);
                    if let Job::Pull(peer) = job
                        && let Some(joined) = inbox.members.get_mut(&peer)
                    {
                        joined.pulse = Pulse::default();
                    }
                    // A pull may turn out to need no leave: what is kept for it is given back after it, if there is no other.
                    inbox.called &= matches!(job, Job::Pull(_));
                    return Some(Some(job));
                }
                _ if std::mem::take(&mut inbox.called) => return Some(None),
                Next::At(at) => at.saturating_sub(now),
                Next::Never => LONG,
            };
            inbox = self.wake.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Something failed as a whole: it is told once, until it is another thing that fails.
    fn failed(&self, source: Source, error: &SyncError) {
        if is_root_lost(error) {
            self.inbox().reopen = true;
        }
        let level = if error.is_elsewhere() { Level::Warning } else { Level::Error };
        let text = match source {
            Source::Pull(peer) => {
                let name = self.inbox().name_of(peer);
                from_peer(error, &self.name, &name)
            }
            _ => error.to_string(),
        };
        self.say(source, level, &text);
    }

    /// One line, unless it was the last one of this source too.
    fn say(&self, source: Source, level: Level, text: &str) {
        let new = self.inbox().facts.said.insert(source, text.to_owned()).as_deref() != Some(text);
        if new {
            self.log(level, text);
        }
    }

    pub(crate) fn log(&self, level: Level, text: &str) {
        (self.log)(level, &format!("{}: {text}", self.name));
    }
}

/// Does this, and tells a panic as what went wrong: a defect that one file brings to light must not end the folder for good. The root
/// and its state are then as after a crash, and recovered when it is opened anew.
fn unbroken<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "it does not say why".to_owned());
        Err(format!("a defect of driftless ended its work: {text}; it is opened anew every {} seconds", REOPEN.as_secs()))
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_archiving;
