//! A day comes back from the cold root.

use super::copy::{Copy, reread};
use super::error::ArchiveError;
use super::intact::{Copied, check_by_record, whole_record};
use super::job::{self, How, Job, Phase, SWAP, Task};
use super::late::LATE;
use super::moves::{MOVING, SEALED, copy_of, source_of};
use super::{Archive, Moved, SPARE_BYTES, SPARE_INODES, walk};
use crate::entry::Kind;
use crate::io::fs::{Cold, Dir, Placement, Replace, coarse_now_ns, is_dir};
use crate::io::kill::kill_point;
use crate::io::places;
use crate::io::source::kind_of;
use crate::path::{RelPath, escape};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

impl Archive<'_> {
    /// Brings a day back: it is copied, read back, and exchanged for its link. What is in the cold root stays there for `keep`, and is
    /// looked at for late writes: readers that were on their way through the link still find it.
    ///
    /// # Errors
    /// The day stays in the cold root; what was begun is removed, now or by the next [`Archive::recover`].
    pub fn restore_day(&self, path: &RelPath, keep: Duration) -> Result<Moved, ArchiveError> {
        let placement = self.root.places().get(path).cloned();
        let placement = placement.ok_or_else(|| ArchiveError::refused(path, "is not archived"))?;
        // What stands in the place of the link is told before anything is copied.
        self.check_placed(path)?;
        self.merge_jobs_of(path)?;
        let cold = placement.cold.clone();
        let source = placement.open()?;
        let contents = walk::contents(&source, path)?;
        let (bytes, inodes) = self.jobs.space()?;
        if contents.allocated > bytes.saturating_sub(SPARE_BYTES) || contents.objects > inodes.saturating_sub(SPARE_INODES) {
            let why = format!("does not fit: it needs {} bytes and {} inodes", contents.allocated, contents.objects);
            return Err(ArchiveError::refused(path, format!("{why}, and {bytes} and {inodes} are free")));
        }
        let mut job = Job {
            id: job::new_id()?,
            task: Task::Restore,
            how: How::Copy,
            phase: Phase::Copying,
            path: path.clone(),
            cold: cold.id,
            stamp: placement.stamp,
            link: placement.link.clone(),
            old: source.stat_self()?.ino,
            new: 0,
            since_ns: 0,
            keep_ns: i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX),
        };
        job.record(&self.jobs)?;
        kill_point("archive-restore-recorded");
        let done =
            self.copy_back(&mut job, &source, &placement).and_then(|reread| self.swap_back(&mut job, &cold).map(|()| reread));
        match done {
            Ok(reread) => Ok(Moved { files: contents.files, bytes: contents.bytes, copied: contents.bytes, reread }),
            Err(error) if job.phase >= Phase::Kept => Err(error),
            Err(error) => {
                if let Err(again) = self.abandon(&job) {
                    self.monitor.notice(&format!("{path}: what bringing it back had begun could not be removed yet: {again}"));
                }
                Err(error)
            }
        }
    }

    fn copy_back(&self, job: &mut Job, source: &Dir, placement: &Placement) -> Result<Duration, ArchiveError> {
        let folder = job.folder(&self.jobs)?;
        let top = folder.create_dir(SWAP)?;
        // A link that was written anew for the cold root, as was recorded, reads again as everybody else has it.
        let text = |text: &[u8], path: &RelPath| Ok(placement.meant(path, text).unwrap_or_else(|| text.into()));
        let manifest = job.new_manifest(&self.jobs)?;
        Copy::new(&job.path, (&top, manifest), &text, (self.monitor, self.granularity_ns)).run(source)?;
        job.take_manifest(&self.jobs)?;
        self.check_before_restore(job, placement)?;
        top.sync_all()?;
        kill_point("archive-restore-durable");
        let reread = reread(&top, &mut job.manifest(&self.jobs)?, self.monitor)?;
        job.new = top.stat_self()?.ino;
        job.enter(&self.jobs, Phase::Ready)?;
        kill_point("archive-restore-ready");
        Ok(reread)
    }

    /// A file that its disk has damaged since it was written there would be taken for an edit here, and go to every other replica.
    fn check_before_restore(&self, job: &Job, placement: &Placement) -> Result<(), ArchiveError> {
        let way_out = format!(
            "driftless archive verify '{}' --repair-from ROOT takes its bytes from another copy of the tree; if it is right as it is, \
             touch it through the link",
            escape(self.hot.as_os_str().as_bytes())
        );
        let what = Copied { day: &job.path, way_out: &way_out };
        self.check_by_rows(what, &mut job.manifest(&self.jobs)?)?;
        let sealed = match placement.cold.private()?.open_dir(SEALED) {
            Err(error) if error.is_missing() => return Ok(()),
            sealed => sealed?,
        };
        match whole_record(&sealed, job.stamp.to_string().as_bytes()) {
            Ok(Some(mut record)) => check_by_record(what, &mut job.manifest(&self.jobs)?, &mut record),
            // It came without a copy, and was never verified.
            Ok(None) => Ok(()),
            Err(error) => {
                self.monitor.notice(&format!("{}: whether its files are as they were written cannot be told: {error}", job.path));
                Ok(())
            }
        }
    }

    /// Does the copy stand in the root?
    pub(super) fn is_back(&self, job: &Job) -> Result<bool, ArchiveError> {
        let (parent, name) = self.place(&job.path)?;
        let look = parent.look(name.as_bytes())?;
        Ok(job.new != 0 && look.is_some_and(|look| look.signature.ino == job.new && is_dir(&look.signature)))
    }

    /// Copy and link change places, if the day in the cold root is still what was copied.
    pub(super) fn swap_back(&self, job: &mut Job, cold: &Arc<Cold>) -> Result<(), ArchiveError> {
        let (parent, name) = self.place(&job.path)?;
        let folder = job.folder(&self.jobs)?;
        let turn = self.turn();
        if self.is_back(job)? {
            // A crash came right after the exchange: what came out was not looked at.
            self.check_out(job, (&parent, name.as_bytes()))?;
        } else {
            let placement = self.root.places().get(&job.path).filter(|placement| placement.cold.id == cold.id).cloned();
            let source = placement.ok_or_else(|| ArchiveError::refused(&job.path, "is not archived any more"))?.open()?;
            if let Some(path) = walk::first_change(&source, &mut job.manifest(&self.jobs)?, source_of)? {
                return Err(ArchiveError::Changed(super::copy::shown(&job.path, &path)));
            }
            let is_link = |look: &crate::io::fs::Look| kind_of(&look.signature) == Some(Kind::Symlink);
            if !parent.look(name.as_bytes())?.is_some_and(|look| is_link(&look)) {
                return Err(ArchiveError::refused(
                    &job.path,
                    "cannot be brought back: something else than its link stands there",
                ));
            }
            places::unsettle(self.root, self.state, &job.path)?;
            kill_point("archive-restore-unsettled");
            job.enter(&self.jobs, Phase::Swapping)?;
            kill_point("archive-restore-before-exchange");
            folder.rename(SWAP, &parent, name.as_bytes(), Replace::Exchange)?;
            kill_point("archive-restore-exchanged");
            self.check_out(job, (&parent, name.as_bytes()))?;
            parent.sync()?;
            folder.sync()?;
            kill_point("archive-restore-exchange-durable");
        }
        if self.root.places().get(&job.path).is_some() {
            let changes = self.handover(job, copy_of)?;
            match places::withdraw(self.root, self.state, &job.path, changes) {
                // The stamp alone is left, and tells of nothing.
                Err(places::PlaceError::Fs(error)) => self.monitor.notice(&format!("{}: {error}", job.path)),
                answer => answer?,
            }
        } else if let Err(error) = cold.remove_stamp(&job.path, job.stamp) {
            // A crash came between the two.
            self.monitor.notice(&format!("{}: {error}", job.path));
        }
        kill_point("archive-restore-withdrawn");
        drop(turn);
        job.since_ns = coarse_now_ns();
        job.enter(&self.jobs, Phase::Kept)?;
        kill_point("archive-restore-kept");
        if let Err(error) = self.merge_late(job) {
            self.monitor.notice(&format!("{}: late writes wait: {error}", job.path));
        }
        Ok(())
    }

    /// What came out of the exchange is the link; what a user has put in its place meanwhile goes back there.
    fn check_out(&self, job: &Job, (parent, name): (&crate::io::fs::Dir, &[u8])) -> Result<(), ArchiveError> {
        let folder = job.folder(&self.jobs)?;
        let Some(out) = folder.look(SWAP)? else { return Ok(()) };
        if kind_of(&out.signature) == Some(Kind::Symlink) && folder.link_text(SWAP)? == job.link {
            return Ok(());
        }
        folder.rename(SWAP, parent, name, Replace::Exchange)?;
        folder.sync()?;
        Err(ArchiveError::Changed(job.path.clone()))
    }

    /// Late writes to what earlier moves of a day keep of it are brought over now.
    fn merge_jobs_of(&self, path: &RelPath) -> Result<(), ArchiveError> {
        let (jobs, _) = job::all(&self.jobs)?;
        for job in jobs.iter().filter(|job| job.path == *path && job.phase == Phase::Kept) {
            self.merge_late(job)?;
        }
        Ok(())
    }

    /// A day that was brought back goes to the cold root again: what it left there is taken for its copy if it still is one, or put
    /// aside. Whoever still reads in what earlier moves left finds it until its time has come.
    pub(super) fn make_way(&self, path: &RelPath, cold: &Arc<Cold>) -> Result<(), ArchiveError> {
        match cold.below(path) {
            // Most days were never there: the journal need not be read for each.
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => self.merge_jobs_of(path)?,
        }
        for job in self.jobs_that_brought_back(path, cold)? {
            let live = self.root.hot(path)?;
            let there = match cold.below(path) {
                Ok(old) if old.stat_self()?.ino == job.old => old,
                Err(error) if !error.is_missing() => return Err(error.into()),
                // It was put aside before.
                _ => continue,
            };
            let equal = walk::first_change(&there, &mut job.manifest(&self.jobs)?, source_of)?.is_none()
                && walk::first_change(&live, &mut job.manifest(&self.jobs)?, copy_of)?.is_none();
            // What is equal is known of until it has been taken: the day may change before, and this would be in its way.
            if !equal {
                self.set_aside(&job)?;
            }
        }
        Ok(())
    }

    /// What earlier moves left in the cold root has been taken for the copy of the day, and is not theirs any more.
    pub(super) fn forget_those_before(&self, heir: &Job, cold: &Cold) -> Result<(), ArchiveError> {
        let own = cold.below(&heir.path)?.stat_self()?.ino;
        let private = cold.private()?;
        let moving = private.open_or_create(MOVING)?;
        for job in self.jobs_that_brought_back(&heir.path, cold)?.iter().filter(|job| job.old == own) {
            // What it took out of the live day may still be written to: whoever has taken the day looks after it.
            hand_on((&job.folder(&self.jobs)?, &heir.folder(&self.jobs)?), &job.id)?;
            hand_on((&moving.open_or_create(job.id.as_bytes())?, &moving.open_or_create(heir.id.as_bytes())?), &job.id)?;
            walk::remove_tree(&moving, job.id.as_bytes())?;
            super::scrub::forget_manifest(&private, job.stamp)?;
            job.forget(&self.jobs)?;
        }
        Ok(())
    }

    pub(super) fn jobs_that_brought_back(&self, path: &RelPath, cold: &Cold) -> Result<Vec<Job>, ArchiveError> {
        let (mut jobs, _) = job::all(&self.jobs)?;
        jobs.retain(|job| job.path == *path && job.task == Task::Restore && job.phase == Phase::Kept && job.cold == cold.id);
        Ok(jobs)
    }
}

/// What a job put away comes among what another one did, under names that say whose it was.
fn hand_on((from, to): (&Dir, &Dir), whose: &str) -> Result<(), ArchiveError> {
    let old = match from.open_dir(LATE) {
        Err(error) if error.is_missing() => return Ok(()),
        opened => opened?,
    };
    let new = to.open_or_create(LATE)?;
    for name in old.names()? {
        old.rename(&name, &new, &[whose.as_bytes(), b"-", &name[..]].concat(), Replace::Never)?;
    }
    Ok(walk::remove_tree(from, LATE)?)
}
