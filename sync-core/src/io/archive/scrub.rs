//! Archived days are read again and compared with what was written.

use super::Archive;
use super::copy::shown;
use super::error::ArchiveError;
use super::manifest::{Entry, Reader, Writer, digest};
use super::moves::{SEALED, copy_of};
use super::repair::Repairs;
use super::walk::{self, Difference};
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::{ColdId, Dir, FsError, Look, Replace, coarse_now_ns, file_signature, forget_cached, hash_file};
use crate::io::source::{kind_of, with_buffer};
use crate::path::RelPath;
use crate::report::Monitor;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read};

/// Behind the name of a manifest that is not whole.
const NEW: &[u8] = b".new";
/// Behind the name of an empty one, in the place of one that is not there.
const NONE: &[u8] = b".none";

/// Opens the file of a path elsewhere, which should have the bytes that it had here: those with this hash, and as many.
pub type Repair<'a> = &'a dyn Fn(&RelPath, Hash, u64) -> Result<File, FsError>;

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
    /// It was stopped: this is what was found until then, and what was recorded of the day before is all that is recorded.
    pub interrupted: bool,
}

impl Archive<'_> {
    /// Reads an archived day from the disk and compares it with what was recorded when it was read last. What has no record yet gets one.
    /// `repair` opens a file that should have the bytes of a damaged one, wherever that is; it is not asked where a repair would be refused.
    /// Once it is to stop it ends within a file, too.
    ///
    /// # Errors
    /// The day is not archived, or not there.
    pub fn scrub(&self, path: &RelPath, repair: Option<Repair<'_>>) -> Result<Scrub, ArchiveError> {
        self.scrub_of(path, None, repair)
    }

    /// As [`Archive::scrub`], of some files of the day alone: those that were damaged when it was read last. What is known of the others
    /// stays.
    ///
    /// # Errors
    /// As [`Archive::scrub`].
    pub fn mend(&self, day: &RelPath, files: &BTreeSet<RelPath>, repair: Repair<'_>) -> Result<Scrub, ArchiveError> {
        self.scrub_of(day, Some(files), Some(repair))
    }

    fn scrub_of(
        &self,
        path: &RelPath,
        only: Option<&BTreeSet<RelPath>>,
        repair: Option<Repair<'_>>,
    ) -> Result<Scrub, ArchiveError> {
        let placement = self.root.places().get(path).cloned();
        let placement = placement.ok_or_else(|| ArchiveError::refused(path, "is not archived"))?;
        let dir = placement.open()?;
        let private = placement.cold.private()?;
        let sealed = private.open_or_create(SEALED)?;
        let name = placement.stamp.to_string();
        let name = name.as_bytes();
        let (half, writer) = Half::begin(&sealed, [name, NEW].concat())?;
        let repairs = Repairs::begin(self, &placement, (&dir, &private))?;
        let (found, repaired) = (Scrub::default(), HashSet::new());
        let mut scrub = Scrubbing { archive: self, day: path, only, repair, repairs, repaired, writer, found };
        let mut known = match sealed.look(name)? {
            Some(_) => Reader::new(sealed.open_file(name)?, &sealed.locate(name))?,
            // It moved without a copy: all of it is read for the first time.
            None => {
                let (empty, nothing) = Half::begin(&sealed, [name, NONE].concat())?;
                nothing.finish()?;
                Reader::new(sealed.open_file(&empty.name)?, &sealed.locate(&empty.name))?
            }
        };
        let interrupted = match walk::compare(&dir, &mut known, copy_of, &mut |difference| scrub.each(difference, &dir)) {
            Err(ArchiveError::Cancelled) => true,
            compared => compared.map(|()| false)?,
        };
        let Scrubbing { writer, found, repairs, .. } = scrub;
        repairs.end();
        if interrupted {
            return Ok(Scrub { interrupted, ..found });
        }
        writer.finish()?;
        half.takes_place_of(name)?;
        Ok(found)
    }
}

/// A record that is being written. It goes again where it does not come to be whole; what a crash leaves, the next one removes.
struct Half<'a> {
    dir: &'a Dir,
    name: Vec<u8>,
    whole: bool,
}

impl<'a> Half<'a> {
    fn begin(dir: &'a Dir, name: Vec<u8>) -> Result<(Half<'a>, Writer), ArchiveError> {
        match dir.unlink(&name) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
        let half = Half { dir, name, whole: false };
        let writer = Writer::new(dir.create_file(&half.name)?, &dir.locate(&half.name))?;
        Ok((half, writer))
    }

    /// Durably, when the call returns.
    fn takes_place_of(mut self, name: &[u8]) -> Result<(), ArchiveError> {
        self.dir.rename(&self.name, self.dir, name, Replace::Always)?;
        self.whole = true;
        Ok(self.dir.sync()?)
    }
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        if !self.whole {
            // Where that fails, it is as after a crash; what led here is told.
            let _ = self.dir.unlink(&self.name);
        }
    }
}

