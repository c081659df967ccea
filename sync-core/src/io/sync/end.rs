//! One root of a run, wherever it is, and what a run does with it: scanned, looked at, pulled into, finished.
//!
//! [`LocalEnd`] does it to a root of this machine; for a root on another machine, messages ask a `LocalEnd` there.

use super::guard::Guard;
use super::marker;
use super::opened::Opened;
use super::pulls::{OnePull, Terms, nothing_open, only_conflicts, only_ignored};
use super::survey::{self, OneSurvey};
use super::unread::Reads;
use super::{Options, Side, SyncError, Totals};
use super::{keeping, roots};
use crate::ignore::Rules;
use crate::io::scan::{self, Scan, Scanned};
use crate::io::stage::shortfall;
use crate::io::there::There;
use crate::io::watch::Beside;
use crate::path::RelPath;
use crate::plan::Item;
use crate::report::{Monitor, Problem};
use crate::reserve::Reserve;
use crate::store::{Filter, Listing};
use std::path::Path;
use std::sync::Arc;

/// What a scan needs to know.
#[derive(Clone, Copy)]
pub(super) struct ScanTerms<'a> {
    pub(super) options: &'a Options,
    /// The rules that stand in A and in B.
    pub(super) rules: &'a [Rules; 2],
    pub(super) run_rules: &'a Rules,
    /// What lies in a cold root is looked at another time.
    pub(super) skip_placed: bool,
    /// Watches what is looked at, in a look at everything.
    pub(super) watch: Option<&'a Beside>,
}

/// What a pull into a root would do.
#[derive(Debug, Default)]
pub(super) struct Surveyed {
    pub(super) totals: Totals,
    /// Why it is not to be carried out.
    pub(super) stopped: Option<SyncError>,
}

/// What a pull into a root did.
#[derive(Debug, Default)]
pub(super) struct Pulled {
    pub(super) totals: Totals,
    pub(super) problems: Vec<Problem>,
    /// Nothing is left that the other side has and this one does not.
    pub(super) whole: bool,
    /// Nothing is left but conflicts that somebody is to decide: to try again is of no use.
    pub(super) decided: bool,
    pub(super) cancelled: bool,
    /// Once all open paths are settled, a pull that looks at everything raises what is known.
    pub(super) again: bool,
    /// It made events, of which the other side must hear.
    pub(super) news: bool,
    /// Files of which nothing is decided before they are read.
    pub(super) unread: u64,
    /// Why it was not begun.
    pub(super) stopped: Option<SyncError>,
}

/// The ignore rules that stand in a root at the end of a run.
#[derive(Debug)]
pub(super) enum RulesNow {
    /// Those of its beginning.
    Same,
    /// Others.
    Other(Rules),
    /// They cannot be used any more, and the user was told.
    Unusable,
}

