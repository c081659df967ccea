//! One pull, as a conversation without I/O: B, "here", asks A, "there", for listings and emits steps.
//!
//! [`Pull::poll`] says what it needs next; [`Pull::supply`] hands it in. The order of a pull stands here and
//! nowhere else: a directory there is dealt with before its children, anything else after them; knowledge of a
//! subtree is raised after all of its steps.

use crate::entry::{AttrMask, Digest, Kind};
use crate::knowledge::{Mutation, Row, Trap, Vector};
use crate::path::RelPath;
use crate::plan::{Action, Displaced, Open, Stamp, Step, Why};
use crate::reconcile::{Case, Decision, End, Policy, conflict_path, decide};
use crate::store::{Child, Filter, Listing};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Up to so many changed names of a directory are looked up one by one; beyond, its rows are read in a row.
const FEW: usize = 64;

/// Decides whether a path is ignored; the flag says whether it is a directory.
pub type Ignored = Arc<dyn Fn(&RelPath, bool) -> bool + Send + Sync>;

/// What a pull is to do.
#[derive(Clone)]
pub struct Terms {
    /// Highest sequence number of A that B has incorporated, and the paths left open since; `None`: walk it all.
    pub since: Option<(u64, Arc<BTreeSet<RelPath>>)>,
    /// Only these paths and what is below them; empty: everything.
    pub scope: Vec<RelPath>,
    /// How conflicts are decided.
    pub policy: Policy,
    /// Conflicts that the user decided one by one.
    pub decided: Arc<BTreeMap<RelPath, Policy>>,
    /// Mirror this side.
    pub force: Option<End>,
    /// Which attributes count.
    pub mask: AttrMask,
    /// Ignore rules, if there are any.
    pub ignored: Option<Ignored>,
    /// May knowledge be raised? Not between replicas whose ignore rules differ, and not by increments while
    /// paths are left open: what was absent on both sides when they were left open left no row. Once they are
    /// settled, a pull without `since` raises it.
    pub may_raise: bool,
    /// May a whole directory go in one step? Not where the disk was found to hold more than the rows say.
    pub whole_trees: bool,
    /// Which rule is broken on purpose.
    pub mutation: Mutation,
}

impl Terms {
    /// Everything, by the given policy.
    #[must_use]
    pub fn everything(policy: Policy, mask: AttrMask) -> Terms {
        Terms {
            since: None,
            scope: Vec::new(),
            policy,
            decided: Arc::default(),
            force: None,
            mask,
            ignored: None,
            may_raise: true,
            whole_trees: true,
            mutation: Mutation::default(),
        }
    }

    fn filter(&self, path: &RelPath, everything: bool) -> Filter {
        match &self.since {
            Some((after, also)) if !everything && !path.ancestors().any(|p| also.contains(&p)) => {
                Filter::Since { after: *after, also: also.clone() }
            }
            _ => Filter::All,
        }
    }

    /// Is the path, or something below it, asked for by name? A's listing leaves out what has no row there.
    fn asked_for(&self, path: &RelPath) -> bool {
        let Some((after, also)) = &self.since else { return false };
        Filter::Since { after: *after, also: also.clone() }.names(path)
    }

    /// Is the path, or something below it, to be looked at?
    fn in_reach(&self, path: &RelPath) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|s| s.contains(path) || path.contains(s))
    }

    /// Is everything below the path to be looked at?
    fn whole(&self, path: &RelPath) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|s| s.contains(path))
    }
}

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
    next_ticket: u64,
    outcome: Outcome,
}

enum Phase {
    RootThere,
    RootHere(Listing),
    Walk,
    Done,
}

/// What stands, or will stand, at a path here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    Absent,
    Dir,
    Leaf,
}

impl Now {
    fn of(row: Option<&Row>) -> Now {
        match row.map(|r| r.object.kind()) {
            None => Now::Absent,
            Some(Kind::Dir) => Now::Dir,
            Some(_) => Now::Leaf,
        }
    }
}

/// One side's view of a path.
#[derive(Debug, Clone)]
struct Side {
    row: Option<Row>,
    sub: Arc<Vector>,
    own: Arc<Vector>,
    bound: Arc<Vector>,
    /// M of the containing directory: covers the deletion of a path that has no row.
    bound_above: Arc<Vector>,
    digest: Digest,
    /// Is there a row that says absent?
    ghost: bool,
    /// Are there rows below?
    tree: bool,
    /// Does S of this very path tell more than its directory's?
    s_of_its_own: bool,
}

impl Side {
    fn of(parent: &Side, child: Option<&Child>) -> Side {
        let inherited = || Side {
            row: None,
            sub: parent.sub.clone(),
            own: parent.sub.clone(),
            bound: parent.bound.clone(),
            bound_above: parent.bound.clone(),
            digest: Digest::default(),
            ghost: false,
            tree: false,
            s_of_its_own: false,
        };
        let Some(child) = child else { return inherited() };
        let mut side = Side { row: child.row.clone(), ghost: child.row.is_none(), ..inherited() };
        if let Some(tree) = &child.tree {
            side.tree = true;
            side.digest = tree.digest;
            side.bound = tree.bound.clone();
            if !tree.s.within(&parent.sub) {
                side.s_of_its_own = true;
                side.sub = Arc::new(parent.sub.joined(&tree.s));
                side.own = side.sub.clone();
            }
        }
        if let Some(own) = child.own.as_ref().filter(|own| !own.within(&side.sub)) {
            side.own = Arc::new(side.sub.joined(own));
        }
        side
    }

