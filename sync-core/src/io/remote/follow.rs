//! Which directories follow one in the order of the tree, as far as a walk by rows would go there.

use crate::entry::Kind;
use crate::io::state::{State, StateError};
use crate::path::{Name, RelPath};
use crate::store::{Child, Filter, Listing};

/// Walks on from a directory: what is below it, then what comes after it.
pub(super) struct Follow<'a> {
    state: &'a State,
    filter: &'a Filter,
    /// Directories under way, and what is left of each; the innermost is the last.
    stack: Vec<(RelPath, std::vec::IntoIter<Name>)>,
    /// Everything at and below it is in the stack, or done.
    top: RelPath,
}

impl<'a> Follow<'a> {
    /// Begins after `listing`, which `filter` made.
    pub(super) fn after(state: &'a State, filter: &'a Filter, listing: &Listing) -> Follow<'a> {
        let mut follow = Follow { state, filter, stack: Vec::new(), top: listing.path.clone() };
        follow.enter(listing);
        follow
    }

    /// The next directory.
    pub(super) fn next(&mut self) -> Result<Option<RelPath>, StateError> {
        loop {
            while let Some((dir, names)) = self.stack.last_mut() {
                match names.next() {
                    Some(name) => return Ok(Some(dir.join(&name))),
                    None => self.stack.pop(),
                };
            }
            let Some((above, name)) = self.top.split() else { return Ok(None) };
            let mut names = self.names(&self.state.listing(&above, self.filter)?);
            names.retain(|other| *other > name);
            self.stack.push((above.clone(), names.into_iter()));
            self.top = above;
        }
    }

    /// Goes on below the directory that came last.
    pub(super) fn enter(&mut self, listing: &Listing) {
        let names = self.names(listing);
        self.stack.push((listing.path.clone(), names.into_iter()));
    }

    fn names(&self, listing: &Listing) -> Vec<Name> {
        let goes = |child: &&Child| child.tree.is_some() && self.goes_to(&listing.path, child);
        listing.children.iter().filter(goes).map(|child| child.name.clone()).collect()
    }

    /// Would the same filter be asked for there?
    fn goes_to(&self, dir: &RelPath, child: &Child) -> bool {
        match self.filter {
            Filter::All => true,
            Filter::Since { also, .. } => {
                let live = child.row.as_ref().is_some_and(|row| row.object.kind() == Kind::Dir);
                let path = || dir.join(&child.name);
                live && (also.is_empty() || !path().ancestors().any(|above| also.contains(&above)))
            }
            Filter::Only(_) => false,
        }
    }
}
