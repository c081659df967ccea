//! One file or link is brought to the live day's file system, and from there to its path or beside it.

use super::Archive;
use super::bring::Bring;
use super::copy::shown;
use super::error::ArchiveError;
use super::manifest::{Entry, digest};
use super::moves::copy_of;
use super::walk::{is_same, is_untouched};
use crate::entry::{Hash, Kind, Signature};
use crate::io::apply;
use crate::io::fs::{
    Dir, FsError, Look, Placement, Replace, Rewritten, Xattrs, coarse_now_ns, copy_sparse, file_signature, file_xattrs,
    finish_exactly, hash_file, read_small, write_durably,
};
use crate::io::kill::kill_point;
use crate::io::places;
use crate::io::source::{kind_of, with_buffer};
use crate::path::RelPath;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Largest note of what was put away.
const NOTE: u64 = 16 << 10;
/// Names tried for a conflict copy.
pub(super) const TRIES: u32 = 100;

/// What was brought to the live day's file system.
pub(super) struct Brought {
    pub(super) name: Vec<u8>,
    /// What it was in the old day, right before it was read.
    pub(super) seen: Signature,
    pub(super) hash: Option<Hash>,
    pub(super) xattrs: Hash,
    /// Of a link: as it reads in the old day, and in the live one.
    pub(super) target: Box<[u8]>,
    pub(super) disk: Box<[u8]>,
}

/// The name of something that was put away, and where it stood.
type PutAway = (Box<[u8]>, RelPath);

/// Where it stands then.
pub(super) struct Landed {
    pub(super) at: RelPath,
    /// Unknown if it was not put there by us: nothing that happens in the old day changes it.
    pub(super) copy: Signature,
}

