//! Copies a day to another place with everything that it has, and reads the copy back.

use super::error::ArchiveError;
use super::manifest::{Entry, Reader, Writer, digest};
use super::walk::{is_same, sorted};
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::{
    Dir, FsError, Look, coarse_now_ns, copy_sparse_while, file_signature, file_xattrs, finish_exactly, forget_cached, hash_file,
};
use crate::io::kill::kill_point;
use crate::io::source::kind_of;
use crate::path::{Name, RelPath};
use crate::report::Monitor;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// How a link reads in the copy: its text, and its path below the day.
pub(super) type LinkText<'a> = &'a dyn Fn(&[u8], &RelPath) -> Result<Box<[u8]>, ArchiveError>;

/// A copy being made.
pub(super) struct Copy<'a> {
    pub(super) day: &'a RelPath,
    /// The top of the copy.
    pub(super) top: &'a Dir,
    pub(super) manifest: Writer,
    pub(super) link_text: LinkText<'a>,
    pub(super) monitor: &'a dyn Monitor,
    /// Finest step of the source's change times, ns.
    pub(super) granularity_ns: i64,
    /// Files that have several names, by inode: their first one.
    first: HashMap<u64, First>,
    pub(super) buffer: Vec<u8>,
}

/// The first name of a file that has several: below the day, with the hashes of content and extended attributes.
#[derive(Clone)]
struct First {
    path: RelPath,
    hash: Hash,
    xattrs: Hash,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        day: &'a RelPath,
        (top, manifest): (&'a Dir, Writer),
        link_text: LinkText<'a>,
        (monitor, granularity_ns): (&'a dyn Monitor, i64),
    ) -> Copy<'a> {
        let (first, buffer) = (HashMap::new(), vec![0; BUFFER_BYTES]);
        Copy { day, top, manifest, link_text, monitor, granularity_ns, first, buffer }
    }

    /// Copies all of `source`; the manifest is complete and durable when the call returns, the copy is not.
    pub(super) fn run(mut self, source: &Dir) -> Result<(), ArchiveError> {
        self.dir(source, self.top, &RelPath::root())?;
        kill_point("archive-copied");
        self.manifest.finish()
    }

    fn dir(&mut self, source: &Dir, target: &Dir, path: &RelPath) -> Result<(), ArchiveError> {
        let before = source.stat_self()?;
        let xattrs = source.xattrs()?;
        // As it will be when all that is in it is there.
        let copy = Signature { mode: before.mode, uid: before.uid, gid: before.gid, ..target.stat_self()? };
        let digest = digest(&xattrs);
        // Another change in this tick of the clock would bear the same time: it is looked at again.
        let seen = if self.is_racy(&before) { Signature { ctime_ns: i64::MIN, ..before } } else { before };
        self.manifest.entry(&Entry { xattrs: digest, ..plain(path.clone(), Kind::Dir, seen, copy) })?;
        for name in sorted(source)? {
            if self.monitor.cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            let parsed = Name::parse(&name).map_err(|error| self.refused(path, &error.to_string()))?;
            let child = path.join(&parsed);
            let Some(look) = source.look(&name)? else { return Err(self.changed(&child)) };
            match kind_of(&look.signature) {
                Some(Kind::Dir) => self.dir(&source.open_dir(&name)?, &target.create_dir(&name)?, &child)?,
                Some(Kind::File) => self.file((source, &name), target, &child, &look)?,
                Some(Kind::Symlink) => self.link((source, &name), target, &child, &look)?,
                None => return Err(self.refused(&child, "is a device, pipe or socket")),
            }
        }
        let after = source.stat_self()?;
        if (before.mtime_ns, before.ctime_ns, before.mode) != (after.mtime_ns, after.ctime_ns, after.mode) {
            return Err(self.changed(path));
        }
        target.finish_exactly(&before.attrs(), &xattrs)?;
        Ok(())
    }

    fn file(&mut self, (source, name): (&Dir, &[u8]), target: &Dir, path: &RelPath, look: &Look) -> Result<(), ArchiveError> {
        if let Some(first) = (look.links > 1).then(|| self.first.get(&look.signature.ino).cloned()).flatten() {
            return self.other_name(target, name, (path, &first), look);
        }
        let (file, before) = source.open_file_seen(name)?;
        if !is_same(&look.signature, &before) || self.is_racy(&before) {
            return Err(self.changed(path));
        }
        let out = target.create_file_for(name, before.mode)?;
        kill_point("archive-file-created");
        let failed = |source| FsError { action: "copy to", path: target.locate(name), source };
        // A large file is stopped within, too: whoever ends the run waits for it.
        let goes_on = || !self.monitor.cancelled();
        let hash = match copy_sparse_while(&file, before.size, &out, &mut self.buffer, &goes_on) {
            Err(_) if !goes_on() => return Err(ArchiveError::Cancelled),
            copied => copied.map_err(failed)?,
        };
        let xattrs = file_xattrs(&file, &source.locate(name))?;
        let after = file_signature(&file, &source.locate(name))?;
        if !is_same(&before, &after) {
            return Err(self.changed(path));
        }
        kill_point("archive-file-written");
        let copy = finish_exactly(&out, &target.locate(name), &before.attrs(), &xattrs)?;
        let xattrs = digest(&xattrs);
        if look.links > 1 {
            self.first.insert(before.ino, First { path: path.clone(), hash, xattrs });
        }
        self.monitor.advance(1, before.size);
        let entry = plain(path.clone(), Kind::File, before, copy);
        self.manifest.entry(&Entry { hash: Some(hash), xattrs, ..entry })
    }

