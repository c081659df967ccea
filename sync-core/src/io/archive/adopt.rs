//! A day that is in the cold root already, with the same bytes: brought by another server that shares it, or by hand. All of it is
//! compared before anything there is touched.

use super::Archive;
use super::copy::{LinkText, shown};
use super::error::ArchiveError;
use super::job::{Job, Phase};
use super::manifest::{Entry, Reader, Writer, digest};
use super::walk::{is_same, sorted};
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::{Cold, Dir, FsError, Look, Xattrs, file_signature, file_xattrs, finish_exactly, forget_cached, hash_file};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, with_buffer};
use crate::path::{Name, RelPath};
use std::collections::HashMap;
use std::sync::Arc;

impl Archive<'_> {
    /// Compares a day with what stands in the cold root, byte by byte; if they are equal, that is taken for its copy. Times, owners
    /// and modes become those of the day, and extended attributes that are missing there are added. On any difference nothing is changed.
    pub(super) fn adopt(&self, job: &mut Job, cold: &Arc<Cold>, source: &Dir, text: LinkText<'_>) -> Result<(), ArchiveError> {
        if cold.is_stamped_by_others(&job.path)? {
            return Err(ArchiveError::refused(
                &job.path,
                "cannot move: what stands in its place in the cold root belongs to another folder, which has a link to it",
            ));
        }
        let there = cold.below(&job.path)?;
        if there.mount()? != cold.dir()?.mount()? {
            return Err(ArchiveError::refused(
                &job.path,
                "cannot move: another file system is mounted at its place in the cold root",
            ));
        }
        if let Err(error) = self.match_copy(job, &there, source, text) {
            let in_change = match &error {
                // It was equal to what an earlier move left there a moment before: the next look puts that aside.
                ArchiveError::Refused { .. } => !self.jobs_that_brought_back(&job.path, cold)?.is_empty(),
                // It went between two looks.
                ArchiveError::Fs(error) => error.is_missing(),
                _ => false,
            };
            return Err(if in_change { ArchiveError::Changed(job.path.clone()) } else { error });
        }
        kill_point("archive-adopt-ready");
        self.publish(job, cold)
    }

    /// Compares, and makes what stands there like the day in what is not bytes.
    fn match_copy(&self, job: &mut Job, there: &Dir, source: &Dir, text: LinkText<'_>) -> Result<(), ArchiveError> {
        let manifest = job.new_manifest(&self.jobs)?;
        let names = [HashMap::new(), HashMap::new()];
        let mut pair = Pair { day: &job.path, text, manifest, granularity_ns: self.granularity_ns, names };
        pair.dir(source, there, &RelPath::root())?;
        pair.manifest.finish()?;
        kill_point("archive-adopt-compared");
        job.take_manifest(&self.jobs)?;
        self.check_before_move(job)?;
        let dressing = Dressing { day: &job.path, here: source, there };
        dressing.put_on(&mut job.manifest(&self.jobs)?)?;
        kill_point("archive-adopt-dressed");
        let mut manifest = job.new_manifest(&self.jobs)?;
        dressing.note(&mut job.manifest(&self.jobs)?, &mut manifest)?;
        manifest.finish()?;
        job.take_manifest(&self.jobs)?;
        there.sync_all()?;
        job.new = there.stat_self()?.ino;
        job.enter(&self.jobs, Phase::Ready)
    }
}

/// A day and what stands in the cold root, side by side.
struct Pair<'a> {
    day: &'a RelPath,
    text: LinkText<'a>,
    manifest: Writer,
    granularity_ns: i64,
    /// Of files with several names, which inode there belongs to which one here, and the other way round.
    names: [HashMap<u64, u64>; 2],
}

