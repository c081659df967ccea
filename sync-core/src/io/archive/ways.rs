//! A way out for days that are not there as they were: one is taken as it is.

use super::Archive;
use super::error::ArchiveError;
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
}
