//! One pull, as a conversation without I/O: B, "here", asks A, "there", for listings and emits steps.
//!
//! [`Pull::poll`] says what it needs next; [`Pull::supply`] hands it in. The order of a pull stands here and
//! nowhere else: a directory there is dealt with before its children, anything else after them; knowledge of a
//! subtree is raised after all of its steps.

mod frame;
mod pairs;
mod settle;
mod side;
mod terms;

pub use terms::{Ignored, Terms};

use crate::knowledge::{Trap, Vector};
use crate::path::RelPath;
use crate::plan::{Action, Open, Stamp, Step, Why};
use crate::reconcile::{Decision, End, Policy};
use crate::store::{Child, Filter, Listing};
use frame::{Children, Finished, Frame};
use settle::Settled;
use side::{Now, Side};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a pull wants next.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "made once a step and taken apart at once")]
pub enum Poll {
    /// A listing, of the given side: hand it to [`Pull::supply`].
    List {
        /// Whose.
        of: End,
        /// Which directory.
        path: RelPath,
        /// Which rows.
        filter: Filter,
    },
    /// A step to carry out.
    Step(Step),
    /// All steps were emitted.
    Done(Outcome),
}

/// How a pull ended, as far as decisions go; failing steps are not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Was every path decided?
    pub complete: bool,
    /// A's newest sequence number when the pull began.
    pub seq: u64,
}

/// The conversation of one pull.
pub struct Pull {
    terms: Terms,
    phase: Phase,
    supplied: Option<Listing>,
    stack: Vec<Frame>,
    out: VecDeque<Step>,
    /// So many steps of `out` go, whatever is held back.
    released: usize,
    next_ticket: u64,
    outcome: Outcome,
}

enum Phase {
    RootThere,
    RootHere(Listing),
    Walk,
    Done,
}

impl Pull {
    /// A pull on these terms.
    #[must_use]
    pub fn new(terms: Terms) -> Pull {
        Pull {
            terms,
            phase: Phase::RootThere,
            supplied: None,
            stack: Vec::new(),
            out: VecDeque::new(),
            released: 0,
            next_ticket: 0,
            outcome: Outcome { complete: true, seq: 0 },
        }
    }

    /// The next thing to do. [`Poll::List`] is answered by [`Pull::supply`] before the next call.
    pub fn poll(&mut self) -> Poll {
        loop {
            if let Some(step) = self.next_step() {
                return Poll::Step(step);
            }
            let need = match self.phase {
                Phase::RootThere | Phase::RootHere(_) => self.begin(),
                Phase::Walk => self.advance(),
                Phase::Done => return Poll::Done(self.outcome),
            };
            if let Some(need) = need {
                return need;
            }
        }
    }

    fn next_step(&mut self) -> Option<Step> {
        if self.released == 0 {
            if self.stack.iter().all(|frame| frame.held.is_none()) {
                return self.out.pop_front();
            }
            if self.out.len() <= self.terms.held || self.stack.iter().any(Frame::is_left) {
                return None;
            }
            self.release();
        }
        self.released -= 1;
        for frame in &mut self.stack {
            frame.held = frame.held.map(|position| position - 1);
        }
        self.out.pop_front()
    }

    /// Too many steps wait: they go. Where a leaf may take a directory's place, what is left of the directory decides
    /// in the end. Where a leaf took it, nothing arrived below it so far, and what does is held back still.
    fn release(&mut self) {
        self.released = self.out.len();
        for frame in self.stack.iter_mut().filter(|frame| frame.held.is_some()) {
            frame.held = (!frame.own_last).then_some(self.released);
        }
    }

    /// Hands in the listing that the last [`Poll::List`] asked for.
    pub fn supply(&mut self, listing: Listing) {
        self.supplied = Some(listing);
    }

    /// Compares the roots; nothing else is read if A has nothing that B does not know.
    fn begin(&mut self) -> Option<Poll> {
        let root = RelPath::root();
        let Some(listing) = self.supplied.take() else {
            let (of, filter) = match self.phase {
                Phase::RootThere => (End::There, self.terms.filter(&root, false)),
                // The header alone.
                _ => (End::Here, Filter::header()),
            };
            return Some(Poll::List { of, path: root, filter });
        };
        match std::mem::replace(&mut self.phase, Phase::Walk) {
            Phase::RootThere => {
                self.outcome.seq = listing.seq;
                self.phase = Phase::RootHere(listing);
            }
            Phase::RootHere(there) => {
                let (theirs, ours) = (Side::listed(&there), Side::listed(&listing));
                let differ = self.mutual(&theirs, &ours) && theirs.digest != ours.digest;
                if self.covered(&theirs, &ours, differ) {
                    self.phase = Phase::Done;
                    return None;
                }
                let mut frame = self.frame(root, theirs, ours, differ);
                frame.now = Now::Dir;
                if there.full || !differ {
                    frame.children = Children::AskHere(there);
                }
                self.stack.push(frame);
            }
            Phase::Walk | Phase::Done => unreachable!("the roots are compared once"),
        }
        None
    }

