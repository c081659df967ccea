//! A path under way that has rows below it.

use super::side::{Now, Side};
use crate::knowledge::Vector;
use crate::path::RelPath;
use crate::store::{Child, Listing};
use std::sync::Arc;

pub(super) enum Children {
    AskThere,
    AskHere(Listing),
    Next(std::vec::IntoIter<(Option<Child>, Option<Child>)>),
}

/// A path that has rows below it on either side.
pub(super) struct Frame {
    pub(super) path: RelPath,
    pub(super) theirs: Side,
    pub(super) ours: Side,
    /// Both know all of the other's and yet the digests differ: every row is looked at.
    pub(super) differ: bool,
    pub(super) children: Children,
    /// The directory's knowledge as read together with the rows of its children: (there, here).
    pub(super) header: Option<(Side, Side)>,
    /// Was A's listing one of all rows? Then names without a row are absent there, and no ghost tells of them.
    pub(super) full: bool,
    pub(super) first: u64,
    pub(super) complete: bool,
    pub(super) survivors: bool,
    pub(super) touched: bool,
    pub(super) now: Now,
    /// The own object is decided after the children.
    pub(super) own_last: bool,
    /// Steps from this position on are held back until the own object is decided.
    pub(super) held: Option<usize>,
    /// Finished subtrees, whose knowledge is raised one by one if this directory does not finish.
    pub(super) finished: Vec<Finished>,
}

impl Frame {
    /// Did something arrive below a leaf that took a directory's place? Then all of it stays as it is on both sides.
    pub(super) fn is_left(&self) -> bool {
        self.held.is_some() && !self.own_last && self.now == Now::Dir
    }

    /// Does A know of events at or below that this side does not, although it listed all rows and so needs no
    /// ghost to tell of a deletion? Then none comes to be here either, and who asks here for changes only must
    /// be shown this directory in full.
    pub(super) fn gaps(&self) -> bool {
        let (theirs, known) = (&self.theirs, &self.ours.sub);
        self.full && !theirs.sub.within(known) && !theirs.bound.within(known)
    }
}

pub(super) struct Finished {
    pub(super) path: RelPath,
    pub(super) first: u64,
    pub(super) until: u64,
    pub(super) s: Arc<Vector>,
    pub(super) bound: Arc<Vector>,
    pub(super) gaps: bool,
}
