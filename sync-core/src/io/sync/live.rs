//! A root that stays open: scanned where something changed, pulled into when another replica has news, and answered from all the
//! time. What decides when, and from whom, is not here.
//!
//! Two roots that stay open meet over a connection of their own ([`Member`]). Each tells the other what it is now whenever that
//! has changed, and each pulls when it likes: there is no run with a beginning and an end, and no side that asks.

use super::drive;
use super::end::{End as _, LocalEnd, ScanTerms, Surveyed};
use super::guard::Spent;
use super::guest::{self, accept_all};
use super::host;
use super::pulls::Terms;
use super::roots::{self, Candidate, Opened};
use super::{MaxDelete, Options, Side, SyncError, Totals};
use crate::ignore::Rules;
use crate::io::apply;
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::Root;
use crate::io::link::{CloseCode, Connection, PathQuality, WAIT};
use crate::io::mutex::lock;
use crate::io::remote::{Gate, Here, Parked, RemoteThere, Told, identity, respond};
use crate::io::scan::{self, ScanError, Scanned};
use crate::io::speaker::{self, Speaker};
use crate::io::there::{Facts, There as _};
use crate::knowledge::{ReplicaId, Vector};
use crate::path::RelPath;
use crate::peer::{Id, Mode, Name};
use crate::report::{Monitor, Phase, Problem};
use crate::store::{Filter, Listing};
use crate::wire::{self, Introduction, Join, Message, Ready, Report};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pulls in a row that settle what was left open.
const SETTLING: usize = 3;
/// How long a member's thread waits for news before it looks whether the connection is still there.
const GLANCE: Duration = Duration::from_secs(1);

/// A root of this machine that stays open.
pub struct Live {
    name: Name,
    opened: Arc<Opened>,
    options: Options,
    run_rules: Rules,
    /// Those that stand in the root.
    rules: Mutex<Rules>,
    /// Where it misses a file system, by the last scan of each path.
    unavailable: Mutex<Vec<RelPath>>,
    /// What pulls have deleted lately.
    spent: Mutex<Spent>,
    news: News,
}

/// Counts changes of what others must hear.
#[derive(Default)]
struct News {
    number: Mutex<u64>,
    changed: Condvar,
}

/// What a root is, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who it is.
    pub replica: ReplicaId,
    /// Live files, directories and links.
    pub live: u64,
    /// Its newest sequence number: it grows with every change of what is known.
    pub seq: u64,
}

/// What a pull did.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    /// What changed here.
    pub totals: Totals,
    /// Paths that failed; they come with a later pull.
    pub problems: Vec<Problem>,
    /// All that the other side had when it began is here now, but for conflicts that are left open.
    pub whole: bool,
    /// It was broken off because the monitor said so.
    pub cancelled: bool,
    /// Something here is known that was not before: others must hear of it.
    pub news: bool,
}

/// What a member's connection tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The replica there has changed.
    News,
    /// The connection has ended.
    Ended,
}

/// Hears of a member. Called on threads of the connection, which wait for it.
pub type Ear = Arc<dyn Fn(Heard) + Send + Sync>;

impl Live {
    /// Opens a root, and recovers what a crash left. `known`: it was open before, so that a folder without a marker is a disk that
    /// is not mounted, and never a new root.
    ///
    /// # Errors
    /// The root is missing, held by another process, or not the one that it was.
    pub fn open(name: Name, path: &Path, options: Options, known: bool, monitor: &dyn Monitor) -> Result<Live, SyncError> {
        let run_rules = Rules::parse(&options.ignore.join("\n"))?;
        let candidate = Candidate::of(roots::find(path, options.state_dir.as_deref())?, &options)?;
        if known && !options.rejoin {
            candidate.must_stand()?;
        }
        let (opened, rules) = candidate.open(&nobody(), &options, monitor)?;
        opened.state.settle()?;
        Ok(Live {
            name,
            opened: Arc::new(opened),
            options,
            run_rules,
            rules: Mutex::new(rules),
            unavailable: Mutex::default(),
            spent: Mutex::default(),
            news: News::default(),
        })
    }

