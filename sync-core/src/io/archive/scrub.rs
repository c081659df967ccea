//! Archived days are read again and compared with what was written.

use super::Archive;
use super::copy::shown;
use super::error::ArchiveError;
use super::manifest::{Entry, Reader, Writer, digest};
use super::moves::{SEALED, copy_of};
use super::walk::{self, Difference};
use crate::entry::{Hash, Kind};
use crate::io::fs::{Dir, FsError, Look, Replace, file_xattrs, finish_exactly, forget_cached, hash_file};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, with_buffer};
use crate::path::RelPath;
use std::fs::File;
use std::io::{Seek, SeekFrom};

/// Opens the file of a path elsewhere, which should have the bytes that it had here: those with this hash.
pub type Repair<'a> = &'a dyn Fn(&RelPath, Hash) -> Result<File, FsError>;

/// A file whose bytes are not those that were written, although nobody wrote to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub path: RelPath,
    /// What its bytes should be.
    pub hash: Hash,
    /// It was brought back from elsewhere.
    pub repaired: bool,
    /// Why it could not be.
    pub why: Option<String>,
}

/// What reading a day again showed.
#[derive(Debug, Default)]
pub struct Scrub {
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are damaged.
    pub damaged: Vec<Damage>,
    /// Files that were written to, or came, since the day was read last: they are known from now on.
    pub changed: u64,
    /// Names that went since.
    pub gone: u64,
    /// Files that cannot be read, and why.
    pub unreadable: Vec<(RelPath, String)>,
}

impl Archive<'_> {
    /// Reads an archived day from the disk and compares it with what was recorded when it was read last. What has no record yet gets one.
    /// `repair` opens a file that should have the bytes of a damaged one, wherever that is.
    ///
    /// # Errors
    /// The day is not archived, or not there.
    pub fn scrub(&self, path: &RelPath, repair: Option<Repair<'_>>) -> Result<Scrub, ArchiveError> {
        let placement = self.root.places().get(path).cloned();
        let placement = placement.ok_or_else(|| ArchiveError::refused(path, "is not archived"))?;
        let dir = placement.open()?;
        let private = placement.cold.private()?;
        let sealed = private.open_or_create(SEALED)?;
        let name = placement.stamp.to_string();
        let name = name.as_bytes();
        let new = [name, b".new"].concat();
        match sealed.unlink(&new) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
        let writer = Writer::new(sealed.create_file(&new)?, &sealed.locate(&new))?;
        let mut scrub = Scrubbing { archive: self, day: path, private, repair, writer, found: Scrub::default() };
        let mut known = match sealed.look(name)? {
            Some(_) => Reader::new(sealed.open_file(name)?, &sealed.locate(name))?,
            // It moved without a copy: all of it is read for the first time.
            None => {
                let empty = [name, b".none"].concat();
                match sealed.unlink(&empty) {
                    Err(error) if !error.is_missing() => return Err(error.into()),
                    _ => {}
                }
                Writer::new(sealed.create_file(&empty)?, &sealed.locate(&empty))?.finish()?;
                let reader = Reader::new(sealed.open_file(&empty)?, &sealed.locate(&empty))?;
                sealed.unlink(&empty)?;
                reader
            }
        };
        walk::compare(&dir, &mut known, copy_of, &mut |difference| scrub.each(difference, &dir))?;
        let Scrubbing { writer, found, .. } = scrub;
        writer.finish()?;
        sealed.rename(&new, &sealed, name, Replace::Always)?;
        sealed.sync()?;
        Ok(found)
    }
}

/// Puts a manifest under a name; it has reached the disk when the call returns.
pub(super) fn put(sealed: &Dir, name: &[u8], manifest: &mut File) -> Result<(), ArchiveError> {
    let new = [name, b".new"].concat();
    match sealed.unlink(&new) {
        Err(error) if !error.is_missing() => return Err(error.into()),
        _ => {}
    }
    let mut out = sealed.create_file(&new)?;
    let copied = manifest.seek(SeekFrom::Start(0)).and_then(|_| std::io::copy(manifest, &mut out)).and_then(|_| out.sync_all());
    copied.map_err(|source| FsError { action: "write", path: sealed.locate(&new), source })?;
    sealed.rename(&new, sealed, name, Replace::Always)?;
    Ok(sealed.sync()?)
}

struct Scrubbing<'a> {
    archive: &'a Archive<'a>,
    day: &'a RelPath,
    private: Dir,
    repair: Option<Repair<'a>>,
    writer: Writer,
    found: Scrub,
}