    fn frame(&self, path: RelPath, theirs: Side, ours: Side, differ: bool) -> Frame {
        Frame {
            complete: self.terms.may_raise && self.terms.whole(&path),
            now: Now::of(ours.row.as_ref()),
            first: self.next_ticket,
            path,
            theirs,
            ours,
            differ,
            children: Children::AskThere,
            header: None,
            full: true,
            survivors: false,
            touched: false,
            own_last: false,
            held: None,
            finished: Vec::new(),
        }
    }

    /// One more move within the innermost directory.
    fn advance(&mut self) -> Option<Poll> {
        let Some(mut frame) = self.stack.pop() else {
            self.phase = Phase::Done;
            return None;
        };
        match std::mem::replace(&mut frame.children, Children::AskThere) {
            Children::AskThere if !frame.theirs.tree => {
                let listing = pairs::nothing_below(&frame.path, &frame.theirs);
                frame.children = Children::AskHere(listing);
            }
            Children::AskThere => match self.supplied.take() {
                Some(listing) => frame.children = Children::AskHere(listing),
                None => {
                    // Rows that did not change are left out only where the directory itself stands there.
                    let root = frame.path.is_root();
                    let filter = self.terms.filter(&frame.path, frame.differ || !(root || frame.theirs.is_dir()));
                    let path = frame.path.clone();
                    self.stack.push(frame);
                    return Some(Poll::List { of: End::There, path, filter });
                }
            },
            Children::AskHere(there) => {
                let nothing_to_compare =
                    !frame.ours.tree || (!there.full && there.children.is_empty() && !self.terms.asked_for(&frame.path));
                let here =
                    if nothing_to_compare { Some(pairs::nothing_below(&frame.path, &frame.ours)) } else { self.supplied.take() };
                match here {
                    Some(here) => {
                        frame.full = there.full;
                        frame.header = Some((Side::listed(&there), Side::listed(&here)));
                        frame.children = Children::Next(pairs::pair_up(&self.terms, there, here).into_iter());
                    }
                    None => {
                        let (path, filter) = (frame.path.clone(), pairs::counterparts(&self.terms, &there));
                        frame.children = Children::AskHere(there);
                        self.stack.push(frame);
                        return Some(Poll::List { of: End::Here, path, filter });
                    }
                }
            }
            Children::Next(mut pairs) => match pairs.next() {
                Some((theirs, ours)) => {
                    frame.children = Children::Next(pairs);
                    self.stack.push(frame);
                    self.visit(theirs.as_ref(), ours.as_ref());
                    return None;
                }
                None => {
                    self.leave(frame);
                    return None;
                }
            },
        }
        self.stack.push(frame);
        None
    }

    /// Deals with one child of the innermost directory.
    fn visit(&mut self, their_child: Option<&Child>, our_child: Option<&Child>) {
        let at = self.stack.len() - 1;
        let parent = &self.stack[at];
        let Some(name) = their_child.or(our_child).map(|c| &c.name) else { return };
        let path = parent.path.join(name);
        let Some((there, here)) = parent.header.as_ref().filter(|_| self.terms.in_reach(&path)) else {
            // What is not looked at stays, and keeps its directory.
            self.stack[at].survivors |= our_child.is_some_and(|child| child.row.is_some());
            return;
        };
        let (theirs, ours) = (Side::of(there, their_child), Side::of(here, our_child));
        // Where nothing stands on either side, nothing is hidden: what is known of it is handed on as elsewhere.
        if (theirs.row.is_some() || ours.row.is_some()) && self.is_ignored(&path, &theirs, &ours) {
            self.leave_ignored(path, theirs, ours);
            return;
        }
        if !theirs.tree && !ours.tree {
            if !self.terms.whole(&path) {
                // On the way to the scope, and nothing of the scope below it.
                self.stack[at].survivors |= ours.row.is_some();
                return;
            }
            let settled = self.settle(&path, &theirs, &ours, false);
            self.note(at, &settled);
            return;
        }
        let differ = self.mutual(&theirs, &ours)
            && (theirs.digest != ours.digest || Now::of(theirs.row.as_ref()) != Now::of(ours.row.as_ref()));
        if theirs.row.is_some() && self.covered(&theirs, &ours, differ) {
            self.stack[at].survivors |= ours.row.is_some();
            return;
        }
        if self.goes_whole(&path, &theirs, &ours) {
            let settled = self.settle_whole(&path, &theirs, &ours);
            self.note(at, &settled);
            return;
        }
        self.enter(path, theirs, ours, differ);
    }