    /// A directory as its own listing shows it.
    fn listed(listing: &Listing) -> Side {
        Side {
            row: None,
            sub: listing.sub.clone(),
            own: listing.sub.clone(),
            bound: listing.bound.clone(),
            bound_above: listing.bound.clone(),
            digest: listing.digest,
            ghost: false,
            tree: true,
            s_of_its_own: true,
        }
    }

    fn is_dir(&self) -> bool {
        self.row.as_ref().is_some_and(|r| r.object.kind() == Kind::Dir)
    }

    fn knows_more_of_the_object(&self) -> bool {
        !Arc::ptr_eq(&self.own, &self.sub)
    }
}

enum Children {
    AskThere,
    AskHere(Listing),
    Next(std::vec::IntoIter<(Option<Child>, Option<Child>)>),
}

/// A path that has rows below it on either side.
struct Frame {
    path: RelPath,
    theirs: Side,
    ours: Side,
    /// Both know all of the other's and yet the digests differ: every row is looked at.
    differ: bool,
    children: Children,
    /// The directory's knowledge as read together with the rows of its children: (there, here).
    header: Option<(Side, Side)>,
    /// Was A's listing one of all rows? Then names without a row are absent there, and no ghost tells of them.
    full: bool,
    first: u64,
    complete: bool,
    survivors: bool,
    touched: bool,
    now: Now,
    /// The own object is decided after the children.
    own_last: bool,
    /// Steps from this position on are held back until the own object is decided.
    held: Option<usize>,
    /// Finished subtrees, whose knowledge is raised one by one if this directory does not finish.
    finished: Vec<Finished>,
}

impl Frame {
    /// Does A know of events at or below that this side does not, although it listed all rows and so needs no
    /// ghost to tell of a deletion? Then none comes to be here either, and who asks here for changes only must
    /// be shown this directory in full.
    fn gaps(&self) -> bool {
        let (theirs, known) = (&self.theirs, &self.ours.sub);
        self.full && !theirs.sub.within(known) && !theirs.bound.within(known)
    }
}

struct Finished {
    path: RelPath,
    first: u64,
    until: u64,
    s: Arc<Vector>,
    bound: Arc<Vector>,
    gaps: bool,
}

