//! Listens to a run that goes on: prints each change as it is made, and what stays as it is once, however often it is met again.
//!
//! What fails in one round and no more in the next was being written when it was looked at: it is told only once it fails again, or if
//! there is no next round.

use crate::json::{Event, ItemLine, ProblemLine};
use crate::output::Output;
use crate::progress::{Progress, Stopwatch};
use crate::render;
use crate::signals::Interrupt;
use crate::tally::Tally;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use sync_core::io::sync::Side;
use sync_core::path::RelPath;
use sync_core::plan::Item;
use sync_core::report::{Done, Monitor, Phase, Problem};

/// Failures of one round that are kept until the next; what is beyond is told at once.
const KEPT: usize = 10_000;

/// What such a run told so far.
pub(crate) struct Keeper<'a> {
    pub(crate) output: &'a Output,
    pub(crate) progress: Progress<'a>,
    pub(crate) interrupt: Interrupt,
    /// Until the first round is over there is progress to show.
    first: AtomicBool,
    tally: Mutex<Tally>,
    met: Mutex<Met>,
}

/// What failed or was left as it is.
#[derive(Default)]
struct Met {
    /// Conflicts that were met in this round.
    conflicts: BTreeSet<RelPath>,
    /// What failed in this round.
    failing: BTreeMap<RelPath, Failure>,
    /// And in the one before.
    failed: BTreeMap<RelPath, Failure>,
}

/// A path that failed.
#[derive(Default)]
struct Failure {
    problem: Option<Problem>,
    item: Option<(Item, Side)>,
    told: bool,
}

impl<'a> Keeper<'a> {
    /// Begins to listen; signals are taken over from here on.
    pub(crate) fn new(output: &'a Output, watch: Stopwatch) -> anyhow::Result<Keeper<'a>> {
        Ok(Keeper {
            output,
            progress: Progress::new(output, watch),
            interrupt: Interrupt::install()?,
            first: AtomicBool::new(true),
            tally: Mutex::default(),
            met: Mutex::default(),
        })
    }

    /// What was counted so far; open conflicts are those of the last round.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        // Plain numbers: a panic elsewhere leaves them usable.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round is over. What did not fail again, and which conflicts it did not meet any more, is told again should it come back.
    pub(crate) fn round_ended(&self) {
        let first = self.first.swap(false, Ordering::Relaxed);
        if first {
            self.progress.clear();
        }
        let mut met = self.met();
        let conflicts = std::mem::take(&mut met.conflicts);
        {
            let mut tally = self.tally();
            tally.left.retain(|path, _| conflicts.contains(path));
            tally.round_ended();
        }
        let mut failing = std::mem::take(&mut met.failing);
        for (path, failure) in &mut failing {
            let before = met.failed.get(path);
            failure.told = before.is_some_and(|before| before.told && before.problem == failure.problem);
            if (first || before.is_some()) && !failure.told {
                self.tell(failure);
            }
        }
        met.failed = failing;
    }

    /// There is no further round: what failed in the last one is told.
    pub(crate) fn ended(&self) {
        let mut met = self.met();
        let unfinished = std::mem::take(&mut met.failing);
        let told: BTreeSet<RelPath> =
            met.failed.iter().filter(|(_, failure)| failure.told).map(|(path, _)| path.clone()).collect();
        met.failed.values_mut().filter(|failure| !failure.told).for_each(|failure| self.tell(failure));
        for (path, mut failure) in unfinished {
            if !told.contains(&path) && !met.failed.contains_key(&path) {
                self.tell(&mut failure);
            }
        }
    }

    fn tell(&self, failure: &mut Failure) {
        failure.told = true;
        if let Some((item, side)) = &failure.item {
            self.output.event(&Event::Item(ItemLine::of(item, Some(*side), "failed")));
            self.output.line(&render::done_item(item, Some(*side), Done::Failed));
        }
        if let Some(problem) = &failure.problem {
            self.output.event(&Event::Problem(ProblemLine::of(problem)));
            if !self.output.is_json() {
                self.output.talk(&render::problem_alone(problem));
            }
        }
    }

    fn failed(&self, path: &RelPath, note: impl FnOnce(&mut Failure)) {
        let mut met = self.met();
        if met.failing.len() < KEPT || met.failing.contains_key(path) {
            return note(met.failing.entry(path.clone()).or_default());
        }
        drop(met);
        let mut failure = Failure::default();
        note(&mut failure);
        self.tell(&mut failure);
    }
}

impl Monitor for Keeper<'_> {
    fn phase(&self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        if self.first.load(Ordering::Relaxed) {
            self.progress.phase(phase, files, bytes);
        }
    }

    fn advance(&self, files: u64, bytes: u64) {
        if self.first.load(Ordering::Relaxed) {
            self.progress.advance(files, bytes);
        }
    }

    fn problem(&self, problem: &Problem) {
        self.failed(&problem.path, |failure| failure.problem = Some(problem.clone()));
    }

    fn item(&self, item: &Item, here: usize, done: Done) {
        let side = if here == 0 { Side::A } else { Side::B };
        match done {
            Done::Skipped => drop(self.met().conflicts.insert(item.path.clone())),
            Done::Failed => return self.failed(&item.path, |failure| failure.item = Some((item.clone(), side))),
            Done::Done => {}
        }
        let Some(item) = self.tally().add(side, item, done) else { return };
        let (side, result) = if done == Done::Done { (Some(side), "done") } else { (None, "skipped") };
        self.output.event(&Event::Item(ItemLine::of(&item, side, result)));
        self.output.line(&render::done_item(&item, side, done));
    }

    fn notice(&self, text: &str) {
        self.output.talk_safely(&format!("note: {text}"));
    }

    fn cancelled(&self) -> bool {
        self.interrupt.asked()
    }
}
