//! One two-way synchronisation of two roots: open, look, plan, apply, report. The face of the library.

mod answering;
mod apart;
mod asking;
mod by_hand;
mod carried;
mod checkup;
mod conflicts;
mod drive;
mod end;
mod going;
mod grant;
mod guard;
mod guest;
mod host;
mod keeping;
mod lender;
mod live;
mod lookout;
mod marker;
mod meeting;
mod member;
mod news;
mod opened;
mod patience;
mod pulls;
mod replica;
mod roots;
mod rounds;
mod serving;
mod survey;
mod teller;
mod unread;
mod wishes;
#[cfg(test)]
mod tests;

pub use crate::plan::Totals;
pub use crate::wire::{Account, Caller, MAX_AGE_S, MAX_TOLD_LINKS, Reaches, Report as LinkReport, Tie, Way};
pub use crate::wire::{Packing, Transfer};
pub use by_hand::{Keep, KeptVersion, OpenConflict};
pub use checkup::{Checkup, Looked, StateLook, check_up};
pub use grant::Grants;
pub use guest::Remote;
pub use host::{Ears, Export, Host, HostOptions, Kept, Served};
pub use lender::{Lender, NotLent};
pub use live::{Brought, Live, Standing, is_root_lost};
pub use member::{Ear, Heard, Member};
pub use replica::Replica;
pub use rounds::{Round, Rounds};
pub use unread::Read;

use crate::entry::AttrMask;
use crate::ignore::{RuleError, Rules};
use crate::io::apply::{ApplyError, VersionError};
use crate::io::channel::ChannelError;
use crate::io::fs::FsError;
use crate::io::link::{Connection, Traffic};
use crate::io::places::PlaceError;
use crate::io::scan::{self, ScanError, Scanned};
use crate::io::source::SourceError;
use crate::io::state::StateError;
use crate::path::{RelPath, escape};
use crate::peer::Mode;
use crate::plan::Item;
use crate::reconcile::{self, End};
use crate::report::{Monitor, Phase, Problem};
use crate::reserve::Reserve;
use crate::wire::{Refusal, Refused};
use answering::Answering;
use drive::{Achieved, Half, Tell};
use end::{LocalEnd, ScanTerms};
use guest::Greeted;
use news::News;
use opened::Opened;
use roots::Candidate;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How conflicts are decided. What loses goes to the kept versions.
pub type Policy = reconcile::Policy<Side>;

/// One of the two roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first root.
    A,
    /// The second root.
    B,
}

/// How many deletions stop a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxDelete {
    /// More than so many on one root.
    Count(u64),
    /// More than this share (0–100) of the live paths of a root.
    Percent(f64),
}

/// What a run may do.
#[derive(Debug, Clone)]
pub struct Options {
    /// How conflicts are decided.
    pub conflicts: Policy,
    /// Mirror this side: every difference is decided for it.
    pub force: Option<Side>,
    /// Only these paths and what is below; empty: everything.
    pub paths: Vec<RelPath>,
    /// Ignore rules of this run, gitignore syntax.
    pub ignore: Vec<String>,
    /// The deletion guard; `None` lifts it.
    pub max_delete: Option<MaxDelete>,
    /// Re-read every file.
    pub checksum: bool,
    /// How long replaced and deleted versions are kept; `None`: not at all.
    pub keep_versions: Option<Duration>,
    /// What stays free on the file systems of roots here, for which content is brought.
    pub reserve: Reserve,
    /// Replicated attributes.
    pub mask: AttrMask,
    /// Accept a root whose state or marker was lost as a new replica.
    pub rejoin: bool,
    /// Where the states are kept instead of `.driftless` in each root.
    pub state_dir: Option<PathBuf>,
    /// Nothing but looking: roots that were never synchronised get no `.driftless`.
    pub dry_run: bool,
    /// How content crosses a link, both ways.
    pub transfer: Transfer,
    /// The roots of this machine were open before: one without a marker is a disk that is not mounted, and no new root.
    pub known: bool,
    /// The run goes on ([`Rounds`]): both sides tell of changes once nothing more changed for so long.
    pub watched: Option<Duration>,
}

