//! A day goes to a cold root.

use super::copy::{Copy, LinkText, reread};
use super::error::ArchiveError;
use super::intact::Copied;
use super::job::{self, How, Job, Phase, SWAP, Task};
use super::links::{self, LinkForm};
use super::manifest::Entry;
use super::walk::{self, Obstacle};
use super::{Archive, Contents, MoveOptions, Moved, SPARE_BYTES, SPARE_INODES};
use crate::entry::{Kind, Signature};
use crate::io::fs::{Cold, ColdId, Dir, FsError, Placement, Replace, Rewritten, is_dir};
use crate::io::kill::kill_point;
use crate::io::places;
use crate::io::source::kind_of;
use crate::path::RelPath;
use crate::store::Change;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// Folder in the hot root's private folder in the cold root: copies on their way.
pub(super) const MOVING: &[u8] = b"moving";
/// Folder there: manifests of what lies in the cold root, by the id of the placement's stamp.
pub(super) const SEALED: &[u8] = b"sealed";
/// The copy in its folder.
pub(super) const DAY: &[u8] = b"day";

/// A day that may move: what was checked, and where it lies.
struct Preflight {
    dir: Dir,
    own: Signature,
    contents: Contents,
    how: How,
}

impl Archive<'_> {
    /// Moves a day to a cold root. Until the exchange everything can be given up without a trace; from then on the day is in the cold root.
    ///
    /// # Errors
    /// The day stays as it is, whatever the reason; what was begun is removed, now or by the next [`Archive::recover`].
    pub fn move_day(&self, path: &RelPath, cold: &Arc<Cold>, options: &MoveOptions) -> Result<Moved, ArchiveError> {
        self.make_way(path, cold)?;
        let preflight = self.preflight(path, cold, options)?;
        let own = preflight.own;
        let cold_real = cold.dir()?.real_path()?;
        let job = Job {
            id: job::new_id()?,
            task: Task::Move,
            how: preflight.how,
            phase: Phase::Copying,
            path: path.clone(),
            cold: cold.id,
            stamp: ColdId::random().map_err(|source| FsError { action: "draw an id for", path: "a day".into(), source })?,
            link: links::to_day(&options.form, (&self.hot, path), (&cold_real, path)),
            old: own.ino,
            new: if preflight.how == How::Rename { own.ino } else { 0 },
            since_ns: 0,
            keep_ns: i64::try_from(options.keep.as_nanos()).unwrap_or(i64::MAX),
        };
        job.record(&self.jobs)?;
        kill_point("archive-job-recorded");
        let mut job = job;
        let text = |text: &[u8], link: &RelPath| {
            self.text_in_cold(options, (text, &link.parent().unwrap_or_default()), path, &cold_real)
        };
        let mut reread = Duration::ZERO;
        let done = match preflight.how {
            How::Copy => self.copy_to_cold(&mut job, cold, &preflight.dir, &text).and_then(|took| {
                reread = took;
                self.publish(&mut job, cold)
            }),
            How::Adopt => self.adopt(&mut job, cold, &preflight.dir, &text),
            How::Rename => self.prepare_rename(&mut job, cold),
        };
        if let Err(error) = done.and_then(|()| self.swap(&mut job, cold)) {
            return Err(self.given_up(&job, error));
        }
        let Contents { files, bytes, .. } = preflight.contents;
        Ok(Moved { files, bytes, copied: if job.how == How::Copy { bytes } else { 0 }, reread })
    }

    /// Gives a job up that failed before its exchange. Where even that fails, the next run does it.
    fn given_up(&self, job: &Job, error: ArchiveError) -> ArchiveError {
        if job.phase >= Phase::Kept {
            return error;
        }
        if let Err(again) = self.abandon(job) {
            self.monitor.notice(&format!("{}: what the move had begun could not be removed yet: {again}", job.path));
        }
        error
    }

    fn preflight(&self, path: &RelPath, cold: &Cold, options: &MoveOptions) -> Result<Preflight, ArchiveError> {
        if !self.root.places().may_hold(path) || self.root.places().get(path).is_some() {
            return Err(ArchiveError::refused(path, "is archived already, or lies in or around something that is"));
        }
        let (parent, name) = self.place(path)?;
        let dir = parent.open_dir(name.as_bytes())?;
        let own = dir.stat_self()?;
        let contents = self.examine(path)?;
        let cold_top = cold.dir()?;
        let there = match cold_top.below(&path.parent().unwrap_or_default()) {
            Ok(parent) => parent.look(name.as_bytes())?,
            Err(error) if error.is_missing() => None,
            Err(error) => return Err(error.into()),
        };
        let how = match there {
            Some(look) if is_dir(&look.signature) => How::Adopt,
            Some(_) => {
                return Err(ArchiveError::refused(path, "cannot move: something else stands in its place in the cold root"));
            }
            // Links are written anew in a copy, before anybody can see them.
            None if contents.link_out.is_none() && cold_top.mount()? == dir.mount()? => How::Rename,
            None => How::Copy,
        };
        check(path, &contents, how, options)?;
        if how == How::Copy {
            let (bytes, inodes) = cold_top.space()?;
            let (bytes, inodes) = (bytes.saturating_sub(SPARE_BYTES), inodes.saturating_sub(SPARE_INODES));
            if contents.allocated > bytes || contents.objects > inodes {
                return Err(ArchiveError::refused(
                    path,
                    format!(
                        "does not fit into the cold root: it needs {} bytes and {} inodes, and {bytes} and {inodes} are free",
                        contents.allocated, contents.objects
                    ),
                ));
            }
        }
        Ok(Preflight { dir, own, contents, how })
    }

    fn text_in_cold(
        &self,
        options: &MoveOptions,
        (text, dir): (&[u8], &RelPath),
        path: &RelPath,
        cold: &std::path::Path,
    ) -> Result<Box<[u8]>, ArchiveError> {
        if links::leads(text, dir.depth()) == links::Leads::Same {
            return Ok(text.into());
        }
        let written = links::rewritten(&options.form, text, dir, (&self.hot, path), (cold, path));
        written.filter(|_| options.rewrite).ok_or_else(|| ArchiveError::refused(path, "holds a link that leads out of it"))
    }

    /// The copy, complete, durable and read back.
    fn copy_to_cold(&self, job: &mut Job, cold: &Cold, source: &Dir, text: LinkText<'_>) -> Result<Duration, ArchiveError> {
        let private = cold.private()?;
        let folder = private.open_or_create(MOVING)?.create_dir(job.id.as_bytes())?;
        kill_point("archive-stage-made");
        let top = folder.create_dir(DAY)?;
        let manifest = job.new_manifest(&self.jobs)?;
        Copy::new(&job.path, (&top, manifest), text, (self.monitor, self.granularity_ns)).run(source)?;
        kill_point("archive-manifest-written");
        job.take_manifest(&self.jobs)?;
        self.check_before_move(job)?;
        top.sync_all()?;
        kill_point("archive-copy-durable");
        let reread = reread(&top, &mut job.manifest(&self.jobs)?, self.monitor)?;
        job.new = top.stat_self()?.ino;
        job.enter(&self.jobs, Phase::Ready)?;
        kill_point("archive-copy-ready");
        Ok(reread)
    }

    /// A file that its disk has damaged since it was read would be taken for an edit in the cold root.
    pub(super) fn check_before_move(&self, job: &Job) -> Result<(), ArchiveError> {
        let way_out = "Write its good bytes over it, from another copy of the tree; if it is right as it is, touch it";
        self.check_by_rows(Copied { day: &job.path, way_out }, &mut job.manifest(&self.jobs)?)
    }

    /// The copy takes its place in the cold root, the placement is announced, and the link prepared.
    pub(super) fn publish(&self, job: &mut Job, cold: &Arc<Cold>) -> Result<(), ArchiveError> {
        let private = cold.private()?;
        let (parent, name) = self.make_parents(cold, &job.path)?;
        kill_point("archive-parents-made");
        let there = parent.look(name.as_bytes())?;
        if there.is_none_or(|look| look.signature.ino != job.new) {
            let folder = private.open_or_create(MOVING)?.open_dir(job.id.as_bytes())?;
            folder.rename(DAY, &parent, name.as_bytes(), Replace::Never).map_err(|error| match error.source.kind() {
                ErrorKind::AlreadyExists => ArchiveError::refused(&job.path, "came to be in the cold root meanwhile"),
                _ => error.into(),
            })?;
            kill_point("archive-published");
            folder.sync()?;
        }
        parent.sync()?;
        kill_point("archive-published-durable");
        self.seal(job, &private, &cold.below(&job.path)?)?;
        kill_point("archive-sealed");
        self.announce(job, cold)
    }

    /// The manifest stays in the cold root, for as long as the day does: by it the day is read again and compared.
    fn seal(&self, job: &Job, private: &Dir, top: &Dir) -> Result<(), ArchiveError> {
        let sealed = private.open_or_create(SEALED)?;
        super::scrub::seal(&sealed, job.stamp.to_string().as_bytes(), top, &|| job.manifest(&self.jobs))
    }

    /// The placement is recorded, and the link made beside the place where it will stand.
    pub(super) fn announce(&self, job: &mut Job, cold: &Arc<Cold>) -> Result<(), ArchiveError> {
        self.announce_only(job, cold)?;
        let folder = job.folder(&self.jobs)?;
        match folder.look(SWAP)? {
            Some(look) if kind_of(&look.signature) == Some(Kind::Symlink) => folder.unlink(SWAP)?,
            Some(_) => return Err(ArchiveError::refused(&job.path, "is in the middle of another move")),
            None => {}
        }
        folder.create_symlink(SWAP, &job.link)?;
        folder.sync()?;
        kill_point("archive-link-made");
        if job.link.first() == Some(&b'/') && cold.path.has_root() && self.leads_wrong(&folder, SWAP, job, cold)? {
            return Err(ArchiveError::Guard(format!(
                "a link to {} would not lead to the day that was copied there: something is mounted over it; nothing was moved",
                String::from_utf8_lossy(&job.link)
            )));
        }
        job.enter(&self.jobs, Phase::Swapping)?;
        kill_point("archive-swap-recorded");
        Ok(())
    }

    fn announce_only(&self, job: &Job, cold: &Arc<Cold>) -> Result<(), ArchiveError> {
        let placement = Placement {
            path: job.path.clone(),
            cold: cold.clone(),
            at: job.path.clone(),
            job: job.id.clone(),
            stamp: job.stamp,
            link: job.link.clone(),
            other_link: None,
            settled: false,
            rewritten: self.rewritten(job)?,
        };
        let _turn = self.turn();
        places::announce(self.root, self.state, placement)?;
        kill_point("archive-announced");
        Ok(())
    }

    fn rewritten(&self, job: &Job) -> Result<BTreeMap<RelPath, Rewritten>, ArchiveError> {
        let mut rewritten = BTreeMap::new();
        if job.how == How::Rename {
            return Ok(rewritten);
        }
        let mut manifest = job.manifest(&self.jobs)?;
        while let Some(entry) = manifest.next()? {
            if entry.kind == Kind::Symlink && entry.disk != entry.target {
                rewritten.insert(entry.path, Rewritten { disk: entry.disk, target: entry.target });
            }
        }
        Ok(rewritten)
    }

    /// Does a link lead elsewhere than to the day? How applications see it below a prefix cannot be told from here.
    fn leads_wrong(&self, dir: &Dir, name: &[u8], job: &Job, cold: &Cold) -> Result<bool, ArchiveError> {
        let real = links::to_day(&LinkForm::Absolute, (&self.hot, &job.path), (&cold.dir()?.real_path()?, &job.path));
        if job.link.first() == Some(&b'/') && job.link != real {
            return Ok(false);
        }
        let there = cold.below(&job.path)?.stat_self()?;
        match dir.leads_to(name) {
            Ok(found) => Ok((found.dev, found.ino) != (there.dev, there.ino)),
            Err(error) if error.is_missing() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// On one file system: the link is made where the day will be, and the placement announced.
    fn prepare_rename(&self, job: &mut Job, cold: &Arc<Cold>) -> Result<(), ArchiveError> {
        let (parent, name) = self.make_parents(cold, &job.path)?;
        kill_point("archive-rename-parents-made");
        parent.create_symlink(name.as_bytes(), &job.link)?;
        parent.sync()?;
        kill_point("archive-rename-link-made");
        self.announce_only(job, cold)?;
        job.enter(&self.jobs, Phase::Swapping)?;
        kill_point("archive-rename-recorded");
        Ok(())
    }

    /// Link and day change places, if the day is still what was copied; what came out is looked at.
    pub(super) fn swap(&self, job: &mut Job, cold: &Arc<Cold>) -> Result<(), ArchiveError> {
        if self.work.is_some() && job.how != How::Rename && !self.is_swapped(job, cold)? {
            // What changed while the day was copied is found out before others have to wait, and the last look has less to fetch.
            self.look_for_change(job)?;
        }
        // Who brings files here looks through the placement: until that is settled, nobody brings any.
        let turn = self.turn();
        if !self.is_swapped(job, cold)? {
            let (parent, name) = self.place(&job.path)?;
            let dir = parent.open_dir(name.as_bytes())?;
            if dir.stat_self()?.ino != job.old {
                return Err(ArchiveError::Changed(job.path.clone()));
            }
            if job.how != How::Rename {
                self.look_for_change(job)?;
            }
            let (other, other_name) = self.counterpart(job, cold)?;
            kill_point("archive-before-exchange");
            other.rename(&other_name, &parent, name.as_bytes(), Replace::Exchange)?;
            kill_point("archive-exchanged");
            let came_out = other.look(&other_name)?;
            let right = came_out.is_some_and(|look| look.signature.ino == job.old && is_dir(&look.signature))
                && !self.leads_wrong(&parent, name.as_bytes(), job, cold)?;
            if !right {
                other.rename(&other_name, &parent, name.as_bytes(), Replace::Exchange)?;
                return Err(ArchiveError::Changed(job.path.clone()));
            }
            kill_point("archive-exchange-checked");
            parent.sync()?;
            other.sync()?;
            kill_point("archive-exchange-durable");
        }
        self.settle(job)?;
        kill_point("archive-settled");
        drop(turn);
        if job.how == How::Adopt {
            // Before it counts as done: should a crash come in between, the recovery does it.
            self.forget_those_before(job, cold)?;
        }
        if job.how == How::Rename {
            job.forget(&self.jobs)?;
            kill_point("archive-rename-forgotten");
            return Ok(());
        }
        job.since_ns = crate::io::fs::coarse_now_ns();
        job.enter(&self.jobs, Phase::Kept)?;
        kill_point("archive-kept");
        if let Err(error) = self.merge_late(job) {
            // The day has moved; what was written late stays where it is until it can be brought over.
            self.monitor.notice(&format!("{}: late writes wait: {error}", job.path));
        }
        Ok(())
    }

    /// Is the day still what was copied?
    fn look_for_change(&self, job: &Job) -> Result<(), ArchiveError> {
        let (parent, name) = self.place(&job.path)?;
        let dir = parent.open_dir(name.as_bytes())?;
        match walk::first_change(&dir, &mut job.manifest(&self.jobs)?, source_of)? {
            Some(path) => Err(ArchiveError::Changed(super::copy::shown(&job.path, &path))),
            None => Ok(()),
        }
    }

    /// Where the link waits, and where the day will come out.
    pub(super) fn counterpart(&self, job: &Job, cold: &Cold) -> Result<(Dir, Vec<u8>), ArchiveError> {
        if job.how == How::Rename {
            let (parent, name) = job.path.split().ok_or_else(|| ArchiveError::refused(&job.path, "is the root"))?;
            return Ok((cold.below(&parent)?, name.as_bytes().to_vec()));
        }
        Ok((job.folder(&self.jobs)?, SWAP.to_vec()))
    }

    /// Does the link stand in the root, and the day where the link was?
    pub(super) fn is_swapped(&self, job: &Job, cold: &Cold) -> Result<bool, ArchiveError> {
        let (other, name) = self.counterpart(job, cold)?;
        Ok(self.is_linked(job)?
            && other.look(&name)?.is_some_and(|look| look.signature.ino == job.old && is_dir(&look.signature)))
    }

    /// Whether the link of this job stands at the day's path.
    pub(super) fn is_linked(&self, job: &Job) -> Result<bool, ArchiveError> {
        let (parent, name) = self.place(&job.path)?;
        Ok(match parent.look(name.as_bytes())? {
            Some(look) if kind_of(&look.signature) == Some(Kind::Symlink) => parent.link_text(name.as_bytes())? == job.link,
            _ => false,
        })
    }

    /// The placement counts from now on, and the rows get the signatures of the copies.
    fn settle(&self, job: &Job) -> Result<(), ArchiveError> {
        if self.root.places().get(&job.path).is_some_and(|placement| placement.settled) {
            return Ok(());
        }
        let changes = self.handover(job, copy_of)?;
        Ok(places::settle(self.root, self.state, &job.path, changes)?)
    }

    /// Changes of the rows of a day that lies elsewhere now, the last of many; none for one that was never scanned.
    pub(super) fn handover(&self, job: &Job, copy: fn(&Entry) -> &Signature) -> Result<Vec<Change>, ArchiveError> {
        if self.state.node(&job.path)?.is_none() {
            return Ok(Vec::new());
        }
        let replica = (self.root, self.state, self.mask);
        // The same files as before: only the names above them are others.
        if job.how == How::Rename {
            return Ok(places::handover(replica, &job.path, None)?);
        }
        // Both in the order of paths: they meet entry by entry.
        let (mut manifest, mut wrong) = (job.manifest(&self.jobs)?, None);
        let mut hash = |path: &RelPath| {
            let below = path.rebase(&job.path, &RelPath::root())?;
            let found = manifest.seek(&below).unwrap_or_else(|error| {
                wrong.get_or_insert(error);
                None
            });
            found.filter(|entry| copy(entry).ino != 0).and_then(|entry| entry.hash)
        };
        let changes = places::handover(replica, &job.path, Some(&mut hash))?;
        wrong.map_or(Ok(changes), Err)
    }

    /// Opens the directory above a day in the cold root, and makes those that are missing as they are in the root.
    pub(super) fn make_parents(&self, cold: &Cold, path: &RelPath) -> Result<(Dir, crate::path::Name), ArchiveError> {
        let (parent, name) = path.split().ok_or_else(|| ArchiveError::refused(path, "is the root"))?;
        let (mut dir, mut at) = (cold.dir()?, RelPath::root());
        for part in parent.components() {
            at = at.join(&part);
            dir = match dir.open_dir(part.as_bytes()) {
                Err(error) if error.is_missing() => {
                    let like = self.root.hot(&at)?.stat_self()?.attrs();
                    let made = dir.create_dir(part.as_bytes())?;
                    let now = made.stat_self()?;
                    made.set_attrs_self(
                        &like,
                        crate::entry::AttrMask {
                            perms: true,
                            owner: (now.uid, now.gid) != (like.uid, like.gid) || like.mode & 0o6000 != 0,
                            times: false,
                        },
                    )?;
                    dir.sync()?;
                    made
                }
                answer => answer?,
            };
        }
        Ok((dir, name))
    }
}

/// Of an entry, what it was where it was copied from.
pub(super) fn source_of(entry: &Entry) -> &Signature {
    &entry.source
}

/// Of an entry, what its copy was.
pub(super) fn copy_of(entry: &Entry) -> &Signature {
    &entry.copy
}

pub(super) fn check(path: &RelPath, contents: &Contents, how: How, options: &MoveOptions) -> Result<(), ArchiveError> {
    let (at, why) = match &contents.obstacle {
        // The names stay those of one file, wherever its directory is.
        Some(Obstacle::HardLink(_)) | None if how == How::Rename => return Ok(()),
        None => match &contents.link_out {
            Some(at) if !options.rewrite => (at, "is a link that leads out of the day"),
            Some(at) if matches!(options.form, LinkForm::Prefix(_)) => {
                (at, "is a link that leads out of the day, and how applications see the root is not known")
            }
            _ => return Ok(()),
        },
        Some(Obstacle::Special(at)) => (at, "is a device, pipe or socket"),
        Some(Obstacle::Winding(at)) => {
            (at, "is a link that leads out of the day on a way that cannot be written for another place")
        }
        Some(Obstacle::HardLink(at)) => (at, "has another name outside of the day"),
        Some(Obstacle::Mount(at)) => (at, "lies on another file system"),
        Some(Obstacle::Private(at)) => (at, "holds a private folder of driftless: another root lies there"),
        Some(Obstacle::Name(at)) => (at, "holds a name that no replica could have"),
        Some(Obstacle::Unreadable(at, _)) => (at, "cannot be looked at"),
    };
    Err(ArchiveError::refused(at, format!("{why}: {path} stays")))
}