    /// What others call the folder.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.opened.root
    }

    /// How long its old versions are kept.
    pub(super) fn keep_versions(&self) -> Option<Duration> {
        self.options.keep_versions
    }

    pub(super) fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    pub(super) fn rules(&self) -> Rules {
        lock(&self.rules).clone()
    }

    /// The rules that stand in the root, as they were read last.
    #[must_use]
    pub fn rules_text(&self) -> String {
        lock(&self.rules).text().to_owned()
    }

    /// The rules of a run that shares the root, together with its owner's. The owner's have the last word.
    pub(super) fn with_own_rules(&self, run_rules: &Rules) -> Result<Rules, SyncError> {
        if self.run_rules.text().is_empty() {
            return Ok(run_rules.clone());
        }
        Ok(Rules::parse(&[run_rules.text(), self.run_rules.text()].join("\n"))?)
    }

    /// Is a path left out, by the rules of the root or by the owner's?
    #[must_use]
    pub fn ignores(&self, path: &RelPath, dir: bool) -> bool {
        lock(&self.rules).ignores(path, dir) || self.run_rules.ignores(path, dir)
    }

    /// What it is now.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn standing(&self) -> Result<Standing, SyncError> {
        let state = &self.opened.state;
        Ok(Standing { replica: state.id(), live: state.live()?, seq: state.seq() })
    }

    /// Finds what changed at and below some paths, or everywhere if there are none, and records it. Others hear of it.
    ///
    /// # Errors
    /// As [`scan`](crate::io::scan::scan): the root is gone or was replaced, or the monitor said to stop.
    pub fn scan(&self, only: &[RelPath], monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        let rules_file = RelPath::parse(crate::ignore::FILE.as_bytes()).expect("the name of the file of rules is a path");
        if only.is_empty() || only.contains(&rules_file) {
            self.renew_rules(monitor)?;
        }
        let before = self.opened.state.seq();
        let options = Options { paths: only.to_vec(), ..self.options.clone() };
        let rules = [self.rules(), self.rules()];
        let terms = ScanTerms { options: &options, rules: &rules, run_rules: &self.run_rules };
        let scanned = self.end().look(&terms, monitor)?;
        let other = {
            let mut known = lock(&self.unavailable);
            let now = still_missing(&known, only, &scanned.unavailable);
            let other = *known != now;
            *known = now;
            other
        };
        if other || self.opened.state.seq() != before {
            self.tell();
        }
        self.missing()?;
        Ok(scanned)
    }

    /// Where it misses a file system, as far as scans have found.
    ///
    /// # Errors
    /// There are more such places than others can be told.
    pub fn missing(&self) -> Result<Vec<RelPath>, SyncError> {
        let missing = lock(&self.unavailable).clone();
        if missing.len() > wire::MAX_LIST {
            let (root, most) = (self.root().path().display(), wire::MAX_LIST);
            let text = format!("more than {most} paths below {root} are unavailable: mount their file systems");
            return Err(SyncError::Root(text));
        }
        Ok(missing)
    }

    /// The rules of the root as they are now; what they cover from now on is forgotten.
    fn renew_rules(&self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        match roots::rules(&self.opened.root) {
            Ok(rules) if rules.text() == self.rules().text() => {}
            Ok(rules) => {
                let _work = self.opened.work();
                roots::obey(&self.opened, &rules)?;
                *lock(&self.rules) = rules;
            }
            Err(error @ (SyncError::Rule(_) | SyncError::RuleFile { .. })) => {
                monitor.notice(&format!("{error}; the rules that stood before are obeyed until that is mended"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn end(&self) -> LocalEnd {
        LocalEnd::new(self.opened.clone(), self.rules(), Side::B)
    }

    /// Brings here what a member has and this root has not.
    ///
    /// # Errors
    /// A guard stops it, the connection failed, or the root cannot be changed any more. What was done before is recorded.
    pub fn pull(&self, member: &Member, monitor: &dyn Monitor) -> Result<Brought, SyncError> {
        let told = member.told();
        let facts = member.facts_of(&told);
        let there = RemoteThere::new(member.connection.clone(), facts.clone(), told.seq);
        let there = if member.answers { there } else { there.without_bases() };
        {
            let _work = self.opened.work();
            self.opened.follow(&facts)?;
        }
        let rules = [member.rules.clone(), self.rules()];
        let mut unavailable = lock(&self.unavailable).clone();
        unavailable.extend(told.unavailable);
        // A disk may have gone since the last look: nothing is to be put where it belongs.
        unavailable.extend(scan::missing_mounts(&self.opened.root, &self.opened.state)?);
        let mut options = self.options.clone();
        let allowed = lock(&self.spent).is_allowed(Instant::now());
        if allowed {
            options.max_delete = None;
        }
        if member.mode == Mode::NoDelete {
            options.max_delete = Some(MaxDelete::Count(0));
        }
        let mut mask = options.mask;
        mask.owner &= member.sets_owner;
        let terms = Terms { options: &options, mask, rules: &rules, run_rules: &self.run_rules, unavailable: &unavailable };
        let before = self.opened.state.seq();
        let mut brought = Brought { whole: true, ..Brought::default() };
        let mut end = self.end().with_spent(lock(&self.spent).deleted(Instant::now()));
        let pulled = pull_all(&mut end, &there, &terms, &mut brought, monitor);
        let deleted = end.spent();
        if !allowed {
            let created = brought.totals.created + brought.totals.conflicts;
            lock(&self.spent).add(deleted, created, Instant::now());
        } else if deleted > 0 && pulled.is_ok() && !brought.cancelled {
            // One that was broken off goes on.
            lock(&self.spent).use_leave();
        }
        if self.opened.state.seq() != before {
            brought.news = true;
            self.tell();
        }
        pulled.map(|()| brought)
    }

    /// Lifts the deletion guard once: what went before counts no more, and the next pull that deletes anything may delete what it is
    /// to, if it comes within the hour. What a member may not do at all it may not do then.
    pub fn allow_deletions(&self) {
        lock(&self.spent).allow(Instant::now());
    }

    /// Does this root know all that a member had when it told last? One question, and nothing is recorded.
    ///
    /// # Errors
    /// The connection failed, or a state cannot be read.
    pub fn covers(&self, member: &Member) -> Result<bool, SyncError> {
        let told = member.told();
        let there = RemoteThere::new(member.connection.clone(), member.facts_of(&told), told.seq);
        let record = speaker::record(&self.opened.state, told.identity.replica, &Speaker::Machine(member.peer))?;
        if !self.opened.state.pending(record)?.is_empty() {
            return Ok(false);
        }
        let theirs = there.listing(&RelPath::root(), &Filter::header())?;
        Ok(drive::is_covered(Side::B, &theirs, &self.header()?, &self.options))
    }

    fn header(&self) -> Result<Listing, SyncError> {
        Ok(self.opened.state.listing(&RelPath::root(), &Filter::header())?)
    }

    /// Old versions go, what is of no use any more, and the marker tells of the state as it is.
    ///
    /// # Errors
    /// The state or the root cannot be written.
    pub fn tidy(&self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let _work = self.opened.work();
        roots::tidy(&self.opened, &self.options, monitor)
    }

    /// Looks for writes to old versions through descriptors that were open when they were replaced: they stand beside the new
    /// ones as conflict copies then.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn check_late(&self, since: Duration, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let _work = self.opened.work();
        let since_ns = crate::io::fs::coarse_now_ns() - i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        for text in apply::check_late(&self.opened.root, &self.opened.state, since_ns)?.notices() {
            monitor.notice(&format!("{}: {text}", self.opened.root.path().display()));
        }
        Ok(())
    }

    /// Open conflicts with all replicas, counted by path and replica.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open_conflicts(&self) -> Result<u64, SyncError> {
        let state = &self.opened.state;
        let mut count = 0;
        for (replica, _) in state.peers()? {
            let pending = state.pending(replica)?;
            count += pending.iter().filter(|open| open.why == Some(crate::plan::Open::Conflict)).count() as u64;
        }
        Ok(count)
    }

    /// Others are to hear of a change.
    fn tell(&self) {
        *lock(&self.news.number) += 1;
        self.news.changed.notify_all();
    }

    /// What others hear. True after a power cut too.
    fn ready(&self) -> Result<Ready, SyncError> {
        let state = &self.opened.state;
        let seq = self.header()?.seq;
        let (identity, decisions) = (identity(state)?, state.has_decisions()?);
        state.flush()?;
        let unavailable = self.missing()?;
        Ok(Ready { identity, seq, passing: false, unavailable, decisions })
    }

    pub(super) fn introduce(&self, there: &[u8]) -> Result<Introduction, SyncError> {
        let introduction = roots::introduction(&self.opened.state, Vec::new(), there)?;
        // What is told must be true after a power cut too.
        self.opened.state.settle()?;
        Ok(introduction)
    }

    /// May the two work together, by what the other side knows of this one?
    pub(super) fn meet(&self, there: &Introduction, monitor: &dyn Monitor) -> Result<(), SyncError> {
        roots::meet(&self.opened, there, monitor)
    }
}

/// Where file systems are missing after a scan of some paths, or of everything if there are none: what it did not look at is as
/// it was known.
fn still_missing(known: &[RelPath], only: &[RelPath], found: &[RelPath]) -> Vec<RelPath> {
    let looked_at = |path: &RelPath| only.is_empty() || only.iter().any(|only| only.contains(path));
    let mut missing: Vec<RelPath> = known.iter().filter(|path| !looked_at(path)).chain(found).cloned().collect();
    missing.sort();
    missing.dedup();
    missing
}

/// Brings to an end of a pull what is there: looked at first, then pulled until nothing is left open that can be settled.
fn pull_all(
    end: &mut LocalEnd,
    there: &RemoteThere,
    terms: &Terms<'_>,
    brought: &mut Brought,
    monitor: &dyn Monitor,
) -> Result<(), SyncError> {
    let Surveyed { totals, stopped } = end.survey(there, terms, None, monitor)?;
    if let Some(stopped) = stopped {
        return Err(stopped);
    }
    monitor.phase(Phase::Apply, Some(totals.created + totals.updated + totals.deleted + totals.moved), Some(totals.bytes));
    for number in 0..SETTLING {
        let pulled = end.pull(there, terms, u32::try_from(number).unwrap_or(u32::MAX), monitor)?;
        brought.totals.add(&pulled.totals);
        brought.problems.extend(pulled.problems);
        (brought.whole, brought.cancelled) = (pulled.whole, pulled.cancelled);
        if let Some(stopped) = pulled.stopped {
            return Err(stopped);
        }
        if pulled.cancelled || !pulled.again {
            break;
        }
    }
    Ok(())
}

/// Another machine's root of the same folder, which stays open too.
pub struct Member {
    peer: Id,
    connection: Arc<Connection>,
    /// By what it is recognised should it come under another identity.
    location: Vec<u8>,
    /// Nonce of the start there.
    start: u64,
    told: Arc<Mutex<Ready>>,
    /// What is to be told of the way and the exchange, and what was told.
    reports: Arc<Mutex<Reports>>,
    rules: Rules,
    sets_owner: bool,
    /// What it may do here.
    mode: Mode,
    /// May this side read there, and change its own root by it?
    pulls: bool,
    /// Is it answered, and told of changes?
    answers: bool,
    over: Arc<AtomicBool>,
    live: Arc<Live>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:?}", self.live.name, self.peer)
    }
}

