//! One two-way synchronisation of two roots: open, look, plan, apply, report. The face of the library.

mod guard;
mod marker;
mod pulls;
mod replica;
mod roots;
mod survey;
#[cfg(test)]
mod tests;

pub use crate::plan::Totals;
pub use replica::{Keep, KeptVersion, OpenConflict, Replica};

use crate::entry::AttrMask;
use crate::ignore::{RuleError, Rules};
use crate::io::apply::{ApplyError, VersionError};
use crate::io::fs::FsError;
use crate::io::scan::{self, Scan, ScanError, Scanned};
use crate::io::stage::shortfall;
use crate::io::state::StateError;
use crate::path::{RelPath, escape};
use crate::plan::Item;
use crate::reconcile::{self, End};
use crate::report::{Monitor, Phase, Problem};
use guard::Guard;
use pulls::Pulled;
use roots::{Opened, Pair};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use survey::Survey;

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
    /// Replicated attributes.
    pub mask: AttrMask,
    /// Accept a root whose state or marker was lost as a new replica.
    pub rejoin: bool,
    /// Where the states are kept instead of `.driftless` in each root.
    pub state_dir: Option<PathBuf>,
    /// Nothing but looking: roots that were never synchronised get no `.driftless`.
    pub dry_run: bool,
}

/// Why a run stopped before anything was changed, or could not be finished. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A guard stopped the run before anything was changed.
    #[error("{0}")]
    Guard(String),
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
    /// A root could not be walked.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Applying had to stop as a whole.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Kept versions could not be listed, restored or removed.
    #[error(transparent)]
    Version(#[from] VersionError),
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
            mask: AttrMask::standard(rustix::process::geteuid().is_root()),
            rejoin: false,
            state_dir: None,
            dry_run: false,
        }
    }
}

/// Two roots, opened, locked and scanned.
pub struct Sync {
    pair: Pair,
    options: Options,
    run_rules: Rules,
    survey: Option<Survey>,
    scanned: [Scanned; 2],
    /// Where either root misses a file system.
    unavailable: Vec<RelPath>,
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
        let started = Instant::now();
        let run_rules = Rules::parse(&options.ignore.join("\n"))?;
        let pair = roots::open(a, b, &options, monitor)?;
        monitor.phase(Phase::Scan, None, None);
        let scan_one = |opened: &Opened| {
            let ignore = |path: &RelPath, dir: bool| pair.rules.iter().chain([&run_rules]).any(|rules| rules.ignores(path, dir));
            let ignores_any = pair.rules.iter().chain([&run_rules]).any(|rules| !rules.is_empty());
            scan::scan(&Scan {
                root: &opened.root,
                state: &opened.state,
                ignore: ignores_any.then_some(&ignore as scan::Ignore<'_>),
                only: &options.paths,
                checksum: options.checksum,
                mask: options.mask,
                granularity_ns: opened.granularity_ns,
                monitor,
            })
        };
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| scan_one(&pair.sides[1]));
            let first = scan_one(&pair.sides[0]);
            // A panic in a scan is a defect: it goes on in this thread.
            (first, second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        if monitor.cancelled() {
            return Err(SyncError::Cancelled);
        }
        let scanned = [first?, second?];
        if let Some(side) = options.force
            && scanned[side.index()].failed > 0
        {
            return Err(SyncError::Guard(format!(
                "{} cannot be read completely, and what cannot be read must not be taken for absent in a mirror run; \
                 nothing was changed. Make it readable, or run without --force",
                pair.sides[side.index()].root.path().display()
            )));
        }
        // What the scan recorded belongs to the trees as they are now, and to no earlier ones.
        pair.sides.iter().try_for_each(marker::advance)?;
        let unavailable = scanned.iter().flat_map(|scanned| scanned.unavailable.iter().cloned()).collect();
        Ok(Sync { pair, options, run_rules, survey: None, scanned, unavailable, scan_time: started.elapsed(), started })
    }

    /// Decides what would be done, and checks the guards that need no disk. `each` sees every item, with the side
    /// that changes, in the order in which they would be done.
    ///
    /// # Errors
    /// A guard stops the run; a state cannot be read.
    pub fn plan(&mut self, monitor: &dyn Monitor, each: &mut dyn FnMut(Side, &Item)) -> Result<Plan, SyncError> {
        let survey = self.look(monitor)?;
        survey.tell(&self.pair, &self.terms(), each)?;
        let plan = Plan { totals: survey.totals() };
        self.guard(&survey)?;
        self.survey = Some(survey);
        Ok(plan)
    }

