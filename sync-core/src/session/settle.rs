//! Decisions become steps.

use super::Pull;
use super::frame::Frame;
use super::side::{Now, Side};
use crate::entry::Kind;
use crate::knowledge::{Trap, Vector};
use crate::path::RelPath;
use crate::plan::{Action, Displaced, Stamp};
use crate::reconcile::{Case, Decision, Policy, conflict_path, decide};
use std::sync::Arc;

/// What settling one object led to.
pub(super) struct Settled {
    pub(super) now: Now,
    pub(super) touched: bool,
    pub(super) complete: bool,
}

impl Pull {
    pub(super) fn settle(&mut self, path: &RelPath, theirs: &Side, ours: &Side, survivors: bool) -> Settled {
        let decision = self.decide(path, theirs, ours, survivors);
        self.carry_out(path, theirs, ours, decision)
    }

    pub(super) fn settle_whole(&mut self, path: &RelPath, theirs: &Side, ours: &Side) -> Settled {
        if theirs.row.is_some() {
            let first = self.next_ticket;
            let settled = self.settle(path, theirs, ours, false);
            // What was below went with it.
            let (until, s, bound) = (self.next_ticket, theirs.sub.clone(), self.raised_bound(&theirs.bound_above));
            self.emit(path, Action::Raise { first, until, s: Some(s), bound, gaps: true });
            return settled;
        }
        let Some(expect) = ours.row.clone() else { unreachable!("a directory stands here") };
        let bound = self.deletion_bound(theirs);
        self.emit(path, Action::RemoveTree { expect, learn: theirs.sub.clone(), bound });
        Settled { now: Now::Absent, touched: true, complete: true }
    }

    /// Turns a decision into steps.
    pub(super) fn carry_out(&mut self, path: &RelPath, theirs: &Side, ours: &Side, decision: Decision) -> Settled {
        let stays = Settled { now: Now::of(ours.row.as_ref()), touched: false, complete: true };
        let learn = theirs.own.clone();
        match decision {
            Decision::Keep => {
                // What S of the directory tells is raised with the directory; what o tells beyond it is not.
                let survives = theirs.row.is_none() && ours.row.is_some();
                if (survives || theirs.knows_more_of_the_object()) && !learn.within(&ours.own) {
                    // An absence is explained by what is known: the bound must tell of every deletion in it, older
                    // ones of a path that lives again there included, or a third replica skips the directory.
                    let absent = theirs.row.is_none() || ours.row.is_none();
                    let bound = if absent { self.deletion_bound(theirs) } else { Arc::default() };
                    self.emit(path, Action::Learn { learn, bound });
                }
                stays
            }
            Decision::StayAbsent { event: true } => {
                self.emit(path, Action::StayAbsent { learn });
                stays
            }
            Decision::StayAbsent { event: false } if self.terms.mutation.broken(Trap::GhostKnowledgeIgnored) => stays,
            Decision::StayAbsent { event: false } => {
                // What S of the directory tells is raised with the directory. But where A lists only what changed,
                // its ghost is handed on as a ghost: whoever asks here next is told of it in the same way.
                let changes_only = self.stack.last().is_some_and(|frame| !frame.full);
                if (theirs.knows_more_of_the_object() || (changes_only && theirs.ghost)) && !learn.within(&ours.own) {
                    let bound = self.deletion_bound(theirs);
                    self.emit(path, Action::Learn { learn, bound });
                }
                stays
            }
            Decision::Remove { event } => {
                let Some(expect) = ours.row.clone() else { unreachable!("something stands here") };
                let bound = self.deletion_bound(theirs);
                self.emit(path, Action::Remove { expect, learn, bound, event });
                Settled { now: Now::Absent, touched: true, complete: true }
            }
            Decision::Write { stamp, copy_ours } => self.write(path, theirs, ours, stamp, copy_ours),
            Decision::Restamp { stamp, attrs, why, copy_theirs } => {
                let Some(expect) = ours.row.clone() else { unreachable!("something stands here") };
                let touched = copy_theirs && self.copy_theirs(path, theirs);
                self.emit(path, Action::Restamp { expect, attrs, stamp, learn, why });
                Settled { touched, ..stays }
            }
            Decision::Leave(why) => {
                self.emit(path, Action::Leave { why, ours: ours.row.clone(), theirs: theirs.row.clone(), known: learn });
                Settled { complete: false, ..stays }
            }
            Decision::NeedHash { ours, theirs } => {
                self.emit(path, Action::NeedHash { ours, theirs });
                Settled { complete: false, ..stays }
            }
            Decision::Defer => unreachable!("only a directory with children is deferred"),
        }
    }

    pub(super) fn write(&mut self, path: &RelPath, theirs: &Side, ours: &Side, stamp: Stamp, copy_ours: bool) -> Settled {
        self.make_parents();
        self.write_object(path, theirs, ours, stamp, copy_ours)
    }

