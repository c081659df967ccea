//! What came to be in another directory of a day is brought to where the day is now, file by file. Nothing that anybody wrote is
//! lost: what both places saw changed is kept twice.

use super::Archive;
use super::carry::{Brought, Landed, TRIES, hash_of};
use super::copy::shown;
use super::dirs::{Dirs, Old};
use super::error::ArchiveError;
use super::job::Job;
use super::manifest::{Entry, Writer, digest};
use super::moves::copy_of;
use super::walk::{Difference, is_same, is_untouched};
use crate::entry::{Kind, Signature};
use crate::io::apply;
use crate::io::fs::{Dir, Look, Replace, coarse_now_ns, file_signature, file_xattrs, is_dir};
use crate::io::kill::kill_point;
use crate::io::source::kind_of;
use crate::path::RelPath;
use std::collections::HashMap;
use std::io::ErrorKind;

/// The directory that a path of the live day is in, its name there, and what that bears.
type There = (Dir, Box<[u8]>, Look);

/// One look at an old directory.
pub(super) struct Bring<'a> {
    pub(super) archive: &'a Archive<'a>,
    pub(super) job: &'a Job,
    /// From here.
    pub(super) old: &'a Dir,
    /// To here.
    pub(super) live: Dir,
    /// On the live day's file system: what is brought over, and what it replaces.
    pub(super) private: Dir,
    pub(super) manifest: Writer,
    /// The old directory was made anew beside the live one: what stands there already is not changed by what is done here.
    pub(super) anew: bool,
    /// Paths that changed.
    pub(super) done: Vec<RelPath>,
    /// Conflict copies.
    pub(super) beside: Vec<RelPath>,
    /// Directories that went from the old day, parents first.
    gone: Vec<Entry>,
    /// Files with several names that were brought over, by their inode in the old day: where, and what they are there.
    pub(super) first: HashMap<u64, (RelPath, u64)>,
    pub(super) dirs: Dirs,
    /// Something may have changed without a sign of it: it is looked at again.
    pub(super) busy: bool,
    /// Something was written to while it was read: it is not there yet.
    pub(super) torn: bool,
}