/// What settling one object led to.
struct Settled {
    now: Now,
    touched: bool,
    complete: bool,
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
            next_ticket: 0,
            outcome: Outcome { complete: true, seq: 0 },
        }
    }

    /// The next thing to do. [`Poll::List`] is answered by [`Pull::supply`] before the next call.
    pub fn poll(&mut self) -> Poll {
        loop {
            if self.stack.iter().all(|frame| frame.held.is_none())
                && let Some(step) = self.out.pop_front()
            {
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
                _ => (End::Here, Filter::Since { after: u64::MAX, also: Arc::default() }),
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
                let listing = nothing_below(&frame.path, &frame.theirs);
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
                let here = if nothing_to_compare { Some(nothing_below(&frame.path, &frame.ours)) } else { self.supplied.take() };
                match here {
                    Some(here) => {
                        frame.full = there.full;
                        frame.header = Some((Side::listed(&there), Side::listed(&here)));
                        frame.children = Children::Next(self.pair_up(there, here).into_iter());
                    }
                    None => {
                        let (path, filter) = (frame.path.clone(), self.counterparts(&there));
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
            && self.terms.ignored.is_none()
            && self.terms.whole(path)
            && self.terms.force != Some(End::Here)
            && !self.terms.mutation.broken(Trap::GhostIsNothingToDo)
    }

    fn settle_whole(&mut self, path: &RelPath, theirs: &Side, ours: &Side) -> Settled {
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
        if !frame.theirs.is_dir() {
            frame.own_last = true;
            if frame.theirs.row.is_some() && self.terms.force.is_none() && self.policy(&frame.path) == Policy::Skip {
                // A conflict found at the end leaves the whole subtree as it is.
                frame.held = Some(self.out.len());
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

    fn finish_dir(&mut self, frame: &Frame) {
        if frame.now != Now::Dir || frame.path.is_root() {
            return;
        }
        let time = |side: &Side| side.row.as_ref().filter(|r| r.object.kind() == Kind::Dir).map(|r| r.object.attrs.mtime_ns);
        let newer_there = match (&frame.theirs.row, &frame.ours.row) {
            (Some(theirs), Some(ours)) => ours.m.within(&frame.theirs.own) && !theirs.m.within(&frame.ours.own),
            _ => false,
        };
        let (theirs, ours) = (time(&frame.theirs), time(&frame.ours));
        let target = match (theirs, ours) {
            (Some(theirs), Some(ours)) if !newer_there => theirs.max(ours),
            (Some(time), _) | (None, Some(time)) => time,
            (None, None) => return,
        };
        if frame.touched || ours.is_none() || (self.terms.mask.times && ours != Some(target)) {
            self.emit(&frame.path, Action::FinishDir { mtime_ns: target });
        }
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

    fn deletion_bound(&self, theirs: &Side) -> Arc<Vector> {
        if self.terms.mutation.broken(Trap::DeletionWithoutBound) { Arc::default() } else { theirs.bound_above.clone() }
    }

    fn policy(&self, path: &RelPath) -> Policy {
        self.terms.decided.get(path).copied().unwrap_or(self.terms.policy)
    }

    fn decide(&self, path: &RelPath, theirs: &Side, ours: &Side, survivors: bool) -> Decision {
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

    fn settle(&mut self, path: &RelPath, theirs: &Side, ours: &Side, survivors: bool) -> Settled {
        let decision = self.decide(path, theirs, ours, survivors);
        self.carry_out(path, theirs, ours, decision)
    }

    /// Turns a decision into steps.
    fn carry_out(&mut self, path: &RelPath, theirs: &Side, ours: &Side, decision: Decision) -> Settled {
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

    fn write(&mut self, path: &RelPath, theirs: &Side, ours: &Side, stamp: Stamp, copy_ours: bool) -> Settled {
        let Some(row) = theirs.row.clone() else { unreachable!("something stands there") };
        self.make_parents();
        let copy = ours.row.as_ref().filter(|_| copy_ours).and_then(|loser| conflict_path(path, loser));
        let now = Now::of(Some(&row));
        let action = Action::Write {
            row,
            from: path.clone(),
            expect: ours.row.clone(),
            stamp,
            learn: Some(theirs.own.clone()),
            displaced: copy.map_or(Displaced::Versions, Displaced::Copy),
        };
        self.emit(path, action);
        Settled { now, touched: true, complete: true }
    }

    /// A's version becomes a conflict copy beside what stays here.
    fn copy_theirs(&mut self, path: &RelPath, theirs: &Side) -> bool {
        let Some(row) = theirs.row.clone() else { return false };
        let Some(to) = conflict_path(path, &row) else { return false };
        let stamp = Stamp::Fresh { c: None };
        self.emit(
            &to,
            Action::Write { row, from: path.clone(), expect: None, stamp, learn: None, displaced: Displaced::Versions },
        );
        true
    }

    /// Directories that must exist for a child: each gets an event of its own.
    fn make_parents(&mut self) {
        for at in 0..self.stack.len() {
            let frame = &self.stack[at];
            if frame.now == Now::Dir {
                continue;
            }
            let attrs = frame.theirs.row.as_ref().map(|row| row.object.attrs).unwrap_or_default();
            let expect = frame.ours.row.clone();
            let copy = expect.as_ref().and_then(|loser| conflict_path(&frame.path, loser));
            let displaced = copy.map_or(Displaced::Versions, Displaced::Copy);
            let (path, learn) = (frame.path.clone(), frame.theirs.own.clone());
            self.emit(&path, Action::MakeDir { attrs, expect, displaced, learn });
            self.stack[at].now = Now::Dir;
        }
    }

    /// The rows here that a listing from there is compared with.
    fn counterparts(&self, there: &Listing) -> Filter {
        if there.full || there.children.len() > FEW || self.terms.asked_for(&there.path) {
            return Filter::All;
        }
        Filter::Only(Arc::new(there.children.iter().map(|child| child.name.clone()).collect()))
    }

    /// Pairs children by name. Where A's listing shows only what changed, names that it leaves out are
    /// looked at only if they were asked for.
    fn pair_up(&self, there: Listing, here: Listing) -> Vec<(Option<Child>, Option<Child>)> {
        let mut pairs = Vec::with_capacity(there.children.len().max(here.children.len()));
        let mut ours = here.children.into_iter().peekable();
        for theirs in there.children {
            while let Some(child) = ours.next_if(|child| child.name < theirs.name) {
                if there.full || self.terms.asked_for(&there.path.join(&child.name)) {
                    pairs.push((None, Some(child)));
                }
            }
            let same = ours.next_if(|child| child.name == theirs.name);
            pairs.push((Some(theirs), same));
        }
        let rest = ours.filter(|child| there.full || self.terms.asked_for(&there.path.join(&child.name)));
        pairs.extend(rest.map(|child| (None, Some(child))));
        pairs
    }

    fn emit(&mut self, path: &RelPath, action: Action) {
        self.out.push_back(Step { ticket: self.next_ticket, path: path.clone(), action });
        self.next_ticket += 1;
    }
}

fn nothing_below(path: &RelPath, side: &Side) -> Listing {
    Listing {
        path: path.clone(),
        sub: side.sub.clone(),
        bound: side.bound.clone(),
        digest: side.digest,
        seq: 0,
        full: true,
        children: Vec::new(),
    }
}