impl Bring<'_> {
    /// A copy of a file of the old day, or another name of one that was brought already; `None` while it is being written.
    pub(super) fn bring(&mut self, dir: &Dir, name: &[u8], look: &Look) -> Result<Option<Brought>, ArchiveError> {
        let (file, seen) = dir.open_file_seen(name)?;
        let xattrs = file_xattrs(&file, &dir.locate(name))?;
        let new = self.free_name()?;
        let hash = match self.other_name(look, &new)? {
            true => hash_of(&file, &dir.locate(name)),
            false => self.copy((&file, &dir.locate(name)), &new, &seen, &xattrs),
        };
        let torn = hash.is_ok() && !is_same(&seen, &file_signature(&file, &dir.locate(name))?);
        if hash.is_err() || torn {
            match self.private.unlink(&new) {
                // It was not even begun: why is told below.
                Err(error) if !error.is_missing() => return Err(error.into()),
                _ => (self.busy, self.torn) = (true, true),
            }
        }
        let hash = match hash {
            Ok(_) if torn => return Ok(None),
            // It became shorter while it was read.
            Err(ArchiveError::Fs(error)) if error.source.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            hash => Some(hash?),
        };
        kill_point("archive-late-brought");
        let (target, disk) = (Box::default(), Box::default());
        Ok(Some(Brought { name: new, seen, hash, xattrs: digest(&xattrs), target, disk }))
    }

    /// Of a file that has several names, of which one was brought: another name of that.
    fn other_name(&self, look: &Look, new: &[u8]) -> Result<bool, ArchiveError> {
        let Some((path, ino)) = self.first.get(&look.signature.ino) else { return Ok(false) };
        let Some((parent, first)) = path.split() else { return Ok(false) };
        self.live.below(&parent)?.hard_link(first.as_bytes(), &self.private, new)?;
        let right = self.private.stat(new)?.is_some_and(|found| found.ino == *ino);
        if !right {
            self.private.unlink(new)?;
        }
        Ok(right)
    }

    fn copy(&self, (file, path): (&File, &Path), new: &[u8], seen: &Signature, xattrs: &Xattrs) -> Result<Hash, ArchiveError> {
        let out = self.private.create_file_for(new, seen.mode)?;
        let free = self.private.space()?.0.saturating_sub(super::SPARE_BYTES);
        if seen.size > free {
            let path = path.to_owned();
            let source = std::io::Error::new(ErrorKind::StorageFull, format!("{free} bytes are free where it is to go"));
            return Err(FsError { action: "copy", path, source }.into());
        }
        let failed = |source| FsError { action: "copy to", path: self.private.locate(new), source };
        let hash = with_buffer(|buffer| copy_sparse(file, seen.size, &out, buffer)).map_err(failed)?;
        finish_exactly(&out, &self.private.locate(new), &seen.attrs(), xattrs)?;
        // On the disk before what it was brought from can go.
        out.sync_all().map_err(failed)?;
        Ok(hash)
    }

    pub(super) fn bring_link(&mut self, path: &RelPath, dir: &Dir, look: &Look) -> Result<Brought, ArchiveError> {
        let name = path.name().ok_or_else(|| ArchiveError::refused(&self.job.path, "has no name"))?;
        let target = dir.link_text(name.as_bytes())?;
        // One that leads out of a day that lies elsewhere reads there as one that comes from another machine does.
        let placed = self.archive.root.places().get(&self.job.path).is_some();
        let written = || self.archive.root.disk_text(&self.job.path, &shown(&self.job.path, path), &target);
        let disk = placed.then(written).flatten().unwrap_or_else(|| target.clone());
        let new = self.free_name()?;
        let xattrs = dir.link_xattrs(name.as_bytes())?;
        self.private.create_symlink(&new, &disk)?;
        self.private.finish_link(&new, &look.signature.attrs(), &xattrs)?;
        Ok(Brought { name: new, seen: look.signature, hash: None, xattrs: digest(&xattrs), target, disk })
    }

    /// Before a link that reads otherwise comes to its path it is recorded what it stands for: else it would look like an edit.
    fn record_rewritten(&self, path: &RelPath, brought: &Brought) -> Result<(), ArchiveError> {
        if brought.disk == brought.target {
            return Ok(());
        }
        let Archive { root, state, .. } = self.archive;
        let _turn = self.archive.turn();
        let Some(placement) = root.places().get(&self.job.path).cloned() else { return Ok(()) };
        let mut placement = Placement::clone(&placement);
        let link = Rewritten { disk: brought.disk.clone(), target: brought.target.clone() };
        if placement.rewritten.insert(path.clone(), link.clone()).is_none_or(|known| known != link) {
            places::amend(root, state, placement, Vec::new())?;
        }
        Ok(())
    }

    /// What was brought takes its place in the live day: a free one, or that of the entry if nobody changed it there; else it
    /// stands beside it. `path` is as in the old day, or where the entry stands beside it.
    pub(super) fn put(&mut self, path: &RelPath, brought: &Brought, entry: Option<&Entry>) -> Result<Landed, ArchiveError> {
        self.make_way_to(path)?;
        let at = self.at(path)?;
        let (dir, name) = self.parent(path)?;
        let now = dir.look(&name)?;
        match (now, entry) {
            (None, _) => {
                self.dirs.touch(path, &dir)?;
                self.record_rewritten(&at, brought)?;
                self.private.rename(&brought.name, &dir, &name, Replace::Never)?;
                kill_point("archive-late-put");
                self.told(path);
                return Ok(Landed { at, copy: dir.stat(&name)?.unwrap_or_default() });
            }
            (Some(now), Some(entry)) if self.is_ours(entry, (&dir, &name), &now)? => {
                self.dirs.touch(path, &dir)?;
                self.note_put_away(&brought.name, path, &now.signature)?;
                self.private.rename(&brought.name, &dir, &name, Replace::Exchange)?;
                kill_point("archive-late-exchanged");
                let out = self.private.stat(&brought.name)?.unwrap_or_default();
                if is_untouched(copy_of(entry), &out) {
                    // What it replaces stays among what is kept for this move.
                    self.told(path);
                    return Ok(Landed { at, copy: dir.stat(&name)?.unwrap_or_default() });
                }
                self.private.rename(&brought.name, &dir, &name, Replace::Exchange)?;
                self.private.unlink(&note_of(&brought.name))?;
            }
            (Some(now), _) if self.is_equal((&dir, &name), &now, brought)? => {
                let like = now.signature.attrs() == brought.seen.attrs();
                if !like && !self.anew {
                    self.keeps_its_own(path);
                }
                self.private.unlink(&brought.name)?;
                let copy = if self.anew || !like { Signature::default() } else { now.signature };
                return Ok(Landed { at, copy });
            }
            _ => {}
        }
        self.put_beside(&at, brought)
    }

    fn is_equal(&self, (dir, name): (&Dir, &[u8]), now: &Look, brought: &Brought) -> Result<bool, ArchiveError> {
        match kind_of(&now.signature) {
            Some(Kind::Symlink) => Ok(brought.hash.is_none() && dir.link_text(name)? == brought.disk),
            Some(Kind::File) if brought.hash.is_some() => {
                Ok(Some(hash_of(&dir.open_file(name)?, &dir.locate(name))?) == brought.hash)
            }
            _ => Ok(false),
        }
    }

    /// `at` is the path in the live day.
    fn put_beside(&mut self, at: &RelPath, brought: &Brought) -> Result<Landed, ArchiveError> {
        let whole = shown(&self.job.path, at);
        let parent = at.parent().unwrap_or_default();
        let dir = self.live.below(&parent)?;
        if let Some(at) = self.stands_beside((&dir, &parent), at, brought)? {
            self.private.unlink(&brought.name)?;
            return Ok(Landed { at, copy: Signature::default() });
        }
        for number in 1..=TRIES {
            let Some(wish) = apply::late_name(at, coarse_now_ns(), brought.hash.as_ref(), number) else { break };
            let Some(name) = wish.name() else { break };
            if dir.stat(name.as_bytes())?.is_some() {
                continue;
            }
            self.dirs.touch(at, &dir)?;
            self.record_rewritten(&wish, brought)?;
            match self.private.rename(&brought.name, &dir, name.as_bytes(), Replace::Never) {
                Ok(()) => {
                    kill_point("archive-late-beside");
                    self.told(&wish);
                    self.beside.push(shown(&self.job.path, &wish));
                    return Ok(Landed { copy: dir.stat(name.as_bytes())?.unwrap_or_default(), at: wish });
                }
                Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ArchiveError::refused(&whole, "was written to in two places, and no name is free to keep both"))
    }

    /// Is it kept beside its path already? A look that was interrupted before it was recorded has put it there.
    fn stands_beside(
        &self,
        (dir, parent): (&Dir, &RelPath),
        at: &RelPath,
        brought: &Brought,
    ) -> Result<Option<RelPath>, ArchiveError> {
        let hash = brought.hash.map_or_else(String::new, |hash| format!("{hash:?}"));
        let Some(own) = at.name() else { return Ok(None) };
        let stem = own.as_bytes().split(|byte| *byte == b'.').find(|part| !part.is_empty()).unwrap_or_default();
        for name in dir.names()? {
            let text = String::from_utf8_lossy(&name);
            let alike = text.contains(".conflict-late-") && text.contains(&hash);
            // A long name is cut.
            let alike = alike && (own.as_bytes().len() > 128 || name.windows(stem.len().max(1)).any(|part| part == stem));
            if alike
                && let Some(look) = dir.look(&name)?
                && self.is_equal((dir, &name), &look, brought)?
                && let Ok(name) = crate::path::Name::parse(&name)
            {
                return Ok(Some(parent.join(&name)));
            }
        }
        Ok(None)
    }

    /// Before something of the live day is put away under a name: where it stood and how it was is noted. A program that has it open
    /// may go on writing to it.
    pub(super) fn note_put_away(&self, name: &[u8], path: &RelPath, was: &Signature) -> Result<(), ArchiveError> {
        note(&self.private, (name, path), was)
    }

    /// What was written since to something that was put away in these folders comes beside its path.
    pub(super) fn bring_put_away(&mut self, folders: &[Dir]) -> Result<(), ArchiveError> {
        for folder in folders {
            for (name, path) in written_since(folder)? {
                let Some(look) = folder.look(&name)? else { continue };
                let Some(brought) = self.bring(folder, &name, &look)? else { continue };
                self.make_way_to(&path)?;
                let at = self.at(&path)?;
                self.put_beside(&at, &brought)?;
                note(folder, (&name, &path), &brought.seen)?;
            }
        }
        Ok(())
    }

    /// A name in the folder of what is brought over.
    pub(super) fn free_name(&self) -> Result<Vec<u8>, ArchiveError> {
        for number in self.done.len()..usize::MAX {
            let name = format!("{number}").into_bytes();
            if self.private.look(&name)?.is_none() {
                return Ok(name);
            }
        }
        Err(ArchiveError::refused(&self.job.path, "has too many late writes"))
    }
}