/// Puts a manifest of what lies in `top` under a name; it has reached the disk when the call returns. Each further name that a file gets
/// moves its change time: of such files it tells what they are now. `open` begins with the first entry each time.
pub(super) fn seal(
    sealed: &Dir,
    name: &[u8],
    top: &Dir,
    open: &dyn Fn() -> Result<Reader, ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut several = HashSet::new();
    let mut entries = open()?;
    while let Some(entry) = entries.next()? {
        if !entry.first.is_root() {
            several.insert(entry.first);
        }
    }
    let (half, mut out) = Half::begin(sealed, [name, NEW].concat())?;
    let mut entries = open()?;
    while let Some(mut entry) = entries.next()? {
        if (!entry.first.is_root() || several.contains(&entry.path))
            && let Some((parent, name)) = entry.path.split()
            && let Some(now) = top.below(&parent)?.stat(name.as_bytes())?
            && walk::is_untouched(&entry.copy, &now)
        {
            entry.copy = now;
        }
        out.entry(&entry)?;
    }
    out.finish()?;
    half.takes_place_of(name)
}

/// Nothing is known any more of what a placement brought there, of which this is the stamp; also if that was half written.
pub(super) fn forget_manifest(private: &Dir, stamp: ColdId) -> Result<(), ArchiveError> {
    let sealed = private.open_or_create(SEALED)?;
    let name = stamp.to_string().into_bytes();
    for name in [[&name[..], NEW].concat(), [&name[..], NONE].concat(), name] {
        match sealed.unlink(&name) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

struct Scrubbing<'a> {
    archive: &'a Archive<'a>,
    day: &'a RelPath,
    /// All files, or these.
    only: Option<&'a BTreeSet<RelPath>>,
    repair: Option<Repair<'a>>,
    repairs: Repairs<'a>,
    /// Inodes of files that were repaired: their further names come later.
    repaired: HashSet<u64>,
    writer: Writer,
    found: Scrub,
}

impl Scrubbing<'_> {
    fn each(&mut self, difference: Difference<'_>, top: &Dir) -> Result<(), ArchiveError> {
        if self.archive.monitor.cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        let Some(difference) = self.in_question(difference)? else { return Ok(()) };
        match difference {
            Difference::Gone(_) => {
                self.found.gone += 1;
                Ok(())
            }
            Difference::Same(entry) if entry.kind != Kind::File => self.writer.entry(&entry),
            // Further names of a file say what its first one does.
            Difference::Same(entry) if !entry.first.is_root() && is_one_file(top, &entry)? => self.writer.entry(&entry),
            Difference::Same(entry) => self.file(Entry { first: RelPath::root(), ..entry }, top),
            // Whoever changes a file moves its change time, whatever other times he puts back: what it is now was meant.
            Difference::Changed(entry, dir, look) => {
                let known = entry.hash.filter(|_| is_alike(&entry, &look) || self.repaired.contains(&look.signature.ino));
                self.fresh(&entry.path, dir, (&look, known))
            }
            Difference::New(path, dir, look) => self.fresh(&path, dir, (&look, None)),
        }
    }

    /// Of what is not looked at this time, what was known stays, and what came is left to the next time.
    fn in_question<'d>(&mut self, difference: Difference<'d>) -> Result<Option<Difference<'d>>, ArchiveError> {
        let Some(only) = self.only else { return Ok(Some(difference)) };
        match &difference {
            Difference::Same(entry) if !only.contains(&shown(self.day, &entry.path)) => self.writer.entry(entry)?,
            // The further names of what was repaired just now are other ones than before, too.
            Difference::Changed(entry, _, look)
                if !only.contains(&shown(self.day, &entry.path)) && !self.repaired.contains(&look.signature.ino) =>
            {
                self.writer.entry(entry)?;
            }
            Difference::New(..) | Difference::Gone(_) => {}
            Difference::Same(_) | Difference::Changed(..) => return Ok(Some(difference)),
        }
        Ok(None)
    }

    /// Nobody wrote to it: its bytes must be those that it had.
    fn file(&mut self, entry: Entry, top: &Dir) -> Result<(), ArchiveError> {
        let Some((parent, name)) = entry.path.split() else { return self.writer.entry(&entry) };
        let dir = top.below(&parent)?;
        let Some(wanted) = entry.hash else {
            let Some(look) = dir.look(name.as_bytes())? else { return Ok(()) };
            return self.fresh(&entry.path, &dir, (&look, None));
        };
        match read(&dir, name.as_bytes(), self.archive.monitor) {
            Err(ArchiveError::Cancelled) => return Err(ArchiveError::Cancelled),
            Ok((found, seen)) if found == wanted && walk::is_same(&entry.copy, &seen) => {
                self.count(entry.copy.size);
                return self.writer.entry(&entry);
            }
            // Somebody is writing to it: no damage, and read again by the next look.
            Ok((_, seen)) if !walk::is_same(&entry.copy, &seen) => {
                self.count(seen.size);
                self.found.changed += 1;
                return self.writer.entry(&Entry { copy: seen, source: seen, hash: None, ..entry });
            }
            // A disk that cannot read a file has damaged it as well.
            Ok(_) | Err(_) => self.count(entry.copy.size),
        }
        let mut damage = Damage { path: shown(self.day, &entry.path), hash: wanted, repaired: false, why: None };
        let mut entry = entry;
        if let Some(repair) = self.repair {
            // Whatever is refused anyhow need not be brought here before.
            let source = self.repairs.check(&entry.path, &entry.copy);
            let source = source.and_then(|()| Ok(repair(&damage.path, wanted, entry.copy.size)?));
            match source.and_then(|source| self.repairs.repair(&entry.path, &entry.copy, wanted, &source)) {
                Ok((copy, untouched)) => {
                    damage.repaired = true;
                    entry.copy = copy;
                    // Whoever has written to it since meant that: the next look reads what it holds.
                    entry.hash = entry.hash.filter(|_| untouched);
                    self.repaired.insert(copy.ino);
                }
                // It is damaged in any case; that it was not brought back says nothing of whoever was asked.
                Err(error) if matches!(error, ArchiveError::Cancelled) || self.archive.monitor.cancelled() => {
                    self.found.damaged.push(damage);
                    return Err(ArchiveError::Cancelled);
                }
                Err(error) => damage.why = Some(error.to_string()),
            }
        }
        self.found.damaged.push(damage);
        self.writer.entry(&entry)
    }

    fn count(&mut self, size: u64) {
        self.found.files += 1;
        self.found.bytes += size;
        // Its bytes were told while they were read.
        self.archive.monitor.advance(1, 0);
    }

    /// Could another change in this tick of the clock bear the same times?
    fn is_racy(&self, seen: &Signature) -> bool {
        let granularity = self.archive.granularity_ns;
        granularity > 0 && seen.ctime_ns >= coarse_now_ns().saturating_sub(granularity)
    }

    /// It came, or was written to: what it is now is what counts.
    /// `known` is the hash of bytes that are no news.
    fn fresh(&mut self, path: &RelPath, dir: &Dir, (look, known): (&Look, Option<Hash>)) -> Result<(), ArchiveError> {
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
            Kind::File => match read(dir, name.as_bytes(), self.archive.monitor) {
                Ok((hash, seen)) => {
                    self.count(seen.size);
                    self.found.changed += u64::from(known != Some(hash));
                    // Bytes that may be other ones by now are read again.
                    let stood_still = walk::is_same(&look.signature, &seen) && !self.is_racy(&seen);
                    entry.hash = stood_still.then_some(hash);
                    (entry.source, entry.copy) = (seen, seen);
                }
                Err(ArchiveError::Cancelled) => return Err(ArchiveError::Cancelled),
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

/// Is it a file with the size and the time that it had? Its names, its mode or its bytes changed.
fn is_alike(entry: &Entry, look: &Look) -> bool {
    let (known, now) = (&entry.copy, &look.signature);
    let file = entry.kind == Kind::File && kind_of(now) == Some(Kind::File);
    file && (known.ino, known.size, known.mtime_ns) == (now.ino, now.size, now.mtime_ns)
}

/// Is a further name of a file still one of the file that its first name belongs to?
fn is_one_file(top: &Dir, entry: &Entry) -> Result<bool, FsError> {
    let Some((parent, name)) = entry.first.split() else { return Ok(false) };
    match top.below(&parent).and_then(|dir| dir.stat(name.as_bytes())) {
        Ok(first) => Ok(first.is_some_and(|first| first.ino == entry.copy.ino)),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file that is read at the pace of whoever listens, and no further once it is to stop: others wait for the end of it.
struct Heeding<'a> {
    file: File,
    monitor: &'a dyn Monitor,
    stopped: bool,
}

impl Read for Heeding<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.monitor.cancelled() {
            self.stopped = true;
            return Err(io::Error::other("stopped"));
        }
        let count = self.file.read(buffer)?;
        self.monitor.advance(0, count as u64);
        Ok(count)
    }
}

/// The hash of what comes from the disk, and what the file was when all was read; what it was before is known from its name.
fn read(dir: &Dir, name: &[u8], monitor: &dyn Monitor) -> Result<(Hash, Signature), ArchiveError> {
    let file = dir.open_file(name)?;
    forget_cached(&file, &dir.locate(name))?;
    let mut heeding = Heeding { file, monitor, stopped: false };
    let read = with_buffer(|buffer| hash_file(&mut heeding, buffer));
    if heeding.stopped {
        return Err(ArchiveError::Cancelled);
    }
    let (_, hash) = read.map_err(|source| FsError { action: "read", path: dir.locate(name), source })?;
    Ok((hash, file_signature(&heeding.file, &dir.locate(name))?))
}