impl<'a> Bring<'a> {
    pub(super) fn new(
        (archive, job): (&'a Archive<'a>, &'a Job),
        (old, live, private): (&'a Dir, Dir, Dir),
        (manifest, anew): (Writer, bool),
    ) -> Bring<'a> {
        let (done, beside, gone) = (Vec::new(), Vec::new(), Vec::new());
        let (first, dirs) = (HashMap::new(), Dirs::default());
        Bring { archive, job, old, live, private, manifest, anew, done, beside, gone, first, dirs, busy: false, torn: false }
    }

    pub(super) fn each(&mut self, difference: Difference<'_>) -> Result<(), ArchiveError> {
        match difference {
            Difference::Same(entry) if entry.path.is_root() => self.top(entry),
            Difference::Same(entry) => self.manifest.entry(&entry),
            Difference::Gone(entry) => self.gone(entry),
            Difference::New(path, dir, look) => self.arrived(&path, dir, &look),
            Difference::Changed(entry, dir, look) if kind_of(&look.signature) == Some(entry.kind) => match entry.kind {
                Kind::Dir => self.dir_changed(entry, dir, &look),
                Kind::File => self.file_changed(entry, dir, &look),
                Kind::Symlink if self.is_same_link(&entry, dir)? => self.link_changed(entry, dir, &look),
                Kind::Symlink => self.replaced(entry, dir, &look),
            },
            Difference::Changed(entry, dir, look) => self.replaced(entry, dir, &look),
        }
    }

    /// What is left to be done when everything was looked at. Returns the manifest, which is not finished.
    pub(super) fn end(mut self) -> Result<(Writer, Vec<RelPath>, Vec<RelPath>), ArchiveError> {
        self.remove_dirs()?;
        let old = Old { day: &self.job.path, old: self.old, monitor: self.archive.monitor };
        let changed = std::mem::take(&mut self.dirs).settle(&old, &self.live, |path| self.dir_at(path))?;
        self.done.extend(changed);
        self.live.sync_all()?;
        Ok((self.manifest, self.done, self.beside))
    }

    pub(super) fn told(&mut self, path: &RelPath) {
        self.done.push(shown(&self.job.path, path));
    }

    /// A signature as it is remembered: what may change again in this tick of the clock is looked at again.
    pub(super) fn seen(&mut self, signature: Signature) -> Signature {
        let granularity = self.archive.granularity_ns;
        if granularity > 0 && signature.ctime_ns >= coarse_now_ns().saturating_sub(granularity) {
            self.busy = true;
            return Signature { ctime_ns: i64::MIN, ..signature };
        }
        signature
    }

    /// The path in the live day: where something else stands in the place of a directory, that is brought under another name beside it.
    pub(super) fn at(&self, path: &RelPath) -> Result<RelPath, ArchiveError> {
        let parent = path.parent().unwrap_or_default();
        match self.live.below(&parent) {
            Err(error) if error.is_no_dir() => {}
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => return Ok(path.clone()),
        }
        let (mut dir, mut at) = (Some(self.live.below(&RelPath::root())?), RelPath::root());
        for part in parent.components() {
            at = match &dir {
                Some(above) => self.dir_name(above, &at.join(&part))?,
                None => at.join(&part),
            };
            dir = match self.live.below(&at) {
                Err(error) if error.is_missing() => None,
                found => Some(found?),
            };
        }
        Ok(path.name().map_or(at.clone(), |name| at.join(&name)))
    }

    /// The path of a directory that is brought, whose parent is `above`: the wish itself, unless something else stands there.
    fn dir_name(&self, above: &Dir, wish: &RelPath) -> Result<RelPath, ArchiveError> {
        let stands = |path: &RelPath| -> Result<bool, ArchiveError> {
            let name = path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
            Ok(above.stat(name.as_bytes())?.is_none_or(|now| is_dir(&now)))
        };
        if stands(wish)? {
            return Ok(wish.clone());
        }
        for number in 1..=TRIES {
            // The same name each time: by when the job began to count.
            let Some(name) = apply::late_name(wish, self.job.since_ns, None, number) else { break };
            if stands(&name)? {
                return Ok(name);
            }
        }
        Err(ArchiveError::refused(&shown(&self.job.path, wish), "cannot be brought over: no name is free beside it"))
    }

    /// As [`Bring::at`], of a directory.
    fn dir_at(&self, path: &RelPath) -> Result<RelPath, ArchiveError> {
        if path.is_root() {
            return Ok(RelPath::root());
        }
        let at = self.at(path)?;
        match self.live.below(&at.parent().unwrap_or_default()) {
            Err(error) if error.is_missing() => Ok(at),
            above => self.dir_name(&above?, &at),
        }
    }

    pub(super) fn parent(&self, path: &RelPath) -> Result<(Dir, Box<[u8]>), ArchiveError> {
        let (parent, name) = self.at(path)?.split().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        Ok((self.live.below(&parent)?, name.as_bytes().into()))
    }

    /// What stands at a path in the live day, if the way to it is there.
    fn there(&self, path: &RelPath) -> Result<Option<There>, ArchiveError> {
        match self.parent(path) {
            Ok((dir, name)) => Ok(dir.look(&name)?.map(|look| (dir, name, look))),
            Err(ArchiveError::Fs(error)) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// It was removed in the old day: so it is in the live one, if nobody changed it there. It is kept as long as the old day is.
    fn gone(&mut self, entry: Entry) -> Result<(), ArchiveError> {
        if entry.kind == Kind::Dir {
            self.gone.push(entry);
            return Ok(());
        }
        // Of what stands beside its path nothing is taken back.
        if landed(&entry)? != entry.path {
            return Ok(());
        }
        if let Some((dir, name, look)) = self.there(&entry.path)?
            && self.is_ours(&entry, (&dir, &name), &look)?
        {
            self.dirs.touch(&entry.path, &dir)?;
            let kept = self.free_name()?;
            self.note_put_away(&kept, &entry.path, &look.signature)?;
            dir.rename(&name, &self.private, &kept, Replace::Never)?;
            kill_point("archive-late-removed");
            self.told(&entry.path);
        }
        Ok(())
    }

    /// Is it what was brought there, with the attributes that it had?
    pub(super) fn is_ours(&self, entry: &Entry, (dir, name): (&Dir, &[u8]), now: &Look) -> Result<bool, ArchiveError> {
        if !is_untouched(copy_of(entry), &now.signature) {
            return Ok(false);
        }
        Ok(match entry.kind {
            Kind::File => digest(&file_xattrs(&dir.open_file(name)?, &dir.locate(name))?) == entry.xattrs,
            Kind::Symlink => digest(&dir.link_xattrs(name)?) == entry.xattrs,
            Kind::Dir => true,
        })
    }

    fn remove_dirs(&mut self) -> Result<(), ArchiveError> {
        for entry in std::mem::take(&mut self.gone).into_iter().rev() {
            let Some((dir, name, look)) = self.there(&entry.path)? else { continue };
            if !is_dir(&look.signature) || look.signature.ino != entry.copy.ino {
                continue;
            }
            self.dirs.touch(&entry.path, &dir)?;
            match dir.rmdir(&name) {
                Ok(()) => self.told(&entry.path),
                // Something is in it that only the live day knows.
                Err(error) if error.source.kind() == ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The day itself.
    fn top(&mut self, entry: Entry) -> Result<(), ArchiveError> {
        let now = self.old.stat_self()?;
        let xattrs = self.old.xattrs()?;
        let (source, digest) = (self.seen(now), digest(&xattrs));
        self.manifest.entry(&Entry { source, xattrs: digest, ..entry.clone() })?;
        self.dirs.changed(entry);
        Ok(())
    }

    fn dir_changed(&mut self, entry: Entry, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        match self.there(&entry.path)? {
            Some((_, _, live)) if is_dir(&live.signature) => {
                let name = entry.path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
                let xattrs = digest(&dir.open_dir(name.as_bytes())?.xattrs()?);
                let source = self.seen(look.signature);
                self.manifest.entry(&Entry { source, xattrs, ..entry.clone() })?;
                self.dirs.changed(entry);
                Ok(())
            }
            _ => self.new_dir(&entry.path, dir, look),
        }
    }

    fn new_dir(&mut self, path: &RelPath, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        let name = path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        let xattrs = digest(&dir.open_dir(name.as_bytes())?.xattrs()?);
        let copy = self.make_dir(path)?;
        let source = self.seen(look.signature);
        self.manifest.entry(&Entry { xattrs, ..plain(path, Kind::Dir, source, copy) })
    }

    /// A directory of the live day, which is made if it is missing. Returns what it is if that was so.
    fn make_dir(&mut self, path: &RelPath) -> Result<Signature, ArchiveError> {
        self.make_way_to(path)?;
        let (dir, _) = self.parent(path)?;
        let name = self.dir_at(path)?.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        if dir.stat(name.as_bytes())?.is_some() {
            return Ok(Signature::default());
        }
        let old = self.old.below(path)?;
        let new = self.free_name()?;
        self.dirs.touch(path, &dir)?;
        self.private.create_dir(&new)?.finish_exactly(&old.stat_self()?.attrs(), &old.xattrs()?)?;
        self.private.rename(&new, &dir, name.as_bytes(), Replace::Never)?;
        kill_point("archive-late-dir-made");
        self.dirs.made(path);
        self.told(path);
        Ok(dir.stat(name.as_bytes())?.unwrap_or_default())
    }

    /// Directories on the way that are missing in the live day.
    pub(super) fn make_way_to(&mut self, path: &RelPath) -> Result<(), ArchiveError> {
        let parent = path.parent().unwrap_or_default();
        if parent.is_root() || self.live.below(&parent).is_ok() {
            return Ok(());
        }
        self.make_dir(&parent).map(drop)
    }

    fn is_same_link(&self, entry: &Entry, dir: &Dir) -> Result<bool, ArchiveError> {
        let name = entry.path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        Ok(dir.link_text(name.as_bytes())? == entry.target)
    }

    /// Its owner, its times or its extended attributes.
    fn link_changed(&mut self, entry: Entry, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        let name = entry.path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        let (attrs, xattrs) = (look.signature.attrs(), dir.link_xattrs(name.as_bytes())?);
        let source = self.seen(look.signature);
        let mut now = Entry { source, xattrs: digest(&xattrs), ..entry.clone() };
        if entry.source.attrs() != attrs || entry.xattrs != now.xattrs {
            match self.there(&entry.path)? {
                Some((live, name, there)) if self.is_ours(&entry, (&live, &name), &there)? => {
                    live.finish_link(&name, &attrs, &xattrs)?;
                    now.copy = live.stat(&name)?.unwrap_or(now.copy);
                    self.told(&entry.path);
                }
                _ => self.keeps_its_own(&entry.path),
            }
        }
        self.manifest.entry(&now)
    }

    pub(super) fn keeps_its_own(&self, path: &RelPath) {
        let path = shown(&self.job.path, path);
        self.archive.monitor.notice(&format!(
            "{path}: its owner, mode, times or extended attributes were changed in two places at once: those of the archived day stay"
        ));
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
            Some(Kind::Dir) => self.new_dir(path, dir, look),
            Some(Kind::File) => {
                if let Some(entry) = self.stands_already(path, dir, look)? {
                    return self.manifest.entry(&entry);
                }
                let Some(brought) = self.bring(dir, name.as_bytes(), look)? else { return Ok(()) };
                let landed = self.put(path, &brought, None)?;
                self.record(path, look, &brought, landed)
            }
            Some(Kind::Symlink) => {
                let brought = self.bring_link(path, dir, look)?;
                let landed = self.put(path, &brought, None)?;
                self.record(path, look, &brought, landed)
            }
            // A pipe or socket that somebody made: no replica has such things.
            None => Ok(()),
        }
    }

    /// Of a day made anew: a file that is in the archive with the same bytes need not be copied to find that out.
    fn stands_already(&mut self, path: &RelPath, dir: &Dir, look: &Look) -> Result<Option<Entry>, ArchiveError> {
        if !self.anew || look.links > 1 {
            return Ok(None);
        }
        let Some((live, live_name, there)) = self.there(path)? else { return Ok(None) };
        if kind_of(&there.signature) != Some(Kind::File) || there.signature.size != look.signature.size {
            return Ok(None);
        }
        let Some(name) = path.name() else { return Ok(None) };
        let (file, before) = dir.open_file_seen(name.as_bytes())?;
        let (hash, xattrs) = (hash_of(&file, &dir.locate(name.as_bytes()))?, file_xattrs(&file, &dir.locate(name.as_bytes()))?);
        let same = hash_of(&live.open_file(&live_name)?, &live.locate(&live_name))? == hash;
        if !same || !is_same(&before, &file_signature(&file, &dir.locate(name.as_bytes()))?) {
            return Ok(None);
        }
        let source = self.seen(before);
        let entry = plain(path, Kind::File, source, Signature::default());
        Ok(Some(Entry { hash: Some(hash), xattrs: digest(&xattrs), ..entry }))
    }

    fn file_changed(&mut self, entry: Entry, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        let name = entry.path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        // Still being written: the next look finds it again, since what was known of it stays.
        let Some(brought) = self.bring(dir, name.as_bytes(), look)? else { return self.manifest.entry(&entry) };
        let same_bytes = entry.hash.is_some() && brought.hash == entry.hash && brought.xattrs == entry.xattrs;
        if same_bytes && entry.source.attrs() == brought.seen.attrs() {
            self.private.unlink(&brought.name)?;
            let source = self.seen(brought.seen);
            return self.manifest.entry(&Entry { source, ..entry });
        }
        let landed = self.put(&landed(&entry)?, &brought, Some(&entry))?;
        self.record(&entry.path, look, &brought, landed)
    }

    fn record(&mut self, path: &RelPath, look: &Look, brought: &Brought, landed: Landed) -> Result<(), ArchiveError> {
        let Landed { at, copy } = landed;
        let source = self.seen(brought.seen);
        if brought.hash.is_none() {
            let entry = plain(path, Kind::Symlink, source, copy);
            let (target, disk) = (brought.target.clone(), brought.disk.clone());
            return self.manifest.entry(&Entry { target, disk, xattrs: brought.xattrs, ..entry });
        }
        if look.links > 1 && copy.ino != 0 {
            self.first.entry(look.signature.ino).or_insert_with(|| (at.clone(), copy.ino));
        }
        let disk = if at == *path { Box::default() } else { at.as_bytes().into() };
        let entry = plain(path, Kind::File, source, copy);
        self.manifest.entry(&Entry { hash: brought.hash, xattrs: brought.xattrs, disk, ..entry })
    }
}

/// Where in the live day a file stands that was brought: at its path, or beside it.
fn landed(entry: &Entry) -> Result<RelPath, ArchiveError> {
    if entry.kind != Kind::File || entry.disk.is_empty() {
        return Ok(entry.path.clone());
    }
    RelPath::parse(&entry.disk).map_err(|error| ArchiveError::refused(&entry.path, error.to_string()))
}

fn plain(path: &RelPath, kind: Kind, source: Signature, copy: Signature) -> Entry {
    let (target, disk, first) = (Box::default(), Box::default(), RelPath::root());
    Entry { path: path.clone(), kind, source, copy, hash: None, xattrs: digest(&Vec::new()), target, disk, first }
}
