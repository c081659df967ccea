//! After a crash: every move that was begun is finished, or given up without a trace.

use super::Archive;
use super::error::ArchiveError;
use super::job::{self, How, Job, Phase, SWAP, Task};
use super::late::LATE;
use super::moves::{DAY, MOVING};
use super::walk;
use crate::entry::Kind;
use crate::io::fs::{Cold, Dir, FsError, Replace, is_dir};
use crate::io::kill::kill_point;
use crate::io::places;
use crate::io::source::kind_of;
use crate::path::RelPath;
use std::os::unix::ffi::OsStrExt;

/// What [`Archive::recover`] did.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Days whose move was finished.
    pub finished: Vec<RelPath>,
    /// Days whose move was given up: they are where they were.
    pub given_up: Vec<RelPath>,
    /// Moves that can be neither finished nor given up now, and why.
    pub problems: Vec<(RelPath, ArchiveError)>,
}

impl Archive<'_> {
    /// Finishes or gives up what a crash left, by what stands on the disks. To be called before days are moved.
    ///
    /// # Errors
    /// The journal cannot be read. What concerns one day is told in the answer; it waits for the next call.
    pub fn recover(&self) -> Result<Recovered, ArchiveError> {
        let (jobs, wrong) = job::all(&self.jobs)?;
        let mut recovered = Recovered { problems: self.finish_repairs(), ..Recovered::default() };
        recovered.problems.extend(wrong.into_iter().map(|error| (RelPath::root(), error)));
        for mut job in jobs.into_iter().filter(|job| job.phase < Phase::Kept) {
            let path = job.path.clone();
            if job.task == Task::Merge {
                match self.resume_merge(&mut job) {
                    Ok(None) => {}
                    Ok(Some(true)) => recovered.finished.push(path),
                    Ok(Some(false)) => recovered.given_up.push(path),
                    Err(error) => recovered.problems.push((path, error)),
                }
                continue;
            }
            match self.resume(&mut job) {
                Ok(true) => recovered.finished.push(path),
                Ok(false) => recovered.given_up.push(path),
                Err(error) => recovered.problems.push((path, error)),
            }
        }
        Ok(recovered)
    }

    /// `true` if it was finished.
    fn resume(&self, job: &mut Job) -> Result<bool, ArchiveError> {
        let cold = self.cold_of(job)?;
        let done = match (job.task, job.phase) {
            (_, Phase::Copying) => None,
            (Task::Move, Phase::Ready) => Some(self.publish(job, &cold).and_then(|()| self.swap(job, &cold))),
            (Task::Move, _) => Some(self.swap(job, &cold)),
            (Task::Restore, _) => Some(self.swap_back(job, &cold)),
            (Task::Relink, _) => Some(self.finish_relink(job)),
            // It is resumed by itself.
            (Task::Merge, _) => None,
        };
        kill_point("archive-recover-looked");
        match done {
            Some(Ok(())) => Ok(true),
            // The cold root is not there: it is finished when it is.
            Some(Err(error)) if error.ends_run() => Err(error),
            Some(Err(error)) if job.phase >= Phase::Kept => Err(error),
            Some(Err(error)) => {
                self.abandon(job)?;
                self.monitor.notice(&format!("{}: a move that was interrupted was given up: {error}", job.path));
                Ok(false)
            }
            None => {
                self.abandon(job)?;
                Ok(false)
            }
        }
    }

    /// Gives a move up that has not exchanged anything: the day stays where it is, and what was made for it goes.
    pub(super) fn abandon(&self, job: &Job) -> Result<(), ArchiveError> {
        let cold = self.cold_of(job)?;
        match job.task {
            Task::Move => self.abandon_move(job, &cold)?,
            Task::Restore => self.abandon_restore(job)?,
            Task::Merge => walk::remove_tree(&job.folder(&self.jobs)?, LATE)?,
            Task::Relink => {}
        }
        kill_point("archive-abandoned");
        let moving = cold.private()?.open_or_create(MOVING)?;
        walk::remove_tree(&moving, job.id.as_bytes())?;
        kill_point("archive-abandon-swept");
        job.forget(&self.jobs)
    }

    fn abandon_move(&self, job: &Job, cold: &Cold) -> Result<(), ArchiveError> {
        let turn = self.turn();
        // While our link stands the day lies behind it: without its placement it would read as deleted.
        if self.is_linked(job)? {
            return Err(ArchiveError::refused(&job.path, "has moved, and the record of it waits to be finished"));
        }
        let folder = job.folder(&self.jobs)?;
        if let Some(look) = folder.look(SWAP)?
            && is_dir(&look.signature)
        {
            // Not ours to remove: a user's directory came out of an exchange, and its place was taken meanwhile. Nothing is given up.
            return Err(left_behind(job, &folder));
        }
        let stamp = self.root.places().get(&job.path).map(|placement| placement.stamp);
        if stamp == Some(job.stamp) {
            places::withdraw(self.root, self.state, &job.path, Vec::new())?;
            kill_point("archive-abandon-withdrawn");
        } else if stamp.is_none() {
            // It is written before the placement is recorded, and goes after that.
            cold.remove_stamp(&job.path, job.stamp)?;
        }
        drop(turn);
        let private = cold.private()?;
        if let Some((parent, name)) = job.path.split()
            && let Some(parent) = found(cold.below(&parent))?
            && let Some(look) = parent.look(name.as_bytes())?
        {
            let name = name.as_bytes();
            let ours = job.how == How::Copy && job.new != 0 && look.signature.ino == job.new && is_dir(&look.signature);
            let link = job.how == How::Rename && kind_of(&look.signature) == Some(Kind::Symlink);
            if ours {
                let folder = private.open_or_create(MOVING)?.open_or_create(job.id.as_bytes())?;
                parent.rename(name, &folder, DAY, Replace::Never)?;
                parent.sync()?;
                kill_point("archive-abandon-unpublished");
            } else if link && parent.link_text(name)? == job.link {
                parent.unlink(name)?;
                parent.sync()?;
            }
        }
        super::scrub::forget_manifest(&private, job.stamp)
    }

    /// The placement goes on to count, and the copy that was made goes.
    fn abandon_restore(&self, job: &Job) -> Result<(), ArchiveError> {
        let turn = self.turn();
        if self.is_back(job)? {
            return Err(ArchiveError::refused(&job.path, "was brought back, and the record of it waits to be finished"));
        }
        if self.root.places().get(&job.path).is_some_and(|placement| !placement.settled) {
            places::settle(self.root, self.state, &job.path, Vec::new())?;
        }
        drop(turn);
        self.clear_swap(job, job.new)
    }

    /// Removes what waits in a job's folder: its link, or the directory `own` (any one that was made there, if that is 0 and nothing was
    /// exchanged yet). What a user made, and an exchange brought there, stays.
    pub(super) fn clear_swap(&self, job: &Job, own: u64) -> Result<(), ArchiveError> {
        let folder = job.folder(&self.jobs)?;
        let Some(look) = folder.look(SWAP)? else { return Ok(()) };
        let ours = match kind_of(&look.signature) {
            Some(Kind::Dir) => {
                look.signature.ino == own || (own == 0 && job.task == Task::Restore && job.phase == Phase::Copying)
            }
            Some(Kind::Symlink) => folder.link_text(SWAP)? == job.link,
            _ => false,
        };
        match ours {
            true => Ok(walk::remove_tree(&folder, SWAP)?),
            false => Err(left_behind(job, &folder)),
        }
    }
}

/// Something in a job's folder is not ours to remove.
pub(super) fn left_behind(job: &Job, folder: &Dir) -> ArchiveError {
    let place = crate::path::escape(folder.locate(SWAP).as_os_str().as_bytes());
    ArchiveError::refused(&job.path, format!("left what somebody had put in its place in {place}: look at it, and move it back"))
}

/// What is missing is no error.
fn found<T>(answer: Result<T, FsError>) -> Result<Option<T>, FsError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