#[derive(Debug, Default)]
struct Reports {
    ours: Report,
    theirs: Option<Report>,
}

/// By what a peer's root of a folder is recognised.
fn located(peer: Id, folder: &Name) -> Vec<u8> {
    format!("{peer}:folder:{folder}").into_bytes()
}

/// What counts of what a peer says: one that may only read changes nothing here, the identity of this root least of all.
fn believed(introduction: &Introduction, mode: Mode) -> Introduction {
    if mode == Mode::SendOnly {
        Introduction { location: introduction.location.clone(), ..nobody() }
    } else {
        introduction.clone()
    }
}

/// Somebody of whom nothing is known.
fn nobody() -> Introduction {
    Introduction { identity: None, knows: Vector::new(), remembers: Vec::new(), location: Vec::new(), expects: false }
}

/// What both sides of a member have told each other.
struct Met {
    introduction: Introduction,
    rules: Rules,
    sets_owner: bool,
    /// What the other side may do here.
    mode: Mode,
    /// What this side may do there.
    granted: Mode,
}

impl Member {
    /// Joins the folder of another machine: `mode` is what that machine may do here.
    ///
    /// # Errors
    /// The other side refuses, or it cannot be worked with; or the connection failed.
    pub fn join(
        live: &Arc<Live>,
        connection: Connection,
        mode: Mode,
        ear: Ear,
        monitor: &dyn Monitor,
    ) -> Result<Member, SyncError> {
        let peer = connection.peer_id();
        let connection = Arc::new(connection);
        let failed = |error: ChannelError| SyncError::of_remote(&peer.to_string(), error);
        let location = located(peer, &live.name);
        let mut control = Channel::for_hello(connection.open(WAIT).map_err(|error| failed(error.into()))?);
        guest::hello(&mut control).map_err(failed)?;
        let own = own_rules(live)?;
        let join = Join {
            folder: live.name.as_str().into(),
            introduction: live.introduce(&location)?,
            rules: own,
            sets_owner: live.options.mask.owner,
            mode,
        };
        let answer = control.send(&Message::Join(join)).and_then(|()| control.receive()).map_err(failed)?;
        let opened = match answer {
            Message::Opened(opened) => opened,
            other => return Err(failed(ChannelError::unexpected(other, "the folder"))),
        };
        control.finish().map_err(failed)?;
        let introduction = Introduction { location, ..opened.introduction };
        live.meet(&believed(&introduction, mode), monitor)?;
        let rules = guest::parsed(&opened.rules, &peer.to_string())?;
        let met = Met { introduction, rules, sets_owner: opened.sets_owner, mode, granted: opened.mode };
        Member::begin(live.clone(), connection, met, ear)
    }

