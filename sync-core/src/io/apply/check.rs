//! The checks right before and right after a change of the disk: is this what was scanned?

use super::Stop;
use super::moves::Contents;
use super::rows::{Live, Rows};
use crate::entry::{Hash, Kind, Same, Signature};
use crate::io::fs::{Dir, FsError, hash_file};
use crate::io::source::{kind_of, unchanged, with_buffer};
use crate::io::stage::Failure;
use crate::io::state::{Known, NodeId};
use crate::knowledge::Row;
use crate::path::{RelPath, escape};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;

/// The text of every refusal because of a local edit.
const CHANGED: &str = "it was changed here since it was scanned";

pub(super) fn changed(step: &'static str) -> Stop {
    Failure::new(step, CHANGED).into()
}

/// Is what the rows hold still what the step was decided on? Returns the recorded signature.
pub(super) fn expected(current: Option<&Live>, expect: Option<&Row>, step: &'static str) -> Result<Option<Signature>, Stop> {
    match (current, expect) {
        (None, None) => Ok(None),
        (Some(live), Some(row)) if same_version(&live.row, row) => Ok(Some(live.signature)),
        _ => Err(changed(step)),
    }
}

/// A hash may have become known since; the version may not have changed.
fn same_version(current: &Row, expect: &Row) -> bool {
    current.m == expect.m
        && current.object.kind() == expect.object.kind()
        && current.object.same_content(&expect.object) != Same::No
}

/// Is the object at `name` the recorded one? A directory is compared by what is its own, not by its contents.
pub(super) fn on_disk(dir: &Dir, name: &[u8], recorded: &Signature, live: Option<&Live>, step: &'static str) -> Result<(), Stop> {
    let Some(disk) = dir.stat(name)? else {
        return Err(Failure::new(step, "it vanished here since it was scanned").into());
    };
    if !same_recorded(&disk, recorded) {
        return Err(changed(step));
    }
    if recorded.racy
        && let Some(hash) = live.and_then(|live| super::job::hash_of(&live.row.object))
        && !holds(dir, name, &hash, step)?
    {
        return Err(changed(step));
    }
    Ok(())
}

/// Does a file hold these bytes? The recorded times cannot tell a change made right after the scan's read.
fn holds(dir: &Dir, name: &[u8], hash: &Hash, step: &'static str) -> Result<bool, Stop> {
    let mut file = dir.open_file(name)?;
    let (_, found) = with_buffer(|buffer| hash_file(&mut file, buffer)).map_err(|error| Failure::of(step)(&error))?;
    Ok(found == *hash)
}

/// Does the disk show what was recorded?
pub(super) fn same_recorded(disk: &Signature, recorded: &Signature) -> bool {
    if kind_of(recorded) == Some(Kind::Dir) {
        disk.ino == recorded.ino && (disk.mode, disk.uid, disk.gid) == (recorded.mode, recorded.uid, recorded.gid)
    } else {
        unchanged(disk, recorded)
    }
}

/// Compares everything below an open directory with the rows of `path`. Returns what stands there; `None` if that is more
/// than `limit` entries.
///
/// An entry that is not recorded, a recorded one that is missing or was changed: all are refusals, since the whole is
/// about to go in one rename, or just went.
pub(super) fn tree(
    rows: &Rows<'_>,
    dir: &Dir,
    path: &RelPath,
    (step, limit): (&'static str, usize),
) -> Result<Option<Contents>, Stop> {
    let mut walk = Walk { rows, step, limit, contents: Some(Contents::new()) };
    walk.below(dir, path, &RelPath::root(), None)?;
    Ok(walk.contents)
}

struct Walk<'w> {
    rows: &'w Rows<'w>,
    step: &'static str,
    limit: usize,
    contents: Option<Contents>,
}

impl Walk<'_> {
    fn below(&mut self, dir: &Dir, path: &RelPath, relative: &RelPath, node: Option<NodeId>) -> Result<(), Stop> {
        let known = self.rows.children(path, node)?;
        let mut unseen: HashSet<&[u8]> = known.iter().map(|known| known.name.as_bytes()).collect();
        for name in dir.names()? {
            if !unseen.remove(&name[..]) {
                return Err(self.refuse(&name, "is not recorded"));
            }
        }
        if let Some(name) = unseen.iter().next() {
            return Err(self.refuse(name, "vanished since it was scanned"));
        }
        for known in known {
            self.is_as_recorded(dir, &known)?;
            let name = known.name.as_bytes();
            let (path, relative) = (path.join(&known.name), relative.join(&known.name));
            let (kind, node) = (known.kind, known.node);
            let child = (kind == Kind::Dir).then(|| dir.open_dir(name)).transpose()?;
            self.contents = self.contents.take().filter(|contents| contents.len() < self.limit);
            if let Some(contents) = &mut self.contents {
                contents.push((relative.clone(), known));
            }
            if let Some(child) = child {
                self.below(&child, &path, &relative, node)?;
            }
        }
        Ok(())
    }

    fn is_as_recorded(&self, dir: &Dir, known: &Known) -> Result<(), Stop> {
        let name = known.name.as_bytes();
        let changed = || self.refuse(name, "was changed since it was scanned");
        if !dir.stat(name)?.is_some_and(|disk| same_recorded(&disk, &known.signature)) {
            return Err(changed());
        }
        if known.kind == Kind::File && known.signature.racy {
            // Where nobody read the bytes, nothing vouches for them.
            let hash = known.hash.ok_or_else(changed)?;
            if !holds(dir, name, &hash, self.step)? {
                return Err(changed());
            }
        }
        Ok(())
    }

    fn refuse(&self, name: &[u8], what: &str) -> Stop {
        Failure::new(self.step, format!("{:?} in it {what}", escape(name))).into()
    }
}

/// A rename that the system refused. Where a directory does not let its owner write, the user is told what to do.
pub(super) fn refused(error: FsError, dir: &Dir) -> Stop {
    advice(&error, dir).map_or_else(|| error.into(), Stop::from)
}

/// As [`refused`], where either of two directories may be to blame. A directory that leaves another is one: its own entry
/// for what is above it changes.
pub(super) fn refused_by_either(error: FsError, one: &Dir, other: &Dir) -> Stop {
    advice(&error, one).map_or_else(|| refused(error, other), Stop::from)
}

fn advice(error: &FsError, dir: &Dir) -> Option<Failure> {
    if error.source.kind() != ErrorKind::PermissionDenied {
        return None;
    }
    // If it cannot be looked at, the refusal itself is told.
    let mode = dir.stat_self().ok()?.mode & 0o7777;
    if mode & 0o200 != 0 {
        return None;
    }
    let at = escape(dir.path().as_os_str().as_bytes());
    let reason = format!("{error}; the directory {at} does not let its owner write (mode {mode:o}): chmod u+w it, and run again");
    Some(Failure::new(error.action, reason))
}
