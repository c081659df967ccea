//! What a pull is to do: how far it looks, how it decides, what it may raise.

use crate::entry::AttrMask;
use crate::knowledge::Mutation;
use crate::path::RelPath;
use crate::reconcile::{End, Policy};
use crate::store::Filter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Decides whether a path is ignored; the flag says whether it is a directory.
pub type Ignored = Arc<dyn Fn(&RelPath, bool) -> bool + Send + Sync>;

/// Most steps that wait for a decision about a directory above them.
const HELD_STEPS: usize = 65_536;

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
    /// Directories that do not go in one step even so, because something in them comes to be elsewhere: of them each path goes by itself,
    /// but for directories in them, which are not named here.
    pub apart: Arc<BTreeSet<RelPath>>,
    /// Most steps that are held back until it is clear that `Policy::Skip` does not leave the whole of a directory
    /// as it is. With more they are carried out: each of them follows from what both sides know of its path, and
    /// what the directory itself becomes is decided by what is left in it, as ever.
    pub held: usize,
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
            apart: Arc::default(),
            held: HELD_STEPS,
            mutation: Mutation::default(),
        }
    }

    pub(super) fn filter(&self, path: &RelPath, everything: bool) -> Filter {
        match &self.since {
            Some((after, also)) if !everything && !path.ancestors().any(|p| also.contains(&p)) => {
                Filter::Since { after: *after, also: also.clone() }
            }
            _ => Filter::All,
        }
    }

    /// Is the path, or something below it, asked for by name? A's listing leaves out what has no row there.
    pub(super) fn asked_for(&self, path: &RelPath) -> bool {
        let Some((after, also)) = &self.since else { return false };
        Filter::Since { after: *after, also: also.clone() }.names(path)
    }

    /// Is the path, or something below it, to be looked at?
    pub(super) fn in_reach(&self, path: &RelPath) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|s| s.contains(path) || path.contains(s))
    }

    /// Is everything below the path to be looked at?
    pub(super) fn whole(&self, path: &RelPath) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|s| s.contains(path))
    }
}
