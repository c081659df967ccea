//! `driftless sync`: plan, ask where somebody is there to answer, apply, report.

use crate::ask::{self, Answer, View};
use crate::cli::SyncArgs;
use crate::exit::{Exit, Usage};
use crate::location::Location;
use crate::monitor::PROBLEMS_LISTED;
use crate::output::Output;
use crate::render;
use crate::run::{Outcome, Run, policy};
use crate::tally::{Tally, foresee};
use anyhow::Result;
use std::io::IsTerminal;
use std::time::Duration;
use sync_core::io::sync::{Report, Side, Sync};
use sync_core::plan::Item;

enum Mode {
    Look,
    Batch,
    Ask,
}

/// Synchronises two roots.
pub(super) fn run(args: &SyncArgs, output: &Output) -> Result<Exit> {
    let mode = mode(args)?;
    let run = Run::begin(&args.run, output, args.verbose)?;
    let ended = match mode {
        Mode::Look => run.look(),
        Mode::Batch => batch(&run),
        Mode::Ask => interactive(&run),
    };
    run.end(ended)
}

fn mode(args: &SyncArgs) -> Result<Mode> {
    if args.dry_run {
        return Ok(Mode::Look);
    }
    if args.batch {
        return Ok(Mode::Batch);
    }
    if args.run.json {
        let text = "nobody reads a question among JSON lines: give --batch to apply, or --dry-run to look";
        return Err(Usage(text.into()).into());
    }
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let text = "there is no terminal to ask on: give --batch to apply, or --dry-run to look";
        return Err(Usage(text.into()).into());
    }
    Ok(Mode::Ask)
}

fn batch(run: &Run<'_>) -> Result<Outcome> {
    let mut sync = run.open(false)?;
    if run.output().is_json() {
        let policy = policy(run.args);
        let mut tally = Tally::default();
        let mut each = |side, item: &Item| {
            tally.add(side, item, foresee(item, policy));
        };
        let plan = run.step(&mut sync, |sync| sync.plan(&run.listener, &mut each))?;
        run.tell_plan(&plan, &tally);
    }
    apply(run, &mut sync)
}

fn interactive(run: &Run<'_>) -> Result<Outcome> {
    let mut sync = run.open(false)?;
    let scan = run.elapsed();
    let policy = policy(run.args);
    let mut view = View::new(policy);
    let plan = run.step(&mut sync, |sync| sync.plan(&run.listener, &mut |side, item| view.add(side, item)))?;
    if view.tally.items > 0 {
        match ask::ask(run, &view, &plan)? {
            Answer::Apply(chosen) if chosen != policy => sync.set_conflicts(chosen),
            Answer::Apply(_) => {}
            Answer::Quit => return Ok(quit(run, &view.tally, scan)),
        }
    }
    // Even without a visible item there is something to record: what each root now knows of the other.
    apply(run, &mut sync)
}

fn quit(run: &Run<'_>, tally: &Tally, scan: Duration) -> Outcome {
    run.output().talk("nothing was changed");
    Outcome {
        in_sync: false,
        totals: Default::default(),
        conflicts: tally.conflicts(),
        skipped: tally.items,
        failed: 0,
        scan,
        total: run.elapsed(),
    }
}

fn apply(run: &Run<'_>, sync: &mut Sync) -> Result<Outcome> {
    let report = run.step(sync, |sync| sync.apply(&run.listener))?;
    run.listener.progress.clear();
    let outcome = run.achieved(&report);
    tell_problems(run, &report);
    tell_result(run, &outcome);
    Ok(outcome)
}

fn tell_problems(run: &Run<'_>, report: &Report) {
    if run.output().is_json() {
        return;
    }
    for (side, problem) in report.problems.iter().take(PROBLEMS_LISTED) {
        let root = match side {
            Side::A => run.roots()[0],
            Side::B => run.roots()[1],
        };
        run.output().talk(&render::problem(root, problem));
    }
    if report.problems.len() > PROBLEMS_LISTED {
        let more = render::count((report.problems.len() - PROBLEMS_LISTED) as u64);
        run.output().talk(&format!("… and {more} more failed; --json lists them all"));
    }
}

fn tell_result(run: &Run<'_>, outcome: &Outcome) {
    let text = render::both_sides(&outcome.totals, render::DONE);
    if text == render::NOTHING && outcome.in_sync && outcome.failed == 0 {
        return run.tell_nothing_to_do();
    }
    let output = run.output();
    let size = outcome.totals.iter().map(|totals| totals.bytes).sum();
    output.line(&format!("{text} ({})", render::volume(size, outcome.total)));
    let settled = outcome.conflicts - outcome.skipped;
    if settled > 0 {
        output.line(&format!("{} settled", render::counted(settled, "conflict", "conflicts")));
    }
    if outcome.skipped > 0 {
        output.line(&format!("{} left open:", render::counted(outcome.skipped, "conflict", "conflicts")));
        render::conflicts_left(&run.listener.tally(), false).iter().for_each(|line| output.line(line));
        if let Some(root) = run.roots().into_iter().find(|root| matches!(root, Location::Local(_))) {
            output.line(&format!("see: driftless conflicts {}", render::quoted(&root.to_string())));
        }
    }
    if outcome.failed > 0 {
        output.line(&format!("{} failed", render::counted(outcome.failed, "path", "paths")));
    }
}