impl Pair<'_> {
    fn dir(&mut self, here: &Dir, there: &Dir, path: &RelPath) -> Result<(), ArchiveError> {
        let (own, copy) = (here.stat_self()?, there.stat_self()?);
        let xattrs = here.xattrs()?;
        self.compare_xattrs(path, &xattrs, &there.xattrs()?)?;
        self.manifest.entry(&Entry { xattrs: digest(&xattrs), ..entry(path, Kind::Dir, own, copy) })?;
        let names = sorted(here)?;
        if names != sorted(there)? {
            return Err(self.differs(path, "holds other names"));
        }
        for name in names {
            let parsed = Name::parse(&name).map_err(|error| ArchiveError::refused(path, error.to_string()))?;
            let child = path.join(&parsed);
            let (Some(one), Some(other)) = (here.look(&name)?, there.look(&name)?) else {
                return Err(ArchiveError::Changed(shown(self.day, &child)));
            };
            match (kind_of(&one.signature), kind_of(&other.signature)) {
                (Some(Kind::Dir), Some(Kind::Dir)) => {
                    let below = there.open_dir(&name)?;
                    if below.mount()? != there.mount()? {
                        return Err(self.differs(&child, "lies on another file system there"));
                    }
                    self.dir(&here.open_dir(&name)?, &below, &child)?;
                }
                (Some(Kind::File), Some(Kind::File)) => self.file((here, there, &name), &child, (&one, &other))?,
                (Some(Kind::Symlink), Some(Kind::Symlink)) => self.link((here, there, &name), &child, (&one, &other))?,
                _ => return Err(self.differs(&child, "is something else there")),
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        (here, there, name): (&Dir, &Dir, &[u8]),
        path: &RelPath,
        (one, other): (&Look, &Look),
    ) -> Result<(), ArchiveError> {
        let seen = one.signature;
        if self.granularity_ns > 0 && seen.ctime_ns >= crate::io::fs::coarse_now_ns().saturating_sub(self.granularity_ns) {
            return Err(ArchiveError::Changed(shown(self.day, path)));
        }
        // Files that share their bytes with others change with them.
        if one.links != other.links || !self.is_one_group(one, other) {
            return Err(self.differs(path, "has other names there"));
        }
        if seen.size != other.signature.size {
            return Err(self.differs(path, "has another size there"));
        }
        let (file, hash) = read(here, name, false)?;
        let (copy, same) = read(there, name, true)?;
        if hash != same {
            return Err(self.differs(path, "holds other bytes there"));
        }
        let xattrs = file_xattrs(&file, &here.locate(name))?;
        self.compare_xattrs(path, &xattrs, &file_xattrs(&copy, &there.locate(name))?)?;
        let now = file_signature(&copy, &there.locate(name))?;
        if !is_same(&seen, &file_signature(&file, &here.locate(name))?) || !is_same(&other.signature, &now) {
            return Err(ArchiveError::Changed(shown(self.day, path)));
        }
        self.manifest.entry(&Entry { hash: Some(hash), xattrs: digest(&xattrs), ..entry(path, Kind::File, seen, now) })
    }

    /// Do the names of a file here belong to one file there, too, and no others?
    fn is_one_group(&mut self, one: &Look, other: &Look) -> bool {
        let [to, back] = &mut self.names;
        let (here, there) = (one.signature.ino, other.signature.ino);
        one.links == 1 || (*to.entry(here).or_insert(there) == there && *back.entry(there).or_insert(here) == here)
    }

    fn link(
        &mut self,
        (here, there, name): (&Dir, &Dir, &[u8]),
        path: &RelPath,
        (one, other): (&Look, &Look),
    ) -> Result<(), ArchiveError> {
        let (target, disk) = (here.link_text(name)?, there.link_text(name)?);
        if (self.text)(&target, path)? != disk {
            return Err(self.differs(path, "is another link there"));
        }
        let xattrs = here.link_xattrs(name)?;
        self.compare_xattrs(path, &xattrs, &there.link_xattrs(name)?)?;
        let entry = entry(path, Kind::Symlink, one.signature, other.signature);
        self.manifest.entry(&Entry { xattrs: digest(&xattrs), target, disk, ..entry })
    }

    /// What is there must be here with the same value; what is missing there can be added.
    fn compare_xattrs(&self, path: &RelPath, here: &Xattrs, there: &Xattrs) -> Result<(), ArchiveError> {
        match there.iter().all(|pair| here.contains(pair)) {
            true => Ok(()),
            false => Err(self.differs(path, "has other extended attributes there")),
        }
    }

    fn differs(&self, path: &RelPath, how: &str) -> ArchiveError {
        let path = shown(self.day, path);
        ArchiveError::refused(
            self.day,
            format!("is in the cold root already, with other content ({path} {how}): both stay as they are"),
        )
    }
}

/// What stands in the cold root gets the attributes of the day, after all else was found to be equal.
struct Dressing<'a> {
    day: &'a RelPath,
    here: &'a Dir,
    there: &'a Dir,
}