/// Why a run stopped before anything was changed, or could not be finished. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A guard stopped the run before anything was changed.
    #[error("{0}")]
    Guard(String),
    /// A root or its state is not what it was. Nothing was changed: to begin anew from the files is for the user to decide.
    #[error("{0}")]
    Anew(Anew),
    /// More was to go than had been found out before: the other root changed meanwhile, or does not tell the truth. What was done
    /// before is recorded.
    #[error("{0}")]
    Outrun(String),
    /// A root is missing, held by another process, or of another kind than expected.
    #[error("{0}")]
    Root(String),
    /// The user stopped the run; what was done is recorded.
    #[error("stopped; what was done is recorded")]
    Cancelled,
    /// An ignore rule cannot be read.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// An ignore rule that stands in a root cannot be read.
    #[error("{}: {source}", escape(path.as_os_str().as_bytes()))]
    RuleFile {
        /// The file of rules.
        path: PathBuf,
        /// The rule.
        source: RuleError,
    },
    /// A state cannot be opened, read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A call on a root failed where no single path is to blame.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// What lies in a cold root cannot be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A root could not be walked.
    #[error(transparent)]
    Scan(ScanError),
    /// The other machine cannot be worked with.
    #[error("{}: {source}", escape(shown.as_bytes()))]
    Remote {
        /// What the user calls it.
        shown: String,
        /// Why not.
        source: ChannelError,
    },
    /// What another machine asks for is refused.
    #[error("refused: {text}")]
    Refuse {
        /// For programs.
        code: Refusal,
        /// For people.
        text: String,
    },
    /// The source of a pull failed as a whole.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Applying had to stop as a whole.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Kept versions could not be listed, restored or removed.
    #[error(transparent)]
    Version(#[from] VersionError),
}

/// What is not as it was, and how a user has it begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anew {
    before: String,
    way: Option<String>,
    after: String,
}

impl std::fmt::Display for Anew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Anew { before, way, after } = self;
        write!(f, "{before}{}{after}", way.as_deref().unwrap_or("synchronise with --rejoin"))
    }
}

impl Anew {
    /// As another machine is told of it: what is advised is to be done here, unless it is a run, which either side can make.
    fn told_elsewhere(&self) -> String {
        let Anew { before, way, after } = self;
        way.as_ref().map_or_else(|| self.to_string(), |way| format!("{before}{way} there{after}"))
    }
}

/// A planned synchronisation: nothing was changed yet.
#[derive(Debug)]
pub struct Plan {
    /// What changes on A and on B.
    pub totals: [Totals; 2],
}

/// What a run achieved.
#[derive(Debug, Clone)]
pub struct Report {
    /// Are the roots in sync now?
    pub in_sync: bool,
    /// What changed on A and on B.
    pub totals: [Totals; 2],
    /// Paths that failed, up to a limit of 10,000.
    pub problems: Vec<(Side, Problem)>,
    /// Time of the scan.
    pub scan: Duration,
    /// Time of it all.
    pub total: Duration,
}

impl From<ScanError> for SyncError {
    /// One that was stopped is no failure.
    fn from(error: ScanError) -> SyncError {
        match error {
            ScanError::Cancelled => SyncError::Cancelled,
            error => SyncError::Scan(error),
        }
    }
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// 0 for A, 1 for B.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Side::A => 0,
            Side::B => 1,
        }
    }

    /// This side as one of the two ends of a pull that changes `here`.
    fn end(self, here: Side) -> End {
        if self == here { End::Here } else { End::There }
    }
}

impl Options {
    /// The defaults of the command: skip conflicts, at most half of a root deleted, versions kept for 7 days.
    #[must_use]
    pub fn standard() -> Options {
        Options {
            conflicts: Policy::Skip,
            force: None,
            paths: Vec::new(),
            ignore: Vec::new(),
            max_delete: Some(MaxDelete::Percent(50.0)),
            checksum: false,
            keep_versions: Some(Duration::from_secs(7 * 24 * 3600)),
            reserve: Reserve::NONE,
            mask: AttrMask::standard(rustix::process::geteuid().is_root()),
            rejoin: false,
            state_dir: None,
            dry_run: false,
            transfer: Transfer::default(),
            known: false,
            watched: None,
        }
    }
}

