//! Replacing what stands at a path, and giving it back if it was not what was expected.

use super::areas::leaf;
use super::check::{self, changed};
use super::late;
use super::prepare::Prepared;
use super::rows::Live;
use super::swap::{Displacement, Swapper};
use super::{Stop, names, versions};
use crate::entry::{Kind, Signature};
use crate::io::fs::{Dir, Replace, ctime_granularity};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, same_object};
use crate::io::stage::{Failure, Tree};
use crate::io::state::NewVersion;
use crate::path::{Name, RelPath};
use crate::store::Change;
use std::io::ErrorKind;

/// A name in a directory, and the path it stands for.
pub(super) struct At<'a> {
    pub(super) path: &'a RelPath,
    pub(super) dir: &'a Dir,
    pub(super) name: &'a Name,
}

impl Swapper<'_> {
    /// Exchanges a staged object with what stands at its path, and looks at what came out.
    pub(super) fn exchange(
        &mut self,
        tree: &Tree,
        plan: &Prepared,
        expected: &Signature,
        at: &At<'_>,
    ) -> Result<Displacement, Stop> {
        let live = self.rows.current(at.path)?;
        let exchanged = self.exchange_in(tree, plan, (expected, live.as_ref()), at);
        // What a user may have seen is not ours to delete any more; this nobody saw.
        exchanged.inspect_err(|_| self.discard(&plan.area, tree))?;
        kill_point("exchange-after");
        let was_dir = kind_of(expected) == Some(Kind::Dir);
        if let Err(stop) = self.came_out(plan.area.stage.dir(), tree, expected, at.path, was_dir) {
            return Err(self.exchange_back(tree, plan, at, stop));
        }
        kill_point("exchange-checked");
        Ok(self.displace(&tree.staged, plan, live.as_ref()))
    }

    fn exchange_in(
        &self,
        tree: &Tree,
        plan: &Prepared,
        (expected, live): (&Signature, Option<&Live>),
        at: &At<'_>,
    ) -> Result<(), Stop> {
        let name = at.name.as_bytes();
        check::on_disk(at.dir, name, expected, live, "replace")?;
        if kind_of(expected) == Some(Kind::Dir) {
            if self.holds_placed(at.path)? {
                let what = "an archived directory stands there: it is not replaced by something else. Bring it back first";
                return Err(Failure::new("replace", what).into());
            }
            if self.ledger.is_open_below(at.path) {
                return Err(Failure::new("replace", "something in it could not be removed").into());
            }
            check::tree(&self.rows, &at.dir.open_dir(name)?, at.path, ("replace", 0))?;
        }
        kill_point("exchange-before");
        match plan.area.stage.dir().rename(&tree.staged, at.dir, name, Replace::Exchange) {
            Ok(()) => Ok(()),
            Err(error) if error.is_missing() => Err(changed("replace")),
            Err(error) => Err(check::refused(error, at.dir)),
        }
    }

    /// Is what came out what was expected to stand there?
    fn came_out(&self, stage: &Dir, tree: &Tree, expected: &Signature, path: &RelPath, was_dir: bool) -> Result<(), Stop> {
        let out = stage.stat(&tree.staged)?;
        if was_dir && out.is_some_and(|out| out.ino == expected.ino) {
            let below = stage.open_dir(&tree.staged)?;
            return check::tree(&self.rows, &below, path, ("replace", 0)).map(drop);
        }
        match out {
            Some(out) if !was_dir && same_object(&out, expected) => Ok(()),
            _ => Err(changed("replace")),
        }
    }

    /// A writer slipped in between: what came out goes back, and what a second writer put there meanwhile stays too.
    fn exchange_back(&mut self, tree: &Tree, plan: &Prepared, at: &At<'_>, stop: Stop) -> Stop {
        kill_point("exchange-back");
        let (from, name) = (plan.area.stage.dir(), at.name.as_bytes());
        let back = match from.rename(&tree.staged, at.dir, name, Replace::Exchange) {
            // Ours was removed meanwhile: what came out takes its place again.
            Err(error) if error.is_missing() => from.rename(&tree.staged, at.dir, name, Replace::Never),
            answer => answer,
        };
        let ours = tree.top.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
        let left = match from.stat(&tree.staged) {
            Ok(left) => left,
            Err(error) => return error.into(),
        };
        match (left, ours) {
            (None, _) => stop,
            (Some(left), Some(ours)) if back.is_ok() && ours.ino == left.ino => match self.keep_shown(tree, plan, ours) {
                Ok(()) => stop,
                Err(stop) => {
                    self.unsettle(plan.id);
                    stop
                }
            },
            (Some(_), _) => match late::keep_beside(self.context.root, from, &tree.staged, at.path) {
                Ok(to) => {
                    let what = format!("it was changed again and again; one version is at {to}");
                    Failure::new("replace", what).into()
                }
                Err(stop) => stop,
            },
        }
    }

    /// Ours stood at the path for a moment. Whoever opened it then may have written to it, and may do so still: it is
    /// kept like a version that was replaced, and not deleted as what was staged in vain.
    fn keep_shown(&mut self, tree: &Tree, plan: &Prepared, ours: &Signature) -> Result<(), Stop> {
        let (path, area) = (&plan.intent.path, &plan.area);
        let kind = tree.top.object.kind();
        let kept_at_ns = versions::now_ns();
        // The planned name is free, and recovery looks there.
        let name = match &plan.intent.version {
            Some(version) => version.name.clone(),
            None => area.kept_address(&versions::name(path, kept_at_ns)),
        };
        area.stage.dir().rename(&tree.staged, &area.kept, leaf(&name), Replace::Never)?;
        kill_point("exchange-shown-kept");
        if kind == Kind::Dir {
            let below = area.kept.open_dir(leaf(&name))?;
            let mut brought = Vec::new();
            let tick_ns = ctime_granularity(self.context.root)?;
            let done = late::bring_back_below(self.context.root, &below, path, ((ours.ctime_ns, tick_ns), &mut brought));
            for to in brought {
                self.context.monitor.notice(&format!("{path} was written to while it went: kept as {to}"));
            }
            done?;
        }
        let (path, signature, hash) = (path.clone(), *ours, super::job::hash_of(&tree.top.object));
        self.did(Vec::new(), Some(NewVersion { name, path, kind, signature, hash, kept_at_ns, reason: "replaced" }));
        Ok(())
    }

    /// Brings a displaced object from the staging folder to where it belongs; beside its path if it finds no room there.
    /// If even that fails it stays where it is, under a name that tells recovery whose it is, and the path is told; the
    /// swap itself is done.
    fn displace(&mut self, staged: &[u8], plan: &Prepared, old: Option<&Live>) -> Displacement {
        let (path, area) = (&plan.intent.path, &plan.area);
        let stage = area.stage.dir();
        let done = match (&plan.copy, &plan.intent.version, old) {
            (Some(to), _, Some(old)) => {
                self.displace_beside(stage, staged, to, old).map(|change| Displacement { version: None, change: Some(change) })
            }
            (_, Some(version), _) => stage
                .rename(staged, &area.kept, leaf(&version.name), Replace::Never)
                .map(|()| Displacement { version: Some(version.clone()), change: None })
                .map_err(Stop::from),
            _ => Err(Failure::new("keep", "no place was planned for the old version").into()),
        };
        kill_point("displace-version-after");
        let stop = match done {
            Ok(displacement) => return displacement,
            Err(stop) => stop,
        };
        let what = match late::keep_beside(self.context.root, stage, staged, path) {
            Ok(to) => format!("{}; the old version is at {to}", stop.reason()),
            Err(also) => format!("{}; {}; the old version stays in the staging folder", stop.reason(), also.reason()),
        };
        self.ledger.problem(path, "keep the old version", what);
        Displacement::default()
    }

    fn displace_beside(&mut self, stage: &Dir, staged: &[u8], wish: &RelPath, old: &Live) -> Result<Change, Stop> {
        for number in 1..=names::TRIES {
            let to = names::numbered(wish, number)?;
            let (dir, name) = self.parent(&to)?;
            match stage.rename(staged, &dir, name.as_bytes(), Replace::Never) {
                Ok(()) => {}
                Err(error) if error.source.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error.into()),
            }
            kill_point("displace-copy-after");
            let now = dir.stat(name.as_bytes())?;
            let mut change = self.copy_put(&to, old)?;
            if let Change::Put { signature, .. } = &mut change {
                *signature = super::swap::after_rename(now, &old.signature);
            }
            return Ok(change);
        }
        Err(Failure::new("keep both", "no free name for the conflict copy").into())
    }
}
