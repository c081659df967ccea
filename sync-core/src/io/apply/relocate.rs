//! Moves: content that stands here already is renamed to its new path instead of being brought.

use super::Stop;
use super::check;
use super::moves::{Offer, Origin};
use super::prepare::Prepared;
use super::swap::{Swapper, set_signature};
use crate::entry::{AttrMask, Attrs, Kind, Signature};
use crate::io::fs::{Dir, Replace};
use crate::io::kill::kill_point;
use crate::io::source::same_object;
use crate::io::stage::{Failure, Finish, Tree};
use crate::io::state::Intent;
use crate::path::{Name, RelPath};
use crate::store::Change;
use std::io::ErrorKind;
use std::rc::Rc;

/// Where a move takes its object from.
struct From {
    dir: Rc<Dir>,
    name: Vec<u8>,
    /// Its record among the kept versions: its rows went before.
    kept: Option<Vec<u8>>,
}

impl Swapper<'_> {
    pub(super) fn move_file(&mut self, tree: &Tree, offer: &Offer, plan: Prepared) -> Result<(), Stop> {
        let Intent { path, staged_signature, mut changes, .. } = plan.intent;
        let origin = identity(staged_signature)?;
        let from = self.moved_from(offer)?;
        let (dir, name) = self.parent(&path)?;
        self.parent_lives(&path)?;
        kill_point("move-before");
        rename(&from, &dir, &name)?;
        kill_point("move-after");
        let attrs = tree.top.object.attrs;
        let moved = dir.stat(name.as_bytes())?.filter(|moved| same_object(moved, &origin));
        let Some(moved) = moved else { return Err(give_back(&from, &dir, &name, "move", None)) };
        let mask = differing(self.context.mask, Kind::File, &moved, &attrs);
        if let Err(error) = dir.set_attrs(name.as_bytes(), &attrs, mask) {
            return Err(give_back(&from, &dir, &name, "move", Some(error.to_string())));
        }
        kill_point("move-attributes");
        let mut now = dir.stat(name.as_bytes())?;
        if let Some(now) = &mut now {
            // A write of equal size since the last look: it moved the time, or the time was set over it.
            now.racy = origin.racy || mask.times || now.mtime_ns != moved.mtime_ns;
        }
        let signature = now.filter(|now| now.ino == moved.ino && now.size == moved.size);
        set_signature(&mut changes, &path, signature.unwrap_or(moved));
        self.arrived(offer, changes, from)?;
        self.ledger.moved(tree.top.item.as_ref(), &offer.path);
        Ok(())
    }

    pub(super) fn move_tree(&mut self, tree: &Tree, offer: &Offer, plan: Prepared) -> Result<(), Stop> {
        let Intent { path, staged_signature, mut changes, .. } = plan.intent;
        let origin = identity(staged_signature)?;
        let from = self.moved_from(offer)?;
        let (dir, name) = self.parent(&path)?;
        self.parent_lives(&path)?;
        kill_point("move-tree-before");
        rename(&from, &dir, &name)?;
        self.forget_dirs();
        kill_point("move-tree-after");
        let moved = dir.stat(name.as_bytes())?.filter(|moved| moved.ino == origin.ino);
        let Some(moved) = moved else { return Err(give_back(&from, &dir, &name, "move", None)) };
        let mut attrs = tree.top.object.attrs;
        if let Some(finish) = tree.finish {
            attrs.mtime_ns = finish.mtime_ns;
        }
        let mut mask = differing(self.context.mask, Kind::Dir, &moved, &attrs);
        mask.times = self.context.mask.times && attrs.mtime_ns != moved.mtime_ns;
        if let Err(error) = dir.set_attrs(name.as_bytes(), &attrs, mask) {
            return Err(give_back(&from, &dir, &name, "move", Some(error.to_string())));
        }
        let now = dir.stat(name.as_bytes())?.filter(|now| now.ino == moved.ino);
        set_signature(&mut changes, &path, now.unwrap_or(moved));
        self.arrived(offer, changes, from)?;
        self.ledger.moved(tree.top.item.as_ref(), &offer.path);
        tree.each(&mut |incoming| {
            if incoming.ticket != tree.top.ticket {
                self.ledger.came_along(incoming.item.as_ref());
            }
        });
        self.finish_moved(tree)
    }

    /// Carried times of the directories inside; a rename leaves them, so that few differ.
    fn finish_moved(&mut self, tree: &Tree) -> Result<(), Stop> {
        let mut other: Vec<(RelPath, Finish)> = Vec::new();
        for branch in &tree.trees {
            branch.each_finish(&mut |dir, finish| {
                let now = dir.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
                if now.is_none_or(|now| now.mtime_ns != finish.mtime_ns) {
                    other.push((dir.path.clone(), finish));
                }
            });
        }
        for (path, finish) in other {
            self.finish_dir(&path, finish)?;
        }
        Ok(())
    }

    /// The origin of a move, looked at once more.
    fn moved_from(&mut self, offer: &Offer) -> Result<From, Stop> {
        if let Some(Origin::Kept(kept)) = self.moves.origin(&offer.path) {
            let gone = || Failure::new("move", "its file system is not mounted");
            let (area, name) = self.areas.find(&kept.name).ok_or_else(gone)?;
            return Ok(From { dir: area.kept.clone(), name: name.to_vec(), kept: Some(kept.name.clone()) });
        }
        let Some(live) = self.rows.current(&offer.path)? else {
            return Err(check::changed("move"));
        };
        let (dir, name) = self.parent(&offer.path)?;
        check::on_disk(&dir, name.as_bytes(), &live.signature, Some(&live), "move")?;
        Ok(From { dir, name: name.as_bytes().to_vec(), kept: None })
    }

    /// Records a move. If the removal of the old path was carried out before, it was recorded then.
    fn arrived(&mut self, offer: &Offer, mut changes: Vec<Change>, from: From) -> Result<(), Stop> {
        if let Some(name) = &from.kept {
            changes.retain(|change| !matches!(change, Change::Remove { .. } | Change::RemoveTree { .. }));
            self.unkeep(&offer.path, name)?;
        }
        self.did(changes, None);
        if let Some(kept) = self.moves.taken(&offer.path)
            && kept.withheld.is_none()
        {
            self.ledger.untell_deletion();
        }
        Ok(())
    }
}