impl SyncError {
    /// To begin anew is what the user may decide for, between these two texts.
    fn anew(before: String, after: impl Into<String>) -> SyncError {
        SyncError::Anew(Anew { before, way: None, after: after.into() })
    }

    /// Where that is done by another command than a run, it is this one that is advised.
    fn advising(self, way: Option<&str>) -> SyncError {
        match (self, way) {
            (SyncError::Anew(anew), Some(way)) => SyncError::Anew(Anew { way: Some(way.to_owned()), ..anew }),
            (other, _) => other,
        }
    }

    /// Is it a matter of the other machine or of the link, and nothing that somebody here has to mend?
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        matches!(
            self,
            SyncError::Remote { .. } | SyncError::Source(_) | SyncError::Apply(ApplyError::Source(_)) | SyncError::Outrun(_)
        )
    }

    /// What went wrong with another machine. What it stopped by itself, for a reason that is known here too, is told as here.
    fn of_remote(shown: &str, source: ChannelError) -> SyncError {
        match source {
            ChannelError::Refused(Refused { code: Refusal::Guard, text }) => {
                SyncError::Guard(format!("{shown}: {}", escape(text.as_bytes())))
            }
            ChannelError::Refused(Refused { code: Refusal::Folder | Refusal::Busy, text }) => {
                SyncError::Root(format!("{shown}: {}", escape(text.as_bytes())))
            }
            source => SyncError::Remote { shown: shown.to_owned(), source },
        }
    }
}

/// Where a root is.
pub enum Place {
    /// A folder of this machine.
    Local(PathBuf),
    /// A folder that another machine exports.
    Remote(Remote),
}

/// What a run with another machine needs besides.
struct Across {
    /// Answers what the other machine asks, as long as the run lasts.
    _answering: Vec<Answering>,
    /// That of A's machine, if neither root is here.
    connection: Arc<Connection>,
    /// What had crossed it before the run: the handshake.
    before: Traffic,
    /// Does this side work at present, so that the run goes on? Else it waits for a user.
    working: Arc<AtomicBool>,
}

/// As long as it lives this side works.
struct Working(Option<Arc<AtomicBool>>);

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(working) = &self.0 {
            working.store(false, Ordering::Release);
        }
    }
}

/// Random bytes for a greeting.
fn random_bytes() -> Result<[u8; 32], ChannelError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
    Ok(bytes)
}

/// Two roots, opened, locked and scanned.
pub struct Sync {
    halves: [Half; 2],
    /// The rules that stood in A and in B when the roots were opened.
    rules: [Rules; 2],
    options: Options,
    /// The attributes that both roots can bear. What a root finds on its own disk it judges by all of its own.
    mask: AttrMask,
    run_rules: Rules,
    planned: Option<[Totals; 2]>,
    scanned: [Scanned; 2],
    /// Where either root misses a file system.
    unavailable: Vec<RelPath>,
    /// Neither root has anything that the other does not know.
    quiet: bool,
    across: Option<Across>,
    /// Rings when another machine tells of a change, or its connection ends.
    news: Option<Arc<News>>,
    started: Instant,
    scan_time: Duration,
}

impl Sync {
    /// Opens both roots, checks markers and locks, recovers what a crash left, and scans.
    ///
    /// # Errors
    /// A guard stops it, a root cannot be used, or the user stopped it. Nothing was changed then, but for what a
    /// crash of an earlier run had left half done.
    pub fn open(a: &Path, b: &Path, options: Options, monitor: &dyn Monitor) -> Result<Sync, SyncError> {
        Sync::open_with(Place::Local(a.to_path_buf()), Place::Local(b.to_path_buf()), options, monitor)
    }

    /// As [`Sync::open`], of roots that may be on other machines.
    ///
    /// # Errors
    /// As [`Sync::open`]; the other machine refuses, or cannot be reached any more.
    pub fn open_with(a: Place, b: Place, options: Options, monitor: &dyn Monitor) -> Result<Sync, SyncError> {
        let mut sync = Sync::unscanned(a, b, options, monitor)?;
        sync.scan(monitor)?;
        Ok(sync)
    }

