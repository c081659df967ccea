//! What is done to a day through handles, and in working directories, that were open before it moved: it happens in the old
//! directory, and is brought over to where the day is now.

use super::Archive;
use super::bring::Bring;
use super::carry::written_since;
use super::error::ArchiveError;
use super::job::{How, Job, Phase, SWAP, Task};
use super::manifest::digest;
use super::moves::{DAY, MOVING};
use super::walk::{self, Difference};
use crate::io::fs::{Dir, FsError, Replace, is_dir};
use crate::io::kill::kill_point;
use crate::path::RelPath;
use std::io::ErrorKind;

/// Folder of a job where the live day is: what is brought over, and what it replaces.
pub(super) const LATE: &[u8] = b"late";

/// A day's old directory that is kept for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displaced {
    /// The day.
    pub path: RelPath,
    /// When it moved, ns.
    pub since_ns: i64,
    /// Until when its old directory is kept, ns.
    pub until_ns: i64,
    /// It moved out of the cold root, and its old directory is there.
    pub restored: bool,
}

/// What [`Archive::settle_displaced`] did.
#[derive(Debug, Default)]
pub struct Settled {
    /// Old directories that were removed.
    pub removed: u64,
    /// Paths at which late writes stand now, or that went by them.
    pub merged: Vec<RelPath>,
    /// Days whose old directory could not be looked at or removed now, and why.
    pub problems: Vec<(RelPath, ArchiveError)>,
}

