//! What is done to a day through handles, and in working directories, that were open before it moved: it happens in the old
//! directory, and is brought over to where the day is now. Nothing that anybody wrote is lost; what both places saw changed
//! is kept twice.

use super::Archive;
use super::copy::shown;
use super::error::ArchiveError;
use super::job::{How, Job, Phase, SWAP, Task};
use super::manifest::{Entry, Writer, digest};
use super::moves::{DAY, MOVING, SEALED, copy_of, source_of};
use super::walk::{self, Difference, is_same, is_untouched};
use crate::entry::{Hash, Kind, Signature};
use crate::io::apply;
use crate::io::fs::{
    Dir, FsError, Look, Replace, coarse_now_ns, copy_sparse, file_signature, file_xattrs, finish_exactly, is_dir,
};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, with_buffer};
use crate::path::RelPath;
use std::collections::HashMap;
use std::io::ErrorKind;

/// Names tried for a conflict copy.
const TRIES: u32 = 100;
/// Folder of a job where the live day is: what is brought over, and what it replaces.
const LATE: &[u8] = b"late";

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
            Task::Move => {
                let cold = self.cold_of(job)?;
                let moving = cold.private()?.open_or_create(MOVING)?;
                walk::remove_tree(&moving, job.id.as_bytes())?;
            }
            Task::Restore => {
                self.remove_from_cold(job)?;
                let sealed = self.cold_of(job)?.private()?.open_or_create(SEALED)?;
                match sealed.unlink(job.stamp.to_string().as_bytes()) {
                    Err(error) if !error.is_missing() => return Err(error.into()),
                    _ => {}
                }
            }
            Task::Relink => {}
        }
        walk::remove_tree(&folder, LATE)?;
        walk::remove_tree(&folder, SWAP)?;
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
            Task::Move => Ok(Some(job.folder(&self.jobs)?.open_dir(SWAP)?)),
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
        let Some(old) = self.old_day(job)? else { return Ok(Merged::default()) };
        if walk::first_change(&old, &mut job.manifest(&self.jobs)?, source_of)?.is_none() {
            return Ok(Merged::default());
        }
        // Wherever the day is by now.
        let live = self.root.dir(&job.path)?;
        let private = match live.mount()? == self.jobs.mount()? {
            true => job.folder(&self.jobs)?,
            false => self.cold_of(job)?.private()?.open_or_create(MOVING)?.open_or_create(job.id.as_bytes())?,
        };
        kill_point("archive-late-found");
        let private = private.open_or_create(LATE)?;
        let writer = job.new_manifest(&self.jobs)?;
        let mut merge = Merge {
            job,
            live,
            private,
            manifest: writer,
            done: Vec::new(),
            gone: Vec::new(),
            first: HashMap::new(),
            busy: false,
        };
        let mut manifest = job.manifest(&self.jobs)?;
        walk::compare(&old, &mut manifest, source_of, &mut |difference| merge.each(difference))?;
        merge.remove_dirs()?;
        let Merge { live, manifest, done, busy, .. } = merge;
        live.sync_all()?;
        kill_point("archive-late-merged");
        manifest.finish()?;
        job.take_manifest(&self.jobs)?;
        kill_point("archive-late-recorded");
        Ok(Merged { paths: done, busy })
    }
}

/// The directory that a path of the live day is in, its name there, and what that bears.
type There = (Dir, Box<[u8]>, Look);

/// What was brought over of an old directory.
#[derive(Default)]
pub(super) struct Merged {
    paths: Vec<RelPath>,
    /// Something in it is being written: it comes the next time.
    busy: bool,
}

struct Merge<'a> {
    job: &'a Job,
    live: Dir,
    /// On the live day's file system.
    private: Dir,
    manifest: Writer,
    done: Vec<RelPath>,
    /// Directories that went from the old day, parents first.
    gone: Vec<Entry>,
    /// Files with several names that were brought over, by their inode in the old day: where.
    first: HashMap<u64, RelPath>,
    /// Something is being written: the old day stays.
    busy: bool,
}