    /// Opens two roots, and looks at neither.
    fn unscanned(a: Place, b: Place, options: Options, monitor: &dyn Monitor) -> Result<Sync, SyncError> {
        let started = Instant::now();
        let run_rules = Rules::parse(&options.ignore.join("\n"))?;
        match (a, b) {
            (Place::Local(a), Place::Local(b)) => {
                let [(a, rules_a), (b, rules_b)] = roots::open(&a, &b, &options, monitor)?;
                let halves = [local_half(Arc::new(a), &rules_a, Side::A), local_half(Arc::new(b), &rules_b, Side::B)];
                let mask = options.mask;
                Ok(Sync::of(halves, [rules_a, rules_b], (options, run_rules, mask), (None, started), None))
            }
            (Place::Local(here), Place::Remote(there)) => {
                Sync::open_across((&here, Side::A), there, (options, run_rules), started, monitor)
            }
            (Place::Remote(there), Place::Local(here)) => {
                Sync::open_across((&here, Side::B), there, (options, run_rules), started, monitor)
            }
            (Place::Remote(a), Place::Remote(b)) => Sync::open_between(a, b, (options, run_rules), started, monitor),
        }
    }

    /// Two roots on other machines: what one asks of the other passes through this one.
    fn open_between(
        a: Remote,
        b: Remote,
        (mut options, run_rules): (Options, Rules),
        started: Instant,
        monitor: &dyn Monitor,
    ) -> Result<Sync, SyncError> {
        let before = a.connection.traffic();
        let (link_a, link_b) = (a.connection.clone(), b.connection.clone());
        let (mut greeted_a, mut greeted_b) = (Greeted::greet(a.clone())?, Greeted::greet(b.clone())?);
        let (of_a, of_b) = (greeted_a.introduce(&b, options.rejoin)?, greeted_b.introduce(&a, options.rejoin)?);
        let mut mask = options.mask;
        mask.owner &= of_a.sets_owner && of_b.sets_owner;
        options.mask = mask;
        let a = greeted_a.open(Side::A, (of_b.introduction, &of_b.rules), &options, monitor)?;
        let b = greeted_b.open(Side::B, (of_a.introduction, &of_a.rules), &options, monitor)?;
        let news = options.watched.map(|_| Arc::<News>::default());
        let relay = |from: &Arc<Connection>, to: &Arc<Connection>| Answering::relay(from.clone(), to.clone(), news.clone());
        let answering = vec![relay(&link_a, &link_b), relay(&link_b, &link_a)];
        let working = Arc::new(AtomicBool::new(true));
        let rules = [a.rules.clone(), b.rules.clone()];
        let stays = stays(&options, &working);
        let halves = [a.half(&stays), b.half(&stays)];
        let across = Across { _answering: answering, connection: link_a, before, working };
        Ok(Sync::of(halves, rules, (options, run_rules, mask), (Some(across), started), news))
    }

    /// A root here, and one on another machine.
    fn open_across(
        (path, side): (&Path, Side),
        remote: Remote,
        (options, run_rules): (Options, Rules),
        started: Instant,
        monitor: &dyn Monitor,
    ) -> Result<Sync, SyncError> {
        let candidate = Candidate::of_run(path, &options, monitor)?;
        if options.known {
            candidate.must_stand()?;
        }
        let introduction = candidate.introduce_to(&remote.location())?;
        let (connection, before) = (remote.connection.clone(), remote.connection.traffic());
        let location = remote.location();
        let guest = Greeted::greet(remote)?.open(side.other(), (introduction, &candidate.rules), &options, monitor)?;
        let mut introduced = guest.opened.introduction.clone();
        introduced.location = location;
        candidate.check(&introduced, &options)?;
        // Who may only read there cannot ask for more: then it is this root that takes another identity.
        if guest.opened.mode != Mode::SendOnly {
            candidate.check_other(&introduced, &options)?;
        }
        let (opened, rules) = candidate.open(&introduced, &options, monitor)?;
        if introduced.identity.is_some_and(|other| other.replica == opened.state.id()) {
            meeting::same_identity(&opened, monitor)?;
        }
        opened.follow(&guest.there().facts()?)?;
        let mut mask = options.mask;
        mask.owner &= guest.opened.sets_owner;
        let opened = Arc::new(opened);
        let news = options.watched.map(|_| Arc::<News>::default());
        let speaker = guest.there().facts()?.speaker;
        let answering = vec![Answering::begin(connection.clone(), opened.clone(), speaker, news.clone())];
        let working = Arc::new(AtomicBool::new(true));
        let here = local_half(opened, &rules, side);
        let there_rules = guest.rules.clone();
        let there = guest.half(&stays(&options, &working));
        let across = Across { _answering: answering, connection, before, working };
        let (halves, rules) = match side {
            Side::A => ([here, there], [rules, there_rules]),
            Side::B => ([there, here], [there_rules, rules]),
        };
        Ok(Sync::of(halves, rules, (options, run_rules, mask), (Some(across), started), news))
    }

