//! A damaged file gets its bytes back: a whole new file takes the place of each of its names, so that they stay names of one file.
//! What was begun is finished by the next look at the day, by what stands on the disk. The damaged file goes to the kept versions of its
//! cold root: a program that has it open may write to it still.

use super::Archive;
use super::copy::shown;
use super::error::ArchiveError;
use super::manifest::{Entry, Reader};
use super::moves::SEALED;
use super::walk::{self, sorted};
use crate::entry::{Hash, Kind, Signature};
use crate::io::apply::{Keeper, VersionError};
use crate::io::fs::{
    ColdId, Dir, FsError, Look, Placement, Replace, copy_sparse_while, file_signature, file_xattrs, finish_exactly,
};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, with_buffer};
use crate::path::{Name, RESERVED, RelPath};
use std::cell::Cell;
use std::fs::File;
use std::io::ErrorKind;

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
    /// The cold root that it lies in.
    cold: ColdId,
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
                let top = placement.open().map_err(ArchiveError::from);
                let done = top.and_then(|top| Repairs::begin(self, placement, (&top, &private)).map(|repairs| repairs.end()));
                problems.extend(done.err().map(|error| (placement.path.clone(), error)));
            }
        }
        problems
    }
}

impl<'a> Repairs<'a> {
    /// Finishes what was begun by a look at the day that did not end. `top` is the day where it lies.
    pub(super) fn begin(
        archive: &'a Archive<'a>,
        placement: &'a Placement,
        (top, private): (&'a Dir, &'a Dir),
    ) -> Result<Repairs<'a>, ArchiveError> {
        let stamp = placement.stamp.to_string().into_bytes();
        let repairs = Repairs { archive, day: &placement.path, cold: placement.cold.id, top, private, stamp };
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
            match repairs.exchange(&folder, damaged, &names, None) {
                Ok(()) | Err(ArchiveError::Changed(_)) => {}
                Err(error) => return Err(error),
            }
            folder.unlink(&damaged.name())?;
        }
        repairs.end();
        Ok(repairs)
    }

    fn left(&self) -> Result<Option<Dir>, ArchiveError> {
        match self.private.open_dir(REPAIRS).and_then(|repairs| repairs.open_dir(&self.stamp)) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn keeper(&self) -> Result<Keeper<'a>, ArchiveError> {
        Keeper::open(self.archive.root, self.archive.state, self.cold).map_err(|error| self.not_kept(error))
    }

    fn not_kept(&self, error: VersionError) -> ArchiveError {
        match error {
            VersionError::Fs(error) => error.into(),
            VersionError::State(error) => error.into(),
            error => ArchiveError::refused(self.day, format!("has a file that cannot be put away: {error}")),
        }
    }

    /// What a crash or a disk that failed left between two names of an exchange: our new file goes, the damaged one is kept, and what a user
    /// has put there in the last moment stands beside its path.
    fn clear_out(&self, folder: &Dir, begun: &[Damaged]) -> Result<(), ArchiveError> {
        let Some(out) = folder.look(OUT)? else { return Ok(()) };
        let mut at = None;
        for damaged in begun {
            let Some(new) = folder.stat(&damaged.name())? else { continue };
            if new.ino == out.signature.ino {
                return Ok(folder.unlink(OUT)?);
            }
            at = self.names_of(new.ino)?.pop().or(at);
        }
        let recorded = self.recorded(out.signature.ino)?;
        let known = recorded.as_ref().is_some_and(|entry| walk::is_untouched(&entry.copy, &out.signature));
        let path = recorded.map(|entry| entry.path).or(at).map_or_else(|| RelPath::parse(OUT), Ok);
        let path = path.map_err(|_| ArchiveError::refused(self.day, "has no name"))?;
        let keeper = self.keeper()?;
        let _turn = self.archive.turn();
        match known || begun.contains(&Damaged::of(&out.signature)) {
            true => self.put_away((folder, &keeper), &path, &out.signature),
            false => self.put_beside((folder, &keeper), &path),
        }
    }

    /// The first name of a file, by what was recorded of the day when it was read last.
    fn recorded(&self, ino: u64) -> Result<Option<Entry>, ArchiveError> {
        let sealed = self.private.open_or_create(SEALED)?;
        if sealed.look(&self.stamp)?.is_none() {
            return Ok(None);
        }
        let mut entries = Reader::new(sealed.open_file(&self.stamp)?, &sealed.locate(&self.stamp))?;
        while let Some(entry) = entries.next()? {
            if entry.kind == Kind::File && entry.copy.ino == ino {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The empty folder goes. One that does not is told, and looked at by the next look at the day: what was found counts all the same.
    pub(super) fn end(&self) {
        let gone = self.left().and_then(|left| match left {
            Some(_) => Ok(self.private.open_dir(REPAIRS)?.rmdir(&self.stamp)?),
            None => Ok(()),
        });
        if let Err(error) = gone {
            let text = format!("{}: what a repair left is not cleared away, the next look tries again: {error}", self.day);
            self.archive.monitor.notice(&text);
        }
    }

    /// Would a damaged file be repaired now? `known` is what it was when it was whole.
    pub(super) fn check(&self, path: &RelPath, known: &Signature) -> Result<(), ArchiveError> {
        self.names_to_exchange(path, known)?;
        self.check_room(known.size)
    }

    /// The damaged file, if it is still the one that was read, and all of its names, if those lie in the day.
    fn names_to_exchange(&self, path: &RelPath, known: &Signature) -> Result<(Damaged, Vec<RelPath>), ArchiveError> {
        let whole = shown(self.day, path);
        let (parent, name) = path.split().ok_or_else(|| ArchiveError::refused(self.day, "has no name"))?;
        let look = self.top.below(&parent)?.look(name.as_bytes())?.filter(|look| walk::is_same(known, &look.signature));
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
        Ok((damaged, names))
    }

    fn check_room(&self, size: u64) -> Result<(), ArchiveError> {
        let free = self.private.space()?.0.saturating_sub(super::SPARE_BYTES);
        if size <= free {
            return Ok(());
        }
        let text = format!("{free} bytes are free in the cold root, and {size} are needed: make room there");
        let source = std::io::Error::new(ErrorKind::StorageFull, text);
        Err(FsError { action: "copy to", path: self.private.locate(REPAIRS), source }.into())
    }

    /// Puts the bytes of `source` in the place of a damaged file, under all names that it has, if they are the ones that were lost.
    /// `known` is what it was when it was whole. Returns what stands there then, and whether that is what was put there: somebody may have
    /// written to it since.
    pub(super) fn repair(
        &self,
        path: &RelPath,
        known: &Signature,
        wanted: Hash,
        source: &File,
    ) -> Result<(Signature, bool), ArchiveError> {
        let whole = shown(self.day, path);
        let (parent, name) = path.split().ok_or_else(|| ArchiveError::refused(self.day, "has no name"))?;
        let dir = self.top.below(&parent)?;
        let (damaged, names) = self.names_to_exchange(path, known)?;
        let folder = self.private.open_or_create(REPAIRS)?.open_or_create(&self.stamp)?;
        let ready = self.make_ready((&folder, damaged), (&dir, name.as_bytes(), &whole), (known, wanted), source);
        let done = ready.and_then(|new| {
            kill_point("archive-repair-ready");
            self.exchange(&folder, damaged, &names, Some(known)).map(|()| new)
        });
        // However it ended.
        self.discard(&folder, &damaged.name());
        self.discard(&folder, &[&damaged.name(), PART].concat());
        let new = done?;
        let now = dir.stat(name.as_bytes())?.ok_or(ArchiveError::Changed(whole))?;
        Ok((now, walk::is_untouched(&new, &now)))
    }

    /// The new file waits, durable, under the name of the damaged one. Returns what it is.
    fn make_ready(
        &self,
        (folder, damaged): (&Dir, Damaged),
        (dir, name, whole): (&Dir, &[u8], &RelPath),
        (known, wanted): (&Signature, Hash),
        source: &File,
    ) -> Result<Signature, ArchiveError> {
        let part = [&damaged.name(), PART].concat();
        let failed = |source| FsError { action: "copy to", path: folder.locate(&part), source };
        let other = || ArchiveError::refused(whole, "has other bytes there, too");
        if source.metadata().map_err(failed)?.len() != known.size {
            return Err(other());
        }
        self.check_room(known.size)?;
        let out = folder.create_file_for(&part, known.mode)?;
        // A large file is stopped within, too: whoever ends the look waits for it.
        let stopped = Cell::new(false);
        let goes_on = || {
            stopped.set(stopped.get() || self.archive.monitor.cancelled());
            !stopped.get()
        };
        let copied = with_buffer(|buffer| copy_sparse_while(source, known.size, &out, buffer, &goes_on));
        if stopped.get() {
            return Err(ArchiveError::Cancelled);
        }
        if copied.map_err(failed)? != wanted {
            return Err(other());
        }
        let xattrs = file_xattrs(&dir.open_file(name)?, &dir.locate(name))?;
        finish_exactly(&out, &folder.locate(&part), &known.attrs(), &xattrs)?;
        out.sync_all().map_err(failed)?;
        folder.rename(&part, folder, &damaged.name(), Replace::Never)?;
        folder.sync_all()?;
        Ok(file_signature(&out, &folder.locate(&damaged.name()))?)
    }

    /// A file of ours goes. What stays is cleared away by the next look at the day.
    fn discard(&self, folder: &Dir, name: &[u8]) {
        if let Err(error) = folder.unlink(name)
            && !error.is_missing()
        {
            self.archive.monitor.notice(&format!("{}: {error}; the next look at the day tries again", self.day));
        }
    }

    /// Each name of the damaged file becomes one of the new file. Whoever replaced or wrote to it meanwhile has it back as it was. Nobody
    /// else looks at it in between: one name of the damaged file that goes changes its others, which would count as an edit. `known` is all
    /// that the damaged file was, if nothing happened since it was looked at.
    fn exchange(&self, folder: &Dir, damaged: Damaged, names: &[RelPath], known: Option<&Signature>) -> Result<(), ArchiveError> {
        let keeper = self.keeper()?;
        let _turn = self.archive.turn();
        let waiting = damaged.name();
        for (at, path) in names.iter().enumerate() {
            let Some((parent, name)) = path.split() else { continue };
            let (dir, name) = (self.top.below(&parent)?, name.as_bytes());
            let changed = || ArchiveError::Changed(shown(self.day, path));
            // Each name that it lost, and the exchange itself, moved its change time: that tells of others before the first one alone.
            let is_it = |look: &Look, untouched: bool| {
                let alike = match known {
                    Some(known) if untouched => walk::is_same(known, &look.signature),
                    Some(known) => walk::is_untouched(known, &look.signature),
                    None => Damaged::of(&look.signature) == damaged,
                };
                alike && look.links == (names.len() - at) as u64
            };
            if dir.look(name)?.is_none_or(|look| !is_it(&look, at == 0)) {
                return Err(changed());
            }
            folder.hard_link(&waiting, folder, OUT)?;
            if let Err(error) = folder.rename(OUT, &dir, name, Replace::Exchange) {
                folder.unlink(OUT)?;
                return Err(error.into());
            }
            let Some(out) = folder.look(OUT)?.filter(|out| is_it(out, false)) else {
                self.put_back((folder, &keeper), &waiting, (&dir, name), path)?;
                return Err(changed());
            };
            kill_point("archive-repaired");
            let synced = dir.sync();
            self.put_away((folder, &keeper), path, &out.signature)?;
            synced?;
        }
        Ok(())
    }

    /// What came out of an exchange is not the damaged file: it returns to its name. What stood there by then is ours, or a user's.
    fn put_back(
        &self,
        (folder, keeper): (&Dir, &Keeper<'_>),
        waiting: &[u8],
        (dir, name): (&Dir, &[u8]),
        path: &RelPath,
    ) -> Result<(), ArchiveError> {
        let back = folder.rename(OUT, dir, name, Replace::Exchange);
        let (new, out) = (folder.stat(waiting)?, folder.stat(OUT)?);
        match (new, out) {
            (_, None) => {}
            (Some(new), Some(out)) if new.ino == out.ino => folder.unlink(OUT)?,
            _ => self.put_beside((folder, keeper), path)?,
        }
        Ok(back?)
    }

    /// The damaged file is kept once it has lost its last name; until then those hold it. Whoever had it open may write to it still.
    fn put_away(&self, (folder, keeper): (&Dir, &Keeper<'_>), path: &RelPath, seen: &Signature) -> Result<(), ArchiveError> {
        match folder.look(OUT)? {
            None => return Ok(()),
            Some(out) if out.links > 1 => return Ok(folder.unlink(OUT)?),
            Some(_) => {}
        }
        let path = shown(self.day, path);
        if let Some(to) = keeper.keep((folder, OUT), &path, seen).map_err(|error| self.not_kept(error))? {
            self.archive.monitor.notice(&format!("{path} was written to while it was repaired: that is kept as {to}"));
        }
        Ok(())
    }

    fn put_beside(&self, (folder, keeper): (&Dir, &Keeper<'_>), path: &RelPath) -> Result<(), ArchiveError> {
        let path = shown(self.day, path);
        let to = keeper.beside((folder, OUT), &path).map_err(|error| self.not_kept(error))?;
        self.archive.monitor.notice(&format!("{path} was replaced while it was repaired: one of its versions is kept as {to}"));
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