impl Dressing<'_> {
    /// Sets what differs. The times of a directory change with nothing that is done in it here.
    fn put_on(&self, manifest: &mut Reader) -> Result<(), ArchiveError> {
        while let Some(entry) = manifest.next()? {
            let attrs = entry.source.attrs();
            let Some((parent, name)) = entry.path.split() else {
                self.dress_dir(&entry, self.here, self.there)?;
                continue;
            };
            let (here, there, name) = (self.here.below(&parent)?, self.there.below(&parent)?, name.as_bytes());
            let changed = || ArchiveError::Changed(shown(self.day, &entry.path));
            let now = there.stat(name)?.filter(|now| now.ino == entry.copy.ino).ok_or_else(changed)?;
            match entry.kind {
                Kind::Dir => self.dress_dir(&entry, &here.open_dir(name)?, &there.open_dir(name)?)?,
                Kind::File => {
                    let (file, copy) = (here.open_file(name)?, there.open_file(name)?);
                    let xattrs = file_xattrs(&file, &here.locate(name))?;
                    if now.attrs() != attrs || file_xattrs(&copy, &there.locate(name))? != xattrs {
                        finish_exactly(&copy, &there.locate(name), &attrs, &xattrs)?;
                    }
                }
                Kind::Symlink => {
                    let xattrs = here.link_xattrs(name)?;
                    if now.attrs() != attrs || there.link_xattrs(name)? != xattrs {
                        there.finish_link(name, &attrs, &xattrs)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn dress_dir(&self, entry: &Entry, here: &Dir, there: &Dir) -> Result<(), ArchiveError> {
        let (attrs, xattrs) = (entry.source.attrs(), here.xattrs()?);
        if there.stat_self()?.attrs() != attrs || there.xattrs()? != xattrs {
            there.finish_exactly(&attrs, &xattrs)?;
        }
        Ok(())
    }

    /// What the copies are now: the attributes of one name are those of all names of a file.
    fn note(&self, manifest: &mut Reader, out: &mut Writer) -> Result<(), ArchiveError> {
        while let Some(mut entry) = manifest.next()? {
            let now = match entry.path.split() {
                None => Some(self.there.stat_self()?),
                Some((parent, name)) => self.there.below(&parent)?.stat(name.as_bytes())?,
            };
            let same = |now: &Signature| now.ino == entry.copy.ino && now.size == entry.copy.size;
            entry.copy = now
                .filter(|now| entry.kind == Kind::Dir || same(now))
                .ok_or_else(|| ArchiveError::Changed(shown(self.day, &entry.path)))?;
            out.entry(&entry)?;
        }
        Ok(())
    }
}

fn read(dir: &Dir, name: &[u8], anew: bool) -> Result<(std::fs::File, Hash), ArchiveError> {
    let mut file = dir.open_file(name)?;
    if anew {
        forget_cached(&file, &dir.locate(name))?;
    }
    let hash = with_buffer(|buffer| hash_file(&mut file, buffer));
    let (_, hash) = hash.map_err(|source| FsError { action: "read", path: dir.locate(name), source })?;
    Ok((file, hash))
}

fn entry(path: &RelPath, kind: Kind, source: Signature, copy: Signature) -> Entry {
    let (target, disk, first) = (Box::default(), Box::default(), RelPath::root());
    Entry { path: path.clone(), kind, source, copy, hash: None, xattrs: digest(&Vec::new()), target, disk, first }
}