/// The hash of a file from its beginning.
pub(super) fn hash_of(mut file: &File, path: &Path) -> Result<Hash, ArchiveError> {
    let read = with_buffer(|buffer| hash_file(&mut file, buffer));
    Ok(read.map(|(_, hash)| hash).map_err(|source| FsError { action: "read", path: path.to_owned(), source })?)
}

fn note(folder: &Dir, (name, path): (&[u8], &RelPath), was: &Signature) -> Result<(), ArchiveError> {
    if kind_of(was) != Some(Kind::File) {
        return Ok(());
    }
    let text = [format!("{} {} ", was.size, was.mtime_ns).as_bytes(), path.as_bytes()].concat();
    Ok(write_durably(folder, &note_of(name), &text)?)
}

/// Of what was put away: the note of how it was.
fn note_of(name: &[u8]) -> Vec<u8> {
    [name, b".was"].concat()
}

/// What was put away in a folder and has been written to since, and where it stood.
pub(super) fn written_since(private: &Dir) -> Result<Vec<PutAway>, ArchiveError> {
    let mut written = Vec::new();
    for note in private.names()? {
        let Some(name) = note.strip_suffix(b".was") else { continue };
        let Some(bytes) = read_small(private, &note, NOTE)? else { continue };
        let mut parts = bytes.splitn(3, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<i128>().ok();
        let (size, mtime) = (number(), number());
        let path = parts.next().and_then(|path| RelPath::parse(path).ok());
        let Some(path) = path else {
            let source = std::io::Error::other("it tells no path: it is damaged");
            return Err(FsError { action: "read", path: private.locate(&note), source }.into());
        };
        if let Some(now) = private.stat(name)?
            && (Some(i128::from(now.size)), Some(i128::from(now.mtime_ns))) != (size, mtime)
        {
            written.push((name.into(), path));
        }
    }
    Ok(written)
}
