//! Removals: a rename to the kept versions, and a look at what went.

use super::areas::leaf;
use super::check::{self, changed};
use super::job::Removal;
use super::late;
use super::moves::{Contents, Kept, Origin};
use super::prepare::Prepared;
use super::swap::Swapper;
use super::{MOVE_STEPS, Stop};
use crate::entry::Signature;
use crate::io::fs::{Dir, Replace};
use crate::io::kill::kill_point;
use crate::io::source::same_object;
use crate::io::stage::Failure;
use crate::io::state::{Intent, NewVersion};
use crate::path::RelPath;
use std::io::ErrorKind;

impl Swapper<'_> {
    pub(super) fn remove(&mut self, removal: &Removal, plan: Option<Prepared>) -> Result<(), Stop> {
        if let Some(Origin::Taken) = self.moves.origin(&removal.path) {
            // It stands at its new path, and its rows went along.
            return Ok(());
        }
        let Some(plan) = plan else {
            return Err(Failure::new("remove", "no intent was written for it").into());
        };
        let Prepared { id, intent, area, .. } = plan;
        let Intent { path, expect, changes, version, .. } = intent;
        let Some(expected) = expect else { return Err(changed("remove")) };
        let contents = match &version {
            Some(version) if removal.whole => self.remove_tree(&path, &expected, (&area.kept, version), id)?,
            Some(version) => {
                self.remove_leaf(&path, &expected, &area.kept, version)?;
                Some(Contents::new())
            }
            None => {
                self.remove_empty(&path, &expected, id)?;
                Some(Contents::new())
            }
        };
        self.did(changes, version.clone());
        let withheld = self.moves.withholds(&path);
        if let (Some(version), Some(contents), true) = (version, contents, self.moves.origin(&path).is_some())
            && self.moves.has_room(contents.len())
        {
            let contents = removal.whole.then_some(contents);
            let withheld = removal.item.clone().filter(|_| withheld);
            let (name, signature) = (version.name, expected);
            self.moves.keep(&path, Kept { name, signature, contents, withheld });
            if withheld_now(self.moves.origin(&path)) {
                return Ok(());
            }
        }
        self.ledger.done(removal.item.as_ref());
        Ok(())
    }

    fn remove_leaf(&mut self, path: &RelPath, expected: &Signature, kept: &Dir, version: &NewVersion) -> Result<(), Stop> {
        let (dir, name) = self.parent(path)?;
        let live = self.rows.current(path)?;
        check::on_disk(&dir, name.as_bytes(), expected, live.as_ref(), "remove")?;
        kill_point("remove-before");
        let gone = dir.rename(name.as_bytes(), kept, leaf(&version.name), Replace::Never);
        gone.map_err(|error| check::refused(error, &dir))?;
        kill_point("remove-after");
        let out = kept.stat(leaf(&version.name))?;
        if out.is_some_and(|out| same_object(&out, expected)) {
            return Ok(());
        }
        Err(self.put_back(path, &dir, (kept, version), changed("remove")))
    }

    /// Returns what is in it, where that is asked for and not too much.
    fn remove_tree(
        &mut self,
        path: &RelPath,
        expected: &Signature,
        (kept, version): (&Dir, &NewVersion),
        id: i64,
    ) -> Result<Option<Contents>, Stop> {
        let (dir, name) = self.parent(path)?;
        self.forget_dirs();
        check::on_disk(&dir, name.as_bytes(), expected, None, "remove")?;
        let below = dir.open_dir(name.as_bytes())?;
        if !below.is_placed() && self.holds_placed(path)? {
            return Err(Failure::new("remove", "an archived directory in it could not be removed").into());
        }
        let limit = if self.moves.origin(path).is_some() { MOVE_STEPS } else { 0 };
        let contents = check::tree(&self.rows, &below, path, ("remove", limit))?;
        if below.is_placed() {
            return self.unplace_tree((path, expected, &below), (kept, version), id).map(|()| contents);
        }
        kill_point("remove-tree-before");
        let gone = dir.rename(name.as_bytes(), kept, leaf(&version.name), Replace::Never);
        gone.map_err(|error| check::refused_by_either(error, &below, &dir))?;
        kill_point("remove-tree-after");
        let out = kept.stat(leaf(&version.name))?;
        if out.is_none_or(|out| out.ino != expected.ino) {
            return Err(self.put_back(path, &dir, (kept, version), changed("remove")));
        }
        // Once more, since nobody can come to it by its path any longer: what was written between the first look and the
        // rename must not go. It is the same directory, whatever its name.
        match check::tree(&self.rows, &below, path, ("remove", 0)) {
            Ok(_) => Ok(contents),
            Err(Stop::Run(error)) => Err(Stop::Run(error)),
            Err(stop) => Err(self.put_back(path, &dir, (kept, version), stop)),
        }
    }

    fn remove_empty(&mut self, path: &RelPath, expected: &Signature, id: i64) -> Result<(), Stop> {
        let (dir, name) = self.parent(path)?;
        self.forget_dirs();
        check::on_disk(&dir, name.as_bytes(), expected, None, "remove")?;
        if !self.rows.children(path, None)?.is_empty() {
            return Err(Failure::new("remove", "something in it could not be removed").into());
        }
        if let Some(placement) = self.placed_at(path)? {
            return self.unplace_empty(&placement, id);
        }
        match dir.rmdir(name.as_bytes()) {
            Ok(()) => {
                kill_point("remove-dir-after");
                Ok(())
            }
            Err(error) if error.source.kind() == ErrorKind::DirectoryNotEmpty => Err(not_empty()),
            Err(error) => Err(check::refused(error, &dir)),
        }
    }

    /// What went was not what was expected: it returns to its path, or beside it if that is taken again. Returns what the
    /// user is told: why, or where it is now.
    fn put_back(&mut self, path: &RelPath, dir: &Dir, (kept, version): (&Dir, &NewVersion), why: Stop) -> Stop {
        kill_point("remove-put-back");
        let Some(name) = path.name() else { return why };
        let version = leaf(&version.name);
        match kept.rename(version, dir, name.as_bytes(), Replace::Never) {
            Ok(()) => why,
            Err(error) if error.is_missing() => why,
            Err(_) => match late::keep_beside(self.context.root, kept, version, path) {
                Ok(to) => {
                    let what = format!("it was changed again and again; one version is at {to}");
                    Failure::new("remove", what).into()
                }
                Err(stop) => stop,
            },
        }
    }
}

pub(super) fn not_empty() -> Stop {
    Stop::Left(Failure::new("remove", "not empty: ignored or unreadable entries are left in it"))
}

fn withheld_now(origin: Option<&Origin>) -> bool {
    matches!(origin, Some(Origin::Kept(Kept { withheld: Some(_), .. })))
}