fn identity(signature: Option<Signature>) -> Result<Signature, Stop> {
    signature.ok_or_else(|| Failure::new("move", "its origin has no identity").into())
}

fn rename(from: &From, dir: &Dir, name: &Name) -> Result<(), Stop> {
    match from.dir.rename(&from.name, dir, name.as_bytes(), Replace::Never) {
        Ok(()) => Ok(()),
        Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {
            let what = "something stands there that was not there when it was scanned";
            Err(Failure::new("move", what).into())
        }
        Err(error) => Err(check::refused_by_either(error, &from.dir, dir)),
    }
}

/// What arrived is not what was expected, or cannot be made so: it returns. Where that fails it stays at the new
/// path, where the next scan finds it as a user's.
fn give_back(from: &From, dir: &Dir, name: &Name, step: &'static str, why: Option<String>) -> Stop {
    match (dir.rename(name.as_bytes(), &from.dir, &from.name, Replace::Never), why) {
        (Ok(()), None) => check::changed(step),
        (Ok(()), Some(why)) => Failure::new(step, why).into(),
        (Err(error), _) => error.into(),
    }
}

/// The replicated attributes in which an object differs from what it is to have.
fn differing(mask: AttrMask, kind: Kind, now: &Signature, attrs: &Attrs) -> AttrMask {
    let only = |perms, owner, times| AttrMask { perms, owner, times };
    let has = now.attrs();
    let owner = mask.owner && !only(false, true, false).equal(kind, &has, attrs);
    // A change of owner clears setuid and setgid: the mode is set again after it.
    let perms = mask.perms && (owner || !only(true, false, false).equal(kind, &has, attrs));
    AttrMask {
        perms,
        // And they are set only together with it.
        owner: owner || (mask.owner && perms),
        times: mask.times && !only(false, false, true).equal(kind, &has, attrs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_differs_is_set_with_the_owner_where_that_is_synchronised() {
        let now = Signature { mode: 0o10_0755, ..Signature::default() };
        let attrs = Attrs { mode: 0o4755, ..Attrs::default() };
        for may in [true, false] {
            let mask = differing(AttrMask::standard(may), Kind::File, &now, &attrs);
            assert_eq!(mask, AttrMask { perms: true, owner: may, times: false });
            assert_eq!(differing(mask, Kind::File, &now, &now.attrs()), AttrMask { perms: false, owner: false, times: false });
        }
    }
}
