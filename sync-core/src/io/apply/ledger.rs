//! What became of every step: counted, shown, and listed where it is not done.

use super::job::Job;
use super::{Applied, Context, INCOMPLETE, Incomplete, PROBLEMS};
use crate::io::stage::{Failure, Incoming, Tree};
use crate::knowledge::{Row, Vector};
use crate::path::RelPath;
use crate::plan::{Action, BOTH_CHANGED, Item, Open, Verb};
use crate::report::{Done, Monitor, Problem};
use std::collections::BTreeSet;
use std::ops::Range;

/// Keeps the account of a run.
pub(super) struct Ledger<'a> {
    monitor: &'a dyn Monitor,
    side: usize,
    applied: Applied,
    /// Tickets that failed or were left: nothing above them is raised.
    undone: BTreeSet<u64>,
}

/// What the list of incomplete paths says of one, its words aside.
#[derive(Default)]
struct Entry {
    why: Option<Open>,
    theirs: Option<Row>,
    known: Vector,
}

/// Which step is not done.
struct Which<'s> {
    ticket: u64,
    path: &'s RelPath,
    item: Option<&'s Item>,
    /// Left as it is, rather than failed.
    left: bool,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(context: Context<'a>) -> Ledger<'a> {
        Ledger { monitor: context.monitor, side: context.side, applied: Applied::default(), undone: BTreeSet::new() }
    }

    /// The account, at the end.
    pub(super) fn close(mut self) -> Applied {
        self.applied.complete = self.undone.is_empty();
        self.applied
    }

    /// Did all of these tickets succeed?
    pub(super) fn is_whole(&self, tickets: Range<u64>) -> bool {
        tickets.is_empty() || self.undone.range(tickets).next().is_none()
    }

    /// Is a path below this one not done?
    pub(super) fn is_open_below(&self, dir: &RelPath) -> bool {
        let Applied { incomplete, truncated, unread, .. } = &self.applied;
        *truncated || unread.is_below(dir) || incomplete.iter().any(|open| dir.contains(&open.path) && open.path != *dir)
    }

    /// A step was carried out.
    pub(super) fn done(&mut self, item: Option<&Item>) {
        let Some(item) = item else { return };
        self.applied.totals.count(item);
        self.monitor.item(item, self.side, Done::Done);
        self.monitor.advance(1, item.bytes);
    }

    /// A planned creation was a move.
    pub(super) fn moved(&mut self, item: Option<&Item>, from: &RelPath) {
        let Some(item) = item else { return };
        self.monitor.advance(0, item.bytes);
        let from = Some(from.clone());
        self.done(Some(&Item { verb: Verb::Move, from, bytes: 0, ..item.clone() }));
    }

    /// Something below a moved directory came along.
    pub(super) fn came_along(&mut self, item: Option<&Item>) {
        self.monitor.advance(1, item.map_or(0, |item| item.bytes));
    }

    /// A deletion that was counted turned out to be half of a move.
    pub(super) fn untell_deletion(&mut self) {
        self.applied.totals.deleted = self.applied.totals.deleted.saturating_sub(1);
    }

    /// A job failed, or was left as it is.
    pub(super) fn failed(&mut self, job: Job, failure: &Failure, left: bool) {
        match job {
            Job::Place(tree) | Job::Move { tree, .. } | Job::MoveTree { tree, .. } => {
                self.failed_tree(&tree, failure);
            }
            Job::Attributes(change) => {
                let known = change.learn.as_deref().cloned().unwrap_or_default();
                let entry = Entry { why: None, theirs: change.theirs, known };
                let (ticket, item) = (change.ticket, change.item.as_ref());
                self.undone(Which { ticket, path: &change.path, item, left }, failure, entry);
            }
            Job::Remove(removal) => {
                let known = Vector::clone(&removal.learn);
                let entry = Entry { why: None, theirs: None, known };
                let (ticket, item) = (removal.ticket, removal.item.as_ref());
                self.undone(Which { ticket, path: &removal.path, item, left }, failure, entry);
            }
            Job::Finish { path, finish } => {
                let (ticket, item) = (finish.ticket, None);
                self.undone(Which { ticket, path: &path, item, left }, failure, Entry::default());
            }
            Job::Rows(step) => {
                let item = step.item();
                let entry = match step.action {
                    Action::Leave { why, theirs, known, .. } => Entry { why: Some(why), theirs, known: Vector::clone(&known) },
                    Action::Restamp { learn, .. } => Entry { known: Vector::clone(&learn), ..Entry::default() },
                    _ => Entry::default(),
                };
                let (ticket, item) = (step.ticket, item.as_ref());
                self.undone(Which { ticket, path: &step.path, item, left }, failure, entry);
            }
        }
    }

    fn failed_tree(&mut self, tree: &Tree, failure: &Failure) {
        let below = Failure::new("create", "its directory could not be put in place");
        tree.each(&mut |incoming| {
            let why = match &incoming.outcome {
                Some(Err(own)) => own,
                _ if incoming.ticket == tree.top.ticket => failure,
                _ => &below,
            };
            self.failed_incoming(incoming, why);
        });
        tree.each_finish(&mut |_, finish| {
            self.undone.insert(finish.ticket);
        });
    }

    /// One object of a tree failed.
    pub(super) fn failed_incoming(&mut self, incoming: &Incoming, failure: &Failure) {
        let known = incoming.learn.as_deref().cloned().unwrap_or_default();
        let entry = Entry { why: None, theirs: incoming.theirs.clone(), known };
        let (ticket, path, item) = (incoming.ticket, &incoming.path, incoming.item.as_ref());
        self.undone(Which { ticket, path, item, left: false }, failure, entry);
    }

    fn undone(&mut self, which: Which<'_>, failure: &Failure, entry: Entry) {
        let Which { ticket, path, item, left } = which;
        self.undone.insert(ticket);
        let totals = &mut self.applied.totals;
        if matches!(entry.why, Some(Open::Ignored | Open::Unread)) {
            // Not asked for: it stays unknown, and nobody has to do anything about it. Or it is looked at soon.
        } else if left {
            totals.skipped += 1;
            totals.conflicts += u64::from(item.is_some_and(|item| item.verb == Verb::Conflict));
        } else {
            totals.failed += 1;
        }
        if entry.why.is_none() {
            self.problem(path, failure.step, failure.reason.clone());
        }
        if let Some(item) = item {
            let done = if left { Done::Skipped } else { Done::Failed };
            self.monitor.item(item, self.side, done);
            self.monitor.advance(1, item.bytes);
        }
        if entry.why == Some(Open::Unread) {
            // There may be as many as there are files.
            self.applied.unread.note(path);
            return;
        }
        if self.applied.incomplete.len() >= INCOMPLETE {
            self.applied.truncated = true;
            return;
        }
        let Entry { why, theirs, known } = entry;
        let (path, reason) = (path.clone(), failure.reason.clone());
        self.applied.incomplete.push(Incomplete { path, why, theirs, known, reason });
    }

    /// Tells a problem of a path that does not by itself leave the path undone.
    pub(super) fn problem(&mut self, path: &RelPath, step: &'static str, error: String) {
        let problem = Problem { path: path.clone(), step, error };
        self.monitor.problem(&problem);
        if self.applied.problems.len() < PROBLEMS {
            self.applied.problems.push(problem);
        }
    }
}

/// Why a path is left, in words.
pub(super) fn left(why: Open) -> &'static str {
    match why {
        Open::Conflict => BOTH_CHANGED,
        Open::Ignored => "an ignore rule covers it on one side",
        Open::Unread => "the bytes that decide were not read yet",
    }
}