    /// Lets another machine join, which may do here what `mode` says.
    pub(super) fn accept(
        live: &Arc<Live>,
        (connection, control): (Arc<Connection>, &mut Channel),
        join: Join,
        mode: Mode,
        ear: Ear,
        monitor: &dyn Monitor,
    ) -> Result<Member, SyncError> {
        let peer = connection.peer_id();
        let failed = |error: ChannelError| SyncError::of_remote(&peer.to_string(), error);
        let location = located(peer, &live.name);
        let introduction = Introduction { location: location.clone(), ..join.introduction };
        live.meet(&believed(&introduction, mode), monitor)?;
        let rules = Rules::parse(&join.rules)?;
        let answer = wire::Opened {
            mode,
            introduction: live.introduce(&location)?,
            root: live.name.to_string(),
            rules: own_rules(live)?,
            sets_owner: live.options.mask.owner,
            passing: false,
        };
        control.send(&Message::Opened(answer)).and_then(|()| control.flush()).map_err(failed)?;
        let met = Met { introduction, rules, sets_owner: join.sets_owner, mode, granted: join.mode };
        Member::begin(live.clone(), connection, met, ear)
    }

    fn begin(live: Arc<Live>, connection: Arc<Connection>, met: Met, ear: Ear) -> Result<Member, SyncError> {
        let Met { introduction, rules, sets_owner, mode, granted } = met;
        let peer = connection.peer_id();
        let identity = introduction.identity.ok_or_else(|| {
            let found = ChannelError::Unexpected { found: "a folder without a replica", expected: "its replica" };
            SyncError::of_remote(&peer.to_string(), found)
        })?;
        let told = Ready { identity, seq: 0, passing: false, unavailable: Vec::new(), decisions: true };
        let told = Arc::new(Mutex::new(told));
        let (over, reports) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Reports>>::default());
        let answers = mode != Mode::ReceiveOnly;
        let pulls = mode != Mode::SendOnly && granted != Mode::ReceiveOnly;
        let mut threads = Vec::new();
        if answers && granted != Mode::SendOnly {
            let (live, connection, over, reports) = (live.clone(), connection.clone(), over.clone(), Arc::clone(&reports));
            threads.push(std::thread::spawn(move || tell_all(&live, &connection, &reports, &over)));
        }
        {
            let (live, connection, over) = (live.clone(), connection.clone(), over.clone());
            let (told, reports) = (told.clone(), Arc::clone(&reports));
            threads.push(std::thread::spawn(move || {
                answer_all(&live, &connection, answers, (&told, &reports), &ear);
                over.store(true, Ordering::Release);
                live.news.changed.notify_all();
                ear(Heard::Ended);
            }));
        }
        let location = introduction.location;
        let start = identity.nonce;
        Ok(Member {
            peer,
            connection,
            location,
            start,
            told,
            reports,
            rules,
            sets_owner,
            mode,
            pulls,
            answers,
            over,
            live,
            threads,
        })
    }

    /// Did it join this very root, opened once?
    #[must_use]
    pub fn is_of(&self, live: &Arc<Live>) -> bool {
        Arc::ptr_eq(&self.live, live)
    }

    /// A number that the root there takes anew whenever it is opened.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whose it is.
    #[must_use]
    pub fn peer(&self) -> Id {
        self.peer
    }

    /// What it may do here.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// May this side take from it what it has?
    #[must_use]
    pub fn may_be_pulled(&self) -> bool {
        self.pulls
    }

    /// Where it is at present.
    #[must_use]
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.connection.address()
    }

    /// Has the connection ended?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// How good the way there is.
    #[must_use]
    pub fn quality(&self) -> PathQuality {
        self.connection.quality()
    }

    /// Tells it how the way and the exchange look from here.
    pub fn report(&self, report: Report) {
        let changed = std::mem::replace(&mut lock(&self.reports).ours, report) != report;
        if changed {
            self.live.tell();
        }
    }

    /// How the way and the exchange look from there, as it told last.
    #[must_use]
    pub fn reported(&self) -> Option<Report> {
        lock(&self.reports).theirs
    }

    /// Its newest sequence number, as it told last.
    #[must_use]
    pub fn seq(&self) -> u64 {
        lock(&self.told).seq
    }

    /// Ends the connection.
    pub fn leave(&self) {
        self.connection.close(CloseCode::Done);
    }

    fn told(&self) -> Ready {
        lock(&self.told).clone()
    }

    fn facts_of(&self, told: &Ready) -> Facts {
        let speaker = Speaker::Machine(self.peer);
        let location = self.location.clone();
        Facts { identity: told.identity, passing: told.passing, location, speaker, decisions: told.decisions }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
        self.live.news.changed.notify_all();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != own) {
            // What became of its questions the side that asked them knows.
            let _ = thread.join();
        }
    }
}

