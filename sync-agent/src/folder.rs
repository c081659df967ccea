//! One folder: its root stays open, is watched, looked at, and pulled into. One thread does all work on it (`jobs`), in the order
//! that `scheduler` says; another listens for changes (`watching`), and one moves its old days to a cold root (`archiving`).

mod archiving;
mod days;
mod jobs;
mod listeners;
mod noticed;
mod scrubbing;
mod shown;
mod unseen;
mod watching;

use crate::archive::run::Clock;
use crate::config;
use crate::gossip::{Table, Told};
use crate::log::{Level, Log};
use crate::permits::{Permits, Who};
use crate::quality::{Counters, Pulse, Quality};
use crate::scheduler::{Job, Moment, Next, Scheduler};
use crate::status::{self, Behind};
use crate::works::{Watchful, now_ns, random_share};
use archiving::Desk;
use noticed::Noticed;
use shown::{Facts, Source, from_peer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use sync_core::io::sync::{Account, Caller, Ear, Heard, Live, Member, Options, Reaches, SyncError, Tie, Way, is_root_lost};
use sync_core::peer::{Id, Mode, Name};

/// How long a root that cannot be used is left alone before it is tried again.
const REOPEN: Duration = Duration::from_secs(5);
/// How often it is looked whether nobody has a root any more.
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
    inbox: Mutex<Inbox>,
    wake: Condvar,
    stop: AtomicBool,
    numbers: AtomicU64,
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
    /// What the peers are called here, and as what they may take part.
    allowed: BTreeMap<Id, (Name, Mode)>,
    /// The root is to be opened anew.
    reopen: bool,
    /// There was leave for a pull, which may be kept for it.
    called: bool,
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
    quality: Quality,
    /// Since the job under way began, if it is its.
    pulse: Pulse,
    /// Its sequence number up to which all of it is here.
    incorporated: u64,
    lacking: Option<Behind>,
    /// The first path that the pull under way is to bring.
    awaited: Option<status::PathText>,
    last_sync: Option<status::Moment>,
    /// Large files that are on their way from it.
    transfers: Vec<status::Transfer>,
    /// Which accounts of members it was told.
    told: Told,
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
        let Setting { own, begun, log, permits, watches, archive: (rule, clock), paused, known } = setting;
        let mut scheduler = Scheduler::new(begun.elapsed(), config.schedule);
        scheduler.pause(paused);
        let inbox = Inbox {
            live: None,
            scheduler,
            noticed: Noticed::default(),
            members: BTreeMap::new(),
            allowed: BTreeMap::new(),
            reopen: false,
            called: false,
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
            inbox: Mutex::new(inbox),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
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

    pub(crate) fn pause(&self, paused: bool) {
        self.inbox().scheduler.pause(paused);
        self.wake.notify_all();
        self.desk.wake();
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

    /// Should a job stop that holds others up since that moment?
    pub(crate) fn is_to_stop(&self, job: Job<Id>, since: Option<Moment>) -> bool {
        if self.is_stopping() {
            return true;
        }
        let now = self.now();
        // Whoever brings content has leave for it, and other folders may wait for that.
        let waited_for = matches!(job, Job::Pull(_)) && since.is_some() && self.permits.are_waited_for();
        let inbox = self.inbox();
        let scheduler = &inbox.scheduler;
        let held_up = since.is_some_and(|since| {
            now.saturating_sub(since) > scheduler.slice(job) && (waited_for || scheduler.others_wait(job, now))
        });
        let gone = matches!(job, Job::Pull(peer) if !inbox.members.contains_key(&peer));
        inbox.reopen || scheduler.is_paused() || gone || (matches!(job, Job::Pull(_)) && held_up)
    }

    /// Is a peer connected?
    pub(crate) fn has(&self, peer: Id) -> bool {
        self.inbox().members.get(&peer).is_some_and(|joined| !joined.member.is_over())
    }

    /// What is to hear of a connection, and the number by which it is told from others of the same peer.
    pub(crate) fn ear(self: &Arc<Self>, peer: Id) -> (u64, Ear) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::downgrade(self);
        let ear: Ear = Arc::new(move |heard| {
            let Some(shared) = shared.upgrade() else { return };
            match heard {
                Heard::News => {
                    let now = shared.now();
                    shared.inbox().scheduler.heard(peer, now);
                }
                Heard::Gossip(accounts) => {
                    let now = shared.now();
                    let mut table = shared.gossip();
                    accounts.into_iter().for_each(|account| table.hear(peer, account, now));
                    return;
                }
                Heard::Ended(why) => {
                    if let Some(why) = why {
                        let name = shared.inbox().name_of(peer);
                        shared.say(Source::Pull(peer), Level::Warning, &format!("{name} cannot be told what is here: {why}"));
                    }
                    shared.left(peer, number);
                }
            }
            shared.wake.notify_all();
        });
        (number, ear)
    }

    /// A peer is connected. Of two connections that were made at the same time the one stays that the smaller id made.
    pub(crate) fn joined(&self, member: Member, called: Called, number: u64) -> bool {
        let (peer, now) = (member.peer(), self.now());
        let by_smaller = |called: Called| (called == Called::ByUs) == (self.own < peer);
        let member = Arc::new(member);
        let mut inbox = self.inbox();
        // What was granted may have been taken back, or become another, since it began to join.
        let allowed = inbox.allowed.get(&peer).is_some_and(|(_, mode)| *mode == member.mode());
        let open = inbox.live.as_ref().is_some_and(|live| member.is_of(live)) && !self.is_stopping() && !inbox.reopen;
        // One that was started anew has lost the connection that it had before, as has one that calls again.
        let there = inbox.members.get(&peer).filter(|joined| !joined.member.is_over() && joined.member.start() == member.start());
        // Calls cross each other within moments: one that comes much later comes from somebody who has lost the connection.
        let there = there.filter(|joined| now.saturating_sub(joined.at) < LASTING);
        let called_before = there.map(|joined| if joined.called { Called::ByUs } else { Called::ByThem });
        if !allowed || !open || called_before.is_some_and(|before| before != called && by_smaller(before)) {
            drop(inbox);
            return false;
        }
        // From whom nothing may be pulled, nothing is lacking.
        let lacking = (!member.may_be_pulled()).then_some(Behind { files: 0, bytes: 0, since: None, oldest: None });
        let joined = Joined {
            number,
            member: Arc::clone(&member),
            called: called == Called::ByUs,
            since: now_ns(),
            at: now,
            quality: Quality::default(),
            pulse: Pulse::default(),
            incorporated: 0,
            lacking,
            awaited: None,
            last_sync: None,
            transfers: Vec::new(),
            told: Told::new(),
        };
        let replaced = inbox.members.insert(peer, joined);
        inbox.scheduler.joined(peer, now);
        drop(inbox);
        // A pull over the old connection may be under way, and would wait for an answer that nobody gives any more.
        if let Some(replaced) = &replaced {
            replaced.member.leave();
        }
        // Its threads are waited for: nothing may be locked here.
        drop(replaced);
        if member.is_over() {
            self.left(peer, number);
        }
        self.wake.notify_all();
        true
    }

    fn left(&self, peer: Id, number: u64) {
        let mut inbox = self.inbox();
        let same = inbox.members.get(&peer).is_some_and(|joined| joined.number == number);
        let gone = if same { inbox.members.remove(&peer) } else { None };
        if same {
            inbox.scheduler.left(peer);
            inbox.facts.problems.remove(&Source::Pull(peer));
            inbox.facts.stopped.remove(&peer);
        }
        drop(inbox);
        if same {
            self.gossip().left(peer);
        }
        drop(gone);
    }

    /// Goes over to these peers: ends the connections to those that may take part no more, or as something else than they joined as.
    pub(crate) fn keep(&self, peers: &BTreeMap<Id, (Name, Mode)>) {
        let gone: Vec<_> = {
            let mut inbox = self.inbox();
            inbox.allowed = peers.clone();
            let stays = |id: &Id, joined: &Joined| peers.get(id).is_some_and(|(_, mode)| *mode == joined.member.mode());
            let others = inbox.members.iter().filter(|(id, joined)| !stays(id, joined));
            others.map(|(_, joined)| Arc::clone(&joined.member)).collect()
        };
        gone.iter().for_each(|member| member.leave());
    }

    /// Looks at all paths, and tells the peers how they look from here.
    pub(crate) fn measure(&self) {
        let now = self.now();
        let mut inbox = self.inbox();
        let mut costs = Vec::new();
        let mut reports = Vec::new();
        for (peer, joined) in &mut inbox.members {
            let path = joined.member.quality();
            let back = joined.member.reported().map(|report| Counters { sent: report.sent, lost: report.lost });
            joined.quality.sample(path.rtt, Counters { sent: path.sent, lost: path.lost }, back, now);
            costs.extend(joined.quality.cost().map(|cost| (*peer, cost)));
            reports.push((Arc::clone(&joined.member), joined.report()));
        }
        inbox.scheduler.measured(costs, now);
        drop(inbox);
        reports.into_iter().for_each(|(member, report)| member.report(report));
    }

    /// Says to the connected peers what this machine is, and what it heard of others, as far as they do not know it.
    pub(crate) fn tell(&self, own: Account, clock_ms: u64) {
        let now = self.now();
        {
            let mut table = self.gossip();
            table.expire(now);
            table.say(own, now, clock_ms);
        }
        let mut inbox = self.inbox();
        for (peer, joined) in &mut inbox.members {
            let table = self.gossip();
            let news = table.news_for(*peer, &joined.told, now);
            table.told(&news, &mut joined.told);
            drop(table);
            if !news.is_empty() && !joined.member.gossip(news) {
                // Told again from the beginning, once there is room.
                joined.told.clear();
            }
        }
    }

    /// The link to a peer, as it is told to others.
    pub(crate) fn tie(&self, to: Id, mode: Mode, reaches: Option<Reaches>) -> Tie {
        let inbox = self.inbox();
        let Some(joined) = inbox.members.get(&to) else {
            return Tie { to, mode, learnt: false, called: None, reaches, way: None };
        };
        let called = Some(if joined.called { Caller::Teller } else { Caller::Other });
        Tie { to, mode, learnt: false, called, reaches, way: joined.shown_quality().map(way) }
    }

    /// Where a connected peer is, and who called.
    pub(crate) fn whereabouts(&self, peer: Id) -> Option<(Option<SocketAddr>, Called)> {
        let inbox = self.inbox();
        let joined = inbox.members.get(&peer)?;
        Some((joined.member.address(), if joined.called { Called::ByUs } else { Called::ByThem }))
    }

    /// Who is waited for and heard no more, while there is something else to do here, is given up: that its connection is dead would
    /// be found out much later, and nothing else is done until then. It is called anew.
    pub(crate) fn give_up_silent(&self) {
        let now = self.now();
        let mut inbox = self.inbox();
        let inbox = &mut *inbox;
        let Some(job @ Job::Pull(peer)) = inbox.running else { return };
        let name = inbox.name_of(peer);
        let Some(joined) = inbox.members.get_mut(&peer) else { return };
        let path = joined.member.quality();
        if joined.pulse.is_silent(path.sent, path.received, now) && inbox.scheduler.others_wait(job, now) {
            joined.pulse = Pulse::default();
            self.log(
                Level::Notice,
                &format!("{name} was not heard for some seconds while it was pulled from: it is called anew"),
            );
            joined.member.leave();
        }
    }

    /// Until the folder is to end: opens the root, works on it, and opens it again when it has become another.
    fn work(self: Arc<Self>) {
        while !self.is_stopping() {
            let opened = unbroken(|| self.open().map(Arc::new).map_err(|error| error.to_string()));
            let worked = opened.and_then(|live| {
                let worked = self.work_on(&live);
                self.let_go(live);
                worked
            });
            if let Err(why) = worked {
                self.say(Source::Root, Level::Error, &why);
                self.inbox().facts.unavailable = Some(why);
                self.rest(REOPEN);
            }
        }
    }

    /// Waits until nobody has the root any more, who looks at something in it or is about to end: opened anew before, it would be
    /// held by this process itself. Whoever has it for long is told of by that.
    fn let_go(&self, live: Arc<Live>) {
        let left = Arc::downgrade(&live);
        drop(live);
        let until = self.now() + REOPEN;
        while left.strong_count() > 0 && self.now() < until {
            let inbox = self.inbox();
            drop(self.wake.wait_timeout(inbox, GLANCE));
        }
    }

    fn rest(&self, wait: Duration) {
        let inbox = self.inbox();
        let quiet = |inbox: &mut Inbox| !self.is_stopping() && !inbox.reopen;
        let (mut inbox, _) = self.wake.wait_timeout_while(inbox, wait, quiet).unwrap_or_else(PoisonError::into_inner);
        inbox.reopen = false;
    }

    fn open(&self) -> Result<Live, SyncError> {
        let config = self.config();
        let options = Options {
            conflicts: config.conflicts,
            ignore: config.ignore,
            max_delete: Some(config.max_delete),
            keep_versions: config.keep_versions,
            state_dir: config.state_dir,
            ..Options::standard()
        };
        let monitor = Watchful::of_root(self);
        let live = Live::open(self.name.clone(), &self.path, options, (self.known)(false), &monitor)?;
        (self.known)(true);
        Ok(live)
    }

    /// Until the root is to be closed. `Err`: its work broke off.
    fn work_on(self: &Arc<Self>, live: &Arc<Live>) -> Result<(), String> {
        {
            let mut inbox = self.inbox();
            inbox.live = Some(Arc::clone(live));
            inbox.reopen = false;
            inbox.facts.unavailable = None;
            inbox.facts.problems.remove(&Source::Root);
            inbox.facts.said.remove(&Source::Root);
            let now = self.now();
            inbox.scheduler.opened(now);
        }
        let mut watching = self.watch(live);
        let archiving = self.archive(live);
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
        self.archive_no_more(archiving);
        let (members, live) = {
            let mut inbox = self.inbox();
            inbox.running = None;
            inbox.noticed.clear();
            inbox.scheduler.ready_at(None);
            // With a root that is opened anew, all of that is found out anew.
            inbox.facts.problems.retain(|source, _| !matches!(source, Source::Pull(_)));
            inbox.facts.said.retain(|source, _| !matches!(source, Source::Pull(_)));
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

/// How good a path is, as others are told.
fn way(quality: status::Quality) -> Way {
    let rtt_us = (quality.rtt_ms * 1000.0).clamp(0.0, f64::from(u32::MAX)) as u32;
    Way { rtt_us, lost: (quality.loss.clamp(0.0, 1.0) * 1_000_000.0) as u64, goodput: quality.goodput }
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
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the clock from which all else is counted")]
    fn a_panic_is_told_and_the_folder_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("name = \"a\"\n[folders.hot]\npath = \"{}\"\n", dir.path().display());
        let config = config::parse(&text, &sync_core::peer::Book::default()).unwrap();
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let opened = AtomicBool::new(false);
        let setting = Setting {
            own: sync_core::peer::PublicKey::from_bytes([1; 32]).id(),
            begun: Instant::now(),
            log: Arc::new(move |_, line| {
                // A test that has heard enough has gone.
                let _ = tell.lock().unwrap_or_else(PoisonError::into_inner).send(line.to_owned());
            }),
            permits: Arc::new(Permits::new(1)),
            watches: None,
            archive: (None, Clock::default()),
            paused: false,
            known: Box::new(move |_| {
                assert!(opened.swap(true, Ordering::Relaxed), "the first time");
                false
            }),
        };
        let (name, config) = config.folders.into_iter().next().unwrap();
        let folder = Folder::start(name, config, setting, Vec::new());
        let line = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(line.contains("ended its work: the first time"), "{line}");
        let until = Instant::now() + Duration::from_secs(60);
        while folder.shared().state() != status::FolderState::Watching {
            assert!(Instant::now() < until && !folder.is_over(), "{:?}", folder.shared().state());
            thread::sleep(Duration::from_millis(10));
        }
        folder.stop();
        folder.join();
    }
}
