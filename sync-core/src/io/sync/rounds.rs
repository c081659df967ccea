//! A run that goes on: once both roots are in sync it waits until something changes in either, looks there, and brings the two
//! together again, round after round.
//!
//! Each round is a run of its own in all that it decides, guards and records; what is spared is opening the roots and looking at all
//! of them. What changed here a lookout tells; what changed on another machine, that one.

use super::carried::Carried;
use super::drive;
use super::end::{End, LocalEnd, RulesNow, ScanTerms};
use super::lookout::{Lookout, Noticed};
use super::news::News;
use super::opened::Opened;
use super::{Options, Place, Report, Side, Sync, SyncError};
use crate::ignore::Rules;
use crate::io::link::Traffic;
use crate::io::scan::Scanned;
use crate::path::RelPath;
use crate::report::{Monitor, Phase};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often a round begins anew at once because the other root, which nothing stops from changing, had changed meanwhile.
const OUTRUN: usize = 3;

/// Two roots that are kept in sync.
pub struct Rounds {
    sync: Sync,
    /// Of the roots on this machine.
    near: [Option<Near>; 2],
    news: Arc<News>,
    /// How much of the news was looked at.
    heard: u64,
    /// Where either root misses a file system, as far as the last round knew.
    unavailable: Vec<RelPath>,
    begun: bool,
    /// The last round left something that may be done without anything else happening.
    unfinished: bool,
}

/// A root of this machine.
struct Near {
    opened: Arc<Opened>,
    lookout: Lookout,
    carried: Carried,
}

/// What came of a round.
#[derive(Debug)]
pub struct Round {
    /// What it did; what stays in conflict is told in each.
    pub report: Report,
    /// The ignore rules changed: the roots are to be opened anew.
    pub anew: bool,
}

impl Rounds {
    /// Opens both roots and listens for changes in them. Nothing was looked at yet.
    ///
    /// # Errors
    /// As [`Sync::open_with`].
    pub fn open(a: Place, b: Place, options: Options, quiet: Duration, monitor: &dyn Monitor) -> Result<Rounds, SyncError> {
        let options = Options { watched: Some(quiet), dry_run: false, ..options };
        let sync = Sync::unscanned(a, b, options, monitor)?;
        let news = sync.news.clone().unwrap_or_default();
        let rules: Vec<Rules> = sync.rules.iter().chain([&sync.run_rules]).cloned().collect();
        let near = [Side::A, Side::B].map(|side| {
            let opened = sync.halves[side.index()].local.clone()?;
            let rules = rules.clone();
            let ignored = Arc::new(move |path: &RelPath, dir: bool| rules.iter().any(|rules| rules.ignores(path, dir)));
            let lookout = Lookout::begin(opened.clone(), ignored, quiet, news.clone());
            Some(Near { opened, lookout, carried: Carried::default() })
        });
        let heard = news.number();
        Ok(Rounds { sync, near, news, heard, unavailable: Vec::new(), begun: false, unfinished: false })
    }

    /// Waits until there is something to look at, for so long at the most. Is there?
    pub fn wait(&mut self, time: Duration) -> bool {
        self.news.beyond(self.heard, time) != self.heard
    }

