//! A day that was made anew beside its archive: somebody, or an application, took the link away and made a directory. What is in that is
//! brought to the archive, file by file and overwriting nothing there; then one exchange of names puts the link back, and the directory
//! waits for late writes as the old directory of a day does that moves.
//!
//! All the while the engine sees the day as unavailable, and then as it is in the archive with what came: nothing reads as deleted.

use super::error::ArchiveError;
use super::job::{self, How, Job, Phase, SWAP, Task};
use super::links::LinkForm;
use super::moves::check;
use super::recover::left_behind;
use super::relink::link_at;
use super::{Archive, MoveOptions};
use crate::entry::Kind;
use crate::io::fs::{Dir, Placement, Replace, coarse_now_ns, is_dir};
use crate::io::kill::kill_point;
use crate::io::source::kind_of;
use crate::path::RelPath;
use std::time::Duration;

/// So often is a directory looked at that somebody works in, before a later run takes it.
const ROUNDS: u32 = 8;

/// What was brought to an archived day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergedDay {
    /// Paths that came, or came in another version.
    pub paths: Vec<RelPath>,
    /// Those of them that stand beside other bytes, which the archive has at their path.
    pub beside: Vec<RelPath>,
}

impl Archive<'_> {
    /// Looks at what stands where the link to an archived day should be. A directory is brought to the archive, and the link put back;
    /// `None` if the link is there. The directory is kept for `keep`, and looked at for late writes.
    ///
    /// # Errors
    /// Nothing stands there, or what cannot be merged; it stays as it is, and nothing in the archive is lost. What was begun is gone on
    /// with by the next call.
    pub fn merge_anew(&self, path: &RelPath, keep: Duration) -> Result<Option<MergedDay>, ArchiveError> {
        let placement = self.root.places().get(path).cloned();
        let placement = placement.ok_or_else(|| ArchiveError::refused(path, "is not archived"))?;
        let (parent, name) = match self.place(path) {
            Err(ArchiveError::Fs(error)) if error.is_missing() || error.is_no_dir() => return self.tell(path),
            place => place?,
        };
        let own = match parent.look(name.as_bytes())? {
            Some(look) if is_dir(&look.signature) => look.signature,
            Some(look)
                if kind_of(&look.signature) == Some(Kind::Symlink) && placement.is_own(&parent.link_text(name.as_bytes())?) =>
            {
                return Ok(None);
            }
            _ => return self.tell(path),
        };
        let (jobs, _) = job::all(&self.jobs)?;
        let mut begun = jobs.into_iter().filter(|job| job.path == *path && job.phase < Phase::Kept);
        let mut job = match begun.next() {
            Some(job) if job.task == Task::Merge && job.old == own.ino => job,
            Some(_) => return Err(ArchiveError::refused(path, "is in the middle of another move")),
            None => self.begin_merge(path, &placement, (own.ino, keep))?,
        };
        self.merge(&mut job).map(Some)
    }

    /// The engine's words for what stands there.
    fn tell(&self, path: &RelPath) -> Result<Option<MergedDay>, ArchiveError> {
        self.root.dir(path)?;
        Err(ArchiveError::refused(path, "is in the middle of another move"))
    }

    fn begin_merge(&self, path: &RelPath, placement: &Placement, (old, keep): (u64, Duration)) -> Result<Job, ArchiveError> {
        if !placement.settled {
            return Err(ArchiveError::refused(path, "is in the middle of another move"));
        }
        let job = Job {
            id: job::new_id()?,
            task: Task::Merge,
            how: How::Copy,
            phase: Phase::Copying,
            path: path.clone(),
            cold: placement.cold.id,
            stamp: placement.stamp,
            link: placement.link.clone(),
            old,
            new: placement.open()?.stat_self()?.ino,
            since_ns: coarse_now_ns(),
            keep_ns: i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX),
        };
        job.record(&self.jobs)?;
        kill_point("archive-anew-recorded");
        Ok(job)
    }

    /// After a crash: `None` if the directory still stands there, to be gone on with; `true` if the merge was finished, `false` if there is
    /// nothing left to be merged.
    pub(super) fn resume_merge(&self, job: &mut Job) -> Result<Option<bool>, ArchiveError> {
        let (parent, name) = match self.place(&job.path) {
            Err(ArchiveError::Fs(error)) if error.is_missing() || error.is_no_dir() => {
                return self.abandon(job).map(|()| Some(false));
            }
            place => place?,
        };
        let folder = job.folder(&self.jobs)?;
        let out = folder.look(SWAP)?;
        if out.is_some_and(|out| is_dir(&out.signature) && out.signature.ino == job.old) {
            self.keep_merged(job)?;
            return Ok(Some(true));
        }
        let links = [link_at(&folder, SWAP)?, link_at(&parent, name.as_bytes())?];
        if out.is_some() && links[0].as_ref() != Some(&job.link) {
            // The exchange brought out what somebody had put there in the last moment.
            if links[1].as_ref() != Some(&job.link) {
                return Err(left_behind(job, &folder));
            }
            folder.rename(SWAP, &parent, name.as_bytes(), Replace::Exchange)?;
            folder.sync()?;
        }
        kill_point("archive-recover-merge-looked");
        let stands = parent.look(name.as_bytes())?;
        match stands.is_some_and(|look| is_dir(&look.signature) && look.signature.ino == job.old) {
            true => Ok(None),
            false => self.abandon(job).map(|()| Some(false)),
        }
    }

    fn merge(&self, job: &mut Job) -> Result<MergedDay, ArchiveError> {
        let (parent, name) = self.place(&job.path)?;
        let old = parent.open_dir(name.as_bytes())?;
        if old.stat_self()?.ino != job.old {
            return Err(ArchiveError::Changed(job.path.clone()));
        }
        let options = MoveOptions { form: LinkForm::Absolute, rewrite: true, keep: Duration::ZERO };
        check(&job.path, &self.examine(&job.path)?, How::Copy, &options)?;
        job.begin_manifest(&self.jobs)?;
        let mut merged = MergedDay::default();
        for round in 0.. {
            let found = self.bring_over(job, &old, self.archived(job)?, true)?;
            kill_point("archive-anew-brought");
            let quiet = found.paths.is_empty() && !found.torn;
            merged.paths.extend(found.paths);
            merged.beside.extend(found.beside);
            if quiet {
                break;
            }
            if round == ROUNDS {
                return Err(ArchiveError::Changed(job.path.clone()));
            }
        }
        self.exchange_anew(job, (&parent, name.as_bytes()))?;
        self.keep_merged(job)?;
        Ok(merged)
    }

    /// The day where it lies, whatever stands at its path.
    fn archived(&self, job: &Job) -> Result<Dir, ArchiveError> {
        let placement = self.root.places().get(&job.path).cloned();
        let placement = placement.ok_or_else(|| ArchiveError::refused(&job.path, "is not archived"))?;
        Ok(placement.open()?)
    }

    /// The link takes the place of the directory, if that is still the one that was brought over.
    fn exchange_anew(&self, job: &mut Job, (parent, name): (&Dir, &[u8])) -> Result<(), ArchiveError> {
        let folder = job.folder(&self.jobs)?;
        self.clear_swap(job, 0)?;
        folder.create_symlink(SWAP, &job.link)?;
        folder.sync()?;
        kill_point("archive-anew-link-made");
        job.enter(&self.jobs, Phase::Swapping)?;
        kill_point("archive-anew-before-exchange");
        let _turn = self.turn();
        folder.rename(SWAP, parent, name, Replace::Exchange)?;
        kill_point("archive-anew-exchanged");
        if !folder.look(SWAP)?.is_some_and(|out| is_dir(&out.signature) && out.signature.ino == job.old) {
            folder.rename(SWAP, parent, name, Replace::Exchange)?;
            return Err(ArchiveError::Changed(job.path.clone()));
        }
        Ok(())
    }

    /// The link stands there; the directory is kept for a while.
    fn keep_merged(&self, job: &mut Job) -> Result<(), ArchiveError> {
        self.place(&job.path)?.0.sync()?;
        job.folder(&self.jobs)?.sync()?;
        kill_point("archive-anew-exchange-durable");
        // The time at which it began names what is kept beside other things: it stays.
        job.keep_ns = job.keep_ns.saturating_add(coarse_now_ns().saturating_sub(job.since_ns).max(0));
        job.enter(&self.jobs, Phase::Kept)?;
        kill_point("archive-anew-kept");
        if let Err(error) = self.merge_late(job) {
            self.monitor.notice(&format!("{}: late writes wait: {error}", job.path));
        }
        Ok(())
    }
}
