//! Steps of a batch, grouped into what is done as one: a new directory with all that is new in it is one job.

use super::moves::{Moves, Offer};
use crate::entry::{Attrs, Content, Hash, Object, Same};
use crate::io::stage::{Finish, Incoming, Tree};
use crate::knowledge::{Row, Vector};
use crate::path::RelPath;
use crate::plan::{Action, Displaced, Item, Stamp, Step};
use std::collections::HashMap;
use std::sync::Arc;

/// Something to be done in one go.
#[derive(Debug)]
pub(super) enum Job {
    /// Staged content goes to its path.
    Place(Tree),
    /// A file comes from another path here.
    Move { tree: Tree, offer: Offer },
    /// A whole directory comes from another path here.
    MoveTree { tree: Tree, offer: Offer },
    /// The object stays and changes its attributes.
    Attributes(Attributes),
    /// An object goes.
    Remove(Removal),
    /// A filled directory gets its time.
    Finish { path: RelPath, finish: Finish },
    /// Rows alone.
    Rows(Step),
}

/// A change of attributes in place.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) ticket: u64,
    pub(super) path: RelPath,
    pub(super) expect: Row,
    pub(super) object: Object,
    pub(super) attrs: Attrs,
    pub(super) stamp: Stamp,
    pub(super) learn: Option<Arc<Vector>>,
    pub(super) item: Option<Item>,
    /// Its row at the source, for the list of what is left open.
    pub(super) theirs: Option<Row>,
}

/// A removal of one object, or of a directory with all that is below it.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) ticket: u64,
    pub(super) path: RelPath,
    pub(super) whole: bool,
    pub(super) expect: Row,
    pub(super) learn: Arc<Vector>,
    pub(super) bound: Arc<Vector>,
    /// The deletion gets an event of this replica.
    pub(super) event: bool,
    pub(super) item: Option<Item>,
}

/// Groups the steps of a batch. `moving` holds the directories of the batch that come from another path here.
pub(super) fn group(steps: Vec<Step>, moves: &mut Moves, mut moving: HashMap<RelPath, Offer>) -> Vec<Job> {
    let mut grouping = Grouping::default();
    for step in steps {
        let offer = moving.remove(&step.path);
        grouping.take(step, offer, moves);
    }
    grouping.close();
    grouping.jobs
}

enum Normal {
    Incoming(Box<Incoming>),
    Finish { path: RelPath, finish: Finish },
    Other(Box<Job>),
}

/// A tree under construction: the directories from its top down to where the steps are.
#[derive(Default)]
struct Grouping {
    jobs: Vec<Job>,
    open: Vec<Branch>,
    /// Jobs inside the open tree that are done by themselves, after it.
    after: Vec<Job>,
    origin: Option<Offer>,
    /// A directory that comes from another path here, inside the open tree.
    inner: Option<(RelPath, Box<Grouping>)>,
}

struct Branch {
    tree: Tree,
    /// Something in it comes by itself, after it.
    incomplete: bool,
}

impl Grouping {
    fn take(&mut self, step: Step, offer: Option<Offer>, moves: &mut Moves) {
        self.leave_for(&step.path);
        if let Some(branch) = self.open.last_mut()
            && self.inner.is_none()
            && offer.is_some()
        {
            branch.incomplete = true;
            self.inner = Some((step.path.clone(), Box::default()));
        }
        if let Some((_, inner)) = &mut self.inner {
            return inner.take(step, offer, moves);
        }
        match normalise(step) {
            Normal::Incoming(incoming) => self.incoming(*incoming, offer, moves),
            Normal::Finish { path, finish } => self.finish(path, finish),
            Normal::Other(job) => self.after.push(*job),
        }
    }

    /// Closes the directories that do not contain `path`.
    fn leave_for(&mut self, path: &RelPath) {
        if self.inner.as_ref().is_some_and(|(top, _)| !top.contains(path)) {
            self.close_inner();
        }
        while self.open.last().is_some_and(|branch| !branch.tree.top.path.contains(path)) {
            self.close_one();
        }
        if self.open.is_empty() {
            self.jobs.append(&mut self.after);
        }
    }

    fn close_inner(&mut self) {
        if let Some((_, mut inner)) = self.inner.take() {
            inner.close();
            self.after.append(&mut inner.jobs);
        }
    }

    fn close_one(&mut self) {
        let Some(branch) = self.open.pop() else { return };
        if let Some(parent) = self.open.last_mut() {
            parent.tree.trees.push(branch.tree);
            return;
        }
        self.jobs.push(match self.origin.take() {
            Some(offer) => Job::MoveTree { tree: branch.tree, offer },
            None => Job::Place(branch.tree),
        });
        self.jobs.append(&mut self.after);
    }

    fn close(&mut self) {
        self.close_inner();
        while !self.open.is_empty() {
            self.close_one();
        }
        self.jobs.append(&mut self.after);
    }

