//! Listens to a run that goes on: prints each change as it is made, and what stays as it is once, however often it is met again.

use crate::json::{Event, ItemLine, ProblemLine};
use crate::output::Output;
use crate::progress::{Progress, Stopwatch};
use crate::render;
use crate::signals::Interrupt;
use crate::tally::Tally;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use sync_core::io::sync::{Report, Side};
use sync_core::path::RelPath;
use sync_core::plan::Item;
use sync_core::report::{Done, Monitor, Phase, Problem};

/// Problems that are remembered as told; of more than the engine lists at once nobody can tell which are over.
const TOLD: usize = 10_000;

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
    /// Problems that were told, by path: what went wrong.
    problems: BTreeMap<RelPath, String>,
    /// Items that were told as failed.
    items: BTreeSet<RelPath>,
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

    /// A round is over: what it did not meet any more is told again should it come back.
    pub(crate) fn round_ended(&self, report: &Report) {
        if self.first.swap(false, Ordering::Relaxed) {
            self.progress.clear();
        }
        let mut met = self.met();
        let conflicts = std::mem::take(&mut met.conflicts);
        self.tally().left.retain(|path, _| conflicts.contains(path));
        let failing: BTreeSet<&RelPath> = report.problems.iter().map(|(_, problem)| &problem.path).collect();
        if failing.len() < TOLD {
            met.problems.retain(|path, _| failing.contains(path));
            met.items.retain(|path| failing.contains(path));
        }
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
        {
            let mut met = self.met();
            let told = met.problems.get(&problem.path) == Some(&problem.error);
            if told || (met.problems.len() >= TOLD && !met.problems.contains_key(&problem.path)) {
                return;
            }
            met.problems.insert(problem.path.clone(), problem.error.clone());
        }
        self.output.event(&Event::Problem(ProblemLine::of(problem)));
        if !self.output.is_json() {
            self.output.talk(&render::problem_alone(problem));
        }
    }

    fn item(&self, item: &Item, here: usize, done: Done) {
        let side = if here == 0 { Side::A } else { Side::B };
        match done {
            Done::Skipped => drop(self.met().conflicts.insert(item.path.clone())),
            Done::Failed if !self.met().items.insert(item.path.clone()) => return,
            Done::Failed | Done::Done => {}
        }
        if !self.tally().add(side, item, done) {
            return;
        }
        let (side, result) = match done {
            Done::Done => (Some(side), "done"),
            Done::Failed => (Some(side), "failed"),
            Done::Skipped => (None, "skipped"),
        };
        self.output.event(&Event::Item(ItemLine::of(item, side, result)));
        self.output.line(&render::done_item(item, side, done));
    }

    fn notice(&self, text: &str) {
        self.output.talk_safely(&format!("note: {text}"));
    }

    fn cancelled(&self) -> bool {
        self.interrupt.asked()
    }
}
