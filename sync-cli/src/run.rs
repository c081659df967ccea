//! One run of two roots, as `sync` and `status` share it: options, planning, and the end with its summary.

use crate::bridge::Bridge;
use crate::cli::{CompressChoice, ConflictChoice, RunArgs, SideChoice};
use crate::exit::{self, Exit};
use crate::json::{Event, ItemLine, SummaryLine};
use crate::location::Location;
use crate::monitor::Listener;
use crate::output::Output;
use crate::progress::Stopwatch;
use crate::reach::{Reached, reach};
use crate::render;
use crate::tally::{Tally, foresee};
use anyhow::Result;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use sync_core::entry::AttrMask;
use sync_core::io::link::Traffic;
use sync_core::io::sync::{Options, Packing, Plan, Policy, Report, Side, Sync, SyncError, Totals, Transfer};
use sync_core::plan::Item;
use sync_core::report::Done;
use sync_core::reserve::Reserve;

/// A run under way.
pub(crate) struct Run<'a> {
    pub(crate) args: &'a RunArgs,
    pub(crate) listener: Listener<'a>,
    watch: Stopwatch,
    /// What crossed links so far; nothing does between two local roots.
    traffic: Cell<Traffic>,
    /// They end with the run, and not before.
    bridges: RefCell<Vec<Bridge>>,
}

/// What came out of a run.
pub(crate) struct Outcome {
    pub(crate) in_sync: bool,
    pub(crate) totals: [Totals; 2],
    pub(crate) conflicts: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    pub(crate) scan: Duration,
    pub(crate) total: Duration,
}

impl<'a> Run<'a> {
    /// Begins; signals are taken over from here on.
    pub(crate) fn begin(args: &'a RunArgs, output: &'a Output, verbose: bool) -> Result<Run<'a>> {
        let watch = Stopwatch::start();
        let listener = Listener::new(output, watch, verbose)?;
        Ok(Run { args, listener, watch, traffic: Cell::default(), bridges: RefCell::default() })
    }

    /// Where results go.
    pub(crate) fn output(&self) -> &'a Output {
        self.listener.output
    }

    /// The roots, first and second.
    pub(crate) fn roots(&self) -> [&'a Location; 2] {
        [&self.args.a, &self.args.b]
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Reaches, opens and scans both roots.
    pub(crate) fn open(&self, dry_run: bool) -> Result<Sync> {
        let tell = |text: &str| self.output().talk_safely(text);
        if self.args.transfer.bwlimit.0.is_some() && self.roots().iter().all(|root| matches!(root, Location::Local(_))) {
            tell("--bwlimit limits what crosses a link, and both folders are on this machine: nothing is limited");
        }
        let Reached { places: [a, b], bridges } = reach(self.args, &self.listener.interrupt, &tell)?;
        *self.bridges.borrow_mut() = bridges;
        let sync = Sync::open_with(a, b, options(self.args, dry_run), &self.listener)?;
        self.traffic.set(sync.traffic());
        Ok(sync)
    }

    /// A step of an opened run; what crossed links in it is counted, whatever came of it.
    pub(crate) fn step<T>(&self, sync: &mut Sync, step: impl FnOnce(&mut Sync) -> Result<T, SyncError>) -> Result<T> {
        let done = step(sync);
        self.traffic.set(sync.traffic());
        Ok(done?)
    }

    /// Plans and prints everything that would be done; changes nothing.
    pub(crate) fn look(&self) -> Result<Outcome> {
        let mut sync = self.open(true)?;
        let scan = self.elapsed();
        let (policy, output) = (policy(self.args), self.output());
        let (mut tally, mut last) = (Tally::default(), None);
        let mut each = |side, item: &Item| {
            let done = foresee(item, policy);
            let Some(item) = tally.add(side, item, done) else { return };
            let (side, result) = match done {
                Done::Skipped => (None, "skipped"),
                Done::Done | Done::Failed => (Some(side), "planned"),
            };
            output.event(&Event::Item(ItemLine::of(&item, side, result)));
            // Open conflicts change neither side: they have a list of their own below.
            if let Some(side) = side {
                if last != Some(side) {
                    output.line(&render::direction(side, self.roots()));
                    last = Some(side);
                }
                output.line(&render::planned_item(&item));
            }
        };
        let plan = self.step(&mut sync, |sync| sync.plan(&self.listener, &mut each))?;
        self.tell_plan(&plan, &tally);
        render::conflicts_left(&tally, true).iter().for_each(|line| output.line(line));
        let outcome = self.looked(&plan, &tally, scan);
        self.tell_what_would_be(&outcome, &tally);
        Ok(outcome)
    }

    /// The JSON line of a plan.
    pub(crate) fn tell_plan(&self, plan: &Plan, tally: &Tally) {
        let bytes = plan.totals.iter().map(|totals| totals.bytes).sum();
        self.output().event(&Event::Plan { items: tally.items, bytes });
    }

    /// What a finished run achieved.
    pub(crate) fn achieved(&self, report: &Report) -> Outcome {
        let tally = self.listener.tally();
        // A path that could not be read fails before there is an item for it.
        let failed: u64 = report.totals.iter().map(|totals| totals.failed).sum();
        Outcome {
            in_sync: report.in_sync,
            totals: tally.with_conflicts(report.totals),
            conflicts: tally.conflicts(),
            skipped: tally.skipped(),
            failed: failed.max(report.problems.len() as u64),
            scan: report.scan,
            total: report.total,
        }
    }

    /// A signal to the whole terminal ends ssh too: what fails for it is the end that the user wanted.
    fn as_stopped(&self, error: anyhow::Error) -> anyhow::Error {
        let broken_off =
            matches!(error.downcast_ref(), Some(SyncError::Remote { .. } | SyncError::Source(_) | SyncError::Apply(_)));
        if broken_off && self.listener.interrupt.asked() { SyncError::Cancelled.into() } else { error }
    }

    /// Ends the run with its summary, or with the summary of an error, and passes the error on.
    pub(crate) fn end(self, ended: Result<Outcome>) -> Result<Exit> {
        self.listener.progress.clear();
        match ended {
            Ok(outcome) => {
                self.output().event(&Event::Summary(self.summary(&outcome)));
                Ok(Exit::of_run(outcome.in_sync, outcome.failed))
            }
            Err(error) => {
                let error = self.as_stopped(error);
                let done = self.so_far();
                let error_text = Some(exit::words(&error));
                self.output().event(&Event::Summary(SummaryLine { error: error_text, ..self.summary(&done) }));
                let text = render::both_sides(&done.totals, render::DONE);
                if text != render::NOTHING {
                    self.output().line(&format!("done before it stopped: {text}"));
                }
                Err(error)
            }
        }
    }

    fn looked(&self, plan: &Plan, tally: &Tally, scan: Duration) -> Outcome {
        let problems = self.listener.problems();
        Outcome {
            in_sync: tally.items == 0 && problems == 0,
            totals: tally.with_conflicts(plan.totals),
            conflicts: tally.conflicts(),
            skipped: tally.skipped(),
            failed: problems,
            scan,
            total: self.elapsed(),
        }
    }

    /// What the items told before an error ended the run.
    fn so_far(&self) -> Outcome {
        let tally = self.listener.tally();
        Outcome {
            in_sync: false,
            totals: tally.totals,
            conflicts: tally.conflicts(),
            skipped: tally.skipped(),
            failed: tally.totals.iter().map(|totals| totals.failed).sum(),
            scan: Duration::ZERO,
            total: self.elapsed(),
        }
    }

    fn tell_what_would_be(&self, outcome: &Outcome, tally: &Tally) {
        if outcome.in_sync {
            return self.tell_nothing_to_do();
        }
        let size: u64 = outcome.totals.iter().map(|totals| totals.bytes).sum();
        if tally.items > 0 {
            self.output().line(&render::plan_total(&outcome.totals, tally.skipped(), size));
        }
        self.tell_failed(outcome.failed);
    }

    /// What failed while it was only looked at: the first problems, and how many there are. JSON lines have told of each.
    fn tell_failed(&self, failed: u64) {
        if failed == 0 || self.output().is_json() {
            return;
        }
        let told = self.listener.first_problems();
        told.iter().for_each(|problem| self.output().talk(&render::problem_alone(problem)));
        if failed > told.len() as u64 {
            let more = render::count(failed - told.len() as u64);
            self.output().talk(&format!("… and {more} more failed; --json lists them all"));
        }
        self.output().line(&format!("{} failed", render::counted(failed, "path", "paths")));
    }

    fn summary(&self, outcome: &Outcome) -> SummaryLine {
        let sum = |field: fn(&Totals) -> u64| outcome.totals.iter().map(field).sum();
        SummaryLine {
            in_sync: outcome.in_sync,
            created: sum(|totals| totals.created),
            updated: sum(|totals| totals.updated),
            deleted: sum(|totals| totals.deleted),
            moved: sum(|totals| totals.moved),
            conflicts: outcome.conflicts,
            skipped: outcome.skipped,
            failed: outcome.failed,
            bytes_sent: self.traffic.get().sent,
            bytes_received: self.traffic.get().received,
            scan_ms: millis(outcome.scan),
            total_ms: millis(outcome.total),
            error: None,
        }
    }

    /// The line of a run that found both roots equal.
    pub(crate) fn tell_nothing_to_do(&self) {
        let entries = render::counted(self.listener.progress.scanned(), "entry", "entries");
        self.output().line(&format!("in sync: nothing to do ({entries} looked at)"));
    }
}