    fn incoming(&mut self, incoming: Incoming, origin: Option<Offer>, moves: &mut Moves) {
        let is_dir = incoming.object.content == Content::Dir;
        let plain_creation = incoming.expect.is_none() && incoming.from == incoming.path;
        if self.origin.is_none()
            && plain_creation
            && let Content::File { hash: Some(hash), .. } = incoming.object.content
            && let Some(offer) = moves.claim_file(&hash, &incoming.path)
        {
            return self.alone(|incoming| Job::Move { tree: Tree::of(incoming), offer }, incoming);
        }
        match self.open.last_mut() {
            Some(branch) if plain_creation && child_of(&incoming.path, &branch.tree.top.path) => {
                if is_dir {
                    self.open.push(Branch { tree: Tree::of(incoming), incomplete: false });
                } else {
                    branch.tree.leaves.push(incoming);
                }
            }
            None if is_dir => {
                self.origin = origin;
                self.open.push(Branch { tree: Tree::of(incoming), incomplete: false });
            }
            _ => self.alone(|incoming| Job::Place(Tree::of(incoming)), incoming),
        }
    }

    /// A job for one object that is not part of the open tree, though perhaps in one of its directories.
    fn alone(&mut self, job: impl FnOnce(Incoming) -> Job, incoming: Incoming) {
        if let Some(branch) = self.open.last_mut() {
            branch.incomplete = true;
        }
        self.after.push(job(incoming));
        if self.open.is_empty() {
            self.jobs.append(&mut self.after);
        }
    }

    fn finish(&mut self, path: RelPath, finish: Finish) {
        match self.open.last_mut() {
            Some(branch) if branch.tree.top.path == path && !branch.incomplete => {
                branch.tree.finish = Some(finish);
            }
            _ => self.after.push(Job::Finish { path, finish }),
        }
    }
}

fn child_of(path: &RelPath, dir: &RelPath) -> bool {
    path.parent().is_some_and(|parent| parent == *dir)
}

fn normalise(step: Step) -> Normal {
    let item = step.item();
    let Step { ticket, path, action } = step;
    match action {
        Action::Write { row, from, expect, stamp, learn, displaced, .. } => {
            if let Some(old) = &expect
                && from == path
                && only_attributes(&row.object, &old.object)
            {
                let expect = old.clone();
                let (object, attrs) = (row.object.clone(), row.object.attrs);
                let theirs = Some(row);
                let change = Attributes { ticket, path, expect, object, attrs, stamp, learn, item, theirs };
                return Normal::Other(Box::new(Job::Attributes(change)));
            }
            let (object, theirs) = (row.object.clone(), Some(row));
            let incoming = incoming((ticket, path, item), object);
            Normal::Incoming(Box::new(Incoming { from, expect, stamp, learn, displaced, theirs, ..incoming }))
        }
        Action::MakeDir { attrs, expect, displaced, learn } => {
            let incoming = incoming((ticket, path, item), Object { content: Content::Dir, attrs });
            Normal::Incoming(Box::new(Incoming { expect, displaced, learn: Some(learn), ..incoming }))
        }
        Action::Restamp { expect, attrs: Some(attrs), stamp, learn, .. } => {
            let object = Object { attrs, ..expect.object.clone() };
            let (learn, theirs) = (Some(learn), None);
            let change = Attributes { ticket, path, expect, object, attrs, stamp, learn, item, theirs };
            Normal::Other(Box::new(Job::Attributes(change)))
        }
        Action::Remove { expect, learn, bound, event } => {
            let whole = false;
            let removal = Removal { ticket, path, whole, expect, learn, bound, event, item };
            Normal::Other(Box::new(Job::Remove(removal)))
        }
        Action::RemoveTree { expect, learn, bound } => {
            let (whole, event) = (true, false);
            let removal = Removal { ticket, path, whole, expect, learn, bound, event, item };
            Normal::Other(Box::new(Job::Remove(removal)))
        }
        Action::FinishDir { mtime_ns } => Normal::Finish { path, finish: Finish { ticket, mtime_ns } },
        action => Normal::Other(Box::new(Job::Rows(Step { ticket, path, action }))),
    }
}

/// An object that comes to its own path as a decision of this replica, and displaces nothing.
fn incoming((ticket, path, item): (u64, RelPath, Option<Item>), object: Object) -> Incoming {
    Incoming {
        ticket,
        from: path.clone(),
        path,
        object,
        disk: None,
        expect: None,
        alike: None,
        stamp: Stamp::Fresh { c: None },
        learn: None,
        displaced: Displaced::Versions,
        item,
        theirs: None,
        outcome: None,
    }
}

/// Is the new object the old one with other attributes, so that no content need be brought?
fn only_attributes(new: &Object, old: &Object) -> bool {
    match (&new.content, &old.content) {
        (Content::Symlink(_), _) | (_, Content::Symlink(_)) => false,
        // Empty files are equal by size; without a hash the content is brought.
        (Content::File { .. }, Content::File { .. }) => hash_of(new).is_some() && new.same_content(old) == Same::Yes,
        _ => new.same_content(old) == Same::Yes,
    }
}

/// The hash of a file, if it is one and was read.
pub(super) fn hash_of(object: &Object) -> Option<Hash> {
    match object.content {
        Content::File { hash, .. } => hash,
        _ => None,
    }
}