    /// Another name of a file that was copied already.
    fn other_name(
        &mut self,
        target: &Dir,
        name: &[u8],
        (path, first): (&RelPath, &First),
        look: &Look,
    ) -> Result<(), ArchiveError> {
        let (parent, first_name) = first.path.split().ok_or_else(|| self.refused(path, "has no name"))?;
        self.top.below(&parent)?.hard_link(first_name.as_bytes(), target, name)?;
        let copy = target.stat(name)?.ok_or_else(|| self.changed(path))?;
        self.monitor.advance(1, 0);
        let entry = plain(path.clone(), Kind::File, look.signature, copy);
        self.manifest.entry(&Entry { hash: Some(first.hash), xattrs: first.xattrs, first: first.path.clone(), ..entry })
    }

    fn link(&mut self, (source, name): (&Dir, &[u8]), target: &Dir, path: &RelPath, look: &Look) -> Result<(), ArchiveError> {
        let text = source.link_text(name)?;
        let disk = (self.link_text)(&text, path)?;
        let xattrs = source.link_xattrs(name)?;
        if source.look(name)?.is_none_or(|now| !is_same(&look.signature, &now.signature)) {
            return Err(self.changed(path));
        }
        target.create_symlink(name, &disk)?;
        target.finish_link(name, &look.signature.attrs(), &xattrs)?;
        let copy = target.stat(name)?.ok_or_else(|| self.changed(path))?;
        let entry = plain(path.clone(), Kind::Symlink, look.signature, copy);
        self.manifest.entry(&Entry { xattrs: digest(&xattrs), target: text, disk, ..entry })
    }

    /// Could another change in this tick of the clock bear the same times?
    fn is_racy(&self, seen: &Signature) -> bool {
        self.granularity_ns > 0 && seen.ctime_ns >= coarse_now_ns().saturating_sub(self.granularity_ns)
    }

    fn changed(&self, path: &RelPath) -> ArchiveError {
        ArchiveError::Changed(shown(self.day, path))
    }

    fn refused(&self, path: &RelPath, why: &str) -> ArchiveError {
        ArchiveError::refused(&shown(self.day, path), why)
    }
}

/// The path in the root of something in a day.
pub(super) fn shown(day: &RelPath, path: &RelPath) -> RelPath {
    path.rebase(&RelPath::root(), day).unwrap_or_else(|| day.clone())
}

fn plain(path: RelPath, kind: Kind, source: Signature, copy: Signature) -> Entry {
    let (target, disk) = (Box::default(), Box::default());
    Entry { path, kind, source, copy, hash: None, xattrs: digest(&Vec::new()), target, disk, first: RelPath::root() }
}

/// Reads a copy back, from the disk where the system lets go of what it holds, and compares all that was kept. Returns how long that
/// took.
pub(super) fn reread(top: &Dir, manifest: &mut Reader, monitor: &dyn Monitor) -> Result<Duration, ArchiveError> {
    let began = Instant::now();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut open: Option<(RelPath, Dir)> = None;
    while let Some(entry) = manifest.next()? {
        if monitor.cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        let Some((parent, name)) = entry.path.split() else {
            check_dir(top, &entry)?;
            continue;
        };
        if open.as_ref().is_none_or(|(path, _)| *path != parent) {
            open = Some((parent.clone(), top.below(&parent)?));
        }
        let Some((_, dir)) = &open else { continue };
        let name = name.as_bytes();
        match entry.kind {
            Kind::Dir => check_dir(&dir.open_dir(name)?, &entry)?,
            Kind::Symlink => {
                let same = dir.link_text(name)? == entry.disk && digest(&dir.link_xattrs(name)?) == entry.xattrs;
                check(same && equal(&entry, &dir.stat(name)?.unwrap_or_default()), || dir.locate(name))?;
            }
            Kind::File if entry.first.is_root() => check_file(dir, name, &entry, (&mut buffer, monitor))?,
            Kind::File => {
                let now = dir.stat(name)?.unwrap_or_default();
                check(now.ino == entry.copy.ino && equal(&entry, &now), || dir.locate(name))?;
            }
        }
    }
    kill_point("archive-reread");
    Ok(began.elapsed())
}

fn check_file(dir: &Dir, name: &[u8], entry: &Entry, (buffer, monitor): (&mut [u8], &dyn Monitor)) -> Result<(), ArchiveError> {
    let path = || dir.locate(name);
    let (file, now) = dir.open_file_seen(name)?;
    forget_cached(&file, &path())?;
    let read = match hash_file(&mut Stoppable { file: &file, monitor }, buffer) {
        Err(_) if monitor.cancelled() => return Err(ArchiveError::Cancelled),
        read => read.map_err(|source| FsError { action: "read", path: path(), source })?,
    };
    check(read == (entry.source.size, entry.hash.unwrap_or(Hash([0; 32]))), path)?;
    check(equal(entry, &now) && digest(&file_xattrs(&file, &path())?) == entry.xattrs, path)
}

fn check_dir(dir: &Dir, entry: &Entry) -> Result<(), ArchiveError> {
    check(equal(entry, &dir.stat_self()?) && digest(&dir.xattrs()?) == entry.xattrs, || dir.path().to_owned())
}

/// A file whose reading can be stopped between two reads.
struct Stoppable<'a> {
    file: &'a File,
    monitor: &'a dyn Monitor,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.monitor.cancelled() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(buffer)
    }
}

/// Are the attributes of a copy those of what was copied?
fn equal(entry: &Entry, now: &Signature) -> bool {
    now.attrs() == entry.source.attrs()
}

fn check(holds: bool, path: impl Fn() -> PathBuf) -> Result<(), ArchiveError> {
    if holds { Ok(()) } else { Err(ArchiveError::Corrupt(path())) }
}
