//! One folder: its root stays open, is watched, looked at, and pulled into. One thread does all work on it, in the order that
//! `scheduler` says; another listens for changes.

use crate::config;
use crate::log::{Level, Log};
use crate::quality::{Counters, Pulse, Quality};
use crate::scheduler::{Ended, Job, Moment, Next, Scheduler};
use crate::status::{self, Behind, FolderState, LISTED, PathProblem, PathText, Problems, Watches};
use crate::works::{Permits, Watchful, now_ns, random_share};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use sync_core::io::sync::{Brought, Ear, Heard, LinkReport, Live, Member, Options, SyncError, is_root_lost};
use sync_core::io::watch::{self, Watch};
use sync_core::path::RelPath;
use sync_core::peer::{Id, Mode, Name};
use sync_core::quiet::{Change, Limits, Quiet};

/// How long a root that cannot be used is left alone before it is tried again.
const REOPEN: Duration = Duration::from_secs(5);
/// How long paths that failed are left alone.
const AGAIN: Duration = Duration::from_secs(5);
/// How often directories without a watch are looked at.
const POLL: Duration = Duration::from_secs(30);
/// Longest wait for anything: the wish to end comes by a signal of its own.
const LONG: Duration = Duration::from_secs(3600);
/// How far back writes to replaced versions are looked for while the agent runs.
const LATE: Duration = Duration::from_secs(600);
/// Paths that were noticed and wait to be looked at; beyond it everything is.
const NOTICED: usize = 65_536;

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
    watches: Option<u64>,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    stop: AtomicBool,
    numbers: AtomicU64,
    known: Box<dyn Fn(bool) -> bool + Send + Sync>,
}

/// What waits to be done, and what is known of the folder.
struct Inbox {
    live: Option<Arc<Live>>,
    scheduler: Scheduler<Id>,
    /// Paths that were noticed, and are quiet.
    noticed: BTreeSet<RelPath>,
    members: BTreeMap<Id, Joined>,
    /// The root is to be opened anew.
    reopen: bool,
    /// What is under way.
    running: Option<Job<Id>>,
    facts: Facts,
}

/// A connected peer.
struct Joined {
    number: u64,
    member: Arc<Member>,
    called: bool,
    since: status::Moment,
    quality: Quality,
    /// Since the job under way began, if it is its.
    pulse: Pulse,
    /// Its sequence number up to which all of it is here.
    incorporated: u64,
    lacking: Option<Behind>,
    last_sync: Option<status::Moment>,
}

/// What is shown of a folder.
#[derive(Default)]
struct Facts {
    unavailable: Option<String>,
    live: Option<u64>,
    conflicts: Option<u64>,
    watches: Watches,
    /// By what they failed at: each job replaces its own.
    problems: BTreeMap<Source, (u64, Vec<PathProblem>)>,
    last_change: Option<status::Moment>,
    /// What was logged last of each kind, so that it is logged once.
    said: BTreeMap<Source, String>,
}

/// What a problem comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Root,
    Watch,
    Look,
    Pull(Id),
}

/// Who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called {
    ByUs,
    ByThem,
}

/// A peer of the folder, for whoever shows it.
pub(crate) struct PeerFacts {
    pub(crate) link: Option<status::Link>,
    pub(crate) quality: Option<status::Quality>,
    pub(crate) lacking_here: Option<Behind>,
    pub(crate) lacking_there: Option<Behind>,
    pub(crate) last_sync: Option<status::Moment>,
}

/// What a folder needs besides its configuration.
pub(crate) struct Setting {
    pub(crate) own: Id,
    pub(crate) begun: Instant,
    pub(crate) log: Log,
    pub(crate) permits: Arc<Permits>,
    pub(crate) watches: Option<u64>,
    /// Was the root open before? With `true` it is remembered that it was.
    pub(crate) known: Box<dyn Fn(bool) -> bool + Send + Sync>,
}

