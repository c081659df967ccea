//! Removals of directories that lie in a cold root: the directory there goes first, durably, then the link to it, and then
//! the placement, together with the rows.

use super::ApplyError;
use super::Stop;
use super::areas::leaf;
use super::check::{self, changed};
use super::job::{Job, Removal};
use super::remove::not_empty;
use super::swap::Swapper;
use crate::entry::Signature;
use crate::io::fs::{Dir, FsError, Placement, Replace, Root, Unavailable};
use crate::io::kill::kill_point;
use crate::io::stage::Failure;
use crate::io::state::{NewVersion, PlaceChange, State, StateError};
use crate::path::{Name, RelPath};
use crate::report::Problem;
use rustix::io::Errno;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Where the state remembers stamps that are to go: id of the cold root and path, each followed by a NUL.
const STAMPS: &str = "apply.stamps";

impl Swapper<'_> {
    /// The placement at a path, if its link stands there.
    pub(super) fn placed_at(&self, path: &RelPath) -> Result<Option<Arc<Placement>>, Stop> {
        let root = self.context.root;
        if root.places().get(path).is_none() {
            return Ok(None);
        }
        let dir = root.dir(path)?;
        Ok(dir.placement().cloned())
    }

    /// Does a link of ours stand below a path, or at it?
    pub(super) fn holds_placed(&self, path: &RelPath) -> Result<bool, Stop> {
        let places = self.context.root.places();
        for placement in places.below(path) {
            // One that is not settled may be left of a run that was interrupted before the link was made.
            if placement.settled || self.placed_at(&placement.path)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses to put something where an archived directory belongs of which the link is missing: it would be hidden, or its old
    /// content would be taken for a newer version when it is back.
    pub(super) fn keeps_free(&self, path: &RelPath) -> Result<(), Stop> {
        for placement in self.context.root.places().below(path).filter(|placement| placement.settled) {
            if self.rows.current(&placement.path)?.is_none() {
                let (what, at) = (&placement.path, placement.location());
                let at = crate::path::escape(at.as_os_str().as_bytes());
                let why = format!("{what} is archived in {at}, and the link to it is missing: put it back");
                return Err(Failure::new("create", why).into());
            }
        }
        Ok(())
    }

    /// Before a directory goes whole, each goes that lies elsewhere and has its link in it: the links must not come among the
    /// kept versions, where nobody would know what they stand for.
    pub(super) fn placed_first(&self, jobs: Vec<Job>) -> Result<Vec<Job>, ApplyError> {
        let places = self.context.root.places();
        if places.is_empty() {
            return Ok(jobs);
        }
        let mut all = Vec::with_capacity(jobs.len());
        for job in jobs {
            if let Job::Remove(removal) = &job
                && removal.whole
            {
                for placement in places.below(&removal.path).filter(|placement| placement.path != removal.path) {
                    let Some(live) = self.rows.current(&placement.path)? else { continue };
                    let (learn, bound) = (removal.learn.clone(), removal.bound.clone());
                    let (ticket, path, expect) = (removal.ticket, placement.path.clone(), live.row);
                    all.push(Job::Remove(Removal { ticket, path, whole: true, expect, learn, bound, event: false, item: None }));
                }
            }
            all.push(job);
        }
        Ok(all)
    }

    /// Brings a placed directory to the kept versions of its cold root. It was compared with its rows before. `id` is the
    /// intent's.
    pub(super) fn unplace_tree(
        &mut self,
        (path, expected, below): (&RelPath, &Signature, &Dir),
        (kept, version): (&Dir, &NewVersion),
        id: i64,
    ) -> Result<(), Stop> {
        let Some(placement) = below.placement().cloned() else { return Err(changed("remove")) };
        let (cold, name) = cold_parent(&placement)?;
        let kept_name = leaf(&version.name);
        kill_point("unplace-before");
        let gone = cold.rename(name.as_bytes(), kept, kept_name, Replace::Never);
        gone.map_err(|error| check::refused_by_either(error, below, &cold))?;
        kill_point("unplace-renamed");
        let out = kept.stat(kept_name)?;
        let compared = match out {
            Some(out) if out.ino == expected.ino => check::tree(&self.rows, below, path, ("remove", 0)).map(drop),
            _ => Err(changed("remove")),
        };
        if let Err(stop) = compared {
            // Nobody else knows of the place: the link still leads there.
            cold_back((kept, kept_name), (&cold, &name))?;
            return Err(stop);
        }
        self.unlink_placed(&placement, kept, id)
    }

    /// Removes a placed directory that is empty. `id` is the intent's.
    pub(super) fn unplace_empty(&mut self, placement: &Arc<Placement>, id: i64) -> Result<(), Stop> {
        let (cold, name) = cold_parent(placement)?;
        kill_point("unplace-empty-before");
        match cold.rmdir(name.as_bytes()) {
            Ok(()) => {}
            Err(error) if error.source.kind() == ErrorKind::DirectoryNotEmpty => return Err(not_empty()),
            Err(error) => return Err(check::refused(error, &cold)),
        }
        kill_point("unplace-emptied");
        self.unlink_placed(placement, &cold, id)
    }

    /// The directory is gone from its cold root, where `there` lies: once that is durable, the link goes. Where it does not, the
    /// placement stays, and nothing is recorded: without it the link would be one of a user. The intent tells the next recovery.
    fn unlink_placed(&mut self, placement: &Arc<Placement>, there: &Dir, id: i64) -> Result<(), Stop> {
        there.sync_all()?;
        kill_point("unplace-synced");
        if let Err(stop) = self.take_link(placement) {
            self.unsettle(id);
            let what = format!("the link to it cannot be removed: {}", stop.reason());
            // Said here: the pull tries again path by path, and tells what it finds then.
            self.context.monitor.notice(&format!(
                "{}: its directory is gone from the cold root, and {what}; the next run that opens the folder tries again",
                placement.path
            ));
            return Err(Failure::new("remove", what).into());
        }
        // Whatever stands there now, it stands for nothing any more.
        self.did_unplace(placement.clone());
        kill_point("unplace-unlinked");
        Ok(())
    }

    /// Takes the link away by way of the staging folder, so that what somebody put in its place at that moment is not removed.
    fn take_link(&mut self, placement: &Placement) -> Result<(), Stop> {
        let (parent, name) = split(&placement.path)?;
        let area = self.areas.of(&placement.path)?;
        let hot = self.context.root.hot(&parent)?;
        let Some(link) = hot.stat(name.as_bytes())? else { return Ok(()) };
        if !is_link(&hot, &name, placement)? {
            return Ok(());
        }
        let (stage, taken) = (area.stage.dir(), area.stage.name_for(link.ino));
        hot.rename(name.as_bytes(), stage, &taken, Replace::Never)?;
        if stage.stat(&taken)?.is_some_and(|now| now.ino == link.ino) {
            return Ok(stage.unlink(&taken)?);
        }
        stage.rename(&taken, &hot, name.as_bytes(), Replace::Never)?;
        Err(Failure::new("remove", "something else was put in its place").into())
    }
}

/// Remembers that stamps are to go, in front of what records that their directories do not lie elsewhere any more: they go only
/// when that is durable, and a crash may come in between.
pub(super) fn remember_stamps(state: &State, unplaced: &[Arc<Placement>]) -> Result<(), StateError> {
    if unplaced.is_empty() {
        return Ok(());
    }
    let mut list = state.meta(STAMPS)?.unwrap_or_default();
    for placement in unplaced {
        list.extend([placement.cold.id.to_string().as_bytes(), b"\0", placement.path.as_bytes(), b"\0"].concat());
    }
    state.put_meta(STAMPS, &list)
}

/// Removes the stamps that are to go. To be called when it is durable that nothing asks for them. Where a directory lies at the
/// path again, or still, the stamp is that one's. A cold root that is not there keeps them until it is.
pub(super) fn drop_stamps(root: &Root, state: &State) -> Result<Vec<Problem>, StateError> {
    let list = state.meta(STAMPS)?.unwrap_or_default();
    let (places, mut left, mut problems) = (root.places(), Vec::new(), Vec::new());
    let parts: Vec<&[u8]> = list.split(|byte| *byte == 0).collect();
    for part in parts.chunks_exact(2) {
        let path = RelPath::parse(part[1]).map_err(|_| StateError::Content { what: "the path of a stamp" })?;
        let cold = places.colds().iter().find(|cold| cold.id.to_string().as_bytes() == part[0]);
        let Some(cold) = cold else { continue };
        if places.get(&path).is_some_and(|now| now.cold.id == cold.id) {
            continue;
        }
        if let Err(error) = cold.drop_stamp(&path) {
            left.extend([part[0], b"\0", part[1], b"\0"].concat());
            if error.unavailable().is_none() {
                problems.push(Problem { path, step: "remove the stamp of", error: error.to_string() });
            }
        }
    }
    if left != list {
        state.put_meta(STAMPS, &left)?;
    }
    Ok(problems)
}

/// As [`drop_stamps`], of what a run that was interrupted left.
pub(super) fn drop_stamps_left(root: &Root, state: &State) -> Result<Vec<Problem>, StateError> {
    if state.meta(STAMPS)?.is_none_or(|list| list.is_empty()) {
        return Ok(Vec::new());
    }
    state.settle()?;
    drop_stamps(root, state)
}

/// Did the removal of a placed directory happen, as far as the cold root shows? The directory went first.
pub(super) fn happened(root: &Root, placement: &Placement, expect: Option<&Signature>) -> Result<bool, FsError> {
    // While it is not settled, a directory may stand at the path itself.
    if !placement.settled && !has_link(root, placement)? {
        let Some((parent, name)) = placement.path.split() else { return Ok(false) };
        let now = root.hot(&parent)?.stat(name.as_bytes())?;
        return Ok(now.is_none_or(|now| expect.is_none_or(|expect| expect.ino != now.ino)));
    }
    match placement.open() {
        Ok(dir) => Ok(expect.is_none_or(|expect| dir.stat_self().is_ok_and(|now| now.ino != expect.ino))),
        Err(error) => match error.unavailable() {
            Some(Unavailable::Gone { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(true),
            // The stamp goes last of all. Where the directory is there, somebody else took the stamp away.
            Some(Unavailable::Unstamped { source, .. }) if source.kind() == ErrorKind::NotFound => {
                match placement.cold.below(&placement.at) {
                    Err(gone) if gone.is_missing() => Ok(true),
                    _ => Err(error),
                }
            }
            _ => Err(error),
        },
    }
}

/// Does the rest after such a removal: the link and the placement go.
pub(super) fn finish(root: &Root, path: &RelPath) -> Result<Option<PlaceChange>, FsError> {
    let places = root.places();
    let (Some(placement), Some((parent, name))) = (places.get(path), path.split()) else { return Ok(None) };
    if has_link(root, placement)? {
        root.hot(&parent)?.unlink(name.as_bytes())?;
    }
    root.set_places(places.without(path));
    Ok(Some(PlaceChange::Drop(path.clone())))
}

fn has_link(root: &Root, placement: &Placement) -> Result<bool, FsError> {
    let Some((parent, name)) = placement.path.split() else { return Ok(false) };
    match root.hot(&parent) {
        Ok(dir) => is_link(&dir, &name, placement),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Does the link of a placement stand at a name?
fn is_link(hot: &Dir, name: &Name, placement: &Placement) -> Result<bool, FsError> {
    match hot.read_link(name.as_bytes()) {
        Ok(text) => Ok(placement.is_own(&text)),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) if error.source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory in the cold root that holds a placed one, and its name there.
fn cold_parent(placement: &Placement) -> Result<(Dir, Name), Stop> {
    let (parent, name) = split(&placement.at)?;
    Ok((placement.cold.below(&parent)?, name))
}

fn cold_back((kept, kept_name): (&Dir, &[u8]), (cold, name): (&Dir, &Name)) -> Result<(), Stop> {
    kill_point("unplace-put-back");
    match kept.rename(kept_name, cold, name.as_bytes(), Replace::Never) {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

fn split(path: &RelPath) -> Result<(RelPath, Name), Stop> {
    path.split().ok_or_else(|| Failure::new("remove", "the root itself is not removed").into())
}
