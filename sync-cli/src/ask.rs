//! The plan on a terminal, as much of it as fits, and the one question about it.

use crate::location::Location;
use crate::output::Output;
use crate::render;
use crate::run::Run;
use crate::tally::{Tally, foresee, index};
use anyhow::{Context, Result};
use std::io::BufRead;
use sync_core::io::sync::{Plan, Policy, Side};
use sync_core::plan::Item;
use sync_core::report::Done;

/// Lines of a terminal that a plan leaves for its heads, totals and the question.
const LINES_BESIDE_PLAN: usize = 10;
/// Items of each side that are shown on a terminal of unknown height.
const ITEMS_SHOWN: usize = 20;

/// What a user answers to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on, with this policy for conflicts.
    Apply(Policy),
    /// Change nothing.
    Quit,
}

/// The part of a plan that a terminal shows, and its counts.
pub(crate) struct View {
    policy: Policy,
    limit: usize,
    shown: [Vec<String>; 2],
    hidden: [u64; 2],
    /// All items, shown or not.
    pub(crate) tally: Tally,
}

impl View {
    /// An empty plan under this policy, for the terminal as high as it is now.
    pub(crate) fn new(policy: Policy) -> View {
        let limit = match terminal_size::terminal_size() {
            Some((_, height)) => (usize::from(height.0).saturating_sub(LINES_BESIDE_PLAN) / 2).max(5),
            None => ITEMS_SHOWN,
        };
        View { policy, limit, shown: Default::default(), hidden: [0; 2], tally: Tally::default() }
    }

    /// Takes the next item of the plan.
    pub(crate) fn add(&mut self, side: Side, item: &Item) {
        let done = foresee(item, self.policy);
        let Some(item) = self.tally.add(side, item, done).filter(|_| done != Done::Skipped) else { return };
        let at = index(side);
        if self.shown[at].len() < self.limit {
            self.shown[at].push(render::planned_item(&item));
        } else {
            self.hidden[at] += 1;
        }
    }

    /// Shows the plan. It is no result yet, so it stands on stderr like the question.
    pub(crate) fn show(&self, output: &Output, roots: [&Location; 2], plan: &Plan) {
        for side in [Side::B, Side::A] {
            let at = index(side);
            if self.shown[at].is_empty() {
                continue;
            }
            output.talk(&render::direction(side, roots));
            self.shown[at].iter().for_each(|line| output.talk(line));
            if self.hidden[at] > 0 {
                let more = render::count(self.hidden[at]);
                output.talk(&format!("  … and {more} more (--dry-run lists them all)"));
            }
        }
        render::conflicts_left(&self.tally, false).iter().for_each(|line| output.talk(line));
        let totals = self.tally.with_conflicts(plan.totals);
        let size = totals.iter().map(|totals| totals.bytes).sum();
        output.talk(&render::plan_total(&totals, self.tally.skipped(), size));
    }
}

/// Shows the plan and asks what to do with it. Nothing is asked if there is nothing to choose.
pub(crate) fn ask(run: &Run<'_>, view: &View, plan: &Plan) -> Result<Answer> {
    view.show(run.output(), run.roots(), plan);
    let choices = choices(view, run.args.conflicts.is_some());
    if choices.is_empty() {
        return Ok(Answer::Apply(view.policy));
    }
    let mut words: Vec<&str> = choices.iter().map(|(_, text, _)| *text).collect();
    words.push("[q]uit");
    let text = format!("{}?", words.join(", "));
    loop {
        let Some(line) = answer(run, &text)? else {
            // The end of the input is nobody's consent, and left the question without the end of its line.
            run.output().talk("");
            return Ok(Answer::Quit);
        };
        let given = line.trim().to_lowercase();
        if given == "q" {
            return Ok(Answer::Quit);
        }
        if let Some((_, _, policy)) = choices.iter().find(|(key, _, _)| given == *key) {
            return Ok(Answer::Apply(*policy));
        }
        run.output().talk("please answer with one of the letters in brackets");
    }
}

/// One line from the terminal; `None` at the end of the input.
fn answer(run: &Run<'_>, text: &str) -> Result<Option<String>> {
    let mut line = String::new();
    let read = run.listener.progress.hidden(|| {
        run.listener.interrupt.end_at_once_during(|| {
            run.output().ask(text)?;
            std::io::stdin().lock().read_line(&mut line)
        })
    });
    Ok((read.context("cannot read the answer")? > 0).then_some(line))
}

/// Keys, texts and policies of what can be chosen besides leaving.
fn choices(view: &View, policy_given: bool) -> Vec<(&'static str, &'static str, Policy)> {
    let mut choices = Vec::new();
    let open = view.tally.skipped() > 0;
    if view.tally.changes() > 0 {
        let text = if open { "[a]pply and leave the conflicts open" } else { "[a]pply all" };
        choices.push(("a", text, view.policy));
    }
    // What a user decided path by path is carried out under every policy.
    if !view.tally.settled.is_empty() && view.policy != Policy::Skip {
        choices.push(("w", "apply [w]ithout the conflicts", Policy::Skip));
    }
    if open && !policy_given {
        choices.push(("b", "apply and keep [b]oth versions of each conflict", Policy::KeepBoth));
        choices.push(("n", "apply and keep the [n]ewer version of each conflict", Policy::Newer));
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::entry::Kind;
    use sync_core::path::RelPath;
    use sync_core::plan::Verb;

    fn view(policy: Policy, items: &[(&str, Verb, Option<&'static str>)]) -> View {
        let mut view = View::new(policy);
        for (path, verb, reason) in items {
            let path = RelPath::parse(path.as_bytes()).unwrap();
            view.add(Side::B, &Item { path, kind: Kind::File, verb: *verb, from: None, bytes: 0, reason: *reason });
        }
        view
    }

    #[test]
    fn what_can_be_chosen_follows_from_the_plan() {
        let create = ("a", Verb::Create, None);
        let conflict = ("b", Verb::Conflict, Some("both sides changed it"));
        let settled = ("b", Verb::Update, Some("both sides changed it"));
        let unreadable = ("c", Verb::Conflict, Some("cannot be read"));
        for (policy, given, items, keys) in [
            (Policy::Skip, false, vec![create], "a"),
            (Policy::Skip, false, vec![create, conflict], "abn"),
            (Policy::Skip, false, vec![conflict], "bn"),
            (Policy::Skip, true, vec![conflict], ""),
            (Policy::Newer, true, vec![create, conflict], "aw"),
            (Policy::Newer, true, vec![settled], "aw"),
            (Policy::Skip, false, vec![settled], "a"),
            (Policy::Newer, true, vec![unreadable], ""),
        ] {
            let found: String = choices(&view(policy, &items), given).iter().map(|(key, _, _)| *key).collect();
            assert_eq!(found, keys, "{policy:?} {items:?}");
        }
    }

    #[test]
    fn a_long_plan_is_cut_and_counted() {
        let mut view = View { limit: 2, ..View::new(Policy::Skip) };
        for n in 0..5 {
            let path = RelPath::parse(format!("{n}").as_bytes()).unwrap();
            view.add(Side::A, &Item { path, kind: Kind::File, verb: Verb::Create, from: None, bytes: 0, reason: None });
        }
        assert_eq!((view.shown[0].len(), view.hidden, view.tally.items), (2, [3, 0], 5));
    }
}
