//! `driftless sync`: plan, ask where somebody is there to answer, apply, report.

use crate::cli::SyncArgs;
use crate::exit::{Exit, Usage};
use crate::output::Output;
use crate::render;
use crate::run::{Outcome, Run, policy};
use crate::tally::{Tally, foresee};
use anyhow::{Context, Result};
use std::io::{BufRead, IsTerminal};
use std::time::Duration;
use sync_core::io::sync::{Plan, Policy, Report, Side, Sync};

/// Problems that are listed in the form for people; the JSON lines have them all.
const PROBLEMS_LISTED: usize = 100;
/// Lines of a terminal that a plan leaves for its heads, totals and the question.
const LINES_BESIDE_PLAN: usize = 10;
/// Items of each side that are shown on a terminal of unknown height.
const ITEMS_SHOWN: usize = 20;

enum Mode {
    Look,
    Batch,
    Ask,
}

/// What a user answers to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Apply(Policy),
    Quit,
}

/// Synchronises two roots.
pub(super) fn run(args: &SyncArgs, output: &Output) -> Result<Exit> {
    let mode = mode(args)?;
    let run = Run::begin(&args.run, output, args.verbose)?;
    let ended = match mode {
        Mode::Look => run.look(),
        Mode::Batch => batch(&run),
        Mode::Ask => ask(&run),
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
    let policy = policy(run.args);
    let mut tally = Tally::default();
    let plan = sync.plan(&run.listener, &mut |side, item| {
        tally.add(side, item, foresee(item, policy));
    })?;
    run.tell_plan(&plan, &tally);
    apply(run, &mut sync)
}

fn ask(run: &Run<'_>) -> Result<Outcome> {
    let mut sync = run.open(false)?;
    let scan = run.elapsed();
    let mut view = View::new(policy(run.args));
    let plan = sync.plan(&run.listener, &mut |side, item| view.add(side, item))?;
    if view.tally.items > 0 {
        view.show(run, &plan);
        match question(run, &view)? {
            Answer::Apply(policy) if policy != view.policy => sync.set_conflicts(policy),
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
    let report = sync.apply(&run.listener)?;
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
        let root = render::quoted(&render::root(&run.args.a));
        output.line(&format!("see: driftless conflicts {root}"));
    }
    if outcome.failed > 0 {
        output.line(&format!("{} failed", render::counted(outcome.failed, "path", "paths")));
    }
}

/// The part of a plan that a terminal shows, and its counts.
struct View {
    policy: Policy,
    limit: usize,
    shown: [Vec<String>; 2],
    hidden: [u64; 2],
    tally: Tally,
}

impl View {
    fn new(policy: Policy) -> View {
        let limit = match terminal_size::terminal_size() {
            Some((_, height)) => (usize::from(height.0).saturating_sub(LINES_BESIDE_PLAN) / 2).max(5),
            None => ITEMS_SHOWN,
        };
        View { policy, limit, shown: Default::default(), hidden: [0; 2], tally: Tally::default() }
    }

    fn add(&mut self, side: Side, item: &sync_core::plan::Item) {
        let done = foresee(item, self.policy);
        if !self.tally.add(side, item, done) || done == sync_core::report::Done::Skipped {
            return;
        }
        let at = crate::tally::index(side);
        if self.shown[at].len() < self.limit {
            self.shown[at].push(render::planned_item(item));
        } else {
            self.hidden[at] += 1;
        }
    }

    fn show(&self, run: &Run<'_>, plan: &Plan) {
        let output = run.output();
        for side in [Side::B, Side::A] {
            let at = crate::tally::index(side);
            if self.shown[at].is_empty() {
                continue;
            }
            output.talk(&render::direction(side, run.roots()));
            self.shown[at].iter().for_each(|line| output.talk(line));
            if self.hidden[at] > 0 {
                let more = render::count(self.hidden[at]);
                output.talk(&format!("  … and {more} more (--dry-run lists them all)"));
            }
        }
        render::conflicts_left(&self.tally, false).iter().for_each(|line| output.talk(line));
        let size = plan.totals.iter().map(|totals| totals.bytes).sum();
        output.talk(&render::plan_total(&plan.totals, self.tally.skipped(), size));
    }
}

fn question(run: &Run<'_>, view: &View) -> Result<Answer> {
    let choices = choices(view, run.args.conflicts.is_some());
    let words: Vec<&str> = choices.iter().map(|(_, text, _)| *text).collect();
    let text = format!("{}?", words.join(", "));
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut line = String::new();
        let read = run.listener.progress.hidden(|| {
            run.listener.interrupt.end_at_once_during(|| {
                run.output().ask(&text)?;
                stdin.read_line(&mut line)
            })
        });
        // The end of the input is nobody's consent.
        if read.context("cannot read the answer")? == 0 {
            return Ok(Answer::Quit);
        }
        let given = line.trim();
        if let Some((_, _, answer)) = choices.iter().find(|(key, _, _)| given.eq_ignore_ascii_case(key)) {
            return Ok(*answer);
        }
        let keys: Vec<&str> = choices.iter().map(|(key, _, _)| *key).collect();
        run.output().talk(&format!("please answer with one of {}", keys.join(", ")));
    }
}

/// Keys, texts and meanings of the possible answers.
fn choices(view: &View, policy_given: bool) -> Vec<(&'static str, &'static str, Answer)> {
    let mut choices = Vec::new();
    let (open, settled) = (view.tally.skipped(), view.tally.settled);
    if view.tally.changes() > 0 {
        choices.push(match open {
            0 => ("a", "[a]pply all", Answer::Apply(view.policy)),
            _ => ("a", "[a]pply and leave the conflicts open", Answer::Apply(view.policy)),
        });
    }
    if settled > 0 {
        choices.push(("w", "apply [w]ithout the conflicts", Answer::Apply(Policy::Skip)));
    }
    if open > 0 && !policy_given {
        choices.push(("b", "keep [b]oth versions of each conflict", Answer::Apply(Policy::KeepBoth)));
        choices.push(("n", "keep the [n]ewer version of each conflict", Answer::Apply(Policy::Newer)));
    }
    choices.push(("q", "[q]uit", Answer::Quit));
    choices
}
