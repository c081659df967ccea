//! Ways out for days that are not there as they were: one is taken as it is, one is given up.

use super::Archive;
use super::error::ArchiveError;
use super::job::{self, Phase, SWAP, Task};
use crate::io::fs::{Replace, is_dir};
use crate::io::places;
use crate::io::state::Batch;
use crate::path::RelPath;
use crate::store::Change;

impl Archive<'_> {
    /// What lies in the cold root for a day is the day from now on, although it is another directory that holds less: what is missing
    /// counts as deleted at the next scan.
    ///
    /// # Errors
    /// The day is not archived, or not there.
    pub fn accept(&self, path: &RelPath) -> Result<(), ArchiveError> {
        if self.root.places().get(path).is_none() {
            return Err(ArchiveError::refused(path, "is not archived"));
        }
        self.check_placed(path)?;
        if self.state.node(path)?.is_none() {
            return Ok(());
        }
        let now = self.root.dir(path)?.stat_self()?;
        let change = Change::Refresh { path: path.clone(), signature: now, hash: None, mtime_ns: Some(now.mtime_ns) };
        Ok(self.state.commit(Batch { changes: vec![change], ..Batch::default() }, true)?)
    }

    /// An archived day that is not there, and will not be again, is given up: its link goes, and all that was known of it, so that
    /// other replicas bring it back. What is still kept of it from before it moved takes its place again: then `true`.
    ///
    /// # Errors
    /// The day is not archived, or there: nothing was changed.
    pub fn forget(&self, path: &RelPath) -> Result<bool, ArchiveError> {
        places::forget(self.root, self.state, path)?;
        let (jobs, _) = job::all(&self.jobs)?;
        for job in jobs.into_iter().filter(|job| job.path == *path && job.task == Task::Move && job.phase == Phase::Kept) {
            let folder = job.folder(&self.jobs)?;
            let (parent, name) = self.place(path)?;
            if folder.look(SWAP)?.is_some_and(|look| is_dir(&look.signature)) && parent.look(name.as_bytes())?.is_none() {
                folder.rename(SWAP, &parent, name.as_bytes(), Replace::Never)?;
                parent.sync()?;
                job.forget(&self.jobs)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