    /// As [`Sync::plan`] without the items: only the numbers.
    ///
    /// # Errors
    /// As [`Sync::plan`].
    pub fn count(&mut self, monitor: &dyn Monitor) -> Result<Plan, SyncError> {
        let survey = self.look(monitor)?;
        let plan = Plan { totals: survey.totals() };
        self.guard(&survey)?;
        self.survey = Some(survey);
        Ok(plan)
    }

    /// Carries the plan out. Calls [`Sync::count`] first if nothing was planned yet.
    ///
    /// # Errors
    /// A guard stops the run, a root or a state fails as a whole, or the user stopped it; what was done is recorded.
    pub fn apply(&mut self, monitor: &dyn Monitor) -> Result<Report, SyncError> {
        if self.survey.is_none() {
            self.count(monitor)?;
        }
        let survey = self.survey.take().unwrap_or_default();
        let totals = survey.totals();
        let files = totals.iter().map(|t| t.created + t.updated + t.deleted + t.moved).sum();
        monitor.phase(Phase::Apply, Some(files), Some(totals.iter().map(|t| t.bytes).sum()));
        self.warn_of_space(&totals, monitor)?;
        let pulled = pulls::both(&self.pair, &self.terms(), survey, monitor)?;
        let mut report = self.report(&pulled);
        roots::remember(&self.pair, &self.options, monitor)?;
        match pulled.stopped {
            Some(stopped) => Err(stopped),
            None if pulled.cancelled => Err(SyncError::Cancelled),
            None => {
                // What was ignored when the roots were scanned may differ.
                report.in_sync &= !self.ignores_less(monitor);
                Ok(report)
            }
        }
    }

    /// Did the run, or somebody meanwhile, change the files of rules so that less is ignored than when the roots were scanned?
    fn ignores_less(&self, monitor: &dyn Monitor) -> bool {
        let mut now = Vec::new();
        for opened in &self.pair.sides {
            match roots::rules(&opened.root) {
                Ok(rules) => now.push(rules),
                Err(error) => {
                    monitor.notice(&format!("the ignore rules cannot be used any more: {error}"));
                    return true;
                }
            }
        }
        let less = self.pair.rules.iter().any(|before| !now.iter().any(|now| before.is_part_of(now)));
        if less {
            monitor.notice("the ignore rules changed in this run: run again to synchronise what is not ignored any more");
        }
        less
    }

    /// Changes the conflict policy between looking at the plan and applying it.
    pub fn set_conflicts(&mut self, policy: Policy) {
        self.options.conflicts = policy;
        self.survey = None;
    }

    /// Files, directories and links that the scan looked at, on both roots together.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.scanned.iter().map(|scanned| scanned.entries).sum()
    }

    fn look(&self, monitor: &dyn Monitor) -> Result<Survey, SyncError> {
        monitor.phase(Phase::Plan, None, None);
        let survey = Survey::of(&self.pair, &self.terms(), monitor)?;
        if monitor.cancelled() { Err(SyncError::Cancelled) } else { Ok(survey) }
    }

    fn terms(&self) -> pulls::Terms<'_> {
        pulls::Terms { options: &self.options, run_rules: &self.run_rules, unavailable: &self.unavailable }
    }

    /// Deletions beyond the limit stop the run before anything was changed.
    fn guard(&self, survey: &Survey) -> Result<(), SyncError> {
        let guard = Guard::new(&self.pair, self.options.max_delete)?;
        let sides = [Side::A, Side::B].into_iter().zip(survey.totals());
        sides.into_iter().try_for_each(|(side, totals)| guard.check(&self.pair, side, totals.deleted))
    }

    /// What does not fit fails path by path, and comes with a later run; the user hears of it before.
    fn warn_of_space(&self, totals: &[Totals; 2], monitor: &dyn Monitor) -> Result<(), SyncError> {
        for (opened, totals) in self.pair.sides.iter().zip(totals) {
            if let Some(missing) = shortfall(&opened.root, totals.bytes)? {
                let root = opened.root.path().display();
                monitor.notice(&format!("{root}: {missing} bytes more are needed than are free; what does not fit will fail"));
            }
        }
        Ok(())
    }

    fn report(&self, pulled: &Pulled) -> Report {
        let mut problems: Vec<(Side, Problem)> = Vec::new();
        for (side, scanned) in [Side::A, Side::B].into_iter().zip(&self.scanned) {
            problems.extend(scanned.problems.iter().map(|problem| (side, problem.clone())));
        }
        problems.extend(pulled.problems.iter().cloned());
        problems.truncate(scan::PROBLEMS);
        let mut totals = pulled.totals;
        for (totals, scanned) in totals.iter_mut().zip(&self.scanned) {
            totals.failed += scanned.failed;
        }
        let in_sync = pulled.complete && totals.iter().all(|t| t.failed == 0 && t.skipped == 0);
        Report { in_sync, totals, problems, scan: self.scan_time, total: self.started.elapsed() }
    }
}