/// The rules that the other side is told.
fn own_rules(live: &Live) -> Result<String, SyncError> {
    host::sendable(&live.rules(), live.root().path())
}

/// Tells the other side what this one is, now and whenever that has changed.
fn tell_all(live: &Live, connection: &Connection, reports: &Mutex<Reports>, over: &AtomicBool) {
    let told = || -> Result<(), SyncError> {
        let peer = connection.peer_id().to_string();
        let failed = |error: ChannelError| SyncError::of_remote(&peer, error);
        let mut channel = Channel::new(connection.open(WAIT).map_err(|error| failed(error.into()))?);
        let (mut last, mut ready, mut report) = (None, None, None);
        while !over.load(Ordering::Acquire) {
            let number = *lock(&live.news.number);
            // Hashes that were recorded to answer a question are no news to anybody, and have a number all the same.
            let told = ready.as_ref().map(|ready: &Ready| ready.seq);
            if last != Some(number) || told != Some(live.opened.state.seq()) {
                let now = live.ready()?;
                if ready.as_ref() != Some(&now) {
                    channel.send(&Message::Ready(now.clone())).map_err(failed)?;
                    ready = Some(now);
                }
                let ours = lock(reports).ours;
                if report != Some(ours) {
                    channel.send(&Message::Report(ours)).map_err(failed)?;
                    report = Some(ours);
                }
                channel.flush().map_err(failed)?;
                last = Some(number);
            }
            let now = lock(&live.news.number);
            let unchanged = |now: &mut u64| last == Some(*now) && !over.load(Ordering::Acquire);
            drop(live.news.changed.wait_timeout_while(now, GLANCE, unchanged));
        }
        channel.finish().map_err(failed)
    };
    if told().is_err() {
        // Whoever does not hear of this side any more is better off with another connection.
        connection.close(CloseCode::Failed);
    }
}