impl Scrubbing<'_> {
    fn each(&mut self, difference: Difference<'_>, top: &Dir) -> Result<(), ArchiveError> {
        if self.archive.monitor.cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        match difference {
            Difference::Gone(_) => {
                self.found.gone += 1;
                Ok(())
            }
            Difference::Same(entry) if entry.kind == Kind::File && entry.first.is_root() => self.file(entry, top),
            Difference::Same(entry) => self.writer.entry(&entry),
            // Its change time alone tells that somebody wrote, and took care that nothing else does: no program that edits.
            Difference::Changed(entry, _, look) if is_alike(&entry, &look) => {
                self.file(Entry { copy: look.signature, ..entry }, top)
            }
            Difference::Changed(entry, dir, look) => self.fresh(&entry.path, dir, &look),
            Difference::New(path, dir, look) => self.fresh(&path, dir, &look),
        }
    }

    /// Nobody wrote to it: its bytes must be those that it had.
    fn file(&mut self, entry: Entry, top: &Dir) -> Result<(), ArchiveError> {
        let Some((parent, name)) = entry.path.split() else { return self.writer.entry(&entry) };
        let dir = top.below(&parent)?;
        let read = read(&dir, name.as_bytes());
        self.found.files += 1;
        self.found.bytes += entry.copy.size;
        self.archive.monitor.advance(1, entry.copy.size);
        let whole = shown(self.day, &entry.path);
        let wanted = match (read, entry.hash) {
            (Ok(found), Some(wanted)) if found != wanted => wanted,
            // A disk that cannot read a file has damaged it as well.
            (Err(_), Some(wanted)) => wanted,
            _ => return self.writer.entry(&entry),
        };
        let mut damage = Damage { path: whole, hash: wanted, repaired: false, why: None };
        let mut entry = entry;
        if let Some(repair) = self.repair {
            match self.repair(&dir, name.as_bytes(), (&entry, wanted), repair(&damage.path, wanted)) {
                Ok(copy) => {
                    damage.repaired = true;
                    entry.copy = copy;
                }
                Err(error) => damage.why = Some(error.to_string()),
            }
        }
        self.found.damaged.push(damage);
        self.writer.entry(&entry)
    }

    /// Other bytes are brought only if they are the ones that were lost.
    fn repair(
        &self,
        dir: &Dir,
        name: &[u8],
        (entry, wanted): (&Entry, Hash),
        source: Result<File, FsError>,
    ) -> Result<crate::entry::Signature, ArchiveError> {
        let source = source?;
        let new = b"repair";
        walk::remove_tree(&self.private, new)?;
        let out = self.private.create_file_for(new, entry.source.mode)?;
        let failed = |source| FsError { action: "copy to", path: self.private.locate(new), source };
        let size = source.metadata().map_err(failed)?.len();
        let hash = with_buffer(|buffer| crate::io::fs::copy_sparse(&source, size, &out, buffer)).map_err(failed)?;
        if hash != wanted {
            self.private.unlink(new)?;
            return Err(ArchiveError::refused(&shown(self.day, &entry.path), "has other bytes there, too"));
        }
        let xattrs = file_xattrs(&dir.open_file(name)?, &dir.locate(name))?;
        finish_exactly(&out, &self.private.locate(new), &entry.copy.attrs(), &xattrs)?;
        out.sync_all().map_err(failed)?;
        self.private.rename(new, dir, name, Replace::Exchange)?;
        // Whoever replaced or wrote to it meanwhile has it back as it was.
        if !self.private.stat(new)?.is_some_and(|out| walk::is_untouched(&entry.copy, &out)) {
            self.private.rename(new, dir, name, Replace::Exchange)?;
            return Err(ArchiveError::Changed(shown(self.day, &entry.path)));
        }
        kill_point("archive-repaired");
        dir.sync()?;
        self.private.unlink(new)?;
        Ok(dir.stat(name)?.unwrap_or(entry.copy))
    }

    /// It came, or was written to: what it is now is what counts.
    fn fresh(&mut self, path: &RelPath, dir: &Dir, look: &Look) -> Result<(), ArchiveError> {
        let Some(kind) = kind_of(&look.signature) else { return Ok(()) };
        let name = path.name().ok_or_else(|| ArchiveError::refused(self.day, "has no name"))?;
        let (target, first) = (Box::default(), RelPath::root());
        let mut entry = Entry {
            path: path.clone(),
            kind,
            source: look.signature,
            copy: look.signature,
            hash: None,
            xattrs: digest(&Vec::new()),
            target,
            disk: Box::default(),
            first,
        };
        match kind {
            Kind::File => match read(dir, name.as_bytes()) {
                Ok(hash) => {
                    self.found.changed += 1;
                    self.found.files += 1;
                    self.found.bytes += look.signature.size;
                    entry.hash = Some(hash);
                }
                Err(error) => {
                    self.found.unreadable.push((shown(self.day, path), error.to_string()));
                    return Ok(());
                }
            },
            Kind::Symlink => {
                entry.target = dir.link_text(name.as_bytes())?;
                entry.disk = entry.target.clone();
            }
            Kind::Dir => {}
        }
        self.writer.entry(&entry)
    }
}

/// Is it a file with the size and the time that it had?
fn is_alike(entry: &Entry, look: &Look) -> bool {
    let (known, now) = (&entry.copy, &look.signature);
    let file = entry.kind == Kind::File && kind_of(now) == Some(Kind::File) && entry.hash.is_some();
    file && entry.first.is_root() && (known.size, known.mtime_ns) == (now.size, now.mtime_ns)
}

fn read(dir: &Dir, name: &[u8]) -> Result<Hash, FsError> {
    let mut file = dir.open_file(name)?;
    forget_cached(&file, &dir.locate(name))?;
    let read = with_buffer(|buffer| hash_file(&mut file, buffer));
    read.map(|(_, hash)| hash).map_err(|source| FsError { action: "read", path: dir.locate(name), source })
}