/// One root of a run.
pub(super) trait End: Send {
    /// Finds what changed in the root, and records it.
    fn scan(&mut self, terms: &ScanTerms<'_>, monitor: &dyn Monitor) -> Result<Scanned, SyncError>;

    /// What the root knows after the scan: its listing without rows. `None` if there was no scan.
    fn root(&self) -> Result<Option<Listing>, SyncError>;

    /// What a pull from `there` would do; `each` sees every item, in the order in which it would be done.
    fn survey(
        &mut self,
        there: &dyn There,
        asked: &Terms<'_>,
        each: Option<&mut dyn FnMut(&Item)>,
        monitor: &dyn Monitor,
    ) -> Result<Surveyed, SyncError>;

    /// Pulls from `there`. `number`: how many pulls the run has done before, into either root.
    fn pull(&mut self, there: &dyn There, asked: &Terms<'_>, number: u32, monitor: &dyn Monitor) -> Result<Pulled, SyncError>;

    /// Old versions go, and what else is of no use any more.
    fn tidy(&mut self, options: &Options, monitor: &dyn Monitor) -> Result<(), SyncError>;

    /// Remembers what is to be kept of the run.
    fn finish(&mut self, there: &dyn There, options: &Options, monitor: &dyn Monitor) -> Result<RulesNow, SyncError>;

    /// How much its pulls have deleted, as far as it counts that itself.
    fn spent(&self) -> u64 {
        0
    }
}

/// A root of this machine.
pub(super) struct LocalEnd {
    opened: Arc<Opened>,
    /// The rules that stood in it at the beginning.
    rules: Rules,
    /// Which side of the run it is.
    side: Side,
    guard: Option<Guard>,
    /// What went before it, and counts.
    spent: u64,
    surveyed: Option<OneSurvey>,
    /// How much it reads of what it cannot decide without.
    reads: Reads,
    pulls: u32,
}

impl LocalEnd {
    pub(super) fn new(opened: Arc<Opened>, rules: Rules, side: Side) -> LocalEnd {
        LocalEnd { opened, rules, side, guard: None, spent: 0, surveyed: None, reads: Reads::All, pulls: 0 }
    }

    /// The first path that the last survey found to be changed here.
    pub(super) fn first_awaited(&self) -> Option<&RelPath> {
        self.surveyed.as_ref().and_then(OneSurvey::first)
    }

    /// Files that the last survey left to be read another time.
    pub(super) fn unread(&self) -> u64 {
        self.surveyed.as_ref().map_or(0, OneSurvey::unread)
    }

    /// Its pulls leave open what would take long to read.
    pub(super) fn with_others_waiting(self) -> LocalEnd {
        LocalEnd { reads: Reads::Little, ..self }
    }

    /// So many paths went before, which count for its guard.
    pub(super) fn with_spent(self, spent: u64) -> LocalEnd {
        LocalEnd { spent, ..self }
    }

    fn guard(&mut self, options: &Options) -> Result<&mut Guard, SyncError> {
        if self.guard.is_none() {
            self.guard = Some(Guard::new(&self.opened, options.max_delete, self.spent)?);
        }
        Ok(self.guard.as_mut().expect("it was just made"))
    }

    fn path(&self) -> &Path {
        self.opened.root.path()
    }

    /// What does not fit fails path by path, and comes with a later run; the user hears of it before. Where something is kept free, pulls go
    /// on and on, and each path tells for itself.
    fn warn_of_space(&self, totals: &Totals, reserve: Reserve, monitor: &dyn Monitor) -> Result<(), SyncError> {
        if reserve != Reserve::NONE {
            return Ok(());
        }
        if let Some(missing) = shortfall(&self.opened.root, totals.bytes, reserve)? {
            let root = self.path().display();
            monitor.notice(&format!("{root}: {missing} bytes more are needed than are free; what does not fit will fail"));
        }
        Ok(())
    }
}

impl LocalEnd {
    /// The ignore rules that stand in the root, against those of the beginning.
    pub(super) fn rules_now(&self, monitor: &dyn Monitor) -> RulesNow {
        match roots::rules(&self.opened.root) {
            Ok(rules) if rules.text() == self.rules.text() => RulesNow::Same,
            Ok(rules) => RulesNow::Other(rules),
            Err(error) => {
                monitor.notice(&format!("the ignore rules cannot be used any more: {error}"));
                RulesNow::Unusable
            }
        }
    }

    /// Finds what changed in the root, and records it. The marker is left as it is.
    pub(super) fn look(&mut self, terms: &ScanTerms<'_>, monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        let ScanTerms { options, rules, run_rules, skip_placed, watch } = *terms;
        let opened = self.opened.clone();
        let _work = opened.work();
        let ignore = |path: &RelPath, dir: bool| rules.iter().chain([run_rules]).any(|rules| rules.ignores(path, dir));
        let ignores_any = rules.iter().chain([run_rules]).any(|rules| !rules.is_empty());
        let scan = Scan {
            root: &self.opened.root,
            state: &self.opened.state,
            ignore: ignores_any.then_some(&ignore as scan::Ignore<'_>),
            only: &options.paths,
            checksum: options.checksum,
            skip_placed,
            watch,
            mask: options.mask,
            granularity_ns: self.opened.granularity_ns,
            monitor,
        };
        let scanned = scan::scan_while(&scan, &|| marker::check(&self.opened))?;
        if monitor.cancelled() {
            return Err(SyncError::Cancelled);
        }
        if options.force == Some(self.side) && scanned.failed > 0 {
            return Err(SyncError::Guard(format!(
                "{} cannot be read completely, and what cannot be read must not be taken for absent in a mirror run; \
                 nothing was changed. Make it readable, or run without --force",
                self.path().display()
            )));
        }
        Ok(scanned)
    }
}

impl End for LocalEnd {
    fn scan(&mut self, terms: &ScanTerms<'_>, monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        let scanned = self.look(terms, monitor)?;
        // What the scan recorded belongs to the tree as it is now, and to no earlier one.
        let _work = self.opened.work();
        marker::advance(&self.opened)?;
        Ok(scanned)
    }

    fn root(&self) -> Result<Option<Listing>, SyncError> {
        let header = Filter::header();
        Ok(Some(self.opened.state.listing(&RelPath::root(), &header)?))
    }

    fn survey(
        &mut self,
        there: &dyn There,
        asked: &Terms<'_>,
        each: Option<&mut dyn FnMut(&Item)>,
        monitor: &dyn Monitor,
    ) -> Result<Surveyed, SyncError> {
        let opened = self.opened.clone();
        let mut pull = OnePull::new(self.side, &opened, there, asked)?;
        pull.reads = self.reads;
        let surveyed = OneSurvey::of(&pull, crate::io::apply::OFFERS, monitor)?;
        if let Some(each) = each {
            surveyed.tell(&pull, each)?;
        }
        let totals = surveyed.totals();
        let stopped = self.guard(asked.options)?.check(&opened, totals.deleted, false).err();
        self.surveyed = Some(surveyed);
        Ok(Surveyed { totals, stopped })
    }

    fn pull(&mut self, there: &dyn There, asked: &Terms<'_>, number: u32, monitor: &dyn Monitor) -> Result<Pulled, SyncError> {
        let opened = self.opened.clone();
        let _work = opened.work();
        let (counter, live) = (opened.state.counter(), opened.state.live()?);
        let mut pull = OnePull::new(self.side, &opened, there, asked)?;
        (pull.reads, pull.again) = (self.reads, self.pulls > 0);
        let mut surveyed = self.surveyed.take();
        if let Some(surveyed) = &surveyed {
            pull.terms.apart = surveyed.apart();
        }
        let moves = surveyed.as_mut().map(OneSurvey::take_moves).unwrap_or_default();
        let changed = number > 0;
        let guard = self.guard(asked.options)?;
        // A survey was made before anything was done: every pull but the first is measured as it is now.
        let (planned, gone) = match &surveyed {
            Some(surveyed) if !changed => (surveyed.totals().deleted, surveyed.gone()),
            _ => survey::deletions(&pull, |deleted| guard.check(&opened, deleted, changed).is_ok())?,
        };
        if let Err(stopped) = guard.check(&opened, planned, changed) {
            return Ok(Pulled { stopped: Some(stopped), ..Pulled::default() });
        }
        if let Some(surveyed) = &surveyed {
            self.warn_of_space(&surveyed.totals(), asked.options.reserve, monitor)?;
        }
        keeping::note_seen(&opened, there)?;
        let run = pull.run(moves, gone, monitor);
        if run.is_err() {
            self.guard(asked.options)?.broken_off(&opened, live)?;
        }
        let (outcome, applied) = match run {
            // Whatever was broken off for it: what was done before is recorded.
            Err(SyncError::Source(_) | SyncError::Apply(_) | SyncError::Remote { .. }) if monitor.cancelled() => {
                return Err(SyncError::Cancelled);
            }
            run => run?,
        };
        pull.remember(&outcome, &applied)?;
        let created = applied.totals.created + applied.totals.conflicts;
        let stopped = self.guard(asked.options)?.done(&opened, planned, created, live)?;
        let whole_walk = outcome.complete || !pull.terms.may_raise || !pull.terms.scope.is_empty();
        let whole = (applied.complete && whole_walk) || only_ignored(&applied);
        let decided = whole || only_conflicts(&applied);
        let unread = applied.unread.count();
        let again = pull.settling && nothing_open(&applied);
        let news = opened.state.counter() > counter;
        let (mut totals, mut problems) = (applied.totals, applied.problems);
        if self.pulls > 0 {
            // In a second pull the same open paths are met again: they count once.
            (totals.conflicts, totals.skipped, totals.failed) = (0, 0, 0);
            problems.clear();
        }
        self.pulls += 1;
        Ok(Pulled { totals, problems, whole, decided, cancelled: applied.cancelled, again, news, unread, stopped })
    }

    fn tidy(&mut self, options: &Options, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let _work = self.opened.work();
        if options.dry_run { Ok(()) } else { keeping::tidy(&self.opened, options, monitor) }
    }

    fn finish(&mut self, there: &dyn There, options: &Options, monitor: &dyn Monitor) -> Result<RulesNow, SyncError> {
        let _work = self.opened.work();
        keeping::remember(&self.opened, there, options, monitor)?;
        Ok(self.rules_now(monitor))
    }

    fn spent(&self) -> u64 {
        self.guard.as_ref().map_or(0, Guard::spent)
    }
}
