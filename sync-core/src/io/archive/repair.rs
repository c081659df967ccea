//! A damaged file gets its bytes back: a whole new file takes the place of each of its names, so that they stay names of one file.
//! What was begun is finished by the next look at the day, by what stands on the disk.

use super::Archive;
use super::copy::shown;
use super::error::ArchiveError;
use super::walk::{self, sorted};
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::{Dir, FsError, Replace, copy_sparse, file_xattrs, finish_exactly};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, with_buffer};
use crate::path::{Name, RESERVED, RelPath};
use std::fs::File;

/// Folder in the hot root's private folder in the cold root: a folder for each day that is being repaired, by its stamp.
const REPAIRS: &[u8] = b"repairs";
/// Behind the name of a new file that is not whole.
const PART: &[u8] = b".part";
/// What is exchanged with a name: the new file before, the damaged one afterwards.
const OUT: &[u8] = b"out";

/// Repairs of one day.
pub(super) struct Repairs<'a> {
    archive: &'a Archive<'a>,
    day: &'a RelPath,
    /// The day, where it lies.
    top: &'a Dir,
    private: &'a Dir,
    stamp: Vec<u8>,
}

/// A damaged file as it was known: nobody who writes to it leaves all of this as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Damaged {
    ino: u64,
    size: u64,
    mtime_ns: i64,
}

impl Damaged {
    fn of(signature: &Signature) -> Damaged {
        Damaged { ino: signature.ino, size: signature.size, mtime_ns: signature.mtime_ns }
    }

    /// Under this name the new file waits.
    fn name(self) -> Vec<u8> {
        format!("{}-{}-{}", self.ino, self.size, self.mtime_ns).into_bytes()
    }

    fn parse(name: &[u8]) -> Option<Damaged> {
        let mut parts = std::str::from_utf8(name).ok()?.splitn(3, '-');
        let (ino, size) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Damaged { ino, size, mtime_ns: parts.next()?.parse().ok()? })
    }
}

impl Archive<'_> {
    /// Finishes the repairs that a crash has left, before anybody looks at those days: the further names of a damaged file have changed by
    /// then, and would count as edits. What cannot be finished is told.
    pub(super) fn finish_repairs(&self) -> Vec<(RelPath, ArchiveError)> {
        let mut problems = Vec::new();
        let places = self.root.places();
        for cold in places.colds() {
            let names = cold.dir().and_then(|dir| {
                let private = dir.open_dir(RESERVED)?.open_dir(cold.key.as_bytes())?;
                let begun = sorted(&private.open_dir(REPAIRS)?)?;
                Ok((private, begun))
            });
            // Nothing was begun there; or it is not there, which is told by whoever needs it.
            let Ok((private, begun)) = names else { continue };
            for placement in places.all().filter(|placement| placement.cold.id == cold.id) {
                let stamp = placement.stamp.to_string().into_bytes();
                if begun.iter().all(|name| name[..] != stamp[..]) {
                    continue;
                }
                let done = placement
                    .open()
                    .map_err(ArchiveError::from)
                    .and_then(|top| Repairs::begin(self, (&placement.path, &top), &private, &stamp)?.end());
                problems.extend(done.err().map(|error| (placement.path.clone(), error)));
            }
        }
        problems
    }
}