impl Merge<'_> {
    fn each(&mut self, difference: Difference<'_>) -> Result<(), ArchiveError> {
        match difference {
            Difference::Same(entry) => self.manifest.entry(&entry),
            Difference::Gone(entry) => self.gone(entry),
            Difference::New(path, dir, look) => self.arrived(&path, dir, &look),
            Difference::Changed(entry, dir, look) if kind_of(&look.signature) == Some(entry.kind) => match entry.kind {
                Kind::Dir => self.dir_changed(entry, &look),
                Kind::File => self.file_changed(entry, dir, &look),
                Kind::Symlink if self.is_same_link(&entry, dir)? => {
                    self.manifest.entry(&Entry { source: look.signature, ..entry })
                }
                Kind::Symlink => self.replaced(entry, dir, &look),
            },
            Difference::Changed(entry, dir, look) => self.replaced(entry, dir, &look),
        }
    }

    fn told(&mut self, path: &RelPath) {
        self.done.push(shown(&self.job.path, path));
    }

    fn parent(&self, path: &RelPath) -> Result<(Dir, Box<[u8]>), ArchiveError> {
        let (parent, name) = path.split().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        Ok((self.live.below(&parent)?, name.as_bytes().into()))
    }

    /// What stands at a path in the live day, if the way to it is there.
    fn there(&self, path: &RelPath) -> Result<Option<There>, ArchiveError> {
        match self.parent(path) {
            Ok((dir, name)) => Ok(dir.look(&name)?.map(|look| (dir, name, look))),
            Err(ArchiveError::Fs(error)) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// It was removed in the old day: so it is in the live one, if nobody changed it there. It is kept as long as the old day is.
    fn gone(&mut self, entry: Entry) -> Result<(), ArchiveError> {
        if entry.kind == Kind::Dir {
            self.gone.push(entry);
            return Ok(());
        }
        if let Some((dir, name, look)) = self.there(&entry.path)?
            && is_untouched(&entry.copy, &look.signature)
        {
            let kept = self.free_name()?;
            dir.rename(&name, &self.private, &kept, Replace::Never)?;
            kill_point("archive-late-removed");
            self.told(&entry.path);
        }
        Ok(())
    }

    fn remove_dirs(&mut self) -> Result<(), ArchiveError> {
        for entry in std::mem::take(&mut self.gone).into_iter().rev() {
            let Some((dir, name, look)) = self.there(&entry.path)? else { continue };
            if !is_dir(&look.signature) {
                continue;
            }
            match dir.rmdir(&name) {
                Ok(()) => self.told(&entry.path),
                // Something is in it that only the live day knows.
                Err(error) if error.source.kind() == ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn dir_changed(&mut self, entry: Entry, look: &Look) -> Result<(), ArchiveError> {
        match self.there(&entry.path)? {
            Some((dir, name, live)) if is_dir(&live.signature) => {
                if live.signature.attrs().mode == entry.source.attrs().mode {
                    let (wanted, now) = (look.signature.attrs(), live.signature.attrs());
                    let owner = (wanted.uid, wanted.gid) != (now.uid, now.gid);
                    let mask = crate::entry::AttrMask { perms: true, owner, times: false };
                    dir.open_dir(&name)?.set_attrs_self(&wanted, mask)?;
                }
                self.manifest.entry(&Entry { source: look.signature, ..entry })
            }
            Some(_) => self.manifest.entry(&Entry { source: look.signature, ..entry }),
            None => self.new_dir(&entry.path, look),
        }
    }

    fn new_dir(&mut self, path: &RelPath, look: &Look) -> Result<(), ArchiveError> {
        let (dir, name) = self.parent(path)?;
        if dir.look(&name)?.is_none() {
            let made = dir.create_dir(&name)?;
            made.finish_exactly(&look.signature.attrs(), &Vec::new())?;
            self.told(path);
        }
        let copy = dir.look(&name)?.map(|look| look.signature).unwrap_or_default();
        self.manifest.entry(&plain(path, Kind::Dir, look.signature, copy))
    }

    fn is_same_link(&self, entry: &Entry, dir: &Dir) -> Result<bool, ArchiveError> {
        let name = entry.path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        Ok(dir.link_text(name.as_bytes())? == entry.target)
    }

    /// Something else came in its place: what was there goes, and this comes.
    fn replaced(&mut self, entry: Entry, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        let path = entry.path.clone();
        self.gone(entry)?;
        self.arrived(&path, dir, look)
    }

    fn arrived(&mut self, path: &RelPath, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        let name = path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        match kind_of(&look.signature) {
            Some(Kind::Dir) => self.new_dir(path, look),
            Some(Kind::File) => {
                let Some(brought) = self.bring(dir, name.as_bytes(), look)? else {
                    self.busy = true;
                    return Ok(());
                };
                let copy = self.put(path, &brought, None)?;
                self.record(path, (look, copy), &brought)
            }
            Some(Kind::Symlink) => {
                let text = dir.link_text(name.as_bytes())?;
                let new = self.free_name()?;
                self.private.create_symlink(&new, &text)?;
                self.private.finish_link(&new, &look.signature.attrs(), &dir.link_xattrs(name.as_bytes())?)?;
                let brought = Brought { name: new, hash: None, xattrs: digest(&Vec::new()), text: text.clone() };
                let copy = self.put(path, &brought, None)?;
                let entry = plain(path, Kind::Symlink, look.signature, copy);
                self.manifest.entry(&Entry { target: text.clone(), disk: text, ..entry })
            }
            // A pipe or socket that somebody made: no replica has such things.
            None => Ok(()),
        }
    }

    fn file_changed(&mut self, entry: Entry, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        let name = entry.path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        // Still being written: the next look finds it again, since what was known of it stays.
        let Some(brought) = self.bring(dir, name.as_bytes(), look)? else {
            self.busy = true;
            return self.manifest.entry(&entry);
        };
        let same_bytes = entry.hash.is_some() && brought.hash == entry.hash;
        if same_bytes && entry.source.attrs() == look.signature.attrs() {
            self.private.unlink(&brought.name)?;
            return self.manifest.entry(&Entry { source: look.signature, ..entry });
        }
        let copy = self.put(&entry.path, &brought, Some(&entry))?;
        self.record(&entry.path, (look, copy), &brought)
    }

    fn record(&mut self, path: &RelPath, (look, copy): (&Look, Signature), brought: &Brought) -> Result<(), ArchiveError> {
        if look.links > 1 {
            self.first.entry(look.signature.ino).or_insert_with(|| path.clone());
        }
        let entry = plain(path, Kind::File, look.signature, copy);
        self.manifest.entry(&Entry { hash: brought.hash, xattrs: brought.xattrs, ..entry })
    }

    /// A copy of a file of the old day, or another name of one that was brought already; `None` while it is being written.
    fn bring(&mut self, dir: &Dir, name: &[u8], look: &Look) -> Result<Option<Brought>, ArchiveError> {
        let new = self.free_name()?;
        let (file, before) = dir.open_file_seen(name)?;
        let xattrs = file_xattrs(&file, &dir.locate(name))?;
        let out = match self.first.get(&look.signature.ino).and_then(|path| path.split()) {
            Some((parent, first)) => {
                self.live.below(&parent)?.hard_link(first.as_bytes(), &self.private, &new)?;
                None
            }
            None => Some(self.private.create_file_for(&new, before.mode)?),
        };
        let failed = |source| FsError { action: "copy to", path: self.private.locate(&new), source };
        let hash = match &out {
            Some(out) => with_buffer(|buffer| copy_sparse(&file, before.size, out, buffer)).map_err(failed)?,
            None => {
                let mut file = &file;
                with_buffer(|buffer| crate::io::fs::hash_file(&mut file, buffer)).map_err(failed)?.1
            }
        };
        if !is_same(&before, &file_signature(&file, &dir.locate(name))?) {
            self.private.unlink(&new)?;
            return Ok(None);
        }
        if let Some(out) = &out {
            finish_exactly(out, &self.private.locate(&new), &before.attrs(), &xattrs)?;
            out.sync_all().map_err(failed)?;
        }
        kill_point("archive-late-brought");
        Ok(Some(Brought { name: new, hash: Some(hash), xattrs: digest(&xattrs), text: Box::default() }))
    }

    /// What was brought takes its place in the live day: a free one, or that of the entry if nobody changed it there; else it
    /// stands beside it. Returns what it is then.
    fn put(&mut self, path: &RelPath, brought: &Brought, entry: Option<&Entry>) -> Result<Signature, ArchiveError> {
        let own = self.private.stat(&brought.name)?.unwrap_or_default();
        self.make_way_to(path)?;
        let (dir, name) = self.parent(path)?;
        let now = dir.look(&name)?;
        match (now, entry) {
            (None, _) => {
                self.private.rename(&brought.name, &dir, &name, Replace::Never)?;
                kill_point("archive-late-put");
                self.told(path);
                return Ok(dir.stat(&name)?.unwrap_or(own));
            }
            (Some(now), Some(entry)) if is_untouched(copy_of(entry), &now.signature) => {
                self.private.rename(&brought.name, &dir, &name, Replace::Exchange)?;
                kill_point("archive-late-exchanged");
                let out = self.private.stat(&brought.name)?.unwrap_or_default();
                if is_untouched(copy_of(entry), &out) {
                    // What it replaces stays among what is kept for this move.
                    self.told(path);
                    return Ok(dir.stat(&name)?.unwrap_or(own));
                }
                self.private.rename(&brought.name, &dir, &name, Replace::Exchange)?;
            }
            (Some(now), _) if self.is_equal(&dir, &name, &now, brought)? => {
                self.private.unlink(&brought.name)?;
                return Ok(now.signature);
            }
            _ => {}
        }
        self.put_beside(path, brought)?;
        Ok(dir.stat(&name)?.unwrap_or(own))
    }

    /// Directories on the way that are missing in the live day.
    fn make_way_to(&mut self, path: &RelPath) -> Result<(), ArchiveError> {
        let mut dir = self.live.below(&RelPath::root())?;
        for part in path.parent().unwrap_or_default().components() {
            dir = match dir.open_dir(part.as_bytes()) {
                Err(error) if error.is_missing() => {
                    let like = self.live.stat_self()?.attrs();
                    let made = dir.create_dir(part.as_bytes())?;
                    made.set_attrs_self(&like, crate::entry::AttrMask { perms: true, owner: false, times: false })?;
                    made
                }
                answer => answer?,
            };
        }
        Ok(())
    }

    fn is_equal(&self, dir: &Dir, name: &[u8], now: &Look, brought: &Brought) -> Result<bool, ArchiveError> {
        match kind_of(&now.signature) {
            Some(Kind::Symlink) => Ok(brought.hash.is_none() && dir.link_text(name)? == brought.text),
            Some(Kind::File) if brought.hash.is_some() => {
                let mut file = dir.open_file(name)?;
                let read = with_buffer(|buffer| crate::io::fs::hash_file(&mut file, buffer));
                let (_, hash) = read.map_err(|source| FsError { action: "read", path: dir.locate(name), source })?;
                Ok(Some(hash) == brought.hash)
            }
            _ => Ok(false),
        }
    }

    fn put_beside(&mut self, path: &RelPath, brought: &Brought) -> Result<(), ArchiveError> {
        let whole = shown(&self.job.path, path);
        if self.stands_beside(path, brought)? {
            return Ok(self.private.unlink(&brought.name)?);
        }
        for number in 1..=TRIES {
            let Some(wish) = apply::late_name(&whole, coarse_now_ns(), brought.hash.as_ref(), number) else { break };
            let Some((dir, _)) = path.parent().map(|parent| self.live.below(&parent)).transpose()?.zip(wish.name()) else {
                break;
            };
            let Some(name) = wish.name() else { break };
            match self.private.rename(&brought.name, &dir, name.as_bytes(), Replace::Never) {
                Ok(()) => {
                    kill_point("archive-late-beside");
                    self.done.push(wish);
                    return Ok(());
                }
                Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ArchiveError::refused(&whole, "was written to after it had moved, and no name is free to keep that under"))
    }

    /// Is it kept beside its path already? A look that was interrupted before it was recorded has put it there.
    fn stands_beside(&self, path: &RelPath, brought: &Brought) -> Result<bool, ArchiveError> {
        let Some(hash) = brought.hash else { return Ok(false) };
        let (dir, _) = self.parent(path)?;
        let hash = format!("{hash:?}");
        for name in dir.names()? {
            let text = String::from_utf8_lossy(&name);
            if text.contains(".conflict-late-")
                && text.contains(&hash)
                && let Some(look) = dir.look(&name)?
                && self.is_equal(&dir, &name, &look, brought)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A name in the folder of what is brought over.
    fn free_name(&self) -> Result<Vec<u8>, ArchiveError> {
        for number in self.done.len()..usize::MAX {
            let name = format!("{number}").into_bytes();
            if self.private.look(&name)?.is_none() {
                return Ok(name);
            }
        }
        Err(ArchiveError::refused(&self.job.path, "has too many late writes"))
    }
}

/// What was brought to the live day's file system.
struct Brought {
    name: Vec<u8>,
    hash: Option<Hash>,
    xattrs: Hash,
    /// Of a link.
    text: Box<[u8]>,
}

fn is_gone(error: &FsError) -> bool {
    error.is_missing() || error.source.kind() == ErrorKind::NotADirectory
}

fn plain(path: &RelPath, kind: Kind, source: Signature, copy: Signature) -> Entry {
    let (target, disk, first) = (Box::default(), Box::default(), RelPath::root());
    Entry { path: path.clone(), kind, source, copy, hash: None, xattrs: digest(&Vec::new()), target, disk, first }
}