    fn of(
        halves: [Half; 2],
        rules: [Rules; 2],
        (options, run_rules, mask): (Options, Rules, AttrMask),
        (across, started): (Option<Across>, Instant),
        news: Option<Arc<News>>,
    ) -> Sync {
        Sync {
            halves,
            rules,
            options,
            mask,
            run_rules,
            planned: None,
            scanned: Default::default(),
            unavailable: Vec::new(),
            quiet: false,
            across,
            news,
            started,
            scan_time: Duration::ZERO,
        }
    }

    /// Looks at both roots.
    fn scan(&mut self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        monitor.phase(Phase::Scan, None, None);
        let _working = self.working();
        let Sync { halves, rules, options, run_rules, .. } = self;
        let terms = ScanTerms { options, rules, run_rules, skip_placed: false, watch: None };
        self.scanned = drive::scan(halves, &terms, monitor)?;
        self.unavailable = self.scanned.iter().flat_map(|scanned| scanned.unavailable.iter().cloned()).collect();
        self.scan_time = self.started.elapsed();
        // Between two roots of this machine nothing is saved by finding out before.
        self.quiet = self.across.is_some() && drive::quiet(&self.halves, &self.options)?;
        self.planned = self.quiet.then(Default::default);
        Ok(())
    }

    /// This side works from here on, until the result is dropped.
    fn working(&self) -> Working {
        working(self.across.as_ref())
    }