impl<'a> Repairs<'a> {
    /// Finishes what was begun by a look at the day that did not end.
    pub(super) fn begin(
        archive: &'a Archive<'a>,
        (day, top): (&'a RelPath, &'a Dir),
        private: &'a Dir,
        stamp: &[u8],
    ) -> Result<Repairs<'a>, ArchiveError> {
        let repairs = Repairs { archive, day, top, private, stamp: stamp.to_vec() };
        let Some(folder) = repairs.left()? else { return Ok(repairs) };
        let mut begun = Vec::new();
        for name in sorted(&folder)? {
            match Damaged::parse(&name) {
                Some(damaged) => begun.push(damaged),
                None if name.ends_with(PART) => folder.unlink(&name)?,
                None => {}
            }
        }
        repairs.clear_out(&folder, &begun)?;
        for damaged in begun {
            let names = repairs.names_of(damaged.ino)?;
            match repairs.exchange(&folder, damaged, &names) {
                Ok(()) | Err(ArchiveError::Changed(_)) => {}
                Err(error) => return Err(error),
            }
            folder.unlink(&damaged.name())?;
        }
        repairs.end()?;
        Ok(repairs)
    }

    fn left(&self) -> Result<Option<Dir>, ArchiveError> {
        match self.private.open_dir(REPAIRS).and_then(|repairs| repairs.open_dir(&self.stamp)) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What a crash left between two names of an exchange goes if it is ours; what a user has put there in the last moment stays.
    fn clear_out(&self, folder: &Dir, begun: &[Damaged]) -> Result<(), ArchiveError> {
        let Some(out) = folder.stat(OUT)? else { return Ok(()) };
        let mut ours = begun.contains(&Damaged::of(&out));
        for damaged in begun {
            ours |= folder.stat(&damaged.name())?.is_some_and(|new| new.ino == out.ino);
        }
        match ours {
            true => Ok(folder.unlink(OUT)?),
            false => Err(ArchiveError::refused(
                self.day,
                format!("left a file in {}: look at it, and move it back", folder.locate(OUT).display()),
            )),
        }
    }

    /// The empty folder goes.
    pub(super) fn end(&self) -> Result<(), ArchiveError> {
        if self.left()?.is_some() {
            self.private.open_dir(REPAIRS)?.rmdir(&self.stamp)?;
        }
        Ok(())
    }

    /// Puts the bytes of `source` in the place of a damaged file, under all names that it has, if they are the ones that were lost.
    /// `entry` is what it was when it was whole. Returns what it is then.
    pub(super) fn repair(
        &self,
        path: &RelPath,
        known: &Signature,
        wanted: Hash,
        source: &File,
    ) -> Result<Signature, ArchiveError> {
        let whole = shown(self.day, path);
        let (parent, name) = path.split().ok_or_else(|| ArchiveError::refused(self.day, "has no name"))?;
        let dir = self.top.below(&parent)?;
        let look = dir.look(name.as_bytes())?.filter(|look| walk::is_same(known, &look.signature));
        let look = look.ok_or_else(|| ArchiveError::Changed(whole.clone()))?;
        let damaged = Damaged::of(&look.signature);
        let names = match look.links {
            1 => vec![path.clone()],
            _ => self.names_of(damaged.ino)?,
        };
        if names.len() as u64 != look.links {
            let why = format!("has {} names, of which {} lie outside of the day", look.links, look.links - names.len() as u64);
            return Err(ArchiveError::refused(&whole, format!("{why}: a repair would tear them apart")));
        }
        let folder = self.private.open_or_create(REPAIRS)?.open_or_create(&self.stamp)?;
        let part = [&damaged.name(), PART].concat();
        let failed = |source| FsError { action: "copy to", path: folder.locate(&part), source };
        let out = folder.create_file_for(&part, known.mode)?;
        let size = source.metadata().map_err(failed)?.len();
        let hash = with_buffer(|buffer| copy_sparse(source, size, &out, buffer)).map_err(failed);
        if hash.as_ref().ok() != Some(&wanted) {
            folder.unlink(&part)?;
            hash?;
            return Err(ArchiveError::refused(&whole, "has other bytes there, too"));
        }
        let xattrs = file_xattrs(&dir.open_file(name.as_bytes())?, &dir.locate(name.as_bytes()))?;
        finish_exactly(&out, &folder.locate(&part), &known.attrs(), &xattrs)?;
        out.sync_all().map_err(failed)?;
        folder.rename(&part, &folder, &damaged.name(), Replace::Never)?;
        folder.sync_all()?;
        kill_point("archive-repair-ready");
        let done = self.exchange(&folder, damaged, &names);
        folder.unlink(&damaged.name())?;
        done?;
        dir.stat(name.as_bytes())?.ok_or(ArchiveError::Changed(whole))
    }

    /// Each name of the damaged file becomes one of the new file. Whoever replaced or wrote to it meanwhile has it back as it was. Nobody
    /// else looks at it in between: one name of the damaged file that goes changes its others, which would count as an edit.
    fn exchange(&self, folder: &Dir, damaged: Damaged, names: &[RelPath]) -> Result<(), ArchiveError> {
        let _turn = self.archive.turn();
        for path in names {
            let Some((parent, name)) = path.split() else { continue };
            let (dir, name) = (self.top.below(&parent)?, name.as_bytes());
            if dir.stat(name)?.is_none_or(|now| Damaged::of(&now) != damaged) {
                return Err(ArchiveError::Changed(shown(self.day, path)));
            }
            folder.hard_link(&damaged.name(), folder, OUT)?;
            folder.rename(OUT, &dir, name, Replace::Exchange)?;
            if folder.stat(OUT)?.is_none_or(|out| Damaged::of(&out) != damaged) {
                folder.rename(OUT, &dir, name, Replace::Exchange)?;
                folder.unlink(OUT)?;
                return Err(ArchiveError::Changed(shown(self.day, path)));
            }
            kill_point("archive-repaired");
            dir.sync()?;
            folder.unlink(OUT)?;
        }
        Ok(())
    }

    /// All names of a file in the day.
    fn names_of(&self, ino: u64) -> Result<Vec<RelPath>, ArchiveError> {
        let mut found = Vec::new();
        names_below(self.top, &RelPath::root(), ino, &mut found)?;
        Ok(found)
    }
}

fn names_below(dir: &Dir, path: &RelPath, ino: u64, found: &mut Vec<RelPath>) -> Result<(), ArchiveError> {
    let own = dir.stat_self()?;
    for name in sorted(dir)? {
        let (Some(now), Ok(parsed)) = (dir.stat(&name)?, Name::parse(&name)) else { continue };
        // On another file system the number tells of another file.
        if now.dev != own.dev {
            continue;
        }
        let child = path.join(&parsed);
        match kind_of(&now) {
            Some(Kind::Dir) => names_below(&dir.open_dir(&name)?, &child, ino, found)?,
            Some(Kind::File) if now.ino == ino => found.push(child),
            _ => {}
        }
    }
    Ok(())
}
