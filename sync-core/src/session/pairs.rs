//! Which rows of both sides are looked at together.

use super::side::Side;
use super::terms::Terms;
use crate::path::RelPath;
use crate::store::{Child, Filter, Listing};
use std::sync::Arc;

/// Up to so many changed names of a directory are looked up one by one; beyond, its rows are read in a row.
const FEW: usize = 64;

/// The rows here that a listing from there is compared with.
pub(super) fn counterparts(terms: &Terms, there: &Listing) -> Filter {
    if there.full || there.children.len() > FEW || terms.asked_for(&there.path) {
        return Filter::All;
    }
    Filter::Only(Arc::new(there.children.iter().map(|child| child.name.clone()).collect()))
}

/// Pairs children by name. Where A's listing shows only what changed, names that it leaves out are
/// looked at only if they were asked for.
pub(super) fn pair_up(terms: &Terms, there: Listing, here: Listing) -> Vec<(Option<Child>, Option<Child>)> {
    let mut pairs = Vec::with_capacity(there.children.len().max(here.children.len()));
    let mut ours = here.children.into_iter().peekable();
    for theirs in there.children {
        while let Some(child) = ours.next_if(|child| child.name < theirs.name) {
            if there.full || terms.asked_for(&there.path.join(&child.name)) {
                pairs.push((None, Some(child)));
            }
        }
        let same = ours.next_if(|child| child.name == theirs.name);
        pairs.push((Some(theirs), same));
    }
    let rest = ours.filter(|child| there.full || terms.asked_for(&there.path.join(&child.name)));
    pairs.extend(rest.map(|child| (None, Some(child))));
    pairs
}

pub(super) fn nothing_below(path: &RelPath, side: &Side) -> Listing {
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