    /// What crossed the link so far for this run, as seen from A's side; nothing between two roots of this machine.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let Some(Across { connection, before, .. }) = &self.across else { return Traffic::default() };
        let now = connection.traffic();
        let (sent, received) = (now.sent - before.sent, now.received - before.received);
        if self.halves[0].remote { Traffic { sent: received, received: sent } } else { Traffic { sent, received } }
    }

    /// Decides what would be done, and checks the guards that need no disk. `each` sees every item, with the side
    /// that changes, in the order in which they would be done.
    ///
    /// # Errors
    /// A guard stops the run; a state cannot be read.
    pub fn plan(&mut self, monitor: &dyn Monitor, each: &mut dyn FnMut(Side, &Item)) -> Result<Plan, SyncError> {
        self.look(monitor, Some(each))
    }

    /// As [`Sync::plan`] without the items: only the numbers.
    ///
    /// # Errors
    /// As [`Sync::plan`].
    pub fn count(&mut self, monitor: &dyn Monitor) -> Result<Plan, SyncError> {
        self.look(monitor, None)
    }

    /// Carries the plan out. Calls [`Sync::count`] first if nothing was planned yet.
    ///
    /// # Errors
    /// A guard stops the run, a root or a state fails as a whole, or the user stopped it; what was done is recorded.
    pub fn apply(&mut self, monitor: &dyn Monitor) -> Result<Report, SyncError> {
        if self.planned.is_none() {
            self.count(monitor)?;
        }
        let _working = self.working();
        let totals = self.planned.take().unwrap_or_default();
        let mut both = totals[0];
        both.add(&totals[1]);
        let files = [both.created, both.updated, both.deleted, both.moved].into_iter().fold(0, u64::saturating_add);
        monitor.phase(Phase::Apply, Some(files), Some(both.bytes));
        if self.quiet {
            for half in self.halves.iter_mut().filter(|half| !half.remote) {
                half.end.tidy(&self.options, monitor)?;
            }
            return Ok(self.report(&Achieved { complete: true, ..Achieved::default() }));
        }
        let (asked, halves) = self.split();
        let achieved = drive::pull(halves, &asked, monitor)?;
        let mut report = self.report(&achieved);
        let finished = drive::finish(&mut self.halves, &self.rules, &self.options, monitor);
        match achieved.stopped {
            Some(stopped) => Err(stopped),
            None if achieved.cancelled => Err(SyncError::Cancelled),
            None => {
                let rules = finished?;
                // What was ignored when the roots were scanned may differ.
                report.in_sync &= !self.ignores_less(rules.as_ref(), monitor);
                Ok(report)
            }
        }
    }

    /// Did the run, or somebody meanwhile, change the files of rules so that less is ignored than when the roots were scanned?
    fn ignores_less(&self, now: Option<&[Rules; 2]>, monitor: &dyn Monitor) -> bool {
        let Some(now) = now else { return true };
        let less = self.rules.iter().any(|before| !now.iter().any(|now| before.is_part_of(now)));
        if less {
            monitor.notice("the ignore rules changed in this run: run again to synchronise what is not ignored any more");
        }
        less
    }

    /// Changes the conflict policy between looking at the plan and applying it.
    pub fn set_conflicts(&mut self, policy: Policy) {
        self.options.conflicts = policy;
        self.planned = None;
    }

    /// Files, directories and links that the scan looked at, on both roots together.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.scanned.iter().map(|scanned| scanned.entries).sum()
    }

    /// Deletions beyond the limit stop the run before anything was changed.
    fn look(&mut self, monitor: &dyn Monitor, each: Option<Tell<'_>>) -> Result<Plan, SyncError> {
        monitor.phase(Phase::Plan, None, None);
        if self.quiet {
            return Ok(Plan { totals: Default::default() });
        }
        let _working = self.working();
        let (asked, halves) = self.split();
        let surveyed = drive::survey(halves, &asked, each, monitor)?;
        if monitor.cancelled() {
            return Err(SyncError::Cancelled);
        }
        let totals = [surveyed[0].totals, surveyed[1].totals];
        if let Some(stopped) = surveyed.into_iter().find_map(|surveyed| surveyed.stopped) {
            return Err(stopped);
        }
        self.planned = Some(totals);
        Ok(Plan { totals })
    }

    /// What the pulls are told, and the two sides.
    fn split(&mut self) -> (pulls::Terms<'_>, &mut [Half; 2]) {
        let Sync { halves, rules, options, mask, run_rules, unavailable, .. } = self;
        (pulls::Terms { options, mask: *mask, rules, run_rules, unavailable }, halves)
    }

    fn report(&self, achieved: &Achieved) -> Report {
        let mut problems: Vec<(Side, Problem)> = Vec::new();
        for (side, scanned) in [Side::A, Side::B].into_iter().zip(&self.scanned) {
            problems.extend(scanned.problems.iter().map(|problem| (side, problem.clone())));
        }
        problems.extend(achieved.problems.iter().cloned());
        problems.truncate(scan::PROBLEMS);
        let mut totals = achieved.totals;
        for (totals, scanned) in totals.iter_mut().zip(&self.scanned) {
            totals.failed = totals.failed.saturating_add(scanned.failed);
        }
        let in_sync = achieved.complete && totals.iter().all(|t| t.failed == 0 && t.skipped == 0);
        Report { in_sync, totals, problems, scan: self.scan_time, total: self.started.elapsed() }
    }
}

/// Says that this side works, where another one is to hear of it.
fn working(across: Option<&Across>) -> Working {
    let working = across.map(|across| across.working.clone());
    if let Some(working) = &working {
        working.store(true, Ordering::Release);
    }
    Working(working)
}

/// Does this side stay although it asks for nothing? In a run that goes on it does.
fn stays(options: &Options, working: &Arc<AtomicBool>) -> Arc<AtomicBool> {
    if options.watched.is_some() { Arc::new(AtomicBool::new(true)) } else { working.clone() }
}

fn local_half(opened: Arc<Opened>, rules: &Rules, side: Side) -> Half {
    let end = Box::new(LocalEnd::new(opened.clone(), rules.clone(), side));
    Half { end, there: opened.clone(), reads: true, remote: false, local: Some(opened) }
}