    /// Everything there is known here (rule T2); for a mirror run the content must be the same besides.
    fn covered(&self, theirs: &Side, ours: &Side, differ: bool) -> bool {
        let known = theirs.bound.within(&ours.sub) && !differ;
        match self.terms.force {
            None => known,
            Some(End::There) => known && ours.bound.within(&theirs.sub),
            Some(End::Here) => known && (ours.row.is_some() || theirs.row.is_none()),
        }
    }

    fn mutual(&self, theirs: &Side, ours: &Side) -> bool {
        !self.terms.mutation.broken(Trap::NoDigestCheck) && theirs.bound.within(&ours.sub) && ours.bound.within(&theirs.sub)
    }

    /// May the directory here go in one step, because A knows everything below it and has nothing there?
    fn goes_whole(&self, path: &RelPath, theirs: &Side, ours: &Side) -> bool {
        !theirs.tree
            && !theirs.is_dir()
            && ours.is_dir()
            && ours.bound.within(&theirs.sub)
            && self.terms.whole_trees
            && !self.terms.apart.contains(path)
            && self.terms.ignored.is_none()
            && self.terms.whole(path)
            && self.terms.force != Some(End::Here)
            && !self.terms.mutation.broken(Trap::GhostIsNothingToDo)
    }

    fn is_ignored(&self, path: &RelPath, theirs: &Side, ours: &Side) -> bool {
        self.terms.ignored.as_ref().is_some_and(|ignored| {
            // A path ignored under either kind is unknown as a whole.
            let dir = theirs.is_dir() || ours.is_dir();
            ignored(path, dir) || (dir && !(theirs.is_dir() && ours.is_dir()) && ignored(path, false))
        })
    }

    /// An ignored path with rows is unknown: it stays as it is, and keeps its directory.
    fn leave_ignored(&mut self, path: RelPath, theirs: Side, ours: Side) {
        let at = self.stack.len() - 1;
        let settled = Settled { now: Now::of(ours.row.as_ref()), touched: false, complete: false };
        self.note(at, &settled);
        let action = Action::Leave { why: Open::Ignored, ours: ours.row, theirs: theirs.row, known: theirs.own };
        self.emit(&path, action);
    }

    fn note(&mut self, at: usize, settled: &Settled) {
        let frame = &mut self.stack[at];
        frame.complete &= settled.complete;
        frame.touched |= settled.touched;
        frame.survivors |= settled.now != Now::Absent;
    }

    /// Begins with a path that has rows below it.
    fn enter(&mut self, path: RelPath, theirs: Side, ours: Side, differ: bool) {
        let at = self.stack.len() - 1;
        let mut frame = self.frame(path, theirs, ours, differ);
        if !self.terms.whole(&frame.path) {
            self.pass(frame);
            return;
        }
        if !frame.theirs.is_dir() {
            frame.own_last = true;
            if frame.theirs.row.is_some() && self.terms.force.is_none() && self.policy(&frame.path) == Policy::Skip {
                // A conflict found at the end leaves the whole subtree as it is.
                frame.held = Some(self.out.len());
                let decision = self.decide(&frame.path, &frame.theirs, &frame.ours, false);
                if matches!(decision, Decision::Leave(_)) {
                    // Whatever is below: nothing of it is looked at.
                    let settled = self.carry_out(&frame.path, &frame.theirs, &frame.ours, decision);
                    self.note(at, &settled);
                    return;
                }
            }
            self.stack.push(frame);
            return;
        }
        match self.decide(&frame.path, &frame.theirs, &frame.ours, false) {
            Decision::Defer => {
                frame.own_last = true;
                self.stack.push(frame);
            }
            decision => {
                let settled = self.carry_out(&frame.path, &frame.theirs, &frame.ours, decision);
                self.stack[at].touched |= settled.touched;
                frame.now = settled.now;
                if settled.complete {
                    if frame.now == Now::Leaf && self.terms.force.is_none() && self.policy(&frame.path) == Policy::Skip {
                        // The leaf took the directory's place; what arrives below it all the same is a conflict.
                        frame.held = Some(self.out.len());
                    }
                    self.stack.push(frame);
                } else {
                    self.note(at, &settled);
                }
            }
        }
    }

    /// Begins with a path on the way to the scope: its own object stays as it is, unless a child needs a directory.
    fn pass(&mut self, frame: Frame) {
        let at = self.stack.len() - 1;
        if frame.theirs.is_dir() && frame.now == Now::Leaf {
            let decision = self.decide(&frame.path, &frame.theirs, &frame.ours, false);
            if matches!(decision, Decision::Leave(_) | Decision::NeedHash { .. }) {
                let settled = self.carry_out(&frame.path, &frame.theirs, &frame.ours, decision);
                self.note(at, &settled);
                return;
            }
        }
        self.stack.push(frame);
    }