impl Folder {
    /// Starts its threads.
    pub(crate) fn start(name: Name, config: config::Folder, setting: Setting) -> Folder {
        let Setting { own, begun, log, permits, watches, known } = setting;
        let scheduler = Scheduler::new(begun.elapsed(), config.schedule);
        let inbox = Inbox {
            live: None,
            scheduler,
            noticed: BTreeSet::new(),
            members: BTreeMap::new(),
            reopen: false,
            running: None,
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
            watches,
            inbox: Mutex::new(inbox),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            known,
        });
        let worker = Arc::clone(&shared);
        let threads = vec![thread::spawn(move || worker.work())];
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

    /// Has it ended?
    pub(crate) fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Every change of it is whole before anything can panic.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes over what does not need the root to be opened anew.
    pub(crate) fn configure(&self, config: config::Folder) {
        let now = self.now();
        let mut inbox = self.inbox();
        inbox.scheduler.set_every(config.schedule, now);
        let mut known = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        // Who takes part, and how often everything is looked at, is no matter of the root.
        let root =
            |config: &config::Folder| config::Folder { peers: BTreeMap::new(), schedule: Duration::ZERO, ..config.clone() };
        inbox.reopen |= root(&known) != root(&config);
        *known = config;
        drop(known);
        drop(inbox);
        self.wake.notify_all();
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.inbox().scheduler.pause(paused);
        self.wake.notify_all();
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
        let inbox = self.inbox();
        let scheduler = &inbox.scheduler;
        let held_up =
            since.is_some_and(|since| now.saturating_sub(since) > scheduler.slice(job) && scheduler.others_wait(job, now));
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
                Heard::Ended(why) => {
                    if let Some(why) = why {
                        shared.say(Source::Pull(peer), Level::Warning, &format!("{peer} cannot be told what is here: {why}"));
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
        let open = inbox.live.as_ref().is_some_and(|live| member.is_of(live)) && !self.is_stopping() && !inbox.reopen;
        // One that was started anew has lost the connection that it had before, as has one that calls again.
        let there = inbox.members.get(&peer).filter(|joined| !joined.member.is_over() && joined.member.start() == member.start());
        let called_before = there.map(|joined| if joined.called { Called::ByUs } else { Called::ByThem });
        if !open || called_before.is_some_and(|before| before != called && by_smaller(before)) {
            drop(inbox);
            return false;
        }
        let joined = Joined {
            number,
            member: Arc::clone(&member),
            called: called == Called::ByUs,
            since: now_ns(),
            quality: Quality::default(),
            pulse: Pulse::default(),
            incorporated: 0,
            lacking: None,
            last_sync: None,
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
        }
        drop(inbox);
        drop(gone);
    }

    /// Ends the connections to peers that may take part no more, or as something else than they joined as.
    pub(crate) fn keep(&self, peers: &BTreeMap<Id, Mode>) {
        let gone: Vec<_> = {
            let inbox = self.inbox();
            let others = inbox.members.iter().filter(|(id, joined)| peers.get(*id) != Some(&joined.member.mode()));
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

    /// Who is waited for and heard no more, while there is something else to do here, is given up: that its connection is dead would
    /// be found out much later, and nothing else is done until then. It is called anew.
    pub(crate) fn give_up_silent(&self) {
        let now = self.now();
        let mut inbox = self.inbox();
        let inbox = &mut *inbox;
        let Some(job @ Job::Pull(peer)) = inbox.running else { return };
        let Some(joined) = inbox.members.get_mut(&peer) else { return };
        let path = joined.member.quality();
        if joined.pulse.is_silent(path.sent, path.received, now) && inbox.scheduler.others_wait(job, now) {
            joined.pulse = Pulse::default();
            self.log(
                Level::Notice,
                &format!("{peer} was not heard for some seconds while it was pulled from: it is called anew"),
            );
            joined.member.leave();
        }
    }

    /// Until the folder is to end: opens the root, works on it, and opens it again when it has become another.
    fn work(self: Arc<Self>) {
        while !self.is_stopping() {
            match self.open() {
                Ok(live) => self.work_on(&Arc::new(live)),
                Err(error) => {
                    let why = error.to_string();
                    self.say(Source::Root, Level::Error, &why);
                    self.inbox().facts.unavailable = Some(why);
                    self.rest(REOPEN);
                }
            }
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

    fn work_on(self: &Arc<Self>, live: &Arc<Live>) {
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
        let watching = Arc::new(AtomicBool::new(true));
        let mut watcher = match self.watch(live, &watching) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                let text = format!("{error}; changes are found by scans only");
                self.say(Source::Watch, Level::Error, &text);
                None
            }
        };
        while let Some(job) = self.next_job() {
            let how = self.carry_out(live, job);
            let (now, jitter) = (self.now(), random_share());
            let mut inbox = self.inbox();
            inbox.running = None;
            inbox.scheduler.ended(job, how, now, jitter);
        }
        watching.store(false, Ordering::Release);
        if let Some((waker, thread)) = watcher.take() {
            waker.wake();
            // A panic there is a defect that was told; the watch begins anew with the root.
            let _ = thread.join();
        }
        let (members, live) = {
            let mut inbox = self.inbox();
            inbox.noticed.clear();
            inbox.scheduler.ready_at(None);
            (std::mem::take(&mut inbox.members), inbox.live.take())
        };
        for peer in members.keys() {
            self.inbox().scheduler.left(*peer);
        }
        members.values().for_each(|joined| joined.member.leave());
        drop((members, live));
    }

    /// The next job; `None` once the root is to be closed.
    fn next_job(&self) -> Option<Job<Id>> {
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
                    return Some(job);
                }
                Next::At(at) => at.saturating_sub(now),
                Next::Never => LONG,
            };
            inbox = self.wake.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn carry_out(&self, live: &Arc<Live>, job: Job<Id>) -> Ended {
        let monitor = Watchful::of_job(self, job);
        match job {
            Job::Look => {
                let paths: Vec<RelPath> = {
                    let mut inbox = self.inbox();
                    inbox.scheduler.ready_at(None);
                    std::mem::take(&mut inbox.noticed).into_iter().collect()
                };
                self.look(live, &paths, &monitor)
            }
            Job::LookAtAll => {
                {
                    let mut inbox = self.inbox();
                    inbox.noticed.clear();
                    inbox.scheduler.ready_at(None);
                }
                self.look(live, &[], &monitor)
            }
            Job::Pull(peer) => self.pull(live, peer, &monitor),
            Job::Tidy => {
                let done = live.tidy(&monitor).and_then(|()| live.check_late(LATE, &monitor));
                if let Err(error) = done {
                    self.failed(Source::Root, &error);
                }
                Ended::Well
            }
        }
    }

    fn look(&self, live: &Live, paths: &[RelPath], monitor: &Watchful<'_>) -> Ended {
        let (rules, missing) = (live.rules_text(), live.missing().ok());
        let scanned = live.scan(paths, monitor);
        let rules_changed = live.rules_text() != rules;
        let mounts_changed = live.missing().ok() != missing;
        let standing = live.standing();
        let mut inbox = self.inbox();
        match scanned {
            Ok(scanned) => {
                let listed = scanned.problems.iter().take(LISTED).map(shown).collect();
                if paths.is_empty() || scanned.failed > 0 {
                    inbox.facts.problems.insert(Source::Look, (scanned.failed, listed));
                }
                if !paths.is_empty() && scanned.failed > 0 {
                    // Nobody may tell of them again before everything is looked at.
                    inbox
                        .noticed
                        .extend(scanned.problems.iter().map(|problem| problem.path.clone()).filter(|path| !path.is_root()));
                    let at = self.now() + AGAIN;
                    inbox.scheduler.ready_at(Some(at));
                }
                if scanned.changed + scanned.vanished > 0 {
                    inbox.facts.last_change = Some(now_ns());
                }
                inbox.facts.live = standing.ok().map(|standing| standing.live);
                inbox.facts.said.remove(&Source::Look);
                if mounts_changed {
                    // What was left alone for want of a file system is asked for again.
                    let now = self.now();
                    let peers: Vec<Id> = inbox.members.keys().copied().collect();
                    peers.into_iter().for_each(|peer| inbox.scheduler.ask_again(peer, now));
                }
                // Others must agree on the rules before anything more is exchanged.
                inbox.reopen |= rules_changed;
                if scanned.failed > 0 { Ended::InPart } else { Ended::Well }
            }
            Err(SyncError::Cancelled) => {
                inbox.noticed.extend(paths.iter().cloned());
                if !paths.is_empty() {
                    let now = self.now();
                    inbox.scheduler.ready_at(Some(now));
                }
                Ended::Stopped
            }
            Err(error) => {
                if !paths.is_empty() {
                    // What was noticed is looked at with everything else.
                    let now = self.now();
                    inbox.scheduler.look_at_all(now);
                }
                drop(inbox);
                self.failed(Source::Look, &error);
                Ended::Badly
            }
        }
    }

    fn pull(&self, live: &Live, peer: Id, monitor: &Watchful<'_>) -> Ended {
        let found = self.inbox().members.get(&peer).map(|joined| (Arc::clone(&joined.member), joined.number));
        let Some((member, number)) = found else { return Ended::Badly };
        if !member.may_be_pulled() {
            return Ended::Well;
        }
        let seq = member.seq();
        // What came through others is not asked for again.
        let pulled = match live.covers(&member) {
            Ok(true) => Ok(Brought { whole: true, ..Brought::default() }),
            Ok(false) => {
                let Some(_permit) = self.permits.take(&self.stop) else { return Ended::Stopped };
                live.pull(&member, monitor)
            }
            Err(error) => Err(error),
        };
        let conflicts = live.open_conflicts().ok();
        let standing = live.standing().ok();
        let mut inbox = self.inbox();
        inbox.facts.conflicts = conflicts;
        inbox.facts.live = standing.map(|standing| standing.live).or(inbox.facts.live);
        let ended = match &pulled {
            Ok(brought) => {
                let Brought { totals, problems, whole, cancelled, news } = brought;
                if *news {
                    inbox.facts.last_change = Some(now_ns());
                }
                let listed = problems.iter().take(LISTED).map(shown).collect();
                inbox.facts.problems.insert(Source::Pull(peer), (totals.failed.max(problems.len() as u64), listed));
                inbox.facts.said.remove(&Source::Pull(peer));
                match (cancelled, whole) {
                    (true, _) => Ended::Stopped,
                    (false, true) => Ended::Well,
                    (false, false) => Ended::InPart,
                }
            }
            Err(SyncError::Cancelled) => Ended::Stopped,
            Err(error) => {
                // A guard, or a root that cannot be changed, waits for somebody who looks.
                let here = !error.is_elsewhere();
                let listed = vec![PathProblem { place: PathText::new(b""), step: "pull".into(), error: words(error) }];
                if here {
                    inbox.facts.problems.insert(Source::Pull(peer), (1, listed));
                }
                Ended::Badly
            }
        };
        let report = inbox.members.get_mut(&peer).filter(|joined| joined.number == number).map(|joined| {
            if matches!(ended, Ended::Well) {
                (joined.incorporated, joined.last_sync) = (seq, Some(now_ns()));
                joined.lacking = Some(Behind { files: 0, bytes: 0, since: None, oldest: None });
            }
            joined.report()
        });
        drop(inbox);
        if let Some(report) = report {
            member.report(report);
        }
        if let Err(error) = pulled
            && ended == Ended::Badly
        {
            self.failed(Source::Pull(peer), &error);
        }
        ended
    }

    /// Something failed as a whole: it is told once, until it is another thing that fails.
    fn failed(&self, source: Source, error: &SyncError) {
        if is_root_lost(error) {
            self.inbox().reopen = true;
        }
        let level = if error.is_elsewhere() { Level::Warning } else { Level::Error };
        self.say(source, level, &words(error));
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

    /// A pull found out how much it has to bring.
    pub(crate) fn lacks(&self, peer: Id, files: u64, bytes: u64) {
        let mut inbox = self.inbox();
        let Some(joined) = inbox.members.get_mut(&peer) else { return };
        let since = joined.lacking.as_ref().and_then(|lacking| lacking.since).or_else(|| (files > 0).then(now_ns));
        joined.lacking = Some(Behind { files, bytes, since, oldest: None });
    }

    /// A pull has brought some of it.
    pub(crate) fn brought(&self, peer: Id, files: u64, bytes: u64) {
        let mut inbox = self.inbox();
        if let Some(lacking) = inbox.members.get_mut(&peer).and_then(|joined| joined.lacking.as_mut()) {
            lacking.files = lacking.files.saturating_sub(files);
            lacking.bytes = lacking.bytes.saturating_sub(bytes);
        }
    }

    /// Listens for changes, in a thread of its own.
    fn watch(
        self: &Arc<Self>,
        live: &Arc<Live>,
        watching: &Arc<AtomicBool>,
    ) -> Result<(watch::Waker, JoinHandle<()>), watch::WatchError> {
        let config = self.config();
        let options = watch::Options { watches: self.watches, gather: Duration::from_millis(5), ..watch::Options::standard() };
        let ignoring = Arc::clone(live);
        let ignored: watch::Ignored = Box::new(move |path, dir| ignoring.ignores(path, dir));
        let watch = Watch::begin(live.root(), options, Some(ignored))?;
        let waker = watch.waker();
        let quiet = Quiet::new(Limits { quiet: config.quiet, ..Limits::standard() });
        let (shared, watching) = (Arc::clone(self), Arc::clone(watching));
        let thread = thread::spawn(move || shared.listen(watch, quiet, &watching));
        Ok((waker, thread))
    }

    fn listen(&self, mut watch: Watch, mut quiet: Quiet, watching: &AtomicBool) {
        let mut poll = self.now() + POLL;
        let mut short = false;
        while watching.load(Ordering::Acquire) {
            let missing = watch.shortage();
            if missing.is_some() != short {
                short = missing.is_some();
                if let Some(shortage) = &missing {
                    self.say(Source::Watch, Level::Warning, &shortage.to_string());
                }
            }
            let watched = watch.watched();
            self.inbox().facts.watches = Watches {
                needed: Some(watched + missing.as_ref().map_or(0, |shortage| shortage.missing)),
                set: watched,
                limit: self.watches,
            };
            let now = self.now();
            let next = quiet.next_deadline().unwrap_or(now + LONG).min(if short { poll } else { now + LONG });
            let changes = match watch.wait(next.saturating_sub(now)) {
                Ok(changes) => changes,
                Err(error) => {
                    self.say(
                        Source::Watch,
                        Level::Error,
                        &format!("{error}; changes are found by scans only, until the folder is opened anew"),
                    );
                    return;
                }
            };
            let now = self.now();
            changes.into_iter().for_each(|change| quiet.take(now, change));
            let mut ready = quiet.ready(now);
            if short && now >= poll {
                poll = now + POLL;
                ready.extend(watch.unwatched().cloned().map(Change::Tree));
            }
            if !ready.is_empty() {
                self.notice(ready, now);
            }
        }
    }

    /// Changes are quiet, and to be looked at.
    fn notice(&self, changes: Vec<Change>, now: Moment) {
        for change in &changes {
            if let Change::Everything { why } = change {
                self.log(Level::Warning, &format!("everything is looked at: {why}"));
            }
        }
        let mut inbox = self.inbox();
        for change in changes {
            match change {
                Change::Touched(path) | Change::Tree(path) if !path.is_root() => drop(inbox.noticed.insert(path)),
                Change::Touched(_) | Change::Tree(_) => inbox.scheduler.look_at_all(now),
                Change::Everything { .. } => inbox.scheduler.look_at_all(now),
                Change::RootLost => inbox.reopen = true,
            }
        }
        if inbox.noticed.len() > NOTICED {
            inbox.noticed.clear();
            inbox.scheduler.look_at_all(now);
        }
        let any = !inbox.noticed.is_empty();
        inbox.scheduler.ready_at(any.then_some(now));
        drop(inbox);
        self.wake.notify_all();
    }

    /// What the folder is doing.
    pub(crate) fn state(&self) -> FolderState {
        let inbox = self.inbox();
        let now = self.now();
        match (&inbox.facts.unavailable, inbox.running) {
            (Some(why), _) => FolderState::Unavailable { why: why.clone() },
            _ if inbox.scheduler.is_paused() => FolderState::Paused,
            (_, Some(Job::LookAtAll)) => FolderState::Scanning,
            (_, Some(Job::Pull(peer))) if inbox.members.get(&peer).is_some_and(Joined::lacks_something) => FolderState::Syncing,
            _ if inbox.live.is_none() || !inbox.scheduler.is_looked_at(now) && inbox.facts.live.is_none() => {
                FolderState::Starting
            }
            _ => FolderState::Watching,
        }
    }

    /// Numbers of the folder.
    pub(crate) fn fill(&self, status: &mut status::FolderStatus) {
        let inbox = self.inbox();
        let facts = &inbox.facts;
        (status.paths, status.conflicts, status.watches) = (facts.live, facts.conflicts, facts.watches);
        let listed = facts.problems.values().flat_map(|(_, listed)| listed).take(LISTED).cloned().collect();
        let total = facts.problems.values().map(|(total, _)| total).sum();
        (status.problems, status.last_change) = (Problems { total, listed }, facts.last_change);
    }

    /// How it is with a peer.
    pub(crate) fn peer(&self, peer: Id) -> PeerFacts {
        let seq = self.live().and_then(|live| live.standing().ok()).map(|standing| standing.seq);
        let inbox = self.inbox();
        let Some(joined) = inbox.members.get(&peer) else {
            return PeerFacts { link: None, quality: None, lacking_here: None, lacking_there: None, last_sync: None };
        };
        let report = joined.member.reported();
        let lacking_there = report.filter(|_| joined.member.mode() != Mode::ReceiveOnly).map(|report| {
            let all = seq.is_some_and(|seq| report.incorporated >= seq);
            let (files, bytes) = if all { (0, 0) } else { (report.files.max(1), report.bytes) };
            Behind { files, bytes, since: None, oldest: None }
        });
        let behind = joined.incorporated < joined.member.seq();
        let lacking_here = match &joined.lacking {
            Some(lacking) if behind && !lacking.is_any() => None,
            other => other.clone(),
        };
        let direction = if joined.called { status::Direction::Out } else { status::Direction::In };
        let link = joined.member.address().map(|address| status::Link::Connected { since: joined.since, address, direction });
        let [out, back] = joined.quality.loss();
        let loss = 1.0 - (1.0 - out.unwrap_or(0.0)) * (1.0 - back.unwrap_or(0.0));
        let quality =
            joined.quality.rtt_ms().map(|rtt_ms| status::Quality { rtt_ms, loss, goodput: None, cost: joined.quality.cost() });
        PeerFacts { link, quality, lacking_here, lacking_there, last_sync: joined.last_sync }
    }
}

impl Joined {
    fn lacks_something(&self) -> bool {
        self.lacking.as_ref().is_some_and(Behind::is_any)
    }

    fn report(&self) -> LinkReport {
        let path = self.member.quality();
        let (files, bytes) = self.lacking.as_ref().map_or((0, 0), |lacking| (lacking.files, lacking.bytes));
        LinkReport { sent: path.sent, lost: path.lost, incorporated: self.incorporated, files, bytes }
    }
}

/// What an agent's user can do about it is not what the command's user can.
fn words(error: &SyncError) -> String {
    match error {
        SyncError::Guard(_) => format!("{error} (with an agent: change max_delete of the folder in agent.toml and reload it)"),
        other => other.to_string(),
    }
}

fn shown(problem: &sync_core::report::Problem) -> PathProblem {
    PathProblem { place: PathText::new(problem.path.as_bytes()), step: problem.step.to_owned(), error: problem.error.clone() }
}
