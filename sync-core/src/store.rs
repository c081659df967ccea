//! The face of a replica's rows: what a listing shows, what a transaction may change.
//!
//! Two implementations exist: the SQLite state of a real root and the simulator's maps. The rules that bind
//! both stand at [`Change`].

use crate::entry::{Digest, Hash, Signature};
use crate::knowledge::{ReplicaId, Row, Tree, Vector};
use crate::path::{Name, RelPath};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A child in a listing: a live path, or a ghost (absent, but with something to tell).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: Name,
    /// Its version; `None` for a ghost.
    pub row: Option<Row>,
    /// o: extra knowledge valid for the object at this path only.
    pub own: Option<Arc<Vector>>,
    /// Present for every live directory, and for others that have rows below or knowledge for what is below.
    pub tree: Option<Tree>,
}

/// Rows of one directory, read in one transaction together with what covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The directory.
    pub path: RelPath,
    /// Sub(path): the replica's own component joined with S of the path and of all ancestors.
    pub sub: Arc<Vector>,
    /// M(path), or that of the nearest ancestor that has one.
    pub bound: Arc<Vector>,
    /// D(path); zero where the path has no rows.
    pub digest: Digest,
    /// The newest local sequence number at the time of reading.
    pub seq: u64,
    /// Are these all rows of the directory, so that a name without a row is absent here?
    pub full: bool,
    /// By name, ascending.
    pub children: Vec<Child>,
}

/// Which children a listing shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All rows, ghosts included.
    All,
    /// The rows that changed, or have changes below them, after the sequence number `after`; and those of
    /// `also` (paths below the root) that lie at or below a child. A directory is listed in full
    /// if something below it may have gone without a ghost since: it has no tree, so that it went itself; its tree came to be or went whole after `after`; rows in it were forgotten;
    /// its bound was raised with gaps, or ghosts as young as that were dropped.
    Since {
        /// Highest sequence number that the asking side has incorporated.
        after: u64,
        /// Paths asked for by name, whatever their sequence number.
        also: Arc<BTreeSet<RelPath>>,
    },
    /// The rows of these names, ascending.
    Only(Arc<Vec<Name>>),
}

impl Filter {
    /// No rows: what a directory knows as a whole.
    #[must_use]
    pub fn header() -> Filter {
        Filter::Since { after: u64::MAX, also: Arc::default() }
    }
}

/// One change of rows. A transaction applies a list of them, all or none, and keeps these invariants at its end:
///
/// * M of a directory covers every `m` below it, and every `bound` given with a removal below it.
/// * D of a directory is the sum over its live children.
/// * A row that comes to be, and a tree that comes to be, starts with M = a copy of its nearest ancestor's M. The M of
///   a path that becomes live, or becomes a directory, is joined with that of its parent: before, nobody kept it up.
/// * Every row changed, ghosts included, takes the next local sequence number, and so do the trees above it.
/// * Vectors only grow, but for [`Change::Forget`].
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The path is live with this row. o of the path is joined with `learn`; M of the path and of all its
    /// ancestors is raised by the row's m.
    Put {
        /// Where.
        path: RelPath,
        /// The version that stands there now.
        row: Row,
        /// What the file system says of it.
        signature: Signature,
        /// Knowledge gained for the object at this path.
        learn: Option<Arc<Vector>>,
    },
    /// The path is absent now; rows below it (ghosts at the most) stay. Leaves a ghost, o joined with `learn`.
    Remove {
        /// Where.
        path: RelPath,
        /// Knowledge gained for the object at this path.
        learn: Option<Arc<Vector>>,
        /// Raises M of the path's ancestors: the deletion's event, or what covers it.
        bound: Arc<Vector>,
    },
    /// The path and everything below it is absent now. All rows below go; a ghost of the path stays.
    RemoveTree {
        /// Where.
        path: RelPath,
        /// Knowledge gained for the path and everything below; joined with S of the path.
        learn: Option<Arc<Vector>>,
        /// Raises M of the path's ancestors.
        bound: Arc<Vector>,
    },
    /// o of the path is joined with `learn`; a ghost row is made if the path has none and `learn` exceeds Sub(path).
    /// M of the path's ancestors is joined with `bound`. Nothing happens if `learn` is known already.
    Learn {
        /// Where.
        path: RelPath,
        /// Knowledge gained for the object at this path.
        learn: Arc<Vector>,
        /// Covers the deletion that the knowledge may be about; empty for a path that is live there.
        bound: Arc<Vector>,
    },
    /// S of the path is joined with `s`, M of the path and of all its ancestors with `bound`. Makes the path's
    /// row (a ghost) and tree if there is none.
    Raise {
        /// Where.
        path: RelPath,
        /// Knowledge valid for the path and everything below it.
        s: Option<Arc<Vector>>,
        /// What covers all versions and deletions at or below.
        bound: Arc<Vector>,
        /// `bound` may stand for deletions that have no ghosts here: a listing of the path since an earlier
        /// sequence number must be full.
        gaps: bool,
    },
    /// No event: the file system's view of an unchanged object was renewed, its times refreshed, or its bytes
    /// were read for the first time.
    Refresh {
        /// Where; nothing happens if the path is not live.
        path: RelPath,
        /// What the file system says now.
        signature: Signature,
        /// The hash, if it was computed.
        hash: Option<Hash>,
        /// For directories only: the carried modification time.
        mtime_ns: Option<i64>,
    },
    /// The path came under an ignore rule: its rows, and all below, go without an event and without a ghost.
    ///
    /// What is ignored is unknown, and never deleted, also once the rule has gone; but S of the directories above, and
    /// the replica's own component, would say of the path that its versions are known and absent. So all that was known
    /// of those directories becomes the knowledge of their remaining rows (o of leaves without rows below, S of
    /// others), their S becomes empty, and the replica takes a new identity and remembers of no other how far it
    /// incorporated its changes. Names without a row are unknown afterwards, which may bring back what was deleted
    /// long ago, and loses nothing. The forgotten paths of one transaction are let go together.
    Forget {
        /// Where.
        path: RelPath,
    },
}

/// A replica's rows, whatever keeps them.
pub trait Store {
    /// What can go wrong in the keeping.
    type Error;

    /// The replica's identity.
    fn id(&self) -> ReplicaId;

    /// The rows of one directory. A directory without rows yields an empty listing with the knowledge it inherits.
    ///
    /// # Errors
    /// What the keeping reports.
    fn listing(&self, dir: &RelPath, filter: &Filter) -> Result<Listing, Self::Error>;
}

impl Filter {
    /// Is a path asked for by name at or below `path`?
    #[must_use]
    pub fn names(&self, path: &RelPath) -> bool {
        match self {
            Filter::All | Filter::Only(_) => false,
            Filter::Since { also, .. } => also.range(path.clone()..).next().is_some_and(|p| path.contains(p)),
        }
    }
}