/// Answers what the other side asks, and hears what it tells, until the connection ends.
fn answer_all(
    live: &Live,
    connection: &Connection,
    may_read: bool,
    (told, reports): (&Mutex<Ready>, &Mutex<Reports>),
    ear: &Ear,
) {
    let heard = |what: Told| {
        let ready = match what {
            Told::Ready(ready) => ready,
            Told::Report(report) => {
                lock(reports).theirs = Some(report);
                return;
            }
        };
        {
            let mut told = lock(told);
            let same =
                |a: &Ready, b: &Ready| (a.identity.replica, a.identity.instance) == (b.identity.replica, b.identity.instance);
            if !same(&told, &ready) {
                // It is another replica now: the two must meet anew.
                connection.close(CloseCode::Done);
                return;
            }
            *told = ready;
        }
        ear(Heard::News);
    };
    let allowed = || if may_read { Ok(()) } else { Err("this machine may not read the folder".to_owned()) };
    let (gate, parked) = (Gate::new(&allowed), Parked::default());
    accept_all(connection, &|stream| {
        let asker = Speaker::Machine(connection.peer_id());
        let here = Here { heard: Some(&heard), ..live.opened.here(asker, Some(&gate)) };
        // What goes wrong is told to the side that asks.
        let _ = respond(stream, &here, &parked);
    });
}

