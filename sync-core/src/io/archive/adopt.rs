//! A day that is in the cold root already, with the same bytes: brought by another server that shares it, or by hand.

use super::Archive;
use super::copy::{LinkText, shown};
use super::error::ArchiveError;
use super::job::{Job, Phase};
use super::manifest::{Entry, Writer, digest};
use super::walk::{is_same, sorted};
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::{Cold, Dir, FsError, Look, file_signature, file_xattrs, finish_exactly, forget_cached, hash_file};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, with_buffer};
use crate::path::{Name, RelPath};
use std::sync::Arc;

impl Archive<'_> {
    /// Compares a day with what stands in the cold root, byte by byte; if they are equal, that is taken for its copy. Times, owners
    /// and modes become those of the day.
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
        let writer = job.new_manifest(&self.jobs)?;
        let mut pair = Pair { day: &job.path, text, manifest: writer, granularity_ns: self.granularity_ns };
        pair.dir(source, &there, &RelPath::root())?;
        pair.manifest.finish()?;
        kill_point("archive-adopt-compared");
        job.take_manifest(&self.jobs)?;
        there.sync_all()?;
        job.new = there.stat_self()?.ino;
        job.enter(&self.jobs, Phase::Ready)?;
        kill_point("archive-adopt-ready");
        self.publish(job, cold)
    }
}

struct Pair<'a> {
    day: &'a RelPath,
    text: LinkText<'a>,
    manifest: Writer,
    granularity_ns: i64,
}

impl Pair<'_> {
    fn dir(&mut self, here: &Dir, there: &Dir, path: &RelPath) -> Result<(), ArchiveError> {
        let (own, copy) = (here.stat_self()?, there.stat_self()?);
        let xattrs = here.xattrs()?;
        let entry = entry(path, Kind::Dir, own, copy);
        self.manifest.entry(&Entry { xattrs: digest(&xattrs), ..entry })?;
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
                (Some(Kind::Dir), Some(Kind::Dir)) => self.dir(&here.open_dir(&name)?, &there.open_dir(&name)?, &child)?,
                (Some(Kind::File), Some(Kind::File)) => self.file((here, there, &name), &child, (&one, &other))?,
                (Some(Kind::Symlink), Some(Kind::Symlink)) => self.link((here, there, &name), (&child, path), (&one, &other))?,
                _ => return Err(self.differs(&child, "is something else there")),
            }
        }
        if copy.attrs() != own.attrs() {
            there.finish_exactly(&own.attrs(), &xattrs)?;
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
        if one.links != other.links {
            return Err(self.differs(path, "has another number of names there"));
        }
        if seen.size != other.signature.size {
            return Err(self.differs(path, "has another size there"));
        }
        let (file, hash) = read(here, name, false)?;
        let (copy, same) = read(there, name, true)?;
        if hash != same {
            return Err(self.differs(path, "holds other bytes there"));
        }
        if !is_same(&seen, &file_signature(&file, &here.locate(name))?) {
            return Err(ArchiveError::Changed(shown(self.day, path)));
        }
        let xattrs = file_xattrs(&file, &here.locate(name))?;
        let now = match other.signature.attrs() == seen.attrs() {
            true => file_signature(&copy, &there.locate(name))?,
            false => finish_exactly(&copy, &there.locate(name), &seen.attrs(), &xattrs)?,
        };
        if file_xattrs(&copy, &there.locate(name))? != xattrs {
            return Err(self.differs(path, "has other extended attributes there"));
        }
        self.manifest.entry(&Entry { hash: Some(hash), xattrs: digest(&xattrs), ..entry(path, Kind::File, seen, now) })
    }

    fn link(
        &mut self,
        (here, there, name): (&Dir, &Dir, &[u8]),
        (path, dir): (&RelPath, &RelPath),
        (one, other): (&Look, &Look),
    ) -> Result<(), ArchiveError> {
        let (target, disk) = (here.link_text(name)?, there.link_text(name)?);
        if (self.text)(&target, dir)? != disk {
            return Err(self.differs(path, "is another link there"));
        }
        let xattrs = here.link_xattrs(name)?;
        if other.signature.attrs() != one.signature.attrs() {
            there.finish_link(name, &one.signature.attrs(), &xattrs)?;
        }
        let copy = there.stat(name)?.unwrap_or(other.signature);
        let entry = entry(path, Kind::Symlink, one.signature, copy);
        self.manifest.entry(&Entry { xattrs: digest(&xattrs), target, disk, ..entry })
    }

    fn differs(&self, path: &RelPath, how: &str) -> ArchiveError {
        let path = shown(self.day, path);
        ArchiveError::refused(
            self.day,
            format!("is in the cold root already, with other content ({path} {how}): both stay as they are"),
        )
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