/// The policy for conflicts that the arguments ask for.
pub(crate) fn policy(args: &RunArgs) -> Policy {
    match args.conflicts {
        None | Some(ConflictChoice::Skip) => Policy::Skip,
        Some(ConflictChoice::KeepBoth) => Policy::KeepBoth,
        Some(ConflictChoice::Newer) => Policy::Newer,
        Some(ConflictChoice::Older) => Policy::Older,
        Some(ConflictChoice::A) => Policy::Wins(Side::A),
        Some(ConflictChoice::B) => Policy::Wins(Side::B),
    }
}

/// What the arguments ask for.
pub(crate) fn options(args: &RunArgs, dry_run: bool) -> Options {
    Options {
        conflicts: policy(args),
        force: args.force.map(|side| match side {
            SideChoice::A => Side::A,
            SideChoice::B => Side::B,
        }),
        paths: args.paths.clone(),
        ignore: args.ignore.clone(),
        max_delete: if args.allow_delete { None } else { Some(args.max_delete) },
        checksum: args.checksum,
        keep_versions: args.keep_versions.0,
        reserve: Reserve::NONE,
        mask: AttrMask::standard(rustix::process::geteuid().is_root()),
        rejoin: args.rejoin,
        state_dir: args.state.state_dir.clone(),
        dry_run,
        transfer: Transfer {
            packing: match args.transfer.compress {
                CompressChoice::Auto => Packing::Auto,
                CompressChoice::On => Packing::On,
                CompressChoice::Off => Packing::Off,
            },
            whole_files: args.transfer.whole_file,
            limit: args.transfer.bwlimit.0,
        },
        known: false,
        watched: None,
    }
}

/// Whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