/// Did a scan fail because the root is not what it was?
#[must_use]
pub fn is_root_lost(error: &SyncError) -> bool {
    match error {
        SyncError::Scan(ScanError::RootChanged { .. } | ScanError::Unmarked { .. }) => true,
        SyncError::Scan(ScanError::Fs(error)) | SyncError::Fs(error) => error.is_missing(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;
    use crate::wire::{Refusal, Remembered};

    #[test]
    fn what_a_scan_did_not_look_at_is_as_it_was_known() {
        let paths = |paths: &str| -> Vec<RelPath> {
            paths.split_whitespace().map(|path| RelPath::parse(path.as_bytes()).unwrap()).collect()
        };
        for (known, only, found, missing) in [
            ("", "mnt", "mnt", "mnt"),
            ("mnt", "other", "", "mnt"),
            ("mnt", "mnt/below", "mnt", "mnt"),
            ("a/mnt mnt", "a", "", "mnt"),
            ("mnt", "mnt b", "b/mnt", "b/mnt"),
            ("mnt", "", "a", "a"),
        ] {
            assert_eq!(still_missing(&paths(known), &paths(only), &paths(found)), paths(missing), "{known}; {only}; {found}");
        }
    }

    #[test]
    fn joining_waits_for_nobody_and_takes_a_new_identity_only_in_turn() {
        let folder = tempfile::tempdir().unwrap();
        let live = Live::open("folder".parse().unwrap(), folder.path(), Options::standard(), false, &Silent).unwrap();
        let before = live.opened.state.id();
        let ahead = Introduction { remembers: vec![Remembered { replica: before, counter: 9, nonce: 9 }], ..nobody() };
        let work = live.opened.work();
        live.meet(&nobody(), &Silent).unwrap();
        assert!(matches!(live.meet(&ahead, &Silent), Err(SyncError::Refuse { code: Refusal::Busy, .. })));
        assert_eq!(live.opened.state.id(), before);
        drop(work);
        live.meet(&ahead, &Silent).unwrap();
        assert_ne!(live.opened.state.id(), before);
    }
}