    /// Ends with a path whose children are done.
    fn leave(&mut self, mut frame: Frame) {
        let mut touched_above = false;
        if frame.own_last {
            let settled = self.settle_last(&mut frame);
            touched_above = settled.touched;
            frame.now = settled.now;
            frame.complete &= settled.complete;
        } else if let Some(position) = frame.held.take()
            && frame.now == Now::Dir
        {
            self.leave_all(&mut frame, position);
        }
        self.finish_dir(&frame);
        let until = self.next_ticket;
        self.raise(&mut frame, until);
        let Some(parent) = self.stack.last_mut() else {
            self.outcome.complete = frame.complete;
            return;
        };
        parent.complete &= frame.complete;
        parent.survivors |= frame.now != Now::Absent;
        // A directory that was made on the way to a child touched its parent, too.
        parent.touched |= touched_above || (frame.now == Now::Dir) != frame.ours.is_dir();
        if frame.complete {
            let gaps = frame.gaps();
            let (s, bound) = (frame.theirs.sub, frame.theirs.bound);
            parent.finished.push(Finished { path: frame.path, first: frame.first, until, s, bound, gaps });
        }
    }

    /// Takes back every step of a subtree that was held back: both sides stay as they are.
    fn leave_all(&mut self, frame: &mut Frame, position: usize) {
        self.out.truncate(position);
        frame.now = Now::of(frame.ours.row.as_ref());
        frame.complete = false;
        frame.touched = false;
        frame.finished.clear();
        let (ours, theirs) = (frame.ours.row.clone(), frame.theirs.row.clone());
        let action = Action::Leave { why: Open::Conflict, ours, theirs, known: frame.theirs.own.clone() };
        self.emit(&frame.path, action);
    }

    fn settle_last(&mut self, frame: &mut Frame) -> Settled {
        if frame.theirs.is_dir() {
            // A directory there, a changed leaf here: if something arrived, the directory was made on the way.
            if frame.now == Now::Leaf
                && let (Some(theirs), Some(ours)) = (&frame.theirs.row, &frame.ours.row)
            {
                let stamp = Stamp::Fresh { c: Some(ours.c.united(&theirs.c)) };
                let expect = ours.clone();
                let learn = frame.theirs.own.clone();
                self.emit(&frame.path, Action::Restamp { expect, attrs: None, stamp, learn, why: Why::ConflictWon });
            }
            return Settled { now: frame.now, touched: false, complete: true };
        }
        let position = frame.held.take();
        let settled = self.settle(&frame.path, &frame.theirs, &frame.ours, frame.survivors);
        if let Some(position) = position.filter(|_| !settled.complete) {
            let verdict = self.out.pop_back();
            self.out.truncate(position);
            self.out.extend(verdict);
            frame.touched = false;
            frame.finished.clear();
        }
        settled
    }

    /// Rules T1 and T4: S and M as read before the rows, and only if all below is complete.
    fn raise(&mut self, frame: &mut Frame, until: u64) {
        let (s, bound) = (&frame.theirs.sub, &frame.theirs.bound);
        let until = if self.terms.mutation.broken(Trap::CompleteBeforeDone) { frame.first } else { until };
        if !frame.complete {
            for done in std::mem::take(&mut frame.finished) {
                if !done.s.within(&frame.ours.sub) {
                    let bound = self.raised_bound(&done.bound);
                    let (first, until, gaps) = (done.first, done.until, done.gaps);
                    self.emit(&done.path, Action::Raise { first, until, s: Some(done.s), bound, gaps });
                }
            }
            return;
        }
        // Where gaps come to be, S is raised in the same step: raised with a directory above, later, the knowledge
        // would be newer than the mark, and who had asked in between would not be shown the directory in full.
        let gaps = frame.gaps();
        let s = ((frame.theirs.s_of_its_own || gaps) && !s.within(&frame.ours.sub)).then(|| s.clone());
        if s.is_some() || !bound.within(&frame.ours.bound) || !frame.ours.tree {
            let bound = self.raised_bound(bound);
            let path = frame.path.clone();
            self.emit(&path, Action::Raise { first: frame.first, until, s, bound, gaps });
        }
    }

    fn raised_bound(&self, bound: &Arc<Vector>) -> Arc<Vector> {
        if self.terms.mutation.broken(Trap::KnowledgeRaisedWithoutBound) { Arc::default() } else { bound.clone() }
    }

    fn emit(&mut self, path: &RelPath, action: Action) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        // What is below a directory that is left as it is would be taken back in the end.
        if !self.stack.iter().any(Frame::is_left) {
            self.out.push_back(Step { ticket, path: path.clone(), action });
        }
    }
}
