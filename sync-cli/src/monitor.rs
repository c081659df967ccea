//! Listens to a run: counts, shows progress, prints items where they were asked for, and hands on Ctrl-C.

use crate::json::{Event, ItemLine, ProblemLine};
use crate::output::Output;
use crate::progress::{Progress, Stopwatch};
use crate::render;
use crate::signals::Interrupt;
use crate::tally::Tally;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use sync_core::io::sync::Side;
use sync_core::plan::Item;
use sync_core::report::{Done, Monitor, Phase, Problem};

/// Problems that are listed in the form for people; the JSON lines have them all.
pub(crate) const PROBLEMS_LISTED: usize = 100;

/// What one run told so far.
pub(crate) struct Listener<'a> {
    pub(crate) output: &'a Output,
    pub(crate) progress: Progress<'a>,
    pub(crate) interrupt: Interrupt,
    verbose: bool,
    tally: Mutex<Tally>,
    problems: AtomicU64,
    first_problems: Mutex<Vec<Problem>>,
}

impl<'a> Listener<'a> {
    /// Begins to listen. `verbose`: each item is printed as it is done.
    pub(crate) fn new(output: &'a Output, watch: Stopwatch, verbose: bool) -> anyhow::Result<Listener<'a>> {
        Ok(Listener {
            output,
            progress: Progress::new(output, watch),
            interrupt: Interrupt::install()?,
            verbose,
            tally: Mutex::default(),
            problems: AtomicU64::new(0),
            first_problems: Mutex::default(),
        })
    }

    /// How many paths failed so far.
    pub(crate) fn problems(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// The first [`PROBLEMS_LISTED`] of them.
    pub(crate) fn first_problems(&self) -> MutexGuard<'_, Vec<Problem>> {
        // A list that only grows: a panic elsewhere leaves it usable.
        self.first_problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted so far.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        // Plain numbers: a panic elsewhere leaves them usable.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor for Listener<'_> {
    fn phase(&self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        self.progress.phase(phase, files, bytes);
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.progress.advance(files, bytes);
    }

    fn problem(&self, problem: &Problem) {
        self.problems.fetch_add(1, Ordering::Relaxed);
        self.output.event(&Event::Problem(ProblemLine::of(problem)));
        let mut first = self.first_problems();
        if first.len() < PROBLEMS_LISTED {
            first.push(problem.clone());
        }
    }

    fn item(&self, item: &Item, here: usize, done: Done) {
        let side = if here == 0 { Side::A } else { Side::B };
        let Some(item) = self.tally().add(side, item, done) else { return };
        let (side, result) = match done {
            Done::Done => (Some(side), "done"),
            Done::Failed => (Some(side), "failed"),
            Done::Skipped => (None, "skipped"),
        };
        self.output.event(&Event::Item(ItemLine::of(&item, side, result)));
        if self.verbose {
            self.output.line(&render::done_item(&item, side, done));
        }
    }

    fn notice(&self, text: &str) {
        self.output.talk_safely(&format!("note: {text}"));
    }

    fn cancelled(&self) -> bool {
        self.interrupt.asked()
    }
}
