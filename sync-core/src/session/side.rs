//! One side's view of a path: its version, and what covers it.

use crate::entry::{Digest, Kind};
use crate::knowledge::{Row, Vector};
use crate::store::{Child, Listing};
use std::sync::Arc;

/// What stands, or will stand, at a path here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    Absent,
    Dir,
    Leaf,
}

impl Now {
    pub(super) fn of(row: Option<&Row>) -> Now {
        match row.map(|r| r.object.kind()) {
            None => Now::Absent,
            Some(Kind::Dir) => Now::Dir,
            Some(_) => Now::Leaf,
        }
    }
}

/// One side's view of a path.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) row: Option<Row>,
    pub(super) sub: Arc<Vector>,
    pub(super) own: Arc<Vector>,
    pub(super) bound: Arc<Vector>,
    /// M of the containing directory: covers the deletion of a path that has no row.
    pub(super) bound_above: Arc<Vector>,
    pub(super) digest: Digest,
    /// Is there a row that says absent?
    pub(super) ghost: bool,
    /// Are there rows below?
    pub(super) tree: bool,
    /// Does S of this very path tell more than its directory's?
    pub(super) s_of_its_own: bool,
}

impl Side {
    pub(super) fn of(parent: &Side, child: Option<&Child>) -> Side {
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
    pub(super) fn listed(listing: &Listing) -> Side {
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

    pub(super) fn is_dir(&self) -> bool {
        self.row.as_ref().is_some_and(|r| r.object.kind() == Kind::Dir)
    }

    pub(super) fn knows_more_of_the_object(&self) -> bool {
        !Arc::ptr_eq(&self.own, &self.sub)
    }
}
