//! Another text for the link of an archived day: the rule was changed, or the cold root has moved.

use super::Archive;
use super::error::ArchiveError;
use super::job::{self, How, Job, Phase, SWAP, Task};
use super::links::{self, LinkForm};
use crate::entry::Kind;
use crate::io::fs::{Dir, FsError, Placement, Replace};
use crate::io::kill::kill_point;
use crate::io::places;
use crate::io::source::kind_of;
use crate::path::RelPath;

impl Archive<'_> {
    /// Gives the link of an archived day the text of another form, by one exchange: readers find the day through either. Returns
    /// whether it read otherwise.
    ///
    /// # Errors
    /// The link stays as it is, or the next [`Archive::recover`] finishes it.
    pub fn relink(&self, path: &RelPath, form: &LinkForm) -> Result<bool, ArchiveError> {
        let placement = self.root.places().get(path).cloned();
        let placement = placement.ok_or_else(|| ArchiveError::refused(path, "is not archived"))?;
        let cold = placement.cold.dir()?;
        let link = links::to_day(form, (&self.hot, path), (&cold.real_path()?, &placement.at));
        let (parent, name) = self.place(path)?;
        let text = link_at(&parent, name.as_bytes())?;
        if !text.is_some_and(|text| placement.is_own(&text)) {
            return Err(ArchiveError::refused(
                path,
                "cannot be linked anew: something else than its link stands there, and stays",
            ));
        }
        if link == placement.link && placement.other_link.is_none() {
            return Ok(false);
        }
        let mut job = Job {
            id: job::new_id()?,
            task: Task::Relink,
            how: How::Rename,
            phase: Phase::Swapping,
            path: path.clone(),
            cold: placement.cold.id,
            stamp: placement.stamp,
            link: link.clone(),
            old: 0,
            new: 0,
            since_ns: 0,
            keep_ns: 0,
        };
        job.record(&self.jobs)?;
        kill_point("archive-relink-recorded");
        let folder = job.folder(&self.jobs)?;
        folder.create_symlink(SWAP, &link)?;
        let turn = self.turn();
        // A link that came to the day meanwhile is recorded there, too.
        let now = self.root.places().get(path).cloned().unwrap_or_else(|| placement.clone());
        let both = Placement { other_link: Some(link), ..Placement::clone(&now) };
        places::amend(self.root, self.state, both, Vec::new())?;
        kill_point("archive-relink-announced");
        let exchanged = folder.rename(SWAP, &parent, name.as_bytes(), Replace::Exchange);
        kill_point("archive-relink-exchanged");
        drop(turn);
        self.finish_relink(&mut job)?;
        exchanged?;
        match link_at(&parent, name.as_bytes())? == Some(job.link) {
            true => Ok(true),
            false => Err(ArchiveError::Changed(path.clone())),
        }
    }

    /// The placement reads as the link does, whichever of both stands there.
    pub(super) fn finish_relink(&self, job: &mut Job) -> Result<(), ArchiveError> {
        let turn = self.turn();
        if let Some(placement) = self.root.places().get(&job.path).cloned() {
            let (parent, name) = self.place(&job.path)?;
            let folder = job.folder(&self.jobs)?;
            let is_new = |text: Option<Box<[u8]>>| text.as_ref() == Some(&job.link);
            if folder.look(SWAP)?.is_some()
                && !link_at(&folder, SWAP)?.is_some_and(|text| placement.is_own(&text) || text == job.link)
            {
                // A user had put it where the link was.
                if !is_new(link_at(&parent, name.as_bytes())?) {
                    return Err(super::recover::left_behind(job, &folder));
                }
                folder.rename(SWAP, &parent, name.as_bytes(), Replace::Exchange)?;
            }
            parent.sync()?;
            if folder.look(SWAP)?.is_some() {
                // It goes before the placement forgets how it read: nobody would know then whose it is.
                folder.unlink(SWAP)?;
                folder.sync()?;
            }
            kill_point("archive-relink-cleared");
            let text = link_at(&parent, name.as_bytes())?;
            let link = if is_new(text) { job.link.clone() } else { placement.link.clone() };
            let one = Placement { link, other_link: None, ..Placement::clone(&placement) };
            places::amend(self.root, self.state, one, Vec::new())?;
            kill_point("archive-relink-amended");
        }
        drop(turn);
        job.forget(&self.jobs)
    }
}

/// What a link reads, if one stands there.
pub(super) fn link_at(dir: &Dir, name: &[u8]) -> Result<Option<Box<[u8]>>, FsError> {
    match dir.stat(name)? {
        Some(now) if kind_of(&now) == Some(Kind::Symlink) => dir.link_text(name).map(Some),
        _ => Ok(None),
    }
}