impl Archive<'_> {
    /// Old directories that are kept.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn displaced(&self) -> Result<Vec<Displaced>, ArchiveError> {
        let (jobs, _) = super::job::all(&self.jobs)?;
        let kept = jobs.into_iter().filter(|job| job.phase == Phase::Kept);
        Ok(kept
            .map(|job| Displaced {
                since_ns: job.since_ns,
                until_ns: job.since_ns.saturating_add(job.keep_ns),
                restored: job.task == Task::Restore,
                path: job.path,
            })
            .collect())
    }

    /// Brings late writes over from all old directories, and removes those whose time has come. `now_ns` is the machine's clock.
    ///
    /// # Errors
    /// The journal cannot be read. What concerns one day is told in the answer.
    pub fn settle_displaced(&self, now_ns: i64) -> Result<Settled, ArchiveError> {
        let (jobs, wrong) = super::job::all(&self.jobs)?;
        let mut settled = Settled::default();
        settled.problems.extend(wrong.into_iter().map(|error| (RelPath::root(), error)));
        for mut job in jobs.into_iter().filter(|job| matches!(job.phase, Phase::Kept | Phase::Going)) {
            if self.monitor.cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            let path = job.path.clone();
            let done = match job.phase {
                Phase::Kept => self.lives(&job).and_then(|()| self.merge_late(&job)),
                _ => Ok(Merged::default()),
            };
            let due = job.phase == Phase::Going || now_ns >= job.since_ns.saturating_add(job.keep_ns);
            let done = done.and_then(|merged| {
                // Whoever writes at this moment may not have finished.
                let quiet = merged.paths.is_empty() && !merged.busy;
                settled.merged.extend(merged.paths);
                if due && quiet {
                    self.remove_displaced(&mut job)?;
                    settled.removed += 1;
                }
                Ok(())
            });
            if let Err(error) = done {
                settled.problems.push((path, error));
            }
        }
        Ok(settled)
    }

    /// The old directory of a day goes, with all that was kept beside it.
    pub(super) fn remove_displaced(&self, job: &mut Job) -> Result<(), ArchiveError> {
        if job.phase != Phase::Going {
            job.enter(&self.jobs, Phase::Going)?;
            kill_point("archive-going");
        }
        let folder = job.folder(&self.jobs)?;
        match job.task {
            Task::Move | Task::Merge => {
                let cold = self.cold_of(job)?;
                let moving = cold.private()?.open_or_create(MOVING)?;
                walk::remove_tree(&moving, job.id.as_bytes())?;
            }
            Task::Restore => {
                self.remove_from_cold(job)?;
                super::scrub::forget_manifest(&self.cold_of(job)?.private()?, job.stamp)?;
            }
            Task::Relink => {}
        }
        walk::remove_tree(&folder, LATE)?;
        let own = if job.task == Task::Restore { 0 } else { job.old };
        self.clear_swap(job, own)?;
        kill_point("archive-gone");
        job.forget(&self.jobs)
    }

    /// The directory that a restored day left in the cold root, unless a day lies there again.
    fn remove_from_cold(&self, job: &Job) -> Result<(), ArchiveError> {
        let moving = self.cold_of(job)?.private()?.open_or_create(MOVING)?;
        if self.root.places().get(&job.path).is_none_or(|placement| placement.cold.id != job.cold) {
            self.set_aside(job)?;
        }
        Ok(walk::remove_tree(&moving, job.id.as_bytes())?)
    }

    /// What stood at the place of a day before it moved.
    fn old_day(&self, job: &Job) -> Result<Option<Dir>, ArchiveError> {
        match job.task {
            Task::Move | Task::Merge => Ok(Some(job.folder(&self.jobs)?.open_dir(SWAP)?)),
            Task::Relink => Ok(None),
            Task::Restore => {
                let cold = self.cold_of(job)?;
                let placed = || self.root.dir(&job.path).is_ok_and(|dir| dir.is_placed());
                match cold.below(&job.path) {
                    // It is the day again, and nothing in it is late.
                    Ok(dir) if dir.stat_self()?.ino == job.old && placed() => return Ok(None),
                    Ok(dir) if dir.stat_self()?.ino == job.old => return Ok(Some(dir)),
                    Err(error) if !is_gone(&error) => return Err(error.into()),
                    _ => {}
                }
                Ok(Some(cold.private()?.open_or_create(MOVING)?.open_dir(job.id.as_bytes())?.open_dir(DAY)?))
            }
        }
    }

    /// Takes the directory that a restored day left in the cold root out of the way; it is kept on.
    pub(super) fn set_aside(&self, job: &Job) -> Result<(), ArchiveError> {
        let cold = self.cold_of(job)?;
        let folder = cold.private()?.open_or_create(MOVING)?.open_or_create(job.id.as_bytes())?;
        if let Some((parent, name)) = job.path.split()
            && let Ok(parent) = cold.below(&parent)
            && parent.look(name.as_bytes())?.is_some_and(|look| look.signature.ino == job.old && is_dir(&look.signature))
        {
            parent.rename(name.as_bytes(), &folder, DAY, Replace::Never)?;
            parent.sync()?;
            kill_point("archive-restored-taken-away");
        }
        Ok(())
    }

    /// Before the old directory of a day may go, the one that took its place must be seen to be there: a cold root that was brought back
    /// from a backup may lack it. A day that was deleted on purpose has no placement any more.
    fn lives(&self, job: &Job) -> Result<(), ArchiveError> {
        match self.root.dir(&job.path) {
            Err(error) if error.is_missing() && self.root.places().get(&job.path).is_none() => Ok(()),
            found => found.map(drop).map_err(ArchiveError::from),
        }
    }

    /// Brings over what was done in the old directory of a day since it was looked at last. Returns the paths that changed.
    pub(super) fn merge_late(&self, job: &Job) -> Result<Merged, ArchiveError> {
        if job.how == How::Rename {
            return Ok(Merged::default());
        }
        let Some(old) = self.old_day(job)? else { return self.bring_put_away_alone(job) };
        if !self.is_changed(job, &old)? && !has_changed(&self.put_away_of(job)?)? {
            return Ok(Merged::default());
        }
        // Wherever the day is by now.
        self.bring_over(job, &old, self.root.dir(&job.path)?, false)
    }

    /// Was anything done in the old directory since it was looked at?
    fn is_changed(&self, job: &Job, old: &Dir) -> Result<bool, ArchiveError> {
        let mut changed = false;
        walk::compare_closely(old, &mut job.manifest(&self.jobs)?, &mut |difference| {
            changed |= match difference {
                Difference::Same(entry) if entry.path.is_root() => {
                    let now = old.stat_self()?;
                    let alike = (now.attrs(), digest(&old.xattrs()?)) == (entry.source.attrs(), entry.xattrs);
                    !alike || entry.source.ctime_ns == i64::MIN
                }
                Difference::Same(_) => false,
                _ => true,
            };
            Ok(())
        })?;
        Ok(changed)
    }

    /// Brings over what was written to what earlier looks took out of the live day, of a job whose old directory is the day again.
    fn bring_put_away_alone(&self, job: &Job) -> Result<Merged, ArchiveError> {
        let folders = self.put_away_of(job)?;
        if !has_changed(&folders)? {
            return Ok(Merged::default());
        }
        let live = self.root.dir(&job.path)?;
        let private = self.folder_beside(job, &live)?.open_or_create(LATE)?;
        // None of it is finished: what is known of the old directory stays.
        let writer = job.new_manifest(&self.jobs)?;
        let mut bring = Bring::new((self, job), (&live, self.root.dir(&job.path)?, private), (writer, false));
        bring.bring_put_away(&folders)?;
        live.sync_all()?;
        Ok(Merged { paths: bring.done, beside: bring.beside, busy: bring.busy, torn: bring.torn })
    }

    /// Folders of a job in which something of a live day was put away: one on each file system that the day was on.
    pub(super) fn put_away_of(&self, job: &Job) -> Result<Vec<Dir>, ArchiveError> {
        let moving = self.cold_of(job)?.private()?.open_or_create(MOVING)?;
        let mut folders = Vec::new();
        for folder in [Ok(job.folder(&self.jobs)?), moving.open_dir(job.id.as_bytes())] {
            match folder.and_then(|folder| folder.open_dir(LATE)) {
                Ok(folder) => folders.push(folder),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(folders)
    }

    /// The folder of a job on the file system of the live day.
    fn folder_beside(&self, job: &Job, live: &Dir) -> Result<Dir, ArchiveError> {
        match live.mount()? == self.jobs.mount()? {
            true => job.folder(&self.jobs),
            false => Ok(self.cold_of(job)?.private()?.open_or_create(MOVING)?.open_or_create(job.id.as_bytes())?),
        }
    }

    /// Brings what is new or changed in `old` over to `live`. `anew`: it was made anew beside that.
    pub(super) fn bring_over(&self, job: &Job, old: &Dir, live: Dir, anew: bool) -> Result<Merged, ArchiveError> {
        let private = self.folder_beside(job, &live)?;
        kill_point("archive-late-found");
        let private = private.open_or_create(LATE)?;
        let writer = job.new_manifest(&self.jobs)?;
        let mut bring = Bring::new((self, job), (old, live, private), (writer, anew));
        let mut manifest = job.manifest(&self.jobs)?;
        // First: what is put away from here on has not been written to.
        bring.bring_put_away(&self.put_away_of(job)?)?;
        walk::compare_closely(old, &mut manifest, &mut |difference| bring.each(difference))?;
        let (busy, torn) = (bring.busy, bring.torn);
        let (manifest, paths, beside) = bring.end()?;
        kill_point("archive-late-merged");
        manifest.finish()?;
        job.take_manifest(&self.jobs)?;
        kill_point("archive-late-recorded");
        Ok(Merged { paths, beside, busy, torn })
    }
}

/// Was anything written to what lies in these folders?
pub(super) fn has_changed(put_away: &[Dir]) -> Result<bool, ArchiveError> {
    for folder in put_away {
        if !written_since(folder)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was brought over of an old directory.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) paths: Vec<RelPath>,
    /// Conflict copies among them.
    pub(super) beside: Vec<RelPath>,
    /// Something in it is being written, or may be: it is looked at again before the old directory goes.
    pub(super) busy: bool,
    /// Something in it was not brought, because it is being written.
    pub(super) torn: bool,
}

fn is_gone(error: &FsError) -> bool {
    error.is_missing() || error.source.kind() == ErrorKind::NotADirectory
}