    /// Did the last round leave something that may be done without anything else happening, such as a path that failed?
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// What crossed the link so far, as seen from A's side.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.sync.traffic()
    }

    /// Looks where something changed, the first time at everything, and brings both roots together.
    ///
    /// # Errors
    /// As [`Sync::apply`]: the roots are to be opened anew then. What was done is recorded.
    pub fn round(&mut self, monitor: &dyn Monitor) -> Result<Round, SyncError> {
        self.heard = self.news.number();
        let mut outrun = 0;
        loop {
            match self.one(monitor) {
                Err(SyncError::Outrun(_)) if outrun < OUTRUN && !monitor.cancelled() => outrun += 1,
                done => return done,
            }
        }
    }

    fn one(&mut self, monitor: &dyn Monitor) -> Result<Round, SyncError> {
        self.sync.started = Instant::now();
        monitor.phase(Phase::Scan, None, None);
        self.look(monitor)?;
        let failed = self.sync.scanned.iter().any(|scanned| scanned.failed > 0);
        // What was left alone for want of a file system is asked for again.
        let mounts = self.unavailable != self.sync.unavailable;
        let begun = std::mem::replace(&mut self.begun, true);
        if (!begun || !mounts) && drive::quiet(&self.sync.halves, &self.sync.options)? {
            self.unavailable.clone_from(&self.sync.unavailable);
            self.unfinished = failed;
            self.tidy(monitor)?;
            let achieved = drive::Achieved { complete: true, ..Default::default() };
            return Ok(Round { report: self.sync.report(&achieved), anew: false });
        }
        self.sync.count(monitor)?;
        let (asked, halves) = self.sync.split();
        let achieved = drive::pull(halves, &asked, monitor)?;
        let report = self.sync.report(&achieved);
        for (near, totals) in self.near.iter_mut().zip(&achieved.totals) {
            near.iter_mut().for_each(|near| near.carried.created(totals.created + totals.conflicts));
        }
        // A conflict that is left open waits for somebody who decides.
        let open = report.totals.iter().any(|totals| totals.skipped > 0);
        self.unfinished = failed || report.totals.iter().any(|totals| totals.failed > 0) || (!achieved.complete && !open);
        let finished = self.finish(monitor);
        match achieved.stopped {
            Some(stopped) => Err(stopped),
            None if achieved.cancelled => Err(SyncError::Cancelled),
            None => {
                self.unavailable.clone_from(&self.sync.unavailable);
                Ok(Round { report, anew: finished? })
            }
        }
    }

    /// Looks at both roots at the same time.
    fn look(&mut self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let Rounds { sync, near: [near_a, near_b], .. } = self;
        let Sync { halves: [a, b], rules, options, run_rules, .. } = sync;
        let terms = ScanTerms { options, rules, run_rules, skip_placed: false, watch: None };
        let (first, second) = thread::scope(|scope| {
            let second = scope.spawn(|| look_at(&mut b.end, (near_b.as_mut(), Side::B), &terms, monitor));
            let first = look_at(&mut a.end, (near_a.as_mut(), Side::A), &terms, monitor);
            // A panic in a scan is a defect: it goes on in this thread.
            (first, second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        if monitor.cancelled() {
            return Err(SyncError::Cancelled);
        }
        self.sync.scanned = [first?, second?];
        self.sync.scan_time = self.sync.started.elapsed();
        self.sync.unavailable = self.sync.scanned.iter().flat_map(|scanned| scanned.unavailable.iter().cloned()).collect();
        Ok(())
    }

    /// What is of no use any more goes; on another machine by its own care.
    fn tidy(&mut self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        for (near, half) in self.near.iter_mut().zip(&mut self.sync.halves) {
            if near.as_mut().is_some_and(|near| near.carried.tidies()) {
                half.end.tidy(&self.sync.options, monitor)?;
            }
        }
        Ok(())
    }

    /// Remembers what is to be kept of the round. Did the ignore rules change?
    fn finish(&mut self, monitor: &dyn Monitor) -> Result<bool, SyncError> {
        let mut anew = false;
        for side in [Side::A, Side::B] {
            let at = side.index();
            let there = self.sync.halves[1 - at].there.clone();
            let tidies = self.near[at].as_mut().is_none_or(|near| near.carried.tidies());
            let now = match &self.near[at] {
                Some(near) if !tidies => LocalEnd::new(near.opened.clone(), self.sync.rules[at].clone(), side).rules_now(monitor),
                _ => self.sync.halves[at].end.finish(&*there, &self.sync.options, monitor)?,
            };
            anew |= !matches!(now, RulesNow::Same);
        }
        Ok(anew)
    }
}

/// Looks at one root: here where something was noticed; another machine knows itself where.
fn look_at(
    end: &mut Box<dyn End>,
    (near, side): (Option<&mut Near>, Side),
    terms: &ScanTerms<'_>,
    monitor: &dyn Monitor,
) -> Result<Scanned, SyncError> {
    let Some(near) = near else { return end.scan(terms, monitor) };
    near.lookout.texts().iter().for_each(|text| monitor.notice(text));
    let noticed = near.lookout.take();
    let mut next = near.carried.next(end.spent(), &near.opened, &terms.rules[side.index()], side);
    let looked = near.carried.look((&mut next, &near.opened), &noticed, terms, monitor);
    *end = Box::new(next);
    near.lookout.put_back(match &looked {
        // Nobody may tell of them again.
        Ok(scanned) => Noticed::Paths(scanned.problems.iter().map(|problem| problem.path.clone()).collect()),
        Err(_) => noticed,
    });
    looked
}