    fn write_object(&mut self, path: &RelPath, theirs: &Side, ours: &Side, stamp: Stamp, copy_ours: bool) -> Settled {
        let Some(row) = theirs.row.clone() else { unreachable!("something stands there") };
        let copy = ours.row.as_ref().filter(|_| copy_ours).and_then(|loser| conflict_path(path, loser));
        let now = Now::of(Some(&row));
        // Who replaces what was changed here, and is not told to mirror, does so by an event of its own only if it decided a conflict.
        let settles = ours.row.is_some() && self.terms.force.is_none() && matches!(stamp, Stamp::Fresh { .. });
        let action = Action::Write {
            row,
            from: path.clone(),
            expect: ours.row.clone(),
            stamp,
            learn: Some(theirs.own.clone()),
            displaced: copy.map_or(Displaced::Versions, Displaced::Copy),
            settles,
        };
        self.emit(path, action);
        Settled { now, touched: true, complete: true }
    }

    /// A's version becomes a conflict copy beside what stays here.
    pub(super) fn copy_theirs(&mut self, path: &RelPath, theirs: &Side) -> bool {
        let Some(row) = theirs.row.clone() else { return false };
        let Some(to) = conflict_path(path, &row) else { return false };
        let (stamp, displaced) = (Stamp::Fresh { c: None }, Displaced::Versions);
        let action = Action::Write { row, from: path.clone(), expect: None, stamp, learn: None, displaced, settles: false };
        self.emit(&to, action);
        true
    }

    /// Directories that must exist for a child: each gets an event of its own.
    pub(super) fn make_parents(&mut self) {
        for at in 0..self.stack.len() {
            let frame = &self.stack[at];
            if frame.now == Now::Dir {
                continue;
            }
            let (path, theirs, ours) = (frame.path.clone(), frame.theirs.clone(), frame.ours.clone());
            // On the way to the scope nothing was decided before, and nothing would be without the child.
            // A leaf there, as read before the child, is none any more.
            let decision = (theirs.is_dir() && !self.terms.whole(&path)).then(|| self.decide(&path, &theirs, &ours, false));
            match decision {
                Some(Decision::Write { stamp, copy_ours }) => {
                    self.write_object(&path, &theirs, &ours, stamp, copy_ours);
                }
                _ => {
                    let attrs = theirs.row.as_ref().map(|row| row.object.attrs).unwrap_or_default();
                    let copy = ours.row.as_ref().and_then(|loser| conflict_path(&path, loser));
                    let displaced = copy.map_or(Displaced::Versions, Displaced::Copy);
                    self.emit(&path, Action::MakeDir { attrs, expect: ours.row, displaced, learn: theirs.own });
                }
            }
            self.stack[at].now = Now::Dir;
        }
    }

    pub(super) fn finish_dir(&mut self, frame: &Frame) {
        if frame.now != Now::Dir || frame.path.is_root() {
            return;
        }
        let time = |side: &Side| side.row.as_ref().filter(|r| r.object.kind() == Kind::Dir).map(|r| r.object.attrs.mtime_ns);
        let newer_there = match (&frame.theirs.row, &frame.ours.row) {
            (Some(theirs), Some(ours)) => ours.m.within(&frame.theirs.own) && !theirs.m.within(&frame.ours.own),
            _ => false,
        };
        let (theirs, ours) = (time(&frame.theirs), time(&frame.ours));
        // On the way to the scope only what was made, or touched by what was made in it, is set right.
        let above = !self.terms.whole(&frame.path);
        let target = match (theirs, ours) {
            (_, Some(ours)) if above => ours,
            (Some(theirs), Some(ours)) if !newer_there => theirs.max(ours),
            (Some(time), _) | (None, Some(time)) => time,
            (None, None) => return,
        };
        if frame.touched || ours.is_none() || (!above && self.terms.mask.times && ours != Some(target)) {
            self.emit(&frame.path, Action::FinishDir { mtime_ns: target });
        }
    }

    pub(super) fn deletion_bound(&self, theirs: &Side) -> Arc<Vector> {
        if self.terms.mutation.broken(Trap::DeletionWithoutBound) { Arc::default() } else { theirs.bound_above.clone() }
    }

    pub(super) fn policy(&self, path: &RelPath) -> Policy {
        self.terms.decided.get(path).copied().unwrap_or(self.terms.policy)
    }

    pub(super) fn decide(&self, path: &RelPath, theirs: &Side, ours: &Side, survivors: bool) -> Decision {
        decide(&Case {
            theirs: theirs.row.as_ref(),
            ours: ours.row.as_ref(),
            known_there: &theirs.own,
            known_here: &ours.own,
            survivors,
            policy: self.policy(path),
            force: self.terms.force,
            mask: self.terms.mask,
            mutation: self.terms.mutation,
        })
    }
}
